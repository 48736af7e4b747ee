"""The process dies at every durable call, before or after it takes effect; the next ones finish the work.

What is asserted is more than the answer: no task with stored output runs again, no stored answer is asked for again, every
stored checkpoint has its parent (`tests.support.savers.Ledger`), and the history is the one of an undisturbed run.
"""

from __future__ import annotations

import pytest

from tests.faults.lives import assert_undisturbed, good_graphs, live
from tests.support.graphs import World
from tests.support.savers import FaultySaver
from tests.support.schedule import scheduled


def kill_points(
    seed: int, graph: object, thread: object, *, is_async: bool, durability: str, lags: bool, twice: bool = False
) -> int:
    """Die at each durable call of one graph; returns how often."""
    died = 0
    for late in (False, True):
        number = 1
        while True:
            saver, world = FaultySaver(lags=lags), World()
            saver.strike_at, saver.late = number, late
            with scheduled(seed + number) as world.turns:
                player = live(graph, saver, world, is_async=is_async, durability=durability)  # type: ignore[arg-type]
            assert_undisturbed(player, saver, thread, durability=durability)  # type: ignore[arg-type]
            if saver.strike_at == number:
                break
            died += 1
            number += 1
    return died


@pytest.mark.parametrize(("durability", "lags"), [("sync", False), ("async", False), ("async", True), ("exit", False)])
@pytest.mark.parametrize("is_async", [False, True])
def test_kill_points(is_async: bool, durability: str, lags: bool) -> None:
    died = 0
    for seed, graph, thread in good_graphs(12 if is_async else 20):
        died += kill_points(seed, graph, thread, is_async=is_async, durability=durability, lags=lags)
    assert died > (20 if durability == "exit" else 150)


@pytest.mark.parametrize("lags", [False, True])
def test_dying_again_and_again(lags: bool) -> None:
    """Every process dies at its second durable call, so each makes one step of progress."""
    for seed, graph, thread in good_graphs(15, first=1000):
        saver, world = FaultySaver(lags=lags), World()
        restart = saver.restart

        def restart_and_die(saver: FaultySaver = saver, restart: object = restart) -> None:
            restart()  # type: ignore[operator]
            saver.strike_at = saver.calls + 2

        saver.restart = restart_and_die  # type: ignore[method-assign]
        saver.strike_at = 2
        with scheduled(seed) as world.turns:
            player = live(graph, saver, world, is_async=False, durability="async")
        assert_undisturbed(player, saver, thread, durability="async")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_broken_nodes_are_tried_again(is_async: bool, durability: str) -> None:
    """Each node in turn fails once per place where it runs; the run is resumed each time."""
    for seed, graph, thread in good_graphs(12):
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
