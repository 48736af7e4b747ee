"""Graphs that ask a cache: what is found does not run, what is kept is what would run to the same result, and no cache
costs a result."""

import asyncio
import contextlib
import functools
import operator
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from pregel.cache.base import BaseCache
from pregel.cache.memory import InMemoryCache
from pregel.cache.redis import RedisCache
from pregel.cache.sqlite import SqliteCache
from pregel.channels import EphemeralValue, LastValue, UntrackedValue
from pregel.errors import NodeError
from pregel.graph import END, START, StateGraph
from pregel.graph.state import CompiledStateGraph
from pregel.pregel import NodeBuilder, Pregel
from pregel.types import CachePolicy, Command, RetryPolicy, Send, StreamWriter, interrupt
from pregel.warnings import PregelWarning
from tests.cache.test_caches import Clock, Server
from tests.support.scenarios import Colour, Log, LogX, diagnosed, refused
from tests.support.stages import Stage

FOREVER: Any = CachePolicy()
CONSTANT: Any = CachePolicy(key_func=lambda state: "always the same")
CACHED = {"cached": True}


def single(act: Callable[..., Any], *, name: str = "a", policy: Any = FOREVER, schema: Any = LogX, **kw: Any) -> Any:
    """A builder of one node with a cache policy."""
    return StateGraph(schema).add_node(name, act, cache_policy=policy, **kw).add_edge(START, name)


def counting(colour: Colour, calls: list[Any]) -> Any:
    """A node that says that it ran, and what it was given."""

    def act(state: Any) -> dict[str, Any]:
        calls.append(state.get("x"))
        return {"l": ["a"]}

    return colour.node(act)


