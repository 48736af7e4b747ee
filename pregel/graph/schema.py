"""From a state schema to channels, and between state and the user's objects (engine.md 4.2, 4.4).

Decides which channel a field's annotation makes, how the channel values that a node reads become the object it asked
for (`Schema.mapper`), and which updates an object that a node returned stands for (`updates_of`). Knows fields and
channels, nothing of nodes, edges or runs. Pydantic is never imported: a class can only be a model if it is loaded.

Invariants
1. A schema is read once per class and process, and the result is never changed; channels in it are specifications, runs
   make their own from them.
2. A default that a dataclass or model declares is the starting value of a key *with a reducer* and of no other (D54).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection
from typing import Annotated, Any, ClassVar, Final, NotRequired, Required, Self, TypeVar, cast

import typing_extensions

from checkpoint.registry import BUILTIN_BASES, is_model
from pregel.channels import BaseChannel, BinaryOperatorAggregate, DeltaChannel, LastValue
from pregel.channels.binop import same_reducer
from pregel.constants import MISSING, ROOT
from pregel.errors import shown
from pregel.managed import ManagedValue, is_managed

__all__ = ["DefaultedAggregate", "Schema", "describe", "plain", "same_channel", "updates_of"]

Value = TypeVar("Value")

Mapper = Callable[[Any], Any]
Channel = BaseChannel[Any, Any, Any]

_QUALIFIERS: Final = (
    Required,
    NotRequired,
    typing_extensions.Required,
    typing_extensions.NotRequired,
    typing_extensions.ReadOnly,
)


class Schema:
    """What a schema declares.

    Attributes:
        cls: The schema as given.
        keys: Names in the order of declaration, managed ones included; `("__root__",)` for a bare state.
        channels: Name -> channel specification.
        managed: Name -> managed value class.
        is_root: The state is one bare value.
        mapper: Makes the object that a node receives from a dict of the available keys; None if it receives the dict.
    """

    __slots__ = ("channels", "cls", "is_root", "keys", "managed", "mapper")

    def __init__(
        self,
        cls: Any,
        channels: dict[str, Channel],
        managed: dict[str, type[ManagedValue[Any]]],
        mapper: Mapper | None,
    ) -> None:
        self.cls = cls
        self.keys: tuple[str, ...] = ()
        self.channels = channels
        self.managed = managed
        self.is_root = list(channels) == [ROOT] and not managed
        self.mapper = mapper


class DefaultedAggregate(BinaryOperatorAggregate[Value]):
    """A reducer key that starts with the default its schema declares, instead of with `typ()`."""

    __slots__ = ("make",)

    def __init__(self, typ: Any, operator: Callable[[Value, Value], Value], make: Callable[[], Any]) -> None:
        super().__init__(typ, operator)
        self.make = make
        self.value = make()

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a new channel with that value, or with the declared default for MISSING."""
        channel = self.__class__(self.typ, self.operator, self.make)
        channel.key = self.key
        if checkpoint is not MISSING:
            channel.value = checkpoint
        return channel


def describe(schema: Any) -> Schema:
    """What a schema declares; the same object for the same schema.

    Raises:
        ValueError: a reducer does not take two arguments, or a managed value stands where no key can be.
        NameError: an annotation names something that does not exist where the class was defined.
    """
    try:
        hash(schema)
    except TypeError:  # Annotated with unhashable metadata
        return _describe.__wrapped__(schema)
    return _describe(schema)


# Bounded, so that a process which keeps defining schemas in functions does not keep them all.
@functools.lru_cache(maxsize=512)
def _describe(schema: Any) -> Schema:
    given, origin = schema, typing.get_origin(schema)
    if isinstance(origin, type) and (dataclasses.is_dataclass(origin) or typing_extensions.is_typeddict(origin)):
        schema = origin  # a generic state class with its arguments
    hints = _fields(schema)
    if hints is None:
        channel = _channel_of(ROOT, schema, MISSING)
        if not isinstance(channel, BaseChannel):
            raise ValueError(
                f"state schema {shown(schema)} is a managed value; it can be declared for a key of a state class, not "
                f"as the whole state"
            )
        found = Schema(schema, {ROOT: channel}, {}, None)
        found.keys = (ROOT,)
        return found
    channels: dict[str, Channel] = {}
    managed: dict[str, type[ManagedValue[Any]]] = {}
    for name, annotation in hints.items():
        made = _channel_of(name, annotation, schema)
        if isinstance(made, BaseChannel):
            channels[name] = made
        else:
            managed[name] = made
    found = Schema(given, channels, managed, _mapper_of(schema, hints))
    found.keys = tuple(hints)
    return found


