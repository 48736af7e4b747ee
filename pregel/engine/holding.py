"""`Holding`: what a run holds of its tasks' results until it is stored.

Decides what is stored of a task that has finished, failed, asked or been asked again, and under which slot; what of it is
taken back when it turns out to be nobody's. Knows no saver: what is held goes out with the next commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from checkpoint.base import WRITES_IDX_MAP, TaskWrites
from pregel.constants import ERROR, INTERRUPT, NULL_TASK_ID, RESUME, RETURN
from pregel.engine import calls, pause
from pregel.engine.program import Write
from pregel.engine.state import RunState, Unstored
from pregel.engine.task import Task


class Holding(RunState):
    """The part of a run that holds what is to be stored."""

    __slots__ = ()

    def record(self, id_: str, path: str, value: Any) -> None:
        """A running task has a result that is to be found when it runs again."""
        self.held.append(TaskWrites(self.rev, self.checkpoint_id, id_, path, 0, [(RETURN, value)]))

    def _row(self, task: Task, slot: int, writes: Sequence[Write]) -> TaskWrites:
        checkpoint_id = self.checkpoint_id_ or self.checkpoint_id
        path = task.path_text if task.call_index < 0 else calls.row_path(self, task)
        return TaskWrites(self.rev, checkpoint_id, task.id_ or self.id_of(task), path, slot, writes)

    def _hold(self, task: Task, channel: str, value: Any) -> None:
        self.held.append(self._row(task, WRITES_IDX_MAP[channel], [(channel, value)]))

    def _hold_answers(self, task: Task, provisional: Sequence[int] = ()) -> None:
        if task.answers:
            self._hold(task, RESUME, pause.answers_plain(task.answers, provisional))
        if task.took_loose:
            # It was given once and is used up: a later question must not find it (engine.md 11.2).
            task.took_loose = False
            self.held.append(
                TaskWrites(self.rev, self.checkpoint_id, NULL_TASK_ID, "", WRITES_IDX_MAP[RESUME], [(RESUME, None)])
            )

    def _keep_answers(self, task: Task) -> None:
        """The task has not finished, and will run again: what it was answered it is not asked again."""
        if self.stores and (task.answers or task.took_loose or self.answers.taken):
            self._hold_answers(task, pause.provisional(self, task))
            left = pause.left_open(self, task)
            if left is not None:
                self._hold(task, INTERRUPT, left)

    def _take_back(self) -> None:
        """The run has left for the graph around it: questions and errors of its open step are nobody's any more. Else the
        one that goes on from what is stored would take it for unfinished, and forget where it ended."""
        slots = WRITES_IDX_MAP[ERROR], WRITES_IDX_MAP[INTERRUPT]
        self.held = [entry for entry in self.held if entry.slot not in slots]
        taken_back = {
            (e.task_id, e.path, e.slot) for e in self.pending if e.slot in slots and not pause.is_null(e.task_id)
        }
        for task in self.tasks:
            if task.interrupts or task.error is not None:
                taken_back |= {(self.id_of(task), task.path_text, slot) for slot in slots}
        for id_, path, slot in sorted(taken_back):
            write: Write = (ERROR, None) if slot == WRITES_IDX_MAP[ERROR] else (INTERRUPT, [])
            self.held.append(TaskWrites(self.rev, self.checkpoint_id, id_, path, slot, [write]))

    def _take_back_answers(self) -> None:
        """Root run: answers were stored before a node could look at them; those that do not fit are nobody's."""
        answers = self.answers
        if not answers.unfit or not self.stores:
            return
        answers.unfit = False
        slot = WRITES_IDX_MAP[RESUME]
        self.held = [entry for entry in self.held if (entry.task_id, entry.slot) != (NULL_TASK_ID, slot)]
        left = dict(answers.by_id) or None
        self.held.append(TaskWrites(self.rev, self.checkpoint_id, NULL_TASK_ID, "", slot, [(RESUME, left)]))

    def _still_open(self) -> list[Unstored]:
        """Nested runs of the open superstep that are to be stored: of tasks that did not finish, since a finished one does
        not run again; and those that alone know where runs below them ended that this call has not made."""
        runs, self.open_runs = self.open_runs, []
        made = {other.rev for other in self.root.parked}
        return [
            left
            for left in runs
            if left.run.request.parent.task.writes is None  # type: ignore[union-attr]
            or (not left.is_parked and not made.issuperset({**left.run.sub, **left.run.sub_changed}.values()))
        ]

    def _take_held(self) -> list[TaskWrites]:
        held = self.held
        if held:
            self.held = []
        return held
