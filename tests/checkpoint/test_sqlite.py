"""What only the SQLite savers promise: the file, its budgets, the queue, damage, other processes."""

import asyncio
import gc
import os
import re
import sqlite3
import stat
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from checkpoint.base import (
    CheckpointConflictError,
    CorruptCheckpointError,
    SaverClosedError,
    SchemaVersionError,
)
from checkpoint.sqlite import AsyncSqliteSaver, SqliteSaver, columns, commits, writer
from checkpoint.sqlite import saver as saver_module
from checkpoint.sqlite.migrations import APPLICATION_ID
from checkpoint.testing.script import checkpoint
from tests.checkpoint.runs import ScriptedRun, Store, config, transactions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "threads.sqlite"


def message(n: int) -> dict[str, Any]:
    """225 bytes encoded."""
    return {"role": "user", "content": f"{n:06}" + "x" * 192, "n": n}


def traced(conn: Any) -> list[str]:
    """Statements that a connection runs from now on."""
    statements: list[str] = []
    conn.set_trace_callback(statements.append)
    return statements


def loop(run: ScriptedRun, n_steps: int) -> None:
    """Supersteps of one node in a loop: a message is appended, a control channel fires, one task row."""
    if run.rev is None:
        run.step({"messages": [], "branch:to:a": None})
    for n in range(n_steps):
        new = message(n)
        task = run.task(f"f4ef0ca2-f4d5-4a13-9a05-{n:012}", [("messages", [new]), ("branch:to:a", None)], path="~a, b")
        run.step(
            {"messages": [*run.values["messages"], new], "branch:to:a": None},
            seen={"a": {"branch:to:a": run.versions["branch:to:a"]}},
            writes=[task],
        )


# ---- the file


def test_a_new_file(path: Path) -> None:
    with SqliteSaver.from_conn_string(str(path)) as saver:
        ScriptedRun(Store(saver, False)).step({"a": 1})
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        conn = sqlite3.connect(path)
        assert conn.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert conn.execute("PRAGMA user_version").fetchone() == (2,)
        assert conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert [row[0] for row in conn.execute("SELECT version FROM schema_migrations")] == [1, 2]
        conn.close()
    assert sorted(os.listdir(path.parent)) == [path.name]
    with pytest.raises(SaverClosedError):
        saver.get_tuple(config())
    saver.close()


def test_foreign_files_are_refused(path: Path) -> None:
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE checkpoints (thread_id TEXT)")
    conn.commit()
    before = path.read_bytes()
    with pytest.raises(SchemaVersionError):
        SqliteSaver(path)
    conn.close()
    assert [*sqlite3.connect(path).execute("SELECT name FROM sqlite_master")] == [("checkpoints",)]
    assert len(before) == path.stat().st_size


def test_newer_and_changed_schemas_are_refused(path: Path) -> None:
    SqliteSaver(path).close()
    conn = sqlite3.connect(path)
    conn.execute("UPDATE schema_migrations SET sha256 = 'other'")
    conn.commit()
    with pytest.raises(SchemaVersionError):
        SqliteSaver(path)
    conn.execute("PRAGMA user_version = 99")
    conn.close()
    with pytest.raises(SchemaVersionError) as caught:
        SqliteSaver(path)
    assert (caught.value.found, caught.value.supported) == (99, 2)


def test_tables_of_others_in_the_same_file(path: Path) -> None:
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE notes (text TEXT)")
    conn.commit()
    with SqliteSaver(conn) as saver:
        ScriptedRun(Store(saver, False)).step({"a": 1})
    conn.execute("INSERT INTO notes VALUES ('still open')")
    conn.close()


def test_given_connections(path: Path) -> None:
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    for conn in (sqlite3.connect(path), memory):
        with SqliteSaver(conn) as saver:
            for is_async in (False, True):
                store = Store(saver, is_async)
                run = ScriptedRun(store)
                run.step({"a": [1] * 100}).check(store)
        conn.execute("SELECT 1")
        conn.close()


