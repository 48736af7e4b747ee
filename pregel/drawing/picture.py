"""The two values that every drawing is made of: `Node` and `Edge`. They decide nothing and know nothing."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ANY", "Edge", "Node"]

ANY = object()
"""`Node.data` of the stand-in for targets that nobody declared."""


class Node(NamedTuple):
    """One box: `id` is unique in the graph, `name` is shown, `data` is what the node runs (None for the end)."""

    id: str
    name: str
    data: object = None
    metadata: dict[str, object] | None = None


class Edge(NamedTuple):
    """One arrow between two node ids; `data` is its label, `conditional` draws it dashed."""

    source: str
    target: str
    data: object = None
    conditional: bool = False
