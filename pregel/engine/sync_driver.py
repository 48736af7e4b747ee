"""The sync driver: runs what `Run` plans on this thread and on workers, and stores what it commits.

It decides nothing about the run. It has four primitives of its own colour - call a body, wait for any outcome, sleep, call
the saver - and policies of doing: what may run inline, when a write is awaited. Its methods are those of
`async_driver.AsyncDriver`, in the same order.

Who owns the run (D27): the thread that drives it. A single ready body runs inline on that thread. If such a body starts a
child task, the first start hands the ownership to a pump on a worker, which settles the children, and gets it back when
the body has ended; so a body may wait for its children by any means of the standard library.

A body never runs inline if that could be noticed: several are ready, it has a timeout, the step has one, chunks must
leave while it runs, or a limit of concurrent bodies is set.
"""

from __future__ import annotations

import time
import warnings
from _queue import Empty, SimpleQueue
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from functools import partial
from threading import Lock
from typing import Any

from checkpoint.base import Ack, CheckpointConflictError, Durability, NativeSaver, StepCommit
from pregel._scope import TaskScope
from pregel.constants import RETURN
from pregel.engine.core import Run
from pregel.engine.effects import Effect, Retry, Start
from pregel.engine.program import Write
from pregel.engine.task import Task, call
from pregel.engine.workers import Job, future_type, here, workers
from pregel.errors import GraphInterrupt, NodeCancelledError, NodeTimeoutError
from pregel.warnings import PregelWarning

HAND_BACK: Any = object()
"""Tells the pump that the inline body has ended."""


