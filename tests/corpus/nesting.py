"""Graphs in graphs: as nodes, called in nodes, several levels deep, with commands for the parent."""

import operator
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from pregel.config import get_stream_writer
from pregel.errors import GraphRecursionError
from pregel.graph import END, START, StateGraph
from pregel.types import Command, Send
from tests.support.scenarios import Colour, path_of


class Trail(TypedDict):
    """Where a run has been."""

    trail: Annotated[list[Any], operator.add]


def single(colour: Colour, schema: Any, name: str, node: Any, **options: Any) -> Any:
    """START → the node."""
    return StateGraph(schema).add_node(name, colour.node(node)).add_edge(START, name).compile(**options)


def shared_schema(colour: Colour) -> None:
    class Child(TypedDict):
        foo: str
        bar: str

    class Parent(TypedDict):
        foo: str

    child = StateGraph(Child)
    child.add_node("inner_1", colour.node(lambda s: {"bar": "bar"}))
    child.add_node("inner_2", colour.node(lambda s: {"foo": s["foo"] + s["bar"]}))
    child.add_edge(START, "inner_1").add_edge("inner_1", "inner_2")
    parent = StateGraph(Parent).add_node("node_1", colour.node(lambda s: {"foo": "hi! " + s["foo"]}))
    parent.add_node("node_2", child.compile()).add_edge(START, "node_1").add_edge("node_1", "node_2")
    graph = parent.compile()
    assert colour.invoke(graph, {"foo": "foo"}) == {"foo": "hi! foobar"}
    chunks = colour.stream(graph, {"foo": "foo"}, stream_mode="updates", subgraphs=True)
    assert [(path_of(ns), chunk) for ns, chunk in chunks] == [
        ((), {"node_1": {"foo": "hi! foo"}}),
        (("node_2",), {"inner_1": {"bar": "bar"}}),
        (("node_2",), {"inner_2": {"foo": "hi! foobar"}}),
        ((), {"node_2": {"foo": "hi! foobar"}}),
    ]
    assert [name for name, _ in graph.get_subgraphs()] == ["node_2"]
    assert set(graph.get_graph(xray=True).nodes) == {
        "__start__",
        "node_1",
        "node_2:inner_1",
        "node_2:inner_2",
        "__end__",
    }


def schemas_that_differ_three_levels_deep(colour: Colour) -> None:
    class Grandchild(TypedDict):
        g: str

    class Child(TypedDict):
        c: str

    class Parent(TypedDict):
        p: str

    lowest = single(colour, Grandchild, "low", lambda s: {"g": s["g"] + ", how are you"})

    def call_lowest(state: Child) -> Any:
        result = yield lowest, {"g": state["c"]}
        return {"c": result["g"] + " today?"}

    middle = StateGraph(Child).add_node("mid", colour.script(call_lowest)).add_edge(START, "mid").compile()

    def call_middle(state: Parent) -> Any:
        result = yield middle, {"c": state["p"]}
        return {"p": result["c"]}

    builder = StateGraph(Parent).add_node("hi", colour.node(lambda s: {"p": "hi " + s["p"]}))
    builder.add_node("call", colour.script(call_middle)).add_node("bye", colour.node(lambda s: {"p": s["p"] + " bye!"}))
    builder.add_edge(START, "hi").add_edge("hi", "call").add_edge("call", "bye")
    graph = builder.compile()
    assert colour.invoke(graph, {"p": "Bob"}) == {"p": "hi Bob, how are you today? bye!"}
    chunks = colour.stream(graph, {"p": "Bob"}, stream_mode="updates", subgraphs=True)
    assert [(path_of(ns), *chunk) for ns, chunk in chunks] == [
        ((), "hi"),
        (("call", "mid"), "low"),
        (("call",), "mid"),
        ((), "call"),
        ((), "bye"),
    ]


def three_levels_as_nodes(colour: Colour) -> None:
    def add(name: str) -> Any:
        return colour.node(lambda s: {"x": s["x"] + name})

    class State(TypedDict):
        x: str

    inner = StateGraph(State).add_node("i", add("i")).add_edge(START, "i").compile()
    mid = StateGraph(State).add_node("m", add("m")).add_node("inner", inner)
    mid.add_edge(START, "m").add_edge("m", "inner")
    top = StateGraph(State).add_node("mid", mid.compile()).add_node("t", add("t"))
    graph = top.add_edge(START, "mid").add_edge("mid", "t").compile()
    chunks = colour.stream(graph, {"x": ""}, stream_mode="updates", subgraphs=True)
    assert [(path_of(ns), chunk) for ns, chunk in chunks] == [
        (("mid",), {"m": {"x": "m"}}),
        (("mid", "inner"), {"i": {"x": "mi"}}),
        (("mid",), {"inner": {"x": "mi"}}),
        ((), {"mid": {"x": "mi"}}),
        ((), {"t": {"x": "mit"}}),
    ]
    assert [name for name, _ in graph.get_subgraphs(recurse=True)] == ["mid", "mid|inner"]


