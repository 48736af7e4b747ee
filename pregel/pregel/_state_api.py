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
    up_rev_of_edit,
)
from pregel import _scope
from pregel import config as configs
from pregel.constants import TASKS
from pregel.engine import edit, history, namespace, redeploy, view
from pregel.engine.core import Run
from pregel.engine.snapshot import into_lane
from pregel.engine.state import Request, RunState
from pregel.engine.stranded import Search, triggers_below
from pregel.engine.task import COPIERS, in_context
from pregel.errors import Stranded
from pregel.pregel import _places as places
from pregel.pregel._graph import Graph
from pregel.pregel._request import NOTHING, check_config
from pregel.pregel._runtime import runtime_of
from pregel.pregel._start import aenter, enter
from pregel.pregel._turns import Turn
from pregel.types import StateSnapshot, StateUpdate


class Address:
    """A config, resolved: which graph, which saver, and what to ask it for."""

    __slots__ = ("above", "config", "graph", "graphs", "is_known", "ns", "request", "saver", "stables", "thread_id")

    def __init__(self, root: Any, config: RunnableConfig) -> None:
        check_config(root, config)
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
        graphs = places.graphs_at(root, self.ns)
        self.is_known = bool(graphs)
        """Has the graph a place for this namespace? One that is only stored is read as if it were the root graph's."""
        self.graphs = graphs or [root]
        self.graph: Any = self.graphs[0]
        if self.ns and self.is_known and places.is_stateful(graphs):
            self.ns = namespace.stable(self.ns)
        self.stables = places.stable_places(root, self.ns)
        """The namespace without task ids, under each name that the nodes on the way have had."""
        self.above: LoadedCheckpoint | None = None
        """For an update of a namespace that all runs share: the newest checkpoint of the root graph."""
        self.request = _request(self.graph, self.thread_id, self.ns, merged)
        self.request.saver = self.saver
        self.request.caller = scope

    def load(self) -> LoadedCheckpoint:
        """What is stored there, to be updated."""
        return places.ask(self.saver, self._load())

    async def aload(self) -> LoadedCheckpoint:
        """Async form of `load`."""
        return await places.aask(self.saver, self._load())

    def _load(self) -> places.Looked[LoadedCheckpoint]:
        loaded = yield from self.find()
        self.choose(loaded)
        if self.ns and ":" not in self.ns:
            self.above = yield "load", ({"configurable": {"thread_id": self.thread_id, "checkpoint_ns": ""}},), {}
        return loaded

    def find(self) -> places.Looked[LoadedCheckpoint]:
        """What is stored there. A graph that keeps its state has it where it began, maybe under former names of nodes: then
        this is the address of that."""
        loaded: LoadedCheckpoint = yield "load", (self.stored(),), {}
        if loaded.checkpoint_id is None and self.ns and ":" not in self.ns:
            for ns in self.stables[1:]:
                former: LoadedCheckpoint = yield "load", (self._stored_at(ns),), {}
                if former.checkpoint_id is not None:
                    self.ns = self.request.ns_ = ns
                    return former
        return loaded

    def must_be_known(self) -> None:
        """Raise `ValueError` if the graph has no place for the namespace: nobody would ever read an update there."""
        if not self.is_known:
            root = self.graph
            raise ValueError(
                f"namespace {self.ns!r} belongs to no subgraph of {root.name!r}; it has "
                f"{[name for name, _ in root.get_subgraphs(recurse=True)]!r}"
            )

    def choose(self, loaded: LoadedCheckpoint) -> None:
        """Several graphs may keep their state there: this is of one of them."""
        graph = places.owner(self.graphs, loaded)
        if graph is not self.graph:
            self.graph = graph
            self.request.output_keys = graph.program.output_channels
            self.request.strict, self.request.store = graph.strict, graph.store

    def up_rev(self, loaded: LoadedCheckpoint) -> int | None:
        """Rev of the checkpoint that an update belongs to: that of what it follows on; between two runs of a graph that
        keeps its state, the newest of the root graph, from which the next run will start."""
        above = self.above
        is_open = loaded.is_head or loaded.checkpoint_id is None
        newest = None
        if above is not None and above.checkpoint_id is not None and is_open:
            newest = above.checkpoint_id, above.rev
        return up_rev_of_edit(loaded.up_rev, loaded.parents, newest)

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
        return self._stored_at(self.ns)

    def _stored_at(self, ns: str) -> RunnableConfig:
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
    return places.ask(address.saver, _get(address, config, subgraphs=subgraphs))


def _get(address: Address, config: RunnableConfig, *, subgraphs: bool) -> places.Looked[StateSnapshot]:
    loaded = yield from address.find()
    if loaded.checkpoint_id is None:
        return history.nothing(_echo(config))
    return (yield from _look(address, loaded, subgraphs=subgraphs, latest=not address.names_checkpoint))


def _look(
    address: Address, loaded: LoadedCheckpoint, *, subgraphs: bool, latest: bool, known: Mapping[str, int] | None = None
) -> places.Looked[StateSnapshot]:
    """The snapshot of what was loaded. `known`: stable namespace -> rev at which its last run ended, as the graphs around
    know it."""
    address.choose(loaded)
    run, tasks = history.opened(address.graph.program, address.request, loaded)
    found: list[Any] = [view.nested_config(run, task) for task in tasks]
    more: list[Sequence[StateSnapshot]] = [()] * len(tasks)
    if subgraphs and any(found):
        # A namespace of one call knows what it has seen itself, and asks around for the rest.
        around = known if known is not None and ":" in address.ns else {}
        known = {**around, **loaded.sub, **loaded.open_sub}
        stored: list[str] = yield "nested", (loaded,), {}
        for number, (task, place) in enumerate(zip(tasks, found, strict=True)):
            if place is not None:
                task_ns = place["configurable"]["checkpoint_ns"]
                nested = yield from _nested(address, loaded, task.node, task_ns, stored, known, latest=latest)
                found[number] = nested[0] if nested else history.nothing(place)
                more[number] = nested if len(nested) > 1 else ()
    config = history.address(loaded, loaded.checkpoint_id)  # type: ignore[arg-type]
    return history.describe(run, tasks, config=config, latest=latest, states=found, more=more)


