"""Names that are derived: ids of tasks, the namespaces that contain them, ids of questions.

LangGraph makes a task's id, and from it the namespace of a nested graph and the id of a question, by a hash of its own;
`pregel.engine.task` makes them by another one. A step that was under way in the file can only be continued if its
stored results, questions and nested graphs have the names that the engine will look for. So they get new names here.

Decides those, from what the file says of a task: its path, or, in files of releases that did not store paths, its id,
which is the hash of what it is: the nodes of the graph are tried. Knows no values.

Invariants
1. A task's new id is the one that `pregel.engine.task.task_id` gives it (a test compares them).
2. What cannot be told apart keeps its name and is reported, never guessed.

Source: engine.md 2.5 for what identifies a task, and for the hash; design.md D11 for questions.
"""

from __future__ import annotations

import re
from _blake2 import blake2b  # hashlib's own, without loading OpenSSL
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from checkpoint.base import namespace_above
from checkpoint.compat.xxh3 import SHORTEST, xxh3_128

NULL_TASK_ID: Final = "00000000-0000-0000-0000-000000000000"
PULL: Final = "__pregel_pull"
PUSH: Final = "__pregel_push"

_PULL_PATH: Final = re.compile(rf"~{PULL}, (.*)", re.DOTALL)
_SEND_PATH: Final = re.compile(rf"~{PUSH}, (\d{{10}}), 0{{10}}", re.ASCII)
_HANDLER: Final = ", node_error_handler, 0000000000"
_DUE: Final = re.compile(r"branch:to:(.*)|join:[^:]*:(.*)", re.DOTALL)


class Outline(NamedTuple):
    """What of a checkpoint tells which tasks the step after it has."""

    channels: Sequence[str]
    """That have a value."""
    sends: Sequence[str | None]
    """Node of each send, in order; None for what is no send."""
    known: Sequence[str] = ()
    """Channels that were ever written."""
    step: int = 0
    """Number of that step."""


class Step(NamedTuple):
    """The tasks of the step after one checkpoint, as far as they stored anything."""

    ns: str
    checkpoint_id: str
    tasks: dict[str, str]
    """Id -> path, "" if the file does not know it."""


