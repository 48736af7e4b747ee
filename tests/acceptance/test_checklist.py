"""The acceptance checklist of the engine (engine.md 12), one test per row, named after its number.

Rows told elsewhere in more detail keep their short form here, so that the list is complete in one place.
"""

import asyncio
import operator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict

from checkpoint.memory import InMemorySaver
from pregel.errors import GraphRecursionError, InvalidUpdateError
from pregel.graph import END, START, StateGraph
from pregel.types import Command, Send, StateUpdate, interrupt
from tests.support.scenarios import Colour, Gate, Log, LogX, checkpoint_id, diagnosed, namespaces, refused, steps


def chain(colour: Colour, *names: str, calls: list[str] | None = None, **options: Any) -> Any:
    builder = StateGraph(Log)
    before = START
    for name in names:
        builder.add_node(name, colour.letter(name, calls))
        builder.add_edge(before, name)
        before = name
    builder.add_edge(before, END)
    return builder.compile(**options)


def test_01_pull_tasks_are_applied_by_name_then_sends_by_index(colour: Colour) -> None:
    builder = StateGraph(Log)
    builder.add_node("z", colour.letter("z"))
    builder.add_node("a", colour.letter("a"))

    def w(arg: int) -> dict[str, Any]:
        return {"l": [f"w{arg}"]}

    builder.add_node("w", colour.node(w))
    builder.add_conditional_edges(START, lambda state: ["z", "a", Send("w", 1), Send("w", 0)])
    graph = builder.compile()
    assert colour.invoke(graph, {"l": ["in"]}) == {"l": ["in", "a", "z", "w1", "w0"]}
    started = [e["name"] for e in colour.stream(graph, {"l": ["in"]}, stream_mode="tasks") if "input" in e]
    assert started == ["w", "w", "a", "z"]


def test_02_list_edge_waits_for_both(colour: Colour) -> None:
    builder = StateGraph(Log)
    for name in "abj":
        builder.add_node(name, colour.letter(name))
    builder.add_edge(START, "a").add_edge("a", "b").add_edge(["a", "b"], "j")
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["a", "b", "j"]}


def test_03_partial_barrier_keeps_its_names(colour: Colour) -> None:
    builder = StateGraph(Log)
    for name in "abcj":
        builder.add_node(name, colour.letter(name))
    builder.add_edge(START, "a").add_edge(START, "b").add_edge("b", "c").add_edge("a", "j")
    builder.add_edge(["a", "c"], "j")
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["a", "b", "c", "j", "j"]}


def test_04_deferred_node_runs_once_at_the_end(colour: Colour) -> None:
    builder = StateGraph(Log)
    for name in ("a", "b", "b2"):
        builder.add_node(name, colour.letter(name))
    builder.add_node("d", colour.letter("d"), defer=True)
    builder.add_edge(START, "a").add_edge("a", "b").add_edge("b", "b2").add_edge("a", "d").add_edge("b2", "d")
    assert colour.invoke(builder.compile(), {"l": []}) == {"l": ["a", "b", "b2", "d"]}


def test_05_goto_adds_to_static_edges(colour: Colour) -> None:
    builder = StateGraph(Log)
    builder.add_node("a", colour.node(lambda state: Command(update={"l": ["a"]}, goto="c")))
    builder.add_node("b", colour.letter("b"))
    builder.add_node("c", colour.letter("c"))
    builder.add_edge(START, "a").add_edge("a", "b")
    graph = builder.compile()
    with diagnosed("'b'", "'c'"):  # design.md D9
        assert colour.invoke(graph, {"l": []}) == {"l": ["a", "b", "c"]}
    events = colour.stream(graph, {"l": []}, stream_mode="debug")
    assert {e["payload"]["name"]: e["step"] for e in events} == {"a": 1, "b": 2, "c": 2}


def test_06_two_plain_writes_in_one_step_are_refused(colour: Colour) -> None:
    builder = StateGraph(LogX)
    builder.add_node("a", colour.node(lambda state: {"x": 1}))
    builder.add_node("b", colour.node(lambda state: {"x": 2}))
    builder.add_edge(START, "a").add_edge(START, "b")
    with refused(InvalidUpdateError, "x"):
        colour.invoke(builder.compile(), {"l": []})


