"""Handlers in `config["callbacks"]`: what they are told, when, and what becomes of one that fails (frontends.md 3)."""

import asyncio
import logging
import threading
from collections import Counter
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from checkpoint.memory import InMemorySaver
from pregel._scope import current
from pregel.cache.memory import InMemoryCache
from pregel.callbacks import (
    GraphCallbackHandler,
    GraphInterruptEvent,
    GraphLifecycleEvent,
    GraphResumeEvent,
    RunEvent,
    TaskEvent,
)
from pregel.config import RunnableConfig
from pregel.errors import EmptyInputError, GraphRecursionError
from pregel.graph import START, StateGraph
from pregel.runtime import RunControl
from pregel.types import CachePolicy, Command, RetryPolicy, Send, TracePolicy, interrupt, omit_payload
from tests.support.driving import child
from tests.support.scenarios import Colour, Gate, Log, LogX, path_of

IN: Any = {"l": ["in"]}
RETRY = RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=3, retry_on=OSError)
HOOKS = [name for name in vars(GraphCallbackHandler) if name.startswith("on_")]
ours = pytest.mark.differs("promise 58: LangGraph tells of interrupts and resumes only")


class Witness(GraphCallbackHandler):
    """Keeps every event with the method that got it; its methods are of one colour."""

    def __init__(self, *, is_async: bool = False) -> None:
        self.events: list[tuple[str, Any]] = []
        self.is_async = is_async

    def __getattribute__(self, name: str) -> Any:
        if name not in HOOKS:
            return super().__getattribute__(name)

        async def anote(event: Any) -> None:
            await asyncio.sleep(0)
            self.events.append((name, event))

        return anote if self.is_async else lambda event: self.events.append((name, event))

    def of(self, *names: str) -> list[Any]:
        return [event for name, event in self.events if name in names]

    def said(self, *names: str) -> list[tuple[Any, ...]]:
        """(method, name or step, status) of each event, or of those of some methods."""
        found = []
        for name, event in self.events:
            if not names or name in names:
                what = getattr(event, "name", getattr(event, "step", None))
                found.append((name.removeprefix("on_"), what, getattr(event, "status", None)))
        return found


@pytest.fixture(params=[False, True], ids=["plain", "async handler"])
def witness(request: pytest.FixtureRequest) -> Witness:
    return Witness(is_async=request.param)


def config(*handlers: Any, thread: str = "1", **more: Any) -> Any:
    return {"configurable": {"thread_id": thread}, "callbacks": list(handlers), **more}


def asking(colour: Colour) -> StateGraph[Any]:
    """a → ask."""

    def ask(state: Any) -> Any:
        return {"l": [interrupt("?")]}

    builder = StateGraph(Log).add_node("a", colour.letter("a")).add_node("ask", colour.node(ask))
    return builder.add_edge(START, "a").add_edge("a", "ask")


# ---- LangGraph's two


def test_the_root_run_tells_of_its_question_and_of_going_on(stage):
    """On every saver, durability and depth, over restarts."""
    stage.put_on(lambda: asking(stage.colour))
    witness = Witness()
    run_id = uuid4()
    told = ("on_interrupt", "on_resume")
    stage.run(IN, {**stage.root, "callbacks": [witness], "metadata": {}, "run_name": "r"})
    assert witness.said(*told) == [("interrupt", None, "pending")]
    (asked,) = witness.of("on_interrupt")
    assert isinstance(asked, GraphInterruptEvent)
    assert (asked.checkpoint_ns, [i.value for i in asked.interrupts]) == ((), ["?"])
    assert isinstance(asked.run_id, UUID)
    state = stage.colour.get_state(stage.graph, stage.root)
    assert asked.checkpoint_id == state.config["configurable"]["checkpoint_id"]
    assert asked.interrupts == state.interrupts
    witness.events.clear()
    assert stage.run(Command(resume="yes"), {**stage.root, "callbacks": [witness], "run_id": run_id}) == stage.around(
        "in", "a", "yes"
    )
    assert witness.said(*told) == [("resume", None, "pending")] * stage.depth
    resumed = witness.of("on_resume")
    assert [path_of(event.checkpoint_ns) for event in resumed] == [("sub",) * depth for depth in range(stage.depth)]
    assert isinstance(resumed[0], GraphResumeEvent)
    assert (resumed[0].run_id, resumed[0].checkpoint_id) == (run_id, asked.checkpoint_id)
    assert len({event.run_id for event in resumed}) == stage.depth
    assert GraphLifecycleEvent == GraphInterruptEvent | GraphResumeEvent


