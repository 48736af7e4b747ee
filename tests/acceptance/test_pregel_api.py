"""The public face of a graph: hand-made graphs, input and output mapping, stream modes and shapes (engine.md 3)."""

import dataclasses
import gc
import operator
import threading
import typing
import warnings
import weakref
from datetime import datetime
from typing import Annotated, Any, NotRequired, Optional

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from pregel.channels import BinaryOperatorAggregate, EphemeralValue, LastValue, Topic
from pregel.config import get_stream_writer
from pregel.errors import EmptyInputError, GraphRecursionError, InvalidUpdateError
from pregel.graph import START, StateGraph
from pregel.pregel import NodeBuilder, Pregel
from pregel.runtime import Runtime
from pregel.types import Command, GraphOutput, Send, StreamWriter, interrupt
from pregel.warnings import PregelWarning
from tests.support.scenarios import Colour, Gate, Log, LogX, checkpoint_id, diagnosed, path_of, refused

# ------------------------------------------------------------------------------------------------------- NodeBuilder


def hand_made(
    nodes: dict[str, Any], channels: str = "a b c out", *, into: Any = "a", out: Any = "out", **options: Any
) -> Any:
    """A graph over plain channels."""
    options.setdefault("auto_validate", True)
    return Pregel(
        nodes=nodes,
        channels={name: LastValue(Any) for name in channels.split()},  # type: ignore[arg-type]
        input_channels=into,
        output_channels=out,
        **options,
    )


def plus(colour: Colour, amount: int) -> Any:
    return colour.node(lambda x: x + amount)


def test_single_subscription_gets_the_bare_value(colour: Colour) -> None:
    graph = hand_made({"n": NodeBuilder().subscribe_only("a").do(plus(colour, 1)).write_to("out")})
    assert colour.invoke(graph, 1) == 2


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: NodeBuilder().subscribe_to("a", "b").read_from("c"), {"a": 1}),
        (lambda: NodeBuilder().subscribe_to("a"), {"a": 1}),
        (lambda: NodeBuilder().subscribe_to("a", read=False), {}),
        (lambda: NodeBuilder().subscribe_to("a", read=False).read_from("a"), {"a": 1}),
        (lambda: NodeBuilder().subscribe_only("a"), 1),
    ],
)
def test_what_a_node_reads(colour: Colour, build: Any, expected: Any) -> None:
    seen: list[Any] = []
    node = build().do(colour.node(lambda given: seen.append(given) or 0)).write_to("out")
    colour.invoke(hand_made({"n": node}, into=["a", "b", "c"]), {"a": 1})
    assert seen == [expected]


def test_reading_is_not_a_trigger(colour: Colour) -> None:
    first = NodeBuilder().subscribe_only("a").do(plus(colour, 1)).write_to("b")
    second = NodeBuilder().subscribe_to("c").read_from("b").do(colour.node(lambda given: given)).write_to("out")
    graph = hand_made({"first": first, "second": second})
    assert colour.invoke(graph, 1) is None


def test_subscription_errors() -> None:
    with pytest.raises(ValueError):
        NodeBuilder().subscribe_to("a").subscribe_only("b")
    with pytest.raises(ValueError):
        NodeBuilder().subscribe_only("a").subscribe_only("b")
    with pytest.raises(ValueError):
        NodeBuilder().subscribe_only("a").subscribe_to("b")
    with pytest.raises(AssertionError):
        NodeBuilder().subscribe_only("a").read_from("b")
    with pytest.raises(TypeError):
        NodeBuilder().subscribe_only("a").do(5)  # type: ignore[arg-type]


def test_what_a_node_writes(colour: Colour) -> None:
    node = NodeBuilder().subscribe_only("a").do(plus(colour, 1)).write_to("b", c="constant", out=lambda x: x * 10)
    graph = hand_made({"n": node}, out=["b", "c", "out"])
    assert colour.invoke(graph, 1) == {"b": 2, "c": "constant", "out": 20}


def test_a_positional_channel_is_written_even_with_none(colour: Colour) -> None:
    node = NodeBuilder().subscribe_only("a").do(colour.node(lambda x: None)).write_to("b")
    after = NodeBuilder().subscribe_to("b").do(colour.node(lambda given: given)).write_to("out")
    assert colour.invoke(hand_made({"n": node, "after": after}), 1) == {"b": None}


def test_a_second_do_composes_and_order_of_calls_does_not_matter(colour: Colour) -> None:
    """amendments A4."""
    node = NodeBuilder().subscribe_only("a").do(plus(colour, 1)).write_to("out").do(colour.node(lambda x: x * 10))
    assert colour.invoke(hand_made({"n": node}), 1) == 20


def test_no_do_copies(colour: Colour) -> None:
    """amendments A5."""
    assert colour.invoke(hand_made({"n": NodeBuilder().subscribe_only("a").write_to("out")}), 1) == 1


def test_bound_without_writes_reports_none(colour: Colour) -> None:
    graph = hand_made({"n": NodeBuilder().subscribe_only("a").do(plus(colour, 1))})
    assert colour.stream(graph, 1, stream_mode="updates") == [{"n": None}]


def test_nothing_to_do_changes_nothing(colour: Colour) -> None:
    graph = hand_made({"n": NodeBuilder().subscribe_only("a")})
    assert colour.invoke(graph, 1) is None


