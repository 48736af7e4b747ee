"""`SqliteStore`: a store in a SQLite file, for both colours.

Decides how a file is opened, when a batch is a transaction, on which thread it runs, and when expired items are swept.
What operations mean is in `pregel.store.base`, what SQLite is asked in `pregel.store.sqlite.core`.

Invariants
1. Values are encoded and texts embedded, which run code of users, before the file is locked; a batch that fails has
   changed nothing.
2. One thread at a time is on the connection; under the async API that is never the loop's.
3. A batch that was acknowledged is on disk: a file that the store opened itself is synced at each commit.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from itertools import chain
from types import TracebackType
from typing import Any, Final, Self

from checkpoint.base import CheckpointError
from checkpoint.files import make_private
from checkpoint.serde.msgpack import Serde
from checkpoint.workers import Worker
from pregel.errors import shown
from pregel.store.base import BaseStore, GetOp, IndexConfig, Op, PutOp, Result, SearchOp, TTLConfig, checked_ops
from pregel.store.base.embed import Measure, ensure_embeddings, indexed_texts, measure_of, text_fields
from pregel.store.sqlite import vectors
from pregel.store.sqlite.core import Batch, Put, Search, Step
from pregel.store.sqlite.schema import StoreOpenError, closed, is_set_up, make

SWEEP_MINUTES: Final = 5
"""Between two sweeps in the background, unless told otherwise."""
SWEEP_BATCH: Final = 500
"""Items that one transaction of a sweep removes."""


class SqliteStore(BaseStore):
    """A store in a SQLite file. Safe to use from several threads, event loops, connections and processes.

    A search without a query gives what was put last first. A filter on fields of a value (texts of up to 200 characters,
    numbers, bools; also of nested mappings) is looked up, other conditions are asked of each value. A search with a query
    gives what has a vector, the nearest first; each stored vector below the prefix is compared.

    Args:
        conn: a path, or a connection that nobody else writes to meanwhile (`check_same_thread=False` if threads or the
            async methods use the store). A path's file is made if it is missing. The file may be that of a saver.
        index: how to find items by meaning; needs numpy (the extra `vectors`).
        ttl: when items expire. A put may name a time to live without it.
        serde: how values become bytes.
        clock: seconds since the epoch.

    Raises:
        StoreOpenError: the path cannot be opened, or holds a store of a newer version.
        ImportError: there is an `index`, and no numpy.
    """

    supports_ttl = True

    def __init__(
        self,
        conn: sqlite3.Connection | str | os.PathLike[str],
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        serde: Serde | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.index_config = index
        self.ttl_config = ttl
        self.serde = serde or Serde()
        self.embeddings = ensure_embeddings(index.get("embed")) if index else None
        self._measure: Measure = measure_of(index)
        if index:
            vectors.load()
        self._fields = text_fields(index)
        self._clock = clock
        self._owned = not isinstance(conn, sqlite3.Connection)
        self._lock = threading.RLock()
        self._worker = Worker("pregel-store")
        self._is_set_up = self._is_closed = False
        self._sweeper: _Sweeper | None = None
        self.conn = conn if isinstance(conn, sqlite3.Connection) else _opened(os.fspath(conn))

    @classmethod
    def from_conn_string(
        cls, conn_string: str, *, index: IndexConfig | None = None, ttl: TTLConfig | None = None
    ) -> Self:
        """A store at a path, which its `with` block closes. Arguments and errors: see the class."""
        return cls(conn_string, index=index, ttl=ttl)

    def setup(self) -> None:
        """Make the tables if they are missing. The first operation does it, too. Raises `StoreOpenError`."""
        with self._lock, self._plain_rows():
            self._check_open()
            if not self._is_set_up:
                # Looked at first: who only reads need not wait for a writer.
                if not is_set_up(self.conn):
                    with self._transaction(True):
                        make(self.conn)
                # Within the program's transaction the tables may go again.
                self._is_set_up = not self.conn.in_transaction

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out operations in order and in one transaction, see `BaseStore`.

        Raises:
            UnregisteredTypeError: a value holds what cannot be stored.
            VersionConflictError: an item does not have the version that an operation asks for.
            ValueError: also if vectors are not one per text, or differ in length.
        """
        self._check_open()
        steps, texts, queries = self._prepared(ops)
        if self.embeddings is None:
            return self._carry_out(steps)
        documents = list(dict.fromkeys(chain(*texts.values())))
        made = vectors.packed(documents, self.embeddings.embed_documents(documents) if documents else [])
        wanted = vectors.packed(queries, [self.embeddings.embed_query(query) for query in queries])
        return self._carry_out(self._embedded(steps, _each(texts, made), wanted))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Async form of `batch`: the transaction is made on a thread of the store. A caller that is cancelled learns of
        it when that has ended."""
        self._check_open()
        steps, texts, queries = self._prepared(ops)
        if self.embeddings is not None:
            documents = list(dict.fromkeys(chain(*texts.values())))
            found = await self.embeddings.aembed_documents(documents) if documents else []
            wanted = vectors.packed(queries, [await self.embeddings.aembed_query(query) for query in queries])
            steps = self._embedded(steps, _each(texts, vectors.packed(documents, found)), wanted)
        results: list[Result] = await self._worker.post(lambda: self._carry_out(steps)).shielded()
        return results

    # ---- time to live

    def sweep_ttl(self) -> int:
        """Remove expired items, which are not found any more anyway. Returns how many were removed."""
        self.setup()
        n_swept = 0
        while True:
            with self._lock, self._plain_rows(), self._transaction(True):
                n_now = Batch(self.conn, self._decode, self._clock()).sweep(SWEEP_BATCH)
            n_swept += n_now
            if n_now < SWEEP_BATCH:
                return n_swept

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> Future[None]:
        """Sweep in the background from now on, on a daemon thread. A second call does nothing while it runs.

        A sweep that finds the file locked or the disk full is left out; any other error ends the sweeping.

        Args:
            sweep_interval_minutes: between two sweeps; None as `ttl_config` says, else 5.

        Returns:
            What ends with the sweeping, and has its error. Cancelling it ends the sweeping as well.
        """
        minutes = sweep_interval_minutes or (self.ttl_config or {}).get("sweep_interval_minutes") or SWEEP_MINUTES
        with self._lock:
            self._check_open()
            if self._sweeper is None or self._sweeper.future.done():
                self._sweeper = _Sweeper(self, 60 * minutes)
                self._sweeper.start()
            return self._sweeper.future

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """End the sweeping in the background. Waits for a sweep to end, at most `timeout` seconds; has it ended?"""
        with self._lock:
            sweeper, self._sweeper = self._sweeper, None
        if sweeper is None:
            return True
        sweeper.ended.set()
        sweeper.join(timeout)
        return not sweeper.is_alive()

    def close(self) -> None:
        """End the threads of the store, and close the file if the store opened it. The store cannot be used after."""
        self.stop_ttl_sweeper()
        self._worker.stop()
        with self._lock:
            self._is_closed = True
            if self._owned:
                self.conn.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise closed(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- a batch

    def _prepared(self, ops: Iterable[Op]) -> tuple[list[Step], dict[int, list[str]], list[str]]:
        """What to carry out, without vectors yet; the texts of what is put, by position; the texts that are looked for."""
        steps = [self._step(op) for op in checked_ops(ops)]
        if self.embeddings is None:
            return steps, {}, []
        texts = {
            at: indexed_texts(step.value, step.op.index, self._fields)
            for at, step in enumerate(steps)
            if isinstance(step, Put)
        }
        queries = [step.op.query for step in steps if isinstance(step, Search) and step.op.query]
        return steps, texts, list(dict.fromkeys(queries))

    def _step(self, op: Op) -> Step:
        if isinstance(op, SearchOp):
            return Search(op, None)
        if not isinstance(op, PutOp):
            return op
        if op.value is None:
            return Put(op, None, b"", ())
        body = self._encoded(op, dict(op.value))
        # What is indexed is what will be read: not the caller's object, which may change meanwhile.
        return Put(op, self._decode(body), body, ())

    def _embedded(
        self, steps: Iterable[Step], stored: dict[int, Sequence[bytes]], queries: dict[str, bytes]
    ) -> list[Step]:
        """The steps with their vectors."""
        found: list[Step] = []
        for at, step in enumerate(steps):
            if isinstance(step, Put):
                found.append(step._replace(vectors=stored.get(at, ())))
            elif isinstance(step, Search) and step.op.query:
                found.append(step._replace(score=vectors.scorer(queries[step.op.query], self._measure)))
            else:
                found.append(step)
        return found

    def _encoded(self, op: PutOp, value: dict[str, Any]) -> bytes:
        try:
            return self.serde.dumps(value)
        except Exception as error:
            place = f"put of key {shown(op.key)} in {shown(op.namespace)}"
            if isinstance(error, CheckpointError) and error.args:
                error.args = (f"{place}: {error.args[0]}", *error.args[1:])
            else:
                error.add_note(place)
            raise

    def _decode(self, body: bytes) -> dict[str, Any]:
        value: dict[str, Any] = self.serde.loads(body)
        return value

    def _carry_out(self, steps: Sequence[Step]) -> list[Result]:
        self.setup()
        now = self._clock()
        writes = any(isinstance(step, Put) for step in steps)
        with self._lock, self._plain_rows():
            batch = Batch(self.conn, self._decode, now)
            # One get is one statement, and that a transaction.
            is_one_get = len(steps) == 1 and isinstance(steps[0], GetOp)
            with contextlib.nullcontext() if is_one_get else self._transaction(writes):
                vectors.check_width(self.conn, chain(*(step.vectors for step in steps if isinstance(step, Put))))
                results: list[Result] = [batch.carry_out(step) for step in steps]
                if writes:
                    batch.finish()
            if batch.read and not writes:
                # A transaction that began by reading may not be able to write any more.
                with self._transaction(True):
                    batch.refresh()
        return results

    @contextmanager
    def _plain_rows(self) -> Iterator[None]:
        """Rows are tuples and texts are texts, whatever the program has made of its connection."""
        conn = self.conn
        if self._owned or (conn.row_factory is None and conn.text_factory is str):
            yield
            return
        rows, texts = conn.row_factory, conn.text_factory
        conn.row_factory, conn.text_factory = None, str
        try:
            yield
        finally:
            conn.row_factory, conn.text_factory = rows, texts

    @contextmanager
    def _transaction(self, writes: bool) -> Iterator[None]:
        """Around statements that are carried out together or not at all; part of the caller's transaction, if any."""
        if self._owned and self.conn.in_transaction:
            # What was to be undone could not be: it must not become part of what comes now.
            self.conn.execute("ROLLBACK")
        if self.conn.in_transaction:
            begin, end, undo = "SAVEPOINT store_batch", "RELEASE store_batch", "ROLLBACK TO store_batch"
        else:
            begin, end, undo = "BEGIN IMMEDIATE" if writes else "BEGIN", "COMMIT", "ROLLBACK"
        self.conn.execute(begin)
        try:
            yield
            self.conn.execute(end)
        except BaseException:
            if self.conn.in_transaction:
                self.conn.execute(undo)
                if begin.startswith("SAVEPOINT"):
                    self.conn.execute(end)
            raise


