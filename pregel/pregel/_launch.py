"""From the arguments of a call to a run: the request, the saver, where chunks go, and what the run continues.

Decides how configs merge, whether a call is a root run or nested in the task around it, which saver it uses and under
which namespace (engine.md 6.1, 6.2, 9.1; D34). Runs nothing; both colours of `pregel.pregel` start here.
"""

from __future__ import annotations

import random
import sys
import time
import warnings
from _queue import SimpleQueue
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextvars import Context, copy_context
from functools import partial
from threading import Lock
from typing import Any, Final

from checkpoint import ids
from checkpoint.adapter import adapt
from checkpoint.base import LoadedCheckpoint, RunnableConfig, get_checkpoint_metadata
from checkpoint.holders import Hold
from pregel import _langchain, _scope
from pregel import config as configs
from pregel._scope import TaskScope
from pregel.constants import PREVIOUS, SCOPE_KEY
from pregel.engine import namespace, occupancy, pause, plan, repeat, snapshot, view
from pregel.engine.core import Run, count_of
from pregel.engine.limited import LimitedRun, Limits
from pregel.engine.occupancy import Step
from pregel.engine.program import Program
from pregel.engine.report import REPORTS
from pregel.engine.state import Breakpoints, Pace, Request, RunState, Stood
from pregel.engine.task import COPIERS, NO_COPIES
from pregel.engine.workers import Gate, Job, wait_for, workers
from pregel.errors import EmptyChannelError, ErrorCode, shown
from pregel.pregel import _places as places
from pregel.pregel import _turns as turns
from pregel.pregel._stream import Outlet
from pregel.pregel._turns import OnConflict, Turn
from pregel.runtime import ExecutionInfo, RunControl, Runtime, ServerInfo, no_write
from pregel.types import Command, Every, GraphOutput
from pregel.warnings import emit

MODES = frozenset({"values", "updates", "custom", "messages", "tasks", "checkpoints", "debug", "tools"})
PAGE: Final = 4
"""Checkpoints that are looked at together for the one of a superstep."""
REPLAYED = "replayed"
"""The fact of a replay: the addressed checkpoint of the root run, and those of nested ones, by namespace. It counts for
the fork checkpoint that it begins with, whose parent is the addressed one."""
CALLER = "caller"
"""The fact of a nested run that shares its state with others: the called task that its last run was started in."""
LIVE = frozenset({"custom", "messages", "tools"})
"""Modes whose chunks must leave while a body runs."""
DURABILITIES = ("sync", "async", "exit")
NOTHING: frozenset[str] = frozenset()
clock = time.time
"""What runs call the time, in Unix seconds: of checkpoints, and of deadlines of questions."""
_entering = Lock()


class Graph:
    """What a launch needs to know of a compiled graph; `Pregel` is one."""

    name: str
    checkpointer: Any
    store: Any
    cache: Any
    cache_policy: Any
    context_schema: Any
    config: Mapping[str, Any] | None
    retry_policy: Sequence[Any]
    interrupt_before_nodes: str | Sequence[str]
    interrupt_after_nodes: str | Sequence[str]
    isolate: str
    strict: bool
    on_conflict: OnConflict

    @property
    def program(self) -> Program:
        """The compiled form."""
        raise NotImplementedError


class Call:
    """The arguments of `invoke` and `stream` that say how a run goes, as the caller gave them."""

    __slots__ = (
        "config",
        "context",
        "control",
        "deadline",
        "durability",
        "interrupt_after",
        "interrupt_before",
        "keep_breakpoints",
        "key",
        "limits",
        "max_steps",
        "on_conflict",
        "outlet",
        "output_keys",
        "run_id",
        "streams",
        "timeout",
        "turn",
    )

    def __init__(self, config: Any) -> None:
        self.config: Mapping[str, Any] | None = config
        self.context: Any = None
        self.control: RunControl | None = None
        self.durability: Any = None
        self.interrupt_before: Any = None
        self.interrupt_after: Any = None
        self.keep_breakpoints: bool | None = None
        self.outlet: Outlet | None = None
        self.key: str | None = None
        self.output_keys: str | Sequence[str] | None = None
        self.run_id: Any = None
        """Makes the call one that may be repeated."""
        self.on_conflict: Any = None
        self.timeout: Any = None
        self.deadline: Any = None
        self.max_steps: Any = None
        self.limits: Limits | None = None
        """Made by the first try: a deadline is one of all tries of a call."""
        self.turn: Turn | None = None
        """Made by the first try; a wait goes over all tries of a call."""


def parent_of(config: Mapping[str, Any] | None) -> TaskScope | None:
    """The task that a call is nested in: the live handle in the given config, else the task that runs here (D34).

    Raises:
        ValueError: the config names a nested namespace, but comes from no running task and no state API.
    """
    handle = configs.handle_of(config)
    if handle is not None:
        return handle
    if not configs.addresses(config):
        return _scope.current_or_none()
    configurable = config["configurable"] if config else {}
    if configurable.get("checkpoint_ns") and "checkpoint_map" not in configurable:
        raise ValueError(
            f"the config addresses namespace {configurable['checkpoint_ns']!r}, but the node it belongs to is not running "
            f"any more: make the nested call inside the node, or drop checkpoint_ns to run the graph on its own"
        )
    if SCOPE_KEY in configurable:
        raise ValueError(
            "the config was made for a node that is not running any more; make the nested call inside the node, or pass "
            "a config of your own"
        )
    return None


