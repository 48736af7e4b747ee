"""Encrypting stored rows again, with the key that a serializer writes with now.

Decides the order and the pages in which all rows of a namespace are looked at. A row keeps its place and its content;
only its bytes change, so a run that holds the thread does not notice, and one that stops half-way is done again from
the start. Rows that are stored meanwhile have the current key anyway.

Invariants
1. A page is one transaction of at most `PAGE` rows; between two pages nothing is held.
2. A row that does not open is an error, and stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from checkpoint.base import CorruptCheckpointError
from checkpoint.chains import STUB, CheckpointRow, PayloadRow, PlainWrite
from checkpoint.encryption import Encrypting, RowCipher

PAGE: Final = 500


class StoredRows(Protocol):
    """Rows as they are stored, whatever encrypts them, inside a transaction."""

    def place(self, space_pk: Any) -> tuple[int, str]:
        """As `Rows.place`."""
        ...

    def chain_tags(
        self, space_pk: Any, after: tuple[int, int, int] | None, limit: int
    ) -> list[tuple[int, int, int, int, str | None]]:
        """(channel number, root, seq, kind, tag) of chain rows behind a key, in the order of their keys."""
        raise NotImplementedError

    def chain_body(self, space_pk: Any, number: int, root: int, seq: int) -> bytes:
        """The bytes of one chain row."""
        raise NotImplementedError

    def replace_payload(self, space_pk: Any, row: PayloadRow) -> None:
        """Store other bytes for a chain row that is there."""

    def task_rows(self, space_pk: Any, after: int | None, limit: int) -> list[PlainWrite]:
        """Task rows of the checkpoints behind a rev: those of at least one, and no part of one."""
        raise NotImplementedError

    def add_writes(self, space_pk: Any, writes: Sequence[PlainWrite], *, replace: bool = False) -> None:
        """As `Transaction.add_writes`."""

    def checkpoints_after(self, space_pk: Any, rev: int | None, limit: int) -> list[CheckpointRow]:
        """Checkpoints and stubs behind a rev, ascending."""
        raise NotImplementedError

    def put_checkpoint(self, space_pk: Any, row: CheckpointRow) -> None:
        """As `Transaction.put_checkpoint`."""


class Rewrapping:
    """How far one namespace is."""

    def __init__(self, encrypting: Encrypting, space_pk: Any) -> None:
        self._encrypting = encrypting
        self._space_pk = space_pk
        self._steps = [self._chains, self._tasks, self._checkpoints]
        self._chain: tuple[int, int, int] | None = None
        self._task: int | None = None
        self._rev: int | None = None
        self._last: dict[int, int] = {}
        """Root of a header chain -> its last revision so far."""

    def page(self, rows: StoredRows) -> int | None:
        """Look at the next rows. Returns how many were written anew; None when there are no more."""
        while self._steps:
            n_changed = self._steps[0](rows, RowCipher(self._encrypting, *rows.place(self._space_pk)))
            if n_changed is not None:
                return n_changed
            del self._steps[0]
        return None

    def _is_old(self, tag: str | None) -> bool:
        return tag is None or not self._encrypting.is_current(tag)

    def _chains(self, rows: StoredRows, cipher: RowCipher) -> int | None:
        page = rows.chain_tags(self._space_pk, self._chain, PAGE)
        if not page:
            return None
        self._chain = page[-1][:3]
        old = [entry for entry in page if self._is_old(entry[4])]
        for number, root, seq, kind, tag in old:
            body = rows.chain_body(self._space_pk, number, root, seq)
            opened = cipher.open_payload(number, root, seq, tag, body)
            rows.replace_payload(self._space_pk, cipher.payload((number, root, seq, kind, *opened)))
        return len(old)

    def _tasks(self, rows: StoredRows, cipher: RowCipher) -> int | None:
        page = rows.task_rows(self._space_pk, self._task, PAGE)
        if not page:
            return None
        self._task = page[-1][0]
        anew: list[PlainWrite] = []
        for rev, task_id, slot, path, tag, body in page:
            if self._is_old(tag):
                opened = cipher.open_write(rev, task_id, slot, tag, body)
                anew.append(cipher.write((rev, task_id, slot, path, *opened)))
        if anew:
            rows.add_writes(self._space_pk, anew, replace=True)
        return len(anew)

    def _checkpoints(self, rows: StoredRows, cipher: RowCipher) -> int | None:
        page = rows.checkpoints_after(self._space_pk, self._rev, PAGE)
        if not page:
            return None
        self._rev = page[-1].rev
        n_changed = 0
        for row in page:
            previous = self._last.get(row.header_root, 0)
            if not previous and row.rev != row.header_root:
                raise CorruptCheckpointError(
                    f"header of revision {row.header_root}, on which {row.rev} builds, is gone"
                )
            self._last[row.header_root] = row.rev
            if not self._is_old(cipher.header_tag(row.header)):
                continue
            header = cipher.header(row.rev, previous, cipher.open_header(row.rev, previous, row.header))
            metadata = row.metadata
            if not row.flags & STUB:
                metadata = cipher.metadata(row.rev, row.id, row.step, row.source, row.run_id, cipher.open_metadata(row))
            rows.put_checkpoint(self._space_pk, row._replace(header=header, metadata=metadata))
            n_changed += 1
        return n_changed