class Names:
    """Old name -> new name, for one thread."""

    def __init__(
        self,
        steps: Mapping[tuple[str, str], Step],
        parents: Mapping[str, Mapping[str, str]],
        outline: Callable[[str, str], Outline],
    ) -> None:
        """
        Args:
            steps: by (namespace, checkpoint id).
            parents: every namespace of the thread -> namespace and checkpoint id of the graphs around it.
            outline: gives a checkpoint's.
        """
        self.spaces: dict[str, str] = {"": ""}
        self.questions: dict[str, str] = {}
        self.unmatched: list[tuple[str, str, str]] = []
        """(namespace, checkpoint id, task id) of tasks that keep their old id."""
        self._steps = steps
        self._parents = parents
        self._outline = outline
        self._tasks: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
        """(namespace, checkpoint id) -> task id -> (name, new id)."""
        # Around before within: a namespace is made of the new names of the tasks around it.
        for ns in sorted(parents, key=depth_of):
            self._rename_space(ns)
        for ns, checkpoint_id in steps:
            self._tasks_of(ns, checkpoint_id)

    def task(self, ns: str, checkpoint_id: str, task_id: str) -> str:
        """The id of a task of the step after a checkpoint; the old one if it is not known which task that is."""
        found = self._tasks_of(ns, checkpoint_id).get(task_id)
        return found[1] if found is not None else task_id

    def name_questions(self, ns: str, checkpoint_id: str, task_id: str, asked: Sequence[str | None], n: int) -> None:
        """Give the questions of a task, of which `n` were answered, new ids. Call for nested namespaces first."""
        found = self._tasks_of(ns, checkpoint_id).get(task_id)
        if found is not None:
            new = self.question(ns, checkpoint_id, task_id, n)
            for old in asked:
                if old is not None and new is not None:
                    # Known already: asked by a nested graph, and passed on.
                    self.questions.setdefault(old, new)

    def question(self, ns: str, checkpoint_id: str, task_id: str, n: int) -> str | None:
        """The id of a task's question `n`, from 0; None if it is not known which task that is."""
        found = self._tasks_of(ns, checkpoint_id).get(task_id)
        if found is None:
            return None
        text = _within(self.spaces[ns], *found)
        return _hash(f"{text}|{n}" if n else text)

    # ---- spaces

    def _rename_space(self, ns: str) -> None:
        if not ns:
            return
        around = namespace_above(ns)
        if around not in self.spaces:
            self._rename_space(around)
        segments = ns[len(around) + 1 if around else 0 :].split("|")
        name, _, task_id = segments[0].partition(":")
        new = self.spaces[around]
        checkpoint_id = self._parents.get(ns, {}).get(around)
        if not task_id or checkpoint_id is None:
            # A stable namespace has no task in its name.
            first = f"{new}|{segments[0]}" if new else segments[0]
        else:
            first = _within(new, name, self._nested_task(around, checkpoint_id, task_id, name))
        self.spaces[ns] = "|".join([first, *segments[1:]])

    def _nested_task(self, ns: str, checkpoint_id: str, task_id: str, name: str) -> str:
        tasks = self._tasks_of(ns, checkpoint_id)
        if task_id not in tasks:
            # It may have stored nothing itself, or without its path: then there are its name and what was due.
            outline = self._outline(ns, checkpoint_id)
            proved = _proved(ns, checkpoint_id, task_id, outline)
            whats = [_pulled(name)] if name in _due(outline) else []
            whats += [_sent(name, at) for at, node in enumerate(outline.sends) if node == name]
            if proved is not None or len(whats) == 1:
                what = whats[0] if proved is None else proved[1]
                tasks[task_id] = name, self._new_id(ns, checkpoint_id, what)
                self._forget_unmatched(ns, checkpoint_id, task_id)
            else:
                self.unmatched.append((ns, checkpoint_id, task_id))
                return task_id
        return tasks[task_id][1]

    # ---- tasks

    def _tasks_of(self, ns: str, checkpoint_id: str) -> dict[str, tuple[str, str]]:
        known = self._tasks.get((ns, checkpoint_id))
        if known is None:
            known = self._tasks[ns, checkpoint_id] = {}
            step = self._steps.get((ns, checkpoint_id))
            if step is not None and ns in self.spaces:
                self._match(step, known)
        return known

    def _match(self, step: Step, known: dict[str, tuple[str, str]]) -> None:
        ns, checkpoint_id, tasks = step
        unknown: list[str] = []
        for task_id, path in tasks.items():
            if is_null(task_id):
                continue
            what = self._identity(step, path) or (
                None if path else _proved(ns, checkpoint_id, task_id, self._outline(ns, checkpoint_id))
            )
            if what is None:
                unknown.append(task_id)
            else:
                known[task_id] = what[0], self._new_id(ns, checkpoint_id, what[1])
        if len(unknown) == 1 and not tasks[unknown[0]]:
            # One task of which only the id is stored, and one that was due and is not yet accounted for.
            outline = self._outline(ns, checkpoint_id)
            whats = {_pulled(name): name for name in _due(outline)}
            whats |= {_sent(name, at): name for at, name in enumerate(outline.sends) if name is not None}
            taken = {new_id for _, new_id in known.values()}
            left = [
                (name, new_id)
                for what, name in whats.items()
                if (new_id := self._new_id(ns, checkpoint_id, what)) not in taken
            ]
            if len(left) == 1:
                known[unknown.pop()] = left[0]
        self.unmatched += [(ns, checkpoint_id, task_id) for task_id in unknown]

    def _forget_unmatched(self, *task: str) -> None:
        self.unmatched = [other for other in self.unmatched if other != task]

    def _identity(self, step: Step, path: str) -> tuple[str, str] | None:
        """(Name, what tells the task from others of its step), None if its path does not say."""
        pulled = _PULL_PATH.fullmatch(path)
        if pulled is not None:
            return None if path.endswith(_HANDLER) else (pulled[1], _pulled(pulled[1]))
        sent = _SEND_PATH.fullmatch(path)
        if sent is not None:
            sends, index = self._outline(step.ns, step.checkpoint_id).sends, int(sent[1])
            name = sends[index] if index < len(sends) else None
            return None if name is None else (name, _sent(name, index))
        # A call of a task by a task: its name is nowhere in the file.
        return None

    def _new_id(self, ns: str, checkpoint_id: str, what: str) -> str:
        return task_id(checkpoint_id, self.spaces[ns], what)


