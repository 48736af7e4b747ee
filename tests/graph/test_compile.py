"""What a compiled graph consists of, and what its writers make of return values, without an engine."""

import operator
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import pytest
from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict

from checkpoint import registry
from pregel._call import Call
from pregel.channels import EphemeralValue, LastValueAfterFinish, NamedBarrierValue, NamedBarrierValueAfterFinish
from pregel.constants import END, START, TAG_HIDDEN, TASKS
from pregel.errors import ErrorCode, InvalidUpdateError, ParentCommand
from pregel.graph import StateGraph
from pregel.managed import IsLastStep
from pregel.messages import Message
from pregel.pregel import Returned
from pregel.types import Command, Overwrite, RetryPolicy, Send


class State(TypedDict):
    x: int
    l: Annotated[list[Any], operator.add]  # noqa: E741
    last: IsLastStep


class Activation:
    def __init__(self, input: Any) -> None:
        self.input = input


class FakeScope:
    def __init__(self, input: Any = None) -> None:
        self.notices: list[tuple[str, str]] = []
        self.host = self
        self.task = Activation(input)

    def notice(self, code: str, place: str, text: str) -> None:
        self.notices.append((code, place))


def no_op(state: Any) -> None: ...


def graph(schema: Any = State, node: Any = no_op, **options: Any) -> Any:
    builder = StateGraph(schema)
    builder.add_node("n", node)
    builder.add_node("m", no_op)
    builder.add_edge(START, "n").add_edge("n", "m")
    return builder.compile(**options)


EDGE = ("branch:to:m", None)


def written(result: Any, compiled: Any = None, node: str = "n", scope: Any = None) -> list[Any]:
    """Writes of a node's result, without its static edge, which must come last."""
    writes: list[Any] = []
    (compiled or graph()).nodes[node].write(result, scope or FakeScope(), writes)
    if node == "n":
        assert writes.pop() == EDGE
    return writes


# ---- return values, keyed state


def test_dict() -> None:
    assert written({"x": 1, "l": [2]}) == [("x", 1), ("l", [2])]
    assert written({}) == written(None) == []
    assert written(OrderedDict(x=1)) == [("x", 1)]


def test_keys_that_are_not_the_very_name() -> None:
    class Key(str):
        __slots__ = ()

    writes = written({Key("x"): 1})
    assert writes == [("x", 1)]
    assert type(writes[0][0]) is str


def test_unknown_keys() -> None:
    scope = FakeScope()
    assert written({"x": 1, "y": 2, 3: 4}, scope=scope) == [("x", 1)]
    assert [code for code, _ in scope.notices] == ["unknown-key"] * 2
    with pytest.raises(InvalidUpdateError, match=r"'n'.*'ll'.*'l'"):
        written({"ll": 1}, graph(strict=True))


def test_no_false_alarms() -> None:
    class Nested:
        def as_call(self) -> Call:
            return Call("sub", no_op, None, None, self)

    scope = FakeScope()
    assert written({"last": True}, scope=scope) == []
    assert written({"other": True}, graph(node=Nested()), scope=scope) == []
    assert written({"other": True}, scope=scope, node=START) == [("branch:to:n", None)]
    assert written(Command(goto=END), scope=scope) == []
    assert scope.notices == []


@pytest.mark.parametrize(
    ("update", "writes"),
    [
        ({"x": 1}, [("x", 1)]),
        ([("x", 1), ("l", [2])], [("x", 1), ("l", [2])]),
        ((("x", 1),), [("x", 1)]),
        ([], []),
        (None, []),
        ([["x", 1]], []),
        (5, []),
    ],
)
def test_command_updates(update: Any, writes: list[Any]) -> None:
    assert written(Command(update=update)) == writes


