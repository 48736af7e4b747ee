"""`RetryPolicy`: when a failed node runs again. Decides what a policy may be, and which failures may pass by themselves.

A policy is checked when it is made, so a mistake is found where it stands and not at the first failure. Knows nothing of
runs: what a policy means for one is decided by `engine.retry`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, NoReturn, Self

from pregel.errors import shown

CO_ASYNC: Final = 0x80 | 0x200
"""Flags of the code of coroutine functions and async generators, as `inspect` names them; loading it is slow."""
HTTP_ERRORS: Final = frozenset({("httpx", "HTTPStatusError"), ("requests", "HTTPError")})
"""Package and name of the exceptions for an answer with an error status; neither package is needed to know them."""


def default_retry_on(error: Exception) -> bool:
    """Network trouble and 5xx answers are worth another try, programming errors are not (frontends.md 2.1)."""
    if isinstance(error, ConnectionError):
        return True
    if any((kind.__module__.partition(".")[0], kind.__name__) in HTTP_ERRORS for kind in type(error).__mro__):
        # A response with an error status is falsy, so it is compared with None (the peer retries 4xx for that reason).
        status = getattr(getattr(error, "response", None), "status_code", None)
        return not isinstance(status, int) or 500 <= status < 600
    return not isinstance(
        error,
        (
            ValueError,
            TypeError,
            ArithmeticError,
            ImportError,
            LookupError,
            NameError,
            SyntaxError,
            RuntimeError,
            ReferenceError,
            StopIteration,
            StopAsyncIteration,
            OSError,
        ),
    )


class _RetryFields(NamedTuple):
    """The fields of `RetryPolicy`, as a tuple that programs may unpack."""

    initial_interval: float = 0.5
    backoff_factor: float = 2.0
    max_interval: float = 128.0
    max_attempts: int = 3
    jitter: bool = True
    retry_on: type[BaseException] | Sequence[type[BaseException]] | Callable[[Exception], bool] = default_retry_on


class RetryPolicy(_RetryFields):
    """When and how often a failed node runs again. Intervals in seconds; `max_attempts` counts the first run.

    After k failures the wait is `initial_interval * backoff_factor ** (k - 1)`, at most `max_interval`, plus up to a second
    with `jitter`. `retry_on`: an exception class, several, or a function of the exception that says whether to try again.

    Raises:
        TypeError: a field of a wrong type.
        ValueError: a number out of range.
    """

    __slots__ = ()

    def __new__(
        cls,
        initial_interval: float = 0.5,
        backoff_factor: float = 2.0,
        max_interval: float = 128.0,
        max_attempts: int = 3,
        jitter: bool = True,
        retry_on: type[BaseException] | Sequence[type[BaseException]] | Callable[[Exception], bool] = default_retry_on,
    ) -> Self:
        """Check the fields."""
        _check_number("initial_interval", initial_interval, 0)
        _check_number("backoff_factor", backoff_factor, 0)
        _check_number("max_interval", max_interval, 0, can_be_inf=True)
        _check_number("max_attempts", max_attempts, 1, can_be_inf=True)
        if isinstance(max_attempts, float) and not math.isinf(max_attempts):
            _refuse_type("max_attempts", max_attempts, "an int, or math.inf")
        if not isinstance(jitter, bool):
            _refuse_type("jitter", jitter, "True or False")
        _check_retry_on(retry_on)
        return super().__new__(cls, initial_interval, backoff_factor, max_interval, max_attempts, jitter, retry_on)

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:  # type: ignore[override]
        """What `_replace` makes is checked too."""
        return cls(*iterable)


def retry_policies(given: Any, where: str) -> tuple[RetryPolicy, ...]:
    """One policy, several or None, as a tuple.

    Raises:
        TypeError: something else; `where` says whose they are.
    """
    if given is None:
        return ()
    if isinstance(given, RetryPolicy):
        return (given,)
    several: tuple[Any, ...] = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    for wrong in [one for one in several if not isinstance(one, RetryPolicy)]:
        raise TypeError(
            f"{where}: retry_policy is {shown(wrong)} ({type(wrong).__name__}); expected a RetryPolicy or a list of them, "
            f"such as RetryPolicy(max_attempts=5)"
        )
    return several


def _check_number(name: str, value: Any, least: int, *, can_be_inf: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        what = "a number of attempts" if name == "max_attempts" else "a number"
        more = "; give seconds: .total_seconds()" if hasattr(value, "total_seconds") else ""
        _refuse_type(name, value, f"{what}{more}")
    if not value >= least or (math.isinf(value) and not can_be_inf):
        more = "; 1 means that it is not tried again" if name == "max_attempts" else ""
        raise ValueError(f"RetryPolicy({name}={shown(value)}): it must be at least {least}, and finite{more}")


def _check_retry_on(given: Any) -> None:
    if isinstance(given, type):
        if issubclass(given, BaseException):
            return
    elif isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        if all(isinstance(one, type) and issubclass(one, BaseException) for one in given):
            return
    elif callable(given):
        code = getattr(given, "__code__", None) or getattr(type(given).__call__, "__code__", None)
        if code is not None and code.co_flags & CO_ASYNC:
            raise TypeError(
                f"retry_on must be an Exception class, several, or a function, but {shown(given)} is async, and what it "
                f"returns is always true; make it a plain 'def'"
            )
        return
    raise TypeError(
        f"retry_on must be an Exception class, a list or tuple of Exception classes, or a function of the exception that "
        f"returns a bool, got {shown(given)} ({type(given).__name__})"
    )


def _refuse_type(name: str, value: Any, wanted: str) -> NoReturn:
    raise TypeError(f"RetryPolicy({name}={shown(value)}) is of type {type(value).__name__}; expected {wanted}")
