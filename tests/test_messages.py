"""The message class, what coerces to a message, and objects of other libraries."""

import copy
import pickle
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from checkpoint import registry
from pregel.messages import (
    Message,
    RemoveMessage,
    as_langchain,
    as_message,
    convert_to_messages,
    is_message,
    langchain_in_use,
    message_id,
    message_type,
    tool_calls_of,
)

OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
CALL = {"name": "f", "args": {"x": 1}, "id": "c1", "type": "tool_call"}


def assistant(*calls: dict[str, Any], **keys: Any) -> Message:
    return Message(role="assistant", content="", tool_calls=list(calls), **keys)


# ---- the class


def test_keys_are_attributes() -> None:
    message = Message(role="user", content="hi", custom=1)
    assert (message.role, message.content, message.custom, message.type) == ("user", "hi", 1, "human")
    message.content = "ho"
    message.flag = True
    assert message == {"role": "user", "content": "ho", "custom": 1, "flag": True}
    del message.flag
    assert "flag" not in message
    with pytest.raises(AttributeError, match="flag"):
        message.flag  # noqa: B018
    with pytest.raises(AttributeError, match="flag"):
        del message.flag


def test_what_absent_keys_read_as() -> None:
    message = Message(role="tool", content="")
    assert (message.id, message.name, message.tool_call_id, message.artifact) == (None, None, None, None)
    assert (message.status, message.usage_metadata, message.response_metadata) == ("success", None, {})
    assert (message.tool_calls, message.invalid_tool_calls, message.additional_kwargs) == ([], [], {})
    assert list(message) == ["role", "content"]


def test_methods_stay_methods() -> None:
    message = Message(role="user", content="", items=3)
    assert next(iter(message.items())) == ("role", "user")
    assert message["items"] == 3
    with pytest.raises(AttributeError):
        message.items = 4
    with pytest.raises(AttributeError):
        message.type = "ai"  # type: ignore[misc]


