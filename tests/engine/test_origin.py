"""Which execution a task belongs to: what its key is made of, and what it is not."""

from __future__ import annotations

from typing import Any

import pytest

from pregel._scope import TaskScope
from pregel.engine.origin import ORIGIN, key_of, originate
from pregel.engine.repeat import Called
from pregel.engine.task import Task
from tests.support.dummies import dummy_loaded, dummy_program, dummy_run, node

PROGRAM = dummy_program({"a": node(), "b": node()})


def run_of(origin: str | None = "o", **fields: Any) -> Any:
    """A stored run that goes on; its origin is a fact."""
    loaded = dummy_loaded(values={"x": 1}, facts={} if origin is None else {ORIGIN: origin})
    return dummy_run(PROGRAM, loaded, **fields)


def scope_of(run: Any, name: str = "a", index: int = -1, attempt: int = 1) -> TaskScope:
    return TaskScope(run, Task(PROGRAM.nodes[name], None, index), run.request.parent, attempt)


def key(run: Any, *what: Any, **how: Any) -> str:
    return key_of(run, scope_of(run, *what, **how))


def test_the_same_task_of_another_process():
    assert key(run_of()) == key(run_of(run_id="r")) == key(run_of(), attempt=3)


def test_what_the_checkpoint_is_called_does_not_matter():
    other = run_of()
    other.checkpoint_id_ = "another"
    assert key(other) == key(run_of())


@pytest.mark.parametrize(
    "other",
    [
        lambda: key(run_of("p")),
        lambda: key(run_of(thread_id="other")),
        lambda: key(run_of(), "b"),
        lambda: key(run_of(), "a", 0),
        lambda: key(run_of(), "a", 1),
    ],
)
def test_other_tasks_have_other_keys(other):
    assert other() != key(run_of())


def test_another_step():
    later = run_of()
    later.step += 1
    assert key(later) != key(run_of())


def test_nested_runs_have_the_key_of_their_task_and_the_call():
    def nested(*, origin: str = "o", call_number: int = 0, key: str | None = None) -> str:
        around = run_of(origin)
        run = dummy_run(PROGRAM, parent=scope_of(around), parent_run=around, call_number=call_number, key=key, ns_="n")
        return key_of(run, scope_of(run))

    assert nested() == nested()
    assert len({nested(), nested(origin="p"), nested(call_number=1), nested(key="k"), key(run_of())}) == 5


def test_without_a_saver_it_lasts_for_the_run():
    numbers = iter(range(9))
    runs = [dummy_run(PROGRAM, new_id=lambda step: f"c{next(numbers)}") for _ in range(2)]
    keys = [key(run) for run in runs]
    assert keys == [key(run) for run in runs]
    assert keys[0] != keys[1]
    assert runs[0].facts_changed == {}


def test_what_was_stored_without_an_origin():
    run = run_of(None)
    assert key(run) == key(run_of(None))
    assert (run.facts, run.facts_changed) == ({ORIGIN: "stored-0"}, {})


def test_a_new_origin():
    run = run_of()
    before = key(run)
    originate(run)
    assert run.facts_changed == {ORIGIN: run.facts[ORIGIN]}
    assert key(run) != before


def test_the_origin_of_a_call_with_a_run_id_is_its_own():
    runs = [run_of(called=Called(PROGRAM, "r", {}), new_id=lambda step, n=n: f"c{n}") for n in range(2)]
    for run in runs:
        originate(run)
    assert runs[0].facts == runs[1].facts == {ORIGIN: "run r"}
