"""What an entry of a graph's cache is found by: which function, in which place, on which input.

Decides when two calls are the same call: same graph, node, code and input. Inputs are hashed, by what pickling would take
of them; nothing is pickled, and no object is made from stored bytes. Equal in every process of one Python version, so a
cache in a file serves the next process as well. Knows no cache, run or saver.

Invariants
1. Two functions never share an entry. What a function closes over counts, with the content it had when this process first
   met it: what changes while it runs, such as a list of calls, does not make it another function.
2. What has no content to go by (a connection, a lock) counts as itself: then entries are found by this process alone. If
   the node has a key function of its own, such things count by their type, and the key function has to tell them apart.
3. An input that cannot be hashed is an error that says where in it; never a key that other inputs have too.

Not covered: globals that a function reads, and the functions that it calls.
"""

from __future__ import annotations

import functools
import itertools
import os
import struct
import sys
import threading
import types
import weakref
from _blake2 import blake2b  # hashlib's own, without loading OpenSSL
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from pregel._call import Call, is_graph
from pregel.errors import shown

__all__ = ["Identity", "identity_of", "key_of", "namespace_of", "parts_of"]

NAMESPACE: Final = "__pregel_ns_writes"
"""First label of the namespaces of nodes and tasks."""
NAMELESS: Final = "__dynamic__"
MAX_DEPTH: Final = 64
MAX_SEEN: Final = 20_000
"""Parts of a function's surroundings that are looked at; one that holds on to more counts as itself."""
MAX_COPIED: Final = 1_000_000
"""Bytes of an array that a function holds on to; a larger one counts as itself."""
MAX_HELD: Final = 512
"""Containers that are remembered by what they held when they were met first, and kept alive for it."""
DIGEST_BYTES: Final = 16

_process: Final = os.urandom(DIGEST_BYTES)
_numbers: Final = itertools.count()


class Identity(NamedTuple):
    """What the key of an entry has of the function whose result it is. `is_local`: no other process finds it."""

    digest: bytes
    is_local: bool


class _Unfit(Exception):
    """Something that has no content to go by."""

    def __init__(self, value: Any, why: str) -> None:
        super().__init__(why)
        self.value = value
        self.why = why
        self.way: list[str] = []
        """How to get to it from the outside, innermost first."""


def namespace_of(name: str, subject: Any) -> tuple[str, str, str]:
    """Where all entries of a node or task are, whatever its code was: what `clear_cache` clears."""
    while isinstance(subject, functools.partial):
        subject = subject.func
    module, qualname = getattr(subject, "__module__", None), getattr(subject, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        return NAMESPACE, NAMELESS, name
    place = f"{module}.{qualname}"
    if "<" in qualname:
        # There may be others of this name: what tells them apart goes into the name.
        function = getattr(subject, "__func__", subject)
        code = getattr(function, "__code__", None)
        place = place if code is None else f"{place}#{_hash(_code(code))[:4].hex()}"
    return NAMESPACE, place, name


def identity_of(parts: Iterable[Any], *, explicit: bool) -> Identity:
    """What tells a function from all others.

    Args:
        parts: the function or whatever runs, and plain data on what becomes of its result.
        explicit: does a key function of the user's tell apart what has no content?
    """
    hasher = _Hasher(is_code=True, explicit=explicit)
    digest = _hash(b"".join([hasher.frozen(part) for part in parts]))
    return Identity(digest, hasher.is_local)


def key_of(
    where: str, identity: Identity, key_func: Callable[..., Any] | None, given: tuple[Any, ...], more: Any
) -> str:
    """The key of one call: `given` and `more` are its arguments. `where` names the node in errors.

    Raises:
        TypeError: the input cannot be hashed, or the key function returns neither text nor bytes.
        Exception: what the key function raises.
    """
    if key_func is None:
        body = _frozen_input(where, given, more)
    else:
        try:
            made = key_func(*given, **more)
        except Exception as error:
            error.add_note(f"It was raised by the key_func of the cache policy of {where}")
            raise
        if not isinstance(made, (str, bytes)):
            raise TypeError(
                f"{where}: key_func of its cache policy returned {shown(made)} ({type(made).__name__}); expected str or "
                f"bytes, such as json.dumps of what the result depends on"
            )
        body = _text(made) if isinstance(made, str) else b"b" + made
    return _hash(identity.digest + body).hex()


def _frozen_input(where: str, given: tuple[Any, ...], more: Mapping[str, Any]) -> bytes:
    hasher = _Hasher()
    try:
        if not more and len(given) == 1:
            return hasher.frozen(given[0])
        return hasher.frozen((given, dict(more)))
    except _Unfit as unfit:
        place = "its input" + "".join(reversed(unfit.way))
        raise TypeError(
            f"{where} has a cache policy, but no key can be made of {place}: {shown(unfit.value)} "
            f"({type(unfit.value).__module__}.{type(unfit.value).__qualname__}) {unfit.why}; give "
            f"CachePolicy(key_func=...) that returns text of what the result depends on"
        ) from unfit


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


# ---- values without anything inside


def _sized(tag: bytes, data: bytes) -> bytes:
    return tag + len(data).to_bytes(8, "big") + data


def _text(value: str) -> bytes:
    return _sized(b"s", value.encode("utf-8", "surrogatepass"))


_PLAIN: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda value: b"N",
    type(...): lambda value: b".",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: _sized(b"i", f"{value:x}".encode()),
    float: lambda value: b"f" + struct.pack(">d", value),
    str: _text,
    bytes: lambda value: _sized(b"b", value),
}


