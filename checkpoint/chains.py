"""How a commit becomes rows, and how rows become values again: chains, snapshot rule, tip rule, task rows.

Decides the bytes of chains and task rows, and when a delta may stand for a value; `checkpoint.headers` decides the rest
of a checkpoint's row. Does no I/O, holds no lock and asks no database: everything it needs about a namespace is in its
`Space`, which `load` fills and `encode` keeps up to date. Both savers of this package store exactly the rows made here.

A commit becomes rows in two halves. `encode_commit` is called at the barrier and turns values into bytes: nothing that a
node does later can change what is stored. `seal`, called once per step in the order of their encoding, by whoever stores
it, makes the rest, which depends on no value. Many steps sealed in a row cost half of what each costs between two
supersteps, when its code has left the processor's caches (measured); so a saver seals when it stores a batch.

Rows. A channel value of at most `INLINE_LIMIT` bytes lives in the header. Any other is a chain: payload rows
`(channel number, root, seq)`, where seq 0 is a full value and each later row what was appended to it.

Invariants
1. A chain is extended only at its tip, by the one run that may write it (storage.md C4); so two writers never make one
   key.
2. `encode` changes a `Space` only after every value was encoded: a refused value leaves no trace.
3. An element that was written again is never skipped by a delta (design.md D23).
4. The stored value of a revision is the live value at the moment of `encode`.
5. `encode_commit` touches what a `Space` knows of chains, `seal` touches its header: two threads may be at the two at once.

Source of the idea: log-structured storage (Rosenblum and Ousterhout 1992) and delta chains with periodic full copies,
as in version control; bounds measured in storage.md C6.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ormsgpack import packb

from checkpoint.base import (
    LANE_BIT,
    N_BITS,
    UNREAD,
    Append,
    CheckpointError,
    Claim,
    CorruptCheckpointError,
    StepCommit,
    TaskWrites,
    UnknownTypeError,
    UnregisteredTypeError,
)
from checkpoint.deltas import (
    APPEND,
    EDITED,
    FULL,
    LARGE,
    MANY,
    PATCH,
    RAW_LIMIT,
    SPLICE,
    TEXT,
    Chain,
    Delta,
    apply,
    begun,
    digest_of,
    find,
    in_pieces,
    is_heavy,
    is_long,
    joined,
    packed,
)
from checkpoint.encryption import Encrypting, encrypt_step
from checkpoint.headers import EXTENDED, ROOTED, SAME, SMALL, Body, Header, Placed, advance
from checkpoint.mapped import unmap
from checkpoint.serde.msgpack import FORMAT_TAG, Serde
from checkpoint.turns import BLOCK_BYTES, BLOCK_ELEMENTS, free_in_turns, give_way

INLINE_LIMIT: Final = 64
"""Bytes of an encoded value that still live in the header."""

STUB: Final = 1
"""Flag: only the header of a pruned checkpoint is kept."""
PARENT_PRUNED: Final = 2
"""Flag: its parent was removed on purpose."""
LANE: Final = 4
PUBLIC_PUT: Final = 8
REPLACED: Final = 16
"""Flag: put again under its id; chain rows of its earlier self may be left, to which nothing refers."""
THINNED: Final = 32
"""Flag: other checkpoints of its namespace were removed; rows of theirs may be left."""

SOURCES: Final = {"input": 1, "loop": 2, "update": 3, "fork": 4}
SOURCE_NAMES: Final = {number: name for name, number in SOURCES.items()}
CHANNEL_OF_SLOT: Final = {
    -1: "__error__",
    -2: "__scheduled__",
    -3: "__interrupt__",
    -4: "__resume__",
    -5: "__error_source_node__",
}

_ATOMS: Final = frozenset({int, float, bool, type(None)})
"""Values that nobody can change, that are never refused and always small."""

_ARRAY_16: Final = 0xDC
"""First byte of a msgpack array of 16 to 65,535 elements."""
NO_BODY: Final[Body] = (None, b"")
_NIL: Final[Body] = (None, packb(None))
Staged = tuple[str, Any, Sequence[Body], Delta | None]
"""(channel, value, its bodies, the delta if they are one)."""
NamedPayload = tuple[str, int, int, int, str | None, bytes]
"""A `PayloadRow` with the channel's name for its number."""


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
PARENT_REV: Final = 2
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
    `loads_typed`. Of a serializer that encrypts this is the inner one: its rows are encrypted when they are made.
    """

    __slots__ = (
        "dumps",
        "encrypting",
        "inner",
        "is_long",
        "is_plain",
        "maps",
        "pack",
        "pack_atom",
        "serde",
        "unpack",
        "unpack_opaque",
        "unpack_shown",
    )

    def __init__(self, serde: Any, *, maps: bool = False) -> None:
        self.serde = serde
        self.maps = maps and not isinstance(serde, Encrypting)
        """May large bodies be mapped? They are gone once they are stored."""
        self.is_long: Callable[[Any], bool] = is_long
        """Which values are packed in pieces?"""
        self.encrypting: Encrypting | None = serde if isinstance(serde, Encrypting) else None
        """What encrypts whole rows."""
        inner: Any = serde if self.encrypting is None else self.encrypting.inner
        self.inner: Any = inner
        kind = type(inner)
        self.is_plain = False
        """Are rows without tag plain msgpack?"""
        self.pack: Callable[[Any], Body] = inner.dumps_typed
        self.dumps: Callable[[Any], bytes] | None = None
        """`pack` for a serde whose bodies have no tag, without the pair."""
        self.pack_atom: Callable[[Any], Body] = self.pack
        """`pack` for what is in `_ATOMS`."""
        self.unpack: Callable[[str | None, bytes], Any] = self._unpack_typed
        self.unpack_opaque = self.unpack
        self.unpack_shown = self.unpack
        """`unpack` for tools: no class of the program is made, if the serde can do without."""
        if isinstance(inner, Serde):
            self.unpack_opaque = self._unpack_known
            if kind.dumps_typed is Serde.dumps_typed and kind.dumps is Serde.dumps:
                dumps = self.dumps = inner.dumps
                self.pack = lambda value: (None, dumps(value))
                self.pack_atom = self._pack_atom
            if kind.loads_typed is Serde.loads_typed and kind.loads is Serde.loads:
                self.unpack = self._unpack_own
                self.unpack_shown = self._unpack_shown
                self.is_plain = True

    def _pack_atom(self, value: Any) -> Body:
        try:
            return None, packb(value)
        except TypeError:
            return self.pack(value)  # an int of more than 64 bits

    def gentle(self) -> Codec:
        """The same for a thread beside an event loop: it takes its time to find out what is large."""
        twin = copy.copy(self)
        twin.is_long = is_heavy
        return twin

    def unpack_body(self, body: Body) -> Any:
        """The value of a body."""
        return self.unpack(*body)

    def _unpack_typed(self, tag: str | None, body: bytes) -> Any:
        # None is stored without asking any serde, so it is read without asking: another one does not know these bytes.
        return None if tag is None and body == _NIL[1] else self.inner.loads_typed((tag or FORMAT_TAG, body))

    def _unpack_own(self, tag: str | None, body: bytes) -> Any:
        return self.inner.loads(body) if tag is None else self.inner.loads_typed((tag, body))

    def _unpack_known(self, tag: str | None, body: bytes) -> Any:
        """The value, or with `Opaque` in it if this process does not know all of its types."""
        try:
            return self.unpack(tag, body)
        except UnknownTypeError:
            return self.inner.loads_typed((tag or FORMAT_TAG, body), opaque=True)

    def _unpack_shown(self, tag: str | None, body: bytes) -> Any:
        return self.inner.loads_typed((tag or FORMAT_TAG, body), opaque=True)

    def pack_channel(self, channel: str, value: Any) -> Body:
        """Bytes of a channel's value; a refusal names the channel."""
        try:
            return self.pack(value)
        except Exception as error:
            _name_channel(error, channel)
            raise


