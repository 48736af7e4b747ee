"""Questions, answers, breakpoints."""

import pytest

from pregel._scope import TaskScope
from pregel.constants import INTERRUPT, MISSING, RESUME, TAG_HIDDEN
from pregel.engine import pause
from pregel.engine.state import Answers
from pregel.engine.task import Task, interrupt_id
from pregel.errors import GraphInterrupt, Interrupt
from tests.support.dummies import dummy_program, dummy_run, node, null, stored

A, B = "a" * 32, "b" * 32


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({A: 1}, True),
        ({A: 1, B: None}, True),
        ({}, False),
        ({A: 1, "b": 2}, False),
        ({A[:-1]: 1}, False),
        ({A.upper(): 1}, False),
        ({7: 1}, False),
        (A, False),
        (None, False),
        ([(A, 1)], False),
    ],
)
def test_is_id_map(value, expected):
    assert pause.is_id_map(value) is expected


def asking(answers=None, known=None):
    run = dummy_run()
    run.answers = answers or Answers()
    task = Task(run.program.nodes["a"], None)
    task.answers = known
    return run, task, TaskScope(run, task, None)


def test_a_question_without_answer_stops_the_node():
    run, task, scope = asking()
    with pytest.raises(GraphInterrupt) as caught:
        pause.ask(run, scope, "ok?", {"type": "boolean"})
    assert caught.value.interrupts == (Interrupt("ok?", interrupt_id(run.ns_of(task), 0), {"type": "boolean"}),)
    assert (task.answers, scope.asked) == (None, 1)


def test_an_answer_reaches_its_question_and_no_other():
    run, task, scope = asking()
    ids = [interrupt_id(run.ns_of(task), n) for n in range(3)]
    run.answers = Answers({ids[1]: "two", ids[0]: "one", B: "other"})
    assert [pause.ask(run, scope, "q", None) for _ in range(2)] == ["one", "two"]
    assert task.answers == ["one", "two"]
    assert run.answers.by_id == {ids[1]: "two", ids[0]: "one", B: "other"}, "a node around it may be tried again"
    with pytest.raises(GraphInterrupt) as caught:
        pause.ask(run, scope, "q", None)
    assert caught.value.interrupts[0].id == ids[2]


def test_stored_answers_come_back_in_call_order():
    run, task, scope = asking(known=["one", None])
    assert [pause.ask(run, scope, "q", None) for _ in range(2)] == ["one", None]
    with pytest.raises(GraphInterrupt) as caught:
        pause.ask(run, scope, "q", None)
    assert caught.value.interrupts[0].id == interrupt_id(run.ns_of(task), 2)


def test_none_and_false_are_answers():
    run, task, scope = asking()
    run.answers = Answers({interrupt_id(run.ns_of(task), 0): None, interrupt_id(run.ns_of(task), 1): False})
    assert [pause.ask(run, scope, "q", None) for _ in range(2)] == [None, False]


def test_a_loose_answer_goes_to_the_first_question_only():
    run, task, scope = asking(Answers(loose="yes"))
    assert pause.ask(run, scope, "q", None) == "yes"
    assert task.took_loose
    with pytest.raises(GraphInterrupt):
        pause.ask(run, scope, "q", None)


def test_pending_questions_are_those_of_tasks_without_output():
    one, two = Interrupt("1", A), Interrupt("2", B)
    rows = [
        stored("t1", [(INTERRUPT, [one])], slot=-3),
        stored("t2", [(INTERRUPT, [two])], slot=-3),
        stored("t2", [("x", 1)]),
        stored("t3", [(RESUME, [1])], slot=-4),
    ]
    assert pause.pending(rows) == {"t1": (one,)}
    assert pause.pending([]) == {}


@pytest.mark.parametrize(
    ("id_", "expected"),
    [
        ("00000000-0000-0000-0000-000000000000", True),
        ("00000000-0000-0000-0000-00000000000a", True),
        ("10000000-0000-0000-0000-000000000000", False),
    ],
)
def test_is_null(id_, expected):
    assert pause.is_null(id_) is expected


def test_stored_answers():
    rows = [
        null([("x", 1)]),
        null([(RESUME, {A: 1})], slot=-4),
        stored("t1", [(RESUME, ["not this one"])], slot=-4),
    ]
    answers = pause.stored_answers(rows)
    assert (answers.by_id, answers.loose, answers.given) == ({A: 1}, [], False)


def test_a_stored_loose_answer_is_there_until_it_was_used_up():
    assert pause.stored_answers([null([(RESUME, "yes")], slot=-4)]).loose == ["yes"]
    assert pause.stored_answers([null([(RESUME, None)], slot=-4)]).loose == []


def test_whether_a_resume_answered_something():
    assert Answers().given is False
    assert Answers({}).given is False
    assert Answers({A: 1}).given is True
    assert Answers(loose=None).given is True
    assert Answers(loose=MISSING).given is False


# ---- breakpoints

NODES = {"a": node(), "b": node(), "h": node(tags=[TAG_HIDDEN])}


@pytest.mark.parametrize(
    ("nodes", "planned", "hit"),
    [
        ("*", "a", True),
        ("*", "h", False),
        (["*"], "h", False),
        (["*"], "hb", True),
        ("a", "ab", True),
        ("b", "a", False),
        (["a"], "ba", True),
        (["a"], "bh", False),
        (["h"], "h", True),
        ([], "a", False),
    ],
)
def test_which_tasks_a_breakpoint_stops(nodes, planned, hit):
    run = dummy_run(dummy_program(NODES))
    run.versions = {"x": 1}
    assert pause.breakpoint_hit(run, nodes, [Task(run.program.nodes[n], None) for n in planned]) is hit


@pytest.mark.parametrize(
    ("versions", "seen", "hit"),
    [
        ({"x": 1}, {"x": 1}, False),
        ({"x": 2}, {"x": 1}, True),
        ({"x": 1, "y": 1}, {"x": 1}, True),
        ({"x": 1}, {}, True),
        ({"x": 1}, {"x": 1, "y": 1}, False),
    ],
)
def test_a_breakpoint_stops_again_only_for_news(versions, seen, hit):
    run = dummy_run(dummy_program(NODES))
    run.versions, run.seen = versions, {INTERRUPT: seen}
    assert pause.breakpoint_hit(run, ["a"], [Task(run.program.nodes["a"], None)]) is hit
