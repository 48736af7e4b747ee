"""The same call again, with the same run id: applied once, one result (promise 30; engine.md 5.7)."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest

from checkpoint.base import CheckpointConflictError, ThreadBusyError
from checkpoint.holders import Holders
from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.errors import GraphChangedError, GraphDrained, GraphRecursionError, RunIdReusedError, RunSupersededError
from pregel.graph import START, StateGraph
from pregel.runtime import RunControl, Runtime
from pregel.types import Command, Send, interrupt
from tests.acceptance.test_conflict import HELD, Beside, Place
from tests.checkpoint.test_adapter import AsyncOnly, SyncOnly
from tests.support.scenarios import Colour, Log, LogX

pytestmark = pytest.mark.differs("promise 30: LangGraph applies the input as often as the call is made")

IN: Any = {"l": ["in"]}


class Chain:
    """START → a → b → c on one thread; the parts of `b` are given. Notes which bodies ran."""

    def __init__(self, colour: Colour, saver: Any, b: Any = None, *, thread_id: str = "1", **options: Any) -> None:
        self.colour, self.saver = colour, saver
        self.ran: list[str] = []
        self.config: Any = {"configurable": {"thread_id": thread_id}}
        self.options = options.pop("call", {})

        def middle(state: LogX) -> dict[str, Any]:
            self.ran.append("b")
            return {"l": ["b"]} if b is None else b(state)

        builder = StateGraph(LogX)
        builder.add_node("a", colour.letter("a", self.ran)).add_node("b", colour.node(middle))
        builder.add_node("c", colour.letter("c", self.ran))
        builder.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c")
        self.graph: Any = builder.compile(checkpointer=saver, **options)

    def __call__(self, value: Any, run_id: Any = None, **options: Any) -> Any:
        """The result, and the bodies that ran for it."""
        self.ran.clear()
        result = self.colour.invoke(
            self.graph, value, options.pop("config", self.config), run_id=run_id, **{**self.options, **options}
        )
        return result, list(self.ran)

    def fails(self, kind: type[BaseException], value: Any, run_id: Any = None, **options: Any) -> list[str]:
        """The bodies that ran until the error."""
        with pytest.raises(kind):
            self(value, run_id, **options)
        return list(self.ran)

    def stored(self) -> Any:
        return [s.config["configurable"]["checkpoint_id"] for s in self.colour.history(self.graph, self.config)]


def questions(result: Any) -> list[Any]:
    return [question.value for question in result["__interrupt__"]]


class Once:
    """Raises the first time."""

    def __init__(self) -> None:
        self.struck = False

    def __call__(self, state: Any) -> dict[str, Any]:
        if not self.struck:
            self.struck = True
            raise OSError("the first time")
        return {"l": ["b"]}


DONE = {"l": ["in", "a", "b", "c"]}


# ---- finished


def test_a_finished_call_is_told_again(colour: Colour, saver: Any, durability: Any) -> None:
    chain = Chain(colour, saver, call={"durability": durability})
    assert chain(IN, "r") == (DONE, ["a", "b", "c"])
    before = chain.stored()
    for _ in range(3):
        assert chain(IN, "r") == (DONE, [])
    assert chain.stored() == before


@pytest.mark.parametrize("run_id", ["r", uuid.uuid4(), 7, ""])
def test_ways_to_give_the_id(colour: Colour, memory: Any, run_id: Any) -> None:
    chain = Chain(colour, memory)
    if run_id == "":
        # An empty id is none.
        assert chain(IN, run_id)[1] == chain(IN, run_id)[1] == ["a", "b", "c"]
        return
    config = {**chain.config, "run_id": run_id}
    assert chain(IN, config=config) == (DONE, ["a", "b", "c"])
    assert chain(IN, config=config) == (DONE, [])
    assert chain(IN, str(run_id)) == (DONE, [])
    assert chain(IN, run_id) == (DONE, [])
    bound = chain.graph.with_config({"run_id": run_id})
    assert colour.invoke(bound, IN, chain.config) == DONE


def test_an_id_that_is_none(colour: Colour, memory: Any) -> None:
    chain = Chain(colour, memory)
    assert chain.fails(TypeError, IN, {"no": "id"}) == []
    assert chain.stored() == []


def test_every_form_of_the_result(colour: Colour, saver: Any) -> None:
    chain = Chain(colour, saver)
    first = chain(IN, "r", version="v2")[0]
    assert chain(IN, "r", version="v2") == (first, [])
    assert chain(IN, "r", output_keys="l") == (DONE["l"], [])
    assert colour.stream(chain.graph, IN, chain.config, run_id="r") == []
    assert colour.stream(chain.graph, IN, chain.config, run_id="r", stream_mode="values") == [DONE]
    both = colour.stream(chain.graph, IN, chain.config, run_id="r", stream_mode=["updates", "values", "tasks"])
    assert both == [("values", DONE)]
    assert chain(IN, "r", stream_mode="updates") == ([], [])


def test_no_output_stays_no_output(colour: Colour, memory: Any) -> None:
    builder = StateGraph(LogX).add_node("n", colour.node(lambda state: None)).add_edge(START, "n")
    graph = builder.compile(checkpointer=memory)
    config: Any = {"configurable": {"thread_id": "1"}}
    first = colour.invoke(graph, {"x": 1}, config, output_keys=["l"], run_id="r")
    assert colour.invoke(graph, {"x": 1}, config, output_keys=["l"], run_id="r") == first


def test_an_older_call_is_told_from_history(colour: Colour, saver: Any, durability: Any) -> None:
    chain = Chain(colour, saver, call={"durability": durability})
    chain(IN, "r1")
    second = {"l": ["in", "a", "b", "c", "two", "a", "b", "c"]}
    assert chain({"l": ["two"]}, "r2") == (second, ["a", "b", "c"])
    chain({"l": ["three"]})
    before = chain.stored()
    assert chain(IN, "r1") == (DONE, [])
    assert chain({"l": ["two"]}, "r2") == (second, [])
    assert chain(IN, "r1", version="v2")[0].config["configurable"]["checkpoint_id"] in before
    assert chain.stored() == before


def test_another_input_is_refused(colour: Colour, saver: Any) -> None:
    chain = Chain(colour, saver)
    chain(IN, "r")
    with pytest.raises(RunIdReusedError, match="'r'") as caught:
        chain({"l": ["other"]}, "r")
    assert caught.value.run_id == "r"
    chain({"l": ["two"]}, "s")
    assert chain.fails(RunIdReusedError, {"l": ["other"]}, "r") == []
    assert chain(IN, "r") == (DONE, [])


def test_threads_are_independent(colour: Colour, saver: Any) -> None:
    one, two = Chain(colour, saver), Chain(colour, saver, thread_id="2")
    assert one(IN, "r") == two(IN, "r") == (DONE, ["a", "b", "c"])
    assert two({"l": ["x"]}, "s")[1] == ["a", "b", "c"]
    assert one({"l": ["y"]}, "s")[1] == ["a", "b", "c"]


def test_without_a_saver_an_id_has_no_effect(colour: Colour) -> None:
    chain = Chain(colour, None)
    assert chain(IN, "r") == chain(IN, "r") == (DONE, ["a", "b", "c"])


def test_after_a_restart(colour: Colour, tmp_path: Path, durability: Any) -> None:
    def chain(saver: Any) -> Chain:
        return Chain(colour, saver, lambda state: {"l": [interrupt("q")]}, call={"durability": durability})

    for value, run_id, ran in [(IN, "r", ["a", "b"]), (IN, "r", []), (Command(resume="A"), "s", ["b", "c"])]:
        with SqliteSaver.from_conn_string(str(tmp_path / "threads.sqlite")) as saver:
            assert chain(saver)(value, run_id)[1] == ran
    with SqliteSaver.from_conn_string(str(tmp_path / "threads.sqlite")) as saver:
        assert chain(saver)(Command(resume="A"), "s") == ({"l": ["in", "a", "A", "c"]}, [])
        assert questions(chain(saver)(IN, "r")[0]) == ["q"]


# ---- cut off


def test_a_failed_call_goes_on(colour: Colour, saver: Any, durability: Any) -> None:
    chain = Chain(colour, saver, Once(), call={"durability": durability})
    assert chain.fails(OSError, IN, "r") == ["a", "b"]
    assert chain(IN, "r") == (DONE, ["b", "c"])
    assert chain(IN, "r") == (DONE, [])


def test_what_others_made_of_it(colour: Colour, saver: Any, durability: Any) -> None:
    """The failed run was carried on by a call without its id: that is its result, too."""
    chain = Chain(colour, saver, Once(), call={"durability": durability})
    chain.fails(OSError, IN, "r")
    assert chain(None) == (DONE, ["b", "c"])
    assert chain(IN, "r") == (DONE, [])


def test_a_run_that_was_dropped(colour: Colour, saver: Any, durability: Any) -> None:
    chain = Chain(colour, saver, Once(), call={"durability": durability})
    chain.fails(OSError, IN, "r")
    chain({"l": ["two"]}, "s")
    before = chain.stored()
    with pytest.raises(RunSupersededError, match="'r'") as caught:
        chain(IN, "r")
    assert (caught.value.run_id, chain.ran, chain.stored()) == ("r", [], before)


def test_at_the_step_limit(colour: Colour, saver: Any, durability: Any) -> None:
    chain = Chain(colour, saver, call={"durability": durability})
    short = {**chain.config, "recursion_limit": 2}
    assert chain.fails(GraphRecursionError, IN, "r", config=short) == ["a", "b"]
    assert chain(IN, "r") == (DONE, ["c"])


def test_a_drained_call(colour: Colour, saver: Any, durability: Any) -> None:
    control = RunControl()

    def b(state: Any) -> dict[str, Any]:
        control.request_drain()
        return {"l": ["b"]}

    chain = Chain(colour, saver, b, call={"durability": durability})
    assert chain.fails(GraphDrained, IN, "r", control=control) == ["a", "b"]
    assert chain(IN, "r") == (DONE, ["c"])


def test_a_stream_that_was_left(colour: Colour, saver: Any) -> None:
    chain = Chain(colour, saver)

    async def leave() -> None:
        chunks = chain.graph.astream(IN, chain.config, run_id="r", stream_mode="updates")
        async for _ in chunks:
            break
        await chunks.aclose()

    if colour.is_async:
        asyncio.run(leave())
    else:
        chunks = chain.graph.stream(IN, chain.config, run_id="r", stream_mode="updates")
        next(chunks)
        chunks.close()
    assert chain(IN, "r") == (DONE, ["b", "c"])


def test_a_cancelled_call(memory: Any, durability: Any) -> None:
    chain = Chain(Colour("async"), memory, call={"durability": durability})
    waits = True

    async def b(state: Any) -> dict[str, Any]:
        chain.ran.append("b")
        if waits:
            await asyncio.get_running_loop().create_future()
        return {"l": ["b"]}

    builder = StateGraph(LogX).add_node("a", chain.colour.letter("a", chain.ran)).add_node("b", b)
    chain.graph = builder.add_edge(START, "a").add_edge("a", "b").compile(checkpointer=memory)

    async def cancelled() -> None:
        call = asyncio.create_task(chain.graph.ainvoke(IN, chain.config, run_id="r", durability=durability))
        while "b" not in chain.ran:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancelled())
    waits = False
    assert chain(IN, "r") == ({"l": ["in", "a", "b"]}, ["b"])


def test_finished_siblings_do_not_run_again(colour: Colour, saver: Any, durability: Any) -> None:
    ran: list[Any] = []
    broken = True

    def work(state: Any) -> dict[str, Any]:
        ran.append(state["x"])
        if state["x"] == 2 and broken:
            raise OSError("two")
        return {"l": [state["x"]]}

    builder = StateGraph(LogX).add_node("work", colour.node(work))
    builder.add_conditional_edges(START, lambda state: [Send("work", {"x": n}) for n in range(4)])
    graph = builder.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(OSError, match="two"):
        colour.invoke(graph, IN, config, run_id="r", durability=durability)
    before = set(ran) - {2}
    ran.clear()
    broken = False
    assert colour.invoke(graph, IN, config, run_id="r", durability=durability) == {"l": ["in", 0, 1, 2, 3]}
    assert 2 in ran
    if not colour.is_async:
        assert not before & set(ran)


# ---- paused


def test_a_question_is_told_and_not_asked_again(colour: Colour, saver: Any, durability: Any) -> None:
    chain = Chain(colour, saver, lambda s: {"l": [interrupt("q")]}, call={"durability": durability})
    first, ran = chain(IN, "r")
    assert (questions(first), ran) == (["q"], ["a", "b"])
    assert chain(IN, "r") == (first, [])
    assert chain(IN, "r", version="v2")[0].interrupts == tuple(first["__interrupt__"])
    values = colour.stream(chain.graph, IN, chain.config, run_id="r", stream_mode="values")
    assert questions(values[-1]) == ["q"]
    assert chain(Command(resume="A")) == ({"l": ["in", "a", "A", "c"]}, ["b", "c"])
    # Its own result was the question.
    assert chain(IN, "r") == (first, [])


def test_an_answer_counts_once(colour: Colour, saver: Any, durability: Any) -> None:
    """Two questions of one node: the second try of the first answer must not answer the second question."""
    chain = Chain(colour, saver, lambda s: {"l": [interrupt("q1"), interrupt("q2")]}, call={"durability": durability})
    chain(IN, "r")
    first, ran = chain(Command(resume="A"), "r1")
    assert (questions(first), ran) == (["q2"], ["b"])
    for _ in range(2):
        assert chain(Command(resume="A"), "r1") == (first, [])
    assert chain.fails(RunIdReusedError, Command(resume="B"), "r1") == []
    done = {"l": ["in", "a", "A", "B", "c"]}
    assert chain(Command(resume="B"), "r2") == (done, ["b", "c"])
    assert chain(Command(resume="B"), "r2") == (done, [])
    assert chain(Command(resume="A"), "r1") == (first, [])
    # Also when the thread has gone on to the same questions: they are others.
    again = chain({"l": ["two"]}, "r3")[0]
    assert questions(again) == ["q1"]
    before = chain.stored()
    assert chain(Command(resume="B"), "r2") == (done, [])
    assert chain(Command(resume="A"), "r1")[1] == []
    assert chain.stored() == before
    assert chain({"l": ["two"]}, "r3") == (again, [])


def test_an_answer_that_others_carried_on(colour: Colour, memory: Any) -> None:
    """The answer was stored and its run cut off; somebody goes on without an id."""
    once = Once()

    def b(state: Any) -> dict[str, Any]:
        answer = interrupt("q")
        once(state)
        return {"l": [answer]}

    chain = Chain(colour, memory, b)
    chain(IN, "r")
    assert chain.fails(OSError, Command(resume="A"), "s") == ["b"]
    done = {"l": ["in", "a", "A", "c"]}
    assert chain(None) == (done, ["b", "c"])
    assert chain(Command(resume="A"), "s") == (done, [])


def test_an_answer_goes_on(colour: Colour, saver: Any, durability: Any) -> None:
    once = Once()

    def b(state: Any) -> dict[str, Any]:
        answer = interrupt("q")
        once(state)
        return {"l": [answer]}

    chain = Chain(colour, saver, b, call={"durability": durability})
    chain(IN, "r")
    assert chain.fails(OSError, Command(resume="A"), "s") == ["b"]
    assert chain(Command(resume="A"), "s") == ({"l": ["in", "a", "A", "c"]}, ["b", "c"])


def test_a_task_that_failed_after_its_answers_goes_on_once(colour: Colour, saver: Any, durability: Any) -> None:
    """The run of the last answer failed: whichever call is made again carries it on, and no answer counts twice."""
    once = Once()

    def b(state: Any) -> dict[str, Any]:
        answers = [interrupt("q1"), interrupt("q2")]
        once(state)
        return {"l": answers}

    chain = Chain(colour, saver, b, call={"durability": durability})
    chain(IN, "r")
    chain(Command(resume="A"), "s")
    assert chain.fails(OSError, Command(resume="B"), "t") == ["b"]
    done = {"l": ["in", "a", "A", "B", "c"]}
    assert chain(Command(resume="A"), "s") == (done, ["b", "c"])
    assert chain(Command(resume="B"), "t") == (done, [])


def test_some_of_several_answers(colour: Colour, saver: Any) -> None:
    ran: list[str] = []

    def ask(name: str) -> Any:
        def node(state: Any) -> dict[str, Any]:
            ran.append(name)
            return {"l": [interrupt(name)]}

        return colour.node(node)

    builder = StateGraph(LogX).add_node("p", ask("p")).add_node("q", ask("q")).add_node("ok", colour.letter("ok", ran))
    for name in ("p", "q", "ok"):
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    first = colour.invoke(graph, IN, config, run_id="r")
    ids = {question.value: question.id for question in first["__interrupt__"]}
    ran.clear()
    again = colour.invoke(graph, IN, config, run_id="r")
    assert (sorted(questions(again)), again["l"], ran) == (["p", "q"], first["l"], [])
    answer = Command(resume={ids["p"]: "P"})
    part = colour.invoke(graph, answer, config, run_id="s")
    assert (questions(part), ran) == (["q"], ["p"])
    ran.clear()
    assert (colour.invoke(graph, answer, config, run_id="s"), ran) == (part, [])


@pytest.mark.parametrize(
    ("nested", "durability"), [(None, "sync"), (None, "exit"), ("default", "async"), ("stateful", "exit")]
)
def test_each_call_is_told_its_own_question(
    colour: Colour, saver: Any, thread: Any, nested: str | None, durability: Any
) -> None:
    """A node asks three times over. Once the thread has gone on, each call is told what it had come to."""

    def ask(state: Log) -> dict[str, Any]:
        return {"l": [interrupt(name) for name in ("q1", "q2", "q3")]}

    graph: Any = StateGraph(Log).add_node("n", colour.node(ask)).add_edge(START, "n")
    if nested is not None:
        inner = graph.compile(checkpointer=True if nested == "stateful" else None)
        graph = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub")
        graph.add_node("ok", colour.letter("ok")).add_edge(START, "ok")
    graph = graph.compile(checkpointer=saver)
    calls: list[Any] = [{"l": []}, *(Command(resume=answer) for answer in "ABC")]

    def call(number: int) -> Any:
        return colour.invoke(graph, calls[number], thread, run_id=f"r{number}", durability=durability)

    told = [call(number) for number in range(4)]
    assert [questions(result) for result in told[:3]] == [["q1"], ["q2"], ["q3"]]
    assert [call(number) for number in range(4)] == told
    chunks = colour.stream(graph, calls[1], thread, run_id="r1", stream_mode="updates", durability=durability)
    assert [question.value for chunk in chunks for question in chunk.get("__interrupt__", ())] == ["q2"]


def test_update_and_goto_count_once(colour: Colour, saver: Any, durability: Any) -> None:
    chain = Chain(colour, saver, lambda s: {"l": [interrupt("q")]}, call={"durability": durability})
    chain(IN, "r")
    command = Command(update={"l": ["u"]}, goto="c")
    first = chain(command, "s")[0]
    again, ran = chain(command, "s")
    assert (questions(first), questions(again), ran) == (["q"], ["q"], [])
    assert colour.get_state(chain.graph, chain.config).values["l"].count("u") == 1
    done, _ = chain(Command(resume="A"), "t")
    assert sorted(done["l"]) == sorted(["in", "a", "u", "c", "A", "c"])


def test_an_id_of_the_conversation(colour: Colour, saver: Any) -> None:
    """A config with a run id is kept over the questions of a run: each answer is a call of its own."""
    chain = Chain(colour, saver, lambda s: {"l": [interrupt("q1"), interrupt("q2")]})
    config = {**chain.config, "run_id": "r"}
    assert questions(chain(IN, config=config)[0]) == ["q1"]
    assert questions(chain(None, config=config)[0]) == ["q1"]
    assert questions(chain(Command(resume="yes"), config=config)[0]) == ["q2"]
    done = {"l": ["in", "a", "yes", "yes", "c"]}
    assert chain(Command(resume="yes"), config=config)[0] == done
    assert chain(None, config=config) == (done, [])
    assert chain(IN, config=config) == (done, [])


# ---- breakpoints


@pytest.mark.parametrize("where", ["interrupt_before", "interrupt_after"])
def test_a_breakpoint_stops_again(colour: Colour, saver: Any, durability: Any, where: str) -> None:
    chain = Chain(colour, saver, call={"durability": durability, where: ["a", "b"]})
    before = where == "interrupt_before"
    first = chain(IN, "r")
    assert first == ({"l": ["in"]}, []) if before else ({"l": ["in", "a"]}, ["a"])
    assert chain(IN, "r") == (first[0], [])
    second = chain(Command(resume="go"), "s")
    assert second[1] == (["a"] if before else ["b"])
    assert chain(Command(resume="go"), "s") == (second[0], [])
    assert chain(IN, "r") == (first[0], [])
    assert chain(None) == (DONE, ["b", "c"] if before else ["c"])
    assert chain(Command(resume="go"), "s")[1] == []
    assert chain({"l": ["two"]}, "t")[1] == ([] if before else ["a"])
    assert chain(IN, "r") == (first[0], [])


@pytest.mark.parametrize("where", ["interrupt_before", "interrupt_after"])
def test_a_breakpoint_in_a_nested_graph(colour: Colour, saver: Any, where: str) -> None:
    ran: list[str] = []
    inner = StateGraph(Log)
    for name in ("i", "j", "k"):
        inner.add_node(name, colour.letter(name, ran))
    inner.add_edge(START, "i").add_edge("i", "j").add_edge("j", "k")
    nested = inner.compile(**{where: ["i", "j"]})
    graph = StateGraph(Log).add_node("n", nested).add_edge(START, "n").compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}

    def call(value: Any, run_id: str) -> list[str]:
        ran.clear()
        colour.invoke(graph, value, config, run_id=run_id)
        return list(ran)

    early = where == "interrupt_before"
    assert call(IN, "r") == ([] if early else ["i"])
    assert call(IN, "r") == []
    assert call(Command(resume="go"), "s") == (["i"] if early else ["j"])
    assert call(Command(resume="go"), "s") == []
    assert call(Command(resume="go"), "t") == (["j", "k"] if early else ["k"])
    assert call(Command(resume="go"), "t") == call(Command(resume="go"), "s") == call(IN, "r") == []
    assert colour.get_state(graph, config).values == {"l": ["in", "in", "i", "j", "k"]}


# ---- branches


def test_an_input_to_an_older_checkpoint(colour: Colour, saver: Any) -> None:
    chain = Chain(colour, saver)
    chain(IN)
    old = colour.history(chain.graph, chain.config)[2].config
    branch = {"l": ["in", "a", "x", "a", "b", "c"]}
    assert chain({"l": ["x"]}, "r", config=old) == (branch, ["a", "b", "c"])
    before = chain.stored()
    assert chain({"l": ["x"]}, "r", config=old) == (branch, [])
    chain({"l": ["y"]})
    assert chain({"l": ["x"]}, "r", config=old) == (branch, [])
    assert chain.stored()[-len(before) :] == before


# ---- nested, and other threads


def test_a_nested_question(colour: Colour, saver: Any, durability: Any) -> None:
    ran: list[str] = []

    def ask(state: Log) -> dict[str, Any]:
        ran.append("ask")
        return {"l": [interrupt("q1"), interrupt("q2")]}

    inner = StateGraph(Log).add_node("i", colour.letter("i", ran)).add_node("ask", colour.node(ask))
    nested = inner.add_edge(START, "i").add_edge("i", "ask").compile()
    graph = StateGraph(Log).add_node("n", nested).add_edge(START, "n").compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}

    def call(value: Any, run_id: str) -> Any:
        ran.clear()
        return colour.invoke(graph, value, config, run_id=run_id, durability=durability), list(ran)

    first, bodies = call(IN, "r")
    assert (questions(first), bodies) == (["q1"], ["i", "ask"])
    assert call(IN, "r") == (first, [])
    second, bodies = call(Command(resume="A"), "s")
    assert (questions(second), bodies) == (["q2"], ["ask"])
    assert call(Command(resume="A"), "s") == (second, [])
    done = {"l": ["in", "in", "i", "A", "B"]}
    assert call(Command(resume="B"), "t") == (done, ["ask"])
    assert call(Command(resume="B"), "t") == (done, [])
    assert call(Command(resume="A"), "s") == (second, [])


def test_a_graph_on_a_thread_of_its_own(colour: Colour, saver: Any) -> None:
    """A node that is tried again makes the same call to another thread, which is applied once."""
    inner = Chain(colour, saver, thread_id="inner")
    once = Once()

    def outer(state: Log, runtime: Runtime) -> Any:
        config = {"configurable": {"thread_id": "inner"}, "run_id": runtime.idempotency_key}
        result = yield inner.graph, IN, config
        once(state)
        return {"l": [len(result["l"])]}

    graph = StateGraph(Log).add_node("outer", colour.script(outer)).add_edge(START, "outer").compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "outer"}}
    with pytest.raises(OSError, match="first"):
        colour.invoke(graph, IN, config, run_id="r")
    assert colour.invoke(graph, IN, config, run_id="r") == {"l": ["in", 4]}
    assert inner.ran == ["a", "b", "c"]
    assert colour.invoke(graph, {"l": ["two"]}, config, run_id="s")["l"][-1] == 8


@pytest.mark.parametrize("kind", [AsyncOnly, SyncOnly])
def test_savers_of_four_methods(colour: Colour, kind: Any) -> None:
    chain = Chain(colour, kind(), lambda s: {"l": [interrupt("q1"), interrupt("q2")]})
    first = chain(IN, "r")[0]
    assert chain(IN, "r") == (first, [])
    assert chain.fails(RunIdReusedError, {"l": ["other"]}, "r") == []
    second = chain(Command(resume="A"), "s")[0]
    assert chain(Command(resume="A"), "s") == (second, [])
    done = {"l": ["in", "a", "A", "B", "c"]}
    assert chain(Command(resume="B"), "t") == (done, ["b", "c"])
    assert chain(Command(resume="B"), "t") == (done, [])
    chain({"l": ["x"]})
    assert chain(Command(resume="B"), "t") == (done, [])


# ---- another version of the graph


def test_after_a_redeploy(colour: Colour, saver: Any) -> None:
    """A run that was cut off in a node that is gone is not taken for one that has finished."""

    def version(*names: str, b: Any = None) -> Chain:
        chain = Chain(colour, saver)
        builder = StateGraph(LogX)
        for name in names:
            node = b if name == "b" and b is not None else colour.letter(name, chain.ran)
            builder.add_node(name, node)
        builder.add_edge(START, "a")
        if len(names) > 1:
            builder.add_edge("a", names[1])
        chain.graph = builder.compile(checkpointer=saver)
        return chain

    old = version("a", "b", b=colour.node(lambda state: {"l": [interrupt("q")]}))
    first = old(IN, "r")[0]
    assert version("a", "new").fails(GraphChangedError, IN, "r") == []
    assert old(IN, "r") == (first, [])
    assert old({"l": ["x"]}, "s")[1] == ["a"]
    told = version("a", "new")(IN, "r")
    assert (questions(told[0]), told[1]) == (["q"], [])


# ---- the older rule: a run id in metadata


@pytest.mark.parametrize("place", ["metadata", "configurable"])
def test_a_run_id_in_metadata_reconnects(colour: Colour, saver: Any, place: str) -> None:
    """engine.md 5.7: the newest run's id given again continues it, whatever the input."""
    chain = Chain(colour, saver, lambda s: {"l": [interrupt("q")]})
    config: Any = {"configurable": {"thread_id": "1"}}
    config.setdefault(place, {})["run_id"] = "r"
    first = chain(IN, config=config)
    assert first[1] == ["a", "b"]
    assert chain({"l": ["other"]}, config=config) == (first[0], ["b"])
    done = {"l": ["in", "a", "A", "c"]}
    assert chain(Command(resume="A"), config=config) == (done, ["b", "c"])
    assert chain({"l": ["other"]}, config=config) == (done, [])
    assert chain({"l": ["new"]})[1] == ["a", "b"]


