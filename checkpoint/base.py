"""The shapes, errors and interface of a saver: what the engine asks of it, and what LangGraph-style code asks of it.

Decides the names and the meaning of what is stored; knows neither how values become bytes (`checkpoint.serde`,
`checkpoint.chains`) nor where they go (`checkpoint.memory`, `checkpoint.sqlite`) nor anything of `pregel`.

Two interfaces live on one class. The public one has LangGraph's names (`get_tuple`, `list`, `put`, `put_writes` and
their async twins). The native one is what the engine calls: `load`, `encode`, `write`, `submit` (storage.md C3.2). A saver
that has only the first is driven through `checkpoint.adapter.adapt`.

Words (storage.md): a *claim* is a run's exclusive, numbered right to write a thread; a *rev* orders all checkpoints of a
thread; a *space* is one namespace of one thread; a *chain* is a full value plus deltas of one channel.

Invariants
1. `encode` does no I/O and needs no database; it is finished before the next superstep's first node starts (D22).
2. A write happens as a whole or not at all; a miss of claim or head raises `CheckpointConflictError` and stores nothing.
3. A failed write poisons the `Claim`: no later write of that run is tried.
"""

from __future__ import annotations

import copy
import importlib
import random
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import (
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NoReturn,
    NotRequired,
    Protocol,
    Self,
    TypeVar,
)

from typing_extensions import TypedDict

from checkpoint import ids

V = TypeVar("V", int, float, str)
Version = int | float | str
ChannelVersions = dict[str, Version]
PendingWrite = tuple[str, str, Any]
"""(task id, channel, value)."""
Durability = Literal["sync", "async", "exit"]

ERROR: Final = "__error__"
SCHEDULED: Final = "__scheduled__"
INTERRUPT: Final = "__interrupt__"
RESUME: Final = "__resume__"
ERROR_SOURCE: Final = "__error_source_node__"
"""Of a task whose failure its error handler took over: the name of its node."""
TASKS: Final = "__pregel_tasks"
UNREAD: Final = "<not read>"
"""Stands for a stored value that was not asked for (`NativeSaver.history(channels=...)`)."""
ORIGIN: Final = "origin"
"""Name of the fact that tells the executions of one thread apart: an input, an update, a fork and a replay set another
(`StepCommit.facts`)."""
WRITES_IDX_MAP: Final[dict[str, int]] = {ERROR: -1, SCHEDULED: -2, INTERRUPT: -3, RESUME: -4, ERROR_SOURCE: -5}
"""Slot of a special write. All regular writes of a task share slot 0. (`SCHEDULED` is no longer written: it said what
`ERROR_SOURCE` says.)"""
EXCLUDED_METADATA_KEYS: Final = frozenset(
    {
        "thread_id",
        "checkpoint_id",
        "checkpoint_ns",
        "checkpoint_map",
        "langgraph_step",
        "langgraph_node",
        "langgraph_triggers",
        "langgraph_path",
        "langgraph_checkpoint_ns",
    }
)


class RunnableConfig(TypedDict, total=False):
    """How a run is addressed and limited; a plain dict, merged one level deep (engine.md 9.1)."""

    tags: list[str]
    metadata: dict[str, Any]
    callbacks: Any
    run_name: str
    run_id: Any
    max_concurrency: int | None
    recursion_limit: int
    configurable: dict[str, Any]


# ---- public shapes


class Checkpoint(TypedDict):
    """One stored state, as LangGraph-style code sees it. `id` sorts by creation time within one process."""

    v: int
    id: str
    ts: str
    channel_values: dict[str, Any]
    channel_versions: ChannelVersions
    versions_seen: dict[str, ChannelVersions]
    updated_channels: list[str] | None
    pending_sends: NotRequired[list[Any]]


class CheckpointMetadata(TypedDict, total=False):
    """`source`: "input", "loop", "update" or "fork". `step`: -1 for the first input, then counting. `parents`: namespace ->
    checkpoint id of the ancestors. Further keys are the scalars of the run's config."""

    source: str
    step: int
    parents: dict[str, str]
    run_id: str


class CheckpointTuple(NamedTuple):
    """A checkpoint with its addresses. `pending_writes` is ordered by (task path, task id, index)."""

    config: RunnableConfig
    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    parent_config: RunnableConfig | None = None
    pending_writes: list[PendingWrite] | None = None


class DeltaChannelHistory(TypedDict):
    """`writes`: oldest first, one channel only. `seed`: the newest stored value before them, if there is one."""

    writes: list[PendingWrite]
    seed: NotRequired[Any]


class Problem(NamedTuple):
    """One fault that `verify` found, as close as its place is known; `reason` is a sentence for people."""

    thread_id: str | None
    ns: str | None
    checkpoint_id: str | None
    """The oldest checkpoint that needs what is damaged."""
    channel: str | None
    reason: str


