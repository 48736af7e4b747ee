"""How a commit becomes rows, and how rows become a state again: headers, chains, snapshot rule, tip rule.

Decides the bytes of headers, chains and task rows, and when a delta may stand for a value. Does no I/O, holds no lock
and asks no database: everything it needs about a namespace is in its `Space`, which `load` fills and `encode` keeps up
to date. Both savers of this package store exactly the rows made here. Called by `checkpoint.rows` and the savers.

Rows. A checkpoint row has a header. The first header of a line of checkpoints is *full*; each later one is an *op* on
its predecessor, found by `header_root` (the rev of the full one). A channel value of at most `INLINE_LIMIT` bytes lives
in the header. Any other is a chain: payload rows `(channel number, root, seq)`, where seq 0 is a full value and each
later row what was appended to it. Names are stored once per line and are integers after that.

Header op, a list whose empty tail is cut; all maps are flat lists of alternating keys and values:

    [version, changed, extended, rooted, inline, gone, seen, names, sub, updated, versions]

`changed`: new version, same stored value. `extended`: chain got the row seq + 1. `rooted`: new chain `(own rev, 0)`.
`gone`: new version, no value. `seen`: node, [channel, version, ...]; a negative node is -1 - node and its map replaces
the old one. `updated`: 0 for the sorted channels of the op, -1 for None, -2 for no channel, else the list. `versions`:
those that are not `version`.

Full header: [names, versions, refs (channel, rev - root, seq), inline, seen, sub, updated, extra].

Invariants
1. A chain is extended only at its tip, by the one run that may write it (storage.md C4); so two writers never make one
   key.
2. `encode` changes a `Space` only after every value was encoded: a refused value leaves no trace.
3. An element that was written again is never skipped by a delta (design.md D23).
4. The stored value of a revision is the live value at the moment of `encode`.

Source of the idea: log-structured storage (Rosenblum and Ousterhout 1992) and delta chains with periodic full copies,
as in version control; bounds measured in storage.md C6.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import count, islice
from typing import Any, Final, NamedTuple

from ormsgpack import packb, unpackb

from checkpoint.base import (
    Append,
    ChannelOp,
    CheckpointError,
    Claim,
    CorruptCheckpointError,
    StepCommit,
    TaskWrites,
    UnknownTypeError,
    UnregisteredTypeError,
    Version,
)
from checkpoint.serde.msgpack import FORMAT_TAG, Serde

INLINE_LIMIT: Final = 64
"""Bytes of an encoded value that still live in the header."""
DELTA_SHARE: Final = 0.6
"""A delta that makes up this share of the value is stored as the whole value."""
MAX_CHAIN_ROWS: Final = 1000
"""A chain of this many rows gets a new full copy once its deltas are twice its full value."""
MAX_HEADER_ROWS: Final = 256
MIN_HEADER_OPS: Final = 2048

FULL: Final = 0
APPEND: Final = 1

STUB: Final = 1
"""Flag: only the header of a pruned checkpoint is kept."""
PARENT_PRUNED: Final = 2
"""Flag: its parent was removed on purpose."""
LANE: Final = 4
PUBLIC_PUT: Final = 8

SOURCES: Final = {"input": 1, "loop": 2, "update": 3, "fork": 4}
SOURCE_NAMES: Final = {number: name for name, number in SOURCES.items()}
CHANNEL_OF_SLOT: Final = {-1: "__error__", -2: "__scheduled__", -3: "__interrupt__", -4: "__resume__"}

_SCALARS: Final = frozenset({str, int, float, bool, bytes, type(None), complex})

Body = tuple[str | None, bytes]
"""(format tag, bytes); the tag is None for the codec's own format."""
_NIL: Final[Body] = (None, packb(None))
Staged = tuple[str, Body, Append | None]
"""(channel, its bytes, the append if they go behind what is stored)."""
Places = tuple[list[int], list[int], list[int], list[Any]]
"""Channels of a commit by where they went: (unchanged bytes, chain extended, chain begun, flat list for the header)."""


