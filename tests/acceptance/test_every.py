"""Durability `Every`: the run is stored now and then, and at its end."""

import operator
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from pregel.graph import END, START, StateGraph
from pregel.types import Command, Every, interrupt
from tests.support.savers import Died, FaultySaver
from tests.support.scenarios import Colour, refused, steps


class Count(TypedDict):
    n: int
    log: Annotated[list[int], operator.add]


def loop(colour: Colour, n_steps: int, calls: list[int] | None = None, **options: Any) -> Any:
    def count(state: Count) -> dict[str, Any]:
        if calls is not None:
            calls.append(state["n"])
        return {"n": state["n"] + 1, "log": [state["n"]]}

    builder = StateGraph(Count).add_node("count", colour.node(count)).add_edge(START, "count")
    builder.add_conditional_edges("count", lambda state: "count" if state["n"] < n_steps else END)
    return builder.compile(**options)


def test_every_third_step_and_the_last_one_are_stored(colour: Colour, saver: Any, thread: Any) -> None:
    graph = loop(colour, 7, checkpointer=saver)
    out = colour.invoke(graph, {"n": 0, "log": []}, thread, durability=Every(steps=3))
    assert out == {"n": 7, "log": [*range(7)]}
    history = colour.history(graph, thread)
    assert [snapshot.values["n"] for snapshot in history] == [7, 5, 2]
    assert steps(history) == [("loop", 7), ("loop", 5), ("loop", 2)]
    parents = [s.parent_config["configurable"]["checkpoint_id"] if s.parent_config else None for s in history]
    ids = [s.config["configurable"]["checkpoint_id"] for s in history]
    assert parents == [*ids[1:], None]
    assert [snapshot.next for snapshot in history] == [(), ("count",), ("count",)]


def test_a_run_goes_on_from_what_was_stored_last(colour: Colour, thread: Any) -> None:
    saver, calls = FaultySaver(), list[int]()
    graph = loop(colour, 8, calls, checkpointer=saver)
    saver.strike_at = 2  # the second time it is stored, after six steps: that of the input is one
    with pytest.raises(Died):
        colour.invoke(graph, {"n": 0, "log": []}, thread, durability=Every(steps=3))
    saver.restart()
    assert calls == [*range(5)]
    assert colour.get_state(graph, thread).values["n"] == 2
    assert colour.invoke(graph, None, thread, durability=Every(steps=3)) == {"n": 8, "log": [*range(8)]}
    assert calls == [*range(5), *range(2, 8)]


def test_seconds(colour: Colour, memory: Any, thread: Any) -> None:
    graph = loop(colour, 5, checkpointer=memory)
    colour.invoke(graph, {"n": 0, "log": []}, thread, durability=Every(seconds=1e-9))
    assert [snapshot.values["n"] for snapshot in colour.history(graph, thread)] == [5, 4, 3, 2, 1, 0]
    later = {"configurable": {"thread_id": "later"}}
    colour.invoke(graph, {"n": 0, "log": []}, later, durability=Every(seconds=3600, steps=1000))
    assert [snapshot.values["n"] for snapshot in colour.history(graph, later)] == [5]


def test_a_question_is_stored_at_once(colour: Colour, saver: Any, thread: Any) -> None:
    def ask(state: Count) -> dict[str, Any]:
        return {"log": [interrupt("how much?")]}

    builder = StateGraph(Count).add_node("ask", colour.node(ask)).add_edge(START, "ask")
    graph = builder.compile(checkpointer=saver)
    colour.invoke(graph, {"n": 0, "log": []}, thread, durability=Every(steps=100))
    assert [question.value for question in colour.get_state(graph, thread).interrupts] == ["how much?"]
    assert colour.invoke(graph, Command(resume=5), thread, durability=Every(steps=100))["log"] == [5]


def test_nested_runs_are_stored_with_their_parents_steps(colour: Colour, saver: Any, thread: Any) -> None:
    inner = loop(colour, 3, checkpointer=True)

    def again(state: Count) -> dict[str, Any]:
        return {"n": 0}

    builder = StateGraph(Count).add_node("inner", inner).add_node("again", colour.node(again))
    builder.add_edge(START, "inner").add_edge("inner", "again")
    builder.add_conditional_edges("again", lambda state: "inner" if len(state["log"]) < 12 else END)
    graph = builder.compile(checkpointer=saver)
    plain = colour.invoke(graph, {"n": 0, "log": []}, {"configurable": {"thread_id": "plain"}})
    assert colour.invoke(graph, {"n": 0, "log": []}, thread, durability=Every(steps=1)) == plain
    assert colour.get_state(graph, thread).values == plain
    nested = {"configurable": {**thread["configurable"], "checkpoint_ns": "inner"}}
    assert colour.get_state(graph, nested).values["n"] == 3


@pytest.mark.parametrize("every", [1, 2, 3])
def test_what_is_stored_now_and_then_is_whole(colour: Colour, thread: Any, every: int) -> None:
    """Whenever it dies: the nested state that the newest checkpoint of the root builds on is stored with it."""
    inner = loop(colour, 3, checkpointer=True)
    builder = StateGraph(Count).add_node("inner", inner)
    builder.add_node("again", colour.node(lambda state: {"n": 0})).add_edge(START, "inner").add_edge("inner", "again")
    builder.add_conditional_edges("again", lambda state: "inner" if len(state["log"]) < 12 else END)
    plain = colour.invoke(builder.compile(checkpointer=FaultySaver()), {"n": 0, "log": []}, thread)
    strike, has_died = 0, True
    while has_died:
        strike += 1
        saver = FaultySaver()
        graph = builder.compile(checkpointer=saver)
        saver.strike_at = strike
        has_died = False
        try:
            result = colour.invoke(graph, {"n": 0, "log": []}, thread, durability=Every(steps=every))
        except Died:
            has_died = True
            saver.restart()
            left = colour.get_state(graph, thread)
            result = colour.invoke(graph, None if left.next else {"n": 0, "log": []}, thread)
        assert result == plain, f"died at commit {strike}"
    assert strike >= 3


@pytest.mark.parametrize("limits", [{}, {"steps": 0}, {"steps": -1}, {"steps": 1.5}, {"steps": True}, {"seconds": 0}])
def test_limits_that_mean_nothing(limits: Any) -> None:
    with refused(ValueError, "Every"):
        Every(**limits)
