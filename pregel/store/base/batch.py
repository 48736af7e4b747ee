"""`AsyncBatchedBaseStore`: async calls that are made at the same moment are carried out as one batch.

Decides which calls go into a batch, which of them need not be carried out of their own, and who gets which result or
error. Does not know how a batch is carried out: a subclass implements `abatch`, which must apply operations in order.

A call waits until the loop has run everything that is ready, so whatever `gather` starts is one batch; while a batch
is carried out the next one collects. What a call sees is what it would have seen alone and in its place: a read is shared
with an equal one unless a put in between could tell them apart, and a put is left out only if another one replaces it
before anybody reads.

Invariants
1. Batches of one loop are carried out one after the other, in the order of their calls.
2. An error reaches the callers of the operation that caused it, and no others (`shared_errors` says which are of all).
3. There is a task only while something waits or is carried out: none that somebody would have to end.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Sequence
from contextvars import Context
from typing import Any, ClassVar

from pregel.store.base import BaseStore, GetOp, Op, PutOp, Result
from pregel.store.base.copies import own_result

__all__ = ["AsyncBatchedBaseStore", "refuse_on_a_loop"]


class _Call(asyncio.Future[Any]):
    """What one caller asks for, and waits for.

    The caller awaits this very object: a cancellation of its task comes here, and can wait until the batch has ended
    without a second future between the two.
    """

    def __init__(self, op: Op, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.op = op
        self.is_taken = False
        """Is it part of a batch?"""
        self.is_left = False
        """Has its caller been cancelled since?"""

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel at once if no batch has it; else when its batch has ended."""
        if not self.is_taken or self.done():
            return super().cancel(msg)
        self.is_left = True
        return True

    def end(self, result: Any = None, error: Exception | None = None) -> None:
        """Tell the caller how it ended, unless it knows."""
        if self.done():
            return
        if self.is_left:
            super().cancel()
        elif error is not None:
            self.set_exception(error)
        else:
            self.set_result(result)

    def give_up(self) -> None:
        """The batch has been cancelled."""
        super().cancel()


class _Line:
    """The calls of one event loop that wait for the next batch."""

    __slots__ = ("task", "waiting")

    def __init__(self) -> None:
        self.waiting: list[_Call] = []
        self.task: asyncio.Task[None] | None = None


