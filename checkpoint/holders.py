"""Who of this process holds which thread of checkpoints: the table in which a newcomer looks before it stores anything.

Decides whether a newcomer may start (storage.md C5.2). A run holds its thread from before it loads until everything is
stored. While it is *executing*, a newcomer is refused, waits, or goes beside it. While it is *suspended* (a stream between
two chunks, whose reader may never come back) a newcomer evicts it: it cannot go on, and stores nothing any more. Knows no
saver, loop or run: the fence that holds against everybody is the claim's number, in the saver.

Each saver has a table of its own. Costs nothing per superstep, two uncontended locks per chunk of a stream.

Invariants
1. The table keeps nobody alive: a run that dies unnoticed, whatever way, leaves it with its `Hold`.
2. `baton` says who may move a run: its driver holds it while it executes and lays it down while it is suspended. Whoever
   takes it up then owns what happens next, the driver or the newcomer.
3. No code of others runs under the table's lock.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from checkpoint.base import CheckpointConflictError, Claim

T = TypeVar("T")
Wake = Callable[[], object]

_process = [0]
"""Changes in a child that was forked: the threads of its parent's runs do not exist there."""
_tables: weakref.WeakSet[Holders] = weakref.WeakSet()


def _forked() -> None:
    _process[0] += 1
    for table in _tables:
        # Another thread may have been in it, which does not exist here.
        table._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class _Ref(weakref.ref["Hold"]):
    """A holder, as long as it lives."""

    __slots__ = ("thread_id",)

    thread_id: str


class Hold:
    """What one run has of a thread. `beside`: it holds nothing, and writes a lane."""

    __slots__ = (
        "__weakref__",
        "baton",
        "beside",
        "claim",
        "ended",
        "evicted",
        "evicts",
        "holders",
        "left_at",
        "loop",
        "process",
        "run_id",
        "runner",
        "suspended",
        "thread_id",
    )

    def __init__(self, holders: Holders, thread_id: str, run_id: str | None, loop: Any = None) -> None:
        self.holders = holders
        self.thread_id = thread_id
        self.run_id = run_id
        self.loop = loop
        """The event loop that drives the run, None if a thread does."""
        self.runner = threading.get_ident()
        """The thread that executes it."""
        self.process = _process[0]
        self.baton = threading.Lock()
        self.baton.acquire()
        self.suspended = False
        self.evicted = False
        """Has a newcomer taken the thread while it was suspended?"""
        self.ended = False
        self.beside = False
        self.claim: Claim | None = None
        """Once the run has loaded."""
        self.left_at: str | None = None
        """Evicted: id of the thread's newest checkpoint when the newcomer loaded it."""
        self.evicts: Hold | None = None
        """The run that this one took the thread from, until what that one had stored is loaded."""

    # ---- by the run's driver

    def suspend(self) -> None:
        """A chunk goes out: whoever reads it may never come back."""
        self.suspended = True
        self.baton.release()
        if self.holders.waiting:
            self.holders.wake(self.thread_id)

    def resume(self) -> None:
        """The reader is back.

        Raises:
            CheckpointConflictError: another run took the thread meanwhile.
        """
        if not self.reenter():
            raise self.conflict()

    def reenter(self) -> bool:
        """Execute again, also to end. False if another run has the thread now; then nothing may be stored."""
        if self.suspended:
            if not self.baton.acquire(blocking=False):
                self.evicted = True
                return False
            self.suspended = False
            self.runner = threading.get_ident()
        return not self.evicted

    def release(self) -> None:
        """The run is over, and everything it had to store is stored or refused."""
        if not self.ended:
            self.ended = True
            self.holders.leave(self)

    def between(self, chunks: Iterable[T]) -> Iterator[T]:
        """The chunks, suspended while each is out."""
        for chunk in chunks:
            self.suspend()
            yield chunk
            self.resume()

    def conflict(self) -> CheckpointConflictError:
        """What a run is told that went on too late."""
        return CheckpointConflictError(
            f"thread {self.thread_id!r}: another run took the thread while this one was suspended at a chunk of its "
            f"stream; nothing more of it is stored; read a stream to its end before the next run of its thread starts",
            thread_id=self.thread_id,
            expected=self.left_at,
            run_id=self.run_id,
        )

    # ---- by a newcomer

    @property
    def is_gone(self) -> bool:
        """Can this run not go on any more, though nobody has said so?"""
        return self.ended or self.process != _process[0] or (self.loop is not None and self.loop.is_closed())

    def settle_evicted(self, head_id: str | None) -> None:
        """What the evicted run had stored is loaded: from here on it is refused wherever it writes."""
        evicted, self.evicts = self.evicts, None
        if evicted is not None:
            evicted.left_at = head_id
            if evicted.claim is not None and evicted.claim.poisoned is None:
                evicted.claim.poisoned = evicted.conflict()


class Holders:
    """The holders of one saver's threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refs: dict[str, _Ref] = {}
        self._dead: deque[_Ref] = deque()
        """Holders that died without a word; they are taken out by the next who comes by."""
        self._forget = _forgetter(weakref.ref(self))
        _tables.add(self)
        self.waiting: dict[str, list[Wake]] = {}
        """Thread -> how to wake those who wait for it, first come first."""

    def __len__(self) -> int:
        """Threads that are held."""
        return sum(ref() is not None for ref in list(self._refs.values()))

    def holder(self, thread_id: str) -> Hold | None:
        """The run that holds a thread."""
        ref = self._refs.get(thread_id)
        return ref() if ref is not None else None

    def take(self, hold: Hold) -> Hold | None:
        """Let a newcomer hold its thread, and evict a suspended holder. Returns the executing one that it cannot have
        the thread from, else None."""
        ref = _Ref(hold, self._forget)
        ref.thread_id = hold.thread_id
        with self._lock:
            while self._dead:
                dead = self._dead.popleft()
                if self._refs.get(dead.thread_id) is dead:
                    del self._refs[dead.thread_id]
            holder = self.holder(hold.thread_id)
            if holder is not None and not holder.is_gone:
                if not holder.baton.acquire(blocking=False):
                    return holder
                holder.evicted = True
                hold.evicts = holder
            self._refs[hold.thread_id] = ref
        return None

    def leave(self, hold: Hold) -> None:
        """A run is over."""
        with self._lock:
            ref = self._refs.get(hold.thread_id)
            if ref is not None and ref() is hold:
                del self._refs[hold.thread_id]
        if self.waiting:
            self.wake(hold.thread_id)

    # ---- waiting

    def queue(self, thread_id: str, wake: Wake) -> None:
        """Be woken when the thread may be free. It may have become so already: try once more before waiting."""
        with self._lock:
            self.waiting.setdefault(thread_id, []).append(wake)

    def unqueue(self, thread_id: str, wake: Wake) -> None:
        """Wait no more. Who gives up hands on a wake-up that may have come."""
        with self._lock:
            queued = self.waiting.get(thread_id, [])
            queued.remove(wake)
            if not queued:
                self.waiting.pop(thread_id, None)
        self.wake(thread_id)

    def wake(self, thread_id: str) -> None:
        """Wake who came first. Takes no lock: a holder may die anywhere, also under one."""
        with contextlib.suppress(KeyError, IndexError):
            self.waiting[thread_id][0]()


def _forgetter(reference: weakref.ref[Holders]) -> Callable[[Any], None]:
    """What is called when a holder dies, by the collector, on any thread."""

    def forget(ref: _Ref) -> None:
        holders = reference()
        if holders is not None:
            holders._dead.append(ref)
            holders.wake(ref.thread_id)

    return forget
