"""What every store shares: items, operations, namespaces, filters, paths, embeddings."""

import asyncio
import copy
import math
import pickle
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, date, datetime
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from checkpoint.serde.jsonplus import JsonPlusSerializer
from pregel.store.base import (
    NOT_PROVIDED,
    BaseStore,
    Embeddings,
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    checked_ops,
    ensure_embeddings,
    get_text_at_path,
    matches_conditions,
    tokenize_path,
    validate_op_namespace,
)
from pregel.store.base.embed import text_fields
from pregel.store.filters import check_filter, matches_filter
from tests.support.scenarios import Colour

BORN = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = datetime(2024, 6, 7, tzinfo=UTC)


def item(**changes: Any) -> Item:
    return Item(
        **{"value": {"a": 1}, "key": "k", "namespace": ("n", "m"), "created_at": BORN, "updated_at": LATER} | changes
    )


# ---- items


def test_an_item_reads_dates_and_keeps_a_tuple() -> None:
    made = item(namespace=["n", "m"], created_at=BORN.isoformat(), updated_at=LATER.isoformat())
    assert (made.namespace, made.created_at, made.updated_at) == (("n", "m"), BORN, LATER)
    assert made == item()
    assert not hasattr(made, "__dict__")


def test_an_item_as_a_dict() -> None:
    expected = {
        "namespace": ["n", "m"],
        "key": "k",
        "value": {"a": 1},
        "created_at": BORN.isoformat(),
        "updated_at": LATER.isoformat(),
    }
    assert item().dict() == expected
    assert SearchItem(("n", "m"), "k", {"a": 1}, BORN, LATER, 0.5).dict() == expected | {"score": 0.5}


@pytest.mark.parametrize(
    "change",
    [{"value": {}}, {"key": "j"}, {"namespace": ("n",)}, {"created_at": LATER}, {"updated_at": BORN}],
    ids=lambda change: next(iter(change)),
)
def test_items_are_equal_by_all_fields(change: dict[str, Any]) -> None:
    assert item(**change) != item()


def test_items_beside_other_things() -> None:
    assert item() != item().dict()
    assert item() == SearchItem(("n", "m"), "k", {"a": 1}, BORN, LATER, 0.5)
    assert hash(item()) == hash(item(value={}))
    assert SearchItem(("n",), "k", {}, BORN, LATER).score is None


def test_the_repr_shows_the_fields() -> None:
    assert repr(item()) == (
        f"Item(namespace=['n', 'm'], key='k', value={{'a': 1}}, created_at='{BORN.isoformat()}', "
        f"updated_at='{LATER.isoformat()}')"
    )
    assert repr(SearchItem(("n",), "k", {}, BORN, LATER, 0.5)).startswith("SearchItem(")


OPS: list[Op] = [
    GetOp(("a",), "k", False),
    SearchOp(("a",), {"x": {"$gt": 1}}, 3, 1, "q", False),
    PutOp(("a",), "k", {"x": 1}, ["x"], 2.5),
    ListNamespacesOp((MatchCondition("suffix", ("*", "b")),), 2, 5, 1),
]


