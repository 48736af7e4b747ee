"""How long work on a large value goes on before another thread gets the interpreter.

Decides how much is done at once, and gives way in between: an interpreter belongs to one thread at a time, and an event
loop that wants it back waits until who has it gives way, or computes in Python for `sys.getswitchinterval` (5 ms), or
returns from the one C call that it is in. So a large value is handled in calls of a millisecond or two, and neither a call
nor a loop over many elements goes on for longer. Knows nothing of values, rows or savers.

Invariant: between two turns, `BLOCK_BYTES` bytes or `BLOCK_ELEMENTS` elements are handled, or one element that is larger.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")

BLOCK_BYTES: Final = 256 * 1024
"""Bytes that are encoded, decoded or copied at once (a millisecond or two)."""
BLOCK_ELEMENTS: Final = 4096
"""Elements that are looked at, encoded or decoded at once, however small they are."""
_TURN_S: Final = 1e-6
"""Any time but none: a thread that sleeps for none may be back before the one that waits has woken up."""


def give_way() -> None:
    """Let another thread that waits for the interpreter have it. Costs about 0.1 ms."""
    time.sleep(_TURN_S)


def free_in_turns(bodies: list[bytes]) -> None:
    """Empty a list, giving way now and then: memory is freed with the interpreter in hand."""
    room = BLOCK_BYTES
    while bodies:
        room -= len(bodies.pop())
        if room < 0:
            give_way()
            room = BLOCK_BYTES


def in_turns(elements: Iterable[T], size: int = BLOCK_ELEMENTS // 2) -> Iterator[T]:
    """The same elements, one by one, giving way now and then: for a loop in Python that does little with each."""
    rest = iter(elements)
    while block := list(islice(rest, size)):
        yield from block
        if len(block) == size:
            give_way()
