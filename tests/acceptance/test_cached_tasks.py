"""Tasks of workflows that ask a cache: when they are called, once per distinct call, wherever they are called from."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pregel.cache.memory import InMemoryCache
from pregel.cache.sqlite import SqliteCache
from pregel.func import entrypoint, task
from pregel.graph import START, StateGraph
from pregel.types import CachePolicy, Command, interrupt
from tests.support.scenarios import Colour, Log, refused

FOREVER: Any = CachePolicy()
CACHED = {"cached": True}


class Workflow:
    """A task that counts its calls, and entrypoints that make them one after the other."""

    def __init__(self, colour: Colour, policy: Any = FOREVER) -> None:
        self.colour = colour
        self.calls: list[Any] = []

        def add(one: Any, two: Any = 0) -> Any:
            self.calls.append((one, two))
            return one + two

        self.add = task(colour.node(add), cache_policy=policy)

    def graph(self, **kw: Any) -> Any:
        add = self.add

        def wf(given: list[Any]) -> Any:
            return [add(*args).result() for args in given]

        async def awf(given: list[Any]) -> Any:
            return [await add(*args) for args in given]

        awf.__name__ = "wf"
        return entrypoint(**kw)(awf if self.colour.is_async else wf)

    def ran(self) -> list[Any]:
        calls, self.calls[:] = list(self.calls), []
        return calls


def test_a_call_is_computed_once(colour: Colour, saver: Any) -> None:
    """Within a run, over threads, and with the same arguments in another form not."""
    flow = Workflow(colour)
    graph = flow.graph(cache=InMemoryCache(), checkpointer=saver)
    for thread, expected in (("1", [(1, 2), (2, 1)]), ("2", [])):
        config = {"configurable": {"thread_id": thread}}
        assert colour.invoke(graph, [(1, 2), (2, 1), (1, 2)], config) == [3, 3, 3]
        assert flow.ran() == expected


def test_what_a_stream_shows(colour: Colour) -> None:
    graph = Workflow(colour).graph(cache=InMemoryCache())
    colour.invoke(graph, [(1, 2)])
    assert colour.stream(graph, [(1, 2)]) == [{"add": 3, "__metadata__": CACHED}, {"wf": [3]}]
    events = colour.stream(graph, [(1, 2)], stream_mode="tasks")
    assert [(event["name"], "result" in event) for event in events] == [("wf", False), ("add", False), ("wf", True)]


def test_any_number_of_resumes(colour: Colour, memory: Any, thread: Any) -> None:
    calls: list[int] = []
    cache = InMemoryCache[Any]()

    def slow(n: int) -> int:
        calls.append(n)
        return n * 2

    made = task(colour.node(slow), cache_policy=FOREVER)

    if colour.is_async:

        @entrypoint(checkpointer=memory, cache=cache)
        async def graph(n: int) -> Any:
            one = await made(n)
            answer = interrupt("more?")
            return [one, await made(n), await made(n + 1), answer]
    else:

        @entrypoint(checkpointer=memory, cache=cache)
        def graph(n: int) -> Any:
            one = made(n).result()
            answer = interrupt("more?")
            return [one, made(n).result(), made(n + 1).result(), answer]

    for config in (thread, {"configurable": {"thread_id": "2"}}):
        assert "__interrupt__" in colour.invoke(graph, 1, config)
        assert colour.invoke(graph, Command(resume="yes"), config) == [2, 2, 4, "yes"]
    assert calls == [1, 2]


def test_clearing(colour: Colour) -> None:
    """One task's results, of all its callers; another task with the same function keeps its own."""
    flow = Workflow(colour)
    cache = InMemoryCache[Any]()
    graph = flow.graph(cache=cache)
    other = task(flow.add.func, name="other", cache_policy=FOREVER)

    def clear(what: Any) -> None:
        if colour.is_async:
            asyncio.run(what.aclear_cache(cache))
        else:
            what.clear_cache(cache)

    colour.invoke(graph, [(1,)])
    clear(other)
    colour.invoke(graph, [(1,)])
    assert flow.ran() == [(1, 0)]
    clear(flow.add)
    colour.invoke(graph, [(1,)])
    assert flow.ran() == [(1, 0)]


