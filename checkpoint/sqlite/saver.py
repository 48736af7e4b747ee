"""`SqliteSaver` and `AsyncSqliteSaver`: connections, threads, the queue of writes, the WAL.

Decides on which thread and connection a statement runs, when a write is durable, and when the WAL is folded back.
Decides nothing about rows: `commits`, `reader` and `writer` have the SQL, `checkpoint.row_saver` the interface.

One writer connection behind a lock; up to `MAX_READERS` read connections; one connection for WAL checkpoints. Under
`"async"` durability with a lag of 1, a small commit goes out on the calling thread at once if the lock is free
(design.md D32). Every other commit is queued behind those of its thread of checkpoints. What is queued of one claim goes
into one transaction if the lag is above 1. It is written by whoever comes first: the thread that waits for one of the
commits, or reads or writes that thread of checkpoints; the writer's thread, which is asked for large commits, by
coroutines, and if the lag is 1; a timer. Above all it is not written by another thread for each superstep: two threads
that take turns at the interpreter's lock cost more than the transaction.

WAL. Automatic checkpoints are off. Past `WAL_TRIGGER` a thread runs a passive one; the next commit on the writer then
ends with a second, short one, while nobody else writes, after which the WAL starts over. Without the second one it
grows for as long as commits do not pause (storage.md C5.6).

Invariants
1. Writes of one thread reach the file in the order in which they were given.
2. A read sees what this process has submitted for the thread.
3. After a failed write no later write of that claim is tried.
4. No lock and no read transaction is held between two pages of a listing.
5. A commit leaves its queue only after its transaction has ended, so an interrupt of who writes it loses nothing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar

from typing_extensions import ParamSpec

from checkpoint.base import (
    CheckpointError,
    Claim,
    Durability,
    EncodedCommit,
    ReadOnlyError,
    SaverClosedError,
    SaverOpenError,
    ThreadBusyError,
)
from checkpoint.chains import EncodedStep
from checkpoint.retention import Retention
from checkpoint.row_saver import HistoryWrites, RowSaver
from checkpoint.rows import Address, refuse_stale
from checkpoint.sqlite import commits, leases, opening, reader, writer
from checkpoint.sqlite.migrations import check_sqlite, known_version, migrate, read_as_newest
from checkpoint.sqlite.scan import Mender, Scanner, readable
from checkpoint.workers import LoopThread, Worker

if TYPE_CHECKING:
    import aiosqlite

P = ParamSpec("P")
T = TypeVar("T")

MAX_READERS: Final = 4
INLINE_BYTES: Final = 64 * 1024
"""A larger commit is never written on the calling thread under `"async"` durability."""
PAGE_BYTES: Final = 4096
ROW_BYTES: Final = 1200
"""What a commit adds to the WAL beyond its bodies when it shares its pages with others (measured)."""
WAL_TRIGGER: Final = 4 * 1024 * 1024
WAL_LIMIT: Final = 12 * 1024 * 1024
"""At this size the committing connection folds the WAL back itself: the background thread is gone, stalled or too slow."""
_FOLD_PAUSES_S: Final = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, *(0.05,) * 100)
"""How long it waits for who is at it already, a try after each."""
GROUP_LIMIT: Final = 256
"""Queued commits that go into one transaction at most."""

LINGER_S: Final = 0.01
"""How long a commit waits for others to be grouped with before the timer looks at it again, and writes it."""

_BUSY_MS: Final = 5000
_BUSY_CODES: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


_pause = time.sleep

_n_forks = 0
"""How often this process is a fork of the one that imported this module: `os.getpid()` per commit is a system call."""


def _count_fork() -> None:
    global _n_forks
    _n_forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class _Connections:
    """What is open. Apart from the saver, so that a saver that is collected closes its files."""

    def __init__(self, path: str | None, single: Any, owned: bool, read_only: bool, secure_delete: bool) -> None:
        self.path = path
        self.read_only = read_only
        self.secure_delete = secure_delete
        self.single = single
        self.owned = owned
        self.n_forks = _n_forks
        self.closed = False
        self.write_lock = threading.RLock() if single is not None else threading.Lock()
        self.mode = ""
        self.is_broken = False
        """Has the disk failed under the writer? What it believes to be on disk may not be there."""
        self.had_log = path is not None and os.path.exists(f"{path}-wal")
        self.writer: Any = single if single is not None else self.open()
        self.readers: deque[sqlite3.Connection] = deque()
        self.reader_slots = threading.Semaphore(MAX_READERS)
        self.wal_conn: sqlite3.Connection | None = None

    def note_failure(self, error: BaseException) -> None:
        """After an I/O error the next transaction gets a new connection: pages that a failed fsync has lost are clean
        in the eyes of the operating system, and a connection goes on with what it has in memory.

        After an interrupt too: a second one may have come before the rollback."""
        if self.single is None and (not isinstance(error, Exception) or _has_code(error, sqlite3.SQLITE_IOERR)):
            self.is_broken = True
            self.mode = ""

    def open(self, *, readonly: bool = False) -> sqlite3.Connection:
        assert self.path is not None
        if self.read_only:
            conn = opening.connect_to_read(self.path, busy_ms=_BUSY_MS)
            read_as_newest(conn)
            return conn
        conn = opening.connect(self.path, busy_ms=_BUSY_MS)
        if readonly:
            conn.execute("PRAGMA query_only = ON")
        return conn

    def set_up_log(self) -> None:
        """Changes the file: only when it is known to be ours."""
        if self.single is None:
            self.writer.execute("PRAGMA journal_mode = WAL")
            self.writer.execute("PRAGMA wal_autocheckpoint = 0")
            self.writer.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
        if self.secure_delete:
            self.writer.execute("PRAGMA secure_delete = ON")

    def check_process(self) -> None:
        """Raise `SaverClosedError` in a child of the process that opened the files."""
        if self.n_forks != _n_forks:
            raise SaverClosedError(
                "the saver was opened before this process was forked; SQLite files cannot be shared that way; make a "
                "new saver in the child"
            )

    @contextmanager
    def erasing(self) -> Iterator[None]:
        """Overwrite with zeros what is deleted meanwhile."""
        with self.write_lock:
            self.set_mode("full")
            self.writer.execute("PRAGMA secure_delete = ON")
        try:
            yield
        finally:
            if not self.secure_delete:
                with self.write_lock:
                    self.writer.execute("PRAGMA secure_delete = OFF")

    def set_mode(self, mode: str) -> None:
        """`full` and `normal` wait for a lock held elsewhere, `inline` does not. Only outside a transaction."""
        if mode != self.mode and self.single is None:
            self.mode = ""
            if self.is_broken:
                broken, self.writer = self.writer, self.open()
                broken.close()
                self.set_up_log()
                self.is_broken = False
            self.writer.execute(f"PRAGMA synchronous = {'FULL' if mode == 'full' else 'NORMAL'}")
            self.writer.execute(f"PRAGMA busy_timeout = {0 if mode == 'inline' else _BUSY_MS}")
            self.mode = mode

    def close(self) -> None:
        if self.closed or self.n_forks != _n_forks:
            return
        self.closed = True
        with self.write_lock:
            for conn in (*self.readers, self.wal_conn):
                if conn is not None:
                    conn.close()
            self.readers.clear()
            if self.single is None:
                if not self.read_only:
                    with contextlib.suppress(sqlite3.Error):
                        self.writer.execute("PRAGMA busy_timeout = 0")
                        self.writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self.writer.close()
                if self.read_only and not self.had_log and self.path is not None:
                    opening.tidy(self.path)
            elif self.owned:
                self.single.close()


class _SqliteSaver(RowSaver):
    """What both classes are: all methods of both APIs, from any thread and any loop."""

    _maps: ClassVar[bool] = True

    def __init__(
        self,
        conn: Any,
        *,
        serde: Any = None,
        max_checkpoint_lag: int = 1,
        history_writes: HistoryWrites = "keep",
        lease_ttl: float | None = None,
        read_only: bool = False,
        retention: Retention | None = None,
        secure_delete: bool = False,
        auto_vacuum: bool = False,
    ) -> None:
        super().__init__(
            serde=serde, max_checkpoint_lag=max_checkpoint_lag, history_writes=history_writes, retention=retention
        )
        check_sqlite()
        self._terms = leases.Terms(lease_ttl) if lease_ttl is not None else None
        self.conn = conn
        self.read_only = read_only
        self._secure_delete = secure_delete
        self._auto_vacuum = auto_vacuum
        self._open_lock = threading.Lock()
        self._connections: _Connections | None = None
        self._closer: Any = None
        self._closed = False
        self._writer = Worker("checkpoint-writer")
        self._reader = Worker("checkpoint-reader")
        self._folder = Worker("checkpoint-wal")
        self._timer = Worker("checkpoint-timer")
        self._unwritten: dict[str, deque[_Queued]] = {}
        """Thread of checkpoints -> submitted commits, in order."""
        self._queue_lock = threading.Lock()
        self._lingers = False
        """Does the timer run?"""
        self._wal_bytes = 0
        self._fold_at = 0
        """No fold is tried before the WAL has this size: after one that a reader kept from its end."""
        self._folding = False
        self._short_fold = False

    @classmethod
    def from_conn_string(
        cls,
        conn_string: str,
        *,
        serde: Any = None,
        max_checkpoint_lag: int = 1,
        history_writes: HistoryWrites = "keep",
        lease_ttl: float | None = None,
        read_only: bool = False,
        retention: Retention | None = None,
        secure_delete: bool = False,
        auto_vacuum: bool = False,
    ) -> Self:
        """A saver on a file path, for `with` and `async with` alike."""
        return cls(
            conn_string,
            serde=serde,
            max_checkpoint_lag=max_checkpoint_lag,
            history_writes=history_writes,
            lease_ttl=lease_ttl,
            read_only=read_only,
            retention=retention,
            secure_delete=secure_delete,
            auto_vacuum=auto_vacuum,
        )

    # ---- opening and closing

    def _open(self) -> _Connections:
        with self._open_lock:
            if self._closed:
                raise SaverClosedError("the saver is closed; make a new one")
            if self._connections is None:
                path, single, owned = self._target()
                self._check_target(path)
                with opening.explained(path or "the in-memory database"):
                    connections = _Connections(path, single, owned, self.read_only, self._secure_delete)
                    try:
                        with connections.write_lock:
                            self._prepare(connections)
                    except BaseException:
                        connections.close()
                        raise
                workers = self._writer, self._reader, self._folder, self._timer
                self._closer = weakref.finalize(self, _finish, connections, workers)
                self._connections = connections
            return self._connections

    def _check_target(self, path: str | None) -> None:
        if path is not None:
            opening.check_place(path, read_only=self.read_only)
        elif self.read_only and isinstance(self.conn, (str, os.PathLike)):
            raise ValueError("read_only=True needs a file; a new database in memory has nothing to read")

    def _prepare(self, connections: _Connections) -> None:
        """Bring the schema up to date, or see whether it can be read as it is."""
        place = connections.path or "the in-memory database"
        version = known_version(connections.writer, place)
        if not self.read_only:
            if self._auto_vacuum:
                # Heeded while there are no tables, and by VACUUM.
                connections.writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connections.set_up_log()
            migrate(connections.writer, place)
            connections.writer.execute("PRAGMA foreign_keys = ON")
            writer.finish_deletes(connections.writer)
        elif version == 0:
            raise SaverOpenError(f"{place} has no checkpoints, nor their tables; check the path", path=place)

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnlyError(
                f"the saver of {self.conn!r} was opened with read_only=True: nothing can be stored or removed; open the "
                f"file without it"
            )

    def _target(self) -> tuple[str | None, Any, bool]:
        """(path, the one connection to use for everything, is it the saver's own)."""
        conn = self.conn
        if isinstance(conn, sqlite3.Connection):
            path = _file_of(conn.execute("PRAGMA database_list").fetchall())
            if path is not None:
                return path, None, True
            return None, conn, False
        path = os.fspath(conn)
        if path in ("", ":memory:"):
            own = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
            return None, own, True
        return str(Path(path).absolute()), None, True

    def _is_local(self) -> bool:
        """Is there nothing to wait for but the processor?"""
        connections = self._connections
        return connections is not None and isinstance(connections.single, sqlite3.Connection)

    def _live(self) -> _Connections:
        connections = self._connections
        if connections is None or self._closed:
            connections = self._open()
        if connections.n_forks != _n_forks:
            connections.check_process()
        return connections

    def close(self) -> None:
        """Write what is queued, end the saver's threads, close its files. Safe to call twice."""
        if self._connections is not None and self._connections.n_forks != _n_forks:
            return  # the copy of a forked child: files and queue are its parent's
        with self._open_lock:
            if self._closed:
                return
            self._closed = True
        for thread_id in list(self._unwritten):
            self._settle(thread_id)
        for worker in (self._timer, self._writer, self._reader, self._folder):
            worker.stop()
        if self._closer is not None:
            self._closer()

    async def __aenter__(self) -> Self:
        await self._off_loop(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closer = Worker("checkpoint-close")
        try:
            await closer.post(self.close).shielded()
        finally:
            closer.dismiss()

    # ---- native writing

    def write(self, batch: Sequence[EncodedCommit], *, durability: Durability = "sync") -> None:
        """Store the batch in one transaction, after everything submitted for its thread before.

        `"async"` leaves it to the operating system when it reaches the disk; `"sync"` and `"exit"` wait for that.
        """
        steps = _flat(batch)
        if not steps:
            return
        connections = self._live()
        if connections.read_only:
            self._check_writable()
        claim = steps[0].claim
        if claim.thread_id in self._unwritten:
            self._settle(claim.thread_id)
        mode = "normal" if durability == "async" else "full"
        with connections.write_lock:
            if connections.mode != mode:
                connections.set_mode(mode)
            self._store(connections, claim, steps)

    def submit(self, encoded: EncodedCommit) -> _Queued | None:
        """Store soon, after everything submitted for the thread before. None: it is stored already.

        With a lag of 1, or one connection for everything, small commits are written here and now when nobody else
        writes. Otherwise they wait for more of their kind: until somebody waits for one, or about twice `LINGER_S`. The
        outcome's `result` raises the write's error; an error here and now is raised here.
        """
        connections = self._live()
        if connections.read_only:
            self._check_writable()
        steps = _flat((encoded,))
        claim = steps[0].claim
        is_small = sum([step.size for step in steps]) <= INLINE_BYTES
        groups = self.max_checkpoint_lag > 1 and connections.single is None
        # The caller may be an event loop: what folds the WAL, and waits for the disk, is done by the writer's thread.
        is_quick = is_small and not groups and not self._short_fold and self._wal_bytes <= WAL_LIMIT
        if is_quick and claim.thread_id not in self._unwritten:
            taken: list[bool] = []
            try:
                # Taken and noted in one call: a Ctrl-C comes after calls, and must not find a lock that nobody gives back.
                taken.extend(map(connections.write_lock.acquire, (False,)))
                if taken[0]:
                    if connections.mode != "inline":
                        connections.set_mode("inline")
                    self._store(connections, claim, steps, _is_busy)
                    return None
            except sqlite3.OperationalError as busy:
                # Another process writes: the queue waits for it, this thread does not.
                if not _is_busy(busy):
                    raise
            finally:
                if taken and taken[0]:
                    connections.write_lock.release()
        queued = _Queued(self, claim, steps)
        with self._queue_lock:
            waiting = self._unwritten.get(claim.thread_id)
            if waiting is None:
                self._unwritten[claim.thread_id] = deque((queued,))
            else:
                waiting.append(queued)
            must_linger = groups and not self._lingers
            if must_linger:
                self._lingers = True
        if must_linger:
            self._timer.post(self._linger)
        if not (is_small and groups):
            self._writer.post(partial(self._settle, claim.thread_id))
        return queued

    def _store(
        self,
        connections: _Connections,
        claim: Claim,
        steps: Sequence[EncodedStep],
        retried: Callable[[BaseException], bool] | None = None,
    ) -> None:
        """One transaction, on the writer connection, under its lock. `retried`: errors after which the caller does so;
        any other spoils the claim."""
        if claim.poisoned is not None:
            raise claim.poisoned
        if claim.lane:
            # Not a failure of the lane: who sees it encodes again.
            for step in steps:
                refuse_stale(step)
        try:
            if self._terms is None and self._keeper is None:
                commits.store(connections.writer, steps, self._codec())
            else:
                commits.store(connections.writer, steps, self._codec(), self._terms, self._keeper)
        except BaseException as error:
            connections.note_failure(error)
            # An interrupt that came after the commit has spoiled nothing.
            if not steps[0].stored and (retried is None or not retried(error)):
                claim.poisoned = error
                if not isinstance(error, CheckpointError):
                    error.add_note(f"thread {claim.thread_id!r}: nothing from step {steps[0].commit.step} on is stored")
            raise
        for step in steps:
            if step.size > INLINE_BYTES:
                step.release()
        if connections.single is None:
            self._count_wal(connections, steps)

    def _busy(self, thread_id: str, address: Address) -> ThreadBusyError | None:
        """The lease of another process, while it lasts; also for a saver that asks for none itself."""
        until = address.lease_until
        return None if until is None else leases.refusal(thread_id, address.lease_owner, until, time.time())

    def release(self, claim: Claim) -> None:
        """The run of a claim is over: give up its lease, if it has one."""
        connections = self._connections
        if connections is None or connections.closed:
            return
        if claim.lease is None or not claim.claimed:
            if claim.poisoned is not None:
                # A body that the run has left may be in the middle of a write: the next run must not load before its end.
                with connections.write_lock:
                    pass
            return
        # It would end by itself: no reason to fail a run that is over.
        with contextlib.suppress(sqlite3.Error, SaverClosedError), connections.write_lock:
            connections.check_process()
            connections.set_mode("normal")
            commits.give_up_lease(connections.writer, claim)
            claim.lease = None

    def _settle(self, thread_id: str) -> None:
        """Write what was submitted for the thread, in order, on any thread; wait if another one is at it.

        Errors are those of the submitted commits. After an interrupt, what is not stored is still queued.
        """
        if thread_id not in self._unwritten:
            return
        connections = self._connections
        assert connections is not None
        connections.check_process()
        with connections.write_lock:
            while batch := self._next_batch(thread_id):
                claim = batch[0].claim
                failure: BaseException | None = None
                try:
                    if connections.mode != "normal":
                        connections.set_mode("normal")
                    steps = [step for queued in batch for step in queued.steps]
                    self._store(connections, claim, steps, _is_interrupt)
                except BaseException as error:
                    # What a run left behind that is over is refused with its own error, whatever that is, and by whoever
                    # comes by: it is reported by the outcome, not to a reader.
                    if not isinstance(error, Exception) and error is not claim.poisoned:
                        raise
                    failure = error
                    # Also if it never came to the transaction: no later step of the run may be written.
                    claim.poisoned = claim.poisoned or error
                for queued in batch:
                    queued.error = failure
                    queued.ended = True

    def _next_batch(self, thread_id: str) -> list[_Queued]:
        """The next submitted commits of a thread that go into one transaction: of one claim, and one alone if the lag
        is 1. They stay queued until they have ended."""
        with self._queue_lock:
            waiting = self._unwritten.get(thread_id)
            # Those that are stored and have not ended were written when an interrupt came.
            while waiting and (waiting[0].ended or waiting[0].steps[0].stored):
                waiting.popleft().ended = True
            if not waiting:
                self._unwritten.pop(thread_id, None)
                return []
            limit = GROUP_LIMIT if self.max_checkpoint_lag > 1 else 1
            claim = waiting[0].claim
            return list(takewhile(lambda queued: queued.claim is claim, islice(waiting, limit)))

    def _linger(self) -> None:
        """On the timer's thread: write what nobody has waited for in a while; ends when nothing is left."""
        before: dict[str, _Queued] = {}
        while True:
            time.sleep(LINGER_S)
            with self._queue_lock:
                if not self._unwritten:
                    self._lingers = False
                    return
                oldest = {thread_id: waiting[0] for thread_id, waiting in self._unwritten.items()}
            for thread_id, queued in oldest.items():
                if before.get(thread_id) is queued:
                    self._settle(thread_id)
            before = oldest

    # ---- the WAL

    def _count_wal(self, connections: _Connections, steps: Sequence[EncodedStep]) -> None:
        # A page of each table, then what rows and bodies take beyond it; the next checkpoint gives the true figure.
        n_bytes = self._wal_bytes + 4 * PAGE_BYTES
        for step in steps:
            n_bytes += ROW_BYTES + step.size * 5 // 4
        self._wal_bytes = n_bytes
        if n_bytes > WAL_TRIGGER or self._short_fold:
            self._fold_if_due(connections)

    def _fold_if_due(self, connections: _Connections) -> None:
        if self._wal_bytes > max(WAL_LIMIT, self._fold_at):
            # A commit that may be on an event loop does not wait: the one that took it past the limit.
            pauses = _FOLD_PAUSES_S if self._wal_bytes > WAL_LIMIT + 2 * INLINE_BYTES else ()
            self._fold_back(connections.writer, pauses)
        elif self._short_fold:
            self._short_fold = False
            self._fold(connections.writer)
        elif self._wal_bytes > max(WAL_TRIGGER, self._fold_at) and not self._folding:
            self._folding = True
            self._folder.post(partial(_fold_in_background, weakref.ref(self)))

    def _fold_back(self, conn: Any, pauses: Sequence[float]) -> None:
        """Fold the WAL; wait for who is at it, another process perhaps: commits are faster than a disk that is busy."""
        if self._fold(conn):
            return
        for pause in pauses:
            _pause(pause)
            if self._fold(conn):
                return
        if pauses:
            self._put_off()

    def _fold(self, conn: Any) -> bool:
        """Fold what nobody reads; False if somebody else does so at this moment."""
        try:
            busy, in_log, folded = conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                return False
            # A full or failing disk: the commits tell of it, and waiting for nobody would only delay them.
            self._put_off()
            return True
        if busy:
            return False
        # Folded completely, the WAL is written from its start again by the next commit. Else somebody reads an
        # older state, maybe for long: trying again at each commit would cost more the longer the WAL gets.
        self._wal_bytes = 0 if in_log == folded else in_log * PAGE_BYTES
        self._fold_at = 0
        if self._wal_bytes:
            self._put_off()
        return True

    def _put_off(self) -> None:
        """Try again when the WAL has grown by so much."""
        self._fold_at = self._wal_bytes + WAL_TRIGGER // 16

    # ---- reading

    @contextmanager
    def _scanning(self) -> Iterator[Scanner]:
        with self._reading() as rows:
            yield Scanner(rows.conn)

    @contextmanager
    def _mending(self) -> Iterator[tuple[Scanner, Mender]]:
        with self._writing() as tx:
            yield Scanner(tx.conn), Mender(tx.conn)

    @contextmanager
    def _reading(self) -> Iterator[reader.Reader]:
        with readable(), self._view() as rows:
            yield rows

    @contextmanager
    def _view(self) -> Iterator[reader.Reader]:
        connections = self._live()
        if connections.single is not None:
            with connections.write_lock:
                yield self._opened(reader.Reader(connections.single))
            return
        with connections.reader_slots:
            try:
                conn = connections.readers.popleft()
            except IndexError:
                conn = connections.open(readonly=True)
            fails = False
            try:
                try:
                    conn.execute("BEGIN")
                    yield self._opened(reader.Reader(conn))
                except sqlite3.Error as error:
                    fails = _has_code(error, sqlite3.SQLITE_IOERR)
                    raise
                finally:
                    # After some errors SQLite has ended the transaction itself.
                    if conn.in_transaction:
                        try:
                            conn.execute("COMMIT")
                        except sqlite3.DatabaseError:
                            # Of a damaged file; there is nothing to lose.
                            conn.rollback()
            finally:
                if connections.closed or fails or conn.in_transaction:
                    conn.close()
                else:
                    connections.readers.append(conn)

    @contextmanager
    def _writing(self) -> Iterator[writer.Writer]:
        self._check_writable()
        connections = self._live()
        with connections.write_lock:
            connections.set_mode("full")
            conn = connections.writer
            try:
                conn.execute("BEGIN IMMEDIATE")
                yield self._opened(writer.Writer(conn))
                conn.execute("COMMIT")
            except BaseException as error:
                connections.note_failure(error)
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
                raise
            if connections.single is None:
                self._count_wal(connections, ())

    # ---- whole threads

    def _settle_all(self) -> None:
        for thread_id in list(self._unwritten):
            self._settle(thread_id)

    def _threads_of(self, run_ids: Sequence[str]) -> list[str]:
        with self._reading() as rows:
            return writer.threads_of(rows.conn, run_ids)

    @contextmanager
    def _alone(self) -> Iterator[_Connections]:
        """The writer connection for statements that are transactions of their own."""
        self._check_writable()
        connections = self._live()
        with connections.write_lock:
            connections.set_mode("full")
            try:
                yield connections
            except BaseException as error:
                connections.note_failure(error)
                raise

    def _finish_removals(self) -> None:
        with self._alone() as connections:
            writer.finish_deletes(connections.writer)
            if self._auto_vacuum:
                writer.give_back(connections.writer)

    def delete_thread(self, thread_id: str, *, erase: bool = False) -> None:
        """Remove a thread with all its namespaces. Unknown threads are ignored; a late writer is refused.

        `erase`: overwrite its bytes in the file, and empty the write-ahead log, which holds them too. Raises
        `CheckpointError` if a reader elsewhere keeps the log from being emptied; the thread is deleted all the same.
        """
        if not erase:
            super().delete_thread(thread_id)
            return
        self._check_writable()
        connections = self._live()
        with connections.erasing():
            super().delete_thread(thread_id)
        if connections.single is None:
            self._truncate_wal(f"delete_thread: thread {thread_id!r} is deleted")

    def vacuum(self) -> None:
        """Write the file anew, so that it takes no more space than what is stored. Costs a copy of the file; commits
        wait meanwhile. Raises `sqlite3.OperationalError` if another process writes."""
        self._settle_all()
        self._finish_removals()
        with self._alone() as connections:
            if self._auto_vacuum:
                connections.writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connections.writer.execute("VACUUM")
        if connections.single is None:
            with contextlib.suppress(CheckpointError):
                self._truncate_wal("vacuum: the file is written")

    def _truncate_wal(self, done: str) -> None:
        with self._alone() as connections:
            busy, _, _ = connections.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise CheckpointError(
                    f"{done}, but its bytes are still in the write-ahead log, which a reader holds; end that reader and "
                    f"call again"
                )
            self._wal_bytes = 0

    # ---- off the loop

    async def _off_loop(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed or self._is_local():
            return call(*args, **kwargs)
        value: T = await self._reader.post(partial(call, *args, **kwargs)).aresult()
        return value

    async def _off_loop_write(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed or self._is_local():
            return call(*args, **kwargs)
        value: T = await self._writer.post(partial(call, *args, **kwargs)).shielded()
        return value


class SqliteSaver(_SqliteSaver):
    """Checkpoints in an SQLite file, for the sync and the async API, from any thread and any loop.

    `SqliteSaver(path)` opens the file and makes it if it is missing. Given an open `sqlite3.Connection`, the saver
    opens connections of its own to the same file; for an in-memory database it uses the given one, which must then
    allow use from other threads (`check_same_thread=False`). Usable as a sync and an async context manager, which close
    it.

    Raises `SchemaVersionError` for a file that another program or a newer library wrote, `SaverOpenError` for one that
    cannot be opened.
    """

    def __init__(
        self,
        conn: str | os.PathLike[str] | sqlite3.Connection,
        *,
        serde: Any = None,
        max_checkpoint_lag: int = 1,
        history_writes: HistoryWrites = "keep",
        lease_ttl: float | None = None,
        read_only: bool = False,
        retention: Retention | None = None,
        secure_delete: bool = False,
        auto_vacuum: bool = False,
    ) -> None:
        """
        Args:
            conn: path of the file (`":memory:"` for none), or an open connection.
            serde: how values become bytes; the shared `JsonPlusSerializer` if None.
            max_checkpoint_lag: supersteps of one namespace that may be unwritten under `"async"` durability when the
                next one starts. Above 1, what is queued is written in groups.
            history_writes: `"drop"` saves the place that the results of past tasks take, about two fifths of a file; a
                history shows none then.
            lease_ttl: seconds for which other processes keep off a thread after each write of a run here, renewed by
                its commits: a run that starts there meanwhile gets `ThreadBusyError` instead of taking the thread.
                None: the run that starts last takes it. Make it longer than the slowest node.
            read_only: read a file, also one that may not be written to, or whose schema is of an older library, and
                change nothing; whatever would store something raises `ReadOnlyError`.
            retention: what is removed again while threads go on; nothing if None.
            secure_delete: overwrite with zeros what is removed from the file, always.
            auto_vacuum: give the space of what `prune`, `expire` and deletions remove back to the operating system by
                themselves. Only a file that is made this way can, or one after a `vacuum()` by such a saver; a commit
                to it takes 4 to 11 us more.
        """
        super().__init__(
            conn,
            serde=serde,
            max_checkpoint_lag=max_checkpoint_lag,
            history_writes=history_writes,
            lease_ttl=lease_ttl,
            read_only=read_only,
            retention=retention,
            secure_delete=secure_delete,
            auto_vacuum=auto_vacuum,
        )
        self._open()

    def setup(self) -> None:
        """Open the file and bring its schema up to date. The constructor did both."""
        self._open()


class AsyncSqliteSaver(_SqliteSaver):
    """As `SqliteSaver`, for programs that hold an `aiosqlite.Connection`; both APIs, from any thread and any loop.

    The file is opened by the first call, off the loop, by connections of the saver's own. An in-memory database is used
    through the given connection, statement by statement.
    """

    def __init__(
        self,
        conn: str | os.PathLike[str] | aiosqlite.Connection,
        *,
        serde: Any = None,
        max_checkpoint_lag: int = 1,
        history_writes: HistoryWrites = "keep",
        lease_ttl: float | None = None,
        read_only: bool = False,
        retention: Retention | None = None,
        secure_delete: bool = False,
        auto_vacuum: bool = False,
    ) -> None:
        """
        Args:
            conn: path of the file, or an aiosqlite connection. The saver does not close a connection it was given.
            serde: as for `SqliteSaver`.
            max_checkpoint_lag: as for `SqliteSaver`.
            history_writes: as for `SqliteSaver`.
            lease_ttl: as for `SqliteSaver`.
            read_only: as for `SqliteSaver`.
            retention: as for `SqliteSaver`.
            secure_delete: as for `SqliteSaver`.
            auto_vacuum: as for `SqliteSaver`.
        """
        super().__init__(
            conn,
            serde=serde,
            max_checkpoint_lag=max_checkpoint_lag,
            history_writes=history_writes,
            lease_ttl=lease_ttl,
            read_only=read_only,
            retention=retention,
            secure_delete=secure_delete,
            auto_vacuum=auto_vacuum,
        )

    async def setup(self) -> None:
        """Open the file and bring its schema up to date; every method does so by itself."""
        await self._off_loop(self._open)

    def _target(self) -> tuple[str | None, Any, bool]:
        if isinstance(self.conn, (str, os.PathLike)):
            return super()._target()
        relay = _Relay(self.conn)
        path = _file_of(relay.execute("PRAGMA database_list").fetchall())
        if path is not None:
            relay.close()
            return path, None, True
        # Closing the relay ends its thread and leaves the connection open.
        return None, relay, True


class _Relay:
    """What the saver needs of a `sqlite3.Connection`, over an `aiosqlite.Connection` and its public methods only.

    aiosqlite works from any loop; this one has a loop of its own, so that plain functions can wait for it.
    """

    def __init__(self, conn: aiosqlite.Connection) -> None:
        self._conn = conn
        self._thread = LoopThread("checkpoint-aiosqlite")

    @property
    def in_transaction(self) -> bool:
        return self._conn.in_transaction

    def execute(self, statement: str, values: Any = ()) -> _Rows:
        return self._thread.call(self._execute(statement, values))

    def executemany(self, statement: str, rows: Any) -> _Rows:
        return self._thread.call(self._executemany(statement, rows))

    def close(self) -> None:
        self._thread.stop()

    async def _execute(self, statement: str, values: Any) -> _Rows:
        try:
            cursor = await self._conn.execute(statement, values)
        except ValueError:
            # Made by `aiosqlite.connect(...)` and not awaited yet.
            await self._conn
            cursor = await self._conn.execute(statement, values)
        return await _Rows.of(cursor)

    async def _executemany(self, statement: str, rows: Any) -> _Rows:
        return await _Rows.of(await self._conn.executemany(statement, rows))


class _Rows:
    """The outcome of a statement, as a `sqlite3.Cursor` shows it."""

    __slots__ = ("_rows", "lastrowid", "rowcount")

    def __init__(self, rows: list[Any], rowcount: int, lastrowid: int | None) -> None:
        self._rows = rows
        self.rowcount = rowcount
        self.lastrowid = lastrowid

    @classmethod
    async def of(cls, cursor: aiosqlite.Cursor) -> _Rows:
        rows = list(await cursor.fetchall())
        outcome = cls(rows, cursor.rowcount, cursor.lastrowid)
        await cursor.close()
        return outcome

    def fetchone(self) -> Any:
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[Any]:
        return self._rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def close(self) -> None:
        pass


class _Queued:
    """A submitted commit that was not written at once. Who waits for it writes it (and what is queued with it), so
    that it costs no change of threads."""

    __slots__ = ("claim", "ended", "error", "saver", "steps")

    def __init__(self, saver: _SqliteSaver, claim: Claim, steps: Sequence[EncodedStep]) -> None:
        self.saver = saver
        self.claim = claim
        self.steps = steps
        self.ended = False
        self.error: BaseException | None = None

    def done(self) -> bool:
        """Has it ended, well or badly?"""
        return self.ended

    def result(self) -> None:
        """Wait for the end; raise the write's error."""
        if not self.ended:
            self.saver._settle(self.claim.thread_id)
        if self.error is not None:
            raise self.error

    async def aresult(self) -> None:
        """Async form of `result`."""
        if not self.ended:
            await self.saver._writer.post(self.result).aresult()
        elif self.error is not None:
            raise self.error


def _finish(connections: _Connections, workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.dismiss()
    connections.close()


def _fold_in_background(reference: weakref.ref[_SqliteSaver]) -> None:
    saver = reference()
    connections = saver._connections if saver is not None else None
    if saver is None or connections is None:
        return
    try:
        if connections.wal_conn is None:
            connections.wal_conn = connections.open()
            connections.wal_conn.execute("PRAGMA busy_timeout = 0")
        saver._fold(connections.wal_conn)
        saver._short_fold = True
    finally:
        saver._folding = False


def _flat(batch: Sequence[Any]) -> Sequence[EncodedStep]:
    """The steps of commits, each after those that belong into its transaction."""
    if len(batch) == 1 and not batch[0].others:
        return batch
    steps: list[EncodedStep] = []
    for encoded in batch:
        steps += _flat(encoded.others)
        steps.append(encoded)
    return steps


def _is_busy(error: BaseException) -> bool:
    return _has_code(error, *_BUSY_CODES)


def _has_code(error: BaseException, *primary: int) -> bool:
    """Is it SQLite's error with one of these primary result codes? Errors of the `sqlite3` module itself have none."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in primary


def _is_interrupt(error: BaseException) -> bool:
    return not isinstance(error, Exception)


def _file_of(database_list: Sequence[Any]) -> str | None:
    """Path of the main database, None for one in memory."""
    for _, name, path in database_list:
        if name == "main" and path:
            return str(path)
    return None
