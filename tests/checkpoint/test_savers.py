"""What holds for every saver of the package: the conformance kit over all of them, and what it does not ask of others."""

import asyncio
import contextlib
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from checkpoint import deltas, headers
from checkpoint.base import UNREAD, CheckpointError
from checkpoint.memory import InMemorySaver
from checkpoint.registry import register_codec
from checkpoint.serde.base import Opaque
from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.sqlite import SqliteSaver
from checkpoint.sqlite.aio import AsyncSqliteSaver
from checkpoint.testing import ConformanceSuite, run_conformance
from checkpoint.testing.checks import REGISTER
from checkpoint.testing.model import Model
from checkpoint.testing.report import Level
from checkpoint.testing.script import checkpoint
from checkpoint.testing.subject import CAPABILITIES, capabilities_of
from tests.checkpoint.ciphers import BindingCipher, PlainCipher
from tests.checkpoint.runs import ScriptedRun, Store, config

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


class Shy:
    """A class whose values nobody may make while `is_away`."""

    is_away = False


def _come(stored: Any) -> Shy:
    assert not Shy.is_away
    return Shy()


register_codec(Shy, "tests.Shy", lambda value: 1, _come)


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
    try:
        with saver:
            yield saver
    finally:
        if kind.startswith("aio"):
            asyncio.run(saver.conn.close())


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, is_async: bool, tmp_path: Path) -> Iterator[Store]:
    with opened(request.param, tmp_path / "threads.sqlite") as saver:
        yield Store(saver, is_async)


@pytest.fixture(params=["memory", "sqlite", "sqlite-grouping"])
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """One store of each kind, for what does not depend on the colour."""
    with opened(request.param, tmp_path / "threads.sqlite") as saver:
        yield Store(saver, False)


# ---- the kit


class TestInMemorySaver(ConformanceSuite):
    level = "full"

    def make_saver(self) -> Any:  # type: ignore[override]
        return InMemorySaver()


class TestSqliteSaver(ConformanceSuite):
    level = "durable"

    def make_saver(self, place: Path, lease_ttl: float | None = None) -> Any:
        return SqliteSaver(place, lease_ttl=lease_ttl)

    def damage(self, place: Path) -> Any:
        return ways_to_damage(place)


def ways_to_damage(place: Path) -> dict[str, Callable[[], object]]:
    """Statements that damage what an SQLite saver stored."""

    def run(statement: str) -> None:
        conn = sqlite3.connect(place)
        assert conn.execute(statement).rowcount > 0
        conn.commit()
        conn.close()

    return {statement: partial(run, statement) for statement in DAMAGE}


DAMAGE = [
    "UPDATE payloads SET data = zeroblob(length(data)) WHERE seq = 0",
    "UPDATE payloads SET data = zeroblob(length(data)) WHERE seq = 2",
    "UPDATE payloads SET data = zeroblob(length(data)) WHERE part = 1",
    "UPDATE checkpoints SET header = zeroblob(length(header)) WHERE rev = (SELECT min(rev) FROM checkpoints)",
    "UPDATE checkpoints SET metadata = '{}' WHERE metadata IS NOT NULL",
    "UPDATE task_writes SET data = zeroblob(length(data))",
    "UPDATE checkpoints SET ts = ts + 1",
    "DELETE FROM payloads WHERE seq = 1",
    "DELETE FROM payloads WHERE part = 1",
    "DELETE FROM payloads",
    "UPDATE spaces SET head_rev = head_rev + 1",
]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"memory", "sqlite"}))
def test_conformance_of_other_kinds(kind: str) -> None:
    """What differs here is how a connection is reached, and when something is written; the rest is one class."""
    level: Level = "full" if "memory" in kind else "durable"
    checks = [check for check in REGISTER.of(level) if not check.once]
    only = [check.name for check in checks if check.level == "base" or "native" in check.needs or kind == "aio"]
    report = run_conformance(partial(opened, kind), level=level, only=only)
    report.raise_for_failures()
    assert {result.colour for result in report.of("passed")} == {"sync", "async"}


LOOP: Any = {"source": "loop", "step": 1}


def put(store: Store, where: Any, given: Any, metadata: Any = None) -> Any:
    return store.put(where, given, metadata or LOOP, given["channel_versions"])


@pytest.mark.parametrize("kind", KINDS)
def test_no_optional_part_of_the_kit_is_left_out(kind: str, is_async: bool, tmp_path: Path) -> None:
    with opened(kind, tmp_path / "threads.sqlite") as saver:
        found = capabilities_of(saver, "async" if is_async else "sync")
        assert set(CAPABILITIES) - set(found) == ({"filter"} if "encrypted" in kind else set())


# ---- what only ours promise


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


