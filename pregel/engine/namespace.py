"""`checkpoint_ns`: the address of a nested run inside a thread. The only module that knows `|` and `:`.

Grammar: `"" | segment ("|" segment)*`, a segment is `name:task_id` (a nested run of that task), a bare name (a stable
namespace, `checkpointer=True`), or a decimal counter (the n-th nested run of the same task, n >= 1). A name may carry the
key that the caller gave: `name[key]:task_id`, `name[key]`; savers, which tell names from ids by `:` alone, see a name.
"""

from __future__ import annotations

from typing import Final

from pregel.constants import NS_END, NS_SEP

KEY_MARKS: Final = (NS_SEP, NS_END, "[", "]")
"""What a key may not contain."""


def task_ns(ns: str, name: str, task_id: str) -> str:
    """Namespace of a task of the graph at `ns`: where its first nested run lives."""
    return f"{ns}{NS_SEP}{name}{NS_END}{task_id}" if ns else f"{name}{NS_END}{task_id}"


def below(ns: str, segment: str) -> str:
    """The namespace of a segment inside the graph at `ns`."""
    return f"{ns}{NS_SEP}{segment}" if ns else segment


def nested_ns(task: str, call: int, key: str | None = None) -> str:
    """Namespace of the `call`-th nested run (from 0) of the task at `task`: of those without a key, or of those with it."""
    if key is not None:
        around, sep, own = task.rpartition(NS_SEP)
        name, colon, id_ = own.partition(NS_END)
        task = f"{around}{sep}{name}[{key}]{colon}{id_}"
    return f"{task}{NS_SEP}{call}" if call else task


def check_key(key: object) -> str:
    """The key of a nested run.

    Raises:
        ValueError: it is no text, or would not be one name in a namespace.
    """
    if not isinstance(key, str) or not key or any(mark in key for mark in KEY_MARKS):
        raise ValueError(
            f"key={key!r} of a nested run: expected a non-empty str without any of {' '.join(KEY_MARKS)}, since it becomes "
            f"a part of the run's namespace"
        )
    return key


def split_key(name: str) -> tuple[str, str | None]:
    """A name of a namespace as node name and key."""
    if not name.endswith("]"):
        return name, None
    node, _, key = name[:-1].rpartition("[")
    return (node, key) if node and key else (name, None)


def calls_of(ns: str) -> tuple[str, str]:
    """What all nested runs of one task have in common, and what tells this one from them: the last name without its key,
    and the key and counters. Of `around|name[key]:id|2`: `around|name:id` and `[key]|2`."""
    segments = ns.split(NS_SEP)
    last = len(segments) - 1
    while last > 0 and segments[last].isdecimal():
        last -= 1
    name, colon, id_ = segments[last].partition(NS_END)
    node, key = split_key(name)
    own = "" if key is None else f"[{key}]"
    common = NS_SEP.join([*segments[:last], f"{node}{colon}{id_}"])
    return common, NS_SEP.join([own, *segments[last + 1 :]])


def path_of(ns: str) -> tuple[str, ...]:
    """The segments, as streams show them; `()` for the root."""
    return tuple(ns.split(NS_SEP)) if ns else ()


def stable(ns: str) -> str:
    """The namespace without task ids; counters stay (engine.md 10, row 21)."""
    return NS_SEP.join(segment.partition(NS_END)[0] for segment in ns.split(NS_SEP))


def names_of(ns: str) -> tuple[str, ...]:
    """Names on the way to the graph at `ns`: no task ids, no counters; a key stays with its node."""
    return tuple(s.partition(NS_END)[0] for s in ns.split(NS_SEP) if s and not s.isdecimal())


def around(task: str) -> tuple[str, str]:
    """The namespace of the graph, and the name of the node, of the task at an address that `task_ns` made, or of a nested
    run of it."""
    segments = task.split(NS_SEP)
    while segments and segments[-1].isdecimal():
        segments.pop()
    name = segments.pop().partition(NS_END)[0] if segments else ""
    return NS_SEP.join(segments), split_key(name)[0]


def parent_ns(ns: str) -> str:
    """Namespace of the graph around the one at `ns` (amendments II.2, 6.1): drop trailing counters, the last named
    segment, then the counters that trail now stay, since they belong to the graph that is left."""
    segments = ns.split(NS_SEP)
    while segments and segments[-1].isdecimal():
        segments.pop()
    if segments:
        segments.pop()
    return NS_SEP.join(segments)