@pytest.fixture(params=["memory", "sqlite"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseCache[Any]]:
    if request.param == "memory":
        yield InMemoryCache()
    else:
        with SqliteCache(tmp_path / "cache.sqlite") as opened:
            yield opened


# ---- what is found does not run


def test_a_node_runs_once_for_an_input(stage: Stage) -> None:
    """Everywhere: the second thread gets what the first one computed, and it is stored as its own."""
    cache = InMemoryCache[Any]()

    def build() -> Any:
        return (
            single(stage.colour.letter("a", stage.calls))
            .add_node("b", stage.colour.letter("b", stage.calls))
            .add_edge("a", "b")
        )

    stage.put_on(build, cache=cache)
    first = stage.run({"l": ["in"]})
    assert (first, stage.ran()) == (stage.around("in", "a", "b"), ["a", "b"])
    stage.root = {"configurable": {"thread_id": "2"}}
    assert (stage.run({"l": ["in"]}), stage.ran()) == (first, ["b"])
    assert stage.colour.get_state(stage.graph, stage.root).values == first


@pytest.mark.parametrize("mode", ["updates", "values", "tasks", "debug", "custom", "messages"])
def test_what_a_stream_shows_of_it(colour: Colour, mode: str) -> None:
    graph = single(colour.letter("a")).add_edge("a", END).compile(cache=InMemoryCache())
    fresh = colour.stream(graph, {"l": ["in"]}, stream_mode=mode)
    found = colour.stream(graph, {"l": ["in"]}, stream_mode=mode)
    if mode == "updates":
        assert (fresh, found) == ([{"a": {"l": ["a"]}}], [{"a": {"l": ["a"]}, "__metadata__": CACHED}])
    elif mode in ("tasks", "debug"):
        payloads = [chunk if mode == "tasks" else chunk["payload"] for chunk in found]
        assert [(payload["name"], "result" in payload) for payload in payloads] == [("a", False)]
        assert len(fresh) == 2
    else:
        assert fresh == found


def test_it_is_stored_like_any_result(colour: Colour, saver: Any, thread: Any) -> None:
    """A sibling fails beside it; when the run goes on, nobody asks the cache for it again."""
    calls: list[Any] = []
    broken: list[int] = [1]
    cache = InMemoryCache[Any]()

    def fail(state: Any) -> dict[str, Any]:
        if broken:
            raise ConnectionError("down")
        return {"l": ["b"]}

    def build() -> Any:
        return (
            single(counting(colour, calls))
            .add_node("b", colour.node(fail))
            .add_edge(START, "b")
            .compile(checkpointer=saver, cache=cache)
        )

    colour.invoke(single(counting(colour, calls)).compile(cache=cache), {"l": [], "x": 1})
    graph = build()
    with pytest.raises(ConnectionError):
        colour.invoke(graph, {"l": [], "x": 1}, thread)
    assert calls == [1]
    assert [task.name for task in colour.get_state(graph, thread).tasks] == ["a", "b"]
    cache.clear()
    broken.clear()
    chunks = colour.stream(build(), None, thread, stream_mode="updates")
    assert sorted(map(str, chunks)) == sorted(
        map(str, [{"a": {"l": ["a"]}, "__metadata__": CACHED}, {"b": {"l": ["b"]}}])
    )
    assert calls == [1]
    assert colour.get_state(graph, thread).values["l"] == ["a", "b"]


def test_a_restart_finds_it(colour: Colour, tmp_path: Path) -> None:
    calls: list[Any] = []
    for _ in range(2):
        with SqliteCache[Any](tmp_path / "cache.sqlite") as cache:
            graph = single(counting(colour, calls)).compile(cache=cache)
            assert colour.invoke(graph, {"l": [], "x": {"deep": [1, (2, 3)]}}) == {
                "l": ["a"],
                "x": {"deep": [1, (2, 3)]},
            }
    assert len(calls) == 1


def test_routers_do_not_run_either(colour: Colour, cache: Any) -> None:
    """What they chose is part of the result."""
    calls: list[str] = []

    def choose(state: Any) -> list[Any]:
        calls.append("path")
        return ["b", Send("c", {"l": ["sent"]})]

    builder = single(colour.letter("a", calls))
    for name in "bc":
        builder.add_node(name, colour.letter(name))
    builder.add_conditional_edges("a", choose, ["b", "c"])
    graph = builder.compile(cache=cache)
    first = colour.invoke(graph, {"l": []})
    assert (colour.invoke(graph, {"l": []}), calls) == (first, ["a", "path"])
    assert first == {"l": ["a", "b", "c"]}


def test_commands_go_where_they_went(colour: Colour, cache: Any) -> None:
    def act(state: Any) -> Any:
        calls.append(1)
        return Command(update={"l": ["a"]}, goto=[Send("b", {"l": [1]}), "c"])

    calls: list[int] = []
    builder = single(colour.node(act), destinations=("b", "c"))
    builder.add_node("b", colour.node(lambda state: {"l": ["b", *state["l"]]})).add_node("c", colour.letter("c"))
    graph = builder.compile(cache=cache)
    first = colour.invoke(graph, {"l": []})
    assert (colour.invoke(graph, {"l": []}), calls) == (first, [1])
    assert sorted(map(str, first["l"])) == ["1", "a", "b", "c"]


def test_a_sync_node_with_an_async_path() -> None:
    calls: list[str] = []

    async def choose(state: Any) -> str:
        calls.append("path")
        return "b"

    builder = single(Colour("sync").letter("a", calls)).add_node("b", lambda state: {"l": ["b"]})
    graph = builder.add_conditional_edges("a", choose, ["b"]).compile(cache=InMemoryCache())
    assert [asyncio.run(graph.ainvoke({"l": []})) for _ in range(2)] == [{"l": ["a", "b"]}] * 2
    assert calls == ["a", "path"]


def test_what_is_given_out_is_a_copy(colour: Colour, cache: Any) -> None:
    """Whoever edits what he was given changes neither the entry nor what an equal task was given."""

    def act(state: Any) -> dict[str, Any]:
        return {"l": [{"n": [1]}]}

    builder = StateGraph(Log).add_node("a", colour.node(act), cache_policy=FOREVER)
    builder.add_conditional_edges(START, lambda state: [Send("a", {"l": [0]})] * 3, ["a"])
    graph = builder.compile(cache=cache)
    for _ in range(3):
        entries = colour.invoke(graph, {"l": []})["l"]
        assert entries == [{"n": [1]}] * 3
        assert len({id(entry["n"]) for entry in entries}) == 3
        entries[0]["n"].append(2)


# ---- equal tasks


@pytest.mark.parametrize("limit", [None, 1, 2])
def test_equal_tasks_of_a_step_run_once(colour: Colour, cache: Any, limit: int | None) -> None:
    calls: list[Any] = []

    def act(state: Any) -> dict[str, Any]:
        calls.append(state["x"])
        return {"l": [state["x"]]}

    builder = StateGraph(LogX).add_node("w", colour.node(act), cache_policy=FOREVER)
    builder.add_conditional_edges(START, lambda state: [Send("w", {"x": n % 3}) for n in range(9)], ["w"])
    graph = builder.compile(cache=cache)
    config = {} if limit is None else {"max_concurrency": limit}
    assert colour.invoke(graph, {"l": []}, config) == {"l": [0, 1, 2] * 3}
    assert sorted(calls) == [0, 1, 2]
    chunks = colour.stream(graph, {"l": []}, config, stream_mode="updates")
    assert len(chunks) == 9
    assert all(chunk["__metadata__"] == CACHED for chunk in chunks)


def test_equal_nested_graphs_run_their_node_once(colour: Colour) -> None:
    """Two siblings call the same graph: the one that waits must not keep the other one from being settled."""
    calls: list[Any] = []
    inner = single(counting(colour, calls)).compile(cache=InMemoryCache())

    def call(state: Any) -> Any:
        found = yield inner, {"l": [], "x": 1}
        return {"l": found["l"]}

    builder = StateGraph(Log)
    for name in "pqrs":
        builder.add_node(name, colour.script(call)).add_edge(START, name)
    for limit in (None, 1, 3):
        calls.clear()
        inner.clear_cache()
        config = {} if limit is None else {"max_concurrency": limit}
        assert colour.invoke(builder.compile(), {"l": []}, config) == {"l": ["a"] * 4}
        assert calls == [1]


def test_runs_that_miss_together_compute_once() -> None:
    """Threads: the first one fails, of the others one computes."""
    started, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def act(state: Any) -> dict[str, Any]:
        calls.append(1)
        started.set()
        assert go_on.wait(60)
        if len(calls) == 1:
            raise ConnectionError("the first one fails")
        return {"l": ["a"]}

    graph = single(act).compile(cache=InMemoryCache())
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(graph.invoke({"l": []}))
        except ConnectionError as error:
            found.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert started.wait(60)
    go_on.set()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == ["the first one fails", *["{'l': ['a']}"] * 4]
    assert len(calls) == 2


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_coroutines_that_miss_together_compute_once(is_cancelled: bool) -> None:
    """One that is cancelled leaves the work to the next."""
    calls: list[int] = []

    async def main() -> list[Any]:
        started, go_on = asyncio.Event(), asyncio.Event()

        async def act(state: Any) -> dict[str, Any]:
            calls.append(1)
            started.set()
            await go_on.wait()
            return {"l": ["a"]}

        graph = single(act).compile(cache=InMemoryCache())
        first = asyncio.create_task(graph.ainvoke({"l": []}))
        await started.wait()
        others = [asyncio.create_task(graph.ainvoke({"l": []})) for _ in range(5)]
        if is_cancelled:
            started.clear()
            first.cancel()
            await started.wait()
        go_on.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    first, *others = asyncio.run(main())
    assert others == [{"l": ["a"]}] * 5
    assert isinstance(first, asyncio.CancelledError) if is_cancelled else first == {"l": ["a"]}
    assert len(calls) == 1 + is_cancelled


def test_an_abandoned_body_keeps_nobody_waiting(colour: Colour) -> None:
    """Its attempt has timed out: the next one computes, and what the late body brings is not kept."""
    late = threading.Event()
    calls: list[int] = []
    cache = InMemoryCache[Any]()

    def act(state: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            late.wait(60)
            return {"l": ["late"]}
        return {"l": ["in time"]}

    builder = single(act, timeout=0.3, retry_policy=RetryPolicy(initial_interval=0, jitter=False, retry_on=Exception))
    graph = builder.compile(cache=cache)
    try:
        assert colour.invoke(graph, {"l": []}) == {"l": ["in time"]}
    finally:
        late.set()
    assert colour.invoke(graph, {"l": []}) == {"l": ["in time"]}
    assert len(calls) == 2


def test_waiting_takes_none_of_an_attempts_time(colour: Colour) -> None:
    """Three equal tasks with a limit; each of the first two takes it up and fails. The third has all of its own."""
    late = threading.Event()
    calls: list[int] = []

    def act(state: Any) -> Any:
        calls.append(1)
        if len(calls) < 3:
            late.wait(60)
        return {"l": ["a"]}

    async def aact(state: Any) -> Any:
        calls.append(1)
        if len(calls) < 3:
            await asyncio.sleep(60)
        return {"l": ["a"]}

    handler = colour.node(lambda state: {"l": ["failed"]})
    body = aact if colour.is_async else act
    builder = StateGraph(Log).add_node("w", body, cache_policy=FOREVER, timeout=0.3, error_handler=handler)
    builder.add_conditional_edges(START, lambda state: [Send("w", {"l": [0]})] * 3, ["w"])
    graph = builder.compile(cache=InMemoryCache())
    try:
        assert sorted(colour.invoke(graph, {"l": []})["l"]) == ["a", "failed", "failed"]
    finally:
        late.set()


def test_a_node_that_calls_itself_does_not_wait_for_itself(colour: Colour) -> None:
    def act(state: Any) -> Any:
        if state["x"] == 0:
            return {"l": ["end"]}
        found = yield graph, {"l": [], "x": state["x"] - 1}
        return {"l": [*found["l"], state["x"]]}

    graph = single(colour.script(act), policy=CONSTANT).compile(cache=InMemoryCache())
    assert colour.invoke(graph, {"l": [], "x": 3})["l"] == ["end", 1, 2, 3]


def test_a_stream_that_nobody_reads_keeps_nobody_waiting() -> None:
    """Two streams of equal runs, read in turn by one thread, with room for one chunk."""

    def act(state: Any, writer: StreamWriter) -> dict[str, Any]:
        for n in range(5):
            writer(n)
        return {"l": ["a"]}

    graph = single(act).compile(cache=InMemoryCache())
    streams = [graph.stream({"l": []}, stream_mode=["custom", "updates"], buffer=1) for _ in range(2)]
    seen: list[list[Any]] = [[], []]
    first = next(streams[0])
    seen[0].append(first)
    seen[1] += streams[1]
    seen[0] += streams[0]
    for chunks in seen:
        assert [chunk["a"]["l"] for mode, chunk in chunks if mode == "updates"] == [["a"]]


class Both:
    """A node of both colours, whose async form is slow."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.started = threading.Event()

    def invoke(self, state: Any) -> dict[str, Any]:
        self.calls.append("sync")
        return {"l": ["n"]}

    async def ainvoke(self, state: Any) -> dict[str, Any]:
        self.calls.append("async")
        self.started.set()
        await asyncio.sleep(0.01)
        return {"l": ["n"]}


@pytest.mark.parametrize("width", [1, 3])
def test_a_sync_call_on_the_loop_waits_for_nobody_on_it(width: int) -> None:
    """Bad manners, but a program that did so without a cache must not stand still with one."""
    both = Both()
    builder = StateGraph(Log)
    for n in range(width):
        builder.add_node(f"n{n}", both, cache_policy=CONSTANT).add_edge(START, f"n{n}")
    graph = builder.compile(cache=InMemoryCache())

    async def main() -> list[Any]:
        running = asyncio.create_task(graph.ainvoke({"l": []}))
        while not both.started.is_set():
            await asyncio.sleep(0)
        return [graph.invoke({"l": []}), await running]

    assert asyncio.run(main()) == [{"l": ["n"] * width}] * 2
    assert sorted(both.calls) == ["async"] * width + ["sync"] * width


def test_a_loop_that_stands_still_keeps_nobody_waiting() -> None:
    """A coroutine is left half done when its loop stops; another thread, and this one, go on without it."""
    both = Both()
    graph = single(both, schema=Log).compile(cache=InMemoryCache())
    loop = asyncio.new_event_loop()
    try:
        running = loop.create_task(graph.ainvoke({"l": []}))
        while not both.started.is_set():
            loop.run_until_complete(asyncio.sleep(0))
        assert graph.invoke({"l": []}) == {"l": ["n"]}
        assert loop.run_until_complete(running) == {"l": ["n"]}
    finally:
        loop.close()
    assert both.calls == ["async", "sync"]


# ---- what is kept


def test_failures_are_not_kept(colour: Colour, cache: Any) -> None:
    calls: list[int] = []

    def act(state: Any) -> dict[str, Any]:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError(str(len(calls)))
        return {"l": ["a"]}

    graph = single(colour.node(act)).compile(cache=cache)
    for attempt in (1, 2):
        with pytest.raises(ConnectionError, match=str(attempt)):
            colour.invoke(graph, {"l": []})
    assert [colour.invoke(graph, {"l": []}) for _ in range(2)] == [{"l": ["a"]}] * 2
    assert len(calls) == 3


def test_a_retried_node_is_kept(colour: Colour, cache: Any) -> None:
    calls: list[int] = []

    def act(state: Any) -> dict[str, Any]:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError
        return {"l": ["a"]}

    policy = RetryPolicy(initial_interval=0, jitter=False)
    graph = single(colour.node(act), retry_policy=policy).compile(cache=cache)
    assert [colour.invoke(graph, {"l": []}) for _ in range(2)] == [{"l": ["a"]}] * 2
    assert len(calls) == 3


@pytest.mark.parametrize("is_nested", [False, True])
def test_an_answer_is_not_the_next_users(colour: Colour, cache: Any, memory: Any, is_nested: bool) -> None:
    def ask(state: Any) -> dict[str, Any]:
        return {"l": [interrupt("who?")]}

    act: Any = colour.node(ask)
    if is_nested:
        act = StateGraph(Log).add_node("ask", act).add_edge(START, "ask").compile()
    graph = single(act, schema=Log).compile(checkpointer=memory, cache=cache)
    for user in ("ada", "bob"):
        config = {"configurable": {"thread_id": user}}
        assert "__interrupt__" in colour.invoke(graph, {"l": []}, config)
        assert colour.invoke(graph, Command(resume=user), config)["l"] == [user]


def test_a_task_that_was_answered_is_not_looked_up(colour: Colour, cache: Any, memory: Any, thread: Any) -> None:
    """Somebody else's entry came meanwhile: the answer counts."""
    asks: list[int] = [1]

    def act(state: Any) -> dict[str, Any]:
        return {"l": [interrupt("who?") if asks else "nobody"]}

    graph = single(colour.node(act)).compile(checkpointer=memory, cache=cache)
    colour.invoke(graph, {"l": []}, thread)
    asks.clear()
    other = {"configurable": {"thread_id": "2"}}
    assert colour.invoke(graph, {"l": []}, other)["l"] == ["nobody"]
    asks.append(1)
    assert colour.invoke(graph, Command(resume="ada"), thread)["l"] == ["ada"]
    assert colour.invoke(graph, {"l": []}, {"configurable": {"thread_id": "3"}})["l"] == ["nobody"]


def test_time_to_live(colour: Colour) -> None:
    now = [1000.0]
    calls: list[Any] = []
    cache = InMemoryCache[Any](clock=lambda: now[0])
    graph = single(counting(colour, calls), policy=CachePolicy(ttl=60)).compile(cache=cache)
    for wait in (0, 59, 1, 59):
        now[0] += wait
        colour.invoke(graph, {"l": []})
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"ttl": 0}, ValueError),
        ({"ttl": -1}, ValueError),
        ({"ttl": "60"}, TypeError),
        ({"ttl": True}, TypeError),
        ({"key_func": "x"}, TypeError),
    ],
    ids=str,
)
def test_policies_that_cannot_be(wrong: Any, error: Any) -> None:
    with refused(error, next(iter(wrong))):
        CachePolicy(**wrong)


