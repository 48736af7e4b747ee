"""Chat messages without a dependency: a dict in the OpenAI chat shape that also reads like an object.

Decides what counts as a message (strings, pairs, dicts, objects of other libraries) and which type it is. Does not know
reducers or graphs; `pregel.graph.message` merges lists of messages.

Where langchain-core is already imported its message objects are recognised and its own converter is used. It is never
imported from here (D14): a program that has one of its objects has loaded it.

Shape. A `Message` holds `role` (`user`, `assistant`, `system`, `developer`, `tool`, `function`, `remove`), `content`
(a string or a list of content blocks), and if given `id`, `name`, `tool_calls` (OpenAI form), `tool_call_id` and any
further key. So it can be handed to a model client as it is. Attributes give LangChain's view of the same thing:
`m.type` (`human`, `ai`, ...), `m.tool_calls` as `{"name", "args", "id", "type": "tool_call"}`.

Source of the behaviour: LangChain's documentation of message coercion; OpenAI's chat completions reference.
"""

from __future__ import annotations

import json
import os
import sys
from _blake2 import blake2b  # hashlib's own, without loading OpenSSL
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from checkpoint.registry import register_codec
from pregel.errors import shown

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping
    from types import ModuleType

__all__ = [
    "REMOVE_ALL_MESSAGES",
    "AnyMessage",
    "Message",
    "RemoveMessage",
    "convert_to_messages",
    "is_message",
    "message_id",
    "message_type",
    "tool_calls_of",
]

REMOVE_ALL_MESSAGES: Final = "__remove_all__"
"""Id of a `RemoveMessage` that stands for every message before it."""

TYPE_BY_ROLE: Final[dict[str, str]] = {
    "user": "human",
    "human": "human",
    "assistant": "ai",
    "ai": "ai",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "function",
    "remove": "remove",
}

ROLE_BY_WORD: Final[dict[str, str]] = {word: word for word in TYPE_BY_ROLE} | {"human": "user", "ai": "assistant"}

DEFAULTS: Final[dict[str, Any]] = {
    "id": None,
    "name": None,
    "tool_call_id": None,
    "status": "success",
    "artifact": None,
    "usage_metadata": None,
}
"""What reading an absent key as an attribute gives; other absent keys raise AttributeError."""

STANDARD_KEYS: Final = frozenset(
    {
        "role",
        "content",
        "id",
        "name",
        "tool_calls",
        "tool_call_id",
        "artifact",
        "status",
        "response_metadata",
        "usage_metadata",
        "additional_kwargs",
    }
)


