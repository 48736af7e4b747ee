"""`update_state`: checkpoints that no run made, as synthetic supersteps on the same core (engine.md 7.6).

Decides as which node an update counts, which writes it makes, and what is stored. Pure: it is given what was loaded and
returns the commit. The node's own writers and routers make the writes, so an update means exactly what returning the same
value would mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from checkpoint.base import StepCommit, TaskWrites
from pregel._scope import TaskScope, enter
from pregel.constants import COPY, END, INPUT
from pregel.engine import entry, pause, plan, snapshot
from pregel.engine.apply import apply_tasks, apply_writes
from pregel.engine.core import Run, count_of
from pregel.engine.origin import originate
from pregel.engine.program import Write
from pregel.engine.task import Task
from pregel.errors import InvalidUpdateError, shown
from pregel.types import StateUpdate


def check(supersteps: Sequence[Sequence[StateUpdate]]) -> list[list[StateUpdate]]:
    """The supersteps as lists of updates.

    Raises:
        ValueError: there is none, or one of them is empty.
    """
    if not supersteps:
        raise ValueError("no supersteps were given: pass a list of lists of StateUpdate")
    steps = [[_as_update(update) for update in updates] for updates in supersteps]
    for number, updates in enumerate(steps):
        if not updates:
            raise ValueError(f"superstep {number} has no updates: every superstep needs at least one StateUpdate")
    return steps


def _as_update(given: Any) -> StateUpdate:
    return given if isinstance(given, StateUpdate) else StateUpdate(*given)


class Edit:
    """Applies supersteps of updates to a loaded state, one after the other, and collects what is to be stored."""

    def __init__(self, run: Run) -> None:
        self.run = run
        run.sign()
        self.commits: list[StepCommit] = []
        # What the thread was told since its newest checkpoint is in a row of that one, which this edit leaves behind.
        run.remember(pause.BREAKPOINTS, pause.kept_breakpoints(run) or None)

    def prepare(self, updates: Sequence[StateUpdate]) -> list[tuple[Task, Any]]:
        """The tasks that an ordinary superstep stands for, with the value that each is to have returned; [] for the special
        ones. Their writers and routers are run next, by `writes_of` or `awrites_of`.

        Raises:
            InvalidUpdateError: an update cannot be made as the node it names.
        """
        run = self.run
        first = updates[0]
        special = first.as_node in (INPUT, COPY) or (first.as_node == END and first.values is None)
        if special:
            updates = self._copied(first.values) if first.as_node == COPY and len(updates) == 1 else []
        prepared = []
        for update in updates:
            name = self._named(update, alone=len(updates) == 1)
            node = run.program.nodes[name]
            if node.write is None and not node.routers:
                raise InvalidUpdateError(f"node {name!r} writes nothing, so the state cannot be updated as it")
            prepared.append((Task(node, None), update.values))
        return prepared

    def apply(self, updates: Sequence[StateUpdate], tasks: Sequence[Task]) -> None:
        """One superstep, with the prepared tasks' writes made.

        Raises:
            InvalidUpdateError: a channel cannot take the writes.
            GraphChangedError: what is to be copied has pending work that this graph cannot run.
        """
        run = self.run
        first = updates[0]
        if first.as_node == END and first.values is None:
            self._alone(updates, "clearing the pending tasks (as_node=END)")
            self._clear()
        elif first.as_node == INPUT:
            self._alone(updates, "writing the input (as_node='__input__')")
            entry.dropped_by_change(run, "the input that update_state writes")
            self._input(first.values)
        elif first.as_node == COPY:
            self._alone(updates, "copying the checkpoint (as_node='__copy__')")
            entry.check_change(run)
            self._copy(self._copied(first.values), tasks)
        else:
            entry.dropped_by_change(run, "update_state")
            self._update(updates, tasks)
        run.pending = []
        run.taken_over = None

    def _alone(self, updates: Sequence[StateUpdate], doing: str) -> None:
        if len(updates) > 1:
            raise InvalidUpdateError(f"{doing} must be the only update of its superstep, got {len(updates)}")

    def _open(self) -> list[Task]:
        """Tasks of the open step, with what is stored of them."""
        run = self.run
        tasks = plan.open_tasks(run)
        entry.restore(run, tasks, run.pending)
        return tasks

    def _store(self, source: Any, held: Sequence[TaskWrites] = ()) -> None:
        run = self.run
        if source == "update":
            # A node may still be due because of an earlier step: a complete join, a released deferred node.
            due = {t for task in plan.open_tasks(run) for t in task.triggers if t in run.versions}
            run.updated = sorted({*(run.updated or ()), *(t for t in due if run.channels[t].is_available())})
        originate(run)
        commit = snapshot.checkpoint(run, source, held)
        run.step_over()
        assert commit is not None
        self.commits.append(commit)
        run.step += 1

    def _clear(self) -> None:
        """Every pending task counts as done; finished ones are applied."""
        run = self.run
        entry.null_writes(run)
        tasks = self._open()
        for task in tasks:
            task.writes = task.writes or []
        apply_tasks(run, tasks)
        # Whatever the finished ones woke does not run either.
        for task in plan.open_tasks(run):
            consumed = {t: run.versions[t] for t in task.node.triggers if t in run.versions}
            run.seen[task.name] = {**run.seen.get(task.name, {}), **consumed}
            run.seen_changed[task.name] = run.seen[task.name]
        self._store("update")

    def _input(self, values: Any) -> None:
        run = self.run
        writes = entry.map_input(run.program, values)
        if not writes:
            raise InvalidUpdateError(
                f"as_node='__input__' got no input for {run.program.input_channels!r}: {shown(values)}"
            )
        apply_tasks(run, [_blank(task) for task in self._open()])
        run.drop_open_step()
        run.updated = None
        apply_writes(run, writes, INPUT)
        run.seen.setdefault(INPUT, {})
        run.seen_changed[INPUT] = run.seen[INPUT]
        self._store("input")

    def _copied(self, values: Any) -> list[StateUpdate]:
        """The updates that go with a copy.

        Raises:
            InvalidUpdateError: there is nothing to copy, or an item is no update.
        """
        run = self.run
        if run.loaded is None or run.loaded.checkpoint_id is None:
            raise InvalidUpdateError("as_node='__copy__' needs a checkpoint to copy, but there is none")
        updates: list[StateUpdate] = []
        if values is not None:
            if not isinstance(values, (list, tuple)):
                raise InvalidUpdateError(f"as_node='__copy__' takes a list of (values, as_node), got {shown(values)}")
            for item in values:
                if not isinstance(item, (list, tuple)) or not 2 <= len(item) <= 3:
                    raise InvalidUpdateError(f"as_node='__copy__' takes (values, as_node) items, got {shown(item)}")
                updates.append(StateUpdate(*item))
        return updates

    def _copy(self, updates: Sequence[StateUpdate], tasks: Sequence[Task]) -> None:
        """A sibling of the checkpoint; with updates, those applied to the copy as the next superstep."""
        run = self.run
        run.drop_open_step()
        run.rev, run.checkpoint_id_ = run.parent_rev or 0, run.parent_id
        self._store("fork")
        if updates:
            self._update(updates, tasks)

    def _update(self, updates: Sequence[StateUpdate], tasks: Sequence[Task]) -> None:
        run = self.run
        if run.step < 0:
            run.step = 0
        entry.null_writes(run)
        open_tasks = self._open()
        run.drop_open_step()
        # A fixed step in which earlier finished tasks count is applied only when it is closed by END; an update stands
        # beside it, so their stored results are shown in history and not applied here.
        # A checkpoint that the thread went on from already keeps the results that it has.
        shows = run.rev > 0 and (run.loaded is None or run.loaded.rev != run.rev or run.loaded.is_head)
        held: list[TaskWrites] = []
        for task, update in zip(tasks, updates, strict=True):
            match = next((t for t in open_tasks if t.name == task.name and t.writes is None), None)
            task_id = update.task_id or (run.id_of(match) if match is not None else run.id_of(task))
            if shows:
                path = (match or task).path_text
                stored = snapshot.stored_writes(run.program, task.writes or [])
                held.append(TaskWrites(run.rev, run.checkpoint_id, task_id, path, 0, stored))
            if match is not None:
                open_tasks.remove(match)
        self._barrier(tasks)
        self._store("update", held)

    def _barrier(self, tasks: Sequence[Task]) -> None:
        """Apply the updates in the given order, as one step that every channel takes part in."""
        run = self.run
        whole = Task(tasks[0].node, None, 0)
        whole.writes = [write for task in tasks for write in task.writes or ()]
        seen_before = {name: dict(seen) for name, seen in run.seen.items()}
        apply_tasks(run, [whole])
        # The update is not the node's own activation: what the node has seen stays, a step was taken at `__interrupt__`.
        run.seen = seen_before
        run.seen_changed = {}
        for task in tasks:
            run.seen.setdefault(task.name, {})
            run.seen_changed[task.name] = run.seen[task.name]

    def _named(self, update: StateUpdate, *, alone: bool) -> str:
        run = self.run
        nodes = run.program.nodes
        name = update.as_node
        if name is None:
            if not alone:
                raise InvalidUpdateError("several updates in one superstep need as_node each")
            name = self._inferred()
        name = run.program.current.get(name, name)
        if name not in nodes:
            raise InvalidUpdateError(f"as_node {name!r} is none of the nodes {list(nodes)!r}")
        return name

    def _inferred(self) -> str:
        """The node that ran last, if there is exactly one."""
        run = self.run
        nodes = run.program.nodes
        if len(nodes) == 1:
            return next(iter(nodes))
        last: dict[str, int] = {}
        for name, seen in run.seen.items():
            if name in nodes and seen:
                last[name] = max(map(count_of, seen.values()))
        if not last:
            start = run.program.input_channels
            if isinstance(start, str) and start in nodes:
                return start
        else:
            newest = max(last.values())
            names = [name for name, version in last.items() if version == newest]
            if len(names) == 1:
                return names[0]
        raise InvalidUpdateError(
            f"it is not clear as which node the state is updated (ran last: {sorted(last)!r}); pass as_node"
        )

    def writes_of(self, task: Task, values: Any) -> None:
        """Set what the node's writers and routers make of a returned value. Runs in a context of its own."""
        scope = TaskScope(self.run, task, None)
        enter(scope)
        task.writes = _written(task, scope, values)
        for router in task.node.routers:
            router.route(values, scope, task.writes)

    async def awrites_of(self, task: Task, values: Any) -> None:
        """Async form of `writes_of`."""
        scope = TaskScope(self.run, task, None)
        enter(scope)
        task.writes = _written(task, scope, values)
        for router in task.node.routers:
            await router.aroute(values, scope, task.writes)


def _written(task: Task, scope: TaskScope, values: Any) -> list[Write]:
    writes: list[Write] = []
    if task.node.write is not None:
        task.node.write(values, scope, writes)
    return writes


def _blank(task: Task) -> Task:
    task.writes = []
    return task
