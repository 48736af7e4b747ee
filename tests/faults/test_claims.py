"""One writer per thread, under attack: many at once, killed, stopped, deleted, worn out (storage.md C13: F19 to F21, F39,
F40, F43, F44)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint import base
from checkpoint.base import (
    CheckpointConflictError,
    CheckpointError,
    CheckpointNotFoundError,
    ThreadBusyError,
    ThreadDeletedError,
    empty_checkpoint,
)
from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver, leases
from pregel.graph import START, StateGraph
from pregel.types import Command, interrupt
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.faults.claimants import HELD, THREAD, Process, compete, graph_of
from tests.support.driving import LIMIT
from tests.support.scenarios import Log

DURABILITIES = pytest.mark.parametrize("durability", ["sync", "async", "exit"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "threads.sqlite"


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Call each on a thread of its own, all at once; results in order."""
    outcomes: list[Any] = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def run(index: int) -> None:
        start.wait(LIMIT)
        try:
            outcomes[index] = calls[index]()
        except BaseException as error:  # noqa: BLE001 - the error is the result
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(6 * LIMIT)
        assert not thread.is_alive()
    return outcomes


# ---- F19: everybody at once


def accounted(graph: Any, outcomes: list[Any], how: str) -> None:
    """Every invoke is in the newest state, in the lane that its result names, or was refused: nothing is lost."""
    words = graph.get_state(THREAD).values["l"]
    n_main = n_lanes = 0
    for word, at in outcomes:
        if at is None:
            assert how != "fork"
            continue
        line = graph.get_state(at).values["l"]
        assert line[-3:] == [word, "first", "second"]
        if words[: len(line)] == line:
            n_main += 1
        else:
            assert how == "fork", "an invoke that was stored is lost"
            n_lanes += 1
    # Runs that lost the thread may have stored their input and first step before.
    assert words.count("second") == n_main
    assert words.count("first") <= len(outcomes)
    assert graph.checkpointer.verify(deep=True) == []
    assert n_main + n_lanes == sum(at is not None for _, at in outcomes)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "two savers"])
@pytest.mark.parametrize("how", ["raise", "wait", "fork"])
def test_many_threads_on_one_thread(file: Path, kind: str, how: str) -> None:
    if kind == "memory":
        graphs = [graph_of(InMemorySaver())]
    else:
        graphs = [graph_of(SqliteSaver(file)) for _ in range(2 if kind == "two savers" else 1)]
    compete(graphs[0], "seed", "raise", 1)
    work = [lambda n=n: compete(graphs[n % len(graphs)], "abcd"[n], how, 10) for n in range(4)]  # type: ignore[misc]
    outcomes = [entry for one in together(*work) for entry in one]
    accounted(graphs[0], [("seed0", _first_end(graphs[0])), *outcomes], how)
    if how == "wait" and kind != "two savers":
        assert all(at is not None for _, at in outcomes)
    for graph in graphs:
        assert len(graph.checkpointer.holders) == 0
        if kind != "memory":
            graph.checkpointer.close()


def _first_end(graph: Any) -> Any:
    """Config of the checkpoint at which the first run of the thread ended."""
    return next(s.config for s in graph.get_state_history(THREAD) if s.values.get("l") == ["seed0", "first", "second"])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raise", "wait", "fork"])
def test_many_processes_on_one_thread(file: Path, how: str) -> None:
    """Slow: three processes are started, and everybody writes one file."""
    with SqliteSaver(file) as saver:
        graph = graph_of(saver)
        compete(graph, "seed", "raise", 1)
        children = [Process(file, "compete", name=name, how=how, times=15) for name in "abc"]
        try:
            for child in children:
                assert child.heard() == "ready"
            for child in children:
                child.go()
            outcomes = compete(graph, "own", how, 15)
            for child in children:
                outcomes += child.heard()
        finally:
            for child in children:
                child.__exit__()
        accounted(graph, [("seed0", _first_end(graph)), *outcomes], how)
        assert len(outcomes) == 60


