"""Where nested runs keep their state, and which compiled graph each stored namespace belongs to (engine.md 6.1, 6.5).

Decides from names alone which graphs may live at a namespace, picks among several by what is stored, and orders the nested
runs of one task. What it needs to know of the store it asks for, step by step (`Looked`); it never calls a saver itself
but in `ask` and `aask`, which put the questions. Knows nothing of runs.

A node's code may call several graphs, any number of times. A stored namespace says which node, which task and the
how-manieth call it was, but not which graph: that is told by the channels and nodes that its checkpoint names.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Sequence
from typing import Any, TypeVar

from checkpoint.base import LoadedCheckpoint, RunnableConfig
from pregel.constants import INPUT, INTERRUPT
from pregel.engine import namespace, redeploy
from pregel.engine.origin import is_edit

T = TypeVar("T")


def graphs_at(root: Any, ns: str) -> list[Any]:
    """Compiled graphs that may keep their state at a namespace of a root graph's thread, each once; [] if none may."""
    found = [root]
    for name in namespace.names_of(ns):
        found = [inner for graph in found for inner in _graphs_in(graph, name)]
    return list({id(graph): graph for graph in found}.values())


def _graphs_in(graph: Any, name: str) -> list[Any]:
    node = _node_of(graph, name)
    return [] if node is None else keepers(node)


def _node_of(graph: Any, name: str) -> Any:
    """The node that a name in a namespace means, which may be a former name, or have a key."""
    nodes, current = graph.nodes, graph.program.current
    for one in (name, namespace.split_key(name)[0]):
        if one in nodes or one in current:
            return nodes[current.get(one, one)]
    return None


def stable_places(root: Any, ns: str) -> list[str]:
    """A namespace without its task ids, under every name that the nodes on the way to it have had; as it is given first."""
    found = [namespace.stable(ns)]
    graphs, around = [root], [""]
    for segment in namespace.path_of(found[0]):
        if segment.isdecimal():
            around = [namespace.below(one, segment) for one in around]
            continue
        is_name = any(segment in graph.nodes or segment in graph.program.current for graph in graphs)
        name, key = (segment, None) if is_name else namespace.split_key(segment)
        nodes = [node for graph in graphs if (node := _node_of(graph, segment)) is not None]
        names = dict.fromkeys(
            [
                name,
                *(one for graph in graphs for one in _all_names(graph, name)),
                *(a for n in nodes for a in n.aliases),
            ]
        )
        around = [namespace.nested_ns(namespace.below(one, other), 0, key) for one in around for other in names]
        graphs = [inner for node in nodes for inner in keepers(node)]
    return list(dict.fromkeys([*found, *around]))


def _all_names(graph: Any, name: str) -> list[str]:
    current = graph.program.current.get(name)
    return [] if current is None else [current]


def keepers(node: Any) -> list[Any]:
    """Compiled graphs of a node that keep a state when they run."""
    return [graph for graph in node.subgraphs if graph.checkpointer is not False]


def is_stateful(graphs: Sequence[Any]) -> bool:
    """Do all of them keep one state for all their runs (`checkpointer=True`)?"""
    return all(graph.checkpointer is True for graph in graphs)


def owner(graphs: Sequence[Any], loaded: LoadedCheckpoint) -> Any:
    """Which of the graphs stored this; the first if that cannot be told."""
    if len(graphs) == 1 or loaded.checkpoint_id is None:
        return graphs[0]
    channels = loaded.versions.keys()
    nodes = loaded.seen.keys() - {INPUT, INTERRUPT}
    stateful = ":" not in loaded.checkpoint_ns
    fitting = [g for g in graphs if channels <= g.channels.keys() and nodes <= g.nodes.keys()]
    if not fitting:
        fitting = [g for g in graphs if redeploy.knows(g.program, loaded)]
    return next((g for g in fitting if (g.checkpointer is True) is stateful), next(iter(fitting), graphs[0]))


def calls_in_order(task_ns: Collection[str], stored: Iterable[str]) -> list[str]:
    """Those of the stored namespaces where nested runs of one task live: in call order, then those with a key, by key.

    `task_ns`: of its first nested run, as it may be stored: with task ids; without, for graphs with one state for all runs.
    """
    found = []
    for ns in set(stored):
        common, own = namespace.calls_of(ns)
        if common in task_ns:
            key, _, number = own.partition("|")
            found.append((key, int(number or 0), ns))
    return [ns for _, _, ns in sorted(found)]


def same_call(names: Iterable[str], ns: str) -> list[str]:
    """Of names that a task may have, the namespaces of the nested run that `ns` is of the task."""
    key, _, number = namespace.calls_of(ns)[1].partition("|")
    return [namespace.nested_ns(name, int(number or 0), key[1:-1] or None) for name in names]


Looked = Generator[tuple[str, tuple[Any, ...], dict[str, Any]], Any, T]
"""Something that asks a saver, one question at a time: yields method, arguments and keywords, is sent the reply (of
`history`: a list). So it is written once for both colours."""


def edit_after(config: RunnableConfig, found: LoadedCheckpoint, root_rev: int) -> Looked[str | None]:
    """Id of the newest edit of a stable namespace that follows on what was found there; None if there is none.

    A namespace without task ids goes on where its last run ended, as the graph around it knows (D25). An edit between two
    runs, by `update_state` or by the saver's `fork`, is known to nobody around it: it says itself after which checkpoint of
    the root graph it was made. `root_rev`: of the checkpoint that the root run starts from.
    """
    newest: LoadedCheckpoint = yield "load", (config,), {}
    if not is_edit(newest) or newest.up_rev not in (None, root_rev):
        return None
    edit = newest
    while edit.parent_id != found.checkpoint_id:
        if not is_edit(edit) or edit.parent_id is None:
            return None
        configurable: dict[str, Any] = {**config["configurable"], "checkpoint_id": edit.parent_id}
        edit = yield "load", ({"configurable": configurable},), {}
    return newest.checkpoint_id if is_edit(edit) else None


def ask(saver: Any, looked: Looked[T]) -> T:
    """Put the questions to a saver."""
    reply: Any = None
    while True:
        try:
            name, arguments, keywords = looked.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result
        reply = getattr(saver, name)(*arguments, **keywords)
        if name == "history":
            reply = list(reply)


async def aask(saver: Any, looked: Looked[T]) -> T:
    """Async form of `ask`."""
    reply: Any = None
    while True:
        try:
            name, arguments, keywords = looked.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result
        if name == "history":
            reply = [entry async for entry in saver.ahistory(*arguments, **keywords)]
        else:
            reply = await getattr(saver, "a" + name)(*arguments, **keywords)
