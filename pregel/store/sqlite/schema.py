"""The tables of a store in a SQLite file, and what stands in their columns.

Decides how namespaces, keys and times are written, which fields of a value are found without decoding it, and how a file
of an earlier version is brought up to date. Knows no operation.

All tables begin with `store_`, and nothing about the file itself is changed, so a store may share one with a saver.

Invariants
1. A namespace's path sorts as its tuple of labels does, and a prefix of labels is a prefix of the bytes.
2. Field rows are a filter, never an answer: what a row says is true of the item, and an item that could meet a condition
   without having the row has the row `WILD` instead.
3. Field rows follow from the value alone, so those of a value that is replaced are known without looking for them.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

VERSION: Final = 1
_TABLES: Final = (
    "CREATE TABLE store_namespaces (ns_pk INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE)",
    """CREATE TABLE store_items (
    item_pk INTEGER PRIMARY KEY,
    ns_pk INTEGER NOT NULL REFERENCES store_namespaces,
    key NOT NULL,
    seq INTEGER NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    ttl REAL,
    expires_at REAL,
    value BLOB NOT NULL,
    UNIQUE (ns_pk, key))""",
    "CREATE UNIQUE INDEX store_items_seq ON store_items (ns_pk, seq)",
    "CREATE INDEX store_items_expiry ON store_items (expires_at) WHERE expires_at IS NOT NULL",
    """CREATE TABLE store_fields (
    ns_pk INTEGER NOT NULL,
    field TEXT NOT NULL,
    kind INTEGER NOT NULL,
    value,
    seq INTEGER NOT NULL,
    PRIMARY KEY (ns_pk, field, kind, value, seq)) WITHOUT ROWID""",
    """CREATE TABLE store_vectors (
    item_pk INTEGER NOT NULL REFERENCES store_items ON DELETE CASCADE,
    n INTEGER NOT NULL,
    vector BLOB NOT NULL,
    PRIMARY KEY (item_pk, n))""",
)

WILD: Final = 0
"""Kind of the one row, of the field "", of an item that any condition on fields might fit."""
NUMBER: Final = 1
TEXT: Final = 2
BOOL: Final = 3
READ_NUMBER: Final = 4
"""A number that a text reads as: it is compared with numbers, but equals none."""

MAX_TEXT: Final = 200
"""Characters of a text that has a row."""
MAX_FIELDS: Final = 64
MAX_DEPTH: Final = 4
"""Mappings within each other whose fields have rows."""
MAX_SPANS: Final = 100
"""Of a condition that is looked up; SQLite takes 500 parts of a query."""
SEPARATOR: Final = "\x00"
"""Between the keys of a path; a key that holds it makes the item wild."""


class FieldRow(NamedTuple):
    """That an item has a field of this value."""

    field: str
    kind: int
    value: Any


def set_up(conn: sqlite3.Connection) -> None:
    """Make the tables, if they are not there. Call it within a transaction.

    Raises:
        StoreOpenError: the tables are of a newer version.
    """
    if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'store_schema'").fetchone():
        conn.execute("CREATE TABLE store_schema (version INTEGER NOT NULL)")
        conn.execute("INSERT INTO store_schema VALUES (?)", (VERSION,))
        for statement in _TABLES:
            conn.execute(statement)
    (version,) = conn.execute("SELECT version FROM store_schema").fetchone()
    if version != VERSION:
        raise StoreOpenError(
            f"the store in this file is of version {version}, this library writes version {VERSION}; use the library that "
            f"made it, or a newer one than this"
        )


class StoreOpenError(Exception):
    """A file that cannot be opened as a store. Nothing in it was changed."""


# ---- columns


def path_of(labels: tuple[str, ...]) -> bytes:
    """Labels as bytes that sort and begin as the labels do."""
    return b"".join(label.encode("utf-8", "surrogatepass").replace(b"\0", b"\0\xff") + b"\0\1" for label in labels)


def labels_of(path: bytes) -> tuple[str, ...]:
    """The labels of a path."""
    parts = path.split(b"\0\1")[:-1]
    return tuple(part.replace(b"\0\xff", b"\0").decode("utf-8", "surrogatepass") for part in parts)


def after(path: bytes) -> bytes:
    """The first path that does not begin with this one, which is not empty."""
    return path[:-1] + bytes([path[-1] + 1])


def key_column(key: str) -> str | bytes:
    """A key as text, or as bytes if it is no text that SQLite takes."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return key.encode("utf-8", "surrogatepass")
    return key


def key_of(stored: str | bytes) -> str:
    """The key of a column."""
    return stored if isinstance(stored, str) else stored.decode("utf-8", "surrogatepass")


# ---- fields


