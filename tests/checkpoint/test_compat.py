"""Threads of LangGraph's SQLite files, brought into our savers, and continued there.

`peer_files/` holds what LangGraph itself stored. Files with contents that it would not store (hostile ones, other
layouts) are made here, in the same tables.
"""

from __future__ import annotations

import asyncio
import enum
import gzip
import importlib.util
import json
import operator
import pickle
import sqlite3
import subprocess
import sys
import textwrap
from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import ormsgpack
import pytest

from checkpoint import registry
from checkpoint.base import CheckpointError, UnknownTypeError
from checkpoint.compat import IncompleteImportError, aimport_langgraph, import_langgraph
from checkpoint.compat.names import task_id
from checkpoint.compat.xxh3 import xxh3_128
from checkpoint.memory import InMemorySaver
from checkpoint.serde.base import Opaque
from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.sqlite import SqliteSaver
from checkpoint.testing.faults import FailAt, inject, sqlite_error
from pregel.graph import START, StateGraph
from pregel.types import Command, Interrupt, Overwrite, Send, interrupt

FILES = Path(__file__).parent / "peer_files"


@pytest.fixture(params=["memory", "sqlite"])
def saver(request, tmp_path):
    with InMemorySaver() if request.param == "memory" else SqliteSaver(tmp_path / "ours.sqlite") as made:
        yield made


@pytest.fixture
def peer(tmp_path):
    def unpack(name):
        path = tmp_path / f"{name}.sqlite"
        path.write_bytes(gzip.decompress((FILES / f"{name}.sqlite.gz").read_bytes()))
        return path

    return unpack


@pytest.fixture
def shop(monkeypatch):
    """The program's own module, and a registry that does not know it afterwards."""
    spec = importlib.util.spec_from_file_location("shop", FILES / "shop.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "shop", module)
    monkeypatch.setattr(registry, "_by_name", dict(registry._by_name))
    spec.loader.exec_module(module)
    return module


def thread(thread_id, **more):
    return {"configurable": {"thread_id": thread_id, **more}}


def rows_of(path, statement, *values):
    conn = sqlite3.connect(path)
    try:
        return conn.execute(statement, values).fetchall()
    finally:
        conn.close()


# ---- files made here


def ext(code, *parts):
    return ormsgpack.Ext(code, ormsgpack.packb(list(parts)))


def checkpoint(number, values, **more):
    return {
        "v": 4,
        "ts": f"2024-01-01T00:00:{number:02}.000000+00:00",
        "id": id_of(number),
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, f"{number + 1:032}.0.5"),
        "versions_seen": {},
        "updated_channels": sorted(values),
        **more,
    }


def id_of(number):
    return f"1f1e4c74-{number:04x}-6013-8002-087cdf323b5b"


def make_file(path, *checkpoints, thread_id="t", writes=(), tag="msgpack"):
    """A line of checkpoints in LangGraph's tables; a checkpoint is a dict, or bytes to store as they are."""
    conn = sqlite3.connect(path)
    conn.executescript(
        "CREATE TABLE IF NOT EXISTS checkpoints (thread_id TEXT, checkpoint_ns TEXT DEFAULT '', checkpoint_id TEXT, "
        "parent_checkpoint_id TEXT, type TEXT, checkpoint BLOB, metadata BLOB);"
        "CREATE TABLE IF NOT EXISTS writes (thread_id TEXT, checkpoint_ns TEXT DEFAULT '', checkpoint_id TEXT, "
        "task_id TEXT, task_path TEXT DEFAULT '', idx INTEGER, channel TEXT, type TEXT, value BLOB);"
    )
    for number, stored in enumerate(checkpoints):
        body = stored if isinstance(stored, bytes) else ormsgpack.packb(stored)
        metadata = json.dumps({"source": "loop", "step": number, "parents": {}}).encode()
        parent = id_of(number - 1) if number else None
        conn.execute(
            "INSERT INTO checkpoints VALUES (?, '', ?, ?, ?, ?, ?)",
            (thread_id, id_of(number), parent, tag, body, metadata),
        )
    for number, task, path_text, channel, body in writes:
        conn.execute(
            "INSERT INTO writes VALUES (?, '', ?, ?, ?, 0, ?, 'msgpack', ?)",
            (thread_id, id_of(number), task, path_text, channel, body),
        )
    conn.commit()
    conn.close()
    return path


# ---- what is stored is what was stored


def test_every_checkpoint_is_what_the_file_holds(peer, saver):
    path = peer("chat")
    imported = import_langgraph(path, saver)
    assert (imported.threads, imported.skipped, imported.refused, imported.notes) == (["chat"], [], [], [])
    stored = {entry.config["configurable"]["checkpoint_id"]: entry for entry in saver.list(thread("chat"))}
    held = rows_of(
        path, "SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata FROM checkpoints"
    )
    assert imported.n_checkpoints == len(held) == len(stored) > 15
    for ns, checkpoint_id, parent_id, body, metadata in held:
        entry, plain = stored[checkpoint_id], ormsgpack.unpackb(body)
        assert entry.checkpoint == plain
        assert entry.metadata == json.loads(metadata)
        assert entry.config["configurable"]["checkpoint_ns"] == ns
        found = entry.parent_config["configurable"]["checkpoint_id"] if entry.parent_config else None
        assert found == parent_id
        addressed = saver.get_tuple(thread("chat", checkpoint_ns=ns, checkpoint_id=checkpoint_id))
        assert addressed.checkpoint == plain


