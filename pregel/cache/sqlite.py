"""`SqliteCache`: entries in a SQLite file, for several processes.

Decides the table, when the file is written for a read (a use is noted once a minute), and which entries go when there are
too many. Everything in the file can be computed again, so commits do not wait for the disk, and what does not fit its
checksum is not there.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from checkpoint.files import make_private
from checkpoint.workers import Worker
from pregel.cache.base import BaseCache, FullKey, Namespace, Typed, decoded, encoded, packed

__all__ = ["CacheOpenError", "SqliteCache"]

ValueT = TypeVar("ValueT")

USED_AFTER: Final = 60
"""Seconds between two notes that an entry was used."""
CHECK_AFTER: Final = 64
"""Sets between two looks at the bounds."""
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS cache_entries (ns BLOB NOT NULL, key TEXT NOT NULL, used_at REAL NOT NULL, "
    "expires_at REAL, tag TEXT NOT NULL, body BLOB NOT NULL, UNIQUE (ns, key))",
    "CREATE INDEX IF NOT EXISTS cache_entries_used ON cache_entries (used_at)",
    "CREATE INDEX IF NOT EXISTS cache_entries_expiry ON cache_entries (expires_at) WHERE expires_at IS NOT NULL",
)


def _checked(ns: bytes, key: str, tag: str, body: bytes) -> bytes:
    """A body with a sum over it and its place: a damaged file must not answer with another result."""
    place = ns + key.encode("utf-8", "surrogatepass") + tag.encode("utf-8", "surrogatepass")
    return body + zlib.crc32(body, zlib.crc32(place)).to_bytes(4, "big")


class CacheOpenError(Exception):
    """A file that cannot be opened as a cache. Nothing in it was changed."""


def _opened(path: str) -> sqlite3.Connection:
    is_file = path not in ("", ":memory:")
    if is_file:
        make_private(path)
    conn = None
    try:
        conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA trusted_schema = OFF")
        conn.execute("PRAGMA synchronous = NORMAL" if is_file else "PRAGMA synchronous = OFF")
        for statement in _TABLE:
            conn.execute(statement)
    except sqlite3.Error as error:
        if conn is not None:
            conn.close()
        raise CacheOpenError(
            f"{path} cannot be opened as a cache (SQLite: {error}); check that it is the path of a SQLite file, and that "
            f"the file and its directory may be written to; what is in a cache can be computed again, so a damaged one may "
            f"be deleted"
        ) from error
    return conn


class SqliteCache(BaseCache[ValueT], Generic[ValueT]):
    """A cache in a SQLite file, which only its owner may read. Safe to use from several threads, loops and processes.

    Args:
        path: of the file, which is made if it is missing; it may be that of a saver or a store.
        serde: see `BaseCache`.
        max_entries: most entries, give or take a few; None for no bound.
        max_bytes: most bytes of their values, likewise.
        clock: seconds since the epoch.

    Raises:
        CacheOpenError: the file cannot be opened.
    """

    is_shared: ClassVar[bool] = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        serde: Any = None,
        max_entries: int | None = 100_000,
        max_bytes: int | None = 1024 * 1024 * 1024,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(serde=serde)
        self.path = os.fspath(path)
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.RLock()
        self._worker = Worker("pregel-cache")
        self._n_sets = 0
        self._conn = _opened(self.path)

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """The entries that are there."""
        now = self._clock()
        there: list[tuple[FullKey, Typed]] = []
        used: list[tuple[float, bytes, str]] = []
        damaged: list[FullKey] = []
        with self._lock:
            for namespace, key in keys:
                ns = packed(namespace)
                row = self._conn.execute(
                    "SELECT used_at, expires_at, tag, body FROM cache_entries WHERE ns = ? AND key = ?", (ns, key)
                ).fetchone()
                if row is None or (row[1] is not None and row[1] <= now):
                    continue
                tag, body = row[2:]
                if _checked(ns, key, tag, body[:-4]) != body:
                    damaged.append((tuple(namespace), key))
                    continue
                there.append(((tuple(namespace), key), (tag, body[:-4])))
                if row[0] < now - USED_AFTER:
                    used.append((now, ns, key))
            found, unreadable = decoded(self, there)
            unreadable += damaged
            if used or unreadable:
                with self._conn:
                    self._conn.execute("BEGIN IMMEDIATE")
                    self._conn.executemany("UPDATE cache_entries SET used_at = ? WHERE ns = ? AND key = ?", used)
                    self._conn.executemany(
                        "DELETE FROM cache_entries WHERE ns = ? AND key = ?",
                        [(packed(namespace), key) for namespace, key in unreadable],
                    )
        return found

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """Async form of `get`."""
        found: dict[FullKey, ValueT] = await self._worker.post(partial(self.get, keys)).shielded()
        return found

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Keep values, each with its time to live in seconds; None: until it is displaced."""
        bodies = encoded(self, pairs)
        now = self._clock()
        rows = []
        for full, (_, ttl) in pairs.items():
            (tag, body), ns, key = bodies[full], packed(full[0]), full[1]
            if self.max_bytes is None or len(body) <= self.max_bytes:
                expires_at = None if ttl is None else now + ttl
                rows.append((ns, key, now, expires_at, tag, _checked(ns, key, tag, body)))
        with self._lock, self._conn:
            self._conn.execute("BEGIN IMMEDIATE")
            self._conn.executemany("INSERT OR REPLACE INTO cache_entries VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._n_sets += len(rows)
            if self._n_sets >= CHECK_AFTER:
                self._n_sets = 0
                self._bound(now)

    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Async form of `set`."""
        await self._worker.post(partial(self.set, pairs)).shielded()

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Remove the entries of exactly these namespaces; None: all entries."""
        with self._lock, self._conn:
            self._conn.execute("BEGIN IMMEDIATE")
            if namespaces is None:
                self._conn.execute("DELETE FROM cache_entries")
            else:
                self._conn.executemany(
                    "DELETE FROM cache_entries WHERE ns = ?", [(packed(namespace),) for namespace in namespaces]
                )

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Async form of `clear`."""
        await self._worker.post(partial(self.clear, namespaces)).shielded()

    def sweep(self) -> int:
        """Remove expired entries, which are not found any more anyway, and what is above the bounds. Returns how many."""
        with self._lock, self._conn:
            self._conn.execute("BEGIN IMMEDIATE")
            return self._bound(self._clock())

    def close(self) -> None:
        """Close the file. The cache cannot be used after."""
        self._worker.stop()
        with self._lock:
            self._conn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _bound(self, now: float) -> int:
        n_removed = self._conn.execute("DELETE FROM cache_entries WHERE expires_at <= ?", (now,)).rowcount
        n_entries, n_bytes = self._conn.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM cache_entries"
        ).fetchone()
        n_surplus = 0 if self.max_entries is None else max(n_entries - self.max_entries, 0)
        oldest = self._conn.execute("SELECT rowid, length(body) FROM cache_entries ORDER BY used_at, rowid")
        gone: list[tuple[int]] = []
        for rowid, size in oldest:
            if len(gone) >= n_surplus and (self.max_bytes is None or n_bytes <= self.max_bytes):
                break
            gone.append((rowid,))
            n_bytes -= size
        oldest.close()
        self._conn.executemany("DELETE FROM cache_entries WHERE rowid = ?", gone)
        return n_removed + len(gone)
