"""How a run begins, and what of the open step is already done."""

import operator
from datetime import UTC, datetime

import pytest

from pregel._scope import TaskScope
from pregel.channels import BinaryOperatorAggregate, EphemeralValue, LastValue
from pregel.constants import END, ERROR, ERROR_SOURCE_NODE, INTERRUPT, NO_WRITES, NULL_TASK_ID, RESUME, START, TASKS
from pregel.engine import entry
from pregel.engine.task import Task, interrupt_id
from pregel.errors import (
    EmptyInputError,
    GraphInterrupt,
    Interrupt,
    InvalidAnswerError,
    InvalidUpdateError,
    UnknownInterruptError,
)
from pregel.types import Command, Send
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
    null,
    rows_of,
    stored,
    values,
)

CHANNELS = {
    "x": LastValue(int),
    "y": LastValue(int),
    "log": BinaryOperatorAggregate(list, operator.add),
    "branch:to:a": EphemeralValue(str),
    START: EphemeralValue(dict),
}
PLAIN = dummy_program({"a": node("x"), "b": node("x")}, CHANNELS)
STATE = dummy_program(
    {START: node(START), "a": node(["x"], on="branch:to:a")},
    CHANNELS,
    input_channels=START,
    stream_channels=["x", "y", "log"],
)
Q = "0" * 31
ONE, TWO = Q + "1", Q + "2"


def begin(program, value, loaded=None, **fields):
    run = dummy_run(program, loaded, **fields)
    return run, entry.begin(run, value)


# ---- from input to writes


def no_notice(*facts):
    raise AssertionError(facts)


@pytest.mark.parametrize(
    ("channels", "value", "writes"),
    [
        ("x", 3, [("x", 3)]),
        ("x", {}, [("x", {})]),
        ("x", None, []),
        (["x", "y"], {"y": 1, "x": None}, [("y", 1), ("x", None)]),
        (["x", "y"], {"x": 1, "else": 2}, [("x", 1)]),
        (["x", "y"], {}, []),
        (["x", "y"], None, []),
    ],
)
def test_map_input(channels, value, writes):
    assert entry.map_input(dummy_program(input_channels=channels), value) == writes


def test_input_of_several_channels_must_be_a_dict():
    with pytest.raises(TypeError):
        entry.map_input(dummy_program(input_channels=["x", "y"]), [("x", 1)])


class Annotated:
    """An object with declared fields, one of which it does not have."""

    x: int
    log: list

    def __init__(self):
        self.x = 1


@pytest.mark.parametrize(
    ("update", "writes"),
    [
        (None, []),
        ({}, []),
        ([], []),
        ((), []),
        ({"x": 1, "else": 2}, [("x", 1), ("else", 2)]),
        ([("x", 1), ("x", 2)], [("x", 1), ("x", 2)]),
        ((("x", 1),), [("x", 1)]),
        (Annotated(), [("x", 1)]),
        (7, []),
        (["x"], []),
    ],
)
def test_update_writes(update, writes):
    assert entry.update_writes(update, STATE) == writes


def test_an_update_of_a_state_with_one_unnamed_value():
    program = dummy_program({"a": node("__root__")}, {"__root__": LastValue(list)})
    assert entry.update_writes([1], program) == [("__root__", [1])]
    assert entry.update_writes([], program) == []


@pytest.mark.parametrize(
    ("command", "writes"),
    [
        (Command(update={"x": 1}), [("x", 1)]),
        (Command(goto="a"), [("branch:to:a", START)]),
        (Command(goto=["a", Send("a", 1)], update={"x": 1}), [("branch:to:a", START), (TASKS, Send("a", 1)), ("x", 1)]),
        (Command(goto=("a",)), [("branch:to:a", START)]),
        (Command(goto=Send("a", 1)), [(TASKS, Send("a", 1))]),
        (Command(goto=END), []),
        (Command(resume=1), []),
    ],
)
def test_map_command(command, writes):
    assert entry.map_command(command, STATE, no_notice) == writes


def test_a_goto_to_nowhere_is_ignored_with_a_notice():
    seen = []
    assert entry.map_command(Command(goto="nobody"), STATE, lambda *facts: seen.append(facts)) == []
    assert [facts[:2] for facts in seen] == [("unknown-goto", "input:nobody")]
    assert entry.map_command(Command(goto=[Send("nobody", 1)]), STATE, lambda *facts: seen.append(facts)) == []
    assert seen[-1][:2] == ("unknown-send", "input:nobody")


