"""Leaving a run early: at a chunk, with Ctrl-C, by cancelling. It returns at once, and the thread can be resumed
(promise 44; design.md D29, D56, section 3 table row h)."""

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from pregel.config import get_stream_writer
from pregel.engine import workers as workers_module
from pregel.errors import AttemptClosedError
from pregel.graph import START, StateGraph
from pregel.runtime import Runtime
from tests.support.driving import within
from tests.support.scenarios import WAIT_LIMIT, Colour, Log


class Stuck:
    """A sync node that goes on until the test lets it, whatever becomes of its run."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.free = threading.Event()
        self.ended = threading.Semaphore(0)
        self.when_started: Callable[[], object] = lambda: None
        self.told: list[bool] = []
        self.refused: list[type[BaseException]] = []

    def __call__(self, state: Log, runtime: Runtime[Any]) -> dict[str, Any]:
        self.told.append(runtime.cancelled)
        self.started.release()
        self.when_started()
        self.free.wait(WAIT_LIMIT)
        self.told.append(runtime.cancelled)
        try:
            get_stream_writer()("late")
        except BaseException as error:
            self.refused.append(type(error))
            raise
        finally:
            self.ended.release()
        return {"l": ["stuck"]}

    def has_started(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.started.acquire(timeout=WAIT_LIMIT)

    def has_ended(self, count: int = 1) -> None:
        self.free.set()
        for _ in range(count):
            assert self.ended.acquire(timeout=WAIT_LIMIT)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    node = Stuck()
    yield node
    node.free.set()


@pytest.fixture(params=["root", "nested"])
def shape(request: pytest.FixtureRequest) -> Any:
    return request.param


def beside(stuck: Any, saver: Any, shape: str = "root", others: int = 1) -> Any:
    """Nodes that finish at once beside one that does not; on its own or as a node of another graph."""
    colour = Colour("async" if asyncio.iscoroutinefunction(stuck) else "sync")
    builder = StateGraph(Log)
    for number in range(others):
        builder.add_node(f"ok{number}", colour.node(lambda state: {"l": ["ok"]})).add_edge(START, f"ok{number}")
    builder.add_node("stuck", stuck).add_edge(START, "stuck")
    if shape == "root":
        return builder.compile(checkpointer=saver)
    return StateGraph(Log).add_node("sub", builder.compile()).add_edge(START, "sub").compile(checkpointer=saver)


def finished(colour: Colour, graph: Any, thread: Any) -> list[str]:
    """Names of finished tasks of the innermost open graph."""
    state = colour.get_state(graph, thread, subgraphs=True)
    while state.tasks and getattr(state.tasks[0], "state", None) is not None:
        state = state.tasks[0].state
    return sorted(task.name for task in state.tasks if task.result is not None)


# ------------------------------------------------------------------------------------------------------ sync: streams


@pytest.mark.parametrize("colour", ["sync"], indirect=True)
@pytest.mark.parametrize("modes", ["updates", ["updates", "custom"]])
def test_leaving_does_not_wait_for_threads(
    colour: Colour, saver: Any, durability: Any, thread: Any, stuck: Stuck, shape: str, modes: Any
) -> None:
    graph = beside(stuck, saver, shape)

    def leave() -> None:
        options = {"stream_mode": modes, "subgraphs": True, "durability": durability}
        with graph.stream({"l": ["in"]}, thread, **options) as chunks:
            next(chunks)
            stuck.has_started()

    within(leave)
    assert stuck.told == [False]
    if shape == "root":
        assert finished(colour, graph, thread) == ["ok0"]
    stuck.has_ended()
    assert stuck.told == [False, True]
    assert stuck.refused == [AttemptClosedError]
    late = finished(colour, graph, thread)
    # The nested run is another thread's: it may be left before it has stored what it shows, with `exit` it always is.
    assert late == ["ok0"] or (shape == "nested" and late == [])
    assert colour.invoke(graph, None, thread)["l"][-2:] == ["ok", "stuck"]


def test_left_threads_do_not_use_up_the_pool(monkeypatch: Any, stuck: Stuck) -> None:
    monkeypatch.setattr(workers_module, "LIMIT", 8)
    graph = beside(stuck, None)
    deep = beside(stuck, None, "nested")
    for number in range(20):
        with (graph if number % 2 else deep).stream({"l": []}, stream_mode="updates", subgraphs=True) as chunks:
            next(chunks)
            stuck.has_started()
    stuck_too = Stuck()
    stuck_too.free.set()
    assert within(lambda: beside(stuck_too, None, others=10).invoke({"l": []})) == {"l": ["ok"] * 10 + ["stuck"]}
    stuck.has_ended(20)


# ------------------------------------------------------------------------------------------------------- sync: Ctrl-C


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Ctrl-C as the terminal sends it, to the main thread; the function that sends it may be called from any thread."""
    main = threading.main_thread().ident
    assert main is not None
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # a finalizer that it comes in would swallow it
    try:
        yield lambda: signal.pthread_kill(main, signal.SIGINT)
    finally:
        gc.enable()
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("others", [0, 1, 5])
@pytest.mark.parametrize("streams", [False, True])
def test_ctrl_c_while_the_main_thread_waits_for_workers(
    saver: Any, durability: Any, thread: Any, stuck: Stuck, shape: str, streams: bool, others: int
) -> None:
    colour = Colour("sync")
    graph = beside(stuck, saver, shape, others)
    stuck.free = threading.Event()
    with interruptible() as ctrl_c:
        stuck.when_started = ctrl_c
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            if streams:
                list(graph.stream({"l": ["in"]}, thread, durability=durability, stream_mode="custom"))
            else:
                graph.invoke({"l": ["in"]}, thread, durability=durability)
    stuck.when_started = lambda: None
    state = colour.get_state(graph, thread)
    assert "stuck" in state.next or state.next == ("sub",)
    stuck.free.set()
    assert colour.invoke(graph, None, thread)["l"][-others - 1 :] == ["ok"] * others + ["stuck"]


