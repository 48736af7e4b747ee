"""Limits of an attempt, of a run, and the end that a process asks for: frontends.md 2.2, 2.6, checklist 9 and 18,
promises.md 47 and 65. No limit is waited for longer than it takes: what is over it never ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from checkpoint.base import ThreadBusyError
from pregel.engine import limits, workers
from pregel.engine.core import Run
from pregel.errors import (
    AttemptClosedError,
    DeadlineExceededError,
    GraphDrained,
    GraphRecursionError,
    NodeTimeoutError,
    place_of,
)
from pregel.graph import START, StateGraph
from pregel.runtime import RunControl, Runtime
from pregel.types import RetryPolicy, Send, TimeoutPolicy, interrupt
from tests.acceptance.test_policies import AGAIN, alone, some_stages
from tests.support.scenarios import WAIT_LIMIT, Colour, Log, refused
from tests.support.stages import Stage

SHORT = 0.03
"""Seconds of a limit that is going to be exceeded."""


def limited_attempt(runtime: Runtime[Any]) -> Any:
    """The attempt with a limit that everything happens in."""
    scope = runtime.task_scope
    while scope.task.timeout is None:
        scope = scope.parent
    return scope


def run_is_over(runtime: Runtime[Any]) -> None:
    """Let the deadline of the run be now, whatever it was."""
    root = runtime.task_scope.host.root
    root.request.own_limits.due = 0.0
    root.keeper.stop()


def attempt_is_over(runtime: Runtime[Any]) -> None:
    """Let the attempt that is limited have begun long ago."""
    scope = limited_attempt(runtime)
    scope.task.started_at -= 1000.0
    scope.host.keeper.stop()


class Hanging:
    """A node that ends only when it is let go, or cancelled; what it sees of that. `then` is called once its siblings
    have ended."""

    def __init__(self, colour: Colour, then: Any = None) -> None:
        self.colour = colour
        self.then = then
        self.release = threading.Event()
        self.ended = threading.Event()
        self.seen: list[Any] = []
        self.is_broken = True
        self.node: Any = self.ahang if colour.is_async else self.hang

    def hang(self, state: Any, runtime: Runtime[Any]) -> Any:
        self.seen.append("began")
        if not self.is_broken:
            return {"l": ["done"]}
        while self.then and self.has_company(runtime):
            self.release.wait(0.001)
        if self.then:
            self.then(runtime)
        try:
            self.release.wait(WAIT_LIMIT)
            self.seen.append(("cancelled", runtime.cancelled))
            for late in (lambda: runtime.stream_writer("late"), runtime.heartbeat, lambda: runtime.once("late", int)):
                try:
                    late()
                except AttemptClosedError:
                    self.seen.append("refused")
            return {"l": ["late"]}
        finally:
            self.ended.set()

    async def ahang(self, state: Any, runtime: Runtime[Any]) -> Any:
        self.seen.append("began")
        if not self.is_broken:
            return {"l": ["done"]}
        while self.then and self.has_company(runtime):
            await asyncio.sleep(0)
        if self.then:
            self.then(runtime)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise

    def has_company(self, runtime: Runtime[Any]) -> bool:
        """Does a sibling still run?"""
        own = runtime.task_scope
        if own.host.keeper.inlined is not None:
            return False  # this thread is the one that would hear of it
        return any(not task.settled for task in own.host.tasks if task is not own.task)

    def let_go(self) -> None:
        """Let the body that was left end, and wait for that."""
        self.release.set()
        if not self.colour.is_async:
            assert self.ended.wait(WAIT_LIMIT)


@pytest.fixture
def hanging(colour: Colour) -> Iterator[Hanging]:
    made = Hanging(colour)
    yield made
    made.release.set()


# ----------------------------------------------------------------------------------------------- 2.2 limits of attempts


@pytest.mark.parametrize("kind", ["run", "idle"])
def test_a_node_over_its_limit(colour: Colour, hanging: Hanging, saver: Any, thread: Any, kind: str) -> None:
    """Sync or async: it is left, told, and nothing that it does afterwards has an effect."""
    policy = TimeoutPolicy(**{f"{kind}_timeout": SHORT})  # type: ignore[arg-type]
    graph = alone("hang", hanging.node, timeout=policy).compile(checkpointer=saver)
    chunks, error = colour.outcome(graph, {"l": []}, thread, stream_mode=["custom", "updates"])
    assert type(error) is NodeTimeoutError
    assert (error.node, error.kind, error.timeout, chunks) == ("hang", kind, SHORT, [])
    assert (error.run_timeout, error.idle_timeout) == ((SHORT, None) if kind == "run" else (None, SHORT))
    assert not isinstance(error, TimeoutError)
    hanging.let_go()
    late = ["cancelled"] if colour.is_async else [("cancelled", True), "refused", "refused", "refused"]
    assert hanging.seen == ["began", *late]
    state = colour.get_state(graph, thread)
    assert (state.values, state.next) == ({"l": []}, ("hang",))
    assert str(state.tasks[0].error).startswith("NodeTimeoutError(")
    hanging.is_broken = False
    assert colour.invoke(graph, None, thread) == {"l": ["done"]}


@some_stages
def test_a_later_attempt_after_one_over_its_limit(stage: Stage) -> None:
    """Both are the same task; a nested graph that the first one left goes on where it was."""
    hanging = Hanging(stage.colour, attempt_is_over)

    def build() -> StateGraph[Any]:
        inner = StateGraph(Log).add_node("one", stage.colour.letter("one", stage.calls)).add_node("hang", hanging.node)
        graph = inner.add_edge(START, "one").add_edge("one", "hang").compile()
        return alone("sub", graph, timeout=60, retry_policy=AGAIN._replace(max_attempts=2))

    stage.put_on(build)
    with refused(NodeTimeoutError, "sub"):
        stage.run({"l": ["in"]})
    # With this durability only a thread that ends can tell what its nested graph has come to.
    is_lost = stage.durability == "exit" and not stage.colour.is_async
    assert (stage.ran(), hanging.seen.count("began")) == (["one"] * (1 + is_lost), 2)
    hanging.is_broken = False
    assert stage.run(None)["l"][-2:] == ["one", "done"]
    assert stage.ran() == ["one"] * is_lost
    hanging.release.set()


def test_the_limit_of_a_send(colour: Colour, hanging: Hanging, thread: Any, saver: Any) -> None:
    """It counts instead of the node's, and is stored with the Send."""
    builder = StateGraph(Log).add_node("hang", hanging.node, timeout=60)
    builder.add_conditional_edges(START, lambda state: [Send("hang", {}, timeout=timedelta(seconds=SHORT))], ["hang"])
    graph = builder.compile(checkpointer=saver)
    for given in ({"l": []}, None):
        with refused(NodeTimeoutError, "hang") as caught:
            colour.invoke(graph, given, thread)
        assert caught.value.timeout == SHORT