@pytest.mark.parametrize(
    ("given", "options", "told"),
    [
        (IN, {}, [("interrupt", "pending")]),
        (IN, {"interrupt_before": ["ask"]}, [("interrupt", "interrupt_before")]),
        (IN, {"interrupt_after": ["a"]}, [("interrupt", "interrupt_after")]),
        (None, {}, [("resume", "pending"), ("interrupt", "pending")]),
        (Command(resume="yes"), {}, [("resume", "pending")]),
        (Command(goto="a"), {}, [("resume", "pending"), ("interrupt", "pending")]),
        (Command(resume="yes"), {"interrupt_after": "*"}, [("resume", "pending"), ("interrupt", "interrupt_after")]),
    ],
)
def test_when_they_are_called(colour, memory, given, options, told):
    graph = asking(colour).compile(checkpointer=memory)
    colour.invoke(graph, IN, config())
    witness = Witness()
    colour.invoke(graph, given, config(witness), **options)
    assert [(name, status) for name, _, status in witness.said("on_interrupt", "on_resume")] == told


def test_a_finished_thread_and_an_old_checkpoint_go_on_as_well(colour, memory):
    graph = asking(colour).compile(checkpointer=memory)
    colour.invoke(graph, IN, config())
    colour.invoke(graph, Command(resume="yes"), config())
    witness = Witness()
    colour.invoke(graph, None, config(witness))
    assert witness.said("on_interrupt", "on_resume") == [("resume", None, "pending")]
    old = colour.history(graph, config())[-2]
    colour.invoke(graph, None, {**old.config, "callbacks": [witness]})
    assert witness.of("on_resume")[-1].checkpoint_id == old.config["configurable"]["checkpoint_id"]
    witness.events.clear()
    colour.invoke(graph, Command(goto="ask"), config(witness, thread="new"))
    assert witness.said("on_resume") == []


def test_nothing_is_told_of_other_ends(colour):
    def fail(state: Any) -> Any:
        raise ValueError("no")

    for node, error in ((fail, ValueError), (lambda state: None, None)):
        graph = StateGraph(Log).add_node("n", colour.node(node)).add_edge(START, "n").compile()
        witness = Witness()
        _, raised = colour.outcome(graph, IN, config(witness))
        assert (raised and type(raised)) is error
        assert witness.said("on_interrupt", "on_resume") == []


def test_the_question_is_told_after_the_last_chunk_was_made_and_stored(memory):
    graph = asking(Colour("sync")).compile(checkpointer=memory)
    witness = Witness()
    seen: list[Any] = []
    for chunk in graph.stream(IN, config(witness)):
        seen.append((chunk, len(witness.of("on_interrupt"))))
    assert seen[0] == ({"a": {"l": ["a"]}}, 0)
    assert len(witness.of("on_interrupt")) == 1


# ---- where handlers may stand


class Managing:
    """A manager object of another library."""

    def __init__(self, *handlers: Any) -> None:
        self.handlers = list(handlers)


@pytest.mark.parametrize("place", ["list", "tuple", "single", "manager", "bound", "both", "among others"])
def test_where_handlers_may_stand(colour, memory, place):
    witness = Witness()
    given = {
        "list": [witness],
        "tuple": (witness,),
        "single": witness,
        "manager": Managing(witness),
        "both": [witness],
        "among others": [object(), witness, witness],
        "bound": None,
    }[place]
    graph = asking(colour).compile(checkpointer=memory)
    if place in ("bound", "both"):
        graph = graph.with_config(callbacks=[witness])
    colour.invoke(graph, IN, {**config(), "callbacks": given})
    assert len(witness.of("on_interrupt")) == 1