def test_order_is_that_of_the_ids(peer, saver):
    path = peer("chat")
    import_langgraph(path, saver)
    listed = [entry.checkpoint["id"] for entry in saver.list(thread("chat"))]
    assert listed == sorted(listed, reverse=True)
    for (ns,) in rows_of(path, "SELECT DISTINCT checkpoint_ns FROM checkpoints"):
        newest = rows_of(path, "SELECT max(checkpoint_id) FROM checkpoints WHERE checkpoint_ns = ?", ns)[0][0]
        assert saver.get_tuple(thread("chat", checkpoint_ns=ns)).checkpoint["id"] == newest


def test_pending_writes_are_those_of_the_file(peer, saver):
    path = peer("paused")
    import_langgraph(path, saver)
    held = rows_of(path, "SELECT thread_id, checkpoint_ns, checkpoint_id, channel FROM writes")
    stored = [
        (entry.config["configurable"]["thread_id"], entry.checkpoint["id"], channel)
        for entry in saver.list(None)
        for _, channel, _ in entry.pending_writes
    ]
    # One resume value that its task has used is not brought.
    expected = sorted((t, id_, channel) for t, _, id_, channel in held)
    used = [row for row in expected if row not in stored or expected.count(row) != stored.count(row)]
    assert [(t, channel) for t, _, channel in used if t != "used"] == []
    assert len(stored) == len(held) - 1


def test_what_nodes_have_seen_may_lose_channels(tmp_path, saver):
    maps = [
        {"x": {"a": "1.0"}},
        {"x": {"a": "1.0", "c": "1.0"}, "y": {"a": "1.0"}},
        {"x": {"a": "2.0", "b": "1.0"}, "y": {"a": "1.0"}},
        {"x": {"b": "1.0"}, "y": {"c": "1.0"}},
        {"y": {}},
    ]
    held = [checkpoint(n, {"n": n}, versions_seen=seen) for n, seen in enumerate(maps)]
    import_langgraph(make_file(tmp_path / "peer.sqlite", *held), saver)
    assert [entry.checkpoint["versions_seen"] for entry in saver.list(thread("t"))] == maps[::-1]


def test_a_list_that_grew_is_stored_as_what_it_grew_by(tmp_path):
    words = [f"word number {n} of a conversation" for n in range(200)]
    path = make_file(tmp_path / "peer.sqlite", *(checkpoint(n, {"log": words[: n + 1]}) for n in range(60)))
    with SqliteSaver(tmp_path / "ours.sqlite") as saver:
        import_langgraph(path, saver)
        assert [len(entry.checkpoint["channel_values"]["log"]) for entry in saver.list(thread("t"))] == [
            *range(60, 0, -1)
        ]
    n_bytes = rows_of(tmp_path / "ours.sqlite", "SELECT sum(length(data)) FROM payloads")[0][0]
    assert n_bytes < 4 * len(ormsgpack.packb(words[:60]))


def test_what_is_stored_is_sound(peer, saver):
    for name in ("chat", "paused"):
        import_langgraph(peer(name), saver)
    assert saver.verify(deep=True) == []
    saver.copy_thread("chat", "copy")
    graph = chat_graph(saver)
    assert graph.get_state(thread("copy")).values == graph.get_state(thread("chat")).values


def test_into_an_encrypted_file(peer, tmp_path):
    pytest.importorskip("cryptography")
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 32)
    path = peer("chat")
    with SqliteSaver(tmp_path / "ours.sqlite", serde=serde) as saver:
        import_langgraph(path, saver)
        assert saver.verify(deep=True) == []
        assert chat_graph(saver).get_state(thread("chat")).values["messages"][0]["content"] == "hello"
    assert b"hello" not in (tmp_path / "ours.sqlite").read_bytes()


# ---- and goes on


class Chat(TypedDict):
    messages: Annotated[list[dict[str, Any]], operator.add]
    turns: int


def chat_graph(saver):
    def agent(state):
        last = state["messages"][-1]["content"]
        return {"messages": [{"role": "ai", "content": f"re: {last}"}], "turns": state.get("turns", 0) + 1}

    memory = StateGraph(Chat).add_node("note", lambda s: {"turns": s.get("turns", 0) + 10}).add_edge(START, "note")
    memory = memory.compile(checkpointer=True)
    builder = StateGraph(Chat)
    builder.add_node("agent", agent)
    builder.add_node("memory", lambda s: {"turns": memory.invoke({"messages": []})["turns"]})
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", lambda s: "agent" if s["turns"] % 2 else "memory", ["agent", "memory"])
    return builder.compile(checkpointer=saver)


def test_a_conversation_goes_on(peer, saver):
    import_langgraph(peer("chat"), saver)
    graph = chat_graph(saver)
    before = graph.get_state(thread("chat"))
    assert before.values["messages"][-1] == {"role": "user", "content": "edited"}
    assert before.metadata["source"] == "update"
    history = list(graph.get_state_history(thread("chat")))
    assert [snapshot.metadata["user"] for snapshot in history if snapshot.metadata["source"] == "input"][-1] == "ann"
    graph.invoke({"messages": [{"role": "user", "content": "and now"}]}, thread("chat"))
    after = graph.get_state(thread("chat"))
    assert after.values["messages"][: len(before.values["messages"])] == before.values["messages"]
    versions = saver.get_tuple(thread("chat")).checkpoint["channel_versions"]
    assert {type(version) for version in versions.values()} == {str}
    assert max(versions.values()) > max(saver.get_tuple(before.config).checkpoint["channel_versions"].values())
    assert len(list(graph.get_state_history(thread("chat")))) > len(history)


