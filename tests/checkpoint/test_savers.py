"""Facts that hold for every saver of the package, in both APIs."""

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from checkpoint import deltas, headers, ids
from checkpoint.base import (
    CheckpointConflictError,
    CheckpointNotFoundError,
    StepCommit,
    ThreadDeletedError,
    UnregisteredTypeError,
)
from checkpoint.memory import InMemorySaver
from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.sqlite import SqliteSaver
from checkpoint.sqlite.aio import AsyncSqliteSaver
from tests.checkpoint.ciphers import BindingCipher, PlainCipher
from tests.checkpoint.runs import GONE, ScriptedRun, Store, config

KINDS = [
    "memory",
    "memory-encrypted",
    "sqlite",
    "sqlite-memory",
    "sqlite-grouping",
    "sqlite-encrypted",
    "aio",
    "aio-memory",
]


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return request.param == "async"


@contextlib.contextmanager
def opened(kind: str, path: Path) -> Iterator[Any]:
    if kind == "memory":
        yield InMemorySaver()
        return
    if kind == "memory-encrypted":
        yield InMemorySaver(serde=EncryptedSerializer(BindingCipher(b"key")))
        return
    if kind == "sqlite":
        saver: Any = SqliteSaver(path)
    elif kind == "sqlite-encrypted":
        saver = SqliteSaver(path, serde=EncryptedSerializer(PlainCipher()))
    elif kind == "sqlite-grouping":
        saver = SqliteSaver(path, max_checkpoint_lag=16)
    elif kind == "sqlite-memory":
        saver = SqliteSaver.from_conn_string(":memory:")
    else:
        saver = AsyncSqliteSaver(aiosqlite.connect(":memory:" if kind == "aio-memory" else path))
    with saver:
        yield saver
    if kind.startswith("aio"):
        with contextlib.suppress(ValueError):
            saver.conn.stop()


FILTERING = {"test_missing_things", "test_list", "test_filters"}


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, is_async: bool, tmp_path: Path) -> Iterator[Store]:
    if request.param.endswith("encrypted") and request.function.__name__ in FILTERING:
        pytest.skip("metadata that is encrypted cannot be searched; test_encrypted.py has the refusal")
    with opened(request.param, tmp_path / "threads.sqlite") as saver:
        yield Store(saver, is_async)


@pytest.fixture(params=["memory", "sqlite", "sqlite-grouping"])
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """One store of each kind, for what does not depend on the colour."""
    with opened(request.param, tmp_path / "threads.sqlite") as saver:
        yield Store(saver, False)


def checkpoint(values: dict[str, Any], versions: dict[str, Any] | None = None, **more: Any) -> Any:
    return {
        "v": 1,
        "id": ids.checkpoint_id(0),
        "ts": "2026-01-02T03:04:05.000006+00:00",
        "channel_values": values,
        "channel_versions": versions if versions is not None else dict.fromkeys(values, 1),
        "versions_seen": {"n": {"a": 1}},
        "updated_channels": None,
        **more,
    }


def put(store: Store, where: Any, given: Any, metadata: Any = None) -> Any:
    return store.put(where, given, metadata or {"source": "loop", "step": 1}, given["channel_versions"])


# ---- the public interface


def test_put_then_get(store: Store) -> None:
    given = checkpoint({"a": "x" * 100, "b": [1, {"c": None}], "n": 3, "raw": b"\x00\xff", "none": None})
    where = put(store, config("t", ""), given, {"source": "input", "step": -1, "who": {"x": [1]}, "parents": {}})
    assert where == config("t", "", given["id"])
    for asked in (config(), where):
        found = store.get_tuple(asked)
        assert found.checkpoint == given
        assert found.metadata == {"source": "input", "step": -1, "who": {"x": [1]}, "parents": {}}
        assert found.parent_config is None
        assert found.pending_writes == []
    assert store.get_tuple(where).config is where
    assert store.get_tuple(config()).config == where


def test_missing_things(store: Store) -> None:
    assert store.get_tuple(config("nobody")) is None
    assert store.list(config("nobody"), filter={"a": 1}) == []
    put(store, config("t", ""), checkpoint({}))
    assert store.get_tuple(config("t", "", ids.checkpoint_id(0))) is None
    assert store.get_tuple(config("t", "", "no uuid")) is None
    assert store.get_tuple(config("t", "other")) is None
    with pytest.raises(ValueError, match="thread_id"):
        store.get_tuple({"configurable": {}})
    store.delete_thread("nobody")


