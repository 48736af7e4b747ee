"""Programs that call langchain-core's chat models inside nodes: tokens are streamed, configs arrive (frontends.md 4.3).

Skipped where the library is not installed; that it is never imported by us is shown in `tests/test_langchain_absent.py`.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from checkpoint.memory import InMemorySaver
from pregel._langchain import Lent
from pregel.callbacks import GraphCallbackHandler
from pregel.channels import LastValue
from pregel.constants import TAG_NOSTREAM
from pregel.errors import AttemptClosedError
from pregel.graph import END, START, MessagesState, StateGraph
from pregel.graph.message import push_message
from pregel.pregel import NodeBuilder, Pregel
from pregel.runtime import Runtime
from pregel.types import Command, Send, TimeoutPolicy, interrupt
from tests.support.langchain import Library
from tests.support.scenarios import Colour

HELLO: dict[str, Any] = {"messages": [("user", "hi")]}
BIG = ["hello", " ", "big", " ", "world"]


def asks(colour: Colour, model: Any, *, returns: bool = True, with_config: bool = False) -> Any:
    """A node that asks a model in its own colour."""

    async def anode(state: MessagesState, config: Any) -> Any:
        answer = await model.ainvoke(state["messages"], *([config] if with_config else []))
        return {"messages": [answer]} if returns else {}

    def node(state: MessagesState, config: Any) -> Any:
        answer = model.invoke(state["messages"], *([config] if with_config else []))
        return {"messages": [answer]} if returns else {}

    made: Any = anode if colour.is_async else node
    made.__annotations__.pop("config")
    return made


def one(node: Any, name: str = "n", **options: Any) -> Any:
    return StateGraph(MessagesState).add_node(name, node).add_edge(START, name).compile(**options)


def shown(colour: Colour, graph: Any, given: Any = HELLO, config: Any = None, **kw: Any) -> list[tuple[str, Any]]:
    """(class, content) of every chunk."""
    chunks = colour.stream(graph, given, config, stream_mode="messages", **kw)
    return [(type(message).__name__, message.content) for message, _ in chunks]


def tokens(*texts: str) -> list[tuple[str, str]]:
    return [("AIMessageChunk", text) for text in texts]


# ---- what is streamed


@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("with_config", [True, False])
def test_tokens_are_streamed_once(colour: Colour, lc: Library, returns: bool, with_config: bool) -> None:
    graph = one(asks(colour, lc.model("hello big world"), returns=returns, with_config=with_config))
    assert shown(colour, graph) == tokens(*BIG)


def test_all_chunks_of_a_call_have_the_id_that_the_state_has(colour: Colour, lc: Library) -> None:
    graph = one(asks(colour, lc.model("hello big world")))
    chunks = colour.stream(graph, HELLO, stream_mode=["messages", "values"])
    said = [payload[0] for mode, payload in chunks if mode == "messages"]
    assert {message.id for message in said} == {chunks[-1][1]["messages"][-1].id}
    assert [message.chunk_position for message in said] == [None] * 4 + ["last"]


@pytest.mark.parametrize("returns", [True, False])
def test_a_model_that_does_not_stream_is_shown_once(colour: Colour, lc: Library, returns: bool) -> None:
    graph = one(asks(colour, lc.model("hello big world", disable_streaming=True), returns=returns))
    assert shown(colour, graph) == [("AIMessage", "hello big world")]


@pytest.mark.parametrize("returns", [True, False])
def test_the_tag_nostream_silences_tokens_but_not_the_result(colour: Colour, lc: Library, returns: bool) -> None:
    model = lc.model("hello big world").with_config(tags=[TAG_NOSTREAM])
    expected = [("AIMessage", "hello big world")] if returns else []
    assert shown(colour, one(asks(colour, model, returns=returns))) == expected


def test_metadata_of_tokens(colour: Colour, lc: Library) -> None:
    model = lc.model("hello").with_config(tags=["of the model"])
    graph = one(asks(colour, model))
    config = {"tags": ["of the call"], "metadata": {"user": "u"}, "configurable": {"thread_id": "t"}}
    ((_, about),) = colour.stream(graph, HELLO, config, stream_mode="messages")
    assert about["langgraph_node"] == "n"
    assert about["langgraph_step"] == 1
    assert about["langgraph_triggers"] == ("branch:to:n",)
    assert about["langgraph_path"] == ("__pregel_pull", "n")
    assert about["langgraph_checkpoint_ns"].startswith("n:")
    assert sorted(about["tags"]) == ["of the call", "of the model"]
    assert (about["user"], about["thread_id"], about["ls_model_type"]) == ("u", "t", "chat")


def test_a_sync_call_in_an_async_node_and_a_sync_node_in_an_async_run(lc: Library) -> None:
    async def node(state: MessagesState) -> Any:
        return {"messages": [lc.model("a b").invoke(state["messages"])]}

    def sync(state: MessagesState) -> Any:
        return {"messages": [lc.model("c d").invoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("a", node).add_node("b", sync).add_edge(START, "a").add_edge("a", "b")
    assert shown(Colour("async"), graph.compile()) == tokens("a", " ", "b", "c", " ", "d")


def test_parallel_tasks_and_sends_are_told_apart(colour: Colour, lc: Library) -> None:
    def fan(state: Any) -> list[Send]:
        return [Send("n", {"messages": [("user", str(number))]}) for number in range(3)]

    model = lc.RunnableLambda(lambda messages: f"said {messages[0][1]}") | lc.RunnableLambda(
        lambda text: lc.model(text).invoke("x")
    )
    builder = StateGraph(MessagesState).add_node("n", asks(colour, model)).add_conditional_edges(START, fan, ["n"])
    chunks = colour.stream(builder.compile(), HELLO, stream_mode="messages")
    found: dict[Any, str] = {}
    for message, about in chunks:
        found[about["langgraph_path"]] = found.get(about["langgraph_path"], "") + message.content
    assert found == {("__pregel_push", n, False): f"said {n}" for n in range(3)}


def test_calls_in_threads_of_the_library(lc: Library) -> None:
    def node(state: MessagesState) -> Any:
        model = lc.RunnableLambda(lambda text: lc.model(text).invoke(text))
        return {"messages": model.batch(["a b", "c d", "e f"])}

    found: dict[str, str] = {}
    for message, about in one(node).stream(HELLO, stream_mode="messages"):
        assert about["langgraph_node"] == "n"
        found[message.id] = found.get(message.id, "") + message.content
    assert sorted(found.values()) == ["a b", "c d", "e f"]


def test_tools_and_chains_pass_it_on(colour: Colour, lc: Library) -> None:
    @lc.tool
    def look(query: str) -> str:
        """Look something up."""
        return str(lc.model(f"about {query}").invoke(query).content)

    chain = lc.RunnableLambda(lambda messages: "x") | look | lc.RunnableLambda(lambda text: lc.AIMessage(text, id="1"))
    assert shown(colour, one(asks(colour, chain))) == [*tokens("about", " ", "x"), ("AIMessage", "about x")]


def test_a_chain_that_is_the_node(colour: Colour, lc: Library) -> None:
    chain = (
        lc.RunnableLambda(lambda state: state["messages"])
        | lc.model("hello big world")
        | lc.RunnableLambda(lambda message: {"messages": [message]})
    )
    assert shown(colour, one(chain)) == tokens(*BIG)


def test_a_router_that_asks_a_model(colour: Colour, lc: Library) -> None:
    def node(state: MessagesState) -> Any:
        return {}

    def choose(state: MessagesState) -> str:
        return str(lc.model("to b").invoke("x").content[-1])

    builder = StateGraph(MessagesState).add_node("a", colour.node(node)).add_node("b", colour.node(node))
    builder.add_edge(START, "a").add_conditional_edges("a", colour.node(choose), ["b"])
    assert shown(colour, builder.compile()) == tokens("to", " ", "b")


def test_tokens_before_a_failure_are_shown(colour: Colour, lc: Library) -> None:
    def node(state: MessagesState) -> Any:
        lc.model("a b").invoke("x")
        raise ValueError("broken")

    chunks, error = colour.outcome(one(colour.node(node)), HELLO, stream_mode="messages")
    assert [message.content for message, _ in chunks] == ["a", " ", "b"]
    assert isinstance(error, ValueError)


def test_a_failing_model_is_forgotten(colour: Colour, lc: Library) -> None:
    class Failing(lc.GenericFakeChatModel):  # type: ignore[name-defined, misc]
        def _generate(self, *args: Any, **more: Any) -> Any:
            raise ValueError("no answer")

    def node(state: MessagesState) -> Any:
        with pytest.raises(ValueError, match="no answer"):
            Failing(messages=iter([])).invoke("x")
        return {"messages": [lc.model("a b").invoke("x")]}

    assert shown(colour, one(colour.node(node))) == tokens("a", " ", "b")


# ---- nesting


def nested(colour: Colour, lc: Library, texts: str = "inner words") -> Any:
    return one(asks(colour, lc.model(texts, texts)), "in")


def test_a_subgraph_shows_its_tokens_if_asked_for(colour: Colour, lc: Library) -> None:
    outer = one(nested(colour, lc), "out")
    assert shown(colour, outer) == [("AIMessage", "inner words")]
    chunks = colour.stream(outer, HELLO, stream_mode="messages", subgraphs=True)
    assert [(len(ns), message.content) for ns, (message, _) in chunks] == [(1, "inner"), (1, " "), (1, "words")]
    assert {about["langgraph_node"] for _, (_, about) in chunks} == {"in"}


def test_a_nested_graph_that_the_node_invokes_with_its_own_config(colour: Colour, lc: Library) -> None:
    inner = nested(colour, lc)
    outer = one(asks(colour, _Invoked(inner), returns=False, with_config=True), "out")
    assert shown(colour, outer) == []
    chunks = colour.stream(outer, HELLO, stream_mode="messages", subgraphs=True)
    assert [message.content for _, (message, _) in chunks] == ["inner", " ", "words"]


class _Invoked:
    """A graph as the model of a node."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph

    def invoke(self, messages: Any, config: Any = None) -> Any:
        return self.graph.invoke({"messages": messages}, config)

    async def ainvoke(self, messages: Any, config: Any = None) -> Any:
        return await self.graph.ainvoke({"messages": messages}, config)


