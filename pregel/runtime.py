"""`Runtime`: what a node may use besides its input; and `RunControl`, the switch that drains a run.

Plain objects, built per task when a signature or `get_runtime()` asks for one. They decide nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from functools import partial, wraps
from inspect import iscoroutinefunction
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, overload

from pregel import _scope
from pregel.types import StreamWriter, seconds

if TYPE_CHECKING:
    from pregel._signals import SignalHandlers

__all__ = [
    "BaseUser",
    "ExecutionInfo",
    "RunControl",
    "Runtime",
    "ServerInfo",
    "aonce",
    "carry",
    "get_runtime",
    "once",
]

ContextT = TypeVar("ContextT")
P = ParamSpec("P")
T = TypeVar("T")


_registering = Lock()


class RunControl:
    """Asks runs to stop at their next superstep boundary. May be used from any thread and from signal handlers; for any
    number of runs, at the same time or one after the other; the last reason counts.

    Args:
        drain_deadline: seconds from the first request after which a run that has not stopped is ended where it is: async
            nodes are cancelled and awaited, sync ones told through `runtime.cancelled` and left; they stay pending, what
            has finished is stored. None: it is waited for. With it, a sync node never runs on the caller's own thread.

    Raises:
        ValueError: `drain_deadline` is not greater than 0.
        TypeError: it is no time.
    """

    __slots__ = ("_hears", "by_signal", "cut_at", "drain_deadline", "reason")

    def __init__(self, *, drain_deadline: float | timedelta | None = None) -> None:
        self.reason: str | None = None
        """Why a drain was requested; None while it was not."""
        self.cut_at: float | None = None
        """When runs are ended where they are, in the clock of `time.monotonic`; None while nothing was requested."""
        self.by_signal = False
        """Were signal handlers installed? One that comes in the very moment in which a loop falls asleep wakes nobody."""
        self.drain_deadline = None if drain_deadline is None else seconds(drain_deadline, "drain_deadline")

    def request_drain(self, reason: str = "shutdown") -> None:
        """Finish the running superstep, store it, and leave with `GraphDrained(reason)` if more would follow.

        A task that waits for its next attempt is not tried again; it stays pending.
        """
        if self.cut_at is None and self.drain_deadline is not None:
            self.cut_at = time.monotonic() + self.drain_deadline
        self.reason = reason
        self._wake()

    def request_cancel(self, reason: str = "shutdown") -> None:
        """As `request_drain`, with the deadline now. Of a run that was started without a `drain_deadline`, the nodes that
        run finish first."""
        self.cut_at = time.monotonic()
        self.reason = reason
        self._wake()

    def install_signal_handlers(self, *signals: int, drain_deadline: float | timedelta | None = None) -> SignalHandlers:
        """Drain when the process is told to stop: at SIGTERM and SIGINT, or at the given signals. From the main thread.

        The first one requests a drain, the second ends the runs where they are, a third does what it did before. Works for
        sync runs and on event loops. Use the result in a `with` statement, or call its `restore`: the handlers that were
        there before are put back.

        Args:
            signals: numbers, such as `signal.SIGTERM`.
            drain_deadline: as of the constructor; from then on instead of that.

        Raises:
            RuntimeError: not called from the main thread of the main interpreter.
            ValueError: no signal of this platform, or one that cannot be handled; or a deadline not greater than 0.
            TypeError: a deadline that is no time.
        """
        from pregel import _signals  # noqa: PLC0415 - a lazy door: few programs need it

        if drain_deadline is not None:
            self.drain_deadline = seconds(drain_deadline, "drain_deadline")
        installed = _signals.SignalHandlers(self, signals)
        self.by_signal = True
        return installed

    def listen(self, listener: object, wake: Callable[[], object]) -> None:
        """Call `wake` at each request from now on, on whatever thread it comes; until `unlisten(listener)`."""
        with _registering:
            if not hasattr(self, "_hears"):
                self._hears: dict[object, Callable[[], object]] = {}
        self._hears[listener] = wake

    def unlisten(self, listener: object) -> None:
        """Who listened is over."""
        if hasattr(self, "_hears"):
            self._hears.pop(listener, None)

    def _wake(self) -> None:
        # No lock: a signal handler may run in the middle of anything.
        if hasattr(self, "_hears"):
            for wake in list(self._hears.values()):
                wake()

    @property
    def drain_requested(self) -> bool:
        """Was a drain requested?"""
        return self.reason is not None

    @property
    def drain_reason(self) -> str | None:
        """Why, or None."""
        return self.reason


@dataclass(frozen=True, slots=True)
class ExecutionInfo:
    """Where a task runs. `checkpoint_ns` includes the task's own segment; times in Unix seconds; attempts from 1."""

    checkpoint_id: str
    checkpoint_ns: str
    task_id: str
    thread_id: str | None = None
    run_id: str | None = None
    node_attempt: int = 1
    node_first_attempt_time: float | None = None

    def patch(self, **changes: Any) -> ExecutionInfo:
        """A copy with some fields replaced."""
        return replace(self, **changes)