def test_writing_to_the_task_channel_by_name_is_refused(colour: Colour) -> None:
    def build_and_run() -> None:
        node = NodeBuilder().subscribe_only("a").do(plus(colour, 1)).write_to("__pregel_tasks")
        colour.invoke(hand_made({"n": node}), 1)

    with pytest.raises(InvalidUpdateError):
        build_and_run()


def test_tags_and_metadata_of_a_node(colour: Colour) -> None:
    seen: list[Any] = []

    def n(x: int, config: Any) -> int:
        seen.append(config)
        return x

    n.__annotations__.pop("config")
    node = NodeBuilder().subscribe_only("a").do(colour.node(n)).write_to("out").meta("tag", team="blue")
    colour.invoke(hand_made({"n": node}), 1, {"tags": ["mine"]})
    assert "tag" in seen[0]["tags"]
    assert "mine" in seen[0]["tags"]
    assert seen[0]["metadata"]["team"] == "blue"


def test_loop_of_a_hand_made_graph(colour: Colour) -> None:
    def route(x: int) -> int:
        return x + 1

    node = NodeBuilder().subscribe_only("a").do(colour.node(route)).write_to("out", a=lambda x: x)
    graph = hand_made({"n": node})
    with refused(GraphRecursionError, 5):
        colour.invoke(graph, 0, {"recursion_limit": 5})


def test_limit_of_a_hand_made_graph(colour: Colour) -> None:
    """engine.md 2.4: no hidden start step, so L supersteps finish with limit L."""
    nodes = {
        "one": NodeBuilder().subscribe_only("a").do(plus(colour, 1)).write_to("b"),
        "two": NodeBuilder().subscribe_only("b").do(plus(colour, 1)).write_to("out"),
    }
    assert colour.invoke(hand_made(nodes), 0, {"recursion_limit": 2}) == 2
    with refused(GraphRecursionError, 1):
        colour.invoke(hand_made(nodes), 0, {"recursion_limit": 1})


# ------------------------------------------------------------------------------------------------------- constructor


def copier() -> Any:
    return NodeBuilder().subscribe_only("a").write_to("out")


def test_constructor_errors() -> None:
    with refused(ValueError, "zz"):
        hand_made({"n": NodeBuilder().subscribe_only("zz").write_to("out")})
    with refused(ValueError, "zz"):
        hand_made({"n": NodeBuilder().subscribe_to("a").read_from("zz").write_to("out")})
    with refused(ValueError, "zz"):
        hand_made({"n": copier()}, into="zz")
    with refused(ValueError, "b"):
        hand_made({"n": copier()}, into="b")
    with refused(ValueError, "zz"):
        hand_made({"n": copier()}, into=["a", "zz"])
    with refused(ValueError, "b", "c"):
        hand_made({"n": copier()}, into=["b", "c"])
    with refused(ValueError, "zz"):
        hand_made({"n": copier()}, out="zz")
    with refused(ValueError, "zz"):
        hand_made({"n": copier()}, out=["out", "zz"])
    with refused(ValueError, "zz"):
        hand_made({"n": copier()}, stream_channels=["zz"])
    with refused(ValueError, "zz"):
        hand_made({"n": copier()}, interrupt_before_nodes=["zz"])
    with refused(ValueError, "zz"):
        hand_made({"n": copier()}, interrupt_after_nodes=["zz"])
    with pytest.raises(TypeError):
        hand_made({"n": copier()}, checkpointer="memory").invoke(1)


@pytest.mark.parametrize("name", ["__interrupt__", "__resume__", "__error__", "__input__", "checkpoint_id", "|", ":"])
def test_reserved_names(name: str) -> None:
    with refused(ValueError, name):
        hand_made({"n": copier()}, f"a out {name}")
    with refused(ValueError, name):
        hand_made({name: copier()})


def test_task_channel_is_reserved() -> None:
    with refused(ValueError, "__pregel_tasks"):
        hand_made({"n": copier()}, "a out __pregel_tasks")


def test_unvalidated_until_asked() -> None:
    graph = hand_made({"n": copier()}, out="zz", auto_validate=False)
    with refused(ValueError, "zz"):
        graph.validate()


# ----------------------------------------------------------------------------------------------------- input, output


def test_input_to_one_channel(colour: Colour) -> None:
    graph = hand_made({"n": copier()})
    assert colour.invoke(graph, {"a": 1}) == {"a": 1}
    assert colour.invoke(graph, 0) == 0
    with refused(EmptyInputError, "a"):
        colour.invoke(graph, None)


def test_input_to_several_channels(colour: Colour) -> None:
    node = NodeBuilder().subscribe_to("a", "b").do(colour.node(lambda given: sorted(given))).write_to("out")
    graph = hand_made({"n": node}, into=["a", "b"])
    assert colour.invoke(graph, {"b": 1, "a": 2}) == ["a", "b"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PregelWarning)  # whether this one is worth a warning is left open
        assert colour.invoke(graph, {"b": 1, "zz": 2}) == ["b"]
    with refused(EmptyInputError, "a", "b"):
        colour.invoke(graph, {})
    with refused(EmptyInputError, "a", "b"):
        colour.invoke(graph, {"zz": 1})
    with pytest.raises(TypeError):
        colour.invoke(graph, 5)


def test_empty_input_of_a_state_graph(colour: Colour) -> None:
    class X(TypedDict, total=False):
        x: int

    graph = StateGraph(X).add_node("n", colour.node(lambda state: None)).add_edge(START, "n").compile()
    assert colour.invoke(graph, {}) is None
    assert colour.stream(graph, {}, stream_mode="updates") == [{"n": None}]
    with refused(EmptyInputError, "__start__"):
        colour.invoke(graph, None)


