"""The process dies at every durable call, and the same calls are made again with the same run ids (promises 30, 31).

A client makes three calls: an input, an answer, another input. Each is repeated, by a new process, until it returns. What
it is told, what is in the state and what happened to the world must be as if nothing had died.
"""

from __future__ import annotations

import asyncio
import operator
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from checkpoint.sqlite import SqliteSaver
from checkpoint.testing.faults import CrashAt, ForkServer, Record, inject
from pregel.graph import START, StateGraph
from pregel.runtime import Runtime
from pregel.types import Command, Send, interrupt
from tests.support.savers import Died, FaultySaver

TRIES = 10
CONFIG: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict, total=False):
    l: Annotated[list[Any], operator.add]  # noqa: E741
    n: int


class World:
    """What outlives processes beside the saver."""

    def __init__(self, saver: FaultySaver) -> None:
        self.saver = saver
        self.effects: Counter[Any] = Counter()
        self.recorded: set[Any] = set()
        """What `once` has returned for."""
        self.breaches: list[Any] = []
        self.keys: dict[Any, set[str]] = {}

    def pay(self, what: Any) -> Any:
        if self.saver.is_dead:
            raise Died
        self.effects[what] += 1
        if what in self.recorded:
            self.breaches.append(what)
        return what

    async def apay(self, what: Any) -> Any:
        return self.pay(what)


def build(world: World, *, is_async: bool) -> Any:
    """START -> (pay, two at once, a nested graph that pays and asks twice) -> end."""

    def node(name: str, asks: int = 0) -> Any:
        def what(state: Any, runtime: Runtime) -> Any:
            what = name, state.get("n", 0), state.get("part", 0)
            world.keys.setdefault(what, set()).add(runtime.idempotency_key)
            return what

        def end(state: Any) -> Any:
            answers = [interrupt(f"{name}{n}") for n in range(asks)]
            return {"l": [f"{name}{state.get('part', '')}", *answers]}

        def run(state: Any, runtime: Runtime) -> Any:
            paid = what(state, runtime)
            assert runtime.once("pay", world.pay, paid) == paid
            world.recorded.add(paid)
            return end(state)

        async def arun(state: Any, runtime: Runtime) -> Any:
            paid = what(state, runtime)
            assert await runtime.aonce("pay", world.apay, paid) == paid
            world.recorded.add(paid)
            return end(state)

        return arun if is_async else run

    inner = StateGraph(State).add_node("i", node("i")).add_node("ask", node("ask", 2))
    nested = inner.add_edge(START, "i").add_edge("i", "ask").compile()
    builder = (
        StateGraph(State).add_node("first", node("first")).add_node("part", node("part")).add_node("last", node("last"))
    )
    builder.add_node("nested", nested).add_edge(START, "first").add_edge("part", "nested").add_edge("nested", "last")
    builder.add_conditional_edges(
        "first", lambda state: [Send("part", {"n": state["n"], "part": part}) for part in (1, 2)], ["part"]
    )
    return builder.compile(checkpointer=world.saver)


CALLS: list[tuple[str, Any]] = [
    ("r1", {"l": ["in"], "n": 1}),
    ("r2", Command(resume="A")),
    ("r3", Command(resume="B")),
    ("r4", {"l": ["more"], "n": 2}),
    ("r5", Command(resume="C")),
]


def play(world: World, durability: str, *, is_async: bool) -> list[Any]:
    """What a client is told that repeats each call until it returns, and then once more."""
    told: list[Any] = []
    for run_id, given in CALLS:
        results: list[Any] = []
        for _ in range(TRIES):
            graph = build(world, is_async=is_async)
            try:
                if is_async:
                    result = asyncio.run(graph.ainvoke(given, CONFIG, run_id=run_id, durability=durability))
                else:
                    result = graph.invoke(given, CONFIG, run_id=run_id, durability=durability)
            except Died:
                world.saver.restart()
                continue
            results.append((result["l"], [q.value for q in result.get("__interrupt__", ())]))
            if len(results) == 2:
                break
        assert results[0] == results[1]
        told.append(results[0])
    return told