def test_async_saver_in_its_usual_forms(path: Path) -> None:
    async def use(saver: Any) -> None:
        await saver.setup()
        run = ScriptedRun(Store(saver, False))
        await saver.awrite([saver.encode(run.prepare({"a": 1}))], durability="sync")
        found = await saver.aget_tuple(config())
        assert found.checkpoint["channel_values"] == {"a": 1}
        assert (await anext(saver.alist(config()))).checkpoint["id"] == found.checkpoint["id"]
        await saver.adelete_thread("t")

    async def forms() -> None:
        async with AsyncSqliteSaver.from_conn_string(":memory:") as saver:
            await use(saver)
        async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
            await use(saver)
        async with aiosqlite.connect(path) as conn:
            await use(AsyncSqliteSaver(conn))
        async with aiosqlite.connect(":memory:") as conn, AsyncSqliteSaver(conn) as saver:
            await use(saver)
            assert await conn.execute_fetchall("SELECT count(*) FROM threads") == [(0,)]
        async with SqliteSaver.from_conn_string(str(path)) as saver:
            run = ScriptedRun(Store(saver, False))
            await saver.acommit(run.prepare({"a": 1}))

    asyncio.run(forms())
    gc.collect()


def test_an_unused_saver_is_closed(path: Path) -> None:
    saver = SqliteSaver(path)
    run = ScriptedRun(Store(saver, True))
    run.step({"a": 1})
    gone = weakref.ref(saver)
    del saver, run
    gc.collect()
    assert gone() is None
    assert sorted(os.listdir(path.parent)) == [path.name]


# ---- budgets (storage.md C6)


def test_statements_and_tables_of_a_superstep(path: Path) -> None:
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        loop(run, 3)
        statements = traced(saver._connections.writer)  # type: ignore[union-attr]
        loop(run, 1)
        kinds = [statement.split()[0] for statement in statements]
        assert kinds == ["BEGIN", "UPDATE", "UPDATE", "INSERT", "INSERT", "COMMIT"]
        tables = {name for text in statements for name in re.findall(r"(?:INTO|UPDATE) (\w+)", text)}
        assert tables == {"spaces", "payloads", "checkpoints"}
        statements.clear()
        fresh = ScriptedRun(run.store)
        fresh.step({"n": 1})
        assert [text.split()[0] for text in statements] == ["BEGIN", "UPDATE", "UPDATE", "INSERT", "COMMIT"]
        statements.clear()
        run = ScriptedRun(run.store, config("other"))
        run.step({"messages": [message(1)], "n": 2})
        assert len(statements) <= 7


@pytest.mark.parametrize("n_channels", [1, 300])
def test_statements_of_a_load(path: Path, n_channels: int) -> None:
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({f"c{n}": "x" * 100 for n in range(n_channels)})
        for _ in range(20):
            run.step({"c0": run.values["c0"] + "y" * 10})
        saver.load(config())
        (reader,) = saver._connections.readers  # type: ignore[union-attr]
        for load in (config(), config("t", "", run.stored[3].id)):
            statements = traced(reader)
            saver.load(load)
            selects = [text for text in statements if text.split()[0] not in ("BEGIN", "COMMIT")]
            assert len(selects) <= 4


def test_file_sizes(tmp_path: Path) -> None:
    sizes = {}
    for n_steps in (200, 400):
        path = tmp_path / str(n_steps)
        with SqliteSaver(path) as saver:
            loop(ScriptedRun(Store(saver, False), durability="async"), n_steps)
        sizes[n_steps] = path.stat().st_size
    assert sizes[200] <= 220_000
    assert sizes[400] / sizes[200] <= 2.1


def test_a_document_is_stored_once(path: Path) -> None:
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False), durability="async")
        run.step({"document": "d" * 1_000_000, "n": 0})
        for n in range(100):
            run.step({"n": n})
    assert path.stat().st_size < 1_100_000


def test_the_wal_does_not_grow(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver_module, "WAL_TRIGGER", 200_000)
    with SqliteSaver(path) as saver:
        # The checkpoint thread's work, at the moment it is asked for: how far it lags is not for this test.
        monkeypatch.setattr(saver._folder, "post", lambda call: call())
        loop(ScriptedRun(Store(saver, False), durability="async"), 600)
        assert Path(f"{path}-wal").stat().st_size <= 400_000


