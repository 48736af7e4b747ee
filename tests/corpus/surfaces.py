"""What surrounds a run: stream modes, config, context, retries, batches, drawings, schemas, raw graphs, memory."""

import operator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from checkpoint.memory import MemorySaver
from pregel.channels import BinaryOperatorAggregate, EphemeralValue, LastValue, Topic
from pregel.config import get_config, get_store, get_stream_writer
from pregel.graph import END, START, MessagesState, StateGraph, add_messages
from pregel.pregel import NodeBuilder, Pregel
from pregel.runtime import Runtime, get_runtime
from pregel.store.base import BaseStore
from pregel.store.memory import InMemoryStore
from pregel.types import Command, RetryPolicy, RunnableConfig, StreamWriter, interrupt
from tests.support.scenarios import Colour


class State(TypedDict):
    """Two plain keys and a log."""

    topic: str
    joke: str
    log: Annotated[list[Any], operator.add]


def joke_graph(colour: Colour, **options: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("refine", colour.node(lambda s: {"topic": s["topic"] + " and cats"}))
    builder.add_node("write", colour.node(lambda s: {"joke": f"about {s['topic']}", "log": ["j"]}))
    return builder.add_edge(START, "refine").add_edge("refine", "write").add_edge("write", END).compile(**options)


def single(colour: Colour, node: Any, schema: Any = State, **options: Any) -> Any:
    builder = StateGraph(schema, **options).add_node("n", colour.node(node))
    return builder.add_edge(START, "n").compile()


def stream_modes_and_their_mixtures(colour: Colour) -> None:
    graph = joke_graph(colour)
    updates = [{"refine": {"topic": "ice and cats"}}, {"write": {"joke": "about ice and cats", "log": ["j"]}}]
    values = [
        {"topic": "ice", "log": []},
        {"topic": "ice and cats", "log": []},
        {"topic": "ice and cats", "joke": "about ice and cats", "log": ["j"]},
    ]
    given = {"topic": "ice"}
    assert colour.stream(graph, given) == updates
    assert colour.stream(graph, given, stream_mode="values") == values
    assert colour.stream(graph, given, stream_mode=["values", "updates"]) == [
        ("values", values[0]),
        ("updates", updates[0]),
        ("values", values[1]),
        ("updates", updates[1]),
        ("values", values[2]),
    ]
    assert colour.stream(graph, given, stream_mode=["updates"]) == [("updates", chunk) for chunk in updates]
    assert colour.stream(graph, given, stream_mode=["custom", "messages"]) == []
    tasks = colour.stream(graph, given, stream_mode="tasks")
    assert [(t["name"], "result" in t) for t in tasks] == [
        ("refine", False),
        ("refine", True),
        ("write", False),
        ("write", True),
    ]
    debug = colour.stream(graph, given, stream_mode="debug")
    assert [(d["type"], d["step"]) for d in debug] == [
        ("task", 1),
        ("task_result", 1),
        ("task", 2),
        ("task_result", 2),
    ]
    assert colour.invoke(graph, given, stream_mode="updates") == updates
    assert colour.stream(graph, given, stream_mode="values", output_keys="joke") == ["about ice and cats"]


def second_stream_format(colour: Colour) -> None:
    graph = joke_graph(colour)
    parts = colour.stream(graph, {"topic": "ice"}, stream_mode=["updates", "values"], version="v2")
    assert [(part["type"], part["ns"]) for part in parts] == [
        ("values", ()),
        ("updates", ()),
        ("values", ()),
        ("updates", ()),
        ("values", ()),
    ]
    assert parts[1]["data"] == {"refine": {"topic": "ice and cats"}}
    result = colour.invoke(graph, {"topic": "ice"}, version="v2")
    assert (result.value["joke"], result.interrupts) == ("about ice and cats", ())


def custom_chunks(colour: Colour) -> None:
    def first(state: State) -> dict[str, Any]:
        write = get_stream_writer()
        write({"progress": 1})
        write("text")
        return {"topic": "first"}

    def second(state: State, writer: StreamWriter) -> dict[str, Any]:
        writer([1, 2])
        return {"topic": "second"}

    builder = StateGraph(State).add_node("first", colour.node(first)).add_node("second", colour.node(second))
    graph = builder.add_edge(START, "first").add_edge("first", "second").compile()
    assert colour.stream(graph, {"topic": "x"}, stream_mode="custom") == [{"progress": 1}, "text", [1, 2]]
    assert [mode for mode, _ in colour.stream(graph, {"topic": "x"}, stream_mode=["custom", "updates"])] == [
        "custom",
        "custom",
        "updates",
        "custom",
        "updates",
    ]
    assert colour.invoke(graph, {"topic": "x"})["topic"] == "second"


def message_chunks(colour: Colour) -> None:
    replies = add_messages([], [{"role": "ai", "content": "hello", "id": "a1"}])

    def bot(state: MessagesState) -> dict[str, Any]:
        return {"messages": replies}

    graph = single(colour, bot, MessagesState)
    given = {"messages": [{"role": "user", "content": "x", "id": "u"}]}
    ((message, metadata),) = colour.stream(graph, given, stream_mode="messages")
    assert (message.type, message.content, message.id) == ("ai", "hello", "a1")
    assert (metadata["langgraph_node"], metadata["langgraph_step"]) == ("n", 1)


def config_reaches_every_node(colour: Colour) -> None:
    def annotated(state: State, config: RunnableConfig) -> dict[str, Any]:
        return {"log": [config["configurable"]["user"], config["metadata"]["langgraph_node"], config["tags"]]}

    def optional(state: State, *, config: RunnableConfig | None = None) -> dict[str, Any]:
        assert config is not None
        return {"log": [config["configurable"]["user"], config["metadata"]["m"]]}

    def asked_for(state: State) -> dict[str, Any]:
        return {"log": [get_config()["configurable"]["user"]]}

    def route(state: State, config: RunnableConfig) -> str:
        return str(config["configurable"]["goto"])

    builder = StateGraph(State)
    for name, node in (("a", annotated), ("b", optional), ("c", asked_for)):
        builder.add_node(name, colour.node(node))
    builder.add_edge(START, "a").add_conditional_edges("a", route, ["b", "c"]).add_edge("b", "c")
    graph = builder.compile().with_config(tags=["bound"])
    config = {"configurable": {"user": "u1", "goto": "b"}, "tags": ["t"], "metadata": {"m": 1}}
    assert colour.invoke(graph, {"log": []}, config)["log"] == ["u1", "a", ["bound", "t"], "u1", 1, "u1"]


def context_of_every_kind(colour: Colour) -> None:
    @dataclass
    class Context:
        user: str
        limit: int = 3

    class Model(BaseModel):
        user: str
        limit: int = 3

    class Typed(TypedDict):
        user: str

    def node(state: State, runtime: Runtime[Any]) -> dict[str, Any]:
        context: Any = runtime.context
        assert get_runtime().context is context
        return {"log": [context["user"] if isinstance(context, dict) else (context.user, context.limit)]}

    def log(schema: Any, context: Any) -> Any:
        return colour.invoke(single(colour, node, context_schema=schema), {"log": []}, context=context)["log"][0]

    assert log(Context, Context("bob", 5)) == ("bob", 5)
    assert log(Context, {"user": "amy"}) == ("amy", 3)
    assert log(Model, {"user": "z", "limit": "7"}) == ("z", 7)
    assert log(Typed, {"user": "t"}) == "t"
    with pytest.raises(TypeError):
        log(Context, {"nope": 1})


def store_for_long_term_memory(colour: Colour) -> None:
    store = InMemoryStore()

    def remember(state: MessagesState, config: RunnableConfig, *, store: BaseStore) -> dict[str, Any]:
        space = ("memories", config["configurable"]["user"])
        text = state["messages"][-1].content
        if text.startswith("remember"):
            store.put(space, text.split()[-1], {"data": text})
        assert get_store() is store
        return {"messages": [("ai", ",".join(sorted(item.key for item in store.search(space))))]}

    builder = StateGraph(MessagesState).add_node("n", colour.node(remember)).add_edge(START, "n")
    graph = builder.compile(store=store)

    def say(user: str, text: str) -> Any:
        return colour.invoke(graph, {"messages": text}, {"configurable": {"user": user}})["messages"][-1].content

    assert say("1", "remember tea") == "tea"
    assert say("1", "remember milk") == "milk,tea"
    assert say("2", "what") == ""
    assert say("1", "what") == "milk,tea"
    assert store.list_namespaces() == [("memories", "1")]


def retries(colour: Colour) -> None:
    def failing(times: int, error: type[Exception], calls: list[int]) -> Any:
        def node(state: State) -> dict[str, Any]:
            calls.append(1)
            if len(calls) <= times:
                raise error("no")
            return {"log": [len(calls)]}

        return colour.node(node)

    def attempts(times: int, error: type[Exception], **policy: Any) -> tuple[int, bool]:
        calls: list[int] = []
        retry = RetryPolicy(initial_interval=0, jitter=False, **policy)
        builder = StateGraph(State).add_node("n", failing(times, error, calls), retry_policy=retry)
        _, failure = colour.outcome(builder.add_edge(START, "n").compile(), {"log": []})
        return len(calls), failure is None

    assert attempts(2, ConnectionError) == (3, True)
    assert attempts(5, ConnectionError) == (3, False)
    assert attempts(1, ValueError) == (1, False)
    assert attempts(1, ValueError, retry_on=ValueError) == (2, True)
    assert attempts(1, ValueError, retry_on=(KeyError, ValueError)) == (2, True)
    assert attempts(1, ValueError, retry_on=lambda error: "no" in str(error)) == (2, True)
    assert attempts(3, KeyError, retry_on=Exception, max_attempts=4) == (4, True)


def batches(colour: Colour) -> None:
    def node(state: State, config: RunnableConfig) -> dict[str, Any]:
        if state["topic"] == "bad":
            raise ValueError("bad")
        return {"joke": f"{state['topic']} {config['configurable'].get('k')}"}

    graph = single(colour, node)
    results = colour.batch(graph, [{"topic": "a"}, {"topic": "b"}], [{"configurable": {"k": k}} for k in (1, 2)])
    assert [result["joke"] for result in results] == ["a 1", "b 2"]
    mixed = colour.batch(graph, [{"topic": "a"}, {"topic": "bad"}], return_exceptions=True)
    assert mixed[0]["joke"] == "a None"
    assert isinstance(mixed[1], ValueError)
    with pytest.raises(ValueError):
        colour.batch(graph, [{"topic": "bad"}])
    assert colour.batch(graph, []) == []


def user_errors_come_out_as_they_are(colour: Colour) -> None:
    class QuotaError(Exception):
        def __init__(self, code: int, text: str) -> None:
            super().__init__(text)
            self.code = code

    def node(state: State) -> None:
        raise QuotaError(42, "out of quota")

    with pytest.raises(QuotaError) as caught:
        colour.invoke(single(colour, node), {"topic": "x"})
    assert (caught.value.code, str(caught.value)) == (42, "out of quota")
    assert len(caught.value.__notes__) == 1


def chat_with_memory_and_a_human(colour: Colour) -> None:
    def bot(state: MessagesState) -> dict[str, Any]:
        return {"messages": [("ai", f"turn {len(state['messages'])}")]}

    def review(state: MessagesState) -> Command[Literal["bot", "__end__"]]:
        verdict = interrupt({"draft": state["messages"][-1].content})
        return Command(goto=END if verdict == "ok" else "bot")

    builder = StateGraph(MessagesState).add_node("bot", colour.node(bot)).add_node("review", colour.node(review))
    graph = builder.add_edge(START, "bot").add_edge("bot", "review").compile(checkpointer=MemorySaver())
    thread = {"configurable": {"thread_id": 7}}
    result = colour.invoke(graph, {"messages": "hello"}, thread)
    assert [i.value for i in result["__interrupt__"]] == [{"draft": "turn 1"}]
    assert colour.get_state(graph, thread).next == ("review",)
    result = colour.invoke(graph, Command(resume="again"), thread)
    assert [i.value for i in result["__interrupt__"]] == [{"draft": "turn 2"}]
    result = colour.invoke(graph, Command(resume="ok"), thread)
    assert [m.content for m in result["messages"]] == ["hello", "turn 1", "turn 2"]
    colour.invoke(graph, {"messages": "and?"}, thread)
    assert len(colour.get_state(graph, thread).values["messages"]) == 5


def breakpoints_without_a_saver(colour: Colour) -> None:
    graph = joke_graph(colour)
    before = colour.stream(graph, {"topic": "x"}, interrupt_before=["write"])
    assert before == [{"refine": {"topic": "x and cats"}}, {"__interrupt__": ()}]
    assert colour.invoke(graph, {"topic": "x"}, interrupt_after=["refine"])["topic"] == "x and cats"


def drawing_and_schemas(colour: Colour) -> None:
    def route(state: State) -> Literal["refine", "publish"]:
        return "publish"

    builder = StateGraph(State)
    for name in ("refine", "publish"):
        builder.add_node(name, colour.node(lambda s: None))
    builder.add_edge(START, "refine").add_conditional_edges("refine", route).add_edge("publish", END)
    graph = builder.compile(name="jokes")
    lines = graph.get_graph().draw_mermaid().splitlines()
    assert lines[lines.index("graph TD;") + 1 : -3] == [
        "\t__start__([<p>__start__</p>]):::first",
        "\trefine(refine)",
        "\tpublish(publish)",
        "\t__end__([<p>__end__</p>]):::last",
        "\t__start__ --> refine;",
        "\trefine -.-> publish;",
        "\tpublish --> __end__;",
        "\trefine -.-> refine;",
    ]
    schema = graph.get_input_jsonschema()
    assert (schema["title"], schema["required"]) == ("State", ["topic", "joke", "log"])
    assert schema["properties"]["log"] == {"items": {}, "title": "Log", "type": "array"}
    assert graph.get_output_schema().__name__ == "jokes_output"


def raw_graphs(colour: Colour) -> None:
    double = NodeBuilder().subscribe_only("a").do(colour.node(lambda x: x + x)).write_to("b")
    upper = NodeBuilder().subscribe_to("b").do(colour.node(lambda d: d["b"].upper())).write_to("c", "all")
    graph = Pregel(
        nodes={"double": double, "upper": upper},
        channels={
            "a": EphemeralValue(str),
            "b": LastValue(str),
            "c": BinaryOperatorAggregate(str, operator.add),
            "all": Topic(str, accumulate=True),
        },
        input_channels="a",
        output_channels=["b", "c", "all"],
    )
    assert colour.invoke(graph, "foo") == {"b": "foofoo", "c": "FOOFOO", "all": ["FOOFOO"]}