def test_a_nested_graph_with_a_state_of_its_own_goes_on(peer, saver):
    import_langgraph(peer("chat"), saver)
    ran = saver.get_tuple(thread("chat", checkpoint_ns="memory")).checkpoint["channel_values"]["turns"]
    graph = chat_graph(saver)
    graph.invoke({"messages": [{"role": "user", "content": "x"}], "turns": 1}, thread("chat"))
    assert graph.get_state(thread("chat")).values["turns"] == ran + 10


def test_old_checkpoints_can_be_run_from(peer, saver):
    import_langgraph(peer("chat"), saver)
    graph = chat_graph(saver)
    oldest = list(graph.get_state_history(thread("chat")))[-2]
    assert oldest.next == ("agent",)
    result = graph.invoke(None, oldest.config)
    assert [message["content"] for message in result["messages"]] == ["hello", "re: hello", "re: re: hello"]


class Log(TypedDict):
    log: Annotated[list[Any], operator.add]


def not_again(state):
    raise AssertionError("a task ran again that had finished")


def two_questions(state):
    return {"log": [interrupt("one"), interrupt("two")]}


def questions_graph(saver):
    builder = StateGraph(Log)
    builder.add_node("asks", two_questions)
    builder.add_node("other", lambda s: {"log": [interrupt({"what": "other"})]})
    builder.add_node("quick", not_again)
    for name in ("asks", "other", "quick"):
        builder.add_edge(START, name)
    return builder.compile(checkpointer=saver)


def test_open_questions_are_answered(peer, saver):
    import_langgraph(peer("paused"), saver)
    graph = questions_graph(saver)
    snapshot = graph.get_state(thread("questions"))
    assert snapshot.next == ("asks", "other")
    ids = {json.dumps(question.value): question.id for question in snapshot.interrupts}
    assert ids.keys() == {'"two"', '{"what": "other"}'}
    answers = {ids['"two"']: "second", ids['{"what": "other"}']: "third"}
    assert graph.invoke(Command(resume=answers), thread("questions")) == {"log": ["first", "second", "third", "quick"]}


def without_ids(path):
    """No paths, and ids that are no hash of anything known: what is left is that one task was due."""
    without_paths(path)
    conn = sqlite3.connect(path)
    conn.execute("UPDATE writes SET task_id = 'abcd' || substr(task_id, 5) WHERE task_id NOT LIKE '0000%'")
    conn.commit()
    conn.close()
    return path


@pytest.mark.parametrize("layout", [lambda path: path, lambda path: without_paths(path), without_ids])
def test_an_answer_that_was_used_does_not_answer_the_next_question(peer, saver, layout):
    imported = import_langgraph(layout(peer("paused")), saver, thread_ids=["used"])
    assert imported.notes == []
    graph = StateGraph(Log).add_node("asks", two_questions).add_edge(START, "asks").compile(checkpointer=saver)
    paused = graph.invoke(None, thread("used"))
    assert [question.value for question in paused["__interrupt__"]] == ["two"]
    assert graph.invoke(Command(resume="second"), thread("used")) == {"log": ["first", "second"]}


def nested_graph(saver, square=not_again):
    nested = StateGraph(Log).add_node("ask", lambda s: {"log": [interrupt(s["log"][-1])]}).add_edge(START, "ask")
    outer = StateGraph(Log).add_node("deep", nested.compile()).add_edge(START, "deep")
    builder = StateGraph(Log)
    builder.add_node("spread", not_again, destinations=("square", "outer"))
    builder.add_node("square", square)
    builder.add_node("outer", outer.compile())
    builder.add_edge(START, "spread")
    return builder.compile(checkpointer=saver)


def without_paths(path):
    """As releases of LangGraph's saver before 3.1.2 left it."""
    conn = sqlite3.connect(path)
    conn.execute("ALTER TABLE writes DROP COLUMN task_path")
    conn.close()
    return path


@pytest.mark.parametrize("layout", [lambda path: path, without_paths])
def test_sends_and_graphs_nested_two_deep_go_on(peer, saver, layout):
    imported = import_langgraph(layout(peer("paused")), saver)
    assert imported.notes == []
    graph = nested_graph(saver)
    snapshot = graph.get_state(thread("nested"), subgraphs=True)
    assert [(task.name, task.result) for task in snapshot.tasks] == [
        ("square", {"log": [4]}),
        ("square", {"log": [9]}),
        ("outer", None),
    ]
    deep = snapshot.tasks[2].state.tasks[0].state
    assert (deep.values, deep.next) == ({"log": ["?"]}, ("ask",))
    assert [question.value for question in snapshot.interrupts] == ["?"]
    assert deep.interrupts == snapshot.interrupts
    answered = graph.invoke(Command(resume={snapshot.interrupts[0].id: "!"}), thread("nested"))
    assert answered["log"][:2] == [4, 9]
    assert answered["log"][-1] == "!"


