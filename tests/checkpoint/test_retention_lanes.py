"""Retention beside lanes and with other options of a saver: what is kept can be read, and `verify` finds nothing."""

from __future__ import annotations

import operator
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from checkpoint import Retention
from checkpoint.base import CheckpointNotFoundError, ReadOnlyError
from checkpoint.chains import LANE
from checkpoint.memory import InMemorySaver
from checkpoint.retention import LOOK_EVERY, Rule, decide, work
from checkpoint.sqlite import SqliteSaver
from pregel.graph import END, START, StateGraph
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.checkpoint.soundness import unsound
from tests.checkpoint.test_retention import make

__all__ = ["make"]

WHERE: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict):
    l: Annotated[list[str], operator.add]  # noqa: E741
    doc: str


def forking(saver: Any, lanes: list[Any]) -> Any:
    """A graph whose run, if it is asked to hold, is still at it while another one goes beside it."""

    def first(state: State) -> Any:
        if state["l"][-1] == "hold":
            beside = threading.Thread(
                target=lambda: lanes.append(
                    graph.invoke({"l": ["lane"]}, WHERE, on_conflict="fork", version="v2").config
                )
            )
            beside.start()
            beside.join()
        return {"l": ["first" * 30], "doc": state["l"][-1] * 100}

    builder = StateGraph(State)
    builder.add_node("first", first)
    builder.add_node("second", lambda state: {"l": ["second"]})
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    builder.add_edge("second", END)
    graph = builder.compile(checkpointer=saver)
    return graph


def shown(graph: Any, where: Any) -> Any:
    state = graph.get_state(where)
    return state.values, state.next


@pytest.mark.parametrize("history_writes", ["keep", "drop"])
@pytest.mark.parametrize("keep_forks", [True, False])
@pytest.mark.parametrize("compact", [False, True])
def test_lanes_of_the_engine(make: Callable[..., Any], keep_forks: bool, history_writes: str, compact: bool) -> None:
    saver = make(history_writes=history_writes)
    lanes: list[Any] = []
    graph = forking(saver, lanes)
    for said in ("a", "hold", "b", "hold", "c"):
        graph.invoke({"l": [said]}, WHERE)
    assert unsound(saver, allows_garbage=history_writes == "drop") == []
    head, ends = shown(graph, WHERE), [shown(graph, lane) for lane in lanes]
    assert len(lanes) == 2
    assert head != ends[0] != ends[1]
    assert saver.prune(["t"], keep=2, keep_forks=keep_forks, compact=compact) > 10
    assert unsound(saver) == []
    assert shown(graph, WHERE) == head
    if keep_forks:
        assert [shown(graph, lane) for lane in lanes] == ends
    else:
        assert [saver.get_tuple(lane) for lane in lanes] == [None, None]
    stats = saver.stats()
    assert (stats.checkpoints, stats.garbage) == (2 + 4 * keep_forks, 0)
    assert saver.repair(WHERE) == []
    assert graph.invoke({"l": ["hold"]}, WHERE)["l"][: len(head[0]["l"])] == head[0]["l"]
    assert saver.prune(["t"], keep_forks=False) > 0
    assert unsound(saver) == []
    assert saver.stats().checkpoints == 1


@pytest.mark.parametrize("keep_forks", [True, False])
def test_a_policy_beside_lanes(make: Callable[..., Any], keep_forks: bool) -> None:
    saver = make(retention=Retention(max_checkpoints=2, keep_forks=keep_forks))
    lanes: list[Any] = []
    graph = forking(saver, lanes)
    said: list[str] = []
    for n in range(12):
        said.append("hold" if n in (1, 5) else "go")
        graph.invoke({"l": [said[-1]]}, WHERE)
        assert unsound(saver, allows_garbage=True) == []
    values = graph.get_state(WHERE).values["l"]
    assert [word for word in values if word in ("hold", "go")] == said
    for lane in lanes:
        found = saver.get_tuple(lane)
        assert found is None or "lane" in found.checkpoint["channel_values"]["l"]
        assert keep_forks <= (found is not None)
    assert saver.prune(["t"], keep=2, keep_forks=keep_forks) >= 0
    assert unsound(saver) == []
    assert saver.stats().checkpoints == 2 + 4 * keep_forks


