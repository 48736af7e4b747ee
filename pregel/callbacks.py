"""Callbacks: what a program is told of its runs while they go on.

A handler is given in `config["callbacks"]` (a list, a single handler, or a manager object with `handlers`) and hears of the
run, its supersteps, tasks, checkpoints and questions, and of every run that is nested in it. Handlers of other classes in
the same list are left alone: they travel in the config to whoever knows them.

Decides which handlers there are, what an event looks like, and what becomes of a handler that fails. Knows no run and no
driver: those report to an `Observer`, in the order in which things happened, where user code may be called: on the
driver's thread or event loop, a nested run's on the thread that drives it. Loaded only by who uses it: a run whose config
has no handler of this module costs nothing.

`GraphCallbackHandler.on_interrupt`, `on_resume` and their events are LangGraph's; the others are our own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from inspect import isawaitable
from threading import Thread
from typing import Any, Final, Literal, TypeAlias
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

from pregel.errors import Interrupt
from pregel.types import TracePolicy

__all__ = [
    "CheckpointEvent",
    "GraphCallbackHandler",
    "GraphInterruptEvent",
    "GraphLifecycleEvent",
    "GraphLifecycleStatus",
    "GraphResumeEvent",
    "RunEvent",
    "SuperstepEvent",
    "TaskEvent",
]

log = logging.getLogger(__name__)

GraphLifecycleStatus: TypeAlias = Literal[
    "input", "pending", "done", "interrupt_before", "interrupt_after", "out_of_steps"
]
NO_METADATA: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True)
class GraphInterruptEvent:
    """The root run stops: to ask (`status` "pending", with the questions), or at a breakpoint (its kind, no questions)."""

    run_id: UUID | None
    status: GraphLifecycleStatus
    checkpoint_id: str
    checkpoint_ns: tuple[str, ...]
    interrupts: tuple[Interrupt, ...]


@dataclass(frozen=True)
class GraphResumeEvent:
    """A run goes on from a stored checkpoint, which is named."""

    run_id: UUID | None
    status: GraphLifecycleStatus
    checkpoint_id: str
    checkpoint_ns: tuple[str, ...]


GraphLifecycleEvent: TypeAlias = GraphInterruptEvent | GraphResumeEvent


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """A run begins or has ended.

    `checkpoint_ns` is () for a root run. A nested run has a `run_id` of its own, the one of the run around it as
    `parent_run_id`, and the task it is nested in as `parent_task_id`. `at`: Unix seconds.
    """

    run_id: UUID
    parent_run_id: UUID | None = None
    parent_task_id: str | None = None
    checkpoint_ns: tuple[str, ...]
    at: float
    name: str
    """The config's `run_name`, else the graph's name."""
    thread_id: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    input: Any = None
    """At the start: what the run was called with."""
    output: Any = None
    """At the end: the output values."""
    status: str | None = None
    """At the end: "done", "interrupted", "interrupt_before", "interrupt_after", "drained", "abandoned" (whoever read its
    stream has left) or "failed"."""
    interrupts: tuple[Interrupt, ...] = ()
    error: BaseException | None = None


@dataclass(frozen=True, kw_only=True)
class SuperstepEvent:
    """A superstep begins, or has ended with `status` "done" or as its run did."""

    run_id: UUID
    checkpoint_ns: tuple[str, ...]
    at: float
    step: int
    tasks: tuple[str, ...] = ()
    """At the start: names of the tasks, in planned order."""
    status: str | None = None


@dataclass(frozen=True, kw_only=True)
class TaskEvent:
    """A task begins, is to be tried again, or has ended. `checkpoint_ns` is its run's."""

    run_id: UUID
    checkpoint_ns: tuple[str, ...]
    at: float
    step: int
    task_id: str
    name: str
    """The node's, or that of the function which was called as a task."""
    parent_task_id: str | None = None
    """The task that called this one, or whose failure this one handles."""
    attempt: int = 1
    """1, 2, ...; at the end the last one."""
    input: Any = None
    output: Any = None
    """At the end: state key -> what was written."""
    triggers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    status: str | None = None
    """At the end: "done", "cached" (a cache had its result), "interrupted" (it asks), "left" (by a `Command` for the graph
    around), "failed", or "abandoned": nobody waits for it any more."""
    interrupts: tuple[Interrupt, ...] = ()
    error: BaseException | None = None
    retry_after: float | None = None
    """Of an attempt that failed: seconds until the next one."""
    trace_policy: TracePolicy | None = field(default=None, repr=False)

    def recorded_input(self) -> Any:
        """The input as the node's trace policy wants it to be recorded."""
        return self._recorded("process_inputs", self.input)

    def recorded_output(self) -> Any:
        """The output as the node's trace policy wants it to be recorded."""
        return self._recorded("process_outputs", self.output)

    def _recorded(self, name: str, value: Any) -> Any:
        process = getattr(self.trace_policy, name, None)
        if process is None:
            return value
        try:
            return process(value)
        except Exception as error:  # noqa: BLE001 - observing never changes what is observed
            log.warning("trace policy of node %r: %s raised %r; the value is recorded as it is", self.name, name, error)
            return value


