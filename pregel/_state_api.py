"""`get_state`, `get_state_history`, `update_state`: from a config to stored checkpoints and back, in both colours.

Decides which graph and namespace a config addresses (engine.md 6.5, amendments A33-A35) and calls the saver; what a
snapshot shows and what an update stores is decided in `engine.history` and `engine.edit`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextvars import copy_context
from typing import Any

from checkpoint import ids
from checkpoint.adapter import adapt
from checkpoint.base import (
    CheckpointConflictError,
    LoadedCheckpoint,
    NativeSaver,
    RunnableConfig,
    StepCommit,
    ThreadDeletedError,
    get_checkpoint_metadata,
)
from pregel import _scope
from pregel import config as configs
from pregel._launch import NOTHING, Graph, aenter, enter, runtime_of
from pregel._turns import Turn
from pregel.constants import TASKS
from pregel.engine import edit, history, namespace, view
from pregel.engine.core import Run
from pregel.engine.redeploy import is_control
from pregel.engine.snapshot import into_lane
from pregel.engine.state import Request, RunState
from pregel.engine.stranded import Search, triggers_below
from pregel.engine.task import COPIERS, in_context
from pregel.errors import Stranded
from pregel.types import StateSnapshot, StateUpdate


class Address:
    """A config, resolved: which graph, which saver, and what to ask it for."""

    __slots__ = ("config", "former", "graph", "ns", "request", "saver", "thread_id")

    def __init__(self, root: Any, config: RunnableConfig) -> None:
        scope = configs.handle_of(config) or _scope.current_or_none()
        checkpointer = root.checkpointer
        if checkpointer is None and scope is not None:
            checkpointer = scope.host.request.saver
        if checkpointer is True:
            raise RuntimeError(
                f"graph {root.name!r} was compiled with checkpointer=True and has no saver of its own; ask the root graph"
            )
        if not checkpointer:
            raise ValueError(f"graph {root.name!r} has no checkpointer; compile it with one to have a state to read")
        self.saver: NativeSaver = adapt(checkpointer)
        merged = configs.merge(root.config, config)
        configurable = merged.get("configurable") or {}
        if configurable.get("thread_id") is None:
            raise ValueError(
                "the config has no 'thread_id': pass config={'configurable': {'thread_id': '...'}} to say which thread"
            )
        self.thread_id = str(configurable["thread_id"])
        self.config = merged
        self.ns = configurable.get("checkpoint_ns") or ""
        self.graph: Any = root
        self.former: list[str] = []
        """Other namespaces that the state may be in: those of the same nested graph under former names of nodes."""
        if self.ns:
            names = "|".join(_current_names(root, namespace.names_of(self.ns)))
            found = next((graph for _, graph in root.get_subgraphs(names, recurse=True)), None)
            if found is None:
                raise ValueError(
                    f"namespace {self.ns!r} belongs to no subgraph of {root.name!r}; it has "
                    f"{[name for name, _ in root.get_subgraphs(recurse=True)]!r}"
                )
            self.graph = found
            if found.checkpointer is True:
                self.ns = namespace.stable(self.ns)
                self.former = [ns for ns in _former_names(root, self.ns) if ns != self.ns]
        self.request = _request(self.graph, self.thread_id, self.ns, merged)
        self.request.saver = self.saver
        self.request.caller = scope

    def load(self) -> LoadedCheckpoint:
        """What is stored there."""
        found = self.saver.load(self.stored())
        for ns in self.former if found.checkpoint_id is None else ():
            former = self.saver.load(self._stored_in(ns))
            if former.checkpoint_id is not None:
                self.ns = self.request.ns_ = ns
                return former
        return found

    async def aload(self) -> LoadedCheckpoint:
        """Async form of `load`."""
        found = await self.saver.aload(self.stored())
        for ns in self.former if found.checkpoint_id is None else ():
            former = await self.saver.aload(self._stored_in(ns))
            if former.checkpoint_id is not None:
                self.ns = self.request.ns_ = ns
                return former
        return found

    def forks(self, lost: CheckpointConflictError) -> bool:
        """Is an update that came too late to be stored in a lane?"""
        return self.request.turn.how == "fork" and not isinstance(lost, ThreadDeletedError)

    def leave(self, loaded: LoadedCheckpoint) -> None:
        """The update is over: the thread is free."""
        try:
            self.saver.release(loaded.claim)
        finally:
            self.request.hold.release()

    async def aleave(self, loaded: LoadedCheckpoint) -> None:
        """Async form of `leave`."""
        try:
            await self.saver.arelease(loaded.claim)
        finally:
            self.request.hold.release()

    def stored(self) -> RunnableConfig:
        """The config to load by: thread, namespace, and the checkpoint if one is named."""
        return self._stored_in(self.ns)

    def _stored_in(self, ns: str) -> RunnableConfig:
        configurable = self.config.get("configurable") or {}
        address: dict[str, Any] = {"thread_id": self.thread_id, "checkpoint_ns": ns}
        checkpoint_id = configurable.get("checkpoint_id") or (configurable.get("checkpoint_map") or {}).get(ns)
        if checkpoint_id:
            address["checkpoint_id"] = checkpoint_id
        return {"configurable": address}

    @property
    def names_checkpoint(self) -> bool:
        """Does the config name a checkpoint, rather than ask for the newest?"""
        return "checkpoint_id" in self.stored()["configurable"]

    def nested(self, run: Any, task: Any) -> Any:
        """Where a task's nested graph keeps its state, and that graph; (None, None) without one."""
        place = view.nested_config(run, task)
        if place is None:
            return None, None
        graph = next(graph for graph in task.node.subgraphs if graph.checkpointer is not False)
        return place, graph


