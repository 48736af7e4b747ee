"""The rules for caches: what a graph, and whoever asks a cache himself, relies on.

Level base: what every cache with LangGraph's interface does. Level full: the rules of this package (`cache.base`), hostile
keys, concurrent callers. Level durable: what must survive closing the cache, and several caches at one place.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final

from checkpoint.testing.report import Skipped, one_of, raises, same, true
from pregel.testing.cache_subject import Subject, check

KEY: Final[Any] = (("a", "b"), "k")
OTHER: Final[Any] = (("a", "b"), "other")
VALUES: Final[dict[str, Any]] = {
    "text": "hello \u4e2d",
    "empty text": "",
    "number": 42,
    "zero": 0,
    "float": 1.5,
    "false": False,
    "none": None,
    "bytes": b"\x00\xff:\n",
    "empty bytes": b"",
    "list": [1, "two", None, [3.0]],
    "empty list": [],
    "dict": {"a": {"b": [1, {"c": None}]}},
}
HOSTILE: Final[list[Any]] = [
    (("a", "b"), "k"),
    (("a,b",), "k"),
    (("a:b",), "k"),
    (("a|b",), "k"),
    (("a\x00b",), "k"),
    (("a",), "b:k"),
    (("a",), "b"),
    (("a", ""), "k"),
    (("", "a"), "k"),
    (("",), "k"),
    ((), "k"),
    ((), ""),
    (("*",), "?"),
    (("%",), "_"),
    (("A",), "b"),
    (("\u4e2d",), "\U0001f600"),
    (("a" * 1000,), "k" * 1000),
]

# ---- base


@check("base")
def nothing_is_there_at_first(s: Subject) -> None:
    """A new cache has nothing; asking for no key gives nothing."""
    same(s.get(), {}, "get([])")
    same(s.get(KEY, OTHER), {}, "get of two keys of a new cache")


@check("base")
def set_then_get(s: Subject) -> None:
    """What was set is found under its key, equal and of the same type, None and empty values too."""
    s.set({(("v",), name): value for name, value in VALUES.items()})
    found = s.get(*[(("v",), name) for name in VALUES])
    same({name: value for (_, name), value in found.items()}, VALUES, "values")
    types = {name: type(value).__name__ for (_, name), value in found.items()}
    same(types, {name: type(value).__name__ for name, value in VALUES.items()}, "types")


@check("base")
def writes_survive(s: Subject) -> None:
    """A list of (channel, value) pairs, which is what a graph keeps, comes back as pairs."""
    s.set({KEY: [("a", [1]), ("b", None)]})
    found = s.get(KEY).get(KEY)
    true(isinstance(found, list), f"the entry is a {type(found).__name__}")
    same([tuple(pair) for pair in found or ()], [("a", [1]), ("b", None)], "the pairs")


@check("base")
def only_what_was_asked_for(s: Subject) -> None:
    """`get` gives the entries of the given keys, missing ones left out, and of no others."""
    s.set({KEY: 1, OTHER: 2, (("c",), "k"): 3})
    same(s.get(OTHER, (("missing",), "k")), {OTHER: 2}, "get of one key that is there and one that is not")
    same(s.get(KEY, KEY), {KEY: 1}, "get of one key twice")


@check("base")
def a_set_replaces(s: Subject) -> None:
    """A later value takes the place of an earlier one, and nothing else changes."""
    s.set({KEY: "old", OTHER: "kept"})
    s.set({KEY: "new"})
    same(s.get(KEY, OTHER), {KEY: "new", OTHER: "kept"}, "entries")
    s.set({})
    same(s.get(KEY), {KEY: "new"}, "the entry after set({})")


@check("base")
def clear_removes_whole_namespaces(s: Subject) -> None:
    """`clear(namespaces)` removes all entries of exactly these namespaces, not of those below or beside them."""
    keys: list[Any] = [(("a",), "1"), (("a",), "2"), (("a", "b"), "1"), (("ab",), "1"), (("b",), "1")]
    s.set(dict.fromkeys(keys, 1))
    s.clear([("a",), ("missing",)])
    same(set(s.get(*keys)), set(keys[2:]), "keys after clear([('a',), ('missing',)])")
    s.clear([])
    same(set(s.get(*keys)), set(keys[2:]), "keys after clear([])")


@check("base")
def clear_removes_everything(s: Subject) -> None:
    """`clear()` removes all entries; the cache goes on working."""
    s.set({KEY: 1, (("c",), "k"): 2})
    s.clear()
    same(s.get(KEY, (("c",), "k")), {}, "entries after clear()")
    s.set({KEY: 3})
    same(s.get(KEY), {KEY: 3}, "an entry that was set after clear()")


@check("base")
def entries_expire(s: Subject) -> None:
    """An entry is not found when its time to live, in seconds, has passed; one without a time stays."""
    s.call("set", {KEY: (1, 1), OTHER: (2, None), (("c",), "k"): (3, 1000)})
    same(s.get(KEY), {KEY: 1}, "an entry that lives for 1 s, at once")
    s.wait_for(KEY)
    same(s.get(KEY, OTHER, (("c",), "k")), {OTHER: 2, (("c",), "k"): 3}, "entries after a second")


@check("base")
def a_new_value_has_a_new_time(s: Subject) -> None:
    """Setting an entry again starts its time anew, or ends it."""
    s.set({KEY: 1, OTHER: 1}, 1)
    s.set({KEY: 2})
    s.wait_for(OTHER)
    same(s.get(KEY, OTHER), {KEY: 2}, "entries after a second")
    s.set({OTHER: 3})
    same(s.get(OTHER), {OTHER: 3}, "an entry that had expired and was set again")


# ---- full


@check("full")
def keys_are_never_mixed_up(s: Subject) -> None:
    """Labels and keys with separators, wildcards, NUL, or nothing in them are different keys, for `clear` too."""
    s.set({key: n for n, key in enumerate(HOSTILE)})
    same(s.get(*HOSTILE), {key: n for n, key in enumerate(HOSTILE)}, "entries of hostile keys")
    gone = [HOSTILE[n] for n in (1, 5, 8, 12, 13)]
    s.clear([namespace for namespace, _ in gone])
    left = {key for key in HOSTILE if key[0] not in {namespace for namespace, _ in gone}}
    same(set(s.get(*HOSTILE)), left, "keys after clear of some of the namespaces")


@check("full")
def types_survive(s: Subject) -> None:
    """Tuples, sets and keys that are no text come back as what they were."""
    value = {"t": (1, (2,)), "s": {1, 2}, 3: "int key", "l": [(1,), [1]]}
    s.set({KEY: value})
    same(s.get(KEY), {KEY: value}, "the entry")


@check("full")
def values_are_private(s: Subject) -> None:
    """Whoever changes what he gave or what he was given does not change the entry."""
    value = {"l": [1]}
    s.set({KEY: value})
    value["l"].append(2)
    same(s.get(KEY), {KEY: {"l": [1]}}, "the entry after the given value was changed")
    s.get(KEY)[KEY]["l"].append(3)
    same(s.get(KEY), {KEY: {"l": [1]}}, "the entry after the returned value was changed")


@check("full")
def a_value_that_cannot_be_kept_is_refused(s: Subject) -> None:
    """`set` raises for a value that cannot be bytes; nothing of the call is kept, and what was there stays."""
    s.set({KEY: "old"})
    with raises(Exception, "set of a lock"):
        s.set({KEY: "new", OTHER: threading.Lock()})
    same(s.get(KEY, OTHER), {KEY: "old"}, "entries after a set that was refused")


@check("full", "serde")
def what_cannot_be_read_is_a_miss(s: Subject) -> None:
    """An entry whose bytes nobody can read any more is not found; it can be set again."""

    class Writing:
        def dumps_typed(self, value: Any) -> tuple[str, bytes]:
            return "msgpack", b"\xc1\xc1"

    reading = s.cache.serde
    s.cache.serde = Writing()
    try:
        s.set({KEY: 1})
    finally:
        s.cache.serde = reading
    same(s.get(KEY, OTHER), {}, "get of an entry that cannot be read")
    s.set({KEY: 2})
    same(s.get(KEY), {KEY: 2}, "the entry after it was set again")


@check("full")
def many_and_large(s: Subject) -> None:
    """A thousand keys in one call, and a value of a megabyte."""
    s.set({(("n",), str(n)): n for n in range(1000)})
    found = s.get(*[(("n",), str(n)) for n in range(1000)])
    same(sum(found.values()), 499500, "sum of a thousand entries")
    s.set({KEY: b"x" * 1_000_000})
    same(len(s.get(KEY)[KEY]), 1_000_000, "bytes of a large entry")


@check("full")
def both_colours_are_one_cache(s: Subject) -> None:
    """What the sync methods set the async ones find, and the other way round."""
    if s.colour != "async":
        raise Skipped("checked in the async colour")
    s.cache.set({KEY: (1, None)})
    same(s.get(KEY), {KEY: 1}, "aget after set")
    s.set({OTHER: 2})
    same(s.cache.get([KEY, OTHER]), {KEY: 1, OTHER: 2}, "get after aset")


@check("full")
def threads_share_it(s: Subject) -> None:
    """Several threads may use it at once; everybody finds a whole value that somebody has set."""
    errors: list[str] = []

    def use(me: int) -> None:
        for n in range(30):
            s.cache.set({KEY: ([me] * 50, None), (("mine",), f"{me}.{n}"): (n, None)})
            found = s.cache.get([KEY, (("mine",), f"{me}.{n}")])
            if found.get((("mine",), f"{me}.{n}")) != n:
                errors.append(f"thread {me} does not find what it has set")
            if len(set(found.get(KEY, ()))) != 1:
                errors.append(f"thread {me} found {found.get(KEY)!r}")

    _together(s, [lambda me=me: use(me) for me in range(4)])  # type: ignore[misc]
    same(errors[:3], [], "what threads found")


@check("full")
def a_cancelled_call_leaves_it_usable(s: Subject) -> None:
    """A coroutine that is cancelled in a call has set the entry or not; the cache goes on working."""
    if s.colour != "async":
        raise Skipped("there is nothing to cancel in the sync colour")

    async def cancel() -> None:
        calls = [asyncio.ensure_future(s.cache.aset({KEY: (n, None)})) for n in range(10)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*calls, return_exceptions=True)

    s.run(cancel())
    one_of(s.get(KEY).get(KEY), [None, *range(10)], "the entry after ten cancelled calls")
    s.set({KEY: "after"})
    same(s.get(KEY), {KEY: "after"}, "an entry that was set after that")


@check("full", "get_or_compute")
def a_miss_computes_and_a_hit_does_not(s: Subject) -> None:
    """`get_or_compute` keeps what the function returns, with its time to live; what it raises is not kept."""
    calls: list[int] = []

    def compute() -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError("down")
        return {"n": len(calls)}

    with raises(ConnectionError, "get_or_compute of a function that fails"):
        s.call("get_or_compute", KEY, s.computing(compute))
    found = [s.call("get_or_compute", KEY, s.computing(compute), 1) for _ in range(2)]
    same(found, [{"n": 2}] * 2, "get_or_compute, twice")
    same(s.get(KEY), {KEY: {"n": 2}}, "the entry")
    s.wait_for(KEY)
    same(s.call("get_or_compute", KEY, s.computing(compute)), {"n": 3}, "get_or_compute after it has expired")


@check("full", "get_or_compute")
def misses_at_once_compute_once(s: Subject) -> None:
    """Of threads or coroutines that miss together one computes, the others get its result."""
    calls: list[int] = []
    found: list[Any] = []
    started, go_on = threading.Event(), threading.Event()

    def compute() -> int:
        calls.append(1)
        started.set()
        go_on.wait(60)
        return 7

    async def acompute() -> int:
        calls.append(1)
        await asyncio.sleep(0)
        return 7

    async def together() -> list[Any]:
        return await asyncio.gather(*[s.cache.aget_or_compute(KEY, acompute) for _ in range(5)])

    if s.colour == "async":
        found = s.run(together())
    else:
        threads = [_thread(lambda: found.append(s.cache.get_or_compute(KEY, compute))) for _ in range(5)]
        started.wait(60)
        go_on.set()
        for thread in threads:
            thread.join()
    same((found, len(calls)), ([7] * 5, 1), "results, and how often it was computed")


@check("full", "get_or_compute")
def nobody_waits_for_himself(s: Subject) -> None:
    """A function that asks for the key it computes is an error, not a deadlock."""

    def compute() -> Any:
        return s.cache.get_or_compute(KEY, compute)

    async def acompute() -> Any:
        return await s.cache.aget_or_compute(KEY, acompute)

    with raises(RuntimeError, "get_or_compute inside itself"):
        s.call("get_or_compute", KEY, acompute if s.colour == "async" else compute)
    same(s.get(KEY), {}, "entries after that")


@check("full", "bounds", "clock")
def what_was_not_used_for_longest_goes_first(s: Subject) -> None:
    """With `max_entries=3`, the fourth entry displaces the one that was not used for longest."""
    cache = s.another(max_entries=3)
    keys: list[Any] = [(("n",), str(n)) for n in range(5)]
    for key in keys[:3]:
        s.clock.now += 100
        s.set({key: 1}, cache=cache)
    s.clock.now += 100
    s.get(keys[0], cache=cache)
    s.clock.now += 100
    s.set(dict.fromkeys(keys[3:], 1), cache=cache)
    sweep = getattr(cache, "sweep", None)
    if sweep is not None:
        sweep()
    same(set(s.get(*keys, cache=cache)), {keys[0], *keys[3:]}, "keys that are left of five")


# ---- durable


@check("durable", "reopen")
def entries_survive_closing(s: Subject) -> None:
    """What was set is found by the next cache at the place; what was cleared or has expired is not."""
    s.call("set", {KEY: ({"t": (1,)}, None), OTHER: (2, 1), (("c",), "k"): (3, None)})
    s.clear([("c",)])
    s.reopen()
    same(s.get(KEY, OTHER, (("c",), "k")), {KEY: {"t": (1,)}, OTHER: 2}, "entries after opening it anew")
    s.wait_for(OTHER)
    s.reopen()
    same(s.get(KEY, OTHER), {KEY: {"t": (1,)}}, "entries after a second")


@check("durable", "reopen")
def caches_at_one_place_share(s: Subject) -> None:
    """Two caches at a place see each other's entries at once, also those that replace others."""
    other = s.another()
    s.set({KEY: 1})
    same(s.get(KEY, cache=other), {KEY: 1}, "what the other cache finds")
    s.set({KEY: 2, OTHER: 3}, cache=other)
    same(s.get(KEY, OTHER), {KEY: 2, OTHER: 3}, "what the first cache finds")
    s.clear()
    same(s.get(KEY, OTHER, cache=other), {}, "what the other one finds after clear()")