def request_for(graph: Graph, call: Call, value: Any = None) -> Request:
    """What one call asks of a run. `value`: what the graph is called with.

    Raises:
        ValueError: a limit, mode, durability or key that cannot be, or a saver without `thread_id`.
        TypeError: a run id that is none.
        RuntimeError: `checkpointer=True` on a root graph, or in two tasks of one superstep.
    """
    bound = graph.config
    parent = parent_of(configs.merge(bound, call.config) if bound and configs.addresses(bound) else call.config)
    around: RunState | None = parent.host if parent is not None else None
    request = Request()
    request.parent = parent
    request.parent_run = around
    _set_config(request, graph, call)
    _set_place(request, graph, call)
    config = request.config
    request.limit = config.get("recursion_limit") or configs.DEFAULT_RECURSION_LIMIT
    if "recursion_limit" in config and config["recursion_limit"] < 1:
        raise ValueError(f"recursion_limit must be at least 1, got {config['recursion_limit']}")
    request.interrupt_before = _names(call.interrupt_before or graph.interrupt_before_nodes)
    request.interrupt_after = _names(call.interrupt_after or graph.interrupt_after_nodes)
    request.breakpoints = _kept(request, graph, call)
    request.retry_policy = graph.retry_policy
    _set_cache(request, graph)
    request.copiers = NO_COPIES if graph.isolate == "off" else COPIERS
    request.strict = graph.strict
    request.clock = clock
    request.monotonic = time.monotonic
    request.jitter = _jitter
    request.new_id = ids.checkpoint_id
    request.runtime = runtime_of
    program = graph.program
    if _langchain.RUNNABLES in _langchain.modules:
        _langchain.lend_to_all(program.nodes)
    keys = call.output_keys
    if keys is None:
        keys = program.output_channels
    else:
        for key in [keys] if isinstance(keys, str) else keys:
            if key not in program.channels:
                raise ValueError(
                    f"output key {key!r} is not a channel of graph {graph.name!r}: {list(program.channels)}"
                )
    request.output_keys = keys
    context = _context(graph.context_schema, call.context)
    outlets: tuple[Any, ...] = ()
    if around is not None:
        asked = around.request
        request.limits = asked.limits
        request.context = asked.context if context is None else context
        request.store = asked.store
        request.control = call.control or asked.control
        outlets = tuple(outlet for outlet in asked.outlets if outlet.subgraphs)
        request.gate = asked.gate
    else:
        request.context = context
        request.store = graph.store
        request.control = call.control or RunControl()
        _set_turn(request, graph, call)
        if request.stores and value is not None:
            _set_called(request, graph, call, value)
        limit = config.get("max_concurrency")
        request.gate = Gate(limit) if limit else None
        request.prompt = request.control.drain_deadline is not None
    if call.deadline is not None or call.max_steps is not None:
        _set_limits(request, call)
    if call.outlet is not None:
        call.outlet.path = namespace.path_of(request.ns)
        outlets += (call.outlet,)
    request.outlets = outlets
    request.modes = frozenset().union(*(outlet.modes for outlet in outlets)) if outlets else NOTHING
    if config.get("callbacks"):
        _set_observer(request, graph, call)
    if parent is not None:
        parent.questions.going_on.add(request)
    return request


def _set_observer(request: Request, graph: Graph, call: Call) -> None:
    """Whom the run reports to: the handlers in its config that are ours. Without their module there are none."""
    callbacks = sys.modules.get("pregel.callbacks")
    handlers = callbacks.handlers_in(request.config["callbacks"]) if callbacks is not None else ()
    if callbacks is None or not handlers:
        return
    scope = request.parent or _scope.current_or_none()
    around = None if scope is None else scope.host.request.observer
    config = request.config
    # Name and id are not inherited: of a nested run they are what the call itself or its graph brings.
    own = config if scope is None else {**(graph.config or {}), **(call.config or {})}
    request.observer = callbacks.Observer(
        handlers,
        name=own.get("run_name") or graph.name,
        run_id=callbacks.run_uuid(_own_run_id(call, own)),
        parent_run_id=None if around is None else around.run_id,
        parent_task_id=None if scope is None else scope.host.id_of(scope.task),
        thread_id=request.thread_id,
        tags=tuple(config.get("tags") or ()),
        metadata=dict(config.get("metadata") or {}),
    )
    request.modes |= {REPORTS}


def _set_cache(request: Request, graph: Graph) -> None:
    """The graph's own cache, or the one of the graph around it."""
    cache, around = graph.cache, request.parent_run
    if cache is None and around is not None and around.request.caching is not None:
        cache = around.request.caching.cache
    if cache is not None:
        request.caching = _flights().Caching(cache, graph.cache_policy, graph.name)


def _flights() -> Any:
    """What looks into caches, imported when a graph has one: it loads asyncio (D36)."""
    from pregel.engine import flights  # noqa: PLC0415 - a lazy door

    return flights


