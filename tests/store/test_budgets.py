"""What a store in a file may do for an operation, counted in ways that no machine changes: statements, decoded values."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from checkpoint.serde.msgpack import Serde
from pregel.store.base import PutOp
from pregel.store.sqlite import AsyncSqliteStore, SqliteStore
from pregel.store.sqlite.core import FEW, PAGE

N = 6_000
VALUE = {"text": "x" * 900, "kind": "note", "n": 3, "tags": ["a", "b"]}
SPACE = ("items",)


class Counting(Serde):
    """Counts what is decoded and encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.n_loads = self.n_dumps = 0

    def loads(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        self.n_loads += 1
        return super().loads(data, *args, **kwargs)

    def dumps(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        self.n_dumps += 1
        return super().dumps(value, *args, **kwargs)


@contextmanager
def counted(store: SqliteStore) -> Iterator[Counter[str]]:
    """Statements by their first word, and what was decoded."""
    found: Counter[str] = Counter()
    before = store.serde.n_loads  # type: ignore[attr-defined]
    store.conn.set_trace_callback(lambda statement: found.update([statement.split()[0]]))
    yield found
    store.conn.set_trace_callback(None)
    found["decoded"] = store.serde.n_loads - before  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """Many items in one namespace, and as many in many."""
    with SqliteStore(tmp_path_factory.mktemp("large") / "s", serde=Counting()) as store:
        for space in (lambda n: SPACE, lambda n: ("many", str(n % 600))):
            store.batch([PutOp(space(n), f"k{n}", {"n": n, "kind": f"k{n % 300}"}) for n in range(N)])
        yield store


def test_single_operations(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "s", serde=Counting()) as store:
        store.put(SPACE, "k", VALUE)
        with counted(store) as new:
            store.put(SPACE, "new", VALUE)
        with counted(store) as again:
            store.put(SPACE, "new", VALUE)
        with counted(store) as got:
            store.get(SPACE, "new")
        with counted(store) as deleted:
            store.delete(SPACE, "new")
    # one look at what is there, the item, its two field rows, one look for what has expired
    assert new == {"BEGIN": 1, "SELECT": 2, "INSERT": 3, "COMMIT": 1, "decoded": 1}
    assert again == {"BEGIN": 1, "SELECT": 2, "UPDATE": 1, "INSERT": 2, "DELETE": 3, "COMMIT": 1, "decoded": 2}
    assert got == {"SELECT": 1, "decoded": 1}
    assert deleted["COMMIT"] == 1


def test_a_batch_is_one_transaction_with_two_statements_per_item(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "s", serde=Counting()) as store:
        store.setup()
        with counted(store) as found:
            store.batch([PutOp(SPACE, f"k{n}", {"l": [n]}) for n in range(100)])
        assert found == {"BEGIN": 1, "SELECT": 101, "INSERT": 101, "COMMIT": 1, "decoded": 100}


def test_async_calls_of_one_moment_are_one_transaction(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncSqliteStore(tmp_path / "s", serde=Counting()) as store:
            await store.setup()
            assert store._store is not None
            with counted(store._store) as puts:
                await asyncio.gather(*(store.aput(SPACE, f"k{n}", VALUE) for n in range(50)))
            with counted(store._store) as gets:
                await asyncio.gather(*(store.aget(SPACE, f"k{n % 10}") for n in range(50)))
        assert (puts["BEGIN"], puts["COMMIT"]) == (1, 1)
        assert gets == {"BEGIN": 1, "SELECT": 10, "COMMIT": 1, "decoded": 10}

    asyncio.run(main())


# filter | items of the ten that are asked for | most values decoded
SEARCHES: list[tuple[dict[str, Any], int, int]] = [
    ({"kind": "k7"}, 10, 10),  # 20 items
    ({"n": {"$gte": N - 20}}, 10, 10),
    ({"n": 55}, 1, 1),
    ({"kind": "k7", "n": {"$lt": 90}}, 1, 1),  # of 20 items and of 90
    ({"kind": "k7", "n": {"$lt": 1500}}, 5, 20),  # of 20 items and of 1,500
    ({"kind": {"$in": ["k1", "k2"]}, "n": {"$gte": 0}}, 10, 10),
    ({"n": {"$gte": 10}}, 10, 10),  # nearly all
    ({"n": {"$lt": N // 2}}, 10, PAGE + 11),  # none of the newest; rows do not tell < from <=
    ({"kind": "nothing"}, 0, 0),
    ({"kind": "k7", "other": {"$exists": False}}, 10, 10),
]


@pytest.mark.parametrize(("wanted", "n_found", "most"), SEARCHES, ids=[str(row[0]) for row in SEARCHES])
@pytest.mark.parametrize("space", [SPACE, ("many",)], ids=["one namespace", "many"])
def test_a_filter_decodes_what_it_finds(
    large: SqliteStore, space: tuple[str, ...], wanted: dict[str, Any], n_found: int, most: int
) -> None:
    with counted(large) as found:
        assert len(large.search(space, filter=wanted, limit=10)) == n_found
    assert found["decoded"] <= most
    # the namespaces, one per condition, then pages; and a name for each item
    assert found["SELECT"] + found["WITH"] <= 4 + (most > PAGE) + (10 + 10 if space != SPACE else 0)


def test_conditions_that_exclude_each_other_decode_a_page(large: SqliteStore) -> None:
    with counted(large) as found:
        assert large.search(SPACE, filter={"n": {"$lt": N // 2, "$gte": N // 2}}) == []
    assert found["decoded"] <= max(PAGE, FEW)


def test_a_page_without_a_filter_reads_a_page(large: SqliteStore) -> None:
    for space in (SPACE, ("many",)):
        with counted(large) as found:
            assert len(large.search(space, limit=10)) == 10
        assert found["decoded"] == 10
        assert found["SELECT"] + found["WITH"] <= 14
