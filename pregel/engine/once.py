"""Results that a running task records, so that what it did is not done again when it runs again.

Runs on the thread of a body, or in its coroutine; what it records is handed to the owner of the run, who stores it. A
recorded result is a row beside the task's output, in the form that results of called tasks have: an id below the task's,
slot 0, one `__return__` write. No task of a step has such an id, so nobody takes it for an output, and it goes with the
other rows of the step when that is closed. Knows no saver; locks are its own.

Invariants
1. Who gets a value has one that is recorded: durable in the sense of the run's durability.
2. One call at a time per attempt and key, of threads and of the coroutines of one loop. An attempt that is over records
   nothing.
3. Exceptions are not recorded.

Source: Temporal's side effects.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from pregel._scope import TaskScope
from pregel.constants import MISSING, PUSH, RETURN
from pregel.engine import plan
from pregel.engine.origin import key_of
from pregel.engine.state import Kept, RunState
from pregel.engine.task import Task, digest, path_text
from pregel.errors import AttemptClosedError

PATIENCE_S = 1.0
"""How often a thread that waits for its record to be stored looks whether its attempt is still alive."""
_renewal = threading.Lock()


def once(run: RunState, scope: TaskScope, key: str, call: Callable[[], Any]) -> Any:
    """The recorded result of a call; made and recorded if there is none.

    Raises:
        RuntimeError: the call asks for its own key, or waiting is impossible here.
        AttemptClosedError: the attempt is over; its result is not recorded.
    """
    host = _host(run)
    driver = _driver(host, scope)
    driver.keep(scope, None, waits=True)
    id_, path = _row_of(run, host, scope, key)
    kept = _kept(host)
    making = kept.makers.setdefault((scope, id_, None), _Making(threading.Lock))
    me = threading.get_ident()
    if making.maker == me:
        raise _nested(scope, key)
    with making.lock:
        value = _recorded(host, kept, id_)
        if value is not MISSING:
            return plan.own_copy(run, value)
        making.maker = me
        try:
            value = call()
            scope.check()
            copied = plan.own_copy(run, value)
            if host.stores:
                _wait(driver.keep(scope, (id_, path, copied), waits=True), scope)
            kept.values[id_] = copied
        finally:
            making.maker = None
    return value


async def aonce(run: RunState, scope: TaskScope, key: str, call: Callable[[], Any]) -> Any:
    """Async form of `once`. The call may return an awaitable."""
    host = _host(run)
    driver = _driver(host, scope)
    id_, path = _row_of(run, host, scope, key)
    kept = _kept(host)
    asyncio = sys.modules["asyncio"]
    making = kept.makers.setdefault((scope, id_, asyncio.get_running_loop()), _Making(asyncio.Lock))
    me = asyncio.current_task()
    if making.maker is me:
        raise _nested(scope, key)
    async with making.lock:
        value = _recorded(host, kept, id_)
        if value is not MISSING:
            return plan.own_copy(run, value)
        making.maker = me
        try:
            value = call()
            if hasattr(value, "__await__"):
                value = await value
            scope.check()
            copied = plan.own_copy(run, value)
            if host.stores:
                stored = driver.keep(scope, (id_, path, copied), waits=False)
                if hasattr(stored, "__await__"):
                    await stored
                else:
                    _wait(stored, scope)
            kept.values[id_] = copied
        finally:
            making.maker = None
    return value


class _Making:
    """Who of an attempt is making one result."""

    __slots__ = ("lock", "maker")

    def __init__(self, new_lock: Callable[[], Any]) -> None:
        self.lock = new_lock()
        self.maker: Any = None


def _nested(scope: TaskScope, key: str) -> RuntimeError:
    return RuntimeError(
        f"node {scope.task.name!r}: the function given to once({key!r}, ...) called once({key!r}, ...) itself; use another "
        f"key inside of it"
    )


def _host(run: RunState) -> RunState:
    """The run that a result is recorded with: the task's own, or, if that stores nothing, the nearest around it that does.

    A nested run that stores nothing starts over when its parent is resumed, with tasks of the same keys.
    """
    found: RunState | None = run
    while found is not None and not found.stores:
        found = found.request.parent_run
    return run if found is None else found


def _driver(host: RunState, scope: TaskScope) -> Any:
    """Who drives a run.

    Raises:
        AttemptClosedError: nobody any more.
    """
    driver = host.keeper
    if driver is None:
        raise AttemptClosedError(f"the run of node {scope.task.name!r} has ended; what the node does now is refused")
    return driver


def _row_of(run: RunState, host: RunState, scope: TaskScope, key: str) -> tuple[str, str]:
    """Id and path of the row of a result: below the task of the host that it is recorded under."""
    above = scope
    while above.host is not host:
        assert above.parent is not None
        above = above.parent
    task: Task = above.task
    return digest([host.id_of(task), key_of(run, scope), key]), path_text((PUSH, task.path, key, True))


def _kept(run: RunState) -> Kept:
    """What tasks of the current step have recorded."""
    with _renewal:
        kept = run.kept
        if kept is None or kept.step != run.step:
            kept = run.kept = Kept(run.step)
        return kept


def _recorded(run: RunState, kept: Kept, id_: str) -> Any:
    """The result of this run, or of an earlier one of the same step; MISSING if there is none."""
    value = kept.values.get(id_, MISSING)
    if value is not MISSING or run.replaying:
        return value
    for entry in run.pending:
        if entry.task_id == id_:
            return next((item for channel, item in entry.writes if channel == RETURN), MISSING)
    return MISSING


def _wait(stored: Any, scope: TaskScope) -> None:
    """Until the record is stored.

    Raises:
        AttemptClosedError: the attempt is over, so nobody stores it any more.
    """
    while True:
        try:
            stored.result(PATIENCE_S)
        except TimeoutError:
            if stored.done():
                raise
            scope.check()
        else:
            return
