"""Engine.md 8.1 to 8.4, row by row: a step in which something goes wrong, of a root graph and of one that is a node of
another; in both colours, with both savers, under every durability. Table 3 of design.md, rows h and i, wins over 8.1.
"""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.config import get_stream_writer
from pregel.errors import AttemptClosedError, GraphInterrupt, NodeCancelledError, ParentCommand
from pregel.graph import START, StateGraph
from pregel.types import Command, RetryPolicy, Send, interrupt
from tests.support.driving import within
from tests.support.scenarios import WAIT_LIMIT, Colour, Gate, Log, LogX, refused, steps


class Place:
    """Where a step goes wrong."""

    def __init__(self, colour: Colour, saver: Any, durability: Any, thread: Any, *, nested: bool) -> None:
        self.colour = colour
        self.saver = saver
        self.durability = durability
        self.thread = thread
        self.nested = nested
        self.graph: Any = None
        self.inner: Any = None
        self.step_timeout: float | None = None
        self.builder: Any = None

    def restart(self) -> None:
        """Go on in a process of its own, as far as anybody can tell: the graph is built anew, the file opened again."""
        if isinstance(self.saver, SqliteSaver):
            self.saver.close()
            self.saver = SqliteSaver(self.saver.conn)
        self.compile(self.builder)

    def build(self, retry: Any = None, step_timeout: float | None = None, **nodes: Any) -> None:
        """Nodes side by side."""
        builder = StateGraph(Log)
        for name, node in nodes.items():
            builder.add_node(name, node, retry_policy=retry).add_edge(START, name)
        self.step_timeout = step_timeout
        self.compile(builder)

    def compile(self, builder: Any) -> None:
        """The graph in which it goes wrong, inside of another one or not."""
        self.builder = builder
        if not self.nested:
            self.inner = self.graph = builder.compile(checkpointer=self.saver)
        else:
            self.inner = builder.compile()
            outer = StateGraph(Log).add_node("sub", self.inner).add_edge(START, "sub")
            self.graph = outer.compile(checkpointer=self.saver)
        self.inner.step_timeout = self.step_timeout

    def invoke(self, given: Any, **options: Any) -> Any:
        if given is None or isinstance(given, Command):
            self.restart()
        config = {**self.thread, **options.pop("config", {})}
        return self.colour.invoke(self.graph, given, config, durability=self.durability, **options)

    def outcome(self, given: Any, **options: Any) -> tuple[list[Any], BaseException | None]:
        """Chunks of the graph in which it goes wrong, and the error."""
        chunks, error = self.colour.outcome(
            self.graph, given, self.thread, durability=self.durability, subgraphs=True, **options
        )
        return [chunk[1:] if len(chunk) > 2 else chunk[1] for chunk in chunks if bool(chunk[0]) is self.nested], error

    @property
    def state(self) -> Any:
        """The newest state of the graph in which it goes wrong."""
        state = self.colour.get_state(self.graph, self.thread, subgraphs=True)
        return state.tasks[0].state if self.nested else state

    @property
    def results(self) -> dict[str, Any]:
        return {task.name: task.result and task.result["l"] for task in self.state.tasks}

    @property
    def errors(self) -> dict[str, Any]:
        return {task.name: task.error for task in self.state.tasks}


@pytest.fixture(params=[False, True], ids=["root", "nested"])
def place(request: pytest.FixtureRequest, colour: Colour, saver: Any, durability: Any, thread: Any) -> Iterator[Place]:
    made = Place(colour, saver, durability, thread, nested=request.param)
    yield made
    if isinstance(made.saver, SqliteSaver):
        made.saver.close()


class Failing:
    """Nodes of a step that fails: `ok` has finished before, `bad` fails, `slow` runs while it does."""

    def __init__(self, colour: Colour) -> None:
        self.ok_done, self.slow_runs, self.failed = Gate(), Gate(), Gate()
        self.seen: list[str] = []
        self.error = ValueError("boom")
        self.is_broken = True
        self.nodes: dict[str, Any] = {
            "ok": colour.node(self.ok),
            "bad": colour.script(self.bad),
            "slow": self.aslow if colour.is_async else self.slow,
        }

    def ok(self, state: Log) -> Any:
        self.seen.append("ok")
        self.ok_done.set()
        return {"l": ["ok"]}

    def bad(self, state: Log) -> Any:
        self.seen.append("bad")
        if self.is_broken:
            yield self.ok_done
            yield self.slow_runs
            self.failed.set()
            raise self.error
        return {"l": ["bad"]}

    def slow(self, state: Log) -> Any:
        self.seen.append("slow")
        self.slow_runs.set()
        if self.is_broken:
            self.failed.wait()
        self.seen.append("slow ended")
        return {"l": ["slow"]}

    async def aslow(self, state: Log) -> Any:
        self.seen.append("slow")
        self.slow_runs.set()
        try:
            await (asyncio.Event().wait() if self.is_broken else asyncio.sleep(0))
        except asyncio.CancelledError:
            self.seen.append("slow cancelled")
            raise
        self.seen.append("slow ended")
        return {"l": ["slow"]}


