"""`add_messages`, checked against a slow model of its rules, and `MessagesState`."""

import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import is_
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict

from pregel.channels import BinaryOperatorAggregate, DeltaChannel
from pregel.graph import START, StateGraph
from pregel.graph import message as module
from pregel.graph.message import REMOVE_ALL_MESSAGES, MessageGraph, MessagesState, add_messages
from pregel.messages import Message, RemoveMessage
from tests.support.scenarios import Colour


def said(content: Any, id: str | None = None, **keys: Any) -> Message:
    message = Message(role="user", content=content, **keys)
    if id is not None:
        message["id"] = id
    return message


def pairs(messages: list[Any]) -> list[tuple[Any, Any]]:
    return [(message.content, message.id) for message in messages]


# ---- sides


def test_single_values_stand_for_lists() -> None:
    assert [m.content for m in add_messages("a", ("ai", "b"))] == ["a", "b"]
    assert [m.content for m in add_messages([], {"role": "user", "content": "c"})] == ["c"]


def test_without_sides_it_is_a_reducer() -> None:
    assert isinstance(add_messages(), partial)
    reducer = add_messages(format="langchain-openai")
    assert reducer([], [said(["a", "b"], "1")])[0].content == "a\nb"


@pytest.mark.parametrize(("left", "right", "named"), [(None, [], "right"), ([], None, "left")])
def test_one_side_is_an_error(left: Any, right: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        add_messages(left, right)


def test_unknown_format() -> None:
    with pytest.raises(ValueError, match="bogus"):
        add_messages([], [], format="bogus")  # type: ignore[call-overload]


def test_the_lists_given_are_not_edited() -> None:
    left, right = [said("a", "1")], [said("b", "1"), RemoveMessage("1")]
    assert add_messages(left, right) == []
    assert (pairs(left), len(right)) == ([("a", "1")], 2)
    assert add_messages(left, []) is not left


# ---- ids


def test_missing_ids_on_the_right() -> None:
    given_object, given_dict = said("a"), {"role": "user", "content": "b"}
    merged = add_messages([], [given_object, given_dict, "c"])
    assert len({message.id for message in merged}) == 3
    assert all(isinstance(message.id, str) and message.id for message in merged)
    assert merged[0] is given_object
    assert "id" not in given_dict


def test_missing_ids_on_the_left_are_added_to_copies() -> None:
    stored, kept = said("a"), said("b", "1")
    merged = add_messages([stored, kept], [])
    assert "id" not in stored
    assert merged[0].id
    assert merged[0] is not stored
    assert merged[1] is kept
    explicit = Message(role="user", content="a", id=None)
    assert add_messages([explicit], [])[0].id
    assert explicit.id is None


def test_raw_values_on_the_left_are_coerced() -> None:
    merged = add_messages(["a", {"role": "user", "content": "b", "id": "1"}], [said("c", "1")])
    assert [message.content for message in merged] == ["a", "c"]
    assert all(type(message) is Message for message in merged)


# ---- merging


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ([said("z", "1")], [("z", "1"), ("b", "2")]),
        ([said("c", "3")], [("a", "1"), ("b", "2"), ("c", "3")]),
        ([said("c", "3"), said("d", "3")], [("a", "1"), ("b", "2"), ("d", "3")]),
        ([RemoveMessage("1")], [("b", "2")]),
        ([{"role": "remove", "content": "", "id": "1"}], [("b", "2")]),
        ([RemoveMessage("1"), said("z", "1")], [("z", "1"), ("b", "2")]),
        ([said("z", "1"), RemoveMessage("1")], [("b", "2")]),
        ([said("c", "3"), RemoveMessage("3")], [("a", "1"), ("b", "2")]),
        ([RemoveMessage(REMOVE_ALL_MESSAGES)], []),
        ([said("x", "9"), RemoveMessage(REMOVE_ALL_MESSAGES), said("c", "3")], [("c", "3")]),
        (
            [RemoveMessage(REMOVE_ALL_MESSAGES), said("c", "1"), RemoveMessage(REMOVE_ALL_MESSAGES), said("d", "2")],
            [("d", "2")],
        ),
        ([RemoveMessage(REMOVE_ALL_MESSAGES), said("c", "3"), said("d", "3")], [("d", "3")]),
    ],
)
def test_merging(right: list[Any], expected: list[tuple[str, str]]) -> None:
    assert (
        pairs(add_messages([said("a", "1"), said("b", "2")], [dict(m) if type(m) is dict else m for m in right]))
        == expected
    )