def _current_names(graph: Any, names: Sequence[str]) -> Iterator[str]:
    """The names that the nodes on the way to a nested graph have now."""
    for name in names:
        known = graph.program.current.get(name, name) if graph is not None else name
        yield known
        if graph is not None:
            graph = next((inner for _, inner in graph.get_subgraphs(known)), None)


def _former_names(graph: Any, ns: str) -> list[str]:
    """A stable namespace under every name that the nodes on the way have had."""
    found = [""]
    for segment in namespace.path_of(ns):
        if segment.isdecimal():
            found = [namespace.below(around, segment) for around in found]
            continue
        name = graph.program.current.get(segment, segment)
        names = (name, *graph.nodes[name].aliases)
        found = [namespace.below(around, one) for around in found for one in names]
        graph = next((inner for _, inner in graph.get_subgraphs(name)), graph)
    return found


def _request(graph: Graph, thread_id: str, ns: str, config: Mapping[str, Any]) -> Request:
    """A request for looking at and editing stored state: nothing runs, nothing is streamed."""
    request = Request()
    request.config = config
    configurable = {k: v for k, v in (config.get("configurable") or {}).items() if k not in configs.COORDINATES}
    request.configurable = {**configurable, "thread_id": thread_id}
    request.thread_id = thread_id
    request.checkpoint_id = None
    run_id = config.get("run_id")
    request.run_id = None if run_id is None else str(run_id)
    request.ns_ = ns
    request.call_number = 0
    request.stable_ns = False
    request.parent = None
    request.parent_run = None
    request.stores = True
    request.deferred = False
    request.pace = None
    request.saver = None
    request.durability = "sync"
    request.gate = None
    request.seeds = {}
    request.stored_metadata = get_checkpoint_metadata(config, {})  # type: ignore[arg-type]
    request.limit = configs.DEFAULT_RECURSION_LIMIT
    request.modes = NOTHING
    request.outlets = ()
    request.output_keys = graph.program.output_channels
    request.interrupt_before = request.interrupt_after = ()
    request.copiers = COPIERS
    request.retry_policy = ()
    request.strict = graph.strict
    request.context = None
    request.store = graph.store
    request.control = None
    request.clock = time.time
    request.monotonic = time.monotonic
    request.new_id = ids.checkpoint_id
    request.jitter = time.time
    request.runtime = runtime_of
    return request


def get(graph: Any, config: RunnableConfig, *, subgraphs: bool) -> StateSnapshot:
    """The snapshot that a config addresses."""
    address = Address(graph, config)
    return _snapshot(address, address.load(), config, subgraphs=subgraphs)


def _snapshot(address: Address, loaded: LoadedCheckpoint, config: RunnableConfig, *, subgraphs: bool) -> StateSnapshot:
    if loaded.checkpoint_id is None:
        return history.nothing(_echo(config))
    run, tasks = history.opened(address.graph.program, address.request, loaded)
    states: list[Any] = []
    for task in tasks:
        place, nested = address.nested(run, task)
        if place is not None and subgraphs:
            inner = Address.__new__(Address)
            _descend(inner, address, nested, place["configurable"]["checkpoint_ns"])
            place = _snapshot(inner, inner.saver.load(place), place, subgraphs=True)
        states.append(place)
    return _described(address, run, tasks, states, config)


