"""How instances of the program's own classes are written and read.

Decides what of an instance is its value, and how it is put together again. A registered class may run its own code
for that; a class that is merely imported is rebuilt field by field without any (D48).

What is stored: the fields of dataclasses and NamedTuples, name and value of enum members, the fields, extras and
private attributes of pydantic models, and of any other registered class its attributes and, if it extends a built-in,
its content.
Attributes of dataclasses and models that are no fields (caches) are not part of the value.
"""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Callable, Mapping
from typing import Any, Final

from ormsgpack import Ext

from checkpoint import registry
from checkpoint.base import UnknownTypeError, UnregisteredTypeError
from checkpoint.serde import langchain
from checkpoint.serde.base import ChangedTypeError, Opaque
from checkpoint.serde.extensions import (
    CODEC,
    DATACLASS,
    ENUM,
    INSTANCE,
    MODEL,
    NAMEDTUPLE,
    Decoder,
    Encoder,
    Reader,
    Writer,
)
from checkpoint.serde.standard import FACTORIES


def find_encoder(cls: type, *, strict: bool) -> Encoder | None:
    """The encoder of a class of the program; None if it cannot be stored.

    A class that nobody registered is stored by its name if that name leads back to it (D48), unless `strict`.
    """
    entry = registry.lookup_class(cls)
    if entry is None:
        entry = langchain.find(registry.name_of(cls))
    if entry is not None and entry.encode is not None:
        return _codec_encoder(entry.name, entry.encode)
    kind = registry.kind_of(cls)
    name = entry.name if entry is not None else registry.name_of(cls)
    if entry is None and (strict or kind is None or registry.resolve_imported(name) is not cls):
        return None
    if kind == "enum":
        return _enum_encoder(name)
    if kind == "namedtuple":
        return _namedtuple_encoder(name, cls)
    if kind == "dataclass":
        return _dataclass_encoder(name, cls)
    if kind == "model":
        return _model_encoder(name, cls)
    return _instance_encoder(name, cls)


def encode_opaque(value: Opaque, writer: Writer) -> Ext:
    """The extension value that was read as opaque."""
    return Ext(value._kind, value._body)


def _codec_encoder(name: str, encode: Callable[[Any], Any]) -> Encoder:
    def encoder(value: Any, writer: Writer) -> Ext:
        return Ext(CODEC, writer.pack_headed(name, encode(value)))

    return encoder


def _decode_codec(reader: Reader, body: bytes) -> Any:
    name, payload = reader.unpack(body)
    entry = registry.lookup_name(name)
    if entry is None:
        raise UnknownTypeError(name)
    if entry.decode is None:
        raise ChangedTypeError(name, "it was stored through a codec, and none is registered now")
    return entry.decode(payload)


def _enum_encoder(name: str) -> Encoder:
    def encoder(value: Any, writer: Writer) -> Ext:
        content = value._value_
        if type(content) is not str and type(content) is not int and not writer.can_pack(content):
            content = None  # members such as functions: the name will do
        return Ext(ENUM, writer.pack([name, value._name_, content]))

    return encoder


def _decode_enum(reader: Reader, body: bytes) -> Any:
    name, member_name, value = reader.unpack(body)
    cls, registered = reader.find(name)
    entry = registry.lookup_name(name)
    if entry is not None and entry.decode is not None:
        return entry.decode(value)
    if not issubclass(cls, enum.Enum):
        raise ChangedTypeError(name, "it was an enum")
    # By name first: with `auto()` the values move when a member is inserted. A renamed member is found by its value.
    member = cls._member_map_.get(member_name)
    if member is not None:
        return member
    for member in cls._member_map_.values():
        if member._value_ == value and type(member._value_) is type(value):
            return member
    if issubclass(cls, enum.Flag) and (registered or "_missing_" not in vars(cls)):
        return cls(value)
    raise ChangedTypeError(name, f"it has no member {member_name!r} and none of value {value!r:.100}")