class BaseUser(Protocol):
    """Who a server runs the graph for: what its `user` has."""

    @property
    def is_authenticated(self) -> bool:
        """Is it known who this is?"""
        ...

    @property
    def display_name(self) -> str:
        """A name for people."""
        ...

    @property
    def identity(self) -> str:
        """A name for programs."""
        ...

    @property
    def permissions(self) -> Sequence[str]:
        """What this user may do."""
        ...


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Which deployment runs the graph; only set when a server says so in the config."""

    assistant_id: str
    graph_id: str
    user: BaseUser | None = None


def no_write(value: Any) -> None:
    """A stream writer that nobody listens to."""


def not_over() -> bool:
    """Of a runtime that belongs to no attempt."""
    return False


def no_beat() -> None:
    """A heartbeat that nobody waits for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime(Generic[ContextT]):
    """What a node may use besides its input: ask for it with a parameter named `runtime`."""

    context: ContextT = field(default=None)  # type: ignore[assignment]
    """What the caller passed as `context=`, as the context schema's type."""
    store: Any = None
    """The key-value store of the graph, or of the outermost graph around it."""
    stream_writer: StreamWriter = no_write
    """Emits a chunk of mode custom."""
    heartbeat: Callable[[], None] = no_beat
    """Counts as progress for an idle timeout."""
    previous: Any = None
    """Functional API: what the last completed run of the thread saved."""
    execution_info: ExecutionInfo | None = None
    server_info: ServerInfo | None = None
    control: RunControl | None = None
    over: Callable[[], bool] = field(default=not_over, repr=False)
    """What `cancelled` asks."""

    task_scope: Any = field(default=None, repr=False, compare=False)
    """The engine's own: the attempt that this was made for."""

    @property
    def cancelled(self) -> bool:
        """Does nobody wait for this attempt any more? Its run was left, interrupted or has failed, or it took too long.

        A sync node cannot be stopped from outside: one that takes long looks here now and then, and returns. What it does
        after that has no effect.
        """
        return self.over()

    @property
    def idempotency_key(self) -> str:
        """What names the logical task that runs here, for services that take such a key: equal whenever the same task
        runs again (a retry, a resume, after a crash), different for any other step, node, `Send`, thread, input, fork or
        replay. Worked out when asked for.

        Raises:
            RuntimeError: outside of a running task.
            AttemptClosedError: the attempt is over.
        """
        key: str = self._task("idempotency_key").key
        return key

    def once(self, key: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`function(*args, **kwargs)`, called once per logical task and `key`; its recorded result whenever the task runs
        again.

        The result is recorded before this returns: on disk with durability `"sync"`, on its way with `"async"`, stored
        with the run's end with `"exit"`. It must be something that a node may return, and is not to be changed. What
        happens between the effect and its record is the one gap: the function is called again after a crash there, so
        give the service `idempotency_key` as well. Exceptions are not recorded. Several threads of the body may ask for
        the same key: the function is called in one of them.

        Raises:
            RuntimeError: outside of a running task; on the event loop, where `aonce` is to be awaited; the function asks
                for its own key.
            TypeError: the key is not a string.
            AttemptClosedError: the attempt is over; nothing is recorded.
        """
        value: T = self._task("once").once(_checked(key), partial(function, *args, **kwargs))
        return value

    @overload
    async def aonce(self, key: str, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    async def aonce(self, key: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def aonce(self, key: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Async form of `once`; what the function returns is awaited if that can be."""
        value: Any = await self._task("aonce").aonce(_checked(key), partial(function, *args, **kwargs))
        return value

    def _task(self, asked: str) -> Any:
        if self.task_scope is None:
            raise RuntimeError(
                f"Runtime.{asked} belongs to a running task, and this Runtime was made outside of one; ask the one that a "
                f"node, task or entrypoint was given, or get_runtime() inside of it"
            )
        return self.task_scope

    @property
    def drain_requested(self) -> bool:
        """Is the run asked to stop at the next boundary?"""
        return self.control is not None and self.control.drain_requested

    @property
    def drain_reason(self) -> str | None:
        """Why, or None."""
        return None if self.control is None else self.control.drain_reason

    def merge(self, other: Runtime[Any]) -> Runtime[Any]:
        """Fields of `other` where it has any, of this one elsewhere. An empty or falsy value counts, unless it is None."""
        chosen: dict[str, Any] = {}
        for item in fields(self):
            theirs = getattr(other, item.name)
            is_blank = theirs is None or theirs is no_write or theirs is no_beat or theirs is not_over
            chosen[item.name] = getattr(self, item.name) if is_blank else theirs
        return Runtime(**chosen)

    def override(self, **changes: Any) -> Runtime[Any]:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def patch_execution_info(self, **changes: Any) -> Runtime[Any]:
        """A copy with fields of `execution_info` replaced.

        Raises:
            RuntimeError: there is none yet; it is set when a task starts.
        """
        if self.execution_info is None:
            raise RuntimeError("execution_info is not set outside of a running task, so it cannot be patched")
        return replace(self, execution_info=self.execution_info.patch(**changes))


def get_runtime(context_schema: type[ContextT] | None = None) -> Runtime[ContextT]:
    """The `Runtime` of the task that is running here.

    Raises:
        RuntimeError: outside of a running node.
    """
    runtime: Runtime[ContextT] = _scope.current("get_runtime()").runtime
    return runtime


def carry(function: Callable[P, T], /) -> Callable[P, T]:
    """The function, to be called anywhere with the scope of the task that runs here, and all other context variables.

    A thread that a node starts itself knows nothing of its task: there `get_config()`, `get_runtime()`, `interrupt()`,
    nested runs and tracing find none. `Thread(target=carry(f))`, `pool.submit(carry(f), x)`, `pool.map(carry(f), items)`
    and `loop.run_in_executor(None, carry(f))` do. Each call has a copy of the variables as they are now, so calls may
    overlap. The task does not wait for such threads: when its attempt is over, what they ask of it is refused
    (`AttemptClosedError`).

    Raises:
        TypeError: a coroutine function, which has the scope without this: asyncio tasks copy it.
    """
    if iscoroutinefunction(function):
        raise TypeError(
            f"carry: {function!r} is a coroutine function; asyncio tasks have the scope of whoever creates them, so await "
            f"it, or create the task, inside the node; carry() is for functions that are called on other threads"
        )
    context = copy_context()

    @wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> T:
        return context.copy().run(function, *args, **kwargs)

    return carried


def once(key: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """`Runtime.once` of the task that is running here."""
    return get_runtime().once(key, function, *args, **kwargs)


@overload
async def aonce(key: str, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...


@overload
async def aonce(key: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...


async def aonce(key: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """`Runtime.aonce` of the task that is running here."""
    return await get_runtime().aonce(key, function, *args, **kwargs)


def _checked(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(
            f"once: key is {key!r} ({type(key).__name__}); expected a str that names the effect in its node"
        )
    return key


DEFAULT_RUNTIME: Runtime[Any] = Runtime()
"""One that has nothing."""
