"""From the arguments of a call to a request: configs, places, outlets, limits."""

from dataclasses import dataclass

import pytest

from checkpoint.memory import InMemorySaver
from pregel.constants import SCOPE_KEY
from pregel.engine.task import COPIERS, NO_COPIES
from pregel.engine.workers import Gate
from pregel.pregel import _request, _start
from pregel.pregel._stream import Outlet
from pregel.runtime import RunControl
from tests.support.dummies import dummy_run, match
from tests.support.requests import THREAD, call, graph, inside, request

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
