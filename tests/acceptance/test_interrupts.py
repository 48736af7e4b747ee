"""Stopping for a person and going on: dynamic interrupts, resuming, static breakpoints (engine.md 5.1, 5.3 to 5.7)."""

import re
from typing import Any

import pytest
from typing_extensions import TypedDict

from pregel.errors import EmptyInputError, GraphInterrupt, InvalidUpdateError
from pregel.graph import END, START, StateGraph
from pregel.types import Command, Interrupt, Send, interrupt
from pregel.warnings import PregelWarning
from tests.support.scenarios import Colour, Log, LogX, refused

# ---------------------------------------------------------------------------------------------------- one interrupt


def asking(colour: Colour, saver: Any, *questions: Any, calls: list[Any] | None = None, **options: Any) -> Any:
    """START → n, which asks all questions in turn and adds the answers → after."""

    def n(state: Log) -> dict[str, Any]:
        if calls is not None:
            calls.append(list(state["l"]))
        return {"l": [interrupt(question) for question in questions]}

    builder = StateGraph(Log).add_node("n", colour.node(n)).add_node("after", colour.letter("after"))
    builder.add_edge(START, "n").add_edge("n", "after")
    return builder.compile(checkpointer=saver, **options)


def values(interrupts: Any) -> list[Any]:
    return [entry.value for entry in interrupts]


def test_interrupt_and_resume(colour: Colour, saver: Any, durability: Any, thread: Any) -> None:
    graph = asking(colour, saver, {"question": "q"})
    result = colour.invoke(graph, {"l": ["in"]}, thread, durability=durability)
    assert result["l"] == ["in"]
    assert isinstance(result["__interrupt__"], list)
    (asked,) = result["__interrupt__"]
    assert isinstance(asked, Interrupt)
    assert asked.value == {"question": "q"}
    assert re.fullmatch("[0-9a-f]{32}", asked.id)
    state = colour.get_state(graph, thread)
    assert (state.values, state.next, state.interrupts) == ({"l": ["in"]}, ("n",), (asked,))
    (task,) = state.tasks
    assert (task.name, task.interrupts, task.error, task.result) == ("n", (asked,), None, None)
    assert colour.invoke(graph, Command(resume="R"), thread, durability=durability) == {"l": ["in", "R", "after"]}
    state = colour.get_state(graph, thread)
    assert (state.next, state.interrupts) == ((), ())


def test_id_is_the_same_wherever_it_is_seen(colour: Colour, saver: Any, thread: Any) -> None:
    graph = asking(colour, saver, "q")
    chunks = colour.stream(graph, {"l": []}, thread, stream_mode=["updates", "values", "tasks"])
    seen = {i.id for mode, data in chunks if mode != "tasks" for i in data.get("__interrupt__", ())}
    seen |= {i["id"] for mode, data in chunks if mode == "tasks" for i in data.get("interrupts", ())}
    again = colour.invoke(graph, None, thread)
    seen |= {i.id for i in again["__interrupt__"]}
    seen |= {i.id for i in colour.get_state(graph, thread).interrupts}
    seen |= {i.id for i in colour.history(graph, thread)[0].interrupts}
    assert len(seen) == 1


def test_answers_are_stored_with_the_task(colour: Colour, saver: Any, thread: Any) -> None:
    graph = asking(colour, saver, "q1", "q2")
    colour.invoke(graph, {"l": []}, thread)
    colour.invoke(graph, Command(resume="A"), thread)
    entry = saver.get_tuple(thread)
    (task,) = colour.get_state(graph, thread).tasks
    own = {channel: value for task_id, channel, value in entry.pending_writes if task_id == task.id}
    assert own["__resume__"] == ["A"]
    assert values(own["__interrupt__"]) == ["q2"]


def test_interrupt_without_a_saver(colour: Colour) -> None:
    graph = asking(colour, None, "q")
    result = colour.invoke(graph, {"l": ["in"]})
    assert (result["l"], values(result["__interrupt__"])) == (["in"], ["q"])
    assert "__interrupt__" in colour.stream(graph, {"l": []}, stream_mode="updates")[-1]
    with pytest.raises(RuntimeError):
        colour.invoke(graph, Command(resume="R"))


