"""The demo that `python -m pregel demo` runs: one graph with every basic feature, on a file that survives kills.

The graph is a small editorial desk. `plan` splits a topic into questions, one `research` task per question runs in
parallel (`Send`), a reducer merges their notes, `write` and `review` loop until the draft is long enough, `approve`
asks a human (`interrupt`), and the answer decides between `publish` and `shelve`. All nodes are pure, so that every run
shows the same.

`run` knows one rule: look at the thread in the file and go on from there. Whatever happened before (nothing, a pause, a
kill at any moment, the end) is read from the file, never remembered. The answer is given in a process of its own, to
show that the file is all that a paused run needs. Knows nothing of command lines: `pregel.__main__` does.
"""

from __future__ import annotations

import operator
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal, TypedDict

from checkpoint.base import CheckpointConflictError
from checkpoint.sqlite import SqliteSaver
from pregel.config import RunnableConfig
from pregel.graph import END, START, StateGraph
from pregel.graph.state import CompiledStateGraph
from pregel.types import Command, Send, StateSnapshot, interrupt

__all__ = ["build", "resume", "run"]

TOPIC = "supersteps"
QUESTIONS = {
    "what runs": "all ready nodes run at once",
    "who sees a write": "the next superstep sees their writes",
    "when is it stored": "each one is stored as a whole",
}


class Desk(TypedDict, total=False):
    """What the desk works on. `notes` is written by parallel tasks, so it has a reducer."""

    topic: str
    questions: list[str]
    notes: Annotated[list[str], operator.add]
    draft: str
    round: int
    status: str


class Question(TypedDict):
    """What one research task gets."""

    question: str


def plan(state: Desk) -> Desk:
    """Split the topic into questions."""
    return {"questions": list(QUESTIONS), "round": 0}


def scatter(state: Desk) -> list[Send]:
    """One research task per question."""
    return [Send("research", {"question": question}) for question in state["questions"]]


def research(task: Question) -> Desk:
    """Answer one question; runs in parallel with the others."""
    return {"notes": [QUESTIONS[task["question"]]]}


def write(state: Desk) -> Desk:
    """Write a draft with one note more than in the round before."""
    number = state["round"] + 1
    return {"round": number, "draft": f"{state['topic']}: " + ", ".join(state["notes"][:number])}


def review(state: Desk) -> Desk:
    """Judge the draft; the loop ends when it holds every note."""
    return {"status": "complete" if state["round"] == len(state["notes"]) else "too short"}


def judge(state: Desk) -> Literal["write", "approve"]:
    """Back to the writer, or on to the human."""
    return "approve" if state["status"] == "complete" else "write"


def approve(state: Desk) -> Command[Literal["publish", "shelve"]]:
    """Ask a human and stop until the answer comes, in this process or in another."""
    answer = interrupt({"question": "Publish this draft?", "draft": state["draft"]})
    return Command(goto="publish" if answer == "yes" else "shelve")


def publish(state: Desk) -> Desk:
    """The human said yes."""
    return {"status": "published"}


def shelve(state: Desk) -> Desk:
    """The human said no."""
    return {"status": "shelved"}


def build(saver: SqliteSaver) -> CompiledStateGraph[Desk, None, Desk, Desk]:
    """The desk, storing its threads with `saver`."""
    builder = StateGraph(Desk)
    for node in (plan, research, write, review, approve, publish, shelve):
        builder.add_node(node)
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", scatter, ["research"])
    builder.add_edge("research", "write")
    builder.add_edge("write", "review")
    builder.add_conditional_edges("review", judge)
    builder.add_edge("publish", END)
    builder.add_edge("shelve", END)
    return builder.compile(checkpointer=saver, name="desk")


def run(file: Path, ask: Callable[[str], str | None]) -> int:
    """Start, continue or finish the newest run in `file`; a finished one is followed by a new one.

    Args:
        file: the SQLite file; made when missing.
        ask: shows a question and returns "yes", "no", or None to leave the run waiting.

    Returns:
        The exit code for the process: 0 done or waiting, 1 when another process took the run over.
    """
    with SqliteSaver.from_conn_string(str(file)) as saver:
        desk = build(saver)
        number, config, snapshot = _newest(desk)
        started = snapshot.created_at is not None
        print(f"{'continuing' if started else 'starting'} run {number} in {file}")
        try:
            _follow(desk, None if started else {"topic": TOPIC}, config)
        except CheckpointConflictError as error:
            return _taken_over(error)
        questions = _open_questions(desk, config)
        if not questions:
            return _report(desk, config)
        print(f"\npaused: {questions[0]['question']}\n  {questions[0]['draft']}\n")
    answer = ask("yes or no? ")
    if answer is None:
        print("no answer yet: the run waits in the file, start the demo again to give one")
        return 0
    print(f"answer: {answer}, given to a new process\n", flush=True)
    return subprocess.run([sys.executable, "-m", "pregel", "demo", "--file", str(file), "--resume", answer]).returncode


def resume(file: Path, answer: str) -> int:
    """Give `answer` to the run that waits in `file`, follow it to its end and report; the exit code as in `run`."""
    with SqliteSaver.from_conn_string(str(file)) as saver:
        desk = build(saver)
        number, config, _ = _newest(desk)
        print(f"resuming run {number} in {file}")
        try:
            _follow(desk, Command(resume=answer), config)
        except CheckpointConflictError as error:
            return _taken_over(error)
        return _report(desk, config)


def _newest(desk: CompiledStateGraph[Desk, None, Desk, Desk]) -> tuple[int, RunnableConfig, StateSnapshot]:
    """The first run that is not finished: its number, its config and where it stands."""
    number = 0
    while True:
        number += 1
        config: RunnableConfig = {"configurable": {"thread_id": f"run-{number}"}}
        snapshot = desk.get_state(config)
        if snapshot.next or snapshot.created_at is None:
            return number, config, snapshot


def _follow(
    desk: CompiledStateGraph[Desk, None, Desk, Desk], given: Desk | Command[str] | None, config: RunnableConfig
) -> None:
    """Run until the graph ends or pauses and show each step as it happens."""
    for chunk in desk.stream(given, config, stream_mode="updates"):
        for node, update in chunk.items():
            if node != "__interrupt__":
                print(f"  {node:9} {_short(update)}", flush=True)


def _short(update: object) -> str:
    text = "-" if not update else str(update)
    return text if len(text) <= 100 else text[:97] + "..."


def _open_questions(desk: CompiledStateGraph[Desk, None, Desk, Desk], config: RunnableConfig) -> list[dict[str, str]]:
    return [question.value for task in desk.get_state(config).tasks for question in task.interrupts]


def _report(desk: CompiledStateGraph[Desk, None, Desk, Desk], config: RunnableConfig) -> int:
    values = desk.get_state(config).values
    print(f"\nresult: {values['status']}\n  {values['draft']}\n\nhistory, oldest first:")
    for line in _history(desk, config):
        print(f"  {line}")
    print(f"\nthe graph as Mermaid text:\n\n{desk.get_graph().draw_mermaid()}", end="", flush=True)
    return 0


def _history(desk: CompiledStateGraph[Desk, None, Desk, Desk], config: RunnableConfig) -> Iterator[str]:
    for snapshot in reversed(list(desk.get_state_history(config))):
        metadata = snapshot.metadata or {}
        following = ", ".join(snapshot.next) or "the end"
        yield f"step {metadata['step']:2} ({metadata['source']}), then {following}"


def _taken_over(error: CheckpointConflictError) -> int:
    print(f"another process works on this run; this one stops ({error})")
    return 1
