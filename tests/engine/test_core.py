"""The walk of one run: settles in, plans and commits out."""

import asyncio
import operator
from contextlib import suppress

import pytest

from pregel._scope import TaskScope
from pregel.channels import BinaryOperatorAggregate, EphemeralValue, LastValue
from pregel.constants import ERROR, ERROR_SOURCE_NODE, INTERRUPT, NO_WRITES, NULL_TASK_ID, RESUME, START
from pregel.engine.core import count_of
from pregel.engine.effects import Retry, Start
from pregel.engine.state import LATER
from pregel.errors import (
    AttemptClosedError,
    EngineBug,
    GraphDrained,
    GraphInterrupt,
    GraphRecursionError,
    Interrupt,
    InvalidAnswerError,
    InvalidUpdateError,
    NodeError,
    ParentCommand,
    StoredFailure,
)
from pregel.runtime import RunControl
from pregel.types import Command, RetryPolicy
from tests.support.dummies import (
    act,
    chunks_of,
    dummy_loaded,
    dummy_program,
    dummy_run,
    id_in,
    match,
    names,
    node,
    rows_of,
    stored,
    superstep,
    values,
)

CHANNELS = {"x": LastValue(int), "y": LastValue(int), "log": BinaryOperatorAggregate(list, operator.add)}
TWO = {"a": node("x"), "b": node("x"), "last": node("log")}
PAIR = dummy_program(TWO, CHANNELS)
BOOM = OSError("boom")
ASKS = GraphInterrupt((Interrupt("ok?", "f" * 32),))


def started(program=None, input=1, loaded=None, **fields):
    run = dummy_run(program, loaded, **fields)
    run.start(input)
    return run


# ---- from start to end


def test_a_run_of_two_steps():
    run = dummy_run(PAIR, stores=True)
    match(run, phase="new", status="input")
    (commit,) = run.start(1)
    match(commit, source="input", step=-1)
    match(run, phase="idle", status="pending", step=0)
    assert names(run.plan()) == ["a", "b"]
    match(run, phase="running", unsettled=2)
    act(run, {"b": [("log", ["b"])], "a": [("log", ["a"])]})
    commit = run.commit()
    match(commit, source="loop", step=0)
    match(run, phase="idle", step=1)
    assert values(run) == {"x": 1, "log": ["a", "b"]}
    superstep(run, {"last": [("y", 9)]})
    assert run.plan() is None
    match(run, phase="done", status="done", step=2)
    assert run.close() is None
    assert run.outcome() is None


def test_outputs_are_stored_with_the_step_in_the_order_of_settling():
    run = started(PAIR, stores=True)
    commit = superstep(run, {"a": [("log", ["a"])], "b": []})
    assert rows_of(commit) == [(0, [("log", ["a"])]), (0, [(NO_WRITES, None)])]
    assert [row.path for row in commit.writes] == ["~__pregel_pull, a", "~__pregel_pull, b"]
    assert {row.checkpoint_id for row in commit.writes} == {commit.parent_id}
    assert run.held == []


def test_without_a_saver_nothing_is_made_for_storing():
    run = started(PAIR)
    assert superstep(run, {"a": [], "b": []}) is None
    assert (run.held, run.changed, run.checkpoint_id_) == ([], {}, None)
    assert run.tasks[0].id_ is None
    assert run.plan() is None
    assert run.close() is None


@pytest.mark.parametrize(
    ("before", "call"),
    [
        ("new", "plan"),
        ("new", "commit"),
        ("idle", "commit"),
        ("idle", "start"),
        ("running", "plan"),
        ("running", "start"),
        ("done", "plan"),
        ("done", "commit"),
    ],
)
def test_a_call_out_of_order_is_a_bug(before, call):
    run = dummy_run()
    if before != "new":
        run.start(1)
    if before == "running":
        run.plan()
    if before == "done":
        run.close()
    with pytest.raises(EngineBug):
        run.start(1) if call == "start" else getattr(run, call)()


def test_committing_an_unsettled_step_is_a_bug():
    run = started(PAIR)
    run.plan()
    act(run, {"a": []})
    with pytest.raises(EngineBug, match=r"'b'"):
        run.commit()


def test_settling_twice_is_a_bug():
    run = started()
    (task,) = run.plan()
    run.finish(task, [])
    with pytest.raises(EngineBug):
        run.settle(task, BOOM)


def test_the_scope_of_an_attempt():
    outer = dummy_run()
    parent = TaskScope(outer, None, None)
    run = started(parent=parent)
    (task,) = run.plan()
    scope = run.open(task)
    match(scope, host=run, task=task, parent=parent, attempt=1)
    assert task.scope is scope
    task.attempt = 2
    assert run.open(task).attempt == 2


# ---- ends of a run


def test_the_step_limit():
    loop = dummy_program({"a": node("x")}, output_channels="x")
    run = started(loop, limit=2)
    for n in range(3):
        superstep(run, {"a": [("x", n)]})
    assert run.plan() is None
    match(run, status="out_of_steps", phase="done", step=3)
    run.close()
    error = run.outcome()
    assert isinstance(error, GraphRecursionError)
    assert all(part in str(error) for part in ("2", "'a'", "GRAPH_RECURSION_LIMIT"))


