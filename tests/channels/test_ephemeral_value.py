"""`EphemeralValue`."""

import pytest

from pregel.channels.ephemeral_value import EphemeralValue
from pregel.constants import MISSING
from pregel.errors import EmptyChannelError, InvalidUpdateError


def test_ephemeral_value_lasts_one_step() -> None:
    channel: EphemeralValue[int | None] = EphemeralValue(int)
    assert channel.update([]) is False
    assert channel.update([None]) is True
    assert channel.is_available()
    assert channel.update([1]) is True
    assert channel.get() == channel.value == channel.dump() == 1
    assert channel.update([]) is True
    assert channel.dump() is MISSING
    with pytest.raises(EmptyChannelError):
        channel.get()


def test_guard() -> None:
    channel: EphemeralValue[int] = EphemeralValue(int)
    channel.key = "k"
    channel.update([1])
    with pytest.raises(InvalidUpdateError) as caught:
        channel.update([2, 3])
    assert (caught.value.key, caught.value.count) == ("k", 2)
    assert "guard=False" in str(caught.value)
    assert channel.get() == 1
    loose: EphemeralValue[int] = EphemeralValue(int, guard=False)
    assert loose.update([2, 3]) is True
    assert loose.get() == 3


def test_copies_keep_guard_and_key() -> None:
    channel: EphemeralValue[int] = EphemeralValue(int, False)
    channel.key = "k"
    channel.update([1])
    twin = channel.copy()
    twin.update([])
    assert (channel.get(), twin.key, twin.guard) == (1, "k", False)
    assert not channel.from_checkpoint(MISSING).is_available()


def test_equality_and_flags() -> None:
    assert EphemeralValue(int) == EphemeralValue(str)
    assert EphemeralValue(int) != EphemeralValue(int, guard=False)
    assert EphemeralValue(int) != 1
    assert EphemeralValue.reacts_to_empty
    assert EphemeralValue.plain_value
    assert EphemeralValue.stages_in_place
    assert not (EphemeralValue.can_consume)
    assert not (EphemeralValue.can_finish)
    assert not hasattr(EphemeralValue(int), "__dict__")
