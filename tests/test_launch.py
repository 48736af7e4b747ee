"""From the arguments of a call to a run: configs, places, outlets, and the shapes in which things are delivered."""

import threading
from contextvars import copy_context
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from checkpoint.memory import InMemorySaver
from pregel._scope import TaskScope, enter
from pregel.channels import LastValue
from pregel.constants import PREVIOUS, SCOPE_KEY
from pregel.engine.core import Run
from pregel.engine.task import COPIERS, NO_COPIES, Task
from pregel.engine.view import Asked
from pregel.engine.workers import Gate
from pregel.errors import Interrupt
from pregel.pregel import _batch, _delivery, _request, _runtime, _start
from pregel.pregel._request import Call
from pregel.pregel._stream import Outlet
from pregel.runtime import RunControl
from tests.support.driving import LIMIT, Count
from tests.support.dummies import dummy_loaded, dummy_program, dummy_run, match, node, superstep

THREAD = {"configurable": {"thread_id": "t"}}


def graph(**fields):
    made = {
        "name": "g",
        "program": dummy_program({"a": node("x", tags=["n"], metadata={"own": 1})}),
        "checkpointer": None,
        "store": None,
        "context_schema": None,
        "config": None,
        "retry_policy": (),
        "interrupt_before_nodes": (),
        "interrupt_after_nodes": (),
        "isolate": "shallow",
        "on_conflict": "raise",
        "strict": False,
        "coerce_output": lambda value: ("coerced", value),
    }
    made.update(cache=None, cache_policy=None)
    return SimpleNamespace(**{**made, **fields})


def call(config=None, **fields):
    made = Call(config)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def request(config=None, *, on=None, **fields):
    return _request.request_for(on or graph(), call(config, **fields))


def inside(config=None, *, on=None, outer=None, plain=False, **fields):
    """The request of a call inside a running task of a root run; the root's request is made from `outer`."""
    around = graph(program=dummy_program({"a": node("x")})) if plain else graph()
    made = outer or request({"tags": ["t"], "metadata": {"user": 1}, "configurable": {"k": 1}}, on=around)
    run = Run(around.program, made, _start.load(made))
    run.start(1)
    scope = run.open(run.plan()[0])

    def go():
        enter(scope)
        given = config(scope) if callable(config) else config
        return _request.request_for(on or graph(), call(given, **fields))

    return copy_context().run(go), scope


# ---- outlets


def test_an_outlet_takes_what_was_asked_for():
    woken = []
    outlet = Outlet(frozenset({"values"}))
    outlet.path = ("a:1",)
    outlet.append((("a:1",), "values", 1))
    outlet.wake = woken.append
    outlet.append((("a:1",), "values", 2))
    outlet.append((("a:1",), "updates", 3))
    outlet.append(((), "values", 4))
    outlet.append((("a:1", "b:2"), "values", 5))
    assert [payload for _, _, payload in outlet.chunks] == [1, 2]
    assert woken == [None]
    assert outlet.look() == 2
    outlet.append((("a:1",), "values", 6))
    outlet.append((("a:1",), "values", 7))
    assert woken == [None, None], "once per look, or a slow reader's driver would get a heap of them"
    outlet.subgraphs = True
    outlet.append((("a:1", "b:2"), "values", 8))
    assert outlet.chunks[-1][2] == 8


# ---- root or nested


def test_a_call_outside_of_tasks_is_a_root_run():
    made = request()
    match(made, parent=None, parent_run=None, ns="", saver=None, stores=False, durability="async", thread_id=None)
    match(made, limit=10007, output_keys="y", strict=False, deferred=False, modes=frozenset(), outlets=(), gate=None)
    assert made.copiers is COPIERS
    assert isinstance(made.control, RunControl)
    assert 0.0 <= made.jitter() <= 1.0
    assert made.new_id(1) < made.new_id(2)


def test_a_call_inside_a_task_is_nested():
    made, scope = inside()
    match(made, parent=scope, parent_run=scope.host, call_number=0)
    assert made.ns == scope.host.ns_of(scope.task)
    assert made.config["tags"] == ["t", "n"]
    assert made.config["metadata"] == {"user": 1, "own": 1}
    assert made.configurable == {"k": 1}


