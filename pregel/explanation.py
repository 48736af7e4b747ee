"""What `graph.explain(config)` answers: for each step of a thread which tasks there were and what woke them, and for nodes
that did not run what they lack.

Decides the words and the fields, nothing else: what they are filled with is found in `pregel.engine.reasons`. Plain
values that refer to no graph, saver or run; `str()` of each is readable text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from checkpoint.base import RunnableConfig

__all__ = ["Cause", "Explanation", "Lack", "Step", "StepTask", "Way"]

_VIA = {
    "edge": "edge",
    "branch": "conditional edge",
    "join": "edge from several",
    "goto": "Command",
    "send": "Send",
    "call": "call",
    "channel": "channel",
}


class Way(NamedTuple):
    """A declared way from node to node. `target` None: the router of `source` does not say where it goes."""

    source: str
    target: str | None
    kind: Literal["edge", "branch", "join", "goto", "channel"]

    def __str__(self) -> str:
        return f"{self.source!r} ({_VIA[self.kind]})"


class Cause(NamedTuple):
    """A write that woke a node, or is one of several that it waits for.

    `kind`: who wrote: `"input"` of the run; `"command"`, a `Command` given as input; `"update"`, `update_state`;
    `"node"`, a task of the run, also by a `Send`; `"error"`, a failed task that an error handler takes over from;
    `"unknown"`, somebody whose writes are not stored one by one (then `detail` says why).
    """

    kind: Literal["input", "command", "update", "node", "error", "unknown"]
    channel: str
    source: str | None = None
    """The node; for an update the one it was made as, if that is known."""
    task_id: str | None = None
    step: int | None = None
    """The step in which it was written."""
    via: Literal["edge", "branch", "join", "goto", "send", "call", "channel"] | None = None
    """`goto`: no edge is declared there, so it was a Command. `call`: the task that it names called this one."""
    detail: str = ""

    def __str__(self) -> str:
        when = "" if self.step is None else f" in step {self.step}"
        if self.kind == "node":
            return f"{self.source!r}{when} ({_VIA[self.via or 'channel']})"
        if self.kind == "update":
            return f"update_state{'' if self.source is None else f' as {self.source!r}'}{when}"
        if self.kind == "error":
            return f"the failure of {self.source!r}"
        if self.kind == "unknown":
            who = "a write" if self.source is None else f"{self.source!r}, by a write"
            return f"{who} that is not stored on its own ({self.detail})"
        return "the input" if self.kind == "input" else f"a Command given as input{when}"


class StepTask(NamedTuple):
    """One activation of a node: what came of it, and what woke it."""

    name: str
    id: str
    path: tuple[Any, ...]
    status: Literal["finished", "pending", "failed", "asked", "handled", "dropped"]
    """`asked`: its question is open. `handled`: it failed, and an error handler took over. `dropped`: a new input came
    before its step was over."""
    causes: tuple[Cause, ...]
    released: bool = False
    """A deferred node: what it waited for had come before, and now nothing else was left to run."""
    interrupts: tuple[str, ...] = ()
    """Ids of its open questions."""
    error: str | None = None
    """Repr of the exception."""
    state: RunnableConfig | None = None
    """Where its nested graph keeps its state: the config to explain that with."""
    calls: tuple[StepTask, ...] = ()
    """Tasks that it called, as far as something of them is stored, in the order of calling."""

    def __str__(self) -> str:
        status: str = self.status
        if self.status == "asked":
            status = f"asks {', '.join(self.interrupts)}"
        elif self.error is not None and self.status in ("failed", "handled"):
            status = f"{self.status} ({self.error})"
        why = ", ".join(map(str, self.causes)) or "nothing that is stored"
        released = "; nothing else was left to run" if self.released else ""
        nested = f"; nested graph at {self.state['configurable']['checkpoint_ns']!r}" if self.state else ""
        how = "called" if self.causes and self.causes[0].via == "call" else "woken"
        line = f"{self.name} {status}: {how} by {why}{released}{nested}"
        return "\n".join([line, *(f"  {text}" for call in self.calls for text in str(call).splitlines())])


class Lack(NamedTuple):
    """A node that does not run, and why.

    `kind`: `"join"`, not all of its sources have arrived; `"inclusive"`, a join of which that holds, and which goes on
    with those that have when nothing else is left to run; `"deferred"`, it runs when nothing else is left to run;
    `"input"`, it is due and has nothing to read; `"unreached"`, nothing has woken it.
    """

    name: str
    kind: Literal["join", "inclusive", "deferred", "input", "unreached"]
    channel: str | None = None
    arrived: tuple[Cause, ...] = ()
    """What woke it so far."""
    missing: tuple[str, ...] = ()
    """Of a join: the sources that have not arrived. Of a deferred node: the tasks of the open step; what they wake comes
    first as well. Else: the channels that have no value."""
    ways: tuple[Way, ...] = ()
    """How it can be reached, as far as that is declared. A Command or a Send can reach any node."""

    def __str__(self) -> str:
        names = ", ".join(map(repr, self.missing))
        arrived = f"arrived: {', '.join(map(str, self.arrived))}; " if self.arrived else ""
        if self.kind == "join":
            return f"{self.name} waits: {arrived}missing: {names}"
        if self.kind == "inclusive":
            return (
                f"{self.name} waits: {arrived}missing: {names}, without which it runs when nothing else is left to run"
            )
        if self.kind == "deferred":
            rest = f"{names} and what follows from them" if names else "the next step"
            return f"{self.name} is deferred: {arrived}waits for {rest}"
        if self.kind == "input":
            return f"{self.name} is due and has nothing to read: {names} has no value"
        ways = f"only {', '.join(map(str, self.ways))}" if self.ways else "no declared edge"
        return f"{self.name} was not woken: {ways} leads there, or a Command or Send"


class Step(NamedTuple):
    """A superstep, or what else made a checkpoint.

    `kind`: `"open"`, the step that comes next, not closed; `"loop"`, a closed one; `"input"`, `"update"` and `"fork"`: an
    input, an `update_state`, a copy that a replay starts from.
    """

    step: int
    kind: Literal["open", "input", "loop", "update", "fork"]
    config: RunnableConfig
    """Addresses the checkpoint that the step started from; without one (an input, a gap) the one it made."""
    tasks: tuple[StepTask, ...] = ()
    lacks: tuple[Lack, ...] = ()
    """Nodes that had something of what they need when the step began, and not all. For the open step also those that
    nothing has woken in the steps before."""
    first_step: int | None = None
    """Less than `step` if several steps are not stored one by one (durability `exit` or `Every`): the first of them."""
    stopped: Literal["before", "after"] | None = None
    """The open step, of which nothing has run: it waits at a breakpoint before it, or after the step before it, that the
    graph was compiled with or the thread keeps. Those of a single call are not stored."""

    def __str__(self) -> str:
        title = {"open": f"open step {self.step}", "loop": f"step {self.step}"}.get(
            self.kind, f"step {self.step}: {_MADE.get(self.kind, '')}"
        )
        if self.first_step is not None and self.first_step != self.step:
            title = f"steps {self.first_step} to {self.step}, not stored one by one"
        if self.stopped is not None:
            where = "before it" if self.stopped == "before" else "after the step before"
            title += f", stopped at a breakpoint {where}"
        lines = [line for entry in (*self.tasks, *self.lacks) for line in str(entry).splitlines()]
        if not lines and self.kind == "open":
            lines = ["nothing is due"]
        return "\n".join([title, *(f"  {line}" for line in lines)])


_MADE = {"input": "input", "update": "update_state", "fork": "copied, to go on from there"}


class Explanation(NamedTuple):
    """Why the nodes of a thread ran, or did not. Oldest step first."""

    graph: str
    thread_id: str
    checkpoint_ns: str
    steps: tuple[Step, ...]
    ways: tuple[Way, ...] = ()
    """All declared ways of the graph."""

    def about(self, name: str) -> tuple[tuple[int, StepTask | Lack], ...]:
        """(step, what there is to say) of one node, oldest first."""
        return tuple(self._about(name))

    def _about(self, name: str) -> Iterator[tuple[int, StepTask | Lack]]:
        for step in self.steps:
            entries: Sequence[StepTask | Lack] = (*step.tasks, *step.lacks)
            yield from ((step.step, entry) for entry in entries if entry.name == name)

    def why(self, name: str) -> str:
        """What there is to say of one node, as lines."""
        lines = [f"step {step}: {entry}" for step, entry in self.about(name)]
        return "\n".join(lines) or f"{name!r} is not in these steps"

    def __str__(self) -> str:
        place = f", namespace {self.checkpoint_ns!r}" if self.checkpoint_ns else ""
        head = f"thread {self.thread_id!r} of graph {self.graph!r}{place}"
        if not self.steps:
            return f"{head}: nothing is stored there"
        return "\n".join([head, *map(str, self.steps)])