def test_output_defaults_differ_between_invoke_and_stream(colour: Colour) -> None:
    graph = hand_made({"n": NodeBuilder().subscribe_only("a").do(plus(colour, 1)).write_to("out")}, "a out")
    assert colour.invoke(graph, 2) == 3
    # amendments A16: applying the input emits nothing, the first chunk has the input channel too
    assert colour.stream(graph, 2, stream_mode="values") == [{"a": 2, "out": 3}]


@pytest.mark.differs("engine.md 11, row 11: internal channels are not streamed")
def test_pending_sends_are_not_in_default_streams(colour: Colour, memory: Any, thread: Any) -> None:
    graph = hand_made({"n": copier()}, "a out", checkpointer=memory)
    colour.invoke(graph, 1, thread)
    chunks = colour.stream(graph, Command(goto=Send("n", 5)), thread, stream_mode="values")
    assert chunks == [{"a": 1, "out": 1}, {"a": 1, "out": 5}]


def test_output_keys(colour: Colour) -> None:
    node = NodeBuilder().subscribe_only("a").do(plus(colour, 1)).write_to("b", "out")
    graph = hand_made({"n": node})
    assert colour.invoke(graph, 1, output_keys="b") == 2
    assert colour.invoke(graph, 1, output_keys=["b", "c", "out"]) == {"b": 2, "out": 2}
    assert colour.stream(graph, 1, output_keys="b", stream_mode="updates") == [{"n": 2}]
    assert colour.stream(graph, 1, output_keys=["b"], stream_mode="values") == [{"b": 2}]
    with refused(ValueError, "zz"):
        colour.invoke(graph, 1, output_keys="zz")


# ---------------------------------------------------------------------------------------------------- modes, payloads


def ab(colour: Colour, **options: Any) -> Any:
    builder = StateGraph(LogX).add_node("a", colour.letter("a")).add_node("b", colour.letter("b"))
    return builder.add_edge(START, "a").add_edge("a", "b").compile(**options)


def test_invoke_with_each_mode(colour: Colour) -> None:
    graph = ab(colour)
    assert colour.invoke(graph, {"l": []}) == {"l": ["a", "b"]}
    assert colour.invoke(graph, {"l": []}, stream_mode="updates") == [{"a": {"l": ["a"]}}, {"b": {"l": ["b"]}}]
    assert colour.invoke(graph, {"l": []}, stream_mode=["updates", "values"]) == colour.stream(
        graph, {"l": []}, stream_mode=["updates", "values"]
    )


def test_default_stream_modes(colour: Colour) -> None:
    assert colour.stream(ab(colour), {"l": []}) == [{"a": {"l": ["a"]}}, {"b": {"l": ["b"]}}]
    made = hand_made({"n": copier()}, "a out")
    assert colour.stream(made, 1) == [{"a": 1, "out": 1}]


def test_shapes_v1(colour: Colour) -> None:
    graph = ab(colour)
    value = {"l": ["a", "b"]}
    assert colour.stream(graph, {"l": []}, stream_mode="values")[-1] == value
    assert colour.stream(graph, {"l": []}, stream_mode=["values"])[-1] == ("values", value)
    assert colour.stream(graph, {"l": []}, stream_mode="values", subgraphs=True)[-1] == ((), value)
    assert colour.stream(graph, {"l": []}, stream_mode=["values"], subgraphs=True)[-1] == ((), "values", value)


@pytest.mark.differs("engine.md 11, row 12: any sequence of modes is a list of modes")
def test_a_tuple_of_modes_is_a_list_of_modes(colour: Colour) -> None:
    assert colour.stream(ab(colour), {"l": []}, stream_mode=("values",))[-1] == ("values", {"l": ["a", "b"]})


@pytest.mark.differs("engine.md 11, row 12: an unknown mode is refused")
def test_unknown_mode_is_refused(colour: Colour) -> None:
    with refused(ValueError, "valeus"):
        colour.stream(ab(colour), {"l": []}, stream_mode="valeus")


@pytest.mark.parametrize("mode", ["values", ["values"]])
@pytest.mark.parametrize("subgraphs", [True, False])
def test_shapes_v2(colour: Colour, mode: Any, subgraphs: bool) -> None:
    chunks = colour.stream(ab(colour), {"l": []}, stream_mode=mode, subgraphs=subgraphs, version="v2")
    assert chunks[-1] == {"type": "values", "ns": (), "data": {"l": ["a", "b"]}, "interrupts": ()}


def test_v2_updates_and_tasks(colour: Colour) -> None:
    chunks = colour.stream(ab(colour), {"l": []}, stream_mode=["updates", "tasks"], version="v2")
    assert [(c["type"], c["ns"]) for c in chunks] == [("tasks", ()), ("updates", ()), ("tasks", ())] * 2
    assert all(set(c) == {"type", "ns", "data"} for c in chunks)
    assert chunks[1]["data"] == {"a": {"l": ["a"]}}


def test_v2_interrupts_leave_the_data(colour: Colour, memory: Any, thread: Any) -> None:
    graph = asking(colour, memory)
    chunks = colour.stream(graph, {"l": ["in"]}, thread, stream_mode=["values", "updates"], version="v2")
    values = [c for c in chunks if c["type"] == "values"]
    assert [c["data"] for c in values] == [{"l": ["in"]}, {"l": ["in"]}]
    assert [[i.value for i in c["interrupts"]] for c in values] == [[], ["q"]]
    (update,) = [c["data"] for c in chunks if c["type"] == "updates"]
    assert [i.value for i in update["__interrupt__"]] == ["q"]