# ---- at the same time


@pytest.mark.parametrize("how", ["raise", "wait", "fork"])
def test_the_same_call_at_the_same_time(colour: Colour, saver: Any, thread: Any, how: Any) -> None:
    place = Place(colour, saver, thread)
    held = place.hold(run_id="r")
    if how == "wait":
        waiting = Beside(lambda: place.invoke(HELD, run_id="r", on_conflict="wait"))
        place.go.set()
        assert waiting.result() == held.result()
    else:
        with pytest.raises(ThreadBusyError):
            place.invoke(HELD, run_id="r", on_conflict=how)
        place.go.set()
        held.result()
    assert place.ran == [HELD]
    assert place.invoke(HELD, run_id="r") == held.result() == {"l": [HELD, "first", "second"]}


class Overtaken(InMemorySaver):
    """After it was asked for the first time, the same call is made by another process, which takes the thread."""

    before: Any = None
    """What happens when a checkpoint has been loaded."""
    after: Any = None
    """What happens when a run has been looked for."""

    def load(self, *args: Any, **kwargs: Any) -> Any:
        found = super().load(*args, **kwargs)
        call, self.before = self.before, None
        self._elsewhere(call)
        return found

    def last_of_run(self, *args: Any) -> Any:
        found = super().last_of_run(*args)
        call, self.after = self.after, None
        self._elsewhere(call)
        return found

    def _elsewhere(self, call: Any) -> None:
        if call is not None:
            ours, self.holders = self.holders, Holders()
            Beside(call).result()
            self.holders = ours