# ---- fields


def _fields(schema: Any) -> dict[str, Any] | None:
    """Field -> annotation with its extras; None if the schema has no fields, hence is a bare value."""
    if not isinstance(schema, type) or not hasattr(schema, "__annotations__"):
        return None
    if is_model(schema) and hasattr(schema, "model_fields"):
        return _model_fields(schema)
    hints = typing_extensions.get_type_hints(schema, include_extras=True)
    hints = {n: a for n, a in hints.items() if n != "__slots__" and not _is_class_variable(a)}
    if not hints and issubclass(schema, BUILTIN_BASES) and not typing_extensions.is_typeddict(schema):
        return None
    return hints


def _is_class_variable(annotation: Any) -> bool:
    return annotation is ClassVar or typing.get_origin(annotation) is ClassVar


def _model_fields(model: Any) -> dict[str, Any]:
    try:
        hints = typing_extensions.get_type_hints(model, include_extras=True)
    except NameError:  # defined in a function; the model itself resolved its fields
        hints = {}
    found = {}
    for name, field in model.model_fields.items():
        annotation = hints.get(name, MISSING)
        if annotation is MISSING or _has_type_variable(annotation):
            annotation = field.annotation
            if field.metadata:
                annotation = Annotated.__class_getitem__((annotation, *field.metadata))  # type: ignore[attr-defined]
        found[name] = annotation
    return found


def _has_type_variable(annotation: Any) -> bool:
    return isinstance(annotation, TypeVar) or bool(getattr(annotation, "__parameters__", ()))


def _channel_of(name: str, annotation: Any, schema: Any) -> Channel | type[ManagedValue[Any]]:
    """The channel or managed value that an annotation asks for."""
    while typing.get_origin(annotation) in _QUALIFIERS:
        annotation = typing.get_args(annotation)[0]
    manager = _manager_of(annotation)
    if manager is not None:
        return manager
    typ, metadata = annotation, cast("tuple[Any, ...]", ())
    if typing.get_origin(annotation) is Annotated:
        typ, metadata = typing.get_args(annotation)[0], annotation.__metadata__
        while typing.get_origin(typ) in _QUALIFIERS:
            typ = typing.get_args(typ)[0]
    channel: Channel | None = None
    for item in metadata:
        if isinstance(item, DeltaChannel):
            channel = DeltaChannel(item.reducer, typ, snapshot_frequency=item.snapshot_frequency)
        elif isinstance(item, BaseChannel):
            channel = copy.copy(item)  # one declaration may serve several keys, and each channel knows its key
        elif isinstance(item, type) and issubclass(item, BaseChannel):
            channel = item(typ)
        else:
            continue
        break
    if channel is None and metadata and callable(metadata[-1]):
        _check_reducer(name, metadata[-1])
        make = _default_of(schema, name)
        if make is None:
            channel = BinaryOperatorAggregate(typ, metadata[-1])
        else:
            channel = DefaultedAggregate(typ, metadata[-1], make)
    if channel is None:
        channel = LastValue(annotation)
    channel.key = name
    return channel


