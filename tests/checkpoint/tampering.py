"""What somebody does who can write the file: edit rows, and make the checksums right again."""

from __future__ import annotations

import sqlite3
from typing import Any
from zlib import crc32

from checkpoint.sqlite.columns import header_crc, task_crc
from checkpoint.sqlite.tables import amend


def repair_checksums(conn: sqlite3.Connection) -> None:
    """What an attacker does after an edit: checksums are no secret."""
    bodies: dict[Any, bytes] = {}
    for *key, data in conn.execute("SELECT space_pk, chan, root, seq, data FROM payloads ORDER BY 1, 2, 3, 4, part"):
        bodies[tuple(key)] = bodies.get(tuple(key), b"") + data
    for (space, chan, root, seq), body in bodies.items():
        where = (crc32(body, (root ^ seq) & 0xFFFFFFFF), space, chan, root, seq)
        conn.execute("UPDATE payloads SET crc=? WHERE space_pk=? AND chan=? AND root=? AND seq=? AND part=0", where)
    bodies.clear()
    heads: dict[Any, Any] = {}
    for *key, part, path, tag, data in conn.execute(
        "SELECT space_pk, rev, task_id, slot, part, task_path, tag, data FROM task_writes ORDER BY 1, 2, 3, 4, part"
    ):
        bodies[tuple(key)] = bodies.get(tuple(key), b"") + data
        if part == 0:
            heads[tuple(key)] = path, tag
    for (space, rev, task, slot), body in bodies.items():
        where = (
            task_crc(rev, slot, task, *heads.get((space, rev, task, slot), (None, None)), body),
            space,
            rev,
            task,
            slot,
        )
        conn.execute(
            "UPDATE task_writes SET crc=? WHERE space_pk=? AND rev=? AND task_id=? AND slot=? AND part=0", where
        )
    for space, rev, header, metadata, task, path, tag, result in conn.execute(
        "SELECT space_pk, rev, header, metadata, task_id, task_path, task_tag, task_data FROM checkpoints"
    ).fetchall():
        conn.execute("UPDATE checkpoints SET row_crc=NULL WHERE space_pk=? AND rev=?", (space, rev))
        crc = None if result is None else task_crc(rev, 0, task, path, tag, result)
        amend(conn, space, rev, crc=header_crc(rev, header, metadata), task_crc=crc)