def far(monkeypatch: Any) -> None:
    """From here on progress counts for a long time."""
    monkeypatch.setattr(Run, "now", lambda run: time.monotonic() + 1000.0)


@pytest.mark.parametrize(
    ("refresh_on", "by", "counts"),
    [
        ("auto", "heartbeat", True),
        ("auto", "chunk", True),
        ("heartbeat", "heartbeat", True),
        ("heartbeat", "chunk", False),
        ("auto", "nothing", False),
        ("auto", "nested chunk", True),
        ("auto", "nested heartbeat", True),
        ("heartbeat", "nested heartbeat", True),
        ("heartbeat", "nested chunk", False),
        ("auto", "nested step", True),
        ("heartbeat", "nested step", False),
    ],
)
def test_progress(colour: Colour, monkeypatch: Any, refresh_on: Any, by: str, counts: bool) -> None:
    """What keeps an attempt that takes long from being over its idle limit."""
    moved: list[bool] = []

    def look(runtime: Runtime[Any]) -> None:
        due = limits.deadline_of(limited_attempt(runtime).task)
        assert due is not None
        moved.append(due > time.monotonic() + 500.0)

    def work(state: Log, runtime: Runtime[Any]) -> Any:
        far(monkeypatch)
        if by.endswith("heartbeat"):
            runtime.heartbeat()
        elif by.endswith("chunk"):
            runtime.stream_writer("progress")
        look(runtime)

    def rest(state: Log, runtime: Runtime[Any]) -> Any:
        look(runtime)

    node: Any = colour.node(work)
    if by.startswith("nested"):
        inner = alone("work", node)
        if by == "nested step":
            inner.add_node("rest", colour.node(rest)).add_edge("work", "rest")
        node = inner.compile()
    graph = alone("node", node, timeout=TimeoutPolicy(idle_timeout=60, refresh_on=refresh_on)).compile()
    colour.stream(graph, {"l": []}, stream_mode="custom", subgraphs=True)
    assert moved[-1] == counts


