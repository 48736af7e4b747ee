"""The nested states of a thread that are open: is there work in them that their graphs cannot run any more?

Decides which namespaces may have an open state below a checkpoint, level by level; whoever asks loads them (`Search.next`,
`Search.take`), so both colours of driver and `graph.check` share it. A nested graph that its node does not name cannot be
found from outside: its own run refuses when it is resumed.

Invariant: runs no user code but the `from_checkpoint` of channels that wake nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any, NamedTuple

from checkpoint.base import LoadedCheckpoint
from pregel.constants import TASKS
from pregel.engine import entry, namespace, pause, plan
from pregel.engine.apply import apply_writes
from pregel.engine.program import Program
from pregel.engine.redeploy import is_control, knows
from pregel.engine.state import Channels, Request, RunState
from pregel.engine.task import Task
from pregel.errors import Stranded


class Question(NamedTuple):
    """What a search asks of a saver: a method of `NativeSaver`, `"load"` or `"nested"`."""

    name: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


class Search:
    """Goes through the open states below a run's checkpoint: `take` the reply to each question that `next` asks.

    `found`: gets what cannot go on, of the nested states. `tells_keys`: also keys with a value that no node sees. The run
    is spent afterwards.
    """

    def __init__(self, run: RunState, found: list[Stranded], *, tells_keys: bool = False) -> None:
        self.found = found
        self.tells_keys = tells_keys
        self._questions = self._below(run)
        self._reply: Any = None

    def next(self) -> Question | None:
        """What is to be asked now; None when all was looked at."""
        return next(self._questions, None)

    def take(self, reply: Any) -> None:
        """The saver's reply."""
        self._reply = reply

    def _below(self, run: RunState) -> Iterator[Question]:
        tasks = open_tasks(run)
        if self.tells_keys and run.taken_over is not None and (tasks or run.taken_over.missing):
            self.found += unseen_keys(run)
        holders = [(task, graphs) for task in tasks if (graphs := _keepers(task))]
        if not holders:
            return
        yield Question("nested", (run.loaded,), {})
        stored: list[str] = self._reply
        for task, graphs in holders:
            task_ns, stable = run.ns_of(task), run.stable_names(task)
            for ns in sorted({task_ns, *stable, *stored}):
                if namespace.calls_of(ns)[0] in (task_ns, *stable):
                    yield from self._nested(run, graphs, ns)

    def _nested(self, run: RunState, graphs: list[Any], ns: str) -> Iterator[Question]:
        """One nested run of a task, if it is stored."""
        config = {"configurable": {"thread_id": run.request.thread_id, "checkpoint_ns": ns}}
        yield Question("load", (config,), {"claim": run.claim, "up_rev": run.rev})
        loaded: LoadedCheckpoint | None = self._reply
        if loaded is None or loaded.checkpoint_id is None:
            return
        fitting = graphs if len(graphs) == 1 else [graph for graph in graphs if knows(graph.program, loaded)]
        if not fitting:
            return  # which of them it is of shows only when the node runs
        inner = RunState(fitting[0].program, _request_at(run.request, ns), loaded)
        if inner.taken_over is not None:
            self.found += inner.taken_over.missing
        yield from self._below(inner)


def _keepers(task: Task) -> list[Any]:
    return [graph for graph in task.node.subgraphs if graph.checkpointer is not False]


def _request_at(request: Request, ns: str) -> Request:
    """The request of a run that is only looked at, in another namespace."""
    other = copy(request)
    other.ns_ = ns
    other.parent = other.parent_run = None
    other.stores = True
    return other


def unseen_keys(run: RunState) -> list[Stranded]:
    """Keys that the graph does not declare and that have a value, where something is pending."""
    assert run.taken_over is not None
    assert run.loaded is not None
    keys = run.program.state_keys
    reason = "it has a value that no node sees"
    return [Stranded.of(run.loaded, "key", key, reason, keys, blocks=False) for key in run.taken_over.unseen]


def triggers_below(program: Program) -> set[str]:
    """Channels that wake a node of a graph, or of one inside it."""
    found: set[str] = set()
    todo, seen = [program], set()
    while todo:
        one = todo.pop()
        if id(one) not in seen:
            seen.add(id(one))
            found |= one.triggers
            todo += [graph.program for node in one.nodes.values() for graph in node.subgraphs]
    return found


def open_tasks(run: RunState) -> list[Task]:
    """Tasks of the open step that have no result yet. The run is not used for anything else afterwards."""
    for row in run.pending:
        if pause.is_null(row.task_id) and row.slot == 0:
            wakes = [(channel, value) for channel, value in row.writes if is_control(channel) or channel == TASKS]
            apply_writes(run, wakes, "Command")
    tasks = plan.open_tasks(run)
    done = {row.task_id for row in run.pending if row.slot == 0}
    return [task for task in tasks if run.id_of(task) not in done]


def before_resume(run: RunState, value: Any) -> Search | None:
    """What a run with this input must look through before it starts, since another version of its graph has left the
    thread; None if nested states are no matter."""
    is_past = run.replaying or run.moved_past
    if run.taken_over is None or run.request.parent_run is not None or is_past or not entry.continues(run, value):
        return None
    twin = copy(run)
    twin.channels = Channels(run.program.channels, run.channels.stored)
    twin.versions = dict(run.versions)
    twin.changed, twin.notices = {}, []
    return Search(twin, run.taken_over.missing)