def test_a_goto_must_be_a_name_or_a_send():
    with pytest.raises(TypeError):
        entry.map_command(Command(goto=[3]), STATE, no_notice)


def test_a_command_for_the_parent_is_no_input():
    with pytest.raises(InvalidUpdateError):
        begin(STATE, Command(graph=Command.PARENT, goto="a"))


# ---- new input


def test_input_on_an_empty_thread():
    run, commits = begin(PLAIN, 3, stores=True)
    match(commits[0], source="input", step=-1, kind="checkpoint", seen={"__input__": {}}, updated_channels=["x"])
    assert len(commits) == 1
    match(run, step=0, updated=["x"], pending=[], resumed=False, versions={"x": 1})
    assert names(run_plan(run)) == ["a", "b"]


def run_plan(run):
    run.phase = "idle"
    return run.plan()


def test_input_without_a_saver_gives_nothing_to_store():
    run, commits = begin(PLAIN, 3)
    assert (commits, run.step) == ([], 0)


@pytest.mark.parametrize("value", [None, {}, {"else": 1}])
def test_no_input_on_an_empty_thread(value):
    with pytest.raises(EmptyInputError):
        begin(dummy_program(input_channels=["x", "y"]), value)


def test_new_input_drops_the_tasks_of_the_open_step():
    loaded = dummy_loaded(values={"x": 1}, updated_channels=["x"])
    loaded.writes = [stored(id_in(PLAIN, loaded, "a"), [("y", 5)])]
    run, (commit,) = begin(PLAIN, 3, loaded)
    match(commit, source="input", step=1, seen={"a": {"x": 1}, "b": {"x": 1}, "__input__": {}}, parent_id="stored-0")
    assert values(run) == {"x": 3, "log": []}
    assert run.pending == []
    assert names(run_plan(run)) == ["a", "b"]


def test_new_input_on_a_thread_with_nothing_open():
    run, (commit,) = begin(PLAIN, 3, dummy_loaded(values={"x": 1}, seen={"a": {"x": 1}, "b": {"x": 1}}))
    match(commit, source="input", step=1, seen={"__input__": {}})
    assert run.updated == ["x"]


def test_stored_writes_of_nobody_are_applied_first():
    run, _ = begin(
        PLAIN, None, dummy_loaded(values={"x": 1}, writes=[null([("y", 1), ("x", 2)]), null([("z", 1)], slot=-4)])
    )
    assert values(run)["y"] == 1
    assert run.versions["x"] == 2


# ---- continuing


def test_nothing_given_on_a_stored_thread_continues():
    run, commits = begin(PLAIN, None, dummy_loaded(values={"x": 1}))
    assert commits == []
    match(run, step=1, resumed=True)
    assert run.seen[INTERRUPT] == {"x": 1}
    assert INTERRUPT in run.seen_changed
    assert names(run_plan(run)) == ["a", "b"]


def test_a_run_that_continues_shows_where_it_starts_from():
    run, _ = begin(PLAIN, None, dummy_loaded(values={"x": 1, "y": 2}), modes={"values"})
    assert chunks_of(run).of("values") == [2]


def test_answers_stored_earlier_are_found_again():
    run, _ = begin(PLAIN, None, dummy_loaded(values={"x": 1}, writes=[null([(RESUME, {ONE: "yes"})], slot=-4)]))
    match(run.answers, by_id={ONE: "yes"}, given=False)


def test_a_nested_run_continues_with_the_answers_of_its_root():
    outer = dummy_run(PLAIN, dummy_loaded(values={"x": 1}))
    scope = TaskScope(outer, Task(PLAIN.nodes["a"], None), None)
    run = dummy_run(PLAIN, dummy_loaded(values={"x": 1}), ns="a:1", parent=scope, parent_run=outer)
    run.continues = True
    assert entry.begin(run, 99) == []
    assert run.answers is outer.answers
    assert values(run) == {"x": 1, "log": []}


