"""Pieces of user interface: shown at once, kept in the state, merged by id (frontends.md 5.3)."""

import copy
from collections.abc import Sequence
from typing import Annotated, Any

import pytest

from pregel.graph import START, MessagesState, StateGraph
from pregel.graph.ui import AnyUIMessage, UIMessage, delete_ui_message, push_ui_message, ui_message_reducer
from pregel.messages import Message
from pregel.types import Command, interrupt
from tests.support.scenarios import Colour, refused


class State(MessagesState):
    ui: Annotated[Sequence[AnyUIMessage], ui_message_reducer]


def piece(id: str, merge: bool | None = None, **props: Any) -> UIMessage:
    metadata = {} if merge is None else {"merge": merge}
    return {"type": "ui", "id": id, "name": "n", "props": props, "metadata": metadata}


def remove(id: str) -> AnyUIMessage:
    return {"type": "remove-ui", "id": id}


@pytest.mark.parametrize(
    ("left", "right", "merged"),
    [
        ([piece("1", a=1)], [piece("2", b=2)], [("1", {"a": 1}), ("2", {"b": 2})]),
        (piece("1", a=1), piece("2", b=2), [("1", {"a": 1}), ("2", {"b": 2})]),
        ([piece("1", a=1)], [piece("1", b=2)], [("1", {"b": 2})]),
        ([piece("1", a=1)], [piece("1", False, b=2)], [("1", {"b": 2})]),
        ([piece("1", a=1)], [piece("1", True, b=2)], [("1", {"a": 1, "b": 2})]),
        ([piece("1", a=1)], [piece("1", True, a=2)], [("1", {"a": 2})]),
        ([piece("1", a=1), piece("2")], [remove("1")], [("2", {})]),
        ([piece("1", a=1)], [remove("1"), piece("1", True, z=1)], [("1", {"a": 1, "z": 1})]),
        ([piece("1", a=1)], [piece("2", a=1), remove("2")], [("1", {"a": 1})]),
        ([], [piece("2", a=1), piece("2", True, b=1)], [("2", {"a": 1, "b": 1})]),
        ([piece("1"), piece("1", x=1)], [piece("1", True, b=2)], [("1", {}), ("1", {"x": 1, "b": 2})]),
        ([piece("1"), piece("1", x=1)], [remove("1")], []),
        ([], [{"type": "ui", "id": "3", "name": "q", "props": {}}], [("3", {})]),
    ],
)
def test_merging(left: Any, right: Any, merged: list[tuple[str, Any]]) -> None:
    before = copy.deepcopy((left, right))
    found = ui_message_reducer(left, right)
    assert [(one["id"], one["props"]) for one in found] == merged
    assert (left, right) == before
    assert found is not left


def test_removing_what_is_not_there() -> None:
    with refused(ValueError, "'9'"):
        ui_message_reducer([piece("1")], [remove("9")])


@pytest.mark.parametrize("bad", [None, 3, {"type": "ui"}, ["x"]])
def test_what_is_no_piece(bad: Any) -> None:
    for sides in ((bad, [piece("1")]), ([piece("1")], bad)):
        with refused(ValueError, "piece"):
            ui_message_reducer(*sides)


def chart(state: State) -> Any:
    push_ui_message("chart", {"a": 1}, id="1", metadata={"x": 9, "name": "mine"}, message=Message(role="user", id="m"))
    push_ui_message("chart", {"b": 2}, id="1", merge=True)
    push_ui_message("hint", {}, id="2", message={"id": "n"}, state_key=None)
    return {}


def about(**more: Any) -> dict[str, Any]:
    return {"merge": False, "run_id": None, "tags": ["t"], "name": None, **more}


PIECES: list[Any] = [
    {
        "type": "ui",
        "id": "1",
        "name": "chart",
        "props": {"a": 1},
        "metadata": about(x=9, name="mine", message_id="m"),
    },
    {"type": "ui", "id": "1", "name": "chart", "props": {"b": 2}, "metadata": about(merge=True)},
    {"type": "ui", "id": "2", "name": "hint", "props": {}, "metadata": about(message_id="n")},
]


def test_pieces_are_shown_and_written(colour: Colour) -> None:
    graph = StateGraph(State).add_node("n", colour.node(chart)).add_edge(START, "n").compile()
    chunks = colour.stream(graph, {"messages": "hi"}, {"tags": ["t"]}, stream_mode=["custom", "updates", "values"])
    assert [payload for mode, payload in chunks if mode == "custom"] == PIECES
    assert [payload for mode, payload in chunks if mode == "updates"] == [{"n": [{"ui": p} for p in PIECES[:2]]}]
    assert chunks[-1][1]["ui"] == [{**PIECES[1], "props": {"a": 1, "b": 2}}]


def test_a_piece_without_an_id_gets_one_and_can_be_deleted_after_a_restart(colour: Colour, saver: Any) -> None:
    def show(state: State) -> Any:
        push_ui_message("chart", {"a": 1})
        return {}

    def hide(state: State) -> Any:
        interrupt("hide?")
        assert delete_ui_message(state["ui"][0]["id"])["type"] == "remove-ui"
        return {}

    def graph() -> Any:
        builder = StateGraph(State).add_node("show", colour.node(show)).add_node("hide", colour.node(hide))
        return builder.add_edge(START, "show").add_edge("show", "hide").compile(checkpointer=saver)

    config = {"configurable": {"thread_id": "t"}}
    (shown,) = colour.invoke(graph(), {"messages": "hi"}, config)["ui"]
    assert (shown["props"], len(shown["id"])) == ({"a": 1}, 36)
    chunks = colour.stream(graph(), Command(resume=1), config, stream_mode=["custom", "values"])
    assert ("custom", {"type": "remove-ui", "id": shown["id"]}) in chunks
    assert chunks[-1][1]["ui"] == []


def test_outside_of_a_node() -> None:
    with refused(RuntimeError, "push_ui_message"):
        push_ui_message("chart", {})
    with refused(RuntimeError, "delete_ui_message"):
        delete_ui_message("1")
