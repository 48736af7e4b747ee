"""Reports: what those who observe a run are told, in the order in which it happened.

One function per fact, like `view`, for a run whose `sees` has the mode `reports`; each adds a `Report` to what the run has
to say (`RunState.notices`), and the driver hands it on where user code may be called and awaited. Decides what begins and
ends: everything that was reported to begin is reported to end exactly once, tasks before their superstep, the superstep
before the run. Knows no handler; the events that those are given are built by `pregel.callbacks`, which is loaded only
where somebody observes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from pregel.engine import namespace
from pregel.engine.state import RunState
from pregel.engine.task import Task
from pregel.errors import GraphBubbleUp, GraphDrained

REPORTS: Final = "reports"
"""The mode of `RunState.sees` that asks for reports. No stream can ask for it."""
STATUSES: Final = {"interrupted": "interrupted", "draining": "drained", "failed": "failed", "pending": "failed"}
"""Status of a run -> of the event that it ended, where they differ."""
STOPPED: Final = {
    "interrupted": "pending",
    "interrupt_before": "interrupt_before",
    "interrupt_after": "interrupt_after",
}
"""Status of a run that asks or stops -> what LangGraph calls it."""


class Report(NamedTuple):
    """One thing that happened: the handler's method that hears of it, when (Unix seconds), and the event's fields."""

    kind: str
    at: float
    facts: dict[str, Any]


def tell(run: RunState, kind: str, **facts: Any) -> None:
    """Add a report."""
    facts["checkpoint_ns"] = namespace.path_of(run.ns)
    run.notices.append(Report(kind, run.request.clock(), facts))


def begins(run: RunState, value: Any) -> None:
    """The run takes its input."""
    tell(run, "on_run_start", input=value)


def resumes(run: RunState) -> None:
    """It goes on from a stored state."""
    if run.resumed and run.loaded is not None:
        tell(run, "on_resume", status="pending", checkpoint_id=run.loaded.checkpoint_id)


def checkpoint(run: RunState) -> None:
    """A superstep was planned, from a checkpoint that this run may have made."""
    if run.loaded is not None and run.loaded.checkpoint_id == run.checkpoint_id:
        return
    tell(
        run,
        "on_checkpoint",
        checkpoint_id=run.checkpoint_id,
        parent_checkpoint_id=run.parent_id,
        step=run.made_step,
        source=run.source,
        next=tuple(task.name for task in run.tasks if task.parent is None),
        durability=run.request.durability,
    )


def starts(run: RunState, tasks: Iterable[Task]) -> None:
    """Tasks are about to run; the first ones of a superstep begin it."""
    observer = run.request.observer
    tasks = [task for task in tasks if not task.settled and not task.node.hidden]
    if not tasks:
        return
    if observer.step is None:
        observer.step = run.step
        tell(run, "on_superstep_start", step=run.step, tasks=tuple(task.name for task in tasks))
    for task in tasks:
        observer.tasks[task] = facts = {
            "checkpoint_ns": namespace.path_of(run.ns),
            "step": run.step,
            "task_id": run.id_of(task),
            "name": task.name,
            "parent_task_id": None if task.parent is None else run.id_of(task.parent),
            "attempt": task.attempt,
            "input": task.input,
            "triggers": task.triggers,
            "tags": tuple(task.node.tags or ()),
            "metadata": dict(task.node.metadata or {}),
            "trace_policy": task.node.spec.trace_policy,
        }
        tell(run, "on_task_start", **facts)
        if observer.enters:
            task.node = observer.entered(task.node)


def retries(run: RunState, task: Task, error: BaseException, wait: float) -> None:
    """An attempt has failed, and another one follows after `wait` seconds."""
    facts = run.request.observer.tasks.get(task)
    if facts is not None:
        tell(run, "on_task_retry", **facts, error=error, retry_after=wait)
        facts.update(attempt=task.attempt, input=task.input)


def task_ends(
    run: RunState, task: Task, status: str, *, output: Any = None, error: BaseException | None = None
) -> None:
    """A task has ended; nothing if that was told, or its start was not."""
    facts = run.request.observer.tasks.pop(task, None)
    if facts is None:
        return
    facts = {**facts, "status": status}
    if error is not None:
        tell(run, "on_task_error", **facts, error=error)
    elif status == "interrupted":
        tell(run, "on_task_end", **facts, interrupts=task.interrupts)
    else:
        tell(run, "on_task_end", **facts, output=output)


def step_ends(run: RunState, status: str) -> None:
    """The superstep is over. Tasks that have not ended by now finished unseen, or nobody waits for them any more."""
    observer = run.request.observer
    for task in list(observer.tasks):
        task_ends(run, task, "abandoned" if task.writes is None else "done")
    if observer.step is not None:
        tell(run, "on_superstep_end", step=observer.step, status=status)
        observer.step = None


def ends(run: RunState, error: BaseException | None, result: Callable[[RunState], Any]) -> None:
    """The run is over, with its result, or this error if it is to be raised; all that is stored of it is stored. Told
    once: what a handler raises then ends the run again."""
    observer = run.request.observer
    if observer.is_over:
        return
    observer.is_over = True
    if isinstance(error, GraphDrained):
        status = "drained"
    elif isinstance(error, GeneratorExit):
        status = "abandoned"  # the reader has left the stream
    elif error is None or isinstance(error, GraphBubbleUp):
        status = STATUSES.get(run.status, run.status)
        status = "done" if status == "failed" else status  # it was left by a command for the graph around it
    else:
        step_ends(run, "failed")
        tell(run, "on_run_error", status="failed", error=error)
        return
    step_ends(run, status)
    if run.request.parent_run is None and run.status in STOPPED:
        tell(
            run,
            "on_interrupt",
            status=STOPPED[run.status],
            checkpoint_id=run.checkpoint_id,
            interrupts=tuple(run.interrupts),
        )
    tell(run, "on_run_end", status=status, output=result(run), interrupts=tuple(run.interrupts))