def test_ctrl_c_in_a_batch(memory: Any, stuck: Stuck) -> None:
    """Its runs are on other threads: they end at their next superstep."""
    after: list[str] = []
    builder = StateGraph(Log).add_node("stuck", stuck).add_node("after", lambda state: after.append("after"))
    graph = builder.add_edge(START, "stuck").add_edge("stuck", "after").compile(checkpointer=memory)
    configs: list[Any] = [{"configurable": {"thread_id": str(number)}} for number in range(3)]
    arrived = threading.Barrier(3, timeout=WAIT_LIMIT)
    with interruptible() as ctrl_c:

        def strike() -> None:
            if arrived.wait() == 0:
                ctrl_c()

        stuck.when_started = strike
        with pytest.raises(KeyboardInterrupt):
            graph.batch([{"l": []}] * 3, configs)
    stuck.has_ended(3)
    assert after == []
    for config in configs:
        within(partial(until, lambda config=config: graph.get_state(config).next == ("after",)))


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        pass


def test_ctrl_c_again_while_leaving(memory: Any, thread: Any, stuck: Stuck) -> None:
    """The second one does not even wait for what is being stored; the thread is free all the same."""
    graph = beside(stuck, memory)
    strokes = []
    original = type(memory).write

    def write(*args: Any, **options: Any) -> Any:
        if strokes:
            strokes.append("again")
            raise KeyboardInterrupt
        return original(memory, *args, **options)

    with interruptible() as ctrl_c:

        def first() -> None:
            strokes.append("first")
            ctrl_c()

        stuck.when_started = first
        memory.write = write
        with pytest.raises(KeyboardInterrupt):
            graph.invoke({"l": ["in"]}, thread, durability="exit")
    del memory.write
    assert strokes == ["first", "again"]
    stuck.when_started = lambda: None
    stuck.free.set()
    assert graph.invoke({"l": ["new"]}, thread)["l"] == ["new", "ok", "stuck"]


