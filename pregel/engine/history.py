"""`StateSnapshot`s: what a stored checkpoint looks like to users (engine.md 7.5).

Decides the values, the next tasks and their outcomes that a snapshot shows. Pure: it is given what was loaded. Runs no
user code but reducers: inputs of nodes are not built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from checkpoint.base import LoadedCheckpoint, RunnableConfig, TaskWrites
from pregel.engine import entry, pause, plan, redeploy, view
from pregel.engine.program import Program
from pregel.engine.state import Request, RunState
from pregel.engine.task import Task, order
from pregel.types import PregelTask, StateSnapshot


def opened(program: Program, request: Request, loaded: LoadedCheckpoint) -> tuple[RunState, list[Task]]:
    """A run as it would continue from a checkpoint, and the tasks of its open step with what is stored of them."""
    run = RunState(program, request, loaded)
    return run, open_tasks(run, loaded.writes)


def open_tasks(run: RunState, writes: Sequence[TaskWrites]) -> list[Task]:
    """The tasks of the step that a loaded checkpoint opens, with what is stored of them."""
    entry.null_writes(run)
    tasks = plan.open_tasks(run)
    if run.taken_over is not None:
        # A thread that cannot go on must not look as if it had finished.
        tasks = [*redeploy.gone_tasks(run.channels, run.taken_over, run.program), *tasks]
        tasks.sort(key=lambda task: (task.index < 0, task.index))
    entry.restore(run, tasks, writes)
    return tasks


def describe(
    run: RunState,
    tasks: Sequence[Task],
    *,
    config: RunnableConfig,
    latest: bool,
    states: Sequence[RunnableConfig | StateSnapshot | None],
    more: Sequence[Sequence[StateSnapshot]] | None = None,
) -> StateSnapshot:
    """The snapshot of an opened checkpoint.

    `latest`: the newest was asked for without naming it; then finished tasks of the open step count as applied, unless
    the channels refuse their writes. `states`: per task, where its nested graph keeps its state, or that state. `more`:
    per task, the states of all its nested runs, if it has several.
    """
    loaded = run.loaded
    assert loaded is not None
    assert loaded.checkpoint_id is not None
    finished = [task for task in tasks if task.writes is not None]
    writes = [write for task in sorted(finished, key=order) for write in task.writes or ()] if latest else []
    try:
        values = view.state_values(run, writes)
    except Exception:
        if not writes:
            raise
        # The step could not be closed with these writes, and cannot be shown closed: it is shown as it began.
        latest = False
        values = view.state_values(run)
    answered = pause.stored_answers(loaded.writes).by_id
    shown = tuple(
        PregelTask(
            run.id_of(task),
            task.name,
            task.path,
            task.error,  # type: ignore[arg-type]
            task.interrupts
            if not latest
            else ()
            if task.writes is not None
            else pause.unanswered(task.interrupts, answered),
            state,
            None if task.writes is None else view.bare_result(run, task),
        )
        for task, state in zip(tasks, states, strict=True)
    )
    for shown_task, all_states in zip(shown, more or (), strict=False):
        if all_states:
            shown_task.states = tuple(all_states)
    return StateSnapshot(
        values,
        tuple(task.name for task in tasks if not (latest and task.writes is not None)),
        config,
        loaded.metadata,  # type: ignore[arg-type]
        loaded.ts,
        None if loaded.parent_id is None else address(loaded, loaded.parent_id),
        shown,
        tuple(question for task in shown for question in task.interrupts),
    )


def address(loaded: LoadedCheckpoint, checkpoint_id: str) -> RunnableConfig:
    """The config that addresses a checkpoint of the loaded one's namespace."""
    configurable: dict[str, Any] = {
        "thread_id": loaded.claim.thread_id,
        "checkpoint_ns": loaded.checkpoint_ns,
        "checkpoint_id": checkpoint_id,
    }
    if loaded.parents:
        configurable["checkpoint_map"] = {**loaded.parents, loaded.checkpoint_ns: checkpoint_id}
    return {"configurable": configurable}


def nothing(config: RunnableConfig) -> StateSnapshot:
    """The snapshot of a thread or checkpoint that is not there."""
    return StateSnapshot({}, (), config, None, None, None, (), ())