def _set_turn(request: Request, graph: Graph, call: Call) -> None:
    """What a root run does if its thread is held; also checked without a saver."""
    request.caller = _scope.current_or_none()
    if call.turn is None:
        if not request.stores and call.on_conflict is None and call.timeout is None:
            return
        call.turn = Turn(call.on_conflict or graph.on_conflict, call.timeout)
    if request.stores:
        request.turn = call.turn
        request.forks = call.turn.how == "fork"


def _set_limits(request: Request, call: Call) -> None:
    """When the run ends, whatever is left to do."""
    if call.limits is None:
        now = request.clock(), request.monotonic()
        call.limits = Limits.of(call.deadline, call.max_steps, *now, around=request.limits)
    request.limits = request.own_limits = call.limits
    due = call.limits.due
    if due is not None:
        request.prompt = True
        turn: Turn | None = request.turn
        if turn is not None and turn.how == "wait":
            turn.deadline = due if turn.deadline is None else min(turn.deadline, due)


def _set_called(request: Request, graph: Graph, call: Call, value: Any) -> None:
    """A root call that has a run id of its own may have been made before."""
    given = _own_run_id(call, request.config)
    if given is None:
        return
    assert request.run_id is not None
    request.called = repeat.Called(graph.program, request.run_id, value)
    if "run_id" in request.stored_metadata:
        request.stored_metadata = {**request.stored_metadata, "run_id": request.run_id}


def _own_run_id(call: Call, config: Mapping[str, Any]) -> Any:
    """The run id that was given to the call itself, None for none. An empty one is none."""
    given = config.get("run_id") if call.run_id is None else call.run_id
    if given is not None and not (isinstance(given, (str, int)) or hasattr(given, "hex")):
        raise TypeError(f"run_id is {shown(given)} ({type(given).__name__}); expected a str or a UUID")
    return None if given == "" else given


def _jitter() -> float:
    return random.uniform(0, 1)


def _names(nodes: str | Sequence[str]) -> str | Sequence[str]:
    """Breakpoint nodes: `"*"`, one name, or names."""
    return nodes if isinstance(nodes, str) and nodes == "*" else [nodes] if isinstance(nodes, str) else list(nodes)


def _kept(request: Request, graph: Graph, call: Call) -> Breakpoints:
    """The breakpoints that the call itself brings, and whether they are to be kept.

    Raises:
        ValueError: they cannot be kept, or name nodes that the graph does not have.
    """
    given = {"before": call.interrupt_before, "after": call.interrupt_after}
    own = {kind: _names(nodes) for kind, nodes in given.items() if nodes is not None}
    if call.keep_breakpoints is not None:
        if request.parent is not None or not request.stores:
            where = "has no checkpointer" if request.parent is None else "runs inside a node"
            raise ValueError(
                f"keep_breakpoints={call.keep_breakpoints!r}: breakpoints are kept with the thread of a root graph, but "
                f"graph {graph.name!r} {where}; leave it out, or compile the graph with a checkpointer and call it directly"
            )
        unknown = [name for nodes in own.values() for name in nodes if name != "*" and name not in graph.program.nodes]
        if call.keep_breakpoints and unknown:
            raise ValueError(f"breakpoint at unknown node {unknown[0]!r}; the nodes are {list(graph.program.nodes)!r}")
    return own, call.keep_breakpoints


def _set_breakpoints(run: Run) -> None:
    """Where a root run stops: what the call says, else what its thread keeps, else what the graph was compiled with."""
    own, keep = run.request.breakpoints
    kept: dict[str, Any] = pause.kept_breakpoints(run)
    if keep is not None:
        kept = {kind: nodes for kind, nodes in {**kept, **own}.items() if nodes} if keep else {}
    run.remember(pause.BREAKPOINTS, kept or None)
    if kept.get("before") and not own.get("before"):
        run.request.interrupt_before = kept["before"]
    if kept.get("after") and not own.get("after"):
        run.request.interrupt_after = kept["after"]
    for name in {name for nodes in kept.values() for name in nodes}:
        if name != "*" and name not in run.program.nodes:
            run.notice(
                "unknown-breakpoint",
                name,
                f"thread {run.request.thread_id!r} keeps a breakpoint at node {name!r}, which this graph does not have; it "
                f"never stops there: call with keep_breakpoints=False, or keep others",
            )


def check_config(graph: Graph, config: Mapping[str, Any], around: RunState | None = None) -> None:
    """Warn of what nobody reads where it stands in a config (promise 54). `around`: the run that the call is made in.

    Raises:
        PregelWarning: the graph is strict.
    """
    if configs.is_plain(config):
        return
    own = getattr(graph.context_schema, "__annotations__", None) or ()
    inherited = around.request.configurable if around is not None else {}
    emit(configs.mistakes(config, own, inherited), graph.program.warned, strict=graph.strict)


def check_arguments(graph: Graph, more: Mapping[str, Any]) -> None:
    """Warn of keyword arguments that no call takes.

    Raises:
        PregelWarning: the graph is strict.
    """
    unknown = more.keys() - configs.ARGUMENTS - configs.FORMER
    emit([configs.unknown_argument(n, more[n]) for n in sorted(unknown)], graph.program.warned, strict=graph.strict)


