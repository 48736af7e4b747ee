"""Forks by the saver: what refuses them, and what of a thread may be forked. What holds for any saver is in the kit; what
a graph does with them in `tests/acceptance/test_time_travel.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint import Retention
from checkpoint.base import (
    NUMBER_LIMIT,
    CheckpointConflictError,
    CheckpointError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    ReadOnlyError,
    SaverClosedError,
)
from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from checkpoint.testing.script import id_of
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.checkpoint.soundness import unsound


@pytest.fixture(params=["memory", "sqlite", "grouping", "drop"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Savers over one store."""
    with contextlib.ExitStack() as stack:

        def maker(**options: Any) -> Any:
            if request.param == "memory":
                return InMemorySaver(**options)
            kind: dict[str, Any] = {"grouping": {"max_checkpoint_lag": 16}, "drop": {"history_writes": "drop"}}
            saver = SqliteSaver(tmp_path / "t.sqlite", **kind.get(request.param, {}), **options)
            return stack.enter_context(saver)

        yield maker


def grown(saver: Any, n_steps: int = 4, durability: str = "sync") -> ScriptedRun:
    run = ScriptedRun(Store(saver, False), durability=durability)
    for n in range(n_steps):
        run.step({"l": [*run.values.get("l", []), {"n": n, "x": "y" * 90}], "n": n})
    return run


def test_what_is_on_its_way_is_forked(make: Callable[..., Any]) -> None:
    saver = make()
    run = grown(saver, 30, "submit")
    made = saver.fork(config())
    assert id_of(saver.get_tuple(made).parent_config) == run.stored[-1].id
    assert unsound(saver) == []


def test_who_writes_meanwhile_wins(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    saver = make()
    stored = grown(saver).stored[:]
    newer = ScriptedRun(Store(saver, False))
    encode = saver.encode

    def late(commit: Any) -> Any:
        if commit.source == "fork":
            newer.step({"n": "newer"})
        return encode(commit)

    monkeypatch.setattr(saver, "encode", late)
    with pytest.raises(CheckpointConflictError) as lost:
        saver.fork(stored[0].config)
    assert (lost.value.thread_id, lost.value.actual) == ("t", newer.id)
    assert len(saver.holders) == 0
    assert [entry.checkpoint["id"] for entry in saver.list(config())] == [e.id for e in (*newer.stored, *stored[::-1])]
    newer.step({"n": "on"}).check(newer.store)


def test_the_end_of_a_lane_becomes_the_newest(make: Callable[..., Any]) -> None:
    """And what the holder does next is refused."""
    saver = make()
    holder = grown(saver)
    lane = ScriptedRun(Store(saver, False), holder.stored[1].config)
    saver.open_lane(lane.claim)
    ended = lane.step({"l": [*lane.values["l"], {"lane": 1, "x": "y" * 90}], "own": "o" * 200})
    assert saver.get_tuple(config()).checkpoint["id"] == holder.id
    saver.fork(ended.config)
    run = ScriptedRun(Store(saver, False))
    assert (run.values, run.loaded.parent_id, run.loaded.source) == (ended.values, ended.id, "fork")
    with pytest.raises(CheckpointConflictError):
        holder.step({"n": "late"})
    run.step({"l": [*run.values["l"], {"main": 1, "x": "y" * 90}]}).check(run.store)
    for stored in (ended, *holder.stored[:-1]):
        stored.check(run.store)
    assert unsound(saver) == []


def test_what_was_pruned_cannot_be_forked(make: Callable[..., Any]) -> None:
    saver = make()
    run = grown(saver)
    assert saver.prune(["t"], keep=2) == 2
    for gone in run.stored[:2]:
        with pytest.raises(CheckpointNotFoundError):
            saver.fork(gone.config)
    saver.fork(run.stored[2].config)
    assert len(list(saver.list(config()))) == 3
    assert unsound(saver) == []
    # The policy of a saver counts forks as other checkpoints.
    assert saver.prune(["t"]) == 2
    assert saver.get_tuple(config()).checkpoint["channel_values"] == run.stored[2].values


def test_a_thread_whose_time_is_over_is_not_forked(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_800_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    monkeypatch.setattr("time.time_ns", lambda: int(now[0] * 1e9))
    saver = make(retention=Retention(ttl=10.0))
    run = grown(saver)
    now[0] += 9
    saver.fork(run.stored[0].config)
    now[0] += 9  # it lives on from the fork
    assert saver.get_tuple(config()) is not None
    now[0] += 9
    with pytest.raises(CheckpointNotFoundError):
        saver.fork(config())


def test_a_thread_without_numbers_left_is_not_forked(make: Callable[..., Any]) -> None:
    saver = make()
    run = grown(saver)
    with saver._writing() as tx:
        if isinstance(saver, InMemorySaver):
            saver._threads["t"].claims = NUMBER_LIMIT
        else:
            tx.conn.execute("UPDATE threads SET claims = ?", (NUMBER_LIMIT,))
    with pytest.raises(CheckpointError, match="times"):
        saver.fork(run.stored[0].config)
    assert len(list(saver.list(config()))) == 4


@pytest.mark.parametrize("where", [{}, {"configurable": {}}, {"configurable": {"checkpoint_id": "x"}}])
def test_a_fork_needs_a_thread(make: Callable[..., Any], where: Any) -> None:
    with pytest.raises(ValueError, match="thread_id"):
        make().fork(where)


def test_metadata_and_run_of_a_fork(make: Callable[..., Any]) -> None:
    saver = make()
    run = grown(saver)
    given = {**run.stored[0].config, "metadata": {"why": "undo"}, "run_id": "r1"}
    given["configurable"]["user"] = "ada"
    found = saver.get_tuple(saver.fork(given))
    assert found.metadata == {
        "source": "fork", "step": 0, "parents": {}, "why": "undo", "user": "ada", "run_id": "r1",
    }  # fmt: skip
    assert saver.last_of_run(config(), "r1") == found.checkpoint["id"]
    saver.delete_for_runs(["r1"])
    assert saver.get_tuple(config()).checkpoint["id"] == run.stored[0].id


def test_damage_is_not_forked(tmp_path: Path) -> None:
    """Headers are read, values are not: those that are damaged stay damaged, and say so."""
    path = tmp_path / "t.sqlite"
    with SqliteSaver(path) as saver:
        run = grown(saver)
        with saver._writing() as tx:
            tx.conn.execute("UPDATE checkpoints SET header = zeroblob(4) WHERE rev = ?", (run.stored[1].rev,))
        with pytest.raises(CorruptCheckpointError) as damage:
            saver.fork(run.stored[1].config)
        assert damage.value.thread_id == "t"
        assert len(saver.holders) == 0
        saver.fork(run.stored[0].config)
        assert saver.get_tuple(config()).checkpoint["channel_values"] == run.stored[0].values


def test_savers_that_store_nothing_fork_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with SqliteSaver(path) as saver:
        grown(saver)
        with SqliteSaver(path, read_only=True) as reader, pytest.raises(ReadOnlyError):
            reader.fork(config())
        assert len(list(saver.list(config()))) == 4
    with pytest.raises(SaverClosedError):
        saver.fork(config())
