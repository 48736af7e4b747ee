"""`PregelWarning`: what is probably a mistake but has a defined outcome (D9, D42).

The core never warns: it appends a `Notice` to its run, and the driver emits it where the user's stack is. A notice is
emitted once per (graph, code, place). What each one says and how to mend it: docs/mistakes.md.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from typing import NamedTuple

__all__ = [
    "LangGraphDeprecatedSinceV05",
    "LangGraphDeprecatedSinceV10",
    "LangGraphDeprecatedSinceV11",
    "LangGraphDeprecationWarning",
    "PregelDeprecationWarning",
    "PregelWarning",
]


class PregelWarning(UserWarning):
    """A mistake that was survived; the text says what to do. `compile(strict=True)` raises instead."""


class LangGraphDeprecationWarning(DeprecationWarning):
    """What LangGraph says of its own former names, for programs that raise or filter it.

    `since` and `expected_removal`: versions of LangGraph, as (major, minor).
    """

    def __init__(
        self, message: str, *args: object, since: tuple[int, int], expected_removal: tuple[int, int] | None = None
    ) -> None:
        super().__init__(message, *args)
        self.message = message.rstrip(".")
        self.since = since
        self.expected_removal = expected_removal or (since[0] + 1, 0)

    def __str__(self) -> str:
        (since, minor), (removal, minor_) = self.since, self.expected_removal
        return f"{self.message}. Deprecated in LangGraph V{since}.{minor} to be removed in V{removal}.{minor_}."


class LangGraphDeprecatedSinceV05(LangGraphDeprecationWarning):
    """Of version 0.5."""

    def __init__(self, message: str, *args: object) -> None:
        super().__init__(message, *args, since=(0, 5), expected_removal=(2, 0))


class LangGraphDeprecatedSinceV10(LangGraphDeprecationWarning):
    """Of version 1.0."""

    def __init__(self, message: str, *args: object) -> None:
        super().__init__(message, *args, since=(1, 0), expected_removal=(2, 0))


class LangGraphDeprecatedSinceV11(LangGraphDeprecationWarning):
    """Of version 1.1."""

    def __init__(self, message: str, *args: object) -> None:
        super().__init__(message, *args, since=(1, 1), expected_removal=(3, 0))


class PregelDeprecationWarning(LangGraphDeprecatedSinceV05, LangGraphDeprecatedSinceV10, LangGraphDeprecatedSinceV11):
    """A name or parameter that has a newer form. A filter for any of LangGraph's deprecations holds for ours."""

    def __init__(self, message: str, *args: object) -> None:
        DeprecationWarning.__init__(self, message, *args)

    def __str__(self) -> str:
        return DeprecationWarning.__str__(self)


class Notice(NamedTuple):
    """One warning waiting to be emitted: what (`code`), where (`place`), and the text."""

    code: str
    place: str
    text: str


def emit(notices: Iterable[Notice], warned: set[tuple[str, str]], *, strict: bool) -> None:
    """Emit notices as warnings, each once per graph (`warned` remembers) and place; under strict the first is raised.

    A warning names the line of the user's that led here.

    Raises:
        PregelWarning: under strict, or if warnings are errors.
    """
    for notice in notices:
        if strict:
            raise PregelWarning(notice.text)
        key = (notice.code, notice.place)
        if key not in warned:
            warned.add(key)
            warnings.warn(notice.text, PregelWarning, stacklevel=stack_level())


def stack_level() -> int:
    """The level of the first frame outside this package, for `warnings.warn` in the caller."""
    package = __name__.partition(".")[0]
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level
