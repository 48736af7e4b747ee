"""Bytes of LangGraph's serializer -> values, without importing or calling anything that they name.

Decides which types of such bytes are read: those of the standard library in the table below, LangGraph's own control
values as those of `pregel` (by their names in the registry, so `pregel` itself is not needed), the classes that the
caller listed, registered ones, and langchain-core's messages (`checkpoint.serde.langchain`). Everything else is
reported, and kept as `Opaque` if the caller wants that. Knows no tables and no threads.

The format: msgpack with extension values, whose body is msgpack of `(module, name, payload)`. Codes: 0 a constructor
with one argument, 1 with a list of them, 2 with keywords, 3 a method (only `datetime.fromisoformat`), 4 and 5 pydantic
models, 6 a numpy array, 7 a snapshot of a `DeltaChannel`. Older bytes are JSON with dicts that say
`"type": "constructor"`. A name has no qualifying class: one nested in another is found in the caller's list only.

Invariants
1. A name that is read is only ever looked up in dictionaries made by this process.
2. Pickles are refused unseen.
3. Nesting is bounded, so no bytes can exhaust the C stack.

Source: persistence.md A6.2; files that LangGraph wrote.
"""

from __future__ import annotations

import enum
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, Final, NamedTuple

import ormsgpack
from ormsgpack import Ext, packb, unpackb

from checkpoint import registry
from checkpoint.compat.source import Blob
from checkpoint.serde import extensions as codes
from checkpoint.serde import langchain
from checkpoint.serde.base import Opaque
from checkpoint.serde.msgpack import Serde

MAX_EXT_DEPTH: Final = 50
"""Extension values inside each other."""
MAX_PLAIN_DEPTH: Final = 50
"""Lists and dicts inside each other, in one body that is inside others. `MAX_EXT_DEPTH` such bodies are what the stack
must bear."""

_ONE, _MANY, _NAMED, _METHOD, _MODEL_1, _MODEL_2, _ARRAY, _SNAPSHOT = range(8)
_READ: Final = ormsgpack.OPT_NON_STR_KEYS
_serde: Final = Serde()

Build = Callable[[Any], Any]
Types = Iterable[type] | Mapping[str, type | Build]


class Unread(NamedTuple):
    """A value that was not read, and where it is."""

    thread_id: str
    ns: str
    checkpoint_id: str
    channel: str
    """Empty if it is not known, or if it is no value but the whole checkpoint."""
    type: str
    """`module:name` as stored, or the format tag."""
    reason: str


class Trouble(NamedTuple):
    """What of an `Unread` is known where bytes are read."""

    type: str
    reason: str
    kept: bool
    """Is there an `Opaque` in its place?"""


