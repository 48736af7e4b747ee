"""Which classes may be stored, and under which name.

Decides the stored name of a class (`module:qualname` unless one is given), finds the class of a stored name, and
recognises the kinds of classes that can be taken apart field by field. Does not know how values become bytes: the
codec (`checkpoint.serde.msgpack`) reads this table, and `pregel` fills it.

The table is filled from code only: by `register`, by `register_codec`, and by the two walks that `compile()` makes
over annotations and over the modules that define a program's functions. Nothing here imports a module, and no stored
name is ever used to look anything up but this table and the namespaces of modules that are already imported.

Invariants
1. One class per name: registering a name again replaces the class for later loads; instances of the former class can
   still be saved.
2. A class that was registered on purpose is never overridden by a walk.
3. A class that is no longer the one behind any name is held weakly: programs that define classes in functions do not
   leak.

Source: the idea of a closed table of names is that of protocol buffers' `Any` with a type registry.
"""

from __future__ import annotations

import enum
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol, TypeVar, overload

T = TypeVar("T")
C = TypeVar("C", bound=type)

Kind = Literal["enum", "namedtuple", "dataclass", "model", "exception"]
"""Classes whose instances can be taken apart without their help."""

BUILTIN_BASES: Final = (dict, list, set, frozenset, tuple, str, bytes, bytearray, int, float, complex)
"""A subclass of one of these has a value beside its attributes."""


class Entry(NamedTuple):
    """What is known about one class. `encode` and `decode` are None for classes that are taken apart by kind."""

    name: str
    cls: type
    encode: Callable[[Any], Any] | None = None
    """Instance -> plain value."""
    decode: Callable[[Any], Any] | None = None
    """What `encode` returned -> instance."""


class Listener(Protocol):
    """Something that remembers what it found here."""

    def forget_types(self) -> None:
        """A name changed its class, or a class its name."""


class _Known(NamedTuple):
    # Value of a weak table whose key is the class: must not hold the class.
    name: str
    encode: Callable[[Any], Any] | None
    decode: Callable[[Any], Any] | None


_by_name: dict[str, Entry] = {}
_by_class: weakref.WeakKeyDictionary[type, _Known] = weakref.WeakKeyDictionary()
_kinds: weakref.WeakKeyDictionary[type, Kind] = weakref.WeakKeyDictionary()
_listeners: weakref.WeakSet[Any] = weakref.WeakSet()
_lock = threading.RLock()
# Module -> what its last scan saw: number of globals, and the classes it found under which global name.
_scanned: dict[str, tuple[int, tuple[tuple[str, type], ...]]] = {}


@overload
def register(cls: C, *, name: str | None = None, aliases: Iterable[str] = ()) -> C: ...
@overload
def register(cls: None = None, *, name: str | None = None, aliases: Iterable[str] = ()) -> Callable[[C], C]: ...
def register(cls: Any = None, *, name: str | None = None, aliases: Iterable[str] = ()) -> Any:
    """Let instances of a class be stored. Usable as `@register`, `@register(name=...)` or `register(cls)`.

    Args:
        cls: any class. Dataclasses, pydantic models, enums and NamedTuples are stored field by field; other classes by
            their attributes, and by their value if they extend a built-in such as `dict` or `str`.
        name: what is stored; `module:qualname` if None. Give one to be free to move the class.
        aliases: further names under which older checkpoints hold it.

    Raises:
        TypeError: `cls` is not a class.
    """
    if cls is None:
        return lambda decorated: register(decorated, name=name, aliases=aliases)
    if not isinstance(cls, type):
        raise TypeError(
            f"register got {cls!r:.200}, which is not a class; decorate the class itself, or give its class to "
            f"register()"
        )
    _enter(Entry(name or name_of(cls), cls), tuple(aliases))
    return cls


def register_codec(
    cls: type[T],
    name: str,
    encode: Callable[[T], Any],
    decode: Callable[[Any], T],
    *,
    aliases: Iterable[str] = (),
) -> None:
    """Store instances of exactly `cls` through a pair of functions.

    Args:
        cls: subclasses need an entry of their own.
        name: what is stored.
        encode: instance -> any value that can be stored. Must not keep the instance.
        decode: gets what `encode` returned; for data that was stored before there was a codec, a dict of the fields.
        aliases: further names under which older checkpoints hold it.
    """
    _enter(Entry(name, cls, encode, decode), tuple(aliases))


def lookup_class(cls: type) -> Entry | None:
    """The entry under which instances of exactly this class are saved."""
    known = _by_class.get(cls)
    return None if known is None else Entry(known.name, cls, known.encode, known.decode)


def lookup_name(name: str) -> Entry | None:
    """The entry that a stored name stands for."""
    return _by_name.get(name)


def subscribe(listener: Listener) -> None:
    """Tell `listener` about changes. It is held weakly."""
    _listeners.add(listener)


def name_of(cls: type) -> str:
    """The default name of a class."""
    return f"{cls.__module__}:{cls.__qualname__}"


def kind_of(cls: type) -> Kind | None:
    """How instances of a class can be taken apart; None for all other classes."""
    kind = _kinds.get(cls)
    if kind is None:
        kind = _find_kind(cls)
        if kind is not None:
            _kinds[cls] = kind
    return kind


def _find_kind(cls: type) -> Kind | None:
    if issubclass(cls, enum.Enum):
        return "enum"
    if issubclass(cls, BaseException):
        return "exception"
    if issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
        return "namedtuple"
    if issubclass(cls, BUILTIN_BASES):
        # Its fields are not its whole value.
        return None
    if any("__dataclass_fields__" in vars(base) for base in cls.__mro__):
        return "dataclass"
    return "model" if is_model(cls) else None