def test_a_run_that_needs_every_step_is_out_of_steps_too():
    run = started(limit=1)
    superstep(run, {"a": [("x", 1)]})
    superstep(run, {"a": [("y", 1)]})
    assert run.plan() is None
    run.close()
    assert isinstance(run.outcome(), GraphRecursionError)
    run = started(limit=1)
    superstep(run, {"a": [("y", 1)]})
    assert run.plan() is None
    assert (run.status, run.outcome()) == ("done", None)


@pytest.mark.parametrize(("given", "supersteps"), [(1, 3), (None, 4)])
def test_the_limit_counts_from_the_loaded_step(given, supersteps):
    run = started(input=given, loaded=dummy_loaded(values={"x": 1}, step=40), limit=2)
    for _ in range(supersteps):
        superstep(run, {"a": [("x", 1)]})
    assert run.plan() is None
    match(run, status="out_of_steps", step=45)


def test_draining_stops_at_the_boundary():
    control = RunControl()
    run = started(control=control)
    superstep(run, {"a": [("x", 1)]})
    control.request_drain("deploy")
    assert run.plan() is None
    error = run.outcome()
    assert isinstance(error, GraphDrained)
    assert (run.status, error.reason) == ("draining", "deploy")


def test_a_drain_without_reason_and_a_run_that_is_over_anyway():
    control = RunControl()
    control.request_drain("")
    run = started(control=control)
    assert run.plan() is None
    assert run.outcome().reason == "shutdown"
    control = RunControl()
    run = started(control=control)
    superstep(run, {"a": []})
    control.request_drain()
    assert run.plan() is None
    assert run.status == "done"


def test_breakpoints():
    run = started(PAIR, interrupt_before=["b"], interrupt_after=["last"])
    assert run.plan() is None
    match(run, status="interrupt_before", phase="done")
    assert run.outcome() is None
    run = started(PAIR, interrupt_before=["nobody"], interrupt_after=["b"])
    superstep(run, {"a": [("log", [1])], "b": []})
    match(run, status="interrupt_after", phase="done", step=1)
    assert run.outcome() is None
    run = started(PAIR, interrupt_after=["last"])
    superstep(run, {"a": [], "b": []})
    assert run.status == "pending"


def test_a_nested_run_that_stops_asks_its_parent():
    outer = started(PAIR)
    run = started(parent_run=outer, interrupt_before="*")
    assert run.plan() is None
    error = run.outcome()
    assert isinstance(error, GraphInterrupt)
    assert error.interrupts == ()


# ---- failures


def test_a_failure_ends_the_run_after_its_siblings():
    run = started(PAIR, stores=True)
    run.plan()
    assert act(run, {"a": BOOM}) == []
    match(run, phase="running", unsettled=1, failure=BOOM)
    act(run, {"b": [("y", 1)]})
    assert run.commit() is None
    match(run, phase="done", status="failed")
    assert run.outcome() is BOOM
    assert values(run) == {"x": 1, "log": []}
    assert rows_of(run.close()) == [(-1, [(ERROR, BOOM)]), (0, [("y", 1)])]
    assert any("'a'" in note for note in BOOM.__notes__)


def test_the_first_failure_counts():
    run = started(PAIR)
    run.plan()
    second = OSError("second")
    act(run, {"b": BOOM, "a": second})
    assert run.commit() is None
    assert run.outcome() is BOOM


def test_a_failing_barrier_changes_nothing_and_keeps_the_writes():
    run = started(PAIR, stores=True)
    run.plan()
    act(run, {"a": [("y", 1)], "b": [("y", 2)]})
    with pytest.raises(InvalidUpdateError):
        run.commit()
    match(run, phase="done", status="failed", step=0)
    assert values(run) == {"x": 1, "log": []}
    assert rows_of(run.close()) == [(0, [("y", 1)]), (0, [("y", 2)])]
    assert isinstance(run.outcome(), InvalidUpdateError)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(2), asyncio.CancelledError(), AttemptClosedError()])
def test_what_is_no_failure_of_the_node_ends_the_run_and_is_not_stored(error):
    run = started(PAIR, stores=True, retry_policy=[RetryPolicy(retry_on=BaseException)])
    run.plan()
    act(run, {"b": []})
    with pytest.raises(type(error)) as caught:
        act(run, {"a": error})
    assert caught.value is error
    assert rows_of(run.close()) == [(0, [(NO_WRITES, None)])]
    assert run.outcome() is error


def test_control_flow_leaves_with_the_first():
    up, second = ParentCommand(Command(goto="z")), ParentCommand(Command(goto="w"))
    run = started(PAIR, stores=True)
    run.plan()
    act(run, {"a": up, "b": second})
    assert run.commit() is None
    assert run.outcome() is up
    assert run.close() is None


def test_a_dropped_task_stays_pending():
    run = started(PAIR, stores=True)
    run.plan()
    act(run, {"a": BOOM})
    run.drop(run.tasks[1])
    assert run.commit() is None
    assert rows_of(run.close()) == [(-1, [(ERROR, BOOM)])]


# ---- further attempts

POLICY = RetryPolicy(initial_interval=2.0, max_attempts=3, jitter=True, retry_on=OSError)


