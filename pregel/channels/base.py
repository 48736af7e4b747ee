"""What a channel is: the contract between the engine and every named cell.

Decides the interface, and how a class that knows only LangGraph's part of it (`get`, `update`, `from_checkpoint`,
`ValueType`, `UpdateType`) still gets the rest. Knows no node, step, version or saver.

Beyond LangGraph's contract, for the engine:

1. Stage, then swap (D31). `stage(values)` computes what `update(values)` would lead to, may run a user's reducer and
   may raise; `install(staged)` puts it in place and cannot. All channels are staged before the first one is installed,
   so a failing reducer leaves the run exactly as it was. `update` is both at once.
2. Class attributes say which calls have no effect, so that the engine leaves them out of its plan (D45). They are
   cautious here, for foreign classes, and exact on ours.
3. `dump()` is what gets stored; `from_checkpoint` accepts it.

Invariants: a value once readable is never edited in place, it is replaced; so a value may be shared between a channel,
its copies, a checkpoint and a saver. A subclass of one of ours that overrides `update` is driven through its `update`,
which may call `super().update`: for that, our `update` methods name their own class's `stage` and `install`.

Source: Malewicz et al. 2010, "Pregel", section 3 (messages and combiners); LangGraph's documentation of channels.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pregel.constants import MISSING
from pregel.errors import EmptyChannelError, ErrorCode, InvalidUpdateError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BaseChannel", "ValueChannel", "too_many_values"]

Value = TypeVar("Value")
Update = TypeVar("Update")
Checkpoint = TypeVar("Checkpoint")


class BaseChannel(ABC, Generic[Value, Update, Checkpoint]):
    """A named cell that only changes between supersteps.

    Attributes:
        typ: What was declared for the cell, as given (may be `Annotated[...]`).
        key: Name of the channel in its graph, "" until the graph sets it; only used in error texts.
    """

    __slots__ = ("key", "typ")

    plain_value: ClassVar[bool] = False
    """Whether the readable value is exactly the attribute `value`, and the channel is empty iff that is MISSING. Then
    the engine reads `channel.value` instead of calling `get()`."""
    plain_dump: ClassVar[bool] = False
    """Whether `dump()` is exactly the attribute `value`. Then the engine reads that instead of calling."""
    tracked: ClassVar[bool] = True
    """False if neither the value nor the writes of this channel may ever be stored."""
    stages_in_place: ClassVar[bool] = False
    """True: `install` changes this object. False: `stage` returned `(channel, changed)`, and after `install` the engine
    must put that channel in the place of this one."""
    has_edits: ClassVar[bool] = False
    """True if `last_edit` or `replaced` may return something."""
    can_consume: ClassVar[bool] = True
    """False if `consume()` always returns False without effect."""
    can_finish: ClassVar[bool] = True
    """False if `finish()` always returns False without effect."""
    clears: ClassVar[bool] = False
    """True if `stage([])` is always MISSING, and `install(MISSING)` empties the channel; then it need not be called."""
    reacts_to_empty: bool = True
    """False if `update([])` always returns False without effect. May differ between instances of a class."""

    def __init__(self, typ: Any, key: str = "") -> None:
        self.typ = typ
        self.key = key

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take back what an inherited class promised about methods that `cls` replaces."""
        super().__init_subclass__(**kwargs)
        own = cls.__dict__
        if "update" in own and "stage" not in own:
            cls.stage = BaseChannel.stage  # type: ignore[method-assign]
            cls.install = BaseChannel.install  # type: ignore[method-assign]
            cls.last_edit = BaseChannel.last_edit  # type: ignore[method-assign]
            cls.replaced = BaseChannel.replaced  # type: ignore[method-assign]
            cls.has_edits = False
            cls.stages_in_place = own.get("stages_in_place", False)
            cls.reacts_to_empty = own.get("reacts_to_empty", True)
            cls.clears = own.get("clears", False)
        if "consume" in own:
            cls.can_consume = own.get("can_consume", True)
        if "finish" in own:
            cls.can_finish = own.get("can_finish", True)
        if "get" in own or "is_available" in own:
            cls.plain_value = own.get("plain_value", False)
        if not own.keys().isdisjoint(("checkpoint", "dump", "get")):
            cls.plain_dump = own.get("plain_dump", False)

    @property
    def ValueType(self) -> Any:
        """Type of what `get()` returns, for JSON schemas; the declared type unless a class says otherwise."""
        return self.typ

    @property
    def UpdateType(self) -> Any:
        """Type of one write, for JSON schemas; the declared type unless a class says otherwise."""
        return self.typ

    # ---- reading

    @abstractmethod
    def get(self) -> Value:
        """Return the current value; do not edit it.

        Raises:
            EmptyChannelError: There is none.
        """

    def is_available(self) -> bool:
        """Return whether `get()` would return."""
        try:
            self.get()
        except EmptyChannelError:
            return False
        return True

    # ---- changing

    @abstractmethod
    def update(self, values: Sequence[Update]) -> bool:
        """Fold in all writes of one step; return whether the channel gets a new version.

        Args:
            values: In task order, then in the order each task wrote them. Empty for an available channel that nobody
                wrote in a step that ran triggered tasks.

        Raises:
            InvalidUpdateError: The channel cannot take these values together; it is unchanged.
        """

    def stage(self, values: Sequence[Update]) -> Any:
        """Return what `install` needs in order to do `update(values)`; leave the channel as it is.

        This default serves classes that only have `update`: it updates a copy and returns `(copy, changed)`. Whoever
        must also `consume()` such a channel in the same step does it on a copy first; ours may be consumed between
        `stage` and `install`.

        Raises:
            InvalidUpdateError: As `update`. A reducer's own exception comes through unchanged.
        """
        twin = self.copy()
        if self.is_available() and not twin.is_available():
            # The class stores nothing, so the default copy came back empty although there is a value to build on.
            twin = copy.copy(self)
        return twin, bool(twin.update(values))

    def install(self, staged: Any) -> bool:
        """Put the outcome of `stage` in place, return what `update` would have returned. Never raises."""
        return bool(staged[1])

    def last_edit(self) -> int | None:
        """Return how many leading elements the last `install` kept, if it did nothing but append; else None.

        Kept means the same objects at the same places, nothing said about edits inside them. Valid from an `install` to
        the next change.
        """
        return None

    def replaced(self) -> Any:
        """Return the list, dict or str in whose place the last `install` put another of its type; MISSING if that is not
        known, or the object is the same. It must stay as it is for as long as the engine holds it.
        """
        return MISSING

    def consume(self) -> bool:
        """React to the end of a task that this channel triggered; return whether the channel gets a new version."""
        return False

    def finish(self) -> bool:
        """React to a step after which nothing would run; return whether the channel gets a new version."""
        return False

    # ---- storing

    def checkpoint(self) -> Checkpoint | Any:
        """Return the state that a saver keeps, or MISSING to keep nothing."""
        try:
            return self.get()
        except EmptyChannelError:
            return MISSING

    def dump(self) -> Any:
        """Return what our engine stores, or MISSING; `from_checkpoint` accepts it. Not a copy: do not edit it."""
        return self.checkpoint()

    @abstractmethod
    def from_checkpoint(self, checkpoint: Checkpoint | Any) -> Self:
        """Return a new channel of the same configuration that holds `checkpoint`, or a fresh one for MISSING.

        The object is kept, not copied.
        """

    def copy(self) -> Self:
        """Return an independent channel with the same value; the value itself is shared."""
        return self.from_checkpoint(self.checkpoint())


class ValueChannel(BaseChannel[Value, Value, Value]):
    """What our channels share whose readable value is exactly the slot `value`."""

    __slots__ = ("value",)

    plain_value: ClassVar[bool] = True
    plain_dump: ClassVar[bool] = True
    can_consume: ClassVar[bool] = False
    can_finish: ClassVar[bool] = False

    def __init__(self, typ: Any, key: str = "") -> None:
        super().__init__(typ, key)
        self.value: Any = MISSING

    def get(self) -> Value:
        """Return the value."""
        if self.value is MISSING:
            raise EmptyChannelError
        value: Value = self.value
        return value

    def is_available(self) -> bool:
        """Return whether there is a value."""
        return self.value is not MISSING

    def checkpoint(self) -> Any:
        """Return the value or MISSING."""
        return self.value


def too_many_values(key: str, count: int, advice: str) -> InvalidUpdateError:
    """Return the error for `count` values in one step where a channel keeps one; the engine adds the writers."""
    return InvalidUpdateError(
        f"channel {key!r} got {count} values in one step but keeps only one; {advice}",
        code=ErrorCode.INVALID_CONCURRENT_GRAPH_UPDATE,
        key=key,
        count=count,
        advice=advice,
    )
