"""`InMemoryStore`: what is kept, found, ordered, expired; in both colours."""

import asyncio
import math
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest

from pregel.store.base import (
    GetOp,
    IndexConfig,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchItem,
    SearchOp,
    TTLConfig,
)
from pregel.store.memory import InMemoryStore
from tests.support.scenarios import Colour

START = 1_700_000_000.0
Keys = list[str]


class Clock:
    """Stands still until it is told to go on. Seconds."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now

    def date(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)


class Calls:
    """The methods of a store under one name in both colours."""

    def __init__(self, colour: Colour, **kwargs: Any) -> None:
        self.clock = Clock()
        self.store = InMemoryStore(clock=self.clock, **kwargs)
        self._colour = colour

    def __getattr__(self, method: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._colour.is_async:
                return asyncio.run(getattr(self.store, f"a{method}")(*args, **kwargs))
            return getattr(self.store, method)(*args, **kwargs)

        return call

    def keys(self, *args: Any, **kwargs: Any) -> Keys:
        """Keys of what a search finds."""
        return [found.key for found in self.search(*args, **kwargs)]

    def scores(self, query: str, **kwargs: Any) -> list[tuple[str, float | None]]:
        """Keys and rounded scores of what a search finds in everything."""
        found = self.search((), query=query, **kwargs)
        return [(one.key, None if one.score is None else round(one.score, 3)) for one in found]


@pytest.fixture
def calls(colour: Colour) -> Calls:
    return Calls(colour)


# ---- put, get, delete


def test_put_get_delete(calls: Calls) -> None:
    assert calls.get(("a",), "k") is None
    assert calls.put(("a", "b"), "k", {"x": 1}) is None
    born = calls.clock.date()
    expected = Item(value={"x": 1}, key="k", namespace=("a", "b"), created_at=born, updated_at=born)
    assert calls.get(("a", "b"), "k") == expected
    assert calls.get(("a",), "k") is None
    assert calls.get(("a", "b"), "other") is None
    assert calls.delete(("a", "b"), "k") is None
    assert calls.get(("a", "b"), "k") is None
    calls.delete(("a", "b"), "k")


def test_an_update_keeps_the_birth(calls: Calls) -> None:
    calls.put(("a",), "k", {"x": 1})
    born = calls.clock.date()
    calls.clock.now += 60
    calls.put(("a",), "k", {"y": 2})
    found = calls.get(("a",), "k")
    assert (found.value, found.created_at, found.updated_at) == ({"y": 2}, born, born + timedelta(minutes=1))
    calls.delete(("a",), "k")
    calls.put(("a",), "k", {})
    assert calls.get(("a",), "k").created_at == born + timedelta(minutes=1)


def test_keys_are_text_and_namespaces_may_be_lists(calls: Calls) -> None:
    calls.put(["a", "b"], 7, {"x": 1})
    for namespace in (("a", "b"), ["a", "b"]):
        for key in (7, "7"):
            assert calls.get(namespace, key).key == "7"
            assert calls.batch([GetOp(namespace, key)])[0].namespace == ("a", "b")
    assert calls.keys(["a"]) == ["7"]
    assert calls.list_namespaces(prefix=["a"], suffix=["b"]) == [("a", "b")]
    calls.delete(["a", "b"], 7)
    assert calls.keys(()) == []


def test_any_mapping_is_stored_as_a_dict(calls: Calls) -> None:
    calls.put(("a",), "k", MappingProxyType({"x": 1}))
    assert type(calls.get(("a",), "k").value) is dict


def test_what_cannot_be_kept_is_refused_whole(calls: Calls) -> None:
    for value, words in ((5, "5"), ([1], "list"), ({"lock": threading.Lock()}, "'k'")):
        with pytest.raises(TypeError, match=words):
            calls.batch([PutOp(("a",), "first", {}), PutOp(("a",), "k", value)])
    for op in (GetOp(("a.b",), "k"), SearchOp((), {"x": {"$near": 1}}), "get"):
        with pytest.raises(ValueError):
            calls.batch([PutOp(("a",), "first", {}), op])
    assert calls.keys(()) == []


def test_reserved_and_empty_namespaces_in_batches(calls: Calls) -> None:
    with pytest.raises(InvalidNamespaceError):
        calls.put(("langgraph",), "k", {})
    calls.batch([PutOp(("langgraph",), "k", {}), PutOp((), "k", {})])
    assert calls.get(("langgraph",), "k").namespace == ("langgraph",)
    assert calls.get((), "k").namespace == ()
    assert calls.list_namespaces() == [(), ("langgraph",)]


class Note:
    def __init__(self) -> None:
        self.words = ["a"]


def test_values_are_private_copies(calls: Calls) -> None:
    note = Note()
    value = {"l": [{"x": 1}], "t": ([1],), "s": {1}, "o": note, "b": b"x", "f": 1.5, "n": None}
    calls.put(("a",), "k", value)
    value["l"][0]["x"] = 2  # type: ignore[index]
    note.words.append("b")
    value["new"] = 1
    for read in (lambda: calls.get(("a",), "k"), lambda: calls.search(("a",))[0]):
        found = read().value
        assert {**found, "o": found["o"].words} == {
            "l": [{"x": 1}],
            "t": ([1],),
            "s": {1},
            "o": ["a"],
            "b": b"x",
            "f": 1.5,
            "n": None,
        }
        found["l"].append(2)
        found["t"][0].append(2)
        found["o"].words.append("c")
        found.clear()
    assert calls.get(("a",), "k").value["l"] == [{"x": 1}]


# ---- batches


def test_a_batch_is_carried_out_in_order(calls: Calls) -> None:
    ops: list[Op] = [
        GetOp(("a",), "k"),
        PutOp(("a",), "k", {"x": 1}),
        GetOp(("a",), "k"),
        SearchOp(("a",)),
        PutOp(("a",), "k", {"x": 2}),
        ListNamespacesOp(),
        GetOp(("a",), "k"),
        PutOp(("a",), "k", None),
        GetOp(("a",), "k"),
        ListNamespacesOp(),
    ]
    results = calls.batch(op for op in ops)
    assert [getattr(result, "value", None) for result in results] == [
        None,
        None,
        {"x": 1},
        *[None] * 3,
        {"x": 2},
        *[None] * 3,
    ]
    assert [found.value for found in results[3]] == [{"x": 1}]
    assert (results[1], results[4], results[7]) == (None, None, None)
    assert (results[5], results[9]) == ([("a",)], [])
    assert calls.batch([]) == []


# ---- search and list


def fill(calls: Calls) -> None:
    calls.put(("a",), "1", {"n": 1, "m": {"t": "x", "u": 1}})
    calls.put(("b",), "2", {"n": 2})
    calls.put(("a", "c"), "3", {"n": 3, "m": {"t": "x"}})
    calls.put(("ab",), "4", {"n": 4})
    calls.put(("a",), "5", {"n": 5})
    calls.put(("a",), "1", {"n": 1, "m": {"t": "x", "u": 1}})


def test_search_finds_what_is_below_in_order_of_coming(calls: Calls) -> None:
    fill(calls)
    assert calls.keys(()) == ["1", "5", "2", "3", "4"]
    assert calls.keys(("a",)) == ["1", "5", "3"]
    assert calls.keys(("a", "c")) == ["3"]
    assert calls.keys(("A",)) == calls.keys(("a*",)) == calls.keys(("*",)) == calls.keys(("a", "c", "d")) == []
    found = calls.search(("b",))
    assert [type(one) for one in found] == [SearchItem]
    assert (found[0].namespace, found[0].score, found[0].created_at) == (("b",), None, calls.clock.date())


def test_filters_take_part(calls: Calls) -> None:
    fill(calls)
    assert calls.keys((), filter={"n": {"$gte": 2, "$nin": [4]}}) == ["5", "2", "3"]
    assert calls.keys(("a",), filter={"m": {"t": "x"}}) == ["1", "3"]
    assert calls.keys((), filter={"m.u": 1}) == ["1"]
    assert calls.keys((), filter={"m": None}, limit=2, offset=1) == ["2", "4"]
    assert calls.keys((), filter={"nothing": {"$gt": 1}}) == []
    assert calls.keys((), filter={}) == calls.keys(())


PAGES = [(2, 0, "15"), (2, 1, "52"), (0, 0, ""), (-1, 0, "15234"), (-1, 3, "34"), (5, 10, ""), (2, -3, "15")]


@pytest.mark.parametrize(("limit", "offset", "keys"), PAGES)
def test_pages(calls: Calls, limit: int, offset: int, keys: str) -> None:
    fill(calls)
    assert "".join(calls.keys((), limit=limit, offset=offset)) == keys
    for namespace in "acde":
        calls.put((namespace, "z"), "k", {})
    every = [("a",), ("a", "c"), ("a", "z"), ("ab",), ("b",), ("c", "z"), ("d", "z"), ("e", "z")]
    start = max(offset, 0)
    assert calls.list_namespaces(limit=limit, offset=offset) == every[start : None if limit < 0 else start + limit]


def test_ten_items_unless_told_otherwise(calls: Calls) -> None:
    calls.batch([PutOp(("a", str(n)), str(n), {}) for n in range(120)])
    assert len(calls.keys(())) == 10
    assert len(calls.list_namespaces()) == 100


def test_namespaces_are_sorted_cut_and_matched(calls: Calls) -> None:
    for namespace in [("b", "x", "v1"), ("a", "x", "v2"), ("a", "y", "v1"), ("a", "x", "v1"), ("a", "x\n*")]:
        calls.put(namespace, "k", {})
    assert calls.list_namespaces(max_depth=2) == [("a", "x"), ("a", "x\n*"), ("a", "y"), ("b", "x")]
    assert calls.list_namespaces(max_depth=2, limit=2, offset=1) == [("a", "x\n*"), ("a", "y")]
    assert calls.list_namespaces(max_depth=0) == calls.list_namespaces(max_depth=-1) == [()]
    assert calls.list_namespaces(prefix=("*", "x"), suffix=("v1",)) == [("a", "x", "v1"), ("b", "x", "v1")]
    assert calls.list_namespaces(suffix=("x\n*",)) == [("a", "x\n*")]
    with pytest.raises(ValueError):
        calls.batch([ListNamespacesOp((MatchCondition("infix", ("a",)),))])  # type: ignore[arg-type]


def test_reading_makes_nothing_and_deleting_leaves_nothing(calls: Calls) -> None:
    calls.get(("a",), "k")
    calls.search(("b",))
    calls.delete(("c",), "k")
    calls.put(("d",), "k", {})
    calls.delete(("d",), "k")
    assert calls.list_namespaces() == []
    assert calls.store._items == {}


# ---- time to live


def test_an_expired_item_is_not_there(calls: Calls) -> None:
    calls.put(("a",), "k", {}, ttl=1.5)
    calls.put(("a",), "always", {})
    calls.clock.now += 89
    assert calls.get(("a",), "k", refresh_ttl=False) is not None
    calls.clock.now += 1
    assert calls.get(("a",), "k") is None
    assert calls.keys(("a",)) == ["always"]
    calls.put(("b",), "k", {}, ttl=0)
    assert calls.list_namespaces() == [("a",)]
    assert calls.store.sweep_ttl() == 2
    assert calls.store.sweep_ttl() == 0


def test_reads_refresh_what_they_return(calls: Calls) -> None:
    for key in ("get", "search", "other", "unasked"):
        calls.put(("a", key), key, {}, ttl=1)
    calls.clock.now += 50
    calls.get(("a", "get"), "get")
    calls.search(("a",), limit=1, offset=1)
    calls.search(("a",), refresh_ttl=False)
    calls.get(("a", "unasked"), "unasked", refresh_ttl=False)
    calls.clock.now += 50
    assert calls.keys(()) == ["get", "search"]


def test_a_new_put_has_its_own_time_to_live(calls: Calls) -> None:
    calls.put(("a",), "k", {"old": 1}, ttl=1)
    calls.put(("a",), "k", {})
    calls.put(("a",), "deleted", {}, ttl=1)
    calls.delete(("a",), "deleted")
    calls.clock.now += 90
    assert calls.get(("a",), "k").value == {}
    assert calls.store.sweep_ttl() == 0


def test_a_put_over_an_expired_item_is_a_birth(calls: Calls) -> None:
    calls.put(("a",), "k", {}, ttl=1)
    calls.put(("a",), "other", {})
    calls.clock.now += 90
    calls.put(("a",), "k", {})
    assert calls.get(("a",), "k").created_at == calls.clock.date()
    assert calls.keys(("a",)) == ["other", "k"]


def test_the_config_gives_defaults(colour: Colour) -> None:
    config: TTLConfig = {"default_ttl": 1, "refresh_on_read": False}
    calls = Calls(colour, ttl=config)
    assert calls.store.ttl_config is config
    assert calls.store.supports_ttl
    calls.put(("a",), "default", {})
    calls.put(("a",), "never", {}, ttl=None)
    calls.put(("a",), "longer", {}, ttl=3)
    calls.clock.now += 50
    calls.get(("a",), "default")
    calls.search(("a",))
    calls.clock.now += 50
    assert calls.keys(("a",)) == ["never", "longer"]


def test_puts_free_what_expired(calls: Calls) -> None:
    calls.batch([PutOp(("a",), str(n), {}, ttl=1) for n in range(100)])
    calls.clock.now += 90
    calls.batch([PutOp(("b",), str(n), {}, ttl=1) for n in range(100)])
    assert [len(items) for items in calls.store._items.values()] == [100]


# ---- search by meaning


class Letters:
    """Counts a to d. Remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Iterable[str]) -> list[list[float]]:
        self.asked.append(list(texts))
        return [[float(text.count(letter)) for letter in "abcd"] for text in self.asked[-1]]