def test_a_node_sees_the_callbacks_and_handlers_of_others_are_left_alone(colour):
    foreign = SimpleNamespace()
    seen = []

    def look(state: Any, config: RunnableConfig) -> None:
        seen.append(config["callbacks"])

    graph = StateGraph(Log).add_node("n", colour.node(look)).add_edge(START, "n").compile()
    witness = Witness()
    colour.invoke(graph, IN, config(foreign, witness))
    colour.invoke(graph, IN, config(foreign))
    colour.invoke(graph, IN)
    assert seen == [[foreign, witness], [foreign], None]


# ---- our own


@ours
def test_what_a_run_tells(colour, memory, witness):
    """A failing attempt, two tasks side by side, a nested run."""
    left = [1]

    def fickle(state: Any) -> Any:
        if left.pop() if left else 0:
            raise OSError("again")
        return {"l": ["f"]}

    inner = StateGraph(Log).add_node("i", colour.letter("i")).add_edge(START, "i").compile(name="inner")
    builder = StateGraph(Log).add_node("f", colour.node(fickle), retry_policy=RETRY).add_node("sub", inner)
    builder.add_edge(START, "f").add_edge("f", "sub")
    graph = builder.compile(checkpointer=memory, name="outer")
    value = colour.invoke(graph, IN, config(witness, tags=["t"], metadata={"m": 1}))
    assert witness.said() == [
        ("run_start", "outer", None),
        ("checkpoint", -1, None),
        ("checkpoint", 0, None),
        ("superstep_start", 1, None),
        ("task_start", "f", None),
        ("task_retry", "f", None),
        ("task_end", "f", "done"),
        ("superstep_end", 1, "done"),
        ("checkpoint", 1, None),
        ("superstep_start", 2, None),
        ("task_start", "sub", None),
        ("run_start", "inner", None),
        ("checkpoint", -1, None),
        ("checkpoint", 0, None),
        ("superstep_start", 1, None),
        ("task_start", "i", None),
        ("task_end", "i", "done"),
        ("superstep_end", 1, "done"),
        ("checkpoint", 1, None),
        ("run_end", "inner", "done"),
        ("task_end", "sub", "done"),
        ("superstep_end", 2, "done"),
        ("checkpoint", 2, None),
        ("run_end", "outer", "done"),
    ]
    outer, inside = witness.of("on_run_start")
    assert (outer.input, outer.parent_run_id, outer.checkpoint_ns, outer.thread_id) == (IN, None, (), "1")
    assert (outer.tags, outer.metadata) == (("t",), {"m": 1})
    assert (inside.parent_run_id, path_of(inside.checkpoint_ns)) == (outer.run_id, ("sub",))
    assert inside.run_id != outer.run_id
    (fickle_end,) = [event for event in witness.of("on_task_end") if event.name == "f"]
    (again,) = witness.of("on_task_retry")
    assert (again.attempt, again.retry_after, type(again.error)) == (1, 0.0, OSError)
    assert (fickle_end.attempt, fickle_end.output, fickle_end.input) == (2, {"l": ["f"]}, IN)
    sub_start = next(event for event in witness.of("on_task_start") if event.name == "sub")
    assert inside.parent_task_id == sub_start.task_id
    assert witness.of("on_run_end")[-1].output == value
    history = [snapshot.config["configurable"]["checkpoint_id"] for snapshot in colour.history(graph, config())]
    assert [event.checkpoint_id for event in witness.of("on_checkpoint") if not event.checkpoint_ns] == history[::-1]
    times = [event.at for _, event in witness.events]
    assert times == sorted(times)


