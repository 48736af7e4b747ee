"""Processes that are killed again and again while they work on one thread, each a fork of a server (F1 to F7).

`life` is one process: it looks at what its predecessors left, continues, and dies where it is told to. Beside the file
of checkpoints there is a ledger of lines that survive any death: B, a body has begun; A, the saver has acknowledged a
row. From both the next life tells whether something acknowledged was lost (I3, I4), and whether something stored was
done again (I5).

As a script: `python -m tests.faults.kill --seeds 10000 [--first 0] [--jobs 2]`. It prints the seeds that went wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing.pool
import operator
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import TypedDict

from checkpoint.base import INTERRUPT, WRITES_IDX_MAP
from checkpoint.sqlite import SqliteSaver, columns
from checkpoint.testing.faults import CrashAt, ForkServer, Record, inject
from pregel import _scope
from pregel.constants import END, START
from pregel.graph import StateGraph
from pregel.types import Command, Send, interrupt
from tests.support.sound import problems

PRELOAD = ["tests.faults.kill", "pregel.pregel", "pregel.engine.async_driver", "checkpoint.sqlite", "sqlite3"]
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where files outlive a process at no cost: nothing of this is about power."""
LIFE = "tests.faults.kill:life"
CONFIG: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 200}
CALLS = 60
"""More calls than any program needs to its end."""
LIVES = 4
"""How often a thread's process is killed at most."""


class Flaky(Exception):
    """What a node raises the first time."""


class Plan:
    """What a seed stands for: the program, and how it is run."""

    def __init__(self, seed: int, **chosen: Any) -> None:
        chance = random.Random(seed)
        self.turns = chance.randint(1, 3)
        self.width = chance.randint(1, 5)
        self.asks = chance.random() < 0.4
        self.fresh = chance.random() < 0.5
        """Has a nested graph of default namespaces."""
        self.kept = chance.random() < 0.5
        """Has a nested graph whose namespace is kept over calls."""
        self.nested_asks = chance.random() < 0.4
        self.text = "x" * chance.choice((0, 10, 100, 900))
        """Part of each marker; with 900, a turn of several workers takes bodies in parts."""
        self.durability = chance.choice(("sync", "async", "exit", "async", "sync"))
        self.lag = chance.choice((1, 16))
        self.is_async = chance.random() < 0.4
        self.deep = chance.choice((None, None, "fresh", "kept"))
        """What the nested graphs call in turn."""
        self.fails = chance.random() < 0.3
        """Does the last node of a turn fail the first time?"""
        self.edits = chance.random() < 0.3
        """Is the finished thread edited?"""
        self.forks = chance.random() < 0.3 and self.durability != "exit"
        """Is the finished thread run again from its first turn on?"""
        self.dies_after = 0
        """If not 0: workers with at least this number kill the process when so many others' output is stored."""
        self.__dict__.update(chosen)


class Ledger:
    """Lines that outlive the process that wrote them."""

    def __init__(self, path: Path, stored: Stored) -> None:
        self.stored = stored
        """What was there when this life began."""
        self._fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600)
        self._told = threading.Condition()
        self._outputs: set[str] = set()
        self.lines = [json.loads(line) for line in path.read_text().splitlines()]

    def write(self, *line: Any) -> None:
        os.write(self._fd, (json.dumps(line) + "\n").encode())

    def begun(self) -> None:
        """Called by each body."""
        scope: Any = _scope.current()
        ns, step, task, name = scope.host.ns, scope.host.step, scope.host.id_of(scope.task), scope.task.name
        self.write("B", ns, step, name)
        if not self.stored.plan.forks and step <= self.stored.heads.get(ns, -2):
            self.write("X", f"{name} of step {step} of {ns!r} ran, step {self.stored.heads[ns]} was stored")
        if task in self.stored.outputs:
            self.write("X", f"{name} of step {step} of {ns!r} ran although its output was stored")

    def fail_once(self, what: str) -> None:
        """Raise, if no process has done so before."""
        if ["F", what] not in self.lines:
            self.lines.append(["F", what])
            self.write("F", what)
            raise Flaky(what)

    def acknowledged(self, step: Any) -> None:
        """The saver says that a step is stored."""
        rev = step.rev
        outputs = [row[1] for row in step.writes if row[2] == 0]
        questions = [row[:2] for row in step.writes if row[2] == WRITES_IDX_MAP[INTERRUPT]]
        self.write("A", step.space.ns, rev, outputs, questions)
        with self._told:
            if rev is None:
                self._outputs.update(outputs)
            else:
                self._outputs.clear()
            self._told.notify_all()

    def die_when_stored(self, count: int) -> None:
        """Called by a body: kill the process when the outputs of so many tasks of this step are stored."""
        with self._told:
            self._told.wait_for(lambda: len(self._outputs) >= count)
        os.kill(os.getpid(), signal.SIGKILL)