def _set_config(request: Request, graph: Graph, call: Call) -> None:
    """Merge ambient, bound and given config; find out what of it is configurable by the user."""
    around, given = request.parent_run, call.config
    if given:
        check_config(graph, given, around)
    if around is not None and not given and not graph.config and call.run_id is None:
        node = request.parent.task.node  # type: ignore[union-attr]
        if not node.tags and not node.metadata:
            request.config = around.request.config
            request.configurable = around.request.configurable
            request.run_id = around.request.run_id
            request.thread_id = around.request.thread_id
            return
    ambient, bound = None, graph.config
    scope = request.parent or _scope.current_or_none()
    if scope is not None:
        ambient = configs.inherited(scope.host.request.config)
        ambient = configs.merge(ambient, {"tags": scope.task.node.tags, "metadata": scope.task.node.metadata})
        if request.parent is None:
            ambient.pop("configurable", None)  # it has an address of its own
        elif given and SCOPE_KEY in (given.get("configurable") or {}):
            # The node's own config: it was made from the ambient one, so nothing of it may count twice.
            metadata = given.get("metadata") or {}
            given = {**given, "metadata": {k: v for k, v in metadata.items() if not k.startswith("langgraph_")}}
        bound, given = (configs.without_tags(config, ambient.get("tags")) for config in (bound, given))
    merged = configs.merge(ambient, bound, given)
    configurable = dict(merged.get("configurable") or {})
    for key in (SCOPE_KEY, "checkpoint_ns", "checkpoint_map", "checkpoint_id"):
        configurable.pop(key, None)
    request.config = merged
    request.configurable = configurable
    run_id = _own_run_id(call, merged)
    if run_id is None:
        run_id = (merged.get("metadata") or {}).get("run_id")
    if run_id is None and around is not None:
        run_id = around.request.run_id
    request.run_id = None if run_id is None else str(run_id)
    thread_id = configurable.get("thread_id")
    request.thread_id = None if thread_id is None else str(thread_id)


def _set_place(request: Request, graph: Graph, call: Call) -> None:
    """Which saver, under which namespace, from which checkpoint, how durable."""
    around, parent = request.parent_run, request.parent
    checkpointer = graph.checkpointer
    request.ns_ = ""
    request.key = None if call.key is None else namespace.check_key(call.key)
    request.call_number = 0
    request.stable_ns = False
    request.checkpoint_id = None
    request.seeds = {}
    durability = call.durability
    if durability is not None and durability not in DURABILITIES and not isinstance(durability, Every):
        raise ValueError(f"durability must be one of {DURABILITIES} or Every(...), got {shown(durability)}")
    request.pace = None
    if around is not None and parent is not None:
        asked = around.request
        request.saver = None if checkpointer is False else asked.saver
        # A nested run is stored with its parent's steps.
        request.durability = asked.durability if durability is None else _plain(durability)
        request.deferred = request.durability == "exit"
        request.stores = request.saver is not None
        request.stored_metadata = asked.stored_metadata
        request.ns_ = None
        request.call_number = parent.count_graph(request.key)
        request.stable_ns = checkpointer is True
        if request.stable_ns and request.stores:
            _occupy(request, graph)
        return
    if checkpointer is True:
        raise RuntimeError(
            f"graph {graph.name!r} was compiled with checkpointer=True, which means 'use the parent graph's saver'; as a "
            f"root graph it needs a saver of its own"
        )
    request.saver = adapt(checkpointer) if checkpointer else None
    request.stores = request.saver is not None
    request.durability = "async" if durability is None else _plain(durability)
    request.deferred = request.durability == "exit"
    if isinstance(durability, Every):
        request.pace = Pace(durability, time.monotonic())
    if not request.stores:
        if durability is not None:
            warnings.warn(
                f"durability={durability!r} has no effect: graph {graph.name!r} has no checkpointer to store anything",
                UserWarning,
                stacklevel=4,
            )
        request.stored_metadata = {}
        return
    if request.thread_id is None:
        raise ValueError(
            f"graph {graph.name!r} has a checkpointer, but the config has no 'thread_id' to store the run under; pass "
            f"config={{'configurable': {{'thread_id': '...'}}}}"
        )
    given = (call.config or {}).get("configurable") or {}
    checkpoint_map = given.get("checkpoint_map") or {}
    request.checkpoint_id = given.get("checkpoint_id")
    if given.get("checkpoint_ns"):
        request.checkpoint_id = checkpoint_map.get("")
        request.seeds = {namespace.stable(ns): (ns, id_) for ns, id_ in checkpoint_map.items() if ns}
    request.stored_metadata = get_checkpoint_metadata(request.config, {})  # type: ignore[arg-type]


