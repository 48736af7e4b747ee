"""A call with a run id: what it finds, where it begins, and how inputs are told apart."""

import dataclasses
import datetime
import enum
import subprocess
import sys
import uuid
from collections import namedtuple
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest

from pregel.engine import repeat
from pregel.engine.contents import of_input
from pregel.engine.repeat import Called
from pregel.errors import RunIdReusedError
from pregel.messages import Message
from pregel.types import Command, Send
from tests.support.dummies import (
    dummy_loaded,
    dummy_program,
    dummy_request,
    dummy_run,
    match,
    node,
    null,
    rows_of,
    stored,
    superstep,
)

X: Any = {"x": 1}


def called(value: Any = X, run_id: str = "r") -> Called:
    return Called(dummy_program(), run_id, value)


def request_of(call: Called, **fields: Any) -> Any:
    return dummy_request(called=call, stores=True, thread_id="t", **fields)


def head(run_id: str | None = None, **fields: Any) -> Any:
    """A stored checkpoint of a run."""
    loaded = dummy_loaded(values={"x": 1}, **fields)
    if run_id is not None:
        loaded.metadata["run_id"] = run_id
    return loaded


def fact(call: Called) -> dict[str, Any]:
    return {"call": [call.run_id, call.digest]}


# ---- what it finds


def test_an_empty_thread_knows_no_run():
    call = called()
    assert not repeat.meets(request_of(call), dummy_loaded())
    assert not repeat.meets(request_of(call), head())
    assert not repeat.meets(request_of(call), head("other", facts=fact(called(run_id="other"))))
    match(call, mode="new", first=True, passes=False)


def test_the_newest_checkpoint_is_the_runs():
    call = called()
    assert repeat.meets(request_of(call), head("r", facts=fact(call)))
    match(call, mode="again", passes=False)


def test_a_record_is_the_runs():
    call = called(Command(resume="A"))
    row = stored("some", [(repeat.RECORD, ["r", call.digest, 0])])
    assert repeat.meets(request_of(call), head("other", writes=[null([("x", 2)]), row]))
    match(call, mode="again", passes=True)


def test_another_input_of_the_newest_run():
    with pytest.raises(RunIdReusedError):
        repeat.meets(request_of(called({"x": 2})), head("r", facts=fact(called())))


def test_nothing_is_known_of_its_input():
    call = called({"x": 2})
    assert repeat.meets(request_of(call), head("r", facts=fact(called(run_id="other"))))
    assert call.mode == "again"


def test_a_command_of_a_run_that_began_otherwise():
    call = called(Command(resume="A"))
    assert repeat.meets(request_of(call), head("r", facts=fact(called())))
    match(call, mode="new", first=False)
    with pytest.raises(RunIdReusedError):
        repeat.meets(request_of(called(Command(resume="B"))), head("r", facts=fact(call)))


def test_an_older_run_that_ended():
    call = called()
    past = head("r", facts={**fact(call), "origin": "a"}, seen={"a": {"x": 1}})
    assert repeat.recalls(request_of(call), past, head("s", facts={"origin": "b"}), answered=False) is past
    assert call.mode == "past"


@pytest.mark.parametrize(("origin", "mode"), [("a", "again"), ("b", "new")])
def test_an_older_run_that_was_cut_off(origin, mode):
    call = called()
    past = head("r", facts={**fact(call), "origin": "a"})
    now = head("s", facts={"origin": origin})
    assert repeat.recalls(request_of(call), past, now, answered=False) is (now if mode == "again" else None)
    assert call.mode == mode


@pytest.mark.parametrize("fields", [{"facts": {"stopped": 0}}, {"facts": {}, "before": ["a"]}])
def test_an_older_run_that_stopped(fields):
    call = called()
    past = head("r", facts={**fact(call), "origin": "a", **fields["facts"]})
    request = request_of(call, interrupt_before=fields.get("before", ()))
    assert repeat.recalls(request, past, head("s"), answered=False) is past


def test_looking_at_a_checkpoint_changes_nothing_of_it():
    past = head("r", writes=[null([("x", 5)])])
    before = dict(past.versions), dict(past.seen)
    repeat.has_ended(request_of(called()), past)
    assert (past.versions, past.seen) == before


# ---- how it begins


def test_the_first_call_is_remembered_with_its_input():
    call = called()
    run = dummy_run(stores=True, called=call)
    (commit,) = run.start(X)
    assert {**commit.facts, "graph": None} == {**fact(call), "origin": "run r", "graph": None}
    assert (commit.run_id, commit.source) == (None, "input")


def test_an_answer_leaves_a_record():
    call = called(Command(resume="A"))
    run = dummy_run(loaded=head("other"), called=call)
    (commit,) = run.start(call.value)
    assert rows_of(commit) == [(-4, [("__resume__", "A")]), (0, [(repeat.RECORD, ["r", call.digest, 0])])]
    made = superstep(run, {"a": [("y", 1)]})
    assert made is not None
    assert made.facts["call"] == ["r", call.digest]