# ---- rows


class CheckpointRow(NamedTuple):
    """One checkpoint, in the order of the table's columns. Ids are texts here."""

    rev: int
    id: str
    parent_rev: int | None
    parent_id: str | None
    """Only if the parent has no row."""
    up_rev: int | None
    ts: int | str
    """Microseconds since the epoch, UTC, or the text as given."""
    step: int
    source: int
    """0 if it is not one of `SOURCES`: then it is in `metadata`, and so is the step."""
    flags: int
    run_id: str | None
    header_root: int
    header: bytes
    metadata: str | None
    """JSON of what the columns do not hold."""


PlainCheckpoint = tuple[
    int, str, int | None, str | None, int | None, int | str, int, int, int, str | None, int, bytes, str | None
]
"""A `CheckpointRow` without names. What is kept in memory is one of these: the collector of cycles stops looking at a
plain tuple of texts and numbers, and it would look at every checkpoint of a long process again and again."""
REV: Final = 0
ID: Final = 1
UP_REV: Final = 4
TS: Final = 5
FLAGS: Final = 8
RUN_ID: Final = 9
HEADER_ROOT: Final = 10
HEADER: Final = 11

PayloadRow = tuple[int, int, int, int, str | None, bytes]
"""(channel number, root, seq, kind, tag, body)."""


class WriteRow(NamedTuple):
    """What one task wrote: slot 0 holds all regular writes as a flat list, a slot below 0 one special value."""

    rev: int
    task_id: str
    slot: int
    path: str
    tag: str | None
    body: bytes


PlainWrite = tuple[int, str, int, str, str | None, bytes]
"""A `WriteRow` without names."""


# ---- values <-> bytes


class Codec:
    """The serde of a saver as `encode` and the folds use it.

    Our own serde is called by its untyped pair, and its rows have no tag; any other one by `dumps_typed` and
    `loads_typed`.
    """

    __slots__ = ("dumps", "is_plain", "pack", "serde", "unpack", "unpack_opaque")

    def __init__(self, serde: Any) -> None:
        kind = type(serde)
        self.serde = serde
        self.is_plain = False
        """Are rows without tag plain msgpack?"""
        self.pack: Callable[[Any], Body] = serde.dumps_typed
        self.dumps: Callable[[Any], bytes] | None = None
        """`pack` for a serde whose bodies have no tag, without the pair."""
        self.unpack: Callable[[str | None, bytes], Any] = lambda tag, body: serde.loads_typed((tag or FORMAT_TAG, body))
        self.unpack_opaque = self.unpack
        if isinstance(serde, Serde):
            self.unpack_opaque = self._unpack_known
            if kind.dumps_typed is Serde.dumps_typed and kind.dumps is Serde.dumps:
                dumps = self.dumps = serde.dumps
                self.pack = lambda value: (None, dumps(value))
            if kind.loads_typed is Serde.loads_typed and kind.loads is Serde.loads:
                self.unpack = self._unpack_own
                self.is_plain = True

    def _unpack_own(self, tag: str | None, body: bytes) -> Any:
        return self.serde.loads(body) if tag is None else self.serde.loads_typed((tag, body))

    def _unpack_known(self, tag: str | None, body: bytes) -> Any:
        """The value, or with `Opaque` in it if this process does not know all of its types."""
        try:
            return self.unpack(tag, body)
        except UnknownTypeError:
            return self.serde.loads_typed((tag or FORMAT_TAG, body), opaque=True)

    def pack_channel(self, channel: str, value: Any) -> Body:
        """Bytes of a channel's value; a refusal names the channel."""
        try:
            return self.pack(value)
        except UnregisteredTypeError as refusal:
            raise UnregisteredTypeError(refusal.type, refusal.path, channel=channel) from None


# ---- what is known of a namespace between two commits