def is_null(task_id: str) -> bool:
    """Is it the id of writes that belong to no task?"""
    return task_id[:32] == NULL_TASK_ID[:32]


def depth_of(ns: str) -> int:
    """Segments of a namespace, 0 for the root."""
    return ns.count("|") + 1 if ns else 0


def task_id(checkpoint_id: str, ns: str, what: str) -> str:
    """The id that the engine gives a task, as `pregel.engine.task.task_id`."""
    tail = _hash(f"{ns}\x1f{what}")
    if len(checkpoint_id) != len(NULL_TASK_ID):
        text = _hash(checkpoint_id)
        checkpoint_id = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return f"{checkpoint_id[:19]}{tail[:4]}-{tail[4:16]}"


def _pulled(name: str) -> str:
    return f"{name}\x1f{PULL}"


def _sent(name: str, index: int) -> str:
    return f"{name}\x1f{PUSH}\x1f{index}"


def _within(ns: str, name: str, task_id: str) -> str:
    return f"{ns}|{name}:{task_id}" if ns else f"{name}:{task_id}"


def _proved(ns: str, checkpoint_id: str, task_id: str, outline: Outline) -> tuple[str, str] | None:
    """(Name, what tells it from others) of the task that has this id in the file; None if it is none of the known nodes."""
    wanted = task_id.replace("-", "")
    try:
        start = bytes.fromhex(checkpoint_id.replace("-", ""))
    except ValueError:
        return None
    triggers: dict[str, set[str]] = {"__start__": {"__start__"}}
    for channel in (*outline.known, *outline.channels):
        match = _DUE.fullmatch(channel)
        if match is not None:
            triggers.setdefault(match[1] or match[2], set()).add(channel)
    tries = [(name, _pulled(name), (PULL, *sorted(found))) for name, found in triggers.items()]
    # A join that was never written is in no checkpoint, and one that was need not be a trigger of the node as it was then.
    tries += [(name, _pulled(name), (PULL, f"branch:to:{name}")) for name in triggers]
    tries += [(name, _sent(name, at), (PUSH, str(at))) for at, name in enumerate(outline.sends) if name is not None]
    for name, what, parts in tries:
        around = f"{ns}|{name}" if ns else name
        text = "".join((around, str(outline.step), name, *parts))
        data = start + text.encode("utf-8", "surrogatepass")
        if len(data) >= SHORTEST and xxh3_128(data) == wanted:
            return name, what
    return None


def _due(outline: Outline) -> list[str]:
    """Nodes of a `StateGraph` whose trigger has a value."""
    if "__start__" in outline.channels:
        return ["__start__"]
    found = [match for channel in outline.channels if (match := _DUE.fullmatch(channel)) is not None]
    return list(dict.fromkeys(match[1] or match[2] for match in found))


def _hash(text: str) -> str:
    hashed: str = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return hashed


def sends_in(value: Any, node_of: Callable[[Any], str | None]) -> list[str | None]:
    """Nodes of the sends that a checkpoint holds."""
    return [node_of(item) for item in value] if isinstance(value, list) else []
