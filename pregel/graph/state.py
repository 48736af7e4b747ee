"""`StateGraph`: where a user declares nodes and edges over a shared state.

Decides what a declaration means and refuses what cannot mean anything (engine.md 4.1-4.9). Knows schemas, names and
policies; how they become channels and writers is `pregel.graph.compile`'s business. A builder never runs anything.

Invariants
1. Names are exact strings from the moment they come in (amendments A22).
2. `compile` reads the builder and leaves it as it is.
"""

from __future__ import annotations

import sys
import typing
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Generic, Self

from pregel._call import prepare
from pregel._policies import retry_policies
from pregel.channels import LastValue
from pregel.constants import END, NS_END, NS_SEP, START
from pregel.errors import nearest, shown
from pregel.graph.branch import Branch, private_schema
from pregel.graph.compile import CompiledStateGraph, ContextT, InputT, OutputT, StateT, compile_graph
from pregel.graph.declared import StateNodeSpec
from pregel.graph.mistakes import DEAD_JOIN, find_mistakes
from pregel.graph.schema import Channel, describe, plain, same_channel
from pregel.managed import ManagedValue
from pregel.types import (
    All,
    CachePolicy,
    Checkpointer,
    RetryPolicy,
    TimeoutPolicy,
    TracePolicy,
    ensure_valid_checkpointer,
)
from pregel.warnings import PregelDeprecationWarning, PregelWarning, emit

__all__ = ["CompiledStateGraph", "StateGraph", "StateNodeSpec"]

_HANDLER = "__error_handler__{}"
_DEFAULT_HANDLER = "__default_error_handler__"


