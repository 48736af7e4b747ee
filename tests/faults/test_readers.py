"""Readers beside a writer, listings that are left or disturbed, and the size of the write-ahead log: F18, F31, F38."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from checkpoint.sqlite import saver as saver_module
from checkpoint.testing.faults import Record, inject, snapshot_held, wal_frames
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.faults.lengths import check_log, wal_size
from tests.support.sound import assert_sound

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "threads.sqlite"


# ---- F18, F38


def test_f18_a_reader_that_holds_its_snapshot(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 commits go on, the log grows and no commit pays for its length; when the reader is gone it starts over."""
    with SqliteSaver(path) as saver:
        # The checkpoint thread's work, at the moment it is asked for: how far it lags is not for this test.
        monkeypatch.setattr(saver._folder, "post", lambda call: call())
        run = ScriptedRun(Store(saver, False), durability="async")
        run.step({"n": 0})
        with snapshot_held(path) as other:
            seen = other.execute("SELECT count(*) FROM checkpoints").fetchone()
            record = Record("b8")
            with inject(saver, record):
                for n in range(1, 1001):
                    run.step({"n": n})
            assert other.execute("SELECT count(*) FROM checkpoints").fetchone() == seen == (1,)
            grown = wal_size(path)
            # Folding it back is tried now and then, not at each commit.
            assert 0 < record.visits < 200
        assert len(wal_frames(path)) * 4096 > saver_module.WAL_TRIGGER
        for n in range(1001, 1101):
            run.step({"n": n})
        assert len(wal_frames(path)) * 4096 < saver_module.WAL_TRIGGER // 4
        assert wal_size(path) <= grown + 500_000
        assert run.store.load(config()).values == {"n": 1100}
        assert_sound(saver)
    assert not Path(f"{path}-wal").exists()


@pytest.mark.parametrize("folder", ["works", "stalls"])
def test_f38_a_writer_that_never_pauses(path: Path, folder: str) -> None:
    """The log stays below 16 MB, also if the thread that should fold it back hangs in the middle of its work."""
    check_log(path, commits=1_500, stalls=folder == "stalls")


HOLD_FOLDING = """
import fcntl, sys
shared = open(sys.argv[1] + "-shm", "r+b")
fcntl.lockf(shared, fcntl.LOCK_EX, 1, 121)  # the checkpointer's lock: sqlite.org/walformat.html, 2.3.2
print("held", flush=True)
sys.stdin.readline()
fcntl.lockf(shared, fcntl.LOCK_UN, 1, 121)
print("released", flush=True)
"""


def test_commits_wait_for_a_slow_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody else folds the log back nobody can; past its limit a commit waits for the end of that."""
    pauses: list[float] = []
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False), durability="sync")
        run.step({"doc": ""})
        other = subprocess.Popen(
            [sys.executable, "-c", HOLD_FOLDING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                other.communicate("\n")

        monkeypatch.setattr(saver_module, "_pause", pause)
        for n in range(400):
            run.step({"doc": f"{n}" + "d" * 60_000})
        assert len(pauses) == 3
        assert saver_module.WAL_LIMIT // 2 < wal_size(path) <= 16 * 1024 * 1024
        assert run.store.load(config()).values == run.values
        assert_sound(saver)


def test_commits_do_not_wait_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever folds does not end: the log grows, and is asked for again after some more of it."""
    pauses: list[float] = []
    monkeypatch.setattr(saver_module, "_pause", pauses.append)
    monkeypatch.setattr(saver_module, "_FOLD_PAUSES_S", (0.1, 0.2))
    with SqliteSaver(path) as saver:
        monkeypatch.setattr(saver, "_fold", lambda conn: False)
        run = ScriptedRun(Store(saver, False), durability="sync")
        for n in range(300):
            run.step({"doc": f"{n}" + "d" * 60_000})
        grown = 300 * 60_000 - saver_module.WAL_LIMIT
        tries = len(pauses) // 2
        assert pauses == [0.1, 0.2] * tries
        assert grown // (saver_module.WAL_TRIGGER // 16) / 2 < tries < 300 // 2
        assert run.store.load(config()).values == run.values