def test_interrupt_outside_a_graph() -> None:
    with pytest.raises(RuntimeError):
        interrupt("q")


def test_a_broad_except_swallows_the_interrupt(colour: Colour, memory: Any, thread: Any) -> None:
    def n(state: Log) -> dict[str, Any]:
        try:
            return {"l": [interrupt("q")]}
        except Exception as error:  # noqa: BLE001 - the habit under test
            return {"l": [type(error) is GraphInterrupt]}

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(checkpointer=memory)
    assert colour.invoke(graph, {"l": []}, thread) == {"l": [True]}


def test_bare_state_interrupt(colour: Colour, memory: Any, thread: Any) -> None:
    builder = StateGraph(list).add_node("n", colour.node(lambda state: [interrupt("q")])).add_edge(START, "n")
    graph = builder.compile(checkpointer=memory)
    result = colour.invoke(graph, ["in"], thread)
    assert list(result) == ["__interrupt__"]
    assert colour.invoke(graph, Command(resume="R"), thread) == ["R"]


@pytest.mark.differs("engine.md 11, row 7: a bare value is kept beside the interrupts")
def test_bare_state_interrupt_v2(colour: Colour, memory: Any, thread: Any) -> None:
    builder = StateGraph(list).add_node("n", colour.node(lambda state: [interrupt("q")])).add_edge(START, "n")
    result = colour.invoke(builder.compile(checkpointer=memory), ["in"], thread, version="v2")
    assert (result.value, values(result.interrupts)) == (["in"], ["q"])


# ------------------------------------------------------------------------------------------------ several interrupts


def parallel(colour: Colour, saver: Any, *names: str, calls: list[str] | None = None) -> Any:
    builder = StateGraph(Log)
    for name in names:

        def ask(state: Log, name: str = name) -> dict[str, Any]:
            if calls is not None:
                calls.append(name)
            return {"l": [(name, interrupt(name))]}

        builder.add_node(name, colour.node(ask)).add_edge(START, name)
    return builder.compile(checkpointer=saver)


def test_chunks_of_a_partial_resume(colour: Colour, saver: Any, thread: Any) -> None:
    graph = parallel(colour, saver, "a", "b", "c")
    ids = {i.value: i.id for i in colour.invoke(graph, {"l": []}, thread)["__interrupt__"]}
    colour.invoke(graph, Command(resume={ids["a"]: 1}), thread)
    chunks = colour.stream(graph, Command(resume={ids["b"]: 2}), thread, stream_mode="updates")
    assert len(chunks) == 3
    names = sorted(next(iter(chunk)) for chunk in chunks)
    assert names == ["__interrupt__", "a", "b"]
    assert [chunk["__metadata__"] for chunk in chunks if "a" in chunk] == [{"cached": True}]
    assert [values(chunk["__interrupt__"]) for chunk in chunks if "__interrupt__" in chunk] == [["c"]]


