"""`Hosting`: what running tasks may ask of their run, through their scope (`_scope.Host`).

They read channels, which do not change while tasks run, ask questions, emit chunks, and have the driver start tasks and
keep results. Any thread may call these, also several at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pregel import _langchain
from pregel._scope import TaskScope
from pregel.engine import namespace, origin, pause, plan, view
from pregel.engine.program import Write
from pregel.engine.state import RunState
from pregel.errors import EngineBug


class Hosting(RunState):
    """The part of a run that its tasks see."""

    __slots__ = ()

    def config_of(self, scope: TaskScope) -> Any:
        """The config of the scope's task."""
        return view.config(self, scope)

    def runtime_of(self, scope: TaskScope) -> Any:
        """The `Runtime` of the scope's task."""
        return self.request.runtime(self, scope)

    def ask(self, scope: TaskScope, value: Any, response_schema: Any, deadline: Any = None) -> Any:
        """The answer to the task's next question, or `GraphInterrupt`."""
        return pause.ask(self, scope, value, response_schema, deadline)

    def read(self, scope: TaskScope, select: str | list[str], writes: list[Write] | None) -> Any:
        """Channel values as the step began, or with the given writes applied to copies."""
        return view.read(self, select, writes)

    def custom(self, scope: TaskScope, value: Any) -> None:
        """A chunk of mode custom, to everybody who listens, each when he has room for it."""
        if "custom" in self.sees:
            chunk = namespace.path_of(self.ns), "custom", value
            for outlet in self.outlets:
                outlet.offer(chunk, scope.check)

    def say(self, scope: TaskScope, message: Any, about: dict[str, Any] | None, *, once: bool) -> None:
        """A chunk of mode messages that a running body shows, to everybody who listens, each when he has room for it."""
        if "messages" in self.sees:
            view.said(self, scope, message, about, once=once)

    def spawn(self, scope: TaskScope, node: Any, argument: Any) -> Any:
        """Start a child task of the scope's task; returns its future."""
        if _langchain.RUNNABLES in _langchain.modules:
            _langchain.lend_to(node)
        if self.spawner is None:
            raise EngineBug("the run has no driver that could start a task")
        return self.spawner(scope, node, argument)

    def copied(self, value: Any) -> Any:
        """The value with containers of its own, one level."""
        return plan.own_copy(self, value)

    def key_of(self, scope: TaskScope) -> str:
        """What names the logical task of a scope, whenever it runs again."""
        return origin.key_of(self, scope)

    def once(self, scope: TaskScope, key: str, call: Callable[[], Any]) -> Any:
        """The result of a call that is made once per logical task and key."""
        return self._driver(scope).once(scope, key, call)

    async def aonce(self, scope: TaskScope, key: str, call: Callable[[], Any]) -> Any:
        """Async form of `once`."""
        return await self._driver(scope).aonce(scope, key, call)

    def _driver(self, scope: TaskScope) -> Any:
        if self.keeper is None:
            scope.check()
            raise EngineBug(f"task {scope.task.name!r} records a result, but no driver runs it")
        return self.keeper

    def now(self) -> float:
        """Seconds that only go forward."""
        return self.request.monotonic()
