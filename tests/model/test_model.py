"""Random graphs under every completion order, durability, colour and saver: the engine does what the reference does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.errors import InvalidUpdateError
from tests.model.reference import Thread
from tests.support.graphs import STEADY, Graph, Node, World, answer, build, graphs, seeded
from tests.support.play import Player, compare, converse
from tests.support.savers import FaultySaver
from tests.support.schedule import scheduled

LIMIT = 8
INPUTS = [{"log": ["in"]}, {"log": ["again"], "total": 1}]


def check(graph: Graph, seed: int, saver: Any, *, is_async: bool, durability: str, streams: bool) -> None:
    """One conversation on both sides."""
    with scheduled(seed) as turns:
        world = World()
        world.turns = turns
        player = Player(
            graph,
            saver=saver,
            is_async=is_async,
            durability=durability if saver is not None else None,
            limit=LIMIT,
            streams=streams,
            world=world,
        )
        thread = Thread(graph, limit=LIMIT, keeps_all=durability != "exit")
        if saver is None:
            compare(player, thread, player.invoke(INPUTS[0]), thread.invoke(INPUTS[0]))
            return
        if isinstance(saver, FaultySaver):
            world.watch = saver.ledger
        converse(player, thread, INPUTS, seed)
        if isinstance(saver, FaultySaver):
            assert saver.ledger.breaches == []


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("is_async", [False, True])
@given(graph=graphs(), seed=st.integers(0, 2**16), streams=st.booleans(), lags=st.booleans())
@settings(STEADY, max_examples=60)
def test_memory(is_async: bool, durability: str, graph: Graph, seed: int, streams: bool, lags: bool) -> None:
    """With a saver that keeps the ledger, at once or late. Slow: the examples are conversations."""
    check(graph, seed, FaultySaver(lags=lags), is_async=is_async, durability=durability, streams=streams)


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("is_async", [False, True])
def test_seeds(is_async: bool, durability: str) -> None:
    """Graphs larger than those that hypothesis likes to draw. Slow: many conversations of several calls each."""
    for seed in range(80):
        check(
            seeded(seed), seed, FaultySaver(lags=seed % 2 == 0), is_async=is_async, durability=durability, streams=True
        )


@pytest.mark.parametrize("is_async", [False, True])
@given(graph=graphs(), seed=st.integers(0, 2**16), streams=st.booleans())
@settings(STEADY, max_examples=60)
def test_without_a_saver(is_async: bool, graph: Graph, seed: int, streams: bool) -> None:
    check(graph, seed, None, is_async=is_async, durability="async", streams=streams)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("is_async", [False, True])
def test_sqlite(is_async: bool, durability: str, tmp_path: Path) -> None:
    """Fewer graphs: each commit is a transaction on a file. Its own async saver is the subject of `checkpoint/`."""
    for seed in range(12):
        with SqliteSaver.from_conn_string(str(tmp_path / f"{seed}.sqlite")) as saver:
            check(seeded(seed), seed, saver, is_async=is_async, durability=durability, streams=seed % 2 == 0)


class LoggingSaver(InMemorySaver):
    """A user's saver: it overrides the public `put`, so it is driven through the adapter (D46)."""

    def put(self, *args: Any) -> Any:
        return super().put(*args)

    async def aput(self, *args: Any) -> Any:
        return await super().aput(*args)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_saver_of_the_users(is_async: bool, durability: str) -> None:
    for seed in range(40):
        check(seeded(seed), seed, LoggingSaver(), is_async=is_async, durability=durability, streams=seed % 2 == 0)


@given(graph=graphs(), seed=st.integers(0, 2**16))
@settings(STEADY, max_examples=60)
def test_the_order_of_completion_changes_nothing(graph: Graph, seed: int) -> None:
    """The same graph under two orders, and under both colours, comes to the same checkpoints."""
    histories = []
    for order, is_async in ((0, False), (1, False), (2, True)):
        with scheduled(seed + order) as turns:
            world = World()
            world.turns = turns
            player = Player(graph, saver=InMemorySaver(), is_async=is_async, limit=LIMIT, world=world)
            player.invoke(INPUTS[0])
            histories.append(player.history())
    assert histories[0] == histories[1] == histories[2]


