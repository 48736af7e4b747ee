"""Tokens of a model that a program asks by itself, without langchain-core: shown in stream mode `messages` as they come.

Decides how pieces of an answer become one message: text is joined, calls of tools are put together by their index. Knows
what OpenAI's chat completions and responses and Anthropic's messages stream, strings and plain dicts; for another client's
chunks say what to take of one. No client is imported: what they give is told by its fields. What is shown, and to whom, is
decided where the node's other messages are (`pregel._scope.TaskScope.say`).

Invariants
1. All pieces of an answer have one id, and it is the id of the whole: what the node returns of it is not shown again.
2. Returning the whole is up to the node: nothing is written to the state from here.

Source: OpenAI's references of streamed chat completions and responses, Anthropic's of streamed messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, Final

from pregel import _scope
from pregel.errors import shown
from pregel.messages import Message, new_id

__all__ = ["MessageWriter", "astream_message", "delta_of", "get_message_writer", "stream_message"]


class MessageWriter:
    """Shows an answer piece by piece, and puts it together. Belongs to the attempt of a task that made it."""

    __slots__ = ("_calls", "_scope", "_started", "message")

    def __init__(self, scope: _scope.TaskScope, message: Message) -> None:
        self._scope = scope
        self._started = message.get("id") is not None
        self.message = message
        """The answer so far; the same object until its end."""
        message.setdefault("id", new_id())
        self._calls: dict[Any, dict[str, Any]] = {}
        """Calls of tools by what the pieces name them with."""

    def __call__(self, piece: str | Mapping[str, Any] | None) -> None:
        """Show a piece and add it to the answer.

        Args:
            piece: Text, or a part of a message: `content`, `tool_calls` as they are streamed (each with its `index`), and
                other keys, of which texts are joined and others replaced. The first piece may give `role` and `id`. None
                and pieces without anything are not shown.

        Raises:
            AttemptClosedError: the task's attempt is over.
        """
        if not piece:
            return
        part: Mapping[str, Any] = {"content": piece} if isinstance(piece, str) else piece
        whole = self.message
        if not self._started:
            self._started = True
            whole["id"] = part.get("id") or whole["id"]
        whole["role"] = part.get("role") or whole["role"]
        said = {key: value for key, value in part.items() if value and key not in ("id", "role")}
        if not said:
            return
        for key, value in said.items():
            if key == "tool_calls":
                self._join_calls(value)
            elif isinstance(value, str) and isinstance(whole.get(key), str):
                whole[key] += value
            else:
                whole[key] = value
        self._scope.say(Message({"role": whole["role"], "content": "", "id": whole["id"], **said}))

    def finish(self) -> Message:
        """The answer, with `{}` for the arguments of a call that was streamed without any."""
        for call in self._calls.values():
            call["function"]["arguments"] = call["function"]["arguments"] or "{}"
        return self.message

    def _join_calls(self, pieces: Iterable[Mapping[str, Any]]) -> None:
        """Add pieces of tool calls: names and arguments are texts that go on, everything else is given once."""
        calls: list[dict[str, Any]] = self.message.setdefault("tool_calls", [])
        for piece in pieces:
            index = piece.get("index", ("whole", len(calls)))
            call = self._calls.get(index)
            if call is None:
                call = self._calls[index] = {"id": None, "type": "function", "function": {"name": "", "arguments": ""}}
                calls.append(call)
            function = piece.get("function") or {}
            call["id"] = piece.get("id") or call["id"]
            for key in ("name", "arguments"):
                call["function"][key] += function.get(key) or ""


def get_message_writer(role: str = "assistant", *, id: str | None = None) -> MessageWriter:
    """Return what shows an answer of the node that is running here, piece by piece.

    Args:
        role: Of the answer.
        id: Of the answer; else the first piece's, else a random one.

    Raises:
        RuntimeError: outside of a running node.
    """
    message = Message(role=role, content="")
    if id is not None:
        message["id"] = id
    return MessageWriter(_scope.current("get_message_writer()"), message)


def stream_message(
    chunks: Iterable[Any],
    *,
    delta: Callable[[Any], str | Mapping[str, Any] | None] | None = None,
    role: str = "assistant",
    id: str | None = None,
) -> Message:
    """Show an answer while its chunks come, and return it whole: `return {"messages": [stream_message(chunks)]}`.

    Args:
        chunks: What the client gives with `stream=True`.
        delta: What of a chunk is said: text, a part of a message, or None; `delta_of` if not given.
        role: Of the answer, if the chunks do not say.
        id: Of the answer; else the chunks', else a random one.

    Raises:
        RuntimeError: outside of a running node.
        TypeError: a chunk is of a kind that `delta_of` does not know.
    """
    write, read = get_message_writer(role, id=id), delta or delta_of
    for chunk in chunks:
        write(read(chunk))
    return write.finish()


async def astream_message(
    chunks: AsyncIterable[Any],
    *,
    delta: Callable[[Any], str | Mapping[str, Any] | None] | None = None,
    role: str = "assistant",
    id: str | None = None,
) -> Message:
    """Async form of `stream_message`."""
    write, read = get_message_writer(role, id=id), delta or delta_of
    async for chunk in chunks:
        write(read(chunk))
    return write.finish()


def delta_of(chunk: Any) -> str | Mapping[str, Any] | None:
    """Return what a streamed chunk says, None for nothing: text, or a part of a message.

    Args:
        chunk: Text, a part of a message as a dict, a chunk of OpenAI's chat completions (the first choice counts, under
            the id of the completion), an event of OpenAI's responses or of Anthropic's messages; objects or dicts.

    Raises:
        TypeError: it is something else.
    """
    if chunk is None or isinstance(chunk, str):
        return chunk
    choices = _field(chunk, "choices")
    if choices is not None:
        if not choices:
            return None  # the chunk that tells the usage
        part = _plain(_field(choices[0], "delta"))
        return {**part, "id": _field(chunk, "id")}
    if isinstance(chunk, Mapping) and ("content" in chunk or "tool_calls" in chunk):
        return chunk
    kind = _field(chunk, "type")
    if isinstance(kind, str):
        if kind in EVENTS:
            said: str | Mapping[str, Any] | None = EVENTS[kind](chunk)
            return said
        if kind.startswith(("response.", "message_", "content_block_")) or kind in SILENT:
            return None
    raise TypeError(
        f"cannot tell what the chunk {shown(chunk)} ({type(chunk).__module__}.{type(chunk).__qualname__}) says; expected "
        f"text, a dict with 'content' or 'tool_calls', or what OpenAI's or Anthropic's client streams: pass delta=, a "
        f"function that returns the text of a chunk"
    )


# ---- events of other streams


def _call_piece(index: Any, *, id: str | None = None, name: str | None = None, arguments: str | None = None) -> Any:
    return {"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]}


def _response_item(event: Any) -> Any:
    item = _field(event, "item")
    if _field(item, "type") != "function_call":
        return None
    return _call_piece(_field(event, "output_index"), id=_field(item, "call_id"), name=_field(item, "name"))


def _response_arguments(event: Any) -> Any:
    return _call_piece(_field(event, "output_index"), arguments=_field(event, "delta"))


def _block_start(event: Any) -> Any:
    block = _field(event, "content_block")
    if _field(block, "type") != "tool_use":
        return _field(block, "text")
    return _call_piece(_field(event, "index"), id=_field(block, "id"), name=_field(block, "name"))


def _block_delta(event: Any) -> Any:
    delta = _field(event, "delta")
    if _field(delta, "type") == "input_json_delta":
        return _call_piece(_field(event, "index"), arguments=_field(delta, "partial_json"))
    return _field(delta, "text")


EVENTS: Final[dict[str, Callable[[Any], Any]]] = {
    "response.created": lambda event: {"id": _field(_field(event, "response"), "id")},
    "response.output_text.delta": lambda event: _field(event, "delta"),
    "response.output_item.added": _response_item,
    "response.function_call_arguments.delta": _response_arguments,
    "message_start": lambda event: {"id": _field(_field(event, "message"), "id")},
    "content_block_start": _block_start,
    "content_block_delta": _block_delta,
}
"""Events that say something, by their type."""
SILENT: Final = frozenset({"ping", "text", "input_json", "thinking", "signature", "citation"})
"""Others of the same streams: signs of life, and what Anthropic's helper repeats in another form."""


def _field(source: Any, name: str) -> Any:
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)


def _plain(part: Any) -> Mapping[str, Any]:
    """A delta as a dict, whatever the client's objects are."""
    if part is None:
        return {}
    if isinstance(part, Mapping):
        return part
    if hasattr(part, "model_dump"):
        dumped: Mapping[str, Any] = part.model_dump()
        return dumped
    calls = [
        {
            "index": _field(call, "index"),
            "id": _field(call, "id"),
            "function": {key: _field(_field(call, "function"), key) for key in ("name", "arguments")},
        }
        for call in _field(part, "tool_calls") or ()
    ]
    found = {"role": _field(part, "role"), "content": _field(part, "content"), "tool_calls": calls}
    return {key: value for key, value in found.items() if value}
