"""Projections of a run's facts, one function at a time."""

import operator

import pytest

from pregel._scope import TaskScope
from pregel.channels import BinaryOperatorAggregate, EphemeralValue, LastValue, Topic
from pregel.constants import INTERRUPT, MISSING, RETURN, SCOPE_KEY, TAG_HIDDEN
from pregel.engine import view
from pregel.engine.state import LATER
from pregel.engine.task import Task
from pregel.errors import Interrupt
from pregel.managed import RemainingStepsManager
from tests.support.dummies import THREAD, Chunks, chunks_of, dummy_loaded, dummy_program, dummy_run, node

CHANNELS = {
    "x": LastValue(int),
    "y": LastValue(int),
    "log": BinaryOperatorAggregate(list, operator.add),
    "topic": Topic(int),
}
NODES = {"a": node("x"), "b": node("x"), "h": node("x", tags=[TAG_HIDDEN])}
ASKED = Interrupt("?", "0" * 32)


def run_of(*modes, output_channels=("y", "log"), nodes=None, channels=None, **fields):
    program = dummy_program(
        nodes or NODES, channels or CHANNELS, output_channels=output_channels, managed={"left": RemainingStepsManager}
    )
    run = dummy_run(program, modes=modes, **fields)
    return run


def task_of(run, name="a", writes=None, error=None, interrupts=()):
    task = Task(run.program.nodes[name], 7)
    task.writes, task.error, task.interrupts = writes, error, interrupts
    return task


# ---- reading


def test_reading_one_and_several():
    run = run_of()
    run.channels["x"].update([1])
    assert view.read(run, "x") == 1
    assert view.read(run, "y") is None
    assert view.read(run, ["x", "y", "log", "left", "nowhere"]) == {"x": 1, "log": [], "left": run.stop - run.step}


def test_reading_with_own_writes_changes_nothing():
    run = run_of()
    run.channels["log"].update([[1]])
    assert view.read(run, ["log", "x"], [("log", [2]), ("x", 5), ("y", 6)]) == {"log": [1, 2], "x": 5}
    assert view.read(run, "log", [("log", [2])]) == [1, 2]
    assert view.read(run, ["log", "x"]) == {"log": [1]}


def test_containers_that_are_read_are_copies():
    run = run_of()
    view.read(run, "log").append(1)
    assert run.channels["log"].get() == []


def test_results():
    run = run_of()
    run.channels["y"].update([1])
    assert view.result(run) is None
    run.emitted = LATER
    assert view.result(run) == {"y": 1, "log": []}
    run.emitted = {"y": 0}
    assert view.result(run) == {"y": 0}
    assert view.outputs(run) == {"y": 1, "log": []}
    assert view.state_values(run) == {"y": 1, "log": []}


# ---- values


def test_values_are_kept_and_shown_to_those_who_listen():
    for modes, shown in [(["values"], [{"log": []}]), (["updates"], [])]:
        run = run_of(*modes)
        view.values(run)
        assert run.emitted == {"log": []}
        assert chunks_of(run).of("values") == shown


def test_a_continued_run():
    run = run_of("updates")
    view.resumed(run)
    assert run.emitted is LATER
    run = run_of("values")
    view.resumed(run)
    assert chunks_of(run).of("values") == [{"log": []}]


def interrupted(*modes, tasks=(), questions=(ASKED,), output_channels=("y", "log"), **fields):
    run = run_of(*modes, output_channels=output_channels, **fields)
    run.tasks = [task_of(run, name, writes) for name, writes in tasks]
    run.interrupts = list(questions)
    view.interrupted(run)
    return run


def test_results_of_finished_siblings_are_shown_when_a_run_asks():
    tasks = [("b", [("log", ["b"])]), ("a", [("log", ["a"]), ("x", 1)]), ("h", None)]
    run = interrupted("values", "updates", tasks=tasks)
    assert run.emitted == {"log": ["a", "b"]}
    assert list(chunks_of(run)) == [((), "values", {"log": ["a", "b"]})]
    assert interrupted(tasks=tasks).emitted == {"log": ["a", "b"]}
    assert interrupted("updates", tasks=tasks, output_channels="log").emitted == ["a", "b"]


def test_siblings_that_wrote_no_output_show_nothing():
    run = interrupted("values", tasks=[("a", [("x", 1)])])
    assert (run.emitted, chunks_of(run)) == (MISSING, [])


