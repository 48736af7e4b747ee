"""Whose turn it is on a thread: what a call does that finds it held (`on_conflict=`; storage.md C5.2, design.md D41).

Decides when a newcomer raises, waits or goes beside the holder, for runs and for state updates, in one process by
`checkpoint.holders` and across processes by the leases and refusals of the saver. Stores nothing and drives nothing: both
colours ask here and do the sleeping themselves.

Invariants
1. Who is refused has stored nothing, and run nothing.
2. Nobody waits for a run that cannot end before the waiting does: one whose node is waiting, or whose event loop is.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final, Literal

from checkpoint.base import CheckpointConflictError, LoadedCheckpoint, ThreadBusyError
from checkpoint.holders import Hold
from pregel._scope import TaskScope
from pregel.errors import shown

OnConflict = Literal["raise", "wait", "fork"]
CONFLICTS: Final = ("raise", "wait", "fork")
POLL_S: Final = 0.05
"""How often a lease of another process is looked at: nobody tells when it is given up."""


class Turn:
    """What one call does when its thread is held, and for how long it waits. Made once per call."""

    __slots__ = ("deadline", "how")

    def __init__(self, how: Any, timeout: Any) -> None:
        """
        Args:
            how: `"raise"`, `"wait"` or `"fork"`.
            timeout: seconds to wait. None: until the thread is free (wait), or not at all (fork).

        Raises:
            ValueError: there is no such way, or a timeout that means nothing.
        """
        if how not in CONFLICTS:
            raise ValueError(f"on_conflict must be one of {CONFLICTS}, got {shown(how)}")
        if timeout is not None and (how == "raise" or isinstance(timeout, bool) or not timeout >= 0):
            raise ValueError(
                f"timeout={shown(timeout)} with on_conflict={how!r}: seconds of at least 0 are expected, with "
                f"on_conflict='wait' or 'fork'"
            )
        self.how: OnConflict = how
        self.deadline: float | None = 0.0
        if how == "wait" or timeout is not None:
            self.deadline = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Seconds that are left for waiting, None for all there are."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def again(self, error: BaseException, loaded: LoadedCheckpoint | None) -> bool:
        """Another process wrote between load and claim: is it to be loaded and tried once more?"""
        if self.how != "wait" or not isinstance(error, CheckpointConflictError) or loaded is None:
            return False
        left = self.left()
        return not loaded.claim.claimed and (left is None or left > 0)

    def waits(self, hold: Hold, wake: Any) -> Iterator[float | None]:
        """Take the thread that another run executes on. Yields how long to sleep at most; `wake` is called earlier.

        Raises:
            ThreadBusyError: the time is over, or can never be enough.
        """
        holders, thread_id = hold.holders, hold.thread_id
        holders.queue(thread_id, wake)
        try:
            while (holder := holders.take(hold)) is not None:
                if holder.loop is None and holder.runner == threading.get_ident():
                    raise nested(hold, holder)
                left = self.left()
                if (left is not None and left <= 0) or (hold.loop is None and _runs_here(holder.loop)):
                    if self.how == "fork":
                        hold.beside = True
                        return
                    raise busy(hold, holder)
                yield left
        finally:
            holders.unqueue(thread_id, wake)

    def leased(self, hold: Hold, loaded: LoadedCheckpoint) -> float | None:
        """Another process may have a lease on what was loaded: how long to sleep before it is loaded again, None if
        the run may start.

        Raises:
            ThreadBusyError: it has, and this call does not wait (any longer).
        """
        refused = loaded.claim.busy
        if refused is None:
            return None
        left = self.left()
        if left is None or left > 0:
            assert refused.until is not None
            return max(0.0, min(POLL_S, refused.until - time.time(), POLL_S if left is None else left))
        if self.how != "fork":
            raise refused
        hold.beside = True
        return None


def take(hold: Hold, turn: Turn, caller: TaskScope | None) -> None:
    """Take a thread for a run, waiting for it as the turn says.

    Raises:
        ThreadBusyError: it is held.
    """
    if caller is not None:
        refuse_nested(hold, caller)
    if hold.holders.take(hold) is not None:
        event = threading.Event()
        with closing(turn.waits(hold, event.set)) as sleeps:  # type: ignore[type-var]
            for left in sleeps:
                event.wait(left)
                event.clear()


async def atake(hold: Hold, turn: Turn, caller: TaskScope | None, new_alarm: Any) -> None:
    """Async form of `take`. `new_alarm()` makes what a coroutine sleeps on."""
    if caller is not None:
        refuse_nested(hold, caller)
    if hold.holders.take(hold) is not None:
        alarm = new_alarm()
        with closing(turn.waits(hold, alarm.ring)) as sleeps:  # type: ignore[type-var]
            for left in sleeps:
                await alarm.sleep(left)


def refuse_nested(hold: Hold, caller: TaskScope | None) -> None:
    """Raise `ThreadBusyError` if the newcomer was called by a node of a run of the same thread."""
    while caller is not None:
        request = caller.host.root.request
        holder = request.hold
        if (
            holder is not None
            and not holder.ended
            and holder.holders is hold.holders
            and holder.thread_id == hold.thread_id
        ):
            raise nested(hold, holder)
        caller = request.caller


def nested(hold: Hold, holder: Hold) -> ThreadBusyError:
    """What a call is told that came from inside the run which holds its thread."""
    return ThreadBusyError(
        f"thread {hold.thread_id!r}: a node of the run that is executing on it (run_id {holder.run_id!r}) would write it "
        f"from beside; nothing was stored; return the update from the node, or use another thread_id",
        thread_id=hold.thread_id,
        run_id=hold.run_id,
        owner_run_id=holder.run_id,
    )


def busy(hold: Hold, holder: Hold) -> ThreadBusyError:
    """What a call is told whose thread is held."""
    return ThreadBusyError(
        f"thread {hold.thread_id!r}: another run of this process (run_id {holder.run_id!r}) is executing on it; nothing "
        f"was stored; let it end first, pass on_conflict='wait' or 'fork', or use another thread_id",
        thread_id=hold.thread_id,
        run_id=hold.run_id,
        owner_run_id=holder.run_id,
    )


def _runs_here(loop: Any) -> bool:
    """Does this thread run the event loop? Then what it drives stands still while the thread waits."""
    return loop is not None and sys.modules["asyncio"]._get_running_loop() is loop