class Repair(NamedTuple):
    """One thing that `repair` did, as a sentence for people, and where."""

    thread_id: str
    ns: str
    checkpoint_id: str | None
    action: str


@dataclass(frozen=True, slots=True)
class Stats:
    """What is stored, as `stats` counts it. All sizes in bytes, of bodies without keys and checksums."""

    threads: int
    checkpoints: int
    stubs: int
    """Headers kept of pruned checkpoints."""
    task_rows: int
    task_bytes: int
    header_bytes: int
    """Headers and metadata, of stubs as well."""
    bytes_by_channel: Mapping[str, int]
    """Channel -> bytes of the chain rows that a checkpoint refers to; largest first. Values of at most 64 bytes live in
    headers and are not in it."""
    chain_lengths: Mapping[str, int]
    """Channel -> rows of its longest chain; longest first."""
    garbage: int
    """Bytes of chain rows that no kept checkpoint refers to. A namespace with a damaged header counts as having none."""
    file_bytes: int
    wal_bytes: int
    """Of the write-ahead log; both are 0 in memory."""
    biggest_threads: Sequence[tuple[str, int]]
    """(thread id, bytes of bodies, headers and task rows), largest first."""


# ---- errors (storage.md C2)


class EmptyChannelError(Exception):
    """A channel was read that has no value."""


class CheckpointError(Exception):
    """Anything a saver of ours raises about stored state."""


class CheckpointConflictError(CheckpointError):
    """The thread was written by somebody else since this run loaded it. Nothing of the refused write was stored."""

    def __init__(
        self,
        message: str | None = None,
        *,
        thread_id: str,
        ns: str = "",
        expected: str | None = None,
        actual: str | None = None,
        run_id: str | None = None,
    ) -> None:
        super().__init__(
            message
            or f"thread {thread_id!r} (namespace {ns!r}) was written by another run: expected head {expected!r}, found "
            f"{actual!r}; nothing of this step was stored; load the thread again, or run with another thread_id"
        )
        self.thread_id = thread_id
        self.ns = ns
        self.expected = expected
        self.actual = actual
        self.run_id = run_id


class ThreadBusyError(CheckpointConflictError):
    """Another run holds the thread: one of this process that is executing, or one with an unexpired lease.

    Raised before anything is stored. `until`: when the lease ends, in seconds since the epoch by this machine's clock;
    None if it is not a lease that keeps the thread.
    """

    def __init__(
        self,
        message: str,
        *,
        thread_id: str,
        run_id: str | None = None,
        owner_run_id: str | None = None,
        until: float | None = None,
    ) -> None:
        super().__init__(message, thread_id=thread_id, run_id=run_id)
        self.owner_run_id = owner_run_id
        self.until = until


class ThreadDeletedError(CheckpointConflictError):
    """The thread was deleted after this run loaded it; a late writer cannot bring it back."""


class CheckpointNotFoundError(CheckpointError):
    """An engine commit, copy, fork or task write names a checkpoint that is not there (any more)."""

    def __init__(self, message: str, *, thread_id: str, checkpoint_id: str | None = None) -> None:
        super().__init__(message)
        self.thread_id = thread_id
        self.checkpoint_id = checkpoint_id


class CorruptCheckpointError(CheckpointError):
    """Stored bytes do not check out: wrong crc, a gap in a chain, an undecodable body, a reference to nowhere."""

    def __init__(
        self,
        reason: str,
        *,
        thread_id: str | None = None,
        ns: str | None = None,
        checkpoint_id: str | None = None,
        channel: str | None = None,
    ) -> None:
        place = ", ".join(
            f"{name} {value!r}"
            for name, value in (
                ("thread", thread_id),
                ("namespace", ns),
                ("checkpoint", checkpoint_id),
                ("channel", channel),
            )
            if value is not None
        )
        super().__init__(f"stored data is damaged ({place or 'no place known'}): {reason}")
        self.reason = reason
        self.thread_id = thread_id
        self.ns = ns
        self.checkpoint_id = checkpoint_id
        self.channel = channel


class UnregisteredTypeError(CheckpointError, TypeError):
    """A value to store has a class that the registry does not know. Raised when the node returns."""

    def __init__(
        self, type_: type, path: str, *, channel: str | None = None, node: str | None = None, task_id: str | None = None
    ) -> None:
        super().__init__()
        self.type = type_
        self.path = path
        self.channel = channel
        self.node = node
        """Whose return value it was, if a node's."""
        self.task_id = task_id
        self._say()

    def locate(self, *, channel: str | None = None, node: str | None = None, task_id: str | None = None) -> None:
        """Add to the message what whoever met the value did not know."""
        self.channel = channel or self.channel
        self.node = node or self.node
        self.task_id = task_id or self.task_id
        self._say()

    def _say(self) -> None:
        name = f"{self.type.__module__}.{self.type.__qualname__}"
        place = self.path or "the value"
        if self.channel is not None:
            place = f"channel {self.channel!r}, at {self.path or 'the value itself'}"
        if self.node is not None:
            place = f"from node {self.node!r}, {place}"
        self.args = (
            f"cannot store a {name} ({place}): its class is not registered; decorate it with @checkpoint.register, "
            f"annotate a state key with it, or keep it out of the state",
        )


