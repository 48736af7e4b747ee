"""What a run reports, in order: settles in, reports out."""

from types import SimpleNamespace

import pytest

from pregel.channels import LastValue
from pregel.constants import TAG_HIDDEN
from pregel.engine import report
from pregel.errors import GraphDrained, GraphInterrupt, Interrupt, ParentCommand
from pregel.types import Command, RetryPolicy
from pregel.warnings import Notice
from tests.support.dummies import dummy_program, dummy_run, node

CHANNELS = {"x": LastValue(int), "y": LastValue(int), "z": LastValue(int)}
PAIR = dummy_program({"a": node("x"), "b": node("x")}, CHANNELS)
AGAIN = RetryPolicy(initial_interval=0.5, jitter=False, max_attempts=2, retry_on=OSError)
QUESTION = Interrupt("ok?", "f" * 32)


def observed(program=PAIR, **fields):
    """A run that has planned its first superstep, and its tasks."""
    observer = SimpleNamespace(step=None, tasks={}, enters=[], is_over=False)
    run = dummy_run(program, modes={report.REPORTS}, observer=observer, **fields)
    run.start({"x": 1} if isinstance(program.input_channels, (list, tuple)) else 1)
    return run, run.plan()


def said(run):
    """(method, task or step, status) of each report so far."""
    return [
        (kind.removeprefix("on_"), facts.get("name", facts.get("step")), facts.get("status"))
        for kind, _, facts in run.take_reports()
    ]


def test_starts_are_told_in_planned_order():
    run, tasks = observed()
    assert said(run) == [
        ("run_start", None, None),
        ("superstep_start", run.step, None),
        ("task_start", "a", None),
        ("task_start", "b", None),
    ]
    assert [task.name for task in tasks] == ["a", "b"]


def test_hidden_nodes_are_not_told():
    run, tasks = observed(dummy_program({"a": node("x", tags=[TAG_HIDDEN])}, CHANNELS))
    run.open(tasks[0])
    run.finish(tasks[0], [])
    run.commit()
    assert said(run) == [("run_start", None, None)]


def test_ends_are_told_as_they_happen_and_the_step_after_them():
    run, (a, b) = observed()
    said(run)
    for task in (b, a):
        run.open(task)
        run.finish(task, [("y" if task is a else "z", 2)])
    assert said(run) == [("task_end", "b", "done"), ("task_end", "a", "done")]
    step = run.step
    run.commit()
    assert said(run) == [("superstep_end", step, "done")]


def test_a_failure_leaves_a_sibling_to_be_told_at_the_end():
    run, (a, _) = observed()
    said(run)
    error = ValueError("no")
    run.open(a)
    run.settle(a, error)
    assert said(run) == [("task_error", "a", "failed")]
    run.close()
    assert run.end(None)
    assert said(run) == [
        ("task_end", "b", "abandoned"),
        ("superstep_end", run.step, "failed"),
        ("run_error", None, "failed"),
    ]
    assert run.outcome() is error


def test_another_try_is_told_with_its_wait():
    run, (a,) = observed(dummy_program({"a": node("x", retry_policy=AGAIN)}, CHANNELS))
    run.take_reports()
    run.open(a)
    run.settle(a, OSError("no"))
    ((kind, _, facts),) = run.take_reports()
    assert (kind, facts["attempt"], facts["retry_after"]) == ("on_task_retry", 1, 0.5)
    run.open(a)
    run.settle(a, OSError("no"))
    ((kind, _, facts),) = run.take_reports()
    assert (kind, facts["attempt"]) == ("on_task_error", 2)


@pytest.mark.parametrize(
    ("error", "status"), [(GraphInterrupt((QUESTION,)), "interrupted"), (ParentCommand(Command()), "left")]
)
def test_control_flow_is_no_failure(error, status):
    run, (a,) = observed(dummy_program({"a": node("x")}, CHANNELS))
    said(run)
    run.open(a)
    run.settle(a, error)
    assert said(run) == [("task_end", "a", status)]


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (None, "run_end", "done"),
        (ValueError("no"), "run_error", "failed"),
        (KeyboardInterrupt(), "run_error", "failed"),
        (GraphDrained("now"), "run_end", "drained"),
        (GeneratorExit(), "run_end", "abandoned"),
    ],
)
def test_how_a_run_ended(error, kind, status):
    run, tasks = observed()
    for task in tasks:
        run.open(task)
        run.finish(task, [])
    run.commit()
    assert run.plan() is None
    run.close()
    run.take_reports()
    run.end(error)
    assert said(run) == [(kind, None, status)]
    run.end(error)
    assert said(run) == []


def test_warnings_and_reports_are_told_apart():
    run, _ = observed()
    run.notice("code", "place", "text")
    assert len(run.take_reports()) == 4
    assert run.notices == [Notice("code", "place", "text")]


def test_who_is_not_observed_reports_nothing():
    run = dummy_run(PAIR, modes={"updates"})
    run.start(1)
    run.plan()
    assert run.take_reports() == []
