"""What a builder accepts, infers and refuses."""

import enum
import functools
import operator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from typing_extensions import TypedDict

from checkpoint.memory import InMemorySaver
from pregel._call import Call
from pregel.channels import BinaryOperatorAggregate, LastValue
from pregel.constants import END, START
from pregel.graph import StateGraph
from pregel.managed import IsLastStep, RemainingSteps
from pregel.types import Command, RetryPolicy, TimeoutPolicy
from pregel.warnings import PregelDeprecationWarning, PregelWarning


class State(TypedDict):
    x: int
    l: Annotated[list[Any], operator.add]  # noqa: E741


class Private(TypedDict):
    p: int


def no_op(state: Any) -> None: ...


def chain(*names: str, schema: Any = State) -> StateGraph[Any]:
    builder = StateGraph(schema)
    before = START
    for name in names:
        builder.add_node(name, no_op).add_edge(before, name)
        before = name
    return builder


# ---- schemas


def test_public_attributes() -> None:
    builder = chain("a")
    builder.add_edge(["a"], END)
    assert list(builder.nodes) == ["a"]
    assert builder.edges == {(START, "a")}
    assert builder.waiting_edges == {(("a",), END)}
    assert builder.branches == {}
    assert list(builder.channels) == ["x", "l"]
    assert (builder.state_schema, builder.input_schema, builder.output_schema) == (State, State, State)
    assert builder.schemas == {State: builder.channels}
    assert (builder.managed, builder.context_schema, builder.compiled) == ({}, None, False)
    builder.compile()
    assert builder.compiled


def test_subscripts() -> None:
    builder = StateGraph[State](State)
    assert builder.state_schema is State
    assert StateGraph[State, None, State, State](State, None).context_schema is None


def test_schemas_share_keys() -> None:
    class Plain(TypedDict):
        l: list[Any]  # noqa: E741

    class Clash(TypedDict):
        l: Annotated[list[Any], max]  # noqa: E741

    builder = StateGraph(State, input_schema=Plain, output_schema=Plain)
    assert type(builder.channels["l"]) is BinaryOperatorAggregate
    with pytest.raises(ValueError, match="'l'"):
        StateGraph(State, output_schema=Clash)
    assert type(StateGraph(Plain, input_schema=Plain).channels["l"]) is LastValue
    with pytest.raises(ValueError, match="'l'"):
        StateGraph(Plain, input_schema=State)


def test_managed_keys_stay_inside() -> None:
    class Managed(TypedDict):
        x: int
        last: IsLastStep

    class Other(TypedDict):
        last: RemainingSteps

    assert list(StateGraph(Managed).managed) == ["last"]
    with pytest.raises(ValueError, match="last"):
        StateGraph(State, input_schema=Managed)
    with pytest.raises(ValueError, match="last"):
        StateGraph(Managed).add_node("n", no_op, input_schema=Other)


def test_former_parameter_names() -> None:
    with pytest.warns(PregelDeprecationWarning):
        assert StateGraph(State, config_schema=Private).context_schema is Private
    with pytest.warns(PregelDeprecationWarning):
        assert StateGraph(State, input=Private).input_schema is Private
    policy = RetryPolicy()
    with pytest.warns(PregelDeprecationWarning):
        assert StateGraph(State).add_node("n", no_op, retry=policy).nodes["n"].retry_policy is policy
    with pytest.raises(TypeError, match="nonsense"):
        StateGraph(State, nonsense=1)
    with pytest.warns(PregelWarning):
        StateGraph(5)  # type: ignore[arg-type, type-var]


# ---- nodes


def test_node_record() -> None:
    def handler(state: Any) -> None: ...

    builder = StateGraph(State)
    builder.add_node("n", no_op, metadata={"k": 1}, defer=True, timeout=2, error_handler=handler, destinations=("n",))
    spec = builder.nodes["n"]
    assert (spec.runnable.subject, spec.metadata, spec.input_schema, spec.defer) == (no_op, {"k": 1}, State, True)
    assert (spec.timeout, spec.ends) == (TimeoutPolicy(run_timeout=2.0), ("n",))
    assert (spec.is_error_handler, spec.error_handler_node) == (False, "__error_handler__n")
    assert builder.nodes["__error_handler__n"].is_error_handler


def test_names_of_nodes() -> None:
    class Callable:
        def __call__(self, state: Any) -> None: ...

    class Graph:
        def as_call(self) -> Call:
            return Call("LangGraph", no_op, None, None, self)

    builder = StateGraph(State)
    for subject in (no_op, Callable(), Graph(), functools.partial(no_op)):
        builder.add_node(subject)
    assert list(builder.nodes) == ["no_op", "Callable", "LangGraph", "partial"]


def test_decorator() -> None:
    builder = StateGraph(State)

    @builder.add_node
    def decorated(state: Any) -> None: ...

    assert list(builder.nodes) == ["decorated"]


