"""Runs of nested graphs that ask, cut short anywhere: cancelled at any turn of the loop, struck by Ctrl-C in any part of
the engine, left at any chunk. What is stored is whole and not done again; the end is the undisturbed one.
"""

from __future__ import annotations

import asyncio
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.engine import apply, core
from pregel.engine.core import Run
from pregel.graph import START, StateGraph
from pregel.types import Command, interrupt
from tests.faults.test_cancel import interrupting

THREAD: Any = {"configurable": {"thread_id": "t"}}
ANSWER = "yes"


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


class World:
    """What has been done: node -> how often its body has begun."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async
        self.begun: Counter[str] = Counter()

    def node(self, name: str, *, asks: int = 0, graph: Any = None) -> Any:
        """Adds its name; before that asks, or runs a graph twice, one call after the other."""

        def begin() -> list[str]:
            self.begun[name] += 1
            return [f"{name}:{interrupt(f'{name}{number}')}" for number in range(asks)]

        async def abody(state: State) -> State:
            log = begin()
            for _ in range(2 if graph is not None else 0):
                log += (await graph.ainvoke({"log": []}))["log"]
            await asyncio.sleep(0)
            return {"log": [*log, name]}

        def body(state: State) -> State:
            log = begin()
            for _ in range(2 if graph is not None else 0):
                log += graph.invoke({"log": []})["log"]
            return {"log": [*log, name]}

        return abody if self.is_async else body


def build(world: World, saver: Any, *, stateful: bool = False) -> Any:
    """a beside sub(i ∥ ask → deep(d ∥ q) → j) beside calls(x → y, twice), then b."""
    deep = StateGraph(State).add_node("d", world.node("d")).add_node("q", world.node("q", asks=2))
    deep.add_edge(START, "d").add_edge(START, "q")
    sub = StateGraph(State).add_node("i", world.node("i")).add_node("ask", world.node("ask", asks=1))
    sub.add_node("deep", deep.compile()).add_node("j", world.node("j"))
    sub.add_edge(START, "i").add_edge(START, "ask").add_edge(["i", "ask"], "deep").add_edge("deep", "j")
    called = StateGraph(State).add_node("x", world.node("x")).add_node("y", world.node("y"))
    called.add_edge(START, "x").add_edge("x", "y")
    outer = StateGraph(State).add_node("a", world.node("a"))
    outer.add_node("sub", sub.compile(checkpointer=True if stateful else None))
    outer.add_node("calls", world.node("calls", graph=called.compile()))
    outer.add_node("b", world.node("b"))
    for name in ("a", "sub", "calls"):
        outer.add_edge(START, name)
    outer.add_edge(["a", "sub", "calls"], "b")
    return outer.compile(checkpointer=saver)


def stored(graph: Any) -> set[str]:
    """Names of all that is in any open state of the thread."""
    found: set[str] = set()
    waiting = [graph.get_state(THREAD, subgraphs=True)]
    while waiting:
        state = waiting.pop()
        found.update(state.values.get("log", ()))
        for task in state.tasks:
            if task.result is not None:
                found.update(task.result.get("log", ()))
            if getattr(task, "state", None) is not None and not isinstance(task.state, dict):
                waiting.append(task.state)
    return found


def resume(graph: Any, durability: str) -> dict[str, Any]:
    """Go on until there is nothing left to do, answering everything; returns the values."""
    for _ in range(12):
        state = graph.get_state(THREAD)
        if state.created_at is None:
            asyncio.run(graph.ainvoke({"log": ["in"]}, THREAD, durability=durability))
        elif state.interrupts:
            answers = {question.id: ANSWER for question in state.interrupts}
            asyncio.run(graph.ainvoke(Command(resume=answers), THREAD, durability=durability))
        elif state.next:
            asyncio.run(graph.ainvoke(None, THREAD, durability=durability))
        elif "b" in state.values["log"]:
            values: dict[str, Any] = state.values
            return values
        else:
            asyncio.run(graph.ainvoke(None, THREAD, durability=durability))
    raise AssertionError("no end")


def assert_unharmed(graph: Any, world: World, durability: str, expected: list[str], *, asked: int) -> None:
    """After the cut: the end is the undisturbed one, and what was stored did not run again."""
    done = stored(graph)
    begun = Counter(world.begun)
    values = resume(graph, durability)
    assert values["log"] == expected
    once = {name for name in done if ":" not in name and name in begun}
    repeated = {name for name in once - {"x", "y"} if world.begun[name] > begun[name]}
    assert not repeated, f"stored, and run again: {repeated}"
    assert world.begun["ask"] <= begun["ask"] + 2 + asked


def undisturbed(stateful: bool) -> list[str]:
    world = World(is_async=True)
    graph = build(world, InMemorySaver(), stateful=stateful)
    log: list[str] = resume(graph, "sync")["log"]
    assert Counter(log)["y"] == 2
    return log


@pytest.fixture(params=["memory", "sqlite"])
def make_saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    opened: list[Any] = []

    def make() -> Any:
        if request.param == "memory":
            return InMemorySaver()
        opened.append(SqliteSaver(str(tmp_path / f"{len(opened)}.sqlite")))
        return opened[-1]

    yield make
    for saver in opened:
        saver.close()


async def cut_after(turns: int, call: Any) -> bool:
    """Cancel after so many turns of the loop; was it still running?"""
    task = asyncio.ensure_future(call)
    for _ in range(turns):
        if task.done():
            task.result()
            return False
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
        return False
    return True


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_cancelled_at_every_turn(make_saver: Callable[[], Any], durability: Any, stateful: bool) -> None:
    """The first run, and the one that is answered."""
    expected = undisturbed(stateful)
    kind = make_saver()
    for resumed in (False, True):
        cuts = 0
        # On a busy machine a run may be over after few turns of its loop, but never after three.
        for turns in chain((1, 2, 3), range(4, 400, 3 if isinstance(kind, InMemorySaver) else 11)):
            world = World(is_async=True)
            graph = build(world, make_saver(), stateful=stateful)
            given: Any = {"log": ["in"]}
            if resumed:
                asyncio.run(graph.ainvoke(given, THREAD, durability=durability))
                questions = graph.get_state(THREAD).interrupts
                given = Command(resume={question.id: ANSWER for question in questions})
            if not asyncio.run(cut_after(turns, graph.ainvoke(given, THREAD, durability=durability))):
                break
            cuts += 1
            assert_unharmed(graph, world, durability, expected, asked=1)
        assert cuts > 2


PLACES: list[tuple[Any, str]] = [
    (Run, "plan"),
    (Run, "open"),
    (Run, "finish"),
    (Run, "settle"),
    (Run, "commit"),
    (Run, "close"),
    (core, "apply_tasks"),
    (apply, "install"),
    (InMemorySaver, "encode"),
    (InMemorySaver, "write"),
    (InMemorySaver, "load"),
]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[f"{owner.__name__}.{name}" for owner, name in PLACES])
def test_ctrl_c_in_nested_runs(owner: Any, name: str, late: bool, durability: str) -> None:
    """On whichever thread: what a worker raises reaches the main thread."""
    expected = undisturbed(stateful=False)
    struck = 0
    for number in range(1, 60, 5):
        world = World(is_async=False)
        graph = build(world, InMemorySaver())
        with interrupting(owner, name, number, late=late) as calls, suppress(KeyboardInterrupt):
            graph.invoke({"log": ["in"]}, THREAD, durability=durability)
        if len(calls) < number:
            break
        struck += 1
        assert_unharmed(rebuilt(graph, world), world, durability, expected, asked=1)
    assert struck


def rebuilt(graph: Any, world: World) -> Any:
    """The same graph in another process: async, with the same saver."""
    world.is_async = True
    return build(world, graph.checkpointer)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("is_async", [False, True])
def test_left_at_every_chunk(is_async: bool, durability: str) -> None:
    expected = undisturbed(stateful=False)
    options: Any = {"stream_mode": ["updates", "values", "tasks"], "subgraphs": True, "durability": durability}
    left = 0
    for wanted in range(1, 100, 2):
        world = World(is_async=is_async)
        graph = build(world, InMemorySaver())
        taken = 0

        async def take(graph: Any = graph, wanted: int = wanted) -> int:
            taken = 0
            async with graph.astream({"log": ["in"]}, THREAD, **options) as chunks:
                async for _ in chunks:
                    taken += 1
                    if taken == wanted:
                        break
            return taken

        if is_async:
            taken = asyncio.run(take())
        else:
            with graph.stream({"log": ["in"]}, THREAD, **options) as chunks:
                for _ in chunks:
                    taken += 1
                    if taken == wanted:
                        break
        if taken < wanted:
            break
        left += 1
        if is_async:
            assert_unharmed(graph, world, durability, expected, asked=1)
        else:
            # Nested runs end on threads of their own, a moment later.
            assert resume(rebuilt(graph, world), durability)["log"] == expected
    assert left > 10