def test_a_bare_answer_reaches_the_question_of_a_nested_run_that_was_edited_meanwhile():
    def nested(source):
        outer = dummy_run(PLAIN, paused(ONE))
        entry.begin(outer, Command(resume="yes"))
        scope = TaskScope(outer, Task(PLAIN.nodes["a"], None), None)
        run = dummy_run(PLAIN, dummy_loaded(values={"x": 1}, source=source), ns="a:1", parent=scope, parent_run=outer)
        run.continues = True
        entry.begin(run, None)
        return run.answers

    match(nested("update"), by_id={}, loose=["yes"])
    match(nested("loop"), by_id={ONE: "yes"}, loose=[])


def test_a_nested_run_that_does_not_continue_takes_its_input():
    outer = dummy_run(PLAIN, dummy_loaded(values={"x": 1}))
    scope = TaskScope(outer, Task(PLAIN.nodes["a"], None), None)
    _, commits = begin(PLAIN, 99, dummy_loaded(values={"x": 1}), ns="a:1", parent=scope, parent_run=outer)
    assert [commit.source for commit in commits] == ["input"]


# ---- commands


@pytest.mark.parametrize("command", [Command(), Command(update={}), Command(update=[]), Command(goto=())])
def test_an_empty_command(command):
    with pytest.raises(EmptyInputError):
        begin(STATE, command, dummy_loaded(values={"x": 1}))


def test_answers_need_a_saver():
    with pytest.raises(RuntimeError):
        begin(STATE, Command(resume=1))


def test_a_command_on_an_empty_thread_starts_the_graph_once():
    run, (commit,) = begin(STATE, Command(update={"x": 5}), stores=True)
    match(commit, source="input", step=-1)
    assert values(run) == {"x": 5, "log": []}
    assert names(run_plan(run)) == [START]


def test_a_command_on_an_empty_thread_of_a_plain_graph():
    run, _ = begin(PLAIN, Command(update={"x": 5}), stores=True)
    assert names(run_plan(run)) == ["a", "b"]


def test_a_command_is_made_durable_before_anything_runs():
    loaded = dummy_loaded(values={"x": 1}, writes=[null([("y", 1)])])
    run, (commit,) = begin(STATE, Command(goto="a", update={"x": 2}), loaded)
    match(commit, kind="tasks")
    (row,) = commit.writes
    match(row, slot=0, writes=[("branch:to:a", START), ("x", 2)], rev=7, checkpoint_id="stored-0")
    assert row.task_id == NULL_TASK_ID[:-1] + "1"
    assert names(run_plan(run)) == ["a"]


def test_a_command_without_a_saver_just_counts():
    run, commits = begin(STATE, Command(update={"x": 2}))
    assert commits == []
    assert values(run)["x"] == 2


def test_a_deferred_run_holds_what_a_command_brought():
    run, commits = begin(STATE, Command(update={"x": 2}), dummy_loaded(values={"x": 1}), deferred=True)
    assert commits == []
    assert [row.slot for row in run.held] == [0]


def test_a_command_without_answers_keeps_those_that_wait():
    loaded = dummy_loaded(values={"x": 1}, writes=[null([(RESUME, {ONE: "yes"})], slot=-4)])
    run, _ = begin(STATE, Command(update={"x": 2}), loaded)
    match(run.answers, by_id={ONE: "yes"}, given=False)


# ---- answers


def paused(*questions, extra=()):
    rows = [stored(f"t{id_}", [(INTERRUPT, [Interrupt("?", id_)])], slot=-3) for id_ in questions]
    return dummy_loaded(values={"x": 1}, writes=[*rows, *extra])


def test_a_bare_answer_goes_to_the_one_question():
    run, (commit,) = begin(PLAIN, Command(resume="yes"), paused(ONE))
    match(run.answers, by_id={ONE: "yes"}, loose=[], given=True)
    assert rows_of(commit) == [(-4, [(RESUME, {ONE: "yes"})])]
    assert commit.writes[0].task_id == NULL_TASK_ID


def test_two_questions_of_the_same_id_are_one():
    run, _ = begin(PLAIN, Command(resume="yes"), paused(ONE, ONE))
    assert run.answers.by_id == {ONE: "yes"}


def test_a_bare_answer_to_several_questions_is_refused():
    with pytest.raises(RuntimeError):
        begin(PLAIN, Command(resume="yes"), paused(ONE, TWO))


def test_answers_by_id():
    run, (commit,) = begin(PLAIN, Command(resume={ONE: 1, TWO: None}), paused(ONE, TWO))
    assert run.answers.by_id == {ONE: 1, TWO: None}
    assert rows_of(commit) == [(-4, [(RESUME, {ONE: 1, TWO: None})])]
    assert run.notices == []