def test_attempts_until_they_are_used_up():
    run = started(dummy_program({"a": node(retry_policy=POLICY)}), jitter=lambda: 0.5)
    (task,) = run.plan()
    for attempt, wait in [(2, 2.5), (3, 4.5)]:
        (again,) = act(run, {"a": OSError()})
        assert isinstance(again, Retry)
        assert (again.task, again.after, task.attempt) == (task, wait, attempt)
        assert run.open(task).attempt == attempt
    assert act(run, {"a": BOOM}) == []
    assert (task.settled, run.unsettled, run.failure) == (True, 0, BOOM)


def test_another_attempt_reads_its_input_anew():
    program = dummy_program({"a": node("log", retry_policy=POLICY)}, CHANNELS, input_channels="log")
    run = started(program, [1])
    (task,) = run.plan()
    first = task.input
    first.append("spoilt")
    act(run, {"a": OSError()})
    assert task.input == [1]


def test_another_attempt_of_a_sent_task_keeps_its_argument():
    from pregel.constants import TASKS
    from pregel.types import Send

    run = started(dummy_program({"a": node(retry_policy=POLICY)}))
    superstep(run, {"a": [(TASKS, Send("a", "argument"))]})
    (task,) = run.plan()
    act(run, {"a": OSError()})
    assert task.input == "argument"


def test_the_policy_of_the_graph_is_for_nodes_without_one():
    program = dummy_program({"a": node("x"), "b": node("x", retry_policy=RetryPolicy(retry_on=KeyError))})
    run = started(program, retry_policy=[POLICY])
    run.plan()
    assert [type(effect) for effect in act(run, {"a": OSError(), "b": OSError()})] == [Retry]


def test_no_further_attempt_once_the_step_has_failed():
    run = started(PAIR, retry_policy=[POLICY])
    run.plan()
    assert act(run, {"a": ValueError(), "b": OSError()}) == []


def test_a_policy_that_fails_ends_the_task():
    wrong = ZeroDivisionError()

    def retry_on(error):
        raise wrong

    run = started(dummy_program({"a": node(retry_policy=RetryPolicy(retry_on=retry_on))}))
    run.plan()
    assert act(run, {"a": BOOM}) == []
    assert run.failure is wrong


# ---- handlers of failures

HANDLED = dummy_program(
    {
        "a": node("x", error_handler="h"),
        "b": node("x"),
        "h": node("x", on=[], is_error_handler=True),
    }
)


def test_a_handler_runs_in_the_step_of_the_failure():
    run = started(HANDLED, stores=True)
    failed, _ = run.plan()
    (start,) = act(run, {"a": BOOM})
    assert isinstance(start, Start)
    match(start.task, name="h", input=1, parent=failed, error_of=NodeError("a", BOOM), index=-1)
    match(run, unsettled=2, failure=None)
    act(run, {"b": [], "h": [("y", 5)]})
    commit = run.commit()
    assert rows_of(commit) == [
        (-1, [(ERROR, BOOM)]),
        (-5, [(ERROR_SOURCE_NODE, "a")]),
        (0, [(NO_WRITES, None)]),
        (0, [("y", 5)]),
    ]
    assert values(run) == {"x": 1, "y": 5}
    assert run.outcome() is None


def test_a_handler_has_no_handler():
    run = started(HANDLED)
    run.plan()
    act(run, {"a": OSError(), "h": BOOM, "b": []})
    assert run.commit() is None
    assert run.outcome() is BOOM


def test_a_handled_failure_of_an_earlier_run_leaves_the_handler_to_run():
    loaded = dummy_loaded(values={"x": 1})
    id_ = id_in(HANDLED, loaded, "a")
    loaded.writes = [
        stored(id_, [(ERROR_SOURCE_NODE, "a")], slot=-5),
        stored(id_, [(ERROR, "OSError('boom')")], slot=-1),
    ]
    run = started(HANDLED, None, loaded)
    assert names(run.plan()) == ["b", "h"]
    handler = run.tasks[2]
    match(handler, name="h", input=1, settled=False)
    assert isinstance(handler.error_of.error, StoredFailure)
    act(run, {"b": [], "h": [("y", 5)]})
    assert run.commit() is not None
    assert values(run) == {"x": 1, "y": 5}


def test_a_handler_that_finished_before_does_not_run_again():
    loaded = dummy_loaded(values={"x": 1})
    probe = dummy_run(HANDLED, loaded)
    probe.start(None)
    probe.plan()
    act(probe, {"a": BOOM})
    handler = probe.id_of(probe.tasks[2])
    id_ = id_in(HANDLED, loaded, "a")
    loaded = dummy_loaded(
        values={"x": 1},
        writes=[
            stored(id_, [(ERROR, "boom")], slot=-1),
            stored(id_, [(ERROR_SOURCE_NODE, "a")], slot=-5),
            stored(handler, [("y", 5)]),
        ],
    )
    run = started(HANDLED, None, loaded)
    assert names(run.plan()) == ["b"]
    act(run, {"b": []})
    run.commit()
    assert values(run)["y"] == 5


def test_a_stored_failure_whose_handler_is_gone_runs_again():
    program = dummy_program({"a": node("x"), "b": node("x")})
    loaded = dummy_loaded(values={"x": 1})
    id_ = id_in(program, loaded, "a")
    loaded.writes = [stored(id_, [(ERROR, "boom")], slot=-1), stored(id_, [(ERROR_SOURCE_NODE, "a")], slot=-5)]
    run = started(program, None, loaded)
    assert names(run.plan()) == ["a", "b"]
    match(run.tasks[0], error=None, handled=False)


