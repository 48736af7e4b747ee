"""What is stored and how it is read, edited and forked: durability and the state calls (engine.md 7)."""

import operator
import uuid
from datetime import datetime
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from checkpoint.memory import InMemorySaver
from pregel.channels import LastValue
from pregel.errors import InvalidUpdateError
from pregel.graph import START, StateGraph
from pregel.pregel import NodeBuilder, Pregel
from pregel.types import Command, Overwrite, PregelTask, Send, StateSnapshot, StateUpdate, interrupt
from tests.support.scenarios import Colour, Log, LogX, checkpoint_id, refused, steps


def chain(colour: Colour, saver: Any, names: str = "ab", calls: list[str] | None = None, **options: Any) -> Any:
    builder = StateGraph(Log)
    before = START
    for name in names:
        builder.add_node(name, colour.letter(name, calls)).add_edge(before, name)
        before = name
    return builder.compile(checkpointer=saver, **options)


def failing_chain(colour: Colour, saver: Any, failing: list[bool], calls: list[str] | None = None) -> Any:
    """START → ok and bad side by side → end; `bad` fails while `failing` is non-empty."""

    def bad(state: Log) -> dict[str, Any]:
        if failing:
            raise ValueError("boom")
        return {"l": ["bad"]}

    builder = StateGraph(Log).add_node("bad", colour.node(bad)).add_node("first", colour.letter("first", calls))
    builder.add_node("end", colour.letter("end"))
    builder.add_edge(START, "first").add_edge("first", "bad").add_edge("bad", "end")
    return builder.compile(checkpointer=saver)


# ------------------------------------------------------------------------------------------- checkpoints of a run


def test_checkpoints_of_two_runs(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, saver)
    colour.invoke(graph, {"l": ["1"]}, thread)
    colour.invoke(graph, {"l": ["2"]}, thread)
    history = colour.history(graph, thread)
    assert steps(history) == [
        ("loop", 6),
        ("loop", 5),
        ("loop", 4),
        ("input", 3),
        ("loop", 2),
        ("loop", 1),
        ("loop", 0),
        ("input", -1),
    ]
    assert [s.next for s in history[4:]] == [(), ("b",), ("a",), ("__start__",)]
    assert [s.values["l"] for s in history] == [
        ["1", "a", "b", "2", "a", "b"],
        ["1", "a", "b", "2", "a"],
        ["1", "a", "b", "2"],
        ["1", "a", "b"],
        ["1", "a", "b"],
        ["1", "a"],
        ["1"],
        [],
    ]
    assert [s.parent_config for s in history] == [s.config for s in history[1:]] + [None]


@pytest.mark.parametrize(("durability", "count"), [("sync", 4), ("async", 4), ("exit", 1)], indirect=["durability"])
def test_durability_and_history(colour: Colour, saver: Any, thread: Any, durability: Any, count: int) -> None:
    graph = chain(colour, saver)
    assert colour.invoke(graph, {"l": []}, thread, durability=durability) == {"l": ["a", "b"]}
    history = colour.history(graph, thread)
    assert len(history) == count
    assert (history[0].values, history[0].metadata["step"]) == ({"l": ["a", "b"]}, 2)


def test_durability_is_inherited_by_nested_graphs(colour: Colour, saver: Any, thread: Any) -> None:
    inner = StateGraph(Log).add_node("i", colour.letter("i")).add_edge(START, "i").compile()
    graph = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread, durability="exit")
    assert len(list(saver.list(thread))) == 1


@pytest.mark.parametrize("durability", ["async", "exit"], indirect=True)
def test_durability_without_a_saver_warns(colour: Colour, durability: Any) -> None:
    with pytest.warns(UserWarning, match="durability"):
        assert colour.invoke(chain(colour, None), {"l": []}, durability=durability) == {"l": ["a", "b"]}


@pytest.mark.differs("engine.md 11, row 6: only a warning, in sync durability too", partly=True)
@pytest.mark.parametrize("durability", ["sync"], indirect=True)
def test_sync_durability_without_a_saver_warns(colour: Colour, durability: Any) -> None:
    with pytest.warns(UserWarning, match="durability"):
        assert colour.invoke(chain(colour, None), {"l": []}, durability=durability) == {"l": ["a", "b"]}


