"""`Outlet`, where the chunks of one call wait for their reader, and `ChunkStream`, what the reader holds.

Decides how many chunks may wait, who waits while there is no room, and what leaving a stream means. Knows no run, driver
or event loop: what a driver needs to be told, or a thread to be asked, are callables that it sets.

A run goes on only while its reader asks for the next chunk. What else shows chunks meanwhile are bodies on other threads
and tasks, and nested runs that they drive. Those wait while `buffer` chunks are unread, each before it shows more: a body
before each value it writes, a nested run before each of its supersteps, an async body where it awaits something. The run
itself never waits for its own reader.

Invariants
1. Nobody waits whom the reader may be waiting for: not the reader's own thread, no thread that runs an event loop, and,
   if the reader lives on a loop, nobody while that loop is blocked. The buffer grows beyond its bound then.
2. No chunk is lost, and none is shown before one that was taken earlier. Only leaving drops what was not read.
3. `close` ends all waiting.

Source: bounded buffers with a low mark, as in the flow control of TCP and of Reactive Streams.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock, get_ident
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from functools import partial
from typing import Any, ClassVar, Final, Self

BUFFER: Final = 1024
"""Chunks that may be unread, unless the call says otherwise."""

Chunk = tuple[tuple[str, ...], str, Any]


class Outlet:
    """Where the chunks of one call wait until its caller takes them. Any thread may append."""

    __slots__ = (
        "_late",
        "buffer",
        "chunks",
        "closed",
        "modes",
        "path",
        "ping",
        "reader",
        "rung",
        "spoken",
        "subgraphs",
        "taken",
        "waiting",
        "wake",
    )

    patience_s: ClassVar[float] = 1.0
    """An event loop that does not turn for so long is blocked, and may be waiting for the very thread that waits for it."""

    def __init__(self, modes: frozenset[str], *, subgraphs: bool = False, buffer: float = BUFFER) -> None:
        self.modes = modes
        self.subgraphs = subgraphs
        self.buffer = buffer
        self.path: tuple[str, ...] = ()
        """Namespace of the run that the call started."""
        self.chunks: deque[Chunk] = deque()
        self.taken = 0
        """Chunks that the caller was given so far: the number of the last one, from 1."""
        self.spoken: set[str] = set()
        """Ids of the messages that this call need not show any more: it has, or a node was given them."""
        self.wake: Callable[[Any], None] | None = None
        """Tells the waiting driver that there is a chunk; set while bodies run on other threads."""
        self.ping: Callable[[Callable[[], object]], object] | None = None
        """Has the reader's event loop call something; None if the reader is a thread."""
        self.rung = False
        """Was the driver told since the reader last looked?"""
        self.reader = 0
        """The thread that last looked."""
        self.closed = False
        self.waiting: deque[Callable[[], object]] = deque()
        """How to wake those who wait for room."""
        self._late: list[None] | None = None
        """A ping that was not answered in time; it gets an element when it is."""

    def append(self, chunk: Chunk) -> None:
        """Take a chunk, if its mode was asked for and its namespace is shown."""
        path, mode, _ = chunk
        if mode in self.modes and self.shows(path):
            self.chunks.append(chunk)
            if self.wake is not None and not self.rung:
                self.rung = True
                self.wake(None)

    def shows(self, path: tuple[str, ...]) -> bool:
        """Are chunks of that namespace asked for?"""
        return self.subgraphs or path == self.path

    def look(self) -> int:
        """How many chunks the caller takes now, from the left. What comes meanwhile is for the next look, after the run
        went on."""
        self.reader = get_ident()
        self.rung = False
        return len(self.chunks)

    # ---- room

    @property
    def is_full(self) -> bool:
        """Are as many chunks unread as may be?"""
        return len(self.chunks) >= self.buffer and not self.closed

    @property
    def must_wait(self) -> bool:
        """Must whoever wants to show more wait? Not if the reader's loop has not turned since it was last asked."""
        return self.is_full and (self._late is None or bool(self._late))

    def offer(self, chunk: Chunk, check: Callable[[], None]) -> None:
        """Take a chunk of a running body, when there is room. `check` raises if the body is not wanted any more."""
        path, mode, _ = chunk
        if mode in self.modes and self.shows(path):
            if self.is_full:
                self.wait()
                check()
            self.append(chunk)

    def wait(self) -> None:
        """Block this thread until there is room; not if the reader may be waiting for it."""
        if not self.is_full or get_ident() == self.reader or runs_a_loop():
            return
        while self.must_wait:
            room = allocate_lock()
            room.acquire()
            self.when_room(room.release)
            if not self.is_full:
                return
            answers = self.ask()
            if not room.acquire(timeout=-1 if answers is None else self.patience_s):
                self.note(answers)

    def when_room(self, call: Callable[[], object]) -> None:
        """Call it, on any thread, when there may be room. Look again after this: it may have come meanwhile."""
        self.waiting.append(call)

    def let_in(self) -> None:
        """Wake who waits for room, all at once when half of it is free."""
        if self.closed or len(self.chunks) <= self.buffer // 2:
            waiting = self.waiting
            while waiting:
                waiting.popleft()()

    def close(self) -> None:
        """Nobody reads on."""
        self.closed = True
        self.let_in()

    def ask(self) -> list[None] | None:
        """A list that gets an element as soon as the reader's loop turns; None if the reader has none."""
        if self.ping is None:
            return None
        answers: list[None] = []
        try:
            self.ping(partial(answers.append, None))
        except RuntimeError:  # the loop is closed: nobody reads on
            self.close()
        return answers

    def note(self, answers: list[None] | None) -> None:
        """Nothing has come of waiting for so long: is there still no answer to what was asked when it began?"""
        if answers is not None and not answers:
            self._late = answers


