"""`Program`: a graph as the engine sees it, frozen, with everything worked out that can be known before a run.

Decides which channels a node reads and how, which nodes a channel wakes, and which channels need a visit at the end of
a step. Knows nothing of runs, values, savers or drivers. Built once per compiled graph (pluggy: pay at registration),
read by every superstep, never changed.

`PregelNode` is the public description of a node (what `NodeBuilder.build` and `StateGraph.compile` make); `Node` is its
compiled form.

Invariants
1. Nothing in here changes after construction; runs of the same graph in many threads share it.
2. `wakes` is the only trigger table: a superstep looks at the channels that were just updated, never at all nodes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy, deepcopy
from typing import Any, Protocol

from pregel._call import Call
from pregel._policies import retry_policies
from pregel._scope import TaskScope
from pregel.channels.base import BaseChannel
from pregel.channels.named_barrier_value import InclusiveBarrierValue
from pregel.constants import PULL, TAG_HIDDEN
from pregel.errors import StateMutationError, shown
from pregel.managed import ManagedValue
from pregel.types import CachePolicy, RetryPolicy, TimeoutPolicy, TracePolicy

Channel = BaseChannel[Any, Any, Any]
Write = tuple[str, Any]
"""(channel, value)."""


class Writer(Protocol):
    """Turns what a node returned into writes. Runs in the task's body, under its scope (D30); must not change state."""

    def __call__(self, result: Any, scope: TaskScope, writes: list[Write]) -> None:
        """Append the writes of `result` to `writes`, in order.

        Raises:
            InvalidUpdateError: the graph cannot take this result.
            ParentCommand: the result is a command for the parent graph.
            Returned: the result is a graph or runnable; the body runs it and asks again.
        """


class Returned(Exception):
    """Raised by a writer: the node returned something to be run in its place, with the node's input."""

    def __init__(self, call: Call) -> None:
        super().__init__(call.name)
        self.call = call


class Router(Protocol):
    """A conditional edge: user code that reads the state with the node's own writes applied, and names what runs next."""

    call: Call

    def route(self, result: Any, scope: TaskScope, writes: list[Write]) -> None:
        """Append the routing writes to `writes`, which holds the node's own writes."""

    async def aroute(self, result: Any, scope: TaskScope, writes: list[Write]) -> None:
        """Async form of `route`."""


