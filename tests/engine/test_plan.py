"""Which nodes run next, in which order, with what input. Facts in, tasks out."""

from collections import Counter, OrderedDict, defaultdict, deque

import pytest

from pregel.channels import AnyValue, LastValue, NamedBarrierValue, Topic
from pregel.constants import END, MISSING, TASKS
from pregel.engine import plan
from pregel.engine.task import NO_COPIES
from pregel.managed import IsLastStepManager, RemainingStepsManager
from pregel.messages import Message
from pregel.types import Send, TimeoutPolicy
from tests.support.dummies import dummy_program, dummy_run, names, node

NODES = {
    "b": node("x"),
    "a": node("x"),
    "c": node("y"),
    "d": node(["x", "y"], on=["x", "y"]),
    "idle": node("z", write=None),
}


def run_with(program=None, *, channels=(), versions=None, seen=None, updated=None, **fields):
    """A run whose channels, versions and memory are as given. A channel's version is 1 unless named."""
    run = dummy_run(program or dummy_program(NODES), **fields)
    for name, value in dict(channels).items():
        run.channels[name].update(value if name == TASKS else [value])
        run.versions[name] = 1
    run.versions.update(versions or {})
    run.seen = {name: dict(of) for name, of in (seen or {}).items()}
    run.updated = updated
    return run


# ---- who is due


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({}, [], id="nothing ever happened"),
        pytest.param(
            {"channels": {"x": 1}}, ["a", "b", "d"], id="unknown updates: every node is asked, in definition order"
        ),
        pytest.param({"channels": {"x": 1}, "updated": ["x"]}, ["a", "b", "d"], id="alphabetical"),
        pytest.param({"channels": {"y": 1}, "updated": ["y"]}, ["c", "d"], id="only who waits for it"),
        pytest.param({"channels": {"x": 1, "y": 1}, "updated": ["y", "x"]}, ["a", "b", "c", "d"], id="each once"),
        pytest.param({"channels": {"x": 1, "y": 1}, "updated": ["y"]}, ["c", "d"], id="only what was updated wakes"),
        pytest.param({"channels": {"z": 1}, "updated": ["z"]}, [], id="nobody waits for it"),
        pytest.param(
            {"channels": {"x": 1}, "seen": {"a": {"x": 1}, "d": {"x": 0}}, "updated": ["x"]}, ["b", "d"], id="seen"
        ),
        pytest.param({"channels": {"x": 1}, "seen": {"a": {}}, "updated": ["x"]}, ["a", "b", "d"], id="seen nothing"),
        pytest.param({"versions": {"x": 1}, "updated": ["x"]}, [], id="a version without a value"),
        pytest.param({"channels": {"x": 1}, "updated": []}, [], id="nothing was updated: nobody is asked"),
    ],
)
def test_who_is_due(facts, expected):
    run = run_with(**facts)
    found = names(plan.next_tasks(run))
    assert sorted(found or ()) == expected
    if run.updated:
        assert found == expected
    else:
        assert found == [name for name in NODES if name in expected]


def test_one_candidate_is_asked_directly():
    run = run_with(dummy_program(), channels={"x": 4}, updated=["x", "y"])
    (task,) = plan.next_tasks(run)
    assert (task.name, task.input, task.index) == ("a", 4, -1)
    run.seen["a"] = {"x": 1}
    assert plan.next_tasks(run) == []


def test_text_versions_are_compared_too():
    run = run_with(dummy_program(), channels={"x": 1}, versions={"x": "0002.5"}, seen={"a": {"x": "0001.9"}})
    assert names(plan.next_tasks(run)) == ["a"]


def test_a_node_that_is_due_but_cannot_read_does_not_run():
    run = run_with(dummy_program({"a": node("y", on="x")}), channels={"x": 1}, updated=["x"])
    assert plan.next_tasks(run) == []


