"""Stores inside graphs: who gets which, in which colour, nested, again after a restart; and what a put is not part of."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.config import get_store
from pregel.func import entrypoint, task
from pregel.graph import START, StateGraph
from pregel.runtime import Runtime, get_runtime
from pregel.store.base import BaseStore
from pregel.store.memory import InMemoryStore
from pregel.store.sqlite import AsyncSqliteStore, SqliteStore
from pregel.types import Command, Send, interrupt
from tests.support.scenarios import Colour

NS = ("users", "ada")
CONFIG: Any = {"configurable": {"thread_id": "t"}}


class Log(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


def letters(texts: Any) -> list[list[float]]:
    return [[float(text.count("a")), float(text.count("b"))] for text in texts]


INDEX: Any = {"dims": 2, "embed": letters, "fields": ["text"]}
STORES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda path: InMemoryStore(index=INDEX),
    "sqlite": lambda path: SqliteStore(path, index=INDEX),
    "async sqlite": lambda path: AsyncSqliteStore(path, index=INDEX),
}


def remembering(colour: Colour, name: str, find: Callable[[Any], Any]) -> Callable[..., Any]:
    """A node that keeps a note and says what it finds, by the methods of its colour; `find` gets the store."""

    def node(state: Log, runtime: Runtime[Any]) -> Log:
        store = find(runtime)
        store.put(NS, name, {"text": name, "n": len(state["log"])})
        found = store.search(NS[:1], query=name, limit=1)[0]
        return {"log": [(name, found.key, store.get(NS, name).value["n"], len(store.search((), filter={"n": 0})))]}

    async def anode(state: Log, runtime: Runtime[Any]) -> Log:
        store = find(runtime)
        await store.aput(NS, name, {"text": name, "n": len(state["log"])})
        found = (await store.asearch(NS[:1], query=name, limit=1))[0]
        item, zeros = await asyncio.gather(store.aget(NS, name), store.asearch((), filter={"n": 0}))
        return {"log": [(name, found.key, item.value["n"], len(zeros))]}

    return anode if colour.is_async else node


def chain(**nodes: Any) -> Any:
    graph = StateGraph(Log)
    before = START
    for name, node in nodes.items():
        graph.add_node(name, node).add_edge(before, name)
        before = name
    return graph


def close(store: Any) -> None:
    if isinstance(store, AsyncSqliteStore):
        asyncio.run(store.aclose())
    elif isinstance(store, SqliteStore):
        store.close()


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("saver", ["none", "memory", "sqlite"])
def test_nodes_share_a_store(colour: Colour, kind: str, saver: str, tmp_path: Path) -> None:
    """By the runtime, by `get_store`, in a nested graph of its own store, and again after a restart."""

    def run(before: int) -> None:
        store = STORES[kind](tmp_path / "s")
        checkpointer = (
            SqliteSaver(tmp_path / "c") if saver == "sqlite" else InMemorySaver() if saver == "memory" else None
        )
        inner = chain(aab=remembering(colour, "aab", lambda runtime: get_store())).compile(store=InMemoryStore())
        graph = chain(
            a=remembering(colour, "a", lambda runtime: runtime.store),
            inside=inner,
            b=remembering(colour, "b", lambda runtime: get_runtime().store),
        ).compile(store=store, checkpointer=checkpointer)
        for durability in ("sync", "async", "exit") if checkpointer is not None else (None,):
            config = {"configurable": {"thread_id": str(durability)}} if checkpointer is not None else None
            more = {} if durability is None else {"durability": durability}
            found = colour.invoke(graph, {"log": []}, config, **more)["log"]
            # the log of the state is all that the nested graph is given: it gives it back as a whole
            assert ("a", "a", 0) in [one[:3] for one in found]
            assert ("aab", "aab", 1) in [one[:3] for one in found]
            assert found[-1][:2] == ("b", "b")
        assert before == 0 or kind != "memory"
        close(store)
        if checkpointer is not None and saver == "sqlite":
            checkpointer.close()  # type: ignore[union-attr]

    run(0)
    if kind != "memory":
        run(1)
        store = STORES[kind](tmp_path / "s")
        assert {item.key: item.version >= 2 for item in store.search((), limit=-1)} == dict.fromkeys(
            ("a", "aab", "b"), True
        )
        close(store)


def test_a_store_is_injected(colour: Colour, tmp_path: Path) -> None:
    def put(state: Log, *, store: BaseStore) -> None:
        store.put(NS, "k", {"n": 1})

    async def aput(state: Log, *, store: BaseStore) -> None:
        await store.aput(NS, "k", {"n": 1})

    store = AsyncSqliteStore(tmp_path / "s")
    graph = chain(put=aput if colour.is_async else put).compile(store=store)
    colour.invoke(graph, {"log": []})
    assert store.get(NS, "k").value == {"n": 1}  # type: ignore[union-attr]
    close(store)


def test_async_nodes_of_a_step_are_one_transaction(tmp_path: Path) -> None:
    batches: list[int] = []

    class Watched(AsyncSqliteStore):
        async def abatch(self, ops: Any) -> Any:
            asked = list(ops)
            batches.append(len(asked))
            return await super().abatch(asked)

    async def note(n: Any, runtime: Runtime[Any]) -> Log:
        assert runtime.store is not None
        await runtime.store.aput(NS, f"{n}", {"n": n})
        item = await runtime.store.aget(NS, "common")
        return {"log": [item.value["n"]]}

    async def main() -> list[Any]:
        async with Watched(tmp_path / "s") as store:
            await store.aput(NS, "common", {"n": "same"})
            graph = StateGraph(Log).add_node("note", note)
            graph.add_conditional_edges(START, lambda state: [Send("note", n) for n in range(40)], ["note"])
            found = (await graph.compile(store=store).ainvoke({"log": []}))["log"]
            assert len(await store.asearch(NS, limit=-1)) == 41
        return list(found)

    assert asyncio.run(main()) == ["same"] * 40
    # one before and one after; 40 puts and 40 gets of one key between them, not each on its own
    assert len(batches) <= 12
    assert sum(batches) <= 2 + 40 + len(batches)


def test_plain_calls_are_for_plain_nodes(tmp_path: Path) -> None:
    """A sync node of an async run is on a worker; an async one is on the loop, where a plain call is refused."""

    def plain(state: Log) -> Log:
        get_store().put(NS, "k", {"n": 1})
        return {"log": [get_store().get(NS, "k").value["n"]]}

    async def wrong(state: Log) -> Log:
        with pytest.raises(asyncio.InvalidStateError, match="aget"):
            get_store().get(NS, "k")
        return {"log": [(await get_store().aget(NS, "k")).value["n"]]}

    async def main() -> None:
        async with AsyncSqliteStore(tmp_path / "s") as store:
            graph = chain(plain=plain, wrong=wrong).compile(store=store)
            assert await graph.ainvoke({"log": []}) == {"log": [1, 1]}

    asyncio.run(main())


@pytest.mark.parametrize("kind", STORES)
def test_a_put_is_not_part_of_the_checkpoint(colour: Colour, kind: str, tmp_path: Path) -> None:
    """What a node put stays, though the node fails; and is put again when it runs again: the same key, a new version."""
    store = STORES[kind](tmp_path / "s")
    fails = [True]

    def after(answer: Any) -> Log:
        if fails:
            fails.pop()
            raise LookupError("once")
        return {"log": [answer]}

    def node(state: Log) -> Log:
        get_store().put(NS, "k", {"n": 1})
        return after(interrupt("?"))

    async def anode(state: Log) -> Log:
        await get_store().aput(NS, "k", {"n": 1})
        return after(interrupt("?"))

    graph = chain(n=anode if colour.is_async else node).compile(store=store, checkpointer=InMemorySaver())
    colour.invoke(graph, {"log": []}, CONFIG)
    assert store.get(NS, "k").version == 1
    with pytest.raises(LookupError):
        colour.invoke(graph, Command(resume="yes"), CONFIG)
    assert store.get(NS, "k").version == 2
    assert colour.get_state(graph, CONFIG).values == {"log": []}
    assert colour.invoke(graph, None, CONFIG) == {"log": ["yes"]}
    assert store.get(NS, "k").version == 3
    close(store)


def test_a_store_that_fails_is_an_error_of_the_node(colour: Colour, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s")
    store.put(NS, "k", {"n": 1})

    def node(state: Log) -> Log:
        get_store().put(NS, "k", {"n": object()})
        return {"log": [1]}

    async def anode(state: Log) -> Log:
        await get_store().aput(NS, "k", {"n": object()})
        return {"log": [1]}

    graph = chain(n=anode if colour.is_async else node).compile(store=store, checkpointer=InMemorySaver())
    with pytest.raises(TypeError, match="'k'"):
        colour.invoke(graph, {"log": []}, CONFIG)
    assert store.get(NS, "k").value == {"n": 1}  # type: ignore[union-attr]
    assert colour.get_state(graph, CONFIG).next == ("n",)
    store.close()


@pytest.mark.parametrize("kind", STORES)
def test_functions_share_a_store(colour: Colour, kind: str, tmp_path: Path) -> None:
    """An entrypoint and its tasks, which run side by side."""
    store = STORES[kind](tmp_path / "s")

    @task
    def note(n: int) -> int:
        get_store().put(NS, f"{n}", {"n": n})
        return n

    @task
    async def anote(n: int) -> int:
        await get_store().aput(NS, f"{n}", {"n": n})
        return n

    @entrypoint(store=store)
    def work(n: int, *, store: BaseStore) -> list[str]:
        for future in [note(k) for k in range(n)]:
            future.result()
        return sorted(item.key for item in store.search(NS))

    @entrypoint(store=store)
    async def awork(n: int, *, store: BaseStore) -> list[str]:
        await asyncio.gather(*(anote(k) for k in range(n)))
        return sorted(item.key for item in await store.asearch(NS))

    assert colour.invoke(awork if colour.is_async else work, 5) == [*"01234"]
    close(store)
