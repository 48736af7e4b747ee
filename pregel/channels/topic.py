"""Collect values: a list of everything written, of one step or of all.

The channel of queued sends is a topic that forgets (`accumulate=False`). A written list stands for its elements; a
tuple is one value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar, Union

from pregel.channels.base import BaseChannel
from pregel.constants import MISSING
from pregel.errors import EmptyChannelError

__all__ = ["Topic"]

Value = TypeVar("Value")


class Topic(BaseChannel[Sequence[Value], Union[Value, list[Value]], list[Value]], Generic[Value]):  # noqa: UP007
    """A cell that holds the list of values of the last step, or with `accumulate=True` of all steps.

    `get()` returns a new list; empty reads as no value, although an empty topic is stored as `[]`.
    """

    __slots__ = ("_kept", "accumulate", "values")

    stages_in_place: ClassVar[bool] = True
    has_edits: ClassVar[bool] = True
    can_consume: ClassVar[bool] = False
    can_finish: ClassVar[bool] = False

    def __init__(self, typ: Any, accumulate: bool = False) -> None:
        super().__init__(typ)
        self.accumulate = accumulate
        self.values: list[Any] = []
        self._kept: int | None = None

    def __eq__(self, other: object) -> bool:
        """Compare by class and `accumulate`."""
        return isinstance(other, Topic) and self.accumulate == other.accumulate

    __hash__ = None  # type: ignore[assignment]

    @property
    def reacts_to_empty(self) -> bool:  # type: ignore[override]
        """Whether a step without writes empties the topic."""
        return not self.accumulate

    @property
    def ValueType(self) -> Any:
        """A sequence of the declared type."""
        return Sequence[self.typ]  # type: ignore[name-defined]

    @property
    def UpdateType(self) -> Any:
        """The declared type or a list of it."""
        # Union, not `|`: the declared type may be a string or another object without that operator.
        return Union[self.typ, list[self.typ]]  # type: ignore[name-defined]  # noqa: UP007

    def get(self) -> Sequence[Value]:
        """Return the values as a new list."""
        if not self.values:
            raise EmptyChannelError
        return list(self.values)

    def is_available(self) -> bool:
        """Return whether there are any values."""
        return bool(self.values)

    def update(self, values: Sequence[Value | list[Value]]) -> bool:
        """Add the values, after forgetting those of earlier steps unless the topic accumulates."""
        return Topic.install(self, Topic.stage(self, values))

    def stage(self, values: Sequence[Value | list[Value]]) -> Any:
        """Return the elements to add, as a new list."""
        return list(_flat(values)) if values else []

    def install(self, staged: Any) -> bool:
        """Add the elements, or put them in the place of the old ones."""
        if self.accumulate:
            if not staged:
                return False
            self._kept = len(self.values)
            # A new list, never `extend`: the old one may be in a checkpoint or a copy of this channel.
            self.values = self.values + staged
            return True
        changed = bool(self.values or staged)
        self.values = staged
        return changed

    def last_edit(self) -> int | None:
        """Return the number of values that were there before the last step's, if the topic accumulates."""
        return self._kept

    def checkpoint(self) -> Any:
        """Return the list of values, also when it is empty."""
        return self.values

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a new channel with these values.

        Accepts a list, and the pair `(seen, values)` that old threads contain.
        """
        channel = self.__class__(self.typ, self.accumulate)
        channel.key = self.key
        if checkpoint is not MISSING:
            channel.values = checkpoint[1] if isinstance(checkpoint, tuple) else checkpoint
        return channel


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value