# ---- what is known of a namespace between two commits


@dataclass(slots=True)
class Space:
    """One namespace of one thread as a run knows it: where its channels are stored, and the folded header.

    Kept in `Claim.spaces`. Stands for the checkpoint that was loaded or encoded last; `encode` moves it on. Only its
    `header` lags behind, until the steps encoded since are sealed.
    """

    ns: str
    pk: Any = None
    """Row of the space; None while it is not stored."""
    head: int | None = None
    """Rev of the newest checkpoint of the namespace, as loaded, then as encoded. What the next write expects there."""
    must_exist: int | None = None
    """Loaded rev that is not the head: writes check that it was not pruned meanwhile, up to the first checkpoint."""
    has_writes: bool = False
    """Are task writes stored under the checkpoint this state stands for?"""
    header: Header = field(default_factory=Header)
    chains: dict[str, Chain] = field(default_factory=dict)
    metadata_of: Any = None
    metadata_run_id: str | None = None
    metadata_parents: Mapping[str, str] = field(default_factory=dict)
    metadata_text: str | None = None
    """JSON of the three above; it is the same from one commit of a run to the next."""


class EncodedStep:
    """A commit as bytes; as rows once it is sealed. Opaque to the engine but for `size`.

    Of the commit's live values only those are used again that nobody can change. `space` and `claim` are read by the
    write for what only the store knows (row keys).
    """

    commit: StepCommit
    claim: Claim
    space: Space
    rev: int | None
    """None: task rows only."""
    placed: Sequence[Placed] | None
    """None: all values are atoms, which `seal` packs."""
    bodies: Sequence[NamedPayload]
    writes: Sequence[PlainWrite]
    size: int
    """Bytes of all bodies; headers are not counted."""
    others: Sequence[EncodedStep]
    """Go into the same transaction, before this one."""
    edited: Sequence[str]
    tasks: Sequence[TaskWrites]
    """Task writes that `seal` packs: of atoms alone."""
    settled: int | None
    """The checkpoint whose task writes go, because its superstep is stored with this one."""
    expected: int | None
    """Head of the namespace that the write must find."""
    must_exist: int | None
    metadata: str | None
    stored: bool
    row: PlainCheckpoint | None
    """Made by `seal`, as are `payloads`."""
    payloads: Sequence[PayloadRow]

    __slots__ = (
        "bodies",
        "claim",
        "commit",
        "edited",
        "expected",
        "metadata",
        "must_exist",
        "others",
        "payloads",
        "placed",
        "rev",
        "row",
        "settled",
        "size",
        "space",
        "stored",
        "tasks",
        "writes",
    )

    def __init__(
        self,
        commit: StepCommit,
        space: Space,
        rev: int | None,
        placed: Sequence[Placed] | None = None,
        bodies: Sequence[NamedPayload] = (),
        writes: Sequence[PlainWrite] = (),
        size: int = 0,
        others: Sequence[EncodedStep] = (),
        edited: Sequence[str] = (),
    ) -> None:
        self.commit = commit
        self.claim = commit.claim
        self.space = space
        self.rev = rev
        self.placed = placed
        self.bodies = bodies
        self.writes = writes
        self.size = size
        self.others = others
        self.edited = edited
        self.tasks = ()
        self.settled = None
        self.expected = space.head
        self.must_exist = space.must_exist
        self.metadata = space.metadata_text
        self.stored = False
        self.row = None
        self.payloads = ()

    def release(self) -> None:
        """Let go of bodies that are in a store now. Whoever drops the last reference to megabytes gives them back to the
        operating system, with the interpreter in hand: that is not to be the event loop of the run."""
        self.bodies = ()
        rows = [*self.payloads, *self.writes]
        self.payloads = self.writes = ()
        bodies: list[bytes] = []
        while rows:
            body = rows.pop()[5]
            if not unmap(body):
                bodies.append(body)
        free_in_turns(bodies)