def test_07_recursion_limit(colour: Colour) -> None:
    calls: list[str] = []
    graph = chain(colour, "a", "b", "c", calls=calls)
    with refused(GraphRecursionError, 3):
        colour.invoke(graph, {"l": []}, {"recursion_limit": 3})
    assert calls == ["a", "b", "c"]
    assert colour.invoke(graph, {"l": []}, {"recursion_limit": 4}) == {"l": ["a", "b", "c"]}


def ok_and_question(colour: Colour, saver: Any, calls: list[str] | None = None) -> Any:
    def q(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q?")]}

    builder = StateGraph(Log)
    builder.add_node("ok", colour.letter("ok", calls))
    builder.add_node("q", colour.node(q))
    builder.add_edge(START, "ok").add_edge(START, "q")
    return builder.compile(checkpointer=saver)


def test_08_interrupt_beside_a_finished_sibling(colour: Colour, saver: Any, thread: Any) -> None:
    calls: list[str] = []
    graph = ok_and_question(colour, saver, calls)
    result = colour.invoke(graph, {"l": ["in"]}, thread)
    assert result["l"] == ["in", "ok"]
    assert [i.value for i in result["__interrupt__"]] == ["q?"]
    state = colour.get_state(graph, thread)
    assert state.next == ("q",)
    assert state.values == {"l": ["in", "ok"]}
    chunks = colour.stream(graph, Command(resume="R"), thread, stream_mode=["updates", "values"])
    assert chunks == [
        ("values", {"l": ["in"]}),
        ("updates", {"ok": {"l": ["ok"]}, "__metadata__": {"cached": True}}),
        ("updates", {"q": {"l": ["R"]}}),
        ("values", {"l": ["in", "ok", "R"]}),
    ]
    assert calls == ["ok"]


def fast_bad_slow(colour: Colour, saver: Any, calls: list[str], release: Gate) -> Any:
    fast_done, failing = Gate(), [True]

    def fast(state: Log) -> Any:
        calls.append("fast")
        fast_done.set()
        return {"l": ["fast"]}

    def bad(state: Log) -> Any:
        calls.append("bad")
        yield fast_done
        if failing:
            failing.clear()
            release.set()
            raise ValueError("boom")
        return {"l": ["bad"]}

    def slow(state: Log) -> Any:
        calls.append("slow")
        if failing and colour.is_async:
            yield Gate()  # never opens: only a cancellation ends it
        yield release
        return {"l": ["slow"]}

    builder = StateGraph(Log)
    builder.add_node("fast", colour.node(fast))
    builder.add_node("bad", colour.script(bad))
    builder.add_node("slow", colour.script(slow))
    for name in ("fast", "bad", "slow"):
        builder.add_edge(START, name)
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("colour", ["sync"], indirect=True)
def test_09_sync_failure_waits_for_siblings(colour: Colour, saver: Any, thread: Any) -> None:
    calls: list[str] = []
    graph = fast_bad_slow(colour, saver, calls, Gate())
    with refused(ValueError, "boom"):
        colour.invoke(graph, {"l": ["in"]}, thread)
    state = colour.get_state(graph, thread)
    assert state.values == {"l": ["in", "fast", "slow"]}
    assert state.next == ("bad",)
    del calls[:]
    assert colour.invoke(graph, None, thread) == {"l": ["in", "bad", "fast", "slow"]}
    assert calls == ["bad"]


@pytest.mark.parametrize("colour", ["async"], indirect=True)
def test_10_async_failure_cancels_siblings(colour: Colour, saver: Any, thread: Any) -> None:
    calls: list[str] = []
    graph = fast_bad_slow(colour, saver, calls, Gate())
    with refused(ValueError, "boom"):
        colour.invoke(graph, {"l": ["in"]}, thread)
    state = colour.get_state(graph, thread)
    assert state.values == {"l": ["in", "fast"]}
    assert state.next == ("bad", "slow")
    del calls[:]
    assert colour.invoke(graph, None, thread) == {"l": ["in", "bad", "fast", "slow"]}
    assert sorted(calls) == ["bad", "slow"]


@pytest.mark.differs("design.md contradiction i: a cancelled sibling is pending and has no stored error")
@pytest.mark.parametrize("colour", ["async"], indirect=True)
def test_10_cancelled_sibling_is_pending_without_error(colour: Colour, memory: Any, thread: Any) -> None:
    graph = fast_bad_slow(colour, memory, [], Gate())
    with refused(ValueError, "boom"):
        colour.invoke(graph, {"l": ["in"]}, thread)
    errors = {task.name: task.error for task in colour.get_state(graph, thread).tasks}
    assert errors == {"fast": None, "bad": "ValueError('boom')", "slow": None}


def test_11_parallel_interrupts_are_answered_by_id(colour: Colour, saver: Any, thread: Any) -> None:
    def ask(name: str) -> Any:
        return colour.node(lambda state: {"l": [interrupt(name)]})

    builder = StateGraph(Log)
    builder.add_node("a", ask("a")).add_node("b", ask("b"))
    builder.add_edge(START, "a").add_edge(START, "b")
    graph = builder.compile(checkpointer=saver)
    result = colour.invoke(graph, {"l": ["in"]}, thread)
    ids = {i.value: i.id for i in result["__interrupt__"]}
    assert set(ids) == {"a", "b"}
    assert ids["a"] != ids["b"]
    with pytest.raises(RuntimeError):
        colour.invoke(graph, Command(resume="x"), thread)
    result = colour.invoke(graph, Command(resume={ids["a"]: "A"}), thread)
    assert result["l"] == ["in", "A"]
    assert [(i.value, i.id) for i in result["__interrupt__"]] == [("b", ids["b"])]
    assert colour.get_state(graph, thread).next == ("b",)
    assert colour.invoke(graph, Command(resume={ids["b"]: "B"}), thread) == {"l": ["in", "A", "B"]}


def test_12_two_questions_in_one_node(colour: Colour, saver: Any, thread: Any) -> None:
    starts: list[int] = []

    def n(state: Log) -> dict[str, Any]:
        starts.append(1)
        first = interrupt("q1")
        second = interrupt("q2")
        return {"l": [first, second]}

    builder = StateGraph(Log)
    builder.add_node("n", colour.node(n)).add_edge(START, "n")
    graph = builder.compile(checkpointer=saver)
    first = colour.invoke(graph, {"l": ["in"]}, thread)
    assert (first["l"], [i.value for i in first["__interrupt__"]]) == (["in"], ["q1"])
    second = colour.invoke(graph, Command(resume="A"), thread)
    assert (second["l"], [i.value for i in second["__interrupt__"]]) == (["in"], ["q2"])
    assert first["__interrupt__"][0].id != second["__interrupt__"][0].id  # engine.md 10, row 1
    assert colour.invoke(graph, Command(resume="B"), thread) == {"l": ["in", "A", "B"]}
    assert len(starts) == 3


def test_13_replay_forks_and_runs_what_follows(colour: Colour, saver: Any, thread: Any) -> None:
    calls: list[str] = []
    graph = chain(colour, "a", "b", "c", calls=calls, checkpointer=saver)
    colour.invoke(graph, {"l": ["in"]}, thread)
    before = colour.history(graph, thread)
    before_b = next(s for s in before if s.next == ("b",))
    del calls[:]
    assert colour.invoke(graph, None, before_b.config) == {"l": ["in", "a", "b", "c"]}
    assert calls == ["b", "c"]
    after = colour.history(graph, thread)
    added = after[: len(after) - len(before)]
    assert steps(added) == [("loop", 4), ("loop", 3), ("fork", 2)]
    assert added[-1].parent_config == before_b.config
    assert after[len(added) :] == before


def test_14_update_an_old_checkpoint_and_continue(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, "a", "b", "c", checkpointer=saver)
    colour.invoke(graph, {"l": ["in"]}, thread)
    before_b = next(s for s in colour.history(graph, thread) if s.next == ("b",))
    branch = colour.update_state(graph, before_b.config, {"l": ["F"]})
    assert colour.get_state(graph, branch).next == ("b",)
    assert colour.invoke(graph, None, branch) == {"l": ["in", "a", "F", "b", "c"]}
    assert [source for source, _ in steps(colour.history(graph, thread))].count("fork") == 0


def test_15_exit_durability_stores_one_checkpoint_per_run(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, "a", "b", checkpointer=saver)
    colour.invoke(graph, {"l": ["1"]}, thread, durability="exit")
    colour.invoke(graph, {"l": ["2"]}, thread, durability="exit")
    newest, oldest = colour.history(graph, thread)
    assert newest.values == {"l": ["1", "a", "b", "2", "a", "b"]}
    assert oldest.values == {"l": ["1", "a", "b"]}
    assert newest.parent_config == oldest.config
    assert oldest.parent_config is None


def test_16_subgraph_node_returns_full_values(colour: Colour, saver: Any, thread: Any) -> None:
    inner = StateGraph(Log).add_node("i", colour.letter("i")).add_edge(START, "i").compile()
    graph = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").compile(checkpointer=saver)
    assert colour.invoke(graph, {"l": ["in"]}, thread) == {"l": ["in", "in", "i"]}
    nested = [c for c in saver.list(thread) if c.config["configurable"]["checkpoint_ns"]]
    assert {tuple(namespaces(c.config)) for c in nested} == {("sub:*",)}
    assert sorted(c.metadata["step"] for c in nested) == [-1, 0, 1]
    assert all(set(c.metadata["parents"]) == {""} for c in nested)


def test_17_two_calls_in_one_node_get_numbered_namespaces(colour: Colour, saver: Any, thread: Any) -> None:
    inner = StateGraph(Log).add_node("i", colour.letter("i")).add_edge(START, "i").compile()

    def n(state: Log) -> Any:
        first = yield inner, {"l": ["x"]}
        second = yield inner, {"l": ["y"]}
        return {"l": first["l"] + second["l"]}

    graph = StateGraph(Log).add_node("n", colour.script(n)).add_edge(START, "n").compile(checkpointer=saver)
    assert colour.invoke(graph, {"l": []}, thread) == {"l": ["x", "i", "y", "i"]}
    found = {tuple(namespaces(c.config)) for c in saver.list(thread)}
    assert found == {(), ("n:*",), ("n:*", "1")}


def test_18_stateful_subgraph_accumulates(colour: Colour, saver: Any, thread: Any) -> None:
    class Inner(TypedDict):
        m: Annotated[list[Any], operator.add]

    def n(state: Log) -> Any:
        result = yield inner, {"m": [state["l"][-1]]}
        return {"l": [list(result["m"])]}

    inner_node = colour.node(lambda state: {"m": ["i"]})
    inner = StateGraph(Inner).add_node("i", inner_node).add_edge(START, "i").compile(checkpointer=True)
    graph = StateGraph(Log).add_node("sub", colour.script(n)).add_edge(START, "sub").compile(checkpointer=saver)
    assert colour.invoke(graph, {"l": ["1"]}, thread)["l"][-1] == ["1", "i"]
    assert colour.invoke(graph, {"l": ["2"]}, thread)["l"][-1] == ["1", "i", "2", "i"]
    nested = [c for c in saver.list(thread) if c.config["configurable"]["checkpoint_ns"]]
    assert {c.config["configurable"]["checkpoint_ns"] for c in nested} == {"sub"}
    assert sorted(c.metadata["step"] for c in nested) == [-1, 0, 1, 2, 3, 4]


def test_19_parent_goto_adds_to_static_edges(colour: Colour, thread: Any) -> None:
    leave = colour.node(lambda state: Command(graph=Command.PARENT, goto="other", update={"l": ["up"]}))
    inner = StateGraph(Log).add_node("i", leave).add_edge(START, "i").compile()
    builder = StateGraph(Log).add_node("sub", inner)
    builder.add_node("other", colour.letter("other")).add_node("nxt", colour.letter("nxt"))
    builder.add_edge(START, "sub").add_edge("sub", "nxt")
    with diagnosed("'sub'", "'nxt'"):  # design.md D9
        assert colour.invoke(builder.compile(), {"l": ["in"]}) == {"l": ["in", "up", "nxt", "other"]}


def test_20_addressed_state_is_the_start_of_the_step(colour: Colour, saver: Any, thread: Any) -> None:
    graph = ok_and_question(colour, saver)
    colour.invoke(graph, {"l": ["in"]}, thread)
    latest = colour.get_state(graph, thread)
    addressed = colour.get_state(graph, latest.config)
    assert (latest.values, latest.next) == ({"l": ["in", "ok"]}, ("q",))
    assert (addressed.values, addressed.next) == ({"l": ["in"]}, ("ok", "q"))


class Model(BaseModel):
    x: int


def test_21_bad_input_of_a_model_state_is_noted(colour: Colour) -> None:
    graph = StateGraph(Model).add_node("a", colour.node(lambda state: {})).add_edge(START, "a").compile()
    with pytest.raises(ValidationError) as caught:
        colour.invoke(graph, {"x": "no"})
    notes = " ".join(caught.value.__notes__)
    assert "'a'" in notes
    assert "('__pregel_pull', 'a')" in notes


def test_22_last_output_of_a_model_state_is_not_validated(colour: Colour) -> None:
    node = colour.node(lambda state: {"x": "not-an-int"})
    graph = StateGraph(Model).add_node("a", node).add_edge(START, "a").compile()
    assert colour.invoke(graph, {"x": 1}) == {"x": "not-an-int"}


class Private(TypedDict):
    p: str


def test_23_private_schema_between_two_nodes(colour: Colour, saver: Any, thread: Any) -> None:
    def n1(state: Log) -> Private:
        return {"p": "secret"}

    def n2(state: Private) -> dict[str, Any]:
        return {"l": [state["p"]]}

    builder = StateGraph(Log, output_schema=Log)
    builder.add_node("n1", colour.node(n1)).add_node("n2", colour.node(n2))
    builder.add_edge(START, "n1").add_edge("n1", "n2")
    graph = builder.compile(checkpointer=saver)
    assert colour.invoke(graph, {"l": []}, thread) == {"l": ["secret"]}
    assert colour.stream(graph, {"l": []}, stream_mode="values", config={"configurable": {"thread_id": "2"}})[-1] == {
        "l": ["secret"],
        "p": "secret",
    }
    assert colour.get_state(graph, thread).values == {"l": ["secret"], "p": "secret"}


def test_24_star_stops_before_each_user_node(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, "a", "b", checkpointer=saver, interrupt_before="*")
    assert colour.invoke(graph, {"l": ["in"]}, thread) == {"l": ["in"]}
    assert colour.get_state(graph, thread).next == ("a",)
    assert colour.invoke(graph, None, thread) == {"l": ["in", "a"]}
    assert colour.get_state(graph, thread).next == ("b",)
    assert colour.invoke(graph, None, thread) == {"l": ["in", "a", "b"]}
    assert colour.get_state(graph, thread).next == ()


def test_25_error_handler_replaces_the_failed_node(colour: Colour) -> None:
    def f(state: Log) -> Any:
        raise ValueError("boom")

    handler = colour.node(lambda state: {"l": ["handled"]})
    builder = StateGraph(Log).add_node("f", colour.node(f), error_handler=handler)
    builder.add_node("nxt", colour.letter("nxt")).add_edge(START, "f").add_edge("f", "nxt")
    assert colour.invoke(builder.compile(), {"l": ["in"]}) == {"l": ["in", "handled"]}


def test_26_new_input_discards_a_finished_sibling(colour: Colour, saver: Any, thread: Any) -> None:
    calls: list[str] = []
    asking = [True]

    def q(state: Log) -> dict[str, Any]:
        if asking:
            interrupt("q?")
        return {"l": ["q"]}

    builder = StateGraph(Log).add_node("ok", colour.letter("ok", calls)).add_node("q", colour.node(q))
    builder.add_edge(START, "ok").add_edge(START, "q")
    graph = builder.compile(checkpointer=saver)
    colour.invoke(graph, {"l": ["in"]}, thread)
    asking.clear()
    assert colour.invoke(graph, {"l": ["in2"]}, thread) == {"l": ["in", "in2", "ok", "q"]}
    assert calls == ["ok", "ok"]


class Total(TypedDict):
    n: Annotated[int, operator.add]


def test_27_replay_ignores_pending_writes_of_the_original(colour: Colour, saver: Any, thread: Any) -> None:
    failing = [True]

    def hundred(state: Total) -> dict[str, Any]:
        if failing:
            raise ValueError("boom")
        return {"n": 100}

    calls: list[str] = []

    def twenty(state: Total) -> dict[str, Any]:
        calls.append("twenty")
        return {"n": 20}

    builder = StateGraph(Total)
    builder.add_node("one", colour.node(lambda state: {"n": 1}))
    builder.add_node("twenty", colour.node(twenty)).add_node("hundred", colour.node(hundred))
    builder.add_edge(START, "one").add_edge("one", "twenty").add_edge("one", "hundred")
    graph = builder.compile(checkpointer=saver)
    with refused(ValueError, "boom"):
        colour.invoke(graph, {"n": 0}, thread)
    failing.clear()
    open_step = colour.history(graph, thread)[0]
    assert colour.invoke(graph, None, thread) == {"n": 121}
    del calls[:]
    assert colour.invoke(graph, None, open_step.config) == {"n": 121}
    assert calls == ["twenty"]


def test_28_bulk_update_reproduces_a_run(colour: Colour, saver: Any) -> None:
    graph = chain(colour, "a", "b", checkpointer=saver)
    real: Any = {"configurable": {"thread_id": "real"}}
    made: Any = {"configurable": {"thread_id": "made"}}
    colour.invoke(graph, {"l": ["in"]}, real)
    colour.bulk_update_state(
        graph,
        made,
        [
            [StateUpdate({"l": ["in"]}, "__input__")],
            [StateUpdate({"l": ["in"]}, "__start__")],
            [StateUpdate({"l": ["a"]}, "a")],
            [StateUpdate({"l": ["b"]}, "b")],
        ],
    )

    def shape(config: Any) -> list[Any]:
        entries = colour.history(graph, config)
        return [(e.values, e.next, e.metadata["step"], [(t.name, t.result) for t in e.tasks]) for e in entries]

    assert shape(made) == shape(real)
    assert len(shape(real)) == 4


@pytest.mark.differs("design.md contradiction h, D29: leaving a stream early does not wait for running bodies")
@pytest.mark.parametrize("colour", ["sync"], indirect=True)
def test_29_leaving_a_stream_early_does_not_wait(colour: Colour, saver: Any, thread: Any) -> None:
    release, stuck = Gate(), Gate()

    def slow(state: Log) -> dict[str, Any]:
        try:
            release.wait()
        except TimeoutError:
            stuck.set()
        return {"l": ["slow"]}

    builder = StateGraph(Log).add_node("fast", colour.letter("fast")).add_node("slow", slow)
    builder.add_edge(START, "fast").add_edge(START, "slow")
    graph = builder.compile(checkpointer=saver)
    stream = graph.stream({"l": ["in"]}, thread, stream_mode="updates")
    assert next(stream) == {"fast": {"l": ["fast"]}}
    stream.close()
    assert not stuck._flag.is_set()
    state = colour.get_state(graph, thread)
    release.set()
    assert (state.values, state.next) == ({"l": ["in", "fast"]}, ("slow",))


def test_30_cancel_finishes_a_slow_exit_save(thread: Any) -> None:
    class SlowSaver(InMemorySaver):
        def __init__(self) -> None:
            super().__init__()
            self.entered: Any = None
            self.release: Any = None
            self.stored = 0

        async def aput(self, *args: Any, **kw: Any) -> Any:
            self.entered.set()
            await self.release.wait()
            stored = await super().aput(*args, **kw)
            self.stored += 1
            return stored

    saver = SlowSaver()

    async def run() -> None:
        started = asyncio.Event()
        saver.entered, saver.release = asyncio.Event(), asyncio.Event()

        async def wait(state: Log) -> None:
            started.set()
            await asyncio.Event().wait()

        graph = StateGraph(Log).add_node("wait", wait).add_edge(START, "wait").compile(checkpointer=saver)
        call = asyncio.create_task(graph.ainvoke({"l": ["in"]}, thread, durability="exit"))
        await started.wait()
        call.cancel()
        await asyncio.wait_for(saver.entered.wait(), 5)
        assert saver.stored == 0
        saver.release.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert saver.stored == 1
        state = await graph.aget_state(thread)
        assert (state.values, state.next) == ({"l": ["in"]}, ("wait",))

    asyncio.run(run())


def test_checkpoint_ids_sort_by_age(colour: Colour, saver: Any, thread: Any) -> None:
    graph = chain(colour, "a", "b", checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    ids = [checkpoint_id(s.config) for s in colour.history(graph, thread)]
    assert ids == sorted(ids, reverse=True)
