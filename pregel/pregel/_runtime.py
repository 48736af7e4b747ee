"""The `Runtime` of a task: what a node finds around it, from what was asked of its run.

Decides what a field holds where nobody gave a value (frontends.md 2). Knows no driver or saver.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pregel._scope import TaskScope
from pregel.constants import PREVIOUS
from pregel.engine import plan
from pregel.engine.state import RunState
from pregel.errors import EmptyChannelError
from pregel.runtime import ExecutionInfo, Runtime, ServerInfo, no_write


def runtime_of(run: RunState, scope: TaskScope) -> Runtime[Any]:
    """The `Runtime` of a task."""
    request = run.request
    task: Any = scope.task
    task.first_attempt_at = task.first_attempt_at or request.clock()
    previous = None
    if PREVIOUS in run.program.channels:
        try:
            previous = plan.own_copy(run, run.channels[PREVIOUS].get())
        except EmptyChannelError:
            previous = None
    elif task.parent is not None and task.parent.scope is not None:
        previous = task.parent.scope.runtime.previous
    return Runtime(
        context=request.context,
        store=request.store,
        stream_writer=scope.emit if "custom" in run.sees else no_write,
        heartbeat=scope.beat,
        previous=previous,
        execution_info=ExecutionInfo(
            checkpoint_id=run.checkpoint_id,
            checkpoint_ns=run.ns_of(task),
            task_id=run.id_of(task),
            thread_id=request.thread_id,
            run_id=request.run_id,
            node_attempt=scope.attempt,
            node_first_attempt_time=task.first_attempt_at,
        ),
        server_info=_server_info(request.configurable),
        control=request.control,
        task_scope=scope,
        over=scope.is_over,
    )


def _server_info(configurable: Mapping[str, Any]) -> ServerInfo | None:
    user = configurable.get("langgraph_auth_user")
    user = user if hasattr(user, "identity") else None
    assistant, graph = configurable.get("assistant_id"), configurable.get("graph_id")
    if user is None and assistant is None and graph is None:
        return None
    return ServerInfo(str(assistant or ""), str(graph or ""), user)
