"""Nodes and edges as a standalone SVG picture, made without network, fonts, scripts or packages.

Decides sizes, places and lines: rows from `layers.py`, each nested graph (`outer:inner` ids) laid out by itself and
framed, edges as curves through the rows, labels on them. Which nodes and edges there are is decided in `draw.py`.

Invariants
1. The text is one well-formed XML document that refers to nothing outside itself, whatever the names, labels and
   metadata hold: they come from users, and from models.
2. The same drawing gives the same text.
3. Every node stands in the frame of its graph, no two nodes overlap, and every edge is drawn.

Source: https://www.w3.org/TR/SVG11/; text is measured by guess, since there is no font to ask.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pregel.drawing.layers import Cell, Route, arrange
from pregel.drawing.mermaid import common_parent, facts, parent
from pregel.drawing.picture import ANY, Edge, Node

__all__ = ["svg"]

Point = tuple[float, float]

_FONT = 14
_CHAR = 7.7
"""Guessed width of a character, of the small text 0.8 of it."""
_LINE = 18
_GAP_X, _GAP_Y = 36, 34
_FRAME = 18
"""Space between a frame and what it holds."""
_SPREAD = 18
"""Distance of edges that join the same two boxes."""
_MARGIN = 12
_NAME_LIMIT, _FACT_LIMIT, _LABEL_WIDTH = 60, 48, 30
_INK, _RIM, _FILL, _LAST, _FRAME_FILL = "#1f1f28", "#8d7fd6", "#f2f0ff", "#bfb6fc", "#fbfaff"


def svg(
    nodes: Mapping[str, Node],
    edges: Sequence[Edge],
    first: Node | None,
    last: Node | None,
    *,
    background: str = "white",
    padding: int = _MARGIN,
) -> str:
    """The picture as one XML document that ends with a newline.

    Args:
        nodes: by id; colons in an id name the nested graphs it stands in.
        edges: between these ids.
        first: drawn as the start.
        last: drawn as the end.
        background: a color; "none" for a transparent picture.
        padding: pixels around the drawing.
    """
    top = _Group("", nodes, edges, first and first.id, last and last.id)
    top.place(padding - _FRAME, padding - _FRAME)
    width, height = (max(1, round(side + 2 * (padding - _FRAME))) for side in (top.width, top.height))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" font-family="Helvetica, Arial, sans-serif" font-size="{_FONT}" text-anchor="middle" fill="{_INK}">',
        f"<title>graph with {len(nodes)} nodes and {len(edges)} edges</title>",
        '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{_INK}"/></marker></defs>',
    ]
    if background != "none":
        lines.append(f'<rect width="{width}" height="{height}" fill="{_escaped(background)}"/>')
    lines += [*top.frames(), *top.lines(), *top.boxes(), *top.labels(), "</svg>"]
    return "\n".join(lines) + "\n"


@dataclass
class _Box:
    """What takes room: a node. Coordinates are set by `place`."""

    width: float
    height: float
    text: list[str] = field(default_factory=list)
    """The name, then facts."""
    kind: str = "node"
    node_id: str = ""
    x: float = 0
    y: float = 0
    """Of the upper left corner."""

    def place(self, x: float, y: float) -> None:
        self.x, self.y = x, y

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    def frames(self) -> Iterator[str]:
        yield from ()

    def lines(self) -> Iterator[str]:
        yield from ()

    def labels(self) -> Iterator[str]:
        yield from ()

    def boxes(self) -> Iterator[str]:
        radius = {"node": 6, "any": 16}.get(self.kind, self.height / 2)
        fill = {"first": "white", "last": _LAST, "any": "white"}.get(self.kind, _FILL)
        dashes = ' stroke-dasharray="3 3"' if self.kind == "any" else ""
        yield (
            f'<g class="{self.kind}"><title>{_escaped(self.node_id)}</title>'
            f'<rect x="{_n(self.x)}" y="{_n(self.y)}" width="{_n(self.width)}" height="{_n(self.height)}" '
            f'rx="{_n(radius)}" fill="{fill}" stroke="{_RIM}"{dashes}/>{self._text()}</g>'
        )

    def _text(self) -> str:
        name, *more = self.text
        y = self.y + _LINE
        shown = [f'<text x="{_n(self.middle)}" y="{_n(y)}">{_escaped(name)}</text>']
        for number, line in enumerate(more, 1):
            shown.append(
                f'<text x="{_n(self.middle)}" y="{_n(y + number * _LINE)}" font-size="11" font-style="italic">'
                f"{_escaped(line)}</text>"
            )
        return "".join(shown)


def _box(node: Node, kind: str) -> _Box:
    name = _cut(node.name.rpartition(":")[2], _NAME_LIMIT)
    more = [_cut(line, _FACT_LIMIT) for line in facts(node)]
    width = max([_width(name), *(0.8 * _width(line) for line in more)])
    return _Box(max(44, width + 24), _LINE * (1 + len(more)) + 10, [name, *more], kind, node.id)


class _Group(_Box):
    """A graph: its own nodes and nested graphs in rows. The outermost has no frame."""

    def __init__(
        self, prefix: str, nodes: Mapping[str, Node], edges: Sequence[Edge], first: str | None, last: str | None
    ) -> None:
        super().__init__(0, 0, [_cut(prefix.rpartition(":")[2], _NAME_LIMIT)], "graph", prefix)
        self.is_framed = prefix != ""
        self.leaves: dict[str, _Box] = {}
        """Of this graph and all that are in it."""
        self.items: dict[str, _Box] = {}
        inner = {node_id: node for node_id, node in nodes.items() if _is_in(node_id, prefix)}
        for node_id, node in inner.items():
            item = _child(node_id, prefix)
            if item in self.items:
                continue
            if item == node_id:
                kind = "first" if node_id == first else "last" if node_id == last else "node"
                self.leaves[item] = self.items[item] = _box(node, "any" if node.data is ANY else kind)
            else:
                group = self.items[item] = _Group(item[:-1], inner, edges, first, last)
                self.leaves.update(group.leaves)
        own = [edge for edge in edges if common_parent(edge.source, edge.target) == prefix]
        self.loops = [edge for edge in own if edge.source == edge.target]
        self.rows, self.routes = self._arranged(prefix, [edge for edge in own if edge.source != edge.target])
        self.spread = self._spreads()
        self.at: dict[Cell, float] = {}
        """Middle of each cell, from the left of the graph."""
        self.tops: list[float] = []
        self._measure()

    def _arranged(self, prefix: str, own: Sequence[Edge]) -> tuple[list[list[Cell]], list[Route]]:
        ends = [edge._replace(source=_child(edge.source, prefix), target=_child(edge.target, prefix)) for edge in own]
        layers = arrange(list(self.items), ends, turn=True, length=lambda edge: 1 if edge.data is None else 2)
        whole = {id(end): edge for end, edge in zip(ends, own, strict=True)}
        return layers.rows, [route._replace(edge=whole[id(route.edge)]) for route in layers.routes]

    def _spreads(self) -> dict[int, float]:
        """How far each route is moved to the right, so that those of the same two boxes are told apart."""
        between: dict[tuple[Cell, ...], list[int]] = {}
        for number, route in enumerate(self.routes):
            if len(route.cells) == 2:
                between.setdefault(tuple(route.cells), []).append(number)
        return {
            number: (place - (len(same) - 1) / 2) * _SPREAD
            for same in between.values()
            for place, number in enumerate(same)
        }

    def _size(self, cell: Cell) -> tuple[float, float]:
        if isinstance(cell, str):
            item = self.items[cell]
            loops = 30 if any(edge.source == cell for edge in self.loops) else 0
            return item.width + 2 * loops, item.height
        text = self._label_at.get(cell)
        return (max(map(_width, text)) + 14, _LINE * len(text) + 6) if text else (10, 0)

    def _measure(self) -> None:
        self._label_at = {
            route.cells[len(route.cells) // 2]: _wrapped(str(route.edge.data))
            for route in self.routes
            if route.edge.data is not None
        }
        sizes = {cell: self._size(cell) for row in self.rows for cell in row}
        links = [pair for route in self.routes for pair in pairwise(route.cells)]
        self.at = _columns(self.rows, {cell: size[0] for cell, size in sizes.items()}, links)
        left = min((self.at[cell] - sizes[cell][0] / 2 for row in self.rows for cell in row), default=0)
        self.at = {cell: middle - left + _FRAME for cell, middle in self.at.items()}
        right = max((self.at[cell] + sizes[cell][0] / 2 for row in self.rows for cell in row), default=_FRAME)
        y: float = _FRAME + (_LINE if self.is_framed else 0)
        self.heights = [max((sizes[cell][1] for cell in row), default=0) for row in self.rows]
        for height in self.heights:
            self.tops.append(y)
            y += height + _GAP_Y
        self.width = max(right + _FRAME, _width(self.text[0]) + 2 * _FRAME)
        self.height = y - (_GAP_Y if self.rows else 0) + _FRAME

    def place(self, x: float, y: float) -> None:
        super().place(x, y)
        for row, top, height in zip(self.rows, self.tops, self.heights, strict=True):
            for cell in row:
                if isinstance(cell, str):
                    item = self.items[cell]
                    # Beside a nested graph the others stand at its top, near what leads to them.
                    lower = 0 if any(isinstance(self.items.get(str(c)), _Group) for c in row) else height - item.height
                    item.place(x + self.at[cell] - item.width / 2, y + top + lower / 2)

    def frames(self) -> Iterator[str]:
        if self.is_framed:
            yield (
                f'<g class="graph"><rect x="{_n(self.x)}" y="{_n(self.y)}" width="{_n(self.width)}" '
                f'height="{_n(self.height)}" rx="8" fill="{_FRAME_FILL}" stroke="{_RIM}" stroke-opacity="0.5"/>'
                f'<text x="{_n(self.x + 10)}" y="{_n(self.y + _LINE)}" text-anchor="start" font-weight="bold">'
                f"{_escaped(self.text[0])}"
                "</text></g>"
            )
        for item in self.items.values():
            yield from item.frames()

    def boxes(self) -> Iterator[str]:
        for item in self.items.values():
            yield from item.boxes()

    def lines(self) -> Iterator[str]:
        for item in self.items.values():
            yield from item.lines()
        for number, route in enumerate(self.routes):
            yield _line(route.edge, _curve(self._points(number, route)))
        for edge in self.loops:
            box = self.leaves[edge.source]
            x, y = box.x + box.width, box.y + box.height / 2
            yield _line(
                edge, f"M{_n(x)} {_n(y - 6)}C{_n(x + 26)} {_n(y - 20)} {_n(x + 26)} {_n(y + 20)} {_n(x)} {_n(y + 6)}"
            )

    def labels(self) -> Iterator[str]:
        for cell, text in self._label_at.items():
            assert not isinstance(cell, str)
            x, y = self.x + self.at[cell], self.y + self.tops[cell[1]] + self.heights[cell[1]] / 2
            yield _label(x, y, text)
        for edge in self.loops:
            if edge.data is not None:
                box = self.leaves[edge.source]
                yield _label(box.x + box.width + 24, box.y - 8, _wrapped(str(edge.data)))
        for item in self.items.values():
            yield from item.labels()

    def _points(self, number: int, route: Route) -> list[Point]:
        """The way of an edge, in its own direction: out of its source, through the rows, to its target."""
        upper, lower = route.edge.source, route.edge.target
        if route.turned:
            upper, lower = lower, upper
        shift = self.spread.get(number, 0.0)
        points = self._way_in(route.cells[0], self.leaves[upper], shift, is_above=False)[::-1]
        for cell in route.cells[1:-1]:
            assert not isinstance(cell, str)
            x, top = self.x + self.at[cell], self.y + self.tops[cell[1]]
            points += [(x, top), (x, top + self.heights[cell[1]])]
        points += self._way_in(route.cells[-1], self.leaves[lower], shift, is_above=True)
        return points[::-1] if route.turned else points

    def _way_in(self, cell: Cell, leaf: _Box, shift: float, *, is_above: bool) -> list[Point]:
        """Points from the upper or lower side of a box of this graph to a node in it: straight, or along the right side
        of its frame where other nodes stand in between."""
        item = self.items[str(cell)]
        edge = leaf.y if is_above else leaf.y + leaf.height
        others = item.leaves.values() if isinstance(item, _Group) else ()
        if all(edge <= other.y if is_above else edge >= other.y + other.height for other in others):
            return [(leaf.middle + shift, edge)]
        lane, middle = item.x + item.width - _FRAME / 2, leaf.y + leaf.height / 2
        side = item.y if is_above else item.y + item.height
        return [(lane, side), (lane, middle), (leaf.x + leaf.width, middle)]


def _columns(
    rows: Sequence[Sequence[Cell]], widths: Mapping[Cell, float], links: Sequence[tuple[Cell, Cell]]
) -> dict[Cell, float]:
    """Middle of each cell: near the middle of its neighbours, in the order of its row, without overlap."""
    near: dict[Cell, list[Cell]] = {cell: [] for row in rows for cell in row}
    for upper, lower in links:
        near[upper].append(lower)
        near[lower].append(upper)
    at: dict[Cell, float] = {}
    for row in rows:
        x = 0.0
        for cell in row:
            at[cell] = x + widths[cell] / 2
            x += widths[cell] + _GAP_X
        for cell in row:
            at[cell] -= (x - _GAP_X) / 2
    for sweep in range(8):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            want = [sum(map(at.__getitem__, near[c])) / len(near[c]) if near[c] else at[c] for c in row]
            _spaced(row, want, widths, at)
    return at


def _spaced(row: Sequence[Cell], want: Sequence[float], widths: Mapping[Cell, float], at: dict[Cell, float]) -> None:
    """Put a row where it wants to be, as far as its cells leave room: the mean of pushing right and pushing left."""
    gaps = [(widths[a] + widths[b]) / 2 + _GAP_X for a, b in pairwise(row)]
    right = list(want)
    for i, gap in enumerate(gaps):
        right[i + 1] = max(right[i + 1], right[i] + gap)
    left = list(want)
    for i in range(len(gaps) - 1, -1, -1):
        left[i] = min(left[i], left[i + 1] - gaps[i])
    for cell, a, b in zip(row, right, left, strict=True):
        at[cell] = (a + b) / 2


def _line(edge: Edge, path: str) -> str:
    dashes = ' stroke-dasharray="5 4"' if edge.conditional else ""
    return (
        f'<path class="{"conditional" if edge.conditional else "plain"}" d="{path}" fill="none" stroke="{_INK}"{dashes} '
        f'marker-end="url(#arrow)"><title>{_escaped(f"{edge.source} to {edge.target}")}</title></path>'
    )


def _curve(points: Sequence[Point]) -> str:
    """A path that leaves and enters every point straight up or down, unless it has no other height to go to."""
    (x, y), *more = points
    path = [f"M{_n(x)} {_n(y)}"]
    for to_x, to_y in more:
        if x == to_x or y == to_y:
            path.append(f"L{_n(to_x)} {_n(to_y)}")
        else:
            bend = (y + to_y) / 2
            path.append(f"C{_n(x)} {_n(bend)} {_n(to_x)} {_n(bend)} {_n(to_x)} {_n(to_y)}")
        x, y = to_x, to_y
    return "".join(path)


def _label(x: float, y: float, text: Sequence[str]) -> str:
    width, height = max(map(_width, text)) + 8, _LINE * len(text)
    lines = "".join(
        f'<text x="{_n(x)}" y="{_n(y - height / 2 + _LINE * (i + 0.75))}">{_escaped(line)}</text>'
        for i, line in enumerate(text)
    )
    return (
        f'<g class="label"><rect x="{_n(x - width / 2)}" y="{_n(y - height / 2)}" width="{_n(width)}" '
        f'height="{_n(height)}" rx="3" fill="white" fill-opacity="0.85"/>{lines}</g>'
    )


def _is_in(node_id: str, prefix: str) -> bool:
    return not prefix or node_id.startswith(f"{prefix}:")


def _child(node_id: str, prefix: str) -> str:
    """What of a graph a node belongs to: itself, or the nested graph it stands in, marked by a colon at the end."""
    if parent(node_id) == prefix:
        return node_id
    lead = f"{prefix}:" if prefix else ""
    return f"{lead}{node_id[len(lead) :].partition(':')[0]}:"


def _wrapped(text: str) -> list[str]:
    """A label in lines of a readable width, at most three."""
    lines = [""]
    for word in text.split() or [""]:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _LABEL_WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    if len(lines) > 3:
        lines[2:] = [f"{lines[2]} ..."]
    return [_cut(line, _LABEL_WIDTH + 4) for line in lines]


def _cut(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _width(text: str) -> float:
    # East Asian characters and symbols are about twice as wide as Latin ones.
    return sum(_CHAR if char < "\u1100" else 2 * _CHAR for char in text)


_UNFIT = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold, other control characters, and those that turn the direction of what follows."""


def _escaped(text: str) -> str:
    clean = _UNFIT.sub("\ufffd", text)
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        clean = clean.replace(char, entity)
    return clean


def _n(number: float) -> str:
    """A coordinate, short and without a sign on zero."""
    return f"{round(number, 1) + 0.0:g}"