def _namedtuple_encoder(name: str, cls: type) -> Encoder:
    fields: tuple[str, ...] = cls._fields  # type: ignore[attr-defined]

    def encoder(value: Any, writer: Writer) -> Ext:
        if getattr(value, "__dict__", None):
            raise UnregisteredTypeError(cls, f"{writer.path}.__dict__".removeprefix("."))
        return Ext(NAMEDTUPLE, writer.pack_headed(name, dict(zip(fields, tuple.__iter__(value), strict=True))))

    return encoder


def _dataclass_encoder(name: str, cls: type) -> Encoder:
    fields = tuple(field.name for field in dataclasses.fields(cls))

    def encoder(value: Any, writer: Writer) -> Ext:
        # A field that was never set (init=False without default) stays unset.
        return Ext(DATACLASS, writer.pack_headed(name, {f: getattr(value, f) for f in fields if hasattr(value, f)}))

    return encoder


def _instance_encoder(name: str, cls: type) -> Encoder | None:
    base: Any = next((base for base in registry.BUILTIN_BASES if issubclass(cls, base)), None)
    try:
        (base or object).__new__(cls)
    except TypeError:
        # It extends some other class written in C (deque, OrderedDict, ...), whose content nobody here would see.
        return None

    def encoder(value: Any, writer: Writer) -> Ext:
        attributes = _attributes(value)
        if base is None:
            return Ext(INSTANCE, writer.pack_headed([name, _ATTRIBUTES], attributes))
        content = _AS_BASE[base](value)
        if not attributes:
            return Ext(INSTANCE, writer.pack_headed([name, _CONTENT], content))
        return Ext(INSTANCE, writer.pack_headed([name, _BOTH], [content, attributes]))

    return encoder


_ATTRIBUTES, _CONTENT, _BOTH = range(3)