@dataclass(slots=True)
class Chain:
    """The stored form of one channel's value: `(root, 0)` to `(root, seq)`."""

    root: int
    seq: int
    full: int
    """Bytes of the full value."""
    ops: int = 0
    """Bytes of the deltas."""
    digest: int | None = None
    """Python's hash of (tag, body) while the chain is one row; None if not known."""
    tip: bool = True
    """May this run write seq + 1?"""
    positions: dict[int, int] | None = None
    """id of an element -> its position in the live list; only elements that can change."""
    n_indexed: int = 0
    """Elements of the live list that `positions` knows."""

    def holds_rewritten(self, value: list[Any], start: int, written: Sequence[Any]) -> bool:
        """Does a written element also stand before `start`? O(delta) after the first call, which is O(start)."""
        for element in written:
            if type(element) in _SCALARS:
                continue
            if self.positions is None or self.n_indexed != start:
                self.positions = {}
                self.n_indexed = 0
                self.index(value[:start])
            position = self.positions.get(id(element))
            # An index entry may be older than the object that has this id now: look.
            if position is not None and value[position] is element and not _is_frozen(element):
                return True
        return False

    def index(self, value: list[Any]) -> None:
        """Learn the elements from `n_indexed` on."""
        positions = self.positions
        if positions is None:
            return
        for position in range(self.n_indexed, len(value)):
            element = value[position]
            if type(element) not in _SCALARS:
                positions[id(element)] = position
        self.n_indexed = len(value)


def _is_frozen(value: Any) -> bool:
    if type(value) in _SCALARS or isinstance(value, Enum):
        return True
    return type(value) in (tuple, frozenset) and all(_is_frozen(element) for element in value)


class Names(dict[str, int]):
    """Name of a channel, node or namespace -> its integer in the headers; a name not met before gets the next one."""

    __slots__ = ()

    def __missing__(self, name: str) -> int:
        number = self[name] = len(self)
        return number


@dataclass(slots=True)
class Space:
    """One namespace of one thread as a run knows it: the folded header and where its channels are stored.

    Kept in `Claim.spaces`. Stands for the checkpoint that was loaded or encoded last; `encode` moves it on.
    """

    ns: str
    pk: Any = None
    """Row of the space; None while it is not stored."""
    head: int | None = None
    """Rev of the newest checkpoint of the namespace, as loaded, then as encoded. What the next write expects there."""
    rev: int | None = None
    """The checkpoint this state stands for."""
    must_exist: int | None = None
    """Loaded rev that is not the head: writes check that it was not pruned meanwhile, up to the first checkpoint."""
    index: Names = field(default_factory=Names)
    versions: dict[str, Version] = field(default_factory=dict)
    inline: dict[str, Body] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)
    seen: dict[str, dict[str, Version]] = field(default_factory=dict)
    sub: dict[str, int] = field(default_factory=dict)
    updated: Sequence[str] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """What a public `put` gave beyond the fields of a checkpoint; of this one checkpoint only."""
    header_root: int = 0
    header_rows: int = 0
    """Rows of the header chain; 0: the next header is full."""
    header_full: int = 0
    header_ops: int = 0
    metadata_of: Any = None
    metadata_run_id: str | None = None
    metadata_parents: Mapping[str, str] = field(default_factory=dict)
    metadata_text: str | None = None
    """JSON of the three above; it is the same from one commit of a run to the next."""


class EncodedStep:
    """A commit as rows. Opaque to the engine but for `size`.

    Holds no live value. `space` and `claim` are read by the write for what only the store knows (row keys).
    """

    __slots__ = (
        "claim",
        "expected",
        "must_exist",
        "others",
        "payloads",
        "row",
        "size",
        "space",
        "step",
        "stored",
        "writes",
    )

    def __init__(
        self,
        claim: Claim,
        space: Space,
        row: PlainCheckpoint | None,
        expected: int | None,
        must_exist: int | None,
        payloads: list[PayloadRow],
        writes: list[PlainWrite],
        size: int,
        step: int,
        others: Sequence[EncodedStep],
    ) -> None:
        self.claim = claim
        self.space = space
        self.row = row
        """None: task rows only."""
        self.expected = expected
        """Head of the namespace that the write must find."""
        self.must_exist = must_exist
        self.payloads = payloads
        self.writes = writes
        self.size = size
        """Bytes of all bodies."""
        self.step = step
        self.stored = False
        self.others = others
        """Go into the same transaction, before this one."""


