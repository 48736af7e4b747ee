"""What the outside sees of a run: stream chunks, output values, and the config of a task.

Projections of a run's facts, one function per fact; each emits to the modes that somebody listens to (engine.md 3.4, 3.6,
3.7). Changes nothing but the run's memory of the last values payload. Chunks leave here in one internal form,
`(namespace path, mode, payload)`; the public shapes are made where they are delivered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from checkpoint import ids
from pregel import _langchain
from pregel._scope import TaskScope
from pregel.constants import INTERRUPT, METADATA, MISSING, RETURN, SCOPE_KEY
from pregel.engine import namespace, report
from pregel.engine.program import Write
from pregel.engine.state import LATER, RunState
from pregel.engine.task import Task, digest, order
from pregel.errors import Interrupt
from pregel.messages import Message, coerced, give_id, message_id, messages_in

PROPAGATED = ("thread_id", "checkpoint_id", "checkpoint_ns", "task_id", "run_id", "assistant_id", "graph_id")
"""Configurable keys that are copied into metadata, unless metadata has them (engine.md 9.1)."""


class Asked:
    """A values payload of a run that asks: the values, and the questions that came up."""

    __slots__ = ("interrupts", "value")

    def __init__(self, value: Any, interrupts: tuple[Interrupt, ...]) -> None:
        self.value = value
        self.interrupts = interrupts


# ---- reading


def read(run: RunState, select: str | Sequence[str], writes: Sequence[Write] | None = None) -> Any:
    """Channel values as the step began, or with `writes` applied to copies. A name: the value or None. Names: a dict of
    the available ones, managed values included. Containers are copies."""
    if isinstance(select, str):
        return read(run, [select], writes).get(select)
    written: dict[str, list[Any]] = {}
    for target, item in writes or ():
        if target in select:
            written.setdefault(target, []).append(item)
    values: dict[str, Any] = {}
    channels, specs, copiers = run.channels, run.program.channels, run.copiers
    for name in select:
        if name not in specs:
            if name in run.program.managed:
                values[name] = run.program.managed[name].get(run.step, run.stop)
            continue
        channel = channels[name]
        if name in written:
            channel = channel.copy()
            channel.update(written[name])
        if channel.is_available():
            value = channel.get()
            copier = copiers.get(type(value))
            values[name] = value if copier is None else copier(value)
    return values


def outputs(run: RunState, writes: Sequence[Write] | None = None) -> Any:
    """The output values, as `invoke` returns them."""
    return read(run, run.request.output_keys, writes)


def state_values(run: RunState, writes: Sequence[Write] | None = None) -> Any:
    """All state values, as `get_state` returns them."""
    return read(run, run.program.stream_channels, writes)


def result(run: RunState) -> Any:
    """The last values payload of the run; None if there was none."""
    if run.emitted is LATER:
        return outputs(run)
    return None if run.emitted is MISSING else run.emitted


# ---- values


def values(run: RunState) -> None:
    """The output values as they are now."""
    run.emitted = outputs(run)
    if "values" in run.sees:
        run.emit("values", run.emitted)


def resumed(run: RunState) -> None:
    """A run that continues shows the values it starts from."""
    if "values" in run.sees:
        values(run)
    else:
        run.emitted = LATER


def interrupted(run: RunState) -> None:
    """The root run stops to ask: results of finished siblings are shown, although the step is not closed."""
    if run.request.parent_run is not None:
        return
    if not run.interrupts and "updates" in run.sees:
        run.emit("updates", {INTERRUPT: ()})
    finished = sorted((task for task in run.tasks if task.writes is not None), key=order)
    keys = run.request.output_keys
    written = [w for t in finished for w in t.writes or () if (w[0] == keys if isinstance(keys, str) else w[0] in keys)]
    if written:
        run.emitted = outputs(run, written)
        if "values" in run.sees:
            run.emit("values", run.emitted)


def stopped(run: RunState) -> None:
    """A static breakpoint of the root run: one empty interrupt chunk."""
    if run.request.parent_run is None and "updates" in run.sees:
        run.emit("updates", {INTERRUPT: ()})


# ---- tasks


def starts(run: RunState, tasks: Sequence[Task]) -> None:
    """Tasks are about to run."""
    if report.REPORTS in run.sees:
        report.starts(run, tasks)
    if "messages" in run.sees:
        _heard(run, tasks)
    if "tasks" not in run.sees and "debug" not in run.sees:
        return
    for task in tasks:
        if task.node.hidden:
            continue
        payload: dict[str, Any] = {
            "id": run.id_of(task),
            "name": task.name,
            "input": task.input,
            "triggers": task.triggers,
        }
        metadata = _user_metadata(run, task)
        if metadata:
            payload["metadata"] = metadata
        _task_event(run, "task", payload)


def reapplied(run: RunState, tasks: Sequence[Task]) -> None:
    """Tasks whose stored writes are used again."""
    if report.REPORTS in run.sees:
        for task in tasks:
            report.task_ends(run, task, "cached", output=written(task, run.program.state_keys))
    if "updates" in run.sees:
        for task in tasks:
            if not task.node.hidden:
                run.emit("updates", {**_update(run, task), METADATA: {"cached": True}})


def finished(run: RunState, task: Task) -> None:
    """A task finished. So may one whose step has failed meanwhile: what it brings is stored, and shown."""
    if task.node.hidden:
        return
    if report.REPORTS in run.sees:
        report.task_ends(run, task, "done", output=written(task, run.program.state_keys))
    meant = _spoken(run, task) if "messages" in run.sees else {}
    if "updates" in run.sees:
        run.emit("updates", _update(run, task))
    task_result(run, task)
    for at, value in meant.items():
        _rewrite(run, task, at, value)


def failed(run: RunState, task: Task) -> None:
    """A task failed, and will not be tried again."""
    if report.REPORTS in run.sees:
        report.task_ends(run, task, "failed", error=task.error)
    if not task.node.hidden:
        task_result(run, task)


def paused(run: RunState, task: Task) -> None:
    """A task asks."""
    if report.REPORTS in run.sees:
        report.task_ends(run, task, "interrupted")
    if task.interrupts:
        run.emitted = LATER
        if "updates" in run.sees:
            run.emit("updates", {INTERRUPT: task.interrupts})
        if "values" in run.sees:
            run.emit("values", Asked(outputs(run), task.interrupts))
    if not task.node.hidden:
        task_result(run, task)


def task_result(run: RunState, task: Task) -> None:
    """A task has ended, one way or another."""
    if "tasks" not in run.sees and "debug" not in run.sees:
        return
    payload = {
        "id": run.id_of(task),
        "name": task.name,
        "error": task.error,
        "result": written(task, run.program.state_keys) if task.error is None and not task.interrupts else {},
        "interrupts": [question.as_event() for question in task.interrupts],
    }
    _task_event(run, "task_result", payload)


def _task_event(run: RunState, kind: str, payload: dict[str, Any]) -> None:
    if "tasks" in run.sees:
        run.emit("tasks", payload)
    if "debug" in run.sees:
        run.emit("debug", _debug(run, kind, run.step, payload))


def _debug(run: RunState, kind: str, step: int, payload: dict[str, Any]) -> dict[str, Any]:
    stamp = ids.timestamp_from_us(int(run.request.clock() * 1_000_000))
    return {"step": step, "timestamp": stamp, "type": kind, "payload": payload}


def _update(run: RunState, task: Task) -> dict[str, Any]:
    """`{node: update}`: what the task wrote to output keys (engine.md 3.6)."""
    writes = task.writes or []
    for channel, value in writes:
        if channel == RETURN:
            return {task.name: value}
    keys = run.request.output_keys
    if isinstance(keys, str):
        own = [value for channel, value in writes if channel == keys]
        return {task.name: own[0] if len(own) == 1 else own or None}
    pairs = [(channel, value) for channel, value in writes if channel in keys]
    if not pairs:
        return {task.name: None}
    update = dict(pairs)
    return {task.name: update if len(update) == len(pairs) else [{channel: value} for channel, value in pairs]}


def written(task: Task, keys: Sequence[str]) -> dict[str, Any]:
    """Channel -> what the task wrote there; several writes to one channel as `{"$writes": [...]}`."""
    found: dict[str, list[Any]] = {}
    for channel, value in task.writes or ():
        if channel in keys or channel == RETURN:
            found.setdefault(channel, []).append(value)
    return {c: v[0] if len(v) == 1 else {"$writes": v} for c, v in found.items()}


# ---- messages


def _heard(run: RunState, tasks: Sequence[Task]) -> None:
    """What a node was given is no news when it returns it (frontends.md 4.3)."""
    given = [
        message_id(message) for task in tasks if not task.node.hidden for message in messages_in(_fields(task.input))
    ]
    path = namespace.path_of(run.ns)
    for outlet in run.outlets:
        if outlet.shows(path):
            outlet.spoken.update(given)


def _spoken(run: RunState, task: Task) -> dict[int, Any]:
    """The messages that a task returned, each once to every caller. One without an id gets one here, made of the task's,
    so that the chunk and the state agree, and a task that runs again says the same.

    Returns the writes that are to be replaced, by their place: texts, pairs and dicts cannot be given an id.
    """
    path = namespace.path_of(run.ns)
    number = 0
    replaced: dict[int, Any] = {}
    given: set[int] | None = None
    for at, (channel, value) in enumerate(task.writes or ()):
        meant = value
        if getattr(run.program.channels.get(channel), "takes_messages", False):
            current = run.channels[channel]
            meant = coerced(value, current.get() if current.is_available() else None)
            if meant is not value:
                replaced[at] = meant
        for message in messages_in([meant]):
            if type(message) is dict:  # in a channel that knows nothing of ids: it stays as it is
                if given is None:
                    given = set(map(id, messages_in(_fields(task.input))))
                if id(message) in given:
                    continue
                _show(run, task, path, Message(message))
                continue
            if message_id(message) is None:
                give_id(message, digest([run.id_of(task), "message", str(number)]))
            number += 1
            _show(run, task, path, message)
    return replaced


def _rewrite(run: RunState, task: Task, at: int, value: Any) -> None:
    """Put messages in the place of what stands for them: only so do the ids that are shown arrive in the state. Chunks of
    other modes have what the task wrote, whatever else is listened to."""
    writes = task.writes
    assert writes is not None
    before = writes[at]
    writes[at] = now = before[0], value
    for row in reversed(run.held):
        if row.writes is not writes and any(write is before for write in row.writes):
            row.writes = [now if write is before else write for write in row.writes]
            break


def _show(run: RunState, task: Task, path: tuple[str, ...], message: Any) -> None:
    identity = message_id(message)
    for outlet in run.outlets:
        if outlet.shows(path) and (identity is None or identity not in outlet.spoken):
            if identity is not None:
                outlet.spoken.add(identity)
            outlet.append((path, "messages", (message, metadata(run, task))))


def said(run: RunState, scope: TaskScope, message: Any, about: dict[str, Any] | None, *, once: bool) -> None:
    """A message, or a piece of one, that a running body shows; from any thread."""
    path = namespace.path_of(run.ns)
    identity = message_id(message)
    for outlet in run.outlets:
        if "messages" not in outlet.modes or not outlet.shows(path) or (once and identity in outlet.spoken):
            continue
        if about is None:
            about = metadata(run, scope.task)
        if identity is not None:
            outlet.spoken.add(identity)
        outlet.offer((path, "messages", (message, about)), scope.check)


def _fields(given: Any) -> Iterable[Any]:
    """The top-level values of a task's input: of a dict, a model, a dataclass; anything else is one value."""
    if isinstance(given, dict) and not isinstance(given, Message):
        return given.values()
    if is_dataclass(given) and not isinstance(given, type):
        return [getattr(given, field.name) for field in fields(given)]
    return vars(given).values() if hasattr(given, "model_fields_set") and not messages_in([given]) else [given]


