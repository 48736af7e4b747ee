"""Failing, cancelling and running out of steps (engine.md 2.4 and 8.1 to 8.4)."""

import asyncio
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
from typing_extensions import TypedDict

from pregel.errors import (
    EmptyChannelError,
    EmptyInputError,
    GraphBubbleUp,
    GraphDrained,
    GraphInterrupt,
    GraphRecursionError,
    InvalidUpdateError,
    NodeCancelledError,
    NodeTimeoutError,
    ParentCommand,
)
from pregel.graph import START, StateGraph
from pregel.runtime import RunControl, Runtime
from pregel.types import Command, interrupt
from tests.checkpoint.plain import PlainSaver
from tests.support.scenarios import Colour, Gate, Log, LogX, refused, steps


def looping(colour: Colour, saver: Any = None, calls: list[str] | None = None) -> Any:
    builder = StateGraph(Log).add_node("a", colour.letter("a", calls))
    return builder.add_edge(START, "a").add_edge("a", "a").compile(checkpointer=saver)


def two(colour: Colour, saver: Any = None, **nodes: Any) -> Any:
    """All nodes side by side after START; generator functions are scripts."""
    builder = StateGraph(Log)
    for name, node in nodes.items():
        builder.add_node(name, node).add_edge(START, name)
    return builder.compile(checkpointer=saver)


# --------------------------------------------------------------------------------------------------- recursion limit


@pytest.mark.parametrize(("limit", "ran", "fails"), [(1, 1, True), (2, 2, True), (3, 3, True), (4, 3, False)])
def test_recursion_limit_of_a_chain(colour: Colour, limit: int, ran: int, fails: bool) -> None:
    calls: list[str] = []
    builder = StateGraph(Log)
    before = START
    for name in "abc":
        builder.add_node(name, colour.letter(name, calls)).add_edge(before, name)
        before = name
    graph = builder.compile()
    if fails:
        with refused(GraphRecursionError, limit, "recursion_limit"):
            colour.invoke(graph, {"l": []}, {"recursion_limit": limit})
    else:
        colour.invoke(graph, {"l": []}, {"recursion_limit": limit})
    assert len(calls) == ran


def test_completed_steps_stay(colour: Colour, saver: Any, durability: Any, thread: Any) -> None:
    calls: list[str] = []
    graph = looping(colour, saver, calls)
    config = {**thread, "recursion_limit": 3}
    with pytest.raises(GraphRecursionError):
        colour.invoke(graph, {"l": ["in"]}, config, durability=durability)
    assert calls == ["a"] * 3
    state = colour.get_state(graph, thread)
    assert (state.values, state.next) == ({"l": ["in", "a", "a", "a"]}, ("a",))
    with pytest.raises(GraphRecursionError):
        colour.invoke(graph, None, config, durability=durability)
    assert len(calls) > 3  # engine.md 11, row 14: how many more is free


@pytest.mark.parametrize("streams", [False, True])
def test_the_limit_error_says_how_to_go_on(
    colour: Colour, saver: Any, durability: Any, thread: Any, streams: bool
) -> None:
    """Promise 70."""

    def count(state: LogX) -> Any:
        return Command(update={"l": ["a"]}, goto="a" if len(state["l"]) < 7 else "__end__")

    def build(saver: Any) -> Any:
        return StateGraph(LogX).add_node("a", colour.node(count)).add_edge(START, "a").compile(checkpointer=saver)

    graph = build(saver)
    config = {"configurable": {**thread["configurable"], "user": "u"}, "recursion_limit": 3, "tags": ["t"]}
    if streams:
        _, error = colour.outcome(graph, {"l": []}, config, durability=durability, stream_mode="updates")
    else:
        with pytest.raises(GraphRecursionError) as caught:
            colour.invoke(graph, {"l": []}, config, durability=durability)
        error = caught.value
    assert isinstance(error, GraphRecursionError)
    assert error.values == {"l": ["a"] * 3}
    assert error.config == {"configurable": {"thread_id": "1", "user": "u"}}
    assert (error.limit, error.ready) == (3, ("a",))
    assert "error.config" in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.args, copy.values, copy.config, copy.limit, copy.ready) == (
        error.args, error.values, error.config, error.limit, error.ready
    )  # fmt: skip
    assert colour.invoke(graph, None, error.config, durability=durability) == {"l": ["a"] * 8}
    with pytest.raises(GraphRecursionError) as caught:
        colour.invoke(build(None), {"l": []}, {"recursion_limit": 3})
    assert (caught.value.values, caught.value.config) == ({"l": ["a"] * 3}, None)
    assert "error.config" not in str(caught.value)