def laned(store: Store) -> tuple[ScriptedRun, ScriptedRun]:
    """A holder, and a lane that has not stored anything, from one checkpoint."""
    start = ScriptedRun(store)
    for n in range(6):
        start.step({"l": [*start.values.get("l", []), f"{n}" * 80], "doc": "x" * 500})
    holder, beside = ScriptedRun(store), ScriptedRun(store)
    holder.step({"n": 1})
    store.saver.open_lane(beside.claim)
    return holder, beside


@pytest.mark.parametrize("keep", [1, 3])
def test_a_lane_begins_after_a_prune(make: Callable[..., Any], keep: int) -> None:
    store = Store(make(), False)
    holder, beside = laned(store)
    store.saver.prune(["t"], keep=keep)
    if keep == 1:
        with pytest.raises(CheckpointNotFoundError):
            beside.step({"l": [*beside.values["l"], "lane"]})
    else:
        for n in range(3):
            beside.step({"l": [*beside.values["l"], f"lane{n}"]}).check(store)
            holder.step({"l": [*holder.values["l"], f"{n}"]}).check(store)
    assert unsound(store.saver) == []


def test_a_lane_begins_after_compaction(make: Callable[..., Any]) -> None:
    store = Store(make(), False)
    _, beside = laned(store)
    store.saver.prune(["t"], keep=2, compact=True)
    with pytest.raises(CheckpointNotFoundError):
        beside.step({"n": 2})
    assert unsound(store.saver) == []
    ScriptedRun(store).step({"n": 2}).check(store)


def test_a_lane_goes_on_through_compaction(make: Callable[..., Any]) -> None:
    store = Store(make(), False)
    _, beside = laned(store)
    beside.step({"l": [*beside.values["l"], "lane"], "own": "y" * 2000})
    beside.step({"l": [*beside.values["l"], "lane"], "n": 7})
    store.saver.prune(["t"], keep=1, compact=True)
    for n in range(3):
        stored = beside.step({"l": [*beside.values["l"], f"lane{n}"]})
        stored.check(store)
        assert unsound(store.saver) == []
        store.saver.prune(["t"], keep=2, compact=True)
        assert unsound(store.saver) == []
        stored.check(store)


def test_a_lane_keeps_what_it_took_over_through_compaction(make: Callable[..., Any]) -> None:
    """Of the chain that it reads from, the holder needs fewer rows: they stay as they are all the same."""
    store = Store(make(), False)
    holder, beside = laned(store)
    stored = beside.step({"n": 7})
    holder.step({"l": [*holder.values["l"], "holder"]})
    store.saver.prune(["t"], keep=1, compact=True)
    stored.parent_id = holder.stored[-1].parent_id = None
    stored.check(store)
    assert unsound(store.saver) == []
    beside.step({"l": [*beside.values["l"], "lane"]}).check(store)
    holder.stored[-1].check(store)


@pytest.mark.parametrize("keep_forks", [True, False])
def test_a_policy_when_a_lane_begins_late(make: Callable[..., Any], keep_forks: bool) -> None:
    store = Store(make(retention=Retention(max_checkpoints=8, keep_forks=keep_forks)), False)
    holder, beside = laned(store)
    beside.step({"l": [*beside.values["l"], "lane"]})
    for n in range(100):
        holder.step({"l": [*holder.values["l"], f"{n}"]})
        assert n % 9 or unsound(store.saver, allows_garbage=True) == []
    assert (store.get_tuple(beside.stored[-1].config) is not None) == keep_forks
    with store.saver._reading() as rows:
        on_line = [entry for entry in rows.entries("t", None, None, None) if not entry.flags & LANE]
        assert 8 <= len(on_line) <= 8 + LOOK_EVERY


