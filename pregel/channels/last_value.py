"""Keep the last value: one write per step, or the last of several once nothing else is left to run.

`LastValue` is what a state key without a reducer gets. `LastValueAfterFinish` wakes deferred nodes: it holds a value
back until the engine reports that a step triggers nothing else (`finish`), and forgets it when that node has run
(`consume`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pregel.channels.base import BaseChannel, ValueChannel, too_many_values
from pregel.constants import MISSING
from pregel.errors import EmptyChannelError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LastValue", "LastValueAfterFinish"]

Value = TypeVar("Value")


class LastValue(ValueChannel[Value]):
    """A cell that takes at most one value per step and keeps it until the next."""

    __slots__ = ()

    stages_in_place: ClassVar[bool] = True
    reacts_to_empty = False

    def __eq__(self, other: object) -> bool:
        """Compare by class alone: two schemas may spell one key's type differently."""
        return isinstance(other, LastValue)

    __hash__ = None  # type: ignore[assignment]

    def update(self, values: Sequence[Value]) -> bool:
        """Set the value; nothing happens for no values.

        Raises:
            InvalidUpdateError: More than one value.
        """
        return LastValue.install(self, LastValue.stage(self, values))

    def stage(self, values: Sequence[Value]) -> Any:
        """Return the one value, or MISSING for none."""
        if len(values) == 1:
            return values[0]
        if not values:
            return MISSING
        advice = (
            f"a reducer keeps them all, as in '{self.key}: Annotated[list, operator.add]'; or let one node write it"
        )
        raise too_many_values(self.key, len(values), advice)

    def install(self, staged: Any) -> bool:
        """Set the value unless it is MISSING."""
        if staged is MISSING:
            return False
        self.value = staged
        return True

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a new channel with that value."""
        channel = self.__class__(self.typ, self.key)
        channel.value = checkpoint
        return channel

    def copy(self) -> Self:
        """Return a new channel with the same value."""
        channel = self.__class__(self.typ, self.key)
        channel.value = self.value
        return channel


class LastValueAfterFinish(BaseChannel[Value, Value, tuple[Value, bool]], Generic[Value]):
    """A cell whose value becomes readable when nothing else is left to run, and is gone once it was acted upon.

    Several values in one step are fine, the last one counts. A write makes a readable value unreadable again.
    """

    __slots__ = ("finished", "value")

    stages_in_place: ClassVar[bool] = True
    reacts_to_empty = False

    def __init__(self, typ: Any, key: str = "") -> None:
        super().__init__(typ, key)
        self.value: Any = MISSING
        self.finished = False

    def __eq__(self, other: object) -> bool:
        """Compare by class alone."""
        return isinstance(other, LastValueAfterFinish)

    __hash__ = None  # type: ignore[assignment]

    def get(self) -> Value:
        """Return the value, once it was released."""
        if self.value is MISSING or not self.finished:
            raise EmptyChannelError
        value: Value = self.value
        return value

    def is_available(self) -> bool:
        """Return whether there is a value and it was released."""
        return self.finished and self.value is not MISSING

    def update(self, values: Sequence[Value]) -> bool:
        """Keep the last of the values and hold it back."""
        return LastValueAfterFinish.install(self, LastValueAfterFinish.stage(self, values))

    def stage(self, values: Sequence[Value]) -> Any:
        """Return the last value, or MISSING for none."""
        return values[-1] if values else MISSING

    def install(self, staged: Any) -> bool:
        """Set the value unless it is MISSING, and hold it back."""
        if staged is MISSING:
            return False
        self.value = staged
        self.finished = False
        return True

    def consume(self) -> bool:
        """Forget the value if it was released."""
        if not self.finished:
            return False
        self.value = MISSING
        self.finished = False
        return True

    def finish(self) -> bool:
        """Release the value that is held back, if any."""
        if self.finished or self.value is MISSING:
            return False
        self.finished = True
        return True

    def checkpoint(self) -> Any:
        """Return `(value, finished)`, or MISSING without a value."""
        return MISSING if self.value is MISSING else (self.value, self.finished)

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a new channel from `(value, finished)`."""
        channel = self.__class__(self.typ, self.key)
        if checkpoint is not MISSING:
            channel.value, channel.finished = checkpoint
        return channel
