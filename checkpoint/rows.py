"""Rows: what a saver's rows are asked for, and what they mean, whether they live in dicts or in a file.

Decides the shapes and the protocols by which `checkpoint.row_saver` reads and writes rows (`Rows`, `Transaction`), how a
checkpoint is addressed, how metadata is put together and searched, and what a row says of the run that goes on from it.
Knows no saver, and does not know where rows are.

Source: LangGraph's documented saver interface (persistence.md A3) for names; design.md D25, D57 for the rules.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Protocol

from checkpoint import ids, retention
from checkpoint.base import (
    ERROR,
    INTERRUPT,
    N_BITS,
    WRITES_IDX_MAP,
    CheckpointConflictError,
    CheckpointNotFoundError,
    Claim,
    CorruptCheckpointError,
    LoadedCheckpoint,
    RunnableConfig,
    TaskWrites,
    ThreadDeletedError,
    namespaces_above,
    says_something,
)
from checkpoint.chains import (
    LANE,
    PUBLIC_PUT,
    SOURCE_NAMES,
    CheckpointRow,
    Codec,
    EncodedStep,
    PayloadRow,
    PlainWrite,
    StoredChain,
    WriteRow,
    read_chains,
    read_task,
)
from checkpoint.headers import Header, fold
from checkpoint.repair import Mending

_UNFINISHED: Final = (WRITES_IDX_MAP[ERROR], WRITES_IDX_MAP[INTERRUPT])
"""Slots of the task rows that tell that a run ended before its time."""


class Address(NamedTuple):
    """A thread, and one namespace of it."""

    thread_pk: Any
    salt: int
    epoch: int
    claims: int
    space_pk: Any
    """None if the thread has no such namespace."""
    head: int | None
    root_head: int | None
    lease_owner: str | None = None
    lease_until: float | None = None
    """Seconds since the epoch."""


class Found(NamedTuple):
    """A checkpoint's row and its header chain up to it, oldest first."""

    row: CheckpointRow
    headers: list[tuple[int, bytes]]
    parent_id: str | None


class Entry(NamedTuple):
    """One line of a listing: enough to filter by."""

    thread_id: str
    ns: str
    space_pk: Any
    rev: int
    id: str
    step: int
    source: int
    flags: int
    run_id: str | None
    metadata: str | None
    address: Address


class Stored(NamedTuple):
    """All that a checkpoint is made of, as bytes: read in one view, decoded when that is over."""

    thread_id: str
    ns: str
    found: Found
    header: Header
    chains: Mapping[int, StoredChain]
    tasks: Sequence[WriteRow]


Nested = tuple[Mapping[str, int], Sequence[WriteRow]]
"""Stable namespace -> rev at which a nested run stands, and the task rows that may say that it ended before its time."""


class Head(NamedTuple):
    """The root namespace of one thread. `key` orders the threads, the oldest first, and is never used again."""

    key: Any
    thread_id: str
    address: Address