# ---- encode


def encode_commit(commit: StepCommit, codec: Codec, *, drops: bool = False) -> EncodedStep:
    """Rows of a commit and of its `others`; moves the namespace's `Space` on to the new checkpoint. `drops`: what the
    tasks of a superstep wrote is not kept beside the checkpoint that it led to.

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
    has_metadata = (
        space.metadata_of is commit.metadata
        and space.metadata_run_id == commit.run_id
        and space.metadata_parents == commit.parents
    )
    if has_metadata and not commit.ops and _is_settled(commit, space, codec):
        encoded = EncodedStep(commit, space, commit.rev)
        encoded.tasks = commit.writes
        if drops:
            _settle(encoded)
        space.head = commit.rev
        return encoded
    others = [encode_commit(other, codec, drops=drops) for other in commit.others] if commit.others else ()
    tasks = _lasting(commit) if drops and commit.kind == "checkpoint" else commit.writes
    writes, size = _task_rows(tasks, codec) if tasks else ((), 0)
    if commit.kind == "tasks":
        # The checkpoint may be pruned after these rows: the next commit must find it as well.
        space.has_writes = True
        encoded = EncodedStep(commit, space, None, (), (), writes, size, others)
        if codec.encrypting is not None:
            encrypt_step(encoded, codec.encrypting, None)
        return encoded

    # Everything that can refuse comes first: values, then metadata.
    chains, rev = space.chains, commit.rev
    placed, staged, edited = _staged(commit, chains, codec)
    if not has_metadata:
        _learn_metadata(commit, space)

    bodies: Sequence[NamedPayload] = ()
    if staged:
        bodies, n_bytes = _place(chains, rev, staged, placed, codec)
        size += n_bytes
    for name in commit.gone:
        chains.pop(name, None)
    for other in others:
        edited += other.edited
    encoded = EncodedStep(commit, space, rev, placed, bodies, writes, size, others, edited)
    if drops:
        _settle(encoded)
    space.head = rev
    space.must_exist = None
    return encoded


def _learn_metadata(commit: StepCommit, space: Space) -> None:
    """Make the text of the commit's metadata, which the next commits of the run will have as well."""
    space.metadata_text = metadata_text(commit.metadata, commit.parents, commit.run_id)
    space.metadata_of = commit.metadata
    space.metadata_run_id = commit.run_id
    space.metadata_parents = dict(commit.parents)


