"""The file of LangGraph's SQLite saver: which tables and columns, opened to read only.

Decides what counts as such a file. Knows nothing of what the blobs mean. Columns that older releases did not have are
given what they stood for then: the namespace `""`, the task path `""`.

Invariants
1. Nothing is ever written: the connection is read-only, and all reads of one import are one transaction, so a program
   that still writes the file changes nothing under it.
2. No text of the file becomes part of a statement.

Source: the documented tables of LangGraph's SQLite saver (persistence.md A4.2), as its releases 3.1.1 and 3.1.2 make them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from checkpoint.base import CheckpointError

Blob = tuple[str | None, bytes]
"""(format tag, bytes) as stored."""

_CHECKPOINTS: Final = {
    "thread_id": None,
    "checkpoint_id": None,
    "checkpoint": None,
    "checkpoint_ns": "''",
    "parent_checkpoint_id": "NULL",
    "type": "'json'",
    "metadata": "NULL",
}
"""Column -> what stands for it in a file without it; None: it must be there."""
_WRITES: Final = {
    "thread_id": None,
    "checkpoint_id": None,
    "task_id": None,
    "idx": None,
    "channel": None,
    "value": None,
    "checkpoint_ns": "''",
    "task_path": "''",
    "type": "'json'",
}


class SourceRow(NamedTuple):
    """One checkpoint of the file, without its values."""

    ns: str
    id: str
    parent_id: str | None
    metadata: Any
    """JSON: text or bytes."""
    rowid: int


class SourceWrite(NamedTuple):
    """One write of one task."""

    ns: str
    checkpoint_id: str
    task_id: str
    path: str
    """Empty if the file does not know it."""
    position: int
    channel: str
    blob: Blob


class Source:
    """An open file."""

    def __init__(self, path: str | Path) -> None:
        """Open the file.

        Raises:
            CheckpointError: there is no such file, it is no SQLite database, or not one of LangGraph's saver.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise CheckpointError(
                f"import_langgraph: {str(path)!r} is not a file; give it the path of the SQLite file that LangGraph's "
                f"saver wrote"
            )
        self.conn = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        self.conn.isolation_level = None
        try:
            self.conn.execute("BEGIN")
            self._checkpoints = self._columns("checkpoints", _CHECKPOINTS)
            self._writes = self._columns("writes", _WRITES)
        except sqlite3.Error as error:
            self.conn.close()
            raise CheckpointError(
                f"import_langgraph: {str(path)!r} cannot be read as an SQLite database ({error}); if a program still "
                f"has it open, stop it, or copy the file together with its -wal file"
            ) from error
        except CheckpointError:
            self.conn.close()
            raise

    def _columns(self, table: str, known: dict[str, str | None]) -> dict[str, str]:
        """Column -> expression that gives it. `table` is a name of this module's own."""
        there = {row[1] for row in self.conn.execute(f"PRAGMA table_info({table})")}
        missing = [column for column, default in known.items() if default is None and column not in there]
        if missing:
            raise CheckpointError(
                f"import_langgraph: {str(self.path)!r} has no column {table}.{missing[0]}, so LangGraph's SQLite saver "
                f"did not write it (or a release before 1.0 did); expected are the tables 'checkpoints' and 'writes'"
            )
        return {column: column if column in there else str(default) for column, default in known.items()}

    def close(self) -> None:
        """Give the file back."""
        self.conn.close()

    def threads(self) -> list[str]:
        """Ids of all threads, in the order of their first checkpoints. Raises `CheckpointError` if one is no text."""
        rows = self.conn.execute("SELECT thread_id FROM checkpoints GROUP BY thread_id ORDER BY MIN(checkpoint_id)")
        return [_text(row[0]) for row in rows]

    def checkpoints(self, thread_id: str) -> list[SourceRow]:
        """All checkpoints of a thread in the order of their ids, which is that of their making.

        Raises `CheckpointError` if what should be text is not.
        """
        c = self._checkpoints
        rows = self.conn.execute(
            f"SELECT {c['checkpoint_ns']} AS ns, checkpoint_id, {c['parent_checkpoint_id']}, {c['metadata']}, rowid "
            f"FROM checkpoints WHERE thread_id = ? ORDER BY checkpoint_id, ns",
            (thread_id,),
        )
        return [
            SourceRow(_text(ns or ""), _text(id_), _text(parent) if parent else None, metadata, rowid)
            for ns, id_, parent, metadata, rowid in rows
        ]

    def newest(self, thread_id: str) -> str:
        """The id of a thread's newest checkpoint, of all namespaces."""
        row = self.conn.execute(
            "SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = ?", (thread_id,)
        ).fetchone()
        return str(row[0])

    def blob(self, row: SourceRow) -> Blob:
        """The bytes of a checkpoint."""
        found: Blob = self.conn.execute(
            f"SELECT {self._checkpoints['type']}, checkpoint FROM checkpoints WHERE rowid = ?", (row.rowid,)
        ).fetchone()
        return found

    def writes(self, thread_id: str) -> Iterator[SourceWrite]:
        """All writes of tasks of a thread, those of a task together and in their order."""
        w = self._writes
        rows = self.conn.execute(
            f"SELECT {w['checkpoint_ns']} AS ns, checkpoint_id, task_id, {w['task_path']}, idx, channel, {w['type']}, "
            f"value FROM writes WHERE thread_id = ? ORDER BY checkpoint_id, ns, task_id, idx",
            (thread_id,),
        )
        for ns, checkpoint_id, task_id, path, index, channel, tag, value in rows:
            yield SourceWrite(
                _text(ns or ""),
                _text(checkpoint_id),
                _text(task_id),
                _text(path or ""),
                int(index),
                _text(channel),
                (tag, value),
            )


def _text(found: Any) -> str:
    if isinstance(found, str):
        return found
    raise CheckpointError(f"the file has {found!r:.60} where an id or a name is expected")
