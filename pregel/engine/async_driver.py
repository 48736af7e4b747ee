"""The async driver: runs what `Run` plans on the event loop, sync bodies on workers, and stores what it commits.

The mirror of `sync_driver.SyncDriver`: same methods, same order, the four primitives in the other colour. The task that
drives owns the run; outcomes of workers arrive through `loop.call_soon_threadsafe`, so there is no pump.

A single ready async body is awaited in a context of its own, without an asyncio task (D39); several become tasks. Sync
bodies never run on the loop (D56).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from checkpoint.base import (
    CheckpointConflictError,
    Durability,
    NativeSaver,
)
from pregel._scope import TaskScope
from pregel.engine import calls, limits
from pregel.engine.async_storing import AsyncStoring
from pregel.engine.core import Run
from pregel.engine.effects import HAND_BACK, Effect, Recorded, Retry, Spawned, Start
from pregel.engine.inbox import Alarm, Inbox, call_soon, count_cancels, resolve, to_the_end
from pregel.engine.limits import own_error, tell
from pregel.engine.program import Write
from pregel.engine.snapshot import disown
from pregel.engine.stranded import before_resume
from pregel.engine.task import Task, acall, acall_routers, call, call_node, in_context, paced
from pregel.engine.workers import (
    LOOK_S,
    Gate,
    Job,
    abandon_future,
    fail_future,
    future_type,
    give_outcome,
    linger,
    workers,
)
from pregel.errors import AttemptClosedError, GraphInterrupt, NodeTimeoutError


class AsyncDriver(AsyncStoring):
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
        self.loop = asyncio.get_running_loop()
        self.inbox = Inbox(self.loop)
        """Outcomes, child tasks to start, and None when a chunk is waiting."""
        self.bodies: dict[asyncio.Task[Any], TaskScope] = {}
        """Async bodies that run as asyncio tasks."""
        self.cancels: int | None = None
        """Cancellations that the driving task had been asked for when it began; None if several tasks may drive."""
        self.inlined: TaskScope | None = None
        self.pumping: asyncio.Task[None] | None = None
        self.ending: dict[TaskScope, tuple[float, NodeTimeoutError]] = {}
        """Attempts that were over their limit, and have not ended yet -> until when that is waited for, and their error."""
        self.is_cut = False
        """Has a limit of the step or the run ended it? Then bodies get a grace period to end in."""
        super().__init__(run, saver, durability, inline=inline, gate=gate, step_timeout=step_timeout)

    # ---- life cycle

    async def begin(self, value: Any) -> None:
        """Start the run; returns when its input or answers are stored."""
        if self.gate is not None and self.fence is not None:
            # From here to the close the body that called may wait for this run: it takes no place meanwhile (D12).
            self.gate.step_out(self.fence)
            self.stepped_out = True
        if self.run.taken_over is not None:
            await self.look_below(value)
        try:
            commits = self.run.start(value)
            if self.run.notices:
                await self.tell()
        except BaseException:
            self.run.refuse()
            raise
        for commit in commits:
            await self.store(commit, wait=True)

    async def look_below(self, value: Any) -> None:
        """Async form of `SyncDriver.look_below`."""
        search = before_resume(self.run, value)
        while search is not None and (question := search.next()) is not None:
            search.take(await getattr(self.saver, "a" + question.name)(*question.arguments, **question.keywords))

    async def advance(self) -> bool:
        """Do the next piece: plan and start a superstep, wait for an outcome, or commit. False when the run is over."""
        run = self.run
        if run.phase == "done":
            return False
        if run.phase == "running":
            if await self.barrier():
                return True
        else:
            if self.fence is not None:
                if run.outlets:
                    await self.room()
                self.fence.check()
                if self.watched:
                    self.fence.progress()
            tasks = run.plan()
            if run.notices:
                await self.tell()
            if tasks is None:
                if run.phase != "asking":
                    return False
                tasks = await self.look_up()
            if self.acks:
                await self.keep_up()
            if len(tasks) == 1 and self.inline and tasks[0].timeout is None and not tasks[0].node.needs_worker:
                task = tasks[0]
                while not task.settled:
                    scope = self.inlined = run.open(task)
                    cancels = self.cancels if self.cancels is not None else count_cancels()
                    try:
                        writes = await in_context(acall(scope), copy_context())
                        if run.notices:
                            run.warn()
                    except BaseException as error:
                        await self.linger(scope, error)
                        scope.close()
                        if self.pumping is not None:
                            await self.take_back()
                        if isinstance(error, GeneratorExit) or (
                            isinstance(error, asyncio.CancelledError) and count_cancels() > cancels
                        ):
                            raise
                        if not await self.again(run.settle(task, own_error(task, error)), inline=True):
                            if run.failure is not None:
                                self.withdraw()
                            break
                    else:
                        scope.closed = True
                        if scope.lent:
                            scope.close()
                        if self.pumping is not None:
                            await self.take_back()
                        run.finish(task, writes)
                self.inlined = None
                if run.unsettled:
                    return True
            else:
                self.start_step(tasks)
                if await self.barrier():
                    return True
        # Every task has settled: close the superstep and store it.
        if self.fence is not None:
            self.fence.check()
        commit = run.commit()
        if run.notices:
            await self.tell()
        if commit is not None:
            await self.store(commit)
        return run.phase == "idle"

    async def look_up(self) -> list[Task]:
        """Ask the cache for the results of the planned tasks; returns the tasks that must run."""
        run = self.run
        left: list[Task] = await run.request.caching.alook_up(run)
        if run.notices:
            await self.tell()
        return left

    async def barrier(self) -> bool:
        """Wait for an outcome and settle it, with all that have arrived; is anything still running?"""
        run = self.run
        if run.unsettled:
            await self.wait()
            events = self.inbox.events
            while events:
                await self.handle(events.popleft())
            if run.unsettled:
                if run.notices:
                    await self.tell()
                await self.store_held()
                return True
        return False

    async def room(self) -> None:
        """Return when those who listen have read enough."""
        loop = self.loop
        for outlet in self.run.outlets:
            while outlet.must_wait:
                ready: asyncio.Future[bool] = loop.create_future()
                outlet.when_room(partial(call_soon, loop, resolve, ready, True, None))
                if not outlet.is_full:
                    break
                answers = outlet.ask()
                timer = None if answers is None else loop.call_later(outlet.patience_s, resolve, ready, False, None)
                try:
                    if not await ready:
                        outlet.note(answers)
                finally:
                    if timer is not None:
                        timer.cancel()

    async def drive(self) -> None:
        """Run to the end, in one asyncio task."""
        self.cancels = count_cancels()
        while await self.advance():
            pass

    async def close(self, *, quiet: bool = False, error: BaseException | None = None) -> None:
        """Store what is left, wait until everything is stored; async bodies that still run are cancelled and awaited.

        Whoever is cancelled while he waits for that does not wait for bodies any longer, but for what is being stored.
        `quiet`: the caller has walked away, or was cancelled: a lost claim is not reported. `error`: what has ended the
        run.
        """
        run = self.run
        self.shut()
        left = [body for body in self.bodies if not body.done()]
        for body in left:
            if self.bodies[body] not in self.ending:
                body.cancel()
        self.leave_bodies()
        hold = self.hold
        may_store = hold is None or hold.reenter()
        cancelled = None
        try:
            if left:
                try:
                    await self.see_out(left)
                except asyncio.CancelledError as again:
                    cancelled = again
            commit = None if self.broken else run.close()
            if may_store and (commit is not None or self.acks):
                cancelled = await to_the_end(self.store_rest(commit)) or cancelled
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
                            await self.saver.arelease(run.claim)
                finally:
                    hold.release()
            if run.request.observer is not None:
                await self.tell_end(error or cancelled)
        if cancelled is not None:
            raise cancelled

    async def tell(self) -> None:
        """Tell those who observe the run what has happened in it, and emit its warnings."""
        observer = self.run.request.observer
        if observer is not None:
            await observer.atell(self.run.take_reports())
        self.run.warn()

    async def tell_end(self, error: BaseException | None) -> None:
        """Tell those who observe the run that it is over: by this error, if any."""
        fails = self.run.end(error)
        await self.run.request.observer.atell(self.run.take_reports(), quiet=fails)

    async def see_out(self, left: Sequence[asyncio.Task[Any]]) -> None:
        """Wait for cancelled bodies to end; for those that a limit has ended only so long."""
        patient = [] if self.is_cut else [body for body in left if self.bodies[body] not in self.ending]
        if patient:
            await asyncio.wait(patient)
        late = [body for body in left if not body.done()]
        if late:
            _, late_ = await asyncio.wait(late, timeout=limits.GRACE_S)
            for body in late_:
                self.forsake(body)

    def forsake(self, body: asyncio.Task[Any]) -> None:
        """A body goes on although it was cancelled: nobody waits for it any more."""
        scope = self.bodies.pop(body, None)
        body.remove_done_callback(self.ended)
        _forsaken.add(body)
        body.add_done_callback(_bury)
        if scope is not None and self.gate is not None:
            self.gate.end(scope)

    def leave_bodies(self) -> None:
        """Nobody waits for running bodies any more: let others have their threads and their places."""
        for scope, job in self.launched.items():
            if workers.abandon(job) and self.gate is not None:
                self.gate.end(scope)
        if self.launched:
            self.run.root.abandons = True
            self.launched.clear()
        if self.gate is not None:
            for event in self.inbox.events:
                if isinstance(event, tuple):
                    self.gate.end(event[0])
                elif isinstance(event, partial) and event.func == self.launch:
                    self.gate.end(event.args[0])  # it was let in, but is not started any more

    async def abort(self, error: BaseException) -> None:
        """Close a run that an error has left: what its tasks wrote is stored, and the run lets go of the error.

        Nothing is stored by what runs inside an attempt that is over: somebody else may be where it was (D29).
        """
        if isinstance(error, AttemptClosedError) and self.fence is not None and self.fence.is_over():
            self.broken = True
        self.run.place(error)
        try:
            await self.close(quiet=not isinstance(error, Exception), error=error)
        finally:
            self.run.outcome()

    def stop(self) -> None:
        """Something was asked for from outside: that the attempt around this run ends, that the run drains."""
        self.inbox.put_from_thread(None)

    # ---- bodies

    def start_step(self, tasks: Sequence[Task]) -> None:
        """Start the bodies of a superstep."""
        if self.step_timeout is not None:
            self.deadline = time.monotonic() + self.step_timeout
        for task in tasks:
            self.start(task)

    def start(self, task: Task) -> None:
        """Start the next attempt of a task: an async body as an asyncio task, a sync one on a worker."""
        scope = self.run.open(task)
        if task.timeout is not None:
            self.limited = True
        context = copy_context() if task.caller is None else task.context.copy()
        launch = partial(self.launch, scope, context)
        if self.gate is None:
            launch()
        else:
            # A place may be given back by a worker's thread: the start always goes through the inbox.
            start = self.starts[task] = partial(self.admit, launch)
            self.gate.enter(start)

    def admit(self, launch: partial[None]) -> None:
        """The gate lets a body in; on any thread. It is started on the loop, if the run is not over by then."""
        with suppress(RuntimeError):  # the loop is closed: so are all runs that share the gate
            self.loop.call_soon_threadsafe(_let_in, self, launch)

    def launch(self, scope: TaskScope, context: Context) -> None:
        """Start one attempt."""
        node = scope.task.node
        if node.needs_worker and not node.async_routers:
            job = self.launched[scope] = Job(partial(self.body, context, scope), node.name)
            workers.submit(job)
            return
        body = self.loop.create_task(self.abody(scope), context=context)
        self.bodies[body] = scope
        body.add_done_callback(self.ended)

    def body(self, context: Context, scope: TaskScope) -> None:
        """Run one attempt of a sync body, on a worker."""
        writes: list[Write] | None = None
        failure: BaseException | None = None
        try:
            if not scope.closed:
                if scope.task.timeout is not None:
                    scope.task.started_at = scope.moved_at = time.monotonic()
                    self.inbox.put_from_thread(None)  # whoever waits for events does not know of this limit yet
                writes = context.run(call, scope)
        except BaseException as error:  # noqa: BLE001 - the run decides what an error means
            linger(scope, error)
            failure = error
        gate = self.gate
        if gate is not None and failure is None:
            gate.end(scope)
        self.inbox.put_from_thread((scope, writes, failure))
        del failure  # it knows this frame
        if gate is not None and self.is_closed:
            gate.end(scope)

    async def abody(self, scope: TaskScope) -> list[Write]:
        """Run one attempt of an async body, or of a sync one whose routers are async."""
        if scope.task.timeout is not None:
            scope.task.started_at = scope.moved_at = time.monotonic()
            self.inbox.put(None)  # whoever waits for events does not know of this limit yet
        try:
            if not scope.task.node.needs_worker:
                if "custom" in self.run.sees or "messages" in self.run.sees:
                    written_: list[Write] = await paced(acall(scope), self.run, self.room)
                    return written_
                return await acall(scope)
            result, writes = await self.off_loop(scope, partial(call_node, scope))
            await acall_routers(scope, result, writes)
        except GraphInterrupt as error:
            await self.linger(scope, error)
            raise
        written: list[Write] = writes
        return written

    async def linger(self, scope: TaskScope, error: BaseException) -> None:
        """A body was left by a question: wait for the nested runs that it has going on beside, which may ask too."""
        if not isinstance(error, GraphInterrupt) or not scope.has_questions or not scope.questions.going_on:
            return
        alarm = Alarm()
        scope.questions.when_alone(alarm.ring)
        await alarm.sleep(None)

    async def off_loop(self, scope: TaskScope, function: Callable[[], Any]) -> Any:
        """The result of a sync function, called on a worker in the current context."""
        future = self.loop.create_future()
        context = copy_context()

        def run() -> None:
            try:
                result, error = context.run(function), None
            except BaseException as raised:  # noqa: BLE001 - handed to the awaiting side
                result, error = None, raised
            self.inbox.put_from_thread(partial(resolve, future, result, error))

        job = self.launched[scope] = Job(run, scope.task.name)
        workers.submit(job)
        return await future

    def ended(self, body: asyncio.Task[Any]) -> None:
        """An async body has ended."""
        scope = self.bodies.pop(body)
        error = asyncio.CancelledError() if body.cancelled() else body.exception()
        if self.gate is not None and (error is None or self.is_closed):
            self.gate.end(scope)
        self.inbox.put((scope, None, error) if error is not None else (scope, body.result(), None))

    async def wait(self) -> None:
        """Return when there is an event, or a deadline has passed."""
        due = self.next_deadline()
        if due is None:
            await self.inbox.ready()
            return
        timer = self.loop.call_later(max(0.0, due - time.monotonic()), self.inbox.put, None)
        try:
            await self.inbox.ready()
        finally:
            timer.cancel()
        await self.expire(time.monotonic())

    async def handle(self, event: Any) -> None:
        """Settle an outcome, or start a child task."""
        if event is None:
            if self.run.notices:
                await self.tell()
            if self.fence is not None:
                self.fence.check()
            if self.naps:
                self.put_off()
            return
        if callable(event):
            event()
            return
        if isinstance(event, Spawned):
            if event.node is None:
                await self.store_kept(event)
            else:
                self.start_child(event)
                if self.run.notices:
                    await self.tell()
            return
        if isinstance(event, Task):
            await self.resolve(event)
            return
        scope, writes, error = event
        self.launched.pop(scope, None)
        if scope in self.ending:
            await self.end_late(scope)
            return
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
            if await self.again(effect):
                return
        if task.future is not None:
            await self.resolve(task)

    async def again(self, effect: Effect | None, *, inline: bool = False) -> bool:
        """Do what a failure asks for: another attempt (True if the caller's loop is to make it), or its handler."""
        if isinstance(effect, Retry):
            if self.run.notices:
                await self.tell()
            return await self.nap(effect, inline=inline)
        if isinstance(effect, Start):
            self.start(effect.task)
        return False

    async def nap(self, effect: Retry, *, inline: bool) -> bool:
        """Have a task wait for its next attempt, without a thread for it; False if the run is asked to stop instead."""
        task, after = effect.task, effect.after
        tell(effect)
        if asyncio.sleep is not asyncio.tasks.sleep:
            # A program that has put something in its place, as tests do, wants to be asked.
            await asyncio.sleep(after)
            after = 0.0
        if after:
            self.naps[task] = time.monotonic() + after
            self.limited = True
            self.listen()
            self.put_off()
            if inline:
                self.inlined = None
                self.dozing = task
                while task in self.naps:
                    await self.wait()
                    while self.inbox.events:
                        await self.handle(self.inbox.events.popleft())
                self.dozing = None
        elif not inline:
            self.start(task)
        return not task.settled

    def withdraw(self) -> None:
        """The step has failed: bodies that wait at the gate, or for their next attempt, are not started, async ones that
        run are cancelled."""
        super().withdraw()
        for body, scope in list(self.bodies.items()):
            task = scope.task
            if not task.settled and not body.done() and scope not in self.ending:
                scope.close()
                body.cancel()
                self.run.drop(task)

    # ---- time limits

    def next_deadline(self) -> float | None:
        """When the next limit is due, in the clock of `time.monotonic`."""
        if not self.limited:
            return None
        dues = self.dues()
        dues += [until for until, _ in self.ending.values()]
        control = self.run.request.control
        if control is not None and control.by_signal:
            dues.append(time.monotonic() + LOOK_S)
        return min(dues) if dues else None

    async def expire(self, now: float) -> None:
        """End the attempts whose limit has passed: async bodies are cancelled and get a grace period to end in, sync ones
        are abandoned. Make those that have waited long enough.

        Raises:
            TimeoutError: the step's own limit has passed, or the run's.
            GraphDrained: the run was asked to stop, and the time for that is up.
        """
        for task in [task for task, due in self.naps.items() if due <= now]:
            del self.naps[task]
            if task is not self.dozing:
                self.start(task)
        for late in [scope for scope, (until, _) in self.ending.items() if until <= now]:
            await self.end_late(late)
        arrived = {event[0] for event in self.inbox.events if isinstance(event, tuple)}
        for task in self.run.tasks:
            due = limits.deadline_of(task)
            scope = task.scope
            if task.settled or due is None or due > now or scope is None or scope in arrived:
                continue
            scope.close()
            self.ending[scope] = now + limits.GRACE_S, limits.timed_out(task, now)
            workers.abandon(self.launched.pop(scope, None))
            self.run.root.abandons = True
            if not self.cancel_body(scope):
                await self.end_late(scope)
        if self.run.failure is not None:
            self.withdraw()
        if self.run.request.prompt:
            self.is_cut = True
            self.run.cut(now)
            self.is_cut = False
        if self.deadline is not None and now >= self.deadline:
            self.is_cut = True
            raise self.too_long()

    def cancel_body(self, scope: TaskScope) -> bool:
        """Cancel the async body of an attempt; False if it has none that still runs."""
        for body, owner in self.bodies.items():
            if owner is scope and not body.done():
                body.cancel()
                return True
        return False

    async def end_late(self, scope: TaskScope) -> None:
        """An attempt that was over its limit has ended, or has had its grace period: now it counts as failed."""
        _, error = self.ending.pop(scope)
        for body in [body for body, owner in self.bodies.items() if owner is scope]:
            self.forsake(body)
        task = scope.task
        if task.scope is scope and not task.settled:
            effect = self.run.settle(task, error)
            self.give_up(scope)
            if not await self.again(effect) and task.future is not None:
                await self.resolve(task)
        elif self.gate is not None:
            self.gate.end(scope)

    # ---- tasks called by tasks

    def spawn(self, scope: TaskScope, node: Any, argument: Any) -> Any:
        """Start a child task; returns an asyncio future on the loop, a `concurrent.futures` one in a worker."""
        if self.pumping is not None and self.pumping.done():
            self.pumping.result()
        on_loop = asyncio._get_running_loop() is self.loop
        future: Any = self.loop.create_future() if on_loop else future_type()()
        call = calls.keyed(self.run, scope, node, argument)
        if self.gate is not None:
            self.gate.step_out(scope)
        event = Spawned(scope, node, calls.own_arguments(self.run, argument), call, future, copy_context())
        if on_loop:
            self.start_child(event)
            if self.run.notices:
                self.inbox.put(None)  # the owner says it
            self.lend()
        else:
            self.hand_over(event)
        return future

    def keep(self, scope: TaskScope, row: Recorded | None, *, waits: bool) -> Any:
        """Store what a running task recorded; returns a future that resolves when it is stored as the durability says.

        Called from the loop or from a thread of the body. Without a row: may the caller wait (`waits`) for such a future
        at all?
        """
        on_loop = asyncio._get_running_loop() is self.loop
        if on_loop and waits:
            raise RuntimeError(
                f"node {scope.task.name!r} called runtime.once() on the event loop, which would have to wait there until "
                f"the result is stored; use 'await runtime.aonce(key, function)' in async code"
            )
        if row is None:
            return None
        if self.pumping is not None and self.pumping.done():
            self.pumping.result()
        future: Any = self.loop.create_future() if on_loop else future_type()()
        self.hand_over(Spawned(scope, None, row, None, future, None))
        return future

    def hand_over(self, event: Spawned) -> None:
        """Give the owner something to do for a running body."""
        if asyncio._get_running_loop() is self.loop:
            self.inbox.put(event)
            self.lend()
            return
        self.inbox.put_from_thread(event)
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.lend)

    def lend(self) -> None:
        """While a body runs inline the driver is awaiting it: a pump settles what it asks for."""
        if self.inlined and self.pumping is None:
            self.pumping = self.loop.create_task(self.pump())

    def start_child(self, event: Spawned) -> None:
        """Make the child's task and start it; one with a stored result is settled at the next turn."""
        child = self.call_child(event)
        if child.settled:
            self.inbox.put(child)
            return
        if child.scope is not None:
            return  # an earlier attempt of the caller started it, and it is still running
        scope = self.run.open(child)
        if child.timeout is not None:
            self.limited = True
        assert event.context is not None
        child.context = event.context.copy()
        launch = partial(self.launch, scope, event.context)
        if self.gate is None:
            launch()
        else:
            self.gate.enter(partial(self.admit, launch))

    async def store_kept(self, event: Spawned) -> None:
        """Store what a body recorded, then let it go on."""
        if event.scope.closed:
            abandon_future(event.future)
            return
        self.run.record(*event.argument)
        try:
            await self.store_held()
        except BaseException as error:
            if not event.future.done():
                event.future.set_exception(error)
            raise
        if not event.future.done():
            event.future.set_result(None)

    async def resolve(self, task: Task) -> None:
        """Give a child's outcome to its caller, after it was stored."""
        await self.store_held()
        give_outcome(task, self.gate)

    async def pump(self) -> None:
        """Settle the children of an inline body until it has ended: the driver itself is awaiting that body."""
        events = self.inbox.events
        event = None
        try:
            while True:
                await self.wait()
                while events:
                    event = events.popleft()
                    if event is HAND_BACK:
                        return
                    await self.handle(event)
                    if self.run.notices:
                        await self.tell()
        except BaseException as error:
            if isinstance(event, Spawned):
                fail_future(event.future, error)
            for task in self.run.tasks:
                if task.future is not None:
                    fail_future(task.future, error)
            raise

    async def take_back(self) -> None:
        """The inline body has ended: settle its remaining children at the barrier."""
        self.inlined = None  # a child that calls another one now must not start a second pump
        pump, self.pumping = self.pumping, None
        assert pump is not None
        self.inbox.put(HAND_BACK)
        await pump


_forsaken: set[asyncio.Task[Any]] = set()
"""Bodies that nobody waits for and that go on: a loop itself does not keep its tasks alive."""


def _bury(body: asyncio.Task[Any]) -> None:
    """A forsaken body has ended after all."""
    _forsaken.discard(body)
    if not body.cancelled():
        body.exception()  # looked at, so that the loop does not report it


def _let_in(driver: AsyncDriver, launch: partial[None]) -> None:
    """The gate has let a body in; if nobody starts it any more, others may have its place."""
    if driver.is_closed and driver.gate is not None:
        driver.gate.end(launch.args[0])
    else:
        driver.inbox.put(launch)