class UnknownTypeError(CheckpointError):
    """A stored type name that the registry does not know in this process."""

    def __init__(self, name: str, *, channel: str | None = None) -> None:
        place = f" in channel {channel!r}" if channel is not None else ""
        super().__init__(
            f"stored value{place} is a {name}, which is not registered here; import the module that defines it and "
            f"decorate the class with @checkpoint.register (aliases= for a renamed class)"
        )
        self.name = name
        self.channel = channel


class SchemaVersionError(CheckpointError):
    """The file was written by a newer library, or its schema is not the one its version says."""

    def __init__(self, message: str, *, found: int, supported: int) -> None:
        super().__init__(message)
        self.found = found
        self.supported = supported


class CheckpointWriteError(CheckpointError):
    """A background write was lost without an exception object of its own. Steps from `step` on are not stored."""

    def __init__(self, message: str, *, thread_id: str, step: int | None = None) -> None:
        super().__init__(message)
        self.thread_id = thread_id
        self.step = step


class SaverOpenError(CheckpointError):
    """The file cannot be opened: it or its directory is missing, may not be written, is locked, or is no database."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class ReadOnlyError(CheckpointError):
    """Something was to be stored by a saver that was opened with `read_only=True`."""


class SaverClosedError(CheckpointError):
    """The saver was used after `close()`, or in a forked child process."""


# ---- the native interface (storage.md C3.2)

N_BITS: Final = 20
LANE_BIT: Final = 1 << N_BITS
NUMBER_SHIFT: Final = N_BITS + 1
N_LIMIT = LANE_BIT - 1
"""Checkpoints under one number; then a run claims again, with its next write."""
NUMBER_LIMIT = (1 << 27) - 1
"""Claims and lanes of one thread: a rev has 48 bits."""

_renumbering = threading.Lock()


@dataclass(slots=True)
class Claim:
    """A run's exclusive right to write one thread, shared by all namespaces of that run.

    Taken by the run's first durable write, never by `load`: until then `claimed` is False and `number` is what the write
    will ask for. `spaces` is private to the saver (what it must remember per namespace between two commits).
    """

    thread_id: str
    thread_pk: int | None
    """Row of the thread, None while it is not stored."""
    salt: int
    """48 random bits of the thread; the node field of an id is `rev XOR salt`."""
    epoch: int
    """Number of the claim that held the thread at load."""
    number: int
    """This run's own number: claims seen at load + 1. Greater than `epoch` while the next write is to claim (again)."""
    root_head: int | None = None
    """Rev of the root namespace's newest checkpoint at load."""
    n: int = 0
    """Checkpoints numbered so far."""
    claimed: bool = False
    lane: bool = False
    """Does this run write beside the thread's holder? Then it is never `claimed`, and no head moves."""
    busy: ThreadBusyError | None = None
    """Why this claim cannot be taken: at load, another process had a lease on the thread."""
    lease: float | None = None
    """When the lease ends that the thread has, as loaded or as this run wrote it; seconds since the epoch."""
    poisoned: BaseException | None = None
    """The error of the first failed write; every later write of this run raises it again."""
    spaces: dict[str, Any] = field(default_factory=dict)
    memory: Any = None
    """Private to the saver: what it must remember of this run beside `spaces`."""
    upkeep: Any = None
    """Private to the saver: what its retention must remember of this run."""
    make_version: Callable[[Version | None], Version] | None = None
    """The saver's `get_next_version`, when versions are not plain counting integers."""
    _numbers: Iterator[int] = field(default_factory=partial(count, 1), repr=False, compare=False)
    _base: int = field(default=0, init=False, repr=False, compare=False)
    """The rev before the first of this run."""
    _last: int = field(default=0, init=False, repr=False, compare=False)
    """Greatest n under the first number."""
    _first: int = field(default=0, init=False, repr=False, compare=False)
    """The first number that was its own: what is not stored under it moves along into a lane."""

    def __post_init__(self) -> None:
        self._first = self.number
        self._start()

    def _start(self) -> None:
        self._base = self.number << NUMBER_SHIFT | (LANE_BIT if self.lane else 0)
        self._last = N_LIMIT if self.number <= NUMBER_LIMIT else 0

    def next_rev(self) -> int:
        """The rev of the next checkpoint of this run, in any namespace. Unique in the thread without asking anybody."""
        # Nested runs on several workers number their checkpoints at the same time: a counter's step is atomic.
        self.n = n = next(self._numbers)
        return self._base | n if n <= self._last else self._further_rev(n)

    def _further_rev(self, n: int) -> int:
        """The n-th rev, past the first number: the following numbers belong to this run for as long as it holds the
        thread, since nobody else claims then. The next write tells the store."""
        turns, at = divmod(n - 1, N_LIMIT)
        number = (self._base >> NUMBER_SHIFT) + turns
        check_number(self.thread_id, number)
        if self.lane:
            raise CheckpointError(
                f"thread {self.thread_id!r}: lane {self.number} has {n - 1} checkpoints, more than a lane can number; "
                f"start a new run from its newest checkpoint"
            )
        with _renumbering:
            self.number = max(self.number, number)
        return number << NUMBER_SHIFT | at + 1

    def open_lane(self, thread_pk: Any, salt: int, number: int) -> None:
        """Go on beside the holder, under this lane number. Nothing that was refused spoils the lane."""
        self.thread_pk, self.salt, self.number = thread_pk, salt, number
        self.lane, self.claimed, self.poisoned = True, False, None
        self._start()

    def lane_number(self) -> int:
        """What the revs of its lane begin with, above `N_BITS`; -1 if it is in no lane."""
        return self.number << 1 | 1 if self.lane else -1

    def in_lane(self, rev: int) -> int:
        """The rev in the lane of a checkpoint that was numbered before there was the lane and is not stored."""
        if rev & LANE_BIT or rev >> NUMBER_SHIFT < self._first:
            return rev
        return self._base | rev & N_LIMIT

    def numbered(self, step: int) -> tuple[int, str]:
        """Rev and id of the next checkpoint; the id carries the rev and the superstep."""
        self.n = n = next(self._numbers)  # as `next_rev`, without the call
        rev = self._base | n if n <= self._last else self._further_rev(n)
        return rev, ids.checkpoint_id(step, rev ^ self.salt)

    def next_version(self, current: Version | None) -> Version:
        """The version after `current`, the greatest of the checkpoint; of the kind that this saver uses (D26)."""
        if self.make_version is not None:
            return self.make_version(current)
        return 1 if current is None else current + 1  # type: ignore[operator]