# ---- questions


def test_a_question_ends_the_run_after_its_siblings():
    run = started(PAIR, stores=True)
    run.plan()
    act(run, {"a": ASKS, "b": [("y", 1)]})
    assert run.commit() is None
    match(run, phase="done", status="interrupted", interrupts=[ASKS.interrupts[0]])
    assert run.outcome() is None
    assert rows_of(run.close()) == [(-3, [(INTERRUPT, list(ASKS.interrupts))]), (0, [("y", 1)])]


def test_answers_are_stored_with_the_next_question_and_with_the_output():
    for outcome, slots in [(ASKS, [-3, -4]), ([("y", 1)], [0, -4])]:
        run = started(stores=True)
        (task,) = run.plan()
        task.answers = ["yes"]
        act(run, {"a": outcome})
        rows = rows_of(run.flush())
        assert [slot for slot, _ in rows] == slots
        assert rows[1] == (-4, [(RESUME, ["yes"])])


def test_a_loose_answer_that_was_taken_is_used_up():
    run = started(stores=True)
    (task,) = run.plan()
    task.answers, task.took_loose = ["yes"], True
    act(run, {"a": []})
    commit = run.flush()
    assert rows_of(commit)[-1] == (-4, [(RESUME, None)])
    assert commit.writes[-1].task_id == NULL_TASK_ID
    assert task.took_loose is False


def refusal():
    return InvalidAnswerError("no", interrupt_id="f" * 32, node="a", problem="no")


def test_an_answer_that_does_not_fit_ends_the_run_after_its_siblings():
    """Nothing of it is stored, and the question that is stored stays."""
    run = started(PAIR, stores=True, modes={"tasks"})
    run.plan()
    error = refusal()
    act(run, {"a": error, "b": [("y", 1)]})
    assert (run.failure, run.refused) == (None, error)
    assert run.commit() is None
    match(run, phase="done", status="failed", failure=error)
    assert rows_of(run.close()) == [(0, [("y", 1)])]
    assert run.outcome() is error


def test_what_was_answered_is_stored_with_a_task_that_has_not_finished():
    """Whatever became of it; and what is left open of its questions."""
    program = dummy_program({"a": node("x"), "b": node("x")})
    one, two = Interrupt("1", "1" * 32), Interrupt("2", "2" * 32)
    for error, first in [(BOOM, [ERROR]), (refusal(), []), (KeyboardInterrupt(), []), (None, [])]:
        loaded = dummy_loaded(values={"x": 1})
        loaded.writes = [stored(id_in(program, loaded, "a"), [(INTERRUPT, [one, two])], slot=-3)]
        run = started(program, None, loaded)
        task, _ = run.plan()
        task.answers = ["yes"]
        run.answers.taken.add(one.id)
        run.open(task)
        if error is not None:
            with suppress(KeyboardInterrupt):
                run.settle(task, error)
        rows = [writes[0] for _, writes in rows_of(run.close())]
        assert [channel for channel, _ in rows] == [*first, RESUME, INTERRUPT]
        assert rows[-2:] == [(RESUME, ["yes"]), (INTERRUPT, [two])]


def nested_in(outer, call_number=0, **fields):
    """A nested run of the first task of a run whose step is open."""
    task = outer.tasks[0]
    scope = task.scope or outer.open(task)
    return scope, started(parent=scope, parent_run=outer, ns_=None, call_number=call_number, **fields)


def test_what_nested_runs_ask_is_asked_by_the_task_that_started_them():
    outer = started(PAIR, stores=True)
    outer.plan()
    questions = [Interrupt(n, n * 32) for n in "12"]
    for number in (1, 0):
        scope, run = nested_in(outer, number)
        scope.questions.going_on.add(run.request)
        run.plan()
        act(run, {"a": GraphInterrupt([questions[number]])})
        run.commit()
        run.close()
        woken = []
        scope.questions.when_alone(lambda woken=woken: woken.append(True))
        assert woken == []
        run.leave()
        assert woken == [True]
    outer.settle(outer.tasks[0], GraphInterrupt([questions[1]]))
    match(outer, interrupts=questions)
    assert rows_of(outer.flush()) == [(-3, [(INTERRUPT, questions)])]


def test_a_nested_run_that_refused_an_answer_refuses_it_for_its_task():
    outer = started(PAIR, stores=True)
    outer.plan()
    _, run = nested_in(outer)
    run.plan()
    error = refusal()
    act(run, {"a": error})
    run.commit()
    run.close()
    run.leave()
    outer.settle(outer.tasks[0], ASKS)
    match(outer, refused=error, interrupts=[], held=[])


def test_a_root_run_leaves_nobody():
    run = started()
    run.leave()
    assert run.refused is None