class Decoder:
    """Reads values, and collects in `troubles` what it could not read."""

    def __init__(self, types: Types, *, keep: bool, decrypt: Callable[[str, bytes], bytes] | None) -> None:
        """
        Args:
            types: classes, which are registered too; or stored name (`module:name`) -> class, or function that is given
                the stored payload.
            keep: give what is not known as `Opaque` that stores back.
            decrypt: (name of the cipher, bytes) -> bytes.

        Raises:
            TypeError: something in `types` is neither a class nor a function.
        """
        self.keep = keep
        self.decrypt = decrypt
        self.troubles: list[Trouble] = []
        self.questions: Mapping[str, str] = {}
        """Id of a question in the file -> its id here."""
        self.own_question: str | None = None
        """Id of a question that has none in the file."""
        self._listed = _listed(types)
        self._failure: BaseException | None = None

    # ---- a value, and the values of a checkpoint

    def value(self, blob: Blob) -> Any:
        """The value of typed bytes; `None` after trouble with all of it."""
        tag, body = blob
        if isinstance(body, str):
            body = body.encode()
        if not isinstance(body, bytes):
            return self.trouble(str(tag), f"it is no blob but {type(body).__name__}")
        tag = tag or "json"
        if "+" in tag:
            tag, _, cipher = tag.partition("+")
            if self.decrypt is None:
                return self.trouble(f"{tag}+{cipher}", "it is encrypted; give decrypt=")
            body = self.decrypt(cipher, body)
        if tag == "msgpack":
            return self._msgpack(body, _Hook(self, 1).decode)
        if tag == "json":
            return self._json(body)
        if tag == "null":
            return None
        if tag in ("bytes", "bytearray"):
            return body if tag == "bytes" else bytearray(body)
        return self.trouble(tag, "pickles are never read" if tag == "pickle" else "no such format is known")

    def outline(self, blob: Blob) -> Any:
        """The value with every extension value as a `Raw`, or None if it is not msgpack; makes no trouble."""
        tag, body = blob
        if tag is None or tag.partition("+")[0] != "msgpack" or not isinstance(body, bytes):
            return None
        if "+" in tag:
            if self.decrypt is None:
                return None
            body = self.decrypt(tag.partition("+")[2], body)
        try:
            return unpackb(body, ext_hook=Raw, option=_READ)
        except ValueError:
            return None

    def resolved(self, outlined: Any) -> Any:
        """The value of a part of an outline."""
        if isinstance(outlined, Raw):
            return self._msgpack(packb(Ext(outlined.code, outlined.body)), _Hook(self, 1).decode)
        if type(outlined) is list:
            return [self.resolved(item) for item in outlined]
        if type(outlined) is dict:
            return {key: self.resolved(item) for key, item in outlined.items()}
        return outlined

    def _msgpack(self, body: bytes, hook: Callable[[int, bytes], Any]) -> Any:
        self._failure = None
        try:
            return unpackb(body, ext_hook=hook, option=_READ)
        except ValueError as error:
            if self._failure is not None:
                raise self._failure from None
            return self.trouble("msgpack", f"its bytes do not decode ({error})")

    def _json(self, body: bytes) -> Any:
        try:
            return json.loads(body, object_hook=self._from_json)
        except (ValueError, RecursionError) as error:
            return self.trouble("json", f"its text does not decode ({error})")

    def _from_json(self, found: dict[str, Any]) -> Any:
        path = found.get("id")
        if found.get("lc") not in (1, 2) or found.get("type") != "constructor" or not isinstance(path, list):
            return found
        name = f"{'.'.join(map(str, path[:-1]))}:{path[-1] if path else ''}"
        arguments, keywords = found.get("args") or [], found.get("kwargs")
        if keywords:
            return self._build(_NAMED, name, keywords)
        return self._build(_ONE, name, arguments[0]) if len(arguments) == 1 else self._build(_MANY, name, arguments)

    # ---- one extension value

    def extension(self, code: int, parts: Any) -> Any:
        """The value of a code and its unpacked body."""
        if code == _SNAPSHOT:
            return self.trouble("langgraph:DeltaChannel", "channels that store writes are not read")
        if code == _ARRAY and isinstance(parts, (list, tuple)) and len(parts) == 4:
            return self._guarded("numpy:ndarray", _array, list(parts))
        if code > _MODEL_2 or not isinstance(parts, (list, tuple)) or len(parts) < 3:
            return self.trouble(f"extension code {code}", "no such extension value is known")
        module, name, payload = parts[:3]
        if code == _METHOD and [module, name, *parts[3:]] != ["datetime", "datetime", "fromisoformat"]:
            return self.trouble(f"{module}:{name}", "methods are not called", code, payload)
        return self._build(code, f"{module}:{name}", payload)

    def _build(self, code: int, name: str, payload: Any) -> Any:
        listed = self._listed.get(name)
        if listed is not None:
            return self._guarded(name, listed, payload, code)
        plain = _STANDARD.get(name)
        if plain is not None:
            return self._guarded(name, plain, payload)
        module, _, short = name.partition(":")
        if module.partition(".")[0] == "langgraph" and short in _CONTROL:
            return self._guarded(name, self._control, (short, payload))
        entry = registry.lookup_name(name) or langchain.find(name)
        if entry is not None:
            decode = entry.decode
            return self._guarded(name, decode if decode is not None else _maker(entry.cls), payload, code)
        return self.trouble(name, "it is not registered, nor in types=", code, payload)

    def _control(self, found: tuple[str, Any]) -> Any:
        short, payload = found
        name, arrange = _CONTROL[short]
        plain = arrange(payload)
        if short == "Interrupt":
            id_ = plain[1] if plain[1] is not None else self.own_question or "placeholder-id"
            plain[1] = self.questions.get(id_, id_)
        entry = registry.lookup_name(name)
        if entry is not None and entry.decode is not None:
            return entry.decode(plain)
        return Opaque(name, plain, codes.CODEC, _serde.dumps([name, plain]))

    def _guarded(self, name: str, build: Callable[..., Any], payload: Any, code: int = _MANY) -> Any:
        """What `build` makes of the payload; a refusal is trouble."""
        try:
            return build(payload, code) if isinstance(build, _Maker) else build(payload)
        except Exception as error:  # noqa: BLE001 - whatever the listed class's own code raises
            return self.trouble(name, f"its class refused what is stored: {error!r:.200}", code, payload)

    def trouble(self, name: str, reason: str, code: int | None = None, payload: Any = None) -> Any:
        """Note what could not be read. What stands for it: an `Opaque` if that was asked for and possible, else None."""
        kept = self.keep and code is not None
        self.troubles.append(Trouble(name, reason, kept))
        if not kept or code is None:
            return None
        kind = _KINDS.get(code, codes.CODEC)
        if kind == codes.DATACLASS and type(payload) is not dict:
            kind = codes.CODEC
        body: list[Any] = [name, "", payload] if kind == codes.ENUM else [name, payload]
        return Opaque(name, payload, kind, _serde.dumps(body))

    def fail(self, error: BaseException) -> None:
        """Remember what a callback raised: the unpacker forgets it."""
        self._failure = error


