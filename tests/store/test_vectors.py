"""Search by meaning, in both stores: measures, fields, ties, wrong vectors; and in a file what is stored of it."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pregel.store.base import PutOp
from pregel.store.memory import InMemoryStore
from pregel.store.sqlite import AsyncSqliteStore, SqliteStore
from pregel.store.sqlite import vectors as vectors_module

NS = ("a",)
TABLE = {"x": [1.0, 0.0], "2x": [2.0, 0.0], "y": [0.0, 3.0], "xy": [1.0, 1.0], "-x": [-1.0, 0.0], "0": [0.0, 0.0]}
STORES: dict[str, Callable[..., Any]] = {
    "memory": lambda path, **index: InMemoryStore(index=index),  # type: ignore[arg-type]
    "sqlite": lambda path, **index: SqliteStore(path / "s", index=index),  # type: ignore[arg-type]
}
stores = pytest.mark.parametrize("make", STORES.values(), ids=STORES)


def looked_up(texts: Any) -> list[list[float]]:
    return [TABLE[text] for text in texts]


# measure | score of each text for the query "2x"
MEASURES = [
    ("cosine", {"x": 1, "2x": 1, "y": 0, "xy": 0.5**0.5, "-x": -1, "0": 0}),
    ("inner_product", {"x": 2, "2x": 4, "y": 0, "xy": 2, "-x": -2, "0": 0}),
    ("l2", {"x": -1, "2x": 0, "y": -math.sqrt(13), "xy": -math.sqrt(2), "-x": -3, "0": -2}),
]


@stores
@pytest.mark.parametrize(("measure", "scores"), MEASURES, ids=[row[0] for row in MEASURES])
def test_measures(make: Any, tmp_path: Path, measure: str, scores: dict[str, float]) -> None:
    store = make(tmp_path, embed=looked_up, fields=["t"], distance_type=measure)
    for text in TABLE:
        store.put(NS, text, {"t": text})
    found = store.search(NS, query="2x", limit=-1)
    assert {item.key: item.score for item in found} == pytest.approx(scores)
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    if isinstance(store, SqliteStore):
        store.close()


def test_a_file_may_be_asked_by_another_measure(tmp_path: Path) -> None:
    """What is stored are the vectors that the embedding gave."""
    with STORES["sqlite"](tmp_path, embed=looked_up, fields=["t"]) as store:
        for text in TABLE:
            store.put(NS, text, {"t": text})
    with STORES["sqlite"](tmp_path, embed=looked_up, distance_type="l2") as store:
        assert [item.key for item in store.search(NS, query="2x", limit=3)] == ["2x", "x", "xy"]


@stores
def test_what_is_equally_near_is_in_the_order_of_other_searches(make: Any, tmp_path: Path) -> None:
    store = make(tmp_path, embed=lambda texts: [[0.1, 0.7, 1 / 3]] * len(texts), fields=["t"])
    for n in range(50):
        store.put((*NS, str(n % 7)), f"{n}", {"t": "same"})
    assert [item.key for item in store.search((), query="q", limit=-1)] == [
        item.key for item in store.search((), limit=-1)
    ]
    assert [item.score for item in store.search(NS, query="q", limit=-1)] == pytest.approx([1.0] * 50)
    if isinstance(store, SqliteStore):
        store.close()


@stores
@pytest.mark.parametrize(
    "wrong",
    [
        [[1.0, 2.0, 3.0]],
        [[float("nan"), 1.0]],
        [[float("inf"), 1.0]],
        [],
        [[1.0, 2.0]] * 2,
        [["a", "b"]],
    ],
    ids=["length", "nan", "inf", "none", "too many", "texts"],
)
def test_vectors_that_are_none_change_nothing(make: Any, tmp_path: Path, wrong: Any) -> None:
    gives: list[Any] = [[[1.0, 2.0]]]
    store = make(tmp_path, embed=lambda texts: gives[0], fields=["t"])
    store.put(NS, "k", {"t": "a"})
    gives[0] = wrong
    with pytest.raises(ValueError):
        store.batch([PutOp(NS, "plain", {"n": 1}, False), PutOp(NS, "k", {"t": "b"})])
    with pytest.raises(ValueError):
        store.search(NS, query="q")
    assert [(item.key, item.value) for item in store.search(NS)] == [("k", {"t": "a"})]
    if isinstance(store, SqliteStore):
        store.close()


@stores
@pytest.mark.parametrize("index", [{"distance_type": "hamming"}, {"embed": None}], ids=["measure", "embed"])
def test_an_index_that_means_nothing_is_refused(make: Any, tmp_path: Path, index: Any) -> None:
    with pytest.raises(ValueError, match="index got"):
        make(tmp_path, **{"embed": looked_up, **index})


def test_many_are_compared_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_module, "CHUNK", 7)  # numbers: three vectors
    with STORES["sqlite"](tmp_path, embed=lambda texts: [[len(text), 1.0] for text in texts], fields=["t"]) as store:
        store.batch([PutOp(NS, f"{n}", {"t": "x" * n}) for n in range(20)])
        found = store.search(NS, query="", limit=-1)
        assert len(found) == 20
        best = store.search(NS, query="x" * 9, limit=3)
        assert {item.key for item in best} == {"8", "9", "10"}


def test_an_async_function_embeds_on_the_loop_and_each_text_once(tmp_path: Path) -> None:
    asked: list[str] = []

    async def embed(texts: Any) -> list[list[float]]:
        await asyncio.sleep(0)
        asked.extend(texts)
        return [[float(len(text)), 1.0] for text in texts]

    async def main() -> None:
        index: Any = {"embed": embed, "fields": ["t"]}
        async with AsyncSqliteStore(tmp_path / "s", index=index) as store:
            await asyncio.gather(*(store.aput(NS, f"{n}", {"t": f"text {n % 3}"}) for n in range(30)))
            assert sorted(asked) == ["text 0", "text 1", "text 2"]
            found = await asyncio.gather(*(store.asearch(NS, query="text") for _ in range(10)))
            assert asked[3:] == ["text"]
            assert all(page == found[0] for page in found)
            with pytest.raises(ValueError, match="async"):
                await asyncio.to_thread(store.put, NS, "k", {"t": "plain"})

    asyncio.run(main())


@stores
def test_what_cannot_be_stored_is_not_embedded(make: Any, tmp_path: Path) -> None:
    asked: list[str] = []

    def embed(texts: Any) -> list[list[float]]:
        asked.extend(texts)
        return [[1.0] for _ in texts]

    store = make(tmp_path, embed=embed, fields=["t"])
    with pytest.raises(TypeError, match="'k'"):
        store.batch([PutOp(NS, "a", {"t": "fine"}), PutOp(NS, "k", {"t": "x", "lock": threading.Lock()})])
    assert asked == []
    if isinstance(store, SqliteStore):
        store.close()