def test_the_limit_of_a_nested_graph_names_the_thread_of_the_root(
    colour: Colour, saver: Any, durability: Any, thread: Any
) -> None:
    calls: list[str] = []

    def count(state: LogX) -> Any:
        calls.append("a")
        return Command(update={"x": state.get("x", 0) + 1}, goto="a" if state.get("x", 0) < 12 else "__end__")

    inner = StateGraph(LogX).add_node("a", colour.node(count)).add_edge(START, "a").compile()
    graph = StateGraph(LogX).add_node("sub", inner).add_edge(START, "sub").compile(checkpointer=saver)
    with pytest.raises(GraphRecursionError) as caught:
        colour.invoke(graph, {"l": ["in"]}, {**thread, "recursion_limit": 5}, durability=durability)
    error = caught.value
    assert error.values == {"l": ["in"], "x": 5}
    assert error.config == thread
    assert colour.get_state(graph, thread).next == ("sub",)
    assert colour.invoke(graph, None, error.config, durability=durability)["x"] == 13
    assert len(calls) == 13


def test_chunks_come_before_the_limit_error(colour: Colour) -> None:
    chunks, error = colour.outcome(looping(colour), {"l": []}, {"recursion_limit": 2}, stream_mode="values")
    assert type(error) is GraphRecursionError
    assert isinstance(error, RecursionError)
    assert [chunk["l"] for chunk in chunks] == [[], ["a"], ["a", "a"]]


def test_a_checkpoint_event_for_the_last_step(colour: Colour, memory: Any, thread: Any) -> None:
    """engine.md 10, row 6."""
    config = {**thread, "recursion_limit": 2}
    chunks, error = colour.outcome(looping(colour, memory), {"l": []}, config, stream_mode="checkpoints")
    assert type(error) is GraphRecursionError
    assert [chunk["metadata"]["step"] for chunk in chunks] == [-1, 0, 1, 2]


# ------------------------------------------------------------------------------------------------------ failed nodes


def test_the_original_exception_comes_out(colour: Colour) -> None:
    class Mine(Exception): ...

    error = Mine("boom", 1)

    def n(state: Log) -> Any:
        raise error

    with pytest.raises(Mine) as caught:
        colour.invoke(two(colour, bad=colour.node(n)), {"l": []})
    assert caught.value is error
    assert any("'bad'" in note for note in error.__notes__)


def test_failure_of_a_reducer(colour: Colour, saver: Any, thread: Any) -> None:
    graph = two(colour, saver, bad=colour.node(lambda state: {"l": 5}))
    with pytest.raises(TypeError):
        colour.invoke(graph, {"l": []}, thread)
    assert steps(colour.history(graph, thread)) == [("loop", 0), ("input", -1)]


def test_failure_of_an_input_mapper_stops_before_any_task(colour: Colour) -> None:
    calls: list[str] = []

    @dataclass
    class Strict:
        x: Any = None

        def __post_init__(self) -> None:
            if self.x == "bad":
                raise ValueError("refused x")

    builder = StateGraph(LogX).add_node("ok", colour.letter("ok", calls))
    builder.add_node("strict", colour.node(lambda state: None), input_schema=Strict)
    graph = builder.add_edge(START, "ok").add_edge(START, "strict").compile()
    with pytest.raises(ValueError) as caught:
        colour.invoke(graph, {"l": [], "x": "bad"})
    assert calls == []
    assert any("'strict'" in note for note in caught.value.__notes__)


# ------------------------------------------------------------------------------------------------------ cancellation


def cancelled(graph: Any, started: Gate, config: Any, **kw: Any) -> None:
    """Start a run, cancel it once `started` opened, and see the cancellation come out."""

    async def main() -> None:
        call = asyncio.create_task(graph.ainvoke({"l": ["in"]}, config, **kw))
        await started.wait_async()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())


@pytest.mark.parametrize("colour", ["async"], indirect=True)
def test_closing_an_async_stream_cancels_its_nodes(colour: Colour, saver: Any, thread: Any) -> None:
    seen: list[str] = []

    async def wait(state: Log) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    graph = two(colour, saver, ok=colour.letter("ok"), wait=wait)

    async def main() -> None:
        stream = graph.astream({"l": ["in"]}, thread, stream_mode="updates")
        assert await anext(stream) == {"ok": {"l": ["ok"]}}
        await stream.aclose()

    asyncio.run(main())
    assert seen == ["cancelled"]
    assert colour.get_state(graph, thread).values == {"l": ["in", "ok"]}


@pytest.mark.parametrize("colour", ["async"], indirect=True)
def test_nodes_after_a_cancelled_one_never_start(colour: Colour, memory: Any, thread: Any) -> None:
    started, calls = Gate(), []  # type: ignore[var-annotated]

    async def wait(state: Log) -> None:
        started.set()
        await asyncio.Event().wait()

    builder = StateGraph(Log).add_node("wait", wait).add_node("after", colour.letter("after", calls))
    graph = builder.add_edge(START, "wait").add_edge("wait", "after").compile(checkpointer=memory)
    cancelled(graph, started, thread)
    assert calls == []


# ------------------------------------------------------------------------------------------------------ step timeout


def test_step_timeout_not_reached(colour: Colour) -> None:
    graph = two(colour, ok=colour.letter("ok"))
    graph.step_timeout = 60
    assert colour.invoke(graph, {"l": []}) == {"l": ["ok"]}


