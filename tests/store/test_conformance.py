"""The stores of this package conform to their kit; stores that are wrong do not; the kit says what it was asked."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pregel.store.base import GetOp, ListNamespacesOp, Op, PutOp, Result, SearchOp
from pregel.store.memory import InMemoryStore
from pregel.store.sqlite import AsyncSqliteStore, SqliteStore
from pregel.testing.store import ConformanceSuite, run_conformance


class TestInMemoryStore(ConformanceSuite):
    level = "full"

    def make_store(self, *, index: Any = None, ttl: Any = None, clock: Any = time.time) -> InMemoryStore:
        return InMemoryStore(index=index, ttl=ttl, clock=clock)


class TestSqliteStore(ConformanceSuite):
    level = "durable"

    def make_store(self, place: Path, *, index: Any = None, ttl: Any = None, clock: Any = time.time) -> Any:
        return SqliteStore(place, index=index, ttl=ttl, clock=clock)

    def damage(self, place: Path) -> Mapping[str, Callable[[], object]]:
        return damages(place)


class Unsynced(AsyncSqliteStore):
    """No power is lost here."""

    def _made(self, path: Any) -> SqliteStore:
        store = super()._made(path)
        store.conn.execute("PRAGMA synchronous = OFF")
        return store


class TestAsyncSqliteStore(ConformanceSuite):
    level = "durable"

    def make_store(self, place: Path, *, index: Any = None, ttl: Any = None, clock: Any = time.time) -> Any:
        return Unsynced(place, index=index, ttl=ttl, clock=clock)

    def damage(self, place: Path) -> Mapping[str, Callable[[], object]]:
        return damages(place)


class TestConnection(ConformanceSuite):
    """A connection of the program, in the mode in which Python opens it."""

    level = "base"

    def make_store(self, place: Path, *, index: Any = None, ttl: Any = None, clock: Any = time.time) -> Any:
        conn = sqlite3.connect(place, check_same_thread=False)
        conn.execute("PRAGMA synchronous = OFF")
        return SqliteStore(conn, index=index, ttl=ttl, clock=clock)


def damages(place: Path) -> dict[str, Callable[[], object]]:
    """Ways to damage the one item at a place."""

    def change(sql: str) -> Callable[[], None]:
        def damage() -> None:
            conn = sqlite3.connect(place, isolation_level=None)
            conn.execute(sql)
            conn.close()

        return damage

    return {
        "a bit": change("UPDATE store_items SET value = CAST(replace(value, 'long', 'lone') AS BLOB)"),
        "cut": change("UPDATE store_items SET value = substr(value, 1, 20)"),
        "empty": change("UPDATE store_items SET value = x''"),
        "zeros": change("UPDATE store_items SET value = zeroblob(length(value))"),
    }


# ---- the kit finds what is wrong


def plain(store: type[InMemoryStore]) -> Callable[..., Any]:
    def make(*, index: Any = None, ttl: Any = None, clock: Any = time.time) -> Any:
        return store(index=index, ttl=ttl, clock=clock)

    return make


class Changed(InMemoryStore):
    """A store whose operations and results are changed on their way."""

    def op(self, op: Op) -> Op:
        return op

    def result(self, op: Op, result: Any) -> Any:
        return result

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        asked = [self.op(op) for op in ops]
        return [self.result(op, found) for op, found in zip(asked, super().batch(asked), strict=True)]

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        asked = [self.op(op) for op in ops]
        return [self.result(op, found) for op, found in zip(asked, await super().abatch(asked), strict=True)]


class NoDelete(Changed):
    def op(self, op: Op) -> Op:
        return GetOp(op.namespace, op.key) if isinstance(op, PutOp) and op.value is None else op

    def result(self, op: Op, result: Any) -> Any:
        return result


class Merges(Changed):
    def op(self, op: Op) -> Op:
        if isinstance(op, PutOp) and isinstance(op.value, dict):
            former = self._items.get(op.namespace, {}).get(op.key)
            return op._replace(value={**(former.value if former else {}), **op.value})
        return op


class Unbounded(Changed):
    def op(self, op: Op) -> Op:
        return op._replace(limit=-1) if isinstance(op, SearchOp) else op


class FiltersAfterPaging(Changed):
    def op(self, op: Op) -> Op:
        return op

    def result(self, op: Op, result: Any) -> Any:
        if isinstance(op, SearchOp) and op.filter:
            page = {item.key for item in super().batch([op._replace(filter=None)])[0]}  # type: ignore[union-attr,arg-type]
            return [item for item in result if item.key in page]
        return result


class IgnoresLargerThan(Changed):
    def op(self, op: Op) -> Op:
        if isinstance(op, SearchOp) and isinstance(op.filter, dict):
            kept = {field: want for field, want in op.filter.items() if not (isinstance(want, dict) and "$gt" in want)}
            return op._replace(filter=kept)
        return op


class BoolsAreNumbers(Changed):
    def op(self, op: Op) -> Op:
        if isinstance(op, SearchOp) and isinstance(op.filter, dict):
            wanted = {field: {"$in": [1, True]} if want in (1, True) else want for field, want in op.filter.items()}
            return op._replace(filter=wanted)
        return op


class FloatsOnly(Changed):
    def op(self, op: Op) -> Op:
        if isinstance(op, PutOp) and isinstance(op.value, dict):
            return op._replace(value={k: float(v) if type(v) is int else v for k, v in op.value.items()})
        return op


class ReadsBeforeWrites(Changed):
    def batch(self, ops: Iterable[Op]) -> list[Result]:
        return self.sorted_back([*ops])

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        return self.sorted_back([*ops])

    def sorted_back(self, ops: list[Op]) -> list[Result]:
        order = sorted(range(len(ops)), key=lambda n: isinstance(ops[n], PutOp))
        found = dict(zip(order, InMemoryStore.batch(self, [ops[n] for n in order]), strict=True))
        return [found[n] for n in range(len(ops))]


class OneByOne(Changed):
    def batch(self, ops: Iterable[Op]) -> list[Result]:
        return [InMemoryStore.batch(self, [op])[0] for op in ops]

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        return self.batch(ops)


class Shares(Changed):
    def result(self, op: Op, result: Any) -> Any:
        if isinstance(op, GetOp) and result is not None:
            result.value = self._items[op.namespace][op.key].value
        return result


class KeepsTheCallersObject(Changed):
    def result(self, op: Op, result: Any) -> Any:
        if isinstance(op, PutOp) and op.value is not None:
            self._items[tuple(op.namespace)][op.key].value = op.value  # type: ignore[assignment]
        return result


class ListsEmptyNamespaces(Changed):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen: set[tuple[str, ...]] = set()

    def op(self, op: Op) -> Op:
        if (
            isinstance(op, (GetOp, PutOp))
            and isinstance(op.namespace, tuple)
            and all(type(n) is str for n in op.namespace)
        ):
            self.seen.add(op.namespace)
        return op

    def result(self, op: Op, result: Any) -> Any:
        return sorted({*result, *self.seen}) if op == ListNamespacesOp(()) else result


class ForgetsBirth(Changed):
    def result(self, op: Op, result: Any) -> Any:
        if isinstance(op, GetOp) and result is not None:
            result.created_at = result.updated_at
        return result


class NeverExpires(Changed):
    def op(self, op: Op) -> Op:
        return op._replace(ttl=None) if isinstance(op, PutOp) and not isinstance(op.ttl, str) else op


class NeverRefreshes(Changed):
    def op(self, op: Op) -> Op:
        return op._replace(refresh_ttl=False) if isinstance(op, (GetOp, SearchOp)) else op


class AlwaysRefreshes(Changed):
    def op(self, op: Op) -> Op:
        return op._replace(refresh_ttl=True) if isinstance(op, (GetOp, SearchOp)) else op


class IgnoresVersions(Changed):
    def op(self, op: Op) -> Op:
        return op._replace(if_version=None) if isinstance(op, PutOp) else op


class VersionsStand(Changed):
    def result(self, op: Op, result: Any) -> Any:
        if isinstance(op, GetOp) and result is not None:
            result.version = 1
        return result


class PrefixOfText(Changed):
    def _below(self, prefix: Any, wanted: Any, now: float) -> Any:
        return (one for one in super()._below((), wanted, now) if ".".join(one.namespace).startswith(".".join(prefix)))


class CountsAfterCutting(Changed):
    def _namespaces(self, op: ListNamespacesOp, now: float) -> Any:
        found = super()._namespaces(op._replace(max_depth=None), now)
        return list(dict.fromkeys(space[: op.max_depth] for space in found))


class IgnoresIndexOfPuts(Changed):
    def op(self, op: Op) -> Op:
        index: Any = op.index if isinstance(op, PutOp) else None
        return op._replace(index=None) if index is False else op  # type: ignore[union-attr]


class FarthestFirst(Changed):
    def result(self, op: Op, result: Any) -> Any:
        return result[::-1] if isinstance(op, SearchOp) and op.query and self.embeddings else result


class TextsOnly(Changed):
    def op(self, op: Op) -> Op:
        if isinstance(op, PutOp) and isinstance(op.value, dict):
            return op._replace(value={k: list(v) if isinstance(v, tuple) else v for k, v in op.value.items()})
        return op


WRONG = [
    (NoDelete, "a_deleted_item_is_gone"),
    (Merges, "a_put_replaces"),
    (Unbounded, "searches_have_pages"),
    (FiltersAfterPaging, "pages_are_of_what_a_filter_finds"),
    (IgnoresLargerThan, "filters_compare"),
    (BoolsAreNumbers, "filters_are_exact"),
    (FloatsOnly, "filters_are_exact"),
    (ReadsBeforeWrites, "batches_are_carried_out_in_order"),
    (OneByOne, "a_batch_that_fails_has_changed_nothing"),
    (Shares, "values_are_private"),
    (KeepsTheCallersObject, "values_are_private"),
    (ListsEmptyNamespaces, "reading_makes_nothing_and_deleting_leaves_nothing"),
    (ForgetsBirth, "dates_tell_birth_and_change"),
    (NeverExpires, "items_expire"),
    (NeverRefreshes, "reading_starts_the_time_anew"),
    (AlwaysRefreshes, "reading_starts_the_time_anew"),
    (IgnoresVersions, "a_version_is_replaced_once"),
    (VersionsStand, "versions_count_puts"),
    (PrefixOfText, "a_search_covers_what_is_below"),
    (CountsAfterCutting, "namespaces_are_listed"),
    (IgnoresIndexOfPuts, "each_text_is_embedded_once"),
    (FarthestFirst, "queries_find_the_nearest_first"),
    (TextsOnly, "types_stay_what_they_were"),
]


@pytest.mark.parametrize(("store", "check"), WRONG, ids=[store.__name__ for store, _ in WRONG])
def test_a_store_that_is_wrong_is_found(store: type[InMemoryStore], check: str) -> None:
    report = run_conformance(plain(store), level="full", only=[check])
    assert not report.ok
    assert report.failed_checks == {check}
    assert not report.of("skipped")


def test_what_is_changed_by_nothing_conforms() -> None:
    report = run_conformance(plain(Changed), level="full", only={check for _, check in WRONG})
    report.raise_for_failures()


class Forgets(SqliteStore):
    """Acknowledges before it has stored."""

    def _carry_out(self, steps: Any) -> list[Result]:
        found = super()._carry_out(steps)
        if any(isinstance(step, tuple) and len(step) == 4 for step in steps):
            self.conn.execute("DELETE FROM store_items")
        return found


class Trusting(SqliteStore):
    """Does not look at check sums."""

    def _carry_out(self, steps: Any) -> list[Result]:
        self.setup()
        self.conn.create_function("crc", 1, lambda data: __import__("zlib").crc32(data))
        self.conn.execute("UPDATE store_items SET crc = crc(value)")
        return super()._carry_out(steps)


@pytest.mark.parametrize(
    ("store", "check"),
    [(Forgets, "items_outlive_their_store"), (Trusting, "damage_is_found_and_can_be_mended")],
)
def test_a_file_that_is_wrong_is_found(store: Any, check: str) -> None:
    def make(place: Path, *, clock: Any = time.time) -> Any:
        return store(place, clock=clock)

    assert run_conformance(make, level="durable", damage=damages, only=[check]).failed_checks == {check}


# ---- the kit as a function


def test_a_store_without_a_clock_or_an_index() -> None:
    """As a third party would run it: nothing but a class."""
    report = run_conformance(
        InMemoryStore, capabilities={"ttl", "versions"}, only=["items_expire", "what_is_put_is_found"]
    )
    report.raise_for_failures()
    report = run_conformance(lambda: InMemoryStore(), level="full", only=["the_best_field_counts"])
    assert [result.message for result in report.results] == ["the store has no index"] * 2
    assert not report.ok


class PlainOnly(InMemoryStore):
    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        raise NotImplementedError


class Neither(PlainOnly):
    def batch(self, ops: Iterable[Op]) -> list[Result]:
        raise NotImplementedError


def test_a_store_of_one_colour() -> None:
    report = run_conformance(PlainOnly, only=["a_put_replaces"])
    assert [(result.colour, result.outcome) for result in report.results] == [("sync", "passed")]
    assert run_conformance(Neither).failed_checks == {"store"}


def test_a_factory_that_fails_is_a_failure() -> None:
    def make() -> Any:
        raise OSError("no place")

    report = run_conformance(make)
    assert report.failed_checks == {"store"}
    assert "no place" in str(report)


@pytest.mark.parametrize(
    "wrong",
    [{"level": "best"}, {"capabilities": ["speed"]}, {"only": ["nothing"]}],
    ids=["level", "capability", "check"],
)
def test_what_does_not_exist_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"run_conformance|capabilities"):
        run_conformance(InMemoryStore, **wrong)