def test_duplicate_ids_on_the_left() -> None:
    left = [said("a", "1"), said("x", "2"), said("b", "1")]
    assert pairs(add_messages(left, [said("c", "1")])) == [("a", "1"), ("x", "2"), ("c", "1")]
    assert pairs(add_messages(left, [RemoveMessage("1")])) == [("x", "2")]


@pytest.mark.parametrize("right", [[RemoveMessage("zz")], [RemoveMessage(REMOVE_ALL_MESSAGES), RemoveMessage("zz")]])
def test_removing_what_is_not_there(right: list[Any]) -> None:
    left = [said("a", "1")]
    with pytest.raises(ValueError, match="zz"):
        add_messages(left, right)


IDS = st.sampled_from(["1", "2", "3"])
MESSAGES = st.builds(said, st.sampled_from("abc"), IDS)


@given(st.lists(MESSAGES, max_size=5), st.lists(st.one_of(MESSAGES, st.builds(RemoveMessage, IDS)), max_size=5))
def test_against_a_slow_model(left: list[Message], right: list[Message]) -> None:
    slots: list[Any] = list(left)
    gone: set[str] = set()
    for message in right:
        at = [i for i, slot in enumerate(slots) if slot.id == message.id]
        if message.type == "remove":
            if not at:
                with pytest.raises(ValueError, match=repr(message.id)):
                    add_messages(left, right)
                return
            gone.add(message.id)  # type: ignore[arg-type]
        elif at:
            slots[at[-1]] = message
            gone.discard(message.id)  # type: ignore[arg-type]
        else:
            slots.append(message)
    expected = [slot for slot in slots if slot.id not in gone]
    merged = add_messages(left, right)
    assert len(merged) == len(expected)
    assert all(map(is_, merged, expected))


# ---- long lists that grow

_with_ids, _log_of = module._with_ids, module._log_of


MANY = st.lists(st.one_of(MESSAGES, st.builds(RemoveMessage, IDS)), max_size=3)
EDITS = st.sampled_from(["none", "id returned", "appended by hand", "replaced by hand", "a plain dict", "forked"])


@given(st.lists(st.tuples(MANY, EDITS), max_size=8))
def test_growing_is_merging(rounds: list[tuple[list[Message], str]]) -> None:
    """What is remembered of a list changes nothing, whatever is done to it meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LONG", 0)
        patch.setattr(module, "MAX_GROWING", 4)
        grown: list[Any] = add_messages([], [])
        for number, (right, edit) in enumerate(rounds):
            before = list(grown)
            if edit == "id returned" and grown:
                grown[-1].id = f"e{number}"
                right = [*right, grown[-1]]
            elif edit == "appended by hand":
                grown.append(said("hand", f"h{number}"))
            elif edit == "replaced by hand" and grown:
                grown[0] = said("hand", f"h{number}")
            elif edit == "a plain dict":
                right = [*right, {"role": "user", "content": "d", "id": f"d{number}"}]  # type: ignore[list-item]
            copied = list(grown)
            try:
                expected = add_messages(copied, right)
            except ValueError:
                with pytest.raises(ValueError, match="RemoveMessage"):
                    add_messages(grown, right)
                grown = before
                continue
            merged = add_messages(grown, right)
            assert list(grown) == copied
            assert merged == expected
            if edit == "forked":
                assert add_messages(grown, [said("other", f"f{number}")])[-1].id == f"f{number}"
                assert add_messages(grown, right) == expected
            grown = merged


def test_appending_to_a_long_list_looks_at_none_of_its_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does appending to one list again and again, as a step does that reads with its own writes."""
    grown = add_messages([], [said("old", str(number)) for number in range(module.LONG)])
    grown = add_messages(grown, [said("second", "second")])
    looked: list[Any] = []
    monkeypatch.setattr(
        module, "_with_ids", lambda messages, id_of: looked.append(len(messages)) or _with_ids(messages, id_of)
    )
    monkeypatch.setattr(module, "_log_of", lambda messages: looked.append(len(messages)) or _log_of(messages))
    for number in range(10):
        others = [add_messages(grown, [said("asked", f"o{number}")]) for _ in range(3)]
        grown = add_messages(grown, [said("new", f"n{number}")])
        assert [other[-1].content for other in others] == ["asked"] * 3
    assert looked == []
    assert pairs(grown[module.LONG :]) == [("second", "second"), *(("new", f"n{number}") for number in range(10))]
    assert len(module._growing) <= module.MAX_GROWING


