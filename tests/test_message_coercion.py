"""What counts as which message: ours against langchain-core's own converter, on random input (D14, frontends.md 5.2)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pregel.graph import add_messages
from pregel.messages import Message, RemoveMessage, convert_to_messages, message_type
from tests.support.langchain import Library

WORDS = st.text("ab ", max_size=4)
ROLES = st.sampled_from(["user", "human", "assistant", "ai", "system", "developer", "bogus", "USER", ""])
BLOCKS = st.lists(
    st.one_of(st.builds(lambda text: {"type": "text", "text": text}, WORDS), WORDS), min_size=1, max_size=3
)
CONTENT = st.one_of(WORDS, BLOCKS)
ARGUMENTS = st.dictionaries(st.sampled_from("xy"), st.one_of(st.integers(0, 9), WORDS, st.none()), max_size=2)
OPENAI_CALLS = st.builds(
    lambda id, name, args: {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(args)}},
    st.sampled_from(["c1", "c2"]),
    st.sampled_from(["f", "g"]),
    ARGUMENTS,
)
PLAIN_CALLS = st.builds(
    lambda id, name, args: {"name": name, "args": args, "id": id, "type": "tool_call"},
    st.sampled_from(["c1", "c2"]),
    st.sampled_from(["f", "g"]),
    ARGUMENTS,
)
EXTRAS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["1", "2"]),
        "name": st.sampled_from(["bob", "eve"]),
        "refusal": WORDS,
        "additional_kwargs": st.just({"k": 1}),
        "response_metadata": st.just({"model": "m"}),
    },
)


@st.composite
def dicts(draw: st.DrawFn) -> dict[str, Any]:
    """A message as a dict, sometimes of a role that none has, sometimes without what it needs."""
    key = draw(st.sampled_from(["role", "role", "type"]))
    kind = draw(st.sampled_from(["said", "said", "ai", "tool", "remove"]))
    found: dict[str, Any] = dict(draw(EXTRAS))
    if kind == "said":
        found |= {key: draw(ROLES), "content": draw(CONTENT)}
    elif kind == "ai":
        calls = st.one_of(st.lists(OPENAI_CALLS, max_size=2), st.lists(PLAIN_CALLS, max_size=2))
        found |= {key: "assistant", "content": draw(st.one_of(CONTENT, st.none())), "tool_calls": draw(calls)}
    elif kind == "tool":
        more = st.fixed_dictionaries(
            {}, optional={"tool_call_id": st.just("c1"), "artifact": st.just({"a": 1}), "status": st.just("error")}
        )
        found |= {key: "tool", "content": draw(WORDS), **draw(more)}
        found.pop("refusal", None)
    else:
        found = {key: "remove", "content": "", "id": draw(st.sampled_from(["1", "2"]))}
    if draw(st.integers(0, 9)) == 0:
        found.pop(draw(st.sampled_from([key, "content"])))
    return found


LIKE = st.one_of(
    WORDS,
    st.tuples(ROLES, CONTENT),
    st.tuples(st.just("tool"), WORDS),
    st.tuples(WORDS, WORDS, WORDS),
    dicts(),
    st.sampled_from([3, None, 1.5, b"x"]),
)


def seen(message: Any) -> dict[str, Any]:
    """A message of either library in the words of LangChain's."""
    extra = dict(message.additional_kwargs)
    if isinstance(message, Message) and message.role == "developer":
        extra["__openai_role__"] = "developer"
    extra.pop("tool_calls", None)  # the library keeps the raw form there
    found = {
        "type": message_type(message),
        "content": message.content,
        "id": message.id,
        "name": message.name,
        "extra": extra,
        "metadata": message.response_metadata,
    }
    if found["type"] == "ai":
        found["calls"] = message.tool_calls
    if found["type"] == "tool":
        found |= {"answers": message.tool_call_id, "artifact": message.artifact, "status": message.status}
    return found


def outcome(convert: Any, source: Any) -> Any:
    try:
        (message,) = convert([source])
    except Exception as error:  # noqa: BLE001 - the kind of error is the result
        return type(error).__name__
    return seen(message)


TOGETHER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)


@TOGETHER
@given(LIKE)
@example({"role": "developer", "content": "x"})
@example(["ai", "x"])
def test_the_same_text_role_ids_and_calls(lc: Library, source: Any) -> None:
    ours, theirs = outcome(convert_to_messages, source), outcome(lc.convert_to_messages, source)
    assert ours == theirs


@TOGETHER
@given(st.lists(dicts(), max_size=4), st.lists(st.one_of(dicts(), st.tuples(ROLES, WORDS)), max_size=4))
def test_merging_with_the_libraries_objects_is_merging_ours(lc: Library, left: list[Any], right: list[Any]) -> None:
    """One object of the library turns everything into its classes; what is merged stays the same."""

    def merged(first: Any) -> Any:
        try:
            return [
                {**seen(message), "id": None if len(message.id) > 8 else message.id}
                for message in add_messages([first, *left], right)
            ]
        except (ValueError, KeyError, NotImplementedError) as error:
            return type(error).__name__

    ours = merged(Message(role="user", content="first", id="first"))
    assert merged(lc.HumanMessage("first", id="first")) == ours


@pytest.mark.parametrize(
    "message",
    [
        Message(role="assistant", content="a", id="1", name="n", tool_calls=[], refusal="no"),
        Message(role="tool", content="r", id="1", tool_call_id="c", status="error", artifact={"a": 1}),
        Message(role="developer", content=[{"type": "text", "text": "x"}], id="2"),
        RemoveMessage("9"),
    ],
    ids=lambda message: message.role,
)
def test_ours_become_theirs(lc: Library, message: Message) -> None:
    _, theirs = convert_to_messages([lc.HumanMessage("x"), message])
    assert isinstance(theirs, lc.BaseMessage)
    assert seen(theirs) == seen(message)


@TOGETHER
@given(dicts())
def test_it_prints_like_theirs(lc: Library, source: dict[str, Any]) -> None:
    try:
        (ours,), (theirs,) = convert_to_messages([source]), lc.convert_to_messages([source])
    except (ValueError, KeyError):
        return
    if ours.type != "remove" and isinstance(ours.content, str):
        assert ours.pretty_repr() == theirs.pretty_repr()
    assert ours.text == theirs.text
