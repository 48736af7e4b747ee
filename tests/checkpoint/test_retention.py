"""Prune, policies, copies and deletions, over every saver and in both APIs; what may stay and go, and when."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import operator
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from checkpoint import Retention, headers
from checkpoint.base import (
    LANE_BIT,
    NUMBER_SHIFT,
    CheckpointConflictError,
    CheckpointError,
    CheckpointNotFoundError,
    ThreadDeletedError,
)
from checkpoint.chains import LANE, CheckpointRow
from checkpoint.ids import checkpoint_id
from checkpoint.memory import InMemorySaver
from checkpoint.retention import SWEEP_EVERY, Keeper
from checkpoint.row_saver import RowSaver
from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.sqlite import SqliteSaver, columns
from checkpoint.sqlite.aio import AsyncSqliteSaver
from checkpoint.testing.script import checkpoint
from pregel.graph import END, START, StateGraph
from pregel.types import Command, interrupt
from tests.checkpoint.ciphers import BindingCipher
from tests.checkpoint.runs import ScriptedRun, Store, Stored, config, transactions
from tests.checkpoint.soundness import unsound

KINDS = ["memory", "sqlite", "sqlite-memory", "sqlite-grouping", "aio", "encrypted-memory", "encrypted-sqlite"]
TASK = "00000000-0000-0000-0000-00000000000"


@contextlib.contextmanager
def opened(kind: str, path: Path, **options: Any) -> Iterator[Any]:
    if kind == "memory":
        yield InMemorySaver(**options)
        return
    if kind.startswith("encrypted"):
        options = {"serde": EncryptedSerializer(BindingCipher(b"key")), **options}
        with opened(kind.removeprefix("encrypted-"), path, **options) as saver:
            yield saver
        return
    if kind == "aio":
        saver: Any = AsyncSqliteSaver(str(path), **options)
    elif kind == "sqlite-memory":
        saver = SqliteSaver(":memory:", **options)
    else:
        saver = SqliteSaver(path, max_checkpoint_lag=16 if kind == "sqlite-grouping" else 1, **options)
    with saver:
        yield saver


@pytest.fixture(params=itertools.product(KINDS, ["sync", "async"]), ids="-".join)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    kind, colour = request.param
    with opened(kind, tmp_path / "t.sqlite") as saver:
        yield Store(saver, colour == "async")


@pytest.fixture(params=["memory", "sqlite", "encrypted-sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens savers of one kind with options."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(opened(request.param, tmp_path / "t.sqlite", **options))


def call(store: Store, name: str, *args: Any, **kwargs: Any) -> Any:
    return store._call(name, *args, **kwargs)


def line(run: ScriptedRun, n_steps: int, **more: Any) -> list[Stored]:
    """Steps that grow a chain, change an inline value and root a new chain now and then."""
    for n in range(n_steps):
        changes = {"l": [*run.values.get("l", []), {"n": n, "x": "y" * 90}], "n": n}
        if n % 3 == 0:
            changes["doc"] = f"{n}" * 200
        run.step(changes, **more)
    return run.stored


def listed(store: Store, thread_id: str = "t", ns: str | None = None) -> list[str]:
    return [entry.checkpoint["id"] for entry in store.list(config(thread_id, ns))]


def ids(*stored: Stored) -> list[str]:
    return [entry.id for entry in stored]


def n_in_file(saver: Any) -> int:
    """Checkpoints, also of threads that have vanished and are not removed yet."""
    with saver._alone() as connections:
        n: int = connections.writer.execute("SELECT count(*) FROM checkpoints").fetchone()[0]
        return n


# ---- prune


@pytest.mark.parametrize("keep", [1, 3, 7, 50])
def test_prune_keeps_the_newest(store: Store, keep: int) -> None:
    run = ScriptedRun(store)
    stored = line(run, 7)
    ScriptedRun(store, config("u")).step({"a": 1})
    store.put_writes(stored[-1].config, [("a", 1)], "task")
    assert call(store, "prune", ["t", "nobody"], keep=keep) == max(0, 7 - keep)
    kept = stored[-keep:]
    assert listed(store) == ids(*reversed(kept))
    if keep < 7:
        kept[0].parent_id = None
    for entry in kept:
        entry.check(store)
    for gone in stored[:-keep]:
        assert store.get_tuple(gone.config) is None
    assert store.get_tuple(config()).pending_writes == [("task", "a", 1)]
    assert len(listed(store, "u")) == 1
    assert unsound(store.saver) == []
    assert call(store, "prune", ["t"], keep=keep) == 0
    assert call(store, "prune", []) == 0
    # The run goes on, and so does a new one.
    line(run, 2)[-1].check(store)
    line(ScriptedRun(store), 2)[-1].check(store)
    assert unsound(store.saver) == []


def test_prune_by_age(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is younger stays, on every branch; the newest stay, however old they are."""
    now = [1_800_000_000.0]
    at_clock(monkeypatch, now)
    run = ScriptedRun(store)
    stored = line(run, 5)[:]
    now[0] += 100
    branch = ScriptedRun(store, stored[2].config)
    left = line(branch, 2)[:]
    run = ScriptedRun(store, stored[4].config)
    line(run, 2)
    nested = ScriptedRun(store, config("t", "s"), claim=run.claim, up_rev=run.rev)
    inner = line(nested, 2)[:]
    young = [*left, *run.stored, *inner]
    assert call(store, "prune", ["t"], older_than=200.0) == 0
    assert call(store, "prune", ["t"], older_than=50.0) == 5
    assert listed(store) == ids(*reversed(young))
    left[0].parent_id = run.stored[0].parent_id = None
    for entry in young:
        entry.check(store)
    now[0] += 100
    assert call(store, "prune", ["t"], keep=2, older_than=50.0) == 2
    assert listed(store) == ids(inner[1], inner[0], *reversed(run.stored))
    assert call(store, "prune", ["t"], older_than=50.0) == 2
    assert listed(store) == ids(inner[1], run.stored[-1])
    assert unsound(store.saver) == []
    line(ScriptedRun(store), 2)[-1].check(store)


def test_prune_refuses_what_it_does_not_know(store: Store) -> None:
    line(ScriptedRun(store), 3)
    for wrong in (
        {"strategy": "oldest"},
        {"keep": 0},
        {"keep": -1},
        {"keep": True},
        {"keep": 1.5},
        {"keep": None},
        {"older_than": 0},
        {"older_than": -5.0},
        {"older_than": True},
        {"older_than": "1d"},
        {"older_than": float("nan")},
    ):
        with pytest.raises(ValueError):
            call(store, "prune", ["t"], **wrong)
    with pytest.raises(TypeError):
        call(store, "prune", "t")
    assert len(listed(store)) == 3


