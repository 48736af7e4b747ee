"""A saver that watches, lags, fails and dies on demand, and the ledger of what must hold whatever happens to it.

`FaultySaver` is an `InMemorySaver` whose native calls are counted. It can die at the n-th durable call, before or
after the call takes effect (then nothing works until `restart`, as after a crash of the process), or raise an error
of its own there; with `lags=True` submitted commits stay in memory until they are waited for, and a death loses them.

The ledger judges by what was durable at the time: comparing final values is not enough, since most graphs come to the
same end if work is silently done twice (style.md 6.9).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from checkpoint.base import LoadedCheckpoint, StepCommit
from checkpoint.memory import InMemorySaver
from pregel.constants import RESUME
from pregel.errors import AttemptClosedError


class Died(BaseException):
    """The process is gone: no code of the run may do anything more that lasts."""


class DiskFull(OSError):
    """An error of the saver's own."""


class Facts:
    """What the ledger keeps of a commit, taken when it is encoded."""

    def __init__(self, commit: StepCommit) -> None:
        self.thread_id = commit.claim.thread_id
        self.is_checkpoint = commit.kind == "checkpoint"
        self.rev, self.parent_rev, self.source = commit.rev, commit.parent_rev, commit.source
        self.has_parent = commit.parent_id is not None
        self.version = commit.version
        self.versions = {
            name: (commit.versions or {}).get(name, commit.version)
            for name in (*commit.values, *commit.ops, *commit.gone)
        }
        self.outputs = [w.task_id for w in commit.writes if w.slot == 0 and set(w.task_id) - set("0-")]
        self.answered = [
            id_
            for w in commit.writes
            for name, value in w.writes
            if name == RESUME and isinstance(value, dict)
            for id_ in value
        ]


class Ledger:
    """What is durable, and every breach of a rule."""

    def __init__(self) -> None:
        self.outputs: set[str] = set()
        """Ids of tasks whose output is stored."""
        self.answered: set[str] = set()
        """Ids of questions whose answer is stored."""
        self.versions: dict[tuple[str, int], dict[str, Any]] = {}
        """(thread, rev) -> channel versions."""
        self.given: set[str] = set()
        """Ids of questions that the call under way answers, if it stores as it goes."""
        self.breaches: list[str] = []

    def stored(self, facts: Facts) -> None:
        """A commit has become durable."""
        self.outputs.update(facts.outputs)
        self.answered.update(facts.answered)
        if not facts.is_checkpoint:
            return
        parent = self.versions.get((facts.thread_id, facts.parent_rev)) if facts.parent_rev else None
        if parent is None and facts.has_parent:
            self.breaches.append(f"checkpoint {facts.rev:x} has a parent that is not stored")
        parent = parent or {}
        for name, version in facts.versions.items():
            if name in parent and not version > parent[name]:
                self.breaches.append(f"channel {name} changed and kept its version {version}")
        if parent and facts.version < max(parent.values()):
            self.breaches.append(f"version {facts.version} is below the parent's")
        if (facts.thread_id, facts.rev) in self.versions:
            self.breaches.append(f"checkpoint {facts.rev:x} is stored twice")
        self.versions[facts.thread_id, facts.rev] = {**parent, **facts.versions}

    def began(self, scope: Any, state: Mapping[str, Any]) -> None:
        """A body has begun."""
        task, step = scope.task, scope.host.step
        if not self.given <= self.answered:
            self.breaches.append(f"{task.name} runs before the answer to {self.given - self.answered} is stored")
        if scope.host.stores and scope.host.id_of(task) in self.outputs:
            self.breaches.append(f"{task.name} of step {step} runs although its output is stored")
        for marker in state.get("log", ()):
            if "@" in marker and int(marker.split("@")[1].split(".")[0]) >= step:
                self.breaches.append(f"{task.name} of step {step} reads {marker}")

    def asked(self, id_: str) -> None:
        """A question comes up that has no answer."""
        if id_ in self.answered:
            self.breaches.append(f"question {id_} is asked although its answer is stored")


