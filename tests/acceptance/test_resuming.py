"""Resuming does what is left and nothing else: in handlers, below nodes that are tried again, after a failure."""

from typing import Any

import pytest

from pregel.graph import START, StateGraph
from pregel.types import Command, RetryPolicy, Send, interrupt
from tests.support.scenarios import Colour, Log

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


# ---- a replay of a nested checkpoint that is stopped on the way


def around_a_subgraph(colour: Colour, saver: Any, calls: list[str]) -> Any:
    """A node that asks, and then calls a subgraph of two nodes."""
    inner = StateGraph(Log).add_node("i1", colour.letter("i1", calls)).add_node("i2", colour.letter("i2", calls))
    compiled = inner.add_edge(START, "i1").add_edge("i1", "i2").compile()

    if colour.is_async:

        async def outer(state: Log) -> Any:
            reply = interrupt("first")
            return {"l": [reply, *(await compiled.ainvoke({"l": []}))["l"]]}
    else:

        def outer(state: Log) -> Any:
            reply = interrupt("first")
            return {"l": [reply, *compiled.invoke({"l": []})["l"]]}

    return StateGraph(Log).add_node("outer", outer).add_edge(START, "outer").compile(checkpointer=saver)


def nested_config(colour: Colour, graph: Any, thread: Any, ready: str) -> Any:
    """Of the nested checkpoint at which that node was to run."""
    task = next(s for s in colour.history(graph, thread) if s.next == ("outer",)).tasks[0]
    return next(s for s in colour.history(graph, task.state) if s.next == (ready,)).config


def test_replay_goes_on_to_the_nested_checkpoint_after_a_question(
    colour: Colour, saver: Any, durability: Any, thread: Any
) -> None:
    """The node around the subgraph asks again, since it runs again; what it was replayed for is not forgotten over it."""
    if durability == "exit":
        pytest.skip("durability exit stores nothing of a nested run that ends")
    calls: list[str] = []
    graph = around_a_subgraph(colour, saver, calls)
    colour.invoke(graph, {"l": []}, thread, durability=durability)
    colour.invoke(graph, Command(resume="A"), thread, durability=durability)
    config = nested_config(colour, graph, thread, "i2")
    del calls[:]
    asked = colour.invoke(graph, None, config, durability=durability)
    assert [question.value for question in asked["__interrupt__"]] == ["first"]
    assert colour.invoke(graph, Command(resume="B"), thread, durability=durability) == {"l": ["B", "i1", "i2"]}
    assert calls == ["i2"]


def test_edit_of_a_nested_checkpoint_survives_a_question_on_the_way_to_it(
    colour: Colour, saver: Any, thread: Any
) -> None:
    graph = around_a_subgraph(colour, saver, [])
    colour.invoke(graph, {"l": []}, thread)
    colour.invoke(graph, Command(resume="A"), thread)
    edited = colour.update_state(graph, nested_config(colour, graph, thread, "i2"), {"l": ["edit"]}, as_node="i1")
    colour.invoke(graph, None, edited)
    assert colour.invoke(graph, Command(resume="B"), thread) == {"l": ["B", "i1", "edit", "i2"]}


def test_new_input_after_a_stopped_replay_starts_nested_graphs_fresh(colour: Colour, saver: Any, thread: Any) -> None:
    calls: list[str] = []
    graph = around_a_subgraph(colour, saver, calls)
    colour.invoke(graph, {"l": []}, thread)
    colour.invoke(graph, Command(resume="A"), thread)
    colour.invoke(graph, None, nested_config(colour, graph, thread, "i2"))
    colour.invoke(graph, {"l": ["new"]}, thread)
    del calls[:]
    assert colour.invoke(graph, Command(resume="C"), thread)["l"][-3:] == ["C", "i1", "i2"]
    assert calls == ["i1", "i2"]


