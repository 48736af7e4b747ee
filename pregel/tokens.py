"""Tokens of a model that a program asks by itself, without langchain-core: shown in stream mode `messages` as they come.

Decides how pieces of an answer become one message: text is joined, calls of tools are put together by their index. Knows
the pieces that OpenAI's chat completions stream, strings and plain dicts; for another client's say what to take of one.
What is shown, and to whom, is decided where the node's other messages are (`pregel._scope.TaskScope.say`).

Invariants
1. All pieces of an answer have one id, and it is the id of the whole: what the node returns of it is not shown again.
2. Returning the whole is up to the node: nothing is written to the state from here.

Source: OpenAI's reference of streamed chat completions.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any

from pregel import _scope
from pregel.errors import shown
from pregel.messages import Message, new_id

__all__ = ["MessageWriter", "astream_message", "delta_of", "get_message_writer", "stream_message"]


class MessageWriter:
    """Shows an answer piece by piece, and puts it together. Belongs to the attempt of a task that made it."""

    __slots__ = ("_scope", "_started", "message")

    def __init__(self, scope: _scope.TaskScope, message: Message) -> None:
        self._scope = scope
        self._started = message.get("id") is not None
        self.message = message
        """The answer so far; the same object until its end."""
        message.setdefault("id", new_id())

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
                _join_calls(whole.setdefault("tool_calls", []), value)
            elif isinstance(value, str) and isinstance(whole.get(key), str):
                whole[key] += value
            else:
                whole[key] = value
        self._scope.say(Message({"role": whole["role"], "content": "", "id": whole["id"], **said}))


def _join_calls(calls: list[dict[str, Any]], pieces: Iterable[Mapping[str, Any]]) -> None:
    """Add pieces of tool calls: names and arguments are texts that go on, everything else is given once."""
    for piece in pieces:
        at = piece.get("index", len(calls))
        while len(calls) <= at:
            calls.append({"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
        call, function = calls[at], piece.get("function") or {}
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
    return write.message


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
    return write.message


def delta_of(chunk: Any) -> str | Mapping[str, Any] | None:
    """Return what a streamed chunk says: of one of OpenAI's chat completions (an object or a dict) the first choice's
    delta, under the id of the completion; text, and parts of messages, as they are.

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
    raise TypeError(
        f"cannot tell what the chunk {shown(chunk)} ({type(chunk).__module__}.{type(chunk).__qualname__}) says; expected "
        f"text, a dict with 'content' or 'tool_calls', or a chunk of OpenAI's chat completions: pass delta=, a function "
        f"that returns the text of a chunk"
    )


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