def test_a_plain_nested_call_shares_the_config_of_the_run_around_it():
    made, scope = inside(plain=True)
    assert made.config is scope.host.request.config


def test_nested_calls_are_counted():
    made, scope = inside()
    again = _request.request_for(graph(), call({"configurable": {SCOPE_KEY: scope}}))
    match(again, call_number=1)
    assert again.ns == f"{made.ns}|1"


def test_the_config_of_a_node_counts_once():
    made, _ = inside(lambda scope: {**scope.config, "tags": [*scope.config["tags"], "more"]})
    assert made.config["tags"] == ["t", "n", "more"]
    assert made.config["metadata"] == {"user": 1, "own": 1}
    assert made.configurable == {"k": 1}


def test_a_config_that_names_a_thread_starts_a_run_of_its_own():
    made, _ = inside(THREAD)
    match(made, parent=None, ns="", thread_id="t")


def test_a_config_of_a_task_that_has_ended_is_refused():
    run = dummy_run()
    run.start(1)
    scope = run.open(run.plan()[0])
    stale = dict(scope.config)
    scope.close()
    with pytest.raises(ValueError, match="node"):
        _request.parent_of(stale)
    with pytest.raises(ValueError, match="checkpoint_ns"):
        _request.parent_of({"configurable": {"checkpoint_ns": "a:1"}})
    assert (
        _request.parent_of({"configurable": {"thread_id": "t", "checkpoint_ns": "a:1", "checkpoint_map": {}}}) is None
    )


# ---- limits and switches


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_without_a_step(limit):
    with pytest.raises(ValueError, match="recursion_limit"):
        request({"recursion_limit": limit})


def test_limits():
    assert request({"recursion_limit": 3}).limit == 3
    made = request({"max_concurrency": 3})
    assert isinstance(made.gate, Gate)
    nested, _ = inside(outer=made)
    assert nested.gate is made.gate


@pytest.mark.parametrize(
    ("given", "expected"), [(None, ["a"]), ([], ["a"]), ("*", "*"), ("b", ["b"]), (("b", "c"), ["b", "c"])]
)
def test_breakpoints(given, expected):
    made = request(
        on=graph(interrupt_before_nodes=["a"], interrupt_after_nodes=["a"]),
        interrupt_before=given,
        interrupt_after=given,
    )
    assert (made.interrupt_before, made.interrupt_after) == (expected, expected)


def test_isolation_and_strictness():
    assert request(on=graph(isolate="off", strict=True)).copiers is NO_COPIES
    assert request(on=graph(strict=True)).strict is True


@pytest.mark.parametrize(("keys", "expected"), [(None, "y"), ("x", "x"), (["x", "y"], ["x", "y"])])
def test_output_keys(keys, expected):
    assert request(output_keys=keys).output_keys == expected


@pytest.mark.parametrize("keys", ["nowhere", ["x", "nowhere"]])
def test_unknown_output_keys(keys):
    with pytest.raises(ValueError, match="nowhere"):
        request(output_keys=keys)


@dataclass
class Context:
    user: str


def test_contexts():
    assert request(on=graph(context_schema=Context), context={"user": "u"}).context == Context("u")
    assert request(on=graph(context_schema=dict), context={"user": "u"}).context == {"user": "u"}
    assert request(context={"user": "u"}).context == {"user": "u"}
    given = Context("u")
    assert request(on=graph(context_schema=Context), context=given).context is given
    outer = request(context="outer")
    assert inside(outer=outer)[0].context == "outer"
    assert inside(outer=request(context="outer"), context="own")[0].context == "own"


def test_store_and_switch_are_inherited():
    control = RunControl()
    outer = request(on=graph(store="store"), control=control)
    match(outer, store="store", control=control)
    nested, _ = inside(outer=outer, on=graph(store="ignored"))
    match(nested, store="store", control=control)