def _occupy(request: Request, graph: Graph) -> None:
    """Take the namespace that all runs of a nested graph share.

    Raises:
        RuntimeError: another task of the superstep has it.
    """
    way: list[Step] = []
    scope, run = request.parent, request.parent_run
    while scope is not None and run is not None:
        task = scope.task
        while task is not None:
            is_called = task.call_index >= 0
            way.append(Step(run.checkpoint_id, run.id_of(task), task.name, is_called))
            task = task.parent if is_called else None
        scope, run = run.request.parent, run.request.parent_run
    assert request.parent_run is not None
    with _entering:
        collided = occupancy.enter(request.parent_run.root.occupied, request.ns, tuple(way[::-1]))
    if collided is not None:
        one, other = collided
        raise RuntimeError(
            f"graph {graph.name!r} keeps one state for all its runs (checkpointer=True), but two tasks of one step run it "
            f"in namespace {request.ns!r}: {one.name!r} ({one.task_id}) and {other.name!r} ({other.task_id}); give each a "
            f"state of its own: call the graph inside a node function with graph.invoke(..., key='...'), or compile it "
            f"without checkpointer=True [{ErrorCode.MULTIPLE_SUBGRAPHS.value}]"
        )


def load_arguments(request: Request) -> dict[str, Any]:
    """How the saver is asked for the state that a run starts from (D25)."""
    configurable: dict[str, Any] = {"thread_id": request.thread_id, "checkpoint_ns": request.ns}
    around = request.parent_run
    if around is None:
        if request.checkpoint_id and request.called is None:
            configurable["checkpoint_id"] = request.checkpoint_id
        return {"config": {"configurable": configurable}}
    loaded = around.loaded
    # A replay does not use what is stored of the step; what it finds under a checkpoint of its own is its own: an attempt
    # before this one left it. A resume uses all that is stored, also where the thread went on meanwhile.
    is_open = loaded is None or loaded.rev != around.rev or not around.replaying
    return {
        "config": {"configurable": configurable},
        "claim": around.claim,
        "up_rev": around.rev if is_open else None,
        "at_rev": around.newest(request.ns) if request.stable_ns else None,
    }


def run_for(graph: Graph, request: Request, loaded: LoadedCheckpoint | None, value: Any) -> Run:
    """The run of a request that starts from what was loaded."""
    if request.caching is not None:
        kind: type[Run] = request.caching.run
    else:
        kind = LimitedRun if request.prompt or request.limits is not None else Run
    run: Run = kind(graph.program, request, loaded)
    around = request.parent_run
    if around is None:
        if pause.BREAKPOINTS in run.facts or run.pending or request.breakpoints[1] is not None:
            _set_breakpoints(run)
        if request.key is not None:
            run.notice(
                "misplaced-key",
                request.key,
                f"key={request.key!r} has no effect: it names a nested run of a node, and graph {graph.name!r} is not run "
                f"inside one; use thread_id to tell root runs apart",
            )
        if value is not None and not isinstance(value, Command):
            request.seeds = {}  # a new input goes through the nested graphs from their start
    caller = None
    if around is not None and request.parent is not None and request.stable_ns:
        task = request.parent.task
        caller = around.id_of(task) if task.call_index >= 0 else None
    if loaded is None or loaded.checkpoint_id is None:
        if caller is not None:
            run.remember(CALLER, caller)
        return run
    if around is None:
        if request.checkpoint_id is not None:
            run.replaying = value is None
            run.moved_past = not loaded.is_head
            if run.replaying and request.seeds:
                run.stood = Stood("", loaded.checkpoint_id, loaded.rev, request.as_of)
                addressed = [[name, *seed] for name, seed in request.seeds.items()]
                run.remember(REPLAYED, [loaded.checkpoint_id, loaded.rev, addressed, request.as_of])
        elif loaded.source == "fork" and REPLAYED in loaded.facts and (value is None or isinstance(value, Command)):
            id_, rev, addressed, as_of = loaded.facts[REPLAYED]
            if id_ == loaded.parent_id:
                # The replay of a nested checkpoint was stopped before it came there: it goes on.
                request.seeds = {name: (ns, nested_id) for name, ns, nested_id in addressed}
                run.stood = Stood("", id_, rev, as_of)
        return run
    run.continues = loaded.parents.get(around.ns) == around.checkpoint_id
    if caller is not None and run.facts.get(CALLER) != caller:
        # Several tasks that a body calls one after the other may run it, each with an input of its own.
        run.continues = run.continues and CALLER not in run.facts
        run.remember(CALLER, caller)
    run.stood = request.stood
    if request.checkpoint_id is not None:
        # The caller named this nested checkpoint: it continues, and what came after it is run again.
        run.continues = True
        run.replaying = around.replayed or around.stood is not None
        if loaded.checkpoint_ns != request.ns:
            run.transplant()
    return run


