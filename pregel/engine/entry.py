"""How a run begins: input, `None`, a `Command`, a resume, a replay; and what of the open step is already done.

Decides whether a call starts something new or continues, which answers reach which tasks, and what is stored before the
first node starts (engine.md 5.1, 5.4, 5.7, 7.4, 7.7). Knows nothing of drivers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from checkpoint.base import SCHEDULED, WRITES_IDX_MAP, StepCommit, TaskWrites
from pregel.constants import (
    END,
    ERROR,
    ERROR_SOURCE_NODE,
    INPUT,
    INTERRUPT,
    NO_WRITES,
    NULL_TASK_ID,
    RESUME,
    START,
    TASKS,
)
from pregel.engine import answer as fit
from pregel.engine import namespace, pause, plan, redeploy, snapshot, view
from pregel.engine.apply import apply_tasks, apply_writes
from pregel.engine.origin import is_edit, originate
from pregel.engine.program import Node, Program, Write
from pregel.engine.state import Answers, RunState
from pregel.engine.task import Task
from pregel.errors import (
    EmptyInputError,
    Interrupt,
    InvalidUpdateError,
    NodeError,
    StoredFailure,
    UnknownInterruptError,
    nearest,
    shown,
)
from pregel.types import Command, Send


def map_input(program: Program, value: Any) -> list[Write]:
    """The writes of a graph's input (engine.md 3.3). Keys that are no input channels are left out (D49).

    Raises:
        TypeError: a graph with several input channels got something that is not a dict.
    """
    channels = program.input_channels
    if value is None:
        return []
    if isinstance(channels, str):
        return [(channels, value)]
    if not isinstance(value, dict):
        raise TypeError(f"input must be a dict with some of the keys {list(channels)!r}, got {shown(value)}")
    return [(key, item) for key, item in value.items() if key in channels]


def map_command(command: Command[Any], program: Program, notice: Any) -> list[Write]:
    """The writes of a `Command` given as input, without its answers: goto first, then the update.

    Raises:
        InvalidUpdateError: it is for a parent graph, and there is none.
        TypeError: a goto is neither a name nor a Send.
    """
    if command.graph == Command.PARENT:
        raise InvalidUpdateError(
            "Command(graph=Command.PARENT) was given as input, but the graph that is invoked has no parent"
        )
    writes: list[Write] = []
    targets = command.goto if isinstance(command.goto, (list, tuple)) else [command.goto]
    for target in targets:
        if isinstance(target, Send):
            if target.node in program.nodes or target.node in program.current:
                writes.append((TASKS, target))
            else:
                notice("unknown-send", f"input:{target.node}", plan.unknown_target(program, target))
        elif isinstance(target, str):
            channel = f"branch:to:{program.current.get(target, target)}"
            if channel in program.channels:
                writes.append((channel, START))
            elif target != END:
                notice(
                    "unknown-goto",
                    f"input:{target}",
                    f"the Command given as input goes to {str(target)!r}, which is not a node of this graph, so nothing "
                    f"runs; {nearest(target, program.nodes)}",
                )
        else:
            raise TypeError(f"Command.goto takes node names and Send, got {shown(target)} ({type(target).__name__})")
    return writes + update_writes(command.update, program)


def update_writes(update: Any, program: Program) -> list[Write]:
    """The writes of `Command.update`: a dict, a list of (key, value) tuples, an annotated object, or a bare value."""
    if update is None or (isinstance(update, (list, tuple, dict)) and not update):
        return []
    if program.state_keys == ["__root__"]:
        return [("__root__", update)]
    if isinstance(update, dict):
        return list(update.items())
    if isinstance(update, (list, tuple)) and all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in update
    ):
        return list(update)
    hints = getattr(type(update), "__annotations__", None)
    if hints:
        return [(key, getattr(update, key)) for key in program.state_keys if hasattr(update, key)]
    return []


def null_writes(run: RunState) -> int:
    """Apply the stored writes that belong to no task; returns how many sets of them there are."""
    sets = [entry for entry in run.pending if pause.is_null(entry.task_id) and entry.slot == 0]
    if sets:
        apply_writes(run, [write for entry in sets for write in entry.writes], "Command")
    return len(sets)


def sign(run: RunState) -> None:
    """Leave with the next checkpoint which version of the graph makes it, and say what that version has lost."""
    if run.stores:
        run.sign()
    if run.taken_over is not None:
        for one in run.taken_over.memories:
            run.notice("lost-memory", f"{one.ns}:{one.name}", f"thread {one.thread_id!r}: {one}")


def begin(run: RunState, value: Any) -> list[StepCommit]:
    """Take the input, or continue. Returns the commits to store before any node starts.

    Raises:
        EmptyInputError: there is neither input nor anything to continue.
        GraphChangedError: what is to be continued needs nodes or keys that the graph has no more.
        RuntimeError: answers without a saver, or a bare answer to several pending questions.
    """
    sign(run)
    nulls = null_writes(run) if run.pending else 0
    command = value if isinstance(value, Command) else None
    if command is not None:
        _check(run, command)
    elif run.continues:
        value = None
        _find_edited(run)
    if continues(run, value):
        return _resume(run, command, nulls)
    if command is not None:
        return _present(_input(run, _first_command(run, command)))
    writes = map_input(run.program, value)
    if not writes:
        raise EmptyInputError(
            f"no input for {run.program.input_channels!r}: pass an input, or address a thread that has something to resume"
        )
    return _present(_input(run, writes))


def _find_edited(run: RunState) -> None:
    """The state of a nested run was edited while it waited: its question was asked under an id that it has no more."""
    answers = run.answers
    edited = run.loaded is not None and is_edit(run.loaded)
    if edited and answers.bare is not None and answers.bare in answers.by_id:
        answers.loose.append(answers.by_id.pop(answers.bare))


def _first_command(run: RunState, command: Command[Any]) -> list[Write]:
    """The input that a `Command` on an empty thread is: what it writes is applied before."""
    check_change(run)
    _answers(run, command)
    given = map_command(command, run.program, run.notice)
    if given:
        apply_writes(run, given, "Command")
    run.answers.loose.clear()  # nothing was asked on an empty thread
    return _blank_input(run)


def _resume(run: RunState, command: Command[Any] | None, nulls: int) -> list[StepCommit]:
    """Go on from what is stored; `nulls`: sets of writes that belong to no task, stored by resumes before this one."""
    check_change(run)
    rows: list[TaskWrites] = []
    if command is not None:
        rows = _given(run, command, nulls)
    elif not run.replaying and run.request.parent_run is None:
        run.answers = pause.stored_answers(run.pending)
    if run.pending and not run.replaying:
        pause.adopt(run, now=run.request.clock())
    if pause.BREAKPOINTS in run.facts_changed and not run.replaying:
        # The run may come to its end without a checkpoint that says so.
        rows.append(_null_row(run, WRITES_IDX_MAP[INTERRUPT], [(INTERRUPT, run.facts[pause.BREAKPOINTS])]))
    run.resumed = True
    if run.moved_past:
        originate(run)
    commits: list[StepCommit | None] = []
    if rows and run.stores:
        if run.request.deferred:
            run.held += rows
        else:
            commits.append(snapshot.rows(run, rows))
    if run.replaying and not _stands_alone(run):
        commits.append(_fork(run))
    elif run.replaying:
        run.sub_open = {}  # the tasks that these nested runs were of run again
    _pass_breakpoint(run)
    view.resumed(run)
    return [commit for commit in commits if commit is not None]


def _given(run: RunState, command: Command[Any], nulls: int) -> list[TaskWrites]:
    """What a `Command` gives to an open step: rows of its answers, and of the writes that are applied here."""
    rows = _answers(run, command)
    given = map_command(command, run.program, run.notice)
    if given:
        apply_writes(run, given, "Command")
        rows.append(_null_row(run, 0, given, nulls))
    return rows


def _pass_breakpoint(run: RunState) -> None:
    """The run goes on from the breakpoint that it stopped at; the repeated call of a root run stops there once more."""
    called = run.root.request.called
    if called is None or not called.stops_in(run):
        run.seen[INTERRUPT] = run.seen_changed[INTERRUPT] = dict(run.versions)
    elif called.stands_after(run):
        run.status, run.phase = "interrupt_after", "done"


def _reconnects(run: RunState) -> bool:
    """Is it the run that the newest checkpoint was stored by, told by the metadata of the config? Its input is ignored
    then, as LangGraph does (engine.md 5.7)."""
    run_id = run.request.stored_metadata.get("run_id")
    return run_id is not None and run.loaded is not None and run.loaded.metadata.get("run_id") == str(run_id)


def continues(run: RunState, value: Any) -> bool:
    """Does a run with this input go on from what is stored?"""
    if not run.versions:
        return False
    return value is None or isinstance(value, Command) or (run.request.parent_run is None and _reconnects(run))


def check_change(run: RunState) -> None:
    """The run continues what another version of the graph has left.

    Raises:
        GraphChangedError: this one cannot run it.
    """
    taken_over = run.taken_over
    if taken_over is None:
        return
    redeploy.refuse(redeploy.in_the_way(taken_over.missing, results=not run.replaying and not run.moved_past))
    for key in taken_over.unseen if plan.open_tasks(run) else ():
        # A key that nothing new could be the successor of was taken out on purpose (D42); its value stays stored.
        for new in redeploy.successors(run.program, run.channels.stored, run.versions, key)[:1]:
            run.notice(
                "undeclared-key",
                key,
                f"thread {run.request.thread_id!r} has a value of {key!r}, which this version of the graph does not "
                f"declare: no node sees it, and it stays stored; if it was renamed, perhaps to {new!r}: "
                f"compile(renamed_keys={{{key!r}: {new!r}}}), if it is not needed any more: "
                f"compile(renamed_keys={{{key!r}: None}})",
            )


def _check(run: RunState, command: Command[Any]) -> None:
    if command.resume is not None and not run.stores:
        raise RuntimeError(
            "Command(resume=...) needs a saver: without one nothing is paused; compile the graph with a checkpointer"
        )
    empty_update = command.update is None or (isinstance(command.update, (list, tuple, dict)) and not command.update)
    if command.resume is None and empty_update and not command.goto and command.graph is None:
        raise EmptyInputError("the Command given as input is empty: set resume, update or goto")


def _blank_input(run: RunState) -> list[Write]:
    """What a `Command` on a fresh thread gives to START, so that its edges run once."""
    return [(START, {})] if run.program.input_channels == START else []


def _input(run: RunState, writes: Sequence[Write]) -> StepCommit | None:
    """Drop what is still pending on the loaded checkpoint, apply the input, number the input checkpoint."""
    if run.checkpoint_id_ is not None:
        dropped = plan.open_tasks(run)
        for task in dropped:
            task.writes = []
        if dropped:
            # Deferred nodes that wait go on waiting: the input is something else to do.
            apply_tasks(run, dropped, releases=False)
        run.updated = None
        dropped_by_change(run, "the new input")
    run.drop_open_step()
    if writes:
        apply_writes(run, writes, INPUT)
        run.entered = run.version
    run.seen.setdefault(INPUT, {})
    run.seen_changed[INPUT] = run.seen[INPUT]
    if run.stores and run.request.parent_run is None:
        originate(run)
    commit = snapshot.checkpoint(run, "input")
    run.step_over()
    run.step += 1
    return commit


def dropped_by_change(run: RunState, what: str) -> None:
    """Say what of a step that is dropped this graph could not have run, since nobody sees it in the state."""
    missing = run.taken_over.missing if run.taken_over is not None else ()
    for one in missing:
        run.notice(
            "dropped-work",
            f"{one.kind}:{one.name}",
            f"{what} drops pending work of thread {one.thread_id!r} that this version of the graph could not run: {one}",
        )


def _fork(run: RunState) -> StepCommit | None:
    """The checkpoint that a replay starts from: a copy of the addressed one, on a branch of its own."""
    originate(run)
    run.drop_open_step()
    commit = snapshot.checkpoint(run, "fork")
    run.step_over()
    run.step += 1
    return commit


def _stands_alone(run: RunState) -> bool:
    """Is the replayed checkpoint the beginning of a branch already, on which nothing has been done?

    Not if a nested checkpoint was addressed with it: the branch must say which, for the case that it is stopped before it
    comes there. Nor if it is nested and another superstep around it was open when it was made: what is done now would not
    be found again under the one that is open now. (Transplanted runs have nothing that task writes could belong to.)
    """
    loaded, around = run.loaded, run.request.parent_run
    if loaded is None or not loaded.is_head or run.source not in ("update", "fork") or run.request.seeds:
        return False
    return around is None or loaded.parents.get(around.ns) == around.checkpoint_id


def _present(commit: StepCommit | None) -> list[StepCommit]:
    return [] if commit is None else [commit]


def _null_row(run: RunState, slot: int, writes: Sequence[Write], count: int = 0) -> TaskWrites:
    id_ = NULL_TASK_ID if not count else f"{NULL_TASK_ID[:32]}{count:04x}"
    return TaskWrites(run.rev, run.checkpoint_id, id_, "", slot, list(writes))


def _answers(run: RunState, command: Command[Any]) -> list[TaskWrites]:
    """Give each answer of a resume to its question; returns the rows that make it durable.

    Raises:
        RuntimeError: one bare answer, several pending questions.
        UnknownInterruptError: strict, and an answer belongs to no question; or its question's default has taken over.
        InvalidAnswerError: an answer does not fit the JSON schema of its question.
    """
    value = command.resume
    earlier = run.answers = pause.stored_answers(run.pending)
    if value is None:
        return []
    questions = pause.open_questions(run.pending)
    by_name = pause.is_id_map(value)
    shown_ = pause.shown_questions(run.pending) if len(questions) > 1 and not by_name else questions
    if not questions:
        _answers_nothing(run, value, by_name=by_name)
    if by_name:
        by_id, bare = dict(value), None
        unknown = [id_ for id_ in value if id_ not in questions and id_ not in earlier.by_id]
        if questions and unknown:
            _no_such_question(run, unknown, questions)
    elif isinstance(value, dict) and not value:
        if questions and run.request.strict:
            raise _unanswered("it is an empty map", questions, reason="empty_map")
        return []
    elif len(shown_) > 1:
        raise _ambiguous(run, shown_)
    elif questions:
        (bare,) = shown_
        by_id = {bare: value}
    else:
        run.answers = Answers(loose=value)
        if run.versions and run.stores:
            return [_null_row(run, -4, [(RESUME, value)])]
        return []
    _check_answers(run, by_id, questions)
    # An answer that was stored and not asked for yet stays with the new ones: the row is replaced as a whole.
    run.answers = Answers({**earlier.by_id, **by_id}, bare=bare)
    run.answers.anew = by_id
    # What only the node can check is stored, too, so that it need not be given twice; it is taken back if it does not fit.
    return [_null_row(run, -4, [(RESUME, dict(run.answers.by_id))])]


def _check_answers(run: RunState, by_id: dict[str, Any], questions: dict[str, Interrupt]) -> None:
    """Refuse answers that come too late, or do not fit the JSON schema of their question.

    Raises:
        UnknownInterruptError: the question's default has taken over.
        InvalidAnswerError: a JSON schema says no.
    """
    now = run.request.clock()
    for id_, answer in by_id.items():
        question = questions.get(id_)
        if question is None:
            continue
        if question.has_expired(now):
            raise UnknownInterruptError(
                f"Command(resume=...) answers interrupt {id_!r} ({shown(question.value)}) too late: since "
                f"{question.expires} its default {shown(question.default)} is the answer; nothing was stored; go on with "
                f"invoke(None)",
                reason="expired",
                interrupt_ids=[id_],
                pending_ids=list(questions),
            )
        if question.checked and question.response_schema is not None:
            wrong = fit.problem(question.response_schema, answer)
            if wrong is not None:
                raise pause.refusal(id_, namespace.around(question.task_ns)[1], wrong)


def _listed(questions: dict[str, Interrupt]) -> str:
    return ", ".join(f"{id_} ({shown(question.value, 60)})" for id_, question in questions.items()) or "none"


def _unanswered(why: str, questions: dict[str, Interrupt], *, reason: str, ids: Sequence[str] = ()) -> Exception:
    """Strict: a resume that answers nothing, or does not say what."""
    return UnknownInterruptError(
        f"Command(resume=...) answers nothing: {why}; pending are: {_listed(questions)}; nothing was stored",
        reason=reason,
        interrupt_ids=ids,
        pending_ids=list(questions),
    )


def _answers_nothing(run: RunState, value: Any, *, by_name: bool) -> None:
    """No question is pending. On a breakpoint any answer means "go on" (D49); elsewhere it is probably a mistake."""
    if plan.open_tasks(run):
        return
    state = "has finished" if run.versions else "is empty"
    why = f"thread {run.request.thread_id!r} {state}, so no interrupt and no breakpoint is pending"
    if run.request.strict:
        raise _unanswered(why, {}, reason="not_pending", ids=list(value) if by_name else ())
    run.notice(
        "unasked-resume",
        "resume",
        f"Command(resume=...) answers nothing: {why}; check the thread_id, or pass an input",
    )


def _no_such_question(run: RunState, unknown: Sequence[str], questions: dict[str, Interrupt]) -> None:
    why = f"interrupt {', '.join(map(repr, unknown))} is not pending"
    if run.request.strict:
        raise _unanswered(why, questions, reason="not_pending", ids=unknown)
    run.notice(
        "unknown-interrupt",
        "resume",
        f"Command(resume=...) has an answer that nobody waits for: {why}; pending are: {_listed(questions)}",
    )


def _ambiguous(run: RunState, questions: dict[str, Interrupt]) -> Exception:
    text = (
        f"{len(questions)} interrupts are pending: {_listed(questions)}; say which one the answer is for: "
        f"Command(resume={{interrupt_id: value}})"
    )
    if run.request.strict:
        return UnknownInterruptError(text, reason="ambiguous", pending_ids=list(questions))
    return RuntimeError(text)


def reapply(run: RunState, tasks: Sequence[Task], by_task: Mapping[str, Sequence[TaskWrites]] | None = None) -> None:
    """Settle the tasks of an open step whose outcome is stored already; mark those that must wait (D43).

    A task with output does not run again. A failed one that was handed to its handler leaves the handler to run. On a
    resume that answers something, a task whose question stays open is not started. `by_task`: what is stored, by task id.
    """
    by_task = _by_task(run.pending) if by_task is None else by_task
    loose = len(run.answers.loose)  # the root knew of no question, say because a sibling of the asking task failed
    for task in list(tasks):
        entries = by_task.get(run.id_of(task))
        if not entries or run.replaying:
            continue
        restore_task(task, entries)
        if task.writes is not None:
            if run.moved_past:
                task.writes = None
                continue
            task.settled = True
            task.reapplied = True
        elif task.interrupts and not task.handled and run.answers.given and not _answered(run, task):
            if loose:
                loose -= 1
                continue
            task.settled = True
            if task.call_index < 0:  # else its caller asks for it
                run.waiting.append(task)
                run.interrupts += task.interrupts


def _by_task(stored: Sequence[TaskWrites]) -> dict[str, list[TaskWrites]]:
    by_task: dict[str, list[TaskWrites]] = {}
    for entry in stored:
        by_task.setdefault(entry.task_id, []).append(entry)
    return by_task


def restore_task(task: Task, entries: Sequence[TaskWrites]) -> None:
    """Set what is stored of a task: its writes, its open questions, its answers, its error.

    That an error handler takes over from it is read back in one of three forms: in a slot of its own, in the one of
    earlier versions, or, from a saver that knows no slot for it, like the writes of a finished task.
    """
    for entry in entries:
        for channel, value in entry.writes:
            if channel == INTERRUPT:
                task.interrupts = tuple(value)
            elif channel == RESUME:
                pause.restore_answers(task, value)
            elif channel == ERROR:
                task.error = value
            elif channel in (SCHEDULED, ERROR_SOURCE_NODE):
                task.handled = True
        if entry.slot == 0 and not any(channel == ERROR_SOURCE_NODE for channel, _ in entry.writes):
            task.writes = [(c, v) for c, v in entry.writes if c != NO_WRITES]


def restore(run: RunState, tasks: Sequence[Task], stored: Sequence[TaskWrites]) -> None:
    """Set what is stored of the tasks of an open step. A failed one that was handed to its handler shows what the handler
    has come to: its writes, or its questions."""
    by_task = _by_task(stored)
    for task in tasks:
        restore_task(task, by_task.get(run.id_of(task), ()))
        handler = handler_of(run, task.node) if task.handled else None
        if handler is not None:
            follow_up = handling(handler, task, StoredFailure.of(task.error))
            restore_task(follow_up, by_task.get(run.id_of(follow_up), ()))
            task.interrupts = follow_up.interrupts
            if task.writes is None:
                task.writes = follow_up.writes


def handler_of(run: RunState, node: Node) -> Node | None:
    """The node that takes over when this one has failed for good."""
    if node.error_handler is None or node.is_error_handler:
        return None
    return run.program.nodes[node.error_handler]


def handling(handler: Node, failed: Task, error: BaseException) -> Task:
    """The task that handles a failure, with the failed task's input."""
    task = Task(handler, failed.input)
    task.parent = failed
    task.error_of = NodeError(failed.name, error)
    return task


def _answered(run: RunState, task: Task) -> bool:
    return any(question.id in run.answers.by_id for question in task.interrupts)