@dataclass(frozen=True, kw_only=True)
class CheckpointEvent:
    """A checkpoint was made. With `durability` "sync" it is stored, with "async" on its way, with "exit" it is stored if
    it is the run's last."""

    run_id: UUID
    checkpoint_ns: tuple[str, ...]
    at: float
    checkpoint_id: str
    parent_checkpoint_id: str | None
    step: int
    source: str
    next: tuple[str, ...]
    """The tasks that come next."""
    durability: str


class GraphCallbackHandler:
    """Hears of runs. Override what you need, as plain or async methods.

    Async methods are awaited before an async run goes on; a sync run waits for them on an event loop of their own. One
    handler may be called from several threads at once, since nested runs go on side by side.

    What begins is told to end, exactly once: tasks before their superstep, the superstep before the run. A handler that
    raises is logged, and the run goes on; with `raise_error = True` the caller gets the exception. Also used as a handler
    of langchain: its events are received by who overrides them, and ignored otherwise.
    """

    raise_error: bool = False
    run_inline: bool = False

    def on_run_start(self, event: RunEvent) -> Any:
        """A run takes its input. `event.input` is set."""

    def on_run_end(self, event: RunEvent) -> Any:
        """A run has ended without an error, or paused (see `event.status`). All of it is stored."""

    def on_run_error(self, event: RunEvent) -> Any:
        """A run has ended with `event.error`, which the caller gets. What was finished is stored."""

    def on_superstep_start(self, event: SuperstepEvent) -> Any:
        """The tasks of a superstep are known, and about to start."""

    def on_superstep_end(self, event: SuperstepEvent) -> Any:
        """They have ended, and what they wrote is applied, unless `event.status` says otherwise."""

    def on_task_start(self, event: TaskEvent) -> Any:
        """A task is about to start, or waits until `max_concurrency` lets it."""

    def on_task_retry(self, event: TaskEvent) -> Any:
        """An attempt has failed with `event.error`; the next begins after `event.retry_after` seconds."""

    def on_task_end(self, event: TaskEvent) -> Any:
        """A task has ended; `event.status` tells how. Told at the latest before the next superstep starts."""

    def on_task_error(self, event: TaskEvent) -> Any:
        """A task has failed for good; a node that handles the failure starts next."""

    def on_checkpoint(self, event: CheckpointEvent) -> Any:
        """A checkpoint was made by this run."""

    def on_interrupt(self, event: GraphInterruptEvent) -> Any:
        """The root run stops to ask, or at a breakpoint; everything is stored, so it may be resumed from here on."""

    def on_resume(self, event: GraphResumeEvent) -> Any:
        """A run, root or nested, goes on from a stored checkpoint; told before any task starts."""

    def enter_task(self, event: TaskEvent) -> None:
        """An attempt begins, on the thread and in the context of the body: what is set in context variables here is seen
        by the node and by everything that it calls. Not awaited."""

    @property
    def ignore_llm(self) -> bool:
        """Asked by langchain: does it want to hear of model calls?"""
        return self._lacks("on_llm_start", "on_llm_new_token", "on_llm_end", "on_llm_error")

    @property
    def ignore_chat_model(self) -> bool:
        """Asked by langchain: of chat model calls?"""
        return self._lacks("on_chat_model_start", "on_llm_start")

    @property
    def ignore_chain(self) -> bool:
        """Asked by langchain: of chains?"""
        return self._lacks("on_chain_start", "on_chain_end", "on_chain_error")

    @property
    def ignore_agent(self) -> bool:
        """Asked by langchain: of tools and agents?"""
        return self._lacks("on_agent_action", "on_agent_finish", "on_tool_start", "on_tool_end", "on_tool_error")

    @property
    def ignore_retriever(self) -> bool:
        """Asked by langchain: of retrievers?"""
        return self._lacks("on_retriever_start", "on_retriever_end", "on_retriever_error")

    @property
    def ignore_retry(self) -> bool:
        """Asked by langchain: of its retries?"""
        return self._lacks("on_retry")

    @property
    def ignore_custom_event(self) -> bool:
        """Asked by langchain: of its custom events?"""
        return self._lacks("on_custom_event")

    def _lacks(self, *names: str) -> bool:
        return not any(hasattr(type(self), name) for name in names)

    def __getattr__(self, name: str) -> Any:
        if name == "on_chat_model_start":  # langchain goes on to `on_llm_start` then
            return _not_here
        if name.startswith(_FOREIGN):
            return _nothing
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)


