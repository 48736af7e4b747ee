"""Writes the files of this folder, with LangGraph and its SQLite saver. See README.md."""

from __future__ import annotations

import contextlib
import gzip
import operator
import sqlite3
import sys
import uuid
from collections import deque
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, TypedDict
from zoneinfo import ZoneInfo

import shop
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Overwrite, Send, interrupt

HERE = Path(__file__).parent


class Chat(TypedDict):
    messages: Annotated[list[dict[str, Any]], operator.add]
    turns: int


def thread(thread_id: str, **more: Any) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread_id, **more}}


def agent(state: Chat) -> dict[str, Any]:
    last = state["messages"][-1]["content"]
    return {"messages": [{"role": "ai", "content": f"re: {last}"}], "turns": state.get("turns", 0) + 1}


def chat(saver: SqliteSaver) -> None:
    """A loop of messages, a fork, a nested graph with a state of its own, and metadata."""
    memory = StateGraph(Chat).add_node("note", lambda s: {"turns": s.get("turns", 0) + 10}).add_edge(START, "note")
    memory_graph = memory.compile(checkpointer=True)
    builder = StateGraph(Chat)
    builder.add_node("agent", agent)
    builder.add_node("memory", lambda s: {"turns": memory_graph.invoke({"messages": []})["turns"]})
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", lambda s: "agent" if s["turns"] % 2 else "memory", ["agent", "memory"])
    graph = builder.compile(checkpointer=saver)
    for text in ("hello", "how are you", "bye"):
        graph.invoke({"messages": [{"role": "user", "content": text}]}, thread("chat", user="ann"))
    first = list(graph.get_state_history(thread("chat")))[-3]
    graph.invoke(None, first.config)
    graph.update_state(thread("chat"), {"messages": [{"role": "user", "content": "edited"}]}, as_node="agent")


class Log(TypedDict):
    log: Annotated[list[Any], operator.add]


def two_questions(state: Log) -> dict[str, Any]:
    return {"log": [interrupt("one"), interrupt("two")]}


def never(state: Log) -> dict[str, Any]:
    raise RuntimeError("no")


def paused(saver: SqliteSaver) -> None:
    """Steps that are under way: questions, answers, finished siblings, nested graphs, breakpoints, a failure."""
    # One of two questions answered, beside a question of another node.
    builder = StateGraph(Log)
    builder.add_node("asks", two_questions)
    builder.add_node("other", lambda s: {"log": [interrupt({"what": "other"})]})
    builder.add_node("quick", lambda s: {"log": ["quick"]})
    for name in ("asks", "other", "quick"):
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=saver)
    asked = graph.invoke({"log": []}, thread("questions"))["__interrupt__"]
    graph.invoke(Command(resume={next(i.id for i in asked if i.value == "one"): "first"}), thread("questions"))
    # A bare answer that was used, with the next question open.
    graph = StateGraph(Log).add_node("asks", two_questions).add_edge(START, "asks").compile(checkpointer=saver)
    graph.invoke({"log": []}, thread("used"))
    graph.invoke(Command(resume="first"), thread("used"))
    # Sends, of which one asks inside a nested graph.
    nested = StateGraph(Log).add_node("ask", lambda s: {"log": [interrupt(s["log"][-1])]}).add_edge(START, "ask")
    outer = StateGraph(Log).add_node("deep", nested.compile()).add_edge(START, "deep")
    builder = StateGraph(Log)
    builder.add_node(
        "spread",
        lambda s: Command(goto=[Send("square", {"log": [n]}) for n in (2, 3)] + [Send("outer", {"log": ["?"]})]),
    )
    builder.add_node("square", lambda s: {"log": [s["log"][0] ** 2]})
    builder.add_node("outer", outer.compile())
    builder.add_edge(START, "spread")
    graph = builder.compile(checkpointer=saver)
    graph.invoke({"log": []}, thread("nested"))
    # A join and a deferred node, stopped before it.
    builder = StateGraph(Log)
    for name in "ab":
        builder.add_node(name, lambda s, name=name: {"log": [name]})
        builder.add_edge(START, name)
    builder.add_node("late", lambda s: {"log": ["late"]}, defer=True)
    builder.add_node("joined", lambda s: {"log": ["joined"]})
    builder.add_edge(["a", "b"], "late")
    builder.add_edge(["a", "b"], "joined")
    graph = builder.compile(checkpointer=saver, interrupt_before=["late", "joined"])
    graph.invoke({"log": []}, thread("joins"))
    # A failure beside a finished sibling.
    builder = StateGraph(Log)
    builder.add_node("fails", never)
    builder.add_node("quick", lambda s: {"log": ["quick"]})
    builder.add_edge(START, "fails")
    builder.add_edge(START, "quick")
    graph = builder.compile(checkpointer=saver)
    with contextlib.suppress(RuntimeError):
        graph.invoke({"log": []}, thread("failed"))
    # A write that replaces.
    builder = StateGraph(Log)
    builder.add_node("resets", lambda s: {"log": Overwrite(["new"])})
    builder.add_edge(START, "resets")
    builder.compile(checkpointer=saver).invoke({"log": ["old"]}, thread("overwritten"))