class Rows(Protocol):
    """One consistent view of the stored rows. Stubs of pruned checkpoints count as absent."""

    def address(self, thread_id: str, ns: str) -> Address | None:
        """The thread, if it is stored."""
        ...

    def place(self, space_pk: Any) -> tuple[int, str]:
        """(salt of the thread, namespace) of a space."""
        raise NotImplementedError

    def header_before(self, space_pk: Any, header_root: int, rev: int) -> int | None:
        """The last rev before `rev` in a header chain, stubs included."""
        ...

    def all_spaces(self, thread_id: str | None) -> list[Any]:
        """Keys of all namespaces of a thread, or of all threads."""
        raise NotImplementedError

    def has_space(self, space_pk: Any) -> bool:
        """Is the namespace still there?"""
        ...

    def checkpoint(self, space_pk: Any, rev: int) -> Found | None:
        """One checkpoint with its header chain."""
        ...

    def checkpoints(self, space_pk: Any, revs: Sequence[int]) -> Mapping[int, Found]:
        """`checkpoint` of each of these revs that is there."""
        raise NotImplementedError

    def alias(self, space_pk: Any, checkpoint_id: str) -> int | None:
        """Rev of an id that does not carry it."""
        ...

    def chains(self, space_pk: Any, wanted: Sequence[tuple[int, int, int]]) -> Mapping[int, StoredChain]:
        """Channel number -> its rows, for each (channel number, root, seq)."""
        raise NotImplementedError

    def lines(self, space_pk: Any, wanted: Sequence[tuple[int, int, int]]) -> Mapping[tuple[int, int], StoredChain]:
        """`chains` of several checkpoints: (channel number, root) -> the rows up to the seq."""
        raise NotImplementedError

    def tasks(self, space_pk: Any, rev: int) -> list[WriteRow]:
        """Task rows of a checkpoint, ordered by (path, task id, slot)."""
        raise NotImplementedError

    def tasks_of(self, space_pk: Any, revs: Sequence[int]) -> Mapping[int, list[WriteRow]]:
        """`tasks` of each of these revs that has any."""
        raise NotImplementedError

    def heads(self, after: Any, limit: int) -> list[Head]:
        """Threads by key, after the one with that key (None: from the start); those that have a newest checkpoint."""
        raise NotImplementedError

    def checkpoints_at(self, places: Sequence[tuple[Any, int]]) -> Mapping[Any, Found]:
        """`checkpoint` at each of these (space, rev), one for a space, that is there: by space."""
        raise NotImplementedError

    def tasks_at(self, places: Sequence[tuple[Any, int]]) -> Mapping[Any, list[WriteRow]]:
        """`tasks` at each of these (space, rev) that has any: by space."""
        raise NotImplementedError

    def open_child(self, space_pk: Any, up_rev: int, own: int) -> int | None:
        """The newest checkpoint of a nested namespace that works under this one. Of lanes only the one whose
        revs begin with `own`, and the one that `up_rev` is of."""
        ...

    def is_tip(self, space_pk: Any, rev: int) -> bool:
        """Does no checkpoint of the namespace follow on this one?"""
        ...

    def last_of_run(self, space_pk: Any, run_id: str) -> int | None:
        """The greatest rev of a namespace that a run stored."""
        ...

    def children(self, thread_id: str, up_rev: int) -> list[tuple[str, Any, int]]:
        """(Namespace, its key, its newest checkpoint) of those that work under this one. Of lanes only the one that
        `up_rev` is of."""
        raise NotImplementedError

    def exists(self, thread_id: str, ns: str | None, rev: int) -> bool:
        """Does a checkpoint or stub have a row, in this namespace or in any?"""
        ...

    def rev_in_thread(self, thread_id: str, checkpoint_id: str) -> int | None:
        """Rev of an id in any namespace of a thread."""
        ...

    def entries(self, thread_id: str | None, ns: str | None, below: int | None, limit: int | None) -> list[Entry]:
        """Checkpoints of a thread (or of all: then in any order), newest rev first, with rev < `below`."""
        raise NotImplementedError


class Mender(Mending, Protocol):
    """What a repair may do, under a claim."""

    def take(self, thread_id: str, salt: int) -> Any:
        """As `Transaction.take`."""
        ...


class Transaction(Rows, retention.Upkeep, Protocol):
    """A view that may also write; everything or nothing."""

    def take(self, thread_id: str, salt: int) -> Any:
        """Make the thread if needed and let its next claim number hold it. Returns the thread's key."""
        ...

    def take_lane(self, thread_id: str, thread_pk: Any, salt: int) -> tuple[Any, int, int] | None:
        """Give out a lane number: the thread's key, its salt, the number. Makes the thread if `thread_pk` is None and
        it is not there; None if it is not the one that it was."""
        ...

    def open_space(self, thread_pk: Any, ns: str) -> Any:
        """Make a namespace without a head. Returns its key."""
        ...

    def put_checkpoint(self, space_pk: Any, row: CheckpointRow) -> None:
        """Insert, or replace the row of the same rev."""

    def later_headers(self, space_pk: Any, header_root: int, rev: int) -> list[int]:
        """Revs after `rev` whose header chain starts at `header_root`, ascending."""
        raise NotImplementedError

    def set_header(self, space_pk: Any, rev: int, header_root: int, header: bytes | None) -> None:
        """Give a row another header chain; `header` None keeps its bytes."""

    def set_head(self, space_pk: Any, rev: int | None) -> None:
        """Make a checkpoint the newest of its namespace, or none."""

    def add_alias(self, space_pk: Any, checkpoint_id: str, rev: int) -> None:
        """Make an id findable that does not carry its rev."""

    def add_payloads(self, space_pk: Any, payloads: Sequence[PayloadRow]) -> None:
        """Insert chain rows."""

    def add_writes(self, space_pk: Any, writes: Sequence[PlainWrite], *, replace: bool = False) -> None:
        """Insert task rows: slot 0 stays as it is stored unless `replace`, slots below 0 are replaced."""

    def copy(self, source_pk: Any, target_id: str) -> Any:
        """Copy all rows of a thread to a new one, which must not exist. Returns its key."""
        ...

    def retire_expired(self, thread_id: str) -> None:
        """Let a thread vanish whose time to live is over."""

    def expire(self, limit: int) -> int:
        """Let up to `limit` expired threads vanish. Returns how many."""
        ...