def check_number(thread_id: str, number: int) -> None:
    """Raise `CheckpointError` for a number that no rev can carry."""
    if number > NUMBER_LIMIT:
        raise CheckpointError(
            f"thread {thread_id!r} was claimed {number - 1} times, as often as a thread can be; go on under another "
            f"thread_id, from the values of its newest checkpoint"
        )


@dataclass(slots=True)
class Append:
    """A list or str of which everything before `start` is what the parent checkpoint holds.

    The engine guarantees that the elements before `start` are the same objects. `written` are the elements this
    superstep wrote; the encoder checks that none of them stands before `start` (D23) and stores the whole value otherwise.
    """

    value: Any
    start: int
    written: Sequence[Any] = ()


@dataclass(slots=True)
class Edit:
    """A list, dict or str that took the place of another, of which parts may be the same objects.

    The engine guarantees that `before` is the container the parent checkpoint holds, not a copy, and that its shell was not
    changed since; what its elements hold may have been. `written` are the values this superstep wrote, and their
    elements.
    """

    value: Any
    before: Any
    written: Sequence[Any] = ()


ChannelOp = Append | Edit
"""How a changed channel differs from the parent checkpoint."""


@dataclass(slots=True)
class TaskWrites:
    """What one task wrote, stored under the checkpoint its step started from.

    `slot` 0: all regular writes in order, first call wins as a whole. Slots below 0 (`WRITES_IDX_MAP`): one special write,
    last call wins.
    """

    rev: int
    checkpoint_id: str
    task_id: str
    path: str
    slot: int
    writes: Sequence[tuple[str, Any]]


def next_version(current: Version | None) -> Version:
    """The version after `current`, of the same kind: a thread that has text versions (it was imported, D26) keeps them.

    Text: 32 digits that count, then a random tail, so that two branches of a thread never share a version.
    """
    if isinstance(current, str):
        return f"{int(current.split('.')[0]) + 1:032}.{random.random():016}"
    return 1 if current is None else current + 1


Source = Literal["input", "loop", "update", "fork"]


class _Nothing(dict[str, Any]):
    """An empty mapping that all share: it can be the default of a field, as a dict cannot."""

    __slots__ = ()
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __setitem__(self, key: str, value: Any) -> NoReturn:
        raise TypeError(f"{key!r} was to be set in a mapping that a commit was not given; pass one when it is made")


_NOTHING: Final[Mapping[str, Any]] = _Nothing()


