"""The fields of a run and the facts that follow from them."""

import operator

import pytest

from checkpoint.base import Claim
from pregel._scope import TaskScope
from pregel.channels import BinaryOperatorAggregate, EphemeralValue, LastValue
from pregel.constants import MISSING
from pregel.engine.state import Answers, Channels, Known
from pregel.engine.task import Task
from pregel.types import Overwrite
from pregel.warnings import Notice
from tests.support.dummies import (
    Chunks,
    dummy_claim,
    dummy_loaded,
    dummy_program,
    dummy_run,
    match,
    node,
    stored,
)


def test_channels_are_made_when_they_are_looked_at():
    channels = Channels({"x": LastValue(int), "y": LastValue(int)}, {"x": 3})
    assert dict(channels) == {}
    assert channels["x"].get() == 3
    assert not channels["y"].is_available()
    assert channels["x"] is channels["x"]
    assert list(channels) == ["x", "y"]


@pytest.mark.parametrize(
    ("kept", "later_kept", "before", "both"),
    [(2, 3, ["b"], 2), (3, 2, ["b"], 2), (2, 3, MISSING, 2), (None, 3, ["b"], None), (2, None, ["b"], None)],
)
def test_two_changes_are_known_as_one(kept, later_kept, before, both):
    earlier, later = Known(kept, before, ["x"]), Known(later_kept, ["other"], ["y"])
    assert earlier.followed_by(later) == Known(both, before, ["x", "y"])


@pytest.mark.parametrize(("kept", "later_kept"), [(None, 3), (2, None), (None, None)])
def test_of_two_changes_nothing_may_be_known(kept, later_kept):
    assert Known(kept, MISSING, ["x"]).followed_by(Known(later_kept, ["other"], ["y"])) is None


def test_an_empty_start():
    run = dummy_run(limit=9)
    match(
        run,
        phase="new",
        status="input",
        step=-1,
        made_step=-2,
        stop=9,
        versions={},
        seen={},
        version=None,
        updated=None,
        pending=[],
        sub={},
        live=[],
        rev=0,
        checkpoint_id_=None,
        claim=None,
        source="input",
    )


def test_a_thread_without_checkpoints_is_an_empty_start_with_a_claim():
    loaded = dummy_loaded()
    match(dummy_run(loaded=loaded), step=-1, claim=loaded.claim, versions={}, rev=0, checkpoint_id_=None)


def test_a_loaded_state_is_taken_over():
    rows = [stored("t", [("x", 1)])]
    loaded = dummy_loaded(
        values={"x": 5, "e": 6},
        versions={"x": 3, "e": 4},
        seen={"a": {"x": 3}},
        step=3,
        source="update",
        parent_id="p",
        parent_rev=6,
        writes=rows,
        sub={"a": 2},
        updated_channels=["x"],
    )
    run = dummy_run(dummy_program(channels={"x": LastValue(int), "e": EphemeralValue(int)}), loaded, limit=9)
    match(
        run,
        step=4,
        made_step=3,
        stop=14,
        version=4,
        versions={"x": 3, "e": 4},
        seen={"a": {"x": 3}},
        rev=7,
        checkpoint_id="stored-0",
        parent_id="p",
        parent_rev=6,
        source="update",
        pending=rows,
        sub={"a": 2},
        updated=["x"],
        live=["e"],
    )
    assert run.channels["x"].get() == 5


def test_a_loaded_state_without_versions():
    assert dummy_run(loaded=dummy_loaded(values={})).version is None


# ---- identity


def test_ids_of_an_unstored_root_come_from_the_request():
    run = dummy_run()
    assert (run.checkpoint_id, run.checkpoint_id) == ("checkpoint--2", "checkpoint--2")
    run.number(-1)
    run.step = 0
    assert run.checkpoint_id == "checkpoint--1"


def nested(outer, **fields):
    scope = TaskScope(outer, Task(outer.program.nodes["a"], None), None)
    return dummy_run(outer.program, parent=scope, parent_run=outer, **fields)


def test_ids_of_an_unstored_nested_run_are_the_same_every_time():
    outer = dummy_run(loaded=dummy_loaded(values={"x": 1}))
    one, two = nested(outer, ns="a:1"), nested(outer, ns="a:1")
    assert one.checkpoint_id == two.checkpoint_id
    assert nested(outer, ns="a:1|1").checkpoint_id != one.checkpoint_id
    two.number(-1)
    two.step = 0
    assert two.checkpoint_id != one.checkpoint_id


def test_a_parent_run_without_a_scope_counts_as_a_root():
    assert dummy_run(parent_run=dummy_run()).checkpoint_id == "checkpoint--2"


def test_numbers_come_from_the_claim():
    run = dummy_run(stores=True)
    run.number(-1)
    first = (run.rev, run.checkpoint_id)
    run.number(0)
    assert run.rev > first[0]
    assert run.checkpoint_id > first[1]


