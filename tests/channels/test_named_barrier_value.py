"""`NamedBarrierValue` and `NamedBarrierValueAfterFinish`."""

import pytest

from pregel.channels.named_barrier_value import InclusiveBarrierValue, NamedBarrierValue, NamedBarrierValueAfterFinish
from pregel.constants import MISSING
from pregel.errors import EmptyChannelError, InvalidUpdateError

KINDS = (NamedBarrierValue, NamedBarrierValueAfterFinish, InclusiveBarrierValue)


def test_barrier_sequence() -> None:
    channel: NamedBarrierValue[str] = NamedBarrierValue(str, {"a", "b"})
    assert channel.update([]) is False
    assert channel.update(["a", "a"]) is True
    assert channel.update(["a"]) is False
    assert not channel.is_available()
    with pytest.raises(EmptyChannelError):
        channel.get()
    assert channel.consume() is False
    assert channel.update(["b"]) is True
    assert channel.is_available()
    channel.get()
    assert channel.finish() is False
    assert channel.dump() == {"a", "b"}
    assert channel.consume() is True
    assert channel.dump() == set()
    assert not channel.is_available()


def test_barrier_after_finish_sequence() -> None:
    channel: NamedBarrierValueAfterFinish[str] = NamedBarrierValueAfterFinish(str, {"a", "b"})
    assert channel.update(["a"]) is True
    assert channel.finish() is False
    assert channel.update(["b"]) is True
    assert channel.update(["b"]) is False
    assert not channel.is_available()
    with pytest.raises(EmptyChannelError):
        channel.get()
    assert channel.consume() is False
    assert channel.finish() is True
    assert channel.finish() is False
    assert channel.is_available()
    channel.get()
    assert channel.dump() == ({"a", "b"}, True)
    assert channel.consume() is True
    assert channel.dump() == (set(), False)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_is_refused_and_nothing_noted(kind: type) -> None:
    channel = kind(str, {"a", "b"})
    channel.key = "join"
    with pytest.raises(InvalidUpdateError) as caught:
        channel.update(["a", "z"])
    for part in ("'join'", "'z'", "['a', 'b']"):
        assert part in str(caught.value)
    assert channel.seen == set()


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_are_not_edited_later(kind: type) -> None:
    channel = kind(str, {"a", "b"})
    channel.key = "k"
    channel.update(["a"])
    stored = channel.dump()
    restored, twin = channel.from_checkpoint(stored), channel.copy()
    assert restored.update(["b"]) is True
    assert (restored.key, restored.seen, channel.seen, twin.seen) == ("k", {"a", "b"}, {"a"}, {"a"})
    assert stored == channel.dump()
    assert channel.from_checkpoint(MISSING).seen == set()


def test_after_finish_restores_its_release() -> None:
    channel: NamedBarrierValueAfterFinish[str] = NamedBarrierValueAfterFinish(str, {"a"})
    assert channel.from_checkpoint(({"a"}, True)).is_available()
    assert not channel.from_checkpoint(({"a"}, False)).is_available()
    assert not channel.from_checkpoint((set(), True)).is_available()


def test_consumed_between_stage_and_install() -> None:
    channel: NamedBarrierValue[str] = NamedBarrierValue(str, {"a", "b"})
    channel.update(["a", "b"])
    staged = channel.stage(["a"])
    assert channel.seen == {"a", "b"}
    assert channel.consume()
    assert channel.install(staged)
    assert channel.seen == {"a"}


def test_types_equality_and_flags() -> None:
    for kind in KINDS:
        assert (kind(str, {"a"}).ValueType, kind(str, {"a"}).UpdateType) == (str, str)
        assert kind(str, {"a"}) == kind(int, {"a"})
        assert kind(str, {"a"}) != kind(str, {"b"})
        assert kind(str, {"a"}) != 1
        assert kind.stages_in_place
        assert kind.can_consume
        assert not (kind.plain_value)
        assert not (kind.reacts_to_empty)
    assert NamedBarrierValue(str, {"a"}) != NamedBarrierValueAfterFinish(str, {"a"})
    assert not NamedBarrierValue.can_finish
    assert NamedBarrierValueAfterFinish.can_finish


def test_inclusive_barrier_sequence() -> None:
    channel: InclusiveBarrierValue[str] = InclusiveBarrierValue(str, {"a", "b"}, after=frozenset({"x"}))
    assert channel.finish() is False
    assert channel.update(["a"]) is True
    assert not channel.is_available()
    with pytest.raises(EmptyChannelError):
        channel.get()
    assert channel.consume() is False
    assert channel.finish() is True
    assert channel.finish() is False
    assert channel.is_available()
    channel.get()
    assert channel.dump() == ({"a"}, True)
    assert channel.fired is False
    assert channel.consume() is True
    assert channel.fired is True
    assert channel.dump() == (set(), False)
    assert channel.update(["a", "b"]) is True
    assert channel.is_available()
    assert channel.finish() is False
    assert channel.consume() is True
    assert channel.copy().after == {"x"}


def test_a_deferred_inclusive_barrier_waits_even_when_it_is_complete() -> None:
    channel: InclusiveBarrierValue[str] = InclusiveBarrierValue(str, {"a", "b"}, deferred=True)
    assert channel.update(["a", "b"]) is True
    assert not channel.is_available()
    assert channel.consume() is False
    assert channel.copy().finish() is True
    assert channel.finish() is True
    assert channel.is_available()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_every_barrier_reads_what_another_stored(kind: type, other: type) -> None:
    stored = other(str, {"a", "b"})
    stored.update(["a"])
    read = kind(str, {"a", "b"}).from_checkpoint(stored.dump())
    assert read.seen == {"a"}
    assert not read.is_available()
    assert read.update(["b"]) is True
    assert read.seen == {"a", "b"}
    assert stored.seen == {"a"}


@pytest.mark.parametrize("kind", KINDS)
def test_watching_is_for_specifications(kind: type) -> None:
    channel = kind(str, {"a"})
    channel.watched = True
    assert channel.from_checkpoint(MISSING).watched is False
