"""How a value differs from the stored one: deltas, and when an element counts as unchanged.

Decides which elements of a list or dict are stored again, and the form of a delta. Knows nothing of rows, headers or
where bodies go (`checkpoint.chains`), nor how a value becomes bytes: it is given a function for that.

A delta is a value like any other, told apart by its type. On a list: a list is what was appended; a dict is a splice,
`{"e": [position, n_old, n_new, ...], "n": [new elements]}`, positions in the old list, ascending. On a dict: a dict is a
patch, `{"s": [key, value, ...], "d": [keys]}`. On a str: a str, which was appended.

When is an element unchanged? Being the same object proves nothing: a node may have edited it and returned it again
(design.md D23). It is skipped if it is the same object as in the stored container *and* nobody wrote it in this
superstep, or if it cannot be changed. Every other element is encoded, and compared with what is stored by a hash of its
bytes. Hashes are Python's own, of 64 bits, keyed per process and never stored. They are made when they are first needed,
from the stored bodies, which a chain keeps until then; a chain that only grows never needs them.

What a delta skips may still have been edited in place, by somebody who did not return it. That is looked at
(`Chain.is_as_stored`) each time a list has doubled, and when a whole value is due anyway.

Invariants
1. `apply` of the deltas, in order, to the first value gives the last one.
2. A written element is never skipped without a look at its bytes.
3. Finding a delta changes nothing but what is only remembered (hashes, positions); `Chain.move` takes the step.

Source: design.md D23, storage.md C3.3; the splice is that of a line-based diff with the middle between the common ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from itertools import chain as chained
from itertools import compress, count, islice
from operator import is_, ne
from typing import Any, Final, NamedTuple

from checkpoint.base import Append, ChannelOp, CheckpointError, CorruptCheckpointError, Edit, UnregisteredTypeError
from checkpoint.headers import Body
from checkpoint.mapped import MIN_MAPPED, mapped
from checkpoint.serde.msgpack import MAX_BYTES
from checkpoint.turns import BLOCK_BYTES, BLOCK_ELEMENTS, free_in_turns, give_way, in_turns

FULL: Final = 0
APPEND: Final = 1
SPLICE: Final = 2
PATCH: Final = 3
TEXT: Final = 4

DELTA_SHARE: Final = 0.6
"""A delta that makes up this share of the value is stored as the whole value."""
_REST_SHARE: Final = 1 - DELTA_SHARE
MAX_CHAIN_ROWS: Final = 1000
"""A chain of this many rows gets a new full copy once its deltas are twice its full value."""
MIN_DIFF: Final = 1024
"""Bytes of a stored list or dict below which it is stored whole rather than compared element by element."""
RAW_LIMIT: Final = 1 << 20
"""Bytes of stored bodies that a chain keeps to make hashes from. Beyond, the first rewrite in a run stores the value
whole."""
GARBAGE: Final = 4096
"""Bytes of replaced elements that a chain may keep beyond the size of its value."""
LARGE: Final = 64 * 1024
"""Bytes of a value from which an event loop does not encode or decode it."""
MANY: Final = 256
"""Elements of a container whose size is not known from which it counts as large."""
MIN_BLOCKED: Final = 16
PIECE_DEPTH: Final = 4
"""Containers inside of which another one is still packed in pieces; a value may contain itself."""
SAMPLE: Final = 4
MANY_KNOWN: Final = 4096
"""Elements of a list from which an event loop does not look up where each stands (about a millisecond)."""
FIRST_AUDIT: Final = 32
"""Elements of a list when it is first looked at for edits in place."""
_TEXT_PIECE: Final = BLOCK_BYTES
"""Characters of a text that are encoded at once."""
_LOOK: Final = 512
"""What it costs to pack an element on its own, in bytes of a large one."""
_GLANCE: Final = BLOCK_BYTES // BLOCK_ELEMENTS
"""What it costs to find out that one is known."""

_ABSENT: Final = object()
_SCALARS: Final = frozenset({str, int, float, bool, bytes, type(None), complex})

Look = Callable[[Any], bool]
Pack = Callable[[Any], Body]
Unpack = Callable[[Body], Any]
Hashes = list[int] | dict[Any, int]
"""Hash of the bytes of every element of a list, or of every value of a dict."""


class Delta(NamedTuple):
    """What is stored of a changed value, and what is known of the value after it."""

    kind: int
    bodies: Sequence[Body]
    """Empty: the value is stored already."""
    hashes: Hashes | None
    """Of the appended elements, or of all."""
    n_freed: int = 0
    """Bytes of stored elements that the value does not have any more, estimated."""
    n_new: int = 0
    """Elements appended."""
    n_bytes: int = 0
    """Of all bodies."""


EDITED: Final = Delta(FULL, (), None)
"""In place of a delta: an element that nobody wrote is not what is stored. The whole value is."""


@dataclass(slots=True)
class Chain:
    """The stored form of one channel's value: rows `(root, 0)` to `(root, seq)`, and what is known of them."""

    root: int
    seq: int
    kind: type
    """Of the value."""
    length: int
    """Of the stored list, dict or str."""
    full: int
    """Bytes of the full value."""
    ops: int = 0
    """Bytes of the deltas."""
    freed: int = 0
    """Bytes of those of elements that are gone, estimated."""
    digest: int | None = None
    """Hash of the body while the chain is one row; None if not known."""
    tip: bool = True
    """May this run write seq + 1?"""
    raw: list[Body] | None = None
    """The stored bodies, until hashes have been made of them."""
    hashes: Hashes | None = None
    """Of the stored elements; None while nobody needed them, or if they are not known."""
    positions: dict[int, int] | None = None
    """id of an element -> its position in the live list; only elements that can change."""
    n_indexed: int = 0
    """Elements of the live list that `positions` knows."""
    n_audited: int = 0
    """Elements of the list when it was last compared with what is stored."""

    @property
    def live(self) -> int:
        """Bytes of the value as it is now, estimated."""
        return max(0, self.full + self.ops - self.freed)

    def move(self, delta: Delta, value: Any) -> None:
        """The delta's row is part of the chain from now on, which stands for `value`."""
        kind, bodies, hashes, n_freed, _, n_bytes = delta
        self.length = len(value)
        if kind != APPEND:
            self.hashes = hashes
            self.positions = None
        else:
            if self.hashes is not None and hashes is not None:
                self.hashes += hashes  # type: ignore[operator]
            if self.positions is not None:
                self.index(value, self.length)
        if not n_bytes:
            return
        self.seq += len(bodies)
        self.ops += n_bytes
        self.freed += n_freed
        self.digest = None
        if self.raw is not None:
            if self.hashes is not None or self.full + self.ops > RAW_LIMIT:
                self.raw = None
            else:
                self.raw += bodies

    # ---- what is known of the stored elements

    def known(self, pack: Pack, unpack: Unpack) -> Hashes | None:
        """The hashes of the stored elements; None if they cannot be known."""
        if self.hashes is None and self.raw is not None:
            stored = unpack(self.raw[0])
            for body in self.raw[1:]:
                stored = apply(stored, unpack(body))
            self.hashes = hashes_of(stored, pack)
            self.raw = None
        return self.hashes

    def is_as_stored(self, value: Any, pack: Pack, unpack: Unpack) -> bool:
        """Are the elements of `value`, of which all were to be skipped, what is stored? True if that cannot be known."""
        if self.raw is not None and self.kind is list and (stored := joined(self.raw)) is not None:
            return joined(packed(value, pack)) == stored
        known = self.known(pack, unpack)
        return known is None or hashes_of(value, pack) == known

    def rewritten(self, value: list[Any], start: int, written: Sequence[Any]) -> set[int]:
        """Positions before `start` whose element was written. O(delta) after the first call, which is O(start)."""
        found: set[int] = set()
        if (
            self.positions is not None
            and self.n_indexed == start
            and self.positions.keys().isdisjoint(map(id, written))
        ):
            return found
        for element in written:
            if type(element) in _SCALARS:
                continue
            if self.positions is None or self.n_indexed != start:
                self.positions = {}
                self.n_indexed = 0
                self.index(value, start)
            position = self.positions.get(id(element))
            # An index entry may be older than the object that has this id now: look.
            if position is not None and value[position] is element and not _is_frozen(element):
                # It may stand in several places.
                found.update(at for at in in_turns(range(start)) if value[at] is element)
        return found

    def index(self, value: list[Any], end: int) -> None:
        """Learn the elements from `n_indexed` to `end`."""
        positions = self.positions
        if positions is None:
            return
        if end - self.n_indexed == 1:
            # As nearly always.
            element = value[self.n_indexed]
            if type(element) not in _SCALARS:
                positions[id(element)] = self.n_indexed
            self.n_indexed = end
            return
        for start in range(self.n_indexed, end, BLOCK_ELEMENTS):
            stop = min(end, start + BLOCK_ELEMENTS)
            elements = value[start:stop]
            if _SCALARS.isdisjoint(map(type, elements)):
                positions.update(zip(map(id, elements), range(start, stop), strict=True))
            else:
                for position, element in enumerate(elements, start):
                    if type(element) not in _SCALARS:
                        positions[id(element)] = position
            if stop < end:
                give_way()
        self.n_indexed = end

    def is_behind(self, op: Append) -> bool:
        """Will more than the appended elements be looked at, which takes long?"""
        start = op.start
        if start >= MANY_KNOWN and op.written and (self.positions is None or self.n_indexed != start):
            return True
        return start >= FIRST_AUDIT and start >= 2 * self.n_audited and self.live > LARGE


