"""`Scan` over a connection: every row of the file, page by page, with a verdict instead of an error. And its repair.

Decides statements and how the parts of a body are put together; as in `reader`, everything is bound. A connection inside
a transaction gives one consistent view.

Errors of SQLite that mean damage become `CorruptCheckpointError` here (and in `readable`, for who reads otherwise):
a malformed page, a text that is not UTF-8.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar
from zlib import crc32

from checkpoint.base import CorruptCheckpointError
from checkpoint.chains import CheckpointRow, WriteRow
from checkpoint.scan import Chain, ScannedBody, ScannedCheckpoint, ScannedSpace, ScannedTask, ScannedThread
from checkpoint.sqlite import columns, reader, tables, writer

P = ParamSpec("P")
T = TypeVar("T")

_MASK: Final = 0xFFFFFFFF
_MAX_PARTS: Final = -(-columns.PARTED_LIMIT // columns.PART)
_DAMAGE_CODES: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def readable() -> Iterator[None]:
    """Turn errors of SQLite that mean a damaged file into `CorruptCheckpointError`."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        raise CorruptCheckpointError(f"SQLite cannot read the file ({error})") from error


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # A text that cannot be decoded is an error of the Python module, which gives it no code.
        return "UTF-8" in str(error)
    # Our statements are fixed: a name that is not there was there when the file was made.
    return code & 0xFF in _DAMAGE_CODES or str(error).startswith("no such column")


def _readable(method: Callable[P, T]) -> Callable[P, T]:
    typed = columns.of_their_types(method)

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with readable():
            return typed(*args, **kwargs)

    return call


_HEADER_COLUMNS = (
    "c.rev, c.id, c.parent_rev, c.parent_id, c.up_rev, c.ts, c.step, c.source, c.flags, c.run_id, c.header_root, "
    "c.header, CAST(c.metadata AS BLOB), c.crc, c.row_crc"
)
# Of a thread that is being deleted, rows go table by table: nothing of it is looked at.
_SPACE = (
    "SELECT s.space_pk, s.ns, s.head_rev FROM threads t JOIN spaces s USING (thread_pk) "
    "WHERE t.thread_pk = ? AND t.thread_id IS NOT NULL"
)


