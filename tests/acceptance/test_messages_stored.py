"""Messages in state: they come back from every saver as what they were, and storing them costs what was said (D14, D44)."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from checkpoint.memory import InMemorySaver
from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.sqlite import SqliteSaver
from pregel.graph import END, START, MessagesState, StateGraph, add_messages
from pregel.messages import REMOVE_ALL_MESSAGES, Message, RemoveMessage
from pregel.types import Command, Send, interrupt
from tests.support.scenarios import Colour

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
SAID = [
    Message(role="user", content=[{"type": "text", "text": "q"}], id="1", name="bob"),
    Message(role="assistant", content="", id="2", tool_calls=[CALL], usage_metadata={"input_tokens": 3}, refusal=None),
    Message(role="tool", content="r", id="3", tool_call_id="c1", artifact={"k": (1, {2})}, status="error"),
    Message(role="developer", content="d", id="4"),
]
THREAD: dict[str, Any] = {"configurable": {"thread_id": "t"}}

Open = Callable[[], Any]


@pytest.fixture(params=["memory", "sqlite", "encrypted"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the saver; a file is opened anew each time, by another object."""
    kept: list[Any] = []

    def open_() -> Any:
        if request.param == "memory":
            kept[:] = kept or [InMemorySaver()]
            return kept[0]
        while kept:
            kept.pop().close()
        serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16) if request.param == "encrypted" else None
        kept.append(SqliteSaver(str(tmp_path / "threads.sqlite"), serde=serde))
        return kept[0]

    if request.param == "encrypted":
        pytest.importorskip("cryptography")
    yield open_
    if request.param != "memory":
        kept[0].close()


class Holds(MessagesState):
    other: Any


def same(found: Any, expected: Any) -> None:
    """Equal, and of the same classes all the way down."""
    assert found == expected
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        for one, other in zip(found, expected, strict=True):
            same(one, other)


def test_messages_come_back_as_what_they_were(colour: Colour, opened: Open, durability: Any) -> None:
    places = {"deep": [{"in": SAID[0]}], "pair": (SAID[1], 2)}

    def says(state: Holds) -> Any:
        return {"messages": SAID[1:], "other": places}

    def asks(state: Holds) -> Any:
        return {"messages": [interrupt(SAID[2])]}

    def graph() -> Any:
        builder = StateGraph(Holds).add_node("says", colour.node(says)).add_node("asks", colour.node(asks))
        return builder.add_edge(START, "says").add_edge("says", "asks").compile(checkpointer=opened())

    asked = colour.invoke(graph(), {"messages": SAID[:1]}, THREAD, durability=durability)
    same(asked["__interrupt__"][0].value, SAID[2])
    state = colour.get_state(graph(), THREAD)
    same(state.values["messages"], SAID)
    same(state.values["other"], places)
    same(state.tasks[0].interrupts[0].value, SAID[2])
    answer = Message(role="user", content="yes", id="5")
    done = colour.invoke(graph(), Command(resume=answer), THREAD, durability=durability)
    same(done["messages"], [*SAID, answer])
    same(colour.get_state(graph(), THREAD).values["messages"], [*SAID, answer])


def test_sent_and_removing_messages_survive_a_restart_too(colour: Colour, opened: Open) -> None:
    failing = [True]

    def fan(state: Holds) -> list[Send]:
        return [Send("takes", {"messages": SAID[:1], "other": RemoveMessage("1")})]

    def takes(state: Holds) -> Any:
        if failing:
            failing.clear()
            raise ValueError("once")
        same(state["messages"], SAID[:1])
        assert type(state["other"]) is RemoveMessage
        return {"messages": [state["other"], *SAID[1:]]}

    def graph() -> Any:
        builder = StateGraph(Holds).add_node("takes", colour.node(takes)).add_conditional_edges(START, fan, ["takes"])
        return builder.compile(checkpointer=opened())

    assert isinstance(colour.outcome(graph(), {"messages": SAID[:1]}, THREAD)[1], ValueError)
    same(colour.invoke(graph(), None, THREAD)["messages"], SAID[1:])


