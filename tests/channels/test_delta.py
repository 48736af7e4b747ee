"""`DeltaChannel`."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pregel.channels.delta import DeltaChannel
from pregel.constants import MISSING
from pregel.errors import EmptyChannelError, InvalidUpdateError
from pregel.types import Overwrite


def extend(state: Any, writes: Any) -> Any:
    return (state or []) + list(writes)


def test_one_reducer_call_for_a_step() -> None:
    calls: list[tuple[Any, Any]] = []

    def reducer(state: Any, writes: Any) -> Any:
        calls.append((state, writes))
        return extend(state, writes)

    channel: DeltaChannel[Any] = DeltaChannel(reducer)
    assert not channel.is_available()
    with pytest.raises(EmptyChannelError):
        channel.get()
    assert channel.update([]) is False
    assert not channel.is_available()
    assert channel.update(["a", "b"]) is True
    assert channel.update(["c"]) is True
    assert calls == [([], ["a", "b"]), (["a", "b"], ["c"])]
    assert channel.get() == channel.value == channel.dump() == ["a", "b", "c"]
    assert channel.checkpoint() is MISSING


def test_overwrite() -> None:
    channel: DeltaChannel[Any] = DeltaChannel(extend)
    channel.key = "k"
    channel.update(["a"])
    given_value = ["x"]
    assert channel.update(["b", Overwrite(given_value), "c"]) is True
    assert channel.get() == ["x"]
    assert channel.get() is not given_value
    assert channel.update([Overwrite(None)]) is True
    assert channel.get() == []
    with pytest.raises(InvalidUpdateError) as caught:
        channel.update([Overwrite([1]), Overwrite([2])])
    assert (caught.value.key, caught.value.count) == ("k", 2)
    assert channel.get() == []


def test_checkpoints() -> None:
    channel: DeltaChannel[Any] = DeltaChannel(extend, dict, snapshot_frequency=7)
    channel.key = "k"
    fresh = channel.from_checkpoint(MISSING)
    assert (fresh.get(), fresh.key, fresh.snapshot_frequency, fresh.typ) == ({}, "k", 7, dict)
    assert channel.from_checkpoint([1]).get() == [1]
    assert not channel.copy().is_available()
    channel.update([1])
    twin = channel.copy()
    twin.update([2])
    assert (channel.dump(), twin.dump(), twin.key) == ([1], [1, 2], "k")


def test_none_is_a_value() -> None:
    seen: list[Any] = []
    channel: DeltaChannel[Any] = DeltaChannel(lambda state, writes: seen.append(state)).from_checkpoint(None)
    assert channel.is_available()
    assert channel.get() is None
    channel.update([1])
    assert seen == [None]


def test_replay() -> None:
    channel: DeltaChannel[Any] = DeltaChannel(extend)
    channel.replay_writes([])
    assert not channel.is_available()
    channel.replay_writes([("t1", "k", "a"), ("t2", "k", "b")])
    assert channel.get() == ["a", "b"]
    channel.replay_writes([("t3", "k", Overwrite(["x"])), ("t4", "k", "y"), ("t5", "k", {"__overwrite__": ["z"]})])
    assert channel.get() == ["z"]
    channel.replay_writes([("t6", "k", "w"), ("t7", "k", Overwrite(None)), ("t8", "k", "v")])
    assert channel.get() == ["v"]


@given(st.lists(st.lists(st.integers(), max_size=3), max_size=5))
def test_replay_equals_the_steps(steps: list[list[int]]) -> None:
    stepped: DeltaChannel[Any] = DeltaChannel(extend).from_checkpoint(MISSING)
    replayed = stepped.copy()
    for writes in steps:
        stepped.update(writes)
    replayed.replay_writes([("t", "k", write) for writes in steps for write in writes])
    assert stepped.get() == replayed.get()


@pytest.mark.parametrize("frequency", [0, -1])
def test_snapshot_frequency(frequency: int) -> None:
    with pytest.raises(ValueError, match=str(frequency)):
        DeltaChannel(extend, snapshot_frequency=frequency)
    assert DeltaChannel(extend).snapshot_frequency == 100


def test_equality_types_and_flags() -> None:
    assert DeltaChannel(extend) == DeltaChannel(extend, dict)
    assert DeltaChannel(extend) != DeltaChannel(extend, snapshot_frequency=5)
    assert DeltaChannel(extend) != DeltaChannel(sorted)
    assert DeltaChannel(lambda s, w: s) == DeltaChannel(lambda s, w: w)
    assert DeltaChannel(extend) != 1
    assert DeltaChannel(extend).ValueType is list
    assert DeltaChannel.plain_value
    assert DeltaChannel.stages_in_place
    assert not (DeltaChannel.reacts_to_empty)
    assert not (DeltaChannel.can_consume)
    assert not (DeltaChannel.can_finish)
