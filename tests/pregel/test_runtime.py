"""What a node finds around it."""

from types import SimpleNamespace

from checkpoint.memory import InMemorySaver
from pregel._scope import TaskScope
from pregel.channels import LastValue
from pregel.constants import PREVIOUS
from pregel.engine.task import Task
from pregel.pregel import _runtime, _start
from pregel.pregel._stream import Outlet
from tests.support.dummies import dummy_loaded, dummy_program, dummy_run, match, node
from tests.support.requests import graph, request


def test_the_runtime_of_a_task():
    outlet = Outlet(frozenset({"custom"}))
    made = request(
        {
            "run_id": "r",
            "configurable": {
                "thread_id": "t",
                "assistant_id": "as",
                "langgraph_auth_user": SimpleNamespace(identity="u"),
            },
        },
        on=graph(checkpointer=InMemorySaver(), store="store"),
        context="context",
        outlet=outlet,
    )
    run = _start.run_for(graph(), made, _start.load(made), 1)
    run.start(1)
    scope = run.open(run.plan()[0])
    runtime = scope.runtime
    match(runtime, context="context", store="store", previous=None, control=made.control)
    runtime.stream_writer("chunk")
    assert outlet.chunks[-1][2] == "chunk"
    match(
        runtime.execution_info,
        checkpoint_id=run.checkpoint_id,
        checkpoint_ns=run.ns_of(scope.task),
        task_id=run.id_of(scope.task),
        thread_id="t",
        run_id="r",
        node_attempt=1,
    )
    match(runtime.server_info, assistant_id="as", graph_id="")
    assert runtime.server_info.user.identity == "u"


def test_nobody_listens_and_no_server():
    run = dummy_run(runtime=_runtime.runtime_of)
    run.start(1)
    runtime = run.open(run.plan()[0]).runtime
    assert runtime.server_info is None
    runtime.stream_writer("lost")
    runtime.heartbeat()


def test_the_previous_result_of_a_thread():
    channels = {"x": LastValue(int), "y": LastValue(int), PREVIOUS: LastValue(int)}
    program = dummy_program({"a": node("x")}, channels)
    for values, previous in [({}, None), ({PREVIOUS: 5}, 5)]:
        run = dummy_run(program, dummy_loaded(values={"x": 1, **values}), runtime=_runtime.runtime_of)
        run.start(2)
        (task,) = run.plan()
        scope = run.open(task)
        assert scope.runtime.previous == previous
        child = Task(program.nodes["a"], None)
        child.parent, child.call_index = task, 0
        assert TaskScope(run, child, None).runtime.previous == previous
