"""Keep a value for the run, and never store it.

For things that cannot or must not be saved (connections, secrets, caches): readable like a last value as long as the
run lasts, absent after a resume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pregel.channels.base import ValueChannel, too_many_values
from pregel.constants import MISSING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UntrackedValue"]

Value = TypeVar("Value")


class UntrackedValue(ValueChannel[Value]):
    """A cell whose value outlives steps but not the run.

    `guard=True` refuses several values in one step, `guard=False` keeps the last.
    """

    __slots__ = ("guard",)

    tracked: ClassVar[bool] = False
    stages_in_place: ClassVar[bool] = True
    reacts_to_empty = False

    def __init__(self, typ: Any, guard: bool = True) -> None:
        super().__init__(typ)
        self.guard = guard

    def __eq__(self, other: object) -> bool:
        """Compare by class and `guard`."""
        return isinstance(other, UntrackedValue) and self.guard == other.guard

    __hash__ = None  # type: ignore[assignment]

    def update(self, values: Sequence[Value]) -> bool:
        """Set the value; nothing happens for no values.

        Raises:
            InvalidUpdateError: More than one value, with `guard=True`.
        """
        return UntrackedValue.install(self, UntrackedValue.stage(self, values))

    def stage(self, values: Sequence[Value]) -> Any:
        """Return the value to keep, or MISSING for none."""
        if len(values) > 1 and self.guard:
            raise too_many_values(self.key, len(values), "let one node write it, or declare it with guard=False")
        return values[-1] if values else MISSING

    def install(self, staged: Any) -> bool:
        """Set the value unless it is MISSING."""
        if staged is MISSING:
            return False
        self.value = staged
        return True

    def checkpoint(self) -> Any:
        """Return MISSING."""
        return MISSING

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a new, empty channel, whatever was stored."""
        channel = self.__class__(self.typ, self.guard)
        channel.key = self.key
        return channel

    def copy(self) -> Self:
        """Return a new channel with the same value."""
        channel = self.from_checkpoint(MISSING)
        channel.value = self.value
        return channel
