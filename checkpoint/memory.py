"""`InMemorySaver`: the rows of `checkpoint.chains` in dicts.

Decides where rows are and what a claim must find (the same rules as in a file: storage.md C5). Does not know bytes from
values: everything is encoded as a file saver would, so a test sees the refusals that a file would give, and nothing
that is read can change what is stored.

Invariants
1. A write is checked as a whole before the first row of it is stored.
2. Reading never makes anything.
3. One lock guards everything. What is read is taken under it and decoded without it; of user code only the codec runs
   under it, for what `put` and `put_writes` store and for upkeep.
"""

from __future__ import annotations

import heapq
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count, islice
from operator import itemgetter
from typing import Any, ClassVar, Final, ParamSpec, TypeVar, cast

from checkpoint import ids
from checkpoint.base import (
    N_BITS,
    CheckpointConflictError,
    CheckpointError,
    CorruptCheckpointError,
    Durability,
    EncodedCommit,
    RunnableConfig,
    StepCommit,
    check_number,
)
from checkpoint.chains import (
    FLAGS,
    HEADER,
    HEADER_ROOT,
    ID,
    LANE,
    PARENT_PRUNED,
    PARENT_REV,
    REV,
    RUN_ID,
    STUB,
    THINNED,
    UP_REV,
    CheckpointRow,
    Codec,
    EncodedStep,
    PayloadRow,
    PlainCheckpoint,
    PlainWrite,
    StoredChain,
    WriteRow,
    seal,
)
from checkpoint.deltas import FULL, LARGE
from checkpoint.retention import Line, Retention, SpaceRow, checked_keep, checked_seconds
from checkpoint.row_saver import HistoryWrites, RowSaver
from checkpoint.rows import (
    Address,
    Entry,
    Found,
    Head,
    addressed,
    parent_gone,
    refuse_stale,
    relies_on,
    thread_deleted,
)
from checkpoint.scan import Chain, ScannedBody, ScannedCheckpoint, ScannedSpace, ScannedTask, ScannedThread

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K", int, str, tuple[int, int])

SEAL_BATCH: Final = 64
"""Steps that become rows together: each then costs half (`checkpoint.chains`)."""

_numbers = count(1)


class _Space:
    """Rows of one namespace."""

    __slots__ = ("aliases", "checkpoints", "has_lanes", "head", "largest", "lines", "ns", "payloads", "salt", "writes")

    def __init__(self, ns: str, salt: int) -> None:
        self.ns = ns
        self.salt = salt
        """That of the thread."""
        self.head: int | None = None
        self.checkpoints: dict[int, PlainCheckpoint] = {}
        self.lines: dict[int, list[int]] = {}
        """Root of a header chain -> its revs, ascending."""
        self.payloads: dict[tuple[int, int], list[tuple[str | None, bytes]]] = {}
        """(channel number, root) -> bodies by seq."""
        self.largest = 0
        """Bytes of the largest of them."""
        self.writes: dict[int, PlainWrite | dict[tuple[str, int], PlainWrite]] = {}
        """rev -> (task id, slot) -> row; the row itself while there is one, as in most supersteps."""
        self.aliases: dict[str, int] = {}
        """Ids that do not carry their rev."""
        self.has_lanes = False
        """Then `checkpoints` is not in the order of revs: lanes and holder write at once."""

    def newest_first(self) -> Iterable[PlainCheckpoint]:
        """The rows, greatest rev first."""
        if self.has_lanes:
            return sorted(self.checkpoints.values(), key=itemgetter(REV), reverse=True)
        return reversed(self.checkpoints.values())

    def shows(self, rev: int) -> bool:
        """Is there a checkpoint, and no stub?"""
        row = self.checkpoints.get(rev)
        return row is not None and not row[FLAGS] & STUB

    def remove(self, rev: int) -> PlainCheckpoint | None:
        """Take a checkpoint's row out, with its alias."""
        row = self.checkpoints.pop(rev, None)
        if row is not None:
            revs = self.lines[row[HEADER_ROOT]]
            revs.remove(rev)
            if not revs:
                del self.lines[row[HEADER_ROOT]]
            if self.aliases.get(row[ID]) == rev:
                del self.aliases[row[ID]]
        return row

    def copy(self) -> _Space:
        """The same rows under own dicts."""
        copied = _Space(self.ns, self.salt)
        copied.head = self.head
        copied.checkpoints = dict(self.checkpoints)
        copied.lines = {root: list(revs) for root, revs in self.lines.items()}
        copied.largest = self.largest
        copied.payloads = {key: list(rows) for key, rows in self.payloads.items()}
        copied.writes = {rev: dict(rows) if isinstance(rows, dict) else rows for rev, rows in self.writes.items()}
        copied.aliases = dict(self.aliases)
        copied.has_lanes = self.has_lanes
        return copied


class _Thread:
    """One thread. `key` is never used again after a delete."""

    __slots__ = ("claims", "epoch", "expires_at", "key", "salt", "spaces", "thread_id")

    def __init__(self, thread_id: str, salt: int) -> None:
        self.thread_id = thread_id
        self.key = next(_numbers)
        self.salt = salt
        self.claims = 0
        self.epoch = 0
        """Number of the claim that holds it; -1 once it is deleted."""
        self.expires_at: float | None = None
        """Seconds since the epoch; from then on it counts as not stored."""
        self.spaces: dict[str, _Space] = {}

    def is_over(self) -> bool:
        return self.expires_at is not None and self.expires_at <= time.time()