def _start_of(request: Request) -> places.Looked[LoadedCheckpoint]:
    """The state that a run starts from, asked of the saver."""
    around = request.parent_run
    if request.seeds:
        request.as_of = yield from _as_of(request)
    found: LoadedCheckpoint = yield "load", (), load_arguments(request)
    if around is None:
        return found if request.called is None else (yield from _recalled(request, found))
    config = address(request, request.ns)
    is_open = found.checkpoint_id is not None and found.parents.get(around.ns) == around.checkpoint_id
    again = around.replaying or (around.stood is not None and around.resumed)
    # Only the superstep that was open then has the addressed runs in it, not those that come later.
    seed = _seed_of(request, around) if around.resumed else None
    if again and seed is None and around.stood is not None and (not is_open or found.source == "fork"):
        seed = yield from _stood_at(request, around, around.stood)
        if seed is None:
            found = yield "load", (), load_arguments(request)  # the saver remembers what was asked for last
    if seed is not None:
        named: LoadedCheckpoint = yield "load", (address(request, *seed),), {"claim": found.claim}
        # On the branch of the replay it may have gone on already: then what comes did not run when that was made.
        goes_on = is_open and again and found.source != "fork"
        if named.checkpoint_id is not None and around.stood is not None and not goes_on:
            request.stood = Stood(named.checkpoint_ns, named.checkpoint_id, named.rev, around.stood.as_of)
        if is_open and again:
            found = yield "load", (), load_arguments(request)
        elif named.checkpoint_id is not None:
            request.checkpoint_id = named.checkpoint_id
            return named
    if is_open and again:
        return found  # left by an earlier attempt of this very task, or by the call that the replay was stopped in
    root = around.root
    if request.stable_ns and not found.is_head and not is_open and root.request.checkpoint_id is None:
        edit = yield from places.edit_after(config, found, root.loaded.rev if root.loaded is not None else 0)
        if edit is not None:
            found = yield "load", (address(request, request.ns, edit),), {"claim": found.claim}
    return found


def _as_of(request: Request) -> places.Looked[str]:
    """The newest of the nested checkpoints that a call addresses, which says what had happened beside it by then.

    An edit stands where what it was made of stood: the runs beside it may have gone on before it was made, and may have
    been edited themselves.
    """
    ns, newest = max(request.seeds.values(), key=lambda seed: seed[1])
    stood: LoadedCheckpoint = yield "load", (address(request, ns, newest),), {}
    while stood.source == "update" and stood.parent_id is not None:
        stood = yield "load", (address(request, ns, stood.parent_id),), {}
    return max([id_ for _, id_ in request.seeds.values() if id_ != newest] + [stood.checkpoint_id or newest])


def _recalled(request: Request, head: LoadedCheckpoint) -> places.Looked[LoadedCheckpoint]:
    """Where a call begins that may have been made before; `head`: the newest checkpoint of its thread."""
    newest = address(request, "")
    while not repeat.meets(request, head):
        at = yield "last_of_run", (newest, request.called.run_id), {}
        answered = repeat.answered_at(request, head) if at is None else None
        if at is None and answered is None:
            break
        past: LoadedCheckpoint = yield "load", (address(request, "", at or answered),), {}
        found = repeat.recalls(request, past, head, answered=at is None)
        if found is not None:
            head = found
            break
        now: LoadedCheckpoint = yield "load", (newest,), {}
        if now.checkpoint_id == head.checkpoint_id:
            raise repeat.superseded(request, past)
        head = now  # another process has gone on meanwhile
    if request.called.mode != "new":
        # It begins where it has come to, whatever checkpoint it addressed.
        request.checkpoint_id = None
        request.seeds = {}
    elif request.checkpoint_id:
        head = yield "load", (address(request, "", request.checkpoint_id),), {}
    return head


def _seed_of(request: Request, around: RunState) -> tuple[str, str] | None:
    """(namespace, checkpoint id) of the nested checkpoint that was addressed for this run; given once."""
    seeds = around.root.request.seeds
    if not seeds:
        return None
    name = _seeded(request, around, seeds)
    if name not in seeds or (around.stood is None and around.root.stood is not None):
        return None
    if around.stood is not None and not request.stable_ns:
        # Of several tasks of one node: the one that it belonged to. A node that was renamed is known by its names alone.
        assert request.parent is not None
        former = namespace.nested_ns(around.stood_ns_of(request.parent.task), request.call_number, request.key)
        if seeds[name][0] != former and namespace.stable(former) == name:
            return None
    return seeds.pop(name)


def _seeded(request: Request, around: RunState, seeds: Mapping[str, Any]) -> str:
    """The namespace without task ids under which a nested checkpoint may have been addressed for this run."""
    assert request.parent is not None
    names = around.stable_names(request.parent.task)
    former = [namespace.nested_ns(name, request.call_number, request.key) for name in names]
    own = namespace.stable(request.ns)
    return next((name for name in (own, *former) if name in seeds), own)


def _stood_at(request: Request, around: RunState, then: Stood) -> places.Looked[tuple[str, str] | None]:
    """Where a nested run of a replayed superstep stood when the addressed checkpoint was made: namespace, checkpoint id."""
    assert request.parent is not None
    ns = request.ns
    if not request.stable_ns:
        ns = namespace.nested_ns(around.stood_ns_of(request.parent.task), request.call_number, request.key)
    addressed: LoadedCheckpoint = yield "load", (address(request, ns, then.as_of),), {"claim": around.claim}
    if addressed.checkpoint_id == then.as_of:
        return ns, then.as_of
    before = then.as_of
    while True:
        # Not the newest one and what it follows on: that may be an edit of an older one, which came after.
        options = {"before": address(request, ns, before), "limit": PAGE, "channels": ()}
        page: list[LoadedCheckpoint] = yield "history", (address(request, ns),), options
        for stood in page:
            if stood.checkpoint_id is not None and stood.parents.get(then.ns) == then.checkpoint_id:
                return ns, stood.checkpoint_id
        last = page[-1].checkpoint_id if len(page) == PAGE else None
        if last is None or last < then.checkpoint_id:
            return None
        before = last


