"""The codec: values to msgpack and back, with their types.

Decides which values can be stored and what their bytes are (format tag `m1`). Knows nothing of savers or channels;
the classes it may use are in `checkpoint.registry`. The bodies of extension values are made in
`standard` and `classes`; here is what calls them, how deep, and in which of three ways.

Plain values (None, bool, int, float, str, bytes, list, dict with str keys) are plain msgpack, written by one C call.
All else is an extension value whose body is msgpack again. There are three ways to write, with equal bytes:

* the fast one hands the value to ormsgpack, which calls back for everything that is not plain;
* the lifting one does the same after it replaced dicts with other keys, for which ormsgpack does not call back;
* the careful one walks the value in Python. It takes over when the others gave up, because of text with surrogates, of
  a bytearray (which ormsgpack takes for bytes), or of something that cannot be stored. It knows the path to every
  element, so it is also the one that reports.

Reading is one C call that calls back for extension values. ormsgpack swallows exceptions of callbacks: after a
failure the bytes are read again by readers that remember the first error.

Invariants
1. `loads(dumps(value))` equals `value` and has its types, at every depth, or `dumps` raises.
2. Sets are written sorted by the bytes of their elements: equal sets that hold equally written elements have equal
   bytes.
3. Reading imports nothing that the data names and calls nothing outside the registry; a class that is not registered
   but imported already is rebuilt field by field without running any of its code (D48).
4. The meaning of an extension code never changes; a change gets a new tag.
5. Nesting is bounded while writing and while reading, so no data can exhaust the C stack.

Source: the extension mechanism is msgpack's own (msgpack specification, "Extension types").
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from itertools import chain
from threading import get_ident
from typing import Any, Final, NoReturn, Self

import ormsgpack
from ormsgpack import Ext, packb, unpackb

from checkpoint import registry
from checkpoint.base import CheckpointError, CorruptCheckpointError, UnknownTypeError, UnregisteredTypeError
from checkpoint.serde import classes, langchain, standard
from checkpoint.serde.base import Opaque
from checkpoint.serde.extensions import FIRST_NAMED, Decoder, Encoder
from checkpoint.serde.pieces import MIN_BYTES, read_in_pieces

FORMAT_TAG: Final = "m1"
MAX_EXT_DEPTH: Final = 200
"""Extension values inside each other."""
MAX_PLAIN_DEPTH: Final = 250
"""Lists and dicts inside each other, with no other container between."""
MAX_BYTES: Final = 1_000_000_000
"""Of one encoded value: what SQLite takes as one blob."""
_ENCODERS: Final[dict[type, Encoder]] = {**standard.ENCODERS, Opaque: classes.encode_opaque}
_DECODERS: Final[dict[int, Decoder]] = {**standard.DECODERS, **classes.DECODERS}

# Below this extension depth, bodies may hold few plain levels only. Every level takes C stack (measured: 20,000 levels
# overflow 8 MiB), and nobody nests that deep on purpose: 5 x 1,022 + 195 x 20 levels stay under half of it.
_DEEP: Final = 4
_PLAIN_DEPTH_WHEN_DEEP: Final = 20

# No NON_STR_KEYS: with it, a UUID, enum or date as a key silently becomes a string. Such dicts take another way.
_WRITE: Final = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)


class Serde:
    """Values to bytes and back. Thread-safe; one instance can serve everything.

    `dumps_typed` and `loads_typed` are what savers need; `dumps` and `loads` are the same for format `m1` without tag.
    """

    stores_secrets: bool = False
    """May pydantic's SecretStr and SecretBytes be stored? Only by a serializer that encrypts what comes out."""

    def __init__(self, *, extra: Iterable[type] = (), strict: bool = False) -> None:
        """
        Args:
            extra: classes to register, as with `checkpoint.register`.
            strict: store and read registered classes only, not also those that merely are importable by name.
        """
        for cls in extra:
            registry.register(cls)
        self.strict = strict
        self._begin()

    def _begin(self) -> None:
        self._encoders: dict[type, Encoder] = dict(_ENCODERS)
        self._interrupted: dict[int, BaseException] = {}
        self._writer = _FastWriter(self, 0)
        self._lifting_writer = _LiftingWriter(self, 0)
        self._reader = _Reader(self, 0, opaque=False)
        self._opaque_reader = _Reader(self, 0, opaque=True)
        self._encode = self._writer.encode
        self._decode = self._reader.decode
        registry.subscribe(self)

    def dumps(self, obj: Any) -> bytes:
        """Bytes of a value, format `m1`.

        Raises:
            UnregisteredTypeError: something in it has a class that cannot be stored; names the path to it.
            CheckpointError: it is nested too deep, contains itself, or is too large.
        """
        try:
            body = packb(obj, self._encode, _WRITE)
        except TypeError:
            pass
        else:
            # ormsgpack writes a bytearray as bytes without a word. It cannot have if the body holds no marker of bytes;
            # most bodies that hold one of these numbers do so by chance, so then the value is asked.
            n_bytes = len(body)
            if (
                (0xC4 in body or 0xC5 in body or (n_bytes > _SHORT and 0xC6 in body))
                and _may_hold_bytes(body)
                and not _is_plain(obj)
            ):
                return self._dumps_carefully(obj)
            return body if n_bytes <= MAX_BYTES else _too_large(n_bytes)
        # Outside of the handler: how the fast way gave up is not part of the next error.
        return self._dumps_lifting(obj)

    def loads(self, body: bytes, *, opaque: bool = False) -> Any:
        """The value of bytes that `dumps` wrote.

        Args:
            body: bytes of format `m1`.
            opaque: give every value that needs a class of the program as `Opaque`; for tools that run without it.

        Raises:
            UnknownTypeError: a class is neither registered nor imported here, or (`ChangedTypeError`) does not fit.
            CorruptCheckpointError: the bytes make no sense.
        """
        if len(body) > MAX_BYTES:
            raise CorruptCheckpointError(f"a value of {len(body)} bytes, the limit is {MAX_BYTES}")
        if len(body) > MIN_BYTES:
            hook = self._opaque_reader.decode if opaque else self._decode
            if (found := read_in_pieces(body, partial(unpackb, ext_hook=hook))) is not None:
                return found[0]
        try:
            if opaque:
                return unpackb(body, ext_hook=self._opaque_reader.decode)
            return unpackb(body, ext_hook=self._decode)
        except ValueError:
            return self._loads_carefully(body, opaque)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """(Format tag, bytes) of a value. None, bytes and bytearray have tags of their own and a raw body."""
        if obj is None:
            return "null", b""
        cls = type(obj)
        if cls is bytes or cls is bytearray:
            return ("bytes", obj) if cls is bytes else ("bytearray", bytes(obj))
        return FORMAT_TAG, self.dumps(obj)

    def loads_typed(self, data: tuple[str, bytes], *, opaque: bool = False) -> Any:
        """The value of what `dumps_typed` returned; errors and `opaque` as in `loads`."""
        tag, body = data
        if tag == FORMAT_TAG:
            return self.loads(body, opaque=opaque)
        if tag == "null":
            return None
        if tag == "bytes":
            return bytes(body)
        if tag == "bytearray":
            return bytearray(body)
        raise CorruptCheckpointError(
            f"format tag {tag!r:.60} is none that this library writes ({FORMAT_TAG!r}, 'bytes', 'bytearray', 'null'); "
            f"was it written by another library, or with a serializer that this saver was not given?"
        )

    def storing_secrets(self) -> Self:
        """The same serializer, but secrets can be stored in clear: for what encrypts the bytes."""
        twin = copy.copy(self)
        twin.stores_secrets = True
        twin._begin()
        return twin

    def forget_types(self) -> None:
        """The registry changed: look classes up again."""
        self._encoders = dict(_ENCODERS)

    # ---- writing

    def encoder_of(self, cls: type) -> Encoder | None:
        """How values of exactly this class are written; None if they cannot be."""
        encoder = self._encoders.get(cls)
        if encoder is None:
            encoder = self._find_encoder(cls)
            if encoder is not None:
                self._encoders[cls] = encoder
        return encoder

    def _find_encoder(self, cls: type) -> Encoder | None:
        if standard.is_secret(cls):
            return standard.encode_secret if self.stores_secrets else None
        entry = registry.lookup_class(cls)
        by_codec = entry is not None and entry.encode is not None
        return (None if by_codec else standard.find_encoder(cls)) or classes.find_encoder(cls, strict=self.strict)

    def _dumps_lifting(self, obj: Any) -> bytes:
        self._raise_interrupted()
        try:
            body = self._lifting_writer.pack(obj)
        except (TypeError, RecursionError):
            body = None
        if body is None:
            return self._dumps_carefully(obj)
        return body if len(body) <= MAX_BYTES else _too_large(len(body))

    def _dumps_carefully(self, obj: Any) -> bytes:
        self._raise_interrupted()
        try:
            body = _CarefulWriter(self).pack(obj)
        except RecursionError as error:
            raise CheckpointError(
                f"cannot store a {type(obj).__qualname__}: it is nested too deep for what is left of the stack, or "
                f"contains itself; flatten it, or keep it out of the state"
            ) from error
        return body if len(body) <= MAX_BYTES else _too_large(len(body))

    # ---- reading

    def _loads_carefully(self, body: bytes, opaque: bool) -> Any:
        self._raise_interrupted()
        errors: list[BaseException] = []
        try:
            return unpackb(body, ext_hook=_Reader(self, 0, opaque=opaque, errors=errors).decode)
        except ValueError as error:
            first = errors[0] if errors else error
        if isinstance(first, (CheckpointError, RecursionError, MemoryError)) or not isinstance(first, Exception):
            raise first
        raise CorruptCheckpointError(f"{len(body)} bytes of format {FORMAT_TAG} cannot be read: {first}") from first

    def _raise_interrupted(self) -> None:
        """Raise what is no failure of a callback (Ctrl-C) and was swallowed like one."""
        interrupted = self._interrupted.pop(get_ident(), None)
        if interrupted is not None:
            raise interrupted


