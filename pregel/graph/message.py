"""Lists of messages as state: the reducer `add_messages`, the schema `MessagesState`, the old builder `MessageGraph`.

Decides how two lists of messages become one: by id, replacing, removing, appending. What a message is,
`pregel.messages` decides.

Invariants: neither list is edited. Messages on the left keep their identity unless they are replaced, so a saver may
store an append as an append; one on the left that lacks an id is replaced by a copy that has one.
"""

import warnings
from _thread import allocate_lock
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from itertools import repeat
from math import inf
from operator import attrgetter, itemgetter
from sys import getrefcount
from typing import Annotated, Any, Literal, cast, overload

from typing_extensions import TypedDict

from pregel import _scope
from pregel.constants import MISSING
from pregel.errors import shown
from pregel.graph.state import StateGraph
from pregel.messages import (
    REMOVE_ALL_MESSAGES,
    AnyMessage,
    Message,
    RemoveMessage,
    as_langchain,
    as_message,
    convert_to_messages,
    give_id,
    langchain_in_use,
    made_id,
    message_id,
    message_type,
    new_id,
)
from pregel.warnings import PregelDeprecationWarning

__all__ = [
    "REMOVE_ALL_MESSAGES",
    "MessageGraph",
    "MessagesState",
    "RemoveMessage",
    "add_messages",
    "messages_delta_reducer",
    "push_message",
]

Messages = Any
"""One message-like value or a list of them; see `pregel.messages.convert_to_messages`."""

OPENAI = "langchain-openai"

OURS = frozenset({Message, RemoveMessage})


@overload
def add_messages(
    left: None = None, right: None = None, *, format: Literal["langchain-openai"] | None = None
) -> Callable[[Messages, Messages], list[Any]]: ...


@overload
def add_messages(
    left: Messages, right: Messages, *, format: Literal["langchain-openai"] | None = None
) -> list[Any]: ...


def add_messages(left: Any = None, right: Any = None, *, format: str | None = None) -> Any:
    """Merge two lists of messages by id.

    Used as a reducer, `Annotated[list, add_messages]` or `Annotated[list, add_messages(format="langchain-openai")]`:
    without the two sides it returns itself with `format` bound.

    In the order of `right`: a message with a known id takes the place of the old one, one with a new id is appended,
    and a `RemoveMessage` takes out all messages of its id (unless one with that id follows). A `RemoveMessage` with the
    id `REMOVE_ALL_MESSAGES` stands for an empty list to start over from.

    Args:
        left: The list so far. A single message stands for a list of one.
        right: What to merge in. Messages without an id get a random one, message objects in place, dicts in a copy.
        format: None, or "langchain-openai" to bring every content into OpenAI's form: a string, or blocks of which
            text and images are OpenAI's.

    Returns:
        A new list. Appending to a long list that was returned here before costs a copy of it and O(len(right));
        anything else one more pass over `left`, at C speed.

    Raises:
        ValueError: One side is None, `format` is unknown, a `RemoveMessage` names an unknown id, or a dict is none.
        NotImplementedError: An element is no message.
    """
    if left is None and right is None:
        return partial(cast("Any", add_messages), format=format)
    if left is None or right is None:
        given = "left" if right is None else "right"
        raise ValueError(
            f"add_messages got only {given!r} and None for the other side; pass a list, which may be empty"
        )
    if format is not None and format != OPENAI:
        raise ValueError(f"add_messages got format={shown(format)}; expected {OPENAI!r} or None")
    old: list[Any] = left if isinstance(left, list) else [left]
    new: list[Any] = right if isinstance(right, list) else [right]
    if _growing:
        _forget_dropped()
    if format is None and len(old) >= LONG:
        appended = _appended(old, new)
        if appended is not None:
            return appended
    library = langchain_in_use(old, new)
    if library is not None:
        old, new = as_langchain(old, library), as_langchain(new, library)
        id_of: Callable[[Any], Any] = attrgetter("id")
    else:
        if not OURS.issuperset(map(type, old)):
            old = [as_message(message) for message in old]
        if not OURS.issuperset(map(type, new)):
            new = [as_message(message) for message in new]
        id_of = message_id
    merged = _merge(old, new, id_of)
    if format is not None:
        return _in_openai_form(merged, library)
    if len(merged) >= LONG:
        _remember(merged, None)
    return merged


# A channel with this reducer takes strings, pairs and dicts for messages; stream mode `messages` shows them as such.
vars(add_messages)["takes_messages"] = True


