"""Rows for a drawing: which row each node stands in, in which order, and through which rows each edge runs.

Decides the shape that `boxes` draws with characters and `svg` with lines: a row per longest distance from the start,
long edges led through the rows between, the order within a row chosen to keep lines short. Knows names, pairs and
nothing of sizes or coordinates.

Invariants
1. Every route goes down, one row at a time; an edge that would close a cycle is turned round, or left out.
2. The same names and pairs give the same rows.
3. Cost: nodes plus edges plus the rows that edges cross, times a fixed number of sweeps.

Source: the layered method of Sugiyama, Tagawa and Toda (1981); rows by longest path, order by barycentre.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from pregel.drawing.picture import Edge

__all__ = ["Cell", "Layers", "Route", "arrange"]

Cell = str | tuple[int, int]
"""What a row holds: a node, or the crossing of a long edge, as (number of the edge, row)."""

_SWEEPS = 6


class Route(NamedTuple):
    """An edge on its way down: its cells from top to bottom. `turned`: the edge itself points upwards."""

    edge: Edge
    cells: list[Cell]
    turned: bool


class Layers(NamedTuple):
    """A drawing's rows from top to bottom, and its edges."""

    rows: list[list[Cell]]
    routes: list[Route]
    rest: list[Edge]
    """Loops, and the edges that point upwards if they were not turned round."""


def arrange(
    ids: Sequence[str],
    edges: Sequence[Edge],
    *,
    turn: bool = False,
    length: Callable[[Edge], int] = lambda edge: 1,
) -> Layers:
    """Put nodes into rows.

    Args:
        ids: the nodes, the start first.
        edges: between these nodes.
        turn: lead the edges that close a cycle through the rows as well, upside down.
        length: rows that an edge goes down at least; more than one leaves room on it.
    """
    back = _closing(ids, edges)
    rest = [edge for number, edge in enumerate(edges) if edge.source == edge.target or (number in back and not turn)]
    ways: list[tuple[int, Edge, str, str]] = []
    for number, edge in enumerate(edges):
        if edge.source != edge.target and (turn or number not in back):
            ends = (edge.target, edge.source) if number in back else (edge.source, edge.target)
            ways.append((number, edge, *ends))
    level = _levels(ids, [(top, bottom, length(edge)) for _, edge, top, bottom in ways])
    rows: list[list[Cell]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for node_id in ids:
        rows[level[node_id]].append(node_id)
    routes = []
    for number, edge, top, bottom in ways:
        between = [(number, row) for row in range(level[top] + 1, level[bottom])]
        for cell in between:
            rows[cell[1]].append(cell)
        routes.append(Route(edge, [top, *between, bottom], number in back))
    _sort(rows, routes)
    return Layers(rows, routes, rest)


def _closing(ids: Sequence[str], edges: Sequence[Edge]) -> set[int]:
    """Numbers of the edges that lead back to where a walk from the start comes from."""
    onward: dict[str, list[int]] = {node_id: [] for node_id in ids}
    for number, edge in enumerate(edges):
        onward[edge.source].append(number)
    found: set[int] = set()
    done: set[str] = set()
    for root in ids:
        if root in done:
            continue
        path, stack = {root}, [(root, iter(onward[root]))]
        while stack:
            node_id, ways = stack[-1]
            step = next(ways, None)
            if step is None:
                stack.pop()
                path.discard(node_id)
                done.add(node_id)
                continue
            target = edges[step].target
            if target in path:
                found.add(step)
            elif target not in done:
                path.add(target)
                stack.append((target, iter(onward[target])))
    return found


def _levels(ids: Sequence[str], links: Sequence[tuple[str, str, int]]) -> dict[str, int]:
    """Row of each node: the longest way to it. `links`: (upper, lower, rows at least), without cycles."""
    level = dict.fromkeys(ids, 0)
    missing = dict.fromkeys(ids, 0)
    below: dict[str, list[tuple[str, int]]] = {node_id: [] for node_id in ids}
    for top, bottom, length in links:
        below[top].append((bottom, length))
        missing[bottom] += 1
    ready = [node_id for node_id in ids if not missing[node_id]]
    for node_id in ready:
        for bottom, length in below[node_id]:
            level[bottom] = max(level[bottom], level[node_id] + length)
            missing[bottom] -= 1
            if not missing[bottom]:
                ready.append(bottom)
    return level


def _sort(rows: Sequence[list[Cell]], routes: Sequence[Route]) -> None:
    """Order each row by the middle of its neighbours above and below in turns, in place."""
    above: dict[Cell, list[Cell]] = {cell: [] for row in rows for cell in row}
    below: dict[Cell, list[Cell]] = {cell: [] for row in rows for cell in row}
    for route in routes:
        for upper, lower in pairwise(route.cells):
            below[upper].append(lower)
            above[lower].append(upper)
    place = {cell: float(i) for row in rows for i, cell in enumerate(row)}
    for sweep in range(_SWEEPS):
        # The last sweep goes down, so that what stands near the start has the say.
        down = sweep % 2 == _SWEEPS % 2 or sweep == _SWEEPS - 1
        neighbours = above if down else below
        for row in rows if down else reversed(rows):
            want = {
                cell: sum(map(place.__getitem__, neighbours[cell])) / len(neighbours[cell])
                if neighbours[cell]
                else place[cell]
                for cell in row
            }
            row.sort(key=want.__getitem__)
            place.update((cell, float(i)) for i, cell in enumerate(row))
