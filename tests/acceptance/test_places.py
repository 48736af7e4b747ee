"""Every error says where it happened and how to go on: node, task, step, namespace, config (promises.md 56)."""

from __future__ import annotations

import pickle
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict

from pregel.errors import GraphRecursionError, InvalidUpdateError, Place, place_of
from pregel.graph import START, StateGraph
from pregel.types import Command, RetryPolicy, Send, interrupt
from tests.acceptance.test_conflict import Beside
from tests.support.savers import DiskFull, FaultySaver
from tests.support.scenarios import Colour, Gate, Log, LogX, refused


class Shaky:
    """A node that fails as long as it is told to; always with the same exception object."""

    def __init__(self) -> None:
        self.is_broken = True
        self.error = ValueError("boom")

    def __call__(self, state: Any) -> dict[str, Any]:
        if self.is_broken:
            raise self.error
        return {"l": ["mended"]}


def failing(colour: Colour, shaky: Shaky, saver: Any = None, **options: Any) -> Any:
    builder = StateGraph(Log).add_node("a", colour.letter("a")).add_node("bad", colour.node(shaky.__call__), **options)
    return builder.add_edge(START, "a").add_edge("a", "bad").compile(checkpointer=saver)


def place(error: BaseException) -> Place:
    found = place_of(error)
    assert found is not None
    return found


def test_a_node(colour: Colour, saver: Any, thread: Any, durability: Any) -> None:
    shaky = Shaky()
    graph = failing(colour, shaky, saver)
    with refused(ValueError, "boom") as caught:
        colour.invoke(graph, {"l": []}, thread, durability=durability)
    (task,) = colour.get_state(graph, thread).tasks
    found = place(caught.value)
    assert found == Place("bad", task.id, 2, "", "1", {"configurable": {"thread_id": "1"}})
    (note,) = caught.value.__notes__
    assert note.startswith(f"During task with name 'bad' and id '{task.id}' in step 2; ")
    assert repr(found.config) in note
    shaky.is_broken = False
    assert colour.invoke(graph, None, found.config) == {"l": ["a", "mended"]}


def test_without_a_saver(colour: Colour) -> None:
    with refused(ValueError, "boom") as caught:
        colour.invoke(failing(colour, Shaky()), {"l": []})
    found = place(caught.value)
    assert (found.node, found.step, found.checkpoint_ns, found.config) == ("bad", 2, "", None)
    assert "nothing is stored" in caught.value.__notes__[0]


@pytest.mark.parametrize("memory_of", [None, True])
def test_the_innermost_place_counts(colour: Colour, saver: Any, thread: Any, memory_of: Any) -> None:
    shaky = Shaky()
    inner = failing(colour, shaky).builder.compile(checkpointer=memory_of)
    middle = StateGraph(Log).add_node("inner", inner).add_edge(START, "inner").compile()
    graph = StateGraph(Log).add_node("middle", middle).add_edge(START, "middle").compile(checkpointer=saver)
    with refused(ValueError, "boom") as caught:
        colour.invoke(graph, {"l": []}, thread)
    found = place(caught.value)
    (outer,) = colour.get_state(graph, thread, subgraphs=True).tasks
    (nested,) = outer.state.tasks
    assert found.node == "bad"
    assert found.checkpoint_ns == nested.state.config["configurable"]["checkpoint_ns"]
    assert found.task_id == nested.state.tasks[0].id
    assert [name in note for note, name in zip(caught.value.__notes__, ["'bad'", "'inner'", "'middle'"], strict=True)]
    shaky.is_broken = False
    assert colour.invoke(graph, None, found.config)["l"][-1] == "mended"


def test_the_same_exception_in_another_run(colour: Colour, saver: Any) -> None:
    shaky = Shaky()
    graph = failing(colour, shaky, saver)
    for name in ("one", "two"):
        with refused(ValueError, "boom"):
            colour.invoke(graph, {"l": []}, {"configurable": {"thread_id": name}})
        assert place(shaky.error).thread_id == name
    assert pickle.loads(pickle.dumps(shaky.error))._pregel_place == place(shaky.error)


