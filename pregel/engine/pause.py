"""Stopping to ask: questions, answers, and static breakpoints.

Decides which answer belongs to which question, and whether a breakpoint fires. An answer always travels by the id of its
question (D11): a bare value is given the id of the one pending question when the run is resumed, so it cannot reach
another one. Knows nothing of savers or drivers; what must be stored is handed to the run as held writes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

from checkpoint.base import TaskWrites
from pregel._scope import TaskScope
from pregel.constants import INTERRUPT, MISSING, NULL_TASK_ID, RESUME
from pregel.engine.state import Answers, RunState
from pregel.engine.task import Task, interrupt_id
from pregel.errors import GraphInterrupt, Interrupt

HEX = frozenset("0123456789abcdef")


def is_id_map(value: Any) -> bool:
    """Does a resume value name its questions? (A non-empty dict whose keys all look like interrupt ids.)"""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and len(key) == 32 and set(key) <= HEX for key in value)
    )


def ask(run: RunState, scope: TaskScope, value: Any, response_schema: Any) -> Any:
    """The answer to a task's next question.

    Raises:
        GraphInterrupt: there is none yet.
    """
    task: Task = scope.task
    question = scope.asked
    scope.asked += 1
    if task.answers is not None and question < len(task.answers):
        return task.answers[question]
    id_ = interrupt_id(run.ns_of(task), question)
    answers = run.answers
    if id_ in answers.by_id:
        # It stays: if a node around this one is tried again, the question may come up once more.
        answer = answers.by_id[id_]
    elif answers.loose:
        answer = answers.loose.pop()
        task.took_loose = True
    else:
        raise GraphInterrupt((Interrupt(value, id_, response_schema),))
    if task.answers is None:
        task.answers = []
    task.answers.append(answer)
    return answer


def pending(writes: Sequence[TaskWrites]) -> dict[str, tuple[Interrupt, ...]]:
    """Task id -> open questions: interrupts of tasks that have no output, but those whose answer is stored (their task
    failed, or did not come to its end, after it was answered)."""
    found: dict[str, tuple[Interrupt, ...]] = {}
    answered = stored_answers(writes).by_id
    done = set()
    for entry in writes:
        if entry.slot == 0:
            done.add(entry.task_id)
        else:
            for channel, value in entry.writes:
                if channel == INTERRUPT:
                    found[entry.task_id] = unanswered(value, answered)
    return {task_id: questions for task_id, questions in found.items() if task_id not in done}


def unanswered(questions: Iterable[Interrupt], answered: Container[str]) -> tuple[Interrupt, ...]:
    """Those of the questions that are still open."""
    return tuple(question for question in questions if question.id not in answered)


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
