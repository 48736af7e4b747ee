"""`AsyncSqliteStore`: a store in a SQLite file for programs that await everything, or bring an aiosqlite connection.

Decides which file is meant by such a connection, and how the methods that are plain in `SqliteStore` are awaited. What
calls at the same moment have to do with each other is in `pregel.store.base.batch`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from checkpoint.workers import Worker
from pregel.store.base import BaseStore, IndexConfig, Op, Result, TTLConfig
from pregel.store.sqlite.schema import StoreOpenError
from pregel.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    import aiosqlite


class AsyncSqliteStore(BaseStore):
    """As `SqliteStore`, with coroutines for setting up and sweeping. The plain methods work, too, and block their thread.

    Args:
        conn: a path, or an aiosqlite connection to a file: the store opens its own connection to that file, and leaves the
            given one alone.
        index: see `SqliteStore`, as for the rest.
        ttl: see there.

    Raises:
        ImportError: see there. `StoreOpenError` is raised by the first operation.
    """

    supports_ttl = True

    def __init__(
        self,
        conn: aiosqlite.Connection | str | os.PathLike[str],
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> None:
        self.conn = conn
        self.index_config = index
        self.ttl_config = ttl
        self._worker = Worker("pregel-store-setup")
        # A path can be opened at once; whose connection it is only a coroutine can ask.
        self._store: SqliteStore | None = None
        if isinstance(conn, (str, os.PathLike)):
            self._store = SqliteStore(conn, index=index, ttl=ttl)

    @classmethod
    def from_conn_string(
        cls, conn_string: str, *, index: IndexConfig | None = None, ttl: TTLConfig | None = None
    ) -> Self:
        """A store at a path, which its `async with` block closes."""
        return cls(conn_string, index=index, ttl=ttl)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """As `SqliteStore.batch`.

        Raises:
            RuntimeError: the store was made of a connection, and no coroutine of it has run yet.
        """
        if self._store is None:
            raise RuntimeError("AsyncSqliteStore of a connection: await setup() before its plain methods are called")
        return self._store.batch(ops)

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

    async def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> None:
        """As `SqliteStore.start_ttl_sweeper`."""
        (await self._opened()).start_ttl_sweeper(sweep_interval_minutes)

    async def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as the plain form
        """As `SqliteStore.stop_ttl_sweeper`."""
        store = await self._opened()
        has_ended: bool = await self._worker.post(partial(store.stop_ttl_sweeper, timeout)).shielded()
        return has_ended

    async def aclose(self) -> None:
        """End the threads of the store and close its file."""
        if self._store is not None:
            await self._worker.post(self._store.close).shielded()
        self._worker.dismiss()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _opened(self) -> SqliteStore:
        if self._store is None:
            conn: Any = self.conn
            async with conn.execute("PRAGMA database_list") as cursor:
                path = next((row[2] for row in await cursor.fetchall() if row[1] == "main"), "")
            if not path:
                raise StoreOpenError(
                    "AsyncSqliteStore got a connection to a database in memory, which nobody else can open; give it the "
                    "path ':memory:' instead"
                )
            self._store = SqliteStore(path, index=self.index_config, ttl=self.ttl_config)
        return self._store
