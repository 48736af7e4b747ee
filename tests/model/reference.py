"""The superstep semantics, naive and slow, over the descriptions of `tests.support.graphs`.

An interpreter to compare the engine with: it has no versions, channels, tasks ids, drivers or storage. What wakes a
node is kept in plain sets that are searched in full each step; everything is copied deeply, so nothing can be shared
by accident. Written from engine.md 2 (supersteps), 5.3, 5.4, 5.7 (questions, resuming), 7.1, 7.4, 7.5, 7.6
(checkpoints, new input, snapshots, updates), 7.7 (replay) and design.md D43; it must not be changed to agree with the
engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from pregel.constants import START
from tests.support.graphs import Graph, answer, body, choose

Join = tuple[tuple[str, ...], str]


class InvalidUpdate(Exception):
    """Two values for a key that takes one."""


class Failed(Exception):
    """A node has failed for good."""


class OutOfSteps(Exception):
    """The step limit was reached."""


@dataclass
class State:
    """Everything between two steps."""

    values: dict[str, Any] = field(default_factory=lambda: {"log": [], "total": 0})
    input: dict[str, Any] | None = None
    """Given, and not yet seen by START."""
    called: set[str] = field(default_factory=set)
    """Nodes that run next because an edge, a route or a goto names them."""
    sent: list[tuple[str, Any]] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    """Deferred nodes that were called, and wait until nothing else is to be done."""
    released: set[str] = field(default_factory=set)
    arrived: dict[Join, set[str]] = field(default_factory=dict)
    ready: set[Join] = field(default_factory=set)
    """Joins that are complete (and released, if their target is deferred)."""


@dataclass(frozen=True)
class Task:
    """One activation: `index` is the place among the Sends, -1 for a node that was woken."""

    name: str
    index: int = -1
    argument: Any = None

    @property
    def key(self) -> str:
        return self.name if self.index < 0 else f"{self.name}#{self.index}"


@dataclass
class Result:
    """What a task returned: an update, and where to go (names, and (name, argument) for Sends)."""

    update: dict[str, Any]
    targets: list[Any]


@dataclass(eq=False)
class Saved:
    """A checkpoint, and what is known of the step that it opens."""

    state: State
    step: int
    source: str
    parent: int | None
    results: dict[str, Result] = field(default_factory=dict)
    answers: dict[str, list[str]] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)
    """Task key -> its open question."""


@dataclass
class Outcome:
    """How one call ended."""

    values: Any = None
    questions: list[str] = field(default_factory=list)
    error: type[Exception] | None = None
    updates: list[Any] = field(default_factory=list)
    """Chunks of mode updates, in any order; questions as {"__interrupt__": question}."""
    shown: list[Any] = field(default_factory=list)
    """Chunks of mode values, without those that announce a question."""


# ---- one step


def tasks_of(graph: Graph, state: State) -> list[Task]:
    """What runs next: Sends by index, then nodes in the order of their definition."""
    tasks = [Task(name, index, argument) for index, (name, argument) in enumerate(state.sent)]
    if state.input is not None:
        tasks.append(Task(START))
    woken = state.called | state.released | {target for _, target in state.ready}
    return tasks + [Task(node.name) for node in graph.nodes if node.name in woken]


def in_order(tasks: list[Task]) -> list[Task]:
    """The order in which writes are applied: woken nodes by name, then Sends by index."""
    return sorted(tasks, key=lambda task: (task.index >= 0, task.index, task.name))


def write(values: dict[str, Any], updates: list[dict[str, Any]]) -> dict[str, Any]:
    """The values after these updates, one step's worth of them."""
    values = deepcopy(values)
    for update in updates:
        values["log"] = values["log"] + update.get("log", [])
        values["total"] = values["total"] + update.get("total", 0)
    last = [update["last"] for update in updates if "last" in update]
    if len(last) > 1:
        raise InvalidUpdate
    return {**values, "last": last[0]} if last else values


def route(graph: Graph, state: State, name: str, update: dict[str, Any], targets: list[Any]) -> list[Any]:
    """All that a task wakes: its gotos, its edges, and its conditional edge, which sees the task's own writes alone."""
    edges = sorted(target for source, target in graph.edges if source == name)
    return [*targets, *edges, *choose(graph.node(name).branch, write(state.values, [update]))]


