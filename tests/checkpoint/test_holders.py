"""The table of who holds which thread, on its own (storage.md C5.2)."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from typing import Any

import pytest

from checkpoint.base import CheckpointConflictError, Claim
from checkpoint.holders import Hold, Holders


def taken(holders: Holders, thread_id: str = "t", **fields: Any) -> Hold:
    hold = Hold(holders, thread_id, **{"run_id": None, **fields})
    assert holders.take(hold) is None
    return hold


def test_one_holder_per_thread() -> None:
    holders = Holders()
    first, other = taken(holders), taken(holders, "other")
    newcomer = Hold(holders, "t", "r")
    assert holders.take(newcomer) is first
    assert (holders.holder("t"), holders.holder("other"), len(holders)) == (first, other, 2)
    first.release()
    first.release()
    assert holders.take(newcomer) is None
    assert holders.holder("t") is newcomer
    # Who has ended does not take it from the next one.
    first.release()
    assert holders.holder("t") is newcomer


def test_a_suspended_holder_is_evicted() -> None:
    holders = Holders()
    first = taken(holders)
    first.claim = Claim("t", None, 0, 0, 1)
    first.suspend()
    newcomer = taken(holders)
    assert (first.evicted, newcomer.evicts) == (True, first)
    newcomer.settle_evicted("head")
    assert newcomer.evicts is None
    assert isinstance(first.claim.poisoned, CheckpointConflictError)
    with pytest.raises(CheckpointConflictError) as conflict:
        first.resume()
    assert (conflict.value.thread_id, conflict.value.expected) == ("t", "head")
    assert not first.reenter()
    first.release()
    assert holders.holder("t") is newcomer


def test_a_holder_that_comes_back_is_not() -> None:
    holders = Holders()
    first = taken(holders)
    assert list(first.between("ab")) == ["a", "b"]
    assert holders.take(Hold(holders, "t", None)) is first
    chunks = first.between("ab")
    next(chunks)
    assert first.suspended
    newcomer = taken(holders)
    with pytest.raises(CheckpointConflictError):
        next(chunks)
    newcomer.release()
    assert len(holders) == 0


def test_resuming_and_evicting_at_once_have_one_winner() -> None:
    for _ in range(200):
        holders = Holders()
        first = taken(holders)
        first.suspend()
        newcomer = Hold(holders, "t", None)
        start, won = threading.Barrier(2), []

        def evict(newcomer: Hold = newcomer, holders: Holders = holders, start: Any = start, won: Any = won) -> None:
            start.wait()
            if holders.take(newcomer) is None:
                won.append("newcomer")

        thread = threading.Thread(target=evict)
        thread.start()
        start.wait()
        if first.reenter():
            won.append("first")
        thread.join()
        assert len(won) == 1


def test_whoever_dies_leaves() -> None:
    holders = Holders()
    hold: Any = taken(holders)
    woken: list[int] = []
    holders.queue("t", lambda: woken.append(1))
    del hold
    gc.collect()
    assert (len(holders), holders.holder("t"), woken) == (0, None, [1])
    assert not taken(Holders()).ended  # a table that is gone is no harm either


def test_runs_of_a_closed_loop_are_gone() -> None:
    holders = Holders()
    loop = asyncio.new_event_loop()
    hold = taken(holders, loop=loop)
    assert not hold.is_gone
    loop.close()
    assert hold.is_gone
    newcomer = taken(holders)
    assert newcomer.evicts is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_runs_of_the_parent_are_gone_in_a_fork() -> None:
    holders = Holders()
    hold = taken(holders)
    child = os.fork()
    if not child:
        os._exit(0 if hold.is_gone and holders.take(Hold(holders, "t", None)) is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not hold.is_gone


def test_the_first_who_waits_is_woken_first() -> None:
    holders = Holders()
    hold = taken(holders)
    woken: list[str] = []

    def one() -> None:
        woken.append("one")

    def two() -> None:
        woken.append("two")

    holders.queue("t", one)
    holders.queue("t", two)
    hold.suspend()
    assert hold.reenter()
    hold.release()
    assert woken == ["one", "one"]
    # Who gives up, or has got it, hands on.
    holders.unqueue("t", one)
    assert woken == ["one", "one", "two"]
    holders.unqueue("t", two)
    assert holders.waiting == {}
