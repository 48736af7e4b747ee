"""`InMemoryStore`: items in dicts of this process.

Decides where items are, in which order they are found, and how near texts are: by their vectors, compared in plain
Python over everything below the prefix. Does not know what operations mean (`pregel.store.base`).

Invariants
1. Embedding and copying, which run code of users, are done outside the lock, and what can fail before anything changes.
   A stored value is never changed, only replaced, so what was found may be copied later.
2. Every item is in `_items`; those that may expire are in `_expiring` too; no namespace is empty.
3. Freeing expired items costs a put O(1) on average: a sweep waits for half as many puts as it has items to look at.
"""

from __future__ import annotations

import math
import operator
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, NamedTuple, TypeVar

from pregel.errors import shown
from pregel.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    VersionConflictError,
    checked_ops,
    matches_conditions,
)
from pregel.store.base.copies import own
from pregel.store.base.embed import Measure, ensure_embeddings, indexed_texts, measure_of, text_fields
from pregel.store.filters import matches_filter

__all__ = ["InMemoryStore"]

T = TypeVar("T")
Vector = tuple[float, ...]
"""Where cosines are compared: of length 1, or all zero."""


class _Record:
    """One stored item."""

    __slots__ = ("created_at", "expires_at", "ttl", "updated_at", "value", "vectors", "version")

    def __init__(
        self,
        value: dict[str, Any],
        vectors: Sequence[Vector],
        former: _Record | None,
        now: float,
        ttl: float | None,
    ) -> None:
        self.value = value
        self.version: int = 1 if former is None else former.version + 1
        self.vectors = vectors
        """One per text that was found; empty if the item is not found by meaning."""
        self.updated_at = datetime.fromtimestamp(now, UTC)
        self.created_at: datetime = self.updated_at if former is None else former.created_at
        self.ttl = ttl
        """Minutes."""
        self.expires_at = math.inf
        self.refresh(now)

    def refresh(self, now: float) -> None:
        """Start the time to live anew."""
        if self.ttl is not None:
            self.expires_at = now + 60 * self.ttl

    def is_live(self, now: float) -> bool:
        return now < self.expires_at


class _Found(NamedTuple):
    namespace: tuple[str, ...]
    key: str
    record: _Record
    score: float | None = None


class _Batch(NamedTuple):
    """A checked batch and what must be embedded for it."""

    ops: list[Op]
    texts: list[list[str]]
    """By operation: texts of the value that is put."""
    documents: list[str]
    """All of them, each once."""
    queries: list[str]


