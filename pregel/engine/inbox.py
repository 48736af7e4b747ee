"""`Inbox` and `Alarm`: what coroutines of the async driver wait for, and how threads wake them.

Decides nothing. Whoever wakes may be any thread, and the loop may be closed by then: that is no error, since then nobody
waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any


class Inbox:
    """Events for the owner, put by anybody, taken by one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.events: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, event: Any) -> None:
        """Add an event, on the loop's thread."""
        self.events.append(event)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def put_from_thread(self, event: Any) -> None:
        """Add an event, on any thread; lost if the loop is closed, since then nobody waits."""
        try:
            self.loop.call_soon_threadsafe(self.put, event)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    async def ready(self) -> None:
        """Return when there is an event."""
        if not self.events:
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None


class Alarm:
    """What a coroutine sleeps on until anybody, on any thread, rings it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.event = asyncio.Event()

    def ring(self) -> None:
        """End the sleep; nothing if the loop is closed, since then nobody sleeps."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.event.set)

    @staticmethod
    def running_loop() -> asyncio.AbstractEventLoop:
        """The loop that the caller runs on."""
        return asyncio.get_running_loop()

    async def sleep(self, limit: float | None) -> None:
        """Return when it rings, or after `limit` seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.event.wait(), limit)
        self.event.clear()


async def to_the_end(work: Coroutine[Any, Any, None]) -> asyncio.CancelledError | None:
    """Await what must not be cut short. Returns the cancellation that came meanwhile, to be raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    return cancelled


def count_cancels() -> int:
    """How often the current asyncio task was asked to stop."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def call_soon(loop: asyncio.AbstractEventLoop, *call: Any) -> None:
    """Have a loop call something, from any thread; nothing if it is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(*call)


def resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Give a future its result or error, if nobody has cancelled it."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