def test_planning_changes_nothing():
    run = run_with(channels={"x": 1, TASKS: [Send("c", 1)]}, updated=["x", TASKS])
    before = (dict(run.versions), dict(run.seen), run.updated)
    plan.next_tasks(run)
    plan.next_tasks(run)
    assert (dict(run.versions), dict(run.seen), run.updated) == before
    assert run.channels[TASKS].get() == [Send("c", 1)]


# ---- sends


def test_sends_come_first_in_packet_order():
    run = run_with(channels={"x": 1, TASKS: [Send("c", 10), Send("a", 11), Send("c", 12)]}, updated=["x", TASKS])
    tasks = plan.next_tasks(run)
    assert [(t.name, t.index, t.input) for t in tasks] == [
        ("c", 0, 10),
        ("a", 1, 11),
        ("c", 2, 12),
        ("a", -1, 1),
        ("b", -1, 1),
        ("d", -1, {"x": 1}),
    ]


def test_sends_beside_one_candidate():
    run = run_with(dummy_program(), channels={"x": 1, TASKS: [Send("a", 9)]}, updated=["x", TASKS])
    assert [(t.name, t.index) for t in plan.next_tasks(run)] == [("a", 0), ("a", -1)]


def test_sends_alone():
    run = run_with(channels={TASKS: [Send("a", 9)]}, updated=[TASKS])
    assert [(t.name, t.index) for t in plan.next_tasks(run)] == [("a", 0)]


def test_sends_are_ignored_while_they_are_no_news():
    run = run_with(channels={"y": 1, TASKS: [Send("a", 9)]}, updated=["y"])
    assert names(plan.next_tasks(run)) == ["c", "d"]


@pytest.mark.parametrize(
    ("packet", "code", "place"),
    [
        ("text", "invalid-send", TASKS),
        (Send("nobody", 1), "unknown-send", "nobody"),
        (Send(END, 1), "unknown-send", END),
    ],
)
def test_a_wrong_packet_is_skipped_with_a_notice_and_keeps_its_place(packet, code, place):
    run = run_with(channels={TASKS: [packet, Send("a", 1)]}, updated=[TASKS])
    assert [(t.name, t.index) for t in plan.next_tasks(run)] == [("a", 1)]
    assert [(n.code, n.place) for n in run.notices] == [(code, place)]


def test_a_send_may_bring_a_timeout():
    policy = TimeoutPolicy(run_timeout=3.0)
    run = run_with(
        dummy_program({"a": node(timeout=1.0)}),
        channels={TASKS: [Send("a", 1, timeout=policy), Send("a", 1)]},
        updated=[TASKS],
    )
    assert [t.timeout.run_timeout for t in plan.next_tasks(run)] == [3.0, 1.0]


def test_an_argument_is_copied_one_level():
    inner, deep = [1], [[2]]
    arg = {"list": inner, "deep": deep, "text": "t"}
    run = run_with(channels={TASKS: [Send("a", arg)]}, updated=[TASKS])
    (task,) = plan.next_tasks(run)
    assert task.input == arg
    assert task.input is not arg
    assert task.input["list"] is not inner
    assert task.input["deep"] is not deep
    assert task.input["deep"][0] is deep[0]


@pytest.mark.parametrize(
    "value",
    [[1], {1}, deque([1]), OrderedDict(a=1), defaultdict(int, a=1), Counter("a"), Message(role="user", content="c")],
)
def test_containers_of_known_types_are_copied(value):
    copied = plan.own_copy(dummy_run(), value)
    assert copied == value
    assert type(copied) is type(value)
    assert copied is not value
    assert plan.own_copy(dummy_run(copiers=NO_COPIES), value) is value


def test_anything_else_is_shared():
    class Own(dict):
        pass

    value = Own(a=[1])
    assert plan.own_copy(dummy_run(), value) is value


# ---- inputs


CHANNELS = {"x": LastValue(list), "n": LastValue(int), "topic": Topic(list), "any": AnyValue(list)}


