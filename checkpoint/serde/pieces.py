"""How the bytes of a large value are read without one call that holds the interpreter for all of them.

Decides the pieces in which a body is decoded: runs of elements of a list or dict, and what is inside of elements that are
large themselves. To find where an element ends, its tokens are looked at in Python, which takes two to three times as
long as to decode it: for bodies of more than `MIN_BYTES` only, which most values never have (`checkpoint.deltas` stores
a long list in many). Knows no types: a function decodes each piece.

Invariant: the value is the one that the same function gives for the whole body, or there is none and the whole body is
to be read at once, which also finds the words for what is wrong with it.

Source: the token formats are those of the msgpack specification.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from checkpoint.turns import BLOCK_BYTES, BLOCK_ELEMENTS, give_way

MIN_BYTES: Final = 1 << 20
"""Bytes of a body below which it is decoded at once."""
MIN_TOKEN: Final = 64
"""Bytes that the tokens of a body have on average, or more: else to look at each would take too long."""
MAX_DEPTH: Final = 4
"""Containers inside of each other that are read in pieces."""
_MANY: Final = 256

Unpack = Callable[[bytes], Any]

# First byte from 0xC0 -> (bytes of the length that follows, further bytes). Those with a length are followed by as many.
_FIXED: Final = {
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 0),
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
    0xCA: 4,
    0xCB: 8,
    0xD4: 2,
    0xD5: 3,
    0xD6: 5,
    0xD7: 9,
    0xD8: 17,
}
_LENGTHS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4}
_COUNTS: Final = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_EXT: Final = frozenset({0xC7, 0xC8, 0xC9})
_STR_32: Final = 0xDB
_LONG_TEXTS: Final = frozenset({_STR_32, 0xC6})


class _AtOnce(Exception):
    """It is to be read at once."""


def read_in_pieces(body: bytes, unpack: Unpack) -> tuple[Any] | None:
    """The value of a body; None if it is to be read at once."""
    if body[0] < 0x80 or 0xA0 <= body[0] < 0xC0:
        return None
    reader = _PieceReader(body, unpack)
    try:
        value, end = reader.value_at(0, 0)
    except (_AtOnce, ValueError, IndexError):
        return None
    return (value,) if end == len(body) else None


class _PieceReader:
    """One body on its way."""

    def __init__(self, body: bytes, unpack: Unpack) -> None:
        self.body = body
        self.unpack = unpack
        self.n_tokens = len(body) // MIN_TOKEN
        """May still be looked at."""
        self.turn_at = self.n_tokens - BLOCK_ELEMENTS

    def value_at(self, at: int, depth: int) -> tuple[Any, int]:
        """The value that starts here, and where it ends."""
        kind = self.body[at]
        if kind in _LONG_TEXTS:
            return self._text(at)
        counted = self._counted(at)
        if counted is None or depth >= MAX_DEPTH:
            raise _AtOnce
        is_map, n_elements, at = counted
        value: Any = {} if is_map else []
        start, n_run = at, 0
        for _ in range(n_elements):
            key_end = self._end(at) if is_map else at
            end = self._short_end(key_end, depth)
            if end - at > BLOCK_BYTES:
                self._add(value, start, at, n_run)
                element, end = self.value_at(key_end, depth + 1)
                if is_map:
                    value[self.unpack(self.body[at:key_end])] = element
                else:
                    value.append(element)
                start, n_run = end, 0
            else:
                n_run += 1
                if end - start > BLOCK_BYTES or n_run == BLOCK_ELEMENTS:
                    self._add(value, start, end, n_run)
                    start, n_run = end, 0
            at = end
        self._add(value, start, at, n_run)
        return value, at

    def _short_end(self, at: int, depth: int) -> int:
        """Where the value that starts here ends; beyond any block if it is read in pieces whatever its length is."""
        counted = self._counted(at)
        if counted is not None and counted[1] > _MANY and depth + 1 < MAX_DEPTH:
            return len(self.body) + BLOCK_BYTES
        return self._end(at)

    def _add(self, value: Any, start: int, end: int, n_elements: int) -> None:
        """Decode a run of elements."""
        if n_elements:
            head = b"\xdf" if type(value) is dict else b"\xdd"
            run = self.unpack(b"".join((head, n_elements.to_bytes(4, "big"), self.body[start:end])))
            if type(value) is dict:
                value.update(run)
            else:
                value += run
            give_way()

    def _counted(self, at: int) -> tuple[bool, int, int] | None:
        """Of a list or dict: is it a dict, how many elements, and where the first one starts."""
        kind = self.body[at]
        if 0x80 <= kind < 0xA0:
            return kind < 0x90, kind & 0x0F, at + 1
        n_bytes = _COUNTS.get(kind)
        if n_bytes is None:
            return None
        return kind >= 0xDE, int.from_bytes(self.body[at + 1 : at + 1 + n_bytes], "big"), at + 1 + n_bytes

    def _end(self, at: int) -> int:
        """Where the value that starts here ends."""
        body = self.body
        n_open, n_tokens = 1, self.n_tokens
        while n_open:
            kind = body[at]
            at += 1
            n_open -= 1
            n_tokens -= 1
            if kind < 0x80 or kind >= 0xE0:
                pass
            elif kind < 0x90:
                n_open += 2 * (kind & 0x0F)
            elif kind < 0xA0:
                n_open += kind & 0x0F
            elif kind < 0xC0:
                at += kind & 0x1F
            elif (n_bytes := _FIXED.get(kind)) is not None:
                at += n_bytes
            elif (n_bytes := _LENGTHS.get(kind)) is not None:
                at += n_bytes + int.from_bytes(body[at : at + n_bytes], "big") + (kind in _EXT)
            else:
                n_bytes = _COUNTS[kind] if kind in _COUNTS else _no_token()
                n_open += int.from_bytes(body[at : at + n_bytes], "big") * (2 if kind >= 0xDE else 1)
                at += n_bytes
            if n_tokens < self.turn_at:
                if n_tokens < 0:
                    raise _AtOnce
                give_way()
                self.turn_at = n_tokens - BLOCK_ELEMENTS
        self.n_tokens = n_tokens
        return at

    def _text(self, at: int) -> tuple[str | bytes, int]:
        """A long text or bytes."""
        body = self.body
        is_text = body[at] == _STR_32
        start = at + 5
        last = start + int.from_bytes(body[at + 1 : start], "big")
        if last > len(body):
            raise _AtOnce
        texts: list[str] = []
        pieces: list[bytes] = []
        while start < last:
            end = min(last, start + BLOCK_BYTES)
            while is_text and start < end < last and body[end] & 0xC0 == 0x80:
                end -= 1  # not inside of a character
            if end == start:
                raise _AtOnce
            if is_text:
                texts.append(str(body[start:end], "utf-8"))
            else:
                pieces.append(bytes(body[start:end]))
            start = end
            give_way()
        # Of bytes, joining lets other threads run.
        return ("".join(texts) if is_text else b"".join(pieces)), last


def _no_token() -> int:
    raise _AtOnce