def test_task_ids_and_namespaces():
    run = dummy_run(dummy_program({"a": node(), "b": node()}), ns="p:9")
    task, child = Task(run.program.nodes["a"], None), Task(run.program.nodes["b"], None)
    child.parent, child.call_index = task, 0
    grandchild = Task(run.program.nodes["b"], None)
    grandchild.parent, grandchild.call_index = child, 0
    handler = Task(run.program.nodes["b"], None)
    handler.parent = task
    assert run.id_of(task) == run.id_of(task) == task.id_
    assert run.ns_of(task) == f"p:9|a:{task.id_}"
    assert run.ns_of(child) == f"p:9|a:{task.id_}|b:{child.id_}"
    assert run.ns_of(grandchild) == f"{run.ns_of(child)}|b:{grandchild.id_}"
    assert run.ns_of(handler) == f"p:9|b:{handler.id_}"


def test_runs_around():
    outer = dummy_run(loaded=dummy_loaded(values={"x": 1}))
    middle = nested(outer, ns="a:1")
    inner = nested(middle, ns="a:1|a:2")
    assert (outer.root, middle.root, inner.root) == (outer, outer, outer)
    assert outer.parents() == {}
    assert inner.parents() == {"": "stored-0", "a:1": middle.checkpoint_id}


def test_answers_are_shared_with_nested_runs():
    outer = dummy_run()
    outer.answers = Answers({"q": 1})
    assert nested(outer).answers is outer.answers
    assert dummy_run().answers.given is False


# ---- small changes


def test_chunks_go_to_every_outlet_with_the_path():
    outlets = (Chunks(), Chunks())
    dummy_run(ns="a:1|b:2", outlets=outlets).emit("custom", 3)
    assert outlets == ([(("a:1", "b:2"), "custom", 3)],) * 2


def test_notices_wait():
    run = dummy_run()
    run.notice("code", "place", "text")
    assert run.notices == [Notice("code", "place", "text")]


def test_versions_count():
    run = dummy_run()
    assert [run.next_version() for _ in range(3)] == [1, 2, 3]
    run = dummy_run(loaded=dummy_loaded(values={"x": 1}, versions={"x": 5}))
    assert [run.next_version(), run.next_version()] == [6, 7]


def test_versions_of_a_foreign_saver_are_its_own():
    claim: Claim = dummy_claim(make_version=lambda current: "1.r" if current is None else f"{int(current[0]) + 1}.r")
    run = dummy_run(loaded=dummy_loaded(claim=claim))
    assert [run.next_version(), run.next_version()] == ["1.r", "2.r"]


# ---- namespaces that are worked out when asked for


@pytest.mark.parametrize(
    ("stable", "number", "expected"), [(False, 0, "a:{id}"), (False, 2, "a:{id}|2"), (True, 0, "a"), (True, 1, "a|1")]
)
def test_the_namespace_of_a_nested_run(stable, number, expected):
    outer = dummy_run()
    run = nested(outer, ns=None, stable_ns=stable, call_number=number)
    task = run.request.parent.task
    assert run.ns == run.ns == expected.format(id=outer.id_of(task))


def test_a_transplanted_run_stores_everything_anew():
    run = dummy_run(loaded=dummy_loaded(values={"x": 1}, seen={"a": {"x": 1}}))
    run.transplant()
    match(run, rev=0, parent_rev=None, parent_id=None, loaded=None, changed={"x": None})
    assert set(run.seen_changed) == {"a"}
    assert run.channels["x"].get() == 1


def test_what_is_remembered():
    loaded = dummy_loaded(values={"x": 1}, facts={"graph": "a", "paused": ["n"]})
    run = dummy_run(loaded=loaded)
    run.remember("graph", "a")
    run.remember("unknown", None)
    match(run, facts={"graph": "a", "paused": ["n"]}, facts_changed={})
    run.remember("graph", "b")
    run.remember("paused", None)
    match(run, facts={"graph": "b", "paused": None}, facts_changed={"graph": "b", "paused": None})
    run.transplant()
    match(run, facts_changed=run.facts)


# ---- what the next commit must say


@pytest.mark.parametrize(
    ("edits", "kept"),
    [
        ([[1]], 0),
        ([[1], [2]], 0),
        ([None, [2]], 1),
        ([None, [2], [3]], 1),
        ([None, [2], None, [3]], 2),
        ([[1], Overwrite([5])], None),
    ],
)
def test_how_much_of_a_channel_is_kept(edits, kept):
    """None stands for a commit; before the first one there is the element 0, if it comes first."""
    program = dummy_program(channels={"x": LastValue(int), "log": BinaryOperatorAggregate(list, operator.add)})
    run = dummy_run(program, stores=True, deferred=True)
    if edits[0] is None:
        run.channels["log"].update([[0]])
    for edit in edits:
        if edit is None:
            run.changed.clear()
        else:
            run.channels["log"].update([edit])
            run.bump("log", run.next_version())
    (known,) = run.changed.values()
    assert (None if known is None else known.kept) == kept
    assert run.versions == {"log": run.version}


def test_without_a_saver_nothing_is_remembered():
    run = dummy_run()
    run.bump("x", run.next_version())
    assert (run.changed, run.versions) == ({}, {"x": 1})
