"""Listings: the checkpoints of a thread or of all threads, newest first, page by page.

Decides what a page reads (four statements, however many checkpoints it shows) and which entries fit a listing. Nothing is
held between two pages. The saver puts each checkpoint together (`checkpoint.row_saver`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from checkpoint.base import (
    CheckpointTuple,
    CorruptCheckpointError,
    RunnableConfig,
)
from checkpoint.chains import (
    Codec,
    StoredChain,
    WriteRow,
)
from checkpoint.headers import Header, fold
from checkpoint.rows import (
    Entry,
    Found,
    Rows,
    Stored,
    addressed,
    checked_limit,
    claim_of,
    decoded,
    loaded_from,
    matches,
    metadata_of,
    placed,
    stored_at,
)

PAGE: Final = 50
"""Checkpoints of a listing that are read at a time."""


class Shower(Protocol):
    """What a listing asks of its saver (`checkpoint.row_saver.RowSaver`)."""

    def _codec(self) -> Codec: ...

    def _settle(self, thread_id: str) -> None: ...

    def _reading(self) -> AbstractContextManager[Rows]: ...

    def _tuple(self, stored: Stored, *, lenient: bool = False) -> CheckpointTuple: ...


class PageRows:
    """What checkpoints of one namespace are made of, read by three statements however many there are.

    Neighbours share their chains, which are read once. Stands in for `Rows` where a checkpoint is put together.
    """

    def __init__(
        self, rows: Rows, ns: str, space_pk: Any, revs: Sequence[int], channels: Collection[str] | None = None
    ) -> None:
        self._rows = rows
        self._headers: dict[int, Header] = {}
        self._ends: dict[tuple[int, int], int] = {}
        try:
            self._found = rows.checkpoints(space_pk, revs)
            for rev, found in self._found.items():
                header = self._headers[rev] = fold(found.headers, ns)
                for number, root, seq in header.chains(channels):
                    self._ends[number, root] = max(seq, self._ends.get((number, root), 0))
            wanted = [(number, root, seq) for (number, root), seq in self._ends.items()]
            self._lines = rows.lines(space_pk, wanted) if wanted else {}
            self._tasks = rows.tasks_of(space_pk, revs)
            self._is_whole = True
        except CorruptCheckpointError:
            # Read one by one, the damage is met again where its checkpoint is known.
            self._is_whole = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)

    def checkpoint(self, space_pk: Any, rev: int) -> Found | None:
        """As `Rows.checkpoint`."""
        return self._found.get(rev) if self._is_whole else self._rows.checkpoint(space_pk, rev)

    def header(self, rev: int) -> Header | None:
        """The folded header of a checkpoint, if it is known."""
        return self._headers[rev] if self._is_whole else None

    def chains(self, space_pk: Any, wanted: Sequence[tuple[int, int, int]]) -> Mapping[int, StoredChain]:
        """As `Rows.chains`."""
        if not self._is_whole:
            return self._rows.chains(space_pk, wanted)
        stored: dict[int, StoredChain] = {}
        for number, root, seq in wanted:
            rows, further = self._lines.get((number, root), ([], False))
            stored[number] = rows[: seq + 1], further or len(rows) > seq + 1
        return stored

    def tasks(self, space_pk: Any, rev: int) -> list[WriteRow]:
        """As `Rows.tasks`."""
        return self._tasks.get(rev, []) if self._is_whole else self._rows.tasks(space_pk, rev)


class Listing:
    """Where a `list` or `history` stands between two pages. Nothing is held in between."""

    def __init__(
        self,
        saver: Shower,
        config: RunnableConfig | None,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
        *,
        native: bool,
        channels: Collection[str] | None = None,
    ) -> None:
        if filter and saver._codec().encrypting is not None:
            raise ValueError(
                f"list: filter={dict(filter)!r:.200}, but the metadata of this saver is encrypted and cannot be "
                f"searched; list without filter and choose from what comes"
            )
        self.saver = saver
        self.native = native
        self.channels = channels
        self.filter = filter or {}
        self.left = checked_limit(limit)
        self.done = limit == 0
        self.thread_id: str | None = None
        self.ns: str | None = None
        self.only: str | None = None
        if config is not None:
            self.thread_id, ns, self.only = addressed(config)
            if native or config.get("configurable", {}).get("checkpoint_ns") is not None:
                self.ns = ns
        self.before = (before or {}).get("configurable", {}).get("checkpoint_id")
        self.below: int | None = None
        self.below_id: str | None = self.before
        self.started = False
        self.rest: list[Entry] = []
        """Listing of all threads only: what is left of it, newest last."""

    def page(self) -> list[Any]:
        """The next checkpoints; `done` is set when there are no more."""
        saver = self.saver
        if not self.started and self.thread_id is not None:
            saver._settle(self.thread_id)
        read: list[tuple[Entry, Stored]] = []
        with saver._reading() as reading:
            if not self.started:
                self._start(reading)
            fitting: list[Entry] = []
            for entry in self._next(reading):
                with placed(entry.thread_id, entry.ns):
                    if self._fits(entry):
                        fitting.append(entry)
            while fitting and (self.left is None or len(read) < self.left):
                n_wanted = len(fitting) if self.left is None else self.left - len(read)
                read += self._together(reading, fitting[:n_wanted])
                del fitting[:n_wanted]
        shown: list[Any] = []
        for entry, stored in read:
            with placed(entry.thread_id, entry.ns):
                shown.append(self._shown(entry, stored))
        if self.left is not None:
            self.left -= len(shown)
            if self.left == 0:
                self.done = True
        return shown

    def _together(self, reading: Rows, entries: Sequence[Entry]) -> list[tuple[Entry, Stored]]:
        """The rows of entries, without those that were removed since the listing of all threads was taken."""
        spaces: dict[Any, list[Entry]] = {}
        for entry in entries:
            spaces.setdefault(entry.space_pk, []).append(entry)
        read: dict[Entry, Stored] = {}
        for space_pk, own in spaces.items():
            rows: Any = PageRows(reading, own[0].ns, space_pk, [entry.rev for entry in own], self.channels)
            for entry in own:
                with placed(entry.thread_id, entry.ns):
                    found = rows.checkpoint(space_pk, entry.rev)
                    if found is not None and found.row.id == entry.id:
                        header = rows.header(entry.rev)
                        read[entry] = stored_at(
                            rows, entry.thread_id, entry.ns, space_pk, found, header=header, channels=self.channels
                        )
                    elif self.thread_id is not None:
                        # Its row has been seen in this very view.
                        raise CorruptCheckpointError(
                            f"the row of revision {entry.rev} does not lead to its header", checkpoint_id=entry.id
                        )
        return [(entry, read[entry]) for entry in entries if entry in read]

    def _start(self, rows: Rows) -> None:
        self.started = True
        if self.thread_id is None:
            entries = rows.entries(None, self.ns, None, None)
            self.rest = sorted(entries, key=lambda entry: entry.id)
        elif self.before is not None:
            self.below = rows.rev_in_thread(self.thread_id, self.before)
            if self.below is not None:
                self.below_id = None

    def _next(self, rows: Rows) -> list[Entry]:
        if self.thread_id is None:
            page, self.rest = self.rest[: -PAGE - 1 : -1], self.rest[:-PAGE]
            self.done = not self.rest
            return page
        size = PAGE
        if self.left is not None and not self.filter and self.only is None and self.below_id is None:
            size = min(PAGE, self.left)
        page = rows.entries(self.thread_id, self.ns, self.below, size)
        if len(page) < size:
            self.done = True
        else:
            if type(page[-1].rev) is not int or (self.below is not None and page[-1].rev >= self.below):
                # A damaged tree may lead round in a circle.
                raise CorruptCheckpointError(
                    "rows of checkpoints are not in the order of their revisions", thread_id=self.thread_id, ns=self.ns
                )
            self.below = page[-1].rev
        return page

    def _fits(self, entry: Entry) -> bool:
        if self.below_id is not None and entry.id >= self.below_id:
            return False
        if self.only is not None and entry.id != self.only:
            return False
        if not self.filter:
            return True
        with placed(entry.thread_id, entry.ns):
            metadata = metadata_of(entry.source, entry.step, entry.flags, entry.run_id, entry.metadata)
        return matches(metadata, self.filter)

    def _shown(self, entry: Entry, stored: Stored) -> Any:
        saver = self.saver
        if not self.native:
            return saver._tuple(stored, lenient=True)
        values, writes = decoded(stored, saver._codec(), channels=self.channels)
        claim = claim_of(entry.thread_id, entry.address)
        is_head = entry.rev == entry.address.head
        return loaded_from(claim, entry.ns, stored.found, stored.header, values, writes, is_head)