class Raw:
    """An extension value that is not looked into."""

    __slots__ = ("body", "code")

    def __init__(self, code: int, body: bytes) -> None:
        self.code = code
        self.body = body


_KINDS: Final = {
    _ONE: codes.ENUM,
    _NAMED: codes.DATACLASS,
}
"""As what a value of an unknown class is kept, so that it is read as one when its class is known. Not models: what is
stored of one are plain dicts for models inside it and results of computed fields, so reading it takes its own code."""


class _Hook:
    """One depth of extension values."""

    __slots__ = ("decoder", "depth")

    def __init__(self, decoder: Decoder, depth: int) -> None:
        self.decoder = decoder
        self.depth = depth

    def decode(self, code: int, body: bytes) -> Any:
        try:
            if self.depth > MAX_EXT_DEPTH or _nesting(unpackb(body, ext_hook=Raw, option=_READ)) > MAX_PLAIN_DEPTH:
                return self.decoder.trouble(f"extension code {code}", f"nested deeper than {MAX_EXT_DEPTH} levels")
            parts = unpackb(body, ext_hook=_Hook(self.decoder, self.depth + 1).decode, option=_READ)
            return self.decoder.extension(code, parts)
        except ValueError:
            raise
        except BaseException as error:
            self.decoder.fail(error)
            raise


def _nesting(value: Any) -> int:
    """Lists and dicts inside each other."""
    depth = 0
    level = [value]
    while level := [item for item in level if type(item) in (list, dict)]:
        depth += 1
        if depth > MAX_PLAIN_DEPTH:
            break
        level = [part for item in level for part in (item.values() if type(item) is dict else item)]
    return depth


# ---- classes of the program


class _Maker:
    """How values of one class are made: by its constructor, which the caller consented to by listing it."""

    __slots__ = ("cls",)

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def __call__(self, payload: Any, code: int) -> Any:
        cls: Any = self.cls
        if issubclass(cls, enum.Enum):
            return cls(payload)
        if code in (_MODEL_1, _MODEL_2) or (registry.is_model(cls) and type(payload) is dict):
            return _model(cls, payload)
        if type(payload) is dict and code == _NAMED:
            return _by_fields(cls, payload)
        return cls(payload) if code == _ONE else cls(*payload)


