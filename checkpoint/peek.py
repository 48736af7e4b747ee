"""Peeking: what is pending at the newest checkpoints of threads, and of nested namespaces below them, without their values.

Decides what is read for that: headers, task rows, and the values of the channels that are asked for; of the others only
that they have one. No class of the program is needed. For tools that look at many threads (`graph.check`): a page of them
is three statements, and one more for each thread with a wanted value that is large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from checkpoint.base import Claim, CorruptCheckpointError, LoadedCheckpoint
from checkpoint.chains import Codec, WriteRow
from checkpoint.headers import fold
from checkpoint.rows import Address, Found, Head, Rows, Stored, claim_of, decoded, loaded_from, placed

PAGE: Final = 50
"""Threads that are looked at in one view."""


class Unread(NamedTuple):
    """Stands for a value that was not asked for."""

    channel: str


class Read(NamedTuple):
    """A checkpoint as it was read; `Peeker.loaded` decodes it."""

    stored: Stored
    unread: dict[str, Any]
    claim: Claim


class Peeker:
    """Reads checkpoints in one view. `wanted`: the channels whose values are read; those of unknown types come back as
    `Opaque`, the values of all other channels are `Unread`. Raises `CorruptCheckpointError`.
    """

    def __init__(self, rows: Rows, codec: Codec, wanted: Callable[[str], bool]) -> None:
        self.rows = rows
        self.codec = codec
        self.wanted = wanted

    def heads(self, after: Any) -> tuple[list[Read], Any]:
        """A page of the newest root checkpoints of threads, and the key of its last thread; None after the end."""
        heads = self.rows.heads(after, PAGE)
        if not heads:
            return [], None
        found, tasks = self._rows_of(heads)
        page = [
            self._read(head.thread_id, "", head.address, found[pk], tasks.get(pk, ()))
            for head in heads
            if (pk := head.address.space_pk) in found
        ]
        return page, heads[-1].key

    def _rows_of(self, heads: Sequence[Head]) -> tuple[Mapping[Any, Found], Mapping[Any, Sequence[WriteRow]]]:
        places: list[Any] = [(head.address.space_pk, head.address.head) for head in heads]
        try:
            return self.rows.checkpoints_at(places), self.rows.tasks_at(places)
        except CorruptCheckpointError:
            # Read one by one, the damage is met again where its thread is known.
            for head, (space_pk, rev) in zip(heads, places, strict=True):
                with placed(head.thread_id, ""):
                    self.rows.checkpoint(space_pk, rev)
                    self.rows.tasks(space_pk, rev)
            raise

    def below(self, thread_id: str, ns: str, up_rev: int) -> Read | None:
        """The newest checkpoint of a nested namespace that works under this one; None if there is none."""
        with placed(thread_id, ns):
            address = self.rows.address(thread_id, ns)
            if address is None or address.space_pk is None:
                return None
            rev = self.rows.open_child(address.space_pk, up_rev, -1)
            found = None if rev is None else self.rows.checkpoint(address.space_pk, rev)
            if found is None:
                return None
            tasks = self.rows.tasks(address.space_pk, found.row.rev)
        return self._read(thread_id, ns, address, found, tasks)

    def _read(self, thread_id: str, ns: str, address: Address, found: Found, tasks: Sequence[WriteRow]) -> Read:
        with placed(thread_id, ns):
            header = fold(found.headers, ns)
            unread: dict[str, Any] = {}
            held: dict[str, Any]
            for held in (header.inline, header.refs):
                for name in [name for name in held if not self.wanted(name)]:
                    del held[name]
                    unread[name] = Unread(name)
            chains = header.chains()
            stored = self.rows.chains(address.space_pk, chains) if chains else {}
        return Read(Stored(thread_id, ns, found, header, stored, tasks), unread, claim_of(thread_id, address))

    def loaded(self, read: Read) -> LoadedCheckpoint:
        """What was read, decoded. Needs no view."""
        stored, unread, claim = read
        with placed(stored.thread_id, stored.ns):
            values, writes = decoded(stored, self.codec, lenient=True)
            return loaded_from(claim, stored.ns, stored.found, stored.header, {**unread, **values}, writes, True)
