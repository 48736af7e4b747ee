"""A process of its own that runs a graph on a thread of a file, told through pipes what to do next.

`python -m tests.faults.claimants FILE COMMAND ...` prints one JSON value per line; a run that is held in its node says so
and waits for a line. `Process` starts one and talks to it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from checkpoint.base import CheckpointConflictError
from checkpoint.sqlite import SqliteSaver
from checkpoint.testing.faults import CrashAt, inject
from pregel.graph import START, StateGraph
from tests.support.scenarios import Log

ROOT = Path(__file__).resolve().parent.parent.parent
THREAD: Any = {"configurable": {"thread_id": "1"}}
HELD = "held"


def graph_of(saver: Any, *, nested: bool = False) -> Any:
    """Two nodes that add their names; the first waits for a line of stdin if the last input was `HELD`."""

    def first(state: Log) -> dict[str, Any]:
        if state["l"][-1] == HELD:
            say("held")
            sys.stdin.readline()
        return {"l": ["first"]}

    def second(state: Log) -> dict[str, Any]:
        return {"l": ["second"]}

    def build(checkpointer: Any) -> Any:
        builder = StateGraph(Log).add_node("first", first).add_node("second", second)
        return builder.add_edge(START, "first").add_edge("first", "second").compile(checkpointer)

    if not nested:
        return build(saver)
    return StateGraph(Log).add_node("inner", build(None)).add_edge(START, "inner").compile(saver)


def say(value: Any) -> None:
    """One line for the test."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def compete(graph: Any, name: str, how: str, times: int) -> list[Any]:
    """Invoke so many times; (word, config of the result) of those that were stored, (word, None) of the refused."""
    outcomes: list[Any] = []
    for number in range(times):
        word = f"{name}{number}"
        try:
            done = graph.invoke({"l": [word]}, THREAD, version="v2", on_conflict=how, durability="sync")
            assert done.value["l"][-3:] == [word, "first", "second"]
            outcomes.append((word, done.config))
        except CheckpointConflictError:
            outcomes.append((word, None))
    return outcomes


def main(file: str, command: str, *more: str) -> None:
    """Do one command."""
    options = json.loads(more[0]) if more else {}
    with SqliteSaver(file, lease_ttl=options.pop("lease_ttl", None)) as saver:
        graph = graph_of(saver, nested=options.pop("nested", False))
        if command == "lane":
            # Killed between the lane's number and its first commit.
            claim = saver.load(THREAD).claim
            with inject(saver, CrashAt("b11", 1)):
                saver.open_lane(claim)
            return
        if command == "compete":
            say("ready")
            sys.stdin.readline()
            say(compete(graph, options["name"], options["how"], options["times"]))
            return
        try:
            say(graph.invoke({"l": [HELD]}, {**THREAD, "run_id": "theirs"}, **options))
        except CheckpointConflictError as error:
            say(type(error).__name__)


class Process:
    """A child that runs `main`, killed at the end if it has not ended."""

    def __init__(self, file: Path, command: str, **options: Any) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.claimants", str(file), command, json.dumps(options)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def heard(self) -> Any:
        """The next thing it says."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        assert line, "the child has ended"
        return json.loads(line)

    def go(self) -> None:
        """Let it go on."""
        assert self.child.stdin is not None
        self.child.stdin.write("\n")
        self.child.stdin.flush()

    def stop(self) -> None:
        """Stand still."""
        self.child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.child.pid, os.WSTOPPED)

    def wake(self) -> None:
        """Go on after `stop`."""
        self.child.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End at once, and be gone."""
        self.child.kill()
        self.child.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        for pipe in (self.child.stdin, self.child.stdout):
            assert pipe is not None
            pipe.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
