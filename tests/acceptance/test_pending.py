"""`pending(saver)`: what waits for an answer, over all threads (promise 40)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.graph import START, StateGraph
from pregel.pending import PendingInterrupt, apending, pending
from pregel.pregel import _request
from pregel.types import Command, Send, interrupt
from tests.checkpoint.plain import PlainSaver
from tests.support.scenarios import Colour, Log

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite", "plain", "overridden"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Savers of ours, one of another library, and one of ours that is driven through the adapter."""

    class Overridden(InMemorySaver):
        def put(self, *args: Any) -> Any:
            return super().put(*args)

    with contextlib.ExitStack() as stack:
        made = {
            "memory": InMemorySaver,
            "sqlite": lambda: stack.enter_context(SqliteSaver.from_conn_string(str(tmp_path / "threads.sqlite"))),
            "plain": PlainSaver,
            "overridden": Overridden,
        }
        yield made[request.param]()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    shown = [NOW.timestamp()]
    monkeypatch.setattr(_request, "clock", lambda: shown[0])
    return shown


def found(colour: Colour, saver: Any, **options: Any) -> list[PendingInterrupt]:
    async def collect() -> list[PendingInterrupt]:
        return [entry async for entry in apending(saver, **options)]

    return asyncio.run(collect()) if colour.is_async else list(pending(saver, **options))


def config(thread_id: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread_id}}


def asking(colour: Colour, saver: Any, *names: str, **options: Any) -> Any:
    builder = StateGraph(Log)
    for name in names:
        builder.add_node(name, colour.node(lambda state, name=name: {"l": [interrupt(name, **options)]}))
        builder.add_edge(START, name)
    return builder.compile(checkpointer=saver)


def test_every_thread_with_every_open_question(colour: Colour, anywhere: Any) -> None:
    graph = asking(colour, anywhere, "a", "b")
    asked = {}
    for thread_id in ("1", "2", "3"):
        result = colour.invoke(graph, {"l": []}, config(thread_id))
        asked.update({(thread_id, q.value): q for q in result["__interrupt__"]})
    colour.invoke(graph, Command(resume={asked["2", "a"].id: "A"}), config("2"))
    colour.invoke(graph, Command(resume={asked["3", n].id: n for n in "ab"}), config("3"))
    entries = found(colour, anywhere)
    assert sorted((e.thread_id, e.node, e.checkpoint_ns, e.overdue) for e in entries) == [
        ("1", "a", "", False),
        ("1", "b", "", False),
        ("2", "b", "", False),
    ]
    for entry in entries:
        assert entry.interrupt == asked[entry.thread_id, entry.node]
        assert (entry.asked_at, entry.expires) == (NOW, None)
        head = colour.get_state(graph, entry.config).config["configurable"]["checkpoint_id"]
        assert entry.checkpoint_id == head
        colour.invoke(graph, Command(resume={entry.interrupt.id: "answered"}), entry.config)
    assert found(colour, anywhere) == []


def test_what_is_overdue(colour: Colour, anywhere: Any, clock: list[float]) -> None:
    for thread_id, options in {
        "never": {},
        "soon": {"expires": 60},
        "default": {"expires": 60, "default": "no"},
        "late": {"expires": NOW + timedelta(days=1)},
    }.items():
        colour.invoke(asking(colour, anywhere, "a", **options), {"l": []}, config(thread_id))

    def overdue(now: datetime) -> dict[str, bool]:
        return {entry.thread_id: entry.overdue for entry in found(colour, anywhere, now=now)}

    never = dict.fromkeys(("never", "soon", "default", "late"), False)
    assert overdue(NOW + timedelta(seconds=59)) == never
    assert overdue(NOW + timedelta(seconds=60)) == {**never, "soon": True, "default": True}
    assert overdue(NOW + timedelta(days=1)) == {**dict.fromkeys(never, True), "never": False}
    clock[0] += 60
    for entry in found(colour, anywhere, now=NOW + timedelta(seconds=60)):
        if entry.overdue:
            colour.invoke(asking(colour, anywhere, "a", expires=60, default="no"), None, entry.config)
    assert {entry.thread_id for entry in found(colour, anywhere)} == {"never", "soon", "late"}


