"""Every cache of ours passes its kit, and caches with one classic mistake each do not: the check that fails names it."""

import asyncio
import contextlib
import json
import shutil
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pregel.cache.memory import InMemoryCache, _Entry
from pregel.cache.redis import RedisCache
from pregel.cache.sqlite import SqliteCache
from pregel.testing.cache import CHECKS, ConformanceError, ConformanceSuite, run_conformance
from tests.cache.test_caches import Clock, Server

# ---- ours


class TestInMemoryCache(ConformanceSuite):
    level = "full"

    def make_cache(self, *, clock: Any, max_entries: int | None = 1000) -> Any:  # type: ignore[override]
        return InMemoryCache(clock=clock, max_entries=max_entries)


def flip(path: Path) -> None:
    """Change one byte of the value that the kit has stored: one of many x."""
    data = bytearray(path.read_bytes())
    data[data.index(b"x" * 50) + 7] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    """Take the first byte of the value away."""
    with contextlib.closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("UPDATE cache_entries SET body = substr(body, 2)")


class TestSqliteCache(ConformanceSuite):
    level = "durable"

    def make_cache(self, place: Path, *, clock: Any, max_entries: int | None = 1000) -> Any:  # type: ignore[override]
        return SqliteCache(place, clock=clock, max_entries=max_entries)

    def damage(self, place: Path) -> Mapping[str, Callable[[], object]]:
        return {
            "torn": lambda: place.write_bytes(place.read_bytes()[: place.stat().st_size // 2]),
            "flipped": lambda: flip(place),
            "empty": lambda: place.write_bytes(b""),
            "no database": lambda: place.write_bytes(b"SQLite format 3\0" + b"?" * 5000),
            "shortened": lambda: shorten(place),
        }


class TestRedisCache(ConformanceSuite):
    level = "full"

    def make_cache(self, *, clock: Any) -> Any:  # type: ignore[override]
        return RedisCache(Server(clock))


def served(program: str, place: Path) -> Generator[int, None, None]:
    """The port of a server on loopback, while it runs; nothing if the port was taken meanwhile."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            if any("Ready to accept connections" in line for line in server.stdout):
                yield port
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server on this machine")
    for _ in range(5):
        server = served(program, tmp_path_factory.mktemp("redis"))
        port = next(server, None)
        if port is not None:
            yield port
            server.close()
            return
    raise RuntimeError("redis-server did not start")


def test_redis_on_a_real_server(redis_port: int) -> None:
    """A place is a prefix. What waits for a second to pass is left out; expiry has a test of its own."""
    redis = pytest.importorskip("redis")
    slow = {
        "entries_expire",
        "a_new_value_has_a_new_time",
        "a_miss_computes_and_a_hit_does_not",
        "entries_survive_closing",
    }
    with contextlib.closing(redis.Redis(port=redis_port)) as client:

        def make(place: Path) -> Any:
            return RedisCache(client, prefix=f"{place}:")

        report = run_conformance(make, level="durable", only=set(CHECKS) - slow)
        report.raise_for_failures()
        assert len(report.of("passed")) > 30
        cache = RedisCache[Any](client, prefix="a*:")
        key: Any = (("a",), "k")
        cache.set({key: (1, 0.001)})  # type: ignore[dict-item]
        while cache.get([key]):
            pass
        cache.set({key: (1, 5)})
        assert 0 < client.pttl(cache._name(key)) <= 5000
        client.set("ab:", "theirs")
        cache.clear()
        assert not client.keys("a[*]*")
        assert client.get("ab:") == b"theirs"


# ---- wrong ones


class ForgetsNone(InMemoryCache[Any]):
    def get(self, keys: Any) -> Any:
        return {key: value for key, value in super().get(keys).items() if value is not None}


class AnswersAll(InMemoryCache[Any]):
    def get(self, keys: Any) -> Any:
        return super().get(list(self._entries)) if keys else {}


class KeepsTheFirst(InMemoryCache[Any]):
    def set(self, pairs: Any) -> None:
        there = super().get(list(pairs))
        super().set({key: pair for key, pair in pairs.items() if key not in there})


class JoinsLabels(InMemoryCache[Any]):
    @staticmethod
    def joined(key: Any) -> Any:
        return ((",".join(key[0]),), key[1])

    def get(self, keys: Any) -> Any:
        found = super().get([self.joined(key) for key in keys])
        return {key: found[self.joined(key)] for key in keys if self.joined(key) in found}

    def set(self, pairs: Any) -> None:
        super().set({self.joined(key): pair for key, pair in pairs.items()})

    def clear(self, namespaces: Any = None) -> None:
        super().clear(None if namespaces is None else [(",".join(namespace),) for namespace in namespaces])


class ClearsBelow(InMemoryCache[Any]):
    def clear(self, namespaces: Any = None) -> None:
        if namespaces is not None:
            namespaces = [ns for ns, _ in self._entries for given in namespaces if ns[: len(given)] == tuple(given)]
        super().clear(namespaces)


class ClearsAllForNone(InMemoryCache[Any]):
    def clear(self, namespaces: Any = None) -> None:
        super().clear(namespaces or None)


class ClearsNothing(InMemoryCache[Any]):
    def clear(self, namespaces: Any = None) -> None:
        if namespaces is not None:
            super().clear(namespaces)


class NeverExpires(InMemoryCache[Any]):
    def set(self, pairs: Any) -> None:
        super().set({key: (value, None) for key, (value, _) in pairs.items()})


class KeepsTheTime(InMemoryCache[Any]):
    def set(self, pairs: Any) -> None:
        before = dict(self._entries)
        super().set(pairs)
        for key in pairs:
            if key in before and before[key].expires_at is not None:
                self._entries[key] = _Entry(self._entries[key].typed, before[key].expires_at)


class HandsOutItsOwn(InMemoryCache[Any]):
    def __init__(self, *, clock: Any) -> None:
        super().__init__(clock=clock)
        self.own: dict[Any, Any] = {}

    def get(self, keys: Any) -> Any:
        return {key: self.own.setdefault(key, value) for key, value in super().get(keys).items()}

    def set(self, pairs: Any) -> None:
        for key in pairs:
            self.own.pop(key, None)
        super().set(pairs)


class Json:
    def dumps_typed(self, value: Any) -> tuple[str, bytes]:
        return "json", json.dumps(value, default=repr).encode()

    def loads_typed(self, data: Any) -> Any:
        return json.loads(data[1])


class SpeaksJson(InMemoryCache[Any]):
    def __init__(self) -> None:
        super().__init__(serde=Json())


class SetsOneByOne(InMemoryCache[Any]):
    def set(self, pairs: Any) -> None:
        for key, pair in pairs.items():
            super().set({key: pair})


class SwallowsWhatItCannotKeep(InMemoryCache[Any]):
    def set(self, pairs: Any) -> None:
        with contextlib.suppress(Exception):
            super().set(pairs)


class RaisesWhatItCannotRead(InMemoryCache[Any]):
    def get(self, keys: Any) -> Any:
        return {key: self.serde.loads_typed(self._entries[key].typed) for key in keys if key in self._entries}


class TwoCaches(InMemoryCache[Any]):
    def __init__(self) -> None:
        super().__init__()
        self.other = InMemoryCache[Any]()

    async def aget(self, keys: Any) -> Any:
        return self.other.get(keys)

    async def aset(self, pairs: Any) -> None:
        self.other.set(pairs)

    async def aclear(self, namespaces: Any = None) -> None:
        self.other.clear(namespaces)


class AllCompute(InMemoryCache[Any]):
    def get_or_compute(self, key: Any, compute: Any, ttl: Any = None) -> Any:
        found = self.get([key])
        if key not in found:
            self.set({key: (compute(), ttl)})
        return self.get([key])[key]

    async def aget_or_compute(self, key: Any, compute: Any, ttl: Any = None) -> Any:
        found = self.get([key])
        if key not in found:
            self.set({key: (await compute(), ttl)})
        return self.get([key])[key]


class KeepsErrors(InMemoryCache[Any]):
    def get_or_compute(self, key: Any, compute: Any, ttl: Any = None) -> Any:
        try:
            return super().get_or_compute(key, compute, ttl)
        except Exception:
            self.set({key: ("error", ttl)})
            raise


class FirstInFirstOut(InMemoryCache[Any]):
    def get(self, keys: Any) -> Any:
        order = list(self._entries)
        found = super().get(keys)
        self._entries = {key: self._entries[key] for key in order if key in self._entries}
        return found


class Forgetful(SqliteCache[Any]):
    def __init__(self, place: Path) -> None:
        super().__init__(":memory:")


class OneFile(InMemoryCache[Any]):
    """Reads and writes one file as a whole, and believes what it reads."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.place = place

    def _load(self) -> dict[Any, Any]:
        if not self.place.exists():
            return {}
        return {(tuple(ns), key): value for ns, key, value in json.loads(self.place.read_text())}

    def get(self, keys: Any) -> Any:
        there = self._load()
        return {key: there[key] for key in keys if key in there}

    def set(self, pairs: Any) -> None:
        there = {**self._load(), **{key: value for key, (value, _) in pairs.items()}}
        self.place.write_text(json.dumps([[*key, value] for key, value in there.items()]))

    def clear(self, namespaces: Any = None) -> None:
        kept = {} if namespaces is None else {k: v for k, v in self._load().items() if k[0] not in namespaces}
        self.place.write_text(json.dumps([[*key, value] for key, value in kept.items()]))


WRONG: list[tuple[Any, str]] = [
    (ForgetsNone, "set_then_get"),
    (AnswersAll, "only_what_was_asked_for"),
    (KeepsTheFirst, "a_set_replaces"),
    (JoinsLabels, "keys_are_never_mixed_up"),
    (ClearsBelow, "clear_removes_whole_namespaces"),
    (ClearsAllForNone, "clear_removes_whole_namespaces"),
    (ClearsNothing, "clear_removes_everything"),
    (NeverExpires, "entries_expire"),
    (KeepsTheTime, "a_new_value_has_a_new_time"),
    (HandsOutItsOwn, "values_are_private"),
    (SpeaksJson, "types_survive"),
    (SetsOneByOne, "a_value_that_cannot_be_kept_is_refused"),
    (SwallowsWhatItCannotKeep, "a_value_that_cannot_be_kept_is_refused"),
    (RaisesWhatItCannotRead, "what_cannot_be_read_is_a_miss"),
    (TwoCaches, "both_colours_are_one_cache"),
    (AllCompute, "misses_at_once_compute_once"),
    (KeepsErrors, "a_miss_computes_and_a_hit_does_not"),
    (FirstInFirstOut, "what_was_not_used_for_longest_goes_first"),
    (Forgetful, "entries_survive_closing"),
    (OneFile, "damage_never_gives_a_wrong_value"),
]


def with_clock(kind: Any) -> Any:
    """The class as a factory whose signature shows what it takes."""
    if kind in (Forgetful, OneFile):
        return kind
    if kind in (SpeaksJson, TwoCaches):
        return lambda: kind()
    if kind is HandsOutItsOwn:
        return lambda *, clock: kind(clock=clock)
    return lambda *, clock, max_entries=1000: kind(clock=clock, max_entries=max_entries)


@pytest.mark.parametrize(("kind", "name"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_cache_fails_the_check_that_names_its_mistake(kind: Any, name: str) -> None:
    level: Any = CHECKS[name].level
    damage = (lambda place: {"flipped": lambda: flip(place)}) if kind is OneFile else None
    report = run_conformance(with_clock(kind), level=level, only=[name], damage=damage)
    assert report.failed_checks == {name}
    with pytest.raises(ConformanceError, match=name):
        report.raise_for_failures()


# ---- the kit itself


def test_what_cannot_be_checked() -> None:
    with pytest.raises(ValueError, match="no_such_check"):
        run_conformance(InMemoryCache, only=["no_such_check"])
    with pytest.raises(ValueError, match="level"):
        run_conformance(InMemoryCache, level="best")  # type: ignore[arg-type]
    report = run_conformance(lambda: 1 // 0, level="base")
    assert not report.ok
    assert "ZeroDivisionError" in str(report)


def test_what_a_cache_cannot_do_is_skipped() -> None:
    class Plain:
        """No base class, no serde, no single flight; async only through its own loop."""

        def __init__(self) -> None:
            self.cache = InMemoryCache[Any]()

        def __getattr__(self, name: str) -> Any:
            if name in ("get", "set", "clear", "aget", "aset", "aclear"):
                return getattr(self.cache, name)
            raise AttributeError(name)

    clock = Clock()

    def make(*, clock: Any = clock) -> Any:
        made = Plain()
        made.cache = InMemoryCache(clock=clock)
        return made

    report = run_conformance(make, level="durable")
    report.raise_for_failures()
    reasons = {result.message for result in report.of("skipped")}
    assert any("get_or_compute" in reason for reason in reasons)
    assert any("reopen" in reason for reason in reasons)


def test_caches_that_are_entered_and_awaited() -> None:
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def opened() -> Any:
        events.append("in")
        yield InMemoryCache()
        events.append("out")

    async def make() -> Any:
        await asyncio.sleep(0)
        return InMemoryCache()

    for factory in (opened, make):
        report = run_conformance(factory, only=["set_then_get"])
        assert [result.outcome for result in report.results if result.colour == "async"] == ["passed"]
    assert events[:2] == ["in", "out"]


def test_threads_of_the_kit_report_what_they_meet() -> None:
    class Refusing(InMemoryCache[Any]):
        def set(self, pairs: Any) -> None:
            if threading.current_thread() is not threading.main_thread():
                raise ConnectionError("not from a thread")
            super().set(pairs)

    report = run_conformance(Refusing, level="full", only=["threads_share_it"])
    assert "not from a thread" in str(report)