# ---- checkpoints


def checkpoint(run: RunState) -> None:
    """The checkpoint that the step which was just planned starts from."""
    if report.REPORTS in run.sees:
        report.checkpoint(run)
    if "checkpoints" not in run.sees and "debug" not in run.sees:
        return
    # A handler that is due because of an earlier run is no task of the plan; its node is shown in its place.
    tasks = [task for task in run.tasks if task.parent is None]
    payload = {
        "config": {"configurable": _address(run, run.checkpoint_id)},
        "parent_config": {"configurable": _address(run, _parent_id(run))} if _parent_id(run) else None,
        "values": state_values(run),
        "metadata": {
            **run.request.stored_metadata,
            "source": run.source,
            "step": run.made_step,
            "parents": run.parents(),
        },
        "next": [task.name for task in tasks],
        "tasks": [_checkpoint_task(run, task) for task in tasks],
    }
    if "checkpoints" in run.sees:
        run.emit("checkpoints", payload)
    if "debug" in run.sees:
        run.emit("debug", _debug(run, "checkpoint", run.made_step, payload))


def _parent_id(run: RunState) -> str | None:
    """Parent of the current checkpoint; with durability `exit` the one that will be stored (D52)."""
    if not run.request.deferred or run.base is None or run.base[0] == run.rev:
        return run.parent_id
    return run.base[1]


