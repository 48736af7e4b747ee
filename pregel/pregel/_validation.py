"""Is a graph sound? What it names must exist and have no reserved name, before anything runs (engine.md 3.2).

Decides which mistakes a declaration can have at the level of nodes and channels. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from pregel.channels import BaseChannel
from pregel.constants import END, RESERVED, START
from pregel.engine.program import PregelNode
from pregel.errors import shown
from pregel.pregel._graph import Graph


def validate(graph: Graph) -> None:
    """Check names, subscriptions, channels, breakpoints and renames.

    Raises:
        ValueError: something is named that does not exist, or has a reserved name.
        TypeError: a node is not a node.
    """
    _check_names(graph)
    for name, node in graph.nodes.items():
        _check_node(graph, name, node)
    _check_inputs(graph)
    for what, names in (("output", graph.output_channels), ("stream", graph.stream_channels or ())):
        for channel in _listed(names):
            if channel not in graph.channels:
                raise ValueError(f"{what} channel {channel!r} is none of {shown(list(graph.channels))}")
    for given in (graph.interrupt_before_nodes, graph.interrupt_after_nodes):
        for name in _listed(given):
            if name != "*" and name not in graph.nodes:
                raise ValueError(f"breakpoint at unknown node {name!r}; the nodes are {list(graph.nodes)!r}")
    _check_aliases(graph)
    _check_renamed_keys(graph)


def _listed(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else list(names)


def _check_names(graph: Graph) -> None:
    for name, channel in graph.channels.items():
        if name in RESERVED:
            kind = "channel" if isinstance(channel, BaseChannel) else "managed value"
            raise ValueError(f"{kind} name {name!r} is reserved; choose another one")


def _check_node(graph: Graph, name: str, node: PregelNode) -> None:
    if name in RESERVED:
        raise ValueError(f"node name {name!r} is reserved; choose another one")
    if not isinstance(node, PregelNode):
        raise TypeError(f"node {name!r} is {shown(node)} ({type(node).__name__}); expected a PregelNode or NodeBuilder")
    for does, channels in (("reads", _listed(node.channels)), ("subscribes to", node.triggers)):
        for channel in channels:
            if channel not in graph.channels:
                known = shown(list(graph.channels))
                raise ValueError(f"node {name!r} {does} channel {channel!r}, which is none of {known}")


def _check_inputs(graph: Graph) -> None:
    inputs = _listed(graph.input_channels)
    for channel in inputs:
        if channel not in graph.channels:
            raise ValueError(f"input channel {channel!r} is none of {shown(list(graph.channels))}")
    subscribed = {channel for node in graph.nodes.values() for channel in node.triggers}
    if subscribed.isdisjoint(inputs):
        raise ValueError(f"no node subscribes to the input channels {inputs!r}, so the graph would never start")


def _check_aliases(graph: Graph) -> None:
    """The names that nodes had before."""
    taken: dict[str, str] = {}
    for name, node in graph.nodes.items():
        for alias in node.aliases:
            where = f"node {name!r}: alias {alias!r}"
            if alias in graph.nodes:
                raise ValueError(f"{where} is the name of a node; an alias is a name that no node has any more")
            if alias in taken:
                raise ValueError(f"{where} is an alias of node {taken[alias]!r} already; give it to one of them")
            if alias in RESERVED or alias in (START, END) or "|" in alias or ":" in alias:
                raise ValueError(f"{where} is reserved or has '|' or ':' in it, so it was never the name of a node")
            taken[alias] = name


def _check_renamed_keys(graph: Graph) -> None:
    for old, new in graph.renamed_keys.items():
        if old in graph.channels:
            raise ValueError(f"renamed_keys: {old!r} is declared, so it was not renamed; leave it out")
        if new is not None and new not in graph.channels:
            raise ValueError(f"renamed_keys: {old!r} became {new!r}, which is none of {shown(list(graph.channels))}")
