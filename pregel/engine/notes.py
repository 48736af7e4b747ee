"""Where in a run an error happened, and how to go on from there: one note, and the same as fields (`errors.place_of`).

Decides the words and which place counts when an error passes through several graphs: the innermost. Called only once
something has failed; a run that goes well never comes here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pregel.engine import namespace
from pregel.engine.state import RunState
from pregel.engine.task import Task
from pregel.errors import GraphBubbleUp, Place, place_of, set_place


def of_task(run: RunState, error: Exception, task: Task) -> None:
    """Note on an error which task raised it. One that came out of the task's nested graph keeps its place."""
    place = _place(run, task)
    _note(error, f"During task with name '{task.name}' and id '{place.task_id}' {_where(place, task.attempt)}")
    known = place_of(error)
    if known is None or not _is_below(known, run.ns_of(task)):
        set_place(error, place)


def of_run(run: RunState, error: BaseException) -> None:
    """Note on an error that no task raised in which step of which run it came up."""
    if not isinstance(error, Exception) or isinstance(error, GraphBubbleUp):
        return
    place = _place(run, None)
    known = place_of(error)
    if known is not None and known[2:] == place[2:]:
        return  # it is one that a task raised, on its way out
    if run.phase == "new":
        # What it was called with was refused: there is nothing to go on with.
        _note(error, _before(place))
        set_place(error, place._replace(config=None))
        return
    text = _where(place)
    _note(error, text[0].upper() + text[1:])
    set_place(error, place)


def way_on(run: RunState) -> dict[str, Any] | None:
    """The config under which `invoke(None, config)` goes on; None if nothing is stored."""
    while run.request.parent_run is not None:
        run = run.request.parent_run
    request = run.request
    if not run.stores or request.thread_id is None:
        return None
    configurable: dict[str, Any] = {"thread_id": request.thread_id}
    if run.claim is not None and run.claim.lane:
        # A lane is not what its thread is known by.
        configurable.update(checkpoint_ns="", checkpoint_id=run.checkpoint_id)
    return {"configurable": configurable}


def _note(error: Exception, text: str) -> None:
    with suppress(Exception):  # a class that takes no attributes must not hide the failure
        error.add_note(text)


def _place(run: RunState, task: Task | None) -> Place:
    name, task_id = (None, None) if task is None else (task.name, run.id_of(task))
    return Place(name, task_id, run.step, run.ns, run.request.thread_id, way_on(run))


def _where(place: Place, attempt: int = 1) -> str:
    text = f"in step {place.step}"
    if place.checkpoint_ns:
        text += f" of namespace {place.checkpoint_ns!r}"
    if attempt > 1:
        text += f", attempt {attempt}"
    if place.config is None:
        return f"{text}; there is no saver, so nothing is stored"
    return f"{text}; go on from there with invoke(None, {place.config!r})"


def _before(place: Place) -> str:
    whose = "" if place.thread_id is None else f" on thread {place.thread_id!r}"
    where = f" of namespace {place.checkpoint_ns!r}" if place.checkpoint_ns else ""
    return f"Before the first step of this call{whose}{where}: nothing of its input was run or stored"


def _is_below(place: Place, task_ns: str) -> bool:
    with suppress(AttributeError):  # somebody else's attribute of that name
        inner, around = namespace.stable(place.checkpoint_ns), namespace.stable(task_ns)
        return inner == around or inner.startswith(f"{around}|")
    return False
