"""A saver with LangGraph's four methods behind the native interface.

Decides how a commit becomes `put_writes` and `put` calls, in which order, on which thread or loop, and what is copied
before a call may lag. Knows no saver: everything goes through `get_tuple`, `list`, `put`, `put_writes` and their async
twins, whichever of the two there are (storage.md C12.1).

Such a saver addresses by id and knows no revs. Revs here are numbers of the run's own, kept with its claim beside the
ids.

Invariants
1. Task writes are stored before the checkpoint that follows them; writes that belong to a checkpoint of the same commit
   are stored after it.
2. A saver's exception comes out as the object it raised (design.md D47).
3. A call that lags never sees a value that the program can still change: it was copied at the barrier.

There is no compare-and-set behind four methods: only at the first write of a run the newest checkpoint is compared with
the one that was loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import json
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Final

from checkpoint import ids, registry
from checkpoint.base import (
    ERROR,
    INTERRUPT,
    WRITES_IDX_MAP,
    Ack,
    BaseCheckpointSaver,
    CheckpointConflictError,
    CheckpointError,
    CheckpointTuple,
    Claim,
    Durability,
    EncodedCommit,
    LoadedCheckpoint,
    OpenStep,
    RunnableConfig,
    StepCommit,
    TaskWrites,
    next_version,
    says_something,
)
from checkpoint.holders import Holders
from checkpoint.rows import addressed
from checkpoint.serde.msgpack import Serde
from checkpoint.workers import LoopThread, Outcome, Worker

SUB_KEY: Final = "__pregel_sub"
"""Metadata key: JSON of stable nested namespace -> id of the checkpoint a finished nested run left there."""
FACTS_KEY: Final = "__pregel_facts"
"""Metadata key: JSON of `LoadedCheckpoint.facts`."""
PAGE: Final = 50

_PLAIN_NAMES: Final = {
    "pregel.Send": "__send__",
    "pregel.Interrupt": "__interrupt__",
    "pregel.TimeoutPolicy": "__timeout_policy__",
    "pregel.Overwrite": "__overwrite_value__",
}
"""Registered control types -> key of their plain form, for serializers that do not know them."""
_CODEC_NAMES: Final = {plain: name for name, plain in _PLAIN_NAMES.items()}


# ---- control types in plain form


def to_plain(value: Any) -> Any:
    """The value, with control types in it, and in a list or tuple of them, as dicts of one key. Errors become text."""
    if isinstance(value, BaseException):
        return repr(value)
    if type(value) in (list, tuple):
        plain = [_to_plain_one(item) for item in value]
        changed = any(new is not old for new, old in zip(plain, value, strict=True))
        return type(value)(plain) if changed else value
    return _to_plain_one(value)


def _to_plain_one(value: Any) -> Any:
    entry = registry.lookup_class(type(value))
    key = _PLAIN_NAMES.get(entry.name) if entry is not None else None
    if key is None or entry is None or entry.encode is None:
        return value
    parts = entry.encode(value)
    return {key: [_to_plain_one(part) for part in parts] if type(parts) is list else _to_plain_one(parts)}


def from_plain(value: Any) -> Any:
    """What `to_plain` was given."""
    if type(value) in (list, tuple):
        rebuilt = [_from_plain_one(item) for item in value]
        changed = any(new is not old for new, old in zip(rebuilt, value, strict=True))
        return type(value)(rebuilt) if changed else value
    return _from_plain_one(value)


def _from_plain_one(value: Any) -> Any:
    if type(value) is not dict or len(value) != 1:
        return value
    ((key, parts),) = value.items()
    name = _CODEC_NAMES.get(key)
    entry = registry.lookup_name(name) if name is not None else None
    if entry is None or entry.decode is None:
        return value
    return entry.decode([_from_plain_one(part) for part in parts] if type(parts) is list else _from_plain_one(parts))


def _thread_of(entry: CheckpointTuple) -> str:
    return str(entry.config.get("configurable", {}).get("thread_id"))


# ---- what is kept with a claim


@dataclass(slots=True)
class _Ids:
    """Ids of the checkpoints a run has met, by the revs it uses for them. Kept as `Claim.memory`."""

    id_by_rev: dict[int, str] = field(default_factory=dict)
    rev_by_id: dict[str, int] = field(default_factory=dict)
    last: Outcome | None = None
    """The newest write that may still be on its way."""

    def rev_of(self, claim: Claim, checkpoint_id: str) -> int:
        rev = self.rev_by_id.get(checkpoint_id)
        if rev is None:
            rev = claim.next_rev()
            self.learn(rev, checkpoint_id)
        return rev

    def learn(self, rev: int, checkpoint_id: str) -> None:
        self.id_by_rev[rev] = checkpoint_id
        self.rev_by_id[checkpoint_id] = rev


@dataclass(slots=True)
class _Known:
    """The whole checkpoint that a namespace stands at: such a saver is given full values every time."""

    config: RunnableConfig
    head_id: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    sub: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def take(self, commit: StepCommit, plain: Callable[[Any], Any], known_ids: _Ids) -> dict[str, Any]:
        """Move on to what a commit makes of it; `plain` makes the values such as this saver takes. Returns the versions
        that are new."""
        special = commit.versions or {}
        new = {name: special.get(name, commit.version) for name in (*commit.values, *commit.ops, *commit.gone)}
        self.versions.update(new)
        self.values.update((name, plain(value)) for name, value in commit.values.items())
        self.values.update((name, plain(op.value)) for name, op in commit.ops.items())
        for name in commit.gone:
            self.values.pop(name, None)
        self.seen.update((node, dict(seen)) for node, seen in commit.seen.items())
        self.sub.update((name, known_ids.id_by_rev[rev]) for name, rev in commit.sub.items())
        if commit.facts:
            self.facts = {name: fact for name, fact in {**self.facts, **commit.facts}.items() if fact is not None}
        return new

    def checkpoint(self, commit: StepCommit) -> dict[str, Any]:
        """The whole checkpoint that the commit makes."""
        updated = commit.updated_channels
        return {
            "v": 4,
            "id": commit.checkpoint_id,
            "ts": ids.timestamp_from_us(commit.ts),
            "channel_values": dict(self.values),
            "channel_versions": dict(self.versions),
            "versions_seen": {node: dict(seen) for node, seen in self.seen.items()},
            "updated_channels": list(updated) if updated is not None else None,
        }

    def metadata(self, commit: StepCommit) -> dict[str, Any]:
        """Its metadata, with what such a saver has no other place for."""
        made: dict[str, Any] = {
            **commit.metadata,
            "source": commit.source,
            "step": commit.step,
            "parents": dict(commit.parents),
        }
        if commit.run_id is not None:
            made.setdefault("run_id", commit.run_id)
        if self.sub:
            made[SUB_KEY] = json.dumps(self.sub)
        if self.facts:
            made[FACTS_KEY] = json.dumps(self.facts)
        return made


@dataclass(slots=True)
class _Calls:
    """One commit as the calls it will make."""

    claim: Claim
    ns: str
    known: _Known
    expected: str | None
    """The head that the saver is supposed to have."""
    step: int
    before: list[TaskWrites] = field(default_factory=list)
    after: list[TaskWrites] = field(default_factory=list)
    checkpoint: dict[str, Any] | None = None
    """None: task writes alone."""
    parent_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    new_versions: dict[str, Any] = field(default_factory=dict)
    changed: Sequence[str] = ()
    others: Sequence[_Calls] = ()

    @property
    def size(self) -> int:
        """Not known: the saver's own serializer runs inside `put`."""
        return 0

    @property
    def edited(self) -> Sequence[str]:
        """None: values are stored whole, so nothing is skipped."""
        return ()


