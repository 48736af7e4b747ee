"""Random graphs with graphs inside: a plain description, what the nodes do, a generator, and a builder.

Decides the space of programs that the properties of `tests.model.properties` draw from. A `Nest` is a graph of one to
four nodes; a node may have a nest inside, as a node or called in its function, one to three deep, with each
`checkpointer` setting. Nodes ask before and after the calls they make, fail, stumble once, hand their failure to a
handler, route by data, send, go to their parent's nodes, are joined and deferred; nests have breakpoints. Knows
nothing of savers, conversations or what must hold; a `World` writes down what the nodes did.

Invariants
1. What a node does depends on its input and the answers alone: no step, no time, no id. A marker is a digest of all
   that the node read, so whatever is lost, doubled, reordered or seen too early changes every later marker.
2. Nothing depends on which of two parallel calls comes first: under the sync API they are given the same input, and
   their results are sorted.
3. A namespace that is stable (`checkpointer=True`) belongs to one run at a time: such a nest never stands where
   parallel activations could share it.
4. The same picks give the same nest.

Source of the idea: `tests.support.graphs`, whose nodes stay flat so that a reference interpreter can follow them.
"""

from __future__ import annotations

import asyncio
import operator
import random
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Annotated, Any, NamedTuple

import hypothesis.strategies as st
from typing_extensions import TypedDict

from pregel import _scope
from pregel.constants import END, START
from pregel.errors import GraphInterrupt
from pregel.graph import StateGraph
from pregel.types import Command, RetryPolicy, Send, interrupt
from pregel.warnings import PregelWarning
from tests.support.graphs import Broken, Flaky, Pick, Route, answer

ENOUGH = 12
"""A node that sees this much stops routing, so loops and fan-outs end."""
DEPTH = 3
"""So many nests stand inside each other at most."""

Place = tuple[tuple[str, int, int], ...]
"""Of an activation: node (with the index of its Send), step, number of the nested run in its task; outermost first."""


@dataclass(frozen=True)
class Node:
    """One node of a nest."""

    name: str
    adds: int = 1
    counts: int = 0
    owns: bool = False
    """Does it write a plain key that is no other node's?"""
    asks: int = 0
    asks_late: int = 0
    """Questions after the nested calls."""
    fails: int = 0
    """Attempts of each activation that raise; after the nested calls, if there are any."""
    attempts: int = 0
    """The retry policy's limit; 0: none."""
    stumbles: bool = False
    """Does each activation fail once for good, so that the call ends with its error?"""
    handled: bool = False
    """Does it always fail, and is there a handler?"""
    handler_asks: bool = False
    goto: Route | None = None
    branch: Route | None = None
    rises: bool = False
    """Does it return a command for the parent graph?"""
    deferred: bool = False
    is_async: bool = False
    inner: Nest | None = None
    how: str = "node"
    """Of the nest inside: `node`, or called in the function: `serial`, `parallel`."""
    times: int = 1


@dataclass(frozen=True)
class Nest:
    """A graph. Edges to END are left out."""

    name: str
    nodes: tuple[Node, ...]
    edges: frozenset[tuple[str, str]]
    joins: tuple[tuple[tuple[str, ...], str], ...] = ()
    saves: bool | None = None
    """Its `checkpointer`, if it stands inside another."""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def walk(self) -> Iterator[Nest]:
        """This nest and all inside."""
        yield self
        for node in self.nodes:
            if node.inner is not None:
                yield from node.inner.walk()


def code(described: Any) -> str:
    """A nest, node or route as an expression, without what is as usual."""
    if isinstance(described, tuple):
        return f"({''.join(code(item) + ', ' for item in described)})"
    if not isinstance(described, (Nest, Node, Route)):
        return repr(described)
    shown = []
    for field in fields(described):
        value = getattr(described, field.name)
        if field.default is MISSING or value != field.default:
            shown.append(f"{field.name}={code(value)}")
    return f"{type(described).__name__}({', '.join(shown)})"


class State(TypedDict, total=False):
    """What all nests share; each has plain keys of its nodes besides."""

    log: Annotated[list[str], operator.add]
    total: Annotated[int, operator.add]
    notes: Annotated[dict[str, str], operator.or_]


# ---- what nodes do


def digest(*parts: Any) -> str:
    """Eight characters that stand for all of the parts."""
    return f"{zlib.crc32(repr(parts).encode()):08x}"


def seen(state: Mapping[str, Any]) -> str:
    """A digest of a state, whatever the order of its keys."""
    return digest(sorted((key, state[key]) for key in state))