_FOREIGN: Final = (
    "on_llm_",
    "on_chain_",
    "on_tool_",
    "on_agent_",
    "on_retriever_",
    "on_text",
    "on_retry",
    "on_custom_",
)


def _nothing(*args: object, **kwargs: object) -> None:
    """An event of langchain that nobody asked for."""


def _not_here(*args: object, **kwargs: object) -> None:
    raise NotImplementedError


EVENTS: Final[dict[str, type]] = {
    "on_run_start": RunEvent,
    "on_run_end": RunEvent,
    "on_run_error": RunEvent,
    "on_superstep_start": SuperstepEvent,
    "on_superstep_end": SuperstepEvent,
    "on_task_start": TaskEvent,
    "on_task_retry": TaskEvent,
    "on_task_end": TaskEvent,
    "on_task_error": TaskEvent,
    "on_checkpoint": CheckpointEvent,
    "on_interrupt": GraphInterruptEvent,
    "on_resume": GraphResumeEvent,
}
"""Method -> what it is given."""
FIELDS: Final = {kind: frozenset(item.name for item in fields(kind)) for kind in set(EVENTS.values())}


def handlers_in(callbacks: Any) -> list[GraphCallbackHandler]:
    """The handlers of ours in what a config has as `callbacks`, each once."""
    given = callbacks if isinstance(callbacks, (list, tuple)) else getattr(callbacks, "handlers", [callbacks])
    found: list[GraphCallbackHandler] = []
    for handler in given:
        if isinstance(handler, GraphCallbackHandler) and not any(handler is one for one in found):
            found.append(handler)
    return found


def run_uuid(given: Any) -> UUID:
    """The id of a run in events: the one it was given, if that is a UUID; one made of it otherwise; or a new one."""
    if given is None:
        return uuid4()
    try:
        return given if isinstance(given, UUID) else UUID(str(given))
    except ValueError:
        return uuid5(NAMESPACE_OID, str(given))