def test_thread_ids_are_text(store: Store) -> None:
    where = put(store, config(7, ""), checkpoint({"a": 1}))
    assert where["configurable"]["thread_id"] == "7"
    assert store.get_tuple(config("7")).checkpoint == store.get_tuple(config(7)).checkpoint


def test_parents_and_newest(store: Store) -> None:
    first = put(store, config("t", ""), checkpoint({"a": 1}))
    second = put(store, first, checkpoint({"a": 2}))
    assert store.get_tuple(second).parent_config == first
    assert store.get_tuple(config()).checkpoint["channel_values"] == {"a": 2}
    unknown = config("t", "", "some other id")
    third = put(store, unknown, checkpoint({"a": 3}))
    assert store.get_tuple(third).parent_config == unknown


def test_incremental_put_shares_by_version(store: Store) -> None:
    first = put(store, config("t", ""), checkpoint({"a": "x" * 100, "b": [1] * 100}, {"a": 1, "b": 1}))
    given = checkpoint({"a": "x" * 100, "b": [2] * 100}, {"a": 1, "b": 2})
    second = store.put(first, given, {}, {"b": 2})
    assert store.get_tuple(second).checkpoint["channel_values"] == {"a": "x" * 100, "b": [2] * 100}
    assert store.get_tuple(first).checkpoint["channel_values"] == {"a": "x" * 100, "b": [1] * 100}
    # Stored although it is not in new_versions: nobody holds it under this version.
    third = store.put(second, checkpoint({"a": "y" * 100}, {"a": 2}), {}, {})
    assert store.get_tuple(third).checkpoint["channel_values"] == {"a": "y" * 100}
    # Two branches under one version stay apart.
    left = store.put(first, checkpoint({"a": "l" * 100}, {"a": 2}), {}, {"a": 2})
    right = store.put(first, checkpoint({"a": "r" * 100}, {"a": 2}), {}, {"a": 2})
    after_left = store.put(left, checkpoint({"a": "l" * 100}, {"a": 2}), {}, {})
    assert store.get_tuple(after_left).checkpoint["channel_values"] == {"a": "l" * 100}
    assert store.get_tuple(right).checkpoint["channel_values"] == {"a": "r" * 100}


def test_put_again_replaces_and_keeps_the_parent(store: Store) -> None:
    first = put(store, config("t", ""), checkpoint({"a": "x" * 100}))
    given = checkpoint({"a": "y" * 100, "b": 1}, {"a": 2, "b": 2})
    second = put(store, first, given)
    third = store.put(second, checkpoint({"a": "y" * 100, "b": 1}, {"a": 2, "b": 2}), {}, {})
    given["channel_values"] = {"a": "z" * 100}
    put(store, config("t", "", "else"), given, {"source": "update", "step": 9})
    found = store.get_tuple(second)
    assert found.checkpoint["channel_values"] == {"a": "z" * 100}
    assert found.parent_config == first
    assert found.metadata == {"source": "update", "step": 9}
    assert store.get_tuple(third).checkpoint["channel_values"] == {"a": "y" * 100, "b": 1}
    assert store.get_tuple(config()).config == third
    assert len(store.list(config())) == 3


def test_put_again_under_commits_that_build_on_it(store: Store) -> None:
    run = ScriptedRun(store)
    stored = [run.step({"a": "x" * n * 100, "b": n}) for n in range(1, 6)]
    given = store.get_tuple(stored[1].config).checkpoint
    given["channel_values"]["a"] = "new" * 100
    store.put(stored[0].config, given, {}, {"a": 2})
    assert store.get_tuple(stored[1].config).checkpoint["channel_values"] == {"a": "new" * 100, "b": 2}
    for other in (*stored[:1], *stored[2:]):
        other.check(store)
    with pytest.raises(CheckpointConflictError):
        run.step({"b": 7})
    again = ScriptedRun(store)
    again.step({"b": 8}).check(store)


def test_metadata_is_merged_and_checked(store: Store) -> None:
    where = config("t", "")
    where["configurable"].update(user="u", __secret=1)
    where["metadata"] = {"run_id": "r", "n": 1}
    put(store, where, checkpoint({}), {"source": "loop", "step": 2, "n": 5, "none": None})
    assert store.get_tuple(config()).metadata == {
        "source": "loop",
        "step": 2,
        "n": 5,
        "none": None,
        "run_id": "r",
        "user": "u",
    }
    put(store, config("v", ""), checkpoint({}), {"text": "\ud800 \u4e2d"})
    assert store.get_tuple(config("v")).metadata == {"text": "\ud800 \u4e2d"}
    with pytest.raises(TypeError, match="metadata"):
        put(store, config("u", ""), checkpoint({}), {"x": object()})
    assert store.get_tuple(config("u")) is None


