"""Which call of a task a called task is: its key, and what an earlier run or attempt has left of it.

Decides when two calls are the same one. A body that runs again, because it asked, failed or the process died, makes its
calls again, perhaps in another order (`gather` over branches), perhaps with other arguments (a clock, an edited program).
So a call is told by who calls, which task, the arguments, and which of several equal ones it is; its id is made of that,
and a stored result is found by the id. A result is never handed to a call with other arguments.

Pure. What arguments are told by is in `contents`.

Invariants
1. Nothing is worked out where nothing can be found again: no saver around, and no retry of the caller.
2. The key is made when the call is made, on the caller's thread: what becomes of the arguments later does not matter.
3. A row that was stored before there were keys is found by its position, as in LangGraph.

Source: memoisation by call key in build systems (Mokhov, Mitchell, Peyton Jones 2018, "Build systems a la carte").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from typing import Any, Final

from checkpoint.base import TaskWrites
from pregel._scope import TaskScope
from pregel.constants import PUSH, RETURN
from pregel.engine import contents, entry, plan
from pregel.engine.program import Node
from pregel.engine.state import RunState
from pregel.engine.task import Task
from pregel.errors import shown
from pregel.warnings import PregelWarning

_ROW: Final = re.compile(r"(\d{10}), 0{9}1, ([01]), ([-\da-f]{17}), (.*)", re.DOTALL)


# ---- the key


def keyed(run: RunState, scope: TaskScope, node: Node, argument: Any) -> tuple[int, str | None, bool]:
    """A body calls a task: the number of the call in this attempt; its key, None if nobody will ask for it; and whether
    all calls so far were made one after the other.

    On the caller's thread; several threads of one body may call at the same time.
    """
    task: Task = scope.task
    if not (run.stores or run.request.parent_run is not None or task.node.retry_policy or run.request.retry_policy):
        index, _, in_line = scope.count_call(None)
        return index, None, in_line
    told = contents.of_arguments(argument)
    index, twins, in_line = scope.count_call((node.address, told))
    return index, f"{told}:{twins}" if twins else told, in_line


def own_arguments(run: RunState, argument: Any) -> Any:
    """The arguments of a call with containers of the task's own (D40): each of them, and its direct values."""
    copiers = run.copiers
    if type(argument) is not tuple or len(argument) != 2:
        return plan.own_copy(run, argument)
    args, keywords = argument
    for value in args:
        if type(value) in copiers:
            args = tuple([plan.own_copy(run, item) for item in args])
            break
    if keywords:
        keywords = {name: plan.own_copy(run, item) for name, item in keywords.items()}
    return args, keywords


# ---- what is left of earlier calls


class Recalled:
    """What is stored of the open step, by task; and of called tasks, by who called them."""

    __slots__ = ("by_caller", "by_task", "claims", "pending")

    def __init__(self, pending: Sequence[TaskWrites]) -> None:
        self.pending = pending
        self.by_task: dict[str, list[TaskWrites]] = {}
        self.by_caller: dict[str, dict[int, list[Stored]]] | None = None
        """What tells the caller -> number of the call -> what is stored of the task. Made when a call is not found."""
        self.claims: dict[str, TaskScope] = {}
        """Id of a stored called task -> the attempt that has called it again."""
        for row in pending:
            self.by_task.setdefault(row.task_id, []).append(row)

    def of(self, caller_id: str) -> list[Stored]:
        """What is stored of the tasks that this one called."""
        return [stored for several in self._by_number(caller_id).values() for stored in several]

    def at(self, caller_id: str, number: int) -> Sequence[Stored]:
        """What is stored of the tasks that were this one's call of that number, in this run or that."""
        return self._by_number(caller_id).get(number, ())

    def _by_number(self, caller_id: str) -> dict[int, list[Stored]]:
        if self.by_caller is None:
            self.by_caller = {}
            for id_, rows in self.by_task.items():
                found = _ROW.search(rows[0].path) if rows[0].path.startswith(f"~{PUSH}, ") else None
                if found is not None:
                    number, calls = int(found[1]), self.by_caller.setdefault(found[3], {})
                    calls.setdefault(number, []).append(Stored(id_, number, found[2] == "1", found[4]))
        return self.by_caller.get(_told(caller_id), {})

    def unused(self) -> set[tuple[str, str]]:
        """Tasks with a stored result that was not asked for again: what tells their caller, and their name."""
        self._by_number("")
        assert self.by_caller is not None
        return {
            (told, stored.name)
            for told, calls in self.by_caller.items()
            for several in calls.values()
            for stored in several
            if stored.id_ not in self.claims and any(row.slot == 0 for row in self.by_task[stored.id_])
        }


class Stored:
    """A called task of which something is stored."""

    __slots__ = ("id_", "in_line", "index", "name")

    def __init__(self, id_: str, index: int, in_line: bool, name: str) -> None:
        self.id_ = id_
        self.index = index
        self.in_line = in_line
        self.name = name


