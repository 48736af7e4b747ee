"""The barrier: writes of a step in, values, versions and updated channels out."""

import operator

import pytest

from pregel.channels import (
    BinaryOperatorAggregate,
    EphemeralValue,
    LastValue,
    LastValueAfterFinish,
    NamedBarrierValue,
    Topic,
)
from pregel.channels.base import BaseChannel
from pregel.constants import MISSING, NO_WRITES, RETURN, TASKS
from pregel.engine.apply import apply_tasks, apply_writes
from pregel.engine.task import Task
from pregel.errors import EmptyChannelError, ErrorCode, InvalidUpdateError
from pregel.types import Send
from tests.support.dummies import dummy_claim, dummy_loaded, dummy_program, dummy_run, node, values


def concat():
    return BinaryOperatorAggregate(list, operator.add)


CHANNELS = {"x": LastValue(int), "y": LastValue(int), "log": concat(), "e": EphemeralValue(int)}
NODES = {"a": node("x"), "b": node("x"), "c": node("x", on=["x", "log", "e"])}


def run_of(channels=None, nodes=None, **fields):
    return dummy_run(dummy_program(nodes or NODES, channels or CHANNELS), **fields)


def tasks_of(run, **writes):
    """Finished tasks by node name; a digit after the name makes it that send."""
    made = []
    for name, written in writes.items():
        task = Task(run.program.nodes[name[0]], None, int(name[1:]) if name[1:] else -1)
        task.writes = written
        made.append(task)
    run.tasks = made
    return made


def apply(run, **writes):
    apply_tasks(run, tasks_of(run, **writes))


# ---- values and versions


def test_one_step():
    run = run_of()
    apply(run, a=[("x", 1), ("log", ["a"])])
    assert values(run) == {"x": 1, "log": ["a"]}
    assert run.versions == {"x": 1, "log": 1}
    assert run.updated == ["x", "log"]


@pytest.mark.parametrize("loaded", [None, dummy_loaded(values={"x": 1}, updated_channels=["x"])])
def test_only_a_barrier_of_the_run_itself_is_sure_of_what_is_new(loaded):
    run = dummy_run(dummy_program(NODES, CHANNELS), loaded)
    apply_writes(run, [("y", 1)], "input")
    assert not run.is_fresh
    apply(run, a=[("x", 2)])
    assert run.is_fresh
    assert run.updated == ["x"]


def test_all_changes_of_a_step_get_one_version_and_versions_grow():
    run = run_of()
    apply(run, a=[("x", 1)], b=[("y", 2)])
    apply(run, a=[("y", 3)])
    assert run.versions == {"x": 1, "y": 2}
    assert run.updated == ["y"]


@pytest.mark.parametrize("order", [("a", "b", "c0", "c1"), ("c1", "b", "c0", "a"), ("b", "c1", "a", "c0")])
def test_reducers_see_task_order_whatever_finished_first(order):
    run = run_of()
    apply(run, **{name: [("log", [name]), ("log", [name + "'"])] for name in order})
    assert values(run)["log"] == ["a", "a'", "b", "b'", "c0", "c0'", "c1", "c1'"]


def test_the_tenth_send_comes_after_the_second():
    run = run_of()
    apply(run, c10=[("log", [10])], c2=[("log", [2])])
    assert values(run)["log"] == [2, 10]


def test_facts_about_tasks_are_no_writes():
    run = run_of()
    apply(run, a=[(NO_WRITES, None), (RETURN, 3)])
    assert (run.versions, run.updated, run.notices) == ({}, [], [])


def test_a_write_to_an_unknown_channel_is_dropped_with_a_notice():
    run = run_of()
    apply(run, a=[("nowhere", 1), ("x", 2)])
    assert values(run) == {"x": 2, "log": []}
    assert [(n.code, n.place) for n in run.notices] == [("unknown-channel", "nowhere")]


def test_a_task_that_has_not_finished_cannot_be_applied():
    run = run_of()
    with pytest.raises(AssertionError):
        apply_tasks(run, [Task(run.program.nodes["a"], None)])


def test_changes_are_remembered_for_the_saver_only_if_there_is_one():
    run = run_of()
    apply(run, a=[("log", [1])])
    assert run.changed == {}
    run = run_of(stores=True)
    apply(run, a=[("log", [1, 2]), ("x", 1)])
    run.changed.clear()
    apply(run, a=[("log", [3])])
    assert run.changed == {"log": (2, MISSING, [[3]])}