@pytest.mark.parametrize("layout", [lambda path: path, without_paths])
@pytest.mark.parametrize("n_answers", [0, 1, 2])
def test_nested_graphs_that_keep_state_or_run_twice_go_on(peer, saver, layout, n_answers):
    thread_id = str(n_answers)
    imported = import_langgraph(layout(peer("deep")), saver, thread_ids=[thread_id])
    assert imported.notes == []
    leaf = StateGraph(Log).add_node("ask", lambda s: {"log": [interrupt(len(s["log"]))]}).add_edge(START, "ask")
    plain = leaf.compile()

    def twice(state):
        return {"log": plain.invoke({"log": ["a"]})["log"] + plain.invoke({"log": ["b", "b"]})["log"]}

    builder = StateGraph(Log).add_node("keeps", leaf.compile(checkpointer=True)).add_node("twice", twice)
    graph = builder.add_edge(START, "keeps").add_edge("keeps", "twice").compile(checkpointer=saver)
    result = None
    for number in range(n_answers, 3):
        result = graph.invoke(Command(resume=f"answer {number}"), thread(thread_id))
    # As LangGraph itself ends.
    assert result == {"log": ["in", "in", "answer 0", "a", "answer 1", "b", "b", "answer 2"]}
    assert saver.verify(deep=True) == []


def test_what_cannot_be_told_apart_is_noted_and_runs_again(peer, saver):
    """Ids that are no hash of anything known, and no paths."""
    path = without_paths(peer("paused"))
    conn = sqlite3.connect(path)
    conn.execute("UPDATE writes SET task_id = replace(task_id, substr(task_id, 1, 4), 'abcd') WHERE channel = 'log'")
    conn.commit()
    conn.close()
    imported = import_langgraph(path, saver, thread_ids=["nested"])
    assert len(imported.notes) == 2
    graph = nested_graph(saver, lambda s: {"log": [s["log"][0] ** 2]})
    snapshot = graph.get_state(thread("nested"))
    assert [question.value for question in snapshot.interrupts] == ["?"]
    assert graph.invoke(Command(resume="!"), thread("nested"))["log"][:2] == [4, 9]


XXH3 = [
    (17, "263f67af63088041735fe434ded90c3c"),
    (32, "a86b514658f976a5407920045a9a834c"),
    (33, "a943d80ce26ed2928b59b4dfba3c9de4"),
    (64, "a7fa95f7f23b64a7edae5e0312655703"),
    (65, "c12aaf5f8a1782a45c95500a9909a96f"),
    (96, "dbfa0cd6e568ef54acb9f0967e182865"),
    (97, "bc31691d04ea6efefee64835dcb60271"),
    (128, "dd9e5aa9bd51cc9cc6bd21ecc865f29f"),
    (129, "00433635cf8d872e7f4accb76587485b"),
    (160, "2282232242346ee608d4baacce68f2d0"),
    (240, "89e3a0a2ee355d25d10beb4e0599e4b3"),
    (241, "75f4da43f23cce5a541b19226f0052e8"),
    (1024, "8bbb9f7af37f2f52dc5acf0b043c445b"),
    (1025, "20609de0583fad86e1d9cd946277ae26"),
    (2100, "33d0826de6e5fcc0b21bfac9b2686b00"),
]
"""Lengths around every change of the algorithm, with what the `xxhash` package gives."""


@pytest.mark.parametrize(("length", "expected"), XXH3)
def test_the_hash_in_task_ids(length, expected):
    assert xxh3_128(bytes(i * 7 % 256 for i in range(length))) == expected
    with pytest.raises(ValueError):
        xxh3_128(b"too short")


def test_joins_and_deferred_nodes_go_on(peer, saver):
    import_langgraph(peer("paused"), saver)
    builder = StateGraph(Log)
    for name in "ab":
        builder.add_node(name, not_again)
        builder.add_edge(START, name)
    builder.add_node("late", lambda s: {"log": ["late"]}, defer=True)
    builder.add_node("joined", lambda s: {"log": ["joined"]})
    builder.add_edge(["a", "b"], "late")
    builder.add_edge(["a", "b"], "joined")
    graph = builder.compile(checkpointer=saver)
    assert graph.get_state(thread("joins")).next == ("joined",)
    assert graph.invoke(None, thread("joins")) == {"log": ["a", "b", "joined", "late"]}


def test_a_failed_step_is_tried_again_without_its_finished_tasks(peer, saver):
    import_langgraph(peer("paused"), saver)
    builder = StateGraph(Log)
    builder.add_node("fails", lambda s: {"log": ["mended"]})
    builder.add_node("quick", not_again)
    builder.add_edge(START, "fails")
    builder.add_edge(START, "quick")
    graph = builder.compile(checkpointer=saver)
    failed = next(task for task in graph.get_state(thread("failed")).tasks if task.name == "fails")
    assert failed.error == repr(RuntimeError("no"))
    assert graph.invoke(None, thread("failed")) == {"log": ["mended", "quick"]}


def test_control_values_are_ours(peer, saver):
    import_langgraph(peer("paused"), saver)
    found = [
        item
        for entry in saver.list(None)
        for _, _, value in entry.pending_writes
        for item in (value if isinstance(value, list) else [value])
    ]
    assert {type(item) for item in found} >= {Overwrite, Send, Interrupt}
    assert Overwrite(["new"]) in found
    assert Send("outer", {"log": ["?"]}) in found


