"""Several calls of a graph side by side, async: as asyncio tasks, as many at once as the config allows.

The mirror of `_batch`. Imported by those who ask: it loads asyncio (D36).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any


async def gather(
    calls: Sequence[Coroutine[Any, Any, Any]], given: Sequence[Any]
) -> list[tuple[Any, BaseException | None]]:
    """Await the calls, at most `max_concurrency` of the first config at once; (result, error) in order."""
    limit = (given[0] or {}).get("max_concurrency") if given else None
    gate = asyncio.Semaphore(limit or max(1, len(calls)))

    async def run(call_: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
        async with gate:
            try:
                return await call_, None
            except Exception as error:  # noqa: BLE001 - reported to the caller in input order
                return None, error

    return list(await asyncio.gather(*(run(call_) for call_ in calls)))


async def as_completed(
    calls: Sequence[Callable[[], Coroutine[Any, Any, Any]]], given: Sequence[Any]
) -> AsyncGenerator[tuple[int, Any, Exception | None], None]:
    """The same, as they end: (index, result, error). Who leaves before the last has the others cancelled."""
    limit = (given[0] or {}).get("max_concurrency") if given else None
    gate = asyncio.Semaphore(limit or max(1, len(calls)))
    ended: asyncio.Queue[tuple[int, Any, Exception | None]] = asyncio.Queue()

    async def run(index: int) -> None:
        async with gate:
            try:
                ended.put_nowait((index, await calls[index](), None))
            except Exception as error:  # noqa: BLE001 - reported to the caller
                ended.put_nowait((index, None, error))

    tasks = [asyncio.create_task(run(index)) for index in range(len(calls))]
    try:
        for _ in calls:
            yield await ended.get()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