def indexed(colour: Colour, **index: Any) -> tuple[Calls, Letters]:
    letters = Letters()
    config: Any = {"dims": 4, "embed": letters, "fields": ["x", "y"]} | index
    return Calls(colour, index=config), letters


def test_nearest_first_and_then_what_has_no_vector(colour: Colour) -> None:
    calls, _ = indexed(colour)
    calls.put(("n",), "none", {"z": "b"})
    calls.put(("n",), "both", {"x": "aaa", "y": "b"})
    calls.put(("n",), "off", {"x": "b"}, index=False)
    calls.put(("n",), "own", {"x": "c", "z": "ab"}, index=["z"])
    calls.put(("n",), "third", {"x": "abc"})
    calls.put(("n",), "void", {"x": "b"}, index=[])
    expected = [("both", 1.0), ("own", 0.707), ("third", 0.577), ("none", None), ("off", None), ("void", None)]
    assert calls.scores("b") == expected
    assert calls.scores("b", limit=2, offset=2) == expected[2:4]
    assert calls.scores("b", limit=-1) == expected
    assert calls.scores("b", filter={"x": "abc"}) == [("third", 0.577)]
    assert [score for _, score in calls.scores("zzz")] == [0.0] * 3 + [None] * 3
    assert [score for _, score in calls.scores("")] == [None] * 6
    assert calls.search(("other",), query="b") == []


