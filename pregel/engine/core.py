"""`Run`: one run of one graph in one namespace. It decides everything; the drivers do what it says.

A plain object whose methods are called one at a time by its owner, in the order of the walk: `start`, then `plan`,
`open`, `settle` and `commit` per superstep, `close` at the end. It keeps the channels, their versions, what each node has
seen, and the tasks of the step. Knows no thread, event loop, clock, random number, file or saver: time and ids come in
through its `Request`, and what is to be stored goes out as `StepCommit`.

Invariants
1. One owner: only the driver's thread or task calls these methods. Running tasks reach the run through `_scope.Host`
   alone: they read channels (which do not change while tasks run), ask questions and emit chunks.
2. `phase` tells what may be called next; a call out of order is an `EngineBug`.
3. A run that failed in `commit` has changed nothing (D31); only writes of finished tasks are stored then.
4. Nothing is built that nobody asked for: ids, namespaces and configs exist only once a saver, a stream mode, a
   question or a signature needs them.

Source: Valiant 1990 (bulk-synchronous model); Malewicz et al. 2010, "Pregel", section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from checkpoint.base import StepCommit, TaskWrites, Version
from pregel._scope import TaskScope
from pregel.constants import ERROR, ERROR_SOURCE_NODE, INTERRUPT, START
from pregel.engine import (
    calls,
    entry,
    joins,
    notes,
    occupancy,
    pause,
    plan,
    repeat,
    report,
    retry,
    snapshot,
    view,
)
from pregel.engine.apply import apply_tasks
from pregel.engine.effects import Effect, Retry, Start
from pregel.engine.holding import Holding
from pregel.engine.hosting import Hosting
from pregel.engine.program import Node, Write
from pregel.engine.state import LATER, Phase, RunState, Status, Unstored
from pregel.engine.task import Task
from pregel.errors import (
    EngineBug,
    ErrorCode,
    GraphBubbleUp,
    GraphChangedError,
    GraphDrained,
    GraphInterrupt,
    GraphRecursionError,
    Interrupt,
    ParentCommand,
    StoredFailure,
    is_invalid_resume,
)


class Run(Holding, Hosting):
    """One run of one graph in one namespace."""

    __slots__ = ()

    # ---- what the driver calls, in life-cycle order

    def start(self, input: Any) -> list[StepCommit]:
        """Take the input, or find out what to resume. Returns what must be stored before any node starts, in order.

        Raises:
            EmptyInputError: there is nothing to do.
            GraphChangedError: what is to be resumed needs what the graph does not have any more.
            RuntimeError: answers that no question waits for, or without a saver.
        """
        if self.phase != "new":
            self._misplaced("new")
        observed = report.REPORTS in self.sees
        if observed:
            report.begins(self, input)
        self.replayed = self.replaying
        if self.pending and self.request.parent_run is None:
            repeat.keep_answered(self)
        commits = entry.begin(self, input) if self.request.called is None else repeat.begin(self, input)
        if self.phase == "new":
            self.phase = "idle"
            self.status = "pending"
        if observed:
            report.resumes(self)
        return commits

    def refuse(self) -> None:
        """What the run is asked to do has turned out to be a mistake: nothing of it is stored, also no answer."""
        self.held = []
        self.rev = 0

    def plan(self) -> list[Task] | None:
        """The tasks of the next superstep that must run, in planned order; None when the run is over (see `status`).

        The list may be empty: then every task of the step is settled already, and `commit` comes next.
        """
        if self.phase != "idle":
            self._misplaced("idle")
        if self.step > self.stop:
            self.tasks = tasks = plan.next_tasks(self)
            if self.sees and self.stores:
                view.checkpoint(self)
            self.ready = [task.name for task in tasks]
            self._end("out_of_steps")
            return None
        self.tasks = tasks = plan.next_tasks(self)
        if self.pending:
            entry.reapply(self, tasks)
            self._take_over_failures()
        if self.sees and self.stores:
            view.checkpoint(self)
        if not tasks:
            self._end("done")
            if self.program.joins:
                entered = self.entry_version()
                # What arrived before this input was told by the run that left it.
                joins.report(self, [n for n in self.program.joins if count_of(self.versions.get(n, 0)) > entered])
            return None
        request = self.request
        if request.interrupt_before and pause.breakpoint_hit(self, request.interrupt_before, tasks):
            self._end("interrupt_before")
            view.stopped(self)
            return None
        if request.control is not None and request.control.reason is not None:
            self._end("draining")
            return None
        self.phase = "running"
        if self.sees:
            view.starts(self, tasks)
        if not self.pending:
            self.unsettled = len(tasks)
            return tasks
        view.reapplied(self, [task for task in tasks if task.reapplied])
        for task in self.waiting:
            view.paused(self, task)
        ready = [task for task in tasks if not task.settled]
        for task in ready:
            task.start_over()
        self.unsettled = len(ready)
        return ready

    def open(self, task: Task) -> TaskScope:
        """The scope of the task's next attempt."""
        scope = task.scope = TaskScope(self, task, self.request.parent, task.attempt)
        return scope

    def finish(self, task: Task, writes: list[Write]) -> None:
        """The body returned."""
        task.writes = writes
        task.settled = True
        task.scope = None
        self.unsettled -= 1
        if self.stores:
            if not writes or not self.program.keeps_all:
                writes = snapshot.stored_writes(self.program, writes)  # type: ignore[assignment]
            self.held.append(self._row(task, 0, writes))
            if task.answers:
                self._hold_answers(task)
        if self.sees:
            view.finished(self, task)

    def drop(self, task: Task) -> None:
        """The task will not be started, or its outcome does not count any more; it stays pending."""
        self._settled(task)

    def may_put_off(self, task: Task) -> bool:
        """Is a task that waits for its next attempt to stay pending, since the run is asked to stop? A called one is not:
        its caller waits for it, and the step is not over before."""
        control = self.request.control
        return control is not None and control.reason is not None and task.call_index < 0

    def put_off(self, task: Task) -> None:
        """Its next attempt is left to whoever resumes the run."""
        self._settled(task)
        self._keep_answers(task)
        self.has_put_off = True

    def settle(self, task: Task, error: BaseException) -> Effect | None:
        """The body raised. Turns the error into a pause, a failure, control flow, or another try.

        Raises:
            BaseException: one that is no failure of a node, Ctrl-C above all: it ends the run here and now.
        """
        if task.settled:
            raise EngineBug(f"task {task.name!r} of step {self.step} settled twice")
        if isinstance(error, (GraphBubbleUp, GraphChangedError)):
            scope = task.scope
            self._settled(task)
            if isinstance(error, GraphInterrupt):
                self._pause(task, pause.all_asked(scope, error), scope)
            else:
                self.bubble = self.bubble or error
                if report.REPORTS in self.sees:
                    report.task_ends(self, task, "left")
            return None
        if not isinstance(error, Exception):
            self._settled(task)
            self._keep_answers(task)
            self.failure = error
            if report.REPORTS in self.sees:
                report.task_ends(self, task, "failed", error=error)
            raise error
        notes.of_task(self, error, task)
        if is_invalid_resume(error):
            self._settled(task)
            self._refuse(task, error)
            return None
        policies = task.node.retry_policy or self.request.retry_policy
        if policies and self.failure is None:
            try:
                wait = retry.decide(policies, task.attempt, error, self.request.jitter)
            except Exception as wrong:  # noqa: BLE001 - a policy's own function failed: that ends the task instead
                return self._fail(task, wrong)
            if wait is not None:
                task.attempt += 1
                if task.is_pull:
                    task.input = plan.read_input(self, task.node)
                elif task.call_index >= 0:
                    task.input = calls.own_arguments(self, task.arg)
                if report.REPORTS in self.sees:
                    report.retries(self, task, error, wait)
                return Retry(task, wait, error)
        return self._fail(task, error)

    def call(
        self, scope: TaskScope, node: Node, argument: Any, index: int, key: str | None = None, in_line: bool = False
    ) -> Task:
        """A task calls a task: the child, settled already if its result is stored. If an earlier attempt of the caller
        has called it, that one, finished or still running."""
        former = None if key is None else calls.made_before(self, scope, node, key)
        if former is not None and calls.is_of_use(self, former):
            return former
        child = Task(node, argument)
        child.former = former
        child.parent = scope.task
        child.call_index, child.key, child.in_line = index, key, in_line
        if node.retry_policy or self.request.retry_policy:
            child.input = calls.own_arguments(self, argument)
            child.arg = argument
        if self.pending:
            calls.recall(self, scope, child)
            if child.settled and child.writes is None and child.interrupts:
                scope.questions.asked.append(((2, index, ""), child.interrupts))
        self.tasks.append(child)
        if not child.settled:
            child.start_over()
            self.unsettled += 1
        if self.sees:
            view.starts(self, [child])
        return child

    def flush(self) -> StepCommit | None:
        """Writes of settled tasks to store now, while others of the step are still running."""
        if not self.held or self.request.deferred:
            return None
        return snapshot.rows(self, self._take_held())

    def commit(self) -> StepCommit | None:
        """Every task settled: apply the writes, or end the run if something stops it. Returns what is to be stored.

        Raises:
            InvalidUpdateError: channels cannot take the writes; nothing has changed.
            Exception: what a reducer raises; nothing has changed.
        """
        if self.phase != "running":
            self._misplaced("running")
        if self.unsettled:
            raise EngineBug(f"commit of step {self.step} with {self.unsettled} unsettled tasks: {self._names()}")
        if self.failure is not None or self.bubble is not None:
            self._end("failed")
            return None
        if self.interrupts or self.waiting:
            if self.refused is not None:
                self.failure = self.refused
                self._end("failed")
                return None
            self._end("interrupted")
            view.interrupted(self)
            return None
        if self.has_put_off:
            self._end("draining")
            return None
        tasks = self.tasks
        if len(tasks) > 1:
            tasks = [task for task in tasks if task.writes is not None or _is_used_up(task)]
        self.phase = "committing"
        try:
            apply_tasks(self, tasks)
        except Exception as error:
            self.failure = error
            self._end("failed")
            raise
        if self.emitted is not LATER or self.sees:
            self._emit_values(tasks)
        if self.stores:
            held, self.held = self.held, []
            made = snapshot.checkpoint(self, "loop", held)
            pace = self.request.pace
            if pace is not None and pace.is_due(self.request.monotonic()):
                made = snapshot.periodic(self)
        else:
            made = self.checkpoint_id_ = None
        self.pending = []
        if self.resumed:
            calls.report(self)
            self.step_over()
            if self.request.parent_run is None:
                self.answers.loose.clear()  # it was meant for this superstep: a question of a later one is asked
        self.resumed = self.replaying = False
        self.step += 1
        self.phase = "idle"
        request = self.request
        if request.interrupt_after and pause.breakpoint_hit(self, request.interrupt_after, self.tasks):
            if self.sees and self.stores:
                self.tasks = plan.next_tasks(self)
                view.checkpoint(self)
            if self.root.request.called is not None:
                repeat.stopped_after(self, made)
            self._end("interrupt_after")
            view.stopped(self)
        return made

    def close(self) -> StepCommit | None:
        """The run is over, however it ended: what is still to be stored.

        A run that was caught in the middle of a commit (Ctrl-C between two of its lines) may be half applied: then only
        the finished tasks' writes are stored, and with durability `exit` nothing (D31).
        """
        is_torn = self.phase == "committing"
        self.phase = "done"
        if self.stores and self.request.stable_ns and isinstance(self.bubble, ParentCommand):
            self._take_back()
        for task in self.tasks:
            if not task.settled and not is_torn:
                self._keep_answers(task)
            # No cycles are left for the collector: an error knows the frames that know the run.
            task.scope = task.error = task.future = None
        self.tasks = []
        self.kept = None
        if not self.stores:
            return None
        held = self._take_held()
        if self.request.parent_run is not None:
            self._tell_around(self.request.parent_run)
        if not self.request.deferred:
            return snapshot.rows(self, held) if held else None
        if is_torn:
            self.open_runs = []
            return None
        return self._close_deferred(held)

    def _tell_around(self, around: RunState) -> None:
        """Nested run: the one around it knows from here on where this one ended."""
        request = self.request
        if request.stable_ns:
            occupancy.leave(self.root.occupied, self.ns)
        if self.status != "done" and not isinstance(self.bubble, ParentCommand):
            return
        if not request.stable_ns:
            # This namespace is not met again: who comes here next time asks the run around it.
            around.sub_open.update({**self.sub, **self.sub_changed})
            return
        around.sub_open[self.ns] = self.rev
        if request.deferred:
            self.root.finished[self.ns] = snapshot.kept(self)

    def _close_deferred(self, held: list[TaskWrites]) -> StepCommit | None:
        """Durability `exit`: a root run stores all that nested ones have left with it; a nested one leaves what it has."""
        if self.sub_open:
            snapshot.relink(self)
        around = self.request.parent_run
        if around is None:
            for run, writes, is_parked in self._still_open():
                if not is_parked and (made := snapshot.final(run, writes)) is not None:
                    self.parked.append(made)
            made = snapshot.final(self, held)
            if made is None and self.parked:
                made = snapshot.rows(self, held)  # this run did nothing, but nested ones did
            if made is not None:
                made.others = self.parked
                snapshot.unlink(made)
            return made
        around.open_runs += self._still_open()
        if self.request.stable_ns:
            made = snapshot.final(self, held)
            if made is not None:
                self.root.parked.append(made)
        around.open_runs.append(Unstored(self, held, self.request.stable_ns))
        return None

    def leave(self) -> None:
        """Nested run, after `close`: it is over, and the task that started it hears what it asks."""
        request = self.request
        scope = request.parent
        if scope is None:
            return
        questions = scope.questions
        if self.status == "interrupted" and self.interrupts:
            questions.asked.append(((1, request.call_number, request.key or ""), tuple(self.interrupts)))
        if self.refused is not None:
            questions.refused = self.refused
        questions.going_on.discard(request)
        questions.stir()

    def outcome(self) -> BaseException | None:
        """What the run ends with besides its values: the exception to raise, or None. Asked once: the run lets go of it."""
        ended, self.failure = self.failure or self.bubble, None
        if ended is not None:
            return ended
        if self.status == "out_of_steps":
            error = self._out_of_steps()
            self.place(error)
            return error
        if self.status == "draining":
            return GraphDrained(self.request.control.drain_reason or "shutdown")
        if (
            self.status in ("interrupted", "interrupt_before", "interrupt_after")
            and self.request.parent_run is not None
        ):
            return GraphInterrupt(self.interrupts)
        return None

    def end(self, error: BaseException | None) -> bool:
        """After `close`: report how the run ended. `error`: what is to be raised, if that is not the run's own outcome.
        Is a failure on its way to the caller?"""
        if error is None:
            error = self.failure = self.outcome()  # so the caller, who asks next, gets this very one
        report.ends(self, error, view.result)
        if error is None or isinstance(error, GraphBubbleUp):
            return False
        self.status = "failed"
        return True

    @property
    def cut_at(self) -> float | None:
        """When the run ends wherever it is; never (`LimitedRun` says otherwise)."""
        return None

    def cut(self, now: float) -> None:
        """In the middle of a superstep, so late: raises if the run has to end; it has not."""

    def place(self, error: BaseException) -> None:
        """An error that no task raised leaves the run: say on it where it came up, and how to go on."""
        notes.of_run(self, error)

    def entry_version(self) -> int:
        """Counter of the version that the input left on what it was copied to; what nodes wrote is newer.

        A graph without a START node that continues in another process does not know it any more: then everything counts
        as written, as it does in LangGraph.
        """
        seen = self.seen.get(START)
        if seen and START in seen:
            return count_of(seen[START]) + 1
        return 0 if self.entered is None else count_of(self.entered)

    # ---- settling

    def _settled(self, task: Task) -> None:
        task.settled = True
        task.scope = None
        self.unsettled -= 1

    def _pause(self, task: Task, questions: tuple[Interrupt, ...], scope: TaskScope | None) -> None:
        """A node asks; or a nested run stopped at a breakpoint, and there is no question."""
        if scope is not None and scope.has_questions and scope.questions.refused is not None:
            # One of its nested runs was given an answer that does not fit: what is stored of the others stays as it is.
            self._refuse(task, scope.questions.refused)
            return
        task.interrupts = questions
        called = task.call_index >= 0
        if not questions:
            if report.REPORTS in self.sees:
                report.task_ends(self, task, "interrupted")
            if not called:
                self.waiting.append(task)
            return
        if not called:
            self.interrupts += questions
        if self.stores:
            if self.request.parent_run is None:
                self._take_back_answers()
            self._hold(task, INTERRUPT, list(questions))
            self._hold_answers(task)
        if called:
            if report.REPORTS in self.sees:
                report.task_ends(self, task, "interrupted")
            self._pass_on(task)
        else:
            view.paused(self, task)

    def _pass_on(self, child: Task) -> None:
        """A called task asks: so does the one that called it, also if it was left by another question already."""
        caller, parent = child.caller, child.parent
        if caller is None or parent is None:
            return
        caller.questions.asked.append(((2, child.call_index, ""), child.interrupts))
        if not parent.settled or not parent.interrupts:
            return
        known = {question.id for question in parent.interrupts}
        late = tuple(question for question in child.interrupts if question.id not in known)
        if late:
            earlier, parent.interrupts = parent.interrupts, late
            if parent.call_index < 0:
                self.interrupts += late
                view.paused(self, parent)
            parent.interrupts = earlier + late
            if self.stores:
                self._hold(parent, INTERRUPT, list(parent.interrupts))
            if parent.call_index >= 0:
                self._pass_on(parent)

    def _refuse(self, task: Task, error: BaseException) -> None:
        """An answer does not fit its question. Nothing of it stays stored; the question stays open as it was."""
        task.error = error
        if self.request.parent_run is None:
            self._take_back_answers()
        self._keep_answers(task)
        if self.sees:
            view.failed(self, task)
        if task.call_index < 0:
            self.refused = self.refused or error
            self.waiting.append(task)

    def _fail(self, task: Task, error: Exception) -> Effect | None:
        """No further try: hand the failure to the node's handler, or let it end the run."""
        task.error = error
        handler = entry.handler_of(self, task.node)
        if self.stores:
            self._hold(task, ERROR, error)
            self._keep_answers(task)
        if self.sees:
            view.failed(self, task)
        task.settled = True
        task.scope = None
        if handler is None:
            self.unsettled -= 1
            if task.call_index < 0:
                self.failure = self.failure or error
            return None
        task.handled = True
        if self.stores:
            self._hold(task, ERROR_SOURCE_NODE, task.name)
        follow_up = entry.handling(handler, task, error)
        self.tasks.append(follow_up)
        if self.sees:
            view.starts(self, [follow_up])
        return Start(follow_up)

    def _take_over_failures(self) -> None:
        """Failures that an earlier run handed to their handler: the handler is due, the node does not run again."""
        for task in [task for task in self.tasks if task.handled and task.writes is None]:
            handler = entry.handler_of(self, task.node)
            if handler is None:
                task.handled = False
                task.error = None
                continue
            task.settled = True
            follow_up = entry.handling(handler, task, StoredFailure.of(task.error))
            entry.reapply(self, [follow_up])
            self.tasks.append(follow_up)

    # ---- ends

    def _emit_values(self, tasks: Sequence[Task]) -> None:
        """Show the output values, if a task wrote an output key that changed (engine.md 3.6)."""
        if report.REPORTS in self.sees:
            report.step_ends(self, "done")
        keys = self.request.output_keys
        if isinstance(keys, str):
            keys = (keys,)
        for name in self.updated or ():
            if name in keys and any(channel == name for task in tasks for channel, _ in task.writes or ()):
                if "values" in self.sees or self.program.output_can_clear:
                    view.values(self)
                else:
                    self.emitted = LATER
                return

    def _out_of_steps(self) -> GraphRecursionError:
        """What the caller needs to go on, or to make do with what there is."""
        limit, ready, config = self.request.limit, self.ready, view.resuming(self)
        left = f"{len(ready)} tasks still ready ({', '.join(map(repr, ready[:5]))})" if ready else "no step to spare"
        goes_on = "" if config is None else "; what was done is stored, and invoke(None, error.config) goes on"
        error = GraphRecursionError(
            f"step limit {limit} reached with {left}; raise recursion_limit in the config, or check the condition that "
            f"ends the loop{goes_on}; error.values has the last values [{ErrorCode.GRAPH_RECURSION_LIMIT.value}]"
        )
        error.values, error.config, error.limit, error.ready = view.result(self), config, limit, tuple(ready)
        return error

    def _names(self) -> list[str]:
        return [task.name for task in self.tasks if not task.settled]

    def _misplaced(self, phase: Phase) -> NoReturn:
        raise EngineBug(f"the run at namespace {self.ns!r} is {self.phase!r} in step {self.step}, not {phase!r}")

    def _end(self, status: Status) -> None:
        self.status = status
        self.phase = "done"


def _is_used_up(task: Task) -> bool:
    """Did a handler take the task over? It has written nothing, but what it was woken by is spent all the same."""
    if task.handled:
        task.writes = []
    return task.handled


def count_of(version: Version) -> int:
    """The counting part of a version of any kind."""
    return int(version.partition(".")[0]) if isinstance(version, str) else int(version)


if TYPE_CHECKING:
    from pregel._scope import Host

    def _as_bodies_see_it(run: Run) -> Host:
        return run
