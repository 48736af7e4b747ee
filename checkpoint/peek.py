"""Peeking: what is pending at the newest checkpoint of a thread, or of a nested namespace below one, without its values.

Decides what is read for that: header, task rows, and the values of the channels that are asked for; of the others only
that they have one. No class of the program is needed. For tools that look at many threads (`graph.check`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from checkpoint.base import LoadedCheckpoint
from checkpoint.chains import Codec, read_chains, read_task
from checkpoint.headers import fold
from checkpoint.rows import Rows, claim_of, loaded_from, placed

PAGE: Final = 100
"""Threads that are looked at in one view."""


class Unread(NamedTuple):
    """Stands for a value that was not asked for."""

    channel: str


def peek(
    rows: Rows, codec: Codec, thread_id: str, ns: str, up_rev: int | None, wanted: Callable[[str], bool]
) -> LoadedCheckpoint | None:
    """The newest checkpoint of a namespace; with `up_rev` the newest that works under that one. None if there is none.

    The values of channels that are not `wanted` are `Unread`; values of unknown types are `Opaque`. Raises
    `CorruptCheckpointError`.
    """
    with placed(thread_id, ns):
        address = rows.address(thread_id, ns)
        if address is None or address.space_pk is None:
            return None
        rev = address.head if up_rev is None else rows.open_child(address.space_pk, up_rev, -1)
        found = None if rev is None else rows.checkpoint(address.space_pk, rev)
        if found is None:
            return None
        header = fold(found.headers, ns)
        values: dict[str, Any] = {}
        for held in (header.inline, header.refs):
            for name in [name for name in held if not wanted(name)]:
                del held[name]
                values[name] = Unread(name)
        chains = header.chains()
        stored = rows.chains(address.space_pk, chains) if chains else {}
        values.update(read_chains(header, stored, codec, lenient=True))
        tasks = rows.tasks(address.space_pk, found.row.rev)
        writes = [read_task(row, codec, found.row.id, lenient=True) for row in tasks]
        return loaded_from(claim_of(thread_id, address), ns, found, header, values, writes, True)