def test_what_nobody_has_any_more_is_let_go_of() -> None:
    def conversation() -> list[Any]:
        grown = add_messages([], [said("old", str(number)) for number in range(module.LONG)])
        for number in range(5):
            add_messages(grown, [said("asked", f"o{number}")])
            grown = add_messages(grown, [said("new", f"n{number}")])
        return grown

    kept = conversation()
    conversation()
    add_messages([], ["x"])
    assert [listed for listed, _ in module._growing.values()] == [kept]
    del kept
    add_messages([], ["x"])
    assert module._growing == {}


def test_branches_of_a_long_list_are_each_what_they_are() -> None:
    trunk = add_messages([], [said("old", str(number)) for number in range(module.LONG)])
    trunk = add_messages(trunk, [said("x", "x")])
    one, other = add_messages(trunk, [said("one", "1a")]), add_messages(trunk, [said("other", "2a")])
    assert pairs(add_messages(one, [said("edited", "1a")])[-2:]) == [("x", "x"), ("edited", "1a")]
    assert pairs(add_messages(other, [said("new", "1a")])[-2:]) == [("other", "2a"), ("new", "1a")]
    assert pairs(add_messages(one, [said("again", "2a")])[-2:]) == [("one", "1a"), ("again", "2a")]
    assert len(trunk) == module.LONG + 1


def test_threads_that_append_to_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = add_messages([], [said("old", str(number)) for number in range(module.LONG)])
    trunk = add_messages(trunk, [said("x", "x")])

    def grow(name: int) -> list[Any]:
        grown = trunk
        for number in range(50):
            grown = add_messages(grown, [said(str(name), f"{name}-{number}")])
        return grown

    with ThreadPoolExecutor(4) as pool:
        for name, grown in enumerate(pool.map(grow, range(4))):
            assert grown[: len(trunk)] == trunk
            assert pairs(grown[len(trunk) :]) == [(str(name), f"{name}-{number}") for number in range(50)]


def test_what_stays_is_the_same_object() -> None:
    channel: BinaryOperatorAggregate[Any] = BinaryOperatorAggregate(list, add_messages)
    channel.update(["a"])
    channel.update([["b", ("ai", "c")]])
    before = channel.replaced()
    assert [*map(is_, before, channel.get())] == [True]
    channel.update([said("z", channel.get()[1].id)])
    assert [*map(is_, channel.replaced(), channel.get())] == [True, False, True]


# ---- objects of other libraries


def test_foreign_objects_are_merged_as_they_are() -> None:
    old, new = SimpleNamespace(type="ai", content="a", id="1"), SimpleNamespace(role="user", content="b")
    merged = add_messages([old, said("x", "2")], [new, SimpleNamespace(type="remove", content="", id="2")])
    assert merged[0] is old
    assert merged[1] is new
    assert isinstance(new.id, str)
    bare = SimpleNamespace(type="ai", content="c")
    (complete,) = add_messages([bare], [])
    assert complete is not bare
    assert isinstance(complete.id, str)
    assert not hasattr(bare, "id")


