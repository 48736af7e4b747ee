"""Whether a failed attempt is followed by another, and when. Pure: the driver sleeps, and supplies the jitter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pregel.errors import GraphBubbleUp
from pregel.types import RetryPolicy


def decide(
    policies: Sequence[RetryPolicy], failures: int, error: BaseException, jitter: Callable[[], float]
) -> float | None:
    """Seconds to wait before the next attempt, None to give up.

    The first policy whose `retry_on` accepts the error decides; `failures` counts all attempts of this activation so
    far, whatever policy matched them. `jitter()` is a number in [0, 1), asked for only if the policy wants it.

    Raises:
        TypeError: a policy's `retry_on` is neither a class, nor a sequence of classes, nor a callable.
    """
    if not isinstance(error, Exception) or isinstance(error, GraphBubbleUp):
        return None
    for policy in policies:
        if _matches(policy.retry_on, error):
            if failures >= policy.max_attempts:
                return None
            wait = min(policy.max_interval, policy.initial_interval * policy.backoff_factor ** (failures - 1))
            return wait + jitter() if policy.jitter else wait
    return None


def _matches(retry_on: Any, error: Exception) -> bool:
    if isinstance(retry_on, type) and issubclass(retry_on, BaseException):
        return isinstance(error, retry_on)
    if isinstance(retry_on, Sequence) and not isinstance(retry_on, str):
        return isinstance(error, tuple(retry_on))
    if callable(retry_on):
        return bool(retry_on(error))
    raise TypeError(
        f"retry_on must be an Exception class, a sequence of Exception classes or a callable, got {retry_on!r}"
    )
