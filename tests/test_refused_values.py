"""A value that cannot be stored is refused when its node returns: the error names node, state key and path."""

import asyncio
import operator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

from checkpoint.base import UnregisteredTypeError
from checkpoint.memory import InMemorySaver
from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.sqlite import SqliteSaver
from pregel.graph import START, StateGraph
from pregel.types import Command, Send, interrupt
from tests.checkpoint.ciphers import BindingCipher

CONFIG: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict):
    items: Annotated[list[Any], operator.add]
    other: Any


class Thing:
    """Of no kind that can be taken apart."""


RETURNED: dict[str, Any] = {
    "nested list": (lambda state: {"items": [{"a": [1, Thing()]}]}, "items", "[0].a[1]", Thing),
    "lambda": (lambda state: {"other": {"deep": (1, [lambda: 1])}}, "other", "deep[1][0]", type(lambda: 1)),
    "class": (lambda state: {"other": Thing}, "other", "", type),
    "command": (lambda state: Command(update={"other": {"k": Thing()}}), "other", "k", Thing),
    "send": (lambda state: Command(goto=Send("last", {"other": [Thing()]})), "__pregel_tasks", None, Thing),
    "question": (lambda state: {"other": interrupt({"q": [Thing()]})}, "__interrupt__", None, Thing),
}


@pytest.fixture(params=["memory", "sqlite", "encrypted"])
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        yield InMemorySaver()
        return
    serde = EncryptedSerializer(BindingCipher(b"key")) if request.param == "encrypted" else None
    with SqliteSaver(tmp_path / "threads.sqlite", serde=serde) as opened:
        yield opened


def graph(node: Any, saver: Any, *, parallel: bool = False) -> Any:
    builder = StateGraph(State)
    builder.add_node("first", lambda state: {"items": ["first"]})
    builder.add_node("giver", node)
    builder.add_node("last", lambda state: {})
    builder.add_edge(START, "first").add_edge("first", "giver")
    if parallel:
        for n in range(3):
            builder.add_node(f"sibling {n}", lambda state, n=n: {"items": [n]}).add_edge("first", f"sibling {n}")
    return builder.compile(checkpointer=saver)


def invoke(app: Any, given: Any, colour: str, durability: str) -> Any:
    if colour == "async":
        return asyncio.run(app.ainvoke(given, CONFIG, durability=durability))
    return app.invoke(given, CONFIG, durability=durability)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("case", RETURNED)
def test_the_error_names_node_key_and_path(saver, case, colour, durability, parallel):
    node, channel, path, cls = RETURNED[case]
    app = graph(node, saver, parallel=parallel)
    with pytest.raises(UnregisteredTypeError) as caught:
        invoke(app, {"items": [], "other": 1}, colour, durability)
    error = caught.value
    assert (error.node, error.channel, error.type) == ("giver", channel, cls)
    assert path is None or error.path == path
    for part in ("'giver'", repr(channel), path or "", cls.__qualname__):
        assert part in str(error)
    # The step before is stored, and the node runs again.
    state = app.get_state(CONFIG)
    assert state.values["items"] == ["first"]
    assert "giver" in state.next


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_without_a_saver_everything_may_be_returned(colour):
    node = RETURNED["nested list"][0]
    app = graph(node, None)
    state = asyncio.run(app.ainvoke({"items": []})) if colour == "async" else app.invoke({"items": []})
    assert type(state["items"][1]["a"][1]) is Thing


def test_values_of_no_node(saver):
    app = graph(lambda state: {}, saver)
    with pytest.raises(UnregisteredTypeError) as caught:
        app.invoke({"items": [], "other": [Thing()]}, CONFIG, durability="sync")
    assert (caught.value.node, caught.value.channel, caught.value.path) == (None, "__start__", "other[0]")
    app.invoke({"items": []}, CONFIG)
    with pytest.raises(UnregisteredTypeError) as caught:
        app.update_state(CONFIG, {"other": Thing()}, as_node="giver")
    assert caught.value.channel == "other"


def test_a_node_of_a_nested_graph(saver):
    inner = graph(RETURNED["nested list"][0], None)
    app = StateGraph(State).add_node("outer", inner).add_edge(START, "outer").compile(checkpointer=saver)
    with pytest.raises(UnregisteredTypeError) as caught:
        app.invoke({"items": []}, CONFIG, durability="sync")
    assert (caught.value.node, caught.value.channel, caught.value.path) == ("giver", "items", "[0].a[1]")


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_at_exit_the_key_and_the_path_are_named(saver, colour):
    app = graph(RETURNED["nested list"][0], saver)
    with pytest.raises(UnregisteredTypeError) as caught:
        invoke(app, {"items": []}, colour, "exit")
    assert caught.value.channel == "items"
    assert caught.value.path.endswith(".a[1]")
