"""`PregelWarning`: what is probably a mistake but has a defined outcome (D9, D42).

The core never warns: it appends a `Notice` to its run, and the driver emits it where the user's stack is. A notice is
emitted once per (graph, code, place). What each one says and how to mend it: docs/mistakes.md.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["PregelWarning"]


class PregelWarning(UserWarning):
    """A mistake that was survived; the text says what to do. `compile(strict=True)` raises instead."""


class PregelDeprecationWarning(DeprecationWarning):
    """A name or parameter that has a newer form."""


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