def _plain(durability: Any) -> str:
    """What the drivers and the saver see: storing now and then is storing at the end, more than once."""
    return "exit" if isinstance(durability, Every) else durability


def unstored(request: Request) -> LoadedCheckpoint | None:
    """Durability `exit`: the state that an earlier attempt or call in this very run left, if it is nowhere else."""
    around = request.parent_run
    if not request.deferred or around is None:
        return None
    outer: RunState | None = around
    while outer is not None:
        for run, held, _ in reversed(outer.open_runs):
            inside = run.request.parent_run
            if run.ns == request.ns and inside is not None and inside.checkpoint_id == around.checkpoint_id:
                return snapshot.kept(run, held)
        outer = outer.request.parent_run
    return around.root.finished.get(request.ns) if request.stable_ns else None


def hold_of(request: Request, loop: Any = None) -> Hold:
    """A root run's hold of its thread, not taken yet. `loop`: the event loop that will drive it."""
    assert request.thread_id is not None
    hold = request.hold = Hold(request.saver.holders, request.thread_id, request.run_id, loop)
    return hold


def rest(request: Request) -> None:
    """A nested run may stand still from here on, as a stream does between two chunks: nobody waits for its questions."""
    if request.parent is not None:
        request.parent.questions.going_on.discard(request)
        request.parent.questions.stir()


def enter(request: Request, load_: Callable[[], LoadedCheckpoint] | None = None) -> LoadedCheckpoint | None:
    """Wait for the thread as the call says, and load the state that the run starts from, or what `load_` says.

    Raises:
        ThreadBusyError: another run holds the thread.
    """
    turn: Turn | None = request.turn
    if turn is None:
        return load(request)
    hold = hold_of(request)
    turns.take(hold, turn, request.caller)
    try:
        _refuse_beside_itself(request)
        found = load_() if load_ is not None else load(request)
        assert found is not None
        while (nap := turn.leased(hold, found)) is not None:
            time.sleep(nap)
            found = load_() if load_ is not None else load(request)
            assert found is not None
        if settle_in(hold, found):
            request.saver.open_lane(found.claim)
    except BaseException:
        hold.release()
        raise
    return found


async def aenter(
    request: Request, alarm: Any, load_: Callable[[], Awaitable[LoadedCheckpoint]] | None = None
) -> LoadedCheckpoint | None:
    """Async form of `enter`. `alarm`: the class of what a coroutine sleeps on."""
    turn: Turn | None = request.turn
    if turn is None:
        return await aload(request)
    hold = hold_of(request, alarm.running_loop())
    await turns.atake(hold, turn, request.caller, alarm)
    try:
        _refuse_beside_itself(request)
        found = await load_() if load_ is not None else await aload(request)
        assert found is not None
        while (nap := turn.leased(hold, found)) is not None:
            await alarm().sleep(nap)
            found = await load_() if load_ is not None else await aload(request)
            assert found is not None
        if settle_in(hold, found):
            await request.saver.aopen_lane(found.claim)
    except BaseException:
        hold.release()
        raise
    return found


def _refuse_beside_itself(request: Request) -> None:
    """A call that is being executed is not made on a branch as well: it would be applied twice.

    Raises:
        ThreadBusyError: that is what it would do.
    """
    hold: Hold = request.hold
    if request.called is not None and hold.beside:
        holder = hold.holders.holder(hold.thread_id)
        if holder is not None and holder.run_id == hold.run_id:
            raise turns.busy(hold, holder)


def settle_in(hold: Hold, found: LoadedCheckpoint) -> bool:
    """What the run starts from is loaded: an evicted run is refused from here on. Must it go into a lane?"""
    hold.claim = found.claim
    hold.settle_evicted(found.checkpoint_id)
    return hold.beside


def again(request: Request, run: Run, error: BaseException) -> bool:
    """Is a call whose first write was refused to be tried once more?"""
    turn: Turn | None = request.turn
    return turn is not None and turn.again(error, run.loaded)


def load(request: Request) -> LoadedCheckpoint | None:
    """The state that a run starts from."""
    if not request.stores:
        return None
    kept = unstored(request)
    return kept if kept is not None else places.ask(request.saver, _start_of(request))


async def aload(request: Request) -> LoadedCheckpoint | None:
    """Async form of `load`."""
    if not request.stores:
        return None
    kept = unstored(request)
    return kept if kept is not None else await places.aask(request.saver, _start_of(request))


def address(request: Request, ns: str, checkpoint_id: str | None = None) -> RunnableConfig:
    """The config of a checkpoint of the request's thread; of the newest of its namespace."""
    configurable: dict[str, Any] = {"thread_id": request.thread_id, "checkpoint_ns": ns}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def runtime_of(run: RunState, scope: TaskScope) -> Runtime[Any]:
    """The `Runtime` of a task."""
    request = run.request
    task: Any = scope.task
    task.first_attempt_at = task.first_attempt_at or request.clock()
    previous = None
    if PREVIOUS in run.program.channels:
        try:
            previous = plan.own_copy(run, run.channels[PREVIOUS].get())
        except EmptyChannelError:
            previous = None
    elif task.parent is not None and task.parent.scope is not None:
        previous = task.parent.scope.runtime.previous
    return Runtime(
        context=request.context,
        store=request.store,
        stream_writer=scope.emit if "custom" in run.sees else no_write,
        heartbeat=scope.beat,
        previous=previous,
        execution_info=ExecutionInfo(
            checkpoint_id=run.checkpoint_id,
            checkpoint_ns=run.ns_of(task),
            task_id=run.id_of(task),
            thread_id=request.thread_id,
            run_id=request.run_id,
            node_attempt=scope.attempt,
            node_first_attempt_time=task.first_attempt_at,
        ),
        server_info=_server_info(request.configurable),
        control=request.control,
        task_scope=scope,
        over=scope.is_over,
    )


