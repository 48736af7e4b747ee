"""What a commit contains."""

import operator

import pytest

from checkpoint.base import Append
from pregel.channels import BinaryOperatorAggregate, EphemeralValue, LastValue, UntrackedValue
from pregel.constants import TASKS
from pregel.engine import snapshot
from pregel.engine.apply import apply_tasks, apply_writes
from pregel.engine.task import Task
from pregel.types import Send, TimeoutPolicy
from tests.support.dummies import dummy_loaded, dummy_program, dummy_run, match, node, stored

CHANNELS = {
    "x": LastValue(int),
    "log": BinaryOperatorAggregate(list, operator.add),
    "e": EphemeralValue(int),
    "u": UntrackedValue(int),
}
PROGRAM = dummy_program({"a": node("x"), "b": node("log")}, CHANNELS)


def run_of(**fields):
    fields.setdefault("stores", True)
    return dummy_run(PROGRAM, **fields)


def step(run, writes):
    task = Task(run.program.nodes["a"], None)
    task.writes = list(writes)
    apply_tasks(run, [task])


# ---- what may be stored


def test_a_program_that_tracks_everything_stores_every_write():
    writes = [("x", 1), ("nowhere", 2)]
    assert snapshot.stored_writes(dummy_program(), writes) == writes


def test_nothing_of_untracked_channels_is_stored():
    send = Send("a", {"u": 1, "x": 2, "else": 3}, timeout=TimeoutPolicy(run_timeout=1.0))
    writes = [("x", 1), ("u", 2), ("__return__", 3), (TASKS, send), (TASKS, Send("a", 7)), (TASKS, "odd")]
    assert snapshot.stored_writes(PROGRAM, writes) == [
        ("x", 1),
        ("__return__", 3),
        (TASKS, Send("a", {"x": 2, "else": 3}, timeout=TimeoutPolicy(run_timeout=1.0))),
        (TASKS, Send("a", 7)),
        (TASKS, "odd"),
    ]
    assert send.arg == {"u": 1, "x": 2, "else": 3}


def test_rows_alone():
    run = run_of(run_id="r")
    row = stored("t", [("x", 1)])
    match(snapshot.rows(run, [row]), kind="tasks", writes=[row], claim=run.claim, checkpoint_ns="", run_id="r")


# ---- a checkpoint


def test_a_checkpoint_holds_what_changed_since_the_last():
    run = run_of(stored_metadata={"user": 1}, run_id="r")
    apply_writes(run, [("x", 1), ("log", [1])], "input")
    first = snapshot.checkpoint(run, "input")
    match(
        first,
        kind="checkpoint",
        source="input",
        step=-1,
        rev=run.rev,
        checkpoint_id=run.checkpoint_id,
        parent_rev=None,
        parent_id=None,
        up_rev=None,
        parents={},
        metadata={"user": 1},
        run_id="r",
        ts=1_700_000_000_000_000,
        version=1,
        values={"x": 1},
        ops={"log": Append([1], 0, [1])},
        gone=[],
        versions=None,
        seen={},
        updated_channels=["log", "x"],
        sub={},
    )
    run.step = 0
    step(run, [("log", [2, 3])])
    second = snapshot.checkpoint(run, "loop")
    match(
        second,
        source="loop",
        step=0,
        parent_rev=first.rev,
        parent_id=first.checkpoint_id,
        version=2,
        ops={"log": Append([1, 2, 3], 1, [2, 3])},
        seen={"a": {"x": 1}},
        updated_channels=["log"],
    )
    assert second.rev > first.rev
    assert second.checkpoint_id > first.checkpoint_id


def test_a_step_without_changes_is_a_checkpoint_too():
    run = run_of()
    match(snapshot.checkpoint(run, "input"), values={}, ops={}, gone=[], version=0, updated_channels=None)


def test_channels_without_a_value_and_untracked_ones_are_gone():
    run = run_of()
    apply_writes(run, [("e", 1), ("u", 2)], "input")
    match(snapshot.checkpoint(run, "input"), values={"e": 1}, gone=["u"])
    step(run, [])
    match(snapshot.checkpoint(run, "loop"), values={}, ops={}, gone=["e"])


