"""Public names by module (engine.md, appendix C): programs that import them from the peer find them here."""

from __future__ import annotations

import importlib

import pytest

NAMES = {
    "pregel": "PregelWarning",
    "pregel.types": """
        All Checkpointer StreamMode StreamWriter StreamPart ValuesStreamPart UpdatesStreamPart MessagesStreamPart
        CustomStreamPart CheckpointStreamPart TasksStreamPart DebugStreamPart TaskPayload TaskResultPayload
        CheckpointTask CheckpointPayload DebugPayload RetryPolicy TimeoutPolicy CachePolicy TracePolicy omit_payload
        Interrupt StateUpdate PregelTask PregelExecutableTask StateSnapshot Send Command Durability interrupt Overwrite
        GraphOutput ensure_valid_checkpointer
    """,
    "pregel.constants": "START END TAG_HIDDEN TAG_NOSTREAM",
    "pregel.errors": """
        EmptyChannelError ErrorCode GraphDrained GraphRecursionError InvalidUpdateError GraphBubbleUp GraphInterrupt
        NodeCancelledError NodeError NodeInterrupt NodeTimeoutError ParentCommand EmptyInputError TaskNotFound
        GraphChangedError Stranded UnknownInterruptError is_invalid_resume InvalidAnswerError
        Place place_of
    """,
    "pregel.pending": "pending apending PendingInterrupt",
    "pregel.explanation": "Cause Explanation Lack Step StepTask Way",
    "pregel.drawing.draw": "CurveStyle Edge Graph Node NodeStyles",
    "pregel.channels": """
        BaseChannel AnyValue LastValue LastValueAfterFinish UntrackedValue EphemeralValue BinaryOperatorAggregate
        DeltaChannel NamedBarrierValue NamedBarrierValueAfterFinish Topic
    """,
    "pregel.managed": "IsLastStep RemainingSteps",
    "pregel.managed.base": "ManagedValue",
    "pregel.managed.is_last_step": "IsLastStep RemainingSteps",
    "pregel.func": "entrypoint task",
    "pregel.graph": "START END StateGraph add_messages MessagesState MessageGraph",
    "pregel.graph.state": "StateGraph CompiledStateGraph",
    "pregel.graph.message": "add_messages MessagesState MessageGraph push_message REMOVE_ALL_MESSAGES",
    "pregel.graph.ui": "push_ui_message delete_ui_message ui_message_reducer UIMessage RemoveUIMessage AnyUIMessage",
    "pregel.pregel": "Pregel NodeBuilder",
    "pregel.pregel.main": "Pregel NodeBuilder",
    "pregel.pregel.protocol": "PregelProtocol",
    "pregel.runtime": "Runtime RunControl ExecutionInfo ServerInfo BaseUser get_runtime carry once aonce",
    "pregel.callbacks": """
        GraphCallbackHandler GraphInterruptEvent GraphResumeEvent RunEvent SuperstepEvent TaskEvent CheckpointEvent
    """,
    "pregel.otel": "OpenTelemetryHandler",
    "pregel.config": "get_config get_store get_stream_writer",
    "pregel.tokens": "MessageWriter get_message_writer stream_message astream_message delta_of",
    "pregel.messages": "Message",
    "pregel.cache.base": "BaseCache FullKey Namespace",
    "pregel.cache.memory": "InMemoryCache",
    "pregel.cache.sqlite": "CacheOpenError SqliteCache",
    "pregel.cache.redis": "RedisCache",
    "pregel.testing.cache": "CAPABILITIES CHECKS ConformanceError ConformanceSuite Report Result run_conformance",
    "pregel.store.base": """
        BaseStore Item SearchItem GetOp PutOp SearchOp ListNamespacesOp MatchCondition IndexConfig TTLConfig
        InvalidNamespaceError VersionConflictError Embeddings ensure_embeddings get_text_at_path tokenize_path
        Op Result NamespacePath NamespaceMatchType NOT_PROVIDED NotProvided validate_op_namespace
    """,
    "pregel.store.base.batch": "AsyncBatchedBaseStore",
    "pregel.store.base.embed": """
        Embeddings EmbeddingsFunc AEmbeddingsFunc EmbeddingsLambda ensure_embeddings get_text_at_path tokenize_path
    """,
    "pregel.store.memory": "InMemoryStore",
    "pregel.store.sqlite": "SqliteStore AsyncSqliteStore StoreOpenError StoreClosedError CorruptItemError",
    "pregel.store.sqlite.aio": "AsyncSqliteStore",
    "pregel.store.sqlite.base": "SqliteStore SqliteIndexConfig",
    "pregel.testing.store": "ConformanceSuite ConformanceError Report Result run_conformance CAPABILITIES CHECKS",
    "pregel.warnings": "PregelWarning",
    "checkpoint.base": """
        BaseCheckpointSaver Checkpoint CheckpointMetadata CheckpointTuple CheckpointConflictError ThreadBusyError
        ThreadDeletedError empty_checkpoint copy_checkpoint create_checkpoint get_checkpoint_id
    """,
    "checkpoint.memory": "InMemorySaver MemorySaver",
    "checkpoint.sqlite": "SqliteSaver",
    "checkpoint.sqlite.aio": "AsyncSqliteSaver",
    "checkpoint.serde.jsonplus": "JsonPlusSerializer InvalidModuleError",
    "checkpoint.serde.base": """
        SerializerProtocol UntypedSerializerProtocol CipherProtocol SerializerCompat maybe_add_typed_methods
    """,
    "checkpoint.serde.encrypted": "EncryptedSerializer AesGcm",
    "checkpoint.serde.event_hooks": "SerdeEvent register_serde_event_listener emit_serde_event",
    "checkpoint.serde.msgpack": "Serde",
    "checkpoint.serde.types": "ERROR INTERRUPT RESUME SCHEDULED TASKS ChannelProtocol SendProtocol",
}