def test_prune_by_deleting(store: Store) -> None:
    run = ScriptedRun(store)
    line(run, 3)
    line(ScriptedRun(store, config("u")), 2)
    assert call(store, "prune", ["t", "nobody"], strategy="delete") == 3
    assert listed(store) == []
    assert len(listed(store, "u")) == 2
    with pytest.raises(ThreadDeletedError):
        run.step({"a": 1})


def test_a_run_goes_on_through_prunes(store: Store) -> None:
    run = ScriptedRun(store)
    for _ in range(12):
        line(run, 3)[-1].check(store)
        assert call(store, "prune", ["t"]) in (2, 3)
        assert listed(store) == ids(run.stored[-1])
        assert unsound(store.saver) == []
    assert len(store.get_tuple(config()).checkpoint["channel_values"]["l"]) == 36


def test_a_run_that_starts_from_a_pruned_checkpoint_is_refused(store: Store) -> None:
    stored = line(ScriptedRun(store), 4)
    run = ScriptedRun(store, stored[1].config)
    with_rows = ScriptedRun(store, stored[2].config)
    call(store, "prune", ["t"])
    with pytest.raises(CheckpointNotFoundError):
        run.step({"a": 1})
    with pytest.raises(CheckpointNotFoundError):
        with_rows.tasks(with_rows.task("task", [("a", 1)]))
    assert listed(store) == ids(stored[-1])


def test_rows_on_an_old_checkpoint_do_not_keep_it(store: Store) -> None:
    """Its first write found the checkpoint; the next one must look again."""
    stored = line(ScriptedRun(store), 4)
    run = ScriptedRun(store, stored[1].config)
    run.tasks(run.task("task", [("a", 1)]))
    call(store, "prune", ["t"])
    with pytest.raises(CheckpointNotFoundError):
        run.step({"a": 1})
    stored[-1].parent_id = None
    stored[-1].check(store)


def test_what_waits_for_an_answer_stays(store: Store) -> None:
    run = ScriptedRun(store)
    stored = line(run, 3)
    run.tasks(run.task("asker", [("__interrupt__", ["?"])], slot=-3))
    other = ScriptedRun(store)
    other.step({"n": 9}, source="input")  # somebody talked about something else
    later = line(other, 3)
    call(store, "prune", ["t"])
    assert listed(store) == ids(later[-1], stored[-1])
    stored[-1].parent_id = None
    stored[-1].check(store)
    assert store.get_tuple(stored[-1].config).pending_writes == [("asker", "__interrupt__", ["?"])]
    store.put_writes(stored[-1].config, [("a", 1)], "asker")
    call(store, "prune", ["t"])
    assert listed(store) == ids(later[-1])


def test_a_question_whose_step_was_finished_is_answered(store: Store) -> None:
    """With durability "exit" neither the answer nor the output of the task that asked is stored."""
    run = ScriptedRun(store)
    line(run, 2)
    run.tasks(run.task("asker", [("__interrupt__", ["?"])], slot=-3))
    answered = ScriptedRun(store)
    answered.step({"n": 9}, source="loop")
    call(store, "prune", ["t"])
    assert listed(store) == ids(answered.stored[-1])


def test_nested_checkpoints_stay_with_those_that_need_them(store: Store) -> None:
    run = ScriptedRun(store)
    line(run, 1)

    def nest(ns: str, closes: bool = True, **more: Any) -> list[Stored]:
        nested = ScriptedRun(store, config("t", ns), claim=run.claim, up_rev=run.rev, at_rev=run.sub.get(ns))
        stored = line(nested, 2)
        if closes:
            run.step({"n": ns}, sub={ns: stored[-1].rev} if ":" not in ns else {})
        return stored

    first = nest("s")
    base = run.stored[-1]
    second = nest("s")
    own = nest(f"p:{TASK}1")
    call(store, "prune", ["t"], keep=2)
    # The older of the two points to the second; the namespace of a task stays with the checkpoint it worked under.
    assert listed(store, ns="") == ids(*run.stored[:-3:-1])
    assert listed(store, ns="s") == ids(second[1], second[0])
    assert listed(store, ns=f"p:{TASK}1") == ids(own[1], own[0])
    call(store, "prune", ["t"])
    assert listed(store, ns="s") == ids(second[1])
    assert listed(store, ns=f"p:{TASK}1") == []
    with store.saver._writing() as tx:
        assert sorted(space.ns for space in tx.spaces(tx.address("t", "").thread_pk)) == ["", "s"]
    assert unsound(store.saver) == []
    assert store.get_tuple(first[-1].config) is None
    assert store.get_tuple(base.config) is None

    opened = nest(f"p:{TASK}2", closes=False)
    call(store, "prune", ["t"])
    assert listed(store, ns=f"p:{TASK}2") == ids(opened[-1])
    again = ScriptedRun(store)
    resumed = ScriptedRun(store, config("t", f"p:{TASK}2"), claim=again.claim, up_rev=again.rev)
    assert resumed.id == opened[-1].id
    assert unsound(store.saver) == []


def test_a_fork_keeps_the_nested_checkpoint_it_points_to(store: Store) -> None:
    run = ScriptedRun(store)
    line(run, 1)
    targets = []
    for _ in range(3):
        nested = ScriptedRun(store, config("t", "s"), claim=run.claim, up_rev=run.rev, at_rev=run.sub.get("s"))
        targets.append(line(nested, 2)[-1])
        run.step({"n": 1}, sub={"s": targets[-1].rev})
    fork = ScriptedRun(store, run.stored[1].config)
    fork.step({"n": 2}, source="fork")
    call(store, "prune", ["t"])
    assert listed(store, ns="s") == ids(targets[2], targets[0])
    replay = ScriptedRun(store, config("t", "s"), claim=ScriptedRun(store).claim, at_rev=fork.sub["s"])
    assert replay.values == targets[0].values
    assert unsound(store.saver) == []


def test_of_a_chain_goes_what_nobody_reads_any_more(store: Store) -> None:
    """A branch that was left added to a list of which its root is kept."""
    stored = line(ScriptedRun(store), 4)
    ahead = line(ScriptedRun(store, stored[1].config), 2)
    call(store, "prune", ["t"], keep=3)
    assert listed(store) == ids(*reversed(ahead), stored[1])
    stored[1].parent_id = None
    for entry in (stored[1], *ahead):
        entry.check(store)
    assert unsound(store.saver) == []