class PregelNode:
    """A node, as the constructor of `Pregel` takes it.

    `channels`: a name (the node gets the bare value) or a sequence of names (it gets a dict of the available ones).
    `triggers`: channels whose new version wakes it. `mapper` turns the read value into the node's input. `bound` is what
    runs; None passes the input through. `write` makes the writes of the result, `routers` come after it, in order.
    """

    __slots__ = (
        "aliases",
        "bound",
        "cache_policy",
        "channels",
        "error_handler",
        "is_error_handler",
        "mapper",
        "metadata",
        "retry_policy",
        "routers",
        "subgraphs",
        "tags",
        "timeout",
        "trace_policy",
        "triggers",
        "write",
    )

    def __init__(
        self,
        *,
        channels: str | Sequence[str],
        triggers: Sequence[str],
        bound: Call | None = None,
        write: Writer | None = None,
        routers: Sequence[Router] = (),
        mapper: Callable[[Any], Any] | None = None,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
        cache_policy: CachePolicy[Any] | None = None,
        timeout: TimeoutPolicy | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        error_handler: str | None = None,
        is_error_handler: bool = False,
        subgraphs: Sequence[Any] | None = None,
        aliases: str | Sequence[str] = (),
        trace_policy: TracePolicy | None = None,
    ) -> None:
        self.channels = channels if isinstance(channels, str) else list(channels)
        self.triggers = list(triggers)
        self.bound = bound
        self.write = write
        self.routers = tuple(routers)
        self.mapper = mapper
        self.retry_policy = retry_policies(retry_policy, "node")
        self.cache_policy = cache_policy
        self.timeout = TimeoutPolicy.coerce(timeout)
        self.tags = list(tags) if tags else None
        self.metadata = dict(metadata) if metadata else None
        self.error_handler = error_handler
        """Name of the node that handles this one's failures."""
        self.is_error_handler = is_error_handler
        self.subgraphs = list(subgraphs or ())
        """Compiled graphs that the callable holds or names, the node's own first."""
        self.aliases = (aliases,) if isinstance(aliases, str) else tuple(aliases)
        """Names that the node had in earlier versions of the graph; work stored under them goes on here."""
        self.trace_policy = trace_policy
        """What observers record of its inputs and outputs."""

    def copy(self, update: Mapping[str, Any] | None = None) -> PregelNode:
        """A node with some fields replaced."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return PregelNode(**{**fields, **(update or {})})

    def __repr__(self) -> str:
        return f"PregelNode(channels={self.channels!r}, triggers={self.triggers!r}, bound={self.bound!r})"


class Node:
    """A node, compiled: what one activation of it needs, without looking anything up."""

    __slots__ = (
        "address",
        "afn",
        "aliases",
        "async_routers",
        "cache_policy",
        "error_handler",
        "fn",
        "hidden",
        "identity",
        "inject",
        "is_error_handler",
        "is_inert",
        "kept_as",
        "mapper",
        "metadata",
        "name",
        "needs_worker",
        "path_text",
        "plain",
        "reads",
        "retry_policy",
        "routers",
        "single",
        "spec",
        "subgraphs",
        "tags",
        "timeout",
        "triggers",
        "write",
    )

    def __init__(self, name: str, spec: PregelNode, specs: Mapping[str, Channel], *, watch: bool = False) -> None:
        self.name = name
        self.spec = spec
        bound = spec.bound
        self.fn = bound.fn if bound else _same
        self.afn = bound.afn if bound else None
        if watch and bound is not None:
            self.fn = watched(name, self.fn) if self.fn is not None else None
            self.afn = awatched(name, self.afn) if self.afn is not None else None
        self.inject = bound.inject if bound else None
        self.needs_worker = bound is not None and self.afn is None
        """Under the async API: does the body have to leave the loop? (Sync user code never runs on it.)"""
        self.write = spec.write
        self.routers = spec.routers
        self.async_routers = any(router.call.fn is None for router in spec.routers)
        """Must some router run on the loop, although the node may not?"""
        self.is_inert = bound is None and spec.write is None and not spec.routers
        """Nothing would happen: never becomes a task (engine.md 3.1)."""
        self.mapper = spec.mapper
        self.triggers = tuple(sorted(set(spec.triggers)))
        self.path_text = f"~{PULL}, {name}"
        """Text of the path of this node's pull tasks (`task.path_text`)."""
        self.identity = f"{name}\x1f{PULL}"
        """What of this node goes into the ids of its pull tasks. Not its triggers: results of a paused step still fit a
        graph that got an edge meanwhile, and `checkpoint.compat` can tell the ids from what a file of LangGraph holds."""
        self.single = spec.channels if isinstance(spec.channels, str) else None
        names = [] if isinstance(spec.channels, str) else list(dict.fromkeys(spec.channels))
        self.reads = tuple(names)
        """Channels and managed values of the dict input, in the listed order."""
        self.plain = all(name in specs and specs[name].plain_value for name in names)
        """Can every one of them be read as `channel.value`?"""
        self.retry_policy = spec.retry_policy
        self.cache_policy = spec.cache_policy
        self.timeout = spec.timeout
        self.tags = spec.tags
        self.metadata = spec.metadata
        self.hidden = TAG_HIDDEN in (spec.tags or ())
        self.error_handler = spec.error_handler
        self.is_error_handler = spec.is_error_handler
        self.subgraphs = spec.subgraphs
        self.aliases = spec.aliases
        self.kept_as: dict[Any, Any] | None = None
        """What a cache knows the node by, once one was asked (`flights.Caching`)."""
        self.address = name
        """What ids, paths and namespaces of its tasks call it: a former name for tasks that were stored under that."""

    def known_as(self, address: str) -> Node:
        """The same node, for tasks that are stored under a former name."""
        twin = copy(self)
        twin.address = address
        twin.path_text = f"~{PULL}, {address}"
        twin.identity = f"{address}\x1f{PULL}"
        return twin


def _same(value: Any) -> Any:
    return value