def test_a_nested_question_is_found_where_it_is_asked(colour: Colour, anywhere: Any) -> None:
    """Also in graphs with a memory of their own; one that stores nothing is stood for by the node that runs it."""

    def inner(name: str, **options: Any) -> Any:
        builder = StateGraph(Log).add_node(name, colour.node(lambda arg: {"l": [interrupt(name)]}))
        return builder.add_conditional_edges(START, lambda state: [Send(name, 1)]).compile(**options)

    middle = StateGraph(Log).add_node("deep", inner("i")).add_edge(START, "deep").compile()
    builder = StateGraph(Log).add_node("sub", middle).add_node("own", inner("k", checkpointer=True))
    builder.add_node("blind", inner("b", checkpointer=False))
    for name in ("sub", "own", "blind"):
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=anywhere)
    colour.invoke(graph, {"l": []}, config("1"))
    entries = {entry.interrupt.value: entry for entry in found(colour, anywhere)}
    places = {
        value: ([part.split(":")[0] for part in e.checkpoint_ns.split("|")], e.node) for value, e in entries.items()
    }
    assert places == {"i": (["sub", "deep"], "i"), "k": (["own"], "k"), "b": ([""], "blind")}
    for entry in entries.values():
        where = {"configurable": {"thread_id": "1", "checkpoint_ns": entry.checkpoint_ns}}
        stored = anywhere.get_tuple(where)
        assert stored.checkpoint["id"] == entry.checkpoint_id
    colour.invoke(graph, Command(resume={e.interrupt.id: "A" for e in entries.values()}), config("1"))
    assert found(colour, anywhere) == []


def test_what_was_dropped_edited_or_only_stopped_does_not_wait(colour: Colour, anywhere: Any) -> None:
    graph = asking(colour, anywhere, "a")
    for thread_id in ("edited", "dropped"):
        colour.invoke(graph, {"l": []}, config(thread_id))
    colour.update_state(graph, config("edited"), {"l": ["instead"]}, "a")
    asked = colour.invoke(graph, {"l": ["new"]}, config("dropped"))["__interrupt__"]
    colour.invoke(graph, {"l": []}, config("stopped"), interrupt_before="*")
    assert [(e.thread_id, e.interrupt) for e in found(colour, anywhere)] == [("dropped", asked[0])]


def test_a_stored_answer_whose_node_has_not_come_to_its_end(colour: Colour, anywhere: Any) -> None:
    def n(state: Log) -> dict[str, Any]:
        interrupt("q")
        raise ValueError("boom")

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(checkpointer=anywhere)
    colour.invoke(graph, {"l": []}, config("1"))
    with pytest.raises(ValueError, match="boom"):
        colour.invoke(graph, Command(resume="A"), config("1"))
    assert found(colour, anywhere) == []


def test_it_reads_one_thread_after_the_other(colour: Colour, memory: Any) -> None:
    """Nothing is read before it is asked for, and nothing kept: a thread that is answered meanwhile is not shown."""
    graph = asking(colour, memory, "a")
    for number in range(3):
        colour.invoke(graph, {"l": []}, config(str(number)))
    if colour.is_async:
        return
    entries = pending(memory)
    first = next(entries)
    colour.invoke(graph, Command(resume=1), config("1"))
    assert [first.thread_id, *(entry.thread_id for entry in entries)] == ["0", "2"]


def test_an_empty_saver_and_a_time_without_zone(colour: Colour, anywhere: Any) -> None:
    assert found(colour, anywhere) == []
    with pytest.raises(ValueError, match="2026"):
        found(colour, anywhere, now=datetime(2026, 1, 1))


def test_a_branch_beside_the_thread_is_not_its_newest(colour: Colour, memory: Any) -> None:
    """What a replay from an older checkpoint asks is the newest then; what waited on the branch it left is not shown."""
    graph = asking(colour, memory, "a")
    first = colour.invoke(graph, {"l": []}, config("1"))["__interrupt__"][0]
    at = colour.history(graph, config("1"))[0].config
    again = colour.invoke(graph, None, at)["__interrupt__"][0]
    assert [e.interrupt.id for e in found(colour, memory)] == [again.id]
    assert first.id != again.id


ASK = """
import sys
from dataclasses import dataclass
from typing import TypedDict
from checkpoint.sqlite import SqliteSaver
from pregel.graph import START, StateGraph
from pregel.types import interrupt

@dataclass
class Order:
    number: int

class State(TypedDict, total=False):
    order: Order

def n(state):
    return {"order": interrupt(Order(7), expires=60, default=Order(8))}

with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
    graph = StateGraph(State).add_node("n", n).add_edge(START, "n").compile(checkpointer=saver)
    graph.invoke({"order": Order(1)}, {"configurable": {"thread_id": "1"}})
"""


def test_classes_of_the_program_need_not_be_there(colour: Colour, tmp_path: Path) -> None:
    file = tmp_path / "threads.sqlite"
    script = tmp_path / "ask.py"
    script.write_text(ASK)
    subprocess.run(
        [sys.executable, str(script), str(file)], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60
    )
    with SqliteSaver.from_conn_string(str(file)) as saver:
        (entry,) = found(colour, saver)
    assert (entry.thread_id, entry.node, entry.overdue) == ("1", "n", False)
    assert entry.interrupt.value.payload == {"number": 7}
    assert entry.interrupt.default.payload == {"number": 8}
    assert entry.expires is not None
    assert entry.expires - entry.asked_at == timedelta(seconds=60)
