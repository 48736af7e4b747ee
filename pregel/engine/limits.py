"""Time limits of an attempt, and what an outcome really is. Pure: the driver tells the time and watches the clock."""

from __future__ import annotations

import sys
from typing import Any

from pregel.engine.effects import Retry
from pregel.engine.task import Task
from pregel.errors import GraphInterrupt, NodeCancelledError, NodeTimeoutError, is_invalid_resume

GRACE_S = 1.0
"""How long an async body that was over its limit may take to end once it is cancelled; then it is left to itself."""


def own_error(task: Task, error: BaseException) -> BaseException:
    """A body that raises CancelledError itself has failed: nobody cancelled it (engine.md 8.2). One whose asyncio task
    group ends in nothing but questions asks them; one whose group was given an answer that does not fit was given that."""
    if isinstance(error, BaseExceptionGroup):
        return _asked_together(error)
    if type(error).__name__ == "CancelledError" and type(error).__module__.startswith(("asyncio", "concurrent")):
        failure = NodeCancelledError(task.name)
        failure.__cause__ = error
        return failure
    return error


def _asked_together(group: BaseExceptionGroup[BaseException]) -> BaseException:
    questions, rest = group.split(GraphInterrupt)
    refused, failures = (None, None) if rest is None else rest.split(is_invalid_resume)
    if failures is not None:
        return group
    if refused is not None:
        return _leaves(refused)[0]
    return GraphInterrupt([question for leaf in _leaves(questions) for question in leaf.args[0]])


def _leaves(group: Any) -> list[BaseException]:
    if not isinstance(group, BaseExceptionGroup):
        return [group]
    return [leaf for part in group.exceptions for leaf in _leaves(part)]


def deadline_of(task: Task) -> float | None:
    """When a task's attempt is over its limit, in the clock of `time.monotonic`; None if it has none."""
    policy, scope = task.timeout, task.scope
    if policy is None or scope is None or scope.closed or not scope.moved_at:
        return None  # nothing runs, or not yet: waiting for a thread or a place takes none of an attempt's time
    limits = []
    if policy.run_timeout is not None:
        limits.append(task.started_at + policy.run_timeout)  # type: ignore[operator]
    if policy.idle_timeout is not None:
        limits.append(scope.moved_at + policy.idle_timeout)  # type: ignore[operator]
    return min(limits)


def timed_out(task: Task, now: float) -> NodeTimeoutError:
    """The error of an attempt that is over its limit."""
    policy = task.timeout
    assert policy is not None
    run_s, idle_s = policy.run_timeout, policy.idle_timeout
    by_run = run_s is not None and now >= task.started_at + run_s  # type: ignore[operator]
    return NodeTimeoutError(
        task.name,
        now - task.started_at,
        kind="run" if by_run else "idle",
        run_timeout=run_s,  # type: ignore[arg-type]
        idle_timeout=idle_s,  # type: ignore[arg-type]
    )


def tell(effect: Retry) -> None:
    """Log another attempt, for those who log."""
    logging = sys.modules.get("logging")
    if logging is not None:
        task = effect.task
        logging.getLogger("pregel.retry").info(
            "node %r: attempt %d in %.2f seconds, after %r", task.name, task.attempt, effect.after, effect.error
        )


def is_replaced(sleep: Any) -> bool:
    """Did a program put something of its own in the place of `time.sleep`?"""
    return getattr(sleep, "__module__", None) != "time"
