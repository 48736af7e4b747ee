"""`SqliteStore` and `AsyncSqliteStore`: the same answers as the store in memory, in a file that survives."""

import asyncio
import random
import re
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from checkpoint.base import UnregisteredTypeError
from checkpoint.sqlite import SqliteSaver
from pregel.store.base import GetOp, InvalidNamespaceError, Item, PutOp, SearchOp, VersionConflictError
from pregel.store.memory import InMemoryStore
from pregel.store.sqlite import AsyncSqliteStore, SqliteStore, StoreOpenError, core
from pregel.store.sqlite.schema import labels_of, path_of
from tests.support.scenarios import Colour

START = 1_700_000_000.0


class Clock:
    """Stands still until it is told to go on. Seconds."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Calls:
    """The methods of a store under one name in both colours."""

    def __init__(self, colour: Colour, store: Any) -> None:
        self.store = store
        self._colour = colour

    def __getattr__(self, method: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._colour.is_async:
                return asyncio.run(getattr(self.store, f"a{method}")(*args, **kwargs))
            return getattr(self.store, method)(*args, **kwargs)

        return call

    def keys(self, *args: Any, **kwargs: Any) -> str:
        """Keys of what a search finds."""
        return "".join(found.key for found in self.search(*args, **kwargs))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def calls(colour: Colour, path: Path, clock: Clock) -> Iterator[Calls]:
    with SqliteStore(path, clock=clock) as store:
        yield Calls(colour, store)


# ---- the same answers as the store in memory


LABELS = ["a", "b", "ab", "a%", "*", "A", "\n", "ä", "a\x00", "\x01"]
KEYS = ["k", "K", "'; DROP TABLE store_items; --", "", "\x00", "\ud800", "%", "k\u0301"]
SCALARS = [
    *[0, 1, -1, 1.0, 1.5, 2**63 - 1, 2**63, -(2**70), float("inf"), float("-inf"), float("nan"), True, False, None],
    *["", "a", "5", "5.0", " 5 ", "1_0", "nan", "inf", "x" * 200, "x" * 201, "\ud800", "a\x00b", "'", "$eq", "ä"],
    *[b"a", (1, 2), {1, 2}, datetime(2024, 1, 1, tzinfo=UTC), [], [1], [1.0, "a"]],
]
FIELDS = ["f", "g", "a.b", "a", "b", "", "x\x00y", "f' OR 1=1"]


class Generator:
    """Random operations that mean something."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def namespace(self) -> tuple[str, ...]:
        return tuple(
            self.random.choices(LABELS[:4] if self.random.random() < 0.8 else LABELS, k=self.random.choice((1, 1, 2)))
        )

    def value(self, depth: int = 0) -> Any:
        if depth < 5 and self.random.random() < (1 if depth == 0 else 0.25):
            return {self.random.choice(FIELDS): self.value(depth + 1) for _ in range(self.random.randrange(4))}
        return self.random.choice(SCALARS)

    def operand(self, name: str) -> Any:
        if name in ("$in", "$nin"):
            return self.random.sample(SCALARS, self.random.randrange(4))
        return self.random.choice(SCALARS)

    def condition(self, depth: int = 0) -> Any:
        kind = self.random.random()
        if kind < 0.35:
            return self.random.choice(SCALARS)
        if kind < 0.85 or depth > 2:
            names = self.random.choices(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists"], k=2)
            return {name: self.operand(name) for name in names[: self.random.choice((1, 1, 2))]}
        return {self.random.choice(FIELDS): self.condition(depth + 1)}

    def filter(self) -> dict[str, Any]:
        return {self.random.choice(FIELDS): self.condition() for _ in range(self.random.choice((1, 1, 2)))}

    def op(self) -> Any:
        kind = self.random.random()
        if kind < 0.5:
            value = None if self.random.random() < 0.15 else self.value()
            ttl = self.random.choice((None, None, 1.0, 5.0))
            return PutOp(self.namespace(), self.random.choice(KEYS), value, ttl=ttl)
        refresh = self.random.random() < 0.3
        if kind < 0.6:
            return GetOp(self.namespace(), self.random.choice(KEYS), refresh)
        prefix = self.namespace()[: self.random.randrange(3)]
        return SearchOp(prefix, self.filter() if self.random.random() < 0.9 else None, -1, refresh_ttl=refresh)


def plain(result: Any) -> Any:
    """A result in a form that compares NaN with itself and knows no order."""
    if isinstance(result, list):
        return sorted(map(repr, result))
    return repr(result)


# Ways of looking filters up: few and many items of a condition, few and many namespaces, and pages of either.
SIZES: list[dict[str, int]] = [
    {},
    {"FEW": 2, "PAGE": 3, "PLACES": 2},
    {"FEW": 0, "PAGE": 2, "STREAMS": 1, "PLACES": 3},
]


@pytest.mark.parametrize("seed", range(30))
def test_answers_are_those_of_the_store_in_memory(
    colour: Colour, tmp_path: Path, clock: Clock, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(seed)
    for name, size in SIZES[seed % 3].items():
        monkeypatch.setattr(core, name, size)
    with SqliteStore(tmp_path / "s", clock=clock) as stored:
        memory, calls = Calls(colour, InMemoryStore(clock=clock)), Calls(colour, stored)
        for _ in range(25):
            ops = [generator.op() for _ in range(generator.random.choice((1, 1, 4)))]
            expected, found = memory.batch(ops), calls.batch(ops)
            for op, one, other in zip(ops, expected, found, strict=True):
                assert plain(other) == plain(one), op
            clock.now += generator.random.choice((0, 0, 30, 100))
        for prefix, wanted in [((), None), ((), generator.filter()), (generator.namespace(), generator.filter())]:
            whole = calls.search(prefix, filter=wanted, limit=-1, refresh_ttl=False)
            pages = [calls.search(prefix, filter=wanted, limit=2, offset=n, refresh_ttl=False) for n in range(0, 80, 2)]
            assert [item.key for page in pages for item in page] == [item.key for item in whole]
            assert [item.updated_at for item in whole] == sorted((item.updated_at for item in whole), reverse=True)
            order = [(item.namespace, item.key) for item in calls.search((), limit=-1, refresh_ttl=False)]
            assert [place for place in order if place in {(item.namespace, item.key) for item in whole}] == [
                (item.namespace, item.key) for item in whole
            ]
        everything = [SearchOp((), None, -1, refresh_ttl=False)]
        assert plain(calls.batch(everything)[0]) == plain(memory.batch(everything)[0])
        assert calls.list_namespaces(limit=-1) == memory.list_namespaces(limit=-1)
        stored.sweep_ttl()
        (n_items,) = stored.conn.execute("SELECT count(*) FROM store_items").fetchone()
        assert n_items == len(memory.search((), limit=-1, refresh_ttl=False))
        # Nothing is left of what is gone.
        live = "SELECT ns_pk, seq FROM store_items"
        assert not stored.conn.execute(f"SELECT ns_pk, seq FROM store_fields EXCEPT {live}").fetchall()
        assert not stored.conn.execute(
            "SELECT ns_pk FROM store_namespaces EXCEPT SELECT ns_pk FROM store_items"
        ).fetchall()


@pytest.mark.parametrize("sizes", SIZES, ids=["usual", "small", "none"])
def test_neighbours_on_both_sides_of_a_page_are_found(
    tmp_path: Path, clock: Clock, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in sizes.items():
        monkeypatch.setattr(core, name, size)
    with SqliteStore(tmp_path / "s", clock=clock) as store:
        for space in [("a",), ("b", "c"), ("b", "d")]:
            store.batch([PutOp(space, f"{n}", {"n": n, "even": n % 2 == 0}) for n in range(20)])
            clock.now += 1
        newest = [f"{n}" for n in reversed(range(20))]
        assert [item.key for item in store.search(("a",), limit=-1)] == newest
        assert [item.key for item in store.search(("a",), filter={"n": {"$gte": 0}}, limit=-1)] == newest
        assert [item.key for item in store.search(("a",), filter={"even": True}, limit=-1)] == newest[1::2]
        assert len(store.search(("b",), filter={"n": {"$lt": 7}}, limit=-1)) == 14
        assert [item.key for item in store.search((), filter={"n": {"$lt": 7}, "even": False}, limit=-1)] == [
            *"531"
        ] * 3


def test_paths_sort_and_begin_as_their_labels() -> None:
    names = [
        (),
        ("a",),
        ("a", "b"),
        ("a\x00",),
        ("a\x00", "\x01"),
        ("a\x01",),
        ("ab",),
        ("ä",),
        ("\ud800",),
        ("\x01", "a"),
    ]
    assert sorted(names, key=path_of) == sorted(names)
    for name in names:
        assert labels_of(path_of(name)) == name
        for other in names:
            assert path_of(name).startswith(path_of(other)) == (name[: len(other)] == other)


# ---- what only a file has


def test_what_was_put_last_is_found_first(calls: Calls, clock: Clock) -> None:
    for namespace, key in ((("a",), "1"), (("b",), "2"), (("a", "c"), "3"), (("a",), "1")):
        clock.now += 1
        calls.put(namespace, key, {"n": int(key)})
    assert (calls.keys(()), calls.keys(("a",))) == ("132", "13")
    assert calls.keys((), limit=1, offset=1) == "3"
    assert calls.keys((), filter={"n": {"$gt": 1}}, limit=1) == "3"


def test_it_outlives_the_store(colour: Colour, path: Path, clock: Clock) -> None:
    with SqliteStore(path, clock=clock) as store:
        Calls(colour, store).put(("a",), "k", {"t": (1, 2), "s": {1}})
    with SqliteStore.from_conn_string(str(path)) as store:
        found = Calls(colour, store).get(("a",), "k")
        assert (found.value, found.created_at) == ({"t": (1, 2), "s": {1}}, datetime.fromtimestamp(START, UTC))


def test_a_batch_that_fails_has_changed_nothing(calls: Calls) -> None:
    calls.put(("a",), "k", {"n": 1})
    with pytest.raises(VersionConflictError):
        calls.batch([PutOp(("a",), "k", {"n": 2}), PutOp(("b",), "x", {}), PutOp(("a",), "k", None, if_version=7)])
    with pytest.raises(UnregisteredTypeError, match="'lock'"):
        calls.batch([PutOp(("a",), "k", {"n": 2}), PutOp(("b",), "lock", {"l": threading.Lock()})])
    assert calls.get(("a",), "k").value == {"n": 1}
    assert calls.list_namespaces() == [("a",)]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_version_is_replaced_once(colour: Colour, path: Path, clock: Clock, kind: str) -> None:
    store = InMemoryStore(clock=clock) if kind == "memory" else SqliteStore(path, clock=clock)
    calls = Calls(colour, store)
    calls.put(("a",), "k", {"n": 1}, if_version=0)
    assert calls.get(("a",), "k").version == 1
    with pytest.raises(VersionConflictError) as caught:
        calls.put(("a",), "k", {"n": 2}, if_version=0)
    assert (caught.value.key, caught.value.expected, caught.value.found) == ("k", 0, 1)
    calls.batch([PutOp(("a",), "k", {"n": 2}, if_version=1), PutOp(("a",), "k", {"n": 3}, if_version=2)])
    assert [(one.value, one.version) for one in calls.search(("a",))] == [({"n": 3}, 3)]
    with pytest.raises(VersionConflictError):
        calls.delete(("a",), "k", if_version=2)
    calls.delete(("a",), "k", if_version=3)
    with pytest.raises(VersionConflictError):
        calls.delete(("a",), "k", if_version=3)
    calls.put(("a",), "k", {}, ttl=1)
    clock.now += 100
    calls.put(("a",), "k", {"born": "again"}, if_version=0)
    assert calls.get(("a",), "k").version == 1
    if kind == "sqlite":
        store.close()


def test_only_puts_refuse_reserved_namespaces(calls: Calls) -> None:
    for namespace in ((), ("langgraph",), ("a.b",), ("",)):
        with pytest.raises(InvalidNamespaceError):
            calls.put(namespace, "k", {})
    assert calls.get((), "k") is calls.get(("langgraph",), "k") is None


def test_puts_remove_what_expired(calls: Calls, clock: Clock) -> None:
    calls.batch([PutOp(("a",), str(n), {"n": n}, ttl=1) for n in range(10)])
    clock.now += 90
    calls.batch([PutOp(("b",), str(n), {}) for n in range(5)])
    assert calls.store.conn.execute("SELECT count(*) FROM store_items").fetchone() == (5,)
    assert calls.store.conn.execute("SELECT count(*) FROM store_fields").fetchone() == (0,)


def test_a_sweep_of_many(path: Path, clock: Clock) -> None:
    with SqliteStore(path, ttl={"default_ttl": 1}, clock=clock) as store:
        store.batch([PutOp(("a",), str(n), {"n": n}, ttl=1) for n in range(1200)])
        store.put(("a",), "kept", {}, ttl=None)
        clock.now += 90
        assert (store.sweep_ttl(), store.sweep_ttl()) == (1200, 0)
        assert [one.key for one in store.search(())] == ["kept"]


def test_the_sweeper_sweeps_until_it_is_stopped(path: Path, clock: Clock) -> None:
    swept = threading.Event()

    class Watched(SqliteStore):
        def sweep_ttl(self) -> int:
            n_swept = super().sweep_ttl()
            swept.set()
            return n_swept

    with Watched(path, clock=clock) as store:
        store.put(("a",), "k", {}, ttl=1)
        clock.now += 90
        store.start_ttl_sweeper(1e-6)
        store.start_ttl_sweeper()
        assert swept.wait(30)
        assert store.stop_ttl_sweeper()
        assert store.stop_ttl_sweeper()
        assert store.conn.execute("SELECT count(*) FROM store_items").fetchone() == (0,)


def test_threads_and_connections_share_a_file(path: Path) -> None:
    ready = threading.Barrier(4)
    failures: list[BaseException] = []
    shared = SqliteStore(path)

    def work(worker: int) -> None:
        try:
            store = shared if worker < 2 else SqliteStore(path)
            ready.wait()
            for n in range(20):
                store.put(("n", str(worker)), str(n), {"n": n}, ttl=5)
                while True:
                    found = store.get(("n",), "all")
                    version, total = (found.version, found.value["total"]) if found is not None else (0, 0)
                    try:
                        store.put(("n",), "all", {"total": total + 1}, if_version=version)
                    except VersionConflictError:
                        continue
                    break
            if worker >= 2:
                store.close()
        except BaseException as error:
            failures.append(error)
            raise

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    assert len(shared.search((), limit=-1)) == 81
    assert shared.get(("n",), "all").value == {"total": 80}
    shared.close()


def test_a_connection_of_the_program(colour: Colour, path: Path) -> None:
    """Within its transaction nothing is stored before it ends; the connection stays open."""
    conn = sqlite3.connect(path, check_same_thread=False)
    store = SqliteStore(conn)
    calls = Calls(colour, store)
    store.setup()
    conn.execute("BEGIN")
    calls.put(("a",), "k", {"n": 1})
    with pytest.raises(VersionConflictError):
        calls.batch([PutOp(("a",), "other", {}), PutOp(("a",), "k", {}, if_version=5)])
    assert calls.keys(()) == "k"
    conn.rollback()
    assert calls.keys(()) == ""
    store.close()
    assert conn.execute("SELECT 1").fetchone() == (1,)
    conn.close()


def test_a_file_is_shared_with_a_saver(path: Path) -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    with SqliteStore(path) as store, SqliteSaver(path) as saver:
        store.put(("a",), "k", {"n": 1})
        assert saver.get_tuple(config) is None
        assert store.get(("a",), "k").value == {"n": 1}
        assert saver.verify() == []
    with SqliteSaver(path) as saver, SqliteStore(path) as store:
        assert saver.verify() == []
        assert store.get(("a",), "k").value == {"n": 1}


def test_what_is_no_store_is_refused(tmp_path: Path, path: Path) -> None:
    path.write_bytes(b"no database " * 100)
    for place in (path, tmp_path, tmp_path / "missing" / "s"):
        with pytest.raises(StoreOpenError, match=str(place)):
            SqliteStore(place)
    newer = tmp_path / "newer"
    with SqliteStore(newer) as store:
        store.setup()
        store.conn.execute("UPDATE store_schema SET version = 99")
    before = newer.read_bytes()
    with pytest.raises(StoreOpenError, match="99"):
        SqliteStore(newer)
    assert newer.read_bytes() == before


def test_an_item_knows_its_version_but_is_not_compared_by_it() -> None:
    date = datetime(2024, 1, 1, tzinfo=UTC)
    one, two = (Item(value={}, key="k", namespace=("a",), created_at=date, updated_at=date, version=v) for v in (1, 2))
    assert one == two
    assert "version" not in one.dict()


# ---- vectors


class Letters:
    """Counts a to d."""

    def __call__(self, texts: Any) -> list[list[float]]:
        return [[float(text.count(letter)) for letter in "abcd"] for text in texts]


def scores(calls: Calls, query: str, **kwargs: Any) -> list[tuple[str, float | None]]:
    return [(one.key, one.score and round(one.score, 3)) for one in calls.search((), query=query, **kwargs)]


def test_nearest_first(colour: Colour, path: Path) -> None:
    pytest.importorskip("numpy")
    index: Any = {"dims": 4, "embed": Letters(), "fields": ["x", "y"]}
    with SqliteStore(path, index=index) as store:
        calls = Calls(colour, store)
        calls.put(("n",), "none", {"z": "b"})
        calls.put(("n",), "both", {"x": "aaa", "y": "b"})
        calls.put(("n",), "off", {"x": "b"}, index=False)
        calls.put(("n",), "own", {"x": "c", "z": "ab"}, index=["z"])
        calls.put(("m",), "third", {"x": "abc"})
        expected = [("both", 1.0), ("own", 0.707), ("third", 0.577)]
        assert scores(calls, "b") == expected
        assert scores(calls, "b", limit=1, offset=1) == expected[1:2]
        assert scores(calls, "b", filter={"x": "abc"}) == [("third", 0.577)]
        assert [one.key for one in calls.search(("n",), query="b")] == ["both", "own"]
        calls.put(("n",), "both", {"x": "a"})
        calls.delete(("n",), "own")
        assert scores(calls, "b") == [("third", 0.577), ("both", 0.0)]
    with SqliteStore(path, index=index) as store:
        assert scores(Calls(colour, store), "a") == [("both", 1.0), ("third", 0.577)]


def test_vectors_that_cannot_be_compared_are_refused(colour: Colour, path: Path) -> None:
    pytest.importorskip("numpy")

    def ragged(texts: Any) -> list[list[float]]:
        return [[1.0] * len(text) for text in texts]

    with SqliteStore(path, index={"dims": 1, "embed": ragged, "fields": ["x"]}) as store:
        calls = Calls(colour, store)
        with pytest.raises(ValueError, match="1 and of 2"):
            calls.batch([PutOp(("n",), "1", {"x": "a"}), PutOp(("n",), "2", {"x": "bb"})])
        assert calls.keys(()) == ""
        calls.put(("n",), "k", {"x": "bb"})
        with pytest.raises(ValueError):
            calls.put(("n",), "k", {"x": "bbb"})
        with pytest.raises(ValueError):
            calls.search((), query="bbb")


def test_without_numpy_an_index_names_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    with pytest.raises(ImportError, match=r"pregel\[vectors\]"):
        SqliteStore(path, index={"dims": 4, "embed": Letters()})


# ---- AsyncSqliteStore


def test_async_store_of_a_path_and_of_a_connection(path: Path) -> None:
    async def main() -> None:
        async with AsyncSqliteStore.from_conn_string(str(path)) as store:
            await store.setup()
            await asyncio.gather(*(store.aput(("a",), str(n), {"n": n}, ttl=n % 2) for n in range(50)))
            await store.sweep_ttl()
            assert await store.sweep_ttl() == 0
            await store.start_ttl_sweeper(60)
            assert await store.stop_ttl_sweeper()
        async with aiosqlite.connect(path) as conn, AsyncSqliteStore(conn) as store:
            with pytest.raises(RuntimeError):
                await asyncio.to_thread(store.get, ("a",), "1")
            with pytest.raises(asyncio.InvalidStateError):
                store.get(("a",), "1")
            assert len(await store.asearch(("a",), limit=-1)) == 25
            assert (await asyncio.to_thread(store.get, ("a",), "1")).value == {"n": 1}
            async with conn.execute("SELECT count(*) FROM store_items") as cursor:
                assert await cursor.fetchone() == (25,)
        async with aiosqlite.connect(":memory:") as conn, AsyncSqliteStore(conn) as store:
            with pytest.raises(StoreOpenError):
                await store.setup()

    asyncio.run(main())


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_cancelled_put_is_carried_out_or_not(path: Path, is_taken: bool) -> None:
    """Whoever is cancelled knows afterwards: before its batch begins it takes the put back, later it waits for the end."""

    async def main() -> None:
        async with AsyncSqliteStore(path) as store:
            await store.setup()
            task = asyncio.create_task(store.aput(("a",), "k", {"n": 1}))
            for _ in range(2 if is_taken else 1):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            found = await store.aget(("a",), "k")
            assert (found and found.value) == ({"n": 1} if is_taken else None)

    asyncio.run(main())


# ---- docs


def test_the_page_shows_what_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "store.md").read_text()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    pairs = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert len(pairs) == page.count("```python")
    for code, shown in pairs:
        exec(compile(code, "docs/store.md", "exec", dont_inherit=True), names)
        assert capsys.readouterr().out == shown
