"""A batch of operations on a connection: what SQLite is asked, and how its rows become items.

Decides the statements. Everything in a batch sees what came before it; the caller has checked the operations, embedded
texts, encoded values, and holds the transaction. Does not know threads, event loops, or how a file is opened.

Invariants
1. Values of users reach SQL as bound parameters only.
2. A search decodes what it returns, and beside that only items that field rows could not rule out.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NamedTuple

from pregel.store.base import (
    GetOp,
    Item,
    ListNamespacesOp,
    PutOp,
    SearchItem,
    SearchOp,
    VersionConflictError,
    matches_conditions,
)
from pregel.store.filters import matches_filter
from pregel.store.sqlite.schema import (
    WILD,
    Condition,
    after,
    condition_of,
    field_rows,
    key_column,
    key_of,
    labels_of,
    path_of,
)

PAGE: Final = 256
"""Rows that a search fetches at a time."""
SWEPT: Final = 2
"""Expired items that each put removes."""

_COLUMNS: Final = (
    "i.item_pk, i.ns_pk, i.key, i.seq, i.version, i.created_at, i.updated_at, i.ttl, i.expires_at, i.value"
)
_LIVE: Final = "(i.expires_at IS NULL OR i.expires_at > ?)"

Vectors = Sequence[bytes]
Decode = Callable[[bytes], dict[str, Any]]
Score = Callable[[Iterable[tuple[int, bytes]]], dict[int, float]]
"""(item, vector) pairs -> item -> similarity to the query, of its nearest vector."""


class Row(NamedTuple):
    """A row of `store_items`."""

    item_pk: int
    ns_pk: int
    key: str | bytes
    seq: int
    version: int
    created_at: int
    updated_at: int
    ttl: float | None
    expires_at: float | None
    value: bytes


class Put(NamedTuple):
    """A put with everything that could fail done: the value encoded, its texts embedded."""

    op: PutOp
    body: bytes
    vectors: Vectors


class Search(NamedTuple):
    """A search, and how near a vector is to its query; None if it has none."""

    op: SearchOp
    score: Score | None


Step = Put | Search | GetOp | ListNamespacesOp


class Batch:
    """Carries out the operations of one batch in one transaction. `now`: seconds since the epoch."""

    def __init__(self, conn: sqlite3.Connection, decode: Decode, now: float) -> None:
        self._conn = conn
        self._decode = decode
        self._now = now
        self.read: list[Row] = []
        """Items that were returned and whose time to live starts anew."""

    def carry_out(self, step: Step) -> Any:
        """The result of one operation."""
        if isinstance(step, GetOp):
            return self._get(step)
        if isinstance(step, Put):
            return self._put(step)
        if isinstance(step, Search):
            return self._search(step)
        return self._namespaces(step)

    # ---- single items

    def _get(self, op: GetOp) -> Item | None:
        row = self._row(op.namespace, op.key)
        if row is None or not self._is_live(row):
            return None
        if op.refresh_ttl:
            self._refresh(row)
        created_at, updated_at = _date(row.created_at), _date(row.updated_at)
        return Item(
            value=self._decode(row.value),
            key=op.key,
            namespace=op.namespace,
            created_at=created_at,
            updated_at=updated_at,
            version=row.version,
        )

    def _put(self, step: Put) -> None:
        op = step.op
        former = self._row(op.namespace, op.key)
        if op.if_version is not None:
            have = former.version if former is not None and self._is_live(former) else 0
            if have != op.if_version:
                raise VersionConflictError(op.namespace, op.key, op.if_version, have)
        if former is not None:
            self._remove_fields(former)
        if op.value is None or (former is not None and not self._is_live(former)):
            if former is not None:
                self._remove(former)
                former = None
            if op.value is None:
                return
        now_us = int(self._now * 1_000_000)
        ns_pk = former.ns_pk if former is not None else self._namespace(op.namespace)
        (newest,) = self._conn.execute("SELECT max(seq) FROM store_items WHERE ns_pk = ?", (ns_pk,)).fetchone()
        seq = max(now_us, (newest or 0) + 1)
        expires_at = None if op.ttl is None else self._now + 60 * op.ttl
        if former is None:
            item_pk = self._conn.execute(
                "INSERT INTO store_items (ns_pk, key, seq, version, created_at, updated_at, ttl, expires_at, value) "
                "VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?)",
                (ns_pk, key_column(op.key), seq, now_us, now_us, op.ttl, expires_at, step.body),
            ).lastrowid
        else:
            item_pk = former.item_pk
            self._conn.execute(
                "UPDATE store_items SET seq = ?, version = version + 1, updated_at = ?, ttl = ?, expires_at = ?, value = ? "
                "WHERE item_pk = ?",
                (seq, now_us, op.ttl, expires_at, step.body, item_pk),
            )
            self._conn.execute("DELETE FROM store_vectors WHERE item_pk = ?", (item_pk,))
        self._conn.executemany(
            "INSERT INTO store_fields (ns_pk, field, kind, value, seq) VALUES (?, ?, ?, ?, ?)",
            [(ns_pk, *row, seq) for row in field_rows(op.value)],
        )
        if step.vectors:
            self._conn.executemany(
                "INSERT INTO store_vectors (item_pk, n, vector) VALUES (?, ?, ?)",
                [(item_pk, n, vector) for n, vector in enumerate(step.vectors)],
            )
        self.sweep(SWEPT)

    def sweep(self, limit: int) -> int:
        """Remove expired items, at most so many. Returns how many."""
        rows = self._conn.execute(
            f"SELECT {_COLUMNS} FROM store_items i WHERE i.expires_at <= ? LIMIT ?", (self._now, limit)
        ).fetchall()
        for plain in rows:
            row = Row._make(plain)
            self._remove_fields(row)
            self._remove(row)
        return len(rows)

    def refresh(self) -> None:
        """Start the time to live of what was read anew."""
        self._conn.executemany(
            "UPDATE store_items SET expires_at = ? + 60 * ttl WHERE item_pk = ? AND version = ?",
            [(self._now, row.item_pk, row.version) for row in self.read],
        )

    def _row(self, namespace: tuple[str, ...], key: str) -> Row | None:
        found = self._conn.execute(
            f"SELECT {_COLUMNS} FROM store_namespaces n JOIN store_items i USING (ns_pk) WHERE n.path = ? AND i.key = ?",
            (path_of(namespace), key_column(key)),
        ).fetchone()
        return None if found is None else Row._make(found)

    def _namespace(self, namespace: tuple[str, ...]) -> int:
        path = path_of(namespace)
        found = self._conn.execute("SELECT ns_pk FROM store_namespaces WHERE path = ?", (path,)).fetchone()
        if found is not None:
            return int(found[0])
        return int(self._conn.execute("INSERT INTO store_namespaces (path) VALUES (?)", (path,)).lastrowid or 0)

    def _remove_fields(self, row: Row) -> None:
        self._conn.executemany(
            "DELETE FROM store_fields WHERE ns_pk = ? AND field = ? AND kind = ? AND value = ? AND seq = ?",
            [(row.ns_pk, *field, row.seq) for field in field_rows(self._decode(row.value))],
        )

    def _remove(self, row: Row) -> None:
        self._conn.execute("DELETE FROM store_vectors WHERE item_pk = ?", (row.item_pk,))
        self._conn.execute("DELETE FROM store_items WHERE item_pk = ?", (row.item_pk,))
        self._conn.execute(
            "DELETE FROM store_namespaces WHERE ns_pk = ? "
            "AND NOT EXISTS (SELECT 1 FROM store_items WHERE store_items.ns_pk = store_namespaces.ns_pk)",
            (row.ns_pk,),
        )

    def _is_live(self, row: Row) -> bool:
        return row.expires_at is None or row.expires_at > self._now

    def _refresh(self, row: Row) -> None:
        if row.ttl is not None:
            self.read.append(row)

    # ---- searching

    def _search(self, step: Search) -> list[SearchItem]:
        op = step.op
        spaces = self._below(op.namespace_prefix)
        found: Iterator[tuple[Row, dict[str, Any] | None, float | None]]
        if step.score is None:
            found = ((row, value, None) for row, value in self._matching(spaces, op.filter or {}))
        else:
            found = self._nearest(spaces, op.filter or {}, step.score)
        start = max(op.offset, 0)
        page = list(islice(found, start, None if op.limit < 0 else start + op.limit))
        if op.refresh_ttl:
            for row, _, _ in page:
                self._refresh(row)
        return [self._found_item(spaces[row.ns_pk], row, value, score) for row, value, score in page]

    def _found_item(
        self, namespace: tuple[str, ...], row: Row, value: dict[str, Any] | None, score: float | None
    ) -> SearchItem:
        item = SearchItem(
            namespace,
            key_of(row.key),
            self._decode(row.value) if value is None else value,
            _date(row.created_at),
            _date(row.updated_at),
            score,
        )
        item.version = row.version
        return item

    def _below(self, prefix: tuple[str, ...]) -> dict[int, tuple[str, ...]]:
        """Namespaces below a prefix, by key."""
        if not prefix:
            rows = self._conn.execute("SELECT ns_pk, path FROM store_namespaces")
        else:
            path = path_of(prefix)
            rows = self._conn.execute(
                "SELECT ns_pk, path FROM store_namespaces WHERE path >= ? AND path < ?", (path, after(path))
            )
        return {ns_pk: labels_of(path) for ns_pk, path in rows}

    def _matching(
        self, spaces: Iterable[int], wanted: Mapping[str, Any]
    ) -> Iterator[tuple[Row, dict[str, Any] | None]]:
        """Items that meet a filter, the newest first, with their values if those were needed to know."""
        conditions = [found for field, want in wanted.items() for found in condition_of(field, want)]
        streams = [self._candidates(ns_pk, conditions) for ns_pk in spaces]
        rows = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=lambda row: -row.seq)
        for row in rows:
            if not wanted:
                yield row, None
                continue
            value = self._decode(row.value)
            if matches_filter(value, wanted):
                yield row, value

    def _candidates(self, ns_pk: int, conditions: Sequence[Condition]) -> Iterator[Row]:
        """Live items of a namespace that field rows do not rule out, the newest first."""
        clause = ""
        arguments: list[Any] = []
        for condition in conditions:
            text, values = _seqs(ns_pk, condition)
            clause += f" AND i.seq IN ({text})"
            arguments += values
        below = 1 << 62
        while True:
            # Each page is a statement of its own: none stays open while the caller's code runs.
            rows = self._conn.execute(
                f"SELECT {_COLUMNS} FROM store_items i WHERE i.ns_pk = ? AND i.seq < ? AND {_LIVE}{clause} "
                f"ORDER BY i.seq DESC LIMIT ?",
                (ns_pk, below, self._now, *arguments, PAGE),
            ).fetchall()
            for plain in rows:
                yield Row._make(plain)
            if len(rows) < PAGE:
                return
            below = rows[-1][3]

    def _nearest(
        self, spaces: Iterable[int], wanted: Mapping[str, Any], score: Score
    ) -> Iterator[tuple[Row, dict[str, Any] | None, float | None]]:
        matching = {row.item_pk for row, _ in self._matching(spaces, wanted)} if wanted else None
        scores = score(
            (item_pk, vector)
            for ns_pk in spaces
            for item_pk, vector in self._conn.execute(
                "SELECT v.item_pk, v.vector FROM store_items i JOIN store_vectors v USING (item_pk) "
                f"WHERE i.ns_pk = ? AND {_LIVE}",
                (ns_pk, self._now),
            )
            if matching is None or item_pk in matching
        )
        for item_pk in sorted(scores, key=lambda found: -scores[found]):
            plain = self._conn.execute(f"SELECT {_COLUMNS} FROM store_items i WHERE item_pk = ?", (item_pk,)).fetchone()
            yield Row._make(plain), None, scores[item_pk]

    # ---- namespaces

    def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        depth = None if op.max_depth is None else max(op.max_depth, 0)
        conditions = op.match_conditions or ()
        rows = self._conn.execute(
            "SELECT path FROM store_namespaces n WHERE EXISTS "
            f"(SELECT 1 FROM store_items i WHERE i.ns_pk = n.ns_pk AND {_LIVE}) ORDER BY path",
            (self._now,),
        )
        found = (labels_of(path) for (path,) in rows)
        cut = dict.fromkeys(labels[:depth] for labels in found if matches_conditions(labels, conditions))
        start = max(op.offset, 0)
        return list(islice(cut, start, None if op.limit < 0 else start + op.limit))


def _seqs(ns_pk: int, condition: Condition) -> tuple[str, list[Any]]:
    """A query for what the items of a namespace are told apart by, of those with field rows that fit a condition."""
    texts = [f"SELECT seq FROM store_fields WHERE ns_pk = ? AND field = '' AND kind = {WILD}"]
    values: list[Any] = [ns_pk]
    for field in condition.fields:
        for span in condition.spans:
            text = "SELECT seq FROM store_fields WHERE ns_pk = ? AND field = ? AND kind = ?"
            values += (ns_pk, field, span.kind)
            if span.low is not None and span.low == span.high:
                text += " AND value = ?"
                values.append(span.low)
            else:
                if span.low is not None:
                    text += " AND value >= ?"
                    values.append(span.low)
                if span.high is not None:
                    text += " AND value <= ?"
                    values.append(span.high)
            texts.append(text)
    return " UNION ALL ".join(texts), values


def _date(us: int) -> datetime:
    # Not `fromtimestamp`, which goes through a float.
    seconds, rest = divmod(us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
