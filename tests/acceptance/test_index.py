"""Which scenario plays which row of engine.md 5.4, 6.1, 6.2, 7.1, 7.3 and 8, and of frontends.md 1, 2, 3, 5 and 8: an index
that cannot go stale.

Each row names its tests. They must exist, and one of them must take a fixture that puts it everywhere (`EVERYWHERE`): both
colours, both savers, every durability, root and nested, and a file that is opened again for each call (of failing steps,
before what goes on). What is told in fewer places says why. A row of the specification that gets no test here has none.
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
        "True, step numbers go on": "nesting.what_the_next_run_starts_from",
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
        "a handler that asks": "policies.a_handler_asks",
        "a handler after a failure": "policies.a_handled_failure_stays_handled "
        "policies.a_handler_that_failed_runs_again_alone",
    },
    "8.6 drain": {"at the next step": "time_limits.a_drain"},
}
"""Section -> row -> tests, as `module.name` without `test_`. One with `!` is told in fewer places: it is a refusal
before anything is stored (6.2), or about time (8.3), and goes through savers, durabilities and shapes by other fixtures."""


FRONTENDS: Final[dict[str, dict[str, str]]] = {
    "1.1 tasks": {
        "call forms": "/func.forms_of_the_decorator /func.options_are_kept /func.former_spellings",
        "callables and names": "/func.everything_that_can_be_called_is_a_task "
        "/func.two_tasks_of_one_method_are_independent",
        "generators": "/func.generators_are_refused",
        "outside of a run": "/func.outside_of_a_run",
        "user threads": "functional.tasks_in_user_threads ambient.a_thread_that_carries_the_scope",
        "what is injected": "functional.what_tasks_and_entrypoints_get_by_name functional.what_the_caller_passes_wins",
        "kinds of futures": "functional.futures_of_both_kinds_in_an_async_run functional.waits_of_the_standard_library",
        "started at the call": "functional.chunks_come_while_the_body_is_busy",
        "awaited and failed": "functional.errors_of_tasks",
        "result(timeout)": "functional.waiting_with_a_limit",
        "the caller fails": "functional.unfinished_async_tasks_of_a_caller_that_fails_are_cancelled "
        "functional.sync_tasks_of_a_caller_that_fails_are_waited_for_and_stored",
        "the stream is left": "functional.leaving_a_stream_early_keeps_what_has_finished",
        "an async task in a sync run": "functional.an_async_task_in_a_sync_run",
        "in nodes": "functional.tasks_of_nodes_are_shown_like_those_of_entrypoints",
        "in tasks, in nested graphs": "functional.what_has_finished_does_not_run_again_and_every_question_is_asked",
        "identity": "functional.the_same_calls_in_another_order_get_their_own_results "
        "functional.equal_calls_are_told_apart_by_their_order functional.a_call_with_other_arguments_runs",
        "run again": "functional.what_has_finished_does_not_run_again_and_every_question_is_asked "
        "functional.a_failed_call_runs_again_and_the_others_do_not",
        "the caller is tried again": "functional.a_further_attempt_of_the_caller_finds_what_has_finished",
        "values of a run before": "functional.values_of_user_classes_come_back_as_such",
        "questions": "functional.questions_are_shown functional.a_prompt_that_changes_can_be_answered",
    },
    "1.2 entrypoints": {
        "arguments": "/func.the_graph_of_a_function functional.a_cached_entrypoint functional.limits_of_time",
        "generators, no parameter": "/func.generators_are_refused /func.a_function_without_a_parameter_is_refused",
        "types and schemas": "/func.types /func.json_schemas /func.final_with_one_type_is_refused",
        "no input": "functional.no_input",
        "final": "functional.previous_and_final functional.final_may_save_none /func.final_is_a_frozen_value",
        "a Command is a value": "functional.a_command_is_a_value_like_any_other",
        "previous": "functional.previous_and_final functional.previous_stays_while_a_run_is_open",
        "update_state": "functional.an_update_on_a_fresh_thread_is_previous functional.an_update_ends_an_open_run",
    },
    "1.3 checkpoints": {
        "two of a run": "functional.what_is_stored",
        "what has finished": "functional.a_resume_stores_nothing_anew_for_what_has_finished",
        "values that cannot be stored": "functional.a_result_that_cannot_be_stored",
        "graphs called inside": "functional.several_calls_of_one_graph_in_one_body "
        "functional.an_entrypoint_in_a_task_in_an_entrypoint",
        "one step": "functional.one_step_is_enough",
    },
    "1.4 injection": {
        "config": "injection.config_in_every_accepted_form injection.config_of_another_type_warns_and_is_not_injected",
        "writer, runtime": "injection.writer_and_runtime",
        "store": "injected_store.writer_store_and_runtime injected_store.store_is_none_without_one",
        "error": "injection.error_of_a_handler",
    },
    "1.5 streams": {
        "shapes": "functional.streams",
        "questions": "functional.questions_are_shown",
        "cached": "cached_tasks.what_a_stream_shows",
        "at once": "functional.chunks_come_while_the_body_is_busy",
        "breakpoints": "functional.breakpoints_are_named_after_the_function",
    },
    "1.6 max_concurrency": {"any limit": "functional.no_limit_makes_waiting_callers_deadlock"},
    "2.1 retries": {
        "fields": "engine/retry.wrong_fields_are_refused_where_they_stand",
        "waits": "engine/retry.waits_grow_until_the_attempts_are_used_up policies.how_long_it_waits",
        "whose policy": "policies.where_policies_come_from "
        "engine/retry.the_first_policy_that_matches_decides_and_counts_all_attempts",
        "what is tried again": "engine/retry.the_default_retries_what_may_pass",
        "what never is": "engine/retry.control_flow_and_interruption_are_not_failures",
        "what an attempt is told": "policies.what_an_attempt_is_told",
        "questions of earlier attempts": "policies.another_attempt_is_not_asked_again",
        "its nested graph": "policies.another_attempt_goes_on_in_its_nested_graph",
    },
    "2.2 time limits": {
        "wrong ones": "/types.wrong_time_limits time_limits.limits_that_mean_nothing",
        "run and idle": "time_limits.a_node_over_its_limit",
        "what counts as progress": "time_limits.progress",
        "then it is tried again": "time_limits.a_later_attempt_after_one_over_its_limit",
        "of a Send": "time_limits.the_limit_of_a_send",
        "errors of the body": "time_limits.errors_of_the_body_are_not_taken_for_its_limit",
        "a body that goes on": "time_limits.an_async_body_that_refuses_to_end_is_left",
        "of a step": "failing_steps.a_step_that_takes_too_long",
    },
    "2.3 failures": {
        "what is stored, who goes on": "failing_steps.a_failing_step",
        "siblings that finish later": "policies.siblings_that_finish_after_the_failure_are_shown",
        "CancelledError of the body": "failing_steps.cancelled_error_of_the_body_itself_is_a_failure",
    },
    "2.4 handlers": {
        "which": "policies.the_own_handler_comes_before_the_default_and_the_inner_before_the_outer",
        "routing": "policies.where_a_handler_leads",
        "asks": "policies.a_handler_asks",
        "fails": "policies.a_handler_that_failed_runs_again_alone",
        "handled for good": "policies.a_handled_failure_stays_handled",
        "of a Send": "policies.sends_have_handlers_of_their_own",
        "policies by default": "policies.handlers_have_retries_and_time_limits_by_default",
        "control flow": "policies.control_flow_is_not_handled",
    },
    "2.5 caching": {
        "a hit": "caching.a_node_runs_once_for_an_input caching.what_a_stream_shows_of_it",
        "recorded": "caching.it_is_stored_like_any_result",
        "across processes": "caching.a_restart_finds_it cached_tasks.a_restart_finds_it",
        "keys": "caching.equal_inputs caching.key_functions "
        "caching.an_input_without_a_key_is_an_error_before_anything_runs",
        "never shared": "caching.two_functions_never_share caching.another_graph_is_another_place",
        "failures and answers": "caching.failures_are_not_kept caching.an_answer_is_not_the_next_users",
        "equal ones at once": "caching.equal_tasks_of_a_step_run_once caching.runs_that_miss_together_compute_once",
        "time to live": "caching.time_to_live",
        "clearing": "caching.clearing cached_tasks.clearing",
        "nested": "caching.nested_graphs_use_the_cache_around_them",
    },
    "2.6 drain": {
        "at the next step": "time_limits.a_drain errors.drain_stops_at_the_next_step",
        "in the last step": "time_limits.a_drain_in_the_last_step",
        "a breakpoint in front": "errors.a_breakpoint_wins_over_a_drain",
        "from signals": "time_limits.signals_drain time_limits.signals_end_what_goes_on",
    },
    "2.7 errors": {"kinds": "/errors.the_tree errors.kinds_of_errors"},
    "2.8 runtime": {
        "ExecutionInfo": "ambient.execution_info",
        "ServerInfo": "ambient.server_info",
        "merge and override": "/runtime.merging_takes_what_the_other_has /runtime.override_makes_another",
        "nested": "ambient.a_nested_run_has_the_context_around_it_unless_it_brings_one",
        "outside": "ambient.outside_of_a_node_there_is_none",
        "the config of a node": "ambient.the_config_of_a_node ambient.where_a_node_is",
        "merging configs": "/config.merge injection.explicit_configurable_without_coordinates_keeps_the_ambient_one",
        "managed values": "/managed.values",
    },
    "2.9 context": {"each schema": "ambient.what_becomes_of_the_context injection.context_is_coerced"},
    "3.1 callbacks": {
        "questions and going on": "callbacks.the_root_run_tells_of_its_question_and_of_going_on "
        "callbacks.when_they_are_called",
        "neither": "callbacks.nothing_is_told_of_other_ends",
        "handlers that fail": "callbacks.a_failing_handler_is_logged_and_the_others_are_called "
        "callbacks.a_handler_may_want_its_error_to_be_raised",
        "all of a run": "callbacks.what_a_run_tells callbacks.everything_that_begins_ends_once",
        "spans": "otel.spans_are_nested_as_the_work_is otel.failures",
    },
    "3.2 TracePolicy": {"payloads": "callbacks.what_a_policy_lets_observers_record"},
    "5.1 add_messages": {
        "ids": "graph/message.missing_ids_on_the_right graph/message.missing_ids_on_the_left_are_added_to_copies",
        "replacing and removing": "graph/message.merging graph/message.removing_what_is_not_there",
        "format": "graph/message.openai_content graph/message.format_of_langchain_messages_keeps_the_id",
        "as a reducer": "graph/message.without_sides_it_is_a_reducer graph/message.one_side_is_an_error",
        "stored": "messages_stored.messages_come_back_as_what_they_were messages_stored.edits_of_stored_messages",
    },
    "5.2 coercion": {
        "each form": "/messages.coercion /messages.what_is_no_message /message_coercion.the_same_text_role_ids_and_calls",
        "MessagesState": "graph/message.messages_state messages_stored.states_of_any_kind_hold_messages",
        "MessageGraph": "graph/message.a_graph_whose_state_is_a_list_of_messages",
        "for a delta channel": "graph/message.folding graph/message.folding_in_a_graph",
    },
    "5.3 pieces of an interface": {
        "pushed": "graph/ui.pieces_are_shown_and_written",
        "deleted": "graph/ui.a_piece_without_an_id_gets_one_and_can_be_deleted_after_a_restart",
        "merged": "graph/ui.merging graph/ui.removing_what_is_not_there",
    },
    "8 checklist": {
        "1 limits of concurrency": "functional.no_limit_makes_waiting_callers_deadlock",
        "2 questions side by side": "functional.what_has_finished_does_not_run_again_and_every_question_is_asked",
        "3 the caller is tried again": "functional.a_further_attempt_of_the_caller_finds_what_has_finished",
        "4 status of requests": "engine/retry.the_default_retries_what_may_pass",
        "5 failures are not kept": "caching.failures_are_not_kept",
        "6 twins": "caching.equal_tasks_of_a_step_run_once",
        "7 questions of handlers": "resuming.question_of_a_handler_is_in_the_state",
        "8 errors after a reload": "policies.a_handler_that_failed_runs_again_alone",
        "9 cancelled siblings": "failing_steps.a_failing_step checklist.10_cancelled_sibling_is_pending_without_error",
        "10 modes": "ambient.modes_are_a_sequence_of_known_ones",
        "12 falsy contexts": "/runtime.any_context_but_none_counts",
        "13 ids of questions": "questions.the_questions_of_a_node_in_turn",
        "14 after remove-all": "graph/message.merging",
        "15 format keeps ids": "graph/message.format_of_langchain_messages_keeps_the_id",
        "16 anonymous functions": "cached_tasks.two_lambdas_never_share",
        "17 generators": "/func.generators_are_refused",
        "18 bodies over their limit": "time_limits.an_async_body_is_waited_for_while_it_cleans_up",
        "20 late siblings are shown": "policies.siblings_that_finish_after_the_failure_are_shown",
        "21 tuples": "functional.values_of_user_classes_come_back_as_such",
        "22 user threads": "ambient.a_thread_that_carries_the_scope",
        "23 handlers know themselves": "policies.the_mark_of_a_handled_failure",
        "24 retried nodes go on": "policies.another_attempt_goes_on_in_its_nested_graph",
        "25 custom chunks of tasks": "ambient.custom_chunks_of_called_tasks_have_the_namespace_of_their_graph",
        "26 raw messages": "message_stream.plain_dicts_elsewhere_stay_as_they_are_and_an_echo_is_no_news "
        "langchain.raw_messages_are_shown_as_what_the_state_makes_of_them",
    },
}
"""The same of frontends.md, but for streams, drawing and prebuilt parts; 11 of its checklist is one of drawing, 19 of the
latter. Names with a slash are of another folder of tests."""


def scenario(name: str) -> object:
    """The test of a name: `module.name` of the acceptance tests, `folder/module.name` of another folder."""
    path, _, test = name.partition(".")
    folder, slash, module = path.rpartition("/")
    parts = ["tests", *([folder] if folder else [] if slash else ["acceptance"]), f"test_{module}"]
    return getattr(importlib.import_module(".".join(parts)), f"test_{test}")


@pytest.mark.parametrize(("section", "row"), [(section, row) for section, rows in ROWS.items() for row in rows])
def test_each_row_has_its_scenario(section: str, row: str) -> None:
    names = ROWS[section][row].split()
    assert names
    reaches = set()
    for name in names:
        fixtures = set(inspect.signature(scenario(name.removeprefix("!"))).parameters)
        reaches.add("everywhere" if fixtures & EVERYWHERE else "somewhere")
        assert ("everywhere" in reaches) or name.startswith("!"), f"{name} is told in fewer places than it could be"


@pytest.mark.parametrize(("section", "row"), [(section, row) for section, rows in FRONTENDS.items() for row in rows])
def test_each_row_of_the_front_ends_has_its_tests(section: str, row: str) -> None:
    names = FRONTENDS[section][row].split()
    assert names
    assert all(callable(scenario(name)) for name in names)


LOCAL: Final = {"1.4 injection", "1.5 streams", "1.6 max_concurrency", "2.7 errors", "2.9 context", "3.2 TracePolicy"}
"""Nothing is stored for these, or nothing else than for the sections around them."""


@pytest.mark.parametrize("section", [section for section in FRONTENDS if section not in LOCAL])
def test_each_section_of_the_front_ends_is_played_on_both_savers(section: str) -> None:
    fixtures = [
        set(inspect.signature(scenario(name)).parameters) for row in FRONTENDS[section].values() for name in row.split()
    ]
    assert any(given & EVERYWHERE or given >= {"colour", "saver"} for given in fixtures)
