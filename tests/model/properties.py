"""What must hold of any nest (`tests.support.nests`), whatever happens to its thread on the way."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pregel.errors import GraphRecursionError, InvalidUpdateError
from tests.support.journey import INPUT, Journey, Shelf, Way, shelf
from tests.support.nests import Nest, Node, World, code, seeded

EVENTS = 60
"""Nests whose run has more activations are left out."""


class Known:
    """The undisturbed run: no pause, no failure that ends a call, every answer known in advance."""

    def __init__(self, nest: Nest, *, is_async: bool = False) -> None:
        self.world = World(knows=True, stumbles=False)
        self.journey = Journey(nest, self.world, Shelf(), Way(is_async), stops=False)
        self.fits = True
        try:
            self.journey.chance.random = lambda: 1.0  # type: ignore[method-assign]
            self.journey.finish()
        except (GraphRecursionError, InvalidUpdateError):
            self.fits = False
            return
        self.fits = len(self.world.events) <= EVENTS
        self.values = self.journey.values()


def stumbles(nest: Nest) -> bool:
    """May a call of it end with an error?"""
    return any(node.stumbles for part in nest.walk() for node in part.nodes)


def check_events(world: World, known: World, *, exactly: bool) -> None:
    """The same activations have ended, those that are stored exactly once."""
    assert world.breaches == []
    assert {e.what for e in world.events} == {e.what for e in known.events}
    if exactly:
        got = Counter(e.what for e in world.events if e.stored)
        assert got == Counter(e.what for e in known.events if e.stored)


def paused(nest: Nest, way: Way, place: Shelf) -> bool:
    """Answers that are given later, in any order and manner, come to what answers known in advance come to."""
    known = Known(nest, is_async=way.is_async)
    if not known.fits:
        return False
    journey = Journey(nest, World(), place, way)
    journey.finish()
    assert journey.values() == known.values
    exactly = not (way.is_async and stumbles(nest)) and way.durability != "exit"
    check_events(journey.world, known.world, exactly=exactly)
    if way.durability != "exit":
        assert journey.effects() == known.journey.effects()
    return True


Property = Callable[[Nest, Way, Shelf], bool]
PROPERTIES: dict[str, Property] = {"paused": paused}


# ---- long runs


def way_of(seed: int) -> Way:
    """One of the ways."""
    chance = random.Random(seed)
    return Way(chance.random() < 0.5, chance.choice(["sync", "async", "exit"]), seed)


@contextmanager
def place_of(seed: int) -> Iterator[Shelf]:
    """One of the savers."""
    if seed % 4:
        with shelf(lags=seed % 2 == 0) as place:
            yield place
        return
    with tempfile.TemporaryDirectory() as folder, shelf(Path(folder) / "t.sqlite") as place:
        yield place


def verdict(check: Property, nest: Nest, seed: int) -> BaseException | bool:
    """What a property says of a nest: an error, or whether it applies."""
    try:
        with place_of(seed) as place:
            return check(nest, way_of(seed), place)
    except Exception as error:  # noqa: BLE001 - the verdict
        return error


def smaller(nest: Nest) -> Iterator[Nest]:
    """Nests that have a little less."""
    for number, node in enumerate(nest.nodes):
        others = (*nest.nodes[:number], *nest.nodes[number + 1 :])
        if others and not _named(nest, others, node.name):
            edges = frozenset(edge for edge in nest.edges if node.name not in edge)
            joins = tuple(join for join in nest.joins if node.name not in (*join[0], join[1]))
            stops = (tuple(n for n in names if n != node.name) for names in (nest.before, nest.after))
            yield Nest(nest.name, others, edges, joins, nest.saves, *stops)
        for less in _smaller(node):
            yield replace(nest, nodes=(*nest.nodes[:number], less, *nest.nodes[number + 1 :]))
    for edge in nest.edges:
        yield replace(nest, edges=nest.edges - {edge})
    for join in nest.joins:
        yield replace(nest, joins=tuple(other for other in nest.joins if other != join))
    for field in ("before", "after"):
        if getattr(nest, field):
            yield replace(nest, **{field: ()})
    if nest.saves is not None:
        yield replace(nest, saves=None)


def _named(nest: Nest, nodes: tuple[Node, ...], name: str) -> bool:
    routes = [route for node in nodes for route in (node.goto, node.branch) if route]
    return any(target.strip("!") == name for route in routes for option in route.options for target in option)


def _smaller(node: Node) -> Iterator[Node]:
    plain = Node(node.name)
    for field in Node.__dataclass_fields__:
        value, usual = getattr(node, field), getattr(plain, field)
        if value != usual and field not in ("how", "name"):
            yield replace(node, **{field: usual})
            if field in ("asks", "times") and value > usual + 1:
                yield replace(node, **{field: usual + 1})
    if node.how == "parallel":
        yield replace(node, how="serial")
    for route in ("goto", "branch"):
        value = getattr(node, route)
        if value and len(value.options) > 1:
            for option in value.options:
                yield replace(node, **{route: type(value)((option,))})
    if node.inner is not None:
        for inner in smaller(node.inner):
            yield replace(node, inner=inner)


def shrunk(check: Property, nest: Nest, seed: int) -> Nest:
    """A smallest nest that fails the same way."""
    kind = type(verdict(check, nest, seed))
    while True:
        for less in smaller(nest):
            if type(verdict(check, less, seed)) is kind:
                nest = less
                break
        else:
            return nest


def main() -> int:
    parser = argparse.ArgumentParser(description="The properties over many seeds.")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", choices=PROPERTIES, action="append")
    parser.add_argument("--shrink", action="store_true", help="look for a smaller nest for each failure")
    asked = parser.parse_args()
    failed = 0
    for name in asked.only or PROPERTIES:
        check, applied = PROPERTIES[name], 0
        for seed in range(asked.first, asked.first + asked.seeds):
            nest = seeded(seed)
            found = verdict(check, nest, seed)
            if isinstance(found, BaseException):
                failed += 1
                if asked.shrink:
                    nest = shrunk(check, nest, seed)
                    found = verdict(check, nest, seed)
                print(f"{name} seed {seed}: {way_of(seed)}\n  {code(nest)}")
                if isinstance(found, BaseException):
                    print("".join(traceback.format_exception(found)[-3:]))
            else:
                applied += found
        print(f"{name}: {applied} of {asked.seeds} seeds apply, {failed} failures so far")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