class _FastWriter:
    """One extension depth of the fast way. Stateless: one chain of these serves all threads.

    An exception here only means that the careful way takes over, because ormsgpack swallows it.
    """

    __slots__ = ("_next", "depth", "serde")

    path = ""

    def __init__(self, serde: Serde, depth: int) -> None:
        self.serde = serde
        self.depth = depth
        self._next: _FastWriter | None = None

    def encode(self, obj: Any) -> Ext:
        # Start of `encoder_of`, inlined: this runs for every value that is not plain.
        try:
            encoder = self.serde._encoders.get(type(obj)) or self.serde.encoder_of(type(obj))
            return encoder(obj, self._next or self.following())  # type: ignore[misc]
        except Exception:
            raise
        except BaseException as error:
            self.serde._interrupted[get_ident()] = error
            raise

    def following(self) -> _FastWriter:
        """The writer of one depth further down."""
        if self.depth >= MAX_EXT_DEPTH:
            raise TypeError("too deep")
        self._next = type(self)(self.serde, self.depth + 1)
        return self._next

    def pack(self, value: Any) -> bytes:
        body = packb(value, self.encode, _WRITE)
        if (0xC4 in body or 0xC5 in body or 0xC6 in body) and _may_hold_bytes(body) and not _is_plain(value):
            raise TypeError("a bytearray")
        if self.depth > _DEEP and _is_deeper(value, _PLAIN_DEPTH_WHEN_DEEP):
            raise TypeError("too deep")
        return body

    def can_pack(self, value: Any) -> bool:
        try:
            self.pack(value)
        except TypeError:
            # Perhaps only because the careful way is needed.
            try:
                _CarefulWriter(self.serde).pack(value)
            except (TypeError, CheckpointError):
                return False
        return True

    def pack_headed(self, head: Any, value: Any) -> bytes:
        return self.pack([head, value])

    def pack_pairs(self, items: Mapping[Any, Any], *head: Any) -> bytes:
        return self.pack([*head, *chain.from_iterable(items.items())])