def _address(run: RunState, checkpoint_id: str | None) -> dict[str, Any]:
    """The configurable of a config that addresses a checkpoint of this run; the user's own keys are kept."""
    request = run.request
    address = {key: value for key, value in request.configurable.items() if not key.startswith("__pregel")}
    address.pop("checkpoint_map", None)
    address.update(checkpoint_ns=run.ns, checkpoint_id=checkpoint_id)
    if request.thread_id is not None:
        address["thread_id"] = request.thread_id
    parents = run.parents()
    if parents:
        address["checkpoint_map"] = {**parents, run.ns: checkpoint_id}
    return address


def resuming(run: RunState) -> dict[str, Any] | None:
    """A config with which the outermost run around this one can be continued; None if nothing of it is stored."""
    root = run.root
    if not root.stores:
        return None
    configurable = {key: value for key, value in root.request.configurable.items() if not key.startswith("__pregel")}
    configurable["thread_id"] = root.request.thread_id
    if root.claim is not None and root.claim.lane:
        # The thread's newest checkpoint is another run's.
        configurable.update(checkpoint_ns="", checkpoint_id=root.checkpoint_id)
    return {"configurable": configurable}


def _checkpoint_task(run: RunState, task: Task) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": run.id_of(task), "name": task.name}
    if task.error is not None:
        entry["error"] = task.error
    else:
        if task.writes is not None:
            entry["result"] = bare_result(run, task)
        entry["interrupts"] = tuple(question.as_event() for question in task.interrupts)
    entry["state"] = nested_config(run, task)
    return entry


