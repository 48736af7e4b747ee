"""How a file is opened: only to read, or not at all, and then with the reason."""

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from checkpoint.base import (
    CheckpointError,
    CorruptCheckpointError,
    ReadOnlyError,
    SaverOpenError,
    SchemaVersionError,
    StepCommit,
    empty_checkpoint,
)
from checkpoint.sqlite import AsyncSqliteSaver, SqliteSaver
from checkpoint.sqlite import saver as saver_module
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.checkpoint.test_verify import Story, damage

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "threads.sqlite"


@pytest.fixture
def file(path: Path) -> Path:
    with SqliteSaver(path) as saver:
        Story(saver)
    return path


@pytest.fixture(params=["sync", "async class"])
def make(request: pytest.FixtureRequest) -> Any:
    """A saver that is open."""

    def opened(path: Any, **more: Any) -> Any:
        if request.param == "sync":
            return SqliteSaver(path, **more)
        saver = AsyncSqliteSaver(path, **more)
        asyncio.run(saver.setup())
        return saver

    return opened


# ---- only to read


def test_reading_changes_nothing(file: Path, make: Any) -> None:
    before = file.read_bytes(), file.stat().st_mtime_ns
    with make(str(file), read_only=True) as saver:
        assert saver.verify(deep=True) == []
        assert len(list(saver.list(None))) == 14
        story = saver.load(config("t"))
        assert story.is_head
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("is_async", [False, True])
def test_whatever_would_store_something_is_refused(file: Path, is_async: bool) -> None:
    with SqliteSaver.from_conn_string(str(file), read_only=True) as saver:
        store = Store(saver, is_async)
        run = ScriptedRun(store, config("t"))
        with pytest.raises(ReadOnlyError):
            run.step({"n": 1})
        with pytest.raises(ReadOnlyError):
            saver.submit(saver.encode(StepCommit(run.claim, "", "tasks", writes=[run.task("t", [("n", 1)])])))
        where = config("t", "", run.loaded.checkpoint_id)
        for call, arguments in (
            ("put", (where, {**empty_checkpoint(), "id": "x"}, {}, {})),
            ("put_writes", (where, [("n", 1)], "task")),
            ("delete_thread", ("t",)),
            ("copy_thread", ("t", "u")),
        ):
            with pytest.raises(ReadOnlyError):
                store._call(call, *arguments)
        assert issubclass(ReadOnlyError, CheckpointError)
        assert store._call("repair", config("t")) == []
        assert len(store.list(config("t"))) == 14


def test_a_reader_sees_what_is_written_meanwhile(path: Path) -> None:
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"n": 1})
        with SqliteSaver(path, read_only=True) as reader:
            run.step({"n": 2})
            assert reader.load(config()).values == {"n": 2}
        # It has not taken the log away from who writes.
        run.step({"n": 3})
        assert os.path.exists(f"{path}-wal")
    with SqliteSaver(path, read_only=True) as reader:
        assert reader.load(config()).values == {"n": 3}