class Gate:
    """`max_concurrency`: how many leaf bodies of a root run may run at once, over all its nested runs (D12).

    A body that may be waiting for nested runs or child tasks gives its place back (`step_out`) and takes one without
    asking when the last of them is done (`step_in`), so waiting never blocks the work that is waited for.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._lock = Lock()
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


class SyncDriver:
    """Drives one run to its end."""

    def __init__(
        self,
        run: Run,
        saver: NativeSaver | None,
        durability: Durability,
        *,
        inline: bool = True,
        gate: Gate | None = None,
        step_timeout: float | None = None,
    ) -> None:
        self.run = run
        self.saver = saver
        self.durability: Durability = durability
        self.gate = gate
        self.step_timeout = step_timeout
        self.inline = inline and gate is None and step_timeout is None
        self.helps = inline and gate is None and step_timeout is None and (saver is None or durability == "exit")
        """May this thread run bodies of a parallel step itself? Not if outcomes must be stored or shown meanwhile."""
        self.helping = False
        """Is a step being started whose bodies this thread may run? (Later attempts and handlers go to workers.)"""
        self.fence = run.request.parent
        self.inbox: SimpleQueue[Any] = SimpleQueue()
        """Outcomes, child tasks to start, and None when a chunk is waiting."""
        self.jobs: deque[Job] = deque()
        self.starts: dict[Task, Callable[[], None]] = {}
        """Bodies that wait at the gate."""
        self.acks: deque[Ack] = deque()
        self.deadline: float | None = None
        self.limited = step_timeout is not None
        """Is there, or was there, a limit to watch?"""
        self.broken = False
        """Did storing fail? Then nothing more is stored."""
        self.inlined: TaskScope | Job | None = None
        """What this thread is in: while it is, only a pump can settle what others put into the inbox."""
        self.pumping = False
        self.turn = Lock()
        """Held while a pump is started, and while none may be started any more."""
        self.handed_back = Lock()
        self.pump_error: BaseException | None = None
        run.spawner = self.spawn

    # ---- life cycle

    def begin(self, value: Any) -> None:
        """Start the run; returns when its input or answers are stored."""
        commits = self.run.start(value)
        if self.run.notices:
            self.warn()
        for commit in commits:
            self.store(commit, wait=True)

    def advance(self) -> bool:
        """Do the next piece: plan and start a superstep, wait for an outcome, or commit. False when the run is over."""
        run = self.run
        if run.phase == "done":
            return False
        if run.phase == "running":
            if self.barrier():
                return True
        else:
            if self.fence is not None:
                self.fence.check()
            tasks = run.plan()
            if run.notices:
                self.warn()
            if tasks is None:
                return False
            if self.acks:
                self.keep_up()
            if len(tasks) == 1 and self.inline and tasks[0].timeout is None:
                task = tasks[0]
                while not task.settled:
                    scope = self.inlined = run.open(task)
                    try:
                        writes = copy_context().run(call, scope)
                        if run.notices:
                            self.warn()
                    except BaseException as error:  # noqa: BLE001 - the run decides what an error means
                        scope.close()
                        if self.pumping:
                            self.take_back()
                        if not self.again(run.settle(task, own_error(task, error)), inline=True):
                            break
                    else:
                        scope.closed = True
                        if scope.lent:
                            scope.close()
                        if self.pumping:
                            self.take_back()
                        run.finish(task, writes)
                self.inlined = None
                if run.unsettled:
                    return True
            else:
                self.start_step(tasks)
                if self.barrier():
                    return True
        # Every task has settled: close the superstep and store it.
        if self.fence is not None:
            self.fence.check()
        commit = run.commit()
        if run.notices:
            self.warn()
        if commit is not None:
            self.store(commit)
        return run.phase == "idle"

    def barrier(self) -> bool:
        """Wait for an outcome and settle it, with all that have arrived; is anything still running?"""
        run = self.run
        while self.jobs and run.unsettled and not self.limited:
            self.inlined = job = self.jobs[0]
            # Whoever spawns from now on sees `inlined`; who did before is in the inbox, and comes first.
            helped = self.inbox.empty() and self.jobs.popleft().claim()
            if helped:
                job.run()
            self.take_back()
            if helped or not self.inbox.empty():
                break
        if run.unsettled:
            self.handle(self.wait())
            while run.unsettled:
                try:
                    event = self.inbox.get_nowait()
                except Empty:
                    break
                self.handle(event)
            if run.unsettled:
                self.store_held()
                return True
        self.jobs.clear()
        return False

    def drive(self) -> None:
        """Run to the end."""
        while self.advance():
            pass

    def close(self, *, quiet: bool = False) -> None:
        """Store what is left, wait until everything is stored; bodies that still run are abandoned.

        `quiet`: the caller has walked away, or the process is being interrupted: a lost claim is not reported.
        """
        run = self.run
        for task in run.tasks:
            if task.scope is not None and not task.settled:
                task.scope.close()
        try:
            commit = None if self.broken else run.close()
            if commit is not None:
                self.store(commit, wait=True)
            while self.acks:
                self.settle_ack(self.acks.popleft())
        except CheckpointConflictError:
            if not quiet:
                raise
        finally:
            run.spawner = None

    def abort(self, error: BaseException) -> None:
        """Close a run that an error has left: what its tasks wrote is stored, and the run lets go of the error."""
        try:
            self.close(quiet=not isinstance(error, Exception))
        finally:
            self.run.outcome()

    # ---- bodies

    def start_step(self, tasks: Sequence[Task]) -> None:
        """Start the bodies of a superstep on workers."""
        if self.step_timeout is not None:
            self.deadline = time.monotonic() + self.step_timeout
        self.helping = self.helps and not self.limited and all(task.timeout is None for task in tasks)
        for task in tasks:
            self.start(task)
        if self.helping:
            self.helping = False
            workers.offer(self.jobs)

    def start(self, task: Task, delay: float = 0.0) -> None:
        """Start the next attempt of a task on a worker."""
        scope = self.run.open(task)
        if task.timeout is not None:
            task.started_at = scope.moved_at = time.monotonic()
            self.limited = True
        job = Job(partial(self.body, copy_context(), scope, delay))
        if self.gate is None:
            self.launch(job)
        else:
            start = self.starts[task] = partial(self.launch, job)
            self.gate.enter(start)

    def launch(self, job: Job) -> None:
        """Hand a job to the workers, or put it with those that this thread runs itself."""
        if self.helping:
            self.jobs.append(job)
        else:
            workers.submit(job)

    def body(self, context: Context, scope: TaskScope, delay: float) -> None:
        """Run one attempt; on a worker, or on the owner's thread while it waits."""
        writes: list[Write] | None = None
        failure: BaseException | None = None
        try:
            if delay:
                time.sleep(delay)
            if not scope.closed:
                writes = context.run(call, scope)
        except BaseException as error:  # noqa: BLE001 - the run decides what an error means
            failure = error
        if self.gate is not None:
            self.gate.end(scope)
        self.inbox.put((scope, writes, failure))

    def wait(self) -> Any:
        """The next event; None when a deadline passed or a chunk is waiting."""
        due = self.next_deadline()
        if due is None:
            return self.inbox.get()
        try:
            return self.inbox.get(timeout=max(0.0, due - time.monotonic()))
        except Empty:
            self.expire(time.monotonic())
            return None

    def handle(self, event: Any) -> None:
        """Settle an outcome, or start a child task."""
        if event is None:
            return
        if isinstance(event, Spawned):
            self.start_child(event)
            return
        scope, writes, error = event
        task = scope.task
        if task.scope is not scope or task.settled:
            return
        run = self.run
        if error is None:
            try:
                if run.notices:
                    self.warn()
            except Exception as warning:  # noqa: BLE001 - a warning that is an error fails the task
                error = warning
        scope.close()
        if error is None:
            run.finish(task, writes)
        elif self.again(run.settle(task, own_error(task, error))):
            return
        if run.failure is not None:
            self.withdraw()
        if task.future is not None:
            self.resolve(task)

    def again(self, effect: Effect | None, *, inline: bool = False) -> bool:
        """Do what a failure asks for: another attempt (True if the caller's loop is to make it), or its handler."""
        if isinstance(effect, Retry):
            if inline:
                time.sleep(effect.after)
            else:
                self.start(effect.task, effect.after)
            return True
        if isinstance(effect, Start):
            self.start(effect.task)
        return False

    def withdraw(self) -> None:
        """The step has failed: bodies that wait at the gate are not started."""
        for task, start in list(self.starts.items()):
            if not task.settled and self.gate is not None and self.gate.withdraw(start):
                self.run.drop(task)
        self.starts.clear()

    # ---- time limits

    def next_deadline(self) -> float | None:
        """When the next limit is due, in the clock of `time.monotonic`."""
        if not self.limited:
            return None
        limits = [due for task in self.run.tasks if not task.settled and (due := deadline_of(task)) is not None]
        if self.deadline is not None:
            limits.append(self.deadline)
        return min(limits) if limits else None

    def expire(self, now: float) -> None:
        """End the attempts whose limit has passed; their bodies are abandoned.

        Raises:
            TimeoutError: the step's own limit has passed.
        """
        for task in self.run.tasks:
            due = deadline_of(task)
            if task.settled or due is None or due > now or task.scope is None:
                continue
            task.scope.close()
            workers.abandon()
            if self.gate is not None:
                self.gate.end(task.scope)
            if not self.again(self.run.settle(task, timed_out(task, now))) and task.future is not None:
                self.resolve(task)
        if self.deadline is not None and now >= self.deadline:
            raise TimeoutError(
                f"step {self.run.step} took longer than step_timeout={self.step_timeout} seconds; "
                f"still running: {', '.join(t.name for t in self.run.tasks if not t.settled) or 'nothing'}"
            )

    # ---- tasks called by tasks

    def spawn(self, scope: TaskScope, node: Any, argument: Any) -> Any:
        """Start a child task; returns a `concurrent.futures.Future`. Called from the thread of a running body."""
        future = future_type()()
        index = scope.calls
        scope.calls += 1
        if self.gate is not None:
            self.gate.step_out(scope)
        self.inbox.put(Spawned(scope, node, argument, index, future, copy_context()))
        if self.inlined is not None:
            with self.turn:
                # Others may spawn at the same time, and the body on the owner's thread may have ended just now.
                if self.inlined is not None and not self.pumping:
                    self.pumping = True
                    self.handed_back.acquire()
                    workers.submit(Job(self.pump))
        return future

    def start_child(self, event: Spawned) -> None:
        """Make the child's task and start it, or resolve its future with the stored result."""
        child = self.run.call(event.scope, event.node, event.argument, event.index)
        child.future = event.future
        child.caller = event.scope
        if child.settled:
            self.resolve(child)
            return
        scope = self.run.open(child)
        if child.timeout is not None:
            child.started_at = scope.moved_at = time.monotonic()
            self.limited = True
        job = Job(partial(self.body, event.context, scope, 0.0))
        if child.timeout is None:
            # A body with a limit must stay one that can be abandoned, so whoever waits for it does not run it.
            event.future.job = job
        if self.gate is None:
            workers.submit(job)
        else:
            self.gate.enter(partial(workers.submit, job))

    def resolve(self, task: Task) -> None:
        """Give a child's outcome to its caller, after it was stored."""
        self.store_held()
        give_outcome(task, self.gate)

    def pump(self) -> None:
        """Own the run while an inline body runs: settle its children until the body has ended."""
        here.is_worker = True
        try:
            while (event := self.wait()) is not HAND_BACK:
                self.handle(event)
        except BaseException as error:  # noqa: BLE001 - carried to the driver's thread
            self.pump_error = error
            for task in self.run.tasks:
                if task.future is not None and not task.future.done():
                    task.future.set_exception(error)
        finally:
            self.handed_back.release()

    def take_back(self) -> None:
        """The inline body has ended: own the run again."""
        with self.turn:
            self.inlined = None
        if self.pumping:
            self.inbox.put(HAND_BACK)
            self.handed_back.acquire()
            self.handed_back.release()
            self.pumping = False
            if self.pump_error is not None:
                raise self.pump_error

    # ---- storing

    def store(self, commit: StepCommit, *, wait: bool = False) -> None:
        """Store a commit: encoded now, written now or soon, as the durability says (D22, D32)."""
        saver = self.saver
        assert saver is not None
        try:
            encoded = saver.encode(commit)
            if self.durability == "async" and not wait and commit.claim.claimed:
                ack = saver.submit(encoded)
                if ack is not None:
                    self.acks.append(ack)
            else:
                self.drain()
                saver.write([encoded], durability=self.durability)
        except BaseException as error:
            self.broken = True
            note(error, self.run, commit)
            raise

    def store_held(self) -> None:
        """Store the writes of tasks that have settled while others are running."""
        commit = self.run.flush()
        if commit is not None:
            self.store(commit)

    def keep_up(self) -> None:
        """Wait until at most `max_checkpoint_lag` commits are on their way (D7)."""
        assert self.saver is not None
        while self.acks and (self.acks[0].done() or len(self.acks) > self.saver.max_checkpoint_lag):
            self.settle_ack(self.acks.popleft())

    def drain(self) -> None:
        """Wait for all writes that are on their way."""
        while self.acks:
            self.settle_ack(self.acks.popleft())

    def settle_ack(self, ack: Ack) -> None:
        """Wait for one write."""
        try:
            ack.result()
        except BaseException as error:
            self.broken = True
            note(error, self.run, None)
            raise

    def warn(self) -> None:
        """Emit the run's notices, each once per graph and place."""
        emit_notices(self.run)