def test_a_stop_without_a_question_is_an_empty_one():
    assert chunks_of(interrupted("updates", questions=())).of("updates") == [{INTERRUPT: ()}]
    assert chunks_of(interrupted("values", questions=())) == []


def test_a_nested_run_leaves_showing_to_its_root():
    outer = run_of()
    run = interrupted("values", "updates", questions=(), tasks=[("a", [("y", 1)])], parent_run=outer)
    view.stopped(run)
    assert chunks_of(run) == []


def test_a_breakpoint():
    run = run_of("updates")
    view.stopped(run)
    assert chunks_of(run).of("updates") == [{INTERRUPT: ()}]
    run = run_of("values")
    view.stopped(run)
    assert chunks_of(run) == []


# ---- tasks


def test_starts():
    run = run_of(
        "tasks", "debug", config={"metadata": {"user": 1, "langgraph_step": 3, "thread_id": "t"}, "tags": ["t"]}
    )
    a, h = task_of(run), task_of(run, "h")
    view.starts(run, [a, h])
    payload = {
        "id": run.id_of(a),
        "name": "a",
        "input": 7,
        "triggers": ("x",),
        "metadata": {"user": 1, "tags": ["t"]},
    }
    assert chunks_of(run).of("tasks") == [payload]
    (event,) = chunks_of(run).of("debug")
    assert event == {"step": -1, "timestamp": "2023-11-14T22:13:20.000000+00:00", "type": "task", "payload": payload}


def test_starts_without_metadata_and_without_listeners():
    run = run_of("tasks")
    view.starts(run, [task_of(run)])
    assert "metadata" not in chunks_of(run).of("tasks")[0]
    run = run_of("updates")
    view.starts(run, [task_of(run)])
    assert chunks_of(run) == []
    run = run_of("debug")
    view.starts(run, [task_of(run)])
    assert [mode for _, mode, _ in chunks_of(run)] == ["debug"]


def test_metadata_of_a_node():
    run = run_of("tasks", nodes={"a": node("x", metadata={"own": 1, "checkpoint_x": 2}, tags=["n"])})
    view.starts(run, [task_of(run)])
    assert chunks_of(run).of("tasks")[0]["metadata"] == {"own": 1, "tags": ["n"]}


def test_reapplied_tasks_are_marked():
    run = run_of("updates")
    view.reapplied(run, [task_of(run, writes=[("y", 1)]), task_of(run, "h", [("y", 2)])])
    assert chunks_of(run) == [((), "updates", {"a": {"y": 1}, "__metadata__": {"cached": True}})]
    run = run_of("values")
    view.reapplied(run, [task_of(run, writes=[])])
    assert chunks_of(run) == []


@pytest.mark.parametrize(
    ("keys", "writes", "update"),
    [
        (["y", "log"], [("y", 1), ("x", 2)], {"a": {"y": 1}}),
        (["y", "log"], [("y", 1), ("log", [2])], {"a": {"y": 1, "log": [2]}}),
        (["y", "log"], [("log", [1]), ("log", [2])], {"a": [{"log": [1]}, {"log": [2]}]}),
        (["y", "log"], [("x", 2)], {"a": None}),
        (["y", "log"], [], {"a": None}),
        ("y", [("y", 1), ("x", 2)], {"a": 1}),
        ("y", [("y", 1), ("y", 2)], {"a": [1, 2]}),
        ("y", [("x", 1)], {"a": None}),
        ("y", [("y", 1), (RETURN, 3)], {"a": 3}),
    ],
)
def test_updates(keys, writes, update):
    run = run_of("updates", output_channels=keys)
    view.finished(run, task_of(run, writes=writes))
    assert chunks_of(run).of("updates") == [update]


def test_a_finished_task():
    run = run_of("tasks")
    task = task_of(run, writes=[("y", 1), ("log", [1]), ("log", [2]), ("hidden", 3)])
    view.finished(run, task)
    assert chunks_of(run).of("tasks") == [
        {
            "id": run.id_of(task),
            "name": "a",
            "error": None,
            "result": {"y": 1, "log": {"$writes": [[1], [2]]}},
            "interrupts": [],
        }
    ]


def test_hidden_tasks_are_not_shown():
    run = run_of("tasks", "updates", "debug")
    for show in (view.finished, view.failed, view.paused):
        show(run, task_of(run, "h", []))
    assert chunks_of(run) == []


