"""Schemas to channels, values to objects, objects to updates."""

import operator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, NotRequired, Optional, TypedDict, TypeVar

import pytest
import typing_extensions
from pydantic import BaseModel, Field, ValidationError

from pregel.channels import BinaryOperatorAggregate, DeltaChannel, EphemeralValue, LastValue, Topic, UntrackedValue
from pregel.constants import MISSING
from pregel.graph.schema import describe, plain, same_channel, updates_of
from pregel.managed import IsLastStep, IsLastStepManager, RemainingSteps, RemainingStepsManager


def kinds(schema: Any) -> dict[str, type]:
    return {name: type(channel) for name, channel in describe(schema).channels.items()}


class Plain(TypedDict):
    x: int
    doc: Annotated[int, "documented"]


class State(Plain, total=False):
    l: Annotated[list[int], operator.add]  # noqa: E741
    maybe: NotRequired[Annotated[list[int], operator.add]]
    inner: Annotated[typing_extensions.NotRequired[list[int]], "first", operator.add]
    seen: Annotated[list[int], Topic]
    own: Annotated[str, UntrackedValue(str)]
    delta: Annotated[dict[str, int], DeltaChannel(lambda old, new: old)]
    last: IsLastStep
    left: NotRequired[RemainingSteps]
    perhaps: Optional[RemainingSteps]  # noqa: UP045


def test_typed_dict_fields() -> None:
    found = describe(State)
    assert kinds(State) == {
        "x": LastValue,
        "doc": LastValue,
        "l": BinaryOperatorAggregate,
        "maybe": BinaryOperatorAggregate,
        "inner": BinaryOperatorAggregate,
        "seen": Topic,
        "own": UntrackedValue,
        "delta": DeltaChannel,
    }
    assert found.managed == {"last": IsLastStepManager, "left": RemainingStepsManager, "perhaps": RemainingStepsManager}
    assert found.keys == ("x", "doc", "l", "maybe", "inner", "seen", "own", "delta", "last", "left", "perhaps")
    assert (found.is_root, found.mapper) == (False, None)
    assert {name: channel.key for name, channel in found.channels.items()} == {name: name for name in found.channels}
    assert found.channels["inner"].value == []
    assert found.channels["delta"].typ == dict[str, int]


def test_a_schema_is_read_once() -> None:
    assert describe(State) is describe(State)
    assert describe(Annotated[list, operator.add]).channels["__root__"].value == []
    unhashable = Annotated[list, [], operator.add]
    assert kinds(unhashable) == {"__root__": BinaryOperatorAggregate}


def test_a_channel_instance_serves_several_keys() -> None:
    shared = EphemeralValue(int)

    class Two(TypedDict):
        a: Annotated[int, shared]
        b: Annotated[int, shared]

    channels = describe(Two).channels
    assert (channels["a"].key, channels["b"].key, shared.key) == ("a", "b", "")


@pytest.mark.parametrize("schema", [list, int, list[int], Annotated[list, operator.add], int | None])
def test_bare_states(schema: Any) -> None:
    found = describe(schema)
    assert (found.is_root, found.keys, list(found.channels)) == (True, ("__root__",), ["__root__"])


def test_bare_state_of_a_user_class_that_extends_a_builtin() -> None:
    class Numbers(list[int]):
        pass

    assert describe(Numbers).is_root


def test_root_key_spelled_out() -> None:
    alone = typing_extensions.TypedDict("alone", {"__root__": Annotated[list, operator.add]})
    beside = typing_extensions.TypedDict("beside", {"__root__": list, "x": int})
    assert describe(alone).is_root
    assert not describe(beside).is_root


def test_managed_value_as_whole_state_is_refused() -> None:
    with pytest.raises(ValueError, match="managed"):
        describe(IsLastStep)


def test_reducers_take_two_arguments() -> None:
    def one(a: Any) -> Any: ...
    def more(a: Any, b: Any, *rest: Any, flag: bool = False) -> Any: ...

    with pytest.raises(ValueError, match=r"'k'.*one"):
        describe(TypedDict("Bad", {"k": Annotated[int, one]}))  # type: ignore[operator]
    assert kinds(TypedDict("Good", {"k": Annotated[int, more], "m": Annotated[int, max]}))  # type: ignore[operator]


def test_same_channel() -> None:
    def of(annotation: Any) -> Any:
        return describe(annotation).channels["__root__"]

    def f(a: Any, b: Any) -> Any: ...

    assert same_channel(of(Annotated[list, operator.add]), of(Annotated[tuple, operator.add]))
    assert same_channel(of(Annotated[list, lambda a, b: a]), of(Annotated[list, lambda a, b: b]))
    assert not same_channel(of(Annotated[list, operator.add]), of(Annotated[list, f]))
    assert not same_channel(of(list), of(Annotated[list, f]))


