"""Mode `messages`: the message objects that nodes return, each shown once (engine.md 3.6, frontends.md 4.3)."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from checkpoint.memory import InMemorySaver
from pregel.channels import LastValue, Topic
from pregel.constants import TAG_HIDDEN
from pregel.graph import START, MessagesState, StateGraph, add_messages
from pregel.messages import Message
from pregel.pregel import NodeBuilder, Pregel
from pregel.types import Command, interrupt
from tests.support.scenarios import Colour

HELLO = {"messages": [Message(role="user", content="hello", id="h")]}


class State(MessagesState):
    other: Any


def ai(text: str, identity: str | None = None) -> Message:
    return Message(role="assistant", content=text, id=identity) if identity else Message(role="assistant", content=text)


def graph_of(colour: Colour, *bodies: Any, schema: Any = State, **options: Any) -> Any:
    """One node per body, in a chain, named `n0`, `n1`, ...; a body is a function or a graph."""
    builder = StateGraph(schema)
    before = START
    for number, body in enumerate(bodies):
        name = f"n{number}"
        builder.add_node(name, body if hasattr(body, "invoke") else colour.node(body)).add_edge(before, name)
        before = name
    return builder.compile(**options)


def shown(colour: Colour, graph: Any, **kw: Any) -> list[tuple[str, str]]:
    """(node, text) of every chunk."""
    return [
        (about["langgraph_node"], message.content)
        for message, about in colour.stream(graph, HELLO, stream_mode="messages", **kw)
    ]


@pytest.mark.parametrize(
    ("returned", "texts"),
    [
        ({"messages": [ai("a", "1"), ai("b", "2")]}, ["a", "b"]),
        ({"messages": ai("alone", "1")}, ["alone"]),
        ({"other": (ai("in a tuple", "1"),)}, ["in a tuple"]),
        (Command(update={"messages": [ai("c", "1")]}), ["c"]),
        ([{"other": ai("x", "1")}, Command(update={"messages": [ai("y", "2")]})], ["x", "y"]),
        ({"messages": [ai("once", "1")], "other": ai("once", "1")}, ["once"]),
        ({"other": {"deeper": ai("not searched", "1")}}, []),
        ({"messages": [{"role": "assistant", "content": "a plain dict"}, ("ai", "a pair"), "a string"]}, []),
        ({"messages": HELLO["messages"]}, []),
        (None, []),
    ],
)
def test_message_objects_at_the_top_of_an_update_are_shown(colour: Colour, returned: Any, texts: list[str]) -> None:
    graph = graph_of(colour, lambda state: returned)
    assert shown(colour, graph) == [("n0", text) for text in texts]


def test_a_message_without_an_id_is_shown_with_the_id_that_the_state_has(colour: Colour) -> None:
    graph = graph_of(colour, lambda state: {"messages": [ai("new")]})
    chunks = colour.stream(graph, HELLO, stream_mode=["messages", "values"])
    ((message, _),) = [payload for mode, payload in chunks if mode == "messages"]
    assert message.id is not None
    assert chunks[-1][1]["messages"][-1].id == message.id


def test_what_any_node_was_given_is_not_shown_when_another_returns_it(colour: Colour) -> None:
    graph = graph_of(
        colour,
        lambda state: {"messages": [ai("said", "s")]},
        lambda state: {"other": state["messages"]},
        lambda state: {"messages": [ai("last", "l")]},
    )
    assert shown(colour, graph) == [("n0", "said"), ("n2", "last")]


@dataclass
class Held:
    messages: Annotated[list[Any], add_messages] = field(default_factory=list)


class Modelled(BaseModel):
    messages: Annotated[list[Any], add_messages] = []


@pytest.mark.parametrize("schema", [Held, Modelled])
def test_dataclass_and_model_inputs_are_searched_too(colour: Colour, schema: Any) -> None:
    graph = graph_of(colour, lambda state: {"messages": [*state.messages, ai("new", "n")]}, schema=schema)
    assert shown(colour, graph) == [("n0", "new")]


def test_hidden_nodes_say_nothing(colour: Colour) -> None:
    def says(given: Any) -> Message:
        return ai(f"from {given}", given)

    graph = Pregel(
        nodes={
            "seen": NodeBuilder().subscribe_only("a").do(colour.node(says)).write_to("out"),
            "hidden": NodeBuilder().subscribe_only("b").do(colour.node(says)).write_to("out").meta(TAG_HIDDEN),
        },
        channels={"a": LastValue(str), "b": LastValue(str), "out": Topic(Message)},
        input_channels=["a", "b"],
        output_channels="out",
    )
    chunks = colour.stream(graph, {"a": "a", "b": "b"}, stream_mode="messages")
    assert [message.content for message, _ in chunks] == ["from a"]


def test_a_nested_message_is_shown_by_its_own_node_or_by_the_one_around_it(colour: Colour) -> None:
    inner = graph_of(colour, lambda state: {"messages": [ai("within", "w")]})
    outer = graph_of(colour, inner, lambda state: {"messages": [ai("after", "a")]})
    assert shown(colour, outer) == [("n0", "within"), ("n1", "after")]
    chunks = colour.stream(outer, HELLO, stream_mode="messages", subgraphs=True)
    places = [(len(path), message.content) for path, (message, _) in chunks]
    assert places == [(1, "within"), (0, "after")]


def test_metadata_says_where_and_for_whom(colour: Colour) -> None:
    graph = graph_of(colour, lambda state: {"messages": [ai("a", "1")]}, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}, "metadata": {"user": "u"}}
    ((_, about),) = colour.stream(graph, HELLO, config, stream_mode="messages")
    assert about["langgraph_step"] == 1
    assert about["langgraph_triggers"] == ("branch:to:n0",)
    assert about["langgraph_path"] == ("__pregel_pull", "n0")
    assert about["langgraph_checkpoint_ns"].startswith("n0:")
    assert about["thread_id"] == "t"
    assert about["user"] == "u"


def test_in_the_typed_form(colour: Colour) -> None:
    graph = graph_of(colour, lambda state: {"messages": [ai("a", "1")]})
    (part,) = colour.stream(graph, HELLO, stream_mode="messages", version="v2")
    assert (part["type"], part["ns"], part["data"][0].content) == ("messages", (), "a")


def test_a_resumed_run_shows_what_is_said_after_the_question(colour: Colour) -> None:
    graph = graph_of(
        colour,
        lambda state: {"messages": [ai("before", "b")]},
        lambda state: {"messages": [ai(interrupt("?"), "c")]},
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "t"}}
    assert shown(colour, graph, config=config) == [("n0", "before")]
    chunks = colour.stream(graph, Command(resume="after"), config, stream_mode="messages")
    assert [message.content for message, _ in chunks] == ["after"]
