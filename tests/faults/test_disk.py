"""A disk that is full or fails, a file that somebody else writes: F11, F12, F17, F35 of storage.md C13.

The error comes out as SQLite's own, once, and says which thread and step it was about; nothing later is written; what is
stored can be read; the next call goes on from there, to the end of an undisturbed run.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import threading
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from checkpoint.base import CheckpointConflictError
from checkpoint.sqlite import SqliteSaver
from checkpoint.sqlite import saver as saver_module
from checkpoint.testing.faults import (
    CrashAt,
    FailAt,
    Fault,
    ForkServer,
    Record,
    StallAt,
    disk_full,
    inject,
    io_error,
    locked,
    slow,
    sqlite_error,
)
from pregel import _scope
from pregel.constants import END, START
from pregel.graph import StateGraph
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.support.sound import assert_sound

STEPS = 12
MODES = [("sync", 1), ("async", 1), ("async", 16), ("exit", 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "threads.sqlite"


class State(TypedDict, total=False):
    n: int
    text: Annotated[list[str], lambda old, new: old + new]


class Loop:
    """A graph of twelve steps that each add 5 KB; `at` is called in the body of a step."""

    def __init__(self, saver: Any, durability: Any, is_async: bool) -> None:
        self.saver = saver
        self.durability = durability
        self.is_async = is_async
        self.at: dict[int, Any] = {}
        self.begun: Counter[int] = Counter()
        self.stored: set[str] = set()
        """Ids of tasks whose output was stored when the call began."""

        def step(state: State) -> Any:
            n = state.get("n", 0) + 1
            scope: Any = _scope.current()
            assert scope.host.id_of(scope.task) not in self.stored
            self.begun[n] += 1
            if n in self.at:
                self.at.pop(n)()
            return {"n": n, "text": [f"{random.Random(n).randbytes(2500).hex()}"]}

        builder = StateGraph(State).add_node("step", step).add_edge(START, "step")
        builder.add_conditional_edges("step", lambda state: "step" if state["n"] < STEPS else END)
        self.graph = builder.compile(checkpointer=saver)

    def run(self, given: Any) -> Any:
        run: Any = {"configurable": {"thread_id": "t"}}
        found = self.saver.get_tuple(config())
        self.stored = {task for task, _, _ in found.pending_writes} if found is not None else set()
        if self.is_async:
            return asyncio.run(self.graph.ainvoke(given, run, durability=self.durability))
        return self.graph.invoke(given, run, durability=self.durability)

    def stored_step(self) -> int:
        found = self.saver.get_tuple(config())
        return 0 if found is None else found.checkpoint["channel_values"].get("n", 0)

    def check_recovery(self, lag: int) -> None:
        """What is stored is a whole number of steps, the run had gone at most `lag` further, and it comes to its end."""
        assert_sound(self.saver)
        n = self.stored_step()
        if self.durability != "exit":
            assert max(self.begun) <= n + 1 + (lag if self.durability == "async" else 0)
        again = None if self.saver.get_tuple(config()) is not None else {"n": 0}
        result = self.run(again)
        assert (result["n"], len(result["text"])) == (STEPS, STEPS)
        assert result["text"] == [random.Random(i).randbytes(2500).hex() for i in range(1, STEPS + 1)]
        if self.durability != "exit":
            steps = [e.checkpoint["channel_values"].get("n", 0) for e in self.saver.list(config())]
            assert sorted(set(steps)) == [*range(STEPS + 1)]
        assert_sound(self.saver)


def check_error(error: BaseException, code: int) -> None:
    assert isinstance(error, sqlite3.OperationalError)
    assert error.sqlite_errorcode & 0xFF == code
    notes = " ".join(error.__notes__)
    assert "'t'" in notes
    assert "step" in notes
    # Once, not again by every driver on the way out.
    assert notes.count("nothing from step") == 1


# ---- F11, F12


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("durability", "lag"), MODES)
@pytest.mark.parametrize("spare_pages", [0, 3])
def test_f11_disk_full(path: Path, durability: str, lag: int, is_async: bool, spare_pages: int) -> None:
    with SqliteSaver(path, max_checkpoint_lag=lag) as saver, contextlib.ExitStack() as full:
        loop = Loop(saver, durability, is_async)
        loop.at[5] = lambda: full.enter_context(disk_full(saver, spare_pages=spare_pages))
        with pytest.raises(sqlite3.OperationalError) as caught:
            loop.run({"n": 0})
        check_error(caught.value, sqlite3.SQLITE_FULL)
        with pytest.raises(sqlite3.OperationalError):
            # Still full: the next call stores nothing either, and says so.
            loop.run({"n": 0} if loop.stored_step() == 0 else None)
        full.close()
        loop.check_recovery(lag)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("durability", "lag"), MODES)
@pytest.mark.parametrize("operation", ["write", "fsync"])
def test_f12_a_write_fails(path: Path, durability: str, lag: int, is_async: bool, operation: Any) -> None:
    """The next transaction is on another connection: nobody knows what a failed fsync has left in the old one."""
    with SqliteSaver(path, max_checkpoint_lag=lag) as saver, contextlib.ExitStack() as failing:
        loop = Loop(saver, durability, is_async)
        connections = saver._connections
        assert connections is not None
        old = connections.writer
        loop.at[5] = lambda: failing.enter_context(io_error(saver, operation))
        with pytest.raises(sqlite3.OperationalError) as caught:
            loop.run({"n": 0})
        check_error(caught.value, sqlite3.SQLITE_IOERR)
        loop.check_recovery(lag)
        failing.close()
        assert connections.writer is not old
        with pytest.raises(sqlite3.ProgrammingError):
            old.execute("SELECT 1")
        ScriptedRun(Store(saver, is_async), config("new")).step({"a": 1}).check(Store(saver, is_async))


@pytest.mark.parametrize("is_async", [False, True])
def test_f12_a_read_fails(path: Path, is_async: bool) -> None:
    with SqliteSaver(path) as saver:
        store = Store(saver, is_async)
        ScriptedRun(store).step({"a": 1})

        def read() -> None:
            assert store.load(config()).values == {"a": 1}
            assert len(store.list(config())) == 1

        for n in range(1, 5):
            with io_error(saver, "read", n=n) as fault:
                with pytest.raises(sqlite3.OperationalError) as caught:
                    read()
                assert caught.value.sqlite_errorcode == sqlite3.SQLITE_IOERR_READ
            assert fault.struck == 1
            # The slots of the readers are not used up, however often one fails.
            assert store.load(config()).values == {"a": 1}
        assert_sound(saver)


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_f12_the_system_fails_a_write(server: ForkServer, path: Path, durability: str) -> None:
    """As above, with an error that SQLite meets itself, in the middle of a transaction's pages."""
    seen = server.call("tests.faults.children:file_limit", str(path), durability).value
    assert seen["problems"] == []
    assert (seen["code"], seen["replaced"]) == (sqlite3.SQLITE_IOERR, True)
    assert 1 < seen["failed"] < 100
    assert (seen["stored"], seen["values"]) == (seen["failed"] - 1, 1000)