# ---- encode


def encode_commit(commit: StepCommit, codec: Codec) -> EncodedStep:
    """Rows of a commit and of its `others`; moves the namespace's `Space` on to the new checkpoint.

    Raises `UnregisteredTypeError` for a value that cannot be stored, `TypeError` for metadata that is not JSON; the
    namespace is unchanged then.
    """
    claim = commit.claim
    space = claim.spaces.get(commit.checkpoint_ns)
    if space is None:
        raise CheckpointError(
            f"thread {claim.thread_id!r}: namespace {commit.checkpoint_ns!r} was committed but never loaded with this "
            f"claim; call load(config, claim=...) for it first"
        )
    others = [encode_commit(other, codec) for other in commit.others] if commit.others else ()
    size = 0
    writes: list[PlainWrite] = []
    for task in commit.writes:
        write = encode_task(task, codec)
        size += len(write[5])
        writes.append(write)
    if commit.kind == "tasks":
        # The checkpoint may be pruned after these rows: the next commit must find it as well.
        return EncodedStep(claim, space, None, None, space.must_exist, [], writes, size, commit.step, others)

    # Everything that can refuse comes first: values, then metadata.
    rev = commit.rev
    staged = _bodies(commit.ops, space.chains, codec)
    parents, run_id = commit.parents, commit.run_id
    if space.metadata_of is not commit.metadata or space.metadata_run_id != run_id or space.metadata_parents != parents:
        space.metadata_text = metadata_text(commit.metadata, parents, run_id)
        space.metadata_of = commit.metadata
        space.metadata_run_id = run_id
        space.metadata_parents = dict(parents)

    n_names = len(space.index)
    payloads, places = _place(space, rev, staged)
    header = _header(space, commit, places, n_names)
    for payload in payloads:
        size += len(payload[5])
    parent_rev = commit.parent_rev
    row: PlainCheckpoint = (
        rev,
        commit.checkpoint_id,
        parent_rev,
        commit.parent_id if parent_rev is None else None,
        commit.up_rev,
        commit.ts,
        commit.step,
        SOURCES[commit.source],
        LANE if claim.lane else 0,
        run_id,
        space.header_root,
        header,
        space.metadata_text,
    )
    encoded = EncodedStep(
        claim,
        space,
        row,
        space.head,
        space.must_exist,
        payloads,
        writes,
        size + len(header),
        commit.step,
        others,
    )
    space.head = space.rev = rev
    space.must_exist = None
    return encoded


def _bodies(ops: Mapping[str, ChannelOp], chains: Mapping[str, Chain], codec: Codec) -> list[Staged]:
    """The bytes of every changed channel. Raises `UnregisteredTypeError` that names the channel."""
    dumps = codec.dumps
    if dumps is not None and not chains:
        try:
            # Most channels of a graph are triggers, whose value is None.
            return [(name, (None, dumps(op.value)) if op.value is not None else _NIL, None) for name, op in ops.items()]
        except UnregisteredTypeError:
            pass  # once more, one by one: whose value was it?
    staged: list[Staged] = []
    for name, op in ops.items():
        try:
            if type(op) is Append and name in chains:
                delta = _encode_append(op, chains[name], codec.pack)
                if delta is not None:
                    staged.append((name, delta, op))
                    continue
            staged.append((name, codec.pack(op.value), None))
        except UnregisteredTypeError as refusal:
            raise UnregisteredTypeError(refusal.type, refusal.path, channel=name) from None
    return staged


