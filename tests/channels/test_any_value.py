"""`AnyValue`."""

import pytest

from pregel.channels.any_value import AnyValue
from pregel.channels.last_value import LastValue
from pregel.constants import MISSING
from pregel.errors import EmptyChannelError


def test_any_value() -> None:
    channel: AnyValue[int] = AnyValue(int, "k")
    assert channel.update([]) is False
    assert channel.update([1, 2]) is True
    assert channel.get() == channel.value == channel.dump() == 2
    assert channel.update([3]) is True
    assert channel.update([]) is True
    assert not channel.is_available()
    with pytest.raises(EmptyChannelError):
        channel.get()
    assert channel.update([]) is False
    assert channel.dump() is MISSING


def test_any_value_copies() -> None:
    channel: AnyValue[int] = AnyValue(int, "k")
    channel.update([1])
    twin = channel.copy()
    twin.update([])
    assert (channel.get(), twin.key) == (1, "k")
    assert channel.from_checkpoint(7).get() == 7
    assert not channel.from_checkpoint(MISSING).is_available()


def test_any_value_equality_and_flags() -> None:
    assert AnyValue(int) == AnyValue(str)
    assert AnyValue(int) != LastValue(int)
    assert AnyValue.reacts_to_empty
    assert AnyValue.plain_value
    assert AnyValue.stages_in_place
    assert not (AnyValue.can_consume)
    assert not (AnyValue.can_finish)
    assert not hasattr(AnyValue(int), "__dict__")