def _manager_of(annotation: Any) -> type[ManagedValue[Any]] | None:
    """The managed value class of `Annotated[T, Manager]`, also below Optional and the like."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        last = annotation.__metadata__[-1]
        return last if is_managed(last) else None
    if origin is typing.Union or origin is types.UnionType or origin in _QUALIFIERS:
        return _manager_of(typing.get_args(annotation)[0])
    return None


def _check_reducer(name: str, reducer: Any) -> None:
    try:
        parameters = inspect.signature(reducer).parameters.values()
    except (TypeError, ValueError):  # builtins without a signature, such as max
        return
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(places) != 2:
        raise ValueError(
            f"key {name!r}: reducer {shown(reducer)} takes {len(places)} positional arguments "
            f"({', '.join(p.name for p in places)}); expected two, (current value, update) -> new value"
        )


def _default_of(schema: Any, name: str) -> Callable[[], Any] | None:
    """Makes the default that a dataclass or model declares for a field; None if it declares none."""
    if dataclasses.is_dataclass(schema):
        field = schema.__dataclass_fields__[name]
        if field.default_factory is not dataclasses.MISSING:
            return field.default_factory
        if field.default is dataclasses.MISSING or field.default is ...:
            return None
        return functools.partial(copy.copy, field.default)
    if isinstance(schema, type) and is_model(schema) and hasattr(schema, "model_fields"):
        info = cast("Any", schema).model_fields[name]
        if info.is_required():
            return None
        if info.default_factory is None:
            return functools.partial(copy.copy, info.default)
        if not getattr(info, "default_factory_takes_validated_data", False):
            return cast("Callable[[], Any]", info.default_factory)
    return None


def same_channel(one: Any, other: Any) -> bool:
    """Whether two declarations of one key ask for the same channel."""
    if isinstance(one, BinaryOperatorAggregate) and isinstance(other, BinaryOperatorAggregate):
        return same_reducer(one.operator, other.operator)
    return bool(one == other)


# ---- channel values -> object


def _mapper_of(schema: Any, hints: dict[str, Any]) -> Mapper | None:
    if dataclasses.is_dataclass(schema) and isinstance(schema, type):
        fields = schema.__dataclass_fields__
        if all(name in fields and fields[name].init for name in hints):
            return lambda values: schema(**values)
        accepted = frozenset(name for name in hints if name in fields and fields[name].init)
        return lambda values: schema(**{name: value for name, value in values.items() if name in accepted})
    if isinstance(schema, type) and is_model(schema):
        return lambda values: schema(**values)
    return None


# ---- object -> updates


def updates_of(item: Any, keys: Collection[str]) -> list[tuple[str, Any]] | None:
    """The updates that a returned model, dataclass or other annotated object stands for; None if it is none of these.

    A model's field counts if it is not None, or its default is not None, or it was set; of other objects every
    attribute that is in `keys` counts.
    """
    kind: Any = type(item)
    fields = _attributes_of(kind)
    if fields is None:
        return None
    if not is_model(kind):
        return [(name, getattr(item, name)) for name in fields if name in keys and hasattr(item, name)]
    assigned: Any = getattr(item, "model_fields_set" if hasattr(kind, "model_fields_set") else "__fields_set__")
    found = []
    for name, has_default in fields.items():
        if name in keys:
            value = getattr(item, name, None)
            if value is not None or has_default or name in assigned:
                found.append((name, value))
    return found


@functools.lru_cache(maxsize=512)
def _attributes_of(kind: type) -> dict[str, bool] | None:
    """Name of each annotated attribute -> whether its declared default is something else than None."""
    if is_model(kind):
        fields = getattr(kind, "model_fields", None) or getattr(kind, "__fields__", {})
        return {name: field.default is not None and not _is_undefined(field.default) for name, field in fields.items()}
    names: dict[str, bool] = {}
    for base in reversed(kind.__mro__):
        names.update(dict.fromkeys(_own_annotations(base), True))
    names.pop("__slots__", None)
    return names or None


if sys.version_info >= (3, 14):
    import annotationlib

    def _own_annotations(cls: type) -> dict[str, Any]:
        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)

else:

    def _own_annotations(cls: type) -> dict[str, Any]:
        own: dict[str, Any] = vars(cls).get("__annotations__", {})
        return own


def _is_undefined(default: Any) -> bool:
    return type(default).__name__ == "PydanticUndefinedType" or default is ...


# ---- names


def plain(name: Any) -> Any:
    """A name as an exact str, so that members of a str enum and their values are one name; other values as they are."""
    return name if type(name) is str or not isinstance(name, str) else str.__str__(name)
