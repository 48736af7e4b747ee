"""States: TypedDict, dataclass, pydantic, bare values; reducers; private, input and output schemas."""

import operator
from collections import deque
from dataclasses import dataclass, field
from typing import Annotated, Any, NotRequired, Required

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator
from typing_extensions import TypedDict

from pregel.channels import EphemeralValue, Topic, UntrackedValue
from pregel.graph import START, StateGraph
from pregel.graph.message import add_messages
from pregel.types import Send
from tests.support.scenarios import Colour


def chain(colour: Colour, schema: Any, *nodes: Any, **options: Any) -> Any:
    """A graph that runs the nodes one after the other."""
    builder = StateGraph(schema, **options)
    builder.add_sequence([(f"n{i}", colour.node(node)) for i, node in enumerate(nodes)])
    return builder.add_edge(START, "n0").compile()


@dataclass
class Person:
    """A state with a default, a reducer and an optional field."""

    name: str
    count: int = 0
    tags: Annotated[list[str], operator.add] = field(default_factory=list)
    note: str | None = None


class Profile(BaseModel):
    """A state that validates."""

    name: str
    age: int = Field(default=1, gt=0)
    tags: Annotated[list[str], operator.add] = []

    @field_validator("name")
    @classmethod
    def check_name(cls, value: str) -> str:
        if value == "nobody":
            raise ValueError("a name is needed")
        return value


def dataclass_state(colour: Colour) -> None:
    def greet(state: Person) -> dict[str, Any]:
        assert isinstance(state, Person)
        return {"count": state.count + 1, "tags": [state.name]}

    def shout(state: Person) -> Person:
        return Person(name=state.name.upper(), count=state.count + 1, tags=["again"])

    graph = chain(colour, Person, greet, shout)
    expected = {"name": "BOB", "count": 2, "tags": ["bob", "again"], "note": None}
    assert colour.invoke(graph, {"name": "bob"}) == expected
    again = colour.invoke(graph, Person(name="bob", count=5, tags=["t"]))
    assert again == {**expected, "count": 7, "tags": ["t", "bob", "again"]}
    with pytest.raises(TypeError):
        colour.invoke(graph, {"count": 1})


def pydantic_state(colour: Colour) -> None:
    def older(state: Profile) -> dict[str, Any]:
        return {"age": state.age + 1, "tags": [type(state.age).__name__]}

    graph = chain(colour, Profile, older, lambda state: {"name": state.name + "!"})
    assert colour.invoke(graph, {"name": "x", "age": "41"}) == {"name": "x!", "age": 42, "tags": ["int"]}
    assert colour.invoke(graph, Profile(name="y")) == {"name": "y!", "age": 2, "tags": ["int"]}
    for wrong in ({"name": 3}, {"age": 3}, {"name": "x", "age": -1}, {"name": "nobody"}):
        with pytest.raises(ValidationError):
            colour.invoke(graph, wrong)
    between = chain(colour, Profile, lambda state: {"age": "old"}, older)
    with pytest.raises(ValidationError):
        colour.invoke(between, {"name": "x"})
    assert colour.invoke(chain(colour, Profile, lambda state: {"age": "old"}), {"name": "x"})["age"] == "old"


def models_in_models(colour: Colour) -> None:
    class Address(BaseModel):
        city: str
        zip: int

    class Resident(BaseModel):
        name: str
        address: Address

    class State(BaseModel):
        person: Resident
        note: str | None = None

    def describe(state: State) -> dict[str, Any]:
        return {"note": f"{state.person.name} in {state.person.address.city} {state.person.address.zip + 1}"}

    given = {"person": {"name": "a", "address": {"city": "B", "zip": "1"}}}
    assert colour.invoke(chain(colour, State, describe), given) == {**given, "note": "a in B 2"}


