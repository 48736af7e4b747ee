"""Runs driven to their end, in either colour, under a time limit, with a saver that only remembers.

Decides how a test drives: on a thread of its own, so that a deadlock fails one test and not the suite. Knows the
drivers and nothing above them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from checkpoint.base import StepCommit
from pregel._call import prepare
from pregel.constants import RETURN
from pregel.engine.async_driver import AsyncDriver
from pregel.engine.core import Run
from pregel.engine.program import Node, PregelNode, Program, Write
from pregel.engine.sync_driver import SyncDriver
from pregel.engine.workers import Gate
from tests.support.dummies import dummy_run

LIMIT = 10.0
"""Seconds until a test counts as deadlocked; never reached in a passing one."""


class Unencoded(NamedTuple):
    """A commit that stays as it is."""

    commit: StepCommit
    edited: Sequence[str] = ()


class Ledger:
    """A native saver that keeps commits in the order in which they were written. `fail` is raised by the n-th write."""

    native_commit = True
    max_checkpoint_lag = 1

    def __init__(self, *, fail: BaseException | None = None, at: int = 0) -> None:
        self.commits: list[StepCommit] = []
        self.durabilities: list[str] = []
        self.fail = fail
        self.at = at
        self.seen = 0

    @property
    def kinds(self) -> list[str]:
        """Source of each checkpoint, `tasks` for rows alone."""
        return ["tasks" if commit.kind == "tasks" else commit.source for commit in self.commits]

    def encode(self, commit: StepCommit) -> Unencoded:
        return Unencoded(commit)

    def is_large(self, commit: StepCommit) -> bool:
        return False

    def _write(self, commit: StepCommit, how: str) -> None:
        self.seen += 1
        if self.fail is not None and self.seen > self.at:
            raise self.fail
        commit.claim.claimed = True
        self.commits.append(commit)
        self.durabilities.append(how)

    def write(self, batch: Sequence[Unencoded], *, durability: str) -> None:
        for encoded in batch:
            self._write(encoded.commit, durability)

    async def awrite(self, batch: Sequence[Unencoded], *, durability: str) -> None:
        self.write(batch, durability=durability)

    def submit(self, encoded: Unencoded) -> Later:
        return Later(self, encoded.commit)


class Later:
    """A write that happens when it is waited for."""

    def __init__(self, ledger: Ledger, commit: StepCommit) -> None:
        self.ledger = ledger
        self.commit: StepCommit | None = commit

    def done(self) -> bool:
        return self.commit is None

    def result(self) -> None:
        commit, self.commit = self.commit, None
        if commit is not None:
            self.ledger._write(commit, "later")

    async def aresult(self) -> None:
        self.result()


def returns(result: Any, scope: Any, writes: list[Write]) -> None:
    """The writer of a called task."""
    writes.append((RETURN, result))


def child(fn: Callable[..., Any], name: str = "t", **fields: Any) -> Node:
    """A node to call."""
    return Node(name, PregelNode(channels=[], triggers=[], bound=prepare(fn), **{"write": returns, **fields}), {})


def within(function: Callable[[], Any], limit: float = LIMIT) -> Any:
    """The result of a function that is called on a thread of its own; a failure if it does not end in time."""
    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as error:  # noqa: BLE001 - raised again where the test is
            outcome.append((None, error))

    thread = threading.Thread(target=call, name="test-driver", daemon=True)
    thread.start()
    thread.join(limit)
    if not outcome:
        raise TimeoutError(f"the run has not ended after {limit} seconds")
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


OPTIONS = ("inline", "gate", "step_timeout")


class Driven:
    """A run that has ended: its state, and what it was ended by."""

    def __init__(self, run: Run, error: BaseException | None, ident: int) -> None:
        self.run = run
        self.error = error
        self.ident = ident
        """Thread that drove it."""

    def __getitem__(self, channel: str) -> Any:
        return self.run.channels[channel].get()


def drive(
    colour: str,
    program: Program,
    value: Any = 1,
    *,
    saver: Ledger | None = None,
    durability: Any = "sync",
    limit: int | None = None,
    **fields: Any,
) -> Driven:
    """Drive a run to its end. `limit` is `max_concurrency`; errors are kept, not raised."""
    options: dict[str, Any] = {name: fields.pop(name) for name in OPTIONS if name in fields}
    if limit is not None:
        options["gate"] = Gate(limit)
    fields.setdefault("deferred", durability == "exit")
    fields.setdefault("monotonic", time.monotonic)
    run = dummy_run(program, stores=saver is not None, **fields)

    def sync() -> Driven:
        driver = SyncDriver(run, saver, durability, **options)  # type: ignore[arg-type]
        error: BaseException | None = None
        try:
            driver.begin(value)
            driver.drive()
        except BaseException as raised:  # noqa: BLE001 - kept for the test
            error = raised
        try:
            driver.close()
        except Exception as raised:  # noqa: BLE001 - kept for the test
            error = error or raised
        return Driven(run, error or run.outcome(), threading.get_ident())

    async def a_sync() -> Driven:
        driver = AsyncDriver(run, saver, durability, **options)  # type: ignore[arg-type]
        error: BaseException | None = None
        try:
            await driver.begin(value)
            await driver.drive()
        except BaseException as raised:  # noqa: BLE001 - kept for the test
            error = raised
        try:
            await driver.close()
        except Exception as raised:  # noqa: BLE001 - kept for the test
            error = error or raised
        return Driven(run, error or run.outcome(), threading.get_ident())

    done: Driven = within(sync if colour == "sync" else lambda: asyncio.run(a_sync()))
    return done


class Count:
    """How many are inside at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.now -= 1