def test_gotos_come_after_updates() -> None:
    send = Send("m", 1)
    assert written(Command(update={"x": 1}, goto="m")) == [("x", 1), EDGE]
    assert written(Command(goto=["n", send, END])) == [("branch:to:n", None), (TASKS, send)]
    assert written(send) == [(TASKS, send)]
    both = [Command(update={"x": 1}, goto="m"), None, {"l": [1]}, send, Command(update={"l": [2]}, goto="n")]
    assert written(both) == [("x", 1), ("l", [1]), (TASKS, send), ("l", [2]), EDGE, ("branch:to:n", None)]


@pytest.mark.parametrize("goto", ["zz", Send("zz", 1), Send(END, 1), [5], START])
def test_unknown_goto(goto: Any) -> None:
    scope = FakeScope()
    assert written(Command(goto=goto), scope=scope) == []
    assert [code for code, _ in scope.notices] == ["unknown-goto"]
    with pytest.raises(InvalidUpdateError, match="'n'"):
        written(Command(goto=goto), graph(strict=True))


def test_parent_command_leaves() -> None:
    command = Command(graph=Command.PARENT, update={"x": 1}, goto="other")
    with pytest.raises(ParentCommand) as caught:
        written(command)
    assert caught.value.args[0] is command
    with pytest.raises(ParentCommand):
        written([{"x": 1}, command])


@dataclass
class Update:
    x: int
    nope: int = 0


class Pair(NamedTuple):
    x: int


def test_objects() -> None:
    assert written(Update(1)) == written(Pair(1)) == [("x", 1)]
    assert written(Command(update=Update(1))) == [("x", 1)]


@pytest.mark.parametrize("value", [5, "text", [], [{}], (1, 2), Message(role="user", content="hi")])
def test_invalid_returns(value: Any) -> None:
    with pytest.raises(InvalidUpdateError, match="'n'") as caught:
        written(value)
    assert caught.value.code is ErrorCode.INVALID_GRAPH_NODE_RETURN_VALUE


def test_invalid_item_beside_a_command() -> None:
    with pytest.raises(InvalidUpdateError, match="5"):
        written([Command(update={"x": 1}), 5])


def test_a_returned_graph_is_handed_to_the_body() -> None:
    class Nested:
        def as_call(self) -> Call:
            return Call("sub", lambda state: {"x": state["x"] + 1}, None, None, self)

    with pytest.raises(Returned) as caught:
        written(Nested(), scope=FakeScope({"x": 1}))
    assert caught.value.call.name == "sub"


# ---- return values, bare state


def test_bare_state() -> None:
    bare = graph(Annotated[list[Any], operator.add])
    send = Send("m", 1)
    assert written([1], bare) == [("__root__", [1])]
    assert written({"a": 1}, bare) == [("__root__", {"a": 1})]
    assert written(None, bare) == []
    assert written(send, bare) == [(TASKS, send)]
    assert written(Command(update={"a": 1}, goto="m"), bare) == [("__root__", {"a": 1}), EDGE]
    assert written(Command(update=[("__root__", [1])]), bare) == [("__root__", [1])]
    assert written(Command(update=[("a", 1)]), bare) == [("__root__", [("a", 1)])]
    assert written([Command(update=[1]), None, [2]], bare) == [("__root__", [1]), ("__root__", [2])]
    assert (bare.nodes["n"].channels, bare.nodes["n"].mapper) == ("__root__", None)


# ---- input


class Narrow(TypedDict):
    x: int


def test_input_sets_only_keys_of_the_input_schema() -> None:
    builder = StateGraph(State, input_schema=Narrow)
    builder.add_node("n", no_op)
    builder.add_edge(START, "n")
    compiled = builder.compile()
    first = ("branch:to:n", None)
    assert written({"x": 1, "l": [2], "zz": 3}, compiled, START) == [("x", 1), first]
    assert written(Update(1), compiled, START) == [("x", 1), first]
    with pytest.raises(InvalidUpdateError, match="input"):
        written("text", compiled, START)


# ---- strict models