def _named(value: Any) -> bytes:
    """A class, or a function that is looked up by its name."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or repr(value)
    return _text(f"{getattr(value, '__module__', None)}:{name}")


# ---- values with something inside


class _Hasher:
    """Makes bytes of values: equal for equal content, different for any other.

    `is_code`: of what runs, as opposed to an input: there, what can change counts as it was first met, and what has no
    content counts as itself, or, if keys are `explicit`, by its type.
    """

    def __init__(self, *, is_code: bool = False, explicit: bool = False) -> None:
        self.is_code = is_code
        self.explicit = explicit
        self.is_local = False
        self._inside: set[int] = set()
        self._n_seen = 0

    def frozen(self, value: Any, depth: int = 0) -> bytes:
        """The bytes of a value.

        Raises:
            _Unfit: it has no content to go by; never of what runs.
        """
        plain = _PLAIN.get(type(value))
        if plain is not None:
            return plain(value)
        if id(value) in self._inside:
            if self.is_code:
                return b"@"  # a function that knows itself
            raise _Unfit(value, "contains itself")
        if depth > MAX_DEPTH:
            raise _Unfit(value, f"is nested deeper than {MAX_DEPTH} levels")
        self._n_seen += 1
        self._inside.add(id(value))
        try:
            return self._inner(value, depth + 1)
        finally:
            self._inside.discard(id(value))

    def _inner(self, value: Any, depth: int) -> bytes:
        kind = type(value)
        if kind is tuple or kind is frozenset or (not self.is_code and (kind is dict or kind is list or kind is set)):
            return self._container(value, depth)
        runs = self._runs(value, depth)
        if runs is not None:
            return runs
        return self._first_met(value, depth) if self.is_code else self._content(value, depth)

    def _first_met(self, value: Any, depth: int) -> bytes:
        """An object or container that something which runs holds on to."""
        called = [getattr(type(value), name, None) for name in ("__call__", "invoke", "ainvoke")]
        codes = [_code(method.__code__) for method in called if isinstance(method, types.FunctionType)]
        known = _met(value, self.explicit)
        if known is None:
            around, self.is_local = self.is_local, False
            try:
                if self._n_seen > MAX_SEEN:
                    raise _Unfit(value, "holds too much")
                content = self._content(value, depth) if _is_light(value) else _array(value)
            except Exception:  # noqa: BLE001 - it has no content, or another thread is changing it
                self.is_local = not self.explicit
                content = b"" if self.explicit else _process + next(_numbers).to_bytes(8, "big")
            known = _meet(value, self.explicit, Identity(_hash(_named(type(value)) + content), self.is_local))
            self.is_local = around
        self.is_local = self.is_local or known.is_local
        return _sized(b"#", known.digest + b"".join(codes))

    def _content(self, value: Any, depth: int) -> bytes:
        return self._container(value, depth) if type(value) in (list, dict, set) else self._reduced(value, depth)

    def _container(self, value: Any, depth: int) -> bytes:
        if isinstance(value, dict):
            return _sized(b"d", self._items(value.items(), depth))
        if isinstance(value, (set, frozenset)):
            items = sorted([self.frozen(item, depth) for item in value])
            return _sized(b"S" if type(value) is set else b"Z", b"".join(items))
        parts = []
        for index, item in enumerate(value):
            try:
                parts.append(self.frozen(item, depth))
            except _Unfit as unfit:
                unfit.way.append(f"[{index}]")
                raise
        return _sized(b"l" if type(value) is list else b"t", b"".join(parts))

    def _items(self, items: Iterable[tuple[Any, Any]], depth: int, way: str = "[{!r}]") -> bytes:
        parts = []
        for key, item in items:
            try:
                parts.append(self.frozen(key, depth) + self.frozen(item, depth))
            except _Unfit as unfit:
                unfit.way.append(way.format(key))
                raise
        return b"".join(sorted(parts))

    def _reduced(self, value: Any, depth: int) -> bytes:
        """What pickling would take of an object, without doing it."""
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:
            raise _Unfit(value, f"has no content to go by ({error})") from error
        if isinstance(reduced, str):
            return _sized(b"g", _text(str(getattr(value, "__module__", None))) + _text(reduced))
        taken: tuple[Any, ...] = (*reduced, None, None, None)[:5]
        maker, arguments, state, items, pairs = taken
        slots = None
        if type(state) is tuple and len(state) == 2 and isinstance(state[1], dict):
            state, slots = state
        parts = [_named(maker)]
        parts += [_named(each) if isinstance(each, type) else self.frozen(each, depth) for each in arguments]
        parts += [self._state(part, depth) for part in (state, slots)]
        parts.append(b"-" if items is None else self._container(list(items), depth))
        parts.append(b"-" if pairs is None else _sized(b"d", self._items(pairs, depth)))
        return _sized(b"o", b"".join(parts))

    def _state(self, state: Any, depth: int) -> bytes:
        if not isinstance(state, dict):
            return b"-" if state is None else self.frozen(state, depth)
        fields = dict(state)
        # Which fields of a pydantic model were given, and which are its defaults, makes no other content.
        if fields.pop("__pydantic_fields_set__", None) is not None and isinstance(fields.get("__dict__"), dict):
            fields |= fields.pop("__dict__")
        return _sized(b"a", self._items(fields.items(), depth, ".{}"))

    # ---- what runs

    def _runs(self, value: Any, depth: int) -> bytes | None:
        """Functions, methods, classes, modules, graphs; None for anything else."""
        if isinstance(value, types.FunctionType):
            return self._function(value, depth)
        if isinstance(value, types.MethodType):
            return _sized(b"m", self.frozen(value.__func__, depth) + self.frozen(value.__self__, depth))
        if isinstance(value, functools.partial):
            parts = (value.func, value.args, tuple(sorted(value.keywords.items())))
            return _sized(b"p", b"".join([self.frozen(part, depth) for part in parts]))
        if isinstance(value, type):
            return _sized(b"c", _named(value))
        if isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            is_method = owner is not None and not isinstance(owner, types.ModuleType)
            return _sized(b"n", _named(value) + (self.frozen(owner, depth) if is_method else b""))
        if isinstance(value, types.ModuleType):
            return _sized(b"M", _text(value.__name__))
        if isinstance(value, types.CodeType):
            return _code(value)
        if isinstance(value, Call):
            # Of several steps in a row, the function that runs them has a list.
            steps = getattr(value.fn or value.afn, "steps", None)
            return self.frozen(value.subject if steps is None else tuple(steps), depth)
        if is_graph(value):
            nodes = [_text(name) + self._node(node, depth) for name, node in sorted(value.nodes.items())]
            return _sized(b"G", _text(value.name) + b"".join(nodes))
        wrapped = getattr(value, "__wrapped__", None) if callable(value) else None
        if isinstance(wrapped, types.FunctionType):
            return _sized(b"w", _named(type(value)) + self.frozen(wrapped, depth))  # functools.cache and the like
        return None

    def _node(self, node: Any, depth: int) -> bytes:
        return b"".join([self.frozen(part, depth) for part in parts_of(node)])

    def _function(self, function: types.FunctionType, depth: int) -> bytes:
        cells = []
        for cell in function.__closure__ or ():
            try:
                cells.append(self.frozen(cell.cell_contents, depth))
            except ValueError:  # not assigned yet
                cells.append(b"-")
        defaults = (function.__defaults__ or (), tuple(sorted((function.__kwdefaults__ or {}).items())))
        parts = [_named(function), _code(function.__code__), *cells, *[self.frozen(part, depth) for part in defaults]]
        return _sized(b"F", b"".join(parts))


def parts_of(node: Any) -> list[Any]:
    """What of a node (`PregelNode`) makes its writes: what runs, and what is made of the result."""
    return [node.bound, _shape(node.write), *[_shape(router) for router in node.routers]]


def _shape(writer: Any) -> Any:
    """What a writer or router does, as data; itself, if it does not say."""
    return getattr(writer, "shape", writer)


def _code(code: types.CodeType) -> bytes:
    """Compiled code, wherever it stands in its file."""
    found = _codes.get(code)
    if found is None:
        hasher = _Hasher(is_code=True)
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_name)
        parts = (code.co_code, code.co_exceptiontable, counts, names, code.co_consts)
        found = _codes[code] = _sized(b"C", _hash(hasher.frozen(parts)))
    return found


_codes: Final[weakref.WeakKeyDictionary[types.CodeType, bytes]] = weakref.WeakKeyDictionary()


def _is_light(value: Any) -> bool:
    """Does an object only say what it holds when it is asked for its content, as most do? Others, such as models with
    weights, make a copy of all of it."""
    kind = type(value)
    for method in (kind.__reduce_ex__, kind.__reduce__):
        owner = getattr(method, "__objclass__", method)
        if str(owner.__module__).partition(".")[0] not in sys.stdlib_module_names:
            return False
    return True


def _array(value: Any) -> bytes:
    """The bytes of a small array, told by what arrays have.

    Raises:
        _Unfit: it is none, or a large one.
    """
    n_bytes = getattr(value, "nbytes", None)
    dtype = getattr(value, "dtype", None)
    has_objects = getattr(dtype, "hasobject", True)
    if has_objects or not isinstance(n_bytes, int) or n_bytes > MAX_COPIED or not hasattr(value, "tobytes"):
        raise _Unfit(value, "holds too much")
    kind = f"{dtype} {getattr(value, 'shape', None)}"
    return _sized(b"y", _text(kind) + value.tobytes())


# ---- what can change, as it was first met

_first: Final[dict[tuple[int, bool], tuple[Callable[[], Any], Identity]]] = {}
_held: Final[dict[tuple[int, bool], None]] = {}
"""Entries of `_first` that keep what they are about alive, in order."""
_holding: Final = threading.Lock()


def _met(value: Any, explicit: bool) -> Identity | None:
    entry = _first.get((id(value), explicit))
    return entry[1] if entry is not None and entry[0]() is value else None


def _meet(value: Any, explicit: bool, identity: Identity) -> Identity:
    """Remember an object by this from now on; returns what it is remembered by, if somebody else was faster."""
    key = id(value), explicit
    alive: Callable[[], Any]
    try:
        alive = weakref.ref(value, functools.partial(_forget, key))
    except TypeError:  # lists and dicts: kept alive, so that no other one gets their address
        alive = functools.partial(_same, value)
        with _holding:
            _held[key] = None
            if len(_held) > MAX_HELD:
                oldest = next(iter(_held))
                del _held[oldest]
                _first.pop(oldest, None)
    return _first.setdefault(key, (alive, identity))[1]


def _forget(key: tuple[int, bool], gone: Any, first: dict[Any, Any] = _first) -> None:
    # The dict by default: at the end of the interpreter globals are gone before objects are.
    entry = first.get(key)
    if entry is not None and entry[0] is gone:
        del first[key]


def _same(value: Any) -> Any:
    return value
