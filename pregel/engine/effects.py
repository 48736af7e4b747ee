"""What the core may ask a driver to do, besides storing: run again later, start one more task.

What is to be stored is a `checkpoint.base.StepCommit`; it is the third effect. Slotted and unfrozen: one of these may be
built per superstep.
"""

from __future__ import annotations

from pregel.engine.task import Task


class Retry:
    """Run the task again, `after` seconds from now."""

    __slots__ = ("after", "task")

    def __init__(self, task: Task, after: float) -> None:
        self.task = task
        self.after = after


class Start:
    """Start one more task in this superstep: the handler of a failure."""

    __slots__ = ("task",)

    def __init__(self, task: Task) -> None:
        self.task = task


Effect = Retry | Start
