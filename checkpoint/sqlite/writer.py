"""`Transaction` and `Upkeep` over a connection, and what is done to whole threads.

Decides statements for whatever is not the commit of a run: public puts, forks, prunes, copies, deletions. Every
statement binds its values; no stored or given text becomes SQL.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from checkpoint.base import (
    CorruptCheckpointError,
    check_number,
)
from checkpoint.chains import (
    PARENT_PRUNED,
    STUB,
    THINNED,
    CheckpointRow,
    PayloadRow,
    PlainWrite,
)
from checkpoint.retention import Line, SpaceRow
from checkpoint.sqlite.columns import (
    RESULT_COLUMNS,
    checkpoint_columns,
    header_crc,
    header_damage,
    id_column,
    id_text,
    payload_rows,
)
from checkpoint.sqlite.reader import Reader
from checkpoint.sqlite.tables import (
    ALIAS,
    DROP_RESULT,
    LANE,
    NEW_SPACE,
    PAYLOAD,
    PUT_CHECKPOINT,
    TAKE_NEW,
    add_writes,
    amend,
    drop_task,
    insert_rows,
    retire_expired,
)

BIG_DELETE: Final = 5000
"""Rows of a thread above which they are removed in several transactions."""
DELETE_BATCH: Final = 2000
RUNS_PER_STATEMENT: Final = 500
PAGES_AT_ONCE: Final = 500
_INCREMENTAL: Final = 2


class Writer(Reader):
    """`Transaction` over a connection inside `BEGIN IMMEDIATE`."""

    __slots__ = ()

    def take(self, thread_id: str, salt: int) -> int:
        """As `Transaction.take`."""
        now = time.time()
        retire_expired(self.conn, thread_id, now)
        row = self.conn.execute("SELECT thread_pk, claims FROM threads WHERE thread_id = ?", (thread_id,)).fetchone()
        if row is None:
            made: int = self.conn.execute(TAKE_NEW, (thread_id, salt, 1, 1, now, now, None, None)).lastrowid
            return made
        check_number(thread_id, row[1] + 1)
        self.conn.execute(
            "UPDATE threads SET claims = claims + 1, epoch = claims + 1, claimed_at = ?, lease_owner = NULL, "
            "lease_until = NULL WHERE thread_pk = ?",
            (now, row[0]),
        )
        taken: int = row[0]
        return taken

    def take_lane(self, thread_id: str, thread_pk: int | None, salt: int) -> tuple[int, int, int] | None:
        """As `Transaction.take_lane`."""
        find = "SELECT thread_pk, salt FROM threads WHERE thread_id = ?"
        if thread_pk is None:
            retire_expired(self.conn, thread_id, time.time())
        row = self.conn.execute(find, (thread_id,)).fetchone()
        if row is None and thread_pk is None:
            now = time.time()
            made: int = self.conn.execute(TAKE_NEW, (thread_id, salt, 1, 0, now, now, None, None)).lastrowid
            return made, salt, 1
        if row is None or thread_pk not in (None, row[0]):
            return None
        ((number,),) = self.conn.execute(LANE, (row[0],)).fetchall()
        return row[0], row[1], number

    def open_space(self, thread_pk: int, ns: str) -> int:
        """As `Transaction.open_space`."""
        made: int = self.conn.execute(NEW_SPACE, (thread_pk, ns, None)).lastrowid
        return made

    def put_checkpoint(self, space_pk: int, row: CheckpointRow) -> None:
        """As `Transaction.put_checkpoint`."""
        self.conn.execute(PUT_CHECKPOINT, checkpoint_columns(space_pk, row))

    def later_headers(self, space_pk: int, header_root: int, rev: int) -> list[int]:
        """As `Transaction.later_headers`."""
        rows = self.conn.execute(
            "SELECT rev FROM checkpoints WHERE space_pk = ? AND rev > ? AND header_root = ? ORDER BY rev",
            (space_pk, rev, header_root),
        ).fetchall()
        return [row[0] for row in rows]

    def set_header(self, space_pk: int, rev: int, header_root: int, header: bytes | None) -> None:
        """As `Transaction.set_header`."""
        if header is None:
            amend(self.conn, space_pk, rev, header_root=header_root)
            return
        (metadata,) = self.conn.execute(
            "SELECT metadata FROM checkpoints WHERE space_pk = ? AND rev = ?", (space_pk, rev)
        ).fetchone()
        crc = header_crc(rev, header, metadata)
        amend(self.conn, space_pk, rev, header_root=header_root, header=header, crc=crc)

    def set_head(self, space_pk: int, rev: int | None) -> None:
        """As `Transaction.set_head`."""
        self.conn.execute("UPDATE spaces SET head_rev = ? WHERE space_pk = ?", (rev, space_pk))

    def add_alias(self, space_pk: int, checkpoint_id: str, rev: int) -> None:
        """As `Transaction.add_alias`."""
        self.conn.execute(ALIAS, (space_pk, id_column(checkpoint_id), rev))

    def add_payloads(self, space_pk: int, payloads: Sequence[PayloadRow]) -> None:
        """As `Transaction.add_payloads`."""
        if payloads:
            insert_rows(self.conn, PAYLOAD, payload_rows(space_pk, payloads))

    def chain_tags(
        self, space_pk: int, after: tuple[int, int, int] | None, limit: int
    ) -> list[tuple[int, int, int, int, str | None]]:
        """As `StoredRows.chain_tags`."""
        rows: list[tuple[int, int, int, int, str | None]] = self.conn.execute(
            "SELECT chan, root, seq, kind, tag FROM payloads WHERE space_pk = ? AND part = 0 "
            "AND (chan, root, seq) > (?, ?, ?) ORDER BY chan, root, seq LIMIT ?",
            (space_pk, *(after or (-1, -1, -1)), limit),
        ).fetchall()
        return rows

    def chain_body(self, space_pk: int, number: int, root: int, seq: int) -> bytes:
        """As `StoredRows.chain_body`."""
        rows = self.conn.execute(
            "SELECT data FROM payloads WHERE space_pk = ? AND chan = ? AND root = ? AND seq = ? ORDER BY part",
            (space_pk, number, root, seq),
        ).fetchall()
        return b"".join(data for (data,) in rows)

    def replace_payload(self, space_pk: int, row: PayloadRow) -> None:
        """As `StoredRows.replace_payload`."""
        self.conn.execute(
            "DELETE FROM payloads WHERE space_pk = ? AND chan = ? AND root = ? AND seq = ?", (space_pk, *row[:3])
        )
        self.add_payloads(space_pk, [row])

    def task_rows(self, space_pk: int, after: int | None, limit: int) -> list[PlainWrite]:
        """As `StoredRows.task_rows`."""
        above = -1 if after is None else after
        revs = self.conn.execute(
            "SELECT rev FROM task_writes WHERE space_pk = ? AND rev > ? UNION "
            "SELECT rev FROM checkpoints WHERE space_pk = ? AND rev > ? AND task_id IS NOT NULL ORDER BY rev LIMIT ?",
            (space_pk, above, space_pk, above, limit),
        ).fetchall()
        page: list[PlainWrite] = []
        for (rev,) in revs:
            if len(page) >= limit:
                break
            page += self.tasks(space_pk, rev)
        return page

    def checkpoints_after(self, space_pk: int, rev: int | None, limit: int) -> list[CheckpointRow]:
        """As `StoredRows.checkpoints_after`."""
        rows = self.conn.execute(
            "SELECT rev, id, parent_rev, parent_id, up_rev, ts, step, source, flags, run_id, header_root, header, "
            "metadata FROM checkpoints WHERE space_pk = ? AND rev > ? ORDER BY rev LIMIT ?",
            (space_pk, -1 if rev is None else rev, limit),
        ).fetchall()
        return [
            CheckpointRow(at, id_text(own), parent, None if parent_id is None else id_text(parent_id), *rest)
            for at, own, parent, parent_id, *rest in rows
        ]

    def add_writes(self, space_pk: int, writes: Sequence[PlainWrite], *, replace: bool = False) -> None:
        """As `Transaction.add_writes`."""
        add_writes(self.conn, space_pk, writes, replace=replace)

    # Upkeep.

    def stamp(self) -> tuple[int, int]:
        """As `Upkeep.stamp`."""
        (others,) = self.conn.execute("PRAGMA data_version").fetchone()
        (own,) = self.conn.execute("SELECT total_changes()").fetchone()
        return others, own

    def n_claims(self, thread_pk: int) -> int:
        """As `Upkeep.n_claims`."""
        ((number,),) = self.conn.execute("SELECT claims FROM threads WHERE thread_pk = ?", (thread_pk,)).fetchall()
        return number  # type: ignore[no-any-return]

    def spaces(self, thread_pk: int) -> list[SpaceRow]:
        """As `Upkeep.spaces`."""
        rows = self.conn.execute(
            "SELECT ns, space_pk, head_rev FROM spaces WHERE thread_pk = ? ORDER BY space_pk", (thread_pk,)
        ).fetchall()
        return [SpaceRow._make(row) for row in rows]

    def lines_of(self, space_pk: int) -> list[Line]:
        """As `Upkeep.lines_of`."""
        rows = self.conn.execute(
            "SELECT rev, parent_rev, up_rev, ts, source, flags, run_id, header_root FROM checkpoints "
            "WHERE space_pk = ? ORDER BY rev",
            (space_pk,),
        ).fetchall()
        return [Line._make(row) for row in rows]

    def task_keys(self, space_pk: int, rev: int | None = None) -> list[tuple[int, str | bytes, int]]:
        """As `Upkeep.task_keys`."""
        where, bound = ("space_pk = ?", [space_pk]) if rev is None else ("space_pk = ? AND rev = ?", [space_pk, rev])
        keys: list[tuple[int, str | bytes, int]] = self.conn.execute(
            f"SELECT rev, task_id, slot FROM task_writes WHERE {where} UNION "
            f"SELECT rev, task_id, 0 FROM checkpoints WHERE {where} AND task_id IS NOT NULL",
            [*bound, *bound],
        ).fetchall()
        return keys

    def header_line(self, space_pk: int, header_root: int, last: int) -> list[tuple[int, bytes]]:
        """As `Upkeep.header_line`."""
        rows = self.conn.execute(
            "SELECT rev, header, crc, CAST(metadata AS BLOB) FROM checkpoints WHERE space_pk = ? AND rev BETWEEN ? AND ? "
            "AND header_root = ? ORDER BY rev",
            (space_pk, header_root, last, header_root),
        ).fetchall()
        for rev, header, crc, metadata in rows:
            if header_crc(rev, header, metadata) != crc:
                raise CorruptCheckpointError(header_damage(rev))
        return [row[:2] for row in rows]

    def chain_lengths(self, space_pk: int) -> list[tuple[int, int, int]]:
        """As `Upkeep.chain_lengths`."""
        rows: list[tuple[int, int, int]] = self.conn.execute(
            "SELECT chan, root, max(seq) + 1 FROM payloads WHERE space_pk = ? GROUP BY chan, root", (space_pk,)
        ).fetchall()
        return rows

    def mark_pruned(self, space_pk: int, rev: int, *, parent: bool, up: bool, to: int | None = None) -> None:
        """As `Upkeep.mark_pruned`."""
        changes: dict[str, Any] = {"up_rev": None} if up else {}
        if parent:
            changes |= {"parent_rev": to, "flag": PARENT_PRUNED}
        if changes:
            amend(self.conn, space_pk, rev, **changes)

    def mark_thinned(self, space_pk: int, rev: int) -> None:
        """As `Upkeep.mark_thinned`."""
        amend(self.conn, space_pk, rev, flag=THINNED)

    def drop_checkpoint(self, space_pk: int, rev: int, *, stub: bool) -> int:
        """As `Upkeep.drop_checkpoint`."""
        row = self.conn.execute(
            "SELECT id, header FROM checkpoints WHERE space_pk = ? AND rev = ?", (space_pk, rev)
        ).fetchone()
        if row is None:
            return 0
        own_id, header = row
        n_aliases: int = self.conn.execute(
            "DELETE FROM aliases WHERE space_pk = ? AND id = ? AND rev = ?", (space_pk, own_id, rev)
        ).rowcount
        if not stub:
            self.conn.execute("DELETE FROM checkpoints WHERE space_pk = ? AND rev = ?", (space_pk, rev))
            return 1 + n_aliases
        crc = header_crc(rev, header, None)
        nothing = dict.fromkeys(("parent_rev", "parent_id", "up_rev", "run_id", "metadata", *RESULT_COLUMNS))
        amend(self.conn, space_pk, rev, flag=STUB | PARENT_PRUNED, crc=crc, **nothing)
        return 1 + n_aliases

    def drop_tasks(self, space_pk: int, rev: int, limit: int) -> int:
        """As `Upkeep.drop_tasks`."""
        n_rows: int = self.conn.execute(
            "DELETE FROM task_writes WHERE space_pk = ? AND rev = ? AND (task_id, slot, part) IN "
            "(SELECT task_id, slot, part FROM task_writes WHERE space_pk = ? AND rev = ? LIMIT ?)",
            (space_pk, rev, space_pk, rev, limit),
        ).rowcount
        if n_rows < limit:
            n_rows += self.conn.execute(DROP_RESULT, (space_pk, rev)).rowcount
        return n_rows

    def drop_task(self, space_pk: int, rev: int, task: Any, slot: int) -> None:
        """As `Upkeep.drop_task`."""
        drop_task(self.conn, space_pk, rev, task, slot)

    def drop_chain(self, space_pk: int, number: int, root: int, first: int, last: int, limit: int) -> int:
        """As `Upkeep.drop_chain`."""
        chain = space_pk, number, root
        n_rows: int = self.conn.execute(
            "DELETE FROM payloads WHERE space_pk = ? AND chan = ? AND root = ? AND (seq, part) IN "
            "(SELECT seq, part FROM payloads WHERE space_pk = ? AND chan = ? AND root = ? AND seq BETWEEN ? AND ? "
            "ORDER BY seq DESC, part LIMIT ?)",
            (*chain, *chain, first, last, limit),
        ).rowcount
        return n_rows

    def drop_space(self, space_pk: int) -> None:
        """As `Upkeep.drop_space`."""
        self.conn.execute("DELETE FROM spaces WHERE space_pk = ?", (space_pk,))

    def retire(self, thread_pk: int) -> None:
        """As `Upkeep.retire`."""
        if _n_rows(self.conn, thread_pk, BIG_DELETE + 1) <= BIG_DELETE:
            self.conn.execute("DELETE FROM threads WHERE thread_pk = ?", (thread_pk,))
        else:
            # From here on it cannot be found, and nobody's epoch fits.
            self.conn.execute("UPDATE threads SET thread_id = NULL, epoch = -1 WHERE thread_pk = ?", (thread_pk,))

    def expire_at(self, thread_pk: int, moment: float) -> None:
        """As `Upkeep.expire_at`."""
        self.conn.execute("UPDATE threads SET expires_at = ? WHERE thread_pk = ?", (moment, thread_pk))

    def retire_expired(self, thread_id: str) -> None:
        """As `Transaction.retire_expired`."""
        retire_expired(self.conn, thread_id, time.time())

    def expire(self, limit: int) -> int:
        """As `Transaction.expire`."""
        n_expired: int = self.conn.execute(
            "UPDATE threads SET thread_id = NULL, epoch = -1 WHERE thread_pk IN (SELECT thread_pk FROM threads "
            "WHERE expires_at <= ? AND thread_id IS NOT NULL ORDER BY expires_at LIMIT ?)",
            (time.time(), limit),
        ).rowcount
        return n_expired

    def copy(self, source_pk: int, target_id: str) -> int:
        """As `Transaction.copy`."""
        retire_expired(self.conn, target_id, time.time())
        return copy_thread(self.conn, source_pk, target_id)


def _n_rows(conn: Any, thread_pk: int, limit: int) -> int:
    """Rows of a thread's checkpoints, counted up to a limit."""
    n_rows = 0
    for table in ("checkpoints", "task_writes", "payloads", "aliases"):
        n_rows += conn.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM spaces JOIN {table} USING (space_pk) WHERE thread_pk = ? LIMIT ?)",
            (thread_pk, limit - n_rows),
        ).fetchone()[0]
    return n_rows