# ---- F20: a run, and others who write its thread


class Held:
    """A run in its node, on a graph of its own saver; what others do goes through `saver`."""

    def __init__(self, saver: Any, durability: str, **options: Any) -> None:
        self.entered, self.go = threading.Event(), threading.Event()

        def first(state: Log) -> dict[str, Any]:
            if state["l"][-1] == HELD:
                self.entered.set()
                assert self.go.wait(LIMIT)
            return {"l": ["first"]}

        builder = StateGraph(Log).add_node("first", first).add_node("second", lambda state: {"l": ["second"]})
        self.graph = builder.add_edge(START, "first").add_edge("first", "second").compile(saver)
        self.graph.invoke({"l": ["old"]}, THREAD)
        self.outcome: Any = None
        self.thread = threading.Thread(target=self._run, args=({"durability": durability, **options},), daemon=True)
        self.thread.start()
        assert self.entered.wait(LIMIT)

    def _run(self, options: Any) -> None:
        try:
            self.outcome = self.graph.invoke({"l": [HELD]}, THREAD, **options)
        except CheckpointConflictError as error:
            self.outcome = error

    def end(self) -> Any:
        self.go.set()
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()
        return self.outcome


@pytest.fixture(params=["memory", "sqlite"])
def savers(request: pytest.FixtureRequest, file: Path) -> Iterator[tuple[Any, Any]]:
    """The saver of a run, and that of somebody else who reaches the same threads; what is stored is sound in the end."""
    if request.param == "memory":
        saver = InMemorySaver()
        yield saver, saver
        assert saver.verify(deep=True) == []
    else:
        with SqliteSaver(file) as ours, SqliteSaver(file) as theirs:
            yield ours, theirs
            assert theirs.verify(deep=True) == []


@DURABILITIES
def test_a_run_and_an_update_of_another_process(file: Path, durability: str) -> None:
    with SqliteSaver(file) as ours, SqliteSaver(file) as theirs:
        run = Held(ours, durability)
        graph_of(theirs).update_state(THREAD, {"l": ["update"]}, "second")
        outcome = run.end()
        assert isinstance(outcome, CheckpointConflictError)
        assert outcome.actual == run.graph.get_state(THREAD).config["configurable"]["checkpoint_id"]
        words = run.graph.get_state(THREAD).values["l"]
        assert words[:3] == ["old", "first", "second"]
        assert words[-1] == "update"
        assert words.count("first") == 1


@DURABILITIES
def test_a_run_and_a_public_put(savers: tuple[Any, Any], durability: str) -> None:
    ours, theirs = savers
    run = Held(ours, durability)
    head = theirs.get_tuple(THREAD)
    made = {**empty_checkpoint(), "channel_values": {"l": ["put"]}, "channel_versions": {"l": 99}}
    theirs.put({"configurable": {**head.config["configurable"], "checkpoint_ns": ""}}, made, {"step": 9}, {"l": 99})
    assert isinstance(run.end(), CheckpointConflictError)
    assert run.graph.get_state(THREAD).values == {"l": ["put"]}


@DURABILITIES
@pytest.mark.parametrize("again", [False, True])
def test_a_run_and_a_delete(savers: tuple[Any, Any], durability: str, again: bool) -> None:
    ours, theirs = savers
    run = Held(ours, durability)
    theirs.delete_thread("1")
    if again:
        ScriptedRun(Store(theirs, False), config("1")).step({"l": ["new"]})
    assert isinstance(run.end(), ThreadDeletedError)
    assert [entry.checkpoint["channel_values"]["l"] for entry in theirs.list(THREAD)] == ([["new"]] if again else [])