def is_model(cls: type) -> bool:
    """Is it a pydantic model? Asks only modules that are loaded: without pydantic no class can be one."""
    # Where the base classes are defined, because the package would import them to answer.
    for module_name in ("pydantic.main", "pydantic.v1.main"):
        module = sys.modules.get(module_name)
        base = None if module is None else vars(module).get("BaseModel")
        if isinstance(base, type) and cls is not base and issubclass(cls, base):
            return True
    return False


def resolve_imported(name: str) -> type | None:
    """The class that `module:qualname` names, if its module is imported already.

    Reads namespaces as they are: no import, no module-level `__getattr__`, no descriptor runs.
    """
    module_name, _, qualname = name.partition(":")
    module = sys.modules.get(module_name)
    if not isinstance(module, types.ModuleType) or not qualname:
        return None
    namespace: Mapping[str, Any] = vars(module)
    found = namespace.get(qualname)  # whole first: names of generic models contain dots, `Page[app.Item]`
    if found is None:
        for part in qualname.split("."):
            found = namespace.get(part)
            if not isinstance(found, type):
                return None
            namespace = vars(found)
    return found if isinstance(found, type) else None


def register_reachable(annotation: Any, seen: dict[int, Any] | None = None) -> None:
    """Register every dataclass, model, enum, NamedTuple and exception class that an annotation leads to.

    Args:
        annotation: a class, a type expression, or a function (its parameters and its result). Text that is not
            resolved yet is skipped.
        seen: what was walked already, by id; give one dict to all calls of one compile.
    """
    # Values are kept because ids of dead objects come back.
    walked = {} if seen is None else seen
    todo = [annotation]
    while todo:
        item = todo.pop()
        if item is None or item is Any or isinstance(item, (str, bytes, int, typing.ForwardRef)) or id(item) in walked:
            if isinstance(item, enum.Enum):
                _register_found(type(item))
            continue
        walked[id(item)] = item
        if isinstance(item, (list, tuple)):  # parameters of Callable[[A], B]
            todo.extend(item)
        elif isinstance(item, TypeVar):
            todo.extend((item.__bound__, *item.__constraints__))
        elif (origin := typing.get_origin(item)) is not None:
            todo.extend(typing.get_args(item))
            todo.extend(getattr(item, "__metadata__", ()))
            if origin is not Annotated:
                todo.append(origin)
        elif isinstance(item, type):
            _register_found(item)
            todo.extend(_field_annotations(item))
        elif isinstance(item, enum.Enum):
            _register_found(type(item))
        elif isinstance(item, (types.FunctionType, types.MethodType)):
            todo.extend(_hints(item).values())
        else:  # NewType, `type X = ...`
            todo.append(getattr(item, "__supertype__", None))
            if type(item).__name__ == "TypeAliasType":
                todo.append(item.__value__)


def register_module(module_name: str) -> None:
    """Register every class of the five kinds that a module's globals name, wherever it was defined.

    Does nothing for a module that is not imported. A second call for an unchanged module costs one check per class.
    """
    module = sys.modules.get(module_name)
    if not isinstance(module, types.ModuleType):
        return
    namespace = vars(module)
    size, found = _scanned.get(module_name, (-1, ()))
    if size == len(namespace) and all(namespace.get(name) is cls for name, cls in found):
        return
    # `type(...)`, because `isinstance` would run the `__class__` property of lazy proxies.
    classes = tuple((name, value) for name, value in list(namespace.items()) if issubclass(type(value), type))
    _scanned[module_name] = (len(namespace), tuple(item for item in classes if _register_found(item[1])))


# ---- behind the public names


def _enter(entry: Entry, aliases: tuple[str, ...]) -> None:
    with _lock:
        for name in (entry.name, *aliases):
            _by_name[name] = entry
        _by_class[entry.cls] = _Known(entry.name, entry.encode, entry.decode)
        listeners = list(_listeners)
    for listener in listeners:
        listener.forget_types()


def _register_found(cls: type) -> bool:
    """Register what a walk met, unless the class or its kind says no. True if the class is of a kind."""
    try:
        kind = kind_of(cls)
    except Exception:  # noqa: BLE001 - a metaclass with opinions; such a class is registered by hand or not at all
        return False
    if kind is None or (kind == "enum" and not cls.__members__):  # type: ignore[attr-defined]
        return False
    known = _by_class.get(cls)
    if known is None:
        _enter(Entry(name_of(cls), cls), ())
    elif _by_name[known.name].cls is not cls:
        # The name went to a newer class, and the program now uses this one again.
        _enter(Entry(known.name, cls, known.encode, known.decode), ())
    return True


def _field_annotations(cls: type) -> list[Any]:
    """Annotations of the fields of a TypedDict, dataclass, NamedTuple or model, and of its bases."""
    if is_model(cls):
        fields = getattr(cls, "model_fields", None) or getattr(cls, "__fields__", {})
        found: list[Any] = []
        for field in fields.values():
            found.append(getattr(field, "annotation", None))
            found.extend(getattr(field, "metadata", ()))
        return found
    if kind_of(cls) in ("dataclass", "namedtuple") or hasattr(cls, "__total__"):
        return list(_hints(cls).values())
    return []


def _hints(annotated: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(annotated, include_extras=True)
    except Exception:  # noqa: BLE001 - a name that exists for type checkers only; the others are still worth a walk
        raw = getattr(annotated, "__annotations__", {})
        return dict(raw) if isinstance(raw, dict) else {}
