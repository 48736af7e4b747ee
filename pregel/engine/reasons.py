"""Why nodes ran or did not: stored checkpoints in, an `Explanation` out.

Decides which write woke a task: the first checkpoint with the version of its trigger that the task ran on was made by a
step, and what that step's tasks wrote is stored under the checkpoint before it. Pure: it asks for checkpoints one at a
time, newest first, by yielding, and whoever drives it sends them. Runs no code of the program, not even reducers, and
reads no values but those of control channels; it does with what `NativeSaver.history(channels=...)` gives.

Invariants
1. Which tasks a step had, and their ids, is decided as `history.opened` decides it, without applying anything; only
   nodes that were due with nothing to read are told apart.
2. A cause is named only if it is stored; otherwise the cause is `"unknown"` and says why.
3. Cost: the checkpoints of the explained steps, and at most `MARGIN` older ones for causes that lie before them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from checkpoint.base import SCHEDULED, LoadedCheckpoint, RunnableConfig, TaskWrites
from pregel.channels.last_value import LastValueAfterFinish
from pregel.channels.named_barrier_value import (
    InclusiveBarrierValue,
    NamedBarrierValue,
    NamedBarrierValueAfterFinish,
)
from pregel.constants import ERROR, ERROR_SOURCE_NODE, INTERRUPT, PULL, PUSH, START, TASKS
from pregel.engine import history, pause, view
from pregel.engine.calls import Recalled
from pregel.engine.program import Node, Program
from pregel.engine.state import Request, RunState
from pregel.engine.task import Task
from pregel.errors import shown
from pregel.explanation import Cause, Explanation, Lack, Step, StepTask, Way
from pregel.types import Send

MARGIN = 1000
"""Checkpoints before the explained ones that are looked at for causes: a join may be half full for long."""

Reading = Generator[None, LoadedCheckpoint | None, Any]
"""Yields for the next older checkpoint of the namespace; None when there is none."""

AS_ONE = "the steps are not stored one by one"
TOO_FAR = "older checkpoints are gone, or too far back"
NOT_KEPT = "what the tasks wrote was not kept"

_PREFIX = f"~{PULL}, "
Status = Literal["finished", "pending", "failed", "asked", "handled"]


def channels_of(program: Program) -> frozenset[str]:
    """The channels whose values must be read; of others it is enough to know that they have one."""
    wanted = {*program.triggers, *(node.single for node in program.nodes.values() if node.single is not None)}
    specs = program.channels
    return frozenset(name for name in wanted if name in specs and not specs[name].plain_value) | {TASKS}


class Due(NamedTuple):
    """A task of a step, and why: triggers that had something new, or the place of its Send in the queue."""

    task: Task
    triggers: tuple[str, ...] = ()


class Point:
    """One checkpoint: the tasks of the step that follows it, and what is stored of them."""

    def __init__(self, program: Program, request: Request, loaded: LoadedCheckpoint) -> None:
        self.loaded = loaded
        self.run = RunState(program, request, loaded)
        self.program = program
        self.rows: dict[str, list[TaskWrites]] = {}
        """Task id -> what is stored of it."""
        self.commanded: list[tuple[str, Any]] = []
        """Writes of Commands that were given as input on this checkpoint."""
        for row in loaded.writes:
            if not pause.is_null(row.task_id):
                self.rows.setdefault(row.task_id, []).append(row)
            elif row.slot == 0:
                self.commanded += row.writes
        self.called = Recalled(loaded.writes)
        """What is stored of tasks that tasks called."""
        self.starved: list[Node] = []
        self.due = [*self._sent(), *self._woken()]
        self.due += [Due(handler) for due in self.due if (handler := self._handler(due.task)) is not None]
        self.tasks = {self.run.id_of(due.task): due.task for due in self.due}

    @property
    def config(self) -> RunnableConfig:
        """Addresses it."""
        assert self.loaded.checkpoint_id is not None
        return history.address(self.loaded, self.loaded.checkpoint_id)

    def has(self, channel: str) -> bool:
        """Has the channel a value that a node can be woken by?"""
        if channel not in self.program.channels or channel not in self.loaded.values:
            return False
        try:
            return self.run.channels[channel].is_available()
        except Exception:  # noqa: BLE001 - a channel of the program's own, given a value whose class was not made
            return True

    def packets(self) -> list[Any]:
        """The queued Sends; those of a Command take the place of others."""
        given = [value for channel, value in self.commanded if channel == TASKS]
        if given or not self.has(TASKS):
            return given
        return list(self.run.channels[TASKS].get())

    def _sent(self) -> Iterator[Due]:
        for index, packet in enumerate(self.packets()):
            node = self.program.nodes.get(_receiver(packet) or "")
            if node is not None:
                yield Due(Task(node, None, index))

    def _woken(self) -> Iterator[Due]:
        commanded = {channel for channel, _ in self.commanded} - set(self.program.finishing)
        for node in self.program.nodes.values():
            triggers = (
                () if node.is_inert else tuple(t for t in node.triggers if t in commanded or self._is_new(node, t))
            )
            if triggers and node.single is not None and not (node.single in commanded or self.has(node.single)):
                self.starved.append(node)
            elif triggers:
                yield Due(Task(node, None), triggers)

    def _is_new(self, node: Node, trigger: str) -> bool:
        version = self.run.versions.get(trigger)
        seen = self.run.seen.get(node.name, {}).get(trigger)
        return version is not None and (seen is None or version > seen) and self.has(trigger)  # type: ignore[operator]

    def _handler(self, failed: Task) -> Task | None:
        """The task that takes over from a failed one, if one does."""
        stored = self.rows.get(self.run.id_of(failed), ())
        if not any(_is_handed_over(row) for row in stored):
            return None
        handler = self.program.nodes.get(failed.node.error_handler or "")
        if handler is None:
            return None
        task = Task(handler, None)
        task.parent = failed
        return task

    def writers(self, channel: str) -> list[tuple[TaskWrites, Any]]:
        """(Row, value) of each write that a task made to a channel, in the order in which writes are applied."""
        return [
            (row, value)
            for row in sorted(self.loaded.writes, key=self._path_text)
            if row.slot == 0 and not pause.is_null(row.task_id)
            for name, value in row.writes
            if name == channel
        ]

    def _path_text(self, row: TaskWrites) -> str:
        task = self.tasks.get(row.task_id)
        return row.path if task is None else task.path_text  # not every saver keeps the path

    def name_of(self, row: TaskWrites) -> str | None:
        """Whose row it is."""
        task = self.tasks.get(row.task_id)
        if task is not None:
            return task.name
        return row.path.removeprefix(_PREFIX) if row.path.startswith(_PREFIX) else None


class Reasons:
    """Explains the steps of one line of checkpoints."""

    def __init__(
        self,
        program: Program,
        request: Request,
        ways: Sequence[Way],
        *,
        named: bool,
        before: str | Sequence[str] = (),
        after: str | Sequence[str] = (),
    ) -> None:
        self.program = program
        self.request = request
        self.ways = tuple(ways)
        self.named = named
        """Was a checkpoint named? Then it comes first, and only the step after it is explained."""
        self.breakpoints = {"before": before, "after": after}
        """Those that the graph was compiled with."""
        self.points: list[Point] = []
        self.is_whole = False
        """Was the line read to its beginning?"""
        self.margin: int | None = None
        """Where reading for causes ends."""
        self.waiters = [
            (node, trigger)
            for node in program.nodes.values()
            for trigger in node.triggers
            if isinstance(
                program.channels.get(trigger), (NamedBarrierValue, NamedBarrierValueAfterFinish, LastValueAfterFinish)
            )
        ]

    def explain(self, graph: str, limit: int | None) -> Reading:
        """The explanation of the newest `limit` steps and the open one, or of the last run."""
        steps: list[Step] = []
        newest = yield from self.at(0)
        if newest is not None:
            n_closed = 0 if self.named else (yield from self._closed(limit))
            self.margin = n_closed + MARGIN
            for number in reversed(range(n_closed)):
                step = yield from self._step(number)
                steps.append(step)
            woken = {due.task.name for point in self.points[: n_closed + 1] for due in point.due}
            step = yield from self._open(newest, woken | {task.name for step in steps for task in step.tasks})
            steps.append(step)
        ns = self.request.ns
        return Explanation(graph, self.request.thread_id or "", ns, tuple(steps), self.ways)

    def at(self, number: int) -> Reading:
        """The `number`-th point of the line, the newest is 0; None if there is none, or it is too far."""
        while len(self.points) <= number:
            if self.is_whole or (self.margin is not None and number > self.margin):
                return None
            parent_id = self.points[-1].loaded.parent_id if self.points else None
            loaded: LoadedCheckpoint | None = None
            if not self.points or parent_id is not None:
                loaded = yield
            if loaded is None:
                self.is_whole = True
                return None
            if self.points and loaded.checkpoint_id != parent_id:
                continue  # of another branch
            if self.points or self.named or loaded.is_head:
                self.points.append(Point(self.program, self.request, loaded))
        return self.points[number]

    def _closed(self, limit: int | None) -> Reading:
        """How many closed steps are explained."""
        number = 0
        while limit is None or number < limit:
            older = yield from self.at(number + 1)
            number += 1
            if older is None or (limit is None and self._takes_input(self.points[number - 1].loaded, older.loaded)):
                break
        return number

    def _takes_input(self, made: LoadedCheckpoint, before: LoadedCheckpoint) -> bool:
        """Did a run begin between two checkpoints?"""
        if made.source == "input":
            return True
        return made.step > before.step + 1 and any(
            made.versions.get(name) != before.versions.get(name) for name in self._inputs()
        )

    def _inputs(self) -> Sequence[str]:
        names = self.program.input_channels
        return [names] if isinstance(names, str) else names

    # ---- steps

    def _step(self, number: int) -> Reading:
        """The step that made a point."""
        made: Point = self.points[number]
        before: Point | None = yield from self.at(number + 1)
        loaded = made.loaded
        kind: Any = loaded.source if loaded.source in ("input", "update", "fork") else "loop"
        if kind == "loop" and not _is_next(loaded, before):
            first = 0 if before is None else before.loaded.step + 1
            if before is None and loaded.parent_id is not None:
                first = loaded.step
            return Step(loaded.step, kind, made.config, self._unseen(made, before), (), first)
        if kind == "loop" and before is not None:
            tasks = yield from self._tasks(number + 1, is_closed=True)
            lacks = yield from self._waiting(number + 1)
            return Step(loaded.step, kind, before.config, tasks, lacks)
        dropped: tuple[StepTask, ...] = ()
        if kind == "input" and before is not None:
            dropped = tuple(
                StepTask(due.task.name, before.run.id_of(due.task), due.task.path, "dropped", ()) for due in before.due
            )
        return Step(loaded.step, kind, made.config, dropped)

    def _unseen(self, made: Point, before: Point | None) -> tuple[StepTask, ...]:
        """Tasks of steps that were stored as one: the nodes that have consumed something meanwhile."""
        if before is None and made.loaded.parent_id is not None:
            return ()
        earlier = {} if before is None else before.loaded.seen
        cause = Cause("unknown", "", detail=AS_ONE)
        return tuple(
            StepTask(name, "", (PULL, name), "finished", (cause,))
            for name, seen in made.loaded.seen.items()
            if name in self.program.nodes and seen != earlier.get(name)
        )

    def _open(self, newest: Point, woken: set[str]) -> Reading:
        """The step that comes after the newest point."""
        tasks = yield from self._tasks(0, is_closed=False)
        lacks = yield from self._waiting(0)
        named = woken | {entry.name for entry in (*tasks, *lacks)}
        lacks += tuple(
            Lack(node.name, "unreached", missing=node.triggers, ways=self._ways_to(node.name))
            for node in self.program.nodes.values()
            if node.name not in named and node.name != START and not node.is_inert and not node.is_error_handler
        )
        stopped = None if newest.rows or not newest.due else (yield from self._stopped(newest))
        return Step(newest.run.step, "open", newest.config, tasks, lacks, stopped=stopped)

    def _stopped(self, newest: Point) -> Reading:
        """The breakpoint that the open step waits at, of which nothing has run: "before", "after" or None."""
        kept = pause.kept_breakpoints(newest.run)
        before, after = (kept.get(kind) or self.breakpoints[kind] for kind in ("before", "after"))
        if before and pause.breakpoint_hit(newest.run, before, [due.task for due in newest.due]):
            return "before"
        closed = (yield from self.at(1)) if after and newest.loaded.source == "loop" else None
        is_hit = closed is not None and pause.breakpoint_hit(newest.run, after, [due.task for due in closed.due])
        return "after" if is_hit else None

    def _tasks(self, number: int, *, is_closed: bool) -> Reading:
        point = self.points[number]
        found: list[StepTask] = []
        for due in point.due:
            causes: tuple[Cause, ...]
            if due.task.parent is not None:
                causes = (Cause("error", "", due.task.parent.name, point.run.id_of(due.task.parent), point.run.step),)
            elif due.task.index >= 0:
                causes = ((yield from self._sender(number, due.task.index)),)
            else:
                causes = ()
                for trigger in due.triggers:
                    causes += yield from self._causes(number, due.task.name, trigger)
            found.append(self._task(point, due, causes, is_closed=is_closed))
        return tuple(found)

    def _task(self, point: Point, due: Due, causes: tuple[Cause, ...], *, is_closed: bool) -> StepTask:
        task_id = point.run.id_of(due.task)
        status, special = self._outcome(point, task_id, is_closed=is_closed)
        return StepTask(
            due.task.name,
            task_id,
            due.task.path,
            status,
            causes,
            any(getattr(point.run.channels[trigger], "finished", False) for trigger in due.triggers),
            tuple(map(_question, special[INTERRUPT])) if status == "asked" else (),
            _error(special[ERROR]) if status in ("failed", "handled") and ERROR in special else None,
            view.nested_config(point.run, due.task),  # type: ignore[arg-type]
            self._calls(point, due.task.name, task_id, due.task.path),
        )

    def _outcome(self, point: Point, task_id: str, *, is_closed: bool) -> tuple[Status, dict[str, Any]]:
        """What became of a task, and what is stored of it beside its writes, by channel."""
        special: dict[str, Any] = {}
        is_finished = is_handled = False
        for row in point.rows.get(task_id, ()):
            if _is_handed_over(row):
                is_handled = True
            elif row.slot == 0:
                is_finished = True
            else:
                special.update(row.writes)
        if is_finished or (is_closed and not is_handled):
            return "finished", special
        if is_handled:
            return "handled", special
        if INTERRUPT in special:
            return "asked", special
        return "failed" if ERROR in special else "pending", special

    def _calls(self, point: Point, caller: str, caller_id: str, path: tuple[Any, ...]) -> tuple[StepTask, ...]:
        """The tasks that a task called; one that is not closed may still call others."""
        found = []
        for stored in sorted(point.called.of(caller_id), key=attrgetter("index")):
            status, special = self._outcome(point, stored.id_, is_closed=False)
            own = (PUSH, path, stored.index, True)
            found.append(
                StepTask(
                    stored.name,
                    stored.id_,
                    own,
                    status,
                    (Cause("node", "", caller, caller_id, point.run.step, "call"),),
                    interrupts=tuple(map(_question, special[INTERRUPT])) if status == "asked" else (),
                    error=_error(special[ERROR]) if status == "failed" else None,
                    calls=self._calls(point, stored.name, stored.id_, own),
                )
            )
        return tuple(found)

    # ---- causes

    def _causes(self, number: int, node: str, trigger: str) -> Reading:
        """What woke a node by one of its triggers, as it is at a point."""
        point = self.points[number]
        if any(channel == trigger for channel, _ in point.commanded):
            return (Cause("command", trigger, step=point.run.step),)
        channel = point.run.channels[trigger]
        if isinstance(channel, (NamedBarrierValue, NamedBarrierValueAfterFinish)):
            return (yield from self._arrivals(number, trigger, channel.seen))
        while True:
            number = yield from self._origin(number, trigger)
            before = yield from self.at(number + 1)
            causes = self._made(number, before, node, trigger)
            if causes is not None:
                return causes
            # Nobody wrote it: the end of the step released what had been written before.
            number += 1

    def _origin(self, number: int, channel: str) -> Reading:
        """The oldest point of the line at which a channel has the version that it has at a point."""
        version = self.points[number].loaded.versions.get(channel)
        while True:
            older = yield from self.at(number + 1)
            if older is None or older.loaded.versions.get(channel) != version:
                return number
            number += 1

    def _made(self, number: int, before: Point | None, node: str, trigger: str) -> tuple[Cause, ...] | None:
        """Who wrote to a channel in the step that made a point; None if the step released what was written before."""
        made = self.points[number].loaded
        if made.source == "input":
            return (Cause("input" if trigger in self._inputs() else "command", trigger, step=made.step),)
        gap = self._gap(made, before)
        if gap is not None or before is None:
            return (Cause("unknown", trigger, step=made.step, detail=gap or ""),)
        writers = before.writers(trigger)
        if made.source == "update":
            names = _updaters(before, [row for row, _ in writers])
            return tuple(Cause("update", trigger, name, step=made.step) for name in names)
        if writers:
            return tuple(self._by(before, row, node, trigger) for row, _ in writers)
        if any(channel == trigger for channel, _ in before.commanded):
            return (Cause("command", trigger, step=made.step),)
        if trigger in self.program.finishing and trigger in before.loaded.values:
            return None
        return (self._guessed(before, node, trigger),)

    def _gap(self, made: LoadedCheckpoint, before: Point | None) -> str | None:
        """Why the writes of the step that made a checkpoint are not stored; None if they are, as far as one can tell."""
        if before is None and made.parent_id is not None:
            return TOO_FAR
        if before is None or (made.source == "loop" and not _is_next(made, before)):
            return AS_ONE
        return None

    def _guessed(self, before: Point, node: str, trigger: str) -> Cause:
        """The writer where task writes are not kept: the only task that can have been it."""
        leads = {way.source for way in self._ways_to(node)}
        running = [due.task for due in before.due]
        able = [task for task in running if task.name in leads] or running
        if len(able) == 1:
            task, via = able[0], self._via(able[0].name, node, trigger)
            return Cause("node", trigger, task.name, before.run.id_of(task), before.run.step, via)
        return Cause("unknown", trigger, step=before.run.step, detail=NOT_KEPT)

    def _by(self, before: Point, row: TaskWrites, node: str, trigger: str) -> Cause:
        name = before.name_of(row)
        via = self._via(name or "", node, trigger)
        return Cause("node", trigger, name, row.task_id, before.run.step, via)

    def _via(self, source: str, node: str, trigger: str) -> Any:
        if trigger == TASKS:
            return "send"
        if isinstance(self.program.channels[trigger], (NamedBarrierValue, NamedBarrierValueAfterFinish)):
            return "join"
        kinds = [way.kind for way in self._ways_to(node) if way.source == source]
        return next((kind for kind in ("edge", "branch", "channel") if kind in kinds), "goto")

    def _ways_to(self, node: str) -> tuple[Way, ...]:
        return tuple(way for way in self.ways if way.target in (node, None))

    def _sender(self, number: int, index: int) -> Reading:
        """Whose Send a task of a point is."""
        point = self.points[number]
        step = point.run.step
        if any(channel == TASKS for channel, _ in point.commanded):
            return Cause("command", TASKS, step=step)
        number = yield from self._origin(number, TASKS)
        before = yield from self.at(number + 1)
        made = self.points[number].loaded
        if made.source == "input":
            return Cause("command", TASKS, step=made.step)
        sent = [] if before is None else [row for row, value in before.writers(TASKS) for _ in _flat(value)]
        gap = self._gap(made, before)
        if gap is not None or before is None or len(sent) <= index:
            return Cause("unknown", TASKS, step=made.step, detail=gap or NOT_KEPT)
        if made.source == "update":
            (name, *others) = _updaters(before, sent)
            return Cause("update", TASKS, None if others else name, step=made.step, via="send")
        return self._by(before, sent[index], "", TASKS)

    def _arrivals(self, number: int, trigger: str, names: set[Any]) -> Reading:
        """Of the sources that arrived at a barrier: the newest write of each."""
        found: dict[Any, Cause] = {}
        while len(found) < len(names):
            number = yield from self._origin(number, trigger)
            made = self.points[number].loaded
            before = yield from self.at(number + 1)
            gap = self._gap(made, before)
            if gap is not None or before is None:
                missing = [name for name in sorted(names, key=str) if name not in found]
                found.update(
                    (name, Cause("unknown", trigger, str(name), None, made.step, "join", gap or "")) for name in missing
                )
                break
            for row, value in before.writers(trigger):
                if value in names and value not in found:
                    kind: Any = "update" if made.source == "update" else "node"
                    name = before.name_of(row) or str(value)
                    found[value] = Cause(kind, trigger, name, row.task_id, made.step, "join")
            if trigger not in before.loaded.versions:
                break
            number += 1
        # What the tasks wrote was not kept; the barrier itself knows the names.
        return tuple(
            found.get(name) or Cause("node", trigger, str(name), via="join") for name in sorted(names, key=str)
        )

    # ---- nodes that do not run

    def _waiting(self, number: int) -> Reading:
        """Nodes that have something of what they need at a point, and not all."""
        point = self.points[number]
        running = tuple(dict.fromkeys(due.task.name for due in point.due))
        woken = {due.task.name for due in point.due if due.task.is_pull}
        lacks: list[Lack] = [
            Lack(node.name, "input", missing=(node.single,)) for node in point.starved if node.single is not None
        ]
        for node, trigger in self.waiters:
            if node.name in woken or trigger not in point.loaded.values:
                continue
            channel = point.run.channels[trigger]
            if isinstance(channel, LastValueAfterFinish):
                arrived = yield from self._causes(number, node.name, trigger)
                lacks.append(Lack(node.name, "deferred", trigger, arrived, running))
            elif isinstance(channel, (NamedBarrierValue, NamedBarrierValueAfterFinish)) and channel.seen:
                arrived = yield from self._arrivals(number, trigger, channel.seen)
                missing = tuple(str(name) for name in sorted(channel.names - channel.seen, key=str))
                kind: Any = "join" if missing else "deferred"
                if missing and isinstance(channel, InclusiveBarrierValue):
                    kind = "inclusive"
                lacks.append(Lack(node.name, kind, trigger, arrived, missing or running))
        return tuple(lacks)


def _is_next(made: LoadedCheckpoint, before: Point | None) -> bool:
    """Was a checkpoint made by the one step after another?"""
    return before is not None and made.step == before.loaded.step + 1


def _is_handed_over(row: TaskWrites) -> bool:
    """Does it say that an error handler takes over from its task? (As `entry.restore_task` reads it.)"""
    return any(channel in (ERROR_SOURCE_NODE, SCHEDULED) for channel, _ in row.writes)


def _updaters(before: Point, rows: Sequence[TaskWrites]) -> list[str | None]:
    """As which nodes an update was made that wrote these rows; [None] if that cannot be told.

    Results of tasks that had finished lie beside those of an update, which did not apply them.
    """
    names = list(dict.fromkeys(before.name_of(row) for row in rows))
    if len(names) > 1 and any(row.task_id in before.tasks for row in rows):
        return [None]
    return names or [None]


def _receiver(packet: Any) -> str | None:
    """The node that a Send is for; the packet may be one whose class was not made."""
    if isinstance(packet, Send):
        return packet.node
    parts = getattr(packet, "payload", None)
    return parts[0] if isinstance(parts, list) and parts and isinstance(parts[0], str) else None


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _question(asked: Any) -> str:
    """The id of a question; its class may not have been made."""
    parts = getattr(asked, "payload", None)
    if isinstance(parts, list) and len(parts) > 1:
        return str(parts[1])
    return str(asked.get("id") if isinstance(asked, dict) else getattr(asked, "id", ""))


def _error(stored: Any) -> str:
    """The repr of an exception, cut."""
    text = str(stored) if isinstance(stored, str) else shown(stored)
    return text if len(text) <= 200 else f"{text[:197]}..."
