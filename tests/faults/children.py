"""What child processes do in the tests of files, lags, clocks and locks. Arguments and values are JSON."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from checkpoint.sqlite import SqliteSaver
from checkpoint.sqlite import saver as saver_module
from checkpoint.testing.faults import CrashAt, Record, clock, inject, opening
from pregel.constants import END, START
from pregel.graph import StateGraph
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.support.sound import problems


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# ---- F4: a saver that cannot keep up


class Count(TypedDict, total=False):
    i: int


class Stuck:
    """In place of a saver's lock: somebody writes and does not end. Who must wait for it dies."""

    def __init__(self, owner: int) -> None:
        self.owner = owner

    def acquire(self, blocking: bool = True) -> bool:
        if blocking:
            self.__enter__()
        return False

    def __enter__(self) -> None:
        if threading.get_ident() == self.owner:
            die()
        threading.Event().wait()

    def __exit__(self, *_: Any) -> None: ...


def count_up(path: str, durability: Any, lag: int, stuck_at: int, die_at: int, nested: bool = False) -> Any:
    """A graph counts to 100. From body `stuck_at` on no commit goes out; in body `die_at` the process dies.

    Returns the last number. Every number is noted before its body returns, in a file beside the database.
    """
    with SqliteSaver(path, max_checkpoint_lag=lag) as saver:

        def step(state: Count) -> Any:
            i = state.get("i", 0) + 1
            with Path(f"{path}.begun").open("a") as begun:
                begun.write(f"{i}\n")
            if i == stuck_at and saver._connections is not None:
                saver._settle("t")
                saver._connections.write_lock = Stuck(threading.get_ident())  # type: ignore[assignment]
            if i == die_at:
                die()
            return {"i": i}

        builder = StateGraph(Count).add_node("step", step).add_edge(START, "step")
        builder.add_conditional_edges("step", lambda state: "step" if state["i"] < 100 else END)
        if nested:
            inner = builder.compile()
            builder = StateGraph(Count).add_node("inner", inner).add_edge(START, "inner")
        graph = builder.compile(checkpointer=saver)
        run: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 200}
        given: Any = None if graph.get_state(run).config["configurable"].get("checkpoint_id") else {"i": 0}
        return graph.invoke(given, run, durability=durability)["i"]


# ---- F8 to F10: checkpoints of the WAL, migrations, work on whole threads


def fill(path: str, n_steps: int, trigger: int, fault: Any = None, single: bool = False) -> int:
    """Commits in `sync`, with a WAL checkpoint about every `trigger` bytes; die at [boundary, n]. Returns visits.

    The number of each acknowledged step is written to a file beside the database. `single`: the checkpoint thread does
    its work at once, so that it is struck on its own connection too.
    """
    saver_module.WAL_TRIGGER = trigger  # type: ignore[misc]
    with SqliteSaver(path) as saver:
        if single:
            saver._folder.post = lambda call: call()  # type: ignore[method-assign, assignment, return-value]
        strike = CrashAt(*fault) if fault else Record("b8")
        with inject(saver, strike), Path(f"{path}.told").open("a") as told:
            run = ScriptedRun(Store(saver, False))
            for n in range(run.values.get("n", 0) + 1, n_steps + 1):
                run.step({"n": n, "l": [*run.values.get("l", []), f"{n:04}" + "x" * 500]})
                told.write(f"{n}\n")
                told.flush()
        return strike.visits


def read(path: str) -> Any:
    """What a new process finds: the values of the newest checkpoint, and what is wrong with the file."""
    with SqliteSaver(path) as saver:
        return {"values": saver.load(config()).values, "problems": problems(saver)}


def open_file(path: str, number: int) -> int:
    """Make the file, dying at the n-th boundary of its migrations. Returns how many there are."""
    fault = CrashAt("b9", number) if number else Record("b9")
    with opening(fault):
        SqliteSaver(path).close()
    return fault.visits


