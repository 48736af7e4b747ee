"""What a store in a file does when something breaks: the process, the disk, the file, the embedding, the caller."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint.base import UnregisteredTypeError
from checkpoint.testing.faults import (
    FailAt,
    Fault,
    Point,
    PowerLoss,
    Record,
    bit_flip,
    locked,
    sqlite_error,
    torn_write,
    wal_frames,
)
from pregel.store.base import GetOp, PutOp, SearchOp
from pregel.store.sqlite import AsyncSqliteStore, CorruptItemError, SqliteStore, StoreClosedError, StoreOpenError
from tests.support.scenarios import Colour

NS = ("a",)


class Struck:
    """A connection that tells faults of each statement, before it and after it."""

    def __init__(self, conn: Any, *faults: Fault) -> None:
        self._conn = conn
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    def _reach(self, statement: str, *, after: bool = False) -> None:
        # COMMIT and what folds the log into the database have the names that savers have for them.
        boundary = "any"
        if statement == "COMMIT":
            boundary = "b6" if after else "b5"
        elif "wal_checkpoint" in statement:
            boundary = "b8"
        for fault in self._faults:
            fault.reached(Point(boundary, statement, self._conn))

    def execute(self, statement: str, values: Any = ()) -> Any:
        self._reach(statement)
        found = self._conn.execute(statement, values)
        self._reach(statement, after=True)
        return found

    def executemany(self, statement: str, rows: Any) -> Any:
        self._reach(statement)
        found = self._conn.executemany(statement, rows)
        self._reach(statement)
        return found


@contextlib.contextmanager
def struck(store: Any, *faults: Fault) -> Iterator[None]:
    store = getattr(store, "_store", store)
    conn, store.conn = store.conn, Struck(store.conn, *faults)
    try:
        yield
    finally:
        store.conn = conn


class Copies(Fault):
    """Keeps what the files hold at each point: what a process that is killed there leaves behind."""

    def __init__(self, path: Path, to: Path) -> None:
        super().__init__("any", 0)
        self.path, self.to = path, to
        self.copies: list[Path] = []

    def strike(self, point: Point) -> None:
        target = self.to / f"{len(self.copies)}"
        for end in ("", "-wal"):
            if os.path.exists(f"{self.path}{end}"):
                shutil.copy(f"{self.path}{end}", f"{target}{end}")
        self.copies.append(target)


def call(colour: Colour, store: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    if colour.name == "sync":
        return getattr(store, name)(*args, **kwargs)
    return asyncio.run(getattr(store, "a" + name)(*args, **kwargs))


def letters(texts: Any) -> list[list[float]]:
    return [[float(text.count("a")), float(text.count("b"))] for text in texts]


def contents(store: Any) -> dict[str, Any]:
    """All items as far as programs can see, found in every way."""
    items = {item.key: (item.value, item.version) for item in store.search((), limit=-1)}
    for key, (value, _) in items.items():
        assert store.get(NS, key).value == value
        assert key in [item.key for item in store.search(NS, filter={"n": value["n"]}, limit=-1)]
    for n in range(-5, 20):
        for item in store.search(NS, filter={"n": n}, limit=-1):
            assert item.value["n"] == n
    scored = {item.key for item in store.search((), query="a", limit=-1)} if store.embeddings else set(items)
    assert scored == set(items)
    assert store.list_namespaces() == ([NS] if items else [])
    problems = store.conn.execute("PRAGMA integrity_check").fetchone()
    orphans = store.conn.execute(
        "SELECT (SELECT count(*) FROM store_fields f WHERE NOT EXISTS (SELECT 1 FROM store_items i WHERE i.ns_pk = f.ns_pk "
        "AND i.seq = f.seq)) + (SELECT count(*) FROM store_vectors WHERE item_pk NOT IN (SELECT item_pk FROM store_items))"
    ).fetchone()
    assert (problems, orphans) == (("ok",), (0,))
    return items


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


INDEX: Any = {"dims": 2, "embed": letters, "fields": ["t"]}
SETUP = [
    PutOp(NS, "old", {"n": 1, "t": "a"}),
    PutOp(NS, "gone", {"n": 2, "t": "b"}),
    PutOp(NS, "e", {"n": 3, "t": "ab"}, ttl=1),
]
BATCH = [
    PutOp(NS, "old", {"n": 4, "t": "aa"}),
    PutOp(NS, "new", {"n": 5, "t": "b"}),
    PutOp(NS, "gone", None),
    GetOp(NS, "old"),
    SearchOp(NS, {"n": {"$gte": 0}}),
    PutOp(NS, "new", {"n": 6, "t": "bb"}),
]


def filled(path: Path) -> SqliteStore:
    clock = Clock()
    store = SqliteStore(path, index=INDEX, clock=clock)
    store.conn.execute("PRAGMA synchronous = OFF")  # nothing here loses power
    store.batch(SETUP)
    clock.now += 100  # "e" has expired: it is swept in the middle of the batch
    return store


def test_a_process_may_die_at_every_statement(colour: Colour, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with filled(path) as store:
        before = contents(store)
        copies = Copies(path, tmp_path)
        with struck(store, copies):
            call(colour, store, "batch", BATCH)
        after = contents(store)
    assert before != after
    seen = []
    for copy in copies.copies:
        clock = Clock()
        clock.now += 100
        with SqliteStore(copy, index=INDEX, clock=clock) as store:
            seen.append(contents(store))
            store.batch(BATCH)  # and it goes on
            assert contents(store)["new"][0] == {"n": 6, "t": "bb"}
    assert seen == [before] * (len(seen) - 1) + [after], "all of it, from the COMMIT on"
    assert len(seen) > 20


def test_an_error_at_every_statement_changes_nothing(colour: Colour, tmp_path: Path) -> None:
    with filled(tmp_path / "s") as store:
        before = contents(store)
        count = Record()
        with struck(store, count), contextlib.suppress(KeyError):
            call(colour, store, "batch", [*BATCH, PutOp(NS, "x", {"n": 1}, if_version=0)][:-1])
        assert contents(store) != before
    n_points = len(count.points)
    for code, step in (("SQLITE_FULL", 1), ("SQLITE_IOERR", 9)):
        # One colour at each statement: both carry out the same batch.
        for n in range(1, n_points, step if colour.name == "sync" else 11):
            path = tmp_path / f"{code}-{n}"
            with filled(path) as store:
                with struck(store, FailAt(n=n, error=sqlite_error(code))), pytest.raises(sqlite3.OperationalError):
                    call(colour, store, "batch", BATCH)
                assert contents(store) == before, (code, n)
                if n % 5 == 0:
                    call(colour, store, "batch", BATCH)
                    assert contents(store) != before


def test_what_could_not_be_undone_is_not_carried_on(colour: Colour, tmp_path: Path) -> None:
    with filled(tmp_path / "s") as store:
        before = contents(store)
        error = sqlite_error("SQLITE_IOERR")
        faults = FailAt(n=0, error=error, match="ROLLBACK"), FailAt(n=0, error=error, match="COMMIT")
        with struck(store, *faults), pytest.raises(sqlite3.OperationalError):
            call(colour, store, "batch", BATCH)
        assert store.conn.in_transaction
        call(colour, store, "put", NS, "after", {"n": 7, "t": "a"})
        assert not store.conn.in_transaction
        assert sorted(contents(store)) == sorted({*before, "after"})


def test_a_full_disk(colour: Colour, tmp_path: Path) -> None:
    with filled(tmp_path / "s") as store:
        before = contents(store)
        pages = store.conn.execute("PRAGMA page_count").fetchone()[0]
        store.conn.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            call(colour, store, "batch", [*BATCH, PutOp(NS, "big", {"n": 7, "t": "a" * 100_000})])
        assert contents(store) == before
        store.conn.execute("PRAGMA max_page_count = 1000000")
        call(colour, store, "batch", BATCH)
        assert contents(store) != before


def test_a_locked_file(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncSqliteStore(tmp_path / "s") as store:
            await store.setup()
            assert store._store is not None
            store._store.conn.execute("PRAGMA busy_timeout = 0")
            with locked(tmp_path / "s"):
                assert await store.aget(NS, "k") is None, "who reads does not wait"
                calls = [store.aput(NS, f"{n}", {"n": n}) for n in range(5)]
                found = await asyncio.gather(*calls, store.aget(NS, "k"), return_exceptions=True)
                assert {type(one) for one in found} == {sqlite3.OperationalError}
            await store.aput(NS, "k", {"n": 1})
            assert [item.key for item in await store.asearch(NS)] == ["k"]

    asyncio.run(main())


def test_the_power_may_go_at_any_moment(tmp_path: Path) -> None:
    """Of what was written since the last fsync any part may be on the disk: what had returned is whole all the same."""
    path = tmp_path / "s"
    power = PowerLoss(path)
    with SqliteStore(path) as store:
        store.conn.execute("PRAGMA wal_autocheckpoint = 0")
        store.put(NS, "first", {"n": 0})
        with struck(store, power):
            for n in range(1, 13):
                store.batch([PutOp(NS, key, {"n": n, "text": "x" * 700 * (n % 3)}) for key in ("a", f"b{n}")])
                if n % 4 == 0:
                    store.conn.execute("PRAGMA wal_checkpoint(PASSIVE)")  # what autocheckpoint does
    assert power.n_commits == 12
    for number, image in enumerate(power.images):
        for seed in range(3):
            restored = power.restore(number, tmp_path, seed=seed)
            with SqliteStore(restored) as store:
                found = {key: value["n"] for key, (value, _) in contents(store).items()}
            n = found.get("a", 0)
            assert image.n_commits <= n <= 12, "nothing that had returned is lost"
            assert found == {"first": 0, **({"a": n} if n else {}), **{f"b{k}": k for k in range(1, n + 1)}}


def test_a_log_that_is_torn_leaves_whole_batches(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with filled(path) as store:
        store.conn.execute("PRAGMA wal_autocheckpoint = 0")
        for n in range(5):
            store.batch([PutOp(NS, key, {"n": 10 + n, "t": "a"}) for key in ("old", "new")])
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{tmp_path}/copy{end}")
    frames = wal_frames(tmp_path / "copy")
    ends = [end for end, is_last in frames if is_last]
    for number, (end, _) in enumerate(frames):
        for garbage in (False, True):
            torn = tmp_path / f"torn-{number}-{garbage}"
            for name in ("", "-wal"):
                shutil.copy(f"{tmp_path}/copy{name}", f"{torn}{name}")
            torn_write(f"{torn}-wal", end, garbage=garbage)
            n_batches = sum(one <= end for one in ends)
            try:
                store = SqliteStore(torn, index=INDEX)
            except StoreOpenError:
                assert n_batches <= 1
                continue
            with store:
                found = contents(store) if n_batches > 2 else {}
            if n_batches > 2 and "new" in found:
                assert found["old"][0] == found["new"][0], "both puts of a batch, or none"


def test_a_damaged_value_is_found_named_and_mended(colour: Colour, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with filled(path) as store:
        length = store.conn.execute("SELECT length(value) FROM store_items").fetchone()[0]
    for bit in range(0, 8 * length, 11):
        copy = tmp_path / f"{bit}"
        shutil.copy(path, copy)
        assert bit_flip(copy, "store_items", "value", where="key = 'old'", bit=bit)
        with SqliteStore(copy, index=INDEX, clock=Clock()) as store:
            for ask in (
                lambda: call(colour, store, "get", NS, "old"),
                lambda: call(colour, store, "search", NS, limit=-1),
                lambda: call(colour, store, "search", NS, filter={"n": 1}),
                lambda: call(colour, store, "search", NS, query="a", limit=-1),
            ):
                with pytest.raises(CorruptItemError) as caught:
                    ask()
                assert (caught.value.namespace, caught.value.key) == (NS, "old")
            assert store.get(NS, "gone").value == {"n": 2, "t": "b"}
            if bit % 2:
                call(colour, store, "put", NS, "old", {"n": 1, "t": "a"})
                assert "old" in contents(store)
            else:
                call(colour, store, "delete", NS, "old")
                assert "old" not in contents(store)


def test_a_damaged_item_that_has_expired_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with filled(path):
        pass
    assert bit_flip(path, "store_items", "value", where="key = 'e'", bit=9)
    clock = Clock()
    clock.now += 1000
    with SqliteStore(path, index=INDEX, clock=clock) as store:
        store.put(NS, "old", {"n": 1, "t": "a"})
        assert sorted(contents(store)) == ["gone", "old"]
        assert store.sweep_ttl() == 0


# ---- opening


def test_files_that_are_no_store_are_left_as_they_are(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("this is no database " * 100)
    foreign = tmp_path / "foreign"
    newer = tmp_path / "newer"
    empty = tmp_path / "emptied"
    with contextlib.closing(sqlite3.connect(foreign, isolation_level=None)) as conn:
        conn.execute("CREATE TABLE store (prefix TEXT, key TEXT)")
        conn.execute("CREATE TABLE store_vectors (prefix TEXT, key TEXT)")
    for path, change in ((newer, "UPDATE store_schema SET version = 2"), (empty, "DELETE FROM store_schema")):
        with SqliteStore(path) as store:
            store.setup()
            store.conn.execute(change)
    for path in (text, foreign, newer, empty):
        before = path.read_bytes()
        with pytest.raises(StoreOpenError) as caught:
            SqliteStore(path)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == before
        with contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as conn:
            if path is not text:
                with pytest.raises(StoreOpenError):
                    SqliteStore(conn).put(NS, "k", {"n": 1})
        assert path.read_bytes() == before


def test_a_connection_with_rows_of_its_own(colour: Colour, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "s", check_same_thread=False)) as conn:
        conn.row_factory = lambda cursor, row: dict(zip((one[0] for one in cursor.description), row, strict=True))
        conn.text_factory = bytes
        store = SqliteStore(conn)
        call(colour, store, "put", NS, "k", {"n": 1}, ttl=1)
        assert call(colour, store, "get", NS, "k").key == "k"
        assert [item.key for item in call(colour, store, "search", NS, filter={"n": 1})] == ["k"]
        assert store.sweep_ttl() == 0
        assert conn.execute("SELECT 'x' AS text").fetchone() == {"text": b"x"}
        with conn:
            conn.execute("BEGIN")
            call(colour, store, "put", NS, "mine", {"n": 2})
            conn.rollback()
        assert [item.key for item in store.search(NS)] == ["k"], "a part of the program's transaction"
        store.close()
        assert conn.execute("SELECT 1 AS one").fetchone() == {"one": 1}


def test_tables_that_went_with_a_transaction_are_made_again(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "s")) as conn:
        store = SqliteStore(conn)
        for _ in range(2):
            conn.execute("BEGIN")
            store.put(NS, "k", {"n": 1})
            assert store.get(NS, "k") is not None
            conn.rollback()
        store.put(NS, "l", {"n": 1})
        assert [item.key for item in store.search(NS)] == ["l"]


def test_a_store_that_is_closed_while_it_opens(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    made: list[SqliteStore] = []

    class Slow(AsyncSqliteStore):
        def _made(self, path: Any) -> SqliteStore:
            begun.set()
            assert go_on.wait(10)
            made.append(super()._made(path))
            return made[0]

    async def main() -> None:
        store = Slow(tmp_path / "s")
        asked = asyncio.create_task(store.aget(NS, "k"))
        await asyncio.to_thread(begun.wait)
        closing = asyncio.create_task(store.aclose())
        await asyncio.sleep(0)
        go_on.set()
        await closing
        [found] = await asyncio.gather(asked, return_exceptions=True)
        assert found is None or isinstance(found, StoreClosedError), "before or after the end"

    asyncio.run(main())
    with pytest.raises(sqlite3.ProgrammingError):
        made[0].conn.execute("SELECT 1")


def test_places_that_cannot_be(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "s"):
        with pytest.raises(StoreOpenError, match=str(path)):
            SqliteStore(path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_may_not_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    # Root may write there all the same, but makes no file of its own among the system's.
    place = tmp_path if os.geteuid() else Path("/proc" if os.path.isdir("/proc") else "/dev/null")
    with pytest.raises(StoreOpenError, match="written to"):
        SqliteStore(place / "s")
    tmp_path.chmod(0o700)


def test_many_open_a_new_file_at_once(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work(path: Path, n: int, barrier: threading.Barrier) -> None:
        try:
            barrier.wait()
            with SqliteStore(path) as store:
                store.put(NS, f"{n}", {"n": n})
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    for round_ in range(4):
        path = tmp_path / f"{round_}"
        barrier = threading.Barrier(6)
        threads = [threading.Thread(target=work, args=(path, n, barrier)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        with SqliteStore(path) as store:
            assert len(store.search(NS)) == 6


def test_closing_a_connection_keeps_the_locks_of_others(tmp_path: Path) -> None:
    """A process that closes a file loses all its locks on it, unless SQLite is who closes."""
    path = tmp_path / "s"
    with SqliteStore(path) as store:
        store.put(NS, "k", {"n": 1})
        store.conn.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            with SqliteStore(path) as other:
                assert other.get(NS, "k") is not None
        # asked in another process: in this one SQLite would know by itself
        ask = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        asked = subprocess.run([sys.executable, "-c", ask, path], capture_output=True, text=True, check=False)
        assert "locked" in asked.stderr
        store.conn.execute("ROLLBACK")


# ---- callers


def test_a_value_that_cannot_be_stored_names_its_place(colour: Colour, tmp_path: Path) -> None:
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    with SqliteStore(tmp_path / "s") as store:
        with pytest.raises(UnregisteredTypeError) as caught:
            call(colour, store, "put", NS, "the key", {"list": [1, {"deep": threading.Lock()}]})
        for part in ("the key", "('a',)", "list[1].deep"):
            assert part in str(caught.value)
        with pytest.raises(Exception, match="the key") as deep:
            call(colour, store, "put", NS, "the key", cycle)
        assert "self" in str(deep.value)
        assert store.list_namespaces() == []


def test_a_closed_store(colour: Colour, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s")
    store.put(NS, "k", {"n": 1})
    store.close()
    store.close()
    calls: list[Callable[[], Any]] = [
        lambda: call(colour, store, "get", NS, "k"),
        lambda: call(colour, store, "put", NS, "k", {"n": 2}),
        store.setup,
        store.sweep_ttl,
        store.start_ttl_sweeper,
    ]
    for ask in calls:
        with pytest.raises(StoreClosedError):
            ask()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pregel-store")]

    async def main() -> None:
        other = AsyncSqliteStore(tmp_path / "s")
        await other.aclose()
        found = await asyncio.gather(other.aget(NS, "k"), other.aput(NS, "k", {"n": 2}), return_exceptions=True)
        assert [type(one) for one in found] == [StoreClosedError] * 2

    asyncio.run(main())
    with SqliteStore(tmp_path / "s") as again:
        assert again.get(NS, "k").value == {"n": 1}  # type: ignore[union-attr]


def test_a_sweeper_goes_on_after_a_lock_and_ends_with_its_store(tmp_path: Path) -> None:
    clock = Clock()
    swept = threading.Semaphore(0)

    class Watched(SqliteStore):
        fails: Exception | None = None

        def sweep_ttl(self) -> int:
            try:
                if self.fails is not None:
                    raise self.fails
                return super().sweep_ttl()
            finally:
                swept.release()

    with Watched(tmp_path / "s", clock=clock) as store:
        store.put(NS, "k", {"n": 1}, ttl=1)
        clock.now += 100
        store.fails = sqlite_error("SQLITE_BUSY")
        ended = store.start_ttl_sweeper(0.00001)
        assert store.start_ttl_sweeper() is ended
        assert swept.acquire(timeout=10)
        store.fails = None
        for _ in range(2):
            assert swept.acquire(timeout=10)
        assert store.conn.execute("SELECT count(*) FROM store_items").fetchone() == (0,)
        store.fails = LookupError("something else")
        with pytest.raises(LookupError):
            ended.result(timeout=10)
        again = store.start_ttl_sweeper(60)
        assert again.cancel()
        assert store.stop_ttl_sweeper()
        last = store.start_ttl_sweeper(60)
    assert last.result(timeout=10) is None