# The peer's module path of each channel class, which programs import from as well.
CHANNEL_MODULES = {
    "base": "BaseChannel",
    "any_value": "AnyValue",
    "last_value": "LastValue LastValueAfterFinish",
    "untracked_value": "UntrackedValue",
    "ephemeral_value": "EphemeralValue",
    "binop": "BinaryOperatorAggregate",
    "delta": "DeltaChannel",
    "named_barrier_value": "NamedBarrierValue NamedBarrierValueAfterFinish",
    "topic": "Topic",
}
NAMES |= {f"pregel.channels.{module}": names for module, names in CHANNEL_MODULES.items()}


@pytest.mark.parametrize("module", NAMES)
def test_names_can_be_imported(module):
    loaded = importlib.import_module(module)
    missing = [name for name in NAMES[module].split() if not hasattr(loaded, name)]
    assert not missing


@pytest.mark.parametrize("module", NAMES)
def test_all_names_exist_and_are_sorted_public_names(module):
    loaded = importlib.import_module(module)
    public = list(getattr(loaded, "__all__", ()))
    assert [name for name in public if not hasattr(loaded, name)] == []
    assert [name for name in public if name.startswith("_")] == []
    assert len(public) == len(set(public))
    if public:
        assert set(NAMES[module].split()) <= set(public)


def test_kinds_of_errors():
    errors = importlib.import_module("pregel.errors")
    assert issubclass(errors.NodeInterrupt, errors.GraphInterrupt)
    assert issubclass(errors.GraphInterrupt, errors.GraphBubbleUp)
    assert issubclass(errors.ParentCommand, errors.GraphBubbleUp)
    assert issubclass(errors.GraphDrained, errors.GraphBubbleUp)
    assert issubclass(errors.GraphRecursionError, RecursionError)
    assert {code.value for code in errors.ErrorCode} == {
        "GRAPH_RECURSION_LIMIT",
        "INVALID_CONCURRENT_GRAPH_UPDATE",
        "INVALID_GRAPH_NODE_RETURN_VALUE",
        "MULTIPLE_SUBGRAPHS",
        "INVALID_CHAT_HISTORY",
    }


def test_one_object_under_all_its_names():
    types, errors = importlib.import_module("pregel.types"), importlib.import_module("pregel.errors")
    base = importlib.import_module("checkpoint.base")
    constants, graph = importlib.import_module("pregel.constants"), importlib.import_module("pregel.graph")
    assert types.Interrupt is errors.Interrupt
    assert errors.EmptyChannelError is base.EmptyChannelError
    assert (graph.START, graph.END) == (constants.START, constants.END) == ("__start__", "__end__")
