"""What storing may cost, counted in ways that no machine changes: bytes, rows, statements (storage.md C6).

Budgets of single headers and ops are in `test_chains.py`, those of one commit and one load in `test_sqlite.py`, those
of a superstep in `tests/test_budget.py`. Here: what many of them come to.
"""

import operator
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

from checkpoint import ids
from checkpoint.base import Append, StepCommit, TaskWrites
from checkpoint.chains import HEADER, seal
from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.graph import END, START, StateGraph
from tests.checkpoint.runs import ScriptedRun, Store, config

N_STEPS = 1_000
KEPT = pytest.mark.parametrize("keep", [False, True], ids=["no task rows", "task rows"])


class Chat(TypedDict, total=False):
    n: int
    messages: Annotated[list[Any], operator.add]


def message(n: int, n_bytes: int = 225) -> dict[str, Any]:
    """A message of so many bytes when encoded."""
    return {"role": "user", "content": f"{n:06}" + "x" * (n_bytes - 33), "n": n}


class Loop:
    """Commits of one node in a loop: a message is appended, a control channel fires, its writes are kept or not."""

    def __init__(self, saver: Any, *, keep: bool) -> None:
        self.saver = saver
        self.keep = keep
        self.claim = saver.load(config()).claim
        self.messages: list[Any] = []
        self.rev: int | None = None
        self.id: str | None = None

    def encode(self, n: int) -> Any:
        new = message(n)
        grown = [*self.messages, new]
        rev, checkpoint_id = self.claim.numbered(n)
        more: dict[str, Any] = {"values": {"branch:to:a": None, "messages": grown}, "source": "input"}
        if self.rev is not None and self.id is not None:
            name = f"f4ef0ca2-f4d5-4a13-9a05-{n:012}"
            task = TaskWrites(self.rev, self.id, name, "~a, b", 0, [("messages", [new]), ("branch:to:a", None)])
            more = {"values": {"branch:to:a": None}, "ops": {"messages": Append(grown, len(self.messages), [new])}}
            more["writes"] = [task] if self.keep else []
        commit = StepCommit(
            self.claim,
            "",
            "checkpoint",
            step=n,
            checkpoint_id=checkpoint_id,
            rev=rev,
            ts=ids.now_us(),
            parent_rev=self.rev,
            parent_id=self.id,
            version=n + 1,
            seen={"a": {"branch:to:a": n}},
            updated_channels=["branch:to:a", "messages"],
            **more,
        )
        self.messages, self.rev, self.id = grown, rev, checkpoint_id
        return self.saver.encode(commit)


def loop_graph(steps: int, saver: Any, n_bytes: int = 225) -> Any:
    def append(state: Chat) -> Chat:
        return {"n": state["n"] + 1, "messages": [message(state["n"], n_bytes)]}

    builder = StateGraph(Chat).add_node("a", append).add_edge(START, "a")
    builder.add_conditional_edges("a", lambda state: "a" if state["n"] < steps else END, ["a", END])
    return builder.compile(checkpointer=saver)


# ---- calls


@KEPT
def test_calls_of_a_commit(keep: bool) -> None:
    """From the rev of a superstep to its rows, of Python and of C."""
    saver = InMemorySaver()
    run = Loop(saver, keep=keep)
    for n in range(70):
        saver.write([run.encode(n)])
    calls: Counter[str] = Counter()

    def trace(frame: Any, event: str, arg: Any) -> None:
        calls[event] += event in ("call", "c_call")

    for n in range(70, 100):
        sys.setprofile(trace)
        try:
            encoded = run.encode(n)
            seal(encoded, saver._codec())
        finally:
            sys.setprofile(None)
        saver.write([encoded])
    assert calls["call"] <= 30 * (31 if keep else 26)
    assert calls["c_call"] <= 30 * (54 if keep else 48)


# ---- bytes


@KEPT
def test_encoded_bytes(keep: bool) -> None:
    saver = InMemorySaver()
    run = Loop(saver, keep=keep)
    delta = len(saver.serde.dumps([message(1)]))
    n_bytes = 0
    for n in range(N_STEPS):
        encoded = run.encode(n)
        saver.write([encoded])
        n_bytes += len(encoded.row[HEADER]) + encoded.size
    budget = 1.6 * delta + 30 + (1.1 * delta + 40 if keep else 0)
    assert n_bytes <= N_STEPS * budget