@pytest.mark.parametrize("is_async", [False, True])
@given(graph=graphs(), seed=st.integers(0, 2**16))
@settings(STEADY, max_examples=60)
def test_answers_given_later_are_answers_known_before(is_async: bool, graph: Graph, seed: int) -> None:
    """A run that pauses and is resumed equals a run that knew the answers; the limit counts from each resume, so it is
    out of the way."""
    known = Thread(graph, limit=LIMIT, answered=True)
    wanted = known.invoke(INPUTS[0])
    if wanted.error is not None:
        return
    player = Player(graph, saver=InMemorySaver(), is_async=is_async, limit=LIMIT)
    got = player.invoke(INPUTS[0])
    while got.questions:
        got = player.invoke(None, answers=got.questions)
    assert got.values == wanted.values
    assert player.history() == known.history()


def test_schedules_do_reorder() -> None:
    """The schedule is no decoration: bodies end in orders other than the planned one."""
    reordered = 0
    for seed in range(30):
        with scheduled(seed) as turns:
            world = World()
            world.turns = turns
            Player(seeded(seed), limit=LIMIT, world=world).invoke(INPUTS[0])
            reordered += turns.reordered
    assert reordered > 10


def test_the_strategy_covers_the_features() -> None:
    """Among the first seeds there are pauses, refusals, failures, loops beyond the limit, and plain ends."""
    ends = set()
    for seed in range(600):
        outcome = Thread(seeded(seed), limit=LIMIT).invoke(INPUTS[0])
        ends.add(outcome.error or bool(outcome.questions))
    assert len(ends) == 5


# ---- found by the properties above, in their smallest form


def test_an_input_does_not_release_deferred_nodes() -> None:
    """A deferred node that waits while a new input discards the pending step goes on waiting, and runs once."""
    graph = Graph(
        (Node("a"), Node("b", asks=1), Node("c", deferred=True)),
        frozenset({("__start__", "a"), ("a", "b"), ("a", "c")}),
    )
    player, thread = Player(graph, saver=InMemorySaver(), limit=LIMIT), Thread(graph, limit=LIMIT)
    for given_ in INPUTS:
        compare(player, thread, player.invoke(given_), thread.invoke(given_))
    asked = thread.head()[2]
    replies = {question: answer(question) for question in asked}
    player.head()
    compare(player, thread, player.invoke(None, answers=asked), thread.invoke(None, answers=replies))
    assert sum(marker.startswith("c@") for marker in player.head()[0]["log"]) == 1


def test_an_update_leaves_a_complete_join_due() -> None:
    """`update_state` while the target of a complete join waits at a breakpoint: the target still runs."""
    graph = Graph(
        (Node("a"), Node("b"), Node("c")), frozenset({("__start__", "a"), ("__start__", "b")}), ((("a", "b"), "c"),)
    )
    world = World()
    compiled = build(graph, world, checkpointer=InMemorySaver(), interrupt_before=["c"])
    config: Any = {"configurable": {"thread_id": "t"}}
    compiled.invoke({"log": []}, config)
    compiled.update_state(config, {"log": ["u"]}, "a")
    assert compiled.get_state(config).next == ("c",)
    compiled.invoke(None, config)
    assert world.calls["c@3"] == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_chunks_before_a_refusal(is_async: bool) -> None:
    """Results of finished tasks are shown before the error that ends their step (engine.md 8.1)."""
    graph = Graph((Node("a", sets=True), Node("b", sets=True)), frozenset({("__start__", "a"), ("__start__", "b")}))
    compiled = build(graph, World(), is_async=is_async)
    chunks: list[Any] = []

    async def collect() -> None:
        async for chunk in compiled.astream({"log": []}, stream_mode="updates"):
            chunks.append(chunk)

    def take() -> None:
        chunks.extend(compiled.stream({"log": []}, stream_mode="updates"))

    with pytest.raises(InvalidUpdateError):
        asyncio.run(collect()) if is_async else take()
    assert {name for chunk in chunks for name in chunk} == {"a", "b"}