def test_a_process_that_closes_takes_no_log_away(path: Path) -> None:
    """The last to close a file folds its log back and deletes it; nobody is the last while another process has it open,
    whatever that has opened and closed since."""
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        run.step({"n": 0})
        assert run.store.load(config()).values == {"n": 0}
        code = f"""
from checkpoint.sqlite import SqliteSaver
with SqliteSaver({str(path)!r}) as saver:
    print(saver.load({config()!r}).values)
"""
        for n in range(3):
            other = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
            assert other.stdout == f"{{'n': {n}}}\n"
            assert Path(f"{path}-wal").exists()
            run.step({"n": n + 1})
        assert_sound(saver)


# ---- F31


SAVERS = ["memory", "sqlite"]


@pytest.fixture(params=[(kind, is_async) for kind in SAVERS for is_async in (False, True)], ids=str)
def store(request: pytest.FixtureRequest, path: Path) -> Any:
    kind, is_async = request.param
    with InMemorySaver() if kind == "memory" else SqliteSaver(path) as saver:
        yield Store(saver, is_async)


def listing(store: Store, each: Any) -> list[Any]:
    """List thread "t", calling `each(number, entry)` between two entries; stops when it returns True."""
    shown: list[Any] = []

    async def walk() -> None:
        entries = store.saver.alist(config())
        async for entry in entries:
            shown.append(entry)
            if each(len(shown), entry):
                await entries.aclose()
                return

    if store.is_async:
        asyncio.run(walk())
        return shown
    entries = store.saver.list(config())
    for entry in entries:
        shown.append(entry)
        if each(len(shown), entry):
            break
    return shown


def steps(run: ScriptedRun, count: int) -> None:
    for _ in range(count):
        run.step({"n": run.values.get("n", 0) + 1, "l": [*run.values.get("l", []), "x" * 100]})


def test_f31_listings_that_are_left(store: Store) -> None:
    """They hold nothing: more of them than there are connections, and writing goes on at once."""
    run = ScriptedRun(store)
    steps(run, 120)
    left = [store.saver.list(config()) for _ in range(3 * saver_module.MAX_READERS)]
    for entries in left:
        assert next(entries).checkpoint["channel_values"]["n"] == 120
    steps(run, 1)
    for wanted in (1, 49, 50, 51, 120):
        assert len(listing(store, lambda number, entry, wanted=wanted: number == wanted)) == wanted
    steps(run, 1)
    # Each goes on where it stood when it is pulled again.
    for entries in left:
        assert [entry.checkpoint["channel_values"]["n"] for entry in entries] == [*range(119, 0, -1)]
    assert store.load(config()).values["n"] == 122


def test_f31_everything_else_while_listing(store: Store) -> None:
    """Reads of the same and of other checkpoints, commits, a second listing: pages stay whole and in order."""
    run = ScriptedRun(store)
    steps(run, 120)
    other = Store(store.saver, False)
    writer = ScriptedRun(other)

    def disturb(number: int, entry: Any) -> None:
        assert other.get_tuple(entry.config).checkpoint == entry.checkpoint
        assert other.get_tuple(config()).checkpoint["channel_values"]["n"] == 119 + number
        if number % 40 == 0:
            assert len(other.list(config(), limit=3)) == 3
        steps(writer, 1)

    shown = listing(store, disturb)
    assert [entry.checkpoint["channel_values"]["n"] for entry in shown] == [*range(120, 0, -1)]
    for entry in shown:
        assert len(entry.checkpoint["channel_values"]["l"]) == entry.checkpoint["channel_values"]["n"]


def test_f31_the_thread_goes_while_listing(store: Store) -> None:
    """Deleted, and made again, between two pages: what is listed afterwards is of the new one, or nothing."""
    steps(ScriptedRun(store), 120)
    other = Store(store.saver, False)

    def delete(number: int, entry: Any) -> None:
        if number == 50:
            other.delete_thread("t")
            steps(ScriptedRun(other), 3)

    shown = [entry.checkpoint["channel_values"]["n"] for entry in listing(store, delete)]
    assert shown[:50] == [*range(120, 70, -1)]
    assert shown[50:] in ([], [3, 2, 1], [2, 1])
