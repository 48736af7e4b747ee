"""A process with several savers and readers on one file, told through pipes what to do next.

`python -m tests.faults.neighbours FILE` reads one JSON list per line, a name of a method of `Neighbour` and its arguments,
and prints what it returns. `Household` starts some and plays a random schedule over them, one move at a time: whatever a
process did to its files and locks, the others see it in a known order.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from checkpoint.sqlite import SqliteSaver
from pregel.graph import START, StateGraph
from tests.support.scenarios import Log

ROOT = Path(__file__).resolve().parent.parent.parent


def _thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


class Neighbour:
    """What one process can do. Slots are numbers; a slot holds a saver or a reader of SQLite's own."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.savers: dict[int, Any] = {}
        self.readers: dict[int, sqlite3.Connection] = {}

    def open(self, slot: int) -> None:
        """A saver in this slot, beside those that are open."""
        self.savers[slot] = SqliteSaver(self.file)

    def close(self, slot: int) -> None:
        """Close that saver."""
        self.savers.pop(slot).close()

    def peek(self) -> int:
        """Look into the file with SQLite alone, and let go of it: what a backup or a shell does."""
        connection = sqlite3.connect(self.file)
        try:
            return int(connection.execute("SELECT count(*) FROM checkpoints").fetchone()[0])
        finally:
            connection.close()

    def hold(self, slot: int) -> None:
        """Begin to read, and stay there."""
        reader = self.readers[slot] = sqlite3.connect(self.file, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM checkpoints").fetchone()

    def release(self, slot: int) -> None:
        """End that reading."""
        self.readers.pop(slot).close()

    def add(self, slot: int, thread: str, word: str) -> list[str]:
        """A run of two supersteps that appends two words, each superstep on disk before the next."""

        def first(state: Log) -> dict[str, Any]:
            return {"l": [word.upper()]}

        graph = StateGraph(Log).add_node(first).add_edge(START, "first").compile(self.savers[slot])
        return list(graph.invoke({"l": [word]}, _thread(thread), durability="sync")["l"])

    def read(self, slot: int, thread: str) -> list[str] | None:
        """The thread's words; None without any."""
        found = self.savers[slot].get_tuple(_thread(thread))
        return None if found is None else found.checkpoint["channel_values"].get("l")

    def delete(self, slot: int, thread: str) -> None:
        """Delete the thread."""
        self.savers[slot].delete_thread(thread)

    def prune(self, slot: int, thread: str) -> None:
        """Keep only its newest checkpoint."""
        self.savers[slot].prune([thread])

    def fold(self) -> None:
        """Write what is in the log into the file, and start the log again if nobody reads it."""
        connection = sqlite3.connect(self.file, timeout=0)
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.close()


def main(file: str) -> None:
    """Do what the lines say until they end."""
    neighbour = Neighbour(file)
    for line in sys.stdin:
        move, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(getattr(neighbour, move)(*arguments)) + "\n")
        sys.stdout.flush()


