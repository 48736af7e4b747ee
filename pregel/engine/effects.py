"""What a driver may be asked to do, besides storing: run again later, start one more task, start a called one.

What is to be stored is a `checkpoint.base.StepCommit`; it is the third effect. Slotted and unfrozen: one of these may be
built per superstep.
"""

from __future__ import annotations

from contextvars import Context
from typing import Any

from pregel._scope import TaskScope
from pregel.engine.task import Task


class Retry:
    """Run the task again, `after` seconds from now: `error` has ended the attempt before."""

    __slots__ = ("after", "error", "task")

    def __init__(self, task: Task, after: float, error: BaseException | None = None) -> None:
        self.task = task
        self.after = after
        self.error = error


class Start:
    """Start one more task in this superstep: the handler of a failure."""

    __slots__ = ("task",)

    def __init__(self, task: Task) -> None:
        self.task = task


Effect = Retry | Start

Recorded = tuple[str, str, Any]
"""What a running task wants stored beside its output: id and path of its row, and the value."""

Numbered = tuple[int, str | None, bool]
"""Which call of an attempt it is: its number, its key, and whether no two have overlapped so far."""

HAND_BACK: Any = object()
"""Tells the pump of a driver that the inline body has ended."""


class Spawned:
    """A child task that a running body wants started; without a node, what it recorded (`argument`)."""

    __slots__ = ("argument", "call", "context", "future", "node", "scope")

    def __init__(
        self, scope: TaskScope, node: Any, argument: Any, call: Numbered | None, future: Any, context: Context | None
    ) -> None:
        self.scope = scope
        self.node = node
        self.argument = argument
        self.call = call
        """Number and key of the call (`calls.keyed`)."""
        self.future = future
        self.context = context