def _place(space: Space, rev: int, staged: Sequence[Staged]) -> tuple[list[PayloadRow], Places]:
    """Decide where each body is stored, and move the namespace on: a row of its own, the header, or where it is."""
    index, inline, chains = space.index, space.inline, space.chains
    payloads: list[PayloadRow] = []
    changed: list[int] = []
    extended: list[int] = []
    rooted: list[int] = []
    inlined: list[Any] = []
    for name, body, op in staged:
        n_bytes = len(body[1])
        if op is not None:
            chain = chains[name]
            if n_bytes:
                chain.seq = seq = chain.seq + 1
                chain.ops += n_bytes
                chain.digest = None
                payloads.append((index[name], chain.root, seq, APPEND, *body))
                extended.append(index[name])
                if chain.positions is not None:
                    chain.index(op.value)
            else:
                changed.append(index[name])
        elif n_bytes <= INLINE_LIMIT:
            if inline.get(name) == body:
                changed.append(index[name])
                continue
            inline[name] = body
            if name in chains:
                del chains[name]
            inlined += (index[name], body[1] if body[0] is None else [*body])
        else:
            old = chains.get(name)
            digest = hash(body)
            if old is not None and old.digest == digest and old.full == n_bytes:
                # Equal bytes, but other objects than those that were looked at.
                old.positions = None
                changed.append(index[name])
                continue
            inline.pop(name, None)
            chains[name] = Chain(rev, 0, n_bytes, digest=digest)
            payloads.append((index[name], rev, 0, FULL, *body))
            rooted.append(index[name])
    return payloads, (changed, extended, rooted, inlined)


def _header(space: Space, commit: StepCommit, places: Places, n_names: int) -> bytes:
    """The header of a commit: what differs from the one before, or all of it if that is due."""
    index, versions, ops, version = space.index, space.versions, commit.ops, commit.version
    changed, extended, rooted, inlined = places
    versions.update(dict.fromkeys(ops, version))
    gone: list[int] = []
    for name in commit.gone:
        versions[name] = version
        if space.inline.pop(name, None) is None:
            space.chains.pop(name, None)
        gone.append(index[name])
    specials: list[Any] = []
    if commit.versions:
        for name, own in commit.versions.items():
            if own != version:
                versions[name] = own
                specials += (index[name], own)

    seen = _consumed(space, commit.seen)
    sub: list[Any] = []
    if commit.sub:
        for name, nested_rev in commit.sub.items():
            if space.sub.get(name) != nested_rev:
                space.sub[name] = nested_rev
                sub += (index[name], nested_rev)

    updated = commit.updated_channels
    space.updated = updated
    if space.extra:
        space.extra = {}
    if 0 < space.header_rows < MAX_HEADER_ROWS:
        marker: Any = 0
        if updated is None:
            marker = -1
        elif ops.keys() != set(updated):
            marker = [index[name] for name in updated] or -2
        content: list[Any] = [version, changed, extended, rooted, inlined, gone, seen]
        new = [*islice(index, n_names, None)] if len(index) > n_names else None
        if new or sub or marker or specials:
            content += (new or (), sub, marker, specials)
        while content and not content[-1]:
            content.pop()
        header = packb(content)
        n_op_bytes = space.header_ops + len(header)
        if n_op_bytes <= MIN_HEADER_OPS or n_op_bytes <= 2 * space.header_full:
            space.header_ops = n_op_bytes
            space.header_rows += 1
            return header
    header = full_header(space, commit.rev)
    space.header_root = commit.rev
    space.header_rows = 1
    space.header_full = len(header)
    space.header_ops = 0
    return header


def _consumed(space: Space, changed: Mapping[str, Mapping[str, Version]]) -> list[Any]:
    """What nodes have seen since the checkpoint before, for the header: node, then channel and version in turn."""
    index = space.index
    seen: list[Any] = []
    for node, consumed in changed.items():
        known = space.seen.get(node)
        news: list[Any] = []
        if known is None:
            known = space.seen[node] = {}
            seen += (index[node], news)
        for name, own in consumed.items():
            if known.get(name) != own:
                known[name] = own
                news += (index[name], own)
        if len(known) > len(consumed):
            # A channel the node no longer listens to.
            space.seen[node] = dict(consumed)
            news = [item for name, own in consumed.items() for item in (index[name], own)]
            seen += (-1 - index[node], news)
        elif news and (not seen or seen[-1] is not news):
            seen += (index[node], news)
    return seen