def test_a_put_replaces_the_vectors(colour: Colour) -> None:
    calls, _ = indexed(colour)
    calls.put(("n",), "k", {"x": "a"})
    calls.put(("n",), "k", {"x": "b"})
    assert calls.scores("a") == [("k", 0.0)]
    calls.put(("n",), "k", {"x": "b"}, index=False)
    assert calls.scores("b") == [("k", None)]
    calls.delete(("n",), "k")
    assert calls.scores("b") == []


def test_a_batch_embeds_each_text_once(colour: Colour) -> None:
    calls, letters = indexed(colour)
    ops = [
        PutOp(("n",), "1", {"x": "a", "y": "b"}),
        SearchOp((), query="b"),
        PutOp(("n",), "2", {"x": "b"}),
        SearchOp((), query="b"),
        SearchOp((), query="a"),
        PutOp(("n",), "1", None),
        GetOp(("n",), "1"),
    ]
    results = calls.batch(ops)
    assert letters.asked == [["a", "b"], ["b"], ["a"]]
    assert [[(one.key, one.score) for one in results[at]] for at in (1, 3, 4)] == [
        [("1", 1.0)],
        [("1", 1.0), ("2", 1.0)],
        [("1", 1.0), ("2", 0.0)],
    ]


def test_the_whole_value_unless_told_otherwise(colour: Colour) -> None:
    for fields in ({"fields": None}, {"fields": ["$"]}):
        calls, letters = indexed(colour, **fields)
        calls.put(("n",), "k", {"y": "b", "x": 1})
        assert letters.asked == [['{"x": 1, "y": "b"}']]
    calls, letters = indexed(colour, fields=None, text_fields=["l[*].t"])
    calls.put(("n",), "k", {"l": [{"t": "a"}, {"t": "b"}, {"u": "c"}]})
    assert letters.asked == [["a", "b"]]
    assert calls.scores("b") == [("k", 1.0)]