def test_what_called_tasks_ask_is_asked_by_their_caller():
    """Also when it comes up after the caller has stopped, and through several callers."""
    run = started(PAIR, stores=True, modes={"updates"})
    task, _ = run.plan()
    scope = run.open(task)
    questions = [Interrupt(n, n * 32) for n in "123"]
    children = []
    for index in range(2):
        children.append(run.call(scope, run.program.nodes["last"], None, index))
        children[-1].caller = scope
    inner_scope = run.open(children[1])
    grandchild = run.call(inner_scope, run.program.nodes["last"], None, 0)
    grandchild.caller = inner_scope
    run.open(children[0])
    run.settle(children[0], GraphInterrupt([questions[0]]))
    run.settle(task, GraphInterrupt([questions[0]]))
    assert task.interrupts == (questions[0],)
    run.settle(children[1], GraphInterrupt([questions[1]]))
    run.open(grandchild)
    run.settle(grandchild, GraphInterrupt([questions[2]]))
    assert children[1].interrupts == tuple(questions[1:])
    assert task.interrupts == tuple(questions)
    assert run.interrupts == questions
    assert [[q.value for q in chunk[INTERRUPT]] for chunk in chunks_of(run).of("updates")] == [
        ["1"],
        ["2"],
        ["3"],
    ]


def test_a_called_task_whose_question_stays_open_is_not_started():
    loaded = dummy_loaded(values={"x": 1, "log": []})
    probe = started(PAIR, None, loaded)
    parent = next(task for task in probe.plan() if task.name == "a")
    id_ = probe.id_of(called(probe, parent))
    question = Interrupt("?", "1" * 32)
    rows = [stored(id_, [(INTERRUPT, [question])], slot=-3)]
    run = started(PAIR, Command(resume={"2" * 32: "other"}), dummy_loaded(values={"x": 1, "log": []}, writes=rows))
    task = next(task for task in run.plan() if task.name == "a")
    child = called(run, task)
    scope = task.scope
    match(child, settled=True, interrupts=(question,))
    assert scope.questions.in_order(()) == (question,)
    run.settle(task, GraphInterrupt([question]))
    assert run.interrupts == [question]


def test_questions_of_a_run_that_stores_nothing():
    run = started(PAIR)
    task, _ = run.plan()
    scope = run.open(task)
    children = [run.call(scope, run.program.nodes["last"], None, index) for index in range(2)]
    for child in children:
        child.caller = scope
        run.open(child)
    questions = [Interrupt(n, n * 32) for n in "12"]
    run.settle(children[0], GraphInterrupt([questions[0]]))
    run.settle(task, GraphInterrupt([questions[0]]))
    run.settle(children[1], GraphInterrupt([questions[1]]))
    match(run, interrupts=questions, held=[])
    refusing = started(PAIR)
    refusing.plan()
    act(refusing, {"a": refusal(), "b": []})
    assert refusing.commit() is None
    match(refusing, status="failed", held=[])


def test_a_called_task_that_refuses_an_answer_leaves_it_to_its_caller():
    run = started(PAIR, stores=True)
    task, _ = run.plan()
    child = run.call(run.open(task), run.program.nodes["last"], None, 0)
    run.open(child)
    error = refusal()
    run.settle(child, error)
    match(run, refused=None, waiting=[], held=[])
    assert child.error is error


def test_a_called_task_that_asks_without_a_caller_or_again_adds_nothing():
    run = started(PAIR, stores=True)
    task, _ = run.plan()
    scope = run.open(task)
    child = run.call(scope, run.program.nodes["last"], None, 0)
    run.open(child)
    run.settle(child, ASKS)
    run.settle(task, ASKS)
    twin = run.call(scope, run.program.nodes["last"], None, 1)
    twin.caller = scope
    run.open(twin)
    run.settle(twin, ASKS)
    assert run.interrupts == list(ASKS.interrupts)


def test_an_interrupted_nested_run_passes_its_questions_on():
    outer = started(PAIR)
    run = started(parent_run=outer)
    run.plan()
    act(run, {"a": ASKS})
    run.commit()
    error = run.outcome()
    assert isinstance(error, GraphInterrupt)
    assert error.interrupts == ASKS.interrupts


def test_a_task_whose_nested_run_stopped_at_a_breakpoint_waits_without_a_question():
    run = started(PAIR, stores=True)
    run.plan()
    act(run, {"a": GraphInterrupt(()), "b": []})
    assert names(run.waiting) == ["a"]
    assert run.commit() is None
    match(run, status="interrupted", interrupts=[])


# ---- called tasks


def called(run, parent, index=0, argument="argument"):
    scope = parent.scope or run.open(parent)
    return run.call(scope, run.program.nodes["b"], argument, index)


def test_a_called_task_belongs_to_the_step():
    run = started(PAIR, stores=True)
    parent, _ = run.plan()
    child = called(run, parent)
    match(child, input="argument", parent=parent, call_index=0, settled=False)
    assert (run.unsettled, run.tasks[-1]) == (3, child)
    run.finish(child, [("__return__", 3)])
    act(run, {"a": [("y", 1)], "b": []})
    commit = run.commit()
    assert rows_of(commit)[0] == (0, [("__return__", 3)])
    assert values(run) == {"x": 1, "y": 1, "log": []}


def test_a_called_task_that_fails_is_its_callers_business():
    run = started(PAIR, stores=True)
    parent, _ = run.plan()
    child = called(run, parent)
    assert run.settle(child, BOOM) is None
    match(child, settled=True, error=BOOM)
    match(run, failure=None, unsettled=2)
    act(run, {"a": [], "b": []})
    assert run.commit() is not None