def test_a_heartbeat_that_nobody_waits_for(colour: Colour) -> None:
    def work(state: Log, runtime: Runtime[Any]) -> Any:
        runtime.heartbeat()
        return {"l": ["ok"]}

    assert colour.invoke(alone("work", colour.node(work)).compile(), {"l": []}) == {"l": ["ok"]}


def test_errors_of_the_body_are_not_taken_for_its_limit(colour: Colour) -> None:
    for raised in (TimeoutError("own"), NodeTimeoutError("other", 1.0, kind="run", run_timeout=0.5)):

        def bad(state: Log, raised: Any = raised) -> Any:
            raise raised

        with pytest.raises(type(raised)) as caught:
            colour.invoke(alone("bad", colour.node(bad), timeout=60).compile(), {"l": []})
        assert caught.value is raised


class Looking(RunControl):
    """Looks at the limits of those who begin to wait for another attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def listen(self, listener: Any, wake: Any) -> None:
        super().listen(listener, wake)
        self.seen += [limits.deadline_of(task) for task in listener.run.tasks]


def test_waiting_for_the_next_attempt_takes_none_of_its_time(colour: Colour) -> None:
    attempts: list[int] = []
    control = Looking()

    def bad(state: Log) -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError("down")
        return {"l": ["ok"]}

    graph = alone("bad", colour.node(bad), timeout=60, retry_policy=AGAIN._replace(initial_interval=0.001)).compile()
    assert colour.invoke(graph, {"l": []}, control=control) == {"l": ["ok"]}
    assert control.seen == [None, None]


def test_waiting_for_a_place_takes_none_of_its_time(colour: Colour) -> None:
    seen: list[Any] = []

    def node(state: Log, runtime: Runtime[Any]) -> Any:
        tasks = runtime.task_scope.host.tasks
        seen.append([limits.deadline_of(task) is not None for task in tasks])

    builder = StateGraph(Log)
    for name in "ab":
        builder.add_node(name, colour.node(node), timeout=60).add_edge(START, name)
    colour.invoke(builder.compile(), {"l": []}, {"max_concurrency": 1})
    assert seen[0] == [True, False]
    assert seen[1][1]


def test_an_async_body_is_waited_for_while_it_cleans_up() -> None:
    """Within its grace period: the next attempt begins after that (checklist 18)."""
    seen: list[str] = []

    async def node(state: Log) -> Any:
        seen.append("began")
        if len(seen) > 1:
            return {"l": ["ok"]}
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned up")

    graph = alone("node", node, timeout=SHORT, retry_policy=AGAIN).compile()
    assert asyncio.run(graph.ainvoke({"l": []})) == {"l": ["ok"]}
    assert seen == ["began", "cleaned up", "began"]


@pytest.mark.parametrize("limit", ["node", "step", "run"])
def test_an_async_body_that_refuses_to_end_is_left(monkeypatch: Any, limit: str) -> None:
    monkeypatch.setattr(limits, "GRACE_S", SHORT)
    seen: list[str] = []

    async def main() -> None:
        release = asyncio.Event()

        async def node(state: Log) -> Any:
            while not release.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await release.wait()
            seen.append("ended")
            return {"l": ["late"]}

        graph = alone("node", node, timeout=SHORT if limit == "node" else None).compile()
        graph.step_timeout = SHORT if limit == "step" else None
        wanted = {"node": NodeTimeoutError, "step": TimeoutError, "run": DeadlineExceededError}
        with pytest.raises(wanted[limit]):
            await graph.ainvoke({"l": []}, deadline=SHORT if limit == "run" else None)
        assert seen == []
        release.set()
        while not seen:
            await asyncio.sleep(0)

    asyncio.run(main())
    assert seen == ["ended"]


def test_too_many_bodies_that_were_left(monkeypatch: Any) -> None:
    """The error names their nodes."""
    hanging = Hanging(Colour("sync"))
    monkeypatch.setattr(workers, "MAX_STUCK", len(workers.workers._stuck) + 1)
    graph = alone("hang", hanging.node, timeout=SHORT).compile()
    try:
        for _ in range(2):
            with refused(NodeTimeoutError, "hang"):
                graph.invoke({"l": []})
        with refused(RuntimeError, "'hang' (2)", "runtime.cancelled"):
            graph.invoke({"l": []})
    finally:
        hanging.release.set()


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf"), timedelta(0)])
def test_limits_that_mean_nothing(wrong: Any) -> None:
    node = Colour("sync").letter("a")
    for refusing in (
        lambda: StateGraph(Log).add_node("a", node, timeout=wrong),
        lambda: StateGraph(Log).set_node_defaults(timeout=wrong),
        lambda: Send("a", {}, timeout=wrong),
        lambda: TimeoutPolicy(run_timeout=wrong),
        lambda: TimeoutPolicy(idle_timeout=wrong),
    ):
        with refused(ValueError, "timeout must be greater than 0"):
            refusing()


@pytest.mark.parametrize("wrong", ["1", True, [1], RetryPolicy()])
def test_limits_that_are_no_time(wrong: Any) -> None:
    for refusing in (
        lambda: StateGraph(Log).add_node("a", Colour("sync").letter("a"), timeout=wrong),
        lambda: Send("a", {}, timeout=wrong),
        lambda: TimeoutPolicy(idle_timeout=wrong),
    ):
        with refused(TypeError, "seconds"):
            refusing()


# --------------------------------------------------------------------------------------------- promise 47: whole runs


class Way:
    """Steps that can be counted: a, b, ok beside the one that hangs, c."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.hanging = Hanging(stage.colour, run_is_over)

    def build(self) -> StateGraph[Any]:
        letter = self.stage.colour.letter
        builder = StateGraph(Log).add_node("hang", self.hanging.node)
        for name in ("a", "b", "ok", "c"):
            builder.add_node(name, letter(name, self.stage.calls))
        builder.add_edge(START, "a").add_edge("a", "b").add_edge("b", "ok").add_edge("b", "hang")
        return builder.add_edge(["ok", "hang"], "c")


