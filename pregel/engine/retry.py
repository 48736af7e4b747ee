"""Whether a failed attempt is followed by another, and when. Pure: the driver waits, and supplies the jitter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pregel.errors import GraphBubbleUp
from pregel.types import RetryPolicy

LONGEST_S: Final = 1e8
"""No wait is longer, three years: clocks and timers do not take every number."""


def decide(
    policies: Sequence[RetryPolicy], failures: int, error: BaseException, jitter: Callable[[], float]
) -> float | None:
    """Seconds to wait before the next attempt, None to give up.

    The first policy whose `retry_on` accepts the error decides; `failures` counts all attempts of this activation so
    far, whatever policy matched them. `jitter()` is a number in [0, 1), asked for only if the policy wants it.

    Raises:
        Exception: what a policy's own function raises.
    """
    if not isinstance(error, Exception) or isinstance(error, GraphBubbleUp):
        return None
    for policy in policies:
        if _matches(policy, error):
            if failures >= policy.max_attempts:
                return None
            wait = _interval(policy, failures)
            return wait + jitter() if policy.jitter else wait
    return None


def _interval(policy: RetryPolicy, failures: int) -> float:
    try:
        grown = policy.initial_interval * policy.backoff_factor ** (failures - 1)
    except OverflowError:
        grown = policy.initial_interval and LONGEST_S
    return min(policy.max_interval, grown, LONGEST_S)


def _matches(policy: RetryPolicy, error: Exception) -> bool:
    retry_on = policy.retry_on
    if isinstance(retry_on, type):
        return isinstance(error, retry_on)
    if isinstance(retry_on, Sequence):
        return isinstance(error, tuple(retry_on))
    return bool(retry_on(error))
