"""Wait for a set of names: the channels behind edges with several sources.

A barrier becomes available when every one of its names was written since it was last consumed. `...AfterFinish` is the
form for deferred nodes: complete is not enough, the engine must also have nothing else left to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pregel.channels.base import BaseChannel
from pregel.constants import MISSING
from pregel.errors import EmptyChannelError, InvalidUpdateError, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NamedBarrierValue", "NamedBarrierValueAfterFinish"]

Value = TypeVar("Value")


class NamedBarrierValue(BaseChannel[None, Value, set[Value]], Generic[Value]):
    """A cell that reads as None once all of `names` were written.

    Attributes:
        names: What it waits for; not edited.
        seen: What arrived since the last `consume`; replaced, never edited.
    """

    __slots__ = ("names", "seen")

    stages_in_place: ClassVar[bool] = True
    can_finish: ClassVar[bool] = False
    reacts_to_empty = False

    def __init__(self, typ: Any, names: set[Value]) -> None:
        super().__init__(typ)
        self.names = names
        self.seen: set[Value] = set()

    def __eq__(self, other: object) -> bool:
        """Compare by class and names."""
        return isinstance(other, NamedBarrierValue) and self.names == other.names

    __hash__ = None  # type: ignore[assignment]

    def get(self) -> None:
        """Return None, once all names were seen."""
        if self.seen != self.names:
            raise EmptyChannelError

    def is_available(self) -> bool:
        """Return whether all names were seen."""
        return self.seen == self.names

    def update(self, values: Sequence[Value]) -> bool:
        """Note the names; return whether one of them is new.

        Raises:
            InvalidUpdateError: A name that the barrier does not wait for.
        """
        return NamedBarrierValue.install(self, NamedBarrierValue.stage(self, values))

    def stage(self, values: Sequence[Value]) -> Any:
        """Return `values` themselves, checked."""
        _check_names(self.key, values, self.names)
        return values

    def install(self, staged: Any) -> bool:
        """Note the names."""
        # The union is taken here and not in `stage`, so that a `consume` between the two is not undone.
        seen = self.seen.union(staged)
        changed = len(seen) > len(self.seen)
        self.seen = seen
        return changed

    def consume(self) -> bool:
        """Start over if all names were seen."""
        if self.seen != self.names:
            return False
        self.seen = set()
        return True

    def checkpoint(self) -> Any:
        """Return the set of names seen."""
        return self.seen

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a new channel with these names seen."""
        channel = self.__class__(self.typ, self.names)
        channel.key = self.key
        if checkpoint is not MISSING:
            channel.seen = checkpoint
        return channel


class NamedBarrierValueAfterFinish(BaseChannel[None, Value, tuple[set[Value], bool]], Generic[Value]):
    """A cell that reads as None once all of `names` were written and nothing else is left to run.

    Attributes:
        names: What it waits for; not edited.
        seen: What arrived since the last `consume`; replaced, never edited.
        finished: Whether the full barrier was released.
    """

    __slots__ = ("finished", "names", "seen")

    stages_in_place: ClassVar[bool] = True
    reacts_to_empty = False

    def __init__(self, typ: Any, names: set[Value]) -> None:
        super().__init__(typ)
        self.names = names
        self.seen: set[Value] = set()
        self.finished = False

    def __eq__(self, other: object) -> bool:
        """Compare by class and names."""
        return isinstance(other, NamedBarrierValueAfterFinish) and self.names == other.names

    __hash__ = None  # type: ignore[assignment]

    def get(self) -> None:
        """Return None, once all names were seen and released."""
        if not self.finished or self.seen != self.names:
            raise EmptyChannelError

    def is_available(self) -> bool:
        """Return whether all names were seen and released."""
        return self.finished and self.seen == self.names

    def update(self, values: Sequence[Value]) -> bool:
        """Note the names; return whether one of them is new.

        Raises:
            InvalidUpdateError: A name that the barrier does not wait for.
        """
        return NamedBarrierValueAfterFinish.install(self, NamedBarrierValueAfterFinish.stage(self, values))

    def stage(self, values: Sequence[Value]) -> Any:
        """Return `values` themselves, checked."""
        _check_names(self.key, values, self.names)
        return values

    def install(self, staged: Any) -> bool:
        """Note the names."""
        seen = self.seen.union(staged)
        changed = len(seen) > len(self.seen)
        self.seen = seen
        return changed

    def consume(self) -> bool:
        """Start over if the barrier was released."""
        if not self.finished or self.seen != self.names:
            return False
        self.finished = False
        self.seen = set()
        return True

    def finish(self) -> bool:
        """Release the barrier if it is complete."""
        if self.finished or self.seen != self.names:
            return False
        self.finished = True
        return True

    def checkpoint(self) -> Any:
        """Return `(names seen, finished)`."""
        return (self.seen, self.finished)

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a new channel from `(names seen, finished)`."""
        channel = self.__class__(self.typ, self.names)
        channel.key = self.key
        if checkpoint is not MISSING:
            channel.seen, channel.finished = checkpoint
        return channel


def _check_names(key: str, values: Sequence[Any], names: set[Any]) -> None:
    for value in values:
        if value not in names:
            raise InvalidUpdateError(
                f"channel {key!r} got the name {shown(value)} but waits for {sorted(names, key=repr)!r}; "
                "write one of these, or add the name to the barrier",
                key=key,
            )
