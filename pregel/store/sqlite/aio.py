"""`AsyncSqliteStore`: a store in a SQLite file for programs that await everything, or bring an aiosqlite connection.

Decides which file is meant by such a connection, and how the methods that are plain in `SqliteStore` are awaited. What
calls at the same moment have to do with each other is in `pregel.store.base.batch`.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from checkpoint.serde.msgpack import Serde
from checkpoint.workers import Worker
from pregel.store.base import IndexConfig, Op, Result, TTLConfig
from pregel.store.base.batch import AsyncBatchedBaseStore, refuse_on_a_loop
from pregel.store.base.embed import ensure_embeddings, measure_of
from pregel.store.sqlite import vectors
from pregel.store.sqlite.schema import StoreClosedError, StoreOpenError, closed
from pregel.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    import aiosqlite


class AsyncSqliteStore(AsyncBatchedBaseStore):
    """As `SqliteStore`, with coroutines for setting up and sweeping, and with async calls of one moment put together into
    one transaction (`AsyncBatchedBaseStore`). Plain methods are for threads that run no event loop.

    Args:
        conn: a path, or an aiosqlite connection to a file: the store opens its own connection to that file, and leaves the
            given one alone.
        index: see `SqliteStore`, as for the rest.
        ttl: see there.
        serde: see there.
        clock: see there.

    Raises:
        ImportError, ValueError: see there. `StoreOpenError` is raised by the first operation.
    """

    supports_ttl = True
    shared_errors: ClassVar[tuple[type[BaseException], ...]] = (
        sqlite3.OperationalError,
        StoreOpenError,
        StoreClosedError,
        OSError,
    )
    """The file is locked, the disk is full, and the like."""

    def __init__(
        self,
        conn: aiosqlite.Connection | str | os.PathLike[str],
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        serde: Serde | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.conn = conn
        self.index_config = index
        self.ttl_config = ttl
        self.embeddings = ensure_embeddings(index.get("embed")) if index else None
        measure_of(index)  # refused here, not by the first operation
        if index:
            vectors.load()
        self._serde = serde
        self._clock = clock
        self._worker = Worker("pregel-store-setup")
        self._opening = threading.Lock()
        self._is_closed = False
        # Opened by the first operation: whoever makes the store may be on the thread of a loop, which must not wait.
        self._store: SqliteStore | None = None

    @classmethod
    def from_conn_string(
        cls, conn_string: str, *, index: IndexConfig | None = None, ttl: TTLConfig | None = None
    ) -> Self:
        """A store at a path, which its `async with` block closes."""
        return cls(conn_string, index=index, ttl=ttl)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """As `SqliteStore.batch`.

        Raises:
            asyncio.InvalidStateError: an event loop runs on this thread.
            RuntimeError: the store was made of a connection, and no coroutine of it has run yet.
        """
        refuse_on_a_loop(self)
        store = self._store
        if store is None:
            if not isinstance(self.conn, (str, os.PathLike)):
                raise RuntimeError(
                    "AsyncSqliteStore of a connection: await setup() before its plain methods are called"
                )
            store = self._open(self.conn)
        return store.batch(ops)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `SqliteStore.abatch`."""
        return await (await self._opened()).abatch(ops)

    async def setup(self) -> None:
        """Make the tables if they are missing. Raises `StoreOpenError`."""
        store = await self._opened()
        await self._worker.post(store.setup).shielded()

    async def sweep_ttl(self) -> int:
        """As `SqliteStore.sweep_ttl`."""
        store = await self._opened()
        n_swept: int = await self._worker.post(store.sweep_ttl).shielded()
        return n_swept

    async def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> asyncio.Future[None]:
        """As `SqliteStore.start_ttl_sweeper`."""
        return asyncio.wrap_future((await self._opened()).start_ttl_sweeper(sweep_interval_minutes))

    async def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as the plain form
        """As `SqliteStore.stop_ttl_sweeper`."""
        store = await self._opened()
        has_ended: bool = await self._worker.post(partial(store.stop_ttl_sweeper, timeout)).shielded()
        return has_ended

    async def aclose(self) -> None:
        """End the threads of the store and close its file."""
        self._is_closed = True
        if self._store is not None or self._worker.thread is not None:
            # After what the worker is doing: it may be opening the file.
            await self._worker.post(self._close).shielded()
        self._worker.dismiss()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _opened(self) -> SqliteStore:
        if self._is_closed:
            raise closed(self)
        if self._store is not None:
            return self._store
        conn: Any = self.conn
        path: Any = conn
        if not isinstance(conn, (str, os.PathLike)):
            async with conn.execute("PRAGMA database_list") as cursor:
                path = next((row[2] for row in await cursor.fetchall() if row[1] == "main"), "")
            if not path:
                raise StoreOpenError(
                    "AsyncSqliteStore got a connection to a database in memory, which nobody else can open; give it the "
                    "path ':memory:' instead"
                )
        store: SqliteStore = await self._worker.post(partial(self._open, path)).shielded()
        return store

    def _open(self, path: str | os.PathLike[str]) -> SqliteStore:
        with self._opening:
            if self._is_closed:
                raise closed(self)
            if self._store is None:
                self._store = self._made(path)
            return self._store

    def _close(self) -> None:
        with self._opening:
            if self._store is not None:
                self._store.close()

    def _made(self, path: str | os.PathLike[str]) -> SqliteStore:
        return SqliteStore(path, index=self.index_config, ttl=self.ttl_config, serde=self._serde, clock=self._clock)