class _LiftingWriter(_FastWriter):
    """The fast way for values with dicts whose keys are not all text: those are replaced before ormsgpack sees them."""

    __slots__ = ()

    def pack(self, value: Any) -> bytes:
        return super().pack(self._lift(value))

    def _lift(self, value: Any) -> Any:
        cls = type(value)
        if cls is list:
            found = set(map(type, value))
            if dict in found or list in found:
                return [self._lift(element) for element in value]
        elif cls is dict:
            if any(type(key) is not str for key in value):
                return standard.encode_map(value, self._next or self.following())
            found = set(map(type, value.values()))
            if dict in found or list in found:
                return {key: self._lift(element) for key, element in value.items()}
        return value


class _CarefulWriter:
    """One value on its way through the careful way, with the path to where the walk is."""

    __slots__ = ("depth", "nesting", "serde", "steps")

    def __init__(self, serde: Serde) -> None:
        self.serde = serde
        self.depth = 0
        self.nesting = 0
        self.steps: list[str] = []

    @property
    def path(self) -> str:
        return "".join(self.steps).removeprefix(".")

    def pack(self, value: Any) -> bytes:
        return packb(self.plain(value), None, _WRITE)

    def can_pack(self, value: Any) -> bool:
        state = self.depth, self.nesting, len(self.steps)
        try:
            self.pack(value)
        except (TypeError, CheckpointError):
            self.depth, self.nesting, n_steps = state
            del self.steps[n_steps:]
            return False
        return True

    def pack_headed(self, head: Any, value: Any) -> bytes:
        self._enter_plain()
        body = packb([self.plain(head), self.plain(value)], None, _WRITE)
        self.nesting -= 1
        return body

    def pack_pairs(self, items: Mapping[Any, Any], *head: Any) -> bytes:
        self._enter_plain()
        flat: list[Any] = list(head)
        for key, value in items.items():
            self.steps.append(_step(key))
            flat.append(self.plain(key))
            flat.append(self.plain(value))
            self.steps.pop()
        self.nesting -= 1
        return packb(flat, None, _WRITE)

    def plain(self, value: Any) -> Any:
        """The value as ormsgpack can write it without calling back."""
        cls = type(value)
        if cls is str:
            return (
                value if value.isascii() or _is_encodable(value) else self._extension(standard.encode_surrogates, value)
            )
        if cls is int:
            return value if -(1 << 63) <= value < 1 << 64 else self._extension(standard.encode_big_int, value)
        if value is None or cls is bool or cls is float or cls is bytes:
            return value
        if cls is list:
            return self._plain_list(value)
        if cls is dict:
            if all(type(key) is str for key in value):
                return self._plain_dict(value)
            return self._extension(standard.encode_map, value)
        encoder = self.serde.encoder_of(cls)
        if encoder is None:
            raise UnregisteredTypeError(cls, self.path)
        return self._extension(encoder, value)

    def _plain_list(self, value: list[Any]) -> list[Any]:
        self._enter_plain()
        plain: list[Any] = []
        for index, element in enumerate(value):
            self.steps.append(f"[{index}]")
            plain.append(self.plain(element))
            self.steps.pop()
        self.nesting -= 1
        return plain

    def _plain_dict(self, value: dict[str, Any]) -> Any:
        self._enter_plain()
        plain: dict[str, Any] = {}
        for key, element in value.items():
            if not key.isascii() and not _is_encodable(key):
                self.nesting -= 1
                return self._extension(standard.encode_map, value)
            self.steps.append(_step(key))
            plain[key] = self.plain(element)
            self.steps.pop()
        self.nesting -= 1
        return plain

    def _enter_plain(self) -> None:
        self.nesting += 1
        if self.nesting > (_PLAIN_DEPTH_WHEN_DEEP if self.depth > _DEEP else MAX_PLAIN_DEPTH):
            self._refuse_depth()

    def _extension(self, encoder: Encoder, value: Any) -> Ext:
        if self.depth >= MAX_EXT_DEPTH:
            self._refuse_depth()
        nesting, self.nesting = self.nesting, 0
        self.depth += 1
        extension = encoder(value, self)
        self.depth -= 1
        self.nesting = nesting
        return extension

    def _refuse_depth(self) -> NoReturn:
        raise CheckpointError(
            f"cannot store a value nested deeper than {MAX_EXT_DEPTH} levels ({MAX_PLAIN_DEPTH} for plain lists and "
            f"dicts), or one that contains itself; it goes on at {self.path:.200}; flatten it, or keep it out"
        )


