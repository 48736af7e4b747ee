"""Conditional edges: what the user declared (`Branch`), and the router that a run calls (`BranchRouter`).

Decides what a path function sees (its own schema or its source's, fresh state with the source's writes applied, extra
keys of the raw return; engine.md 4.7, amendments C8) and what its result means (names, labels of a path map, Sends,
END). Knows channel names and writes; runs no engine code, reads only through the task's scope.

Invariants
1. A router appends writes and changes nothing else.
2. The two colours differ in one line, the call of the path.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

from pregel._call import Call, first_annotation, is_graph, is_runnable, literals, prepare, return_annotation
from pregel._scope import TaskScope
from pregel.constants import END, MISSING, START, TASKS
from pregel.errors import InvalidUpdateError, nearest, shown
from pregel.graph.schema import Schema, describe, plain
from pregel.types import Send

__all__ = ["Branch", "BranchRouter", "private_schema"]

Write = tuple[str, Any]

UNKNOWN_NODE: Final = "unknown-goto"


class Branch:
    """A conditional edge as declared.

    Attributes:
        path: What picks the destinations, as given.
        call: The same, prepared.
        ends: Result of the path -> node name; None when the results are names themselves and nothing is declared.
        input_schema: The schema that the path asks for by its own annotation, or None for its source's.
    """

    __slots__ = ("call", "ends", "input_schema", "path")

    def __init__(
        self, path: Any, call: Call, ends: dict[Hashable, str] | None = None, input_schema: type[Any] | None = None
    ) -> None:
        self.path = path
        self.call = call
        self.ends = ends
        self.input_schema = input_schema

    @classmethod
    def declare(cls, path: Any, path_map: Mapping[Hashable, str] | Sequence[str] | None) -> Branch:
        """Read path map, return annotation and input annotation.

        Raises:
            TypeError: `path` cannot be called.
        """
        call = prepare(path)
        ends: dict[Hashable, str] | None
        if isinstance(path_map, Mapping):
            ends = {label: plain(target) for label, target in path_map.items()}
        elif path_map is not None:
            ends = {plain(target): plain(target) for target in path_map}
        else:
            ends = {value: plain(value) for value in literals(return_annotation(path))} or None
        return cls(path, call, ends, private_schema(path))

    @property
    def name(self) -> str:
        """The name of the path function, or `"condition"` for one without a name of its own."""
        if is_graph(self.path) or is_runnable(self.path):
            return self.call.name
        given = getattr(self.path, "__name__", None)
        return given if isinstance(given, str) and given != "<lambda>" else "condition"

    def __repr__(self) -> str:
        return f"Branch(path={self.call.name}, ends={self.ends!r}, input_schema={self.input_schema!r})"


def private_schema(subject: Any) -> type[Any] | None:
    """The class with fields that the first parameter of a callable is annotated with, or None."""
    annotation = first_annotation(subject)
    if not isinstance(annotation, type) or not hasattr(annotation, "__annotations__"):
        return None
    try:
        found = describe(annotation)
    except (NameError, TypeError):
        return None
    return None if not found.keys or (found.is_root and not _declares_root(annotation)) else annotation


def _declares_root(schema: type[Any]) -> bool:
    return bool(getattr(schema, "__annotations__", None))


class BranchRouter:
    """A conditional edge, compiled.

    Args:
        branch: What was declared.
        source: Name of the node it leaves from.
        schema: What the path receives.
        targets: Node name -> the write that starts it; every node of the graph.
        strict: Destinations that do not exist are errors instead of notices.
    """

    __slots__ = ("_mapper", "_merges", "_select", "_table", "call", "ends", "source", "strict", "targets")

    def __init__(
        self, branch: Branch, source: str, schema: Schema, targets: Mapping[str, Write], *, strict: bool = False
    ) -> None:
        self.call = branch.call
        self.source = source
        self.ends = branch.ends
        self.targets = targets
        self.strict = strict
        self._select: str | list[str] = "__root__" if schema.is_root else list(schema.keys)
        self._mapper = schema.mapper
        self._merges = branch.input_schema is None and schema.mapper is None and not schema.is_root
        # What a str result means in the usual case. Everything else takes the longer way.
        if branch.ends is None:
            self._table: Mapping[Any, Write] = targets
        else:
            self._table = {
                label: targets[end] for label, end in branch.ends.items() if type(label) is str and end in targets
            }

    @property
    def shape(self) -> tuple[Any, ...]:
        """Where it leads for which result, as data (`cache.keys`)."""
        return self.call, self.ends, self._select

    def route(self, result: Any, scope: TaskScope, writes: list[Write]) -> None:
        """Call the path and append the writes of its choice.

        Raises:
            TypeError: the path can only be awaited.
            KeyError: the result is not in the path map.
            ValueError: the result is None or START.
            InvalidUpdateError: a Send to END; under strict, a node that does not exist.
        """
        call = self.call
        if call.fn is None:
            raise TypeError(
                f"path {call.name!r} of node {self.source!r} is an async function; use ainvoke or make it sync"
            )
        state = self._state(result, scope, writes)
        self._choose(call.fn(state) if call.inject is None else call.fn(state, **call.inject(scope)), scope, writes)

    async def aroute(self, result: Any, scope: TaskScope, writes: list[Write]) -> None:
        """Async form of `route`."""
        call = self.call
        if call.afn is None:
            self.route(result, scope, writes)
            return
        state = self._state(result, scope, writes)
        self._choose(
            await (call.afn(state) if call.inject is None else call.afn(state, **call.inject(scope))), scope, writes
        )

    def _state(self, result: Any, scope: TaskScope, writes: list[Write]) -> Any:
        state = scope.read(self._select, writes)
        if self._mapper is not None:
            return self._mapper(state)
        if self._merges and isinstance(result, dict) and isinstance(state, dict):
            return {**result, **state}
        return state

    def _choose(self, picked: Any, scope: TaskScope, writes: list[Write]) -> None:
        if type(picked) is str:
            write = self._table.get(picked)
            if write is not None:
                writes.append(write)
                return
        for item in picked if isinstance(picked, (list, tuple)) else (picked,):
            self._choose_one(item, scope, writes)

    def _choose_one(self, item: Any, scope: TaskScope, writes: list[Write]) -> None:
        if isinstance(item, Send):
            if item.node == END:
                raise InvalidUpdateError(
                    f"path {self.call.name!r} of node {self.source!r} returned {shown(item)}; END takes no input, "
                    f"return END itself or send to a node"
                )
            if item.node in self.targets:
                writes.append((TASKS, item))
            else:
                self._unknown(item.node, "sent to", scope)
            return
        target = item
        if self.ends is not None:
            target = self.ends.get(item, MISSING)
            if target is MISSING:
                raise KeyError(
                    f"path {self.call.name!r} of node {self.source!r} returned {shown(item)}, which its path map does "
                    f"not have; declared are {', '.join(map(repr, self.ends))}"
                )
        if target is None or target == START:
            raise ValueError(
                f"path {self.call.name!r} of node {self.source!r} returned {shown(item)}, which is no destination; "
                f"return a node name, END, a Send, or a list of these ([] for none)"
            )
        if target == END:
            return
        write = self.targets.get(target) if isinstance(target, str) else None
        if write is None:
            self._unknown(target, "chose", scope)
        else:
            writes.append(write)

    def _unknown(self, target: Any, verb: str, scope: TaskScope) -> None:
        text = (
            f"path {self.call.name!r} of node {self.source!r} {verb} {shown(target)}, which is not a node of this "
            f"graph, so nothing runs; {nearest(target, self.targets)}"
        )
        if self.strict:
            raise InvalidUpdateError(text)
        scope.host.notice(UNKNOWN_NODE, f"{self.source}:{self.call.name}:{shown(target, 80)}", text)
