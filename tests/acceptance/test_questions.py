"""Asking and answering, row by row (engine.md 5.3, 5.4, 5.6, 5.7; promises 36 to 38): on both savers, in all durability
modes, at the root and nested, and each call in a process of its own, as far as anybody can tell: the graph is built anew
for every call, and a file is closed and opened again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel import _scope
from pregel.errors import EmptyInputError, Interrupt, NodeInterrupt, UnknownInterruptError, is_invalid_resume
from pregel.graph import START, StateGraph
from pregel.types import Command, Send, interrupt
from tests.support.driving import child
from tests.support.scenarios import Colour, Log, LogX, diagnosed, refused, steps

NOBODY = "f" * 32


class Life:
    """One thread, whose every call happens after a restart."""

    def __init__(self, colour: Colour, place: str, file: Path | None, durability: str) -> None:
        self.colour = colour
        self.place = place
        self.file = file
        self.memory = InMemorySaver()
        self.durability = durability
        self.config: dict[str, Any] = {"configurable": {"thread_id": "1"}}
        self.calls: list[str] = []
        """Names of the nodes that ran, in order of their starts; emptied by `ran`."""
        self.options: dict[str, Any] = {}
        """Of compile."""
        self.builder: Callable[[], StateGraph[Any]] = self.asking("q")

    # ---- graphs

    def asking(self, *questions: Any) -> Callable[[], StateGraph[Any]]:
        """START -> n, which asks one after the other -> after."""

        def n(state: Log) -> dict[str, Any]:
            self.calls.append("n")
            return {"l": [interrupt(question) for question in questions]}

        def build() -> StateGraph[Any]:
            builder = StateGraph(Log).add_node("n", self.colour.node(n))
            builder.add_node("after", self.colour.letter("after", self.calls))
            return builder.add_edge(START, "n").add_edge("n", "after")

        return build

    def parallel(self, asking: str, quiet: str = "") -> Callable[[], StateGraph[Any]]:
        """START -> all of `asking`, which ask their names, and all of `quiet`, which do not."""

        def asker(name: str) -> Callable[..., Any]:
            def ask(state: Log) -> dict[str, Any]:
                self.calls.append(name)
                return {"l": [f"{name}:{interrupt(name)}"]}

            return self.colour.node(ask)

        def build() -> StateGraph[Any]:
            builder = StateGraph(Log)
            for name in asking:
                builder.add_node(name, asker(name)).add_edge(START, name)
            for name in quiet:
                builder.add_node(name, self.colour.letter(name, self.calls)).add_edge(START, name)
            return builder

        return build

    # ---- calls

    def graph(self, saver: Any) -> Any:
        if self.place == "root":
            return self.builder().compile(checkpointer=saver, **self.options)
        inner = self.builder().compile()
        outer = StateGraph(Log)
        if self.place == "nested":
            outer.add_node("sub", inner)
        else:

            def call(state: Log) -> Any:
                result = yield inner, {"l": []}
                return {"l": result["l"]}

            outer.add_node("sub", self.colour.script(call))
        return outer.add_edge(START, "sub").compile(checkpointer=saver, **self.options)

    def on(self, do: Callable[[Any], Any]) -> Any:
        """Do something with the graph of a new process."""
        if self.file is None:
            return do(self.graph(self.memory))
        with SqliteSaver.from_conn_string(str(self.file)) as saver:
            return do(self.graph(saver))

    def invoke(self, given: Any, **options: Any) -> Any:
        options = {"durability": self.durability, **options}
        return self.on(lambda graph: self.colour.invoke(graph, given, self.config, **options))

    def start(self) -> dict[str, Interrupt]:
        """Run until it asks: value -> question."""
        return asked(self.invoke({"l": []}))

    def answer(self, resume: Any, **more: Any) -> Any:
        return self.invoke(Command(resume=resume, **more))

    def state(self) -> Any:
        return self.on(lambda graph: self.colour.get_state(graph, self.config))

    def stored(self) -> Any:
        """All that is stored, but for rows whose content was taken back."""
        entries = self.on(lambda graph: list(graph.checkpointer.list(self.config)))
        return [
            entry._replace(
                config=None, pending_writes=[w for w in entry.pending_writes or () if w[1:] != ("__resume__", None)]
            )
            for entry in entries
        ]

    def ran(self) -> list[str]:
        calls, self.calls[:] = sorted(self.calls), []
        return calls


def asked(result: Any) -> dict[str, Interrupt]:
    questions = result.get("__interrupt__", ())
    assert len({question.id for question in questions}) == len(questions)
    return {question.value: question for question in questions}


@pytest.fixture(params=["memory", "sqlite"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "threads.sqlite"


PLACES = [(place, durability) for place in ("root", "nested") for durability in ("sync", "async", "exit")]


@pytest.fixture(params=[*PLACES, ("called", "async")], ids="-".join)
def life(request: pytest.FixtureRequest, colour: Colour, file: Path | None) -> Life:
    return Life(colour, request.param[0], file, request.param[1])


# ------------------------------------------------------------------------------------------------------- one question


def test_a_value_answers_the_one_question(life: Life) -> None:
    questions = life.start()
    assert life.ran() == ["n"]
    assert life.state().interrupts == tuple(questions.values())
    assert life.answer("A") == {"l": ["A", "after"]}
    assert (life.ran(), life.state().next, life.state().interrupts) == (["after", "n"], (), ())


def test_an_id_answers_its_question(life: Life) -> None:
    questions = life.start()
    assert life.answer({questions["q"].id: "A"}) == {"l": ["A", "after"]}


@pytest.mark.parametrize("answer", [0, "", False, [], {"not an id": 1}, {"a": {}}], ids=repr)
def test_what_is_no_id_map_is_an_answer(life: Life, answer: Any) -> None:
    life.start()
    assert life.answer(answer) == {"l": [answer, "after"]}


def test_the_questions_of_a_node_in_turn(life: Life) -> None:
    """engine.md 5.4, the worked example: each question has an id of its own, and is asked once."""
    life.builder = life.asking("q1", "q2")
    first = life.start()
    second = asked(life.answer("A"))
    assert (list(first), list(second)) == (["q1"], ["q2"])
    assert first["q1"].id != second["q2"].id
    assert asked(life.invoke(None)) == second
    assert life.answer({second["q2"].id: "B"}) == {"l": ["A", "B", "after"]}
    assert life.ran() == ["after", "n", "n", "n", "n"]


def test_a_late_copy_of_an_answer_does_not_reach_the_next_question(life: Life) -> None:
    life.builder = life.asking("q1", "q2")
    first = life.start()
    life.answer({first["q1"].id: "A"})
    before = life.ran()
    rest = asked(life.answer({first["q1"].id: "A again"}))
    assert (list(rest), life.ran(), before) == (["q2"], [], ["n", "n"])
    assert life.answer("B") == {"l": ["A", "B", "after"]}


@pytest.mark.parametrize("given", [None, Command(resume={})], ids=["None", "empty map"])
def test_trying_again_asks_again(life: Life, given: Any) -> None:
    life.builder = life.parallel("ab", "c")
    first = life.start()
    assert life.ran() == ["a", "b", "c"]
    again = asked(life.invoke(given))
    assert again == first
    assert life.ran() == ["a", "b"]


def test_new_input_drops_the_question(life: Life) -> None:
    first = life.start()
    again = asked(life.invoke({"l": ["new"]}))
    assert first["q"].id != again["q"].id
    assert life.answer("A")["l"][-2:] == ["A", "after"]


# --------------------------------------------------------------------------------------------------- several questions


def test_answers_in_any_order_reach_their_questions(life: Life) -> None:
    life.builder = life.parallel("abc", "d")
    questions = life.start()
    assert sorted(questions) == ["a", "b", "c"]
    assert life.ran() == ["a", "b", "c", "d"]
    for name in "cab":
        result = life.answer({questions[name].id: name.upper()})
        assert life.ran() == [name]
    assert result == {"l": ["a:A", "b:B", "c:C", "d"]}


def test_answers_together_cost_one_run_of_each(life: Life) -> None:
    life.builder = life.parallel("abc", "d")
    questions = life.start()
    life.ran()
    rest = life.answer({questions["a"].id: "A", questions["c"].id: "C"})
    assert (asked(rest), life.ran()) == ({"b": questions["b"]}, ["a", "c"])
    assert life.state().interrupts == (questions["b"],)
    assert life.answer("B") == {"l": ["a:A", "b:B", "c:C", "d"]}
    assert life.ran() == ["b"]


def test_one_value_for_two_questions_is_refused(life: Life) -> None:
    life.builder = life.parallel("ab")
    questions = life.start()
    life.ran()
    before = life.stored()
    with refused(RuntimeError, questions["a"].id, questions["b"].id, "'a'", "'b'"):
        life.answer("?")
    assert (life.stored(), life.ran()) == (before, [])
    assert life.answer({q.id: "!" for q in questions.values()}) == {"l": ["a:!", "b:!"]}


def test_an_id_that_nobody_waits_for(life: Life) -> None:
    life.builder = life.parallel("ab")
    questions = life.start()
    with diagnosed(NOBODY, questions["a"].id, questions["b"].id, "'a'"):
        rest = life.answer({NOBODY: 1, questions["a"].id: "A"})
    assert asked(rest) == {"b": questions["b"]}


def test_an_answer_where_nothing_waits(life: Life) -> None:
    with diagnosed("empty", "'1'"):
        life.answer("?")
    life.answer("A")
    for resume in ("?", {NOBODY: 1}, {}):
        with diagnosed("finished", "'1'"):
            life.answer(resume)


@pytest.mark.parametrize(
    ("resume", "reason"),
    [({NOBODY: 1}, "not_pending"), ({}, "empty_map"), ("?", "ambiguous")],
)
def test_strict_refuses_what_answers_nothing(life: Life, resume: Any, reason: str) -> None:
    life.builder, life.options = life.parallel("ab"), {"strict": True}
    questions = life.start()
    life.ran()
    before = life.stored()
    ids = [question.id for question in questions.values()]
    with refused(UnknownInterruptError, *ids, "'a'", "'b'") as caught:
        life.answer(resume)
    error = caught.value
    assert (error.reason, sorted(error.pending_ids)) == (reason, sorted(ids))
    assert list(error.interrupt_ids) == (list(resume) if reason == "not_pending" else [])
    assert (life.stored(), life.ran()) == (before, [])
    assert life.answer(dict.fromkeys(ids, "!")) == {"l": ["a:!", "b:!"]}


def test_strict_refuses_an_answer_where_nothing_waits(life: Life) -> None:
    life.options = {"strict": True}
    life.start()
    life.answer("A")
    before = life.stored()
    for resume in ("?", {NOBODY: 1}, {}):
        with refused(UnknownInterruptError, "finished") as caught:
            life.answer(resume)
        assert (caught.value.reason, caught.value.pending_ids) == ("not_pending", ())
    assert life.stored() == before


@pytest.mark.parametrize("resume", [True, {NOBODY: 1}, {}], ids=repr)
@pytest.mark.parametrize("strict", [False, True])
def test_any_answer_passes_a_breakpoint(life: Life, resume: Any, strict: bool) -> None:
    """engine.md 5.4, amendments: neither a warning nor an error (warnings are errors here)."""
    first = "n" if life.place == "root" else "sub"
    life.builder, life.options = life.parallel("", "n"), {"strict": strict, "interrupt_before": [first]}
    assert life.invoke({"l": []}) == {"l": []}
    assert life.answer(resume) == {"l": ["n"]}


# -------------------------------------------------------------------------------------- several questions in one node


def together(colour: Colour, way: str, calls: list[str], saver: Any) -> Any:
    """A node that asks "x" and "y" at the same time, through two nested runs or directly."""

    def ask(state: Log) -> dict[str, Any]:
        return {"l": [interrupt(state["l"][0])]}

    def twice(state: Log) -> dict[str, Any]:
        return {"l": [interrupt(state["l"][0]), interrupt(state["l"][0] + "2")]}

    inner = StateGraph(Log).add_node("ask", twice if way == "twice" else ask).add_edge(START, "ask").compile()

    async def gathered(state: Log) -> dict[str, Any]:
        calls.append("node")
        results = await asyncio.gather(inner.ainvoke({"l": ["x"]}), inner.ainvoke({"l": ["y"]}))
        return {"l": [item for result in results for item in result["l"][1:]]}

    async def grouped(state: Log) -> dict[str, Any]:
        calls.append("node")
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(inner.ainvoke({"l": [name]})) for name in "xy"]
        return {"l": [run.result()["l"][1] for run in runs]}

    async def direct(state: Log) -> dict[str, Any]:
        calls.append("node")

        async def one(name: str) -> Any:
            return interrupt(name)

        return {"l": list(await asyncio.gather(one("x"), one("y")))}

    def threads(state: Log) -> dict[str, Any]:
        calls.append("node")
        with ThreadPoolExecutor(2) as pool:
            calls_ = [partial(inner.invoke, {"l": [name]}, key=name) for name in "xy"]
            runs = [pool.submit(copy_context().run, call) for call in calls_]
        return {"l": [item for run in runs for item in run.result()["l"][1:]]}

    target = child(lambda name: interrupt(name))

    def children(state: Log) -> dict[str, Any]:
        calls.append("node")
        futures = [_scope.current().spawn(target, name) for name in "xy"]
        return {"l": [future.result() for future in futures]}

    async def achildren(state: Log) -> dict[str, Any]:
        calls.append("node")
        return {"l": list(await asyncio.gather(*(_scope.current().spawn(target, name) for name in "xy")))}

    ways: dict[str, Any] = {"children": achildren if colour.is_async else children}
    ways |= {"gather": gathered, "twice": gathered, "group": grouped, "direct": direct, "threads": threads}
    if way == "twice" and not colour.is_async:
        ways["twice"] = threads
    return StateGraph(Log).add_node("n", ways[way]).add_edge(START, "n").compile(checkpointer=saver)


WAYS = [(name, way) for name in ("sync", "async") for way in ("threads", "children")]
WAYS += [("async", "gather"), ("async", "direct")]


@pytest.mark.parametrize(("name", "way"), WAYS)
@pytest.mark.parametrize("order", ["xy", "yx", "both"])
def test_one_node_asks_two_things_at_once(
    name: str, way: str, order: str, file: Path | None, durability: str, thread: Any
) -> None:
    """Promise 36: both are seen, both can be answered in any order; answered together they cost one run."""
    colour = Colour(name)
    calls: list[str] = []
    memory = InMemorySaver()

    def invoke(given: Any) -> Any:
        if file is None:
            return colour.invoke(together(colour, way, calls, memory), given, thread, durability=durability)
        with SqliteSaver.from_conn_string(str(file)) as saver:
            return colour.invoke(together(colour, way, calls, saver), given, thread, durability=durability)

    questions = asked(invoke({"l": []}))
    assert sorted(questions) == ["x", "y"]
    if order == "both":
        result = invoke(Command(resume={question.id: name.upper() for name, question in questions.items()}))
        assert len(calls) == 2
    else:
        rest = asked(invoke(Command(resume={questions[order[0]].id: order[0].upper()})))
        assert rest == {order[1]: questions[order[1]]}
        result = invoke(Command(resume=order[1].upper()))
        assert len(calls) == 3
    assert result == {"l": ["X", "Y"]}


def test_a_task_group_may_cut_off_the_other_question(saver: Any, durability: str, thread: Any) -> None:
    """It cancels whoever has not asked yet, so one or two questions come up; each is asked until it is answered."""
    calls: list[str] = []
    graph = together(Colour("async"), "group", calls, saver)

    async def talk() -> Any:
        result = await graph.ainvoke({"l": []}, thread, durability=durability)
        while questions := asked(result):
            resume = {question.id: name.upper() for name, question in questions.items()}
            result = await graph.ainvoke(Command(resume=resume), thread, durability=durability)
        return result

    assert asyncio.run(talk()) == {"l": ["X", "Y"]}
    assert len(calls) <= 3


def test_each_nested_run_asks_twice(colour: Colour, saver: Any, durability: str, thread: Any) -> None:
    """Four questions, two at a time."""
    calls: list[str] = []
    graph = together(colour, "twice", calls, saver)
    questions = asked(colour.invoke(graph, {"l": []}, thread, durability=durability))
    assert sorted(questions) == ["x", "y"]
    resume = {question.id: name.upper() for name, question in questions.items()}
    questions = asked(colour.invoke(graph, Command(resume=resume), thread, durability=durability))
    assert sorted(questions) == ["x2", "y2"]
    resume = {question.id: name.upper() for name, question in questions.items()}
    result = colour.invoke(graph, Command(resume=resume), thread, durability=durability)
    assert result == {"l": ["X", "X2", "Y", "Y2"]}
    assert len(calls) == 3


def test_a_nested_run_that_goes_on_is_waited_for(saver: Any, thread: Any) -> None:
    """The first question leaves the node while the other nested run is still at work: what that one does is not lost."""
    opened = asyncio.Event()
    done: list[str] = []

    async def ask(state: Log) -> dict[str, Any]:
        opened.set()
        return {"l": [interrupt("now")]}

    async def work(state: Log) -> dict[str, Any]:
        await opened.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        done.append("work")
        return {"l": ["worked"]}

    async def ask_later(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("later")]}

    one = StateGraph(Log).add_node("ask", ask).add_edge(START, "ask").compile()
    other = StateGraph(Log).add_node("work", work).add_node("ask", ask_later)
    two = other.add_edge(START, "work").add_edge("work", "ask").compile()

    async def n(state: Log) -> dict[str, Any]:
        results = await asyncio.gather(one.ainvoke({"l": []}), two.ainvoke({"l": []}))
        return {"l": [item for result in results for item in result["l"]]}

    graph = StateGraph(Log).add_node("n", n).add_edge(START, "n").compile(checkpointer=saver)

    async def talk() -> Any:
        questions = asked(await graph.ainvoke({"l": []}, thread))
        assert sorted(questions) == ["later", "now"]
        return await graph.ainvoke(Command(resume={q.id: q.value.upper() for q in questions.values()}), thread)

    assert asyncio.run(talk()) == {"l": ["NOW", "worked", "LATER"]}
    assert done == ["work"]


def test_a_stream_at_rest_is_not_waited_for(colour: Colour, memory: Any, thread: Any) -> None:
    """A nested stream that nobody reads any more would never end."""
    inner = StateGraph(Log).add_node("a", colour.letter("a")).add_node("b", colour.letter("b"))
    graph_ = inner.add_edge(START, "a").add_edge("a", "b").compile()

    def n(state: Log) -> dict[str, Any]:
        for _ in graph_.stream({"l": []}, stream_mode="updates"):
            return {"l": [interrupt("q")]}
        raise AssertionError

    async def an(state: Log) -> dict[str, Any]:
        async for _ in graph_.astream({"l": []}, stream_mode="updates"):
            return {"l": [interrupt("q")]}
        raise AssertionError

    builder = StateGraph(Log).add_node("n", an if colour.is_async else n).add_edge(START, "n")
    graph = builder.compile(checkpointer=memory)
    assert list(asked(colour.invoke(graph, {"l": []}, thread))) == ["q"]
    assert colour.invoke(graph, Command(resume="A"), thread) == {"l": ["A"]}


def test_a_failure_beside_questions_in_a_group_is_a_failure(memory: Any, thread: Any) -> None:
    async def n(state: Log) -> dict[str, Any]:
        async def ask() -> Any:
            return interrupt("q")

        async def fail() -> None:
            raise ValueError("boom")

        async with asyncio.TaskGroup() as group:
            group.create_task(ask())
            group.create_task(fail())
        return {}

    graph = StateGraph(Log).add_node("n", n).add_edge(START, "n").compile(checkpointer=memory)
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(graph.ainvoke({"l": []}, thread))
    assert caught.value.subgroup(ValueError) is not None
    assert not is_invalid_resume(caught.value)


@pytest.mark.parametrize("limit", [1, 2])
def test_nested_calls_hold_no_place_that_they_wait_for(colour: Colour, memory: Any, limit: int) -> None:
    """D12: at any `max_concurrency`."""
    config = {"configurable": {"thread_id": "1"}, "max_concurrency": limit}
    graph = together(colour, "gather" if colour.is_async else "threads", [], memory)
    questions = asked(colour.invoke(graph, {"l": []}, config))
    assert sorted(questions) == ["x", "y"]
    resume = {question.id: question.value for question in questions.values()}
    assert colour.invoke(graph, Command(resume=resume), config) == {"l": ["x", "y"]}


def test_a_question_raised_by_hand_is_raised_again(life: Life) -> None:
    """engine.md 5.3, the deprecated form: it has no id, and no answer can be given to it."""

    def n(state: Log) -> dict[str, Any]:
        life.calls.append("n")
        if len(life.calls) < 3:
            raise NodeInterrupt("by hand")
        return {"l": ["n"]}

    life.builder = lambda: StateGraph(Log).add_node("n", life.colour.node(n)).add_edge(START, "n")
    first = life.start()["by hand"]
    assert first.id == "placeholder-id"
    assert asked(life.invoke(None))["by hand"] == first
    assert life.invoke(None) == {"l": ["n"]}


def test_a_swallowed_question_is_still_one(life: Life) -> None:
    """`except Exception` around it and another question behind it: both are open, since both are asked."""

    def n(state: Log) -> dict[str, Any]:
        answers = []
        try:
            answers.append(interrupt("swallowed"))
        except Exception:  # noqa: BLE001 - the habit under test
            answers.append("none")
        return {"l": [*answers, interrupt("asked")]}

    life.builder = lambda: StateGraph(Log).add_node("n", life.colour.node(n)).add_edge(START, "n")
    questions = life.start()
    assert list(questions) == ["swallowed", "asked"]
    assert life.answer({questions["asked"].id: "A"}) == {"l": ["none", "A"]}


# ------------------------------------------------------------------------------------------------ failures in between


def test_an_answered_node_that_failed_runs_again_without_asking(life: Life) -> None:
    failing = [True]

    def n(state: Log) -> dict[str, Any]:
        answer = interrupt("q")
        if failing:
            failing.clear()
            raise ValueError("boom")
        return {"l": [answer]}

    life.builder = lambda: StateGraph(Log).add_node("n", life.colour.node(n)).add_edge(START, "n")
    life.start()
    with refused(ValueError, "boom"):
        life.answer("A")
    assert life.invoke(None) == {"l": ["A"]}


@pytest.mark.parametrize("schema", [None, str], ids=["any", "typed"])
@pytest.mark.parametrize("bare", [False, True], ids=["by id", "bare"])
def test_the_answer_that_made_a_node_fail_may_be_given_anew(life: Life, schema: Any, bare: bool) -> None:
    """Only that one: what was answered before the node asked it stays."""

    def n(state: Log) -> dict[str, Any]:
        first, second = interrupt("first", response_schema=schema), interrupt("second", response_schema=schema)
        if second == "bad":
            raise ValueError("boom")
        return {"l": [first, second]}

    life.builder = lambda: StateGraph(Log).add_node("n", life.colour.node(n)).add_edge(START, "n")
    life.start()
    second = asked(life.answer("A"))["second"]
    with refused(ValueError, "boom"):
        life.answer("bad")
    with refused(ValueError, "boom"):
        life.invoke(None)
    assert life.answer("B" if bare else {second.id: "B"}) == {"l": ["A", "B"]}


def test_an_answered_node_that_failed_is_no_longer_waiting(life: Life) -> None:
    """It runs when another question is answered, and its own is not shown again."""
    failing = [True]

    def a(state: Log) -> dict[str, Any]:
        answer = interrupt("a")
        if failing:
            failing.clear()
            raise ValueError("boom")
        return {"l": [answer]}

    def b(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("b")]}

    def build() -> StateGraph[Any]:
        builder = StateGraph(Log).add_node("a", life.colour.node(a)).add_node("b", life.colour.node(b))
        return builder.add_edge(START, "a").add_edge(START, "b")

    life.builder = build
    questions = life.start()
    with refused(ValueError, "boom"):
        life.answer({questions["a"].id: "A"})
    assert life.answer({questions["b"].id: "B"}) == {"l": ["A", "B"]}


# ------------------------------------------------------------------------------------------- editing while it waits


def test_an_update_replaces_the_waiting_task(life: Life) -> None:
    """engine.md 5.6: the question is gone, the node is still next, and a bare answer reaches what it asks then."""
    node = "n" if life.place == "root" else "sub"
    life.start()
    life.on(lambda graph: life.colour.update_state(graph, life.config, {"l": ["up"]}))
    state = life.state()
    assert (state.values, state.next, state.interrupts) == ({"l": ["up"]}, (node,), ())
    assert life.answer("A")["l"][-2:] == ["A", "after"]


def test_an_update_as_the_waiting_node_skips_it(life: Life) -> None:
    node = "n" if life.place == "root" else "sub"
    life.start()
    life.on(lambda graph: life.colour.update_state(graph, life.config, {"l": ["instead"]}, node))
    assert life.state().next == (("after",) if life.place == "root" else ())
    assert life.invoke(None)["l"][0] == "instead"


def test_an_answer_with_an_update(life: Life) -> None:
    life.start()
    result = life.answer("A", update={"l": ["up"]})
    assert result["l"][0] == "up"
    assert result["l"][-2:] == ["A", "after"]


# ------------------------------------------------------------------------------------------------- how a run begins


def test_nothing_to_resume(life: Life) -> None:
    """engine.md 5.7."""
    with pytest.raises(EmptyInputError):
        life.invoke(None)
    with pytest.raises(EmptyInputError):
        life.invoke(Command())


def test_a_resume_makes_no_input_checkpoint(life: Life) -> None:
    life.start()
    before = life.on(lambda graph: steps(life.colour.history(graph, life.config)))
    life.answer("A")
    after = life.on(lambda graph: steps(life.colour.history(graph, life.config)))
    assert [entry for entry in after if entry[0] == "input"] == [entry for entry in before if entry[0] == "input"]


# ----------------------------------------------------------------------------------------------------- commands, sends


def test_commands_as_input(colour: Colour, saver: Any, durability: str, thread: Any) -> None:
    """engine.md 5.1: on a fresh, a paused and a finished thread; goto as a list of names and Sends."""

    def build() -> Any:
        builder = StateGraph(LogX).add_node("a", colour.letter("a"))
        builder.add_node("ask", colour.node(lambda state: {"l": [interrupt("q")]}))
        builder.add_node("w", colour.node(lambda arg: {"l": [arg]})).add_node("b", colour.letter("b"))
        return builder.add_edge(START, "a").add_edge("a", "ask").compile(checkpointer=saver)

    def invoke(command: Command[Any]) -> Any:
        return colour.invoke(build(), command, thread, durability=durability)

    fresh = invoke(Command(update={"l": ["up"], "x": 1}, goto=["b", Send("w", "sent")]))
    assert (sorted(fresh["l"]), list(asked(fresh))) == (["a", "b", "sent", "up"], ["q"])
    paused = invoke(Command(update=[("l", ["more"])], goto=Send("w", "again")))
    assert (list(asked(paused)), paused["l"][-1]) == (["q"], "again")
    assert "more" in paused["l"]
    answered = invoke(Command(resume="A"))
    assert sorted(answered["l"]) == ["A", "a", "again", "b", "more", "sent", "up"]
    finished = invoke(Command(goto=["b", Send("w", 3)]))
    assert sorted(map(str, finished["l"][-2:])) == ["3", "b"]
    both = invoke(Command(update={"x": 2}))
    assert both["x"] == 2


def test_a_command_to_the_parent_passes_two_levels(colour: Colour, saver: Any, durability: str, thread: Any) -> None:
    def hand_over(state: Log) -> Any:
        return Command(graph=Command.PARENT, update={"l": [interrupt("who?")]}, goto=["other", Send("w", "sent")])

    def hand_on(state: Log) -> Any:
        return Command(graph=Command.PARENT, update={"l": ["middle"]}, goto="last")

    def build() -> Any:
        inner = StateGraph(Log).add_node("i", colour.node(hand_over)).add_edge(START, "i").compile()
        middle = StateGraph(Log).add_node("inner", inner).add_node("other", colour.node(hand_on))
        middle.add_node("w", colour.node(lambda arg: {"l": [arg]})).add_edge(START, "inner")
        outer = StateGraph(Log).add_node("middle", middle.compile()).add_node("last", colour.letter("last"))
        return outer.add_edge(START, "middle").compile(checkpointer=saver)

    questions = asked(colour.invoke(build(), {"l": []}, thread, durability=durability))
    result = colour.invoke(build(), Command(resume={questions["who?"].id: "A"}), thread, durability=durability)
    assert result == {"l": ["middle", "last"]}


def test_a_send_keeps_its_timeout_while_it_waits(colour: Colour, saver: Any, durability: str, thread: Any) -> None:
    seen: list[Any] = []

    def w(arg: Any) -> dict[str, Any]:
        seen.append(_scope.current().task.timeout.run_timeout)
        return {"l": [interrupt(arg)]}

    def build() -> Any:
        builder = StateGraph(Log).add_node("w", colour.node(w), timeout=30 if colour.is_async else None)
        builder.add_conditional_edges(START, colour.node(lambda state: [Send("w", "q", timeout=20)]))
        return builder.compile(checkpointer=saver)

    colour.invoke(build(), {"l": []}, thread, durability=durability)
    assert colour.invoke(build(), Command(resume="A"), thread, durability=durability) == {"l": ["A"]}
    assert seen == [20.0, 20.0]