class _Sweeper(threading.Thread):
    """Sweeps now and then, until it is told to end or nobody has the store any more."""

    def __init__(self, store: SqliteStore, seconds: float) -> None:
        super().__init__(name="pregel-store-sweeper", daemon=True)
        self.ended = threading.Event()
        self.future: Future[None] = Future()
        self.future.add_done_callback(lambda future: self.ended.set())
        self._store = weakref.ref(store)
        self._seconds = seconds

    def run(self) -> None:
        error: Exception | None = None
        while error is None and not self.ended.wait(self._seconds):
            store = self._store()
            if store is None:
                break
            try:
                store.sweep_ttl()
            except sqlite3.OperationalError:
                pass  # somebody writes, or the disk is full: there will be another sweep
            except Exception as failure:  # noqa: BLE001 - whoever has the future learns of it
                error = failure
            del store
        with contextlib.suppress(InvalidStateError):
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)


def _opened(path: str) -> sqlite3.Connection:
    conn: sqlite3.Connection | None = None
    try:
        if path not in ("", ":memory:"):
            make_private(path)
        conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        conn.execute("PRAGMA trusted_schema = OFF")
        conn.execute("PRAGMA synchronous = FULL")
        is_set_up(conn)  # before anything about the file changes
        _use_wal(conn)
    except (sqlite3.Error, StoreOpenError) as error:
        if conn is not None:
            conn.close()
        if isinstance(error, StoreOpenError):
            error.args = (f"{path}: {error}",)
            raise
        raise StoreOpenError(
            f"{path} cannot be opened as a store (SQLite: {error}); check that it is the path of a SQLite file, and that "
            f"the file and its directory may be written to"
        ) from error
    return conn


def _use_wal(conn: sqlite3.Connection) -> None:
    """Readers and a writer at the same time. SQLite does not wait for others when it changes this, so we do."""
    until = time.monotonic() + 5
    while True:
        try:
            conn.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.005)


def _each(texts: dict[int, list[str]], made: dict[str, bytes]) -> dict[int, Sequence[bytes]]:
    """The vectors of each operation's texts, one for each text that differs."""
    return {at: [made[text] for text in dict.fromkeys(own)] for at, own in texts.items()}
