"""From the arguments of a call to a run: the request, the saver, where chunks go, and what the run continues.

Decides how configs merge, whether a call is a root run or nested in the task around it, which saver it uses and under
which namespace (engine.md 6.1, 6.2, 9.1; D34). Runs nothing; both colours of `pregel.pregel` start here.
"""

from __future__ import annotations

import random
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Final

from checkpoint import ids
from checkpoint.adapter import adapt
from checkpoint.base import RunnableConfig, get_checkpoint_metadata
from pregel import _langchain, _scope
from pregel import config as configs
from pregel._scope import TaskScope
from pregel.constants import SCOPE_KEY
from pregel.engine import namespace, occupancy, repeat
from pregel.engine.limited import Limits
from pregel.engine.occupancy import Step
from pregel.engine.report import REPORTS
from pregel.engine.state import Breakpoints, Pace, Request, RunState
from pregel.engine.task import COPIERS, NO_COPIES
from pregel.engine.workers import Gate
from pregel.errors import ErrorCode, shown
from pregel.pregel._graph import Graph
from pregel.pregel._runtime import runtime_of
from pregel.pregel._stream import Outlet
from pregel.pregel._turns import Turn
from pregel.runtime import RunControl
from pregel.types import Durability, Every
from pregel.warnings import emit, stack_level

DURABILITIES = ("sync", "async", "exit")
NOTHING: frozenset[str] = frozenset()
NONE_KEPT: Final[Breakpoints] = ({}, None)
"""A call that says nothing of breakpoints."""
clock = time.time
"""What runs call the time, in Unix seconds: of checkpoints, and of deadlines of questions."""
_entering = Lock()


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
    request = Request()
    bound = graph.config
    parent = parent_of(configs.merge(bound, call.config) if bound and configs.addresses(bound) else call.config)
    around: RunState | None = parent.host if parent is not None else None
    request.parent = parent
    request.parent_run = around
    _set_config(request, graph, call)
    _set_place(request, graph, call)
    _set_stops(request, graph, call)
    if graph.cache is not None or around is not None:
        _set_cache(request, graph)
    _set_world(request, graph)
    _set_output_keys(request, graph, call)
    context = call.context if graph.context_schema is None else _context(graph.context_schema, call.context)
    if around is None:
        _begin_root(request, graph, call, context, value)
    else:
        _inherit(request, call, context, around.request)
    if call.deadline is not None or call.max_steps is not None:
        _set_limits(request, call)
    _set_outlets(request, call)
    if request.config.get("callbacks"):
        _set_observer(request, graph, call)
    if parent is not None:
        parent.questions.going_on.add(request)
    return request


def _set_world(request: Request, graph: Graph) -> None:
    """How the graph treats values and failures; and what the core does not have itself: time, ids, chance."""
    request.retry_policy = graph.retry_policy
    request.copiers = NO_COPIES if graph.isolate == "off" else COPIERS
    request.strict = graph.strict
    request.clock = clock
    request.monotonic = time.monotonic
    request.jitter = _jitter
    request.new_id = ids.checkpoint_id
    request.runtime = runtime_of


def _set_stops(request: Request, graph: Graph, call: Call) -> None:
    """After how many supersteps the run is stopped, and at which nodes."""
    config = request.config
    request.limit = config.get("recursion_limit") or configs.DEFAULT_RECURSION_LIMIT
    if "recursion_limit" in config and config["recursion_limit"] < 1:
        raise ValueError(f"recursion_limit must be at least 1, got {config['recursion_limit']}")
    before = call.interrupt_before or graph.interrupt_before_nodes
    after = call.interrupt_after or graph.interrupt_after_nodes
    request.interrupt_before = _names(before) if before else ()
    request.interrupt_after = _names(after) if after else ()
    is_asked = call.interrupt_before is not None or call.interrupt_after is not None
    request.breakpoints = _kept(request, graph, call) if is_asked or call.keep_breakpoints is not None else NONE_KEPT


def _set_output_keys(request: Request, graph: Graph, call: Call) -> None:
    """Which channels the results show."""
    program = graph.program
    if _langchain.RUNNABLES in _langchain.modules:
        _langchain.lend_to_all(program.nodes)
    keys = call.output_keys
    if keys is None:
        request.output_keys = program.output_channels
        return
    for key in [keys] if isinstance(keys, str) else keys:
        if key not in program.channels:
            raise ValueError(f"output key {key!r} is not a channel of graph {graph.name!r}: {list(program.channels)}")
    request.output_keys = keys