class Model(BaseModel):
    x: int
    l: Annotated[list[int], operator.add] = []  # noqa: E741


def test_returns_are_validated_under_strict_only() -> None:
    assert written({"x": "no"}, graph(Model)) == [("x", "no")]
    strict = graph(Model, strict=True)
    assert written({"x": "5", "l": Overwrite([1])}, strict) == [("x", "5"), ("l", Overwrite([1]))]
    with pytest.raises(ValidationError):
        written({"x": "no"}, strict)


# ---- nodes and channels


def test_edges_become_channels() -> None:
    builder = StateGraph(State)
    for name in ("a", "b", "c"):
        builder.add_node(name, no_op)
    builder.add_node("d", no_op, defer=True)
    builder.add_edge(START, "a").add_edge("a", "c").add_edge("a", "b").add_edge("b", END)
    builder.add_edge(["a", "b"], "c").add_edge(["b", "a"], "d").add_edge(["a", "b"], END)
    compiled = builder.compile()
    names = ["x", "l", "last", START, TASKS, *(f"branch:to:{n}" for n in "abcd"), "join:a+b:c", "join:b+a:d"]
    assert [name for name in compiled.channels if name != "last"] == [name for name in names if name != "last"]
    kinds = {name: type(channel) for name, channel in compiled.channels.items()}
    assert kinds["branch:to:a"] is EphemeralValue
    assert kinds["branch:to:d"] is LastValueAfterFinish
    assert kinds["join:a+b:c"] is NamedBarrierValue
    assert kinds["join:b+a:d"] is NamedBarrierValueAfterFinish
    assert written(None, compiled, "a") == [
        ("branch:to:b", None),
        ("branch:to:c", None),
        ("join:a+b:c", "a"),
        ("join:b+a:d", "a"),
    ]
    assert written(None, compiled, "b") == [("join:a+b:c", "b"), ("join:b+a:d", "b")]
    assert compiled.nodes["c"].triggers == ["branch:to:c", "join:a+b:c"]
    assert compiled.nodes[START].tags == [TAG_HIDDEN]
    assert list(compiled.nodes) == [START, "a", "b", "c", "d"]


def test_inputs_outputs_and_streams() -> None:
    class Out(TypedDict):
        l: list[Any]  # noqa: E741

    builder = StateGraph(State, output_schema=Out)
    builder.add_node("n", no_op, input_schema=Narrow)
    builder.add_edge(START, "n")
    compiled = builder.compile()
    assert (compiled.input_channels, compiled.output_channels, compiled.stream_channels) == (START, ["l"], ["x", "l"])
    assert (compiled.stream_mode, compiled.nodes["n"].channels) == ("updates", ["x"])
    bare = graph(list)
    assert (bare.output_channels, bare.stream_channels) == ("__root__", "__root__")


def test_policies_and_defaults() -> None:
    def handler(state: Any) -> None: ...

    retry, other = RetryPolicy(max_attempts=2), RetryPolicy(max_attempts=5)
    builder = StateGraph(State)
    builder.add_node("own", no_op, retry_policy=other, error_handler=handler, metadata={"k": 1})
    builder.add_node("plain", no_op)
    builder.add_edge(START, "own").add_edge(START, "plain")
    builder.set_node_defaults(retry_policy=retry).set_node_defaults(error_handler=handler, timeout=3)
    nodes = builder.compile().nodes
    assert list(nodes) == [START, "__error_handler__own", "own", "plain", "__default_error_handler__"]
    assert (nodes["own"].retry_policy, nodes["plain"].retry_policy) == ((other,), (retry,))
    assert (nodes["own"].error_handler, nodes["plain"].error_handler) == (
        "__error_handler__own",
        "__default_error_handler__",
    )
    assert nodes["__error_handler__own"].is_error_handler
    assert nodes["__error_handler__own"].retry_policy == (retry,)
    assert nodes["__error_handler__own"].error_handler is None
    assert nodes["plain"].timeout.run_timeout == 3
    assert nodes["own"].metadata == {"k": 1}
    assert list(builder.nodes) == ["__error_handler__own", "own", "plain"]