def test_task_writes(store: Store) -> None:
    where = put(store, config("t", ""), checkpoint({}))
    store.put_writes(where, [("a", 1), ("b", {"x": b"1"})], "task-b", "p1")
    store.put_writes(where, [("a", 2)], "task-a", "p2")
    store.put_writes(where, [("a", "other"), ("a", "more")], "task-b", "p1")
    store.put_writes(where, [("c", 3), ("__error__", ValueError("x")), ("__interrupt__", ("q",))], "task-c")
    store.put_writes(where, [("d", 4), ("__error__", ValueError("y"))], "task-c")
    assert store.get_tuple(where).pending_writes == [
        ("task-c", "__interrupt__", ("q",)),
        ("task-c", "__error__", "ValueError('y')"),
        ("task-c", "c", 3),
        ("task-b", "a", 1),
        ("task-b", "b", {"x": b"1"}),
        ("task-a", "a", 2),
    ]
    store.put_writes(where, [("a", "replaced")], "task-b", "p1", replace=True)
    assert ("task-b", "a", "replaced") in store.get_tuple(where).pending_writes
    nxt = put(store, where, checkpoint({}))
    assert store.get_tuple(nxt).pending_writes == []
    with pytest.raises(CheckpointNotFoundError):
        store.put_writes(config("t", "", ids.checkpoint_id(1)), [("a", 1)], "x")
    with pytest.raises(CheckpointNotFoundError):
        store.put_writes(config("t", "ns", where["configurable"]["checkpoint_id"]), [("a", 1)], "x")


def test_large_task_writes_do_not_mix(store: Store) -> None:
    where = put(store, config("t", ""), checkpoint({}))
    for text in ("a" * 5000, "b" * 9000, "c" * 20):
        store.put_writes(where, [("x", text)], "task")
        store.put_writes(where, [("__resume__", text)], "task")
    assert store.get_tuple(where).pending_writes == [("task", "__resume__", "c" * 20), ("task", "x", "a" * 5000)]
    store.put_writes(where, [("x", "d" * 900)], "task", replace=True)
    assert store.get_tuple(where).pending_writes[1] == ("task", "x", "d" * 900)


def test_list(store: Store) -> None:
    made = [put(store, config("t", ""), checkpoint({"n": n}), {"source": "loop", "step": n}) for n in range(7)]
    child = put(store, config("t", "child:1"), checkpoint({"n": "child"}), {"source": "input", "step": 0})
    other = put(store, config("u", ""), checkpoint({"n": "other"}))
    store.put_writes(made[3], [("n", 9)], "task")

    def configs(*args: Any, **kwargs: Any) -> list[Any]:
        return [entry.config for entry in store.list(*args, **kwargs)]

    newest_first = made[::-1]
    assert configs(config("t", "")) == newest_first
    assert configs(config("t")) == [child, *newest_first]
    assert configs(config("t", "child:1")) == [child]
    assert configs(None) == [other, child, *newest_first]
    assert configs(made[2]) == [made[2]]
    assert configs(config("t", ""), before=made[4]) == newest_first[3:]
    assert configs(config("t", ""), before=made[4], limit=1) == [made[3]]
    assert configs(config("t", ""), limit=2) == newest_first[:2]
    assert configs(config("t", ""), limit=0) == []
    assert configs(config("t", ""), before=other) == newest_first
    assert configs(None, before=made[2], limit=2) == [made[1], made[0]]
    assert configs(config("t", ""), filter={"step": 3}) == [made[3]]
    assert store.list(config("t", ""), filter={"step": 3})[0].pending_writes == [("task", "n", 9)]
    assert configs(config("t", ""), filter={"step": 3, "source": "input"}) == []
    for limit in (-1, 1.5, "1", True):
        with pytest.raises(ValueError, match="limit"):
            store.list(config("t", ""), limit=limit)