def test_that_warning_names_the_line_of_the_call() -> None:
    graph = chain(Colour("sync"), None)
    for call in (graph.invoke, lambda *given, **how: list(graph.stream(*given, **how))):
        with pytest.warns(UserWarning, match="durability") as caught:
            call({"l": []}, durability="exit")
        assert [warning.filename for warning in caught] == [__file__]


def test_metadata_is_merged_from_config(colour: Colour, saver: Any) -> None:
    config: Any = {
        "configurable": {"thread_id": "1", "n": 1, "__hidden": 1, "obj": object()},
        "metadata": {"s": "v", "b": True, "foo": "bar", "deep": {"x": 1}, "step": 99},
    }
    colour.invoke(chain(colour, saver), {"l": []}, config)
    entry = saver.get_tuple({"configurable": {"thread_id": "1"}})
    assert entry.metadata == {
        "source": "loop",
        "step": 2,
        "parents": {},
        "s": "v",
        "b": True,
        "foo": "bar",
        "n": 1,
    }


def test_thread_id_of_any_type(colour: Colour, saver: Any) -> None:
    """amendments A40."""
    graph = chain(colour, saver, "a")
    own = uuid.uuid4()
    for given in (1, own):
        colour.invoke(graph, {"l": []}, {"configurable": {"thread_id": given}})
        state = colour.get_state(graph, {"configurable": {"thread_id": str(given)}})
        assert state.values == {"l": ["a"]}
        assert state.config["configurable"]["thread_id"] == str(given)


# ------------------------------------------------------------------------------------------------------- snapshots


def test_fields_of_a_snapshot(colour: Colour, saver: Any, thread: Any) -> None:
    assert StateSnapshot._fields == (
        "values",
        "next",
        "config",
        "metadata",
        "created_at",
        "parent_config",
        "tasks",
        "interrupts",
    )
    graph = chain(colour, saver)
    colour.invoke(graph, {"l": []}, thread, interrupt_before=["b"])
    state = colour.get_state(graph, thread)
    assert set(state.config["configurable"]) == {"thread_id", "checkpoint_ns", "checkpoint_id"}
    assert state.metadata == {"source": "loop", "step": 1, "parents": {}}
    assert datetime.fromisoformat(state.created_at).tzinfo is not None
    (task,) = state.tasks
    assert task == PregelTask(task.id, "b", ("__pregel_pull", "b"), None, (), None, None)


