"""`Routes`: which node may start which, as far as a graph declares it.

Decides what counts as declared: edges, list edges, path maps, `destinations=`, and return annotations. A function whose
annotation leaves open whether it returns a Command, or where that goes, may start any node; so may a node around a
compiled graph that has such a function, since a Command can be for the parent graph. Knows builders, no channels and no
runs. Made once per compile, and only as far as somebody asks.

Invariants
1. `goals` of a node is None, or every node that it can start. A function that goes where it did not declare breaks its
   own promise, not ours.
"""

from __future__ import annotations

import collections.abc
import functools
import types
import typing
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pregel._call import is_graph, is_runnable, literals, returns
from pregel.constants import END, MISSING, START
from pregel.graph.declared import Declared, StateNodeSpec
from pregel.types import Command, Send
from pregel.warnings import Notice

__all__ = ["Routes", "goto_and_edge"]

GOTO_AND_EDGE: Final = "goto-and-edge"

Join = tuple[tuple[str, ...], str, bool]
"""(sources, target, whether it goes on with some of the sources)."""

_COLLECTIONS: Final = frozenset(
    {
        list,
        tuple,
        collections.abc.Sequence,
        collections.abc.Iterable,
        collections.abc.Iterator,
        collections.abc.AsyncIterable,
        collections.abc.AsyncIterator,
        collections.abc.Generator,
        collections.abc.AsyncGenerator,
        collections.abc.Awaitable,
        collections.abc.Coroutine,
    }
)
"""What may hand on what it is made of: a node may return a list of Commands, or yield them."""
_MAPPINGS: Final = frozenset({dict, collections.abc.Mapping, collections.abc.MutableMapping})


class Routes:
    """What may start what.

    Args:
        builder: What was declared.
        nodes: Its nodes, with generated error handlers.
        held: Node -> the compiled graphs that it is or names; for who asks about `goals`.
    """

    __slots__ = ("_below", "_branches", "_edges", "_goals", "_held", "_named", "_texts", "joins", "nodes")

    def __init__(
        self,
        builder: Declared,
        nodes: Mapping[str, StateNodeSpec],
        held: Mapping[str, Iterable[Any]] = types.MappingProxyType({}),
    ) -> None:
        self.nodes = nodes
        self.joins: list[Join] = [
            (sources, target, bool(builder.inclusive.get((sources, target))))
            for sources, target in sorted(builder.waiting_edges)
            if target != END
        ]
        self._held = held
        self._branches = builder.branches
        self._edges: dict[str, list[str]] = defaultdict(list)
        for source, target in builder.edges:
            self._edges[source].append(target)
        self._goals: dict[str, frozenset[str] | None] = {}
        self._below: dict[str, set[str]] = {}
        self._named: dict[int, tuple[Any, frozenset[str] | None]] = {}
        self._texts: dict[Any, Any] = {}
        """By `id` of an annotation, which is kept: where a value of that type may go."""

    def beside(self, source: str) -> tuple[str, ...]:
        """Nodes that an edge starts whatever the node returns; not deferred ones, which wait for what else is to run."""
        targets = self._edges.get(source)
        if not targets:
            return ()
        return tuple(sorted(target for target in targets if target != END and not self.nodes[target].defer))

    def commands(self, name: str) -> frozenset[str] | None:
        """Where the Commands that a node returns may go; None: anywhere. Empty: it returns none."""
        spec = self.nodes[name]
        ends = spec.ends
        known = self._by_annotation(spec.runnable.subject)
        if ends and (known is not None or ends is not spec.runnable.ends):
            return frozenset(ends).union(spec.runnable.ends)
        if known is not None and name in self._held and not all(map(_is_silent, self._held[name])):
            return None
        return known

    def _by_annotation(self, subject: Any) -> frozenset[str] | None:
        """Where the Commands that a callable returns may go, by its return annotation; None: anywhere."""
        if is_graph(subject):
            return frozenset()  # its own functions are looked at one by one
        annotation = returns(subject, self._texts)
        if annotation is MISSING or is_runnable(subject):
            return None
        # Functions of one module mostly return the same few types.
        key = id(annotation)
        if key not in self._named:
            self._named[key] = annotation, _named(annotation)
        return self._named[key][1]

    def chosen(self, name: str) -> frozenset[str]:
        """Nodes that a node starts, when it does, alone: by its one edge, or by its one path, which names one at a time."""
        edges = self._edges.get(name, ())
        branches = list(self._branches.get(name, {}).values())
        n_ways = len(edges) + len(branches) + any(name in sources for sources, _, _ in self.joins)
        if n_ways != 1 or (name != START and self.commands(name) != frozenset()):
            return frozenset()
        if not branches:
            return frozenset(edges)
        result = returns(branches[0].path)
        names_one = result is str or result is bool or typing.get_origin(result) is typing.Literal
        return frozenset((branches[0].ends or {}).values()) if names_one else frozenset()

    def goals(self, name: str) -> frozenset[str] | None:
        """Every node that a node or START may start by itself, without list edges; None: any."""
        if name in self._goals:
            return self._goals[name]
        goals = self._goals[name] = self._find_goals(name)
        return goals

    def _find_goals(self, name: str) -> frozenset[str] | None:
        goals = set(self._edges.get(name, ()))
        for branch in self._branches[name].values() if name in self._branches else ():
            # A path map binds names only: a path that sends, and does not say where, may send to nodes that are not in it.
            if branch.ends is None or (returns(branch.path) is MISSING and _may_send(branch.path)):
                return None
            goals.update(branch.ends.values())
        if name != START:
            commands = self.commands(name)
            if commands is None:
                return None
            goals |= commands
            handler = self.nodes[name].error_handler_node
            if handler is not None:
                goals.add(handler)
        goals.discard(END)
        return frozenset(goals)

    def reached(self, starts: Iterable[str], known: Iterable[str] = ()) -> set[str] | None:
        """Every node that a run may come to from these, START included if it is one; None: any. `known`: from others."""
        reached = set(known)
        waiting = list(starts)
        while waiting:
            while waiting:
                name = waiting.pop()
                if name in reached or (name not in self.nodes and name != START):
                    continue
                goals = self.goals(name)
                if goals is None:
                    return None
                reached.add(name)
                waiting += goals
            for sources, target, inclusive in self.joins:
                if target not in reached and (any if inclusive else all)(source in reached for source in sources):
                    waiting.append(target)
        return reached

    def below(self, name: str) -> set[str]:
        """Every node that is declared to come after a node at some time, itself included; what is not, counts for nothing.

        A list edge leads from each of its sources.
        """
        if name not in self._below:
            below: set[str] = set()
            waiting = [name]
            while waiting:
                one = waiting.pop()
                if one in below or one not in self.nodes:
                    continue
                below.add(one)
                waiting += self._edges.get(one, ())
                waiting += self.nodes[one].ends
                for branch in self._branches.get(one, {}).values():
                    waiting += (branch.ends or {}).values()
                waiting += (target for sources, target, _ in self.joins if one in sources)
            self._below[name] = below
        return self._below[name]


