"""What tools that look at everything ask of stored rows, and the folding of all headers of a namespace.

Decides the pages in which a whole file is read, and how headers of interleaved lines of descent are folded in one pass
over them. Judges nothing: `checkpoint.verify`, `checkpoint.stats` and `checkpoint.repair` do. Unlike `checkpoint.rows`
it sees what a load does not: stubs, rows that nothing refers to, and bodies that do not check out, which are handed on
with the reason instead of raised.

Invariants
1. One call reads one page, whose size is bounded in rows and bytes (a single body may exceed it).
2. A page is one consistent view; two pages may be of different moments. `Lines` copes with that: what it has folded
   stays true: whoever rewrites a header (a public `put` of an existing id, the deletion of runs, compaction) makes a line
   of its own of it.
3. Memory is bounded by `LINES` folded headers, whatever the number of checkpoints.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import Any, Final, NamedTuple, Protocol

from checkpoint.base import CheckpointError, CorruptCheckpointError
from checkpoint.chains import STUB, CheckpointRow, WriteRow, check_line
from checkpoint.encryption import ENCRYPTED, Encrypting, RowCipher
from checkpoint.headers import Header, fold, fold_on

LINES: Final = 64
"""Lines of headers whose newest state is kept; older ones are read again when they go on."""


class ScannedThread(NamedTuple):
    """One thread. `key` is never used again; the order of keys is the order of pages."""

    key: Any
    thread_id: str
    salt: int


class ScannedSpace(NamedTuple):
    """One namespace of a thread."""

    space_pk: Any
    ns: str
    head: int | None


class ScannedCheckpoint(NamedTuple):
    """One checkpoint or stub. `damage` says why its header and metadata cannot be trusted, None if they check out."""

    row: CheckpointRow
    damage: str | None


class ScannedBody(NamedTuple):
    """One chain row. `damage` says why `body` cannot be trusted, None if it checks out."""

    number: int
    root: int
    seq: int
    tag: str | None
    body: bytes
    damage: str | None
    is_going: bool = False
    """Has it lost its first part? Then the rest goes with the prune that has removed that, if nothing refers to it."""


class ScannedTask(NamedTuple):
    """One task row; `damage` as for a body."""

    row: WriteRow
    damage: str | None


class Chain(NamedTuple):
    """What one chain takes: `last` is its greatest seq, `n_bytes` its bodies without keys and checksums."""

    number: int
    root: int
    last: int
    n_bytes: int


class Scan(Protocol):
    """One consistent view of all stored rows, page by page. `after` is the key of the last entry seen, None to start.

    Threads that are deleted or expired, and whose rows are not removed yet, count as absent. Raises
    `CorruptCheckpointError` if the file itself cannot be read.
    """

    def threads(self, after: Any, limit: int) -> list[ScannedThread]:
        """Threads by key."""
        raise NotImplementedError

    def thread(self, thread_id: str) -> ScannedThread | None:
        """One thread, if it is stored."""
        ...

    def spaces(self, thread_key: Any, after: str | None, limit: int) -> list[ScannedSpace]:
        """Namespaces of a thread, by name."""
        raise NotImplementedError

    def space(self, thread_key: Any, ns: str) -> ScannedSpace | None:
        """One namespace, if the thread has it."""
        ...

    def place(self, space_pk: Any) -> tuple[int, str]:
        """(salt of the thread, namespace) of a space."""
        raise NotImplementedError

    def identity(self, space_pk: Any, rev: int) -> tuple[str, int] | None:
        """(id, flags) of a checkpoint or stub, if it has a row."""
        ...

    def headers(self, space_pk: Any, after: int | None, limit: int) -> list[ScannedCheckpoint]:
        """Checkpoints and stubs, by rev."""
        raise NotImplementedError

    def line(self, space_pk: Any, root: int, below: int) -> list[ScannedCheckpoint]:
        """Checkpoints and stubs of the header chain `root` with a rev less than `below`, by rev."""
        raise NotImplementedError

    def bodies(self, space_pk: Any, after: tuple[int, int, int] | None, limit: int, n_bytes: int) -> list[ScannedBody]:
        """Chain rows by (channel number, root, seq): about `limit` rows or `n_bytes`, whichever comes first."""
        raise NotImplementedError

    def count_rows(self, space_pk: Any, number: int, root: int, first: int, last: int) -> int:
        """How many rows of a chain have `first` <= seq <= `last`, however complete their bodies are."""
        raise NotImplementedError

    def chain_sizes(self, space_pk: Any, after: tuple[int, int] | None, limit: int) -> list[Chain]:
        """Chains by (channel number, root), without reading their bodies."""
        raise NotImplementedError

    def bytes_behind(self, space_pk: Any, number: int, root: int, seq: int) -> int:
        """Bytes of the bodies of a chain whose seq is greater."""
        raise NotImplementedError

    def writes(self, space_pk: Any, after: tuple[int, str, int] | None, limit: int, n_bytes: int) -> list[ScannedTask]:
        """Task rows by (rev, task id, slot), in pages as `bodies`."""
        raise NotImplementedError

    def write_sizes(self, space_pk: Any) -> tuple[int, int]:
        """(number of task rows, bytes of their bodies)."""
        raise NotImplementedError

    def aliases(self, space_pk: Any, after: str | None, limit: int) -> list[tuple[str, int]]:
        """(id, rev) of ids that do not carry their rev, in a fixed order."""
        raise NotImplementedError

    def alias(self, space_pk: Any, checkpoint_id: str) -> int | None:
        """The rev that an alias names."""
        ...

    def file_problems(self) -> list[str]:
        """What the store's own check of the whole file finds; reads all of it."""
        raise NotImplementedError

    def file_sizes(self) -> tuple[int, int]:
        """(bytes of the file, bytes of its write-ahead log); zeros in memory."""
        raise NotImplementedError


