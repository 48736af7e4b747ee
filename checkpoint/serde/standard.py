"""How values of the standard library, numpy and pydantic's secrets are written and read.

Decides the bodies of the extension values below `FIRST_NAMED`. Knows no class of the program.

Modules that few programs use (decimal, pathlib, ...) are not imported to write: without them there can be no instance.
To read, they are imported by fixed names; what is stored never names one.
"""

from __future__ import annotations

import heapq
import importlib
import math
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from itertools import islice
from typing import Any, Final
from uuid import UUID

from ormsgpack import Ext, packb, unpackb

from checkpoint.base import CheckpointError, CorruptCheckpointError, UnknownTypeError, UnregisteredTypeError
from checkpoint.serde.base import StoredError
from checkpoint.serde.extensions import (
    BIG_INT,
    BYTEARRAY,
    COMPLEX,
    COUNTER,
    DATE,
    DATETIME,
    DECIMAL,
    DEFAULT_DICT,
    DEQUE,
    ERROR,
    FRACTION,
    FROZENSET,
    IP,
    MAP,
    NDARRAY,
    NUMPY_SCALAR,
    ORDERED_DICT,
    PATH,
    PATTERN,
    RANGE,
    SECRET,
    SET,
    SLICE,
    SURROGATES,
    TIME,
    TIMEDELTA,
    TIMEZONE,
    TUPLE,
    UUID_,
    ZONEINFO,
    Decoder,
    Encoder,
    Reader,
    Writer,
)
from checkpoint.turns import BLOCK_ELEMENTS, in_turns

_SORTED_AT_ONCE: Final = 512
"""Elements of a large set between two turns of other threads."""
MAX_PATTERN: Final = 10_000
"""Characters of a regular expression, which is compiled on load."""
MAX_SETS: Final = 800
"""Character sets in a regular expression that ignores case: each costs up to 0.2 ms to compile."""
MAX_WIDE_SETS: Final = 40
"""The same, if characters beyond Latin-1 may be in them: up to 5 ms each."""
MAX_FRACTION: Final = 16_384
"""Bytes of numerator and of denominator: dividing out what they share takes time by the square of that."""
MAX_TRACEBACK: Final = 20_000
"""Characters kept of the traceback of a stored exception, from its end."""


def _late(module_name: str) -> types.ModuleType:
    """A module that only some values need. Callers pass one of a fixed handful of literals, never a stored name."""
    return importlib.import_module(module_name)


def _encode_tuple(value: tuple[Any, ...], writer: Writer) -> Ext:
    return Ext(TUPLE, writer.pack(list(value)))


def _decode_tuple(reader: Reader, body: bytes) -> tuple[Any, ...]:
    return tuple(reader.unpack(body))


def _sorted_body(value: Collection[Any], writer: Writer) -> bytes:
    n = len(value)
    parts = sorted(map(writer.pack, value)) if n <= BLOCK_ELEMENTS else _sorted_in_turns(map(writer.pack, value))
    if n < 16:
        header = bytes((0x90 | n,))
    elif n < 1 << 16:
        header = b"\xdc" + n.to_bytes(2, "big")
    else:
        header = b"\xdd" + n.to_bytes(4, "big")
    return header + b"".join(parts)


def _sorted_in_turns(parts: Iterable[bytes]) -> list[bytes]:
    """As `sorted`, which would hold the interpreter until it is done."""
    rest = in_turns(parts, _SORTED_AT_ONCE)
    runs: list[list[bytes]] = []
    while run := sorted(islice(rest, _SORTED_AT_ONCE)):
        runs.append(run)
    return list(in_turns(heapq.merge(*runs), _SORTED_AT_ONCE))


def _encode_set(value: set[Any], writer: Writer) -> Ext:
    return Ext(SET, _sorted_body(value, writer))


def _decode_set(reader: Reader, body: bytes) -> set[Any]:
    return set(reader.unpack(body))


