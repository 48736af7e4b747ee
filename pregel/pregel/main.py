"""`Pregel`: a compiled graph that can be run.

The engine's public face. Here is what a graph is: its nodes and channels, checked once, the program that is made of them,
the graphs inside it and what it keeps in a cache. What can be done with it is inherited: running it (`_runs`, `_batch`),
looking at its threads (`_threads`), describing it (`_description`). Decides nothing about a run. Attributes such as
`checkpointer` or `store` are plain and may be assigned between runs; a run keeps what it started with. Nothing of a run
stays on the graph, so one graph may run in many threads at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, Generic, Self

from typing_extensions import TypeVar

from checkpoint.base import RunnableConfig
from pregel import config as configs
from pregel._policies import retry_policies
from pregel.channels import BaseChannel, Topic
from pregel.constants import START, TASKS
from pregel.engine.program import PregelNode, Program
from pregel.errors import nearest, shown
from pregel.managed import ManagedValue
from pregel.pregel import _request
from pregel.pregel._batch import Batches
from pregel.pregel._description import Described
from pregel.pregel._node import NodeBuilder
from pregel.pregel._threads import Threads
from pregel.pregel._turns import OnConflict, Turn
from pregel.pregel._validation import validate
from pregel.types import (
    CachePolicy,
    Checkpointer,
    RetryPolicy,
    Send,
    StreamMode,
    ensure_valid_checkpointer,
)
from pregel.warnings import Notice, emit

__all__ = ["NodeBuilder", "Pregel"]

StateT = TypeVar("StateT", bound=Any, default=Any)
ContextT = TypeVar("ContextT", bound=Any, default=Any)
InputT = TypeVar("InputT", bound=Any, default=Any)
OutputT = TypeVar("OutputT", bound=Any, default=Any)


class Pregel(Batches, Threads, Described, Generic[StateT, ContextT, InputT, OutputT]):
    """A compiled graph. Its types say what the front end that compiled it knows; `Pregel` alone stands for any."""

    def __init__(
        self,
        *,
        nodes: Mapping[str, PregelNode | NodeBuilder],
        channels: Mapping[str, BaseChannel[Any, Any, Any] | type[ManagedValue[Any]]] | None,
        input_channels: str | Sequence[str],
        output_channels: str | Sequence[str],
        stream_channels: str | Sequence[str] | None = None,
        auto_validate: bool = True,
        stream_mode: StreamMode = "values",
        stream_eager: bool = False,
        interrupt_after_nodes: str | Sequence[str] = (),
        interrupt_before_nodes: str | Sequence[str] = (),
        step_timeout: float | None = None,
        debug: bool | None = None,
        checkpointer: Checkpointer = None,
        store: Any = None,
        cache: Any = None,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] = (),
        cache_policy: CachePolicy[Any] | None = None,
        context_schema: type[Any] | None = None,
        config: RunnableConfig | None = None,
        name: str = "LangGraph",
        isolate: str = "shallow",
        strict: bool = False,
        on_conflict: OnConflict = "raise",
        renamed_keys: Mapping[str, str | None] | None = None,
    ) -> None:
        """`renamed_keys`: as for `StateGraph.compile`, of channels."""
        self.nodes: dict[str, PregelNode] = {
            str(key): node.build() if isinstance(node, NodeBuilder) else node for key, node in nodes.items()
        }
        self.channels: dict[str, Any] = dict(channels or {})
        held = self.channels.get(TASKS)
        if held is not None and not isinstance(held, Topic):
            raise ValueError(f"channel {TASKS!r} is reserved for Send and cannot be declared as {shown(held)}")
        if held is None:
            self.channels[TASKS] = Topic(Send)
        for key, channel in self.channels.items():
            if isinstance(channel, BaseChannel) and not channel.key:
                channel.key = key
        self.input_channels = input_channels
        self.output_channels = output_channels
        self.stream_channels = stream_channels
        self.stream_mode: StreamMode = stream_mode
        self.stream_eager = stream_eager
        self.interrupt_after_nodes = interrupt_after_nodes
        self.interrupt_before_nodes = interrupt_before_nodes
        self.step_timeout = step_timeout
        self.debug = bool(debug)
        self.checkpointer = ensure_valid_checkpointer(checkpointer)
        self.store = store
        self.cache = _checked_cache(cache)
        self.retry_policy = retry_policies(retry_policy, "Pregel")
        self.cache_policy = cache_policy
        self.context_schema = context_schema
        self.config = dict(config) if config else None
        self.name = name
        if isolate not in ("shallow", "deep", "off"):
            raise ValueError(f"isolate must be 'shallow', 'deep' or 'off', got {shown(isolate)}")
        self.isolate = isolate
        self.strict = strict
        self.on_conflict = Turn(on_conflict, None).how
        self.renamed_keys = dict(renamed_keys or {})
        self._program: Program | None = None
        if auto_validate:
            self.validate()
        if self.config:
            _request.check_config(self, self.config)

    # ---- the graph

    @property
    def program(self) -> Program:
        """The compiled form; built on first use."""
        if self._program is None:
            managed = {k: c for k, c in self.channels.items() if isinstance(c, type) and issubclass(c, ManagedValue)}
            channels = {k: c for k, c in self.channels.items() if k not in managed}
            self._program = Program(
                nodes=self.nodes,
                channels=channels,
                managed=managed,
                input_channels=self.input_channels,
                output_channels=self.output_channels,
                stream_channels=self.stream_channels_asis,
                watch=self.isolate == "deep",
                renamed_keys=self.renamed_keys,
            )
        return self._program

    def validate(self) -> Self:
        """Check names, subscriptions and channels (engine.md 3.2).

        Raises:
            ValueError: something is named that does not exist, or has a reserved name.
            TypeError: a node is not a node.
        """
        validate(self)
        self._program = None
        return self

    def copy(self, update: Mapping[str, Any] | None = None) -> Self:
        """A graph with some attributes replaced."""
        twin = copy(self)
        for key, value in (update or {}).items():
            setattr(twin, key, value)
        if update and {"nodes", "channels"} & set(update):
            twin._program = None
        return twin

    def with_config(self, config: RunnableConfig | None = None, **more: Any) -> Self:
        """A graph that merges this config into every call's.

        Raises:
            PregelWarning: the graph is strict, and a key stands where nobody reads it.
        """
        for given in (config, more):
            if given:
                _request.check_config(self, given)
        return self.copy({"config": configs.merge(self.config, config, more)})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {len(self.nodes)} nodes>"

    def declared_ways(self) -> list[tuple[str, str | None, str]]:
        """(source, target, kind) of `explanation.Way` for every declared way from node to node."""
        entries = {name: [e[0] for e in getattr(node.write, "entries", ())] for name, node in self.nodes.items()}
        inputs = [self.input_channels] if isinstance(self.input_channels, str) else self.input_channels
        return [
            (source, name, "channel")
            for name, node in self.nodes.items()
            for source, channels in ((START, inputs), *entries.items())
            if any(trigger in channels for trigger in node.triggers)
        ]

    # ---- nested graphs

    def get_subgraphs(self, namespace: str | None = None, *, recurse: bool = False) -> Iterator[tuple[str, Pregel]]:
        """(name, graph) of the nodes that hold a compiled graph; with `recurse` also inside them, names joined by `|`.

        `namespace` yields only the graph at that path. Graphs without a memory of their own (`checkpointer=False`) are
        not reported.
        """
        head, _, rest = (namespace or "").partition("|")
        for name, node in self.nodes.items():
            if namespace is not None and name != head:
                continue
            found = next((graph for graph in node.subgraphs if isinstance(graph, Pregel)), None)
            if found is None or found.checkpointer is False:
                continue
            if namespace is None or not rest:
                yield name, found
            if recurse and (namespace is None or rest):
                for inner, graph in found.get_subgraphs(rest or None, recurse=True):
                    yield f"{name}|{inner}", graph

    async def aget_subgraphs(
        self, namespace: str | None = None, *, recurse: bool = False
    ) -> AsyncIterator[tuple[str, Pregel]]:
        """Async form of `get_subgraphs`."""
        for item in self.get_subgraphs(namespace, recurse=recurse):
            yield item

    # ---- cache

    def clear_cache(self, nodes: Sequence[str] | None = None) -> None:
        """Forget the cached results of nodes, None for all; also inside nested graphs that have no cache of their own.

        Results of called tasks are not touched: `task.clear_cache(cache)`.

        Raises:
            ValueError: the graph has no cache.
        """
        namespaces = self._cache_namespaces(nodes)
        self.cache.clear(namespaces)

    async def aclear_cache(self, nodes: Sequence[str] | None = None) -> None:
        """Async form of `clear_cache`."""
        namespaces = self._cache_namespaces(nodes)
        await self.cache.aclear(namespaces)

    def _cache_namespaces(self, nodes: Sequence[str] | None) -> list[tuple[str, ...]]:
        if self.cache is None:
            raise ValueError(
                f"No cache is set for this graph. Cannot clear cache. Compile graph {self.name!r} with cache=..., or call "
                f"clear() of the cache itself"
            )
        names = list(self.nodes) if nodes is None else [nodes] if isinstance(nodes, str) else list(nodes)
        unknown = [name for name in names if name not in self.nodes]
        places = [
            Notice(
                "unknown-node",
                f"clear_cache:{name}",
                f"clear_cache of graph {self.name!r} names {name!r}, which is not a node of it, so nothing of it is "
                f"forgotten; {nearest(name, self.nodes)}",
            )
            for name in unknown
        ]
        emit(places, self.program.warned, strict=self.strict)
        found: dict[tuple[str, ...], None] = {}
        for name in names:
            node = self.nodes.get(name)
            if node is not None:
                found.update(dict.fromkeys(_cached_under(name, node, set())))
        return list(found)


def _checked_cache(cache: Any) -> Any:
    missing = [name for name in ("get", "aget", "set", "aset", "clear", "aclear") if not hasattr(cache, name)]
    if cache is not None and missing:
        raise TypeError(
            f"cache= is {shown(cache)} ({type(cache).__name__}), which has no {', '.join(missing)}; expected a cache such "
            f"as pregel.cache.memory.InMemoryCache()"
        )
    return cache


def _cached_under(name: str, node: PregelNode, seen: set[int]) -> Iterator[tuple[str, ...]]:
    """Namespaces of a node in its graph's cache, and of those of nested graphs that use the same."""
    if node.bound is not None:
        yield _keys().namespace_of(name, node.bound.subject)
    for graph in node.subgraphs:
        if id(graph) not in seen and isinstance(graph, Pregel) and graph.cache is None:
            seen.add(id(graph))
            for inner, below in graph.nodes.items():
                yield from _cached_under(inner, below, seen)


def _keys() -> Any:
    """What entries of caches are found by, imported when somebody asks."""
    from pregel.cache import keys  # noqa: PLC0415 - a lazy door

    return keys