# ---- the program


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    turn: int
    kept: int


class Item(TypedDict, total=False):
    number: int
    turn: int


class Notes(TypedDict, total=False):
    notes: Annotated[list[str], operator.add]
    steps: Annotated[int, operator.add]
    turn: int


def build(plan: Plan, ledger: Ledger, saver: Any) -> Any:
    """The compiled graph. Every marker names its turn and what its node read, so what is lost or doubled shows."""

    def begin(state: State) -> Any:
        ledger.begun()
        return {"turn": state.get("turn", 0) + 1, "log": [f"begin/{len(state.get('log', []))}"]}

    def fan(state: State) -> Any:
        sends: list[Any] = [Send("work", {"number": n, "turn": state["turn"]}) for n in range(plan.width)]
        return [*sends, *extra]

    def work(item: Item) -> Any:
        ledger.begun()
        if plan.dies_after and item["number"] >= plan.dies_after:
            ledger.die_when_stored(plan.dies_after)
        return {"log": [f"work {item['number']} of {item['turn']} {plan.text}"]}

    def ask(state: State) -> Any:
        ledger.begun()
        heard = [interrupt(f"{which} of {state['turn']}") for which in ("first", "second")]
        return {"log": [f"heard {heard}"]}

    def end(state: State) -> Any:
        ledger.begun()
        if plan.fails:
            ledger.fail_once(f"end of {state['turn']}")
        return {"log": [f"end of {state['turn']}: {len(state['log'])}, kept {state.get('kept')}"]}

    def again(state: State) -> str:
        return "begin" if state["turn"] < plan.turns else END

    def note(state: Notes) -> Any:
        ledger.begun()
        return {"notes": [f"note {len(state.get('notes', []))} {plan.text}"], "steps": 1}

    def more(state: Notes) -> Any:
        ledger.begun()
        deep = plan.deep and graph_of("deep", plan.deep == "kept", note).invoke({"turn": state["turn"]})
        return {"notes": [f"more, deep {deep and deep['steps']} {plan.text}"], "steps": 1}

    def confirm(state: Notes) -> Any:
        ledger.begun()
        heard = interrupt(f"nested {len(state.get('notes', []))}") if plan.nested_asks else "-"
        return {"notes": [f"confirmed {heard}"], "steps": 1}

    def graph_of(name: str, is_kept: bool, *nodes: Any) -> Any:
        inner, before = StateGraph(Notes), START
        for node in nodes:
            inner.add_node(node.__name__, node).add_edge(before, node.__name__)
            before = node.__name__
        return inner.compile(checkpointer=is_kept or None, name=name)

    builder = StateGraph(State)
    for node in (begin, work, end):
        builder.add_node(node.__name__, node)
    extra = []
    if plan.asks:
        builder.add_node("ask", ask)
        extra.append("ask")
    if plan.fresh:
        fresh = graph_of("fresh", False, note, more, confirm)

        def call_fresh(state: State) -> Any:
            ledger.begun()
            out = fresh.invoke({"turn": state["turn"]})
            return {"log": [f"fresh {out['steps']} {out['notes']}"]}

        builder.add_node("fresh", call_fresh)
        extra.append("fresh")
    if plan.kept:
        kept = graph_of("kept", True, note, more, confirm)

        def call_kept(state: State) -> Any:
            ledger.begun()
            out = kept.invoke({"turn": state["turn"]})
            return {"log": [f"kept {out['steps']} {len(out['notes'])}"], "kept": out["steps"]}

        builder.add_node("kept", call_kept)
        extra.append("kept")
    builder.add_edge(START, "begin")
    builder.add_conditional_edges("begin", fan, ["work", *extra])
    for name in ("work", *extra):
        builder.add_edge(name, "end")
    builder.add_conditional_edges("end", again, ["begin", END])
    return builder.compile(checkpointer=saver)