def run(graph: Graph, state: State, step: int, task: Task, answers: list[str]) -> Result | str:
    """What a task returns, or the question that it stops at."""
    if task.name == START:
        assert state.input is not None
        update = {key: value for key, value in state.input.items() if key in ("log", "total", "last")}
        return Result(deepcopy(update), route(graph, state, START, update, []))
    node = graph.node(task.name)
    if node.is_doomed:
        raise Failed
    acting = body(node, task.key, deepcopy(state.values if task.index < 0 else task.argument), step)
    replies = iter([None, *answers])
    try:
        for reply in replies:
            question = acting.send(reply)
    except StopIteration as stop:
        update, targets = stop.value
        return Result(update, route(graph, state, task.name, update, targets))
    return question


def close(graph: Graph, state: State, done: list[tuple[Task, Result]], *, acted: bool = True) -> State:
    """The state after a step. `acted=False`: an update from outside, which no woken node has acted on."""
    done = sorted(done, key=lambda pair: in_order([task for task, _ in done]).index(pair[0])) if acted else done
    after = deepcopy(state)
    after.values = write(state.values, [result.update for _, result in done])
    after.input, after.called, after.sent = None, set(), []
    if acted:
        forget(after, {task.name for task, _ in done if task.index < 0})
    complete: set[Join] = set()
    for task, result in done:
        for target in result.targets:
            if isinstance(target, tuple):
                after.sent.append(deepcopy(target))
            elif graph.node(target).deferred:
                after.released.discard(target)
                after.held.add(target)
            else:
                after.called.add(target)
        for join in graph.joins:
            if task.name in join[0] and task.name not in after.arrived.get(join, set()):
                after.arrived[join] = after.arrived.get(join, set()) | {task.name}
                if after.arrived[join] == set(join[0]) and not graph.node(join[1]).deferred:
                    complete.add(join)
    after.ready |= complete
    if not (after.called or after.sent or complete):
        waiting = {join for join in graph.joins if graph.inclusive and after.arrived.get(join)} - after.ready
        early = {join for join in waiting if not graph.node(join[1]).deferred and not precedes(graph, after.held, join)}
        if early:
            after.ready |= early
        else:
            after.released |= after.held
            after.held = set()
            late = {join for join in waiting if graph.node(join[1]).deferred}
            after.ready |= late | {join for join in graph.joins if after.arrived.get(join) == set(join[0])}
    return after


def precedes(graph: Graph, held: set[str], join: Join) -> bool:
    """Does one of these deferred nodes lead to the join, and the join not to it?"""
    behind = leads(graph, join[1])
    return any(leads(graph, name).intersection(join[0]) and name not in behind for name in held)


def leads(graph: Graph, name: str) -> set[str]:
    """The node, and all that may come after it by edges, joins and routes (those are built to name every node)."""
    found: set[str] = set()
    todo = {name}
    while todo:
        one = todo.pop()
        found.add(one)
        todo |= {target for source, target in graph.edges if source == one}
        todo |= {target for sources, target in graph.joins if one in sources}
        todo |= {node.name for node in graph.nodes} if graph.node(one).branch is not None else set()
        todo -= found
    return found


def forget(state: State, ran: set[str]) -> None:
    """What these nodes were woken by is used up."""
    state.released -= ran
    for join in [join for join in state.ready if join[1] in ran]:
        state.ready.discard(join)
        state.arrived[join] = set()


# ---- one thread