def loses_nested(stage: Stage) -> bool:
    """A thread that is left cannot be asked what a nested run on it has done and, with this durability, not stored."""
    return stage.durability == "exit" and stage.depth > 1 and not stage.colour.is_async


def test_a_run_over_its_deadline(stage: Stage) -> None:
    """It ends where it is: supersteps and finished tasks are kept, nothing is an error, and it can be gone on with."""
    way = Way(stage)
    stage.put_on(way.build)
    _, error = stage.outcome({"l": ["in"]}, deadline=60)
    way.hanging.release.set()
    assert type(error) is DeadlineExceededError
    assert error.deadline is not None
    assert error.ready == (("sub",) if stage.depth > 1 else ("hang",))
    assert error.config == stage.root
    assert error.values == ({"l": ["in"]} if stage.depth > 1 else {"l": ["in", "a", "b"]})
    place = place_of(error)
    assert place is not None
    assert place.config == stage.root
    way.hanging.is_broken = False
    ran = stage.ran()
    if loses_nested(stage):
        assert stage.run(None)["l"][-5:] == ["a", "b", "done", "ok", "c"]
        return
    assert ran == ["a", "b", "ok"]
    state = stage.seen_from_outside()
    assert state.next == ("hang",)
    assert {task.name: (task.error, task.result) for task in state.tasks} == {
        "hang": (None, None),
        "ok": (None, {"l": ["ok"]}),
    }
    assert stage.run(None, error.config, deadline=60)["l"][-5:] == ["a", "b", "done", "ok", "c"]
    assert stage.ran() == ["c"]