@ours
def test_a_failure(colour):
    def fail(state: Any) -> Any:
        raise ValueError("no")

    graph = StateGraph(Log).add_node("n", colour.node(fail)).add_edge(START, "n").compile()
    witness = Witness()
    _, error = colour.outcome(graph, IN, config(witness))
    assert witness.said() == [
        ("run_start", "LangGraph", None),
        ("superstep_start", 1, None),
        ("task_start", "n", None),
        ("task_error", "n", "failed"),
        ("superstep_end", 1, "failed"),
        ("run_error", "LangGraph", "failed"),
    ]
    assert witness.of("on_task_error")[0].error is witness.of("on_run_error")[0].error is error


@ours
def test_errors_that_are_no_nodes(colour, memory):
    builder = StateGraph(Log).add_node("n", colour.letter("n")).add_edge(START, "n").add_edge("n", "n")
    graph = builder.compile(checkpointer=memory)
    witness = Witness()
    _, error = colour.outcome(graph, IN, config(witness, recursion_limit=2))
    assert isinstance(error, GraphRecursionError)
    assert witness.of("on_run_error")[0].error is error
    witness.events.clear()
    _, error = colour.outcome(graph, None, config(witness, thread="new"))
    assert isinstance(error, EmptyInputError)
    assert [name for name, _ in witness.events] == ["on_run_start", "on_run_error"]


@ours
def test_a_handled_failure_starts_its_handler(colour):
    def fail(state: Any) -> Any:
        raise ValueError("no")

    builder = StateGraph(Log).add_node("n", colour.node(fail), error_handler=colour.letter("h")).add_edge(START, "n")
    witness = Witness()
    colour.invoke(builder.compile(), IN, config(witness))
    tasks = witness.said("on_task_start", "on_task_end", "on_task_error")
    assert [(kind, status) for kind, _, status in tasks] == [
        ("task_start", None),
        ("task_error", "failed"),
        ("task_start", None),
        ("task_end", "done"),
    ]
    failed, handler = witness.of("on_task_error")[0], witness.of("on_task_end")[0]
    assert handler.parent_task_id == failed.task_id
    assert witness.said("on_run_end") == [("run_end", "LangGraph", "done")]


@ours
def test_a_task_that_is_called_names_its_caller(colour):
    step = child(lambda value: value + 1)

    def call(state: Any) -> Any:
        return current().spawn(step, 1)

    def node(state: Any) -> Any:
        return {"l": [call(state).result()]}

    async def anode(state: Any) -> Any:
        return {"l": [await call(state)]}

    builder = StateGraph(Log).add_node("n", anode if colour.is_async else node).add_edge(START, "n")
    witness = Witness()
    assert colour.invoke(builder.compile(), IN, config(witness)) == {"l": ["in", 2]}
    parent, called = witness.of("on_task_start")
    assert (parent.name, called.name, called.parent_task_id) == ("n", "t", parent.task_id)
    assert [event.name for event in witness.of("on_task_end")] == ["t", "n"]


@ours
def test_the_start_of_a_called_task_is_told_before_it_ends(colour):
    """Also if its caller waits on the event loop meanwhile."""
    told = Gate()

    class Opening(GraphCallbackHandler):
        def on_task_start(self, event: TaskEvent) -> None:
            if event.parent_task_id is not None:
                told.set()

    def wait(value: int) -> int:
        told.wait()
        return value

    async def await_(value: int) -> int:
        await told.wait_async()
        return value

    step = child(await_ if colour.is_async else wait)

    def node(state: Any) -> Any:
        return {"l": [current().spawn(step, 1).result()]}

    async def anode(state: Any) -> Any:
        return {"l": [await current().spawn(step, 1)]}

    builder = StateGraph(Log).add_node("n", anode if colour.is_async else node).add_edge(START, "n")
    assert colour.invoke(builder.compile(), IN, config(Opening())) == {"l": ["in", 1]}


