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
from _queue import Empty, SimpleQueue
from collections import deque
from collections.abc import Sequence
from contextvars import Context, copy_context
from functools import partial
from threading import Lock
from typing import Any

from checkpoint.base import (
    CheckpointConflictError,
    Durability,
    NativeSaver,
)
from pregel._scope import TaskScope
from pregel.engine import calls
from pregel.engine.core import Run
from pregel.engine.effects import HAND_BACK, Effect, Recorded, Retry, Spawned, Start
from pregel.engine.limits import deadline_of, is_replaced, own_error, tell, timed_out
from pregel.engine.program import Write
from pregel.engine.snapshot import disown
from pregel.engine.stranded import before_resume
from pregel.engine.sync_storing import SyncStoring
from pregel.engine.task import Task, call
from pregel.engine.workers import (
    Gate,
    Job,
    abandon_future,
    fail_future,
    future_type,
    give_outcome,
    here,
    linger,
    wait_for,
    workers,
)
from pregel.errors import AttemptClosedError


class SyncDriver(SyncStoring):
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
        self.inbox: SimpleQueue[Any] = SimpleQueue()
        """Outcomes, child tasks to start, and None when a chunk is waiting."""
        self.helps = inline and gate is None and step_timeout is None and (saver is None or durability == "exit")
        """May this thread run bodies of a parallel step itself? Not if outcomes must be stored or shown meanwhile."""
        self.helping = False
        """Is a step being started whose bodies this thread may run? (Later attempts and handlers go to workers.)"""
        self.jobs: deque[Job] = deque()
        """Those bodies."""
        self.inlined: TaskScope | Job | None = None
        """What this thread is in: while it is, only a pump can settle what others put into the inbox."""
        self.pumping = False
        self.turn = Lock()
        """Held while a pump is started, and while none may be started any more."""
        self.handed_back = Lock()
        self.pump_error: BaseException | None = None
        super().__init__(run, saver, durability, inline=inline, gate=gate, step_timeout=step_timeout)

    # ---- life cycle

    def begin(self, value: Any) -> None:
        """Start the run; returns when its input or answers are stored."""
        if self.gate is not None and self.fence is not None:
            # From here to the close the body that called may wait for this run: it takes no place meanwhile (D12).
            self.gate.step_out(self.fence)
            self.stepped_out = True
        if self.run.taken_over is not None:
            self.look_below(value)
        try:
            commits = self.run.start(value)
            if self.run.notices:
                self.tell()
        except BaseException:
            self.run.refuse()
            raise
        for commit in commits:
            self.store(commit, wait=True)

    def look_below(self, value: Any) -> None:
        """The graph was changed: let the run know what of its nested states cannot go on, before anything is stored."""
        search = before_resume(self.run, value)
        while search is not None and (question := search.next()) is not None:
            search.take(getattr(self.saver, question.name)(*question.arguments, **question.keywords))

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
                if run.outlets:
                    self.room()
                self.fence.check()
                if self.watched:
                    self.fence.progress()
            tasks = run.plan()
            if run.notices:
                self.tell()
            if tasks is None:
                if run.phase != "asking":
                    return False
                tasks = self.look_up()
            if self.acks:
                self.keep_up()
            if len(tasks) == 1 and self.inline and tasks[0].timeout is None:
                task = tasks[0]
                while not task.settled:
                    scope = self.inlined = run.open(task)
                    try:
                        writes = copy_context().run(call, scope)
                        if run.notices:
                            run.warn()
                    except BaseException as error:  # noqa: BLE001 - the run decides what an error means
                        self.linger(scope, error)
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
            self.tell()
        if commit is not None:
            self.store(commit)
        return run.phase == "idle"

    def look_up(self) -> list[Task]:
        """Ask the cache for the results of the planned tasks; returns the tasks that must run."""
        run = self.run
        left: list[Task] = run.request.caching.look_up(run)
        if run.notices:
            self.tell()
        return left

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
                if run.notices:
                    self.tell()
                if self.limited:
                    self.expire(time.monotonic())  # there may be a chunk, and no need to wait, for ever
                try:
                    self.store_held()
                except Exception as error:
                    if self.broken:
                        raise
                    # A result that cannot be stored: as if its node had failed. What its siblings do is kept.
                    run.failure = run.failure or error
                    self.withdraw()
                return True
        self.jobs.clear()
        return False

    def room(self) -> None:
        """Return when those who listen have read enough."""
        for outlet in self.run.outlets:
            outlet.wait()

    def drive(self) -> None:
        """Run to the end."""
        while self.advance():
            pass

    def close(self, *, quiet: bool = False, error: BaseException | None = None) -> None:
        """Store what is left, wait until everything is stored; bodies that still run are abandoned.

        `quiet`: the caller has walked away, or the process is being interrupted: a lost claim is not reported. `error`:
        what has ended the run.
        """
        run = self.run
        self.shut()
        self.leave_bodies()
        hold = self.hold
        may_store = hold is None or hold.reenter()
        try:
            commit = None if self.broken else run.close()
            if may_store and (commit is not None or self.acks):
                self.store_rest(commit)
        except BaseException as failed:
            if not quiet or not isinstance(failed, CheckpointConflictError):
                error = error or failed
                raise
        finally:
            self.leave()
            if hold is not None:
                try:
                    if (leaves := disown(run)) or (may_store and run.claim is not None and run.claim.lease is not None):
                        assert run.claim is not None
                        if self.saver is not None and (may_store or leaves):
                            self.saver.release(run.claim)
                finally:
                    hold.release()
            if run.request.observer is not None:
                self.tell_end(error)

    def tell(self) -> None:
        """Tell those who observe the run what has happened in it, and emit its warnings."""
        observer = self.run.request.observer
        if observer is not None:
            observer.tell(self.run.take_reports())
        self.run.warn()

    def tell_end(self, error: BaseException | None) -> None:
        """Tell those who observe the run that it is over: by this error, if any."""
        fails = self.run.end(error)
        self.run.request.observer.tell(self.run.take_reports(), quiet=fails)

    def leave_bodies(self) -> None:
        """Nobody waits for running bodies any more: let others have their threads and their places."""
        for scope, job in self.launched.items():
            if workers.abandon(job) and self.gate is not None:
                self.gate.end(scope)
        if self.launched:
            self.run.root.abandons = True
            self.launched.clear()
        if self.gate is not None and not self.pumping:
            while not self.inbox.empty():
                event = self.inbox.get()
                if isinstance(event, tuple):
                    self.gate.end(event[0])

    def abort(self, error: BaseException) -> None:
        """Close a run that an error has left: what its tasks wrote is stored, and the run lets go of the error.

        Nothing is stored by what runs inside an attempt that is over: somebody else may be where it was (D29).
        """
        if isinstance(error, AttemptClosedError) and self.fence is not None and self.fence.is_over():
            self.broken = True
        self.run.place(error)
        try:
            self.close(quiet=not isinstance(error, Exception), error=error)
        finally:
            self.run.outcome()

    def stop(self) -> None:
        """Something was asked for from another thread: that the attempt around this run ends, that the run drains."""
        self.inbox.put(None)

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

    def start(self, task: Task) -> None:
        """Start the next attempt of a task on a worker."""
        scope = self.run.open(task)
        if task.timeout is not None:
            self.limited = True
        context = copy_context() if task.caller is None else task.context.copy()
        job = self.launched[scope] = Job(partial(self.body, context, scope), task.name)
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

    def body(self, context: Context, scope: TaskScope) -> None:
        """Run one attempt; on a worker, or on the owner's thread while it waits."""
        writes: list[Write] | None = None
        failure: BaseException | None = None
        try:
            if not scope.closed:
                if scope.task.timeout is not None:
                    scope.task.started_at = scope.moved_at = time.monotonic()
                    self.inbox.put(None)  # whoever waits for events does not know of this limit yet
                writes = context.run(call, scope)
        except BaseException as error:  # noqa: BLE001 - the run decides what an error means
            self.linger(scope, error)
            failure = error
        gate = self.gate
        if gate is not None and failure is None:
            gate.end(scope)
        self.inbox.put((scope, writes, failure))
        del failure  # it knows this frame
        if gate is not None and self.is_closed:
            gate.end(scope)

    def linger(self, scope: TaskScope, error: BaseException) -> None:
        """A body was left by a question: wait for the nested runs that it has going on beside, which may ask too."""
        linger(scope, error)

    def wait(self) -> Any:
        """The next event; None when a deadline passed or a chunk is waiting."""
        try:
            return wait_for(self.inbox, self.next_deadline())
        except Empty:
            self.expire(time.monotonic())
            return None

    def handle(self, event: Any) -> None:
        """Settle an outcome, or start a child task."""
        if event is None:
            if self.fence is not None:
                self.fence.check()
            if self.naps:
                self.put_off()
            return
        if isinstance(event, Spawned):
            self.start_child(event)
            return
        scope, writes, error = event
        self.launched.pop(scope, None)
        task = scope.task
        if task.scope is not scope or task.settled:
            if self.gate is not None:
                self.gate.end(scope)
            return
        run = self.run
        if error is None:
            try:
                if run.notices:
                    run.warn()
            except Exception as warning:  # noqa: BLE001 - a warning that is an error fails the task
                error = warning
        scope.close()
        if error is None:
            run.finish(task, writes)
        else:
            effect = run.settle(task, own_error(task, error))
            self.give_up(scope)
            if self.again(effect):
                return
        if task.future is not None:
            self.resolve(task)

    def again(self, effect: Effect | None, *, inline: bool = False) -> bool:
        """Do what a failure asks for: another attempt (True if the caller's loop is to make it), or its handler."""
        if isinstance(effect, Retry):
            if self.run.notices:
                self.tell()
            return self.nap(effect, inline=inline)
        if isinstance(effect, Start):
            self.start(effect.task)
        return False

    def nap(self, effect: Retry, *, inline: bool) -> bool:
        """Have a task wait for its next attempt, without a thread for it; False if the run is asked to stop instead."""
        task, after = effect.task, effect.after
        tell(effect)
        if is_replaced(time.sleep):
            # A program that has put something in its place, as tests do, wants to be asked.
            time.sleep(after)
            after = 0.0
        if after:
            self.naps[task] = time.monotonic() + after
            self.limited = True
            self.listen()
            self.put_off()
            if inline:
                self.take_back()
                self.dozing = task
                while task in self.naps:
                    self.handle(self.wait())
                self.dozing = None
        elif not inline:
            self.start(task)
        return not task.settled

    # ---- time limits

    def next_deadline(self) -> float | None:
        """When the next limit is due, in the clock of `time.monotonic`."""
        if not self.limited:
            return None
        dues = self.dues()
        return min(dues) if dues else None

    def expire(self, now: float) -> None:
        """End the attempts whose limit has passed; their bodies are abandoned. Make those that have waited long enough.

        Raises:
            TimeoutError: the step's own limit has passed, or the run's.
            GraphDrained: the run was asked to stop, and the time for that is up.
        """
        for task in [task for task, due in self.naps.items() if due <= now]:
            del self.naps[task]
            if task is not self.dozing:
                self.start(task)
        for task in self.run.tasks:
            due = deadline_of(task)
            if task.settled or due is None or due > now or task.scope is None:
                continue
            task.scope.close()
            workers.abandon(self.launched.pop(task.scope, None))
            self.run.root.abandons = True
            if self.gate is not None:
                self.gate.end(task.scope)
            if not self.again(self.run.settle(task, timed_out(task, now))) and task.future is not None:
                self.resolve(task)
        if self.run.failure is not None:
            self.withdraw()
        if self.run.request.prompt:
            self.run.cut(now)
        if self.deadline is not None and now >= self.deadline:
            raise self.too_long()

    # ---- tasks called by tasks

    def spawn(self, scope: TaskScope, node: Any, argument: Any) -> Any:
        """Start a child task; returns a `concurrent.futures.Future`. Called from the thread of a running body."""
        if node.fn is None:
            raise RuntimeError(
                f"task {node.name!r} is async, and was called in a sync run, which has no event loop for it; run the graph "
                f"with ainvoke or astream, or give it a sync function"
            )
        if self.pump_error is not None:
            raise self.pump_error
        future = future_type()()
        call = calls.keyed(self.run, scope, node, argument)
        if self.gate is not None:
            self.gate.step_out(scope)
        self.hand_over(Spawned(scope, node, calls.own_arguments(self.run, argument), call, future, copy_context()))
        return future

    def keep(self, scope: TaskScope, row: Recorded | None, *, waits: bool) -> Any:
        """Store what a running task recorded; returns a future that resolves when it is stored as the durability says.

        Called from a thread of the body. Without a row: may the caller wait (`waits`) for such a future at all?
        """
        del waits
        if row is None:
            return None
        if self.pump_error is not None:
            raise self.pump_error
        future = future_type()()
        self.hand_over(Spawned(scope, None, row, None, future, None))
        return future

    def hand_over(self, event: Spawned) -> None:
        """Give the owner something to do for a running body."""
        self.inbox.put(event)
        self.lend()

    def lend(self) -> None:
        """While a body runs inline the driver's thread is in it: a pump owns the run and settles what the body asks for."""
        if self.inlined is not None:
            with self.turn:
                # Others may spawn at the same time, and the body on the owner's thread may have ended just now.
                if self.inlined is not None and not self.pumping:
                    self.pumping = True
                    self.handed_back.acquire()
                    workers.submit(Job(self.pump))

    def start_child(self, event: Spawned) -> None:
        """Make the child's task and start it, or resolve its future with the stored result."""
        if event.node is None:
            self.store_kept(event)
            return
        child = self.call_child(event)
        if self.run.notices:
            self.tell()
        if child.settled:
            self.resolve(child)
            return
        if child.scope is not None:
            return  # an earlier attempt of the caller started it, and it is still running
        scope = self.run.open(child)
        if child.timeout is not None:
            self.limited = True
        assert event.context is not None
        child.context = event.context.copy()
        job = self.launched[scope] = Job(partial(self.body, event.context, scope), child.name)
        if child.timeout is None:
            # A body with a limit must stay one that can be abandoned, so whoever waits for it does not run it.
            event.future.job = job
        if self.gate is None:
            workers.submit(job)
        else:
            self.gate.enter(partial(workers.submit, job))

    def store_kept(self, event: Spawned) -> None:
        """Store what a body recorded, then let it go on."""
        if event.scope.closed:
            abandon_future(event.future)
            return
        self.run.record(*event.argument)
        try:
            self.store_held()
        except BaseException as error:
            event.future.set_exception(error)
            raise
        event.future.set_result(None)

    def resolve(self, task: Task) -> None:
        """Give a child's outcome to its caller, after it was stored."""
        self.store_held()
        give_outcome(task, self.gate)

    def pump(self) -> None:
        """Own the run while an inline body runs: settle its children until the body has ended."""
        here.is_worker = True
        event = None
        try:
            while (event := self.wait()) is not HAND_BACK:
                self.handle(event)
                if self.run.notices:
                    self.tell()
        except BaseException as error:  # noqa: BLE001 - carried to the driver's thread
            self.pump_error = error
            if isinstance(event, Spawned):
                fail_future(event.future, error)
            for task in self.run.tasks:
                if task.future is not None:
                    fail_future(task.future, error)
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