def test_two_appends_between_commits_keep_the_shorter_prefix():
    run = run_of(stores=True, deferred=True)
    apply(run, a=[("log", [1])])
    run.changed.clear()
    apply(run, a=[("log", [2])])
    apply(run, a=[("log", [3])])
    assert run.changed == {"log": (1, [1], [[2], [3]])}
    run.changed["log"] = None
    apply(run, a=[("log", [4])])
    assert run.changed == {"log": None}


# ---- what nodes have seen


def test_woken_nodes_have_seen_their_triggers():
    run = run_of()
    apply_writes(run, [("x", 1), ("log", [1])], "input")
    apply(run, a=[("y", 1)], c=[])
    assert run.seen == {"a": {"x": 1}, "c": {"x": 1, "log": 1}}
    assert set(run.seen_changed) == {"a", "c"}


def test_versions_seen_are_those_before_the_step():
    run = run_of()
    apply_writes(run, [("x", 1)], "input")
    apply(run, a=[("x", 2)])
    assert (run.seen["a"], run.versions) == ({"x": 1}, {"x": 2})


def test_sent_tasks_have_an_entry_and_have_seen_nothing():
    run = run_of()
    apply_writes(run, [("x", 1)], "input")
    apply(run, a0=[])
    assert run.seen == {"a": {}}


def test_what_was_seen_before_stays():
    run = run_of()
    run.seen = {"a": {"other": 3}}
    apply_writes(run, [("x", 1)], "input")
    apply(run, a=[])
    assert run.seen == {"a": {"other": 3, "x": 1}}


# ---- all or nothing


def snapshot_of(run):
    return (values(run), dict(run.versions), {k: dict(v) for k, v in run.seen.items()}, list(run.live), run.updated)


def test_two_values_for_one_cell_name_the_writers_and_change_nothing():
    run = run_of()
    apply_writes(run, [("x", 1), ("e", 1)], "input")
    before = snapshot_of(run)
    with pytest.raises(InvalidUpdateError) as caught:
        apply(run, a=[("log", [1]), ("y", 1)], b=[("y", "2")], c=[("x", 2)])
    assert snapshot_of(run) == before
    error = caught.value
    assert (error.code, error.key, error.count) == (ErrorCode.INVALID_CONCURRENT_GRAPH_UPDATE, "y", 2)
    assert all(part in str(error) for part in ("'a', 'b'", "int, str", "'y'", "INVALID_CONCURRENT_GRAPH_UPDATE"))
    assert "'c'" not in str(error)


def test_a_raising_reducer_changes_nothing():
    def fail(one, other):
        raise ZeroDivisionError

    run = run_of({**CHANNELS, "bad": BinaryOperatorAggregate(int, fail)})
    apply_writes(run, [("x", 1), ("e", 1)], "input")
    before = snapshot_of(run)
    with pytest.raises(ZeroDivisionError):
        apply(run, a=[("x", 2), ("log", [1]), ("bad", 1), ("bad", 2)])
    assert snapshot_of(run) == before


class Picky(LastValue):
    """Refuses in its own words, with and without saying which channel it is."""

    def __init__(self, typ, key="", error=None):
        super().__init__(typ, key)
        self.error = error

    def from_checkpoint(self, checkpoint):
        made = Picky(self.typ, self.key, self.error)
        made.value = checkpoint
        return made

    def copy(self):
        return self.from_checkpoint(self.value)

    def update(self, values):
        if values:
            raise self.error
        return False


def test_the_text_of_another_refusal_is_kept_and_told_where():
    given = InvalidUpdateError("too odd", key="p")
    run = run_of({"p": Picky(int, "p", given), "x": LastValue(int)})
    with pytest.raises(InvalidUpdateError) as caught:
        apply(run, a=[("p", 1)], b=[("x", 1)])
    text = str(caught.value)
    assert text.startswith("too odd")
    assert "'a'" in text
    assert "'b'" not in text


def test_a_refusal_without_a_place_passes_as_it_is():
    given = InvalidUpdateError("own words")
    run = run_of({"p": Picky(int, "p", given), "x": LastValue(int)})
    with pytest.raises(InvalidUpdateError) as caught:
        apply(run, a=[("p", 1)])
    assert caught.value is given


# ---- clearing


def test_an_ephemeral_value_lives_one_step():
    run = run_of()
    apply_writes(run, [("e", 1)], "input")
    apply(run, a=[("x", 1)])
    assert (run.channels["e"].is_available(), run.versions, run.updated) == (False, {"e": 2, "x": 2}, ["x"])
    assert run.live == []
    apply(run, a=[("x", 2)])
    assert run.versions == {"e": 2, "x": 3}