@dataclass(slots=True)
class StepCommit:
    """One transaction as the engine asks for it: a checkpoint, the task writes that go with it, or only the writes.

    Unfrozen on purpose (built once per superstep). All values are live objects; `encode` must be done with them when it
    returns. Everything else belongs to the commit: nobody changes it, so a saver may read it until it has written.
    """

    claim: Claim
    checkpoint_ns: str
    kind: Literal["checkpoint", "tasks"]
    """`tasks`: rows only; no checkpoint, no head moves."""
    writes: Sequence[TaskWrites] = ()
    """Not yet stored, in task order."""
    source: Source = "loop"
    step: int = 0
    checkpoint_id: str = ""
    rev: int = 0
    ts: int = 0
    """Microseconds since the epoch, UTC."""
    parent_rev: int | None = None
    parent_id: str | None = None
    up_rev: int | None = None
    """Rev of the checkpoint of the parent namespace under which this nested run works; None at the root."""
    parents: Mapping[str, str] = _NOTHING
    """Namespace -> checkpoint id of every ancestor graph."""
    metadata: Mapping[str, Any] = _NOTHING
    """The run's own metadata (no source, step, parents). The same object for every commit of a run."""
    run_id: str | None = None
    version: Version = 0
    """The version that every channel of `values`, `ops` and `gone` gets, unless `versions` names another."""
    values: Mapping[str, Any] = _NOTHING
    """Changed channels whose new value is given whole."""
    ops: Mapping[str, ChannelOp] = _NOTHING
    """Changed channels of which more is known: how the value differs from the parent checkpoint's."""
    gone: Collection[str] = ()
    """Channels whose version moved and that have no value now. Never filled from "not declared by this graph"."""
    versions: Mapping[str, Version] | None = None
    """Versions that differ from `version` (exit durability: several supersteps in one commit)."""
    seen: Mapping[str, Mapping[str, Version]] = _NOTHING
    """Node -> full map of versions last consumed; only nodes whose entry changed since the parent."""
    updated_channels: Sequence[str] | None = None
    """Sorted."""
    sub: Mapping[str, int] = _NOTHING
    """Stable nested namespace -> rev, of nested runs that finished in this superstep (D25)."""
    facts: Mapping[str, Any] = _NOTHING
    """What the engine remembers with the line of checkpoints beside its state: those that changed since the parent, None
    for one that is gone. Plain msgpack types. Later checkpoints and forks inherit them; nobody else sees them."""
    others: Sequence[StepCommit] = ()
    """Commits of other namespaces that belong into the same transaction, nested first (exit durability)."""


@dataclass(slots=True)
class LoadedCheckpoint:
    """What `load` found, and the claim under which it may be continued.

    `checkpoint_id` is None when nothing is stored at the address; the rest is then empty. Values are private copies.
    """

    claim: Claim
    checkpoint_ns: str
    checkpoint_id: str | None = None
    rev: int = 0
    parent_id: str | None = None
    parent_rev: int | None = None
    ts: str = ""
    """ISO-8601 UTC."""
    source: str = ""
    step: int = -2
    parents: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    """With source, step and parents, as `CheckpointTuple.metadata`."""
    values: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    seen: dict[str, dict[str, Version]] = field(default_factory=dict)
    updated_channels: list[str] | None = None
    sub: dict[str, int] = field(default_factory=dict)
    writes: list[TaskWrites] = field(default_factory=list)
    """Ordered by (path, task id, slot)."""
    is_head: bool = True
    """Is it the newest of its namespace, or of its lane?"""
    up_rev: int | None = None
    """Nested: rev of the checkpoint of the parent namespace that it belongs to."""
    open_sub: dict[str, int] = field(default_factory=dict)
    """Stable nested namespace -> rev, of nested runs that finished in the superstep that is open on this checkpoint: a
    task whose output is stored does not run again, so the commit of the superstep has them from here."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What earlier commits of the line remembered (`StepCommit.facts`)."""


class OpenStep(NamedTuple):
    """What the tasks after a namespace's newest checkpoint have stored so far."""

    checkpoint_id: str
    ts: str
    """When the checkpoint was made, ISO-8601 UTC."""
    writes: list[TaskWrites]
    """Ordered by (path, task id, slot)."""


class EncodedCommit(Protocol):
    """A commit as bytes, opaque to the engine."""

    @property
    def size(self) -> int:
        """Bytes of all bodies."""
        ...

    @property
    def edited(self) -> Sequence[str]:
        """Channels in which something was edited in place that nobody wrote; their whole value is stored (D23)."""
        ...


class Ack(Protocol):
    """A write that may still be on its way."""

    def done(self) -> bool:
        """Has it ended, well or badly?"""
        ...

    def result(self) -> None:
        """Wait for the end; raise the write's error."""

    async def aresult(self) -> None:
        """Async form of `result`."""