def test_enum_members_are_their_values() -> None:
    class Name(str, enum.Enum):  # noqa: UP042 - what programs have
        A = "a"
        B = "b"

    builder = StateGraph(State)
    builder.add_node(Name.A, no_op).add_node("b", no_op)
    builder.add_edge(START, Name.A).add_edge(Name.A, "b").add_edge([Name.A, Name.B], END)
    builder.add_conditional_edges(Name.B, lambda s: Name.A, [Name.A])
    builder.add_node("c", no_op, destinations=(Name.A,))
    assert all(type(name) is str for name in builder.nodes)
    assert builder.edges == {(START, "a"), ("a", "b")}
    assert all(type(name) is str for edge in builder.edges for name in edge)
    builder.add_edge("b", "c")
    assert list(builder.compile().channels)[-3:] == ["branch:to:a", "branch:to:b", "branch:to:c"]


def test_refused_nodes() -> None:
    builder = chain("a")
    with pytest.raises(ValueError, match="'a'"):
        builder.add_node("a", no_op)
    for name in (START, END, "x|y", "x:y"):
        with pytest.raises(ValueError, match=r"reserved|separates"):
            builder.add_node(name, no_op)
    with pytest.raises(RuntimeError, match="'b'"):
        builder.add_node("b")
    with pytest.raises(TypeError, match="5"):
        builder.add_node("b", 5)


def test_input_schema_is_inferred() -> None:
    @dataclass
    class Data:
        x: int

    def private(state: Private) -> None: ...
    def text(state: "Private") -> None: ...
    def data(state: Data) -> None: ...
    def unknown(state: "Nowhere") -> None: ...  # type: ignore[name-defined] # noqa: F821
    def plain(state: dict[str, Any]) -> None: ...

    class Method:
        def run(self, state: Private) -> None: ...

    builder = StateGraph(State)
    builder.add_sequence([private, text, data, unknown, plain, Method().run])
    builder.add_node("explicit", private, input_schema=State)
    assert {name: spec.input_schema for name, spec in builder.nodes.items()} == {
        "private": Private,
        "text": Private,
        "data": Data,
        "unknown": State,
        "plain": State,
        "run": Private,
        "explicit": State,
    }
    assert list(builder.channels) == ["x", "l", "p"]


def test_ends_are_inferred() -> None:
    def go(state: State) -> Command[Literal["b", "__end__"]]: ...

    builder = chain("b")
    builder.add_node(go).add_node("labelled", go, destinations={"b": "why"})
    assert builder.nodes["go"].ends == ("b", END)
    assert builder.nodes["labelled"].ends == {"b": "why"}
    builder.validate()


# ---- edges


def test_refused_edges() -> None:
    builder = chain("a")
    for source, target in ((END, "a"), ("a", START), (["a", END], "a"), (["a"], START), ([], "a")):
        with pytest.raises(ValueError, match=r"START|END|source"):
            builder.add_edge(source, target)
    for source, target in ((["a", "zz"], "a"), (["a"], "zz")):
        with pytest.raises(ValueError, match="'zz'"):
            builder.add_edge(source, target)


def test_conditional_edges() -> None:
    def choose(state: Private) -> Literal["a"]: ...

    builder = chain("a").add_conditional_edges("a", choose).set_conditional_entry_point(lambda s: "a")
    assert builder.branches["a"]["choose"].ends == {"a": "a"}
    assert list(builder.branches[START]) == ["condition"]
    assert "p" in builder.channels
    with pytest.raises(ValueError, match="choose"):
        builder.add_conditional_edges("a", choose)


def test_sequence_entry_and_finish() -> None:
    builder = StateGraph(State).add_sequence([no_op, ("n", no_op)]).set_entry_point("no_op").set_finish_point("n")
    assert builder.edges == {(START, "no_op"), ("no_op", "n"), ("n", END)}
    with pytest.raises(ValueError, match="no nodes"):
        builder.add_sequence([])
    with pytest.raises(ValueError, match="'n'"):
        builder.add_sequence([("n", no_op)])


# ---- validation


def test_validation() -> None:
    with pytest.raises(ValueError, match="START"):
        StateGraph(State).add_node("a", no_op).compile()
    with pytest.raises(ValueError, match=r"'summarise'.*'summarize'"):
        chain("summarize").add_edge("summarise", END).compile()
    with pytest.raises(ValueError, match="'zz'"):
        chain("a").add_edge("a", "zz").compile()
    with pytest.raises(ValueError, match="'zz'"):
        chain("a").add_conditional_edges("a", lambda s: "x", {"x": "zz"}).compile()
    with pytest.raises(ValueError, match="'zz'"):
        chain("a").add_node("b", no_op, destinations=("zz",)).compile()
    with pytest.raises(ValueError, match="'zz'"):
        chain("a").compile(interrupt_before=["zz"])
    with pytest.warns(PregelWarning, match="'unreachable'"):
        chain("a", "b").add_node("unreachable", no_op).compile()
    StateGraph(State).add_edge(START, END).compile()


def test_breakpoints() -> None:
    def of(**kw: Any) -> Any:
        return chain("a").compile(**kw).interrupt_before_nodes

    assert of(interrupt_before="*") == of(interrupt_before=["*"]) == "*"
    assert list(of(interrupt_before="a")) == list(of(interrupt_before=("a",))) == ["a"]


def test_compiling() -> None:
    saver = InMemorySaver()
    graph = chain("a").compile(saver, name="mine")
    assert (graph.checkpointer, graph.name) == (saver, "mine")
    assert chain("a").compile().name == "LangGraph"
    with pytest.raises(TypeError, match="checkpointer"):
        chain("a").compile(5)  # type: ignore[arg-type]