def test_a_log_that_a_killed_process_has_left_is_read_and_left(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / path.name
    copy.parent.mkdir()
    with SqliteSaver(path) as saver:
        ScriptedRun(Store(saver, False)).step({"n": 1})
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    log = Path(f"{copy}-wal").read_bytes()
    with SqliteSaver(copy, read_only=True) as reader:
        assert reader.load(config()).values == {"n": 1}
    assert Path(f"{copy}-wal").read_bytes() == log


def test_read_only_without_a_file() -> None:
    with pytest.raises(ValueError, match="read_only"):
        SqliteSaver(":memory:", read_only=True)


def test_a_given_connection_is_only_read(path: Path) -> None:
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as conn:
        with SqliteSaver(conn) as saver:
            ScriptedRun(Store(saver, False)).step({"n": 1})
        with SqliteSaver(conn, read_only=True) as reader:
            assert reader.load(config()).values == {"n": 1}
            with pytest.raises(ReadOnlyError):
                reader.delete_thread("t")


# ---- a file or directory that may not be written to

CHILD = """
import os, sys
from checkpoint.base import ReadOnlyError, SaverOpenError
from checkpoint.sqlite import SqliteSaver, migrations, opening, saver
from checkpoint import cli
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
path = sys.argv[1]
try:
    SqliteSaver(path)
except SaverOpenError as error:
    assert error.path == path and "read_only" in str(error), error
else:
    sys.exit("opened to write")
try:
    with SqliteSaver(path, read_only=True) as reader:
        assert reader.verify(deep=True) == []
        print(len(list(reader.list(None))))
except SaverOpenError as error:
    print("refused", error.path == path, "-wal" in str(error))
"""


@pytest.fixture
def guarded() -> Iterator[Path]:
    """A directory that others may enter: pytest's own is not one."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    directory.chmod(0o755)
    shutil.rmtree(directory)


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs permissions of POSIX")
@pytest.mark.parametrize("what", ["file", "directory", "directory with a log"])
def test_what_may_not_be_written_to(guarded: Path, what: str) -> None:
    path = guarded / "threads.sqlite"
    with SqliteSaver(guarded / "source") as saver:
        Story(saver)
        for suffix in ("", "-wal"):
            shutil.copy(f"{guarded / 'source'}{suffix}", f"{path}{suffix}")
    if what != "directory with a log":
        with SqliteSaver(path):
            pass
    assert os.path.exists(f"{path}-wal") == (what == "directory with a log")
    for place in guarded.iterdir():
        place.chmod(0o444)
    guarded.chmod(0o777 if what == "file" else 0o555)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("refused True True\n" if what == "directory with a log" else "14\n")


# ---- not at all


def test_a_path_that_is_none_of_a_file(tmp_path: Path, make: Any) -> None:
    for path, more in (
        (tmp_path, {}),
        (tmp_path, {"read_only": True}),
        (tmp_path / "nowhere" / "file", {}),
        (tmp_path / "nowhere" / "file", {"read_only": True}),
        (tmp_path / "missing", {"read_only": True}),
    ):
        with pytest.raises(SaverOpenError) as caught:
            make(path, **more)
        assert caught.value.path == str(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("read_only", [False, True])
def test_no_database(path: Path, make: Any, read_only: bool) -> None:
    path.write_bytes(b"something else entirely" * 1000)
    before = path.read_bytes()
    with pytest.raises(SaverOpenError) as caught:
        make(path, read_only=read_only)
    assert caught.value.path == str(path)
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
    assert path.read_bytes() == before


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("n_bytes", [600, 4096, 8192])
def test_a_file_that_was_cut_off_is_damaged(file: Path, make: Any, read_only: bool, n_bytes: int) -> None:
    """The error says so and names the file, as for any other damage."""
    assert file.stat().st_size > n_bytes
    os.truncate(file, n_bytes)
    with pytest.raises(CorruptCheckpointError), make(file, read_only=read_only) as saver:
        saver.get_tuple(config())


def test_a_schema_that_is_no_text_is_damaged(file: Path, make: Any) -> None:
    data = file.read_bytes()
    place = data.index(b"lease_owner")
    file.write_bytes(data[:place] + b"\xec" + data[place + 1 :])
    with pytest.raises(CorruptCheckpointError), make(file) as saver:
        saver.get_tuple(config())


@pytest.mark.parametrize("read_only", [False, True])
def test_the_file_of_another_program_stays_as_it_is(path: Path, make: Any, read_only: bool) -> None:
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("PRAGMA application_id = 7")
        conn.execute("CREATE TABLE notes (text TEXT)")
    before = path.read_bytes()
    with pytest.raises(SchemaVersionError):
        make(path, read_only=read_only)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_schemas_that_are_only_read(file: Path, make: Any) -> None:
    damage(file, lambda conn: conn.execute("PRAGMA user_version = 99"))
    with pytest.raises(SchemaVersionError) as caught:
        make(file, read_only=True)
    assert (caught.value.found, caught.value.supported) == (99, 2)
    file.unlink()
    sqlite3.connect(file).close()
    file.touch()
    with pytest.raises(SaverOpenError):
        make(file, read_only=True)
    assert file.read_bytes() == b""


@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_another_process_holds(
    file: Path, make: Any, read_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver_module, "_BUSY_MS", 10)
    with closing(sqlite3.connect(file, isolation_level=None)) as conn:
        conn.execute("PRAGMA locking_mode = EXCLUSIVE")
        conn.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SaverOpenError) as caught:
            make(file, read_only=read_only)
    assert caught.value.path == str(file)
    with make(file, read_only=read_only) as saver:
        assert saver.verify() == []


def test_a_new_file_is_its_owners(path: Path, make: Any) -> None:
    make(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