def test_outlets():
    plain, deep, own = (
        Outlet(frozenset({"values"})),
        Outlet(frozenset({"updates"}), subgraphs=True),
        Outlet(frozenset({"custom"})),
    )
    assert request(outlet=plain).outlets == (plain,)
    assert request(outlet=plain).modes == {"values"}
    nested, _ = inside(outer=request(outlet=deep), outlet=own)
    assert nested.outlets == (deep, own)
    assert nested.modes == {"updates", "custom"}
    assert own.path == (nested.ns,)
    assert inside(outer=request(outlet=plain))[0].outlets == ()


@pytest.mark.parametrize(
    ("outlets", "live"),
    [
        ([], False),
        ([Outlet(frozenset({"values"}))], False),
        ([Outlet(frozenset({"custom"}))], True),
        ([Outlet(frozenset({"messages", "values"}))], True),
        ([Outlet(frozenset({"values"}), subgraphs=True)], True),
    ],
)
def test_whether_chunks_must_leave_while_bodies_run(outlets, live):
    made = request()
    made.outlets = tuple(outlets)
    made.modes = frozenset().union(*(outlet.modes for outlet in outlets))
    assert _delivery.is_live(made) is live


# ---- where it is stored


def test_a_saver_needs_a_thread():
    with pytest.raises(ValueError, match="thread_id"):
        request(on=graph(checkpointer=InMemorySaver()))


def test_a_root_graph_needs_a_saver_of_its_own():
    with pytest.raises(RuntimeError):
        request(on=graph(checkpointer=True))


def test_a_stored_run():
    made = request(
        {"configurable": {"thread_id": 7, "k": "v"}, "metadata": {"user": 1}}, on=graph(checkpointer=InMemorySaver())
    )
    match(made, stores=True, thread_id="7", durability="async", deferred=False, checkpoint_id=None)
    assert made.stored_metadata["user"] == 1
    assert _start.load(made).checkpoint_id is None
    assert _start.load(request()) is None


@pytest.mark.parametrize(("durability", "deferred"), [("sync", False), ("async", False), ("exit", True)])
def test_durability(durability, deferred):
    made = request(THREAD, on=graph(checkpointer=InMemorySaver()), durability=durability)
    match(made, durability=durability, deferred=deferred)
    nested, _ = inside(outer=made)
    match(nested, durability=durability, deferred=deferred, stores=True, saver=made.saver)


def test_unknown_durability():
    with pytest.raises(ValueError, match="durability"):
        request(durability="never")


def test_nested_savers():
    outer = request(THREAD, on=graph(checkpointer=InMemorySaver()))
    assert inside(outer=outer, on=graph(checkpointer=False))[0].stores is False
    stable, _ = inside(outer=outer, on=graph(checkpointer=True))
    match(stable, stable_ns=True, stores=True)
    assert stable.ns == "a"
    unstored, _ = inside(on=graph(checkpointer=True))
    match(unstored, stable_ns=True, stores=False)
    assert unstored.ns == "a"


def test_which_checkpoint_is_loaded():
    on = graph(checkpointer=InMemorySaver())
    named = request({"configurable": {"thread_id": "t", "checkpoint_id": "c"}}, on=on)
    assert _start.load_arguments(named) == {
        "config": {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "c"}}
    }
    newest = request(THREAD, on=on)
    assert _start.load_arguments(newest) == {"config": {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}}
    of_nested = request(
        {
            "configurable": {
                "thread_id": "t",
                "checkpoint_ns": "a:1",
                "checkpoint_id": "i",
                "checkpoint_map": {"": "c", "a:1": "i"},
            }
        },
        on=on,
    )
    assert of_nested.checkpoint_id == "c"


@pytest.mark.parametrize(
    ("checkpoint_id", "value", "is_head", "replaying", "moved_past"),
    [
        (None, None, True, False, False),
        ("c", None, True, True, False),
        ("c", None, False, True, True),
        ("c", {"x": 1}, False, False, True),
        ("c", {"x": 1}, True, False, False),
    ],
)
def test_what_a_root_run_continues(checkpoint_id, value, is_head, replaying, moved_past):
    made = request()
    made.checkpoint_id = checkpoint_id
    run = _start.run_for(graph(), made, dummy_loaded(values={"x": 1}, is_head=is_head), value)
    match(run, replaying=replaying, moved_past=moved_past)
    match(_start.run_for(graph(), made, None, value), replaying=False, moved_past=False, continues=False)