class _Reader:
    """One extension depth of reading. Stateless unless it keeps errors."""

    __slots__ = ("_next", "depth", "errors", "opaque", "serde")

    def __init__(self, serde: Serde, depth: int, *, opaque: bool, errors: list[BaseException] | None = None) -> None:
        self.serde = serde
        self.depth = depth
        self.opaque = opaque
        self.errors = errors
        self._next: _Reader | None = None

    def decode(self, code: int, body: bytes) -> Any:
        try:
            following = self._next
            if following is None:
                if self.depth >= MAX_EXT_DEPTH:
                    raise CorruptCheckpointError(f"values are nested deeper than {MAX_EXT_DEPTH} levels")
                following = self._next = _Reader(self.serde, self.depth + 1, opaque=self.opaque, errors=self.errors)
            decoder = _DECODERS.get(code)
            if decoder is None:
                raise CorruptCheckpointError(f"unknown extension code {code}")
            if self.opaque and code >= FIRST_NAMED:
                head, *parts = following.unpack(body)
                name = head if isinstance(head, str) else head[0]
                return Opaque(name, parts[0] if len(parts) == 1 else parts, code, body)
            return decoder(following, body)
        except BaseException as error:
            if self.errors is not None:
                self.errors.append(error)
            elif not isinstance(error, Exception):
                self.serde._interrupted[get_ident()] = error
            raise

    def unpack(self, body: bytes) -> Any:
        if self.depth > _DEEP and _is_deeper(unpackb(body, ext_hook=_leaf), _PLAIN_DEPTH_WHEN_DEEP):
            raise CorruptCheckpointError(
                f"more than {_PLAIN_DEPTH_WHEN_DEEP} lists inside each other at extension depth {self.depth}"
            )
        return unpackb(body, ext_hook=self.decode)

    def find(self, name: str) -> tuple[type, bool]:
        """The class of a stored name, and whether it is registered."""
        entry = registry.lookup_name(name) or langchain.find(name)
        if entry is not None:
            return entry.cls, True
        cls = None if self.serde.strict else registry.resolve_imported(name)
        if cls is None or registry.kind_of(cls) in (None, "exception"):
            raise UnknownTypeError(name)
        return cls, False


