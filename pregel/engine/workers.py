"""Threads that run sync bodies: our own, because pools of the standard library join at exit and cap what must not wait.

Decides when a thread is added, and when jobs leave the thread that offered them. Knows nothing of tasks or runs: a job is
a callable without arguments that does not raise.

Jobs are submitted or offered. Submitted ones are run by a worker at once. Offered ones are run by the offering thread
itself, one after the other, as long as that gets on quickly; a thousandth of a second without enough progress, and they
are given to the workers too, so bodies that block or wait for each other still run side by side.

Start with two threads. While jobs wait and none has finished for a millisecond, have eight times as many, up to 256. A
job that is submitted from inside a worker always finds a thread at once, so bodies that wait for their own children
cannot starve them at any limit (D12, D28). All threads are daemons: an abandoned body never keeps the process alive.

Source: the rule of growth is a slow start as in TCP (Jacobson 1988), with "nothing finished" as the sign of blocking work.
Eight times as many, and not twice: 50 blocking bodies then run side by side after two looks instead of five.
"""

from __future__ import annotations

import os
import threading
import time
from _queue import Empty, SimpleQueue
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final, NoReturn

from pregel._scope import TaskScope
from pregel.constants import MISSING, RETURN
from pregel.errors import AttemptClosedError, GraphInterrupt

FIRST: Final = 2
LIMIT: Final = 256
GROWTH: Final = 7
"""Threads that are added for each that there is: eight times as many then."""
PATIENCE_S: Final = 0.001
LOOK_S: Final = 0.05
"""The main thread wakes up so often while it waits: a Ctrl-C in the very moment in which it falls asleep wakes nobody."""
PATIENT_ROUNDS: Final = 20
"""Looks without finding anything before the watching thread goes to sleep."""
MAX_STUCK: Final = 1_000
"""Abandoned jobs that may be stuck at the same time (D29)."""
QUICK: Final = 4
"""Jobs that an owner must get through between two looks to be left alone."""

here = threading.local()
"""`here.is_worker` is True on the threads of this module."""


