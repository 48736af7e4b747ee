"""Which scenario plays which row of engine.md 5.4, 6.1, 6.2, 7.1, 7.3 and 8: an index that cannot go stale.

Each row names its tests. They must exist, and one of them must take a fixture that puts it everywhere (`EVERYWHERE`): both
colours, both savers, every durability, root and nested, and, but for failing steps, a file that is opened again for each
call. What is told in fewer places says why. A row of the specification that gets no test here has none.
"""

import importlib
import inspect
from typing import Final

import pytest

EVERYWHERE: Final = {"stage", "life", "root", "place", "chain"}
"""Fixtures that are parametrised over all of it: `tests.support.stages`, `Life` of test_questions, `Place` of
test_failing_steps, `Chain` of test_breakpoints, and the stages of test_nesting, whose graphs bring their own nesting."""

ROWS: Final[dict[str, dict[str, str]]] = {
    "5.4 resuming": {
        "a value, nothing pending": "questions.an_answer_where_nothing_waits questions.any_answer_passes_a_breakpoint",
        "a value, one question": "questions.a_value_answers_the_one_question",
        "a value, several questions": "questions.one_value_for_two_questions_is_refused",
        "a map of ids": "questions.an_id_answers_its_question questions.answers_in_any_order_reach_their_questions",
        "an empty map": "questions.trying_again_asks_again",
        "a dict with a key that is no id": "questions.what_is_no_id_map_is_an_answer",
        "None": "questions.trying_again_asks_again",
        "new input": "questions.new_input_drops_the_question",
        "an unknown id": "questions.an_id_that_nobody_waits_for",
        "an answer counts once": "questions.a_late_copy_of_an_answer_does_not_reach_the_next_question",
        "finished and unanswered tasks do not run": "questions.answers_together_cost_one_run_of_each",
        "a question after another": "questions.the_questions_of_a_node_in_turn",
    },
    "6.1 ways to run": {
        "as a node": "nesting.namespaces_of_each_way_and_setting",
        "called in a node": "nesting.namespaces_of_each_way_and_setting nesting.a_question_in_any_of_several_runs",
        "called again in the same task": "nesting.namespaces_of_each_way_and_setting nesting.all_runs_of_a_task_are_seen",
        "deeper": "nesting.namespaces_of_each_way_and_setting",
        "with a thread of its own": "nesting.a_thread_of_its_own_makes_a_root_run",
        "a namespace in the config of a root run": "time_travel.replay_from_each_checkpoint_runs_what_came_after",
    },
    "6.2 whose saver": {
        "None": "nesting.what_the_next_run_starts_from nesting.a_question_in_any_of_several_runs",
        "True": "nesting.what_the_next_run_starts_from nesting.a_question_in_any_of_several_runs",
        "True, as root": "!subgraphs.stateful_subgraph_needs_a_parent",
        "False": "nesting.a_graph_without_checkpoints_starts_over",
        "a saver": "nesting.a_graph_with_a_saver_of_its_own_uses_it_as_root nesting.what_the_next_run_starts_from",
        "True, two tasks at once": "nesting.two_tasks_in_one_state_are_refused",
        "True, step numbers go on": "!checklist.18_stateful_subgraph_accumulates",
        "metadata name the graphs around": "time_travel.metadata_names_the_checkpoints_around "
        "nesting.checkpoints_name_what_is_stored_around_them",
    },
    "7.1 checkpoints": {
        "input": "time_travel.checkpoints_of_a_run time_travel.a_second_input_goes_on_counting",
        "loop": "time_travel.checkpoints_of_a_run",
        "fork, by a replay": "time_travel.replay_makes_a_branch",
        "fork, by a copy": "time_travel.a_copy_is_a_sibling",
        "update": "time_travel.a_fork_by_update time_travel.supersteps_of_updates",
        "metadata of the config": "time_travel.metadata_of_the_config",
    },
    "7.3 pending writes": {
        "finished": "time_travel.what_is_stored_of_each_kind_of_task failing_steps.a_failing_step",
        "interrupted": "time_travel.what_is_stored_of_each_kind_of_task",
        "failed": "time_travel.what_is_stored_of_each_kind_of_task failing_steps.a_failing_step",
        "cancelled": "failing_steps.a_failing_step failing_steps.a_cancelled_call",
        "left by a Command for the parent": "failing_steps.control_flow_is_neither_tried_again_nor_recorded "
        "nesting.where_a_stateful_graph_left_for_its_parent_is_remembered",
        "applied again on entry": "time_travel.finished_tasks_are_shown_as_done_and_do_not_run_again",
        "nothing of a failed task's output": "time_travel.nothing_of_a_failed_tasks_output_is_stored",
    },
    "8.1 a node raises": {
        "running siblings": "failing_steps.a_failing_step",
        "siblings that were not started": "failing_steps.tasks_that_wait_for_a_place_are_not_started",
        "finished siblings": "failing_steps.a_failing_step",
        "no checkpoint for the step": "failing_steps.a_failing_step",
        "the error itself comes out": "failing_steps.a_failing_step",
        "two failures": "failing_steps.of_two_failures_one_is_raised",
        "chunks before the error": "failing_steps.chunks_of_a_failing_step_come_before_the_error",
        "a question is no failure": "failing_steps.a_question_is_no_failure",
        "a failure beside a question": "failing_steps.a_failure_beside_a_question",
        "notes": "failing_steps.notes_name_the_tasks_from_the_inside failing_steps.a_note_for_each_attempt",
    },
    "8.2 kinds of errors": {
        "any Exception": "failing_steps.a_failing_step",
        "KeyboardInterrupt and the like": "failing_steps.other_base_exceptions_pass_and_are_not_stored",
        "CancelledError of the body": "failing_steps.cancelled_error_of_the_body_itself_is_a_failure",
        "control flow": "failing_steps.control_flow_is_neither_tried_again_nor_recorded",
    },
    "8.3 cancelling": {
        "a call is cancelled or left": "failing_steps.a_cancelled_call",
        "a sync stream is closed": "!leaving.leaving_does_not_wait_for_threads",
        "async bodies are awaited": "!leaving.leaving_cancels_and_awaits_async_bodies",
    },
    "8.4 step timeout": {"too long": "failing_steps.a_step_that_takes_too_long"},
    "8.5 what tries again": {
        "a retry goes on with its nested run": "nesting.a_retried_node_goes_on_with_its_nested_run",
        "a handler that asks": "!resuming.handler_that_asks_is_resumed_alone",
        "a handler after a failure": "!resuming.result_of_a_handler_counts_while_another_node_asks",
    },
    "8.6 drain": {"at the next step": "!errors.drain_stops_at_the_next_step"},
}
"""Section -> row -> tests, as `module.name` without `test_`. One with `!` is told in fewer places: it does not nest (8.6,
6.2), its time is what it is about (8.3), or it goes through each saver, colour and durability by other fixtures."""


@pytest.mark.parametrize(("section", "row"), [(section, row) for section, rows in ROWS.items() for row in rows])
def test_each_row_has_its_scenario(section: str, row: str) -> None:
    names = ROWS[section][row].split()
    assert names
    reaches = set()
    for name in names:
        module, _, test = name.removeprefix("!").partition(".")
        function = getattr(importlib.import_module(f"tests.acceptance.test_{module}"), f"test_{test}")
        fixtures = set(inspect.signature(function).parameters)
        reaches.add("everywhere" if fixtures & EVERYWHERE else "somewhere")
        assert ("everywhere" in reaches) or name.startswith("!"), f"{name} is told in fewer places than it could be"