@pytest.mark.parametrize("message", [Message(role="user", content=["a"], id="1"), RemoveMessage("1")])
def test_copies_keep_the_class(message: Message) -> None:
    copies = [message.copy(), copy.copy(message), copy.deepcopy(message), message | {}]
    copies += [pickle.loads(pickle.dumps(message, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for twin in copies:
        assert twin == message
        assert type(twin) is type(message)
        assert twin is not message
    assert message.copy().content is message.content
    assert (message | {"id": "2"}).id == "2"
    assert message.id == "1"
    with pytest.raises(TypeError):
        message | 1  # type: ignore[operator]


def test_types_of_roles() -> None:
    roles = ("user", "assistant", "system", "developer", "tool", "function", "remove", "other")
    types = [Message(role=role, content="").type for role in roles]
    assert types == ["human", "ai", "system", "system", "tool", "function", "remove", "other"]


def test_text() -> None:
    assert Message(role="user", content="hi").text == "hi"
    blocks = ["a", {"type": "text", "text": "b"}, {"type": "image_url", "image_url": {"url": "u"}}, 3]
    assert Message(role="user", content=blocks).text == "ab"


def test_tool_calls_are_normalised_on_reading() -> None:
    assert assistant(OPENAI_CALL).tool_calls == [CALL]
    assert assistant({"name": "f", "args": {"x": 1}, "id": "c1"}).tool_calls == [CALL]
    parsed = {"id": None, "function": {"name": "f", "arguments": {"x": 1}}}
    assert assistant(parsed).tool_calls == [CALL | {"id": None}]


@pytest.mark.parametrize("arguments", ["{bad", "[1]", None])
def test_arguments_that_are_no_object(arguments: Any) -> None:
    message = assistant({"id": "c1", "function": {"name": "f", "arguments": arguments}}, OPENAI_CALL)
    assert message.tool_calls == [CALL]
    (bad,) = message.invalid_tool_calls
    assert (bad["name"], bad["args"], bad["id"], bad["type"]) == ("f", arguments, "c1", "invalid_tool_call")
    assert bad["error"]


def test_assigning_tool_calls_stores_the_openai_form() -> None:
    message = Message(role="assistant", content="")
    message.tool_calls = [CALL, OPENAI_CALL]
    assert message["tool_calls"] == [OPENAI_CALL, OPENAI_CALL]
    assert message["tool_calls"][1] is OPENAI_CALL


def test_additional_kwargs() -> None:
    message = Message(role="user", content="", id="1", refusal="no", additional_kwargs={"b": 2})
    assert message.additional_kwargs == {"refusal": "no", "b": 2}


def test_repr_and_printing(capsys: pytest.CaptureFixture[str]) -> None:
    assert repr(Message(role="user", content="hi")) == "Message(role='user', content='hi')"
    Message(role="user", content="hi", name="bob").pretty_print()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [" Human Message ".center(80, "="), "Name: bob", "", "hi"]
    called = assistant(OPENAI_CALL, {"id": "c2", "function": {"name": "g", "arguments": "{bad"}}).pretty_repr()
    for part in ("f (c1)", "x: 1", "g (c2)", "{bad"):
        assert part in called
    assert Message(role="user", content=[{"type": "text", "text": "T"}]).pretty_repr().endswith("T")
    assert "image" in Message(role="user", content=[{"type": "image"}]).pretty_repr()
    assert Message(role="assistant", content="").pretty_repr() == " Ai Message ".center(80, "=")
    assert Message(role="user", content="").pretty_repr().endswith("=\n\n")


def test_stored_forms() -> None:
    told = RemoveMessage("1")
    told.reason = "too long"
    for message in (Message(role="user", content="hi", id="1"), RemoveMessage("1"), RemoveMessage({"a": 1}), told):  # type: ignore[arg-type]
        entry = registry.lookup_class(type(message))
        assert entry is not None
        assert entry.name == f"pregel.{type(message).__name__}"
        assert entry.encode is not None
        assert entry.decode is not None
        plain = entry.encode(message)
        assert type(plain) is not type(message)
        restored = entry.decode(plain)
        assert restored == message
        assert type(restored) is type(message)


# ---- pydantic


class State(BaseModel):
    messages: list[Message]


def test_pydantic_coerces_and_keeps_the_class() -> None:
    given = Message(role="user", content="a")
    foreign = SimpleNamespace(type="human", content="z")
    state = State(messages=[given, "b", ("ai", "c"), {"role": "user", "content": "d"}, foreign])  # type: ignore[list-item]
    assert state.messages[0] is given
    assert state.messages[4] is foreign
    assert [type(message) for message in state.messages[:4]] == [Message] * 4
    assert [message.content for message in state.messages] == ["a", "b", "c", "d", "z"]


def test_pydantic_writes_messages_as_dicts() -> None:
    state = State(messages=[Message(role="user", content="a", id="1", extra=[1]), RemoveMessage("1")])
    plain = [{"role": "user", "content": "a", "id": "1", "extra": [1]}, {"role": "remove", "content": "", "id": "1"}]
    assert state.model_dump() == {"messages": plain}
    assert State.model_validate_json(state.model_dump_json()) == state
    assert State.model_validate(state.model_dump()) == state
    assert type(State.model_validate(state.model_dump()).messages[1]) is RemoveMessage


@pytest.mark.parametrize("bad", [3, ("tool", "x"), {"role": "bogus", "content": ""}])
def test_pydantic_reports_what_is_no_message(bad: Any) -> None:
    with pytest.raises(ValidationError):
        State(messages=[bad])


def test_json_schema() -> None:
    schema = TypeAdapter(list[Message]).json_schema()["items"]
    assert schema["type"] == "object"
    assert schema["required"] == ["role", "content"]


# ---- coercion


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hi", {"role": "user", "content": "hi"}),
        (("human", "hi"), {"role": "user", "content": "hi"}),
        (["ai", "hi"], {"role": "assistant", "content": "hi"}),
        (("developer", "hi"), {"role": "developer", "content": "hi"}),
        (("system", ["a"]), {"role": "system", "content": ["a"]}),
        ({"role": "assistant", "content": None}, {"role": "assistant", "content": ""}),
        ({"type": "human", "content": "", "foo": 1}, {"role": "user", "content": "", "foo": 1}),
        ({"role": "user", "type": "x", "content": ""}, {"role": "user", "content": "", "type": "x"}),
        ({"role": "function", "content": "", "name": "n"}, {"role": "function", "content": "", "name": "n"}),
        (
            {"role": "tool", "content": "r", "tool_call_id": "1", "artifact": [1], "status": "error"},
            {"role": "tool", "content": "r", "tool_call_id": "1", "artifact": [1], "status": "error"},
        ),
        (
            {"role": "ai", "content": "", "id": "7", "tool_calls": [CALL]},
            {"role": "assistant", "content": "", "id": "7", "tool_calls": [OPENAI_CALL]},
        ),
        ({"role": "ai", "content": "", "tool_calls": None}, {"role": "assistant", "content": "", "tool_calls": []}),
        ({"role": "remove", "content": "x", "id": "7"}, {"role": "remove", "content": "", "id": "7"}),
    ],
)
def test_coercion(source: Any, expected: dict[str, Any]) -> None:
    before = copy.deepcopy(source)
    (message,) = convert_to_messages([source])
    assert message == expected
    assert type(message) is (RemoveMessage if expected["role"] == "remove" else Message)
    assert source == before


def test_messages_stay_themselves() -> None:
    message, foreign = Message(role="user", content=""), SimpleNamespace(role="user", content="")
    converted = convert_to_messages(iter([message, foreign]))
    assert converted[0] is message
    assert converted[1] is foreign


@pytest.mark.parametrize(
    ("source", "error", "named"),
    [
        ({"role": "user"}, ValueError, "content"),
        ({"content": "x"}, ValueError, "role"),
        (("bogus", "x"), ValueError, "bogus"),
        ({"role": 5, "content": "x"}, ValueError, "5"),
        ({"role": "", "content": "x"}, ValueError, "''"),
        (("tool", "x"), KeyError, "tool_call_id"),
        (("a", "b", "c"), NotImplementedError, "3"),
        ((1, "b"), NotImplementedError, "role"),
        (3, NotImplementedError, "int"),
        (SimpleNamespace(content="x"), NotImplementedError, "SimpleNamespace"),
        (SimpleNamespace(content="x", type=3), NotImplementedError, "SimpleNamespace"),
    ],
)
def test_what_is_no_message(source: Any, error: type[Exception], named: str) -> None:
    with pytest.raises(error) as caught:
        as_message(source)
    assert named in str(caught.value)


# ---- reading any kind


def test_accessors() -> None:
    foreign = SimpleNamespace(type="ai", content="", id="1", tool_calls=[CALL])
    bare = SimpleNamespace(role="user", content="")
    plain = {"type": "human", "content": ""}
    assert [message_type(m) for m in (foreign, bare, plain, assistant())] == ["ai", "human", "human", "ai"]
    assert [message_id(m) for m in (foreign, bare, plain, assistant(id="2"))] == ["1", None, None, "2"]
    assert tool_calls_of(foreign) == [CALL]
    assert tool_calls_of(assistant(OPENAI_CALL)) == [CALL]
    assert tool_calls_of({"role": "ai", "content": "", "tool_calls": [OPENAI_CALL]}) == [CALL]
    assert tool_calls_of(bare) == []


def test_is_message() -> None:
    yes = [Message(role="user", content=""), {"role": "ai", "content": None}, {"type": "human", "content": ""}]
    assert all(map(is_message, [*yes, SimpleNamespace(type="ai", content="")]))
    no = [{"role": "x", "content": ""}, {"role": "user"}, {"role": [], "content": ""}, {}, "hi", 3, SimpleNamespace]
    assert not any(map(is_message, no))


# ---- langchain-core


class Base:
    """Stands for langchain-core's message class."""

    def __init__(self, type: str, content: Any, id: str | None = None, **more: Any) -> None:
        self.type, self.content, self.id = type, content, id
        self.more = more
        self.invalid_tool_calls: list[Any] = []


class Chunk(Base):
    pass


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    def convert(messages: list[Any]) -> list[Any]:
        converted: list[Any] = []
        for message in messages:
            keys = dict(as_message(message))
            converted.append(Base(TYPE[keys.pop("role")], keys.pop("content"), keys.pop("id", None), **keys))
        return converted

    module = ModuleType("langchain_core.messages")
    vars(module).update(
        BaseMessage=Base,
        BaseMessageChunk=Chunk,
        convert_to_messages=convert,
        message_chunk_to_message=lambda chunk: Base(chunk.type, chunk.content, chunk.id),
    )
    monkeypatch.setitem(sys.modules, "langchain_core.messages", module)
    return module


TYPE = {"user": "human", "assistant": "ai", "remove": "remove"}


def test_langchain_is_used_only_where_one_of_its_messages_is(library: ModuleType) -> None:
    assert langchain_in_use([Message(role="user", content="")], ["x"]) is None
    assert langchain_in_use([], ["x", Chunk("ai", "")]) is library
    assert type(convert_to_messages(["x"])[0]) is Message


def test_a_half_imported_langchain_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_core.messages", ModuleType("langchain_core.messages"))
    assert langchain_in_use(["x"]) is None


def test_all_become_langchains(library: ModuleType) -> None:
    full = Base("human", "a", "1")
    bad = {"id": "c2", "function": {"name": "g", "arguments": "{bad"}}
    converted = convert_to_messages([full, Chunk("ai", "b", "2"), "c", assistant(OPENAI_CALL, bad), RemoveMessage("9")])
    assert converted[0] is full
    assert [type(message) for message in converted] == [Base] * 5
    assert [(m.type, m.content, m.id) for m in converted[1:3]] == [("ai", "b", "2"), ("human", "c", None)]
    assert [call["function"]["name"] for call in converted[3].more["tool_calls"]] == ["f"]
    assert [call["name"] for call in converted[3].invalid_tool_calls] == ["g"]
    assert (converted[4].type, converted[4].id) == ("remove", "9")


def test_a_list_of_full_ones_is_left_alone(library: ModuleType) -> None:
    messages = [Base("human", "a", "1")]
    assert as_langchain(messages, library) is messages
