"""Tokens of models that are asked without langchain-core (frontends.md 7.7 b and c)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from pregel.errors import AttemptClosedError
from pregel.graph import START, MessagesState, StateGraph
from pregel.messages import Message
from pregel.tokens import MessageWriter, astream_message, delta_of, get_message_writer, stream_message
from tests.support.scenarios import Colour, refused

HELLO: dict[str, Any] = {"messages": [("user", "hi")]}


def graph_of(node: Any, name: str = "n") -> Any:
    return StateGraph(MessagesState).add_node(name, node).add_edge(START, name).compile()


def streams(colour: Colour, chunks: list[Any], **options: Any) -> Any:
    """A graph whose node streams these chunks and returns the message."""

    def pieces() -> Iterator[Any]:
        yield from chunks

    async def apieces() -> AsyncIterator[Any]:
        for chunk in chunks:
            yield chunk

    def node(state: MessagesState) -> Any:
        return {"messages": [stream_message(pieces(), **options)]}

    async def anode(state: MessagesState) -> Any:
        return {"messages": [await astream_message(apieces(), **options)]}

    return graph_of(anode if colour.is_async else node)


def completion(id: str = "c", **delta: Any) -> dict[str, Any]:
    """A chunk of a streamed chat completion."""
    return {"id": id, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}


def as_objects(value: Any) -> Any:
    if isinstance(value, dict):
        return SimpleNamespace(**{key: as_objects(one) for key, one in value.items()})
    return [as_objects(one) for one in value] if isinstance(value, list) else value


class Delta(BaseModel):
    """As a client's models are: every field is there, mostly empty."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


def as_models(chunk: dict[str, Any]) -> Any:
    choices = [SimpleNamespace(index=0, delta=Delta(**choice["delta"])) for choice in chunk["choices"]]
    return SimpleNamespace(id=chunk["id"], choices=choices)


def call(index: int, arguments: str = "", **more: Any) -> dict[str, Any]:
    return {"index": index, **more, "function": {"name": more.get("id") and f"f{index}", "arguments": arguments}}


@pytest.mark.parametrize("form", [lambda chunk: chunk, as_objects, as_models], ids=["dicts", "objects", "models"])
def test_a_streamed_completion(colour: Colour, form: Callable[[Any], Any]) -> None:
    chunks = [
        completion(role="assistant", content=""),
        completion(content="Hel"),
        completion(content="lo"),
        completion(tool_calls=[call(0, id="a")]),
        completion(tool_calls=[call(0, '{"x"')]),
        completion(tool_calls=[call(1, '{"y": 2}', id="b"), call(0, ": 1}")]),
        completion(),
        {"id": "c", "choices": []},
    ]
    shown = colour.stream(streams(colour, [form(chunk) for chunk in chunks]), HELLO, stream_mode=["messages", "values"])
    pieces = [payload[0] for mode, payload in shown if mode == "messages"]
    assert [piece.content for piece in pieces] == ["Hel", "lo", "", "", ""]
    assert {piece.id for piece in pieces} == {"c"}
    whole = shown[-1][1]["messages"][-1]
    assert type(whole) is Message
    assert (whole.role, whole.content, whole.id) == ("assistant", "Hello", "c")
    assert whole.tool_calls == [
        {"name": "f0", "args": {"x": 1}, "id": "a", "type": "tool_call"},
        {"name": "f1", "args": {"y": 2}, "id": "b", "type": "tool_call"},
    ]


RESPONSE: list[dict[str, Any]] = [
    {"type": "response.created", "response": {"id": "c"}},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "i0"}},
    {"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"},
    {"type": "response.output_text.delta", "output_index": 0, "delta": "lo"},
    {"type": "response.output_text.done", "output_index": 0, "text": "Hello"},
    {
        "type": "response.output_item.added",
        "output_index": 1,
        "item": {"type": "function_call", "id": "i1", "call_id": "a", "name": "f0"},
    },
    {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"x"'},
    {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": ": 1}"},
    {"type": "response.completed", "response": {"id": "c"}},
]
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "c", "role": "assistant", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "text", "text": "Hel", "snapshot": "Hel"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "a", "name": "f0"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"x"'}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ": 1}"}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
    {"type": "message_stop"},
]


@pytest.mark.parametrize("events", [RESPONSE, EVENTS], ids=["responses", "anthropic"])
@pytest.mark.parametrize("form", [lambda event: event, as_objects], ids=["dicts", "objects"])
def test_streamed_events(colour: Colour, events: list[dict[str, Any]], form: Callable[[Any], Any]) -> None:
    graph = streams(colour, [form(event) for event in events])
    shown = colour.stream(graph, HELLO, stream_mode=["messages", "values"])
    pieces = [payload[0] for mode, payload in shown if mode == "messages"]
    assert [piece.content for piece in pieces] == ["Hel", "lo", "", "", ""]
    assert {piece.id for piece in pieces} == {"c"}
    whole = shown[-1][1]["messages"][-1]
    assert (whole.content, whole.id) == ("Hello", "c")
    assert whole.tool_calls == [{"name": "f0", "args": {"x": 1}, "id": "a", "type": "tool_call"}]