class NativeSaver(Protocol):
    """What the engine calls. Every method may raise the errors of storage.md C2, or the saver's own exception."""

    native_commit: ClassVar[bool]
    max_checkpoint_lag: int
    """Supersteps of one namespace that may be unwritten under `"async"` durability when the next one starts."""
    holders: Any
    """A `checkpoint.holders.Holders`: who of this process holds which thread. One for all who store the same threads."""

    def load(
        self,
        config: RunnableConfig,
        *,
        claim: Claim | None = None,
        up_rev: int | None = None,
        at_rev: int | None = None,
    ) -> LoadedCheckpoint:
        """The checkpoint to start from.

        Root (`claim` None): by `checkpoint_id` if the config has one, else the newest of the namespace.
        Nested (`claim` of the root run): the first that exists of (1) the newest checkpoint of the namespace whose
        `up_rev` is the given one, (2) `at_rev`, (3) nothing. A config with a `checkpoint_id` names it outright.
        Reads this run's own writes, also those that are not durable yet.
        """
        ...

    async def aload(
        self,
        config: RunnableConfig,
        *,
        claim: Claim | None = None,
        up_rev: int | None = None,
        at_rev: int | None = None,
    ) -> LoadedCheckpoint:
        """Async form of `load`."""
        ...

    def encode(self, commit: StepCommit) -> EncodedCommit:
        """Bytes of a commit. CPU only. Raises `UnregisteredTypeError` for a value that cannot be stored."""
        ...

    def is_large(self, commit: StepCommit) -> bool:
        """May `encode` take so long that an event loop should not do it? A guess, from lengths."""
        ...

    async def aencode(self, commit: StepCommit) -> EncodedCommit:
        """`encode` away from the event loop. Nothing of the commit may change until it has ended."""
        ...

    def write(self, batch: Sequence[EncodedCommit], *, durability: Durability) -> None:
        """Store the batch in one transaction; durable in the sense of `durability` when it returns."""

    async def awrite(self, batch: Sequence[EncodedCommit], *, durability: Durability) -> None:
        """Async form of `write`."""

    def submit(self, encoded: EncodedCommit) -> Ack | None:
        """Store soon, after everything submitted for the thread before. None: it is stored already."""
        ...

    def open_lane(self, claim: Claim) -> None:
        """Let the run of a claim go on beside the thread's holder: it gets a number of its own, and heads stay where
        they are. What it had encoded and not stored must be encoded again. Nothing happens if it is in a lane already.

        A lane stores task writes only under its own checkpoints.
        """

    async def aopen_lane(self, claim: Claim) -> None:
        """Async form of `open_lane`."""

    def release(self, claim: Claim) -> None:
        """The run of a claim is over: give up its lease, if it has one."""

    async def arelease(self, claim: Claim) -> None:
        """Async form of `release`."""

    def nested(self, parent: LoadedCheckpoint) -> list[str]:
        """Namespaces of the nested runs that work directly under a loaded checkpoint, in no order; those further below may
        be among them."""
        ...

    async def anested(self, parent: LoadedCheckpoint) -> list[str]:
        """Async form of `nested`."""
        ...

    def history(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        channels: Collection[str] | None = None,
    ) -> Iterator[LoadedCheckpoint]:
        """Checkpoints of one namespace, newest first; never holds a lock over a yield.

        `channels`: for tools that look at how a run went, not at what it made. Only the values of these channels are
        read, all others are `UNREAD`; and no class of the program is made, of values and of task writes: `Opaque`
        stands for what needs one. A saver that is driven through `list` may give more than that.
        """
        ...

    def ahistory(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        channels: Collection[str] | None = None,
    ) -> AsyncIterator[LoadedCheckpoint]:
        """Async form of `history`."""
        ...

    def last_of_run(self, config: RunnableConfig, run_id: str) -> str | None:
        """Id of the newest checkpoint that a run stored in the config's thread and namespace; None if there is none.

        Costs the same however long the thread is, and decodes nothing, where the saver has an index of runs.
        """
        ...

    async def alast_of_run(self, config: RunnableConfig, run_id: str) -> str | None:
        """Async form of `last_of_run`."""
        ...


# ---- helpers of the public interface


def namespace_above(ns: str) -> str:
    """The namespace of the graph around a nested one: without the counters at the end, then without the last segment.

    Segments are parted by `|`; one of digits counts the nested runs of one task and belongs to what is before it.
    """
    segments = ns.split("|")
    while segments and segments[-1].isdecimal():
        segments.pop()
    return "|".join(segments[:-1])


def namespaces_above(ns: str) -> Iterator[str]:
    """The namespaces that the graph around a nested one may have, nearest first: tasks that tasks call have segments too,
    and no graph of their own."""
    while ns:
        ns = namespace_above(ns)
        yield ns


def says_something(value: Any) -> bool:
    """Of a stored error, or of stored questions: is there one, or was it taken back?"""
    return value is not None and not (isinstance(value, (list, tuple)) and not value)