def _is_frozen(value: Any) -> bool:
    if type(value) in _SCALARS or isinstance(value, Enum):
        return True
    return type(value) in (tuple, frozenset) and all(_is_frozen(element) for element in value)


def hashes_of(value: Any, pack: Pack) -> Hashes | None:
    """Hashes of the elements of a list or the values of a dict; None for anything else."""
    if type(value) is list:
        return list(_hashed(value, pack, {}))
    if type(value) is dict:
        return dict(zip(value, _hashed(value.values(), pack, {}), strict=True))
    return None


def _hashed(elements: Iterable[Any], pack: Pack, known: Mapping[int, int]) -> Iterator[int]:
    """The hash of the bytes of each element; of those whose id is known, that one."""
    room = BLOCK_BYTES
    for element in elements:
        own = known.get(id(element))
        if own is None:
            body = pack(element)
            own = digest_of(body)
            room -= len(body[1]) + _LOOK
        else:
            room -= _GLANCE
        yield own
        if room < 0:
            give_way()
            room = BLOCK_BYTES


def begun(root: int, value: Any, bodies: Sequence[Body], before: Chain | None, pack: Pack | None) -> Chain:
    """The chain that begins with this value. `before`: the one it takes the place of, in a run that goes on."""
    n_bytes = sum([len(data) for _, data in bodies])
    kind = type(value)
    length = len(value) if kind is list or kind is dict or kind is str else 0
    digest = digest_of(bodies[0]) if len(bodies) == 1 else None
    chain = Chain(root, len(bodies) - 1, kind, length, n_bytes, digest=digest)
    if kind is list or kind is dict:
        if kind is list:
            chain.n_audited = length
        if n_bytes <= RAW_LIMIT:
            chain.raw = list(bodies)
        elif before is not None and before.kind is kind and pack is not None:
            # It is too large to be kept as bytes, and is written more than once.
            chain.hashes = hashes_of(value, pack)
    return chain