class Job:
    """Something to run once, by whoever claims it first."""

    __slots__ = ("_claim", "name", "run", "wanted")

    def __init__(self, run: Callable[[], None], name: str = "") -> None:
        self.run = run
        self.name = name
        """Of the node, for those who ask what is stuck."""
        self.wanted: list[None] | None = None
        """While a worker is in it: has one element, which is taken by the worker at the end or by who abandons it."""
        self._claim = [None]

    def claim(self) -> bool:
        """Is it ours to run? True for exactly one caller (a list's pop is atomic)."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True


class Workers:
    """A set of daemon threads that grows with blocked work."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._spare = 0
        """Threads that wait, or are about to, less the jobs that were put: negative if jobs wait for a thread."""
        self._done = 0
        self._offers: deque[Offer] = deque()
        self._calls: SimpleQueue[None] = SimpleQueue()
        """Wakes the watching thread."""
        self._stuck: set[Job] = set()
        """Abandoned jobs that have not ended."""
        self._watcher: threading.Thread | None = None
        self._watching = False

    def submit(self, job: Job) -> None:
        """Run the job soon, on some thread.

        Raises:
            RuntimeError: too many threads are stuck in jobs that nobody waits for any more.
        """
        if len(self._stuck) > MAX_STUCK:
            self._refuse()
        nested = getattr(here, "is_worker", False)
        # Counted before it is put: a Ctrl-C in between costs a thread too many. The other way round it would be one too
        # few, for as long as the process lives.
        with self._lock:
            self._spare -= 1
            has_thread = self._spare >= 0
            if not has_thread and (nested or self._threads < FIRST):
                # A nested submitter may be about to wait for this job: it must not depend on a thread becoming free.
                self._add(1)
                has_thread = nested
        self._jobs.put(job)
        if not has_thread:
            self._watch()

    def offer(self, jobs: deque[Job]) -> None:
        """The caller is going to run these jobs one by one, taking them from the left; help it if that is slow."""
        self._offers.append(Offer(jobs))
        self._watch()

    def abandon(self, job: Job | None) -> bool:
        """Nobody waits for the job any more. If a thread is in it, that thread counts no longer, and ends with it."""
        if job is None or not job.wanted:
            return False
        with self._lock:
            try:
                job.wanted.pop()
            except IndexError:
                return False
            self._threads -= 1
            self._stuck.add(job)
            return True

    def _refuse(self) -> NoReturn:
        names = Counter(job.name for job in list(self._stuck))
        worst = ", ".join(f"{name!r} ({count})" for name, count in names.most_common(5))
        raise RuntimeError(
            f"{names.total()} threads are stuck in nodes whose runs were left, interrupted or timed out: {worst}; a thread "
            f"cannot be stopped from outside: have these nodes look at runtime.cancelled, or give their I/O time limits"
        )

    def _add(self, count: int) -> None:
        for _ in range(count):
            self._threads += 1
            threading.Thread(target=self._work, name="pregel-worker", daemon=True).start()

    def _work(self) -> None:
        here.is_worker = True
        jobs = self._jobs
        lock = self._lock
        while True:
            with lock:
                self._spare += 1
            job = jobs.get()
            if job.claim():
                job.wanted = wanted = [None]
                job.run()
                try:
                    wanted.pop()
                except IndexError:
                    with lock:
                        self._stuck.discard(job)
                    return
            # Do not keep the last job's task, inputs and writes alive while waiting for the next.
            del job
            self._done += 1  # racy on purpose: it only has to change when something finishes

    def _watch(self) -> None:
        """Have somebody look after what waits."""
        if self._watching:
            return
        with self._lock:
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = threading.Thread(target=self._keep_watch, name="pregel-watcher", daemon=True)
                self._watcher.start()
        self._calls.put(None)

    def _keep_watch(self) -> None:
        while True:
            self._calls.get()
            self._watching = True
            quiet = 0
            while quiet < PATIENT_ROUNDS:
                done = self._done
                time.sleep(PATIENCE_S)
                quiet = 0 if self._help() or self._grow(done) else quiet + 1
            self._watching = False
            if self._offers or self._jobs.qsize():
                # Somebody came between the last look and the line above, and did not call.
                self._calls.put(None)

    def _help(self) -> bool:
        """Give the workers what its owner does not get on with; is there still something offered?"""
        for _ in range(len(self._offers)):
            offer = self._offers.popleft()
            if offer.gets_on():
                self._offers.append(offer)
            else:
                # They stay with their owner too, who may find time before a worker does: a job is claimed once.
                for job in list(offer.jobs):
                    with self._lock:
                        self._spare -= 1
                    self._jobs.put(job)
        return bool(self._offers)

    def _grow(self, done: int) -> bool:
        """Add threads if nothing has finished; is anything waiting?"""
        waiting = self._jobs.qsize()
        if waiting and self._done == done:
            with self._lock:
                self._add(max(0, min(max(FIRST, GROWTH * self._threads), waiting, LIMIT - self._threads)))
        return bool(waiting)


class Offer:
    """Jobs that their owner is working through."""

    __slots__ = ("jobs", "left")

    def __init__(self, jobs: deque[Job]) -> None:
        self.jobs = jobs
        self.left = len(jobs)

    def gets_on(self) -> bool:
        """Are jobs left, and were enough of them done since the last look?"""
        left, before = len(self.jobs), self.left
        self.left = left
        return left > 0 and before - left >= QUICK


workers = Workers()
"""The threads of this process, shared by all runs."""


def _renew() -> None:
    """A forked child has none of its parent's threads."""
    workers.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def wait_for(queue: SimpleQueue[Any], due: float | None = None) -> Any:
    """The next item; on the main thread a Ctrl-C ends the wait within `LOOK_S`, whenever it comes.

    Raises:
        Empty: it is past `due`, in the clock of `time.monotonic`, and there is none.
    """
    looks = threading.get_ident() == threading.main_thread().ident
    if due is None and not looks:
        return queue.get()
    while True:
        left = LOOK_S if due is None else max(0.0, due - time.monotonic())
        try:
            return queue.get(timeout=min(left, LOOK_S) if looks else left)
        except Empty:
            if due is not None and time.monotonic() >= due:
                raise


def future_type() -> type[Any]:
    """The future of a called task in a sync run: one of `concurrent.futures`, made when first needed (D36)."""
    if not _future_types:
        from concurrent.futures import Future  # noqa: PLC0415 - a lazy door: few programs need it, it is slow to import

        class TaskFuture(Future[Any]):
            """Resolves when the task's outcome is stored. Waiting for it runs the task, if nobody has started it."""

            job: Job | None = None

            def cancel(self) -> bool:
                return False  # a task that was called runs: its result may be stored already

            def result(self, timeout: float | None = None) -> Any:
                self._help(timeout)
                try:
                    return super().result(timeout)
                finally:
                    del self  # what is raised knows this frame, and the future what is raised

            def exception(self, timeout: float | None = None) -> BaseException | None:
                self._help(timeout)
                return super().exception(timeout)

            def _help(self, timeout: float | None) -> None:
                if timeout is None and not self.done() and self.job is not None and self.job.claim():
                    self.job.run()

        _future_types.append(TaskFuture)
    return _future_types[0]