@ours
@pytest.mark.parametrize("enters", [False, True])
def test_results_from_a_cache(colour, enters):
    """A task whose result was found has begun and ended; nothing was entered. Handlers that enter change no key."""
    entered: list[str] = []

    class Entering(Witness):
        def enter_task(self, event: TaskEvent) -> None:
            entered.append(event.name)

    def node(state: Any) -> Any:
        return {"l": ["n"]}

    builder = StateGraph(Log).add_node("n", colour.node(node), cache_policy=CachePolicy()).add_edge(START, "n")
    graph = builder.compile(cache=InMemoryCache())
    witness = Entering() if enters else Witness()
    for _ in range(2):
        assert colour.invoke(graph, IN, config(witness)) == {"l": ["in", "n"]}
    assert witness.said("on_task_start", "on_task_end") == [
        ("task_start", "n", None),
        ("task_end", "n", "done"),
        ("task_start", "n", None),
        ("task_end", "n", "cached"),
    ]
    assert witness.of("on_task_end")[1].output == {"l": ["n"]}
    assert entered == ["n"] * enters


class Fenced(Witness):
    """Checks that what begins ends once, inside of what it began in."""

    def __init__(self) -> None:
        super().__init__()
        self.open: Counter[Any] = Counter()

    def check(self) -> None:
        runs: list[Any] = []
        steps: dict[Any, int] = {}
        tasks: dict[Any, set[str]] = {}
        for name, event in self.events:
            run = event.run_id
            if name == "on_run_start":
                assert run not in runs
                runs.append(run)
            else:
                assert run in runs, name
            if name == "on_superstep_start":
                assert run not in steps
                steps[run], tasks[run] = event.step, set()
            elif name == "on_task_start":
                assert steps[run] == event.step
                assert event.task_id not in tasks[run]
                tasks[run].add(event.task_id)
            elif name in ("on_task_end", "on_task_error"):
                tasks[run].remove(event.task_id)
            elif name == "on_superstep_end":
                assert not tasks.pop(run)
                assert steps.pop(run) == event.step
            elif name in ("on_run_end", "on_run_error"):
                assert run not in steps
                runs.remove(run)
        assert not runs


@ours
@pytest.mark.parametrize("limit", [None, 1, 2])
@pytest.mark.parametrize("end", ["done", "fails", "asks", "fails and asks"])
def test_everything_that_begins_ends_once(colour, memory, end, limit):
    """Many tasks at once, some of which fail or ask, some nested."""

    def work(state: Any) -> Any:
        if "fails" in end and state["n"] == 3:
            raise ValueError("no")
        if "asks" in end and state["n"] in (1, 5):
            interrupt(state["n"])
        return {"l": [state["n"]]}

    inner = StateGraph(LogX).add_node("w", colour.node(work)).add_edge(START, "w").compile()

    def fan(state: Any) -> Any:
        return [Send("w" if n % 2 else "deep", {"n": n, "l": []}) for n in range(8)]

    @colour.script
    def deep(state: Any) -> Any:
        result = yield inner, {"l": [], "n": state["n"]}
        return result

    class State(LogX, total=False):
        n: int

    inner = StateGraph(State).add_node("w", colour.node(work)).add_edge(START, "w").compile()
    builder = StateGraph(State).add_node("w", colour.node(work)).add_node("deep", deep)
    builder.add_conditional_edges(START, fan, ["w", "deep"])
    graph = builder.compile(checkpointer=memory)
    witness = Fenced()
    more = {} if limit is None else {"max_concurrency": limit}
    colour.outcome(graph, IN, config(witness, **more))
    witness.check()
    colour.outcome(graph, None, config(witness, **more))
    witness.check()
    assert len(witness.of("on_superstep_end")) >= 2