def push_message(message: Any, *, state_key: str | None = "messages") -> Any:
    """Show a message in stream mode `messages` at once, and write it to the state.

    It is shown whether or not one with its id was; when the node returns one with this id, that is not shown again.

    Args:
        message: A message of any kind that `convert_to_messages` takes, with an id.
        state_key: Key with the reducer `add_messages`, None to show it only.

    Returns:
        The message.

    Raises:
        ValueError: it has no id, or is none.
        NotImplementedError: it is no message.
        RuntimeError: outside of a running node.
    """
    (said,) = convert_to_messages([message])
    if message_id(said) is None:
        raise ValueError(
            f"push_message got {shown(said)} without an id; give it one, so that it can be told from others: "
            f"push_message({{'role': 'assistant', 'content': '...', 'id': '...'}})"
        )
    scope = _scope.current("push_message()")
    scope.say(said)
    if state_key is not None:
        scope.write(state_key, said)
    return said


def _merge(old: list[Any], new: list[Any], id_of: Callable[[Any], Any]) -> list[Any]:
    for message in new:
        if id_of(message) is None:
            give_id(message, new_id())
    new_ids = list(map(id_of, new))
    if REMOVE_ALL_MESSAGES in new_ids:
        last = len(new_ids) - 1 - new_ids[::-1].index(REMOVE_ALL_MESSAGES)
        old, new, new_ids = [], new[last + 1 :], new_ids[last + 1 :]
    merged, ids = _with_ids(old, id_of)
    # The usual step only appends; then no message on the left is looked at one by one.
    known = set(new_ids)
    position = {} if known.isdisjoint(ids) else {i: at for at, i in enumerate(ids) if i in known}
    removed: set[Any] = set()
    for message, identity in zip(new, new_ids, strict=True):
        at_old = position.get(identity)
        if message_type(message) == "remove":
            if at_old is None:
                raise ValueError(
                    f"RemoveMessage names the id {identity!r}, which no message has; "
                    "remove only messages that are in the list"
                )
            removed.add(identity)
        elif at_old is None:
            position[identity] = len(merged)
            merged.append(message)
        else:
            removed.discard(identity)
            merged[at_old] = message
    return [message for message in merged if id_of(message) not in removed] if removed else merged


def _with_ids(messages: list[Any], id_of: Callable[[Any], Any]) -> tuple[list[Any], list[Any]]:
    """Return a new list of the messages, all with ids, and the list of these ids."""
    try:
        ids = list(map(_ID_KEY if id_of is message_id else id_of, messages))
    except (KeyError, TypeError):  # a dict without the key, or an object of another library
        ids = list(map(id_of, messages))
    if None not in ids:
        return list(messages), ids
    # Copies: these messages may be stored already, and an edit in place would never reach the store.
    complete = [
        message if i is not None else _copy_with_id(message, new_id())[0]
        for message, i in zip(messages, ids, strict=True)
    ]
    return complete, list(map(id_of, complete))


_ID_KEY = itemgetter("id")


# ---- for a channel that folds all writes of a step at once


def messages_delta_reducer(state: list[Any], writes: Sequence[Any]) -> list[Any]:
    """Merge what a step wrote into a list of messages by id: `Annotated[list, DeltaChannel(messages_delta_reducer)]`.

    Differs from `add_messages` where a `DeltaChannel` asks for it, whose writes may be folded again in other groups: a
    `RemoveMessage` takes effect at once and does nothing if its id is not there, `REMOVE_ALL_MESSAGES` means nothing, and
    a message without an id gets one made of its place and content, the same whenever it is folded.

    Args:
        state: The list so far. Not edited.
        writes: A list is several messages, everything else one: a tuple is a pair of role and content.

    Returns:
        A new list.

    Raises:
        ValueError: A dict is no message.
        NotImplementedError: Something else is none.
    """
    written = [message for write in writes for message in (write if isinstance(write, list) else [write])]
    library = langchain_in_use(state, written)
    old = convert_to_messages(state) if library is None else as_langchain(state, library)
    new = convert_to_messages(written) if library is None else as_langchain(written, library)
    merged: list[Any] = []
    position: dict[Any, int] = {}
    n_gone = 0
    for message in old:
        identity = message_id(message)
        if identity is None:
            message, identity = _copy_with_id(message, made_id(_told(message, len(merged)), position))
        position[identity] = len(merged)
        merged.append(message)
    for message in new:
        identity = message_id(message)
        at = position.get(identity)
        if message_type(message) == "remove":
            if at is not None:
                merged[at] = MISSING
                n_gone += 1
                del position[identity]
        elif at is not None:
            merged[at] = message
        else:
            if identity is None:
                identity = made_id(_told(message, len(merged) - n_gone), position)
                give_id(message, identity)
            position[identity] = len(merged)
            merged.append(message)
    return [message for message in merged if message is not MISSING] if n_gone else merged


