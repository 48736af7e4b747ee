"""From a `StateGraph` to the nodes and channels of a `Pregel`, and the compiled graph itself.

Decides which channels and triggers carry edges, and what a node's return value means (`StateWriter`, engine.md 4.5,
4.6): `branch:to:N` wakes node N, `join:A+C:B` is the barrier of a list edge. Uses nothing but the public parts of
`pregel.pregel` that a user's own front end could use, too. Knows neither runs nor savers.

Invariants
1. All tables are made here; a run never asks what kind of graph this is.
2. The writes of a node are: its updates, its gotos, its static edges. Routers come after them.
3. Equal builders compile to equal programs: edges are sorted, since their set has no order.
"""

from __future__ import annotations

import functools
import sys
import types
import typing
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import TypeVar

from checkpoint import registry
from pregel._call import annotations_of, enclosed_classes, is_graph, is_runnable, prepare
from pregel._scope import TaskScope
from pregel._subgraphs import find_subgraphs
from pregel.channels import (
    BaseChannel,
    EphemeralValue,
    InclusiveBarrierValue,
    LastValueAfterFinish,
    NamedBarrierValue,
    NamedBarrierValueAfterFinish,
    Topic,
)
from pregel.channels.binop import overwriting
from pregel.constants import END, MISSING, PARENT, ROOT, START, TAG_HIDDEN, TASKS
from pregel.errors import ErrorCode, InvalidUpdateError, ParentCommand, nearest, shown
from pregel.graph.branch import UNKNOWN_NODE, BranchRouter
from pregel.graph.declared import Declared, StateNodeSpec
from pregel.graph.routes import Routes, goto_and_edge
from pregel.graph.schema import DefaultedAggregate, Schema, describe, updates_of
from pregel.messages import Message
from pregel.pregel import Pregel, PregelNode, Returned
from pregel.types import Command, Send

if TYPE_CHECKING:
    from pregel.drawing.draw import Graph, NodeInfo

__all__ = ["CompiledStateGraph", "RootWriter", "StateWriter", "compile_graph"]

StateT = TypeVar("StateT", default=Any)
ContextT = TypeVar("ContextT", default=None)
InputT = TypeVar("InputT", default=StateT)
OutputT = TypeVar("OutputT", default=StateT)

Write = tuple[str, Any]
Channel = BaseChannel[Any, Any, Any]

UNKNOWN_KEY: Final = "unknown-key"


# ---- what a node returned -> writes