class Observer:
    """The handlers of one run, and what of it has begun for them."""

    __slots__ = ("enters", "handlers", "is_over", "run", "run_id", "step", "tasks")

    def __init__(self, handlers: Sequence[GraphCallbackHandler], *, run_id: UUID, **run: Any) -> None:
        self.handlers = handlers
        self.run_id = run_id
        self.run = {"run_id": run_id, **run}
        """The fields that all events of the run share."""
        self.is_over = False
        """Was the end of the run told? Kept by the run, as are the next two."""
        self.step: int | None = None
        """The superstep that has begun."""
        self.tasks: dict[Any, dict[str, Any]] = {}
        """Tasks that have begun, with the fields of their events."""
        self.enters = [h for h in handlers if type(h).enter_task is not GraphCallbackHandler.enter_task]
        """Those that want to be called inside of bodies."""

    def event(self, kind: str, at: float, facts: Mapping[str, Any]) -> Any:
        """What a method is given."""
        made = EVENTS[kind]
        known = {**self.run, "at": at, **facts}
        return made(**{name: known[name] for name in FIELDS[made] & known.keys()})

    def tell(self, reports: Sequence[tuple[str, float, dict[str, Any]]], *, quiet: bool = False) -> None:
        """Call the handlers, in order of the reports. `quiet`: an error is on its way to the caller already.

        Raises:
            Exception: the first that a handler with `raise_error` has raised, after all were called.
        """
        first: Exception | None = None
        for kind, at, facts in reports:
            event = self.event(kind, at, facts)
            for handler in self.handlers:
                try:
                    result = getattr(handler, kind)(event)
                    if isawaitable(result):
                        _wait_for(result)
                except Exception as error:  # noqa: BLE001 - a handler's own, whatever it is
                    first = first or _failed(handler, kind, error)
        if first is not None and not quiet:
            raise first

    async def atell(self, reports: Sequence[tuple[str, float, dict[str, Any]]], *, quiet: bool = False) -> None:
        """Async form of `tell`."""
        first: Exception | None = None
        for kind, at, facts in reports:
            event = self.event(kind, at, facts)
            for handler in self.handlers:
                try:
                    result = getattr(handler, kind)(event)
                    if isawaitable(result):
                        await result
                except Exception as error:  # noqa: BLE001 - a handler's own, whatever it is
                    first = first or _failed(handler, kind, error)
        if first is not None and not quiet:
            raise first

    def entered(self, node: Any) -> Any:
        """The node, whose body begins with the handlers that want to be called inside of it."""
        inject: Callable[[Any], dict[str, Any]] | None = node.inject
        twin = copy(node)

        def enter(scope: Any) -> dict[str, Any]:
            self.enter(scope)
            return {} if inject is None else inject(scope)

        twin.inject = enter
        return twin

    def enter(self, scope: Any) -> None:
        """An attempt begins: called by its body, on whatever thread that runs."""
        facts = self.tasks.get(scope.task)
        if facts is None:
            return
        event = self.event("on_task_start", scope.host.request.clock(), {**facts, "attempt": scope.attempt})
        for handler in self.enters:
            try:
                handler.enter_task(event)
            except Exception as error:
                if _failed(handler, "enter_task", error) is not None:
                    raise


def _failed(handler: GraphCallbackHandler, kind: str, error: Exception) -> Exception | None:
    """A handler has failed: the error, if the caller is to get it."""
    if handler.raise_error:
        return error
    log.warning("%s.%s raised %r; the run goes on", type(handler).__name__, kind, error, exc_info=error)
    return None


def _wait_for(result: Awaitable[Any]) -> None:
    """A handler's method is async, but the run is not: wait for it on a loop of its own, on a thread of its own, since this
    one may be running a loop."""
    failure: list[BaseException] = []

    async def await_it() -> None:
        await result

    def run() -> None:
        try:
            asyncio.run(await_it())
        except BaseException as error:  # noqa: BLE001 - raised where the handler was called
            failure.append(error)

    thread = Thread(target=run, name="pregel-callback")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