def row_path(run: RunState, task: Task) -> str:
    """The path of a called task as its rows have it. After the path itself, for who looks for calls that have changed:
    whether it was called in line, what tells its caller, and its name."""
    assert task.parent is not None
    return f"{task.path_text}, {int(task.in_line)}, {_told(run.id_of(task.parent))}, {task.node.address}"


def _told(task_id: str) -> str:
    """The half of a task id that tells it from others of its step."""
    return task_id[19:]


def recall(run: RunState, scope: TaskScope, child: Task) -> None:
    """Settle a called task whose outcome is stored, or tell it what is: answers, its open question (`entry.reapply`)."""
    recalled = run.recalled
    if recalled is None or recalled.pending is not run.pending:
        recalled = run.recalled = Recalled(run.pending)
    id_ = run.id_of(child)
    if id_ not in recalled.by_task:
        if child.key is None or run.replaying or run.moved_past:
            return
        by_place = copy(child)
        by_place.key = by_place.id_ = None
        former = run.id_of(by_place)
        if former not in recalled.by_task or former in recalled.claims:
            _find_changed(run, recalled, scope, child)
            return
        id_ = child.id_ = former
    recalled.claims[id_] = scope
    entry.reapply(run, [child], recalled.by_task)


def _find_changed(run: RunState, recalled: Recalled, scope: TaskScope, child: Task) -> None:
    """A call is not found by its key. Was it made before, with other arguments?

    That is sure as long as the body makes one call after the other: then the n-th one is the n-th. What it did runs again;
    but what its question was answered it is told, like a body that asks itself: a prompt that a clock is in could never
    be answered otherwise.
    """
    assert child.parent is not None
    if not child.in_line:
        return
    for stored in recalled.at(run.id_of(child.parent), child.call_index):
        if stored.name != child.node.address or not stored.in_line or stored.id_ in recalled.claims:
            continue
        before = copy(child)
        before.id_ = stored.id_
        entry.restore_task(before, recalled.by_task[stored.id_])
        known = list(before.answers or ())
        own = run.ns_of(before)
        for question in before.interrupts if before.writes is None else ():
            if question.id not in run.answers.by_id or question.task_ns != own:
                break
            known.append(run.answers.by_id[question.id])
        if before.writes is None and not known:
            continue
        recalled.claims[stored.id_] = scope
        outcome = "it runs again" if before.writes is not None else "the answers to its questions are used"
        text = changed(scope.task, child, f"call {child.call_index}", outcome)
        if run.request.strict:
            child.error, child.settled = PregelWarning(text), True
            return
        run.notice("changed-call", f"{scope.task.name}:{child.name}", text)
        if before.writes is None:
            child.answers = known
            return


def changed(caller: Task, child: Task, which: str, outcome: str) -> str:
    """What is said of a call that was made before and has other arguments now."""
    return (
        f"node {caller.name!r} ran again and called task {child.name!r} ({which}) with other arguments than before: "
        f"{shown(child.input)}; {outcome}; make what the arguments depend on (the time, a random number, a model's "
        f"answer) a task of its own, whose result is kept"
    )


def report(run: RunState) -> None:
    """A step that was run again is closed: say which stored results were not used although the task was called again.

    Only now is it certain: while a body runs, the call that a result belongs to may still come.
    """
    recalled, run.recalled = run.recalled, None
    if recalled is None:
        return
    unused = recalled.unused()
    for child in run.tasks if unused else ():
        if child.call_index < 0 or child.parent is None or child.reapplied or run.id_of(child) in recalled.by_task:
            continue
        place = _told(run.id_of(child.parent)), child.node.address
        if place in unused:
            unused.remove(place)
            text = changed(child.parent, child, f"call {child.call_index}", "it has run again")
            run.notice("changed-call", f"{child.parent.name}:{child.name}", text)


def made_before(run: RunState, scope: TaskScope, node: Node, key: str) -> Task | None:
    """A body that ran before in this run makes a call that it has made then: the task of that call, however it ended."""
    calls = scope.calls
    if calls.made is None:  # at the first call of the attempt, so these are calls of earlier ones
        callers = []
        caller: Task | None = scope.task
        while caller is not None:
            callers.append(caller)
            caller = getattr(caller, "former", None)
        calls.made = {}
        for number, task in enumerate(run.tasks) if len(callers) > 1 or scope.attempt > 1 else ():
            if task.call_index >= 0 and task.parent in callers:
                calls.made[task.node.address, task.key] = number  # not the task: it knows who calls it now
    number = calls.made.get((node.address, key))
    return None if number is None else run.tasks[number]


def is_of_use(run: RunState, task: Task) -> bool:
    """Has a task of an earlier attempt finished, or is it still running? Then its result is taken."""
    if not task.settled:
        return True
    if task.writes is None:
        return False
    task.outcome = plan.own_copy(run, next((v for channel, v in task.writes if channel == RETURN), None))
    return True