# ---- pieces of both ways


def _leaf(code: int, body: bytes) -> None:
    return None


def _too_large(size: int) -> NoReturn:
    raise CheckpointError(
        f"cannot store a value of {size} bytes, the limit is {MAX_BYTES}; keep large data in files or a store, "
        f"and a reference to it in the state"
    )


_LEAVES: Final = frozenset({str, int, float, bool, bytes, type(None)})
_LOOKS_LIKE_BYTES: Final = frozenset({bytearray, memoryview})


_SHORT: Final = 4096
"""Bytes of a body up to which looking through it takes no longer than looking at its value."""
_MARKERS_OF_BYTES: Final = ((0xC4, 1), (0xC5, 2))
"""How bytes begin in a short body, and in how many bytes their length follows; never in 4, after 0xC6."""
_LOOKS: Final = 4


def _may_hold_bytes(body: bytes) -> bool:
    """Is there a marker of bytes that is followed by as many as it says? Gives up with yes after some that are not, and of
    a long body."""
    n_bytes = len(body)
    if n_bytes > _SHORT:
        return True
    for marker, n_length in _MARKERS_OF_BYTES:
        at = -1
        for _ in range(_LOOKS):
            at = body.find(marker, at + 1)
            if at < 0:
                break
            start = at + 1 + n_length
            if start + int.from_bytes(body[at + 1 : start], "big") <= n_bytes:
                return True
        else:
            return True
    return False


def _is_plain(value: Any) -> bool:
    """Is there no bytearray or memoryview in a value that ormsgpack took without calling back for it?"""
    cls = type(value)
    if cls is not list and cls is not dict:
        return cls not in _LOOKS_LIKE_BYTES
    todo = [value]
    while todo:
        container = todo.pop()
        elements: Collection[Any] = container.values() if type(container) is dict else container
        # One C loop per container, and one for all in a list of dicts; the types of elements are few.
        found = set(map(type, elements))
        if dict in found and len(found) == 1:
            elements = [*chain.from_iterable(map(dict.values, elements))]
            found = set(map(type, elements))
        if found <= _LEAVES:
            continue
        if not found.isdisjoint(_LOOKS_LIKE_BYTES):
            return False
        if list in found or dict in found:
            todo += [element for element in elements if type(element) is list or type(element) is dict]
    return True


def _is_deeper(value: Any, limit: int) -> bool:
    """Are more than `limit` lists and dicts (tuples, in keys of foreign data) inside each other?"""
    level = [value]
    for _ in range(limit + 1):
        following: list[Any] = []
        for container in level:
            if type(container) is dict:
                following.extend(container.values())
            elif type(container) is list:
                following.extend(container)
        if not following:
            return False
        level = following
    return any(type(element) is list or type(element) is dict for element in level)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _step(key: Any) -> str:
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r:.60}]"
