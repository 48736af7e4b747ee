"""Completion order by choice: parallel bodies end one after the other, in an order drawn from a seed.

Decides who ends next; no sleeping, no timing. A body of `tests.support.graphs` calls `wait` (or `await_`) as the last
thing it does; the driver's own methods tell when an outcome has been handed over, and only then the next body may
end. Knows the drivers' method names (`plan`, `body`, `ended`, `close`) and nothing else of them.

Invariant: a body waits only for bodies that run at the same time, and everything is let go when the run closes.

Source of the idea: trio's deterministic scheduling tests; style.md 6.9.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from pregel.engine.async_driver import AsyncDriver
from pregel.engine.core import Run
from pregel.engine.sync_driver import SyncDriver

LIMIT_S = 10.0
"""After this long a schedule is declared stuck; never reached in a passing test."""


class Turn:
    """One body's permission to end, for a waiter of either colour."""

    def __init__(self) -> None:
        self._flag = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None

    def give(self) -> None:
        self._flag.set()
        if self._loop is not None and self._event is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    def wait(self) -> None:
        if not self._flag.wait(LIMIT_S):
            raise TimeoutError("schedule: a body never got its turn")

    async def await_(self) -> None:
        self._event, self._loop = asyncio.Event(), asyncio.get_running_loop()
        if not self._flag.is_set():
            await asyncio.wait_for(self._event.wait(), LIMIT_S)


class Turns:
    """The order of the step that runs now."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._order: list[Any] = []
        self._turns: dict[Any, Turn] = {}
        self._lock = threading.Lock()
        self.reordered = 0
        """Steps whose tasks ended in another order than planned."""

    def wait(self, task: Any) -> None:
        """Block until the task may end; at once for a task that runs alone."""
        turn = self._turns.get(task)
        if turn is not None:
            turn.wait()

    async def await_(self, task: Any) -> None:
        """Async form of `wait`."""
        turn = self._turns.get(task)
        if turn is not None:
            await turn.await_()

    def planned(self, tasks: list[Any] | None) -> None:
        """A step is about to start."""
        self.free()
        if tasks is None or len(tasks) < 2:
            return
        with self._lock:
            self._order = self._random.sample(tasks, len(tasks))
            self.reordered += self._order != list(tasks)
            self._turns = {task: Turn() for task in tasks}
            self._turns[self._order[0]].give()

    def ended(self, task: Any) -> None:
        """The outcome of one attempt was handed over: the next body may end."""
        with self._lock:
            if task in self._order:
                self._order.remove(task)
                self._turns.pop(task).give()
                if self._order:
                    self._turns[self._order[0]].give()

    def free(self) -> None:
        """Let everybody go."""
        with self._lock:
            turns, self._turns, self._order = list(self._turns.values()), {}, []
        for turn in turns:
            turn.give()


@contextmanager
def scheduled(seed: int) -> Iterator[Turns]:
    """Runs inside this block end their parallel bodies in the seed's order. Give the result to the graphs' world."""
    turns = Turns(seed)

    def after(cls: type, name: str, tell: Any) -> Any:
        original = getattr(cls, name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            # Which scope a body ended for must be asked before: the drivers forget it.
            subject = self.bodies[args[0]] if name == "ended" else args[1] if name == "body" else None
            result = original(self, *args, **kwargs)
            tell(result if subject is None else subject.task)
            return result

        return patch.object(cls, name, method)

    with ExitStack() as stack:
        stack.enter_context(after(Run, "plan", turns.planned))
        for driver in (SyncDriver, AsyncDriver):
            stack.enter_context(after(driver, "body", turns.ended))
            close = driver.close

            def closing(self: Any, *args: Any, _close: Any = close, **kwargs: Any) -> Any:
                turns.free()
                return _close(self, *args, **kwargs)

            stack.enter_context(patch.object(driver, "close", closing))
        stack.enter_context(after(AsyncDriver, "ended", turns.ended))
        yield turns
        turns.free()
