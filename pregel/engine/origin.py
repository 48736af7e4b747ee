"""Which execution a task belongs to: the key of a logical task.

Decides what makes two runs of a body the same logical task. One that is tried again, resumed, or run again after a crash
is the same; another step, node, `Send`, thread, input, fork or replay is not. Pure: time and ids come in with the request.

Invariants
1. A key names no checkpoint: those have other ids when supersteps that were not on disk are done again. It is made of the
   origin of the execution (a fact, stored with the input, update or fork that began it), the step, and the task's path;
   below a nested run also of the key of the task that called it and the number of the call.
2. Costs nothing until somebody asks, but for the origin of a root run that stores.

Source: idempotency keys as payment services define them.
"""

from __future__ import annotations

from checkpoint.base import ORIGIN, LoadedCheckpoint
from pregel._scope import TaskScope
from pregel.engine.state import RunState
from pregel.engine.task import Task, digest

__all__ = ["ORIGIN", "is_edit", "key_of", "originate"]


def originate(run: RunState) -> None:
    """From here on the run, and what continues it, is another execution: its tasks have other keys.

    A call with a run id of its own is the same execution whenever it is made, also if nothing of it was stored.
    """
    run.remember(ORIGIN, _new_origin(run))


def _new_origin(run: RunState) -> str:
    request = run.request
    return request.new_id(run.step) if request.called is None else f"run {request.called.run_id}"


def is_edit(loaded: LoadedCheckpoint) -> bool:
    """Was a checkpoint made in the place of another one, between two runs: by `update_state`, or by the `fork` of a saver,
    which names the execution after the checkpoint?"""
    return loaded.source == "update" or (loaded.source == "fork" and loaded.facts.get(ORIGIN) == loaded.checkpoint_id)


def key_of(run: RunState, scope: TaskScope) -> str:
    """What names the logical task of a scope: 128 bits, shown like a UUID."""
    task: Task = scope.task
    request = run.request
    around, parent = request.parent_run, request.parent
    if around is not None and parent is not None:
        above = [key_of(around, parent), request.key or "", str(request.call_number)]
    else:
        above = [(request.thread_id or "") if request.stores else "", ""]
        if not run.facts.get(ORIGIN):
            _name(run)
    return digest([*above, run.facts.get(ORIGIN) or "", str(run.step), task.place_text])


def _name(run: RunState) -> None:
    """A root execution without a name: nothing of it is stored, or what it continues was stored without one.

    Tasks may ask at the same time; the first one decides.
    """
    loaded = run.loaded
    run.facts.setdefault(ORIGIN, (loaded and loaded.checkpoint_id) or _new_origin(run))
