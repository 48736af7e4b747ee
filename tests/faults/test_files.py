"""The file after a process died in the middle of something, after the power went, after bits were lost: F8 to F10, F13 to
F16, F37 of storage.md C13.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from checkpoint.base import CorruptCheckpointError
from checkpoint.sqlite import SqliteSaver
from checkpoint.testing.faults import (
    ForkServer,
    PowerLoss,
    bit_flip,
    inject,
    torn_write,
    wal_frames,
)
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.support.sound import assert_sound

CHILD = "tests.faults.children:"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "threads.sqlite"


def told(path: Path) -> int:
    """The last step that was acknowledged to a process."""
    lines = Path(f"{path}.told").read_text().split()
    return int(lines[-1]) if lines else 0


def check_prefix(path: Path, at_least: int, at_most: int) -> int:
    """The newest checkpoint is of a step in this range, and holds what that step made. Returns its number."""
    with SqliteSaver(path) as saver:
        assert_sound(saver)
        values = saver.load(config()).values
    n: int = values.get("n", 0)
    assert at_least <= n <= at_most
    assert [text[:4] for text in values.get("l", [])] == [f"{i:04}" for i in range(1, n + 1)]
    return n


# ---- processes that die


@pytest.mark.parametrize("trigger", [20_000, 60_000])
def test_f8_killed_around_a_wal_checkpoint(server: ForkServer, tmp_path: Path, trigger: int) -> None:
    """In either half, on either connection; the file is also read without its shared memory, and copied elsewhere."""
    quiet = tmp_path / "quiet"
    visits = server.call(CHILD + "fill", str(quiet), 20, trigger, single=True).value
    assert visits >= 4
    for number in range(1, visits + 1):
        path = tmp_path / f"{number}"
        assert server.call(CHILD + "fill", str(path), 20, trigger, ["b8", number], single=True).signal == signal.SIGKILL
        elsewhere = tmp_path / f"{number}-copy"
        for name in ("", "-wal"):
            shutil.copyfile(f"{path}{name}", f"{elsewhere}{name}")
        if number % 2:
            Path(f"{path}-shm").unlink()
        # A step is acknowledged after its checkpoint; the one that was struck is stored already.
        assert check_prefix(elsewhere, told(path), told(path) + 1) == check_prefix(path, told(path), told(path) + 1)
        assert server.call(CHILD + "fill", str(path), 20, trigger).signal is None
        assert check_prefix(path, 20, 20) == 20


def test_f9_killed_in_a_migration(server: ForkServer, tmp_path: Path) -> None:
    """The file is new or done; opening it again finishes. All migrations there are run on the new file."""
    visits = server.call(CHILD + "open_file", str(tmp_path / "quiet"), 0).value
    assert visits > 10
    for number in range(1, visits + 1):
        path = tmp_path / f"{number}"
        assert server.call(CHILD + "open_file", str(path), number).signal == signal.SIGKILL
        conn = sqlite3.connect(path)
        tables = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        version = conn.execute("PRAGMA user_version").fetchone()[0]
        conn.close()
        assert (tables == 0) == (version == 0) == (number < visits)
        with SqliteSaver(path) as saver:
            ScriptedRun(Store(saver, False)).step({"n": 1}).check(Store(saver, False))
            assert_sound(saver)


@pytest.mark.parametrize("what", ["copy", "delete", "delete in batches", "prune"])
def test_f10_killed_in_work_on_a_thread(server: ForkServer, tmp_path: Path, what: str) -> None:
    """A copy is there or not. A thread that is being deleted is not seen any more. What a prune keeps can be read."""
    made = tmp_path / "made"
    with SqliteSaver(made) as saver:
        store = Store(saver, False)
        run, other = ScriptedRun(store), ScriptedRun(store, config("other"))
        other.step({"n": "untouched"})
        for n in range(1, 9):
            run.step({"n": n, "l": [*run.values.get("l", []), f"{n:04}"], "doc": "d" * 1000}, writes=[])
            run.tasks(run.task("f4ef0ca2-f4d5-4a13-9a05-7c5f1ae4dba3", [("n", n)]))
    quiet = tmp_path / "quiet"
    shutil.copyfile(made, quiet)
    visits = server.call(CHILD + "upkeep", str(quiet), what).value
    for boundary, count in (("b10", visits), ("b5", None), ("b6", None)):
        number = 1
        while count is None or number <= count:
            path = tmp_path / f"{boundary}-{number}"
            shutil.copyfile(made, path)
            ended = server.call(CHILD + "upkeep", str(path), what, [boundary, number])
            if ended.signal is None:
                assert count is None
                break
            with SqliteSaver(path) as saver:
                store = Store(saver, False)
                assert_sound(saver)
                other.stored[-1].check(store)
                threads = {entry.config["configurable"]["thread_id"] for entry in saver.list(None)}
                # The first transaction decides; deleting in batches has more of them.
                decided = boundary == "b6" or number > 1
                if what == "copy":
                    assert len(list(saver.list(config("copy")))) == (8 if boundary == "b6" else 0)
                elif what.startswith("delete"):
                    assert ("t" in threads) != decided
                    # Opening has finished what was begun.
                    conn = sqlite3.connect(path)
                    for table, rows in (("threads", 1), ("spaces", 1), ("checkpoints", 8)):
                        left = conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                        assert left == (1 if decided else 1 + rows)
                    conn.close()
                else:
                    assert saver.load(config()).values["n"] == 8
            number += 1
        assert number > 1


# ---- damage


def filled(path: Path, n_steps: int = 12) -> list[bytes]:
    """A file whose writer was not closed: the WAL holds every commit. Returns the WAL's bytes."""
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        for n in range(1, n_steps + 1):
            run.step({"n": n, "l": [*run.values.get("l", []), f"{n:04}" + "x" * 500]})
        shutil.copyfile(path, f"{path}.db")
        shutil.copyfile(f"{path}-wal", f"{path}.wal")
    return [Path(f"{path}.db").read_bytes(), Path(f"{path}.wal").read_bytes()]


