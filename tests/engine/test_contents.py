"""What arguments and inputs are told by; `test_func.py` and `test_repeat.py` have the tables of values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest

from pregel.engine.contents import of_arguments, of_input


@dataclass(eq=False)
class Part:
    """Knows what it is in, as nodes of trees do."""

    name: str
    inside: Part | None = None
    parts: list[Part] = field(default_factory=list)


def tree(leaf: str, width: int = 4, depth: int = 4, inside: Part | None = None) -> Part:
    made = Part(leaf if depth == 0 else "", inside)
    made.parts = [tree(leaf, width, depth - 1, made) for _ in range(width if depth else 0)]
    return made


@pytest.mark.parametrize("told", [lambda value: of_arguments(((value, object()), {})), of_input])
def test_what_contains_itself_is_told_by_what_is_in_it(told: Any) -> None:
    """Each part is looked at once, however many ways lead to it through what it is in."""
    assert told(tree("a")) == told(tree("a")) != told(tree("b"))


def test_what_is_stored_is_found_again() -> None:
    """Keys of calls are stored: they do not change from version to version."""
    values = [1, "a", None, b"b", 2.5, [1, {"a": (True,)}], {2, 3}, datetime(2020, 1, 1, tzinfo=UTC), Decimal("1.20")]
    values += [
        UUID(int=3),
        PurePosixPath("a/b"),
        Fraction(1, 3),
        range(3),
        ValueError("x", [1]),
        bytearray(b"x"),
        object(),
    ]
    assert [of_arguments(((value,), {"k": 1}))[:8] for value in values] == [
        "be5d54d9", "bf77f0d5", "d0cec947", "0a09b9d6", "d652f662", "4021f7ef", "97045bf1", "f9eb9a79",
        "16889b08", "a46ee614", "ea9a8e4c", "ae4b4305", "fbde1778", "a35cf8fa", "6208533f", "0ece7c91",
    ]  # fmt: skip