def _lasting(commit: StepCommit) -> Sequence[TaskWrites]:
    """The task writes that are more than a step on the way to the commit's checkpoint: questions, answers, errors."""
    return [task for task in commit.writes if task.slot or task.rev != commit.parent_rev]


def _settle(encoded: EncodedStep) -> None:
    """What the tasks before the checkpoint wrote is in it: leave it out, and take out what is stored of it."""
    space, commit = encoded.space, encoded.commit
    if encoded.tasks:
        encoded.tasks = _lasting(commit)
    if space.has_writes:
        if not _is_shared(commit):
            encoded.settled = commit.parent_rev
        space.has_writes = False


def _is_shared(commit: StepCommit) -> bool:
    """Does the commit continue a checkpoint whose step may still be open for others: the holder's, or another lane's?"""
    claim, parent = commit.claim, commit.parent_rev
    if parent is None or not (claim.lane or parent & LANE_BIT):
        return False
    return parent >> N_BITS != claim.lane_number()


def is_large(commit: StepCommit) -> bool:
    """May it take more than about a millisecond to encode? Judged by lengths and by what is stored, not by looking in."""
    space = commit.claim.spaces.get(commit.checkpoint_ns)
    chains: Mapping[str, Chain] = space.chains if isinstance(space, Space) else {}
    for name, value in commit.values.items():
        if type(value) not in _ATOMS and (
            is_heavy(value) or (name in chains and chains[name].full + chains[name].ops > LARGE)
        ):
            return True
    for name, op in commit.ops.items():
        if isinstance(op, Append):
            if len(op.value) - op.start > MANY or (name in chains and chains[name].is_behind(op)):
                return True
            if is_heavy(op.value[op.start :]):
                return True
        elif name not in chains:
            if is_heavy(op.value):
                return True
        elif chains[name].live > (LARGE if len(op.value) > MANY else BLOCK_BYTES) or is_heavy(op.written):
            return True
    for task in commit.writes:
        for _, value in task.writes:
            if type(value) not in _ATOMS and is_heavy(value):
                return True
    return any(map(is_large, commit.others))


