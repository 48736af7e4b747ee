"""Keep any of several equal values, for one step.

For keys that parallel nodes write with the same value: the last write counts, and a step without a write empties the
cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pregel.channels.base import ValueChannel
from pregel.constants import MISSING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AnyValue"]

Value = TypeVar("Value")


class AnyValue(ValueChannel[Value]):
    """A cell that keeps the last value of a step, and is empty after a step in which nobody wrote it."""

    __slots__ = ()

    stages_in_place: ClassVar[bool] = True
    clears: ClassVar[bool] = True

    def __eq__(self, other: object) -> bool:
        """Compare by class alone."""
        return isinstance(other, AnyValue)

    __hash__ = None  # type: ignore[assignment]

    def update(self, values: Sequence[Value]) -> bool:
        """Set the last of the values; no values empty the cell."""
        return AnyValue.install(self, AnyValue.stage(self, values))

    def stage(self, values: Sequence[Value]) -> Any:
        """Return the last value, or MISSING for none."""
        return values[-1] if values else MISSING

    def install(self, staged: Any) -> bool:
        """Set or clear the value."""
        changed = staged is not MISSING or self.value is not MISSING
        self.value = staged
        return changed

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a new channel with that value."""
        channel = self.__class__(self.typ, self.key)
        channel.value = checkpoint
        return channel