def test_a_graph_in_a_chain_in_a_node(colour: Colour, lc: Library) -> None:
    """The config comes by way of the library, with managers of its own around the handlers."""
    inner = nested(colour, lc)
    chain = lc.RunnableLambda(lambda messages: {"messages": messages}) | lc.RunnableLambda(
        inner.invoke, **({"afunc": inner.ainvoke} if colour.is_async else {})
    )
    outer = one(asks(colour, chain, returns=False), "out")
    assert shown(colour, outer) == []
    chunks = colour.stream(outer, HELLO, stream_mode="messages", subgraphs=True)
    assert [message.content for _, (message, _) in chunks] == ["inner", " ", "words"]


@pytest.mark.parametrize("mode", ["values", "messages", "updates", "custom"])
def test_a_node_that_streams_a_nested_graph_gets_its_tokens(lc: Library, mode: str) -> None:
    inner = nested(Colour("sync"), lc)
    seen: list[str] = []

    def node(state: MessagesState) -> Any:
        seen.extend(message.content for message, _ in inner.stream(state, stream_mode="messages"))
        return {}

    chunks = list(one(node, "out").stream(HELLO, stream_mode=mode))
    assert seen == ["inner", " ", "words"]
    if mode == "messages":
        assert chunks == []


# ---- configs