class Spawned:
    """A child task that a running body wants started."""

    __slots__ = ("argument", "context", "future", "index", "node", "scope")

    def __init__(self, scope: TaskScope, node: Any, argument: Any, index: int, future: Any, context: Context) -> None:
        self.scope = scope
        self.node = node
        self.argument = argument
        self.index = index
        self.future = future
        self.context = context


def give_outcome(task: Task, gate: Gate | None) -> None:
    """Resolve the future of a settled child; its caller counts as running again when it was the last one."""
    if gate is not None and task.caller is not None:
        gate.step_in(task.caller)
    future = task.future
    if future.done():
        return
    if task.error is not None:
        future.set_exception(task.error)
    elif task.writes is not None:
        future.set_result(next((value for channel, value in task.writes if channel == RETURN), None))
    else:
        future.set_exception(GraphInterrupt(task.interrupts))


def emit_notices(run: Run) -> None:
    """Emit a run's notices as warnings, each once per graph and place; under strict the first one is raised."""
    notices, run.notices = run.notices, []
    warned = run.program.warned
    for notice in notices:
        if run.request.strict:
            raise PregelWarning(notice.text)
        key = (notice.code, notice.place)
        if key not in warned:
            warned.add(key)
            warnings.warn(notice.text, PregelWarning, stacklevel=2)