class EncryptedScan:
    """`Scan` over encrypted rows: opens what is read. What does not open is damage."""

    def __init__(self, scan: Scan, encrypting: Encrypting) -> None:
        self._scan = scan
        self._encrypting = encrypting
        self._ciphers: dict[Any, RowCipher] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scan, name)

    def _cipher(self, space_pk: Any) -> RowCipher:
        cipher = self._ciphers.get(space_pk)
        if cipher is None:
            cipher = self._ciphers[space_pk] = RowCipher(self._encrypting, *self._scan.place(space_pk))
        return cipher

    def headers(self, space_pk: Any, after: int | None, limit: int) -> list[ScannedCheckpoint]:
        """As `Scan.headers`."""
        return self._opened(space_pk, self._scan.headers(space_pk, after, limit), {})

    def line(self, space_pk: Any, root: int, below: int) -> list[ScannedCheckpoint]:
        """As `Scan.line`."""
        return self._opened(space_pk, self._scan.line(space_pk, root, below), {root: 0})

    def _opened(self, space_pk: Any, page: list[ScannedCheckpoint], last: dict[int, int]) -> list[ScannedCheckpoint]:
        """`last`: root of a header chain -> its revision before the next one of the page, as far as known."""
        cipher = self._cipher(space_pk)
        opened: list[ScannedCheckpoint] = []
        for found in page:
            row = found.row
            root = row.header_root
            if row.rev != root and root not in last:
                earlier = self._scan.line(space_pk, root, row.rev)
                last[root] = earlier[-1].row.rev if earlier else 0
            if found.damage is None:
                try:
                    header = cipher.open_header(row.rev, 0 if row.rev == root else last[root], row.header)
                    # A stub has no metadata any more.
                    metadata = None if row.flags & STUB else cipher.open_metadata(row)
                    row = row._replace(header=header, metadata=metadata)
                    found = ScannedCheckpoint(row, None)
                except CorruptCheckpointError as damage:
                    found = ScannedCheckpoint(row, damage.reason)
            last[root] = row.rev
            opened.append(found)
        return opened

    def bodies(self, space_pk: Any, after: tuple[int, int, int] | None, limit: int, n_bytes: int) -> list[ScannedBody]:
        """As `Scan.bodies`."""
        cipher = self._cipher(space_pk)
        opened: list[ScannedBody] = []
        for found in self._scan.bodies(space_pk, after, limit, n_bytes):
            if found.damage is None:
                try:
                    tag, body = cipher.open_payload(found.number, found.root, found.seq, found.tag, found.body)
                    found = found._replace(tag=tag, body=body)
                except CorruptCheckpointError as damage:
                    found = found._replace(damage=damage.reason)
            opened.append(found)
        return opened

    def writes(self, space_pk: Any, after: tuple[int, str, int] | None, limit: int, n_bytes: int) -> list[ScannedTask]:
        """As `Scan.writes`."""
        cipher = self._cipher(space_pk)
        opened: list[ScannedTask] = []
        for row, damage in self._scan.writes(space_pk, after, limit, n_bytes):
            if damage is not None:
                opened.append(ScannedTask(row, damage))
                continue
            try:
                tag, body = cipher.open_write(row.rev, row.task_id, row.slot, row.tag, row.body)
                opened.append(ScannedTask(row._replace(tag=tag, body=body), None))
            except CorruptCheckpointError as wrong:
                opened.append(ScannedTask(row, wrong.reason))
        return opened