def test_callbacks_of_the_call_reach_the_models(colour: Colour, lc: Library) -> None:
    seen: list[tuple[str, Any]] = []

    class Handler(lc.BaseCallbackHandler):  # type: ignore[name-defined, misc]
        def on_chat_model_start(self, serialized: Any, messages: Any, **more: Any) -> None:
            seen.append(("start", more["metadata"]["langgraph_node"]))

        def on_llm_end(self, response: Any, **more: Any) -> None:
            seen.append(("end", response.generations[0][0].text))

    graph = one(asks(colour, lc.model("a b", "c d")))
    colour.invoke(graph, HELLO, {"callbacks": [Handler()]})
    assert seen == [("start", "n"), ("end", "a b")]
    assert shown(colour, graph, config={"callbacks": [Handler()]}) == tokens("c", " ", "d")
    assert seen[2:] == [("start", "n"), ("end", "c d")]


@pytest.mark.parametrize("mode", ["messages", "values"])
def test_configurable_values_reach_runnables(colour: Colour, lc: Library, mode: str) -> None:
    def read(messages: Any, config: Any) -> Any:
        return lc.AIMessage(f"{config['configurable']['flavour']} {config['metadata']['langgraph_node']}", id="1")

    read.__annotations__["config"] = lc.RunnableConfig
    graph = one(asks(colour, lc.RunnableLambda(read)))
    colour.stream(graph, HELLO, {"configurable": {"flavour": "sweet"}}, stream_mode=mode)
    result = colour.invoke(graph, HELLO, {"configurable": {"flavour": "sweet"}})
    assert result["messages"][-1].content == "sweet n"