def test_an_answer_to_no_question_is_kept_with_a_notice():
    other = Q + "9"
    run, _ = begin(PLAIN, Command(resume={ONE: 1, other: 2}), paused(ONE))
    assert run.answers.by_id == {ONE: 1, other: 2}
    ((code, place, text),) = ((n.code, n.place, n.text) for n in run.notices)
    assert (code, place) == ("unknown-interrupt", "resume")
    assert other in text


@pytest.mark.parametrize(
    "loaded",
    [dummy_loaded(values={}), dummy_loaded(values={"x": 1}, seen={"a": {"x": 1}, "b": {"x": 1}})],
    ids=["empty thread", "finished thread"],
)
def test_an_answer_that_nobody_waits_for_is_noticed(loaded):
    run, _ = begin(PLAIN, Command(resume=1), loaded)
    assert [(n.code, n.place) for n in run.notices] == [("unasked-resume", "resume")]


def test_an_answer_to_a_breakpoint_is_none_for_a_notice():
    run, _ = begin(PLAIN, Command(resume=1), dummy_loaded(values={"x": 1}))
    assert run.notices == []


@pytest.mark.parametrize(
    ("resume", "reason", "ids"),
    [({Q + "9": 1}, "not_pending", [Q + "9"]), ({}, "empty_map", []), ("?", "ambiguous", [])],
)
def test_strict_refuses_what_answers_nothing(resume, reason, ids):
    with pytest.raises(UnknownInterruptError) as caught:
        begin(PLAIN, Command(resume=resume), paused(ONE, TWO), strict=True)
    match(caught.value, reason=reason, interrupt_ids=tuple(ids), pending_ids=(ONE, TWO))
    assert all(part in str(caught.value) for part in (ONE, TWO, "'?'", *ids))


@pytest.mark.parametrize("resume", ["?", {}, {ONE: 1}])
def test_strict_where_nothing_waits(resume):
    with pytest.raises(UnknownInterruptError) as caught:
        begin(PLAIN, Command(resume=resume), dummy_loaded(values={}), strict=True)
    match(caught.value, reason="not_pending", pending_ids=(), interrupt_ids=tuple(resume) if ONE in resume else ())
    run, _ = begin(PLAIN, Command(resume=resume), dummy_loaded(values={"x": 1}), strict=True)
    assert run.notices == []


def asked(**fields):
    return dummy_loaded(values={"x": 1}, writes=[stored("t1", [(INTERRUPT, [Interrupt("?", ONE, **fields)])], slot=-3)])


def test_an_answer_to_a_json_schema_is_checked_before_it_is_stored():
    loaded = asked(response_schema={"type": "integer"}, checked=True, task_ns="a:1")
    for resume in ("x", {ONE: "x"}):
        with pytest.raises(InvalidAnswerError) as caught:
            begin(PLAIN, Command(resume=resume), loaded)
        match(caught.value, interrupt_id=ONE, node="a")
    _, (commit,) = begin(PLAIN, Command(resume=3), loaded)
    assert rows_of(commit) == [(-4, [(RESUME, {ONE: 3})])]


def test_an_answer_of_a_type_is_stored_before_its_node_looks_at_it():
    run, (commit,) = begin(PLAIN, Command(resume="x"), asked(response_schema={"type": "integer"}))
    assert [entry.writes for entry in commit.writes] == [[(RESUME, {ONE: "x"})]]
    assert (run.answers.by_id, run.answers.anew) == ({ONE: "x"}, {ONE: "x"})


def test_an_answer_that_comes_after_the_default():
    expires = datetime.fromtimestamp(1_700_000_000.0, UTC)
    loaded = asked(expires=expires, default="no")
    with pytest.raises(UnknownInterruptError) as caught:
        begin(PLAIN, Command(resume="yes"), loaded)
    match(caught.value, reason="expired", interrupt_ids=(ONE,), pending_ids=(ONE,))
    run, _ = begin(PLAIN, None, loaded)
    assert run.answers.by_id == {ONE: "no"}
    run, _ = begin(PLAIN, Command(resume="yes"), loaded, clock=lambda: 1_699_999_999.0)
    assert run.answers.by_id == {ONE: "yes"}