@pytest.mark.parametrize("garbage", [False, True])
def test_f14_a_log_without_its_end(tmp_path: Path, garbage: bool) -> None:
    """Whatever is lost of the last frames: the commits before are there, none is half there."""
    db, wal = filled(tmp_path / "made")
    path = tmp_path / "cut"
    path.write_bytes(db)
    Path(f"{path}-wal").write_bytes(wal)
    frames = wal_frames(path)
    ends = [offset for offset, is_commit in frames if is_commit]
    # The schema is the first transaction of the log; the steps are the last twelve.
    assert len(ends) >= 12
    for offset in [*range(ends[-4], ends[-1], 1111), *(end + 7 for end in ends[-4:-1]), *ends[-4:]]:
        path.write_bytes(db)
        Path(f"{path}-wal").write_bytes(wal)
        Path(f"{path}-shm").unlink(missing_ok=True)
        torn_write(f"{path}-wal", offset, garbage=garbage)
        whole = sum(end <= offset for end in ends) - (len(ends) - 12)
        assert check_prefix(path, whole, whole) == whole


DAMAGE = {
    "full body": ("payloads", "data", "kind = 0 AND part = 0"),
    "delta": ("payloads", "data", "kind <> 0"),
    "part": ("payloads", "data", "part = 1"),
    "header": ("checkpoints", "header", "1"),
    "metadata": ("checkpoints", "metadata", "metadata IS NOT NULL"),
    "task row": ("task_writes", "data", "1"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_f15_a_flipped_bit_spoils_one_thread_only(path: Path, kind: str) -> None:
    """The damaged thread is refused with its place; the others go on, and a new run of it starts after a delete."""
    with SqliteSaver(path) as saver:
        for thread in ("t", "other"):
            run = ScriptedRun(Store(saver, False), config(thread))
            run.step({"l": ["x" * 300], "doc": "d" * 2000}, metadata={"k": 1})
            for n in range(3):
                run.step({"l": [*run.values["l"], f"{n}" * 100]}, metadata={"k": n})
            run.tasks(run.task("f4ef0ca2-f4d5-4a13-9a05-7c5f1ae4dba3", [("l", ["w" * 50])]))
    table, column, where = DAMAGE[kind]
    space = "space_pk = (SELECT space_pk FROM spaces JOIN threads USING (thread_pk) WHERE thread_id = 't')"
    newest = "" if column == "data" else " AND rev = (SELECT max(rev) FROM checkpoints)"
    order = f"{where} AND {space}{newest.replace('FROM checkpoints', f'FROM checkpoints WHERE {space}')}"
    assert bit_flip(path, table, column, where=order, bit=77)
    with SqliteSaver(path) as saver:
        store = Store(saver, False)
        with pytest.raises(CorruptCheckpointError) as caught:
            saver.load(config())
        assert (caught.value.thread_id, caught.value.ns) == ("t", "")
        ScriptedRun(store, config("other")).step({"l": ["new"]}).check(store)
        saver.delete_thread("t")
        ScriptedRun(store).step({"l": ["again"]}).check(store)
        assert_sound(saver)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM payloads WHERE seq = 1",
        "DELETE FROM checkpoints WHERE rev = (SELECT min(rev) FROM checkpoints)",
        "UPDATE spaces SET head_rev = 12345",
    ],
)
def test_f16_a_missing_row_is_never_taken_for_an_empty_channel(path: Path, damage: str) -> None:
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        for n in range(4):
            run.step({"l": [*run.values.get("l", []), f"{n}" * 100]})
    conn = sqlite3.connect(path)
    assert conn.execute(damage).rowcount > 0
    conn.commit()
    conn.close()
    with SqliteSaver(path) as saver:
        with pytest.raises(CorruptCheckpointError):
            saver.load(config())
        with pytest.raises(CorruptCheckpointError):
            saver.get_tuple(config())


# ---- power


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_f37_the_power_goes(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, durability: str) -> None:
    """At every commit and every WAL checkpoint. `sync`: all that was acknowledged is there. `async`: a beginning."""
    monkeypatch.setattr("checkpoint.sqlite.saver.WAL_TRIGGER", 100_000)
    n_steps = 40
    with SqliteSaver(path) as saver:
        monkeypatch.setattr(saver._folder, "post", lambda call: call())
        power = PowerLoss(path)
        run = ScriptedRun(Store(saver, False), durability=durability)
        with inject(saver, power):
            for n in range(1, n_steps + 1):
                run.step({"n": n, "l": [*run.values.get("l", []), f"{n:04}" + "x" * 500]})
    assert len(power.images) > n_steps
    found = []
    for number, image in enumerate(power.images):
        for seed in (0, 1, 2) if number % 4 == 0 else (number,):
            restored = power.restore(number, tmp_path, seed=seed)
            n = check_prefix(restored, image.n_commits if durability == "sync" else 0, image.n_commits)
            found.append(image.n_commits - n)
            if number % 10 == 0:
                with SqliteSaver(restored) as saver:
                    ScriptedRun(Store(saver, False)).step({"n": n + 1}).check(Store(saver, False))
            for file in tmp_path.glob(f"{restored.name}*"):
                file.unlink()
    assert (max(found) > 0) == (durability == "async")
