"""`UntrackedValue`."""

import pytest

from pregel.channels.untracked_value import UntrackedValue
from pregel.constants import MISSING
from pregel.errors import EmptyChannelError, InvalidUpdateError


def test_untracked_value_lasts_for_the_run_and_is_never_stored() -> None:
    channel: UntrackedValue[int] = UntrackedValue(int)
    channel.key = "k"
    with pytest.raises(EmptyChannelError):
        channel.get()
    assert channel.update([]) is False
    assert channel.update([1]) is True
    assert channel.update([]) is False
    assert channel.get() == channel.value == 1
    assert channel.checkpoint() is MISSING
    assert channel.dump() is MISSING
    restored = channel.from_checkpoint(9)
    assert (restored.is_available(), restored.key) == (False, "k")
    twin = channel.copy()
    twin.update([2])
    assert (channel.get(), twin.get(), twin.key) == (1, 2, "k")


def test_guard() -> None:
    channel: UntrackedValue[int] = UntrackedValue(int)
    channel.key = "k"
    with pytest.raises(InvalidUpdateError) as caught:
        channel.update([2, 3])
    assert (caught.value.key, caught.value.count) == ("k", 2)
    assert not channel.is_available()
    loose: UntrackedValue[int] = UntrackedValue(int, guard=False)
    assert loose.update([2, 3]) is True
    assert loose.copy().get() == 3
    assert loose.copy().guard is False


def test_equality_and_flags() -> None:
    assert UntrackedValue(int) == UntrackedValue(str)
    assert UntrackedValue(int) != UntrackedValue(int, guard=False)
    assert UntrackedValue(int) != 1
    assert not UntrackedValue.tracked
    assert UntrackedValue.plain_value
    assert UntrackedValue.stages_in_place
    assert not (UntrackedValue.reacts_to_empty)
    assert not (UntrackedValue.can_consume)
    assert not (UntrackedValue.can_finish)