def _descend(inner: Address, outer: Address, graph: Any, ns: str) -> None:
    """The address of a task's nested graph."""
    inner.saver, inner.thread_id, inner.ns, inner.graph = outer.saver, outer.thread_id, ns, graph
    inner.former = []
    inner.config = {"configurable": {"thread_id": outer.thread_id, "checkpoint_ns": ns}}
    inner.request = _request(graph, outer.thread_id, ns, inner.config)


def _described(address: Address, run: Any, tasks: Any, states: Any, config: RunnableConfig) -> StateSnapshot:
    loaded = run.loaded
    named = address.names_checkpoint
    shown = history.address(loaded, loaded.checkpoint_id)
    return history.describe(run, tasks, config=shown, latest=not named, states=states)


def _echo(config: RunnableConfig) -> RunnableConfig:
    """The caller's config, with the thread id as text."""
    configurable = dict(config.get("configurable") or {})
    if "thread_id" in configurable:
        configurable["thread_id"] = str(configurable["thread_id"])
    return {**config, "configurable": configurable}


def walk(
    graph: Any,
    config: RunnableConfig,
    *,
    filter: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
) -> Iterator[StateSnapshot]:
    """Snapshots of a thread, newest first."""
    address = Address(graph, config)
    if address.former:
        address.load()  # finds out which of the namespaces it is
    for loaded in address.saver.history(address.stored(), filter=filter, before=before, limit=limit):
        yield _past(address, loaded)


def _past(address: Address, loaded: LoadedCheckpoint) -> StateSnapshot:
    run, tasks = history.opened(address.graph.program, address.request, loaded)
    assert loaded.checkpoint_id is not None
    states: list[Any] = [view.nested_config(run, task) for task in tasks]
    config = history.address(loaded, loaded.checkpoint_id)
    return history.describe(run, tasks, config=config, latest=False, states=states)


def update(
    graph: Any, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]], turn: Turn
) -> RunnableConfig:
    """Apply supersteps of updates and store them in one transaction; the config of the last checkpoint.

    Raises:
        ThreadBusyError: a run holds the thread, and the turn does not say to wait or to go beside it.
    """
    steps = edit.check(supersteps)
    while True:
        address = Address(graph, config)
        address.request.turn = turn
        loaded = enter(address.request, address.load)
        assert loaded is not None
        try:
            return _update(address, loaded, steps)
        except CheckpointConflictError as error:
            if not turn.again(error, loaded):
                raise
        finally:
            address.leave(loaded)


def _update(address: Address, loaded: LoadedCheckpoint, steps: Sequence[Sequence[StateUpdate]]) -> RunnableConfig:
    work = edit.Edit(Run(address.graph.program, address.request, loaded))
    for updates in steps:
        prepared = work.prepare(updates)
        for task, values in prepared:
            copy_context().run(work.writes_of, task, values)
        work.apply(updates, [task for task, _ in prepared])
    commits, result = _edited(address, work)
    saver = address.saver
    try:
        saver.write([saver.encode(commit) for commit in commits], durability="sync")
    except CheckpointConflictError as lost:
        if not address.forks(lost):
            raise
        saver.open_lane(loaded.claim)
        into_lane(work.run, commits)
        saver.write([saver.encode(commit) for commit in commits], durability="sync")
    return result


def _edited(address: Address, work: edit.Edit) -> tuple[list[StepCommit], RunnableConfig]:
    """What an edit stores, and the config of its last checkpoint."""
    run = work.run
    loaded = run.loaded
    assert loaded is not None
    # Unknown keys of a value that no node returned are the caller's own affair (D42).
    run.notices = [notice for notice in run.notices if notice.code != "unknown-key"]
    run.warn()
    for commit in work.commits:
        commit.parents, commit.up_rev = loaded.parents, loaded.up_rev
    configurable: dict[str, Any] = {
        "thread_id": address.thread_id,
        "checkpoint_ns": address.ns,
        "checkpoint_id": run.checkpoint_id,
    }
    if loaded.parents:
        configurable["checkpoint_map"] = {**loaded.parents, address.ns: run.checkpoint_id}
    return work.commits, {"configurable": configurable}


async def aget(graph: Any, config: RunnableConfig, *, subgraphs: bool) -> StateSnapshot:
    """Async form of `get`."""
    address = Address(graph, config)
    return await _asnapshot(address, await address.aload(), config, subgraphs=subgraphs)


