"""The process dies at every durable call, before or after it takes effect; the next ones finish the work.

What is asserted is more than the answer: no task with stored output runs again, no stored answer is asked for again,
every stored checkpoint has its parent (`tests.support.savers.Ledger`), and the history is the one of an undisturbed
run.
"""

from __future__ import annotations

import pytest

from tests.faults.lives import assert_undisturbed, good_graphs, live
from tests.model.reference import Thread
from tests.support.graphs import Graph, World
from tests.support.savers import FaultySaver
from tests.support.schedule import scheduled


def kill_points(seed: int, graph: Graph, thread: Thread, *, is_async: bool, durability: str, lags: bool) -> int:
    """Die at each durable call of one graph; returns how often."""
    died = 0
    for late in (False, True):
        number = 1
        while True:
            saver, world = FaultySaver(lags=lags), World()
            saver.strike_at, saver.late = number, late
            with scheduled(seed + number) as world.turns:
                player = live(graph, saver, world, is_async=is_async, durability=durability)
            assert_undisturbed(player, saver, thread, durability=durability)
            if saver.strike_at == number:
                break
            died += 1
            number += 1
    return died


@pytest.mark.slow
@pytest.mark.parametrize(("durability", "lags"), [("sync", False), ("async", False), ("async", True), ("exit", False)])
@pytest.mark.parametrize("is_async", [False, True])
def test_kill_points(is_async: bool, durability: str, lags: bool) -> None:
    """Slow: each kill point is a thread of its own, played to its end."""
    died = 0
    for seed, graph, thread in good_graphs(4 if is_async else 6):
        died += kill_points(seed, graph, thread, is_async=is_async, durability=durability, lags=lags)
    assert died > (10 if durability == "exit" else 50)


@pytest.mark.parametrize("lags", [False, True])
def test_dying_again_and_again(lags: bool) -> None:
    """Every process dies at its third durable call, after an answer and one thing more."""
    for seed, graph, thread in good_graphs(10, first=1000):
        saver, world = FaultySaver(lags=lags), World()
        saver.strike_at, saver.strike_again = 3, 3
        with scheduled(seed) as world.turns:
            player = live(graph, saver, world, is_async=False, durability="async")
        assert_undisturbed(player, saver, thread, durability="async")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_broken_nodes_are_tried_again(is_async: bool, durability: str) -> None:
    """Each node in turn fails once per place where it runs; the run is resumed each time."""
    for seed, graph, thread in good_graphs(8):
        for node in graph.nodes:
            saver, world = FaultySaver(lags=True), World()
            struck: set[str] = set()

            def strike(key: str, name: str = node.name, world: World = world, struck: set[str] = struck) -> None:
                world.broken.clear()
                if key.split("#")[0] == name and key not in struck:
                    struck.add(key)
                    world.broken.add(name)

            world.strike = strike
            with scheduled(seed) as world.turns:
                player = live(graph, saver, world, is_async=is_async, durability=durability)
            assert_undisturbed(player, saver, thread, durability=durability)