def test_a_failed_task():
    run = run_of("tasks", "updates")
    error = OSError()
    view.failed(run, task_of(run, writes=[("y", 1)], error=error))
    ((_, mode, payload),) = chunks_of(run)
    assert (mode, payload["error"], payload["result"]) == ("tasks", error, {})


def test_a_task_that_asks():
    run = run_of("tasks", "updates", "values")
    view.paused(run, task_of(run, interrupts=(ASKED,)))
    (_, first, asked), (_, second, payload), (_, third, result) = chunks_of(run)
    assert (first, asked) == ("updates", {INTERRUPT: (ASKED,)})
    assert (second, payload.value, payload.interrupts) == ("values", {"log": []}, (ASKED,))
    assert (third, result["interrupts"], result["result"]) == ("tasks", [{"value": "?", "id": "0" * 32}], {})
    assert run.emitted is LATER


def test_a_task_that_asks_and_nobody_listens():
    run = run_of("debug")
    view.paused(run, task_of(run, interrupts=(ASKED,)))
    assert [mode for _, mode, _ in chunks_of(run)] == ["debug"]
    assert run.emitted is LATER


def test_a_task_that_stopped_without_a_question():
    run = run_of("tasks", "updates", "values")
    view.paused(run, task_of(run))
    assert [mode for _, mode, _ in chunks_of(run)] == ["tasks"]
    assert run.emitted is MISSING


# ---- checkpoints


def planned(run, *tasks):
    run.tasks = list(tasks)
    view.checkpoint(run)
    return chunks_of(run).of("checkpoints")[0]


class Graph:
    """A nested graph as a node's spec names it."""

    def __init__(self, checkpointer=None):
        self.checkpointer = checkpointer


def test_a_checkpoint_event():
    loaded = dummy_loaded(values={"x": 1}, parent_id="p", source="loop", step=4)
    run = run_of(
        "checkpoints", "debug", loaded=loaded, stored_metadata={"user": 1}, configurable={"thread_id": THREAD, "k": 2}
    )
    a, b = task_of(run, writes=[("y", 1), ("log", [1])]), task_of(run, "b", error=OSError("boom"))
    c = task_of(run, interrupts=(ASKED,))
    payload = planned(run, a, b, c)
    assert payload == {
        "config": {"configurable": {"thread_id": THREAD, "k": 2, "checkpoint_ns": "", "checkpoint_id": "stored-0"}},
        "parent_config": {"configurable": {"thread_id": THREAD, "k": 2, "checkpoint_ns": "", "checkpoint_id": "p"}},
        "values": {"x": 1, "log": []},
        "metadata": {"user": 1, "source": "loop", "step": 4, "parents": {}},
        "next": ["a", "b", "a"],
        "tasks": [
            {"id": run.id_of(a), "name": "a", "result": {"y": 1, "log": [1]}, "interrupts": (), "state": None},
            {"id": run.id_of(b), "name": "b", "error": b.error, "state": None},
            {"id": run.id_of(c), "name": "a", "interrupts": ({"value": "?", "id": "0" * 32},), "state": None},
        ],
    }
    (event,) = chunks_of(run).of("debug")
    assert (event["type"], event["step"], event["payload"]) == ("checkpoint", 4, payload)


def test_checkpoints_are_built_for_listeners_only():
    run = run_of("updates", loaded=dummy_loaded(values={"x": 1}))
    view.checkpoint(run)
    assert chunks_of(run) == []
    run = run_of("debug", loaded=dummy_loaded(values={"x": 1}))
    view.checkpoint(run)
    assert [mode for _, mode, _ in chunks_of(run)] == ["debug"]


def test_the_first_checkpoint_has_no_parent():
    assert planned(run_of("checkpoints", stores=True))["parent_config"] is None


def test_addresses_name_the_checkpoints_around_and_no_internals():
    outer = run_of(loaded=dummy_loaded(values={"x": 1}))
    run = run_of(
        "checkpoints",
        loaded=dummy_loaded(values={"x": 1}, checkpoint_id="inner", checkpoint_ns="a:1"),
        ns="a:1",
        parent=TaskScope(outer, task_of(outer), None),
        parent_run=outer,
        configurable={"__pregel_x": 1, "checkpoint_map": {"old": "x"}, "k": 1},
    )
    assert planned(run)["config"]["configurable"] == {
        "k": 1,
        "thread_id": THREAD,
        "checkpoint_ns": "a:1",
        "checkpoint_id": "inner",
        "checkpoint_map": {"": "stored-0", "a:1": "inner"},
    }