def test_nothing_is_left_in_the_callers_context(colour: Colour, lc: Library) -> None:
    from langchain_core.runnables.config import ensure_config

    graph = one(asks(colour, lc.model("a b", "c d")))
    colour.invoke(graph, HELLO)
    shown(colour, graph)
    assert ensure_config()["callbacks"] is None
    assert "langgraph_node" not in ensure_config()["metadata"]


def test_a_model_that_speaks_after_its_node_has_ended_is_refused(lc: Library) -> None:
    kept: list[Any] = []

    def node(state: MessagesState, config: Any) -> Any:
        kept.append(config)
        return {}

    node.__annotations__.pop("config")
    list(one(node).stream(HELLO, stream_mode="messages"))
    with pytest.raises(AttemptClosedError):
        lc.model("late words").invoke("x", {"callbacks": kept[0]["callbacks"]})


# ---- objects in state


def test_the_libraries_objects_in_every_saver(colour: Colour, lc: Library, saver: Any) -> None:
    def node(state: MessagesState) -> Any:
        call = {"name": "f", "args": {"x": 1}, "id": "c1"}
        answer = interrupt("?")
        return {
            "messages": [
                lc.AIMessage("a", id="2", tool_calls=[call]),
                lc.ToolMessage("r", tool_call_id="c1", id="3", artifact={"k": (1, 2)}, status="error"),
                lc.SystemMessage(answer, id="4"),
            ]
        }

    graph = one(colour.node(node), checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}}
    colour.invoke(graph, {"messages": [lc.HumanMessage([{"type": "text", "text": "q"}], id="1")]}, config)
    again = one(colour.node(node), checkpointer=saver)
    before = colour.invoke(again, Command(resume="s"), config)["messages"]
    stored = colour.get_state(one(colour.node(node), checkpointer=saver), config).values["messages"]
    assert stored == before
    assert [type(message).__name__ for message in stored] == [
        "HumanMessage",
        "AIMessage",
        "ToolMessage",
        "SystemMessage",
    ]
    assert stored[2].artifact == {"k": (1, 2)}
    assert stored[1].tool_calls[0]["args"] == {"x": 1}