def test_an_ephemeral_value_that_is_written_again_stays():
    run = run_of()
    apply_writes(run, [("e", 1)], "input")
    apply(run, a=[("e", 2)])
    assert values(run)["e"] == 2
    assert run.live == ["e"]
    apply(run, a=[])
    assert "e" not in values(run)


def test_sends_are_gone_after_the_step_that_ran_them():
    run = run_of()
    apply(run, a=[(TASKS, Send("b", 1))])
    assert run.channels[TASKS].get() == [Send("b", 1)]
    assert run.updated == [TASKS]
    apply(run, b0=[])
    assert not run.channels[TASKS].is_available()
    assert run.updated == []


class Fading(BaseChannel):
    """A foreign channel that counts down when nobody writes: still there, changed, until it is used up."""

    def __init__(self, typ, key="", value=MISSING):
        super().__init__(typ, key)
        self.value = value

    def get(self):
        if self.value is MISSING:
            raise EmptyChannelError
        return self.value

    def update(self, values):
        if values:
            self.value = values[-1]
            return True
        if self.value is MISSING:
            return False
        self.value = self.value - 1 if self.value > 1 else MISSING
        return True

    def checkpoint(self):
        return self.value

    def from_checkpoint(self, checkpoint):
        return type(self)(self.typ, self.key, checkpoint)


def test_a_foreign_channel_is_asked_at_the_end_of_every_step_while_it_has_a_value():
    run = run_of({"x": LastValue(int), "f": Fading(int)})
    apply(run, a=[("f", 2)])
    assert (values(run), run.versions["f"]) == ({"f": 2}, 1)
    apply(run, a=[("x", 1)])
    assert (values(run), run.versions["f"], run.updated, run.live) == ({"x": 1, "f": 1}, 2, ["x", "f"], ["f"])
    apply(run, a=[("x", 2)])
    assert (values(run), run.versions["f"], run.updated, run.live) == ({"x": 2}, 3, ["x"], [])
    apply(run, a=[("x", 3)])
    assert run.versions["f"] == 3


class Steady(Fading):
    """Does nothing when nobody writes, but does not say so beforehand."""

    def update(self, values):
        return super().update(values) if values else False


def test_a_foreign_channel_that_does_not_react_gets_no_version():
    run = run_of({"x": LastValue(int), "f": Steady(int)})
    apply(run, a=[("f", 2)])
    apply(run, a=[("x", 1)])
    assert (run.versions, run.updated, run.live) == ({"f": 1, "x": 2}, ["x"], ["f"])


def test_a_channel_that_says_it_did_not_change_gets_no_version():
    run = run_of({"x": LastValue(int), "j": NamedBarrierValue(str, {"p", "q"})})
    apply(run, a=[("j", "p")])
    assert (run.versions, run.updated) == ({"j": 1}, [])
    apply(run, b=[("j", "p")])
    assert run.versions == {"j": 1}


# ---- consume and finish


def test_a_join_is_used_up_by_the_node_that_it_woke():
    channels = {"x": LastValue(int), "j": NamedBarrierValue(str, {"p", "q"})}
    run = run_of(channels, {"a": node([], on="j"), "b": node("x")})
    apply(run, b=[("j", "p"), ("j", "q")])
    assert run.updated == ["j"]
    apply(run, a=[("x", 1)])
    assert not run.channels["j"].is_available()
    assert (run.versions, run.seen["a"], run.updated) == ({"j": 2, "x": 2}, {"j": 1}, ["x"])


def test_a_sent_task_uses_nothing_up():
    channels = {"x": LastValue(int), "j": NamedBarrierValue(str, {"p"})}
    run = run_of(channels, {"a": node([], on="j"), "b": node("x")})
    apply(run, b=[("j", "p")])
    apply(run, a0=[("x", 1)])
    assert run.channels["j"].is_available()


class Ticket(Steady):
    """A foreign channel that is used up, on the object itself."""

    def consume(self):
        if self.value is MISSING:
            return False
        self.value = MISSING
        return True


def test_a_foreign_channel_is_used_up_on_a_copy():
    run = run_of({"x": LastValue(int), "t": Ticket(int)}, {"a": node("t"), "b": node("x")})
    apply(run, b=[("t", 5)])
    held = run.channels["t"]
    apply(run, a=[("x", 1)])
    assert held.get() == 5
    assert not run.channels["t"].is_available()
    assert run.versions["t"] == 2
    assert run.live == []


