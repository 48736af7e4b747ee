"""Synthetic supersteps: as which node an update counts, what it writes, what is stored."""

import asyncio
import operator
from contextvars import copy_context

import pytest

from pregel._call import Call
from pregel._scope import current
from pregel.channels import BinaryOperatorAggregate, EphemeralValue, LastValue
from pregel.constants import COPY, END, INPUT, NO_WRITES, START
from pregel.engine.edit import Edit, check
from pregel.errors import InvalidUpdateError
from pregel.types import StateUpdate
from tests.support.dummies import (
    dummy_loaded,
    dummy_program,
    dummy_run,
    id_in,
    match,
    node,
    null,
    rows_of,
    stored,
    values,
)

CHANNELS = {
    "x": LastValue(int),
    "y": LastValue(int),
    "log": BinaryOperatorAggregate(list, operator.add),
    "e": EphemeralValue(int),
}
NODES = {"a": node("x"), "b": node("y"), "mute": node("x", write=None, fn=print)}
PROGRAM = dummy_program(NODES, CHANNELS)


def edit_of(loaded=None, program=None, **fields):
    return Edit(dummy_run(program or PROGRAM, loaded, stores=True, **fields))


def apply(edit, *updates, is_async=False):
    """One superstep of (values, as_node, task_id) updates; returns its last commit."""
    made = [StateUpdate(*update) for update in updates]
    prepared = edit.prepare(made)
    for task, given in prepared:
        if is_async:
            asyncio.run(edit.awrites_of(task, given))
        else:
            copy_context().run(edit.writes_of, task, given)
    edit.apply(made, [task for task, _ in prepared])
    return edit.commits[-1]


# ---- what is accepted


def test_updates_are_normalised():
    assert check([[({"x": 1}, "a")], [StateUpdate(None, END)]]) == [
        [StateUpdate({"x": 1}, "a")],
        [StateUpdate(None, END)],
    ]


@pytest.mark.parametrize("wrong", [[], [[]], [[StateUpdate(1)], []]])
def test_nothing_to_do_is_refused(wrong):
    with pytest.raises(ValueError, match="superstep"):
        check(wrong)


@pytest.mark.parametrize(
    "updates",
    [
        pytest.param([({"x": 1}, "nobody")], id="unknown node"),
        pytest.param([({"x": 1}, "mute")], id="a node that writes nothing"),
        pytest.param([({"x": 1},)], id="unclear as which node"),
        pytest.param([({"x": 1}, "a"), ({"x": 1},)], id="several, one without a node"),
        pytest.param([(None, END), ({"x": 1}, "a")], id="END is alone"),
        pytest.param([({"x": 1}, INPUT), ({"x": 1}, "a")], id="input is alone"),
        pytest.param([(None, COPY), ({"x": 1}, "a")], id="a copy is alone"),
        pytest.param([(None, INPUT)], id="no input"),
        pytest.param([(3, COPY)], id="a copy with something else"),
        pytest.param([([{"x": 1}], COPY)], id="a copy with a bare value"),
        pytest.param([([(1,)], COPY)], id="a copy with a short item"),
        pytest.param([([(1, 2, 3, 4)], COPY)], id="a copy with a long item"),
        pytest.param([({"x": 1}, "a"), ({"x": 2}, "a")], id="two values for one cell"),
    ],
)
def test_what_is_refused(updates):
    edit = edit_of(dummy_loaded(values={"log": []}))
    with pytest.raises(InvalidUpdateError):
        apply(edit, *updates)
    assert edit.commits == []


def test_there_must_be_something_to_copy():
    with pytest.raises(InvalidUpdateError):
        apply(edit_of(), (None, COPY))


# ---- as a node


@pytest.mark.parametrize("is_async", [False, True])
def test_an_update_as_a_node(is_async):
    edit = edit_of(dummy_loaded(values={"x": 1, "log": [1]}, seen={"a": {"x": 1}}))
    commit = apply(edit, ({"log": [2], "y": 5}, "b"), is_async=is_async)
    match(commit, source="update", step=1, parent_id="stored-0", parent_rev=7, updated_channels=["log", "x", "y"])
    assert commit.values["y"] == 5
    assert values(edit.run) == {"x": 1, "y": 5, "log": [1, 2]}
    assert edit.run.seen["a"] == {"x": 1}
    assert edit.run.step == 2


