"""Questions, answers, breakpoints."""

from datetime import UTC, datetime, timedelta

import pytest

from pregel._scope import TaskScope
from pregel.constants import INTERRUPT, MISSING, RESUME, TAG_HIDDEN
from pregel.engine import pause
from pregel.engine.state import Answers
from pregel.engine.task import Task, interrupt_id
from pregel.errors import GraphInterrupt, Interrupt, is_invalid_resume
from pregel.types import Deadline
from tests.support.dummies import dummy_loaded, dummy_program, dummy_run, match, node, null, stored

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


# ---- what an answer must be, and until when


class Whole:
    """Stands for a type: whole numbers, also as text."""

    schema = {"type": "integer"}

    @staticmethod
    def fitted(answer):
        return int(answer)


JSON = {"type": "integer"}


@pytest.mark.parametrize(("schema", "good", "taken"), [(Whole(), "3", 3), (JSON, 3, 3)], ids=["type", "json"])
def test_an_answer_as_its_question_wants_it(schema, good, taken):
    run, task, scope = asking(Answers())
    id_ = interrupt_id(run.ns_of(task), 0)
    run.answers = Answers({id_: good})
    assert pause.ask(run, scope, "q", schema) == taken
    assert (task.answers, run.answers.taken) == ([good], {id_})
    again = TaskScope(run, task, None)
    assert pause.ask(run, again, "q", schema) == taken


@pytest.mark.parametrize("schema", [Whole(), JSON], ids=["type", "json"])
def test_an_answer_that_does_not_fit_is_not_taken(schema):
    run, task, scope = asking(Answers())
    id_ = interrupt_id(run.ns_of(task), 0)
    answers = run.answers = Answers({id_: "x"})
    answers.anew = {id_}
    with pytest.raises(ValueError, match="x") as caught:
        pause.ask(run, scope, "q", schema)
    assert is_invalid_resume(caught.value)
    assert caught.value.interrupt_id == id_
    assert (task.answers, answers.taken, answers.by_id, answers.unfit) == (None, set(), {}, True)


@pytest.mark.parametrize("schema", [Whole(), JSON], ids=["type", "json"])
def test_an_answer_of_an_earlier_run_that_does_not_fit_is_asked_for_again(schema):
    """That run died before the question could look at it: the caller of this one has given none."""
    run, task, scope = asking(Answers())
    id_ = interrupt_id(run.ns_of(task), 0)
    answers = run.answers = Answers({id_: "x"})
    with pytest.raises(GraphInterrupt) as caught:
        pause.ask(run, scope, "q", schema)
    assert [question.id for question in caught.value.interrupts] == [id_]
    assert (task.answers, answers.taken, answers.by_id, answers.unfit) == (None, set(), {}, True)


@pytest.mark.parametrize("schema", [Whole(), JSON], ids=["type", "json"])
def test_a_stored_answer_that_does_not_fit_any_more_is_asked_again(schema):
    run, task, scope = asking(known=["x", "y"])
    with pytest.raises(GraphInterrupt) as caught:
        pause.ask(run, scope, "q", schema)
    (question,) = caught.value.interrupts
    assert (question.id, question.response_schema) == (interrupt_id(run.ns_of(task), 0), JSON)
    run.answers = Answers({question.id: 3})
    assert pause.ask(run, TaskScope(run, task, None), "q", schema) == 3
    assert task.answers == [3, "y"]


def test_what_is_known_of_a_question():
    run, task, scope = asking()
    with pytest.raises(GraphInterrupt) as caught:
        pause.ask(run, scope, "q", JSON, Deadline(60.0, None, 0))
    (question,) = caught.value.interrupts
    match(question, value="q", response_schema=JSON, checked=True, is_typed=False, default=0, task_ns=run.ns_of(task))
    asked_at = datetime.fromtimestamp(run.request.clock(), UTC)
    assert (question.asked_at, question.expires) == (asked_at, asked_at + timedelta(seconds=60))
    assert run.answers.open == {question.id: question}
    assert [question.has_expired(run.request.clock() + after) for after in (59, 60)] == [False, True]
    with pytest.raises(GraphInterrupt) as caught:
        pause.ask(run, scope, "q", Whole())
    match(caught.value.interrupts[0], checked=False, is_typed=True, expires=None, default=MISSING)
    assert not caught.value.interrupts[0].has_expired(1e12)


def test_a_question_that_was_asked_before_ends_when_it_was_to_end():
    run, task, scope = asking()
    with pytest.raises(GraphInterrupt) as first:
        pause.ask(run, scope, "q", None, Deadline(60.0, None, "A"))
    now = run.request.clock()
    run.request.clock = lambda: now + 30
    with pytest.raises(GraphInterrupt) as again:
        pause.ask(run, TaskScope(run, task, None), "new words", None, Deadline(90.0, None, "B"))
    before, after = first.value.interrupts[0], again.value.interrupts[0]
    assert (after.expires, after.asked_at, after.default) == (before.expires, before.asked_at, "B")


@pytest.mark.parametrize("schema", [Whole(), JSON], ids=["type", "json"])
def test_a_default_must_fit(schema):
    run, _, scope = asking()
    with pytest.raises(ValueError, match="'x'") as caught:
        pause.ask(run, scope, "q", schema, Deadline(60.0, None, "x"))
    assert not is_invalid_resume(caught.value)
    with pytest.raises(GraphInterrupt):
        pause.ask(run, scope, "q", schema, Deadline(60.0, None, 3))