def workers_that_are_graphs(colour: Colour) -> None:
    class Worker(TypedDict):
        item: str
        steps: Annotated[list[str], operator.add]
        results: Annotated[list[str], operator.add]

    class State(TypedDict):
        items: list[str]
        results: Annotated[list[str], operator.add]

    worker = StateGraph(Worker).add_node("w1", colour.node(lambda s: {"steps": [s["item"]]}))
    worker.add_node("w2", colour.node(lambda s: {"results": [s["steps"][0].upper()]}))
    worker.add_edge(START, "w1").add_edge("w1", "w2")
    builder = StateGraph(State).add_node("worker", worker.compile())
    builder.add_node("done", colour.node(lambda s: {"results": ["end"]}))
    builder.add_conditional_edges(START, lambda s: [Send("worker", {"item": i}) for i in s["items"]], ["worker"])
    builder.add_edge("worker", "done")
    result = colour.invoke(builder.compile(), {"items": ["a", "b", "c"]})
    assert result == {"items": ["a", "b", "c"], "results": ["A", "B", "C", "end"]}


def command_for_the_parent(colour: Colour) -> None:
    def leave(state: Trail) -> Command[Any]:
        return Command(update={"trail": ["inner"]}, goto=["next", Send("worker", 7)], graph=Command.PARENT)

    child = single(colour, Trail, "leave", leave)

    def calls(state: Trail) -> Any:
        yield child, {"trail": []}
        raise AssertionError("the command leaves this node, too")

    for node in (child, colour.script(calls)):
        builder = StateGraph(Trail).add_node("child", node, destinations=("next", "worker")).add_edge(START, "child")
        builder.add_node("next", colour.node(lambda s: {"trail": ["next"]}))
        builder.add_node("worker", colour.node(lambda arg: {"trail": [arg]}))
        assert colour.invoke(builder.compile(), {"trail": ["in"]}) == {"trail": ["in", "inner", "next", 7]}


def command_through_two_levels(colour: Colour) -> None:
    def up(name: str, target: str) -> Any:
        return colour.node(lambda s: Command(update={"trail": [name]}, goto=target, graph=Command.PARENT))

    inner = StateGraph(Trail).add_node("i", up("i", "m")).add_edge(START, "i").compile()
    mid = StateGraph(Trail).add_node("inner", inner).add_node("m", up("m", "t")).add_edge(START, "inner").compile()
    top = StateGraph(Trail).add_node("mid", mid).add_node("t", colour.node(lambda s: {"trail": ["t"]}))
    assert colour.invoke(top.add_edge(START, "mid").compile(), {"trail": ["in"]})["trail"][-2:] == ["m", "t"]


def graph_called_in_a_loop(colour: Colour) -> None:
    class State(TypedDict):
        n: int
        log: Annotated[list[int], operator.add]

    child = single(colour, State, "inc", lambda s: {"n": s["n"] + 1})

    def twice(state: State) -> Any:
        result = yield child, {"n": state["n"]}
        result = yield child, result
        return {"n": result["n"], "log": [result["n"]]}

    builder = StateGraph(State).add_node("twice", colour.script(twice)).add_edge(START, "twice")
    builder.add_conditional_edges("twice", lambda s: "twice" if s["n"] < 6 else END)
    assert colour.invoke(builder.compile(), {"n": 0}) == {"n": 6, "log": [2, 4, 6]}


def graph_that_calls_itself(colour: Colour) -> None:
    class State(TypedDict):
        n: int
        product: int

    def factorial(state: State) -> Any:
        if state["n"] <= 1:
            return {"product": 1}
        result = yield graph, {"n": state["n"] - 1}
        return {"product": state["n"] * result["product"]}

    graph = StateGraph(State).add_node("f", colour.script(factorial)).add_edge(START, "f").compile()
    assert colour.invoke(graph, {"n": 6})["product"] == 720


def limits_and_errors_of_the_child(colour: Colour) -> None:
    class State(TypedDict):
        n: int

    child = StateGraph(State).add_node("inc", colour.node(lambda s: {"n": s["n"] + 1})).add_edge(START, "inc")
    child.add_conditional_edges("inc", lambda s: "inc" if s["n"] < 8 else END)
    graph = StateGraph(State).add_node("child", child.compile()).add_edge(START, "child").compile()
    assert colour.invoke(graph, {"n": 0}) == {"n": 8}
    with pytest.raises(GraphRecursionError):
        colour.invoke(graph, {"n": 0}, {"recursion_limit": 5})

    def fail(state: State) -> None:
        raise LookupError("broke inside")

    outer = StateGraph(State).add_node("child", single(colour, State, "fail", fail)).add_edge(START, "child").compile()
    with pytest.raises(LookupError, match="broke inside") as caught:
        colour.invoke(outer, {"n": 0})
    assert ["'fail'" in note or "'child'" in note for note in caught.value.__notes__] == [True, True]


def custom_chunks_from_inside(colour: Colour) -> None:
    def inner(state: Trail) -> dict[str, Any]:
        get_stream_writer()({"from": "inner"})
        return {"trail": ["inner"]}

    def outer(state: Trail) -> dict[str, Any]:
        get_stream_writer()("outer")
        return {"trail": ["outer"]}

    builder = StateGraph(Trail).add_node("child", single(colour, Trail, "inner", inner))
    builder.add_node("outer", colour.node(outer)).add_edge(START, "child").add_edge("child", "outer")
    graph = builder.compile()
    assert colour.stream(graph, {"trail": []}, stream_mode="custom") == ["outer"]
    nested = colour.stream(graph, {"trail": []}, stream_mode="custom", subgraphs=True)
    assert [(path_of(ns), chunk) for ns, chunk in nested] == [(("child",), {"from": "inner"}), ((), "outer")]
