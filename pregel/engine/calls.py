"""Which call of a task a called task is: its key, and what an earlier run or attempt has left of it.

Decides when two calls are the same one. A body that runs again, because it asked, failed or the process died, makes its
calls again, perhaps in another order (`gather` over branches), perhaps with other arguments (a clock, an edited program).
So a call is told by who calls, which task, the arguments, and which of several equal ones it is; its id is made of that,
and a stored result is found by the id. A result is never handed to a call with other arguments.

Pure. What an argument is told by: values of the standard library, dataclasses, models, named tuples, enums and what has a
codec by their content, all other objects by their class alone, so live objects (a client, a lock) never differ.

Invariants
1. Nothing is worked out where nothing can be found again: no saver around, and no retry of the caller.
2. The key is made when the call is made, on the caller's thread: what becomes of the arguments later does not matter.
3. A row that was stored before there were keys is found by its position, as in LangGraph.

Source: memoisation by call key in build systems (Mokhov, Mitchell, Peyton Jones 2018, "Build systems a la carte").
"""

from __future__ import annotations

import re
from _blake2 import blake2b
from collections.abc import Sequence
from copy import copy
from dataclasses import fields
from marshal import dumps
from typing import Any, Final

from checkpoint import registry
from checkpoint.base import TaskWrites
from pregel._scope import TaskScope
from pregel.constants import INTERRUPT, PUSH, RETURN
from pregel.engine import entry, plan
from pregel.engine.program import Node
from pregel.engine.state import RunState
from pregel.engine.task import Task, path_text
from pregel.errors import shown
from pregel.warnings import PregelWarning

CANONICAL: Final = 2
"""Version of the marshal format that says nothing of identity: equal values give equal bytes in every process."""
MAX_DEPTH: Final = 100
"""Levels of an argument that are looked at."""
PLAIN: Final = frozenset({int, str, float, bool, type(None), bytes})
BY_TEXT: Final = frozenset(
    {"datetime", "decimal", "fractions", "uuid", "pathlib", "pathlib._local", "ipaddress", "zoneinfo"}
)
"""Modules whose values are told by their `repr`."""
_ROW: Final = re.compile(r"(\d{10}), 0{9}1, ([01]), (.*)", re.DOTALL)


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
    told = digest(argument)
    index, twins, in_line = scope.count_call((node.address, told))
    return index, f"{told}:{twins}" if twins else told, in_line


def digest(argument: Any) -> str:
    """What an argument is told by: 128 bits in hex, equal in every process."""
    try:
        args, keywords = argument
        if len(keywords) > 1:
            keywords = dict(sorted(keywords.items()))
        if not PLAIN.issuperset(map(type, args)) and any(map(_is_buffer, args)):
            raise ValueError
        data = dumps((args, keywords), CANONICAL)
    except (TypeError, ValueError):
        data = dumps(_described(argument, 0), CANONICAL)
    text: str = blake2b(data, digest_size=16).hexdigest()
    return text


def _is_buffer(value: Any) -> bool:
    """Would it be told by its bytes alone, without its type and shape?"""
    return hasattr(type(value), "dtype") or type(value) is bytearray