# The value of an instance of a subclass, without calling what the subclass overrides.
_AS_BASE: Final[dict[type, Callable[[Any], Any]]] = {
    dict: lambda value: dict(dict.items(value)),
    list: lambda value: list(list.__iter__(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    str: str.__str__,
    bytes: lambda value: bytes(memoryview(value)),
    bytearray: lambda value: bytearray(memoryview(value)),
    int: int.__int__,
    float: float.__float__,
    complex: complex.__pos__,
}


def _attributes(value: Any) -> dict[str, Any]:
    found = dict(getattr(value, "__dict__", None) or {})
    for base in type(value).__mro__:
        for slot, member in vars(base).items():
            if type(member) is types.MemberDescriptorType and slot not in found and hasattr(value, slot):
                found[slot] = getattr(value, slot)
    return found


def _decode_instance(reader: Reader, body: bytes) -> Any:
    (name, form), stored = reader.unpack(body)
    entry = registry.lookup_name(name) or langchain.find(name)
    if entry is None:
        raise UnknownTypeError(name)
    if entry.decode is not None:
        return entry.decode(stored)
    cls = entry.cls
    if form == _ATTRIBUTES:
        bare: Any = object.__new__(cls)
        _set_attributes(bare, stored, name)
        return bare
    content, attributes = stored if form == _BOTH else (stored, {})
    base: Any = type(content)
    if not issubclass(cls, base):
        raise ChangedTypeError(name, f"it extended {base.__name__}")
    fill = _FILL.get(base)
    value: Any = base.__new__(cls) if fill is not None else base.__new__(cls, content)
    if fill is not None:
        fill(value, content)
    _set_attributes(value, attributes, name)
    return value


_FILL: Final[dict[type, Callable[[Any, Any], Any]]] = {
    dict: dict.update,
    list: list.extend,
    set: set.update,
    bytearray: bytearray.extend,
}


def _set_attributes(value: Any, attributes: Mapping[str, Any], name: str) -> None:
    """Set slots and entries of `__dict__` directly: no `__setattr__`, property or descriptor of the class runs."""
    slots = {
        slot: member
        for base in type(value).__mro__
        for slot, member in vars(base).items()
        if type(member) is types.MemberDescriptorType
    }
    for attribute, content in attributes.items():
        if attribute in slots:
            slots[attribute].__set__(value, content)
        elif hasattr(value, "__dict__"):
            value.__dict__[attribute] = content
        else:
            raise ChangedTypeError(name, f"it has no attribute {attribute!r}")


def _decode_fields(reader: Reader, body: bytes) -> Any:
    """A value that was stored field by field, rebuilt as what its class is now (once NamedTuple, now model)."""
    head, fields = reader.unpack(body)
    name, more = (head, {}) if isinstance(head, str) else head  # only models store more than the fields
    cls, registered = reader.find(name)
    entry = registry.lookup_name(name)
    if entry is not None and entry.decode is not None:
        return entry.decode(fields)
    kind = registry.kind_of(cls)
    if kind == "namedtuple":
        defaults = cls._field_defaults  # type: ignore[attr-defined]
        complete = _complete(name, fields, {f: defaults.get(f, _REQUIRED) for f in cls._fields})  # type: ignore[attr-defined]
        return tuple.__new__(cls, complete.values())
    if kind == "dataclass":
        return _rebuild_dataclass(name, cls, fields, registered)
    if kind == "model":
        return _rebuild_model(name, cls, fields, more, registered)
    raise ChangedTypeError(name, "it was a class with fields")


class _Required:
    """Stands for "no default"."""


_REQUIRED: Final = _Required()


def _complete(name: str, stored: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The stored fields in the order of `defaults`, missing ones filled in."""
    unknown = [field for field in stored if field not in defaults]
    if unknown:
        raise ChangedTypeError(name, f"stored field {unknown[0]!r} is gone")
    complete = {field: stored.get(field, default) for field, default in defaults.items()}
    for field, value in complete.items():
        if value is _REQUIRED:
            raise ChangedTypeError(name, f"field {field!r} is not in the stored value and has no default")
    return complete


def _may_run(factory: Any, registered: bool) -> bool:
    """May a default factory be called? Of a class that nobody registered only a built-in one."""
    return registered or any(factory is plain for plain in FACTORIES.values())


def _rebuild_dataclass(name: str, cls: type, stored: Mapping[str, Any], registered: bool) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = [field for field in stored if field not in fields]
    if unknown:
        raise ChangedTypeError(name, f"stored field {unknown[0]!r} is gone")
    declared: dict[str, Any] = vars(cls).get("__dataclass_fields__", {})
    # `InitVar`s are not stored, so such a constructor cannot be called.
    if registered and all(str(field._field_type) != "_FIELD_INITVAR" for field in declared.values()):
        try:
            value = cls(**{field: content for field, content in stored.items() if fields[field].init})
        except Exception as error:
            raise ChangedTypeError(name, f"its constructor refused the stored fields: {error!r:.200}") from error
        # What the constructor derived from them must not win over what was stored.
        _set_attributes(value, stored, name)
        return value
    value = object.__new__(cls)
    for field in fields.values():
        if field.name in stored:
            continue
        if field.default is not dataclasses.MISSING:
            _set_attributes(value, {field.name: field.default}, name)
        elif field.default_factory is not dataclasses.MISSING and _may_run(field.default_factory, registered):
            _set_attributes(value, {field.name: field.default_factory()}, name)
        elif field.init:
            raise ChangedTypeError(name, f"field {field.name!r} is not in the stored value and has no plain default")
    _set_attributes(value, stored, name)
    return value


# ---- pydantic models: their state is set directly, as their own copy and pickle do. Nothing is validated, so a value
# ---- that was valid when it was stored comes back as it was, subclasses in base-typed fields included


def _model_encoder(name: str, cls: Any) -> Encoder:
    is_v2 = _is_v2(cls)
    fields = tuple(_model_fields(cls))

    def encoder(value: Any, writer: Writer) -> Ext:
        state: dict[str, Any] = value.__dict__
        stored = {field: state[field] for field in fields if field in state}
        more: dict[str, Any] = {}
        given = value.__pydantic_fields_set__ if is_v2 else value.__fields_set__
        if given != stored.keys():
            more["set"] = sorted(given)
        if len(stored) < len(fields):
            more["unset"] = [field for field in fields if field not in stored]
        extra = value.__pydantic_extra__ if is_v2 else {field: state[field] for field in state if field not in stored}
        if extra:
            more["extra"] = extra
        private = _storable_private(value, is_v2, writer)
        if private:
            more["private"] = private
        return Ext(MODEL, writer.pack_headed([name, more] if more else name, stored))

    return encoder


def _is_v2(cls: Any) -> bool:
    return hasattr(cls, "__pydantic_core_schema__")


def _model_fields(cls: Any) -> Mapping[str, Any]:
    # The class attribute first: asking for `model_fields` is what older versions need.
    found = getattr(cls, "__pydantic_fields__", None)
    if found is None:
        found = cls.model_fields if _is_v2(cls) else cls.__fields__
    return found  # type: ignore[no-any-return]


def _storable_private(value: Any, is_v2: bool, writer: Writer) -> dict[str, Any]:
    """Private attributes that can be stored. The others (clients, locks) get their default when the model is read."""
    if is_v2:
        attributes = value.__pydantic_private__ or {}
    else:
        attributes = {name: getattr(value, name) for name in value.__private_attributes__ if hasattr(value, name)}
    return {name: content for name, content in attributes.items() if writer.can_pack(content)}


def _default_of(declared: Any, state: Mapping[str, Any]) -> Any:
    """The default of a field or private attribute; not what `get_default` does, which changed between versions."""
    factory = declared.default_factory
    if factory is None:
        return declared.get_default()
    return factory(state) if getattr(declared, "default_factory_takes_validated_data", False) else factory()


def _rebuild_model(name: str, cls: Any, stored: Mapping[str, Any], more: Mapping[str, Any], registered: bool) -> Any:
    is_v2 = _is_v2(cls)
    fields = _model_fields(cls)
    state = dict(stored)
    for field in stored:
        if field not in fields:
            raise ChangedTypeError(name, f"stored field {field!r} is gone")
    for field, declared in fields.items():
        if field not in stored and field not in more.get("unset", ()):
            required = declared.is_required() if is_v2 else declared.required
            if required or not _may_run(declared.default_factory or list, registered):
                raise ChangedTypeError(name, f"field {field!r} is not in the stored value and has no plain default")
            state[field] = _default_of(declared, state)
    private = dict(more.get("private", {}))
    for attribute, declared in (cls.__private_attributes__ or {}).items():
        factory = declared.default_factory
        if attribute not in private and (factory is None or _may_run(factory, registered)):
            default = _default_of(declared, state)
            if type(default).__name__ not in ("PydanticUndefinedType", "UndefinedType"):
                private[attribute] = default
    value = object.__new__(cls)
    given = set(more.get("set", stored))
    if is_v2:
        empty: dict[str, Any] | None = {} if cls.model_config.get("extra") == "allow" else None
        object.__setattr__(value, "__dict__", {field: state[field] for field in fields if field in state})
        object.__setattr__(value, "__pydantic_fields_set__", given)
        is_root = getattr(cls, "__pydantic_root_model__", False)
        if not is_root:  # root models have class attributes in place of these two
            object.__setattr__(value, "__pydantic_extra__", more.get("extra", empty))
        if not is_root or private:
            object.__setattr__(value, "__pydantic_private__", private if cls.__private_attributes__ else None)
    else:
        object.__setattr__(value, "__dict__", {**state, **more.get("extra", {})})
        object.__setattr__(value, "__fields_set__", given)
        for attribute, content in private.items():
            object.__setattr__(value, attribute, content)
    return value


DECODERS: Final[dict[int, Decoder]] = {
    CODEC: _decode_codec,
    DATACLASS: _decode_fields,
    MODEL: _decode_fields,
    ENUM: _decode_enum,
    NAMEDTUPLE: _decode_fields,
    INSTANCE: _decode_instance,
}