@pytest.mark.parametrize(
    "value",
    [item(), SearchItem(("n",), "k", {"a": (1,)}, BORN, LATER, 0.25), *OPS],
    ids=lambda value: type(value).__name__,
)
def test_items_and_operations_can_be_stored(value: Any) -> None:
    serde = JsonPlusSerializer(strict=True)
    loaded = serde.loads_typed(serde.dumps_typed([value]))[0]
    for again in (loaded, copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert type(again) is type(value)
        assert again == value
        assert getattr(again, "score", None) == getattr(value, "score", None)


# ---- methods to operations


class Recorder(BaseStore):
    """Keeps what it is asked and answers every operation with the same."""

    supports_ttl = True

    def __init__(self, answer: Any = None, ttl: TTLConfig | None = None) -> None:
        self.ops: list[Op] = []
        self.answer = answer
        self.ttl_config = ttl

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        self.ops += ops
        return [self.answer]

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        return self.batch(ops)


def ask(colour: Colour, store: BaseStore, method: str, *args: Any, **kwargs: Any) -> Any:
    if colour.is_async:
        return asyncio.run(getattr(store, f"a{method}")(*args, **kwargs))
    return getattr(store, method)(*args, **kwargs)


CALLS: dict[str, tuple[Op, tuple[Any, ...], dict[str, Any]]] = {
    "get": (GetOp(("a",), "5"), (["a"], 5), {}),
    "get-no-refresh": (GetOp(("a",), "k", False), (("a",), "k"), {"refresh_ttl": False}),
    "get-reserved": (GetOp(("langgraph",), "k"), (("langgraph",), "k"), {}),
    "get-empty": (GetOp((), "k"), ((), "k"), {}),
    "search": (SearchOp(("a",)), (["a"],), {}),
    "search-all": (
        SearchOp((), {"x": 1}, 3, 2, "q", False),
        ((),),
        {"filter": {"x": 1}, "limit": 3, "offset": 2, "query": "q", "refresh_ttl": False},
    ),
    "put": (PutOp(("a",), "5", {"x": 1}), (["a"], 5, {"x": 1}), {}),
    "put-all": (PutOp(("a",), "k", {}, False, 2.5), (("a",), "k", {}, False), {"ttl": 2.5}),
    "put-inner-reserved": (PutOp(("a", "langgraph"), "k", {}), (("a", "langgraph"), "k", {}), {}),
    "delete": (PutOp(("a",), "5", None), (["a"], 5), {}),
    "list_namespaces": (ListNamespacesOp((), None, 100, 0), (), {}),
    "list_namespaces-empty": (ListNamespacesOp((), None, 100, 0), (), {"prefix": (), "suffix": ()}),
    "list_namespaces-all": (
        ListNamespacesOp((MatchCondition("prefix", ("a", "*")), MatchCondition("suffix", ("b",))), 2, 3, 1),
        (),
        {"prefix": ["a", "*"], "suffix": ("b",), "max_depth": 2, "limit": 3, "offset": 1},
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_methods_make_operations(colour: Colour, name: str) -> None:
    op, args, kwargs = CALLS[name]
    method = name.split("-")[0]
    answer = None if method in ("put", "delete") else object()
    store = Recorder(answer)
    assert ask(colour, store, method, *args, **kwargs) is answer
    assert store.ops == [op]
    assert type(op) is type(store.ops[0])


def test_times_to_live(colour: Colour) -> None:
    store = Recorder(ttl={"default_ttl": 7, "refresh_on_read": False})
    ask(colour, store, "put", ("a",), "k", {})
    ask(colour, store, "put", ("a",), "k", {}, ttl=None)
    ask(colour, store, "get", ("a",), "k")
    ask(colour, store, "search", ("a",))
    ask(colour, store, "search", ("a",), refresh_ttl=True)
    assert store.ops == [
        PutOp(("a",), "k", {}, None, 7),
        PutOp(("a",), "k", {}),
        GetOp(("a",), "k", False),
        SearchOp(("a",), refresh_ttl=False),
        SearchOp(("a",)),
    ]


def test_a_store_without_times_to_live_says_so(colour: Colour) -> None:
    class Plain(Recorder):
        supports_ttl = False

    store = Plain()
    with pytest.raises(NotImplementedError, match=r"'k'.*2\.5.*Plain"):
        ask(colour, store, "put", ("a",), "k", {}, ttl=2.5)
    assert store.ops == []
    ask(colour, store, "put", ("a",), "k", {}, ttl=None)
    assert store.ops == [PutOp(("a",), "k", {})]
    assert (BaseStore.supports_ttl, BaseStore.ttl_config) == (False, None)


def test_not_provided_is_false_and_has_a_name() -> None:
    assert (bool(NOT_PROVIDED), repr(NOT_PROVIDED)) == (False, "NOT_PROVIDED")


# ---- namespaces

BAD = [("",), ("a", ""), ("a.b",), (1,), ("a", None)]


@pytest.mark.parametrize("namespace", BAD, ids=repr)
def test_bad_labels_are_refused_everywhere(colour: Colour, namespace: Any) -> None:
    store = Recorder()
    for method, args, kwargs in [
        ("get", (namespace, "k"), {}),
        ("search", (namespace,), {}),
        ("put", (namespace, "k", {}), {}),
        ("delete", (namespace, "k"), {}),
        ("list_namespaces", (), {"prefix": namespace}),
        ("list_namespaces", (), {"suffix": namespace}),
    ]:
        with pytest.raises(InvalidNamespaceError):
            ask(colour, store, method, *args, **kwargs)
    conditions = (MatchCondition("prefix", namespace),)
    for op in (GetOp(namespace, "k"), SearchOp(namespace), PutOp(namespace, "k", {}), ListNamespacesOp(conditions)):
        with pytest.raises(InvalidNamespaceError):
            validate_op_namespace(op)
        with pytest.raises(InvalidNamespaceError):
            checked_ops([op])
    assert store.ops == []


@pytest.mark.parametrize("namespace", [(), ("langgraph",), ("langgraph", "a")], ids=repr)
def test_put_needs_a_namespace_of_its_own(colour: Colour, namespace: Any) -> None:
    with pytest.raises(InvalidNamespaceError, match="'k'"):
        ask(colour, Recorder(), "put", namespace, "k", {})
    validate_op_namespace(PutOp(namespace, "k", {}))


def test_invalid_namespaces_are_value_errors() -> None:
    assert issubclass(InvalidNamespaceError, ValueError)


@pytest.mark.parametrize(
    ("match_type", "path", "matching"),
    [
        ("prefix", (), [("a",), ("a", "b"), ("a", "b", "c"), ("ab", "b")]),
        ("prefix", ("a",), [("a",), ("a", "b"), ("a", "b", "c")]),
        ("prefix", ("*", "b"), [("a", "b"), ("a", "b", "c"), ("ab", "b")]),
        ("prefix", ("a*",), []),
        ("suffix", ("b",), [("a", "b"), ("ab", "b")]),
        ("suffix", ("a", "*"), [("a", "b")]),
        ("suffix", ("b", "c"), [("a", "b", "c")]),
        ("suffix", ("*", "*", "*"), [("a", "b", "c")]),
        ("suffix", ["b"], [("a", "b"), ("ab", "b")]),
    ],
)
def test_conditions_match_whole_labels(match_type: Any, path: Any, matching: list[tuple[str, ...]]) -> None:
    everything = [("a",), ("a", "b"), ("a", "b", "c"), ("ab", "b")]
    condition = MatchCondition(match_type, path)
    assert [namespace for namespace in everything if matches_conditions(namespace, [condition])] == matching


def test_all_conditions_must_match() -> None:
    both = [MatchCondition("prefix", ("a",)), MatchCondition("suffix", ("c",))]
    assert matches_conditions(("a", "c"), both)
    assert not matches_conditions(("a", "b"), both)
    assert matches_conditions(("a",), [])


# ---- batches


def test_a_checked_batch_is_normal() -> None:
    raw: list[Any] = [GetOp(["a"], 5), PutOp(["a"], 5, None), PutOp(["a"], 6, {}), SearchOp(["a"]), ListNamespacesOp()]
    assert checked_ops(iter(raw)) == [
        GetOp(("a",), "5"),
        PutOp(("a",), "5", None),
        PutOp(("a",), "6", {}),
        SearchOp(("a",)),
        ListNamespacesOp(),
    ]
    assert checked_ops(OPS) == OPS


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (5, ValueError),
        (("a",), ValueError),
        (ListNamespacesOp((MatchCondition("middle", ("a",)),)), ValueError),  # type: ignore[arg-type]
        (SearchOp((), {"x": {"$near": 1}}), ValueError),
        (PutOp(("a",), "k", [1]), TypeError),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_operations_that_mean_nothing_are_refused(op: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        checked_ops([op])


# ---- filters

VALUES: dict[str, dict[str, Any]] = {
    "int": {"a": 5},
    "float": {"a": 5.0},
    "text": {"a": "5"},
    "decimal": {"a": "5.5"},
    "word": {"a": "x"},
    "true": {"a": True},
    "one": {"a": 1},
    "none": {"a": None},
    "missing": {"z": 1},
    "nested": {"a": {"b": 1, "c": {"d": 2}}},
    "empty": {"a": {}},
    "list": {"a": [1, {"x": 1}]},
    "flags": {"a": [True]},
    "nan": {"a": math.nan},
    "big": {"a": 2**70},
    "date": {"a": date(2024, 1, 1)},
    "literal": {"a.b": 1},
    "quote": {"a": "it's \x00 \N{SNOWMAN}"},
}


@pytest.mark.parametrize(
    ("wanted", "matching"),
    [
        ({}, " ".join(VALUES)),
        ({"a": 5}, "int float"),
        ({"a": "5"}, "text"),
        ({"a": True}, "true"),
        ({"a": 1}, "one"),
        ({"a": [1]}, ""),
        ({"a": [True]}, "flags"),
        ({"a": [1, {"x": 1}]}, "list"),
        ({"a": (1, {"x": 1})}, "list"),
        ({"a": [1, {"x": True}]}, ""),
        ({"a": [1, {"y": 1}]}, ""),
        ({"a": [1, {"x": 1}, 2]}, ""),
        ({"a": None}, "none missing literal"),
        ({"a": "it's \x00 \N{SNOWMAN}"}, "quote"),
        ({"a": 5, "z": 1}, ""),
        # in part
        ({"a": {}}, "nested empty"),
        ({"a": {"b": 1}}, "nested"),
        ({"a": {"c": {"d": 2}}}, "nested"),
        ({"a": {"b": None}}, "empty"),
        ({"a": {"b": {"$gt": 0}}}, "nested"),
        ({"a": {"b": {"$ne": 7}}}, "nested empty"),
        ({"a": {"c.d": 2}}, "nested"),
        # paths
        ({"a.b": 1}, "nested literal"),
        ({"a.c.d": 2}, "nested"),
        ({"a.b.c": None}, " ".join(VALUES)),
        # operators
        ({"a": {"$eq": 5}}, "int float"),
        ({"a": {"$eq": None}}, "none missing literal"),
        ({"a": {"$eq": math.nan}}, ""),
        ({"a": {"$eq": {"b": 1}}}, ""),
        ({"a": {"$eq": {"b": 1, "c": {"d": 2}}}}, "nested"),
        ({"a": {"$ne": None}}, " ".join(sorted(set(VALUES) - {"none", "missing", "literal"}))),
        ({"a": {"$ne": 5}}, " ".join(sorted(set(VALUES) - {"int", "float"}))),
        ({"a": {"$gt": 4}}, "int float text decimal big"),
        ({"a": {"$gt": 5}}, "decimal big"),
        ({"a": {"$gte": 5}}, "int float text decimal big"),
        ({"a": {"$gte": 2**70}}, "big"),
        ({"a": {"$gt": 2**70 - 1}}, "big"),
        ({"a": {"$lt": 5}}, "one"),
        ({"a": {"$lte": 5}}, "int float text one"),
        ({"a": {"$lt": math.inf}}, "int float text decimal one big"),
        ({"a": {"$gt": -math.inf}}, "int float text decimal one big"),
        ({"a": {"$gt": 4, "$lt": 5.2}}, "int float text"),
        ({"a": {"$gt": "5"}}, "decimal word quote"),
        ({"a": {"$gt": False}}, ""),
        ({"a": {"$gt": None}}, ""),
        ({"a": {"$gt": date(2023, 1, 1)}}, "date"),
        ({"a": {"$in": [5, "x"]}}, "int float word"),
        ({"a": {"$in": [None]}}, "none missing literal"),
        ({"a": {"$in": []}}, ""),
        ({"a": {"$nin": [5, "x"]}}, " ".join(sorted(set(VALUES) - {"int", "float", "word"}))),
        ({"a": {"$nin": (None,)}}, " ".join(sorted(set(VALUES) - {"none", "missing", "literal"}))),
        ({"a": {"$exists": True}}, " ".join(sorted(set(VALUES) - {"missing", "literal"}))),
        ({"a": {"$exists": False}}, "missing literal"),
        ({"a.b": {"$exists": True}}, "nested literal"),
        ({"$eq": 5}, ""),
    ],
    ids=repr,
)
def test_filters(wanted: dict[str, Any], matching: str) -> None:
    check_filter(wanted)
    assert {name for name, value in VALUES.items() if matches_filter(value, wanted)} == set(matching.split())


@pytest.mark.parametrize(
    "wanted",
    [
        {"a": {"$near": 5}},
        {"a": {"$gt": 5, "b": 1}},
        {"a": {"b": {"$foo": 1}}},
        {"a": {"$in": 5}},
        {"a": {"$nin": "x"}},
    ],
    ids=repr,
)
def test_filters_that_mean_nothing_are_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        check_filter(wanted)


# ---- paths


@pytest.mark.parametrize(
    ("path", "tokens"),
    [
        ("", []),
        ("$", ["$"]),
        ("a", ["a"]),
        ("a.b", ["a", "b"]),
        ("x..y", ["x", "y"]),
        (".a.", ["a"]),
        ("a[0].b", ["a", "[0]", "b"]),
        ("a[0][-1]", ["a", "[0]", "[-1]"]),
        ("a[b.c]", ["a", "[b.c]"]),
        ("a.*", ["a", "*"]),
        ("{x,y.z}.w", ["{x,y.z}", "w"]),
        ("a{x}", ["a", "{x}"]),
        ("{x,{y,z}}", ["{x,{y,z}}"]),
        ("a.{x", ["a", "{x"]),
        ("a[0", ["a", "[0"]),
    ],
)
def test_tokens_of_paths(path: str, tokens: list[str]) -> None:
    assert tokenize_path(path) == tokens


VALUE: dict[str, Any] = {
    "a": {"b": 1, "c": None, "e": [], "g": {}, "h": True, "s": "txt", "t": ""},
    "l": [{"x": 1, "y": {"z": "q"}}, {"x": 2}, None, "str", 5],
    "m": [[1, 2], (3,)],
    "f": 1.5,
    "d": date(2024, 1, 1),
}
A = '{"b": 1, "c": null, "e": [], "g": {}, "h": true, "s": "txt", "t": ""}'
L = '[{"x": 1, "y": {"z": "q"}}, {"x": 2}, null, "str", 5]'


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("", [f'{{"a": {A}, "d": "2024-01-01", "f": 1.5, "l": {L}, "m": [[1, 2], [3]]}}']),
        ("a", [A]),
        ("a.b", ["1"]),
        ("a.c", []),
        ("a.e", ["[]"]),
        ("a.g", ["{}"]),
        ("a.h", ["True"]),
        ("a.s", ["txt"]),
        ("a.t", [""]),
        ("d", []),
        ("f", ["1.5"]),
        ("l", [L]),
        ("l[0].y", ['{"z": "q"}']),
        ("l[ -1 ]", ["5"]),
        ("l[9]", []),
        ("l[-9]", []),
        ("l[]", []),
        ("l[x]", []),
        ("l[0", []),
        ("l.x", []),
        ("l.{x}", []),
        ("a[0]", []),
        ("a.b.c", []),
        ("l.*", ['{"x": 1, "y": {"z": "q"}}', '{"x": 2}', "str", "5"]),
        ("l[*].x", ["1", "2"]),
        ("l[*].{x, y.z}", ["1", "q", "2"]),
        ("m[*][*]", ["1", "2", "3"]),
        ("m[0][1]", ["2"]),
        ("*.b", ["1"]),
        ("a.s.*", []),
        ("{ f , a.b }", ["1.5", "1"]),
        ("{nope,f}", ["1.5"]),
        ("{}", []),
        ("{f", []),
        ("$.a", []),
        ("nope", []),
    ],
)
def test_texts_at_paths(path: str, texts: list[str]) -> None:
    assert get_text_at_path(VALUE, path) == texts
    assert get_text_at_path(VALUE, tokenize_path(path)) == texts


def test_the_whole_of_any_value() -> None:
    assert get_text_at_path("s", "$") == ['"s"']
    assert get_text_at_path(None, "") == ["null"]
    assert get_text_at_path({"b": "é", "a": 1}, []) == ['{"a": 1, "b": "é"}']
    assert get_text_at_path(MappingProxyType({"a": [1, None]}), "a.*") == ["1"]


@pytest.mark.parametrize(
    ("index", "tokens"),
    [
        (None, []),
        ({"dims": 2}, [["$"]]),
        ({"fields": None}, [["$"]]),
        ({"fields": ["a.b", "c"]}, [["a", "b"], ["c"]]),
        ({"text_fields": ["a"]}, [["a"]]),
    ],
)
def test_fields_of_an_index(index: Any, tokens: list[list[str]]) -> None:
    assert text_fields(index) == tokens


# ---- embeddings


def lengths(texts: Any) -> list[list[float]]:
    return [[float(len(text)), float(threading.get_ident() == threading.main_thread().ident)] for text in texts]


async def alengths(texts: Any) -> list[list[float]]:
    return lengths(texts)


class Whole(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return lengths(texts)

    def embed_query(self, text: str) -> list[float]:
        return lengths([text])[0]


class Half:
    """As `Whole`, of no known class and without async methods."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return lengths(texts)

    def embed_query(self, text: str) -> list[float]:
        return lengths([text])[0]


class AsyncCall:
    async def __call__(self, texts: Any) -> list[list[float]]:
        return lengths(texts)


@pytest.mark.parametrize("embed", [lengths, Whole(), Half()], ids=["function", "object", "duck"])
def test_plain_embeddings(embed: Any) -> None:
    made = ensure_embeddings(embed)
    assert made.embed_documents(["a", "bc"]) == [[1.0, 1.0], [2.0, 1.0]]
    assert made.embed_query("abc") == [3.0, 1.0]
    # off the loop: the second number tells the thread
    assert asyncio.run(made.aembed_documents(["a", "bc"])) == [[1.0, 0.0], [2.0, 0.0]]
    assert asyncio.run(made.aembed_query("abc")) == [3.0, 0.0]


@pytest.mark.parametrize("embed", [alengths, AsyncCall()], ids=["function", "object"])
def test_async_embeddings(embed: Any) -> None:
    made = ensure_embeddings(embed)
    assert asyncio.run(made.aembed_documents(["a", "bc"])) == [[1.0, 1.0], [2.0, 1.0]]
    assert asyncio.run(made.aembed_query("abc")) == [3.0, 1.0]
    for call in (lambda: made.embed_documents(["a"]), lambda: made.embed_query("a")):
        with pytest.raises(ValueError, match="async"):
            call()


def test_whole_embeddings_stay_themselves() -> None:
    whole = Whole()
    assert ensure_embeddings(whole) is whole


def test_a_providers_name_is_left_to_langchain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.embeddings", None)
    with pytest.raises(ValueError, match="langchain"):
        ensure_embeddings("provider:model")
    half = Half()
    module = SimpleNamespace(init_embeddings={"provider:model": half}.__getitem__)
    monkeypatch.setitem(sys.modules, "langchain", SimpleNamespace(embeddings=module))
    monkeypatch.setitem(sys.modules, "langchain.embeddings", module)
    assert ensure_embeddings("provider:model").embed_query("abc") == half.embed_query("abc")


@pytest.mark.parametrize("embed", [None, "", 5], ids=repr)
def test_what_cannot_embed_is_refused(embed: Any) -> None:
    with pytest.raises(ValueError, match="embed"):
        ensure_embeddings(embed)
