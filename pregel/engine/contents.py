"""What values are told by: 128 bits of what is in them, equal in every process. They are stored.

Decides when two lists of arguments, or two inputs, are the same. Lenient where the keys of a cache are strict
(`pregel.cache.keys`): no value is refused, since nobody is to lose a run over an object that has no content to go by. What
counts by its content: values of the standard library, dataclasses, models, named tuples, enums, arrays, and arguments that
have a codec. All else counts by its class alone, so a live object (a client, a lock) never differs.

Two ways, for two questions. Arguments are told on every call that a task makes: marshal writes most of them in one go, and
the order of a dict counts. Inputs are told once per call with a run id, which may come from another process that has built
its dicts in another order; and a run gives ids to messages that have none, in place, so those do not count.
"""

from __future__ import annotations

from _blake2 import blake2b  # hashlib's own, without loading OpenSSL
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from marshal import dumps
from typing import Any, Final

from checkpoint import registry
from pregel.messages import Message

CANONICAL: Final = 2
"""Version of the marshal format that says nothing of identity: equal values give equal bytes in every process."""
MAX_DEPTH: Final = 100
"""Levels of a value that are looked at."""
PLAIN: Final = frozenset({int, str, float, bool, type(None), bytes})
SCALARS: Final[dict[type, Callable[[Any], Any]]] = {
    str: str.__str__,
    bytes: bytes.__bytes__,
    int: int.__index__,
    float: float.__float__,
}
"""What an object of a subclass is told by."""
TEXTUAL: Final = frozenset({"datetime", "decimal", "fractions", "ipaddress", "pathlib", "uuid", "zoneinfo"})
"""Modules of the standard library whose objects are told by their `repr`."""


# ---- arguments


def of_arguments(argument: Any) -> str:
    """What the arguments of a called task are told by: 128 bits in hex, equal in every process."""
    try:
        args, keywords = argument
        if len(keywords) > 1:
            keywords = dict(sorted(keywords.items()))
        if not PLAIN.issuperset(map(type, args)) and any(map(_is_buffer, args)):
            raise ValueError
        data = dumps((args, keywords), CANONICAL)
    except (TypeError, ValueError):
        data = dumps(_described(argument, []), CANONICAL)
    text: str = blake2b(data, digest_size=16).hexdigest()
    return text


def _is_buffer(value: Any) -> bool:
    """Would it be told by its bytes alone, without its type and shape?"""
    return hasattr(type(value), "dtype") or type(value) is bytearray


def _described(value: Any, around: list[int]) -> Any:
    """A value as something that marshal can write: its class, and what is in it. `around`: ids of what it is in; of what
    contains itself, the inner one is told by its class."""
    kind = type(value)
    if kind in PLAIN:
        return value
    name = registry.name_of(kind)
    if len(around) > MAX_DEPTH or id(value) in around:
        return name
    around.append(id(value))
    try:
        return _inside(value, kind, name, around)
    finally:
        around.pop()


