"""Resuming does what is left and nothing else: in handlers, below nodes that are tried again, after a failure."""

import operator
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from pregel.graph import START, StateGraph
from pregel.types import Command, RetryPolicy, interrupt
from tests.support.scenarios import Colour


class Log(TypedDict, total=False):
    """A list that grows."""

    l: Annotated[list[str], operator.add]


AT_ONCE = RetryPolicy(initial_interval=0, jitter=False, max_attempts=2, retry_on=OSError)


def raising(state: Log) -> Log:
    raise OSError("broken")


def open_questions(colour: Colour, graph: Any, thread: Any) -> dict[str, str]:
    return {question.value: question.id for question in colour.get_state(graph, thread).interrupts}


def test_join_is_used_up_by_a_node_whose_handler_took_over(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(Log)
    for name in ("a", "b"):
        builder.add_node(name, colour.letter(name)).add_edge(START, name)
    builder.add_node("c", colour.node(raising), error_handler=colour.node(lambda state: {"l": ["handled"]}))
    graph = builder.add_edge(["a", "b"], "c").compile(checkpointer=saver)
    assert colour.invoke(graph, {"l": []}, thread) == {"l": ["a", "b", "handled"]}
    assert colour.get_state(graph, thread).next == ()
    assert colour.invoke(graph, None, thread) == {"l": ["a", "b", "handled"]}


def handled(colour: Colour, saver: Any, calls: list[str]) -> Any:
    def fail(state: Log) -> Log:
        calls.append("node")
        return raising(state)

    def handle(state: Log) -> Log:
        calls.append("handler")
        return {"l": [interrupt("what now?")]}

    builder = StateGraph(Log).add_node("f", colour.node(fail), error_handler=colour.node(handle)).add_edge(START, "f")
    return builder.compile(checkpointer=saver)


def test_handler_that_asks_is_resumed_alone(colour: Colour, saver: Any, durability: Any, thread: Any) -> None:
    calls: list[str] = []
    graph = handled(colour, saver, calls)
    colour.invoke(graph, {"l": []}, thread, durability=durability)
    colour.invoke(graph, None, thread, durability=durability)
    assert colour.invoke(graph, Command(resume="go on"), thread, durability=durability) == {"l": ["go on"]}
    assert calls == ["node", "handler", "handler", "handler"]


def test_checkpoint_chunk_of_a_due_handler_is_the_stored_one(colour: Colour, saver: Any, thread: Any) -> None:
    graph = handled(colour, saver, [])
    first = colour.stream(graph, {"l": []}, thread, stream_mode="checkpoints")[-1]
    again = colour.stream(graph, Command(resume="A"), thread, stream_mode="checkpoints")[0]
    assert again["config"] == first["config"]
    assert first["next"] == again["next"] == ["f"]


@pytest.mark.differs("promise 36: every pending question is surfaced; LangGraph's state does not show a handler's")
def test_question_of_a_handler_is_in_the_state(colour: Colour, saver: Any, thread: Any) -> None:
    graph = handled(colour, saver, [])
    asked = colour.invoke(graph, {"l": []}, thread)["__interrupt__"]
    state = colour.get_state(graph, thread)
    assert (list(state.interrupts), state.next) == (asked, ("f",))
    assert [task.interrupts for task in state.tasks] == [tuple(asked)]


def test_result_of_a_handler_counts_while_another_node_asks(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(Log).add_node("ask", colour.node(lambda state: {"l": [interrupt("q")]})).add_edge(START, "ask")
    builder.add_node("f", colour.node(raising), error_handler=colour.node(lambda state: {"l": ["handled"]}))
    graph = builder.add_edge(START, "f").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    state = colour.get_state(graph, thread)
    assert (state.values, state.next) == ({"l": ["handled"]}, ("ask",))
    assert colour.invoke(graph, Command(resume="A"), thread)["l"] == ["A", "handled"]


class Fragile:
    """A node that asks, and fails once after it was answered."""

    def __init__(self) -> None:
        self.tries = 0

    def __call__(self, state: Log) -> Log:
        reply = interrupt("mine")
        self.tries += 1
        if self.tries == 1:
            raise OSError(reply)
        return {"l": [reply]}


@pytest.mark.differs("promise 38: what was answered is not pending, though its node failed then")
def test_answered_question_of_a_failed_node_is_not_pending(
    colour: Colour, saver: Any, durability: Any, thread: Any
) -> None:
    builder = StateGraph(Log).add_node("f", colour.node(Fragile())).add_edge(START, "f")
    builder.add_node("o", colour.node(lambda state: {"l": [interrupt("other")]})).add_edge(START, "o")
    graph = builder.compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread, durability=durability)
    mine = open_questions(colour, graph, thread)["mine"]
    with pytest.raises(OSError, match="A"):
        colour.invoke(graph, Command(resume={mine: "A"}), thread, durability=durability)
    assert list(open_questions(colour, graph, thread)) == ["other"]
    assert colour.invoke(graph, Command(resume="B"), thread, durability=durability) == {"l": ["A", "B"]}


def test_answer_may_be_given_anew_after_a_failure(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(Log).add_node("f", colour.node(Fragile())).add_edge(START, "f")
    graph = builder.compile(checkpointer=saver)
    mine = colour.invoke(graph, {"l": []}, thread)["__interrupt__"][0].id
    with pytest.raises(OSError, match="A"):
        colour.invoke(graph, Command(resume={mine: "A"}), thread)
    assert colour.invoke(graph, Command(resume={mine: "better"}), thread) == {"l": ["better"]}


def test_stateful_subgraph_that_left_by_a_parent_command_keeps_its_state(
    colour: Colour, saver: Any, durability: Any, thread: Any
) -> None:
    saw: list[list[str]] = []

    def leave(state: Log) -> Command[Any]:
        saw.append(state["l"])
        return Command(graph=Command.PARENT, update={"l": ["left"]})

    inner = StateGraph(Log).add_node("leave", colour.node(leave)).add_edge(START, "leave").compile(checkpointer=True)
    graph = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").compile(checkpointer=saver)
    for given in ("1", "2"):
        colour.invoke(graph, {"l": [given]}, thread, durability=durability)
    assert saw == [["1"], ["1", "1", "left", "2"]]


def test_node_around_an_answered_question_may_be_tried_again(
    colour: Colour, saver: Any, durability: Any, thread: Any
) -> None:
    """The answer reaches the question also if the first try after it fails; it is not asked for once more."""
    ask = colour.node(lambda state: {"l": [interrupt("q")]})
    inner = StateGraph(Log).add_node("ask", ask).add_edge(START, "ask")
    tries: list[int] = []

    def fails_once(state: Log) -> Log:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("once")
        return {"l": ["then"]}

    inner.add_node("then", colour.node(fails_once)).add_edge("ask", "then")
    builder = StateGraph(Log).add_node("sub", inner.compile(), retry_policy=AT_ONCE).add_edge(START, "sub")
    graph = builder.compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread, durability=durability)
    assert colour.invoke(graph, Command(resume="A"), thread, durability=durability) == {"l": ["A", "then"]}