def _is_settled(commit: StepCommit, space: Space, codec: Codec) -> bool:
    """Is there nothing in a commit without ops that could change later or be refused, or that has a place in a chain?"""
    if commit.others or commit.kind == "tasks" or codec.dumps is None or space.must_exist is not None:
        return False
    values, chains, atoms = commit.values, space.chains, _ATOMS
    if chains and not (chains.keys().isdisjoint(values) and chains.keys().isdisjoint(commit.gone)):
        return False
    for task in commit.writes:
        for _, value in task.writes:
            if type(value) not in atoms:
                return False
    return atoms.issuperset(map(type, values.values()))


def seal(step: EncodedStep, codec: Codec) -> PlainCheckpoint | None:
    """The row of a step, with its header; None if it has task rows only. Fills what the step still lacks.

    The first call moves the namespace's header on, so steps are sealed in the order in which they were encoded.
    """
    row = step.row
    rev = step.rev
    if row is not None or rev is None:
        return row
    commit, header = step.commit, step.space.header
    placed = step.placed
    if placed is None:
        placed = _atoms(commit.values, codec)
        if step.tasks:
            step.writes, step.size = _atom_rows(step.tasks, codec)
    previous = header.rev
    packed = advance(header, commit, placed)
    parent_rev = commit.parent_rev
    row = step.row = (
        rev,
        commit.checkpoint_id,
        parent_rev,
        commit.parent_id if parent_rev is None else None,
        commit.up_rev,
        commit.ts,
        commit.step,
        SOURCES[commit.source],
        LANE if step.claim.lane else 0,
        commit.run_id,
        header.root,
        packed,
        step.metadata,
    )
    if step.bodies:
        index = header.index
        step.payloads = [(index[name], root, seq, kind, tag, data) for name, root, seq, kind, tag, data in step.bodies]
    if codec.encrypting is not None:
        encrypt_step(step, codec.encrypting, previous)
    return step.row


def _atoms(values: Mapping[str, Any], codec: Codec) -> list[Placed]:
    """The bytes of changed channels that hold atoms: all of them live in the header."""
    # Most channels of a graph are triggers, whose value is None.
    if codec.dumps is not None:
        try:
            return [
                (name, (None, packb(value)) if value is not None else _NIL, SMALL, 0) for name, value in values.items()
            ]
        except TypeError:
            pass  # an int of more than 64 bits
    pack = codec.pack
    return [(name, pack(value) if value is not None else _NIL, SMALL, 0) for name, value in values.items()]


def _atom_rows(tasks: Sequence[TaskWrites], codec: Codec) -> tuple[Sequence[PlainWrite], int]:
    """As `_task_rows`, of tasks that wrote atoms."""
    (task, *more) = tasks
    if more or task.slot or codec.dumps is None:
        return _task_rows(tasks, codec)
    flat: list[Any] = []
    for write in task.writes:
        flat += write
    try:
        data = packb(flat)
    except TypeError:
        return _task_rows(tasks, codec)
    return ((task.rev, task.task_id, 0, task.path, None, data),), len(data)


def _task_rows(tasks: Sequence[TaskWrites], codec: Codec) -> tuple[Sequence[PlainWrite], int]:
    """The rows of task writes, and the bytes of their bodies."""
    if len(tasks) == 1:
        row = encode_task(tasks[0], codec)
        return (row,), len(row[5])
    rows = [encode_task(task, codec) for task in tasks]
    return rows, sum([len(row[5]) for row in rows])


