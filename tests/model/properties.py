"""What must hold of any nest (`tests.support.nests`), whatever happens to its thread on the way.

Each property takes a nest, a way to travel (colour, durability, seed of all choices) and a place to keep the thread. It
compares a run that is paused, replayed, forked, cancelled, struck or streamed with the undisturbed one, whose nodes know
all answers. Nothing here is a second implementation: what is compared are two runs of the same engine, so what is wrong
in both the same way is the business of `test_model`, whose reference interpreter is not the engine.

What may run more than once, and what not:

1. A node that asks runs once for each resume that brings it an answer, and once for each that brings nobody one.
2. A node that called nested runs runs again when one of them asks, fails or is cut short; with durability `exit`, nested
   runs that ended meanwhile run again with it if nothing around them was stored.
3. What stands in a graph with `checkpointer=False` runs again from its start with the node around it.
4. A body whose outcome was not stored, because the call was cut short or the process died, runs again.
5. Nothing else. In particular a task whose output is stored does not begin, and a question whose answer is stored does
   not come up: both are checked before each call against what the saver has then (`Journey.audit`).

What a replay of a checkpoint runs again: all tasks of the steps after it in its own run and in the runs around it, and of
the nested runs in the superstep that was open then, what was not done when the checkpoint was made. It does not matter
whether the replay itself is paused on the way.

Long runs: `python -m tests.model.properties --seeds 1000 [--only forked] [--first 5000] [--shrink]`.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from checkpoint.testing.faults import FailAt, inject, sqlite_error
from pregel.errors import GraphRecursionError, InvalidUpdateError
from pregel.warnings import PregelWarning
from tests.support.graphs import Broken
from tests.support.journey import CALLS, INPUT, EndlessError, Journey, Shelf, Spot, Way, shelf
from tests.support.nests import Nest, Node, Place, World, code, names_of, seeded
from tests.support.savers import Died, FaultySaver

EVENTS = 60
"""Nests whose run has more activations are left out."""

SPOTS = 4
"""Checkpoints of one nest that are tried."""

FORKS = 2
"""Forks of one nest that are made."""


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


def branched(nest: Nest, way: Way, place: Shelf) -> bool:
    """A fork that the saver makes of a checkpoint stands where that stood: see `replayed`."""
    return replayed(nest, way, place, fork=lambda config: place.saver.fork(config))


def replayed(nest: Nest, way: Way, place: Shelf, *, fork: Callable[[Any], Any] | None = None) -> bool:
    """A run from any checkpoint at any depth does again what came after it, and nothing else; it comes to the same end.
    `fork`: makes the checkpoint that is addressed in its place."""
    known = Known(nest, is_async=way.is_async)
    if not known.fits:
        return False
    journey = Journey(nest, World(), place, way)
    journey.finish()
    assert journey.values() == known.values
    spots = journey.spots()
    for number, spot in enumerate(journey.chance.sample(spots, min(SPOTS, len(spots)))):
        again = Journey(nest, World(stumbles=False), place, way._replace(seed=way.seed + number), stops=False)
        again.audits = False
        again.invoke(None, spot.config if fork is None else fork(spot.config))
        again.audits = True
        again.finish()
        assert again.values() == known.values, spot
        check_tail(spot, journey.world, again.world, exactly=way.durability != "exit")
    return True


def check_tail(spot: Spot, before: World, again: World, *, exactly: bool) -> None:
    """What was done again is what comes after the checkpoint."""
    assert again.breaches == []
    is_after = [(event, spot.is_before(event)) for event in before.events]
    for stored in (True, False):
        must = Counter(event.what for event, is_due in is_after if is_due and event.stored is stored)
        may = Counter(event.what for event, is_due in is_after if is_due is None and event.stored is stored)
        done = Counter(event.what for event in again.events if event.stored is stored)
        if not (stored and exactly):  # it is run from its start whenever something around it is run again
            must, may, done = (Counter(dict.fromkeys(them, 1)) for them in (must, may, done))
        assert must <= done, (spot, "left out", must - done)
        assert done <= must + may, (spot, "done again", done - must - may)


def forked(nest: Nest, way: Way, place: Shelf) -> bool:
    """A fork comes to what a fresh run comes to that is edited at the same place, and the branch that it left is as
    before."""
    if not Known(nest, is_async=way.is_async).fits:
        return False
    journey = Journey(nest, World(), place, way)
    for _ in range(journey.chance.choice([2, 3, CALLS])):
        if not journey.step():
            break
    spots = journey.spots()
    for number, spot in enumerate(journey.chance.sample(spots, min(FORKS, len(spots)))):
        edit, node = {"log": [f"edit{number}"], "total": 0}, journey.chance.choice(at(nest, spot).nodes).name
        journey.load()
        before = picture(journey)
        again = Journey(nest, World(stumbles=False), place, way._replace(seed=way.seed + number), stops=False)
        again.audits = False
        config = again.do("update_state", spot.config, edit, node)
        again.invoke(None, {**again.config, **config})
        again.audits = True
        try:
            again.finish()
        except (GraphRecursionError, InvalidUpdateError, EndlessError):  # what was edited may send the run in circles
            continue
        after = picture(again)
        for spot_ in before:
            assert after[spot_] == before[spot_], (spot, "changed", spot_)
        assert again.world.breaches == []
        wanted = edited(journey, spot, edit, node)
        found = again.values()
        assert wanted in (None, found), (spot, edit, node)
    return True


def at(nest: Nest, spot: Spot) -> Nest:
    """The nest that a checkpoint belongs to."""
    for segment in spot.config["configurable"]["checkpoint_ns"].split("|"):
        name = segment.partition(":")[0]
        if name and not name.isdecimal():
            nest = next(node.inner for node in nest.nodes if node.name == name and node.inner is not None)
    return nest


def picture(journey: Journey) -> dict[str, Any]:
    """All that can be seen of each checkpoint, by its id."""
    found = {}
    for spot in journey.spots():
        snapshot = journey.do("get_state", spot.config)
        # An update of the newest checkpoint shows there as the result of the task that it stands for.
        tasks = [(task.id, task.name, task.error, task.interrupts, task.state) for task in snapshot.tasks]
        id_ = spot.config["configurable"]["checkpoint_id"]
        found[id_] = repr((snapshot.values, snapshot.next, snapshot.metadata, snapshot.parent_config, tasks))
    return found


def edited(journey: Journey, spot: Spot, edit: Any, node: str) -> Any:
    """The end of a fresh run that is left at the same place, edited there, and taken up again; None if it cannot be left
    there: a nested run has ended, or has not begun, and does not wait.
    """
    journey.load()
    fresh = Journey(journey.nest, World(knows=True, stumbles=False), Shelf(), Way(journey.way.is_async), stops=False)
    names = tuple((step, journey.world.names.get(task, task), call) for step, task, call in spot.way)
    ready = journey.do("get_state", spot.config).next
    if ready in ((), ("__start__",)):
        if spot.way:
            return None
        fresh.chunks(
            INPUT, fresh.config, lambda chunk: chunk["metadata"]["step"] == spot.step, stream_mode="checkpoints"
        )
    else:
        fresh.world.strike = lambda place: halt(place, names, spot.step)
        with suppress(Halted):
            fresh.do("invoke", INPUT, fresh.config)
        fresh.world.strike = None
    heads = {one.config["configurable"]["checkpoint_ns"]: one for one in fresh.spots()}
    met = [
        one
        for one in heads.values()
        if (one.names, one.step) == (spot.names, spot.step)
        and names == tuple((step, fresh.world.names.get(task, task), call) for step, task, call in one.way)
    ]
    if len(met) != 1:
        return None
    fresh.do("update_state", met[0].config, edit, node)
    fresh.chance.random = lambda: 1.0  # type: ignore[method-assign]
    try:
        fresh.finish()
    except (GraphRecursionError, InvalidUpdateError, EndlessError):
        return None
    return fresh.values()


class Halted(Exception):
    """What a body raises where a run is to be left; no policy tries again."""


def halt(place: Place, around: tuple[Any, ...], step: int) -> None:
    """Raise if a body, or what is around it, opens the step after a checkpoint of the run below these tasks."""
    for level, (above, name, call) in enumerate(around):
        if len(place) <= level + 1 or place[level][:2] != (name, above) or place[level + 1][2] != call:
            return
    if place[len(around)][1] == step + 1:
        raise Halted


def cancelled(nest: Nest, way: Way, place: Shelf) -> bool:
    """Calls that are cut short anywhere, by their caller or by Ctrl-C in a node, are taken up to the same end."""
    known = Known(nest, is_async=way.is_async)
    if not known.fits:
        return False
    journey = Journey(nest, World(), place, way)
    journey.hard = (Broken, KeyboardInterrupt)
    chance, world = random.Random(way.seed), journey.world
    left = 6

    def calling(given: Any) -> None:
        nonlocal left
        left -= 1
        how = chance.choice(["turns", "chunks", "ctrl-c"]) if left >= 0 else ""
        number = chance.randint(1, 25)
        if how == "turns" and way.is_async:
            journey.cancelled(given, number * 2)
        elif how == "ctrl-c":
            begun: list[str] = []

            def strike(begins: Any) -> None:
                begun.append(names_of(begins))
                if len(begun) == number // 3 + 1:
                    raise KeyboardInterrupt

            world.strike = strike
            try:
                journey.do("invoke", given, journey.config, durability=way.durability)
            finally:
                world.strike = None
        else:
            taken: list[Any] = []

            def leaves(chunk: Any) -> bool:
                taken.append(chunk)
                return bool(how) and len(taken) == number

            modes = ["tasks", "values"]
            journey.chunks(given, journey.config, leaves, stream_mode=modes, subgraphs=bool(number % 2))

    journey.caller = calling
    journey.finish()
    check_end(journey, known)
    return True


def crashed(nest: Nest, way: Way, place: Shelf) -> bool:
    """The process dies, or the saver fails, at any of its calls; the next one takes up what is stored."""
    known = Known(nest, is_async=way.is_async)
    if not known.fits:
        return False
    journey = Journey(nest, World(), place, way)
    chance = random.Random(way.seed)
    left = 6

    def calling(given: Any) -> None:
        nonlocal left
        left -= 1
        saver = place.saver
        number = chance.randint(1, 12)
        if left < 0:
            journey.do("invoke", given, journey.config, durability=way.durability)
        elif isinstance(saver, FaultySaver):
            saver.strike_at, saver.late = saver.calls + number, chance.random() < 0.5
            try:
                journey.do("invoke", given, journey.config, durability=way.durability)
            finally:
                saver.strike_at = None
        else:
            fault = FailAt(chance.choice(["b0", "b2", "b3", "b4", "b5"]), number, error=sqlite_error("SQLITE_FULL"))
            with inject(saver, fault):
                journey.do("invoke", given, journey.config, durability=way.durability)

    journey.caller = calling
    journey.hard = (Broken, Died, sqlite3.OperationalError)
    while True:
        try:
            if not journey.step():
                break
        finally:
            if isinstance(place.saver, FaultySaver) and place.saver.is_dead:
                journey.restart()
    check_end(journey, known)
    return True


def check_end(journey: Journey, known: Known) -> None:
    """After whatever happened: the end and the effects of the undisturbed run."""
    assert journey.values() == known.values
    check_events(journey.world, known.world, exactly=False)
    if journey.way.durability != "exit":
        assert journey.effects() == known.journey.effects()


def folded(nest: Nest, way: Way, place: Shelf) -> bool:
    """What a stream shows of each step at any depth adds up to what is stored of it."""
    if not Known(nest, is_async=way.is_async).fits:
        return False
    journey = Journey(nest, World(), place, way)
    fold = Fold(whole=way.durability != "exit")

    def calling(given: Any) -> None:
        modes = ["values", "updates", "checkpoints"]
        fold.began()
        journey.chunks(given, journey.config, fold.take, stream_mode=modes, subgraphs=True)

    journey.caller = calling
    journey.finish()
    if way.durability == "exit":
        assert fold.values[()] == journey.values()
        return True
    stored = {spot.config["configurable"]["checkpoint_id"]: spot for spot in journey.spots()}
    assert fold.checkpoints.keys() == stored.keys()
    for id_, shown in fold.checkpoints.items():
        snapshot = journey.do("get_state", stored[id_].config)
        assert (shown["values"], tuple(shown["next"]), shown["metadata"]) == (
            snapshot.values,
            snapshot.next,
            snapshot.metadata,
        )
    return True


class Fold:
    """Adds up the chunks of a thread's calls, namespace by namespace."""

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        """Is every step stored? Otherwise nested runs may begin anew when a call takes them up."""
        self.checkpoints: dict[str, Any] = {}
        self.values: dict[tuple[str, ...], Any] = {}
        self._open: dict[tuple[str, ...], tuple[Any, list[str]]] = {}
        """The newest checkpoint, and what has been added to its log since."""

    def began(self) -> None:
        """A call begins: what is finished of the open steps is shown again."""
        self._open = {path: (checkpoint, []) for path, (checkpoint, _) in self._open.items()}

    def take(self, chunk: Any) -> bool:
        path, mode, payload = chunk
        if mode == "values":
            if "__interrupt__" not in payload:
                self.values[path] = payload
        elif mode == "updates":
            added = self._open[path][1] if path in self._open else []
            for name, update in payload.items():
                if name not in ("__interrupt__", "__metadata__"):
                    added += (update or {}).get("log", ())
        else:
            self._checkpoint(path, payload)
        return False

    def _checkpoint(self, path: tuple[str, ...], payload: Any) -> None:
        id_ = payload["config"]["configurable"]["checkpoint_id"]
        self.checkpoints[id_] = payload
        before, added = self._open.get(path, (None, []))
        follows = before is not None and before["config"] != payload["config"] and before["next"] != ["__start__"]
        if self.whole and follows and payload["metadata"]["source"] == "loop":
            log = Counter(before["values"].get("log", [])) + Counter(added)
            assert Counter(payload["values"].get("log", [])) == log, path
        self._open[path] = payload, []


