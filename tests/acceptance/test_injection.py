"""What a node is given besides its input: config, runtime, context (engine.md 9, frontends.md 1.4 and 2.8)."""

import dataclasses
import operator
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Optional

import pytest
from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict

from checkpoint.memory import InMemorySaver
from pregel.config import get_config, get_store, get_stream_writer
from pregel.errors import NodeError
from pregel.graph import END, START, StateGraph
from pregel.runtime import Runtime, get_runtime
from pregel.types import RunnableConfig, Send, StreamWriter
from tests.support.scenarios import Colour, Log, refused

Seen = list[Any]


def run(colour: Colour, node: Callable[..., Any], config: Any = None, *, schema: Any = None, **kw: Any) -> Any:
    """Run START → n once and give the result."""
    compiled = {key: kw.pop(key) for key in ("store", "checkpointer") if key in kw}
    graph = StateGraph(Log, schema).add_node("n", colour.node(node)).add_edge(START, "n").compile(**compiled)
    return colour.invoke(graph, {"l": []}, config, **kw)


# -------------------------------------------------------------------------------------------------------- parameters


def test_config_in_every_accepted_form(colour: Colour) -> None:
    seen: Seen = []

    def bare(state, config):  # type: ignore[no-untyped-def]
        seen.append(config["configurable"]["k"])

    def typed(state: Log, config: RunnableConfig) -> None:
        seen.append(config["configurable"]["k"])

    def optional(state: Log, config: Optional[RunnableConfig] = None) -> None:  # noqa: UP045 - the form under test
        seen.append((config or {})["configurable"]["k"])

    def text(state: Log, config: "RunnableConfig") -> None:
        seen.append(config["configurable"]["k"])

    def keyword(state: Log, *, config: RunnableConfig) -> None:
        seen.append(config["configurable"]["k"])

    for index, node in enumerate((bare, typed, optional, text, keyword)):
        run(colour, node, {"configurable": {"k": index}})
    assert seen == [0, 1, 2, 3, 4]


def test_config_of_another_type_warns_and_is_not_injected(colour: Colour) -> None:
    seen: Seen = []

    def n(state: Log, config: int = 5) -> None:
        seen.append(config)

    with pytest.warns(UserWarning, match="config"):
        run(colour, n)
    assert seen == [5]


def test_writer_and_runtime(colour: Colour) -> None:
    seen: Seen = []

    def bare(state, writer, runtime):  # type: ignore[no-untyped-def]
        seen.append((callable(writer), isinstance(runtime, Runtime), runtime.store))

    def typed(state: Log, *, runtime: Runtime[Any], writer: StreamWriter) -> None:
        seen.append((callable(writer), isinstance(runtime, Runtime), runtime.store))

    run(colour, bare)
    run(colour, typed)
    assert seen == [(True, True, None)] * 2


def test_objects_with_a_call_get_the_same(colour: Colour) -> None:
    """amendments A41."""
    seen: Seen = []

    class Node:
        def __call__(self, state: Log, config: RunnableConfig, runtime: Runtime[Any]) -> None:
            seen.append((config["metadata"]["langgraph_node"], isinstance(runtime, Runtime)))

    graph = StateGraph(Log).add_node("n", Node()).add_edge(START, "n").compile()
    colour.invoke(graph, {"l": []})
    assert seen == [("n", True)]


def test_path_functions_get_the_same(colour: Colour) -> None:
    seen: Seen = []

    def path(state: Log, config: RunnableConfig, runtime: Runtime[Any]) -> str:
        seen.append((config["configurable"]["k"], runtime.context))
        return END

    builder = StateGraph(Log).add_node("n", colour.letter("n")).add_edge(START, "n")
    graph = builder.add_conditional_edges("n", colour.node(path)).compile()
    colour.invoke(graph, {"l": []}, {"configurable": {"k": 1}}, context={"c": 2})
    assert seen == [(1, {"c": 2})]


def test_defaults_are_overridden_and_collectors_get_nothing(colour: Colour) -> None:
    seen: Seen = []

    def n(state: Log, config: RunnableConfig = {}, **rest: Any) -> None:  # noqa: B006 - a default to override
        seen.append(("configurable" in config, rest))

    run(colour, n)
    assert seen == [(True, {})]


def test_an_unknown_parameter_is_a_type_error(colour: Colour) -> None:
    def n(state: Log, surprise: Any) -> None: ...

    with refused(TypeError, "surprise"):
        run(colour, n)


def test_no_parameters_fail_only_when_run(colour: Colour) -> None:
    """amendments II.2 4.3."""

    def n() -> None: ...

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile()
    with pytest.raises(TypeError):
        colour.invoke(graph, {"l": []})


