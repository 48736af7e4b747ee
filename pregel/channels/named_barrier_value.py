"""Wait for a set of names: the channels behind edges with several sources.

A barrier becomes available when every one of its names was written since it was last consumed. `...AfterFinish` is the
form for deferred nodes: complete is not enough, the engine must also have nothing else left to run. `Inclusive...` is
content with some of its names once nothing else is left to run.

What is stored is the names seen, or those and whether the barrier was released. Each form reads both, so an edge may
become deferred or inclusive while threads are open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pregel.channels.base import BaseChannel
from pregel.constants import MISSING
from pregel.errors import EmptyChannelError, InvalidUpdateError, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["InclusiveBarrierValue", "NamedBarrierValue", "NamedBarrierValueAfterFinish"]

Value = TypeVar("Value")


class NamedBarrierValue(BaseChannel[None, Value, set[Value]], Generic[Value]):
    """A cell that reads as None once all of `names` were written.

    Attributes:
        names: What it waits for; not edited.
        seen: What arrived since the last `consume`; replaced, never edited.
        fired: Whether it was complete and consumed since it was made or loaded. Not stored.
        watched: On a specification: is it a mistake if a run leaves the barrier half full?
    """

    __slots__ = ("fired", "names", "seen", "watched")

    stages_in_place: ClassVar[bool] = True
    can_finish: ClassVar[bool] = False
    reacts_to_empty = False

    def __init__(self, typ: Any, names: set[Value]) -> None:
        super().__init__(typ)
        self.names = names
        self.seen: set[Value] = set()
        self.fired = self.watched = False

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
        self.fired = True
        return True

    def checkpoint(self) -> Any:
        """Return the set of names seen."""
        return self.seen

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a new channel with these names seen."""
        channel = self.__class__(self.typ, self.names)
        channel.key = self.key
        if checkpoint is not MISSING:
            channel.seen, _ = _parts(checkpoint)
        return channel


class NamedBarrierValueAfterFinish(BaseChannel[None, Value, tuple[set[Value], bool]], Generic[Value]):
    """A cell that reads as None once all of `names` were written and nothing else is left to run.

    Attributes:
        names: What it waits for; not edited.
        seen: What arrived since the last `consume`; replaced, never edited.
        finished: Whether the full barrier was released.
        fired: Whether it was released and consumed since it was made or loaded. Not stored.
        watched: On a specification: is it a mistake if a run leaves the barrier half full?
    """

    __slots__ = ("finished", "fired", "names", "seen", "watched")

    stages_in_place: ClassVar[bool] = True
    reacts_to_empty = False

    def __init__(self, typ: Any, names: set[Value]) -> None:
        super().__init__(typ)
        self.names = names
        self.seen: set[Value] = set()
        self.finished = self.fired = self.watched = False

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
        self.fired = True
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
            channel.seen, channel.finished = _parts(checkpoint)
        return channel


class InclusiveBarrierValue(NamedBarrierValueAfterFinish[Value]):
    """A cell that reads as None once all of `names` were written, or some were and nothing else is left to run.

    Attributes:
        deferred: Whether it waits for that moment even when it is complete.
        after: Channels that are released before this one, because what they start may still write here.
    """

    __slots__ = ("after", "deferred")

    def __init__(
        self, typ: Any, names: set[Value], *, deferred: bool = False, after: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(typ, names)
        self.deferred = deferred
        self.after = after

    def get(self) -> None:
        """Return None, once it is complete or released."""
        if not self.is_available():
            raise EmptyChannelError

    def is_available(self) -> bool:
        """Return whether it is complete or released."""
        return self.finished or (not self.deferred and self.seen == self.names)

    def consume(self) -> bool:
        """Start over if the barrier is complete or was released."""
        if not self.is_available():
            return False
        self.finished = False
        self.seen = set()
        self.fired = True
        return True

    def finish(self) -> bool:
        """Release the barrier if a name has arrived."""
        if not self.seen or self.is_available():
            return False
        self.finished = True
        return True

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a new channel from what any barrier stores."""
        channel = super().from_checkpoint(checkpoint)
        channel.deferred, channel.after = self.deferred, self.after
        return channel


def _parts(checkpoint: Any) -> tuple[set[Any], bool]:
    """The names seen, and whether the barrier was released, from what any of the barriers stores."""
    if isinstance(checkpoint, (set, frozenset)):
        return set(checkpoint), False
    seen, released = checkpoint
    return seen, released


def _check_names(key: str, values: Sequence[Any], names: set[Any]) -> None:
    for value in values:
        if value not in names:
            raise InvalidUpdateError(
                f"channel {key!r} got the name {shown(value)} but waits for {sorted(names, key=repr)!r}; "
                "write one of these, or add the name to the barrier",
                key=key,
            )
