"""`InMemorySaver`: the rows of `checkpoint.chains` in dicts.

Decides where rows are and what a claim must find (the same rules as in a file: storage.md C5). Does not know bytes from
values: everything is encoded as a file saver would, so a test sees the refusals that a file would give, and nothing
that is read can change what is stored.

Invariants
1. A write is checked as a whole before the first row of it is stored.
2. Reading never makes anything.
3. One lock guards everything; no user code runs under it but the codec's.
"""

from __future__ import annotations

import heapq
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, islice
from typing import Any, ClassVar, ParamSpec, TypeVar

from checkpoint import ids
from checkpoint.base import (
    CheckpointConflictError,
    CheckpointError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    Durability,
    EncodedCommit,
    ThreadDeletedError,
)
from checkpoint.chains import (
    FLAGS,
    HEADER,
    HEADER_ROOT,
    ID,
    PARENT_PRUNED,
    REV,
    RUN_ID,
    STUB,
    UP_REV,
    CheckpointRow,
    EncodedStep,
    PayloadRow,
    PlainCheckpoint,
    PlainWrite,
    StoredChain,
    WriteRow,
)
from checkpoint.retention import Line, Retention, SpaceRow, checked_keep, checked_seconds
from checkpoint.rows import Address, Entry, Found, RowSaver

P = ParamSpec("P")
T = TypeVar("T")

_numbers = count(1)


