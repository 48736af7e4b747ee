"""`LimitedRun`: a run that has to end at a time, or after so many supersteps, whatever is left to do.

Decides when that is and what the caller is told. A run without such limits is a plain `Run` and pays nothing. Knows no
clock: the request's tells the time, and the driver, which watches it while bodies run, asks `cut_at` and calls `cut`.

Invariants
1. A superstep is begun only if neither limit is used up; one that is running is ended by time alone, never by its count.
2. What a limit keeps from running stays pending: the next `invoke(None, config)` goes on there, with limits of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from pregel.engine import plan, view
from pregel.engine.core import Run
from pregel.engine.task import Task
from pregel.errors import (
    DeadlineExceededError,
    ErrorCode,
    GraphBubbleUp,
    GraphDrained,
    GraphRecursionError,
    shown,
)
from pregel.types import seconds


class Limits:
    """What one call allows its run, and all runs nested in it."""

    __slots__ = ("around", "begun", "due", "max_steps", "until")

    def __init__(self, due: float | None, until: float | None, max_steps: int | None, around: Limits | None) -> None:
        self.due = due
        """When the run ends, in the clock of `Request.monotonic`; None if it may take as long as it takes."""
        self.until = until
        """The same in Unix seconds, to be shown."""
        self.max_steps = max_steps
        self.begun: list[None] = []
        """As long as supersteps were begun, of the run and of nested ones; those may be on other threads, so it is
        counted by appending, which is one operation."""
        self.around = around
        """The limits of a call around this one."""

    @classmethod
    def of(cls, deadline: Any, max_steps: Any, now: float, monotonic: float, *, around: Limits | None) -> Limits:
        """From the arguments of a call that is made now: in Unix seconds, and in those of the clock that only goes forward.

        Raises:
            ValueError: a deadline without a time zone, of no time, or no step.
            TypeError: something else.
        """
        if max_steps is not None and (not isinstance(max_steps, int) or isinstance(max_steps, bool)):
            raise TypeError(f"max_steps is {shown(max_steps)} ({type(max_steps).__name__}); expected an int")
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {max_steps}; leave it out for no limit")
        if deadline is None:
            return cls(None, None, max_steps, around)
        if isinstance(deadline, datetime):
            if deadline.utcoffset() is None:
                raise ValueError(
                    f"deadline={deadline!r} has no time zone; pass an aware datetime, such as "
                    f"datetime.now(UTC) + timedelta(minutes=1), or seconds"
                )
            left = deadline.timestamp() - now
        elif isinstance(deadline, bool) or not isinstance(deadline, (int, float, timedelta)):
            raise TypeError(
                f"deadline is {shown(deadline)} ({type(deadline).__name__}); expected seconds from now, a timedelta or an "
                f"aware datetime"
            )
        else:
            left = seconds(deadline, "deadline") or 0.0
        return cls(monotonic + left, now + left, max_steps, around)

    def all(self) -> Iterator[Limits]:
        """These, and those of the calls around."""
        limits: Limits | None = self
        while limits is not None:
            yield limits
            limits = limits.around

    @property
    def is_spent(self) -> bool:
        """Is no superstep left?"""
        return self.max_steps is not None and len(self.begun) >= self.max_steps


class BudgetSpent(GraphBubbleUp):
    """The supersteps of a whole run are used up in a nested graph; on its way to the run whose call limits them, which says
    so. `args[0]`: those limits."""


class LimitedRun(Run):
    """One run of one graph in one namespace, with limits."""

    __slots__ = ()

    def plan(self) -> list[Task] | None:
        """As `Run.plan`; over as well if there is work left and a limit is used up."""
        limits: Limits | None = self.request.limits
        if limits is None:
            return super().plan()
        spent = next((one for one in limits.all() if one.is_spent), None)
        late = self._is_late(self.request.monotonic())
        if (spent is not None or late) and self.phase == "idle" and (ready := plan.next_tasks(self)):
            self.tasks = ready
            if self.sees and self.stores:
                view.checkpoint(self)
            self.ready = [task.name for task in ready]
            if late or spent is None:
                self._end("out_of_time")
            else:
                self.spent = spent
                self._end("out_of_budget")
            return None
        tasks = super().plan()
        if self.phase != "done":
            for one in limits.all():
                one.begun.append(None)
        return tasks

    @property
    def cut_at(self) -> float | None:
        """When the run ends wherever it is, in the clock of `Request.monotonic`; None if nothing of that kind is known."""
        request = self.request
        if not request.prompt:
            return None
        due = None if request.own_limits is None else request.own_limits.due
        drained = request.control.cut_at
        return due if drained is None else drained if due is None else min(due, drained)

    def cut(self, now: float) -> None:
        """The run is in the middle of a superstep, and it is so late: end it, if it has to end.

        Raises:
            DeadlineExceededError: its deadline has passed.
            GraphDrained: it was asked to stop, and the time for that is up.
        """
        if not self.request.prompt:
            return
        control = self.request.control
        if control.cut_at is not None and now >= control.cut_at:
            raise GraphDrained(control.reason or "shutdown")
        if self._is_late(now):
            self.ready = [task.name for task in self.tasks if not task.settled and task.call_index < 0]
            raise self._out_of_time()

    def outcome(self) -> BaseException | None:
        """As `Run.outcome`."""
        ended = super().outcome()
        if self.status == "out_of_time":
            ended = self._out_of_time()
            self.place(ended)
        elif self.status == "out_of_budget":
            ended = BudgetSpent(self.spent)
        if isinstance(ended, BudgetSpent) and ended.args[0] is self.request.own_limits:
            ended = self._out_of_budget()
            self.place(ended)
        return ended

    def _is_late(self, now: float) -> bool:
        own = self.request.own_limits
        return own is not None and own.due is not None and now >= own.due

    def _out_of_time(self) -> DeadlineExceededError:
        until = datetime.fromtimestamp(self.request.own_limits.until, UTC)
        config = view.resuming(self)
        error = DeadlineExceededError(
            f"the run was not over by its deadline, {until.isoformat(timespec='milliseconds')}; it was ended in step "
            f"{self.step} with {self._left()}; {_way_on(config)}give it more time, or its nodes limits (timeout=)"
        )
        error.values, error.config, error.deadline, error.ready = view.result(self), config, until, tuple(self.ready)
        return error

    def _out_of_budget(self) -> GraphRecursionError:
        limit, config = self.request.own_limits.max_steps, view.resuming(self)
        error = GraphRecursionError(
            f"max_steps={limit} supersteps were run, those of nested graphs included, with {self._left()}; "
            f"{_way_on(config)}raise max_steps, or check the condition that ends the loop "
            f"[{ErrorCode.GRAPH_RECURSION_LIMIT.value}]"
        )
        error.values, error.config, error.limit, error.ready = view.result(self), config, limit, tuple(self.ready)
        return error

    def _left(self) -> str:
        if not self.ready:
            return "work left in a nested graph"
        return f"{len(self.ready)} tasks still to run ({', '.join(map(repr, self.ready[:5]))})"


def _way_on(config: object) -> str:
    if config is None:
        return "there is no saver, so nothing is stored, but error.values has the last values; "
    return "what was done is stored, and invoke(None, error.config) goes on; "