def test_a_deadline_that_has_passed(colour: Colour, saver: Any, thread: Any, durability: Any) -> None:
    """No superstep begins after it; the input is stored."""
    calls: list[str] = []
    graph = alone("a", colour.letter("a", calls)).compile(checkpointer=saver)
    past = datetime.now(UTC) - timedelta(seconds=1)
    with refused(DeadlineExceededError, "'__start__'", "invoke(None, error.config)") as caught:
        colour.invoke(graph, {"l": ["in"]}, thread, deadline=past, durability=durability)
    assert (calls, caught.value.deadline) == ([], past)
    assert colour.invoke(graph, None, caught.value.config) == {"l": ["in", "a"]}


def test_a_deadline_without_a_saver(colour: Colour, hanging: Hanging) -> None:
    graph = StateGraph(Log).add_node("a", colour.letter("a")).add_node("hang", hanging.node)
    compiled = graph.add_edge(START, "a").add_edge("a", "hang").compile()
    chunks, error = colour.outcome(compiled, {"l": []}, deadline=timedelta(seconds=SHORT), stream_mode="updates")
    assert type(error) is DeadlineExceededError
    assert (error.config, "no saver" in str(error)) == (None, True)
    if chunks:  # it may be over before the first one
        assert (chunks, error.values) == ([{"a": {"l": ["a"]}}], {"l": ["a"]})


def test_a_deadline_that_is_kept(stage: Stage) -> None:
    way = Way(stage)
    way.hanging.is_broken = False
    stage.put_on(way.build)
    assert stage.run({"l": ["in"]}, deadline=60, max_steps=100) == stage.around("in", "a", "b", "done", "ok", "c")


def test_a_deadline_of_a_nested_call_is_its_nodes_business(colour: Colour, hanging: Hanging) -> None:
    inner = alone("hang", hanging.node).compile()

    def call(state: Log) -> Any:
        return inner.invoke({"l": []}, deadline=SHORT)

    async def acall(state: Log) -> Any:
        return await inner.ainvoke({"l": []}, deadline=SHORT)

    def handle(state: Log) -> Any:
        return {"l": ["handled"]}

    node = acall if colour.is_async else call
    graph = alone("call", node, error_handler=colour.node(handle)).compile()
    assert colour.invoke(graph, {"l": []}) == {"l": ["handled"]}


def test_a_deadline_limits_the_waiting_for_the_thread_too(memory: Any, thread: Any) -> None:
    entered, go = threading.Event(), threading.Event()

    def hold(state: Log) -> Any:
        entered.set()
        go.wait(WAIT_LIMIT)

    graph = alone("hold", hold).compile(checkpointer=memory)
    holder = threading.Thread(target=graph.invoke, args=({"l": []}, thread))
    holder.start()
    try:
        assert entered.wait(WAIT_LIMIT)
        with pytest.raises(ThreadBusyError):
            graph.invoke({"l": []}, thread, on_conflict="wait", deadline=SHORT)
    finally:
        go.set()
        holder.join()


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"deadline": 0}, ValueError, "deadline"),
        ({"deadline": -3}, ValueError, "deadline"),
        ({"deadline": float("nan")}, ValueError, "deadline"),
        ({"deadline": datetime(2030, 1, 1)}, ValueError, "time zone"),
        ({"deadline": "soon"}, TypeError, "deadline"),
        ({"deadline": True}, TypeError, "deadline"),
        ({"max_steps": 0}, ValueError, "max_steps"),
        ({"max_steps": -1}, ValueError, "max_steps"),
        ({"max_steps": 2.0}, TypeError, "max_steps"),
        ({"max_steps": True}, TypeError, "max_steps"),
        ({"max_steps": "3"}, TypeError, "max_steps"),
    ],
)
def test_limits_of_a_run_that_mean_nothing(
    colour: Colour, memory: Any, thread: Any, options: Any, error: Any, named: str
) -> None:
    """Nothing is stored then."""
    graph = alone("a", colour.letter("a")).compile(checkpointer=memory)
    with refused(error, named):
        colour.invoke(graph, {"l": []}, thread, **options)
    assert list(memory.list(None)) == []