def test_filters(store: Store) -> None:
    hostile = "x') OR 1=1 --"
    put(store, config("t", ""), checkpoint({}), {"a.b": 7, "a": {"b": 5}, "on": True, hostile: 1, "l": [1, 2]})

    def found(**filter: Any) -> bool:
        return bool(store.list(config("t", ""), filter=filter))

    assert found(**{"a.b": 7})
    assert not found(**{"a.b": 5})
    assert found(a={"b": 5})
    assert not found(a={"b": 5, "c": None})
    assert found(on=True)
    assert not found(on=1)
    assert found(missing=None)
    assert not found(a=None)
    assert found(**{hostile: 1})
    assert not found(**{hostile: 2})
    assert found(l=[1, 2])
    assert not found(l=[2, 1])
    put(store, config("d", ""), checkpoint({}), {"user": {"level": 3}})
    assert store.list(config("d", ""), filter={"user.level": 3})


def test_reading_while_listing(store: Store) -> None:
    for n in range(120):
        put(store, config("t", ""), checkpoint({"n": n}))
    if store.is_async:
        return
    seen = []
    for entry in store.saver.list(config("t", "")):
        if len(seen) == 10:
            put(store, config("t", ""), checkpoint({"n": "new"}))
        assert store.get_tuple(entry.config).checkpoint == entry.checkpoint
        seen.append(entry.checkpoint["channel_values"]["n"])
    assert seen == list(range(119, -1, -1))


def test_returned_values_are_private(store: Store) -> None:
    value = {"l": [1]}
    where = put(store, config("t", ""), checkpoint({"v": value}))
    value["l"].append(2)
    first = store.get_tuple(where)
    first.checkpoint["channel_values"]["v"]["l"].append(3)
    first.checkpoint["channel_versions"]["v"] = 99
    again = store.get_tuple(where).checkpoint
    assert again["channel_values"] == {"v": {"l": [1]}}
    assert again["channel_versions"] == {"v": 1}


def test_delete_thread(store: Store) -> None:
    for thread in ("t", "u"):
        where = put(store, config(thread, ""), checkpoint({"a": "x" * 100}))
        store.put_writes(where, [("a", 1)], "task")
        put(store, config(thread, "child"), checkpoint({}))
    store.delete_thread("t")
    assert store.get_tuple(config("t")) is None
    assert store.list(config("t")) == []
    assert len(store.list(config("u"))) == 2


def test_copy_thread(store: Store) -> None:
    run = ScriptedRun(store)
    stored = [run.step({"l": ["x" * 100] * n}) for n in range(1, 4)]
    run.tasks(run.task("task", [("a", 1)]))
    put(store, config("t", "child"), checkpoint({"c": 1}))
    store.copy_thread("t", "copy")
    store.copy_thread("nobody", "nothing")
    assert store.get_tuple(config("nothing")) is None
    assert [e.checkpoint for e in store.list(config("copy"))] == [e.checkpoint for e in store.list(config("t"))]
    found = store.get_tuple(config("copy", "", stored[-1].id))
    assert found.pending_writes == [("task", "a", 1)]
    assert found.parent_config == config("copy", "", stored[-2].id)
    for thread in ("t", "copy"):
        go_on = ScriptedRun(store, config(thread))
        go_on.step({"l": [*go_on.values["l"], thread]}).check(store)
    with pytest.raises(CheckpointConflictError):
        store.copy_thread("t", "copy")


# ---- the native interface


def test_a_run(store: Store) -> None:
    run = ScriptedRun(store)
    assert (run.loaded.checkpoint_id, run.claim.claimed, run.claim.number) == (None, False, 1)
    messages: list[Any] = []
    for n in range(30):
        messages = [*messages, {"n": n, "text": "x" * 200}]
        seen = {"a": {"l": n + 1}}
        run.step({"l": messages, "t": "y" * n * 10, "n": n, "g": GONE if n % 3 == 0 else "z" * 80}, seen=seen)
        assert run.claim.claimed
    for stored in run.stored:
        stored.check(store)
    loaded = store.load(config())
    last = run.stored[-1]
    assert (loaded.checkpoint_id, loaded.rev, loaded.parent_id) == (last.id, last.rev, last.parent_id)
    assert (loaded.values, loaded.versions, loaded.seen) == (last.values, last.versions, last.seen)
    assert (loaded.step, loaded.source, loaded.is_head, loaded.claim.number) == (28, "loop", True, 2)
    assert loaded.metadata == {"source": "loop", "step": 28, "parents": {}}
    assert store.load(config("t", "", run.stored[3].id)).is_head is False
    history = store.history(config())
    assert [entry.rev for entry in history] == [stored.rev for stored in reversed(run.stored)]
    assert [entry.values for entry in history] == [stored.values for stored in reversed(run.stored)]
    assert [entry.is_head for entry in history] == [True] + [False] * 29
    assert [e.rev for e in store.history(config(), before=run.stored[5].config, limit=2)] == [
        run.stored[4].rev,
        run.stored[3].rev,
    ]