def test_error_of_a_handler(colour: Colour) -> None:
    seen: Seen = []

    def fail(state: Log) -> Any:
        raise ValueError("boom")

    def handle(state: Log, error: NodeError) -> dict[str, Any]:
        seen.append((error.node, error.error))
        return {"l": ["handled"]}

    builder = StateGraph(Log).add_node("f", colour.node(fail), error_handler=colour.node(handle)).add_edge(START, "f")
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["handled"]}
    ((node, error),) = seen
    assert (node, type(error), str(error)) == ("f", ValueError, "boom")


@pytest.mark.parametrize("colour", ["sync"], indirect=True)
def test_async_node_in_a_sync_run(colour: Colour) -> None:
    async def n(state: Log) -> None: ...

    graph = StateGraph(Log).add_node("n", n).add_edge(START, "n").compile()
    with refused(TypeError, "n", "ainvoke"):
        colour.invoke(graph, {"l": []})


@pytest.mark.parametrize("colour", ["async"], indirect=True)
def test_sync_node_in_an_async_run(colour: Colour) -> None:
    seen: Seen = []

    def n(state: Log, config: RunnableConfig) -> dict[str, Any]:
        seen.append((threading.current_thread() is threading.main_thread(), get_config()["configurable"]["k"]))
        return {"l": [config["configurable"]["k"]]}

    graph = StateGraph(Log).add_node("n", n).add_edge(START, "n").compile()
    assert colour.invoke(graph, {"l": []}, {"configurable": {"k": 1}}) == {"l": [1]}
    assert seen == [(False, 1)]


# ----------------------------------------------------------------------------------------------- config seen inside


def test_config_of_a_node(colour: Colour, memory: Any) -> None:
    seen: Seen = []

    def n(state: Log, config: RunnableConfig) -> None:
        seen.append(config)

    given = {
        "configurable": {"thread_id": "1", "mine": "c"},
        "metadata": {"user": "u"},
        "tags": ["t"],
        "run_name": "named",
        "recursion_limit": 50,
    }
    run(colour, n, given, checkpointer=memory)
    (config,) = seen
    assert set(config) == {"callbacks", "configurable", "metadata", "tags", "recursion_limit"}
    configurable = {k: v for k, v in config["configurable"].items() if not k.startswith("__")}
    assert set(configurable) == {"checkpoint_id", "checkpoint_map", "checkpoint_ns", "thread_id", "mine"}
    assert (configurable["thread_id"], configurable["mine"]) == ("1", "c")
    metadata = config["metadata"]
    assert (metadata["user"], metadata["thread_id"]) == ("u", "1")
    assert metadata["langgraph_step"] == 1
    assert metadata["langgraph_node"] == "n"
    assert tuple(metadata["langgraph_triggers"]) == ("branch:to:n",)
    assert metadata["langgraph_path"] == ("__pregel_pull", "n")
    assert metadata["langgraph_checkpoint_ns"] == configurable["checkpoint_ns"]
    assert metadata["langgraph_checkpoint_ns"].startswith("n:")
    assert [t for t in config["tags"] if t == "t"] == ["t"]
    assert given["configurable"] == {"thread_id": "1", "mine": "c"}


def test_path_of_a_send(colour: Colour) -> None:
    seen: Seen = []

    def w(arg: int, config: RunnableConfig) -> None:
        seen.append((config["metadata"]["langgraph_path"], tuple(config["metadata"]["langgraph_triggers"])))

    builder = StateGraph(Log).add_node("w", colour.node(w))
    builder.add_conditional_edges(START, lambda state: [Send("w", 0), Send("w", 1)])
    colour.invoke(builder.compile(), {"l": []})
    assert sorted(seen) == [(("__pregel_push", i, False), ("__pregel_push",)) for i in (0, 1)]


def test_coordinates_are_copied_into_metadata(colour: Colour, memory: Any) -> None:
    """amendments II.2 9.1: these keys and no others."""
    seen: Seen = []

    def n(state: Log, config: RunnableConfig) -> None:
        seen.append(config["metadata"])

    configurable = {"thread_id": "1", "assistant_id": "as", "graph_id": "gr", "secret": "s"}
    run(colour, n, {"configurable": configurable, "metadata": {"graph_id": "mine"}}, checkpointer=memory)
    assert (seen[0]["thread_id"], seen[0]["assistant_id"], seen[0]["graph_id"]) == ("1", "as", "mine")
    assert "secret" not in seen[0]


def test_unknown_config_keys_move_into_configurable(colour: Colour) -> None:
    seen: Seen = []

    def n(state: Log, config: RunnableConfig) -> None:
        seen.append(config["configurable"].get("flavour"))

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile()
    colour.invoke(graph.with_config({"configurable": {"flavour": "bound"}}), {"l": []})
    assert seen == ["bound"]


@pytest.mark.parametrize("accessor", [get_config, get_store, get_stream_writer, get_runtime])
def test_accessors_outside_a_graph(accessor: Any) -> None:
    with pytest.raises(RuntimeError):
        accessor()