def field_rows(value: Mapping[str, Any]) -> list[FieldRow]:
    """The rows of a value, each once."""
    rows: dict[FieldRow, None] = {}
    try:
        for row in _rows(value, "", 1):
            rows[row] = None
            if len(rows) > MAX_FIELDS:
                raise _WildError
    except _WildError:
        return [FieldRow("", WILD, 0)]
    return list(rows)


class _WildError(Exception):
    """A value of which the rows would not say all."""


def _rows(value: Mapping[str, Any], prefix: str, depth: int) -> Iterator[FieldRow]:
    for key, element in value.items():
        if type(key) is not str or SEPARATOR in key or not _is_text(key):
            raise _WildError
        field = prefix + key
        kind = type(element)
        if kind is dict:
            if depth == MAX_DEPTH:
                raise _WildError
            yield from _rows(element, field + SEPARATOR, depth + 1)
        elif kind is not list and element is not None:
            yield from _scalar_rows(field, element)


def _scalar_rows(field: str, value: Any) -> Iterator[FieldRow]:
    kind = type(value)
    if kind is bool:
        yield FieldRow(field, BOOL, int(value))
    elif kind is str:
        number = read_number(value)
        if number is not None:
            yield FieldRow(field, READ_NUMBER, _exact(number))
        if len(value) <= MAX_TEXT and _is_text(value):
            yield FieldRow(field, TEXT, value)
    elif kind is int or kind is float:
        if value == value:
            yield FieldRow(field, NUMBER, _exact(value))
    else:
        # Equality and order of other types are their own affair.
        raise _WildError


def _exact(number: float) -> float:
    """The number as SQLite has it. Raises `_WildError` if it would be another one."""
    if isinstance(number, int) and not -(2**63) <= number < 2**63:
        raise _WildError
    return number


def read_number(text: str) -> float | None:
    """The number that a text reads as; None if it reads as none, or as one that is not ordered."""
    for read in (int, float):
        try:
            number = read(text)
        except ValueError:
            continue
        return None if isinstance(number, float) and math.isnan(number) else number
    return None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# ---- conditions


class Condition(NamedTuple):
    """Which field rows may fit one condition of a filter: rows of any of these fields and spans."""

    fields: tuple[str, ...]
    spans: tuple[Span, ...]


class Span(NamedTuple):
    """Rows of one kind whose value is within bounds; equal bounds are one value, None is no bound."""

    kind: int
    low: Any
    high: Any


def condition_of(field: Any, want: Any) -> list[Condition]:
    """Conditions on field rows that every item meets which meets a filter's condition; none if rows tell nothing."""
    found = _conditions_of(field, want)
    return [one for one in found if len(one.fields) * len(one.spans) <= MAX_SPANS]


def _conditions_of(field: Any, want: Any) -> list[Condition]:
    if type(field) is not str or SEPARATOR in field or not _is_text(field):
        return []
    if isinstance(want, Mapping):
        if any(isinstance(name, str) and name.startswith("$") for name in want):
            return [
                Condition(_names(field), spans)
                for name, operand in want.items()
                if (spans := _spans(name, operand)) is not None
            ]
        if "." in field:
            return []
        found: list[Condition] = []
        for inner, inner_want in want.items():
            for fields, spans in _conditions_of(inner, inner_want):
                found.append(Condition(tuple(field + SEPARATOR + name for name in fields), spans))
        return found
    spans = _spans("$eq", want)
    return [] if spans is None else [Condition(_names(field), spans)]


def _names(field: str) -> tuple[str, ...]:
    # The literal key, or else the dotted path: with nested mappings, where one part may hold dots itself.
    if "." not in field:
        return (field,)
    return field, field.replace(".", SEPARATOR)


def _spans(name: str, want: Any) -> tuple[Span, ...] | None:
    """None if rows tell nothing of the condition."""
    if name == "$eq":
        return _equal(want)
    if name == "$in":
        found: list[Span] = []
        for each in want:
            spans = _equal(each)
            if spans is None:
                return None
            found += spans
        return tuple(found)
    kind = type(want)
    if (kind is int or kind is float) and want == want and name in ("$gt", "$gte", "$lt", "$lte"):
        try:
            number = _exact(want)
        except _WildError:
            return None
        low, high = (number, None) if name in ("$gt", "$gte") else (None, number)
        return Span(NUMBER, low, high), Span(READ_NUMBER, low, high)
    return None


def _equal(want: Any) -> tuple[Span, ...] | None:
    kind = type(want)
    if kind is bool:
        return (Span(BOOL, int(want), int(want)),)
    if kind is str and len(want) <= MAX_TEXT and _is_text(want):
        return (Span(TEXT, want, want),)
    if kind is int or kind is float:
        if want != want:
            return ()
        try:
            return (Span(NUMBER, _exact(want), want),)
        except _WildError:
            return None
    return None