def test_without_an_index_a_query_is_ignored(calls: Calls) -> None:
    calls.put(("n",), "k", {"x": "a"}, index=["x"])
    assert calls.scores("a") == [("k", None)]
    assert (calls.store.index_config, calls.store.embeddings) == (None, None)


def test_async_embeddings_serve_the_async_methods(colour: Colour) -> None:
    async def embed(texts: Any) -> list[list[float]]:
        return Letters()(texts)

    calls = Calls(colour, index={"dims": 4, "embed": embed})
    if not colour.is_async:
        with pytest.raises(ValueError, match="async"):
            calls.put(("n",), "k", {"x": "a"})
        assert calls.store.get(("n",), "k") is None
    else:
        calls.put(("n",), "k", {"x": "b"})
        assert calls.scores("b") == [("k", 1.0)]


class Refusing:
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise ConnectionError("no network")

    def embed_query(self, text: str) -> list[float]:
        return [1.0]


def test_failing_embeddings_change_nothing(colour: Colour) -> None:
    def one(texts: Any) -> list[list[float]]:
        return [[1.0]]

    def ragged(texts: Any) -> list[list[float]]:
        return [[1.0] * len(text) for text in texts]

    for embed, error in ((Refusing(), ConnectionError), (one, ValueError), (ragged, ValueError)):
        calls = Calls(colour, index={"dims": 1, "embed": embed, "fields": ["x"]})
        with pytest.raises(error):
            calls.batch([PutOp(("n",), "1", {"x": "a"}), PutOp(("n",), "2", {"x": "bb"})])
        assert calls.keys(()) == []
    calls.put(("n",), "k", {"x": "bb"})  # nor is the length of the refused vectors kept
    assert calls.scores("bb") == [("k", 1.0)]
    with pytest.raises(ValueError, match="2 and of 3"):
        calls.scores("bbb")


