"""Checkpoint ids and times: how they are made and how they are read back.

Decides the bits of an id and the text of a time. Knows nothing of savers, threads or steps beyond the integers it is
given.

An id is a version 6 UUID: 60 bits of time in units of 100 ns, 14 bits of superstep, 48 bits of "node". The savers of
this package put `rev XOR salt` into the node field, so that the rev of a checkpoint, and with it the primary key of
its row, can be read off the id; everybody else gets random bits there.

Invariants
1. Ids of one process are strictly increasing as text and as bytes, over all threads, whatever the clock does.
2. `rev_of(checkpoint_id(step, node_of(rev, salt)), salt) == rev` for every rev below 2**48.
3. `timestamp_from_us(timestamp_to_us(text)) == text` whenever `timestamp_to_us` returns a number.

Source: RFC 9562, section 5.6 (UUID version 6); the step in the clock sequence follows LangGraph's documented ids.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from datetime import UTC, datetime
from typing import Final

_SEQ_MASK: Final = (1 << 14) - 1
_GREGORIAN: Final = 0x01B21DD213814000
"""Units of 100 ns between 1582-10-15 and 1970-01-01."""
_CANONICAL_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_CANONICAL_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", re.ASCII)

_from_hex: Final = bytes.fromhex
"""Looked up once: a class method is bound anew each time."""

_lock = threading.Lock()
_last = 0
"""Time of the newest id, in units of 100 ns since 1970."""
# The first 48 bits of an id change every 0.4 ms only; their text is kept between calls, as a format for the rest.
_window = 0
"""Time at which the low 12 bits of `_format` are zero."""
_format = ""


def checkpoint_id(step: int, node: int | None = None) -> str:
    """The text of a new id, strictly increasing within the process."""
    global _last, _window, _format
    if node is None:
        node = random.getrandbits(48)
    _lock.acquire()  # not `with`: it costs a tenth of the whole function
    try:
        now = time.time_ns() // 100
        if now <= _last:
            now = _last + 1
        _last = now
        low = now - _window
        if low > 0xFFF:
            since_1582 = now + _GREGORIAN
            low = since_1582 & 0xFFF
            _window = now - low
            _format = f"{since_1582 >> 28:08x}-{since_1582 >> 12 & 0xFFFF:04x}-6%03x-%04x-%012x"
        text = _format
    finally:
        _lock.release()
    return text % (low, step & 0x3FFF | 0x8000, node & 0xFFFFFFFFFFFF)


def _renew_lock() -> None:
    # A child forked while another thread held the lock would wait for it forever.
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def new_salt() -> int:
    """48 random bits for a new thread of checkpoints."""
    return int.from_bytes(os.urandom(6), "big")


def node_of(rev: int, salt: int) -> int:
    """The node field of the id of checkpoint `rev` in a thread with this salt."""
    return rev ^ salt


def rev_of(checkpoint_id: str, salt: int) -> int | None:
    """The rev that an id carries, None if the text is no canonical UUID.

    An id made elsewhere yields some number too: compare the id of the row that is found.
    """
    if _CANONICAL_ID.fullmatch(checkpoint_id) is None:
        return None
    return int(checkpoint_id[24:], 16) ^ salt


def id_to_bytes(checkpoint_id: str) -> bytes | None:
    """The 16 bytes of a canonical UUID text, None for any other text. Bytes sort as the texts do."""
    # Not by the pattern: two of these are made for every superstep that is written to a file.
    digits = checkpoint_id.replace("-", "")
    try:
        blob = _from_hex(digits)
    except ValueError:
        return None
    # It also takes capitals and spaces. The dashes stand at 8, 13, 18 and 23.
    if blob.hex() == digits and checkpoint_id[8:24:5] == "----" and len(checkpoint_id) == 36 and len(blob) == 16:
        return blob
    return None


def id_from_bytes(blob: bytes) -> str:
    """The canonical text of 16 bytes."""
    text = blob.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def step_of(checkpoint_id: str) -> int:
    """The superstep in a canonical id; 14 bits, the upper half read as negative."""
    seq = int(checkpoint_id[19:23], 16) & _SEQ_MASK
    return seq - (1 << 14) if seq >> 13 else seq


# ---- times

# (second, its text up to the dot): one tuple, so that threads read and replace it whole.
_second: tuple[int, str] = (-1, "")


def now_us() -> int:
    """Microseconds since the epoch, UTC, by the wall clock."""
    return time.time_ns() // 1000


def timestamp() -> str:
    """Now, as ISO-8601 in UTC, always with six digits of microseconds."""
    return timestamp_from_us(time.time_ns() // 1000)


def timestamp_from_us(us: int) -> str:
    """The text of a time given in microseconds since the epoch (years 1 to 9999)."""
    global _second
    second, micro = divmod(us, 1_000_000)
    known, text = _second
    if known != second:
        text = datetime.fromtimestamp(second, UTC).isoformat()[:19]
        _second = (second, text)
    return f"{text}.{micro:06d}+00:00"


def timestamp_to_us(text: str) -> int | None:
    """Microseconds of a time that `timestamp_from_us` would write in exactly this way, None for any other text."""
    if _CANONICAL_TIME.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    span = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds
