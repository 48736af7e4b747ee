"""Building state graphs: schemas, nodes, edges, branches and what nodes return (engine.md 4)."""

import dataclasses
import enum
import functools
import operator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ValidationError, field_validator
from typing_extensions import TypedDict

from pregel.channels import BinaryOperatorAggregate, EphemeralValue, LastValue
from pregel.errors import InvalidUpdateError
from pregel.graph import END, START, StateGraph
from pregel.managed import IsLastStep
from pregel.types import Command, Send
from tests.support.scenarios import Colour, Log, LogX, diagnosed, refused


def single(colour: Colour, schema: Any, node: Any, **options: Any) -> Any:
    """START → n."""
    return StateGraph(schema).add_node("n", node, **options).add_edge(START, "n").compile()


def returning(colour: Colour, value: Any, schema: Any = LogX) -> Any:
    return single(colour, schema, colour.node(lambda state: value))


# ---------------------------------------------------------------------------------------------------------- schemas


@dataclass
class Data:
    x: Any
    l: Annotated[list[Any], operator.add] = field(default_factory=list)  # noqa: E741
    o: str = "dflt"


class Model(BaseModel):
    x: int
    l: Annotated[list[Any], operator.add] = []  # noqa: E741
    d: int = 7
    o: str | None = None


class PlainClass:
    x: int
    l: Annotated[list[Any], operator.add]  # noqa: E741


def test_typed_dict_state(colour: Colour) -> None:
    seen: list[Any] = []
    graph = single(colour, LogX, colour.node(lambda state: seen.append(state) or {"l": ["n"]}))
    assert colour.invoke(graph, {"l": ["in"], "x": 1}) == {"l": ["in", "n"], "x": 1}
    assert seen == [{"l": ["in"], "x": 1}]


def test_inherited_hints_are_keys(colour: Colour) -> None:
    class More(Log):
        y: int

    graph = single(colour, More, colour.node(lambda state: {"y": 2, "l": ["n"]}))
    assert colour.invoke(graph, {"l": []}) == {"l": ["n"], "y": 2}


def test_dataclass_state_is_built_for_the_node(colour: Colour) -> None:
    seen: list[Any] = []

    def n(state: Data) -> dict[str, Any]:
        seen.append(state)
        return {"l": ["n"]}

    graph = single(colour, Data, colour.node(n))
    assert colour.invoke(graph, {"x": 1}) == {"x": 1, "l": ["n"]}
    assert seen == [Data(x=1, l=[], o="dflt")]


def test_dataclass_as_input_and_return(colour: Colour) -> None:
    def n(state: Data) -> Data:
        return Data(x=5)

    graph = single(colour, Data, colour.node(n))
    assert colour.invoke(graph, {"x": 1, "o": "keep"}) == {"x": 5, "l": [], "o": "dflt"}
    assert colour.invoke(graph, Data(x=1, l=["in"])) == {"x": 5, "l": ["in"], "o": "dflt"}


def test_missing_dataclass_argument_fails_at_the_node(colour: Colour) -> None:
    graph = single(colour, Data, colour.node(lambda state: None))
    with refused(TypeError, "x"):
        colour.invoke(graph, {"o": "given"})


def test_plain_annotated_class_state(colour: Colour) -> None:
    builder = StateGraph(PlainClass)
    assert set(builder.channels) == {"x", "l"}


def test_model_state_is_coerced_for_the_node_only(colour: Colour) -> None:
    seen: list[Any] = []

    def n(state: Model) -> dict[str, Any]:
        seen.append(state)
        return {}

    graph = single(colour, Model, colour.node(n))
    assert colour.invoke(graph, {"x": "1"}) == {"x": "1", "l": []}
    assert seen == [Model(x=1)]


def test_model_missing_key_is_reported_at_the_node(colour: Colour) -> None:
    graph = single(colour, Model, colour.node(lambda state: None))
    with refused(ValidationError, "x"):
        colour.invoke(graph, {"d": 1})


def test_model_as_input(colour: Colour) -> None:
    graph = single(colour, Model, colour.node(lambda state: {"l": ["n"]}))
    assert colour.invoke(graph, Model(x=5)) == {"x": 5, "l": ["n"], "d": 7}
    assert colour.invoke(graph, Model(x=5, o=None)) == {"x": 5, "l": ["n"], "d": 7, "o": None}


def test_returned_model_writes_its_defaults(colour: Colour) -> None:
    graph = single(colour, Model, colour.node(lambda state: Model(x=5)))
    assert colour.invoke(graph, {"x": 1, "d": 1, "o": "keep"}) == {"x": 5, "l": [], "d": 7, "o": "keep"}


def test_returned_mutated_model_writes_reducer_keys_again(colour: Colour) -> None:
    def n(state: Model) -> Model:
        state.x = 9
        return state

    graph = single(colour, Model, colour.node(n))
    assert colour.invoke(graph, {"x": 1, "l": ["in"]})["l"] == ["in", "in"]


def test_returned_object_of_another_class(colour: Colour) -> None:
    class Other(BaseModel):
        x: int
        unknown: int = 1

    assert colour.invoke(returning(colour, Other(x=3)), {"l": []}) == {"l": [], "x": 3}
    assert colour.invoke(returning(colour, Data(x=4)), {"l": ["in"]}) == {"l": ["in"], "x": 4}


def test_bad_value_surfaces_at_the_next_node(colour: Colour) -> None:
    builder = StateGraph(Model)
    builder.add_node("a", colour.node(lambda state: {"x": "no"})).add_node("b", colour.node(lambda state: None))
    builder.add_edge(START, "a").add_edge("a", "b")
    with pytest.raises(ValidationError) as caught:
        colour.invoke(builder.compile(), {"x": 1})
    assert "'b'" in " ".join(caught.value.__notes__)


@pytest.mark.differs("design.md D54, promise 21: a declared default is where a key with a reducer starts")
def test_declared_default_is_the_start_of_a_reducer_key(colour: Colour) -> None:
    class Counted(BaseModel):
        n: Annotated[int, operator.add] = 10

    graph = single(colour, Counted, colour.node(lambda state: {"n": 1}))
    assert colour.invoke(graph, {"n": 5}) == {"n": 16}


@pytest.mark.parametrize("given", [None, 10, 5])
@pytest.mark.parametrize("kind", ["model", "dataclass"])
def test_a_default_that_an_object_carries_along_is_not_counted_again(
    colour: Colour, kind: str, given: int | None
) -> None:
    class Model(BaseModel):
        n: Annotated[int, operator.add] = 10
        who: str = ""

    @dataclasses.dataclass
    class Data:
        n: Annotated[int, operator.add] = 10
        who: str = ""

    counted: Any = Model if kind == "model" else Data
    item = counted() if given is None else counted(n=given)
    start = 15 if given == 5 else 10
    assert colour.invoke(single(colour, counted, colour.node(lambda state: {"n": 1})), item) == {
        "n": start + 1,
        "who": "",
    }
    assert colour.invoke(single(colour, counted, colour.node(lambda state: item)), {"who": "me"})["n"] == start


def test_a_plain_key_with_a_default_stays_absent_until_written(colour: Colour) -> None:
    """design.md D54: only keys with a reducer start from their default."""
    graph = single(colour, Data, colour.node(lambda state: None))
    assert colour.invoke(graph, {"x": 1}) == {"x": 1, "l": []}


def test_input_and_output_schemas(colour: Colour) -> None:
    class In(TypedDict):
        q: str

    class Out(TypedDict):
        a: str

    class Whole(In, Out):
        h: str

    seen: list[Any] = []

    def n(state: Whole) -> dict[str, Any]:
        seen.append(dict(state))
        return {"a": "A", "h": "H"}

    graph = (
        StateGraph(Whole, input_schema=In, output_schema=Out)
        .add_node("n", colour.node(n))
        .add_edge(START, "n")
        .compile()
    )
    # amendments C7: a state key that is not in the input schema is not taken from the input
    assert colour.invoke(graph, {"q": "Q", "h": "ignored"}) == {"a": "A"}
    assert seen == [{"q": "Q"}]
    assert colour.stream(graph, {"q": "Q"}, stream_mode="values") == [{"q": "Q"}, {"q": "Q", "a": "A", "h": "H"}]


def test_empty_output_schema_returns_nothing(colour: Colour) -> None:
    class Nothing(TypedDict):
        pass

    graph = StateGraph(Log, output_schema=Nothing).add_node("n", colour.letter("n")).add_edge(START, "n").compile()
    assert colour.invoke(graph, {"l": []}) is None


def test_bare_state(colour: Colour) -> None:
    builder = StateGraph(Annotated[list[Any], operator.add])
    seen: list[Any] = []
    builder.add_node("n", colour.node(lambda state: seen.append(state) or ["n"]))
    graph = builder.add_edge(START, "n").compile()
    assert colour.invoke(graph, ["in"]) == ["in", "n"]
    assert seen == [["in"]]
    assert colour.stream(graph, ["in"], stream_mode="updates") == [{"n": ["n"]}]
    assert colour.stream(graph, ["in"], stream_mode="values") == [["in"], ["in", "n"]]


def test_bare_state_of_a_plain_type(colour: Colour) -> None:
    graph = single(colour, int, colour.node(lambda state: state + 1))
    assert colour.invoke(graph, 1) == 2
    assert colour.invoke(single(colour, int, colour.node(lambda state: None)), 1) == 1


def test_bare_state_commands(colour: Colour) -> None:
    builder = StateGraph(Annotated[list[Any], operator.add])
    builder.add_node("a", colour.node(lambda state: [Command(update=["c"], goto="b"), ["x"]]))
    builder.add_node("b", colour.node(lambda state: ["b"]))
    builder.add_edge(START, "a")
    assert colour.invoke(builder.compile(), ["in"]) == ["in", "c", "x", "b"]


@pytest.mark.differs("amendments II.1 rows 3: a dict update goes to the one bare channel whole")
def test_bare_state_takes_a_dict_update_whole(colour: Colour) -> None:
    graph = single(colour, Annotated[dict[str, Any], operator.or_], colour.node(lambda s: Command(update={"a": 1})))
    assert colour.invoke(graph, {"in": 0}) == {"in": 0, "a": 1}


def test_root_key_spelled_out(colour: Colour) -> None:
    """amendments C5."""
    Bare = TypedDict("Bare", {"__root__": Annotated[list[Any], operator.add]})
    assert colour.invoke(single(colour, Bare, colour.node(lambda state: ["n"])), ["in"]) == ["in", "n"]


def test_invalid_state_schema_warns() -> None:
    with pytest.warns(UserWarning, match="schema"):
        StateGraph("Log")  # type: ignore[type-var]


def test_channel_of_each_annotation() -> None:
    class State(TypedDict):
        plain: int
        doc: Annotated[int, "doc"]
        red: Annotated[int, operator.add]
        inst: Annotated[int, EphemeralValue(int, guard=False)]
        cls: Annotated[int, EphemeralValue]
        last: IsLastStep

    builder = StateGraph(State)
    kinds = {key: type(channel) for key, channel in builder.channels.items()}
    assert kinds == {
        "plain": LastValue,
        "doc": LastValue,
        "red": BinaryOperatorAggregate,
        "inst": EphemeralValue,
        "cls": EphemeralValue,
    }
    assert set(builder.managed) == {"last"}


def test_reducer_signature_is_checked() -> None:
    class One(TypedDict):
        k: Annotated[int, lambda a: a]

    class Keyword(TypedDict):
        k: Annotated[int, lambda a, b, *, c=1, **kw: a]

    with refused(ValueError, "a"):
        StateGraph(One)
    StateGraph(Keyword)


def test_one_key_in_several_schemas() -> None:
    def other(left: list[Any], right: list[Any]) -> list[Any]:
        return left

    class Plain(TypedDict):
        l: list[Any]  # noqa: E741

    class Different(TypedDict):
        l: Annotated[list[Any], other]  # noqa: E741

    class Same(TypedDict):
        l: Annotated[list[Any], operator.add]  # noqa: E741

    StateGraph(Log, input_schema=Plain, output_schema=Same)
    with refused(ValueError, "l"):
        StateGraph(Log, output_schema=Different)
    with refused(ValueError, "l"):
        StateGraph(Plain, output_schema=Same)


def test_managed_values_are_not_input_or_output() -> None:
    class Managed(TypedDict):
        last: IsLastStep

    with refused(ValueError, "last", "Managed"):
        StateGraph(Log, input_schema=Managed)
    with refused(ValueError, "last", "Managed"):
        StateGraph(Log, output_schema=Managed)


# --------------------------------------------------------------------------------------------------------- add_node


class Doer:
    def __call__(self, state: Log) -> dict[str, Any]:
        return {"l": ["call"]}

    def method(self, state: Log) -> dict[str, Any]:
        return {"l": ["method"]}


def act(state: Log) -> dict[str, Any]:
    return {"l": ["act"]}


def test_names_of_nodes() -> None:
    named = Doer()
    named.__name__ = "own"  # type: ignore[attr-defined]
    builder = StateGraph(Log)
    inner = StateGraph(Log).add_node("i", act).add_edge(START, "i").compile(name="inner graph")
    builder.add_node(act)
    builder.add_node("given", act)
    builder.add_node(Doer())
    builder.add_node(named)
    builder.add_node(named.method)
    builder.add_node(functools.partial(act))
    builder.add_node(lambda state: None)
    builder.add_node(inner)
    builder.add_node(StateGraph(Log).add_node("i", act).add_edge(START, "i").compile())
    assert list(builder.nodes) == [
        "act",
        "given",
        "Doer",
        "own",
        "method",
        "partial",
        "<lambda>",
        "inner graph",
        "LangGraph",
    ]


def test_every_form_of_node_runs(colour: Colour) -> None:
    builder = StateGraph(Log)
    builder.add_node("fn", colour.node(act))
    builder.add_node("instance", Doer()).add_node("method", Doer().method)
    builder.add_node("partial", functools.partial(colour.node(act)))
    builder.add_node("star", colour.node(lambda *args: {"l": [len(args)]}))
    before = START
    for name in ("fn", "instance", "method", "partial", "star"):
        builder.add_edge(before, name)
        before = name
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["act", "call", "method", "act", 1]}


class Names(str, enum.Enum):  # noqa: UP042 - the older form, whose str() is not its value
    A = "a"
    B = "b"


@pytest.mark.differs("amendments A22: a member of a str-enum is its plain string", partly=True)
def test_enum_members_as_names(colour: Colour) -> None:
    builder = StateGraph(Log).add_node(Names.A, colour.letter("a")).add_node("b", colour.letter("b"))
    builder.add_edge(START, "a").add_edge(Names.A, Names.B)
    graph = builder.compile()
    assert colour.stream(graph, {"l": []}, stream_mode="updates") == [{"a": {"l": ["a"]}}, {"b": {"l": ["b"]}}]


def test_add_node_as_decorator(colour: Colour) -> None:
    """amendments A23."""
    builder = StateGraph(Log)

    @builder.add_node
    def decorated(state: Log) -> dict[str, Any]:
        return {"l": ["d"]}

    assert decorated is builder  # type: ignore[comparison-overlap]
    assert colour.invoke(builder.add_edge(START, "decorated").compile(), {"l": []}) == {"l": ["d"]}


def test_an_object_that_answers_everything_is_called(colour: Colour) -> None:
    """amendments A6: `invoke` is looked up on the type."""

    class Anything:
        __name__ = "anything"

        def __call__(self, state: Any) -> dict[str, Any]:
            return {"l": ["called"]}

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *args, **kw: {"l": [name]}

    assert colour.invoke(single(colour, Log, Anything()), {"l": []}) == {"l": ["called"]}


@pytest.mark.parametrize("colour", ["async"], indirect=True)
def test_async_nodes_in_every_disguise(colour: Colour) -> None:
    """amendments II.2 4.3."""

    async def plain(state: Log) -> dict[str, Any]:
        return {"l": ["n"]}

    @functools.wraps(plain)
    def wrapped(*args: Any, **kw: Any) -> Any:
        return plain(*args, **kw)

    class Callable_:
        async def __call__(self, state: Log) -> dict[str, Any]:
            return {"l": ["n"]}

    for node in (plain, functools.partial(plain), Callable_()):
        assert colour.invoke(single(colour, Log, node), {"l": []}) == {"l": ["n"]}


def test_send_only_targets_add_their_schema(colour: Colour, memory: Any, thread: Any) -> None:
    """amendments A24."""
    seen: list[Any] = []

    def w(call: POnly) -> dict[str, Any]:
        seen.append(call)
        return {"l": ["w"]}

    builder = StateGraph(Log).add_node("w", colour.node(w))
    builder.add_conditional_edges(START, lambda state: Send("w", {"p": "sent", "more": 1}))
    assert set(builder.channels) == {"l", "p"}
    graph = builder.compile(checkpointer=memory)
    assert colour.invoke(graph, {"l": []}, thread) == {"l": ["w"]}
    assert seen == [{"p": "sent", "more": 1}]
    assert colour.get_state(graph, thread).values == {"l": ["w"]}


def test_a_send_of_a_command_is_stored(colour: Colour, saver: Any, thread: Any) -> None:
    """amendments A29."""
    seen: list[Any] = []
    sent = Command(update={"l": ["x"]}, goto="w")

    def w(arg: Any) -> None:
        seen.append(arg)

    builder = StateGraph(Log).add_node("w", colour.node(w))
    builder.add_conditional_edges(START, lambda state: Send("w", sent))
    graph = builder.compile(checkpointer=saver, interrupt_before=["w"])
    colour.invoke(graph, {"l": []}, thread)
    assert saver.get_tuple(thread).checkpoint["channel_values"]["__pregel_tasks"] == [Send("w", sent)]
    colour.invoke(graph, None, thread)
    assert seen == [sent]


def test_send_argument_is_passed_as_it_is(colour: Colour) -> None:
    """engine.md 2.5: no coercion for a Send, also with a model state."""
    seen: list[Any] = []

    def w(arg: Model) -> None:
        seen.append(arg)

    builder = StateGraph(Model).add_node("w", colour.node(w))
    builder.add_conditional_edges(START, lambda state: Send("w", {"x": "raw"}))
    colour.invoke(builder.compile(), {"x": 1})
    assert seen == [{"x": "raw"}]


def test_send_and_edge_to_one_node_are_two_tasks(colour: Colour) -> None:
    builder = StateGraph(Log).add_node("w", colour.node(lambda arg: {"l": [type(arg).__name__]}))
    builder.add_edge(START, "w").add_conditional_edges(START, lambda state: Send("w", "S"))
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["dict", "str"]}


def test_a_router_and_a_goto_to_one_node_start_it_once(colour: Colour) -> None:
    """amendments II.2 4.7."""
    builder = letters(colour, "bc").add_node("a", colour.node(lambda state: Command(goto=["b", "c"])))
    builder.add_edge(START, "a").add_edge("a", "c").add_conditional_edges("a", lambda state: "b")
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["b", "c"]}


def test_validators_run_once_per_node_on_the_raw_value(colour: Colour) -> None:
    """amendments II.2 4.4."""
    seen: list[Any] = []

    class Doubling(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def double(cls, value: int) -> int:
            return value * 2

    def n(state: Doubling) -> dict[str, Any]:
        seen.append(state.x)
        return {}

    builder = StateGraph(Doubling).add_node("a", colour.node(n)).add_node("b", colour.node(n))
    graph = builder.add_edge(START, "a").add_edge("a", "b").compile()
    assert colour.invoke(graph, {"x": "3"}) == {"x": "3"}
    assert seen == [6, 6]


def test_add_node_errors() -> None:
    builder = StateGraph(Log).add_node("a", act)
    with refused(ValueError, "a"):
        builder.add_node("a", act)
    for name in (START, END):
        with refused(ValueError, name):
            builder.add_node(name, act)
    for name in ("a|b", "a:b"):
        with refused(ValueError, name[1]):
            builder.add_node(name, act)
    with pytest.raises(RuntimeError):
        builder.add_node("only a name")
    with pytest.raises(TypeError):
        builder.add_node("x", 5)


def test_reserved_node_names_fail_at_compile() -> None:
    builder = StateGraph(Log).add_node("__interrupt__", act).add_edge(START, "__interrupt__")
    with refused(ValueError, "__interrupt__"):
        builder.compile()


def test_node_metadata_is_seen_in_config(colour: Colour) -> None:
    seen: list[Any] = []

    def n(state: Log, config: Any) -> None:
        seen.append(config["metadata"])

    n.__annotations__.pop("config")
    graph = single(colour, Log, colour.node(n), metadata={"team": "blue"})
    colour.invoke(graph, {"l": []}, {"metadata": {"user": "u"}})
    assert (seen[0]["team"], seen[0]["user"]) == ("blue", "u")


class XOnly(TypedDict):
    x: int


class POnly(TypedDict):
    p: str


def test_input_schema_given_beats_inferred(colour: Colour) -> None:
    seen: list[Any] = []

    def n(state: LogX) -> None:
        seen.append(state)

    colour.invoke(single(colour, LogX, colour.node(n), input_schema=XOnly), {"l": ["in"], "x": 1})
    assert seen == [{"x": 1}]


def test_input_schema_is_inferred_from_the_first_parameter(colour: Colour) -> None:
    seen: list[Any] = []

    class Method:
        def __call__(self, state: XOnly) -> None:
            seen.append(state)

    def n(state: XOnly) -> None:
        seen.append(state)

    def private(state: POnly) -> None:
        seen.append(state)

    colour.invoke(single(colour, LogX, colour.node(n)), {"l": ["in"], "x": 1})
    colour.invoke(single(colour, LogX, Method()), {"l": ["in"], "x": 2})
    builder = StateGraph(LogX).add_node("n", colour.node(private)).add_edge(START, "n")
    assert set(builder.channels) == {"l", "x", "p"}
    colour.invoke(builder.compile(), {"l": [], "x": 3})
    assert seen == [{"x": 1}, {"x": 2}, {}]


def test_unresolvable_annotation_is_ignored(colour: Colour) -> None:
    def n(state: "Missing") -> "Command[Nowhere]":  # type: ignore[name-defined]  # noqa: F821
        return {"l": ["n"]}  # type: ignore[return-value]

    assert colour.invoke(single(colour, Log, colour.node(n)), {"l": []}) == {"l": ["n"]}


def test_destinations_are_inferred_and_checked() -> None:
    def one(state: Log) -> Command[Literal["b", "c"]]: ...
    def union(state: Log) -> Command[Literal["b"]] | dict[str, Any]: ...
    def optional(state: Log) -> Command[Literal["c"]] | None: ...
    def wrong(state: Log) -> Command[Literal["nowhere"]]: ...

    builder = StateGraph(Log)
    builder.add_node(one).add_node(union).add_node(optional)
    builder.add_node("tuple", act, destinations=("b", "c")).add_node("map", act, destinations={"b": "label"})
    builder.add_node("b", act).add_node("c", act)
    assert set(builder.nodes["one"].ends) == {"b", "c"}
    assert set(builder.nodes["union"].ends) == {"b"}
    assert set(builder.nodes["optional"].ends) == {"c"}
    assert set(builder.nodes["tuple"].ends) == {"b", "c"}
    assert set(builder.nodes["map"].ends) == {"b"}
    with diagnosed("'union'"):
        builder.add_edge(START, "one").compile()
    with refused(ValueError, "nowhere"):
        builder.add_node(wrong).compile()


def test_destinations_do_not_change_execution(colour: Colour) -> None:
    builder = StateGraph(Log).add_node("a", colour.letter("a"), destinations=("b",)).add_node("b", colour.letter("b"))
    assert colour.invoke(builder.add_edge(START, "a").compile(), {"l": []}) == {"l": ["a"]}


def test_compiled_graph_is_not_changed_by_its_builder(colour: Colour) -> None:
    builder = StateGraph(Log).add_node("a", colour.letter("a")).add_edge(START, "a")
    graph = builder.compile()
    builder.add_node("b", colour.letter("b"))
    builder.add_edge("a", "b")
    assert colour.invoke(graph, {"l": []}) == {"l": ["a"]}
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["a", "b"]}


# ------------------------------------------------------------------------------------------------------ node returns


@pytest.mark.parametrize("value", [None, {}, {"x": 5}, Command(update={"x": 5}), Command()])
def test_plain_returns(colour: Colour, value: Any) -> None:
    expected = {"l": ["in"]} if value in (None, {}, Command()) else {"l": ["in"], "x": 5}
    assert colour.invoke(returning(colour, value), {"l": ["in"]}) == expected


@pytest.mark.parametrize("value", [5, "text", [], [{"x": 1}], ({"x": 1},), [Send("n", 1)]])
def test_wrong_returns(colour: Colour, value: Any) -> None:
    with refused(InvalidUpdateError, str(value)):
        colour.invoke(returning(colour, value), {"l": []})


def test_unknown_keys_are_dropped_with_a_warning(colour: Colour) -> None:
    """design.md D9: dropped as in the peer, but never silently."""
    with diagnosed("n", "typo"):
        assert colour.invoke(returning(colour, {"typo": 1, "x": 2}), {"l": []}) == {"l": [], "x": 2}


def test_list_of_commands_and_dicts(colour: Colour) -> None:
    builder = StateGraph(LogX)
    returned = [Command(update={"l": ["1"]}, goto="b"), {"l": ["2"]}, None, Command(update=[("l", ["3"]), ("x", 0)])]
    builder.add_node("a", colour.node(lambda state: returned)).add_node("b", colour.letter("b"))
    builder.add_edge(START, "a")
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["1", "2", "3", "b"], "x": 0}


def test_command_update_forms(colour: Colour) -> None:
    assert colour.invoke(returning(colour, Command(update=(("l", ["p"]),))), {"l": []}) == {"l": ["p"]}
    assert colour.invoke(returning(colour, Command(update=Data(x=1, l=["d"]))), {"l": []}) == {"l": ["d"], "x": 1}
    assert colour.invoke(returning(colour, Command(update=[])), {"l": ["in"]}) == {"l": ["in"]}


def test_command_update_of_another_kind_is_lost_in_a_dict_state(colour: Colour) -> None:
    with diagnosed("n"):
        assert colour.invoke(returning(colour, Command(update=5)), {"l": ["in"]}) == {"l": ["in"]}


def test_bare_send(colour: Colour) -> None:
    builder = StateGraph(Log)
    builder.add_node("a", colour.node(lambda state: Send("b", "S")))
    builder.add_node("b", colour.node(lambda arg: {"l": [arg]}))
    assert colour.invoke(builder.add_edge(START, "a").compile(), {"l": []}) == {"l": ["S"]}


def test_goto_forms(colour: Colour) -> None:
    for goto, expected in [
        ("b", ["a", "b"]),
        (["b", "c"], ["a", "b", "c"]),
        (("c", "b", "b"), ["a", "b", "c"]),
        (Send("d", 1), ["a", 1]),
        ([Send("d", 2), "b", Send("d", 1)], ["a", "b", 2, 1]),
        (END, ["a"]),
        ([END, "b"], ["a", "b"]),
    ]:
        builder = StateGraph(Log)
        builder.add_node("a", colour.node(lambda state, goto=goto: Command(update={"l": ["a"]}, goto=goto)))
        builder.add_node("b", colour.letter("b")).add_node("c", colour.letter("c"))
        builder.add_node("d", colour.node(lambda arg: {"l": [arg]}))
        assert colour.invoke(builder.add_edge(START, "a").compile(), {"l": []}) == {"l": expected}


def test_unknown_goto_is_ignored_with_a_warning(colour: Colour) -> None:
    """design.md D9."""
    graph = returning(colour, Command(goto="nowhere", update={"x": 1}))
    with diagnosed("n", "nowhere"):
        assert colour.invoke(graph, {"l": []}) == {"l": [], "x": 1}


def test_unknown_send_is_ignored_with_a_warning(colour: Colour) -> None:
    """design.md D9."""
    graph = returning(colour, Command(goto=Send("nowhere", 1)))
    with diagnosed("nowhere"):
        assert colour.invoke(graph, {"l": []}) == {"l": []}


def test_returned_graph_is_invoked(colour: Colour) -> None:
    inner = StateGraph(Log).add_node("i", colour.letter("i")).add_edge(START, "i").compile()
    graph = single(colour, Log, colour.node(lambda state: inner))
    assert colour.invoke(graph, {"l": ["in"]}) == {"l": ["in", "in", "i"]}


@pytest.mark.parametrize("colour", ["sync"], indirect=True)
def test_generator_node_returns_its_last_value(colour: Colour) -> None:
    def n(state: Log) -> Any:
        yield {"l": ["first"]}
        yield {"l": ["last"]}

    assert colour.invoke(single(colour, Log, n), {"l": []}) == {"l": ["last"]}


def test_a_node_may_take_its_input_apart(colour: Colour) -> None:
    """amendments A3."""
    seen: list[Any] = []

    def n(state: LogX) -> None:
        state.pop("l")  # type: ignore[misc]
        state["x"] = "changed"

    def route(state: LogX) -> str:
        seen.append(dict(state))
        return END

    builder = StateGraph(LogX).add_node("n", colour.node(n)).add_edge(START, "n").add_conditional_edges("n", route)
    assert colour.invoke(builder.compile(), {"l": ["in"], "x": 1}) == {"l": ["in"], "x": 1}
    assert seen == [{"l": ["in"], "x": 1}]


# ------------------------------------------------------------------------------------------------------------- edges


def letters(colour: Colour, names: str, schema: Any = Log) -> Any:
    builder = StateGraph(schema)
    for name in names:
        builder.add_node(name, colour.letter(name))
    return builder


def test_fan_out_and_in(colour: Colour) -> None:
    builder = letters(colour, "abcd")
    builder.add_edge(START, "a").add_edge("a", "b").add_edge("a", "c").add_edge("b", "d").add_edge("c", "d")
    builder.add_edge("d", END)
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["a", "b", "c", "d"]}


def test_join_is_reset_after_it_fired(colour: Colour) -> None:
    builder = letters(colour, "abcj")
    builder.add_edge(START, "a").add_edge(START, "b").add_edge(["a", "b"], "j")
    builder.add_conditional_edges("j", lambda state: END if state["l"].count("j") == 2 else ["a", "b"])
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["a", "b", "j", "a", "b", "j"]}


def test_join_to_end_does_nothing(colour: Colour) -> None:
    """amendments A30."""
    builder = letters(colour, "ab").add_edge(START, "a").add_edge(START, "b").add_edge(["a", "b"], END)
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["a", "b"]}


def test_deferred_list_edge(colour: Colour) -> None:
    builder = letters(colour, "abc").add_node("d", colour.letter("d"), defer=True)
    builder.add_edge(START, "a").add_edge(START, "b").add_edge("b", "c").add_edge(["a", "b"], "d")
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["a", "b", "c", "d"]}


@pytest.mark.differs("engine.md 2.8 and 11, row 19: queued Sends are more work, so a deferred node waits for them")
def test_deferred_node_waits_for_sends(colour: Colour) -> None:
    builder = letters(colour, "a").add_node("d", colour.letter("d"), defer=True)
    builder.add_node("w", colour.node(lambda arg: {"l": [arg]}))
    builder.add_node("v", colour.letter("v"))
    builder.add_edge(START, "a").add_edge("a", "d").add_edge("w", "v")
    builder.add_conditional_edges("a", lambda state: [Send("w", "w0"), Send("w", "w1")])
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["a", "w0", "w1", "v", "d"]}


def test_start_to_end_returns_the_input(colour: Colour) -> None:
    assert colour.invoke(StateGraph(Log).add_edge(START, END).compile(), {"l": ["in"]}) == {"l": ["in"]}


def test_edge_errors(colour: Colour) -> None:
    builder = letters(colour, "a")
    with refused(ValueError, "END"):
        builder.add_edge(END, "a")
    with refused(ValueError, "START"):
        builder.add_edge("a", START)
    with refused(ValueError, "x"):
        builder.add_edge(["a", "x"], "a")
    with refused(ValueError, "x"):
        builder.add_edge(["a"], "x")


def test_validation_errors(colour: Colour) -> None:
    with pytest.raises(ValueError):
        letters(colour, "a").compile()
    with refused(ValueError, "x"):
        letters(colour, "a").add_edge(START, "a").add_edge("x", "a").compile()
    with refused(ValueError, "x"):
        letters(colour, "a").add_edge(START, "a").add_edge("a", "x").compile()
    with refused(ValueError, "x"):
        letters(colour, "a").add_edge(START, "a").compile(interrupt_before=["x"])
    with refused(ValueError, "x"):
        letters(colour, "a").add_edge(START, "a").compile(interrupt_after=["x"])
    with refused(ValueError, "x"):
        letters(colour, "a").add_conditional_edges("x", lambda state: "a").add_edge(START, "a").compile()

    def cond(state: Log) -> str: ...

    with refused(ValueError, "a", "cond", "x"):
        letters(colour, "a").add_edge(START, "a").add_conditional_edges("a", cond, ["x"]).compile()
    with diagnosed("'b'"):
        letters(colour, "ab").add_edge(START, "a").compile()  # an unreachable node is allowed
    with pytest.raises(TypeError):
        letters(colour, "a").add_edge(START, "a").compile(checkpointer="memory")


def test_breakpoint_names_in_a_list(colour: Colour, memory: Any, thread: Any) -> None:
    graph = letters(colour, "ab").add_edge(START, "a").add_edge("a", "b").compile(memory, interrupt_before=["b"])
    assert colour.invoke(graph, {"l": []}, thread) == {"l": ["a"]}


@pytest.mark.differs("amendments A10: a tuple, a bare name and ['*'] are accepted")
@pytest.mark.parametrize("names", [("b",), "b"])
def test_breakpoint_names_in_any_form(colour: Colour, memory: Any, thread: Any, names: Any) -> None:
    graph = letters(colour, "ab").add_edge(START, "a").add_edge("a", "b").compile(memory, interrupt_before=names)
    assert colour.invoke(graph, {"l": []}, thread) == {"l": ["a"]}


