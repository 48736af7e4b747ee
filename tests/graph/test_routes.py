"""`Routes` and what `find_mistakes` claims: held against all that small random graphs can do.

A `Plan` is a random graph whose functions declare where they go, or do not. `played` walks through every choice that its
functions have, in the abstract; `lived` compiles it and lets the engine run some of them. Neither may ever reach a node
that was called unreachable.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import random
import types
import warnings
from collections.abc import AsyncIterator, Callable, Generator, Hashable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Optional, Protocol, TypeVar

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from pregel.errors import GraphRecursionError
from pregel.graph import END, START, StateGraph
from pregel.graph.mistakes import find_mistakes
from pregel.graph.routes import Routes
from pregel.types import Command, Send
from pregel.warnings import PregelWarning


class State(TypedDict, total=False):
    n: int


class Model(BaseModel):
    n: int = 0


@dataclasses.dataclass
class Data:
    n: int = 0


class Pair(NamedTuple):
    one: int
    two: int


class Going(Protocol):
    goto: Any


Item = TypeVar("Item")


# ---- annotations


@pytest.mark.parametrize(
    ("annotation", "ends"),
    [
        (None, set()),
        ("None", set()),
        (dict, set()),
        (dict[str, Any], set()),
        (Mapping[str, Any], set()),
        (State, set()),
        (Model, set()),
        (Data, set()),
        (str, set()),
        (State | None, set()),
        (Optional[State], set()),  # noqa: UP045 - what programs have
        (Annotated[State, "note"], set()),
        (list[State], set()),
        (Iterator[State], set()),
        (AsyncIterator[dict[str, Any]], set()),
        (Generator[State, None, None], set()),
        (Literal["b"], set()),
        (Command[Literal["b"]], {"b"}),
        (Command[Literal["b", "c"]] | State, {"b", "c"}),
        (list[Command[Literal["b"]]], {"b"}),
        (Command, None),
        (Command[str], None),
        (Command[Any], None),
        (Command | dict, None),
        (Command[Literal["b"]] | Command, None),
        (list[Command], None),
        (list, None),
        (tuple, None),
        (Sequence[Any], None),
        (Send, None),
        (State | Send, None),
        (Any, None),
        (object, None),
        (Item, None),
        (Item | None, None),
        (Going, None),
        (Hashable, None),
        (Pair, None),
        (Callable[..., Any], None),
        (StateGraph, set()),
        ("Unknown", None),
        ("dict[str, Unknown]", None),
    ],
    ids=lambda given: str(sorted(given) if isinstance(given, set) else given),
)
def test_what_an_annotation_declares(annotation: Any, ends: Any) -> None:
    def node(state):
        return None

    node.__annotations__["return"] = annotation
    routes = Routes(StateGraph(State), StateGraph(State).add_node("a", node).nodes)
    assert routes.commands("a") == ends


def test_what_else_declares() -> None:
    def node(state):
        return None

    def going(state) -> Command[Literal["c"]]:
        return Command()

    class Object:
        def __call__(self, state) -> State:
            return {}

    class Runs:
        def invoke(self, state, config=None) -> State:
            return {}

    builder = StateGraph(State).add_node("none", node).add_node("object", Object()).add_node("runs", Runs())
    builder.add_node("given", node, destinations=("b",)).add_node("map", node, destinations={"b": "label"})
    builder.add_node("both", going, destinations=("b",))
    routes = Routes(builder, builder.nodes)
    found = {name: routes.commands(name) for name in builder.nodes}
    assert found == {
        "none": None,
        "object": set(),
        "runs": None,
        "given": {"b"},
        "map": {"b"},
        "both": {"b", "c"},
    }


Packet = Send


def silent(state: State) -> State:
    return {}


def asks_one_that_sends(state):  # type: ignore[no-untyped-def]
    return past_the_map(state)


def past_the_map(state):  # type: ignore[no-untyped-def]
    return Packet("c", {})


class Router:
    def route(self, state):  # type: ignore[no-untyped-def]
        return "b"

    def fan(self, state):  # type: ignore[no-untyped-def]
        return self.packets(state)

    def packets(self, state):  # type: ignore[no-untyped-def]
        return [Send("c", {})]

    def __call__(self, state):  # type: ignore[no-untyped-def]
        return "b"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (lambda state: "b", True),
        (functools.partial(lambda other, state: "b", "other"), True),
        (Router().route, True),
        (lambda state: [Send("c", {})], False),
        (lambda state: [Packet("c", {})], False),
        (lambda state: (lambda: types.Send("c", {}))(), False),
        (past_the_map, False),
        (asks_one_that_sends, False),
        (Router().fan, False),
        (Router(), False),
    ],
)
def test_a_path_map_declares_what_a_path_does_that_cannot_send(path: Any, told: bool) -> None:
    builder = StateGraph(State)
    for name in "abc":
        builder.add_node(name, silent)
    builder.add_edge(START, "a").add_conditional_edges("a", path, ["b"])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        builder.compile()
    assert [("'c'" in str(warning.message)) for warning in seen] == [True] * told


def test_a_nested_graph_may_go_where_its_functions_do() -> None:
    def silent(state) -> State:
        return {}

    def leaving(state) -> Command[Literal["other"]]:
        return Command(graph=Command.PARENT, goto="other")

    def nested(action: Any, **options: Any) -> Any:
        return StateGraph(State).add_node("inner", action, **options).add_edge(START, "inner").compile()

    quiet, open_ = nested(silent), nested(lambda state: None)
    loud = nested(leaving, destinations=(END,))
    deep = StateGraph(State).add_node("middle", loud).add_edge(START, "middle").compile()

    def calls_loud(state) -> State:
        return loud.invoke(state)

    def calls_quiet(state) -> State:
        return quiet.invoke(state)

    builder = StateGraph(State).add_node("quiet", quiet).add_node("open", open_).add_node("loud", loud)
    builder.add_node("deep", deep).add_node("told", loud, destinations=("quiet",))
    builder.add_node(calls_loud).add_node(calls_quiet)
    for name in builder.nodes:
        builder.add_edge(START, name)
    graph = builder.compile()
    routes = Routes(builder, builder.nodes, {name: graph.nodes[name].subgraphs for name in builder.nodes})
    assert {name: routes.commands(name) for name in builder.nodes} == {
        "quiet": set(),
        "open": None,
        "loud": None,
        "deep": None,
        "told": {"quiet"},
        "calls_loud": None,
        "calls_quiet": set(),
    }


# ---- random graphs


class Node(NamedTuple):
    """`gotos`: where its Commands may go, None if it returns none. `handled`: the same of its error handler, or absent."""

    gotos: tuple[str, ...] | None
    says: bool
    path: tuple[str, ...] | None
    path_says: bool
    deferred: bool
    handled: tuple[str, ...] | Literal["none"]


class Plan(NamedTuple):
    nodes: dict[str, Node]
    edges: list[tuple[str, str]]
    joins: list[tuple[tuple[str, ...], str, bool]]


def drawn(seed: int) -> Plan:
    """A random graph; most functions of most graphs declare where they go."""
    chance = random.Random(seed)
    names = list("abcde"[: chance.randint(2, 5)])
    honest = chance.choice([1.0, 1.0, 0.8])

    def some(among: Sequence[str], most: int = 2) -> tuple[str, ...]:
        return tuple(sorted(chance.sample(among, chance.randint(1, min(most, len(among))))))

    nodes = {
        name: Node(
            gotos=some(names) if chance.random() < 0.25 else None,
            says=chance.random() < honest,
            path=some([*names, END]) if chance.random() < 0.25 else None,
            path_says=chance.random() < honest,
            deferred=chance.random() < 0.1,
            handled=some(names) if chance.random() < 0.1 else "none",
        )
        for name in names
    }
    sources = [START, *names]
    edges = {(chance.choice(sources), chance.choice([*names, END])) for _ in range(chance.randint(1, len(names)))}
    edges.add((START, chance.choice(names)))
    joins = {(some(names, 3), chance.choice(names)): chance.random() < 0.3 for _ in range(chance.randint(0, 2))}
    return Plan(nodes, sorted(edges), [(*join, inclusive) for join, inclusive in sorted(joins.items())])


Chooser = Callable[[str, Sequence[str]], list[str]]


def built(plan: Plan, choose: Chooser, ran: list[str]) -> StateGraph:
    """The graph of a plan; `choose(what, among)` picks where its functions go, `ran` gets the nodes."""

    def function(name: str, node: Node) -> Any:
        def act(state):
            ran.append(name)
            if node.handled != "none" and choose("fails", ["yes"]):
                raise ValueError(name)
            among = node.gotos if node.says else (*(node.gotos or ()), *plan.nodes)
            return Command(goto=choose(name, among)) if among else None

        if node.says:
            act.__annotations__["return"] = dict if node.gotos is None else Command[Literal[node.gotos]]
        return act

    def handler(name: str, ends: tuple[str, ...]) -> Any:
        def handle(state):
            return Command(goto=choose(f"{name} failed", ends))

        handle.__annotations__["return"] = Command[Literal[ends]]
        return handle

    def path(name: str, node: Node) -> Any:
        def route(state):
            return choose(f"{name} path", node.path if node.path_says else [*plan.nodes, END])

        if node.path_says:
            route.__annotations__["return"] = list[str]
        return route

    builder = StateGraph(State)
    for name, node in plan.nodes.items():
        caught = None if node.handled == "none" else handler(name, node.handled)
        builder.add_node(name, function(name, node), defer=node.deferred, error_handler=caught)
    for edge in plan.edges:
        builder.add_edge(*edge)
    for sources, target, inclusive in plan.joins:
        builder.add_edge(list(sources), target, inclusive=inclusive)
    for name, node in plan.nodes.items():
        if node.path is not None:
            builder.add_conditional_edges(name, path(name, node), list(node.path) if node.path_says else None)
    return builder


def ways(among: Sequence[str]) -> list[tuple[str, ...]]:
    """Some of the subsets: none, each alone, all. More reach nothing else: what arrives is never taken back."""
    return [(), *((one,) for one in among), tuple(among)]


def played(plan: Plan) -> tuple[set[str], set[tuple[tuple[str, ...], str, bool]]]:
    """Every node that can ever run, and every join that can ever go on, by walking through all choices.

    A deferred node runs at once here, and an inclusive join may go on at any time: they only ever run earlier.
    """

    def outcomes(name: str) -> list[tuple[set[str], bool]]:
        """(what it starts by itself, whether its edges count) for each choice."""
        node = plan.nodes[name]
        gotos = (node.gotos or ()) if node.says else (*(node.gotos or ()), *plan.nodes)
        path = () if node.path is None else node.path if node.path_says else tuple(plan.nodes)
        found = [({*one, *other}, True) for one in ways(gotos) for other in ways(path)]
        return found + ([] if node.handled == "none" else [(set(one), False) for one in ways(node.handled)])

    def after(running: frozenset[str], held: tuple[frozenset[str], ...]) -> Iterator[Any]:
        for choice in itertools.product(*(outcomes(name) for name in sorted(running))):
            through = {name for name, (_, counts) in zip(sorted(running), choice, strict=True) if counts}
            woken = set().union(*(goals for goals, _ in choice)) if choice else set()
            woken |= {target for source, target in plan.edges if source in through}
            now = []
            for (sources, target, inclusive), seen in zip(plan.joins, held, strict=True):
                seen = seen | (through & set(sources))
                if seen and (inclusive or seen == set(sources)):
                    fired.add((sources, target, inclusive))
                    woken.add(target)
                    seen = frozenset() if seen == set(sources) else seen
                now.append(seen)
            yield frozenset(woken & plan.nodes.keys()), tuple(now)

    ran: set[str] = set()
    fired: set[tuple[tuple[str, ...], str, bool]] = set()
    first = frozenset(target for source, target in plan.edges if source == START and target != END)
    todo, known = [(first, (frozenset[str](),) * len(plan.joins))], set()
    while todo and len(known) < 400:
        state = todo.pop()
        if state not in known:
            known.add(state)
            ran |= state[0]
            if len(state[0]) < 4:  # more at once only adds up what fewer do
                todo += after(*state)
    return ran, fired


def lived(plan: Plan, seed: int) -> set[str]:
    """Nodes that ran when the engine played some of the choices."""
    chance = random.Random(seed)
    ran: list[str] = []

    def choose(what: str, among: Sequence[str]) -> list[str]:
        return chance.choice(ways(among)) and list(chance.choice(ways(among)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PregelWarning)
        graph = built(plan, choose, ran).compile()
        for _ in range(4):
            with contextlib.suppress(GraphRecursionError):
                graph.invoke({"n": 0}, {"recursion_limit": 8})
    return set(ran)


def claims(plan: Plan) -> tuple[StateGraph, dict[str, list[str]]]:
    """The builder, and code -> places of what is claimed of it."""
    builder = built(plan, lambda what, among: [], [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PregelWarning)
        graph = builder.compile()
    found: dict[str, list[str]] = {}
    for notice in find_mistakes(builder, builder.nodes, graph.nodes):
        found.setdefault(notice.code, []).append(notice.place)
    return builder, found


SEEDS = range(400)


@pytest.mark.slow
def test_nothing_is_claimed_that_can_happen() -> None:
    """Slow: all choices of many graphs."""
    n_claims = 0
    for seed in SEEDS:
        plan = drawn(seed)
        _, found = claims(plan)
        unreachable, joins = set(found.get("unreachable", ())), found.get("dead-join", ())
        if not unreachable and not joins:
            continue
        n_claims += 1
        ran, fired = played(plan)
        assert unreachable.isdisjoint(ran), (seed, plan)
        assert unreachable.isdisjoint(lived(plan, seed)), (seed, plan)
        assert not {f"join:{'+'.join(sources)}:{target}" for sources, target, _ in fired}.intersection(joins), (
            seed,
            plan,
        )
    assert n_claims > 60


@pytest.mark.slow
def test_all_is_claimed_that_cannot_happen() -> None:
    """Of a graph that declares everything, what is not reached is claimed, or follows from what is claimed.

    Slow: all choices of many graphs.
    """
    n_compared = 0
    for seed in SEEDS:
        plan = drawn(seed)
        builder, found = claims(plan)
        routes = Routes(builder, builder.nodes)
        reached = routes.reached([START])
        if reached is None:
            continue
        n_compared += 1
        ran, _ = played(plan)
        assert ran == reached & plan.nodes.keys(), (seed, plan)
        starts = [START, *found.get("unreachable", ())]
        going = [join[1] for join in plan.joins if f"join:{'+'.join(join[0])}:{join[1]}" in found.get("dead-join", ())]
        rest = routes.reached([*starts, *going])
        assert rest is None or rest >= plan.nodes.keys(), (seed, plan)
    assert n_compared > 130


def test_graphs_that_say_nothing_are_not_judged() -> None:
    for seed in SEEDS[:100]:
        plan = drawn(seed)
        nodes = {name: node._replace(says=False, path_says=False) for name, node in plan.nodes.items()}
        _, found = claims(plan._replace(nodes=nodes))
        assert not found, (seed, plan)