def upkeep(path: str, what: str, fault: Any = None) -> Any:
    """Copy, delete or prune thread "t"; die at [boundary, n]. Returns the visits."""
    with SqliteSaver(path) as saver:
        record = CrashAt(*fault) if fault else Record("b10")
        with inject(saver, record):
            if what == "copy":
                saver.copy_thread("t", "copy")
            elif what == "delete":
                saver.delete_thread("t")
            elif what == "delete in batches":
                saver_module.writer.BIG_DELETE, saver_module.writer.DELETE_BATCH = 2, 3  # type: ignore[misc]
                saver.delete_thread("t")
            else:
                saver.prune(["t"], keep=2)
        return record.visits


# ---- F22: clocks


def commit_at(path: str, times: list[int]) -> list[str]:
    """A new process whose clock shows these nanoseconds, then stands still: one commit at each. Returns the ids."""
    shown = itertools.chain(times, itertools.repeat(times[-1]))
    with clock(lambda: next(shown)), SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        for _ in times:
            run.step({"n": run.values.get("n", 0) + 1})
        return [stored.id for stored in run.stored]


# ---- F17: another process


def hold_lock(path: str) -> None:
    """Write and be killed in the middle: the lock goes with the process."""
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("BEGIN IMMEDIATE")
    conn.execute("UPDATE threads SET claims = claims + 1000")
    die()


# ---- F34


def fork_with_open_saver(path: str, lag: int) -> Any:
    """Fork while the saver's threads run and commits wait; the child tries everything. Returns what it saw."""
    saver = SqliteSaver(path, max_checkpoint_lag=lag)
    store = Store(saver, True)
    run = ScriptedRun(store)
    run.step({"n": 0})
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = [saver.submit(saver.encode(run.prepare({"n": n}))) for n in (1, 2)]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            seen = [_outcome(call) for call in _everything(saver, run, waiting)]
            seen += [_outcome(saver.close), _outcome(saver.close)]
            os.write(writing, repr(seen).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        seen = pipe.read()
    os.waitpid(child, 0)
    other.execute("COMMIT")
    other.close()
    for ack in waiting:
        assert ack is not None
        ack.result()
    run.step({"n": 3})
    values = store.load(config()).values
    wrong = problems(saver)
    saver.close()
    return {"child": seen, "values": values, "problems": wrong}


def _everything(saver: SqliteSaver, run: ScriptedRun, waiting: list[Any]) -> list[Any]:
    commit = run.prepare({"n": "child"})
    return [
        lambda: saver.load(config()),
        lambda: saver.get_tuple(config()),
        lambda: list(saver.list(config())),
        lambda: saver.commit(commit),
        lambda: saver.submit(saver.encode(commit)),
        lambda: saver.put_writes(config("t", "", run.stored[0].id), [("n", 1)], "task"),
        lambda: saver.delete_thread("t"),
        lambda: saver.copy_thread("t", "copy"),
        lambda: waiting[0].result(),
    ]


def _outcome(call: Any) -> str:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - its name is what the test asks for
        return type(error).__name__
    return "done"


# ---- F12 without a shim: the operating system refuses to let any file grow


def file_limit(path: str, durability: Any) -> Any:
    """Write until the system fails a write in the middle of a transaction. Returns what happened then and later."""
    with SqliteSaver(path) as saver:
        store = Store(saver, False)
        run = ScriptedRun(store, durability=durability)
        run.step({"n": 0})
        connections = saver._connections
        assert connections is not None
        old = connections.writer
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size + 60_000, hard))
        code, n = 0, 0
        try:
            while n < 100:
                n += 1
                run.step({"n": n, "text": f"{n}" + "x" * 20_000})
        except sqlite3.OperationalError as error:
            code = error.sqlite_errorcode
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        stored = store.load(config()).values["n"]
        again = ScriptedRun(store, durability=durability)
        again.step({"n": 1000})
        return {
            "code": code & 0xFF,
            "failed": n,
            "stored": stored,
            "values": store.load(config()).values["n"],
            "replaced": connections.writer is not old,
            "problems": problems(saver),
        }
