"""Random graphs: a plain description, what its nodes do, strategies for it, and a builder that makes a `StateGraph`
of it.

Decides the space of programs that the property suites draw from: nodes that add markers, count, set a plain key, ask,
fail some attempts, route by data, and are joined, deferred or sent to. What a node does (`body`, `choose`) is written
once and used by the built graph and by the reference interpreter, since it is the user's part; what happens around it
is not shared. Knows nothing of versions, channels or savers.

Invariants: the same picks give the same graph; every marker names its node, its step and what the node read, so a
write that is lost, doubled, reordered or seen too early changes the final value.

Source of the idea: hypothesis' strategies over an abstract source of choices, so that fixed seeds and shrinking share
one generator.
"""

from __future__ import annotations

import asyncio
import operator
import random
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from typing_extensions import TypedDict

from pregel import _scope
from pregel.constants import END, START
from pregel.errors import GraphInterrupt
from pregel.graph import StateGraph
from pregel.types import Command, RetryPolicy, Send, interrupt
from pregel.warnings import PregelWarning

Pick = Callable[[int], int]
"""`pick(n)`: a number from 0 to n - 1; 0 is the plainest choice."""

STEADY = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=list(HealthCheck),
)
"""Every run of the suite tries the same examples."""

ENOUGH = 9
"""A node that sees this much stops routing, so loops and fan-outs end."""


class State(TypedDict, total=False):
    """The state of every generated graph."""

    log: Annotated[list[str], operator.add]
    total: Annotated[int, operator.add]
    last: str


@dataclass(frozen=True)
class Route:
    """Where to go, by data: one of `options`, each a tuple of targets. `!a` is a Send to `a`, `a` its name."""

    options: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Node:
    """One node. `fails`: so many attempts of each activation raise; `attempts`: the retry policy's limit, 0: none."""

    name: str
    adds: int = 1
    counts: int = 0
    sets: bool = False
    asks: int = 0
    fails: int = 0
    attempts: int = 0
    goto: Route | None = None
    branch: Route | None = None
    deferred: bool = False
    is_async: bool = False

    @property
    def is_doomed(self) -> bool:
        """Does it fail more often than it is tried?"""
        return self.fails >= max(1, self.attempts)


@dataclass(frozen=True)
class Graph:
    """A description. `joins` are (sources, target); edges to END are left out. `inclusive`: are the joins?"""

    nodes: tuple[Node, ...]
    edges: frozenset[tuple[str, str]]
    joins: tuple[tuple[tuple[str, ...], str], ...] = ()
    inclusive: bool = False

    def node(self, name: str) -> Node:
        """The node of that name; START is a node that does nothing."""
        return next((node for node in self.nodes if node.name == name), Node(START, adds=0))

    def changed(self, name: str, **fields: Any) -> Graph:
        """The same graph with one node changed."""
        return replace(self, nodes=tuple(replace(n, **fields) if n.name == name else n for n in self.nodes))


# ---- what nodes do


class Flaky(ConnectionError):
    """What a failing attempt raises; the retry policies accept it."""


class Broken(Exception):
    """What a node raises while the world says that it is broken."""


def body(node: Node, key: str, state: Mapping[str, Any], step: int) -> Generator[str, Any, tuple[dict[str, Any], Any]]:
    """One activation: yields its questions, takes answers, returns (update, goto targets)."""
    log, total = state.get("log", []), state.get("total", 0)
    heard = []
    for number in range(node.asks):
        heard.append((yield f"{key}@{step}?{number}"))
    update: dict[str, Any] = {}
    if node.adds:
        saw = f"{len(log)}+{total}+{state.get('last', '-')}"
        update["log"] = [f"{node.name}@{step}.{i}/{saw}{''.join(heard)}" for i in range(node.adds)]
    if node.counts:
        update["total"] = node.counts
    if node.sets:
        update["last"] = f"{key}@{step}"
    return update, choose(node.goto, state)


