"""Reasons: stored checkpoints in, one at a time and newest first; an explanation out."""

import operator

import pytest

from checkpoint.base import UNREAD
from pregel.channels import BinaryOperatorAggregate, LastValue, Topic
from pregel.channels.named_barrier_value import NamedBarrierValue
from pregel.constants import ERROR, INTERRUPT, TASKS
from pregel.engine.reasons import AS_ONE, NOT_KEPT, TOO_FAR, Reasons, channels_of
from pregel.explanation import Cause, Way
from pregel.types import Send
from tests.support.dummies import THREAD, dummy_loaded, dummy_program, dummy_request, id_in, node, null, stored

PROGRAM = dummy_program(
    {"a": node("x"), "b": node("y"), "j": node("join")},
    {
        "x": LastValue(int),
        "y": LastValue(int),
        "join": NamedBarrierValue(str, {"a", "b"}),
        "log": BinaryOperatorAggregate(list, operator.add),
        TASKS: Topic(Send),
    },
    input_channels="x",
)
WAYS = [Way("a", "b", "channel")]


def explained(*line, named=False, limit=None, ways=WAYS):
    """The explanation of checkpoints, newest first, and how many of them were asked for."""
    reasons = Reasons(PROGRAM, dummy_request(stores=True, thread_id=THREAD), ways, named=named)
    reading, asked = reasons.explain("g", limit), 0
    rest = iter(line)
    try:
        next(reading)
        while True:
            asked += 1
            reading.send(next(rest, None))
    except StopIteration as end:
        return end.value, asked


def at(step, *, id, parent=None, source="loop", **fields):
    return dummy_loaded(step=step, checkpoint_id=id, parent_id=parent, source=source, **fields)


def run(**newest):
    """Input, then a step of `a`, which wrote `y`."""
    begun = at(-1, id="c0", source="input", values={"x": UNREAD}, versions={"x": 1})
    begun.writes = [stored(id_in(PROGRAM, begun, "a"), [("y", 1), ("log", [1])])]
    fields = {"values": {"x": UNREAD, "y": UNREAD}, "versions": {"x": 1, "y": 2}, "seen": {"a": {"x": 1}}} | newest
    return at(0, id="c1", parent="c0", **fields), begun


def test_only_channels_that_say_more_than_being_there_are_read():
    assert channels_of(PROGRAM) == {"join", TASKS}


def test_a_task_is_woken_by_what_the_step_before_wrote():
    newest, begun = run()
    explanation, asked = explained(newest, begun)
    assert asked == 2
    ran, waits = explanation.steps[1:]
    assert [(task.name, task.status, task.causes[0].kind) for task in ran.tasks] == [("a", "finished", "input")]
    (task,) = waits.tasks
    writer = id_in(PROGRAM, begun, "a")
    assert (task.name, task.status) == ("b", "pending")
    assert task.causes == (Cause("node", "y", "a", writer, 0, "channel"),)


def test_checkpoints_of_other_branches_are_passed_over():
    newest, begun = run()
    stray = at(1, id="c2", parent="c1", values={"y": UNREAD}, versions={"y": 9})
    stray.is_head = False
    other = at(0, id="c9", parent="c0", values={"x": 5}, versions={"x": 7})
    assert explained(stray, newest, other, begun)[0] == explained(newest, begun)[0]


def test_a_named_checkpoint_need_not_be_the_newest():
    newest, begun = run()
    newest.is_head = False
    (step,) = explained(newest, begun, named=True)[0].steps
    assert [task.name for task in step.tasks] == ["b"]


def test_nothing_is_stored():
    explanation, asked = explained()
    assert (explanation.steps, asked) == ((), 1)


@pytest.mark.parametrize(("written", "status"), [([], "finished"), ([("y", 1)], "finished")])
def test_rows_of_the_open_step(written, status):
    newest, begun = run()
    newest.writes = [stored(id_in(PROGRAM, newest, "b"), written)]
    assert explained(newest, begun)[0].steps[-1].tasks[0].status == status


def test_questions_and_errors_of_the_open_step():
    newest, begun = run()
    task_id = id_in(PROGRAM, newest, "b")
    newest.writes = [stored(task_id, [(ERROR, OSError("no"))], slot=-1)]
    (task,) = explained(newest, begun)[0].steps[-1].tasks
    assert (task.status, task.error) == ("failed", "OSError('no')")
    newest.writes = [stored(task_id, [(INTERRUPT, [{"value": "?", "id": "q1"}])], slot=-3)]
    (task,) = explained(newest, begun)[0].steps[-1].tasks
    assert (task.status, task.interrupts) == ("asked", ("q1",))


def test_a_command_wakes_nodes_and_takes_the_place_of_sends():
    newest, begun = run(values={"x": UNREAD, TASKS: [Send("a", 1)]}, versions={"x": 1, TASKS: 2})
    begun.writes.append(stored("other", [(TASKS, Send("a", 1))]))
    assert [task.causes[0].kind for task in explained(newest, begun)[0].steps[-1].tasks] == ["node"]
    newest.writes = [null([("y", 1), (TASKS, Send("b", 1)), (TASKS, Send("nowhere", 1)), (TASKS, "no send")])]
    step = explained(newest, begun)[0].steps[-1]
    assert [(task.name, task.path[1], task.causes[0].kind) for task in step.tasks] == [
        ("b", 0, "command"),
        ("b", "b", "command"),
    ]


def test_writes_that_were_not_kept():
    newest, begun = run()
    begun.writes = []
    (task,) = explained(newest, begun)[0].steps[-1].tasks
    assert task.causes == (Cause("node", "y", "a", id_in(PROGRAM, begun, "a"), 0, "channel"),)  # nobody else ran
    begun.versions["y"] = 1
    begun.values["y"] = UNREAD
    (task,) = explained(newest, begun, ways=[])[0].steps[-1].tasks
    assert (task.causes[0].kind, task.causes[0].detail) == ("unknown", NOT_KEPT)


def test_gaps_in_the_line():
    newest, begun = run()
    newest.step = 3
    explanation, _ = explained(newest, begun)
    assert (explanation.steps[1].first_step, explanation.steps[1].step) == (0, 3)
    assert [task.name for task in explanation.steps[1].tasks] == ["a"]
    assert explanation.steps[-1].tasks[0].causes[0].detail == AS_ONE
    explanation, _ = explained(newest)
    assert explanation.steps[0].tasks == ()
    assert explanation.steps[-1].tasks[0].causes[0].detail == TOO_FAR


def test_a_barrier_that_is_half_full():
    newest, begun = run(values={"join": {"a"}}, versions={"x": 1, "join": 2})
    begun.writes = [stored(id_in(PROGRAM, begun, "a"), [("join", "a")])]
    lack = explained(newest, begun)[0].steps[-1].lacks[0]
    assert (lack.name, lack.kind, lack.missing) == ("j", "join", ("b",))
    assert lack.arrived == (Cause("node", "join", "a", id_in(PROGRAM, begun, "a"), 0, "join"),)