class NoDisk(InMemorySaver):
    """Stores so many commits, and no more."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def write(self, *args: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise OSError("disk full")
        return super().write(*args, **options)

    async def awrite(self, *args: Any, **options: Any) -> Any:
        return self.write(*args, **options)


@ours
@pytest.mark.parametrize("left", range(5))
def test_a_disk_that_is_full_ends_the_run(colour, left, durability):
    builder = StateGraph(Log).add_node("a", colour.letter("a")).add_node("b", colour.letter("b"))
    graph = builder.add_edge(START, "a").add_edge("a", "b").compile(checkpointer=NoDisk(left))
    witness = Fenced()
    _, error = colour.outcome(graph, IN, config(witness), durability=durability)
    witness.check()
    ends = witness.of("on_run_end", "on_run_error")
    assert len(ends) == 1
    assert (error is None) == (ends[0].status == "done")
    assert ends[0].error is error


@ours
@pytest.mark.parametrize("how", ["step timeout", "timeout", "deadline", "drain", "max_steps"])
def test_limits_end_the_run(colour, memory, how):
    """Of a superstep, an attempt, the whole run; and a drain."""
    gate, control = Gate(), RunControl()

    def wait(state: Any) -> Any:
        if how == "drain":
            control.request_drain("now")
        elif how != "max_steps":
            yield gate
        return {"l": ["n"]}

    builder = StateGraph(Log).add_node("n", colour.script(wait), timeout=0.05 if how == "timeout" else None)
    builder.add_node("m", colour.letter("m")).add_edge(START, "n").add_edge("n", "m")
    graph = builder.compile(checkpointer=memory)
    graph.step_timeout = 0.05 if how == "step timeout" else None
    options: Any = {"deadline": {"deadline": 0.05}, "drain": {"control": control}, "max_steps": {"max_steps": 1}}
    witness = Fenced()
    _, error = colour.outcome(graph, IN, config(witness), **options.get(how, {}))
    gate.set()
    witness.check()
    (end,) = witness.of("on_run_end", "on_run_error")
    assert error is not None
    assert (end.status, end.error) == (("drained", None) if how == "drain" else ("failed", error))


@ours
def test_a_ctrl_c_ends_the_run(memory):
    def strike(state: Any) -> Any:
        raise KeyboardInterrupt

    graph = StateGraph(Log).add_node("n", strike).add_edge(START, "n").compile(checkpointer=memory)
    witness = Fenced()
    with pytest.raises(KeyboardInterrupt):
        graph.invoke(IN, config(witness))
    witness.check()
    assert [type(event.error) for event in witness.of("on_task_error", "on_run_error")] == [KeyboardInterrupt] * 2


@ours
def test_a_reader_who_leaves_ends_the_run(memory):
    graph = asking(Colour("sync")).compile(checkpointer=memory)
    witness = Fenced()
    with graph.stream(IN, config(witness)) as chunks:
        next(chunks)
    witness.check()
    assert witness.said("on_run_end") == [("run_end", "LangGraph", "abandoned")]

    async def leave() -> None:
        async with graph.astream(IN, config(witness, thread="2")) as chunks:
            await anext(chunks)

    asyncio.run(leave())
    witness.check()


@ours
def test_a_cancelled_run_ends():
    gate = Gate()
    witness = Fenced()

    async def wait(state: Any) -> None:
        gate.set()
        await asyncio.Event().wait()

    async def run() -> None:
        task = asyncio.create_task(graph.ainvoke(IN, config(witness)))
        await gate.wait_async()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    graph = StateGraph(Log).add_node("n", wait).add_edge(START, "n").compile()
    asyncio.run(run())
    witness.check()
    assert isinstance(witness.of("on_run_error")[0].error, asyncio.CancelledError)
    assert witness.said("on_task_end") == [("task_end", "n", "abandoned")]


# ---- bodies


@ours
def test_what_is_set_on_entering_a_task_is_seen_inside(colour):
    """In the body's own context: by the node, what it calls, its router and its nested runs; by nobody else."""
    where: ContextVar[str] = ContextVar("where", default="outside")
    seen: list[tuple[str, str]] = []

    class Entering(GraphCallbackHandler):
        def enter_task(self, event: TaskEvent) -> None:
            where.set(f"{event.name}{event.attempt}")

    left = [1]

    def look(name: str, then: Any = None) -> Any:
        def node(state: Any) -> Any:
            seen.append((name, where.get()))
            if then is not None and left:
                left.pop()
                raise OSError("again")
            return {"l": [name]}

        return colour.node(node)

    def route(state: Any) -> str:
        seen.append(("route", where.get()))
        return "sub"

    inner = StateGraph(Log).add_node("i", look("i")).add_edge(START, "i").compile()
    builder = StateGraph(Log).add_node("a", look("a", "fails"), retry_policy=RETRY).add_node("b", look("b"))
    builder.add_node("sub", inner).add_edge(START, "a").add_edge(START, "b").add_conditional_edges("a", route, ["sub"])
    colour.invoke(builder.compile(), IN, config(Entering()))
    assert sorted(seen) == [("a", "a1"), ("a", "a2"), ("b", "b1"), ("i", "i1"), ("route", "a2")]
    assert where.get() == "outside"


