"""The saver interface over rows: what is the same whether rows live in dicts or in a file.

Decides the rules of the public interface (storage.md C3.1): what `get_tuple`, `list`, `put` and `put_writes` mean,
where a nested run starts (C5.3), and what is done to whole threads. Does not know where rows are: a saver gives it `Rows`
to read from and a `Transaction` to write to (`checkpoint.rows`). The native half that must be fast (`write`, `submit`) is
the saver's own.

Invariants
1. Reading changes nothing and holds nothing between two pages of a listing.
2. Everything returned is a private copy.
3. A public `put` takes the next claim number of the thread, so a run that holds the thread is fenced from then on.

Source: LangGraph's documented saver interface (persistence.md A3) for names; design.md D25, D51, D57 for the rules.
"""

from __future__ import annotations

import builtins
import importlib
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from itertools import count
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, Self, TypeVar, cast

from typing_extensions import ParamSpec

from checkpoint import ids, retention
from checkpoint.base import (
    INTERRUPT,
    N_BITS,
    NUMBER_SHIFT,
    WRITES_IDX_MAP,
    Ack,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointConflictError,
    CheckpointMetadata,
    CheckpointNotFoundError,
    CheckpointTuple,
    Claim,
    CorruptCheckpointError,
    Durability,
    EncodedCommit,
    LoadedCheckpoint,
    OpenStep,
    Problem,
    Repair,
    RunnableConfig,
    Stats,
    StepCommit,
    TaskWrites,
    ThreadBusyError,
    ThreadDeletedError,
    UnknownTypeError,
    Version,
    check_number,
    get_checkpoint_metadata,
    namespaces_above,
    next_version,
)
from checkpoint.chains import (
    INLINE_LIMIT,
    PARENT_PRUNED,
    PUBLIC_PUT,
    REPLACED,
    SOURCES,
    THINNED,
    CheckpointRow,
    Codec,
    EncodedStep,
    PayloadRow,
    Space,
    cut,
    encode_commit,
    encode_task,
    free_chains,
    is_large,
    json_text,
    known_chains,
    read_task,
)
from checkpoint.encryption import EncryptedRows
from checkpoint.forks import commit_of_fork, config_of_fork, nothing_to_fork
from checkpoint.headers import Header, fold, full_header
from checkpoint.holders import Hold, Holders
from checkpoint.listing import Listing
from checkpoint.peek import Peeker
from checkpoint.repair import repair
from checkpoint.rewrap import Rewrapping
from checkpoint.rows import (
    Address,
    Found,
    Mender,
    Nested,
    Rows,
    Stored,
    Transaction,
    addressed,
    check_above,
    check_still_there,
    checked_limit,
    claim_of,
    config_of,
    decoded,
    ended,
    ends_lane,
    existing,
    loaded_from,
    nested_under,
    placed,
    row_metadata,
    stored_at,
)
from checkpoint.scan import EncryptedScan, Scan
from checkpoint.stats import Count
from checkpoint.verify import Verification

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

HistoryWrites = Literal["keep", "drop"]
"""Whether what the tasks of a superstep wrote is kept beside the checkpoint it led to. It is what a history shows as the
results of tasks, and about 40 % of a file; nothing that runs needs it."""

THREADS_PAGE: Final = 500
Progress = Callable[[int, int], None]
"""Told how many threads and rows were looked at so far."""
FORMAT_VERSION: Final = 4
"""`Checkpoint["v"]` of what the engine stores."""
_FIELDS: Final = frozenset({"id", "ts", "channel_values", "channel_versions", "versions_seen", "updated_channels"})