@pytest.mark.parametrize(
    ("what", "build"),
    [
        ("asks\x1f__pregel_pull", lambda b: b.add_edge(START, "asks")),
        ("asks\x1f__pregel_push\x1f0", lambda b: b.add_conditional_edges(START, lambda s: [Send("asks", s)])),
    ],
)
def test_task_ids_are_those_of_the_engine(what, build):
    builder = StateGraph(Log).add_node("asks", two_questions)
    build(builder)
    graph = builder.compile(checkpointer=InMemorySaver())
    graph.invoke({"log": []}, thread("1"))
    snapshot = graph.get_state(thread("1"))
    assert snapshot.tasks[0].id == task_id(snapshot.config["configurable"]["checkpoint_id"], "", what)


# ---- values


def test_standard_values(peer, saver):
    import_langgraph(peer("values"), saver, thread_ids=["standard"])
    assert saver.get_tuple(thread("standard")).checkpoint["channel_values"]["standard"] == {
        "set": {1, 2},
        "frozenset": frozenset({"a"}),
        "deque": deque([1, 2]),
        "datetime": datetime(2024, 5, 6, 7, 8, 9, 10, UTC),
        "date": date(2024, 5, 6),
        "time": time(7, 8, 9),
        "timedelta": timedelta(days=1, seconds=2),
        "zone": ZoneInfo("UTC"),
        "decimal": Decimal("1.50"),
        "uuid": UUID(int=5),
        "local": Path("c/d"),
        "address": IPv4Address("127.0.0.1"),
        "bytes": b"\x00\xff",
        "keys": {1: "int", None: "none"},
        "none": None,
        "text": "\u00e9\u4e16",
    }


def own_values(shop):
    return {
        "enum": shop.Color.BLUE,
        "named": shop.Point(1, 2),
        "dataclass": shop.Line("l", [shop.Point(0, 0), shop.Point(3, 0)]),
        "model": shop.Invoice(items=[shop.Item(sku="x", price=1.5)]),
    }


@pytest.mark.parametrize("how", ["listed", "named", "registered"])
def test_classes_of_the_program(peer, saver, shop, how):
    listed = [shop.Color, shop.Point, shop.Line, shop.Invoice]
    types: Any = listed
    if how == "named":
        types = {f"shop.{cls.__name__}": cls for cls in listed}
    elif how == "registered":
        types = ()
        for cls in listed:
            registry.register(cls)
    import_langgraph(peer("values"), saver, types=types)
    found = saver.get_tuple(thread("own")).checkpoint["channel_values"]["own"]
    assert found == own_values(shop)
    assert {name: type(value) for name, value in found.items()} == {n: type(v) for n, v in own_values(shop).items()}
    assert type(found["model"].items[0]) is shop.Item


def test_a_class_that_moved_and_a_function_in_place_of_one(peer, saver, shop):
    @dataclass
    class Moved:
        name: str
        ends: Any
        length: int

    @registry.register
    class Tint(enum.Enum):
        BLUE = "blue"

    types = {"shop:Line": Moved, "shop:Color": Tint, "shop:Point": tuple, "shop:Invoice": lambda p: p["total"]}
    types["shop:Point"] = lambda p: (p["x"], p["y"])
    import_langgraph(peer("values"), saver, types=types)
    assert saver.get_tuple(thread("own")).checkpoint["channel_values"]["own"] == {
        "enum": Tint.BLUE,
        "named": (1, 2),
        "dataclass": Moved("l", [(0, 0), (3, 0)], 3),
        "model": 1.5,
    }


def test_unknown_types_are_refused_with_their_place(peer, saver):
    with pytest.raises(IncompleteImportError) as caught:
        import_langgraph(peer("values"), saver)
    imported = caught.value.imported
    assert imported.threads == ["standard"]
    assert {unread.type for unread in imported.refused} == {"shop:Color", "shop:Point", "shop:Line", "shop:Invoice"}
    assert {unread.thread_id for unread in imported.refused} == {"own"}
    assert {unread.channel for unread in imported.refused} == {"own"}
    assert saver.get_tuple(thread("own")) is None


def test_nothing_is_stored_without_a_saver(peer):
    assert import_langgraph(peer("chat"), None).threads == ["chat"]
    with pytest.raises(IncompleteImportError) as caught:
        import_langgraph(peer("values"), None)
    assert caught.value.imported.unknown_types["shop:Color"] > 0


def test_opaque_values_can_be_read_once_their_class_is_known(peer, saver, shop):
    imported = import_langgraph(peer("values"), saver, unknown="opaque")
    assert imported.threads == ["own", "standard"]
    assert {unread.type for unread in imported.opaque} == {"shop:Color", "shop:Point", "shop:Line", "shop:Invoice"}
    held = next(saver.list(thread("own"))).checkpoint["channel_values"]["own"]
    assert (type(held["model"]), held["model"].type) == (Opaque, "shop:Invoice")
    for cls in (shop.Color, shop.Point, shop.Line):
        registry.register(cls)
    with pytest.raises(UnknownTypeError):
        saver.get_tuple(thread("own"))
    registry.register_codec(
        shop.Invoice, "shop:Invoice", shop.Invoice.model_dump, lambda p: shop.Invoice(items=p["items"])
    )
    assert saver.get_tuple(thread("own")).checkpoint["channel_values"]["own"] == own_values(shop)


def test_a_class_that_refuses_what_is_stored(peer, saver, shop):
    class Picky(enum.Enum):
        GREEN = "green"

    types = {"shop:Color": Picky, "shop:Point": shop.Point, "shop:Line": shop.Line, "shop:Invoice": shop.Invoice}
    with pytest.raises(IncompleteImportError) as caught:
        import_langgraph(peer("values"), saver, types=types)
    assert {unread.type for unread in caught.value.imported.refused} == {"shop:Color"}