def test_a_called_task_that_asks_is_its_callers_business():
    run = started(PAIR, stores=True)
    parent, _ = run.plan()
    child = called(run, parent)
    run.settle(child, ASKS)
    other = called(run, parent, 1)
    run.settle(other, GraphInterrupt(()))
    match(run, interrupts=[], waiting=[])
    assert child.interrupts == ASKS.interrupts
    act(run, {"a": ASKS, "b": []})
    run.commit()
    assert run.interrupts == list(ASKS.interrupts)
    assert [slot for slot, _ in rows_of(run.close())] == [-3, -3, 0]


def test_a_called_task_with_a_stored_result_is_settled_at_once():
    loaded = dummy_loaded(values={"x": 1, "log": []})
    probe = started(PAIR, None, loaded)
    parent = next(task for task in probe.plan() if task.name == "a")
    id_ = probe.id_of(called(probe, parent))
    loaded = dummy_loaded(values={"x": 1, "log": []}, writes=[stored(id_, [("__return__", 3)])])
    run = started(PAIR, None, loaded)
    planned = run.plan()
    before = run.unsettled
    child = called(run, next(task for task in planned if task.name == "a"))
    match(child, settled=True, reapplied=True, writes=[("__return__", 3)])
    assert run.unsettled == before


# ---- what was stored of the open step


def test_finished_tasks_of_an_open_step_do_not_run_again():
    loaded = dummy_loaded(values={"x": 1}, updated_channels=["x"])
    loaded.writes = [stored(id_in(PAIR, loaded, "a"), [("log", ["stored"])])]
    run = started(PAIR, None, loaded)
    assert names(run.plan()) == ["b"]
    act(run, {"b": [("log", ["b"])]})
    commit = run.commit()
    assert values(run)["log"] == ["stored", "b"]
    assert rows_of(commit) == [(0, [("log", ["b"])])]
    assert run.pending == []


def test_a_step_with_everything_stored_is_committed_at_once():
    loaded = dummy_loaded(values={"x": 1}, updated_channels=["x"])
    loaded.writes = [stored(id_in(PAIR, loaded, name), [("log", [name])]) for name in "ab"]
    run = started(PAIR, None, loaded)
    assert run.plan() == []
    match(run, phase="running", unsettled=0)
    assert run.commit() is not None
    assert values(run)["log"] == ["a", "b"]


# ---- storing early, and late


def test_flush_gives_what_has_settled_once():
    run = started(PAIR, stores=True)
    run.plan()
    assert run.flush() is None
    act(run, {"a": [("y", 1)]})
    match(run.flush(), kind="tasks")
    assert run.flush() is None
    act(run, {"b": []})
    assert rows_of(run.commit()) == [(0, [(NO_WRITES, None)])]


def test_a_deferred_run_stores_at_the_end():
    run = dummy_run(PAIR, stores=True, deferred=True)
    assert run.start(1) == []
    run.plan()
    act(run, {"a": [("y", 1)]})
    assert run.flush() is None
    act(run, {"b": []})
    assert run.commit() is None
    assert run.plan() is None
    commit = run.close()
    match(commit, kind="checkpoint", step=0, others=[])


def test_a_deferred_run_that_fails_stores_the_open_step():
    run = started(PAIR, stores=True, deferred=True)
    run.plan()
    act(run, {"a": BOOM, "b": []})
    run.commit()
    commit = run.close()
    match(commit, kind="checkpoint", source="input", step=-1)
    assert rows_of(commit) == [(-1, [(ERROR, BOOM)]), (0, [(NO_WRITES, None)])]


def test_a_deferred_run_with_nothing_to_store():
    run = dummy_run(loaded=dummy_loaded(values={"x": 1}, seen={"a": {"x": 1}}), deferred=True)
    run.start(None)
    assert run.plan() is None
    assert run.close() is None


@pytest.mark.parametrize(
    ("stable", "fails", "closes", "finishes", "kept"),
    [
        (False, False, True, True, 0),
        (False, True, True, True, 0),
        (False, False, False, True, 0),
        (False, False, False, False, 1),
        (False, True, False, False, 1),
        (True, False, True, True, 1),
        (True, True, True, True, 1),
        (True, False, False, False, 1),
    ],
)
def test_what_a_deferred_nested_run_leaves_is_stored_if_its_task_stays_open(stable, fails, closes, finishes, kept):
    """Else it is in the state, or in the task's writes; but what is stable is stored always."""
    outer = started(PAIR, stores=True, deferred=True)
    scope = outer.open(outer.plan()[0])
    run = started(stores=True, deferred=True, stable_ns=stable, ns="a:1", parent=scope, parent_run=outer)
    run.plan()
    act(run, {"a": BOOM if fails else []})
    run.commit()
    if not fails:
        run.plan()
    assert run.close() is None
    assert len(outer.parked) == stable
    (left,) = outer.open_runs
    assert (left.run, left.is_parked) == (run, stable)
    act(outer, {"a": [] if finishes else BOOM, "b": [] if closes else BOOM})
    outer.commit()
    if closes:
        assert outer.open_runs == []
        outer.plan()
    assert len(outer.close().others) == kept
    assert outer.open_runs == []


