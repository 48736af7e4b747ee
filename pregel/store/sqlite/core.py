"""A batch of operations on a connection: what SQLite is asked, and how its rows become items.

Decides the statements. Everything in a batch sees what came before it; the caller has checked the operations, embedded
texts, encoded values, and holds the transaction. Does not know threads, event loops, or how a file is opened.

How a filter is looked up: each condition that field rows can answer is asked for its first `FEW` items. If one of them has
no more, its items are all that need to be read, and fewer still if there is a second one. If every condition fits many
items, the newest `PAGE` are read first, in the hope that they will do, and then those that all conditions fit.

Invariants
1. Values of users reach SQL as bound parameters only.
2. A search decodes what it returns, and beside that at most `FEW` items and those that field rows could not rule out.
3. Whatever is wrong with a stored value, its item can be replaced and deleted.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NamedTuple
from zlib import crc32

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
    CorruptItemError,
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
FEW: Final = 1024
"""Items of a condition that are read rather than looked up further."""
STREAMS: Final = 64
"""Namespaces that are read side by side; more are sorted together."""
PLACES: Final = 32
"""Rows that are fetched by their places at a time: more than a search returns, usually."""
SWEPT: Final = 2
"""Expired items that each put removes."""

_COLUMNS: Final = (
    "i.item_pk, i.ns_pk, i.key, i.seq, i.version, i.created_at, i.updated_at, i.ttl, i.expires_at, i.crc, i.value"
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
    crc: int
    value: bytes


Found = tuple[Row, dict[str, Any] | None]
"""An item and its value, if that was needed to find it."""


class Put(NamedTuple):
    """A put with everything that could fail done: the value encoded, its texts embedded. `value` is what will be read."""

    op: PutOp
    value: Mapping[str, Any] | None
    body: bytes
    vectors: Vectors


class Search(NamedTuple):
    """A search, and how near a vector is to its query; None if it has none."""

    op: SearchOp
    score: Score | None


Step = Put | Search | GetOp | ListNamespacesOp


class Spaces(NamedTuple):
    """The namespaces below a prefix."""

    clause: str
    """A query for their keys."""
    values: tuple[bytes, ...]
    few: dict[int, tuple[str, ...]] | None
    """Their labels by key, if there are no more than `STREAMS`."""


class Batch:
    """Carries out the operations of one batch in one transaction. `now`: seconds since the epoch."""

    def __init__(self, conn: sqlite3.Connection, decode: Decode, now: float) -> None:
        self._conn = conn
        self._decode = decode
        self._now = now
        self._labels: dict[int, tuple[str, ...]] = {}
        self._puts: dict[tuple[str, ...], tuple[int, int]] = {}
        """Namespaces that this batch has put something into: their keys, and the newest seq."""
        self._fields: list[tuple[Any, ...]] = []
        """Field rows of puts, which are written together and in order: before anything asks for them."""
        self._n_puts = 0
        self._last_seq = 0
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

    def finish(self) -> None:
        """What puts leave to do, within their transaction."""
        self._write_fields()
        self.refresh()
        self.sweep(SWEPT * self._n_puts)

    # ---- single items

    def _get(self, op: GetOp) -> Item | None:
        found = self._conn.execute(
            f"SELECT {_COLUMNS} FROM store_namespaces n JOIN store_items i USING (ns_pk) WHERE n.path = ? AND i.key = ?",
            (path_of(op.namespace), key_column(op.key)),
        ).fetchone()
        if found is None or not self._is_live(row := Row._make(found)):
            return None
        if op.refresh_ttl:
            self._refresh(row)
        created_at, updated_at = _date(row.created_at), _date(row.updated_at)
        return Item(
            value=self._value(row, op.namespace),
            key=op.key,
            namespace=op.namespace,
            created_at=created_at,
            updated_at=updated_at,
            version=row.version,
        )

    def _put(self, step: Put) -> None:
        op = step.op
        self._n_puts += 1
        ns_pk, newest, former = self._place(op.namespace, op.key)
        if op.if_version is not None:
            have = former.version if former is not None and self._is_live(former) else 0
            if have != op.if_version:
                raise VersionConflictError(op.namespace, op.key, op.if_version, have)
        if former is not None:
            self._remove_fields(former)
            if step.value is None or not self._is_live(former):
                self._remove(former)
                if step.value is not None:
                    ns_pk, newest, former = self._place(op.namespace, op.key)
        if step.value is None:
            return
        if ns_pk is None:
            added = self._conn.execute("INSERT INTO store_namespaces (path) VALUES (?)", (path_of(op.namespace),))
            ns_pk = int(added.lastrowid or 0)
        now_us = int(self._now * 1_000_000)
        seq = self._last_seq = max(now_us, newest + 1, self._last_seq + 1)
        self._puts[op.namespace] = ns_pk, seq
        self._write(step, ns_pk, seq, former, now_us)

    def _write(self, step: Put, ns_pk: int, seq: int, former: Row | None, now_us: int) -> None:
        op, value = step.op, step.value
        assert value is not None
        expires_at = None if op.ttl is None else self._now + 60 * op.ttl
        crc = crc32(step.body)
        if former is None:
            item_pk = self._conn.execute(
                "INSERT INTO store_items (ns_pk, key, seq, version, created_at, updated_at, ttl, expires_at, crc, value) "
                "VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?)",
                (ns_pk, key_column(op.key), seq, now_us, now_us, op.ttl, expires_at, crc, step.body),
            ).lastrowid
        else:
            item_pk = former.item_pk
            self._conn.execute(
                "UPDATE store_items SET seq = ?, version = version + 1, updated_at = ?, ttl = ?, expires_at = ?, crc = ?, "
                "value = ? WHERE item_pk = ?",
                (seq, now_us, op.ttl, expires_at, crc, step.body, item_pk),
            )
            self._conn.execute("DELETE FROM store_vectors WHERE item_pk = ?", (item_pk,))
        self._fields += [(ns_pk, *row, seq) for row in field_rows(value)]
        if step.vectors:
            self._conn.executemany(
                "INSERT INTO store_vectors (item_pk, n, vector) VALUES (?, ?, ?)",
                [(item_pk, n, vector) for n, vector in enumerate(step.vectors)],
            )

    def _write_fields(self) -> None:
        if self._fields:
            rows, self._fields = self._fields, []
            # In the order of the table: neighbours are on one page. Kinds tell apart what does not compare.
            rows.sort()
            self._conn.executemany(
                "INSERT INTO store_fields (ns_pk, field, kind, value, seq) VALUES (?, ?, ?, ?, ?)", rows
            )

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
        if self.read:
            self._conn.executemany(
                "UPDATE store_items SET expires_at = ? + 60 * ttl WHERE item_pk = ? AND version = ?",
                [(self._now, row.item_pk, row.version) for row in self.read],
            )

    def _place(self, namespace: tuple[str, ...], key: str) -> tuple[int | None, int, Row | None]:
        """Where a put goes: key of the namespace, if there is one, its newest seq, and what is there."""
        known = self._puts.get(namespace)
        if known is not None:
            found = self._conn.execute(
                f"SELECT {_COLUMNS} FROM store_items i WHERE i.ns_pk = ? AND i.key = ?", (known[0], key_column(key))
            ).fetchone()
            return *known, None if found is None else Row._make(found)
        found = self._conn.execute(
            f"SELECT n.ns_pk, (SELECT max(seq) FROM store_items s WHERE s.ns_pk = n.ns_pk), {_COLUMNS} "
            "FROM store_namespaces n LEFT JOIN store_items i ON i.ns_pk = n.ns_pk AND i.key = ? WHERE n.path = ?",
            (key_column(key), path_of(namespace)),
        ).fetchone()
        if found is None:
            return None, 0, None
        return found[0], found[1] or 0, None if found[2] is None else Row._make(found[2:])

    def _remove_fields(self, row: Row) -> None:
        self._write_fields()
        try:
            fields = field_rows(self._value(row))
        except Exception:  # noqa: BLE001 - whatever a damaged value, or one of an unknown type, does to the codec
            # Which rows it had cannot be known any more: they are looked for.
            self._conn.execute("DELETE FROM store_fields WHERE ns_pk = ? AND seq = ?", (row.ns_pk, row.seq))
            return
        if fields:
            self._conn.executemany(
                "DELETE FROM store_fields WHERE ns_pk = ? AND field = ? AND kind = ? AND value = ? AND seq = ?",
                [(row.ns_pk, *field, row.seq) for field in fields],
            )

    def _remove(self, row: Row) -> None:
        self._conn.execute("DELETE FROM store_vectors WHERE item_pk = ?", (row.item_pk,))
        self._conn.execute("DELETE FROM store_items WHERE item_pk = ?", (row.item_pk,))
        self._conn.execute(
            "DELETE FROM store_namespaces WHERE ns_pk = ? "
            "AND NOT EXISTS (SELECT 1 FROM store_items WHERE store_items.ns_pk = store_namespaces.ns_pk)",
            (row.ns_pk,),
        )
        self._puts.clear()

    def _value(self, row: Row, namespace: tuple[str, ...] | None = None) -> dict[str, Any]:
        if crc32(row.value) != row.crc:
            raise CorruptItemError(namespace or self._namespace(row.ns_pk), key_of(row.key))
        return self._decode(row.value)

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
        return [self._found_item(row, value, score) for row, value, score in page]

    def _found_item(self, row: Row, value: dict[str, Any] | None, score: float | None) -> SearchItem:
        return SearchItem(
            self._namespace(row.ns_pk),
            key_of(row.key),
            self._value(row) if value is None else value,
            _date(row.created_at),
            _date(row.updated_at),
            score,
            row.version,
        )

    def _below(self, prefix: tuple[str, ...]) -> Spaces:
        where, values = _range(prefix)
        rows = self._conn.execute(
            f"SELECT ns_pk, path FROM store_namespaces{where} LIMIT ?", (*values, STREAMS + 1)
        ).fetchall()
        few = {ns_pk: labels_of(path) for ns_pk, path in rows}
        self._labels.update(few)
        return Spaces(f"SELECT ns_pk FROM store_namespaces{where}", values, few if len(rows) <= STREAMS else None)

    def _namespace(self, ns_pk: int) -> tuple[str, ...]:
        labels = self._labels.get(ns_pk)
        if labels is None:
            (path,) = self._conn.execute("SELECT path FROM store_namespaces WHERE ns_pk = ?", (ns_pk,)).fetchone()
            labels = self._labels[ns_pk] = labels_of(path)
        return labels

    def _matching(self, spaces: Spaces, wanted: Mapping[str, Any]) -> Iterator[Found]:
        """Items that meet a filter, the newest first, with their values if those were needed to know."""
        conditions = [found for field, want in wanted.items() for found in condition_of(field, want)]
        for row in self._candidates(spaces, conditions):
            if not wanted:
                yield row, None
                continue
            value = self._value(row)
            if matches_filter(value, wanted):
                yield row, value

    def _candidates(self, spaces: Spaces, conditions: Sequence[Condition]) -> Iterator[Row]:
        """Live items that field rows do not rule out, the newest first."""
        if conditions:
            self._write_fields()
            selected = self._selected(spaces, conditions)
            if selected is not None:
                return self._rows_of(selected)
        if spaces.few is None:
            return self._sorted(spaces, conditions)
        streams = [self._stream(ns_pk, conditions) for ns_pk in spaces.few]
        return streams[0] if len(streams) == 1 else heapq.merge(*streams, key=_newest_first)

    def _selected(self, spaces: Spaces, conditions: Sequence[Condition]) -> list[tuple[int, int]] | None:
        """(namespace, seq) of the items that conditions with few items fit, the newest first; None: each has many."""
        best: set[tuple[int, int]] | None = None
        for condition in conditions:
            text, values = _fitting("n CROSS JOIN store_fields f ON f.ns_pk = n.ns_pk", "", (), condition)
            rows = self._conn.execute(
                f"WITH n (ns_pk) AS ({spaces.clause}) {text} LIMIT ?", (*spaces.values, *values, FEW + 1)
            ).fetchall()
            if len(rows) <= FEW:
                best = set(rows) if best is None else best.intersection(rows)
        return None if best is None else sorted(best, key=lambda place: (-place[1], -place[0]))

    def _rows_of(self, places: Sequence[tuple[int, int]]) -> Iterator[Row]:
        for start in range(0, len(places), PLACES):
            chunk = places[start : start + PLACES]
            marks = ", ".join(["(?, ?)"] * len(chunk))
            rows = self._conn.execute(
                f"WITH w (ns_pk, seq) AS (VALUES {marks}) SELECT {_COLUMNS} "
                "FROM w CROSS JOIN store_items i ON i.ns_pk = w.ns_pk AND i.seq = w.seq",
                [number for place in chunk for number in place],
            ).fetchall()
            for row in sorted(map(Row._make, rows), key=_newest_first):
                if self._is_live(row):
                    yield row

    def _stream(self, ns_pk: int, conditions: Sequence[Condition]) -> Iterator[Row]:
        """Live items of one namespace, the newest first: first all of them, from the second page on what fits."""
        clause = ""
        values: list[Any] = []
        below = 1 << 62
        while True:
            # Each page is a statement of its own: none stays open while the caller's code runs.
            rows = self._conn.execute(
                f"SELECT {_COLUMNS} FROM store_items i WHERE i.ns_pk = ? AND i.seq < ? AND {_LIVE}{clause} "
                f"ORDER BY i.seq DESC LIMIT ?",
                (ns_pk, below, self._now, *values, PAGE),
            ).fetchall()
            yield from map(Row._make, rows)
            if len(rows) < PAGE:
                return
            below = rows[-1][3]
            if conditions and not clause:
                for condition in conditions:
                    text, own = _fitting("store_fields f", "f.ns_pk = ? AND ", (ns_pk,), condition, "f.seq")
                    clause += f" AND i.seq IN ({text})"
                    values += own

    def _sorted(self, spaces: Spaces, conditions: Sequence[Condition]) -> Iterator[Row]:
        """As `_stream`, of many namespaces: their newest places are found first, without the values."""
        clause = ""
        values: list[Any] = []
        for condition in conditions:
            text, own = _fitting("n CROSS JOIN store_fields f ON f.ns_pk = n.ns_pk", "", (), condition)
            clause += f" AND (i.ns_pk, i.seq) IN ({text})"
            values += own
        last = 1 << 62, 0
        while True:
            places = self._conn.execute(
                f"WITH n (ns_pk) AS ({spaces.clause}) SELECT i.ns_pk, i.seq "
                "FROM n CROSS JOIN store_items i ON i.ns_pk = n.ns_pk "
                f"WHERE (i.seq, i.ns_pk) < (?, ?){clause} ORDER BY i.seq DESC, i.ns_pk DESC LIMIT ?",
                (*spaces.values, *last, *values, PAGE),
            ).fetchall()
            yield from self._rows_of(places)
            if len(places) < PAGE:
                return
            last = places[-1][1], places[-1][0]

    def _nearest(
        self, spaces: Spaces, wanted: Mapping[str, Any], score: Score
    ) -> Iterator[tuple[Row, dict[str, Any] | None, float | None]]:
        """Items that have a vector and meet a filter, the nearest first; of equally near ones the newest."""
        matching = {row.item_pk for row, _ in self._matching(spaces, wanted)} if wanted else None
        places: dict[int, tuple[int, int]] = {}

        def pairs() -> Iterator[tuple[int, bytes]]:
            rows = self._conn.execute(
                f"WITH n (ns_pk) AS ({spaces.clause}) SELECT i.item_pk, i.seq, i.ns_pk, v.vector "
                "FROM n CROSS JOIN store_items i ON i.ns_pk = n.ns_pk "
                f"CROSS JOIN store_vectors v ON v.item_pk = i.item_pk WHERE {_LIVE}",
                (*spaces.values, self._now),
            )
            for item_pk, seq, ns_pk, vector in rows:
                if matching is None or item_pk in matching:
                    places[item_pk] = -seq, -ns_pk
                    yield item_pk, vector

        scores = score(pairs())
        for item_pk in sorted(scores, key=lambda found: (-scores[found], places[found])):
            plain = self._conn.execute(f"SELECT {_COLUMNS} FROM store_items i WHERE item_pk = ?", (item_pk,)).fetchone()
            yield Row._make(plain), None, scores[item_pk]

    # ---- namespaces

    def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        depth = None if op.max_depth is None else max(op.max_depth, 0)
        conditions = op.match_conditions or ()
        # A prefix without a `*` is a range; the other conditions are asked of each namespace.
        prefixes = [path for kind, path in conditions if kind == "prefix" and "*" not in path]
        where, values = _range(tuple(prefixes[0]) if prefixes else ())
        rows = self._conn.execute(
            f"SELECT path FROM (SELECT ns_pk, path FROM store_namespaces{where}) n WHERE EXISTS "
            f"(SELECT 1 FROM store_items i WHERE i.ns_pk = n.ns_pk AND {_LIVE}) ORDER BY path",
            (*values, self._now),
        )
        found = (labels_of(path) for (path,) in rows)
        cut = dict.fromkeys(labels[:depth] for labels in found if matches_conditions(labels, conditions))
        start = max(op.offset, 0)
        return list(islice(cut, start, None if op.limit < 0 else start + op.limit))


def _range(prefix: tuple[str, ...]) -> tuple[str, tuple[bytes, ...]]:
    """A condition on the paths of namespaces: those below a prefix."""
    if not prefix:
        return "", ()
    path = path_of(prefix)
    return " WHERE path >= ? AND path < ?", (path, after(path))


def _newest_first(row: Row) -> tuple[int, int]:
    return -row.seq, -row.ns_pk


def _fitting(
    source: str, where: str, arguments: tuple[Any, ...], condition: Condition, columns: str = "f.ns_pk, f.seq"
) -> tuple[str, list[Any]]:
    """A query for the places of items with field rows that fit a condition."""
    texts = [f"SELECT {columns} FROM {source} WHERE {where}f.field = '' AND f.kind = {WILD}"]
    values: list[Any] = [*arguments]
    for field in condition.fields:
        for span in condition.spans:
            text = f"SELECT {columns} FROM {source} WHERE {where}f.field = ? AND f.kind = ?"
            values += (*arguments, field, span.kind)
            if span.low is not None and span.low == span.high:
                text += " AND f.value = ?"
                values.append(span.low)
            else:
                if span.low is not None:
                    text += " AND f.value >= ?"
                    values.append(span.low)
                if span.high is not None:
                    text += " AND f.value <= ?"
                    values.append(span.high)
            texts.append(text)
    return " UNION ALL ".join(texts), values


def _date(us: int) -> datetime:
    # Not `fromtimestamp`, which goes through a float.
    seconds, rest = divmod(us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