def test_a_broken_connection_is_replaced_only_when_there_is_one(path: Path) -> None:
    """While the file cannot be opened again, every write fails; then it goes on."""
    with SqliteSaver(path) as saver:
        store = Store(saver, False)
        run = ScriptedRun(store)
        run.step({"n": 0})
        with io_error(saver, "fsync"), pytest.raises(sqlite3.OperationalError):
            run.step({"n": 1})
        connections = saver._connections
        assert connections is not None
        connections.open = lambda **_: (_ for _ in ()).throw(sqlite_error("SQLITE_IOERR"))  # type: ignore[method-assign]
        for _ in range(2):
            again = ScriptedRun(store)
            with pytest.raises(sqlite3.OperationalError):
                again.step({"n": 2})
        del connections.open
        ScriptedRun(store).step({"n": 3}).check(store)
        assert [entry.checkpoint["channel_values"]["n"] for entry in saver.list(config())] == [3, 0]


@pytest.mark.parametrize("lag", [1, 16])
def test_what_was_queued_behind_a_failed_write_is_not_written(path: Path, lag: int) -> None:
    """Also when it never came to a transaction, because the connection could not be prepared."""
    with SqliteSaver(path, max_checkpoint_lag=lag) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"n": 0})
        connections = saver._connections
        assert connections is not None
        connections.write_lock.acquire()
        acks = [saver.submit(saver.encode(run.prepare({"n": n}))) for n in (1, 2, 3)]
        failures = [sqlite_error("SQLITE_IOERR")]
        set_mode = connections.set_mode
        connections.mode = ""
        connections.set_mode = lambda mode: set_mode(mode) if not failures else _raise(failures.pop())  # type: ignore[method-assign]
        connections.write_lock.release()
        for ack in acks:
            assert ack is not None
            with pytest.raises(sqlite3.OperationalError):
                ack.result()
        assert saver.load(config()).values == {"n": 0}


def _raise(error: Exception) -> None:
    raise error


# ---- F17


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("durability", "lag"), MODES)
def test_f17_locked_for_too_long(
    path: Path, monkeypatch: pytest.MonkeyPatch, durability: str, lag: int, is_async: bool
) -> None:
    monkeypatch.setattr(saver_module, "_BUSY_MS", 20)
    with SqliteSaver(path, max_checkpoint_lag=lag) as saver, contextlib.ExitStack() as other:
        loop = Loop(saver, durability, is_async)
        loop.at[5] = lambda: other.enter_context(locked(path))
        with pytest.raises(sqlite3.OperationalError) as caught:
            loop.run({"n": 0})
        check_error(caught.value, sqlite3.SQLITE_BUSY)
        other.close()
        loop.check_recovery(lag)