def test_breakpoints_that_a_resume_keeps_are_stored_at_once():
    run = dummy_run(PLAIN, dummy_loaded(values={"x": 1}))
    run.remember("breakpoints", {"before": ["a"]})
    (commit,) = entry.begin(run, None)
    assert rows_of(commit) == [(-3, [(INTERRUPT, {"before": ["a"]})])]
    assert commit.writes[0].task_id == NULL_TASK_ID


def test_answers_that_were_not_asked_for_yet_stay_with_the_new_ones():
    extra = [null([(RESUME, {TWO: "early"})], slot=-4)]
    run, (commit,) = begin(PLAIN, Command(resume={ONE: 1}), paused(ONE, extra=extra))
    assert run.answers.by_id == {TWO: "early", ONE: 1}
    assert rows_of(commit) == [(-4, [(RESUME, {TWO: "early", ONE: 1})])]


def test_a_bare_answer_before_any_question_waits_for_the_first():
    run, (commit,) = begin(PLAIN, Command(resume="yes"), paused())
    match(run.answers, by_id={}, loose=["yes"], given=True)
    assert rows_of(commit) == [(-4, [(RESUME, "yes")])]


def test_an_answer_on_an_empty_thread_is_not_kept():
    run, (commit,) = begin(STATE, Command(resume="yes"), stores=True)
    assert run.answers.loose == []
    match(commit, source="input")


def test_an_empty_map_answers_nothing():
    run, commits = begin(PLAIN, Command(resume={}), paused(ONE, extra=[null([(RESUME, {TWO: 1})], slot=-4)]))
    match(run.answers, by_id={TWO: 1}, given=False)
    assert commits == []


def test_a_resume_may_bring_an_update():
    run, (commit,) = begin(PLAIN, Command(resume="yes", update={"y": 3}), paused(ONE))
    assert [slot for slot, _ in rows_of(commit)] == [-4, 0]
    assert values(run)["y"] == 3


# ---- replay


@pytest.mark.parametrize(
    ("source", "is_head", "forks"),
    [
        ("loop", True, True),
        ("loop", False, True),
        ("fork", True, False),
        ("update", True, False),
        ("update", False, True),
    ],
)
def test_a_replay_starts_from_a_copy(source, is_head, forks):
    loaded = dummy_loaded(values={"x": 1}, source=source, is_head=is_head)
    loaded.writes = [stored(id_in(PLAIN, loaded, "a"), [("y", 5)])]
    run = dummy_run(PLAIN, loaded)
    run.replaying = True
    commits = entry.begin(run, None)
    assert [commit.source for commit in commits] == (["fork"] if forks else [])
    if forks:
        match(commits[0], step=1, parent_id="stored-0", parent_rev=7, values={}, ops={})
        match(run, step=2, pending=[])
    assert names(run_plan(run)) == ["a", "b"]
    assert run.answers.given is False


def test_a_replay_starts_from_a_copy_that_says_which_nested_checkpoint_was_addressed():
    loaded = dummy_loaded(values={"x": 1}, source="fork", is_head=True)
    run = dummy_run(PLAIN, loaded, seeds={"n": ("n:1", "nested")})
    run.replaying = True
    assert [commit.source for commit in entry.begin(run, None)] == ["fork"]


@pytest.mark.parametrize("is_open", [True, False])
def test_a_nested_edit_is_copied_under_the_superstep_that_is_open_now(is_open):
    around = dummy_run(PLAIN, dummy_loaded(values={"x": 1}))
    parents = {"": around.checkpoint_id if is_open else "another"}
    loaded = dummy_loaded(values={"x": 1}, source="update", is_head=True, parents=parents, checkpoint_ns="n")
    run = dummy_run(PLAIN, loaded, parent_run=around, parent=around.open(Task(PLAIN.nodes["a"], None)), ns="n")
    run.replaying = True
    assert [commit.source for commit in entry.begin(run, None)] == ([] if is_open else ["fork"])


# ---- what of the open step is done


def reapplied(rows, *, answers=None, **marks):
    loaded = dummy_loaded(values={"x": 1}, updated_channels=["x"])
    made = {name: id_in(PLAIN, loaded, name) for name in "ab"}
    loaded.writes = [stored(made[name], writes, slot=slot) for name, slot, writes in rows]
    run = dummy_run(PLAIN, loaded)
    for name, value in marks.items():
        setattr(run, name, value)
    if answers is not None:
        run.answers.by_id, run.answers.given = answers, True
    tasks = [Task(PLAIN.nodes[name], None) for name in "ab"]
    entry.reapply(run, tasks)
    return run, tasks[0], tasks[1]


