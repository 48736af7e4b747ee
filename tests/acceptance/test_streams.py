"""Reading, leaving and not keeping up with a stream (frontends.md 4, promises 43 to 45)."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

from pregel.config import get_stream_writer
from pregel.errors import AttemptClosedError, NodeTimeoutError
from pregel.graph import START, StateGraph
from pregel.pregel._stream import BUFFER, Outlet
from tests.support.scenarios import WAIT_LIMIT, Colour, Gate, Log, refused


def single(node: Any, saver: Any = None) -> Any:
    return StateGraph(Log).add_node("n", node).add_edge(START, "n").compile(checkpointer=saver)


def chain(colour: Colour, names: str = "abc", saver: Any = None, calls: list[str] | None = None) -> Any:
    builder = StateGraph(Log)
    before = START
    for name in names:
        builder.add_node(name, colour.letter(name, calls)).add_edge(before, name)
        before = name
    return builder.compile(checkpointer=saver)


class Reader:
    """A stream of either colour, read from ordinary code."""

    def __init__(self, colour: Colour, graph: Any, *args: Any, **options: Any) -> None:
        self.is_async = colour.is_async
        self.runner = asyncio.Runner() if self.is_async else None
        self.stream: Any = (graph.astream if self.is_async else graph.stream)(*args, **options)

    def next(self) -> Any:
        if self.runner is not None:
            return self.runner.run(self._anext())
        return next(self.stream)

    async def _anext(self) -> Any:
        return await anext(self.stream)

    def rest(self) -> list[Any]:
        async def collect() -> list[Any]:
            return [chunk async for chunk in self.stream]

        return self.runner.run(collect()) if self.runner is not None else list(self.stream)

    def leave(self) -> None:
        """As a `with` block does."""

        async def leave() -> None:
            async with self.stream:
                pass

        if self.runner is not None:
            self.runner.run(leave())
        else:
            with self.stream:
                pass

    def close(self) -> None:
        async def close() -> None:
            await self.stream.aclose()

        if self.runner is not None:
            self.runner.run(close())
        else:
            self.stream.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        if self.runner is not None:
            self.runner.close()


@pytest.fixture
def reading(colour: Colour) -> Any:
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(Reader(colour, *args, **options))


# -------------------------------------------------------------------------------------- iterators, generators, contexts


def test_a_sync_stream_is_a_generator_and_a_context_manager() -> None:
    colour = Colour("sync")
    graph = chain(colour)
    stream = graph.stream({"l": []}, stream_mode="updates")
    assert isinstance(stream, Generator)
    assert next(stream) == {"a": {"l": ["a"]}}
    assert stream.send(None) == {"b": {"l": ["b"]}}
    assert list(stream) == [{"c": {"l": ["c"]}}]
    assert list(stream) == []
    with graph.stream({"l": []}, stream_mode="updates") as chunks:
        assert [*chunks] == [{name: {"l": [name]}} for name in "abc"]
    with contextlib.closing(graph.stream({"l": []})) as chunks:
        assert len([*chunks]) == 3
    with pytest.raises(ZeroDivisionError), graph.stream({"l": []}) as chunks:  # noqa: PT012
        next(chunks)
        raise ZeroDivisionError
    assert list(chunks) == []
    with pytest.raises(KeyError), graph.stream({"l": []}) as chunks:  # noqa: PT012
        next(chunks)
        chunks.throw(KeyError("k"))
    assert graph.stream({"l": []}).close() is None


def test_an_async_stream_is_a_generator_and_a_context_manager() -> None:
    colour = Colour("async")
    graph = chain(colour)

    async def main() -> None:
        stream = graph.astream({"l": []}, stream_mode="updates")
        assert isinstance(stream, AsyncGenerator)
        assert await anext(stream) == {"a": {"l": ["a"]}}
        assert await stream.asend(None) == {"b": {"l": ["b"]}}
        assert [chunk async for chunk in stream] == [{"c": {"l": ["c"]}}]
        assert [chunk async for chunk in stream] == []
        async with graph.astream({"l": []}, stream_mode="updates") as chunks:
            assert [chunk async for chunk in chunks] == [{name: {"l": [name]}} for name in "abc"]
        async with contextlib.aclosing(graph.astream({"l": []})) as chunks:
            assert len([chunk async for chunk in chunks]) == 3
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with graph.astream({"l": []}) as chunks:
                await anext(chunks)
                raise ZeroDivisionError
        assert [chunk async for chunk in chunks] == []
        with pytest.raises(KeyError):  # noqa: PT012
            async with graph.astream({"l": []}) as chunks:
                await anext(chunks)
                await chunks.athrow(KeyError("k"))
        assert await graph.astream({"l": []}).aclose() is None

    asyncio.run(main())


@pytest.mark.parametrize("how", ["leave", "close"])
def test_leaving_ends_the_run_where_it_is(
    colour: Colour, saver: Any, durability: Any, thread: Any, reading: Any, how: str
) -> None:
    calls: list[str] = []
    graph = chain(colour, saver=saver, calls=calls)
    stream = reading(graph, {"l": []}, thread, stream_mode="updates", durability=durability)
    assert stream.next() == {"a": {"l": ["a"]}}
    getattr(stream, how)()
    assert calls == ["a"]
    state = colour.get_state(graph, thread)
    assert (state.values, state.next) == ({"l": ["a"]}, ("b",))
    assert colour.invoke(graph, None, thread) == {"l": ["a", "b", "c"]}
    assert calls == ["a", "b", "c"]


def test_a_stream_that_was_never_read_has_not_run(colour: Colour, memory: Any, thread: Any, reading: Any) -> None:
    calls: list[str] = []
    graph = chain(colour, saver=memory, calls=calls)
    reading(graph, {"l": []}, thread).leave()
    assert calls == []
    assert colour.history(graph, thread) == []


@pytest.mark.parametrize("last", [True, False])
def test_a_dropped_async_stream_ends_at_the_next_turn(memory: Any, thread: Any, last: bool) -> None:
    """`break` without a block; also if it is the last thing that happens on the loop."""
    seen: list[str] = []

    async def wait(state: Log) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    builder = StateGraph(Log).add_node("ok", lambda state: {"l": ["ok"]}).add_edge(START, "ok")
    graph = builder.add_node("wait", wait).add_edge(START, "wait").compile(checkpointer=memory)

    async def main() -> None:
        async for _ in graph.astream({"l": ["in"]}, thread, stream_mode="updates"):
            break
        if not last:
            for _ in range(10):
                await asyncio.sleep(0)
            assert seen == ["cancelled"]

    asyncio.run(main())
    assert seen == ["cancelled"]
    state = graph.get_state(thread)
    assert (state.values, state.next) == ({"l": ["in", "ok"]}, ("wait",))
    assert len(memory.holders) == 0


# -------------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("subgraphs", [False, True])
def test_chunks_are_numbered_as_they_are_read(
    colour: Colour, thread: Any, memory: Any, reading: Any, version: str, subgraphs: bool
) -> None:
    inner = StateGraph(Log)
    inner.add_node("i", colour.letter("i")).add_edge(START, "i")
    graph = StateGraph(Log).add_node("sub", inner.compile()).add_edge(START, "sub").compile(checkpointer=memory)
    modes = ["values", "updates", "tasks", "checkpoints", "debug"]
    stream = reading(graph, {"l": []}, thread, stream_mode=modes, print_mode=(), subgraphs=subgraphs, version=version)
    assert stream.stream.seq == 0
    numbers = []
    with contextlib.suppress(StopIteration, StopAsyncIteration):
        while True:
            stream.next()
            numbers.append(stream.stream.seq)
    assert numbers == [*range(1, len(numbers) + 1)]
    assert len(numbers) > (20 if subgraphs else 10)


# ------------------------------------------------------------------------------------------------------------- buffers


class Crowd:
    """Writers that cannot be faster than their reader: how far ahead of what was read are they?"""

    def __init__(self, colour: Colour, count: int, *, writers: int = 1, nested: bool = False) -> None:
        self.written = [0] * writers
        self.count = count
        builder = StateGraph(Log)
        for number in range(writers):
            builder.add_node(f"w{number}", self.node(colour, number)).add_edge(START, f"w{number}")
        self.graph: Any = builder.compile()
        if nested:
            self.graph = StateGraph(Log).add_node("sub", self.graph).add_edge(START, "sub").compile()

    def node(self, colour: Colour, number: int) -> Any:
        def write(state: Log) -> None:
            writer = get_stream_writer()
            for value in range(self.count):
                writer((number, value))
                self.written[number] += 1

        async def awrite(state: Log) -> None:
            writer = get_stream_writer()
            for value in range(self.count):
                writer((number, value))
                self.written[number] += 1
                await asyncio.sleep(0)

        return awrite if colour.is_async else write


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("writers", [1, 3])
@pytest.mark.parametrize("buffer", [1, 4, BUFFER])
def test_a_writer_waits_for_its_reader(colour: Colour, reading: Any, buffer: int, writers: int, nested: bool) -> None:
    crowd = Crowd(colour, 50, writers=writers, nested=nested)
    stream = reading(crowd.graph, {"l": []}, stream_mode="custom", subgraphs=nested, buffer=buffer)
    seen = []
    with contextlib.suppress(StopIteration, StopAsyncIteration):
        while True:
            chunk = stream.next()
            seen.append(chunk[1] if nested else chunk)
            # Written, or about to be: one per writer may be past the test for room.
            assert sum(crowd.written) <= len(seen) + buffer + writers
    for number in range(writers):
        assert [value for who, value in seen if who == number] == [*range(50)], "in order, and none is lost"


def test_a_sync_node_of_an_async_graph_waits_too(reading: Any) -> None:
    crowd = Crowd(Colour("sync"), 50)
    with Reader(Colour("async"), crowd.graph, {"l": []}, stream_mode="custom", buffer=2) as stream:
        for read in range(1, 51):
            assert stream.next() == (0, read - 1)
            assert sum(crowd.written) <= read + 3


@pytest.mark.parametrize("nested", [False, True])
def test_leaving_while_a_writer_waits(colour: Colour, reading: Any, memory: Any, thread: Any, nested: bool) -> None:
    ended, errors = threading.Event(), []

    def write(state: Log) -> None:
        writer = get_stream_writer()
        try:
            for value in range(100):
                writer(value)
        except BaseException as error:
            errors.append(type(error))
            raise
        finally:
            ended.set()

    graph = single(write)
    if nested:
        graph = StateGraph(Log).add_node("sub", graph).add_edge(START, "sub")
        graph = graph.compile(checkpointer=memory)
    else:
        graph = single(write, memory)
    stream = reading(graph, {"l": []}, thread, stream_mode="custom", subgraphs=nested, buffer=1)
    stream.next()
    stream.leave()
    assert ended.wait(WAIT_LIMIT)
    assert errors == [AttemptClosedError]
    assert colour.get_state(graph, thread).next == (("sub",) if nested else ("n",))


def test_a_nested_run_waits_before_its_next_superstep(colour: Colour, reading: Any) -> None:
    calls: list[str] = []
    inner = chain(colour, "abcdefgh", calls=calls)
    graph = single(inner)
    stream = reading(graph, {"l": []}, stream_mode="updates", subgraphs=True, buffer=1)
    for read in range(1, 9):
        ns, chunk = stream.next()
        assert ns
        assert [*chunk] == ["abcdefgh"[read - 1]]
        assert len(calls) <= read + 3
    assert len(stream.rest()) == 1


def test_a_stream_inside_a_node(colour: Colour, reading: Any) -> None:
    """The node is the reader of one stream and the writer of another, both with little room."""
    crowd = Crowd(colour, 20)

    def relay(state: Log) -> Any:
        writer = get_stream_writer()
        for chunk in crowd.graph.stream({"l": []}, stream_mode="custom", buffer=1):
            writer(chunk)
        return {"l": ["end"]}

    async def arelay(state: Log) -> Any:
        writer = get_stream_writer()
        async for chunk in crowd.graph.astream({"l": []}, stream_mode="custom", buffer=1):
            writer(chunk)
        return {"l": ["end"]}

    graph = single(arelay if colour.is_async else relay)
    stream = reading(graph, {"l": []}, stream_mode=["custom", "values"], subgraphs=True, buffer=2)
    chunks = stream.rest()
    assert [value for ns, mode, value in chunks if mode == "custom" and not ns] == [(0, n) for n in range(20)]
    assert [value for ns, mode, value in chunks if mode == "custom" and ns] == [(0, n) for n in range(20)]
    assert chunks[-1] == ((), "values", {"l": ["end"]})


def test_a_node_that_blocks_the_loop_of_its_reader(monkeypatch: Any) -> None:
    """A sync graph called on the loop: its writers may not wait for a reader who waits for them."""
    monkeypatch.setattr(Outlet, "patience_s", 0.01)
    crowd = Crowd(Colour("sync"), 50)

    async def blocks(state: Log) -> Any:
        crowd.graph.invoke(state)
        return {"l": ["end"]}

    chunks = Colour("async").stream(single(blocks), {"l": []}, stream_mode="custom", subgraphs=True, buffer=1)
    assert [value for _, value in chunks] == [(0, n) for n in range(50)]


def test_a_reader_that_writes_itself_does_not_wait_for_itself() -> None:
    writers: list[Any] = []
    go_on = Gate()

    def lend(state: Log) -> None:
        writers.append(get_stream_writer())
        writers[0]("first")
        go_on.wait()

    seen = []
    with single(lend).stream({"l": []}, stream_mode="custom", buffer=1) as chunks:
        for chunk in chunks:
            seen.append(chunk)
            if chunk == "first":
                for number in range(5):
                    writers[0](number)
                go_on.set()
    assert seen == ["first", *range(5)]


@pytest.mark.parametrize("limit", ["step", "node"])
def test_a_reader_who_is_never_done_does_not_put_off_a_time_limit(colour: Colour, limit: str) -> None:
    def write(state: Log) -> None:
        writer = get_stream_writer()
        while True:
            writer("more")

    async def awrite(state: Log) -> None:
        writer = get_stream_writer()
        while True:
            writer("more")
            await asyncio.sleep(0)

    node = awrite if colour.is_async else write
    builder = StateGraph(Log).add_node("n", node, timeout=0.1 if limit == "node" else None)
    graph = builder.add_edge(START, "n").compile()
    if limit == "step":
        graph.step_timeout = 0.1
    chunks, error = colour.outcome(graph, {"l": []}, stream_mode="custom", buffer=3)
    assert type(error) is (TimeoutError if limit == "step" else NodeTimeoutError)
    assert len(chunks) > 3


@pytest.mark.parametrize("buffer", [0, -1])
def test_a_buffer_without_room_is_refused(colour: Colour, buffer: int) -> None:
    with refused(ValueError, "buffer", buffer):
        colour.stream(chain(colour), {"l": []}, buffer=buffer)


def test_invoke_keeps_every_chunk(colour: Colour) -> None:
    crowd = Crowd(colour, BUFFER + 10)
    assert colour.invoke(crowd.graph, {"l": []}, stream_mode="custom") == [(0, n) for n in range(BUFFER + 10)]