def test_json_of_older_releases(tmp_path, saver):
    stored = checkpoint(
        0,
        {
            "n": 1,
            "when": {
                "lc": 2,
                "type": "constructor",
                "id": ["datetime", "datetime"],
                "method": "fromisoformat",
                "args": ["2024-05-06T07:08:09"],
            },
        },
    )
    stored["channel_values"]["s"] = {"lc": 2, "type": "constructor", "id": ["builtins", "set"], "args": [[1, 2]]}
    path = make_file(tmp_path / "peer.sqlite", json.dumps(stored).encode(), tag="json")
    import_langgraph(path, saver)
    values = saver.get_tuple(thread("t")).checkpoint["channel_values"]
    assert values == {"n": 1, "when": datetime(2024, 5, 6, 7, 8, 9), "s": {1, 2}}


def test_sends_that_were_kept_with_the_parent(tmp_path, saver):
    """Format numbers below 4: the sends of a checkpoint are writes of its parent's tasks."""
    send = ormsgpack.packb(ext(1, "langgraph.types", "Send", ["square", 3]))
    path = make_file(
        tmp_path / "peer.sqlite",
        checkpoint(0, {"log": []}, v=1),
        checkpoint(1, {"log": []}, v=1, pending_sends=[]),
        writes=[(0, "task", "~__pregel_pull, spread", "__pregel_tasks", send)],
    )
    import_langgraph(path, saver)
    found = saver.get_tuple(thread("t")).checkpoint
    assert found["channel_values"]["__pregel_tasks"] == [Send("square", 3)]
    builder = StateGraph(Log).add_node("square", lambda n: {"log": [n * n]})
    builder.add_node("spread", not_again, destinations=("square",)).add_edge(START, "spread")
    assert builder.compile(checkpointer=saver).invoke(None, thread("t")) == {"log": [9]}


def test_an_encrypted_file(tmp_path, saver):
    body = bytes(byte ^ 0x55 for byte in ormsgpack.packb(checkpoint(0, {"n": 1})))
    path = make_file(tmp_path / "peer.sqlite", body, tag="msgpack+mine")
    with pytest.raises(IncompleteImportError):
        import_langgraph(path, saver)
    given = []

    def decrypt(name, data):
        given.append(name)
        return bytes(byte ^ 0x55 for byte in data)

    assert import_langgraph(path, saver, decrypt=decrypt).threads == ["t"]
    assert set(given) == {"mine"}


# ---- data that means harm

DOOR = "checkpoint_compat_door"


def hostile_values(tmp_path):
    mark = str(tmp_path / "harm")
    return {
        "constructor": ext(0, "os", "mkdir", mark),
        "arguments": ext(1, "os", "mkdir", [mark]),
        "keywords": ext(2, "subprocess", "run", {"args": ["touch", mark]}),
        "method": ext(3, "pathlib", "Path", mark, "mkdir"),
        "model": ext(5, "pathlib", "Path", {"x": mark}, "touch"),
        "eval": ext(0, "builtins", "eval", f"open({mark!r}, 'w')"),
        "import": ext(0, DOOR, "anything", 1),
        "dunder": ext(0, "builtins", "__import__", DOOR),
        "code": ormsgpack.Ext(99, b"\xc0"),
        "snapshot": ormsgpack.Ext(7, ormsgpack.packb([1])),
        "shape": ext(0, {"a": 1}, None, None),
        "short": ext(0),
        "array": ext(6, "object", [1], "C", b"12345678"),
        "pattern": ext(1, "re", "compile", ["(" * 100_000, 0]),
        "zone": ext(0, "zoneinfo", "ZoneInfo", "../../../../etc/passwd"),
        "nan": ext(1, "datetime", "date", ["x"]),
        "send": ext(1, "langgraph.types", "Send", []),
        "question": ext(2, "langgraph.types", "Interrupt", [1]),
    }


@pytest.mark.parametrize("unknown", ["refuse", "opaque"])
@pytest.mark.parametrize("name", hostile_values(Path()))
def test_hostile_values_do_nothing(tmp_path, saver, name, unknown):
    value = hostile_values(tmp_path)[name]
    path = make_file(tmp_path / "peer.sqlite", checkpoint(0, {"good": 1, "bad": [value]}))
    make_file(path, checkpoint(0, {"good": 1}), thread_id="good")
    try:
        imported = import_langgraph(path, saver, unknown=unknown)
    except IncompleteImportError as error:
        imported = error.imported
    places = [*imported.refused, *imported.opaque]
    assert {(place.thread_id, place.channel) for place in places} == {("t", "bad")}
    assert "good" in imported.threads
    assert not (tmp_path / "harm").exists()


