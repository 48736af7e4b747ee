"""Which nodes run next, and with what input.

Decides the tasks of a superstep and their order (sends by index, then woken nodes alphabetically), and reads their inputs
from the channels. Changes nothing. Cost: the channels updated by the last step, the nodes they wake, and the
containers those nodes read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pregel.constants import END, MISSING, TASKS
from pregel.engine.program import Node, Program
from pregel.engine.state import RunState
from pregel.engine.task import Task
from pregel.errors import EmptyChannelError, nearest, shown
from pregel.types import Send


def next_tasks(run: RunState) -> list[Task]:
    """The tasks of the next superstep."""
    updated = run.updated
    nodes = run.program.nodes
    names: Iterable[str]
    is_sure = False
    if updated:
        # What the last barrier of this very run gave a value and a new version, no node can have seen.
        is_sure = run.is_fresh
        wakes = run.program.wakes
        woken: list[str] = []
        for channel in updated:
            if channel in wakes:
                woken += wakes[channel]
        names = woken if len(woken) < 2 else sorted(set(woken))
        tasks = sends(run) if TASKS in updated else []
    elif updated is None:
        if not run.versions:
            return []
        names = nodes
        tasks = sends(run)
    else:
        # Nothing changed, so only nodes that were due before and could not read their input may run now.
        names = run.starved
        tasks = []
    for name in names:
        node = nodes[name]
        if is_sure or is_due(run, node):
            value = read_input(run, node)
            if value is not MISSING:
                tasks.append(Task(node, value))
            elif name not in run.starved:
                run.starved.append(name)
    return tasks


def is_due(run: RunState, node: Node) -> bool:
    """Has one of the node's triggers a value that the node has not seen?"""
    if node.is_inert:
        return False
    seen = run.seen.get(node.name)
    versions = run.versions
    for trigger in node.triggers:
        version = versions.get(trigger)
        if version is None or (seen is not None and trigger in seen and not version > seen[trigger]):  # type: ignore[operator]
            continue
        channel = run.channels[trigger]
        if channel.value is not MISSING if channel.plain_value else channel.is_available():  # type: ignore[attr-defined]
            return True
    return False


def open_tasks(run: RunState) -> list[Task]:
    """The tasks of the open step as a snapshot lists them: sends, then nodes in definition order, without inputs."""
    if not run.versions:
        return []
    nodes = run.program.nodes.values()
    return [*sends(run), *(Task(node, None) for node in nodes if is_due(run, node))]


def sends(run: RunState) -> list[Task]:
    """A task for each pending `Send`, in the order of the packets. The argument is passed as it is, one level copied."""
    channel = run.channels[TASKS]
    if not channel.is_available():
        return []
    tasks: list[Task] = []
    for index, packet in enumerate(channel.get()):
        if not isinstance(packet, Send):
            run.notice("invalid-send", TASKS, f"a pending send is {shown(packet)}, not a Send; it is skipped")
            continue
        node = run.program.nodes.get(packet.node) or run.program.former(packet.node)
        if node is None:
            run.notice("unknown-send", packet.node, unknown_target(run.program, packet))
            continue
        task = Task(node, own_copy(run, packet.arg), index)
        if packet.timeout is not None:
            task.timeout = packet.timeout
        tasks.append(task)
    return tasks


def unknown_target(program: Program, packet: Send) -> str:
    """Why a Send starts nothing."""
    if packet.node == END:
        return "a Send to END is skipped; route to END by name instead"
    return (
        f"a Send to {packet.node!r}, which is not a node of this graph, is skipped; "
        f"{nearest(packet.node, program.nodes)}"
    )


def own_copy(run: RunState, value: Any) -> Any:
    """The value with containers of the task's own: itself and its direct values, one level (D40)."""
    copiers = run.copiers
    copier = copiers.get(type(value))
    if copier is None:
        return value
    copied = copier(value)
    if type(copied) is dict:
        for key, item in copied.items():
            inner = copiers.get(type(item))
            if inner is not None:
                copied[key] = inner(item)
    return copied


def read_input(run: RunState, node: Node) -> Any:
    """The input of a node, read from the channels, with containers of its own; MISSING if it cannot be built.

    Raises:
        Exception: what the node's mapper raises, with a note that names the node.
    """
    copiers = run.copiers
    channels = run.channels
    if node.single is not None:
        if node.single not in run.program.channels:
            return MISSING
        try:
            value = channels[node.single].get()
        except EmptyChannelError:
            return MISSING
        copier = copiers.get(type(value))
        if copier is not None:
            value = copier(value)
    elif node.plain:
        value = {}
        for name in node.reads:
            item = channels[name].value  # type: ignore[attr-defined]
            if item is not MISSING:
                copier = copiers.get(type(item))
                value[name] = item if copier is None else copier(item)
    else:
        value = _read_mixed(run, node)
    if node.mapper is None:
        return value
    try:
        return node.mapper(value)
    except Exception as error:
        path = Task(node, None).path
        error.add_note(f"Before task with name '{node.name}' and path '{path}'")
        raise


def _read_mixed(run: RunState, node: Node) -> dict[str, Any]:
    """A dict input that has managed values or channels with a reading of their own."""
    values: dict[str, Any] = {}
    for name in node.reads:
        if name in run.program.channels:
            channel = run.channels[name]
            if channel.is_available():
                item = channel.get()
                copier = run.copiers.get(type(item))
                values[name] = item if copier is None else copier(item)
        elif name in run.program.managed:
            values[name] = run.program.managed[name].get(run.step, run.stop)
    return values