def read(spec, channels, program=None, **fields):
    program = program or dummy_program(
        {"a": spec}, CHANNELS, managed={"left": RemainingStepsManager, "last": IsLastStepManager}
    )
    run = run_with(program, channels=channels, **fields)
    run.step = 3
    return plan.read_input(run, run.program.nodes["a"]), run


def test_a_bare_input_is_a_copy():
    value = [1]
    got, run = read(node("x"), {"x": value})
    assert got == [1]
    assert got is not value
    assert read(node("n"), {"n": 3})[0] == 3
    assert read(node("x"), {"x": value}, copiers=NO_COPIES)[0] is value
    assert run.channels["x"].get() is value


def test_an_empty_bare_channel_gives_no_task():
    assert read(node("x"), {})[0] is MISSING


def test_a_bare_name_that_is_no_channel_gives_no_task():
    assert read(node("left", on="x"), {"x": [1]})[0] is MISSING


def test_a_dict_input_has_what_is_available_in_listed_order():
    value = [1]
    got, _ = read(node(["n", "x", "any"], on="x"), {"x": value, "n": 2})
    assert list(got.items()) == [("n", 2), ("x", [1])]
    assert got["x"] is not value
    assert read(node([], on="x"), {"x": value})[0] == {}


def test_a_mixed_input_reads_managed_values_and_topics():
    value = [1]
    got, run = read(
        node(["topic", "left", "n", "x", "last", "nowhere"], on="x"), {"x": value, "topic": [[1], [2]], "n": 4}
    )
    assert got == {"topic": [[1], [2]], "left": run.stop - 3, "n": 4, "x": [1], "last": False}
    assert got["x"] is not value
    assert read(node(["topic", "n"], on="x"), {"n": 1})[0] == {"n": 1}


def test_the_mapper_makes_the_input():
    assert read(node("n", mapper=lambda n: n + 1), {"n": 1})[0] == 2
    assert read(node(["n"], on="n", mapper=tuple), {"n": 1})[0] == ("n",)


def test_a_failing_mapper_names_the_node():
    def fail(value):
        raise ValueError("mapper")

    with pytest.raises(ValueError, match="mapper") as caught:
        read(node("n", mapper=fail), {"n": 1})
    assert any("'a'" in note for note in caught.value.__notes__)


# ---- for snapshots


def test_open_tasks_are_sends_then_nodes_in_definition_order_without_inputs():
    def fail(value):
        raise AssertionError("mapper was called")

    program = dummy_program(
        {"b": node("x", mapper=fail), "a": node("x"), "quiet": node("x", write=None), "c": node("y")}
    )
    run = run_with(program, channels={"x": 1, TASKS: [Send("c", 3)]})
    assert [(t.name, t.index, t.input) for t in plan.open_tasks(run)] == [("c", 0, 3), ("b", -1, None), ("a", -1, None)]


def test_no_open_tasks_before_anything_happened():
    assert plan.open_tasks(dummy_run()) == []


def test_a_join_is_due_when_it_is_complete():
    program = dummy_program(
        {"a": node([], on="join")}, {"x": LastValue(int), "join": NamedBarrierValue(str, {"p", "q"})}
    )
    run = run_with(program, channels={"join": "p"}, updated=["join"])
    assert plan.next_tasks(run) == []
    run.channels["join"].update(["q"])
    assert names(plan.next_tasks(run)) == ["a"]


def test_a_node_that_could_not_read_is_asked_again_when_nothing_else_happens():
    run = run_with(dummy_program({"a": node("y", on="x")}), channels={"x": 1}, updated=["x"])
    assert plan.next_tasks(run) == []
    assert plan.next_tasks(run) == []
    run.channels["y"].update([5])
    run.updated = []
    assert [(task.name, task.input) for task in plan.next_tasks(run)] == [("a", 5)]


def test_when_nothing_changed_nobody_else_is_asked():
    run = run_with(channels={"x": 1, TASKS: [Send("a", 1)]}, updated=[])
    assert plan.next_tasks(run) == []
