"""Runs that are cut short from outside: cancelled at any await, streams closed early, Ctrl-C anywhere. They can be
resumed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import pytest

from pregel.engine import apply, core
from pregel.engine.core import Run
from tests.faults.lives import INPUT, LIMIT, assert_undisturbed, good_graphs, live
from tests.support.graphs import World, build
from tests.support.play import Player
from tests.support.savers import FaultySaver
from tests.support.schedule import scheduled

CONFIG: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": LIMIT}


async def cancel_after(turns: int, compiled: Any, durability: str) -> bool:
    """Cancel the call after so many turns of the loop; was it still running?"""
    call = asyncio.ensure_future(compiled.ainvoke(INPUT, CONFIG, durability=durability))
    for _ in range(turns):
        if call.done():
            break
        await asyncio.sleep(0)
    if call.done():
        call.result()
        return False
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        return True
    return False


@pytest.mark.parametrize(("durability", "lags"), [("sync", False), ("async", True), ("exit", False)])
def test_cancelled_at_every_await(durability: str, lags: bool) -> None:
    """All nodes are async: a body in a worker's thread cannot be cancelled, only dropped (D56)."""
    cancelled = 0
    for _, graph, thread in good_graphs(6):
        for node in graph.nodes:
            graph = graph.changed(node.name, is_async=True)
        for turns in range(200):
            saver, world = FaultySaver(lags=lags), World()
            world.watch = saver.ledger
            compiled = build(graph, world, is_async=True, checkpointer=saver)
            if not asyncio.run(cancel_after(turns, compiled, durability)):
                break
            cancelled += 1
            player = live(graph, saver, world, is_async=True, durability=durability)
            assert_undisturbed(player, saver, thread, durability=durability)
    assert cancelled > 30


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("is_async", [False, True])
def test_streams_closed_early(is_async: bool, durability: str) -> None:
    """After each chunk in turn the caller walks away."""
    closed = 0
    for _, graph, thread in good_graphs(5):
        for wanted in range(1, 40):
            saver, world = FaultySaver(lags=True), World()
            world.watch = saver.ledger
            compiled = build(graph, world, is_async=is_async, checkpointer=saver)
            if not take(compiled, wanted, is_async=is_async, durability=durability):
                break
            closed += 1
            player = live(graph, saver, world, is_async=is_async, durability=durability)
            assert_undisturbed(player, saver, thread, durability=durability)
    assert closed > 15


def take(compiled: Any, wanted: int, *, is_async: bool, durability: str) -> bool:
    """Take so many chunks of a stream and close it; False if there were fewer."""
    options = {"stream_mode": ["updates", "values"], "durability": durability}

    async def take_async() -> bool:
        stream = compiled.astream(INPUT, CONFIG, **options)
        taken = 0
        async for _ in stream:
            taken += 1
            if taken == wanted:
                break
        await stream.aclose()
        return taken == wanted

    if is_async:
        return asyncio.run(take_async())
    stream = compiled.stream(INPUT, CONFIG, **options)
    taken = 0
    for _ in stream:
        taken += 1
        if taken == wanted:
            break
    stream.close()
    return taken == wanted


# ---- Ctrl-C


@contextmanager
def interrupting(owner: Any, name: str, number: int, *, late: bool) -> Iterator[list[int]]:
    """Raise KeyboardInterrupt at the `number`-th call of a function, before or after it has run. Yields the count."""
    original: Callable[..., Any] = getattr(owner, name)
    calls: list[int] = []

    def struck(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == number and not late:
            raise KeyboardInterrupt
        result = original(*args, **kwargs)
        if len(calls) == number:
            raise KeyboardInterrupt
        return result

    with patch.object(owner, name, struck):
        yield calls


PLACES = [
    (Run, "plan"),
    (Run, "open"),
    (Run, "finish"),
    (Run, "settle"),
    (Run, "commit"),
    (core, "apply_tasks"),
    (apply, "stage"),
    (apply, "install"),
    (FaultySaver, "encode"),
    (FaultySaver, "write"),
    (FaultySaver, "submit"),
]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[f"{owner.__name__}.{name}" for owner, name in PLACES])
def test_ctrl_c_in_the_driver(owner: Any, name: str, late: bool, durability: str) -> None:
    """Wherever the owner's thread is: what is stored is a whole number of steps, and the rest is done again."""
    for seed, graph, thread in good_graphs(2):
        for number in range(1, 30):
            saver, world = FaultySaver(lags=True), World()
            world.watch = saver.ledger
            player = Player(graph, saver=saver, durability=durability, limit=LIMIT, world=world)
            with scheduled(seed) as world.turns:
                with interrupting(owner, name, number, late=late) as calls, suppress(KeyboardInterrupt):
                    player.invoke(INPUT)
                if len(calls) < number:
                    break
                player = live(graph, saver, world, is_async=False, durability=durability)
            assert_undisturbed(player, saver, thread, durability=durability)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("is_async", [False, True])
def test_ctrl_c_in_a_node(is_async: bool, durability: str) -> None:
    """Raised by each body in turn, alone or among others."""
    struck = 0
    for seed, graph, thread in good_graphs(5):
        for number in range(1, 30):
            saver, world = FaultySaver(lags=True), World()
            world.watch = saver.ledger
            bodies: list[str] = []

            def strike(key: str, bodies: list[str] = bodies, number: int = number) -> None:
                bodies.append(key)
                if len(bodies) == number:
                    raise KeyboardInterrupt

            world.strike = strike
            player = Player(graph, saver=saver, is_async=is_async, durability=durability, limit=LIMIT, world=world)
            with scheduled(seed) as world.turns:
                try:
                    player.invoke(INPUT)
                except KeyboardInterrupt:
                    struck += 1
                if len(bodies) < number:
                    break
                player = live(graph, saver, world, is_async=is_async, durability=durability)
            assert_undisturbed(player, saver, thread, durability=durability)
    assert struck > 10