@pytest.mark.parametrize("is_async", [False, True])
def test_f17_locked_for_a_moment(path: Path, is_async: bool) -> None:
    """The step's commit goes to the queue at once, and out when the lock is free: nothing is noticed but by the saver.

    The lock is given back when the writer's connection is about to wait for it.
    """
    with SqliteSaver(path) as saver, contextlib.ExitStack() as other:
        loop = Loop(saver, "async", is_async)
        attempts: list[str] = []

        def give_back() -> None:
            connections = saver._connections
            assert connections is not None
            attempts.append(connections.mode)
            if connections.mode != "inline":
                other.close()

        connections = saver._connections
        assert connections is not None
        writer = connections.writer

        class Watched:
            """Tells when a transaction is about to begin."""

            def __getattr__(self, name: str) -> Any:
                return getattr(writer, name)

            def execute(self, statement: str, *values: Any) -> Any:
                if statement == "BEGIN IMMEDIATE" and held:
                    give_back()
                return writer.execute(statement, *values)

        held: list[int] = []
        connections.writer = Watched()

        def lock() -> None:
            held.append(1)
            other.enter_context(locked(path))

        loop.at[5] = lock
        assert loop.run({"n": 0})["n"] == STEPS
        connections.writer = writer
        assert attempts[:2] == ["inline", "normal"]
        assert_sound(saver)


def test_f17_the_loop_goes_on_while_the_file_is_locked(path: Path) -> None:
    """A coroutine's commit waits on the writer's thread; the loop runs others meanwhile."""
    with SqliteSaver(path) as saver:
        store = Store(saver, False)
        run = ScriptedRun(store)
        run.step({"n": 0})

        async def main() -> None:
            with locked(path):
                ack: Any = saver.submit(saver.encode(run.prepare({"n": 1})))
                waiting = asyncio.ensure_future(ack.aresult())
                for _ in range(100):
                    await asyncio.sleep(0)
                assert not waiting.done()
            await waiting

        asyncio.run(main())
        run.stored[-1].check(store)


def test_f17_the_other_process_dies(server: ForkServer, path: Path) -> None:
    """Its lock goes with it, and what it had begun."""
    with SqliteSaver(path) as saver:
        store = Store(saver, False)
        run = ScriptedRun(store)
        run.step({"n": 0})
        assert server.call("tests.faults.children:hold_lock", str(path)).signal is not None
        run.step({"n": 1}).check(store)
        assert_sound(saver)


# ---- F35


def test_f35_the_loser_of_a_conflict_finds_the_disk_full(path: Path) -> None:
    """It reports one of both; the winner's step is there."""
    with SqliteSaver(path) as ours, SqliteSaver(path) as theirs:
        winner, loser = ScriptedRun(Store(ours, False)), ScriptedRun(Store(theirs, False))
        winner.step({"n": 0})
        loser = ScriptedRun(Store(theirs, False))
        winner.step({"n": 1})
        fault = FailAt("b5", 0, error=sqlite_error("SQLITE_FULL"))
        with disk_full(theirs), inject(theirs, fault):
            with pytest.raises((CheckpointConflictError, sqlite3.OperationalError)):
                loser.step({"n": "lost", "x": "y" * 10_000})
            with pytest.raises((CheckpointConflictError, sqlite3.OperationalError)):
                loser.step({"n": "lost again"})
        winner.step({"n": 2}).check(Store(theirs, False))
        assert [entry.checkpoint["channel_values"]["n"] for entry in theirs.list(config())] == [2, 1, 0]
        assert_sound(ours)


# ---- the harness itself


def test_faults_count_and_end(path: Path) -> None:
    with SqliteSaver(path) as saver:
        store = Store(saver, False)
        run = ScriptedRun(store)
        record, second = Record(), FailAt("b5", 2, error=sqlite_error("SQLITE_FULL"))
        with inject(saver, record, second):
            run.step({"n": 0, "text": "x" * 100})
            with pytest.raises(sqlite3.OperationalError):
                run.step({"n": 1})
        names = [point.boundary for point in record.points]
        assert names == ["b0", "b1", "b2", "b3", "b3", "b4", "b4", "b5", "b6", "b7", "b0", "b1", "b2", "b3", "b4", "b5"]
        assert (second.visits, second.struck) == (2, 1)
        ScriptedRun(store).step({"n": 2}).check(store)
        assert len(record.points) == len(names)
        assert isinstance(saver._connections.writer, sqlite3.Connection)  # type: ignore[union-attr]


def test_a_slow_saver_of_any_kind_is_held_up_at_each_commit(path: Path) -> None:
    with SqliteSaver(path) as saver:
        gate = threading.Semaphore(3)
        with slow(saver, gate.acquire) as fault:
            run = ScriptedRun(Store(saver, False))
            for n in range(3):
                run.step({"n": n})
        assert fault.visits == 3
        assert not gate.acquire(blocking=False)
        with inject(saver, StallAt("b4", 2, until=gate.release, match="payloads")):
            for n in range(3):
                run.step({"text": f"{n}" * 100})
        assert gate.acquire(blocking=False)
        assert not gate.acquire(blocking=False)


@pytest.mark.parametrize("kind", [Fault, CrashAt, Record])
def test_unknown_boundaries_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="b99"):
        kind("b99")
