"""Mode `messages` in workflows of functions: what tasks and entrypoints say (frontends.md 1.5, 4.3)."""

from __future__ import annotations

from typing import Any

from pregel.func import entrypoint, task
from pregel.graph.message import push_message
from pregel.messages import Message
from pregel.tokens import stream_message
from tests.support.langchain import Library
from tests.support.scenarios import Colour

HELLO = "hi"


def ai(text: str, identity: str) -> Message:
    return Message(role="assistant", content=text, id=identity)


def shown(colour: Colour, flow: Any, **kw: Any) -> list[tuple[str, str]]:
    """(task, text) of every chunk."""
    chunks = colour.stream(flow, HELLO, stream_mode="messages", **kw)
    return [(about["langgraph_node"], message.content) for message, about in chunks]


def flow_of(colour: Colour, called: Any) -> Any:
    """A workflow that calls one task and returns what it returned, and a message of its own."""
    if colour.is_async:

        @entrypoint()
        async def aflow(text: str) -> Any:
            return [await called(text), ai("done", "d")]

        return aflow

    @entrypoint()
    def flow(text: str) -> Any:
        return [called(text).result(), ai("done", "d")]

    return flow


def test_what_a_task_says_is_shown_under_its_name(colour: Colour) -> None:
    def says(text: str) -> Any:
        push_message(ai("first", "f"), state_key=None)
        return stream_message(["to", "ken"], id="t")

    flow = flow_of(colour, task(colour.node(says)))
    name = "aflow" if colour.is_async else "flow"
    assert shown(colour, flow) == [("says", "first"), ("says", "to"), ("says", "ken"), (name, "done")]
    result = colour.invoke(flow, HELLO)
    assert [message.content for message in result] == ["token", "done"]


def test_tokens_of_the_librarys_models_in_tasks(colour: Colour, lc: Library) -> None:
    def says(text: str) -> Any:
        return lc.model("a b").invoke(text)

    async def asays(text: str) -> Any:
        return await lc.model("a b").ainvoke(text)

    flow = flow_of(colour, task(asays if colour.is_async else says))
    name = "asays" if colour.is_async else "says"
    assert shown(colour, flow) == [
        (name, "a"),
        (name, " "),
        (name, "b"),
        ("aflow" if colour.is_async else "flow", "done"),
    ]


def test_a_plain_dict_is_shown_and_returned_as_it_is(colour: Colour) -> None:
    def says(text: str) -> Any:
        return {"role": "assistant", "content": text}

    flow = flow_of(colour, task(colour.node(says)))
    chunks = colour.stream(flow, HELLO, stream_mode=["messages", "updates"])
    assert ("says", HELLO) in [(p[1]["langgraph_node"], p[0].content) for mode, p in chunks if mode == "messages"]
    assert type(colour.invoke(flow, HELLO)[0]) is dict