def test_nothing_blocks_the_loop() -> None:
    """On the loop's thread only async methods are called, whatever the colour of the nodes."""

    class Watched(InMemoryCache[Any]):
        def get(self, keys: Any) -> Any:
            calls.append(("get", threading.current_thread() is threading.main_thread()))
            return super().get(keys)

        def set(self, pairs: Any) -> None:
            calls.append(("set", threading.current_thread() is threading.main_thread()))
            super().set(pairs)

        async def aget(self, keys: Any) -> Any:
            calls.append(("aget", True))
            return InMemoryCache.get(self, keys)

        async def aset(self, pairs: Any) -> None:
            calls.append(("aset", True))
            InMemoryCache.set(self, pairs)

    calls: list[tuple[str, bool]] = []
    for name in ("sync", "async"):
        builder = single(Colour(name).letter("a"))
        builder.add_node("b", Colour(name).letter("b"), cache_policy=FOREVER).add_edge(START, "b")
        graph = builder.compile(cache=Watched())
        for _ in range(2):
            asyncio.run(graph.ainvoke({"l": []}))
    assert {"aget", "aset", "get", "set"} == {method for method, _ in calls}
    assert not any(is_on_loop for method, is_on_loop in calls if method in ("get", "set"))


# ---- caches that fail


class Failing(InMemoryCache[Any]):
    """A cache whose methods raise while they are named in `broken`."""

    def __init__(self, *broken: str) -> None:
        super().__init__()
        self.broken = broken

    def get(self, keys: Any) -> Any:
        if "get" in self.broken:
            raise ConnectionError("no route to host")
        return super().get(keys)

    def set(self, pairs: Any) -> None:
        if "set" in self.broken:
            raise OSError("disk full")
        super().set(pairs)


