"""`Runtime` and the switch that drains a run."""

import dataclasses
import threading
from contextvars import copy_context
from types import SimpleNamespace

import pytest

from pregel._scope import TaskScope, enter
from pregel.runtime import ExecutionInfo, RunControl, Runtime, ServerInfo, get_runtime

INFO = ExecutionInfo(checkpoint_id="c", checkpoint_ns="a:1", task_id="t")


def test_the_switch():
    control = RunControl()
    assert (control.drain_requested, control.drain_reason) == (False, None)
    control.request_drain()
    assert (control.drain_requested, control.drain_reason) == (True, "shutdown")
    control.request_drain("deploy")
    assert control.drain_reason == "deploy"


def test_the_switch_may_be_used_from_any_thread():
    control = RunControl()
    thread = threading.Thread(target=control.request_drain, args=("elsewhere",))
    thread.start()
    thread.join()
    assert control.drain_reason == "elsewhere"


def test_a_bare_runtime_does_nothing():
    runtime = Runtime()
    runtime.stream_writer("nobody listens")
    runtime.heartbeat()
    assert (runtime.context, runtime.store, runtime.previous, runtime.execution_info) == (None,) * 4
    assert (runtime.drain_requested, runtime.drain_reason) == (False, None)


def test_a_runtime_shows_its_switch():
    control = RunControl()
    runtime = Runtime(control=control)
    assert (runtime.drain_requested, runtime.drain_reason) == (False, None)
    control.request_drain("now")
    assert (runtime.drain_requested, runtime.drain_reason) == (True, "now")


def test_a_runtime_cannot_be_edited():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Runtime().context = 1


def test_override_makes_another():
    runtime = Runtime(context="a", store="s")
    other = runtime.override(context="b")
    assert (runtime.context, other.context, other.store) == ("a", "b", "s")


def test_merging_takes_what_the_other_has():
    def write(value):
        pass

    def beat():
        pass

    one = Runtime(context="one", store="s1", stream_writer=write, heartbeat=beat, previous=1, execution_info=INFO)
    merged = one.merge(Runtime(context="two", store="s2"))
    assert (merged.context, merged.store) == ("two", "s2")
    assert (merged.stream_writer, merged.heartbeat, merged.previous) == (write, beat, 1)
    assert merged.execution_info is INFO
    other = Runtime().merge(one)
    assert (other.stream_writer, other.heartbeat, other.context) == (write, beat, "one")


@pytest.mark.parametrize(("given", "expected"), [(None, "one"), ({}, {}), (0, 0), ("", ""), (False, False)])
def test_any_context_but_none_counts(given, expected):
    """Frontends.md 8, row 12: in LangGraph an empty one is lost."""
    assert Runtime(context="one").merge(Runtime(context=given)).context == expected


def test_merging_asks_no_value_whether_it_is_equal():
    class Strange:
        def __eq__(self, other):
            raise AssertionError("compared")

        def __bool__(self):
            raise AssertionError("asked")

    store = Strange()
    assert Runtime().merge(Runtime(store=store)).store is store


@pytest.mark.parametrize(("previous", "expected"), [(None, 1), (0, 0), ("", ""), (2, 2)])
def test_any_previous_value_but_none_counts(previous, expected):
    assert Runtime(previous=1).merge(Runtime(previous=previous)).previous == expected


def test_execution_info():
    assert (INFO.node_attempt, INFO.thread_id, INFO.run_id, INFO.node_first_attempt_time) == (1, None, None, None)
    patched = INFO.patch(node_attempt=2)
    assert (patched.node_attempt, patched.task_id, INFO.node_attempt) == (2, "t", 1)


def test_patching_execution_info_of_a_runtime():
    runtime = Runtime(execution_info=INFO).patch_execution_info(thread_id="x")
    assert runtime.execution_info.thread_id == "x"
    with pytest.raises(RuntimeError):
        Runtime().patch_execution_info(thread_id="x")


def test_server_info():
    assert ServerInfo("a", "g") == ServerInfo(assistant_id="a", graph_id="g", user=None)


def test_the_runtime_of_the_running_task():
    runtime = Runtime(context=3)
    host = SimpleNamespace(runtime_of=lambda scope: runtime)
    scope = TaskScope(host, SimpleNamespace(name="a", node=None, input=None), None)

    def run():
        enter(scope)
        return get_runtime(), get_runtime(int)

    assert copy_context().run(run) == (runtime, runtime)
    with pytest.raises(RuntimeError, match="get_runtime"):
        get_runtime()


def test_whether_anybody_still_waits():
    over = []
    runtime = Runtime(over=lambda: bool(over))
    assert (Runtime().cancelled, runtime.cancelled) == (False, False)
    over.append(True)
    assert runtime.cancelled
    assert Runtime().merge(runtime).cancelled
    assert runtime.merge(Runtime()).cancelled
    assert "over" not in repr(runtime)
