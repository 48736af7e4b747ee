"""Every public module, name and method of LangGraph 1.2.22 is here under the path that a search-and-replace gives it
(`langgraph.X` -> `pregel.X`), or stands below with the reason why not.

Public: what a module lists in `__all__`, or defines without an underscore; methods without an underscore, inherited ones
of langchain's runnables included.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from pregel.constants import SCOPE_KEY
from pregel.errors import ErrorCode, create_error_message
from pregel.graph import START, StateGraph
from pregel.managed.base import ManagedValue, is_managed_value
from pregel.pregel import NodeBuilder
from pregel.pregel.main import Pregel
from pregel.pregel.protocol import PregelProtocol
from pregel.runtime import DEFAULT_RUNTIME, Runtime
from pregel.types import RetryPolicy, interrupt
from pregel.utils.config import ensure_config, patch_configurable
from pregel.version import __version__
from pregel.warnings import (
    LangGraphDeprecatedSinceV05,
    LangGraphDeprecatedSinceV10,
    LangGraphDeprecatedSinceV11,
    LangGraphDeprecationWarning,
    PregelDeprecationWarning,
)
from tests.support.scenarios import Colour, Gate, Log

NAMES = {
    "callbacks": """
        GraphCallbackHandler GraphInterruptEvent GraphLifecycleEvent GraphLifecycleStatus GraphResumeEvent
        get_async_graph_callback_manager_for_config get_sync_graph_callback_manager_for_config
    """,
    "channels": """
        AnyValue BaseChannel BinaryOperatorAggregate DeltaChannel EphemeralValue LastValue LastValueAfterFinish
        NamedBarrierValue NamedBarrierValueAfterFinish Topic UntrackedValue
    """,
    "channels.any_value": "AnyValue",
    "channels.base": "BaseChannel",
    "channels.binop": "BinaryOperatorAggregate",
    "channels.delta": "DeltaChannel",
    "channels.ephemeral_value": "EphemeralValue",
    "channels.last_value": "LastValue LastValueAfterFinish",
    "channels.named_barrier_value": "NamedBarrierValue NamedBarrierValueAfterFinish",
    "channels.topic": "Topic",
    "config": "get_config get_store get_stream_writer",
    "constants": "CONF CONFIG_KEY_CHECKPOINTER END START TAG_HIDDEN TAG_NOSTREAM TASKS",
    "errors": """
        EmptyChannelError EmptyInputError ErrorCode GraphBubbleUp GraphDrained GraphInterrupt GraphRecursionError
        InvalidUpdateError NodeCancelledError NodeError NodeInterrupt NodeTimeoutError ParentCommand TaskNotFound
        UnknownInterruptError is_invalid_resume create_error_message
    """,
    "func": "entrypoint task",
    "graph": "END MessageGraph MessagesState START StateGraph add_messages",
    "graph.message": "MessageGraph MessagesState REMOVE_ALL_MESSAGES add_messages push_message",
    "graph.state": "CompiledStateGraph StateGraph",
    "graph.ui": """
        AnyUIMessage RemoveUIMessage UIMessage delete_ui_message push_ui_message ui_message_reducer
    """,
    "managed": "IsLastStep RemainingSteps",
    "managed.base": "ManagedValueMapping ManagedValueSpec ManagedValue is_managed_value",
    "managed.is_last_step": "IsLastStep RemainingStepsManager IsLastStepManager",
    "prebuilt": """
        InjectedState InjectedStore ToolCallTransformer ToolNode ToolRuntime ValidationNode create_react_agent
        tools_condition
    """,
    "prebuilt.chat_agent_executor": "AgentState AgentStatePydantic create_react_agent",
    "prebuilt.interrupt": "ActionRequest HumanInterrupt HumanInterruptConfig HumanResponse",
    "prebuilt.tool_node": "InjectedState InjectedStore ToolNode ToolRuntime tools_condition",
    "prebuilt.tool_validator": "ValidationNode",
    "pregel": "NodeBuilder Pregel",
    "pregel.debug": "map_debug_checkpoint map_debug_task_results map_debug_tasks",
    "pregel.main": "NodeBuilder Pregel",
    "pregel.protocol": "PregelProtocol StreamProtocol",
    "pregel.remote": "RemoteException RemoteGraph",
    "pregel.types": """
        All CachePolicy PregelExecutableTask PregelTask RetryPolicy StateSnapshot StateUpdate StreamMode StreamWriter
        default_retry_on
    """,
    "runtime": "BaseUser ExecutionInfo RunControl Runtime ServerInfo get_runtime DEFAULT_RUNTIME",
    "stream": "GraphRunStream AsyncGraphRunStream ProtocolEvent StreamChannel StreamTransformer",
    "stream.run_stream": "GraphRunStream",
    "stream.stream_channel": "StreamChannel",
    "stream.transformers": "MessagesTransformer",
    "types": """
        All CachePolicy CheckpointPayload CheckpointStreamPart CheckpointTask Checkpointer Command CustomStreamPart
        DebugPayload DebugStreamPart Durability GraphOutput Interrupt MessagesStreamPart Overwrite PregelExecutableTask
        PregelTask RetryPolicy Send StateSnapshot StateUpdate StreamMode StreamPart StreamWriter TaskPayload
        TaskResultPayload TasksStreamPart TimeoutPolicy TracePolicy UpdatesStreamPart ValuesStreamPart
        ensure_valid_checkpointer interrupt omit_payload CacheKey
    """,
    "typing": """
        ContextT InputT OutputT StateT StateT_co StateT_contra ContextT_contra NodeInputT NodeInputT_contra
    """,
    "utils": "",
    "utils.config": "ensure_config get_config get_store patch_configurable",
    "utils.runnable": "RunnableCallable RunnableLike",
    "version": "__version__",
    "warnings": """
        LangGraphDeprecatedSinceV05 LangGraphDeprecatedSinceV10 LangGraphDeprecatedSinceV11 LangGraphDeprecationWarning
    """,
}

MODULES_ELSEWHERE = {
    "prebuilt": "agents and tools: a part of their own, not built yet",
    "stream": "the event streams of version 3: a part of their own, not built yet",
    "pregel.debug": "private formatting of the peer's own debug chunks; what they say is in stream_mode='debug'",
    "pregel.remote": "a client of a server",
    "utils.runnable": "wraps a function as a langchain runnable; any callable, and anything with `invoke`, is a node",
}
NAMES_ELSEWHERE = {
    "pregel.protocol.StreamProtocol": "where the peer's engine puts its chunks; here chunks are what `stream` yields",
    "callbacks.get_async_graph_callback_manager_for_config": "made by the peer's engine for itself",
    "callbacks.get_sync_graph_callback_manager_for_config": "made by the peer's engine for itself",
    "types.CacheKey": "what the peer hands to its caches; here a cache is asked by namespace and key",
}
METHODS = """
    InputType OutputType abatch abatch_as_completed abulk_update_state aclear_cache aget_graph aget_state
    aget_state_history aget_subgraphs ainvoke astream aupdate_state batch batch_as_completed bulk_update_state clear_cache
    config_schema copy get_config_jsonschema get_context_jsonschema get_graph get_input_jsonschema get_input_schema
    get_name get_output_jsonschema get_output_schema get_state get_state_history get_subgraphs input_schema invoke
    output_schema stream stream_channels_asis stream_channels_list update_state validate with_config
    cache cache_policy checkpointer config context_schema name retry_policy step_timeout store stream_channels
    stream_mode stream_eager