def _nested(
    address: Address,
    loaded: LoadedCheckpoint,
    node: Any,
    task_ns: str,
    stored: Sequence[str],
    known: Mapping[str, int],
    *,
    latest: bool,
) -> places.Looked[list[StateSnapshot]]:
    """Snapshots of all nested runs of a task, in call order."""
    graphs = places.keepers(node)
    snapshots = []
    stables = [namespace.below(around, name) for around in address.stables for name in redeploy.stable_names(node)]
    places_of = tuple(dict.fromkeys((task_ns, namespace.stable(task_ns), *stables)))
    # The first is asked for anyway: some foreign savers cannot list what they have.
    for ns in places.calls_in_order(places_of, (*places_of, *stored, *known)):
        config: RunnableConfig = {"configurable": {"thread_id": address.thread_id, "checkpoint_ns": ns}}
        if ":" in ns:
            inner: LoadedCheckpoint = yield "load", (config,), {}
        else:
            lineage = {"claim": loaded.claim, "up_rev": loaded.rev, "at_rev": known.get(ns)}
            inner = yield "load", (config,), lineage
            if latest and not address.ns and not inner.is_head and inner.up_rev != loaded.rev:
                edit = yield from places.edit_after(config, inner, loaded.rev)
                if edit is not None:
                    named: Any = {"configurable": {**config["configurable"], "checkpoint_id": edit}}
                    inner = yield "load", (named,), {}
        if inner.checkpoint_id is not None:
            deeper = _descend(address, graphs, ns, config)
            deeper.stables = places.same_call(stables, ns)
            snapshots.append((yield from _look(deeper, inner, subgraphs=True, latest=True, known=known)))
    return snapshots


def _descend(outer: Address, graphs: list[Any], ns: str, config: RunnableConfig) -> Address:
    """The address of a nested run of a task."""
    inner = Address.__new__(Address)
    inner.saver, inner.thread_id, inner.ns = outer.saver, outer.thread_id, ns
    inner.config = {"configurable": config["configurable"]}
    inner.graphs, inner.graph = graphs, graphs[0]
    inner.request = _request(inner.graph, outer.thread_id, inner.ns, config)
    return inner


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
    subgraphs: bool,
) -> Iterator[StateSnapshot]:
    """Snapshots of a thread, newest first."""
    address = Address(graph, config)
    if len(address.stables) > 1:
        places.ask(address.saver, address.find())  # finds out which of the namespaces it is
    for loaded in address.saver.history(address.stored(), filter=filter, before=before, limit=limit):
        yield places.ask(address.saver, _look(address, loaded, subgraphs=subgraphs, latest=False))


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
        address.must_be_known()
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
    # What a value holds that no node returned is the caller's own affair (D42).
    run.notices = [notice for notice in run.notices if notice.code not in ("unknown-key", "goto-and-edge")]
    if address.ns and ":" not in address.ns and not places.is_stateful(address.graphs):
        run.notice(
            "unread-namespace",
            address.ns,
            f"the update of namespace {address.ns!r} is stored, but no run reads it: each run of graph "
            f"{address.graph.name!r} there has a namespace with its task id; pass the config that "
            f"get_state(config, subgraphs=True).tasks[...].state has, or compile it with checkpointer=True",
        )
    run.warn()
    up_rev = address.up_rev(loaded)
    for commit in work.commits:
        commit.parents, commit.up_rev = loaded.parents, up_rev
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
    return await places.aask(address.saver, _get(address, config, subgraphs=subgraphs))


async def awalk(
    graph: Any,
    config: RunnableConfig,
    *,
    filter: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
    subgraphs: bool,
) -> AsyncIterator[StateSnapshot]:
    """Async form of `walk`."""
    address = Address(graph, config)
    if len(address.stables) > 1:
        await places.aask(address.saver, address.find())
    async for loaded in address.saver.ahistory(address.stored(), filter=filter, before=before, limit=limit):
        yield await places.aask(address.saver, _look(address, loaded, subgraphs=subgraphs, latest=False))


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
        address.must_be_known()
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
        return channel == TASKS or channel in self._triggers or redeploy.is_control(channel)

    def below(self, loaded: LoadedCheckpoint) -> places.Looked[None]:
        """Look at a thread, and at what is open in it."""
        request = _request(self.graph, loaded.claim.thread_id, "", {})
        run = RunState(self.graph.program, request, loaded)
        if run.taken_over is None:
            return
        self.found += run.taken_over.missing + run.taken_over.memories
        search = Search(run, self.found, tells_keys=True)
        while (question := search.next()) is not None:
            if question.name == "load":
                search.take((yield "peek", question.arguments, {**question.keywords, "wanted": self.wanted}))
            else:
                search.take((yield question))


def check(graph: Any, saver: Any) -> list[Stranded]:
    """Everything stored that a graph could not go on with."""
    look = _Look(graph, saver)
    for page in look.saver.heads(look.wanted):
        for loaded in page:
            places.ask(look.saver, look.below(loaded))
    return look.found


async def acheck(graph: Any, saver: Any) -> list[Stranded]:
    """Async form of `check`."""
    look = _Look(graph, saver)
    async for page in look.saver.aheads(look.wanted):
        for loaded in page:
            await places.aask(look.saver, look.below(loaded))
    return look.found
