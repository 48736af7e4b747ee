"""Where an SQLite file keeps what tasks wrote: the short writes of the task that ends a step in the row of its
checkpoint, everything else in a table of its own. Nobody who reads can tell; and files from before there was such a
place."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from checkpoint.base import CorruptCheckpointError, ReadOnlyError
from checkpoint.cli import main
from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.sqlite import SqliteSaver, columns
from tests.checkpoint.ciphers import BindingCipher
from tests.checkpoint.runs import ScriptedRun, Store, config

GOLDEN = Path(__file__).parent / "golden"
TASK = "00000000-0000-0000-0000-000000000001"
OTHER = "00000000-0000-0000-0000-000000000002"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "threads.sqlite"


@pytest.fixture(params=["plain", "encrypted"])
def saver(path: Path, request: pytest.FixtureRequest) -> Iterator[SqliteSaver]:
    with SqliteSaver(path, serde=encrypting() if request.param == "encrypted" else None) as opened:
        yield opened


def encrypting() -> EncryptedSerializer:
    return EncryptedSerializer(BindingCipher(b"key"))


def places(saver: SqliteSaver) -> tuple[list[str], list[str]]:
    """Ids of the tasks whose regular writes are in rows of checkpoints, and in the table."""
    conn = saver._connections.writer  # type: ignore[union-attr]
    beside = conn.execute("SELECT task_id FROM checkpoints WHERE task_id IS NOT NULL ORDER BY rev").fetchall()
    apart = conn.execute("SELECT task_id FROM task_writes WHERE slot = 0 AND part = 0 ORDER BY rev, task_id").fetchall()
    return [columns.id_text(row[0]) for row in beside], [columns.id_text(row[0]) for row in apart]


def written(saver: Any, where: Any) -> list[tuple[str, str, Any]]:
    return list(saver.get_tuple(where).pending_writes)


# ---- which place


@pytest.mark.parametrize(
    ("value", "task_path", "is_beside"),
    [
        ("x", "~a", True),
        ("x" * 300, "", True),
        ("x" * 401, "~a", False),
        ("x" * 9000, "~a", False),
        ("x", "~" + "p" * 127, True),
        ("x", "~" + "p" * 500, False),
    ],
)
def test_the_last_task_of_a_step(path: Path, value: str, task_path: str, is_beside: bool) -> None:
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"n": 1})
        before = run.stored[-1].config
        task = run.task(TASK, [("n", value), ("m", None)], path=task_path)
        run.step({"n": 2}, writes=[run.task(OTHER, [("n", 0)]), task])
        assert places(saver) == (
            ([TASK], [OTHER]) if is_beside else ([], [OTHER, TASK] if OTHER < TASK else [TASK, OTHER])
        )
        found = {(task_id, channel): value for task_id, channel, value in written(saver, before)}
        assert found == {(TASK, "n"): value, (TASK, "m"): None, (OTHER, "n"): 0}
        (shown,) = saver.list(config(), limit=1, before=run.stored[-1].config)
        assert {(task_id, channel): value for task_id, channel, value in shown.pending_writes or ()} == found
        stored = saver.load(before).writes
        assert {write.path for write in stored if write.task_id == TASK} == {task_path}
        assert saver.verify(deep=True) == []


def test_what_is_flushed_before_its_step_ends(saver: SqliteSaver) -> None:
    run = ScriptedRun(Store(saver, False))
    run.step({"n": 1})
    run.tasks(run.task(TASK, [("n", 1)]), run.task(TASK, [("__interrupt__", "q")], slot=-3))
    assert places(saver) == ([], [TASK])
    # The same task at the end of the step: its first writes stay.
    run.step({"n": 2}, writes=[run.task(TASK, [("n", 99)])])
    assert places(saver) == ([], [TASK])
    assert written(saver, run.stored[0].config) == [(TASK, "__interrupt__", "q"), (TASK, "n", 1)]


def test_the_first_writes_of_a_task_stay_in_either_place(saver: SqliteSaver) -> None:
    run = ScriptedRun(Store(saver, False))
    run.step({"n": 1})
    where = run.stored[0].config
    run.step({"n": 2}, writes=[run.task(TASK, [("n", 1)])])
    for value in ("later", "later" * 1000):
        saver.put_writes(where, [("n", value)], TASK)
        assert written(saver, where) == [(TASK, "n", 1)]
    for value in ("instead", "instead" * 1000, "again"):
        saver.put_writes(where, [("n", value)], TASK, replace=True)
        assert places(saver) == ([], [TASK])
        assert written(saver, where) == [(TASK, "n", value)]
    saver.put_writes(where, [("n", "more")], OTHER)
    assert [row[2] for row in written(saver, where)] == ["again", "more"]
    assert saver.verify(deep=True) == []


def test_a_group_of_steps_in_one_transaction(path: Path) -> None:
    told = []
    for lag, name in ((1, "one by one"), (16, "together")):
        with SqliteSaver(path.with_name(name), max_checkpoint_lag=lag) as saver:
            run = ScriptedRun(Store(saver, False))
            run.step({"n": 0})
            commits = []
            for n in range(1, 9):
                tasks = [run.task(TASK, [("n", n)])]
                if n % 3 == 0:
                    tasks.insert(0, run.task(OTHER, [("n", "x" * 500)]))
                commits.append(run.prepare({"n": n}, writes=tasks))
            encoded = [saver.encode(commit) for commit in commits]
            if lag == 1:
                for one in encoded:
                    saver.write([one], durability="async")
            else:
                saver.write(encoded, durability="async")
            assert places(saver) == ([TASK] * 8, [OTHER] * 2)
            told.append([(entry.metadata["step"], entry.pending_writes) for entry in saver.list(config())])
            assert saver.verify(deep=True) == []
    assert told[0] == told[1]


# ---- upkeep


def test_upkeep_reaches_both_places(saver: SqliteSaver) -> None:
    run = ScriptedRun(Store(saver, False))
    run.step({"n": 0})
    for n in range(1, 6):
        run.step(
            {"n": n, "l": ["x" * 100] * n}, writes=[run.task(OTHER, [("n", "x" * 500)]), run.task(TASK, [("n", n)])]
        )
    stats = saver.stats()
    assert saver.copy_thread("t", "copy") is None
    assert len(places(saver)[0]) == len(places(saver)[1]) == 10
    told = [entry.pending_writes for entry in saver.list(config())]
    assert [entry.pending_writes for entry in saver.list(config("copy"))] == told
    assert saver.stats().task_rows == 2 * stats.task_rows == 20
    saver.prune(["t"], keep=2)
    assert [entry.pending_writes for entry in saver.list(config())] == told[:2]
    assert sorted(map(len, places(saver))) == [6, 6]
    conn = saver._connections.writer  # type: ignore[union-attr]
    assert conn.execute("SELECT count(*) FROM checkpoints WHERE flags & 1 AND task_id IS NOT NULL").fetchone() == (0,)
    assert saver.verify(deep=True) == []
    saver.delete_thread("copy")
    assert sorted(map(len, places(saver))) == [1, 1]


def test_a_checkpoint_that_is_put_again_keeps_what_its_tasks_wrote(saver: SqliteSaver) -> None:
    run = ScriptedRun(Store(saver, False))
    run.step({"n": 1})
    where = run.stored[0].config
    run.step({"n": 2}, writes=[run.task(TASK, [("n", 1)])])
    found = saver.get_tuple(where)
    assert found is not None
    saver.put({"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, found.checkpoint, {"by": "me"}, {})  # type: ignore[typeddict-unknown-key]
    assert written(saver, where) == [(TASK, "n", 1)]
    assert saver.verify(deep=True) == []


def test_a_file_that_keeps_no_results_drops_those_in_rows(path: Path) -> None:
    """`history_writes="drop"`: after a step of which something is stored already, nothing of it is left."""
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"n": 0})
        run.step({"n": 1}, writes=[run.task(TASK, [("n", 1)])])
        run.tasks(run.task(OTHER, [("n", 2)]))
    with SqliteSaver(path, history_writes="drop") as saver:
        again = ScriptedRun(Store(saver, False))
        again.step({"n": 2}, writes=[again.task(TASK, [("n", 2)])])
        assert places(saver) == ([TASK], [])
        assert written(saver, run.stored[1].config) == []
        assert written(saver, run.stored[0].config) == [(TASK, "n", 1)]


def test_pages_of_rows_of_both_places(path: Path) -> None:
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"n": 0})
        for n in range(6):
            tasks = [run.task(OTHER, [("n", "x" * 3000 * (n % 2))])] if n % 3 else []
            run.step({"n": n}, writes=[*tasks, run.task(TASK, [("n", n)])])
        with saver._scanning() as scan:
            (space,) = scan.spaces(1, None, 9)
            whole = scan.writes(space[0], None, 1000, 10**9)
            assert len(whole) == 10
            assert [row.damage for row in whole] == [None] * 10
            for limit, n_bytes in ((1, 10**9), (3, 10**9), (1000, 1), (1000, 4000)):
                pages, after = [], None
                while page := scan.writes(space[0], after, limit, n_bytes):
                    pages += page
                    after = page[-1].row.rev, page[-1].row.task_id, page[-1].row.slot
                assert pages == whole


def test_one_task_in_both_places_is_damage(path: Path) -> None:
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"n": 0})
        run.step({"n": 1}, writes=[run.task(TASK, [("n", 1)])])
        conn = saver._connections.writer  # type: ignore[union-attr]
        conn.execute(
            "INSERT INTO task_writes SELECT space_pk, rev, task_id, 0, 0, task_path, task_tag, task_crc, task_data "
            "FROM checkpoints WHERE task_id IS NOT NULL"
        )
        assert [problem.thread_id for problem in saver.verify()] == ["t"]
        with pytest.raises(CorruptCheckpointError):
            saver.get_tuple(run.stored[0].config)
        assert saver.repair(config())
        assert saver.verify(deep=True) == []


# ---- files of schema 1


@pytest.fixture
def old(path: Path) -> Path:
    """A file that schema 1 wrote: deltas, parts, forks, namespaces, an alias, an open question."""
    path.write_bytes(gzip.decompress((GOLDEN / "v1.sqlite.gz").read_bytes()))
    path.chmod(0o600)
    return path


def check_old(saver: SqliteSaver) -> None:
    """Every checkpoint reads as it did when it was written."""
    told = []
    for thread in ("t", "open"):
        for entry in saver.list({"configurable": {"thread_id": thread}}):
            parent = (entry.parent_config or config(thread))["configurable"].get("checkpoint_id")
            shown = [
                *(parent, entry.metadata["step"], entry.metadata["source"], entry.checkpoint["ts"]),
                *(entry.checkpoint["channel_values"], [list(write) for write in entry.pending_writes or ()]),
            ]
            digest = hashlib.sha256(json.dumps(shown).encode()).hexdigest()
            told.append([thread, entry.config["configurable"]["checkpoint_ns"], entry.checkpoint["id"], digest])
    assert told == json.loads((GOLDEN / "v1.json").read_text())
    assert saver.verify(deep=True) == []


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as conn:
        (number,) = conn.execute("PRAGMA user_version").fetchone()
        return int(number)


def test_an_old_file_is_migrated_and_goes_on(old: Path) -> None:
    with SqliteSaver(old) as saver:
        check_old(saver)
        run = ScriptedRun(Store(saver, False), config("open"))
        run.step({"n": 4}, writes=[run.task(TASK, [("n", 4)])])
        run.step({"n": 5}, writes=[run.task(TASK, [("n", 5)])])
        assert places(saver)[0] == [TASK, TASK]
        run.stored[-1].check(run.store)
        saver.prune(["t"], keep=1)
        saver.copy_thread("t", "copy")
        assert saver.verify(deep=True) == []
    assert version(old) == 2
    with SqliteSaver(old) as saver:
        assert saver.verify(deep=True) == []


@pytest.mark.parametrize("is_locked_up", [False, True])
def test_an_old_file_is_read_as_it_is(old: Path, is_locked_up: bool) -> None:
    before = old.read_bytes()
    if is_locked_up:
        old.chmod(stat.S_IRUSR)
    with SqliteSaver(old, read_only=True) as saver:
        check_old(saver)
        assert saver.stats().task_rows == 9
        with pytest.raises(ReadOnlyError):
            saver.delete_thread("t")
    assert old.read_bytes() == before
    assert os.listdir(old.parent) == [old.name]


def test_an_old_file_that_is_migrated_while_it_is_read(old: Path) -> None:
    with SqliteSaver(old, read_only=True) as reader:
        check_old(reader)
        with SqliteSaver(old) as saver:
            run = ScriptedRun(Store(saver, False), config("new"))
            run.step({"n": 0})
            run.step({"n": 1}, writes=[run.task(TASK, [("n", 1)])])
            check_old(reader)
            assert written(reader, run.stored[0].config) == [(TASK, "n", 1)]


def test_commands_on_an_old_file(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("verify", "stats", "export"):
        assert main([command, str(old)]) == 0
        assert version(old) == 1
    assert main(["migrate", str(old)]) == 0
    assert version(old) == 2
    assert "1 -> 2" in capsys.readouterr().out
    with SqliteSaver(old) as saver:
        check_old(saver)


def test_a_migration_that_fails_leaves_the_file_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from checkpoint.sqlite import migrations

    before = old.read_bytes()
    first, second = migrations.MIGRATIONS
    broken = second._replace(statements=(*second.statements, "SELECT no such thing"))
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "MIGRATIONS", (first, broken))
        with pytest.raises(sqlite3.OperationalError):
            SqliteSaver(old)
    assert version(old) == 1
    assert len(before) == old.stat().st_size
    with SqliteSaver(old) as saver:
        check_old(saver)
