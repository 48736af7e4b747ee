"""Stopping to ask: questions, answers, and static breakpoints.

Decides which answer belongs to which question, and whether a breakpoint fires. An answer always travels by the id of its
question (D11): a bare value is given the id of the one pending question when the run is resumed, so it cannot reach
another one. Knows nothing of savers or drivers; what must be stored is handed to the run as held writes.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from checkpoint.base import TaskWrites
from pregel._scope import TaskScope
from pregel.constants import INTERRUPT, MISSING, NULL_TASK_ID, PUSH, RESUME
from pregel.engine import answer as fit
from pregel.engine.state import Answers, RunState
from pregel.engine.task import Task, interrupt_id
from pregel.errors import GraphInterrupt, Interrupt, InvalidAnswerError, shown
from pregel.types import Deadline

HEX = frozenset("0123456789abcdef")
BREAKPOINTS = "breakpoints"
"""Name of the fact that says where a thread stops."""
HOLES = "__holes__"
"""Key of the stored form of answers of which some are missing; without holes they are a list, as in LangGraph."""
_asking = allocate_lock()
"""Held while a question of a body gets its number: a body may ask from several threads."""


def is_id_map(value: Any) -> bool:
    """Does a resume value name its questions? (A non-empty dict whose keys all look like interrupt ids.)"""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and len(key) == 32 and set(key) <= HEX for key in value)
    )


def ask(
    run: RunState, scope: TaskScope, value: Any, response_schema: Any = None, deadline: Deadline | None = None
) -> Any:
    """The answer to a task's next question. `response_schema`: a JSON schema, or an object with `schema` and `fitted`.

    Raises:
        GraphInterrupt: there is none yet.
        ValueError: there is one, and it does not fit; or the schema or the default cannot be used.
    """
    task: Task = scope.task
    with _asking:
        number = scope.asked
        scope.asked += 1
    stored = task.answers[number] if task.answers is not None and number < len(task.answers) else MISSING
    if stored is not MISSING and not _is_given_anew(run, task, number):
        if response_schema is None:
            return stored
        try:
            return _fitted(run, task, "", response_schema, stored)
        except ValueError:
            stored = MISSING  # the schema has changed since it was given: it is asked again
    id_ = interrupt_id(run.ns_of(task), number)
    answers = run.answers
    answer = answers.by_id.get(id_, MISSING)
    if answer is not MISSING and id_ not in answers.anew and not _fits(response_schema, answer):
        # It was given to an earlier run that came to its end before the question could look at it.
        answers.by_id.pop(id_, None)
        answers.unfit, answer = True, MISSING
    if answer is not MISSING:
        # It stays: if a node around this one is tried again, the question may come up once more.
        if answers.bare == id_:
            answers.bare = None  # it has found its question
    elif answers.loose:
        answer = answers.loose.pop()
        task.took_loose = True
    else:
        question = _question(run, task, id_, value, response_schema, deadline)
        answers.open[id_] = question
        scope.questions.asked.append(((0, number, ""), (question,)))
        raise GraphInterrupt((question,))
    try:
        fitted = answer if response_schema is None else _fitted(run, task, id_, response_schema, answer)
    except ValueError:
        if answers.by_id.pop(id_, MISSING) is not MISSING:
            answers.unfit = True
        raise
    with _asking:
        known = task.answers = task.answers or []
        known += [MISSING] * (number + 1 - len(known))
        known[number] = answer
    answers.taken.add(id_)
    return fitted


def _fits(response_schema: Any, answer: Any) -> bool:
    """Is an answer what a question wants?"""
    try:
        if isinstance(response_schema, dict):
            return fit.problem(response_schema, answer) is None
        if response_schema is not None:
            response_schema.fitted(answer)
    except ValueError:
        return False
    return True


def _is_given_anew(run: RunState, task: Task, number: int) -> bool:
    """Does this resume bring another answer to a question whose task has failed since it was answered?"""
    if number not in getattr(task, "provisional", ()):
        return False
    return bool(run.answers.loose) or interrupt_id(run.ns_of(task), number) in run.answers.anew


def _question(
    run: RunState, task: Task, id_: str, value: Any, response_schema: Any, deadline: Deadline | None
) -> Interrupt:
    """A question without an answer. If it was asked before, it came up then, and ends when it was to end then."""
    schema = response_schema
    if isinstance(schema, dict):
        fit.check_schema(schema)
    elif schema is not None:
        schema = response_schema.schema
    earlier = run.answers.open.get(id_)
    now = run.request.clock()
    asked_at = earlier.asked_at if earlier is not None else None
    question = Interrupt(value, id_, schema, asked_at=asked_at or datetime.fromtimestamp(now, UTC))
    question.checked = schema is not None and schema is response_schema
    question.task_ns = run.ns_of(task)
    if deadline is not None:
        question.expires = (earlier.expires if earlier is not None else None) or deadline.from_(now)
        question.default = deadline.default
        if schema is not None and deadline.default is not MISSING:
            _check_default(task, response_schema, deadline.default)
    return question


def _check_default(task: Task, response_schema: Any, default: Any) -> None:
    try:
        wrong = (
            fit.problem(response_schema, default)
            if isinstance(response_schema, dict)
            else response_schema.fitted(default) and None
        )
    except ValueError as error:
        wrong = str(error)
    if wrong is not None:
        raise ValueError(
            f"node {task.name!r}: the default of its question, {shown(default)}, does not fit its own response_schema: "
            f"{wrong}"
        )


def _fitted(run: RunState, task: Task, id_: str, response_schema: Any, answer: Any) -> Any:
    """The answer as the question wants it."""
    if isinstance(response_schema, dict):
        wrong = fit.problem(response_schema, answer)
        if wrong is not None:
            raise refusal(id_, task.name, wrong)
        return answer
    try:
        return response_schema.fitted(answer)
    except ValueError as error:
        error.interrupt_id = id_  # type: ignore[attr-defined]
        error.add_note(
            f"The answer {shown(answer)} to question {id_!r} of node {task.name!r} is not what it takes; nothing of it was "
            f"stored: answer it again"
        )
        raise


def refusal(id_: str, node: str, problem: str) -> InvalidAnswerError:
    """What a call is told whose answer does not fit a JSON schema."""
    return InvalidAnswerError(
        f"node {node!r}: the answer to its question {id_!r} does not fit its response_schema: {problem}; nothing was "
        f"stored: answer it again",
        interrupt_id=id_,
        node=node,
        problem=problem,
    )


def all_asked(scope: TaskScope | None, error: GraphInterrupt) -> tuple[Interrupt, ...]:
    """What a body asks that was left by one question: also what its threads and nested runs ask."""
    if scope is None or not scope.has_questions:
        return error.interrupts
    return scope.questions.in_order(error.interrupts)


def adopt(run: RunState, *, now: float) -> None:
    """Take over the questions that are open in what was loaded. One that has expired is answered with its default (D43)."""
    answers = run.answers
    for questions in pending(run.pending).values():
        for question in questions:
            if answers.open.setdefault(question.id, question) is question and question.has_expired(now):
                answers.by_id.setdefault(question.id, question.default)


def left_open(run: RunState, task: Task) -> list[Interrupt] | None:
    """What is open of a task that has not finished, if that is not what is stored: some was answered in this run."""
    stored = pending(run.pending).get(run.id_of(task), ())
    left = [question for question in stored if question.id not in run.answers.taken]
    return None if len(left) == len(stored) else left


def provisional(run: RunState, task: Task) -> list[int]:
    """Numbers of the answers that a task which has not finished got in this run, or kept from one that ended like that."""
    numbers = range(len(task.answers or ()))
    ns, before = run.ns_of(task), getattr(task, "provisional", ())
    return [number for number in numbers if number in before or interrupt_id(ns, number) in run.answers.taken]


def answers_plain(answers: Sequence[Any], provisional: Sequence[int] = ()) -> Any:
    """The stored form of a task's answers."""
    holes = [number for number, answer in enumerate(answers) if answer is MISSING]
    given = [None if answer is MISSING else answer for answer in answers]
    return {HOLES: holes, "answers": given, "provisional": list(provisional)} if holes or provisional else given