def test_an_update_does_not_count_as_having_seen():
    edit = edit_of(dummy_loaded(values={"x": 1, "log": []}))
    assert apply(edit, ({"x": 2}, "a")).seen == {"a": {}}


def test_the_writes_of_an_update_are_stored_with_the_task_it_stands_for():
    loaded = dummy_loaded(values={"x": 1, "log": []})
    commit = apply(edit_of(loaded), ({"y": 1}, "a"))
    (row,) = commit.writes
    match(row, task_id=id_in(PROGRAM, loaded, "a"), slot=0, writes=[("y", 1)], rev=7, checkpoint_id="stored-0")


def test_a_checkpoint_that_the_thread_went_on_from_is_left_alone():
    commit = apply(edit_of(dummy_loaded(values={"x": 1}, is_head=False)), ({"y": 1}, "a"))
    assert (commit.kind, commit.writes) == ("checkpoint", [])


def test_a_given_task_id_counts():
    (row,) = apply(edit_of(dummy_loaded(values={"x": 1})), ({"y": 1}, "a", "given")).writes
    assert row.task_id == "given"


def test_an_update_that_writes_nothing():
    assert rows_of(apply(edit_of(dummy_loaded(values={"x": 1})), ({}, "b"))) == [(0, [(NO_WRITES, None)])]


def test_a_finished_task_is_not_stood_for():
    loaded = dummy_loaded(values={"x": 1, "log": []})
    loaded.writes = [stored(id_in(PROGRAM, loaded, "a"), [("log", ["finished"])])]
    edit = edit_of(loaded)
    commit = apply(edit, ({"log": ["update"]}, "a"))
    assert values(edit.run)["log"] == ["update"]
    assert len(commit.writes) == 1
    assert edit.run.pending == []


def test_several_updates_of_a_superstep_are_applied_in_their_order():
    edit = edit_of(dummy_loaded(values={"x": 1, "log": []}))
    commit = apply(edit, ({"log": ["b"]}, "b"), ({"log": ["a"]}, "a"), ({"log": ["a2"]}, "a"))
    assert values(edit.run)["log"] == ["b", "a", "a2"]
    assert len(commit.writes) == 3
    assert len(edit.commits) == 1


def test_supersteps_follow_each_other():
    edit = edit_of(dummy_loaded(values={"x": 1, "log": []}))
    first, second = apply(edit, ({"log": [1]}, "a")), apply(edit, ({"log": [2]}, "b"))
    match(second, step=2, parent_id=first.checkpoint_id, parent_rev=first.rev)
    assert edit.commits == [first, second]


def test_an_update_on_an_empty_thread():
    edit = edit_of()
    commit = apply(edit, ({"x": 1}, "a"))
    match(commit, source="update", step=0, parent_id=None, writes=[])
    assert values(edit.run)["x"] == 1


def test_an_update_clears_what_lives_one_step():
    edit = edit_of(dummy_loaded(values={"e": 1, "log": []}))
    assert apply(edit, ({"x": 2}, "a")).gone == ["e"]


def test_stored_writes_of_nobody_come_first():
    edit = edit_of(dummy_loaded(values={"x": 1, "log": []}, writes=[null([("log", ["null"])])]))
    apply(edit, ({"log": ["update"]}, "a"))
    assert values(edit.run)["log"] == ["null", "update"]


class Router:
    """Writes where to go, under the scope of the task."""

    call = Call("router", print, None, None, None)

    def route(self, result, scope, writes):
        assert current() is scope
        writes.append(("y", scope.read("log", writes)[-1]))

    async def aroute(self, result, scope, writes):
        self.route(result, scope, writes)


@pytest.mark.parametrize("is_async", [False, True])
def test_routers_run_and_see_the_update(is_async):
    program = dummy_program(
        {"a": node("x", routers=[Router()]), "r": node("x", write=None, routers=[Router()])}, CHANNELS
    )
    edit = edit_of(dummy_loaded(values={"x": 1, "log": [0]}), program)
    apply(edit, ({"log": [9]}, "a"), is_async=is_async)
    assert values(edit.run)["y"] == 9
    apply(edit, ({"log": [3]}, "r"), is_async=is_async)
    assert values(edit.run) == {"x": 1, "y": 9, "log": [0, 9]}