def test_a_budget_of_supersteps(stage: Stage) -> None:
    """Those of nested graphs count too. Each call has its own; the run comes to its end all the same."""
    way = Way(stage)
    way.hanging.is_broken = False
    stage.put_on(way.build)
    given: Any = {"l": ["in"]}
    errors = []
    for _ in range(10):
        _, error = stage.outcome(given, max_steps=2 * stage.depth + 1)
        given = None
        if error is None:
            break
        assert type(error) is GraphRecursionError
        assert (error.limit, error.config) == (2 * stage.depth + 1, stage.root)
        errors.append(error)
    # All but two are for taking in the input, in each graph, and those of the graphs around.
    assert len(errors) == 1
    assert errors[0].ready == (() if stage.depth > 1 else ("hang", "ok"))
    assert stage.ran() == ["a", "b", "c", "ok"]
    result = stage.colour.get_state(stage.graph, stage.root)
    assert (result.values, result.next) == (stage.around("in", "a", "b", "done", "ok", "c"), ())


def test_a_budget_of_a_nested_call(colour: Colour) -> None:
    """The inner one is the node's business, the outer one ends the whole."""
    inner = alone("a", colour.letter("a")).add_node("b", colour.letter("b")).add_edge("a", "b").compile()

    def call(state: Log) -> Any:
        options = {} if state["l"] else {"max_steps": 1}
        return inner.invoke({"l": []}, **options)

    async def acall(state: Log) -> Any:
        options = {} if state["l"] else {"max_steps": 1}
        return await inner.ainvoke({"l": []}, **options)

    def handle(state: Log) -> Any:
        return {"l": ["handled"]}

    graph = alone("call", acall if colour.is_async else call, error_handler=colour.node(handle)).compile()
    assert colour.invoke(graph, {"l": []}, max_steps=9) == {"l": ["handled"]}
    with refused(GraphRecursionError, "max_steps=2"):
        colour.invoke(graph, {"l": ["x"]}, max_steps=2)


# ------------------------------------------------------------------------------------------------------- 2.6 draining


def test_a_drain(stage: Stage) -> None:
    """The step ends and is stored; of a nested run that is the run around it as well."""

    def a(state: Log, runtime: Runtime[Any]) -> Any:
        stage.calls.append("a")
        assert runtime.control is not None
        runtime.control.request_drain("enough")
        return {"l": [runtime.drain_requested, runtime.drain_reason]}

    def build() -> StateGraph[Any]:
        builder = alone("a", stage.colour.node(a)).add_node("b", stage.colour.letter("b", stage.calls))
        return builder.add_edge("a", "b")

    stage.put_on(build)
    chunks, error = stage.outcome({"l": ["in"]}, stream_mode="updates", subgraphs=True)
    assert (type(error), getattr(error, "reason", None)) == (GraphDrained, "enough")
    assert [list(chunk) for _, chunk in chunks] == [["a"]]
    state = stage.seen_from_outside()
    assert (state.next, state.values["l"][-2:]) == (("b",), [True, "enough"])
    # A control that was used is used up: nothing runs.
    control = RunControl()
    control.request_drain()
    with refused(GraphDrained, "shutdown"):
        stage.run(None, control=control)
    assert stage.ran() == ["a"]
    assert stage.run(None) == stage.around("in", True, "enough", "b")
    assert stage.ran() == ["b"]