def test_task_writes_of_a_run(store: Store) -> None:
    run = ScriptedRun(store)
    run.step({"a": 1})
    run.tasks(run.task("t2", [("a", 1), ("a", "x" * 1000)], path="b"), run.task("t1", [("__interrupt__", [1])], -3))
    run.tasks(run.task("t2", [("a", "late")], path="b"), run.task("t1", [("__interrupt__", [2])], -3))
    writes = store.load(config()).writes
    assert [(w.task_id, w.slot, list(w.writes), w.checkpoint_id) for w in writes] == [
        ("t1", -3, [("__interrupt__", [2])], run.id),
        ("t2", 0, [("a", 1), ("a", "x" * 1000)], run.id),
    ]
    before = run.id
    task = run.task("t3", [("c", 5)])
    run.step({"a": 2}, writes=[task])
    assert ("t3", "c", 5) in store.get_tuple(config("t", "", before)).pending_writes
    assert store.get_tuple(config()).pending_writes == []


def test_first_write_may_be_task_rows(store: Store) -> None:
    ScriptedRun(store).step({"a": 1})
    run = ScriptedRun(store)
    run.tasks(run.task("t", [("__resume__", [1])], -4))
    assert run.claim.claimed
    run.step({"a": 2}).check(store)


def test_metadata_of_a_run(store: Store) -> None:
    run = ScriptedRun(store)
    metadata = {"user": "u", "run_id": "r"}
    run.step({"a": 1}, metadata=metadata, run_id="r")
    run.step({"a": 2}, metadata=metadata, run_id="r", parents={"": "root"})
    first, second = (store.get_tuple(stored.config).metadata for stored in run.stored)
    assert first == {"source": "input", "step": -1, "parents": {}, "user": "u", "run_id": "r"}
    assert second == {"source": "loop", "step": 0, "parents": {"": "root"}, "user": "u", "run_id": "r"}
    assert store.load(config()).parents == {"": "root"}


def test_several_steps_in_one_commit_keep_their_versions(store: Store) -> None:
    run = ScriptedRun(store)
    run.step({"a": 1, "b": "x" * 100, "c": 1})
    commit = run.prepare({"a": 2, "b": "y" * 100, "c": GONE}, versions={"a": 7, "c": 8})
    commit.updated_channels = ["b"]
    store.commit(commit)
    found = store.get_tuple(config()).checkpoint
    assert found["channel_versions"] == {"a": 7, "b": commit.version, "c": 8}
    assert found["channel_values"] == {"a": 2, "b": "y" * 100}
    assert found["updated_channels"] == ["b"]
    for updated in (None, []):
        commit = run.prepare({"a": 3})
        commit.updated_channels = updated
        store.commit(commit)
        assert store.get_tuple(config()).checkpoint["updated_channels"] == updated


def test_nothing_is_stored_before_the_first_write(store: Store) -> None:
    ScriptedRun(store)
    assert store.load(config()).claim.number == 1
    assert store.get_tuple(config()) is None
    assert store.list(None) == []


def test_two_runs_on_one_thread(store: Store) -> None:
    ScriptedRun(store).step({"n": 0})
    first, second = ScriptedRun(store), ScriptedRun(store)
    stored = first.step({"n": 1})
    head = second.id
    with pytest.raises(CheckpointConflictError) as caught:
        second.step({"n": 2})
    assert (caught.value.thread_id, caught.value.expected, caught.value.actual) == ("t", head, stored.id)
    with pytest.raises(CheckpointConflictError) as again:
        second.step({"n": 3})
    assert again.value is caught.value
    first.step({"n": 4}).check(store)
    assert len(store.list(config())) == 3


def test_two_runs_on_a_fresh_thread(store: Store) -> None:
    first, second = ScriptedRun(store), ScriptedRun(store)
    first.step({"n": 1})
    with pytest.raises(CheckpointConflictError):
        second.step({"n": 2})
    assert [entry.checkpoint["channel_values"] for entry in store.list(config())] == [{"n": 1}]