def choose(route: Route | None, state: Mapping[str, Any]) -> list[Any]:
    """The targets of a route: node names, and Sends."""
    size = len(state.get("log", [])) + state.get("total", 0)
    if route is None or size >= ENOUGH:
        return []
    targets: list[Any] = []
    for number, target in enumerate(route.options[size % len(route.options)]):
        sent = {"log": [f"sent{number}"] * (1 + len(state.get("log", [])) // 2), "total": state.get("total", 0) + 2}
        targets.append(Send(target[1:], sent) if target.startswith("!") else target)
    return targets


class Event(NamedTuple):
    """An activation that has returned."""

    place: Place
    what: str
    """Node names from the root, and a digest of what the node read; the same in any run that comes by here."""
    ids: tuple[str, ...]
    """Task ids on the way, outermost first."""
    stored: bool
    """Is it stored, or does a nest around it have `checkpointer=False`?"""


class World:
    """What the nodes of a nest did, and what they are told to do. Shared by all builds of the nest on one thread."""

    def __init__(self, *, knows: bool = False, stumbles: bool = True) -> None:
        self.knows = knows
        """Do the nodes know the answers, instead of asking?"""
        self.stumbles = stumbles
        self.events: list[Event] = []
        self.finished: frozenset[str] = frozenset()
        """Task ids that must not begin: their output was stored before the call."""
        self.closed: set[str] = set()
        """Ids of questions that must not come up: they were answered."""
        self.breaches: list[str] = []
        self.stumbled: set[str] = set()
        self.names: dict[str, str] = {}
        """Task id -> the task's name in its step."""
        self.strike: Callable[[Place], None] | None = None
        """Called as each body begins, with its place; may raise."""

    def begins(self, place: Place, ids: tuple[str, ...]) -> None:
        """A body begins."""
        self.names.update((id_, name) for id_, (name, _, _) in zip(ids, place, strict=True))
        if ids[-1] in self.finished:
            self.breaches.append(f"{names_of(place)} runs although its output is stored")
        if self.strike is not None:
            self.strike(place)

    def ask(self, question: str) -> str:
        """The answer to a question."""
        if self.knows:
            return answer(question)
        try:
            reply: str = interrupt(question)
        except GraphInterrupt as asked:
            if asked.interrupts[0].id in self.closed:
                self.breaches.append(f"{question} is asked although it was answered")
            raise
        if reply != answer(question):
            self.breaches.append(f"{question} got the answer {reply}")
        return reply


def place_of(scope: Any) -> tuple[Place, tuple[str, ...]]:
    """Where an activation is, and the task ids on the way."""
    found: list[tuple[str, int, int]] = []
    ids: list[str] = []
    while scope is not None:
        task = scope.task
        name = task.name if task.index < 0 else f"{task.name}#{task.index}"
        found.append((name, scope.host.step, scope.host.request.call_number))
        ids.append(scope.host.id_of(task))
        scope = scope.parent
    return tuple(found[::-1]), tuple(ids[::-1])


def names_of(place: Place) -> str:
    """Node names from the root."""
    return "/".join(name for name, _, _ in place)


class Activation:
    """One run of a node's body: what does not depend on the colour."""

    def __init__(self, node: Node, world: World, state: Mapping[str, Any]) -> None:
        self.node = node
        self.world = world
        self.state = state
        scope = self.scope = _scope.current()
        self.place, self.ids = place_of(scope)
        self.names = names_of(self.place)
        self.heard: list[str] = []
        self.saw = seen(state)
        world.begins(self.place, self.ids)
        if not node.inner:
            self.fail()
        self.listen(node.asks, "")

    def fail(self) -> None:
        """Fail, if it is to."""
        if self.scope.attempt <= self.node.fails:
            raise Flaky(f"attempt {self.scope.attempt} of {self.names}")

    def listen(self, count: int, when: str) -> None:
        for number in range(count):
            self.heard.append(self.world.ask(f"{self.names}?{when}{number}:{digest(self.saw, self.heard)}"))

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What the nested runs are given."""
        node = self.node
        together = node.how == "parallel" and not node.is_async
        return [
            {"log": [*self.state.get("log", [])[-3:], *self.heard, "call" if together else f"call{n}"], "total": 0}
            for n in range(node.times)
        ]

    def end(self, results: list[dict[str, Any]]) -> Any:
        """The rest of the body: what the node returns."""
        node, world = self.node, self.world
        read = sorted(map(seen, results))
        self.saw = digest(self.saw, read)
        if node.inner:
            self.fail()
        self.listen(node.asks_late, "late")
        what = f"{self.names}={digest(self.saw, self.heard)}"
        if node.handled:
            raise Broken(what)
        if node.stumbles and world.stumbles and what not in world.stumbled:
            world.stumbled.add(what)
            raise Broken(what)
        update: dict[str, Any] = {}
        if node.adds:
            update["log"] = [f"{node.name}{i}:{digest(self.saw, self.heard)}" for i in range(node.adds)]
            update["notes"] = {node.name: digest(self.saw)}
        if node.counts:
            update["total"] = node.counts
        if node.owns:
            update[f"{node.name}_own"] = digest(self.saw)
        targets = choose(node.goto, self.state)
        world.events.append(Event(self.place, what, self.ids, bool(self.scope.host.stores)))
        if node.rises:
            return Command(graph=Command.PARENT, update={"log": update.get("log", ["up"])}, goto=targets)
        return Command(update=update, goto=targets) if targets else update or None


def _function(node: Node, world: World, inner: Any) -> Callable[..., Any]:
    def act(state: State) -> Any:
        acting = Activation(node, world, state)
        results: list[Any] = []
        if inner is not None and node.how == "parallel":
            results = settled(inner.batch(acting.calls, return_exceptions=True))
        elif inner is not None:
            results = [inner.invoke(value) for value in acting.calls]
        return acting.end(results)

    async def act_async(state: State) -> Any:
        acting = Activation(node, world, state)
        for _ in range(int(acting.saw, 16) % 4):
            await asyncio.sleep(0)
        results: list[Any] = []
        if inner is not None and node.how == "parallel":
            results = settled(await asyncio.gather(*map(inner.ainvoke, acting.calls), return_exceptions=True))
        elif inner is not None:
            results = [await inner.ainvoke(value) for value in acting.calls]
        return acting.end(results)

    return act_async if node.is_async else act


def settled(outcomes: list[Any]) -> list[Any]:
    """The results of parallel calls, once all have ended.

    Raises:
        GraphInterrupt: what the calls ask, all together.
    """
    errors = [error for error in outcomes if isinstance(error, BaseException)]
    for error in errors:
        if not isinstance(error, GraphInterrupt):
            raise error
    if errors:
        raise GraphInterrupt(tuple(question for error in errors for question in error.interrupts))
    return outcomes


def _handler(node: Node, world: World) -> Callable[..., Any]:
    handling = Node(f"{node.name}_handler", asks=int(node.handler_asks), is_async=node.is_async)
    return _function(handling, world, None)


# ---- choosing a nest


def make_nest(pick: Pick) -> Nest:
    """A nest, with or without others inside."""
    return _Maker(pick).nest(1, None, alone=True, kept=True, rises=False)


class _Maker:
    def __init__(self, pick: Pick) -> None:
        self.pick = pick
        self.count = 0

    def nest(self, depth: int, saves: bool | None, *, alone: bool, kept: bool, rises: bool) -> Nest:
        """`alone`: no two activations of it at once. `kept`: is it stored? `rises`: may its nodes speak to the parent?"""
        pick = self.pick
        title = "ghijklmnopqrstuvwxyz"[self.count % 20]
        self.count += 1
        names = [f"{title}{letter}" for letter in "abcd"[: 1 + pick(4 if depth == 1 else 3)]]
        rises = rises and pick(4) == 3
        routes = {} if rises else self._routes(names)
        sent = {
            target[1:] for pair in routes.values() for route in pair if route for option in route.options
            for target in option if target.startswith("!")
        }  # fmt: skip
        nodes = tuple(
            self._node(name, depth, routes.get(name, (None, None)), alone=alone and name not in sent, kept=kept,
                       plain=name in sent)
            for name in names
        )  # fmt: skip
        if rises:
            nodes = (*nodes[:-1], replace(nodes[-1], rises=True, handled=False, inner=None))
        edges, joins = (self._chain(names), ()) if rises else self._edges(names)
        stops = [n for n in names if kept and pick(8) == 7], [n for n in names if kept and pick(12) == 11]
        return Nest(title, nodes, edges, joins, saves, tuple(stops[0]), tuple(stops[1]))

    def _chain(self, names: list[str]) -> frozenset[tuple[str, str]]:
        return frozenset(zip([START, *names], names, strict=False))

    def _routes(self, names: list[str]) -> dict[str, tuple[Route | None, Route | None]]:
        pick = self.pick

        def target() -> str:
            return ("!" if pick(3) == 2 else "") + names[pick(len(names))]

        def route() -> Route | None:
            if pick(5) < 4:
                return None
            return Route(tuple(tuple(target() for _ in range((1, 2, 0)[pick(3)])) for _ in range(1 + pick(3))))

        return {name: (route(), route()) for name in names}

    def _edges(self, names: list[str]) -> tuple[frozenset[tuple[str, str]], tuple[Any, ...]]:
        pick = self.pick
        edges = {(START, names[0])}
        for name in names:
            if pick(4) == 3:
                edges.add((START, name))
            later = [other for other in names if other > name]
            for _ in range((1, 0, 2)[pick(3)] if later else 0):
                edges.add((name, later[pick(len(later))]))
        joins = []
        if len(names) > 2 and pick(3) == 2:
            joins.append((tuple(names[:2]), names[2 + pick(len(names) - 2)]))
        return frozenset(edges), tuple(joins)

    def _node(
        self, name: str, depth: int, routes: tuple[Route | None, Route | None], *, alone: bool, kept: bool, plain: bool
    ) -> Node:
        pick = self.pick
        asks = (0, 0, 0, 1, 2)[pick(5)]
        fails, attempts = ((0, 0), (0, 2), (1, 2), (2, 3))[pick(4)] if pick(3) == 2 else (0, 0)
        node = Node(
            name,
            adds=1 if routes != (None, None) else (1, 2, 0)[pick(3)],
            counts=(0, 0, 1)[pick(3)],
            owns=not plain and pick(4) == 3,
            asks=asks,
            fails=fails,
            attempts=attempts,
            stumbles=pick(10) == 9,
            handled=pick(12) == 11,
            handler_asks=pick(2) == 1,
            goto=routes[0],
            branch=routes[1],
            deferred=pick(8) == 7,
            is_async=pick(2) == 1,
        )
        if depth >= DEPTH or pick(5) < (2 if depth == 1 else 3):
            return node
        how = ("node", "serial", "parallel")[pick(3)]
        saves: bool | None = (None, None, None, True, False)[pick(5)]
        if saves is True and (how == "parallel" or not alone):
            saves = None
        inner = self.nest(
            depth + 1, saves, alone=alone and how != "parallel", kept=kept and saves is not False,
            rises=how != "parallel",
        )  # fmt: skip
        if how == "node":
            return Node(name, attempts=attempts, branch=node.branch, deferred=node.deferred, inner=inner, how=how)
        return replace(node, handled=False, inner=inner, how=how, times=1 + pick(2), asks_late=(0, 0, 1)[pick(3)])


def seeded(seed: int) -> Nest:
    """The nest of a seed."""
    return make_nest(random.Random(seed).randrange)


@st.composite
def nests(draw: st.DrawFn) -> Nest:
    """Any nest."""
    return make_nest(lambda count: draw(st.integers(0, count - 1)) if count > 1 else 0)


# ---- building


RETRY = RetryPolicy(initial_interval=0, jitter=False, retry_on=(Flaky, Broken))


def build(nest: Nest, world: World, *, is_async: bool, stops: bool = True, **options: Any) -> Any:
    """The compiled nest; async nodes are async only if it is to be run by the async API."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PregelWarning)
        return _built(nest, world, is_async, stops, options)


def _built(nest: Nest, world: World, is_async: bool, stops: bool, options: dict[str, Any]) -> Any:
    own = {f"{node.name}_own": str for node in nest.nodes}
    schema: Any = TypedDict(  # type: ignore[misc]
        f"State_{nest.name}",
        {
            "log": Annotated[list[str], operator.add],
            "total": Annotated[int, operator.add],
            "notes": Annotated[dict[str, str], operator.or_],
            **own,
        },
        total=False,
    )
    builder = StateGraph(schema)
    for node in nest.nodes:
        node = node if is_async else replace(node, is_async=False)
        inner = None
        if node.inner is not None:
            # A sync function calls `invoke`, which runs no async nodes.
            below = is_async and (node.how == "node" or node.is_async)
            inner = _built(node.inner, world, below, stops, {"checkpointer": node.inner.saves})
        builder.add_node(
            node.name,
            inner if inner is not None and node.how == "node" else _function(node, world, inner),
            defer=node.deferred,
            retry_policy=RETRY._replace(max_attempts=node.attempts) if node.attempts else None,
            error_handler=_handler(node, world) if node.handled else None,
        )
    for edge in sorted(nest.edges):
        builder.add_edge(*edge)
    for sources, target in nest.joins:
        builder.add_edge(list(sources), target)
    for node in nest.nodes:
        if node.branch is not None:
            builder.add_conditional_edges(node.name, _router(node.branch), [*(n.name for n in nest.nodes), END])
    if stops:
        options = {**options, "interrupt_before": list(nest.before), "interrupt_after": list(nest.after)}
    return builder.compile(**options)


def _router(route: Route) -> Callable[[State], list[Any]]:
    def router(state: State) -> list[Any]:
        return choose(route, state)

    return router