_future_types: list[type[Any]] = []


def linger(scope: TaskScope, error: BaseException) -> None:
    """On the thread of a sync body that has ended: `linger` of the drivers."""
    if not isinstance(error, GraphInterrupt) or not scope.has_questions or not scope.questions.going_on:
        return
    alone = threading.Event()
    scope.questions.when_alone(alone.set)
    alone.wait()


def give_outcome(task: Any, gate: Gate | None) -> None:
    """Resolve the future of a settled child; its caller counts as running again when it was the last one."""
    if task.future is None:
        return  # two attempts of its caller have called it before it was looked at
    if task.caller is not None:
        task.caller.call_ended()
        if gate is not None:
            gate.step_in(task.caller)
    # An error knows the frames that know the task, and a future the job that does: no cycles are left for the collector.
    future, task.future = task.future, None
    error, task.error = task.error, None
    if hasattr(future, "job"):
        future.job = None
    if future.done():
        return
    if task.writes is not None:
        try:
            value, task.outcome = task.outcome, MISSING
        except AttributeError:
            value = MISSING
        if value is MISSING:
            value = next((value for channel, value in task.writes if channel == RETURN), None)
        future.set_result(value)
        return
    # One whose question stays open may have failed before it was asked.
    fail_future(future, GraphInterrupt(task.interrupts) if task.interrupts or error is None else error)


def fail_future(future: Any, error: BaseException) -> None:
    """Resolve a future with an exception, unless it is resolved. Whoever has it may never look: no loop complains then."""
    if not future.done():
        future.set_exception(error)
        if hasattr(future, "get_loop"):
            future.exception()


def abandon_future(future: Any) -> None:
    """The run is over: whoever still waits for a child that was not settled is told so."""
    if not future.done():
        try:
            future.set_exception(AttemptClosedError("the run of this task has ended before the task had"))
        except Exception:  # noqa: BLE001 - resolved or cancelled in between, by another thread
            return
        retrieved = getattr(future, "exception", None)
        if retrieved is not None and future.done():
            retrieved()


class Gate:
    """`max_concurrency`: how many leaf bodies of a root run may run at once, over all its nested runs (D12).

    A body that may be waiting for nested runs or child tasks gives its place back (`step_out`) and takes one without
    asking when the last of them is done (`step_in`), so waiting never blocks the work that is waited for.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._lock = threading.Lock()
        self._queue: deque[Callable[[], None]] = deque()

    def enter(self, start: Callable[[], None]) -> None:
        """Call `start` as soon as there is a place; in the order of asking."""
        with self._lock:
            if self._free <= 0:
                self._queue.append(start)
                return
            self._free -= 1
        start()

    def withdraw(self, start: Callable[[], None]) -> bool:
        """Forget a start that has not happened; False if it has."""
        with self._lock:
            try:
                self._queue.remove(start)
            except ValueError:
                return False
        return True

    def leave(self) -> None:
        """Give a place back."""
        with self._lock:
            self._free += 1
            if self._free <= 0 or not self._queue:
                return
            self._free -= 1
            start = self._queue.popleft()
        start()

    def force(self) -> None:
        """Take a place, whether there is one or not."""
        with self._lock:
            self._free -= 1

    def step_out(self, scope: TaskScope) -> None:
        """The body starts something that it may wait for."""
        with self._lock:
            scope.away += 1
            gives_back = scope.away == 1 and not scope.ended
        if gives_back:
            self.leave()

    def step_in(self, scope: TaskScope) -> None:
        """Something that the body may have waited for is done."""
        with self._lock:
            scope.away -= 1
            if scope.away == 0 and not scope.ended:
                self._free -= 1

    def end(self, scope: TaskScope) -> None:
        """The body is over, or abandoned; a place that it still has is free."""
        with self._lock:
            gives_back = scope.away == 0 and not scope.ended
            scope.ended = True
        if gives_back:
            self.leave()
