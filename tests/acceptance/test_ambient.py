"""What code inside a node finds around it: config, runtime, scope; how configs merge (frontends.md 2.7-2.9, checked with
LangGraph 1.2.22 where not marked otherwise)."""

import asyncio
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict

from pregel import config as configs
from pregel.config import RunnableConfig, get_config, get_store, get_stream_writer
from pregel.errors import AttemptClosedError
from pregel.graph import START, StateGraph
from pregel.runtime import Runtime, carry, get_runtime
from pregel.types import Command, interrupt
from tests.support.scenarios import Colour, Gate, Log, path_of

IN: Any = {"l": ["in"]}
LIMITS = {"recursion_limit": 40, "max_concurrency": 3}
AROUND: Any = {
    "tags": ["o"],
    "metadata": {"om": 1},
    "configurable": {"thread_id": "T", "user": "u"},
    "run_name": "outer",
    "run_id": UUID(int=9),
    **LIMITS,
}


def looking(colour: Colour, **options: Any) -> tuple[Any, list[Any]]:
    """A graph of one node that notes its config."""
    seen: list[Any] = []

    def node(state: Any, config: RunnableConfig) -> None:
        seen.append(config)

    builder = StateGraph(Log).add_node("n", colour.node(node), **options).add_edge(START, "n")
    return builder.compile(), seen


def found(config: Any) -> dict[str, Any]:
    """What of a config the caller, and not the engine, has put there."""
    mine = {key: value for key, value in config["configurable"].items() if not key.startswith(("checkpoint_", "__"))}
    ours = ("langgraph_", "checkpoint_")
    metadata = {key: value for key, value in config["metadata"].items() if not key.startswith(ours)}
    return {**config, "configurable": mine, "metadata": metadata, "callbacks": config["callbacks"]}


def a_config(**fields: Any) -> dict[str, Any]:
    return {"tags": [], "metadata": {}, "callbacks": None, "configurable": {}, **fields}


@pytest.mark.parametrize(
    ("given", "bound", "expected"),
    [
        (None, None, a_config()),
        ({}, None, a_config()),
        (LIMITS, None, a_config(**LIMITS)),
        ({"run_name": "r", "run_id": UUID(int=5), "tags": ["a"]}, None, a_config(tags=["a"])),
        (
            {"tags": ["b"], "metadata": {"m": 2}, "configurable": {"user": 2}},
            {"tags": ["a"], "metadata": {"m": 1, "n": 1}, "configurable": {"user": 1, "x": 1}, "recursion_limit": 9},
            a_config(tags=["a", "b"], metadata={"m": 2, "n": 1}, configurable={"user": 2, "x": 1}, recursion_limit=9),
        ),
        (
            {"tags": [], "metadata": {}, "configurable": {}, "recursion_limit": None},
            {"tags": ["a"], "metadata": {"n": 1}, "configurable": {"x": 1}},
            a_config(tags=["a"], metadata={"n": 1}, configurable={"x": 1}),
        ),
        ({"recursion_limit": 25}, {"recursion_limit": 9}, a_config(recursion_limit=25)),
        (
            {"configurable": {"thread_id": "t", "user": "u", "api_key": "s", "assistant_id": "as", "graph_id": "gr"}},
            None,
            a_config(
                metadata={"thread_id": "t", "assistant_id": "as", "graph_id": "gr"},
                configurable={"thread_id": "t", "user": "u", "api_key": "s", "assistant_id": "as", "graph_id": "gr"},
            ),
        ),
        (
            {"metadata": {"thread_id": "mine"}, "configurable": {"thread_id": "t"}},
            None,
            a_config(metadata={"thread_id": "mine"}, configurable={"thread_id": "t"}),
        ),
    ],
)
def test_the_config_of_a_node(colour, given, bound, expected):
    graph, seen = looking(colour)
    colour.invoke(graph.with_config(bound) if bound else graph, IN, given)
    assert found(seen[0]) == expected


