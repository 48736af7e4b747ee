"""Joins: what is released when nothing else would run, and which a run that is over has left half full."""

import pytest

from pregel.channels import InclusiveBarrierValue, LastValue, LastValueAfterFinish, NamedBarrierValue
from pregel.engine import joins
from pregel.engine.core import Run
from tests.support.dummies import dummy_program, dummy_request, dummy_run, node


def inclusive(*after, **options):
    return InclusiveBarrierValue(str, {"a", "b"}, after=frozenset(after), **options)


def run_of(channels, arrived=(), **fields):
    """A run in which these channels got the name `a`, or for deferred nodes a value."""
    nodes = {name.upper(): node(on=[name]) for name in channels}
    run = dummy_run(dummy_program(nodes, {**channels, "x": LastValue(int), "y": LastValue(int)}), **fields)
    for name in arrived:
        run.channels[name].update(["a"])
    return run


@pytest.mark.parametrize(
    ("arrived", "released"),
    [
        ("", ["d", "e"]),
        ("d", ["d", "e"]),
        ("i", ["i"]),
        ("j", ["j"]),
        ("ij", ["i"]),
        ("ik", ["i", "k"]),
        ("jk", ["j", "k"]),
        ("dl", ["d", "e"]),
        ("el", ["l"]),
        ("dkl", ["k"]),
    ],
)
def test_what_is_released(arrived, released):
    """`i` comes before `j`, the deferred node `d` before `l`, which `e` has nothing to do with."""
    channels = {
        "d": LastValueAfterFinish(int),
        "e": LastValueAfterFinish(int),
        "i": inclusive(),
        "j": inclusive("i"),
        "k": inclusive(),
        "l": inclusive("d"),
    }
    assert list(joins.released(run_of(channels, arrived))) == released


def test_asking_releases_nothing():
    run = run_of({"i": inclusive()}, "i")
    joins.released(run)
    assert not run.channels["i"].is_available()


def test_a_deferred_inclusive_join_is_released_with_the_deferred_nodes():
    channels = {"d": LastValueAfterFinish(int), "i": inclusive(deferred=True), "j": inclusive()}
    assert list(joins.released(run_of(channels, "dij"))) == ["j"]
    assert list(joins.released(run_of(channels, "di"))) == ["d", "i"]


def watched(**fields):
    channel = NamedBarrierValue(str, {"a", "b"})
    channel.watched = True
    for name, value in fields.items():
        setattr(channel, name, value)
    return channel


@pytest.mark.parametrize(
    ("seen", "fired", "is_told"),
    [({"a"}, False, True), (set(), False, False), ({"a", "b"}, False, False), ({"a"}, True, False)],
)
def test_what_is_reported(seen, fired, is_told):
    run = run_of({"j": watched()})
    run.channels["j"].seen, run.channels["j"].fired = seen, fired
    joins.report(run, ["j"])
    assert [(notice.code, notice.place) for notice in run.notices] == [("half-join", "j")] * is_told
    assert all("'b'" in notice.text and "'J'" in notice.text for notice in run.notices)


def test_only_what_is_watched_and_wakes_somebody():
    channels = {"j": watched(), "k": NamedBarrierValue(str, {"a"}), "x": LastValue(int), "y": LastValue(int)}
    program = dummy_program({"J": node(on=["j"])}, {**channels, "idle": watched()})
    assert program.joins == ("j",)


def test_only_a_run_that_is_over_reports():
    """Of the arrivals of this run, at its last plan."""
    nodes = {"A": node("x", fn=lambda x: {"j": "a"}), "J": node("x", on=["j"])}
    program = dummy_program(nodes, {"j": watched(), "x": LastValue(int), "y": LastValue(int)})
    run = Run(program, dummy_request())
    run.start({"x": 1})
    (task,) = run.plan()
    assert run.notices == []
    run.finish(task, [("j", "a")])
    run.commit()
    assert run.notices == []
    assert run.plan() is None
    assert [notice.place for notice in run.notices] == ["j"]
