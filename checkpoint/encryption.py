"""Stored rows under an encrypting serializer: what is encrypted, to which place, and how it is opened again.

Decides the places: each body is bound to the key of its row (thread by its salt, namespace, and the rest of the primary
key), so a row that was moved, or took the place of another, does not open. The salt stands for the thread because
copies of a thread keep it. Chain rows are bound to the number of their channel; which name has that number is in the
header, which is encrypted itself. A header is bound to its revision and to that of the header it is an op on (0: it is
full), so none can be left out of a header chain. Metadata is encrypted in every row, also if there is none, and bound to
the row's id, step, source and run id. Knows no key and no cipher: those are in the serializer.

A commit is encrypted after it was encoded, so deltas, hashes and thresholds are those of the plain bytes. All other reading
and writing goes through `EncryptedRows`, which looks like the rows it stands before.

Encrypted headers start with a byte that is no msgpack, encrypted metadata is a JSON string: both are errors, not values, to
who reads them without the key. Values up to the inline limit are in the header and encrypted with it.

Invariants
1. Nothing that a node, a reducer or a caller gave is stored in clear, except: thread id, namespace, ids, task path, run
   id, time, step, source, and sizes.
2. What `EncryptedRows` gives was encrypted for the place it was read from.
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from ormsgpack import packb

from checkpoint.base import CorruptCheckpointError

ENCRYPTED: Final = b"\xc1"
"""First byte of an encrypted header: the one that msgpack never uses."""
_FORMAT_TAG: Final = "m1"
_JSON_TAG: Final = "json"
_TASK: Final = "task"
_CHAIN: Final = "chain"
_HEADER: Final = "header"
_METADATA: Final = "metadata"


@runtime_checkable
class Encrypting(Protocol):
    """A serializer that encrypts bodies that others made."""

    inner: Any

    def encrypt_at(self, tag: str, body: bytes, place: bytes = b"") -> tuple[str, bytes]:
        """(tag, body) as they are stored at a place."""
        ...

    def decrypt_at(self, tag: str, body: bytes, place: bytes = b"") -> tuple[str, bytes]:
        """What was given to `encrypt_at`. Raises `CorruptCheckpointError` if it was encrypted otherwise."""
        ...

    def is_current(self, tag: str) -> bool:
        """Was it encrypted with the key that encrypts now?"""
        ...


class RowCipher:
    """What encrypts and opens the rows of one namespace of one thread."""

    __slots__ = ("_ns", "_salt", "encrypting")

    def __init__(self, encrypting: Encrypting, salt: int, ns: str) -> None:
        self.encrypting = encrypting
        self._salt = salt
        self._ns = ns.encode("utf-8", "surrogatepass")

    def _place(self, kind: str, *key: int | str | bytes | None) -> bytes:
        return packb([kind, self._salt, self._ns, *key])

    def _task(self, rev: int, task_id: str, slot: int) -> bytes:
        return self._place(_TASK, rev, task_id.encode("utf-8", "surrogatepass"), slot)

    def payload(self, row: tuple[int, int, int, int, str | None, bytes]) -> tuple[int, int, int, int, str, bytes]:
        """A chain row as it is stored."""
        number, root, seq, kind, tag, body = row
        return (
            number,
            root,
            seq,
            kind,
            *self.encrypting.encrypt_at(tag or _FORMAT_TAG, body, self._place(_CHAIN, number, root, seq)),
        )

    def open_chain(
        self, number: int, root: int, rows: Sequence[tuple[str | None, bytes]]
    ) -> list[tuple[str | None, bytes]]:
        """The rows of one chain from its start, opened."""
        return [self.open_payload(number, root, seq, tag, body) for seq, (tag, body) in enumerate(rows)]

    def open_payload(self, number: int, root: int, seq: int, tag: str | None, body: bytes) -> tuple[str | None, bytes]:
        """(tag, body) of a chain row, opened."""
        return self._opened(tag, body, self._place(_CHAIN, number, root, seq))

    def write(self, row: tuple[int, str, int, str, str | None, bytes]) -> tuple[int, str, int, str, str, bytes]:
        """A task row as it is stored."""
        rev, task_id, slot, path, tag, body = row
        return (
            rev,
            task_id,
            slot,
            path,
            *self.encrypting.encrypt_at(tag or _FORMAT_TAG, body, self._task(rev, task_id, slot)),
        )

    def open_write(self, rev: int, task_id: str, slot: int, tag: str | None, body: bytes) -> tuple[str | None, bytes]:
        """(tag, body) of a task row, opened."""
        return self._opened(tag, body, self._task(rev, task_id, slot))

    def header(self, rev: int, previous: int, header: bytes) -> bytes:
        """A header as it is stored. `previous`: revision of the header it is an op on, 0 for a full one."""
        tag, body = self.encrypting.encrypt_at(_FORMAT_TAG, header, self._place(_HEADER, rev, previous))
        named = tag.encode()
        return ENCRYPTED + bytes((len(named),)) + named + body

    def open_headers(self, rows: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """A header chain from its start, opened."""
        opened: list[tuple[int, bytes]] = []
        previous = 0
        for rev, stored in rows:
            opened.append((rev, self.open_header(rev, previous, stored)))
            previous = rev
        return opened

    def open_header(self, rev: int, previous: int, stored: bytes) -> bytes:
        """A header, opened. `previous` as for `header`."""
        tag, body = _split(stored) if stored[:1] == ENCRYPTED else (_FORMAT_TAG, stored)
        return self.encrypting.decrypt_at(tag, body, self._place(_HEADER, rev, previous))[1]

    @staticmethod
    def header_tag(stored: bytes) -> str | None:
        """The tag of a header as it is stored; None if it is not encrypted."""
        return _split(stored)[0] if stored[:1] == ENCRYPTED else None

    def _metadata(self, rev: int, id: str, step: int, source: int, run_id: str | None) -> bytes:
        return self._place(
            _METADATA,
            rev,
            id.encode("utf-8", "surrogatepass"),
            step,
            source,
            None if run_id is None else run_id.encode("utf-8", "surrogatepass"),
        )

    def metadata(self, rev: int, id: str, step: int, source: int, run_id: str | None, text: str | None) -> str:
        """Metadata as it is stored. The columns given with it cannot be edited unnoticed."""
        place = self._metadata(rev, id, step, source, run_id)
        tag, body = self.encrypting.encrypt_at(_JSON_TAG, (text or "").encode("utf-8", "surrogatepass"), place)
        return json.dumps(f"{tag} {b2a_base64(body, newline=False).decode()}")

    def open_metadata(self, row: Any) -> str | None:
        """The JSON of the metadata of a row or a line of a listing, opened."""
        stored = row.metadata
        if stored is None or stored[:1] != '"':
            self.encrypting.decrypt_at(_JSON_TAG, b"")  # raises, unless plain rows may be read
            return None if stored is None else str(stored)
        try:
            tag, _, text = json.loads(stored).partition(" ")
            body = a2b_base64(text, strict_mode=True)
        except ValueError as error:
            raise CorruptCheckpointError(f"encrypted metadata does not decode ({error})") from error
        place = self._metadata(row.rev, row.id, row.step, row.source, row.run_id)
        return self.encrypting.decrypt_at(tag, body, place)[1].decode("utf-8", "surrogatepass") or None

    def _opened(self, tag: str | None, body: bytes, place: bytes) -> tuple[str | None, bytes]:
        inner_tag, plain = self.encrypting.decrypt_at(tag or _FORMAT_TAG, body, place)
        return None if inner_tag == _FORMAT_TAG else inner_tag, plain


def _split(stored: bytes) -> tuple[str, bytes]:
    end = 2 + stored[1] if len(stored) > 1 else 0
    if not 2 < end <= len(stored):
        raise CorruptCheckpointError("an encrypted header is cut off")
    return stored[2:end].decode("utf-8", "replace"), stored[end:]


def encrypt_step(step: Any, encrypting: Encrypting, previous: int | None) -> None:
    """Encrypt the rows of an encoded commit, in place.

    Args:
        step: an `EncodedStep`.
        encrypting: the serializer.
        previous: the revision that the namespace stood at before this commit.
    """
    cipher = RowCipher(encrypting, step.claim.salt, step.space.ns)
    step.payloads = [cipher.payload(row) for row in step.payloads]
    step.writes = [cipher.write(row) for row in step.writes]
    row = step.row
    if row is not None:
        rev, own_id, _, _, _, _, number, source, _, run_id, root, header, metadata = row
        encrypted = cipher.header(rev, 0 if root == rev else previous or 0, header)
        step.row = (*row[:-2], encrypted, cipher.metadata(rev, own_id, number, source, run_id, metadata))
        step.size += len(encrypted) - len(header)


class EncryptedRows:
    """`Rows` and `Transaction` over encrypted rows: opens what is read, encrypts what is written."""

    def __init__(self, rows: Any, encrypting: Encrypting) -> None:
        self.stored = rows
        """The rows as they are stored."""
        self._encrypting = encrypting
        self._ciphers: dict[Any, RowCipher] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stored, name)

    def _cipher(self, space_pk: Any) -> RowCipher:
        cipher = self._ciphers.get(space_pk)
        if cipher is None:
            cipher = self._ciphers[space_pk] = RowCipher(self._encrypting, *self.stored.place(space_pk))
        return cipher

    def address(self, thread_id: str, ns: str) -> Any:
        """As `Rows.address`; spares a question for the place."""
        found = self.stored.address(thread_id, ns)
        if found is not None and found.space_pk is not None:
            self._ciphers[found.space_pk] = RowCipher(self._encrypting, found.salt, ns)
        return found

    def checkpoint(self, space_pk: Any, rev: int) -> Any:
        """As `Rows.checkpoint`."""
        return self.checkpoints(space_pk, [rev]).get(rev)

    def checkpoints(self, space_pk: Any, revs: Sequence[int]) -> Mapping[int, Any]:
        """As `Rows.checkpoints`."""
        return {rev: self._open(space_pk, found) for rev, found in self.stored.checkpoints(space_pk, revs).items()}

    def _open(self, space_pk: Any, found: Any) -> Any:
        cipher = self._cipher(space_pk)
        headers = cipher.open_headers(found.headers)
        row = found.row._replace(header=headers[-1][1], metadata=cipher.open_metadata(found.row))
        return found._replace(headers=headers, row=row)

    def heads(self, after: Any, limit: int) -> list[Any]:
        """As `Rows.heads`; spares a question for each place."""
        found: list[Any] = self.stored.heads(after, limit)
        for head in found:
            self._ciphers[head.address.space_pk] = RowCipher(self._encrypting, head.address.salt, "")
        return found

    def checkpoints_at(self, places: Sequence[tuple[Any, int]]) -> Mapping[Any, Any]:
        """As `Rows.checkpoints_at`."""
        return {pk: self._open(pk, found) for pk, found in self.stored.checkpoints_at(places).items()}

    def tasks_at(self, places: Sequence[tuple[Any, int]]) -> Mapping[Any, list[Any]]:
        """As `Rows.tasks_at`."""
        return {pk: [self._open_task(pk, row) for row in rows] for pk, rows in self.stored.tasks_at(places).items()}

    def chains(self, space_pk: Any, wanted: Sequence[tuple[int, int, int]]) -> Mapping[int, Any]:
        """As `Rows.chains`."""
        return {number: rows for (number, _), rows in self.lines(space_pk, wanted).items()}

    def lines(self, space_pk: Any, wanted: Sequence[tuple[int, int, int]]) -> Mapping[tuple[int, int], Any]:
        """As `Rows.lines`."""
        cipher = self._cipher(space_pk)
        return {
            (number, root): (cipher.open_chain(number, root, rows), further)
            for (number, root), (rows, further) in self.stored.lines(space_pk, wanted).items()
        }

    def header_line(self, space_pk: Any, header_root: int, last: int) -> list[tuple[int, bytes]]:
        """A header chain from its root up to a rev, ascending."""
        return self._cipher(space_pk).open_headers(self.stored.header_line(space_pk, header_root, last))

    def tasks(self, space_pk: Any, rev: int) -> list[Any]:
        """As `Rows.tasks`."""
        return list(self.tasks_of(space_pk, [rev]).get(rev, ()))

    def tasks_of(self, space_pk: Any, revs: Sequence[int]) -> Mapping[int, list[Any]]:
        """As `Rows.tasks_of`."""
        stored = self.stored.tasks_of(space_pk, revs)
        return {rev: [self._open_task(space_pk, row) for row in rows] for rev, rows in stored.items()}

    def _open_task(self, space_pk: Any, row: Any) -> Any:
        tag, body = self._cipher(space_pk).open_write(row.rev, row.task_id, row.slot, row.tag, row.body)
        return row._replace(tag=tag, body=body)

    def entries(self, thread_id: str | None, ns: str | None, below: int | None, limit: int | None) -> list[Any]:
        """As `Rows.entries`."""
        return [
            entry._replace(metadata=self._cipher(entry.space_pk).open_metadata(entry))
            for entry in self.stored.entries(thread_id, ns, below, limit)
        ]

    def put_checkpoint(self, space_pk: Any, row: Any) -> None:
        """As `Transaction.put_checkpoint`."""
        previous = 0
        if row.header_root != row.rev:
            previous = self.stored.header_before(space_pk, row.header_root, row.rev) or 0
        cipher = self._cipher(space_pk)
        header = cipher.header(row.rev, previous, row.header)
        metadata = cipher.metadata(row.rev, row.id, row.step, row.source, row.run_id, row.metadata)
        self.stored.put_checkpoint(space_pk, row._replace(header=header, metadata=metadata))

    def set_header(self, space_pk: Any, rev: int, header_root: int, header: bytes | None) -> None:
        """As `Transaction.set_header`; a header that is given is full."""
        encrypted = None if header is None else self._cipher(space_pk).header(rev, 0, header)
        self.stored.set_header(space_pk, rev, header_root, encrypted)

    def add_payloads(self, space_pk: Any, payloads: Sequence[Any]) -> None:
        """As `Transaction.add_payloads`."""
        cipher = self._cipher(space_pk)
        self.stored.add_payloads(space_pk, [cipher.payload(row) for row in payloads])

    def add_writes(self, space_pk: Any, writes: Sequence[Any], *, replace: bool = False) -> None:
        """As `Transaction.add_writes`."""
        cipher = self._cipher(space_pk)
        self.stored.add_writes(space_pk, [cipher.write(row) for row in writes], replace=replace)
