"""Fold every write into one value with a reducer: what `Annotated[T, reducer]` declares.

Also knows the `Overwrite` marker in all its spellings, since replacing is the exception to folding.
"""

from __future__ import annotations

import collections.abc
import operator as operators
import typing
from typing import Annotated, Any, ClassVar, Final, NotRequired, Required, Self, TypeVar

from pregel.channels.base import ValueChannel
from pregel.channels.reducers import keeps_elements
from pregel.constants import MISSING
from pregel.errors import ErrorCode, InvalidUpdateError
from pregel.types import Overwrite

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["BinaryOperatorAggregate", "bare_type", "overwriting", "same_reducer", "sole_overwrite"]

Value = TypeVar("Value")

PLAIN: Final = frozenset({list, int, str, float, set, tuple})
"""Exact types of writes that can be no `Overwrite` in any spelling."""

CONCRETE: Final[dict[Any, type]] = {
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
    collections.abc.Mapping: dict,
    collections.abc.MutableMapping: dict,
}


class BinaryOperatorAggregate(ValueChannel[Value]):
    """A cell that starts as `typ()` and becomes `operator(value, write)` for each write, in order.

    Where `typ()` fails (`int | None`, a class with required arguments) it starts empty, and takes the first write as it
    is.
    One `Overwrite` per step replaces the value, whatever else is written in that step.
    """

    __slots__ = ("_appended", "_bare", "_before", "_concatenates", "_keeps", "operator")

    stages_in_place: ClassVar[bool] = True
    has_edits: ClassVar[bool] = True
    reacts_to_empty = False

    def __init__(self, typ: Any, operator: Callable[[Value, Value], Value]) -> None:
        super().__init__(typ)
        self.operator = operator
        self._bare = bare_type(typ)
        self.value = _initial(self._bare)
        # The value that the last install replaced. Costs a container's shell.
        self._before: Any = MISSING
        self._appended = False
        self._concatenates = operator is operators.add or operator is operators.concat
        self._keeps = keeps_elements(operator)

    def __eq__(self, other: object) -> bool:
        """Compare by class and reducer; two lambdas count as the same reducer."""
        return isinstance(other, BinaryOperatorAggregate) and same_reducer(self.operator, other.operator)

    __hash__ = None  # type: ignore[assignment]

    @property
    def takes_messages(self) -> bool:
        """Does the reducer merge chat messages by id, and take strings, pairs and dicts for messages?"""
        function = getattr(self.operator, "func", self.operator)  # `add_messages(format=...)` is a partial
        return getattr(function, "takes_messages", False) is True

    def update(self, values: Sequence[Value]) -> bool:
        """Fold the values in; nothing happens for no values.

        Raises:
            InvalidUpdateError: More than one `Overwrite`.
        """
        return BinaryOperatorAggregate.install(self, BinaryOperatorAggregate.stage(self, values))

    def stage(self, values: Sequence[Any]) -> Any:
        """Return the folded value, wrapped in `_Replaced` if it may not be an append; MISSING for no values."""
        if len(values) != 1:
            return self._fold(values) if values else MISSING
        value, write = self.value, values[0]
        kind = type(write)
        if kind is type(value) and kind in PLAIN:  # the usual case, decided without a look at the rest
            return self.operator(value, write)
        if value is MISSING or isinstance(write, (dict, Overwrite)):
            return self._fold(values)
        if self._concatenates and kind is not type(value):
            # A subclass may define its own sum, which need not begin with the old elements.
            return _Replaced(self.operator(value, write))
        return self.operator(value, write)

    def _fold(self, values: Sequence[Any]) -> Any:
        found = sole_overwrite(self.key, values)
        if found is not MISSING:
            return _Replaced(found)
        value = self.value
        writes = iter(values)
        if value is MISSING:
            value = next(writes)
        kind = type(value)
        uniform = True
        for write in writes:
            value = self.operator(value, write)
            uniform = uniform and type(write) is kind
        return value if uniform or not self._concatenates else _Replaced(value)

    def install(self, staged: Any) -> bool:
        """Set the value unless it is MISSING."""
        if staged is MISSING:
            return False
        self._before = self.value
        if type(staged) is _Replaced:
            # A node may have edited the elements of what it overwrites with: they are in the old value, too.
            if type(self.value) is not str:
                self._before = MISSING
            self._appended = False
            self.value = staged.value
        else:
            self._appended = self._concatenates
            self.value = staged
        return True

    def last_edit(self) -> int | None:
        """Return the length of the old list or string, if the reducer put something behind it and changed nothing else.

        Known of `operator.add` and `operator.concat` on exact lists and strings.
        """
        before, kind = self._before, type(self.value)
        if self._appended and (kind is list or kind is str) and type(before) is kind and before is not self.value:
            return len(before)
        return None

    def replaced(self) -> Any:
        """Return what the last `install` replaced, if that was another list, dict or string.

        MISSING for a list or dict whose elements the reducer, or a node that overwrites it, may have edited: equal
        objects at equal places then say nothing.
        """
        if self._keeps or type(self._before) is str:
            return _replaced(self._before, self.value)
        return MISSING

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a new channel with that value, or as it starts for MISSING."""
        if type(self) is BinaryOperatorAggregate:
            # Made for every reducer key of every run: what follows from type and operator is known already.
            channel = self.__class__.__new__(self.__class__)
            channel.typ, channel.operator, channel._bare = self.typ, self.operator, self._bare
            channel._concatenates, channel._keeps, channel._appended = self._concatenates, self._keeps, False
            channel._before = MISSING
            channel.value = _initial(self._bare) if checkpoint is MISSING else checkpoint
        else:
            channel = self.__class__(self.typ, self.operator)
            if checkpoint is not MISSING:
                channel.value = checkpoint
        channel.key = self.key
        return channel

    def copy(self) -> Self:
        """Return a new channel with the same value."""
        channel = self.from_checkpoint(MISSING)
        channel.value = self.value
        return channel


class _Replaced:
    """Staged value that does not continue the old one."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _replaced(before: Any, value: Any) -> Any:
    kind = type(value)
    if (kind is list or kind is dict or kind is str) and type(before) is kind and before is not value:
        return before
    return MISSING


