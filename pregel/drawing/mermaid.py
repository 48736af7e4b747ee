"""Nodes and edges as Mermaid flowchart text (frontends.md 6.4, amendments C12).

Decides escaping, labels, styles and the order of lines; which nodes and edges there are is decided in `draw.py`. Nested
graphs are read from the node ids: `outer:inner`. The format is that of https://mermaid.js.org/syntax/flowchart.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from pregel.drawing.picture import Edge, Node

__all__ = ["CurveStyle", "Mermaid", "NodeStyles", "common_parent", "facts", "front_matter", "parent"]


class CurveStyle(Enum):
    """How Mermaid bends its edges; the value is Mermaid's own name."""

    BASIS = "basis"
    BUMP_X = "bumpX"
    BUMP_Y = "bumpY"
    CARDINAL = "cardinal"
    CATMULL_ROM = "catmullRom"
    LINEAR = "linear"
    MONOTONE_X = "monotoneX"
    MONOTONE_Y = "monotoneY"
    NATURAL = "natural"
    STEP = "step"
    STEP_AFTER = "stepAfter"
    STEP_BEFORE = "stepBefore"


@dataclass
class NodeStyles:
    """Mermaid style definitions (CSS-like text) for ordinary nodes, the first and the last one."""

    default: str = "fill:#f2f0ff,line-height:1.2"
    first: str = "fill-opacity:0"
    last: str = "fill:#bfb6fc"


class Mermaid:
    """The lines of one drawing; nested graphs are the colon-separated prefixes of node ids."""

    def __init__(
        self,
        nodes: Mapping[str, Node],
        all_edges: Sequence[Edge],
        first: Node | None,
        last: Node | None,
        *,
        with_nodes: bool,
        words_per_line: int,
    ) -> None:
        self.nodes = nodes
        self.all_edges = all_edges
        self.with_nodes = with_nodes
        self.words_per_line = words_per_line
        self.first_id = first.id if first else None
        self.last_id = last.id if last else None
        self.seen_names: set[str] = set()

    def node_lines(self, prefix: str) -> Iterator[str]:
        """Lines of the nodes that stand directly in the nested graph `prefix` ("" is the outermost)."""
        for node in self.nodes.values():
            if parent(node.id) == prefix:
                yield f"\t{_mermaid_id(node.id)}{self._box(node)}\n"

    def edges(self) -> Iterator[str]:
        """Outermost edges, then loops, then one block per nested graph."""
        own, loops = self._edges_of("")
        yield from map(self._edge_line, own)
        yield from map(self._edge_line, loops)
        for prefix in self._children(""):
            yield from self._block(prefix)

    def _block(self, prefix: str) -> Iterator[str]:
        name = prefix.rpartition(":")[2]
        if name in self.seen_names:
            raise ValueError(
                f"graph drawing has two nested graphs named {name!r}; Mermaid would draw them as one: rename one of "
                "the nodes, or draw with a smaller xray"
            )
        self.seen_names.add(name)
        own, loops = self._edges_of(prefix)
        yield f"\tsubgraph {name}\n"
        if self.with_nodes:
            yield from self.node_lines(prefix)
        yield from map(self._edge_line, own)
        for child in self._children(prefix):
            yield from self._block(child)
        yield from map(self._edge_line, loops)
        yield "\tend\n"

    def _children(self, prefix: str) -> list[str]:
        """Nested graphs directly inside `prefix`, in order of their first node."""
        found: dict[str, None] = {}
        for node_id in self.nodes:
            above = parent(node_id)
            while above and parent(above) != prefix:
                above = parent(above)
            if above:
                found[above] = None
        return list(found)

    def _edges_of(self, prefix: str) -> tuple[list[Edge], list[Edge]]:
        """Edges whose innermost common graph is `prefix`: between two nodes, and loops."""
        inside = [edge for edge in self.all_edges if common_parent(edge.source, edge.target) == prefix]
        return [e for e in inside if e.source != e.target], [e for e in inside if e.source == e.target]

    def _edge_line(self, edge: Edge) -> str:
        if edge.data is None:
            arrow = "-.->" if edge.conditional else "-->"
        else:
            label = f"&nbsp;{self._wrapped(str(edge.data))}&nbsp;"
            arrow = f"-. {label} .->" if edge.conditional else f"-- {label} -->"
        return f"\t{_mermaid_id(edge.source)} {arrow} {_mermaid_id(edge.target)};\n"

    def _wrapped(self, label: str) -> str:
        words, width = label.split(), self.words_per_line
        if len(words) <= width and len(label.splitlines()) < 2:
            return label  # as it was given; a line break would end the edge's line
        return "&nbsp<br>&nbsp".join(" ".join(words[i : i + width]) for i in range(0, len(words), width))

    def _box(self, node: Node) -> str:
        label = node.name.rpartition(":")[2]
        if label[:1] in tuple("*_`") and label[-1:] in tuple("*_`"):
            label = f"<p>{label}</p>"  # else Mermaid reads it as Markdown emphasis
        pairs = facts(node)
        if pairs:
            label += "<hr/><small><em>" + "\n".join(_entities(pair) for pair in pairs) + "</em></small>"
        if node.id == self.last_id:
            return f"([{label}]):::last"
        if node.id == self.first_id:
            return f"([{label}]):::first"
        return f"({label})"