def deep(saver: SqliteSaver) -> None:
    """Questions in a nested graph with a state of its own, and in two runs of one nested graph in one task."""
    leaf = StateGraph(Log).add_node("ask", lambda s: {"log": [interrupt(len(s["log"]))]}).add_edge(START, "ask")
    plain = leaf.compile()

    def twice(state: Log) -> dict[str, Any]:
        return {"log": plain.invoke({"log": ["a"]})["log"] + plain.invoke({"log": ["b", "b"]})["log"]}

    builder = StateGraph(Log)
    builder.add_node("keeps", leaf.compile(checkpointer=True))
    builder.add_node("twice", twice)
    builder.add_edge(START, "keeps")
    builder.add_edge("keeps", "twice")
    graph = builder.compile(checkpointer=saver)
    for n_answers in range(3):
        graph.invoke({"log": ["in"]}, thread(str(n_answers)))
        for number in range(n_answers):
            graph.invoke(Command(resume=f"answer {number}"), thread(str(n_answers)))


class Anything(TypedDict):
    standard: dict[str, Any]
    own: dict[str, Any]


STANDARD = {
    "set": {1, 2},
    "frozenset": frozenset({"a"}),
    "deque": deque([1, 2]),
    "datetime": datetime(2024, 5, 6, 7, 8, 9, 10, UTC),
    "date": date(2024, 5, 6),
    "time": time(7, 8, 9),
    "timedelta": timedelta(days=1, seconds=2),
    "zone": ZoneInfo("UTC"),
    "decimal": Decimal("1.50"),
    "uuid": uuid.UUID(int=5),
    "local": Path("c/d"),
    "address": IPv4Address("127.0.0.1"),
    "bytes": b"\x00\xff",
    "keys": {1: "int", None: "none"},
    "none": None,
    "text": "\u00e9\u4e16",
}


def values(saver: SqliteSaver) -> None:
    """Values of all kinds."""
    own = {
        "enum": shop.Color.BLUE,
        "named": shop.Point(1, 2),
        "dataclass": shop.Line("l", [shop.Point(0, 0), shop.Point(3, 0)]),
        "model": shop.Invoice(items=[shop.Item(sku="x", price=1.5)]),
    }
    builder = (
        StateGraph(Anything).add_node("fill", lambda s: {"standard": STANDARD, "own": own}).add_edge(START, "fill")
    )
    builder.compile(checkpointer=saver).invoke({"own": {}}, thread("own"))
    builder = StateGraph(Anything).add_node("fill", lambda s: {"standard": STANDARD}).add_edge(START, "fill")
    builder.compile(checkpointer=saver).invoke({"own": {}}, thread("standard"))


def write(name: str, fill: Any) -> None:
    path = HERE / f"{name}.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        fill(saver)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA journal_mode = DELETE")
    conn.execute("PRAGMA page_size = 512")
    conn.execute("VACUUM")
    conn.close()
    (HERE / f"{name}.sqlite.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
    path.unlink()


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    for name, fill in (("chat", chat), ("paused", paused), ("deep", deep), ("values", values)):
        write(name, fill)