class Message(dict[str, Any]):
    """A chat message: a dict in the OpenAI shape whose keys are attributes as well.

    `Message(role="user", content="hi")`. Every key is an attribute, and assigning to an attribute sets the key; but
    names that are methods of `dict` stay methods (`m.items`, `m.copy`), and such a key is read with `m["items"]`. The
    properties below are computed on each access.
    """

    __slots__ = ()

    role: str
    content: str | list[Any]
    id: str | None
    name: str | None
    tool_call_id: str | None
    status: str
    artifact: Any
    response_metadata: dict[str, Any]
    usage_metadata: Any

    def __getattr__(self, name: str) -> Any:
        """Return the value of a key, or what a message without it stands for."""
        try:
            return self[name]
        except KeyError:
            if name in DEFAULTS:
                return DEFAULTS[name]
            if name == "response_metadata":
                return {}
            raise AttributeError(f"message has no {name!r}; it has {sorted(map(str, self))}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a key; methods and properties without a setter raise AttributeError."""
        if hasattr(type(self), name):
            object.__setattr__(self, name, value)
        else:
            self[name] = value

    def __delattr__(self, name: str) -> None:
        """Delete a key."""
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"message has no {name!r}; it has {sorted(map(str, self))}") from None

    @property
    def type(self) -> str:
        """`human`, `ai`, `system`, `tool`, `function` or `remove`; an unknown role is its own type."""
        role: str = self["role"]
        return TYPE_BY_ROLE.get(role, role)

    @property
    def text(self) -> str:
        """The content's text: the string, or all text blocks joined without a separator."""
        content = self["content"]
        if isinstance(content, str):
            return content
        return "".join(
            block if isinstance(block, str) else block["text"]
            for block in content
            if isinstance(block, str) or (isinstance(block, dict) and block.get("type") == "text")
        )

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The calls that the model asks for, as `{"name", "args", "id", "type": "tool_call"}`; a new list."""
        return _read_calls(self.get("tool_calls"))[0]

    @tool_calls.setter
    def tool_calls(self, calls: Iterable[Mapping[str, Any]]) -> None:
        self["tool_calls"] = [_openai_call(call) for call in calls]

    @property
    def invalid_tool_calls(self) -> list[dict[str, Any]]:
        """Calls whose arguments are not a JSON object, as `{"name", "args": the raw text, "id", "error", "type"}`."""
        return _read_calls(self.get("tool_calls"))[1]

    @property
    def additional_kwargs(self) -> dict[str, Any]:
        """Every further key; a new dict, so editing it changes nothing."""
        extra = {key: value for key, value in self.items() if key not in STANDARD_KEYS}
        return extra | (self.get("additional_kwargs") or {})

    def copy(self) -> Self:
        """Return a shallow copy of the same class."""
        twin = self.__class__.__new__(self.__class__)
        dict.update(twin, self)
        return twin

    __copy__ = copy

    def __or__(self, other: Mapping[str, Any]) -> Self:  # type: ignore[override]
        """Return a copy with the keys of `other`, of the same class."""
        if not isinstance(other, dict):
            return NotImplemented
        twin = self.copy()
        twin.update(other)
        return twin

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.items())})"

    def pretty_repr(self) -> str:
        """Return the message as text for people: a title line, the content, the tool calls."""
        lines = [f" {self.type.title()} Message ".center(80, "=")]
        if self.name:
            lines.append(f"Name: {self.name}")
        content = self["content"]
        text = content if isinstance(content, str) else self.text or repr(content)
        is_answer = self.type == "ai"
        if text.strip() or not is_answer:
            lines += ["", text.rstrip() if is_answer else text]
        for title, calls in (("Tool Calls", self.tool_calls), ("Invalid Tool Calls", self.invalid_tool_calls)):
            if calls:
                lines.append(f"{title}:")
            for call in calls:
                lines += [f"  {call['name']} ({call['id']})", f" Call ID: {call['id']}"]
                if call.get("error"):
                    lines.append(f"  Error: {call['error']}")
                lines.append("  Args:")
                args = call["args"]
                lines += (
                    [f"    {key}: {value}" for key, value in args.items()]
                    if isinstance(args, dict)
                    else [f"    {args}"]
                )
        whole = "\n".join(lines)
        return whole.rstrip() if is_answer else whole

    def pretty_print(self) -> None:
        """Print `pretty_repr()`."""
        sys.stdout.write(self.pretty_repr() + "\n")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        """Validate anything that coerces to a message, keep messages as they are (no pydantic needed to say so)."""
        return {"type": "function-plain", "function": {"type": "no-info", "function": _validated}}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Return the JSON schema of the OpenAI shape."""
        return {
            "title": "Message",
            "type": "object",
            "properties": {
                "role": {"title": "Role", "type": "string"},
                "content": {
                    "title": "Content",
                    "anyOf": [{"type": "string"}, {"type": "array", "items": {}}],
                },
                "id": {"title": "Id", "anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            },
            "required": ["role", "content"],
            "additionalProperties": True,
        }


class RemoveMessage(Message):
    """Asks `add_messages` to remove the message of that id, or with `REMOVE_ALL_MESSAGES` all messages before it."""

    __slots__ = ()

    def __init__(self, id: str) -> None:
        super().__init__(role="remove", content="", id=id)


AnyMessage: TypeAlias = Message
"""Element type of `MessagesState`. Objects of other libraries are accepted there, too."""


# ---- reading messages of any kind


def is_message(value: object) -> bool:
    """Return whether `value` is a message: a `Message`, a dict with a known role and content, or an object like one."""
    if isinstance(value, dict):
        role = value["role"] if "role" in value else value.get("type")
        return isinstance(role, str) and role in TYPE_BY_ROLE and "content" in value
    return _is_message_object(value)


def message_type(message: Any) -> str:
    """Return `human`, `ai`, `system`, `tool`, `function` or `remove`; what is none of them as it is."""
    if isinstance(message, dict):
        word: str = message["role"] if "role" in message else message["type"]
    else:
        word = getattr(message, "type", None) or message.role
    return TYPE_BY_ROLE.get(word, word)


def message_id(message: Any) -> str | None:
    """Return the id of a message of any kind, or None."""
    identity: str | None = message.get("id") if isinstance(message, dict) else getattr(message, "id", None)
    return identity


def tool_calls_of(message: Any) -> list[dict[str, Any]]:
    """Return the tool calls of a message of any kind as `{"name", "args", "id", "type": "tool_call"}`.

    A call whose arguments cannot be parsed is left out; `Message.invalid_tool_calls` has it.
    """
    if isinstance(message, dict):
        return _read_calls(message.get("tool_calls"))[0]
    return _read_calls(getattr(message, "tool_calls", None))[0]


def _read_calls(calls: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    valid: list[dict[str, Any]] = []
    invalid: list[dict[str, Any]] = []
    for call in calls or ():
        function = call.get("function")
        if function is None:
            valid.append({"name": call["name"], "args": call["args"], "id": call.get("id"), "type": "tool_call"})
            continue
        name, text = function["name"], function.get("arguments")
        try:
            args = json.loads(text) if isinstance(text, str) else text
        except ValueError as error:
            args, reason = None, str(error)
        else:
            reason = "the arguments are no JSON object"
        if isinstance(args, dict):
            valid.append({"name": name, "args": args, "id": call.get("id"), "type": "tool_call"})
        else:
            invalid.append(
                {"name": name, "args": text, "id": call.get("id"), "error": reason, "type": "invalid_tool_call"}
            )
    return valid, invalid


def _openai_call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    if "function" in call:
        return call
    arguments = json.dumps(call["args"], ensure_ascii=False)
    return {"id": call.get("id"), "type": "function", "function": {"name": call["name"], "arguments": arguments}}


# ---- coercion


def convert_to_messages(messages: Iterable[Any]) -> list[Any]:
    """Return the messages that `messages` stand for, in order.

    A string is a user message, a pair `(role, content)` a message of that role, a dict with `role` (or `type`) and
    `content` that message; dicts are copied. A `Message` and a message object of another library stay themselves. If
    one of them is langchain-core's, all are converted to its classes.

    Raises:
        ValueError: A dict without role or content, or an unknown role.
        NotImplementedError: Something that is no message.
        KeyError: A tool message without `tool_call_id`.
    """
    listed = list(messages)
    library = langchain_in_use(listed)
    return [as_message(message) for message in listed] if library is None else as_langchain(listed, library)


def as_message(message: Any) -> Any:
    """Return what one element stands for, by the rules of `convert_to_messages`."""
    if isinstance(message, Message):
        return message
    if isinstance(message, str):
        return Message(role="user", content=message)
    if isinstance(message, dict):
        return _from_dict(message)
    if isinstance(message, (tuple, list)):
        if len(message) != 2 or not isinstance(message[0], str):
            raise NotImplementedError(
                f"message {shown(message)} is a sequence of {len(message)}; expected the pair (role, content), "
                "for example ('user', 'hello')"
            )
        return _from_dict({"role": message[0], "content": message[1]})
    if _is_message_object(message):
        return message
    raise NotImplementedError(
        f"{shown(message)} ({type(message).__name__}) is not a message; expected a string, a pair (role, content), "
        "a dict with 'role' and 'content', or a message object"
    )


def _from_dict(source: dict[str, Any]) -> Message:
    named = "role" if "role" in source else "type"
    if named not in source or "content" not in source:
        raise ValueError(f"message dict must have 'role' and 'content', got {shown(source)}; add what is missing")
    word = source[named]
    role = ROLE_BY_WORD.get(word) if isinstance(word, str) else None
    if role is None:
        raise ValueError(f"message has the role {shown(word)}; expected one of {', '.join(sorted(ROLE_BY_WORD))}")
    if role == "remove":
        return RemoveMessage(source.get("id"))  # type: ignore[arg-type]
    if role == "tool" and "tool_call_id" not in source:
        raise KeyError(f"tool_call_id: the tool message {shown(source)} must name the call it answers")
    content = source["content"]
    message = Message(role=role, content="" if content is None else content)
    for key, value in source.items():
        if key == "tool_calls":
            message.tool_calls = value or ()
        elif key != named and key != "content":
            message[key] = value
    return message


def _is_message_object(value: object) -> bool:
    return (
        not isinstance(value, type)
        and hasattr(value, "content")
        and isinstance(getattr(value, "type", None) or getattr(value, "role", None), str)
    )


def _validated(value: Any) -> Any:
    try:
        return as_message(value)
    except (NotImplementedError, KeyError) as error:
        # The two kinds that pydantic would not report as a validation error.
        raise ValueError(error.args[0]) from error


# ---- langchain-core, if the program has loaded it


def langchain_in_use(*sides: list[Any]) -> ModuleType | None:
    """Return the module `langchain_core.messages` if an element of `sides` is a message of it, else None."""
    library = sys.modules.get("langchain_core.messages")
    base = getattr(library, "BaseMessage", None)
    if base is None:
        return None
    for side in sides:
        for kind in set(map(type, side)):
            if issubclass(kind, base):
                return library
    return None


def as_langchain(messages: list[Any], library: ModuleType) -> list[Any]:
    """Return `messages` as objects of langchain-core; its own full messages stay themselves, chunks become full."""
    chunk: type = library.BaseMessageChunk
    base: type = library.BaseMessage
    if all(issubclass(kind, base) and not issubclass(kind, chunk) for kind in set(map(type, messages))):
        return messages
    converted: list[Any] = []
    for message in messages:
        if isinstance(message, chunk):
            converted.append(library.message_chunk_to_message(message))
        elif isinstance(message, base):
            converted.append(message)
        elif isinstance(message, Message):
            plain = dict(message)
            if "tool_calls" in plain:
                plain["tool_calls"] = message.tool_calls
            (full,) = library.convert_to_messages([plain])
            if message.invalid_tool_calls:
                full.invalid_tool_calls = message.invalid_tool_calls
            converted.append(full)
        else:
            converted += library.convert_to_messages([message])
    return converted


def messages_in(values: Iterable[Any]) -> list[Any]:
    """Return the messages among `values`, and in the lists and tuples among them; nothing deeper is searched.

    A `Message`, an object of langchain-core, and a dict with a known `role` and `content`. Of other dicts, of pairs and
    strings only a reducer knows whether they are meant as messages.
    """
    base = getattr(sys.modules.get("langchain_core.messages"), "BaseMessage", None)
    kinds = (Message,) if base is None else (Message, base)
    found: list[Any] = []
    for value in values:
        if isinstance(value, kinds) or _is_plain_message(value):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += [item for item in value if isinstance(item, kinds) or _is_plain_message(item)]
    return found


def _is_plain_message(value: object) -> bool:
    return type(value) is dict and "role" in value and is_message(value)


def coerced(value: Any, current: Any) -> Any:
    """Return what a reducer of messages makes of a written `value`, before ids: messages of the kind that the `current`
    list has. What is none stays as it is: it is for the reducer to complain."""
    written: list[Any] = value if isinstance(value, list) else [value]
    if all(isinstance(message, Message) or _is_message_object(message) for message in written):
        return value
    library = langchain_in_use(written, current if isinstance(current, list) else [])
    try:
        full = [as_message(message) for message in written]
        return full if library is None else as_langchain(full, library)
    except (ValueError, KeyError, NotImplementedError):
        return value


def give_id(message: Any, identity: str) -> None:
    """Give a message that has no id this one, in place."""
    if isinstance(message, dict):
        message["id"] = identity
    else:
        message.id = identity


def new_id() -> str:
    """Return a random id for a message that has none, in the form of a UUID of version 4 (RFC 9562, section 5.4)."""
    bits = int.from_bytes(os.urandom(16)) & ~(0xF << 76 | 0x3 << 62) | 4 << 76 | 2 << 62
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def made_id(text: str, taken: Container[Any] = ()) -> str:
    """Return an id that is made of `text`, the same whenever it is asked for; not one that is `taken`."""
    seed, again = text, 0
    while True:
        made = blake2b(seed.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        if made not in taken:
            return made
        again += 1
        seed = f"{text}|{again}"


register_codec(Message, "pregel.Message", dict, Message)


def _pack_removal(message: RemoveMessage) -> Any:
    plain = dict(message)
    identity = plain.get("id")
    bare = isinstance(identity, str) and plain == {"role": "remove", "content": "", "id": identity}
    return identity if bare else plain


def _unpack_removal(stored: Any) -> RemoveMessage:
    if not isinstance(stored, dict):
        return RemoveMessage(stored)
    removal = RemoveMessage.__new__(RemoveMessage)
    dict.update(removal, stored)
    return removal


register_codec(RemoveMessage, "pregel.RemoveMessage", _pack_removal, _unpack_removal)