def goto_and_edge(name: str, gotos: Sequence[str], beside: Iterable[str]) -> Notice | None:
    """What is to be said of a node that goes to nodes of the graph and has edges to others, if anything."""
    others = [target for target in beside if target not in gotos]
    if not gotos or not others:
        return None
    return Notice(
        GOTO_AND_EDGE,
        name,
        f"node {name!r} goes to {', '.join(map(repr, gotos))} by a Command and has an edge to "
        f"{', '.join(map(repr, others))}, which runs as well; leave the edge out, and let the Command name all that is "
        f"to run",
    )


def _may_send(path: Any) -> bool:
    """Does the code of a path, or of a function that it names, know `Send`? True as well if there is no code to see."""
    todo, seen = [path], set()
    while todo:
        item = todo.pop()
        owner = None
        if isinstance(item, functools.partial):
            todo.append(item.func)
            continue
        if isinstance(item, types.MethodType):
            owner, item = item.__self__, item.__func__
        if not isinstance(item, types.FunctionType):
            return True
        if item in seen:
            continue
        seen.add(item)
        names, values = _names_in(item)
        if "Send" in names:
            return True
        lineage = type(owner).__mro__ if owner is not None else ()
        values += [vars(base)[name] for name in names for base in lineage if name in vars(base)]
        held = [item for value in values if isinstance(value, (list, tuple)) for item in value]
        if any(value is Send or isinstance(value, Send) for value in (*values, *held)):
            return True
        todo += [
            value for value in values if isinstance(value, (types.FunctionType, types.MethodType, functools.partial))
        ]
    return False


def _names_in(function: types.FunctionType) -> tuple[set[str], list[Any]]:
    """Names in a function's code, and what those of them mean that are global or closed over."""
    codes = [function.__code__]
    for code in codes:
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    names = {name for code in codes for name in code.co_names}
    values = [function.__globals__[name] for name in names if name in function.__globals__]
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    wrapped = getattr(function, "__wrapped__", None)
    return names, values if wrapped is None else [*values, wrapped]


def _is_silent(graph: Any) -> bool:
    """Does none of the graph's functions return a Command, which could be for the graph around?"""
    declared = getattr(graph, "_declared", None)
    if declared is None:
        return False
    routes = Routes(graph.builder, declared, {name: graph.nodes[name].subgraphs for name in declared})
    return all((commands := routes.commands(name)) is not None and commands <= {END} for name in declared)


def _named(annotation: Any) -> frozenset[str] | None:
    """Node names that a value of this type may start; None: any."""
    if annotation is None:
        return frozenset()
    origin = typing.get_origin(annotation)
    args = typing.get_args(annotation)
    if origin is None:
        return frozenset() if _is_plain(annotation) else None
    if origin is Command:
        names = literals(args[0])
        return frozenset(names) if names and all(isinstance(name, str) for name in names) else None
    if origin is typing.Annotated:
        return _named(args[0])
    if origin is typing.Literal:
        return frozenset()
    if origin in (typing.Union, types.UnionType) or origin in _COLLECTIONS:
        found: set[str] = set()
        for arg in args:
            goals: frozenset[str] | None = frozenset() if arg is ... else _named(arg)
            if goals is None:
                return None
            found |= goals
        return frozenset(found) if args else None
    return frozenset() if origin in _MAPPINGS or _is_plain(origin) else None


def _is_plain(cls: Any) -> bool:
    """Is no value of this class a Command, a Send, a collection of them, or something that runs in the node's place?"""
    if not isinstance(cls, type) or cls is type or getattr(cls, "_is_protocol", False):
        return False
    if cls in _MAPPINGS:
        return True
    lineage = cls.__mro__
    if cls in Command.__mro__ or cls in Send.__mro__ or Command in lineage or Send in lineage:
        return False
    if not _COLLECTIONS.isdisjoint(lineage) or cls.__module__ in ("collections.abc", "typing", "types"):
        return False
    return not any(hasattr(cls, name) for name in ("invoke", "ainvoke", "as_call"))
