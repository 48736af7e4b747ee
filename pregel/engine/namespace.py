"""`checkpoint_ns`: the address of a nested run inside a thread. The only module that knows `|` and `:`.

Grammar: `"" | segment ("|" segment)*`, a segment is `name:task_id` (a nested run of that task), a bare name (a stable
namespace, `checkpointer=True`), or a decimal counter (the n-th nested run of the same task, n >= 1).
"""

from __future__ import annotations

from pregel.constants import NS_END, NS_SEP


def task_ns(ns: str, name: str, task_id: str) -> str:
    """Namespace of a task of the graph at `ns`: where its first nested run lives."""
    return f"{ns}{NS_SEP}{name}{NS_END}{task_id}" if ns else f"{name}{NS_END}{task_id}"


def nested_ns(task: str, call: int) -> str:
    """Namespace of the `call`-th nested run (from 0) of the task at `task`."""
    return f"{task}{NS_SEP}{call}" if call else task


def path_of(ns: str) -> tuple[str, ...]:
    """The segments, as streams show them; `()` for the root."""
    return tuple(ns.split(NS_SEP)) if ns else ()


def stable(ns: str) -> str:
    """The namespace without task ids; counters stay (engine.md 10, row 21)."""
    return NS_SEP.join(segment.partition(NS_END)[0] for segment in ns.split(NS_SEP))


def names_of(ns: str) -> tuple[str, ...]:
    """Node names on the way to the graph at `ns`: no task ids, no counters."""
    return tuple(s.partition(NS_END)[0] for s in ns.split(NS_SEP) if s and not s.isdecimal())


def around(task: str) -> tuple[str, str]:
    """The namespace of the graph, and the name of the node, of the task at an address that `task_ns` made, or of a nested
    run of it."""
    segments = task.split(NS_SEP)
    while segments and segments[-1].isdecimal():
        segments.pop()
    name = segments.pop().partition(NS_END)[0] if segments else ""
    return NS_SEP.join(segments), name


def parent_ns(ns: str) -> str:
    """Namespace of the graph around the one at `ns` (amendments II.2, 6.1): drop trailing counters, the last named
    segment, then the counters that trail now stay, since they belong to the graph that is left."""
    segments = ns.split(NS_SEP)
    while segments and segments[-1].isdecimal():
        segments.pop()
    if segments:
        segments.pop()
    return NS_SEP.join(segments)