@pytest.mark.parametrize(
    ("edit", "left"),
    [
        ([RemoveMessage("2")], ["1", "3", "4"]),
        ([Message(role="user", content="new", id="2")], ["1", "2", "3", "4"]),
        ([RemoveMessage(REMOVE_ALL_MESSAGES), Message(role="user", content="new", id="9")], ["9"]),
        ([RemoveMessage("4"), ("ai", "x")], ["1", "2", "3", None]),
    ],
)
def test_edits_of_stored_messages(colour: Colour, saver: Any, edit: list[Any], left: list[Any]) -> None:
    def graph() -> Any:
        builder = StateGraph(Holds).add_node("n", colour.node(lambda state: {})).add_edge(START, "n")
        return builder.compile(checkpointer=saver)

    colour.invoke(graph(), {"messages": SAID}, THREAD)
    before = colour.get_state(graph(), THREAD).config
    colour.update_state(graph(), THREAD, {"messages": copy.deepcopy(edit)}, "n")
    found = [message.id for message in colour.get_state(graph(), THREAD).values["messages"]]
    assert [one if one in "12349" else None for one in found] == left
    assert [message.id for message in colour.get_state(graph(), before).values["messages"]] == ["1", "2", "3", "4"]


# ---- states of other kinds


class Modelled(BaseModel):
    messages: Annotated[list[Message], add_messages]
    n: int = 0


@dataclasses.dataclass
class Held:
    messages: Annotated[list[Message], add_messages] = dataclasses.field(default_factory=list)
    n: int = 0


@pytest.mark.parametrize("schema", [Modelled, Held, MessagesState])
@pytest.mark.parametrize("given", ["hi", ("user", "hi"), {"role": "user", "content": "hi"}, [("user", "hi")]], ids=repr)
def test_states_of_any_kind_hold_messages(colour: Colour, memory: Any, schema: type, given: Any) -> None:
    seen: list[Any] = []

    def node(state: Any) -> Any:
        messages = state["messages"] if isinstance(state, dict) else state.messages
        seen.append([type(message) for message in messages])
        return {"messages": [("ai", f"re: {messages[-1].content}")]}

    def graph() -> Any:
        builder = StateGraph(schema).add_node("n", colour.node(node)).add_edge(START, "n")
        return builder.compile(checkpointer=memory)

    if schema is Modelled and not isinstance(given, list):
        given = [given]  # pydantic checks the input before the reducer sees it
    for _ in range(2):
        colour.invoke(graph(), {"messages": given}, THREAD)
    stored = colour.get_state(graph(), THREAD).values["messages"]
    assert [message.content for message in stored] == ["hi", "re: hi"] * 2
    assert [type(message) for message in stored] == [Message] * 4
    assert seen == [[Message], [Message] * 3]


# ---- what it costs


def test_a_conversation_is_stored_as_what_was_said(tmp_path: Path) -> None:
    """From the 50th message on, the next ones cost the same as before, however long the list is."""
    sizes = []
    for turns in (50, 100, 200):
        path = tmp_path / f"{turns}.sqlite"

        def says(state: MessagesState) -> Any:
            return {"messages": [("ai", "x" * 1_000)]}

        def more(state: MessagesState, turns: int = turns) -> str:
            return "n" if len(state["messages"]) < turns else END

        builder = StateGraph(MessagesState).add_node("n", says).add_edge(START, "n").add_conditional_edges("n", more)
        with SqliteSaver(str(path)) as saver:
            builder.compile(checkpointer=saver).invoke({"messages": "hi"}, {**THREAD, "recursion_limit": 500})
        sizes.append(path.stat().st_size)
    per_message = (sizes[1] - sizes[0]) / 50, (sizes[2] - sizes[1]) / 100
    # Pages come one at a time; what grew with the conversation would double.
    assert per_message[1] <= 1.25 * per_message[0]
    assert per_message[1] <= 3 * 1_100 + 1_000