@pytest.mark.parametrize("end", ["finished", "failed", "asked", "left"])
def test_a_control_lets_go_of_its_runs(colour: Colour, memory: Any, thread: Any, end: str) -> None:
    """One may serve all runs of a program for as long as it lives."""
    control, listened = RunControl(drain_deadline=60), []  # type: ignore[var-annotated]

    def wait(state: Log) -> Any:
        listened.append(len(getattr(control, "_hears", ())))
        if end == "failed":
            raise ValueError("boom")
        return {"l": [interrupt("q") if end == "asked" else "done"]}

    builder = StateGraph(Log).add_node("first", colour.letter("first")).add_node("wait", colour.node(wait))
    builder.add_node("beside", colour.letter("beside")).add_edge(START, "beside").add_edge(START, "wait")
    graph = builder.add_edge(START, "first").compile(checkpointer=memory)
    options = {"control": control}
    if end == "left":
        leave(colour, graph, thread, options)
    else:
        colour.outcome(graph, {"l": []}, thread, **options)
    assert listened == [1] or end == "left"
    assert not getattr(control, "_hears", {})


def leave(colour: Colour, graph: Any, thread: Any, options: Any) -> None:
    """Read one chunk of a stream and close it."""

    async def main() -> None:
        stream = graph.astream({"l": []}, thread, stream_mode="updates", **options)
        await anext(stream)
        await stream.aclose()

    if colour.is_async:
        asyncio.run(main())
    else:
        stream = graph.stream({"l": []}, thread, stream_mode="updates", **options)
        next(stream)
        stream.close()


def test_a_drain_in_the_last_step(colour: Colour) -> None:
    control = RunControl()

    def a(state: Log) -> Any:
        control.request_drain("first")
        control.request_drain("second")
        return {"l": ["a"]}

    assert colour.invoke(alone("a", colour.node(a)).compile(), {"l": []}, control=control) == {"l": ["a"]}
    assert (control.drain_requested, control.drain_reason) == (True, "second")


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_drain_that_takes_too_long(stage: Stage, how: str) -> None:
    """What runs then is ended where it is, and stays pending."""
    way = Way(stage)
    way.hanging.then = None
    control = RunControl(drain_deadline=SHORT if how == "deadline" else 60)

    def ok(state: Log) -> Any:
        (control.request_drain if how == "deadline" else control.request_cancel)("deploy")
        return {"l": ["ok"]}

    def build() -> StateGraph[Any]:
        builder = alone("hang", way.hanging.node).add_node("ok", stage.colour.node(ok)).add_edge(START, "ok")
        return builder.add_node("c", stage.colour.letter("c")).add_edge(["ok", "hang"], "c")

    stage.put_on(build)
    with refused(GraphDrained, "deploy"):
        stage.run({"l": ["in"]}, control=control)
    way.hanging.release.set()
    if not loses_nested(stage):
        state = stage.seen_from_outside()
        assert "hang" in state.next
        assert {task.name: task.error for task in state.tasks} == {"hang": None, "ok": None}
    way.hanging.is_broken = False
    assert stage.run(None)["l"][-3:] == ["done", "ok", "c"]


@pytest.mark.parametrize("wrong", [0, -1, float("inf")])
def test_a_deadline_for_drains_that_means_nothing(wrong: Any) -> None:
    with refused(ValueError, "drain_deadline"):
        RunControl(drain_deadline=wrong)
    with refused(TypeError, "drain_deadline"):
        RunControl(drain_deadline="1")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ promise 65: signals