def reducers_of_all_kinds(colour: Colour) -> None:
    def merge(left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
        return {**(left or {}), **right}

    def last_three(left: list[int] | None, right: list[int]) -> list[int]:
        return ((left or []) + right)[-3:]

    def newest_two(left: deque[int], right: deque[int]) -> deque[int]:
        return deque([*left, *right], maxlen=2)

    class State(TypedDict):
        members: Annotated[set[int], operator.or_]
        table: Annotated[dict[str, int], merge]
        total: Annotated[int, operator.add]
        text: Annotated[str, operator.add]
        recent: Annotated[list[int], last_three]
        pair: Annotated[deque[int], newest_two]
        place: tuple[int, int]

    def node(number: int) -> Any:
        return lambda state: {
            "members": {number},
            "table": {str(number): number, "last": number},
            "total": number,
            "text": str(number),
            "recent": [number, number],
            "pair": deque([number]),
            "place": (number, number),
        }

    graph = chain(colour, State, node(1), node(2))
    assert colour.invoke(graph, {"total": 10, "place": (0, 0)}) == {
        "members": {1, 2},
        "table": {"1": 1, "last": 2, "2": 2},
        "total": 13,
        "text": "12",
        "recent": [1, 2, 2],
        "pair": deque([1, 2]),
        "place": (2, 2),
    }


def first_write_into_a_key_that_starts_empty(colour: Colour) -> None:
    class State(TypedDict):
        log: Annotated[list[int] | None, lambda left, right: (left or []) + right]
        any: Annotated[Any, lambda left, right: [left, right]]

    seen: list[dict[str, Any]] = []

    def node(state: State) -> dict[str, Any]:
        seen.append(dict(state))
        return {"log": [1], "any": 1}

    assert colour.invoke(chain(colour, State, node, node), {"log": [0]}) == {"log": [0, 1, 1], "any": [1, 1]}
    assert seen == [{"log": [0]}, {"log": [0, 1], "any": 1}]


def channels_in_annotations(colour: Colour) -> None:
    class State(TypedDict):
        once: Annotated[str, EphemeralValue]
        untracked: Annotated[str, UntrackedValue]
        topic: Annotated[list[str], Topic]
        kept: Annotated[list[str], Topic(str, accumulate=True)]
        last: str

    seen: list[dict[str, Any]] = []

    def first(state: State) -> dict[str, Any]:
        seen.append(dict(state))
        return {"once": "e", "untracked": "u", "topic": "t", "kept": ["1", "2"]}

    def second(state: State) -> dict[str, Any]:
        seen.append(dict(state))
        return {"kept": "3"}

    def third(state: State) -> dict[str, Any]:
        seen.append(dict(state))
        return {"last": "end"}

    result = colour.invoke(chain(colour, State, first, second, third), {"last": "in", "once": "given"})
    assert seen == [
        {"once": "given", "last": "in"},
        {"once": "e", "untracked": "u", "topic": ["t"], "kept": ["1", "2"], "last": "in"},
        {"untracked": "u", "kept": ["1", "2", "3"], "last": "in"},
    ]
    assert result == {"untracked": "u", "kept": ["1", "2", "3"], "last": "end"}


def input_output_and_private_schemas(colour: Colour) -> None:
    class Input(TypedDict):
        user_input: str

    class Output(TypedDict):
        answer: str

    class Overall(TypedDict):
        foo: str
        user_input: str
        answer: str

    class Private(TypedDict):
        bar: str

    seen: list[list[str]] = []

    def first(state: Input) -> Overall:
        return {"foo": state["user_input"] + " name"}  # type: ignore[typeddict-item]

    def second(state: Overall) -> Private:
        seen.append(sorted(state))
        return {"bar": state["foo"] + " is"}

    def third(state: Private) -> Output:
        seen.append(sorted(state))
        return {"answer": state["bar"] + " Lance"}

    builder = StateGraph(Overall, input_schema=Input, output_schema=Output)
    for name, node, schema in (("first", first, Input), ("second", second, Overall), ("third", third, Private)):
        builder.add_node(name, colour.node(node), input_schema=schema)
    builder.add_edge(START, "first").add_edge("first", "second").add_edge("second", "third")
    graph = builder.compile()
    assert colour.invoke(graph, {"user_input": "My", "foo": "not mine", "other": 1}) == {"answer": "My name is Lance"}
    assert seen == [["foo", "user_input"], ["bar"]]
    assert list(graph.get_input_jsonschema()["properties"]) == ["user_input"]
    assert list(graph.get_output_jsonschema()["properties"]) == ["answer"]
    assert colour.invoke(graph, {"user_input": "My"}, output_keys="foo") == "My name"


def bare_values_as_state(colour: Colour) -> None:
    def texts(messages: Any) -> list[tuple[str, str]]:
        return [(message.type, message.content) for message in messages]

    listed = chain(colour, Annotated[list, operator.add], lambda s: ["a"], lambda s: ["b", len(s)])
    assert colour.invoke(listed, ["in"]) == ["in", "a", "b", 2]
    chat = chain(colour, Annotated[list, add_messages], lambda s: [("ai", f"re: {s[-1].content}")])
    assert texts(colour.invoke(chat, "hey")) == [("human", "hey"), ("ai", "re: hey")]
    counter = StateGraph(int).add_node("n", colour.node(lambda s: s + 1)).add_edge(START, "n")
    counter.add_conditional_edges("n", lambda s: "n" if s < 5 else "__end__")
    assert colour.stream(counter.compile(), 1, stream_mode="values") == [1, 2, 3, 4, 5]


def keys_that_need_not_be_there(colour: Colour) -> None:
    class State(TypedDict, total=False):
        a: Required[str]
        b: NotRequired[Annotated[list[int], operator.add]]
        c: Annotated[NotRequired[int], "a note"]

    graph = chain(colour, State, lambda state: {"b": [len(state)]})
    assert colour.invoke(graph, {"a": "1"}) == {"a": "1", "b": [2]}
    schema = graph.get_input_jsonschema()
    assert (list(schema["properties"]), schema["required"]) == (["a", "b", "c"], ["a"])


def falsy_values_are_values(colour: Colour) -> None:
    class State(TypedDict):
        a: int | None
        b: list[Any]
        c: str

    graph = chain(
        colour, State, lambda state: {"a": None, "b": [], "c": ""}, lambda state: {"b": [state["a"], state["c"]]}
    )
    assert colour.invoke(graph, {"a": 1, "b": [1], "c": "x"}) == {"a": None, "b": [None, ""], "c": ""}


def send_arguments_of_any_type(colour: Colour) -> None:
    class Job(BaseModel):
        number: int

    class State(TypedDict):
        seen: Annotated[list[Any], operator.add]

    builder = StateGraph(State)
    builder.add_node("raw", colour.node(lambda arg: {"seen": [arg]}))
    builder.add_node("job", colour.node(lambda job: {"seen": [job.number]}), input_schema=Job)
    args = [Send("raw", 5), Send("raw", "text"), Send("raw", None), Send("raw", (1, 2))]
    jobs = [Send("job", Job(number=1)), Send("job", Job(number=2))]
    builder.add_conditional_edges(START, lambda state: [*args, *jobs], ["raw", "job"])
    assert colour.invoke(builder.compile(), {"seen": []})["seen"] == [5, "text", None, (1, 2), 1, 2]
