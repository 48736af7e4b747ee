"""`history_writes="drop"`: the results of past tasks are not kept, and nothing that runs is different."""

import operator
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.graph import END, START, StateGraph
from pregel.types import Command, interrupt
from tests.support.scenarios import Colour, refused


class Log(TypedDict):
    n: int
    log: Annotated[list[Any], operator.add]


def saver_of(kind: str, path: Path, how: Any) -> Any:
    if kind == "memory":
        return InMemorySaver(history_writes=how)
    return SqliteSaver(path / f"{how}.sqlite", history_writes=how, max_checkpoint_lag=4 if kind == "grouping" else 1)


def graph_of(colour: Colour, calls: list[str], saver: Any) -> Any:
    def count(state: Log) -> dict[str, Any]:
        calls.append("count")
        return {"n": state["n"] + 1, "log": [{"n": state["n"]}]}

    def beside(state: Log) -> dict[str, Any]:
        calls.append("beside")
        return {"log": ["beside"]}

    def ask(state: Log) -> dict[str, Any]:
        calls.append("ask")
        return {"log": [interrupt("q")]}

    builder = StateGraph(Log)
    for node in (count, beside, ask):
        builder.add_node(node.__name__, colour.node(node))
    builder.add_edge(START, "count")
    builder.add_conditional_edges("count", lambda state: "count" if state["n"] < 5 else ["beside", "ask"])
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


def lived(colour: Colour, kind: str, path: Path, how: Any, durability: str) -> tuple[Any, ...]:
    """A run with a loop, a question beside a finished node, and a fork; what it did, and what is stored."""
    calls: list[str] = []
    with saver_of(kind, path, how) as saver:
        graph = graph_of(colour, calls, saver)
        thread = {"configurable": {"thread_id": "t"}}
        first = colour.invoke(graph, {"n": 0, "log": []}, thread, durability=durability)
        paused = colour.get_state(graph, thread)
        assert [task.result for task in paused.tasks if task.name == "beside"] == [{"log": ["beside"]}]
        last = colour.invoke(graph, Command(resume="a"), thread, durability=durability)
        history = colour.history(graph, thread)
        slots = [write for entry in saver.list(thread) for write in entry.pending_writes]
        fork = history[-3].config
        again = colour.invoke(graph, None, fork, durability=durability)
        results = [[task.result for task in snapshot.tasks] for snapshot in history]
        shown = [(snapshot.values, snapshot.next, snapshot.metadata["step"]) for snapshot in history]
    return calls, first["log"], last, again["log"], shown, results, slots


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("kind", ["memory", "sqlite", "grouping"])
def test_what_runs_is_the_same(colour: Colour, kind: str, durability: str, tmp_path: Path) -> None:
    keep = lived(colour, kind, tmp_path, "keep", durability)
    drop = lived(colour, kind, tmp_path, "drop", durability)
    assert drop[:5] == keep[:5]
    assert [result for step in keep[5] for result in step if result]
    assert not [result for step in drop[5] for result in step if result]
    assert {channel for _, channel, _ in drop[6]} <= {"__interrupt__", "__resume__"}


def test_a_mode_that_does_not_exist() -> None:
    with refused(ValueError, "history_writes"):
        InMemorySaver(history_writes="some")  # type: ignore[arg-type]