def asking(colour: Colour, saver: Any) -> Any:
    builder = StateGraph(Log).add_node("n", colour.node(lambda state: {"l": [interrupt("q")]}))
    return builder.add_edge(START, "n").compile(checkpointer=saver)


def test_invoke_v2(colour: Colour, memory: Any, thread: Any) -> None:
    graph = asking(colour, memory)
    first = colour.invoke(graph, {"l": ["in"]}, thread, version="v2")
    assert isinstance(first, GraphOutput)
    assert first.value == {"l": ["in"]}
    assert [i.value for i in first.interrupts] == ["q"]
    assert isinstance(first.interrupts, tuple)
    last = colour.invoke(graph, Command(resume="R"), thread, version="v2")
    assert last == GraphOutput(value={"l": ["in", "R"]}, interrupts=())
    with pytest.raises(dataclasses.FrozenInstanceError):
        last.value = None


def test_graph_output_as_a_dict_warns(colour: Colour) -> None:
    result = colour.invoke(ab(colour), {"l": []}, version="v2")
    with pytest.warns(DeprecationWarning, match="GraphOutput|value|interrupts"):
        assert result["l"] == ["a", "b"]
    with pytest.warns(DeprecationWarning, match="GraphOutput|value|interrupts"):
        assert "l" in result


class Model(BaseModel):
    x: int
    l: Annotated[list[Any], operator.add] = []  # noqa: E741


@dataclasses.dataclass
class Data:
    x: int


@pytest.mark.parametrize("schema", [Model, Data])
def test_v2_coerces_values_to_the_schema(colour: Colour, schema: Any) -> None:
    graph = StateGraph(schema).add_node("n", colour.node(lambda state: {"x": 2})).add_edge(START, "n").compile()
    assert colour.invoke(graph, {"x": 1}, version="v2").value == schema(x=2)
    chunks = colour.stream(graph, {"x": 1}, stream_mode="values", version="v2")
    assert [c["data"] for c in chunks] == [schema(x=1), schema(x=2)]
    assert colour.invoke(graph, {"x": 1})["x"] == 2


def test_updates_payloads(colour: Colour) -> None:
    builder = StateGraph(LogX)
    builder.add_node("none", colour.node(lambda state: None))
    builder.add_node("one", colour.node(lambda state: {"l": [1]}))
    builder.add_node("two", colour.node(lambda state: {"x": 1, "l": [2]}))
    builder.add_node("again", colour.node(lambda state: [Command(update={"l": [3]}), {"l": [4]}]))
    before = START
    for name in ("none", "one", "two", "again"):
        builder.add_edge(before, name)
        before = name
    graph = builder.compile()
    assert colour.stream(graph, {"l": []}, stream_mode="updates") == [
        {"none": None},
        {"one": {"l": [1]}},
        {"two": {"x": 1, "l": [2]}},
        {"again": [{"l": [3]}, {"l": [4]}]},
    ]
    results = [e["result"] for e in colour.stream(graph, {"l": []}, stream_mode="tasks") if "result" in e]
    assert results == [{}, {"l": [1]}, {"x": 1, "l": [2]}, {"l": {"$writes": [[3], [4]]}}]


def test_bare_state_payloads(colour: Colour, memory: Any, thread: Any) -> None:
    """amendments C2: keyed by channel in events, bare in snapshots."""
    graph = (
        StateGraph(Annotated[list[Any], operator.add])
        .add_node("n", colour.node(lambda state: ["n"]))
        .add_node("m", colour.node(lambda state: None))
        .add_edge(START, "n")
        .add_edge("n", "m")
        .compile(checkpointer=memory)
    )
    results = [e["result"] for e in colour.stream(graph, ["in"], thread, stream_mode="tasks") if "result" in e]
    assert results == [{"__root__": ["n"]}, {}]
    tasks = [task.result for entry in colour.history(graph, thread) for task in entry.tasks]
    assert tasks == [None, ["n"], ["in"]]


def test_values_only_after_an_output_key_was_written(colour: Colour) -> None:
    builder = StateGraph(LogX).add_node("a", colour.node(lambda state: None)).add_node("b", colour.letter("b"))
    graph = builder.add_edge(START, "a").add_edge("a", "b").compile()
    assert colour.stream(graph, {"l": ["in"]}, stream_mode="values") == [{"l": ["in"]}, {"l": ["in", "b"]}]


def test_custom_mode(colour: Colour) -> None:
    def a(state: Log, writer: StreamWriter) -> dict[str, Any]:
        writer("one")
        get_stream_writer()({"two": 2})
        return {"l": ["a"]}

    graph = StateGraph(Log).add_node("a", colour.node(a)).add_edge(START, "a").compile()
    assert colour.stream(graph, {"l": []}, stream_mode="custom") == ["one", {"two": 2}]
    assert colour.stream(graph, {"l": []}, stream_mode=["custom", "updates"]) == [
        ("custom", "one"),
        ("custom", {"two": 2}),
        ("updates", {"a": {"l": ["a"]}}),
    ]
    assert colour.invoke(graph, {"l": []}) == {"l": ["a"]}


