"""What is stored when a node edits what it was given (design.md D23): the checkpoint holds what the run went on with."""

import operator
import warnings
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from pregel.graph import START, StateGraph
from pregel.graph.message import add_messages
from pregel.messages import Message
from pregel.types import interrupt
from pregel.warnings import PregelWarning
from tests.support.scenarios import Colour


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {**old, **new}


class Chat(TypedDict, total=False):
    """A list merged by id, a dict merged by key, a list that only grows, and one written whole."""

    messages: Annotated[list[Any], add_messages]
    docs: Annotated[dict[str, Any], merged]
    log: Annotated[list[Any], operator.add]
    whole: list[Any]


def said(n: int) -> Message:
    return Message(role="user", content=f"{n} " + "x" * 80, id=str(n))


def filled(_: Chat) -> Chat:
    return {
        "messages": [said(n) for n in range(40)],
        "docs": {f"d{n}": {"text": "y" * 80} for n in range(40)},
        "log": [{"n": n, "text": "z" * 80} for n in range(40)],
        "whole": [{"n": n, "text": "w" * 80} for n in range(40)],
    }


def edited_and_returned(state: Chat) -> Chat:
    message, entry, row = state["messages"][7], state["log"][9], state["whole"][3]
    doc = state["docs"]["d5"]
    message["content"], doc["text"], entry["n"], row["n"] = "edited", "edited", "edited", "edited"
    return {"messages": [message], "docs": {"d5": doc}, "log": [entry], "whole": state["whole"]}


def run(colour: Colour, *nodes: Any, **compile: Any) -> Any:
    builder = StateGraph(Chat)
    before = START
    for node in nodes:
        builder.add_node(node.__name__, colour.node(node))
        builder.add_edge(before, node.__name__)
        before = node.__name__
    return builder.compile(**compile)


def reading(seen: list[Any]) -> Any:
    def read(state: Chat) -> None:
        seen.append(
            (
                state["messages"][7]["content"],
                state["docs"]["d5"],
                state["log"][9]["n"],
                len(state["log"]),
                state["whole"][3],
            )
        )

    return read


def test_what_is_edited_and_returned_is_stored(colour: Colour, saver: Any, thread: Any, durability: Any) -> None:
    seen: list[Any] = []

    def ask(state: Chat) -> None:
        interrupt("go on?")

    graph = run(colour, filled, edited_and_returned, ask, reading(seen), checkpointer=saver)
    live = colour.invoke(graph, {}, thread, durability=durability)
    stored = colour.get_state(graph, thread).values
    assert stored == {key: live[key] for key in stored}
    assert stored["messages"][7]["content"] == "edited"
    assert (stored["docs"]["d5"], stored["whole"][3]["n"]) == ({"text": "edited"}, "edited")
    assert [entry["n"] for entry in stored["log"]][9::31] == ["edited", "edited"]


def test_the_checkpoint_before_the_edit_is_as_it_was(colour: Colour, saver: Any, thread: Any) -> None:
    graph = run(colour, filled, edited_and_returned, checkpointer=saver)
    colour.invoke(graph, {}, thread)
    before = colour.history(graph, thread)[1].values
    assert before["messages"][7]["content"].startswith("7 ")
    assert (before["docs"]["d5"]["text"], before["log"][9]["n"], before["whole"][3]["n"]) == ("y" * 80, 9, 3)


def edited_behind(state: Chat) -> None:
    state["log"][2]["text"] = "edited behind everybody's back"


def growing(state: Chat) -> Chat:
    return {"log": [{"n": n, "text": "new"} for n in range(50)]}


def closing(state: Chat) -> Chat:
    return {"log": [{"n": -1, "text": "last"}]}


def test_what_is_edited_and_not_returned_is_told(colour: Colour, saver: Any, thread: Any) -> None:
    graph = run(colour, filled, edited_behind, growing, closing, checkpointer=saver)
    with pytest.warns(PregelWarning, match="'log'"):
        live = colour.invoke(graph, {}, thread)
    stored = colour.get_state(graph, thread).values
    assert stored["log"] == live["log"]
    assert stored["log"][2]["text"] == "edited behind everybody's back"


def test_what_is_edited_and_not_returned_is_an_error_under_strict(colour: Colour, saver: Any, thread: Any) -> None:
    graph = run(colour, filled, edited_behind, growing, closing, checkpointer=saver, strict=True)
    with pytest.raises(PregelWarning, match="'log'"):
        colour.invoke(graph, {}, thread)
    # The step itself is stored, healed: nothing is lost and the thread goes on.
    assert colour.get_state(graph, thread).values["log"][2]["text"] == "edited behind everybody's back"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        colour.invoke(graph, None, thread)


def test_a_subgraph_edits_its_own(colour: Colour, saver: Any, thread: Any) -> None:
    inner = run(colour, filled, edited_and_returned)
    outer = StateGraph(Chat).add_node("inner", inner).add_edge(START, "inner").compile(checkpointer=saver)
    live = colour.invoke(outer, {}, thread)
    assert live["messages"][7]["content"] == "edited"
    assert colour.get_state(outer, thread).values == live
