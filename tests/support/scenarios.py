"""One scenario, two colours.

Decides how a scenario that is written once runs under the sync and under the async API: the `colour` fixture offers
the calls of a graph with the same names and results in both, and turns plain functions into nodes of its colour.
Does not know any graph under test. Invariants: the async colour starts a fresh event loop for every call, so nothing
may survive a call in a loop; nothing waits without a limit; no sleeping. Source of the idea: the twin suites of
psycopg and trio, where a second colour must not be a second copy.
"""

import asyncio
import contextlib
import functools
import operator
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from pregel.warnings import PregelWarning

WAIT_LIMIT = 5.0
"""Seconds a `Gate` waits before the scenario is declared stuck; never reached in a passing test."""


class Gate:
    """A latch that nodes of either colour can wait for: `yield gate` in a script, `gate.set()` anywhere."""

    def __init__(self) -> None:
        self._flag = threading.Event()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def set(self) -> None:
        self._flag.set()
        for loop, event in self._waiters:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def wait(self) -> None:
        """Block the calling thread until the gate opens; `TimeoutError` when it never does."""
        if not self._flag.wait(WAIT_LIMIT):
            raise TimeoutError("gate: never opened - waited too long")

    async def wait_async(self) -> None:
        """Suspend until the gate opens; `TimeoutError` when it never does."""
        event = asyncio.Event()
        self._waiters.append((asyncio.get_running_loop(), event))
        if self._flag.is_set():
            await asyncio.sleep(0)  # an open gate still lets the others run
        else:
            await asyncio.wait_for(event.wait(), WAIT_LIMIT)


class Colour:
    """The calls of a graph and the making of nodes, in one colour."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_async = name == "async"

    def __repr__(self) -> str:
        return self.name

    # -- calls ---------------------------------------------------------------------------------------------------

    def invoke(self, graph: Any, input: Any, config: Any = None, **kw: Any) -> Any:
        if self.is_async:
            return asyncio.run(graph.ainvoke(input, config, **kw))
        return graph.invoke(input, config, **kw)

    def stream(self, graph: Any, input: Any, config: Any = None, **kw: Any) -> list[Any]:
        """All chunks of one run."""
        chunks, error = self.outcome(graph, input, config, **kw)
        if error is not None:
            raise error
        return chunks

    def outcome(self, graph: Any, input: Any, config: Any = None, **kw: Any) -> tuple[list[Any], BaseException | None]:
        """All chunks of one run, and the exception it ended with, if any."""
        chunks: list[Any] = []

        async def drain() -> None:
            async for chunk in graph.astream(input, config, **kw):
                chunks.append(chunk)

        try:
            if self.is_async:
                asyncio.run(drain())
            else:
                for chunk in graph.stream(input, config, **kw):
                    chunks.append(chunk)
        except Exception as error:  # noqa: BLE001 - the error is the result
            return chunks, error
        return chunks, None

    def batch(self, graph: Any, inputs: list[Any], config: Any = None, **kw: Any) -> list[Any]:
        if self.is_async:
            return list(asyncio.run(graph.abatch(inputs, config, **kw)))
        return list(graph.batch(inputs, config, **kw))

    def get_state(self, graph: Any, config: Any, **kw: Any) -> Any:
        if self.is_async:
            return asyncio.run(graph.aget_state(config, **kw))
        return graph.get_state(config, **kw)

    def history(self, graph: Any, config: Any, **kw: Any) -> list[Any]:
        """Snapshots, newest first."""

        async def collect() -> list[Any]:
            entries: AsyncIterator[Any] = graph.aget_state_history(config, **kw)
            return [entry async for entry in entries]

        if self.is_async:
            return asyncio.run(collect())
        return list(graph.get_state_history(config, **kw))

    def update_state(self, graph: Any, config: Any, values: Any, as_node: str | None = None, **kw: Any) -> Any:
        if self.is_async:
            return asyncio.run(graph.aupdate_state(config, values, as_node, **kw))
        return graph.update_state(config, values, as_node, **kw)

    def explain(self, graph: Any, config: Any, **kw: Any) -> Any:
        if self.is_async:
            return asyncio.run(graph.aexplain(config, **kw))
        return graph.explain(config, **kw)

    def bulk_update_state(self, graph: Any, config: Any, supersteps: list[Any]) -> Any:
        if self.is_async:
            return asyncio.run(graph.abulk_update_state(config, supersteps))
        return graph.bulk_update_state(config, supersteps)

    # -- nodes ---------------------------------------------------------------------------------------------------

    def node(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function itself, or a coroutine function with its name, signature and annotations."""
        if not self.is_async:
            return function

        @functools.wraps(function)
        async def run(*args: Any, **kw: Any) -> Any:
            return function(*args, **kw)

        return run

    def script(self, function: Callable[..., Generator[Any, Any, Any]]) -> Callable[..., Any]:
        """A node from a generator function that yields what differs between the colours.

        `yield graph, input` (optionally `, config`) runs a graph and gives its result; `yield gate` waits for a
        `Gate`; `yield future` for a called task, and gives its result; `yield futures` (a list) for all of them, and
        gives theirs. The generator's return value is the node's.
        """
        if self.is_async:

            @functools.wraps(function)
            async def run_async(*args: Any, **kw: Any) -> Any:
                body = function(*args, **kw)
                answer: Any = None
                failed: Exception | None = None
                while True:
                    try:
                        request = body.throw(failed) if failed else body.send(answer)
                    except StopIteration as stop:
                        return stop.value
                    answer, failed = None, None
                    try:
                        if isinstance(request, Gate):
                            await request.wait_async()
                        elif isinstance(request, list):
                            answer = await asyncio.gather(*request)
                        elif hasattr(request, "add_done_callback"):
                            answer = await request
                        else:
                            graph, *args_ = request
                            answer = await graph.ainvoke(*args_)
                    except Exception as error:  # noqa: BLE001 - raised inside the script
                        failed = error

            return run_async

        @functools.wraps(function)
        def run(*args: Any, **kw: Any) -> Any:
            body = function(*args, **kw)
            answer: Any = None
            failed: Exception | None = None
            while True:
                try:
                    request = body.throw(failed) if failed else body.send(answer)
                except StopIteration as stop:
                    return stop.value
                answer, failed = None, None
                try:
                    if isinstance(request, Gate):
                        request.wait()
                    elif isinstance(request, list):
                        answer = [future.result(WAIT_LIMIT) for future in request]
                    elif hasattr(request, "add_done_callback"):
                        answer = request.result(WAIT_LIMIT)
                    else:
                        graph, *args_ = request
                        answer = graph.invoke(*args_)
                except Exception as error:  # noqa: BLE001 - raised inside the script
                    failed = error

        return run

    def letter(self, name: str, calls: list[str] | None = None) -> Callable[..., Any]:
        """A node that adds its name to `l`, and to `calls` when given."""

        def act(state: Any) -> dict[str, Any]:
            if calls is not None:
                calls.append(name)
            return {"l": [name]}

        act.__name__ = name
        return self.node(act)


