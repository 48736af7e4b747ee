"""`BinaryOperatorAggregate` and the spellings of `Overwrite`."""

import collections.abc
import operator
import typing
from typing import Annotated, Any, NotRequired, Required

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pregel.channels.binop import BinaryOperatorAggregate, bare_type, overwriting, same_reducer, sole_overwrite
from pregel.constants import MISSING
from pregel.errors import EmptyChannelError, ErrorCode, InvalidUpdateError
from pregel.types import Overwrite


class Needy:
    def __init__(self, required: int) -> None: ...


class Unhashable(type):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(cls, other: object) -> bool:
        return cls is other


class Odd(metaclass=Unhashable):
    pass


def aggregate(typ: Any = list, reducer: Any = operator.add) -> BinaryOperatorAggregate[Any]:
    return BinaryOperatorAggregate(typ, reducer)


def test_folding() -> None:
    channel = aggregate(int)
    channel.key = "k"
    assert channel.get() == channel.value == 0
    assert channel.update([]) is False
    assert channel.update([1]) is True
    assert channel.update([2, 3]) is True
    assert channel.get() == channel.dump() == 6
    assert aggregate(str, lambda old, new: old + new + ".").stage(["a", "b"]) == "a.b."


@pytest.mark.parametrize(
    ("typ", "start"),
    [
        (list, []),
        (list[int], []),
        (Annotated[list[str], operator.add], []),
        (Required[Annotated[dict[str, int], operator.or_]], {}),
        (NotRequired[int], 0),
        (collections.abc.Sequence, []),
        (collections.abc.MutableSequence[int], []),
        (typing.Sequence[int], []),
        (collections.abc.Set, set()),
        (collections.abc.MutableSet[int], set()),
        (collections.abc.Mapping[str, int], {}),
        (collections.abc.MutableMapping, {}),
        (int | None, MISSING),
        (Any, MISSING),
        (Needy, MISSING),
    ],
)
def test_what_it_starts_as(typ: Any, start: Any) -> None:
    channel = aggregate(typ)
    assert channel.dump() is start if start is MISSING else channel.dump() == start
    assert channel.is_available() is (start is not MISSING)
    assert channel.typ is channel.ValueType is channel.UpdateType is typ


def test_a_class_that_cannot_be_hashed() -> None:
    assert bare_type(Odd) is Odd
    assert isinstance(aggregate(Odd).get(), Odd)


def test_the_first_write_into_an_empty_channel_is_taken_as_it_is() -> None:
    calls: list[tuple[Any, Any]] = []

    def reducer(old: Any, new: Any) -> Any:
        calls.append((old, new))
        return new

    channel = aggregate(int | None, reducer)
    with pytest.raises(EmptyChannelError):
        channel.get()
    assert channel.update([1]) is True
    assert (channel.get(), calls) == (1, [])
    twin = aggregate(int | None, reducer)
    assert twin.update([1, 2]) is True
    assert calls == [(1, 2)]


@pytest.mark.parametrize(
    "mark", [Overwrite, lambda v: {"__overwrite__": v}, lambda v: {"type": "__overwrite__", "value": v}]
)
def test_overwrite_wins_wherever_it_stands(mark: Any) -> None:
    for writes in ([mark([9])], [[1], mark([9])], [mark([9]), [1]], [[1], mark([9]), [2]]):
        channel = aggregate()
        channel.update([[0]])
        assert channel.update(writes) is True
        assert channel.get() == [9]
        empty = aggregate(list | None)
        assert empty.update(writes) is True
        assert empty.get() == [9]


def test_overwrite_with_none() -> None:
    channel = aggregate()
    assert channel.update([Overwrite(None)])
    assert channel.get() is None
    assert channel.is_available()


def test_two_overwrites_are_refused() -> None:
    channel = aggregate()
    channel.key = "k"
    channel.update([[1]])
    with pytest.raises(InvalidUpdateError) as caught:
        channel.update([Overwrite([2]), [3], {"__overwrite__": [4]}])
    error = caught.value
    assert (error.key, error.count, error.code) == ("k", 2, ErrorCode.INVALID_CONCURRENT_GRAPH_UPDATE)
    assert channel.get() == [1]


@pytest.mark.parametrize(
    "write",
    [
        1,
        {},
        {"__overwrite__": 1, "more": 2},
        {"type": "__overwrite__"},
        {"type": "other", "value": 1},
        {"type": 3, "value": 1},
    ],
)
def test_plain_writes_that_resemble_an_overwrite(write: Any) -> None:
    assert overwriting(write) is MISSING
    assert sole_overwrite("k", [write, write]) is MISSING


def test_a_dict_that_survived_json_may_have_more_keys() -> None:
    assert overwriting({"type": "__overwrite__", "value": 2, "x": 3}) == 2


def test_a_failing_reducer_changes_nothing() -> None:
    channel = aggregate(int)
    channel.update([1])
    with pytest.raises(TypeError):
        channel.update([2, "x"])
    assert channel.get() == 1


def test_stage_then_install() -> None:
    channel = aggregate()
    channel.update([[1]])
    staged = channel.stage([[2]])
    assert channel.get() == [1]
    assert channel.install(staged) is True
    assert channel.get() == [1, 2]
    assert channel.install(channel.stage([])) is False


