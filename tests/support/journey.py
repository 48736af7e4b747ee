"""A thread of a nest, carried from its input through pauses, failures and restarts to its end.

Decides what a caller does next, from the stored state alone: give the input, answer some of the open questions in some
way, or try again; whether the process starts anew in between; and what of the stored state is compared: namespaces
under names that two runs of one nest share. Knows the public API of graphs and savers only.

Source of the idea: `tests.faults.lives` and `tests.support.play`, for graphs that have no reference.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from checkpoint.sqlite import SqliteSaver
from pregel.types import Command
from tests.support.graphs import Broken, answer
from tests.support.nests import Event, Nest, World, build
from tests.support.savers import FaultySaver

INPUT = {"log": ["in"]}
LIMIT = 60
"""Supersteps of one call, more than any nest takes."""
CALLS = 120
"""Calls that any journey ends within."""
SPECIAL = {"__error__", "__interrupt__", "__resume__", "__scheduled__", "__error_source_node__"}


class EndlessError(Exception):
    """A journey takes too long."""


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
        self.answers: set[str] = set()
        """Ids of the questions that the next call answers."""
        self.caller: Callable[[Any], Any] | None = None
        """Makes the calls in the place of `invoke`."""
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
        if self.calls > CALLS:
            raise EndlessError(f"no end after {CALLS} calls")
        if self.audits:
            self.audit()
        if self.answers:
            self.world.closed |= self.answers
        try:
            if self.caller is not None:
                return self.caller(given)
            if self.chance.random() < 0.3:
                chunks = self.chunks(given, config or self.config, stream_mode="values")
                return chunks[-1] if chunks else None
            return self.do("invoke", given, config or self.config, durability=self.way.durability)
        except self.hard:
            return None

    def cancelled(self, given: Any, turns: int) -> None:
        """A call that is cancelled after so many turns of the event loop, if it takes so many."""

        async def call() -> None:
            running = asyncio.ensure_future(self.graph.ainvoke(given, self.config, durability=self.way.durability))
            for _ in range(turns):
                if running.done():
                    break
                await asyncio.sleep(0)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

        asyncio.run(call())

    def audit(self) -> None:
        """Tell the world what must not happen again: what is stored of tasks and answers."""
        finished, closed = set(), set()
        for entry in self.shelf.saver.list({"configurable": {"thread_id": self.config["configurable"]["thread_id"]}}):
            for task_id, channel, value in entry.pending_writes or ():
                if not set(task_id) - set("0-"):
                    closed |= set(value) if isinstance(value, dict) and channel == "__resume__" else set()
                elif channel not in SPECIAL:
                    finished.add(task_id)
        self.world.finished, self.world.closed = frozenset(finished), closed

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
        self.answers = set()
        self.audit()
        stale = self.world.closed & {question.id for question in asked}
        assert not stale, f"questions are pending that were answered: {asked}"
        assert len({question.id for question in asked}) == len(asked), f"questions share an id: {asked}"
        self.invoke(self.reply(asked))
        return True

    def reply(self, asked: Any) -> Command[Any] | None:
        """What the caller says to the open questions: all, some, one, or nothing."""
        if not asked or self.chance.random() < 0.1:
            return None
        some = self.chance.sample(asked, self.chance.randint(1, len(asked)))
        if len(asked) == 1 and self.chance.random() < 0.5:
            self.answers = {asked[0].id}
            return Command(resume=answer(asked[0].value))
        self.answers = {question.id for question in some}
        return Command(resume={question.id: answer(question.value) for question in some})

    # ---- what has become of it

    def spots(self) -> list[Spot]:
        """All checkpoints at any depth, oldest first."""
        entries = list(self.shelf.saver.list(self.config))[::-1]
        steps = {e.config["configurable"]["checkpoint_id"]: e.metadata["step"] for e in entries}
        # With durability `exit` a nested run may have worked under a checkpoint that is not stored: it names none then.
        assert all(steps.keys() >= set(entry.metadata["parents"].values()) for entry in entries)
        known = (_spot(entry, steps) for entry in entries)
        return [spot for spot in known if spot is not None]

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


class Spot(NamedTuple):
    """A stored checkpoint."""

    config: dict[str, Any]
    way: tuple[tuple[int, str, int], ...]
    """Per nested run around it, outermost first: the step of the task it runs in, that task's id (its name if the
    namespace is stable), which nested run of that task it is."""
    step: int
    source: str

    @property
    def names(self) -> tuple[Any, ...]:
        """Where it is, without ids: steps, node names and numbers of calls."""
        segments = [s.partition(":")[0] for s in self.config["configurable"]["checkpoint_ns"].split("|")]
        return tuple(segments), tuple(step for step, _, _ in self.way)

    def is_before(self, event: Event) -> bool | None:
        """Does the event come after this checkpoint? None: it belongs to another nested run of the same superstep, which
        may or may not have come by there when the checkpoint was made."""
        for level, (step, task, call) in enumerate(self.way):
            if event.place[level][1] != step:
                return event.place[level][1] > step
            if len(event.place) == level + 1:
                return True
            if task not in (event.ids[level], event.place[level][0]) or event.place[level + 1][2] != call:
                return None
        return event.place[len(self.way)][1] > self.step


def _spot(entry: Any, steps: dict[str, int]) -> Spot | None:
    address = entry.config["configurable"]
    ns, parents = address["checkpoint_ns"], entry.metadata["parents"]
    config = {**address, "checkpoint_map": {**parents, ns: address["checkpoint_id"]}} if ns else address
    way: list[tuple[int, str, int]] = []
    segments = ns.split("|") if ns else []
    for number, segment in enumerate(segments):
        if segment.isdecimal():
            way[-1] = (*way[-1][:2], int(segment))
            continue
        around = "|".join(segments[:number])
        name, _, task_id = segment.partition(":")
        # A stable namespace tells nothing of the tasks around it.
        above = parents.get(around)
        if above is None:
            above = next((id_ for ns_, id_ in parents.items() if stable(ns_) == around), None)
        if above is None:
            return None
        way.append((steps[above] + 1, task_id or name, 0))
    return Spot(
        {"configurable": config, "recursion_limit": LIMIT}, tuple(way), entry.metadata["step"], entry.metadata["source"]
    )


def stable(ns: str) -> str:
    """A namespace without task ids."""
    return "|".join(segment.partition(":")[0] for segment in ns.split("|"))


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