class InMemoryStore(BaseStore):
    """A store that lives as long as the process. Safe to use from several threads.

    Items are found in the order in which their namespaces, and in these their keys, were first put. A search with a
    query gives the nearest first, by the nearest of its texts, then what has no vector. Values may hold whatever
    `copy.deepcopy` can copy, but no cycle of dicts and lists.

    Args:
        index: how to find items by meaning; without it, a query is ignored.
        ttl: when items expire. A put may name a time to live without it.
        clock: seconds since the epoch.

    Raises:
        ValueError: `index` has nothing to embed with.
    """

    supports_ttl = True

    def __init__(
        self,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.index_config = index
        self.ttl_config = ttl
        self.embeddings = ensure_embeddings(index.get("embed")) if index else None
        self._fields = text_fields(index)
        self._measure: Measure = measure_of(index)
        self._clock = clock
        self._items: dict[tuple[str, ...], dict[str, _Record]] = {}
        self._expiring: dict[tuple[tuple[str, ...], str], _Record] = {}
        self._width = 0  # of vectors; 0 until there is one
        self._n_puts = 0  # of items that expire, since the last sweep
        self._lock = threading.Lock()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out operations in order, see `BaseStore`.

        Raises:
            ValueError: also if vectors are not one per text, or differ in length.
            TypeError: a value is no mapping, or cannot be copied.
        """
        batch = self._prepared(ops)
        if self.embeddings is None:
            return self._carry_out(batch, [], [])
        documents = self.embeddings.embed_documents(batch.documents) if batch.documents else []
        return self._carry_out(batch, documents, [self.embeddings.embed_query(query) for query in batch.queries])

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Async form of `batch`."""
        batch = self._prepared(ops)
        if self.embeddings is None:
            return self._carry_out(batch, [], [])
        documents = await self.embeddings.aembed_documents(batch.documents) if batch.documents else []
        queries = [await self.embeddings.aembed_query(query) for query in batch.queries]
        return self._carry_out(batch, documents, queries)

    def sweep_ttl(self) -> int:
        """Free the memory of expired items, which puts do now and then. Returns how many were freed."""
        with self._lock:
            return self._sweep(self._clock())

    def _prepared(self, ops: Iterable[Op]) -> _Batch:
        checked = [_with_own_value(op) if isinstance(op, PutOp) else op for op in checked_ops(ops)]
        if self.embeddings is None:
            return _Batch(checked, [[] for _ in checked], [], [])
        texts = [indexed_texts(op.value, op.index, self._fields) if isinstance(op, PutOp) else [] for op in checked]
        queries = [op.query for op in checked if isinstance(op, SearchOp) and op.query]
        return _Batch(checked, texts, list(dict.fromkeys(chain(*texts))), list(dict.fromkeys(queries)))

    def _carry_out(
        self, batch: _Batch, documents: Sequence[Iterable[float]], queries: Sequence[Iterable[float]]
    ) -> list[Result]:
        vectors = _vectors(batch.documents, documents, self._measure)
        targets = _vectors(batch.queries, queries, self._measure)
        with self._lock:
            self._check_widths([*vectors.values(), *targets.values()])
            now = self._clock()
            self._check_versions(batch.ops, now)
            results: list[Result] = []
            for op, texts in zip(batch.ops, batch.texts, strict=True):
                if isinstance(op, GetOp):
                    results.append(self._get_item(op, now))
                elif isinstance(op, PutOp):
                    self._put_item(op, [vectors[text] for text in texts], now)
                    results.append(None)
                elif isinstance(op, SearchOp):
                    results.append(self._search_items(op, targets.get(op.query or ""), now))
                else:
                    results.append(self._namespaces(op, now))
        for result in results:
            for found in result if isinstance(result, list) else (result,):
                if isinstance(found, Item):
                    found.value = own(found.value)
        return results

    def _check_widths(self, vectors: Iterable[Vector]) -> None:
        width = self._width
        for vector in vectors:
            width = width or len(vector)
            if len(vector) != width:
                raise ValueError(
                    f"{shown(self.embeddings)} gave vectors of {width} and of {len(vector)} numbers; vectors of "
                    f"different lengths cannot be compared, use one embedding per store"
                )
        self._width = width

    def _check_versions(self, ops: Sequence[Op], now: float) -> None:
        """Before anything changes: what version each put of the batch will find."""
        versions: dict[tuple[tuple[str, ...], str], int] = {}
        for op in ops:
            if not isinstance(op, PutOp):
                continue
            address = op.namespace, op.key
            if address not in versions:
                record = self._items.get(op.namespace, {}).get(op.key)
                versions[address] = record.version if record is not None and record.is_live(now) else 0
            if op.if_version is not None and versions[address] != op.if_version:
                raise VersionConflictError(op.namespace, op.key, op.if_version, versions[address])
            versions[address] = 0 if op.value is None else versions[address] + 1

    # Items are made with the stored value; `_carry_out` copies it before it gives them away.

    def _get_item(self, op: GetOp, now: float) -> Item | None:
        record = self._items.get(op.namespace, {}).get(op.key)
        if record is None or not record.is_live(now):
            return None
        if op.refresh_ttl:
            record.refresh(now)
        return Item(
            value=record.value,
            key=op.key,
            namespace=op.namespace,
            created_at=record.created_at,
            updated_at=record.updated_at,
            version=record.version,
        )

    def _put_item(self, op: PutOp, vectors: Sequence[Vector], now: float) -> None:
        address = (op.namespace, op.key)
        former = self._items.get(op.namespace, {}).get(op.key)
        if former is not None and (op.value is None or not former.is_live(now)):
            self._remove(address)
            former = None
        if op.value is None:
            return
        record = _Record(dict(op.value), vectors, former, now, op.ttl)
        self._items.setdefault(op.namespace, {})[op.key] = record
        if op.ttl is None:
            self._expiring.pop(address, None)
            return
        self._expiring[address] = record
        self._n_puts += 1
        if self._n_puts >= 64 + len(self._expiring) // 2:
            self._sweep(now)

    def _sweep(self, now: float) -> int:
        self._n_puts = 0
        expired = [address for address, record in self._expiring.items() if not record.is_live(now)]
        for address in expired:
            self._remove(address)
        return len(expired)

    def _remove(self, address: tuple[tuple[str, ...], str]) -> None:
        namespace, key = address
        items = self._items[namespace]
        del items[key]
        if not items:
            del self._items[namespace]
        self._expiring.pop(address, None)

    def _search_items(self, op: SearchOp, target: Vector | None, now: float) -> list[SearchItem]:
        found: Iterable[_Found] = self._below(op.namespace_prefix, op.filter, now)
        if target is not None:
            found = _by_nearness(found, target, self._measure)
        page = list(_page(found, op.limit, op.offset))
        if op.refresh_ttl:
            for one in page:
                one.record.refresh(now)
        return [
            SearchItem(namespace, key, record.value, record.created_at, record.updated_at, score, record.version)
            for namespace, key, record, score in page
        ]

    def _below(self, prefix: tuple[str, ...], wanted: Mapping[str, Any] | None, now: float) -> Iterator[_Found]:
        for namespace, items in self._items.items():
            if namespace[: len(prefix)] == prefix:
                for key, record in items.items():
                    if record.is_live(now) and (not wanted or matches_filter(record.value, wanted)):
                        yield _Found(namespace, key, record)

    def _namespaces(self, op: ListNamespacesOp, now: float) -> list[tuple[str, ...]]:
        depth = None if op.max_depth is None else max(op.max_depth, 0)
        found = {
            namespace[:depth]
            for namespace, items in self._items.items()
            if matches_conditions(namespace, op.match_conditions or ())
            and any(record.is_live(now) for record in items.values())
        }
        return list(_page(sorted(found), op.limit, op.offset))


def _with_own_value(op: PutOp) -> PutOp:
    if op.value is None:
        return op
    try:
        return op._replace(value=own(dict(op.value)))
    except (TypeError, RecursionError) as error:
        raise TypeError(
            f"put of key {shown(op.key)} in {shown(op.namespace)} got {shown(op.value)}, which cannot be copied "
            f"({error}); put plain data, and keep connections and the like outside of the store"
        ) from error


def _vectors(texts: Sequence[str], vectors: Sequence[Iterable[float]], measure: Measure) -> dict[str, Vector]:
    if len(texts) != len(vectors):
        raise ValueError(
            f"embedding of {len(texts)} texts gave {len(vectors)} vectors; expected one per text, in order"
        )
    return {text: _vector(text, numbers, measure) for text, numbers in zip(texts, vectors, strict=True)}


def _vector(text: str, numbers: Iterable[float], measure: Measure) -> Vector:
    vector = tuple(float(number) for number in numbers)  # arrays too
    if not all(map(math.isfinite, vector)):
        raise ValueError(f"the embedding of {shown(text)} is {shown(vector)}; expected finite numbers")
    if measure != "cosine":
        return vector
    length = math.hypot(*vector) or 1.0
    return tuple(number / length for number in vector)


def _by_nearness(found: Iterable[_Found], target: Vector, measure: Measure) -> list[_Found]:
    scored, others = [], []
    for one in found:
        if one.record.vectors:
            score = max(_nearness(vector, target, measure) for vector in one.record.vectors)
            scored.append(one._replace(score=score))
        else:
            others.append(one)
    scored.sort(key=lambda one: -(one.score or 0.0))
    return scored + others


def _nearness(vector: Vector, target: Vector, measure: Measure) -> float:
    return -math.dist(vector, target) if measure == "l2" else sum(map(operator.mul, vector, target))


def _page(found: Iterable[T], limit: int, offset: int) -> Iterator[T]:
    start = max(offset, 0)
    return islice(found, start, None if limit < 0 else start + limit)