class LateAck:
    """A write that waits in memory."""

    def __init__(self, saver: FaultySaver, encoded: Any) -> None:
        self._saver = saver
        self.encoded = encoded
        self.error: BaseException | None = None
        self.ended = False

    def done(self) -> bool:
        return self.ended

    def result(self) -> None:
        while not self.ended:
            self._saver.flush_one()
        if self.error is not None:
            raise self.error

    async def aresult(self) -> None:
        await asyncio.sleep(0)
        self.result()


class FaultySaver(InMemorySaver):
    """See the module."""

    def __init__(self, *, lags: bool = False) -> None:
        super().__init__()
        self.lags = lags
        self.ledger = Ledger()
        self.calls = 0
        """Durable calls so far."""
        self.strike_at: int | None = None
        """The number of the durable call that is struck."""
        self.strike_again: int | None = None
        """After a restart: how many durable calls until the next strike."""
        self.late = False
        """Does the struck call take effect first?"""
        self.error: Callable[[], BaseException] | None = None
        """What a struck call raises; None: the process dies."""
        self.encodes = self.loads = 0
        self.strike_encode: int | None = None
        self.strike_load: int | None = None
        self.is_dead = False
        self._queue: deque[LateAck] = deque()
        self._facts: dict[int, tuple[Any, list[Facts]]] = {}
        """By identity of the encoded commit, which is kept so that it stays unique."""

    def restart(self) -> None:
        """The process is started again: what was durable is there, nothing else."""
        self.is_dead = False
        self.strike_at = self.calls + self.strike_again if self.strike_again else None
        self.strike_encode = self.strike_load = None
        self._queue.clear()
        self._facts.clear()

    # ---- the native interface

    def load(self, *args: Any, **kwargs: Any) -> LoadedCheckpoint:
        self._alive()
        while self._queue:
            self.flush_one()
        self.loads += 1
        if self.loads == self.strike_load:
            self._strike()
        return super().load(*args, **kwargs)

    async def aload(self, *args: Any, **kwargs: Any) -> LoadedCheckpoint:
        await asyncio.sleep(0)
        return self.load(*args, **kwargs)

    def encode(self, commit: StepCommit) -> Any:
        self._alive()
        self.encodes += 1
        if self.encodes == self.strike_encode:
            self._strike()
        encoded = super().encode(commit)
        self._facts[id(encoded)] = encoded, [Facts(part) for part in (*commit.others, commit)]
        return encoded

    def write(self, batch: Sequence[Any], *, durability: Any = "sync") -> None:
        self._alive()
        for encoded in batch:
            self._effect(encoded)

    async def awrite(self, batch: Sequence[Any], *, durability: Any) -> None:
        await asyncio.sleep(0)
        self.write(batch, durability=durability)
        await asyncio.sleep(0)

    def submit(self, encoded: Any) -> Any:
        self._alive()
        if not self.lags:
            self._effect(encoded)
            return None
        ack = LateAck(self, encoded)
        self._queue.append(ack)
        return ack

    # ---- what happens to a commit

    def flush_one(self) -> None:
        """Make the oldest waiting commit durable. After a failure nothing later is tried."""
        self._alive()
        ack = self._queue.popleft()
        try:
            self._effect(ack.encoded)
        except AttemptClosedError as error:
            # Submitted by a body whose run has ended meanwhile: its own affair, and nobody else's.
            ack.error = error
        except BaseException as error:
            for lost in (ack, *self._queue):
                lost.error, lost.ended = error, True
            self._queue.clear()
            raise
        ack.ended = True

    def _effect(self, encoded: Any) -> None:
        self.calls += 1
        struck = self.calls == self.strike_at
        if struck and not self.late:
            self._strike()
        super().write((encoded,), durability="sync")
        for facts in self._facts.pop(id(encoded))[1]:
            self.ledger.stored(facts)
        if struck:
            self._strike()

    def _strike(self) -> None:
        if self.error is not None:
            raise self.error()
        self.is_dead = True
        raise Died

    def _alive(self) -> None:
        if self.is_dead:
            raise Died