def threads_of(conn: Any, run_ids: Sequence[str]) -> list[str]:
    """Ids of threads with checkpoints of these runs."""
    found: dict[str, None] = {}
    for at in range(0, len(run_ids), RUNS_PER_STATEMENT):
        some = run_ids[at : at + RUNS_PER_STATEMENT]
        marks = ", ".join("?" * len(some))
        rows = conn.execute(
            "SELECT DISTINCT t.thread_id FROM checkpoints c JOIN spaces USING (space_pk) JOIN threads t "
            f"USING (thread_pk) WHERE c.run_id IN ({marks}) AND t.thread_id IS NOT NULL",
            list(some),
        ).fetchall()
        found.update((row[0], None) for row in rows)
    return list(found)


def finish_deletes(conn: Any) -> None:
    """Remove what is left of deleted threads, in transactions of at most `DELETE_BATCH` rows."""
    for (thread_pk,) in conn.execute("SELECT thread_pk FROM threads WHERE thread_id IS NULL").fetchall():
        for (space_pk,) in conn.execute("SELECT space_pk FROM spaces WHERE thread_pk = ?", (thread_pk,)).fetchall():
            for table, key in (
                ("payloads", "chan, root, seq, part"),
                ("task_writes", "rev, task_id, slot, part"),
                ("checkpoints", "rev"),
                ("aliases", "id"),
            ):
                statement = (
                    f"DELETE FROM {table} WHERE space_pk = ? AND ({key}) IN "
                    f"(SELECT {key} FROM {table} WHERE space_pk = ? LIMIT {DELETE_BATCH})"
                )
                while _delete(conn, statement, (space_pk, space_pk)) == DELETE_BATCH:
                    pass
        some = f"SELECT space_pk FROM spaces WHERE thread_pk = ? LIMIT {DELETE_BATCH}"
        statement = f"DELETE FROM spaces WHERE space_pk IN ({some})"
        while _delete(conn, statement, (thread_pk,)) == DELETE_BATCH:
            pass
        _delete(conn, "DELETE FROM threads WHERE thread_pk = ?", (thread_pk,))