def _staged(
    commit: StepCommit, chains: Mapping[str, Chain], codec: Codec
) -> tuple[list[Placed], list[Staged], list[str]]:
    """The bytes of every changed channel: of those that live in the header, then of the others; and which were edited.

    Raises what the serializer raises, with the channel's name on it.
    """
    placed: list[Placed] = []
    staged: list[Staged] = []
    edited: list[str] = []
    pack = codec.pack
    name = ""
    bodies: Sequence[Body]
    try:
        for name, value in commit.values.items():
            if name not in chains:
                if value is None:
                    # Most channels of a graph are triggers.
                    placed.append((name, _NIL, SMALL, 0))
                elif type(value) in _ATOMS:
                    placed.append((name, codec.pack_atom(value), SMALL, 0))
                else:
                    bodies = packed(value, pack, codec.is_long, maps=codec.maps)
                    staged.append((name, value, bodies, None))
                continue
            delta = find(chains[name], value, None, pack, codec.unpack_body)
            bodies = packed(value, pack, codec.is_long, maps=codec.maps) if delta is None else delta.bodies
            staged.append((name, value, bodies, delta))
        for name, op in commit.ops.items():
            chain = chains.get(name)
            delta = None if chain is None else find(chain, op.value, op, pack, codec.unpack_body)
            if delta is EDITED:
                edited.append(name)
                delta = None
            bodies = packed(op.value, pack, codec.is_long, maps=codec.maps) if delta is None else delta.bodies
            staged.append((name, op.value, bodies, delta))
    except Exception as error:
        _name_channel(error, name)
        raise
    return placed, staged, edited


def _name_channel(error: Exception, channel: str, task: TaskWrites | None = None) -> None:
    """Say on the error of a serializer whose value it was."""
    if isinstance(error, UnregisteredTypeError):
        error.locate(channel=channel, task_id=None if task is None else task.task_id)
    elif not any(line.startswith("It was the value") for line in getattr(error, "__notes__", ())):
        writer = "" if task is None else f" that task {task.path or task.task_id!r} wrote"
        error.add_note(f"It was the value of channel {channel!r}{writer} that could not be encoded")


def _place(
    chains: dict[str, Chain], rev: int, staged: Sequence[Staged], placed: list[Placed], codec: Codec
) -> tuple[list[NamedPayload], int]:
    """Decide where each body is stored: in the header, in a row of its own, or where it is already. The rows, and the
    bytes in them."""
    payloads: list[NamedPayload] = []
    size = 0
    for name, value, bodies, delta in staged:
        chain = chains.get(name)
        if delta is not None:
            assert chain is not None
            seq, kind, place = chain.seq, delta.kind, EXTENDED if bodies else SAME
            chain.move(delta, value)
            size += delta.n_bytes
            for tag, data in bodies:
                seq += 1
                payloads.append((name, chain.root, seq, kind, tag, data))
        elif len(bodies) == 1 and len(bodies[0][1]) <= INLINE_LIMIT:
            if chain is not None:
                del chains[name]
            placed.append((name, bodies[0], SMALL, 0))
            continue
        elif (
            len(bodies) == 1 and chain is not None and chain.digest is not None and chain.digest == digest_of(bodies[0])
        ):
            # Equal bytes, but other objects than those that were looked at.
            chain.positions = None
            bodies, place = (), SAME
        else:
            chains[name] = begun(rev, value, bodies, chain, codec.pack)
            kind, place = FULL, ROOTED
            for seq, (tag, data) in enumerate(bodies):
                payloads.append((name, rev, seq, kind, tag, data))
                size += len(data)
                kind = PATCH if type(value) is dict else APPEND
        placed.append((name, NO_BODY, place, len(bodies) - 1 if len(bodies) > 1 else 0))
    return payloads, size


