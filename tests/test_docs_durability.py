"""The durability table of `docs/persistence.md` is what happens: each cell is run.

Processes are killed at each node call; the power goes after each commit, with any part of what was not synced. What a
cell says is looked up in `CLAIMS`, so a cell that says something else has no test and fails.
"""

from __future__ import annotations

import contextlib
import operator
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from checkpoint.sqlite import SqliteSaver
from checkpoint.testing.faults import ForkServer, PowerLoss, inject
from pregel.graph import END, START, StateGraph
from pregel.types import Every, interrupt
from tests.support.savers import Died, FaultySaver

PAGE = (Path(__file__).parents[1] / "docs" / "persistence.md").read_text()
N_STEPS = 12
STEPS = 4
THREAD: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": 100}
MODES: dict[str, Any] = {
    '`"sync"`': "sync",
    '`"async"` (default)': "async",
    "`Every(steps=, seconds=)`": Every(steps=STEPS),
    '`"exit"`': "exit",
}

# What is lost: supersteps done and not found afterwards, after each number of supersteps done.
CLAIMS: dict[str, Callable[[list[int], int], bool]] = {
    "nothing": lambda lost, lag: set(lost) == {0},
    "at most `max_checkpoint_lag` supersteps": lambda lost, lag: max(lost) <= lag,
    "the newest supersteps": lambda lost, lag: max(lost) > 0,
    "what was done since": lambda lost, lag: 0 < max(lost) < STEPS and 0 in lost,
    "the run": lambda lost, lag: lost == [*range(len(lost))],
}


class Count(TypedDict):
    n: int
    log: Annotated[list[int], operator.add]


def counting(saver: Any, before: Callable[[int], None], **options: Any) -> Any:
    """A loop of one node that says how many supersteps are done when the next one starts."""

    def count(state: Count) -> dict[str, Any]:
        before(state["n"])
        return {"n": state["n"] + 1, "log": [state["n"]]}

    builder = StateGraph(Count).add_node("count", count).add_edge(START, "count")
    builder.add_conditional_edges("count", lambda state: "count" if state["n"] < N_STEPS else END)
    return builder.compile(checkpointer=saver, **options)


def mode_of(name: str) -> Any:
    return MODES[name]


def stored_in(saver: Any) -> int:
    """Supersteps whose result is there. What is there is always a beginning of the run."""
    found = counting(saver, lambda n: None).get_state(THREAD).values
    n: int = found.get("n", 0)
    assert found.get("log", []) == [*range(n)]
    return n


def rows() -> Iterator[tuple[str, list[str]]]:
    table = re.search(r"^\| durability \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert table is not None
    for line in table[1].splitlines():
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        yield name, cells


ROWS = dict(rows())


def test_the_table_has_every_mode():
    assert ROWS.keys() == MODES.keys()
    assert all(cell in CLAIMS for cells in ROWS.values() for cell in cells[2:])


# ---- a killed process


def life(path: str, mode: str, at: int) -> None:
    """Run in a process of its own until it is killed, when `at` supersteps are done."""

    def before(n: int) -> None:
        if n == at:
            os.kill(os.getpid(), signal.SIGKILL)

    counting(SqliteSaver(path), before).invoke({"n": 0, "log": []}, THREAD, durability=mode_of(mode))


@pytest.mark.parametrize("name", MODES)
def test_killed_processes(name, tmp_path):
    lost = []
    with ForkServer(preload=["tests.test_docs_durability"]) as server:
        for at in range(N_STEPS):
            path = tmp_path / f"{at}.sqlite"
            ended = server.call("tests.test_docs_durability:life", str(path), name, at)
            assert ended.signal == signal.SIGKILL
            with SqliteSaver(path) as saver:
                lost.append(at - stored_in(saver))
    assert min(lost) >= 0
    assert CLAIMS[ROWS[name][2]](lost, 1)


@pytest.mark.parametrize("lag", [1, 3])
def test_no_more_is_lost_than_may_lag(lag):
    """With a saver that stores as late as it may."""
    lost = []
    for at in range(N_STEPS):
        saver = FaultySaver(lags=True)
        saver.max_checkpoint_lag = lag

        def die(n: int, at: int = at, saver: FaultySaver = saver) -> None:
            if n == at:
                saver.is_dead = True
                raise Died

        with pytest.raises(Died):
            counting(saver, die).invoke({"n": 0, "log": []}, THREAD, durability="async")
        saver.restart()
        lost.append(at - stored_in(saver))
    assert CLAIMS[ROWS['`"async"` (default)'][2]](lost, lag)
    assert max(lost) == lag


# ---- power loss, and what is waited for


class Power(PowerLoss):
    """Remembers at each commit whether it was synced, and how many supersteps were done."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.done = 0
        self.synced: list[bool] = []
        self.done_at: list[int] = []

    def strike(self, point: Any) -> None:
        n_images = len(self.images)
        super().strike(point)
        self.done_at += [self.done] * (len(self.images) - n_images)
        if point.boundary == "b6":
            self.synced.append(self._syncs_commit)


@pytest.mark.parametrize("name", MODES)
def test_power_loss(name, tmp_path):
    path = tmp_path / "threads.sqlite"
    begun = []
    with SqliteSaver(path) as saver:
        power = Power(path)

        def before(n: int) -> None:
            power.done = n + 1  # when this superstep is committed
            begun.append((n, len(power.images)))

        with inject(saver, power):
            counting(saver, before).invoke({"n": 0, "log": []}, THREAD, durability=mode_of(name))
    lost = []
    for done, n_images in begun:
        found = [0]
        if n_images:
            found = []
            for seed in range(4):
                restored = power.restore(n_images - 1, tmp_path, seed=seed)
                with SqliteSaver(restored) as saver:
                    found.append(stored_in(saver))
        lost.append(done - min(found))
    assert min(lost) >= 0
    assert CLAIMS[ROWS[name][3]](lost, 1)
    last = power.restore(len(power.images) - 1, tmp_path, seed=0)
    with SqliteSaver(last) as saver:
        assert (stored_in(saver) == N_STEPS) == (name != '`"async"` (default)')


@pytest.mark.parametrize("name", MODES)
def test_synced_commits(name, tmp_path):
    path = tmp_path / "threads.sqlite"
    with SqliteSaver(path) as saver:
        power = Power(path)
        with inject(saver, power):
            counting(saver, lambda n: None).invoke({"n": 0, "log": []}, THREAD, durability=mode_of(name))
    # The input and the step of `__start__` are two more; `Every` stores the input.
    expected = {"one per superstep": N_STEPS + 2, "none": 0, "one each time": N_STEPS // STEPS + 1, "one per run": 1}
    assert sum(power.synced) == expected[ROWS[name][1]]


@pytest.mark.parametrize("name", MODES)
def test_questions_and_errors_never_lag(name):
    def ask(state: Count) -> dict[str, Any]:
        return {"log": [interrupt("?")]}

    def fail(state: Count) -> dict[str, Any]:
        raise RuntimeError("no")

    for node, check in ((ask, "interrupts"), (fail, "error")):
        saver = FaultySaver(lags=True)
        graph = StateGraph(Count).add_node("node", node).add_edge(START, "node").compile(checkpointer=saver)
        with contextlib.suppress(RuntimeError):
            graph.invoke({"n": 0, "log": []}, THREAD, durability=mode_of(name))
        saver.restart()
        assert getattr(graph.get_state(THREAD).tasks[0], check)