"""
METHODS_ELSEWHERE = {
    "langchain's composition of runnables, which a graph is not here (amendments Y1)": """
        as_tool assign astream_log atransform bind config_specs get_prompts map pick pipe transform with_alisteners
        with_fallbacks with_listeners with_retry with_types
    """,
    "event streams of version 3: a part of their own": "astream_events stream_events",
    "the peer's compiler calls them": "attach_branch attach_edge attach_node",
}


def is_elsewhere(module: str) -> bool:
    return any(f"{module}.".startswith(f"{known}.") for known in MODULES_ELSEWHERE)


@pytest.mark.parametrize("module", [name for name in NAMES if not is_elsewhere(name)])
def test_names_of_the_peer(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PregelDeprecationWarning)
        loaded = importlib.import_module(f"pregel.{module}")
    missing = [
        name
        for name in NAMES[module].split()
        if not hasattr(loaded, name) and f"{module}.{name}" not in NAMES_ELSEWHERE
    ]
    assert not missing
    public = getattr(loaded, "__all__", None)
    listed = [name for name in NAMES[module].split() if hasattr(loaded, name)]
    if public is not None and module not in ("errors", "managed.is_last_step"):
        assert set(listed) - set(public) <= {"push_message", "DEFAULT_RUNTIME"}


def test_methods_of_the_peer():
    graph = StateGraph(Log).add_node("n", lambda state: None).add_edge(START, "n").compile()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert [name for name in METHODS.split() if not hasattr(graph, name)] == []
    elsewhere = [name for names in METHODS_ELSEWHERE.values() for name in names.split()]
    assert not set(elsewhere) & set(METHODS.split())


# ---- what they do


def test_a_former_path_says_so():
    sys.modules.pop("pregel.pregel.types", None)
    with pytest.warns(LangGraphDeprecatedSinceV10) as caught:
        from pregel.pregel.types import RetryPolicy as former
    assert [warning.filename for warning in caught] == [__file__]
    assert former is RetryPolicy


def test_a_graph_is_what_the_protocol_says():
    graph = StateGraph(Log).add_node("n", lambda state: None).add_edge(START, "n").compile()
    assert isinstance(graph, PregelProtocol)
    assert not isinstance(SimpleNamespace(invoke=graph.invoke), PregelProtocol)
    assert Pregel[Log, None, Log, Log].__origin__ is Pregel
    assert PregelProtocol[Log, None, Log, Log].__origin__ is PregelProtocol


def test_the_version():
    import pregel

    assert __version__ == pregel.__version__


@pytest.mark.parametrize(
    ("kind", "since", "removal"),
    [
        (LangGraphDeprecatedSinceV05, (0, 5), (2, 0)),
        (LangGraphDeprecatedSinceV10, (1, 0), (2, 0)),
        (LangGraphDeprecatedSinceV11, (1, 1), (3, 0)),
    ],
)
def test_deprecations(kind, since, removal):
    made = kind("old is deprecated.")
    assert isinstance(made, LangGraphDeprecationWarning)
    assert (made.message, made.since, made.expected_removal) == ("old is deprecated", since, removal)
    assert f"V{since[0]}.{since[1]}" in str(made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kind)
        warnings.warn("a deprecation of ours", PregelDeprecationWarning, stacklevel=1)


def test_a_deprecation_of_ours_says_what_it_says():
    with pytest.warns(PregelDeprecationWarning) as caught:
        warnings.warn("old; use new", PregelDeprecationWarning, stacklevel=1)
    assert str(caught[0].message) == "old; use new"


class Context(TypedDict):
    uid: str


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (None, {"properties": {}, "title": "LangGraphConfig", "type": "object"}),
        (
            Context,
            {
                "$defs": {
                    "Context": {
                        "properties": {"uid": {"title": "Uid", "type": "string"}},
                        "required": ["uid"],
                        "title": "Context",
                        "type": "object",
                    }
                },
                "properties": {"configurable": {"$ref": "#/$defs/Context", "default": None}},
                "title": "LangGraphConfig",
                "type": "object",
            },
        ),
    ],
)
def test_the_schema_of_a_config(schema, expected):
    graph = StateGraph(Log, context_schema=schema).add_node("n", lambda state: None).add_edge(START, "n").compile()
    with pytest.warns(LangGraphDeprecatedSinceV10):
        model = graph.config_schema()
    assert issubclass(model, BaseModel)
    with pytest.warns(LangGraphDeprecatedSinceV10):
        found = graph.get_config_jsonschema()
    assert found == model.model_json_schema()
    assert json.loads(json.dumps(found)) == expected


def test_channels_as_a_list():
    graph = StateGraph(Log).add_node("n", lambda state: None).add_edge(START, "n").compile()
    assert graph.stream_channels_list == ["l"]
    node = NodeBuilder().subscribe_only("a").do(lambda value: value).write_to("b")
    from pregel.channels import LastValue

    bare = Pregel(
        nodes={"n": node},
        channels={"a": LastValue(int), "b": LastValue(int)},
        input_channels="a",
        output_channels="b",
        stream_channels="b",
    )
    assert bare.stream_channels_list == ["b"]


def test_managed_values():
    assert is_managed_value(ManagedValue)
    assert not is_managed_value(int)


def test_a_runtime_that_has_nothing():
    assert Runtime() == DEFAULT_RUNTIME


def test_error_messages_name_their_code():
    text = create_error_message(message="what happened", error_code=ErrorCode.GRAPH_RECURSION_LIMIT)
    assert "what happened" in text
    assert "GRAPH_RECURSION_LIMIT" in text


def test_configs_by_their_former_path(colour):
    full = ensure_config({"tags": ["a"], "foo": 1})
    assert full == {
        "tags": ["a"],
        "metadata": {},
        "callbacks": None,
        "recursion_limit": full["recursion_limit"],
        "configurable": {"foo": 1},
    }
    given: Any = {"configurable": {"a": 1}}
    assert patch_configurable(given, {"b": 2}) == {"configurable": {"a": 1, "b": 2}}
    assert patch_configurable(None, {"b": 2}) == {"configurable": {"b": 2}}
    assert given == {"configurable": {"a": 1}}
    seen: list[Any] = []
    node = colour.node(lambda state: seen.append(ensure_config({"tags": ["n"]})))
    graph = StateGraph(Log).add_node("n", node).add_edge(START, "n").compile()
    colour.invoke(graph, {"l": []}, {"tags": ["r"], "configurable": {"user": "u"}})
    assert seen[0]["tags"] == ["r", "n"]
    assert seen[0]["configurable"]["user"] == "u"
    assert SCOPE_KEY in seen[0]["configurable"]


# ---- results as they come


def as_they_come(colour: Colour, graph: Any, *args: Any, **options: Any) -> list[Any]:
    if not colour.is_async:
        return list(graph.batch_as_completed(*args, **options))
    import asyncio

    async def collect() -> list[Any]:
        return [pair async for pair in graph.abatch_as_completed(*args, **options)]

    return asyncio.run(collect())


def test_results_come_as_they_are_there(colour):
    """The first input waits for the second one's result."""
    gates = [Gate(), Gate()]

    def node(state: Any) -> Any:
        number = state["l"][0]
        if number == 0:
            yield gates[1]
        gates[number].set()
        return {"l": ["done"]}

    graph = StateGraph(Log).add_node("n", colour.script(node)).add_edge(START, "n").compile()
    found = as_they_come(colour, graph, [{"l": [0]}, {"l": [1]}])
    assert sorted(found) == [(0, {"l": [0, "done"]}), (1, {"l": [1, "done"]})]
    assert as_they_come(colour, graph, []) == []


