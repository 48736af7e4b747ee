"""What must be true of the stored state after any fault: everything there can be read, and nothing refers to nowhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from checkpoint.sqlite import SqliteSaver

PRUNED = 1 | 2
"""Flags of a stub, and of the oldest checkpoint that a prune kept."""


def assert_sound(saver: Any) -> None:
    """The file is whole, each checkpoint of each thread can be read, and each has its parent."""
    assert problems(saver) == []


def assert_file_sound(path: str | Path) -> None:
    """As `assert_sound`, with a saver of its own."""
    with SqliteSaver(path) as saver:
        assert_sound(saver)


def problems(saver: Any) -> list[str]:
    """What is wrong, in words."""
    found: list[str] = []
    if hasattr(saver, "verify"):
        found += map(str, saver.verify(deep=True))
    if isinstance(saver.conn, sqlite3.Connection):
        found += file_problems(saver.conn)
    elif str(saver.conn) != ":memory:":
        conn = sqlite3.connect(saver.conn)
        found += file_problems(conn)
        conn.close()
    for entry in saver.list(None):
        assert entry.checkpoint["id"] == entry.config["configurable"]["checkpoint_id"]
    return found


def file_problems(conn: Any) -> Iterable[str]:
    """What is wrong with rows, by SQL alone."""
    for (line,) in conn.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield line
    for (line,) in conn.execute("PRAGMA foreign_key_check"):
        yield f"a row of {line} belongs to nothing"
    for ns, rev in conn.execute(
        "SELECT s.ns, s.head_rev FROM spaces s LEFT JOIN checkpoints c ON c.space_pk = s.space_pk "
        "AND c.rev = s.head_rev WHERE s.head_rev IS NOT NULL AND c.rev IS NULL"
    ):
        yield f"the head of {ns!r} is {rev:x}, which has no row"
    for rev, parent in conn.execute(
        "SELECT c.rev, c.parent_rev FROM checkpoints c LEFT JOIN checkpoints p ON p.space_pk = c.space_pk "
        f"AND p.rev = c.parent_rev WHERE c.parent_rev IS NOT NULL AND p.rev IS NULL AND c.flags & {PRUNED} = 0"
    ):
        yield f"checkpoint {rev:x} has no parent {parent:x}"
    for rev, up in conn.execute(
        "SELECT c.rev, c.up_rev FROM checkpoints c JOIN spaces s USING (space_pk) WHERE c.up_rev IS NOT NULL "
        f"AND c.flags & {PRUNED} = 0 AND NOT EXISTS (SELECT 1 FROM checkpoints u JOIN spaces v USING (space_pk) "
        "WHERE v.thread_pk = s.thread_pk AND u.rev = c.up_rev)"
    ):
        yield f"checkpoint {rev:x} works under {up:x}, which is not stored"
    for rev, task in conn.execute(
        "SELECT w.rev, w.task_id FROM task_writes w LEFT JOIN checkpoints c USING (space_pk, rev) WHERE c.rev IS NULL"
    ):
        yield f"task {task!r} wrote under {rev:x}, which is not stored"