def watched(node: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """A node's function that refuses to edit its input in place (`isolate="deep"`, for debugging: two deep copies)."""

    def run(value: Any, **injected: Any) -> Any:
        before = deepcopy(value)
        result = fn(value, **injected)
        refuse_edits(node, before, value)
        return result

    return run


def awatched(node: str, fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Async form of `watched`."""

    async def run(value: Any, **injected: Any) -> Any:
        before = deepcopy(value)
        result = await fn(value, **injected)
        refuse_edits(node, before, value)
        return result

    return run


def refuse_edits(node: str, before: Any, after: Any) -> None:
    """Compare a node's input with its copy from before the node ran.

    Raises:
        StateMutationError: they differ; the keys are named.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        edited = [
            key for key in {**before, **after} if key not in before or key not in after or before[key] != after[key]
        ]
        if edited:
            raise StateMutationError(
                f"node {node!r} edited {', '.join(map(repr, edited))} of its input in place; other nodes must not see "
                f"that: return the new value as an update, or edit a copy"
            )
    elif before != after:
        raise StateMutationError(
            f"node {node!r} edited its input in place: it was {shown(before)} and is {shown(after)}; return the new value "
            f"as an update, or edit a copy"
        )


class Program:
    """A compiled graph."""

    __slots__ = (
        "channels",
        "clearing",
        "consuming",
        "current",
        "finishing",
        "inclusive",
        "input_channels",
        "joins",
        "keeps_all",
        "managed",
        "mark",
        "nodes",
        "output_can_clear",
        "output_channels",
        "renamed_keys",
        "stream_channels",
        "tracked",
        "triggers",
        "wakes",
        "warned",
    )

    def __init__(
        self,
        *,
        nodes: Mapping[str, PregelNode],
        channels: Mapping[str, Channel],
        managed: Mapping[str, type[ManagedValue[Any]]],
        input_channels: str | Sequence[str],
        output_channels: str | Sequence[str],
        stream_channels: str | Sequence[str],
        watch: bool = False,
        renamed_keys: Mapping[str, str | None] | None = None,
    ) -> None:
        """`watch`: refuse nodes that edit their input in place. `renamed_keys`: former channel -> the one that has its
        value now, None if none needs it any more."""
        self.channels = dict(channels)
        """Name -> specification; runs make their own channels from these."""
        self.managed = dict(managed)
        self.nodes = {name: Node(name, spec, self.channels, watch=watch) for name, spec in nodes.items()}
        """In definition order."""
        wakes: dict[str, list[str]] = {}
        for node in self.nodes.values():
            if not node.is_inert:
                for trigger in node.triggers:
                    wakes.setdefault(trigger, []).append(node.name)
        self.wakes = {channel: tuple(sorted(names)) for channel, names in wakes.items()}
        """Channel -> nodes that a new version of it may wake."""
        self.triggers = frozenset(t for node in self.nodes.values() for t in node.triggers)
        self.clearing = frozenset(n for n, c in self.channels.items() if c.reacts_to_empty)
        """Channels that `update([])` at the end of a step may change (D45)."""
        self.finishing = tuple(n for n, c in self.channels.items() if c.can_finish)
        self.inclusive = {
            n: c.after for n, c in self.channels.items() if isinstance(c, InclusiveBarrierValue) and not c.deferred
        }
        """Barriers that are released with some of their names -> channels that are released before them."""
        self.joins = tuple(n for n, c in self.channels.items() if getattr(c, "watched", False) and n in self.wakes)
        """Barriers that a run should not leave half full."""
        self.consuming = frozenset(n for n, c in self.channels.items() if c.can_consume)
        self.tracked = frozenset(n for n, c in self.channels.items() if c.tracked)
        self.keeps_all = len(self.tracked) == len(self.channels)
        """Is every channel stored?"""
        self.input_channels = input_channels
        self.output_channels = output_channels
        self.stream_channels = stream_channels
        keys = [output_channels] if isinstance(output_channels, str) else output_channels
        self.output_can_clear = any(key in self.clearing or key in self.consuming for key in keys)
        """Can an output key lose its value without being written?"""
        self.warned: set[tuple[str, str]] = set()
        """(code, place) of notices that were emitted already; the one field that grows."""
        self.current = {alias: node.name for node in self.nodes.values() for alias in node.aliases}
        """Former name of a node -> its name."""
        self.renamed_keys = dict(renamed_keys or {})
        self.mark: Any = None
        """What checkpoints carry of this graph (`redeploy.mark_of`), once somebody has asked."""

    def known_as(self, addresses: Mapping[str, str]) -> Program:
        """The same program, for a superstep whose tasks are stored under former names: name -> former name."""
        twin = copy(self)
        twin.nodes = {
            name: node.known_as(addresses[name]) if name in addresses else node for name, node in self.nodes.items()
        }
        return twin

    def former(self, name: str) -> Node | None:
        """The node that has had this name, for tasks that are stored under it."""
        return self.nodes[self.current[name]].known_as(name) if name in self.current else None

    @property
    def state_keys(self) -> list[str]:
        """Names of the channels that make up the state as users see it."""
        return [self.stream_channels] if isinstance(self.stream_channels, str) else list(self.stream_channels)
