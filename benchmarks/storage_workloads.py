"""The measured programs of the storage table, written once for both sides.

`python storage_workloads.py PREFIX` (PREFIX is `pregel` or `langgraph`) answers requests on standard input: a JSON line
`{"name": ...}` runs that program once and prints its figures, `{"bytes": ..., "seconds": ...}`. Every program works on
files of its own in a temporary folder; a size is that of the file after it was closed, so with nothing left in the
write-ahead log. Only imports and the saver's constructor differ between the sides, except in the programs named in
`OURS_ONLY`, which call what the other side does not have. Knows nothing of rows, limits or tables: `storage.py` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import operator
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Self, TypedDict
from unittest import mock

from workloads import Side

THREADS = 50
THREAD_STEPS = 20
STALL_ELEMENTS = 20_000
TICK_S = 0.001

Figures = dict[str, float]


class Chat(TypedDict, total=False):
    """A list that grows, and how often the node has run."""

    n: int
    messages: Annotated[list[Any], operator.add]


class Document(TypedDict, total=False):
    """A large channel that nobody writes, beside one that changes."""

    n: int
    document: str


def _message(n: int, n_bytes: int, spread: int = 1) -> dict[str, Any]:
    """A message whose encoded form has `n_bytes`, give or take three; `spread` lengths of them, that one in the middle.

    The length is a byte of that form, and costs more to look at when it could be a marker: a single one would measure that
    always or never.
    """
    return {"role": "user", "content": f"{n:06}" + "x" * (n_bytes - 33 - spread // 2 + n % spread), "n": n}


def _graph(side: Side, saver: Any, node: Callable[[Any], Any], schema: Any, steps: int) -> Any:
    """One node that runs `steps` times."""
    end = side.END
    builder = side.StateGraph(schema)
    builder.add_node("a", node)
    builder.add_edge(side.START, "a")
    builder.add_conditional_edges("a", lambda state: "a" if state["n"] < steps else end, ["a", end])
    return builder.compile(checkpointer=saver)


def _append(n_bytes: int) -> Callable[[Any], Any]:
    def append(state: Any) -> dict[str, Any]:
        return {"n": state["n"] + 1, "messages": [_message(state["n"], n_bytes)]}

    return append


def _count(state: Any) -> dict[str, int]:
    return {"n": state["n"] + 1}


# ---- files


@contextlib.contextmanager
def _file() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="pregel-bench-")
    try:
        yield os.path.join(folder, "threads.sqlite")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _saver(side: Side, path: str) -> Iterator[Any]:
    saver = side.sqlite_saver(path, 1)
    try:
        yield saver
    finally:
        (saver if side.prefix == "pregel" else saver.conn).close()


class Statements:
    """All statements of all connections that are opened meanwhile, their values filled in."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __enter__(self) -> Self:
        connect = sqlite3.connect

        def traced(*args: Any, **kwargs: Any) -> Any:
            connection = connect(*args, **kwargs)
            connection.set_trace_callback(self.texts.append)
            return connection

        self._patch = mock.patch("sqlite3.connect", traced)
        self._patch.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._patch.stop()

    def reads(self) -> list[str]:
        """The statements that read rows."""
        return [text for text in self.texts if text.lstrip().upper().startswith(("SELECT", "WITH"))]

    def writes(self) -> dict[str, int]:
        """Commits, statements of any kind, and rows written per table."""
        words = [text.lstrip().split(None, 1)[0].upper() for text in self.texts]
        tables = Counter(name.lower() for text in self.texts for name in re.findall(r"(?:INTO|UPDATE) (\w+)", text))
        return {"commits": words.count("COMMIT"), "statements": len(words)} | dict(tables)