class RowSaver(BaseCheckpointSaver[int]):
    """A saver whose rows a subclass keeps. Both APIs; the async methods go through `_off_loop`."""

    native_commit: ClassVar[bool] = True
    _batch: ClassVar[int] = retention.ROWS_PER_TRANSACTION
    """Rows that a transaction of a prune may change."""
    _maps: ClassVar[bool] = False
    """Does it give bodies away when they are stored, and call `release`? Then large ones may be mapped."""

    def __init__(
        self,
        *,
        serde: Any = None,
        max_checkpoint_lag: int = 1,
        history_writes: HistoryWrites = "keep",
        retention: retention.Retention | None = None,
    ) -> None:
        super().__init__(serde=serde)
        if history_writes not in ("keep", "drop"):
            raise ValueError(f"history_writes must be 'keep' or 'drop', got {history_writes!r}")
        self._drops = history_writes == "drop"
        self._keeper = _keeper_of(retention)
        # On the instance also if it is the shared one: `encode` looks at it each time.
        self.serde = self.serde
        self.max_checkpoint_lag = max_checkpoint_lag
        self.holders = Holders()
        self._lanes = threading.Lock()
        self._made_codec = Codec(self.serde, maps=self._maps)

    def _codec(self) -> Codec:
        # `serde` is a plain attribute: programs replace it.
        if self._made_codec.serde is not self.serde:
            self._made_codec = Codec(self.serde, maps=self._maps)
        return self._made_codec

    def _opened(self, rows: R) -> R:
        """The rows as everything here reads and writes them; a subclass gives its rows through this."""
        encrypting = self._codec().encrypting
        return rows if encrypting is None else cast("R", EncryptedRows(rows, encrypting))

    def _make_version(self, current: Version | None) -> Version:
        # A subclass with an own `get_next_version` may count in any kind of version.
        return self.get_next_version(current, None)  # type: ignore[arg-type]

    # What a subclass gives.

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Rows]:
        """One consistent view."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Transaction]:
        """One durable transaction; rolled back if the block raises."""

    @abstractmethod
    def _scanning(self) -> AbstractContextManager[Scan]:
        """One consistent view for tools that look at everything."""

    @abstractmethod
    def _mending(self) -> AbstractContextManager[tuple[Scan, Mender]]:
        """One transaction to repair in, and the view that it has."""

    @abstractmethod
    async def _off_loop(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a reading call where it may block."""

    @abstractmethod
    async def _off_loop_write(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a writing call where it may block; a cancelled caller learns of it after the call has ended."""

    def _settle(self, thread_id: str) -> None:
        """Wait until what was submitted for the thread is stored or refused."""

    def _settle_all(self) -> None:
        """Wait until all that was submitted is stored or refused."""

    @abstractmethod
    def _threads_of(self, run_ids: Sequence[str]) -> list[str]:
        """Threads that have checkpoints of these runs."""

    def _finish_removals(self) -> None:
        """Remove the rows of threads that have vanished, and give back their space if that is asked for."""

    @abstractmethod
    def write(self, batch: Sequence[EncodedCommit], *, durability: Durability) -> None:
        """Store the batch in one transaction; durable in the sense of `durability` when it returns."""

    @abstractmethod
    def submit(self, encoded: EncodedCommit) -> Ack | None:
        """Store soon, after everything submitted for the thread before. None: it is stored already."""

    def close(self) -> None:
        """Finish what is under way and give everything back. Safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Native interface.

    def encode(self, commit: StepCommit) -> EncodedStep:
        """Bytes of a commit. CPU only. Raises `UnregisteredTypeError` for a value that cannot be stored."""
        if commit.claim.lane:
            _keep_to_lane(commit)
        codec = self._made_codec
        return encode_commit(commit, codec if codec.serde is self.serde else self._codec(), drops=self._drops)

    def is_large(self, commit: StepCommit) -> bool:
        """May `encode` take more than about a millisecond?"""
        return is_large(commit)

    async def aencode(self, commit: StepCommit) -> EncodedStep:
        """`encode`, on a thread of its own. A caller that is cancelled learns of it after the end."""
        encoded: EncodedStep = await self._encoder.post(partial(self._encode_gently, commit)).shielded()
        return encoded

    def _encode_gently(self, commit: StepCommit) -> EncodedStep:
        if "encode" in vars(self) or type(self).encode is not RowSaver.encode:
            return self.encode(commit)
        if commit.claim.lane:
            _keep_to_lane(commit)
        return encode_commit(commit, self._codec().gentle(), drops=self._drops)

    @cached_property
    def _encoder(self) -> Any:
        # The module loads asyncio, which most programs with a saver in memory do without.
        return importlib.import_module("checkpoint.workers").Worker("checkpoint-encoder")

    def commit(self, commit: StepCommit, *, durability: Durability = "sync") -> None:
        """Encode and write one commit."""
        self.write([self.encode(commit)], durability=durability)

    async def acommit(self, commit: StepCommit, *, durability: Durability = "sync") -> None:
        """Async form of `commit`."""
        await self.awrite([self.encode(commit)], durability=durability)

    async def awrite(self, batch: Sequence[EncodedCommit], *, durability: Durability) -> None:
        """Async form of `write`."""
        await self._off_loop_write(self.write, batch, durability=durability)

    def open_lane(self, claim: Claim) -> None:
        """Let the run of a claim go on beside the thread's holder, as `NativeSaver.open_lane`.

        Raises:
            ThreadDeletedError: the thread is gone.
        """
        with self._lanes:
            if claim.lane:
                return
            with self._writing() as tx:
                taken = tx.take_lane(claim.thread_id, claim.thread_pk, claim.salt)
            if taken is None:
                raise ThreadDeletedError(
                    f"thread {claim.thread_id!r} was deleted while a run was writing it; nothing of it was stored; "
                    f"start a new run to create the thread again",
                    thread_id=claim.thread_id,
                )
            check_number(claim.thread_id, taken[2])
            claim.open_lane(*taken)
            claim.memory = None
            for space in claim.spaces.values():
                cut(space)

    async def aopen_lane(self, claim: Claim) -> None:
        """Async form of `open_lane`."""
        await self._off_loop_write(self.open_lane, claim)

    def release(self, claim: Claim) -> None:
        """Nothing: there are leases only where several processes write."""

    async def arelease(self, claim: Claim) -> None:
        """Async form of `release`."""
        if claim.lease is not None or claim.poisoned is not None:
            await self._off_loop_write(self.release, claim)

    def _busy(self, thread_id: str, address: Address) -> ThreadBusyError | None:
        """Why nobody of this process may take the thread now, if it is so."""
        return None

    def load(
        self,
        config: RunnableConfig,
        *,
        claim: Claim | None = None,
        up_rev: int | None = None,
        at_rev: int | None = None,
    ) -> LoadedCheckpoint:
        """The checkpoint to start from, and the claim under which it may be continued.

        Without a claim: by `checkpoint_id` if the config has one, else the newest of the namespace. With the claim of
        the root run: the first that exists of the newest checkpoint whose `up_rev` is the given one, `at_rev`, nothing.
        """
        thread_id, ns, checkpoint_id = addressed(config)
        self._settle(thread_id)
        with placed(thread_id, ns):
            nested: Sequence[Nested] = ()
            with self._reading() as rows:
                address = rows.address(thread_id, ns)
                found: Found | None = None
                if address is not None and address.space_pk is not None:
                    rev: int | None = None
                    if checkpoint_id is not None:
                        found = self._find(rows, address, checkpoint_id)
                    elif claim is None:
                        rev = address.head
                    else:
                        if up_rev is not None:
                            rev = rows.open_child(address.space_pk, up_rev, claim.lane_number())
                        if rev is None:
                            rev = at_rev
                    if rev is not None:
                        if rev == at_rev and up_rev is not None:
                            check_still_there(rows, thread_id, ns, address.space_pk, rev, up_rev)
                        found = existing(rows, address.space_pk, rev)
                if claim is None:
                    claim = self._claim(thread_id, address)
                if address is None or found is None:
                    claim.spaces[ns] = Space(
                        ns, pk=address.space_pk if address else None, head=address.head if address else None
                    )
                    return LoadedCheckpoint(claim, ns, is_head=address is None or address.head is None)
                check_above(rows, thread_id, ns, found)
                stored = stored_at(rows, thread_id, ns, address.space_pk, found)
                header = stored.header
                is_head = header.rev == address.head
                may_go_on = is_head or ends_lane(rows, address.space_pk, found)
                if may_go_on and any(task.slot == 0 for task in stored.tasks):
                    nested = [*nested_under(rows, thread_id, found.row.rev)]
            values, writes = decoded(stored, self._codec())
            loaded = loaded_from(claim, ns, found, header, values, writes, may_go_on)
            loaded.open_sub = ended(nested, self._codec())
        if claim.make_version is None and isinstance(next(iter(header.versions.values()), None), str):
            claim.make_version = next_version
        chains = known_chains(header, stored.chains, values)
        space = Space(ns, address.space_pk, address.head, header=header, chains=chains)
        free_chains(stored.chains)
        space.has_writes = any(task.slot == 0 for task in writes)
        if not is_head:
            # Somebody else may extend that header chain: the first header of this line is full.
            header.n_rows = 0
            space.must_exist = header.rev
        if claim.lane:
            cut(space)
        claim.spaces[ns] = space
        return loaded

    def _claim(self, thread_id: str, address: Address | None) -> Claim:
        """The claim of a run that starts from what is stored, which another process may keep from it."""
        claim = claim_of(thread_id, address)
        if address is not None and address.lease_until is not None:
            claim.busy = self._busy(thread_id, address)
        if type(self).get_next_version is not BaseCheckpointSaver.get_next_version:
            claim.make_version = self._make_version
        return claim

    async def aload(
        self,
        config: RunnableConfig,
        *,
        claim: Claim | None = None,
        up_rev: int | None = None,
        at_rev: int | None = None,
    ) -> LoadedCheckpoint:
        """Async form of `load`."""
        return await self._off_loop(self.load, config, claim=claim, up_rev=up_rev, at_rev=at_rev)

    def nested(self, parent: LoadedCheckpoint) -> list[str]:
        """Namespaces of the nested runs that work directly under a checkpoint, in no order."""
        with self._reading() as rows:
            return [ns for ns, _, _ in rows.children(parent.claim.thread_id, parent.rev)]

    async def anested(self, parent: LoadedCheckpoint) -> list[str]:
        """Async form of `nested`."""
        return await self._off_loop(self.nested, parent)

    def history(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        channels: Collection[str] | None = None,
    ) -> Iterator[LoadedCheckpoint]:
        """Checkpoints of one namespace, newest first; never holds a lock over a yield."""
        listing = Listing(self, config, filter, before, limit, native=True, channels=channels)
        while not listing.done:
            yield from listing.page()

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
        listing = Listing(self, config, filter, before, limit, native=True, channels=channels)
        while not listing.done:
            for entry in await self._off_loop(listing.page):
                yield entry

    def last_of_run(self, config: RunnableConfig, run_id: str) -> str | None:
        """Id of the newest checkpoint that a run stored in the config's thread and namespace; None if there is none."""
        thread_id, ns, _ = addressed(config)
        self._settle(thread_id)
        with placed(thread_id, ns), self._reading() as rows:
            address = rows.address(thread_id, ns)
            if address is None or address.space_pk is None:
                return None
            rev = rows.last_of_run(address.space_pk, run_id)
            return None if rev is None else existing(rows, address.space_pk, rev).row.id

    async def alast_of_run(self, config: RunnableConfig, run_id: str) -> str | None:
        """Async form of `last_of_run`."""
        return await self._off_loop(self.last_of_run, config, run_id)

    # Public interface.

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The addressed checkpoint with metadata and pending writes, or None. Private copies."""
        thread_id, ns, checkpoint_id = addressed(config)
        self._settle(thread_id)
        with placed(thread_id, ns):
            with self._reading() as rows:
                address = rows.address(thread_id, ns)
                if address is None or address.space_pk is None:
                    return None
                if checkpoint_id is not None:
                    found = self._find(rows, address, checkpoint_id)
                else:
                    found = existing(rows, address.space_pk, address.head) if address.head is not None else None
                if found is None:
                    return None
                check_above(rows, thread_id, ns, found)
                stored = stored_at(rows, thread_id, ns, address.space_pk, found)
            shown = self._tuple(stored)
        return shown if checkpoint_id is None else shown._replace(config=config)

    def open_step(self, config: RunnableConfig) -> OpenStep | None:
        """What the tasks after the newest checkpoint of a namespace have stored; None if nothing is stored there.

        Reads no channel. Writes with values of unknown types come back with `Opaque` in them.
        """
        thread_id, ns, _ = addressed(config)
        self._settle(thread_id)
        with placed(thread_id, ns):
            with self._reading() as rows:
                address = rows.address(thread_id, ns)
                if address is None or address.space_pk is None or address.head is None:
                    return None
                row = existing(rows, address.space_pk, address.head).row
                tasks = rows.tasks(address.space_pk, row.rev)
            writes: builtins.list[TaskWrites] = []
            for task in tasks:
                try:
                    writes.append(read_task(task, self._codec(), row.id))
                except UnknownTypeError:
                    writes.append(read_task(task, self._codec(), row.id, lenient=True))
        return OpenStep(row.id, row.ts if isinstance(row.ts, str) else ids.timestamp_from_us(row.ts), writes)

    async def aopen_step(self, config: RunnableConfig) -> OpenStep | None:
        """Async form of `open_step`."""
        return await self._off_loop(self.open_step, config)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first: within a thread by rev over all its namespaces, across threads by id text.

        Reads pages of 50 and holds nothing in between. Values of unknown types come back as `Opaque`. Raises
        `ValueError` for a limit that is neither None nor an int of at least 0.
        """
        checked_limit(limit)
        return self._list(config, filter, before, limit)

    def _list(
        self,
        config: RunnableConfig | None,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Iterator[CheckpointTuple]:
        listing = Listing(self, config, filter, before, limit, native=False)
        while not listing.done:
            yield from listing.page()

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint whose parent is the config's `checkpoint_id`; returns the config that addresses it.

        Takes the thread: a run that holds it is refused at its next write. Every value of `channel_values` is stored
        that the parent does not hold under the same version. An id that exists is replaced and keeps its parent.
        """
        thread_id, ns, parent_id = addressed(config)
        merged = get_checkpoint_metadata(config, metadata)
        self._settle(thread_id)
        with placed(thread_id, ns), self._writing() as tx:
            thread_pk = self._put(tx, thread_id, ns, parent_id, checkpoint, merged, new_versions)
            if self._keeper is not None:
                self._keeper.take(tx, thread_pk, time.time())
        return config_of(thread_id, ns, checkpoint["id"])

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
        *,
        replace: bool = False,
    ) -> None:
        """Store what a task wrote under the config's checkpoint.

        All regular writes of a task are one record: the first call wins, unless `replace`. Of special writes the last
        wins. Raises `CheckpointNotFoundError` if the checkpoint is not stored.
        """
        thread_id, ns, checkpoint_id = addressed(config)
        if checkpoint_id is None:
            raise ValueError(
                f"put_writes: the config of thread {thread_id!r} has no 'checkpoint_id'; task writes belong to the "
                f"checkpoint their step started from; pass its id"
            )
        self._settle(thread_id)
        with placed(thread_id, ns), self._writing() as tx:
            address = tx.address(thread_id, ns)
            found = self._find(tx, address, checkpoint_id) if address and address.space_pk is not None else None
            if address is None or found is None:
                raise CheckpointNotFoundError(
                    f"put_writes: thread {thread_id!r} has no checkpoint {checkpoint_id!r} in namespace {ns!r}; put "
                    f"the checkpoint before the writes of its tasks",
                    thread_id=thread_id,
                    checkpoint_id=checkpoint_id,
                )
            rev = found.row.rev
            regular = [write for write in writes if write[0] not in WRITES_IDX_MAP]
            special = {channel: value for channel, value in writes if channel in WRITES_IDX_MAP}
            tasks = [TaskWrites(rev, checkpoint_id, task_id, task_path, 0, regular)] if regular else []
            for channel, value in special.items():
                slot = WRITES_IDX_MAP[channel]
                tasks.append(TaskWrites(rev, checkpoint_id, task_id, task_path, slot, [(channel, value)]))
            rows = [encode_task(task, self._codec()) for task in tasks]
            if rows:
                tx.add_writes(address.space_pk, rows, replace=replace)

    def fork(self, config: RunnableConfig) -> RunnableConfig:
        """Make a checkpoint that goes on from the addressed one, and becomes the newest of its namespace; its config.

        The addressed one is that of the config's `checkpoint_id`, without it the newest. The new one has the source
        "fork" and the same values, of which nothing is copied, whatever their size. What was stored for the superstep
        after the addressed one is not taken over: its tasks run again. Takes the thread, as a run does.

        Raises:
            CheckpointNotFoundError: it is not stored.
            ThreadBusyError: a run is executing on the thread, or another process has a lease on it.
            CheckpointConflictError: another process wrote the thread at the same time.
        """
        thread_id, _, _ = addressed(config)
        # Who asks for what is not there disturbs nobody.
        run_id = self._forked(config).run_id
        hold = Hold(self.holders, thread_id, run_id)
        holder = self.holders.take(hold)
        if holder is not None:
            raise ThreadBusyError(
                f"fork: a run (run_id {holder.run_id!r}) is executing on thread {thread_id!r}; nothing was stored; let it "
                f"end first, or copy the thread and fork the copy",
                thread_id=thread_id,
                run_id=run_id,
                owner_run_id=holder.run_id,
            )
        try:
            commit = self._forked(config)
            hold.claim = commit.claim
            hold.settle_evicted(commit.parent_id)
            try:
                self.write([self.encode(commit)], durability="sync")
            finally:
                self.release(commit.claim)
        finally:
            hold.release()
        return config_of_fork(commit)

    def _forked(self, config: RunnableConfig) -> StepCommit:
        """The commit of a fork, under a claim of its own."""
        thread_id, ns, checkpoint_id = addressed(config)
        self._settle(thread_id)
        with placed(thread_id, ns), self._reading() as rows:
            address = rows.address(thread_id, ns)
            found: Found | None = None
            if address is not None and address.space_pk is not None:
                if checkpoint_id is not None:
                    found = self._find(rows, address, checkpoint_id)
                elif address.head is not None:
                    found = existing(rows, address.space_pk, address.head)
            if address is None or found is None:
                raise nothing_to_fork(config)
            check_above(rows, thread_id, ns, found)
            return commit_of_fork(rows, config, self._claim(thread_id, address), address, found)

    async def afork(self, config: RunnableConfig) -> RunnableConfig:
        """Async form of `fork`."""
        return await self._off_loop_write(self.fork, config)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Async form of `get_tuple`."""
        return await self._off_loop(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Async form of `list`."""
        checked_limit(limit)
        listing = Listing(self, config, filter, before, limit, native=False)
        while not listing.done:
            for entry in await self._off_loop(listing.page):
                yield entry

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Async form of `put`."""
        return await self._off_loop_write(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
        *,
        replace: bool = False,
    ) -> None:
        """Async form of `put_writes`."""
        # An override may know fewer parameters: it is given only those that say something.
        if replace:
            await self._off_loop_write(self.put_writes, config, writes, task_id, task_path, replace=True)
        elif task_path:
            await self._off_loop_write(self.put_writes, config, writes, task_id, task_path)
        else:
            await self._off_loop_write(self.put_writes, config, writes, task_id)

    # Whole threads, and what of them is kept (storage.md C10).

    def delete_thread(self, thread_id: str, *, erase: bool = False) -> None:
        """Remove a thread with all its namespaces. Unknown threads are ignored; a late writer is refused.

        `erase`: leave no trace of it in the file and its log either, as far as the saver reaches them.
        """
        thread_id = str(thread_id)
        self._settle(thread_id)
        with self._writing() as tx:
            address = tx.address(thread_id, "")
            if address is not None:
                tx.retire(address.thread_pk)
            else:
                # Its time may be over, and its bytes still there.
                tx.retire_expired(thread_id)
        self._finish_removals()

    def copy_thread(self, source_thread_id: str, target_thread_id: str, *, overwrite: bool = False) -> None:
        """Copy all checkpoints of one thread to another, in one transaction. An unknown source is ignored.

        Ids and task writes are the same in the copy. The source may be running. Raises `CheckpointConflictError` if
        the target is stored already, unless `overwrite`: then it is deleted first, and a run on it is refused;
        `ValueError` if both are one.
        """
        source_id, target_id = str(source_thread_id), str(target_thread_id)
        if source_id == target_id:
            raise ValueError(
                f"copy_thread: thread {source_id!r} is to be copied to itself; give the copy an id of its own"
            )
        self._settle(source_id)
        self._settle(target_id)
        with self._writing() as tx:
            source, target = tx.address(source_id, ""), tx.address(target_id, "")
            if source is None:
                return
            if target is not None and not overwrite:
                raise CheckpointConflictError(
                    f"copy_thread: thread {target_id!r} has checkpoints already; delete it first, choose another id, or "
                    f"pass overwrite=True",
                    thread_id=target_id,
                )
            if target is not None:
                tx.retire(target.thread_pk)
            copy_pk = tx.copy(source.thread_pk, target_id)
            if self._keeper is not None:
                self._keeper.take(tx, copy_pk, time.time())
        if target is not None:
            self._finish_removals()

    def prune(
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
        keep: int = 1,
        older_than: float | None = None,
        keep_forks: bool = True,
        compact: bool = False,
    ) -> int:
        """Remove old checkpoints of threads; returns how many. Unknown threads are ignored.

        `"keep_latest"` leaves in each namespace the newest `keep` checkpoints on the line that leads to its newest one.
        Whatever a resume needs stays as well: checkpoints with an unanswered question, the nested checkpoints that kept
        ones build on. Checkpoints of lanes stay likewise, unless `keep_forks` is false. With `older_than`, which is in
        seconds, only what was made longer ago goes: younger checkpoints stay, on whatever branch they are. Time travel
        to a checkpoint that is gone finds nothing, and a run that had loaded one fails at its next write with
        `CheckpointNotFoundError`; no other run is disturbed. `"delete"` removes the threads.

        `compact` also stores what is left in as few rows as possible. It takes the thread: a run that holds it is
        refused at its next write.

        Works in transactions of 2,000 rows at most (`compact`: one per namespace), after each of which every checkpoint
        that is still there can be read. Raises `ValueError` for an unknown strategy, `keep` below 1, or `older_than` not
        above 0.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"prune: strategy is {strategy!r}; it must be 'keep_latest' or 'delete'")
        since: int | None = None
        if retention.checked_seconds("prune: older_than", older_than) is not None:
            assert older_than is not None
            since = ids.now_us() - int(older_than * 1_000_000)
        rule = retention.Rule(retention.checked_keep("prune: keep", keep), keep_forks, since=since)
        n_removed = 0
        for thread_id in _texts("prune", "thread_ids", thread_ids):
            self._settle(thread_id)
            if strategy == "delete":
                n_removed += self._n_checkpoints(thread_id)
                self.delete_thread(thread_id)
                continue
            n_removed += self._change(thread_id, partial(_pruning, rule))
            if compact:
                self._compact(thread_id)
        self._finish_removals()
        return n_removed

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints of these runs, with their task writes. Unknown ids are ignored.

        All other checkpoints stay, and so do the values that they took over. A question of another run that one of
        these answered is open again; what else they wrote for a step that another run had opened stays. Takes the
        threads: a run that holds one is refused at its next write. Where a newest checkpoint is removed, the newest that
        is left on its line takes its place; a thread of which nothing is left is deleted.
        """
        wanted = _texts("delete_for_runs", "run_ids", run_ids)
        if not wanted:
            return
        self._settle_all()
        thread_ids = self._threads_of(wanted)
        for thread_id in thread_ids:
            self._settle(thread_id)
            self._change(thread_id, partial(_without_runs, thread_id, set(wanted)))
        self._finish_removals()

    def expire(self, limit: int = 100) -> int:
        """Remove up to `limit` threads whose time to live is over; returns how many. They are invisible already."""
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
            raise ValueError(f"expire: limit is {limit!r}; it must be an int of at least 0")
        with self._writing() as tx:
            n_expired = tx.expire(limit)
        self._finish_removals()
        return n_expired

    def vacuum(self) -> None:
        """Give the space of what was removed back to the operating system."""

    def _change(self, thread_id: str, plan: Callable[[Transaction, Address], Any]) -> int:
        """Carry out a plan in as many transactions as it takes; made again if anybody wrote in between."""
        n_removed = 0
        jobs: deque[Any] = deque()
        stamp: Any = None
        is_planned = False
        while jobs or not is_planned:
            with self._writing() as tx, placed(thread_id, None):
                if stamp is None or tx.stamp() != stamp:
                    address = tx.address(thread_id, "")
                    if address is None:
                        break
                    jobs, is_planned = plan(tx, address), True
                n_removed += retention.work(tx, jobs, self._batch)
                stamp = tx.stamp()
        return n_removed

    def _compact(self, thread_id: str) -> None:
        codec = self._codec()
        done: set[str] = set()
        while True:
            with self._writing() as tx, placed(thread_id, None):
                address = tx.address(thread_id, "")
                spaces = retention.read_lines(tx, address.thread_pk) if address is not None else []
                space = next((space for space in spaces if space.ns not in done), None)
                if address is None or space is None:
                    return
                done.add(space.ns)
                tx.take(thread_id, address.salt)
                roots = count((address.claims + 1) << NUMBER_SHIFT | 1)
                retention.compact(tx, space, codec, roots)

    def _n_checkpoints(self, thread_id: str) -> int:
        with self._reading() as rows:
            return len(rows.entries(thread_id, None, None, None))

    async def adelete_thread(self, thread_id: str, *, erase: bool = False) -> None:
        """Async form of `delete_thread`."""
        # An override may know fewer parameters.
        await self._off_loop_write(partial(self.delete_thread, thread_id, **({"erase": True} if erase else {})))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str, *, overwrite: bool = False) -> None:
        """Async form of `copy_thread`."""
        more = {"overwrite": True} if overwrite else {}
        await self._off_loop_write(partial(self.copy_thread, source_thread_id, target_thread_id, **more))

    async def aprune(
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
        keep: int = 1,
        older_than: float | None = None,
        keep_forks: bool = True,
        compact: bool = False,
    ) -> int:
        """Async form of `prune`."""
        # An override may know fewer parameters.
        more: dict[str, Any] = {} if older_than is None else {"older_than": older_than}
        return await self._off_loop_write(
            partial(
                self.prune, thread_ids, strategy=strategy, keep=keep, keep_forks=keep_forks, compact=compact, **more
            )
        )

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Async form of `delete_for_runs`."""
        await self._off_loop_write(self.delete_for_runs, run_ids)

    async def aexpire(self, limit: int = 100) -> int:
        """Async form of `expire`."""
        return await self._off_loop_write(self.expire, limit)

    async def avacuum(self) -> None:
        """Async form of `vacuum`."""
        await self._off_loop_write(self.vacuum)

    # What is stored, and is it sound?

    def thread_ids(self) -> Iterator[str]:
        """Ids of all threads, the oldest first. Reads pages and holds nothing in between."""
        after: Any = None
        while True:
            with self._scanning() as scan:
                page = scan.threads(after, THREADS_PAGE)
            if not page:
                return
            yield from (thread.thread_id for thread in page)
            after = page[-1].key

    async def athread_ids(self) -> AsyncIterator[str]:
        """Async form of `thread_ids`."""
        found = self.thread_ids()
        while (thread_id := await self._off_loop(next, found, None)) is not None:
            yield thread_id

    def heads(self, wanted: Callable[[str], bool]) -> Iterator[builtins.list[LoadedCheckpoint]]:
        """The newest root checkpoint of every thread, in pages, the oldest thread first: for looking, not for going on.

        Only the values of `wanted` channels are read (`checkpoint.peek`). Holds nothing between two pages.
        """
        after: Any = None
        while True:
            page, after = self._heads(after, wanted)
            if after is None:
                return
            yield page

    async def aheads(self, wanted: Callable[[str], bool]) -> AsyncIterator[builtins.list[LoadedCheckpoint]]:
        """Async form of `heads`."""
        after: Any = None
        while True:
            page, after = await self._off_loop(self._heads, after, wanted)
            if after is None:
                return
            yield page

    def _heads(self, after: Any, wanted: Callable[[str], bool]) -> tuple[builtins.list[LoadedCheckpoint], Any]:
        """A page, and the key of its last thread; None after the end."""
        if after is None:
            self._settle_all()
        with self._reading() as rows:
            peeker = Peeker(rows, self._codec(), wanted)
            page, last = peeker.heads(after)
        return [peeker.loaded(read) for read in page], last

    def peek(
        self, config: RunnableConfig, *, claim: Claim, up_rev: int, wanted: Callable[[str], bool]
    ) -> LoadedCheckpoint | None:
        """The newest checkpoint of a nested namespace that works under `up_rev` of what `heads` gave this claim with."""
        thread_id, ns, _ = addressed(config)
        with self._reading() as rows:
            peeker = Peeker(rows, self._codec(), wanted)
            read = peeker.below(thread_id, ns, up_rev)
        return None if read is None else peeker.loaded(read)

    async def apeek(
        self, config: RunnableConfig, *, claim: Claim, up_rev: int, wanted: Callable[[str], bool]
    ) -> LoadedCheckpoint | None:
        """Async form of `peek`."""
        return await self._off_loop(self.peek, config, claim=claim, up_rev=up_rev, wanted=wanted)

    def verify(
        self, config: RunnableConfig | None = None, *, deep: bool = False, progress: Progress | None = None
    ) -> builtins.list[Problem]:
        """Everything that is wrong with a thread (its namespaces all together), or with all threads; empty if nothing.

        One fault is one problem, at the oldest checkpoint that needs what is damaged. `deep` also decodes every value,
        without making objects of the program's classes, and lets the store check its file. Reads everything once, in
        many short views: runs may go on writing meanwhile, and what they write after the start may not be looked at.
        `progress` is called after each view with the threads and rows looked at so far.
        """
        run = self._verification(config, deep)
        while not run.done:
            self._look(run, progress)
        return run.problems

    async def averify(
        self, config: RunnableConfig | None = None, *, deep: bool = False, progress: Progress | None = None
    ) -> builtins.list[Problem]:
        """Async form of `verify`."""
        run = self._verification(config, deep)
        while not run.done:
            await self._off_loop(self._look, run, progress)
        return run.problems

    def _verification(self, config: RunnableConfig | None, deep: bool) -> Verification:
        thread_id = None if config is None else addressed(config)[0]
        return Verification(self._codec(), thread_id, deep=deep)

    def _scan_of(self, scan: Scan) -> Scan:
        encrypting = self._codec().encrypting
        return scan if encrypting is None else cast("Scan", EncryptedScan(scan, encrypting))

    def _look(self, run: Verification | Count, progress: Progress | None = None) -> None:
        if run.thread_id is not None:
            self._settle(run.thread_id)
        with self._scanning() as scan:
            run.step(self._scan_of(scan))
        if progress is not None:
            progress(run.n_threads, run.n_rows)

    def stats(self, config: RunnableConfig | None = None, *, top: int = 10, progress: Progress | None = None) -> Stats:
        """What a thread, or all of them, takes. Decodes no value; reads every header. `top`: threads that are named;
        `progress` as for `verify`."""
        run = self._count(config, top)
        while not run.done:
            self._look(run, progress)
        return run.stats()

    async def astats(
        self, config: RunnableConfig | None = None, *, top: int = 10, progress: Progress | None = None
    ) -> Stats:
        """Async form of `stats`."""
        run = self._count(config, top)
        while not run.done:
            await self._off_loop(self._look, run, progress)
        return run.stats()

    def _count(self, config: RunnableConfig | None, top: int) -> Count:
        if not isinstance(top, int) or isinstance(top, bool) or top < 0:
            raise ValueError(f"stats: top is {top!r}; it must be an int of at least 0")
        return Count(None if config is None else addressed(config)[0], top)

    def repair(self, config: RunnableConfig, *, to: Literal["nearest"] = "nearest") -> builtins.list[Repair]:
        """Make a damaged thread usable again; returns what was done, nothing if `verify(config, deep=True)` finds nothing.

        What cannot be read is removed, and what referred to it is led to the nearest checkpoint that can be read
        (`checkpoint.repair` has the rules): steps may be lost, no value is guessed. Takes the thread: a run that holds
        it is refused at its next write. One transaction; back the file up before. Raises `CorruptCheckpointError` if
        the store itself is damaged.
        """
        if to != "nearest":
            raise ValueError(f"repair: to is {to!r}; the only way there is is 'nearest'")
        thread_id, _, _ = addressed(config)
        if not self.verify(config, deep=True):
            return []
        with self._mending() as (scan, tx):
            thread = scan.thread(thread_id)
            if thread is None:
                return []
            tx.take(thread_id, thread.salt)
            return repair(self._scan_of(scan), self._opened(tx), thread, self._codec())

    async def arepair(self, config: RunnableConfig, *, to: Literal["nearest"] = "nearest") -> builtins.list[Repair]:
        """Async form of `repair`."""
        return await self._off_loop_write(self.repair, config, to=to)

    # Encryption.

    def rewrap(self, thread_id: str | None = None) -> int:
        """Encrypt what is stored again, with the key that the serializer writes with now. Returns how many rows were.

        Of one thread, or of all. Reads everything in pages of 500 rows, each of which is a transaction; runs go on
        meanwhile. After it has returned, former keys are needed for copies of the file only. Raises `ValueError` if the
        serializer does not encrypt, `CorruptCheckpointError` for a row that none of its keys opens.
        """
        encrypting = self._codec().encrypting
        if encrypting is None:
            raise ValueError(
                f"rewrap: the serializer of this saver is a {type(self.serde).__qualname__}, which does not encrypt; "
                f"give the saver an EncryptedSerializer"
            )
        with self._reading() as rows:
            spaces = rows.all_spaces(None if thread_id is None else str(thread_id))
        n_rows = 0
        for space_pk in spaces:
            rewrapping = Rewrapping(encrypting, space_pk)
            n_changed: int | None = 0
            while n_changed is not None:
                n_rows += n_changed
                with self._writing() as tx:
                    # The thread may have been deleted since.
                    stored = cast("EncryptedRows", tx).stored
                    n_changed = rewrapping.page(stored) if stored.has_space(space_pk) else None
        return n_rows

    async def arewrap(self, thread_id: str | None = None) -> int:
        """Async form of `rewrap`."""
        return await self._off_loop_write(self.rewrap, thread_id)

    # Rows to shapes.

    @staticmethod
    def _find(rows: Rows, address: Address, checkpoint_id: str) -> Found | None:
        # Our ids carry their rev; an id made elsewhere yields some number too, so the stored id decides.
        rev = ids.rev_of(checkpoint_id, address.salt)
        if rev is not None:
            found = rows.checkpoint(address.space_pk, rev)
            if found is not None and found.row.id == checkpoint_id:
                return found
        rev = rows.alias(address.space_pk, checkpoint_id)
        found = rows.checkpoint(address.space_pk, rev) if rev is not None else None
        if found is not None and found.row.id != checkpoint_id:
            raise CorruptCheckpointError(
                f"its alias leads to revision {rev}, which is {found.row.id!r}", checkpoint_id=checkpoint_id
            )
        return found

    def _tuple(self, stored: Stored, *, lenient: bool = False) -> CheckpointTuple:
        """A checkpoint as the public interface shows it. `lenient`: values of unknown types are opaque."""
        values, writes = decoded(stored, self._codec(), lenient=lenient)
        thread_id, ns, found, header, _, _ = stored
        row = found.row
        extra = {key: self._codec().unpack(*body) for key, body in header.extra.items()}
        checkpoint: dict[str, Any] = {
            "v": extra.pop("v", FORMAT_VERSION),
            "id": row.id,
            "ts": row.ts if isinstance(row.ts, str) else ids.timestamp_from_us(row.ts),
            "channel_values": values,
            "channel_versions": header.versions,
            "versions_seen": header.seen,
            "updated_channels": header.updated,
            **extra,
        }
        parent_id = row.parent_id or found.parent_id
        return CheckpointTuple(
            config_of(thread_id, ns, row.id),
            checkpoint,  # type: ignore[arg-type]
            row_metadata(row),  # type: ignore[arg-type]
            config_of(thread_id, ns, parent_id) if parent_id is not None else None,
            [(task.task_id, channel, value) for task in writes for channel, value in task.writes],
        )

    # Public put.

    def _put(
        self,
        tx: Transaction,
        thread_id: str,
        ns: str,
        parent_id: str | None,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Any:
        """Returns the thread's key."""
        address = tx.address(thread_id, ns)
        salt = address.salt if address is not None else ids.new_salt()
        number = (address.claims if address is not None else 0) + 1
        has_space = address is not None and address.space_pk is not None
        existing = self._find(tx, address, checkpoint["id"]) if address is not None and has_space else None
        parent = self._find(tx, address, parent_id) if address is not None and has_space and parent_id else None
        root = number << NUMBER_SHIFT | 1
        rev = existing.row.rev if existing is not None else root

        # Values: what the parent holds under the same version is shared, the rest is stored whole.
        base = Header(ns) if parent is None else fold(parent.headers, ns)
        versions = dict(checkpoint["channel_versions"])
        header = Header(ns, index=base.index, versions=versions, facts=base.facts)
        payloads: list[PayloadRow] = []
        for name, value in checkpoint["channel_values"].items():
            if name not in new_versions and name in versions and base.versions.get(name) == versions[name]:
                if name in base.inline:
                    header.inline[name] = base.inline[name]
                    continue
                if name in base.refs:
                    header.refs[name] = base.refs[name]
                    continue
            tag, data = self._codec().pack_channel(name, value)
            if len(data) <= INLINE_LIMIT:
                header.inline[name] = tag, data
            else:
                header.refs[name] = [root, 0]
                payloads.append((header.index[name], root, 0, 0, tag, data))
        header.seen = {node: dict(consumed) for node, consumed in checkpoint["versions_seen"].items()}
        updated = checkpoint.get("updated_channels")
        header.updated = list(updated) if updated is not None else None
        header.extra = {
            key: [*self._codec().pack(value)]
            for key, value in checkpoint.items()
            if key not in _FIELDS and not (key == "v" and value == FORMAT_VERSION)
        }
        source, step, run_id, text = _metadata_columns(metadata)
        ts = checkpoint["ts"]
        us = ids.timestamp_to_us(ts)
        parents = metadata.get("parents", {})
        up_id = next((parents[above] for above in namespaces_above(ns) if above in parents), None)
        row = CheckpointRow(
            rev,
            checkpoint["id"],
            existing.row.parent_rev if existing else parent.row.rev if parent else None,
            existing.row.parent_id if existing else parent_id if parent is None else None,
            tx.rev_in_thread(thread_id, up_id) if up_id is not None else None,
            ts if us is None else us,
            step,
            source,
            PUBLIC_PUT | REPLACED | existing.row.flags & (PARENT_PRUNED | THINNED) if existing else PUBLIC_PUT,
            run_id,
            rev,
            full_header(header, rev),
            text,
        )

        thread_pk = tx.take(thread_id, salt)
        space_pk = address.space_pk if address is not None and has_space else tx.open_space(thread_pk, ns)
        if existing is not None and existing.row.header_root is not None:
            self._cut_headers(tx, space_pk, existing)
        tx.add_payloads(space_pk, payloads)
        tx.put_checkpoint(space_pk, row)
        if existing is None:
            tx.set_head(space_pk, rev)
            if ids.rev_of(row.id, salt) != rev:
                tx.add_alias(space_pk, row.id, rev)
        return thread_pk

    @staticmethod
    def _cut_headers(tx: Transaction, space_pk: Any, existing: Found) -> None:
        """Make the headers after a row independent of it: the first becomes full, the others follow that one."""
        later = tx.later_headers(space_pk, existing.row.header_root, existing.row.rev)
        if not later:
            return
        first = later[0]
        # It may be a stub, which others build on as well.
        header = fold(tx.header_line(space_pk, existing.row.header_root, first))
        tx.set_header(space_pk, first, first, full_header(header, first))
        for rev in later[1:]:
            tx.set_header(space_pk, rev, first, None)


def _metadata_columns(metadata: CheckpointMetadata) -> tuple[int, int, str | None, str | None]:
    """(source, step, run id, JSON of the rest) of metadata given to a public put."""
    rest: dict[str, Any] = dict(metadata)
    source, step = SOURCES.get(rest.get("source") or "", 0), rest.get("step")
    if source and isinstance(step, int) and not isinstance(step, bool):
        del rest["source"], rest["step"]
    else:
        source, step = 0, 0
    run_id = rest.get("run_id")
    if isinstance(run_id, str):
        del rest["run_id"]
    else:
        run_id = None
    return source, step, run_id, json_text(rest) if rest else None


def _keeper_of(policy: retention.Retention | None) -> retention.Keeper | None:
    return None if policy is None else retention.Keeper(policy)


def _texts(call: str, name: str, given: Sequence[str]) -> list[str]:
    """The ids of a call, each once. Raises `TypeError` for one id where a sequence of them belongs."""
    if isinstance(given, (str, bytes)):
        raise TypeError(f"{call}: {name} is {given!r}; it must be a sequence of ids; pass [{given!r}]")
    return list(dict.fromkeys(map(str, given)))


def _pruning(rule: retention.Rule, tx: Transaction, address: Address) -> Any:
    return retention.decide(tx, address.thread_pk, rule)


def _without_runs(thread_id: str, run_ids: Collection[str], tx: Transaction, address: Address) -> Any:
    """The jobs that remove the checkpoints of some runs from a thread, which is taken."""
    spaces = retention.read_lines(tx, address.thread_pk)
    doomed = retention.runs_in(spaces, run_ids)
    if not doomed:
        return deque()
    if all(doomed.issuperset(space.visible) for space in spaces):
        return deque((retention.Retire(address.thread_pk),))
    tx.take(thread_id, address.salt)
    return retention.without_runs(tx, spaces, doomed)


def _keep_to_lane(commit: StepCommit) -> None:
    """Leave out task writes under checkpoints that the lane shares with others: they would take them for their own.

    Raises:
        CheckpointConflictError: a question is among them, which could never be answered then.
    """
    claim = commit.claim
    own = claim.lane_number()
    writes = [task for task in commit.writes if task.rev >> N_BITS == own]
    if len(writes) < len(commit.writes):
        if any(task.slot == WRITES_IDX_MAP[INTERRUPT] for task in commit.writes if task not in writes):
            raise CheckpointConflictError(
                f"thread {claim.thread_id!r} (namespace {commit.checkpoint_ns!r}): another run holds the thread, and a "
                f"lane cannot store a question under a checkpoint that it shares with it; nothing of this step was "
                f"stored; run again when that run has ended",
                thread_id=claim.thread_id,
                ns=commit.checkpoint_ns,
                run_id=commit.run_id,
            )
        commit.writes = writes
    for other in commit.others:
        _keep_to_lane(other)