def overwriting(write: object) -> Any:
    """Return the value that `write` asks to overwrite with, or MISSING if it is a plain write.

    Recognised: an `Overwrite`, `{"__overwrite__": value}`, and an `Overwrite` that went through JSON,
    `{"type": "__overwrite__", "value": value}`.
    """
    if isinstance(write, Overwrite):
        return write.value
    if not isinstance(write, dict):
        return MISSING
    if len(write) == 1 and "__overwrite__" in write:
        return write["__overwrite__"]
    # The type test first: an element of a user's dict may be an array, whose `==` is no truth value.
    kind = write.get("type")
    if isinstance(kind, str) and kind == "__overwrite__" and "value" in write:
        return write["value"]
    return MISSING


def sole_overwrite(key: str, writes: Sequence[object]) -> Any:
    """Return the value that one of `writes` asks to overwrite with, or MISSING if all are plain.

    Raises:
        InvalidUpdateError: Several do.
    """
    found = [value for write in writes if (value := overwriting(write)) is not MISSING]
    if len(found) > 1:
        raise InvalidUpdateError(
            f"channel {key!r} got {len(found)} Overwrite values in one step but can follow only one; "
            "let one node overwrite it, and the others write plain values",
            code=ErrorCode.INVALID_CONCURRENT_GRAPH_UPDATE,
            key=key,
            count=len(found),
        )
    return found[0] if found else MISSING


def same_reducer(one: object, other: object) -> bool:
    """Return whether two declarations of one key name the same reducer.

    A lambda cannot be told from its twin in another schema, so any two of which one is a lambda count as the same.
    """
    return one is other or "<lambda>" in (getattr(one, "__name__", None), getattr(other, "__name__", None))


def bare_type(typ: Any) -> Any:
    """Return the class to call for a first value: no `Annotated`, `Required`, type arguments or abstract container."""
    origin = typing.get_origin(typ)
    while origin is Annotated or origin is Required or origin is NotRequired:
        typ = typing.get_args(typ)[0]
        origin = typing.get_origin(typ)
    bare = typ if origin is None else origin
    try:
        return CONCRETE.get(bare, bare)
    except TypeError:  # unhashable, hence none of them
        return bare


def _initial(bare: Any) -> Any:
    try:
        return bare()
    except Exception:  # noqa: BLE001 - a user's class may raise anything; then the channel starts empty
        return MISSING