def test_a_schema_that_cannot_be_checked_is_not_asked():
    run, _, scope = asking()
    with pytest.raises(ValueError, match="nonsense"):
        pause.ask(run, scope, "q", {"type": "nonsense"})
    assert run.answers.open == {}


def test_answers_to_questions_asked_side_by_side_keep_their_places():
    run, task, scope = asking()
    ids = [interrupt_id(run.ns_of(task), n) for n in range(2)]
    run.answers = Answers({ids[1]: "second"})
    with pytest.raises(GraphInterrupt):
        pause.ask(run, scope, "q", None)
    assert pause.ask(run, scope, "q", None) == "second"
    assert task.answers == [MISSING, "second"]
    pause.restore_answers(task, pause.answers_plain(task.answers))
    run.answers = Answers({ids[0]: "first"})
    again = TaskScope(run, task, None)
    assert [pause.ask(run, again, "q", None) for _ in range(2)] == ["first", "second"]


@pytest.mark.parametrize(
    ("answers", "provisional"), [([], []), ([1, None], []), ([MISSING, 1], []), ([1, MISSING], []), ([1, 2], [1])]
)
def test_the_stored_form_of_answers(answers, provisional):
    _, task, _ = asking()
    plain = pause.answers_plain(answers, provisional)
    assert isinstance(plain, dict) is (MISSING in answers or bool(provisional))
    pause.restore_answers(task, plain)
    assert (task.answers, getattr(task, "provisional", [])) == (answers, provisional)
    pause.restore_answers(task, None)
    assert task.answers is None


def test_what_was_answered_before_a_failure_may_be_answered_anew():
    run, task, scope = asking(known=["one", "two"])
    ids = [interrupt_id(run.ns_of(task), n) for n in range(2)]
    assert pause.provisional(run, task) == []
    run.answers.taken.add(ids[1])
    assert pause.provisional(run, task) == [1]
    pause.restore_answers(task, pause.answers_plain(task.answers, [1]))
    run.answers = Answers()
    assert pause.provisional(run, task) == [1]
    assert [pause.ask(run, TaskScope(run, task, None), "q"), pause.ask(run, scope, "q")] == ["one", "one"]
    assert pause.ask(run, scope, "q") == "two"
    for answers in (Answers(dict.fromkeys(ids, "new")), Answers(loose="new")):
        task.answers, run.answers = ["one", "two"], answers
        answers.anew = ids
        again = TaskScope(run, task, None)
        assert [pause.ask(run, again, "q") for _ in range(2)] == ["one", "new"]


def test_all_that_a_body_asks():
    _, _, scope = asking()
    one, two, three = (Interrupt(n, 32 * n) for n in "123")
    assert pause.all_asked(None, GraphInterrupt([one])) == (one,)
    assert pause.all_asked(scope, GraphInterrupt([one])) == (one,)
    scope.questions.asked += [((1, 1, ""), (three,)), ((0, 0, ""), (two,))]
    assert pause.all_asked(scope, GraphInterrupt([three])) == (two, three)
    assert pause.all_asked(scope, GraphInterrupt([one])) == (one, two, three)


def test_what_is_open_in_what_was_loaded():
    run = dummy_run()
    past, future = (datetime.fromtimestamp(t, UTC) for t in (10, 30))
    late = Interrupt("late", A, expires=past, default="no")
    due = Interrupt("due", B, expires=future, default="no")
    bare = Interrupt("bare", "c" * 32, expires=past)
    run.pending = [stored("t1", [(INTERRUPT, [late, due])], slot=-3), stored("t2", [(INTERRUPT, [bare])], slot=-3)]
    pause.adopt(run, now=20)
    assert run.answers.open == {q.id: q for q in (late, due, bare)}
    assert run.answers.by_id == {A: "no"}
    run.answers = Answers({A: "yes"})
    pause.adopt(run, now=20)
    assert run.answers.by_id == {A: "yes"}


def test_what_is_left_open_of_a_task():
    run = dummy_run(dummy_program(NODES))
    task = Task(run.program.nodes["a"], None)
    one, two = Interrupt("1", A), Interrupt("2", B)
    assert pause.left_open(run, task) is None
    run.pending = [stored(run.id_of(task), [(INTERRUPT, [one, two])], slot=-3)]
    assert pause.left_open(run, task) is None
    run.answers.taken.add(A)
    assert pause.left_open(run, task) == [two]


def test_a_question_whose_answer_is_stored_is_not_open():
    one, two = Interrupt("1", A), Interrupt("2", B)
    rows = [stored("t1", [(INTERRUPT, [one, two])], slot=-3), null([(RESUME, {A: 1})], slot=-4)]
    assert pause.pending(rows) == {"t1": (two,)}
    assert pause.open_questions(rows) == {B: two}


def test_breakpoints_that_a_thread_keeps():
    loaded = dummy_loaded(values={"x": 1}, facts={"breakpoints": {"before": ["a"]}})
    assert pause.kept_breakpoints(dummy_run()) == {}
    assert pause.kept_breakpoints(dummy_run(loaded=loaded)) == {"before": ["a"]}
    row = null([(INTERRUPT, None)], slot=-3)
    assert pause.pending([row]) == {}
    loaded.writes = [null([("x", 1)]), row, stored("t", [(INTERRUPT, [])], slot=-3)]
    assert pause.kept_breakpoints(dummy_run(loaded=loaded)) == {}
    loaded.is_head = False
    assert pause.kept_breakpoints(dummy_run(loaded=loaded)) == {"before": ["a"]}