Property = Callable[[Nest, Way, Shelf], bool]
PROPERTIES: dict[str, Property] = {
    "paused": paused,
    "replayed": replayed,
    "branched": branched,
    "forked": forked,
    "cancelled": cancelled,
    "crashed": crashed,
    "folded": folded,
}


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
    except (Exception, Died) as error:  # noqa: BLE001 - the verdict
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


def _error(found: BaseException | bool) -> BaseException | None:
    return found if isinstance(found, BaseException) else None


def shrunk(check: Property, nest: Nest, seed: int, kind: type) -> Nest:
    """A smallest nest that fails the same way."""
    while True:
        for less in smaller(nest):
            if type(verdict(check, less, seed)) is kind:
                nest = less
                break
        else:
            return nest


def say(*lines: str) -> None:
    """Lines of a report."""
    sys.stdout.writelines(line.rstrip("\n") + "\n" for line in lines)
    sys.stdout.flush()


def main() -> int:
    """Try many seeds; say which fail. 1 if one did."""
    warnings.simplefilter("ignore", PregelWarning)
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
                    nest = shrunk(check, nest, seed, type(found))
                    found = next(filter(None, (_error(verdict(check, nest, seed)) for _ in range(3))), found)
                say(f"{name} seed {seed}: {way_of(seed)}", f"  {code(nest)}", *traceback.format_exception(found)[-3:])
            else:
                applied += found
        say(f"{name}: {applied} of {asked.seeds} seeds apply, {failed} failures so far")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
