"""The shapes in which chunks and results are delivered."""

import pytest

from pregel.engine.view import Asked
from pregel.errors import Interrupt
from pregel.pregel import _delivery
from pregel.pregel._stream import Outlet
from tests.support.dummies import dummy_program, dummy_run, node, superstep
from tests.support.requests import graph, request


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
