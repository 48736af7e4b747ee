"""What the columns of an SQLite file hold: ids, parts of large bodies, checksums.

Decides how a row's values become columns and what tells that they are as they were stored. Runs no statement.

Invariant: a checksum is seeded with the place of its body, so a body that was moved does not check out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar
from zlib import crc32

from ormsgpack import packb

from checkpoint import ids
from checkpoint.base import (
    CorruptCheckpointError,
)
from checkpoint.chains import (
    PARENT_REV,
    PayloadRow,
    PlainCheckpoint,
    PlainWrite,
)
from checkpoint.ids import id_to_bytes

P = ParamSpec("P")
T = TypeVar("T")
PART: Final = 800
"""Bytes of a part: with a task path a row of it still fits a 4 KiB page without overflow pages."""
PARTED_LIMIT: Final = 8192
"""A larger body is one row again, up to twice `LARGE_PART`: its overflow pages waste little."""
RESULT_LIMIT: Final = 400
"""Bytes of a task's writes that have a place in a checkpoint's row: with a short header and metadata, and a path of up
to `PATH_LIMIT`, that still fits without overflow pages."""
PATH_LIMIT: Final = 128
LARGE_PART: Final = 8 * 4092 + 600
"""Bytes of a part of a body of more than twice that: eight overflow pages, and what fits beside the key. SQLite reads a
whole row to compare its key, so the place of a small row is found by reading some of these."""
MASK: Final = 0xFFFFFFFF
ROW: Final = "id, parent_rev, parent_id, up_rev, ts, step, source, flags, run_id, header_root"
ROW_COLUMNS: Final = tuple(ROW.split(", "))
RESULT_COLUMNS: Final = ("task_id", "task_path", "task_tag", "task_crc", "task_data")


def of_their_types(method: Callable[P, T]) -> Callable[P, T]:
    """For what puts rows together and calls nothing else: values of types that a column never has are damage.

    One bit makes a number a text, and a page in the place of another one has other columns; both are sound to SQLite.
    """

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (TypeError, ValueError, AttributeError) as error:
            raise CorruptCheckpointError(f"rows hold values that their columns cannot have ({error})") from error

    return call


def check_time(ts: int | str) -> None:
    """Raise `ValueError` for microseconds that are no time of a calendar."""
    if type(ts) is not str and not -62_135_596_800_000_000 <= ts < 253_402_300_800_000_000:  # type: ignore[operator]
        raise ValueError(f"{ts} in the place of a time")


def id_column(text: str) -> bytes | str:
    """16 bytes for a canonical UUID text, else the text."""
    return id_to_bytes(text) or text


def id_text(stored: bytes | str) -> str:
    """The text of an id column. Raises `CorruptCheckpointError` if it holds something else."""
    if isinstance(stored, str):
        return stored
    if type(stored) is not bytes:
        raise CorruptCheckpointError(f"a row has {stored!r:.50} for an id: it is one of another table")
    return ids.id_from_bytes(stored)


def text_of(stored: bytes | None) -> str | None:
    """A text read as bytes; whether it is damaged is found out later, by its checksum."""
    return None if stored is None else stored.decode("utf-8", "replace")


def placeholders(values: Sequence[Any]) -> str:
    """A question mark for each value."""
    return ",".join("?" * len(values))


def part_size(n_bytes: int) -> int | None:
    """Bytes of a part of such a body; None if it is one row."""
    if n_bytes <= PARTED_LIMIT:
        return PART if n_bytes > PART else None
    return LARGE_PART if n_bytes > 2 * LARGE_PART else None


def parts(data: bytes) -> Sequence[bytes | memoryview]:
    """The parts of a body: itself if it is one row."""
    size = part_size(len(data))
    if size is None:
        return [data]
    # Not copied before SQLite does that, part by part: a copy of all would take long, in one go.
    view = memoryview(data)
    return [view[at : at + size] for at in range(0, len(data), size)]


def header_crc(rev: int, header: bytes, metadata: str | bytes | None) -> int:
    """Checksum of a header and the metadata beside it, in its place."""
    crc = crc32(header, rev & MASK)
    if metadata is None:
        return crc
    return crc32(metadata if isinstance(metadata, bytes) else metadata.encode("utf-8", "surrogatepass"), crc)


def header_damage(rev: int) -> str:
    """What to say if it does not match."""
    return f"header or metadata of revision {rev} has a wrong checksum"


def row_crc(rev: int, columns: Sequence[Any]) -> int:
    """Checksum of `ROW_COLUMNS` as they are stored, in their place."""
    return crc32(packb(columns), rev & MASK)


def task_crc(rev: int, slot: int, task: bytes | str, path: str | None, tag: str | None, body: bytes) -> int:
    """Checksum of a task row in its place. `task`: as it is stored."""
    return crc32(body, crc32(packb((task, path or "", tag)), (rev ^ slot) & MASK))


def is_task_sound(
    crc: int | None, rev: int, slot: int, task: bytes | str, path: str | None, tag: str | None, body: bytes
) -> bool:
    """Does a task row have its checksum? That of rows of version 1 is of place and body alone."""
    return crc == task_crc(rev, slot, task, path, tag, body) or crc == crc32(body, (rev ^ slot) & MASK)


def row_damage(rev: int) -> str:
    """What to say if it does not match."""
    return f"the row of revision {rev} has a wrong checksum"


def checkpoint_columns(space_pk: int, row: PlainCheckpoint) -> tuple[Any, ...]:
    """A checkpoint's row, in the order of `tables.CHECKPOINT`."""
    rev, own_id, parent_rev, parent_id, up_rev, ts, step, source, flags, run_id, root, header, metadata = row
    if parent_id is not None:
        parent_id = id_column(parent_id)  # type: ignore[assignment]
    columns = id_to_bytes(own_id) or own_id, parent_rev, parent_id, up_rev, ts, step, source, flags, run_id, root
    crc = header_crc(rev, header, metadata)
    return (space_pk, rev, *columns, crc, header, metadata, row_crc(rev, columns))


def is_result(write: PlainWrite, row: PlainCheckpoint) -> bool:
    """Has a task row a place in the row of the checkpoint that its task ran from? `row`: of the step's end."""
    rev, _, slot, path, _, body = write
    return slot == 0 and rev == row[PARENT_REV] and len(body) <= RESULT_LIMIT and len(path) <= PATH_LIMIT


def result_columns(write: PlainWrite) -> tuple[Any, ...]:
    """What a task wrote as `RESULT_COLUMNS`."""
    rev, task, _, path, tag, body = write
    task_id = id_to_bytes(task) or task
    return task_id, path, tag, task_crc(rev, 0, task_id, path, tag, body), body


def payload_rows(space_pk: int, payloads: Sequence[PayloadRow]) -> list[tuple[Any, ...]]:
    """Rows of chains, with their parts, in the order of `tables.PAYLOAD`."""
    rows: list[tuple[Any, ...]] = []
    for number, root, seq, kind, tag, data in payloads:
        crc = crc32(data, (root ^ seq) & MASK)
        if len(data) <= PART:
            rows.append((space_pk, number, root, seq, 0, kind, tag, crc, data))
        else:
            rows += _parted_payload(space_pk, number, root, seq, kind, tag, crc, data)
    return rows


def _parted_payload(
    space_pk: int, number: int, root: int, seq: int, kind: int, tag: str | None, crc: int, data: bytes
) -> list[tuple[Any, ...]]:
    return [
        (space_pk, number, root, seq, part, kind, None if part else tag, None if part else crc, piece)
        for part, piece in enumerate(parts(data))
    ]
