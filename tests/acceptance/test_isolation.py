"""What a node may do to the values it is given without anyone else noticing (design.md D8 and D40, promise 18)."""

from typing import Any

import pytest

from pregel.errors import StateMutationError
from pregel.graph import END, START, StateGraph
from pregel.types import Command, Send, interrupt
from tests.support.scenarios import Colour, Log, LogX, refused

PLAIN = "design.md D8, D40, amendments Y5: top-level containers are the task's own"


def mutating(state: Log) -> None:
    state["l"].append("mine")


@pytest.mark.differs(PLAIN)
def test_an_edit_in_place_changes_nothing(colour: Colour, saver: Any, thread: Any) -> None:
    given = {"l": ["in"]}
    builder = StateGraph(Log).add_node("n", colour.node(mutating)).add_node("b", colour.letter("b"))
    graph = builder.add_edge(START, "n").add_edge("n", "b").compile(checkpointer=saver)
    assert colour.invoke(graph, given, thread) == {"l": ["in", "b"]}
    assert given == {"l": ["in"]}
    assert [s.values["l"] for s in colour.history(graph, thread)] == [["in", "b"], ["in"], ["in"], []]


@pytest.mark.differs(PLAIN)
def test_siblings_do_not_see_an_edit(colour: Colour) -> None:
    seen: list[Any] = []

    def b(state: Log) -> None:
        seen.append(list(state["l"]))

    def a(state: Log) -> None:
        state["l"].append("mine")

    for names in ("ab", "ba"):  # whichever runs first
        builder = StateGraph(Log)
        builder.add_node(names[0], colour.node(a)).add_node(names[1], colour.node(b))
        builder.add_edge(START, "a").add_edge(START, "b")
        colour.invoke(builder.compile(), {"l": ["in"]})
    assert seen == [["in"], ["in"]]


@pytest.mark.differs(PLAIN)
def test_a_router_does_not_see_an_edit(colour: Colour) -> None:
    seen: list[Any] = []

    def path(state: Log) -> str:
        seen.append(list(state["l"]))
        return END

    builder = StateGraph(Log).add_node("n", colour.node(mutating)).add_edge(START, "n")
    colour.invoke(builder.add_conditional_edges("n", colour.node(path)).compile(), {"l": ["in"]})
    assert seen == [["in"]]


@pytest.mark.differs(PLAIN)
def test_a_second_attempt_starts_from_the_same_values(colour: Colour, saver: Any, thread: Any) -> None:
    seen: list[Any] = []

    def ask(state: Log) -> dict[str, Any]:
        state["l"].append("mine")
        seen.append(list(state["l"]))
        return {"l": [interrupt("q")]}

    graph = StateGraph(Log).add_node("ask", colour.node(ask)).add_edge(START, "ask").compile(checkpointer=saver)
    colour.invoke(graph, {"l": ["in"]}, thread)
    assert colour.get_state(graph, thread).values == {"l": ["in"]}
    assert colour.invoke(graph, Command(resume="R"), thread) == {"l": ["in", "R"]}
    assert seen == [["in", "mine"]] * 2


@pytest.mark.differs(PLAIN)
def test_send_arguments_are_the_tasks_own(colour: Colour) -> None:
    shared: list[Any] = []
    seen: list[Any] = []

    def w(arg: Any) -> None:
        arg["items"].append(1)
        seen.append(len(arg["items"]))

    builder = StateGraph(Log).add_node("w", colour.node(w))
    builder.add_conditional_edges(START, lambda state: [Send("w", {"items": shared}), Send("w", {"items": shared})])
    colour.invoke(builder.compile(), {"l": []})
    assert (seen, shared) == ([1, 1], [])


def test_a_returned_value_is_the_nodes_no_longer(colour: Colour, saver: Any, thread: Any) -> None:
    kept: list[Any] = []

    def a(state: LogX) -> dict[str, Any]:
        kept.append({"k": 1})
        return {"x": kept[-1]}

    def b(state: LogX) -> dict[str, Any]:
        return {"l": ["b"]}

    builder = StateGraph(LogX).add_node("a", colour.node(a)).add_node("b", colour.node(b))
    graph = builder.add_edge(START, "a").add_edge("a", "b").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    kept[0]["k"] = 2
    assert colour.get_state(graph, thread).values == {"l": ["b"], "x": {"k": 1}}


@pytest.mark.differs("design.md D8")
@pytest.mark.parametrize(
    ("edit", "key"),
    [
        (lambda state: state["l"].append(1), "'l'"),
        (lambda state: state["l"][0].update(k=1), "'l'"),
        (lambda state: state.update(new=1), "'new'"),
        (lambda state: state.pop("l"), "'l'"),
    ],
)
def test_watched_nodes_may_not_edit_their_input(colour: Colour, edit: Any, key: str) -> None:
    builder = StateGraph(Log)
    builder.add_node("clean", colour.node(lambda state: {"l": [*state["l"]][:0]}))
    builder.add_node("editor", colour.node(lambda state: edit(state) and None))
    builder.add_edge(START, "clean").add_edge("clean", "editor")
    with refused(StateMutationError, "editor", key):
        colour.invoke(builder.compile(isolate="deep"), {"l": [{}]})