def test_task_events(colour: Colour) -> None:
    graph = ab(colour)
    events = colour.stream(graph, {"l": ["in"]}, {"metadata": {"user": "u"}, "tags": ["t"]}, stream_mode="tasks")
    assert [list(e) for e in events[:2]] == [
        ["id", "name", "input", "triggers", "metadata"],
        ["id", "name", "error", "result", "interrupts"],
    ]
    start, end = events[:2]
    assert start["id"] == end["id"]
    assert (start["name"], start["input"], tuple(start["triggers"])) == ("a", {"l": ["in"]}, ("branch:to:a",))
    assert start["metadata"] == {"user": "u", "tags": ["t"]}
    assert (end["error"], end["result"], end["interrupts"]) == (None, {"l": ["a"]}, [])
    plain = colour.stream(graph, {"l": ["in"]}, stream_mode="tasks")
    assert "metadata" not in plain[0]


def test_task_results_do_not_depend_on_output_keys(colour: Colour) -> None:
    events = colour.stream(ab(colour), {"l": [], "x": 1}, stream_mode="tasks", output_keys=["x"])
    assert [e["result"] for e in events if "result" in e] == [{"l": ["a"]}, {"l": ["b"]}]


def test_interrupted_task_event(colour: Colour, memory: Any, thread: Any) -> None:
    """design.md D50: `response_schema` only when it is set."""
    events = colour.stream(asking(colour, memory), {"l": []}, thread, stream_mode="tasks")
    (asked,) = events[-1]["interrupts"]
    assert asked["value"] == "q"
    assert events[-1]["error"] is None


@pytest.mark.differs("design.md D50, amendments II.1 row 1")
def test_interrupts_in_events_have_two_keys(colour: Colour, memory: Any, thread: Any) -> None:
    events = colour.stream(asking(colour, memory), {"l": []}, thread, stream_mode="tasks")
    assert set(events[-1]["interrupts"][0]) == {"value", "id"}


def test_checkpoint_events(colour: Colour, memory: Any, thread: Any) -> None:
    graph = ab(colour, checkpointer=memory)
    config = {"configurable": {**thread["configurable"], "mine": "m"}}
    events = colour.stream(graph, {"l": ["in"]}, config, stream_mode="checkpoints")
    assert [list(e) for e in events] == [["config", "parent_config", "values", "metadata", "next", "tasks"]] * 4
    assert [e["next"] for e in events] == [["__start__"], ["a"], ["b"], []]
    assert [e["values"] for e in events] == [{"l": []}, {"l": ["in"]}, {"l": ["in", "a"]}, {"l": ["in", "a", "b"]}]
    assert [e["metadata"]["step"] for e in events] == [-1, 0, 1, 2]
    assert events[0]["parent_config"] is None
    # amendments A19: the caller's own keys are kept in events, not in snapshots
    ids = [checkpoint_id(e["config"]) for e in events]
    for event, own in zip(events, ids, strict=True):
        expected = {"thread_id": "1", "checkpoint_ns": "", "checkpoint_id": own, "mine": "m"}
        assert event["config"]["configurable"] == expected
    assert [checkpoint_id(e["parent_config"]) for e in events[1:]] == ids[:-1]
    history = colour.history(graph, config)
    assert [checkpoint_id(s.config) for s in history] == ids[::-1]
    assert set(history[0].config["configurable"]) == {"thread_id", "checkpoint_ns", "checkpoint_id"}
    (task,) = events[1]["tasks"]
    assert (task["name"], tuple(task["interrupts"]), task["state"]) == ("a", (), None)


def test_no_checkpoint_events_without_a_saver(colour: Colour) -> None:
    assert colour.stream(ab(colour), {"l": []}, stream_mode="checkpoints") == []


def test_stored_results_in_checkpoint_events_of_a_resume(colour: Colour, memory: Any, thread: Any) -> None:
    graph = asking(colour, memory)
    colour.invoke(graph, {"l": []}, thread)
    first, *_ = colour.stream(graph, Command(resume="R"), thread, stream_mode="checkpoints")
    (task,) = first["tasks"]
    assert [i["value"] for i in task["interrupts"]] == ["q"]


@pytest.mark.parametrize("durability", ["exit"], indirect=True)
def test_exit_events_name_no_parent_that_is_not_stored(
    colour: Colour, memory: Any, thread: Any, durability: Any
) -> None:
    """amendments C3, design.md D52."""
    graph = ab(colour, checkpointer=memory)
    events = colour.stream(graph, {"l": []}, thread, stream_mode="checkpoints", durability=durability)
    assert [e["parent_config"] for e in events] == [None] * 4
    assert checkpoint_id(events[-1]["config"]) == checkpoint_id(colour.get_state(graph, thread).config)


def test_debug_mode_wraps_both(colour: Colour, memory: Any, thread: Any) -> None:
    graph = ab(colour, checkpointer=memory)
    events = colour.stream(graph, {"l": []}, thread, stream_mode="debug")
    assert all(list(e) == ["step", "timestamp", "type", "payload"] for e in events)
    assert [(e["type"], e["step"]) for e in events] == [
        ("checkpoint", -1),
        ("checkpoint", 0),
        ("task", 1),
        ("task_result", 1),
        ("checkpoint", 1),
        ("task", 2),
        ("task_result", 2),
        ("checkpoint", 2),
    ]
    assert all(datetime.fromisoformat(e["timestamp"]).tzinfo is not None for e in events)
    assert set(events[2]["payload"]) == {"id", "name", "input", "triggers"}


