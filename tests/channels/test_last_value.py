"""`LastValue` and `LastValueAfterFinish`."""

from typing import Annotated

import pytest

from pregel.channels.any_value import AnyValue
from pregel.channels.last_value import LastValue, LastValueAfterFinish
from pregel.constants import MISSING
from pregel.errors import EmptyChannelError, InvalidUpdateError


def test_last_value() -> None:
    channel: LastValue[int | None] = LastValue(int, "k")
    assert not channel.is_available()
    with pytest.raises(EmptyChannelError):
        channel.get()
    assert channel.dump() is MISSING
    assert channel.update([1]) is True
    assert channel.get() == channel.value == channel.checkpoint() == 1
    assert channel.update([]) is False
    assert channel.get() == 1
    assert channel.update([None]) is True
    assert channel.is_available()
    assert channel.get() is None
    assert not channel.consume()
    assert not channel.finish()


def test_last_value_refuses_two_and_keeps_the_old_one() -> None:
    channel: LastValue[int] = LastValue(int, "k")
    channel.update([1])
    with pytest.raises(InvalidUpdateError) as caught:
        channel.update([2, 3])
    assert (caught.value.key, caught.value.count) == ("k", 2)
    assert "'k'" in str(caught.value)
    assert "INVALID_CONCURRENT_GRAPH_UPDATE" in str(caught.value)
    assert channel.get() == 1


def test_last_value_stage_changes_nothing() -> None:
    channel: LastValue[int] = LastValue(int)
    channel.update([1])
    staged = channel.stage([2])
    assert channel.get() == 1
    assert channel.install(staged)
    assert channel.get() == 2
    assert not channel.install(channel.stage([]))


def test_last_value_copies_and_checkpoints() -> None:
    channel: LastValue[list[int]] = LastValue(list, "k")
    value = [1]
    channel.update([value])
    for twin in (channel.copy(), channel.from_checkpoint(channel.dump())):
        assert twin.key == "k"
        assert twin.get() is value
        twin.update([[2]])
    assert channel.get() is value
    assert not channel.from_checkpoint(MISSING).is_available()


def test_last_value_equality_ignores_the_type() -> None:
    assert LastValue(int) == LastValue(str)
    assert LastValue(int) != AnyValue(int)
    assert LastValue(int) != LastValueAfterFinish(int)
    assert LastValueAfterFinish(int) == LastValueAfterFinish(str)
    assert LastValueAfterFinish(int) != LastValue(int)
    with pytest.raises(TypeError):
        hash(LastValue(int))


def test_types_are_those_given() -> None:
    typ = Annotated[int, "x"]
    channel: LastValue[int] = LastValue(typ)
    assert channel.typ == channel.ValueType == channel.UpdateType == typ


def test_flags() -> None:
    assert LastValue.plain_value
    assert LastValue.stages_in_place
    assert not (LastValue.reacts_to_empty)
    assert not (LastValue.can_consume)
    assert not (LastValue.can_finish)
    assert not LastValueAfterFinish.plain_value
    assert LastValueAfterFinish.can_consume
    assert LastValueAfterFinish.can_finish
    assert not LastValueAfterFinish.reacts_to_empty
    assert not hasattr(LastValue(int), "__dict__")


def test_after_finish_worked_sequence() -> None:
    channel: LastValueAfterFinish[int] = LastValueAfterFinish(int, "k")
    assert channel.update([1, 2]) is True
    assert not channel.is_available()
    with pytest.raises(EmptyChannelError):
        channel.get()
    assert channel.checkpoint() == (2, False)
    assert channel.finish() is True
    assert channel.get() == 2
    assert channel.finish() is False
    assert channel.update([3]) is True
    assert not channel.is_available()
    assert channel.consume() is False
    assert channel.finish() is True
    assert channel.consume() is True
    assert channel.checkpoint() is MISSING
    assert channel.finish() is False
    assert channel.update([]) is False
    with pytest.raises(EmptyChannelError):
        channel.get()


def test_after_finish_restores_both_parts() -> None:
    channel: LastValueAfterFinish[int] = LastValueAfterFinish(int, "k")
    assert not channel.from_checkpoint(MISSING).finish()
    channel.update([1])
    held = channel.from_checkpoint(channel.dump())
    assert (held.key, held.is_available()) == ("k", False)
    channel.finish()
    released = channel.copy()
    assert released.get() == 1
    assert channel.from_checkpoint((None, True)).get() is None


def test_after_finish_consumed_between_stage_and_install() -> None:
    channel: LastValueAfterFinish[int] = LastValueAfterFinish(int)
    channel.update([1])
    channel.finish()
    staged = channel.stage([2])
    assert channel.consume()
    assert channel.install(staged)
    assert channel.checkpoint() == (2, False)