def is_above(ns: str, nested: str) -> bool:
    """Can one namespace be that of the graph around a nested one?

    A stable namespace has no task ids in it, so each call of the graph around it may have a namespace of its own; and it
    keeps the names that nodes had when it was begun, while those around it have later ones.
    """
    if ":" in nested:
        return ns in namespaces_above(nested)
    return _depth(ns) < _depth(nested)


def up_rev_of_edit(up_rev: int | None, parents: Mapping[str, str], newest: tuple[str, int] | None) -> int | None:
    """Rev of the checkpoint that an edit or fork of a nested one works under (D25).

    Args:
        up_rev: what the edited one works under.
        parents: its ancestors, namespace -> id.
        newest: id and rev of the newest root checkpoint, if the edited one is the newest of a namespace that all runs
            of a graph share: between two runs the next one starts from there.
    """
    return up_rev if newest is None or parents.get("") == newest[0] else newest[1]


def _depth(ns: str) -> int:
    return sum(not segment.isdecimal() for segment in ns.split("|") if segment)


def get_checkpoint_id(config: RunnableConfig) -> str | None:
    """The checkpoint that a config addresses, None for "the newest"."""
    return config.get("configurable", {}).get("checkpoint_id")


def get_checkpoint_metadata(config: RunnableConfig, metadata: Mapping[str, Any]) -> CheckpointMetadata:
    """`metadata` plus the scalars of the config's metadata and configurable; existing keys win (persistence.md A3)."""
    merged: dict[str, Any] = {
        key: value.replace("\x00", "") if isinstance(value, str) else value for key, value in metadata.items()
    }
    for part in (config.get("metadata"), config.get("configurable")):
        for key, value in (part or {}).items():
            if key in merged or key in EXCLUDED_METADATA_KEYS or key.startswith("__"):
                continue
            if isinstance(value, str):
                merged[key] = value.replace("\x00", "")
            elif isinstance(value, (int, float)):
                merged[key] = value
    return merged  # type: ignore[return-value]


def empty_checkpoint() -> Checkpoint:
    """A checkpoint without channels; its id and time are fixed by the caller's first `put`."""
    return create_checkpoint(
        {
            "v": 2,
            "id": "",
            "ts": "",
            "channel_values": {},
            "channel_versions": {},
            "versions_seen": {},
            "updated_channels": None,
            "pending_sends": [],
        },
        None,
        -2,
    )


def copy_checkpoint(checkpoint: Checkpoint) -> Checkpoint:
    """A copy whose maps are its own; the values are shared."""
    copied = checkpoint.copy()
    copied["channel_values"] = dict(checkpoint["channel_values"])
    copied["channel_versions"] = dict(checkpoint["channel_versions"])
    copied["versions_seen"] = {node: dict(seen) for node, seen in checkpoint["versions_seen"].items()}
    return copied


def create_checkpoint(
    checkpoint: Checkpoint,
    channels: Mapping[str, Any] | None,
    step: int,
    *,
    id: str | None = None,
) -> Checkpoint:
    """The next checkpoint: new id and time, versions copied. `channels=None` keeps the values, else they are dumped."""
    values: dict[str, Any] = {}
    if channels is None:
        values = dict(checkpoint["channel_values"])
    else:
        for name, channel in channels.items():
            try:
                values[name] = channel.get()
            except EmptyChannelError:
                continue
    copied = copy_checkpoint(checkpoint)
    copied["id"] = id or ids.checkpoint_id(step)
    copied["ts"] = ids.timestamp()
    copied["channel_values"] = values
    return copied


class _SharedSerde:
    """Class attribute `serde`: one serializer for all savers that were given none, made when the first one asks.

    Late, because this module must stay free of the codec (layers, design.md D37).
    """

    shared: Any = None

    def __get__(self, saver: object, owner: type) -> Any:
        if _SharedSerde.shared is None:
            _SharedSerde.shared = importlib.import_module("checkpoint.serde.jsonplus").JsonPlusSerializer()
        return _SharedSerde.shared


def _typed(serde: Any) -> Any:
    if hasattr(serde, "dumps_typed"):
        return serde
    return importlib.import_module("checkpoint.serde.base").maybe_add_typed_methods(serde)


class _DeltaWalk:
    """The way from a checkpoint back to the stored values of channels; somebody else reads what is `next`."""

    def __init__(self, target: RunnableConfig, channels: Sequence[str]) -> None:
        self.next: RunnableConfig | None = target if channels else None
        self._at_target = True
        self._open = set(channels)
        self._writes: dict[str, list[PendingWrite]] = {name: [] for name in channels}
        """Newest first."""
        self._seeds: dict[str, Any] = {}

    def go_on(self, found: CheckpointTuple | None) -> None:
        """Take what was read."""
        self.next = found.parent_config if found is not None else None
        if found is None or self._at_target:
            self._at_target = False
            return
        for write in reversed(found.pending_writes or ()):
            if write[1] in self._open:
                self._writes[write[1]].append(write)
        values = found.checkpoint["channel_values"]
        for name in self._open & values.keys():
            self._seeds[name] = values[name]
        self._open -= values.keys()
        if not self._open:
            self.next = None

    def histories(self) -> dict[str, DeltaChannelHistory]:
        """What was found, by channel."""
        found: dict[str, DeltaChannelHistory] = {
            name: {"writes": writes[::-1]} for name, writes in self._writes.items()
        }
        for name, seed in self._seeds.items():
            found[name]["seed"] = seed
        return found