class Scanner:
    """As `checkpoint.scan.Scan`."""

    __slots__ = ("conn",)

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    @_readable
    def threads(self, after: int | None, limit: int) -> list[ScannedThread]:
        """As `Scan.threads`."""
        rows = self.conn.execute(
            "SELECT thread_pk, thread_id, salt FROM threads WHERE thread_pk > ? AND thread_id IS NOT NULL "
            "AND (expires_at IS NULL OR expires_at > ?) ORDER BY thread_pk LIMIT ?",
            (-1 if after is None else after, time.time(), limit),
        ).fetchall()
        return _onward("threads", [ScannedThread(*row) for row in rows], after, lambda found: found.key)

    @_readable
    def thread(self, thread_id: str) -> ScannedThread | None:
        """As `Scan.thread`."""
        row = self.conn.execute(
            "SELECT thread_pk, thread_id, salt FROM threads WHERE thread_id = ? "
            "AND (expires_at IS NULL OR expires_at > ?)",
            (thread_id, time.time()),
        ).fetchone()
        return None if row is None else ScannedThread(*row)

    @_readable
    def spaces(self, thread_key: int, after: str | None, limit: int) -> list[ScannedSpace]:
        """As `Scan.spaces`."""
        rows = self.conn.execute(
            f"{_SPACE} AND s.ns {'>=' if after is None else '>'} ? ORDER BY s.ns LIMIT ?",
            (thread_key, after or "", limit),
        ).fetchall()
        return _onward("spaces", [ScannedSpace(*row) for row in rows], after, lambda found: found.ns)

    @_readable
    def space(self, thread_key: int, ns: str) -> ScannedSpace | None:
        """As `Scan.space`."""
        row = self.conn.execute(f"{_SPACE} AND s.ns = ?", (thread_key, ns)).fetchone()
        return None if row is None else ScannedSpace(*row)

    def place(self, space_pk: int) -> tuple[int, str]:
        """As `Scan.place`."""
        return reader.Reader(self.conn).place(space_pk)

    @_readable
    def identity(self, space_pk: int, rev: int) -> tuple[str, int] | None:
        """As `Scan.identity`."""
        row = self.conn.execute(
            "SELECT id, flags FROM checkpoints WHERE space_pk = ? AND rev = ?", (space_pk, rev)
        ).fetchone()
        return None if row is None else (columns.id_text(row[0]), row[1])

    @_readable
    def headers(self, space_pk: int, after: int | None, limit: int) -> list[ScannedCheckpoint]:
        """As `Scan.headers`."""
        rows = self.conn.execute(
            f"SELECT {_HEADER_COLUMNS} FROM checkpoints c WHERE c.space_pk = ? AND c.rev > ? ORDER BY c.rev LIMIT ?",
            (space_pk, -1 if after is None else after, limit),
        ).fetchall()
        return _onward("checkpoints", [_checkpoint(row) for row in rows], after, lambda found: found.row.rev)

    @_readable
    def line(self, space_pk: int, root: int, below: int) -> list[ScannedCheckpoint]:
        """As `Scan.line`."""
        rows = self.conn.execute(
            f"SELECT {_HEADER_COLUMNS} FROM checkpoints c WHERE c.space_pk = ? AND c.rev >= ? AND c.rev < ? "
            f"AND c.header_root = ? ORDER BY c.rev",
            (space_pk, root, below, root),
        ).fetchall()
        return [_checkpoint(row) for row in rows]

    @_readable
    def bodies(self, space_pk: int, after: tuple[int, int, int] | None, limit: int, n_bytes: int) -> list[ScannedBody]:
        """As `Scan.bodies`."""
        rows = self._page(
            "SELECT chan, root, seq, part, tag, crc, data FROM payloads WHERE space_pk = ? "
            "AND (chan, root, seq) > (?, ?, ?) ORDER BY chan, root, seq, part LIMIT ?",
            (space_pk, *(after or (-1, -1, -1))),
            limit,
            n_bytes,
            key=3,
        )
        found: list[ScannedBody] = []
        for (number, root, seq), parts in _groups(rows, key=3):
            part, tag, crc, _ = parts[0]
            body = b"".join([data for _, _, _, data in parts])
            is_sound = crc32(body, (root ^ seq) & _MASK) == crc
            damage = _damage(f"chain {number}/{root}, row {seq}", parts, is_sound)
            found.append(ScannedBody(number, root, seq, tag, body, damage, is_going=part > 0))
        return _onward("payloads", found, after, lambda one: one[:3])

    @_readable
    def count_rows(self, space_pk: int, number: int, root: int, first: int, last: int) -> int:
        """As `Scan.count_rows`."""
        n_rows: int = self.conn.execute(
            "SELECT count(DISTINCT seq) FROM payloads WHERE space_pk = ? AND chan = ? AND root = ? "
            "AND seq BETWEEN ? AND ?",
            (space_pk, number, root, first, last),
        ).fetchone()[0]
        return n_rows

    @_readable
    def chain_sizes(self, space_pk: int, after: tuple[int, int] | None, limit: int) -> list[Chain]:
        """As `Scan.chain_sizes`."""
        rows = self.conn.execute(
            "SELECT chan, root, max(seq), sum(length(data)) FROM payloads WHERE space_pk = ? "
            "AND (chan, root) > (?, ?) GROUP BY chan, root ORDER BY chan, root LIMIT ?",
            (space_pk, *(after or (-1, -1)), limit),
        ).fetchall()
        return _onward("payloads", [Chain(*row) for row in rows], after, lambda found: (found.number, found.root))

    @_readable
    def bytes_behind(self, space_pk: int, number: int, root: int, seq: int) -> int:
        """As `Scan.bytes_behind`."""
        n_bytes: int = self.conn.execute(
            "SELECT coalesce(sum(length(data)), 0) FROM payloads WHERE space_pk = ? AND chan = ? AND root = ? "
            "AND seq > ?",
            (space_pk, number, root, seq),
        ).fetchone()[0]
        return n_bytes

    @_readable
    def writes(self, space_pk: int, after: tuple[int, str, int] | None, limit: int, n_bytes: int) -> list[ScannedTask]:
        """As `Scan.writes`."""
        key = (-1, "", 0) if after is None else (after[0], columns.id_column(after[1]), after[2])
        rows = self._page(
            "SELECT rev, task_id, slot, part, task_path, tag, crc, data FROM task_writes WHERE space_pk = ? "
            "AND (rev, task_id, slot) > (?, ?, ?) UNION ALL "
            "SELECT rev, task_id, 0, 0, task_path, task_tag, task_crc, task_data FROM checkpoints WHERE space_pk = ? "
            "AND rev >= ? AND (rev, task_id, 0) > (?, ?, ?) AND task_id IS NOT NULL "
            "ORDER BY rev, task_id, slot, part LIMIT ?",
            (space_pk, *key, space_pk, key[0], *key),
            limit,
            n_bytes,
            key=3,
        )
        found: list[ScannedTask] = []
        for (rev, task, slot), parts in _groups(rows, key=3):
            _, path, tag, crc, _ = parts[0]
            task_id = columns.id_text(task)
            body = b"".join([part[-1] for part in parts])
            is_sound = columns.is_task_sound(crc, rev, slot, task, path, tag, body)
            damage = _damage(f"writes of task {task_id!r}, slot {slot}", parts, is_sound)
            found.append(ScannedTask(WriteRow(rev, task_id, slot, path or "", tag, body), damage))
        return _onward("task_writes", found, after, lambda one: (one.row.rev, one.row.task_id, one.row.slot), _task_key)

    @_readable
    def write_sizes(self, space_pk: int) -> tuple[int, int]:
        """As `Scan.write_sizes`."""
        n_rows, n_bytes = self.conn.execute(
            "SELECT coalesce(sum(part = 0), 0), coalesce(sum(length(data)), 0) FROM ("
            "SELECT part, data FROM task_writes WHERE space_pk = ? UNION ALL "
            "SELECT 0, task_data FROM checkpoints WHERE space_pk = ? AND task_id IS NOT NULL)",
            (space_pk, space_pk),
        ).fetchone()
        return n_rows, n_bytes

    @_readable
    def aliases(self, space_pk: int, after: str | None, limit: int) -> list[tuple[str, int]]:
        """As `Scan.aliases`."""
        rows = self.conn.execute(
            f"SELECT id, rev FROM aliases WHERE space_pk = ? {'' if after is None else 'AND id > ?'} "
            f"ORDER BY id LIMIT ?",
            (space_pk, limit) if after is None else (space_pk, columns.id_column(after), limit),
        ).fetchall()
        found = [(columns.id_text(stored), rev) for stored, rev in rows]
        return _onward("aliases", found, after, lambda one: one[0], _id_key)

    @_readable
    def alias(self, space_pk: int, checkpoint_id: str) -> int | None:
        """As `Scan.alias`."""
        return reader.Reader(self.conn).alias(space_pk, checkpoint_id)

    def file_problems(self) -> list[str]:
        """As `Scan.file_problems`."""
        try:
            # Not `quick_check`: an index that has lost an entry makes a thread invisible.
            found = [row[0] for row in self.conn.execute("PRAGMA integrity_check").fetchall()]
            lost = {row[0] for row in self.conn.execute("PRAGMA foreign_key_check").fetchall()}
        except sqlite3.DatabaseError as error:
            return [f"SQLite cannot check the file ({error})"]
        problems = [] if found == ["ok"] else [f"integrity_check: {line}" for line in found]
        return problems + [f"table {table!r} has rows of namespaces or threads that do not exist" for table in lost]

    def file_sizes(self) -> tuple[int, int]:
        """As `Scan.file_sizes`."""
        for _, name, path in self.conn.execute("PRAGMA database_list").fetchall():
            if name == "main" and path:
                return _size(path), _size(f"{path}-wal")
        return 0, 0

    def _page(self, statement: str, values: Sequence[Any], limit: int, n_bytes: int, *, key: int) -> list[Any]:
        """About `limit` rows or `n_bytes` of bodies, so that the rows of the last key are all there."""
        # Enough to hold the parts of one body beyond the limit: a page always gets on.
        most = limit + _MAX_PARTS
        cursor = self.conn.execute(statement, (*values, most))
        rows: list[Any] = []
        try:
            for row in cursor:
                is_new = bool(rows) and row[:key] != rows[-1][:key]
                if is_new and (n_bytes <= 0 or len(rows) >= limit):
                    return rows
                rows.append(row)
                n_bytes -= len(row[-1])
        finally:
            # An open cursor would keep its view of the file beyond the end of the transaction.
            cursor.close()
        while len(rows) == most and rows[0][:key] == rows[-1][:key]:
            # A very large body, or more parts than a sound one has: all of one key have to be seen together.
            most *= 4
            rows = self.conn.execute(statement, (*values, most)).fetchall()
        if len(rows) == most:
            last = rows[-1][:key]
            while rows[-1][:key] == last:
                rows.pop()
        return rows