def _described(value: Any, depth: int) -> Any:
    """A value as something that marshal can write: its class, and what is in it."""
    kind = type(value)
    if kind in PLAIN:
        return value
    name = registry.name_of(kind)
    if depth > MAX_DEPTH:
        return name
    deeper = depth + 1
    if isinstance(value, (list, tuple)) and not hasattr(kind, "_fields"):
        return name, [_described(item, deeper) for item in value]
    if isinstance(value, dict):
        return name, [(_described(key, deeper), _described(item, deeper)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return name, sorted(dumps(_described(item, deeper), CANONICAL) for item in value)
    return name, _content(value, kind, deeper)


def _content(value: Any, kind: type, depth: int) -> Any:
    """What is in an object that is no container of the language; None for what cannot be told apart."""
    shape = registry.kind_of(kind)
    if shape == "enum":
        return str(value.name)
    if shape == "exception":
        return _described(value.args, depth)
    known = registry.lookup_class(kind)
    if known is not None and known.encode is not None:
        return _described(known.encode(value), depth)
    if shape == "namedtuple":
        return [_described(item, depth) for item in value]
    if shape == "dataclass":
        return [_described(getattr(value, field.name, None), depth) for field in fields(value)]
    if shape == "model":
        names = getattr(kind, "model_fields", None) or getattr(kind, "__fields__", {})
        return [(name, _described(getattr(value, name, None), depth)) for name in names]
    if kind.__module__ in BY_TEXT or kind in (complex, range, bytearray, slice):
        return repr(value)
    if kind.__module__ == "collections":
        return [_described(item, depth) for item in value]  # a deque
    if hasattr(kind, "dtype") and hasattr(kind, "tobytes"):
        return str(value.dtype), str(value.shape), value.tobytes()
    if known is not None:
        return _described(vars(value) if hasattr(value, "__dict__") else {}, depth)
    return getattr(value, "__qualname__", None) if callable(value) else None


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
        self.by_caller: dict[str, dict[int, Stored]] | None = None
        """Text of the caller's path -> number of the call -> what is stored of it. Made when a call is not found."""
        self.claims: dict[str, TaskScope] = {}
        """Id of a stored called task -> the attempt that has called it again."""
        for row in pending:
            self.by_task.setdefault(row.task_id, []).append(row)

    def of(self, caller: Task) -> dict[int, Stored]:
        """What is stored of the tasks that this one called."""
        if self.by_caller is None:
            self.by_caller = {}
            for row in self.pending:
                if row.path.startswith(f"~{PUSH}, ") and (found := _ROW.search(row.path)) is not None:
                    around = row.path[len(PUSH) + 3 : found.start() - 2]
                    stored = self.by_caller.setdefault(around, {})
                    stored[int(found[1])] = Stored(row.task_id, found[3], found[2] == "1")
        return self.by_caller.get(caller.path_text, {})


class Stored:
    """A called task of which something is stored."""

    __slots__ = ("id_", "in_line", "name")

    def __init__(self, id_: str, name: str, in_line: bool) -> None:
        self.id_ = id_
        self.name = name
        self.in_line = in_line


def row_path(task: Task) -> str:
    """The path of a called task as its rows have it: also whether it was called in line, and its name."""
    return f"{path_text(task.path)}, {int(task.in_line)}, {task.node.address}"


def recall(run: RunState, scope: TaskScope, child: Task) -> None:
    """Settle a called task whose outcome is stored, or tell it what is: answers, its open question (`entry.reapply`)."""
    recalled = run.recalled
    if recalled is None or recalled.pending is not run.pending:
        recalled = run.recalled = Recalled(run.pending)
    id_ = run.id_of(child)
    if id_ not in recalled.by_task or recalled.claims.get(id_) is scope:
        id_ = _otherwise(run, recalled, scope, child)
        if id_ is None:
            return
        child.id_ = id_
    recalled.claims[id_] = scope
    entry.reapply(run, [child], recalled.by_task)


def _otherwise(run: RunState, recalled: Recalled, scope: TaskScope, child: Task) -> str | None:
    """The id of what is stored of a call that is not found by its key; None if it is a call that was not made before.

    One that waits for an answer is known by its place as well, like a question of the body itself, as long as the body
    makes one call after the other: else a prompt that a clock is in could never be answered. What it did before, it does
    again.
    """
    if child.key is None or run.replaying or run.moved_past:
        return None
    by_place = copy(child)
    by_place.key = by_place.id_ = None
    former = run.id_of(by_place)
    if former in recalled.by_task and former not in recalled.claims:
        return former
    before = recalled.of(child.parent).get(child.call_index) if child.parent is not None else None
    if before is None or before.name != child.node.address or before.id_ in recalled.claims:
        return None
    if not (before.in_line and child.in_line):
        return None
    rows = recalled.by_task[before.id_]
    has_result = any(channel == RETURN for row in rows if row.slot == 0 for channel, _ in row.writes)
    asks = any(channel == INTERRUPT for row in rows for channel, _ in row.writes)
    if not has_result and not asks:
        return None
    outcome = "it runs again" if has_result else "the answer to its question is used"
    text = changed(scope.task, child, f"call {child.call_index}", outcome)
    if run.request.strict:
        child.error, child.settled = PregelWarning(text), True
        return None
    run.notice("changed-call", f"{scope.task.name}:{child.name}", text)
    return None if has_result else before.id_


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
    recalled = run.recalled
    if recalled is None:
        return
    for child in run.tasks:
        if child.call_index < 0 or child.parent is None or child.reapplied or run.id_of(child) in recalled.by_task:
            continue
        for stored in recalled.of(child.parent).values():
            if stored.name == child.node.address and stored.id_ not in recalled.claims:
                text = changed(child.parent, child, f"call {child.call_index}", "it has run again")
                run.notice("changed-call", f"{child.parent.name}:{child.name}", text)
                break
    run.recalled = None


def earlier(run: RunState, scope: TaskScope, node: Node, key: str) -> Task | None:
    """A retry of a body makes a call that an earlier attempt of it has made: the task, finished or still running.

    None if there is none, or it failed.
    """
    calls = scope.calls
    if calls.made is None:  # at the first call of the attempt, so these are calls of earlier ones
        caller = scope.task
        calls.made = {
            (task.node.address, task.key): task for task in run.tasks if task.parent is caller and task.call_index >= 0
        }
    found: Task | None = calls.made.get((node.address, key))
    if found is None or (found.settled and found.writes is None):
        return None
    if found.settled:
        found.outcome = plan.own_copy(run, next((v for channel, v in found.writes or () if channel == RETURN), None))
    return found