class StateGraph(Generic[StateT, ContextT, InputT, OutputT]):
    """A graph whose nodes read a shared state and return updates to it.

    Args:
        state_schema: A TypedDict, dataclass, pydantic model or annotated class, one channel per field; or any other
            type, whose whole value is the state. `Annotated[T, reducer]` says how updates of a key are folded in.
        context_schema: Type of `runtime.context`.
        input_schema: Keys that the input may set; the state schema if None.
        output_schema: Keys that are returned; the state schema if None.

    Attributes:
        nodes: Name -> `StateNodeSpec`, in order of addition.
        edges: Pairs of (source, target).
        waiting_edges: Pairs of (sources, target): the target runs when all sources have.
        inclusive: Such a pair -> what was said about the target if only some have, see `add_edge`.
        branches: Source -> name of the path -> `Branch`.
        channels: Key -> channel, of all schemas so far.
        managed: Key -> managed value class.
        schemas: Schema -> its keys with their channel or managed value class.
        compiled: Whether `compile` was called; later additions need another call.

    Raises:
        ValueError: A schema that makes no channels; see `pregel.graph.schema`.
    """

    def __init__(
        self,
        state_schema: type[StateT],
        context_schema: type[ContextT] | None = None,
        *,
        input_schema: type[InputT] | None = None,
        output_schema: type[OutputT] | None = None,
        **deprecated: Any,
    ) -> None:
        context_schema = _renamed(deprecated, "config_schema", "context_schema", context_schema)
        input_schema = _renamed(deprecated, "input", "input_schema", input_schema)
        output_schema = _renamed(deprecated, "output", "output_schema", output_schema)
        _refuse_unknown(deprecated, "StateGraph")
        if not isinstance(state_schema, type) and typing.get_origin(state_schema) is None:
            warnings.warn(
                f"state schema {shown(state_schema)} is not a type; expected a class with annotations, another type, "
                f"or Annotated[type, reducer]",
                PregelWarning,
                stacklevel=2,
            )
        self.nodes: dict[str, StateNodeSpec] = {}
        self.edges: set[tuple[str, str]] = set()
        self.waiting_edges: set[tuple[tuple[str, ...], str]] = set()
        self.inclusive: dict[tuple[tuple[str, ...], str], bool | None] = {}
        self.branches: defaultdict[str, dict[str, Branch]] = defaultdict(dict)
        self.channels: dict[str, Channel] = {}
        self.managed: dict[str, type[ManagedValue[Any]]] = {}
        self.schemas: dict[Any, dict[str, Any]] = {}
        self.compiled = False
        self.state_schema: Any = state_schema
        self.input_schema: Any = state_schema if input_schema is None else input_schema
        self.output_schema: Any = state_schema if output_schema is None else output_schema
        self.context_schema: Any = context_schema
        self._defaults: dict[str, Any] = {}
        self._add_schema(self.state_schema)
        self._add_schema(self.input_schema, role="input")
        self._add_schema(self.output_schema, role="output")

    # ---- nodes

    def add_node(
        self,
        node: str | Callable[..., Any] | Any,
        action: Callable[..., Any] | Any | None = None,
        *,
        defer: bool = False,
        metadata: dict[str, Any] | None = None,
        input_schema: type[Any] | None = None,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
        cache_policy: CachePolicy[Any] | None = None,
        error_handler: Callable[..., Any] | None = None,
        timeout: float | timedelta | TimeoutPolicy | None = None,
        destinations: dict[str, str] | tuple[str, ...] | None = None,
        trace_policy: TracePolicy | None = None,
        aliases: str | Sequence[str] = (),
        **deprecated: Any,
    ) -> Self:
        """Add a node: `add_node(fn)`, `add_node("name", fn)`, or the same with a compiled graph or runnable.

        Args:
            node: the name, or what runs; then its own name is taken.
            action: what runs, if `node` is the name.
            defer: run only when nothing else is left to run.
            metadata: merged into the metadata of its tasks.
            input_schema: what the node receives; else the annotation of its first parameter, else the state schema.
            retry_policy: one, or several of which the first that matches is used.
            cache_policy: reuse results for equal inputs, in a graph that has a cache.
            error_handler: runs in place of the node when its retries are used up.
            timeout: seconds, timedelta or policy, for each attempt.
            destinations: where its Commands may go, or destination -> label; for validation and drawing only.
            trace_policy: what observers record.
            aliases: names that the node had in earlier versions of the graph. Whatever threads have stored under them
                goes on here: paused tasks with their questions and results, Sends, `goto`, nested graphs.
            deprecated: `input` and `retry`, former names.

        Raises:
            ValueError: the name is taken or reserved.
            RuntimeError: a name without anything to run.
            TypeError: what is to run cannot be called.
        """
        input_schema = _renamed(deprecated, "input", "input_schema", input_schema)
        retry_policy = _renamed(deprecated, "retry", "retry_policy", retry_policy)
        _refuse_unknown(deprecated, "add_node")
        retry_policies(retry_policy, "add_node")
        if isinstance(node, str):
            if action is None:
                raise RuntimeError(f"add_node({node!r}) names a node but not what it runs; give it as second argument")
            call = prepare(action, name=plain(node))
        else:
            action = node
            call = prepare(node)
            if type(call.name) is not str:
                call = prepare(node, name=plain(call.name))
        name = call.name
        self._note_late_change("node", name)
        self._check_new_name(name)
        schema = input_schema
        if schema is None:
            schema = private_schema(action) or self.state_schema
        handler_name: str | None = None
        if error_handler is not None:
            handler_name = _HANDLER.format(name)
            if handler_name in self.nodes:
                raise ValueError(f"node {name!r}: there is already a node {handler_name!r}, the name its handler needs")
        self._add_schema(schema)
        former = tuple(map(plain, (aliases,) if isinstance(aliases, str) else aliases))
        if handler_name is not None:
            handler = prepare(error_handler, name=handler_name)
            self.nodes[handler_name] = StateNodeSpec(
                handler,
                None,
                schema,
                ends=handler.ends,
                is_error_handler=True,
                aliases=tuple(map(_HANDLER.format, former)),
            )
        ends: Any = call.ends
        if destinations is not None:
            ends = destinations if isinstance(destinations, dict) else tuple(map(plain, destinations))
        self.nodes[name] = StateNodeSpec(
            call,
            metadata,
            schema,
            retry_policy,
            cache_policy,
            ends,
            defer,
            TimeoutPolicy.coerce(timeout),
            False,
            handler_name,
            trace_policy,
            former,
        )
        return self

    def set_node_defaults(
        self,
        *,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
        cache_policy: CachePolicy[Any] | None = None,
        error_handler: Callable[..., Any] | None = None,
        timeout: float | timedelta | TimeoutPolicy | None = None,
    ) -> Self:
        """Set policies for all nodes that have none of their own; applied by `compile`, calls add up.

        Retries and timeouts also hold for error handlers. Nested graphs do not inherit them.
        """
        retry_policies(retry_policy, "set_node_defaults")
        given = {
            "retry_policy": retry_policy,
            "cache_policy": cache_policy,
            "error_handler": error_handler,
            "timeout": TimeoutPolicy.coerce(timeout),
        }
        self._defaults.update({name: value for name, value in given.items() if value is not None})
        return self

    # ---- edges

    def add_edge(self, start_key: str | Sequence[str], end_key: str, *, inclusive: bool | None = None) -> Self:
        """Run `end_key` after `start_key`; after all of them if `start_key` is a list.

        Args:
            start_key: A node or START, or a list of nodes.
            end_key: A node or END.
            inclusive: Of a list edge, what happens if some sources ran, others did not, and nothing else is left to run.
                True: `end_key` runs once, after those that did. False: it does not run. None: it does not run either,
                and the run ends with a `PregelWarning` that names them.

        Raises:
            ValueError: an edge from END or to START, a list edge with a node that does not exist yet, or `inclusive` for
                an edge with one source.
        """
        target = plain(end_key)
        if target == START:
            raise ValueError(f"edge {shown(start_key)} -> START: START has no incoming edges; name the node to run")
        if isinstance(start_key, str):
            source = plain(start_key)
            if inclusive is not None:
                raise ValueError(f"edge {source!r} -> {target!r}: inclusive= is for a list of sources; leave it out")
            if source == END:
                raise ValueError(f"edge END -> {target!r}: nothing runs after END; name the node it should follow")
            self._note_late_change("edge", f"{source} -> {target}")
            self.edges.add((source, target))
            return self
        sources = tuple(map(plain, start_key))
        for source in sources:
            if source == END:
                raise ValueError(f"edge {shown(sources)} -> {target!r}: nothing runs after END; leave it out")
            self._need(source, f"edge {shown(sources)} -> {target!r}")
        if target != END:
            self._need(target, f"edge {shown(sources)} -> {target!r}")
        if not sources:
            raise ValueError(f"edge [] -> {target!r} names no source; give at least one node")
        self._note_late_change("edge", f"{sources} -> {target}")
        self.waiting_edges.add((sources, target))
        self.inclusive[sources, target] = inclusive
        return self

    def add_conditional_edges(
        self,
        source: str,
        path: Callable[..., Any] | Any,
        path_map: Mapping[Hashable, str] | Sequence[str] | None = None,
    ) -> Self:
        """Run what `path(state)` returns after `source`: a node name, END, a Send, or a list of these.

        Args:
            source: node, or START.
            path: sees the state with the updates of `source` applied.
            path_map: result -> node name, or the list of possible names; without it the `Literal[...]` in the return
                annotation of `path`, if there is one.

        Raises:
            ValueError: `source` already has a conditional edge of this name.
        """
        source = plain(source)
        branch = Branch.declare(path, path_map)
        if branch.name in self.branches.get(source, ()):
            raise ValueError(
                f"node {source!r} already has a conditional edge named {branch.name!r}; give the path another name"
            )
        self._note_late_change("conditional edge", source)
        if branch.input_schema is not None:
            self._add_schema(branch.input_schema)
        self.branches[source][branch.name] = branch
        return self

    def add_sequence(self, nodes: Sequence[Any]) -> Self:
        """Add nodes and an edge from each to the next. Items as in `add_node`, or pairs of (name, what runs).

        Raises:
            ValueError: no nodes, or a name twice.
        """
        if not nodes:
            raise ValueError("add_sequence got no nodes; give at least one")
        previous: str | None = None
        for item in nodes:
            name, action = item if isinstance(item, tuple) and len(item) == 2 else (None, item)
            name = plain(prepare(action).name if name is None else name)
            if name in self.nodes:
                raise ValueError(f"add_sequence: there is already a node {name!r}; pass (name, function) to rename it")
            self.add_node(name, action)
            if previous is not None:
                self.add_edge(previous, name)
            previous = name
        return self

    def set_entry_point(self, key: str) -> Self:
        """The same as `add_edge(START, key)`."""
        return self.add_edge(START, key)

    def set_finish_point(self, key: str) -> Self:
        """The same as `add_edge(key, END)`."""
        return self.add_edge(key, END)

    def set_conditional_entry_point(
        self, path: Callable[..., Any] | Any, path_map: Mapping[Hashable, str] | Sequence[str] | None = None
    ) -> Self:
        """The same as `add_conditional_edges(START, path, path_map)`."""
        return self.add_conditional_edges(START, path, path_map)

    # ---- compiling

    def validate(self, interrupt: Sequence[str] | None = None) -> Self:
        """Check that every edge joins nodes that exist and that something starts.

        Args:
            interrupt: node names of breakpoints, which must exist as well.

        Raises:
            ValueError: the first thing that is wrong.
        """
        nodes = self.nodes
        sources = {source for source, _ in self.edges}
        sources.update(source for many, _ in self.waiting_edges for source in many)
        sources.update(self.branches)
        for source in sorted(sources - nodes.keys() - {START}):
            raise ValueError(f"an edge starts at {source!r}, which is not a node; {nearest(source, nodes)}")
        if START not in sources:
            raise ValueError("the graph has no entry; add an edge from START to the node that runs first")
        for source, branches in self.branches.items():
            for name, branch in branches.items():
                for end in (branch.ends or {}).values():
                    if end not in nodes and end != END:
                        raise ValueError(
                            f"conditional edge {name!r} of {source!r} may go to {end!r}, which is not a node; "
                            f"{nearest(end, nodes)}"
                        )
        all_edges: list[tuple[Any, str]] = [*self.edges, *self.waiting_edges]
        for start, target in all_edges:
            if target not in nodes and target != END:
                raise ValueError(f"edge {shown(start)} -> {target!r} ends at no node; {nearest(target, nodes)}")
        for name, spec in nodes.items():
            for end in spec.ends:
                if end not in nodes and end != END:
                    raise ValueError(
                        f"node {name!r} declares that it may go to {end!r}, which is not a node; {nearest(end, nodes)}"
                    )
        for name in interrupt or ():
            if name not in nodes and name != _DEFAULT_HANDLER:
                raise ValueError(f"breakpoint at {name!r}, which is not a node; {nearest(name, nodes)}")
        return self

    def compile(
        self,
        checkpointer: Checkpointer = None,
        *,
        cache: Any = None,
        store: Any = None,
        interrupt_before: All | Sequence[str] | None = None,
        interrupt_after: All | Sequence[str] | None = None,
        debug: bool = False,
        name: str | None = None,
        isolate: typing.Literal["shallow", "deep", "off"] = "shallow",
        strict: bool = False,
        on_conflict: typing.Literal["raise", "wait", "fork"] = "raise",
        renamed_keys: Mapping[str, str | None] | None = None,
    ) -> CompiledStateGraph[StateT, ContextT, InputT, OutputT]:
        """The graph, ready to run.

        Args:
            checkpointer: keeps the state of threads. None: none, or the parent graph's; True: the parent's, with state
                that outlives one call; False: never any.
            cache: where nodes with a cache policy keep results, such as `pregel.cache.memory.InMemoryCache()`; nested
                graphs without one use it too (docs/caching.md).
            store: key-value store, `runtime.store`.
            interrupt_before: nodes to stop before, or `"*"` for all.
            interrupt_after: nodes to stop after, or `"*"` for all.
            debug: print what happens.
            name: of the graph, `"LangGraph"` if None.
            isolate: `"shallow"`: every task gets its own top-level containers. `"off"`: the very objects of the state.
                `"deep"`: for debugging, a node that edits its input in place fails with `StateMutationError`.
            strict: errors instead of warnings.
            on_conflict: what a call does while another run holds its thread: `"raise"` `ThreadBusyError`, `"wait"` for
                its end, or `"fork"`: run beside it on a branch. Every call can say otherwise.
            renamed_keys: state key of an earlier version -> the key that takes over what threads have stored of it, None
                for a key that no node needs any more.

        Raises:
            ValueError: see `validate`.
            TypeError: `checkpointer` is not a saver.
            PregelWarning: under strict, or if warnings are errors: a mistake that shows already (docs/mistakes.md).
        """
        checkpointer = ensure_valid_checkpointer(checkpointer)
        before, after = _breakpoints(interrupt_before), _breakpoints(interrupt_after)
        self.validate([n for names in (before, after) if names != "*" for n in names])
        nodes = self._nodes_with_defaults()
        self.compiled = True
        graph = compile_graph(
            self,
            nodes=nodes,
            strict=strict,
            checkpointer=checkpointer,
            cache=cache,
            store=store,
            interrupt_before_nodes=before,
            interrupt_after_nodes=after,
            debug=debug,
            name="LangGraph" if name is None else name,
            isolate=isolate,
            on_conflict=on_conflict,
            renamed_keys=renamed_keys,
        )
        graph.validate()
        found = find_mistakes(self, nodes, graph.nodes)
        for notice in found:
            if notice.code == DEAD_JOIN:
                graph.channels[notice.place].watched = False  # told here, so no run tells it again
        emit(found, set(), strict=strict)
        return graph

    def _nodes_with_defaults(self) -> dict[str, StateNodeSpec]:
        defaults = self._defaults
        if not defaults:
            return dict(self.nodes)
        retry, timeout = defaults.get("retry_policy"), defaults.get("timeout")
        cache, handler = defaults.get("cache_policy"), defaults.get("error_handler")
        nodes = {}
        for name, spec in self.nodes.items():
            is_regular = not spec.is_error_handler
            nodes[name] = replace(
                spec,
                retry_policy=spec.retry_policy or retry,
                timeout=spec.timeout or timeout,
                cache_policy=spec.cache_policy or (cache if is_regular else None),
                error_handler_node=spec.error_handler_node or (_DEFAULT_HANDLER if handler and is_regular else None),
            )
        if handler is not None:
            if _DEFAULT_HANDLER in nodes:
                raise ValueError(f"there is already a node {_DEFAULT_HANDLER!r}, the name the default handler needs")
            call = prepare(handler, name=_DEFAULT_HANDLER)
            nodes[_DEFAULT_HANDLER] = StateNodeSpec(
                call, None, self.state_schema, retry, ends=call.ends, timeout=timeout, is_error_handler=True
            )
        return nodes

    # ---- behind the declarations

    def _add_schema(self, schema: Any, *, role: str | None = None) -> None:
        if schema in self.schemas:
            return
        found = describe(schema)
        title = getattr(schema, "__name__", str(schema))
        if role is not None and found.managed:
            raise ValueError(
                f"{role} schema {title} has the managed keys {', '.join(found.managed)}; "
                f"they are computed for each task, never given or returned; declare them in the state schema"
            )
        self.schemas[schema] = {key: found.channels.get(key) or found.managed[key] for key in found.keys}
        for key, channel in found.channels.items():
            known = self.channels.get(key)
            if known is None:
                self.channels[key] = channel
            elif type(channel) is not LastValue and not same_channel(known, channel):
                raise ValueError(
                    f"key {key!r} of {title} asks for a {type(channel).__name__}, but "
                    f"another schema of this graph declares a different {type(known).__name__}; use the same annotation"
                )
        for key, manager in found.managed.items():
            if self.managed.setdefault(key, manager) is not manager:
                raise ValueError(
                    f"key {key!r} of {title} is the managed value {manager.__name__}, but "
                    f"another schema of this graph declares {self.managed[key].__name__}; use the same annotation"
                )

    def _check_new_name(self, name: str) -> None:
        if name in self.nodes:
            raise ValueError(f"there is already a node {name!r}; names must differ, pass add_node(name, function)")
        if name in (START, END):
            raise ValueError(f"node name {name!r} is reserved; give the node another name")
        for character in (NS_SEP, NS_END):
            if character in name:
                raise ValueError(f"node name {name!r} contains {character!r}, which separates namespaces; leave it out")

    def _need(self, name: str, where: str) -> None:
        if name not in self.nodes:
            raise ValueError(f"{where}: there is no node {name!r} yet, and a list edge needs it; call add_node first")

    def _note_late_change(self, what: str, name: str) -> None:
        if self.compiled:
            logging = sys.modules.get("logging")
            if logging is not None:  # whoever reads logs has loaded it
                logging.getLogger(__name__).warning(
                    "%s %r was added after compile(); graphs that were compiled before do not have it", what, name
                )


def _breakpoints(given: All | Sequence[str] | None) -> Any:
    """Breakpoints as `"*"` or a list of names; a bare name is one name."""
    if given is None:
        return []
    if isinstance(given, str):
        return "*" if given == "*" else [plain(given)]
    names = [plain(name) for name in given]
    return "*" if "*" in names else names


def _renamed(deprecated: dict[str, Any], old: str, new: str, value: Any) -> Any:
    """The value of a parameter that may have been given under its former name."""
    if old not in deprecated:
        return value
    given = deprecated.pop(old)
    warnings.warn(f"parameter {old!r} is deprecated; it is called {new!r}", PregelDeprecationWarning, stacklevel=3)
    return given if value is None else value


def _refuse_unknown(rest: dict[str, Any], called: str) -> None:
    if rest:
        raise TypeError(f"{called}() got an unexpected keyword argument {next(iter(rest))!r}")