def _server_info(configurable: Mapping[str, Any]) -> ServerInfo | None:
    user = configurable.get("langgraph_auth_user")
    user = user if hasattr(user, "identity") else None
    assistant, graph = configurable.get("assistant_id"), configurable.get("graph_id")
    if user is None and assistant is None and graph is None:
        return None
    return ServerInfo(str(assistant or ""), str(graph or ""), user)


def _context(schema: Any, given: Any) -> Any:
    """The context as the schema's type: a dict becomes a model or dataclass, anything else passes (frontends.md 2.9)."""
    if schema is None or not isinstance(given, dict) or not isinstance(schema, type):
        return given
    if hasattr(schema, "model_validate") or hasattr(schema, "__dataclass_fields__"):
        return schema(**given)
    return given


# ---- the shapes in which chunks and results are delivered


def shape(chunk: tuple[tuple[str, ...], str, Any], *, many: bool, subgraphs: bool, v2: bool, graph: Any) -> Any:
    """A chunk as the caller sees it (engine.md 3.7)."""
    path, mode, payload = chunk
    if v2:
        part: dict[str, Any] = {"type": mode, "ns": path, "data": payload}
        if mode == "values":
            asked = isinstance(payload, view.Asked)
            value = payload.value if asked else payload
            part["data"] = graph.coerce_output(value) if path == () else value
            part["interrupts"] = payload.interrupts if asked else ()
        return part
    if isinstance(payload, view.Asked):
        payload = with_interrupts(payload.value, payload.interrupts)
    if subgraphs:
        return (path, mode, payload) if many else (path, payload)
    return (mode, payload) if many else payload


def with_interrupts(value: Any, interrupts: Any) -> Any:
    """A values payload that also names the open questions."""
    return {**value, "__interrupt__": interrupts} if isinstance(value, dict) else {"__interrupt__": interrupts}


def answer(run: Run, *, v2: bool, graph: Any) -> Any:
    """What `invoke` returns for a run that has ended."""
    value = view.result(run)
    if v2:
        place = None
        if run.stores and run.rev:
            place = address(run.request, run.ns, run.checkpoint_id)
        return GraphOutput(graph.coerce_output(value), tuple(run.interrupts), place)
    return with_interrupts(value, list(run.interrupts)) if run.interrupts else value


def own_writes(run: Run) -> Any:
    """The output of a graph that ran as a node: what its nodes wrote, without what it was given (promise 20)."""
    value = view.result(run)
    keys = run.request.output_keys
    if isinstance(keys, str) or not isinstance(value, dict):
        return value
    entered = run.entry_version()
    return {key: item for key, item in value.items() if key in run.versions and count_of(run.versions[key]) > entered}


def is_live(request: Request) -> bool:
    """Must chunks leave while bodies run, because of a call further out?"""
    return bool(request.outlets) and (
        not LIVE.isdisjoint(request.modes) or any(outlet.subgraphs for outlet in request.outlets)
    )


def gather(
    calls: Sequence[Callable[[], Any]], given: Sequence[Any], controls: Sequence[RunControl] = ()
) -> list[tuple[Any, BaseException | None]]:
    """Run the calls on workers, at most `max_concurrency` of the first config at once; (result, error) in order."""
    outcomes: list[tuple[Any, BaseException | None]] = [(None, None)] * len(calls)
    for index, result, error in as_completed(calls, given, controls):
        outcomes[index] = result, error
    return outcomes


def as_completed(
    calls: Sequence[Callable[[], Any]], given: Sequence[Any], controls: Sequence[RunControl] = ()
) -> Generator[tuple[int, Any, BaseException | None], None, None]:
    """The same, as they end: (index, result, error).

    Whoever leaves before the last, as a Ctrl-C does, does not wait for the others: `controls` end them at their next
    superstep.
    """
    ended: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()
    limit = (given[0] or {}).get("max_concurrency") if given else None
    gate = Gate(limit) if limit else None

    def run(index: int, context: Context) -> None:
        result, failure = None, None
        try:
            result = context.run(calls[index])
        except BaseException as error:  # noqa: BLE001 - reported to the caller
            failure = error
        if gate is not None:
            gate.leave()
        ended.put((index, result, failure))

    for index in range(len(calls)):
        job = Job(partial(run, index, copy_context()))
        if gate is None:
            workers.submit(job)
        else:
            gate.enter(partial(workers.submit, job))
    try:
        for _ in calls:
            yield wait_for(ended)
    except BaseException:
        for control in controls:
            control.request_drain("interrupted")
        raise