def test_raw_messages_are_shown_as_what_the_state_makes_of_them(colour: Colour, lc: Library) -> None:
    graph = one(colour.node(lambda state: {"messages": [("ai", "raw")]}), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    given = {"messages": [lc.HumanMessage("hi", id="1")]}
    chunks = colour.stream(graph, given, config, stream_mode=["messages", "values"])
    ((message, _),) = [payload for mode, payload in chunks if mode == "messages"]
    assert type(message) is lc.AIMessage
    assert message == chunks[-1][1]["messages"][-1]


def test_a_pushed_message_of_the_library(colour: Colour, lc: Library) -> None:
    def node(state: MessagesState) -> Any:
        push_message(lc.AIMessage("pushed", id="p"))
        return {"messages": [lc.AIMessage("pushed", id="p")]}

    graph = one(colour.node(node))
    assert shown(colour, graph) == [("AIMessage", "pushed")]
    assert [message.id for message in colour.invoke(graph, HELLO)["messages"]][1:] == ["p"]


def test_a_hand_made_graph(colour: Colour, lc: Library) -> None:
    model = lc.model("a b")
    graph = Pregel(
        nodes={"n": NodeBuilder().subscribe_only("in").do(asks(colour, _Bare(model))).write_to("out")},
        channels={"in": LastValue(dict), "out": LastValue(dict)},
        input_channels="in",
        output_channels="out",
    )
    assert shown(colour, graph) == tokens("a", " ", "b")


class _Bare:
    def __init__(self, model: Any) -> None:
        self.model = model

    def invoke(self, messages: Any) -> Any:
        return self.model.invoke(messages)

    async def ainvoke(self, messages: Any) -> Any:
        return await self.model.ainvoke(messages)


def test_a_graph_called_in_a_chain_hears_the_chains_callbacks(colour: Colour, lc: Library) -> None:
    seen: list[tuple[str, str | None]] = []

    class Handler(lc.BaseCallbackHandler):  # type: ignore[name-defined, misc]
        def on_chat_model_start(self, serialized: Any, messages: Any, **more: Any) -> None:
            seen.append((more["metadata"]["langgraph_node"], more["metadata"].get("who")))
            assert more["parent_run_id"] is not None

    graph = one(asks(colour, lc.model("a b")))
    chain = lc.RunnableLambda(lambda text: {"messages": text}) | lc.RunnableLambda(
        graph.invoke, **({"afunc": graph.ainvoke} if colour.is_async else {})
    )
    config = {"callbacks": [Handler()], "metadata": {"who": "chain"}}
    assert colour.invoke(chain, "hi", config)["messages"][-1].content == "a b"
    assert seen == [("n", "chain")]


def test_a_config_of_the_bodys_own_adds_to_the_tasks(colour: Colour, lc: Library) -> None:
    model = lc.model("a", "b").with_config(metadata={"own": 1}, tags=["own"])
    ((_, about),) = colour.stream(one(asks(colour, model)), HELLO, {"tags": ["run"]}, stream_mode="messages")
    assert about["langgraph_node"] == "n"
    assert about["own"] == 1
    assert sorted(about["tags"]) == ["own", "run"]
    deaf = one(asks(colour, model.with_config(callbacks=[lc.BaseCallbackHandler()])))
    assert shown(colour, deaf) == [("AIMessage", "b")]  # callbacks of its own replace the task's, as in the library


def test_threads_of_a_body_may_look_at_the_same_time() -> None:
    seen: list[Any] = []

    class Scope:
        """While one thread makes the config, another one looks."""

        @property
        def config(self) -> Any:
            if not seen:
                seen.append("one")
                other = threading.Thread(target=lambda: seen.append(dict(lent)))
                other.start()
                other.join()
            return {"tags": ["t"]}

    lent = Lent(Scope())  # type: ignore[arg-type]
    assert lent["tags"] == ["t"]
    assert seen[1] == {"tags": ["t"]}


def test_the_lent_config_reads_like_a_dict(colour: Colour, lc: Library) -> None:
    from langchain_core.runnables.config import var_child_runnable_config as variable

    seen: list[Any] = []

    def node(state: MessagesState, config: Any) -> Any:
        lent = variable.get()
        for plain in (dict(lent), {**lent}, lent.copy(), lent | {}, dict(lent.items())):
            assert plain == config
            assert type(plain) is dict
        assert lent == config
        assert "tags" in lent
        assert list(lent) == list(lent.keys()) == list(config)
        assert lent["configurable"] is lent.get("configurable") is config["configurable"]
        assert len(list(lent.values())) == len(lent) == len(config)
        seen.append(lent)
        return {}

    node.__annotations__.pop("config")
    colour.invoke(one(colour.node(node)), HELLO)
    assert len(seen) == 1


def test_an_agent_with_tools(colour: Colour, lc: Library, saver: Any) -> None:
    """A whole program of the library's parts: model, tools, a question in between, and what a reader sees of it."""

    @lc.tool
    def weather(city: str) -> str:
        """Look up the weather."""
        return f"sunny in {city}, {interrupt('allowed?')}"

    call = {"name": "weather", "args": {"city": "Oslo"}, "id": "c1", "type": "tool_call"}
    model = lc.model(
        lc.AIMessage("", id="a1", tool_calls=[call]), lc.AIMessage("It is", id="a2"), disable_streaming=True
    )

    def tools(state: MessagesState) -> Any:
        return {"messages": [weather.invoke(one) for one in state["messages"][-1].tool_calls]}

    def more(state: MessagesState) -> str:
        return "tools" if state["messages"][-1].tool_calls else END

    def graph() -> Any:
        builder = StateGraph(MessagesState).add_node("model", asks(colour, model)).add_node("tools", colour.node(tools))
        builder.add_edge(START, "model").add_conditional_edges("model", more, ["tools", END]).add_edge("tools", "model")
        return builder.compile(checkpointer=saver)

    config = {"configurable": {"thread_id": "t"}}
    assert shown(colour, graph(), {"messages": "weather?"}, config) == [("AIMessage", "")]
    answer = Command(resume="checked")
    assert shown(colour, graph(), answer, config) == [
        ("ToolMessage", "sunny in Oslo, checked"),
        ("AIMessage", "It is"),
    ]
    stored = colour.get_state(graph(), config).values["messages"]
    assert [(type(message).__name__, message.content) for message in stored] == [
        ("HumanMessage", "weather?"),
        ("AIMessage", ""),
        ("ToolMessage", "sunny in Oslo, checked"),
        ("AIMessage", "It is"),
    ]
    assert stored[2].tool_call_id == "c1"


def test_handlers_of_both_kinds_are_told_what_is_theirs(colour: Colour, lc: Library) -> None:
    """Nested, and with a config that is passed on by hand: each once."""
    told: list[str] = []

    class Ours(GraphCallbackHandler):
        def on_run_start(self, event: Any) -> None:
            told.append(f"run {event.name}")

    class Theirs(lc.BaseCallbackHandler):  # type: ignore[name-defined, misc]
        def on_chat_model_start(self, serialized: Any, messages: Any, **more: Any) -> None:
            told.append(f"model in {more['metadata']['langgraph_node']}")

    inner = StateGraph(MessagesState).add_node("in", asks(colour, lc.model("a b", "a b"))).add_edge(START, "in")
    outer = one(asks(colour, _Invoked(inner.compile(name="inner")), returns=False, with_config=True), "out")
    outer.name = "outer"
    for streams in (False, True):
        told.clear()
        config = {"callbacks": [Ours(), Theirs()]}
        if streams:
            shown(colour, outer, config=config)
        else:
            colour.invoke(outer, HELLO, config)
        assert told == ["run outer", "run inner", "model in in"]


@pytest.mark.parametrize("refresh_on", ["auto", "heartbeat", None])
def test_what_a_model_does_keeps_its_node_from_being_idle(
    colour: Colour, lc: Library, monkeypatch: Any, refresh_on: Any
) -> None:
    """Frontends.md 2.2: events of what an attempt has called are progress, unless the policy wants heartbeats."""
    told: list[float] = []
    model = lc.model("hello big world")

    def begins(runtime: Runtime[Any]) -> Any:
        scope = runtime.task_scope
        monkeypatch.setattr(type(scope.host), "now", lambda run: told.append(1.0) or scope.moved_at + 1.0)
        return scope, scope.moved_at

    async def anode(state: MessagesState, runtime: Runtime[Any]) -> Any:
        scope, before = begins(runtime)
        await model.ainvoke(state["messages"])
        return ended(scope, before)

    def node(state: MessagesState, runtime: Runtime[Any]) -> Any:
        scope, before = begins(runtime)
        model.invoke(state["messages"])
        return ended(scope, before)

    def ended(scope: Any, before: float) -> Any:
        monkeypatch.undo()
        moved.append(scope.moved_at - before)
        return {}

    moved: list[float] = []
    timeout = None if refresh_on is None else TimeoutPolicy(idle_timeout=60, refresh_on=refresh_on)
    made = StateGraph(MessagesState).add_node("n", anode if colour.is_async else node, timeout=timeout)
    colour.invoke(made.add_edge(START, "n").compile(), HELLO)
    # Its start and its end at least: nobody listens to tokens, so it may answer in one piece.
    assert (len(told) >= 2) == (refresh_on == "auto")
    assert moved == [float(len(told))]
