"""Ctrl-C inside the SQLite saver: at every statement, before it has run and after it has, once and twice.

The saver goes on: nothing is half written, no connection is left inside a transaction.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import TypedDict

from checkpoint.sqlite import SqliteSaver
from pregel.graph import START, StateGraph

THREAD: Any = {"configurable": {"thread_id": "t"}}


class Count(TypedDict, total=False):
    n: int


class Struck:
    """A connection on which KeyboardInterrupt comes at statement number `at`, and at the one after it if `twice`."""

    def __init__(self, conn: sqlite3.Connection, at: int, *, late: bool, twice: bool) -> None:
        self.conn = conn
        self.strikes = {at, at + 1} if twice else {at}
        self.late = late
        self.count = 0

    def execute(self, *args: Any) -> Any:
        self.count += 1
        if self.count in self.strikes and not self.late:
            raise KeyboardInterrupt
        result = self.conn.execute(*args)
        if self.count in self.strikes:
            raise KeyboardInterrupt
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.conn, name)


def counting(saver: Any) -> Any:
    builder = StateGraph(Count)
    before = START
    for name in "abc":
        builder.add_node(name, lambda state: {"n": state["n"] + 1}).add_edge(before, name)
        before = name
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_run_that_is_struck_while_it_stores(tmp_path: Path, durability: Any, late: bool, twice: bool) -> None:
    struck = 0
    for at in range(1, 100):
        with SqliteSaver.from_conn_string(str(tmp_path / f"{at}.sqlite")) as saver:
            graph = counting(saver)
            graph.invoke({"n": 0}, {"configurable": {"thread_id": "other"}}, durability=durability)
            connections = saver._connections
            assert connections is not None
            plain = connections.writer
            connections.writer = proxy = Struck(plain, at, late=late, twice=twice)
            try:
                graph.invoke({"n": 10}, THREAD, durability=durability)
            except KeyboardInterrupt:
                struck += 1
            proxy.strikes = set()
            state = graph.get_state(THREAD)
            assert state.values.get("n", 10) - 10 in range(4)
            if state.next:
                assert graph.invoke(None, THREAD, durability=durability) == {"n": 13}
            assert graph.invoke({"n": 20}, THREAD, durability=durability) == {"n": 23}
            assert saver.verify() == []
            if proxy.count < at:
                break
    assert struck >= 5


@pytest.mark.parametrize("late", [False, True])
def test_a_reader_that_is_struck(tmp_path: Path, late: bool, monkeypatch: Any) -> None:
    with SqliteSaver.from_conn_string(str(tmp_path / "threads.sqlite")) as saver:
        graph = counting(saver)
        graph.invoke({"n": 0}, THREAD)
        connections = saver._connections
        assert connections is not None
        for at in range(1, 20):
            connections.readers.clear()
            proxy = Struck(connections.open(readonly=True), at, late=late, twice=False)
            connections.readers.append(proxy)  # type: ignore[arg-type]
            try:
                graph.get_state(THREAD)
            except KeyboardInterrupt:
                proxy.strikes = set()
                assert graph.get_state(THREAD).values == {"n": 3}
            if proxy.count < at:
                break
        assert at > 2
