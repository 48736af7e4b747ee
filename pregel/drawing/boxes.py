"""Nodes and edges as boxes and lines of plain text, laid out in rows.

Decides the layout: a row per longest distance from the start, cells of a row ordered to keep lines short, straight
lines between neighbouring rows. Edges that point upwards and loops are listed below the picture. Knows only names and
pairs.

Source: the layered method of Sugiyama, Tagawa and Toda (1981), with one ordering pass and without straightening.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from pregel.drawing.picture import Edge, Node

__all__ = ["boxes"]


def boxes(nodes: Mapping[str, Node], edges: Sequence[Edge]) -> str:
    """The picture: plain edges `*`, conditional edges `.`; no newline at the end. Empty without nodes."""
    if not nodes:
        return ""
    down, other = _split_edges(nodes, edges)
    rows, links = _rows(nodes, down)
    centers = _place(rows, nodes)
    canvas = _Canvas()
    tops: list[int] = []
    top = 0
    for row in rows:
        tops.append(top)
        # the wider the shift between two rows, the more lines it gets
        shift = max((abs(centers[a] - centers[b]) for (a, b) in links if a in row), default=0)
        top += 3 + max(3, min(8, shift // 4))
    for (a, b), mark in links.items():
        upper = next(i for i, row in enumerate(rows) if a in row)
        start = tops[upper] + (3 if isinstance(a, str) else 1)
        end = tops[upper + 1] - 1 + (0 if isinstance(b, str) else 1)
        canvas.line(centers[a], start, centers[b], end, mark)
    for row, y in zip(rows, tops, strict=True):
        for key in row:
            if isinstance(key, str):
                canvas.box(centers[key], y, nodes[key].name)
    notes = [f"{edge.source} {'..>' if edge.conditional else '-->'} {edge.target}" for edge in other]
    return "\n".join([*canvas.lines(), *(["", *notes] if notes else [])])


# A box is its node id; the crossing of a long edge through a row is (edge number, row number).
_Cell = str | tuple[int, int]


def _split_edges(nodes: Mapping[str, Node], edges: Sequence[Edge]) -> tuple[list[Edge], list[Edge]]:
    """Edges that can point downwards, and the rest (loops and the edges that would close a cycle)."""
    succ: dict[str, list[Edge]] = {node_id: [] for node_id in nodes}
    for edge in edges:
        succ[edge.source].append(edge)
    back: set[int] = set()
    done: set[str] = set()
    for root in nodes:
        if root in done:
            continue
        path, stack = {root}, [(root, iter(succ[root]))]
        while stack:
            node_id, onward = stack[-1]
            step = next(onward, None)
            if step is None:
                stack.pop()
                path.discard(node_id)
                done.add(node_id)
            elif step.target in path:
                back.add(id(step))
            elif step.target not in done:
                path.add(step.target)
                stack.append((step.target, iter(succ[step.target])))
    return [e for e in edges if id(e) not in back], [e for e in edges if id(e) in back]


def _rows(nodes: Mapping[str, Node], down: list[Edge]) -> tuple[list[list[_Cell]], dict[tuple[_Cell, _Cell], str]]:
    """Cells per row, ordered to keep lines short, and the links between cells of neighbouring rows."""
    level = dict.fromkeys(nodes, 0)
    for _ in nodes:
        changed = False
        for edge in down:
            if level[edge.target] <= level[edge.source]:
                level[edge.target] = level[edge.source] + 1
                changed = True
        if not changed:
            break
    rows: list[list[_Cell]] = [[] for _ in range(max(level.values()) + 1)]
    for node_id in nodes:
        rows[level[node_id]].append(node_id)
    links: dict[tuple[_Cell, _Cell], str] = {}
    for number, edge in enumerate(down):
        cell: _Cell = edge.source
        for depth in range(level[edge.source] + 1, level[edge.target]):
            rows[depth].append((number, depth))
            links[cell, (number, depth)] = "." if edge.conditional else "*"
            cell = (number, depth)
        links[cell, edge.target] = "." if edge.conditional else "*"
    for above, row in pairwise(rows):
        place = {cell: i for i, cell in enumerate(above)}
        parents = {cell: [place[a] for (a, b) in links if b == cell and a in place] for cell in row}
        row.sort(key=lambda cell: sum(parents[cell]) / len(parents[cell]) if parents[cell] else 0)
    return rows, links


def _place(rows: list[list[_Cell]], nodes: Mapping[str, Node]) -> dict[_Cell, int]:
    """Column of each cell's middle; every row is centred on the widest one."""
    widths = [[_width(nodes[cell].name) if isinstance(cell, str) else 1 for cell in row] for row in rows]
    totals = [sum(row) + 5 * (len(row) - 1) for row in widths]
    centers: dict[_Cell, int] = {}
    for row, width, total in zip(rows, widths, totals, strict=True):
        x = (max(totals) - total) // 2
        for cell, w in zip(row, width, strict=True):
            centers[cell] = x + w // 2
            x += w + 5
    return centers


def _width(name: str) -> int:
    return len(name) + 4


class _Canvas:
    """A grid of characters that grows as it is drawn on."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], str] = {}

    def line(self, x0: int, y0: int, x1: int, y1: int, mark: str) -> None:
        """A straight line, one mark per row or column, whichever needs more."""
        steps = max(abs(x1 - x0) // 2, abs(y1 - y0), 1)
        for i in range(steps + 1):
            self.cells[round(x0 + (x1 - x0) * i / steps), round(y0 + (y1 - y0) * i / steps)] = mark

    def box(self, center: int, top: int, text: str) -> None:
        """A box of three rows around `text`."""
        left = center - _width(text) // 2
        rule = "+" + "-" * (len(text) + 2) + "+"
        for y, row in enumerate((rule, f"| {text} |", rule)):
            for x, char in enumerate(row):
                self.cells[left + x, top + y] = char

    def lines(self) -> list[str]:
        """The rows from the top, without spaces at their ends."""
        left, bottom = min(x for x, _ in self.cells), max(y for _, y in self.cells)
        rows: list[dict[int, str]] = [{} for _ in range(bottom + 1)]
        for (x, y), char in self.cells.items():
            rows[y][x - left] = char
        return ["".join(row.get(x, " ") for x in range(max(row, default=-1) + 1)) for row in rows]