# ---- what a task may use


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


# ---- shapes


CHUNK = (("a:1",), "updates", {"a": 1})


@pytest.mark.parametrize(
    ("how", "shaped"),
    [
        ({"many": False, "subgraphs": False, "v2": False}, {"a": 1}),
        ({"many": True, "subgraphs": False, "v2": False}, ("updates", {"a": 1})),
        ({"many": False, "subgraphs": True, "v2": False}, (("a:1",), {"a": 1})),
        ({"many": True, "subgraphs": True, "v2": False}, (("a:1",), "updates", {"a": 1})),
        ({"many": True, "subgraphs": True, "v2": True}, {"type": "updates", "ns": ("a:1",), "data": {"a": 1}}),
    ],
)
def test_shapes_of_chunks(how, shaped):
    assert _delivery.shape(CHUNK, **how, graph=graph()) == shaped


ASKED = Interrupt("?", "id")


def test_shapes_of_values():
    v2 = {"many": False, "subgraphs": False, "v2": True, "graph": graph()}
    v1 = {**v2, "v2": False}
    assert _delivery.shape(((), "values", {"x": 1}), **v2) == {
        "type": "values",
        "ns": (),
        "data": ("coerced", {"x": 1}),
        "interrupts": (),
    }
    asked = Asked({"x": 1}, (ASKED,))
    assert _delivery.shape((("a:1",), "values", asked), **v2) == {
        "type": "values",
        "ns": ("a:1",),
        "data": {"x": 1},
        "interrupts": (ASKED,),
    }
    assert _delivery.shape(((), "values", asked), **v1) == {"x": 1, "__interrupt__": (ASKED,)}
    assert _delivery.shape(((), "values", Asked(3, (ASKED,))), **v1) == {"__interrupt__": (ASKED,)}


def test_answers():
    run = dummy_run()
    run.start(1)
    superstep(run, {"a": [("y", 2)]})
    assert _delivery.answer(run, v2=False, graph=graph()) == 2
    assert _delivery.answer(run, v2=True, graph=graph()).value == ("coerced", 2)
    run.interrupts = [ASKED]
    assert _delivery.answer(run, v2=False, graph=graph()) == {"__interrupt__": [ASKED]}
    assert _delivery.answer(run, v2=True, graph=graph()).interrupts == (ASKED,)


@pytest.mark.parametrize(
    ("written", "own"),
    [
        ([("z", 4)], {"z": 4}),
        (
            [("y", 3), ("z", 4)],
            {"y": 3, "z": 4},
        ),
    ],
)
def test_what_a_graph_as_a_node_has_written_itself(written, own):
    program = dummy_program({"a": node("x")}, input_channels=["x", "y"], output_channels=["x", "y", "z"])
    run = dummy_run(program)
    run.start({"x": 1, "y": 2})
    superstep(run, {"a": written})
    assert _delivery.own_writes(run) == own
    single = dummy_run()
    single.start(1)
    superstep(single, {"a": [("y", 2)]})
    assert _delivery.own_writes(single) == 2


# ---- several calls at once


@pytest.mark.parametrize("limit", [None, 1, 2])
def test_gather_keeps_order_errors_and_the_limit(limit):
    inside_ = Count()

    def make(n):
        def run():
            with inside_:
                if n == 2:
                    raise OSError(n)
                return n

        return run

    outcomes = _batch.gather([make(n) for n in range(5)], [{"max_concurrency": limit}] * 5)
    assert [result for result, _ in outcomes] == [0, 1, None, 3, 4]
    assert isinstance(outcomes[2][1], OSError)
    assert limit is None or inside_.most <= limit
    assert _batch.gather([], []) == []


def test_gathered_calls_run_side_by_side():
    barrier = threading.Barrier(4)
    outcomes = _batch.gather([lambda: barrier.wait(LIMIT)] * 4, [None] * 4)
    assert sorted(result for result, _ in outcomes) == [0, 1, 2, 3]