def digest_of(body: Body) -> int:
    """What equal bodies have in common, and no others in this process."""
    tag, data = body
    if len(data) <= LARGE:
        return hash(body)
    # Python's own hash of so many bytes would not let another thread run.
    return hash((tag, blake2b(data, digest_size=16).digest()))


# ---- a value as bytes


def is_long(value: Any) -> bool:
    """May it take long to encode? Judged by its length, and by those of its elements if they are few."""
    kind = type(value)
    if kind is list or kind is dict:
        if len(value) > MANY:
            return True
        for element in value if kind is list else value.values():
            kind = type(element)
            if kind is list or kind is dict:
                if len(element) > MANY:
                    return True
            elif (kind is str or kind is bytes) and len(element) > LARGE:
                return True
        return False
    return (kind is str or kind is bytes) and len(value) > LARGE


def is_heavy(value: Any) -> bool:
    """As `is_long`, with a look at all that is inside, and not only where lists, dicts and texts mostly are: `LARGE` bytes
    of it at the most, where each look counts as some."""
    room = LARGE
    todo = [value]
    for part in todo:
        kind = type(part)
        room -= _GLANCE
        if kind is str or kind is bytes:
            room -= len(part)
        elif kind in _SCALARS:
            pass
        elif isinstance(part, dict):
            todo += islice(part.values(), room // _GLANCE + 1)
        elif isinstance(part, (list, tuple, set, frozenset, deque)):
            todo += islice(part, room // _GLANCE + 1)
        elif isinstance(part, bytearray):
            room -= len(part)
        elif kind.__module__ == "numpy":
            room -= getattr(part, "nbytes", 0)
        else:
            todo += getattr(part, "__dict__", {}).values()
        if len(todo) * _GLANCE > LARGE or room < 0:
            return True
    return False


def packed(value: Any, pack: Pack, long: Look = is_long, *, maps: bool = False) -> list[Body]:
    """The bytes of a whole value. A large list or dict comes in several bodies: a value, then what is appended to it.

    So no call holds the interpreter for long, neither here nor when the value is read, and other threads get a turn
    between two of them. `long`: which other values are packed in pieces. `maps`: bodies beyond what a chain keeps may be
    mapped.
    """
    kind = type(value)
    if (kind is not list and kind is not dict) or len(value) < MIN_BLOCKED:
        return [in_pieces(value, pack, long, maps=maps) if long(value) else pack(value)]
    try:
        size = _size_of_one(value, pack)
        if size * len(value) <= BLOCK_BYTES and len(value) <= BLOCK_ELEMENTS:
            return [pack(value)]
        bodies: list[Body] = []
        n_bytes = 0
        elements = iter(value if kind is list else value.items())
        while block := list(islice(elements, min(BLOCK_ELEMENTS, max(1, BLOCK_BYTES // size)))):
            if kind is list:
                bodies.append(pack(block))
            else:
                pairs = [part for pair in block for part in pair]
                bodies.append(pack({"s": pairs, "d": []} if bodies else dict(block)))
            tag, data = bodies[-1]
            size = max(1, len(data) // len(block))
            n_bytes += len(data)
            if maps and n_bytes > RAW_LIMIT and len(data) >= MIN_MAPPED:
                bodies[-1] = tag, mapped([data])
            give_way()
    except UnregisteredTypeError:
        # All at once, for the place of what is refused.
        return [pack(value)]
    return bodies


def _size_of_one(value: Any, pack: Pack) -> int:
    """Bytes of an element, estimated from a few."""
    step = len(value) // SAMPLE
    some = islice(value if type(value) is list else value.items(), 0, step * SAMPLE, step)
    size = 0
    for one in some:
        size += len(pack(one)[1])
        if size > BLOCK_BYTES:
            give_way()
    return max(1, size // SAMPLE)


def in_pieces(value: Any, pack: Pack, long: Look = is_long, *, maps: bool = False) -> Body:
    """What `pack` gives for a value that is `long`, made of several calls for the reason that `packed` has. `maps`: a
    large body may be a mapped one."""
    try:
        pieces: list[bytes] = []
        size, room = 0, BLOCK_BYTES
        for piece in _pieces(value, 0, pack, long):
            pieces.append(piece)
            size += len(piece)
            room -= len(piece) + _LOOK
            if room < 0:
                give_way()
                room = BLOCK_BYTES
        if size > MAX_BYTES:
            return pack(value)
        if maps and size > RAW_LIMIT:
            return None, mapped(pieces)
        body = b"".join(pieces)
        free_in_turns(pieces)
        return None, body
    except (UnregisteredTypeError, CheckpointError, _NotPlain):
        # All at once, for the place of what is refused.
        return pack(value)


class _NotPlain(Exception):
    """The codec writes such a value in a form of its own."""


def _pieces(value: Any, depth: int, pack: Pack, long: Look) -> Iterator[bytes]:
    """The bytes of a value that stands inside of `depth` containers."""
    kind = type(value)
    if (kind is str or kind is bytes) and len(value) > LARGE:
        yield from _text_pieces(value, depth, pack)
        return
    if (kind is not list and kind is not dict) or depth > PIECE_DEPTH or not long(value):
        yield _inside(value, depth, pack)
        return
    yield _head(len(value), kind)
    if len(value) <= MANY:
        for key, element in value.items() if kind is dict else ((None, element) for element in value):
            if kind is dict:
                if type(key) is not str:
                    raise _NotPlain
                yield _inside(key, depth + 1, pack)
            yield from _pieces(element, depth + 1, pack, long)
        return
    size = _size_of_one(value, pack)
    elements = iter(value if kind is list else value.items())
    while block := list(islice(elements, min(BLOCK_ELEMENTS, max(1, BLOCK_BYTES // size)))):
        data = _inside(block if kind is list else dict(block), depth, pack)
        head = _head(len(block), kind)
        if not data.startswith(head):
            raise _NotPlain
        yield data[len(head) :]
        size = max(1, len(data) // len(block))


def _text_pieces(value: str | bytes, depth: int, pack: Pack) -> Iterator[bytes]:
    """The bytes of a long text: ormsgpack would copy it several times in one call."""
    short: str | bytes = "" if isinstance(value, str) else b""
    # Its depth may be refused, and the codec may have a form of its own for it.
    if _inside(short, depth, pack) not in (b"\xa0", b"\xc4\x00"):
        raise _NotPlain
    if isinstance(value, str):
        texts: list[bytes] = []
        try:
            for at in range(0, len(value), _TEXT_PIECE):
                texts.append(value[at : at + _TEXT_PIECE].encode())
                give_way()
        except UnicodeEncodeError:
            raise _NotPlain from None
        yield b"\xdb" + sum(map(len, texts)).to_bytes(4, "big")
        yield from texts
    else:
        yield b"\xc6" + len(value).to_bytes(4, "big")
        yield value


def _inside(value: Any, depth: int, pack: Pack) -> bytes:
    # Packed inside of as many lists, it is refused exactly if it would be where it stands.
    for _ in range(depth):
        value = [value]
    tag, data = pack(value)
    if tag is not None:
        raise _NotPlain
    return data[depth:]


def _head(length: int, kind: type) -> bytes:
    """The first bytes of a msgpack array or map."""
    small, medium, large = (0x90, b"\xdc", b"\xdd") if kind is list else (0x80, b"\xde", b"\xdf")
    if length < 16:
        return bytes([small | length])
    return medium + length.to_bytes(2, "big") if length < 1 << 16 else large + length.to_bytes(4, "big")


# ---- finding a delta


def find(chain: Chain, value: Any, op: ChannelOp | None, pack: Pack, unpack: Unpack) -> Delta | None:
    """What to store of a value that took the place of the chain's; None if that is the whole value, `EDITED` if it is
    the whole value because something was edited in place.

    `op` None: nothing is known but the value. Cost: O(delta) for an append whose elements cannot change or are new,
    audits included; else one look at each element, and a `pack` for each that may differ.
    """
    kind = type(value)
    if kind is not chain.kind:
        return None
    if op is not None and (op.start if isinstance(op, Append) else len(op.before)) != chain.length:
        # Somebody has changed the old container itself: nothing is known.
        op = None
    delta: Delta | None = None
    if kind is list:
        delta = _grown(chain, value, op, pack, unpack)
        if delta is None and chain.live >= MIN_DIFF:
            delta = _spliced(chain, value, op, pack, unpack)
    elif kind is str:
        delta = _text(value, op, pack)
    elif kind is dict and chain.live >= MIN_DIFF:
        delta = _patched(chain, value, op, pack, unpack)
    if delta is None or not delta.bodies:
        return delta
    if not chain.tip or delta.n_bytes * _REST_SHARE >= (chain.full + chain.ops - chain.freed) * DELTA_SHARE:
        return None
    if (chain.freed or delta.n_freed or chain.seq >= MAX_CHAIN_ROWS) and _is_due(chain, delta):
        # All of it is encoded anyway: the moment to see whether what was skipped is what is stored.
        skipped = op is not None and kind is not str
        return EDITED if skipped and not _is_as_found(chain, value, delta, pack, unpack) else None
    return delta


def _is_due(chain: Chain, delta: Delta) -> bool:
    """Has the chain become so long, or so full of what was replaced, that the whole value is stored again?"""
    ops = chain.ops + delta.n_bytes
    freed = chain.freed + delta.n_freed
    if freed and chain.full + ops > 2 * (chain.full + ops - freed) + GARBAGE:
        return True
    return chain.seq >= MAX_CHAIN_ROWS and ops >= 2 * chain.full


def _is_as_found(chain: Chain, value: Any, delta: Delta, pack: Pack, unpack: Unpack) -> bool:
    if delta.kind == APPEND:
        return chain.is_as_stored(value[: len(value) - delta.n_new], pack, unpack)
    return delta.hashes is None or hashes_of(value, pack) == delta.hashes


def _text(value: str, op: ChannelOp | None, pack: Pack) -> Delta | None:
    if op is None:
        return None
    if isinstance(op, Append):
        start = op.start
    elif type(op.before) is str and value.startswith(op.before):
        start = len(op.before)
    else:
        return None
    if start == len(value):
        return Delta(TEXT, (), None)
    body = pack(value[start:])
    return Delta(TEXT, [body], None, n_bytes=len(body[1]))


def _grown(chain: Chain, value: list[Any], op: ChannelOp | None, pack: Pack, unpack: Unpack) -> Delta | None:
    """The delta if the list has only grown, and nothing that stood there before was written."""
    if op is None:
        return None
    if isinstance(op, Append):
        start = op.start
    elif _is_prefix(op.before, value):
        start = len(op.before)
    else:
        return None
    if op.written and chain.rewritten(value, start, op.written):
        return None
    if start >= FIRST_AUDIT and start >= 2 * chain.n_audited:
        chain.n_audited = start
        if not chain.is_as_stored(value[:start], pack, unpack):
            return EDITED
    tail = value[start:]
    if not tail:
        return Delta(APPEND, (), None)
    hashes = None if chain.hashes is None else hashes_of(tail, pack)
    n_new = len(tail)
    if n_new < MIN_BLOCKED:
        body = in_pieces(tail, pack) if is_long(tail) else pack(tail)
        # As `Delta(...)`, whose constructor is a function that C calls: that alone would take a twentieth of encoding.
        return tuple.__new__(Delta, (APPEND, (body,), hashes, 0, n_new, len(body[1])))
    bodies = packed(tail, pack)
    return Delta(APPEND, bodies, hashes, 0, n_new, sum([len(data) for _, data in bodies]))


def _is_prefix(before: Any, value: list[Any]) -> bool:
    """Does the list begin with the very objects of the other one?"""
    if type(before) is not list or before is value or len(before) > len(value):
        return False
    for at in range(0, len(before), BLOCK_ELEMENTS):
        if at:
            give_way()
        if not all(map(is_, before[at : at + BLOCK_ELEMENTS], value[at : at + BLOCK_ELEMENTS])):
            return False
    return True


def _spliced(chain: Chain, value: list[Any], op: ChannelOp | None, pack: Pack, unpack: Unpack) -> Delta | None:
    """The delta between two lists, element by element."""
    old = chain.known(pack, unpack)
    if type(old) is not list:
        return None
    before: Any = None
    if op is not None:
        before = value[: op.start] if isinstance(op, Append) else op.before
    if op is None or before is value or type(before) is not list:
        kept: dict[int, int] = {}
    else:
        # The old container holds its elements: an id found in it is that object.
        kept = dict(zip(map(id, in_turns(before)), old, strict=True))
        for element in op.written:
            kept.pop(id(element), None)
    new = list(_hashed(value, pack, kept))
    edits = differences(old, new)
    if not edits:
        return Delta(SPLICE, (), new)
    n_gone = sum(edits[1::3])
    added: list[Any] = []
    shift = 0
    for at, n_old, n_new in zip(edits[::3], edits[1::3], edits[2::3], strict=True):
        added += value[at + shift : at + shift + n_new]
        shift += n_new - n_old
    body = pack({"e": edits, "n": added})
    return Delta(SPLICE, [body], new, chain.live * n_gone // max(1, len(old)), n_bytes=len(body[1]))


def _patched(chain: Chain, value: dict[Any, Any], op: ChannelOp | None, pack: Pack, unpack: Unpack) -> Delta | None:
    """The delta between two dicts, key by key; None if their keys are not in the order that a patch would give."""
    old = chain.known(pack, unpack)
    # Keys that are equal and of different type would be taken for each other.
    if type(old) is not dict or not all(type(key) is str for key in in_turns(value)):
        return None
    before: Any = op.before if isinstance(op, Edit) else None
    kept: dict[int, int] = {}
    if op is not None and before is not value and type(before) is dict:
        written = set(map(id, op.written))
        kept = {
            id(element): old[key]
            for key, element in in_turns(value.items())
            if key in old and before.get(key, _ABSENT) is element and id(element) not in written
        }
    new = dict(zip(value, _hashed(value.values(), pack, kept), strict=True))
    changed = [key for key, own in in_turns(new.items()) if old.get(key) != own]
    gone = [key for key in in_turns(old) if key not in new]
    in_order = chained((key for key in in_turns(old) if key in new), (key for key in in_turns(new) if key not in old))
    if any(map(ne, new, in_order)):
        return None
    if not changed and not gone:
        return Delta(PATCH, (), new)
    pairs: list[Any] = []
    for key in changed:
        pairs += (key, value[key])
    n_freed = len(gone) + sum(1 for key in changed if key in old)
    body = pack({"s": pairs, "d": gone})
    return Delta(PATCH, [body], new, chain.live * n_freed // max(1, len(old)), n_bytes=len(body[1]))


def differences(old: list[int], new: list[int]) -> list[int]:
    """How to make `new` of `old`: (position in `old`, number taken out, number put in), flat, ascending.

    Finds edits in place in a list of the same length, one edited stretch in any list, and what was dropped in front
    while something was put behind. Whatever else was done to a list comes out as one long stretch.
    """
    if len(old) == len(new):
        changed = list(compress(count(), in_turns(map(ne, old, new))))
        if len(changed) <= len(old) // 2:
            return _runs(changed)
    head = next((at for at, differs in enumerate(in_turns(map(ne, old, new))) if differs), min(len(old), len(new)))
    n_same = min(len(old), len(new)) - head
    tail = next(
        (at for at, differs in enumerate(in_turns(map(ne, reversed(old), reversed(new)))) if differs),
        min(len(old), len(new)),
    )
    tail = min(tail, n_same)
    old_end, new_end = len(old) - tail, len(new) - tail
    if head < old_end and head < new_end and new[head] in old[head:old_end]:
        start = old.index(new[head], head, old_end)
        run = next(
            (at for at, differs in enumerate(map(ne, old[start:old_end], new[head:new_end])) if differs),
            min(old_end - start, new_end - head),
        )
        edits = [head, start - head, 0]
        if start + run < old_end or head + run < new_end:
            edits += (start + run, old_end - start - run, new_end - head - run)
        return edits
    return [head, old_end - head, new_end - head] if head < old_end or head < new_end else []


def _runs(positions: list[int]) -> list[int]:
    """Neighbouring positions as one edit."""
    edits: list[int] = []
    for at in positions:
        if edits and edits[-3] + edits[-2] == at:
            edits[-2] += 1
            edits[-1] += 1
        else:
            edits += (at, 1, 1)
    return edits


# ---- applying deltas


def apply(value: Any, delta: Any) -> Any:
    """The value after a delta. A list or dict may be changed in place.

    Raises:
        CorruptCheckpointError: the delta is none for such a value.
    """
    try:
        if type(value) is list:
            if type(delta) is list:
                value += delta
                return value
            return _splice(value, delta["e"], delta["n"])
        if type(value) is dict:
            pairs = delta["s"]
            for key in delta["d"]:
                del value[key]
            value.update(zip(pairs[::2], pairs[1::2], strict=True))
            return value
        if type(value) is str and type(delta) is str:
            return value + delta
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptCheckpointError(
            f"a delta does not fit the {type(value).__name__} it changes ({error!r})"
        ) from error
    raise CorruptCheckpointError(f"a {type(value).__name__} cannot be changed by a {type(delta).__name__}")


def _splice(value: list[Any], edits: list[int], added: list[Any]) -> list[Any]:
    made: list[Any] = []
    at = taken = 0
    for start, n_old, n_new in zip(edits[::3], edits[1::3], edits[2::3], strict=True):
        if not at <= start <= start + n_old <= len(value) or taken + n_new > len(added):
            raise ValueError(f"edit of {n_old} elements at {start} in a list of {len(value)}")
        made += value[at:start]
        made += added[taken : taken + n_new]
        taken += n_new
        at = start + n_old
    made += value[at:]
    return made


def joined(bodies: Sequence[Body]) -> tuple[int, bytes] | None:
    """The elements of msgpack arrays, in a row: (how many, their bytes); None if a body is no such array."""
    n_elements = 0
    pieces: list[bytes] = []
    for tag, data in bodies:
        if tag is not None:
            return None
        first = data[0]
        if 0x90 <= first <= 0x9F:
            n_elements += first & 0x0F
            pieces.append(data[1:])
        elif first == 0xDC:
            n_elements += int.from_bytes(data[1:3], "big")
            pieces.append(data[3:])
        elif first == 0xDD:
            n_elements += int.from_bytes(data[1:5], "big")
            pieces.append(data[5:])
        else:
            return None
    return n_elements, b"".join(pieces)