@pytest.mark.parametrize("broken", [("get",), ("set",), ("get", "set")], ids="-".join)
def test_a_cache_that_fails_costs_no_result(colour: Colour, broken: tuple[str, ...]) -> None:
    calls: list[Any] = []
    cache = Failing(*broken)
    graph = single(counting(colour, calls)).compile(cache=cache)
    with diagnosed("Failing", "host" if "get" in broken else "disk full"):
        assert colour.invoke(graph, {"l": []}) == {"l": ["a"]}
    for _ in range(2):  # it is said once
        assert colour.invoke(graph, {"l": []}) == {"l": ["a"]}
    assert len(calls) == 3
    cache.broken = ()
    assert [colour.invoke(graph, {"l": []}) for _ in range(2)] == [{"l": ["a"]}] * 2
    assert len(calls) == (4 if "set" in broken else 3)


def test_a_server_that_is_down(colour: Colour) -> None:
    calls: list[Any] = []
    server = Server(Clock())
    graph = single(counting(colour, calls)).compile(cache=RedisCache(server))
    server.is_down = True
    for _ in range(2):
        with diagnosed("RedisCache", "no route to host"):
            assert colour.invoke(graph, {"l": []}) == {"l": ["a"]}
    server.is_down = False
    assert [colour.invoke(graph, {"l": []}) for _ in range(2)] == [{"l": ["a"]}] * 2
    assert len(calls) == 3


