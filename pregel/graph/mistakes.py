"""What a builder surely, or almost surely, gets wrong, told when it is compiled (docs/mistakes.md).

Decides which nodes nothing leads to, which list edges never go on, where a run stops although the graph says elsewhere
where it ends, and which node goes to one place by a Command and to another by an edge. Claims nothing that an undeclared
function could prove false (D42): one reachable function without a telling annotation, and "unreachable" is not said of
anything. Knows builders and what they declare (`routes.Routes`), no channels and no runs. Costs a few passes over the
edges for graphs without annotations.

Invariants
1. Of a chain of nodes that are unreachable for one reason, the first is named.
2. The order of the notices is that of the declarations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pregel.constants import END, START
from pregel.graph.declared import Declared, StateNodeSpec
from pregel.graph.routes import Join, Routes, goto_and_edge
from pregel.warnings import Notice

__all__ = ["DEAD_JOIN", "find_mistakes"]

UNREACHABLE: Final = "unreachable"
DEAD_JOIN: Final = "dead-join"
DEAD_END: Final = "dead-end"


def find_mistakes(builder: Declared, nodes: Mapping[str, StateNodeSpec], compiled: Mapping[str, Any]) -> list[Notice]:
    """The mistakes that a builder's declarations show.

    Args:
        builder: what was declared, validated.
        nodes: its nodes, with generated error handlers.
        compiled: name -> `PregelNode`, which knows the graphs it holds.
    """
    held = {name: compiled[name].subgraphs for name in nodes if compiled[name].subgraphs}
    routes = Routes(builder, nodes, held)
    return [
        *_unreachable(routes),
        *_dead_ends(routes, builder),
        *_gotos_and_edges(routes),
    ]


# ---- what nothing leads to


def _unreachable(routes: Routes) -> Iterator[Notice]:
    reached = routes.reached([START])
    if reached is None:
        return
    lost: set[str] = set()
    circular: set[Join] = set()
    missing = [name for name, spec in routes.nodes.items() if name not in reached and not spec.is_error_handler]
    first = iter(_first(routes, missing))
    while reached is not None and not reached.issuperset(missing):
        # What the first cause explains is no mistake of its own.
        join = _circular(routes, reached)
        if join is not None:
            circular.add(join)
            reached = routes.reached([join[1]], reached)
            continue
        name = next(name for name in first if name not in reached)
        lost.add(name)
        reached = routes.reached([name], reached)
    for name in routes.nodes:
        if name in lost:
            yield Notice(
                UNREACHABLE,
                name,
                f"nothing leads to node {name!r}: no edge, no path and no declared Command from START; add an edge to it, "
                f"or declare where functions go (path_map=, destinations=, Command[Literal[{name!r}]])",
            )
    for join in routes.joins:
        sources, target, inclusive = join
        absent = [source for source in sources if source in lost]
        if join in circular:
            why = f"not all of them run before {target!r}"
        elif absent and (not inclusive or len(absent) == len(sources)):
            why = f"{', '.join(map(repr, absent))} can never run"
        else:
            continue
        yield Notice(
            DEAD_JOIN,
            f"join:{'+'.join(sources)}:{target}",
            f"the edge from {list(sources)!r} to {target!r} can never run {target!r}: {why}; mend the way to its sources, "
            f"or leave those out that do not run",
        )


def _circular(routes: Routes, reached: set[str]) -> Join | None:
    """A list edge that waits, in the end, for itself: were it to go on, its sources would run."""
    for join in routes.joins:
        sources, target, _ = join
        if target not in reached and not reached.isdisjoint(sources):
            then = routes.reached([target], reached)
            if then is not None and then.issuperset(sources):
                return join
    return None


def _first(routes: Routes, missing: list[str]) -> list[str]:
    """Nodes that nothing leads to, those first that not even another of them leads to; else as declared."""
    led_to: set[str] = set()
    for name in missing:
        led_to |= {goal for goal in routes.goals(name) or () if goal != name}
    for sources, target, _ in routes.joins:
        led_to |= {target for name in sources if name != target}
    return sorted(missing, key=led_to.__contains__)


# ---- where runs stop


def _dead_ends(routes: Routes, builder: Declared) -> Iterator[Notice]:
    """Nodes that nothing follows, in a graph with an edge to END elsewhere.

    Not where something else may go on beside the node: a step that only writes a log needs no successor. And not where
    END is only one of the ways a path or a Command may go: who writes such a graph may well write no edge to END.
    """
    if not any(target == END for _, target in builder.edges):
        return
    leaving = {source for source, _ in builder.edges}.union(*(sources for sources, _ in builder.waiting_edges))
    leaving.update(source for source, branches in builder.branches.items() if branches)
    last = [
        name
        for name, spec in routes.nodes.items()
        if name not in leaving and not spec.ends and not spec.defer and not spec.is_error_handler
    ]
    last = [name for name in last if routes.commands(name) == frozenset()]
    if not last or routes.reached([START]) is None:
        return
    alone: dict[str, bool] = {}
    for one in (START, *routes.nodes):
        goals = routes.goals(one) or frozenset()
        if not goals.isdisjoint(last):
            chosen = routes.chosen(one)
            alone.update((name, alone.get(name, True) and name in chosen) for name in goals)
    for name in last:
        if alone.get(name):
            yield Notice(
                DEAD_END,
                name,
                f"the run stops after node {name!r}, which nothing follows, while another node has an edge to END; "
                f"add add_edge({name!r}, END) if it ends here too, or the edge that is missing",
            )


# ---- two ways at once


def _gotos_and_edges(routes: Routes) -> Iterator[Notice]:
    for name, spec in routes.nodes.items():
        if spec.ends and (beside := routes.beside(name)):
            told = goto_and_edge(name, [end for end in spec.ends if end != END], beside)
            if told is not None:
                yield told