class AdaptedSaver:
    """Drives any saver through its public methods. Made by `checkpoint.adapter.adapt`."""

    native_commit: ClassVar[bool] = True

    def __init__(self, saver: Any) -> None:
        self.saver = saver
        self.max_checkpoint_lag: int = getattr(saver, "max_checkpoint_lag", 1)
        self.notice = (
            f"{type(saver).__module__}.{type(saver).__qualname__} stores through put and put_writes only, which cannot "
            f"refuse a write: if two runs write one thread at once, the later one wins unnoticed"
        )
        """What the user should be told once about savers of this kind."""
        self._sync = {name: _implements(saver, name) for name in ("get_tuple", "list", "put", "put_writes")}
        self._async = {name: _implements(saver, "a" + name) for name in self._sync}
        self._worker = Worker("checkpoint-adapter")
        self._loop = LoopThread("checkpoint-adapter-loop")
        self._takes_path: dict[str, bool] = {}
        serde = getattr(saver, "serde", None)
        # One that encrypts: what makes the bytes is inside.
        self._plain = not isinstance(getattr(serde, "inner", serde), Serde)
        self._lock = threading.Lock()
        # A saver of ours with a method of its own knows who holds its threads: its `fork` asks there.
        holders = getattr(saver, "holders", None)
        self.holders = holders if isinstance(holders, Holders) else Holders()

    def __getattr__(self, name: str) -> Any:
        if name == "saver":
            raise AttributeError(name)
        return getattr(self.saver, name)

    def __repr__(self) -> str:
        return f"AdaptedSaver({self.saver!r})"

    # ---- calling the saver, in either colour

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self._sync[name]:
            try:
                return getattr(self.saver, name)(*args, **kwargs)
            except NotImplementedError:
                if not self._async[name]:
                    raise
                self._sync[name] = False
        return self._loop.call(getattr(self.saver, "a" + name)(*args, **kwargs))

    async def _acall(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self._async[name]:
            try:
                return await getattr(self.saver, "a" + name)(*args, **kwargs)
            except NotImplementedError:
                if not self._sync[name]:
                    raise
                self._async[name] = False
        return await self._worker.post(partial(getattr(self.saver, name), *args, **kwargs)).shielded()

    def _iterate(self, *args: Any, **kwargs: Any) -> Iterator[CheckpointTuple]:
        if self._sync["list"]:
            try:
                yield from self.saver.list(*args, **kwargs)
                return
            except NotImplementedError:
                if not self._async["list"]:
                    raise
                self._sync["list"] = False
        entries = self.saver.alist(*args, **kwargs)
        while True:
            try:
                yield self._loop.call(anext(entries))
            except StopAsyncIteration:
                return

    async def _aiterate(self, *args: Any, **kwargs: Any) -> AsyncIterator[CheckpointTuple]:
        if self._async["list"]:
            try:
                async for entry in self.saver.alist(*args, **kwargs):
                    yield entry
                return
            except NotImplementedError:
                if not self._sync["list"]:
                    raise
                self._async["list"] = False
        entries = iter(self.saver.list(*args, **kwargs))
        while page := await self._worker.post(lambda: list(islice(entries, PAGE))).aresult():
            for entry in page:
                yield entry

    def _path_arguments(self, name: str, path: str) -> tuple[str, ...]:
        takes = self._takes_path.get(name)
        if takes is None:
            try:
                parameters = inspect.signature(getattr(self.saver, name)).parameters
                takes = "task_path" in parameters or any(
                    parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values()
                )
            except (TypeError, ValueError):
                takes = True
            self._takes_path[name] = takes
        return (path,) if takes else ()

    # ---- versions

    def get_next_version(self, current: Any, channel: None) -> Any:
        """The saver's own next version; text versions where the saver leaves it to the base class.

        Text with a random tail, so that two branches of a thread never share a version; a thread that has numbers keeps
        them.
        """
        own = getattr(type(self.saver), "get_next_version", None)
        inherited = own is None or own is BaseCheckpointSaver.get_next_version
        if not inherited or "get_next_version" in getattr(self.saver, "__dict__", ()):
            return self.saver.get_next_version(current, channel)
        return next_version("0" if current is None else current)

    # ---- loading

    def load(
        self,
        config: RunnableConfig,
        *,
        claim: Claim | None = None,
        up_rev: int | None = None,
        at_rev: int | None = None,
    ) -> LoadedCheckpoint:
        """As `NativeSaver.load`, through `get_tuple`, for nested runs also `list`."""
        if claim is not None and (last := _ids_of(claim).last) is not None:
            last.wait()
        request = self._request(config, claim, up_rev, at_rev)
        reply: Any = None
        while True:
            try:
                name, arguments = request.send(reply)
            except StopIteration as end:
                loaded: LoadedCheckpoint = end.value
                return loaded
            if name == "list":
                reply = _first_under(arguments[1], self._iterate(arguments[0]))
            elif name == "children":
                reply = _Children(*arguments[1:])
                # Some savers insist on a namespace: what they list cannot be asked for.
                with contextlib.suppress(KeyError):
                    any(map(reply.are_found_with, self._iterate(arguments[0])))
            else:
                reply = self._call("get_tuple", arguments[0])

    async def aload(
        self,
        config: RunnableConfig,
        *,
        claim: Claim | None = None,
        up_rev: int | None = None,
        at_rev: int | None = None,
    ) -> LoadedCheckpoint:
        """Async form of `load`."""
        if claim is not None and (last := _ids_of(claim).last) is not None and not last.done():
            # Whoever wrote is told; here only the end matters.
            with contextlib.suppress(Exception):
                await last.aresult()
        request = self._request(config, claim, up_rev, at_rev)
        reply: Any = None
        while True:
            try:
                name, arguments = request.send(reply)
            except StopIteration as end:
                loaded: LoadedCheckpoint = end.value
                return loaded
            if name == "list":
                reply = None
                async for entry in self._aiterate(arguments[0]):
                    verdict = _is_under(arguments[1], entry)
                    if verdict is not None:
                        reply = entry if verdict else None
                        break
            elif name == "children":
                reply = _Children(*arguments[1:])
                with contextlib.suppress(KeyError):
                    async for entry in self._aiterate(arguments[0]):
                        if reply.are_found_with(entry):
                            break
            else:
                reply = await self._acall("get_tuple", arguments[0])

    def _request(self, config: RunnableConfig, claim: Claim | None, up_rev: int | None, at_rev: int | None) -> Any:
        """The reads of a load, one at a time, shared by both colours: yields (name, arguments), is sent rows."""
        thread_id, ns, checkpoint_id = addressed(config)
        nested = claim is not None
        if claim is None:
            claim = Claim(thread_id, None, ids.new_salt(), 0, 0)
            claim.make_version = partial(self.get_next_version, channel=None)
        known_ids = _ids_of(claim)
        asked = _plain_config(config, thread_id, ns, checkpoint_id)
        newest: CheckpointTuple | None = None
        found: CheckpointTuple | None = None
        if checkpoint_id is None and not nested:
            newest = found = yield "get_tuple", (asked,)
        else:
            newest = yield "get_tuple", (_plain_config(config, thread_id, ns, None),)
            if checkpoint_id is not None:
                found = yield "get_tuple", (asked,)
            elif newest is not None:
                up_id = known_ids.id_by_rev.get(up_rev) if up_rev is not None else None
                if up_id is not None:
                    verdict = _is_under(up_id, newest)
                    found = newest if verdict else None
                    if verdict is None:
                        found = yield "list", (_plain_config(config, thread_id, ns, None), up_id)
                at_id = known_ids.id_by_rev.get(at_rev) if at_rev is not None else None
                if found is None and at_id is not None:
                    found = yield "get_tuple", (_plain_config(config, thread_id, ns, at_id),)
        base = _plain_config(config, thread_id, ns, None)
        known = _Known(base, newest.checkpoint["id"] if newest is not None else None)
        claim.spaces[ns] = known
        if found is None:
            return LoadedCheckpoint(claim, ns, is_head=newest is None)
        loaded = self._loaded(found, claim, ns)
        checkpoint_values = found.checkpoint["channel_values"]
        known.values = dict(checkpoint_values)
        known.versions = dict(loaded.versions)
        known.seen = {node: dict(seen) for node, seen in loaded.seen.items()}
        known.sub = {name: known_ids.id_by_rev[rev] for name, rev in loaded.sub.items()}
        known.facts = dict(loaded.facts)
        loaded.is_head = newest is None or newest.checkpoint["id"] == loaded.checkpoint_id
        if loaded.is_head and any(task.slot == 0 for task in loaded.writes):
            everywhere = _plain_config(config, thread_id, ns, None)
            del everywhere["configurable"]["checkpoint_ns"]
            children = yield "children", (everywhere, loaded.checkpoint_id, ns)
            loaded.open_sub = {name: known_ids.rev_of(claim, id_) for name, id_ in children.ended.items()}
        return loaded

    def _loaded(self, found: CheckpointTuple, claim: Claim, ns: str) -> LoadedCheckpoint:
        known_ids = _ids_of(claim)
        checkpoint = found.checkpoint
        checkpoint_id = checkpoint["id"]
        parent_id = None
        if found.parent_config is not None:
            parent_id = found.parent_config.get("configurable", {}).get("checkpoint_id")
        metadata: dict[str, Any] = dict(found.metadata or {})
        stored_sub = metadata.pop(SUB_KEY, None)
        stored_facts = metadata.pop(FACTS_KEY, None)
        sub = {name: known_ids.rev_of(claim, at) for name, at in json.loads(stored_sub).items()} if stored_sub else {}
        rebuild = from_plain if self._plain else _same
        rev = known_ids.rev_of(claim, checkpoint_id)
        return LoadedCheckpoint(
            claim,
            ns,
            checkpoint_id,
            rev,
            parent_id,
            known_ids.rev_of(claim, parent_id) if parent_id is not None else None,
            checkpoint.get("ts", ""),
            metadata.get("source", ""),
            metadata.get("step", -2),
            dict(metadata.get("parents") or {}),
            metadata,
            {name: rebuild(value) for name, value in checkpoint["channel_values"].items()},
            dict(checkpoint["channel_versions"]),
            {node: dict(seen) for node, seen in checkpoint["versions_seen"].items()},
            checkpoint.get("updated_channels"),
            sub,
            _task_writes(rev, checkpoint_id, found.pending_writes or (), rebuild),
            facts=json.loads(stored_facts) if stored_facts else {},
        )

    def heads(self, wanted: Callable[[str], bool]) -> Iterator[list[LoadedCheckpoint]]:
        """As `RowSaver.heads`, but with all values: one listing of everything, of which the ids of the threads are kept,
        and one `load` per thread."""
        # Listed to the end first: a saver may hold a lock while it lists.
        for thread_id in dict.fromkeys(map(_thread_of, self._iterate(None))):
            yield [self.load({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})]

    async def aheads(self, wanted: Callable[[str], bool]) -> AsyncIterator[list[LoadedCheckpoint]]:
        """Async form of `heads`."""
        for thread_id in dict.fromkeys([_thread_of(entry) async for entry in self._aiterate(None)]):
            yield [await self.aload({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})]

    def peek(
        self, config: RunnableConfig, *, claim: Claim, up_rev: int, wanted: Callable[[str], bool]
    ) -> LoadedCheckpoint | None:
        """As `RowSaver.peek`, but with all values."""
        return self.load(config, claim=claim, up_rev=up_rev)

    async def apeek(
        self, config: RunnableConfig, *, claim: Claim, up_rev: int, wanted: Callable[[str], bool]
    ) -> LoadedCheckpoint | None:
        """Async form of `peek`."""
        return await self.aload(config, claim=claim, up_rev=up_rev)

    def nested(self, parent: LoadedCheckpoint) -> list[str]:
        """As `NativeSaver.nested`, through `list`."""
        found = _Children(parent.checkpoint_id or "", parent.checkpoint_ns)
        with contextlib.suppress(KeyError):
            any(map(found.are_found_with, self._iterate(_everywhere(parent))))
        return list(found.under)

    async def anested(self, parent: LoadedCheckpoint) -> list[str]:
        """Async form of `nested`."""
        found = _Children(parent.checkpoint_id or "", parent.checkpoint_ns)
        with contextlib.suppress(KeyError):
            async for entry in self._aiterate(_everywhere(parent)):
                if found.are_found_with(entry):
                    break
        return list(found.under)

    def history(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        channels: Collection[str] | None = None,
    ) -> Iterator[LoadedCheckpoint]:
        """As `NativeSaver.history`, through `list`."""
        thread_id, ns, checkpoint_id = addressed(config)
        asked = _plain_config(config, thread_id, ns, checkpoint_id)
        wanted = dict(filter) if filter else None
        for entry in self._iterate(asked, filter=wanted, before=before, limit=limit):
            yield self._loaded(entry, Claim(thread_id, None, 0, 0, 0), ns)

    async def ahistory(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        channels: Collection[str] | None = None,
    ) -> AsyncIterator[LoadedCheckpoint]:
        """Async form of `history`."""
        thread_id, ns, checkpoint_id = addressed(config)
        asked = _plain_config(config, thread_id, ns, checkpoint_id)
        wanted = dict(filter) if filter else None
        async for entry in self._aiterate(asked, filter=wanted, before=before, limit=limit):
            yield self._loaded(entry, Claim(thread_id, None, 0, 0, 0), ns)

    def thread_ids(self) -> Iterator[str]:
        """Ids of all threads, the newest first. Lists every checkpoint, and remembers the ids."""
        seen: set[str] = set()
        for entry in self._iterate(None):
            thread_id = entry.config["configurable"]["thread_id"]
            if thread_id not in seen:
                seen.add(thread_id)
                yield thread_id

    async def athread_ids(self) -> AsyncIterator[str]:
        """Async form of `thread_ids`."""
        seen: set[str] = set()
        async for entry in self._aiterate(None):
            thread_id = entry.config["configurable"]["thread_id"]
            if thread_id not in seen:
                seen.add(thread_id)
                yield thread_id

    def open_step(self, config: RunnableConfig) -> OpenStep | None:
        """What the tasks after the newest checkpoint of a namespace have stored; None if nothing is stored there."""
        for found in self.history(config, limit=1):
            return OpenStep(found.checkpoint_id or "", found.ts, found.writes)
        return None

    async def aopen_step(self, config: RunnableConfig) -> OpenStep | None:
        """Async form of `open_step`."""
        async for found in self.ahistory(config, limit=1):
            return OpenStep(found.checkpoint_id or "", found.ts, found.writes)
        return None

    def last_of_run(self, config: RunnableConfig, run_id: str) -> str | None:
        """As `NativeSaver.last_of_run`, through `list` and as fast as that: by the run id that metadata carry.

        A saver that knows no filter, and gives what is not of the run, is looked through.
        """
        wanted = {"run_id": run_id}
        for entry in self.history(config, filter=wanted, limit=1):
            if entry.metadata.get("run_id") == run_id:
                return entry.checkpoint_id
            found = (e.checkpoint_id for e in self.history(config, filter=wanted) if e.metadata.get("run_id") == run_id)
            return next(found, None)
        return None

    async def alast_of_run(self, config: RunnableConfig, run_id: str) -> str | None:
        """Async form of `last_of_run`."""
        wanted = {"run_id": run_id}
        async for entry in self.ahistory(config, filter=wanted, limit=1):
            if entry.metadata.get("run_id") == run_id:
                return entry.checkpoint_id
            async for other in self.ahistory(config, filter=wanted):
                if other.metadata.get("run_id") == run_id:
                    return other.checkpoint_id
        return None

    # ---- claims

    def open_lane(self, claim: Claim) -> None:
        """Let a run go on that may have lost its thread. Four methods keep no branches apart: what it stores is a
        branch by its parents alone, and the newest for whoever asks for the newest."""
        claim.claimed, claim.poisoned = True, None

    async def aopen_lane(self, claim: Claim) -> None:
        """Async form of `open_lane`."""
        self.open_lane(claim)

    def release(self, claim: Claim) -> None:
        """Nothing: there are no leases."""

    async def arelease(self, claim: Claim) -> None:
        """Async form of `release`."""

    # ---- committing

    def encode(self, commit: StepCommit) -> _Calls:
        """The calls of a commit. The saver's serializer runs inside `put`, so values are still live objects here."""
        claim = commit.claim
        known = claim.spaces.get(commit.checkpoint_ns)
        if not isinstance(known, _Known):
            raise CheckpointError(
                f"thread {claim.thread_id!r}: namespace {commit.checkpoint_ns!r} was committed but never loaded with "
                f"this claim; call load(config, claim=...) for it first"
            )
        others = [self.encode(other) for other in commit.others]
        calls = _Calls(claim, commit.checkpoint_ns, known, known.head_id, commit.step, others=others)
        known_ids = _ids_of(claim)
        writes = [self._plain_task(task) for task in commit.writes] if self._plain else list(commit.writes)
        if commit.kind == "tasks":
            calls.before = writes
            return calls
        calls.before = [task for task in writes if task.checkpoint_id != commit.checkpoint_id]
        calls.after = [task for task in writes if task.checkpoint_id == commit.checkpoint_id]
        calls.new_versions = known.take(commit, to_plain if self._plain else _same, known_ids)
        calls.changed = [*commit.values, *commit.ops]
        calls.checkpoint = known.checkpoint(commit)
        calls.metadata = known.metadata(commit)
        calls.parent_id = commit.parent_id
        known_ids.learn(commit.rev, commit.checkpoint_id)
        known.head_id = commit.checkpoint_id
        return calls

    @staticmethod
    def _plain_task(task: TaskWrites) -> TaskWrites:
        writes = [(channel, to_plain(value)) for channel, value in task.writes]
        return TaskWrites(task.rev, task.checkpoint_id, task.task_id, task.path, task.slot, writes)

    def is_large(self, commit: StepCommit) -> bool:
        """No: the saver's own serializer runs inside `put`."""
        del commit
        return False

    async def aencode(self, commit: StepCommit) -> EncodedCommit:
        """As `encode`."""
        return self.encode(commit)

    def write(self, batch: Sequence[EncodedCommit], *, durability: Durability) -> None:
        """Make the calls of the batch, in order. Not one transaction: such a saver has none to offer."""
        for calls in _flat(batch):
            last = _ids_of(calls.claim).last
            if last is not None:
                last.wait()
            self._make(calls)

    async def awrite(self, batch: Sequence[EncodedCommit], *, durability: Durability) -> None:
        """Async form of `write`."""
        for calls in _flat(batch):
            last = _ids_of(calls.claim).last
            if last is not None and not last.done():
                # After an error the claim is poisoned, and says so.
                with contextlib.suppress(Exception):
                    await last.aresult()
            await self._amake(calls)

    def submit(self, encoded: EncodedCommit) -> Ack | None:
        """Make the calls soon, after those submitted before for this claim, with copies of what may still change.

        A value that cannot be copied is stored before this returns.
        """
        steps = _flat((encoded,))
        if not all(self._detach(calls) for calls in steps):
            self.write((encoded,), durability="async")
            return None
        known_ids = _ids_of(steps[0].claim)
        previous = known_ids.last
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not None and self._async["put"]:
            outcome = _TaskOutcome()
            outcome.task = running.create_task(self._make_later(steps, previous, outcome))
            known_ids.last = outcome
            return outcome
        known_ids.last = self._worker.post(partial(self._make_all, steps))
        return known_ids.last

    def _make_all(self, steps: Sequence[_Calls]) -> None:
        for calls in steps:
            self._make(calls)

    async def _make_later(self, steps: Sequence[_Calls], previous: Outcome | None, outcome: Outcome) -> None:
        failure: BaseException | None = None
        try:
            if previous is not None and not previous.done():
                with contextlib.suppress(Exception):
                    await previous.aresult()
            for calls in steps:
                await self._amake(calls)
        except BaseException as error:  # noqa: BLE001 - reported by the outcome
            failure = error
        outcome.end(error=failure)

    def _make(self, calls: _Calls) -> None:
        requests = self._requests(calls)
        reply: Any = None
        try:
            while True:
                name, arguments = requests.send(reply)
                reply = self._call(name, *arguments, *self._path(name, calls, arguments))
        except StopIteration:
            pass
        except BaseException as error:
            _poison(calls, error)
            raise

    async def _amake(self, calls: _Calls) -> None:
        requests = self._requests(calls)
        reply: Any = None
        try:
            while True:
                try:
                    name, arguments = requests.send(reply)
                except StopIteration:
                    return
                reply = await self._acall(name, *arguments, *self._path(name, calls, arguments))
        except BaseException as error:
            _poison(calls, error)
            raise

    def _path(self, name: str, calls: _Calls, arguments: tuple[Any, ...]) -> tuple[str, ...]:
        del calls
        if name != "put_writes" or not isinstance(arguments[0], _PathConfig):
            return ()
        method = "put_writes" if self._sync["put_writes"] else "aput_writes"
        return self._path_arguments(method, arguments[0].path)

    def _requests(self, calls: _Calls) -> Any:
        """The calls of one commit, one at a time: yields (name, arguments), is sent results."""
        claim = calls.claim
        if claim.poisoned is not None:
            raise claim.poisoned
        if not claim.claimed:
            newest = yield "get_tuple", (calls.known.config,)
            newest_id = newest.checkpoint["id"] if newest is not None else None
            if newest_id != calls.expected:
                raise CheckpointConflictError(
                    thread_id=claim.thread_id, ns=calls.ns, expected=calls.expected, actual=newest_id
                )
            claim.claimed = True
        for task in calls.before:
            yield "put_writes", (_PathConfig(calls, task), list(task.writes), task.task_id)
        if calls.checkpoint is not None:
            config = _with(calls.known.config, calls.parent_id)
            yield "put", (config, calls.checkpoint, calls.metadata, calls.new_versions)
        for task in calls.after:
            yield "put_writes", (_PathConfig(calls, task), list(task.writes), task.task_id)

    def _detach(self, calls: _Calls) -> bool:
        """Replace the values that this commit changed by copies. False if one cannot be copied."""
        try:
            if calls.checkpoint is not None:
                for name in calls.changed:
                    copied = _copy(calls.checkpoint["channel_values"][name])
                    calls.checkpoint["channel_values"][name] = calls.known.values[name] = copied
            for task in (*calls.before, *calls.after):
                task.writes = [(channel, _copy(value)) for channel, value in task.writes]
        except Exception:  # noqa: BLE001 - whatever a copy raises, the answer is to wait instead
            return False
        return True


class _TaskOutcome(Outcome):
    """An outcome that a task of the running loop brings; holds the task, which the loop itself does not."""

    __slots__ = ("task",)

    task: asyncio.Task[None]


class _PathConfig(dict[str, Any]):
    """The config of a `put_writes` call, with the task's path beside it."""

    __slots__ = ("path",)

    def __init__(self, calls: _Calls, task: TaskWrites) -> None:
        super().__init__(_with(calls.known.config, task.checkpoint_id))
        self.path = task.path


_shared_serde = Serde()


def _copy(value: Any) -> Any:
    if value is None or type(value) in (str, int, float, bool, bytes):
        return value
    try:
        return _shared_serde.loads(_shared_serde.dumps(value))
    except (CheckpointError, TypeError):
        return copy.deepcopy(value)


def _same(value: Any) -> Any:
    return value


def _poison(calls: _Calls, error: BaseException) -> None:
    if calls.claim.poisoned is None:
        calls.claim.poisoned = error
        if not isinstance(error, CheckpointError):
            error.add_note(f"thread {calls.claim.thread_id!r}: step {calls.step} is not stored completely")


def _flat(batch: Sequence[Any]) -> list[_Calls]:
    steps: list[_Calls] = []
    for calls in batch:
        steps += _flat(calls.others)
        steps.append(calls)
    return steps


def _ids_of(claim: Claim) -> _Ids:
    if claim.memory is None:
        claim.memory = _Ids()
    known: _Ids = claim.memory
    return known


def _plain_config(config: RunnableConfig, thread_id: str, ns: str, checkpoint_id: str | None) -> RunnableConfig:
    """The user's config, addressed, without what the engine keeps in it."""
    configurable = {
        key: value
        for key, value in (config.get("configurable") or {}).items()
        if not key.startswith("__") and key not in ("checkpoint_id", "checkpoint_map")
    }
    configurable["thread_id"] = thread_id
    configurable["checkpoint_ns"] = ns
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    plain = config.copy()
    plain["configurable"] = configurable
    return plain


def _with(config: RunnableConfig, checkpoint_id: str | None) -> RunnableConfig:
    plain = config.copy()
    plain["configurable"] = dict(config.get("configurable") or {})
    if checkpoint_id is not None:
        plain["configurable"]["checkpoint_id"] = checkpoint_id
    return plain


def _is_under(up_id: str, entry: CheckpointTuple) -> bool | None:
    """Does a nested checkpoint work under this one? None: perhaps an older one does."""
    if up_id in (entry.metadata.get("parents") or {}).values():
        return True
    # What works under a checkpoint was made after it, and ids sort by time.
    return False if entry.checkpoint["id"] < up_id else None


def _first_under(up_id: str, entries: Iterator[CheckpointTuple]) -> CheckpointTuple | None:
    for entry in entries:
        verdict = _is_under(up_id, entry)
        if verdict is not None:
            return entry if verdict else None
    return None


def _everywhere(parent: LoadedCheckpoint) -> RunnableConfig:
    """All namespaces of a thread."""
    return {"configurable": {"thread_id": parent.claim.thread_id}}


class _Children:
    """Nested runs that have ended in the superstep that is open on a checkpoint, from a listing of all namespaces."""

    def __init__(self, up_id: str, up_ns: str) -> None:
        self.up_id = up_id
        self.up_ns = up_ns
        self.ended: dict[str, str] = {}
        """Stable namespace -> its newest checkpoint, or what a namespace of one call knows of it."""
        self._found: set[str] = set()
        self.under: dict[str, None] = {}
        """All namespaces of runs under it, as an ordered set."""

    def are_found_with(self, entry: CheckpointTuple) -> bool:
        """Take the next older checkpoint; are there no more of them behind it?"""
        ns = entry.config.get("configurable", {}).get("checkpoint_ns") or ""
        verdict = _is_under(self.up_id, entry)
        if verdict and ns not in self.under:
            self.under[ns] = None
            if ":" not in ns and not any(
                channel in (ERROR, INTERRUPT) and says_something(value)
                for _, channel, value in entry.pending_writes or ()
            ):
                self.ended[ns] = entry.checkpoint["id"]
                self._found.add(ns)
            elif ":" in ns and isinstance(known := (entry.metadata or {}).get(SUB_KEY), str):
                # It knows what ended before its own open superstep.
                for name, id_ in json.loads(known).items():
                    if name not in self._found:
                        self.ended[name] = max(id_, self.ended.get(name, ""))
        # What the namespace held before was stored before. (Others may be stored later than they were made: `exit`.)
        return ns == self.up_ns and entry.checkpoint["id"] < self.up_id


def _task_writes(
    rev: int, checkpoint_id: str, pending: Sequence[Any], rebuild: Callable[[Any], Any]
) -> list[TaskWrites]:
    """Pending writes by task; regular ones together, in the order the saver gave them."""
    regular: dict[str, TaskWrites] = {}
    tasks: list[TaskWrites] = []
    for task_id, channel, value in pending:
        slot = WRITES_IDX_MAP.get(channel, 0)
        write = (channel, rebuild(value))
        if slot:
            tasks.append(TaskWrites(rev, checkpoint_id, task_id, "", slot, [write]))
        elif task_id in regular:
            regular[task_id].writes = [*regular[task_id].writes, write]
        else:
            regular[task_id] = TaskWrites(rev, checkpoint_id, task_id, "", 0, [write])
            tasks.append(regular[task_id])
    return tasks


def _implements(saver: Any, name: str) -> bool:
    """Has the saver this method, other than as the base class's refusal?"""
    if name in getattr(saver, "__dict__", ()):
        return True
    for cls in type(saver).__mro__:
        if name in vars(cls):
            return cls.__name__ != "BaseCheckpointSaver"
    return hasattr(saver, name)