def test_replay_finds_the_very_task_among_equal_ones(colour: Colour, saver: Any, thread: Any) -> None:
    """Two Sends to one subgraph in one step: the checkpoint of the second is not taken for the first's."""
    calls: list[str] = []

    def second(state: Log) -> Log:
        calls.append(state["l"][0])
        return {"l": ["2"]}

    inner = StateGraph(Log).add_node("i1", colour.node(lambda state: {"l": ["1"]})).add_node("i2", colour.node(second))
    compiled = inner.add_edge(START, "i1").add_edge("i1", "i2").compile()
    builder = StateGraph(Log).add_node("sub", compiled)
    builder.add_conditional_edges(START, lambda state: [Send("sub", {"l": ["x"]}), Send("sub", {"l": ["y"]})], ["sub"])
    graph = builder.compile(checkpointer=saver)
    wanted = colour.invoke(graph, {"l": []}, thread)
    tasks = next(s for s in colour.history(graph, thread) if s.next == ("sub", "sub")).tasks
    for task in tasks:
        config = next(s for s in colour.history(graph, task.state) if s.next == ("i2",)).config
        assert colour.invoke(graph, None, config) == wanted
    assert calls.count("x") >= 2
    assert calls.count("y") >= 2


def test_replay_of_a_nested_end_keeps_the_state_of_graphs_inside(colour: Colour, saver: Any, thread: Any) -> None:
    """A stateful graph inside a subgraph that is replayed at its end: a later run finds the state that it had."""
    saw: list[int] = []

    def count(state: Log) -> Log:
        saw.append(len(state["l"]))
        return {"l": ["d"]}

    deep = StateGraph(Log).add_node("d", colour.node(count)).add_edge(START, "d").compile(checkpointer=True)
    sub = StateGraph(Log).add_node("deep", deep).add_edge(START, "deep").compile()
    builder = StateGraph(Log).add_node("sub", sub).add_node("ask", colour.node(lambda state: {"l": [interrupt("q")]}))
    graph = builder.add_edge(START, "sub").add_edge(START, "ask").add_edge("ask", "sub").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    wanted = colour.invoke(graph, Command(resume="again"), thread)
    first, second = saw
    assert second > first + 2, "the second run saw the state of the first"
    task = next(task for s in colour.history(graph, thread)[::-1] for task in s.tasks if task.name == "sub")
    config = next(s for s in colour.history(graph, task.state) if s.next == ()).config
    colour.invoke(graph, None, config)
    assert colour.invoke(graph, Command(resume="again"), thread) == wanted
    assert saw == [first, second, second]


def test_bare_answer_reaches_one_question_only(colour: Colour, saver: Any, thread: Any) -> None:
    """The nested state was edited, and the node around it asks before: the answer is that node's alone."""
    ask = colour.node(lambda state: {"l": [interrupt("inner")]})
    inner = StateGraph(Log).add_node("pre", colour.letter("pre")).add_node("ask", ask).add_edge(START, "pre")
    compiled = inner.add_edge("pre", "ask").compile()

    if colour.is_async:

        async def outer(state: Log) -> Any:
            return {"l": [interrupt("outer"), *(await compiled.ainvoke({"l": []}))["l"]]}
    else:

        def outer(state: Log) -> Any:
            return {"l": [interrupt("outer"), *compiled.invoke({"l": []})["l"]]}

    graph = StateGraph(Log).add_node("outer", outer).add_edge(START, "outer").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    colour.invoke(graph, Command(resume="A"), thread)
    edited = colour.update_state(graph, nested_config(colour, graph, thread, "ask"), {"l": ["edit"]}, as_node="pre")
    colour.invoke(graph, None, edited)
    asked = colour.invoke(graph, Command(resume="B"), thread)
    assert [question.value for question in asked["__interrupt__"]] == ["inner"]
    assert colour.invoke(graph, Command(resume="C"), thread) == {"l": ["B", "pre", "edit", "C"]}