def _maker(cls: type) -> _Maker:
    return _Maker(cls)


def _listed(types: Types) -> dict[str, Callable[..., Any]]:
    """Stored name -> what makes a value of it. Classes are registered: what was read is stored again at once."""
    named: dict[str, Any] = {}
    if isinstance(types, Mapping):
        for name, made in types.items():
            named[str(name) if ":" in str(name) else ":".join(str(name).rsplit(".", 1))] = made
    else:
        named = {f"{cls.__module__}:{cls.__name__}" if isinstance(cls, type) else repr(cls): cls for cls in types}
    listed: dict[str, Callable[..., Any]] = {}
    for name, made in named.items():
        if isinstance(made, type):
            if registry.lookup_class(made) is None:
                registry.register(made)
            listed[name] = _maker(made)
        elif callable(made) and isinstance(types, Mapping):
            listed[name] = made
        else:
            raise TypeError(
                f"import_langgraph: types has {made!r:.100}, which is no class; list classes, or give a dict of stored "
                f"names ('module:name') to classes or to functions of the stored payload"
            )
    return listed


def _by_fields(cls: type, payload: dict[str, Any]) -> Any:
    build: Callable[..., Any] = cls
    declared = getattr(cls, "__dataclass_fields__", None)
    if declared is None:
        return build(**payload)
    made = {name for name, declared_field in declared.items() if declared_field.init}
    value = build(**{name: content for name, content in payload.items() if name in made})
    for name, content in payload.items():
        if name not in made:
            # What a constructor derives is stored too; frozen classes have no other way in.
            object.__setattr__(value, name, content)
    return value


def _model(cls: Any, payload: dict[str, Any]) -> Any:
    """A pydantic model of what its `model_dump` gave: fields by their own names, computed ones among them."""
    fields = getattr(cls, "__pydantic_fields__", None)
    if fields is None:
        return cls(**payload)
    computed = getattr(cls, "model_computed_fields", None) or {}
    given = {name: content for name, content in payload.items() if name not in computed or name in fields}
    by_name = cls.model_config.get("populate_by_name") or cls.model_config.get("validate_by_name")
    keywords = {}
    for name, content in given.items():
        alias = getattr(fields.get(name), "validation_alias", None)
        keywords[name if by_name or not isinstance(alias, str) else alias] = content
    return cls(**keywords)


# ---- the standard library, and LangGraph's own values


def _of_ours(code: int) -> Callable[[Any], Any]:
    """Values whose checks and limits the codec has: in its own form."""

    def build(payload: Any) -> Any:
        return _serde.loads(packb(Ext(code, packb(payload))))

    return build


_LOCAL_PATH: Final = "WindowsPath" if os.name == "nt" else "PosixPath"
_array: Final = _of_ours(codes.NDARRAY)
_pattern: Final = _of_ours(codes.PATTERN)


def _text(code: int) -> Callable[[Any], Any]:
    return lambda payload: _serde.loads(packb(Ext(code, str(payload).encode())))


def _path(name: str) -> Callable[[Any], Any]:
    make = _of_ours(codes.PATH)
    # A path of another system has no class here but the pure one.
    known = name if name.startswith("Pure") or name == _LOCAL_PATH else f"Pure{name}"
    return lambda parts: make([known, _joined(parts, "\\" if "Windows" in name else "/")])


def _address(name: str) -> Callable[[Any], Any]:
    make = _of_ours(codes.IP)
    return lambda text: make([name, text])


def _joined(parts: list[str], separator: str) -> str:
    root, rest = (parts[0], parts[1:]) if parts and parts[0].endswith(separator) else ("", parts)
    return root + separator.join(rest)


def _moment(payload: Any) -> Any:
    return datetime.fromisoformat(payload[0] if type(payload) is list else payload)