def test_a_failure_after_retries(colour: Colour) -> None:
    policy = RetryPolicy(max_attempts=2, initial_interval=0.0, jitter=False, retry_on=ValueError)
    with refused(ValueError, "boom") as caught:
        colour.invoke(failing(colour, Shaky(), retry_policy=policy), {"l": []})
    assert "attempt 2" in caught.value.__notes__[-1]


def test_a_called_graph_with_a_thread_of_its_own(colour: Colour, saver: Any, thread: Any) -> None:
    shaky = Shaky()
    inner = failing(colour, shaky, saver)

    def call(state: Log) -> Any:
        yield inner, {"l": []}, {"configurable": {"thread_id": "other"}}

    builder = StateGraph(Log).add_node("call", colour.script(call)).add_edge(START, "call")
    graph = builder.compile(checkpointer=saver)
    with refused(ValueError, "boom") as caught:
        colour.invoke(graph, {"l": []}, thread)
    found = place(caught.value)
    shaky.is_broken = False
    assert found.node in ("bad", "call")
    assert found.config is not None


def test_a_run_beside_the_holder_of_its_thread(colour: Colour, saver: Any, thread: Any) -> None:
    """Its branch is not what the thread is known by, so the way on names the checkpoint."""
    entered, go, is_broken = Gate(), Gate(), [True]

    def node(state: Log) -> Any:
        if state["l"] == ["holder"]:
            entered.set()
            yield go
        elif is_broken:
            raise ValueError("boom")
        return {"l": ["done"]}

    builder = StateGraph(Log).add_node("a", colour.letter("a")).add_node("b", colour.script(node))
    builder.add_conditional_edges(START, lambda state: "b" if state["l"] == ["holder"] else "a", ["a", "b"])
    graph = builder.add_edge("a", "b").compile(checkpointer=saver)
    holder = Beside(lambda: colour.invoke(graph, {"l": ["holder"]}, thread))
    entered.wait()
    with refused(ValueError, "boom") as caught:
        colour.invoke(graph, {"l": ["lane"]}, thread, on_conflict="fork")
    go.set()
    assert holder.result() == {"l": ["holder", "done"]}
    found = place(caught.value)
    assert found.config is not None
    assert set(found.config["configurable"]) == {"thread_id", "checkpoint_ns", "checkpoint_id"}
    assert colour.get_state(graph, found.config).next == ("b",)
    is_broken.clear()
    assert colour.invoke(graph, None, found.config)["l"][-3:] == ["lane", "a", "done"]


class Strict(BaseModel):
    x: int


def test_an_input_that_does_not_fit(colour: Colour, saver: Any, thread: Any) -> None:
    graph = StateGraph(Strict).add_node("a", colour.node(lambda state: {})).add_edge(START, "a").compile(saver)
    with pytest.raises(ValidationError) as caught:
        colour.invoke(graph, {"x": "no"}, thread)
    found = place(caught.value)
    assert (found.node, found.checkpoint_ns, found.config) == (None, "", thread)
    assert "('__pregel_pull', 'a')" in " ".join(caught.value.__notes__)


