"""Another attempt, and when: one table per question."""

import pytest

from pregel.engine.retry import decide
from pregel.errors import GraphInterrupt
from pregel.types import RetryPolicy

PLAIN = RetryPolicy(initial_interval=1.0, backoff_factor=3.0, max_interval=10.0, max_attempts=4, jitter=False)
ODD = OSError("odd")


def never() -> float:
    raise AssertionError("jitter was asked for")


@pytest.mark.parametrize(("failures", "wait"), [(1, 1.0), (2, 3.0), (3, 9.0), (4, None), (5, None)])
def test_waits_grow_until_the_attempts_are_used_up(failures, wait):
    assert decide([PLAIN._replace(retry_on=OSError)], failures, ODD, never) == wait


def test_waits_have_a_limit():
    assert decide([PLAIN._replace(max_attempts=9, retry_on=OSError)], 5, ODD, never) == 10.0


def test_jitter_is_added_to_the_wait():
    assert decide([PLAIN._replace(jitter=True, retry_on=OSError)], 1, ODD, lambda: 0.25) == 1.25


@pytest.mark.parametrize(
    ("retry_on", "matches"),
    [
        (OSError, True),
        (ValueError, False),
        (BaseException, True),
        ((ValueError, OSError), True),
        ([ValueError], False),
        ([], False),
        (lambda error: str(error) == "odd", True),
        (lambda error: "", False),
    ],
)
def test_what_a_policy_accepts(retry_on, matches):
    assert decide([PLAIN._replace(retry_on=retry_on)], 1, ODD, never) == (1.0 if matches else None)


@pytest.mark.parametrize("wrong", ["OSError", 3, None])
def test_a_policy_that_cannot_be_asked(wrong):
    with pytest.raises(TypeError):
        decide([PLAIN._replace(retry_on=wrong)], 1, ODD, never)


def test_the_first_policy_that_matches_decides_and_counts_all_attempts():
    policies = [
        PLAIN._replace(retry_on=ValueError, max_attempts=99),
        PLAIN._replace(retry_on=OSError, max_attempts=2),
        PLAIN._replace(retry_on=Exception, max_attempts=99),
    ]
    assert decide(policies, 1, ODD, never) == 1.0
    assert decide(policies, 2, ODD, never) is None


def test_no_policy_no_attempt():
    assert decide([], 1, ODD, never) is None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GraphInterrupt()])
def test_control_flow_and_interruption_are_not_failures(error):
    assert decide([PLAIN._replace(retry_on=BaseException)], 1, error, never) is None


class HTTPStatusError(Exception):
    """As httpx has it."""

    def __init__(self, status: int | None) -> None:
        self.response = None if status is None else type("Response", (), {"status_code": status})()


HTTPStatusError.__module__ = "httpx._exceptions"


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionError(), True),
        (ConnectionResetError(), True),
        (OSError(), False),
        (TimeoutError(), False),
        (ValueError(), False),
        (KeyError(), False),
        (RuntimeError(), False),
        (StopAsyncIteration(), False),
        (Exception(), True),
        (type("Own", (Exception,), {})(), True),
        (HTTPStatusError(503), True),
        (HTTPStatusError(404), False),
        (HTTPStatusError(None), True),
    ],
)
def test_the_default_retries_what_may_pass(error, again):
    assert decide([RetryPolicy(jitter=False)], 1, error, never) == (0.5 if again else None)
