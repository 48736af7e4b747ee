"""Caches: what is there, what is gone, and that equal misses compute once; in both colours, over every kind."""

import asyncio
import contextlib
import fnmatch
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint.base import UnregisteredTypeError
from pregel.cache.base import BaseCache, packed
from pregel.cache.memory import InMemoryCache
from pregel.cache.redis import RedisCache
from pregel.cache.sqlite import CacheOpenError, SqliteCache
from pregel.warnings import PregelWarning
from tests.support.scenarios import Colour

START = 1_700_000_000.0
KEY: Any = (("a", "b"), "k")


class Clock:
    """Stands still until it is told to go on. Seconds."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Server:
    """As much of a Redis server as the cache asks for, with the clock of the test."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.entries: dict[bytes, tuple[bytes, float | None]] = {}
        self.is_down = False

    def _live(self, name: str | bytes) -> bytes | None:
        if self.is_down:
            raise ConnectionError("no route to host")
        body, expires_at = self.entries.get(name.encode() if isinstance(name, str) else name, (None, None))
        return None if expires_at is not None and expires_at <= self.clock.now else body

    def mget(self, names: list[str]) -> list[bytes | None]:
        return [self._live(name) for name in names]

    def set(self, name: str, body: bytes, px: int | None = None) -> None:
        self._live(name)
        self.entries[name.encode()] = body, None if px is None else self.clock.now + px / 1000

    def unlink(self, *names: str | bytes) -> None:
        for name in names:
            self._live(name)
            self.entries.pop(name.encode() if isinstance(name, str) else name, None)

    def scan_iter(self, match: str, count: int) -> Iterator[bytes]:
        # What Redis escapes by a backslash, fnmatch puts into brackets.
        pattern = "".join(f"[{part[0]}]{part[1:]}" if at else part for at, part in enumerate(match.split("\\")))
        yield from [name for name in [*self.entries] if fnmatch.fnmatchcase(name.decode(), pattern)]

    def pipeline(self, transaction: bool) -> Any:
        assert not transaction
        return self

    def execute(self) -> None:
        pass


