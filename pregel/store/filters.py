"""What a search filter means: one rule for every store.

Decides which values a filter matches and refuses filters that mean nothing, before a store touches its data. Knows no
store. Invariants: a checked filter never raises, whatever a value lacks; nothing is converted by rounding, so integers
of any size compare exactly.

Rules: a field is the literal key, else a dotted path. A missing field and None are the same, except to `$exists`. A
nested mapping without `$` keys matches in part, and only where a mapping is; whole values are compared by `$eq`. True
and False are not numbers. An order holds between values of one kind; a number is also compared with text that reads as
a number, and text with text by code points.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from pregel.errors import shown

__all__ = ["check_filter", "matches_filter"]

_MISSING: Final = object()


def check_filter(wanted: Mapping[str, Any]) -> None:
    """Refuse a filter that no value could be asked.

    Raises:
        ValueError: an unknown operator, an operator beside a plain key, or a list operator without a list.
    """
    for field, want in wanted.items():
        if not isinstance(want, Mapping):
            continue
        if not _has_operators(want):
            check_filter(want)
            continue
        for name, operand in want.items():
            if name not in _OPERATORS:
                raise ValueError(
                    f"filter of field '{field}' has {shown(name)}, which is no operator; expected any of "
                    f"{', '.join(_OPERATORS)}, or only plain keys to match a nested mapping in part"
                )
            if name in ("$in", "$nin") and not isinstance(operand, (list, tuple, set, frozenset)):
                raise ValueError(
                    f"filter of field '{field}' has {name} with {shown(operand)}; expected a list of values, "
                    f"write {{'{name}': [...]}}"
                )


def matches_filter(value: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Does a stored value meet every condition? `wanted` has passed `check_filter`."""
    return all(_meets(_find(value, field), want) for field, want in wanted.items())


def _meets(have: Any, want: Any) -> bool:
    if not isinstance(want, Mapping):
        return _equal(have, want)
    if _has_operators(want):
        return all(_OPERATORS[name](have, operand) for name, operand in want.items())
    return isinstance(have, Mapping) and matches_filter(have, want)


def _has_operators(want: Mapping[str, Any]) -> bool:
    return any(isinstance(name, str) and name.startswith("$") for name in want)


def _find(value: Mapping[str, Any], field: str) -> Any:
    found = value.get(field, _MISSING)
    if found is _MISSING and isinstance(field, str) and "." in field:
        found = value
        for part in field.split("."):
            found = found.get(part, _MISSING) if isinstance(found, Mapping) else _MISSING
    return found


def _equal(have: Any, want: Any) -> bool:
    if have is _MISSING:
        return want is None
    if isinstance(have, bool) or isinstance(want, bool):
        return have is want
    if isinstance(want, Mapping):
        return isinstance(have, Mapping) and have.keys() == want.keys() and all(_equal(have[k], want[k]) for k in want)
    if isinstance(want, (list, tuple)):
        return isinstance(have, (list, tuple)) and len(have) == len(want) and all(map(_equal, have, want))
    return bool(have == want)


def _one_of(have: Any, wants: Any) -> bool:
    return any(_equal(have, want) for want in wants)


def _ordered(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], bool]:
    def holds(have: Any, want: Any) -> bool:
        if isinstance(have, bool) or isinstance(want, bool):
            return False
        if isinstance(have, str) and isinstance(want, (int, float)):
            have = _number(have)
        try:
            return bool(compare(have, want))
        except TypeError:  # no order between these two kinds, or nothing there
            return False

    return holds


def _number(text: str) -> int | float | None:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return None


_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "$eq": _equal,
    "$ne": lambda have, want: not _equal(have, want),
    "$gt": _ordered(operator.gt),
    "$gte": _ordered(operator.ge),
    "$lt": _ordered(operator.lt),
    "$lte": _ordered(operator.le),
    "$in": _one_of,
    "$nin": lambda have, wants: not _one_of(have, wants),
    "$exists": lambda have, want: (have is not _MISSING) == bool(want),
}