class _Space:
    """Rows of one namespace."""

    __slots__ = ("aliases", "checkpoints", "head", "lines", "ns", "payloads", "writes")

    def __init__(self, ns: str) -> None:
        self.ns = ns
        self.head: int | None = None
        self.checkpoints: dict[int, PlainCheckpoint] = {}
        self.lines: dict[int, list[int]] = {}
        """Root of a header chain -> its revs, ascending."""
        self.payloads: dict[tuple[int, int], list[tuple[str | None, bytes]]] = {}
        """(channel number, root) -> bodies by seq."""
        self.writes: dict[int, PlainWrite | dict[tuple[str, int], PlainWrite]] = {}
        """rev -> (task id, slot) -> row; the row itself while there is one, as in most supersteps."""
        self.aliases: dict[str, int] = {}
        """Ids that do not carry their rev."""

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
        copied = _Space(self.ns)
        copied.head = self.head
        copied.checkpoints = dict(self.checkpoints)
        copied.lines = {root: list(revs) for root, revs in self.lines.items()}
        copied.payloads = {key: list(rows) for key, rows in self.payloads.items()}
        copied.writes = {rev: dict(rows) if isinstance(rows, dict) else rows for rev, rows in self.writes.items()}
        copied.aliases = dict(self.aliases)
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
        retention: Retention | None = None,
        max_threads: int | None = None,
        ttl: float | None = None,
    ) -> None:
        """
        Args:
            serde: how values become bytes; the shared `JsonPlusSerializer` if None.
            factory: accepted for programs that pass one; rows are always plain dicts.
            max_checkpoint_lag: supersteps that may be unwritten; writes here are immediate, so it changes nothing.
            retention: what is removed again while threads go on; nothing if None.
            max_threads: threads that are kept; the least recently written goes when there is one more, and a run that
                still works on it is refused.
            ttl: seconds since its last write after which a thread is gone; short for `Retention(ttl=...)`.
        """
        if checked_seconds("InMemorySaver: ttl", ttl) is not None:
            retention = replace(retention or Retention(), ttl=ttl)
        super().__init__(serde=serde, max_checkpoint_lag=max_checkpoint_lag, retention=retention)
        del factory
        self._max_threads = None if max_threads is None else checked_keep("InMemorySaver: max_threads", max_threads)
        self._tends = retention is not None or max_threads is not None
        """Has a commit anything to do beside storing?"""
        self._threads: dict[str, _Thread] = {}
        self._lock = threading.RLock()
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
        claim, row = step.claim, step.row
        with self._lock:
            thread = self._threads.get(claim.thread_id)
            if (
                thread is not None
                and thread.key == claim.thread_pk
                and thread.epoch == claim.number
                and claim.claimed
                and claim.poisoned is None
                and row is not None
                and (space := thread.spaces.get(step.space.ns)) is not None
                and space.head == step.expected
                and step.must_exist is None
                and not step.others
                and not self._tends
            ):
                _add_step(space, step, row)
            else:
                steps: list[EncodedStep] = []
                _flatten(step, steps)
                self._store(steps)

    def _store(self, steps: Sequence[EncodedStep]) -> None:
        claim = steps[0].claim
        if claim.poisoned is not None:
            raise claim.poisoned
        thread = self._threads.get(claim.thread_id)
        if claim.thread_pk is None and thread is not None and thread.is_over():
            # It was not there when the run loaded it.
            del self._threads[claim.thread_id]
            thread = None
        try:
            self._check_claim(steps[0], thread)
            heads: dict[str, int | None] = {}
            for step in steps:
                self._check_step(step, thread, heads)
        except CheckpointError as refusal:
            claim.poisoned = refusal
            raise
        if not claim.claimed:
            if thread is None:
                thread = self._threads[claim.thread_id] = _Thread(claim.thread_id, claim.salt)
            claim.thread_pk = thread.key
            claim.epoch = thread.epoch = thread.claims = claim.number
            claim.claimed = True
        assert thread is not None
        for step in steps:
            ns = step.space.ns
            space = thread.spaces.get(ns)
            if space is None:
                space = thread.spaces[ns] = _Space(ns)
            _add_step(space, step, step.row)
        if self._tends:
            self._tend(thread, steps)

    def _tend(self, thread: _Thread, steps: Sequence[EncodedStep]) -> None:
        """What a commit does for the saver's limits: a little each time."""
        if self._keeper is not None:
            self._keeper.after(self._view, thread.key, steps[0].claim, steps, time.time())
        self._view.touch(thread)
        self._evict()

    def _evict(self) -> None:
        """Drop the least recently written threads that are too many or over, two at most."""
        threads, limit = self._threads, self._max_threads
        for thread in list(islice(threads.values(), 2)):
            if (limit is not None and len(threads) > limit) or (thread.is_over() and len(threads) > 1):
                del threads[thread.thread_id]

    def _check_claim(self, step: EncodedStep, thread: _Thread | None) -> None:
        claim = step.claim
        if claim.thread_pk is None:
            if thread is not None:
                raise self._conflict(step, thread)
        elif thread is None or thread.key != claim.thread_pk:
            raise ThreadDeletedError(
                f"thread {claim.thread_id!r} was deleted while a run was writing it; nothing of step {step.step} was "
                f"stored; start a new run to create the thread again",
                thread_id=claim.thread_id,
                ns=step.space.ns,
            )
        elif claim.claimed:
            if thread.epoch != claim.number:
                raise self._conflict(step, thread)
        else:
            root = thread.spaces.get("")
            head = root.head if root is not None else None
            if thread.epoch != claim.epoch or thread.claims != claim.number - 1 or head != claim.root_head:
                raise self._conflict(step, thread)

    def _check_step(self, step: EncodedStep, thread: _Thread | None, heads: dict[str, int | None]) -> None:
        ns = step.space.ns
        space = thread.spaces.get(ns) if thread is not None else None
        if step.must_exist is not None and (space is None or not space.shows(step.must_exist)):
            raise CheckpointNotFoundError(
                f"thread {step.claim.thread_id!r}: the checkpoint that step {step.step} continues is not stored any "
                f"more (namespace {ns!r}); load a newer one",
                thread_id=step.claim.thread_id,
            )
        if step.row is not None:
            head = heads.get(ns, space.head if space is not None else None)
            if head != step.expected:
                raise self._conflict(step, thread)
            heads[ns] = step.row[REV]

    def _conflict(self, step: EncodedStep, thread: _Thread | None) -> CheckpointConflictError:
        space = thread.spaces.get(step.space.ns) if thread is not None else None

        def id_of(rev: int | None) -> str | None:
            row = space.checkpoints.get(rev) if space is not None and rev is not None else None
            return row[ID] if row is not None else None

        return CheckpointConflictError(
            thread_id=step.claim.thread_id,
            ns=step.space.ns,
            expected=id_of(step.expected if step.row is not None else step.space.head),
            actual=id_of(space.head if space is not None else None),
            run_id=step.row[RUN_ID] if step.row is not None else None,
        )

    # ---- how the rows are reached

    @contextmanager
    def _reading(self) -> Iterator[_View]:
        with self._lock:
            yield self._view

    @contextmanager
    def _writing(self) -> Iterator[_View]:
        # `RowSaver` does everything that can be refused before its first write.
        with self._lock:
            yield self._view
            if self._tends:
                self._evict()

    def _threads_of(self, run_ids: Sequence[str]) -> list[str]:
        wanted = set(run_ids)
        with self._lock:
            return [
                thread.thread_id
                for thread in self._threads.values()
                if any(row[RUN_ID] in wanted for space in thread.spaces.values() for row in space.checkpoints.values())
            ]

    async def _off_loop(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return call(*args, **kwargs)

    async def _off_loop_write(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return call(*args, **kwargs)


MemorySaver = InMemorySaver


def _flatten(encoded: Any, steps: list[EncodedStep]) -> None:
    for other in encoded.others:
        _flatten(other, steps)
    steps.append(encoded)


def _add_step(space: _Space, step: EncodedStep, row: PlainCheckpoint | None) -> None:
    if row is not None:
        root = row[HEADER_ROOT]
        rev = space.head = row[REV]
        space.checkpoints[rev] = row
        if root == rev:
            space.lines[rev] = [rev]
        else:
            space.lines[root].append(rev)
        if step.payloads:
            _add_payloads(space, step.payloads)
    if step.writes:
        _add_writes(space, step.writes)


def _add_payloads(space: _Space, payloads: Sequence[PayloadRow]) -> None:
    for number, root, seq, _, tag, data in payloads:
        rows = space.payloads.setdefault((number, root), [])
        if len(rows) != seq:
            raise CorruptCheckpointError(
                f"chain {number}/{root} has {len(rows)} rows, row {seq} was to follow", ns=space.ns
            )
        rows.append((tag, data))


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


def _newest_first(thread: _Thread, space: _Space, below: int | None) -> Iterator[Entry]:
    for plain in reversed(space.checkpoints.values()):
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
            )


class _View:
    """`Rows` and `Transaction` over the dicts. Used under the saver's lock; a namespace's key is its `_Space`."""

    def __init__(self, threads: dict[str, _Thread]) -> None:
        self._threads = threads

    def address(self, thread_id: str, ns: str) -> Address | None:
        thread = self._threads.get(thread_id)
        if thread is None or thread.is_over():
            return None
        space, root = thread.spaces.get(ns), thread.spaces.get("")
        return Address(
            thread.key,
            thread.salt,
            thread.epoch,
            thread.claims,
            space,
            space.head if space is not None else None,
            root.head if root is not None else None,
        )

    def checkpoint(self, space_pk: _Space, rev: int) -> Found | None:
        checkpoints = space_pk.checkpoints
        plain = checkpoints.get(rev)
        if plain is None or plain[FLAGS] & STUB:
            return None
        row = CheckpointRow._make(plain)
        headers = self.header_line(space_pk, row.header_root, rev)
        parent = checkpoints.get(row.parent_rev) if row.parent_rev is not None else None
        return Found(row, headers, parent[ID] if parent is not None and not parent[FLAGS] & STUB else None)

    def alias(self, space_pk: _Space, checkpoint_id: str) -> int | None:
        return space_pk.aliases.get(checkpoint_id)

    def chains(self, space_pk: _Space, wanted: Sequence[tuple[int, int, int]]) -> Mapping[int, StoredChain]:
        stored: dict[int, StoredChain] = {}
        for number, root, seq in wanted:
            rows = space_pk.payloads.get((number, root), [])
            stored[number] = rows[: seq + 1], len(rows) > seq + 1
        return stored

    def tasks(self, space_pk: _Space, rev: int) -> list[WriteRow]:
        found = space_pk.writes.get(rev, {})
        rows = map(WriteRow._make, found.values() if isinstance(found, dict) else [found])
        return sorted(rows, key=lambda row: (row.path, row.task_id, row.slot))

    def open_child(self, space_pk: _Space, up_rev: int) -> int | None:
        # Rows are in the order of their revs, and a child's is greater than its parent's.
        for row in reversed(space_pk.checkpoints.values()):
            if row[REV] <= up_rev:
                break
            if row[UP_REV] == up_rev and not row[FLAGS] & STUB:
                return row[REV]
        return None

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

    def take(self, thread_id: str, salt: int) -> int:
        thread = self._threads.get(thread_id)
        if thread is None or thread.is_over():
            thread = self._threads[thread_id] = _Thread(thread_id, salt)
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
        return self._thread(thread_pk).spaces.setdefault(ns, _Space(ns))

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

    def spaces(self, thread_pk: int) -> list[SpaceRow]:
        return [SpaceRow(space.ns, space, space.head) for space in self._thread(thread_pk).spaces.values()]

    def lines(self, space_pk: _Space) -> list[Line]:
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
        return [(rev, checkpoints[rev][HEADER]) for rev in space_pk.lines[header_root] if rev <= last]

    def chain_lengths(self, space_pk: _Space) -> list[tuple[int, int, int]]:
        return [(number, root, len(rows)) for (number, root), rows in space_pk.payloads.items()]

    def mark_pruned(self, space_pk: _Space, rev: int, *, parent: bool, up: bool, to: int | None = None) -> None:
        row = CheckpointRow._make(space_pk.checkpoints[rev])
        if parent:
            row = row._replace(parent_rev=to, flags=row.flags | PARENT_PRUNED)
        if up:
            row = row._replace(up_rev=None)
        space_pk.checkpoints[rev] = row[:]

    def drop_checkpoint(self, space_pk: _Space, rev: int, *, stub: bool) -> None:
        if not stub:
            space_pk.remove(rev)
            return
        row = CheckpointRow._make(space_pk.checkpoints[rev])
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

    def drop_chain(self, space_pk: _Space, number: int, root: int, first: int, last: int) -> int:
        rows = space_pk.payloads.get((number, root), [])
        n_rows = len(rows)
        del rows[first:]
        if not rows:
            space_pk.payloads.pop((number, root), None)
        return n_rows - len(rows)

    def drop_space(self, space_pk: _Space) -> None:
        for thread in self._threads.values():
            if thread.spaces.get(space_pk.ns) is space_pk:
                del thread.spaces[space_pk.ns]
                return

    def retire(self, thread_pk: int) -> None:
        del self._threads[self._thread(thread_pk).thread_id]

    def expire_at(self, thread_pk: int, moment: float) -> None:
        self._thread(thread_pk).expires_at = moment

    def retire_expired(self, thread_id: str) -> None:
        thread = self._threads.get(thread_id)
        if thread is not None and thread.is_over():
            del self._threads[thread_id]

    def expire(self, limit: int) -> int:
        over = list(islice((thread.thread_id for thread in self._threads.values() if thread.is_over()), limit))
        for thread_id in over:
            del self._threads[thread_id]
        return len(over)

    def copy(self, source_pk: int, target_id: str) -> int:
        source = self._thread(source_pk)
        target = _Thread(target_id, source.salt)
        target.claims, target.epoch, target.expires_at = source.claims, source.epoch, source.expires_at
        target.spaces = {ns: space.copy() for ns, space in source.spaces.items()}
        self._threads[target_id] = target
        return target.key