# ---- classes with constructors


@dataclass
class Data:
    x: int
    l: Annotated[list[int], operator.add] = field(default_factory=lambda: [7])  # noqa: E741
    word: str = "w"
    count: Annotated[int, operator.add] = 5
    size: int = field(default=0, init=False)
    shared: ClassVar[int] = 1


class Model(BaseModel):
    x: int
    l: Annotated[list[int], operator.add] = Field(default_factory=lambda: [7], max_length=9)  # noqa: E741
    word: str | None = None
    count: Annotated[int, operator.add] = 5
    limit: ClassVar[int] = 3


def test_dataclass() -> None:
    found = describe(Data)
    assert found.keys == ("x", "l", "word", "count", "size")
    assert found.mapper is not None
    assert found.mapper({"x": 1, "size": 3}) == Data(1)
    with pytest.raises(TypeError):
        found.mapper({})


def test_model() -> None:
    found = describe(Model)
    assert found.keys == ("x", "l", "word", "count")
    assert kinds(Model)["l"] is not LastValue
    assert found.mapper is not None
    assert found.mapper({"x": "1"}).x == 1
    with pytest.raises(ValidationError):
        found.mapper({"x": "one"})


@pytest.mark.parametrize("schema", [Data, Model])
def test_declared_defaults_start_reducer_keys_and_no_others(schema: Any) -> None:
    channels = describe(schema).channels
    fresh = {name: channel.from_checkpoint(MISSING) for name, channel in channels.items()}
    assert (fresh["l"].get(), fresh["count"].get()) == ([7], 5)
    assert not fresh["word"].is_available()
    assert fresh["l"].from_checkpoint([1]).get() == [1]
    assert fresh["l"].copy().get() == [7]
    fresh["l"].update([[8]])
    assert fresh["l"].get() == [7, 8]
    assert channels["l"].from_checkpoint(MISSING).get() == [7]
    assert fresh["l"].key == "l"


T = TypeVar("T")


class GenericModel(BaseModel, Generic[T]):
    x: T
    l: Annotated[list[T], operator.add] = []  # noqa: E741


class GenericDict(typing_extensions.TypedDict, Generic[T]):
    x: T


def test_generic_schemas() -> None:
    found = describe(GenericModel[int])
    assert kinds(GenericModel[int])["l"] is not LastValue
    assert found.mapper is not None
    assert found.mapper({"x": "3"}).x == 3
    assert describe(GenericDict[int]).keys == ("x",)


def test_plain_annotated_class_gives_a_dict() -> None:
    class Annotations:
        a: int
        l: Annotated[list, operator.add]  # noqa: E741

    assert describe(Annotations).keys == ("a", "l")
    assert describe(Annotations).mapper is None


# ---- returned objects


class Returned(BaseModel):
    x: int
    listed: list[int] = []
    seven: int = 7
    nothing: int | None = None
    made: list[int] = Field(default_factory=list)


KEYS = ("x", "listed", "seven", "nothing", "made")


def test_updates_of_a_model() -> None:
    assert updates_of(Returned(x=5), KEYS) == [("x", 5), ("listed", []), ("seven", 7), ("made", [])]
    assert updates_of(Returned(x=5, nothing=None), KEYS) is not None
    assert ("nothing", None) in (updates_of(Returned(x=5, nothing=None), KEYS) or ())
    assert updates_of(Returned(x=5), ("x", "other")) == [("x", 5)]


def test_updates_of_other_objects() -> None:
    class Bare:
        a: int
        b: int
        c: int

        def __init__(self) -> None:
            self.a, self.b = 1, None  # type: ignore[assignment]

    class Pair(NamedTuple):
        a: int
        z: int

    class Below(Bare):
        pass

    assert updates_of(Data(1), ("x", "word", "shared", "nope")) == [("x", 1), ("word", "w"), ("shared", 1)]
    assert updates_of(Bare(), ("a", "b", "c")) == [("a", 1), ("b", None)]
    assert updates_of(Below(), ("a",)) == [("a", 1)]
    assert updates_of(Pair(1, 2), ("a",)) == [("a", 1)]


@pytest.mark.parametrize("value", [5, "text", [], [{}], (1, 2), object()])
def test_other_values_are_no_updates(value: Any) -> None:
    assert updates_of(value, KEYS) is None


# ---- names


def test_names() -> None:
    class Name(str):
        __slots__ = ()

    assert type(plain(Name("a"))) is str
    assert plain(5) == 5
