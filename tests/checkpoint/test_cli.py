"""`python -m checkpoint`: what it says, its exit codes, and that it changes nothing when it only reads."""

import base64
import json
import os
import sqlite3
import subprocess
import sys
from collections import deque
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ormsgpack
import pytest

from checkpoint import cli
from checkpoint.base import empty_checkpoint
from checkpoint.export import plain
from checkpoint.serde import extensions as codes
from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.serde.msgpack import Serde
from checkpoint.sqlite import SqliteSaver, opening
from checkpoint.sqlite import saver as saver_module
from tests.checkpoint.ciphers import BindingCipher
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.checkpoint.test_verify import L, Story, damage, flip, sql

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "threads.sqlite"


@pytest.fixture
def file(path: Path) -> Path:
    with SqliteSaver(path) as saver:
        for thread_id in ("a", "t"):
            Story(saver, thread_id)
    return path


@pytest.fixture
def damaged(file: Path) -> Path:
    damage(file, flip("payloads", "data", f"{L} AND seq = 2"))
    return file


class Shown(SimpleNamespace):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: Any) -> Shown:
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        return Shown(code=code, out=shown.out, err=shown.err)

    return call


def child(*arguments: Any) -> Shown:
    done = subprocess.run(
        [sys.executable, "-m", "checkpoint", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return Shown(code=done.returncode, out=done.stdout, err=done.stderr)


# ---- verify and stats


def test_verify_of_a_sound_file(file: Path, run: Any) -> None:
    before = file.read_bytes()
    for more in ((), ("--deep",), ("--thread", "t"), ("--deep", "--thread", "a")):
        shown = run("verify", file, *more)
        assert (shown.code, shown.lines, shown.err) == (0, ["0 problems"], "")
    assert json.loads(run("verify", file, "--json").out) == {"file": str(file), "deep": False, "problems": []}
    assert file.read_bytes() == before


def test_verify_of_a_damaged_file(damaged: Path, run: Any) -> None:
    shown = run("verify", damaged)
    assert (shown.code, len(shown.lines), shown.err) == (1, 2, "")
    assert "'t'" in shown.lines[0]
    assert "'l'" in shown.lines[0]
    assert run("verify", damaged, "--thread", "a").code == 0
    shown = run("verify", damaged, "--json", "--deep")
    (problem,) = json.loads(shown.out)["problems"]
    assert (shown.code, problem["thread_id"], problem["ns"], problem["channel"]) == (1, "t", "", "l")


def test_progress_is_shown_when_it_is_asked_for(file: Path, run: Any) -> None:
    for command in ("verify", "stats"):
        shown = run(command, file, "--progress")
        assert shown.code == 0
        assert "2 threads" in shown.err.splitlines()[-1]


def test_stats(file: Path, run: Any) -> None:
    shown = run("stats", file)
    assert (shown.code, shown.err) == (0, "")
    assert "28" in shown.out
    stats = json.loads(run("stats", file, "--json", "--top", 1).out)
    assert (stats["threads"], stats["checkpoints"], stats["wal_bytes"]) == (2, 28, 0)
    assert stats["file_bytes"] == file.stat().st_size
    assert len(stats["biggest_threads"]) == 1
    assert json.loads(run("stats", file, "--json", "--thread", "t").out)["checkpoints"] == 14


# ---- export


def test_export(file: Path, run: Any) -> None:
    shown = run("export", file)
    lines = [json.loads(line) for line in shown.lines]
    assert (shown.code, shown.err) == (0, "")
    assert [line["thread_id"] for line in lines] == ["a"] * 14 + ["t"] * 14
    with SqliteSaver(file) as saver:
        stored = list(saver.list({"configurable": {"thread_id": "t"}}))
    assert [line["checkpoint_id"] for line in lines[14:]] == [each.checkpoint["id"] for each in stored]
    assert [line["values"] for line in lines[14:]] == [each.checkpoint["channel_values"] for each in stored]
    asked = next(line for line in lines if line["writes"] and line["writes"][0]["task_id"] == "ask")
    assert asked["writes"][0] == {"task_id": "ask", "channel": "__interrupt__", "value": "q" * 100}
    assert len(run("export", file, "--thread", "t").lines) == 14


def test_export_of_a_damaged_file_gives_the_other_threads(damaged: Path, run: Any) -> None:
    shown = run("export", damaged)
    assert shown.code == 1
    assert {json.loads(line)["thread_id"] for line in shown.lines} == {"a"}
    assert len(shown.err.splitlines()) == 1


def test_export_to_a_reader_that_leaves(path: Path) -> None:
    with SqliteSaver(path) as saver:
        scripted = ScriptedRun(Store(saver, False))
        for n in range(20):
            scripted.step({"doc": f"{n}" * 50_000})
    script = f"{sys.executable} -m checkpoint export '{path}' | head -c 10"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["/bin/sh", "-c", script], cwd=ROOT, env=env, capture_output=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == (b'{"thread_i', b"")


def test_plain_forms() -> None:
    thing = Serde().loads(
        ormsgpack.packb(ormsgpack.Ext(codes.DATACLASS, ormsgpack.packb(["gone:Thing", {"x": 1}]))), opaque=True
    )
    deep: Any = []
    for _ in range(2000):
        deep = [deep]
    for value, expected in (
        ({"a": [1, 2.5, True, None, "x"]}, {"a": [1, 2.5, True, None, "x"]}),
        ((1, (2,)), {"$type": "tuple", "$value": [1, {"$type": "tuple", "$value": [2]}]}),
        ({3, 1, 2}, {"$type": "set", "$value": [1, 2, 3]}),
        (deque([1]), {"$type": "collections.deque", "$value": [1]}),
        ({1: 2}, {"$type": "dict", "$value": [[1, 2]]}),
        ({"$type": 1}, {"$type": "dict", "$value": [["$type", 1]]}),
        (b"\x00\xff", {"$type": "bytes", "$value": base64.b64encode(b"\x00\xff").decode()}),
        (float("nan"), {"$type": "float", "$value": "nan"}),
        (Decimal("1.50"), {"$type": "decimal.Decimal", "$value": "1.50"}),
        (datetime(2020, 1, 1, tzinfo=UTC), {"$type": "datetime.datetime", "$value": "2020-01-01T00:00:00+00:00"}),
        (2**80, 2**80),
        (thing, {"$type": "gone:Thing", "$value": {"x": 1}}),
        (1j, {"$type": "complex", "$repr": "1j"}),
        ("\ud800", "\ud800"),
    ):
        assert plain(value) == expected
        json.dumps(plain(value), allow_nan=False)
    assert json.dumps(plain(deep)).count("[") == 100


# ---- prune, migrate, repair


def test_prune_goes_thread_by_thread(file: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self) -> None:
            self.calls: list[Any] = []

        def prune(self, thread_ids: Any, *, keep: int) -> int:
            self.calls.append((list(thread_ids), keep))
            return 2

    fake = Fake()
    assert cli.prune(fake, ["a", "b"], 3) == 4
    assert fake.calls == [(["a"], 3), (["b"], 3)]

    pruned: list[Any] = []

    def prune(saver: Any, thread_ids: Any, *, keep: int) -> int:
        pruned.append((Path(saver.conn), list(thread_ids), keep))
        return 5

    monkeypatch.setattr(SqliteSaver, "prune", prune)
    assert run("prune", file, "--keep", 4).lines == ["10 checkpoints removed"]
    assert pruned == [(file, ["a"], 4), (file, ["t"], 4)]
    pruned.clear()
    assert run("prune", file, "--keep", 1, "--thread", "t", "--dry-run").lines == ["5 checkpoints would be removed"]
    ((place, thread_ids, keep),) = pruned
    assert (thread_ids, keep) == (["t"], 1)
    assert place != file
    assert not place.exists()


def test_prune(file: Path, run: Any) -> None:
    def counts() -> tuple[int, int]:
        with SqliteSaver(file, read_only=True) as saver:
            return len(list(saver.list(config("a")))), len(list(saver.list(config("t"))))

    before = counts()
    assert before[0] == before[1] > 6
    assert run("prune", file, "--keep", 1, "--older-than", 3600).lines == ["0 checkpoints removed"]
    assert run("prune", file, "--keep", 1, "--older-than", "0").code == 2
    (line,) = run("prune", file, "--keep", 1, "--dry-run").lines
    assert line.endswith("would be removed")
    assert counts() == before
    n_gone = int(line.split()[0])
    assert run("prune", file, "--keep", 1, "--thread", "t").lines == [f"{n_gone // 2} checkpoints removed"]
    assert counts() == (before[0], before[1] - n_gone // 2)
    assert run("prune", file, "--keep", 1).lines == [f"{n_gone // 2} checkpoints removed"]
    assert run("prune", file, "--keep", 1).lines == ["0 checkpoints removed"]
    assert run("verify", file, "--deep").code == 0


def test_migrate(file: Path, run: Any) -> None:
    shown = run("migrate", file)
    assert (shown.code, len(shown.lines)) == (0, 1)
    assert "2" in shown.out


def test_repair(damaged: Path, run: Any) -> None:
    broken = damaged.read_bytes()
    shown = run("repair", damaged)
    assert (shown.code, shown.err) == (0, "")
    backup = Path(f"{damaged}.backup")
    with closing(sqlite3.connect(backup)) as conn:
        assert conn.execute("SELECT count(*) FROM checkpoints").fetchone() == (28,)
    assert backup.stat().st_mode & 0o777 == 0o600
    assert run("verify", damaged, "--deep").code == 0
    assert run("verify", backup).code == 1
    assert run("repair", damaged).lines == ["nothing to repair"]
    # Again, with the backup somewhere else, or without one.
    damaged.write_bytes(broken)
    other = damaged.parent / "other"
    assert run("repair", damaged, "--thread", "a").lines == ["nothing to repair"]
    assert run("repair", damaged, "--thread", "t", "--backup", other).code == 0
    damaged.write_bytes(broken)
    shown = run("repair", damaged, "--backup", other)
    assert (shown.code, len(shown.err.splitlines())) == (2, 1)
    assert run("verify", damaged).code == 1
    assert run("repair", damaged, "--no-backup").code == 0
    assert sorted(os.listdir(damaged.parent)) == [other.name, damaged.name, backup.name]


def test_a_second_backup_gets_its_own_name(damaged: Path, run: Any) -> None:
    for n in range(3):
        assert run("repair", damaged).code == 0
        damage(damaged, sql("UPDATE spaces SET head_rev = 5 WHERE ns = 'forks'"))
        assert len([name for name in os.listdir(damaged.parent) if ".backup" in name]) == n + 1


def test_what_cannot_be_repaired_is_said(file: Path, run: Any) -> None:
    # An index that does not fit its table is SQLite's business.
    with closing(sqlite3.connect(file, isolation_level=None)) as conn:
        conn.execute("PRAGMA writable_schema = ON")
        conn.execute("UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'spaces') "
                     "WHERE name = 'checkpoints_run'")  # fmt: skip
    shown = run("repair", file)
    assert shown.code in (1, 2)
    assert "Traceback" not in shown.err


# ---- bad input


COMMANDS = (
    ("verify",),
    ("stats",),
    ("export",),
    ("migrate",),
    ("repair",),
    ("prune", "--keep", "1"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    "what", ["missing", "missing directory", "directory", "text", "foreign", "empty", "newer", "locked"]
)
def test_files_that_cannot_be_used(
    tmp_path: Path, run: Any, command: tuple[str, ...], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver_module, "_BUSY_MS", 20)
    for connect in (opening.connect, opening.connect_to_read):
        monkeypatch.setattr(connect, "__kwdefaults__", {"busy_ms": 20})
    path = tmp_path / "file"
    locking: Any = None
    if what == "missing directory":
        path = tmp_path / "nowhere" / "file"
    elif what == "directory":
        path.mkdir()
    elif what == "text":
        path.write_text("no database at all, but long enough to be one" * 100)
    elif what == "foreign":
        with closing(sqlite3.connect(path)) as conn:
            conn.execute("CREATE TABLE checkpoints (thread_id TEXT)")
            conn.commit()
    elif what == "empty":
        path.write_bytes(b"")
    elif what in ("newer", "locked"):
        with SqliteSaver(path) as saver:
            Story(saver)
        if what == "newer":
            damage(path, lambda conn: conn.execute("PRAGMA user_version = 99"))
        else:
            locking = sqlite3.connect(path, isolation_level=None)
            locking.execute("PRAGMA locking_mode = EXCLUSIVE")
            locking.execute("BEGIN EXCLUSIVE")
    before = sorted(os.listdir(tmp_path))
    stored = path.read_bytes() if path.is_file() else None
    shown = run(command[0], path, *command[1:])
    assert (shown.code, shown.out, len(shown.err.splitlines())) == (2, "", 1)
    assert path.name in shown.err or what == "locked"
    if locking is not None:
        locking.close()
    else:
        assert sorted(os.listdir(tmp_path)) == before
        assert (path.read_bytes() if path.is_file() else None) == stored


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("verify",),
        ("mend", "x"),
        ("stats", "x", "--top", "-1"),
        ("stats", "x", "--top", "many"),
        ("prune", "x"),
        ("prune", "x", "--keep", "0"),
        ("repair", "x", "--backup", "y", "--no-backup"),
        ("export", "x", "--json"),
    ],
)
def test_bad_usage(run: Any, arguments: tuple[str, ...]) -> None:
    shown = run(*arguments)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err


@pytest.mark.parametrize("command", [command for command in COMMANDS if command[0] != "migrate"], ids=str)
def test_a_thread_that_is_not_there(file: Path, run: Any, command: tuple[str, ...]) -> None:
    shown = run(command[0], file, *command[1:], "--thread", "nobody")
    assert (shown.code, shown.out, len(shown.err.splitlines())) == (2, "", 1)
    assert "'nobody'" in shown.err


def test_names_that_no_terminal_can_show(path: Path, run: Any) -> None:
    with SqliteSaver(path) as saver:
        scripted = ScriptedRun(Store(saver, False), config("new\nline \u2028 \x1b[31m"))
        scripted.step({"c": "x" * 100})
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("DELETE FROM payloads")
    for command in ("verify", "stats", "export"):
        shown = run(command, path)
        assert "\x1b" not in shown.out + shown.err
        assert "new\nline" not in shown.out + shown.err


def test_as_a_program(damaged: Path) -> None:
    shown = child("verify", damaged, "--json")
    assert (shown.code, shown.err) == (1, "")
    assert len(json.loads(shown.out)["problems"]) == 1
    shown = child("verify", damaged.parent / "nothing")
    assert (shown.code, shown.out, len(shown.err.splitlines())) == (2, "", 1)
    assert child("--help").code == 0


def test_an_encrypted_file(path: Path, run: Any) -> None:
    with SqliteSaver(path, serde=EncryptedSerializer(BindingCipher(b"key"))) as saver:
        Story(saver)
    before = path.read_bytes()
    for command in COMMANDS:
        if command[0] not in ("migrate", "prune"):
            shown = run(command[0], path, *command[1:])
            assert (shown.code, len(shown.err.splitlines())) == (1 if command[0] == "export" else 2, 1), command
    assert path.read_bytes() == before


def test_values_of_a_program_need_not_be_imported(path: Path) -> None:
    with SqliteSaver(path) as saver:
        saver.put(
            config("t", ""),
            {**empty_checkpoint(), "id": "x", "channel_values": {"a": Decimal(1), "b": (1, 2)}},
            {"source": "loop", "step": 1},
            {"a": 1, "b": 1},
        )
    (line,) = child("export", path).lines
    assert json.loads(line)["values"] == {
        "a": {"$type": "decimal.Decimal", "$value": "1"},
        "b": {"$type": "tuple", "$value": [1, 2]},
    }