def test_interrupts_of_sends(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(Log).add_node("w", colour.node(lambda arg: {"l": [[arg, interrupt(arg)]]}))
    builder.add_conditional_edges(START, lambda state: [Send("w", "x"), Send("w", "y")])
    graph = builder.compile(checkpointer=saver)
    asked = colour.invoke(graph, {"l": []}, thread)["__interrupt__"]
    assert values(colour.get_state(graph, thread).interrupts) == ["x", "y"]
    result = colour.invoke(graph, Command(resume={i.id: i.value.upper() for i in asked}), thread)
    assert result == {"l": [["x", "X"], ["y", "Y"]]}


def test_failure_beside_an_interrupt_is_raised(colour: Colour, saver: Any, thread: Any) -> None:
    failing = [True]

    def bad(state: Log) -> dict[str, Any]:
        if failing:
            raise ValueError("boom")
        return {"l": ["bad"]}

    def ask(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q")]}

    builder = StateGraph(Log).add_node("bad", colour.node(bad)).add_node("ask", colour.node(ask))
    builder.add_edge(START, "bad").add_edge(START, "ask")
    graph = builder.compile(checkpointer=saver)
    with refused(ValueError, "boom"):
        colour.invoke(graph, {"l": []}, thread)
    assert colour.get_state(graph, thread).next == ("bad", "ask")
    failing.clear()
    assert values(colour.invoke(graph, None, thread)["__interrupt__"]) == ["q"]
    assert colour.invoke(graph, Command(resume="R"), thread) == {"l": ["R", "bad"]}


# ----------------------------------------------------------------------------------------------- static breakpoints


def chain(colour: Colour, saver: Any, names: str = "abc", **options: Any) -> Any:
    builder = StateGraph(Log)
    before = START
    for name in names:
        builder.add_node(name, colour.letter(name)).add_edge(before, name)
        before = name
    return builder.compile(checkpointer=saver, **options)


def test_breakpoint_chunks(colour: Colour, memory: Any, thread: Any) -> None:
    graph = chain(colour, memory, interrupt_before=["b"])
    chunks = colour.stream(graph, {"l": []}, thread, stream_mode=["updates", "values"])
    assert chunks == [
        ("values", {"l": []}),
        ("updates", {"a": {"l": ["a"]}}),
        ("values", {"l": ["a"]}),
        ("updates", {"__interrupt__": ()}),
    ]
    result = colour.invoke(chain(colour, memory, interrupt_before=["b"]), {"l": []}, {"configurable": {"thread_id": 9}})
    assert "__interrupt__" not in result


def test_breakpoint_per_call(colour: Colour, memory: Any, thread: Any) -> None:
    graph = chain(colour, memory)
    assert colour.invoke(graph, {"l": []}, thread, interrupt_before=["b"]) == {"l": ["a"]}
    assert colour.invoke(graph, None, thread, interrupt_after=["b"]) == {"l": ["a", "b"]}
    assert colour.invoke(graph, None, thread) == {"l": ["a", "b", "c"]}
    other = {"configurable": {"thread_id": "2"}}
    assert colour.invoke(graph, {"l": []}, other, interrupt_before=["unknown"]) == {"l": ["a", "b", "c"]}


def test_star_after_gives_one_stop_per_node(colour: Colour, saver: Any, thread: Any) -> None:
    """amendments II.2 5.5: also after steps that wrote nothing, and one checkpoint more per stop."""
    builder = StateGraph(Log)
    before = START
    for name in "abc":
        builder.add_node(name, colour.node(lambda state: None)).add_edge(before, name)
        before = name
    graph = builder.compile(checkpointer=saver, interrupt_after="*")
    colour.invoke(graph, {"l": []}, thread)
    for following, count in [(("b",), 3), (("c",), 4), ((), 5)]:
        assert colour.get_state(graph, thread).next == following
        assert len(colour.history(graph, thread)) == count
        colour.invoke(graph, None, thread)


def test_an_answer_to_a_breakpoint_does_not_answer_a_later_question(colour: Colour, saver: Any, thread: Any) -> None:
    """The value serves the superstep that is resumed; what asks in a later one, or on an empty thread, is asked."""
    builder = StateGraph(Log).add_node("a", colour.letter("a")).add_node("b", colour.letter("b"))
    builder.add_node("ask", colour.node(lambda state: {"l": [interrupt("sure?")]}))
    builder.add_edge(START, "a").add_edge("a", "b").add_edge("b", "ask")
    graph = builder.compile(checkpointer=saver, interrupt_before=["b"])
    colour.invoke(graph, {"l": []}, thread)
    result = colour.invoke(graph, Command(resume=True), thread)
    assert (result["l"], values(result["__interrupt__"])) == (["a", "b"], ["sure?"])
    assert colour.invoke(graph, Command(resume="yes"), thread) == {"l": ["a", "b", "yes"]}
    at_once = StateGraph(Log).add_node("ask", colour.node(lambda state: {"l": [interrupt("sure?")]}))
    with pytest.warns(PregelWarning, match="thread 'new' is empty"):
        empty = colour.invoke(
            at_once.add_edge(START, "ask").compile(checkpointer=saver),
            Command(resume=1),
            {"configurable": {"thread_id": "new"}},
        )
    assert values(empty["__interrupt__"]) == ["sure?"]


def test_after_covers_reapplied_tasks(colour: Colour, saver: Any, thread: Any) -> None:
    """amendments C9."""

    def ask(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q")]}

    builder = StateGraph(Log).add_node("done", colour.letter("done")).add_node("ask", colour.node(ask))
    builder.add_node("end", colour.letter("end"))
    builder.add_edge(START, "done").add_edge(START, "ask").add_edge(["done", "ask"], "end")
    graph = builder.compile(checkpointer=saver, interrupt_after=["done"])
    colour.invoke(graph, {"l": []}, thread)
    assert colour.invoke(graph, Command(resume="R"), thread) == {"l": ["R", "done"]}
    assert colour.invoke(graph, None, thread) == {"l": ["R", "done", "end"]}


# ------------------------------------------------------------------------------------------------- commands as input


def test_resume_with_an_update(colour: Colour, saver: Any, thread: Any) -> None:
    calls: list[Any] = []
    graph = asking(colour, saver, "q", calls=calls)
    colour.invoke(graph, {"l": ["in"]}, thread)
    result = colour.invoke(graph, Command(resume="R", update={"l": ["up"]}), thread)
    assert result == {"l": ["in", "up", "R", "after"]}
    assert calls == [["in"], ["in", "up"]]


def test_goto_runs_beside_what_is_pending(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, saver, "abc", interrupt_before=["b"])
    colour.invoke(graph, {"l": []}, thread)
    assert colour.invoke(graph, Command(goto=["c"]), thread) == {"l": ["a", "b", "c", "c"]}


def test_goto_on_a_finished_thread(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, saver, "abc")
    colour.invoke(graph, {"l": []}, thread)
    assert colour.invoke(graph, Command(goto="c", update={"l": ["up"]}), thread) == {"l": ["a", "b", "c", "up", "c"]}
    assert colour.invoke(graph, Command(goto=Send("b", None)), thread)["l"][-2:] == ["b", "c"]


def test_update_only_on_a_finished_thread(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, saver, "a")
    colour.invoke(graph, {"l": []}, thread)
    count = len(colour.history(graph, thread))
    assert colour.invoke(graph, Command(update={"l": ["up"]}), thread) == {"l": ["a", "up"]}
    assert len(colour.history(graph, thread)) == count
    assert colour.get_state(graph, thread).values == {"l": ["a", "up"]}


@pytest.mark.differs("engine.md 5.1 and 11, row 4: a command on a fresh thread is applied once")
def test_update_on_a_fresh_thread(colour: Colour, memory: Any, thread: Any) -> None:
    assert colour.invoke(chain(colour, memory, "ab"), Command(update={"l": ["z"]}), thread) == {"l": ["z", "a", "b"]}


def test_goto_on_a_fresh_thread_runs_beside_the_start_edges(colour: Colour, memory: Any, thread: Any) -> None:
    result = colour.invoke(chain(colour, memory, "ab"), Command(goto="b", update={"l": []}), thread)
    assert sorted(result["l"]) == ["a", "b", "b"]


def test_command_errors(colour: Colour, memory: Any, thread: Any) -> None:
    graph = chain(colour, memory, "ab")
    colour.invoke(graph, {"l": []}, thread)
    with pytest.raises(InvalidUpdateError):
        colour.invoke(graph, Command(graph=Command.PARENT, goto="a"), thread)
    with pytest.raises(TypeError):
        colour.invoke(graph, Command(goto=5), thread)


@pytest.mark.differs("engine.md 11, row 5: an empty command is empty input")
def test_empty_command(colour: Colour, memory: Any, thread: Any) -> None:
    graph = chain(colour, memory, "ab")
    with pytest.raises(EmptyInputError):
        colour.invoke(graph, Command(), thread)


# ------------------------------------------------------------------------------------------------------- nested ones


def test_interrupt_in_a_subgraph(colour: Colour, saver: Any, durability: Any, thread: Any) -> None:
    calls: list[Any] = []

    class Inner(TypedDict):
        x: Any

    def first(state: Inner) -> dict[str, Any]:
        calls.append("first")
        return {"x": "1"}

    def ask(state: Inner) -> dict[str, Any]:
        calls.append("ask")
        return {"x": interrupt("deep")}

    inner = StateGraph(Inner).add_node("first", colour.node(first)).add_node("ask", colour.node(ask))
    inner.add_edge(START, "first").add_edge("first", "ask")
    graph = StateGraph(LogX).add_node("sub", inner.compile()).add_edge(START, "sub").add_edge("sub", END)
    compiled = graph.compile(checkpointer=saver)
    options = {"durability": durability}
    result = colour.invoke(compiled, {"l": [], "x": "0"}, thread, **options)
    assert values(result["__interrupt__"]) == ["deep"]
    state = colour.get_state(compiled, thread, subgraphs=True)
    assert state.next == ("sub",)
    assert state.tasks[0].state.next == ("ask",)
    assert state.interrupts == state.tasks[0].state.interrupts == tuple(result["__interrupt__"])
    assert colour.invoke(compiled, Command(resume="R"), thread, **options) == {"l": [], "x": "R"}
    assert calls == ["first", "ask", "ask"]


def test_nested_interrupt_chunks(colour: Colour, memory: Any, thread: Any) -> None:
    inner = StateGraph(Log).add_node("ask", colour.node(lambda state: {"l": [interrupt("deep")]}))
    inner_graph = inner.add_edge(START, "ask").compile()
    graph = StateGraph(Log).add_node("sub", inner_graph).add_edge(START, "sub").compile(checkpointer=memory)
    chunks = colour.stream(graph, {"l": []}, thread, stream_mode="updates", subgraphs=True)
    assert [(len(ns), values(data["__interrupt__"])) for ns, data in chunks] == [(1, ["deep"]), (0, ["deep"])]
    assert chunks[0][1]["__interrupt__"] == chunks[1][1]["__interrupt__"]


def test_two_questions_in_parallel_subgraphs(colour: Colour, saver: Any, thread: Any) -> None:
    """amendments II.2 5.4: as many resumes as there are questions."""

    def ask(state: Log) -> dict[str, Any]:
        return {"l": [[interrupt("q1"), interrupt("q2")]]}

    def call(state: Log) -> Any:
        result = yield inner, {"l": []}
        return {"l": result["l"]}

    inner = StateGraph(Log).add_node("ask", colour.node(ask)).add_edge(START, "ask").compile()
    builder = StateGraph(Log).add_node("a", colour.script(call)).add_node("b", colour.script(call))
    graph = builder.add_edge(START, "a").add_edge(START, "b").compile(checkpointer=saver)
    result = colour.invoke(graph, {"l": []}, thread)
    resumes = 0
    while "__interrupt__" in result:
        asked = result["__interrupt__"][0]
        result = colour.invoke(graph, Command(resume={asked.id: f"{asked.value}!"}), thread)
        resumes += 1
    assert result == {"l": [["q1!", "q2!"], ["q1!", "q2!"]]}
    assert resumes == 4


def test_resume_in_a_later_step_starts_nested_graphs_fresh(colour: Colour, saver: Any, thread: Any) -> None:
    inner = StateGraph(Log).add_node("i", colour.letter("i")).add_edge(START, "i").compile()

    def use(state: Log) -> Any:
        result = yield inner, {"l": ["x"]}
        return {"l": [len(result["l"])]}

    def ask(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q")]}

    builder = StateGraph(Log).add_node("u1", colour.script(use)).add_node("ask", colour.node(ask))
    builder.add_node("u2", colour.script(use))
    builder.add_edge(START, "u1").add_edge("u1", "ask").add_edge("ask", "u2")
    graph = builder.compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    assert colour.invoke(graph, Command(resume="R"), thread) == {"l": [2, "R", 2]}