class StateWriter:
    """Makes the writes of one node in a graph whose state has keys.

    Args:
        node: The node's name.
        known: Channel name -> the same; what the node may write.
        ignored: Further declared names that are dropped without a word: managed values.
        targets: Node name -> the write that starts it.
        static: Writes of the node's static edges, made whenever it ran.
        beside: Nodes that the static edges start, as far as a Command that goes elsewhere would be a mistake beside them.
        starts: Channel name -> the default that it starts with (D54), where the schema declares one worth counting.
        is_exempt: Unknown keys are no mistake here: the input, the result of a nested graph, or keys for a path (D49).
        strict: What would be a notice is an `InvalidUpdateError`.
    """

    __slots__ = ("beside", "ignored", "is_exempt", "known", "node", "starts", "static", "strict", "targets")

    def __init__(
        self,
        node: str,
        known: Mapping[str, str],
        ignored: frozenset[str] = frozenset(),
        *,
        targets: Mapping[str, Write],
        static: tuple[Write, ...] = (),
        beside: tuple[str, ...] = (),
        starts: Mapping[str, Any] = types.MappingProxyType({}),
        is_exempt: bool = False,
        strict: bool = False,
    ) -> None:
        self.node = node
        self.known = known
        self.ignored = ignored
        self.targets = targets
        self.static = static
        self.beside = beside
        self.starts = starts
        self.is_exempt = is_exempt
        self.strict = strict

    @property
    def shape(self) -> tuple[Any, ...]:
        """What it makes of a result, as data: equal for writers that make the same of it (`cache.keys`)."""
        return type(self), tuple(sorted(self.known)), self.static

    def __call__(self, result: Any, scope: TaskScope, writes: list[Write]) -> None:
        """Append the writes of `result`: updates, gotos, static edges.

        Raises:
            InvalidUpdateError: the result is no update; under strict, a key or node does not exist.
            ParentCommand: the result is a command for the parent graph.
        """
        if type(result) is dict:
            known = self.known
            for item in result.items():
                # The pair itself is the write, unless the key is a str enum.
                if known.get(item[0]) is item[0]:
                    writes.append(item)
                else:
                    self._add_item(item[0], item[1], scope, writes)
        elif result is not None:
            self._add_other(result, scope, writes)
        writes += self.static

    def _add_item(self, key: Any, value: Any, scope: TaskScope, writes: list[Write]) -> None:
        name = self.known.get(key)
        if name is not None:
            writes.append((name, value))
        elif not self.is_exempt and key not in self.ignored:
            text = (
                f"node {self.node!r} returned the key {shown(key)}, which no schema of this graph declares, so it is "
                f"dropped; {nearest(key, self.known)}"
            )
            self._report(UNKNOWN_KEY, key, text, scope)

    def _add_other(self, result: Any, scope: TaskScope, writes: list[Write]) -> None:
        if isinstance(result, Command):
            items: Sequence[Any] = (result,)
        elif isinstance(result, (list, tuple)) and any(isinstance(item, Command) for item in result):
            items = result
        elif is_graph(result) or is_runnable(result):
            raise Returned(prepare(result))
        else:
            self._add_update(result, scope, writes)
            return
        for item in items:
            if not isinstance(item, Command):
                self._add_update(item, scope, writes)
            elif item.graph == PARENT:
                raise ParentCommand(item)
            else:
                self._add_command_update(item.update, scope, writes)
        for item in items:
            if isinstance(item, Command):
                self._add_gotos(item.goto, scope, writes)

    def _add_update(self, update: Any, scope: TaskScope, writes: list[Write]) -> None:
        """Add the writes of what is neither a Command nor a list with one."""
        if update is None:
            return
        if isinstance(update, dict) and not isinstance(update, Message):
            for key, value in update.items():
                self._add_item(key, value, scope, writes)
        elif isinstance(update, Send):
            self._add_gotos(update, scope, writes)
        elif (found := None if isinstance(update, Message) else updates_of(update, self.known)) is not None:
            writes += self._counted(found, scope) if self.starts else found
        else:
            raise self._invalid(update)

    def _counted(self, found: list[Write], scope: TaskScope) -> list[Write]:
        """The writes of an object without the defaults that it carries along and the state has started from already."""
        starts = self.starts
        current = scope.host.read(scope, [name for name, _ in found if name in starts], None)
        return [
            (name, value)
            for name, value in found
            if not (name in current and _is_same(value, starts[name]) and _is_same(current[name], value))
        ]

    def _add_command_update(self, update: Any, scope: TaskScope, writes: list[Write]) -> None:
        if update is None:
            return
        if isinstance(update, (list, tuple)) and _are_pairs(update):
            for key, value in update:
                self._add_item(key, value, scope, writes)
        elif isinstance(update, dict) and not isinstance(update, Message):
            self._add_update(update, scope, writes)
        elif (found := None if isinstance(update, Message) else updates_of(update, self.known)) is not None:
            writes += self._counted(found, scope) if self.starts else found
        elif not isinstance(update, (list, tuple)) or update:
            if ROOT in self.known:
                writes.append((ROOT, update))
            else:
                text = (
                    f"node {self.node!r} returned Command(update={shown(update)}), which names no key and is dropped; "
                    f"update takes a dict, a list of (key, value) tuples or an object with annotated fields"
                )
                self._report(UNKNOWN_KEY, type(update).__name__, text, scope)

    def _add_gotos(self, goto: Any, scope: TaskScope, writes: list[Write]) -> None:
        gotos = (goto,) if isinstance(goto, (str, Send)) else goto
        if self.beside and gotos:
            names = [name for name in gotos if isinstance(name, str) and name in self.targets]
            told = goto_and_edge(self.node, names, self.beside)
            if told is not None:
                scope.host.notice(*told)
        for target in gotos:
            if isinstance(target, Send):
                if target.node in self.targets:
                    writes.append((TASKS, target))
                    continue
                name: Any = target.node
            else:
                write = self.targets.get(target) if isinstance(target, str) else None
                if write is not None:
                    writes.append(write)
                    continue
                if target == END:
                    continue
                name = target
            text = (
                f"node {self.node!r} goes to {shown(name)}, which is not a node of this graph, so nothing runs; "
                f"{nearest(name, self.targets)}"
            )
            self._report(UNKNOWN_NODE, name, text, scope)

    def _report(self, code: str, what: Any, text: str, scope: TaskScope) -> None:
        if self.strict:
            raise InvalidUpdateError(text)
        scope.host.notice(code, f"{self.node}:{shown(what, 80)}", text)

    def _invalid(self, result: Any) -> InvalidUpdateError:
        if self.node == START:
            where, hint = f"the graph's input is {shown(result)}", f"keys are {', '.join(map(repr, self.known))}"
        else:
            where, hint = f"node {self.node!r} returned {shown(result)}", "or a Command, or None"
        if isinstance(result, Message):
            hint = 'put the message into the key that holds messages, such as {"messages": [message]}'
        return InvalidUpdateError(
            f"{where} ({type(result).__name__}); expected a dict of channel updates; {hint}",
            code=ErrorCode.INVALID_GRAPH_NODE_RETURN_VALUE,
        )