@KEPT
def test_bytes_of_the_file(tmp_path: Path, keep: bool) -> None:
    delta = len(InMemorySaver().serde.dumps([message(1)]))
    sizes = []
    for n_steps in (N_STEPS, 2 * N_STEPS):
        path = tmp_path / f"{n_steps}.sqlite"
        with SqliteSaver(path) as saver:
            run = Loop(saver, keep=keep)
            for n in range(n_steps):
                saver.write([run.encode(n)], durability="async")
        sizes.append(path.stat().st_size)
    # Between the two lies one full copy of the list, after 1,000 deltas.
    for n_steps, size in zip((N_STEPS, 2 * N_STEPS), sizes, strict=True):
        assert size <= n_steps * (2.7 * delta + 300 if keep else 1.6 * delta + 200)
    assert sizes[1] <= 1_800_000


@pytest.mark.parametrize("turns", [20, 200])
def test_a_conversation_costs_its_data_three_times_and_a_kilobyte_per_checkpoint(tmp_path: Path, turns: int) -> None:
    path = tmp_path / "threads.sqlite"
    SqliteSaver(path).close()
    empty = path.stat().st_size
    raw = 0
    for turn in range(turns):
        # Opened anew for every turn: nothing is remembered but what is stored.
        with SqliteSaver(path) as saver:
            said = message(turn, 1_000)
            result = loop_graph(1, saver, 1_000).invoke({"n": 0, "messages": [said]}, config(), durability="async")
            raw += 2 * len(saver.serde.dumps(said))
    with SqliteSaver(path) as saver:
        n_checkpoints = len(list(saver.list(config())))
        assert len(result["messages"]) == 2 * turns
        assert saver.load(config()).values["messages"] == result["messages"]
    assert n_checkpoints == 3 * turns
    assert path.stat().st_size - empty <= 3 * raw + 1_000 * n_checkpoints
    if turns == 200:
        assert path.stat().st_size <= 1_500_000


def test_a_value_that_nobody_writes_costs_nothing(tmp_path: Path) -> None:
    class Document(TypedDict, total=False):
        n: int
        document: str

    def run(steps: int) -> int:
        path = tmp_path / f"{steps}.sqlite"
        with SqliteSaver(path) as saver:
            builder = StateGraph(Document).add_node("a", lambda state: {"n": state["n"] + 1}).add_edge(START, "a")
            builder.add_conditional_edges("a", lambda state: "a" if state["n"] < steps else END, ["a", END])
            graph = builder.compile(checkpointer=saver)
            graph.invoke({"n": 0, "document": "d" * 1_000_000}, {**config(), "recursion_limit": steps + 5})
        return path.stat().st_size

    assert run(101) - run(1) <= 60_000


# ---- statements


class Statements:
    """Statements that a saver's connections run."""

    def __init__(self, saver: SqliteSaver) -> None:
        self.texts: list[str] = []
        saver.load(config())  # opens a reader
        connections = saver._connections
        assert connections is not None
        for connection in (connections.writer, *connections.readers):
            connection.set_trace_callback(self.texts.append)

    def take(self) -> list[str]:
        """Those since the last time, without the transactions around them."""
        texts = [text for text in self.texts if text.split()[0] not in ("BEGIN", "COMMIT")]
        self.texts.clear()
        return texts


def test_a_page_of_history_costs_four_statements(tmp_path: Path) -> None:
    with SqliteSaver(tmp_path / "threads.sqlite") as saver:
        graph = loop_graph(300, saver)
        limits = {**config(), "recursion_limit": 400}
        graph.invoke({"n": 0, "messages": []}, limits, durability="async")
        statements = Statements(saver)
        shown = list(graph.get_state_history(config(), limit=10))
        assert [len(snapshot.values["messages"]) for snapshot in shown] == list(range(300, 290, -1))
        assert [snapshot.tasks[0].result["n"] for snapshot in shown[1:]] == list(range(300, 291, -1))
        assert len(statements.take()) <= 4
        # All of them: pages of 50, and one that is empty or not full.
        assert len(list(saver.list(config()))) == 302
        assert len(statements.take()) <= 4 * 7