def test_a_run_is_fenced_by_a_newer_one(store: Store) -> None:
    old = ScriptedRun(store)
    old.step({"n": 0})
    nested = ScriptedRun(store, config("t", "child:1"), claim=old.claim, up_rev=old.rev)
    nested.step({"n": 0})
    task = old.task("t", [("n", 1)])
    ScriptedRun(store).step({"n": 1})
    counts = len(store.list(config()))
    with pytest.raises(CheckpointConflictError):
        old.tasks(task)
    old.claim.poisoned = None
    with pytest.raises(CheckpointConflictError):
        nested.step({"n": 2})
    old.claim.poisoned = None
    with pytest.raises(CheckpointConflictError):
        old.step({"n": 2})
    assert len(store.list(config())) == counts
    assert store.get_tuple(old.stored[0].config).pending_writes == []


def test_a_public_put_fences_a_run(store: Store) -> None:
    run = ScriptedRun(store)
    stored = run.step({"n": 0})
    put(store, stored.config, checkpoint({"n": 1}))
    with pytest.raises(CheckpointConflictError):
        run.step({"n": 2})
    store.put_writes(stored.config, [("n", 1)], "task")
    go_on = ScriptedRun(store)
    store.put_writes(config("t", "", go_on.id), [("n", 1)], "task")
    go_on.step({"n": 3}).check(store)


def test_a_deleted_thread_stays_deleted(store: Store) -> None:
    run, waiting = ScriptedRun(store), None
    stored = run.step({"n": 0})
    waiting = ScriptedRun(store)
    store.delete_thread("t")
    with pytest.raises(ThreadDeletedError):
        run.step({"n": 1})
    ScriptedRun(store).step({"n": 5})
    run.claim.poisoned = None
    with pytest.raises(ThreadDeletedError):
        run.tasks(run.task("t", [("n", 1)]))
    with pytest.raises(ThreadDeletedError):
        waiting.step({"n": 1})
    assert store.get_tuple(stored.config) is None
    assert len(store.list(config())) == 1


def test_a_refused_value_leaves_no_trace(store: Store) -> None:
    run = ScriptedRun(store)
    run.step({"a": 1, "l": ["x" * 100]})

    class Unknown:
        pass

    with pytest.raises(UnregisteredTypeError) as caught:
        run.prepare_and_encode({"new": 1, "l": [*run.values["l"], 1], "bad": [Unknown()]})
    assert caught.value.channel == "bad"
    with pytest.raises(UnregisteredTypeError) as caught:
        store.saver.encode(
            StepCommit(run.claim, "", "tasks", writes=[run.task("t", [("a", 1), ("b", {"k": Unknown()})])])
        )
    assert caught.value.channel == "b"
    again = ScriptedRun(store)
    again.step({"z": 5}).check(store)


def test_forks_share_and_never_corrupt(store: Store) -> None:
    run = ScriptedRun(store)
    document = "d" * 5000
    run.step({"doc": document, "l": [{"n": 0, "x": "y" * 100}]})
    for n in range(1, 6):
        run.step({"l": [*run.values["l"], {"n": n, "x": "y" * 100}]})
    stored = list(run.stored)
    for n, base in enumerate(list(run.stored)):
        fork = ScriptedRun(store, base.config)
        assert fork.loaded.is_head is False or n == 5
        fork.step({"k": n}, source="fork")
        reloaded = ScriptedRun(store, fork.stored[-1].config)
        reloaded.step({"l": [*reloaded.values["l"], {"fork": n}]})
        reloaded.step({"l": [*reloaded.values["l"], {"fork": -n}]})
        stored += [*fork.stored, *reloaded.stored]
    for entry in stored:
        entry.check(store)


def test_an_element_that_was_written_again_is_stored_again(store: Store) -> None:
    run = ScriptedRun(store)
    elements = [{"n": n, "x": "y" * 50} for n in range(4)]
    run.step({"l": elements})
    longer = [*elements, {"n": 4}]
    run.step({"l": longer})
    elements[1]["n"] = "edited"
    # The reducer returned the same objects, and the edited one was among what the node wrote.
    run.step({"l": [*longer, {"n": 5}]}, written={"l": [elements[1], {"n": 5}]})
    run.step({"l": [*run.values["l"], elements[0]]}, written={"l": [elements[0]]})
    run.step({"l": [*run.values["l"]]}, written={"l": []})
    for stored in run.stored:
        stored.check(store)
    assert store.get_tuple(run.stored[1].config).checkpoint["channel_values"]["l"][1]["n"] == 1