async def _asnapshot(
    address: Address, loaded: LoadedCheckpoint, config: RunnableConfig, *, subgraphs: bool
) -> StateSnapshot:
    if loaded.checkpoint_id is None:
        return history.nothing(_echo(config))
    run, tasks = history.opened(address.graph.program, address.request, loaded)
    states: list[Any] = []
    for task in tasks:
        place, nested = address.nested(run, task)
        if place is not None and subgraphs:
            inner = Address.__new__(Address)
            _descend(inner, address, nested, place["configurable"]["checkpoint_ns"])
            place = await _asnapshot(inner, await inner.saver.aload(place), place, subgraphs=True)
        states.append(place)
    return _described(address, run, tasks, states, config)


async def awalk(
    graph: Any,
    config: RunnableConfig,
    *,
    filter: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
) -> AsyncIterator[StateSnapshot]:
    """Async form of `walk`."""
    address = Address(graph, config)
    if address.former:
        await address.aload()
    async for loaded in address.saver.ahistory(address.stored(), filter=filter, before=before, limit=limit):
        yield _past(address, loaded)


async def aupdate(
    graph: Any,
    config: RunnableConfig,
    supersteps: Sequence[Sequence[StateUpdate]],
    turn: Turn,
    alarm: Any,
) -> RunnableConfig:
    """Async form of `update`. `alarm`: the class of what a coroutine sleeps on."""
    steps = edit.check(supersteps)
    while True:
        address = Address(graph, config)
        address.request.turn = turn
        loaded = await aenter(address.request, alarm, address.aload)
        assert loaded is not None
        try:
            return await _aupdate(address, loaded, steps)
        except CheckpointConflictError as error:
            if not turn.again(error, loaded):
                raise
        finally:
            await address.aleave(loaded)


async def _aupdate(
    address: Address, loaded: LoadedCheckpoint, steps: Sequence[Sequence[StateUpdate]]
) -> RunnableConfig:
    work = edit.Edit(Run(address.graph.program, address.request, loaded))
    for updates in steps:
        prepared = work.prepare(updates)
        for task, values in prepared:
            await in_context(work.awrites_of(task, values), copy_context())
        work.apply(updates, [task for task, _ in prepared])
    commits, result = _edited(address, work)
    saver = address.saver
    try:
        await saver.awrite([saver.encode(commit) for commit in commits], durability="sync")
    except CheckpointConflictError as lost:
        if not address.forks(lost):
            raise
        await saver.aopen_lane(loaded.claim)
        into_lane(work.run, commits)
        await saver.awrite([saver.encode(commit) for commit in commits], durability="sync")
    return result


# ---- what a graph cannot go on with


class _Look:
    """The threads of a saver, looked at with the eyes of a graph."""

    def __init__(self, graph: Any, saver: Any) -> None:
        """
        Raises:
            ValueError: there is no saver.
            NotImplementedError: a native saver of the user's cannot list its threads.
        """
        saver = graph.checkpointer if saver is None else saver
        if not saver or saver is True:
            raise ValueError(
                f"graph {graph.name!r} has no checkpointer; give check() the saver whose threads are meant"
            )
        self.graph = graph
        self.saver: Any = adapt(saver)
        if not hasattr(self.saver, "heads"):
            raise NotImplementedError(
                f"check: {type(saver).__name__} has no heads() to list its threads with; see checkpoint.peek"
            )
        self.found: list[Stranded] = []
        self._triggers = triggers_below(graph.program)

    def wanted(self, channel: str) -> bool:
        """Must its value be read?"""
        return channel == TASKS or channel in self._triggers or is_control(channel)

    def into(self, loaded: LoadedCheckpoint) -> Search | None:
        """Look at a thread; what is to be searched below it."""
        request = _request(self.graph, loaded.claim.thread_id, "", {})
        run = RunState(self.graph.program, request, loaded)
        if run.taken_over is None:
            return None
        self.found += run.taken_over.missing + run.taken_over.memories
        return Search(run, self.found, tells_keys=True)


def check(graph: Any, saver: Any) -> list[Stranded]:
    """Everything stored that a graph could not go on with."""
    look = _Look(graph, saver)
    for page in look.saver.heads(look.wanted):
        for loaded in page:
            search = look.into(loaded)
            while search is not None and (place := search.next()) is not None:
                search.take(look.saver.peek(**place._asdict(), wanted=look.wanted))
    return look.found


async def acheck(graph: Any, saver: Any) -> list[Stranded]:
    """Async form of `check`."""
    look = _Look(graph, saver)
    async for page in look.saver.aheads(look.wanted):
        for loaded in page:
            search = look.into(loaded)
            while search is not None and (place := search.next()) is not None:
                search.take(await look.saver.apeek(**place._asdict(), wanted=look.wanted))
    return look.found