# ------------------------------------------------------------------------------------------------------------- drain


def draining(colour: Colour, saver: Any, **options: Any) -> Any:
    """a asks for the end of the run → b → c."""

    def a(state: Log, runtime: Runtime[Any]) -> dict[str, Any]:
        runtime.control.request_drain("enough")
        return {"l": [runtime.drain_requested, runtime.drain_reason]}

    builder = StateGraph(Log).add_node("a", colour.node(a))
    builder.add_node("b", colour.letter("b")).add_node("c", colour.letter("c"))
    return builder.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c").compile(checkpointer=saver, **options)


def test_drain_stops_at_the_next_step(colour: Colour, saver: Any, durability: Any, thread: Any) -> None:
    graph = draining(colour, saver)
    with refused(GraphDrained, "enough") as caught:
        colour.invoke(graph, {"l": []}, thread, durability=durability)
    assert caught.value.reason == "enough"
    state = colour.get_state(graph, thread)
    assert (state.values, state.next) == ({"l": [True, "enough"]}, ("b",))
    assert colour.invoke(graph, None, thread, durability=durability) == {"l": [True, "enough", "b", "c"]}


def test_drain_from_outside(colour: Colour, memory: Any, thread: Any) -> None:
    control = RunControl()
    control.request_drain("first")
    control.request_drain("last")
    assert (control.drain_requested, control.drain_reason) == (True, "last")
    graph = looping(colour, memory)
    with refused(GraphDrained, "last"):
        colour.invoke(graph, {"l": []}, thread, control=control)
    assert colour.get_state(graph, thread).next == ("__start__",)


def test_drain_in_the_last_step_ends_normally(colour: Colour) -> None:
    control = RunControl()

    def a(state: Log) -> dict[str, Any]:
        control.request_drain()
        return {"l": ["a"]}

    graph = StateGraph(Log).add_node("a", colour.node(a)).add_edge(START, "a").compile()
    assert colour.invoke(graph, {"l": []}, control=control) == {"l": ["a"]}
    assert control.drain_requested


def test_a_breakpoint_wins_over_a_drain(colour: Colour, saver: Any, thread: Any) -> None:
    """engine.md 10, row 5."""
    graph = draining(colour, saver, interrupt_before=["b"])
    assert colour.invoke(graph, {"l": []}, thread) == {"l": [True, "enough"]}
    assert colour.invoke(graph, None, thread) == {"l": [True, "enough", "b", "c"]}


# --------------------------------------------------------------------------------------------------------- hierarchy


def test_kinds_of_errors() -> None:
    assert issubclass(GraphRecursionError, RecursionError)
    for kind in (GraphInterrupt, ParentCommand, GraphDrained):
        assert issubclass(kind, GraphBubbleUp)
    for kind in (InvalidUpdateError, EmptyInputError, EmptyChannelError, NodeTimeoutError, NodeCancelledError):
        assert issubclass(kind, Exception)
        assert not issubclass(kind, (GraphBubbleUp, TimeoutError, asyncio.CancelledError))


def test_errors_of_parallel_tasks_in_a_nested_graph(colour: Colour) -> None:
    class Inner(TypedDict):
        x: Any

    def bad(state: Inner) -> Any:
        raise LookupError("deep")

    inner = StateGraph(Inner).add_node("bad", colour.node(bad)).add_edge(START, "bad").compile()
    graph = StateGraph(LogX).add_node("sub", inner).add_edge(START, "sub").compile()
    with refused(LookupError, "deep"):
        colour.invoke(graph, {"l": [], "x": 1})


# --------------------------------------------------------------------------------------- failures that are handed over


@pytest.mark.parametrize("is_plain", [False, True], ids=["native", "four methods"])
def test_a_failure_that_was_handed_over_is_not_run_again(
    colour: Colour, saver: Any, thread: Any, durability: Any, is_plain: bool
) -> None:
    """The handler asks; when it is answered, in whatever process, only the handler goes on."""
    calls: list[str] = []
    if is_plain:
        saver = PlainSaver()

    def bad(state: Log) -> Any:
        calls.append("bad")
        raise ValueError("boom")

    def handle(state: Log) -> Any:
        calls.append("handle")
        return {"l": [interrupt("what now?")]}

    def build() -> Any:
        builder = StateGraph(Log).add_node("bad", colour.node(bad), error_handler=colour.node(handle))
        return builder.add_edge(START, "bad").compile(checkpointer=saver)

    result = colour.invoke(build(), {"l": []}, thread, durability=durability)
    assert [question.value for question in result["__interrupt__"]] == ["what now?"]
    (failed,) = colour.get_state(build(), thread).tasks
    assert (failed.name, failed.result) == ("bad", None)
    assert "boom" in str(failed.error)
    assert colour.invoke(build(), Command(resume="go on"), thread, durability=durability) == {"l": ["go on"]}
    assert calls == ["bad", "handle", "handle"]