def test_what_runs_below_an_open_nested_run_left_goes_up_with_it():
    outer = started(PAIR, stores=True, deferred=True)
    inner = started(stores=True, deferred=True, ns="a:1", parent=outer.open(outer.plan()[0]), parent_run=outer)
    scope = inner.open(inner.plan()[0])
    deepest = started(stores=True, deferred=True, ns="a:1|a:2", parent=scope, parent_run=inner)
    superstep(deepest, {"a": [("y", 3)]})
    deepest.plan()
    deepest.close()
    act(inner, {"a": BOOM})
    inner.commit()
    inner.close()
    assert [left.run for left in outer.open_runs] == [deepest, inner]
    act(outer, {"a": BOOM, "b": []})
    outer.commit()
    assert [other.checkpoint_ns for other in outer.close().others] == ["a:1|a:2", "a:1"]


def test_what_a_stable_run_below_a_finished_one_left_is_found_under_the_open_step():
    """Of the run in between nothing is stored."""
    outer = started(PAIR, stores=True, deferred=True)
    between = started(stores=True, deferred=True, ns="a:1", parent=outer.open(outer.plan()[0]), parent_run=outer)
    scope = between.open(between.plan()[0])
    stable = started(stores=True, deferred=True, stable_ns=True, ns="a|a", parent=scope, parent_run=between)
    superstep(stable, {"a": [("y", 3)]})
    stable.plan()
    stable.close()
    act(between, {"a": []})
    between.commit()
    between.plan()
    between.close()
    assert outer.sub_open == {"a|a": stable.rev}
    act(outer, {"a": [], "b": BOOM})
    outer.commit()
    commit = outer.close()
    ((ns, up_rev),) = [(other.checkpoint_ns, other.up_rev) for other in commit.others]
    assert (ns, up_rev) == ("a|a", commit.rev)
    assert commit.sub == {}


def test_what_only_nested_runs_did_is_stored_too():
    loaded = dummy_loaded(values={"x": 1})
    outer = dummy_run(PAIR, loaded, deferred=True)
    outer.start(None)
    scope = outer.open(outer.plan()[0])
    run = started(stores=True, deferred=True, ns="a:1", parent=scope, parent_run=outer)
    run.plan()
    act(run, {"a": BOOM})
    run.commit()
    assert run.close() is None
    for task in outer.tasks:
        outer.settle(task, GraphInterrupt(()))
    outer.commit()
    commit = outer.close()
    match(commit, kind="tasks", writes=[])
    assert [other.checkpoint_ns for other in commit.others] == ["a:1"]


def test_a_deferred_nested_run_with_nothing_to_store_parks_nothing():
    outer = started(PAIR, stores=True, deferred=True)
    scope = outer.open(outer.plan()[0])
    loaded = dummy_loaded(values={"x": 1}, seen={"a": {"x": 1}})
    run = dummy_run(loaded=loaded, deferred=True, stable_ns=True, ns="a", parent=scope, parent_run=outer)
    run.start(None)
    run.plan()
    assert run.close() is None
    assert outer.parked == []


# ---- what is shown


def test_values_are_not_built_while_nobody_looks():
    run = started()
    superstep(run, {"a": [("y", 1)]})
    assert run.emitted is LATER


def test_values_are_shown_when_an_output_was_written_and_changed():
    run = started(PAIR, modes={"values"})
    superstep(run, {"a": [("log", [1])], "b": []})
    superstep(run, {"last": [("y", 1)]})
    assert chunks_of(run).of("values") == [1]


def test_several_outputs():
    program = dummy_program(TWO, CHANNELS, output_channels=["y", "log"])
    run = started(program, modes={"values"})
    superstep(run, {"a": [("log", [1])], "b": []})
    assert chunks_of(run).of("values") == [{"log": [1]}]


def test_an_output_that_may_be_cleared_is_built_when_it_is_written():
    program = dummy_program({"a": node("x")}, {"x": LastValue(int), "y": EphemeralValue(int)})
    run = started(program)
    superstep(run, {"a": [("y", 1), ("x", 2)]})
    assert run.emitted == 1
    superstep(run, {"a": []})
    assert run.emitted == 1


def test_every_mode_of_a_run_with_all_kinds_of_tasks():
    modes = {"values", "updates", "tasks", "debug", "checkpoints", "custom"}
    run = started(HANDLED, stores=True, modes=modes)
    run.plan()
    act(run, {"a": BOOM, "h": [("y", 1)]})
    child = run.call(run.open(run.tasks[1]), run.program.nodes["h"], 3, 0)
    run.finish(child, [("__return__", 3)])
    act(run, {"b": []})
    run.custom(run.open(run.tasks[0]), "custom")
    run.commit()
    assert run.plan() is None
    chunks = chunks_of(run)
    assert chunks.of("updates") == [{"h": 1}, {"h": 3}, {"b": None}]
    assert chunks.of("values") == [1]
    assert chunks.of("custom") == ["custom"]
    started_, ended = [], []
    for payload in chunks.of("tasks"):
        (started_ if "input" in payload else ended).append(payload["name"])
    assert started_ == ["a", "b", "h", "h"]
    assert ended == ["a", "h", "h", "b"]
    assert [c["metadata"]["step"] for c in chunks.of("checkpoints")] == [-1, 0]
    assert [d["type"] for d in chunks.of("debug")].count("task_result") == 4


def test_custom_chunks_only_for_those_who_listen():
    run = started(modes={"values"})
    run.custom(run.open(run.plan()[0]), 1)
    assert chunks_of(run) == []


