"""Deliberate faults, one line each: the property suite must notice every one of them.

Each fault replaces one function of the engine; then a small part of the suite, with fixed seeds, has to fail. A fault
that is not noticed means that a property is missing, not that the fault is harmless.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pregel.constants import INTERRUPT, TASKS
from pregel.engine import apply, core, entry, pause, plan, retry, snapshot, view
from pregel.engine.core import Run
from pregel.engine.state import RunState
from pregel.engine.task import order
from pregel.pregel import _request, _start
from tests.faults.lives import good_graphs
from tests.faults.test_kill_points import kill_points
from tests.model.properties import PROPERTIES, place_of, way_of
from tests.model.test_model import check
from tests.support import nests
from tests.support.graphs import seeded
from tests.support.journey import EndlessError
from tests.support.savers import FaultySaver

SEEDS = range(100)
KILLED = 5


def suite() -> None:
    """The part of the property suite that a fault has to survive."""
    for seed in SEEDS:
        check(seeded(seed), seed, FaultySaver(lags=True), is_async=False, durability="async", streams=True)
    for seed, graph, thread in good_graphs(KILLED):
        kill_points(seed, graph, thread, is_async=False, durability="async", lags=False)


Patch = Callable[[pytest.MonkeyPatch], None]


def wrapped(owner: Any, name: str, fault: Callable[..., Any]) -> Patch:
    """Replace `owner.name` by `fault(original, *args)`."""

    def put(patch: pytest.MonkeyPatch) -> None:
        original = getattr(owner, name)
        patch.setattr(owner, name, lambda *args, **kwargs: fault(original, *args, **kwargs))

    return put


def completion_order(patch: pytest.MonkeyPatch) -> None:
    ended: dict[Any, int] = {}
    finish = Run.finish

    def noting(run: Run, task: Any, writes: Any) -> None:
        ended[task] = len(ended)
        finish(run, task, writes)

    patch.setattr(Run, "finish", noting)
    patch.setattr(apply, "order", lambda task: f"{ended.get(task, 0):09d}{order(task)}")


def lost_updates(original: Any, run: Any, *args: Any, **kwargs: Any) -> None:
    original(run, *args, **kwargs)
    run.updated = run.updated[:1]


def no_second_bump(original: Any, run: Any, name: str, version: Any) -> None:
    original(run, name, run.versions.get(name, version) if name.startswith("branch:") else version)


def later_step(original: Any, run: Any, loaded: Any) -> None:
    original(run, loaded)
    run.step += loaded is not None and loaded.checkpoint_id is not None


def unsaved_answers(original: Any, run: Any, command: Any) -> list[Any]:
    original(run, command)
    return []


def closed_while_asking(original: Any, run: Any) -> Any:
    if run.phase == "running" and run.failure is None:
        for task in run.tasks:
            task.writes = task.writes or []
        run.interrupts, run.waiting = [], []
    return original(run)


def early_release(original: Any, run: Any, *args: Any, **kwargs: Any) -> None:
    original(run, *args, **kwargs)
    apply.finish(run, run.version, run.updated)


def sends_not_stored(original: Any, run: Any, *args: Any) -> Any:
    run.changed.pop(TASKS, None)
    return original(run, *args)


def any_answer(original: Any, run: Any, scope: Any, *asked: Any) -> Any:
    if run.answers.by_id and scope.task.answers is None:
        scope.task.answers = [run.answers.by_id.popitem()[1]]
    return original(run, scope, *asked)


def question_not_stored(original: Any, run: Any, task: Any, channel: str, value: Any) -> None:
    if channel != INTERRUPT:
        original(run, task, channel, value)


def longer(original: Any, run: Any, *args: Any) -> None:
    original(run, *args)
    run.stop += 1


def orphan(original: Any, run: Any, *args: Any) -> Any:
    made = original(run, *args)
    if made.kind == "checkpoint" and made.step > 0:
        made.parent_rev, made.parent_id = None, None
    return made


FAULTS: dict[str, Patch] = {
    "writes are applied in completion order": completion_order,
    "part of the updated set is forgotten": wrapped(core, "apply_tasks", lost_updates),
    "stored results are dropped at resume": wrapped(entry, "reapply", lambda original, run, tasks: None),
    "a channel changes under its old version": wrapped(RunState, "bump", no_second_bump),
    "the step is off by one at resume": wrapped(RunState, "restore", later_step),
    "answers are not stored before the re-run": wrapped(entry, "_answers", unsaved_answers),
    "a step is closed while a task asks": wrapped(Run, "commit", closed_while_asking),
    "deferred nodes are released at once": wrapped(core, "apply_tasks", early_release),
    "sends are missing from the checkpoint": wrapped(snapshot, "commit", sends_not_stored),
    "an answer goes to any question": wrapped(pause, "ask", any_answer),
    "questions are not stored": wrapped(Run, "_hold", question_not_stored),
    "results are not stored": wrapped(
        snapshot, "rows", lambda original, run, writes: original(run, [entry_ for entry_ in writes if entry_.slot])
    ),
    "one step too many before the limit": wrapped(RunState, "__init__", longer),
    "one try too few": wrapped(
        retry, "decide", lambda original, policies, failures, *rest: original(policies, failures + 1, *rest)
    ),
    "one try too many": wrapped(
        retry, "decide", lambda original, policies, failures, *rest: original(policies, failures - 1 or 0.5, *rest)
    ),
    "routers do not see their node's writes": wrapped(
        view, "read", lambda original, run, select, writes=None: original(run, select)
    ),
    "a new input keeps what was pending": wrapped(entry, "apply_tasks", lambda original, *args, **kwargs: None),
    "a new input releases deferred nodes": wrapped(
        entry, "apply_tasks", lambda original, run, tasks, **kwargs: original(run, tasks)
    ),
    "sends run in reverse": wrapped(plan, "sends", lambda original, run: original(run)[::-1]),
    "checkpoints lose their parent": wrapped(snapshot, "commit", orphan),
    "used results are not marked": wrapped(view, "reapplied", lambda original, run, tasks: None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    with pytest.raises(AssertionError):
        suite()


@pytest.mark.slow
def test_without_a_fault() -> None:
    """Slow: the whole part of the suite, since nothing ends it early."""
    suite()


# ---- nested graphs


def nested_suite(name: str, first: int) -> None:
    """The part of the properties of nested graphs that a fault has to survive."""
    for seed in range(first, first + NESTS):
        with place_of(seed) as place:
            PROPERTIES[name](nests.seeded(seed), way_of(seed), place)


NESTS = 40


def newest_of_its_namespace(original: Any, request: Any, around: Any, then: Any) -> Any:
    ns = request.ns
    if not request.stable_ns:
        ns = _start.namespace.nested_ns(around.stood_ns_of(request.parent.task), request.call_number, request.key)
    newest = yield "load", (_request.address(request, ns),), {}
    return None if newest.checkpoint_id is None else (ns, newest.checkpoint_id)


def pointers_lost(original: Any, run: Any) -> None:
    original(run)
    run.sub_changed = {}


NESTED: dict[str, tuple[str, int, Patch]] = {
    "an answer goes to any question": ("paused", 0, wrapped(pause, "ask", any_answer)),
    "an answer is taken once": (
        "paused",
        14,
        wrapped(pause, "ask", lambda original, run, *rest: _taken(run, original(run, *rest))),
    ),
    "stored results are dropped at resume": ("paused", 0, wrapped(entry, "reapply", lambda original, run, tasks: None)),
    "answered questions are pending": (
        "paused",
        0,
        wrapped(pause, "unanswered", lambda original, all_, answered: all_),
    ),
    "a handled node stays due": ("paused", 0, wrapped(core, "_is_used_up", lambda original, task: False)),
    "a failure's handler is forgotten": ("paused", 0, wrapped(entry, "handler_of", lambda original, run, node: None)),
    "a nested replay starts from the newest of its namespace": (
        "replayed",
        0,
        wrapped(_start, "_stood_at", newest_of_its_namespace),
    ),
    "a stopped replay forgets where it goes": (
        "replayed",
        26,
        wrapped(RunState, "remember", lambda original, run, name, fact: None),
    ),
    "a replay loses the state of graphs inside": ("replayed", 9, wrapped(RunState, "transplant", pointers_lost)),
    "a replay uses what is stored": (
        "replayed",
        0,
        wrapped(_start, "load_arguments", lambda original, request: {**original(request), **_under(request)}),
    ),
}
"""Fault -> the property that notices it, the first seed that is tried, so that it does not take long, and the fault."""


def _taken(run: Any, answer: Any) -> Any:
    for id_ in [id_ for id_, given in run.answers.by_id.items() if given is answer]:
        del run.answers.by_id[id_]
    return answer


def _under(request: Any) -> dict[str, Any]:
    """Look for nested runs below the checkpoint that was loaded, as if there were no fork."""
    around = request.parent_run
    return {} if around is None or around.loaded is None else {"up_rev": around.loaded.rev}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pregel.warnings.PregelWarning")
@pytest.mark.parametrize("fault", NESTED)
def test_is_noticed_in_nested_graphs(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow: some faults show in few graphs only."""
    name, first, put = NESTED[fault]
    put(monkeypatch)
    with pytest.raises((AssertionError, EndlessError)):
        nested_suite(name, first)