class Base:
    """Stands for langchain-core's message class."""

    def __init__(self, type: str, content: Any, id: str | None = None) -> None:
        self.type, self.content, self.id = type, content, id

    def model_copy(self) -> "Base":
        return Base(self.type, self.content, self.id)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    def convert(messages: list[Any]) -> list[Any]:
        return [Base("human", m if isinstance(m, str) else m["content"]) for m in messages]

    def to_openai(messages: list[Any]) -> list[Any]:
        return [{"role": "user", "content": part} for message in messages for part in message.content.split(";")]

    module = ModuleType("langchain_core.messages")
    vars(module).update(
        BaseMessage=Base,
        BaseMessageChunk=type("Chunk", (Base,), {}),
        convert_to_messages=convert,
        convert_to_openai_messages=to_openai,
    )
    monkeypatch.setitem(sys.modules, "langchain_core.messages", module)
    return module


def test_one_langchain_message_makes_all_langchains(library: ModuleType) -> None:
    old = Base("human", "a", "1")
    merged = add_messages([old], ["b"])
    assert merged[0] is old
    assert [type(message) for message in merged] == [Base, Base]
    assert merged[1].id
    without_id = Base("human", "c")
    (complete,) = add_messages([without_id], [])
    assert (complete.content, without_id.id) == ("c", None)
    assert complete.id


def test_format_of_langchain_messages_keeps_the_id(library: ModuleType) -> None:
    merged = add_messages([Base("human", "a;b", "1"), Base("human", "c", "2")], [], format="langchain-openai")
    assert [(m.content, m.id) for m in (merged[0], merged[2])] == [("a", "1"), ("c", "2")]
    assert merged[1].content == "b"
    assert merged[1].id not in (None, "1", "2")


# ---- format


PNG = "data:image/png;base64,QQ=="


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a", "a"),
        ([], ""),
        (["a", {"type": "text", "text": "b", "cache_control": {}}], "a\nb"),
        (
            ["a", {"type": "image_url", "image_url": {"url": "u"}}],
            [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}],
        ),
        (
            [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}}],
            [{"type": "image_url", "image_url": {"url": PNG}}],
        ),
        (
            [{"type": "image", "base64": "QQ==", "mime_type": "image/png"}],
            [{"type": "image_url", "image_url": {"url": PNG}}],
        ),
        ([{"type": "image", "base64": "QQ=="}], [{"type": "image_url", "image_url": {"url": PNG}}]),
        ([{"type": "image", "source_type": "url", "url": "u"}], [{"type": "image_url", "image_url": {"url": "u"}}]),
        ([{"type": "weird", "x": 1}], [{"type": "weird", "x": 1}]),
    ],
)
def test_openai_content(content: Any, expected: Any) -> None:
    source = said(content, "1")
    (message,) = add_messages([], [source], format="langchain-openai")
    assert pairs([message]) == [(expected, "1")]
    assert source.content is content


def test_openai_tool_use() -> None:
    use = {"type": "tool_use", "id": "c1", "name": "f", "input": {"q": 1}}
    known = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"q": 1}'}}
    for keys in ({}, {"tool_calls": [known]}):
        source = Message(role="assistant", content=["a", use], id="1", **keys)
        (message,) = add_messages([], [source], format="langchain-openai")
        assert (message.content, message["tool_calls"]) == ("a", [known])
    (alone,) = add_messages([], [Message(role="assistant", content=[use], id="1")], format="langchain-openai")
    assert (alone.content, alone["tool_calls"]) == ("", [known])


def test_openai_tool_results_become_messages() -> None:
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "r"}]}
    merged = add_messages([], [said(["a", result], "1")], format="langchain-openai")
    assert [(m.type, m.content, m.tool_call_id) for m in merged] == [("human", "a", None), ("tool", "r", "c1")]
    assert merged[0].id == "1"
    assert merged[1].id != "1"
    only = add_messages([], [said([{"type": "tool_result", "tool_use_id": "c1"}], "1")], format="langchain-openai")
    assert [(m.type, m.content) for m in only] == [("tool", "")]
    assert only[0].id == "1"


# ---- the schema


def test_messages_state() -> None:
    class Mine(MessagesState):
        extra: int

    hints = get_type_hints(Mine, include_extras=True)
    assert hints["messages"] == Annotated[list[Message], add_messages]
    assert set(hints) == {"messages", "extra"}


