"""Mode `messages`: what nodes say and return, each shown once (engine.md 3.6, frontends.md 4.3, 7.7)."""

import copy
from dataclasses import dataclass, field
from typing import Annotated, Any

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from checkpoint.memory import InMemorySaver
from pregel.channels import LastValue, Topic
from pregel.constants import TAG_HIDDEN
from pregel.graph import START, MessagesState, StateGraph, add_messages
from pregel.graph.message import MessageGraph, push_message
from pregel.messages import Message
from pregel.pregel import NodeBuilder, Pregel
from pregel.types import Command, Overwrite, interrupt
from tests.support.scenarios import Colour, Gate, refused

HELLO = {"messages": [Message(role="user", content="hello", id="h")]}


class State(MessagesState):
    other: Any


def ai(text: str, identity: str | None = None) -> Message:
    return Message(role="assistant", content=text, id=identity) if identity else Message(role="assistant", content=text)


def graph_of(colour: Colour, *bodies: Any, schema: Any = State, **options: Any) -> Any:
    """One node per body, in a chain, named `n0`, `n1`, ...; a body is a function or a graph."""
    builder = StateGraph(schema)
    before = START
    for number, body in enumerate(bodies):
        name = f"n{number}"
        builder.add_node(name, body if hasattr(body, "invoke") else colour.node(body)).add_edge(before, name)
        before = name
    return builder.compile(**options)


def shown(colour: Colour, graph: Any, **kw: Any) -> list[tuple[str, str]]:
    """(node, text) of every chunk."""
    return [
        (about["langgraph_node"], message.content)
        for message, about in colour.stream(graph, HELLO, stream_mode="messages", **kw)
    ]


@pytest.mark.parametrize(
    ("returned", "texts"),
    [
        ({"messages": [ai("a", "1"), ai("b", "2")]}, ["a", "b"]),
        ({"messages": ai("alone", "1")}, ["alone"]),
        ({"other": (ai("in a tuple", "1"),)}, ["in a tuple"]),
        (Command(update={"messages": [ai("c", "1")]}), ["c"]),
        ([{"other": ai("x", "1")}, Command(update={"messages": [ai("y", "2")]})], ["x", "y"]),
        ({"messages": [ai("once", "1")], "other": ai("once", "1")}, ["once"]),
        ({"other": {"deeper": ai("not searched", "1")}}, []),
        (
            {"messages": [{"role": "assistant", "content": "a plain dict"}, ("ai", "a pair"), "a string"]},
            ["a plain dict", "a pair", "a string"],
        ),
        ({"messages": ("ai", "one pair")}, ["one pair"]),
        ({"messages": "one string"}, ["one string"]),
        ({"messages": [{"type": "ai", "content": "by its type"}]}, ["by its type"]),
        ({"other": {"role": "assistant", "content": "elsewhere"}}, ["elsewhere"]),
        ({"other": [{"role": "assistant", "content": "elsewhere"}, ("ai", "a pair")]}, ["elsewhere"]),
        ({"other": [{"role": "teller", "content": "x"}, {"type": "ai", "content": "x"}, {"role": "user"}, "x"]}, []),
        ({"messages": HELLO["messages"]}, []),
        ({"messages": Overwrite([ai("all that is left", "1")])}, []),
        (None, []),
    ],
)
def test_message_objects_at_the_top_of_an_update_are_shown(colour: Colour, returned: Any, texts: list[str]) -> None:
    graph = graph_of(colour, lambda state: returned)
    assert shown(colour, graph) == [("n0", text) for text in texts]


@pytest.mark.parametrize("said", [ai("new"), {"role": "assistant", "content": "new"}, ("ai", "new")], ids=repr)
@pytest.mark.parametrize("wrap", [lambda said: [said], lambda said: said], ids=["list", "bare"])
def test_a_message_without_an_id_is_shown_with_the_id_that_the_state_has(colour: Colour, said: Any, wrap: Any) -> None:
    before = copy.deepcopy(said)
    graph = graph_of(colour, lambda state: {"messages": wrap(said)})
    chunks = colour.stream(graph, HELLO, stream_mode=["messages", "values"])
    ((message, _),) = [payload for mode, payload in chunks if mode == "messages"]
    assert message.id is not None
    assert chunks[-1][1]["messages"][-1] == message == ai("new", message.id)
    if type(said) is dict:
        assert said == before