class Process:
    """A child that runs `main`. Knows which of its slots hold a saver, and which a reader."""

    def __init__(self, file: Path) -> None:
        self.savers: set[int] = set()
        self.readers: set[int] = set()
        self.child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.neighbours", str(file)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, *move: Any) -> None:
        """Have it do something."""
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(move) + "\n")
        self.child.stdin.flush()

    def heard(self) -> Any:
        """What the last move gave."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        assert line, "the child has ended; its error is above"
        return json.loads(line)

    def do(self, *move: Any) -> Any:
        """Have it do something, and wait for the end of it."""
        self.tell(*move)
        return self.heard()

    def kill(self) -> None:
        """End at once, with everything open."""
        self.child.kill()
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            assert pipe is not None
            pipe.close()


class Household:
    """Some processes on one file, and what each thread must hold after every move."""

    def __init__(self, file: Path, seed: int, processes: int = 3) -> None:
        self.file = file
        self.random = random.Random(seed)
        self.threads: dict[str, list[str]] = {}
        self.words = 0
        self.processes = [Process(file) for _ in range(processes)]
        for process in self.processes:
            self.open(process)

    def play(self, moves: int) -> None:
        """So many moves; after each, some saver of some process reads some thread as it must be."""
        kinds = [self.open, self.close, self.peek, self.hold, self.release, self.add, self.add, self.delete, self.prune]
        kinds += [self.fold, self.burst, self.die]
        for _ in range(moves):
            self.random.choice(kinds)(self.random.choice(self.processes))
            self.check()

    def open(self, process: Process) -> None:
        """One more saver in a process."""
        process.do("open", slot := self._free(process.savers))
        process.savers.add(slot)

    def close(self, process: Process) -> None:
        """One less; the next move finds another process that has one, or opens it."""
        if process.savers:
            process.do("close", slot := self.random.choice(sorted(process.savers)))
            process.savers.remove(slot)

    def peek(self, process: Process) -> None:
        """A look by SQLite alone."""
        process.do("peek")

    def hold(self, process: Process) -> None:
        """A reader that stays."""
        process.do("hold", slot := self._free(process.readers))
        process.readers.add(slot)

    def release(self, process: Process) -> None:
        """One such reader goes."""
        if process.readers:
            process.do("release", slot := self.random.choice(sorted(process.readers)))
            process.readers.remove(slot)

    def add(self, process: Process) -> None:
        """A run on a thread that any of them may have written before."""
        thread, word = self._thread(), self._word()
        expected = [*self.threads.get(thread, []), word, word.upper()]
        assert process.do("add", self._saver(process), thread, word) == expected
        self.threads[thread] = expected

    def delete(self, process: Process) -> None:
        """A thread goes."""
        process.do("delete", self._saver(process), thread := self._thread())
        self.threads.pop(thread, None)

    def prune(self, process: Process) -> None:
        """Its history goes, its state stays."""
        process.do("prune", self._saver(process), self._thread())

    def fold(self, process: Process) -> None:
        """The log is written into the file."""
        process.do("fold")

    def burst(self, victim: Process) -> None:
        """All run at once, each on a thread of its own, and one is killed in the middle of it."""
        told = []
        for number, process in enumerate(self.processes):
            thread, word = f"own {number}", self._word()
            process.tell("add", self._saver(process), thread, word)
            told.append((process, thread, [*self.threads.get(thread, []), word, word.upper()]))
        self.processes[self.processes.index(victim)] = Process(self.file)
        victim.kill()
        for process, thread, expected in told:
            if process is not victim:
                assert process.heard() == expected
                self.threads[thread] = expected
        thread, expected = next((thread, expected) for process, thread, expected in told if process is victim)
        reader = self.random.choice(self.processes)
        found = reader.do("read", self._saver(reader), thread) or []
        # Before the input, with it, or all of it: there is nothing between two supersteps.
        assert found in (expected[:-2], expected[:-1], expected)
        if found:
            self.threads[thread] = found

    def die(self, victim: Process) -> None:
        """A process ends without closing anything; another takes its place."""
        self.processes[self.processes.index(victim)] = Process(self.file)
        victim.kill()

    def check(self) -> None:
        """Any saver sees any thread as it must be."""
        reader, thread = self.random.choice(self.processes), self._thread()
        assert reader.do("read", self._saver(reader), thread) == self.threads.get(thread), thread

    def end(self) -> None:
        """All processes end, two of them in good order."""
        for process in self.processes[:2]:
            for slot in sorted(process.savers):
                process.do("close", slot)
        for process in self.processes:
            process.kill()

    def _saver(self, process: Process) -> int:
        if not process.savers:
            self.open(process)
        return self.random.choice(sorted(process.savers))

    def _thread(self) -> str:
        return self.random.choice(["a", "b", "c", *sorted(self.threads)])

    def _word(self) -> str:
        self.words += 1
        return f"w{self.words}"

    @staticmethod
    def _free(taken: set[int]) -> int:
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)


if __name__ == "__main__":
    main(*sys.argv[1:])
