"""Rows of commits: which op becomes which row, and what a header costs."""

from typing import Any

import ormsgpack
import pytest

from checkpoint import deltas
from checkpoint.base import CorruptCheckpointError, StepCommit
from checkpoint.chains import HEADER, Codec, WriteRow, read_task
from checkpoint.deltas import APPEND, FULL, SPLICE, TEXT, Chain
from checkpoint.headers import fold
from checkpoint.memory import InMemorySaver
from tests.checkpoint.runs import GONE, ScriptedRun, Store


@pytest.fixture
def run() -> ScriptedRun:
    return ScriptedRun(Store(InMemorySaver(), False))


def encode(run: ScriptedRun, changes: dict[str, Any], **more: Any) -> Any:
    encoded = run.store.saver.encode(run.prepare(changes, **more))
    run.store.saver.write([encoded])
    return encoded


def rows(encoded: Any) -> list[tuple[int, int, int]]:
    """(seq, kind, bytes) of the payload rows."""
    return [(seq, kind, len(body)) for _, _, seq, kind, _, body in encoded.payloads]


def message(n: int = 0) -> dict[str, Any]:
    return {"n": n, "text": "x" * 100}


def test_small_values_live_in_the_header(run: ScriptedRun) -> None:
    assert rows(encode(run, {"a": 1, "b": "x" * 60, "c": None})) == []
    assert [kind for _, kind, _ in rows(encode(run, {"b": "x" * 100}))] == [FULL]
    assert rows(encode(run, {"b": "y"})) == []


def test_an_append_costs_the_new_elements(run: ScriptedRun) -> None:
    encode(run, {"l": [message(n) for n in range(20)]})
    one = len(run.store.saver.serde.dumps([message()]))
    for seq in range(1, 4):
        assert rows(encode(run, {"l": [*run.values["l"], message()]})) == [(seq, APPEND, one)]
    encode(run, {"t": "x" * 500})
    assert rows(encode(run, {"t": "x" * 510})) == [(1, TEXT, 11)]


def test_an_equal_value_costs_no_row(run: ScriptedRun) -> None:
    encode(run, {"l": [message()], "small": 1})
    before = run.values["l"]
    equal = encode(run, {"l": [message()], "small": 1})
    assert rows(equal) == []
    assert len(equal.row[HEADER]) < 10
    assert rows(encode(run, {"l": [*before]})) == []
    again = ScriptedRun(run.store)
    assert rows(encode(again, {"l": [message()]})) == []


def test_a_large_delta_becomes_a_full_value(run: ScriptedRun) -> None:
    encode(run, {"l": [message()]})
    assert [kind for _, kind, _ in rows(encode(run, {"l": [*run.values["l"], message(), message()]}))] == [FULL]


def test_a_written_element_that_stands_before_start_is_stored(run: ScriptedRun) -> None:
    old = [message(n) for n in range(10)]
    encode(run, {"l": old})
    encode(run, {"l": [*old, message()]})
    new = message()
    assert rows(encode(run, {"l": [*run.values["l"], new]}, written={"l": [new]}))[0][1] == APPEND
    old[3]["n"] = "edited"
    ((_, kind, n_bytes),) = rows(encode(run, {"l": [*run.values["l"]]}, written={"l": [old[3]]}))
    assert kind == SPLICE
    assert n_bytes < len(run.store.saver.serde.dumps(old[3])) + 20
    for stored in run.stored[-1:]:
        stored.check(run.store)


def test_an_equal_value_of_other_objects_is_looked_at_anew(run: ScriptedRun) -> None:
    first = [message(0), message(1)]
    encode(run, {"l": first})
    encode(run, {"l": [*first]}, written={"l": [message(9)]})
    equal = [message(0), message(1)]
    assert rows(encode(run, {"l": equal})) == []
    equal[0]["n"] = "edited"
    assert rows(encode(run, {"l": [*equal]}, written={"l": [equal[0]]}))[0][1] == FULL
    for stored in run.stored:
        stored.check(run.store)


def test_scalars_and_frozen_elements_need_no_check(run: ScriptedRun) -> None:
    element = ("same", ("nested", 1))
    encode(run, {"l": ["text" * 10, element] * 5})
    for written in ("text" * 10, element):
        assert rows(encode(run, {"l": [*run.values["l"], written]}, written={"l": [written]}))[0][1] == APPEND