def test_what_is_shown_is_what_is_stored_when_a_sibling_fails(colour: Colour, saver: Any) -> None:
    """The result of the finished task is stored under the checkpoint, with the id that was shown."""
    gate = Gate()
    broken = [True]

    def says(state: Any) -> Any:
        gate.set()
        return {"messages": [("ai", "kept")]}

    def fails(state: Any) -> Any:
        yield gate
        if broken:
            broken.clear()
            raise ValueError("once")
        return {}

    builder = StateGraph(State).add_node("says", colour.node(says)).add_node("fails", colour.script(fails))
    builder.add_edge(START, "says").add_edge(START, "fails")
    config = {"configurable": {"thread_id": "t"}}
    chunks, error = colour.outcome(builder.compile(checkpointer=saver), HELLO, config, stream_mode="messages")
    assert isinstance(error, ValueError)
    ((message, _),) = chunks
    state = colour.invoke(builder.compile(checkpointer=saver), None, config)
    assert state["messages"][-1] == message


def test_plain_dicts_elsewhere_stay_as_they_are_and_an_echo_is_no_news(colour: Colour) -> None:
    said = {"role": "assistant", "content": "new"}
    graph = graph_of(
        colour,
        lambda state: {"other": [said]},
        lambda state: {"other": [*state["other"], {"role": "user", "content": "newer"}]},
    )
    chunks = colour.stream(graph, HELLO, stream_mode=["messages", "values"])
    shown = [payload[0] for mode, payload in chunks if mode == "messages"]
    assert [(type(message), message.content, message.id) for message in shown] == [
        (Message, "new", None),
        (Message, "newer", None),
    ]
    assert chunks[-1][1]["other"] == [said, {"role": "user", "content": "newer"}]
    assert [type(one) for one in chunks[-1][1]["other"]] == [dict, dict]


def test_listening_changes_nothing_that_others_see(colour: Colour, thread: Any) -> None:
    def chunks(*modes: str) -> list[Any]:
        graph = graph_of(
            colour,
            lambda state: {"messages": [("ai", "said"), {"role": "user", "content": "d"}]},
            checkpointer=InMemorySaver(),
        )
        found = colour.stream(graph, HELLO, thread, stream_mode=[*modes, "updates", "tasks"])
        for _, payload in found:
            if isinstance(payload, dict):
                payload.pop("id", None)
        return [chunk for chunk in found if chunk[0] != "messages" and "input" not in chunk[1]]

    alone = chunks()
    assert alone == chunks("messages")
    assert [type(one) for one in alone[0][1]["n0"]["messages"]] == [tuple, dict]


@pytest.mark.parametrize("bad", [("bogus", "x"), {"role": "tool", "content": "no id"}, 3])
def test_what_is_no_message_is_the_reducers_to_refuse(colour: Colour, bad: Any) -> None:
    graph = graph_of(colour, lambda state: {"messages": [bad]})
    errors = [colour.outcome(graph, HELLO, stream_mode=mode)[1] for mode in ("values", "messages")]
    assert type(errors[0]) is type(errors[1])
    assert errors[0] is not None
    assert str(errors[0]) == str(errors[1])


def test_what_any_node_was_given_is_not_shown_when_another_returns_it(colour: Colour) -> None:
    graph = graph_of(
        colour,
        lambda state: {"messages": [ai("said", "s")]},
        lambda state: {"other": state["messages"]},
        lambda state: {"messages": [ai("last", "l")]},
    )
    assert shown(colour, graph) == [("n0", "said"), ("n2", "last")]


@dataclass
class Held:
    messages: Annotated[list[Any], add_messages] = field(default_factory=list)


class Modelled(BaseModel):
    messages: Annotated[list[Any], add_messages] = []


@pytest.mark.parametrize("schema", [Held, Modelled])
def test_dataclass_and_model_inputs_are_searched_too(colour: Colour, schema: Any) -> None:
    graph = graph_of(colour, lambda state: {"messages": [*state.messages, ai("new", "n")]}, schema=schema)
    assert shown(colour, graph) == [("n0", "new")]


def test_hidden_nodes_say_nothing(colour: Colour) -> None:
    def says(given: Any) -> Message:
        return ai(f"from {given}", given)

    graph = Pregel(
        nodes={
            "seen": NodeBuilder().subscribe_only("a").do(colour.node(says)).write_to("out"),
            "hidden": NodeBuilder().subscribe_only("b").do(colour.node(says)).write_to("out").meta(TAG_HIDDEN),
        },
        channels={"a": LastValue(str), "b": LastValue(str), "out": Topic(Message)},
        input_channels=["a", "b"],
        output_channels="out",
    )
    chunks = colour.stream(graph, {"a": "a", "b": "b"}, stream_mode="messages")
    assert [message.content for message, _ in chunks] == ["from a"]