def _inside(value: Any, kind: type, name: str, around: list[int]) -> Any:
    if isinstance(value, (list, tuple)) and not hasattr(kind, "_fields"):
        return name, [_described(item, around) for item in value]
    if isinstance(value, dict):
        return name, [(_described(key, around), _described(item, around)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return name, sorted(dumps(_described(item, around), CANONICAL) for item in value)
    for base, value_of in SCALARS.items():
        if isinstance(value, base) and registry.kind_of(kind) != "enum":
            return name, value_of(value)
    return name, _content(value, kind, around)


def _content(value: Any, kind: type, around: list[int]) -> Any:
    """What is in an object that is no container of the language; None for what cannot be told apart."""
    shape = registry.kind_of(kind)
    if shape == "enum":
        return str(value.name)
    if shape == "exception":
        return _described(value.args, around)
    known = registry.lookup_class(kind)
    if known is not None and known.encode is not None:
        return _described(known.encode(value), around)
    if shape == "namedtuple":
        return [_described(item, around) for item in value]
    if shape == "dataclass":
        return [_described(getattr(value, field.name, None), around) for field in fields(value)]
    if shape == "model":
        names = getattr(kind, "model_fields", None) or getattr(kind, "__fields__", {})
        return [(name, _described(getattr(value, name, None), around)) for name in names]
    if kind.__module__.partition(".")[0] in TEXTUAL or kind in (complex, range, bytearray, slice):
        return repr(value)
    if kind.__module__ == "collections":
        return [_described(item, around) for item in value]  # a deque
    if hasattr(kind, "dtype") and hasattr(kind, "tobytes"):
        return str(value.dtype), str(value.shape), value.tobytes()
    if known is not None:
        return _described(vars(value) if hasattr(value, "__dict__") else {}, around)
    return getattr(value, "__qualname__", None) if callable(value) else None


# ---- inputs


def of_input(value: Any) -> str:
    """128 bits over a value's content, the same in every process.

    Ids of message objects do not count: a run gives them to messages that have none, in place. What has no content that
    can be read counts as its type alone: two such inputs are taken for the same.
    """
    hashed = blake2b(digest_size=16)
    _feed(hashed, value, [])
    text: str = hashed.hexdigest()
    return text


def _feed(hashed: Any, value: Any, around: list[int]) -> None:
    """Add a value: its type, its length, its parts. `around`: ids of the containers that it is in."""
    kind = type(value)
    name = kind.__qualname__
    if value is None or isinstance(value, (bool, int, float, complex)):
        _token(hashed, name, repr(value).encode())
    elif isinstance(value, str):
        _token(hashed, name, value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, (bytes, bytearray, memoryview)):
        _token(hashed, name, bytes(value))
    elif isinstance(value, Enum):
        _token(hashed, name, value.name.encode())
    elif kind.__module__.partition(".")[0] in TEXTUAL:
        _token(hashed, name, repr(value).encode())
    elif id(value) in around or len(around) > MAX_DEPTH:
        hashed.update(b"...")
    else:
        around.append(id(value))
        _feed_parts(hashed, name, value, around)
        around.pop()


def _feed_parts(hashed: Any, name: str, value: Any, around: list[int]) -> None:
    """Add a container, in an order that depends on its content alone."""
    if isinstance(value, Mapping):
        items = [
            (_part(key, around), item) for key, item in value.items() if key != "id" or not isinstance(value, Message)
        ]
        _token(hashed, name, str(len(items)).encode())
        for key, item in sorted(items, key=lambda pair: pair[0]):
            hashed.update(key)
            _feed(hashed, item, around)
    elif isinstance(value, (set, frozenset)):
        _token(hashed, name, b"".join(sorted(_part(item, around) for item in value)))
    elif isinstance(value, Sequence):
        _token(hashed, name, str(len(value)).encode())
        for item in value:
            _feed(hashed, item, around)
    else:
        _token(hashed, name, b"")
        _feed(hashed, _fields_of(value), around)


def _fields_of(value: Any) -> dict[str, Any]:
    """Fields of a dataclass, a model, or one of our own objects; other objects have no content that can be read."""
    kind = type(value)
    names: Any = getattr(kind, "__dataclass_fields__", None) or getattr(kind, "model_fields", None)
    if names is None and kind.__module__.startswith("pregel."):
        names = getattr(kind, "__slots__", ())
    if hasattr(value, "dtype") and hasattr(value, "tobytes"):
        return {"dtype": str(value.dtype), "shape": str(value.shape), "bytes": value.tobytes()}
    is_message = hasattr(value, "content") and hasattr(value, "type")
    return {name: getattr(value, name, None) for name in names or () if not (is_message and name == "id")}


def _token(hashed: Any, name: str, data: bytes) -> None:
    hashed.update(f"{name}:{len(data)}:".encode())
    hashed.update(data)


def _part(value: Any, around: list[int]) -> bytes:
    hashed = blake2b(digest_size=16)
    _feed(hashed, value, around)
    found: bytes = hashed.digest()
    return found