def give_back(conn: Any) -> None:
    """Cut free pages off the end of a file that was made for it, `PAGES_AT_ONCE` in a transaction."""
    if conn.execute("PRAGMA auto_vacuum").fetchone() == (_INCREMENTAL,):
        while conn.execute("PRAGMA freelist_count").fetchone()[0]:
            conn.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()


def _delete(conn: Any, statement: str, values: tuple[int, ...]) -> int:
    """Run one deletion in its own transaction. Returns the number of rows."""
    try:
        conn.execute("BEGIN IMMEDIATE")
        n_rows: int = conn.execute(statement, values).rowcount
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    return n_rows


def copy_thread(conn: Any, source_pk: int, target_id: str) -> int:
    """Copy all rows of a thread to a new one, inside the caller's transaction. Returns the key of the new one."""
    now = time.time()
    target_pk: int = conn.execute(
        "INSERT INTO threads (thread_id, salt, claims, epoch, created_at, claimed_at, expires_at) "
        "SELECT ?, salt, claims, epoch, ?, ?, expires_at FROM threads WHERE thread_pk = ?",
        (target_id, now, now, source_pk),
    ).lastrowid
    conn.execute(
        "INSERT INTO spaces (thread_pk, ns, head_rev) SELECT ?, ns, head_rev FROM spaces WHERE thread_pk = ?",
        (target_pk, source_pk),
    )
    for table, columns in (
        (
            "checkpoints",
            "rev, id, parent_rev, parent_id, up_rev, ts, step, source, flags, run_id, header_root, crc, header, "
            "metadata, row_crc, task_id, task_path, task_tag, task_crc, task_data",
        ),
        ("aliases", "id, rev"),
        ("payloads", "chan, root, seq, part, kind, tag, crc, data"),
        ("task_writes", "rev, task_id, slot, part, task_path, tag, crc, data"),
    ):
        own = ", ".join(f"r.{column}" for column in columns.split(", "))
        conn.execute(
            f"INSERT INTO {table} (space_pk, {columns}) SELECT n.space_pk, {own} FROM spaces o "
            f"JOIN spaces n ON n.thread_pk = ? AND n.ns = o.ns JOIN {table} r ON r.space_pk = o.space_pk "
            f"WHERE o.thread_pk = ?",
            (target_pk, source_pk),
        )
    return target_pk