def test_the_score_is_the_cosine(colour: Colour) -> None:
    table = {"doc": [1.0, -2.0, 0.5], "query": [0.25, 3.0, 1e-3]}
    calls = Calls(colour, index={"dims": 3, "embed": lambda texts: [table[text] for text in texts], "fields": ["x"]})
    calls.put(("n",), "k", {"x": "doc"})
    dot = math.sumprod(*table.values()) if hasattr(math, "sumprod") else 0.25 - 6.0 + 0.5e-3
    assert calls.search((), query="query")[0].score == pytest.approx(
        dot / math.hypot(*table["doc"]) / math.hypot(*table["query"])
    )


def test_an_index_must_have_something_to_embed_with() -> None:
    for index in ({"dims": 4}, {"dims": 4, "embed": "provider:model"}):
        with pytest.raises(ValueError, match="embed"):
            InMemoryStore(index=index)  # type: ignore[arg-type]
    config: IndexConfig = {"dims": 4, "embed": Letters()}
    assert InMemoryStore(index=config).index_config is config


# ---- threads


def test_threads_share_a_store() -> None:
    store = InMemoryStore()
    ready = threading.Barrier(4)

    def work(worker: int) -> None:
        ready.wait()
        for n in range(50):
            store.put(("n", str(worker)), str(n), {"n": n}, ttl=5)
            store.search((), limit=5)
            store.list_namespaces()

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(store.search((), limit=-1)) == 200