def test_ctrl_c_in_an_event_loop(memory: Any, thread: Any, stuck: Stuck) -> None:
    """asyncio turns it into a cancellation: sync bodies are left, async ones cancelled and awaited."""
    seen: list[str] = []

    async def wait(state: Log) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.append("cleaned up")
            raise

    builder = StateGraph(Log).add_node("wait", wait).add_edge(START, "wait")
    graph = builder.add_node("stuck", stuck).add_edge(START, "stuck").compile(checkpointer=memory)
    with interruptible() as ctrl_c:

        async def main() -> None:
            # On the loop's own thread, or the signal may come between two looks of the loop, and wake nobody.
            stuck.when_started = partial(asyncio.get_running_loop().call_soon_threadsafe, ctrl_c)
            await graph.ainvoke({"l": ["in"]}, thread)

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
    assert seen == ["cleaned up"]
    assert set(graph.get_state(thread).next) == {"wait", "stuck"}


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_body_that_raises_it_does_not_wait_for_its_siblings(
    memory: Any, thread: Any, stuck: Stuck, kind: Any
) -> None:
    def strike(state: Log) -> None:
        stuck.has_started()
        raise kind

    builder = StateGraph(Log).add_node("strike", strike).add_edge(START, "strike")
    graph = builder.add_node("stuck", stuck).add_edge(START, "stuck").compile(checkpointer=memory)

    def run() -> None:
        with pytest.raises(kind):
            graph.invoke({"l": ["in"]}, thread)

    within(run)
    assert graph.get_state(thread).next == ("strike", "stuck")


# -------------------------------------------------------------------------------------------------------------- async


def waiting(started: asyncio.Event, seen: list[str]) -> Any:
    async def stuck(state: Log) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.append("cleaned up")
            raise

    return stuck


@pytest.mark.parametrize("how", ["aclose", "async with", "cancel in the body of the loop", "cancel while it waits"])
@pytest.mark.parametrize("colour", ["async"], indirect=True)
def test_leaving_cancels_and_awaits_async_bodies(
    colour: Colour, saver: Any, durability: Any, thread: Any, shape: str, how: str
) -> None:
    seen: list[str] = []

    async def main() -> Any:
        started, there = asyncio.Event(), asyncio.Event()
        graph = beside(waiting(started, seen), saver, shape)
        options: Any = {"stream_mode": "updates", "subgraphs": True, "durability": durability}
        stream = graph.astream({"l": ["in"]}, thread, **options)
        if how in ("aclose", "async with"):
            await anext(stream)
            await started.wait()
            if how == "aclose":
                await stream.aclose()
            else:
                async with stream:
                    pass
            return graph

        async def read() -> None:
            async with stream:
                await anext(stream)
                await started.wait()
                there.set()
                if how == "cancel while it waits":
                    await anext(stream)
                await asyncio.Event().wait()

        reading = asyncio.create_task(read())
        await there.wait()
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        return graph

    graph = asyncio.run(main())
    assert seen == ["cleaned up"]
    assert finished(colour, graph, thread) == ["ok0"]


def test_whoever_is_cancelled_again_does_not_wait_for_cleanup(saver: Any, durability: Any, thread: Any) -> None:
    """But for what is being stored."""

    async def main() -> Any:
        started, cleaning = asyncio.Event(), asyncio.Event()

        async def stubborn(state: Log) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cleaning.set()
                await asyncio.Event().wait()

        graph = beside(stubborn, saver)
        call = asyncio.create_task(graph.ainvoke({"l": ["in"]}, thread, durability=durability))
        await started.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        call.cancel()
        await cleaning.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return graph

    graph = asyncio.run(main())
    assert finished(Colour("sync"), graph, thread) == ["ok0"]
    assert graph.get_state(thread).next == ("stuck",)


def test_a_cancelled_call_does_not_wait_for_threads(saver: Any, thread: Any, stuck: Stuck) -> None:
    async def main() -> Any:
        loop, started = asyncio.get_running_loop(), asyncio.Event()
        stuck.when_started = lambda: loop.call_soon_threadsafe(started.set)
        graph = beside(stuck, saver, others=0)
        call = asyncio.create_task(graph.ainvoke({"l": ["in"]}, thread))
        await started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return graph

    graph = asyncio.run(main())
    assert graph.get_state(thread).next == ("stuck",)
    stuck.has_ended()
    assert stuck.told == [False, True]
    assert graph.get_state(thread).values == {"l": ["in"]}