def test_a_failed_step_shows_what_its_siblings_still_bring():
    run = started(PAIR, modes={"updates"})
    run.plan()
    act(run, {"a": BOOM, "b": [("y", 1)]})
    assert [payload.keys() for _, _, payload in chunks_of(run)] == [{"b"}]


def test_breakpoints_show_an_empty_question_and_the_next_checkpoint():
    run = started(PAIR, stores=True, modes={"updates", "checkpoints"}, interrupt_after=["a"])
    superstep(run, {"a": [("log", [1])], "b": []})
    chunks = chunks_of(run)
    assert chunks.of("updates")[-1] == {INTERRUPT: ()}
    assert [c["next"] for c in chunks.of("checkpoints")] == [["a", "b"], ["last"]]
    run = started(PAIR, modes={"updates"}, interrupt_before="*")
    assert run.plan() is None
    assert chunks_of(run).of("updates") == [{INTERRUPT: ()}]


# ---- what tasks ask for


def test_the_host_of_running_tasks():
    run = started(PAIR)
    scope = run.open(run.plan()[0])
    assert run.config_of(scope)["metadata"]["langgraph_node"] == "a"
    assert run.runtime_of(scope) == ("runtime", scope)
    assert run.read(scope, "x", None) == 1
    assert run.read(scope, ["x", "log"], [("log", [1])]) == {"x": 1, "log": [1]}
    assert run.now() < run.now()
    with pytest.raises(GraphInterrupt):
        run.ask(scope, "q", None)


def test_spawning_needs_a_driver():
    run = started(PAIR)
    scope = run.open(run.plan()[0])
    with pytest.raises(EngineBug):
        run.spawn(scope, run.program.nodes["b"], 1)
    run.spawner = lambda *given: given
    assert run.spawn(scope, "node", 1) == (scope, "node", 1)


# ---- counting versions


@pytest.mark.parametrize(("version", "count"), [(3, 3), ("00012.7", 12), ("4", 4), (2.5, 2)])
def test_the_counting_part_of_a_version(version, count):
    assert count_of(version) == count


def test_what_came_in_is_older_than_what_nodes_wrote():
    run = started(dummy_program({"a": node("x")}, input_channels="x"))
    assert run.entry_version() == run.versions["x"]
    run = started(dummy_program({"a": node("x")}, input_channels=["x", "y"]), {"x": 1, "y": 2})
    assert run.entry_version() == 1
    assert dummy_run(dummy_program(input_channels=[])).entry_version() == 0


def test_a_start_node_copies_the_input_one_version_later():
    program = dummy_program(
        {START: node(START), "a": node("x")}, {START: EphemeralValue(int), "x": LastValue(int)}, input_channels=START
    )
    run = started(program)
    superstep(run, {START: [("x", 1)]})
    assert run.entry_version() == run.versions["x"]


# ---- corners of showing


def test_a_run_that_is_out_of_steps_shows_where_it_stopped():
    run = started(dummy_program({"a": node("x")}), stores=True, limit=1, modes={"checkpoints"})
    for n in range(2):
        superstep(run, {"a": [("x", n)]})
    assert run.plan() is None
    assert [chunk["next"] for chunk in chunks_of(run).of("checkpoints")] == [["a"]] * 3


def test_a_task_that_waits_for_another_answer_is_shown_again():
    loaded = dummy_loaded(values={"x": 1}, updated_channels=["x"])
    asked = {name: Interrupt("?", digit * 32) for name, digit in (("a", "1"), ("b", "2"))}
    loaded.writes = [stored(id_in(PAIR, loaded, name), [(INTERRUPT, [asked[name]])], slot=-3) for name in "ab"]
    run = started(PAIR, Command(resume={"1" * 32: "yes"}), loaded, modes={"updates"})
    assert names(run.plan()) == ["a"]
    assert chunks_of(run).of("updates") == [{INTERRUPT: (asked["b"],)}]


@pytest.mark.parametrize("deferred", [False, True])
def test_a_stable_nested_run_tells_its_parent_where_it_stopped(deferred):
    outer = started(PAIR, stores=True, deferred=deferred)
    scope = outer.open(outer.plan()[0])
    run = started(stores=True, deferred=deferred, stable_ns=True, ns="a", parent=scope, parent_run=outer)
    superstep(run, {"a": [("y", 3)]})
    assert run.plan() is None
    run.close()
    assert (outer.sub_changed, outer.sub_open) == ({}, {"a": run.rev})
    act(outer, {"a": [], "b": []})
    commit = outer.commit()
    # When the step is closed it counts: stored with it, or remembered for what is stored at the end.
    found = outer.sub_changed if deferred else commit.sub
    assert (found, outer.sub_open) == ({"a": run.rev}, {})


@pytest.mark.parametrize("deferred", [False, True])
def test_a_run_caught_in_the_middle_of_a_commit_is_never_snapshotted(deferred):
    run = started(PAIR, stores=True, deferred=deferred)
    run.plan()
    act(run, {"a": [("y", 1)], "b": []})
    run.phase = "committing"  # as Ctrl-C between two lines of `commit` leaves it
    commit = run.close()
    if deferred:
        assert commit is None
    else:
        match(commit, kind="tasks")
        assert rows_of(commit) == [(0, [("y", 1)]), (0, [(NO_WRITES, None)])]