def kill_points(durability: str, *, is_async: bool, lags: bool) -> int:
    """Die at each durable call; returns how often."""
    quiet = World(FaultySaver())
    wanted = play(quiet, durability, is_async=is_async)
    assert [questions for _, questions in wanted] == [["ask0"], ["ask1"], [], ["ask0"], ["ask1"]]
    assert set(quiet.effects.values()) == {1}
    died = 0
    for late in (False, True):
        number = 1
        while True:
            world = World(FaultySaver(lags=lags))
            saver = world.saver
            saver.strike_at, saver.late = number, late
            assert play(world, durability, is_async=is_async) == wanted, (number, late)
            assert saver.ledger.breaches == []
            # However often a task ran, the service was given one key for it, and no other task had that one.
            assert world.keys.keys() == quiet.keys.keys()
            assert all(len(keys) == 1 for keys in world.keys.values()), (number, late)
            assert len(set.union(*world.keys.values())) == len(world.keys)
            assert world.effects.keys() == quiet.effects.keys()
            if durability == "sync":
                assert world.breaches == []
                # Those that were between effect and record when the process died; only the two parts run at once.
                repeated = [what for what, count in world.effects.items() if count > 1]
                assert all(what[0] == "part" for what in repeated) or (len(repeated) == 1 and not late), (number, late)
                assert all(world.effects[what] == 2 for what in repeated)
            if saver.strike_at == number:
                break
            died += 1
            number += 1
    return died


@pytest.mark.slow
@pytest.mark.parametrize(("durability", "lags"), [("sync", False), ("async", False), ("async", True), ("exit", False)])
@pytest.mark.parametrize("is_async", [False, True])
def test_kill_points(is_async: bool, durability: str, lags: bool) -> None:
    """Slow: each kill point is a conversation of its own."""
    died = kill_points(durability, is_async=is_async, lags=lags)
    assert died >= (4 if durability == "exit" else 20)


# ---- real processes, on a file


class Outside(World):
    """Effects are lines of a file that survives any death."""

    def __init__(self, saver: Any, place: Path) -> None:
        super().__init__(saver)
        self.file = os.open(place / "effects", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def pay(self, what: Any) -> Any:
        os.write(self.file, f"{what}\n".encode())
        return what


def life(directory: str, number: int, durability: str) -> Any:
    """A process that makes all calls from the first one on, whatever its predecessors did; dies at a visit of any
    boundary, 0 for none. Returns the values that it was told, and how many visits there were."""
    place = Path(directory)
    fault = CrashAt("any", number) if number else Record("any")
    with SqliteSaver(place / "threads.sqlite") as saver, inject(saver, fault):
        graph = build(Outside(saver, place), is_async=False)
        told = [graph.invoke(given, CONFIG, run_id=r, durability=durability)["l"] for r, given in CALLS]
    return [told, fault.visits]


def effects(place: Path) -> Counter[str]:
    return Counter((place / "effects").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_processes(server: ForkServer, tmp_path: Path, durability: str) -> None:
    """Slow: each kill point is two processes."""

    def live(name: str, number: int) -> Any:
        (tmp_path / name).mkdir(exist_ok=True)
        return server.call("tests.faults.test_repeated_calls:life", str(tmp_path / name), number, durability)

    wanted, visits = live("quiet", 0).value
    paid = effects(tmp_path / "quiet")
    assert set(paid.values()) == {1}
    assert len(paid) == 6 + 5
    for number in range(1, visits, visits // 12):
        name = f"{number}"
        ended = live(name, number)
        # How often it comes to such a point differs by a few from life to life.
        assert ended.signal is not None or ended.value[1] < number
        told, _ = live(name, 0).value
        assert told == wanted
        found = effects(tmp_path / name)
        assert found.keys() == paid.keys()
        if durability == "sync":
            assert sum(found.values()) <= len(paid) + 2  # at most what two parts were doing
        # Once more: everything has its result.
        assert live(name, 0).value[0] == wanted
        assert effects(tmp_path / name) == found