def test_the_check_costs_the_delta(run: ScriptedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[int] = []
    index = Chain.index

    def counting(self: Chain, value: list[Any], end: int) -> None:
        learned.append(end - self.n_indexed)
        index(self, value, end)

    monkeypatch.setattr(Chain, "index", counting)
    encode(run, {"l": [message(n) for n in range(1000)]})
    for _ in range(20):
        new = message()
        encode(run, {"l": [*run.values["l"], new]}, written={"l": [new]})
    assert learned[0] == 1000
    assert sum(learned[1:]) == 20


def test_a_long_chain_gets_a_new_full_value(run: ScriptedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltas, "MAX_CHAIN_ROWS", 10)
    encode(run, {"l": [message()]})
    kinds = [rows(encode(run, {"l": [*run.values["l"], message()]}))[0][1] for _ in range(60)]
    # Full copies become rarer: each is followed by deltas of twice its size.
    fulls = [n for n, kind in enumerate(kinds) if kind == FULL]
    assert fulls == [10, 34]
    for stored in run.stored:
        stored.check(run.store)


def test_headers_of_a_loop_are_small(run: ScriptedRun) -> None:
    encode(run, {"l": [], "go": None})
    sizes = []
    for n in range(300):
        new = message(n)
        changes = {"l": [*run.values["l"], new], "go": None}
        sizes.append(len(encode(run, changes, seen={"node": {"go": n + 1}}).row[HEADER]))
    assert sum(sizes) / len(sizes) <= 25


def test_headers_of_a_wide_graph_are_small(run: ScriptedRun) -> None:
    names = [f"branch:to:{n}" for n in range(50)] + [f"key{n}" for n in range(20)]
    encode(run, dict.fromkeys(names, 0), seen={f"n{n}": {f"branch:to:{n}": 1} for n in range(50)})
    sizes = []
    for n in range(1000):
        at, to = n % 50, (n + 1) % 50
        changes: dict[str, Any] = {f"branch:to:{at}": GONE, f"branch:to:{to}": None, f"key{n % 20}": n}
        seen = {f"n{at}": {f"branch:to:{at}": run.versions[f"branch:to:{at}"]}}
        sizes.append(len(encode(run, changes, seen=seen).row[HEADER]))
    assert sum(sizes) / len(sizes) <= 60
    for stored in run.stored[::97]:
        stored.check(run.store)


def test_gone_and_back(run: ScriptedRun) -> None:
    for value in ([message()], GONE, 1, GONE, [message(), message()], [message(5)]):
        encode(run, {"a": value})
    for stored in run.stored:
        stored.check(run.store)
    assert run.stored[1].versions == {"a": 2}


def test_seen_maps_are_replaced_when_a_channel_is_dropped(run: ScriptedRun) -> None:
    encode(run, {"a": 1}, seen={"n": {"a": 1, "b": 1}, "m": {}})
    encode(run, {"a": 2}, seen={"n": {"b": 2}})
    encode(run, {"a": 3}, seen={"n": {"b": 2}})
    for stored in run.stored:
        stored.check(run.store)


def test_a_commit_cannot_fill_what_it_was_not_given(run: ScriptedRun) -> None:
    """All commits share it."""
    commit: Any = StepCommit(run.claim, "", "checkpoint")
    for name in ("values", "ops", "seen", "sub", "facts", "parents", "metadata"):
        with pytest.raises(TypeError):
            getattr(commit, name)["a"] = 1
        assert getattr(StepCommit(run.claim, "", "checkpoint"), name) == {}


def test_a_damaged_header_is_named() -> None:
    for damage in (b"\xff", ormsgpack.packb([1, 2]), ormsgpack.packb([["a"], [5, 1], [], [], [], [], -1])):
        with pytest.raises(CorruptCheckpointError):
            fold([(1, damage)])


@pytest.mark.parametrize("damage", [b"\xff", ormsgpack.packb(["a"]), ormsgpack.packb({"a": 1})])
def test_damaged_writes_of_a_task_are_named(damage: bytes) -> None:
    row = WriteRow(1, "task", 0, "", None, damage)
    with pytest.raises(CorruptCheckpointError, match="'task'"):
        read_task(row, Codec(InMemorySaver().serde), "c")
