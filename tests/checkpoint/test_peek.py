"""Looking at the newest checkpoints without their values: what is read, of which threads, at which cost."""

import sqlite3

import pytest

from checkpoint.base import CorruptCheckpointError
from checkpoint.peek import PAGE, Unread
from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.sqlite import SqliteSaver
from pregel.graph import START, StateGraph
from pregel.types import interrupt
from tests.checkpoint.ciphers import BindingCipher
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.checkpoint.test_budgets import Statements
from tests.checkpoint.test_encrypted import saver_of
from tests.support.scenarios import Log


def wanted(channel):
    return channel in ("a", "big")


def heads(saver):
    return [loaded for page in saver.heads(wanted) for loaded in page]


def filled(saver, thread_id, value):
    run = ScriptedRun(Store(saver, False), config(thread_id))
    run.step({"a": 0, "b": "b" * 500})
    run.step({"a": value, "big": [value] * 200})
    run.tasks(run.task("task-1", [("a", value)]), run.task("task-2", [("__interrupt__", value)], slot=-3))
    return run


@pytest.mark.parametrize("serde", [None, EncryptedSerializer(BindingCipher(b"key"))], ids=["plain", "encrypted"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_heads_are_what_a_load_gives_without_unwanted_values(kind, serde, tmp_path):
    with saver_of(kind, tmp_path / "threads.sqlite", serde) as saver:
        for number in range(3):
            filled(saver, f"t{number}", number)
        found = heads(saver)
        assert [loaded.claim.thread_id for loaded in found] == ["t0", "t1", "t2"]
        for number, loaded in enumerate(found):
            assert loaded.values == {"a": number, "b": Unread("b"), "big": [number] * 200}
            whole = saver.load(config(f"t{number}"))
            for name in ("checkpoint_id", "rev", "parent_id", "versions", "seen", "updated_channels", "facts", "sub"):
                assert getattr(loaded, name) == getattr(whole, name)
            assert [(w.task_id, w.slot, list(w.writes)) for w in loaded.writes] == [
                (w.task_id, w.slot, list(w.writes)) for w in whole.writes
            ]
        saver.delete_thread("t1")
        assert [loaded.claim.thread_id for loaded in heads(saver)] == ["t0", "t2"]


def test_a_page_of_threads_costs_three_statements(tmp_path):
    def ask(state):
        return {"l": [interrupt("?")]}

    n_threads = 2 * PAGE + 10
    with SqliteSaver(tmp_path / "threads.sqlite") as saver:
        graph = StateGraph(Log).add_node("n", ask).add_edge(START, "n").compile(checkpointer=saver)
        for number in range(n_threads):
            graph.invoke({"l": ["x" * 1000]}, config(str(number)), durability="exit")
        statements = Statements(saver)
        other = StateGraph(Log).add_node("m", ask).add_edge(START, "m").compile()
        assert [one.thread_id for one in other.check(saver)] == [str(number) for number in range(n_threads)]
        # Three pages, and one that is empty.
        assert len(statements.take()) <= 3 * 3 + 1


def test_damage_is_told_with_its_thread(tmp_path):
    path = tmp_path / "threads.sqlite"
    with SqliteSaver(path) as saver:
        filled(saver, "good", 1)
        filled(saver, "bad", 2)
    conn = sqlite3.connect(path)
    space = "SELECT s.space_pk FROM spaces s JOIN threads t USING (thread_pk) WHERE t.thread_id = 'bad'"
    for table in ("task_writes", "checkpoints"):
        assert conn.execute(f"UPDATE {table} SET crc = crc + 1 WHERE space_pk = ({space})").rowcount
        conn.commit()
        with SqliteSaver(path) as saver, pytest.raises(CorruptCheckpointError) as caught:
            heads(saver)
        assert caught.value.thread_id == "bad"
    conn.close()


def test_what_is_only_submitted_has_a_head(tmp_path):
    with SqliteSaver(tmp_path / "threads.sqlite", max_checkpoint_lag=16) as saver:
        for thread_id in ("t", "u"):
            run = ScriptedRun(Store(saver, False), config(thread_id), durability="submit")
            run.step({"a": 1})
            run.step({"a": 2})
        assert [(loaded.claim.thread_id, loaded.values) for loaded in heads(saver)] == [
            ("t", {"a": 2}),
            ("u", {"a": 2}),
        ]
