"""Fold one step's writes with one reducer call, for values that grow with every step.

Third parties see LangGraph's contract: `checkpoint()` is MISSING, since such a value is rebuilt from a snapshot and the
writes after it (`replay_writes`). Our engine stores what `dump()` returns, the value, and our savers store the change.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pregel.channels.base import ValueChannel
from pregel.channels.binop import bare_type, overwriting, same_reducer, sole_overwrite
from pregel.constants import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["DeltaChannel"]

Value = TypeVar("Value")


class DeltaChannel(ValueChannel[Value]):
    """A cell that becomes `reducer(value, writes)` once per step.

    Args:
        reducer: Takes the value and a list of writes. Must not depend on how writes are grouped:
            `reducer(reducer(v, xs), ys) == reducer(v, xs + ys)`. Must not edit the value it is given.
        typ: Type whose call makes the value to start from.
        snapshot_frequency: Number of updates after which a saver that stores writes stores the value again.

    Raises:
        ValueError: `snapshot_frequency` is not positive.
    """

    __slots__ = ("reducer", "snapshot_frequency")

    stages_in_place: ClassVar[bool] = True
    reacts_to_empty = False

    def __init__(
        self, reducer: Callable[[Any, Sequence[Any]], Any], typ: Any = None, *, snapshot_frequency: int = 100
    ) -> None:
        if snapshot_frequency <= 0:
            raise ValueError(
                f"DeltaChannel(snapshot_frequency={snapshot_frequency!r}): it counts updates between snapshots and "
                "must be a positive int; leave it out for the default of 100"
            )
        super().__init__(list if typ is None else typ)
        self.reducer = reducer
        self.snapshot_frequency = snapshot_frequency

    def __eq__(self, other: object) -> bool:
        """Compare by class, frequency and reducer; two lambdas count as the same reducer."""
        return (
            isinstance(other, DeltaChannel)
            and self.snapshot_frequency == other.snapshot_frequency
            and same_reducer(self.reducer, other.reducer)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def takes_messages(self) -> bool:
        """Does the reducer merge chat messages by id, and take strings, pairs and dicts for messages?"""
        return getattr(self.reducer, "takes_messages", False) is True

    def update(self, values: Sequence[Any]) -> bool:
        """Fold the values in; nothing happens for no values.

        Raises:
            InvalidUpdateError: More than one `Overwrite`.
        """
        return DeltaChannel.install(self, DeltaChannel.stage(self, values))

    def stage(self, values: Sequence[Any]) -> Any:
        """Return the folded value, or MISSING for no values."""
        if not values:
            return MISSING
        found = sole_overwrite(self.key, values)
        if found is not MISSING:
            return self._base(found)
        return self.reducer(self._start() if self.value is MISSING else self.value, list(values))

    def install(self, staged: Any) -> bool:
        """Set the value unless it is MISSING."""
        if staged is MISSING:
            return False
        self.value = staged
        return True

    def replay_writes(self, writes: Iterable[tuple[str, str, Any]]) -> None:
        """Fold in stored writes `(task id, channel, value)`, oldest first, with one reducer call.

        The last `Overwrite` among them is the base; what came before it no longer counts.
        """
        value = self.value
        pending: list[Any] = []
        for _, _, write in writes:
            found = overwriting(write)
            if found is MISSING:
                pending.append(write)
            else:
                value = self._base(found)
                pending = []
        if pending:
            value = self.reducer(self._start() if value is MISSING else value, pending)
        self.value = value

    def checkpoint(self) -> Any:
        """Return MISSING."""
        return MISSING

    def dump(self) -> Any:
        """Return the value, or MISSING."""
        return self.value

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a new channel with that value; `typ()` for MISSING, while None is a value."""
        channel = self.__class__(self.reducer, self.typ, snapshot_frequency=self.snapshot_frequency)
        channel.key = self.key
        channel.value = self._start() if checkpoint is MISSING else checkpoint
        return channel

    def copy(self) -> Self:
        """Return a new channel with the same value."""
        channel = self.__class__(self.reducer, self.typ, snapshot_frequency=self.snapshot_frequency)
        channel.key = self.key
        channel.value = self.value
        return channel

    def _start(self) -> Any:
        return bare_type(self.typ)()

    def _base(self, overwrite: Any) -> Any:
        # A copy, because a reducer that grows its first argument in place must not reach into the caller's object.
        return self._start() if overwrite is None else copy.copy(overwrite)