def test_a_run_that_goes_on_remembers_the_records_of_others():
    row = stored("some", [(repeat.RECORD, ["r", "digest", 0])])
    run = dummy_run(loaded=head("other", writes=[row], facts={"origin": "o"}))
    run.start(None)
    made = superstep(run, {"a": [("y", 1)]})
    assert made is not None
    assert made.facts["answered"] == [["r", "digest", "stored-0", "o", False]]
    later = dummy_run(loaded=head("s", facts=dict(made.facts)))
    assert repeat.answered_at(request_of(called()), later.loaded) == "stored-0"
    assert repeat.answered_at(request_of(called(run_id="x")), later.loaded) is None


def test_not_every_record_is_remembered_for_ever():
    known = [[f"r{n}", "d", "c", None, True] for n in range(repeat.MAX_ANSWERED)]
    row = stored("some", [(repeat.RECORD, ["new", "d", 0])])
    run = dummy_run(loaded=head("other", writes=[row], facts={"answered": known}))
    run.start(None)
    assert [item[0] for item in run.facts["answered"]] == [*(f"r{n}" for n in range(1, repeat.MAX_ANSWERED)), "new"]


def test_a_call_that_is_made_again_stores_nothing():
    call = called()
    call.mode = "again"
    run = dummy_run(loaded=head("r", facts=fact(call), seen={"a": {"x": 1}}), called=call)
    assert run.start(X) == []
    assert run.plan() is None
    assert run.status == "done"
    assert run.close() is None


def test_a_past_result_runs_nothing():
    call = called()
    call.mode = "past"
    run = dummy_run(loaded=head("r", facts=fact(call)), called=call)
    assert run.start(X) == []
    match(run, phase="done", status="interrupt_before")


def test_a_stop_is_remembered_with_the_superstep():
    program = dummy_program({"a": node(), "b": node("y")})
    for call in (called(), None):
        run = dummy_run(program, stores=True, called=call, interrupt_after=["a"])
        run.start(X)
        made = superstep(run, {"a": [("y", 1)]})
        assert made is not None
        assert made.facts == ({} if call is None else {"stopped": 0})
        assert run.facts_changed == {}


# ---- telling inputs apart


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


class Model(pydantic.BaseModel):
    a: int
    b: list[str] = []


Pair = namedtuple("Pair", "a b")

DIFFERENT: list[Any] = [
    None, 0, 1, True, False, 1.0, "1", b"1", "", b"", [], {}, (), set(), [1], (1,), {1}, [[1]], [1, [2]], [[1], 2],
    [[1, 2]], {"a": 1}, {"a": 2}, {"b": 1}, {"a": 1, "b": 2}, {1: 1}, Colour.RED, Colour.BLUE, Point(1), Point(2),
    Point(1, 1), Point(Point(1)), Model(a=1), Model(a=2), Model(a=1, b=["x"]), Pair(1, 2), Decimal(1), Decimal("1.0"),
    uuid.UUID(int=1), uuid.UUID(int=2), datetime.date(2026, 1, 1), datetime.date(2026, 1, 2), Command(resume="A"),
    Command(resume="B"), Command(goto="A"), Command(goto=Send("n", 1)), Command(goto=Send("n", 2)), Send("m", 1),
    Message(role="user", content="a"), Message(role="user", content="b"), Message(role="ai", content="a"),
    {"messages": [Message(role="user", content="a")]}, "ab", ["a", "b"], ["ab"], ["a", ["b"]], "\ud800",
]  # fmt: skip


def test_different_inputs_differ():
    digests = [of_input(value) for value in DIFFERENT]
    doubles = [
        (a, b) for n, a in enumerate(DIFFERENT) for m, b in enumerate(DIFFERENT) if n < m and digests[n] == digests[m]
    ]
    assert doubles == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a", "b", "c"}, {"c", "b", "a"}),
        (Message(role="user", content="a"), Message(role="user", content="a", id="given-since")),
        ([X, X], [dict(X), dict(X)]),
    ],
)
def test_equal_inputs_are_equal(one, other):
    assert of_input(one) == of_input(other)


def test_objects_without_content_count_as_their_type():
    assert of_input(SimpleNamespace(a=1)) == of_input(SimpleNamespace(a=2)) != of_input(object())


def test_an_input_that_contains_itself():
    loop: list[Any] = [1]
    loop += [loop, {"again": loop}]
    assert of_input(loop) == of_input(loop) != of_input([1])


def test_every_process_makes_the_same():
    code = "from pregel.engine.contents import of_input; print(of_input({'a': {'x', 'y', 'z'}, 'b': [1, None, 'c']}))"
    there = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert there == {of_input({"b": [1, None, "c"], "a": {"z", "y", "x"}}) + "\n"}
