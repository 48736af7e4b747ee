"""`InMemoryCache`: entries in a dict of this process.

Decides which entries go when there are too many: those that were not used for longest. Invariants: entries stand in the
order of their last use; `_n_bytes` is what their bodies take.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pregel.cache.base import BaseCache, FullKey, Namespace, Typed, decoded, encoded

__all__ = ["InMemoryCache"]

ValueT = TypeVar("ValueT")


class _Entry(NamedTuple):
    typed: Typed
    expires_at: float | None


class InMemoryCache(BaseCache[ValueT], Generic[ValueT]):
    """A cache that lives as long as the process. Safe to use from several threads and event loops.

    Args:
        serde: see `BaseCache`. Values are kept as bytes, so an entry never changes with the object it came from.
        max_entries: most entries; None for no bound.
        max_bytes: most bytes of their values; None for no bound. A larger value is not kept.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        serde: Any = None,
        max_entries: int | None = 10_000,
        max_bytes: int | None = 256 * 1024 * 1024,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(serde=serde)
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[FullKey, _Entry] = {}
        self._n_bytes = 0
        self._n_sets = 0  # of entries that expire, since the last sweep

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """The entries that are there."""
        now = self._clock()
        there: list[tuple[FullKey, Typed]] = []
        with self._lock:
            for given in keys:
                key = (tuple(given[0]), given[1])
                entry = self._entries.get(key)
                if entry is None:
                    continue
                if entry.expires_at is not None and entry.expires_at <= now:
                    self._remove(key)
                    continue
                # To the end: it was used just now.
                self._entries[key] = self._entries.pop(key)
                there.append((key, entry.typed))
        found, unreadable = decoded(self, there)
        if unreadable:
            with self._lock:
                for key in unreadable:
                    self._remove(key)
        return found

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """Async form of `get`."""
        return self.get(keys)

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Keep values, each with its time to live in seconds; None: until it is displaced."""
        bodies = encoded(self, pairs)
        now = self._clock()
        with self._lock:
            for given, (_, ttl) in pairs.items():
                key = (tuple(given[0]), given[1])
                typed = bodies[given]
                self._remove(key)
                if self.max_bytes is not None and len(typed[1]) > self.max_bytes:
                    continue
                self._entries[key] = _Entry(typed, None if ttl is None else now + ttl)
                self._n_bytes += len(typed[1])
                self._n_sets += ttl is not None
            if self._n_sets >= 64 + len(self._entries) // 2:
                self._sweep(now)
            self._evict()

    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Async form of `set`."""
        self.set(pairs)

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Remove the entries of exactly these namespaces; None: all entries."""
        with self._lock:
            if namespaces is None:
                self._entries.clear()
                self._n_bytes = 0
                return
            gone = {tuple(namespace) for namespace in namespaces}
            for key in [key for key in self._entries if key[0] in gone]:
                self._remove(key)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Async form of `clear`."""
        self.clear(namespaces)

    def _remove(self, key: FullKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._n_bytes -= len(entry.typed[1])

    def _sweep(self, now: float) -> None:
        # Costs a set O(1) on average: it waits for half as many sets as there are entries to look at.
        self._n_sets = 0
        for key in [
            k for k, entry in self._entries.items() if entry.expires_at is not None and entry.expires_at <= now
        ]:
            self._remove(key)

    def _evict(self) -> None:
        while (self.max_entries is not None and len(self._entries) > self.max_entries) or (
            self.max_bytes is not None and self._n_bytes > self.max_bytes
        ):
            self._remove(next(iter(self._entries)))