# --------------------------------------------------------------------------------------------------------------- 8.1


def test_a_failing_step(place: Place) -> None:
    failing = Failing(place.colour)
    place.build(**failing.nodes)
    with pytest.raises(ValueError) as caught:
        place.invoke({"l": ["in"]})
    assert caught.value is failing.error
    is_async = place.colour.is_async
    # Running siblings: sync ones are waited for, and what they wrote is kept; async ones are cancelled, and pending.
    assert ("slow cancelled" in failing.seen, "slow ended" in failing.seen) == (is_async, not is_async)
    assert place.results == {"ok": ["ok"], "bad": None, "slow": None if is_async else ["slow"]}
    assert place.errors == {"ok": None, "bad": "ValueError('boom')", "slow": None}
    assert set(place.state.next) == ({"bad", "slow"} if is_async else {"bad"})
    # No checkpoint for the step.
    history = steps(place.colour.history(place.graph, place.thread))
    assert history == ([("loop", 0)] if place.durability == "exit" else [("loop", 0), ("input", -1)])
    # Afterwards only what has not finished runs.
    failing.is_broken = False
    failing.seen.clear()
    end = place.invoke(None)["l"]
    assert end == (["in"] if place.nested else []) + ["in", "bad", "ok", "slow"]
    assert failing.seen == (["bad", "slow", "slow ended"] if is_async else ["bad"])


def test_chunks_of_a_failing_step_come_before_the_error(place: Place) -> None:
    failing = Failing(place.colour)
    place.build(**failing.nodes)
    chunks, error = place.outcome({"l": ["in"]}, stream_mode=["updates", "tasks", "values"])
    assert error is failing.error
    assert next(payload for mode, payload in chunks if mode == "updates") == {"ok": {"l": ["ok"]}}
    results = {payload["name"]: payload for mode, payload in chunks if mode == "tasks" and "error" in payload}
    assert results["ok"]["result"] == {"l": ["ok"]}
    assert (results["bad"]["error"], results["bad"]["result"]) == (failing.error, {})
    assert [payload for mode, payload in chunks if mode == "values"] == [{"l": ["in"]}]


def test_notes_name_the_tasks_from_the_inside(place: Place) -> None:
    error = ValueError("boom")

    def bad(state: Log) -> None:
        raise error

    place.build(bad=place.colour.node(bad), ok=place.colour.letter("ok"))
    with refused(ValueError, "boom"):
        place.invoke({"l": []})
    task = next(task for task in place.state.tasks if task.name == "bad")
    notes = [f"During task with name 'bad' and id '{task.id}'"]
    if place.nested:
        around = place.colour.get_state(place.graph, place.thread).tasks[0]
        notes.append(f"During task with name 'sub' and id '{around.id}'")
        assert around.error == "ValueError('boom')"
    assert len(error.__notes__) == len(notes)
    assert all(note.startswith(wanted) for note, wanted in zip(error.__notes__, notes, strict=True))


def test_a_note_for_each_attempt(place: Place) -> None:
    error = ConnectionError("boom")

    def bad(state: Log) -> None:
        raise error

    place.build(retry=RetryPolicy(max_attempts=3, initial_interval=0, jitter=False), bad=place.colour.node(bad))
    with refused(ConnectionError, "boom"):
        place.invoke({"l": []})
    assert len(error.__notes__) == 3 + place.nested


def test_tasks_that_wait_for_a_place_are_not_started(place: Place) -> None:
    begun: list[str] = []

    def bad(state: Log) -> None:
        begun.append("bad")
        raise ValueError("boom")

    place.build(bad=place.colour.node(bad), w1=place.colour.letter("w1", begun), w2=place.colour.letter("w2", begun))
    with refused(ValueError, "boom"):
        place.invoke({"l": []}, config={"max_concurrency": 1})
    assert begun == ["bad"]
    assert place.results == {"bad": None, "w1": None, "w2": None}
    assert place.errors == {"bad": "ValueError('boom')", "w1": None, "w2": None}