class RootWriter(StateWriter):
    """Makes the writes of one node in a graph whose state is one bare value."""

    __slots__ = ()

    def __call__(self, result: Any, scope: TaskScope, writes: list[Write]) -> None:
        """Append the writes of `result`: the value itself unless it is None or a Command, gotos, static edges."""
        if result is not None:
            self._add_other(result, scope, writes)
        writes += self.static

    def _add_update(self, update: Any, scope: TaskScope, writes: list[Write]) -> None:
        if update is None:
            return
        if isinstance(update, Send):
            self._add_gotos(update, scope, writes)
        else:
            writes.append((ROOT, update))

    def _add_command_update(self, update: Any, scope: TaskScope, writes: list[Write]) -> None:
        # A dict or a list of pairs may well be the value, so only the spelled out name is read as one.
        pairs = list(update.items()) if type(update) is dict else update
        if isinstance(pairs, (list, tuple)) and pairs and _are_pairs(pairs) and all(name == ROOT for name, _ in pairs):
            writes += pairs
        elif update is not None:
            writes.append((ROOT, update))


class CheckedWriter:
    """Validates a node's updates against a model state (strict only, D53); what is written is what was returned."""

    __slots__ = ("_adapters", "_write")

    def __init__(self, write: StateWriter, adapters: Mapping[str, Any]) -> None:
        self._write = write
        self._adapters = adapters

    @property
    def shape(self) -> tuple[Any, ...]:
        """What it makes of a result, as data."""
        return self._write.shape

    def __call__(self, result: Any, scope: TaskScope, writes: list[Write]) -> None:
        """Append the writes of `result`.

        Raises:
            ValidationError: pydantic's; a value does not fit the field of its key.
        """
        first = len(writes)
        self._write(result, scope, writes)
        for name, value in writes[first:]:
            if name in self._adapters and overwriting(value) is MISSING:
                self._adapters[name].validate_python(value)


def _are_pairs(items: Iterable[Any]) -> bool:
    return all(isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in items)


def _is_empty(value: Any) -> bool:
    """Adds nothing when it is counted twice."""
    return value is None or (type(value).__module__ == "builtins" and not value)


def _is_same(one: Any, other: Any) -> bool:
    """Equal values of one type; what cannot tell, such as arrays, is not the same."""
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # noqa: BLE001 - the user's own `__eq__`
        return False


# ---- builder -> nodes and channels


