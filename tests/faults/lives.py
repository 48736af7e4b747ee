"""A thread that is carried through crashes: one process after the other continues what is stored, until the answer is
there.

Decides what a sensible user does next, from the stored state alone: start if nothing is stored, answer open questions,
otherwise try again.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.reference import Thread
from tests.support.graphs import Graph, World, seeded
from tests.support.play import Player
from tests.support.savers import Died, FaultySaver

LIMIT = 10
INPUT = {"log": ["in"]}
LIVES = 60
"""More than any of these graphs needs calls."""


def good_graphs(count: int, *, first: int = 0) -> Iterator[tuple[int, Graph, Thread]]:
    """The first seeds whose graphs come to an end and take a few steps to it, with the reference's thread."""
    seed = first
    while count:
        graph = seeded(seed)
        thread = Thread(graph, limit=LIMIT, answered=True)
        if thread.invoke(INPUT).error is None and len(thread.saved) > 3:
            yield seed, graph, thread
            count -= 1
        seed += 1


def live(
    graph: Graph, saver: FaultySaver, world: World, *, is_async: bool, durability: str, ends: tuple[type, ...] = ()
) -> Player:
    """Call after call, each with a graph object of its own, until the thread is finished. `ends`: more ways for a
    call to end before its time. Returns the last player.
    """
    world.watch = saver.ledger
    for _ in range(LIVES):
        player = Player(graph, saver=saver, is_async=is_async, durability=durability, limit=LIMIT, world=world)
        try:
            if not player.snapshots():
                player.invoke(INPUT)
                continue
            _, ready, questions = player.head()
            if not ready and is_closed(player):
                return player
            player.invoke(None, answers=questions)
        except Died:
            saver.restart()
        except ends:
            pass
    raise AssertionError(f"no end after {LIVES} calls")


def is_closed(player: Player) -> bool:
    """Is there no open step? (`next` is empty also when all tasks of an open step have stored their output.)"""
    return not player.snapshots()[-1].next


def assert_undisturbed(player: Player, saver: FaultySaver, thread: Thread, *, durability: str) -> None:
    """The end is the one of a run that nothing happened to, and nothing was done twice on the way."""
    assert saver.ledger.breaches == []
    values, ready, _ = player.head()
    assert (values, ready) == (thread.saved[-1].state.values, ())
    if durability != "exit":
        assert player.history() == thread.history()