def own_error(task: Task, error: BaseException) -> BaseException:
    """A body that raises CancelledError itself has failed: nobody cancelled it (engine.md 8.2)."""
    if type(error).__name__ == "CancelledError" and type(error).__module__.startswith(("asyncio", "concurrent")):
        failure = NodeCancelledError(task.name)
        failure.__cause__ = error
        return failure
    return error


def deadline_of(task: Task) -> float | None:
    """When a task's attempt is over its limit, in the clock of `time.monotonic`; None if it has none."""
    policy, scope = task.timeout, task.scope
    if policy is None or scope is None or scope.closed:
        return None
    limits = []
    if policy.run_timeout is not None:
        limits.append(task.started_at + policy.run_timeout)  # type: ignore[operator]
    if policy.idle_timeout is not None:
        limits.append(scope.moved_at + policy.idle_timeout)  # type: ignore[operator]
    return min(limits)


def timed_out(task: Task, now: float) -> NodeTimeoutError:
    """The error of an attempt that is over its limit."""
    policy = task.timeout
    assert policy is not None
    run_s, idle_s = policy.run_timeout, policy.idle_timeout
    by_run = run_s is not None and now >= task.started_at + run_s  # type: ignore[operator]
    return NodeTimeoutError(
        task.name,
        now - task.started_at,
        kind="run" if by_run else "idle",
        run_timeout=run_s,  # type: ignore[arg-type]
        idle_timeout=idle_s,  # type: ignore[arg-type]
    )


def note(error: BaseException, run: Run, commit: StepCommit | None) -> None:
    """Say on a saver's error what was not stored (D47)."""
    step = run.step if commit is None else commit.step
    what = "task writes" if commit is not None and commit.kind == "tasks" else f"step {step}"
    error.add_note(
        f"Storing {what} of thread {run.request.thread_id!r} (namespace {run.ns!r}) failed; it is not stored"
    )