def test_hostile_files_do_nothing(tmp_path):
    """Nothing is imported, opened to write, started or evaluated: watched from inside the interpreter."""
    (tmp_path / f"{DOOR}.py").write_text("raise SystemExit('opened')")
    values = hostile_values(tmp_path)
    for name, value in values.items():
        make_file(tmp_path / "peer.sqlite", checkpoint(0, {"bad": value}), thread_id=name)

    class Harm:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'harm')!r}, 'w')",)

    make_file(tmp_path / "peer.sqlite", pickle.dumps(Harm()), thread_id="pickle", tag="pickle")
    program = textwrap.dedent(
        """
        import json, sys
        from checkpoint.compat import import_langgraph, IncompleteImportError
        from checkpoint.memory import InMemorySaver
        import checkpoint.serde.standard, re, zoneinfo, ipaddress, decimal, pathlib, importlib.resources, traceback
        try:
            import numpy.lib.format  # one of the fixed few modules that values of their types ask for
        except ImportError:
            pass
        path, unknown = sys.argv[1:]
        seen, watching = [], False
        FORBIDDEN = ("exec", "compile", "os.", "subprocess", "pickle", "shutil", "socket", "ctypes", "code")
        def hook(event, arguments):
            if watching and (event == "import" or event.startswith(FORBIDDEN)):
                seen.append((event, str(arguments[:1])))
            if watching and event == "open" and arguments[1] not in (None, "r", "rb"):
                seen.append((event, str(arguments)))
        sys.addaudithook(hook)
        saver = InMemorySaver()
        watching = True
        try:
            import_langgraph(path, saver, unknown=unknown)
        except IncompleteImportError as error:
            refused = error.imported
        watching = False
        print(json.dumps(seen))
        print(len({place.thread_id for place in (*refused.refused, *refused.opaque)}))
        """
    )
    for unknown in ("refuse", "opaque"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "peer.sqlite"), unknown],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={"PYTHONPATH": f"{Path(__file__).parents[2]}:{tmp_path}", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        seen, n_threads = done.stdout.splitlines()
        allowed = [event for event in json.loads(seen) if "numpy" not in event[1]]
        assert allowed == []
        assert int(n_threads) == len(values) + 1
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("depth", [60, 5_000])
def test_depth_is_bounded(tmp_path, saver, depth):
    value: Any = 1
    for _ in range(depth):
        value = ext(0, "builtins", "set", [value]) if depth < 100 else ormsgpack.Ext(0, ormsgpack.packb(value))
    path = make_file(tmp_path / "peer.sqlite", checkpoint(0, {"deep": value}))
    with pytest.raises(IncompleteImportError):
        import_langgraph(path, saver)


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\xc1",
        ormsgpack.packb(checkpoint(0, {"a": "x" * 50}))[:-20],
        ormsgpack.packb([1]),
        ormsgpack.packb({}),
        ormsgpack.packb({"channel_values": 1, "channel_versions": 2}),
        ormsgpack.packb(checkpoint(0, {"a": 1}, channel_versions={"a": [1]})),
        ormsgpack.packb(checkpoint(0, {"a": 1}, versions_seen=[1])),
        ormsgpack.packb(checkpoint(0, {"a": 1}, updated_channels=7)),
        ormsgpack.packb(checkpoint(0, {"a": 1}, ts=7)),
    ],
)
def test_damaged_checkpoints_are_refused(tmp_path, saver, stored):
    path = make_file(tmp_path / "peer.sqlite", stored)
    make_file(path, checkpoint(0, {"good": 1}), thread_id="good")
    with pytest.raises(IncompleteImportError) as caught:
        import_langgraph(path, saver)
    assert caught.value.imported.threads == ["good"]
    assert {unread.thread_id for unread in caught.value.imported.refused} == {"t"}
    assert saver.get_tuple(thread("t")) is None


@pytest.mark.parametrize("column", ["checkpoint_id", "parent_checkpoint_id", "checkpoint_ns", "metadata"])
def test_damaged_columns_are_refused(tmp_path, saver, column):
    path = make_file(tmp_path / "peer.sqlite", checkpoint(0, {"a": 1}), checkpoint(1, {"a": 2}))
    make_file(path, checkpoint(0, {"good": 1}), thread_id="good")
    conn = sqlite3.connect(path)
    conn.execute(f"UPDATE checkpoints SET {column} = x'ff00' WHERE thread_id = 't'")
    conn.commit()
    conn.close()
    with pytest.raises(IncompleteImportError) as caught:
        import_langgraph(path, saver)
    assert caught.value.imported.threads == ["good"]
    assert {unread.thread_id for unread in caught.value.imported.refused} == {"t"}


def test_a_thread_that_names_a_parent_that_is_gone(tmp_path, saver):
    path = make_file(tmp_path / "peer.sqlite", checkpoint(0, {"a": 1}), checkpoint(1, {"a": 2}))
    conn = sqlite3.connect(path)
    conn.execute("DELETE FROM checkpoints WHERE checkpoint_id = ?", (id_of(0),))
    conn.commit()
    conn.close()
    import_langgraph(path, saver)
    (entry,) = saver.list(thread("t"))
    assert entry.checkpoint["channel_values"] == {"a": 2}
    assert entry.parent_config["configurable"]["checkpoint_id"] == id_of(0)
    assert saver.verify(deep=True) == []


def test_channels_that_store_writes_are_refused(tmp_path, saver):
    path = make_file(tmp_path / "peer.sqlite", checkpoint(0, {"a": 1}))
    conn = sqlite3.connect(path)
    conn.execute("UPDATE checkpoints SET metadata = ?", (json.dumps({"counters_since_delta_snapshot": {"a": [1, 1]}}),))
    conn.commit()
    conn.close()
    with pytest.raises(IncompleteImportError) as caught:
        import_langgraph(path, saver)
    assert [unread.type for unread in caught.value.imported.refused] == ["langgraph:DeltaChannel"]


# ---- whole threads, again and again


