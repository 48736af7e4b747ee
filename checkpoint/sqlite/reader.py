"""`Rows` over a connection: what is stored, read with few statements, checked, and not decoded.

Knows no threads, locks, files or loops: `saver` calls it. A connection is anything with `execute` of
`sqlite3.Connection`. Every statement binds its values; no stored or given text becomes SQL.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final
from zlib import crc32

from checkpoint import ids
from checkpoint.base import (
    N_BITS,
    CorruptCheckpointError,
)
from checkpoint.chains import (
    PARENT_PRUNED,
    STUB,
    CheckpointRow,
    StoredChain,
    WriteRow,
    check_line,
)
from checkpoint.rows import Address, Entry, Found, Head
from checkpoint.sqlite.columns import (
    MASK,
    check_time,
    header_crc,
    header_damage,
    id_column,
    id_text,
    is_task_sound,
    of_their_types,
    placeholders,
    row_crc,
    row_damage,
    text_of,
)

CHANNELS_PER_STATEMENT: Final = 1000


class Reader:
    """`Rows` over a connection; one consistent view if the connection is inside a transaction."""

    __slots__ = ("conn",)

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    def address(self, thread_id: str, ns: str) -> Address | None:
        """As `Rows.address`."""
        row = self.conn.execute(
            "SELECT t.thread_pk, t.salt, t.epoch, t.claims, s.space_pk, s.head_rev, r.head_rev, "
            "t.lease_owner, t.lease_until FROM threads t "
            "LEFT JOIN spaces s ON s.thread_pk = t.thread_pk AND s.ns = ? "
            "LEFT JOIN spaces r ON r.thread_pk = t.thread_pk AND r.ns = '' WHERE t.thread_id = ? "
            "AND (t.expires_at IS NULL OR t.expires_at > ?)",
            (ns, thread_id, time.time()),
        ).fetchone()
        return None if row is None else Address(*row)

    def place(self, space_pk: int) -> tuple[int, str]:
        """As `Rows.place`."""
        row = self.conn.execute(
            "SELECT t.salt, s.ns FROM spaces s JOIN threads t ON t.thread_pk = s.thread_pk WHERE s.space_pk = ?",
            (space_pk,),
        ).fetchone()
        if row is None:
            raise CorruptCheckpointError(f"namespace {space_pk} has no row")
        return row[0], row[1]

    def header_before(self, space_pk: int, header_root: int, rev: int) -> int | None:
        """As `Rows.header_before`."""
        found: int | None = self.conn.execute(
            "SELECT max(rev) FROM checkpoints WHERE space_pk = ? AND rev >= ? AND rev < ? AND header_root = ?",
            (space_pk, header_root, rev, header_root),
        ).fetchone()[0]
        return found

    def all_spaces(self, thread_id: str | None) -> list[int]:
        """As `Rows.all_spaces`."""
        statement = "SELECT s.space_pk FROM spaces s JOIN threads t USING (thread_pk) WHERE t.thread_id IS NOT NULL"
        if thread_id is not None:
            return [pk for (pk,) in self.conn.execute(f"{statement} AND t.thread_id = ?", (thread_id,)).fetchall()]
        return [pk for (pk,) in self.conn.execute(statement).fetchall()]

    def has_space(self, space_pk: int) -> bool:
        """As `Rows.has_space`."""
        found = self.conn.execute(
            "SELECT 1 FROM spaces s JOIN threads t USING (thread_pk) WHERE s.space_pk = ? AND t.thread_id IS NOT NULL",
            (space_pk,),
        ).fetchone()
        return found is not None

    def checkpoint(self, space_pk: int, rev: int) -> Found | None:
        """As `Rows.checkpoint`."""
        return self.checkpoints(space_pk, [rev]).get(rev)

    def checkpoints(self, space_pk: int, revs: Sequence[int]) -> dict[int, Found]:
        """As `Rows.checkpoints`."""
        rows = self.conn.execute(
            # Metadata as bytes: damaged, they need not be a text.
            "SELECT c.rev, c.header, c.crc, CAST(c.metadata AS BLOB), c.parent_rev, c.flags, t.id, t.parent_id, "
            "t.up_rev, t.ts, t.step, t.source, t.run_id, t.header_root, t.row_crc, p.id, p.flags, t.rev FROM checkpoints t "
            "JOIN checkpoints c ON c.space_pk = t.space_pk AND c.rev BETWEEN t.header_root AND t.rev "
            "AND c.header_root = t.header_root "
            "LEFT JOIN checkpoints p ON c.rev = t.rev AND p.space_pk = t.space_pk AND p.rev = t.parent_rev "
            f"WHERE t.space_pk = ? AND t.rev IN ({placeholders(revs)}) ORDER BY t.rev, c.rev",
            (space_pk, *revs),
        ).fetchall()
        found = ((rev, self._found(rev, [row[:-1] for row in own])) for rev, own in groupby(rows, itemgetter(-1)))
        return {rev: one for rev, one in found if one is not None}

    def heads(self, after: int | None, limit: int) -> list[Head]:
        """As `Rows.heads`."""
        rows = self.conn.execute(
            "SELECT t.thread_id, t.thread_pk, t.salt, t.epoch, t.claims, s.space_pk, s.head_rev, s.head_rev, "
            "t.lease_owner, t.lease_until FROM threads t JOIN spaces s ON s.thread_pk = t.thread_pk AND s.ns = '' "
            "WHERE t.thread_pk > ? AND t.thread_id IS NOT NULL AND (t.expires_at IS NULL OR t.expires_at > ?) "
            "AND s.head_rev IS NOT NULL ORDER BY t.thread_pk LIMIT ?",
            (-1 if after is None else after, time.time(), limit),
        ).fetchall()
        return [Head(row[1], row[0], Address(*row[1:])) for row in rows]

    def checkpoints_at(self, places: Sequence[tuple[int, int]]) -> dict[int, Found]:
        """As `Rows.checkpoints_at`."""
        rows = self.conn.execute(
            f"WITH want (space, at) AS (VALUES {','.join(['(?,?)'] * len(places))}) "
            "SELECT c.rev, c.header, c.crc, CAST(c.metadata AS BLOB), c.parent_rev, c.flags, t.id, t.parent_id, "
            "t.up_rev, t.ts, t.step, t.source, t.run_id, t.header_root, t.row_crc, p.id, p.flags, t.rev, t.space_pk "
            "FROM want CROSS JOIN checkpoints t ON t.space_pk = want.space AND t.rev = want.at "
            "JOIN checkpoints c ON c.space_pk = t.space_pk AND c.rev BETWEEN t.header_root AND t.rev "
            "AND c.header_root = t.header_root "
            "LEFT JOIN checkpoints p ON c.rev = t.rev AND p.space_pk = t.space_pk AND p.rev = t.parent_rev "
            "ORDER BY t.space_pk, c.rev",
            [number for place in places for number in place],
        ).fetchall()
        groups = ((space_pk, list(own)) for space_pk, own in groupby(rows, itemgetter(-1)))
        found = ((space_pk, self._found(own[0][-2], [row[:-2] for row in own])) for space_pk, own in groups)
        return {space_pk: one for space_pk, one in found if one is not None}

    @of_their_types
    def _found(self, rev: int, rows: list[Any]) -> Found | None:
        if not rows:
            # The row itself always matches, unless its header chain is damaged.
            return None
        _, header, _, metadata, parent_rev, flags, own, *more = rows[-1]
        parent, up_rev, ts, step, source, run_id, root, seal, above, flags_above = more
        if flags & STUB:
            return None
        check_time(ts)
        if type(step) is not int:
            raise TypeError(f"{step!r:.50} in the place of a step")
        checkpoint_id = id_text(own)
        columns = own, parent_rev, parent, up_rev, ts, step, source, flags, run_id, root
        if seal is not None and seal != row_crc(rev, columns):
            raise CorruptCheckpointError(row_damage(rev), checkpoint_id=checkpoint_id)
        headers: list[tuple[int, bytes]] = []
        revs: set[int] = set()
        for at, its_header, crc, its_metadata, its_parent, its_flags, *_ in rows:
            if header_crc(at, its_header, its_metadata) != crc:
                raise CorruptCheckpointError(header_damage(at), checkpoint_id=checkpoint_id)
            if at != root:
                check_line(root, revs, at, its_parent, its_flags)
            headers.append((at, its_header))
            revs.add(at)
        if headers[0][0] != root:
            raise CorruptCheckpointError(
                f"header of revision {root}, which the others build on, is gone", checkpoint_id=checkpoint_id
            )
        if parent_rev is not None and above is None and not flags & PARENT_PRUNED:
            raise CorruptCheckpointError(
                f"its parent, revision {parent_rev}, is gone and not marked as pruned", checkpoint_id=checkpoint_id
            )
        row = CheckpointRow(
            rev,
            checkpoint_id,
            parent_rev,
            None if parent is None else id_text(parent),
            up_rev,
            ts,
            step,
            source,
            flags,
            run_id,
            root,
            header,
            None if metadata is None else metadata.decode(),
        )
        return Found(row, headers, None if above is None or flags_above & STUB else id_text(above))

    def alias(self, space_pk: int, checkpoint_id: str) -> int | None:
        """As `Rows.alias`."""
        row = self.conn.execute(
            "SELECT rev FROM aliases WHERE space_pk = ? AND id = ?", (space_pk, id_column(checkpoint_id))
        ).fetchone()
        return None if row is None else row[0]

    def chains(self, space_pk: int, wanted: Sequence[tuple[int, int, int]]) -> Mapping[int, StoredChain]:
        """As `Rows.chains`."""
        return {number: rows for (number, _), rows in self.lines(space_pk, wanted).items()}

    def lines(self, space_pk: int, wanted: Sequence[tuple[int, int, int]]) -> Mapping[tuple[int, int], StoredChain]:
        """As `Rows.lines`."""
        stored: dict[tuple[int, int], StoredChain] = {}
        for at in range(0, len(wanted), CHANNELS_PER_STATEMENT):
            self._read_chains(space_pk, wanted[at : at + CHANNELS_PER_STATEMENT], stored)
        return stored

    @of_their_types
    def _read_chains(
        self, space_pk: int, wanted: Sequence[tuple[int, int, int]], stored: dict[tuple[int, int], StoredChain]
    ) -> None:
        values = ",".join(["(?,?,?)"] * len(wanted))
        # The row after the last one tells whether this chain may still grow; its body is not read.
        rows = self.conn.execute(
            f"WITH want (chan, root, seq) AS (VALUES {values}) "
            "SELECT p.chan, p.root, p.seq, p.part, p.tag, p.crc, CASE WHEN p.seq <= want.seq THEN p.data END "
            "FROM want CROSS JOIN payloads p ON p.space_pk = ? AND p.chan = want.chan AND p.root = want.root "
            "AND p.seq <= want.seq + 1",
            [*(number for want in wanted for number in want), space_pk],
        ).fetchall()
        # They come in this order mostly; SQLite, asked for it, would copy the bodies once more.
        rows.sort(key=itemgetter(0, 1, 2, 3))
        now = -1, -1
        bodies: list[tuple[str | None, bytes]] = []
        pieces: list[bytes] = []
        first_tag: str | None = None
        first_crc = 0
        for at, (chan, root, seq, part, tag, crc, data) in enumerate(rows):
            if (chan, root) != now:
                now, bodies, pieces = (chan, root), [], []
                stored[now] = bodies, False
            if data is None:
                stored[now] = bodies, True
                continue
            if part != len(pieces) or seq != len(bodies):
                raise CorruptCheckpointError(f"chain {chan}/{root} has a gap before row {seq}, part {part}")
            if part == 0:
                first_tag, first_crc = tag, crc
            if part or (at + 1 < len(rows) and rows[at + 1][3]):
                pieces.append(data)
                rows[at] = ()  # freed as soon as it is joined, not all at once at the end
                if at + 1 < len(rows) and rows[at + 1][3]:
                    continue
                data = b"".join(pieces)
                pieces = []
            if crc32(data, (root ^ seq) & MASK) != first_crc:
                raise CorruptCheckpointError(f"chain {chan}/{root}, row {seq} has a wrong checksum")
            bodies.append((first_tag, data))

    def tasks(self, space_pk: int, rev: int) -> list[WriteRow]:
        """As `Rows.tasks`."""
        return self.tasks_of(space_pk, [rev]).get(rev, [])

    def tasks_of(self, space_pk: int, revs: Sequence[int]) -> Mapping[int, list[WriteRow]]:
        """As `Rows.tasks_of`."""
        marks = placeholders(revs)
        rows = self.conn.execute(
            "SELECT task_id, slot, part, task_path, tag, crc, data, rev FROM task_writes "
            f"WHERE space_pk = ? AND rev IN ({marks}) UNION ALL "
            "SELECT task_id, 0, 0, task_path, task_tag, task_crc, task_data, rev FROM checkpoints "
            f"WHERE space_pk = ? AND rev IN ({marks}) AND task_id IS NOT NULL ORDER BY rev, task_id, slot, part",
            (space_pk, *revs, space_pk, *revs),
        ).fetchall()
        return {rev: self._tasks(rev, [row[:-1] for row in own]) for rev, own in groupby(rows, itemgetter(-1))}

    def tasks_at(self, places: Sequence[tuple[int, int]]) -> Mapping[int, list[WriteRow]]:
        """As `Rows.tasks_at`."""
        rows = self.conn.execute(
            f"WITH want (space, at) AS (VALUES {','.join(['(?,?)'] * len(places))}) "
            "SELECT w.task_id, w.slot, w.part, w.task_path, w.tag, w.crc, w.data, w.rev, w.space_pk FROM want "
            "CROSS JOIN task_writes w ON w.space_pk = want.space AND w.rev = want.at UNION ALL "
            "SELECT c.task_id, 0, 0, c.task_path, c.task_tag, c.task_crc, c.task_data, c.rev, c.space_pk FROM want "
            "CROSS JOIN checkpoints c ON c.space_pk = want.space AND c.rev = want.at WHERE c.task_id IS NOT NULL "
            "ORDER BY space_pk, task_id, slot, part",
            [number for place in places for number in place],
        ).fetchall()
        groups = ((space_pk, list(own)) for space_pk, own in groupby(rows, itemgetter(-1)))
        return {space_pk: self._tasks(own[0][-2], [row[:-2] for row in own]) for space_pk, own in groups}

    @staticmethod
    @of_their_types
    def _tasks(rev: int, rows: list[Any]) -> list[WriteRow]:
        writes: list[WriteRow] = []
        pieces: list[bytes] = []
        head: tuple[str | None, str | None, int | None] = None, None, None
        for at, (task, slot, part, path, tag, crc, data) in enumerate(rows):
            if part != len(pieces):
                raise CorruptCheckpointError(f"writes of task {id_text(task)!r} lack part {len(pieces)}")
            pieces.append(data)
            if part == 0:
                head = path, tag, crc
                if at and rows[at - 1][:2] == (task, slot):
                    raise CorruptCheckpointError(f"writes of task {id_text(task)!r} are stored twice")
            if at + 1 < len(rows) and rows[at + 1][2]:
                continue
            body = data if part == 0 else b"".join(pieces)
            pieces.clear()
            if not is_task_sound(head[2], rev, slot, task, head[0], head[1], body):
                raise CorruptCheckpointError(f"writes of task {id_text(task)!r} have a wrong checksum")
            writes.append(WriteRow(rev, id_text(task), slot, head[0] or "", head[1], body))
        writes.sort(key=lambda row: (row.path, row.task_id, row.slot))
        return writes

    def open_child(self, space_pk: int, up_rev: int, own: int) -> int | None:
        """As `Rows.open_child`."""
        # A child's rev is always greater than its parent's, which bounds the scan.
        row = self.conn.execute(
            "SELECT rev FROM checkpoints WHERE space_pk = ? AND rev > ? AND up_rev = ? AND flags & 1 = 0 "
            "AND (flags & 4 = 0 OR rev >> 20 IN (?, ?)) ORDER BY rev DESC LIMIT 1",
            (space_pk, up_rev, up_rev, own, up_rev >> N_BITS),
        ).fetchone()
        return None if row is None else row[0]

    def is_tip(self, space_pk: int, rev: int) -> bool:
        """As `Rows.is_tip`."""
        row = self.conn.execute(
            "SELECT 1 FROM checkpoints WHERE space_pk = ? AND rev > ? AND parent_rev = ? AND flags & 1 = 0 LIMIT 1",
            (space_pk, rev, rev),
        ).fetchone()
        return row is None

    def last_of_run(self, space_pk: int, run_id: str) -> int | None:
        """As `Rows.last_of_run`. Each entry of the index of runs ends with the table's key; stubs belong to no run."""
        row = self.conn.execute(
            "SELECT rev FROM checkpoints WHERE run_id = ? AND space_pk = ? ORDER BY rev DESC LIMIT 1",
            (run_id, space_pk),
        ).fetchone()
        return None if row is None else row[0]

    def children(self, thread_id: str, up_rev: int) -> list[tuple[str, int, int]]:
        """As `Rows.children`."""
        rows: list[tuple[str, int, int]] = self.conn.execute(
            "SELECT s.ns, s.space_pk, max(c.rev) FROM threads t JOIN spaces s USING (thread_pk) "
            "JOIN checkpoints c ON c.space_pk = s.space_pk AND c.rev > ? AND c.up_rev = ? AND c.flags & 1 = 0 "
            "AND (c.flags & 4 = 0 OR c.rev >> 20 = ?) WHERE t.thread_id = ? GROUP BY s.space_pk",
            (up_rev, up_rev, up_rev >> N_BITS, thread_id),
        ).fetchall()
        return rows

    def exists(self, thread_id: str, ns: str | None, rev: int) -> bool:
        """As `Rows.exists`."""
        row = self.conn.execute(
            "SELECT 1 FROM threads t JOIN spaces s ON s.thread_pk = t.thread_pk "
            f"{'' if ns is None else 'AND s.ns = ? '}"
            "JOIN checkpoints c ON c.space_pk = s.space_pk AND c.rev = ? WHERE t.thread_id = ? LIMIT 1",
            (rev, thread_id) if ns is None else (ns, rev, thread_id),
        ).fetchone()
        return row is not None

    def rev_in_thread(self, thread_id: str, checkpoint_id: str) -> int | None:
        """As `Rows.rev_in_thread`."""
        row = self.conn.execute(
            "SELECT salt FROM threads WHERE thread_id = ? AND (expires_at IS NULL OR expires_at > ?)",
            (thread_id, time.time()),
        ).fetchone()
        if row is None:
            return None
        stored = id_column(checkpoint_id)
        rev = ids.rev_of(checkpoint_id, row[0])
        if rev is not None:
            row = self.conn.execute(
                "SELECT c.rev FROM threads t JOIN spaces s USING (thread_pk) "
                "JOIN checkpoints c ON c.space_pk = s.space_pk AND c.rev = ? "
                "WHERE t.thread_id = ? AND c.id = ? AND c.flags & 1 = 0",
                (rev, thread_id, stored),
            ).fetchone()
        if rev is None or row is None:
            row = self.conn.execute(
                "SELECT a.rev FROM threads t JOIN spaces s USING (thread_pk) "
                "JOIN aliases a ON a.space_pk = s.space_pk AND a.id = ? WHERE t.thread_id = ?",
                (stored, thread_id),
            ).fetchone()
        return None if row is None else row[0]

    def entries(self, thread_id: str | None, ns: str | None, below: int | None, limit: int | None) -> list[Entry]:
        """As `Rows.entries`."""
        statement = (
            "SELECT t.thread_id, s.ns, c.space_pk, c.rev, c.id, c.step, c.source, c.flags, c.run_id, "
            "CAST(c.metadata AS BLOB), "
            "t.thread_pk, t.salt, t.epoch, t.claims, s.space_pk, s.head_rev, r.head_rev "
            "FROM threads t JOIN spaces s USING (thread_pk) JOIN checkpoints c USING (space_pk) "
            "LEFT JOIN spaces r ON r.thread_pk = t.thread_pk AND r.ns = '' "
            "WHERE c.flags & 1 = 0 AND t.thread_id IS NOT NULL AND (t.expires_at IS NULL OR t.expires_at > ?)"
        )
        bound: list[Any] = [time.time()]
        for condition, value in ((" AND t.thread_id = ?", thread_id), (" AND s.ns = ?", ns), (" AND c.rev < ?", below)):
            if value is not None:
                statement += condition
                bound.append(value)
        if thread_id is not None:
            statement += " ORDER BY c.rev DESC"
        if limit is not None:
            statement += " LIMIT ?"
            bound.append(limit)
        rows = self.conn.execute(statement, bound).fetchall()
        addresses = {row[2]: Address(*row[10:]) for row in rows}
        return [Entry._make((*row[:4], id_text(row[4]), *row[5:9], text_of(row[9]), addresses[row[2]])) for row in rows]
