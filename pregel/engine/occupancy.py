"""Who runs in the namespaces that all runs of a nested graph share (`checkpointer=True`).

Decides when two tasks would write one such namespace at the same time, which no order of theirs makes right: two tasks of
one superstep, however fast either is, so that it does not depend on timing; of tasks that tasks call, only those that
overlap, since a body may wait for one before it calls the next. Knows namespaces and task ids as text, no runs, and no
threads: whoever starts nested runs calls `enter` one at a time.
"""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """One task on the way from the root run to a nested one."""

    checkpoint_id: str
    """Of the checkpoint that the task's superstep starts from."""
    task_id: str
    name: str
    is_called: bool
    """Did another task of the superstep call it?"""


Way = tuple[Step, ...]
"""From the root's task down to the one that starts the nested run."""


class Stay:
    """The last run in a namespace."""

    __slots__ = ("is_over", "way")

    def __init__(self, way: Way) -> None:
        self.way = way
        self.is_over = False


def enter(stays: dict[str, Stay], ns: str, way: Way) -> tuple[Step, Step] | None:
    """A nested run starts: take its namespace, or return the two tasks of one superstep that collide."""
    last = stays.get(ns)
    if last is not None:
        for one, other in zip(last.way, way, strict=False):
            if one.task_id == other.task_id:
                continue
            if one.checkpoint_id == other.checkpoint_id and not (last.is_over and one.is_called and other.is_called):
                return one, other
            break
    stays[ns] = Stay(way)
    return None


def leave(stays: dict[str, Stay], ns: str) -> None:
    """The nested run has ended."""
    last = stays.get(ns)
    if last is not None:
        last.is_over = True