def test_where_a_node_is(colour):
    graph, seen = looking(colour, metadata={"own": 1})
    colour.invoke(graph, IN)
    metadata = seen[0]["metadata"]
    ns = seen[0]["configurable"]["checkpoint_ns"]
    assert metadata == {
        "own": 1,
        "langgraph_step": 1,
        "langgraph_node": "n",
        "langgraph_triggers": ("branch:to:n",),
        "langgraph_path": ("__pregel_pull", "n"),
        "langgraph_checkpoint_ns": ns,
    }
    assert path_of((ns,)) == ("n",)


INSIDE = a_config(
    tags=["o"], metadata={"om": 1, "thread_id": "T"}, configurable={"thread_id": "T", "user": "u"}, **LIMITS
)
NESTED = {
    "nothing": (None, None, INSIDE),
    "an empty config": ({}, None, INSIDE),
    "its own": ("own", None, INSIDE),
    "tags": ({"tags": ["o", "i"]}, None, {**INSIDE, "tags": ["o", "i"]}),
    "metadata": ({"metadata": {"im": 1}}, None, {**INSIDE, "metadata": {"om": 1, "im": 1, "thread_id": "T"}}),
    "a value": ({"configurable": {"user": "v"}}, None, {**INSIDE, "configurable": {"thread_id": "T", "user": "v"}}),
    "a limit": ({"recursion_limit": 12}, None, {**INSIDE, "recursion_limit": 12}),
    "bound": (
        {"tags": ["c"]},
        {"tags": ["o", "b"], "configurable": {"user": "b", "k": 1}},
        {**INSIDE, "tags": ["o", "b", "c"], "configurable": {"thread_id": "T", "user": "b", "k": 1}},
    ),
    # An address of its own: values of the run around are not taken over, everything else is.
    "a thread": (
        {"configurable": {"thread_id": "X"}},
        None,
        {**INSIDE, "configurable": {"thread_id": "X"}, "metadata": {"om": 1, "thread_id": "X"}},
    ),
    "a bound thread": (
        None,
        {"configurable": {"thread_id": "B"}},
        {**INSIDE, "configurable": {"thread_id": "B"}, "metadata": {"om": 1, "thread_id": "B"}},
    ),
}


@pytest.mark.parametrize("case", NESTED)
def test_the_config_of_a_node_of_a_nested_run(colour, case):
    given, bound, expected = NESTED[case]
    inner, seen = looking(colour)
    inner = inner.with_config(bound) if bound else inner

    @colour.script
    def outer(state: Any, config: RunnableConfig) -> Any:
        yield (inner, IN) if given is None else (inner, IN, config if given == "own" else given)

    colour.invoke(StateGraph(Log).add_node("o", outer).add_edge(START, "o").compile(), IN, AROUND)
    assert found(seen[0]) == expected
    is_nested = "thread" not in case
    ns = seen[0]["metadata"]["langgraph_checkpoint_ns"]
    assert path_of(tuple(ns.split("|"))) == (("o", "n") if is_nested else ("n",))
    assert seen[0]["metadata"].get("checkpoint_ns") == (ns.rpartition("|")[0] or None)


# ---- runtime


def runtime_in(colour: Colour, config: Any = None, schema: Any = None, **more: Any) -> Runtime[Any]:
    seen: list[Any] = []

    def node(state: Any, runtime: Runtime) -> None:
        seen.append(runtime)
        assert get_runtime() is runtime
        assert (get_store(), get_config()["metadata"]["langgraph_node"]) == (runtime.store, "n")
        get_stream_writer()("nobody listens")

    builder = StateGraph(Log, context_schema=schema).add_node("n", colour.node(node)).add_edge(START, "n")
    colour.invoke(builder.compile(), IN, config, **more)
    return seen[0]


def test_execution_info(colour):
    info = runtime_in(colour, {"configurable": {"thread_id": "t"}, "run_id": UUID(int=3)}).execution_info
    assert info is not None
    assert (info.thread_id, info.run_id, info.node_attempt) == ("t", str(UUID(int=3)), 1)
    assert (path_of((info.checkpoint_ns,)), info.checkpoint_ns) == (("n",), f"n:{info.task_id}")
    assert isinstance(info.node_first_attempt_time, float)
    bare = runtime_in(colour).execution_info
    assert bare is not None
    assert (bare.thread_id, bare.run_id) == (None, None)
    assert bare.checkpoint_id


