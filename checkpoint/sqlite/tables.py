"""The statements that insert, change and remove single rows, for who writes commits and for upkeep alike.

Decides which of two writes of one task stays, and where what a task wrote is kept: in the row of the checkpoint that it
ran from, or in a table of its own (`migrations`). Knows no claims. Every statement binds its values; no stored or given
text becomes SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from checkpoint.chains import (
    STUB,
    PlainWrite,
)
from checkpoint.sqlite.columns import RESULT_COLUMNS, ROW, ROW_COLUMNS, id_column, part_size, parts, row_crc, task_crc

TAKE_NEW = (
    "INSERT INTO threads (thread_id, salt, claims, epoch, created_at, claimed_at, lease_owner, lease_until) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
LANE = "UPDATE threads SET claims = claims + 1 WHERE thread_pk = ? RETURNING claims"
NEW_SPACE = "INSERT INTO spaces (thread_pk, ns, head_rev) VALUES (?, ?, ?)"
ALIAS = "INSERT INTO aliases (space_pk, id, rev) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET rev = excluded.rev"
PAYLOAD = (
    "INSERT INTO payloads (space_pk, chan, root, seq, part, kind, tag, crc, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
CHECKPOINT = (
    "INSERT INTO checkpoints (space_pk, rev, id, parent_rev, parent_id, up_rev, ts, step, source, flags, run_id, "
    "header_root, crc, header, metadata, row_crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
CHECKPOINT_WITH_RESULT = CHECKPOINT.replace(
    "row_crc) VALUES (", "row_crc, task_id, task_path, task_tag, task_crc, task_data) VALUES (?, ?, ?, ?, ?, "
)
NO_COLUMNS: Final = (None,) * 5
_SELECT_ROW = f"SELECT {ROW}, row_crc FROM checkpoints WHERE space_pk = ? AND rev = ?"
PUT_CHECKPOINT = f"{CHECKPOINT} ON CONFLICT DO UPDATE SET " + ", ".join(
    f"{column} = excluded.{column}" for column in (*ROW_COLUMNS, "crc", "header", "metadata", "row_crc")
)
# The first writes of a task stay, whichever table has them.
TASK = (
    "INSERT INTO task_writes (space_pk, rev, task_id, slot, part, task_path, tag, crc, data) "
    "SELECT ?, ?, ?, ?, ?, ?, ?, ?, ? "
    "WHERE NOT EXISTS (SELECT 1 FROM checkpoints WHERE space_pk = ? AND rev = ? AND task_id = ?) ON CONFLICT DO NOTHING"
)
RESULT = (
    "UPDATE checkpoints SET task_id = ?, task_path = ?, task_tag = ?, task_crc = ?, task_data = ? "
    f"WHERE space_pk = ? AND rev = ? AND task_id IS NULL AND flags & {STUB} = 0 AND NOT EXISTS "
    "(SELECT 1 FROM task_writes WHERE space_pk = ? AND rev = ? AND task_id = ? AND slot = 0)"
)
_NO_RESULT = f"UPDATE checkpoints SET {', '.join(f'{column} = NULL' for column in RESULT_COLUMNS)}"
DROP_RESULT = f"{_NO_RESULT} WHERE space_pk = ? AND rev = ? AND task_id IS NOT NULL"
_DROP_RESULT_OF = f"{_NO_RESULT} WHERE space_pk = ? AND rev = ? AND task_id = ?"
DROP_RESULTS = "DELETE FROM task_writes WHERE space_pk = ? AND rev = ? AND slot = 0"
_DROP_TASK = "DELETE FROM task_writes WHERE space_pk = ? AND rev = ? AND task_id = ? AND slot = ?"


def amend(conn: Any, space_pk: int, rev: int, *, flag: int = 0, **changes: Any) -> None:
    """Change columns of a checkpoint's row, and its checksum with them. A row that does not check out will not do so
    afterwards. `flag`: is set beside those that are."""
    found = conn.execute(_SELECT_ROW, (space_pk, rev)).fetchone()
    if found is None:
        return
    *before, seal = found
    known = dict(zip(ROW_COLUMNS, before, strict=True))
    if flag:
        changes["flags"] = known["flags"] | flag
    if seal is None or seal == row_crc(rev, before):
        after = {**known, **changes}
        changes["row_crc"] = row_crc(rev, [after[column] for column in ROW_COLUMNS])
    columns = ", ".join(f"{column} = ?" for column in changes)
    conn.execute(f"UPDATE checkpoints SET {columns} WHERE space_pk = ? AND rev = ?", (*changes.values(), space_pk, rev))


def insert_rows(conn: Any, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Run one insertion for each of at least one row."""
    if len(rows) == 1:
        conn.execute(statement, rows[0])
    else:
        conn.executemany(statement, rows)


def add_writes(conn: Any, space_pk: int, writes: Sequence[PlainWrite], *, replace: bool = False) -> None:
    """Insert task rows: slot 0 stays as it is stored unless `replace`, slots below 0 are replaced."""
    whole: list[tuple[Any, ...]] = []
    write_tasks(conn, space_pk, writes, whole, replace=replace)
    if whole:
        insert_rows(conn, TASK, whole)


def write_tasks(
    conn: Any, space_pk: int, writes: Sequence[PlainWrite], whole: list[tuple[Any, ...]], *, replace: bool = False
) -> None:
    """Add task rows to `whole`, to be inserted together; those that take more statements are stored at once."""
    for rev, task, slot, path, tag, body in writes:
        task_id = id_column(task)
        crc = task_crc(rev, slot, task_id, path, tag, body)
        in_parts = part_size(len(body)) is not None
        if whole and (slot or replace or in_parts):
            # Which row of a key stays depends on their order.
            insert_rows(conn, TASK, whole)
            whole.clear()
        if slot or replace:
            drop_task(conn, space_pk, rev, task_id, slot)
        # In a checkpoint's row there are regular writes alone.
        elsewhere = space_pk, rev, None if slot else task_id
        if in_parts:
            _write_parted_task(conn, (space_pk, rev, task_id, slot), path, tag, crc, body, elsewhere)
        else:
            whole.append((space_pk, rev, task_id, slot, 0, path, tag, crc, body, *elsewhere))


def _write_parted_task(
    conn: Any,
    key: tuple[Any, ...],
    path: str | None,
    tag: str | None,
    crc: int,
    body: bytes,
    elsewhere: tuple[Any, ...],
) -> None:
    pieces = parts(body)
    # Part 0 decides whether this body is the first one.
    if conn.execute(TASK, (*key, 0, path, tag, crc, pieces[0], *elsewhere)).rowcount == 1:
        rest = [(*key, part, None, None, None, piece, *elsewhere) for part, piece in enumerate(pieces) if part]
        insert_rows(conn, TASK, rest)


def drop_task(conn: Any, space_pk: int, rev: int, task_id: Any, slot: int) -> None:
    """Remove one task row; the id as it is stored."""
    conn.execute(_DROP_TASK, (space_pk, rev, task_id, slot))
    if not slot:
        conn.execute(_DROP_RESULT_OF, (space_pk, rev, task_id))


def retire_expired(conn: Any, thread_id: str, now: float) -> bool:
    """Let a thread vanish whose time to live is over. Returns whether it was."""
    n_rows: int = conn.execute(
        "UPDATE threads SET thread_id = NULL, epoch = -1 WHERE thread_id = ? AND expires_at <= ?", (thread_id, now)
    ).rowcount
    return n_rows == 1