def test_a_foreign_channel_that_was_used_up_may_be_written_in_the_same_step():
    run = run_of({"x": LastValue(int), "t": Ticket(int)}, {"a": node("t"), "b": node("x")})
    apply(run, b=[("t", 5)])
    apply(run, a=[("t", 6)])
    assert (run.channels["t"].get(), run.updated) == (6, ["t"])


def test_a_foreign_channel_with_nothing_to_use_up_gets_no_version():
    run = run_of({"x": LastValue(int), "f": Steady(int)}, {"a": node("f"), "b": node("x")})
    apply(run, b=[("f", 5)])
    apply(run, a=[])
    assert (run.channels["f"].get(), run.versions["f"]) == (5, 1)


def test_a_foreign_channel_is_not_used_up_by_a_step_that_fails():
    run = run_of({"x": LastValue(int), "t": Ticket(int)}, {"a": node("t"), "b": node("x")})
    apply(run, b=[("t", 5)])
    with pytest.raises(InvalidUpdateError):
        apply(run, a=[("x", 1), ("x", 2)])
    assert run.channels["t"].get() == 5


DEFERRED = {"x": LastValue(int), "late": LastValueAfterFinish(int), "late2": LastValueAfterFinish(int)}


def test_what_waits_for_the_end_is_released_when_nothing_else_would_run():
    run = run_of(DEFERRED, {"a": node("x"), "b": node("late")})
    apply(run, a=[("late", 1), ("x", 1)])
    assert (run.updated, run.channels["late"].is_available()) == (["x"], False)
    apply(run, a=[])
    assert (run.updated, run.versions) == (["late"], {"late": 2, "x": 1})
    apply(run, b=[])
    assert not run.channels["late"].is_available()


def test_a_send_that_waits_holds_the_end_back():
    run = run_of(DEFERRED, {"a": node("x"), "b": node("late")})
    apply(run, a=[("late", 1), (TASKS, Send("a", 1))])
    assert run.updated == [TASKS]


def test_a_channel_that_reports_the_end_twice_is_updated_once():
    class Eager(Steady):
        """Available at once, and changed by the end too."""

        def finish(self):
            return self.value is not MISSING

    run = run_of({"x": LastValue(int), "g": Eager(int)}, {"a": node("x")})
    apply(run, a=[("g", 1)])
    assert (run.updated, run.versions) == (["g"], {"g": 1})


def test_a_channel_that_ends_without_a_value_is_not_updated():
    class Odd(Steady):
        """Changes at the end, and is empty."""

        def finish(self):
            self.value = MISSING
            return True

    run = run_of({"x": LastValue(int), "o": Odd(int)}, {"a": node("x")})
    apply(run, a=[])
    assert (run.updated, run.versions) == ([], {"o": 1})


# ---- writes without a task


def test_input_counts_no_step_clears_nothing_and_adds_up():
    run = run_of()
    apply_writes(run, [("e", 1)], "input")
    apply_writes(run, [("x", 1)], "input")
    apply_writes(run, [("x", 2), ("y", 1)], "input")
    assert values(run) == {"e": 1, "x": 2, "y": 1, "log": []}
    assert run.updated == ["e", "x", "y"]
    assert run.versions == {"e": 1, "x": 3, "y": 3}


def test_input_that_a_cell_cannot_take_names_its_source():
    run = run_of()
    with pytest.raises(InvalidUpdateError) as caught:
        apply_writes(run, [("x", 1), ("x", 2)], "Command")
    assert "'Command'" in str(caught.value)
    assert caught.value.key == "x"
    assert run.versions == {}


def test_a_topic_takes_lists_and_single_values():
    run = run_of({"x": LastValue(int), "t": Topic(int)})
    apply(run, a=[("t", [1, 2])], b=[("t", 3)])
    assert run.channels["t"].get() == [1, 2, 3]


def test_versions_of_a_foreign_saver_are_its_own():
    claim = dummy_claim(make_version=lambda current: "1.r" if current is None else f"{int(current[0]) + 1}.r")
    run = run_of(loaded=dummy_loaded(claim=claim))
    apply_writes(run, [("x", 1)], "input")
    apply(run, a=[("y", 1)])
    assert run.versions == {"x": "1.r", "y": "2.r"}
    assert run.seen["a"] == {"x": "1.r"}
