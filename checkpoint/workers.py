"""Threads that savers keep: one that runs calls in order, one that runs an event loop.

Decides how a call gets to such a thread and its outcome back, for callers with and without a loop. Knows nothing of
what is called. Threads are daemons, started by their first call, so a saver that is never used asynchronously has none.

Invariants
1. Calls of one worker run one at a time, in the order they were posted.
2. The outcome of a call is known to its caller before the caller goes on, also when the caller is cancelled
   (`shielded`).

Not `concurrent.futures`, nor a loop's default executor: both are joined at interpreter exit, and can be filled up by
the program (design.md D28).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Outcome:
    """The end of a call that runs elsewhere: `result` for a thread that may block, `aresult` for a coroutine."""

    __slots__ = ("_ended", "_error", "_lock", "_value", "_waiters")

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._waiters: list[Callable[[], None]] = []
        self._value: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Has it ended, well or badly?"""
        return self._ended.is_set()

    def end(self, value: Any = None, error: BaseException | None = None) -> None:
        """Say how it ended, once."""
        self._value, self._error = value, error
        with self._lock:
            self._ended.set()
            waiters, self._waiters = self._waiters, []
        for wake in waiters:
            wake()

    def wait(self, limit: float | None = None) -> bool:
        """Wait for the end, whatever it is, or for so many seconds; has it ended?"""
        return self._ended.wait(limit)

    def result(self) -> Any:
        """Wait for the end; the call's value, or raise its error."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._value

    async def aresult(self) -> Any:
        """Async form of `result`."""
        if not self._ended.is_set():
            loop = asyncio.get_running_loop()
            woken = loop.create_future()

            def wake() -> None:
                # A loop that was closed has nobody who waits.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_settle, woken)

            with self._lock:
                waits = not self._ended.is_set()
                if waits:
                    self._waiters.append(wake)
            if waits:
                await woken
        return self.result()

    async def shielded(self) -> Any:
        """As `aresult`; a cancellation is raised after the end."""
        cancelled: asyncio.CancelledError | None = None
        while not self._ended.is_set():
            try:
                await self.aresult()
            except asyncio.CancelledError as cancellation:
                # The call's own error may also be a CancelledError: then the loop ends here.
                cancelled = cancellation
            except BaseException:  # noqa: BLE001 - raised by `result` below
                break
        if cancelled is not None:
            raise cancelled
        return self.result()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Worker:
    """A daemon thread that runs calls in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._calls: SimpleQueue[tuple[Callable[[], Any], Outcome] | None] = SimpleQueue()
        # The thread of a worker that nobody holds any more ends.
        weakref.finalize(self, self._calls.put, None).atexit = False

    def post(self, call: Callable[[], Any]) -> Outcome:
        """Run a call after everything that was posted before."""
        outcome = Outcome()
        self._start()
        self._calls.put((call, outcome))
        return outcome

    def call(self, call: Callable[[], T]) -> T:
        """Run a call and wait for it; at once if this is the worker's own thread."""
        if threading.current_thread() is self.thread:
            return call()
        value: T = self.post(call).result()
        return value

    def dismiss(self) -> threading.Thread | None:
        """Tell the thread to end after what was posted. Returns it; a later call starts a new one."""
        with self._lock:
            thread, self.thread = self.thread, None
        if thread is not None:
            self._calls.put(None)
        return thread

    def stop(self) -> None:
        """As `dismiss`, and wait for the end."""
        thread = self.dismiss()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        if self.thread is None:
            with self._lock:
                if self.thread is None:
                    self.thread = threading.Thread(target=_run, args=(self._calls,), name=self.name, daemon=True)
                    self.thread.start()


def _run(calls: SimpleQueue[tuple[Callable[[], Any], Outcome] | None]) -> None:
    # Holds the queue only, so that a saver nobody uses any more can be collected.
    while (item := calls.get()) is not None:
        call, outcome = item
        value: Any = None
        error: BaseException | None = None
        try:
            value = call()
        except BaseException as failure:  # noqa: BLE001 - the caller gets it
            error = failure
        # What was called may hold the last reference to a saver: let go of it before anybody can look.
        del item, call
        outcome.end(value, error)
        del outcome, value, error


class LoopThread:
    """A daemon thread with an event loop, for async-only objects that are used without a loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: Any = None

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the thread's loop and wait for it. Must not be called from that thread."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_serve, args=(self._loop,), name=self._name, daemon=True)
                thread.start()
                self._end = weakref.finalize(self, _end_loop, self._loop, thread)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def stop(self) -> None:
        """End the loop and its thread. A later call starts new ones."""
        with self._lock:
            end, self._end, self._loop = self._end, None, None
        if end is not None:
            end()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join()
