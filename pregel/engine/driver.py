"""`Driver`: what the drivers of both colours have in common: what they keep, and what they do without waiting.

It decides nothing about the run, and it has no colour: nothing here calls a body, waits, sleeps or calls the saver.
`sync_driver.SyncDriver` and `async_driver.AsyncDriver` do, through `sync_storing` and `async_storing` where it is about
storing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from checkpoint.base import Ack, CheckpointConflictError, Durability, NativeSaver, StepCommit, ThreadDeletedError
from pregel._scope import TaskScope
from pregel.engine import limits
from pregel.engine.core import Run
from pregel.engine.effects import Spawned
from pregel.engine.once import aonce, once
from pregel.engine.snapshot import note_edited, note_unstored
from pregel.engine.task import Task
from pregel.engine.workers import Gate, Job, abandon_future


class Driver:
    """Drives one run to its end."""

    def __init__(
        self,
        run: Run,
        saver: NativeSaver | None,
        durability: Durability,
        *,
        inline: bool,
        gate: Gate | None,
        step_timeout: float | None,
    ) -> None:
        """Called when the inbox is there: from here on the run may be asked to stop, from any thread."""
        self.run = run
        self.saver = saver
        self.durability: Durability = durability
        self.gate = gate
        self.step_timeout = step_timeout
        self.inline = inline and gate is None and step_timeout is None
        self.fence = run.request.parent
        self.stepped_out = False
        self.hold = run.request.hold
        self.forks = saver is not None and run.root.request.forks
        """Does the run go on in a lane when it loses its thread? Then every write is waited for."""
        self.starts: dict[Task, Callable[[], None]] = {}
        """Bodies that wait at the gate."""
        self.acks: deque[Ack] = deque()
        self.deadline: float | None = None
        self.limited = step_timeout is not None or run.request.prompt
        """Is there, or was there, a limit to watch?"""
        self.broken = False
        """Did storing fail? Then nothing more is stored."""
        self.is_closed = False
        self.launched: dict[TaskScope, Job] = {}
        """Bodies that were handed to workers and have not been settled."""
        self.naps: dict[Task, float] = {}
        """Tasks that wait for their next attempt -> when it is due, in the clock of `time.monotonic`."""
        self.dozing: Task | None = None
        """The one of them whose next attempt is going to be made inline."""
        self.watched = self.fence is not None and self.fence.is_watched()
        """Does somebody wait for progress of what is around this run?"""
        if run.request.prompt:
            self.listen()
        run.spawner = self.spawn
        run.keeper = self
        if self.fence is not None:
            self.fence.encloses(self.stop)

    # ---- what each colour does in its own way

    def stop(self) -> None:
        """Something was asked for from another thread: that the attempt around this run ends, that the run drains."""
        raise NotImplementedError

    def spawn(self, scope: TaskScope, node: Any, argument: Any) -> Any:
        """Start a child task; returns its future."""
        raise NotImplementedError

    # ---- the end

    def shut(self) -> None:
        """The run is being closed: nothing is started any more, and who waits for anything of it is told so."""
        run = self.run
        self.is_closed = True
        if self.fence is not None:
            self.fence.releases(self.stop)
        self.naps.clear()
        if run.request.control is not None:
            run.request.control.unlisten(self)
        for task in run.tasks:
            if task.scope is not None and not task.settled:
                task.scope.close()
            if task.future is not None:
                abandon_future(task.future)

    def leave(self) -> None:
        """The run is closed: the task around it goes on."""
        run = self.run
        run.spawner = run.keeper = None
        if self.fence is not None:
            run.leave()
            if self.stepped_out and self.gate is not None:
                self.stepped_out = False
                self.gate.step_in(self.fence)

    # ---- attempts

    def listen(self) -> None:
        """Hear of a drain that is asked for while this driver waits."""
        if self.run.request.control is not None:
            self.run.request.control.listen(self, self.stop)

    def put_off(self) -> None:
        """Tasks that wait for their next attempt while the run is asked to stop: they stay pending."""
        for task in [task for task in self.naps if self.run.may_put_off(task)]:
            del self.naps[task]
            self.run.put_off(task)

    def give_up(self, scope: TaskScope) -> None:
        """An attempt has failed. Its place at the gate becomes free once nobody can take it whom the failure stops."""
        if self.run.failure is not None:
            self.withdraw()
        if self.gate is not None:
            self.gate.end(scope)

    def withdraw(self) -> None:
        """The step has failed: bodies that wait at the gate, or for their next attempt, are not started."""
        for task in [task for task in self.naps if task.call_index < 0]:
            del self.naps[task]
            self.run.drop(task)
        for task, start in list(self.starts.items()):
            if not task.settled and self.gate is not None and self.gate.withdraw(start):
                self.run.drop(task)
        self.starts.clear()

    def dues(self) -> list[float]:
        """When the limits are due that are watched now, in the clock of `time.monotonic`."""
        found = [due for task in self.run.tasks if not task.settled and (due := limits.deadline_of(task)) is not None]
        found += self.naps.values()
        if self.deadline is not None:
            found.append(self.deadline)
        if (cut := self.run.cut_at) is not None:
            found.append(cut)
        return found

    def too_long(self) -> TimeoutError:
        """The step's own limit has passed."""
        running = ", ".join(task.name for task in self.run.tasks if not task.settled)
        return TimeoutError(
            f"step {self.run.step} took longer than step_timeout={self.step_timeout} seconds; "
            f"still running: {running or 'nothing'}"
        )

    # ---- tasks called by tasks

    def once(self, scope: TaskScope, key: str, call: Callable[[], Any]) -> Any:
        """The result of a call that a running task makes once; on a thread of its body."""
        return once(self.run, scope, key, call)

    async def aonce(self, scope: TaskScope, key: str, call: Callable[[], Any]) -> Any:
        """Async form of `once`; on an event loop."""
        return await aonce(self.run, scope, key, call)

    def call_child(self, event: Spawned) -> Task:
        """The task of a call, with the future that its caller waits for."""
        assert event.call is not None
        child = self.run.call(event.scope, event.node, event.argument, *event.call)
        if child.future is not None:
            abandon_future(child.future)
        child.future = event.future
        child.caller = event.scope
        return child

    # ---- storing

    def may_fork(self, error: BaseException) -> bool:
        """Is it the thread that was lost, and is the run to go on without it?"""
        return self.forks and isinstance(error, CheckpointConflictError) and not isinstance(error, ThreadDeletedError)

    def unstored(self, commit: StepCommit | None, error: BaseException) -> None:
        """A commit could not be stored: the run ends, and its error says so."""
        self.broken = True
        note_unstored(self.run, commit, error)

    def edited(self, names: Any) -> None:
        """The saver has found values that were changed in place."""
        note_edited(self.run, names)
        self.run.warn()
