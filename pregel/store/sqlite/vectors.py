"""Vectors in a file: their bytes, and how near they are to each other.

Decides the form of a stored vector (32-bit floats, little-endian, of length 1) and the measure (cosine). Needs numpy, which
is asked for when a store has an index. Knows neither texts nor tables but the one for the width.
"""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

CHUNK: Final = 4096
"""Vectors that are compared at a time."""


def load() -> Any:
    """numpy. Raises `ImportError` that says what to install."""
    try:
        return importlib.import_module("numpy")
    except ImportError as error:
        raise ImportError(
            "SqliteStore(index=...) compares vectors with numpy, which is not installed; install pregel[vectors], or leave "
            "index out"
        ) from error


def packed(texts: Sequence[str], found: Sequence[Iterable[float]]) -> dict[str, bytes]:
    """The vectors of texts as they are stored.

    Raises:
        ValueError: they are not one per text, or have no numbers.
    """
    if len(texts) != len(found):
        raise ValueError(f"embedding of {len(texts)} texts gave {len(found)} vectors; expected one per text, in order")
    if not texts:
        return {}
    np = load()
    made: dict[str, bytes] = {}
    for text, numbers in zip(texts, found, strict=True):
        vector = np.asarray([*numbers], dtype="<f8")
        length = float(np.linalg.norm(vector))
        made[text] = (vector / length if length else vector).astype("<f4").tobytes()
    return made


def check_width(conn: sqlite3.Connection, own: Iterable[bytes]) -> None:
    """Raise `ValueError` unless vectors are as long as those in the file, and as each other."""
    widths = {len(vector) for vector in own}
    if not widths:
        return
    stored = conn.execute("SELECT length(vector) FROM store_vectors LIMIT 1").fetchone()
    if stored is not None:
        widths.add(stored[0])
    if len(widths) > 1:
        raise ValueError(
            f"vectors of {' and of '.join(str(width // 4) for width in sorted(widths))} numbers cannot be compared; use "
            f"one embedding per store"
        )


def scorer(target: bytes) -> Callable[[Iterable[tuple[int, bytes]]], dict[int, float]]:
    """How near items are to a vector: (item, vector) pairs -> item -> cosine of its nearest vector.

    Raises, when called, `ValueError` for vectors of another length.
    """

    def score(pairs: Iterable[tuple[int, bytes]]) -> dict[int, float]:
        np = load()
        wanted = np.frombuffer(target, dtype="<f4")
        best: dict[int, float] = {}
        rest = iter(pairs)
        while chunk := list(islice(rest, CHUNK)):
            if any(len(vector) != len(target) for _, vector in chunk):
                raise ValueError(
                    f"the query has a vector of {len(target) // 4} numbers, stored ones have another length; use one "
                    f"embedding per store"
                )
            matrix = np.frombuffer(b"".join(vector for _, vector in chunk), dtype="<f4").reshape(len(chunk), -1)
            for (item, _), nearness in zip(chunk, (matrix @ wanted).tolist(), strict=True):
                if item not in best or nearness > best[item]:
                    best[item] = nearness
        return best

    return score
