"""Savers that have only LangGraph's four methods, driven as native ones."""

import asyncio
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from checkpoint import ids
from checkpoint.adapter import adapt, is_native
from checkpoint.base import (
    BaseCheckpointSaver,
    CheckpointConflictError,
    CheckpointTuple,
    StepCommit,
    get_checkpoint_metadata,
)
from checkpoint.memory import InMemorySaver
from checkpoint.registry import register_codec
from tests.checkpoint.runs import GONE, ScriptedRun, Store, config


class Foreign:
    """A saver as people write them: whole checkpoints, pickled, newest by id. Not a subclass of anything."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.writes: dict[tuple[str, str, str], list[Any]] = {}
        self.calls: list[str] = []
        self.configs: list[Any] = []

    def _tuple(self, thread: str, ns: str, row: Any) -> CheckpointTuple:
        checkpoint, metadata, parent = pickle.loads(row)
        key = (thread, ns, checkpoint["id"])
        return CheckpointTuple(
            config(thread, ns, checkpoint["id"]),
            checkpoint,
            metadata,
            config(thread, ns, parent) if parent else None,
            [pickle.loads(write) for write in self.writes.get(key, [])],
        )

    def get_tuple(self, where: Any) -> CheckpointTuple | None:
        asked = where["configurable"]
        thread, ns = asked["thread_id"], asked.get("checkpoint_ns", "")
        rows = self.rows.get((thread, ns), {})
        row = rows.get(asked["checkpoint_id"]) if asked.get("checkpoint_id") else rows[max(rows)] if rows else None
        return self._tuple(thread, ns, row) if row else None

    def list(self, where: Any, *, filter: Any = None, before: Any = None, limit: Any = None) -> Iterator[Any]:
        asked = where["configurable"]
        thread, ns = asked["thread_id"], asked.get("checkpoint_ns", "")
        for id_ in sorted(self.rows.get((thread, ns), {}), reverse=True)[:limit]:
            if before is None or id_ < before["configurable"]["checkpoint_id"]:
                yield self._tuple(thread, ns, self.rows[thread, ns][id_])

    def put(self, where: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        self.calls.append(f"put {metadata['step']}")
        self.configs.append(where)
        asked = where["configurable"]
        merged = get_checkpoint_metadata(where, metadata)
        row = pickle.dumps((checkpoint, merged, asked.get("checkpoint_id")))
        self.rows.setdefault((asked["thread_id"], asked["checkpoint_ns"]), {})[checkpoint["id"]] = row
        return config(asked["thread_id"], asked["checkpoint_ns"], checkpoint["id"])

    def put_writes(self, where: Any, writes: Any, task_id: str) -> None:
        self.calls.append(f"put_writes {task_id}")
        asked = where["configurable"]
        key = (asked["thread_id"], asked["checkpoint_ns"], asked["checkpoint_id"])
        stored = self.writes.setdefault(key, [])
        stored += [pickle.dumps((task_id, channel, value)) for channel, value in writes]


class AsyncOnly(BaseCheckpointSaver[int]):
    """The async half only, on our base class."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Foreign()
        self.paths: list[str] = []

    async def aget_tuple(self, where: Any) -> Any:
        return self.inner.get_tuple(where)

    async def alist(self, *args: Any, **kwargs: Any) -> Any:
        for entry in self.inner.list(*args, **kwargs):
            yield entry

    async def aput(self, *args: Any) -> Any:
        await asyncio.sleep(0)
        return self.inner.put(*args)

    async def aput_writes(self, where: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        self.paths.append(task_path)
        self.inner.put_writes(where, writes, task_id)


class SyncOnly(Foreign, BaseCheckpointSaver[int]):
    """The sync half only, on our base class, whose async half refuses."""


class Counting(InMemorySaver):
    """A saver of ours with a method of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def put(self, *args: Any) -> Any:
        self.calls.append("put")
        return super().put(*args)


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return request.param == "async"


@pytest.fixture(params=[Foreign, AsyncOnly, SyncOnly, Counting])
def saver(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
def store(saver: Any, is_async: bool) -> Store:
    return Store(adapt(saver), is_async)


def calls_of(saver: Any) -> Any:
    return saver.inner.calls if isinstance(saver, AsyncOnly) else saver.calls


class Quiet(InMemorySaver):
    """A subclass without a public method of its own."""

    def get_next_version(self, current: Any, channel: None) -> Any:
        return (current or 0) + 10


class Narrow(InMemorySaver):
    """An override with no more parameters than the engine of old gave."""

    def put_writes(self, config: Any, writes: Any, task_id: str) -> None:  # type: ignore[override]
        super().put_writes(config, [("narrow", 1), *writes], task_id)


def test_an_override_with_fewer_parameters_is_called_in_both_colours(is_async: bool) -> None:
    saver = Narrow()
    run = ScriptedRun(Store(adapt(saver), is_async))
    run.step({"a": 1})
    run.tasks(run.task("task", [("a", 2)], path="p"))
    entry = saver.get_tuple(config())
    assert entry is not None
    assert entry.pending_writes == [("task", "narrow", 1), ("task", "a", 2)]


def test_who_is_adapted() -> None:
    ours = InMemorySaver()
    assert adapt(ours) is ours
    assert is_native(Quiet())
    counting = Counting()
    assert not is_native(counting)
    assert adapt(counting) is adapt(counting)
    assert adapt(counting) is not adapt(Counting())
    patched = InMemorySaver()
    patched.put = lambda *args: None  # type: ignore[method-assign,assignment]
    assert not is_native(patched)
    assert "Counting" in adapt(counting).notice  # type: ignore[attr-defined]


def test_own_versions_of_a_native_saver() -> None:
    saver = Quiet()
    loaded = saver.load(config())
    assert (loaded.claim.next_version(None), loaded.claim.next_version(10)) == (10, 20)
    assert InMemorySaver().load(config()).claim.next_version(3) == 4


def test_a_run(store: Store) -> None:
    run = ScriptedRun(store)
    assert run.loaded.checkpoint_id is None
    for n in range(5):
        values = {"l": [*run.values.get("l", []), {"n": n}], "g": GONE if n % 2 else n}
        run.step(values, seen={"node": {"l": n}}, metadata={"user": "u"})
    for stored in run.stored:
        loaded = store.load(stored.config)
        assert (loaded.checkpoint_id, loaded.values, loaded.versions) == (stored.id, stored.values, stored.versions)
        assert (loaded.seen, loaded.step, loaded.source) == (stored.seen, stored.step, stored.source)
        assert (loaded.parent_id, loaded.updated_channels) == (stored.parent_id, stored.updated)
        assert loaded.metadata["user"] == "u"
        assert loaded.is_head is (stored is run.stored[-1])
    assert [entry.checkpoint_id for entry in store.history(config())] == [s.id for s in reversed(run.stored)]
    assert len(store.history(config(), limit=2)) == 2
    go_on = ScriptedRun(store)
    assert go_on.values == run.stored[-1].values
    go_on.step({"n": 1})
    assert store.load(config()).values == go_on.stored[-1].values


def test_facts_stay_with_their_line(store: Store) -> None:
    run = ScriptedRun(store)
    first = run.step({"n": 0}, facts={"graph": "a1", "paused": ["x"]})
    run.step({"n": 1}, facts={"graph": "b2", "paused": None})
    run.step({"n": 2})
    later, fork = ScriptedRun(store), ScriptedRun(store, first.config)
    assert (later.facts, fork.facts) == ({"graph": "b2"}, {"graph": "a1", "paused": ["x"]})
    assert not [key for key in later.loaded.metadata if "facts" in key]
    later.step({"n": 3})
    assert ScriptedRun(store).facts == {"graph": "b2"}


def test_task_writes_come_before_the_checkpoint_that_follows(saver: Any, store: Store) -> None:
    run = ScriptedRun(store)
    run.step({"a": 0})
    first = run.id
    task = run.task("t1", [("a", 1), ("a", 2)], path="p")
    question = run.task("t2", [("__interrupt__", ["q"])], -3)
    run.tasks(question)
    run.step({"a": 1}, writes=[task])
    calls = calls_of(saver)
    if not isinstance(saver, Counting):
        assert calls == ["put -1", "put_writes t2", "put_writes t1", "put 0"]
    writes = store.load(config("t", "", first)).writes
    assert sorted((w.task_id, w.slot, w.writes) for w in writes) == [
        ("t1", 0, [("a", 1), ("a", 2)]),
        ("t2", -3, [("__interrupt__", ["q"])]),
    ]
    if isinstance(saver, AsyncOnly):
        assert saver.paths == ["", "p"]


def test_writes_under_the_checkpoint_of_the_same_commit_follow_it(saver: Any, store: Store) -> None:
    run = ScriptedRun(store)
    commit = run.prepare({"a": 1})
    commit.writes = [run.task("t1", [("__interrupt__", [1])], -3)]
    store.commit(commit, durability="exit")
    assert [w.task_id for w in store.load(config()).writes] == ["t1"]


def test_a_moved_head_is_noticed_at_the_first_write(store: Store) -> None:
    ScriptedRun(store).step({"a": 0})
    first, second = ScriptedRun(store), ScriptedRun(store)
    first.step({"a": 1})
    with pytest.raises(CheckpointConflictError):
        second.step({"a": 2})
    with pytest.raises(CheckpointConflictError):
        second.step({"a": 3})
    first.step({"a": 4})


def test_nested_runs(store: Store) -> None:
    root = ScriptedRun(store)
    root.step({"n": 0})
    ns = config("t", "sub")
    nested = ScriptedRun(store, ns, claim=root.claim, up_rev=root.rev)
    assert nested.loaded.checkpoint_id is None
    inside = nested.step({"m": 1}, parents={"": root.id})
    again = ScriptedRun(store)
    resumed = ScriptedRun(store, ns, claim=again.claim, up_rev=again.rev)
    assert resumed.id == inside.id
    ended = resumed.step({"m": 2}, parents={"": again.id})
    closed = again.step({"n": 1}, sub={"sub": ended.rev})
    later = ScriptedRun(store)
    assert "__pregel_sub" not in later.loaded.metadata
    second = ScriptedRun(store, ns, claim=later.claim, up_rev=later.rev, at_rev=later.sub["sub"])
    assert second.id == ended.id
    second.step({"m": 3}, parents={"": later.id})
    fork = ScriptedRun(store, closed.config)
    forked = ScriptedRun(store, ns, claim=fork.claim, up_rev=None, at_rev=fork.sub["sub"])
    assert forked.values == {"m": 2}
    before = ScriptedRun(store, root.stored[0].config)
    assert before.sub == {}
    assert ScriptedRun(store, ns, claim=before.claim).loaded.checkpoint_id is None


def test_the_users_configurable_reaches_the_saver() -> None:
    saver = Foreign()
    where = config()
    where["configurable"].update(tenant="x", __pregel_scope=object())
    run = ScriptedRun(Store(adapt(saver), False), where)
    run.step({"a": 1})
    run.step({"a": 2})
    assert [c["configurable"]["tenant"] for c in saver.configs] == ["x", "x"]
    assert all("__pregel_scope" not in c["configurable"] for c in saver.configs)
    assert "checkpoint_id" not in saver.configs[0]["configurable"]
    assert saver.configs[1]["configurable"]["checkpoint_id"] == run.stored[0].id


@pytest.mark.parametrize("kind", [Foreign, AsyncOnly])
def test_submitted_values_are_those_of_the_barrier(kind: Any, is_async: bool) -> None:
    saver = kind()
    adapted: Any = adapt(saver)

    def steps(run: ScriptedRun) -> list[Any]:
        acks = []
        value = {"l": [0]}
        for n in range(5):
            value["l"].append(n)
            acks.append(adapted.submit(adapted.encode(run.prepare({"v": value, "n": n}))))
        value["l"].append("later")
        return acks

    run = ScriptedRun(Store(adapted, is_async))
    if is_async:

        async def submit() -> None:
            for ack in steps(run):
                await ack.aresult()

        asyncio.run(submit())
    else:
        for ack in steps(run):
            ack.result()
    for stored in run.stored:
        assert run.store.load(stored.config).values == stored.values
    assert run.stored[-1].values == {"v": {"l": [0, 0, 1, 2, 3, 4]}, "n": 4}


def test_a_savers_error_comes_out_as_itself(is_async: bool) -> None:
    class Full(OSError):
        pass

    failure = Full("disk")

    class Failing(Foreign):
        def put(self, *args: Any) -> Any:
            if len(self.calls) >= 2:
                raise failure
            return super().put(*args)

    run = ScriptedRun(Store(adapt(Failing()), is_async))
    run.step({"a": 0})
    run.step({"a": 1})
    for _ in range(2):
        with pytest.raises(Full) as caught:
            run.step({"a": 2})
        assert caught.value is failure
    assert "'t'" in failure.__notes__[0]
    assert run.store.load(config()).values == {"a": 1}


def test_versions() -> None:
    text = adapt(Foreign()).load(config()).claim
    first = text.next_version(None)
    assert isinstance(first, str)
    assert (len(first.split(".")[0]), int(first.split(".")[0])) == (32, 1)
    second = text.next_version(first)
    assert isinstance(second, str)
    assert second > first
    assert text.next_version(7) == 8

    class Own(Foreign):
        def get_next_version(self, current: Any, channel: None) -> Any:
            return (current or 0.0) + 0.5

    assert adapt(Own()).load(config()).claim.next_version(None) == 0.5


class Sent:
    """Stands for a control type of the engine."""

    def __init__(self, node: str, arg: Any) -> None:
        self.node = node
        self.arg = arg


def test_control_types_are_stored_in_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    register_codec(Sent, "test.Sent", lambda sent: [sent.node, sent.arg], lambda parts: Sent(*parts))
    from checkpoint import foreign

    monkeypatch.setitem(foreign._PLAIN_NAMES, "test.Sent", "__test_sent__")
    monkeypatch.setitem(foreign._CODEC_NAMES, "__test_sent__", "test.Sent")
    saver = Foreign()
    store = Store(adapt(saver), False)
    run = ScriptedRun(store)
    run.step({"tasks": [Sent("a", {"x": 1}), 5], "plain": {"__test_sent__": 1, "more": 2}})
    run.tasks(run.task("t", [("tasks", Sent("b", 2)), ("__error__", ValueError("x"))][:1]))
    run.tasks(run.task("t", [("__error__", ValueError("x"))], -1))
    stored = saver.get_tuple(config())
    assert stored is not None
    assert stored.checkpoint["channel_values"]["tasks"] == [{"__test_sent__": ["a", {"x": 1}]}, 5]
    loaded = store.load(config())
    sent, five = loaded.values["tasks"]
    assert (type(sent), sent.node, sent.arg, five) == (Sent, "a", {"x": 1}, 5)
    assert loaded.values["plain"] == {"__test_sent__": 1, "more": 2}
    assert [w.writes[0][1].node for w in loaded.writes if w.slot == 0] == ["b"]
    assert [w.writes for w in loaded.writes if w.slot == -1] == [[("__error__", "ValueError('x')")]]


def test_ids_are_new_in_every_run() -> None:
    store = Store(adapt(Foreign()), False)
    nodes = set()
    for _ in range(5):
        run = ScriptedRun(store)
        nodes.add(ids.id_to_bytes(run.step({"a": 1}).id)[10:])  # type: ignore[index]
    assert len(nodes) == 5


def test_a_namespace_must_be_loaded_first() -> None:
    adapted = adapt(Foreign())
    claim = adapted.load(config()).claim
    with pytest.raises(Exception, match="'other'"):
        adapted.encode(StepCommit(claim, "other", "checkpoint"))


def test_a_saver_of_ours_and_its_adapter_know_the_same_holders() -> None:
    """What a saver does itself, as `fork`, sees the runs that are driven through its public methods."""

    class Counting(InMemorySaver):
        def put(self, *args: Any) -> Any:
            return super().put(*args)

    saver = Counting()
    assert adapt(saver) is not saver
    assert adapt(saver).holders is saver.holders
    assert adapt(Foreign()).holders is not adapt(Foreign()).holders
