"""A call that may have been made before: `run_id=` makes a whole call safe to repeat.

Decides, from what is stored, whether a call with a run id of its own is new, goes on where it was cut off, or has its
result already; what is remembered so that this can be told; and how a run that only tells a result begins. Pure: drivers
load what is asked for here.

Which is which. The newest checkpoint is the run's, or has a record of it: the call goes on there. What is done is not done
again, questions that are open are told and not asked again, a static breakpoint stops once more; if nothing is left to
run, that is the result. The run is an older one: its result is told as it was stored, and if it had none, because it was
cut off, then what others made of its input, or `RunSupersededError`. It is not known: an ordinary call.

What is remembered. A checkpoint carries the id of the run that stored it. The fact `call` has the id and a digest of what
the run was first called with; a resume, which stores no checkpoint before its first superstep ends, leaves a row of the
same two in the transaction of its answers. When others go on before it has stored a checkpoint, the fact `answered` keeps
them, the newest ones.

Invariants
1. A call with a run id is applied once, whatever happens between two tries; a try that finds it done runs nothing.
2. `None` as input applies nothing: it goes on, as often as it is given, and is never taken for a repetition. So does a
   `Command` with the id of a run that was called with something else before: that is how a run is resumed whose id is a
   part of the thread's config.
3. Costs nothing without a run id.

Source: idempotency keys as payment services define them; request ids of Raft clients (Ongaro 2014, section 6.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from checkpoint.base import LoadedCheckpoint, StepCommit, TaskWrites
from pregel.constants import INTERRUPT, PUSH, START
from pregel.engine import contents, entry, history, pause, view
from pregel.engine.origin import ORIGIN
from pregel.engine.program import Program
from pregel.engine.state import Answers, Request, RunState
from pregel.engine.task import Task, digest
from pregel.errors import Interrupt, RunIdReusedError, RunSupersededError
from pregel.types import Command

CALL = "call"
"""The fact [run id, digest] of the newest run with an id of its own on this line."""
ANSWERED = "answered"
"""The fact [[run id, digest, checkpoint id, origin, ended], ...]: resumes that stored no checkpoint, newest last. `ended`:
another resume came after, so it had come to its question."""
STOPPED = "stopped"
"""The fact that a run with an id stopped after the superstep of this number, at a breakpoint."""
RECORD = "__call__"
"""Channel of the row that a resume leaves: [run id, digest, how many such rows the checkpoint had, *what was asked]."""
MAX_ANSWERED = 32

Mode = Literal["new", "again", "past"]


class Called:
    """A root call with a run id of its own, on a graph that stores."""

    __slots__ = ("_digest", "first", "mode", "passed", "passes", "program", "run_id", "value")

    def __init__(self, program: Program, run_id: str, value: Any) -> None:
        self.program = program
        self.run_id = run_id
        self.value = value
        """What the graph is called with."""
        self.mode: Mode = "new"
        """`again`: go on at the newest checkpoint. `past`: tell the result that a checkpoint has."""
        self.first = True
        """Is it what the run is called with first?"""
        self.passes = False
        """Does it go past the breakpoint that the checkpoint stands at? Then it resumed there before."""
        self.passed = False
        """Did others answer there after it?"""
        self._digest: str | None = None

    @property
    def digest(self) -> str:
        """What tells its input from others; worked out when first asked for."""
        if self._digest is None:
            kind = "c" if isinstance(self.value, Command) else "i"
            self._digest = kind + contents.of_input(self.value)
        return self._digest

    def stops_in(self, nested: RunState) -> bool:
        """Does a nested run that goes on stop where it stood? It does if this run came that far by itself."""
        if self.mode != "again":
            return False
        loaded = nested.loaded
        return not self.passes or (loaded is not None and loaded.metadata.get("run_id") == self.run_id)

    @staticmethod
    def stands_after(run: RunState) -> bool:
        """Does a run begin where one stopped after a superstep?"""
        return run.facts.get(STOPPED) == run.made_step


# ---- what a call finds


def meets(request: Request, head: LoadedCheckpoint) -> bool:
    """Is the newest checkpoint the run's? Then the call's mode is decided.

    Raises:
        RunIdReusedError: the run was called with something else.
    """
    called: Called = request.called
    if head.checkpoint_id is None:
        return False
    records = _records(head.writes)
    recorded = next((record[1] for record in records if record[0] == called.run_id), None)
    made = head.metadata.get("run_id") == called.run_id
    if not made and recorded is None:
        return False
    if _is_first(called, recorded or _first(head, called.run_id)):
        called.mode = "again"
        called.passes = not made
        called.passed = bool(records) and records[-1][0] != called.run_id
    return True


def answered_at(request: Request, head: LoadedCheckpoint) -> str | None:
    """Id of the checkpoint at which the run answered something and stored nothing else."""
    found: str | None = _answer(head, request.called.run_id)[2]
    return found


def _answer(head: LoadedCheckpoint, run_id: str) -> Sequence[Any]:
    """What is remembered of a resume that stored no checkpoint."""
    return next(
        (answer for answer in head.facts.get(ANSWERED, ()) if answer[0] == run_id), (run_id, None, None, None, False)
    )


def recalls(
    request: Request, past: LoadedCheckpoint, head: LoadedCheckpoint, *, answered: bool
) -> LoadedCheckpoint | None:
    """The run was found at an older checkpoint: where the call begins, the mode is decided. None: it is `superseded`, if
    `head` is still the newest.

    `answered`: the run stored no checkpoint, and `past` is the one it answered at.

    Raises:
        RunIdReusedError: the run was called with something else.
    """
    called: Called = request.called
    first, origin, ended = _first(past, called.run_id), past.facts.get(ORIGIN), True
    if answered:
        _, first, _, origin, ended = _answer(head, called.run_id)
    if not _is_first(called, first):
        return head
    carried_on = origin == head.facts.get(ORIGIN)
    if (ended or not carried_on) and past.checkpoint_id is not None and has_ended(request, past):
        called.mode = "past"
        return past
    if carried_on:
        called.mode = "again"
        return head
    return None


def superseded(request: Request, past: LoadedCheckpoint) -> RunSupersededError:
    """What a call is told whose run was cut off, and dropped by what others gave the thread to do."""
    run_id = request.called.run_id
    return RunSupersededError(
        f"run_id {run_id!r} of thread {request.thread_id!r}: the run was cut off at step {past.step} before it had a "
        f"result, and the thread was given something else to do since; its input was applied and the rest of its work "
        f"dropped, so there is nothing to return; call with another run_id to do it anew",
        run_id=run_id,
    )


def _first(loaded: LoadedCheckpoint, run_id: str) -> str | None:
    """Digest of what a run was first called with, None if that is not known."""
    fact = loaded.facts.get(CALL)
    return fact[1] if fact and fact[0] == run_id else None


def _records(writes: Sequence[TaskWrites]) -> list[Sequence[Any]]:
    """What resumes left at a checkpoint, oldest first."""
    found = [value for row in writes for channel, value in row.writes if channel == RECORD]
    return sorted(found, key=lambda record: record[2])


def _is_first(called: Called, first: str | None) -> bool:
    """Is it the call that the run began with? False: it is one more of the same run."""
    if first is None or first == called.digest:
        return True
    if isinstance(called.value, Command) and not first.startswith("c"):
        called.first = False
        return False
    raise RunIdReusedError(
        f"run_id {called.run_id!r}: it was used for another input before, so this one is not applied; pass the same input "
        f"to get the result of that run, or another run_id for another input",
        run_id=called.run_id,
    )


def has_ended(request: Request, loaded: LoadedCheckpoint) -> bool:
    """Did the run that stored a checkpoint end there by itself: finished, at a question, or at a breakpoint?"""
    copied = replace(
        loaded,
        values=dict(loaded.values),
        versions=dict(loaded.versions),
        seen={node: dict(seen) for node, seen in loaded.seen.items()},
        sub=dict(loaded.sub),
        open_sub=dict(loaded.open_sub),
        facts=dict(loaded.facts),
        writes=list(loaded.writes),
    )
    run, tasks = history.opened(request.called.program, request, copied)
    return (
        not tasks
        or any(task.interrupts for task in tasks)
        or loaded.facts.get(STOPPED) == loaded.step
        or (bool(request.interrupt_before) and pause.breakpoint_hit(run, request.interrupt_before, tasks))
    )


# ---- how it begins


def begin(run: RunState, value: Any) -> list[StepCommit]:
    """As `entry.begin`, for a call with a run id."""
    called: Called = run.request.called
    if called.mode == "past":
        _tell(run)
        return []
    if called.mode == "again":
        _go_on(run)
        return []
    if not called.first:
        return entry.begin(run, value)
    rev, checkpoint_id, n_records = run.rev, run.checkpoint_id_, len(_records(run.pending))
    asked = pause.open_questions(run.pending).values()
    run.remember(CALL, [called.run_id, called.digest])
    commits = entry.begin(run, value)
    if run.resumed and run.stores and checkpoint_id is not None:
        id_ = digest([RECORD, called.run_id, checkpoint_id])
        record = [called.run_id, called.digest, n_records, *asked]
        row = TaskWrites(rev, checkpoint_id, id_, f"~{PUSH}, {RECORD}", 0, [(RECORD, record)])
        if run.held:
            run.held.append(row)
        elif commits:
            commits[0].writes = [*commits[0].writes, row]
    return commits


def keep_answered(run: RunState) -> None:
    """A run goes on from where resumes left their record: they are remembered from its next checkpoint on."""
    called: Called | None = run.request.called
    known = list(run.facts.get(ANSWERED, ()))
    origin = run.facts.get(ORIGIN)
    records = _records(run.pending)
    follows = called is not None and called.mode == "new" and isinstance(called.value, Command)
    for number, (id_, given, *_) in enumerate(records):
        if called is None or id_ != called.run_id:
            known = [item for item in known if item[0] != id_]
            known.append([id_, given, run.checkpoint_id, origin, follows or number + 1 < len(records)])
    if known:
        run.remember(ANSWERED, known[-MAX_ANSWERED:])


def stopped_after(run: RunState, made: StepCommit | None) -> None:
    """A run stops after the superstep it has just closed; told to whoever repeats the call."""
    run.remember(STOPPED, run.made_step)
    if made is not None:
        made.facts = {**made.facts, STOPPED: run.facts_changed.pop(STOPPED)}


def _go_on(run: RunState) -> None:
    """Go on where the run was cut off, or find out that nothing is left to do.

    Raises:
        GraphChangedError: what is left to do needs nodes or keys that the graph has no more.
    """
    called: Called = run.request.called
    entry.sign(run)
    entry.null_writes(run)
    entry.check_change(run)
    # What later calls answered is theirs: this one had come to its question before.
    run.answers = pause.stored_answers(run.pending) if called.passes and not called.passed else Answers()
    # Also if it answered nothing: what is asked already is told, and not asked again (D43).
    run.answers.given = True
    run.resumed = True
    if called.passes:
        run.remember(CALL, [called.run_id, called.digest])
        run.seen[INTERRUPT] = dict(run.versions)
        run.seen_changed[INTERRUPT] = run.seen[INTERRUPT]
    _show(run)
    if not called.passes and called.stands_after(run):
        run.status, run.phase = "interrupt_after", "done"
        view.stopped(run)


def _tell(run: RunState) -> None:
    """The result as it was stored: values, and what the run asked."""
    tasks = history.open_tasks(run, run.pending)
    asked = _asked_before(run)
    if asked is not None:
        _ask_as_then(run, tasks, asked)
    for task in tasks:
        if task.interrupts:
            # Whoever answered it since was another run.
            task.writes = None
            run.waiting.append(task)
            run.interrupts += task.interrupts
    run.tasks = tasks
    run.pending = []
    run.phase = "done"
    _show(run)
    if run.waiting:
        run.status = "interrupted"
        for task in run.waiting:
            view.paused(run, task)
        view.interrupted(run)
    elif tasks:
        run.status = "interrupt_before"
        view.stopped(run)
    else:
        run.status = "done"


def _asked_before(run: RunState) -> Sequence[Interrupt] | None:
    """What this run had asked when the next resume came, if that left a record: the rows have what was asked last."""
    called: Called = run.request.called
    records = _records(run.pending)
    own = [number for number, record in enumerate(records) if record[0] == called.run_id]
    after = own[-1] + 1 if own else 0
    return records[after][3:] if after < len(records) else None


def _ask_as_then(run: RunState, tasks: Sequence[Task], asked: Sequence[Interrupt]) -> None:
    """Let tasks ask what was asked at some time before. A graph that keeps its state does not say whose task it is of."""
    asking = [task for task in tasks if task.interrupts]
    for task in tasks:
        ns = run.ns_of(task)
        task.interrupts = tuple(question for question in asked if question.task_ns.startswith(ns))
        asked = [question for question in asked if not question.task_ns.startswith(ns)]
    for task in asking[:1]:
        task.interrupts += tuple(asked)


def _show(run: RunState) -> None:
    """Show the values, unless no output was written since the input came: then the first call had none either."""
    keys = run.request.output_keys
    since = run.seen.get(START, {}).get(START)
    versions = [run.versions[name] for name in ([keys] if isinstance(keys, str) else keys) if name in run.versions]
    if any(since is None or version > since for version in versions):  # type: ignore[operator]
        view.resumed(run)
