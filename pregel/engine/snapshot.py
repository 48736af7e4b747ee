"""Between a run and its stored form: what a commit contains.

Decides how a changed channel is described to the saver (D23: the whole value, or the tail behind a kept prefix), and which
writes may be stored. Knows shapes from `checkpoint.base`, no saver; the time is asked of the request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from checkpoint import ids
from checkpoint.base import (
    NUMBER_SHIFT,
    WRITES_IDX_MAP,
    Append,
    ChannelOp,
    Edit,
    EncodedCommit,
    LoadedCheckpoint,
    Source,
    StepCommit,
    TaskWrites,
    UnregisteredTypeError,
    Version,
)
from pregel.constants import ERROR, MISSING, NO_WRITES, PULL, TASKS
from pregel.engine.program import Program, Write
from pregel.engine.state import Known, RunState
from pregel.errors import AttemptClosedError
from pregel.types import Send

NOTHING_WRITTEN: tuple[Write, ...] = ((NO_WRITES, None),)
"""Stored for a task that finished and wrote nothing, so that it counts as finished."""


NOTHING: Final[dict[str, Any]] = {}
NONE: Final[list[str]] = []
"""What most commits have none of, by reference: a commit that waits in memory costs what it holds."""


def stored_writes(program: Program, writes: Sequence[Write]) -> Sequence[Write]:
    """What is stored of a finished task's writes: nothing of untracked channels, also not inside a Send's dict."""
    if not program.keeps_all:
        writes = [
            (channel, tracked_send(program, value) if channel == TASKS else value)
            for channel, value in writes
            if channel not in program.channels or channel in program.tracked
        ]
    return writes or NOTHING_WRITTEN


def tracked_send(program: Program, packet: Any) -> Any:
    """A pending send without the keys of its dict that are untracked channels: the receiver of this process gets them,
    storage does not (engine.md 5.2)."""
    if not isinstance(packet, Send) or not isinstance(packet.arg, dict):
        return packet
    arg = {k: v for k, v in packet.arg.items() if k not in program.channels or k in program.tracked}
    return packet if len(arg) == len(packet.arg) else Send(packet.node, arg, timeout=packet.timeout)


def rows(run: RunState, writes: Sequence[TaskWrites]) -> StepCommit:
    """A commit of task writes alone: no checkpoint, no head moves."""
    assert run.claim is not None
    return StepCommit(run.claim, run.ns, "tasks", writes, run_id=run.request.run_id)


def checkpoint(run: RunState, source: Source, held: Sequence[TaskWrites] = ()) -> StepCommit | None:
    """Number the next checkpoint of the run, and describe it; None if it is not to be stored now."""
    parent_rev, parent_id = run.rev or None, run.checkpoint_id_
    run.source = source
    run.made_step = step = run.step
    run.number(step)
    if run.sub_open:
        run.sub_changed.update(run.sub_open)
        run.sub_open = {}
    if not run.stores or run.request.deferred:
        if run.open_runs:
            run.open_runs = []  # what nested runs came to is in the state now
        return None
    run.parent_rev = parent_rev
    run.parent_id = parent_id if parent_rev else None
    return commit(run, held)


def final(run: RunState, held: Sequence[TaskWrites]) -> StepCommit | None:
    """Durability `exit`: one checkpoint for all that the run did since it was stored; only rows if it did no step."""
    base = run.base
    if base is not None and base[0] == run.rev:
        return rows(run, held) if held else None
    if run.rev == 0:
        return None
    run.parent_rev, run.parent_id = (None, None) if base is None else base
    run.base = run.rev, run.checkpoint_id
    return commit(run, held)


def relink(run: RunState) -> None:
    """Nested runs that ended in the open superstep of this one, perhaps below others of which nothing is stored: whoever
    closes the superstep finds them under it."""
    for other in run.root.parked:
        if run.sub_open.get(other.checkpoint_ns) == other.rev:
            other.up_rev = run.rev


def unlink(made: StepCommit) -> None:
    """Nested checkpoints that worked under one of this run that is not stored belong to none, and name none (D52)."""
    claim = made.claim
    stored = {rev for commit in (made, *made.others) for rev in (commit.rev, commit.parent_rev)}

    def is_lost(rev: int | None) -> bool:
        return rev is not None and rev >> NUMBER_SHIFT == claim.number and rev not in stored

    for other in made.others:
        if is_lost(other.up_rev):
            other.up_rev = None
        if any(is_lost(ids.rev_of(id_, claim.salt)) for id_ in other.parents.values()):
            other.parents = {ns: i for ns, i in other.parents.items() if not is_lost(ids.rev_of(i, claim.salt))}


def periodic(run: RunState) -> StepCommit | None:
    """Durability `Every`, root run, between two steps: what `final` would store, with what nested runs want stored."""
    made = final(run, ())
    if made is not None:
        made.others, run.parked = run.parked, []
        unlink(made)
    return made


def commit(run: RunState, held: Sequence[TaskWrites]) -> StepCommit:
    """Everything that changed since the last commit, as one transaction."""
    assert run.claim is not None
    request = run.request
    version: Version = 0 if run.version is None else run.version
    values: dict[str, Any] = {}
    ops: dict[str, ChannelOp] = NOTHING
    gone: list[str] = NONE
    versions: dict[str, Version] | None = None
    ns = request.ns_
    channels, own_versions, keeps_all = run.channels, run.versions, run.program.keeps_all
    for name, known in run.changed.items():
        channel = channels[name]
        value: Any = channel.value if channel.plain_dump else channel.dump()  # type: ignore[attr-defined]
        if not keeps_all:
            if not channel.tracked:
                value = MISSING
            elif name == TASKS and value:
                value = [tracked_send(run.program, packet) for packet in value]
        if value is MISSING:
            gone = [*gone, name]
        elif known is None:
            values[name] = value
        else:
            if not ops:
                ops = {}
            ops[name] = _op(value, known)
    if run.is_mixed:
        versions = {name: own for name in run.changed if (own := own_versions[name]) != version}
        run.is_mixed = False
    around = request.parent_run
    made = StepCommit(
        run.claim,
        run.ns if ns is None else ns,
        "checkpoint",
        held,
        run.source,  # type: ignore[arg-type]
        run.made_step,
        run.checkpoint_id_ or run.checkpoint_id,
        run.rev,
        int(request.clock() * 1_000_000),
        run.parent_rev,
        run.parent_id,
        None if around is None else around.rev,
        NOTHING if around is None else run.parents(),
        request.stored_metadata,
        request.run_id,
        version,
        values,
        ops,
        gone,
        versions,
        run.seen_changed,
        None if run.updated is None else sorted(run.updated),
        run.sub_changed,
        run.facts_changed,
    )
    run.changed = {}
    run.seen_changed = {}
    if run.sub_changed:
        run.sub.update(run.sub_changed)
        run.sub_changed = {}
    if run.facts_changed:
        run.facts_changed = {}
    return made


def salvage(run: RunState, commit: StepCommit, encode: Callable[[StepCommit], EncodedCommit]) -> list[EncodedCommit]:
    """Of a step that cannot be encoded: what its tasks wrote, as far as that can; where not, the error.

    One task's value must not cost what the others did: they do not run again.
    """
    kept: list[EncodedCommit] = []
    for task in commit.writes:
        if commit.kind == "checkpoint" and task.rev == commit.rev:
            continue  # it belongs to the checkpoint that will not be there
        try:
            kept.append(encode(rows(run, [task])))
        except Exception as error:  # noqa: BLE001 - stored; raised already for the whole step
            slot = WRITES_IDX_MAP[ERROR]
            row = TaskWrites(task.rev, task.checkpoint_id, task.task_id, task.path, slot, [(ERROR, error)])
            kept.append(encode(rows(run, [row])))
    return kept


def _op(value: Any, known: Known) -> ChannelOp:
    """How a value differs from the one the last commit holds (D23)."""
    if known.kept is not None:
        return Append(value, known.kept, value[known.kept :])
    written: list[Any] = []
    for write in known.writes:
        written.append(write)
        if isinstance(write, (list, tuple)):
            written += write
        elif isinstance(write, dict):
            written += write.values()
    return Edit(value, known.before, written)


def note_edited(run: RunState, channels: Sequence[str]) -> None:
    """Something in these channels was edited in place and not returned; the saver has seen it and stored all of it."""
    for name in channels:
        run.notice(
            "edited-in-place",
            name,
            f"a part of {name!r} was edited in place by a node that did not return it, in step {run.step} or before; the "
            f"checkpoints up to then hold what it was; return the edited element, or edit a copy",
        )


def into_lane(run: RunState, commits: Sequence[StepCommit]) -> None:
    """The claim has gone into a lane: what was to be stored in one transaction is numbered in it. Ids stay."""
    claim = commits[0].claim
    every = [commit for last in commits for commit in (*last.others, last)]
    moved = {c.rev: claim.in_lane(c.rev) for c in every if c.kind == "checkpoint"}
    for c in every:
        c.rev = moved.get(c.rev, c.rev)
        c.parent_rev = moved.get(c.parent_rev, c.parent_rev) if c.parent_rev is not None else None
        c.up_rev = moved.get(c.up_rev, c.up_rev) if c.up_rev is not None else None
        c.sub = {ns: moved.get(rev, rev) for ns, rev in c.sub.items()}
        for task in c.writes:
            task.rev = moved.get(task.rev, task.rev)
    run.rev = moved.get(run.rev, run.rev)
    run.sub = {ns: moved.get(rev, rev) for ns, rev in run.sub.items()}
    run.sub_open = {ns: moved.get(rev, rev) for ns, rev in run.sub_open.items()}
    if run.base is not None:
        run.base = moved.get(run.base[0], run.base[0]), run.base[1]
    for kept_state in run.finished.values():
        kept_state.rev = moved.get(kept_state.rev, kept_state.rev)


def kept(run: RunState, held: Sequence[TaskWrites] = ()) -> LoadedCheckpoint:
    """The state of a run as its next run would load it, whose commits are not stored yet. `held`: of its open step."""
    assert run.claim is not None
    # What was loaded and has been looked at since is what its channel says: it may have been cleared.
    values = {name: value for name, value in run.channels.stored.items() if name not in run.channels}
    for name, channel in run.channels.items():
        if channel.tracked and name in run.versions and (value := channel.dump()) is not MISSING:
            values[name] = value
    return LoadedCheckpoint(
        run.claim,
        run.ns,
        run.checkpoint_id,
        run.rev,
        run.parent_id,
        run.parent_rev,
        source=run.source,
        step=run.made_step,
        parents=run.parents(),
        values=values,
        versions=dict(run.versions),
        seen={node: dict(seen) for node, seen in run.seen.items()},
        updated_channels=run.updated,
        sub=dict(run.sub),
        writes=[*run.pending, *held],
        facts=dict(run.facts),
    )


def _author(run: RunState, commit: StepCommit, error: UnregisteredTypeError) -> str | None:
    """The node that gave the value which cannot be stored; None if it was none, or a step that is over (`exit`)."""
    for task in run.tasks:
        if task.id_ == error.task_id and task.id_ is not None:
            return task.name
    pull = f"~{PULL}, "
    for row in commit.writes:
        if row.task_id == error.task_id and row.path.startswith(pull):
            return row.path.removeprefix(pull)
    return None


def disown(run: RunState) -> bool:
    """The root run is over: bodies that it has abandoned store nothing more, though nobody else has come yet (D29).

    Returns whether there are such bodies; one of them may be in the middle of a write.
    """
    claim = run.claim
    if claim is None or not run.abandons:
        return False
    if claim.poisoned is None:
        claim.poisoned = AttemptClosedError(
            f"the run of thread {claim.thread_id!r} is over; nothing more of it is stored"
        )
    return True


def note_unstored(run: RunState, commit: StepCommit | None, error: BaseException) -> None:
    """Say on a saver's error, once, what was not stored (D47)."""
    if isinstance(error, UnregisteredTypeError) and commit is not None:
        error.locate(node=_author(run, commit, error))
    step = run.step if commit is None else commit.step
    what = "task writes" if commit is not None and commit.kind == "tasks" else f"step {step}"
    text = f"Storing {what} of thread {run.request.thread_id!r} (namespace {run.ns!r}) failed; it is not stored"
    if not any(line.startswith("Storing ") for line in getattr(error, "__notes__", ())):
        error.add_note(text)