def test_branches_go_and_lanes_stay_if_wanted(store: Store) -> None:
    run = ScriptedRun(store)
    stored = line(run, 3)
    fork = ScriptedRun(store, stored[0].config)
    ahead = line(fork, 2)
    # A lane as a run beside the head leaves it: rows of a number of its own, and no head.
    revs = [fork.claim.number + 1 << NUMBER_SHIFT | LANE_BIT | n for n in (1, 2, 3)]
    with store.saver._writing() as tx:
        address = tx.address("t", "")
        found = tx.checkpoint(address.space_pk, ahead[0].rev)
        state = headers.fold(found.headers)
        parent = found.row
        lane_ids = []
        for rev in revs:
            header = headers.full_header(state, rev)
            lane_ids.append(checkpoint_id(2, rev ^ address.salt))
            parent = CheckpointRow(rev, lane_ids[-1], parent.rev, None, None, 1, 2, 2, LANE, None, rev, header, None)
            tx.put_checkpoint(address.space_pk, parent)
    call(store, "prune", ["t"], keep=2)
    assert listed(store) == [lane_ids[2], lane_ids[1], *ids(ahead[1], ahead[0])]
    assert unsound(store.saver) == []
    assert store.get_tuple(config("t", "", lane_ids[2])).checkpoint["channel_values"] == ahead[0].values
    call(store, "prune", ["t"], keep=1, keep_forks=False)
    assert listed(store) == ids(ahead[1])
    assert unsound(store.saver) == []


def test_public_puts_are_pruned_by_namespace(store: Store) -> None:
    for ns in ("", "child", "child:abc"):
        where = config("t", ns)
        for n in range(3):
            checkpoint = {
                "v": 1,
                "id": f"{n}-{ns}",
                "ts": f"2026-01-02T03:04:0{n}.000006+00:00",
                "channel_values": {"a": "x" * 100 + str(n)},
                "channel_versions": {"a": n + 1},
                "versions_seen": {},
                "updated_channels": None,
            }
            where = store.put(where, checkpoint, {"source": "loop", "step": n}, {"a": n + 1})
        store.put_writes(where, [("a", 1)], "task")
    call(store, "prune", ["t"])
    for ns in ("", "child", "child:abc"):
        assert listed(store, ns=ns) == [f"2-{ns}"]
        found = store.get_tuple(config("t", ns))
        assert (found.parent_config, found.pending_writes) == (None, [("task", "a", 1)])
        assert store.get_tuple(config("t", ns, f"1-{ns}")) is None
    assert unsound(store.saver) == []


def test_a_put_over_headers_of_which_some_are_stubs(store: Store) -> None:
    run = ScriptedRun(store)
    with_question = line(run, 3)[-1]
    store.put_writes(with_question.config, [("__interrupt__", ["?"])], "asker")
    run.step({"n": 9}, source="input")
    stored = line(run, 3)
    call(store, "prune", ["t"])
    found = store.get_tuple(with_question.config)
    store.put(with_question.config, found.checkpoint, found.metadata, {})
    assert store.get_tuple(stored[-1].config).checkpoint["channel_values"] == stored[-1].values
    assert store.get_tuple(with_question.config).checkpoint["channel_values"] == with_question.values


@pytest.mark.parametrize("keep", [1, 3])
def test_compaction(store: Store, keep: int) -> None:
    run = ScriptedRun(store)
    stored = line(run, 9)
    call(store, "prune", ["t"], keep=keep, compact=True)
    stored[-keep].parent_id = None
    for entry in stored[-keep:]:
        entry.check(store)
    assert unsound(store.saver) == []
    with store.saver._writing() as tx:
        pk = tx.address("t", "").space_pk
        assert sorted(n_rows for _, _, n_rows in tx.chain_lengths(pk)) == [1, keep]
        assert len(tx.lines_of(pk)) == keep
    with pytest.raises(CheckpointConflictError):
        run.step({"a": 1})
    line(ScriptedRun(store), 3)[-1].check(store)
    call(store, "prune", ["t"], compact=True)
    assert len(listed(store)) == 1


def test_compaction_of_texts_and_of_values_without_their_types(make: Callable[..., Any]) -> None:
    saver = make()
    store = Store(saver, False)
    run = ScriptedRun(store)
    for n in range(5):
        run.step({"text": run.values.get("text", "") + f"{n}" * 100, "l": [*run.values.get("l", []), (n, "x" * 80)]})
    saver.prune(["t"], compact=True)
    assert store.get_tuple(config()).checkpoint["channel_values"] == run.stored[-1].values
    assert unsound(saver) == []


# ---- in between


@pytest.mark.parametrize("stop", range(0, 40, 3))
def test_every_state_of_a_prune_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    """It is stopped after any number of transactions, as by a crash."""
    monkeypatch.setattr(RowSaver, "_batch", 1)
    with SqliteSaver(tmp_path / "t.sqlite") as saver:
        store = Store(saver, False)
        run = ScriptedRun(store)
        line(run, 4)
        nested = ScriptedRun(store, config("t", "s"), claim=run.claim, up_rev=run.rev)
        target = line(nested, 3)[-1]
        run.step({"n": 1}, sub={"s": target.rev}, writes=[run.task("task", [("n", 1)])])
        line(run, 3)
        left = itertools.count(stop, -1)
        writing = saver._writing

        @contextlib.contextmanager
        def dying() -> Iterator[Any]:
            if next(left) <= 0:
                raise KeyboardInterrupt
            with writing() as tx:
                yield tx

        with monkeypatch.context() as patch:
            patch.setattr(saver, "_writing", dying)
            with contextlib.suppress(KeyboardInterrupt):
                saver.prune(["t"])
        assert unsound(saver, allows_garbage=True) == []
        for entry in store.list(config()):
            expected = next(e for e in (*run.stored, *nested.stored) if e.id == entry.checkpoint["id"])
            assert entry.checkpoint["channel_values"] == expected.values
        line(run, 1)[-1].check(store)
        saver.prune(["t"])
        assert unsound(saver) == []
        assert len(store.list(config())) == 2