def test_another_process_made_it_meanwhile(colour: Colour) -> None:
    """Whoever looked before the other one stored is refused when it stores, or finds the result if it waits."""
    saver = Overtaken()
    theirs, ours = Chain(Colour("sync"), saver), Chain(colour, saver)
    saver.before = lambda: theirs(IN, "r")
    assert ours(IN, "r") == (DONE, [])
    second = {"l": [*DONE["l"], "two", "a", "b", "c"]}
    saver.after = lambda: theirs({"l": ["two"]}, "s")
    assert ours.fails(CheckpointConflictError, {"l": ["two"]}, "s") == []
    assert ours({"l": ["two"]}, "s") == (second, [])
    saver.after = lambda: theirs({"l": ["three"]}, "t")
    assert ours({"l": ["three"]}, "t", on_conflict="wait") == ({"l": [*second["l"], "three", "a", "b", "c"]}, [])


def test_another_process_began_it_meanwhile(colour: Colour) -> None:
    """What was loaded is older than what was found of the run: it is not taken for one that was dropped."""
    saver = Overtaken()
    theirs, ours = Chain(Colour("sync"), saver, Once()), Chain(colour, saver)
    saver.before = lambda: theirs.fails(OSError, IN, "r")
    assert ours(IN, "r") == (DONE, ["b", "c"])