def test_of_two_failures_one_is_raised(place: Place) -> None:
    together = Gate()
    errors = [ValueError("one"), ValueError("two")]

    def node(error: Exception, *, opens: bool) -> Any:
        def bad(state: Log) -> Any:
            if opens:
                together.set()
            yield together
            raise error

        return place.colour.script(bad)

    place.build(b1=node(errors[0], opens=False), b2=node(errors[1], opens=True))
    with pytest.raises(ValueError) as caught:
        place.invoke({"l": []})
    assert caught.value in errors
    assert f"ValueError('{caught.value}')" in place.errors.values()
    assert set(place.state.next) == {"b1", "b2"}


def test_a_question_is_no_failure(place: Place) -> None:
    asked = Gate()

    def ask(state: Log) -> Any:
        asked.set()
        return {"l": [interrupt("q")]}

    def slow(state: Log) -> Any:
        yield asked
        return {"l": ["slow"]}

    place.build(ask=place.colour.node(ask), slow=place.colour.script(slow))
    chunks, error = place.outcome({"l": ["in"]}, stream_mode="values")
    assert error is None
    assert place.results == {"ask": None, "slow": ["slow"]}
    assert place.errors == {"ask": None, "slow": None}
    assert place.state.next == ("ask",)
    if not place.nested:
        assert chunks[-1] == {"l": ["in", "slow"]}
    assert place.invoke(Command(resume="R"))["l"][-2:] == ["R", "slow"]


def test_a_failure_beside_a_question(place: Place) -> None:
    asked, calls = Gate(), []  # type: ignore[var-annotated]
    broken = [True]

    def ask(state: Log) -> Any:
        calls.append("ask")
        asked.set()
        return {"l": [interrupt("q")]}

    def bad(state: Log) -> Any:
        calls.append("bad")
        yield asked
        if broken:
            raise ValueError("boom")
        return {"l": ["bad"]}

    place.build(ask=place.colour.node(ask), bad=place.colour.script(bad))
    with refused(ValueError, "boom"):
        place.invoke({"l": []})
    assert [question.value for question in place.state.interrupts] == ["q"]
    assert place.errors["bad"] == "ValueError('boom')"
    broken.clear()
    assert place.invoke(Command(resume="R"))["l"] == ["R", "bad"]
    assert sorted(calls) == ["ask", "ask", "bad", "bad"]


def test_sends_fail_like_nodes(place: Place) -> None:
    broken = [True]

    def work(arg: int) -> dict[str, Any]:
        if arg == 1 and broken:
            raise ValueError("boom")
        return {"l": [arg]}

    builder = StateGraph(Log).add_node("w", place.colour.node(work))
    builder.add_conditional_edges(START, lambda state: [Send("w", 0), Send("w", 1)])
    place.compile(builder)
    with refused(ValueError, "boom"):
        place.invoke({"l": []})
    assert [task.error for task in place.state.tasks] == [None, "ValueError('boom')"]
    broken.clear()
    assert place.invoke(None)["l"] == [0, 1]


# --------------------------------------------------------------------------------------------------------------- 8.2


def test_cancelled_error_of_the_body_itself_is_a_failure(place: Place) -> None:
    def bad(state: Log) -> Any:
        raise asyncio.CancelledError

    place.build(bad=place.colour.node(bad), ok=place.colour.letter("ok"))
    with refused(NodeCancelledError, "bad") as caught:
        place.invoke({"l": []})
    assert caught.value.node == "bad"
    assert str(place.errors["bad"]).startswith("NodeCancelledError(")


class Odd(BaseException):
    """No failure of a node, and nothing that Python knows."""


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Odd])
def test_other_base_exceptions_pass_and_are_not_stored(place: Place, kind: Any) -> None:
    error = kind("stop")

    def bad(state: Log) -> Any:
        raise error

    place.build(retry=RetryPolicy(retry_on=BaseException), bad=place.colour.node(bad))
    with pytest.raises(kind) as caught:
        place.invoke({"l": ["in"]})
    assert caught.value is error or place.colour.is_async
    assert place.colour.get_state(place.graph, place.thread).next == (("sub",) if place.nested else ("bad",))
    assert getattr(error, "__notes__", []) == []
    found = place.saver.get_tuple(place.thread)
    assert [write for write in found.pending_writes if write[1] == "__error__"] == []


@pytest.mark.parametrize("bubble", [GraphInterrupt, ParentCommand])
def test_control_flow_is_neither_tried_again_nor_recorded(place: Place, bubble: Any) -> None:
    calls: list[str] = []

    def leave(state: Log) -> Any:
        calls.append("leave")
        if bubble is GraphInterrupt:
            interrupt("q")
        return Command(graph=Command.PARENT, update={"l": ["up"]})

    place.build(retry=RetryPolicy(max_attempts=3, retry_on=Exception), leave=place.colour.node(leave))
    _, error = place.outcome({"l": ["in"]})
    assert calls == ["leave"]
    if bubble is ParentCommand and not place.nested:
        assert type(error) is ParentCommand
    else:
        assert error is None
    for checkpoint in place.saver.list(None):
        assert [write for write in checkpoint.pending_writes or () if write[1] == "__error__"] == []


