"""Snapshots of loaded checkpoints."""

import operator

from pregel.channels import BinaryOperatorAggregate, LastValue
from pregel.constants import ERROR, INTERRUPT, RESUME, TASKS
from pregel.engine import history
from pregel.errors import Interrupt
from pregel.types import PregelTask, Send
from tests.support.dummies import THREAD, dummy_loaded, dummy_program, dummy_request, id_in, match, node, null, stored

PROGRAM = dummy_program(
    {"b": node("x"), "a": node("x"), "c": node("y")},
    {"x": LastValue(int), "y": LastValue(int), "log": BinaryOperatorAggregate(list, operator.add)},
)
CONFIG = {"configurable": {"thread_id": THREAD, "checkpoint_ns": "", "checkpoint_id": "stored-0"}}
ASKED = Interrupt("?", "0" * 32)


def describe(loaded, *, latest=False, states=None):
    run, tasks = history.opened(PROGRAM, dummy_request(stores=True, thread_id=THREAD), loaded)
    return history.describe(
        run, tasks, config=CONFIG, latest=latest, states=[None] * len(tasks) if states is None else states
    )


def test_a_snapshot_before_a_step():
    loaded = dummy_loaded(values={"x": 1, "log": [1]}, parent_id="p", parents={})
    snapshot = describe(loaded)
    match(
        snapshot,
        values={"x": 1, "log": [1]},
        next=("b", "a"),
        config=CONFIG,
        metadata=loaded.metadata,
        created_at=loaded.ts,
        interrupts=(),
    )
    assert snapshot.parent_config == {"configurable": {"thread_id": THREAD, "checkpoint_ns": "", "checkpoint_id": "p"}}
    assert [task.name for task in snapshot.tasks] == ["b", "a"]
    assert snapshot.tasks[0] == PregelTask(id_in(PROGRAM, loaded, "b"), "b", ("__pregel_pull", "b"))


def test_the_first_checkpoint_has_no_parent():
    assert describe(dummy_loaded(values={"x": 1})).parent_config is None


def test_nothing_is_next_when_everything_was_seen():
    snapshot = describe(dummy_loaded(values={"x": 1}, seen={"a": {"x": 1}, "b": {"x": 1}}))
    match(snapshot, next=(), tasks=())


def rows(loaded):
    a, b = id_in(PROGRAM, loaded, "a"), id_in(PROGRAM, loaded, "b")
    return [
        stored(a, [("log", ["a"])]),
        stored(a, [(INTERRUPT, [ASKED])], slot=-3),
        stored(b, [(ERROR, "OSError('boom')")], slot=-1),
        stored(b, [(INTERRUPT, [ASKED])], slot=-3),
        stored(b, [(RESUME, ["yes"])], slot=-4),
    ]


def test_the_newest_counts_finished_tasks_as_applied():
    loaded = dummy_loaded(values={"x": 1, "log": []})
    loaded.writes = rows(loaded)
    snapshot = describe(loaded, latest=True)
    match(snapshot, values={"x": 1, "log": ["a"]}, next=("b",), interrupts=(ASKED,))
    b, a = snapshot.tasks
    assert (a.result, a.interrupts) == ({"log": ["a"]}, ())
    assert (b.result, b.error, b.interrupts) == (None, "OSError('boom')", (ASKED,))


def test_finished_tasks_whose_writes_are_refused_do_not_count_as_applied():
    loaded = dummy_loaded(values={"x": 1, "log": []})
    loaded.writes = [stored(id_in(PROGRAM, loaded, name), [("y", 2), ("log", [name])]) for name in "ab"]
    snapshot = describe(loaded, latest=True)
    match(snapshot, values={"x": 1, "log": []}, next=("b", "a"))
    assert [task.result for task in snapshot.tasks] == [{"y": 2, "log": ["b"]}, {"y": 2, "log": ["a"]}]


def test_an_addressed_checkpoint_is_shown_as_it_was():
    loaded = dummy_loaded(values={"x": 1, "log": []})
    loaded.writes = rows(loaded)
    snapshot = describe(loaded)
    match(snapshot, values={"x": 1, "log": []}, next=("b", "a"), interrupts=(ASKED, ASKED))
    assert snapshot.tasks[1].result == {"log": ["a"]}


def test_results_of_siblings_are_applied_in_task_order():
    loaded = dummy_loaded(values={"x": 1, "log": []})
    loaded.writes = [stored(id_in(PROGRAM, loaded, name), [("log", [name])]) for name in "ba"]
    match(describe(loaded, latest=True), values={"x": 1, "log": ["a", "b"]}, next=())


def test_writes_of_nobody_are_applied():
    loaded = dummy_loaded(values={"x": 1}, seen={"a": {"x": 1}, "b": {"x": 1}}, writes=[null([("y", 5)])])
    match(describe(loaded), values={"x": 1, "y": 5, "log": []}, next=("c",))


def test_sends_come_first():
    loaded = dummy_loaded(values={"x": 1, TASKS: [Send("c", 1), Send("c", 2)]})
    match(describe(loaded), next=("c", "c", "b", "a"))


def test_states_of_nested_graphs_are_passed_on():
    state = {"configurable": {"checkpoint_ns": "a:1"}}
    assert [task.state for task in describe(dummy_loaded(values={"x": 1}), states=[None, state]).tasks] == [None, state]


def test_addresses_of_nested_checkpoints_name_those_around():
    loaded = dummy_loaded(values={"x": 1}, checkpoint_ns="a:1", parents={"": "outer"})
    assert history.address(loaded, "inner") == {
        "configurable": {
            "thread_id": THREAD,
            "checkpoint_ns": "a:1",
            "checkpoint_id": "inner",
            "checkpoint_map": {"": "outer", "a:1": "inner"},
        }
    }


def test_nothing_is_stored_there():
    match(
        history.nothing(CONFIG),
        values={},
        next=(),
        config=CONFIG,
        metadata=None,
        created_at=None,
        tasks=(),
        interrupts=(),
    )