def test_server_info(colour):
    class User:
        identity = "me"

    user = User()
    assert runtime_in(colour).server_info is None
    served = runtime_in(colour, {"configurable": {"assistant_id": "a", "langgraph_auth_user": user}}).server_info
    assert served is not None
    assert (served.assistant_id, served.graph_id, served.user) == ("a", "", user)


@dataclasses.dataclass
class Uid:
    uid: str


class Model(BaseModel):
    uid: str


class Typed(TypedDict):
    uid: str


class Plain:
    pass


PLAIN = Plain()


@pytest.mark.parametrize(
    ("schema", "given", "expected"),
    [
        (Uid, {"uid": "1"}, Uid("1")),
        (Uid, None, None),
        (Uid, {"x": 1}, TypeError),
        (Uid, {}, TypeError),
        (Uid, Uid("9"), Uid("9")),
        (Uid, Model(uid="9"), Model(uid="9")),
        (Uid, "text", "text"),
        (Model, {"uid": "1"}, Model(uid="1")),
        (Model, None, None),
        (Model, {"x": 1}, ValidationError),
        (Model, {"uid": [1]}, ValidationError),
        (Model, Uid("9"), Uid("9")),
        (Typed, {"uid": "1"}, {"uid": "1"}),
        (Typed, {"x": 1}, {"x": 1}),
        (Typed, None, None),
        (None, {"x": 1}, {"x": 1}),
        (None, None, None),
        (Plain, {"x": 1}, {"x": 1}),
        (Plain, PLAIN, PLAIN),
        (Typed, {}, {}),  # LangGraph: None (frontends.md 8, row 12)
        (None, 0, 0),
    ],
)
def test_what_becomes_of_the_context(colour, schema, given, expected):
    if isinstance(expected, type):
        with pytest.raises(expected):
            runtime_in(colour, schema=schema, context=given)
    else:
        assert runtime_in(colour, schema=schema, context=given).context == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, {"a": 1}), ({"context": {"b": 1}}, {"b": 1}), ({"context": {}}, {}), ({"context": 0}, 0)],
)
def test_a_nested_run_has_the_context_around_it_unless_it_brings_one(colour, given, expected):
    seen: list[Any] = []
    inner = StateGraph(Log).add_node("i", colour.node(lambda state: seen.append(get_runtime().context)))
    graph = inner.add_edge(START, "i").compile()

    def outer(state: Any) -> Any:
        graph.invoke(IN, **given)

    async def aouter(state: Any) -> Any:
        await graph.ainvoke(IN, **given)

    builder = StateGraph(Log).add_node("o", aouter if colour.is_async else outer).add_edge(START, "o")
    colour.invoke(builder.compile(), IN, context={"a": 1})
    assert seen == [expected]


@pytest.mark.parametrize("ask", [get_config, get_store, get_stream_writer, get_runtime])
def test_outside_of_a_node_there_is_none(ask):
    with pytest.raises(RuntimeError, match=ask.__name__):
        ask()
    with pytest.raises(RuntimeError):
        Runtime().patch_execution_info(task_id="x")


# ---- threads of the user's own (frontends.md 8, row 22)


own = ContextVar("own", default="unset")


@pytest.mark.differs("frontends.md 8, row 22: LangGraph offers no helper")
@pytest.mark.parametrize("how", ["thread", "submit", "map", "loop"])
def test_a_thread_that_carries_the_scope(colour, how):
    def look(item: Any) -> Any:
        return item, get_config()["metadata"]["langgraph_node"], own.get()

    def in_threads() -> Any:
        own.set("node")
        if how == "thread":
            results: list[Any] = []
            threads = [threading.Thread(target=carry(lambda i=i: results.append(look(i)))) for i in (1, 2)]
            for thread in threads:
                thread.start()
                thread.join()
            return results
        with ThreadPoolExecutor(2) as pool:
            carried = carry(look)
            if how == "map":
                return list(pool.map(carried, (1, 2)))
            return [future.result() for future in [pool.submit(carried, item) for item in (1, 2)]]

    def node(state: Any) -> Any:
        return {"l": in_threads()}

    async def anode(state: Any) -> Any:
        if how != "loop":
            return node(state)
        own.set("node")
        loop = asyncio.get_running_loop()
        return {"l": [await loop.run_in_executor(None, carry(look), item) for item in (1, 2)]}

    builder = StateGraph(Log).add_node("n", anode if colour.is_async else node).add_edge(START, "n")
    assert colour.invoke(builder.compile(), IN) == {"l": ["in", (1, "n", "node"), (2, "n", "node")]}
    assert own.get() == "unset"


