"""Programs whose functions all say what they return, as documentation writes them: of these most can be claimed wrongly.

Several leave something out on purpose: an edge to END, a path map, a label in a picture.
"""

import operator
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from typing_extensions import TypedDict

from pregel.errors import NodeError
from pregel.graph import END, START, StateGraph
from pregel.types import Command, Send
from tests.support.scenarios import Colour


class Trail(TypedDict):
    """Where a run has been, and where it is to go."""

    trail: Annotated[list[Any], operator.add]
    to: str


def stop(name: str) -> Any:
    """A node that leaves its name."""

    def act(state: Trail) -> dict[str, Any]:
        return {"trail": [name]}

    return act


def stops(colour: Colour, *names: str) -> StateGraph:
    builder = StateGraph(Trail)
    for name in names:
        builder.add_node(name, colour.node(stop(name)))
    return builder


def ran(colour: Colour, builder: StateGraph, to: str = "") -> list[Any]:
    trail: list[Any] = colour.invoke(builder.compile(), {"trail": [], "to": to})["trail"]
    return trail


def a_gate_in_a_chain(colour: Colour) -> None:
    def gate(state: Trail) -> Literal["Pass", "Fail"]:
        return "Pass" if state["to"] == "end" else "Fail"

    builder = stops(colour, "write", "improve", "polish").add_edge(START, "write")
    builder.add_conditional_edges("write", gate, {"Fail": "improve", "Pass": END})
    builder.add_edge("improve", "polish").add_edge("polish", END)
    assert ran(colour, builder) == ["write", "improve", "polish"]
    assert ran(colour, builder, "end") == ["write"]


def routing_to_specialists(colour: Colour) -> None:
    def route(state: Trail) -> str:
        return state["to"]

    builder = stops(colour, "router", "story", "joke", "poem").add_edge(START, "router")
    builder.add_conditional_edges("router", route, {name: name for name in ("story", "joke", "poem")})
    for name in ("story", "joke", "poem"):
        builder.add_edge(name, END)
    assert ran(colour, builder, "poem") == ["router", "poem"]


def routing_without_an_end(colour: Colour) -> None:
    def route(state: Trail) -> Literal["left", "right"]:
        return "left" if state["to"] == "left" else "right"

    builder = stops(colour, "left", "right").add_conditional_edges(START, route)
    assert ran(colour, builder, "left") == ["left"]


def an_agent_and_its_tools(colour: Colour) -> None:
    def should_continue(state: Trail) -> Literal["tools", "__end__"]:
        return "tools" if len(state["trail"]) < 3 else END

    builder = stops(colour, "agent", "tools").add_edge(START, "agent").add_edge("tools", "agent")
    builder.add_conditional_edges("agent", should_continue)
    assert ran(colour, builder) == ["agent", "tools", "agent"]


def orchestrated_workers(colour: Colour) -> None:
    def assign(state: Trail) -> list[Send]:
        return [Send("worker", {"trail": [], "to": str(i)}) for i in range(3)]

    def worker(state: Trail) -> dict[str, Any]:
        return {"trail": [state["to"]]}

    builder = stops(colour, "plan", "sum up").add_node("worker", colour.node(worker))
    builder.add_edge(START, "plan").add_conditional_edges("plan", assign, ["worker"])
    builder.add_edge("worker", "sum up").add_edge("sum up", END)
    assert ran(colour, builder) == ["plan", "0", "1", "2", "sum up"]


def workers_that_nothing_follows(colour: Colour) -> None:
    def assign(state: Trail) -> Sequence[Send] | Literal["refuse"]:
        return "refuse" if not state["to"] else [Send("worker", {"to": c}) for c in state["to"]]

    def worker(state: Trail) -> dict[str, Any]:
        return {"trail": [state["to"]]}

    builder = stops(colour, "plan", "refuse").add_node("worker", colour.node(worker)).add_edge(START, "plan")
    builder.add_conditional_edges("plan", assign, ["worker", "refuse"]).add_edge("refuse", END)
    assert ran(colour, builder, "xy") == ["plan", "x", "y"]