def test_print_mode(colour: Colour, capsys: Any) -> None:
    graph = ab(colour)
    plain = colour.stream(graph, {"l": []}, stream_mode="values")
    capsys.readouterr()
    assert colour.stream(graph, {"l": []}, stream_mode="values", print_mode="updates") == plain
    printed = capsys.readouterr().out
    assert "[updates]" in printed
    assert repr({"a": {"l": ["a"]}}) in printed
    colour.invoke(graph, {"l": []}, print_mode=["values"])
    assert "[values]" in capsys.readouterr().out
    colour.stream(graph, {"l": []}, debug=True)
    printed = capsys.readouterr().out
    assert "[updates]" in printed
    assert "[values]" in printed


def test_order_of_modes_within_a_step(colour: Colour, memory: Any, thread: Any) -> None:
    graph = StateGraph(Log).add_node("a", colour.letter("a")).add_edge(START, "a").compile(checkpointer=memory)
    modes = ["values", "updates", "tasks", "checkpoints"]
    chunks = colour.stream(graph, {"l": []}, thread, stream_mode=modes)
    assert [mode for mode, _ in chunks] == [
        "checkpoints",
        "values",
        "checkpoints",
        "tasks",
        "updates",
        "tasks",
        "values",
        "checkpoints",
    ]


def test_subgraph_chunks_and_namespaces(colour: Colour) -> None:
    inner = StateGraph(Log).add_node("i", colour.letter("i")).add_edge(START, "i").compile()
    graph = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").compile()
    plain = colour.stream(graph, {"l": []}, stream_mode="updates")
    assert plain == [{"sub": {"l": ["i"]}}]
    nested = colour.stream(graph, {"l": []}, stream_mode=["updates"], subgraphs=True)
    assert [(path_of(ns), data) for ns, _, data in nested] == [(("sub",), {"i": {"l": ["i"]}}), ((), plain[0])]


def test_invoke_takes_stream_only_keywords(colour: Colour) -> None:
    """amendments A12."""
    inner = StateGraph(Log).add_node("i", colour.letter("i")).add_edge(START, "i").compile()
    graph = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").compile()
    assert colour.invoke(graph, {"l": ["in"]}, subgraphs=True) == {"l": ["in", "in", "i"]}
    chunks = colour.invoke(graph, {"l": []}, subgraphs=True, stream_mode="updates")
    assert [path_of(ns) for ns, _ in chunks] == [("sub",), ()]


# -------------------------------------------------------------------------------------------- batch, config, schemas


def test_batch(colour: Colour) -> None:
    """amendments A11."""
    graph = hand_made({"n": NodeBuilder().subscribe_only("a").do(plus(colour, 1)).write_to("out")})
    assert colour.batch(graph, [1, 2, 3]) == [2, 3, 4]
    assert colour.batch(graph, []) == []
    assert colour.batch(graph, [1, 2], {"max_concurrency": 1}) == [2, 3]
    assert colour.batch(graph, [1, 2], [{"tags": ["x"]}, {"tags": ["y"]}]) == [2, 3]
    assert colour.batch(graph, [1], output_keys=["a", "out"]) == [{"a": 1, "out": 2}]
    with refused(ValueError, 1, 2):
        colour.batch(graph, [1, 2], [{}])
    with pytest.raises(TypeError):
        colour.batch(graph, [1, "x"])
    good, bad = colour.batch(graph, [1, "x"], return_exceptions=True)
    assert (good, type(bad)) == (2, TypeError)


def test_batch_over_threads(colour: Colour, memory: Any) -> None:
    graph = ab(colour, checkpointer=memory)
    configs = [{"configurable": {"thread_id": str(i)}} for i in range(3)]
    colour.batch(graph, [{"l": [i]} for i in range(3)], configs)
    assert [colour.get_state(graph, c).values for c in configs] == [{"l": [i, "a", "b"]} for i in range(3)]


def test_with_config_is_a_copy(colour: Colour) -> None:
    seen: list[Any] = []

    def n(state: Log, config: Any) -> None:
        seen.append(config)

    n.__annotations__.pop("config")
    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile()
    bound = graph.with_config({"tags": ["bound"], "metadata": {"a": 1, "b": 1}, "configurable": {"k": "bound", "z": 1}})
    config = {"tags": ["call"], "metadata": {"b": 2}, "configurable": {"k": "call"}}
    colour.invoke(bound, {"l": []}, config)
    colour.invoke(graph, {"l": []})
    assert bound is not graph
    assert [t for t in seen[0]["tags"] if not t.startswith(("seq:", "graph:"))] == ["bound", "call"]
    assert (seen[0]["metadata"]["a"], seen[0]["metadata"]["b"]) == (1, 2)
    assert (seen[0]["configurable"]["k"], seen[0]["configurable"]["z"]) == ("call", 1)
    assert "k" not in seen[1]["configurable"]
    assert config == {"tags": ["call"], "metadata": {"b": 2}, "configurable": {"k": "call"}}
    assert graph.with_config(recursion_limit=5).config["recursion_limit"] == 5


def test_attributes_may_be_assigned_after_construction(colour: Colour, memory: Any, thread: Any) -> None:
    """amendments A7."""
    graph = ab(colour)
    graph.checkpointer = memory
    colour.invoke(graph, {"l": []}, thread)
    assert colour.get_state(graph, thread).values == {"l": ["a", "b"]}
    graph.interrupt_before_nodes = ["b"]
    assert colour.invoke(graph, {"l": []}, {"configurable": {"thread_id": "2"}}) == {"l": ["a"]}
    graph.checkpointer = None
    graph.interrupt_before_nodes = []
    assert colour.invoke(graph, {"l": []}) == {"l": ["a", "b"]}