def test_a_stalled_checkpoint_thread_does_not_matter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver_module, "WAL_TRIGGER", 200_000)
    monkeypatch.setattr(saver_module, "WAL_LIMIT", 600_000)
    with SqliteSaver(path) as saver:
        saver._folding = True
        loop(ScriptedRun(Store(saver, False), durability="async"), 600)
        assert Path(f"{path}-wal").stat().st_size <= 1_000_000


# ---- async durability


def test_submit_writes_at_once_when_it_can(path: Path) -> None:
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        assert saver.submit(saver.encode(run.prepare({"a": 1}))) is None
        large = saver.submit(saver.encode(run.prepare({"a": "x" * 100_000})))
        assert large is not None
        large.result()
        for stored in run.stored:
            stored.check(run.store)


def test_the_caller_of_submit_does_not_fold_the_wal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[threading.Thread] = []
    with SqliteSaver(path) as saver:
        monkeypatch.setattr(saver, "_fold", lambda conn: folders.append(threading.current_thread()))
        run = ScriptedRun(Store(saver, False))
        run.step({"n": 0})
        saver._short_fold = True
        first = saver.submit(run.prepare_and_encode({"n": 1}))
        assert first is not None
        saver._writer.post(int).result()  # it is through with what it was asked for before
        assert saver.submit(run.prepare_and_encode({"n": 2})) is None
        saver._wal_bytes, saver._folding = saver_module.WAL_LIMIT + 1, True
        second = saver.submit(run.prepare_and_encode({"n": 3}))
        assert second is not None
        saver._writer.post(int).result()
        assert first.done()
        assert second.done()
        assert saver.load(config()).values == {"n": 3}
    assert [folder.name for folder in folders] == ["checkpoint-writer"] * 2


def test_large_bodies_come_in_parts(path: Path) -> None:
    text = "".join(map(str, range(300_000)))
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"n": 0})
        task = run.task("f4ef0ca2-f4d5-4a13-9a05-000000000000", [("text", text)])
        run.step({"text": text}, writes=[task])
        for table in ("payloads", "task_writes"):
            query = f"SELECT max(length(data)) FROM {table}"
            assert saver._connections.writer.execute(query).fetchone() == (columns.LARGE_PART,)  # type: ignore[union-attr]
        assert saver.verify(deep=True) == []
        run.stored[-1].check(run.store)
        earlier = saver.get_tuple(run.stored[0].config)
        assert earlier is not None
        assert earlier.pending_writes == [("f4ef0ca2-f4d5-4a13-9a05-000000000000", "text", text)]


@pytest.mark.parametrize("lag", [1, 16])
def test_submitted_commits_keep_their_order(path: Path, lag: int) -> None:
    with SqliteSaver(path, max_checkpoint_lag=lag) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"l": [message(0)]})
        connections = saver._connections
        assert connections is not None
        statements = traced(connections.writer)
        acks = []
        # Somebody else writes: nothing can go out at once.
        connections.write_lock.acquire()
        for n in range(1, 10):
            new = message(n)
            task = run.task("f4ef0ca2-f4d5-4a13-9a05-7c5f1ae4dba3", [("l", new)])
            acks.append(saver.submit(saver.encode(run.prepare({"l": [*run.values["l"], new]}, writes=[task]))))
        assert all(ack is not None and not ack.done() for ack in acks)
        connections.write_lock.release()
        # A read waits for what was submitted.
        assert saver.load(config()).values == run.values
        assert all(ack is not None and ack.done() for ack in acks)
        n_transactions = statements.count("COMMIT")
        assert n_transactions == 9 if lag == 1 else 1 <= n_transactions <= 2
        for stored in run.stored:
            stored.check(run.store)


def submitted(saver: SqliteSaver, run: ScriptedRun, n_commits: int) -> list[Any]:
    """Acks of commits that each append to the channel "l"."""
    acks = []
    for n in range(n_commits):
        commit = run.prepare({"l": [*run.values.get("l", []), message(n)]})
        acks.append(saver.submit(saver.encode(commit)))
    return acks


