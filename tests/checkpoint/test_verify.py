"""What a saver says of what it stores: `verify`, `stats`, and what `repair` makes of a damaged thread."""

import asyncio
import operator
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict

import aiosqlite
import ormsgpack
import pytest

from checkpoint.base import (
    CheckpointConflictError,
    CheckpointError,
    CorruptCheckpointError,
    Problem,
    UnknownTypeError,
    empty_checkpoint,
    namespace_above,
)
from checkpoint.memory import InMemorySaver
from checkpoint.serde import extensions as codes
from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.serde.msgpack import Serde
from checkpoint.sqlite import AsyncSqliteSaver, SqliteSaver
from pregel.graph import END, START, StateGraph
from pregel.types import Command, Every, interrupt
from tests.checkpoint.ciphers import BindingCipher
from tests.checkpoint.runs import ScriptedRun, Store, Stored, config
from tests.checkpoint.test_sqlite import message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "threads.sqlite"


def encrypting() -> EncryptedSerializer:
    return EncryptedSerializer(BindingCipher(b"key"))


@pytest.fixture(params=["memory", "encrypted memory", "file", "encrypted file", "aiosqlite in memory"])
def saver(request: pytest.FixtureRequest, path: Path) -> Iterator[Any]:
    serde = encrypting() if "encrypted" in request.param else None
    if "memory" in request.param and "aiosqlite" not in request.param:
        yield InMemorySaver(serde=serde)
    elif "file" in request.param:
        with SqliteSaver(path, serde=serde) as saver:
            yield saver
    else:
        conn: Any = asyncio.run(_opened())
        with AsyncSqliteSaver(conn) as other:
            yield other
        asyncio.run(conn.close())


async def _opened() -> Any:
    return await aiosqlite.connect(":memory:")


class Both:
    """`verify`, `stats` and `repair` in either colour."""

    def __init__(self, saver: Any, is_async: bool) -> None:
        self.store = Store(saver, is_async)

    def verify(self, *args: Any, **kwargs: Any) -> Any:
        return self.store._call("verify", *args, **kwargs)

    def stats(self, *args: Any, **kwargs: Any) -> Any:
        return self.store._call("stats", *args, **kwargs)

    def repair(self, *args: Any, **kwargs: Any) -> Any:
        return self.store._call("repair", *args, **kwargs)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def both(request: pytest.FixtureRequest, saver: Any) -> Both:
    return Both(saver, request.param)


class Story:
    """A thread with everything in it: a list that grows, documents in one and in several parts, task rows of all
    lengths, a namespace of one task, a stable one, forks, and a checkpoint under an id of the program's."""

    def __init__(self, saver: Any, thread_id: str = "t") -> None:
        self.store = Store(saver, False)
        self.thread_id = thread_id
        self.run = run = ScriptedRun(self.store, config(thread_id))
        first = {"l": [message(0), message(1)], "doc": "d" * 3000, "big": "b" * 20_000, "n": 1}
        run.step(first, metadata={"who": "me"})
        nested = ScriptedRun(self.store, config(thread_id, "child:1"), claim=run.claim, up_rev=run.rev)
        nested.step({"x": "x" * 100})
        nested.step({"x": "y" * 100})
        stable = ScriptedRun(self.store, config(thread_id, "sub"), claim=run.claim, up_rev=run.rev)
        stable.step({"s": "s" * 100})
        stable.step({"s": "s" * 100 + "t" * 30})
        for n in range(2, 6):
            writes = [run.task(f"00000000-0000-0000-0000-00000000000{n}", [("l", [message(n)])], path="~a")]
            if n == 4:
                writes.append(run.task("wide", [("l", ["w" * 3000])]))
                writes.append(run.task("ask", [("__interrupt__", "q" * 100)], slot=-3))
            changes = {"l": [*run.values["l"], message(n)], "n": n}
            run.step(changes, writes=writes, sub={"sub": stable.rev} if n == 2 else {}, metadata={"who": "me"})
        run.step({"doc": "e" * 3000}, metadata={"who": "me"})
        self.steps = {"": run.stored, "child:1": nested.stored, "sub": stable.stored, "forks": self._forks()}

    def _forks(self) -> list[Stored]:
        """0, and 1 and 2 from 0, and 3 from 1: each but the first with a complete header of its own."""
        stored: list[Stored] = []
        for parent in (None, 0, 0, 1):
            where = config(self.thread_id, "forks", None if parent is None else stored[parent].id)
            claim = None if parent is None else self.store.load(config(self.thread_id, "")).claim
            fork = ScriptedRun(self.store, where, claim=claim)
            if fork.id is not None:
                # Also from its newest checkpoint a fork would go on with its header.
                fork.claim.spaces["forks"].header.n_rows = 0
            fork.step({"f": f"{len(stored)}" * 100})
            stored += fork.stored
        return stored

    @property
    def ids(self) -> list[str]:
        return [stored.id for stored in self.steps[""]]

    def all(self) -> list[tuple[tuple[str, int], Stored]]:
        """(namespace, number) and what was stored."""
        return [((ns, n), stored) for ns, steps in self.steps.items() for n, stored in enumerate(steps)]

    def put(self, checkpoint_id: str) -> None:
        """A checkpoint whose id is found by an alias."""
        checkpoint = {**empty_checkpoint(), "id": checkpoint_id, "channel_values": {"v": "v" * 100}}
        self.store.put(config(self.thread_id, "put"), checkpoint, {"source": "loop", "step": 1}, {"v": 1})

    def check(self, damaged: Any = (), gone: Any = ()) -> None:
        """All checkpoints are as they were stored; but some cannot be read, and some are not there."""
        for key, stored in self.all():
            if key in gone:
                assert self.store.get_tuple(stored.config) is None, key
            elif key in damaged:
                with pytest.raises(CorruptCheckpointError) as caught:
                    self.store.get_tuple(stored.config)
                assert (caught.value.thread_id, caught.value.ns) == (self.thread_id, stored.ns)
            else:
                stored.check(self.store)