def bare_result(run: RunState, task: Task) -> Any:
    """What a snapshot shows as the result of a finished task: a dict, or the bare value of a single state channel."""
    keys = run.program.state_keys
    found = written(task, keys)
    if RETURN in found:
        return found[RETURN]
    if isinstance(run.program.stream_channels, str):
        return found.get(run.program.stream_channels)
    return found


def nested_config(run: RunState, task: Task) -> dict[str, Any] | None:
    """Where the nested graph of a task keeps its state; None if the node has none that keeps any. A graph that keeps one
    state for all its runs is asked for under the same address: whoever reads it drops the task ids."""
    if all(graph.checkpointer is False for graph in task.node.subgraphs):
        return None
    return {"configurable": {"thread_id": run.request.thread_id, "checkpoint_ns": run.ns_of(task)}}


# ---- the config of a task


def config(run: RunState, scope: TaskScope) -> dict[str, Any]:
    """The config that a node sees (frontends.md 2.8): the caller's, addressed to the task, with the handle of D34."""
    task: Task = scope.task
    request = run.request
    given = request.config
    configurable = dict(request.configurable)
    configurable.update(
        {
            SCOPE_KEY: scope,
            "checkpoint_ns": run.ns_of(task),
            "checkpoint_id": None,
            "checkpoint_map": {**run.parents(), run.ns: run.checkpoint_id},
        }
    )
    made: dict[str, Any] = {
        "tags": [*(given.get("tags") or ()), *(task.node.tags or ())],
        "metadata": metadata(run, task),
        "callbacks": given.get("callbacks"),
        "configurable": configurable,
    }
    if _langchain.RUNNABLES in _langchain.modules:
        made["callbacks"] = _langchain.manager_for(scope, made["callbacks"], made, hears="messages" in run.sees)
    for key in ("recursion_limit", "max_concurrency"):
        if key in given:
            made[key] = given[key]
    return made


def metadata(run: RunState, task: Task) -> dict[str, Any]:
    """The metadata of a task: the run's, where it is, and the node's own."""
    request = run.request
    found = dict(request.config.get("metadata") or {})
    for key in PROPAGATED:
        if key in request.configurable and key not in found and request.configurable[key] is not None:
            found[key] = request.configurable[key]
    if request.parent is not None:
        found.setdefault("checkpoint_ns", run.ns)
    found.update(
        langgraph_step=run.step,
        langgraph_node=task.name,
        langgraph_triggers=task.triggers,
        langgraph_path=task.path,
        langgraph_checkpoint_ns=run.ns_of(task),
    )
    found.update(task.node.metadata or {})
    return found


def _user_metadata(run: RunState, task: Task) -> dict[str, Any]:
    """Metadata of a `tasks` event: without what the engine adds."""
    found = {
        key: value
        for key, value in {**(run.request.config.get("metadata") or {}), **(task.node.metadata or {})}.items()
        if not key.startswith(("langgraph_", "checkpoint_")) and key != "thread_id"
    }
    tags = [*(run.request.config.get("tags") or ()), *(task.node.tags or ())]
    if tags:
        found["tags"] = tags
    return found