def test_a_nested_checkpoint_cannot_work_under_a_pruned_one(make: Callable[..., Any]) -> None:
    store = Store(make(), False)
    run = ScriptedRun(store)
    for n in range(4):
        run.step({"n": n})
    back = ScriptedRun(store, run.stored[0].config)
    nested = ScriptedRun(store, config("t", "s"), claim=back.claim, up_rev=back.rev)
    store.saver.prune(["t"])
    with pytest.raises(CheckpointNotFoundError):
        nested.step({"m": 1})
    assert unsound(store.saver) == []
    run.step({"n": 5}).check(store)


def test_nor_under_one_of_its_own_lane_that_was_pruned(make: Callable[..., Any]) -> None:
    store = Store(make(), False)
    _, beside = laned(store)
    beside.step({"n": 2})
    nested = ScriptedRun(store, config("t", "s"), claim=beside.claim, up_rev=beside.rev)
    store.saver.prune(["t"], keep_forks=False)
    with pytest.raises(CheckpointNotFoundError):
        nested.step({"m": 1})
    assert unsound(store.saver) == []


@pytest.mark.parametrize("seed", range(4, 8))
@pytest.mark.parametrize("policy", [None, Retention(max_checkpoints=1, keep_forks=False)], ids=["prune", "policy"])
def test_lanes_that_are_pruned_while_they_and_what_is_nested_go_on(
    make: Callable[..., Any], policy: Retention | None, seed: int
) -> None:
    """Whoever finds that something is gone which it needs is refused; what is stored stays sound, whoever planned what."""
    chance = random.Random(seed)
    store = Store(make(retention=policy), False)
    holder, beside = laned(store)
    nested: dict[int, ScriptedRun] = {}
    refused = 0
    for n in range(60):
        run = chance.choice([holder, beside])
        try:
            match chance.choice(["step", "step", "nested", "nested", "prune"]):
                case "step":
                    ended = nested.pop(id(run), None)
                    sub = {"s": ended.rev} if ended is not None and ended.stored else {}
                    run.step({"l": [*run.values["l"], f"{n}"], "n": n}, sub=sub)
                case "nested":
                    child = nested.get(id(run))
                    if child is None:
                        where = {"claim": run.claim, "up_rev": run.rev, "at_rev": run.sub.get("s")}
                        child = nested[id(run)] = ScriptedRun(store, config("t", "s"), **where)
                    child.step({"m": n})
                case "prune" if policy is None:
                    store.saver.prune(["t"], keep=chance.choice([1, 2]), keep_forks=False)
        except CheckpointNotFoundError:
            assert run is beside
            refused += 1
            nested.pop(id(run), None)
            beside = ScriptedRun(store)
            store.saver.open_lane(beside.claim)
        assert unsound(store.saver, allows_garbage=True) == []
    assert refused
    assert store.get_tuple(config()).checkpoint["channel_values"] == holder.values


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_compaction_of_values_that_were_edited(make: Callable[..., Any], keep: int) -> None:
    """Splices of lists, patches of dicts and appended texts, of which some are needed and some are not."""
    store = Store(make(), False)
    run = ScriptedRun(store)
    run.step(
        {"l": [{"n": n, "x": "y" * 90} for n in range(40)], "d": {f"{n}": "z" * 90 for n in range(40)}, "t": "t" * 90}
    )
    for n in range(10):
        changed = [*run.values["l"], {"n": n}]
        changed[n * 3] = {"n": -n}
        run.step({"l": changed, "d": {**run.values["d"], f"{n * 2}": n}, "t": run.values["t"] + f"{n}" * 70})
    longest = max(store.saver.stats().chain_lengths.values())
    assert longest > 5
    assert store.saver.prune(["t"], keep=keep, compact=True) == 11 - keep
    assert unsound(store.saver) == []
    assert max(store.saver.stats().chain_lengths.values()) <= keep
    for stored in run.stored[-keep + 1 :] if keep > 1 else ():
        stored.check(store)
    assert store.get_tuple(config()).checkpoint["channel_values"] == run.values
    last = ScriptedRun(store)
    last.step({"l": [*last.values["l"], "more"], "d": {**last.values["d"], "0": "other"}}).check(store)