def some_of_a_fan(colour: Colour) -> None:
    def pick(state: Trail) -> Sequence[str]:
        return list(state["to"])

    builder = stops(colour, "a", "b", "c", "d", "e").add_edge(START, "a")
    builder.add_conditional_edges("a", pick, ["b", "c", "d"])
    for name in "bcd":
        builder.add_edge(name, "e")
    assert ran(colour, builder.add_edge("e", END), "cd") == ["a", "c", "d", "e"]


def branches_of_unequal_length(colour: Colour) -> None:
    builder = stops(colour, "a", "b", "b2", "c").add_node("d", colour.node(stop("d")), defer=True)
    for edge in [(START, "a"), ("a", "b"), ("a", "c"), ("b", "b2"), ("b2", "d"), ("c", "d"), ("d", END)]:
        builder.add_edge(*edge)
    assert ran(colour, builder) == ["a", "b", "c", "b2", "d"]


def a_join_of_two_lines(colour: Colour) -> None:
    builder = stops(colour, "a", "b", "b2", "c").add_edge(START, "a").add_edge(START, "b").add_edge("b", "b2")
    assert ran(colour, builder.add_edge(["a", "b2"], "c").add_edge("c", END)) == ["a", "b", "b2", "c"]


def steps_with_states_of_their_own(colour: Colour) -> None:
    class Private(TypedDict):
        secret: str

    def first(state: Trail) -> Private:
        return {"secret": "s"}

    def second(state: Private) -> Trail:
        return {"trail": [state["secret"]], "to": ""}

    builder = StateGraph(Trail).add_sequence([("first", colour.node(first)), ("second", colour.node(second))])
    assert ran(colour, builder.add_edge(START, "first")) == ["s"]


def approved_or_rejected(colour: Colour) -> None:
    def approve(state: Trail) -> Command[Literal["proceed", "cancel"]]:
        return Command(goto="proceed" if state["to"] == "yes" else "cancel", update={"trail": ["asked"]})

    builder = stops(colour, "proceed", "cancel").add_node("approve", colour.node(approve))
    builder.add_edge(START, "approve").add_edge("proceed", END).add_edge("cancel", END)
    assert ran(colour, builder, "yes") == ["asked", "proceed"]


def commands_without_an_edge(colour: Colour) -> None:
    def first(state: Trail) -> Command[Literal["second", "third"]]:
        return Command(goto="third")

    builder = stops(colour, "second", "third").add_node("first", colour.node(first)).add_edge(START, "first")
    assert ran(colour, builder) == ["third"]


def agents_that_hand_over(colour: Colour) -> None:
    def alice(state: Trail) -> Command[Literal["bob"]]:
        return Command(goto="bob", graph=Command.PARENT, update={"trail": ["alice"]})

    inner = StateGraph(Trail).add_node("alice", colour.node(alice), destinations=()).add_node("bob", stop("never"))
    inner.add_edge(START, "alice")
    builder = stops(colour, "bob").add_node("team", inner.compile()).add_edge(START, "team")
    assert ran(colour, builder) == ["alice", "bob"]


def a_failure_with_a_way_on(colour: Colour) -> None:
    def fail(state: Trail) -> dict[str, Any]:
        raise ValueError("no")

    def handle(state: Trail, error: NodeError) -> Command[Literal["mend"]]:
        return Command(goto="mend", update={"trail": [error.node]})

    builder = stops(colour, "mend", "next").add_node("fail", colour.node(fail), error_handler=colour.node(handle))
    builder.add_edge(START, "fail").add_edge("fail", "next").add_edge("mend", END).add_edge("next", END)
    assert ran(colour, builder) == ["fail", "mend"]


def a_model_as_state(colour: Colour) -> None:
    class State(BaseModel):
        trail: Annotated[list[str], operator.add] = []
        to: str = ""

    def step(state: State) -> State:
        return State(trail=["step"])

    def again(state: State) -> bool:
        return len(state.trail) < 2

    builder = StateGraph(State).add_node("step", colour.node(step)).add_edge(START, "step")
    assert ran(colour, builder.add_conditional_edges("step", again, {True: "step", False: END})) == ["step", "step"]


def a_side_effect_and_the_main_line(colour: Colour) -> None:
    builder = stops(colour, "a", "log", "b").add_edge(START, "a").add_edge(START, "log").add_edge("a", "b")
    assert ran(colour, builder.add_edge("b", END)) == ["a", "log", "b"]
