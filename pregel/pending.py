"""What waits for an answer, in all threads of a saver: for the program that reminds, escalates, or lets deadlines pass.

Decides which stored questions are open: those of the step that a thread's newest checkpoint stands before, of tasks that
have not finished, without those whose answer is stored. Reads that step alone, thread by thread, and keeps nothing in
between; no channel is decoded, and classes of values need not be importable with savers of ours. Knows savers, no graphs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from checkpoint.adapter import adapt
from checkpoint.base import INTERRUPT, OpenStep, RunnableConfig, TaskWrites
from pregel.constants import PULL
from pregel.engine import namespace, pause
from pregel.errors import Interrupt
from pregel.types import interrupt_from

__all__ = ["PendingInterrupt", "apending", "pending"]


@dataclass(frozen=True, slots=True)
class PendingInterrupt:
    """A question that waits, and where. Times are UTC."""

    thread_id: str
    checkpoint_ns: str
    """Namespace of the graph whose node asks; "" for the root graph."""
    checkpoint_id: str
    """The newest checkpoint of that namespace."""
    node: str
    interrupt: Interrupt
    asked_at: datetime
    """When it came up first; for threads of another library, when the checkpoint was made."""
    overdue: bool
    """Is its `expires` over? With a default, `invoke(None, config)` of the thread goes on with that."""

    @property
    def expires(self) -> datetime | None:
        """When the question ends; None for never."""
        return self.interrupt.expires

    @property
    def config(self) -> RunnableConfig:
        """The config that answers go to."""
        return {"configurable": {"thread_id": self.thread_id}}


def pending(saver: Any, *, now: datetime | None = None) -> Iterator[PendingInterrupt]:
    """All open questions of all threads; those of one thread follow each other, in the order of its tasks.

    `now`: what counts as overdue; the present time if None. A thread on which a run is going on is shown as far as it is
    stored. Costs a few reads per thread. Of a saver of another library, every checkpoint is listed to find the threads.

    Raises:
        ValueError: `now` has no time zone.
    """
    reader: Any = adapt(saver)
    time = _checked(now)
    for thread_id in reader.thread_ids():
        walk = _walk(thread_id, time)
        step: OpenStep | None = None
        try:
            while True:
                step = reader.open_step(walk.send(step))
        except StopIteration as found:
            yield from found.value


async def apending(saver: Any, *, now: datetime | None = None) -> AsyncIterator[PendingInterrupt]:
    """Async form of `pending`."""
    reader: Any = adapt(saver)
    time = _checked(now)
    async for thread_id in reader.athread_ids():
        walk = _walk(thread_id, time)
        step: OpenStep | None = None
        wanted = next(walk)
        while True:
            step = await reader.aopen_step(wanted)
            try:
                wanted = walk.send(step)
            except StopIteration as ended:
                found: list[PendingInterrupt] = ended.value
                break
        for entry in found:
            yield entry


def _checked(now: datetime | None) -> datetime:
    if now is None:
        return datetime.now(UTC)
    if now.utcoffset() is None:
        raise ValueError(f"pending(now={now!r}) has no time zone; pass an aware datetime, or nothing for the present")
    return now


def _walk(thread_id: str, now: datetime) -> Generator[RunnableConfig, OpenStep | None, list[PendingInterrupt]]:
    """The open questions of one thread. Yields whose open step is to be read next, and is sent it."""
    root = yield _address(thread_id, "")
    found: list[PendingInterrupt] = []
    if root is None:
        return found
    writes = [_known(task) for task in root.writes]
    paths = {task.task_id: task.path for task in writes}
    for task_id, questions in pause.pending(writes).items():
        for question in questions:
            ns, node, step = "", _node_of(paths[task_id]), root
            task_ns = question.task_ns
            while task_ns:
                ns, node = namespace.around(task_ns)
                if not ns:
                    step = root
                    break
                inner = yield _address(thread_id, ns)
                if inner is not None:
                    step = inner
                    break
                task_ns = ns  # that graph stores nothing of its own: the node that runs it stands for it
            asked_at = question.asked_at or _utc(root.ts)
            overdue = question.expires is not None and question.expires <= now
            found.append(PendingInterrupt(thread_id, ns, step.checkpoint_id, node, question, asked_at, overdue))
    return found


def _address(thread_id: str, ns: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns}}


def _utc(ts: str) -> datetime:
    made = datetime.fromisoformat(ts)
    return made if made.tzinfo is not None else made.replace(tzinfo=UTC)


def _node_of(path: str) -> str:
    """The node of a task that was woken, from its path; of another kind of task it is not said there."""
    pull = f"~{PULL}, "
    return path.removeprefix(pull) if path.startswith(pull) else ""


def _known(task: TaskWrites) -> TaskWrites:
    """A task's writes with its questions as such, also if a value inside is of an unknown type."""
    writes: Sequence[tuple[str, Any]] = [
        (channel, [_question(item) for item in value] if channel == INTERRUPT and value is not None else value)
        for channel, value in task.writes
    ]
    return TaskWrites(task.rev, task.checkpoint_id, task.task_id, task.path, task.slot, writes)


def _question(item: Any) -> Interrupt:
    return item if isinstance(item, Interrupt) else interrupt_from(item.payload)