class Mender(writer.Writer):
    """What a repair may do, as `checkpoint.repair.Mending`."""

    __slots__ = ()

    def remove_alias(self, space_pk: int, checkpoint_id: str) -> None:
        """As `Mending.remove_alias`."""
        self.conn.execute(
            "DELETE FROM aliases WHERE space_pk = ? AND id = ?", (space_pk, columns.id_column(checkpoint_id))
        )

    def remove_checkpoint(self, space_pk: int, rev: int) -> None:
        """As `Mending.remove_checkpoint`."""
        self.conn.execute("DELETE FROM checkpoints WHERE space_pk = ? AND rev = ?", (space_pk, rev))
        self.conn.execute("DELETE FROM task_writes WHERE space_pk = ? AND rev = ?", (space_pk, rev))

    def remove_write(self, space_pk: int, rev: int, task_id: str, slot: int) -> None:
        """As `Mending.remove_write`."""
        tables.drop_task(self.conn, space_pk, rev, columns.id_column(task_id), slot)

    def remove_rows(self, space_pk: int, number: int, root: int, first: int) -> None:
        """As `Mending.remove_rows`."""
        self.conn.execute(
            "DELETE FROM payloads WHERE space_pk = ? AND chan = ? AND root = ? AND seq >= ?",
            (space_pk, number, root, first),
        )