def test_values_are_those_at_encode(plain: Store) -> None:
    run = ScriptedRun(plain)
    value = {"l": [1]}
    encoded = plain.saver.encode(run.prepare({"v": value, "w": [value, "x" * 100]}))
    value["l"].append(2)
    plain.saver.write([encoded], durability="sync")
    run.stored[-1].check(plain)


# ---- nested runs (design D25)


def test_nested_runs_start_where_their_parent_is(store: Store) -> None:
    root = ScriptedRun(store)
    root.step({"n": 0})
    up = root.rev
    ns = config("t", "sub")
    nested = ScriptedRun(store, ns, claim=root.claim, up_rev=up)
    assert nested.loaded.checkpoint_id is None
    nested.step({"m": [1]})
    crashed = nested.step({"m": [1, 2]})
    # Rule 1: the superstep of the parent is still open, in this run and in the next one.
    assert ScriptedRun(store, ns, claim=root.claim, up_rev=up).id == crashed.id
    later = ScriptedRun(store)
    resumed = ScriptedRun(store, ns, claim=later.claim, up_rev=later.rev)
    assert (resumed.id, resumed.values) == (crashed.id, {"m": [1, 2]})
    finished = resumed.step({"m": [1, 2, 3]})
    # Rule 2: the parent's commit points to where the nested run ended.
    closed = later.step({"n": 1}, sub={"sub": finished.rev})
    assert store.load(config()).sub == {"sub": finished.rev}
    second = ScriptedRun(store, ns, claim=later.claim, up_rev=later.rev, at_rev=later.sub["sub"])
    assert second.id == finished.id
    ended = second.step({"m": [9]})
    later.step({"n": 2}, sub={"sub": ended.rev})
    # A fork inherits exactly what was before it; the newest checkpoint of the namespace is of no interest.
    fork = ScriptedRun(store, closed.config)
    assert fork.sub == {"sub": finished.rev}
    forked = ScriptedRun(store, ns, claim=fork.claim, at_rev=fork.sub["sub"])
    assert forked.values == {"m": [1, 2, 3]}
    # Rule 3: nothing.
    first = ScriptedRun(store, root.stored[0].config)
    assert ScriptedRun(store, ns, claim=first.claim).loaded.checkpoint_id is None
    # Addressed outright.
    named = ScriptedRun(store, config("t", "sub", crashed.id), claim=first.claim, up_rev=first.rev)
    assert named.id == crashed.id
    forked.step({"m": [1, 2, 3, 4]})
    for run in (root, nested, later, resumed, second, forked):
        for stored in run.stored:
            stored.check(store)
    assert store.get_tuple(ns).checkpoint["id"] == forked.id


def test_namespaces_of_one_transaction(store: Store) -> None:
    root = ScriptedRun(store)
    nested = ScriptedRun(store, config("t", "sub"), claim=root.claim)
    inner = nested.prepare({"m": 1})
    outer = root.prepare({"n": 1}, others=[inner], writes=[])
    store.commit(outer, durability="exit")
    assert [entry.checkpoint["id"] for entry in store.list(config())] == [outer.checkpoint_id, inner.checkpoint_id]
    other = ScriptedRun(store)
    ScriptedRun(store).step({"n": 2})
    nested = ScriptedRun(store, config("t", "sub"), claim=other.claim)
    inner = nested.prepare({"m": 2})
    with pytest.raises(CheckpointConflictError):
        store.commit(other.prepare({"n": 3}, others=[inner]))
    assert len(store.list(config("t", "sub"))) == 1


# ---- random sequences against a model