def compile_graph(
    builder: Declared,
    *,
    nodes: Mapping[str, StateNodeSpec],
    strict: bool,
    **options: Any,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The compiled form of a validated builder.

    Args:
        builder: what was declared; not changed, later changes to it have no effect.
        nodes: its nodes with the defaults applied, and generated error handlers.
        strict: see `StateWriter`.
        options: further arguments of `Pregel`.
    """
    targets: dict[str, Write] = {name: (f"branch:to:{name}", None) for name in nodes}
    static: dict[str, list[Write]] = {name: [] for name in (START, *nodes)}
    triggers: dict[str, list[str]] = {name: [channel] for name, (channel, _) in targets.items()}
    channels: dict[str, Any] = {
        **builder.channels,
        **builder.managed,
        START: EphemeralValue(builder.input_schema),
        TASKS: Topic(Send),
    }
    for name, (channel, _) in targets.items():
        channels[channel] = LastValueAfterFinish(Any) if nodes[name].defer else EphemeralValue(Any, guard=False)
    beside: dict[str, list[str]] = defaultdict(list)
    for source, target in sorted(builder.edges):
        if target != END:
            static[source].append(targets[target])
            if not nodes[target].defer:
                beside[source].append(target)
    for sources, target in sorted(builder.waiting_edges):
        if target != END:
            channel = f"join:{'+'.join(sources)}:{target}"
            channels[channel] = _barrier(builder, sources, target, deferred=nodes[target].defer)
            triggers[target].append(channel)
            for source in sources:
                static[source].append((channel, source))
    for name, made in channels.items():
        if isinstance(made, BaseChannel):
            made.key = name
    if any(builder.inclusive.values()):
        _order_releases(Routes(builder, nodes), channels)

    former = {alias: targets[name] for name, spec in nodes.items() for alias in spec.aliases}
    wiring = _Wiring(builder, {**targets, **former}, static, beside, strict)
    compiled = {START: wiring.start()}
    for name, spec in nodes.items():
        compiled[name] = wiring.node(name, spec, triggers[name])
    _register_types(builder, nodes)

    output_keys = [key for key in builder.schemas[builder.output_schema] if key in builder.channels]
    stream_keys = list(builder.channels)
    return CompiledStateGraph(
        builder=builder,
        declared=nodes,
        nodes=compiled,
        channels=channels,
        input_channels=START,
        output_channels=ROOT if output_keys == [ROOT] else output_keys,
        stream_channels=ROOT if stream_keys == [ROOT] else stream_keys,
        stream_mode="updates",
        context_schema=builder.context_schema,
        auto_validate=False,
        strict=strict,
        **options,
    )


def _barrier(builder: Declared, sources: tuple[str, ...], target: str, *, deferred: bool) -> Channel:
    """The channel of a list edge."""
    inclusive = builder.inclusive.get((sources, target))
    if inclusive:
        return InclusiveBarrierValue(str, set(sources), deferred=deferred)
    barrier = (NamedBarrierValueAfterFinish if deferred else NamedBarrierValue)(str, set(sources))
    barrier.watched = inclusive is None
    return barrier


def _order_releases(routes: Routes, channels: Mapping[str, Any]) -> None:
    """Say for each inclusive join which channels are released before it: what they start may still arrive there.

    As far as edges, path maps and annotations declare. Of joins that lead to each other the first by name comes first; a
    deferred node that leads to a join comes before it, unless the join leads to that node, too.
    """
    starts = {f"branch:to:{name}": name for name in routes.nodes}
    starts.update((f"join:{'+'.join(sources)}:{target}", target) for sources, target, _ in routes.joins)
    held = [name for name, channel in channels.items() if name in starts and channel.can_finish]

    def feeds(one: str, other: str) -> bool:
        return not routes.below(starts[one]).isdisjoint(getattr(channels[other], "names", {starts[other]}))

    for name in held:
        if not _goes_early(channels[name]):
            continue
        before = [other for other in held if other != name and feeds(other, name)]
        channels[name].after = frozenset(
            other for other in before if not feeds(name, other) or (other < name and _goes_early(channels[other]))
        )


def _goes_early(channel: Any) -> bool:
    return isinstance(channel, InclusiveBarrierValue) and not channel.deferred


class _Wiring:
    """What the nodes of one graph share while it is compiled."""

    def __init__(
        self,
        builder: Declared,
        targets: dict[str, Write],
        static: dict[str, list[Write]],
        beside: dict[str, list[str]],
        strict: bool,
    ) -> None:
        self.builder = builder
        self.targets = targets
        self.static = static
        self.beside = beside
        self.strict = strict
        self.known = {name: name for name in builder.channels}
        self.ignored = frozenset(builder.managed)
        self.starts = {
            name: channel.value
            for name, channel in builder.channels.items()
            if isinstance(channel, DefaultedAggregate) and not _is_empty(channel.value)
        }
        self.adapters = _adapters(builder.state_schema) if strict else {}
        self.writer = RootWriter if [*builder.channels, *builder.managed] == [ROOT] else StateWriter

    def start(self) -> PregelNode:
        schema = describe(self.builder.input_schema)
        return PregelNode(
            channels=START,
            triggers=[START],
            write=(RootWriter if schema.is_root else StateWriter)(
                START,
                {name: name for name in schema.channels},
                targets=self.targets,
                static=tuple(self.static[START]),
                starts=self.starts,
                is_exempt=True,
                strict=self.strict,
            ),
            routers=self._routers(START, describe(self.builder.state_schema)),
            tags=[TAG_HIDDEN],
        )

    def node(self, name: str, spec: StateNodeSpec, triggers: list[str]) -> PregelNode:
        schema = describe(spec.input_schema)
        subject = spec.runnable.subject
        write: Any = self.writer(
            name,
            self.known,
            self.ignored,
            targets=self.targets,
            static=tuple(self.static[name]),
            beside=self._beside(name, spec) if name in self.beside else (),
            starts=self.starts,
            is_exempt=is_graph(subject) or is_runnable(subject) or self._is_read_raw(name),
            strict=self.strict,
        )
        return PregelNode(
            channels=ROOT if schema.is_root else schema.keys,
            triggers=triggers,
            bound=spec.runnable,
            write=CheckedWriter(write, self.adapters) if self.adapters else write,
            routers=self._routers(name, schema),
            mapper=schema.mapper,
            retry_policy=spec.retry_policy,
            cache_policy=spec.cache_policy,
            timeout=spec.timeout,
            metadata=spec.metadata,
            error_handler=spec.error_handler_node,
            is_error_handler=spec.is_error_handler,
            subgraphs=find_subgraphs(subject),
            aliases=spec.aliases,
            trace_policy=spec.trace_policy,
        )

    def _beside(self, name: str, spec: StateNodeSpec) -> tuple[str, ...]:
        """Nodes that its static edges start, without those of which the declaration tells at compile time."""
        beside = self.beside[name]
        return tuple([target for target in beside if target in spec.ends] if spec.ends else beside)

    def _is_read_raw(self, source: str) -> bool:
        """Does a path without a schema of its own see all that the node returned? Then no key of it is a mistake (D49)."""
        return any(branch.input_schema is None for branch in self.builder.branches.get(source, {}).values())

    def _routers(self, source: str, schema: Schema) -> tuple[BranchRouter, ...]:
        branches = self.builder.branches.get(source)
        if not branches:
            return ()
        return tuple(
            BranchRouter(
                branch,
                source,
                schema if branch.input_schema is None else describe(branch.input_schema),
                self.targets,
                strict=self.strict,
            )
            for branch in branches.values()
        )


def _adapters(schema: Any) -> dict[str, Any]:
    """Validators for the keys of a model state; nothing for other states."""
    if not (isinstance(schema, type) and registry.is_model(schema)):
        return {}
    adapter = sys.modules["pydantic"].TypeAdapter
    return {name: adapter(field.annotation) for name, field in typing.cast("Any", schema).model_fields.items()}


def _register_types(builder: Declared, nodes: Mapping[str, StateNodeSpec]) -> None:
    """Let everything be stored that the graph's schemas, annotations, functions and modules name (D35)."""
    seen: dict[int, Any] = {}
    modules: dict[str, None] = {}
    for schema in (*builder.schemas, builder.context_schema):
        if schema is not None:
            registry.register_reachable(schema, seen)
            modules[getattr(schema, "__module__", "")] = None
    for channel in builder.channels.values():
        modules[getattr(getattr(channel, "operator", None), "__module__", None) or ""] = None
    calls = [spec.runnable for spec in nodes.values()]
    calls.extend(branch.call for branches in builder.branches.values() for branch in branches.values())
    equal: set[Any] = set()  # `dict[str, Any]` is a new object in every function
    texts: set[Any] = set()
    for call in calls:
        modules[getattr(call.subject, "__module__", None) or ""] = None
        for annotation in annotations_of(call.subject, seen, texts):
            try:
                if annotation in equal:
                    continue
                equal.add(annotation)
            except TypeError:  # Annotated with unhashable metadata
                pass
            registry.register_reachable(annotation, seen)
        for cls in enclosed_classes(call.subject):
            registry.register_reachable(cls, seen)
    for module in modules:
        registry.register_module(module)


# ---- the compiled graph


class CompiledStateGraph(Pregel[StateT, ContextT, InputT, OutputT]):
    """A `StateGraph` that can run; made by `StateGraph.compile`.

    Attributes:
        builder: What it was made from; changing it does not change this graph.
    """

    builder: Declared

    def __init__(
        self,
        *,
        builder: Declared,
        declared: Mapping[str, StateNodeSpec] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.builder = builder
        self._declared = dict(builder.nodes if declared is None else declared)
        # The builder may change later, and pictures show the graph that runs.
        self._edges = frozenset(builder.edges)
        self._waiting_edges = frozenset(builder.waiting_edges)
        self._branches = [(source, b.ends) for source, by_name in builder.branches.items() for b in by_name.values()]

    # -- values for the caller

    def coerce_output(self, values: Any) -> Any:
        """Output values as an object of the output schema, for `version="v2"`; dicts stay dicts for a TypedDict.

        Raises:
            ValidationError: pydantic's; the values do not make a model, for example because the run stopped early.
        """
        return _coerced(self.builder.output_schema, values)

    def coerce_state(self, values: Any) -> Any:
        """State values as an object of the state schema, for `version="v2"`."""
        return _coerced(self.builder.state_schema, values)

    # -- schemas

    def get_input_jsonschema(self, config: Any = None) -> dict[str, Any]:
        """JSON schema of the input, by the rules of the schema's kind (amendments C4)."""
        found: dict[str, Any] = _jsonschema().of_state(self.builder.input_schema, self.get_name("Input"))
        return found

    def get_output_jsonschema(self, config: Any = None) -> dict[str, Any]:
        """JSON schema of the output."""
        found: dict[str, Any] = _jsonschema().of_state(self.builder.output_schema, self.get_name("Output"))
        return found

    def _context_type(self) -> Any:
        return _jsonschema().portable(self.builder.context_schema)

    def get_input_schema(self, config: Any = None) -> type[Any]:
        """A pydantic model class for the input: the schema itself if it is one, else one named after the graph."""
        found: type[Any] = _jsonschema().input_model(self.builder.input_schema, self.get_name("Input"))
        return found

    def get_output_schema(self, config: Any = None) -> type[Any]:
        """A pydantic model class for the output, named after the graph; every key may be absent."""
        found: type[Any] = _jsonschema().output_model(self.builder.output_schema, self.get_name("Output"))
        return found

    @property
    def input_schema(self) -> type[Any]:
        """The same as `get_input_schema()`."""
        return self.get_input_schema()

    @property
    def output_schema(self) -> type[Any]:
        """The same as `get_output_schema()`."""
        return self.get_output_schema()

    # -- pictures

    def get_graph(self, config: Any = None, *, xray: bool | int = False) -> Graph:
        """The drawing of this graph; with `xray` nested graphs are drawn in place, n levels deep or all the way."""
        draw = _draw()
        drawing: Graph = draw.build_graph(
            [self._info(draw.NodeInfo, name, spec) for name, spec in self._declared.items()],
            edges=self._edges,
            waiting_edges=self._waiting_edges,
            branches=self._branches,
            interrupt_before=self.interrupt_before_nodes,
            interrupt_after=self.interrupt_after_nodes,
            xray=xray,
            start=self.nodes[START],
        )
        return drawing

    def declared_ways(self) -> list[tuple[str, str | None, str]]:
        """(source, target, kind) of `explanation.Way` for every declared way from node to node."""
        found: list[tuple[str, str | None, str]] = []
        found += [(source, target, "edge") for source, target in sorted(self._edges)]
        found += [(source, target, "join") for sources, target in sorted(self._waiting_edges) for source in sources]
        for source, ends in self._branches:
            found += [(source, target, "branch") for target in (dict.fromkeys(ends.values()) if ends else [None])]
        found += [(name, target, "goto") for name, spec in self._declared.items() for target in spec.ends]
        return [way for way in found if way[1] != END]

    async def aget_graph(self, config: Any = None, *, xray: bool | int = False) -> Graph:
        """Async form of `get_graph`."""
        return self.get_graph(config, xray=xray)

    def _info(self, kind: type[NodeInfo], name: str, spec: StateNodeSpec) -> NodeInfo:
        tools = getattr(spec.runnable.subject, "tools_by_name", None)
        nested = self.nodes[name].subgraphs
        return kind(
            name,
            data=spec.runnable.subject,
            metadata=spec.metadata,
            defer=spec.defer,
            ends=spec.ends,
            tools=list(tools) if isinstance(tools, Mapping) else (),
            subgraph=functools.partial(_inner_drawing, nested[0]) if nested else None,
        )


def _draw() -> types.ModuleType:
    """What draws graphs, imported when somebody asks for a picture."""
    from pregel.drawing import draw  # noqa: PLC0415 - a lazy door

    return draw


def _inner_drawing(graph: Any, xray: bool | int) -> Graph:
    drawing: Graph = graph.get_graph(xray=xray)
    return drawing


def _coerced(schema: Any, values: Any) -> Any:
    mapper = describe(schema).mapper
    return mapper(values) if mapper is not None and isinstance(values, dict) else values


def _jsonschema() -> types.ModuleType:
    # A lazy door: pydantic costs half the import budget, and only those who ask for JSON schemas need it.
    from pregel.graph import jsonschema  # noqa: PLC0415

    return jsonschema
