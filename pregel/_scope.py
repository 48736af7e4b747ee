"""`TaskScope`: what one attempt of one task may reach while it runs, and the ContextVar that holds the current one.

This is the only channel between user code inside a node and the engine around it: `interrupt()`, `get_config()`,
`get_stream_writer()`, nested runs and spawned tasks all start from the current scope. It decides nothing; it forwards to
the `Host`, the run that owns the task. It knows neither the engine nor the runtime objects: fields are typed with the
protocols below.

Invariants
1. A scope belongs to one attempt. `close()` ends the attempt: from then on everything raises `AttemptClosedError`, also
   for scopes below it (D29).
2. The scope is never copied, stored or serialised; a config carries it as an opaque handle (D34).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from operator import itemgetter
from threading import Lock
from typing import Any, Protocol

from pregel.errors import AttemptClosedError, Interrupt

_counting = Lock()


class Host(Protocol):
    """The run that owns a scope's task. All methods may be called from the thread that runs the task."""

    def config_of(self, scope: TaskScope) -> Any:
        """The task's config dict, built on first use."""
        ...

    def runtime_of(self, scope: TaskScope) -> Any:
        """The task's `Runtime`, built on first use."""
        ...

    def ask(self, scope: TaskScope, value: Any, response_schema: Any, deadline: Any = None) -> Any:
        """The answer to the task's next question; raises `GraphInterrupt` when there is none yet."""
        ...

    def read(self, scope: TaskScope, select: str | list[str], writes: list[tuple[str, Any]] | None) -> Any:
        """Channel values at the start of the step, or with `writes` applied on top. Unavailable ones are left out."""
        ...

    def custom(self, scope: TaskScope, value: Any) -> None:
        """Emit a chunk of mode custom."""

    def say(self, scope: TaskScope, message: Any, about: dict[str, Any] | None, *, once: bool) -> None:
        """Emit a chunk of mode messages; `once`: not if those who listen know it by its id."""

    def notice(self, code: str, place: str, text: str) -> None:
        """Record a warning for the driver to emit."""

    def spawn(self, scope: TaskScope, node: Any, argument: Any) -> Any:
        """Start a child task; returns its future."""
        ...

    def copied(self, value: Any) -> Any:
        """The value with containers of its own, one level."""
        ...

    def key_of(self, scope: TaskScope) -> str:
        """What names the logical task, equal whenever it runs again."""
        ...

    def once(self, scope: TaskScope, key: str, call: Callable[[], Any]) -> Any:
        """The result of a call that is made once per logical task and key."""
        ...

    async def aonce(self, scope: TaskScope, key: str, call: Callable[[], Any]) -> Any:
        """Async form of `once`."""
        ...

    def now(self) -> float:
        """Seconds of a clock that only goes forward."""
        ...


class Questions:
    """What one attempt asks, itself and through nested runs, and which nested runs it has going on.

    A body may ask several things at once: two nested runs side by side, two threads. Only one `GraphInterrupt` leaves it,
    so the others are noted here. Appending, adding and popping are one operation each: any thread may.
    """

    __slots__ = ("_wakers", "asked", "going_on", "refused")

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, int, str], tuple[Interrupt, ...]]] = []
        """Questions with their place: 0 and the number of the body's own one, 1 and the number and key of a nested run,
        or 2 and the number of a called task."""
        self.going_on: set[Any] = set()
        """Nested runs (their requests) that are driven right now; not streams, which may be at rest for ever."""
        self.refused: BaseException | None = None
        """What a nested run raised because an answer did not fit."""
        self._wakers: list[Callable[[], None]] = []

    def in_order(self, first: tuple[Interrupt, ...]) -> tuple[Interrupt, ...]:
        """All questions, each once: those of `first` that nobody noted, then by place, whoever asked earlier."""
        known = {question.id: question for _, several in sorted(self.asked, key=_place) for question in several}
        return (*(question for question in first if question.id not in known), *known.values())

    def when_alone(self, wake: Callable[[], None]) -> None:
        """Call `wake` once no nested run is going on; perhaps at once, perhaps on another thread."""
        self._wakers.append(wake)
        self.stir()

    def stir(self) -> None:
        """A nested run has ended: wake who waits, if it was the last."""
        while not self.going_on and self._wakers:
            try:
                wake = self._wakers.pop()
            except IndexError:  # taken by another thread
                return
            wake()


_place = itemgetter(0)


class Calls:
    """The tasks that one attempt has called; counted under a lock, since any thread of a body may call."""

    __slots__ = ("in_line", "made", "number", "running", "twins")

    def __init__(self) -> None:
        self.number = 0
        """Of the next call. Restarts with every attempt, so results are found again."""
        self.running = 0
        """Called tasks that have not ended."""
        self.in_line = True
        """Was no task called while another one was running?"""
        self.twins: dict[Any, int] = {}
        """How often each call was made."""
        self.made: Any = None
        """What earlier attempts called: call -> place in the step's tasks; None until this one calls something."""


