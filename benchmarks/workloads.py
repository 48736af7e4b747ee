"""The measured programs, written once for both sides.

`python workloads.py PREFIX` (PREFIX is `pregel` or `langgraph`) answers requests on standard input: a JSON line
`{"name": ...}` runs that workload once and prints `{"seconds": ..., "units": ...}`; `units` is what
`seconds` is divided by (supersteps, tasks, branches, runs). What a workload sets up is kept between requests and never
timed. Only imports and the saver's constructor differ between the sides. Knows nothing of rows, floors or tables:
`compare.py` does. Standard library only, so that any interpreter with the peer installed can run it.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import importlib
import json
import operator
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypedDict

STEPS = 1_000
SAVED_STEPS = 200
FAN = 100
BLOCKING = 50
BLOCK_S = 0.05


class Counter(TypedDict, total=False):
    """State of the chain and the loop."""

    n: int


class Totals(TypedDict, total=False):
    """State of the fan-outs: every task adds one."""

    total: Annotated[int, operator.add]


class Chat(TypedDict, total=False):
    """State of the list rows: the list is read by every node and never written."""

    n: int
    messages: list[dict[str, str]]


Run = Callable[[], None]


class Side:
    """One of the two libraries, found by its import prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.saver_prefix = "checkpoint" if prefix == "pregel" else f"{prefix}.checkpoint"
        graph = importlib.import_module(f"{prefix}.graph")
        self.StateGraph, self.START, self.END = graph.StateGraph, graph.START, graph.END
        self.Send = importlib.import_module(f"{prefix}.types").Send
        self.threads = 0

    def thread(self, steps: int = STEPS) -> dict[str, Any]:
        """A config for a thread that was never used."""
        self.threads += 1
        return {"recursion_limit": steps + 10, "configurable": {"thread_id": str(self.threads)}}

    def chain(self, length: int, *, is_async: bool = False) -> Any:
        """An uncompiled chain of nodes that each count one up."""
        builder = self.StateGraph(Counter)
        for i in range(length):
            builder.add_node(f"n{i}", _acount if is_async else _count)
            builder.add_edge(f"n{i - 1}" if i else self.START, f"n{i}")
        builder.add_edge(f"n{length - 1}", self.END)
        return builder

    def loop(self, steps: int, *, is_async: bool = False, schema: Any = Counter, saver: Any = None) -> Any:
        """Two nodes that take turns until `steps` supersteps have run."""
        end = self.END

        def route(state: Any) -> str:
            return "a" if state["n"] < steps else end

        node = _acount if is_async else _count
        builder = self.StateGraph(schema)
        builder.add_node("a", node)
        builder.add_node("b", node)
        builder.add_edge(self.START, "a")
        builder.add_edge("a", "b")
        builder.add_conditional_edges("b", route, ["a", end])
        return builder.compile(checkpointer=saver)

    def fan_out(self, worker: Any, width: int = FAN) -> Any:
        """One superstep that sends `width` tasks to `worker`."""
        send = self.Send

        def scatter(state: Any) -> list[Any]:
            return [send("worker", {"total": 0}) for _ in range(width)]

        builder = self.StateGraph(Totals)
        builder.add_node("worker", worker)
        builder.add_conditional_edges(self.START, scatter, ["worker"])
        builder.add_edge("worker", self.END)
        return builder.compile()

    def sqlite_saver(self, path: str, lag: int) -> Any:
        """The SQLite saver of this side on a file, with write-ahead log and a sync of the disk at each commit."""
        module = importlib.import_module(f"{self.saver_prefix}.sqlite")
        if self.prefix == "pregel":
            return module.SqliteSaver(path, max_checkpoint_lag=lag)
        connection = sqlite3.connect(path, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return module.SqliteSaver(connection)


def _count(state: Any) -> dict[str, int]:
    return {"n": state["n"] + 1}


async def _acount(state: Any) -> dict[str, int]:
    return {"n": state["n"] + 1}


def _one(state: Any) -> dict[str, int]:
    return {"total": 1}


async def _aone(state: Any) -> dict[str, int]:
    return {"total": 1}


def _timed(run: Callable[[], Any], check: Callable[[Any], bool]) -> float:
    gc.collect()
    started = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - started
    assert check(result), f"wrong result: {result!r}"[:200]
    return seconds


def _atimed(run: Callable[[], Awaitable[Any]], check: Callable[[Any], bool]) -> float:
    async def main() -> float:
        gc.collect()
        started = time.perf_counter()
        result = await run()
        seconds = time.perf_counter() - started
        assert check(result), f"wrong result: {result!r}"[:200]
        return seconds

    return asyncio.run(main())


def _counted(steps: int) -> Callable[[Any], bool]:
    return lambda result: bool(result["n"] == steps)


# A workload is a function Side -> (function that runs it once and gives the seconds, units).
Prepared = tuple[Callable[[], float], int]


def chain_sync(side: Side) -> Prepared:
    """Chain of 1,000 nodes, `invoke`, no saver."""
    graph, config = side.chain(STEPS).compile(), {"recursion_limit": STEPS + 10}
    return lambda: _timed(lambda: graph.invoke({"n": 0}, config), _counted(STEPS)), STEPS


def loop_sync(side: Side) -> Prepared:
    """Two-node loop of 1,000 supersteps, `invoke`, no saver."""
    graph, config = side.loop(STEPS), {"recursion_limit": STEPS + 10}
    return lambda: _timed(lambda: graph.invoke({"n": 0}, config), _counted(STEPS)), STEPS


def chain_async(side: Side) -> Prepared:
    """Chain of 1,000 async nodes, `ainvoke`."""
    graph, config = side.chain(STEPS, is_async=True).compile(), {"recursion_limit": STEPS + 10}
    return lambda: _atimed(lambda: graph.ainvoke({"n": 0}, config), _counted(STEPS)), STEPS


def loop_async(side: Side) -> Prepared:
    """Two-node loop of async nodes, `ainvoke`."""
    graph, config = side.loop(STEPS, is_async=True), {"recursion_limit": STEPS + 10}
    return lambda: _atimed(lambda: graph.ainvoke({"n": 0}, config), _counted(STEPS)), STEPS


def _drain(graph: Any, config: Any) -> int:
    count = 0
    for _ in graph.stream({"n": 0}, config, stream_mode="updates"):
        count += 1
    return count


async def _adrain(graph: Any, config: Any) -> int:
    count = 0
    async for _ in graph.astream({"n": 0}, config, stream_mode="updates"):
        count += 1
    return count


def chain_stream(side: Side) -> Prepared:
    """Chain of 1,000 nodes streamed with mode updates."""
    graph, config = side.chain(STEPS).compile(), {"recursion_limit": STEPS + 10}
    return lambda: _timed(lambda: _drain(graph, config), lambda count: bool(count == STEPS)), STEPS


def loop_stream(side: Side) -> Prepared:
    """Two-node loop streamed with mode updates."""
    graph, config = side.loop(STEPS), {"recursion_limit": STEPS + 10}
    return lambda: _timed(lambda: _drain(graph, config), lambda count: bool(count == STEPS)), STEPS


def loop_astream(side: Side) -> Prepared:
    """Two-node loop of async nodes streamed with mode updates."""
    graph, config = side.loop(STEPS, is_async=True), {"recursion_limit": STEPS + 10}
    return lambda: _atimed(lambda: _adrain(graph, config), lambda count: bool(count == STEPS)), STEPS


def fan_out_sync(side: Side) -> Prepared:
    """100 trivial tasks in one superstep, `invoke`."""
    graph = side.fan_out(_one)
    return lambda: _timed(lambda: graph.invoke({"total": 0}), lambda out: bool(out["total"] == FAN)), FAN


def fan_out_async(side: Side) -> Prepared:
    """100 trivial async tasks in one superstep, `ainvoke`."""
    graph = side.fan_out(_aone)
    return lambda: _atimed(lambda: graph.ainvoke({"total": 0}), lambda out: bool(out["total"] == FAN)), FAN


def fan_out_subgraph(side: Side) -> Prepared:
    """100 branches that each run a graph of two nodes."""
    inner = side.StateGraph(Totals)
    inner.add_node("x", lambda state: {"total": 1})
    inner.add_node("y", lambda state: {"total": 1})
    inner.add_edge(side.START, "x")
    inner.add_edge("x", "y")
    inner.add_edge("y", side.END)
    graph = side.fan_out(inner.compile())
    return lambda: _timed(lambda: graph.invoke({"total": 0}), lambda out: bool(out["total"] == 2 * FAN)), FAN


def tasks_sync(side: Side) -> Prepared:
    """An entrypoint that calls a trivial `@task` 100 times, then waits for all, `invoke`."""
    func = importlib.import_module(f"{side.prefix}.func")
    one = func.task(_double)

    def flow(n: int) -> int:
        return sum(future.result() for future in [one(i) for i in range(n)])

    graph = func.entrypoint()(flow)
    return lambda: _timed(lambda: graph.invoke(FAN), lambda out: bool(out == FAN * (FAN - 1))), FAN


def tasks_async(side: Side) -> Prepared:
    """The same with coroutine functions, `ainvoke`."""
    func = importlib.import_module(f"{side.prefix}.func")
    one = func.task(_adouble)

    async def flow(n: int) -> int:
        return sum(await asyncio.gather(*[one(i) for i in range(n)]))

    graph = func.entrypoint()(flow)
    return lambda: _atimed(lambda: graph.ainvoke(FAN), lambda out: bool(out == FAN * (FAN - 1))), FAN


def _double(n: int) -> int:
    return n * 2


async def _adouble(n: int) -> int:
    return n * 2


def sync_under_ainvoke(side: Side) -> Prepared:
    """Two-node loop of 200 supersteps of sync nodes under `ainvoke`: each runs off the loop."""
    graph, config = side.loop(SAVED_STEPS), {"recursion_limit": STEPS}
    return lambda: _atimed(lambda: graph.ainvoke({"n": 0}, config), _counted(SAVED_STEPS)), SAVED_STEPS


def loop_memory(side: Side) -> Prepared:
    """Loop of 200 supersteps with the in-memory saver, a new thread each run."""
    saver = importlib.import_module(f"{side.saver_prefix}.memory").InMemorySaver()
    graph = side.loop(SAVED_STEPS, saver=saver)
    run = _counted(SAVED_STEPS)
    return lambda: _timed(lambda: graph.invoke({"n": 0}, side.thread()), run), SAVED_STEPS


def _new_file() -> str:
    folder = tempfile.mkdtemp(prefix="pregel-bench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return os.path.join(folder, "threads.sqlite")


def _loop_sqlite(side: Side, durability: str, lag: int) -> Prepared:
    path = _new_file()
    graph = side.loop(SAVED_STEPS, saver=side.sqlite_saver(path, lag))
    check = _counted(SAVED_STEPS)

    def once() -> float:
        return _timed(lambda: graph.invoke({"n": 0}, side.thread(), durability=durability), check)

    # The first checkpoint of the write-ahead log comes after about 1,000 pages; measure behind it.
    while os.path.getsize(path) < 1_000 * 4_096:
        once()
    return once, SAVED_STEPS


def loop_sqlite_sync(side: Side) -> Prepared:
    """Loop of 200 supersteps on SQLite, durability sync at synchronous=FULL, on a warmed file."""
    return _loop_sqlite(side, "sync", 1)


def loop_sqlite_lag1(side: Side) -> Prepared:
    """The same with durability async, at most one superstep behind."""
    return _loop_sqlite(side, "async", 1)


def loop_sqlite_lag16(side: Side) -> Prepared:
    """The same with durability async, at most 16 supersteps behind."""
    return _loop_sqlite(side, "async", 16)


def loop_sqlite_fresh(side: Side) -> Prepared:
    """Durability async, lag 1, each run on a file that has just been made."""
    check = _counted(SAVED_STEPS)

    def once() -> float:
        graph = side.loop(SAVED_STEPS, saver=side.sqlite_saver(_new_file(), 1))
        return _timed(lambda: graph.invoke({"n": 0}, side.thread(), durability="async"), check)

    return once, SAVED_STEPS


def bare_commit(side: Side) -> Prepared:
    """200 commits of one 500-byte row each at synchronous=FULL: what the disk asks for."""
    connection = sqlite3.connect(_new_file(), isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE rows (body BLOB)")
    body = os.urandom(500)

    def commits() -> bool:
        for _ in range(SAVED_STEPS):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO rows VALUES (?)", (body,))
            connection.execute("COMMIT")
        return True

    for _ in range(6):  # past the first reset of the write-ahead log, as the rows it stands beside
        commits()
    return lambda: _timed(commits, bool), SAVED_STEPS


def compile_chain(side: Side) -> Prepared:
    """Compile a chain of 1,000 nodes."""
    builder = side.chain(STEPS)
    return lambda: _timed(builder.compile, lambda graph: True), 1


def _blocking(side: Side) -> Any:
    def block(state: Any) -> dict[str, int]:
        time.sleep(BLOCK_S)
        return {"total": 1}

    builder = side.StateGraph(Totals)
    for i in range(BLOCKING):
        builder.add_node(f"n{i}", block)
        builder.add_edge(side.START, f"n{i}")
        builder.add_edge(f"n{i}", side.END)
    return builder.compile()


def blocking_invoke(side: Side) -> Prepared:
    """50 blocking sync nodes of 50 ms in one superstep, `invoke`; to be asked of a fresh process (no worker yet)."""
    graph = _blocking(side)
    return lambda: _timed(lambda: graph.invoke({"total": 0}), lambda out: bool(out["total"] == BLOCKING)), 1


def blocking_ainvoke(side: Side) -> Prepared:
    """The same under `ainvoke`. What the first call of it in a process imports is not the pool's."""
    graph = _blocking(side)

    async def nothing(state: Any) -> None:
        return None

    first = side.StateGraph(Totals).add_node("a", nothing).add_edge(side.START, "a").compile()
    asyncio.run(first.ainvoke({"total": 0}))
    return lambda: _atimed(lambda: graph.ainvoke({"total": 0}), lambda out: bool(out["total"] == BLOCKING)), 1


def _list_state(side: Side, length: int) -> Prepared:
    graph, config = side.loop(SAVED_STEPS, schema=Chat), {"recursion_limit": STEPS}
    messages = [{"role": "user", "content": f"message {i}"} for i in range(length)]
    run = _counted(SAVED_STEPS)
    return lambda: _timed(lambda: graph.invoke({"n": 0, "messages": messages}, config), run), SAVED_STEPS


def list_1k(side: Side) -> Prepared:
    """Loop whose nodes read a list of 1,000 messages."""
    return _list_state(side, 1_000)


def list_10k(side: Side) -> Prepared:
    """Loop whose nodes read a list of 10,000 messages."""
    return _list_state(side, 10_000)


def append_message(side: Side) -> Prepared:
    """`add_messages`: one more message behind 10,000, as a conversation grows; each side's own kind of message."""
    add_messages = importlib.import_module(f"{side.prefix}.graph.message").add_messages
    history = add_messages([], [("user", f"message {i}") for i in range(10_000)])

    def once() -> float:
        new = [add_messages([], [("ai", "more")]) for _ in range(FAN)]

        def grow() -> int:
            grown = history
            for messages in new:
                grown = add_messages(grown, messages)
            return len(grown)

        return _timed(grow, lambda length: bool(length == 10_000 + FAN))

    return once, FAN


def append_loop(side: Side) -> Prepared:
    """A node that adds one message to 10,000, with a router that looks at the list."""
    graph = importlib.import_module(f"{side.prefix}.graph")
    length = 10_000 + FAN

    def more(state: Any) -> str:
        return str(side.END) if len(state["messages"]) >= length else "chat"

    builder = side.StateGraph(graph.MessagesState).add_node("chat", lambda state: {"messages": [("ai", "more")]})
    builder.add_edge(side.START, "chat").add_conditional_edges("chat", more, ["chat", side.END])
    compiled, config = builder.compile(), {"recursion_limit": STEPS}
    given = {"messages": graph.add_messages([], [("user", f"message {i}") for i in range(10_000)])}
    return lambda: _timed(lambda: compiled.invoke(given, config), lambda out: len(out["messages"]) == length), FAN


WORKLOADS: dict[str, Callable[[Side], Prepared]] = {
    function.__name__: function
    for function in (
        chain_sync,
        loop_sync,
        chain_async,
        loop_async,
        chain_stream,
        loop_stream,
        loop_astream,
        fan_out_sync,
        fan_out_async,
        fan_out_subgraph,
        tasks_sync,
        tasks_async,
        sync_under_ainvoke,
        loop_memory,
        loop_sqlite_sync,
        loop_sqlite_lag1,
        loop_sqlite_lag16,
        loop_sqlite_fresh,
        bare_commit,
        compile_chain,
        blocking_invoke,
        blocking_ainvoke,
        list_1k,
        list_10k,
        append_message,
        append_loop,
    )
}


def _best(run: Callable[[], float], turn: float) -> float:
    """The shortest of as many runs as fit into a turn of so many seconds, at least of one.

    After the other side's turn the processor knows nothing of this one. Without a turn of equal length the side whose runs
    are short would be measured cold, and the other one warm.
    """
    best = spent = run()
    while spent < turn:
        seconds = run()
        spent += seconds
        best = min(best, seconds)
    return best


def main() -> None:
    """Answer requests until standard input ends."""
    side = Side(sys.argv[1])
    prepared: dict[str, Prepared] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["name"]
        if name not in prepared:
            prepared[name] = WORKLOADS[name](side)
        run, units = prepared[name]
        print(json.dumps({"seconds": _best(run, request["turn"]), "units": units}), flush=True)


if __name__ == "__main__":
    main()