@pytest.mark.parametrize("damage", ["dropped", "closed"])
def test_a_file_that_is_damaged_while_it_is_open(colour: Colour, tmp_path: Path, damage: str) -> None:
    calls: list[Any] = []
    cache = SqliteCache[Any](tmp_path / "cache")
    graph = single(counting(colour, calls)).compile(cache=cache)
    colour.invoke(graph, {"l": []})
    if damage == "dropped":
        cache._conn.execute("DROP TABLE cache_entries")
    else:
        cache.close()
    try:
        with diagnosed("SqliteCache"):
            assert colour.invoke(graph, {"l": []}) == {"l": ["a"]}
        assert len(calls) == 2
    finally:
        with contextlib.suppress(sqlite3.Error):
            cache.close()


def test_under_strict_it_is_an_error(colour: Colour) -> None:
    graph = single(colour.letter("a")).compile(cache=Failing("get"), strict=True)
    with pytest.raises(PregelWarning, match="no route"):
        colour.invoke(graph, {"l": []})


class Opaque:
    """Nothing that can be stored."""


def test_a_value_that_cannot_be_kept(colour: Colour, cache: Any) -> None:
    calls: list[int] = []
    thing = Opaque()

    def act(state: Any) -> dict[str, Any]:
        calls.append(1)
        return {"x": thing}

    graph = single(colour.node(act)).compile(cache=cache)
    with diagnosed("a", "Opaque"):
        assert colour.invoke(graph, {"l": []})["x"] is thing
    assert colour.invoke(graph, {"l": []})["x"] is thing
    assert len(calls) == 2


def test_what_is_never_stored_is_not_kept(colour: Colour, cache: Any) -> None:
    class State(TypedDict, total=False):
        l: Annotated[list[Any], operator.add]  # noqa: E741
        secret: Annotated[str, UntrackedValue]

    calls: list[int] = []

    def act(state: Any) -> dict[str, Any]:
        calls.append(1)
        return {"secret": "hidden"}

    builder = single(colour.node(act), schema=State).add_node("b", colour.node(lambda state: {"l": [state["secret"]]}))
    graph = builder.add_edge("a", "b").compile(cache=cache)
    with diagnosed("a", "secret"):
        assert colour.invoke(graph, {"l": []})["l"] == ["hidden"]
    assert colour.invoke(graph, {"l": []})["l"] == ["hidden"]
    assert len(calls) == 2