def _told(message: Any, place: int) -> str:
    """What an id is made of: the message and its place in the list, which replaying the writes gives again."""
    content = message["content"] if isinstance(message, dict) else message.content
    return f"{place}|{message_type(message)}|{content!r}"


vars(messages_delta_reducer)["takes_messages"] = True
_messages_delta_reducer = messages_delta_reducer
"""The name that LangGraph has for it."""


# ---- lists that grow


class Log:
    """What is known of the messages of a long list, and of those behind them, so that appending need not look at it again.

    Lists that grew out of one another share it, each with its first so many messages: a step may append to a list twice,
    to show its routers what they ask for and then for good. What was appended last stays.

    Ids count as they were when the list was merged, which is what a store has of it: a message whose id was edited in
    place, and which is not returned, is still known by the old one. One that is returned is looked at anew.
    """

    __slots__ = ("id_of", "ids", "library", "messages", "objects")

    def __init__(self, messages: list[Any], ids: list[Any], library: Any, id_of: Callable[[Any], Any]) -> None:
        self.messages = list(messages)
        self.ids = set(ids)
        self.objects = set(map(id, messages))
        """Addresses of the messages."""
        self.library = library
        self.id_of = id_of

    def starts_with(self, messages: list[Any]) -> bool:
        """Are these its first messages?"""
        length = len(messages)
        return messages == (self.messages if len(self.messages) == length else self.messages[:length])

    def append(self, length: int, messages: list[Any]) -> list[Any] | None:
        """Put messages behind the first `length`; returns them as messages, or None if that may not be all they ask for."""
        new = self._of_its_kind(messages)
        if new is None:
            return None
        dropped = self.messages[length:]
        self.ids.difference_update(map(self.id_of, dropped))
        self.objects.difference_update(map(id, dropped))
        del self.messages[length:]
        for message in new:
            if id(message) in self.objects or message_type(message) == "remove":
                return None
            if self.id_of(message) is None:
                give_id(message, new_id())
        ids = set(map(self.id_of, new))
        if len(ids) < len(new) or not self.ids.isdisjoint(ids):
            return None
        self.messages += new
        self.ids |= ids
        self.objects.update(map(id, new))
        return new

    def _of_its_kind(self, messages: list[Any]) -> list[Any] | None:
        if self.library is not None:
            return as_langchain(messages, self.library)
        if langchain_in_use(messages) is not None:
            return None
        return messages if OURS.issuperset(map(type, messages)) else [as_message(message) for message in messages]


LONG = 256
"""From so many messages on a list is remembered: looking at a shorter one costs a few microseconds."""
MAX_GROWING = 32
"""Lists that are remembered; the oldest is forgotten, and at the next call each that nobody else has any more."""
_growing: dict[int, tuple[list[Any], Log | None]] = {}
"""By address: the list, which is held so that the address is not another's, and what is known of it once it has grown."""
_growing_lock = allocate_lock()


def _remember(merged: list[Any], log: Log | None) -> None:
    _growing.pop(id(merged), None)
    _growing[id(merged)] = merged, log
    if len(_growing) > MAX_GROWING:
        with suppress(StopIteration, RuntimeError):  # another thread was faster, or is at it
            _growing.pop(next(iter(_growing)), None)


def _forget_dropped() -> None:
    """Let go of lists that nobody else has: no call can come with them, and their messages may be large."""
    with suppress(RuntimeError):  # another thread is at it
        for address in _held_least(_growing, ONLY_HERE):
            _growing.pop(address, None)


def _held_least(remembered: dict[int, tuple[list[Any], Log | None]], most: float) -> dict[int, int]:
    """References to the remembered lists that have so many at most, by address."""
    counted: dict[int, int] = {}
    for address, (listed, _) in list(remembered.items()):
        n_references = getrefcount(listed)
        if n_references <= most:
            counted[address] = n_references
    return counted


ONLY_HERE = _held_least({0: ([], None)}, inf)[0]
"""References to a list that is only remembered; how they are counted differs between versions of Python."""