def test_compaction_of_a_value_in_blocks(make: Callable[..., Any]) -> None:
    store = Store(make(), False)
    run = ScriptedRun(store)
    run.step({"l": [f"{n:0100}" for n in range(8000)], "d": {f"{n}": f"{n:0100}" for n in range(8000)}})
    for n in range(3):
        run.step({"l": [*run.values["l"], f"{n}"], "n": n})
    blocks = store.saver.stats().chain_lengths
    assert min(blocks["l"], blocks["d"]) > 3
    store.saver.prune(["t"], keep=2, compact=True)
    assert unsound(store.saver) == []
    run.stored[-1].check(store)
    assert store.saver.stats().chain_lengths["l"] == blocks["l"] - 2
    assert store.saver.stats().chain_lengths["d"] == blocks["d"]


def test_a_reader_removes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with SqliteSaver(path) as saver:
        ScriptedRun(Store(saver, False)).step({"n": 1}, run_id="r")
    with SqliteSaver(path, read_only=True, retention=Retention(max_checkpoints=1), secure_delete=True) as reader:
        for call in (
            lambda: reader.prune(["t"]),
            lambda: reader.prune(["t"], strategy="delete"),
            lambda: reader.prune(["nobody"], compact=True),
            lambda: reader.delete_for_runs(["r"]),
            lambda: reader.delete_for_runs(["nobody"]),
            lambda: reader.delete_thread("t"),
            lambda: reader.delete_thread("t", erase=True),
            lambda: reader.copy_thread("t", "u", overwrite=True),
            reader.expire,
            reader.vacuum,
        ):
            with pytest.raises(ReadOnlyError):
                call()
        assert reader.get_tuple(config()) is not None
    with SqliteSaver(path) as saver:
        assert saver.verify(deep=True) == []


def test_expired_threads_are_not_looked_at(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    saver = make(retention=Retention(ttl=1000))
    for thread_id in ("t", "u"):
        ScriptedRun(Store(saver, False), config(thread_id)).step({"n": 1})
    module = "checkpoint.memory" if isinstance(saver, InMemorySaver) else "checkpoint.sqlite.scan"
    assert list(saver.thread_ids()) == ["t", "u"]
    monkeypatch.setattr(f"{module}.time.time", lambda: 1e12)
    assert list(saver.thread_ids()) == []
    assert saver.stats().threads == 0
    assert saver.verify(deep=True) == []
    assert saver.repair(config()) == []


@pytest.mark.parametrize("stop", range(1, 12))
def test_lanes_go_bit_by_bit(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    """Nothing else goes with them; it is stopped after any number of changes, as by a crash."""
    store = Store(make(), False)
    _, beside = laned(store)
    for n in range(3):
        task = beside.task("task", [("n", n)])
        beside.step(
            {"l": [*beside.values["l"], f"lane{n}" * 20], "own": "y" * 100 * (n + 1)}, writes=[task] if n else []
        )
    with store.saver._writing() as tx:
        pk = tx.address("t", "").thread_pk
        jobs = decide(tx, pk, Rule(50, keep_forks=False))
        for _ in range(stop):
            work(tx, jobs, 1)
    assert unsound(store.saver, allows_garbage=True) == []
    store.saver.prune(["t"], keep=50, keep_forks=False)
    assert unsound(store.saver) == []
    assert store.saver.stats().checkpoints == 7