def runs_a_loop() -> bool:
    """Is an event loop running on this thread?"""
    events: Any = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None


class ChunkStream(Generator[Any, None, None]):
    """The chunks of one run: an iterator, a generator, and a context manager that ends the run when it is left.

    The run begins with the first chunk that is asked for. `close()`, leaving a `with` block, or dropping the stream ends
    it at once: bodies that still run in threads are told (`runtime.cancelled`) and not waited for, what finished is
    stored, and the thread can be resumed.
    """

    __slots__ = ("_chunks", "_outlet")

    def __init__(self, chunks: Generator[Any, None, None], outlet: Outlet) -> None:
        self._chunks = chunks
        self._outlet = outlet

    @property
    def seq(self) -> int:
        """The number of the last chunk that was read: 1, 2, ... over all modes and namespaces, without gaps; 0 before."""
        return self._outlet.taken

    def __iter__(self) -> Generator[Any, None, None]:  # noqa: PYI058 - it can be closed
        return self._chunks  # without a frame of ours per chunk

    def __next__(self) -> Any:
        return next(self._chunks)

    def send(self, value: None, /) -> Any:
        """As `next`: a stream takes nothing."""
        return self._chunks.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise at the last chunk, as if reading it had failed; ends the run."""
        return self._chunks.throw(*error)

    def close(self) -> None:
        """End the run. Nothing if it has ended."""
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._chunks.close()


class AsyncChunkStream(AsyncGenerator[Any, None]):
    """Async form of `ChunkStream`: `aclose()`, or leaving an `async with` block, ends the run.

    Async bodies that still run are cancelled and awaited. Dropping the stream (`break` without a block) does the same one
    turn of the event loop later.
    """

    __slots__ = ("_chunks", "_outlet")

    def __init__(self, chunks: AsyncGenerator[Any, None], outlet: Outlet) -> None:
        self._chunks = chunks
        self._outlet = outlet

    @property
    def seq(self) -> int:
        """The number of the last chunk that was read: 1, 2, ... over all modes and namespaces, without gaps; 0 before."""
        return self._outlet.taken

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._chunks

    def __anext__(self) -> Any:
        return self._chunks.__anext__()

    def asend(self, value: None, /) -> Any:
        """As `anext`: a stream takes nothing."""
        return self._chunks.asend(value)

    def athrow(self, *error: Any) -> Any:
        """Raise at the last chunk, as if reading it had failed; ends the run."""
        return self._chunks.athrow(*error)

    def aclose(self) -> Any:
        """End the run. Nothing if it has ended."""
        return self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._chunks.aclose()
