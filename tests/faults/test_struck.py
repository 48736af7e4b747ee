"""Ctrl-C inside the SQLite saver: at every statement, before it has run and after it has, once and twice; and to a whole
process, which another one takes over from.

The saver goes on: nothing is half written, no connection is left inside a transaction.
"""

from __future__ import annotations

import dis
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import TypedDict

from checkpoint.sqlite import SqliteSaver
from pregel.graph import START, StateGraph

ROOT = Path(__file__).resolve().parents[2]
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


class AfterCalls:
    """A trace function that raises KeyboardInterrupt in one function, after its `at`-th call: where Python looks for
    signals."""

    def __init__(self, code: Any, at: int) -> None:
        self.code = code
        self.at = at
        self.count = 0
        self.called = False

    def __call__(self, frame: Any, event: str, arg: Any) -> Any:
        if frame.f_code is not self.code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            called, self.called = self.called, OPCODES[frame.f_code.co_code[frame.f_lasti]].startswith("CALL")
            if called:
                self.count += 1
                if self.count == self.at:
                    raise KeyboardInterrupt
        return self


OPCODES = dis.opname


def test_a_commit_that_is_struck_between_two_bytecodes(tmp_path: Path) -> None:
    with SqliteSaver.from_conn_string(str(tmp_path / "threads.sqlite")) as saver:
        graph = counting(saver)
        connections = saver._connections
        assert connections is not None
        for at in range(1, 100):
            tracer = AfterCalls(SqliteSaver.submit.__code__, at)
            sys.settrace(tracer)
            try:
                graph.invoke({"n": 0}, {"configurable": {"thread_id": str(at)}})
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)
            free = connections.write_lock.acquire(False)
            connections.write_lock.release()  # in any case: closing waits for it
            assert free
            if tracer.count < at:
                break
            assert graph.invoke({"n": 0}, {"configurable": {"thread_id": str(at)}}) == {"n": 3}
        assert at > 5


PROGRAM = """
import asyncio, operator, sys, threading
from typing import Annotated, TypedDict
from checkpoint.sqlite import SqliteSaver
from pregel.graph import START, StateGraph

class State(TypedDict):
    log: Annotated[list, operator.add]

def first(state):
    return {"log": ["first"]}

def long(state):
    print("running", flush=True)
    threading.Event().wait(600)
    return {"log": ["long"]}

def build(saver):
    builder = StateGraph(State).add_node("first", first).add_node("quick", lambda state: {"log": ["quick"]})
    builder.add_node("long", long).add_edge(START, "first").add_edge("first", "quick").add_edge("first", "long")
    return builder.compile(checkpointer=saver)

if __name__ == "__main__":
    how, path, durability = sys.argv[1:]
    thread = {"configurable": {"thread_id": "t"}}
    with SqliteSaver.from_conn_string(path) as saver:
        graph = build(saver)
        if how == "invoke":
            graph.invoke({"log": []}, thread, durability=durability)
        elif how == "stream":
            for chunk in graph.stream({"log": []}, thread, durability=durability):
                pass
        else:
            asyncio.run(graph.ainvoke({"log": []}, thread, durability=durability))
"""


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("how", ["invoke", "stream", "ainvoke"])
def test_ctrl_c_ends_the_process_and_another_goes_on(tmp_path: Path, how: str, durability: Any) -> None:
    """A node would run for ten minutes; neither the call nor the interpreter's end waits for it."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = str(tmp_path / "threads.sqlite")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program), how, path, durability]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    module = type(sys)("program")
    sys.modules["program"] = module
    try:
        exec(compile(PROGRAM.replace("wait(600)", "wait(0)"), "program", "exec"), module.__dict__)
        with SqliteSaver.from_conn_string(path) as saver:
            graph = module.build(saver)
            state = graph.get_state(THREAD)
            assert state.values["log"][:1] == ["first"]
            assert "long" in state.next
            assert graph.invoke(None, THREAD) == {"log": ["first", "long", "quick"]}
            assert saver.verify() == []
    finally:
        del sys.modules["program"]