def restore_answers(task: Task, plain: Any) -> None:
    """Set what `answers_plain` was given."""
    if isinstance(plain, dict):
        task.answers = [MISSING if number in plain[HOLES] else a for number, a in enumerate(plain["answers"])]
        task.provisional = plain["provisional"]
    else:
        task.answers = None if plain is None else list(plain)


def pending(writes: Sequence[TaskWrites]) -> dict[str, tuple[Interrupt, ...]]:
    """Task id -> open questions: interrupts of tasks that have no output, but those whose answer is stored (their task
    failed, or did not come to its end, after it was answered)."""
    found: dict[str, tuple[Interrupt, ...]] = {}
    answered = stored_answers(writes).by_id
    done = set()
    for entry in writes:
        if entry.slot == 0:
            done.add(entry.task_id)
        elif not is_null(entry.task_id):
            for channel, value in entry.writes:
                if channel == INTERRUPT:
                    found[entry.task_id] = unanswered(value, answered)
    return {task_id: questions for task_id, questions in found.items() if task_id not in done}


def unanswered(questions: Iterable[Interrupt], answered: Container[str]) -> tuple[Interrupt, ...]:
    """Those of the questions that are still open."""
    return tuple(question for question in questions if question.id not in answered)


def open_questions(writes: Sequence[TaskWrites]) -> dict[str, Interrupt]:
    """Interrupt id -> question, of all that are open."""
    return {question.id: question for asked in pending(writes).values() for question in asked}