class Calls:
    """The methods of a cache under one name in both colours."""

    def __init__(self, colour: Colour, cache: BaseCache[Any]) -> None:
        self.cache: Any = cache
        self._colour = colour

    def __getattr__(self, method: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._colour.is_async:
                return asyncio.run(getattr(self.cache, f"a{method}")(*args, **kwargs))
            return getattr(self.cache, method)(*args, **kwargs)

        return call

    def has(self, *keys: Any) -> list[Any]:
        return [self.get([key]).get(key) for key in keys]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextlib.contextmanager
def made(kind: str, tmp_path: Path, clock: Clock, **kwargs: Any) -> Iterator[Any]:
    if kind == "memory":
        yield InMemoryCache(clock=clock, **kwargs)
    elif kind == "sqlite":
        with SqliteCache(tmp_path / "cache", clock=clock, **kwargs) as cache:
            yield cache
    else:
        yield RedisCache(Server(clock), **kwargs)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def calls(request: pytest.FixtureRequest, colour: Colour, tmp_path: Path, clock: Clock) -> Iterator[Calls]:
    with made(request.param, tmp_path, clock) as cache:
        yield Calls(colour, cache)


# ---- every kind


def test_entries_are_there_until_they_are_replaced_or_cleared(calls: Calls) -> None:
    other: Any = (("a", "b"), "other")
    assert calls.get([KEY]) == calls.get([]) == {}
    calls.set({KEY: ([("n", 1), ("t", (1, 2))], None), other: (None, None)})
    assert calls.get([KEY, other, (("a",), "k")]) == {KEY: [("n", 1), ("t", (1, 2))], other: None}
    calls.set({KEY: ("new", None)})
    assert calls.has(KEY) == ["new"]
    calls.set({})
    calls.clear()
    assert calls.get([KEY, other]) == {}


def test_namespaces_are_never_mixed_up(calls: Calls) -> None:
    keys: list[Any] = [
        (("a", "b"), "k"),
        (("a,b",), "k"),
        (("a:b",), "k"),
        (("a",), "b:k"),
        (("a",), "b"),
        ((), "k"),
        (("*",), "?"),
        (("\ud800",), "k"),
    ]
    calls.set({key: (n, None) for n, key in enumerate(keys)})
    assert calls.has(*keys) == [*range(len(keys))]
    calls.clear([("a",), ("*",), ("missing",)])
    assert calls.has(*keys) == [0, 1, 2, None, None, 5, None, 7]
    calls.clear([])
    calls.clear([["a", "b"]])
    assert calls.has(*keys) == [None, 1, 2, None, None, 5, None, 7]
    assert len({packed(labels) for labels, _ in keys}) == 7


def test_an_expired_entry_is_not_there(calls: Calls, clock: Clock) -> None:
    calls.set({KEY: (1, 10), (("a",), "always"): (2, None)})
    clock.now += 9
    assert calls.has(KEY) == [1]
    clock.now += 1
    assert calls.has(KEY, (("a",), "always")) == [None, 2]
    calls.set({KEY: (3, None)})
    clock.now += 100
    assert calls.has(KEY) == [3]


def test_values_are_private_copies(calls: Calls) -> None:
    value = {"l": [1]}
    calls.set({KEY: (value, None)})
    value["l"].append(2)
    calls.has(KEY)[0]["l"].append(3)
    assert calls.has(KEY) == [{"l": [1]}]


def test_what_cannot_be_kept_is_refused_whole(calls: Calls) -> None:
    with pytest.raises(UnregisteredTypeError) as caught:
        calls.set({KEY: (1, None), (("a",), "lock"): (threading.Lock(), None)})
    assert "'lock'" in caught.value.__notes__[-1]
    assert calls.get([KEY]) == {}


def test_what_cannot_be_read_any_more_is_a_miss(calls: Calls) -> None:
    class Written:
        def dumps_typed(self, value: Any) -> tuple[str, bytes]:
            return "m1", b"\xc1"

    reading = calls.cache.serde
    calls.cache.serde = Written()
    calls.set({KEY: (1, None)})
    calls.cache.serde = reading
    assert calls.get([KEY]) == {}
    calls.set({KEY: (2, None)})
    assert calls.has(KEY) == [2]


# ---- single flight


def test_a_miss_computes_and_a_hit_does_not(calls: Calls) -> None:
    asked: list[int] = []

    def compute() -> dict[str, int]:
        asked.append(1)
        return {"n": len(asked)}

    async def acompute() -> dict[str, int]:
        return compute()

    function = acompute if calls._colour.is_async else compute
    first = calls.get_or_compute(KEY, function)
    first["n"] = 99
    assert calls.get_or_compute(KEY, function) == {"n": 1}
    assert calls.get_or_compute((("a",), "k"), function, ttl=5) == {"n": 2}
    assert len(asked) == 2


def test_threads_that_miss_together_compute_once(tmp_path: Path, clock: Clock) -> None:
    for kind in ("memory", "sqlite", "redis"):
        with made(kind, tmp_path, clock) as cache:
            started, go_on = threading.Event(), threading.Event()
            asked: list[int] = []
            found: list[Any] = []

            def compute(asked: list[int] = asked, started: Any = started, go_on: Any = go_on) -> str:
                asked.append(1)
                started.set()
                assert go_on.wait(60)
                if len(asked) == 1:
                    raise ConnectionError("the first one fails")
                return "value"

            def ask(cache: Any = cache, found: list[Any] = found, compute: Any = compute) -> None:
                try:
                    found.append(cache.get_or_compute(KEY, compute))
                except ConnectionError as error:
                    found.append(str(error))

            threads = [threading.Thread(target=ask) for _ in range(5)]
            for thread in threads:
                thread.start()
            assert started.wait(60)
            go_on.set()
            for thread in threads:
                thread.join()
            assert sorted(found) == ["the first one fails", *["value"] * 4]
            assert len(asked) == 2


def test_coroutines_that_miss_together_compute_once(tmp_path: Path, clock: Clock) -> None:
    async def main(cache: Any) -> None:
        asked: list[int] = []

        async def compute() -> str:
            asked.append(1)
            await asyncio.sleep(0)
            return "value"

        assert await asyncio.gather(*(cache.aget_or_compute(KEY, compute) for _ in range(20))) == ["value"] * 20
        assert len(asked) == 1

    for kind in ("memory", "sqlite", "redis"):
        with made(kind, tmp_path, clock) as cache:
            asyncio.run(main(cache))


def test_an_entry_that_computes_itself_is_an_error_and_no_deadlock(calls: Calls) -> None:
    cache = calls.cache

    def compute() -> Any:
        return cache.get_or_compute(KEY, compute)

    async def acompute() -> Any:
        return await cache.aget_or_compute(KEY, acompute)

    with pytest.raises(RuntimeError, match="'k'"):
        calls.get_or_compute(KEY, acompute if calls._colour.is_async else compute)
    assert calls.get([KEY]) == {}
    assert not cache._flights


# ---- bounds


def test_what_was_not_used_for_longest_goes_first(colour: Colour, tmp_path: Path, clock: Clock) -> None:
    for kind in ("memory", "sqlite"):
        with made(kind, tmp_path / kind if kind == "memory" else tmp_path, clock, max_entries=3) as cache:
            calls = Calls(colour, cache)
            keys: list[Any] = [(("a",), str(n)) for n in range(5)]
            for n, key in enumerate(keys[:3]):
                clock.now += 100
                calls.set({key: (n, None)})
            clock.now += 100
            assert calls.has(keys[0]) == [0]
            clock.now += 100
            calls.set({keys[3]: (3, None), keys[4]: (4, None)})
            if kind == "sqlite":
                assert cache.sweep() == 2
            assert calls.has(*keys) == [0, None, None, 3, 4]


def test_bytes_are_bounded(colour: Colour, tmp_path: Path, clock: Clock) -> None:
    for kind in ("memory", "sqlite"):
        with made(kind, tmp_path, clock, max_bytes=1000) as cache:
            calls = Calls(colour, cache)
            keys: list[Any] = [(("a",), str(n)) for n in range(5)]
            for key in keys:
                clock.now += 1
                calls.set({key: (b"x" * 300, None)})
            calls.set({(("a",), "large"): (b"x" * 2000, None)})
            if kind == "sqlite":
                cache.sweep()
            assert [value is not None for value in calls.has(*keys, (("a",), "large"))] == [
                False,
                False,
                True,
                True,
                True,
                False,
            ]


def test_expired_entries_are_freed(clock: Clock, tmp_path: Path) -> None:
    memory = InMemoryCache[Any](clock=clock)
    with SqliteCache[Any](tmp_path / "cache", clock=clock) as stored:
        for cache in (memory, stored):
            cache.set({(("a",), str(n)): (n, 1) for n in range(200)})
        clock.now += 10
        for cache in (memory, stored):
            cache.set({(("b",), str(n)): (n, 1) for n in range(400)})
        assert len(memory._entries) == 400
        assert stored._conn.execute("SELECT count(*) FROM cache_entries").fetchone() == (400,)


# ---- one kind


def test_a_file_is_shared(colour: Colour, tmp_path: Path) -> None:
    with SqliteCache[Any](tmp_path / "cache") as one, SqliteCache[Any](tmp_path / "cache") as two:
        Calls(colour, one).set({KEY: ({"t": (1, 2)}, None)})
        assert Calls(colour, two).has(KEY) == [{"t": (1, 2)}]
    with SqliteCache[Any](tmp_path / "cache") as again:
        assert Calls(colour, again).has(KEY) == [{"t": (1, 2)}]


def test_a_server_that_is_down_is_a_miss_that_warns(colour: Colour, clock: Clock) -> None:
    server = Server(clock)
    calls = Calls(colour, RedisCache[Any](server))
    calls.set({KEY: (1, None)})
    server.is_down = True
    for call in (lambda: calls.get([KEY]), lambda: calls.set({KEY: (2, None)}), calls.clear):
        with pytest.warns(PregelWarning, match="no route to host"):
            assert not call()
    server.is_down = False
    assert calls.has(KEY) == [1]


def test_a_prefix_is_taken_literally(colour: Colour, clock: Clock) -> None:
    server = Server(clock)
    odd, other = (Calls(colour, RedisCache[Any](server, prefix=prefix)) for prefix in ("a*[b]?:", "aXXb:"))
    odd.set({KEY: (1, None)})
    other.set({KEY: (2, None)})
    odd.clear()
    assert (odd.has(KEY), other.has(KEY)) == ([None], [2])


# ---- files


def test_only_the_owner_reads_a_file(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with SqliteCache[Any](tmp_path / "cache") as cache:
            cache.set({KEY: (1, None)})
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    assert modes == {"cache": 0o600, "cache-wal": 0o600, "cache-shm": 0o600}


def test_a_cache_in_memory_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with SqliteCache[Any](":memory:") as cache:
        cache.set({KEY: (1, None)})
        assert cache.get([KEY]) == {KEY: 1}
    assert not [*tmp_path.iterdir()]


def test_an_answer_under_another_key_is_a_miss(colour: Colour, tmp_path: Path) -> None:
    other: Any = (("a", "b"), "other")
    with SqliteCache[Any](tmp_path / "cache") as cache:
        calls = Calls(colour, cache)
        calls.set({KEY: ("one", None), other: ("two", None)})
        cache._conn.execute("UPDATE cache_entries SET key = CASE key WHEN 'k' THEN 'x' ELSE 'k' END")
        assert calls.has(KEY, (("a", "b"), "x")) == [None, None]
        assert cache._conn.execute("SELECT count(*) FROM cache_entries").fetchone() == (0,)


def test_who_was_overtaken_between_asking_and_computing_asks_again(colour: Colour) -> None:
    """A first look that missed says nothing of now: another thread may have come and gone."""

    class Overtaken(InMemoryCache[Any]):
        def get(self, keys: Any) -> Any:
            found = super().get(keys)
            self.set({KEY: ("theirs", None)})
            return found

    def compute() -> str:
        raise AssertionError("it is there")

    assert Calls(colour, Overtaken()).get_or_compute(KEY, compute) == "theirs"


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database at all, and longer than its header would be" * 10)
    for path in (tmp_path, tmp_path / "missing" / "cache", text):
        with pytest.raises(CacheOpenError, match=path.name):
            SqliteCache[Any](path)
    assert text.read_text().startswith("no database")