@pytest.mark.parametrize("reducer", [operator.add, operator.concat])
def test_last_edit_of_concatenation(reducer: Any) -> None:
    channel = aggregate(list, reducer)
    assert channel.last_edit() is None
    channel.update([[1, 2]])
    assert channel.last_edit() == 0
    channel.update([[3], [4]])
    assert channel.last_edit() == 2
    channel.update([Overwrite([1, 2, 3, 4, 5])])
    assert channel.last_edit() is None
    channel.update([[]])
    assert channel.last_edit() == 5
    text = aggregate(str, reducer)
    text.update(["ab"])
    text.update(["c"])
    assert text.last_edit() == 2
    empty = aggregate(list | None, reducer)
    empty.update([[1]])
    assert empty.last_edit() is None


def test_last_edit_does_not_trust_a_subclass_with_its_own_sum() -> None:
    class Front(list[int]):
        def __radd__(self, other: Any) -> Any:
            return [*self, *other]

    channel = aggregate()
    channel.update([[1]])
    channel.update([Front([2])])
    assert (channel.get(), channel.last_edit()) == ([2, 1], None)
    channel.update([[0], Front([3])])
    assert (channel.get(), channel.last_edit()) == ([3, 2, 1, 0], None)


def test_last_edit_of_numbers_and_unknown_reducers() -> None:
    numbers = aggregate(int)
    numbers.update([1])
    assert numbers.last_edit() is None
    unknown = aggregate(list, lambda old, new: old + new)
    unknown.update([[1]])
    assert unknown.last_edit() is None


def test_what_another_value_took_the_place_of() -> None:
    channel = aggregate(list, lambda old, new: new)
    assert channel.replaced() is MISSING

    def after(change: Any) -> Any:
        before = channel.value
        channel.update([change(before)])
        assert channel.last_edit() is None
        found = channel.replaced()
        assert found is before or found is MISSING
        return found

    item = {"a": 1}
    assert after(lambda old: [item]) == []
    assert after(lambda old: [*old, item]) == [item]
    assert after(lambda old: old) is MISSING
    assert after(lambda old: tuple(old)) is MISSING
    assert after(lambda old: {}) is MISSING
    assert after(lambda old: {"k": item}) == {}
    assert after(lambda old: "text") is MISSING
    assert after(lambda old: old + "!") == "text"
    channel.update([Overwrite("other")])
    assert (channel.last_edit(), channel.replaced()) == (None, "text!")
    assert channel.copy().replaced() is MISSING


def test_what_may_have_been_edited_says_nothing_about_what_took_its_place() -> None:
    """Equal objects at equal places are no news of a list if the reducer, or a node, had them in its hands."""

    def edit(old: Any, new: Any) -> Any:
        old[0].update(new)
        return list(old)

    channel = aggregate(list, edit)
    channel.update([Overwrite([{"n": 0}])])
    channel.update([{"n": 1}])
    assert (channel.get(), channel.replaced()) == ([{"n": 1}], MISSING)
    plain = aggregate()
    plain.update([[{"n": 0}]])
    edited = list(plain.get())
    edited[0]["n"] = 1
    for write in (Overwrite(edited), {"__overwrite__": edited}):
        plain.update([write])
        assert (plain.get(), plain.last_edit(), plain.replaced()) == (edited, None, MISSING)


def test_copies() -> None:
    channel = aggregate()
    channel.key = "k"
    channel.update([[1]])
    for twin in (channel.copy(), channel.from_checkpoint(channel.dump())):
        assert (twin.key, twin.get() is channel.get()) == ("k", True)
        twin.update([[2]])
    assert channel.get() == [1]
    assert channel.from_checkpoint(MISSING).get() == []
    assert channel.from_checkpoint(None).get() is None


def test_equality() -> None:
    def other(old: Any, new: Any) -> Any: ...

    assert aggregate() == aggregate(str)
    assert aggregate() != aggregate(list, other)
    assert aggregate(list, lambda a, b: a) == aggregate(list, lambda a, b: b)
    assert aggregate(list, lambda a, b: a) == aggregate()
    assert aggregate() != 1
    assert same_reducer(other, other)
    assert not same_reducer(other, operator.add)


def test_flags() -> None:
    kind = BinaryOperatorAggregate
    assert kind.plain_value
    assert kind.stages_in_place
    assert not (kind.reacts_to_empty)
    assert not (kind.can_consume)
    assert not (kind.can_finish)
    assert not hasattr(aggregate(), "__dict__")


@given(st.lists(st.lists(st.lists(st.integers(), max_size=3), max_size=3), max_size=6))
def test_an_edit_never_lies(steps: list[list[list[int]]]) -> None:
    channel = aggregate()
    expected: list[int] = []
    for writes in steps:
        before = channel.get()
        changed = channel.update(writes)
        expected = expected + [item for write in writes for item in write]
        assert channel.get() == expected
        assert changed is bool(writes)
        if changed:
            assert channel.last_edit() == len(before)
            assert channel.get()[: len(before)] == before