def test_failures_among_results(colour):
    def node(state: Any) -> Any:
        if state["l"] == [1]:
            interrupt("no saver, but a question")
        if state["l"] == [2]:
            raise ValueError("no")
        return {"l": ["done"]}

    graph = StateGraph(Log).add_node("n", colour.node(node)).add_edge(START, "n").compile()
    inputs = [{"l": [0]}, {"l": [1]}, {"l": [2]}]
    found = dict(as_they_come(colour, graph, inputs, return_exceptions=True))
    assert found[0] == {"l": [0, "done"]}
    assert "__interrupt__" in found[1]
    assert isinstance(found[2], ValueError)
    with pytest.raises(ValueError):
        as_they_come(colour, graph, [{"l": [2]}, {"l": [0]}], {"max_concurrency": 1})
    with pytest.raises(ValueError):
        as_they_come(colour, graph, inputs, [{}])


def test_who_leaves_early_ends_the_others(colour):
    gate, ran = Gate(), []

    def first(state: Any) -> Any:
        if state["l"] == [1]:
            yield gate
        return {"l": ["first"]}

    def second(state: Any) -> Any:
        ran.append(state["l"][0])

    builder = StateGraph(Log).add_node("first", colour.script(first)).add_node("second", colour.node(second))
    graph = builder.add_edge(START, "first").add_edge("first", "second").compile()
    inputs = [{"l": [0]}, {"l": [1]}]
    if colour.is_async:
        import asyncio

        async def leave() -> Any:
            found = graph.abatch_as_completed(inputs)
            pair = await anext(found)
            await found.aclose()
            return pair

        assert asyncio.run(leave())[0] == 0
    else:
        found = graph.batch_as_completed(inputs)
        assert next(found)[0] == 0
        found.close()
        gate.set()
    assert ran == [0]
