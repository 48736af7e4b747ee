"""Another attempt, and when: one table per question."""

import copy
import math
import pickle
from datetime import timedelta

import pytest

from pregel.engine.retry import LONGEST_S, decide
from pregel.errors import GraphInterrupt, InvalidUpdateError, NodeCancelledError, NodeTimeoutError
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


async def coroutine(error):
    return True


class Asks:
    """What can be called, and is async."""

    async def __call__(self, error):
        return True


@pytest.mark.parametrize(
    "wrong", ["OSError", 3, None, int, (OSError, 3), ["OSError"], {OSError}, OSError("one"), coroutine, Asks(), b"x"]
)
def test_a_policy_that_cannot_be_asked(wrong):
    with pytest.raises(TypeError, match="retry_on must be an Exception class"):
        RetryPolicy(retry_on=wrong)
    with pytest.raises(TypeError, match="retry_on must be an Exception class"):
        PLAIN._replace(retry_on=wrong)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("initial_interval", -1, ValueError),
        ("initial_interval", math.inf, ValueError),
        ("initial_interval", math.nan, ValueError),
        ("initial_interval", "1", TypeError),
        ("initial_interval", True, TypeError),
        ("initial_interval", timedelta(seconds=1), TypeError),
        ("backoff_factor", -0.1, ValueError),
        ("backoff_factor", math.inf, ValueError),
        ("backoff_factor", None, TypeError),
        ("max_interval", -1, ValueError),
        ("max_interval", math.nan, ValueError),
        ("max_attempts", 0, ValueError),
        ("max_attempts", -3, ValueError),
        ("max_attempts", 2.5, TypeError),
        ("max_attempts", True, TypeError),
        ("max_attempts", None, TypeError),
        ("jitter", 1, TypeError),
        ("jitter", None, TypeError),
    ],
)
def test_wrong_fields_are_refused_where_they_stand(field, value, error):
    with pytest.raises(error, match=field):
        RetryPolicy(**{field: value})


def test_a_policy_is_a_tuple():
    policy = RetryPolicy(0, 1, 2, 3, False, OSError)
    assert tuple(policy) == (0, 1, 2, 3, False, OSError)
    assert policy == RetryPolicy(*policy)
    assert pickle.loads(pickle.dumps(policy)) == copy.copy(policy) == policy
    assert repr(policy).startswith("RetryPolicy(initial_interval=0, ")
    assert policy._asdict()["max_interval"] == 2
    assert policy._replace(max_attempts=math.inf).max_attempts == math.inf


@pytest.mark.parametrize(("limit", "wait"), [(7.0, 7.0), (math.inf, LONGEST_S)])
@pytest.mark.parametrize("factor", [2.0, 2, 3])
def test_a_wait_that_no_float_holds(limit, wait, factor):
    endless = RetryPolicy(1.0, factor, limit, 10_000, False, OSError)
    assert decide([endless], 5_000, ODD, never) == wait


def test_no_interval_stays_none():
    assert decide([RetryPolicy(0, 2.0, math.inf, math.inf, False, OSError)], 5_000, ODD, never) == 0


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


class Answer:
    """As `requests` has it: false if the status is one of an error."""

    def __init__(self, status):
        self.status_code = status

    def __bool__(self):
        return self.status_code < 400


class HTTPStatusError(Exception):
    """As httpx has it."""

    def __init__(self, status):
        self.response = None if status is None else Answer(status)


class HTTPError(OSError):
    """As requests has it."""

    def __init__(self, status):
        self.response = None if status is None else Answer(status)


class Own(HTTPError):
    """As a program derives it."""


class Unrelated(OSError):
    """Not of a package that is known, whatever it has."""

    response = Answer(503)


HTTPStatusError.__module__ = "httpx._exceptions"
HTTPError.__module__ = "requests.exceptions"


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
        (HTTPStatusError(600), False),
        (HTTPError(500), True),
        (HTTPError(599), True),
        (HTTPError(404), False),
        (HTTPError(429), False),
        (HTTPError(600), False),
        (HTTPError(None), True),
        (Own(503), True),
        (Own(403), False),
        (Unrelated(), False),
        (AssertionError(), True),
        (MemoryError(), True),
        (RecursionError(), False),
        (NodeTimeoutError("n", 1.0, kind="run", run_timeout=0.5), True),
        (NodeCancelledError("n"), True),
        (InvalidUpdateError(), True),
    ],
)
def test_the_default_retries_what_may_pass(error, again):
    assert decide([RetryPolicy(jitter=False)], 1, error, never) == (0.5 if again else None)