def test_a_task_with_output_is_settled():
    run, a, b = reapplied([("a", 0, [("y", 5), (NO_WRITES, None)])])
    match(a, settled=True, reapplied=True, writes=[("y", 5)])
    match(b, settled=False, reapplied=False, writes=None)
    assert run.waiting == []


def test_stored_results_do_not_count_in_a_replay():
    _, a, _ = reapplied([("a", 0, [("y", 5)])], replaying=True)
    match(a, settled=False, writes=None)


def test_stored_results_do_not_count_after_the_thread_went_on_but_answers_do():
    _, a, _ = reapplied([("a", 0, [("y", 5)]), ("a", -4, [(RESUME, ["yes"])])], moved_past=True)
    match(a, settled=False, writes=None, answers=["yes"])


QUESTION = Interrupt("?", ONE)


def test_a_task_that_asks_runs_again_when_nothing_was_answered():
    run, a, _ = reapplied([("a", -3, [(INTERRUPT, [QUESTION])]), ("a", -4, [(RESUME, [1])])])
    match(a, settled=False, interrupts=(QUESTION,), answers=[1])
    assert run.waiting == []


def test_a_task_whose_question_was_answered_runs():
    _, a, _ = reapplied([("a", -3, [(INTERRUPT, [QUESTION])])], answers={ONE: 1})
    assert a.settled is False


def test_a_task_whose_question_stays_open_waits():
    run, a, b = reapplied([("a", -3, [(INTERRUPT, [QUESTION])])], answers={TWO: 1})
    assert a.settled is True
    assert run.waiting == [a]
    assert run.interrupts == [QUESTION]
    assert b.settled is False


def test_a_called_task_whose_question_stays_open_is_asked_for_by_its_caller():
    run = dummy_run(PLAIN, paused(ONE))
    entry.begin(run, Command(resume={ONE: 1}))
    child = Task(PLAIN.nodes["b"], None)
    child.parent, child.call_index = Task(PLAIN.nodes["a"], None), 0
    run.pending = [stored(run.id_of(child), [(INTERRUPT, [Interrupt("?", TWO)])], slot=-3)]
    entry.reapply(run, [child])
    match(child, settled=True, interrupts=(Interrupt("?", TWO),))
    match(run, waiting=[], interrupts=[])


def test_a_failed_task_runs_again():
    _, a, _ = reapplied([("a", -1, [(ERROR, "boom")])])
    match(a, settled=False, error="boom", handled=False)


def test_a_task_that_was_handed_to_its_handler():
    _, a, _ = reapplied([("a", -1, [(ERROR, "boom")]), ("a", -2, [(ERROR_SOURCE_NODE, "a")])])
    match(a, error="boom", handled=True)


def test_answers_that_were_used_up():
    task = Task(PLAIN.nodes["a"], None)
    entry.restore_task(task, [stored("t", [(RESUME, None)], slot=-4), stored("t", [("else", 1)], slot=-9)])
    match(task, answers=None, writes=None)


# ---- from asking to answering, in one piece


def test_a_paused_run_goes_on_where_it_stopped():
    first = dummy_run(PLAIN, stores=True)
    first.start(1)
    first.plan()
    a = first.tasks[0]
    id_ = interrupt_id(first.ns_of(a), 0)
    act(first, {"a": GraphInterrupt((Interrupt("?", id_),)), "b": [("y", 2)]})
    first.commit()
    rows = list(first.close().writes)
    loaded = dummy_loaded(
        values={"x": 1},
        checkpoint_id=first.checkpoint_id,
        rev=first.rev,
        step=-1,
        source="input",
        updated_channels=["x"],
        writes=rows,
    )
    run = dummy_run(PLAIN, loaded)
    run.start(Command(resume="yes"))
    assert names(run.plan()) == ["a"]
    scope = run.open(run.tasks[0])
    assert run.ask(scope, "?", None) == "yes"
    act(run, {"a": [("log", ["answered"])]})
    commit = run.commit()
    assert values(run) == {"x": 1, "y": 2, "log": ["answered"]}
    assert rows_of(commit) == [(0, [("log", ["answered"])]), (-4, [(RESUME, ["yes"])])]