def test_updates_of_one_thread_at_once(savers: tuple[Any, Any]) -> None:
    graphs = [graph_of(saver) for saver in savers]
    graphs[0].invoke({"l": ["old"]}, THREAD)

    def update(n: int) -> Any:
        return graphs[n % 2].update_state(THREAD, {"l": [f"{n}"]}, "second", on_conflict="wait")

    outcomes = together(*(lambda n=n: update(n) for n in range(8)))  # type: ignore[misc]
    assert not any(isinstance(outcome, BaseException) for outcome in outcomes)
    assert sorted(graphs[0].get_state(THREAD).values["l"][3:]) == [f"{n}" for n in range(8)]


def test_several_supersteps_of_an_update_are_one_transaction(savers: tuple[Any, Any]) -> None:
    ours, theirs = savers
    graph = graph_of(ours)
    graph.invoke({"l": ["old"]}, THREAD)
    stored = len(list(theirs.list(THREAD)))
    encode, encoded = ours.encode, []

    def late(commit: Any) -> Any:
        encoded.append(encode(commit))
        if len(encoded) == 2:
            ScriptedRun(Store(theirs, False), THREAD).step({"l": ["intruder"]})
        return encoded[-1]

    ours.encode = late
    with pytest.raises(CheckpointConflictError):
        graph.bulk_update_state(THREAD, [[({"l": [f"{n}"]}, "second")] for n in range(3)])
    del ours.encode
    assert len(list(theirs.list(THREAD))) == stored + 1


# ---- F21: leases


def test_a_lease_keeps_others_off_while_its_owner_lives(file: Path) -> None:
    with SqliteSaver(file) as saver, Process(file, "run", lease_ttl=3600, durability="sync") as theirs:
        assert theirs.heard() == "held"
        graph = graph_of(saver)
        before = time.time()
        for call in (
            lambda: graph.invoke({"l": ["new"]}, THREAD),
            lambda: graph.invoke(None, THREAD),
            lambda: graph.update_state(THREAD, {"l": ["u"]}, "second"),
            lambda: graph.invoke({"l": ["new"]}, THREAD, on_conflict="wait", timeout=0.01),
        ):
            with pytest.raises(ThreadBusyError) as refused:
                call()
            assert refused.value.owner_run_id == "theirs"
            assert refused.value.until is not None
            assert before + 3500 < refused.value.until <= time.time() + 3600
        assert graph.get_state(THREAD).values["l"] == [HELD]
        lane = graph.invoke({"l": ["lane"]}, THREAD, on_conflict="fork", version="v2")
        theirs.go()
        assert theirs.heard() == {"l": [HELD, "first", "second"]}
        theirs.child.wait()
        assert graph.get_state(lane.config).values["l"][-3:] == ["lane", "first", "second"]
        # It gave the lease up.
        assert graph.invoke({"l": ["new"]}, THREAD)["l"] == [HELD, "first", "second", "new", "first", "second"]


def test_waiting_for_a_lease(file: Path) -> None:
    with SqliteSaver(file) as saver, Process(file, "run", lease_ttl=3600, durability="sync") as theirs:
        assert theirs.heard() == "held"
        graph = graph_of(saver)
        looked, leased = threading.Event(), saver._busy

        def watched(*args: Any) -> Any:
            looked.set()
            return leased(*args)

        saver._busy = watched  # type: ignore[method-assign]
        results = together(
            lambda: graph.invoke({"l": ["new"]}, THREAD, on_conflict="wait"),
            lambda: (looked.wait(LIMIT), theirs.go()),
        )
        assert results[0]["l"] == [HELD, "first", "second", "new", "first", "second"]


