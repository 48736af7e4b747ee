"""The barrier: the writes of a superstep become channel values, new versions, and the set of updated channels.

Decides the order in which reducers see values (task order, then write order, whatever finished first), which channels
get the step's new version, and which are cleared. Stages everything first and installs in one loop that cannot raise
(D31), so a reducer that fails leaves the run as it was. Knows nothing of savers, streams or drivers.

The steps are those of engine.md 2.6; a channel without a reaction to "nothing was written" is never visited (D45).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pregel.channels.base import BaseChannel
from pregel.constants import CONTROL_WRITES, MISSING, TASKS
from pregel.engine import joins
from pregel.engine.state import RunState
from pregel.engine.task import Task, order
from pregel.errors import InvalidUpdateError, nearest


def apply_tasks(run: RunState, tasks: Sequence[Task], *, releases: bool = True) -> None:
    """Apply the writes of a superstep's tasks; sets `run.updated`. `releases`: may it wake deferred nodes?

    Raises:
        InvalidUpdateError: a channel cannot take the values it got; the text names the writers and the step.
        Exception: what a reducer raises. In both cases nothing has changed.
    """
    if len(tasks) > 1:
        tasks = sorted(tasks, key=order)
    program = run.program
    by_channel: dict[str, list[Any]] = {}
    for task in tasks:
        writes = task.writes
        assert writes is not None, f"task '{task.name}' of step {run.step} has not finished"
        for channel, value in writes:
            if channel in by_channel:
                by_channel[channel].append(value)
            else:
                by_channel[channel] = [value]
    consumed: list[str] = []
    spent: dict[str, BaseChannel[Any, Any, Any]] = {}
    if program.consuming:
        consumed = list(
            dict.fromkeys(t for task in tasks if task.is_pull for t in task.triggers if t in program.consuming)
        )
        spent = _consume_copies(run, consumed)
    try:
        staged = stage(run, by_channel, run.live)
    except BaseException as error:
        run.channels.update(spent)
        if isinstance(error, InvalidUpdateError):
            raise _with_writers(run, error, tasks) from None
        raise
    # From here on nothing raises.
    versions, seen, seen_changed = run.versions, run.seen, run.seen_changed
    for task in tasks:
        name = task.name
        # Never changed in place: a commit that is still to be written may hold the map there is.
        known = seen.get(name)
        consumed_by = seen[name] = {} if known is None else known.copy()
        if task.index < 0 and task.parent is None:
            for trigger in task.node.triggers:
                if trigger in versions:
                    consumed_by[trigger] = versions[trigger]
        seen_changed[name] = consumed_by
    if not run.changed and (run.claim is None or run.claim.make_version is None):
        version = run.version = 1 if run.version is None else run.version + 1  # type: ignore[operator]
    else:
        version = run.next_version()
    for name in consumed:
        if name in spent or (run.channels[name].stages_in_place and run.channels[name].consume()):
            run.bump(name, version)
    run.live = []
    run.updated = updated = install(run, staged, version, by_channel)
    run.is_fresh = True
    if releases and program.finishing and not any(name in program.triggers or name == TASKS for name in updated):
        finish(run, version, updated)


def apply_writes(run: RunState, writes: Sequence[tuple[str, Any]], writer: str) -> None:
    """Apply writes that belong to no task (input, `Command` input): no step is counted, nothing is cleared."""
    by_channel: dict[str, list[Any]] = {}
    for channel, value in writes:
        by_channel.setdefault(channel, []).append(value)
    try:
        staged = stage(run, by_channel)
    except InvalidUpdateError as error:
        raise _named(run, error, [writer]) from None
    updated = install(run, staged, run.next_version(), by_channel)
    run.is_fresh = run.is_fresh and run.updated is None
    run.updated = updated if run.updated is None else [*run.updated, *(n for n in updated if n not in run.updated)]


def stage(
    run: RunState, by_channel: dict[str, list[Any]], live: Sequence[str] = ()
) -> list[tuple[str, BaseChannel[Any, Any, Any], Any]]:
    """The outcome of updating each written channel, and of writing nothing to those of `live`; no channel is changed."""
    channels = run.channels
    known = run.program.channels
    staged = []
    for name, values in by_channel.items():
        if name in known:
            channel = channels[name]
            staged.append((name, channel, channel.stage(values)))
        elif name not in CONTROL_WRITES:
            text = f"a write to {name!r} in step {run.step} is dropped, since there is no such channel; "
            run.notice("unknown-channel", name, text + nearest(name, run.program.state_keys))
    for name in live:
        if name not in by_channel:
            channel = channels[name]
            if channel.clears:
                staged.append((name, channel, MISSING))
            elif channel.is_available():
                staged.append((name, channel, channel.stage([])))
    return staged


def install(
    run: RunState,
    staged: list[tuple[str, BaseChannel[Any, Any, Any], Any]],
    version: Any,
    by_channel: Mapping[str, Sequence[Any]],
) -> list[str]:
    """Put staged outcomes in place; returns the channels that changed and have a value."""
    clearing = run.program.clearing
    versions = run.versions
    stores, changes = run.stores, run.changed
    updated: list[str] = []
    for name, channel, outcome in staged:
        changed = channel.install(outcome)
        if not channel.stages_in_place:
            channel = run.channels[name] = outcome[0]
        if changed:
            versions[name] = version
            if stores:
                if channel.has_edits:
                    run.mark(name, by_channel.get(name, ()))
                else:
                    changes[name] = None
        if channel.value is not MISSING if channel.plain_value else channel.is_available():  # type: ignore[attr-defined]
            if changed:
                updated.append(name)
            if name in clearing:
                run.live.append(name)
    return updated


def finish(run: RunState, version: Any, updated: list[str]) -> None:
    """Nothing would run next: release what waits for that moment (engine.md 2.8)."""
    for name in joins.released(run):
        channel = run.channels[name]
        if channel.finish():
            run.bump(name, version)
            if channel.is_available() and name not in updated:
                updated.append(name)


def _consume_copies(run: RunState, names: list[str]) -> dict[str, BaseChannel[Any, Any, Any]]:
    """Put used-up copies in the place of foreign channels, which are staged from what they are after that.

    Returns the channels that were replaced, by name.
    """
    spent: dict[str, BaseChannel[Any, Any, Any]] = {}
    for name in names:
        channel = run.channels[name]
        if not channel.stages_in_place:
            twin = channel.copy()
            if twin.consume():
                spent[name] = channel
                run.channels[name] = twin
    return spent


def _with_writers(run: RunState, error: InvalidUpdateError, tasks: Sequence[Task]) -> InvalidUpdateError:
    writers = [t.name for t in tasks if t.writes and any(channel == error.key for channel, _ in t.writes)]
    return _named(run, error, writers)


def _named(run: RunState, error: InvalidUpdateError, writers: Sequence[str]) -> InvalidUpdateError:
    """The same error with the writers and the step."""
    if error.key is None:
        return error
    names = ", ".join(f"'{name}'" for name in writers)
    got = [type(value).__name__ for task in run.tasks for channel, value in task.writes or () if channel == error.key]
    kinds = f": {', '.join(got)}" if got else ""
    if error.advice is not None:
        text = (
            f"At key '{error.key}': got {error.count} values in step {run.step} (from {names}{kinds}) but keeps only one; "
            f"{error.advice}"
        )
    else:
        text = f"{error.args[0]} (step {run.step}, written by {names})"
    return InvalidUpdateError(text, code=error.code, key=error.key, count=error.count, advice=error.advice)