def test_values_that_a_channel_cannot_take(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(LogX)
    for name in "ab":
        builder.add_node(name, colour.node(lambda state: {"x": 1})).add_edge(START, name)
    with refused(InvalidUpdateError, "'a'", "'b'", "step 1") as caught:
        colour.invoke(builder.compile(checkpointer=saver), {"l": []}, thread)
    found = place(caught.value)
    assert found == Place(None, None, 1, "", "1", thread)
    assert "In step 1" in " ".join(caught.value.__notes__)


class Reduced(TypedDict):
    x: Annotated[int, lambda old, new: old + new]


def test_a_reducer_that_fails_in_a_nested_graph(colour: Colour, saver: Any, thread: Any) -> None:
    inner = StateGraph(Reduced).add_node("a", colour.node(lambda state: {"x": "text"})).add_edge(START, "a").compile()
    graph = StateGraph(Reduced).add_node("sub", inner).add_edge(START, "sub").compile(checkpointer=saver)
    with pytest.raises(TypeError) as caught:
        colour.invoke(graph, {"x": 1}, thread)
    found = place(caught.value)
    assert (found.node, found.step, found.config) == (None, 1, thread)
    assert found.checkpoint_ns.startswith("sub:")


def test_the_step_limit(colour: Colour, saver: Any, thread: Any) -> None:
    graph = StateGraph(Log).add_node("a", colour.letter("a")).add_edge(START, "a").add_edge("a", "a")
    graph = graph.compile(checkpointer=saver)
    with pytest.raises(GraphRecursionError) as caught:
        colour.invoke(graph, {"l": []}, {**thread, "recursion_limit": 3})
    found = place(caught.value)
    assert found == Place(None, None, 4, "", "1", thread)
    with pytest.raises(GraphRecursionError):
        colour.invoke(graph, None, {**found.config, "recursion_limit": 1})


def test_streams_say_it_too(colour: Colour, saver: Any, thread: Any) -> None:
    _, error = colour.outcome(failing(colour, Shaky(), saver), {"l": []}, thread, stream_mode="updates")
    assert error is not None
    assert place(error).node == "bad"
    assert len(error.__notes__) == 1


def test_what_is_no_failure_has_no_place(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(Log).add_node("asks", colour.node(lambda state: {"l": [interrupt("?")]}))
    graph = builder.add_edge(START, "asks").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    assert colour.invoke(graph, Command(resume=1), thread) == {"l": [1]}
    assert place_of(ValueError()) is None


class Closed(Exception):
    """Takes neither attributes nor anything else."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


def test_an_exception_that_takes_no_attributes(colour: Colour) -> None:
    def node(state: Log) -> Any:
        raise Closed

    builder = StateGraph(Log).add_node("a", colour.node(node)).add_edge(START, "a")
    with pytest.raises(Closed) as caught:
        colour.invoke(builder.compile(), {"l": []})
    assert place_of(caught.value) is None


def test_a_send_is_named(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(Log).add_node("bad", colour.node(Shaky().__call__))
    builder.add_conditional_edges(START, lambda state: [Send("bad", {"l": []})], ["bad"])
    graph = builder.compile(checkpointer=saver)
    with refused(ValueError, "boom") as caught:
        colour.invoke(graph, {"l": []}, thread)
    (task,) = colour.explain(graph, thread).steps[-1].tasks
    found = place(caught.value)
    assert (found.node, found.task_id, found.step) == (task.name, task.id, 1)


def test_a_saver_that_fails(colour: Colour, thread: Any) -> None:
    saver = FaultySaver()
    saver.error = lambda: DiskFull(28, "no space left")
    saver.strike_at = 3
    builder = StateGraph(Log).add_node("a", colour.letter("a")).add_edge(START, "a")
    with pytest.raises(DiskFull) as caught:
        colour.invoke(builder.compile(checkpointer=saver), {"l": []}, thread, durability="sync")
    found = place(caught.value)
    assert (found.node, found.task_id, found.thread_id, found.config) == (None, None, "1", thread)


def test_a_step_that_takes_too_long(colour: Colour, memory: Any, thread: Any) -> None:
    never = Gate()

    def wait(state: Log) -> Any:
        yield never

    builder = StateGraph(Log).add_node("a", colour.script(wait)).add_node("b", colour.script(wait))
    graph = builder.add_edge(START, "a").add_edge(START, "b").compile(checkpointer=memory)
    graph.step_timeout = 0.05
    with pytest.raises(TimeoutError) as caught:
        colour.invoke(graph, {"l": []}, thread)
    never.set()
    found = place(caught.value)
    assert (found.node, found.step, found.config) == (None, 1, thread)