def test_next_is_in_definition_order(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(Log)
    for name in ("z", "m", "a"):
        builder.add_node(name, colour.letter(name)).add_edge(START, name)
    graph = builder.compile(checkpointer=saver, interrupt_before="*")
    colour.invoke(graph, {"l": []}, thread)
    assert colour.get_state(graph, thread).next == ("z", "m", "a")


def test_results_of_finished_tasks(colour: Colour, saver: Any, thread: Any) -> None:
    def ask(state: LogX) -> dict[str, Any]:
        return {"l": [interrupt("q")]}

    builder = StateGraph(LogX).add_node("ask", colour.node(ask))
    builder.add_node("none", colour.node(lambda state: None)).add_node("two", colour.node(lambda s: {"l": [2], "x": 2}))
    builder.add_node("again", colour.node(lambda s: [{"l": [3]}, Command(update={"l": [4]})]))
    for name in ("ask", "none", "two", "again"):
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    state = colour.get_state(graph, thread)
    assert {task.name: task.result for task in state.tasks} == {
        "ask": None,
        "none": {},
        "two": {"l": [2], "x": 2},
        "again": {"l": {"$writes": [[3], [4]]}},
    }
    assert (state.values, state.next) == ({"l": [3, 4, 2], "x": 2}, ("ask",))
    assert state.values == {"l": [3, 4, 2], "x": 2}


def test_snapshots_are_private_copies(colour: Colour, saver: Any, thread: Any) -> None:
    """amendments A38."""
    graph = chain(colour, saver)
    colour.invoke(graph, {"l": []}, thread)
    colour.get_state(graph, thread).values["l"].append("mine")
    colour.history(graph, thread)[0].values["l"].append("mine")
    saver.get_tuple(thread).checkpoint["channel_values"]["l"].append("mine")
    assert colour.get_state(graph, thread).values == {"l": ["a", "b"]}


def test_no_saver(colour: Colour, thread: Any) -> None:
    graph = chain(colour, None)
    for call in (
        lambda: colour.get_state(graph, thread),
        lambda: colour.history(graph, thread),
        lambda: colour.update_state(graph, thread, {"l": ["x"]}),
        lambda: colour.bulk_update_state(graph, thread, [[StateUpdate({"l": ["x"]}, "a")]]),
    ):
        with pytest.raises(ValueError):
            call()


def test_thread_requirements(colour: Colour, memory: Any) -> None:
    graph = chain(colour, memory)
    with refused(ValueError, "thread_id"):
        colour.invoke(graph, {"l": []})


@pytest.mark.differs("amendments Y7: a configurable without thread_id is a ValueError")
def test_missing_thread_id(colour: Colour, saver: Any) -> None:
    with refused(ValueError, "thread_id"):
        colour.invoke(chain(colour, saver), {"l": []}, {"configurable": {"mine": 1}})


def test_saver_errors_come_out_as_themselves(colour: Colour, thread: Any) -> None:
    """amendments A1, design.md D46 and D47."""

    class DiskFull(Exception): ...

    class Faulty(InMemorySaver):
        def put(self, *args: Any, **kw: Any) -> Any:
            raise DiskFull

        async def aput(self, *args: Any, **kw: Any) -> Any:
            raise DiskFull

    with pytest.raises(DiskFull):
        colour.invoke(chain(colour, Faulty()), {"l": []}, thread)


def test_a_graph_with_other_keys_reads_the_thread(colour: Colour, saver: Any, thread: Any) -> None:
    """amendments A2."""

    class Other(TypedDict, total=False):
        l: list[Any]  # noqa: E741 - a plain key now
        new: Annotated[list[Any], operator.add]

    colour.invoke(chain(colour, saver), {"l": ["in"]}, thread)
    builder = StateGraph(Other).add_node("n", colour.node(lambda state: {"new": ["n"]})).add_edge(START, "n")
    graph = builder.compile(checkpointer=saver)
    assert colour.get_state(graph, thread).values == {"l": ["in", "a", "b"], "new": []}
    assert colour.invoke(graph, {"new": ["1"]}, thread) == {"l": ["in", "a", "b"], "new": ["1", "n"]}


# ---------------------------------------------------------------------------------------------------- update_state


def test_update_on_a_fresh_thread(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, saver)
    returned = colour.update_state(graph, thread, {"l": ["u"]})
    assert set(returned["configurable"]) == {"thread_id", "checkpoint_ns", "checkpoint_id"}
    state = colour.get_state(graph, thread)
    assert (state.values, state.next) == ({"l": ["u"]}, ("a",))
    assert (state.metadata["source"], state.metadata["step"]) == ("update", 0)
    assert checkpoint_id(state.config) == checkpoint_id(returned)
    assert colour.invoke(graph, None, thread) == {"l": ["u", "a", "b"]}


@pytest.mark.parametrize(
    ("as_node", "values", "following"),
    [("a", {"l": ["u"]}, ("b",)), ("b", {"l": ["u"]}, ()), ("__start__", {"l": ["u"]}, ("a",)), ("a", None, ("b",))],
)
def test_update_as_a_node(colour: Colour, saver: Any, thread: Any, as_node: str, values: Any, following: Any) -> None:
    graph = chain(colour, saver)
    colour.update_state(graph, thread, values, as_node=as_node)
    state = colour.get_state(graph, thread)
    assert state.next == following
    assert state.values == {"l": ["u"] if values else []}


def test_update_after_a_run_is_as_the_last_node(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, saver)
    colour.invoke(graph, {"l": []}, thread)
    before = colour.get_state(graph, thread)
    colour.update_state(graph, thread, {"l": ["u"]})
    state = colour.get_state(graph, thread)
    assert (state.values, state.next) == ({"l": ["a", "b", "u"]}, ())
    assert state.parent_config == before.config
    assert state.metadata["step"] == 3


def test_ambiguous_update(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(Log).add_node("a", colour.letter("a")).add_node("b", colour.letter("b"))
    graph = builder.add_edge(START, "a").add_edge(START, "b").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    with refused(InvalidUpdateError, "as_node"):
        colour.update_state(graph, thread, {"l": ["u"]})
    colour.update_state(graph, thread, {"l": ["u"]}, as_node="a")
    assert colour.get_state(graph, thread).values == {"l": ["a", "b", "u"]}


def test_update_errors(colour: Colour, memory: Any, thread: Any) -> None:
    graph = chain(colour, memory)
    with refused(InvalidUpdateError, "zz"):
        colour.update_state(graph, thread, {"l": []}, as_node="zz")
    with refused(InvalidUpdateError, 5):
        colour.update_state(graph, thread, 5, as_node="a")
    with pytest.raises(ValueError):
        colour.bulk_update_state(graph, thread, [])
    with pytest.raises(ValueError):
        colour.bulk_update_state(graph, thread, [[StateUpdate({"l": ["x"]}, "a")], []])
    assert colour.history(graph, thread) == []  # amendments II.2 7.6: checked before anything is stored
    with refused(InvalidUpdateError, "as_node"):
        colour.bulk_update_state(graph, thread, [[StateUpdate({"l": ["x"]}, "a"), StateUpdate({"l": ["y"]})]])


def test_update_accepts_what_a_node_returns(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, saver, "abc")
    colour.invoke(graph, {"l": []}, thread)
    colour.update_state(graph, thread, Command(update={"l": ["u"]}, goto="a"), as_node="b")
    state = colour.get_state(graph, thread)
    assert (state.values, state.next) == ({"l": ["a", "b", "c", "u"]}, ("a", "c"))
    colour.update_state(graph, thread, {"l": Overwrite(["new"])}, as_node="c")
    assert colour.get_state(graph, thread).values == {"l": ["new"]}


def test_update_runs_the_branches_of_its_node(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(Log)
    for name in "abc":
        builder.add_node(name, colour.letter(name))
    builder.add_edge(START, "a")

    def path(state):  # type: ignore[no-untyped-def]
        return state.get("to", "b")

    builder.add_conditional_edges("a", colour.node(path), ["b", "c"])
    graph = builder.compile(checkpointer=saver)
    colour.update_state(graph, thread, {"l": ["u"]}, as_node="a")
    assert colour.get_state(graph, thread).next == ("b",)
    # amendments C8: extra keys of the values reach a path without a schema
    colour.update_state(graph, thread, {"l": ["u"], "to": "c"}, as_node="a")
    assert colour.get_state(graph, thread).next == ("c",)


def test_updates_for_parallel_tasks(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, saver, "ab")
    colour.bulk_update_state(graph, thread, [[StateUpdate({"l": ["x"]}, "b"), StateUpdate({"l": ["y"]}, "a")]])
    state = colour.get_state(graph, thread)
    assert (state.values, state.next) == ({"l": ["x", "y"]}, ("b",))


def test_update_shows_as_result_of_the_old_task(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, saver, interrupt_before=["b"])
    colour.invoke(graph, {"l": []}, thread)
    colour.update_state(graph, thread, {"l": ["instead"]}, as_node="b")
    old = colour.history(graph, thread)[1]
    assert [(task.name, task.result) for task in old.tasks] == [("b", {"l": ["instead"]})]
    assert colour.get_state(graph, thread).next == ()


def test_update_as_input(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, saver)
    colour.update_state(graph, thread, {"l": ["in"]}, as_node="__input__")
    state = colour.get_state(graph, thread)
    assert state.next == ("__start__",)
    assert (state.metadata["source"], state.metadata["step"]) == ("input", -1)
    assert colour.invoke(graph, None, thread) == {"l": ["in", "a", "b"]}
    updates = [StateUpdate({"l": ["1"]}, "__input__"), StateUpdate({"l": ["2"]}, "__input__")]
    with pytest.raises(InvalidUpdateError):
        colour.bulk_update_state(graph, thread, [updates])


def test_copy_is_a_sibling(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, saver, interrupt_before=["b"])
    with pytest.raises(InvalidUpdateError):
        colour.update_state(graph, thread, None, as_node="__copy__")
    colour.invoke(graph, {"l": []}, thread)
    old = colour.get_state(graph, thread)
    copied = colour.update_state(graph, thread, None, as_node="__copy__")
    state = colour.get_state(graph, copied)
    assert (state.values, state.next) == (old.values, old.next)
    assert (state.metadata["source"], state.metadata["step"]) == ("fork", 2)
    assert state.parent_config == old.parent_config
    assert checkpoint_id(state.config) != checkpoint_id(old.config)


def test_bulk_update_makes_one_checkpoint_per_superstep(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, saver, "abc")
    colour.bulk_update_state(
        graph, thread, [[StateUpdate({"l": ["1"]}, "a")], [StateUpdate({"l": ["2"]}, "b")], [StateUpdate(None, "c")]]
    )
    history = colour.history(graph, thread)
    assert [s.values["l"] for s in history] == [["1", "2"], ["1", "2"], ["1"]]
    assert [s.next for s in history] == [(), ("c",), ("b",)]
    assert steps(history) == [("update", 2), ("update", 1), ("update", 0)]
    assert [s.parent_config for s in history] == [history[1].config, history[2].config, None]


def test_update_discards_queued_sends(colour: Colour, saver: Any, thread: Any) -> None:
    """amendments A37."""
    builder = StateGraph(Log).add_node("w", colour.node(lambda arg: {"l": [arg]})).add_node("a", colour.letter("a"))
    builder.add_conditional_edges(START, lambda state: [Send("w", 1), Send("w", 2)])
    graph = builder.compile(checkpointer=saver, interrupt_before=["w"])
    colour.invoke(graph, {"l": []}, thread)
    assert colour.get_state(graph, thread).next == ("w", "w")
    colour.update_state(graph, thread, {"l": ["u"]}, as_node="a")
    assert colour.get_state(graph, thread).next == ()


def test_update_of_a_hand_made_graph(colour: Colour, memory: Any, thread: Any) -> None:
    graph = Pregel(
        nodes={"n": NodeBuilder().subscribe_only("a").do(colour.node(lambda x: x + 1)).write_to("out")},
        channels={"a": LastValue(int), "out": LastValue(int)},
        input_channels="a",
        output_channels="out",
        checkpointer=memory,
    )
    colour.invoke(graph, 1, thread)
    colour.update_state(graph, thread, 10)
    assert colour.get_state(graph, thread).values == {"a": 1, "out": 10}


# -------------------------------------------------------------------------------------------------------- time travel


def test_replay_of_the_head_of_a_finished_thread(colour: Colour, saver: Any, thread: Any) -> None:
    calls: list[str] = []
    graph = chain(colour, saver, calls=calls)
    colour.invoke(graph, {"l": []}, thread)
    final = colour.get_state(graph, thread)
    count = len(colour.history(graph, thread))
    assert colour.invoke(graph, None, thread) == {"l": ["a", "b"]}
    assert len(colour.history(graph, thread)) == count
    assert colour.invoke(graph, None, final.config) == {"l": ["a", "b"]}
    assert calls == ["a", "b"]
    newest = colour.history(graph, thread)[0]
    assert (newest.metadata["source"], newest.parent_config) == ("fork", final.config)


def test_failed_first_node_and_new_input(colour: Colour, saver: Any, thread: Any) -> None:
    """amendments II.2 7.4."""
    failing = [True]

    def n(state: Log) -> dict[str, Any]:
        if failing:
            raise ValueError("boom")
        return {"l": ["n"]}

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(checkpointer=saver)
    with refused(ValueError, "boom"):
        colour.invoke(graph, {"l": ["1"]}, thread)
    failing.clear()
    assert colour.invoke(graph, {"l": ["2"]}, thread) == {"l": ["1", "2", "n"]}
    history = colour.history(graph, thread)
    assert len(history) == 5
    assert [task.error for s in history for task in s.tasks if task.error] == ["ValueError('boom')"]


def test_a_second_failure_adds_no_checkpoint(colour: Colour, saver: Any, thread: Any) -> None:
    """amendments A39."""
    failing = [True]
    graph = failing_chain(colour, saver, failing)
    with refused(ValueError, "boom"):
        colour.invoke(graph, {"l": []}, thread)
    count = len(colour.history(graph, thread))
    with refused(ValueError, "boom"):
        colour.invoke(graph, None, thread)
    assert len(colour.history(graph, thread)) == count
    failing.clear()
    colour.invoke(graph, None, thread)
    task = next(task for s in colour.history(graph, thread) for task in s.tasks if task.name == "bad")
    assert (task.error, task.result) == ("ValueError('boom')", {"l": ["bad"]})
