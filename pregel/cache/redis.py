"""`RedisCache`: entries in a Redis server, for several machines.

Decides names of keys and what happens while the server cannot be reached: an entry that cannot be asked for is a miss, and
a `PregelWarning` says so. Which entries go is the server's affair (`maxmemory-policy`). The client is the caller's, so this
module needs no library of its own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, Generic, TypeVar

from checkpoint.workers import Worker
from pregel.cache.base import BaseCache, FullKey, Namespace, Typed, decoded, encoded, packed
from pregel.warnings import PregelWarning

__all__ = ["RedisCache"]

ValueT = TypeVar("ValueT")
SCAN_COUNT: Final = 1000
_ESCAPED: Final = {ord(letter): "\\" + letter for letter in "\\*?[]^-"}


class RedisCache(BaseCache[ValueT], Generic[ValueT]):
    """A cache in a Redis server.

    Args:
        redis: a client of redis-py (the extra `redis`), or anything with `mget`, `set`, `unlink`, `scan_iter` and
            `pipeline` of the same form, that gives bytes (`decode_responses=False`). It must be safe for threads.
        serde: see `BaseCache`.
        prefix: before every key; `clear()` removes what begins with it.
    """

    is_shared: ClassVar[bool] = True

    def __init__(self, redis: Any, *, serde: Any = None, prefix: str = "pregel:cache:") -> None:
        super().__init__(serde=serde)
        self.redis = redis
        self.prefix = prefix
        self._worker = Worker("pregel-cache")

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """The entries that are there; none while the server cannot be reached."""
        if not keys:
            return {}
        try:
            bodies = self.redis.mget([self._name(key) for key in keys])
        except Exception as error:  # noqa: BLE001 - whatever a client raises: the entry can be computed
            self._warn("get", error)
            return {}
        there: list[tuple[FullKey, Typed]] = []
        for (namespace, key), body in zip(keys, bodies, strict=True):
            if body is not None:
                tag, _, data = body.partition(b":")
                there.append(((tuple(namespace), key), (tag.decode("ascii", "replace"), data)))
        found, unreadable = decoded(self, there)
        if unreadable:
            self._try("remove", lambda: self.redis.unlink(*(self._name(key) for key in unreadable)))
        return found

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """Async form of `get`."""
        found: dict[FullKey, ValueT] = await self._worker.post(partial(self.get, keys)).shielded()
        return found

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Keep values, each with its time to live in seconds; None: until the server displaces it."""
        bodies = encoded(self, pairs)

        def send() -> None:
            pipeline = self.redis.pipeline(transaction=False)
            for key, (_, ttl) in pairs.items():
                tag, data = bodies[key]
                # The server knows no time below a millisecond, and none that is over.
                px = None if ttl is None else max(1, math.ceil(ttl * 1000))
                pipeline.set(self._name(key), tag.encode() + b":" + data, px=px)
            pipeline.execute()

        if pairs:
            self._try("set", send)

    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Async form of `set`."""
        await self._worker.post(partial(self.set, pairs)).shielded()

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Remove the entries of exactly these namespaces; None: all that begin with the prefix. Looks at every key of the
        server, a thousand at a time."""

        def send() -> None:
            for start in self._starts(namespaces):
                batch: list[Any] = []
                for name in self.redis.scan_iter(match=start.translate(_ESCAPED) + "*", count=SCAN_COUNT):
                    batch.append(name)
                    if len(batch) == SCAN_COUNT:
                        self.redis.unlink(*batch)
                        batch.clear()
                if batch:
                    self.redis.unlink(*batch)

        self._try("clear", send)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Async form of `clear`."""
        await self._worker.post(partial(self.clear, namespaces)).shielded()

    def _starts(self, namespaces: Sequence[Namespace] | None) -> Iterator[str]:
        if namespaces is None:
            yield self.prefix
            return
        for namespace in namespaces:
            yield self._start(namespace)

    def _start(self, namespace: Namespace) -> str:
        # Hexadecimal: no client and no pattern sees anything in it. The number of labels tells ("a",) from ("a", "b").
        return f"{self.prefix}{len(namespace)}.{packed(namespace).hex()}:"

    def _name(self, key: FullKey) -> str:
        return self._start(tuple(key[0])) + key[1].encode("utf-8", "surrogatepass").hex()

    def _try(self, doing: str, send: Any) -> None:
        try:
            send()
        except Exception as error:  # noqa: BLE001 - as in `get`
            self._warn(doing, error)

    def _warn(self, doing: str, error: Exception) -> None:
        warnings.warn(
            f"RedisCache cannot {doing} ({error!r}); nodes with a cache policy run until the server answers again",
            PregelWarning,
            stacklevel=4,
        )
