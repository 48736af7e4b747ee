"""Large bodies in memory of their own, for the time from their encoding to their storing.

Decides where the megabytes of a large value wait until they are stored. The C library keeps what was freed until there is
much of it, and then gives it back to the operating system at once, in whatever thread frees the last bytes, with the
interpreter in hand: 5 ms for 20 MB, or not, depending on the sizes of all that was allocated before. A mapping is given
back when it is closed, and other threads run meanwhile.

Invariant: a mapped body is read only, and nobody uses it after `unmap`.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress
from typing import Final, cast

from checkpoint.turns import BLOCK_BYTES, give_way

MIN_MAPPED: Final = 128 * 1024
"""Bytes from which a body is worth a mapping, which takes whole pages."""


def mapped(pieces: list[bytes]) -> bytes:
    """One body, typed as what it is to all who read it: a `memoryview` of a mapping. Takes the pieces out of the list."""
    end = sum(map(len, pieces))
    if sys.platform == "win32":
        memory = mmap.mmap(-1, end)
    else:
        memory = mmap.mmap(-1, end, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    room = BLOCK_BYTES
    while pieces:
        piece = pieces.pop()
        end -= len(piece)
        for at in range(0, len(piece), BLOCK_BYTES):
            part = piece[at : at + BLOCK_BYTES]
            memory[end + at : end + at + len(part)] = part
            room -= len(part)
            if room < 0:
                give_way()
                room = BLOCK_BYTES
    return cast("bytes", memoryview(memory).toreadonly())


def unmap(body: bytes) -> bool:
    """Give the memory of a body back, if it is a mapped one. Was it?"""
    view: object = body
    if not isinstance(view, memoryview) or not isinstance(memory := view.obj, mmap.mmap):
        return False
    # Whoever still looks at it keeps it.
    with suppress(BufferError):
        view.release()
        memory.close()
    return True