def test_copy_and_repr(colour: Colour) -> None:
    graph = ab(colour)
    twin = graph.copy()
    assert twin is not graph
    assert colour.invoke(twin, {"l": []}) == {"l": ["a", "b"]}
    assert graph.copy({"name": "twin"}).name == "twin"
    assert isinstance(repr(graph), str)


def test_repr_of_nested_and_self_capturing_graphs(colour: Colour) -> None:
    """amendments A9."""
    holder: list[Any] = []

    def n(state: Log) -> None:
        assert holder is not None

    inner = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile()
    holder.append(inner)
    graph = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").compile()
    assert isinstance(repr(graph), str)


def test_one_graph_from_many_threads(colour: Colour, memory: Any) -> None:
    """amendments A13."""
    graph = ab(colour, checkpointer=memory)
    found: dict[int, Any] = {}

    def call(index: int) -> None:
        found[index] = colour.invoke(graph, {"l": [index]}, {"configurable": {"thread_id": str(index)}})

    threads = [threading.Thread(target=call, args=(index,)) for index in range(8)]
    for started in threads:
        started.start()
    for started in threads:
        started.join()
    assert found == {index: {"l": [index, "a", "b"]} for index in range(8)}


def test_a_nested_graph_takes_the_saver_it_has_at_run_time(colour: Colour, memory: Any, thread: Any) -> None:
    """amendments A7: attributes are read when the graph runs, also when it is nested."""
    inner = ab(colour)
    graph = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").compile(checkpointer=memory)
    inner.checkpointer = False
    colour.invoke(graph, {"l": []}, thread)
    assert {entry.config["configurable"]["checkpoint_ns"] for entry in memory.list(thread)} == {""}


def test_max_concurrency(colour: Colour) -> None:
    running: list[int] = []
    most: list[int] = []
    opened = Gate()
    opened.set()

    def w(arg: int) -> Any:
        running.append(arg)
        most.append(len(running))
        yield opened
        running.remove(arg)
        return {"l": [arg]}

    builder = StateGraph(Log).add_node("w", colour.script(w))
    builder.add_conditional_edges(START, lambda state: [Send("w", i) for i in range(6)])
    graph = builder.compile()
    assert colour.invoke(graph, {"l": []}, {"max_concurrency": 1}) == {"l": list(range(6))}
    assert most == [1] * 6


def test_tasks_of_a_step_run_side_by_side(colour: Colour) -> None:
    everyone, here = Gate(), []  # type: ignore[var-annotated]

    def w(arg: int) -> Any:
        here.append(arg)
        if len(here) == 4:
            everyone.set()
        yield everyone
        return {"l": [arg]}

    builder = StateGraph(Log).add_node("w", colour.script(w))
    builder.add_conditional_edges(START, lambda state: [Send("w", i) for i in range(4)])
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": [0, 1, 2, 3]}


def test_nothing_of_a_run_is_left_for_the_collector(colour: Colour, memory: Any, thread: Any) -> None:
    """amendments II.2 2.9."""

    class Thing:
        pass

    seen: list[Any] = []

    def n(state: Log, runtime: Runtime[Any]) -> None:
        seen.append(weakref.ref(runtime.context))

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(checkpointer=memory)
    gc.collect()
    gc.disable()
    try:
        colour.invoke(graph, {"l": []}, thread, context=Thing())
        assert [ref() for ref in seen] == [None]
    finally:
        gc.enable()


def test_recursion_limit_must_be_positive(colour: Colour) -> None:
    with refused(ValueError, "recursion_limit"):
        colour.invoke(ab(colour), {"l": []}, {"recursion_limit": 0})


def test_json_schemas_of_a_hand_made_graph() -> None:
    single = Pregel(
        nodes={"n": copier()},
        channels={"a": LastValue(int), "out": LastValue(str)},
        input_channels="a",
        output_channels="out",
    )
    assert single.get_input_jsonschema() == {"title": "LangGraphInput", "type": "integer"}
    assert single.get_output_jsonschema() == {"title": "LangGraphOutput", "type": "string"}
    assert (single.InputType, single.OutputType) == (int, str)
    several = Pregel(
        nodes={"n": copier()},
        channels={"a": LastValue(int), "b": LastValue(int), "out": LastValue(str)},
        input_channels=["a", "b"],
        output_channels=["out"],
        name="Mine",
    )
    assert several.get_input_jsonschema() == {
        "title": "MineInput",
        "type": "object",
        "properties": {
            "a": {"title": "A", "type": "integer", "default": None},
            "b": {"title": "B", "type": "integer", "default": None},
        },
    }
    assert several.get_output_jsonschema()["properties"] == {"out": {"title": "Out", "type": "string", "default": None}}


def test_json_schemas_of_a_typed_dict_state() -> None:
    class In(TypedDict):
        q: str
        maybe: NotRequired[int]

    class Out(TypedDict, total=False):
        a: str

    class Both(In, Out):
        pass

    graph = (
        StateGraph(Both, input_schema=In, output_schema=Out)
        .add_node("n", lambda state: None)
        .add_edge(START, "n")
        .compile()
    )
    assert graph.get_input_jsonschema() == {
        "title": "In",
        "type": "object",
        "properties": {"q": {"title": "Q", "type": "string"}, "maybe": {"title": "Maybe", "type": "integer"}},
        "required": ["q"],
    }
    assert graph.get_output_jsonschema() == {
        "title": "Out",
        "type": "object",
        "properties": {"a": {"title": "A", "type": "string"}},
    }


class Standard(typing.TypedDict):
    q: str