def shown_questions(writes: Sequence[TaskWrites]) -> dict[str, Interrupt]:
    """Those of the open questions that the caller was shown: what called tasks ask, their callers ask as well. One that a
    body did not come to when it ran again is open, and nobody sees it. All of them if nobody was shown any."""
    called = {row.task_id for row in writes if row.path.startswith(f"~{PUSH}, ~")}
    found = {q.id: q for id_, asked in pending(writes).items() if id_ not in called for q in asked}
    return found or open_questions(writes)


def is_null(task_id: str) -> bool:
    """Is it the id of writes that belong to no task? (The last group counts several sets of them.)"""
    return task_id[:32] == NULL_TASK_ID[:32]


def stored_answers(writes: Iterable[TaskWrites]) -> Answers:
    """Answers that an earlier run stored for questions of nested runs, or before a question came up."""
    by_id: dict[str, Any] = {}
    loose: Any = MISSING
    for entry in writes:
        if is_null(entry.task_id):
            for channel, value in entry.writes:
                if channel == RESUME and is_id_map(value):
                    by_id.update(value)
                elif channel == RESUME and value is not None:
                    loose = value
    answers = Answers(by_id, loose)
    answers.given = False
    return answers


def kept_breakpoints(run: RunState) -> dict[str, Any]:
    """Where the thread stops by itself: as its newest checkpoint says, or as was said since. An older checkpoint, after
    which the thread went on, says what held there."""
    kept = run.facts.get(BREAKPOINTS)
    is_newest = run.loaded is None or run.loaded.is_head
    for entry in run.pending if is_newest else ():
        if is_null(entry.task_id):
            for channel, value in entry.writes:
                if channel == INTERRUPT:
                    kept = value
    return kept or {}


def breakpoint_hit(run: RunState, nodes: str | Sequence[str], tasks: Sequence[Task]) -> bool:
    """Does a static breakpoint stop before (or after) these tasks?

    Only when something is new since the last stop: some channel has a version that `__interrupt__` has not seen.
    """
    seen = run.seen.get(INTERRUPT)
    if seen and not any(
        name not in seen or version > seen[name]  # type: ignore[operator]
        for name, version in run.versions.items()
    ):
        return False
    if isinstance(nodes, str):
        return any(not task.node.hidden for task in tasks) if nodes == "*" else any(t.name == nodes for t in tasks)
    if "*" in nodes:
        return any(not task.node.hidden for task in tasks)
    return any(task.name in nodes for task in tasks)
