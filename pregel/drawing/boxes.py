"""Nodes and edges as boxes and lines of plain text, laid out in rows.

Decides columns and characters: every row is centred, straight lines join neighbouring rows. Edges that point upwards
and loops are listed below the picture. Which row a node stands in is decided in `layers.py`. Knows only names and pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from pregel.drawing.layers import Cell, arrange
from pregel.drawing.picture import Edge, Node

__all__ = ["boxes"]


def boxes(nodes: Mapping[str, Node], edges: Sequence[Edge]) -> str:
    """The picture: plain edges `*`, conditional edges `.`; no newline at the end. Empty without nodes."""
    if not nodes:
        return ""
    names = {node_id: shown(node.name) for node_id, node in nodes.items()}
    rows, routes, other = arrange(list(nodes), edges)
    links = {
        (upper, lower): "." if route.edge.conditional else "*"
        for route in routes
        for upper, lower in pairwise(route.cells)
    }
    row_of = {cell: i for i, row in enumerate(rows) for cell in row}
    centers = _place(rows, names)
    canvas = _Canvas()
    shifts = [0] * len(rows)
    for upper, lower in links:
        shifts[row_of[upper]] = max(shifts[row_of[upper]], abs(centers[upper] - centers[lower]))
    tops: list[int] = []
    top = 0
    for shift in shifts:
        tops.append(top)
        # the wider the shift between two rows, the more lines it gets
        top += 3 + max(3, min(8, shift // 4))
    for (upper, lower), mark in links.items():
        start = tops[row_of[upper]] + (3 if isinstance(upper, str) else 1)
        end = tops[row_of[lower]] - 1 + (0 if isinstance(lower, str) else 1)
        canvas.line(centers[upper], start, centers[lower], end, mark)
    for row, y in zip(rows, tops, strict=True):
        for cell in row:
            if isinstance(cell, str):
                canvas.box(centers[cell], y, names[cell])
    notes = [f"{shown(e.source)} {'..>' if e.conditional else '-->'} {shown(e.target)}" for e in other]
    return "\n".join([*canvas.lines(), *(["", *notes] if notes else [])])


def shown(name: str) -> str:
    """A name as one line of printable characters."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(name.split()))


def _place(rows: Sequence[Sequence[Cell]], names: Mapping[str, str]) -> dict[Cell, int]:
    """Column of each cell's middle; every row is centred on the widest one."""
    widths = [[_width(names[cell]) if isinstance(cell, str) else 1 for cell in row] for row in rows]
    totals = [sum(row) + 5 * (len(row) - 1) for row in widths]
    centers: dict[Cell, int] = {}
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
