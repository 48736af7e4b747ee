"""The contract, seen through classes that know only LangGraph's part of it."""

from typing import Any

import pytest

from pregel.channels import BaseChannel, LastValue, LastValueAfterFinish, Topic
from pregel.channels.base import ValueChannel, too_many_values
from pregel.constants import MISSING
from pregel.errors import EmptyChannelError, ErrorCode, InvalidUpdateError


class Sum(BaseChannel[int, int, int]):
    """A user's channel with the five abstract members and nothing more."""

    def __init__(self, typ: Any, key: str = "") -> None:
        super().__init__(typ, key)
        self.total: int | None = None

    def get(self) -> int:
        if self.total is None:
            raise EmptyChannelError
        return self.total

    def update(self, values: Any) -> bool:
        for value in values:
            self.total = (self.total or 0) + value
        return bool(values)

    def from_checkpoint(self, checkpoint: Any) -> "Sum":
        twin = type(self)(self.typ, self.key)
        if checkpoint is not MISSING:
            twin.total = checkpoint
        return twin


class Secret(Sum):
    """Stores nothing, so the default `copy` loses the value."""

    def checkpoint(self) -> Any:
        return MISSING


def test_the_defaults_of_a_foreign_class() -> None:
    channel = Sum(int, "k")
    assert (channel.typ, channel.key, channel.ValueType, channel.UpdateType) == (int, "k", int, int)
    assert not channel.is_available()
    assert channel.checkpoint() is MISSING
    assert channel.dump() is MISSING
    assert channel.update([1, 2])
    assert channel.is_available()
    assert channel.checkpoint() == channel.dump() == 3
    assert not channel.consume()
    assert not channel.finish()
    assert channel.last_edit() is None
    twin = channel.copy()
    twin.update([1])
    assert (twin.get(), channel.get(), twin.key) == (4, 3, "k")
    assert channel.from_checkpoint(MISSING).total is None


def test_the_engine_plans_every_call_for_a_foreign_class() -> None:
    assert Sum.can_consume
    assert Sum.can_finish
    assert Sum.reacts_to_empty
    assert Sum.tracked
    assert not Sum.plain_value
    assert not Sum.stages_in_place


def test_a_foreign_class_is_staged_on_a_copy() -> None:
    channel = Sum(int)
    channel.update([1])
    staged = channel.stage([5])
    assert channel.get() == 1
    assert channel.install(staged) is True
    assert staged[0].get() == 6
    assert channel.install(channel.stage([])) is False


def test_staging_keeps_the_value_of_a_class_that_stores_nothing() -> None:
    channel = Secret(int)
    twin, changed = channel.stage([5])
    assert (twin.get(), changed) == (5, True)
    after, _ = twin.stage([1])
    assert (after.get(), twin.get()) == (6, 5)


def test_abstract_members() -> None:
    assert BaseChannel.__abstractmethods__ == {"get", "update", "from_checkpoint"}


def test_subscripting() -> None:
    assert BaseChannel[int, int, int] is not None
    assert LastValue[int](int, "k").key == "k"
    assert Topic[str] is not None


def test_a_subclass_that_overrides_update_is_driven_through_it() -> None:
    class Doubled(LastValue[int]):
        def update(self, values: Any) -> bool:
            return super().update([value * 2 for value in values])

    channel = Doubled(int)
    assert not Doubled.stages_in_place
    assert Doubled.reacts_to_empty
    assert Doubled.plain_value
    staged = channel.stage([4])
    assert not channel.is_available()
    assert channel.install(staged)
    assert staged[0].get() == 8
    assert isinstance(staged[0], Doubled)


def test_a_topic_subclass_that_overrides_update_reacts_to_empty() -> None:
    class Noisy(Topic[int]):
        def update(self, values: Any) -> bool:
            return super().update(values) or True

    channel = Noisy(int, accumulate=True)
    assert channel.reacts_to_empty
    assert channel.stage([])[1]


def test_a_subclass_may_state_the_flags_itself() -> None:
    class Own(LastValueAfterFinish[int]):
        can_consume = False
        can_finish = False
        plain_value = True
        reacts_to_empty = False
        stages_in_place = True

        def update(self, values: Any) -> bool:
            return True

        def consume(self) -> bool:
            return False

        def finish(self) -> bool:
            return False

        def get(self) -> int:
            return 1

    assert (Own.can_consume, Own.can_finish, Own.reacts_to_empty) == (False, False, False)
    assert Own.plain_value
    assert Own.stages_in_place


def test_a_subclass_that_overrides_reactions_or_reading_is_planned_and_read_through_them() -> None:
    class Loud(LastValue[int]):
        def consume(self) -> bool:
            return True

        def finish(self) -> bool:
            return True

        def is_available(self) -> bool:
            return True

    assert (Loud.can_consume, Loud.can_finish, Loud.plain_value) == (True, True, False)
    assert Loud.stages_in_place

    class Read(LastValue[int]):
        def get(self) -> int:
            return 1

    assert not Read.plain_value


def test_value_channel_reads_its_slot() -> None:
    class Plain(ValueChannel[int]):
        def update(self, values: Any) -> bool:
            self.value = values[-1]
            return True

        def from_checkpoint(self, checkpoint: Any) -> "Plain":
            twin = Plain(self.typ, self.key)
            twin.value = checkpoint
            return twin

    channel = Plain(int, "k")
    with pytest.raises(EmptyChannelError):
        channel.get()
    assert not channel.is_available()
    assert channel.checkpoint() is MISSING
    channel.update([None])
    assert channel.is_available()
    assert channel.get() is None
    assert channel.copy().checkpoint() is None


def test_too_many_values_carries_key_and_count() -> None:
    error = too_many_values("total", 3, "do this")
    assert isinstance(error, InvalidUpdateError)
    assert (error.key, error.count, error.code) == ("total", 3, ErrorCode.INVALID_CONCURRENT_GRAPH_UPDATE)
    assert "'total'" in str(error)
    assert "3" in str(error)
    assert "do this" in str(error)