@pytest.fixture
def grouping(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteSaver]:
    """A saver with lag 16 whose timer never ends its first nap, and that has stored a first commit."""
    ended = threading.Event()
    monkeypatch.setattr(saver_module.time, "sleep", lambda _: ended.wait())
    with SqliteSaver(path, max_checkpoint_lag=16) as saver:
        yield saver
        ended.set()


@pytest.mark.parametrize("is_async", [False, True])
def test_who_waits_for_one_commit_gets_all_written_in_one_transaction(grouping: SqliteSaver, is_async: bool) -> None:
    run = ScriptedRun(Store(grouping, False))
    run.step({"l": []})
    assert grouping._connections is not None
    statements = traced(grouping._connections.writer)
    acks = submitted(grouping, run, 9)
    assert not any(ack.done() for ack in acks)
    assert statements == []
    if is_async:
        asyncio.run(acks[0].aresult())
    else:
        acks[0].result()
    assert all(ack.done() for ack in acks)
    kinds = [statement.split()[0] for statement in statements]
    assert [kinds.count(kind) for kind in ("BEGIN", "UPDATE", "COMMIT")] == [1, 1, 1]
    for stored in run.stored:
        stored.check(run.store)


def test_commits_that_nobody_waits_for_are_written_by_the_timer(path: Path) -> None:
    with SqliteSaver(path, max_checkpoint_lag=16) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"l": []})
        for _ in range(2):
            acks = submitted(saver, run, 3)
            # The timer's thread is free again when there is nothing left to write.
            saver._timer.call(lambda: None)
            assert all(ack.done() for ack in acks)
        for stored in run.stored:
            stored.check(run.store)


def test_closing_writes_what_was_submitted(path: Path) -> None:
    saver = SqliteSaver(path, max_checkpoint_lag=16)
    run = ScriptedRun(Store(saver, False))
    acks = submitted(saver, run, 3)
    saver.close()
    assert all(ack.done() for ack in acks)
    with SqliteSaver(path) as again:
        for stored in run.stored:
            stored.check(Store(again, False))


def test_order_of_task_rows_in_a_group(grouping: SqliteSaver) -> None:
    """Slot 0: the first row of a task stays, whatever its size. Below: the last one does."""
    store = Store(grouping, False)
    run = ScriptedRun(store)
    run.step({"n": 0})
    rows = [
        [run.task("t1", [("n", 1)]), run.task("t2", [("__resume__", "old")], slot=-4)],
        [run.task("t1", [("n", "x" * 2000)]), run.task("t3", [("n", "y" * 2000)])],
        [run.task("t2", [("__resume__", "new")], slot=-4), run.task("t3", [("n", 3)])],
    ]
    assert run.rev is not None
    parent = run.stored[-1]
    for n, tasks in enumerate(rows):
        grouping.submit(grouping.encode(run.prepare({"n": n}, writes=tasks)))
    writes = store.get_tuple(parent.config).pending_writes
    assert writes == [("t1", "n", 1), ("t2", "__resume__", "new"), ("t3", "n", "y" * 2000)]


@pytest.mark.parametrize("when", ["before the commit", "after the commit"])
def test_an_interrupt_of_who_waits_loses_nothing(
    grouping: SqliteSaver, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    run = ScriptedRun(Store(grouping, False))
    run.step({"l": []})
    acks = submitted(grouping, run, 3)
    store = commits.store

    def interrupted(conn: Any, steps: Any, codec: Any) -> None:
        if when == "after the commit":
            store(conn, steps, codec)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commits, "store", interrupted)
        with pytest.raises(KeyboardInterrupt):
            acks[0].result()
    assert run.claim.poisoned is None
    acks += submitted(grouping, run, 2)
    for ack in acks:
        ack.result()
    for stored in run.stored:
        stored.check(run.store)


def test_a_refused_group_is_refused_as_a_whole(grouping: SqliteSaver) -> None:
    store = Store(grouping, False)
    run = ScriptedRun(store)
    run.step({"n": 0})
    acks = submitted(grouping, run, 3)
    with SqliteSaver(grouping.conn) as other:
        ScriptedRun(Store(other, False)).step({"n": 1})
    acks += submitted(grouping, run, 1)
    for ack in acks:
        with pytest.raises(CheckpointConflictError):
            ack.result()
    assert len(store.list(config())) == 2