@pytest.fixture
def handlers() -> Iterator[list[int]]:
    """Signals whose earlier handler, of the test, was called; what there was before is put back."""
    called: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        signal.signal(number, lambda number, frame: called.append(number))
    yield called
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_signals_drain(colour: Colour, saver: Any, thread: Any, durability: Any, handlers: list[int]) -> None:
    def a(state: Log) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return {"l": ["a"]}

    graph = alone("a", colour.node(a)).add_node("b", colour.letter("b")).add_edge("a", "b").compile(checkpointer=saver)
    earlier = signal.getsignal(signal.SIGTERM)
    control = RunControl()
    with control.install_signal_handlers() as installed, refused(GraphDrained, "SIGTERM"):
        colour.invoke(graph, {"l": []}, thread, control=control, durability=durability)
    assert signal.getsignal(signal.SIGTERM) is earlier
    assert (installed.received, handlers) == (1, [])
    assert colour.get_state(graph, thread).next == ("b",)
    assert colour.invoke(graph, None, thread) == {"l": ["a", "b"]}


@pytest.mark.parametrize("how", ["deadline", "again"])
def test_signals_end_what_goes_on(
    colour: Colour, hanging: Hanging, memory: Any, thread: Any, handlers: Any, how: str
) -> None:
    """After the deadline, or at the second one; the third goes where it went before."""

    def ok(state: Log) -> Any:
        signal.raise_signal(signal.SIGINT)
        if how == "again":
            signal.raise_signal(signal.SIGTERM)
        return {"l": ["ok"]}

    graph = alone("hang", hanging.node).add_node("ok", colour.node(ok)).add_edge(START, "ok")
    compiled = graph.compile(checkpointer=memory)
    control = RunControl()
    with control.install_signal_handlers(drain_deadline=SHORT if how == "deadline" else 60):
        with pytest.raises(GraphDrained):
            colour.invoke(compiled, {"l": []}, thread, control=control)
        assert handlers == []
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert handlers == ([signal.SIGINT] if how == "deadline" else [signal.SIGINT] * 2)
    assert "hang" in colour.get_state(compiled, thread).next


def test_a_signal_wakes_a_loop_that_waits(memory: Any, thread: Any, handlers: list[int]) -> None:
    """It comes while nothing runs on the loop's thread."""
    del handlers
    hanging = Hanging(Colour("async"))
    graph = alone("hang", hanging.node).compile(checkpointer=memory)
    control = RunControl()
    waits = threading.Event()
    hanging.seen = Noted(waits)
    main = threading.get_ident()
    sender = threading.Thread(target=lambda: (waits.wait(WAIT_LIMIT), signal.pthread_kill(main, signal.SIGTERM)))
    sender.start()
    with control.install_signal_handlers(signal.SIGTERM, drain_deadline=SHORT), pytest.raises(GraphDrained):
        asyncio.run(graph.ainvoke({"l": []}, thread, control=control))
    sender.join()
    assert hanging.seen == ["began", "cancelled"]


class Noted(list[Any]):
    """A list that tells when something is noted in it."""

    def __init__(self, told: threading.Event) -> None:
        super().__init__()
        self.told = told

    def append(self, item: Any) -> None:
        super().append(item)
        self.told.set()


def test_handlers_of_others_stay(handlers: list[int]) -> None:
    control = RunControl()
    installed = control.install_signal_handlers(signal.SIGTERM, signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    installed.restore()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    installed.restore()


def test_where_signals_cannot_be_handled(handlers: list[int]) -> None:
    earlier = signal.getsignal(signal.SIGTERM)
    for wrong in (signal.SIGKILL, 9999, "SIGTERM", None):
        with refused(ValueError, "install_signal_handlers"):
            RunControl().install_signal_handlers(signal.SIGTERM, wrong)  # type: ignore[arg-type]
        assert signal.getsignal(signal.SIGTERM) is earlier
    with refused(ValueError, "drain_deadline"):
        RunControl().install_signal_handlers(drain_deadline=-1)
    errors: list[BaseException] = []

    def install() -> None:
        try:
            RunControl().install_signal_handlers()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=install, name="aside")
    thread.start()
    thread.join()
    assert "'aside'" in str(errors[0])