def _encode_append(op: Append, chain: Chain, pack: Callable[[Any], Body]) -> Body | None:
    """The delta of an append; (None, b"") if there is nothing new; None if the whole value must be stored."""
    value, start = op.value, op.start
    kind = type(value)
    if kind is list:
        if op.written and chain.holds_rewritten(value, start, op.written):
            return None
    elif kind is not str:
        return None
    if len(value) == start:
        return None, b""
    if not chain.tip:
        return None
    body = pack(value[start:])
    n_bytes = len(body[1])
    if n_bytes * (1 - DELTA_SHARE) >= (chain.full + chain.ops) * DELTA_SHARE:
        return None
    if chain.seq >= MAX_CHAIN_ROWS and chain.ops + n_bytes >= 2 * chain.full:
        return None
    return body


def encode_task(task: TaskWrites, codec: Codec) -> PlainWrite:
    """The row of a task's writes. A refusal names the channel."""
    writes = task.writes
    tag: str | None = None
    value: Any
    if task.slot:
        value = writes[-1][1]
    else:
        value = []
        for write in writes:
            value += write
    try:
        if codec.dumps is None:
            tag, data = codec.pack(value)
        else:
            data = codec.dumps(value)
    except UnregisteredTypeError:
        # Again, one by one, to learn which channel it was.
        for channel, written in writes:
            codec.pack_channel(channel, written)
        raise
    return task.rev, task.task_id, task.slot, task.path, tag, data


def metadata_text(metadata: Mapping[str, Any], parents: Mapping[str, str], run_id: str | None) -> str | None:
    """JSON of the metadata that the columns do not hold, None if there is nothing left."""
    rest = {key: value for key, value in metadata.items() if key not in ("source", "step", "parents")}
    if run_id is not None and rest.get("run_id") == run_id:
        del rest["run_id"]
    if parents:
        rest["parents"] = dict(parents)
    return json_text(rest) if rest else None


