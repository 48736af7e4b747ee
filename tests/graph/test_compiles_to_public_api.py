"""Front-end honesty: what a `StateGraph` compiles to can be built by hand from public parts, as the same program.

Each pair declares one feature with the builder and again with `NodeBuilder` and channels. Compared is what an engine
sees of a program: channels, what wakes whom, what a node reads; and the writes of each node, the one part that is code.
"""

import operator
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from pregel._call import prepare
from pregel.channels import (
    BinaryOperatorAggregate,
    EphemeralValue,
    LastValue,
    LastValueAfterFinish,
    NamedBarrierValue,
    Topic,
)
from pregel.constants import START, TAG_HIDDEN, TASKS
from pregel.graph import StateGraph
from pregel.pregel import NodeBuilder, Pregel, PregelNode
from pregel.types import Send


class State(TypedDict):
    x: int
    l: Annotated[list[str], operator.add]  # noqa: E741


class Scope:
    """The state that a router reads; nothing else is asked for here."""

    def read(self, select: list[str], writes: Any = None) -> dict[str, Any]:
        return {name: value for name, value in dict(writes or ()).items() if name in select}


def a(state: State) -> dict[str, Any]:
    return {"x": 1, "l": ["a"]}


def b(state: State) -> dict[str, Any]:
    return {"l": ["b"]}


def choose(state: State) -> Any:
    return ["b", Send("b", {"x": 2})]


class ByHand:
    """A conditional edge without the builder."""

    def __init__(self) -> None:
        self.call = prepare(choose)

    def route(self, result: Any, scope: Any, writes: list[Any]) -> None:
        assert self.call.fn is not None
        for target in self.call.fn(scope.read(["x", "l"], writes)):
            writes.append((TASKS, target) if isinstance(target, Send) else (f"branch:to:{target}", None))

    async def aroute(self, result: Any, scope: Any, writes: list[Any]) -> None:
        self.route(result, scope, writes)


def state_channels() -> dict[str, Any]:
    return {
        "x": LastValue(int),
        "l": BinaryOperatorAggregate(list, operator.add),
        START: EphemeralValue(State),
        TASKS: Topic(Send),
    }


def copies(*names: str) -> dict[str, Callable[[Any], Any]]:
    return {name: operator.itemgetter(name) for name in names}


def entry(**starts: None) -> NodeBuilder:
    return NodeBuilder().subscribe_only(START).meta(TAG_HIDDEN).write_to(**copies("x", "l"), **starts)


def node(name: str, function: Any, *more_triggers: str, writes: tuple[str, ...], **edges: Any) -> NodeBuilder:
    triggers = (f"branch:to:{name}", *more_triggers)
    return (
        NodeBuilder()
        .subscribe_to(*triggers, read=False)
        .read_from("x", "l")
        .do(function)
        .write_to(**copies(*writes), **edges)
    )


def by_hand(channels: dict[str, Any], **nodes: Any) -> Pregel:
    return Pregel(
        nodes={START if name == "start" else name: made for name, made in nodes.items()},
        channels={**state_channels(), **channels},
        input_channels=START,
        output_channels=["x", "l"],
        stream_channels=["x", "l"],
        stream_mode="updates",
    )


def static_edge() -> tuple[Pregel, Pregel]:
    builder = StateGraph(State).add_node(a).add_node(b).add_edge(START, "a").add_edge("a", "b")
    hand = by_hand(
        {"branch:to:a": EphemeralValue(Any, guard=False), "branch:to:b": EphemeralValue(Any, guard=False)},
        start=entry(**{"branch:to:a": None}),
        a=node("a", a, writes=("x", "l"), **{"branch:to:b": None}),
        b=node("b", b, writes=("l",)),
    )
    return builder.compile(), hand


def deferred_node() -> tuple[Pregel, Pregel]:
    builder = StateGraph(State).add_node(a).add_node(b, defer=True).add_edge(START, "a").add_edge(START, "b")
    hand = by_hand(
        {"branch:to:a": EphemeralValue(Any, guard=False), "branch:to:b": LastValueAfterFinish(Any)},
        start=entry(**{"branch:to:a": None, "branch:to:b": None}),
        a=node("a", a, writes=("x", "l")),
        b=node("b", b, writes=("l",)),
    )
    return builder.compile(), hand


def list_edge() -> tuple[Pregel, Pregel]:
    builder = StateGraph(State).add_node(a).add_node(b).add_edge(START, "a").add_edge(["a"], "b")
    hand = by_hand(
        {
            "branch:to:a": EphemeralValue(Any, guard=False),
            "branch:to:b": EphemeralValue(Any, guard=False),
            "join:a:b": NamedBarrierValue(str, {"a"}),
        },
        start=entry(**{"branch:to:a": None}),
        a=node("a", a, writes=("x", "l"), **{"join:a:b": "a"}),
        b=node("b", b, "join:a:b", writes=("l",)),
    )
    return builder.compile(), hand


def conditional_edge() -> tuple[Pregel, Pregel]:
    builder = StateGraph(State).add_node(a).add_node(b).add_edge(START, "a").add_conditional_edges("a", choose)
    source = node("a", a, writes=("x", "l")).build()
    hand = by_hand(
        {"branch:to:a": EphemeralValue(Any, guard=False), "branch:to:b": EphemeralValue(Any, guard=False)},
        start=entry(**{"branch:to:a": None}),
        a=source.copy({"routers": (ByHand(),)}),
        b=node("b", b, writes=("l",)),
    )
    return builder.compile(), hand


def shape(graph: Pregel) -> dict[str, Any]:
    """What an engine sees of a program."""
    program = graph.program
    return {
        "channels": {name: type(channel) for name, channel in program.channels.items()},
        "barriers": {n: c.names for n, c in program.channels.items() if isinstance(c, NamedBarrierValue)},
        "wakes": program.wakes,
        "reads": {name: node.spec.channels for name, node in program.nodes.items()},
        "hidden": {name: node.hidden for name, node in program.nodes.items()},
        "io": (program.input_channels, program.output_channels, program.stream_channels, graph.stream_mode),
        "upkeep": (program.clearing, program.consuming, program.finishing),
    }


def writes_of(spec: PregelNode, argument: Any) -> list[Any]:
    scope: Any = Scope()
    result = argument if spec.bound is None or spec.bound.fn is None else spec.bound.fn(argument)
    writes: list[Any] = []
    assert spec.write is not None
    spec.write(result, scope, writes)
    for router in spec.routers:
        router.route(result, scope, writes)
    return writes


@pytest.mark.parametrize("pair", [static_edge, deferred_node, list_edge, conditional_edge])
def test_same_program(pair: Callable[[], tuple[Pregel, Pregel]]) -> None:
    built, hand = pair()
    assert shape(built) == shape(hand)
    argument = {"x": 0, "l": ["in"]}
    for name in built.nodes:
        assert writes_of(built.nodes[name], argument) == writes_of(hand.nodes[name], argument), name


@pytest.mark.parametrize("pair", [static_edge, deferred_node, list_edge, conditional_edge])
def test_same_run(pair: Callable[[], tuple[Pregel, Pregel]]) -> None:
    built, hand = pair()
    for mode in ("values", "updates", "tasks"):
        runs = [list(graph.stream({"x": 0, "l": ["in"]}, stream_mode=mode)) for graph in (built, hand)]
        for run in runs:
            for chunk in run:
                chunk.pop("id", None)
        assert runs[0] == runs[1], mode