class TaskScope:
    """One attempt of one task."""

    __slots__ = (
        "_config",
        "_runtime",
        "asked",
        "attempt",
        "away",
        "calls",
        "closed",
        "ended",
        "first_attempt_at",
        "graphs",
        "host",
        "keyed",
        "lent",
        "moved_at",
        "parent",
        "questions_",
        "task",
        "writes",
    )

    questions_: Questions
    """Set when the first is needed."""

    def __init__(self, host: Any, task: Any, parent: TaskScope | None, attempt: int = 1) -> None:
        self.host = host
        """The run that owns the task (`Host`)."""
        self.task = task
        """The task (`engine.task.Task`): its name, node and input."""
        self.parent = parent
        """The scope that the run of this task was started from; None for a root run."""
        self.attempt = attempt
        """1, 2, ..."""
        self.closed = False
        self.lent = False
        """Did somebody get an object that leads back here?"""
        self.asked = 0
        """Questions asked so far in this attempt."""
        self.calls: Any = None
        """Tasks called so far (`Calls`); None until there is one."""
        self.graphs = 0
        """Nested runs without a key started so far, in call order."""
        self.first_attempt_at = 0.0
        self.writes: list[tuple[str, Any]] | None = None
        """Writes made on the side, besides the returned value; None until there is one."""
        self.away = 0
        """Nested runs and child tasks that the body may be waiting for; then it takes no place among running bodies."""
        self.ended = False
        """Has the body returned or raised?"""
        self.moved_at = 0.0
        """Time of the last progress, for idle timeouts; 0.0 while nobody watches."""
        self._config: Any = None
        self._runtime: Any = None

    def count_graph(self, key: str | None) -> int:
        """A nested run starts: how many of this attempt, with the same key or with none, did so before. From any thread."""
        with _counting:
            if key is None:
                number = self.graphs
                self.graphs = number + 1
                return number
            if not hasattr(self, "keyed"):  # made for the first key only: most attempts see none
                self.keyed: dict[str, int] = {}
            number = self.keyed.get(key, 0)
            self.keyed[key] = number + 1
            return number

    def count_call(self, call: Any) -> tuple[int, int, bool]:
        """A task is called: the number of the call; how many equal ones came before; whether none overlapped so far.

        `call`: what it is told by, None if nobody asks. From any thread.
        """
        with _counting:
            calls = self.calls
            if calls is None:
                calls = self.calls = Calls()
            number = calls.number
            calls.number = number + 1
            if calls.running:
                calls.in_line = False
            calls.running += 1
            if call is None:
                return number, 0, calls.in_line
            twins = calls.twins.get(call, 0)
            calls.twins[call] = twins + 1
            return number, twins, calls.in_line

    def call_ended(self) -> None:
        """A called task has ended, and its caller is about to hear of it. From any thread."""
        with _counting:
            if self.calls is not None:
                self.calls.running -= 1

    @property
    def refreshes(self) -> bool:
        """Does anything the body does count as progress, or only a heartbeat?"""
        timeout = getattr(self.task, "timeout", None)
        return timeout is not None and timeout.refresh_on == "auto"

    @property
    def config(self) -> Any:
        """The task's config dict; the same object for the whole attempt."""
        if self._config is None:
            self.lent = True
            self._config = self.host.config_of(self)
        return self._config

    @property
    def runtime(self) -> Any:
        """The task's `Runtime`; the same object for the whole attempt."""
        if self._runtime is None:
            self.lent = True
            self._runtime = self.host.runtime_of(self)
        return self._runtime

    def check(self) -> None:
        """Raise `AttemptClosedError` if this attempt, or one that it runs inside of, is over."""
        scope: TaskScope | None = self
        while scope is not None:
            if scope.closed:
                raise AttemptClosedError(
                    f"attempt {scope.attempt} of node '{scope.task.name}' is over; what it does now is refused"
                )
            scope = scope.parent

    def ask(self, value: Any, response_schema: Any = None, deadline: Any = None) -> Any:
        """The answer to a question, or `GraphInterrupt`. `deadline`: a `pregel.types.Deadline`, if it has one."""
        self.check()
        return self.host.ask(self, value, response_schema, deadline)

    @property
    def questions(self) -> Questions:
        """What this attempt asks; made when first needed."""
        try:
            return self.questions_
        except AttributeError:
            self.questions_ = made = Questions()
            return made

    @property
    def has_questions(self) -> bool:
        """Did it ask anything, or start a nested run?"""
        return hasattr(self, "questions_")

    def emit(self, value: Any) -> None:
        """Emit a chunk of mode custom; nothing happens when nobody listens."""
        self.check()
        self.progress()
        self.host.custom(self, value)

    def say(self, message: Any, about: dict[str, Any] | None = None, *, once: bool = False) -> None:
        """Emit a chunk of mode messages; nothing happens when nobody listens. `about`: its metadata, if not the task's;
        `once`: not if it was shown before."""
        self.check()
        self.progress()
        self.host.say(self, message, about, once=once)

    def beat(self) -> None:
        """Count as progress for an idle timeout, of this attempt and of those that it runs inside of."""
        self.check()
        for scope in self._around():
            if scope.moved_at:
                scope.moved_at = scope.host.now()

    def write(self, channel: str, value: Any) -> None:
        """Add a write to the task's own, before those of its returned value."""
        self.check()
        self.progress()
        if self.writes is None:
            self.writes = []
        self.writes.append((channel, value))

    def read(self, select: str | list[str], writes: list[tuple[str, Any]] | None = None) -> Any:
        """Channel values as the step began, or with `writes` applied to copies."""
        return self.host.read(self, select, writes)

    def hand_over(self, value: Any) -> Any:
        """What a called task returns: the caller gets the object itself; the result is a copy of it, since what the caller
        does to it must not reach what is stored, shown, or given to the caller's next attempt."""
        self.task.outcome = value
        return self.host.copied(value)

    def spawn(self, node: Any, argument: Any) -> Any:
        """Start a child task in this step: `node` (compiled) with its input; returns its future (D27)."""
        self.check()
        self.progress()
        return self.host.spawn(self, node, argument)

    @property
    def key(self) -> str:
        """What names the logical task: equal on a retry, a resume and after a crash, different for any other task."""
        self.check()
        return self.host.key_of(self)  # type: ignore[no-any-return]

    def once(self, key: str, call: Callable[[], Any]) -> Any:
        """The result of a call that is made once per logical task and key, and recorded under the task."""
        self.check()
        self.progress()
        return self.host.once(self, key, call)

    async def aonce(self, key: str, call: Callable[[], Any]) -> Any:
        """Async form of `once`; the call may be one of a coroutine function."""
        self.check()
        self.progress()
        return await self.host.aonce(self, key, call)

    def progress(self) -> None:
        """What the body does counts as progress, also of the attempts that it runs inside of; unless a policy wants
        heartbeats."""
        for scope in self._around():
            if scope.moved_at and scope.refreshes:
                scope.moved_at = scope.host.now()

    def is_watched(self) -> bool:
        """Is it waited for progress of this attempt, or of one that it runs inside of?"""
        return any(scope.moved_at and scope.task.timeout.idle_timeout is not None for scope in self._around())

    def _around(self) -> Iterator[TaskScope]:
        """This attempt, and those that wait for it: of the task that called it, or of the graph around."""
        scope: TaskScope | None = self
        while scope is not None:
            yield scope
            scope = getattr(scope.task, "caller", None) or scope.parent

    def close(self) -> None:
        """End the attempt. What it lent out lets go of it: a config or writer that outlives it leads nowhere."""
        self.closed = True
        self._config = self._runtime = None
        for stop in _below.pop(self, ()):
            stop()

    def encloses(self, stop: Callable[[], object]) -> None:
        """Call it when this attempt is ended from outside: a nested run on another thread waits for its own bodies."""
        _below.setdefault(self, []).append(stop)

    def releases(self, stop: Callable[[], object]) -> None:
        """The nested run has ended by itself."""
        stops = _below.get(self)
        if stops is not None:
            with suppress(ValueError):
                stops.remove(stop)
            if not stops:
                _below.pop(self, None)

    def is_over(self) -> bool:
        """Is this attempt over, or one that it runs inside of?"""
        scope: TaskScope | None = self
        while scope is not None:
            if scope.closed:
                return True
            scope = scope.parent
        return False


_below: dict[TaskScope, list[Callable[[], object]]] = {}
"""Attempts with nested runs -> how to stop those; beside the scopes, since few have any."""

_current: ContextVar[TaskScope | None] = ContextVar("pregel_task_scope", default=None)
enter = _current.set
"""Make a scope the current one of this context. Contexts are copied per task, so nothing is reset."""
current_or_none = _current.get


def current(asker: str = "this function") -> TaskScope:
    """The scope of the task that is running here.

    Raises:
        RuntimeError: outside of a running node, for example in a thread that was started without the context.
    """
    scope = _current.get()
    if scope is None:
        raise RuntimeError(
            f"{asker} was called outside of a running node; call it inside a node, task or entrypoint; what runs on "
            f"threads of your own is to be wrapped: Thread(target=pregel.runtime.carry(function))"
        )
    return scope