# ---- handlers that fail


class Failing(GraphCallbackHandler):
    def __init__(self, where: str, *, is_async: bool, raise_error: bool) -> None:
        self.raise_error = raise_error

        def fail(event: Any) -> None:
            raise LookupError(where)

        async def afail(event: Any) -> None:
            fail(event)

        setattr(self, where, afail if is_async else fail)


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async handler"])
@pytest.mark.parametrize("hook", ["on_interrupt", "on_resume", "on_run_start", "on_task_start", "on_run_end"])
def test_a_failing_handler_is_logged_and_the_others_are_called(colour, memory, caplog, hook, is_async):
    graph = asking(colour).compile(checkpointer=memory)
    witness = Witness()
    failing = Failing(hook, is_async=is_async, raise_error=False)
    with caplog.at_level(logging.WARNING, logger="pregel.callbacks"):
        colour.invoke(graph, IN, config(failing, witness))
        assert colour.invoke(graph, Command(resume="yes"), config(failing, witness)) == {"l": ["in", "a", "yes"]}
    assert witness.of(hook)
    assert caplog.records
    assert hook in caplog.text


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async handler"])
@pytest.mark.parametrize("hook", ["on_interrupt", "on_resume", "on_run_start", "on_task_start", "on_run_end"])
def test_a_handler_may_want_its_error_to_be_raised(colour, memory, hook, is_async):
    graph = asking(colour).compile(checkpointer=memory)
    witness = Fenced()
    failing = Failing(hook, is_async=is_async, raise_error=True)
    if hook == "on_resume":
        colour.invoke(graph, IN, config())
    _, error = colour.outcome(graph, None if hook == "on_resume" else IN, config(failing, witness))
    assert isinstance(error, LookupError)
    assert witness.of(hook)
    witness.check()
    assert colour.invoke(graph, IN, config(thread="2"))["l"] == ["in", "a"]  # the graph is as it was


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
@pytest.mark.parametrize("hook", ["on_task_start", "on_task_end", "on_task_retry", "on_superstep_end"])
def test_what_a_handler_raises_is_no_failure_of_a_node(colour, hook, names):
    """It is not retried, nor handed to the node's handler."""
    calls: list[str] = []

    def node(state: Any) -> Any:
        calls.append("run")
        if hook == "on_task_retry" and calls.count("run") == 1:
            raise OSError("again")
        return {"l": ["n"]}

    def handle(state: Any) -> Any:
        calls.append("handled")

    again = RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=3, retry_on=Exception)
    builder = StateGraph(Log)
    for name in names:
        builder.add_node(name, colour.node(node), retry_policy=again, error_handler=colour.node(handle))
        builder.add_edge(START, name)
    witness = Fenced()
    failing = Failing(hook, is_async=colour.is_async, raise_error=True)
    _, error = colour.outcome(builder.compile(), IN, config(failing, witness))
    assert isinstance(error, LookupError)
    assert calls.count("run") <= len(names)
    assert "handled" not in calls
    witness.check()


@ours
def test_a_handler_that_raises_while_called_tasks_run(colour):
    """The pump of an inline body passes it on."""
    step = child(lambda value: value + 1)

    def node(state: Any) -> Any:
        return {"l": [current().spawn(step, 1).result()]}

    async def anode(state: Any) -> Any:
        return {"l": [await current().spawn(step, 1)]}

    class Raising(GraphCallbackHandler):
        raise_error = True

        def on_task_start(self, event: TaskEvent) -> None:
            if event.parent_task_id is not None:
                raise LookupError("told of the child")

    graph = StateGraph(Log).add_node("n", anode if colour.is_async else node).add_edge(START, "n").compile()
    witness = Fenced()
    _, error = colour.outcome(graph, IN, config(Raising(), witness))
    assert isinstance(error, LookupError)
    witness.check()