def test_a_graph_whose_state_is_a_list_of_messages() -> None:
    with pytest.deprecated_call():
        builder = MessageGraph()
    builder.add_node("bot", lambda messages: ("ai", f"re: {messages[-1].content}")).add_edge(START, "bot")
    builder.set_finish_point("bot")
    assert [(m.type, m.content) for m in builder.compile().invoke("hey")] == [("human", "hey"), ("ai", "re: hey")]


# ---- folding the writes of a step


@pytest.mark.parametrize(
    ("state", "writes", "expected"),
    [
        ([], [[said("a", "1"), said("b", "2")], said("c", "1")], [("c", "1"), ("b", "2")]),
        ([said("a", "1")], [[RemoveMessage("zz")], [RemoveMessage("1")]], []),
        ([said("a", "1")], [RemoveMessage(REMOVE_ALL_MESSAGES)], [("a", "1")]),
        ([said("a", "1"), said("b", "2")], [[RemoveMessage("1"), said("n", "1")]], [("b", "2"), ("n", "1")]),
        ([said("a", "1"), said("b", "2")], [[said("n", "1")], [RemoveMessage("1")]], [("b", "2")]),
        ([said("a", "1"), said("b", "1")], [said("n", "1")], [("a", "1"), ("n", "1")]),
        ([{"role": "user", "content": "a", "id": "1"}], [said("n", "1")], [("n", "1")]),
    ],
)
def test_folding(state: list[Any], writes: list[Any], expected: list[tuple[str, str]]) -> None:
    before = list(state)
    assert pairs(module.messages_delta_reducer(state, writes)) == expected
    assert state == before


def test_folding_takes_lists_apart_and_nothing_else() -> None:
    writes: list[Any] = [("ai", "x"), {"role": "user", "content": "d"}, "s", [("ai", "y"), "t"]]
    merged = module.messages_delta_reducer([said("a", "1")], writes)
    assert [(m.type, m.content) for m in merged[1:]] == [
        ("ai", "x"),
        ("human", "d"),
        ("human", "s"),
        ("ai", "y"),
        ("human", "t"),
    ]
    assert len({m.id for m in merged}) == 6


WRITES = st.lists(
    st.one_of(
        MESSAGES,
        st.builds(RemoveMessage, IDS),
        st.sampled_from(["a", "b"]),
        st.lists(st.one_of(MESSAGES, st.just("a"), st.builds(RemoveMessage, IDS)), max_size=3),
    ),
    max_size=6,
)


@given(WRITES, st.data())
def test_folding_in_any_groups_gives_the_same(writes: list[Any], data: st.DataObject) -> None:
    """What a saver asks for that stores writes and folds them again, ids included."""

    def fresh() -> list[Any]:
        return copy.deepcopy(writes)

    whole = module.messages_delta_reducer([], fresh())
    cut = data.draw(st.integers(0, len(writes)))
    halves = module.messages_delta_reducer(module.messages_delta_reducer([], fresh()[:cut]), fresh()[cut:])
    assert halves == whole
    assert all(m.id for m in whole)


def test_folding_in_a_graph(colour: Colour, saver: Any) -> None:
    class State(TypedDict):
        messages: Annotated[list[Any], DeltaChannel(module.messages_delta_reducer)]

    def node(state: State) -> Any:
        return {"messages": [("ai", "out"), RemoveMessage("gone")]}

    builder = StateGraph(State).add_node("n", colour.node(node)).add_edge(START, "n")
    config = {"configurable": {"thread_id": "t"}}
    given = {"messages": [said("a", "gone"), "in"]}
    chunks = colour.stream(builder.compile(checkpointer=saver), given, config, stream_mode=["messages", "values"])
    stored = colour.get_state(builder.compile(checkpointer=saver), config).values["messages"]
    assert [(type(m), m.content) for m in stored] == [(Message, "in"), (Message, "out")]
    assert chunks[-1][1]["messages"] == stored
    (shown,) = [payload[0] for mode, payload in chunks if mode == "messages" and payload[0].type != "remove"]
    assert shown == stored[-1]
