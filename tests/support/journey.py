"""A thread of a nest, carried from its input through pauses, failures and restarts to its end.

Decides what a caller does next, from the stored state alone: give the input, answer some of the open questions in some
way, or try again; whether the process starts anew in between; and what of the stored state is compared: namespaces
under names that two runs of one nest share. Knows the public API of graphs and savers only.

Source of the idea: `tests.faults.lives` and `tests.support.play`, for graphs that have no reference.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from checkpoint.sqlite import SqliteSaver
from pregel.types import Command
from tests.support.graphs import Broken, answer
from tests.support.nests import Nest, World, build
from tests.support.savers import FaultySaver

INPUT = {"log": ["in"]}
LIMIT = 60
"""Supersteps of one call, more than any nest takes."""
CALLS = 120
"""Calls that any journey ends within."""
SPECIAL = {"__error__", "__interrupt__", "__resume__", "__scheduled__", "__error_source_node__"}


class Shelf:
    """Where a thread is kept: a saver, and how it is closed and opened again."""

    def __init__(self, path: Path | None = None, *, lags: bool = False) -> None:
        self._path = path
        self.saver: Any = FaultySaver(lags=lags) if path is None else SqliteSaver(path)

    def reopen(self) -> None:
        """Let go of everything that is not stored."""
        if self._path is None:
            self.saver.restart()
        else:
            self.saver.close()
            self.saver = SqliteSaver(self._path)

    def close(self) -> None:
        if self._path is not None:
            self.saver.close()


class Way(NamedTuple):
    """How a journey is made."""

    is_async: bool = False
    durability: str = "sync"
    seed: int = 0


class Journey:
    """One thread."""

    def __init__(self, nest: Nest, world: World, shelf: Shelf, way: Way, *, thread: str = "t", stops: bool = True):
        self.nest, self.world, self.shelf, self.way = nest, world, shelf, way
        self.stops = stops
        self.config: dict[str, Any] = {"configurable": {"thread_id": thread}, "recursion_limit": LIMIT}
        self.chance = random.Random(way.seed)
        self.calls = 0
        self.audits = True
        """Is a body that runs although its output is stored a breach? (Not when an old checkpoint is resumed.)"""
        self.hard: tuple[type[BaseException], ...] = (Broken,)
        """What a call may end with besides its result."""
        self.load()

    def load(self) -> None:
        """Build the graph anew."""
        self.graph = build(
            self.nest, self.world, is_async=self.way.is_async, stops=self.stops, checkpointer=self.shelf.saver
        )

    def restart(self) -> None:
        """The process starts again."""
        self.shelf.reopen()
        self.load()

    # ---- calls, in either colour

    def do(self, name: str, *args: Any, **options: Any) -> Any:
        """A method of the graph."""
        if self.way.is_async:
            return asyncio.run(getattr(self.graph, "a" + name)(*args, **options))
        return getattr(self.graph, name)(*args, **options)

    def history(self, config: Any = None) -> list[Any]:
        """Snapshots, newest first."""
        config = config or self.config
        if not self.way.is_async:
            return list(self.graph.get_state_history(config))

        async def collect() -> list[Any]:
            return [snapshot async for snapshot in self.graph.aget_state_history(config)]

        return asyncio.run(collect())

    def chunks(self, given: Any, config: Any, take: Callable[[Any], bool] | None = None, **options: Any) -> list[Any]:
        """The chunks of a run; `take`: shown each of them, says whether to leave."""
        found: list[Any] = []

        def leaves(chunk: Any) -> bool:
            found.append(chunk)
            return take is not None and take(chunk)

        async def collect() -> None:
            stream = self.graph.astream(given, config, durability=self.way.durability, **options)
            try:
                async for chunk in stream:
                    if leaves(chunk):
                        break
            finally:
                await stream.aclose()

        if self.way.is_async:
            asyncio.run(collect())
            return found
        stream = self.graph.stream(given, config, durability=self.way.durability, **options)
        try:
            for chunk in stream:
                if leaves(chunk):
                    break
        finally:
            stream.close()
        return found

    # ---- the way to the end

    def invoke(self, given: Any, config: Any = None) -> Any:
        """One call; None if it ended with an error that may come up."""
        self.calls += 1
        assert self.calls < CALLS, f"no end after {CALLS} calls"
        if self.audits:
            self.world.finished = frozenset(self.stored())
        if isinstance(given, Command) and isinstance(given.resume, dict) and self.way.durability != "exit":
            self.world.closed |= given.resume.keys()
        try:
            if self.chance.random() < 0.3:
                chunks = self.chunks(given, config or self.config, stream_mode="values")
                return chunks[-1] if chunks else None
            return self.do("invoke", given, config or self.config, durability=self.way.durability)
        except self.hard:
            return None

    def stored(self) -> Iterator[str]:
        """Ids of the tasks whose output is stored."""
        for entry in self.shelf.saver.list({"configurable": {"thread_id": self.config["configurable"]["thread_id"]}}):
            for task_id, channel, _ in entry.pending_writes or ():
                if channel not in SPECIAL and set(task_id) - set("0-"):
                    yield task_id

    def finish(self) -> None:
        """On to the end, whatever the state is now."""
        while self.step():
            pass

    def step(self) -> bool:
        """Make the next call; False if there is nothing more to do."""
        if self.chance.random() < 0.3:
            self.restart()
        newest = next(iter(self.history()), None)
        if newest is None:
            self.invoke(INPUT)
            return True
        if not newest.next:
            return False
        asked = self.do("get_state", self.config).interrupts
        assert len({question.id for question in asked}) == len(asked), f"questions share an id: {asked}"
        self.invoke(self.reply(asked))
        return True

    def reply(self, asked: Any) -> Command[Any] | None:
        """What the caller says to the open questions: all, some, one, or nothing."""
        if not asked or self.chance.random() < 0.1:
            return None
        some = self.chance.sample(asked, self.chance.randint(1, len(asked)))
        if len(asked) == 1 and self.chance.random() < 0.5:
            self.world.closed.add(asked[0].id)
            return Command(resume=answer(asked[0].value))
        return Command(resume={question.id: answer(question.value) for question in some})

    # ---- what has become of it

    def values(self) -> Any:
        """Of the newest checkpoint."""
        return self.history()[0].values

    def effects(self) -> Counter[Any]:
        """What is stored of each superstep, at any depth, under names that no id is part of."""
        entries = list(self.shelf.saver.list(self.config))
        steps = {e.config["configurable"]["checkpoint_id"]: e.metadata["step"] for e in entries}
        found: Counter[Any] = Counter()
        for entry in entries:
            ns = entry.config["configurable"]["checkpoint_ns"]
            names = tuple(part.partition(":")[0] for part in ns.split("|"))
            above = tuple(steps.get(id_) for _, id_ in sorted(entry.metadata["parents"].items()))
            found[(names, above, entry.metadata["source"], entry.metadata["step"], shown(entry.checkpoint))] += 1
        return found


def shown(checkpoint: Any) -> str:
    """The state that a checkpoint holds."""
    values = checkpoint["channel_values"]
    return repr(sorted((key, values[key]) for key in values if ":" not in key and not key.startswith("__")))


@contextmanager
def shelf(path: Path | None = None, *, lags: bool = False) -> Iterator[Shelf]:
    """A place to keep threads."""
    place = Shelf(path, lags=lags)
    try:
        yield place
    finally:
        place.close()