class AsyncBatchedBaseStore(BaseStore):
    """A store whose async methods put their operations together. Implement `abatch`, and call `super().__init__()`.

    Puts of one key that meet in a batch count as one, the last, unless one has an `if_version`. A caller that is cancelled
    before its operation is part of a batch takes it back; later, it learns of its cancellation when the batch has ended.
    `batch`, and with it every plain method, runs `abatch` on the store's event loop (the one
    that runs when the store is made, or else that of its first async call) and is therefore refused on that loop's thread.
    """

    shared_errors: ClassVar[tuple[type[BaseException], ...]] = (OSError, TimeoutError)
    """Errors of a batch that are of no operation in particular: every caller gets them, and nothing is tried again. After
    any other error the operations of the batch are carried out one by one."""

    def __init__(self) -> None:
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = weakref.WeakKeyDictionary()
        self._loop: asyncio.AbstractEventLoop | None = _running_loop()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out operations from a thread that runs no event loop.

        Raises:
            asyncio.InvalidStateError: an event loop runs on this thread, and would have to wait for itself.
            RuntimeError: the store has no event loop yet, or its loop is closed.
        """
        refuse_on_a_loop(self)
        loop = self._loop
        if loop is None or loop.is_closed():
            lack = "has no event loop yet" if loop is None else "had an event loop that is closed"
            raise RuntimeError(
                f"{type(self).__name__}.batch: the store {lack}, which would carry it out; make the store in a coroutine, "
                f"and call plain methods from other threads while its loop runs"
            )
        return asyncio.run_coroutine_threadsafe(self.abatch(ops), loop).result()

    # ---- calls to batches

    async def _acarry_out(self, op: Op) -> Result:
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop.is_closed():
            self._loop = loop
        line = self._lines.get(loop)
        if line is None:
            line = self._lines[loop] = _Line()
        call = _Call(op, loop)
        line.waiting.append(call)
        if line.task is None:
            self._go(loop, line)
        result: Result = await call
        return result

    def _go(self, loop: asyncio.AbstractEventLoop, line: _Line) -> None:
        """See to it that what waits is carried out."""
        if line.waiting and line.task is None and not loop.is_closed():
            # In a context of its own: the batch is not part of what the first caller does.
            line.task = loop.create_task(self._serve(loop, line), context=Context())

    async def _serve(self, loop: asyncio.AbstractEventLoop, line: _Line) -> None:
        try:
            while line.waiting:
                calls, line.waiting = [call for call in line.waiting if not call.done()], []
                for call in calls:
                    call.is_taken = True
                if calls:
                    await self._together(calls)
        finally:
            line.task = None
            # After a cancellation somebody may still wait. If everybody is cancelled with it, as when a loop ends, their
            # calls are gone by then.
            loop.call_soon(self._go, loop, line)

    async def _together(self, calls: Sequence[_Call]) -> None:
        """Carry out calls as one batch, and one by one if that fails because of one of them."""
        groups = _grouped(calls)
        try:
            await self._batch(groups)
        except Exception as error:  # noqa: BLE001 - callers get it
            if len(groups) == 1 or isinstance(error, self.shared_errors):
                _fail(groups, error)
                return
            for group in groups:
                try:
                    await self._batch([group])
                except Exception as own:  # noqa: BLE001 - likewise
                    _fail([group], own)
        finally:
            for call in calls:
                call.give_up()  # of those that have no result: this task was cancelled

    async def _batch(self, groups: Sequence[_Group]) -> None:
        results = await self.abatch([group.op for group in groups])
        for group, result in zip(groups, results, strict=True):
            group.end(result)


class _Group:
    """An operation of a batch and the callers that its result is for."""

    __slots__ = ("calls", "op")

    def __init__(self, call: _Call) -> None:
        self.op = call.op
        self.calls = [call]

    def end(self, result: Any) -> None:
        """Each caller has its own result: items are theirs to change."""
        first, *others = self.calls
        for call in others:
            call.end(own_result(result))
        first.end(result)


def refuse_on_a_loop(store: BaseStore) -> None:
    """Raise `asyncio.InvalidStateError` if an event loop runs on this thread."""
    if _running_loop() is not None:
        kind = type(store).__name__
        raise asyncio.InvalidStateError(
            f"a plain method of {kind} was called on the thread of an event loop, which would stand still meanwhile; await "
            f"the async form (aget for get, aput for put, ...), or call it from another thread"
        )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _fail(groups: Iterable[_Group], error: Exception) -> None:
    for group in groups:
        for call in group.calls:
            call.end(error=error)


def _grouped(calls: Iterable[_Call]) -> list[_Group]:
    """The operations to carry out, in order, without those that another one answers."""
    groups: dict[int, _Group] = {}
    gets: dict[tuple[Any, ...], dict[bool, _Group]] = {}
    reads: dict[str | int, _Group] = {}
    puts: dict[tuple[Any, ...], int] = {}
    """Where puts are that nobody has seen yet."""
    for n, call in enumerate(calls):
        op = call.op
        if isinstance(op, PutOp):
            address = op.namespace, op.key
            reads.clear()
            gets.pop(address, None)
            former = puts.pop(address, None)
            groups[n] = _Group(call)
            if op.if_version is not None:
                continue
            # A put after a deletion makes a new item, so the deletion is not left out.
            if former is not None and groups[former].op.value is not None:  # type: ignore[union-attr]
                groups[n].calls += groups.pop(former).calls
            puts[address] = n
            continue
        if isinstance(op, GetOp):
            address = op.namespace, op.key
            puts.pop(address, None)
            shared: Any = gets.setdefault(address, {})
            name: Any = op.refresh_ttl
        else:
            # By their texts: filters are dicts, and True is not 1 there.
            puts.clear()
            shared, name = reads, repr(op) if _is_plain(getattr(op, "filter", None)) else n
        if name in shared:
            shared[name].calls.append(call)
        else:
            shared[name] = groups[n] = _Group(call)
    return list(groups.values())


def _is_plain(value: Any) -> bool:
    """Is a value told from all others by its text?"""
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)