# ---- one process


def life(seed: int, directory: str, kill: Any = None, chosen: Any = None) -> Any:
    """One process: look, go on, die where `kill` says: ["point", n] of all boundaries, ["time", seconds], or a
    boundary's name and a number. Returns what it saw and how it ended."""
    plan = Plan(seed, **(chosen or {}))
    place = Path(directory)
    stored = Stored(place / "threads.sqlite", plan)
    ledger = Ledger(place / "ledger", stored)
    breaches = stored.breaches(ledger.lines)
    if breaches:
        return {"breaches": breaches}
    if kill and kill[0] == "time":
        # The default action of the signal ends the process; nothing of Python runs any more.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, kill[1])
    boundary, number = ("any" if kill[0] == "point" else kill[0], kill[1]) if kill and kill[0] != "time" else ("any", 0)
    fault = CrashAt(boundary, number) if number else Record(boundary)
    with SqliteSaver(place / "threads.sqlite", max_checkpoint_lag=plan.lag) as saver, inject(saver, fault):
        acknowledge(saver, ledger)
        end = play(build(plan, ledger, saver), plan)
        signal.setitimer(signal.ITIMER_REAL, 0)
        breaches = problems(saver)
    found = Stored(place / "threads.sqlite", plan)
    breaches += found.breaches(Ledger(place / "ledger", found).lines)
    return {"breaches": breaches, "end": end, "visits": fault.visits}


def acknowledge(saver: Any, ledger: Ledger) -> None:
    """Write down what the saver says is stored."""
    write, submit = saver.write, saver.submit

    def written(batch: Any, *, durability: Any) -> None:
        write(batch, durability=durability)
        for encoded in batch:
            for step in (*encoded.others, encoded):
                ledger.acknowledged(step)

    def submitted(encoded: Any) -> Any:
        ack = submit(encoded)
        if ack is None:
            ledger.acknowledged(encoded)
        return ack

    saver.write, saver.submit = written, submitted


def play(graph: Any, plan: Plan) -> Any:
    """Call after call, as a sensible user, until the thread is finished. Returns the answer and the history."""

    def call(given: Any, config: Any = CONFIG) -> None:
        with suppress(Flaky):
            if plan.is_async:
                asyncio.run(graph.ainvoke(given, config, durability=plan.durability))
            else:
                graph.invoke(given, config, durability=plan.durability)

    for _ in range(CALLS):
        state = graph.get_state(CONFIG)
        if not state.config["configurable"].get("checkpoint_id"):
            call({"log": ["in"]})
            continue
        if state.interrupts:
            call(Command(resume={question.id: f"<{question.value}>" for question in state.interrupts}))
            continue
        if state.next:
            call(None)
            continue
        history = list(graph.get_state_history(CONFIG))
        sources = {entry.metadata["source"] for entry in history}
        if plan.edits and "update" not in sources:
            graph.update_state(CONFIG, {"log": ["edited"]}, as_node="end")
        elif plan.forks and "fork" not in sources:
            first = [entry for entry in history if entry.next == ("begin",)][-1:]
            call(None, first[0].config if first else history[-1].config)
        else:
            told = [
                [entry.metadata["step"], entry.metadata["source"], list(entry.next), len(entry.values.get("log", []))]
                for entry in history
            ]
            # With exit, which calls have left a checkpoint depends on where processes died.
            return {"values": state.values, "history": told if plan.durability != "exit" else None}
    raise AssertionError(f"no end after {CALLS} calls")