def test_an_address_without_a_thread():
    run = run_of("checkpoints")
    assert planned(run)["config"]["configurable"] == {"checkpoint_ns": "", "checkpoint_id": run.checkpoint_id}


@pytest.mark.parametrize(("moved", "parent"), [(False, "p"), (True, "stored-0")])
def test_with_deferred_storing_the_parent_is_the_one_that_will_be_stored(moved, parent):
    run = run_of("checkpoints", loaded=dummy_loaded(values={"x": 1}, parent_id="p"), deferred=True)
    if moved:
        run.number(1)
    assert planned(run)["parent_config"]["configurable"]["checkpoint_id"] == parent


def test_deferred_storing_on_an_empty_thread():
    run = run_of("checkpoints", loaded=dummy_loaded(), deferred=True)
    run.number(-1)
    assert planned(run)["parent_config"] is None


def test_results_in_snapshots():
    run = run_of()
    assert view.bare_result(run, task_of(run, writes=[("y", 1)])) == {"y": 1}
    assert view.bare_result(run, task_of(run, writes=[("y", 1), (RETURN, 3)])) == 3
    single = dummy_run(dummy_program(stream_channels="y"))
    assert view.bare_result(single, task_of(single, writes=[("y", 1), ("x", 2)])) == 1
    assert view.bare_result(single, task_of(single, writes=[("x", 2)])) is None


@pytest.mark.parametrize(
    ("graphs", "ns"),
    [
        ([], None),
        ([Graph(False)], None),
        ([Graph()], "a:{id}"),
        ([Graph(False), Graph(True)], "a:{id}"),
        ([Graph("saver"), Graph(True)], "a:{id}"),
    ],
)
def test_where_a_nested_graph_keeps_its_state(graphs, ns):
    run = run_of(nodes={"a": node("x", subgraphs=graphs)}, stores=True)
    task = task_of(run)
    found = view.nested_config(run, task)
    if ns is None:
        assert found is None
    else:
        expected = ns.format(id=run.id_of(task))
        assert found == {"configurable": {"thread_id": THREAD, "checkpoint_ns": expected}}


# ---- the config of a task


def test_the_config_of_a_task():
    run = run_of(
        nodes={"a": node("x", tags=["n"], metadata={"own": 1, "user": 9})},
        loaded=dummy_loaded(values={"x": 1}),
        config={
            "tags": ["t"],
            "metadata": {"user": 1},
            "callbacks": ["c"],
            "recursion_limit": 7,
            "run_name": "not for nodes",
        },
        configurable={"thread_id": THREAD, "k": 2, "checkpoint_id": "old"},
    )
    run.step = 3
    task = task_of(run)
    scope = TaskScope(run, task, None)
    assert view.config(run, scope) == {
        "tags": ["t", "n"],
        "metadata": {
            "user": 9,
            "own": 1,
            "thread_id": THREAD,
            "checkpoint_id": "old",
            "langgraph_step": 3,
            "langgraph_node": "a",
            "langgraph_triggers": ("x",),
            "langgraph_path": ("__pregel_pull", "a"),
            "langgraph_checkpoint_ns": run.ns_of(task),
        },
        "callbacks": ["c"],
        "configurable": {
            "thread_id": THREAD,
            "k": 2,
            SCOPE_KEY: scope,
            "checkpoint_ns": run.ns_of(task),
            "checkpoint_id": None,
            "checkpoint_map": {"": "stored-0"},
        },
        "recursion_limit": 7,
    }


def test_given_metadata_wins_over_what_is_propagated():
    run = run_of(config={"metadata": {"thread_id": "mine"}}, configurable={"thread_id": "t", "run_id": None})
    found = view.metadata(run, task_of(run))
    assert found["thread_id"] == "mine"
    assert "run_id" not in found


def test_the_dummy_outlet_keeps_modes_apart():
    chunks = Chunks()
    chunks.append(((), "values", 1))
    chunks.append(((), "updates", 2))
    assert (chunks.of("values"), chunks.of("updates")) == ([1], [2])


def test_ephemeral_outputs_are_left_out_when_empty():
    run = run_of(channels={"x": LastValue(int), "y": EphemeralValue(int)}, output_channels=["x", "y"])
    assert view.outputs(run) == {}