def parent(node_id: str) -> str:
    """The nested graph that a node stands in; "" for the outermost."""
    return node_id.rpartition(":")[0]


def common_parent(source: str, target: str) -> str:
    """The innermost graph that holds both nodes."""
    mine, theirs = source.split(":")[:-1], target.split(":")[:-1]
    depth = 0
    while depth < min(len(mine), len(theirs)) and mine[depth] == theirs[depth]:
        depth += 1
    return ":".join(mine[:depth])


def facts(node: Node) -> list[str]:
    """`key = value` for what a label can show of a node's metadata."""
    return [f"{key} = {text}" for key, value in (node.metadata or {}).items() if (text := _plain(value)) is not None]


def _mermaid_id(node_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f"\\{ord(match[0]):x}", node_id)


def _plain(value: object) -> str | None:
    """A scalar, or a list of scalars, as text; None for everything that a label cannot show."""
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) if all(_is_scalar(item) for item in value) else None
    return str(value) if _is_scalar(value) else None


def _is_scalar(value: object) -> bool:
    return isinstance(value, (str, int, float, bool))


def _entities(text: str) -> str:
    """Characters that would end or restyle the label, as Mermaid's numbered entities."""
    table = {"#": "#35;", '"': "#quot;", "<": "#60;", ">": "#62;"}
    return "".join(table.get(char, char) for char in text)


def front_matter(curve: CurveStyle, config: Mapping[str, object]) -> str:
    """The YAML head: the user's configuration with the curve put in, keys sorted."""
    inner = config.get("config")
    inner = inner if isinstance(inner, Mapping) else {}
    flowchart = inner.get("flowchart")
    flowchart = flowchart if isinstance(flowchart, Mapping) else {}
    merged = {**config, "config": {**inner, "flowchart": {**flowchart, "curve": curve.value}}}
    return "---\n" + "".join(_yaml(merged, 0)) + "---\n"


def _yaml(value: Mapping[str, object], depth: int) -> Iterator[str]:
    """A mapping as block YAML with sorted keys; enough for configuration, so that no YAML package is needed."""
    pad = "  " * depth
    for key in sorted(value, key=str):
        item, name = value[key], _yaml_scalar(str(key))
        if isinstance(item, Mapping) and item:
            yield f"{pad}{name}:\n"
            yield from _yaml(item, depth + 1)
        elif isinstance(item, (list, tuple)) and item:
            yield f"{pad}{name}:\n"
            for element in item:
                yield f"{pad}- {_yaml_scalar(element)}\n"
        else:
            yield f"{pad}{name}: {_yaml_scalar(item)}\n"


def _yaml_scalar(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (Mapping, list, tuple)):
        if isinstance(value, Mapping):
            pairs = (f"{_yaml_scalar(str(key))}: {_yaml_scalar(value[key])}" for key in sorted(value, key=str))
            return "{" + ", ".join(pairs) + "}"
        return "[" + ", ".join(map(_yaml_scalar, value)) + "]"
    text = str(value)
    # Unquoted only what no YAML reader can take for something else.
    safe = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_ ./'-]*(?<! )", text)
    if safe and text.lower() not in {"true", "false", "yes", "no", "on", "off", "null"}:
        return text
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'
