"""Keep a value for exactly one step.

The input channel and the control channels of edges are of this kind: written in one step, read by the tasks of the
next, then empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pregel.channels.base import ValueChannel, too_many_values
from pregel.constants import MISSING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EphemeralValue"]

Value = TypeVar("Value")


class EphemeralValue(ValueChannel[Value]):
    """A cell that is empty after a step in which nobody wrote it.

    `guard=True` refuses several values in one step, `guard=False` keeps the last.
    """

    __slots__ = ("guard",)

    stages_in_place: ClassVar[bool] = True
    clears: ClassVar[bool] = True

    def __init__(self, typ: Any, guard: bool = True) -> None:
        super().__init__(typ)
        self.guard = guard

    def __eq__(self, other: object) -> bool:
        """Compare by class and `guard`."""
        return isinstance(other, EphemeralValue) and self.guard == other.guard

    __hash__ = None  # type: ignore[assignment]

    def update(self, values: Sequence[Value]) -> bool:
        """Set the value; no values empty the cell.

        Raises:
            InvalidUpdateError: More than one value, with `guard=True`.
        """
        return EphemeralValue.install(self, EphemeralValue.stage(self, values))

    def stage(self, values: Sequence[Value]) -> Any:
        """Return the value to keep, or MISSING to clear."""
        if len(values) == 1:
            return values[0]
        if not values:
            return MISSING
        if self.guard:
            raise too_many_values(self.key, len(values), "let one node write it, or declare it with guard=False")
        return values[-1]

    def install(self, staged: Any) -> bool:
        """Set or clear the value."""
        changed = staged is not MISSING or self.value is not MISSING
        self.value = staged
        return changed

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a new channel with that value."""
        if type(self) is EphemeralValue:
            # Made for every control channel that a run touches, without the detour over two constructors.
            channel = self.__class__.__new__(self.__class__)
            channel.typ, channel.guard = self.typ, self.guard
        else:
            channel = self.__class__(self.typ, self.guard)
        channel.key = self.key
        channel.value = checkpoint
        return channel
