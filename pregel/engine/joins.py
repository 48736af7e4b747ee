"""Edges with several sources, at the two moments at which they need more than a channel.

Decides which of the channels that wait for the end are released when nothing else would run (engine.md 2.8; an inclusive
join goes on with those that arrived), and which joins a run that is over has left half full (promise 53). Called at most
once per superstep that wakes nobody, so a step that does pays nothing. Knows channels and versions, no edges: what
follows what was worked out when the graph was compiled (`InclusiveBarrierValue.after`).

Invariants
1. As long as a channel waits, something is released: `after` has no cycles.
2. A run that stopped for any other reason than having nothing to do has left nothing half full: it goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pregel.engine.state import RunState

HALF_JOIN: Final = "half-join"


def released(run: RunState) -> Sequence[str]:
    """The channels to release now that nothing else would run.

    First the inclusive joins that nothing released later could still fill up, then deferred nodes.
    """
    program = run.program
    if not program.inclusive:
        return program.finishing
    first = [
        name
        for name, after in program.inclusive.items()
        if _is_held(run, name) and not any(_is_held(run, other) for other in after)
    ]
    return first or [name for name in program.finishing if name not in program.inclusive]


def _is_held(run: RunState, name: str) -> bool:
    """Would the channel come free if it were released? Asked of a copy."""
    return run.channels[name].copy().finish()


def report(run: RunState, names: Iterable[str]) -> None:
    """The run has nothing more to do: note those of these joins that still wait for sources.

    Not if the join went on earlier in this run: then the rest is the beginning of a round that a loop did not need.
    """
    request = run.request
    # A nested run without a namespace of its own for good starts from nothing next time.
    goes_on = run.stores and (request.parent_run is None or request.stable_ns)
    kept = "; with the checkpointer, what arrived counts in the next run" if goes_on else ""
    for name in names:
        channel = run.channels[name]
        awaited, seen = channel.names, channel.seen  # type: ignore[attr-defined]
        if not seen or seen == awaited or channel.fired:  # type: ignore[attr-defined]
            continue
        target = run.program.wakes[name][0]
        missing = ", ".join(map(repr, sorted(awaited - seen)))
        run.notice(
            HALF_JOIN,
            name,
            f"the edge from {sorted(awaited)!r} to {target!r} did not run {target!r}: {', '.join(map(repr, sorted(seen)))} "
            f"arrived, {missing} did not run{kept}; add_edge([...], {target!r}, inclusive=True) goes on with those that "
            f"arrived, inclusive=False says that this is meant",
        )