# ----------------------------------------------------------------------------------------------------------- runtime


def test_execution_info(colour: Colour, memory: Any) -> None:
    seen: Seen = []

    def n(state: Log, runtime: Runtime[Any], config: RunnableConfig) -> None:
        seen.append((runtime, config))

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(checkpointer=memory)
    colour.invoke(graph, {"l": []}, {"configurable": {"thread_id": "7"}})
    runtime, config = seen[0]
    info = runtime.execution_info
    assert info.thread_id == "7"
    assert info.checkpoint_ns == config["metadata"]["langgraph_checkpoint_ns"] == f"n:{info.task_id}"
    before_n = next(s for s in colour.history(graph, {"configurable": {"thread_id": "7"}}) if s.next == ("n",))
    assert info.checkpoint_id == before_n.config["configurable"]["checkpoint_id"]
    assert before_n.tasks[0].id == info.task_id
    assert (info.node_attempt, info.run_id) == (1, None)
    assert isinstance(info.node_first_attempt_time, float)
    with pytest.raises(AttributeError):
        info.task_id = "x"


def test_runtime_methods() -> None:
    first: Runtime[Any] = Runtime(context={"a": 1})
    second: Runtime[Any] = Runtime(previous=5)
    merged = first.merge(second)
    assert (merged.context, merged.previous) == ({"a": 1}, 5)
    assert first.override(context=2).context == 2
    assert first.context == {"a": 1}
    with pytest.raises(RuntimeError):
        first.patch_execution_info(node_attempt=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.context = 2  # type: ignore[misc]


# ----------------------------------------------------------------------------------------------------------- context


@dataclass
class DataContext:
    user: str


class ModelContext(BaseModel):
    user: str


class DictContext(TypedDict):
    user: str


@pytest.mark.parametrize(
    ("schema", "given", "expected"),
    [
        (DataContext, {"user": "u"}, DataContext("u")),
        (DataContext, DataContext("u"), DataContext("u")),
        (DataContext, None, None),
        (ModelContext, {"user": "u"}, ModelContext(user="u")),
        (ModelContext, ModelContext(user="u"), ModelContext(user="u")),
        (DictContext, {"user": "u"}, {"user": "u"}),
        (None, {"user": "u"}, {"user": "u"}),
        (None, None, None),
    ],
)
def test_context_is_coerced(colour: Colour, schema: Any, given: Any, expected: Any) -> None:
    seen: Seen = []

    def n(state: Log, runtime: Runtime[Any]) -> None:
        seen.append((runtime.context, get_runtime().context))

    run(colour, n, schema=schema, context=given)
    assert seen == [(expected, expected)]


@pytest.mark.parametrize(("schema", "error"), [(DataContext, TypeError), (ModelContext, ValidationError)])
def test_a_wrong_context_fails_before_anything_is_stored(colour: Colour, thread: Any, schema: Any, error: Any) -> None:
    """amendments II.2 9.4."""
    saver = InMemorySaver()
    with pytest.raises(error):
        run(colour, lambda state: None, thread, schema=schema, context={"wrong": 1}, checkpointer=saver)
    assert list(saver.list(thread)) == []


# ------------------------------------------------------------------------------------------------------ config merge


def test_explicit_configurable_without_coordinates_keeps_the_ambient_one(colour: Colour, saver: Any) -> None:
    seen: Seen = []

    def i(state: Log, config: RunnableConfig) -> None:
        seen.append({k: config["configurable"].get(k) for k in ("thread_id", "outer", "inner")})

    inner = StateGraph(Log).add_node("i", colour.node(i)).add_edge(START, "i").compile()

    def n(state: Log) -> Any:
        yield inner, {"l": []}, {"configurable": {"inner": 1}}
        yield inner, {"l": []}, {"configurable": {"inner": 2, "thread_id": "1"}}

    graph = StateGraph(Log).add_node("n", colour.script(n)).add_edge(START, "n").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, {"configurable": {"thread_id": "1", "outer": True}})
    assert seen == [
        {"thread_id": "1", "outer": True, "inner": 1},
        {"thread_id": "1", "outer": None, "inner": 2},
    ]


def test_reading_state_of_another_thread_inside_a_node(colour: Colour, memory: Any) -> None:
    class Total(TypedDict):
        n: Annotated[int, operator.add]

    inner = StateGraph(Total).add_node("i", colour.node(lambda state: {"n": 1})).add_edge(START, "i")
    counter = inner.compile(checkpointer=memory)

    def n(state: Log) -> Any:
        result = yield counter, {"n": 0}, {"configurable": {"thread_id": "counter"}}
        return {"l": [result["n"]]}

    graph = StateGraph(Log).add_node("n", colour.script(n)).add_edge(START, "n").compile()
    assert colour.invoke(graph, {"l": []}) == {"l": [1]}
    assert colour.invoke(graph, {"l": []}) == {"l": [2]}