def test_held_writes_and_nested_revisions_go_with_it():
    run = run_of()
    run.sub_changed = {"a": 5}
    row = stored("t", [("x", 1)])
    match(snapshot.checkpoint(run, "loop", [row]), writes=[row], sub={"a": 5})
    assert run.sub_changed == {}


def test_facts_go_with_the_next_checkpoint_alone():
    run = run_of()
    run.remember("graph", "a")
    match(snapshot.checkpoint(run, "input"), facts={"graph": "a"})
    match(snapshot.checkpoint(run, "loop"), facts={})
    assert snapshot.kept(run).facts == {"graph": "a"}


def test_a_nested_run_names_the_checkpoints_around_it():
    outer = run_of()
    snapshot.checkpoint(outer, "input")
    inner = run_of(parent_run=outer, ns="a:1")
    match(snapshot.checkpoint(inner, "input"), checkpoint_ns="a:1", up_rev=outer.rev, parents={"": outer.checkpoint_id})


def test_without_a_saver_only_the_number_moves():
    run = dummy_run()
    run.step = 4
    assert snapshot.checkpoint(run, "loop") is None
    assert (run.source, run.made_step, run.rev) == ("loop", 4, 0)
    run.step = 5
    assert run.checkpoint_id == "checkpoint-4"


# ---- durability exit


def test_deferred_supersteps_become_one_commit():
    run = run_of(deferred=True)
    apply_writes(run, [("x", 1), ("log", [1])], "input")
    assert snapshot.checkpoint(run, "input") is None
    run.step = 0
    step(run, [("log", [2])])
    assert snapshot.checkpoint(run, "loop") is None
    row = stored("t", [])
    match(
        snapshot.final(run, [row]),
        kind="checkpoint",
        source="loop",
        step=0,
        parent_rev=None,
        parent_id=None,
        version=2,
        versions={"x": 1},
        values={"x": 1},
        ops={"log": Append([1, 2], 0, [1, 2])},
        seen={"a": {"x": 1}},
        writes=[row],
    )


def test_a_deferred_continuation_hangs_below_what_was_loaded():
    run = run_of(deferred=True, loaded=dummy_loaded(values={"x": 1, "log": [1]}))
    step(run, [("log", [2])])
    snapshot.checkpoint(run, "loop")
    match(snapshot.final(run, []), parent_rev=7, parent_id="stored-0", ops={"log": Append([1, 2], 1, [2])})


@pytest.mark.parametrize("held", [[], [stored("t", [("x", 1)])]])
def test_a_deferred_run_that_made_no_step_stores_only_rows(held):
    run = run_of(deferred=True, loaded=dummy_loaded(values={"x": 1}))
    made = snapshot.final(run, held)
    if held:
        match(made, kind="tasks", writes=held)
    else:
        assert made is None


def test_a_deferred_run_that_got_no_number_stores_nothing():
    assert snapshot.final(run_of(deferred=True), [stored("t", [])]) is None


def test_a_deferred_run_on_an_empty_thread_has_no_parent():
    run = run_of(deferred=True, loaded=dummy_loaded())
    snapshot.checkpoint(run, "input")
    match(snapshot.final(run, []), parent_rev=None, parent_id=None)


def test_pending_sends_are_stored_without_untracked_values():
    run = run_of()
    apply_writes(run, [(TASKS, Send("a", {"u": 1, "x": 2}))], "input")
    commit = snapshot.checkpoint(run, "input")
    assert commit.values[TASKS] == [Send("a", {"x": 2})]
    assert run.channels[TASKS].get() == [Send("a", {"u": 1, "x": 2})]


def test_what_the_next_run_of_a_stable_namespace_would_load():
    run = run_of(loaded=dummy_loaded(values={"x": 1, "log": [1]}), ns="a", deferred=True)
    run.program = PROGRAM
    step(run, [("log", [2]), ("u", 3)])
    snapshot.checkpoint(run, "loop")
    kept = snapshot.kept(run)
    match(kept, claim=run.claim, checkpoint_ns="a", checkpoint_id=run.checkpoint_id, rev=run.rev, step=1, source="loop")
    assert kept.values == {"x": 1, "log": [1, 2]}
    assert kept.versions == run.versions
    assert kept.versions is not run.versions
    assert kept.seen == {"a": {"x": 1}}