# --------------------------------------------------------------------------------------------------------------- 8.3


@pytest.mark.parametrize("colour", ["async"], indirect=True)
@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_a_cancelled_call(place: Place, how: str) -> None:
    """Running tasks see it, finished ones are stored, and the call ends as cancelled."""
    ok_done, started, seen = Gate(), Gate(), []  # type: ignore[var-annotated]

    def ok(state: Log) -> dict[str, Any]:
        ok_done.set()
        return {"l": ["ok"]}

    async def wait(state: Log) -> None:
        try:
            await ok_done.wait_async()
            started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    place.build(ok=place.colour.node(ok), wait=wait)

    async def main() -> None:
        call = place.graph.ainvoke({"l": ["in"]}, place.thread, durability=place.durability)
        if how == "timeout":
            with pytest.raises(TimeoutError):  # noqa: PT012
                async with asyncio.timeout(None) as limit:
                    task = asyncio.create_task(started.wait_async())
                    task.add_done_callback(lambda _: limit.reschedule(0))
                    await call
            return
        running = asyncio.create_task(call)
        await started.wait_async()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert running.cancelled()

    asyncio.run(main())
    assert seen == ["cancelled"]
    assert (place.results, place.errors) == ({"ok": ["ok"], "wait": None}, {"ok": None, "wait": None})
    assert (place.state.values, place.state.next) == ({"l": ["in", "ok"]}, ("wait",))


# --------------------------------------------------------------------------------------------------------------- 8.4


def test_a_step_that_takes_too_long(place: Place) -> None:
    """Its unfinished tasks are cancelled or left, and pending; what has finished was shown and is stored."""
    free, left = threading.Event(), []  # type: ignore[var-annotated]

    def hang(state: Log) -> Any:
        free.wait(WAIT_LIMIT)
        return {"l": ["late"]}

    async def ahang(state: Log) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            left.append("cancelled")
            raise

    is_async = place.colour.is_async
    place.build(step_timeout=0.2, ok=place.colour.letter("ok"), hang=ahang if is_async else hang)
    try:
        chunks, error = within(lambda: place.outcome({"l": ["in"]}, stream_mode="updates"))
    finally:
        free.set()
    assert type(error) is TimeoutError
    assert left == (["cancelled"] if is_async else [])
    assert chunks == [{"ok": {"l": ["ok"]}}]
    assert place.results == {"ok": ["ok"], "hang": None}
    assert place.errors == {"ok": None, "hang": None}
    assert place.state.next == ("hang",)


def test_what_belongs_to_an_earlier_step_is_not_used_in_silence(place: Place) -> None:
    """A writer that a node kept: the node that uses it later does not count as finished."""
    writers: list[Any] = []

    def lend(state: Log) -> None:
        writers.append(get_stream_writer())

    def use(state: Log) -> Any:
        if writers:
            writers[0]("late")
        return {"l": ["used"]}

    builder = StateGraph(Log).add_node("lend", place.colour.node(lend)).add_node("use", place.colour.node(use))
    builder.add_edge(START, "lend").add_edge("lend", "use")
    place.compile(builder)
    with refused(AttemptClosedError, "lend"):
        place.invoke({"l": []})
    assert place.state.next == ("use",)
    writers.clear()
    assert place.invoke(None)["l"] == ["used"]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_places_of_nested_runs_that_a_failure_stops_are_free_again(colour: Colour, limit: int) -> None:
    """Nested bodies that wait at the gate, or were let in and not started, when a sibling of their caller fails (D12)."""

    def work(state: Any) -> Any:
        if state["x"] == 3:
            raise ValueError("no")
        return {"l": [state["x"]]}

    inner = StateGraph(LogX).add_node("w", colour.node(work)).add_edge(START, "w").compile()

    @colour.script
    def deep(state: Any) -> Any:
        result = yield inner, {"l": [], "x": state["x"]}
        return {"l": result["l"]}

    builder = StateGraph(LogX).add_node("w", colour.node(work)).add_node("deep", deep)
    sends = [Send("w" if n % 2 else "deep", {"x": n, "l": []}) for n in range(8)]
    builder.add_conditional_edges(START, lambda state: sends, ["w", "deep"])
    graph = builder.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}, "max_concurrency": limit}
    for given in ({"l": ["in"]}, None, None):
        with pytest.raises(ValueError, match="no"):
            within(lambda given=given: colour.invoke(graph, given, config))  # type: ignore[misc]