def _begin_root(request: Request, graph: Graph, call: Call, context: Any, value: Any) -> None:
    """What a root run has of its own: a store, a control, a turn, a limit of bodies."""
    request.context = context
    request.store = graph.store
    request.control = call.control or RunControl()
    request.caller = _scope.current_or_none()
    if request.stores or call.on_conflict is not None or call.timeout is not None:
        _set_turn(request, graph, call)
    if request.stores and value is not None:
        _set_called(request, graph, call, value)
    limit = request.config.get("max_concurrency")
    request.gate = Gate(limit) if limit else None
    request.prompt = request.control.drain_deadline is not None


def _inherit(request: Request, call: Call, context: Any, asked: Request) -> None:
    """What a nested run has of the one around it."""
    request.limits = asked.limits
    request.context = asked.context if context is None else context
    request.store = asked.store
    request.control = call.control or asked.control
    request.gate = asked.gate


def _set_outlets(request: Request, call: Call) -> None:
    """Where chunks go: to who called, and to those further out who listen to nested runs."""
    around = request.parent_run
    outlets: tuple[Any, ...] = ()
    if around is not None and around.outlets:
        outlets = tuple(outlet for outlet in around.outlets if outlet.subgraphs)
    if call.outlet is not None:
        call.outlet.path = namespace.path_of(request.ns)
        outlets += (call.outlet,)
    request.outlets = outlets
    request.modes = frozenset().union(*(outlet.modes for outlet in outlets)) if outlets else NOTHING


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
    if call.turn is None:
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
    durability = call.durability
    if durability is not None and durability not in DURABILITIES and not isinstance(durability, Every):
        raise ValueError(f"durability must be one of {DURABILITIES} or Every(...), got {shown(durability)}")
    request.key = None if call.key is None else namespace.check_key(call.key)
    request.call_number = 0
    request.stable_ns = False
    request.checkpoint_id = None
    request.seeds = {}
    request.pace = None
    if request.parent_run is None:
        _set_root_place(request, graph, call)
    else:
        _set_nested_place(request, graph, durability)


def _set_nested_place(request: Request, graph: Graph, durability: Any) -> None:
    """In the saver of the run around it, with that run's steps."""
    around, parent = request.parent_run, request.parent
    assert around is not None
    assert parent is not None
    asked = around.request
    request.saver = None if graph.checkpointer is False else asked.saver
    request.stores = request.saver is not None
    request.durability = asked.durability if durability is None else _plain(durability)
    request.deferred = request.durability == "exit"
    request.stored_metadata = asked.stored_metadata
    request.ns_ = None
    request.call_number = parent.count_graph(request.key)
    request.stable_ns = graph.checkpointer is True
    if request.stable_ns and request.stores:
        _occupy(request, graph)


def _set_root_place(request: Request, graph: Graph, call: Call) -> None:
    """In the graph's own saver, on the thread that the config names."""
    durability = call.durability
    if graph.checkpointer is True:
        raise RuntimeError(
            f"graph {graph.name!r} was compiled with checkpointer=True, which means 'use the parent graph's saver'; as a "
            f"root graph it needs a saver of its own"
        )
    request.ns_ = ""
    request.saver = adapt(graph.checkpointer) if graph.checkpointer else None
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
                stacklevel=stack_level(),
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


def _plain(durability: Any) -> str:
    """What the drivers and the saver see: storing now and then is storing at the end, more than once."""
    return "exit" if isinstance(durability, Every) else durability


def address(request: Request, ns: str, checkpoint_id: str | None = None) -> RunnableConfig:
    """The config of a checkpoint of the request's thread; of the newest of its namespace."""
    configurable: dict[str, Any] = {"thread_id": request.thread_id, "checkpoint_ns": ns}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def _context(schema: Any, given: Any) -> Any:
    """The context as the schema's type: a dict becomes a model or dataclass, anything else passes (frontends.md 2.9)."""
    if schema is None or not isinstance(given, dict) or not isinstance(schema, type):
        return given
    if hasattr(schema, "model_validate") or hasattr(schema, "__dataclass_fields__"):
        return schema(**given)
    return given


# ---- the shapes in which chunks and results are delivered


def durability_of(
    graph: Graph, durability: Durability | Every | None, more: dict[str, Any]
) -> Durability | Every | None:
    """The durability, also in its deprecated spelling; what else is in `more` and no call takes is warned of."""
    if "checkpoint_during" in more:
        during = more.pop("checkpoint_during")
        if durability is not None:
            raise ValueError("give durability or checkpoint_during, not both; checkpoint_during is the older name")
        if during is not None:
            durability = "async" if during else "exit"
    check_arguments(graph, more)
    return durability