def _onward(
    table: str, page: list[T], after: Any, key_of: Callable[[T], Any], order: Callable[[Any], Any] = lambda key: key
) -> list[T]:
    """The page itself, if its keys ascend, and lie behind `after`: those of a damaged tree may lead round in a circle.

    `order`: a key as SQLite orders it.
    """
    before = None if after is None else order(after)
    for one in page:
        key = order(key_of(one))
        if before is not None and not key > before:
            raise CorruptCheckpointError(f"rows of table {table!r} are not in the order of their keys")
        before = key
    return page


def _id_key(checkpoint_id: str) -> Any:
    # Texts come before blobs.
    stored = columns.id_column(checkpoint_id)
    return isinstance(stored, bytes), stored


def _task_key(key: tuple[int, str, int]) -> Any:
    rev, task_id, slot = key
    return rev, _id_key(task_id), slot


def _checkpoint(row: Any) -> ScannedCheckpoint:
    rev, own, parent_rev, parent, *rest, header, metadata, crc, seal = row
    found = CheckpointRow._make(
        (
            rev,
            columns.id_text(own),
            parent_rev,
            None if parent is None else columns.id_text(parent),
            *rest,
            header,
            None if metadata is None else metadata.decode("utf-8", "replace"),
        )
    )
    for number in (
        rev,
        found.parent_rev or 0,
        found.up_rev or 0,
        found.step,
        found.source,
        found.flags,
        found.header_root,
    ):
        if type(number) is not int:
            raise TypeError(f"{number!r:.50} in the place of a number")
    columns.check_time(found.ts)
    damage: str | None = None
    if columns.header_crc(rev, header, metadata) != crc:
        damage = columns.header_damage(rev)
    elif seal is not None and seal != columns.row_crc(rev, (own, parent_rev, parent, *rest)):
        damage = columns.row_damage(rev)
    return ScannedCheckpoint(found, damage)


def _groups(rows: Sequence[Any], *, key: int) -> Iterator[tuple[Any, list[Any]]]:
    """The rows of each key, without it."""
    now: Any = None
    parts: list[Any] = []
    for row in rows:
        if row[:key] != now:
            if parts:
                yield now, parts
            now, parts = row[:key], []
        parts.append(row[key:])
    if parts:
        yield now, parts


def _damage(what: str, parts: Sequence[Any], is_sound: bool) -> str | None:
    """Why a body cannot be trusted, None if it checks out. `parts`: rows that begin with their part number; `is_sound`: is
    the checksum right?"""
    for expected, part in enumerate(parts):
        if part[0] != expected:
            return f"{what} lacks part {expected}"
    return None if is_sound else f"{what} has a wrong checksum"


def _size(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0
