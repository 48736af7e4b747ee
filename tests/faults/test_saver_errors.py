"""A saver that raises: its own exception comes out, no later step starts, nothing is half stored, the next call
works.
"""

from __future__ import annotations

import pytest

from tests.faults.lives import INPUT, LIMIT, assert_undisturbed, good_graphs, live
from tests.support.graphs import Graph, World
from tests.support.play import Player
from tests.support.savers import DiskFull, FaultySaver
from tests.support.schedule import scheduled


def steps_begun(world: World) -> int:
    """The newest step of which a body has begun."""
    return max((int(call.split("@")[1]) for call in world.calls), default=0)


def stored_step(player: Player) -> int:
    """The step of the newest checkpoint, -2 if there is none."""
    snapshots = player.snapshots()
    return snapshots[-1].metadata["step"] if snapshots else -2


def first_call(
    graph: Graph, saver: FaultySaver, world: World, *, is_async: bool, durability: str
) -> BaseException | None:
    """The error of the call that the saver struck; None if it struck none."""
    player = Player(graph, saver=saver, is_async=is_async, durability=durability, limit=LIMIT, world=world)
    try:
        got = player.invoke(INPUT)
        while got.questions:
            got = player.invoke(None, answers=got.questions)
    except DiskFull as error:
        return error
    return None


@pytest.mark.parametrize(("durability", "lags"), [("sync", False), ("async", False), ("async", True), ("exit", False)])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("place", ["strike_at", "strike_encode", "strike_load"])
def test_every_call(is_async: bool, durability: str, lags: bool, place: str) -> None:
    struck = 0
    for seed, graph, thread in good_graphs(3 if is_async else 4):
        number = 1
        while True:
            saver, world = FaultySaver(lags=lags), World()
            world.watch = saver.ledger
            began: list[int] = []

            def fail(world: World = world, began: list[int] = began) -> DiskFull:
                began.append(steps_begun(world))
                return DiskFull(28, "no space left")

            saver.error = fail
            setattr(saver, place, number)
            with scheduled(seed + number) as world.turns:
                error = first_call(graph, saver, world, is_async=is_async, durability=durability)
                if error is None:
                    break
                struck += 1
                if place != "strike_load":
                    # It is the saver's own, once, and says which thread it was about.
                    assert any("'t'" in note for note in error.__notes__)
                assert began == [steps_begun(world)]
                saver.restart()
                after = Player(graph, saver=saver, limit=LIMIT)
                if durability != "exit":
                    assert steps_begun(world) <= max(0, stored_step(after) + 1 + saver.lags * saver.max_checkpoint_lag)
                player = live(graph, saver, world, is_async=is_async, durability=durability)
            assert_undisturbed(player, saver, thread, durability=durability)
            number += 1
    assert struck >= 5


@pytest.mark.parametrize("is_async", [False, True])
def test_a_new_input_after_a_failed_save(is_async: bool) -> None:
    """The next call may as well start something new; it continues from what is stored."""
    for seed, graph, _ in good_graphs(6, first=300):
        for number in range(1, 6):
            saver, world = FaultySaver(), World()
            world.watch = saver.ledger
            saver.error = lambda: DiskFull(28, "no space left")
            saver.strike_at = number
            with scheduled(seed):
                if first_call(graph, saver, world, is_async=is_async, durability="sync") is None:
                    break
                saver.restart()
                player = Player(graph, saver=saver, is_async=is_async, limit=LIMIT, world=world)
                before = len(player.snapshots())
                player.invoke({"log": ["new"]})
                source, _, parent, _, _ = player.history()[before]
                assert source == "input"
                assert parent == (before - 1 if before else None)
                assert saver.ledger.breaches == []