# ---- sound state


def test_nothing_stored(both: Both) -> None:
    assert both.verify() == both.verify(deep=True) == both.verify(config("nobody")) == []
    stats = both.stats()
    assert (stats.threads, stats.checkpoints, stats.garbage, stats.biggest_threads) == (0, 0, 0, [])
    assert both.repair(config("nobody")) == []


@pytest.mark.parametrize("deep", [False, True])
def test_sound_threads(both: Both, deep: bool) -> None:
    saver = both.store.saver
    for thread_id in ("a", "t", "z"):
        Story(saver, thread_id).put("mine")
    assert both.verify(deep=deep) == []
    assert both.verify(config("t", "child:1"), deep=deep) == []
    saver.copy_thread("t", "u")
    saver.delete_thread("a")
    assert both.verify(deep=deep) == []
    for thread_id in ("t", "u"):
        assert both.repair(config(thread_id)) == []
        # It was not taken: nothing was to be done.
        assert saver.load(config(thread_id)).is_head


def test_a_long_thread_in_many_pages(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, names in (
        ("verify", {"PAGE_ROWS": 3, "VIEW_ROWS": 5, "PAGE_BYTES": 400}),
        ("stats", {"PAGE_ROWS": 3, "VIEW_ROWS": 4}),
        ("scan", {"LINES": 1}),
    ):
        for name, value in names.items():
            monkeypatch.setattr(f"checkpoint.{module}.{name}", value)
    stories = [Story(both.store.saver, thread_id) for thread_id in "abcde"]
    for story in stories:
        # Two lines of descent that take turns.
        for n in range(8):
            old = ScriptedRun(story.store, config(story.thread_id, "", story.ids[n % 3]))
            old.step({"l": [*old.values["l"], message(n)], f"c{n}": "c" * 100})
            old.step({"n": n})
    assert both.verify(deep=True) == []
    stats = both.stats(top=2)
    # 14 of the story, 16 of forks.
    assert (stats.threads, stats.checkpoints, len(stats.biggest_threads)) == (5, 5 * 30, 2)
    one = both.stats(config("a"))
    assert one.checkpoints == 30
    assert stats.bytes_by_channel == {name: 5 * n_bytes for name, n_bytes in one.bytes_by_channel.items()}
    assert stats.chain_lengths == one.chain_lengths


def test_types_that_are_not_known_here(both: Both) -> None:
    body = ormsgpack.packb(["gone.module:Thing", {"x": "x" * 100}])
    thing = Serde().loads(ormsgpack.packb(ormsgpack.Ext(codes.DATACLASS, body)), opaque=True)
    run = ScriptedRun(both.store)
    run.step({"l": [thing] * 20, "one": thing, "small": Decimal(1)})
    run.step({"l": [*run.values["l"], thing]}, writes=[run.task("t", [("one", thing)])])
    with pytest.raises(UnknownTypeError):
        both.store.load(config())
    assert both.verify(deep=True) == []
    assert both.repair(config()) == []


def test_a_checkpoint_that_is_put_again(both: Both) -> None:
    story = Story(both.store.saver)
    where = {"configurable": {"thread_id": "t", "checkpoint_ns": "put"}}
    for n in range(3):
        checkpoint = {**empty_checkpoint(), "id": "mine", "channel_values": {"v": f"{n}" * 100}}
        story.store.put(where, checkpoint, {"source": "loop", "step": n}, {"v": n})
    assert both.verify(deep=True) == []
    assert both.stats().garbage == 2 * (102 + cover(both))


@pytest.mark.parametrize("durability", ["sync", "async", "exit", Every(steps=2), Every(steps=3)], ids=str)
@pytest.mark.parametrize("asks", [False, True])
def test_threads_that_graphs_have_written(both: Both, durability: Any, asks: bool) -> None:
    """Nested runs, stable and not, that work under checkpoints which may never be stored (durability `exit`)."""

    class State(TypedDict):
        n: Annotated[int, operator.add]
        log: Annotated[list[str], operator.add]

    def one(state: State) -> Any:
        return {"n": 1, "log": ["x" * 50]}

    def ask(state: State) -> Any:
        if asks and state["n"] > 2:
            interrupt("go on?")
        return {"n": 1}

    inner = StateGraph(State).add_node("i", ask).add_node("j", one).add_edge(START, "i").add_edge("i", "j")
    for stable in (None, True):
        sub = inner.compile(checkpointer=stable)
        outer = StateGraph(State).add_node("a", one).add_node("s", sub)
        outer.add_node("twice", lambda state, sub=sub: {"n": sub.invoke({"n": 0, "log": []})["n"]})
        outer.add_edge(START, "a").add_edge("a", "s").add_edge("s", "twice")
        outer.add_conditional_edges("twice", lambda state: "a" if state["n"] < 40 else END)
        graph = outer.compile(checkpointer=both.store.saver)
        where = config(f"stable={stable}")
        result = graph.invoke({"n": 1, "log": []}, where, durability=durability)
        for _ in range(3):
            if "__interrupt__" in result:
                result = graph.invoke(Command(resume="yes"), where, durability=durability)
                assert both.verify(deep=True) == []
        graph.update_state(where, {"n": 1})
        assert both.verify(deep=True) == []
        assert both.stats().garbage == 0


def test_namespaces_above() -> None:
    assert namespace_above("") == namespace_above("a") == namespace_above("a:1|2|3") == ""
    assert namespace_above("a|1|b") == "a|1"
    assert namespace_above("a|b:1|2") == "a"


def test_verify_while_others_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoint.verify.PAGE_ROWS", 3)
    monkeypatch.setattr("checkpoint.verify.VIEW_ROWS", 3)
    for saver in (InMemorySaver(), SqliteSaver(path)):
        with saver:
            stories = [Story(saver, thread_id) for thread_id in "abc"]
            runs = [ScriptedRun(story.store, config(story.thread_id)) for story in stories]
            run = saver._verification(None, True)
            n = 0
            while not run.done:
                saver._look(run)
                n += 1
                going = runs[n % 3]
                if n == 20:
                    saver.delete_thread("c")
                    runs[2] = ScriptedRun(Story(saver, "c").store, config("c"))
                elif n < 60 and n % 4:
                    writes = [going.task(f"{n}", [("l", [n])])]
                    going.step({"l": [*going.values["l"], message(n)], "doc": f"{n}" * 500}, writes=writes)
            assert n > 40
            assert run.problems == []
            assert saver.verify(deep=True) == []


def test_verify_while_a_thread_is_deleted_in_batches(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoint.verify.VIEW_ROWS", 3)
    for n_steps in range(1, 12):
        path.unlink(missing_ok=True)
        with SqliteSaver(path) as saver:
            for thread_id in ("a", "t", "z"):
                Story(saver, thread_id)
            run = saver._verification(None, True)
            for _ in range(n_steps):
                saver._look(run)
            with saver._writing() as tx:
                # As far as a deletion got that was stopped, or goes on.
                tx.conn.execute("UPDATE threads SET thread_id = NULL, epoch = -1 WHERE thread_id = 't'")
                tx.conn.execute("DELETE FROM payloads WHERE space_pk IN (SELECT space_pk FROM spaces JOIN threads "
                                "USING (thread_pk) WHERE thread_id IS NULL)")  # fmt: skip
            while not run.done:
                saver._look(run)
            assert run.problems == []
            assert saver.verify(deep=True) == []
            assert list(saver.thread_ids()) == ["a", "z"]


# ---- figures


def cover(both: Both) -> int:
    """Bytes by which the cipher of the tests makes a body longer."""
    return 28 if isinstance(both.store.saver.serde, EncryptedSerializer) else 0


def test_figures(both: Both) -> None:
    story = Story(both.store.saver)
    stats = both.stats()
    assert (stats.threads, stats.checkpoints, stats.stubs, stats.task_rows) == (1, 14, 0, 6)
    assert stats.chain_lengths == {"l": 5, "s": 2, "doc": 1, "big": 1, "x": 1, "f": 1}
    # A text of more than 255 bytes takes 3 more, else 2; a message 222, and each row of the list 1.
    more = cover(both)
    assert stats.bytes_by_channel == {
        "big": 20_003 + more,
        "doc": 2 * (3003 + more),
        "l": 6 * 222 + 5 * (1 + more),
        "f": 4 * (102 + more),
        "x": 2 * (102 + more),
        "s": 102 + 31 + 2 * more,
    }
    assert stats.garbage == 0
    total = sum(stats.bytes_by_channel.values()) + stats.task_bytes + stats.header_bytes
    assert list(stats.biggest_threads) == [("t", total)]
    assert both.stats(top=0).biggest_threads == []
    if isinstance(story.store.saver, SqliteSaver):
        assert stats.file_bytes + stats.wal_bytes > total
    else:
        assert (stats.file_bytes, stats.wal_bytes) == (0, 0)
    with pytest.raises(ValueError, match="top"):
        both.stats(top=-1)
    with pytest.raises(ValueError, match="thread_id"):
        both.stats({"configurable": {}})


# ---- damage in a file


def flip(table: str, column: str, where: str) -> Callable[[sqlite3.Connection], None]:
    """One bit of the middle byte of the first such body."""

    def damage(conn: sqlite3.Connection) -> None:
        keys = "space_pk, rev" if table == "checkpoints" else "space_pk, chan, root, seq, part"
        if table == "task_writes":
            keys = "space_pk, rev, task_id, slot, part"
        select = f"SELECT {column}, {keys} FROM {table} WHERE {where} ORDER BY {keys} LIMIT 1"
        stored, *key = conn.execute(select).fetchone()
        is_text = isinstance(stored, str)
        body = bytearray(stored.encode() if is_text else stored)
        body[len(body) // 2] ^= 0x80 if is_text else 1
        value = "CAST(? AS TEXT)" if is_text else "?"
        places = ", ".join("?" * len(key))
        conn.execute(f"UPDATE {table} SET {column} = {value} WHERE ({keys}) = ({places})", (bytes(body), *key))

    return damage


def sql(*statements: str) -> Callable[[sqlite3.Connection], None]:
    def damage(conn: sqlite3.Connection) -> None:
        for statement in statements:
            assert conn.execute(statement).rowcount > 0, statement

    return damage


def swap(conn: sqlite3.Connection) -> None:
    rows = conn.execute(f"SELECT data, crc FROM payloads WHERE {L} AND seq IN (2, 3) ORDER BY seq DESC").fetchall()
    for seq, row in zip((2, 3), rows, strict=True):
        conn.execute(f"UPDATE payloads SET data = ?, crc = ? WHERE {L} AND seq = ?", (*row, seq))


SPACE = "space_pk = (SELECT space_pk FROM spaces JOIN threads USING (thread_pk) WHERE thread_id = 't' AND ns = '{}')"
ROOT, CHILD, SUB, FORKS, PUT = (SPACE.format(ns) for ns in ("", "child:1", "sub", "forks", "put"))
# Channels get their numbers in the order of the first step.
L, DOC, BIG = (f"{ROOT} AND chan = {n}" for n in range(1, 4))  # the number 0 is that of `n`, which lives in the header


def nth(space: str, n: int) -> str:
    return f"{space} AND rev = (SELECT rev FROM checkpoints WHERE {space} ORDER BY rev LIMIT 1 OFFSET {n})"


def root(*numbers: int) -> set[tuple[str, int]]:
    return {("", n) for n in numbers}


class Case(NamedTuple):
    damage: Callable[[sqlite3.Connection], None]
    problems: list[tuple[str, int | str | None, str | None]]
    """(namespace, number of the checkpoint in it, channel), in the order of namespaces."""
    damaged: set[tuple[str, int]]
    """Checkpoints that cannot be read."""
    gone: set[tuple[str, int]] = set()
    """Checkpoints that the damage has removed."""
    kept: set[tuple[str, int]] = set()
    """Damaged ones that a repair makes readable again."""


CASES: dict[str, Case] = {
    "a full body": Case(flip("payloads", "data", BIG), [("", 0, "big")], root(*range(6))),
    "a delta": Case(flip("payloads", "data", f"{L} AND seq = 2"), [("", 2, "l")], root(2, 3, 4, 5)),
    "a part": Case(flip("payloads", "data", f"{DOC} AND part = 2"), [("", 0, "doc")], root(*range(5))),
    "a header": Case(flip("checkpoints", "header", nth(ROOT, 3)), [("", 3, None)], root(3, 4, 5)),
    "a full header": Case(
        flip("checkpoints", "header", CHILD), [("child:1", 0, None)], {("child:1", 0), ("child:1", 1)}
    ),
    "metadata": Case(flip("checkpoints", "metadata", nth(ROOT, 4)), [("", 4, None)], root(4, 5)),
    "task rows": Case(flip("checkpoints", "task_data", nth(ROOT, 1)), [("", 1, None)], root(1), kept=root(1)),
    "a part of task rows": Case(
        flip("task_writes", "data", f"{ROOT} AND part = 1"), [("", 2, None)], root(2), kept=root(2)
    ),
    "the path of a task": Case(
        sql(f"UPDATE checkpoints SET task_path = task_path || 'x' WHERE {nth(ROOT, 1)}"),
        [("", 1, None)],
        root(1),
        kept=root(1),
    ),
    "the id of a task": Case(
        sql(f"UPDATE task_writes SET task_id = 'other' WHERE task_id = 'wide' AND {ROOT}"),
        [("", 2, None)],
        root(2),
        kept=root(2),
    ),
    "a question": Case(
        flip("task_writes", "data", f"{ROOT} AND slot = -3"), [("", 2, "__interrupt__")], root(2), kept=root(2)
    ),
    "rows swapped": Case(swap, [("", 2, "l"), ("", 3, "l")], root(2, 3, 4, 5)),
    "a row gone": Case(sql(f"DELETE FROM payloads WHERE {L} AND seq = 3"), [("", 3, "l")], root(3, 4, 5)),
    "the last row gone": Case(sql(f"DELETE FROM payloads WHERE {L} AND seq = 4"), [("", 4, "l")], root(4, 5)),
    "a chain gone": Case(sql(f"DELETE FROM payloads WHERE {BIG}"), [("", 0, "big")], root(*range(6))),
    "a part gone": Case(
        sql(f"DELETE FROM payloads WHERE {DOC} AND part = 1"), [("", 0, "doc"), ("", 5, "doc")], root(*range(6))
    ),
    "first part gone": Case(
        sql(f"DELETE FROM payloads WHERE {DOC} AND part = 0"), [("", 0, "doc"), ("", 5, "doc")], root(*range(6))
    ),
    "last part gone": Case(
        sql(f"DELETE FROM payloads WHERE {DOC} AND part = 3"), [("", 0, "doc"), ("", 5, "doc")], root(*range(6))
    ),
    "a part of tasks gone": Case(
        sql("DELETE FROM task_writes WHERE part = 1 AND task_id = 'wide' AND " + ROOT),
        [("", 2, None)],
        root(2),
        kept=root(2),
    ),
    "a head to nowhere": Case(
        sql(f"UPDATE spaces SET head_rev = head_rev + 7 WHERE {ROOT}"), [("", None, None)], set()
    ),
    "a parent gone": Case(
        sql(f"DELETE FROM checkpoints WHERE {nth(FORKS, 1)}"),
        [("forks", 3, None)],
        {("forks", 3)},
        gone={("forks", 1)},
        kept={("forks", 3)},
    ),
    "a header gone": Case(
        sql(f"DELETE FROM task_writes WHERE {nth(ROOT, 2)}", f"DELETE FROM checkpoints WHERE {nth(ROOT, 2)}"),
        [("", 3, None)],
        root(3, 4, 5),
        gone=root(2),
    ),
    "a full header gone": Case(
        sql(f"DELETE FROM checkpoints WHERE {nth(CHILD, 0)}"),
        [("child:1", 1, None)],
        {("child:1", 1)},
        gone={("child:1", 0)},
    ),
    "a checkpoint gone, its tasks not": Case(
        sql(f"DELETE FROM checkpoints WHERE {nth(ROOT, 3)}"),
        [("", 4, None)],
        root(4, 5),
        gone=root(3),
    ),
    "an up to nowhere": Case(
        sql(f"UPDATE checkpoints SET up_rev = up_rev + 999, row_crc = NULL WHERE {nth(CHILD, 1)}"),
        [("child:1", 1, None)],
        {("child:1", 1)},
        kept={("child:1", 1)},
    ),
    "another time": Case(sql(f"UPDATE checkpoints SET ts = ts + 1 WHERE {nth(ROOT, 5)}"), [("", 5, None)], root(5)),
    "a source without meaning": Case(
        sql(f"UPDATE checkpoints SET source = 9 WHERE {nth(ROOT, 5)}"), [("", 5, None)], root(5)
    ),
}


def damage(path: Path, how: Callable[[sqlite3.Connection], None]) -> None:
    with closing(sqlite3.connect(path)) as conn, conn:
        how(conn)


def places(problems: Any) -> list[tuple[str, str | None, str | None]]:
    return [(problem.ns, problem.checkpoint_id, problem.channel) for problem in problems]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("make_serde", [lambda: None, encrypting], ids=["plain", "encrypted"])
def test_damage(path: Path, name: str, make_serde: Callable[[], Any]) -> None:
    case = CASES[name]
    serde = make_serde()
    with SqliteSaver(path, serde=serde) as saver:
        before, story, after = (Story(saver, thread_id) for thread_id in ("a", "t", "z"))
    damage(path, case.damage)
    with SqliteSaver(path, serde=serde) as saver:
        for told in (before, story, after):
            told.store = Store(saver, False)
            told.check(*((case.damaged, case.gone) if told is story else ()))
        expected = [
            (ns, None if n is None else story.steps[ns][n].id, channel)  # type: ignore[index]
            for ns, n, channel in case.problems
        ]
        for deep, is_async in ((False, False), (False, True), (True, False), (True, True)):
            problems = Both(saver, is_async).verify(deep=deep)
            assert {problem.thread_id for problem in problems} == {"t"}
            assert places(problems) == expected, problems
            assert saver.verify(config("t"), deep=deep) == problems
            assert saver.verify(config("a"), deep=deep) == []
        if name == "a head to nowhere" or ("", 5) in case.damaged:
            with pytest.raises(CorruptCheckpointError):
                saver.load(config("t"))

        holder = ScriptedRun(story.store, config("a"))
        done = Both(saver, len(name) % 2 == 0).repair(config("t"))
        assert {repair.thread_id for repair in done} == {"t"}
        assert saver.verify(deep=True) == []
        removed = case.gone | (case.damaged - case.kept)
        lost = {story.steps[ns][n].id for ns, n in removed}
        for _, stored in story.all():
            if stored.parent_id in lost:
                stored.parent_id = None
        story.check(gone=removed)
        before.check()
        after.check()
        holder.step({"n": 100})
        going = ScriptedRun(story.store, config("t"))
        left = [n for n in range(6) if ("", n) not in removed]
        assert going.id == (story.ids[left[-1]] if left else None)
        going.step({"n": 100})
        assert saver.verify(deep=True) == []
        assert saver.repair(config("t")) == []


def test_an_alias_that_leads_elsewhere(path: Path) -> None:
    with SqliteSaver(path) as saver:
        story = Story(saver)
        story.put("mine")
        story.put("other")
    where = config("t", "put", "mine")
    for how, is_gone in (
        (sql("UPDATE aliases SET rev = (SELECT max(rev) FROM aliases) WHERE id = 'mine'"), False),
        (sql("DELETE FROM aliases WHERE id = 'mine'"), True),
    ):
        damage(path, how)
        with SqliteSaver(path) as saver:
            problems = saver.verify()
            # It leads elsewhere, and it is not found by its id.
            expected = [("put", "mine", None)] * (1 if is_gone else 2)
            assert places(problems) == expected
            if is_gone:
                assert saver.get_tuple(where) is None
            else:
                with pytest.raises(CorruptCheckpointError) as caught:
                    saver.get_tuple(where)
                assert (caught.value.thread_id, caught.value.checkpoint_id) == ("t", "mine")
            assert len(saver.repair(config("t"))) == len(expected)
            assert saver.verify(deep=True) == []
            found = saver.get_tuple(where)
            assert found is not None
            assert found.checkpoint["channel_values"] == {"v": "v" * 100}


def test_a_pointer_to_a_nested_namespace_that_leads_nowhere(path: Path) -> None:
    with SqliteSaver(path) as saver:
        story = Story(saver)
    damage(path, sql(f"DELETE FROM checkpoints WHERE {nth(SUB, 1)}"))
    with SqliteSaver(path) as saver:
        # Its head is gone as well; the pointer stands in a header since the second checkpoint.
        assert places(saver.verify()) == [("", story.ids[1], None), ("sub", None, None)]
        loaded = saver.load(config("t"))
        target = loaded.sub["sub"]
        with pytest.raises(CorruptCheckpointError) as caught:
            saver.load(config("t", "sub"), claim=loaded.claim, at_rev=target)
        assert (caught.value.thread_id, caught.value.ns) == ("t", "sub")
        saver.repair(config("t"))
        assert saver.verify(deep=True) == []
        story.store = Store(saver, False)
        story.check(gone={("sub", 1)})
        loaded = saver.load(config("t"))
        # The row is gone that said what came before: nobody guesses.
        assert loaded.sub == {}
        assert saver.load(config("t", "sub")).values == {"s": "s" * 100}
    damage(path, flip("payloads", "data", SUB))


def test_a_pointer_moves_to_what_can_be_read(path: Path) -> None:
    with SqliteSaver(path) as saver:
        story = Story(saver)
    damage(path, flip("payloads", "data", f"{SUB} AND seq = 1"))
    with SqliteSaver(path) as saver:
        older, newer = (stored.rev for stored in story.steps["sub"])
        assert saver.load(config("t")).sub == {"sub": newer}
        saver.repair(config("t"))
        assert saver.verify(deep=True) == []
        loaded = saver.load(config("t"))
        assert loaded.sub == {"sub": older}
        assert saver.load(config("t", "sub"), claim=loaded.claim, at_rev=older).values == {"s": "s" * 100}


@pytest.mark.parametrize("order", [("sub", "other"), ("other", "sub")])
@pytest.mark.parametrize("is_lost", [True, False])
def test_pointers_beside_one_that_is_mended_stay(path: Path, is_lost: bool, order: tuple[str, str]) -> None:
    with SqliteSaver(path) as saver:
        store = Store(saver, False)
        run = ScriptedRun(store)
        run.step({"n": 0})
        targets = {}
        for ns in order:
            nested = ScriptedRun(store, config("t", ns), claim=run.claim, up_rev=run.rev)
            nested.step({"v": ns * 100})
            targets[ns] = nested.rev
            run.step({"n": ns}, sub={ns: nested.rev})
        run.step({"n": 1})
        with_both = run.stored[-2:]
    damage(path, sql(f"DELETE FROM checkpoints WHERE {SUB}") if is_lost else flip("payloads", "data", SUB))
    with SqliteSaver(path) as saver:
        saver.repair(config("t"))
        assert saver.verify(deep=True) == []
        for stored in with_both:
            loaded = saver.load(stored.config)
            assert loaded.sub == {"other": targets["other"]}
            nested = saver.load(config("t", "other"), claim=loaded.claim, at_rev=targets["other"])
            assert nested.values == {"v": "other" * 100}


def test_encrypted_rows_need_the_key(path: Path) -> None:
    with SqliteSaver(path, serde=encrypting()) as saver:
        Story(saver)
        assert saver.verify(deep=True) == []
    with SqliteSaver(path) as saver:
        for call in (saver.verify, saver.stats):
            with pytest.raises(CheckpointError) as caught:
                call()
            assert not isinstance(caught.value, CorruptCheckpointError)
        with pytest.raises(CheckpointError):
            saver.repair(config("t"))
    with SqliteSaver(path, serde=EncryptedSerializer(BindingCipher(b"other"))) as saver:
        # No header opens; nothing can be said of what they refer to.
        problems = saver.verify()
        assert {problem.ns for problem in problems} == {"", "child:1", "sub", "forks"}
    with SqliteSaver(path, serde=encrypting()) as saver:
        assert saver.verify(deep=True) == []


def test_rows_to_which_nothing_refers(path: Path) -> None:
    with SqliteSaver(path) as saver:
        story = Story(saver)
    columns = "kind, tag, crc, data"
    for what in (
        f"SELECT space_pk, chan, root, seq + 1, part, {columns} FROM payloads WHERE {L} AND seq = 4",
        f"SELECT space_pk, chan + 90, root, seq, part, {columns} FROM payloads WHERE {BIG}",
    ):
        damage(path, sql(f"INSERT INTO payloads (space_pk, chan, root, seq, part, {columns}) {what}"))
    damage(path, sql(f"UPDATE task_writes SET rev = rev + 99 WHERE {ROOT} AND task_id = 'ask'"))
    with SqliteSaver(path) as saver:
        problems = saver.verify()
        assert places(problems) == [("", None, None), ("", None, "l"), ("", None, None)]
        assert saver.verify(deep=True)[0] == problems[0]
        assert saver.stats().garbage > 20_000
        assert len(saver.repair(config("t"))) == 3
        assert saver.verify(deep=True) == []
        assert saver.stats().garbage == 0
        story.store = Store(saver, False)
        story.check()


def test_marks_of_removed_checkpoints_explain_what_is_missing(path: Path) -> None:
    with SqliteSaver(path) as saver:
        story = Story(saver)
    forks = "(SELECT rev FROM checkpoints WHERE " + FORKS + " ORDER BY rev LIMIT 2)"
    damage(
        path,
        sql(
            "UPDATE checkpoints SET parent_rev = NULL, flags = flags | 2, row_crc = NULL "
            f"WHERE parent_rev IN {forks} AND {FORKS}",
            f"DELETE FROM checkpoints WHERE rev IN {forks} AND {FORKS}",
        ),
    )
    with SqliteSaver(path) as saver:
        assert saver.verify(deep=True) == []
        assert saver.stats().garbage == 204
        story.store = Store(saver, False)
        for stored in story.steps["forks"][2:]:
            stored.parent_id = None
        story.check(gone={("forks", 0), ("forks", 1)})


def test_a_run_that_holds_the_thread_is_refused_after_a_repair(both: Both) -> None:
    saver = both.store.saver
    Story(saver)
    running, other = ScriptedRun(both.store), ScriptedRun(both.store, config("t"))
    running.step({"n": 6})
    other = ScriptedRun(both.store)
    spoil(saver)
    assert len(both.verify(config("t"))) == 1
    assert both.repair(config("t"))
    assert both.verify(deep=True) == []
    for run in (running, other):
        with pytest.raises(CheckpointConflictError):
            run.step({"n": 7})
    ScriptedRun(both.store).step({"n": 7})
    with pytest.raises(ValueError, match="nearest"):
        both.repair(config("t"), to="oldest")


def spoil(saver: Any) -> None:
    """Take the last chain row of the list away."""
    if isinstance(saver, InMemorySaver):
        del saver._threads["t"].spaces[""].payloads[1, saver._threads["t"].spaces[""].lines.copy().popitem()[0]][4:]
    else:
        with saver._writing() as tx:
            tx.conn.execute(f"DELETE FROM payloads WHERE {L} AND seq = 4")


def test_damage_in_memory() -> None:
    """Nothing can damage it but a mistake of ours, which is found the same way."""
    for spoiled, expected, gone in (
        ("parent", ("forks", 3), {("forks", 1)}),
        ("header", ("", 3), {("", 2), ("", 3), ("", 4), ("", 5)}),
        ("body", ("", 1), {("", n) for n in range(1, 6)}),
        ("task", ("", 1), set()),
    ):
        saver = InMemorySaver()
        story = Story(saver)
        spaces = saver._threads["t"].spaces
        if spoiled in ("parent", "header"):
            ns, rev = ("forks", story.steps["forks"][1].rev) if spoiled == "parent" else ("", story.steps[""][2].rev)
            root = spaces[ns].checkpoints.pop(rev)[10]
            spaces[ns].lines[root].remove(rev)
            spaces[ns].writes.pop(rev, None)
        elif spoiled == "body":
            spaces[""].payloads[1, story.steps[""][0].rev][1] = None, b"\xc1"
        else:
            rev = story.steps[""][1].rev
            (row,) = [spaces[""].writes[rev]]
            spaces[""].writes[rev] = (*row[:5], b"\xc1")  # type: ignore[misc]
        problems = saver.verify(deep=True)
        ns, n = expected
        assert [(problem.ns, problem.checkpoint_id) for problem in problems] == [(ns, story.steps[ns][n].id)], spoiled
        assert saver.repair(config("t"))
        assert saver.verify(deep=True) == []
        lost = {story.steps[ns][n].id for ns, n in gone}
        for _, stored in story.all():
            if stored.parent_id in lost:
                stored.parent_id = None
        story.check(gone=gone)


def test_a_file_that_sqlite_cannot_read(path: Path) -> None:
    with SqliteSaver(path) as saver:
        for thread_id in "abcdef":
            Story(saver, thread_id)
    with closing(sqlite3.connect(path)) as conn:
        page_size = conn.execute("PRAGMA page_size").fetchone()[0]
        pages = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'payloads'").fetchone()
    with open(path, "r+b") as file:
        file.seek((pages[0] - 1) * page_size)
        file.write(b"\xff" * page_size)
    with SqliteSaver(path) as saver:
        with pytest.raises(CorruptCheckpointError) as caught:
            saver.load(config("a"))
        assert caught.value.thread_id == "a"
        problems = saver.verify()
        assert {problem.thread_id for problem in problems} == set("abcdef")
        deep = saver.verify(deep=True)
        assert deep[0][:4] == (None, None, None, None)
        assert isinstance(deep[0], Problem)
        with pytest.raises(CorruptCheckpointError):
            saver.repair(config("a"))


def test_rows_that_are_not_in_the_order_of_their_keys(path: Path) -> None:
    """A flipped bit in a key: SQLite finds nothing wrong, and a page that begins behind the last one may be the same."""
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False), config("t"))
        for number in range(120):
            run.step({"n": number})
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA journal_mode = DELETE")
        (own,) = conn.execute("SELECT id FROM checkpoints ORDER BY rev LIMIT 1 OFFSET 60").fetchone()
    data = path.read_bytes()
    assert data.count(own) == 1
    place = data.index(own) - 1  # the last byte of the revision, which is stored before it
    path.write_bytes(data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :])
    with SqliteSaver(path) as saver:
        assert [problem.thread_id for problem in saver.verify()] == ["t"]
        for look in (saver.stats, lambda: list(saver.list(config("t"))), lambda: saver.repair(config("t"))):
            with pytest.raises(CorruptCheckpointError):
                look()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("flags", b"x"),
        ("step", b"x"),
        ("header_root", b"x"),
        ("parent_rev", b"x"),
        ("ts", 10**18),
        ("ts", b"x"),
        ("id", 5),
    ],
)
def test_values_that_a_column_cannot_have(path: Path, column: str, value: Any) -> None:
    """One bit makes a number a blob; rows of version 1 have no checksum of their columns."""
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False), config("t"))
        for number in range(4):
            run.step({"n": number})
    with closing(sqlite3.connect(path)) as conn, conn:
        last = "rev = (SELECT max(rev) FROM checkpoints)"
        conn.execute(f"UPDATE checkpoints SET {column} = ?, row_crc = NULL WHERE {last}", (value,))
    with SqliteSaver(path) as saver:
        for read in (saver.get_tuple, saver.load, lambda where: list(saver.list(where))):
            with pytest.raises(CorruptCheckpointError):
                read(config("t"))
        assert {problem.thread_id for problem in saver.verify()} == {"t"}