def encode_task(task: TaskWrites, codec: Codec) -> PlainWrite:
    """The row of a task's writes. A refusal names the channel."""
    writes = task.writes
    has_long = False
    tag: str | None = None
    value: Any
    if task.slot:
        value = writes[-1][1]
    else:
        value = []
        for write in writes:
            value += write
            if type(write[1]) not in _ATOMS and codec.is_long(write[1]):
                has_long = True
    try:
        if has_long:
            tag, data = in_pieces(value, codec.pack, codec.is_long, maps=codec.maps)
        elif codec.dumps is None:
            tag, data = codec.pack(value)
        else:
            data = codec.dumps(value)
    except Exception:
        # Again, one by one, to learn which channel it was.
        for channel, written in writes:
            try:
                codec.pack(written)
            except Exception as error:
                _name_channel(error, channel, task)
                raise error from None
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


def cut(space: Space) -> None:
    """Let a namespace's next commit depend on nothing that may still change, or may not be stored: its header is full,
    and so is every value that it writes. For lanes (storage.md C5.1)."""
    space.header.n_rows = 0
    space.chains.clear()


# ---- decode


def check_line(root: int, before: Collection[int], rev: int, parent_rev: int | None, flags: int) -> None:
    """Raise `CorruptCheckpointError` if a header of a line, between its `root` and `rev`, is gone.

    Its row is the parent of the one that follows; `before` are the revs of the line that are there.
    """
    if parent_rev is not None and parent_rev >= root and parent_rev not in before and not flags & PARENT_PRUNED:
        raise CorruptCheckpointError(f"header of revision {parent_rev}, on which revision {rev} builds, is gone")


StoredChain = tuple[list[tuple[str | None, bytes]], bool]
"""The rows of a chain up to the seq asked for, as (tag, body), and whether a further row exists."""


def read_chains(
    header: Header,
    stored: Mapping[int, StoredChain],
    codec: Codec,
    *,
    lenient: bool = False,
    channels: Collection[str] | None = None,
) -> dict[str, Any]:
    """Values of a folded header from its chain rows. `lenient`: values of unknown types come back opaque.

    `channels`: read the values of these alone, as tools see them; the others are `UNREAD`.

    Raises `CorruptCheckpointError` for a gap, `UnknownTypeError` for a type that is not registered; both name the
    channel.
    """
    values: dict[str, Any] = {}
    if channels is not None:
        lenient = True
    unpack = codec.unpack_shown if channels is not None else None
    for name, (tag, data) in header.inline.items():
        if channels is not None and name not in channels:
            values[name] = UNREAD
            continue
        values[name] = read_value(name, [(tag, data)], codec, header.ns, lenient, unpack)
    for name, (_, seq) in header.refs.items():
        if channels is not None and name not in channels:
            values[name] = UNREAD
            continue
        rows, _ = stored.get(header.index[name], ([], False))
        if len(rows) != seq + 1:
            raise CorruptCheckpointError(
                f"chain has {len(rows)} rows, the header needs {seq + 1}", ns=header.ns, channel=name
            )
        values[name] = read_value(name, rows, codec, header.ns, lenient, unpack)
    return values


def known_chains(header: Header, stored: Mapping[int, StoredChain], values: Mapping[str, Any]) -> dict[str, Chain]:
    """What a run that continues from these rows and values knows of its chains, and which it may extend."""
    chains: dict[str, Chain] = {}
    for name, (root, seq) in header.refs.items():
        rows, further = stored[header.index[name]]
        chain = chains[name] = begun(root, values[name], rows[:1], None, None)
        if seq:
            chain.seq = seq
            chain.ops = sum(len(data) for _, data in rows) - chain.full
            chain.digest = None
            chain.raw = list(rows) if chain.full + chain.ops <= RAW_LIMIT else None
        # Only the owner of the thread may extend, only at the end, and never what a lane still writes.
        chain.tip = not further and not root >> 20 & 1
    return chains


