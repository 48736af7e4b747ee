"""The rules of stores that need no second process: levels base and full.

Base is what programs written for LangGraph rely on; full is what stores of this package add: order, rollback, privacy,
exact filters, versions, and answers to nonsense. Knows no concrete store.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from checkpoint.testing.report import one_of, present, raises, same, true
from pregel.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
    VersionConflictError,
)
from pregel.store.filters import matches_filter
from pregel.testing.store_subject import NS, Letters, Subject, check

JSON: Final[dict[str, Any]] = {
    "text": "quotes \" ' and \\, line\nend, ünïcode ☃ 𝄞",
    "empty": "",
    "numbers": [0, -1, 1.5, 2**40],
    "flags": [True, False, None],
    "nested": {"a": {"b": [{"c": 1}]}},
}


# ---- base


@check("base")
def what_is_put_is_found(s: Subject) -> None:
    """`get` gives the item that was put, with its key, namespace, value and dates; None if there is none."""
    same(s.get(NS, "k"), None, "get of a key that was never put")
    before = datetime.now(UTC) - timedelta(seconds=5)
    same(s.put(NS, "k", JSON), None, "what put returns")
    item = present(s.get(NS, "k"), "get of a key that was put")
    same((item.key, tuple(item.namespace), item.value), ("k", NS, JSON), "the item that was put")
    true(isinstance(item.created_at, datetime), "created_at is no datetime")
    true(isinstance(item.updated_at, datetime), "updated_at is no datetime")
    if not s.has_clock:
        true(item.updated_at.replace(tzinfo=UTC) >= before, f"updated_at is {item.updated_at}, before the put")
    same(s.get((*NS, "deeper"), "k"), None, "get in a namespace below")
    same(s.get(NS[:1], "k"), None, "get in the namespace above")


@check("base")
def a_put_replaces(s: Subject) -> None:
    """A second put of a key replaces the whole value."""
    s.put(NS, "k", {"a": 1, "b": 2})
    s.put(NS, "k", {"a": 3})
    same(present(s.get(NS, "k"), "get").value, {"a": 3}, "value after a second put")
    same(s.keys(NS), ["k"], "keys after two puts of one key")


@check("base")
def a_deleted_item_is_gone(s: Subject) -> None:
    """`delete`, and a put operation with the value None, remove an item; deleting what is not there is no error."""
    for name in ("a", "b"):
        s.put(NS, name, {"n": 1})
    s.delete(NS, "a")
    s.batch([PutOp(NS, "b", None)])
    s.delete(NS, "never")
    same([s.get(NS, name) for name in ("a", "b")], [None, None], "get of deleted keys")
    same(s.keys(NS), [], "keys of deleted items")


@check("base")
def keys_are_texts(s: Subject) -> None:
    """A key is the text of what is given; the same key finds it again."""
    s.put(NS, 5, {"n": 1})
    same(present(s.get(NS, 5), "get with the key of the put").key, "5", "the key")
    true(s.get(NS, "5") is not None, "get with the text of the key finds nothing")


@check("base")
def a_search_covers_what_is_below(s: Subject) -> None:
    """A search finds the items of the namespace and of those below it: whole labels, as they are written, no patterns."""
    spaces = [("a",), ("a", "b"), ("a", "b", "c"), ("ab",), ("A",), ("a", "%"), ("a", "*"), ("a_",), ("ax",)]
    for n, space in enumerate(spaces):
        s.put(space, f"k{n}", {"n": n})
    for prefix, wanted in [
        ((), range(9)),
        (("a",), (0, 1, 2, 5, 6)),
        (("a", "b"), (1, 2)),
        (("a", "%"), (5,)),
        (("a", "*"), (6,)),
        (("a_",), (7,)),
        (("b",), ()),
        (("*",), ()),
    ]:
        same(sorted(s.keys(prefix, limit=100)), [f"k{n}" for n in wanted], f"search below {prefix!r}")


@check("base")
def searches_have_pages(s: Subject) -> None:
    """At most `limit` items, 10 unless told otherwise, after the first `offset`; the pages together are everything."""
    for n in range(12):
        s.put(NS, f"k{n:02}", {"n": n})
    everything = s.keys(NS, limit=100)
    same(sorted(everything), [f"k{n:02}" for n in range(12)], "everything")
    same(s.keys(NS), everything[:10], "a search without a limit")
    same(s.keys(NS, limit=5), everything[:5], "limit=5")
    same(s.keys(NS, limit=5, offset=4), everything[4:9], "limit=5, offset=4")
    same(s.keys(NS, limit=5, offset=10), everything[10:], "limit=5, offset=10")
    same(s.keys(NS, limit=5, offset=50), [], "offset=50")


@check("base")
def searches_are_in_order_of_puts(s: Subject) -> None:
    """Without a query items come in the order in which they were put: the first one first, or the last one."""
    for name in "cab":
        s.put(NS, name, {"n": 1})
        if s.has_clock:
            s.pass_time(0.001)
    one_of("".join(s.keys(NS)), ("cab", "bac"), "the order of a search")


@check("base")
def filters_compare(s: Subject) -> None:
    """A filter finds equal values, and values of an operator `$eq $ne $gt $gte $lt $lte`; all conditions must hold."""
    for n in range(5):
        s.put(NS, f"k{n}", {"n": n, "name": "even" if n % 2 == 0 else "odd", "tags": [n]})
    for wanted, found in _FILTERS:
        same("".join(sorted(key[1] for key in s.keys(NS, filter=wanted))), found, f"filter {wanted!r}")


_FILTERS: Final[list[tuple[dict[str, Any], str]]] = [
    ({}, "01234"),
    ({"n": 3}, "3"),
    ({"n": 3.0}, "3"),
    ({"name": "odd"}, "13"),
    ({"name": "odd", "n": 1}, "1"),
    ({"n": {"$eq": 2}}, "2"),
    ({"n": {"$ne": 2}}, "0134"),
    ({"n": {"$gt": 2}}, "34"),
    ({"n": {"$gte": 2}}, "234"),
    ({"n": {"$lt": 2}}, "01"),
    ({"n": {"$lte": 2}}, "012"),
    ({"n": {"$gt": 0, "$lt": 3}}, "12"),
    ({"n": {"$gt": 1}, "name": "even"}, "24"),
    ({"name": "none"}, ""),
    ({"missing": "x"}, ""),
]


@check("base")
def pages_are_of_what_a_filter_finds(s: Subject) -> None:
    """`limit` and `offset` count what the filter has let through."""
    for n in range(30):
        s.put(NS, f"k{n:02}", {"odd": n % 2})
    everything = s.keys(NS, filter={"odd": 1}, limit=100)
    same(len(everything), 15, "how many a filter finds")
    same(s.keys(NS, filter={"odd": 1}, limit=4, offset=6), everything[6:10], "limit=4, offset=6")


@check("base")
def namespaces_are_listed(s: Subject) -> None:
    """Namespaces that hold items are listed, sorted; by prefix and suffix, where `*` is any one label; cut to a depth, and
    then each once, before limit and offset count."""
    for space in [("b",), ("a", "x", "1"), ("a", "y", "1"), ("a", "y", "2"), ("c", "y")]:
        s.put(space, "k", {"n": 1})
    a = [("a", "x", "1"), ("a", "y", "1"), ("a", "y", "2")]
    table: list[tuple[dict[str, Any], Sequence[tuple[str, ...]]]] = [
        ({}, [*a, ("b",), ("c", "y")]),
        ({"prefix": ("a",)}, a),
        ({"prefix": ("a", "y")}, a[1:]),
        ({"suffix": ("1",)}, a[:2]),
        ({"suffix": ("y", "2")}, a[2:]),
        ({"prefix": ("*", "y")}, [*a[1:], ("c", "y")]),
        ({"suffix": ("*", "1")}, a[:2]),
        ({"prefix": ("a",), "suffix": ("1",)}, a[:2]),
        ({"max_depth": 1}, [("a",), ("b",), ("c",)]),
        ({"max_depth": 2}, [("a", "x"), ("a", "y"), ("b",), ("c", "y")]),
        ({"max_depth": 2, "limit": 2, "offset": 1}, [("a", "y"), ("b",)]),
        ({"limit": 2}, a[:2]),
        ({"offset": 3}, [("b",), ("c", "y")]),
        ({"prefix": ("nowhere",)}, []),
    ]
    for wanted, found in table:
        same([tuple(space) for space in s.list_namespaces(**wanted)], [*found], f"list_namespaces({wanted!r})")


@check("base")
def a_batch_has_one_result_per_operation(s: Subject) -> None:
    """`batch` takes operations of all kinds and gives one result each, in their order; None for a put."""
    s.put(NS, "a", {"n": 1})
    found = s.batch(
        [GetOp(NS, "a"), PutOp(("z",), "b", {"n": 2}), GetOp(NS, "never"), SearchOp(NS), ListNamespacesOp()]
    )
    same(len(found), 5, "how many results")
    same((present(found[0], "the get").key, found[1], found[2]), ("a", None, None), "get, put, get of nothing")
    same([item.key for item in found[3]], ["a"], "the search")
    true(NS in [tuple(space) for space in found[4]], "the namespaces lack one")
    same(s.batch([]), [], "an empty batch")


@check("base")
def the_last_put_of_a_batch_wins(s: Subject) -> None:
    """Of several puts of one key in a batch the last one stays."""
    s.batch([PutOp(NS, "k", {"n": n}) for n in range(5)])
    same(present(s.get(NS, "k"), "get").value, {"n": 4}, "the value")
    s.batch([PutOp(NS, "k", {"n": 9}), PutOp(NS, "k", None)])
    same(s.get(NS, "k"), None, "after a put and a deletion in one batch")


@check("base")
def namespaces_that_are_none_are_refused(s: Subject) -> None:
    """A put into an empty namespace, one with an empty label, a label with a dot or that is no text, or below `langgraph`
    raises `InvalidNamespaceError` and stores nothing."""
    bad: Any
    for bad in [(), ("",), ("a", ""), ("a.b",), (1,), ("a", None), ("langgraph",), ("langgraph", "x")]:
        with raises(InvalidNamespaceError, f"put into {bad!r}"):
            s.put(bad, "k", {"n": 1})
    same(s.list_namespaces(), [], "namespaces after puts that were refused")


@check("base")
def unknown_operators_are_refused(s: Subject) -> None:
    """A filter with an operator that does not exist is a `ValueError`."""
    s.put(NS, "k", {"n": 1})
    with raises(ValueError, "a filter with $near"):
        s.search(NS, filter={"n": {"$near": 1}})


@check("base")
def calls_at_the_same_time_keep_apart(s: Subject) -> None:
    """Calls that are made at the same time each get their own result."""
    s.together(*(("put", NS, f"k{n}", {"n": n}) for n in range(50)))
    found = s.together(*(("get", NS, f"k{n % 60}") for n in range(120)))
    same([item and item.value["n"] for item in found], [n % 60 if n % 60 < 50 else None for n in range(120)], "results")


@check("base", "ttl")
def items_expire(s: Subject) -> None:
    """An item is not found any more when its time to live is over; one without a time to live stays."""
    s.put(NS, "short", {"n": 1}, ttl=s.short)
    s.put(NS, "long", {"n": 1}, ttl=60 * 24)
    s.put(NS, "ever", {"n": 1}, ttl=None)
    s.pass_time(1.5, until=lambda: s.get(NS, "short", refresh_ttl=False) is None)
    same(s.get(NS, "short"), None, "an item whose time is over")
    same(sorted(s.keys(NS)), ["ever", "long"], "what a search finds")


@check("base", "index")
def queries_find_the_nearest_first(s: Subject) -> None:
    """A search with a query gives the nearest first, each with its score, higher scores first; without an index a query is
    ignored."""
    texts = {"a": "aab", "b": "abb", "c": "bbc", "d": "ddd"}
    with s.elsewhere(index={"dims": 26, "embed": Letters(), "fields": ["text"], "text_fields": ["text"]}) as t:
        for key, text in texts.items():
            t.put(NS, key, {"text": text})
        found = t.search(NS, query="aa")
        same([item.key for item in found][:2], ["a", "b"], "the nearest two")
        scores = [present(item.score, f"the score of {item.key}") for item in found]
        true(scores == sorted(scores, reverse=True), f"scores are not descending: {scores}")
        same(t.keys(NS, query="aa", limit=1, offset=1), ["b"], "the second page")
        true(t.search(NS)[0].score is None, "a search without a query has scores")
    s.put(NS, "k", {"text": "x"})
    same([(item.key, item.score) for item in s.search(NS, query="x")], [("k", None)], "a query without an index")


# ---- full: batches, privacy


@check("full")
def batches_are_carried_out_in_order(s: Subject) -> None:
    """Each operation of a batch sees what those before it did, and nothing of those after it."""
    found = s.batch(
        [
            GetOp(NS, "k"),
            ListNamespacesOp(),
            PutOp(NS, "k", {"n": 1}),
            GetOp(NS, "k"),
            SearchOp(NS, filter={"n": 1}),
            ListNamespacesOp(),
            PutOp(NS, "k", {"n": 2}),
            SearchOp(NS, filter={"n": 1}),
            GetOp(NS, "k"),
            PutOp(NS, "k", None),
            GetOp(NS, "k"),
            ListNamespacesOp(),
        ]
    )
    shown = [[getattr(one, "key", one) for one in r] if isinstance(r, list) else r and r.value["n"] for r in found]
    same(shown, [None, [], None, 1, ["k"], [NS], None, [], 2, None, None, []], "results of the batch")


@check("full")
def a_batch_that_fails_has_changed_nothing(s: Subject) -> None:
    """If an operation of a batch cannot be carried out, none of them has happened, wherever it stands."""
    s.put(NS, "old", {"n": 0})
    puts = [PutOp(NS, "old", {"n": 1}), PutOp(NS, "new", {"n": 1}), PutOp(("other",), "k", {"n": 1})]
    bad: Any
    for bad in [
        SearchOp(NS, {"n": {"$near": 1}}),
        PutOp(("a.b",), "k", {"n": 1}),
        PutOp(NS, "k", {"n": lambda: 0, "x": threading.Lock()}),
        PutOp(NS, "k", 5),  # type: ignore[arg-type] # nonsense on purpose
        PutOp(NS, "old", None, if_version=77),
        "nonsense",
    ]:
        for batch in ([*puts, bad], [bad, *puts], [puts[0], bad, *puts[1:]]):
            with raises(Exception, f"a batch with {bad!r}"):
                s.batch(batch)
            same(present(s.get(NS, "old"), "what was there").value, {"n": 0}, "a value that the batch would replace")
            same(s.list_namespaces(), [NS], "namespaces after a batch that failed")
            same(s.keys(()), ["old"], "keys after a batch that failed")


@check("full")
def values_are_private(s: Subject) -> None:
    """Changing what was put, or what was returned, changes nothing that is stored."""
    value: dict[str, Any] = {"l": [1], "d": {"x": 1}}
    s.put(NS, "k", value)
    value["l"].append(2)
    value["d"]["x"] = 2
    wanted = {"l": [1], "d": {"x": 1}}
    for found in (s.get(NS, "k"), s.search(NS)[0], s.batch([GetOp(NS, "k")])[0]):
        same(found.value, wanted, "a value after its original, or a result, has changed")
        found.value["l"].append(3)
        found.value["new"] = 1
    two = s.together(("get", NS, "k"), ("get", NS, "k"))
    two[0].value["l"].append(4)
    same(two[1].value, wanted, "the result of another call")


@check("full")
def mappings_of_any_kind_are_stored(s: Subject) -> None:
    """A value may be any mapping, and comes back as a dict; anything else is refused, and nothing stored."""
    s.put(NS, "k", _Mapped())
    same((s.get(NS, "k").value, type(s.get(NS, "k").value)), ({"n": 1}, dict), "a mapping that is no dict")
    bad: Any
    for bad in ([1], "text", 5):
        with raises(Exception, f"put of {bad!r}"):
            s.put(NS, "bad", bad)
    same(s.keys(NS), ["k"], "keys after puts that were refused")


class _Mapped(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return {"n": 1}[key]

    def __iter__(self) -> Any:
        return iter(("n",))

    def __len__(self) -> int:
        return 1


@check("full")
def types_stay_what_they_were(s: Subject) -> None:
    """Tuples, sets, bytes, dates, big integers and keys that are no texts come back as they were put."""
    value = {
        "tuple": (1, "a"),
        "set": {1, 2},
        "bytes": b"\x00\xff",
        "date": datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        "big": 2**70,
        "float": -0.5,
        "keys": {1: "a", (2, 3): "b"},
    }
    s.put(NS, "k", value)
    for found in (s.get(NS, "k"), s.search(NS)[0]):
        same(found.value, value, "the value")
        for name, one in value.items():
            true(type(found.value[name]) is type(one), f"{name} came back as {type(found.value[name]).__name__}")


@check("full")
def reading_makes_nothing_and_deleting_leaves_nothing(s: Subject) -> None:
    """A namespace is listed from its first put until its last deletion."""
    s.get(("a",), "k")
    s.search(("b",))
    s.delete(("c",), "k")
    same(s.list_namespaces(), [], "namespaces after reading")
    s.put(("d", "e"), "k", {"n": 1})
    s.put(("d", "e"), "l", {"n": 1})
    s.delete(("d", "e"), "k")
    same(s.list_namespaces(), [("d", "e")], "namespaces that have an item left")
    s.delete(("d", "e"), "l")
    same(s.list_namespaces(), [], "namespaces after the last deletion")


@check("full")
def dates_tell_birth_and_change(s: Subject) -> None:
    """`created_at` is of the first put and stays, `updated_at` of the last one; after a deletion an item is born again."""
    s.put(NS, "k", {"n": 1})
    first = s.get(NS, "k")
    same(first.created_at, first.updated_at, "dates of a new item")
    s.pass_time(1)
    s.put(NS, "k", {"n": 2})
    second = s.get(NS, "k")
    same(second.created_at, first.created_at, "created_at after a second put")
    true(second.updated_at > first.updated_at, "updated_at is not later after a second put")
    s.delete(NS, "k")
    s.pass_time(1)
    s.put(NS, "k", {"n": 3})
    true(s.get(NS, "k").created_at > second.updated_at, "created_at of an item that was deleted and put again")
    true(s.get(NS, "k").created_at.utcoffset() == timedelta(0), "dates are not in UTC")


# ---- full: filters

_VALUES: Final[dict[str, Any]] = {
    "a": {"n": 2**60, "t": "x", "d": {"p": 1, "q": {"r": "deep"}}, "f": True, "l": [1, 2]},
    "b": {"n": 2**60 + 1, "t": "y'\"\n", "d": {"p": 2}, "f": False, "l": []},
    "c": {"n": 1.5, "t": None, "f": 1},
    "d": {"n": float("inf"), "t": "10", "d.p": 1},
    "e": {"n": float("nan"), "t": "9"},
    "f": {"n": -(2**70), "t": "x" * 300},
}
_TABLE: Final[list[tuple[dict[str, Any], str]]] = [
    ({"n": 2**60}, "a"),
    ({"n": 2**60 + 1}, "b"),
    ({"n": {"$gt": 2**60}}, "bd"),
    ({"n": {"$lt": -(2**69)}}, "f"),
    ({"n": float("inf")}, "d"),
    ({"n": float("nan")}, ""),
    ({"f": True}, "a"),
    ({"f": 1}, "c"),
    ({"f": False}, "b"),
    ({"t": None}, "c"),
    ({"zzz": None}, "abcdef"),
    ({"zzz": {"$ne": 1}}, "abcdef"),
    ({"t": {"$ne": "x"}}, "bcdef"),
    ({"t": "y'\"\n"}, "b"),
    ({"t": "x" * 300}, "f"),
    ({"t": {"$gt": "9"}}, "abf"),
    ({"t": {"$gt": 9.5}}, "d"),
    ({"n": {"$gt": "5"}}, ""),
    ({"l": [1, 2]}, "a"),
    ({"l": []}, "b"),
    ({"l": [1]}, ""),
    ({"d": {"p": 1}}, "a"),
    ({"d": {"q": {"r": "deep"}}}, "a"),
    ({"d": {"$eq": {"p": 2}}}, "b"),
    ({"d": {"$eq": {"p": 1}}}, ""),
    ({"d.p": 1}, "ad"),
    ({"d.q.r": "deep"}, "a"),
    ({"t": {"$in": ["x", "10", None]}}, "acd"),
    ({"t": {"$nin": ["x", "10", None]}}, "bef"),
    ({"t": {"$in": []}}, ""),
    ({"d": {"$exists": True}}, "ab"),
    ({"t": {"$exists": True}}, "abcdef"),
    ({"l": {"$exists": False}}, "cdef"),
    ({"n": {"$gte": 1, "$lte": 2**60}, "t": {"$ne": None}}, "a"),
]


@check("full")
def filters_are_exact(s: Subject) -> None:
    """Numbers compare exactly, True is not 1, None is what is missing, a nested mapping matches in part, a dot goes into
    mappings unless it is part of the key, and a value of another kind matches nothing and raises nothing."""
    for key, value in _VALUES.items():
        s.put(NS, key, value)
    for wanted, found in _TABLE:
        same("".join(sorted(s.keys(NS, filter=wanted))), found, f"filter {wanted!r}")


@check("full")
def filters_that_mean_nothing_are_refused(s: Subject) -> None:
    """Unknown operators, operators beside plain keys, and `$in` without a list are `ValueError`s, also when nothing is
    stored."""
    bad: Any
    for bad in [{"n": {"$near": 1}}, {"n": {"$gt": 1, "x": 2}}, {"n": {"$in": 5}}, {"a": {"b": {"$no": 1}}}, [1], "n"]:
        with raises(ValueError, f"filter {bad!r}"):
            s.search(NS, filter=bad)


@check("full")
def values_follow_filters_when_they_change(s: Subject) -> None:
    """A filter is about the values that are there now, whatever was there before."""
    s.put(NS, "k", {"n": 1, "d": {"x": 1}})
    s.put(NS, "k", {"n": 2})
    same((s.keys(NS, filter={"n": 1}), s.keys(NS, filter={"n": 2})), ([], ["k"]), "after a second put")
    same(s.keys(NS, filter={"d": {"x": 1}}), [], "a field that has gone")
    s.delete(NS, "k")
    same(s.keys(NS, filter={"n": 2}), [], "after a deletion")


# ---- full: hostile input


@check("full")
def labels_and_keys_may_be_any_text(s: Subject) -> None:
    """Labels and keys with quotes, wildcards, control and other characters are found by themselves, and by nothing else."""
    texts = ["a", "A", "a ", "ä", "a\0", "a\0b", "a\nb", "'; --", '"', "%", "_", "*", "?", "[a]", "\\", "☃", "k" * 2000]
    for text in texts:
        s.put(("root", text), text, {"text": text})
    for text in texts:
        item = present(s.get(("root", text), text), f"get of {text!r}")
        same((item.namespace, item.key, item.value), (("root", text), text, {"text": text}), f"the item of {text!r}")
        same(s.keys(("root", text)), [text], f"search below {text!r}")
        same(s.keys(("root",), filter={"text": text}), [text], f"filter for {text!r}")
    same(s.list_namespaces(limit=100), sorted(("root", text) for text in texts), "all namespaces")


@check("full")
def namespaces_may_be_lists(s: Subject) -> None:
    """Namespaces, prefixes and suffixes may be lists; items have tuples."""
    s.put([*NS], "k", {"n": 1})
    same(s.get([*NS], "k").namespace, NS, "namespace of an item")
    same(s.keys([*NS]), ["k"], "search")
    same(s.list_namespaces(prefix=[NS[0]], suffix=[NS[1]]), [NS], "list_namespaces")


@check("full")
def only_puts_refuse_reserved_namespaces(s: Subject) -> None:
    """Reading below `langgraph`, or in the empty namespace, finds nothing; operations of a batch may even write there."""
    same(s.get(("langgraph",), "k"), None, "get below langgraph")
    same(s.get((), "k"), None, "get in the empty namespace")
    same((s.search(("langgraph",)), s.list_namespaces(prefix=("langgraph",))), ([], []), "search and list")
    s.delete(("langgraph",), "k")
    s.batch([PutOp(("langgraph",), "k", {"n": 1}), PutOp((), "k", {"n": 2})])
    same([s.get(space, "k").value["n"] for space in [("langgraph",), ()]], [1, 2], "what a batch put there")


@check("full")
def arguments_that_mean_nothing_are_refused(s: Subject) -> None:
    """Numbers, queries, paths, versions and times to live of a wrong kind are refused before anything is stored."""
    bad: Any
    for bad in [{"limit": "5"}, {"limit": 2.5}, {"offset": None}, {"query": 5}]:
        with raises((ValueError, TypeError), f"search with {bad}"):
            s.search(NS, **bad)
    for bad in [{"ttl": "5"}, {"ttl": float("nan")}, {"index": "text"}, {"index": [1]}, {"if_version": -1}]:
        with raises((ValueError, TypeError, NotImplementedError), f"put with {bad}"):
            s.put(NS, "k", {"n": 1}, **bad)
    for bad in ["text", 5, None]:
        with raises((ValueError, TypeError), f"put into {bad!r}"):
            s.put(bad, "k", {"n": 1})
        with raises((ValueError, TypeError), f"search below {bad!r}"):
            s.search(bad)
    for bad in [("a.b",), ("",), (1,)]:
        for call, *more in [("get", "k"), ("delete", "k"), ("search",)]:
            with raises(InvalidNamespaceError, f"{call} with {bad!r}"):
                getattr(s, call)(bad, *more)
    condition: Any = MatchCondition("middle", ("a",))  # type: ignore[arg-type] # nonsense on purpose
    with raises(ValueError, "a condition that is neither prefix nor suffix"):
        s.batch([ListNamespacesOp((condition,))])
    same(s.list_namespaces(), [], "namespaces after nonsense")


@check("full")
def limits_may_be_zero_and_below(s: Subject) -> None:
    """A limit of 0 finds nothing, a negative one everything; a negative offset is none."""
    for n in range(15):
        s.put((*NS, str(n)), f"k{n}", {"n": n})
    same((s.keys(NS, limit=0), s.list_namespaces(limit=0)), ([], []), "limit=0")
    same((len(s.keys(NS, limit=-1)), len(s.list_namespaces(limit=-1))), (15, 15), "limit=-1")
    same(len(s.keys(NS, limit=-1, offset=5)), 10, "limit=-1, offset=5")
    same(s.keys(NS, limit=3, offset=-2), s.keys(NS, limit=3), "offset=-2")


@check("full", once=True)
def large_values_and_many_items(s: Subject) -> None:
    """A value of 2 MB, a value with a thousand fields, and a thousand items in a batch are nothing special."""
    big = {"text": "x" * 2_000_000, "n": 1}
    wide = {f"f{n}": n for n in range(1000)}
    s.put(NS, "big", big)
    s.put(NS, "wide", wide)
    s.batch([PutOp(("many", str(n % 100)), f"k{n}", {"n": n}) for n in range(1000)])
    same(s.get(NS, "big").value, big, "the big value")
    same(s.keys(NS, filter={"f999": 999}), ["wide"], "a filter for the last of many fields")
    same(len(s.keys(("many",), limit=2000)), 1000, "many items")
    same(s.keys(("many",), filter={"n": 567}), ["k567"], "one of many")
    same(sorted(s.keys(("many",), filter={"n": {"$gte": 990}}, limit=100)), [f"k{n}" for n in range(990, 1000)], "ten")
    same(len(s.list_namespaces(prefix=("many",), limit=1000)), 100, "many namespaces")


@check("full", once=True)
def threads_share_a_store(s: Subject) -> None:
    """Threads that put and get at the same time lose nothing and see whole values."""
    errors: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for n in range(20):
                s.put(NS, f"{worker} {n}", {"n": n, "same": [n] * 50})
                item = s.get(NS, f"{(worker + 1) % 4} {n}")
                true(item is None or item.value["same"] == [item.value["n"]] * 50, "a value that is not whole")
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error
    same(len(s.keys(NS, limit=-1)), 80, "items of four threads")


# ---- full: versions


@check("full", "versions")
def versions_count_puts(s: Subject) -> None:
    """`Item.version` counts the puts of a key, from 1, and begins anew after a deletion."""
    for n in range(1, 4):
        s.put(NS, "k", {"n": n})
        same((s.get(NS, "k").version, s.search(NS)[0].version), (n, n), f"version after {n} puts")
    s.delete(NS, "k")
    s.put(NS, "k", {"n": 1})
    same(s.get(NS, "k").version, 1, "version after a deletion and a put")


@check("full", "versions")
def a_version_is_replaced_once(s: Subject) -> None:
    """`if_version` lets a put or a deletion happen only if the item has this version, 0 only if there is none; else
    `VersionConflictError`, and nothing of the batch happens."""
    s.put(NS, "k", {"n": 1}, if_version=0)
    s.put(NS, "k", {"n": 2}, if_version=1)
    for version in (0, 1, 3):
        with raises(VersionConflictError, f"put over version 2 with if_version={version}") as found:
            s.batch([PutOp(NS, "other", {"n": 1}), PutOp(NS, "k", {"n": 9}, if_version=version)])
        same((found.caught.expected, found.caught.found, found.caught.key), (version, 2, "k"), "what the error says")
    with raises(VersionConflictError, "a deletion with another version"):
        s.delete(NS, "k", if_version=1)
    with raises(VersionConflictError, "a put over nothing"):
        s.put(NS, "never", {"n": 1}, if_version=1)
    same((s.get(NS, "k").value, s.keys(NS)), ({"n": 2}, ["k"]), "what is stored after conflicts")
    s.batch([PutOp(NS, "k", {"n": 3}, if_version=2), PutOp(NS, "k", {"n": 4}, if_version=3)])
    s.delete(NS, "k", if_version=4)
    same(s.get(NS, "k"), None, "after a deletion of the right version")


# ---- full: time to live


@check("full", "ttl")
def expired_items_are_nowhere(s: Subject) -> None:
    """An item whose time is over is not found, filtered, counted, listed, nor a version, swept or not."""
    s.put(NS, "k", {"n": 1}, ttl=s.short)
    s.put(("stays",), "k", {"n": 1})
    s.pass_time(1.5, until=lambda: s.get(NS, "k", refresh_ttl=False) is None)
    same((s.get(NS, "k"), s.search(NS), s.keys((), filter={"n": 1})), (None, [], ["k"]), "get, search, filter")
    same(s.list_namespaces(), [("stays",)], "namespaces")
    s.put(NS, "k", {"n": 2}, if_version=0)
    item = s.get(NS, "k")
    same(item.created_at, item.updated_at, "dates of an item that was put over an expired one")
    same(s.keys(NS, filter={"n": 1}), [], "a filter for the value that had expired")


@check("full", "ttl")
def reading_starts_the_time_anew(s: Subject) -> None:
    """`get` and `search` start the time to live of what they return anew, of nothing else, and with `refresh_ttl=False` of
    nothing."""
    if not s.has_clock:
        s.put(NS, "k", {"n": 1}, ttl=60)
        s.get(NS, "k", refresh_ttl=False)
        return
    for key in ("got", "searched", "left", "read"):
        s.put(NS, key, {"key": key}, ttl=s.short)
    for _ in range(3):
        s.pass_time(0.7)
        s.get(NS, "got")
        s.search(NS, filter={"key": "searched"})
        s.get(NS, "read", refresh_ttl=False)
        s.search(NS, filter={"key": "left"}, refresh_ttl=False)
    same(sorted(s.keys(NS)), ["got", "searched"], "what is left after times that are too long in sum")
    s.put(NS, "got", {"n": 1}, ttl=None)
    s.pass_time(100)
    same(s.keys(NS), ["got"], "an item whose last put has no time to live")


@check("full", "ttl", "config")
def defaults_are_configured(s: Subject) -> None:
    """`default_ttl` is for puts that name none, `ttl=None` is for ever all the same, and `refresh_on_read` is what reading
    does unless told."""
    with s.elsewhere(ttl={"default_ttl": s.short, "refresh_on_read": False}) as t:
        t.put(NS, "default", {"n": 1})
        t.put(NS, "ever", {"n": 1}, ttl=None)
        if t.has_clock:
            t.pass_time(0.7)
            same(sorted(t.keys(NS)), ["default", "ever"], "before the time is over")
        t.pass_time(1.5, until=lambda: t.get(NS, "default") is None)
        same(t.keys(NS), ["ever"], "after the default time")


@check("full", "sweep")
def sweeping_removes_what_has_expired(s: Subject) -> None:
    """`sweep_ttl` removes what has expired, nothing else, and says how many that were."""
    for n in range(5):
        s.put(NS, f"k{n}", {"n": n}, ttl=s.short if n < 3 else None)
    s.pass_time(1.5)
    same((s.sweep(), s.sweep()), (3, 0), "what two sweeps say")
    same(sorted(s.keys(NS)), ["k3", "k4"], "what is left")


@check("full")
def a_store_without_times_to_live_says_so(s: Subject) -> None:
    """A store that knows no time to live refuses one with `NotImplementedError`, and stores nothing."""
    if s.store.supports_ttl:
        return
    with raises(NotImplementedError, "put with ttl=1"):
        s.put(NS, "k", {"n": 1}, ttl=1)
    same(s.get(NS, "k"), None, "what a refused put stored")


# ---- full: search by meaning


def _index(**more: Any) -> tuple[Letters, dict[str, Any]]:
    letters = Letters()
    return letters, {"dims": 26, "embed": letters, "fields": ["text"], **more}


@check("full", "index")
def each_text_is_embedded_once(s: Subject) -> None:
    """A batch gives each text that differs to the embedding once, in one call, and nothing that is not searched."""
    letters, index = _index(fields=["text", "more[*]"])
    with s.elsewhere(index=index) as t:
        t.batch(
            [
                PutOp(NS, "a", {"text": "one", "more": ["two", "one"], "not": "this"}),
                PutOp(NS, "b", {"text": "two"}),
                PutOp(NS, "c", {"text": "hidden"}, False),
                PutOp(NS, "d", {"other": "three"}, ["other"]),
                PutOp(NS, "e", {"nothing": 1}),
            ]
        )
        same(sorted(letters.texts), ["one", "three", "two"], "the texts that were embedded")
        same(t.keys(NS, query="three")[0], "d", "an item whose put named its own paths")
        scored = [item.key for item in t.search(NS, query="one") if item.score is not None]
        same(sorted(scored), ["a", "b", "d"], "items with a score")


@check("full", "index")
def the_best_field_counts(s: Subject) -> None:
    """An item with several texts is found once, by the nearest of them; limit and offset count items."""
    _, index = _index(fields=["one", "two"])
    with s.elsewhere(index=index) as t:
        t.put(NS, "a", {"one": "xx", "two": "bb"})
        t.put(NS, "b", {"one": "ab", "two": "zz"})
        t.put(NS, "c", {"one": "bz"})
        found = t.search(NS, query="b")
        same(found[0].key, "a", "the nearest")
        same(sorted(item.key for item in found), ["a", "b", "c"], "all, each once")
        true(abs(found[0].score - 1) < 1e-3, f"the score of an equal text is {found[0].score}, not 1")
        true(abs(found[1].score - 0.5**0.5) < 1e-3, f"the second score is {found[1].score}, not the cosine")
        same(t.keys(NS, query="b", limit=1), ["a"], "limit=1")


@check("full", "index")
def a_put_replaces_what_is_searched(s: Subject) -> None:
    """The texts of an item are those of its last put; with `index=False` it has none."""
    _, index = _index()
    with s.elsewhere(index=index) as t:
        t.put(NS, "k", {"text": "aaa"})
        t.put(NS, "k", {"text": "bbb"})
        near = [item.score for item in t.search(NS, query="b")]
        true(len(near) == 1 and abs(near[0] - 1) < 1e-3, f"scores after a second put: {near}")
        t.put(NS, "k", {"text": "bbb"}, index=False)
        same([item.score for item in t.search(NS, query="b") if item.score is not None], [], "after index=False")
        t.put(NS, "k", {"text": "bbb"})
        t.delete(NS, "k")
        same(t.search(NS, query="b"), [], "after a deletion")


@check("full", "index")
def queries_and_filters_go_together(s: Subject) -> None:
    """A search with a query and a filter gives the nearest of what meets the filter; equally near items always come in the
    same order; an empty query is none."""
    _, index = _index()
    with s.elsewhere(index=index) as t:
        for n in range(20):
            t.put((*NS, str(n % 3)), f"k{n:02}", {"text": "a" if n < 10 else "ab", "even": n % 2 == 0})
        found = t.search(NS, query="a", filter={"even": True}, limit=7)
        same([item.value["even"] for item in found], [True] * 7, "what the filter lets through")
        same([item.value["text"] for item in found], ["a"] * 5 + ["ab"] * 2, "the nearest first")
        everything = t.keys(NS, query="a", limit=20)
        same([t.keys(NS, query="a", limit=1, offset=n)[0] for n in range(20)], everything, "pages of one")
        same([item.score for item in t.search(NS, query="")], [None] * 10, "an empty query")


@check("full", "index")
def an_embedding_that_fails_changes_nothing(s: Subject) -> None:
    """An error of the embedding, and vectors that are no numbers, reach the caller, and nothing was stored."""
    letters, index = _index()
    with s.elsewhere(index=index) as t:
        letters.error = LookupError("the model is away")
        with raises(LookupError, "put while the embedding fails"):
            t.batch([PutOp(NS, "plain", {"n": 1}, False), PutOp(NS, "k", {"text": "a"})])
        letters.error = None
        same(t.keys(NS), [], "what was stored")
        t.put(NS, "k", {"text": "a"})
        letters.error = LookupError("the model is away")
        with raises(LookupError, "search while the embedding fails"):
            t.search(NS, query="b")
        same(t.keys(NS), ["k"], "a search without a query, which needs no embedding")


# ---- full: everything together


class _Model:
    """What a store must do, as a dict: the reference of random programs."""

    def __init__(self) -> None:
        self.items: dict[tuple[tuple[str, ...], str], tuple[dict[str, Any], int]] = {}

    def carry_out(self, op: Any) -> Any:
        if isinstance(op, PutOp):
            address = op.namespace, op.key
            former = self.items.pop(address, (None, 0))
            if op.value is not None:
                self.items[address] = dict(op.value), former[1] + 1
            return None
        if isinstance(op, GetOp):
            return self.items.get((op.namespace, op.key))
        if isinstance(op, SearchOp):
            below = {
                (space, key): value
                for (space, key), value in self.items.items()
                if space[: len(op.namespace_prefix)] == op.namespace_prefix
            }
            return {address: value for address, value in below.items() if matches_filter(value[0], op.filter or {})}
        return sorted({space for space, _ in self.items})


@check("full")
def random_programs_are_carried_out(s: Subject) -> None:
    """Batches of random operations have the results that a dict would give, and leave what it would hold."""
    for seed in range(4):
        _play(s, random.Random(seed), (f"seed {seed}",))


def _play(s: Subject, chance: random.Random, root: tuple[str, ...]) -> None:
    model = _Model()
    for _ in range(12):
        batch = [_random_op(chance, root) for _ in range(chance.randint(1, 8))]
        for op, found in zip(batch, s.batch(batch), strict=True):
            wanted = model.carry_out(op)
            if isinstance(op, GetOp):
                found = found and found.value
                wanted = wanted and wanted[0]
            elif isinstance(op, SearchOp):
                found = {(item.namespace, item.key): item.value for item in found}
                wanted = {address: value[0] for address, value in wanted.items()}
            elif isinstance(op, ListNamespacesOp):
                found = [space for space in found if space[: len(root)] == root]
            same(found, wanted, f"the result of {op!r}")


def _random_op(chance: random.Random, root: tuple[str, ...]) -> Any:
    space = (*root, *chance.choices("ab", k=chance.randint(0, 2)))
    key = chance.choice("xyz")
    kind = chance.randrange(8)
    if kind < 4:
        value = {chance.choice("nm"): chance.choice(_SCALARS), "d": {"e": chance.choice(_SCALARS)}}
        return PutOp(space, key, value if kind else None)
    if kind == 4:
        return GetOp(space, key)
    if kind == 5:
        return ListNamespacesOp((MatchCondition("prefix", root),), None, -1)
    field = chance.choice(("n", "m", "d.e", "d"))
    want = chance.choice(_SCALARS)
    operator = chance.choice(("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists"))
    condition: Any = {operator: [want] if operator in ("$in", "$nin") else want}
    if field == "d":
        condition = {"e": condition}
    return SearchOp(space, {field: condition if chance.random() < 0.7 else want}, -1)


_SCALARS: Final = (None, True, False, 0, 1, 2, 1.5, -1, "", "a", "b", "1", "2.5", "nan", 2**53, 2**53 + 1, 2**64)