def test_importing_again_changes_nothing(peer, saver):
    path = peer("chat")
    import_langgraph(path, saver)
    graph = chat_graph(saver)
    graph.invoke({"messages": [{"role": "user", "content": "new"}]}, thread("chat"))
    state = graph.get_state(thread("chat"))
    imported = import_langgraph(path, saver)
    assert (imported.threads, imported.skipped, imported.n_checkpoints) == ([], ["chat"], 0)
    assert graph.get_state(thread("chat")) == state


def test_a_thread_that_went_on_over_there_is_left_alone(peer, saver):
    path = peer("chat")
    conn = sqlite3.connect(path)
    held = conn.execute("SELECT * FROM checkpoints ORDER BY checkpoint_id").fetchall()
    conn.execute("DELETE FROM checkpoints WHERE checkpoint_id = ?", (held[-1][2],))
    conn.commit()
    import_langgraph(path, saver)
    before = [entry.checkpoint["id"] for entry in saver.list(thread("chat"))]
    conn.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)", held[-1])
    conn.commit()
    conn.close()
    with pytest.raises(IncompleteImportError):
        import_langgraph(path, saver)
    assert [entry.checkpoint["id"] for entry in saver.list(thread("chat"))] == before


def test_a_thread_of_the_same_id_is_left_alone(peer, saver):
    graph = chat_graph(saver)
    graph.invoke({"messages": [{"role": "user", "content": "mine"}]}, thread("chat"))
    before = graph.get_state(thread("chat"))
    with pytest.raises(IncompleteImportError) as caught:
        import_langgraph(peer("chat"), saver)
    assert [unread.thread_id for unread in caught.value.imported.refused] == ["chat"]
    assert graph.get_state(thread("chat")) == before


def test_a_thread_is_stored_whole_or_not_at_all(peer, tmp_path):
    path = peer("chat")
    conn = sqlite3.connect(path)
    newest = conn.execute("SELECT max(checkpoint_id) FROM checkpoints").fetchone()[0]
    conn.execute("UPDATE checkpoints SET checkpoint = x'c1' WHERE checkpoint_id = ?", (newest,))
    conn.commit()
    conn.close()
    with SqliteSaver(tmp_path / "ours.sqlite") as saver:
        with pytest.raises(IncompleteImportError) as caught:
            import_langgraph(path, saver)
        assert [unread.checkpoint_id for unread in caught.value.imported.refused][-1] == newest
        assert list(saver.list(None)) == []


@pytest.mark.parametrize("at", [1, 5, 20])
def test_a_disk_that_is_full_leaves_nothing(peer, tmp_path, at):
    path = peer("chat")
    with SqliteSaver(tmp_path / "ours.sqlite") as saver:
        with (
            inject(saver, FailAt("b4", at, error=sqlite_error("SQLITE_FULL"))),
            pytest.raises(sqlite3.OperationalError),
        ):
            import_langgraph(path, saver)
        assert list(saver.list(None)) == []
        assert import_langgraph(path, saver).threads == ["chat"]


def test_some_threads_and_progress(peer, saver):
    heard = []
    imported = import_langgraph(
        peer("paused"), saver, thread_ids=["joins", "failed"], progress=lambda *what: heard.append(what)
    )
    assert sorted(imported.threads) == ["failed", "joins"]
    assert heard == [("joins", 1, 2), ("failed", 2, 2)]
    with pytest.raises(CheckpointError):
        import_langgraph(peer("paused"), saver, thread_ids=["unheard of"])


def test_from_async_code(peer, saver):
    async def main():
        heard = []
        imported = await aimport_langgraph(peer("chat"), saver, progress=lambda *what: heard.append(what))
        assert (imported.threads, heard) == (["chat"], [("chat", 1, 1)])
        with pytest.raises(IncompleteImportError):
            await aimport_langgraph(peer("values"), saver)
        assert await saver.aget_tuple(thread("chat")) is not None

    asyncio.run(main())


def test_the_file_is_not_written(peer, saver):
    path = peer("paused")
    before = path.read_bytes()
    import_langgraph(path, saver)
    assert path.read_bytes() == before
    assert {entry.name for entry in path.parent.iterdir() if entry.name.startswith("paused")} == {path.name}


def test_a_file_that_is_still_written(peer, saver):
    path = peer("chat")
    conn = sqlite3.connect(path)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("UPDATE checkpoints SET thread_id = 'other'")
    conn.commit()
    conn.execute("BEGIN IMMEDIATE")
    conn.execute("DELETE FROM checkpoints")
    assert import_langgraph(path, saver).threads == ["other"]
    conn.rollback()
    conn.close()


def test_files_that_are_none(tmp_path, saver):
    with pytest.raises(CheckpointError):
        import_langgraph(tmp_path / "absent.sqlite", saver)
    assert not (tmp_path / "absent.sqlite").exists()
    (tmp_path / "text.sqlite").write_text("no database" * 100)
    with pytest.raises(CheckpointError):
        import_langgraph(tmp_path / "text.sqlite", saver)
    with SqliteSaver(tmp_path / "own.sqlite") as ours:
        ours.get_tuple(thread("1"))
    with pytest.raises(CheckpointError):
        import_langgraph(tmp_path / "own.sqlite", saver)


def test_wrong_arguments(peer, saver):
    path = peer("chat")
    with pytest.raises(TypeError):
        import_langgraph(path, object())
    with pytest.raises(TypeError):
        import_langgraph(path, saver, types=["shop:Color"])
    with pytest.raises(ValueError):
        import_langgraph(path, saver, unknown="ignore")