@pytest.mark.parametrize("name", ["thread_id", "checkpoint_ns", "checkpoint_id"])
def test_half_a_surrogate_pair_addresses_nothing(store: Store, name: str) -> None:
    """In memory it would be found again, in a file it cannot be stored."""
    where: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", name: "x\ud800"}}
    for call in (
        lambda: store.put(where, checkpoint({"a": 1}), {}, {"a": 1}),
        lambda: store.get_tuple(where),
        lambda: store.list(where),
    ):
        with pytest.raises(ValueError, match=name):
            call()
    assert store.list(None) == []
    assert store.get_tuple(config("\u00e9 \U0001f600", "n\u00e9")) is None


class Pickling:
    """A serializer of a program's own, that reads what it wrote and nothing else."""

    def dumps_typed(self, value: Any) -> tuple[str, bytes]:
        return "pickle", pickle.dumps(value)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        assert data[0] == "pickle"
        return pickle.loads(data[1])


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_serializer_of_another_format_reads_what_it_wrote(plain: Store, is_encrypted: bool) -> None:
    serde: Any = Pickling()
    plain.saver.serde = EncryptedSerializer(BindingCipher(b"key"), serde) if is_encrypted else serde
    run = ScriptedRun(plain)
    run.step({"go": None, "n": 1, "l": [None, "x" * 100]})
    run.step({"go": None, "l": [*run.values["l"], None]}, writes=[run.task("t", [("go", None), ("l", [None])])])
    for stored in run.stored:
        stored.check(plain)
    assert plain.load(config()).values == {"go": None, "n": 1, "l": [None, "x" * 100, None]}
    assert [loaded.values["go"] for loaded in plain.history(config(), channels=["go"])] == [None, None]


def test_a_config_that_names_no_thread(store: Store) -> None:
    for where in ({}, {"configurable": None}, {"configurable": {}}, {"configurable": {"thread_id": None}}):
        with pytest.raises(ValueError, match="thread_id"):
            store.get_tuple(where)
        with pytest.raises(ValueError, match="thread_id"):
            store.load(where)
        with pytest.raises(ValueError, match="thread_id"):
            store.put(where, checkpoint({"a": 1}), LOOP, {"a": 1})


def test_a_put_shares_what_did_not_change(store: Store) -> None:
    """Values that a put does not name as new are stored once, large or small; under another version they are new."""
    values: dict[str, Any] = {"doc": "x" * 5_000, "small": 1, "n": 0}
    versions: dict[str, Any] = dict.fromkeys(values, 1)
    where: Any = config("t", "")
    for n in range(5):
        values["n"], versions["n"] = n, n + 1
        where = store.put(where, checkpoint(dict(values), dict(versions)), LOOP, {"n": n + 1})
        assert store.get_tuple(where).checkpoint["channel_values"] == values
    with store.saver._writing() as tx:
        assert len(tx.chain_lengths(tx.address("t", "").space_pk)) == 1
    values["doc"], versions["doc"] = "y" * 5_000, 9
    where = store.put(where, checkpoint(dict(values), dict(versions)), LOOP, {})
    assert store.get_tuple(where).checkpoint["channel_values"] == values


def test_a_history_that_reads_some_channels(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ScriptedRun(store)
    shy = Shy()
    run.step({"n": 1, "text": "x" * 100, "shy": shy})
    run.step({"n": 2, "shy": [shy] * 50})
    where = run.stored[-1].config
    store.put_writes(where, [("n", 3), ("shy", shy)], "task")
    whole = store.history(config())
    monkeypatch.setattr(Shy, "is_away", True)
    with pytest.raises(CheckpointError):
        store.history(config())
    newest, older = store.history(config(), channels={"n", "absent"})
    assert newest.values == {"n": 2, "text": UNREAD, "shy": UNREAD}
    assert older.values == {"n": 1, "text": UNREAD, "shy": UNREAD}
    assert [write[0] for task in newest.writes for write in task.writes] == ["n", "shy"]
    assert isinstance(newest.writes[0].writes[1][1], Opaque)
    (shown,) = store.history(config(), channels={"shy"}, limit=1)
    assert shown.values["n"] == UNREAD
    assert all(isinstance(value, Opaque) for value in shown.values["shy"])
    for entry, other in zip(whole, (newest, older), strict=True):
        assert (entry.checkpoint_id, entry.versions, entry.seen) == (other.checkpoint_id, other.versions, other.seen)


# ---- random sequences against a model


@pytest.mark.parametrize("seed", range(25))
def test_model(plain: Store, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:
        # Limits so low that every rule of the chains is met.
        monkeypatch.setattr(deltas, "MAX_CHAIN_ROWS", 3)
        monkeypatch.setattr(headers, "MAX_HEADER_ROWS", 5)
        monkeypatch.setattr(headers, "MIN_HEADER_OPS", 100)
    Model(plain, seed).play(60)