def choose(route: Route | None, state: Mapping[str, Any]) -> list[Any]:
    """The targets of a route: node names and (node, argument) pairs for Sends."""
    size = len(state.get("log", [])) + state.get("total", 0)
    if route is None or size >= ENOUGH:
        return []
    targets: list[Any] = []
    for number, target in enumerate(route.options[size % len(route.options)]):
        sent = {"log": [f"sent{number}"] * (1 + len(state.get("log", [])) // 2), "total": state.get("total", 0) + 2}
        targets.append((target[1:], sent) if target.startswith("!") else target)
    return targets


def answer(question: str) -> str:
    """What the scripted user says."""
    return f"<{question}>"


# ---- choosing a graph


def make_graph(pick: Pick) -> Graph:
    """A graph of up to four nodes."""
    names = "abcd"[: 1 + pick(4)]
    nodes = tuple(_make_node(pick, name, names) for name in names)
    edges = {(START, names[0])}
    for name in names:
        if pick(4) == 3:
            edges.add((START, name))
        for _ in range((1, 0, 2)[pick(3)]):
            # Forward by preference; now and then back, which makes a loop.
            later = [other for other in names if other > name]
            if later and pick(6) != 5:
                edges.add((name, later[pick(len(later))]))
            elif pick(4) == 3:
                edges.add((name, names[pick(len(names))]))
    joins = []
    for _ in range((0, 1, 2)[pick(3)] if len(names) > 2 else 0):
        sources = sorted({names[pick(len(names))], names[pick(len(names))]})
        if len(sources) == 2:
            joins.append((tuple(sources), names[pick(len(names))]))
    # One at most: the order in which several are released is the subject of tests/acceptance/test_mistakes.py.
    return Graph(nodes, frozenset(edges), tuple(dict.fromkeys(joins)), len(joins) == 1 and pick(2) == 1)


def _make_node(pick: Pick, name: str, names: str) -> Node:
    goto = _make_route(pick, names) if pick(4) == 3 else None
    branch = _make_route(pick, names) if pick(4) == 3 else None
    adds = (1, 2, 0)[pick(3)]
    if any(
        target.startswith("!") for route in (goto, branch) if route for option in route.options for target in option
    ):
        adds = max(1, adds)
    fails, attempts = ((0, 0), (0, 2), (1, 2), (2, 3))[pick(4)] if pick(20) != 19 else (2, 2)
    return Node(
        name,
        adds,
        counts=(0, 1, 2)[pick(3)],
        sets=pick(6) == 5,
        asks=(0, 0, 0, 1, 2)[pick(5)],
        fails=fails,
        attempts=attempts,
        goto=goto,
        branch=branch,
        deferred=pick(5) == 4,
        is_async=pick(2) == 1,
    )


def _make_route(pick: Pick, names: str) -> Route:
    def target() -> str:
        return ("!" if pick(2) else "") + names[pick(len(names))]

    return Route(tuple(tuple(target() for _ in range((1, 2, 0)[pick(3)])) for _ in range(1 + pick(3))))


def seeded(seed: int) -> Graph:
    """The graph of a seed."""
    return make_graph(random.Random(seed).randrange)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any graph."""
    return make_graph(lambda count: draw(st.integers(0, count - 1)) if count > 1 else 0)


# ---- a world around the nodes


class World:
    """What the nodes of one built graph share with the test: what is broken, who watches, in which order they end."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.calls: Counter[str] = Counter()
        """Bodies begun, by task key and step."""
        self.watch: Any = None
        """A ledger: told of every body and every question."""
        self.turns: Any = None
        """A `schedule.Turns`: decides the order in which parallel bodies end."""
        self.strike: Callable[[str], None] | None = None
        """Called as each body begins, with its key; may raise."""
        self.version = 0
        """Which version of the graph runs: each calls its nodes otherwise."""


def key_of(task: Any) -> str:
    """The name of a task in its step."""
    name = plain(task.name)
    return name if task.index < 0 else f"{name}#{task.index}"


def name_in(version: int, name: str) -> str:
    """What a version of the graph calls a node; the order of names stays."""
    return f"{name}{version or ''}"


def plain(name: str) -> str:
    """What the description calls a node."""
    return name if name.startswith("__") else name[:1]


def _act(node: Node, world: World, state: Mapping[str, Any]) -> Any:
    scope: Any = _scope.current()
    step = scope.host.step
    key = key_of(scope.task)
    world.calls[f"{key}@{step}"] += 1
    if world.watch is not None:
        world.watch.began(scope, state)
    if world.strike is not None:
        world.strike(key)
    if node.name in world.broken:
        raise Broken(node.name)
    if scope.attempt <= node.fails:
        raise Flaky(f"attempt {scope.attempt} of {key}")
    acting = body(node, key, state, step)
    reply = None
    while True:
        try:
            question = acting.send(reply)
        except StopIteration as stop:
            update, targets = stop.value
            break
        try:
            reply = interrupt(question)
        except GraphInterrupt as asked:
            if world.watch is not None:
                world.watch.asked(asked.interrupts[0].id)
            raise
    goto = _called(targets, world.version)
    return Command(update=update, goto=goto) if goto else update or None


def _called(targets: Sequence[Any], version: int) -> list[Any]:
    """Targets as the code of a version names them. That of even versions still uses the first names."""
    names = version if version % 2 else 0
    return [
        Send(name_in(names, target[0]), target[1]) if isinstance(target, tuple) else name_in(names, target)
        for target in targets
    ]


def _function(node: Node, world: World, is_async: bool) -> Callable[..., Any]:
    def act(state: State) -> Any:
        try:
            return _act(node, world, state)
        finally:
            if world.turns is not None:
                world.turns.wait(_scope.current().task)

    async def act_async(state: State) -> Any:
        try:
            await asyncio.sleep(0)
            return _act(node, world, state)
        finally:
            if world.turns is not None:
                await world.turns.await_(_scope.current().task)

    return act_async if is_async else act


def build(graph: Graph, world: World, *, is_async: bool = False, **options: Any) -> Any:
    """The compiled graph, in the world's version; its async nodes are async only if it is to be run by the async API."""
    builder = StateGraph(State)
    version = world.version

    def name(node: str) -> str:
        return node if node == START else name_in(version, node)

    retried = RetryPolicy(initial_interval=0, jitter=False, retry_on=Flaky)
    for node in graph.nodes:
        builder.add_node(
            name(node.name),
            _function(node, world, is_async and node.is_async),
            aliases=[name_in(earlier, node.name) for earlier in range(version)],
            defer=node.deferred,
            retry_policy=retried._replace(max_attempts=node.attempts) if node.attempts else None,
        )
    for source, target in sorted(graph.edges):
        builder.add_edge(name(source), name(target))
    for sources, target in graph.joins:
        # False: some fill up by chance only.
        builder.add_edge(list(map(name, sources)), name(target), inclusive=graph.inclusive)
    names = [name(node.name) for node in graph.nodes]
    ends = {**{name_in(earlier, node.name): name(node.name) for node in graph.nodes for earlier in range(version + 1)}}
    for node in graph.nodes:
        if node.branch is not None:
            path_map = {**ends, END: END} if version else [*names, END]
            builder.add_conditional_edges(name(node.name), _router(node.branch, version), path_map)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PregelWarning)
        compiled = builder.compile(**options)
    # Chance puts many a goto beside an edge; that this is told is the subject of tests/acceptance/test_mistakes.py.
    compiled.program.warned.update(("goto-and-edge", name) for name in names)
    return compiled


def _router(route: Route, version: int) -> Callable[[State], Sequence[Any]]:
    def router(state: State) -> Sequence[Any]:
        return _called(choose(route, state), version)

    return router