def test_a_nested_message_is_shown_by_its_own_node_or_by_the_one_around_it(colour: Colour) -> None:
    inner = graph_of(colour, lambda state: {"messages": [ai("within", "w")]})
    outer = graph_of(colour, inner, lambda state: {"messages": [ai("after", "a")]})
    assert shown(colour, outer) == [("n0", "within"), ("n1", "after")]
    chunks = colour.stream(outer, HELLO, stream_mode="messages", subgraphs=True)
    places = [(len(path), message.content) for path, (message, _) in chunks]
    assert places == [(1, "within"), (0, "after")]


def test_metadata_says_where_and_for_whom(colour: Colour) -> None:
    graph = graph_of(colour, lambda state: {"messages": [ai("a", "1")]}, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}, "metadata": {"user": "u"}}
    ((_, about),) = colour.stream(graph, HELLO, config, stream_mode="messages")
    assert about["langgraph_step"] == 1
    assert about["langgraph_triggers"] == ("branch:to:n0",)
    assert about["langgraph_path"] == ("__pregel_pull", "n0")
    assert about["langgraph_checkpoint_ns"].startswith("n0:")
    assert about["thread_id"] == "t"
    assert about["user"] == "u"


def test_in_the_typed_form(colour: Colour) -> None:
    graph = graph_of(colour, lambda state: {"messages": [ai("a", "1")]})
    (part,) = colour.stream(graph, HELLO, stream_mode="messages", version="v2")
    assert (part["type"], part["ns"], part["data"][0].content) == ("messages", (), "a")


def test_a_resumed_run_shows_what_is_said_after_the_question(colour: Colour) -> None:
    graph = graph_of(
        colour,
        lambda state: {"messages": [ai("before", "b")]},
        lambda state: {"messages": [ai(interrupt("?"), "c")]},
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "t"}}
    assert shown(colour, graph, config=config) == [("n0", "before")]
    chunks = colour.stream(graph, Command(resume="after"), config, stream_mode="messages")
    assert [message.content for message, _ in chunks] == ["after"]