def _encode_frozenset(value: frozenset[Any], writer: Writer) -> Ext:
    return Ext(FROZENSET, _sorted_body(value, writer))


def _decode_frozenset(reader: Reader, body: bytes) -> frozenset[Any]:
    return frozenset(reader.unpack(body))


def _encode_deque(value: deque[Any], writer: Writer) -> Ext:
    return Ext(DEQUE, writer.pack_headed(value.maxlen, list(value)))


def _decode_deque(reader: Reader, body: bytes) -> deque[Any]:
    maxlen, items = reader.unpack(body)
    if maxlen is not None and len(items) > maxlen:
        raise CorruptCheckpointError(f"a deque of at most {maxlen} elements has {len(items)}")
    return deque(items, maxlen)


def _encode_bytearray(value: bytearray, writer: Writer) -> Ext:
    return Ext(BYTEARRAY, bytes(value))


def _decode_bytearray(reader: Reader, body: bytes) -> bytearray:
    return bytearray(body)


def encode_big_int(value: int, writer: Writer) -> Ext:
    """An int beyond 64 bits."""
    return Ext(BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _decode_big_int(reader: Reader, body: bytes) -> int:
    return int.from_bytes(body, "big", signed=True)


def encode_surrogates(value: str, writer: Writer) -> Ext:
    """Text that has no UTF-8 form."""
    return Ext(SURROGATES, value.encode("utf-8", "surrogatepass"))


def _decode_surrogates(reader: Reader, body: bytes) -> str:
    return body.decode("utf-8", "surrogatepass")


def _pairs(reader: Reader, body: bytes) -> Iterable[tuple[Any, Any]]:
    flat = reader.unpack(body)
    return zip(flat[::2], flat[1::2], strict=True)


def encode_map(value: dict[Any, Any], writer: Writer) -> Ext:
    """A dict with keys that are not plain text."""
    return Ext(MAP, writer.pack_pairs(value))


def _decode_map(reader: Reader, body: bytes) -> dict[Any, Any]:
    return dict(_pairs(reader, body))


def _encode_ordered_dict(value: OrderedDict[Any, Any], writer: Writer) -> Ext:
    return Ext(ORDERED_DICT, writer.pack_pairs(value))


def _decode_ordered_dict(reader: Reader, body: bytes) -> OrderedDict[Any, Any]:
    return OrderedDict(_pairs(reader, body))


def _encode_counter(value: Counter[Any], writer: Writer) -> Ext:
    return Ext(COUNTER, writer.pack_pairs(value))


def _decode_counter(reader: Reader, body: bytes) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    dict.update(counter, _pairs(reader, body))  # Counter's own update counts
    return counter


FACTORIES: Final[dict[str, Any]] = {
    cls.__name__: cls
    for cls in (
        *(list, dict, set, frozenset, tuple, str, bytes, bytearray, int, float, complex, bool),
        *(deque, OrderedDict, Counter, defaultdict),
    )
}


def _encode_defaultdict(value: defaultdict[Any, Any], writer: Writer) -> Ext:
    factory: Any = value.default_factory
    name = None if factory is None else getattr(factory, "__name__", "")
    if name is not None and FACTORIES.get(name) is not factory:
        raise UnregisteredTypeError(type(factory), f"{writer.path}.default_factory".removeprefix("."))
    return Ext(DEFAULT_DICT, writer.pack_pairs(value, name))


def _decode_defaultdict(reader: Reader, body: bytes) -> defaultdict[Any, Any]:
    name, *flat = reader.unpack(body)
    factory = None if name is None else FACTORIES[name]
    return defaultdict(factory, zip(flat[::2], flat[1::2], strict=True))


def _encode_complex(value: complex, writer: Writer) -> Ext:
    return Ext(COMPLEX, packb([value.real, value.imag]))


def _decode_complex(reader: Reader, body: bytes) -> complex:
    return complex(*unpackb(body))


def _encode_uuid(value: UUID, writer: Writer) -> Ext:
    return Ext(UUID_, value.bytes)


def _decode_uuid(reader: Reader, body: bytes) -> UUID:
    return UUID(bytes=bytes(body))


def _encode_zoned(code: int, value: datetime | time, writer: Writer) -> Ext:
    zone = value.tzinfo
    if not value.fold and (zone is None or zone is UTC):
        return Ext(code, value.isoformat().encode())
    return Ext(code, b"\xc0" + writer.pack_headed([value.replace(tzinfo=None).isoformat(), value.fold], zone))


def _unpack_zoned(reader: Reader, body: bytes) -> tuple[str, int, tzinfo | None]:
    if not body.startswith(b"\xc0"):
        return body.decode("ascii"), 0, None
    (text, fold), zone = reader.unpack(body[1:])
    if zone is not None and not isinstance(zone, tzinfo):
        raise CorruptCheckpointError(f"a {type(zone).__qualname__} as time zone")
    return text, fold, zone


def _encode_datetime(value: datetime, writer: Writer) -> Ext:
    return _encode_zoned(DATETIME, value, writer)


def _decode_datetime(reader: Reader, body: bytes) -> datetime:
    text, fold, zone = _unpack_zoned(reader, body)
    moment = datetime.fromisoformat(text)
    return moment if zone is None and not fold else moment.replace(tzinfo=zone, fold=fold)


def _encode_time(value: time, writer: Writer) -> Ext:
    return _encode_zoned(TIME, value, writer)


def _decode_time(reader: Reader, body: bytes) -> time:
    text, fold, zone = _unpack_zoned(reader, body)
    moment = time.fromisoformat(text)
    return moment if zone is None and not fold else moment.replace(tzinfo=zone, fold=fold)


def _encode_date(value: date, writer: Writer) -> Ext:
    return Ext(DATE, value.isoformat().encode())


def _decode_date(reader: Reader, body: bytes) -> date:
    return date.fromisoformat(body.decode("ascii"))


def _encode_timedelta(value: timedelta, writer: Writer) -> Ext:
    return Ext(TIMEDELTA, packb([value.days, value.seconds, value.microseconds]))


def _decode_timedelta(reader: Reader, body: bytes) -> timedelta:
    return timedelta(*unpackb(body))


def _encode_timezone(value: timezone, writer: Writer) -> Ext:
    # The constructor's arguments: offset, and the name if there is one.
    arguments: tuple[Any, ...] = value.__getinitargs__()  # type: ignore[attr-defined]
    return Ext(TIMEZONE, writer.pack(list(arguments)))


def _decode_timezone(reader: Reader, body: bytes) -> timezone:
    return timezone(*reader.unpack(body))


def _encode_zoneinfo(value: Any, writer: Writer) -> Ext:
    if value.key is None:  # read from a file: nothing to find it by later
        raise UnregisteredTypeError(type(value), writer.path)
    return Ext(ZONEINFO, value.key.encode())


def _decode_zoneinfo(reader: Reader, body: bytes) -> Any:
    key = body.decode("ascii")
    # The lookup may go on to files and to the data package `tzdata`; only names that can be there get that far.
    if len(key) > 64 or not all(
        part.replace("_", "").replace("-", "").replace("+", "").isalnum() for part in key.split("/")
    ):
        raise CorruptCheckpointError(f"{key!r:.100} is not the name of a time zone")
    return _late("zoneinfo").ZoneInfo(key)


def _encode_decimal(value: Any, writer: Writer) -> Ext:
    return Ext(DECIMAL, str(value).encode())


def _decode_decimal(reader: Reader, body: bytes) -> Any:
    return _late("decimal").Decimal(body.decode("ascii"))


def _encode_fraction(value: Any, writer: Writer) -> Ext:
    if _is_big(value.numerator) or _is_big(value.denominator):
        raise CheckpointError(
            f"cannot store a fraction (at {writer.path or 'the value itself'}) of integers beyond {MAX_FRACTION} "
            f"bytes; store numerator and denominator"
        )
    return Ext(FRACTION, writer.pack([value.numerator, value.denominator]))


def _is_big(number: Any) -> bool:
    return type(number) is int and number.bit_length() > 8 * MAX_FRACTION


def _decode_fraction(reader: Reader, body: bytes) -> Any:
    numerator, denominator = reader.unpack(body)
    if _is_big(numerator) or _is_big(denominator):
        raise CorruptCheckpointError(f"a fraction of integers beyond {MAX_FRACTION} bytes")
    return _late("fractions").Fraction(numerator, denominator)


_PATHS: Final = frozenset({"PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath"})


def _encode_path(value: Any, writer: Writer) -> Ext:
    return Ext(PATH, writer.pack([type(value).__name__, str(value)]))


def _decode_path(reader: Reader, body: bytes) -> Any:
    name, text = reader.unpack(body)
    if name not in _PATHS:
        raise CorruptCheckpointError(f"{name!r:.60} is not a class of paths")
    return getattr(_late("pathlib"), name)(text)


_ADDRESSES: Final = frozenset(
    {"IPv4Address", "IPv4Interface", "IPv4Network", "IPv6Address", "IPv6Interface", "IPv6Network"}
)


def _encode_ip(value: Any, writer: Writer) -> Ext:
    return Ext(IP, packb([type(value).__name__, str(value)]))


def _decode_ip(reader: Reader, body: bytes) -> Any:
    name, text = unpackb(body)
    if name not in _ADDRESSES:
        raise CorruptCheckpointError(f"{name!r:.60} is not a class of addresses")
    return getattr(_late("ipaddress"), name)(text)


def _encode_range(value: range, writer: Writer) -> Ext:
    return Ext(RANGE, writer.pack([value.start, value.stop, value.step]))


def _decode_range(reader: Reader, body: bytes) -> range:
    start, stop, step = reader.unpack(body)
    return range(start, stop, step)


def _encode_slice(value: slice, writer: Writer) -> Ext:
    return Ext(SLICE, writer.pack([value.start, value.stop, value.step]))


def _decode_slice(reader: Reader, body: bytes) -> slice:
    start, stop, step = reader.unpack(body)
    return slice(start, stop, step)


def _encode_pattern(value: Any, writer: Writer) -> Ext:
    excess = _excess(value.pattern, value.flags)
    if excess is not None:
        raise CheckpointError(
            f"cannot store a regular expression of {excess} (at {writer.path or 'the value itself'}), because it is "
            f"compiled whenever it is read; store its text"
        )
    return Ext(PATTERN, writer.pack([value.pattern, value.flags]))


def _excess(pattern: str | bytes, flags: int) -> str | None:
    """What is too much about a regular expression: bounds the time to compile it, as far as text tells."""
    if len(pattern) > MAX_PATTERN:
        return f"{len(pattern)} characters, the limit is {MAX_PATTERN}"
    is_text = isinstance(pattern, str)
    text = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
    n_sets = text.count("[")
    if n_sets > MAX_WIDE_SETS and is_text:
        wide = max(text) > "\xff" or any(escape in text for escape in ("\\u", "\\U", "\\N"))
        if wide:
            return f"{n_sets} sets of any characters, the limit is {MAX_WIDE_SETS}"
    # 2 is `re.IGNORECASE`, which a pattern may also switch on in its text.
    if n_sets > MAX_SETS and (flags & 2 or "(?" in text):
        return f"{n_sets} sets of characters, the limit is {MAX_SETS}"
    return None


def _decode_pattern(reader: Reader, body: bytes) -> Any:
    pattern, flags = reader.unpack(body)
    excess = _excess(pattern, flags)
    if excess is not None:
        raise CorruptCheckpointError(f"a regular expression of {excess}")
    re = _late("re")
    try:
        return re.compile(pattern, flags & ~re.DEBUG)
    except RecursionError:
        raise CorruptCheckpointError(f"{pattern!r:.60} is nested too deep for a regular expression") from None


# ---- numpy, only if the program uses it

_NUMPY_KINDS: Final = frozenset("biufcSUVmM")


def _dtype_text(dtype: Any, value: Any, writer: Writer) -> Any:
    """What names a dtype in full, or an error: objects and extension dtypes cannot be rebuilt from bytes."""
    form = _late("numpy.lib.format")
    described = form.dtype_to_descr(dtype) if dtype.kind in _NUMPY_KINDS and not dtype.hasobject else None
    if described is None or form.descr_to_dtype(described) != dtype:
        raise UnregisteredTypeError(type(value), f"{writer.path}.dtype({dtype})".removeprefix("."))
    return described


def _encode_ndarray(value: Any, writer: Writer) -> Ext:
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    parts = [_dtype_text(value.dtype, value, writer), list(value.shape), order, value.tobytes(order)]
    return Ext(NDARRAY, writer.pack(parts))


def _decode_ndarray(reader: Reader, body: bytes) -> Any:
    described, shape, order, data = reader.unpack(body)
    return _array(described, shape, order, data)


def _encode_numpy_scalar(value: Any, writer: Writer) -> Ext:
    return Ext(NUMPY_SCALAR, writer.pack([_dtype_text(value.dtype, value, writer), value.tobytes()]))


def _decode_numpy_scalar(reader: Reader, body: bytes) -> Any:
    described, data = reader.unpack(body)
    return _array(described, (), "C", data)[()]


def _array(described: Any, shape: Iterable[int], order: str, data: bytes) -> Any:
    try:
        numpy = _late("numpy")
    except ImportError:
        raise UnknownTypeError("numpy:ndarray") from None
    dtype = _late("numpy.lib.format").descr_to_dtype(described)
    if dtype.hasobject:
        raise CorruptCheckpointError(f"an array of dtype {dtype}")
    lengths = tuple(shape)
    if any(length < 0 for length in lengths) or math.prod(lengths) * dtype.itemsize != len(data):
        raise CorruptCheckpointError(f"an array of shape {lengths!r:.100} and dtype {dtype} in {len(data)} bytes")
    # Over a bytearray, so that the array is writable as the stored one was.
    return numpy.ndarray(lengths, dtype, buffer=bytearray(data), order=order)


# ---- exceptions and secrets


def _encode_exception(value: BaseException, writer: Writer) -> Ext:
    cls = type(value)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    # Text only, so no attribute of an exception can make a failed step impossible to store.
    trace = "".join(_late("traceback").format_exception(value)) if value.__traceback__ is not None else ""
    return Ext(ERROR, writer.pack([_text_of(repr, value), name, _text_of(str, value), trace[-MAX_TRACEBACK:]]))


def _text_of(form: Callable[[Any], str], value: BaseException) -> str:
    try:
        return str.__str__(form(value))
    except Exception:  # noqa: BLE001 - the user's own __repr__ fails; the error that is being stored matters more
        return f"<{type(value).__qualname__} without text>"


def _encode_stored_error(value: StoredError, writer: Writer) -> Ext:
    return Ext(ERROR, writer.pack([str.__str__(value), value.class_name, value.text, value.traceback]))


def _decode_error(reader: Reader, body: bytes) -> StoredError:
    representation, class_name, text, trace = reader.unpack(body)
    return StoredError(representation, class_name, text, trace)


_SECRETS: Final = frozenset({"SecretStr", "SecretBytes"})


def is_secret(cls: type) -> bool:
    """Is it one of pydantic's classes for secrets?"""
    # The module itself: `pydantic` would import it to answer.
    module = sys.modules.get("pydantic.types")
    return module is not None and cls.__name__ in _SECRETS and vars(module).get(cls.__name__) is cls


def encode_secret(value: Any, writer: Writer) -> Ext:
    """A secret with its content in clear: only for serializers that encrypt what comes out."""
    return Ext(SECRET, writer.pack([type(value).__name__, value.get_secret_value()]))


def _decode_secret(reader: Reader, body: bytes) -> Any:
    name, content = reader.unpack(body)
    if name not in _SECRETS:
        raise CorruptCheckpointError(f"{name!r:.60} is not a class of secrets")
    return getattr(_late("pydantic"), name)(content)


def find_encoder(cls: type) -> Encoder | None:
    """The encoder of an exception class, or of a class that is not in `ENCODERS` because its module may be absent."""
    for module_name, names, encoder in _LATE_ENCODERS:
        module = sys.modules.get(module_name)
        if module is not None and cls.__name__ in names and vars(module).get(cls.__name__) is cls:
            return encoder
    numpy = sys.modules.get("numpy")
    if numpy is not None and cls is numpy.ndarray:
        return _encode_ndarray
    if numpy is not None and cls.__module__ == "numpy" and issubclass(cls, numpy.generic):
        return _encode_numpy_scalar
    return _encode_exception if issubclass(cls, BaseException) else None


# ---- tables

ENCODERS: Final[dict[type, Encoder]] = {
    tuple: _encode_tuple,
    set: _encode_set,
    frozenset: _encode_frozenset,
    deque: _encode_deque,
    bytearray: _encode_bytearray,
    int: encode_big_int,
    complex: _encode_complex,
    datetime: _encode_datetime,
    date: _encode_date,
    time: _encode_time,
    timedelta: _encode_timedelta,
    timezone: _encode_timezone,
    UUID: _encode_uuid,
    range: _encode_range,
    slice: _encode_slice,
    OrderedDict: _encode_ordered_dict,
    defaultdict: _encode_defaultdict,
    Counter: _encode_counter,
    StoredError: _encode_stored_error,
}

# Looked for only if the module is loaded: without it there can be no instance.
_LATE_ENCODERS: Final[tuple[tuple[str, frozenset[str], Encoder], ...]] = (
    ("decimal", frozenset({"Decimal"}), _encode_decimal),
    ("fractions", frozenset({"Fraction"}), _encode_fraction),
    ("pathlib", _PATHS, _encode_path),
    ("ipaddress", _ADDRESSES, _encode_ip),
    ("zoneinfo", frozenset({"ZoneInfo"}), _encode_zoneinfo),
    ("re", frozenset({"Pattern"}), _encode_pattern),
)

DECODERS: Final[dict[int, Decoder]] = {
    TUPLE: _decode_tuple,
    SET: _decode_set,
    FROZENSET: _decode_frozenset,
    DEQUE: _decode_deque,
    BYTEARRAY: _decode_bytearray,
    BIG_INT: _decode_big_int,
    SURROGATES: _decode_surrogates,
    MAP: _decode_map,
    COMPLEX: _decode_complex,
    DATETIME: _decode_datetime,
    DATE: _decode_date,
    TIME: _decode_time,
    TIMEDELTA: _decode_timedelta,
    TIMEZONE: _decode_timezone,
    ZONEINFO: _decode_zoneinfo,
    UUID_: _decode_uuid,
    DECIMAL: _decode_decimal,
    FRACTION: _decode_fraction,
    PATH: _decode_path,
    IP: _decode_ip,
    RANGE: _decode_range,
    SLICE: _decode_slice,
    PATTERN: _decode_pattern,
    ORDERED_DICT: _decode_ordered_dict,
    DEFAULT_DICT: _decode_defaultdict,
    COUNTER: _decode_counter,
    NDARRAY: _decode_ndarray,
    NUMPY_SCALAR: _decode_numpy_scalar,
    ERROR: _decode_error,
    SECRET: _decode_secret,
}
