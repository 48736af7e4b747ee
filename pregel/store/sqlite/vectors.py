"""Vectors in a file: their bytes, and how near they are to each other.

Decides the form of a stored vector (32-bit floats, little-endian, as the embedding gave them) and the measures. Needs
numpy, which is asked for when a store has an index. Knows neither texts nor tables but the one for the width.

Each vector below a prefix is compared, chunk by chunk, by one product of a matrix and a vector. The extension sqlite-vec
compares each as well (an index it has only for tables of its own, without filters or prefixes), is slower at it, cannot be
loaded into the sqlite3 of many Pythons, and is therefore not used.
"""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

from pregel.errors import shown
from pregel.store.base.embed import Measure

CHUNK: Final = 1 << 20
"""Numbers that are compared at a time: 8 MB."""
DIGITS: Final = 12
"""Of a score: equal vectors are equally near, whatever the order in which sums are made."""


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
        vector = np.asarray([*numbers], dtype="<f4")
        if not np.isfinite(vector).all():
            raise ValueError(
                f"the embedding of {shown(text)} is {shown(vector.tolist())}; expected finite numbers that fit 32 bits"
            )
        made[text] = vector.tobytes()
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


def scorer(target: bytes, measure: Measure) -> Callable[[Iterable[tuple[int, bytes]]], dict[int, float]]:
    """How near items are to a vector: (item, vector) pairs -> item -> score of its nearest vector, higher is nearer.

    Raises, when called, `ValueError` for vectors of another length.
    """

    def score(pairs: Iterable[tuple[int, bytes]]) -> dict[int, float]:
        np = load()
        wanted = np.frombuffer(target, dtype="<f4").astype("f8")
        best: dict[int, float] = {}
        rest = iter(pairs)
        while chunk := list(islice(rest, max(1, CHUNK // max(1, len(wanted))))):
            if any(len(vector) != len(target) for _, vector in chunk):
                raise ValueError(
                    f"the query has a vector of {len(target) // 4} numbers, stored ones have another length; use one "
                    f"embedding per store"
                )
            matrix = np.frombuffer(b"".join(vector for _, vector in chunk), dtype="<f4").reshape(len(chunk), -1)
            scores = _MEASURES[measure](np, matrix.astype("f8"), wanted).round(DIGITS).tolist()
            for (item, _), nearness in zip(chunk, scores, strict=True):
                if item not in best or nearness > best[item]:
                    best[item] = nearness
        return best

    return score


def _cosine(np: Any, matrix: Any, wanted: Any) -> Any:
    lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(wanted)
    return (matrix @ wanted) / np.where(lengths == 0, 1, lengths)


_MEASURES: Final[dict[Measure, Callable[[Any, Any, Any], Any]]] = {
    "cosine": _cosine,
    "inner_product": lambda np, matrix, wanted: matrix @ wanted,
    "l2": lambda np, matrix, wanted: -np.linalg.norm(matrix - wanted, axis=1),
}