def _fields(payload: Any, names: str) -> list[Any]:
    """Arguments in the order of `names`, however they were given."""
    if type(payload) is dict:
        return [payload.get(name) for name in names.split()]
    return [*payload, *[None] * (len(names.split()) - len(payload))]


_STANDARD: Final[dict[str, Callable[[Any], Any]]] = {
    "builtins:set": set,
    "builtins:frozenset": frozenset,
    "builtins:bytes": bytes.fromhex,
    "collections:deque": deque,
    "datetime:datetime": _moment,
    "datetime:date": lambda parts: date(*parts),
    "datetime:time": lambda parts: time(**parts),
    "datetime:timedelta": lambda parts: timedelta(*parts),
    "datetime:timezone": lambda parts: timezone(*parts),
    "decimal:Decimal": _text(codes.DECIMAL),
    "zoneinfo:ZoneInfo": _text(codes.ZONEINFO),
    "uuid:UUID": lambda text: _serde.loads(packb(Ext(codes.UUID_, bytes.fromhex(text.replace("-", ""))))),
    "re:compile": _pattern,
    "pathlib:Path": _path(_LOCAL_PATH),
    **{f"pathlib:{name}": _path(name) for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")},
    **{
        f"ipaddress:IPv{n}{kind}": _address(f"IPv{n}{kind}")
        for n in "46"
        for kind in ("Address", "Interface", "Network")
    },
}

_CONTROL: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "Send": ("pregel.Send", lambda p: _send(_fields(p, "node arg timeout"))),
    "Interrupt": ("pregel.Interrupt", lambda p: [p.get("value"), p.get("id", p.get("interrupt_id")), *_schema(p)]),
    "Command": ("pregel.Command", lambda p: _fields(p, "graph update resume goto")),
    "Overwrite": ("pregel.Overwrite", lambda p: p["value"]),
    "TimeoutPolicy": ("pregel.TimeoutPolicy", lambda p: _fields(p, "run_timeout idle_timeout refresh_on")),
    "Item": ("pregel.Item", lambda p: _fields(p, "namespace key value created_at updated_at")),
    "StateSnapshot": (
        "pregel.StateSnapshot",
        lambda p: _fields(p, "values next config metadata created_at parent_config tasks interrupts"),
    ),
    "PregelTask": ("pregel.PregelTask", lambda p: _fields(p, "id name path error interrupts state result")),
}
"""Name of a class in any module of LangGraph -> its name here, and its parts in the order they are stored in."""


def _send(parts: list[Any]) -> list[Any]:
    if not isinstance(parts[0], str):
        raise TypeError(f"a send to {parts[0]!r:.50}")
    return parts


def _schema(payload: dict[str, Any]) -> list[Any]:
    schema = payload.get("response_schema")
    return [] if schema is None else [schema]


# ---- parts of an outline


def node_of_send(found: Any) -> str | None:
    """The node that an outlined send names."""
    parts = _parts(found)
    payload = parts[2] if parts is not None and parts[1] == "Send" else None
    node = payload.get("node") if isinstance(payload, dict) else payload[0] if isinstance(payload, list) else None
    return node if isinstance(node, str) else None


def question_ids(outlined: Any) -> list[str | None]:
    """The ids of outlined questions; None for one without."""
    found: list[str | None] = []
    for item in outlined if isinstance(outlined, list) else ():
        parts = _parts(item)
        payload = parts[2] if parts is not None and parts[1] == "Interrupt" else None
        if isinstance(payload, dict):
            id_ = payload.get("id", payload.get("interrupt_id"))
            found.append(id_ if isinstance(id_, str) else None)
    return found


def _parts(found: Any) -> list[Any] | None:
    if not isinstance(found, Raw):
        return None
    try:
        parts = unpackb(found.body, ext_hook=Raw, option=_READ)
    except ValueError:
        return None
    return parts if isinstance(parts, list) and len(parts) >= 3 else None