def test_a_whole_entrypoint(colour: Colour) -> None:
    """Its policy is that of the tasks it calls as well."""
    flow = Workflow(colour, policy=None)
    cache = InMemoryCache[Any]()
    graph = flow.graph(cache=cache, cache_policy=FOREVER)
    for given, ran in (([(1, 2)], [(1, 2)]), ([(1, 2)], []), ([(1, 2), (3, 4)], [(3, 4)])):
        assert colour.invoke(graph, given)[0] == 3
        assert flow.ran() == ran
    assert colour.stream(graph, [(1, 2)]) == [{"wf": [3], "__metadata__": CACHED}]
    plain = flow.graph(cache=InMemoryCache())
    colour.invoke(plain, [(1, 2), (1, 2)])
    assert len(flow.ran()) == 2


def test_two_lambdas_never_share(colour: Colour) -> None:
    cache = InMemoryCache[Any]()

    def graph(by: int) -> Any:
        made = task(colour.node(lambda n: n * by), name="f", cache_policy=FOREVER)

        def wf(n: int) -> Any:
            return made(n).result()

        async def awf(n: int) -> Any:
            return await made(n)

        return entrypoint(cache=cache)(awf if colour.is_async else wf)

    assert [colour.invoke(graph(by), 7) for by in (2, 3, 2)] == [14, 21, 14]
    assert len(cache._entries) == 2


def test_calls_from_nodes_and_nested_graphs(colour: Colour) -> None:
    flow = Workflow(colour)
    cache = InMemoryCache[Any]()

    def act(state: Any) -> Any:
        return {"l": [flow.add(1, 2).result()]}

    async def aact(state: Any) -> Any:
        return {"l": [await flow.add(1, 2)]}

    node = aact if colour.is_async else act
    inner = StateGraph(Log).add_node("n", node).add_edge(START, "n").compile()
    outer = StateGraph(Log).add_node("n", node).add_node("sub", inner).add_edge(START, "n").add_edge("n", "sub")
    assert colour.invoke(outer.compile(cache=cache), {"l": []})["l"][-1] == 3
    assert colour.invoke(flow.graph(cache=cache), [(1, 2)]) == [3]
    assert flow.ran() == [(1, 2)]


def test_a_restart_finds_it(colour: Colour, tmp_path: Path) -> None:
    flow = Workflow(colour)
    for _ in range(2):
        with SqliteCache[Any](tmp_path / "cache") as cache:
            assert colour.invoke(flow.graph(cache=cache), [("a", "b")]) == ["ab"]
    assert flow.ran() == [("a", "b")]


def test_key_functions_get_the_arguments(colour: Colour) -> None:
    flow = Workflow(colour, policy=CachePolicy(key_func=lambda one, two=0: str(one)))
    graph = flow.graph(cache=InMemoryCache())
    assert colour.invoke(graph, [(1,), (1, 5), (2, 5)]) == [1, 1, 7]
    assert flow.ran() == [(1, 0), (2, 5)]


def test_failures_and_arguments_without_a_key(colour: Colour) -> None:
    flow = Workflow(colour)
    graph = flow.graph(cache=InMemoryCache())
    for _ in range(2):
        with pytest.raises(TypeError):
            colour.invoke(graph, [(1, "a")])
    assert len(flow.ran()) == 2
    with refused(TypeError, "'add'", "its input[0][1]", "key_func"):
        colour.invoke(graph, [(1, (n for n in "a"))])
    assert flow.ran() == []


@pytest.mark.parametrize("limit", [None, 1, 2])
def test_equal_calls_at_once(colour: Colour, limit: int | None) -> None:
    flow = Workflow(colour)

    def wf(n: int) -> Any:
        return [future.result() for future in [flow.add(n, i % 2) for i in range(6)]]

    async def awf(n: int) -> Any:
        return await asyncio.gather(*[flow.add(n, i % 2) for i in range(6)])

    graph = entrypoint(cache=InMemoryCache())(awf if colour.is_async else wf)
    config = {} if limit is None else {"max_concurrency": limit}
    assert colour.invoke(graph, 1, config) == [1, 2] * 3
    assert sorted(flow.ran()) == [(1, 0), (1, 1)]