def test_a_call_without_arguments(colour: Colour) -> None:
    start = {"type": "content_block_start", "index": 4, "content_block": {"type": "tool_use", "id": "a", "name": "f"}}
    empty = {"type": "content_block_delta", "index": 4, "delta": {"type": "input_json_delta", "partial_json": ""}}
    whole = colour.invoke(streams(colour, [start, empty]), HELLO)["messages"][-1]
    assert whole.tool_calls == [{"name": "f", "args": {}, "id": "a", "type": "tool_call"}]


@pytest.mark.parametrize(
    ("chunks", "options", "texts"),
    [
        (["a", "", "b", None], {}, ["a", "b"]),
        ([{"content": "a"}, {"content": "b", "role": "user"}], {}, ["a", "b"]),
        ([1, 2], {"delta": str}, ["1", "2"]),
        ([1, 2], {"delta": lambda n: None if n == 1 else {"content": "x"}}, ["x"]),
        ([], {}, []),
    ],
)
def test_pieces_of_any_kind(colour: Colour, chunks: list[Any], options: Any, texts: list[str]) -> None:
    shown = colour.stream(streams(colour, chunks, id="m", **options), HELLO, stream_mode=["messages", "values"])
    pieces = [payload[0] for mode, payload in shown if mode == "messages"]
    assert [piece.content for piece in pieces if piece.content] == texts
    whole = shown[-1][1]["messages"][-1]
    assert (whole.content, whole.id) == ("".join(texts), "m")
    without = colour.invoke(streams(colour, chunks, id="m", **options), HELLO)
    assert without["messages"][-1] == whole


def test_pieces_are_shown_with_the_nodes_metadata_and_share_a_random_id(colour: Colour) -> None:
    chunks = colour.stream(streams(colour, ["a", "b"]), HELLO, {"metadata": {"u": 1}}, stream_mode="messages")
    assert [(about["langgraph_node"], about["u"]) for _, about in chunks] == [("n", 1)] * 2
    assert len({message.id for message, _ in chunks}) == 1


def test_a_writer_in_hand(colour: Colour) -> None:
    def node(state: MessagesState) -> Any:
        write = get_message_writer("tool")
        write({"content": "a", "id": "mine", "tool_call_id": "c"})
        write({"content": "b", "reasoning": "x", "id": "late"})
        write({"reasoning": "y"})
        return {"messages": [write.message]}

    shown = colour.stream(graph_of(colour.node(node)), HELLO, stream_mode=["messages", "values"])
    pieces = [payload[0] for mode, payload in shown if mode == "messages"]
    assert [dict(piece) for piece in pieces] == [
        {"role": "tool", "content": "a", "id": "mine", "tool_call_id": "c"},
        {"role": "tool", "content": "b", "id": "mine", "reasoning": "x"},
        {"role": "tool", "content": "", "id": "mine", "reasoning": "y"},
    ]
    assert shown[-1][1]["messages"][-1] == {
        "role": "tool",
        "content": "ab",
        "id": "mine",
        "tool_call_id": "c",
        "reasoning": "xy",
    }


def test_tokens_of_a_nested_graph(colour: Colour) -> None:
    outer = graph_of(streams(colour, ["a", "b"], id="m"), "out")
    assert [message.content for message, _ in colour.stream(outer, HELLO, stream_mode="messages")] == ["ab"]
    chunks = colour.stream(outer, HELLO, stream_mode="messages", subgraphs=True)
    assert [(len(path), message.content) for path, (message, _) in chunks] == [(1, "a"), (1, "b")]


def test_each_piece_leaves_at_once() -> None:
    produced: list[int] = []

    def pieces() -> Iterator[str]:
        for number in range(100):
            produced.append(number)
            yield str(number)

    def node(state: MessagesState) -> Any:
        return {"messages": [stream_message(pieces())]}

    with graph_of(node).stream(HELLO, stream_mode="messages", buffer=4) as chunks:
        assert next(chunks)[0].content == "0"
        assert len(produced) < 20


def test_an_async_node_waits_for_a_slow_reader_where_it_awaits() -> None:
    produced: list[int] = []

    async def pieces() -> AsyncIterator[str]:
        for number in range(100):
            produced.append(number)
            yield str(number)
            await asyncio.sleep(0)

    async def node(state: MessagesState) -> Any:
        return {"messages": [await astream_message(pieces())]}

    async def read() -> list[str]:
        texts = []
        async with graph_of(node).astream(HELLO, stream_mode="messages", buffer=4) as chunks:
            async for message, _ in chunks:
                assert len(produced) <= len(texts) + 10
                texts.append(message.content)
        return texts

    assert asyncio.run(read()) == [str(number) for number in range(100)]


@pytest.mark.parametrize("chunk", [3, {"other": 1}, {"type": "other"}, {"type": 3}, ...], ids=repr)
def test_chunks_that_say_nothing_we_know(colour: Colour, chunk: Any) -> None:
    with refused(TypeError, "delta="):
        delta_of(chunk)
    assert isinstance(colour.outcome(streams(colour, [chunk]), HELLO)[1], TypeError)


def test_outside_of_a_node_and_after_it() -> None:
    with refused(RuntimeError, "get_message_writer"):
        stream_message(["a"])
    kept: list[MessageWriter] = []

    def node(state: MessagesState) -> Any:
        kept.append(get_message_writer())
        return {}

    graph_of(node).invoke(HELLO)
    with pytest.raises(AttemptClosedError):
        kept[0]("late")