@pytest.mark.parametrize(("subgraphs", "texts"), [(True, [["before"], ["after"]]), (False, [[], ["before", "after"]])])
def test_a_resumed_nested_graph(colour: Colour, subgraphs: bool, texts: list[list[str]]) -> None:
    """What the nested graph said before the question is no news to who saw it, and news to who did not."""
    inner = graph_of(
        colour,
        lambda state: {"messages": [ai("before", "b")]},
        lambda state: {"messages": [ai(interrupt("?"), "c")]},
    )
    outer = graph_of(colour, inner, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    found = []
    for given in (HELLO, Command(resume="after")):
        chunks = colour.stream(outer, given, config, stream_mode="messages", subgraphs=subgraphs)
        found.append([(chunk[1] if subgraphs else chunk)[0].content for chunk in chunks])
    assert found == texts


def test_a_graph_whose_state_is_the_list(colour: Colour) -> None:
    with pytest.deprecated_call():
        builder = MessageGraph()
    builder.add_node("bot", colour.node(lambda messages: [*messages, ("ai", f"re: {messages[-1].content}")]))
    chunks = colour.stream(builder.add_edge(START, "bot").compile(), ["hey"], stream_mode=["messages", "values"])
    ((message, _),) = [payload for mode, payload in chunks if mode == "messages"]
    assert message.content == "re: hey"
    assert chunks[-1][1][-1] == message


# ---- push_message


def pushes(colour: Colour, message: Any, returned: Any = None, **kw: Any) -> Any:
    def node(state: Any) -> Any:
        push_message(message, **kw)
        return returned

    return graph_of(colour, node)


@pytest.mark.parametrize(
    ("message", "returned", "texts", "state"),
    [
        (ai("a", "1"), None, ["a"], ["hello", "a"]),
        ({"role": "assistant", "content": "a", "id": "1"}, {}, ["a"], ["hello", "a"]),
        (ai("a", "1"), {"messages": [ai("b", "2")]}, ["a", "b"], ["hello", "a", "b"]),
        (ai("a", "1"), {"messages": [ai("a again", "1")]}, ["a"], ["hello", "a again"]),
        (Message(role="user", content="edited", id="h"), {}, ["edited"], ["edited"]),
    ],
)
def test_a_pushed_message_is_shown_and_written(
    colour: Colour, message: Any, returned: Any, texts: list[str], state: list[str]
) -> None:
    chunks = colour.stream(pushes(colour, message, returned), HELLO, stream_mode=["messages", "values"])
    assert [payload[0].content for mode, payload in chunks if mode == "messages"] == texts
    assert [message.content for message in chunks[-1][1]["messages"]] == state
    assert colour.invoke(pushes(colour, message, returned), HELLO) == chunks[-1][1]


def test_a_pushed_message_may_be_shown_only(colour: Colour) -> None:
    graph = pushes(colour, ai("a", "1"), state_key=None)
    assert shown(colour, graph) == [("n0", "a")]
    assert colour.invoke(graph, HELLO) == HELLO


def test_pushed_writes_come_before_the_returned_ones(colour: Colour) -> None:
    graph = pushes(colour, ai("a", "1"), {"messages": [ai("b", "2")]})
    ((update),) = colour.stream(graph, HELLO, stream_mode="updates")
    assert update == {"n0": [{"messages": ai("a", "1")}, {"messages": [ai("b", "2")]}]}


def test_each_push_is_shown_at_once(colour: Colour) -> None:
    def node(state: Any) -> Any:
        for text in "abc":
            push_message(ai(text, "1"))

    assert shown(colour, graph_of(colour, node)) == [("n0", text) for text in "abc"]


def test_a_nested_push_is_shown_where_it_is_said(colour: Colour) -> None:
    outer = graph_of(colour, pushes(colour, ai("within", "w"), state_key=None))
    assert shown(colour, outer) == []
    ((path, (message, about)),) = colour.stream(outer, HELLO, stream_mode="messages", subgraphs=True)
    assert (len(path), message.content, about["langgraph_node"]) == (1, "within", "n0")


def test_what_cannot_be_pushed(colour: Colour) -> None:
    for bad, kind in ((ai("a"), ValueError), (("ai", "a"), ValueError), (3, NotImplementedError)):
        _, error = colour.outcome(pushes(colour, bad), HELLO)
        assert type(error) is kind
    with refused(RuntimeError, "push_message"):
        push_message(ai("a", "1"))


# ---- any program


SAYS = st.lists(
    st.one_of(
        st.builds(lambda text: ai(text), st.sampled_from("abc")),
        st.builds(lambda text, identity: ai(text, identity), st.sampled_from("abc"), st.sampled_from(["i", "j", "k"])),
        st.builds(lambda text: ("ai", text), st.sampled_from("abc")),
        st.builds(lambda text: {"role": "assistant", "content": text}, st.sampled_from("abc")),
        st.sampled_from(["text"]),
    ),
    max_size=3,
)
BODIES = st.recursive(
    st.one_of(
        st.tuples(st.just("returns"), SAYS),
        st.tuples(st.just("pushes"), st.sampled_from(["p", "q"])),
        st.just(("echoes", None)),
    ),
    lambda inner: st.tuples(st.just("nests"), st.lists(inner, min_size=1, max_size=2)),
    max_leaves=5,
)


def made(colour: Colour, kind: str, what: Any) -> Any:
    """A body, fresh for every run: messages without ids are given some in place."""
    if kind == "nests":
        return graph_of(colour, *(made(colour, *inner) for inner in what))

    def node(state: Any) -> Any:
        if kind == "echoes":
            return {"messages": state["messages"], "other": state["messages"][:1]}
        if kind == "pushes":
            push_message(ai("pushed", what))
            return {}
        return {"messages": copy.deepcopy(what)}

    return node


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@hypothesis.given(st.lists(BODIES, min_size=1, max_size=4), st.booleans())
def test_each_message_is_shown_once_and_as_it_is_stored(colour: Colour, bodies: list[Any], subgraphs: bool) -> None:
    graph = graph_of(colour, *(made(colour, *body) for body in bodies))
    chunks = colour.stream(graph, HELLO, stream_mode=["messages", "values"], subgraphs=subgraphs)
    if subgraphs:
        final = [payload for ns, mode, payload in chunks if mode == "values" and ns == ()][-1]["messages"]
        shown = [payload[0] for _, mode, payload in chunks if mode == "messages"]
    else:
        final = [payload for mode, payload in chunks if mode == "values"][-1]["messages"]
        shown = [payload[0] for mode, payload in chunks if mode == "messages"]
    # What is pushed is shown each time; everything else once. Hidden nested graphs push into their state unseen.
    pushed = {"p", "q"}
    ids = [message.id for message in shown if message.id not in pushed]
    assert len(ids) == len(set(ids))
    assert "h" not in ids
    assert {message.id for message in final[1:]} == set(ids) | {m.id for m in shown if m.id in pushed}
    by_id = {message.id: message for message in final}
    for message in shown:
        if ids.count(message.id) == 1 and message.id not in {"i", "j", "k"}:
            assert by_id[message.id] == message
