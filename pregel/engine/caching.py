"""`CachingRun`: a run whose graph has a cache. It decides which tasks are looked up, and what becomes of what is found.

A superstep is planned, then the cache is asked for all of its tasks at once, then the bodies start of those that were not
found. A result that was found is a result like any other: it is stored under its task, so nobody needs the cache again
to resume. Knows no cache: keys come from `Request.caching`, entries from the driver.

Invariants
1. Only what a body returned is kept: nothing that failed, nothing that was answered (an answer is not the next user's).
2. A task that asked is not looked up either: it was answered for this run, and the answer counts.
3. A run without a cache is a plain `Run`, and costs nothing of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from checkpoint.base import LoadedCheckpoint
from pregel._scope import TaskScope
from pregel.constants import INTERRUPT, RESUME, RETURN, TASKS
from pregel.engine import snapshot, view
from pregel.engine.limited import LimitedRun
from pregel.engine.program import Node, Program, Write
from pregel.engine.state import Request
from pregel.engine.task import Task

Key = tuple[tuple[str, ...], str]
"""Namespace and key of an entry."""


class CachingRun(LimitedRun):
    """One run of one graph that has a cache, with limits or without."""

    __slots__ = ("heard", "planned", "served", "wanted")

    def __init__(self, program: Program, request: Request, loaded: LoadedCheckpoint | None = None) -> None:
        super().__init__(program, request, loaded)
        self.planned: list[Task] = []
        """Tasks of the step that the cache is asked for before they run, and those that run anyway."""
        self.wanted: dict[Task, Key] = {}
        """Tasks of the step with a cache policy -> their keys."""
        self.served: set[TaskScope] = set()
        """Attempts of the step whose body found its result in the cache."""
        self.heard: set[TaskScope] = set()
        """Attempts of the step that asked something, themselves or through what they called."""

    def plan(self) -> list[Task] | None:
        """The tasks of the next superstep that must run; None, in phase `asking`, if the cache is to be asked for them.

        Raises:
            TypeError: an input that no key can be made of.
            Exception: what a key function raises.
        """
        tasks = super().plan()
        if not tasks:
            return tasks
        self.served.clear()
        self.heard.clear()
        caching, asked = self.request.caching, self._asked()
        self.wanted = {
            task: caching.key(self, task)
            for task in tasks
            if caching.policy(task) is not None and not (asked and self.id_of(task) in asked)
        }
        if not self.wanted:
            return tasks
        self.planned = tasks
        self.phase = "asking"
        return None

    def serve(self, found: Mapping[Key, Any]) -> list[Task]:
        """The cache has answered: settle the tasks whose result it has; returns those that must run. `found` is the
        run's own, and each of several equal tasks gets a copy."""
        self.phase = "running"
        left = []
        given: set[Key] = set()
        entries = {key: writes_of(self.program, entry) for key, entry in found.items()}
        for task in self.planned:
            key = self.wanted.get(task)
            writes = None if key is None else entries.get(key)
            if key is not None and writes is not None:
                self._settle_found(task, deepcopy(writes) if key in given else writes)
                given.add(key)
                continue
            if key is not None:
                task.node = self.request.caching.keeping(task.node)
            left.append(task)
        self.planned = []
        return left

    def finish(self, task: Task, writes: list[Write]) -> None:
        """The body returned, or found its result in the cache."""
        if task.scope in self.served:
            self._settle_found(task, writes)
        else:
            super().finish(task, writes)

    def call(self, scope: TaskScope, node: Node, *call: Any, **more: Any) -> Task:
        """A task calls a task, whose body will look into the cache."""
        child = super().call(scope, node, *call, **more)
        is_new = child.scope is None and not child.settled  # else an attempt of it is running already
        if (
            is_new
            and self.request.caching.policy(child) is not None
            and not (self.pending and self.id_of(child) in self._asked())
        ):
            child.node = self.request.caching.keeping(child.node)
        return child

    def ask(self, scope: TaskScope, value: Any, response_schema: Any, deadline: Any = None) -> Any:
        """The answer to the task's next question; whoever gets one, and whoever called him, is not kept."""
        asking: TaskScope | None = scope
        while asking is not None:
            heard = getattr(asking.host, "heard", None)
            if heard is not None:
                heard.add(asking)
            asking = asking.task.caller or asking.parent
        return super().ask(scope, value, response_schema, deadline)

    def _settle_found(self, task: Task, writes: list[Write]) -> None:
        """The task has a result, and nothing has run."""
        task.writes = writes
        task.settled = True
        task.scope = None
        self.unsettled -= 1
        if self.stores:
            self.held.append(self._row(task, 0, snapshot.stored_writes(self.program, writes)))
        if self.sees:
            view.reapplied(self, [task])

    def _asked(self) -> set[str]:
        """Ids of tasks that have asked something in this step, in an earlier run."""
        return {
            entry.task_id
            for entry in self.pending
            if any(channel in (INTERRUPT, RESUME) for channel, _ in entry.writes)
        }


def writes_of(program: Program, entry: Any) -> list[Write] | None:
    """The writes that an entry holds; None if it holds something else, or writes to what the graph does not have."""
    if not isinstance(entry, (list, tuple)):
        return None
    writes: list[Write] = []
    for write in entry:
        if not isinstance(write, (list, tuple)) or len(write) != 2 or not isinstance(write[0], str):
            return None
        if write[0] not in program.channels and write[0] != RETURN:
            return None
        writes.append((write[0], write[1]))
    return writes


def unkept(program: Program, writes: Sequence[Write]) -> str | None:
    """A channel among those written, or given to a node, whose values are never stored; None if there is none."""
    if program.keeps_all:
        return None
    names = [
        name
        for channel, value in writes
        for name in (value.arg if channel == TASKS and isinstance(value.arg, dict) else (channel,))
    ]
    return next((name for name in names if name in program.channels and name not in program.tracked), None)