def read_value(
    name: str,
    rows: Sequence[Body],
    codec: Codec,
    ns: str,
    lenient: bool = False,
    unpack: Callable[[str | None, bytes], Any] | None = None,
) -> Any:
    """The value of one chain: its full row, then what changed it."""
    unpack = unpack or (codec.unpack_opaque if lenient else codec.unpack)
    try:
        value: Any = None
        for at, block in enumerate(_blocks(rows)):
            if at:
                give_way()
            deltas = _decoded(block, codec, unpack)
            if not at:
                value = deltas.pop(0)
            if type(value) is str:
                deltas = ["".join(deltas)]
            for delta in deltas:
                value = apply(value, delta)
    except UnknownTypeError as unknown:
        if unknown.channel is None:
            unknown.channel = name
            unknown.add_note(f"in channel {name!r} of namespace {ns!r}")
        raise
    except CorruptCheckpointError as damage:
        raise CorruptCheckpointError(damage.reason, ns=ns, channel=name) from damage
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise CorruptCheckpointError(f"body does not decode ({error!r})", ns=ns, channel=name) from error
    return value


def free_chains(stored: Mapping[int, StoredChain]) -> None:
    """Empty what was read of chains, in turns."""
    for rows, _ in stored.values():
        bodies = [data for _, data in rows]
        rows.clear()
        free_in_turns(bodies)


def join_rows(rows: Sequence[Body], codec: Codec, *, is_whole: bool) -> list[Body]:
    """Rows of a chain that follow each other as those that may stand in their place: as few as the values allow, in
    blocks if they are large. `is_whole`: they start with the chain. Needs no type to be known."""
    if len(rows) == 1:
        return [*rows]
    unpack = codec.unpack_opaque
    if is_whole:
        return _fewer(packed(read_value("", rows, codec, "", lenient=True), codec.pack), rows)
    values = [unpack(*row) for row in rows]
    if all(type(value) is list for value in values):
        return _fewer(packed([element for value in values for element in value], codec.pack), rows)
    if all(type(value) is str for value in values):
        return [codec.pack("".join(values))]
    # Splices and patches stand for the order in which they were made.
    return [*rows]


def _fewer(made: list[Body], rows: Sequence[Body]) -> list[Body]:
    return made if len(made) < len(rows) else [*rows]


def kind_of(row: Body, codec: Codec) -> int:
    """The kind of a chain row that is not the first one."""
    value = codec.unpack_opaque(*row)
    if type(value) is dict:
        return SPLICE if value.keys() == {"e", "n"} else PATCH
    return TEXT if type(value) is str else APPEND


def _blocks(rows: Sequence[Body]) -> Iterator[list[Body]]:
    """Rows in a row that make up a block together: what is decoded before another thread gets a turn."""
    block: list[Body] = []
    room = BLOCK_BYTES
    for row in rows:
        data = row[1]
        size = len(data)
        # A long array of small elements: each of them counts.
        if size > BLOCK_ELEMENTS and data[0] == _ARRAY_16:
            size = max(size, int.from_bytes(data[1:3], "big") * (BLOCK_BYTES // BLOCK_ELEMENTS))
        if block and size > room:
            yield block
            block, room = [], BLOCK_BYTES
        block.append(row)
        room -= size
    yield block


def _decoded(block: list[Body], codec: Codec, unpack: Callable[[str | None, bytes], Any]) -> list[Any]:
    """The values of rows. Those of a list that only grew become one array first: faster than row by row."""
    if len(block) > 1 and codec.is_plain and (whole := joined(block)) is not None:
        n_elements, elements = whole
        return [unpack(None, b"\xdd" + n_elements.to_bytes(4, "big") + elements)]
    return [unpack(*row) for row in block]


def read_task(
    row: WriteRow, codec: Codec, checkpoint_id: str, *, lenient: bool = False, shown: bool = False
) -> TaskWrites:
    """The writes of a task row; `shown`: as tools see them. Raises `CorruptCheckpointError` if it holds something else."""
    unpack = codec.unpack_shown if shown else codec.unpack_opaque if lenient else codec.unpack
    try:
        value = unpack(row.tag, row.body)
        if row.slot < 0:
            value = [CHANNEL_OF_SLOT[row.slot], value]
        writes = list(zip(value[::2], value[1::2], strict=True))
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptCheckpointError(f"writes of task {row.task_id!r} do not decode ({error!r})") from error
    return TaskWrites(row.rev, checkpoint_id, row.task_id, row.path, row.slot, writes)