def _appended(old: list[Any], new: list[Any]) -> list[Any] | None:
    """The list with the messages behind it, if it was returned here before and that is all that they ask for."""
    listed, log = _growing.get(id(old), (None, None))
    if listed is not old or not _growing_lock.acquire(blocking=False):  # whoever finds it taken looks at the list
        return None
    try:
        if log is None or not log.starts_with(old):
            log = _log_of(old)
            if log is None:
                return None
            _remember(old, log)
        full = log.append(len(old), new)
        if full is None:
            return None
        merged = [*old, *full]
        _remember(merged, log)
        return merged
    finally:
        _growing_lock.release()


def _log_of(messages: list[Any]) -> Log | None:
    """What is known of a list, None if it is not all of one kind, or not complete."""
    library = langchain_in_use(messages)
    if library is None and not OURS.issuperset(map(type, messages)):
        return None
    if library is not None and as_langchain(messages, library) is not messages:
        return None
    id_of: Callable[[Any], Any] = message_id if library is None else attrgetter("id")
    ids = list(map(dict.get, messages, repeat("id"))) if library is None else list(map(id_of, messages))
    return None if None in ids else Log(messages, ids, library, id_of)


def _copy_with_id(message: Any, identity: str) -> tuple[Any, str]:
    twin = message.model_copy() if hasattr(message, "model_copy") else copy(message)
    give_id(twin, identity)
    return twin, identity


# ---- format="langchain-openai"


def _in_openai_form(messages: list[Any], library: Any) -> list[Any]:
    formatted: list[Any] = []
    for message in messages:
        if library is not None:
            parts = library.convert_to_messages(library.convert_to_openai_messages([message]))
        elif isinstance(message, Message) and isinstance(message["content"], list):
            parts = _split_blocks(message)
        else:
            parts = [message]
        # The peer loses ids here, and with them the ability to replace or remove.
        for part in parts:
            if message_id(part) is None:
                part.id = message_id(message) if part is parts[0] else new_id()
        formatted += parts
    return formatted


def _split_blocks(message: Message) -> list[Message]:
    """Return the message with OpenAI's blocks, then one tool message for each tool result it contained."""
    blocks: list[Any] = []
    calls: list[dict[str, Any]] = []
    results: list[Message] = []
    for block in cast("list[Any]", message["content"]):
        if isinstance(block, str):
            blocks.append({"type": "text", "text": block})
            continue
        kind = block.get("type")
        if kind == "text":
            blocks.append({"type": "text", "text": block["text"]})
        elif kind == "image":
            blocks.append({"type": "image_url", "image_url": {"url": _image_url(block)}})
        elif kind == "tool_use":
            calls.append({"name": block["name"], "args": block["input"], "id": block["id"]})
        elif kind == "tool_result":
            body = block.get("content") or ""
            result = Message(role="tool", content=body, tool_call_id=block["tool_use_id"], id=new_id())
            results += [result] if isinstance(body, str) else _split_blocks(result)
        else:
            blocks.append(block)
    if results and not blocks and not calls:
        results[0]["id"] = message["id"]
        return results
    whole = message.copy()
    plain = all(isinstance(block, dict) and block.get("type") == "text" for block in blocks)
    whole["content"] = "\n".join(block["text"] for block in blocks) if plain else blocks
    if calls:
        known = {call["id"] for call in whole.tool_calls}
        whole.tool_calls = [*whole.get("tool_calls", ()), *(call for call in calls if call["id"] not in known)]
    return [whole, *results]


def _image_url(block: dict[str, Any]) -> str:
    source = block.get("source", block)
    url: str | None = source.get("url")
    if url is not None:
        return url
    media_type = source.get("media_type") or source.get("mime_type") or "image/png"
    return f"data:{media_type};base64,{source.get('data') or source.get('base64')}"


class MessagesState(TypedDict):
    """State with one key, `messages`, merged by `add_messages`. Subclass it to add keys."""

    messages: Annotated[list[AnyMessage], add_messages]


class MessageGraph(StateGraph[Any]):
    """Builder of a graph whose whole state is one list of messages. Deprecated: `StateGraph(MessagesState)` says more."""

    def __init__(self) -> None:
        warnings.warn(
            "MessageGraph is deprecated; use StateGraph(MessagesState)", PregelDeprecationWarning, stacklevel=2
        )
        state: Any = Annotated[list[AnyMessage], add_messages]
        super().__init__(state)