# ---- as which node


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        ({"a": {"x": 3}, "b": {"y": 2}}, "a"),
        ({"a": {"x": 3}, "b": {"y": 4}}, "b"),
        ({"a": {"x": 3}, "b": {}}, "a"),
        ({"a": {"x": "0003.1"}, "b": {"y": "0002.9"}}, "a"),
        ({"a": {"x": 3}, "else": {"y": 9}}, "a"),
    ],
)
def test_the_node_that_ran_last_is_inferred(seen, name):
    edit = edit_of(dummy_loaded(values={"x": 1, "log": []}, seen=seen))
    ((task, _),) = edit.prepare([StateUpdate({"x": 1})])
    assert task.name == name


@pytest.mark.parametrize("seen", [{}, {"a": {"x": 3}, "b": {"y": 3}}])
def test_two_candidates_are_not_clear(seen):
    with pytest.raises(InvalidUpdateError):
        edit_of(dummy_loaded(values={"x": 1}, seen=seen)).prepare([StateUpdate({"x": 1})])


def test_a_single_node_and_a_graph_that_has_not_started():
    single = edit_of(program=dummy_program({"a": node()}))
    assert single.prepare([StateUpdate({"x": 1})])[0][0].name == "a"
    program = dummy_program(
        {START: node(START), "a": node()}, {START: EphemeralValue(int), "x": LastValue(int)}, input_channels=START
    )
    assert edit_of(program=program).prepare([StateUpdate({"x": 1})])[0][0].name == START
    several = dummy_program(NODES, CHANNELS, input_channels=["x", "y"])
    with pytest.raises(InvalidUpdateError):
        edit_of(program=several).prepare([StateUpdate({"x": 1})])


# ---- special ones


def test_as_end_finished_tasks_are_applied_and_nothing_is_next():
    loaded = dummy_loaded(values={"x": 1, "log": []})
    loaded.writes = [stored(id_in(PROGRAM, loaded, "a"), [("log", ["finished"]), ("y", 1)])]
    edit = edit_of(loaded)
    commit = apply(edit, (None, END))
    match(commit, source="update", step=1, writes=())
    assert values(edit.run) == {"x": 1, "y": 1, "log": ["finished"]}
    assert edit._open() == []
    assert edit.run.seen["b"] == {"y": edit.run.versions["y"]}


def test_as_input():
    loaded = dummy_loaded(values={"x": 1, "log": []})
    loaded.writes = [stored(id_in(PROGRAM, loaded, "a"), [("log", ["dropped"])])]
    edit = edit_of(loaded)
    commit = apply(edit, (5, INPUT))
    match(commit, source="input", step=1, updated_channels=["x"])
    assert values(edit.run) == {"x": 5, "log": []}
    assert commit.seen["__input__"] == {}
    assert commit.seen["a"] == {"x": 1}


def test_as_copy():
    edit = edit_of(dummy_loaded(values={"x": 1}, parent_id="p", parent_rev=3))
    commit = apply(edit, (None, COPY))
    match(commit, source="fork", step=1, parent_id="p", parent_rev=3, values={}, ops={})
    assert len(edit.commits) == 1


def test_a_copy_of_a_first_checkpoint_is_a_first_one():
    match(apply(edit_of(dummy_loaded(values={"x": 1})), (None, COPY)), parent_id=None, parent_rev=None)


def test_as_copy_with_updates():
    edit = edit_of(dummy_loaded(values={"x": 1, "log": []}, parent_id="p", parent_rev=3))
    apply(edit, ([({"log": [1]}, "a"), ({"log": [2]}, "b", "id")], COPY))
    fork, update = edit.commits
    match(fork, source="fork", parent_id="p")
    match(update, source="update", step=2, parent_id=fork.checkpoint_id, parent_rev=fork.rev)
    assert values(edit.run)["log"] == [1, 2]