class Over(BaseException):
    """What the engine refuses the commits of a run with that is over: no failure, so nobody may catch it by accident."""


def test_what_a_run_left_behind_that_is_over_is_not_a_readers_error(grouping: SqliteSaver) -> None:
    store = Store(grouping, False)
    run = ScriptedRun(store)
    run.step({"n": 0})
    acks = submitted(grouping, run, 2)
    run.claim.poisoned = Over()  # type: ignore[assignment]
    assert len(store.list(config())) == 1
    assert grouping.load(config()).values == {"n": 0}
    for ack in acks:
        with pytest.raises(Over):
            ack.result()
    ScriptedRun(store).step({"n": 1})
    assert len(store.list(config())) == 2


def test_a_lock_held_by_another_process_sends_a_commit_to_the_queue(path: Path) -> None:
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"n": 0})
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        ack = saver.submit(saver.encode(run.prepare({"n": 1})))
        assert ack is not None
        assert not run.claim.poisoned
        other.execute("COMMIT")
        other.close()
        ack.result()
        run.stored[-1].check(run.store)


def test_a_failed_submit_stops_the_run(path: Path) -> None:
    with SqliteSaver(path) as saver:
        store = Store(saver, False)
        run = ScriptedRun(store)
        run.step({"n": 0})
        ScriptedRun(store).step({"n": 1})
        assert saver._connections is not None
        saver._connections.write_lock.acquire()
        acks = [saver.submit(saver.encode(run.prepare({"n": n}))) for n in (2, 3)]
        saver._connections.write_lock.release()
        for ack in acks:
            assert ack is not None
            with pytest.raises(CheckpointConflictError):
                ack.result()
            with pytest.raises(CheckpointConflictError):
                asyncio.run(ack.aresult())
        with pytest.raises(CheckpointConflictError):
            run.step({"n": 4})
        assert len(store.list(config())) == 2


def test_an_error_of_sqlite_comes_out_as_itself(path: Path) -> None:
    with SqliteSaver(path) as saver:
        store = Store(saver, False)
        run = ScriptedRun(store)
        run.step({"n": 0})
        assert saver._connections is not None
        writer = saver._connections.writer
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(sqlite3.OperationalError) as caught:
            run.step({"x": os.urandom(50_000)})
        assert "'t'" in caught.value.__notes__[0]
        with pytest.raises(sqlite3.OperationalError):
            run.step({"n": 1})
        writer.execute("PRAGMA max_page_count = 1000000")
        again = ScriptedRun(store)
        assert again.values == {"n": 0}
        again.step({"n": 2}).check(store)


def test_a_cancelled_write_is_known_to_its_caller(path: Path) -> None:
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"n": 0})

        async def cancelled() -> None:
            assert saver._connections is not None
            saver._connections.write_lock.acquire()
            write = asyncio.ensure_future(saver.awrite([saver.encode(run.prepare({"n": 1}))], durability="sync"))
            await asyncio.sleep(0)
            write.cancel()
            await asyncio.sleep(0)
            assert not write.done()
            saver._connections.write_lock.release()
            with pytest.raises(asyncio.CancelledError):
                await write
            run.stored[-1].check(run.store)

        asyncio.run(cancelled())


# ---- others


def test_two_processes_on_one_thread(path: Path) -> None:
    with SqliteSaver(path) as ours, SqliteSaver(path) as theirs:
        store = Store(ours, False)
        run = ScriptedRun(store)
        run.step({"n": 0})
        ScriptedRun(Store(theirs, False)).step({"n": 1})
        with pytest.raises(CheckpointConflictError):
            run.step({"n": 2})
        assert store.get_tuple(config()).checkpoint["channel_values"] == {"n": 1}


