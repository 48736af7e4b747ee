"""The store that nodes are given (engine.md 9.2, 9.3, 6.3)."""

from collections.abc import Callable
from typing import Any, Optional

from pregel.config import get_config, get_store, get_stream_writer
from pregel.graph import START, StateGraph
from pregel.runtime import Runtime, get_runtime
from pregel.store.base import BaseStore
from pregel.store.memory import InMemoryStore
from pregel.types import StreamWriter
from tests.support.scenarios import Colour, Log

Seen = list[Any]


def run(colour: Colour, node: Callable[..., Any], store: Any = None) -> Any:
    """Run START → n once and give the result."""
    graph = StateGraph(Log).add_node("n", colour.node(node)).add_edge(START, "n").compile(store=store)
    return colour.invoke(graph, {"l": []})


def test_writer_store_and_runtime(colour: Colour) -> None:
    seen: Seen = []
    store = InMemoryStore()

    def bare(state, writer, store, runtime):  # type: ignore[no-untyped-def]
        seen.append((callable(writer), store, isinstance(runtime, Runtime)))

    def typed(state: Log, *, runtime: Runtime[Any], store: BaseStore, writer: StreamWriter) -> None:
        seen.append((callable(writer), store, isinstance(runtime, Runtime)))

    run(colour, bare, store)
    run(colour, typed, store=store)
    assert seen == [(True, store, True)] * 2


def test_store_is_none_without_one(colour: Colour) -> None:
    seen: Seen = []

    def n(state: Log, store: BaseStore) -> None:
        seen.append(store)

    def optional(state: Log, store: Optional[BaseStore]) -> None:  # noqa: UP045 - the form under test
        seen.append(store)

    run(colour, n)
    run(colour, optional)
    assert seen == [None, None]


def test_accessors(colour: Colour) -> None:
    seen: Seen = []
    store = InMemoryStore()

    def n(state: Log, runtime: Runtime[Any]) -> None:
        seen.append(get_config()["metadata"]["langgraph_node"])
        seen.append(get_store())
        seen.append(get_runtime() == runtime)
        get_stream_writer()("chunk")

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(store=store)
    assert colour.stream(graph, {"l": []}, stream_mode="custom") == ["chunk"]
    assert seen == ["n", store, True]


def test_nested_graphs_inherit_the_runtime(colour: Colour) -> None:
    seen: Seen = []
    store, own = InMemoryStore(), InMemoryStore()

    def i(state: Log, runtime: Runtime[Any]) -> None:
        seen.append((runtime.context, runtime.store))

    inner = StateGraph(Log).add_node("i", colour.node(i)).add_edge(START, "i").compile(store=own)
    graph = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").compile(store=store)
    colour.invoke(graph, {"l": []}, context={"c": 1})
    assert seen == [({"c": 1}, store)]