class _Line:
    """A header chain folded up to one of its rows."""

    __slots__ = ("header", "revs")

    def __init__(self) -> None:
        self.header: Header | None = None
        """None before the first one, and once one of the line is damaged or gone: nothing is known from there on."""
        self.revs: set[int] = set()


class Lines:
    """Folds the headers of one namespace in the order of their revs."""

    def __init__(self, space_pk: Any, ns: str) -> None:
        self._space_pk = space_pk
        self._ns = ns
        self._lines: OrderedDict[int, _Line] = OrderedDict()

    def fold(self, scan: Scan, found: ScannedCheckpoint) -> Header | None:
        """The folded header of the next checkpoint; it is changed by the next call.

        None if it cannot be known because an earlier header of its line is damaged, which an earlier call has raised.
        Raises `CorruptCheckpointError` where the damage is.
        """
        row = found.row
        line = self._lines.get(row.header_root)
        if line is None:
            line = _Line()
            self._lines[row.header_root] = line
            while len(self._lines) > LINES:
                self._lines.popitem(last=False)
            if row.header_root != row.rev:
                for earlier in scan.line(self._space_pk, row.header_root, row.rev):
                    # What is wrong with one of these was raised when it came by, and may now be skipped.
                    self._read_again(line, earlier)
                if not line.revs:
                    raise CorruptCheckpointError(f"header of revision {row.header_root}, on which it builds, is gone")
        else:
            self._lines.move_to_end(row.header_root)
        self._add(line, found)
        return line.header

    def _read_again(self, line: _Line, found: ScannedCheckpoint) -> None:
        if line.revs or found.row.rev == found.row.header_root:
            with contextlib.suppress(CorruptCheckpointError):
                self._add(line, found)

    def _add(self, line: _Line, found: ScannedCheckpoint) -> None:
        row, header = found.row, line.header
        is_first = row.rev == row.header_root
        if header is None and not is_first:
            return
        line.header = None
        line.revs.add(row.rev)
        if found.damage is not None:
            raise CorruptCheckpointError(found.damage)
        if row.header[:1] == ENCRYPTED:
            raise CheckpointError(
                f"checkpoint {row.id!r} is encrypted, and the serializer of this saver does not decrypt; give the saver "
                f"the EncryptedSerializer that it was written with"
            )
        if header is None or is_first:
            header = fold([(row.rev, row.header)], self._ns)
        else:
            check_line(row.header_root, line.revs, row.rev, row.parent_rev, row.flags)
            fold_on(header, row.rev, row.header)
        line.header = header