@pytest.mark.parametrize(
    "entry", [None, 3, [], [("nowhere", 1)], [("l", ["x"]), "y"], [("l",)], [(1, 2)], {"l": 1}, "text"], ids=str
)
def test_an_entry_that_is_something_else_is_a_miss(colour: Colour, entry: Any) -> None:
    class Odd(InMemoryCache[Any]):
        def get(self, keys: Any) -> Any:
            return dict.fromkeys(keys, entry)

    calls: list[Any] = []
    graph = single(counting(colour, calls)).compile(cache=Odd())
    expected = {"l": []} if entry == [] else {"l": ["a"]}  # writes of nothing are writes
    assert colour.invoke(graph, {"l": []}) == expected
    assert len(calls) == (0 if entry == [] else 1)


# ---- which function, which input


class Multiplier:
    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, state: Any) -> dict[str, Any]:
        return {"x": state["x"] * self.by}

    def act(self, state: Any) -> dict[str, Any]:
        return {"x": state["x"] * self.by}


@dataclass(frozen=True)
class Settings:
    by: int


def made_of(by: Any) -> Any:
    return lambda state: {"x": state["x"] * (by["by"] if isinstance(by, dict) else getattr(by, "by", by))}


def with_default(by: int) -> Any:
    def act(state: Any, factor: int = by) -> dict[str, Any]:
        return {"x": state["x"] * factor}

    return act


def multiply(by: int, state: Any) -> dict[str, Any]:
    return {"x": state["x"] * by}


class Client:
    """Has no content to go by."""

    def __init__(self, by: int) -> None:
        self.by = by
        self.lock = threading.Lock()