class BaseCheckpointSaver(Generic[V]):
    """Base of every saver: LangGraph's interface, raising `NotImplementedError` until a subclass fills it in.

    A subclass that implements `get_tuple`, `list`, `put` and `put_writes` (or their async twins) works with the engine.
    `serde` has `dumps_typed(value) -> (tag, bytes)` and `loads_typed((tag, bytes)) -> value`.
    """

    native_commit: ClassVar[bool] = False
    """Does this class implement the native interface? Decides how the engine drives it."""
    max_checkpoint_lag: int = 1
    serde: Any = _SharedSerde()

    def __init__(self, *, serde: Any = None) -> None:
        if serde is not None:
            self.serde = _typed(serde)

    @property
    def config_specs(self) -> list[Any]:
        """Configurable fields of the saver; none."""
        return []

    def get(self, config: RunnableConfig) -> Checkpoint | None:
        """The addressed checkpoint, or None."""
        found = self.get_tuple(config)
        return found.checkpoint if found else None

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The addressed checkpoint with metadata and pending writes, or None. Private copies."""
        raise NotImplementedError

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first. `config` None: all threads. `filter`: metadata equality on all keys."""
        raise NotImplementedError

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint whose parent is the config's `checkpoint_id`; returns the config that addresses it."""
        raise NotImplementedError

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task wrote under the config's checkpoint."""
        raise NotImplementedError

    def delete_thread(self, thread_id: str) -> None:
        """Remove a thread with all its namespaces. Unknown threads are ignored."""
        raise NotImplementedError

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints of these runs."""
        raise NotImplementedError

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of one thread to another."""
        raise NotImplementedError

    def fork(self, config: RunnableConfig) -> RunnableConfig:
        """Make a checkpoint that goes on from the addressed one, and becomes the newest; returns its config."""
        raise NotImplementedError

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> int | None:
        """Remove old checkpoints: `"keep_latest"` or `"delete"`. May return how many."""
        raise NotImplementedError

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What was written to channels whose value is not stored each time, on the way to a checkpoint.

        Per channel: writes of the ancestors (not of the checkpoint itself), oldest first, back to the nearest ancestor
        that has a value of the channel, whose value is the `seed` and whose own writes are included. One `get_tuple`
        per ancestor.
        """
        walk = _DeltaWalk(config, channels)
        while walk.next is not None:
            walk.go_on(self.get_tuple(walk.next))
        return walk.histories()

    def with_allowlist(self, extra_allowlist: Any) -> Self:
        """A saver whose serializer also takes these classes: this one, unless the serializer had to be replaced."""
        widen = getattr(self.serde, "with_msgpack_allowlist", None)
        serde = self.serde if widen is None else widen(extra_allowlist)
        if serde is self.serde:
            return self
        widened = copy.copy(self)
        widened.serde = serde
        return widened

    async def aget(self, config: RunnableConfig) -> Checkpoint | None:
        """Async form of `get`."""
        found = await self.aget_tuple(config)
        return found.checkpoint if found else None

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Async form of `get_tuple`."""
        raise NotImplementedError

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Async form of `list`."""
        raise NotImplementedError
        yield  # pragma: no cover - makes this an async generator

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Async form of `put`."""
        raise NotImplementedError

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Async form of `put_writes`."""
        raise NotImplementedError

    async def adelete_thread(self, thread_id: str) -> None:
        """Async form of `delete_thread`."""
        raise NotImplementedError

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Async form of `delete_for_runs`."""
        raise NotImplementedError

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Async form of `copy_thread`."""
        raise NotImplementedError

    async def afork(self, config: RunnableConfig) -> RunnableConfig:
        """Async form of `fork`."""
        raise NotImplementedError

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> int | None:
        """Async form of `prune`."""
        raise NotImplementedError

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Async form of `get_delta_channel_history`."""
        walk = _DeltaWalk(config, channels)
        while walk.next is not None:
            walk.go_on(await self.aget_tuple(walk.next))
        return walk.histories()

    def get_next_version(self, current: V | None, channel: None) -> V:
        """The version after `current`: numbers count up from 1. Text versions need an override."""
        if isinstance(current, str):
            raise NotImplementedError("a saver with text versions must override get_next_version")
        return 1 if current is None else current + 1  # type: ignore[return-value]