# ---------------------------------------------------------------------------------------------------------- fixtures


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> Colour:
    """The API in both colours."""
    return Colour(request.param)


@pytest.fixture(params=["memory", "sqlite"])
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A fresh saver of each bundled kind."""
    from checkpoint.memory import InMemorySaver  # in the fixture: other test folders share this conftest
    from checkpoint.sqlite import SqliteSaver

    if request.param == "memory":
        yield InMemorySaver()
    else:
        with SqliteSaver.from_conn_string(str(tmp_path / "threads.sqlite")) as opened:
            yield opened


STAGES = [
    (kind, durability, depth)
    for kind in ("memory", "restart")
    for durability in ("sync", "async", "exit")
    for depth in (1, 2, 3)
] + [("sqlite", "async", 2)]
"""Kind of saver, durability, depth of the graph under test (1 is the root). `restart` is a file that is opened anew for
each call; one that stays open is a file like the others, so it is tried once."""


@pytest.fixture(params=STAGES, ids=lambda place: "-".join(map(str, place)))
def stage(colour: Colour, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Every place a graph may run in (`tests.support.stages`)."""
    from tests.support.stages import Stage

    made = Stage(colour, *request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture
def memory() -> Any:
    """A fresh in-memory saver, for scenarios that say nothing about storage."""
    from checkpoint.memory import InMemorySaver

    return InMemorySaver()


@pytest.fixture(params=["sync", "async", "exit"])
def durability(request: pytest.FixtureRequest) -> Any:
    """Every durability mode."""
    return request.param


@pytest.fixture
def thread() -> dict[str, Any]:
    """The config of one thread."""
    return {"configurable": {"thread_id": "1"}}


# ------------------------------------------------------------------------------------------------- states and checks


class Log(TypedDict):
    """The smallest state whose order of writes can be seen."""

    l: Annotated[list[Any], operator.add]  # noqa: E741


class LogX(Log, total=False):
    """`Log` with a plain key."""

    x: Any


@contextlib.contextmanager
def refused(kind: type[BaseException], *named: object) -> Iterator[Any]:
    """Expect exactly this kind of error, with each of these names or values somewhere in its text."""
    with pytest.raises(kind) as caught:
        yield caught
    text = str(caught.value)
    for part in named:
        assert str(part) in text, f"{part!r} is not named in: {text}"


@contextlib.contextmanager
def diagnosed(*named: object) -> Iterator[None]:
    """Expect a `PregelWarning` that names each of these values (design.md D9)."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
    texts = [str(entry.message) for entry in seen if issubclass(entry.category, PregelWarning)]
    assert any(all(str(part) in text for part in named) for text in texts), f"no PregelWarning names {named}: {texts}"


def namespaces(config: Any) -> list[str]:
    """The checkpoint namespace of a config with task ids replaced by `*`."""
    ns = config["configurable"]["checkpoint_ns"]
    return [part.split(":")[0] + (":*" if ":" in part else "") for part in ns.split("|")] if ns else []


def path_of(ns: tuple[str, ...]) -> tuple[str, ...]:
    """A stream namespace with task ids removed."""
    return tuple(part.split(":")[0] for part in ns)


def steps(history: list[Any]) -> list[tuple[str, int]]:
    """`(source, step)` of each snapshot, in the order given."""
    return [(entry.metadata["source"], entry.metadata["step"]) for entry in history]


def checkpoint_id(config: Any) -> str:
    """The checkpoint a config addresses."""
    return str(config["configurable"]["checkpoint_id"])
