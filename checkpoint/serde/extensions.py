"""The extension values of format `m1`: their codes, and what an encoder and a decoder see of the codec.

Decides the numbers. An encoder turns one instance into an extension value and asks its `Writer` for the bytes of the
parts; a decoder does the reverse with a `Reader`. Neither knows which way of writing is at work, nor how deep it is.

Invariant: the meaning of a code never changes and no code is used twice; a change gets a new format tag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from ormsgpack import Ext

# Extension codes of format m1. Never reuse one.
TUPLE, SET, FROZENSET, DEQUE, BYTEARRAY, BIG_INT, SURROGATES, MAP, COMPLEX = range(1, 10)
DATETIME, DATE, TIME, TIMEDELTA, TIMEZONE, ZONEINFO = range(10, 16)
UUID_, DECIMAL, FRACTION, PATH, IP, RANGE, SLICE, PATTERN = range(16, 24)
ORDERED_DICT, DEFAULT_DICT, COUNTER, NDARRAY, NUMPY_SCALAR, ERROR, SECRET = range(24, 31)
# From here on the body is `[name, ...]`, and a class is needed to read it.
CODEC, DATACLASS, MODEL, ENUM, NAMEDTUPLE, INSTANCE = range(40, 46)
FIRST_NAMED: Final = CODEC


class Writer(Protocol):
    """What an encoder may ask for while it takes a value apart; one extension level below the value."""

    @property
    def path(self) -> str:
        """Where the value is, as far as known."""
        ...

    def pack(self, value: Any) -> bytes:
        """Bytes of a value that belongs to the current one."""
        ...

    def can_pack(self, value: Any) -> bool:
        """Would `pack` take the value? For parts that may be left out."""
        ...

    def pack_headed(self, head: Any, value: Any) -> bytes:
        """Bytes of `[head, value]`; paths to what is inside name `value` only."""
        ...

    def pack_pairs(self, items: Mapping[Any, Any], *head: Any) -> bytes:
        """Bytes of `[*head, key, value, key, value, ...]`."""
        ...


class Reader(Protocol):
    """What a decoder may ask for; one extension level below the value."""

    def unpack(self, body: bytes) -> Any:
        """The value of bytes that `Writer.pack` and its kin made."""
        ...

    def find(self, name: str) -> tuple[type, bool]:
        """The class of a stored name, and whether it is registered. Raises `UnknownTypeError`."""
        ...


Encoder = Callable[[Any, Writer], Ext]
Decoder = Callable[[Reader, bytes], Any]