def test_a_page_of_values_that_share_nothing_costs_four_statements(tmp_path: Path) -> None:
    with SqliteSaver(tmp_path / "threads.sqlite") as saver:
        run = ScriptedRun(Store(saver, False), durability="async")
        for n in range(20):
            run.step({"a": f"{n}" * 200, "b": [f"{n}" * 100], "c": n})
        statements = Statements(saver)
        shown = list(saver.history(config(), limit=10))
        assert [loaded.values["c"] for loaded in shown] == list(range(19, 9, -1))
        assert [loaded.values["a"] for loaded in shown] == [f"{n}" * 200 for n in range(19, 9, -1)]
        assert len(statements.take()) <= 4


def test_a_page_reads_each_delta_once(tmp_path: Path) -> None:
    with SqliteSaver(tmp_path / "threads.sqlite") as saver:
        loop_graph(300, saver).invoke({"n": 0, "messages": []}, {**config(), "recursion_limit": 400})
        statements = Statements(saver)
        list(saver.history(config(), limit=10))
        (chains,) = [text for text in statements.take() if "payloads" in text]
        connections = saver._connections
        assert connections is not None
        assert len(connections.writer.execute(chains).fetchall()) <= 301


def test_values_that_are_written_and_equal_cost_no_row(tmp_path: Path) -> None:
    class State(TypedDict, total=False):
        n: int
        docs: list[Any]

    def write_again(state: State) -> State:
        return {"n": state["n"] + 1, "docs": [dict(doc) for doc in state["docs"]]}

    with SqliteSaver(tmp_path / "threads.sqlite") as saver:
        builder = StateGraph(State).add_node("a", write_again).add_edge(START, "a")
        builder.add_conditional_edges("a", lambda state: "a" if state["n"] < 10 else END, ["a", END])
        graph = builder.compile(checkpointer=saver)
        statements = Statements(saver)
        graph.invoke({"n": 0, "docs": [message(n) for n in range(10)]}, config(), durability="sync")
        written = statements.take()
        assert sum(text.startswith("INSERT INTO checkpoints") for text in written) == 12
        # The input, and the channel when it is written first; both in parts.
        rows = {tuple(text.partition("VALUES (")[2].split(",")[1:4]) for text in written if "INTO payloads" in text}
        assert len(rows) == 2


def test_nothing_to_store_costs_no_statement(tmp_path: Path) -> None:
    with SqliteSaver(tmp_path / "threads.sqlite") as saver:
        graph = loop_graph(3, saver)
        graph.invoke({"n": 0, "messages": []}, config())
        statements = Statements(saver)
        saver.write([], durability="sync")
        assert statements.texts == []
        # A run that has ended has nothing to do when it is resumed.
        assert len(graph.invoke(None, config())["messages"]) == 3
        assert [text for text in statements.take() if not text.startswith(("SELECT", "WITH"))] == []


def test_looking_for_a_run_costs_three_statements(tmp_path: Path) -> None:
    """However long the thread is: it is looked for by the index of runs; an older one is loaded then."""
    with SqliteSaver(tmp_path / "threads.sqlite") as saver:
        graph = loop_graph(2, saver)

        def selects(run_id: str | None, n: int) -> list[str]:
            statements.take()
            graph.invoke({"n": 0, "messages": [str(n)]}, config(), run_id=run_id)
            return [text for text in statements.take() if text.startswith(("SELECT", "WITH"))]

        graph.invoke({"n": 0, "messages": []}, config())
        statements = Statements(saver)
        plain = len(selects(None, 0))
        for n in range(20):
            new = selects(f"r{n}", n)
            assert len(new) <= plain + 3
            assert sum("run_id" in text.partition("WHERE")[2] for text in new) == 1
        assert len(selects("r19", 19)) <= plain + 3
        assert len(selects("r3", 3)) <= 2 * plain + 3