class InMemorySaver(RowSaver):
    """Keeps checkpoints in this process. Values are encoded, so what is read back is a private copy.

    Both APIs; usable as a sync and an async context manager, which change nothing.
    """

    _batch: ClassVar[int] = sys.maxsize

    def __init__(
        self,
        *,
        serde: Any = None,
        factory: Any = None,
        max_checkpoint_lag: int = 1,
        history_writes: HistoryWrites = "keep",
        retention: Retention | None = None,
        max_threads: int | None = None,
        ttl: float | None = None,
    ) -> None:
        """
        Args:
            serde: how values become bytes; the shared `JsonPlusSerializer` if None.
            factory: accepted for programs that pass one; rows are always plain dicts.
            max_checkpoint_lag: supersteps that may be unwritten; writes here are immediate, so it changes nothing.
            history_writes: `"drop"` saves the place that the results of past tasks take; a history shows none then.
            retention: what is removed again while threads go on; nothing if None.
            max_threads: threads that are kept; the least recently written goes when there is one more, and a run that
                still works on it is refused.
            ttl: seconds since its last write after which a thread is gone; short for `Retention(ttl=...)`.
        """
        if checked_seconds("InMemorySaver: ttl", ttl) is not None:
            retention = replace(retention or Retention(), ttl=ttl)
        super().__init__(
            serde=serde, max_checkpoint_lag=max_checkpoint_lag, history_writes=history_writes, retention=retention
        )
        del factory
        self._max_threads = None if max_threads is None else checked_keep("InMemorySaver: max_threads", max_threads)
        self._tends = retention is not None or max_threads is not None
        """Has a commit anything to do beside storing?"""
        self._threads: dict[str, _Thread] = {}
        self._lock = threading.RLock()
        self._unsealed: list[EncodedStep] = []
        """Steps that are stored but not yet rows."""
        self._view = _View(self._threads)

    # ---- writing

    def write(self, batch: Sequence[EncodedCommit], *, durability: Durability = "sync") -> None:
        """Store the batch at once. Raises the errors of storage.md C2 and stores nothing then."""
        del durability
        steps: list[EncodedStep] = []
        for encoded in batch:
            _flatten(encoded, steps)
        if steps:
            with self._lock:
                self._store(steps)

    def submit(self, encoded: EncodedCommit) -> None:
        """Store at once."""
        # Most commits continue the checkpoint before them under a claim that still holds: all that `_store` checks of
        # such a one are these few fields, and there is nothing to make.
        step: Any = encoded
        claim = step.claim
        with self._lock:
            thread, space = claim.memory, step.space.pk
            if (
                thread is not None
                and thread.epoch == claim.number
                and space is not None
                and space.head == step.expected
                # No atoms alone: what more may be asked of it?
                and (step.placed is None or (step.rev is not None and step.must_exist is None and not step.others))
                and claim.poisoned is None
                and not self._tends
            ):
                space.head = step.rev
                unsealed = self._unsealed
                unsealed.append(step)
                if len(unsealed) == SEAL_BATCH or (step.placed is not None and _is_heavy(step)):
                    self._seal()
            else:
                steps: list[EncodedStep] = []
                _flatten(step, steps)
                self._store(steps)

    def _encode_gently(self, commit: StepCommit) -> EncodedStep:
        encoded = super()._encode_gently(commit)
        codec = self._codec()
        if codec.encrypting is not None:
            # Sealing encrypts: here, and not where it is stored, which is on the event loop.
            with self._lock:
                self._seal()
            steps: list[EncodedStep] = []
            _flatten(encoded, steps)
            for step in steps:
                seal(step, codec)
        return encoded

    def _store(self, steps: Sequence[EncodedStep]) -> None:
        self._seal()
        claim = steps[0].claim
        if claim.poisoned is not None:
            raise claim.poisoned
        thread = self._threads.get(claim.thread_id)
        if claim.thread_pk is None and thread is not None and thread.is_over():
            # It was not there when the run loaded it.
            self._view.remove(thread)
            thread = None
        if claim.lane:
            self._store_lane(steps, thread)
            return
        if thread is not None and claim.thread_pk is None and not thread.epoch:
            # Nobody has claimed it: a lane made it.
            claim.thread_pk, claim.salt = thread.key, thread.salt
        made: set[int | None] = set()
        try:
            self._check_claim(steps[0], thread)
            heads: dict[str, int | None] = {}
            for step in steps:
                self._check_step(step, thread, heads)
                self._check_others(step, thread, made)
                made.add(step.rev)
        except CheckpointError as refusal:
            claim.poisoned = refusal
            raise
        begins = not claim.claimed
        if begins or claim.number != claim.epoch:
            if thread is None:
                thread = self._threads[claim.thread_id] = _Thread(claim.thread_id, claim.salt)
            claim.thread_pk = thread.key
            claim.memory = thread
            claim.epoch = thread.epoch = claim.number
            thread.claims = max(thread.claims, claim.number)
            claim.claimed = True
        assert thread is not None
        codec = self._codec()
        for step in steps:
            ns = step.space.ns
            space = thread.spaces.get(ns)
            if space is None:
                space = thread.spaces[ns] = _Space(ns, thread.salt)
            step.space.pk = space
            if step.rev is not None:
                space.head = step.rev
            _add_step(space, step, codec)
            if begins:
                _add_alias(space, step)
        if self._tends:
            self._tend(thread, steps)

    def _store_lane(self, steps: Sequence[EncodedStep], thread: _Thread | None) -> None:
        claim = steps[0].claim
        if thread is None or thread.key != claim.thread_pk:
            raise thread_deleted(steps[0])
        made: set[int] = set()
        for step in steps:
            refuse_stale(step)
            if step.rev is not None:
                space = thread.spaces.get(step.space.ns)
                parent = step.commit.parent_rev
                if parent is not None and parent not in made:
                    if space is None or not space.shows(parent):
                        raise parent_gone(step)
                    # What it shares may have been stored anew since it was loaded.
                    if parent >> N_BITS != step.rev >> N_BITS and any(
                        len(space.payloads.get(ref[:2], ())) <= ref[2] for ref in step.space.header.chains()
                    ):
                        raise parent_gone(step)
                self._check_others(step, thread, made)
                made.add(step.rev)
        if made:
            # So that who has planned what to remove looks again: this may need it.
            thread.claims += 1
        codec = self._codec()
        for step in steps:
            if step.rev is None and not step.writes:
                continue
            space = thread.spaces.get(step.space.ns)
            if space is None:
                space = thread.spaces[step.space.ns] = _Space(step.space.ns, thread.salt)
            space.has_lanes = True
            _add_step(space, step, codec)
            _add_alias(space, step)
        if self._tends:
            self._tend(thread, steps)

    def _tend(self, thread: _Thread, steps: Sequence[EncodedStep]) -> None:
        """What a commit does for the saver's limits: a little each time."""
        if self._keeper is not None:
            self._keeper.after(self._opened(self._view), thread.key, steps[0].claim, steps, time.time())
        self._view.touch(thread)
        self._evict()

    def _evict(self) -> None:
        """Drop the least recently written threads that are too many or over, two at most."""
        threads, limit = self._threads, self._max_threads
        for thread in list(islice(threads.values(), 2)):
            if (limit is not None and len(threads) > limit) or (thread.is_over() and len(threads) > 1):
                self._view.remove(thread)

    def _seal(self) -> None:
        """Make rows of what was stored since the last time, in order."""
        # In place: a copy of the saver with another serializer has the same list.
        unsealed = self._unsealed[:]
        self._unsealed.clear()
        codec = self._codec()
        for step in unsealed:
            _add_step(step.space.pk, step, codec)

    def _check_claim(self, step: EncodedStep, thread: _Thread | None) -> None:
        claim = step.claim
        if not claim.claimed:
            check_number(claim.thread_id, claim.number)
        if claim.thread_pk is None:
            if thread is not None:
                raise self._conflict(step, thread)
        elif thread is None or thread.key != claim.thread_pk:
            raise thread_deleted(step)
        elif claim.claimed:
            if thread.epoch != claim.epoch:
                raise self._conflict(step, thread)
        else:
            root = thread.spaces.get("")
            head = root.head if root is not None else None
            # Lanes may have taken numbers meanwhile; they are no reason to refuse.
            if thread.epoch != claim.epoch or head != claim.root_head:
                raise self._conflict(step, thread)

    def _check_step(self, step: EncodedStep, thread: _Thread | None, heads: dict[str, int | None]) -> None:
        ns = step.space.ns
        space = thread.spaces.get(ns) if thread is not None else None
        if step.must_exist is not None and (space is None or not space.shows(step.must_exist)):
            raise parent_gone(step)
        if step.rev is not None:
            head = heads.get(ns, space.head if space is not None else None)
            if head != step.expected:
                raise self._conflict(step, thread)
            heads[ns] = step.rev

    def _check_others(self, step: EncodedStep, thread: _Thread | None, made: Collection[int | None]) -> None:
        """Is what a step refers to in other namespaces still there? It may have been pruned since it was loaded."""
        if thread is None:
            return
        for needed in relies_on(step):
            if needed not in made and not any(space.shows(needed) for space in thread.spaces.values()):
                raise parent_gone(step)

    def _conflict(self, step: EncodedStep, thread: _Thread | None) -> CheckpointConflictError:
        space = thread.spaces.get(step.space.ns) if thread is not None else None

        def id_of(rev: int | None) -> str | None:
            row = space.checkpoints.get(rev) if space is not None and rev is not None else None
            return row[ID] if row is not None else None

        return CheckpointConflictError(
            thread_id=step.claim.thread_id,
            ns=step.space.ns,
            expected=id_of(step.expected if step.rev is not None else step.space.head),
            actual=id_of(space.head if space is not None else None),
            run_id=step.commit.run_id,
        )

    # ---- how the rows are reached

    @contextmanager
    def _reading(self) -> Iterator[_View]:
        with self._lock:
            self._seal()
            yield self._opened(self._view)

    @contextmanager
    def _scanning(self) -> Iterator[_Scan]:
        with self._lock:
            self._seal()
            yield _Scan(self._threads)

    @contextmanager
    def _mending(self) -> Iterator[tuple[_Scan, _Mender]]:
        with self._writing():
            yield _Scan(self._threads), _Mender(self._threads)

    @contextmanager
    def _writing(self) -> Iterator[_View]:
        # `RowSaver` does everything that can be refused before its first write.
        with self._lock:
            self._seal()
            yield self._opened(self._view)
            if self._tends:
                self._evict()

    def _threads_of(self, run_ids: Sequence[str]) -> list[str]:
        wanted = set(run_ids)
        with self._lock:
            self._seal()
            return [
                thread.thread_id
                for thread in self._threads.values()
                if any(row[RUN_ID] in wanted for space in thread.spaces.values() for row in space.checkpoints.values())
            ]

    async def _off_loop(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        # Nothing here waits for anything; only decoding a large value takes long.
        if not self._has_large(args[0] if args else None):
            return call(*args, **kwargs)
        value: T = await self._encoder.post(partial(call, *args, **kwargs)).shielded()
        return value

    def _has_large(self, config: Any) -> bool:
        """May the addressed namespace have values that take long to decode? Without a config: any."""
        with self._lock:
            self._seal()
        if not isinstance(config, dict):
            return any(
                space.largest > LARGE
                for thread in list(self._threads.values())
                for space in list(thread.spaces.values())
            )
        thread_id, ns, _ = addressed(cast("RunnableConfig", config))
        thread = self._threads.get(thread_id)
        space = thread.spaces.get(ns) if thread is not None else None
        return space is not None and space.largest > LARGE

    async def _off_loop_write(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return call(*args, **kwargs)


MemorySaver = InMemorySaver


def _flatten(encoded: Any, steps: list[EncodedStep]) -> None:
    for other in encoded.others:
        _flatten(other, steps)
    steps.append(encoded)


def _add_alias(space: _Space, step: EncodedStep) -> None:
    """Make a checkpoint findable whose id was made for another rev, or for another salt."""
    if step.rev is not None and ids.rev_of(step.commit.checkpoint_id, step.claim.salt) != step.rev:
        space.aliases[step.commit.checkpoint_id] = step.rev


def _is_heavy(step: EncodedStep) -> bool:
    """Does the step's description hold on to large values, which nobody else may need any more?"""
    chains, commit = step.space.chains, step.commit
    written = chains.keys() & (commit.values.keys() | commit.ops.keys())
    return max([chains[name].live for name in written], default=0) > LARGE


def _add_step(space: _Space, step: EncodedStep, codec: Codec) -> None:
    row = seal(step, codec)
    if row is not None:
        root = row[HEADER_ROOT]
        rev = row[REV]
        space.checkpoints[rev] = row
        if root == rev:
            space.lines[rev] = [rev]
        else:
            space.lines[root].append(rev)
        if step.payloads:
            _add_payloads(space, step.payloads)
    if step.writes:
        _add_writes(space, step.writes)
    if step.settled is not None:
        _drop_results(space, step.settled)


def _drop_results(space: _Space, rev: int) -> None:
    """Take out the regular task writes of a checkpoint."""
    rows = space.writes.pop(rev, None)
    if isinstance(rows, dict):
        special = {key: row for key, row in rows.items() if row[2]}
        if special:
            space.writes[rev] = special
    elif rows is not None and rows[2]:
        space.writes[rev] = rows


def _add_payloads(space: _Space, payloads: Sequence[PayloadRow]) -> None:
    for number, root, seq, _, tag, data in payloads:
        rows = space.payloads.setdefault((number, root), [])
        if len(rows) != seq:
            raise CorruptCheckpointError(
                f"chain {number}/{root} has {len(rows)} rows, row {seq} was to follow", ns=space.ns
            )
        rows.append((tag, data))
        if len(data) > space.largest:
            space.largest = len(data)


def _add_writes(space: _Space, writes: Sequence[PlainWrite], replace: bool = False) -> None:
    for write in writes:
        rev, task_id, slot, _, _, _ = write
        rows = space.writes.get(rev)
        if rows is None:
            space.writes[rev] = write
            continue
        if not isinstance(rows, dict):
            rows = space.writes[rev] = {(rows[1], rows[2]): rows}
        key = task_id, slot
        if slot or replace or key not in rows:
            rows[key] = write


def _address(thread: _Thread, space: _Space | None) -> Address:
    root = thread.spaces.get("")
    return Address(
        thread.key,
        thread.salt,
        thread.epoch,
        thread.claims,
        space,
        space.head if space is not None else None,
        root.head if root is not None else None,
    )


def _newest_first(thread: _Thread, space: _Space, below: int | None) -> Iterator[Entry]:
    address = _address(thread, space)
    for plain in space.newest_first():
        if (below is None or plain[REV] < below) and not plain[FLAGS] & STUB:
            row = CheckpointRow._make(plain)
            yield Entry(
                thread.thread_id,
                space.ns,
                space,
                row.rev,
                row.id,
                row.step,
                row.source,
                row.flags,
                row.run_id,
                row.metadata,
                address,
            )


class _View:
    """`Rows` and `Transaction` over the dicts. Used under the saver's lock; a namespace's key is its `_Space`."""

    def __init__(self, threads: dict[str, _Thread]) -> None:
        self._threads = threads

    def address(self, thread_id: str, ns: str) -> Address | None:
        thread = self._threads.get(thread_id)
        if thread is None or thread.is_over():
            return None
        return _address(thread, thread.spaces.get(ns))

    def place(self, space_pk: _Space) -> tuple[int, str]:
        return space_pk.salt, space_pk.ns

    def header_before(self, space_pk: _Space, header_root: int, rev: int) -> int | None:
        return max((at for at in space_pk.lines.get(header_root, ()) if at < rev), default=None)

    def all_spaces(self, thread_id: str | None) -> list[_Space]:
        threads = self._threads.values() if thread_id is None else filter(None, (self._threads.get(thread_id),))
        return [space for thread in threads for space in thread.spaces.values()]

    def has_space(self, space_pk: _Space) -> bool:
        return any(thread.spaces.get(space_pk.ns) is space_pk for thread in self._threads.values())

    def chain_tags(
        self, space_pk: _Space, after: tuple[int, int, int] | None, limit: int
    ) -> list[tuple[int, int, int, int, str | None]]:
        entries = (
            (number, root, seq, FULL, tag)  # kinds are not kept here
            for (number, root), rows in sorted(space_pk.payloads.items())
            for seq, (tag, _) in enumerate(rows)
        )
        return list(islice((entry for entry in entries if after is None or entry[:3] > after), limit))

    def chain_body(self, space_pk: _Space, number: int, root: int, seq: int) -> bytes:
        return space_pk.payloads[number, root][seq][1]

    def replace_payload(self, space_pk: _Space, row: PayloadRow) -> None:
        number, root, seq, _, tag, body = row
        space_pk.payloads[number, root][seq] = tag, body

    def task_rows(self, space_pk: _Space, after: int | None, limit: int) -> list[PlainWrite]:
        page: list[PlainWrite] = []
        for rev, rows in sorted(space_pk.writes.items(), key=lambda item: item[0]):
            if len(page) >= limit:
                break
            if after is None or rev > after:
                page += rows.values() if isinstance(rows, dict) else (rows,)
        return page

    def checkpoints_after(self, space_pk: _Space, rev: int | None, limit: int) -> list[CheckpointRow]:
        revs = sorted(at for at in space_pk.checkpoints if rev is None or at > rev)[:limit]
        return [CheckpointRow._make(space_pk.checkpoints[at]) for at in revs]

    def checkpoint(self, space_pk: _Space, rev: int) -> Found | None:
        checkpoints = space_pk.checkpoints
        plain = checkpoints.get(rev)
        if plain is None or plain[FLAGS] & STUB:
            return None
        row = CheckpointRow._make(plain)
        headers = self.header_line(space_pk, row.header_root, rev)
        parent = checkpoints.get(row.parent_rev) if row.parent_rev is not None else None
        return Found(row, headers, parent[ID] if parent is not None and not parent[FLAGS] & STUB else None)

    def checkpoints(self, space_pk: _Space, revs: Sequence[int]) -> dict[int, Found]:
        found = ((rev, self.checkpoint(space_pk, rev)) for rev in revs)
        return {rev: one for rev, one in found if one is not None}

    def alias(self, space_pk: _Space, checkpoint_id: str) -> int | None:
        return space_pk.aliases.get(checkpoint_id)

    def chains(self, space_pk: _Space, wanted: Sequence[tuple[int, int, int]]) -> Mapping[int, StoredChain]:
        stored: dict[int, StoredChain] = {}
        for number, root, seq in wanted:
            rows = space_pk.payloads.get((number, root), [])
            stored[number] = rows[: seq + 1], len(rows) > seq + 1
        return stored

    def lines(self, space_pk: _Space, wanted: Sequence[tuple[int, int, int]]) -> Mapping[tuple[int, int], StoredChain]:
        return {(want[0], want[1]): self.chains(space_pk, [want])[want[0]] for want in wanted}

    def tasks_of(self, space_pk: _Space, revs: Sequence[int]) -> Mapping[int, list[WriteRow]]:
        return {rev: self.tasks(space_pk, rev) for rev in revs}

    def tasks(self, space_pk: _Space, rev: int) -> list[WriteRow]:
        found = space_pk.writes.get(rev, {})
        rows = map(WriteRow._make, found.values() if isinstance(found, dict) else [found])
        return sorted(rows, key=lambda row: (row.path, row.task_id, row.slot))

    def heads(self, after: int | None, limit: int) -> list[Head]:
        threads = {thread.key: thread for thread in self._threads.values() if not thread.is_over()}
        found = []
        for key in sorted(key for key in threads if after is None or key > after):
            root = threads[key].spaces.get("")
            if root is not None and root.head is not None:
                found.append(Head(key, threads[key].thread_id, _address(threads[key], root)))
        return found[:limit]

    def checkpoints_at(self, places: Sequence[tuple[_Space, int]]) -> dict[_Space, Found]:
        found = ((space_pk, self.checkpoint(space_pk, rev)) for space_pk, rev in places)
        return {space_pk: one for space_pk, one in found if one is not None}

    def tasks_at(self, places: Sequence[tuple[_Space, int]]) -> dict[_Space, list[WriteRow]]:
        return {space_pk: self.tasks(space_pk, rev) for space_pk, rev in places}

    def open_child(self, space_pk: _Space, up_rev: int, own: int) -> int | None:
        # A child's rev is greater than its parent's.
        for row in space_pk.newest_first():
            rev = row[REV]
            if rev <= up_rev:
                break
            is_own = not row[FLAGS] & LANE or rev >> N_BITS in (own, up_rev >> N_BITS)
            if row[UP_REV] == up_rev and is_own and not row[FLAGS] & STUB:
                return rev
        return None

    def is_tip(self, space_pk: _Space, rev: int) -> bool:
        return all(row[PARENT_REV] != rev for row in space_pk.checkpoints.values())

    def last_of_run(self, space_pk: _Space, run_id: str) -> int | None:
        rows = (row[REV] for row in space_pk.newest_first() if row[RUN_ID] == run_id and not row[FLAGS] & STUB)
        return next(rows, None)

    def children(self, thread_id: str, up_rev: int) -> list[tuple[str, _Space, int]]:
        found = [
            (ns, space, self.open_child(space, up_rev, -1)) for ns, space in self._threads[thread_id].spaces.items()
        ]
        return [(ns, space, rev) for ns, space, rev in found if rev is not None]

    def exists(self, thread_id: str, ns: str | None, rev: int) -> bool:
        thread = self._threads.get(thread_id)
        if thread is None:
            return False
        if ns is None:
            return any(rev in space.checkpoints for space in thread.spaces.values())
        return ns in thread.spaces and rev in thread.spaces[ns].checkpoints

    def rev_in_thread(self, thread_id: str, checkpoint_id: str) -> int | None:
        thread = self._threads.get(thread_id)
        if thread is None or thread.is_over():
            return None
        carried = ids.rev_of(checkpoint_id, thread.salt)
        for space in thread.spaces.values():
            row = space.checkpoints.get(carried) if carried is not None else None
            if row is not None and row[ID] == checkpoint_id and not row[FLAGS] & STUB:
                return carried
            if checkpoint_id in space.aliases:
                return space.aliases[checkpoint_id]
        return None

    def entries(self, thread_id: str | None, ns: str | None, below: int | None, limit: int | None) -> list[Entry]:
        threads = self._threads.values() if thread_id is None else filter(None, (self._threads.get(thread_id),))
        # Rows of a namespace are in the order of their revs: the newest need no look at the rest.
        lines = [
            _newest_first(thread, space, below)
            for thread in threads
            if not thread.is_over()
            for space in thread.spaces.values()
            if ns is None or space.ns == ns
        ]
        merged = lines[0] if len(lines) == 1 else heapq.merge(*lines, key=lambda entry: entry.rev, reverse=True)
        return list(islice(merged, limit))

    def take_lane(self, thread_id: str, thread_pk: int | None, salt: int) -> tuple[int, int, int] | None:
        thread = self._threads.get(thread_id)
        if thread_pk is None and thread is not None and thread.is_over():
            self.remove(thread)
            thread = None
        if thread is None and thread_pk is None:
            thread = self._threads[thread_id] = _Thread(thread_id, salt)
        elif thread is None or thread_pk not in (None, thread.key):
            return None
        thread.claims += 1
        return thread.key, thread.salt, thread.claims

    def take(self, thread_id: str, salt: int) -> int:
        thread = self._threads.get(thread_id)
        if thread is not None and thread.is_over():
            self.remove(thread)
            thread = None
        if thread is None:
            thread = self._threads[thread_id] = _Thread(thread_id, salt)
        check_number(thread_id, thread.claims + 1)
        thread.claims += 1
        thread.epoch = thread.claims
        self.touch(thread)
        return thread.key

    def touch(self, thread: _Thread) -> None:
        """Make a thread the most recently written."""
        self._threads[thread.thread_id] = self._threads.pop(thread.thread_id)

    def _thread(self, thread_pk: int) -> _Thread:
        # What is looked for was written last, more often than not.
        for thread in reversed(self._threads.values()):
            if thread.key == thread_pk:
                return thread
        raise KeyError(thread_pk)

    def open_space(self, thread_pk: int, ns: str) -> _Space:
        thread = self._thread(thread_pk)
        return thread.spaces.setdefault(ns, _Space(ns, thread.salt))

    def put_checkpoint(self, space_pk: _Space, row: CheckpointRow) -> None:
        old = space_pk.checkpoints.get(row.rev)
        if old is not None:
            space_pk.lines[old[HEADER_ROOT]].remove(row.rev)
        space_pk.checkpoints[row.rev] = row[:]  # without names
        revs = space_pk.lines.setdefault(row.header_root, [])
        revs.append(row.rev)
        revs.sort()

    def later_headers(self, space_pk: _Space, header_root: int, rev: int) -> list[int]:
        return [at for at in space_pk.lines[header_root] if at > rev]

    def set_header(self, space_pk: _Space, rev: int, header_root: int, header: bytes | None) -> None:
        row = CheckpointRow._make(space_pk.checkpoints[rev])
        kept = row.header if header is None else header
        self.put_checkpoint(space_pk, row._replace(header_root=header_root, header=kept))

    def set_head(self, space_pk: _Space, rev: int | None) -> None:
        space_pk.head = rev

    def add_alias(self, space_pk: _Space, checkpoint_id: str, rev: int) -> None:
        space_pk.aliases[checkpoint_id] = rev

    def add_payloads(self, space_pk: _Space, payloads: Sequence[PayloadRow]) -> None:
        _add_payloads(space_pk, payloads)

    def add_writes(self, space_pk: _Space, writes: Sequence[PlainWrite], *, replace: bool = False) -> None:
        _add_writes(space_pk, writes, replace)

    # Upkeep. Everything happens under the lock, in one go: no plan can be overtaken.

    def stamp(self) -> None:
        return None

    def n_claims(self, thread_pk: int) -> int:
        return self._thread(thread_pk).claims

    def spaces(self, thread_pk: int) -> list[SpaceRow]:
        return [SpaceRow(space.ns, space, space.head) for space in self._thread(thread_pk).spaces.values()]

    def lines_of(self, space_pk: _Space) -> list[Line]:
        rows = map(CheckpointRow._make, space_pk.checkpoints.values())
        lines = [Line(r.rev, r.parent_rev, r.up_rev, r.ts, r.source, r.flags, r.run_id, r.header_root) for r in rows]
        lines.sort()
        return lines

    def task_keys(self, space_pk: _Space, rev: int | None = None) -> list[tuple[int, str | bytes, int]]:
        found = space_pk.writes
        some = found.values() if rev is None else [found[rev]] if rev in found else []
        return [write[:3] for rows in some for write in (rows.values() if isinstance(rows, dict) else (rows,))]

    def header_line(self, space_pk: _Space, header_root: int, last: int) -> list[tuple[int, bytes]]:
        checkpoints = space_pk.checkpoints
        return [(rev, checkpoints[rev][HEADER]) for rev in space_pk.lines.get(header_root, ()) if rev <= last]

    def chain_lengths(self, space_pk: _Space) -> list[tuple[int, int, int]]:
        return [(number, root, len(rows)) for (number, root), rows in space_pk.payloads.items()]

    def mark_pruned(self, space_pk: _Space, rev: int, *, parent: bool, up: bool, to: int | None = None) -> None:
        plain = space_pk.checkpoints.get(rev)
        if plain is None:
            return
        row = CheckpointRow._make(plain)
        if parent:
            row = row._replace(parent_rev=to, flags=row.flags | PARENT_PRUNED)
        if up:
            row = row._replace(up_rev=None)
        space_pk.checkpoints[rev] = row[:]

    def mark_thinned(self, space_pk: _Space, rev: int) -> None:
        plain = space_pk.checkpoints.get(rev)
        if plain is not None:
            row = CheckpointRow._make(plain)
            space_pk.checkpoints[rev] = row._replace(flags=row.flags | THINNED)[:]

    def drop_checkpoint(self, space_pk: _Space, rev: int, *, stub: bool) -> int:
        if not stub:
            space_pk.remove(rev)
            return 1
        plain = space_pk.checkpoints.get(rev)
        if plain is None:
            return 0
        row = CheckpointRow._make(plain)
        if space_pk.aliases.get(row.id) == rev:
            del space_pk.aliases[row.id]
        stripped = row._replace(
            parent_rev=None,
            parent_id=None,
            up_rev=None,
            run_id=None,
            metadata=None,
            flags=row.flags | STUB | PARENT_PRUNED,
        )
        space_pk.checkpoints[rev] = stripped[:]
        return 1

    def drop_tasks(self, space_pk: _Space, rev: int, limit: int) -> int:
        rows = space_pk.writes.get(rev)
        if rows is None:
            return 0
        if not isinstance(rows, dict) or len(rows) <= limit:
            del space_pk.writes[rev]
            return len(rows) if isinstance(rows, dict) else 1
        for key in list(islice(rows, limit)):
            del rows[key]
        return limit

    def drop_task(self, space_pk: _Space, rev: int, task: Any, slot: int) -> None:
        rows = space_pk.writes.get(rev)
        if isinstance(rows, dict):
            rows.pop((task, slot), None)
        elif rows is not None and rows[1:3] == (task, slot):
            del space_pk.writes[rev]

    def drop_chain(self, space_pk: _Space, number: int, root: int, first: int, last: int, limit: int) -> int:
        rows = space_pk.payloads.get((number, root), [])
        n_rows = len(rows)
        del rows[max(first, n_rows - limit) :]
        if not rows:
            space_pk.payloads.pop((number, root), None)
        return n_rows - len(rows)

    def drop_space(self, space_pk: _Space) -> None:
        for thread in self._threads.values():
            if thread.spaces.get(space_pk.ns) is space_pk:
                del thread.spaces[space_pk.ns]
                return

    def remove(self, thread: _Thread) -> None:
        """Take a thread out; whoever holds it is refused from now on."""
        del self._threads[thread.thread_id]
        thread.epoch = -1

    def retire(self, thread_pk: int) -> None:
        self.remove(self._thread(thread_pk))

    def expire_at(self, thread_pk: int, moment: float) -> None:
        self._thread(thread_pk).expires_at = moment

    def retire_expired(self, thread_id: str) -> None:
        thread = self._threads.get(thread_id)
        if thread is not None and thread.is_over():
            self.remove(thread)

    def expire(self, limit: int) -> int:
        over = list(islice((thread for thread in self._threads.values() if thread.is_over()), limit))
        for thread in over:
            self.remove(thread)
        return len(over)

    def copy(self, source_pk: int, target_id: str) -> int:
        source = self._thread(source_pk)
        self.retire_expired(target_id)
        target = _Thread(target_id, source.salt)
        target.claims, target.epoch, target.expires_at = source.claims, source.epoch, source.expires_at
        target.spaces = {ns: space.copy() for ns, space in source.spaces.items()}
        self._threads[target_id] = target
        return target.key


class _Scan:
    """`checkpoint.scan.Scan` over the dicts, under the saver's lock. There are no checksums: nothing can have changed
    the bytes. A page is cut from a sorted copy of the keys, which is made for each page."""

    def __init__(self, threads: dict[str, _Thread]) -> None:
        self._threads = {thread.thread_id: thread for thread in threads.values() if not thread.is_over()}
        self._by_key = {thread.key: thread for thread in self._threads.values()}

    def threads(self, after: int | None, limit: int) -> list[ScannedThread]:
        page = _page(sorted(self._by_key), after, limit)
        return [ScannedThread(key, self._by_key[key].thread_id, self._by_key[key].salt) for key in page]

    def thread(self, thread_id: str) -> ScannedThread | None:
        thread = self._threads.get(thread_id)
        return None if thread is None else ScannedThread(thread.key, thread_id, thread.salt)

    def spaces(self, thread_key: int, after: str | None, limit: int) -> list[ScannedSpace]:
        spaces = self._spaces_of(thread_key)
        page = _page(sorted(spaces), after, limit)
        return [ScannedSpace(spaces[ns], ns, spaces[ns].head) for ns in page]

    def space(self, thread_key: int, ns: str) -> ScannedSpace | None:
        space = self._spaces_of(thread_key).get(ns)
        return None if space is None else ScannedSpace(space, ns, space.head)

    def _spaces_of(self, thread_key: int) -> dict[str, _Space]:
        thread = self._by_key.get(thread_key)
        return thread.spaces if thread is not None else {}

    def place(self, space_pk: _Space) -> tuple[int, str]:
        return space_pk.salt, space_pk.ns

    def identity(self, space_pk: _Space, rev: int) -> tuple[str, int] | None:
        plain = space_pk.checkpoints.get(rev)
        if plain is None:
            return None
        row = CheckpointRow._make(plain)
        return row.id, row.flags

    def headers(self, space_pk: _Space, after: int | None, limit: int) -> list[ScannedCheckpoint]:
        page = _page(sorted(space_pk.checkpoints), after, limit)
        return [ScannedCheckpoint(CheckpointRow._make(space_pk.checkpoints[rev]), None) for rev in page]

    def line(self, space_pk: _Space, root: int, below: int) -> list[ScannedCheckpoint]:
        revs = [rev for rev in space_pk.lines.get(root, ()) if rev < below]
        return [ScannedCheckpoint(CheckpointRow._make(space_pk.checkpoints[rev]), None) for rev in revs]

    def bodies(
        self, space_pk: _Space, after: tuple[int, int, int] | None, limit: int, n_bytes: int
    ) -> list[ScannedBody]:
        first = None if after is None else after[:2]
        found: list[ScannedBody] = []
        for number, root in sorted(space_pk.payloads):
            if first is not None and (number, root) < first:
                continue
            rows = space_pk.payloads[number, root]
            for seq in range(after[2] + 1 if after is not None and first == (number, root) else 0, len(rows)):
                if len(found) >= limit or n_bytes <= 0:
                    return found
                tag, body = rows[seq]
                found.append(ScannedBody(number, root, seq, tag, body, None))
                n_bytes -= len(body)
        return found

    def count_rows(self, space_pk: _Space, number: int, root: int, first: int, last: int) -> int:
        n_rows = len(space_pk.payloads.get((number, root), ()))
        return max(0, min(n_rows, last + 1) - first)

    def chain_sizes(self, space_pk: _Space, after: tuple[int, int] | None, limit: int) -> list[Chain]:
        page = _page(sorted(key for key, rows in space_pk.payloads.items() if rows), after, limit)
        sizes = ((*key, space_pk.payloads[key]) for key in page)
        return [Chain(number, root, len(rows) - 1, sum(len(body) for _, body in rows)) for number, root, rows in sizes]

    def bytes_behind(self, space_pk: _Space, number: int, root: int, seq: int) -> int:
        return sum(len(body) for _, body in space_pk.payloads.get((number, root), [])[seq + 1 :])

    def writes(
        self, space_pk: _Space, after: tuple[int, str, int] | None, limit: int, n_bytes: int
    ) -> list[ScannedTask]:
        found: list[ScannedTask] = []
        for rev in sorted(space_pk.writes):
            if after is not None and rev < after[0]:
                continue
            kept = space_pk.writes[rev]
            rows = kept.values() if isinstance(kept, dict) else [kept]
            for row in sorted(map(WriteRow._make, rows), key=lambda row: row[:3]):
                if after is not None and row[:3] <= after:
                    continue
                if len(found) >= limit or n_bytes <= 0:
                    return found
                found.append(ScannedTask(row, None))
                n_bytes -= len(row.body)
        return found

    def write_sizes(self, space_pk: _Space) -> tuple[int, int]:
        rows = [
            row for kept in space_pk.writes.values() for row in (kept.values() if isinstance(kept, dict) else [kept])
        ]
        return len(rows), sum(len(row[5]) for row in rows)

    def aliases(self, space_pk: _Space, after: str | None, limit: int) -> list[tuple[str, int]]:
        return [(alias, space_pk.aliases[alias]) for alias in _page(sorted(space_pk.aliases), after, limit)]

    def alias(self, space_pk: _Space, checkpoint_id: str) -> int | None:
        return space_pk.aliases.get(checkpoint_id)

    def file_problems(self) -> list[str]:
        return []

    def file_sizes(self) -> tuple[int, int]:
        return 0, 0


class _Mender(_View):
    """What a repair may do."""

    def remove_alias(self, space_pk: _Space, checkpoint_id: str) -> None:
        space_pk.aliases.pop(checkpoint_id, None)

    def remove_checkpoint(self, space_pk: _Space, rev: int) -> None:
        plain = space_pk.checkpoints.pop(rev, None)
        if plain is not None:
            space_pk.lines[plain[HEADER_ROOT]].remove(rev)
        space_pk.writes.pop(rev, None)

    def remove_write(self, space_pk: _Space, rev: int, task_id: str, slot: int) -> None:
        kept = space_pk.writes.get(rev)
        if isinstance(kept, dict):
            kept.pop((task_id, slot), None)
        elif kept is not None and kept[1:3] == (task_id, slot):
            del space_pk.writes[rev]

    def remove_rows(self, space_pk: _Space, number: int, root: int, first: int) -> None:
        rows = space_pk.payloads.get((number, root), [])
        del rows[first:]
        if not rows:
            space_pk.payloads.pop((number, root), None)


def _page(keys: list[K], after: K | None, limit: int) -> list[K]:
    """The first of sorted keys that come after the given one."""
    start = 0 if after is None else bisect_right(keys, after)
    return keys[start : start + limit]