def test_attributes_of_a_compiled_graph(colour: Colour) -> None:
    builder = letters(colour, "a").add_edge(START, "a")
    graph = builder.compile()
    assert graph.builder is builder
    assert graph.input_channels == "__start__"
    assert graph.output_channels == ["l"]
    assert graph.stream_channels == ["l"]
    assert graph.stream_mode == "updates"
    assert (graph.name, graph.get_name()) == ("LangGraph", "LangGraph")
    assert builder.compile(name="mine").get_name() == "mine"
    assert list(graph.nodes) == ["__start__", "a"]
    assert list(graph.channels)[:3] == ["l", "__start__", "__pregel_tasks"]


def test_attributes_of_a_builder(colour: Colour) -> None:
    """amendments II.2 1.1: filled at construction and at each add call."""

    def cond(state: Log) -> str: ...

    builder = letters(colour, "abj", LogX).add_edge(START, "a").add_edge(["a", "b"], "j")
    builder.add_conditional_edges("a", cond)
    assert set(builder.channels) == {"l", "x"}
    assert set(builder.nodes) == {"a", "b", "j"}
    assert set(builder.edges) == {(START, "a")}
    assert set(builder.waiting_edges) == {(("a", "b"), "j")}
    assert set(builder.branches["a"]) == {"cond"}
    assert builder.state_schema is builder.input_schema is builder.output_schema is LogX
    assert builder.compiled is False
    builder.compile()
    assert builder.compiled is True


# ------------------------------------------------------------------------------------------------- conditional edges


def routed(colour: Colour, path: Any, path_map: Any = None, names: str = "abc", source: str = "a") -> Any:
    builder = letters(colour, names, LogX).add_edge(START, "a")
    if path_map is None:
        builder.add_conditional_edges(source, path)
    else:
        builder.add_conditional_edges(source, path, path_map)
    return builder.compile()


def literal_path(state: LogX) -> Literal["b", "c"]:
    return "c"


@pytest.mark.filterwarnings("ignore:nothing leads to node:pregel.warnings.PregelWarning")
@pytest.mark.parametrize(
    ("result", "path_map", "expected"),
    [
        ("b", None, ["a", "b"]),
        (["b", "c"], None, ["a", "b", "c"]),
        (("c", "b"), None, ["a", "b", "c"]),
        ([], None, ["a"]),
        (END, None, ["a"]),
        ("b", ["b", "c"], ["a", "b"]),
        ("left", {"left": "b", "right": "c"}, ["a", "b"]),
        (True, {True: "c", False: END}, ["a", "c"]),
        (False, {True: "c", False: END}, ["a"]),
        (["left", "right"], {"left": "b", "right": "c"}, ["a", "b", "c"]),
        ([Send("b", None), "right"], {"right": "c"}, ["a", "c", "b"]),
        (Send("b", None), None, ["a", "b"]),
    ],
)
def test_path_results(colour: Colour, result: Any, path_map: Any, expected: Any) -> None:
    graph = routed(colour, colour.node(lambda state: result), path_map)
    assert colour.invoke(graph, {"l": []}) == {"l": expected}


def test_literal_annotation_is_the_map(colour: Colour) -> None:
    graph = routed(colour, colour.node(literal_path))
    assert colour.invoke(graph, {"l": []}) == {"l": ["a", "c"]}
    assert graph.builder.branches["a"]["literal_path"].ends == {"b": "b", "c": "c"}


@pytest.mark.differs("amendments A31")
def test_call_annotation_of_a_path_object_is_the_map(colour: Colour) -> None:
    class Path:
        def __call__(self, state: LogX) -> Literal["b"]:
            return "b"

    with diagnosed("'c'"):
        graph = routed(colour, Path())
    assert colour.invoke(graph, {"l": []}) == {"l": ["a", "b"]}
    assert graph.builder.branches["a"]["condition"].ends == {"b": "b"}


@pytest.mark.filterwarnings("ignore:nothing leads to node:pregel.warnings.PregelWarning")
def test_result_outside_the_map(colour: Colour) -> None:
    with refused(KeyError, "nope"):
        colour.invoke(routed(colour, colour.node(lambda state: "nope"), {"left": "b"}), {"l": []})


@pytest.mark.parametrize("result", [None, START])
def test_invalid_destinations(colour: Colour, result: Any) -> None:
    with pytest.raises(ValueError):
        colour.invoke(routed(colour, colour.node(lambda state: result)), {"l": []})


def test_send_to_end_is_refused(colour: Colour) -> None:
    with refused(InvalidUpdateError, "END"):
        colour.invoke(routed(colour, colour.node(lambda state: Send(END, 1))), {"l": []})


def test_unknown_destination_is_ignored_with_a_warning(colour: Colour) -> None:
    """design.md D9."""
    graph = routed(colour, colour.node(lambda state: "nowhere"))
    with diagnosed("nowhere"):
        assert colour.invoke(graph, {"l": []}) == {"l": ["a"]}


def test_branch_names(colour: Colour) -> None:
    builder = letters(colour, "abc").add_edge(START, "a")
    builder.add_conditional_edges("a", literal_path)
    with refused(ValueError, "literal_path", "a"):
        builder.add_conditional_edges("a", literal_path)
    builder.add_conditional_edges("b", literal_path)
    builder.add_conditional_edges("c", lambda state: END)
    assert set(builder.branches["c"]) == {"condition"}


def test_path_sees_its_nodes_writes_but_not_the_siblings(colour: Colour) -> None:
    seen: list[Any] = []

    def path(state: Log) -> str:
        seen.append(state["l"])
        return END

    builder = letters(colour, "ab").add_edge(START, "a").add_edge(START, "b")
    builder.add_conditional_edges("a", colour.node(path))
    colour.invoke(builder.compile(), {"l": ["in"]})
    assert seen == [["in", "a"]]


