"""`Topic`."""

from collections.abc import Sequence

import pytest

from pregel.channels.topic import Topic
from pregel.constants import MISSING
from pregel.errors import EmptyChannelError


def test_a_topic_holds_the_values_of_the_last_step() -> None:
    channel: Topic[object] = Topic(int)
    assert channel.dump() == []
    with pytest.raises(EmptyChannelError):
        channel.get()
    assert channel.update([]) is False
    assert channel.update([[]]) is False
    assert channel.update([1, [2, 3], (4, 5), None]) is True
    assert channel.get() == [1, 2, 3, (4, 5), None]
    assert channel.last_edit() is None
    assert channel.update([6]) is True
    assert channel.get() == [6]
    assert channel.update([]) is True
    assert not channel.is_available()
    assert channel.update([]) is False


def test_emptying_by_an_empty_write_is_a_change() -> None:
    channel: Topic[int] = Topic(int)
    channel.update([1])
    assert channel.update([[]]) is True
    assert not channel.is_available()


def test_an_accumulating_topic_keeps_all() -> None:
    channel: Topic[int] = Topic(int, accumulate=True)
    assert channel.last_edit() is None
    assert channel.update([1, [2]]) is True
    assert channel.last_edit() == 0
    assert channel.update([3]) is True
    assert channel.last_edit() == 2
    assert channel.update([]) is False
    assert channel.update([[]]) is False
    assert channel.get() == [1, 2, 3]


def test_what_was_handed_out_never_changes() -> None:
    channel: Topic[int] = Topic(int, accumulate=True)
    channel.update([1])
    read, stored, twin = channel.get(), channel.dump(), channel.copy()
    channel.update([2])
    assert (read, stored, twin.get()) == ([1], [1], [1])
    read.append(3)  # type: ignore[attr-defined]
    assert channel.get() == [1, 2]


def test_checkpoints() -> None:
    channel: Topic[int] = Topic(int, True)
    channel.key = "k"
    restored = channel.from_checkpoint([1, 2])
    assert (restored.get(), restored.key, restored.accumulate) == ([1, 2], "k", True)
    assert channel.from_checkpoint(({1}, [2])).get() == [2]
    assert channel.from_checkpoint(MISSING).dump() == []
    assert not channel.from_checkpoint([]).is_available()


def test_stage_changes_nothing() -> None:
    channel: Topic[int] = Topic(int)
    channel.update([1])
    staged = channel.stage([2])
    assert channel.get() == [1]
    assert channel.install(staged)
    assert channel.get() == [2]


def test_types() -> None:
    assert Topic(int).ValueType == Sequence[int]
    assert Topic(int).UpdateType == int | list[int]


def test_equality_and_flags() -> None:
    assert Topic(int) == Topic(str)
    assert Topic(int) != Topic(int, accumulate=True)
    assert Topic(int) != 1
    assert Topic(int).reacts_to_empty
    assert not Topic(int, accumulate=True).reacts_to_empty
    assert Topic.stages_in_place
    assert not (Topic.plain_value)
    assert not (Topic.can_consume)
    assert not (Topic.can_finish)
    assert not hasattr(Topic(int), "__dict__")
