"""Who may run in a namespace that all runs of a graph share."""

import pytest

from pregel.engine.occupancy import Stay, Step, enter, leave


def step(task_id: str, checkpoint_id: str = "c", *, called: bool = False) -> Step:
    return Step(checkpoint_id, task_id, task_id[0], called)


A, B = step("a1"), step("b1")
LATER = step("a2", "d")


@pytest.mark.parametrize(
    ("first", "second", "collide"),
    [
        ((A,), (A,), False),  # another attempt of the task
        ((A,), (B,), True),
        ((A,), (LATER,), False),  # a later superstep
        ((A, step("x1", "n")), (B, step("x2", "m")), True),  # below two tasks of the root
        ((A, step("x1", "n")), (A, step("x2", "m")), False),  # two runs of one task, one after the other
        ((A, step("x1", "n")), (A, step("y1", "n")), True),
        ((A, step("x1", "n")), (LATER, step("x2", "m")), False),
    ],
)
@pytest.mark.parametrize("is_over", [False, True])
def test_two_tasks_of_a_superstep_collide_however_fast(first, second, collide, is_over):
    stays: dict[str, Stay] = {}
    assert enter(stays, "n", first) is None
    if is_over:
        leave(stays, "n")
    found = enter(stays, "n", second)
    assert (found is not None) is collide
    if found is not None:
        assert found[0] in first
        assert found[1] in second
        assert stays["n"].way == first
    assert enter(stays, "other", second) is None


@pytest.mark.parametrize("is_over", [False, True])
def test_called_tasks_collide_while_they_overlap(is_over):
    stays: dict[str, Stay] = {}
    first, second = step("x1", called=True), step("x2", called=True)
    enter(stays, "n", (A, first))
    if is_over:
        leave(stays, "n")
    assert enter(stays, "n", (A, second)) == (None if is_over else (first, second))


def test_leaving_what_nobody_entered():
    stays: dict[str, Stay] = {}
    leave(stays, "n")
    assert stays == {}
