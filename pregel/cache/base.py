"""The contract of a cache: entries under a namespace and a key, which may be gone at any time.

Decides what a key is, how values become bytes, and that equal concurrent misses compute once. Does not know where entries
are kept, nor what they are for.

Invariants, of every cache of ours
1. What is returned is the caller's own: it was decoded for this call.
2. An expired entry is not there, removed or not.
3. An entry that cannot be read any more is a miss, and is removed: what it held can be computed again.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar

from checkpoint.base import CheckpointError
from checkpoint.serde.msgpack import Serde
from checkpoint.workers import Outcome

__all__ = ["BaseCache", "FullKey", "Namespace"]

ValueT = TypeVar("ValueT")
Namespace: TypeAlias = tuple[str, ...]
FullKey: TypeAlias = tuple[Namespace, str]
"""Namespace and key."""
Typed: TypeAlias = tuple[str, bytes]
"""What a serde made of a value: format tag and body."""

_computing: ContextVar[frozenset[tuple[int, FullKey]]] = ContextVar("pregel_cache_computing", default=frozenset())
"""What the code around is computing: (cache, key)."""


class BaseCache(ABC, Generic[ValueT]):
    """A cache. Implement `get`, `set`, `clear` and their async forms.

    Args:
        serde: how values become bytes; an object with `dumps_typed` and `loads_typed`.
    """

    is_shared: ClassVar[bool] = False
    """May other processes find what this one keeps? Then graphs warn of functions that no other process can tell."""

    def __init__(self, *, serde: Any = None) -> None:
        self.serde: Any = serde or Serde()
        self._flights: dict[FullKey, Outcome] = {}
        self._flights_lock = threading.Lock()

    @abstractmethod
    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """The entries that are there."""

    @abstractmethod
    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """Async form of `get`."""

    @abstractmethod
    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Keep values, each with its time to live in seconds; None: until it is displaced.

        Raises what the serde raises for a value that it does not take; nothing is kept then.
        """

    @abstractmethod
    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Async form of `set`."""

    @abstractmethod
    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Remove the entries of exactly these namespaces; None: all entries."""

    @abstractmethod
    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Async form of `clear`."""

    def get_or_compute(self, key: FullKey, compute: Callable[[], ValueT], ttl: int | None = None) -> ValueT:
        """The entry, or what `compute` returns, which is kept. Of concurrent callers one computes, the others wait.

        If it raises, its caller gets the error and the next one that waits computes. For the threads and event loops of
        one process that share this object.

        Raises:
            RuntimeError: `compute` asks for the key that it computes.
        """
        while True:
            found = self.get([key])
            if key in found:
                return found[key]
            flight = self._flight(key)
            if flight is not None:
                flight.wait()
                continue
            with self._flying(key):
                found = self.get([key])  # somebody may have computed it since
                if key in found:
                    return found[key]
                value = compute()
                self.set({key: (value, ttl)})
                return value

    async def aget_or_compute(
        self, key: FullKey, compute: Callable[[], Awaitable[ValueT]], ttl: int | None = None
    ) -> ValueT:
        """Async form of `get_or_compute`."""
        while True:
            found = await self.aget([key])
            if key in found:
                return found[key]
            flight = self._flight(key)
            if flight is not None:
                await flight.aresult()
                continue
            with self._flying(key):
                found = await self.aget([key])
                if key in found:
                    return found[key]
                value = await compute()
                await self.aset({key: (value, ttl)})
                return value

    def _flight(self, key: FullKey) -> Outcome | None:
        """Who computes the entry now; None: the caller is to, and tells the others by `_flying`."""
        with self._flights_lock:
            flight = self._flights.get(key)
            if flight is None:
                self._flights[key] = Outcome()
                return None
        if (id(self), key) in _computing.get():
            raise RuntimeError(
                f"cache entry {key!r} is asked for by the function that computes it, which would wait for itself; compute "
                f"it without the cache, or use another key"
            )
        return flight

    @contextmanager
    def _flying(self, key: FullKey) -> Any:
        token = _computing.set(_computing.get() | {(id(self), key)})
        try:
            yield
        finally:
            _computing.reset(token)
            with self._flights_lock:
                flight = self._flights.pop(key)
            flight.end()


def encoded(cache: BaseCache[Any], pairs: Mapping[FullKey, tuple[Any, int | None]]) -> dict[FullKey, Typed]:
    """The bytes of all values. For implementations of `set`: nothing is kept before every value was taken."""
    found: dict[FullKey, Typed] = {}
    for key, (value, _) in pairs.items():
        try:
            found[key] = cache.serde.dumps_typed(value)
        except Exception as error:
            error.add_note(f"It was the value of cache entry {key!r}")
            raise
    return found


def decoded(
    cache: BaseCache[Any], entries: Iterable[tuple[FullKey, Typed]]
) -> tuple[dict[FullKey, Any], list[FullKey]]:
    """The values of entries, and the keys of those that cannot be read."""
    found: dict[FullKey, Any] = {}
    unreadable: list[FullKey] = []
    for key, typed in entries:
        try:
            found[key] = cache.serde.loads_typed(typed)
        except (CheckpointError, *UNREADABLE):
            unreadable.append(key)
    return found, unreadable


UNREADABLE: Final = (ValueError, TypeError, LookupError, AttributeError)
"""What serdes raise for bytes of another time, beside their own errors."""


def packed(parts: Sequence[str]) -> bytes:
    """Names as bytes that no other names have: each behind its length."""
    texts = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(len(text).to_bytes(4, "big") + text for text in texts)