def test_a_nodes_error_comes_before_a_handlers(colour):
    def fail(state: Any) -> Any:
        raise ValueError("no")

    graph = StateGraph(Log).add_node("n", colour.node(fail)).add_edge(START, "n").compile()
    failing = Failing("on_run_error", is_async=False, raise_error=True)
    _, error = colour.outcome(graph, IN, config(failing))
    assert isinstance(error, ValueError)


def test_an_async_handler_of_a_sync_run_inside_a_running_loop():
    """Such a run blocks the loop anyhow; it does not wait for it."""
    graph = asking(Colour("sync")).compile(checkpointer=InMemorySaver())
    witness = Witness(is_async=True)

    async def main() -> None:
        graph.invoke(IN, config(witness))

    asyncio.run(main())
    assert len(witness.of("on_interrupt")) == 1


# ---- as a handler of langchain


def test_to_langchain_it_is_a_handler_that_ignores_what_it_does_not_override():
    class Models(GraphCallbackHandler):
        def on_llm_start(self, *args: Any, **kwargs: Any) -> str:
            return "heard"

    plain, models = GraphCallbackHandler(), Models()
    asked = [name for name in dir(plain) if name.startswith("ignore_")]
    assert len(asked) == 7
    assert all(getattr(plain, name) for name in asked)
    assert {name for name in asked if not getattr(models, name)} == {"ignore_llm", "ignore_chat_model"}
    assert (plain.raise_error, plain.run_inline) == (False, False)
    assert (plain.on_chain_start({}, {}), plain.on_text("x"), models.on_llm_start()) == (None, None, "heard")
    with pytest.raises(NotImplementedError):
        plain.on_chat_model_start({}, [])
    with pytest.raises(AttributeError):
        plain.unknown  # noqa: B018


# ---- trace policies


def test_what_a_policy_lets_observers_record(colour, caplog):
    def broken(value: Any) -> Any:
        raise LookupError("broken")

    policies = {
        "hidden": TracePolicy(process_inputs=omit_payload, process_outputs=lambda value: len(value)),
        "broken": TracePolicy(process_inputs=broken),
        "none": None,
    }
    builder = StateGraph(Log)
    for name, policy in policies.items():
        builder.add_node(name, colour.letter(name), trace_policy=policy).add_edge(START, name)
    witness = Witness()
    colour.invoke(builder.compile(), IN, config(witness))
    ends = {event.name: event for event in witness.of("on_task_end")}
    recorded = {name: (event.recorded_input(), event.recorded_output()) for name, event in ends.items()}
    assert recorded == {
        "hidden": ({}, 1),
        "broken": (IN, {"l": ["broken"]}),
        "none": (IN, {"l": ["none"]}),
    }
    assert {event.input["l"][0] for event in ends.values()} == {"in"}
    assert "broken" in caplog.text


def test_ids_of_runs():
    seen = []

    class Ids(GraphCallbackHandler):
        def on_run_start(self, event: RunEvent) -> None:
            seen.append(event.run_id)

    graph = asking(Colour("sync")).compile()
    given = uuid4()
    for run_id in (given, str(given), "text", "text", None):
        graph.invoke(IN, config(Ids(), run_id=run_id))
    assert seen[:2] == [given, given]
    assert seen[2] == seen[3]
    assert len(set(seen)) == 3


def test_side_by_side_in_threads():
    """One handler, several runs at once."""
    graph = asking(Colour("sync")).compile()
    witness = Fenced()
    threads = [threading.Thread(target=graph.invoke, args=(IN, config(witness, run_id=uuid4()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    witness.check()
    assert len(witness.of("on_run_end")) == 8
