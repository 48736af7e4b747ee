"""Order and identity do not depend on clocks; forks share and never mix; histories stay small: F22, F23, F32, F33."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint import ids
from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from checkpoint.testing.faults import ForkServer, clock
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.faults.lengths import check_lengths, payload_bytes
from tests.support.sound import assert_sound

COMMIT_AT = "tests.faults.children:commit_at"
HOUR = 3_600_000_000_000
YEAR = 365 * 24 * HOUR


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "threads.sqlite"


@pytest.fixture(params=["memory", "sqlite"])
def saver(request: pytest.FixtureRequest, path: Path) -> Iterator[Any]:
    with InMemorySaver() if request.param == "memory" else SqliteSaver(path) as saver:
        yield saver


# ---- F22


def check_order(store: Store, n_steps: int) -> None:
    """The newest is the last that was made, and lists are in the order of making, whatever the ids say."""
    assert store.load(config()).values == {"n": n_steps}
    entries = store.list(config())
    assert [entry.checkpoint["channel_values"]["n"] for entry in entries] == [*range(n_steps, 0, -1)]
    for newer, older in itertools.pairwise(entries):
        assert newer.parent_config == older.config
    for at, entry in enumerate(entries):
        assert store.list(config(), before=entry.config) == entries[at + 1 :]
        assert store.history(config("t", ""), before=entry.config, limit=1)[:1] != [entry]


@pytest.mark.parametrize(
    "shifts",
    [[0, -HOUR], [0, YEAR, 0], [0, 0, 0], [YEAR, 0, -HOUR, 0]],
    ids=["back an hour", "forward a year and back", "stuck", "all"],
)
def test_f22_clocks_between_processes(server: ForkServer, path: Path, shifts: list[int]) -> None:
    now = time.time_ns()
    made: list[str] = []
    for shift in shifts:
        made += server.call(COMMIT_AT, str(path), [now + shift] * 4).value
    assert len(set(made)) == 4 * len(shifts)
    with SqliteSaver(path) as saver:
        check_order(Store(saver, False), 4 * len(shifts))
        check_order(Store(saver, True), 4 * len(shifts))
        assert_sound(saver)


@pytest.mark.parametrize("is_async", [False, True])
def test_f22_clocks_between_commits(saver: Any, is_async: bool) -> None:
    now = time.time_ns()
    shifts = [0, -HOUR, YEAR, YEAR, -YEAR, 0]
    store = Store(saver, is_async)
    shown = [now]
    with clock(lambda: shown[0]):
        run = ScriptedRun(store)
        for n, shift in enumerate(shifts, 1):
            shown[0] = now + shift
            if n % 2:
                run = ScriptedRun(store)
            run.step({"n": n})
        texts = [ids.checkpoint_id(0) for _ in range(10)]
    assert texts == sorted(set(texts))
    check_order(store, len(shifts))


# ---- F23


def test_f23_ids_of_many_threads() -> None:
    made: list[list[str]] = [[] for _ in range(8)]
    start = threading.Barrier(len(made))

    def make(into: list[str]) -> None:
        start.wait()
        into += [ids.checkpoint_id(n) for n in range(20_000)]

    workers = [threading.Thread(target=make, args=(into,)) for into in made]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len({id_ for part in made for id_ in part}) == 8 * 20_000
    for part in made:
        assert part == sorted(part)


def test_f23_ids_of_processes_whose_clocks_stand_still(server: ForkServer, tmp_path: Path) -> None:
    """Fresh threads of checkpoints, the same first revs, the same 100 ns: the salt of the thread tells them apart."""
    moment = [time.time_ns()] * 5
    made = [server.call(COMMIT_AT, str(tmp_path / f"{n}"), moment).value for n in range(12)]
    assert len({id_ for part in made for id_ in part}) == 12 * 5
    assert len({id_[:18] for part in made for id_ in part}) == 5  # the same times in all of them


# ---- F32


def test_f32_many_forks_of_one_checkpoint(path: Path) -> None:
    """Each branch reads what it wrote; a big channel that none wrote is stored once, the written ones once per fork."""
    n_forks = 200
    with SqliteSaver(path) as saver:
        store = Store(saver, False)
        run = ScriptedRun(store, durability="async")
        run.step({"doc": "d" * 300_000, "l": ["x" * 200], "late": ["y" * 200]})
        run.step({"l": [*run.values["l"], "x" * 200]})
        parent = run.stored[-1]
        before = payload_bytes(path)
        branches: list[ScriptedRun] = []
        for number in range(n_forks):
            fork = ScriptedRun(store, parent.config, durability="async")
            fork.step({"l": [*fork.values["l"], f"{number:04}" * 50]})
            branches.append(fork)
        for fork in branches:
            fork.stored[-1].check(store)
        full, delta = 2 * 210, 210
        assert payload_bytes(path) - before <= n_forks * (full + delta)
        # Fork, reload, write a channel that the fork has not touched: no other branch sees it.
        for number in (0, 7, 199):
            old = branches[number].stored[-1]
            again = ScriptedRun(store, old.config, durability="async")
            again.step({"late": [*again.values["late"], f"late {number}"]})
            more = ScriptedRun(store, again.stored[-1].config, durability="async")
            more.step({"late": [*more.values["late"], "more"], "l": [*more.values["l"], "more"]})
            for stored in (*again.stored, *more.stored):
                stored.check(store)
        parent.check(store)
        for fork in branches:
            fork.stored[-1].check(store)
        assert_sound(saver)
    conn = sqlite3.connect(path)
    bodies = "SELECT sum(length(data)) AS n_bytes FROM payloads GROUP BY space_pk, chan, root, seq"
    assert conn.execute(f"SELECT count(*) FROM ({bodies}) WHERE n_bytes >= 300000").fetchone() == (1,)
    conn.close()


# ---- F33


@pytest.mark.slow
def test_f33_ten_thousand_steps(tmp_path: Path) -> None:
    """Slow: 15,000 commits. The same at full size: `python -m tests.faults.lengths`."""
    check_lengths(tmp_path, 5_000, document=1_000_000)