# ---- addresses, metadata, filters


def addressed(config: RunnableConfig) -> tuple[str, str, str | None]:
    """(thread id, namespace, checkpoint id or None) of a config.

    Raises `ValueError` without a thread id, and for half a surrogate pair in any of them: no file can hold it.
    """
    configurable = config.get("configurable") or {}
    thread_id = configurable.get("thread_id")
    if thread_id is None:
        raise ValueError(
            "checkpointer: the config has no 'thread_id'; it says which line of checkpoints is meant; pass "
            '{"configurable": {"thread_id": "..."}}'
        )
    checkpoint_id = configurable.get("checkpoint_id")
    found = (
        str(thread_id),
        configurable.get("checkpoint_ns") or "",
        str(checkpoint_id) if checkpoint_id is not None and checkpoint_id != "" else None,
    )
    for name, text in zip(("thread_id", "checkpoint_ns", "checkpoint_id"), found, strict=True):
        if type(text) is str and not text.isascii():
            _check_text(name, text)
    return found


def _check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"checkpointer: {name!r} of the config is {text!r:.100}, of which position {error.start} is half a surrogate "
            f"pair; such a text cannot be stored; pass one that has a UTF-8 form"
        ) from None


def config_of(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    """The config that addresses one checkpoint."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}


def checked_limit(limit: int | None) -> int | None:
    """The limit itself. Raises `ValueError` unless it is None or a number of at least 0."""
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise ValueError(f"list: limit is {limit!r}; it must be None (all) or an int of at least 0")
    return limit


def metadata_of(source: int, step: int, flags: int, run_id: str | None, text: str | None) -> dict[str, Any]:
    """Metadata from its columns and its JSON."""
    metadata: dict[str, Any] = {}
    if source:
        if source not in SOURCE_NAMES:
            raise CorruptCheckpointError(f"source is {source}, which means nothing")
        metadata["source"] = SOURCE_NAMES[source]
        metadata["step"] = step
    if not flags & PUBLIC_PUT:
        metadata["parents"] = {}
    if text is not None:
        try:
            metadata.update(json.loads(text))
        except (ValueError, TypeError) as error:
            raise CorruptCheckpointError(f"metadata are no JSON object ({error}): {text!r:.200}") from error
    if run_id is not None:
        metadata["run_id"] = run_id
    return metadata


def row_metadata(row: CheckpointRow) -> dict[str, Any]:
    """Metadata of a checkpoint's row."""
    try:
        return metadata_of(row.source, row.step, row.flags, row.run_id, row.metadata)
    except CorruptCheckpointError as damage:
        raise CorruptCheckpointError(damage.reason, checkpoint_id=row.id) from damage


def matches(metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Does metadata have all these values? Literal key first, then dotted path; None matches a missing key."""
    for key, want in wanted.items():
        have: Any = metadata.get(key)
        if key not in metadata and "." in key:
            have = metadata
            for part in key.split("."):
                have = have.get(part) if isinstance(have, Mapping) else None
        if not _equal(have, want):
            return False
    return True


def _equal(have: Any, want: Any) -> bool:
    if isinstance(have, bool) or isinstance(want, bool):
        return have is want
    if isinstance(want, Mapping):
        return isinstance(have, Mapping) and have.keys() == want.keys() and all(_equal(have[k], want[k]) for k in want)
    if isinstance(want, (list, tuple)):
        return isinstance(have, list) and len(have) == len(want) and all(map(_equal, have, want))
    return bool(have == want)


# ---- what rows say


@contextmanager
def placed(thread_id: str, ns: str | None) -> Iterator[None]:
    """Give damage that the rows report the place they do not know."""
    try:
        yield
    except CorruptCheckpointError as damage:
        if damage.thread_id is not None:
            raise
        raise CorruptCheckpointError(
            damage.reason,
            thread_id=thread_id,
            ns=damage.ns if ns is None else ns,
            checkpoint_id=damage.checkpoint_id,
            channel=damage.channel,
        ) from damage


@contextmanager
def placed_at(thread_id: str, ns: str, found: Found) -> Iterator[None]:
    """Give damage of a checkpoint's rows its whole place."""
    try:
        yield
    except CorruptCheckpointError as damage:
        raise CorruptCheckpointError(
            damage.reason, thread_id=thread_id, ns=ns, checkpoint_id=found.row.id, channel=damage.channel
        ) from damage


def stored_at(
    rows: Rows,
    thread_id: str,
    ns: str,
    space_pk: Any,
    found: Found,
    *,
    header: Header | None = None,
    channels: Collection[str] | None = None,
) -> Stored:
    """The rows of a checkpoint. `header`: its folded one, if it is known. `channels`: only of these."""
    with placed_at(thread_id, ns, found):
        header = header or fold(found.headers, ns)
        wanted = header.chains(channels)
        chains = rows.chains(space_pk, wanted) if wanted else {}
        return Stored(thread_id, ns, found, header, chains, rows.tasks(space_pk, found.row.rev))


def decoded(
    stored: Stored, codec: Codec, *, lenient: bool = False, channels: Collection[str] | None = None
) -> tuple[dict[str, Any], list[TaskWrites]]:
    """Values and task writes of a checkpoint. What this costs, it costs outside of any view and any lock.

    `lenient`: values of unknown types come back opaque. `channels`: as `read_chains`.
    """
    with placed_at(stored.thread_id, stored.ns, stored.found):
        values = read_chains(stored.header, stored.chains, codec, lenient=lenient, channels=channels)
        shown, id_ = channels is not None, stored.found.row.id
        return values, [read_task(row, codec, id_, lenient=lenient, shown=shown) for row in stored.tasks]


def existing(rows: Rows, space_pk: Any, rev: int) -> Found:
    """The checkpoint that something stored refers to."""
    found = rows.checkpoint(space_pk, rev)
    if found is None:
        raise CorruptCheckpointError(f"a reference names revision {rev}, which has no row")
    return found


def check_still_there(rows: Rows, thread_id: str, ns: str, space_pk: Any, rev: int, up_rev: int) -> None:
    """Raise `CheckpointNotFoundError` if a nested checkpoint is gone together with the one that a run remembers it from.

    Without the latter nobody but that run knows of it: it may be pruned, above all beside a lane.
    """
    if rows.checkpoint(space_pk, rev) is not None:
        return
    for above in namespaces_above(ns):
        address = rows.address(thread_id, above)
        if (
            address is not None
            and address.space_pk is not None
            and rows.checkpoint(address.space_pk, up_rev) is not None
        ):
            return
    raise CheckpointNotFoundError(
        f"thread {thread_id!r}: the checkpoint under which a run works in namespace {ns!r} is not stored any more, nor is "
        f"what it was to go on from; load a newer one",
        thread_id=thread_id,
    )


def check_above(rows: Rows, thread_id: str, ns: str, found: Found) -> None:
    """Raise if the checkpoint of the namespace above is gone, to which a nested one belongs."""
    row = found.row
    up_rev = row.up_rev
    if up_rev is None:
        return
    for above in namespaces_above(ns):
        if rows.exists(thread_id, above, up_rev):
            return
    # What a stable namespace belongs to may be the namespace of one call.
    if ":" in ns or not rows.exists(thread_id, None, up_rev):
        raise CorruptCheckpointError(
            f"revision {up_rev} of the namespace above, to which it belongs, is gone", checkpoint_id=row.id
        )


def ends_lane(rows: Rows, space_pk: Any, found: Found) -> bool:
    """Is it the end of a lane? That is as open as the newest checkpoint is: nobody went on from it."""
    return bool(found.row.flags & LANE) and rows.is_tip(space_pk, found.row.rev)


def nested_under(rows: Rows, thread_id: str, up_rev: int) -> Iterator[Nested]:
    """Runs in stable namespaces directly under a checkpoint, or under namespaces of one call; later ones count."""
    for ns, space_pk, rev in rows.children(thread_id, up_rev):
        if ":" not in ns:
            unfinished = [task for task in rows.tasks(space_pk, rev) if task.slot in _UNFINISHED]
            yield {ns: rev}, unfinished
        elif (child := rows.checkpoint(space_pk, rev)) is not None:
            # It knows what ended before its own open superstep.
            yield fold(child.headers, ns).sub, ()
            yield from nested_under(rows, thread_id, rev)


def ended(nested: Sequence[Nested], codec: Codec) -> dict[str, int]:
    """`LoadedCheckpoint.open_sub`: those of nested runs that came to their end."""
    found: dict[str, int] = {}
    for where, unfinished in nested:
        if not any(_is_unfinished(task, codec) for task in unfinished):
            found.update(where)
    return found


def _is_unfinished(task: WriteRow, codec: Codec) -> bool:
    """Has a run ended with this task open? What a run that has left for good takes back says nothing any more."""
    ((_, value),) = read_task(task, codec, "", lenient=True).writes
    return says_something(value)


def claim_of(thread_id: str, address: Address | None) -> Claim:
    """The claim of a run that goes on from what is stored of a thread, None for a thread that is not."""
    if address is None:
        return Claim(thread_id, None, ids.new_salt(), 0, 1)
    return Claim(
        thread_id,
        address.thread_pk,
        address.salt,
        address.epoch,
        address.claims + 1,
        root_head=address.root_head,
        lease=address.lease_until,
    )


def loaded_from(
    claim: Claim,
    ns: str,
    found: Found,
    header: Header,
    values: dict[str, Any],
    writes: Sequence[TaskWrites],
    is_head: bool,
) -> LoadedCheckpoint:
    """A checkpoint as the engine takes it, with maps of its own."""
    row = found.row
    metadata = row_metadata(row)
    return LoadedCheckpoint(
        claim,
        ns,
        row.id,
        row.rev,
        row.parent_id or found.parent_id,
        row.parent_rev,
        row.ts if isinstance(row.ts, str) else ids.timestamp_from_us(row.ts),
        metadata.get("source", ""),
        row.step,
        dict(metadata.get("parents", {})),
        metadata,
        values,
        dict(header.versions),
        {node: dict(consumed) for node, consumed in header.seen.items()},
        list(header.updated) if header.updated is not None else None,
        dict(header.sub),
        list(writes),
        is_head,
        row.up_rev,
        facts=dict(header.facts),
    )


def relies_on(step: EncodedStep) -> list[int]:
    """Checkpoints of other namespaces that must still be there when a step is stored: the one that a nested one works
    under, if another run made it, and all that a lane refers to. What is no head's may be pruned at any time."""
    up_rev, rev = step.commit.up_rev, step.rev
    if rev is None:
        return []
    is_lane = step.claim.lane
    needed = list(step.commit.sub.values()) if is_lane else []
    if up_rev is not None and (is_lane or up_rev >> N_BITS != rev >> N_BITS):
        needed.append(up_rev)
    return needed


# ---- what a step that cannot be stored is told


def refuse_stale(step: EncodedStep) -> None:
    """Raise `CheckpointConflictError` for a commit that was encoded before its run went into a lane."""
    claim = step.claim
    if step.rev is not None and step.rev >> N_BITS != claim.lane_number():
        raise CheckpointConflictError(
            f"thread {claim.thread_id!r} (namespace {step.space.ns!r}): step {step.commit.step} was encoded before its run "
            f"went into lane {claim.number}; nothing of it was stored; encode it again",
            thread_id=claim.thread_id,
            ns=step.space.ns,
            run_id=step.commit.run_id,
        )


def parent_gone(step: EncodedStep) -> CheckpointNotFoundError:
    """What a step is told whose parent was removed since its run loaded it."""
    return CheckpointNotFoundError(
        f"thread {step.claim.thread_id!r}: the checkpoint that step {step.commit.step} continues is not stored any more "
        f"(namespace {step.space.ns!r}); load a newer one",
        thread_id=step.claim.thread_id,
    )


def thread_deleted(step: EncodedStep) -> ThreadDeletedError:
    """What a step is told whose thread was deleted since its run loaded it, also if its id is in use again."""
    thread_id = step.claim.thread_id
    return ThreadDeletedError(
        f"thread {thread_id!r} was deleted while a run was writing it; nothing of step {step.commit.step} was stored; "
        f"start a new run to create the thread again",
        thread_id=thread_id,
        ns=step.space.ns,
    )