def test_path_with_its_own_schema(colour: Colour) -> None:
    seen: list[Any] = []

    def path(state: XOnly) -> str:
        seen.append(state)
        return END

    builder = StateGraph(LogX).add_node("a", colour.node(lambda state: {"x": 5, "l": ["a"]})).add_edge(START, "a")
    builder.add_conditional_edges("a", colour.node(path))
    colour.invoke(builder.compile(), {"l": []})
    assert seen == [{"x": 5}]


def test_path_of_a_model_state_gets_the_model(colour: Colour) -> None:
    seen: list[Any] = []

    def path(state: Any) -> str:
        seen.append(state)
        return END

    builder = StateGraph(Model).add_node("a", colour.node(lambda state: {"d": "8"})).add_edge(START, "a")
    builder.add_conditional_edges("a", colour.node(path))
    colour.invoke(builder.compile(), {"x": "1"})
    assert seen == [Model(x=1, d=8, l=[])]


def test_unannotated_path_sees_extra_keys_of_the_return(colour: Colour) -> None:
    """amendments C8."""
    seen: list[Any] = []

    def path(state):  # type: ignore[no-untyped-def]
        seen.append(state)
        return END

    builder = StateGraph(LogX)
    builder.add_node("a", colour.node(lambda state: {"x": 5, "extra": 1, "l": ["a"]})).add_edge(START, "a")
    builder.add_conditional_edges("a", colour.node(path))
    graph = builder.compile()
    colour.invoke(graph, {"l": ["in"]})
    assert seen == [{"l": ["in", "a"], "x": 5, "extra": 1}]


def test_path_of_start(colour: Colour) -> None:
    seen: list[Any] = []

    def path(state):  # type: ignore[no-untyped-def]
        seen.append(state)
        return "b"

    builder = letters(colour, "ab", LogX)
    builder.set_conditional_entry_point(colour.node(path), ["a", "b"])
    assert colour.invoke(builder.compile(), {"l": ["in"], "extra": 1}) == {"l": ["in", "b"]}
    assert seen == [{"l": ["in"], "extra": 1}]


def test_error_in_a_path_loses_the_nodes_writes(colour: Colour, saver: Any, thread: Any) -> None:
    """engine.md 11, row 1: only the error is stored, the node runs again."""
    calls: list[str] = []
    failing = [True]

    def path(state: Log) -> str:
        if failing:
            raise LookupError("no way")
        return "b"

    builder = StateGraph(Log).add_node("a", colour.letter("a", calls)).add_node("b", colour.letter("b", calls))
    builder.add_edge(START, "a").add_conditional_edges("a", colour.node(path))
    graph = builder.compile(checkpointer=saver)
    with pytest.raises(LookupError) as caught:
        colour.invoke(graph, {"l": []}, thread)
    assert "'a'" in " ".join(caught.value.__notes__)


@pytest.mark.differs("engine.md 7.3 and 11, row 1: a failed task stores only its error, so it runs again")
def test_task_with_a_failed_path_runs_again(colour: Colour, saver: Any, thread: Any) -> None:
    calls: list[str] = []
    failing = [True]

    def path(state: Log) -> str:
        if failing:
            raise LookupError("no way")
        return "b"

    builder = StateGraph(Log).add_node("a", colour.letter("a", calls)).add_node("b", colour.letter("b", calls))
    builder.add_edge(START, "a").add_conditional_edges("a", colour.node(path))
    graph = builder.compile(checkpointer=saver)
    with pytest.raises(LookupError):
        colour.invoke(graph, {"l": []}, thread)
    failing.clear()
    assert colour.get_state(graph, thread).next == ("a",)
    assert colour.invoke(graph, None, thread) == {"l": ["a", "b"]}
    assert calls == ["a", "a", "b"]


@pytest.mark.parametrize("colour", ["sync"], indirect=True)
def test_async_path_in_a_sync_run(colour: Colour) -> None:
    async def path(state: Log) -> str:
        return END

    with refused(TypeError, "path"):
        colour.invoke(routed(colour, path), {"l": []})


# ----------------------------------------------------------------------------------------------------- other methods


def test_sequence(colour: Colour) -> None:
    def b(state: Log) -> dict[str, Any]:
        return {"l": ["b"]}

    builder = StateGraph(Log).add_sequence([("a", colour.letter("a")), colour.node(b), ("c", colour.letter("c"))])
    builder.set_entry_point("a").set_finish_point("c")
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["a", "b", "c"]}
    assert set(builder.edges) == {(START, "a"), ("a", "b"), ("b", "c"), ("c", END)}


def test_sequence_errors() -> None:
    with pytest.raises(ValueError):
        StateGraph(Log).add_sequence([])
    with refused(ValueError, "act"):
        StateGraph(Log).add_sequence([act, act])


def test_node_defaults(colour: Colour) -> None:
    def f(state: Log) -> Any:
        raise ValueError("boom")

    builder = StateGraph(Log).set_node_defaults(error_handler=colour.node(lambda state: {"l": ["handled"]}))
    builder.add_node("f", colour.node(f)).add_edge(START, "f")
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["handled"]}


def test_commands_can_be_replaced_and_compared() -> None:
    """amendments A28."""
    first = Command(update={"x": 1}, goto="a")
    assert dataclasses.replace(first, update={"x": 2}) == Command(update={"x": 2}, goto="a")
    assert Command.PARENT == "__parent__"
    assert Send("a", 1) == Send(node="a", arg=1) != Send("a", 2)
    assert hash(Send("a", 1)) == hash(Send("a", 1))
    assert (repr(Send("a", 1)), repr(Command(goto="a"))) == ("Send(node='a', arg=1)", "Command(goto='a')")


def test_subscripted_types() -> None:
    """amendments II.2 3.8."""
    assert StateGraph[Log] is not None
    assert Command[Literal["a"]] is not None
    assert LastValue[int] is not None