class Thread:
    """A thread as the user sees it: calls in, outcomes and snapshots out."""

    def __init__(self, graph: Graph, *, limit: int, keeps_all: bool = True, answered: bool = False) -> None:
        """`keeps_all`: not durability exit. `answered`: every question is answered as it comes up."""
        self.graph = graph
        self.limit = limit
        self.keeps_all = keeps_all
        self.answered = answered
        self.saved: list[Saved] = []

    def invoke(
        self, given: dict[str, Any] | None, *, at: int | None = None, answers: Mapping[str, str] | None = None
    ) -> Outcome:
        """A call with an input, or None, or answers by question; `at`: the addressed checkpoint."""
        out = Outcome()
        before = len(self.saved)
        index = at if at is not None else before - 1
        base = self.saved[index] if self.saved else None
        self.stop = (base.step + 1 if base else -1) + self.limit + 1
        if given is not None:
            state = deepcopy(base.state) if base else State()
            forget(state, {task.name for task in tasks_of(self.graph, state)})
            state.called, state.sent, state.input = set(), [], deepcopy(given)
            current = self._save(state, base.step + 1 if base else -1, "input", index if base else None)
        else:
            assert base is not None
            current = base
            for key, question in base.questions.items() if answers else ():
                if question in answers:
                    base.answers.setdefault(key, []).append(answers[question])
            if at is not None and not answers:
                if base.source not in ("update", "fork") or at != before - 1:
                    current = self._save(deepcopy(base.state), base.step + 1, "fork", index)
                else:
                    base.results, base.answers, base.questions = {}, {}, {}
            out.values = deepcopy(current.state.values)
            out.shown.append(out.values)
        try:
            self._walk(current, out, set(answers or ()))
        except Exception as error:
            if not isinstance(error, (InvalidUpdate, Failed, OutOfSteps)):
                raise
            out.error = type(error)
        if not self.keeps_all and len(self.saved) > before:
            last = self.saved[-1]
            last.parent = index if base else None
            self.saved[before:] = [last]
        return out

    def _save(self, state: State, step: int, source: str, parent: int | None) -> Saved:
        self.saved.append(Saved(state, step, source, parent))
        return self.saved[-1]

    def _walk(self, saved: Saved, out: Outcome, answers: set[str]) -> None:
        while True:
            if saved.step + 1 > self.stop:
                raise OutOfSteps
            tasks = tasks_of(self.graph, saved.state)
            if not tasks:
                return
            self._run_tasks(saved, tasks, out, answers)
            done = [(task, saved.results[task.key]) for task in tasks if task.key in saved.results]
            if saved.questions:
                out.questions = list(saved.questions.values())
                written = [result.update for _, result in done if result.update]
                if written:
                    out.values = self.values(saved)
                    out.shown.append(out.values)
                return
            after = close(self.graph, saved.state, done)
            if any(result.update for _, result in done):
                out.values = deepcopy(after.values)
                out.shown.append(out.values)
            saved = self._save(after, saved.step + 1, "loop", self.saved.index(saved))
            answers = set()

    def _run_tasks(self, saved: Saved, tasks: list[Task], out: Outcome, answers: set[str]) -> None:
        failed = False
        for task in tasks:
            key = task.key
            if key in saved.results:
                if task.name != START:
                    out.updates.append({task.name: saved.results[key].update or None, "__metadata__": {"cached": True}})
                continue
            if answers and saved.questions.get(key, None) not in (None, *answers):
                out.updates.append({"__interrupt__": saved.questions[key]})
                continue
            saved.questions.pop(key, None)
            given = saved.answers.get(key, [])
            try:
                result = run(self.graph, saved.state, saved.step + 1, task, given)
                while isinstance(result, str) and self.answered:
                    given = [*given, answer(result)]
                    result = run(self.graph, saved.state, saved.step + 1, task, given)
            except Failed:
                failed = True
                continue
            if isinstance(result, str):
                saved.questions[key] = result
                out.updates.append({"__interrupt__": result})
            else:
                saved.results[key] = result
                if task.name != START:
                    out.updates.append({task.name: result.update or None})
        if failed:
            raise Failed

    def update(self, values: dict[str, Any] | None, name: str, *, at: int | None = None) -> None:
        """`update_state` as a node."""
        index = at if at is not None else len(self.saved) - 1
        base = self.saved[index]
        result = Result(values or {}, route(self.graph, base.state, name, values or {}, []))
        after = close(self.graph, base.state, [(Task(name), result)], acted=False)
        self._save(after, base.step + 1, "update", index)

    # ---- what is shown

    def values(self, saved: Saved) -> dict[str, Any]:
        """The values of the newest snapshot: results of the open step count."""
        done = [task for task in tasks_of(self.graph, saved.state) if task.key in saved.results]
        return write(saved.state.values, [saved.results[task.key].update for task in in_order(done)])

    def history(self) -> list[tuple[str, int, int | None, dict[str, Any], tuple[str, ...]]]:
        """(source, step, parent, values, next) of every checkpoint, oldest first."""
        return [
            (s.source, s.step, s.parent, s.state.values, tuple(task.name for task in tasks_of(self.graph, s.state)))
            for s in self.saved
        ]

    def head(self) -> tuple[dict[str, Any], tuple[str, ...], list[str]]:
        """(values, next, questions) of the newest snapshot."""
        saved = self.saved[-1]
        left = [task.name for task in tasks_of(self.graph, saved.state) if task.key not in saved.results]
        return self.values(saved), tuple(left), sorted(saved.questions.values())
