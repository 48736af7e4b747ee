"""What a program works out before any run."""

import pytest

from pregel._call import prepare
from pregel.channels import EphemeralValue, LastValue, NamedBarrierValue, Topic, UntrackedValue
from pregel.constants import TAG_HIDDEN, TASKS
from pregel.engine.program import PregelNode, Returned
from pregel.managed import RemainingStepsManager
from pregel.types import RetryPolicy, TimeoutPolicy
from tests.support.dummies import dummy_program, node


def test_nodes_keep_their_order_and_wake_alphabetically():
    program = dummy_program({"c": node("x"), "b": node("x", on=["x", "y"]), "a": node("y")})
    assert list(program.nodes) == ["c", "b", "a"]
    assert program.wakes == {"x": ("b", "c"), "y": ("a", "b")}
    assert program.triggers == {"x", "y"}


def test_triggers_of_a_node_are_sorted_and_unique():
    assert dummy_program({"a": node("x", on=["y", "x", "y"])}).nodes["a"].triggers == ("x", "y")


def test_a_node_without_body_and_writes_is_inert_and_never_woken():
    program = dummy_program({"a": node("x", write=None), "b": node("x")})
    assert program.nodes["a"].is_inert
    assert program.wakes == {"x": ("b",)}
    assert program.triggers == {"x"}


def test_what_a_node_reads():
    program = dummy_program(
        {
            "one": node("x"),
            "many": node(["y", "x", "y"], on="x"),
            "none": node([], on="x"),
            "mixed": node(["x", "left"], on="x"),
        },
        managed={"left": RemainingStepsManager},
    )
    one, many, none, mixed = program.nodes.values()
    assert (one.single, one.reads) == ("x", ())
    assert (many.single, many.reads, many.plain) == (None, ("y", "x"), True)
    assert (none.reads, none.plain) == ((), True)
    assert (mixed.reads, mixed.plain) == (("x", "left"), False)


def test_a_channel_with_a_reading_of_its_own_is_not_plain():
    program = dummy_program({"a": node(["t", "x"], on="x")}, {"x": LastValue(int), "t": Topic(int)})
    assert program.nodes["a"].plain is False


def test_channels_that_need_a_visit():
    program = dummy_program(
        channels={
            "x": LastValue(int),
            "e": EphemeralValue(int),
            "u": UntrackedValue(int),
            "b": NamedBarrierValue(str, {"a"}),
        }
    )
    assert program.clearing == {"e", TASKS}
    assert program.finishing == ()
    assert program.consuming == {"b"}
    assert program.tracked == {"x", "e", "b", TASKS}


@pytest.mark.parametrize(
    ("keys", "can_clear"), [("x", False), ("e", True), (["x"], False), (["x", "e"], True), (["b"], True)]
)
def test_can_an_output_lose_its_value(keys, can_clear):
    channels = {"x": LastValue(int), "e": EphemeralValue(int), "b": NamedBarrierValue(str, {"a"})}
    assert dummy_program(channels=channels, output_channels=keys).output_can_clear is can_clear


def test_state_keys():
    assert dummy_program(stream_channels="x").state_keys == ["x"]
    assert dummy_program(stream_channels=("x", "y")).state_keys == ["x", "y"]


def test_a_node_without_body_passes_its_input_through():
    body = dummy_program({"a": node()}).nodes["a"]
    assert body.fn is not None
    assert body.fn(3) == 3
    assert (body.afn, body.inject, body.needs_worker) == (None, None, False)


def test_which_bodies_must_leave_the_loop():
    async def coroutine(x):
        return x

    program = dummy_program({"sync": node(fn=lambda x: x), "async": node(fn=coroutine)})
    assert [n.needs_worker for n in program.nodes.values()] == [True, False]


def test_async_routers_are_known():
    class Router:
        def __init__(self, fn):
            self.call = type("Call", (), {"fn": fn})()

    program = dummy_program({"a": node(routers=[Router(print), Router(None)]), "b": node(routers=[Router(print)])})
    assert [n.async_routers for n in program.nodes.values()] == [True, False]


def test_the_public_description_normalises_its_fields():
    policy = RetryPolicy(max_attempts=2)
    spec = PregelNode(
        channels=("x", "y"),
        triggers=("x",),
        retry_policy=policy,
        timeout=2.0,
        tags=["t"],
        metadata={"k": 1},
        subgraphs=[3],
    )
    assert (spec.channels, spec.triggers, spec.retry_policy) == (["x", "y"], ["x"], (policy,))
    assert spec.timeout == TimeoutPolicy(run_timeout=2.0)
    assert (spec.tags, spec.metadata, spec.subgraphs, spec.routers) == (["t"], {"k": 1}, [3], ())
    assert PregelNode(channels="x", triggers=[], retry_policy=[policy, policy]).retry_policy == (policy, policy)
    assert repr(spec) == "PregelNode(channels=['x', 'y'], triggers=['x'], bound=None)"


def test_a_copy_replaces_some_fields():
    spec = node("x", tags=["t"], error_handler="h")
    twin = spec.copy({"tags": ["u"]})
    assert (twin.tags, twin.error_handler, twin.channels) == (["u"], "h", "x")
    assert spec.copy().tags == ["t"]
    assert spec.tags == ["t"]


def test_hidden_nodes():
    program = dummy_program({"a": node(tags=[TAG_HIDDEN]), "b": node()})
    assert [n.hidden for n in program.nodes.values()] == [True, False]


def test_what_a_writer_wants_run_is_named():
    call = prepare(print)
    assert Returned(call).call is call
    assert str(Returned(call)) == "print"
