"""Drives savers as the engine does, in either colour, without an engine.

`Store` is a saver in one colour, each call on a loop of its own; what drives it is the kit's.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from checkpoint.base import LoadedCheckpoint, StepCommit
from checkpoint.testing.script import GONE, ScriptedRun, Stored, config, op_of

__all__ = ["GONE", "ScriptedRun", "Store", "Stored", "config", "op_of", "transactions"]


@contextmanager
def transactions(conn: sqlite3.Connection) -> Iterator[list[int]]:
    """How many rows each transaction changes that a connection commits while the block runs."""
    changes: list[int] = []
    before = conn.total_changes

    def count(statement: str) -> None:
        nonlocal before
        if statement == "COMMIT":
            changes.append(conn.total_changes - before)
            before = conn.total_changes

    conn.set_trace_callback(count)
    yield changes
    conn.set_trace_callback(None)


class Store:
    """The calls of a saver, in one colour."""

    def __init__(self, saver: Any, is_async: bool) -> None:
        self.saver = saver
        self.is_async = is_async

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if not self.is_async:
            return getattr(self.saver, name)(*args, **kwargs)

        async def run() -> Any:
            return await getattr(self.saver, "a" + name)(*args, **kwargs)

        return asyncio.run(run())

    def _collect(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        if not self.is_async:
            return list(getattr(self.saver, name)(*args, **kwargs))

        async def run() -> list[Any]:
            return [entry async for entry in getattr(self.saver, "a" + name)(*args, **kwargs)]

        return asyncio.run(run())

    def load(self, config: Any, **kwargs: Any) -> LoadedCheckpoint:
        loaded: LoadedCheckpoint = self._call("load", config, **kwargs)
        return loaded

    def commit(self, *commits: StepCommit, durability: Any = "sync") -> None:
        self._call("write", [self.saver.encode(commit) for commit in commits], durability=durability)

    def get_tuple(self, config: Any) -> Any:
        return self._call("get_tuple", config)

    def put(self, *args: Any) -> Any:
        return self._call("put", *args)

    def put_writes(self, *args: Any, **kwargs: Any) -> None:
        self._call("put_writes", *args, **kwargs)

    def delete_thread(self, thread_id: str) -> None:
        self._call("delete_thread", thread_id)

    def fork(self, config: Any) -> Any:
        return self._call("fork", config)

    def copy_thread(self, source: str, target: str) -> None:
        self._call("copy_thread", source, target)

    def list(self, *args: Any, **kwargs: Any) -> list[Any]:
        return self._collect("list", *args, **kwargs)

    def history(self, *args: Any, **kwargs: Any) -> list[Any]:
        return self._collect("history", *args, **kwargs)
