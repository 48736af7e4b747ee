"""Questions that outlive the process: each call is a Python process of its own, on one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow  # a Python process for every call

PROGRAM = """
import asyncio, json, operator, os, sys
from typing import Annotated, Any, TypedDict
from pydantic import BaseModel
from checkpoint.sqlite import SqliteSaver
from pregel.pregel import _request
from pregel.errors import is_invalid_resume
from pregel.graph import START, StateGraph
from pregel.pending import pending
from pregel.types import Command, interrupt

class Log(TypedDict):
    l: Annotated[list, operator.add]

class Approval(BaseModel):
    ok: bool

file, colour, told = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
_request.clock = lambda: told.get("now", 1000.0)
dies = told.get("dies")

def typed(state):
    answer = interrupt("typed", response_schema=Approval)
    if dies == "typed":
        os._exit(9)
    return {"l": [f"typed:{answer.ok}"]}

def checked(state):
    answer = interrupt("checked", response_schema={"enum": ["yes", "no"]})
    if dies == "checked":
        os._exit(9)
    return {"l": [f"checked:{answer}"]}

def timed(state):
    return {"l": [f"timed:{interrupt('timed', expires=60, default='no')}"]}

def build(saver):
    inner = StateGraph(Log)
    for node in (typed, checked, timed):
        inner.add_node(node.__name__, node).add_edge(START, node.__name__)
    graph = StateGraph(Log).add_node("sub", inner.compile()).add_edge(START, "sub")
    graph.add_node("end", lambda state: {"l": ["end"]}).add_edge("sub", "end")
    return graph.compile(checkpointer=saver)

with SqliteSaver.from_conn_string(file) as saver:
    graph, config = build(saver), {"configurable": {"thread_id": "1"}}
    given = {"l": []} if "start" in told else None
    if "answers" in told:
        ids = {entry.interrupt.value: entry.interrupt.id for entry in pending(saver)}
        given = Command(resume={ids[name]: answer for name, answer in told["answers"].items()})
    options = told.get("options", {})
    try:
        if colour == "async":
            asyncio.run(graph.ainvoke(given, config, **options))
        else:
            graph.invoke(given, config, **options)
        refused = None
    except ValueError as error:
        if not is_invalid_resume(error):
            raise
        refused = error.interrupt_id
    state = graph.get_state(config)
    waiting = {entry.interrupt.value: [entry.node, entry.interrupt.id] for entry in pending(saver)}
    print(json.dumps({"l": state.values["l"], "next": state.next, "waiting": waiting, "refused": refused}))
"""


class Processes:
    def __init__(self, path: Path, colour: str) -> None:
        self.program, self.file, self.colour = path / "program.py", path / "threads.sqlite", colour
        self.program.write_text(PROGRAM)

    def call(self, **told: Any) -> Any:
        """What one more process says. `dies`: the node in which it comes to a sudden end."""
        done = subprocess.run(
            [sys.executable, "-W", "error", str(self.program), str(self.file), self.colour, json.dumps(told)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if "dies" in told:
            assert done.returncode == 9, done.stderr
            return None
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(params=["sync", "async"])
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Processes:
    return Processes(tmp_path, request.param)


def test_a_talk_over_many_processes(processes: Processes) -> None:
    first = processes.call(start=True)
    assert {name: node for name, (node, _) in first["waiting"].items()} == {n: n for n in ("typed", "checked", "timed")}
    assert processes.call() == first
    bad = processes.call(answers={"typed": {"ok": "perhaps"}})
    assert (bad["refused"], bad["waiting"]) == (first["waiting"]["typed"][1], first["waiting"])
    bad = processes.call(answers={"checked": "perhaps"})
    assert (bad["refused"], bad["waiting"]) == (first["waiting"]["checked"][1], first["waiting"])
    some = processes.call(answers={"typed": {"ok": 1}})
    assert (some["refused"], sorted(some["waiting"])) == (None, ["checked", "timed"])
    early = processes.call(now=1059.0)
    assert sorted(early["waiting"]) == ["checked", "timed"]
    last = processes.call(
        now=1060.0, answers={"checked": "yes"}, options={"interrupt_before": "*", "keep_breakpoints": True}
    )
    assert (last["l"], last["next"], last["waiting"]) == (["checked:yes", "timed:no", "typed:True"], ["end"], {})
    assert processes.call()["l"][-1] == "end"
    assert processes.call(start=True)["next"] == ["sub"], "the thread keeps its breakpoint"


def test_a_process_that_dies_with_an_answer_in_its_hand(processes: Processes) -> None:
    """It was stored before its node ran; of what type it has to be is found out by the next process, if need be."""
    processes.call(start=True)
    processes.call(answers={"checked": "yes"}, dies="checked")
    assert sorted(processes.call()["waiting"]) == ["timed", "typed"]
    processes.call(answers={"typed": {"ok": False}}, dies="typed")
    assert sorted(processes.call()["waiting"]) == ["timed"]
    last = processes.call(answers={"timed": "now"})
    assert last["l"] == ["checked:yes", "timed:now", "typed:False", "end"]
