"""One graph on every stage: as the root or nested, on each saver, across restarts, under each durability.

Decides how a scenario about "the graph" is told once for all of these: the `stage` fixture wraps the graph under test in
as many graphs as the stage is deep, runs the outermost one, and addresses the inner one by what the public API shows of
it. Does not know any graph under test. Invariants: a stage that restarts opens the file anew and builds every graph anew
for each call, so nothing but the file carries over; the wrapped graph gets the root's input unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.graph import START, StateGraph
from tests.support.scenarios import Colour, Log


class Stage:
    """Where a graph under test runs. `depth`: 1 for the root graph."""

    def __init__(self, colour: Colour, kind: str, durability: str, depth: int, folder: Path) -> None:
        self.colour = colour
        self.kind = kind
        self.durability = durability
        self.depth = depth
        self.calls: list[str] = []
        """Names of nodes that ran, for scenarios whose nodes say so."""
        self.root: Any = {"configurable": {"thread_id": "1"}}
        self._file = folder / "threads.sqlite"
        self._saver: Any = None
        self._graph: Any = None
        self._build: Callable[[], StateGraph[Any]] | None = None
        self._options: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"{self.colour.name}-{self.kind}-{self.durability}-{self.depth}"

    # ---- setting up

    def put_on(self, build: Callable[[], StateGraph[Any]], **options: Any) -> Stage:
        """The graph under test: a function that declares it, and how it is compiled."""
        self._build, self._options = build, options
        self._graph = None
        return self

    @property
    def saver(self) -> Any:
        """The saver; a new object over the same file where the stage restarts."""
        if self.kind == "restart" or self._saver is None:
            self.close()
            self._saver = InMemorySaver() if self.kind == "memory" else SqliteSaver(str(self._file))
        return self._saver

    @property
    def graph(self) -> Any:
        """The outermost graph."""
        assert self._build is not None
        if self.kind == "restart" or self._graph is None:
            builder = self._build()
            for _ in range(self.depth - 1):
                inner = builder.compile(**self._options)
                builder = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub")
            options = self._options if self.depth == 1 else {}
            self._graph = builder.compile(**{**options, "checkpointer": self.saver})
        return self._graph

    def close(self) -> None:
        """Let go of the file."""
        if isinstance(self._saver, SqliteSaver):
            self._saver.close()
        self._saver = None

    # ---- running

    def run(self, given: Any, config: Any = None, **more: Any) -> Any:
        """The outermost graph's result."""
        return self.colour.invoke(self.graph, given, config or self.root, durability=self.durability, **more)

    def outcome(self, given: Any, config: Any = None, **more: Any) -> tuple[list[Any], BaseException | None]:
        """Its chunks, and what it ended with."""
        return self.colour.outcome(self.graph, given, config or self.root, durability=self.durability, **more)

    def around(self, *items: Any, given: tuple[Any, ...] = ("in",)) -> dict[str, Any]:
        """What the outermost graph returns if the one under test, started with `given`, ends with these items."""
        return {"l": [*given * (self.depth - 1), *items]}

    def ran(self) -> list[str]:
        """Nodes that ran since the last time this was asked, sorted."""
        names, self.calls[:] = sorted(self.calls), []
        return names

    # ---- looking at the graph under test

    def place(self) -> Any:
        """The config that addresses it: of its newest run."""
        config = self.root
        for _ in range(self.depth - 1):
            entry = next(e for e in self.colour.history(self.graph, config) if e.next == ("sub",))
            config = entry.tasks[0].state
        return config

    def state(self, **more: Any) -> Any:
        """Its newest snapshot, by its address."""
        place = self.place()  # first: a stage that restarts opens the file anew for it
        return self.colour.get_state(self.graph, place, **more)

    def seen_from_outside(self) -> Any:
        """Its newest snapshot, as the outermost graph shows it while it runs."""
        snapshot = self.colour.get_state(self.graph, self.root, subgraphs=True)
        for _ in range(self.depth - 1):
            snapshot = snapshot.tasks[0].state
        return snapshot

    def history(self, **more: Any) -> list[Any]:
        """Its snapshots, newest first."""
        place = self.place()
        return self.colour.history(self.graph, place, **more)

    def update(self, values: Any, as_node: str | None = None, config: Any = None, **more: Any) -> Any:
        """Edit its state."""
        place = config or self.place()
        return self.colour.update_state(self.graph, place, values, as_node, **more)

    def bulk(self, supersteps: list[Any], config: Any = None) -> Any:
        """Edit its state in several supersteps."""
        place = config or self.place()
        return self.colour.bulk_update_state(self.graph, place, supersteps)