def test_read_modify_write_loses_nothing(path: Path) -> None:
    conflicts = [0]

    def work(saver: SqliteSaver) -> None:
        store = Store(saver, False)
        for _ in range(40):
            while True:
                run = ScriptedRun(store, durability="async")
                try:
                    run.step({"n": run.values.get("n", 0) + 1})
                    break
                except CheckpointConflictError:
                    conflicts[0] += 1

    with SqliteSaver(path) as first, SqliteSaver(path) as second:
        workers = [threading.Thread(target=work, args=(saver,)) for saver in (first, second, first)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert first.load(config()).values == {"n": 120}


def read_all(saver: SqliteSaver) -> None:
    """What earlier steps wrote is read by a listing alone."""
    saver.load(config())
    list(saver.list(config()))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE payloads SET data = zeroblob(length(data)) WHERE seq = 0",
        "UPDATE payloads SET data = zeroblob(length(data)) WHERE seq = 2",
        "UPDATE payloads SET data = zeroblob(length(data)) WHERE part = 1",
        "UPDATE checkpoints SET header = zeroblob(length(header)) WHERE rev = (SELECT min(rev) FROM checkpoints)",
        "UPDATE checkpoints SET metadata = '{}' WHERE metadata IS NOT NULL",
        "UPDATE checkpoints SET task_data = zeroblob(length(task_data))",
        "UPDATE task_writes SET data = zeroblob(length(data))",
        "UPDATE checkpoints SET step = step + 1",
        "DELETE FROM payloads WHERE seq = 1",
        "DELETE FROM payloads WHERE part = 1",
        "DELETE FROM payloads",
        "DELETE FROM checkpoints WHERE rev = (SELECT min(rev) FROM checkpoints)",
        "UPDATE spaces SET head_rev = head_rev + 1",
    ],
)
def test_damage_is_found(path: Path, damage: str) -> None:
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"l": [message(0)], "doc": os.urandom(3000)}, metadata={"k": 1})
        for n in range(3):
            wrote = run.task("t", [("l", message(n))])
            run.step({"l": [*run.values["l"], message(n)]}, writes=[wrote], metadata={"k": 1})
        run.tasks(run.task("t", [("l", message(4))]))
    conn = sqlite3.connect(path)
    assert conn.execute(damage).rowcount > 0
    conn.commit()
    conn.close()
    with SqliteSaver(path) as saver:
        with pytest.raises(CorruptCheckpointError) as caught:
            read_all(saver)
        assert caught.value.thread_id == "t"


def test_damage_in_a_page_of_a_listing_has_its_place(path: Path) -> None:
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"doc": "x" * 3000, "n": 0})
        for n in range(4):
            run.step({"doc": f"{n}" * 3000} if n == 2 else {"n": n})
    conn = sqlite3.connect(path)
    conn.execute("UPDATE payloads SET data = zeroblob(length(data)) WHERE root = ?", (run.stored[3].rev,))
    conn.commit()
    conn.close()
    with SqliteSaver(path) as saver:
        for listed in (saver.list, saver.history):
            with pytest.raises(CorruptCheckpointError) as caught:
                list(listed(config()))
            assert (caught.value.thread_id, caught.value.checkpoint_id) == ("t", run.stored[4].id)
            older = listed(config(), before=run.stored[3].config)
            assert len(list(older)) == 3


@pytest.mark.parametrize("n_steps", [1, 3, 30])
def test_large_threads_are_deleted_in_batches(path: Path, monkeypatch: pytest.MonkeyPatch, n_steps: int) -> None:
    """Few checkpoints may have many rows, too."""
    monkeypatch.setattr(writer, "BIG_DELETE", 10)
    monkeypatch.setattr(writer, "DELETE_BATCH", 7)
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False), durability="async")
        loop(run, n_steps)
        run.step({"doc": "d" * 4000})
        run.tasks(run.task("task", [("doc", "t" * 4000)]))
        for n in range(9):
            saver.put(config("t", f"child:{n}"), checkpoint({"n": n}, id=f"foreign {n}"), {}, {"n": 1})
        assert saver._connections is not None
        with transactions(saver._connections.writer) as changes:
            saver.delete_thread("t")
        assert saver.get_tuple(config()) is None
        assert max(changes) <= 7
        for table in ("threads", "spaces", "checkpoints", "payloads", "task_writes", "aliases"):
            assert saver._connections.writer.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