def test_calls_that_were_carried_may_overlap_and_change_nothing_outside():
    meet = threading.Barrier(2, timeout=5)

    def work(name: str) -> str:
        own.set(name)
        meet.wait()
        return own.get()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(carry(work), ("a", "b"))) == ["a", "b"]
    assert own.get() == "unset"
    assert carry(work).__name__ == "work"


def test_a_question_is_asked_from_a_thread_that_carries_the_scope(memory, thread):
    def node(state: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return {"l": [pool.submit(carry(interrupt), "?").result()]}

    graph = StateGraph(Log).add_node("n", node).add_edge(START, "n").compile(checkpointer=memory)
    assert [question.value for question in graph.invoke(IN, thread)["__interrupt__"]] == ["?"]
    assert graph.invoke(Command(resume="yes"), thread) == {"l": ["in", "yes"]}


def test_what_outlives_the_attempt_is_refused():
    gate, outcome = Gate(), []

    def late() -> None:
        gate.wait()
        try:
            get_stream_writer()("late")
        except AttemptClosedError as error:
            outcome.append(error)

    threads = []

    def node(state: Any) -> None:
        thread = threading.Thread(target=carry(late))
        threads.append(thread)
        thread.start()

    StateGraph(Log).add_node("n", node).add_edge(START, "n").compile().invoke(IN)
    gate.set()
    threads[0].join()
    assert len(outcome) == 1


def test_a_coroutine_function_needs_no_carrying():
    async def work() -> None:
        """Has the scope of whoever awaits it."""

    with pytest.raises(TypeError, match="work"):
        carry(work)


# ---- other rows of the checklist


def test_custom_chunks_of_called_tasks_have_the_namespace_of_their_graph(colour):
    """Frontends.md 8, row 25."""
    from pregel._scope import current
    from tests.support.driving import child

    step = child(lambda value: get_stream_writer()(value))

    def node(state: Any) -> Any:
        current().spawn(step, "from the task").result()
        get_stream_writer()("from the node")

    async def anode(state: Any) -> Any:
        await current().spawn(step, "from the task")
        get_stream_writer()("from the node")

    inner = StateGraph(Log).add_node("i", anode if colour.is_async else node).add_edge(START, "i").compile()
    for depth, graph in enumerate([inner, StateGraph(Log).add_node("o", inner).add_edge(START, "o").compile()]):
        chunks = colour.stream(graph, IN, stream_mode="custom", subgraphs=True)
        assert [(path_of(ns), value) for ns, value in chunks] == [
            (("o",) * depth, "from the task"),
            (("o",) * depth, "from the node"),
        ]


def test_modes_are_a_sequence_of_known_ones(colour):
    """Frontends.md 8, row 10."""
    graph, _ = looking(colour)
    assert [mode for mode, _ in colour.stream(graph, IN, stream_mode=("values", "updates"))] == ["values", "updates"]
    for wrong in ("unknown", ["values", "unknown"], ["reports"]):
        with pytest.raises(ValueError, match=r"unknown|reports"):
            colour.stream(graph, IN, stream_mode=wrong)


def test_tags_that_are_known_are_not_given_again():
    assert configs.without_tags({"tags": ["a", "b"]}, ["a"]) == {"tags": ["b"]}
    same = {"metadata": {}}
    assert configs.without_tags(same, ["a"]) is same
    assert configs.without_tags(None, ["a"]) is None