FAMILIES: dict[str, Callable[[int], Any]] = {
    "number": made_of,
    "dict": lambda by: made_of({"by": by}),
    "dataclass": lambda by: made_of(Settings(by)),
    "client": lambda by: made_of(Client(by)),
    "instance": Multiplier,
    "method": lambda by: Multiplier(by).act,
    "partial": lambda by: functools.partial(multiply, by),
    "default": with_default,
    "graph": lambda by: StateGraph(LogX).add_node("m", made_of(by)).add_edge(START, "m").compile(),
    "two steps": lambda by: NodeBuilder().do(lambda given: {"x": given["a"]}).do(made_of(by)),
    "source": lambda by: eval(f"lambda state: {{'x': state['x'] * {by}}}"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_two_functions_never_share(family: str) -> None:
    """Same place, same name, same input: what they were made of tells them apart."""
    cache = InMemoryCache[Any]()
    make = FAMILIES[family]

    def build(by: int) -> Any:
        made = make(by)
        if not isinstance(made, NodeBuilder):
            return single(made, name="n").compile(cache=cache)
        return Pregel(
            nodes={"n": made.subscribe_to("a").write_to(b=lambda result: result["x"]).add_cache_policy(FOREVER)},
            channels={"a": EphemeralValue(int), "b": LastValue(int)},
            input_channels="a",
            output_channels="b",
            cache=cache,
        )

    def result(graph: Any) -> Any:
        return graph.invoke({"l": [], "x": 7})["x"] if isinstance(graph, CompiledStateGraph) else graph.invoke(7)

    two, three = build(2), build(3)
    assert [result(graph) for graph in (two, three, two, three)] == [14, 21, 14, 21]
    assert len(cache._entries) == 2
    assert result(build(2)) == 14
    assert len(cache._entries) == 2 + (family == "client")


def test_what_changes_while_it_runs_makes_no_other_function(colour: Colour, cache: Any) -> None:
    calls: list[int] = []
    seen: dict[str, int] = {}

    def build() -> Any:
        def act(state: Any) -> dict[str, Any]:
            calls.append(1)
            seen["n"] = seen.get("n", 0) + 1
            return {"l": ["a"]}

        return single(colour.node(act)).compile(cache=cache)

    for _ in range(3):
        colour.invoke(build(), {"l": []})
    assert (calls, seen) == ([1], {"n": 1})


def test_another_graph_is_another_place(colour: Colour) -> None:
    """The same function leads elsewhere: what it wrote to start the next node must not lead there."""
    cache = InMemoryCache[Any]()
    act = colour.letter("a")

    def build(then: str, name: str = "LangGraph") -> Any:
        builder = single(act)
        for other in "bc":
            builder.add_node(other, colour.letter(other))
        builder.add_conditional_edges("b", lambda state: END, ["c", END])
        builder.add_conditional_edges("c", lambda state: END, ["b", END])
        return builder.add_edge("a", then).compile(cache=cache, name=name)

    results = [colour.invoke(build(then), {"l": []})["l"] for then in "bcbc"]
    assert results == [["a", "b"], ["a", "c"]] * 2
    assert len(cache._entries) == 2
    colour.invoke(build("b", "other"), {"l": []})
    assert len(cache._entries) == 3


def test_equal_inputs(colour: Colour) -> None:
    """Order of keys and sets does not count; types do."""
    calls: list[Any] = []
    cache = InMemoryCache[Any]()
    graph = single(counting(colour, calls)).compile(cache=cache)
    same = [{"a": 1, "b": {"x", "y", "z"}}, {"b": {"z", "y", "x"}, "a": 1}]
    others = [1, 1.0, True, "1", b"1", None, [1], (1,), {1}, Settings(1), {"a": 1}, {"a": {"b"}}, -0.0, 0.0]
    for value in same + same:
        colour.invoke(graph, {"l": [], "x": value})
    assert len(calls) == 1
    for value in others + others:
        colour.invoke(graph, {"l": [], "x": value})
    assert len(calls) == 1 + len(others)


@pytest.mark.parametrize("value", ["lock", "loop", "generator"])
def test_an_input_without_a_key_is_an_error_before_anything_runs(colour: Colour, value: str) -> None:
    calls: list[Any] = []
    looped: list[Any] = [1]
    looped.append(looped)
    made: dict[str, Any] = {"lock": threading.Lock(), "loop": looped, "generator": (n for n in "ab")}
    builder = single(counting(colour, calls)).add_node("b", counting(colour, calls)).add_edge(START, "b")
    graph = builder.compile(cache=InMemoryCache())
    with refused(TypeError, "'a'", "its input['x']['things'][1]", "key_func"):
        colour.invoke(graph, {"l": [], "x": {"things": [0, made[value]]}})
    assert not calls
    own = single(counting(colour, calls), policy=CONSTANT).compile(cache=InMemoryCache())
    for _ in range(2):
        colour.invoke(own, {"l": [], "x": made[value]})
    assert len(calls) == 1


def test_key_functions(colour: Colour, cache: Any) -> None:
    given: list[Any] = []

    def key(state: Any) -> Any:
        given.append(state)
        return str(state["x"] % 2) if state["x"] < 10 else bytes([state["x"] % 2])

    calls: list[Any] = []
    graph = single(counting(colour, calls), policy=CachePolicy(key_func=key)).compile(cache=cache)
    for n in (1, 3, 2, 5, 4, 11, 13):
        colour.invoke(graph, {"l": [], "x": n})
    assert calls == [1, 2, 11]
    assert given[0] == {"l": [], "x": 1}


def test_key_functions_that_fail(colour: Colour) -> None:
    calls: list[Any] = []

    def graph(key: Any) -> Any:
        return single(counting(colour, calls), policy=CachePolicy(key_func=key)).compile(cache=InMemoryCache())

    with pytest.raises(KeyError) as caught:
        colour.invoke(graph(lambda state: state["missing"]), {"l": []})
    assert any("key_func" in note and "'a'" in note for note in caught.value.__notes__)
    with refused(TypeError, "'a'", "key_func", "int"):
        colour.invoke(graph(lambda state: 3), {"l": []})
    assert not calls


def test_a_function_that_only_this_process_can_tell(colour: Colour, tmp_path: Path) -> None:
    """A file is for other processes too: that they will not find it is said, once; a key function settles it."""
    client = Client(2)
    with SqliteCache[Any](tmp_path / "cache") as cache:
        graph = single(made_of(client), name="n").compile(cache=cache)
        with diagnosed("'n'", "key_func", "SqliteCache"):
            colour.invoke(graph, {"l": [], "x": 7})
        assert colour.invoke(graph, {"l": [], "x": 7})["x"] == 14
        keyed = CachePolicy[Any](key_func=lambda state: str(state["x"]))
        for n in range(3):
            graph = single(made_of(Client(2 + n // 2)), name="n", policy=keyed).compile(cache=cache)
            assert colour.invoke(graph, {"l": [], "x": 7})["x"] == (14, 14, 21)[n]
        n_entries = cache._conn.execute("SELECT count(*) FROM cache_entries").fetchone()
        assert n_entries == (3,)  # one without a key function, two with


# ---- which cache, which policy


def test_nested_graphs_use_the_cache_around_them(colour: Colour) -> None:
    calls: list[Any] = []
    outer_cache, own = InMemoryCache[Any](), InMemoryCache[Any]()
    inner = single(counting(colour, calls))
    for cache, used in ((None, outer_cache), (own, own)):
        graph = StateGraph(LogX).add_node("sub", inner.compile(cache=cache)).add_edge(START, "sub")
        for _ in range(2):
            colour.invoke(graph.compile(cache=outer_cache), {"l": [], "x": 1})
        assert calls == [1]
        calls.clear()
        assert len(used._entries) == 1


def test_a_cache_may_be_assigned(colour: Colour) -> None:
    calls: list[Any] = []
    graph = single(counting(colour, calls)).compile()
    for cache in (None, InMemoryCache[Any](), None):
        graph.cache = cache
        for _ in range(2):
            colour.invoke(graph, {"l": []})
    assert len(calls) == 5


def test_defaults_are_for_nodes_that_have_none(colour: Colour) -> None:
    """Not for error handlers, and not inside nested graphs."""
    calls: list[str] = []

    def fail(state: Any) -> Any:
        calls.append("fail")
        raise ConnectionError

    def handle(state: Any, error: NodeError) -> dict[str, Any]:
        calls.append("handle")
        return {"l": ["handled"]}

    inner = StateGraph(Log).add_node("inner", colour.letter("inner", calls)).add_edge(START, "inner").compile()

    def call(state: Any) -> Any:
        found = yield inner, {"l": []}
        return {"l": found["l"]}

    builder = StateGraph(Log).add_node("a", colour.letter("a", calls))
    builder.add_node("sub", colour.script(call), cache_policy=CachePolicy(key_func=lambda state: str(len(calls))))
    builder.add_node("fail", colour.node(fail), error_handler=colour.node(handle))
    builder.set_node_defaults(cache_policy=FOREVER)
    for name in ("a", "sub", "fail"):
        builder.add_edge(START, name)
    graph = builder.compile(cache=InMemoryCache())
    for _ in range(2):
        assert sorted(colour.invoke(graph, {"l": []})["l"]) == ["a", "handled", "inner"]
    assert sorted(calls) == ["a", "fail", "fail", "handle", "handle", "inner", "inner"]


def test_a_policy_for_a_whole_graph(colour: Colour) -> None:
    calls: list[Any] = []

    def act(value: Any) -> Any:
        calls.append(value)
        return value + 1

    graph = Pregel(
        nodes={"n": NodeBuilder().subscribe_only("a").do(colour.node(act)).write_to("b")},
        channels={"a": EphemeralValue(int), "b": LastValue(int)},
        input_channels="a",
        output_channels="b",
        cache=InMemoryCache(),
        cache_policy=FOREVER,
    )
    assert [colour.invoke(graph, n) for n in (1, 2, 1)] == [2, 3, 2]
    assert calls == [1, 2]


def test_clearing(colour: Colour) -> None:
    calls: list[str] = []
    inner = single(colour.letter("inner", calls), name="inner", schema=Log).compile()
    builder = single(colour.letter("a", calls), schema=Log).add_node("sub", inner).add_edge("a", "sub")
    other = single(colour.letter("a", calls), name="other", schema=Log)
    cache = InMemoryCache[Any]()
    graph = builder.compile(cache=cache)

    def clear(*args: Any) -> None:
        if colour.is_async:
            asyncio.run(graph.aclear_cache(*args))
        else:
            graph.clear_cache(*args)

    def ran() -> list[str]:
        calls.clear()
        colour.invoke(graph, {"l": []})
        colour.invoke(other.compile(cache=cache), {"l": []})
        return sorted(calls)

    assert ran() == ["a", "a", "inner"]
    assert ran() == []
    clear(["a"])
    assert ran() == ["a"]
    clear(["sub"])
    assert ran() == ["inner"]
    clear([])
    assert ran() == []
    clear()
    assert ran() == ["a", "inner"]
    with diagnosed("'b'"):
        clear(["b"])
    assert ran() == []
    graph.cache = None
    with refused(ValueError, "No cache is set"):
        clear()


# ---- any program


class Tree:
    """A graph that sends to itself in deeper graphs, with equal tasks everywhere, failures, and one cache for all."""

    def __init__(self, colour: Colour, seed: int) -> None:
        self.colour = colour
        self.random = random.Random(seed)
        self.depth = self.random.randint(0, 2)
        self.ran: list[Any] = []
        """(depth, x) of every leaf that was computed to its end."""

    def width(self, depth: int, x: int) -> int:
        return (7 * depth + 3 * x) % 6 + 2

    def result(self, x: int, depth: int) -> list[Any]:
        inputs = [(i, (x + i) % 3) for i in range(self.width(depth, x))]
        return [self.result(y, depth - 1) if depth and i % 2 else y for i, y in inputs]

    def build(self, depth: int, **options: Any) -> Any:
        def leaf(state: Any) -> dict[str, Any]:
            if self.random.random() < 0.1:
                raise ConnectionError
            self.ran.append((depth, state["x"]))
            return {"l": [state["x"]]}

        def fan(state: Any) -> list[Send]:
            return [
                Send("sub" if depth and i % 2 else "leaf", {"x": (state["x"] + i) % 3})
                for i in range(self.width(depth, state["x"]))
            ]

        policies: Any = {
            "cache_policy": FOREVER,
            "retry_policy": RetryPolicy(initial_interval=0, jitter=False, max_attempts=30),
        }
        builder = StateGraph(LogX).add_node("leaf", self.colour.node(leaf), **policies)
        if depth:
            inner = self.build(depth - 1, name=f"depth {depth - 1}")

            def sub(state: Any) -> Any:
                found = yield inner, {"l": [], "x": state["x"]}
                return {"l": [found["l"]]}

            builder.add_node("sub", self.colour.script(sub), **policies)
        builder.add_conditional_edges(START, fan, ["leaf", "sub"] if depth else ["leaf"])
        return builder.compile(**options)


@pytest.mark.parametrize("seed", range(8))
def test_any_program_gives_what_it_gives_without_a_cache(colour: Colour, seed: int) -> None:
    """Four runs at once, any limit; nothing is computed twice, and nobody waits for ever."""
    tree = Tree(colour, seed)
    graph = tree.build(tree.depth, cache=InMemoryCache())
    limit = tree.random.choice([None, 1, 2, 5])
    config: Any = {} if limit is None else {"max_concurrency": limit}
    inputs = [tree.random.randint(0, 2) for _ in range(4)]
    found: dict[int, Any] = {}

    def run(index: int) -> None:
        found[index] = graph.invoke({"l": [], "x": inputs[index]}, config)["l"]

    async def main() -> None:
        runs = [graph.ainvoke({"l": [], "x": x}, config) for x in inputs]
        found.update(enumerate(outcome["l"] for outcome in await asyncio.gather(*runs)))

    if colour.is_async:
        asyncio.run(main())
    else:
        threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [found.get(index) for index in range(4)] == [tree.result(x, tree.depth) for x in inputs]
    assert len(tree.ran) == len(set(tree.ran))