def test_equal_builders_compile_to_equal_wiring() -> None:
    def build(order: int) -> Any:
        builder = StateGraph(State)
        for name in "abc":
            builder.add_node(name, no_op)
        for source, target in [(START, "a"), ("a", "b"), ("a", "c"), ("b", "c")][::order]:
            builder.add_edge(source, target)
        return builder.compile()

    one, two = build(1), build(-1)
    assert [node.write.static for node in list(one.nodes.values())] == [
        node.write.static for node in list(two.nodes.values())
    ]


# ---- what is found and registered


def test_nested_graphs_are_found() -> None:
    inner = graph()
    assert graph(node=inner).nodes["n"].subgraphs == [inner]
    assert graph(node=lambda state: inner.invoke(state)).nodes["n"].subgraphs == [inner]


class OfReturn(BaseModel):
    a: int


class OfField(BaseModel):
    a: int


def test_types_are_registered() -> None:
    @dataclass
    class Local:
        field: OfField

    def node(state: State) -> "OfReturn": ...

    class WithLocal(TypedDict):
        x: Local

    graph(WithLocal, node)
    for cls in (Local, OfField, OfReturn, Model):
        assert registry.lookup_class(cls) is not None, cls


# ---- the compiled graph


def test_coercion_for_the_caller() -> None:
    compiled = graph(Model)
    assert compiled.coerce_output({"x": 1, "l": [2]}) == Model(x=1, l=[2])
    assert compiled.coerce_state(None) is None
    assert graph().coerce_output({"x": 1}) == {"x": 1}


def test_json_schemas() -> None:
    assert graph(Model).get_input_jsonschema() == Model.model_json_schema()
    text = graph(Narrow, name="g").get_output_jsonschema()
    assert text == {
        "properties": {"x": {"title": "X", "type": "integer"}},
        "required": ["x"],
        "title": "Narrow",
        "type": "object",
    }
    bare = graph(Annotated[list[int], operator.add]).get_input_jsonschema()
    assert bare == {"default": None, "items": {"type": "integer"}, "title": "LangGraphInput", "type": "array"}
    data = graph(Update).get_output_jsonschema()
    assert (data["title"], data["required"], data["properties"]["nope"]["default"]) == ("LangGraphOutput", ["x"], 0)
    assert graph(Narrow, name="g").get_input_schema().__name__ == "g_input"
    assert graph(Narrow, name="g").input_schema.model_json_schema()["title"] == "g_input"
    assert graph(Model).get_input_schema() is Model
    assert graph(Model, name="g").output_schema.model_json_schema() == {
        "properties": {
            "x": {"default": None, "title": "X", "type": "integer"},
            "l": {"default": None, "items": {"type": "integer"}, "title": "L", "type": "array"},
        },
        "title": "g_output",
        "type": "object",
    }
    assert graph().get_context_jsonschema() is None


def test_standard_library_typed_dicts_have_json_schemas() -> None:
    import typing

    class Inner(typing.TypedDict):
        b: int

    class Outer(typing.TypedDict, total=False):
        a: typing.Required[list[Inner]]
        c: Annotated[list[Inner], operator.add]

    schema = graph(Outer).get_output_jsonschema()
    assert (schema["title"], schema["required"], list(schema["properties"])) == ("Outer", ["a"], ["a", "c"])
    assert schema["$defs"]["Inner"]["required"] == ["b"]


def test_drawing_shows_the_graph_that_was_compiled() -> None:
    compiled = graph()
    compiled.builder.add_node("late", no_op)
    drawn = compiled.get_graph()
    assert list(drawn.nodes) == [START, "n", "m", END]
    assert [(e.source, e.target) for e in drawn.edges] == [(START, "n"), ("n", "m"), ("m", END)]