def test_a_prune_notices_who_writes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two of its transactions another process forks from a checkpoint that was to go."""
    monkeypatch.setattr(RowSaver, "_batch", 1)
    with SqliteSaver(tmp_path / "t.sqlite") as saver, SqliteSaver(tmp_path / "t.sqlite") as other:
        stored = line(ScriptedRun(Store(saver, False)), 6)
        fork = ScriptedRun(Store(other, False), stored[1].config)
        moments = itertools.count()
        writing = saver._writing

        @contextlib.contextmanager
        def crowded() -> Iterator[Any]:
            if next(moments) == 2:
                line(fork, 1)
            with writing() as tx:
                yield tx

        monkeypatch.setattr(saver, "_writing", crowded)
        saver.prune(["t"], keep=2)
        store = Store(saver, False)
        assert listed(store) == ids(fork.stored[-1], stored[1])
        stored[1].parent_id = None
        stored[1].check(store)
        fork.stored[-1].check(store)
        line(fork, 2)[-1].check(store)
        assert unsound(saver) == []


def test_transactions_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SqliteSaver._batch == 2000
    monkeypatch.setattr(SqliteSaver, "_batch", 200)
    with SqliteSaver(tmp_path / "t.sqlite") as saver:
        run = ScriptedRun(Store(saver, False), durability="async")
        line(run, 150)
        run.tasks(*(run.task(f"task{n}", [("a", "x" * 5000)]) for n in range(60)))
        line(run, 1)
        assert saver._connections is not None
        with transactions(saver._connections.writer) as changes:
            assert saver.prune(["t"]) == 150
        assert len(changes) > 2
        assert max(changes) <= 200
        assert unsound(saver) == []


@pytest.mark.parametrize(
    ("n_bytes", "batch", "serde"),
    [
        (10_000_000, 50, None),
        (10_000_000, 17, None),
        (160_000, 2, None),
        (160_000, 17, EncryptedSerializer(BindingCipher(b"key"))),
    ],
    ids=["all of one", "half of one", "pairs", "encrypted"],
)
def test_a_body_of_many_rows_goes_in_several_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_bytes: int, batch: int, serde: Any
) -> None:
    """Also one that takes more rows than a transaction may change; nobody ever takes half of it for damaged data."""
    monkeypatch.setattr(RowSaver, "_batch", batch)
    if n_bytes < 10**6:
        monkeypatch.setattr(columns, "LARGE_PART", 4096)  # 40 parts, as of 10 MB
        monkeypatch.setattr(columns, "PARTED_LIMIT", 4096)
    path = tmp_path / "t.sqlite"
    with SqliteSaver(path, serde=serde) as saver, SqliteSaver(path, serde=serde) as other:
        run = ScriptedRun(Store(saver, False))
        for n in range(2):
            body = random.Random(n).randbytes(n_bytes)
            run.step({"doc": body, "small": n})
            run.tasks(run.task("t", [("doc", body)]))
        saver.put(config("t", "", run.id), checkpoint({"doc": "d" * 9000}, id="foreign"), {}, {"doc": 1})
        run = ScriptedRun(Store(saver, False))
        kept = [run.step({"doc": b"kept" * 40_000, "l": ["x" * 100]})]
        assert saver._connections is not None
        conn = saver._connections.writer
        changes: list[int] = []
        looked: list[int] = []
        writing = saver._writing

        @contextlib.contextmanager
        def watched() -> Iterator[Any]:
            before = conn.total_changes
            with writing() as tx:
                yield tx
            changes.append(conn.total_changes - before)
            if len(changes) % 7 == 0 or batch > 2:
                assert other.verify(deep=True) == []
                looked.append(len([*other.list(config())]))

        with monkeypatch.context() as patch:
            patch.setattr(saver, "_writing", watched)
            assert saver.prune(["t"]) == 3
        assert sum(changes) >= 2 * (39 + 39)
        assert max(changes) <= batch
        assert looked[-1] == 1
        assert unsound(saver) == []
        for stored in kept:
            stored.parent_id = None
            stored.check(run.store)


def test_prunes_and_runs_at_once(make: Callable[..., Any]) -> None:
    saver = make()
    errors: list[BaseException] = []
    run = ScriptedRun(Store(saver, False), durability="async")
    line(run, 3)
    ended = threading.Event()

    def prune() -> None:
        try:
            while not ended.is_set():
                saver.prune(["t"], keep=2)
        except BaseException as error:  # noqa: BLE001 - reported below
            errors.append(error)

    worker = threading.Thread(target=prune)
    worker.start()
    try:
        line(run, 300)
    finally:
        ended.set()
        worker.join()
    assert errors == []
    saver.prune(["t"])
    run.stored[-1].parent_id = None
    run.stored[-1].check(run.store)
    assert unsound(saver) == []


# ---- runs, copies, deletions


def test_delete_for_runs(store: Store) -> None:
    run = ScriptedRun(store)
    first = line(run, 3, run_id="r1")[:]
    nested = ScriptedRun(store, config("t", "s"), claim=run.claim, up_rev=run.rev)
    target = line(nested, 2, run_id="r1")[-1]
    run.step({"n": 1}, sub={"s": target.rev}, run_id="r1")
    store.put_writes(run.stored[-1].config, [("a", 1)], "task")
    second = ScriptedRun(store)
    line(second, 3, run_id="r2")
    third = ScriptedRun(store)
    line(third, 2, run_id="r3")
    line(ScriptedRun(store, config("u")), 2, run_id="r1")
    call(store, "delete_for_runs", [])
    call(store, "delete_for_runs", ["nobody"])
    assert len(listed(store)) == 11
    third.step({"l": [*third.values["l"], 1]}).check(store)

    call(store, "delete_for_runs", ["r2"])
    assert listed(store, ns="") == ids(*reversed(third.stored), *reversed(run.stored))
    third.stored[0].parent_id = run.stored[-1].id
    for entry in (*run.stored, *third.stored):
        entry.check(store)
    assert unsound(store.saver) == []

    call(store, "delete_for_runs", ["r1", "r1"])
    third.stored[0].parent_id = None
    for entry in third.stored:
        entry.sub = {}
        entry.check(store)
    assert listed(store) == ids(*reversed(third.stored))
    assert store.get_tuple(first[0].config) is None
    assert listed(store, "u") == []
    assert unsound(store.saver) == []

    call(store, "delete_for_runs", ["r3"])
    assert len(listed(store)) == 1
    again = ScriptedRun(store)
    assert again.rev == third.stored[-1].rev
    line(again, 1, run_id="r4")[-1].check(store)
    with pytest.raises(TypeError):
        call(store, "delete_for_runs", "r1")


@pytest.mark.parametrize("puts_over", [False, True])
def test_an_heir_does_not_answer_the_question_that_it_came_to_follow(store: Store, puts_over: bool) -> None:
    """The run that answered is deleted. What went on from it did not finish that superstep, put anew or not."""
    run = ScriptedRun(store)
    asked = line(run, 2, run_id="asks")[-1]
    run.tasks(run.task("asker", [("__interrupt__", ["?"])], slot=-3))
    ScriptedRun(store).step({"n": 9}, run_id="answers", source="loop")
    heir = ScriptedRun(store)
    first = heir.step({"n": 10}, run_id="goes on", source="loop")
    call(store, "delete_for_runs", ["answers"])
    first.parent_id = asked.id
    if puts_over:
        found = store.get_tuple(first.config)
        store.put(found.parent_config, found.checkpoint, found.metadata, {})
    call(store, "prune", ["t"])
    assert listed(store) == ids(first, asked)
    asked.parent_id = None
    asked.check(store)
    first.check(store)
    assert unsound(store.saver) == []


def test_what_is_only_submitted_is_deleted_with_its_run(store: Store) -> None:
    line(ScriptedRun(store), 2, run_id="r1")
    before = listed(store)
    line(ScriptedRun(store, durability="submit"), 2, run_id="r2")
    line(ScriptedRun(store, config("u"), durability="submit"), 2, run_id="r2")
    call(store, "delete_for_runs", ["r2"])
    assert (listed(store), listed(store, "u")) == (before, [])
    line(ScriptedRun(store), 1)[-1].check(store)


def test_a_deleted_run_cannot_go_on(store: Store) -> None:
    line(ScriptedRun(store), 2, run_id="r1")
    run = ScriptedRun(store)
    line(run, 2, run_id="r2")
    call(store, "delete_for_runs", ["r2"])
    with pytest.raises(CheckpointConflictError):
        run.step({"n": 1}, run_id="r2")
    assert len(listed(store)) == 2
    line(ScriptedRun(store), 1)[-1].check(store)
    gone = ScriptedRun(store, config("u"))
    line(gone, 2, run_id="r3")
    call(store, "delete_for_runs", ["r3"])
    with pytest.raises(ThreadDeletedError):
        gone.step({"n": 1})


def test_a_head_that_moves_back_does_not_read_what_another_branch_added(store: Store) -> None:
    base = line(ScriptedRun(store), 2, run_id="r1")[-1]
    branch = line(ScriptedRun(store), 3, run_id="r2")[:]
    line(ScriptedRun(store, base.config), 2, run_id="r3")
    call(store, "delete_for_runs", ["r3"])
    # The head is the base again; its header chain went on in the branch that was left.
    run = ScriptedRun(store)
    assert run.rev == base.rev
    for entry in (*line(run, 3, run_id="r4"), *branch, base):
        entry.check(store)
    assert unsound(store.saver) == []


@pytest.mark.parametrize("stop", range(0, 24, 2))
def test_every_state_of_a_deletion_of_runs_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    monkeypatch.setattr(RowSaver, "_batch", 1)
    with SqliteSaver(tmp_path / "t.sqlite") as saver:
        store = Store(saver, False)
        runs = []
        for n in range(6):
            runs.append(ScriptedRun(store))
            line(runs[-1], 2, run_id=f"r{n % 2}")
        left = itertools.count(stop, -1)
        writing = saver._writing

        @contextlib.contextmanager
        def dying() -> Iterator[Any]:
            if next(left) <= 0:
                raise KeyboardInterrupt
            with writing() as tx:
                yield tx

        with monkeypatch.context() as patch:
            patch.setattr(saver, "_writing", dying)
            with contextlib.suppress(KeyboardInterrupt):
                saver.delete_for_runs(["r1"])
        assert unsound(saver, allows_garbage=True) == []
        stored = {entry.id: entry for run in runs for entry in run.stored}
        for found in store.list(config()):
            assert found.checkpoint["channel_values"] == stored[found.checkpoint["id"]].values
        again = ScriptedRun(store)
        line(again, 2, run_id="r2")[-1].check(store)
        saver.delete_for_runs(["r1"])
        # What a crash left over, the next prune finds.
        saver.prune(["t"], keep=50)
        assert unsound(saver) == []
        assert len(store.list(config())) == 8
        again.stored[-1].check(store)


def test_copies(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoint.sqlite.writer.BIG_DELETE", 0)
    run = ScriptedRun(store)
    stored = line(run, 3)
    old = ScriptedRun(store, config("copy"))
    line(old, 1)
    with pytest.raises(CheckpointConflictError):
        call(store, "copy_thread", "t", "copy")
    with pytest.raises(ValueError):
        call(store, "copy_thread", "t", "t", overwrite=True)
    call(store, "copy_thread", "nobody", "copy", overwrite=True)
    assert listed(store, "copy") == ids(old.stored[0])
    call(store, "copy_thread", "t", "copy", overwrite=True)
    assert listed(store, "copy") == listed(store) == ids(*reversed(stored))
    if not isinstance(store.saver, InMemorySaver):
        assert n_in_file(store.saver) == 6
    with pytest.raises(ThreadDeletedError):
        old.step({"n": 1})
    line(run, 1)[-1].check(store)
    assert len(listed(store, "copy")) == 3
    call(store, "prune", ["copy"])
    assert (len(listed(store)), len(listed(store, "copy"))) == (4, 1)
    for thread_id in ("t", "copy"):
        assert unsound(store.saver, thread_id) == []


def test_what_is_only_submitted_is_copied(store: Store) -> None:
    run = ScriptedRun(store, durability="submit")
    stored = line(run, 3)
    call(store, "copy_thread", "t", "copy")
    assert listed(store, "copy") == ids(*reversed(stored))
    line(ScriptedRun(store, config("copy"), durability="submit"), 2)
    call(store, "copy_thread", "t", "copy", overwrite=True)
    assert listed(store, "copy") == ids(*reversed(stored))


def test_results_that_are_dropped_leave_the_questions(make: Callable[..., Any]) -> None:
    saver = make(history_writes="drop")
    for n_results, n_questions in itertools.product(range(3), repeat=2):
        run = ScriptedRun(Store(saver, False), config(f"{n_results} {n_questions}"))
        run.step({"n": 0})
        for n in range(n_questions):
            run.tasks(run.task(f"ask{n}", [("__interrupt__", ["?"])], slot=-3))
        for n in range(n_results):
            run.tasks(run.task(f"done{n}", [("n", n)]))
        stored = run.stored[-1]
        assert len(saver.get_tuple(stored.config).pending_writes) == n_questions + n_results
        run.step({"n": 1})
        after = sorted(saver.get_tuple(stored.config).pending_writes, key=str)
        assert after == [(f"ask{n}", "__interrupt__", ["?"]) for n in range(n_questions)]


def test_erasing(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    secret = "correct horse battery staple"

    def is_in_files() -> bool:
        return any(secret.encode() in file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("shm"))

    for erase, options in ((True, {}), (False, {"secure_delete": True})):
        with SqliteSaver(path, **options) as saver:  # type: ignore[arg-type]
            for n in range(3):
                ScriptedRun(Store(saver, False), config(f"t{n}")).step({"a": secret, "b": [secret] * 9, "c": "x" * 99})
            assert is_in_files()
            for n in range(3):
                if n == 1:
                    asyncio.run(saver.adelete_thread(f"t{n}", erase=True))
                else:
                    saver.delete_thread(f"t{n}", erase=erase)
            if erase:
                assert not is_in_files()
        assert not is_in_files()


def test_erasing_says_when_a_reader_keeps_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.sqlite"
    with SqliteSaver(path) as saver:
        line(ScriptedRun(Store(saver, False)), 3)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM checkpoints").fetchone()
        assert saver._connections is not None
        set_mode = saver._connections.set_mode

        def impatient(mode: str) -> None:
            set_mode(mode)
            saver._connections.writer.execute("PRAGMA busy_timeout = 0")  # type: ignore[union-attr]

        monkeypatch.setattr(saver._connections, "set_mode", impatient)
        with pytest.raises(CheckpointError):
            saver.delete_thread("t", erase=True)
        assert saver.get_tuple(config()) is None
        reader.close()
        saver.delete_thread("t", erase=True)


def test_vacuum(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False), durability="async")
        for n in range(50):
            run.step({"doc": f"{n}" * 20_000})
        saver.prune(["t"])
        saver.vacuum()
        assert path.stat().st_size < 200_000
        run.step({"n": 1})
        asyncio.run(saver.avacuum())
        assert run.store.get_tuple(config()).checkpoint["channel_values"] == run.values
    InMemorySaver().vacuum()


@pytest.mark.parametrize("is_old", [False, True], ids=["made for it", "after a vacuum"])
def test_a_file_that_shrinks_by_itself(tmp_path: Path, is_old: bool) -> None:
    path = tmp_path / "t.sqlite"
    SqliteSaver(path, auto_vacuum=not is_old).close()
    with SqliteSaver(path, auto_vacuum=True) as saver:
        if is_old:
            saver.vacuum()
        conn = saver._connections.writer  # type: ignore[union-attr]
        for remove in (
            lambda: saver.prune(["t"]),
            lambda: saver.delete_thread("t"),
            lambda: saver.delete_for_runs(["r"]),
        ):
            run = ScriptedRun(Store(saver, False), durability="async")
            for n in range(50):
                run.step({"doc": f"{n}" * 20_000}, run_id="r")
            (before,) = conn.execute("PRAGMA page_count").fetchone()
            remove()
            (after,) = conn.execute("PRAGMA page_count").fetchone()
            assert after < before / 10
            assert conn.execute("PRAGMA freelist_count").fetchone() == (0,)
            assert saver.verify(deep=True) == []
            saver.delete_thread("t")
    with SqliteSaver(path) as saver:
        assert saver.verify(deep=True) == []
    assert path.stat().st_size < 200_000


# ---- policies


def test_bad_policies_are_refused() -> None:
    for wrong in (
        {"max_checkpoints": 0},
        {"max_checkpoints": True},
        {"max_checkpoints": "3"},
        {"max_age": 0},
        {"max_age": -1.0},
        {"ttl": 0},
        {"ttl": "1"},
        {"ttl": float("nan")},
    ):
        with pytest.raises(ValueError):
            Retention(**wrong)  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Retention().ttl = 1  # type: ignore[misc]
    for wrong_limit in ({"max_threads": 0}, {"ttl": -1}):
        with pytest.raises(ValueError):
            InMemorySaver(**wrong_limit)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        InMemorySaver().expire(-1)


@pytest.mark.parametrize("durability", ["sync", "async", "submit"])
@pytest.mark.parametrize("low", [False, True])
def test_a_policy_holds_at_every_commit(
    make: Callable[..., Any], durability: str, low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if low:
        monkeypatch.setattr(headers, "MAX_HEADER_ROWS", 5)
        monkeypatch.setattr(headers, "MIN_HEADER_OPS", 100)
    saver = make(retention=Retention(max_checkpoints=3))
    store = Store(saver, False)
    # More runs than it takes for one to sweep.
    for _ in range(SWEEP_EVERY + 1):
        run = ScriptedRun(store, durability=durability)
        for _ in range(8):
            stored = line(run, 1, writes=[run.task("task", [("a", 1)])] if run.rev else [])
            assert listed(store)[0] == stored[-1].id
            assert len(listed(store)) <= 3
        for entry in stored[-2:]:
            entry.check(store)
        assert unsound(saver, allows_garbage=True) == []
    saver.prune(["t"], keep=3)
    assert unsound(saver) == []
    with saver._writing() as tx:
        pk = tx.address("t", "").space_pk
        assert len(tx.lines_of(pk)) <= 3 + headers.MAX_HEADER_ROWS


def test_a_policy_holds_for_grouped_commits(tmp_path: Path) -> None:
    with opened("sqlite-grouping", tmp_path / "t.sqlite", retention=Retention(max_checkpoints=3)) as saver:
        store = Store(saver, False)
        for _ in range(3):
            run = ScriptedRun(store, durability="submit")
            line(run, 100)
            assert len(listed(store)) <= 3
            run.stored[-1].check(store)


def test_a_policy_bounds_all_rows(make: Callable[..., Any]) -> None:
    saver = make(retention=Retention(max_checkpoints=5))
    store = Store(saver, False)
    counts = []
    for n in range(30):
        run = ScriptedRun(store, durability="async")
        for _ in range(20):
            run.step({"doc": f"{n}" * 100, "n": n}, writes=[run.task("task", [("a", 1)])] if run.rev else [])
            nested = ScriptedRun(store, config("t", f"p:{TASK[:-4]}{run.number:05}"), claim=run.claim, up_rev=run.rev)
            nested.step({"x": "y" * 100})
        with saver._writing() as tx:
            spaces = tx.spaces(tx.address("t", "").thread_pk)
            counts.append(sum(len(tx.lines_of(s.space_pk)) + len(tx.chain_lengths(s.space_pk)) for s in spaces))
        assert unsound(saver, allows_garbage=True) == []
    assert max(counts[20:]) <= max(counts[:15]) + 10
    assert listed(store, ns="")[0] == run.stored[-1].id


def test_a_policy_removes_two_a_commit_at_most(make: Callable[..., Any], tmp_path: Path) -> None:
    saver = make()
    line(ScriptedRun(Store(saver, False)), 20)
    saver._keeper = Keeper(Retention(max_checkpoints=2))
    if isinstance(saver, InMemorySaver):
        saver._tends = True
    store = Store(saver, False)
    run = ScriptedRun(store)
    sizes = [len(listed(store))]
    while sizes[-1] > 2:
        line(run, 1)
        sizes.append(len(listed(store)))
        assert sizes[-1] == max(2, sizes[-2] - 1)
        assert unsound(saver, allows_garbage=True) == []


def test_a_policy_leaves_questions_alone(make: Callable[..., Any]) -> None:
    saver = make(retention=Retention(max_checkpoints=2))
    store = Store(saver, False)
    asked = []
    for _ in range(5):
        run = ScriptedRun(store)
        line(run, 4)
        asked.append(run.stored[-1])
        run.tasks(run.task("asker", [("__interrupt__", ["?"])], slot=-3))
        ScriptedRun(store).step({"n": 9}, source="input")
    line(ScriptedRun(store), 30)
    kept = listed(store)
    assert kept[2:] == ids(*reversed(asked))
    for entry in asked:
        assert store.get_tuple(entry.config).checkpoint["channel_values"] == entry.values
    store.put_writes(asked[0].config, [("a", 1)], "asker")
    line(ScriptedRun(store), 3)
    assert listed(store)[2:] == ids(*reversed(asked[1:]))
    # A question that comes up while its own run goes on.
    run = ScriptedRun(store)
    line(run, 2)
    store.put_writes(run.stored[-1].config, [("__interrupt__", ["?"])], "late")
    late = run.stored[-1]
    line(run, 10)
    assert late.id in listed(store)
    assert unsound(saver, allows_garbage=True) == []


def test_a_policy_keeps_what_a_question_beside_the_line_is_read_with(make: Callable[..., Any]) -> None:
    """Its header builds on checkpoints of the line that goes on, and those go one by one, without a further look."""
    saver = make(retention=Retention(max_checkpoints=6))
    store = Store(saver, False)
    run = ScriptedRun(store)
    asked = line(run, 4)[-1]
    run.tasks(run.task("asker", [("__interrupt__", ["?"])], slot=-3))
    fork = ScriptedRun(store, run.stored[1].config)
    for n in range(20):
        line(fork, 1)
        assert asked.id in listed(store)
        assert len(listed(store)) <= 6 + 2, n
        found = store.get_tuple(asked.config)
        assert (found.checkpoint["channel_values"], found.checkpoint["channel_versions"]) == (
            asked.values, asked.versions
        )  # fmt: skip
        assert unsound(saver, allows_garbage=True) == []
    fork.stored[-1].check(store)


def test_a_policy_by_age(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    saver = make(retention=Retention(max_age=10.0))
    now = [1_800_000_000.0]
    at_clock(monkeypatch, now)
    store = Store(saver, False)
    run = ScriptedRun(store)
    line(run, 3)
    now[0] += 8
    line(run, 2)
    assert len(listed(store)) == 5
    now[0] += 3
    line(run, 2)
    assert listed(store) == ids(*reversed(run.stored[3:]))
    now[0] += 100
    assert listed(store)[0] == run.stored[-1].id
    line(ScriptedRun(store), 3)
    assert len(listed(store)) == 3
    assert unsound(saver, allows_garbage=True) == []


def at_clock(monkeypatch: pytest.MonkeyPatch, now: list[float]) -> None:
    """Let savers and checkpoints read this clock."""
    monkeypatch.setattr("time.time", lambda: now[0])
    monkeypatch.setattr("time.time_ns", lambda: int(now[0] * 1e9))


def test_time_to_live(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    saver = make(retention=Retention(ttl=10.0))
    now = [1_800_000_000.0]
    at_clock(monkeypatch, now)
    store = Store(saver, False)
    for thread_id in ("t", "u", "v"):
        line(ScriptedRun(store, config(thread_id)), 2)
    now[0] += 9
    run = ScriptedRun(store)
    line(run, 1)
    now[0] += 9
    assert len(listed(store)) == 3
    for thread_id in ("u", "v"):
        assert listed(store, thread_id) == []
        assert store.get_tuple(config(thread_id)) is None
        assert store.load(config(thread_id)).checkpoint_id is None
    assert {entry.config["configurable"]["thread_id"] for entry in store.list(None)} == {"t"}
    # An id that is free again can be used again.
    anew = ScriptedRun(store, config("u"))
    assert line(anew, 1)[-1].parent_id is None
    anew.stored[-1].check(store)
    saver.copy_thread("t", "v")
    assert len(listed(store, "v")) == 3
    assert saver.prune(["nobody"], strategy="delete") == 0
    now[0] += 4
    line(run, 1)
    now[0] += 9
    assert len(listed(store)) == 4
    assert saver.expire(0) == 0
    # In memory they went when others were written.
    n_over = 0 if isinstance(saver, InMemorySaver) else 2
    assert saver.expire(1) + asyncio.run(saver.aexpire()) == n_over
    assert saver.expire() == 0
    assert len(listed(store)) == 4
    if not isinstance(saver, InMemorySaver):
        assert n_in_file(saver) == 4


def test_a_put_counts_for_the_time_to_live(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    saver = make(retention=Retention(ttl=10.0))
    now = [1_800_000_000.0]
    at_clock(monkeypatch, now)
    where: Any = config("t", "")
    for n in range(3):
        where = saver.put(where, checkpoint({"n": n}), {"source": "loop", "step": n}, {"n": 1})
        now[0] += 9
    assert saver.get_tuple(config()).checkpoint["channel_values"] == {"n": 2}
    now[0] += 2
    assert saver.get_tuple(config()) is None


def test_a_thread_that_is_over_is_gone_for_its_run(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    saver = make(retention=Retention(ttl=10.0))
    now = [1_800_000_000.0]
    at_clock(monkeypatch, now)
    store = Store(saver, False)
    run, idle = ScriptedRun(store), ScriptedRun(store, config("u"))
    line(run, 1)
    line(idle, 1)
    now[0] += 20
    assert ScriptedRun(store).rev is None
    put = ScriptedRun(store)
    line(put, 1)
    with pytest.raises(ThreadDeletedError):
        line(run, 1)
    # Nobody has taken the id or removed it: who holds it may go on. In memory it has made room.
    if isinstance(saver, SqliteSaver):
        line(idle, 1)
        assert len(listed(store, "u")) == 2


def test_a_thread_that_is_over_can_be_deleted(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    saver = make(retention=Retention(ttl=10.0))
    now = [1_800_000_000.0]
    at_clock(monkeypatch, now)
    run = ScriptedRun(Store(saver, False))
    line(run, 2)
    now[0] += 20
    saver.delete_thread("t")
    assert saver.expire() == 0
    with pytest.raises(ThreadDeletedError):
        line(run, 1)


def test_the_number_of_threads_in_memory() -> None:
    saver = InMemorySaver(max_threads=3)
    store = Store(saver, False)
    runs = {name: ScriptedRun(store, config(name)) for name in "abcd"}
    for name in "abc":
        line(runs[name], 1)
    line(runs["a"], 1)
    line(runs["d"], 1)
    assert [len(listed(store, name)) for name in "abcd"] == [2, 0, 1, 1]
    with pytest.raises(ThreadDeletedError):
        line(runs["b"], 1)
    store.put_writes(runs["c"].stored[-1].config, [("a", 1)], "task")
    store.put(
        config("e", ""),
        {
            "v": 1,
            "id": "1",
            "ts": "",
            "channel_values": {},
            "channel_versions": {},
            "versions_seen": {},
            "updated_channels": None,
        },
        {},
        {},
    )
    assert len(saver._threads) == 3


def test_threads_in_memory_that_are_over_go_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_800_000_000.0]
    at_clock(monkeypatch, now)
    saver = InMemorySaver(ttl=5.0)
    store = Store(saver, False)
    for n in range(100):
        line(ScriptedRun(store, config(f"t{n}")), 1)
        now[0] += 1
    assert len(saver._threads) <= 6


def test_a_commit_without_a_policy_is_what_it_was(tmp_path: Path) -> None:
    statements: list[str] = []
    with SqliteSaver(tmp_path / "t.sqlite") as saver:
        run = ScriptedRun(Store(saver, False), durability="async")
        line(run, 2)
        assert saver._connections is not None
        saver._connections.writer.set_trace_callback(statements.append)
        line(run, 1)
    assert [statement.split()[0] for statement in statements][:2] == ["BEGIN", "UPDATE"]
    assert len(statements) <= 7


# ---- threads that graphs make


class Talk(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    n: int


class Inner(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    seen: Annotated[list[int], operator.add]


def talk(saver: Any) -> Any:
    """A loop with a nested graph that remembers, one that does not and asks, and a question of its own."""

    def remember(state: Inner) -> Any:
        return {"seen": [len(state.get("seen", []))], "log": [f"seen {len(state.get('seen', []))}"]}

    def doubt(state: Inner) -> Any:
        return {"log": [f"sure: {interrupt('sure?')}"]}

    memory = StateGraph(Inner).add_node("remember", remember).add_edge(START, "remember").compile(checkpointer=True)
    doubts = StateGraph(Inner).add_node("doubt", doubt).add_edge(START, "doubt").compile()

    def count(state: Talk) -> Any:
        return {"n": state.get("n", 0) + 1, "log": [f"count {state.get('n', 0)}"]}

    def ask(state: Talk) -> Any:
        return {"log": [f"answer {interrupt('more?')}"]}

    graph = StateGraph(Talk)
    graph.add_node("count", count)
    graph.add_node("memory", lambda state: {"log": memory.invoke({"log": []})["log"]})
    graph.add_node("doubts", doubts)
    graph.add_node("ask", ask)
    graph.add_edge(START, "count")
    graph.add_edge("count", "memory")
    graph.add_edge("memory", "doubts")
    graph.add_edge("doubts", "ask")
    graph.add_conditional_edges("ask", lambda state: "count" if state["n"] % 3 else END, ["count", END])
    return graph.compile(checkpointer=saver)


def said(result: Any) -> Any:
    """A result without what differs from run to run."""
    return {**result, "__interrupt__": [question.value for question in result.get("__interrupt__", ())]}


WHERE: Any = {"configurable": {"thread_id": "t"}}


def moves() -> list[Any]:
    """What a user says, in order."""
    return [{"log": ["hello"]}, *(Command(resume=f"a{n}") for n in range(6)), {"log": ["again"]}, Command(resume="b")]


def shown(graph: Any) -> Any:
    state = graph.get_state(WHERE, subgraphs=True)
    tasks = [(task.name, [q.value for q in task.interrupts]) for task in state.tasks]
    return state.values, state.next, state.metadata["step"], tasks


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("compact", [False, True])
def test_a_conversation_does_not_notice_prunes(
    make: Callable[..., Any], keep: int, durability: Any, compact: bool
) -> None:
    undisturbed = talk(InMemorySaver())
    saver = make()
    pruned = talk(saver)
    for move in moves():
        expected = said(undisturbed.invoke(move, WHERE, durability=durability))
        assert said(pruned.invoke(move, WHERE, durability=durability)) == expected
        saver.prune(["t"], keep=keep, compact=compact)
        assert unsound(saver) == []
        assert shown(pruned) == shown(undisturbed)
        assert len(list(pruned.get_state_history(WHERE))) <= keep + 1


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_conversation_does_not_notice_a_policy(make: Callable[..., Any], durability: Any) -> None:
    undisturbed = talk(InMemorySaver())
    saver = make(retention=Retention(max_checkpoints=1))
    pruned = talk(saver)
    for move in moves():
        expected = said(undisturbed.invoke(move, WHERE, durability=durability))
        assert said(pruned.invoke(move, WHERE, durability=durability)) == expected
        assert shown(pruned) == shown(undisturbed)
        assert unsound(saver, allows_garbage=True) == []


def test_a_conversation_does_not_notice_prunes_while_it_runs(make: Callable[..., Any]) -> None:
    saver = make()
    undisturbed = talk(InMemorySaver())
    pruned = talk(saver)
    for move in moves():
        expected = undisturbed.invoke(move, WHERE)
        for _ in pruned.stream(move, WHERE, subgraphs=True):
            saver.prune(["t"])
        assert unsound(saver) == []
        assert shown(pruned) == shown(undisturbed)
        assert pruned.get_state(WHERE).values == {k: v for k, v in expected.items() if k != "__interrupt__"}


def test_forks_of_kept_checkpoints(make: Callable[..., Any]) -> None:
    saver = make()
    undisturbed = talk(InMemorySaver())
    pruned = talk(saver)
    for move in moves()[:4]:
        undisturbed.invoke(move, WHERE)
        pruned.invoke(move, WHERE)
    saver.prune(["t"], keep=4)
    for graph in (undisturbed, pruned):
        history = list(graph.get_state_history(WHERE, limit=4))
        graph.update_state(history[2].config, {"log": ["edited"]})
        graph.invoke(None, WHERE)
    assert shown(pruned) == shown(undisturbed)
    saver.prune(["t"], keep=3)
    for graph in (undisturbed, pruned):
        history = list(graph.get_state_history(WHERE, limit=3))
        graph.invoke(None, history[1].config)
    assert shown(pruned) == shown(undisturbed)
    saver.prune(["t"])
    assert unsound(saver) == []
    assert said(pruned.invoke(Command(resume="x"), WHERE)) == said(undisturbed.invoke(Command(resume="x"), WHERE))


def test_time_travel_to_what_is_gone(make: Callable[..., Any]) -> None:
    saver = make()
    graph = talk(saver)
    for move in moves()[:3]:
        graph.invoke(move, WHERE)
    old = list(graph.get_state_history(WHERE))[-2]
    saver.prune(["t"])
    assert saver.get_tuple(old.config) is None
    assert graph.get_state(old.config).values == {}


def test_deleting_a_run_opens_the_question_that_it_answered(make: Callable[..., Any]) -> None:
    saver = make()
    graph = talk(saver)
    for n, move in enumerate(moves()[:5]):
        before = shown(graph) if n else None
        said_last = said(graph.invoke(move, {**WHERE, "metadata": {"run_id": f"run{n}"}}))
    runs = [entry.metadata["run_id"] for entry in saver.list(WHERE)]
    assert "run4" in runs
    saver.delete_for_runs(["run4"])
    assert unsound(saver) == []
    assert [entry.metadata["run_id"] for entry in saver.list(WHERE)] == [run for run in runs if run != "run4"]
    assert shown(graph) == before
    assert said(graph.invoke(moves()[4], WHERE)) == said_last