class Stored:
    """What is in the file when a life begins, by SQL."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.plan = plan
        self.heads: dict[str, int] = {}
        self.revs: set[tuple[str, int]] = set()
        self.outputs: set[str] = set()
        self.questions: set[tuple[int, str]] = set()
        if not path.exists():
            return
        conn = sqlite3.connect(path)
        try:
            if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'task_writes'").fetchone():
                return
            self.heads = dict(
                conn.execute(
                    "SELECT s.ns, c.step FROM spaces s JOIN checkpoints c ON c.space_pk = s.space_pk "
                    "AND c.rev = s.head_rev"
                )
            )
            self.revs = set(conn.execute("SELECT s.ns, c.rev FROM spaces s JOIN checkpoints c USING (space_pk)"))
            tasks = conn.execute(
                "SELECT task_id FROM task_writes WHERE slot = 0 UNION "
                "SELECT task_id FROM checkpoints WHERE task_id IS NOT NULL"
            )
            self.outputs = {columns.id_text(id_) for (id_,) in tasks}
            asked = conn.execute("SELECT rev, task_id FROM task_writes WHERE slot = -3")
            self.questions = {(rev, columns.id_text(id_)) for rev, id_ in asked}
        finally:
            conn.close()

    def breaches(self, lines: Sequence[Any]) -> list[str]:
        """What the lives before lost: acknowledged rows, or more supersteps than the durability allows."""
        found = []
        lag = {"sync": 0, "async": self.plan.lag, "exit": sys.maxsize}[self.plan.durability]
        for kind, ns, *more in lines:
            number = more[0] if more else None
            if kind == "X":
                found.append(ns)
            elif kind == "A":
                if number is not None and (ns, number) not in self.revs:
                    found.append(f"checkpoint {number:x} of {ns!r} was acknowledged and is gone")
                lost = [task for task in more[1] if task not in self.outputs]
                found += [f"output of {task} was acknowledged and is gone" for task in lost]
            elif kind == "B" and not self.plan.forks and number - 1 - self.heads.get(ns, -2) > lag:
                found.append(f"step {number} of {ns!r} had begun, {self.heads.get(ns)} is stored, lag {lag}")
        return found


# ---- many of them


def killed_at_random(server: ForkServer, seed: int, directory: Path) -> list[str]:
    """Kill the processes of one thread at random moments until it is finished. Returns what went wrong."""
    chance = random.Random(seed + 1)
    kills: list[Any] = []
    for _ in range(chance.randint(1, LIVES)):
        by_count = chance.random() < 0.6
        kills.append(["point", chance.randint(1, 80)] if by_count else ["time", chance.uniform(0.001, 0.03)])
    return killed(server, directory / "killed", kills, undisturbed(server, directory / "quiet", seed), seed)


def undisturbed(server: ForkServer, place: Path, seed: int, **chosen: Any) -> Any:
    """How a life ends to which nothing happens."""
    place.mkdir()
    ended = server.call(LIFE, seed, str(place), None, chosen)
    assert ended.signal is None
    return ended.value


def killed(server: ForkServer, place: Path, kills: Sequence[Any], wanted: Any, seed: int, **chosen: Any) -> list[str]:
    """One life for each kill, and a last one without; its end must be the undisturbed one. Returns what went wrong."""
    place.mkdir(exist_ok=True)
    for kill in (*kills, None):
        got = server.call(LIFE, seed, str(place), kill, chosen)
        if got.signal is None:
            break
    if got.signal is not None:
        return [f"the last life was killed by signal {got.signal}"]
    breaches = list(got.value["breaches"])
    if not breaches and got.value["end"] != wanted["end"]:
        breaches.append(f"the end is {got.value['end']}, undisturbed it is {wanted['end']}")
    return breaches


def _play_seeds(seeds: Sequence[int]) -> dict[int, list[str]]:
    wrong = {}
    with ForkServer(PRELOAD) as server:
        for seed in seeds:
            with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
                found = killed_at_random(server, seed, Path(directory))
            if found:
                wrong[seed] = found
    return wrong


def play_seeds(first: int, count: int, jobs: int) -> dict[int, list[str]]:
    """Seed -> what went wrong, of those that did."""
    seeds = range(first, first + count)
    with multiprocessing.pool.ThreadPool(jobs) as pool:
        parts = pool.map(_play_seeds, [seeds[n::jobs] for n in range(jobs)])
    return {seed: found for part in parts for seed, found in part.items()}


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description="Kill processes at random moments; their threads end as if none was.")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    wrong = play_seeds(chosen.first, chosen.seeds, chosen.jobs)
    for seed, found in sorted(wrong.items()):
        sys.stdout.write(f"seed {seed}: {found}\n")
    sys.stdout.write(f"{chosen.seeds} seeds, {len(wrong)} wrong\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