@pytest.mark.differs("amendments C4: the standard library's TypedDict works on Python 3.11 too")
def test_json_schema_of_a_standard_typed_dict() -> None:
    graph = StateGraph(Standard).add_node("n", lambda state: None).add_edge(START, "n").compile()
    assert graph.get_input_jsonschema() == {
        "title": "Standard",
        "type": "object",
        "properties": {"q": {"title": "Q", "type": "string"}},
        "required": ["q"],
    }


@dataclasses.dataclass
class WithDefaults:
    need: int
    have: int = 5
    maybe: Optional[str] = None  # noqa: UP045 - the form under test
    open: str | None = dataclasses.field(default=None)
    many: list[int] = dataclasses.field(default_factory=list)


def test_json_schemas_of_other_states() -> None:
    def compiled(schema: Any) -> Any:
        return StateGraph(schema).add_node("n", lambda state: None).add_edge(START, "n").compile()

    assert compiled(Model).get_input_jsonschema() == Model.model_json_schema()
    schema = compiled(WithDefaults).get_input_jsonschema()
    assert schema["title"] == "LangGraphInput"
    assert schema["required"] == ["need"]
    assert {k: v.get("default", "none") for k, v in schema["properties"].items()} == {
        "need": "none",
        "have": 5,
        "maybe": None,
        "open": None,
        "many": [],
    }
    bare = compiled(Annotated[list[int], operator.add])
    assert bare.get_input_jsonschema() == {
        "title": "LangGraphInput",
        "type": "array",
        "items": {"type": "integer"},
        "default": None,
    }


def test_context_json_schema() -> None:
    class Context(TypedDict):
        user: str

    def compiled(schema: Any) -> Any:
        return StateGraph(Log, schema).add_node("n", lambda state: None).add_edge(START, "n").compile()

    assert compiled(None).get_context_jsonschema() is None
    assert compiled(Context).get_context_jsonschema()["required"] == ["user"]
    assert compiled(Model).get_context_jsonschema() == Model.model_json_schema()
    assert set(compiled(Data).get_context_jsonschema()["properties"]) == {"x"}


def test_schema_classes() -> None:
    """amendments A14."""
    builder = StateGraph(Log).add_node("n", lambda state: None).add_edge(START, "n")
    for given, names in [("Mine", ("MineInput", "MineOutput")), ("my_flow", ("my_flow_input", "my_flow_output"))]:
        graph = builder.compile(name=given)
        for model, name in zip((graph.get_input_schema(), graph.get_output_schema()), names, strict=True):
            assert issubclass(model, BaseModel)
            assert model.__name__ == name
        assert (graph.get_name(), graph.get_name("Input"), graph.get_name(name="q")) == (given, names[0], "q")


def test_get_subgraphs() -> None:
    leaf = StateGraph(Log).add_node("x", lambda state: None).add_edge(START, "x").compile()
    hidden = StateGraph(Log).add_node("x", lambda state: None).add_edge(START, "x").compile(checkpointer=False)
    middle = StateGraph(Log).add_node("leaf", leaf).add_edge(START, "leaf").compile()

    def calls(state: Log) -> Any:
        return leaf.invoke(state)

    builder = StateGraph(Log).add_node("middle", middle).add_node("calls", calls).add_node("hidden", hidden)
    graph = builder.add_edge(START, "middle").compile()
    assert dict(graph.get_subgraphs()) == {"middle": middle, "calls": leaf}
    assert dict(graph.get_subgraphs(recurse=True)) == {"middle": middle, "middle|leaf": leaf, "calls": leaf}
    assert dict(graph.get_subgraphs(namespace="middle|leaf", recurse=True)) == {"middle|leaf": leaf}
    assert dict(graph.get_subgraphs(namespace="calls")) == {"calls": leaf}
    assert dict(graph.get_subgraphs(namespace="mid")) == {}


def test_channel_kinds_of_a_hand_made_graph(colour: Colour) -> None:
    graph = Pregel(
        nodes={
            "n": NodeBuilder().subscribe_only("a").do(plus(colour, 1)).write_to("sum", "seen", "once"),
            "m": NodeBuilder().subscribe_only("once").do(plus(colour, 1)).write_to("sum", "seen"),
        },
        channels={
            "a": EphemeralValue(int),
            "once": EphemeralValue(int),
            "sum": BinaryOperatorAggregate(int, operator.add),
            "seen": Topic(int, accumulate=True),
        },
        input_channels="a",
        output_channels=["sum", "seen", "once"],
    )
    assert colour.invoke(graph, 1) == {"sum": 5, "seen": [2, 3]}


def test_sends_of_a_hand_made_graph_need_no_declaration(colour: Colour) -> None:
    assert Send("a", {"x": 1}).node == "a"
    builder = StateGraph(Log).add_node("w", colour.node(lambda arg: {"l": [arg]}))
    builder.add_conditional_edges(START, lambda state: [Send("w", i) for i in range(12)])
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": list(range(12))}


def test_unknown_channel_is_dropped_with_a_warning(colour: Colour) -> None:
    node = NodeBuilder().subscribe_only("a").do(plus(colour, 1)).write_to("zz", "out")
    with diagnosed("n", "zz"):
        assert colour.invoke(hand_made({"n": node}), 1) == 2


def test_what_is_no_cache_is_refused() -> None:
    builder = StateGraph(Log).add_node("a", lambda state: {"l": ["a"]}).add_edge(START, "a")
    with pytest.raises(TypeError, match="aget, set"):
        builder.compile(cache={})
