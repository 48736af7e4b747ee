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
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pregel.errors import shown

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
    crc INTEGER NOT NULL,
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


FieldRow = tuple[str, int, Any]
"""That an item has a field of this kind and value."""


def is_set_up(conn: sqlite3.Connection) -> bool:
    """Are the tables there? Reads only.

    Raises:
        StoreOpenError: they are of a newer version, or somebody else's.
    """
    found = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE name LIKE 'store%'")}
    if "store_schema" not in found:
        foreign = sorted(found & {statement.split()[2] for statement in _TABLES})
        if foreign:
            raise StoreOpenError(
                f"this file has a table {foreign[0]} of another program (LangGraph's store has one of this name), which "
                f"cannot be read and is left as it is; give the store a file of its own"
            )
        return False
    row = conn.execute("SELECT version FROM store_schema").fetchone()
    version = None if row is None else row[0]
    if version != VERSION:
        raise StoreOpenError(
            f"the store in this file is of version {version}, this library writes version {VERSION}; use the library that "
            f"made it, or a newer one than this"
        )
    return True


def make(conn: sqlite3.Connection) -> None:
    """Make the tables, if they are not there. Call it within a transaction. Raises as `is_set_up`."""
    if not is_set_up(conn):
        conn.execute("CREATE TABLE store_schema (version INTEGER NOT NULL)")
        conn.execute("INSERT INTO store_schema VALUES (?)", (VERSION,))
        for statement in _TABLES:
            conn.execute(statement)


class StoreOpenError(Exception):
    """A file that cannot be opened as a store. Nothing in it was changed."""


class StoreClosedError(RuntimeError):
    """A store was used after `close()`. Nothing was carried out."""


def closed(store: object) -> StoreClosedError:
    """The error for a store that is used after it was closed."""
    return StoreClosedError(
        f"{type(store).__name__} was closed and cannot be used any more; open another one, or call inside its `with` block"
    )


class CorruptItemError(Exception):
    """What is stored under a key is damaged. Putting something under the key, or deleting it, mends that."""

    def __init__(self, namespace: tuple[str, ...], key: str) -> None:
        self.namespace, self.key = namespace, key
        super().__init__(
            f"the value of key {shown(key)} in {shown(namespace)} is damaged in the file; put the item again or delete it, "
            f"and check the disk"
        )

    def __reduce__(self) -> Any:
        return type(self), (self.namespace, self.key)


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
    rows: list[FieldRow] = []
    try:
        _add_rows(rows, value, "", 1)
    except _WildError:
        return [("", WILD, 0)]
    return rows


class _WildError(Exception):
    """A value of which the rows would not say all."""


def _add_rows(rows: list[FieldRow], value: Mapping[str, Any], prefix: str, depth: int) -> None:
    for key, element in value.items():
        if type(key) is not str or SEPARATOR in key or not _is_text(key):
            raise _WildError
        field = prefix + key
        kind = type(element)
        if kind is str:
            number = read_number(element)
            if number is not None:
                rows.append((field, READ_NUMBER, _exact(number)))
            if len(element) <= MAX_TEXT and _is_text(element):
                rows.append((field, TEXT, element))
        elif kind is int or kind is float:
            if element == element:
                rows.append((field, NUMBER, _exact(element)))
        elif kind is bool:
            rows.append((field, BOOL, int(element)))
        elif kind is dict:
            if depth == MAX_DEPTH:
                raise _WildError
            _add_rows(rows, element, field + SEPARATOR, depth + 1)
        elif kind is not list and element is not None:
            # Equality and order of other types are their own affair.
            raise _WildError
        if len(rows) > MAX_FIELDS:
            raise _WildError


def _exact(number: float) -> float:
    """The number as SQLite has it. Raises `_WildError` if it would be another one."""
    if isinstance(number, int) and not -(2**63) <= number < 2**63:
        raise _WildError
    return number


def read_number(text: str) -> float | None:
    """The number that a text reads as; None if it reads as none, or as one that is not ordered."""
    # Most texts are words: finding that out by failing costs 20 times as much.
    if text[:1].isalpha() and text[0] not in "iInN":  # infinity, nan
        return None
    for read in (int, float):
        try:
            number = read(text)
        except ValueError:
            continue
        return None if isinstance(number, float) and math.isnan(number) else number
    return None


def _is_text(text: str) -> bool:
    if text.isascii():
        return True
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
