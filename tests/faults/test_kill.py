"""kill -9 at every boundary of a commit, in every durability, and at random moments: F1 to F7 of storage.md C13.

Every process is a fork of one server, does what a sensible user does next, and is compared with what the ledger and the
file said when it began; the end is the one of an undisturbed run.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint.testing.faults import ForkServer
from tests.faults.kill import LIFE, Plan, Stored, killed, play_seeds, undisturbed

SMALL = {
    "turns": 1,
    "width": 0,
    "asks": False,
    "fresh": False,
    "kept": True,
    "nested_asks": False,
    "lag": 1,
    "deep": None,
    "fails": False,
    "edits": False,
    "forks": False,
}
"""One task at a time: what is stored and not acknowledged is of the commit that was struck."""
ASKS = {**SMALL, "width": 1, "asks": True, "nested_asks": True}


def lines(place: Path) -> list[Any]:
    """The ledger of a thread."""
    return [json.loads(line) for line in (place / "ledger").read_text().splitlines()]


def begun(place: Path) -> Counter[str]:
    """How often each body has begun."""
    return Counter(line[3] for line in lines(place) if line[0] == "B")


def unacknowledged(place: Path, chosen: Any) -> int:
    """How many checkpoints and outputs are stored that no process was told of."""
    stored = Stored(place / "threads.sqlite", Plan(0, **chosen))
    told = [line for line in lines(place) if line[0] == "A"]
    revs = {(ns, rev) for _, ns, rev, *_ in told if rev is not None}
    outputs = {output for line in told for output in line[3]}
    return len(stored.revs - revs) + len(stored.outputs - outputs)


def deaths(server: ForkServer, directory: Path, boundary: str, **chosen: Any) -> Iterator[Path]:
    """Die once at each visit of a boundary; yields what the death left, then finishes the thread and compares."""
    wanted = undisturbed(server, directory / "quiet", 0, **chosen)
    number = 1
    while True:
        place = directory / f"{boundary}-{number}"
        place.mkdir()
        if server.call(LIFE, 0, str(place), [boundary, number], chosen).signal is None:
            break
        yield place
        assert killed(server, place, [], wanted, 0, **chosen) == []
        if chosen["durability"] == "sync" and not chosen["asks"]:
            # One task at a time runs, so a death costs at most one more run of each body.
            assert all(count <= 1 for count in (begun(place) - begun(directory / "quiet")).values())
        number += 1
    assert number > 1


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("boundary", ["b0", "b1", "b2", "b3", "b4", "b5"])
def test_f1_before_the_commit(server: ForkServer, tmp_path: Path, boundary: str, is_async: bool) -> None:
    """The step is not there, and the one before it is the head."""
    chosen = {**SMALL, "durability": "sync", "is_async": is_async}
    for place in deaths(server, tmp_path, boundary, **chosen):
        if (place / "threads.sqlite").exists():
            assert unacknowledged(place, chosen) == 0


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("boundary", ["b6", "b7"])
def test_f2_after_the_commit(server: ForkServer, tmp_path: Path, boundary: str, is_async: bool) -> None:
    """The step is there although nobody was told, and is not run again."""
    chosen = {**SMALL, "durability": "sync", "is_async": is_async}
    for place in deaths(server, tmp_path, boundary, **chosen):
        assert unacknowledged(place, chosen) > 0


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("durability", ["sync", "async"])
def test_f3_three_of_five(server: ForkServer, tmp_path: Path, durability: str, is_async: bool) -> None:
    """Outputs that were stored while others ran are kept; only the others run again."""
    chosen = {**SMALL, "width": 5, "kept": False, "durability": durability, "is_async": is_async}
    wanted = undisturbed(server, tmp_path / "quiet", 0, **chosen)
    place = tmp_path / "killed"
    place.mkdir()
    ended = server.call(LIFE, 0, str(place), None, {**chosen, "dies_after": 3})
    assert ended.signal == signal.SIGKILL
    before = begun(place)["work"]
    assert killed(server, place, [], wanted, 0, **chosen) == []
    assert begun(place)["work"] == before + 2


@pytest.mark.slow
def test_f5_at_random(tmp_path: Path) -> None:
    """Slow: 200 threads, some 600 processes. More of them: `python -m tests.faults.kill --seeds 10000`."""
    assert play_seeds(0, 200, 2) == {}


@pytest.mark.parametrize("boundary", ["b2", "b5", "b6"])
@pytest.mark.parametrize("durability", ["sync", "async"])
def test_f6_around_a_question(server: ForkServer, tmp_path: Path, durability: str, boundary: str) -> None:
    """A thread that stands at a question has it, and one that was answered does not ask again."""
    chosen = {**ASKS, "durability": durability, "is_async": False}
    for place in deaths(server, tmp_path, boundary, **chosen):
        stored = Stored(place / "threads.sqlite", Plan(0, **chosen))
        told = {tuple(question) for line in lines(place) if line[0] == "A" for question in line[4]}
        assert stored.questions >= told


@pytest.mark.parametrize("boundary", ["b2", "b3", "b4", "b5", "b6"])
def test_f7_in_exit_mode(server: ForkServer, tmp_path: Path, boundary: str) -> None:
    """The one transaction of the run is there or not, nested namespaces included."""
    chosen = {**SMALL, "fresh": True, "durability": "exit", "is_async": False}
    whole = {"", "kept"}
    for place in deaths(server, tmp_path, boundary, **chosen):
        stored = Stored(place / "threads.sqlite", Plan(0, **chosen))
        assert stored.heads.keys() == (whole if boundary == "b6" else set())
