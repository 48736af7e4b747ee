"""Nodes made by hand: what wakes one, what it reads, the steps it runs, what it writes.

Decides how several steps become one call and how a result becomes writes. Knows no graph, run or saver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from pregel._call import Call, is_graph, prepare
from pregel._policies import retry_policies
from pregel._scope import TaskScope
from pregel.constants import TASKS
from pregel.engine.program import Node, PregelNode, Write
from pregel.errors import InvalidUpdateError
from pregel.types import CachePolicy, RetryPolicy, TimeoutPolicy

PASSTHROUGH: Any = object()
"""A write entry's value that stands for the node's output."""


class NodeBuilder:
    """Makes a `PregelNode` step by step; every method returns the builder."""

    def __init__(self) -> None:
        self._channels: str | list[str] = []
        self._triggers: list[str] = []
        self._steps: list[Call] = []
        self._entries: list[tuple[str, Any, bool, Callable[[Any], Any] | None]] = []
        self._tags: list[str] = []
        self._metadata: dict[str, Any] = {}
        self._retry: list[RetryPolicy] = []
        self._cache: CachePolicy[Any] | None = None
        self._timeout: TimeoutPolicy | None = None
        self._aliases: list[str] = []

    def subscribe_only(self, channel: str) -> Self:
        """Wake on one channel and take its bare value as input.

        Raises:
            ValueError: the node subscribes to something already.
        """
        if self._channels:
            raise ValueError(
                f"cannot subscribe only to {channel!r}: the node already reads {self._channels!r}; use subscribe_to"
            )
        self._channels = channel
        self._triggers.append(channel)
        return self

    def subscribe_to(self, *channels: str, read: bool = True) -> Self:
        """Wake on these channels; with `read` they are also keys of the dict that is the node's input.

        Raises:
            ValueError: the node takes the bare value of one channel.
        """
        if isinstance(self._channels, str):
            raise ValueError(
                f"cannot subscribe to {channels!r}: the node takes the bare value of {self._channels!r}; use subscribe_to "
                f"for all channels instead of subscribe_only"
            )
        if read:
            self._channels += [channel for channel in channels if channel not in self._channels]
        self._triggers += channels
        return self

    def read_from(self, *channels: str) -> Self:
        """Read these channels too, without waking on them.

        Raises:
            AssertionError: the node takes the bare value of one channel.
        """
        if isinstance(self._channels, str):
            raise AssertionError(
                f"cannot read {channels!r} too: the node takes the bare value of {self._channels!r}; use subscribe_to"
            )
        self._channels += [channel for channel in channels if channel not in self._channels]
        return self

    def do(self, node: Any) -> Self:
        """What runs; each further call adds a step that gets the output of the one before.

        Raises:
            TypeError: it cannot be called.
        """
        self._steps.append(prepare(node))
        return self

    def write_to(self, *channels: Any, **values: Any) -> Self:
        """Write the output to each channel; `name=value` writes a constant, `name=function` writes `function(output)`.

        Raises:
            InvalidUpdateError: the reserved channel of Sends is named.
        """
        for channel in channels:
            entry = (channel, PASSTHROUGH, False, None) if isinstance(channel, str) else tuple(channel)
            self._entries.append(_checked(entry))
        for name, value in values.items():
            mapped = callable(value)
            self._entries.append(_checked((name, PASSTHROUGH if mapped else value, False, value if mapped else None)))
        return self

    def meta(self, *tags: str, **metadata: Any) -> Self:
        """Add tags and metadata."""
        self._tags += tags
        self._metadata.update(metadata)
        return self

    def add_retry_policies(self, *policies: RetryPolicy) -> Self:
        """Add retry policies; the first that matches a failure decides."""
        self._retry += retry_policies(policies, "add_retry_policies")
        return self

    def add_cache_policy(self, policy: CachePolicy[Any]) -> Self:
        """Reuse the node's writes for equal inputs, in a graph that has a cache."""
        self._cache = policy
        return self

    def set_timeout(self, timeout: Any) -> Self:
        """Limit an attempt: seconds, timedelta or policy.

        Raises:
            ValueError: it is not greater than 0.
        """
        self._timeout = TimeoutPolicy.coerce(timeout)
        return self

    def also_known_as(self, *names: str) -> Self:
        """Names that the node had in earlier versions of the graph; work stored under them goes on here."""
        self._aliases += names
        return self

    def build(self) -> PregelNode:
        """The node."""
        bound = _sequence(self._steps)
        return PregelNode(
            channels=self._channels,
            triggers=self._triggers,
            bound=bound,
            write=ChannelWrite(self._entries) if self._entries else None,
            tags=self._tags,
            metadata=self._metadata,
            retry_policy=self._retry,
            cache_policy=self._cache,
            timeout=self._timeout,
            subgraphs=[step.subject for step in self._steps if is_graph(step.subject)],
            aliases=self._aliases,
        )


class ChannelWrite:
    """The writes of a hand-made node: each entry is (channel, value or PASSTHROUGH, skip_none, mapper)."""

    __slots__ = ("entries",)

    def __init__(self, entries: Sequence[tuple[str, Any, bool, Callable[[Any], Any] | None]]) -> None:
        self.entries = list(entries)

    @property
    def shape(self) -> list[tuple[str, Any, bool, Any]]:
        """What it makes of a result, as data (`cache.keys`)."""
        return self.entries

    def __call__(self, result: Any, scope: TaskScope, writes: list[Write]) -> None:
        for channel, value, skip_none, mapper in self.entries:
            item = result if value is PASSTHROUGH else value
            if mapper is not None:
                item = mapper(item)
            if item is not None or not skip_none:
                writes.append((channel, item))


def _checked(entry: Any) -> tuple[str, Any, bool, Callable[[Any], Any] | None]:
    full: Any = (*entry, *(PASSTHROUGH, False, None)[len(entry) - 1 :])
    channel, value, skip_none, mapper = full
    if channel == TASKS:
        raise InvalidUpdateError(
            f"channel {TASKS!r} is reserved for Send; return or route to a Send instead of writing it"
        )
    return channel, value, skip_none, mapper


def _sequence(steps: Sequence[Call]) -> Call | None:
    """Several steps as one call: each gets the output of the one before, and its own injected arguments."""
    if len(steps) < 2:
        return steps[0] if steps else None
    name = steps[0].name

    def arguments(scope: TaskScope) -> dict[str, Any]:
        return {"injected": [step.inject(scope) if step.inject is not None else {} for step in steps]}

    def run(value: Any, *, injected: list[dict[str, Any]]) -> Any:
        for step, extra in zip(steps, injected, strict=True):
            assert step.fn is not None
            value = step.fn(value, **extra)
        return value

    async def arun(value: Any, *, injected: list[dict[str, Any]]) -> Any:
        for step, extra in zip(steps, injected, strict=True):
            if step.afn is not None:
                value = await step.afn(value, **extra)
            else:
                assert step.fn is not None
                value = step.fn(value, **extra)
        return value

    vars(run)["steps"] = vars(arun)["steps"] = steps  # what tells this sequence from others (`cache.keys`)
    fn = run if all(step.fn is not None for step in steps) else None
    return Call(name, fn, arun if any(step.afn is not None for step in steps) else None, arguments, steps[0].subject)


def callable_node(name: str, spec: PregelNode) -> Any:
    """A node that no channel wakes: `TaskScope.spawn` runs it as a task of whoever calls it."""
    return Node(name, spec, {})