@check("durable", "reopen")
def caches_at_one_place_write_together(s: Subject) -> None:
    """Several caches at a place write from several threads; nobody is refused and nothing is lost."""
    caches = [s.cache, s.another(), s.another()]

    def write(me: int) -> None:
        for n in range(40):
            caches[me].set({(("w",), f"{me}.{n}"): (n, None)})

    _together(s, [lambda me=me: write(me) for me in range(3)])  # type: ignore[misc]
    keys = [(("w",), f"{me}.{n}") for me in range(3) for n in range(40)]
    same(len(s.get(*keys)), len(keys), "entries of three writers")


@check("durable", "reopen", "damage")
def damage_never_gives_a_wrong_value(s: Subject) -> None:
    """From damaged storage comes the value that was set, a miss, or an error; never another value."""
    value = {"l": ["x" * 50] * 40}
    assert s.making.damage is not None
    names = list(s.making.damage(s.place))
    for name in names:
        s.reopen()
        s.set({KEY: value})
        _close(s)
        s.making.damage(s.place)[name]()
        try:
            s.cache = s.another()
            found = s.get(KEY).get(KEY, value)
        except Exception:  # noqa: BLE001 - an error is an answer
            found = value
        same(found, value, f"the entry after damage {name!r}")
        with contextlib.suppress(Exception):
            _close(s)
        for left in s.place.parent.glob(f"{s.place.name}*"):
            left.unlink()
        s.cache = s.another()


def _close(s: Subject) -> None:
    close = getattr(s.cache, "close", None)
    if close is not None:
        close()


def _thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def _together(s: Subject, functions: list[Callable[[], object]]) -> None:
    """Run functions on threads of their own; raises the first error."""
    errors: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised below, in the check
            errors.append(error)

    threads = [_thread(lambda function=function: guarded(function)) for function in functions]  # type: ignore[misc]
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