def test_the_lease_of_a_process_that_was_killed_is_void(file: Path) -> None:
    with SqliteSaver(file, lease_ttl=3600) as saver, Process(file, "run", lease_ttl=3600, durability="sync") as theirs:
        assert theirs.heard() == "held"
        graph = graph_of(saver)
        with pytest.raises(ThreadBusyError):
            graph.invoke({"l": ["new"]}, THREAD)
        theirs.kill()
        assert graph.invoke({"l": ["new"]}, THREAD)["l"] == [HELD, "new", "first", "second"]


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wrong_clock_costs_waiting_and_nothing_else(file: Path, hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with SqliteSaver(file) as saver, Process(file, "run", lease_ttl=1800, durability="sync") as theirs:
        assert theirs.heard() == "held"
        graph = graph_of(saver)
        now = time.time
        monkeypatch.setattr(leases.time, "time", lambda: now() + 3600 * hours)
        if hours < 0:
            with pytest.raises(ThreadBusyError):
                graph.invoke({"l": ["new"]}, THREAD)
            theirs.go()
            assert theirs.heard() == {"l": [HELD, "first", "second"]}
        else:
            # By this clock the lease is over; the owner is refused, not overwritten.
            assert graph.invoke({"l": ["new"]}, THREAD)["l"] == [HELD, "new", "first", "second"]
            theirs.go()
            assert theirs.heard() == "CheckpointConflictError"
            assert graph.get_state(THREAD).values["l"] == [HELD, "new", "first", "second"]


def test_a_lease_is_over_when_its_time_is(file: Path) -> None:
    with SqliteSaver(file) as saver, Process(file, "run", lease_ttl=0.001, durability="sync") as theirs:
        assert theirs.heard() == "held"
        graph = graph_of(saver)
        assert graph.invoke({"l": ["new"]}, THREAD, on_conflict="wait")["l"] == [HELD, "new", "first", "second"]
        theirs.go()
        assert theirs.heard() == "CheckpointConflictError"


def test_commits_renew_a_lease(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(leases.time, "time", lambda: clock[0])
    with SqliteSaver(file, lease_ttl=100) as saver:
        run = ScriptedRun(Store(saver, False))
        seen = []
        for at in (1000.0, 1040.0, 1060.0, 1200.0, 900.0):
            clock[0] = at
            run.step({"n": at})
            seen.append(saver._connections.writer.execute("SELECT lease_until FROM threads").fetchone()[0])  # type: ignore[union-attr]
        # Renewed once half of it is over, and at once if the clock was set back.
        assert seen == [1100.0, 1100.0, 1160.0, 1300.0, 1000.0]
        saver.release(run.claim)
        owner = saver._connections.writer.execute("SELECT lease_owner, lease_until FROM threads").fetchone()  # type: ignore[union-attr]
        assert owner == (None, None)


def test_a_lease_of_this_process_keeps_nobody_off(file: Path) -> None:
    with SqliteSaver(file, lease_ttl=3600) as saver:
        ScriptedRun(Store(saver, False)).step({"n": 1})
        run = ScriptedRun(Store(saver, False))
        run.step({"n": 2}).check(run.store)


@pytest.mark.parametrize("ttl", [0, -1, float("nan")])
def test_a_lease_takes_time(file: Path, ttl: float) -> None:
    with pytest.raises(ValueError, match="lease_ttl"):
        SqliteSaver(file, lease_ttl=ttl)


# ---- F39, F44: lanes and the holder


def other_process(savers: tuple[Any, Any]) -> Store:
    return Store(savers[1], False)


def test_lane_and_holder_write_in_turns(savers: tuple[Any, Any]) -> None:
    store, theirs = Store(savers[0], False), other_process(savers)
    start = ScriptedRun(store)
    start.step({"l": [1], "doc": "x" * 5000})
    holder, beside = ScriptedRun(store), ScriptedRun(theirs)
    holder.step({"l": [*holder.values["l"], 2]})
    theirs.saver.open_lane(beside.claim)
    heads = []
    for n in range(3, 9):
        beside.step({"l": [*beside.values["l"], -n], "own": "y" * 100 * n})
        heads.append(holder.step({"l": [*holder.values["l"], n]}).id)
        assert store.get_tuple(config()).checkpoint["id"] == heads[-1]
    for run in (holder, beside):
        for stored in run.stored:
            stored.check(store)
            stored.check(theirs)
    stored_ids = [entry.checkpoint["id"] for entry in store.list(config())]
    assert len(stored_ids) == len(set(stored_ids)) == 1 + 7 + 6
    # A new claim continues the lane while the lane goes on.
    fork = ScriptedRun(store, beside.stored[-1].config)
    for n in range(3):
        fork.step({"l": [*fork.values["l"], f"fork{n}"]})
        beside.step({"l": [*beside.values["l"], f"lane{n}"]})
    for run in (fork, beside, holder):
        for stored in run.stored:
            stored.check(store)
    assert store.get_tuple(config()).checkpoint["id"] == fork.id
    with pytest.raises(CheckpointConflictError):
        holder.step({"l": []})


def test_a_number_that_no_lane_used_is_harmless(savers: tuple[Any, Any]) -> None:
    """Killed between the lane's number and its first commit."""
    store, theirs = Store(savers[0], False), other_process(savers)
    ScriptedRun(store).step({"n": 0})
    waiting = ScriptedRun(store)
    for _ in range(3):
        theirs.saver.open_lane(ScriptedRun(theirs).claim)
    waiting.step({"n": 1}).check(store)
    waiting.step({"n": 2}).check(theirs)
    again = ScriptedRun(theirs)
    again.step({"n": 3}).check(store)
    assert again.claim.number > waiting.claim.number


def test_killed_between_the_number_of_a_lane_and_its_first_commit(file: Path) -> None:
    with SqliteSaver(file) as saver:
        graph = graph_of(saver)
        graph.invoke({"l": ["old"]}, THREAD)
        before = saver.load(THREAD).claim
        with Process(file, "lane") as theirs:
            assert theirs.child.wait() == -signal.SIGKILL
        after = saver.load(THREAD).claim
        assert (after.number, after.epoch) == (before.number + 1, before.epoch)
        assert graph.invoke({"l": ["new"]}, THREAD)["l"] == ["old", "first", "second", "new", "first", "second"]


def test_a_lane_of_which_the_last_checkpoint_is_gone(savers: tuple[Any, Any]) -> None:
    ours, _ = savers
    store = Store(ours, False)
    ScriptedRun(store).step({"n": 0})
    beside = ScriptedRun(store)
    ours.open_lane(beside.claim)
    rev = beside.step({"n": 1}).rev
    with ours._writing() as tx:
        if isinstance(ours, InMemorySaver):
            del ours._threads["t"].spaces[""].checkpoints[rev]
        else:
            tx.conn.execute("DELETE FROM checkpoints WHERE rev = ?", (rev,))
    with pytest.raises(CheckpointNotFoundError):
        beside.step({"n": 2})
    assert store.get_tuple(config()).checkpoint["channel_values"] == {"n": 0}


def test_task_writes_of_a_lane_stay_under_its_own_checkpoints(savers: tuple[Any, Any]) -> None:
    ours, _ = savers
    store = Store(ours, False)
    shared = ScriptedRun(store).step({"n": 0})
    beside = ScriptedRun(store)
    ours.open_lane(beside.claim)
    beside.tasks(beside.task("t", [("n", 1)]))
    assert store.get_tuple(shared.config).pending_writes == []
    with pytest.raises(CheckpointConflictError):
        beside.tasks(beside.task("t", [("__interrupt__", ["q"])], slot=-3))
    own = beside.step({"n": 1})
    beside.tasks(beside.task("t", [("n", 2)]))
    assert store.get_tuple(own.config).pending_writes == [("t", "n", 2)]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_lane_drops_no_results_of_a_step_it_shares(file: Path, kind: str) -> None:
    """With `history_writes="drop"` a step that has ended takes its tasks' results along, but only its own."""
    saver: Any = InMemorySaver(history_writes="drop") if kind == "memory" else SqliteSaver(file, history_writes="drop")
    with saver:
        store = Store(saver, False)
        ScriptedRun(store).step({"n": 0})
        holder = ScriptedRun(store)
        shared = holder.step({"n": 1})
        holder.tasks(holder.task("t", [("n", 2)]))
        beside = ScriptedRun(store)
        saver.open_lane(beside.claim)
        own = beside.step({"n": -1})
        assert store.get_tuple(shared.config).pending_writes == [("t", "n", 2)]
        beside.tasks(beside.task("t", [("n", -2)]))
        # Whoever goes on from a lane that still runs leaves it its results, too.
        forked = ScriptedRun(store, own.config)
        forked.step({"n": 9})
        assert store.get_tuple(own.config).pending_writes == [("t", "n", -2)]
        beside.step({"n": -2})
        assert store.get_tuple(own.config).pending_writes == []


def test_what_was_encoded_before_the_lane_is_encoded_again(savers: tuple[Any, Any]) -> None:
    ours, theirs = savers
    store = Store(ours, False)
    ScriptedRun(store).step({"l": ["x" * 100]})
    run = ScriptedRun(store)
    commit = run.prepare({"l": [*run.values["l"], "new"]})
    encoded = ours.encode(commit)
    ScriptedRun(Store(theirs, False)).step({"l": ["other"]})
    ours.open_lane(run.claim)
    ours.open_lane(run.claim)  # the second time changes nothing
    number = run.claim.number
    with pytest.raises(CheckpointConflictError):
        ours.write([encoded], durability="sync")
    commit.rev = run.claim.in_lane(commit.rev)
    ours.write([ours.encode(commit)], durability="sync")
    # The id was made for the rev that it does not have.
    run.stored[-1].check(store)
    run.rev = commit.rev
    run.step({"l": [*run.values["l"], "more"]}).check(store)
    assert run.claim.number == number
    assert store.load(config("t", "", commit.checkpoint_id)).rev == commit.rev


def test_a_claim_goes_on_past_its_numbers(savers: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "N_LIMIT", 3)
    store, theirs = Store(savers[0], False), other_process(savers)
    run = ScriptedRun(store)
    nested = None
    for n in range(10):
        run.step({"l": [*run.values.get("l", []), n]})
        if n == 4:
            nested = ScriptedRun(store, config("t", "child:1"), claim=run.claim, up_rev=run.rev)
        if nested is not None:
            nested.step({"n": n})
    assert run.claim.number > 1
    for stored in (*run.stored, *nested.stored):  # type: ignore[union-attr]
        stored.check(theirs)
    revs = [stored.rev for stored in run.stored]
    assert sorted(set(revs)) == revs
    # The next claim is greater than all, and fences it.
    newcomer = ScriptedRun(theirs)
    newcomer.step({"l": ["new"]}).check(store)
    assert newcomer.stored[-1].rev > revs[-1]
    with pytest.raises(CheckpointConflictError):
        run.step({"l": []})
    assert store.get_tuple(config()).checkpoint["id"] == newcomer.id


def test_a_run_that_is_fenced_while_it_claims_again(savers: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "N_LIMIT", 2)
    store = Store(savers[0], False)
    run = ScriptedRun(store)
    run.step({"n": 0})
    run.step({"n": 1})
    ScriptedRun(other_process(savers)).step({"n": 2})
    with pytest.raises(CheckpointConflictError):
        run.step({"n": 3})
    assert store.get_tuple(config()).checkpoint["channel_values"] == {"n": 2}


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_graph_past_the_numbers_of_its_claim(
    savers: tuple[Any, Any], durability: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "N_LIMIT", 3)
    builder = StateGraph(Log).add_node("n", lambda state: {"l": [len(state["l"])]}).add_edge(START, "n")
    builder.add_conditional_edges("n", lambda state: "n" if len(state["l"]) < 12 else "__end__")
    graph = builder.compile(savers[0])
    assert graph.invoke({"l": []}, THREAD, durability=durability) == {"l": list(range(12))}
    assert len(list(graph.get_state_history(THREAD))) == 14
    assert graph.invoke({"l": ["on"]}, THREAD, durability=durability)["l"][12:] == ["on", 13]


def test_a_thread_whose_numbers_are_used_up(savers: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "NUMBER_LIMIT", 2)
    store = Store(savers[0], False)
    for n in range(2):
        ScriptedRun(store).step({"n": n})
    late = ScriptedRun(store)
    with pytest.raises(CheckpointError, match="another thread_id"):
        late.prepare({"n": 2})
    with pytest.raises(CheckpointError, match="another thread_id"):
        late.tasks(late.task("t", [("n", 1)]))
    with pytest.raises(CheckpointError, match="another thread_id"):
        savers[0].put(config(), {**empty_checkpoint(), "id": "x"}, {}, {})
    assert store.get_tuple(config()).checkpoint["channel_values"] == {"n": 1}


def test_a_lane_ends_with_its_numbers(savers: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "N_LIMIT", 2)
    store = Store(savers[0], False)
    ScriptedRun(store).step({"n": 0})
    beside = ScriptedRun(store)
    savers[0].open_lane(beside.claim)
    beside.step({"n": 1})
    beside.step({"n": 2})
    with pytest.raises(CheckpointError, match="lane"):
        beside.step({"n": 3})


# ---- F40: answers


def asking(saver: Any, ran: list[Any]) -> Any:
    def ask(state: Log) -> dict[str, Any]:
        answer = interrupt("q")
        ran.append(answer)
        return {"l": [answer]}

    return StateGraph(Log).add_node("ask", ask).add_edge(START, "ask").compile(saver)


@pytest.mark.parametrize("rival", ["answer", "input"])
def test_one_answer_is_stored(savers: tuple[Any, Any], rival: str) -> None:
    """Both have loaded the question; one claims first. The other is refused before its node runs."""
    ran: list[Any] = []
    loaded = threading.Barrier(2)
    graphs = [asking(saver, ran) for saver in savers]
    graphs[0].invoke({"l": []}, THREAD)
    second: Any = Command(resume="two") if rival == "answer" else {"l": ["new"]}
    if savers[0] is not savers[1]:
        for saver in savers:
            load = saver.load

            def both(*args: Any, load: Any = load, **kwargs: Any) -> Any:
                found = load(*args, **kwargs)
                loaded.wait(LIMIT)
                return found

            saver.load = both
    outcomes = together(
        lambda: graphs[0].invoke(Command(resume="one"), THREAD), lambda: graphs[1].invoke(second, THREAD)
    )
    for saver in savers:
        saver.__dict__.pop("load", None)
    lost = [outcome for outcome in outcomes if isinstance(outcome, CheckpointConflictError)]
    if savers[0] is not savers[1]:
        assert len(lost) == 1
    if lost:
        assert len(ran) <= 1
        values = graphs[0].get_state(THREAD).values["l"]
        if isinstance(outcomes[0], CheckpointConflictError):
            assert values == (["two"] if rival == "answer" else ["new"])
            assert "one" not in ran
        else:
            assert (values, ran) == (["one"], ["one"])


# ---- F43: stopped


@pytest.mark.parametrize("nested", [False, True])
@DURABILITIES
def test_a_process_that_was_stopped_wakes_too_late(file: Path, durability: str, nested: bool) -> None:
    with SqliteSaver(file) as saver, Process(file, "run", durability=durability, nested=nested) as theirs:
        assert theirs.heard() == "held"
        theirs.stop()
        graph = graph_of(saver, nested=nested)
        taken = graph.invoke({"l": ["new"]}, THREAD, durability="sync")
        stored = [entry.checkpoint["id"] for entry in saver.list(THREAD)]
        writes = [entry.pending_writes for entry in saver.list(THREAD)]
        theirs.wake()
        theirs.go()
        assert theirs.heard() == "CheckpointConflictError"
        theirs.child.wait()
        assert [entry.checkpoint["id"] for entry in saver.list(THREAD)] == stored
        assert [entry.pending_writes for entry in saver.list(THREAD)] == writes
        assert graph.get_state(THREAD).values == taken