class Model:
    """Random programs over one thread; remembers every checkpoint as it was meant."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.random = random.Random(seed)
        self.stored: list[Any] = []
        self.run = ScriptedRun(store, durability=self.pick("sync", "async", "submit"))

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def value(self) -> Any:
        size = self.pick(0, 5, 80, 300, 900, 9000)
        return self.pick(
            None,
            self.random.randrange(10**6),
            "s" * size,
            [],
            {"k": "v" * size, "l": [1, {"x": 2}]},
            [{"n": n, "x": "y" * (size // 4)} for n in range(4)],
            ["e" * size],
        )

    def changes(self, run: ScriptedRun) -> tuple[dict[str, Any], dict[str, Any]]:
        changes: dict[str, Any] = {}
        written: dict[str, Any] = {}
        for name in self.random.sample("abcde", self.random.randrange(1, 4)):
            old = run.values.get(name)
            kind = self.random.random()
            if kind < 0.1 and name in run.versions:
                changes[name] = GONE
            elif kind < 0.75 and type(old) is list:
                news = [
                    {"new": self.random.random(), "x": "z" * self.pick(1, 100)} for _ in range(self.pick(0, 1, 1, 3))
                ]
                editable = [element for element in old if type(element) is dict]
                if editable and self.random.random() < 0.3:
                    edited = self.random.choice(editable)
                    edited["edited"] = self.random.random()
                    written[name] = [*news, edited]
                changes[name] = [*old, *news]
            elif kind < 0.75 and type(old) is str:
                changes[name] = old + "t" * self.pick(0, 1, 100)
            elif kind < 0.8 and old is not None:
                changes[name] = copy.deepcopy(old)
            else:
                changes[name] = self.value()
        return changes, written

    def step(self, run: ScriptedRun, **more: Any) -> Any:
        changes, written = self.changes(run)
        seen: dict[str, Any] = {}
        for node in self.random.sample("xyz", self.random.randrange(3)):
            names = self.random.sample(sorted(run.versions), min(len(run.versions), self.random.randrange(3)))
            seen[node] = {name: run.versions[name] for name in names}
        stored = run.step(changes, written=written, seen=seen, **more)
        self.stored.append(stored)
        return stored

    def nested(self) -> None:
        if self.run.rev is None:
            return
        run, ns = self.run, self.pick("s", f"p:{len(self.stored)}")
        at = run.sub.get(ns)
        nested = ScriptedRun(
            self.store, config("t", ns), claim=run.claim, up_rev=run.rev, at_rev=at, durability=run.durability
        )
        for _ in range(self.random.randrange(1, 4)):
            last = self.step(nested)
        if self.random.random() < 0.6:
            self.step(run, sub={ns: last.rev} if ns == "s" else {})
        else:
            # Crash inside the open superstep: the next run finds it again.
            self.run = ScriptedRun(self.store)
            if ns == "s" and self.run.rev == run.rev:
                again = self.store.load(config("t", ns), claim=self.run.claim, up_rev=run.rev, at_rev=at)
                assert again.rev == last.rev
                assert again.values == last.values

    def play(self, n_operations: int) -> None:
        for _ in range(n_operations):
            action = self.random.random()
            if action < 0.6 or not self.stored:
                self.step(self.run)
            elif action < 0.7:
                self.run = ScriptedRun(self.store, durability=self.pick("sync", "async", "submit"))
            elif action < 0.85:
                base = self.random.choice([entry for entry in self.stored if entry.ns == ""])
                self.run = ScriptedRun(self.store, base.config, durability=self.pick("sync", "submit"))
                assert self.run.values == base.values
                assert self.run.sub == base.sub
                if self.random.random() < 0.5:
                    self.step(self.run, source="fork")
            elif action < 0.95:
                self.nested()
            else:
                self.run.tasks(self.run.task("task", [("a", self.value())]))
        for stored in self.stored:
            stored.check(self.store)
        listed = [entry.checkpoint["id"] for entry in self.store.list(config())]
        assert listed == [entry.id for entry in sorted(self.stored, key=lambda entry: entry.rev, reverse=True)]


@pytest.mark.parametrize("seed", range(25))
def test_model(plain: Store, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:
        # Limits so low that every rule of the chains is met.
        monkeypatch.setattr(deltas, "MAX_CHAIN_ROWS", 3)
        monkeypatch.setattr(headers, "MAX_HEADER_ROWS", 5)
        monkeypatch.setattr(headers, "MIN_HEADER_OPS", 100)
    Model(plain, seed).play(60)


@pytest.fixture
def reopen(tmp_path: Path) -> Callable[[], SqliteSaver]:
    return lambda: SqliteSaver(tmp_path / "threads.sqlite")


def test_everything_is_there_after_reopening(reopen: Callable[[], SqliteSaver]) -> None:
    with reopen() as saver:
        model = Model(Store(saver, False), 1)
        model.play(40)
    with reopen() as saver:
        store = Store(saver, False)
        for stored in model.stored:
            stored.check(store)
        run = ScriptedRun(store)
        assert run.claim.number == model.run.claim.number + (1 if model.run.claim.claimed else 0)
        run.step({"again": 1}).check(store)