def _bytes_of(path: str, selects: list[str]) -> int:
    """Bytes of all columns that these statements give."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return sum(
            len(column) if isinstance(column, (bytes, str)) else 8
            for select in selects
            for row in connection.execute(select)
            for column in row
            if column is not None
        )


# ---- sizes


def _turns(side: Side, turns: int) -> int:
    with _file() as path:
        for turn in range(turns):
            with _saver(side, path) as saver:
                graph = _graph(side, saver, _append(1_000), Chat, 1)
                config = {"configurable": {"thread_id": "chat"}}
                result = graph.invoke({"n": 0, "messages": [_message(turn, 1_000)]}, config)
        assert len(result["messages"]) == 2 * turns
        return os.path.getsize(path)


def turns(side: Side) -> Figures:
    """200 turns of 2 KB, half of them the answer; the saver is opened anew for every turn."""
    return {"bytes": _turns(side, 200)}


def turns_growth(side: Side) -> Figures:
    """The file after 400 turns by that after 200."""
    return {"ratio": _turns(side, 400) / _turns(side, 200)}


def document(side: Side) -> Figures:
    """10 MB in a channel that no superstep of 100 writes: the file, and what it grows by after the first."""

    def size(steps: int) -> int:
        with _file() as path:
            with _saver(side, path) as saver:
                graph = _graph(side, saver, _count, Document, steps)
                result = graph.invoke({"n": 0, "document": "d" * 10_000_000}, side.thread(steps))
            assert len(result["document"]) == 10_000_000
            return os.path.getsize(path)

    whole = size(100)
    return {"bytes": whole, "growth": whole - size(1)}


def _appended(side: Side, steps: int) -> Figures:
    with _file() as path:
        with _saver(side, path) as saver:
            result = _graph(side, saver, _append(225), Chat, steps).invoke({"n": 0, "messages": []}, side.thread(steps))
        assert len(result["messages"]) == steps
        return {"bytes": os.path.getsize(path)}


def appended_200(side: Side) -> Figures:
    """200 supersteps that append 225 B each; task writes are kept."""
    return _appended(side, 200)


def appended_2000(side: Side) -> Figures:
    """2,000 of them."""
    return _appended(side, 2_000)


# ---- statements


def superstep(side: Side) -> Figures:
    """What one more superstep of one task costs, that appends 225 B: the difference of two runs."""

    def counted(steps: int) -> Counter[str]:
        with _file() as path, Statements() as statements, _saver(side, path) as saver:
            graph = _graph(side, saver, _append(225), Chat, steps)
            graph.invoke({"n": 0, "messages": []}, side.thread(steps), durability="sync")
            return Counter(statements.writes())

    costs = {key: count / 20 for key, count in (counted(30) - counted(10)).items()}
    figures = {key: costs.pop(key) for key in ("commits", "statements")}
    return figures | {"tables": len(costs)}


# ---- commits


def _commits(side: Side, durability: Any) -> Figures:
    """Seconds of a commit, encode included: a run of 200 that append 225 B, on a file past its first WAL checkpoint."""
    base = importlib.import_module("checkpoint.base")
    ids = importlib.import_module("checkpoint.ids")

    def run(saver: Any) -> float:
        claim = saver.load(side.thread()).claim
        messages: list[Any] = []
        parent_rev, parent_id = None, None
        seconds = 0.0
        for step in range(-1, 200):
            rev, checkpoint_id = claim.numbered(step)
            new = _message(step, 225, spread=9)
            grown = [*messages, new]
            task = f"f4ef0ca2-f4d5-4a13-9a05-{step % 1_000:012}"
            writes = [("messages", [new]), ("branch:to:a", None)]
            started = time.perf_counter()
            commit = base.StepCommit(
                claim,
                "",
                "checkpoint",
                writes=(base.TaskWrites(parent_rev, parent_id, task, "~a, b", 0, writes),) if parent_id else (),
                source="loop" if parent_id else "input",
                step=step,
                checkpoint_id=checkpoint_id,
                rev=rev,
                ts=ids.now_us(),
                parent_rev=parent_rev,
                parent_id=parent_id,
                version=step + 2,
                values={"branch:to:a": None} if parent_id else {"branch:to:a": None, "messages": grown},
                ops={"messages": base.Append(grown, len(messages), [new])} if parent_id else {},
                seen={"a": {"branch:to:a": step + 1}},
                updated_channels=["branch:to:a", "messages"],
            )
            saver.write([saver.encode(commit)], durability=durability)
            seconds += time.perf_counter() - started
            messages, parent_rev, parent_id = grown, rev, checkpoint_id
        return seconds / 201

    with _file() as path, _saver(side, path) as saver:
        while os.path.getsize(path) < 1_000 * 4_096:
            run(saver)
        return {"seconds": min(run(saver) for _ in range(15))}


def commit_full(side: Side) -> Figures:
    """A commit that waits for the disk."""
    return _commits(side, "sync") if side.prefix == "pregel" else _loop(side, "FULL")


def commit_normal(side: Side) -> Figures:
    """A commit that leaves that to the operating system."""
    return _commits(side, "async") if side.prefix == "pregel" else _loop(side, "NORMAL")


def bare_full(side: Side) -> Figures:
    """A transaction of one row of 500 B, by SQLite alone: what the disk asks for."""
    return _bare("FULL")


def bare_normal(side: Side) -> Figures:
    """The same without a sync of the disk."""
    return _bare("NORMAL")


def _bare(mode: str) -> Figures:
    with _file() as path, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={mode}")
        connection.execute("CREATE TABLE rows (body BLOB)")
        body = os.urandom(500)

        def run() -> float:
            started = time.perf_counter()
            for _ in range(200):
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO rows VALUES (?)", (body,))
                connection.execute("COMMIT")
            return (time.perf_counter() - started) / 200

        return {"seconds": min(run() for _ in range(10))}


def bare_pages(side: Side) -> Figures:
    """The pages of a commit, as SQLite writes them into its log, and their sync, by system calls alone: what is left if
    neither Python nor SQLite took any time. Five pages are the mean of ours, three the median."""
    page, head = os.urandom(4_096), os.urandom(24)
    with _file() as path:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            n_bytes = 5 * (len(head) + len(page))
            os.pwrite(descriptor, bytes(200 * n_bytes), 0)
            os.fsync(descriptor)

            def run() -> float:
                at = 0
                started = time.perf_counter()
                for _ in range(200):
                    for _ in range(5):
                        os.pwrite(descriptor, head, at)
                        os.pwrite(descriptor, page, at + len(head))
                        at += len(head) + len(page)
                    os.fdatasync(descriptor)
                return (time.perf_counter() - started) / 200

            return {"seconds": min(run() for _ in range(10))}
        finally:
            os.close(descriptor)


def _loop(side: Side, mode: str) -> Figures:
    """Seconds of a superstep that stores a counter, with the engine: what a side without native commits can do."""
    with _file() as path, _saver(side, path) as saver:
        saver.conn.execute(f"PRAGMA synchronous={mode}")
        graph = _graph(side, saver, _count, Chat, 200)

        def run() -> float:
            started = time.perf_counter()
            graph.invoke({"n": 0}, side.thread(200), durability="sync")
            return (time.perf_counter() - started) / 200

        run()
        return {"seconds": min(run() for _ in range(5))}


# ---- reading


def history(side: Side) -> Figures:
    """The ten newest snapshots of a thread of 5,000 supersteps; bytes are by those that one load reads."""
    with _file() as path:
        config = side.thread(5_000)
        with _saver(side, path) as saver:
            _graph(side, saver, _append(225), Chat, 5_000).invoke({"n": 0, "messages": []}, config)
        with Statements() as statements, _saver(side, path) as saver:
            graph = _graph(side, saver, _append(225), Chat, 5_000)
            saver.load(config)
            statements.texts.clear()
            saver.load(config)
            one = _bytes_of(path, statements.reads())
            statements.texts.clear()
            shown = list(graph.get_state_history(config, limit=10))
            reads = statements.reads()
        assert [len(snapshot.values["messages"]) for snapshot in shown] == list(range(5_000, 4_990, -1))
        with _saver(side, path) as saver:
            graph = _graph(side, saver, _append(225), Chat, 5_000)
            seconds = min(_timed(lambda: list(graph.get_state_history(config, limit=10))) for _ in range(5))
        return {"statements": len(reads), "bytes": _bytes_of(path, reads) / one, "seconds": seconds}


def load(side: Side) -> Figures:
    """The newest checkpoint of a thread of 2,000 supersteps, and how long its decoding alone takes."""
    with _file() as path:
        config = side.thread(2_000)
        with _saver(side, path) as saver:
            _graph(side, saver, _append(225), Chat, 2_000).invoke({"n": 0, "messages": []}, config)
        with Statements() as statements, _saver(side, path) as saver:
            read = saver.load if side.prefix == "pregel" else saver.get_tuple
            read(config)
            statements.texts.clear()
            loaded = read(config)
            reads = statements.reads()
        with _saver(side, path) as saver:
            read = saver.load if side.prefix == "pregel" else saver.get_tuple
            seconds = min(_timed(lambda: read(config)) for _ in range(20))
            values = loaded.values if side.prefix == "pregel" else loaded.checkpoint["channel_values"]
            kind, body = saver.serde.dumps_typed(values["messages"])
            decode = min(_timed(lambda: saver.serde.loads_typed((kind, body))) for _ in range(20))
        return {"statements": len(reads), "seconds": seconds, "slack": seconds - 3 * decode}


def _timed(call: Callable[[], Any]) -> float:
    gc.collect()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


# ---- many at a time


def parallel(side: Side) -> Figures:
    """50 threads of 20 supersteps at a time, each driven by a thread of the operating system."""
    with _file() as path, _saver(side, path) as saver, ThreadPoolExecutor(THREADS) as pool:
        graph = _graph(side, saver, _count, Chat, THREAD_STEPS)

        def drive(config: Any) -> int:
            return int(graph.invoke({"n": 0}, config)["n"])

        def once() -> None:
            ends = list(pool.map(drive, [side.thread() for _ in range(THREADS)]))
            assert ends == [THREAD_STEPS] * THREADS

        once()
        return {"rate": THREADS * THREAD_STEPS / _timed(once)}


async def _acount(state: Any) -> dict[str, int]:
    return {"n": state["n"] + 1}


@contextlib.asynccontextmanager
async def _async_saver(side: Side, path: str) -> Any:
    module = importlib.import_module(f"{side.saver_prefix}.sqlite.aio")
    async with module.AsyncSqliteSaver.from_conn_string(path) as saver:
        yield saver


def aparallel(side: Side) -> Figures:
    """The same as coroutines of one event loop, with the async saver."""

    async def main(path: str) -> float:
        async with _async_saver(side, path) as saver:
            graph = _graph(side, saver, _acount, Chat, THREAD_STEPS)

            async def once() -> None:
                configs = [side.thread() for _ in range(THREADS)]
                ends = await asyncio.gather(*(graph.ainvoke({"n": 0}, config) for config in configs))
                assert [end["n"] for end in ends] == [THREAD_STEPS] * THREADS

            await once()
            gc.collect()
            started = time.perf_counter()
            await once()
            return time.perf_counter() - started

    with _file() as path:
        return {"rate": THREADS * THREAD_STEPS / asyncio.run(main(path))}


# ---- stalls


async def _longest_stall(work: Callable[[list[Any]], Awaitable[None]]) -> float:
    """Seconds that a task which sleeps a millisecond at a time had to wait beyond that.

    What `work` puts into its list is freed afterwards, and what was there before is hidden from the collector of
    cycles, which would stop the process for it: both belong to the program around, as does that collector's turn before
    it starts.
    """
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK_S)
            longest = max(longest, time.perf_counter() - before - TICK_S)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(10 * TICK_S)
    gc.collect()
    gc.freeze()
    await asyncio.sleep(2 * TICK_S)
    kept: list[Any] = []
    longest = 0.0
    await work(kept)
    await asyncio.sleep(2 * TICK_S)
    ticker.cancel()
    return longest


def _stall(side: Side, kind: str) -> Figures:
    async def append(state: Any) -> dict[str, Any]:
        return {"n": state["n"] + 1, "messages": [_message(state["n"], 1_000, spread=9)]}

    async def main(saver: Any) -> float:
        graph = _graph(side, saver, append, Chat, 3)
        # Of nine lengths: how the C library finds memory for them, and gives it back, is not to be a matter of luck.
        messages = [_message(n, 1_000, spread=9) for n in range(STALL_ELEMENTS)]

        async def work(kept: list[Any]) -> None:
            config = side.thread()
            kept.append(await graph.ainvoke({"n": 0, "messages": messages}, config))
            kept.append((await graph.aget_state(config)).values)
            kept.append(await graph.ainvoke({"n": 0}, config))
            assert [len(state["messages"]) - STALL_ELEMENTS for state in kept] == [3, 3, 6]

        await work([])
        return min([await _longest_stall(work) for _ in range(3)])

    async def on_file(path: str) -> float:
        async with _async_saver(side, path) as saver:
            return await main(saver)

    if kind == "memory":
        module = importlib.import_module(f"{side.saver_prefix}.memory")
        return {"seconds": asyncio.run(main(module.InMemorySaver()))}
    with _file() as path:
        return {"seconds": asyncio.run(on_file(path))}


def stall_memory(side: Side) -> Figures:
    """The longest wait of an event loop while a 20 MB list goes into `InMemorySaver` and comes back."""
    return _stall(side, "memory")


def stall_sqlite(side: Side) -> Figures:
    """The same with the async SQLite saver."""
    return _stall(side, "sqlite")


WORKLOADS: dict[str, Callable[[Side], Figures]] = {
    function.__name__: function
    for function in (
        turns,
        turns_growth,
        document,
        appended_200,
        appended_2000,
        superstep,
        commit_full,
        commit_normal,
        bare_full,
        bare_normal,
        bare_pages,
        history,
        load,
        parallel,
        aparallel,
        stall_memory,
        stall_sqlite,
    )
}


def main() -> None:
    """Answer requests until standard input ends."""
    side = Side(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(WORKLOADS[json.loads(line)["name"]](side)), flush=True)


if __name__ == "__main__":
    main()
