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
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, ClassVar, Final, Generic, Literal, NamedTuple, NotRequired, Protocol, Self, TypeVar

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
TASKS: Final = "__pregel_tasks"
WRITES_IDX_MAP: Final[dict[str, int]] = {ERROR: -1, SCHEDULED: -2, INTERRUPT: -3, RESUME: -4}
"""Slot of a special write. All regular writes of a task share slot 0."""
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
    """Another run of this process is executing on the thread; raised before anything is stored."""

    owner_run_id: str | None = None


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

    def __init__(self, type_: type, path: str, *, channel: str | None = None) -> None:
        name = f"{type_.__module__}.{type_.__qualname__}"
        place = f"channel {channel!r}, at {path or 'the value itself'}" if channel is not None else path or "the value"
        super().__init__(
            f"cannot store a {name} ({place}): its class is not registered; decorate it with @checkpoint.register, "
            f"annotate a state key with it, or keep it out of the state"
        )
        self.type = type_
        self.path = path
        self.channel = channel


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


class SaverClosedError(CheckpointError):
    """The saver was used after `close()`, or in a forked child process."""


# ---- the native interface (storage.md C3.2)

N_BITS: Final = 20
LANE_BIT: Final = 1 << N_BITS
NUMBER_SHIFT: Final = N_BITS + 1


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
    """This run's own number: claims seen at load + 1."""
    root_head: int | None = None
    """Rev of the root namespace's newest checkpoint at load."""
    n: int = 0
    """Checkpoints numbered so far."""
    claimed: bool = False
    lane: bool = False
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

    def next_rev(self) -> int:
        """The rev of the next checkpoint of this run, in any namespace. Unique in the thread without asking anybody."""
        # Nested runs on several workers number their checkpoints at the same time: a counter's step is atomic.
        self.n = n = next(self._numbers)
        return self.number << NUMBER_SHIFT | (LANE_BIT if self.lane else 0) | n

    def numbered(self, step: int) -> tuple[int, str]:
        """Rev and id of the next checkpoint; the id carries the rev and the superstep."""
        rev = self.next_rev()
        return rev, ids.checkpoint_id(step, rev ^ self.salt)

    def next_version(self, current: Version | None) -> Version:
        """The version after `current`, the greatest of the checkpoint; of the kind that this saver uses (D26)."""
        if self.make_version is not None:
            return self.make_version(current)
        return 1 if current is None else current + 1  # type: ignore[operator]


@dataclass(slots=True)
class Full:
    """The whole value."""

    value: Any


@dataclass(slots=True)
class Append:
    """A list or str of which everything before `start` is what the parent checkpoint holds.

    The engine guarantees that the elements before `start` are the same objects. `written` are the elements this
    superstep wrote; the encoder checks that none of them stands before `start` (D23) and stores `Full` otherwise.
    """

    value: Any
    start: int
    written: Sequence[Any] = ()


ChannelOp = Full | Append
"""How a changed channel differs from the parent checkpoint. Further ops (splice, patch) extend this union."""


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


Source = Literal["input", "loop", "update", "fork"]


@dataclass(slots=True)
class StepCommit:
    """One transaction as the engine asks for it: a checkpoint, the task writes that go with it, or only the writes.

    Unfrozen on purpose (built once per superstep). All values are live objects; `encode` must be done with them when it
    returns.
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
    parents: Mapping[str, str] = field(default_factory=dict)
    """Namespace -> checkpoint id of every ancestor graph."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The run's own metadata (no source, step, parents). The same object for every commit of a run."""
    run_id: str | None = None
    version: Version = 0
    """The version that every channel of `ops` and `gone` gets, unless `versions` names another."""
    ops: Mapping[str, ChannelOp] = field(default_factory=dict)
    gone: Collection[str] = ()
    """Channels whose version moved and that have no value now. Never filled from "not declared by this graph"."""
    versions: Mapping[str, Version] | None = None
    """Versions that differ from `version` (exit durability: several supersteps in one commit)."""
    seen: Mapping[str, Mapping[str, Version]] = field(default_factory=dict)
    """Node -> full map of versions last consumed; only nodes whose entry changed since the parent."""
    updated_channels: Sequence[str] | None = None
    """Sorted."""
    sub: Mapping[str, int] = field(default_factory=dict)
    """Stable nested namespace -> rev, of nested runs that finished in this superstep (D25)."""
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
    """Is it the newest of its namespace?"""
    up_rev: int | None = None
    """Nested: rev of the checkpoint of the parent namespace that it belongs to."""


class EncodedCommit(Protocol):
    """A commit as bytes, opaque to the engine."""

    @property
    def size(self) -> int:
        """Bytes of all bodies."""
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

    def write(self, batch: Sequence[EncodedCommit], *, durability: Durability) -> None:
        """Store the batch in one transaction; durable in the sense of `durability` when it returns."""

    async def awrite(self, batch: Sequence[EncodedCommit], *, durability: Durability) -> None:
        """Async form of `write`."""

    def submit(self, encoded: EncodedCommit) -> Ack | None:
        """Store soon, after everything submitted for the thread before. None: it is stored already."""
        ...

    def history(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[LoadedCheckpoint]:
        """Checkpoints of one namespace, newest first; never holds a lock over a yield."""
        ...

    def ahistory(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[LoadedCheckpoint]:
        """Async form of `history`."""
        ...


# ---- helpers of the public interface


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

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> int | None:
        """Remove old checkpoints: `"keep_latest"` or `"delete"`. May return how many."""
        raise NotImplementedError

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

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> int | None:
        """Async form of `prune`."""
        raise NotImplementedError

    def get_next_version(self, current: V | None, channel: None) -> V:
        """The version after `current`: numbers count up from 1. Text versions need an override."""
        if isinstance(current, str):
            raise NotImplementedError("a saver with text versions must override get_next_version")
        return 1 if current is None else current + 1  # type: ignore[return-value]