def json_text(value: Any) -> str:
    """JSON, checked before anything is stored. Raises `TypeError` that says what was wrong."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        # Half a surrogate pair has no UTF-8 form; escaped it has.
        return text if text.isascii() or _is_utf8(text) else json.dumps(value, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"checkpoint metadata cannot be stored ({error}): {value!r:.200}; only JSON values are allowed there; put "
            f"other objects into the state"
        ) from error


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def full_header(space: Space, rev: int) -> bytes:
    """The folded header of a namespace, self-contained."""
    index = space.index
    versions: list[Any] = []
    for name, version in space.versions.items():
        versions += (index[name], version)
    refs: list[Any] = []
    for name, chain in space.chains.items():
        refs += (index[name], rev - chain.root, chain.seq)
    inline: list[Any] = []
    for name, (tag, data) in space.inline.items():
        inline += (index[name], data if tag is None else [tag, data])
    seen: list[Any] = []
    for node, consumed in space.seen.items():
        flat: list[Any] = []
        for name, version in consumed.items():
            flat += (index[name], version)
        seen += (index[node], flat)
    sub: list[Any] = []
    for name, nested_rev in space.sub.items():
        sub += (index[name], nested_rev)
    updated: Any = -1 if space.updated is None else [index[name] for name in space.updated]
    header = [list(index), versions, refs, inline, seen, sub, updated, space.extra]
    if not space.extra:
        header.pop()
    return packb(header)


# ---- decode


def _pairs(flat: Any) -> Iterable[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True) if flat else ()


def _body(stored: Any) -> Body:
    return (None, stored) if isinstance(stored, bytes) else (stored[0], stored[1])


def fold_header(space: Space, rows: Sequence[tuple[int, bytes]]) -> None:
    """Bring a fresh `Space` to the state of the last of these headers, which start with a full one, oldest first.

    Chains get root and seq only; sizes and tips are the business of `read_chains`. Raises `CorruptCheckpointError`.
    """
    names: list[str] = []
    try:
        for position, (rev, header) in enumerate(rows):
            content = unpackb(header)
            if position:
                _fold_op(space, rev, content, names)
                space.header_ops += len(header)
            else:
                names = _fold_full(space, rev, content)
                space.header_root = rev
                space.header_full = len(header)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise CorruptCheckpointError(f"header does not decode ({error!r})", ns=space.ns) from error
    space.rev = rows[-1][0]
    space.header_rows = len(rows)


def fold_on(space: Space, rev: int, header: bytes) -> None:
    """Bring a folded `Space` to the next header of its line. Raises `CorruptCheckpointError`; it is of no use then."""
    try:
        _fold_op(space, rev, unpackb(header), [*space.index])
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise CorruptCheckpointError(f"header does not decode ({error!r})", ns=space.ns) from error
    space.rev = rev


def _fold_full(space: Space, rev: int, content: list[Any]) -> list[str]:
    names: list[str]
    names, versions, refs, inline, seen, sub, updated = content[:7]
    space.index = Names(zip(names, count()))
    space.versions = {names[number]: version for number, version in _pairs(versions)}
    space.chains = {
        names[refs[at]]: Chain(rev - refs[at + 1], refs[at + 2], 0, tip=False) for at in range(0, len(refs), 3)
    }
    space.inline = {names[number]: _body(stored) for number, stored in _pairs(inline)}
    space.seen = {names[node]: {names[n]: version for n, version in _pairs(flat)} for node, flat in _pairs(seen)}
    space.sub = {names[number]: nested for number, nested in _pairs(sub)}
    space.updated = None if updated == -1 else [names[number] for number in updated]
    space.extra = content[7] if len(content) > 7 else {}
    return names


def _fold_op(space: Space, rev: int, content: list[Any], names: list[str]) -> None:
    content += [[]] * (11 - len(content))
    version, changed, extended, rooted, inline, gone, seen, new, sub, updated, special = content
    for name in new:
        space.index[name] = len(names)
        names.append(name)
    versions, chains = space.versions, space.chains
    for number in changed:
        versions[names[number]] = version
    for number in extended:
        name = names[number]
        versions[name] = version
        chains[name].seq += 1
    for number in rooted:
        name = names[number]
        versions[name] = version
        chains[name] = Chain(rev, 0, 0, tip=False)
        space.inline.pop(name, None)
    for number, stored in _pairs(inline):
        name = names[number]
        versions[name] = version
        space.inline[name] = _body(stored)
        chains.pop(name, None)
    for number in gone:
        name = names[number]
        versions[name] = version
        chains.pop(name, None)
        space.inline.pop(name, None)
    for number, own in _pairs(special):
        versions[names[number]] = own
    for node, flat in _pairs(seen):
        news = {names[number]: own for number, own in _pairs(flat)}
        if node < 0:
            space.seen[names[-1 - node]] = news
        else:
            known = space.seen.setdefault(names[node], {})
            known.update(news)
    for number, nested in _pairs(sub):
        space.sub[names[number]] = nested
    if updated == -1:
        space.updated = None
    elif updated == -2:
        space.updated = []
    elif updated:
        space.updated = [names[number] for number in updated]
    else:
        written = [*changed, *extended, *rooted, *(inline[::2] if inline else ())]
        space.updated = sorted(names[number] for number in written)
    space.extra = {}


def wanted_chains(space: Space) -> list[tuple[int, int, int]]:
    """(channel number, root, seq) of every chain of a folded header, ordered."""
    index = space.index
    return sorted((index[name], chain.root, chain.seq) for name, chain in space.chains.items())


StoredChain = tuple[list[tuple[str | None, bytes]], bool]
"""The rows of a chain up to the seq asked for, as (tag, body), and whether a further row exists."""


def read_chains(
    space: Space, stored: Mapping[int, StoredChain], codec: Codec, *, writable: bool, lenient: bool = False
) -> dict[str, Any]:
    """Values of a folded header from its chain rows; learns sizes and tips for later deltas.

    `writable`: the reader may become a writer (the tips matter). `lenient`: values of unknown types come back opaque.
    Raises `CorruptCheckpointError` for a gap, `UnknownTypeError` for a type that is not registered; both name the
    channel.
    """
    values: dict[str, Any] = {}
    for name, (tag, data) in space.inline.items():
        values[name] = read_value(name, [(tag, data)], codec, space, lenient)
    for name, chain in space.chains.items():
        rows, further = stored.get(space.index[name], ([], False))
        if len(rows) != chain.seq + 1:
            raise CorruptCheckpointError(
                f"chain has {len(rows)} rows, the header needs {chain.seq + 1}", ns=space.ns, channel=name
            )
        values[name] = read_value(name, rows, codec, space, lenient)
        if writable:
            chain.full = len(rows[0][1])
            chain.ops = sum(len(data) for _, data in rows) - chain.full
            # Only the owner of the thread may extend, only at the end, and never what a lane still writes.
            chain.tip = not further and not chain.root >> 20 & 1
            if chain.seq == 0:
                tag, data = rows[0]
                chain.digest = hash((tag, data))
    return values


def read_value(
    name: str, rows: Sequence[tuple[str | None, bytes]], codec: Codec, space: Space, lenient: bool = False
) -> Any:
    """The value of one chain: its full row, then everything appended."""
    unpack = codec.unpack_opaque if lenient else codec.unpack
    try:
        if len(rows) > 1 and codec.is_plain and (joined := _joined(rows)) is not None:
            return unpack(None, joined)
        value = unpack(*rows[0])
        if len(rows) > 1:
            if type(value) is list:
                for tag, data in rows[1:]:
                    value += unpack(tag, data)
            elif type(value) is str:
                value = "".join([value, *(unpack(tag, data) for tag, data in rows[1:])])
            else:
                raise CorruptCheckpointError(f"a {type(value).__name__} cannot have grown")
    except UnknownTypeError as unknown:
        if unknown.channel is None:
            unknown.channel = name
            unknown.add_note(f"in channel {name!r} of namespace {space.ns!r}")
        raise
    except CorruptCheckpointError as damage:
        raise CorruptCheckpointError(damage.reason, ns=space.ns, channel=name) from damage
    except (ValueError, TypeError) as error:
        raise CorruptCheckpointError(f"body does not decode ({error!r})", ns=space.ns, channel=name) from error
    return value


def join_rows(rows: Sequence[Body], codec: Codec) -> Body:
    """Rows of a chain that follow each other as one, which may stand in their place. Needs no type to be known."""
    if len(rows) == 1:
        return rows[0]
    if codec.is_plain and (joined := _joined(rows)) is not None:
        return None, joined
    value = codec.unpack_opaque(*rows[0])
    for tag, data in rows[1:]:
        value = value + codec.unpack_opaque(tag, data)
    return codec.pack(value)


def _joined(rows: Sequence[Body]) -> bytes | None:
    """The rows of a list as one msgpack array, which decodes faster than row by row; None if they are no arrays."""
    n_elements = 0
    pieces = [b""]
    for tag, data in rows:
        first = data[0]
        if tag is not None:
            return None
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
    pieces[0] = b"\xdd" + n_elements.to_bytes(4, "big")
    return b"".join(pieces)


def read_task(row: WriteRow, codec: Codec, checkpoint_id: str, *, lenient: bool = False) -> TaskWrites:
    """The writes of a task row."""
    value = (codec.unpack_opaque if lenient else codec.unpack)(row.tag, row.body)
    if row.slot:
        return TaskWrites(row.rev, checkpoint_id, row.task_id, row.path, row.slot, [(CHANNEL_OF_SLOT[row.slot], value)])
    writes = list(zip(value[::2], value[1::2], strict=True))
    return TaskWrites(row.rev, checkpoint_id, row.task_id, row.path, row.slot, writes)
