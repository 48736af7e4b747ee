"""User values: what nodes return, what callers pass, what state APIs and streams hand out.

Plain data with the peer's names and fields; nothing here runs a graph. `interrupt` is the one function: it forwards to
the current task's scope.
"""

from __future__ import annotations

import math
import warnings as std_warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, cast, final, overload

from typing_extensions import TypedDict

from checkpoint.base import BaseCheckpointSaver, CheckpointMetadata, Durability, RunnableConfig
from checkpoint.registry import register_codec
from pregel import _scope
from pregel._policies import RetryPolicy
from pregel._policies import default_retry_on as default_retry_on
from pregel.constants import MISSING, PARENT
from pregel.errors import Interrupt, shown
from pregel.warnings import PregelDeprecationWarning

__all__ = [
    "All",
    "CachePolicy",
    "CheckpointPayload",
    "CheckpointStreamPart",
    "CheckpointTask",
    "Checkpointer",
    "Command",
    "CustomStreamPart",
    "DebugPayload",
    "DebugStreamPart",
    "Durability",
    "Every",
    "GraphOutput",
    "Interrupt",
    "MessagesStreamPart",
    "Overwrite",
    "PregelExecutableTask",
    "PregelTask",
    "RetryPolicy",
    "RunnableConfig",
    "Send",
    "StateSnapshot",
    "StateUpdate",
    "StreamMode",
    "StreamPart",
    "StreamWriter",
    "TaskPayload",
    "TaskResultPayload",
    "TasksStreamPart",
    "TimeoutPolicy",
    "TracePolicy",
    "UpdatesStreamPart",
    "ValuesStreamPart",
    "ensure_valid_checkpointer",
    "interrupt",
    "omit_payload",
]

N = TypeVar("N", bound=Hashable)
OutputT = TypeVar("OutputT")
T = TypeVar("T")

All = Literal["*"]
"""Every node that is not hidden."""
Checkpointer = bool | BaseCheckpointSaver[Any] | None
"""A saver; None: the parent graph's; True: the parent's, with state that outlives one call; False: none."""
StreamMode = Literal["values", "updates", "checkpoints", "tasks", "debug", "messages", "custom"]
StreamWriter = Callable[[Any], None]
"""Emits its argument as a chunk of mode custom; does nothing when nobody listens."""


# ---- policies


@dataclass(frozen=True, slots=True)
class Every:
    """Durability between `"async"` and `"exit"`: the run is stored when so many steps or seconds have passed since it was
    stored last, and at its end.

    Looked at after each step of the root graph, on the calling thread, and durable like `"sync"` when it goes on. A crash
    loses what was done since; a question, an error or the end of the run loses nothing.

    Raises:
        ValueError: neither limit is given, or one is not greater than 0.
    """

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that mean nothing."""
        if self.steps is None and self.seconds is None:
            raise ValueError("Every() needs steps= or seconds=: after how much work is the run to be stored?")
        if self.steps is not None and (
            not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1
        ):
            raise ValueError(f"Every(steps={self.steps!r}): it must be an int of at least 1")
        seconds(self.seconds, "Every(seconds=)")


def seconds(value: float | timedelta | None, name: str) -> float | None:
    """A time of more than nothing, in seconds; None for None.

    Raises:
        ValueError: it is not greater than 0, or endless.
        TypeError: it is no time.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, timedelta)):
        raise TypeError(
            f"{name} is {shown(value)} ({type(value).__name__}); expected seconds as a number, or a timedelta"
        )
    number = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not number > 0 or math.isinf(number):
        raise ValueError(f"{name} must be greater than 0 seconds, got {shown(value)}; leave it out for no limit")
    return number


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeoutPolicy:
    """Limits of one attempt of a node, sync or async, in seconds or as timedelta.

    `run_timeout` counts from the start of the attempt, `idle_timeout` from its last progress. `refresh_on`: what counts as
    progress, `"auto"` (writes, chunks, child tasks, supersteps of nested graphs, heartbeats) or `"heartbeat"` only.

    Raises:
        ValueError: a limit is not greater than 0, or `refresh_on` is unknown.
        TypeError: a limit is no time.
    """

    run_timeout: float | timedelta | None = None
    idle_timeout: float | timedelta | None = None
    refresh_on: Literal["auto", "heartbeat"] = "auto"

    def __post_init__(self) -> None:
        """Refuse limits that mean nothing."""
        if self.refresh_on not in ("auto", "heartbeat"):
            raise ValueError(f"refresh_on must be 'auto' or 'heartbeat', got {shown(self.refresh_on)}")
        seconds(self.run_timeout, "run_timeout")
        seconds(self.idle_timeout, "idle_timeout")

    @classmethod
    def coerce(cls, value: float | timedelta | TimeoutPolicy | None) -> TimeoutPolicy | None:
        """A policy with plain floats, None if there is no limit. Numbers are run timeouts.

        Raises:
            ValueError: a limit is not greater than 0.
            TypeError: it is no time.
        """
        if value is None:
            return None
        if not isinstance(value, TimeoutPolicy):
            return cls(run_timeout=seconds(value, "run_timeout"))
        run, idle = seconds(value.run_timeout, "run_timeout"), seconds(value.idle_timeout, "idle_timeout")
        if run is None and idle is None:
            return None
        if run is value.run_timeout and idle is value.idle_timeout:
            return value
        return cls(run_timeout=run, idle_timeout=idle, refresh_on=value.refresh_on)


@dataclass(frozen=True, kw_only=True)  # no slots: with them `CachePolicy[str](...)` fails in Python 3.11
class CachePolicy(Generic[N]):
    """Reuse of a node's writes for an equal input. `ttl` in seconds, None for ever.

    `key_func` maps the node's input (a task's arguments) to text or bytes; it runs before the node does, for async nodes
    on the event loop. None: a key is made from the input itself.

    Raises:
        TypeError: `key_func` cannot be called, or `ttl` is no number.
        ValueError: `ttl` is not greater than 0.
    """

    key_func: Callable[..., str | bytes] | None = None
    ttl: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would only fail in a run."""
        if self.key_func is not None and not callable(self.key_func):
            raise TypeError(f"CachePolicy(key_func={shown(self.key_func)}): it must be a function of the node's input")
        if self.ttl is not None and (isinstance(self.ttl, bool) or not isinstance(self.ttl, (int, float))):
            raise TypeError(f"CachePolicy(ttl={shown(self.ttl)}): it must be a number of seconds, or None for ever")
        if self.ttl is not None and not self.ttl > 0:
            raise ValueError(f"CachePolicy(ttl={self.ttl!r}): it must be greater than 0 seconds; leave out the policy")


@dataclass(frozen=True, kw_only=True, slots=True)
class TracePolicy:
    """What observers of a node record: each function maps the real value to the recorded one."""

    process_inputs: Callable[[Any], Any] | None = None
    process_outputs: Callable[[Any], Any] | None = None


def omit_payload(value: Any) -> dict[str, Any]:
    """Record nothing of a value."""
    return {}


# ---- what nodes return


@final
class Send:
    """A task for `node` in the next step, with `arg` as its input, as it is.

    `timeout` (seconds, timedelta or policy) replaces the node's own for this task. Equal by all three.
    """

    __slots__ = ("arg", "node", "timeout")

    node: str
    arg: Any
    timeout: TimeoutPolicy | None

    def __init__(self, /, node: str, arg: Any, *, timeout: float | timedelta | TimeoutPolicy | None = None) -> None:
        self.node = node if type(node) is str else str.__str__(node)
        self.arg = arg
        self.timeout = None if timeout is None else TimeoutPolicy.coerce(timeout)

    def __repr__(self) -> str:
        timeout = "" if self.timeout is None else f", timeout={self.timeout!r}"
        return f"Send(node={self.node!r}, arg={self.arg!r}{timeout})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Send)
            and self.node == other.node
            and self.arg == other.arg
            and self.timeout == other.timeout
        )

    def __hash__(self) -> int:
        return hash((self.node, self.arg, self.timeout))

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_send, (self.node, self.arg, self.timeout)


def _make_send(node: str, arg: Any, timeout: TimeoutPolicy | None) -> Send:
    return Send(node, arg, timeout=timeout)


@dataclass(kw_only=True, frozen=True, repr=False)
class Command(Generic[N]):
    """State update and routing in one value.

    As a node's return: `update` is applied, `goto` starts those nodes next, `graph=Command.PARENT` addresses the parent
    graph. As a graph's input: `resume` answers pending questions, by value or by `{interrupt id: value}`.
    """

    PARENT: ClassVar[Literal["__parent__"]] = PARENT

    graph: str | None = None
    update: Any | None = None
    resume: dict[str, Any] | Any | None = None
    goto: Send | Sequence[Send | N] | N = ()

    def __repr__(self) -> str:
        given = ", ".join(f"{f.name}={value!r}" for f in fields(self) if (value := getattr(self, f.name)))
        return f"Command({given})"


@dataclass(slots=True)
class Overwrite:
    """Replaces the value of a reducer key instead of being folded into it; at most one per key and step."""

    value: Any
    type: Literal["__overwrite__"] = "__overwrite__"


class Deadline(NamedTuple):
    """Until when a question waits, as a node says it: seconds `after` it came up first, or `at` a Unix time."""

    after: float | None
    at: float | None
    default: Any

    @classmethod
    def of(cls, expires: float | timedelta | datetime | None, default: Any) -> Deadline | None:
        """From the arguments of `interrupt`.

        Raises:
            ValueError: seconds not greater than 0, a datetime without time zone, or a default that would never be used.
            TypeError: something else.
        """
        if expires is None:
            if default is MISSING:
                return None
            raise ValueError(
                f"interrupt(default={shown(default)}) without expires=: say when the default is to be used, as seconds, a "
                f"timedelta or an aware datetime"
            )
        if isinstance(expires, datetime):
            if expires.utcoffset() is None:
                raise ValueError(
                    f"interrupt(expires={expires!r}) has no time zone; pass an aware datetime, such as "
                    f"datetime.now(UTC) + timedelta(hours=1)"
                )
            return cls(None, expires.timestamp(), default)
        if isinstance(expires, bool) or not isinstance(expires, (int, float, timedelta)):
            raise TypeError(
                f"interrupt(expires=...) takes seconds, a timedelta or an aware datetime, got {shown(expires)} "
                f"({type(expires).__name__})"
            )
        return cls(seconds(expires, "interrupt(expires=...)"), None, default)

    def from_(self, now: float) -> datetime:
        """The deadline of a question that comes up now."""
        return datetime.fromtimestamp(now + self.after if self.after is not None else self.at or 0.0, UTC)


@overload
def interrupt(
    value: Any,
    *,
    response_schema: type[T],
    expires: float | timedelta | datetime | None = None,
    default: Any = MISSING,
) -> T: ...


@overload
def interrupt(
    value: Any,
    *,
    response_schema: Any = None,
    expires: float | timedelta | datetime | None = None,
    default: Any = MISSING,
) -> Any: ...


def interrupt(
    value: Any,
    *,
    response_schema: Any = None,
    expires: float | timedelta | datetime | None = None,
    default: Any = MISSING,
) -> Any:
    """Ask a question: stop the run here, and return the answer when it is resumed with `Command(resume=...)`.

    The node starts again from its top; earlier questions return their stored answers in call order.

    Args:
        value: what is asked; shown to the caller as `Interrupt.value`.
        response_schema: what answers must look like. A type (pydantic model, dataclass, TypedDict, `int`, `list[str]`,
            ...): the answer is validated when the node takes it, and arrives as that type. A dict: a JSON schema,
            checked before any node runs. An answer that does not fit raises (`errors.is_invalid_resume`) and is not
            stored.
        expires: when the question ends: seconds from its first coming up, a timedelta, or an aware datetime. Running the
            node again does not move it.
        default: from then on, the answer: `invoke(None)` continues with it, and a later answer is refused. Without a
            default the question stays open, and `pregel.pending` calls it overdue.

    Raises:
        GraphInterrupt: there is no answer yet; do not swallow it.
        RuntimeError: called outside of a running node.
        ValueError: an answer that does not fit; a schema that cannot be checked, a default that does not fit, or an
            `expires` that means nothing.
    """
    scope = _scope.current("interrupt()")
    if response_schema is not None and not isinstance(response_schema, dict):
        response_schema = _typed_answer(response_schema)
    return scope.ask(value, response_schema, Deadline.of(expires, default))


def _typed_answer(type_: Any) -> Any:
    """What checks answers against a type, imported when somebody asks for one: it loads pydantic (D36)."""
    from pregel import _typed  # noqa: PLC0415 - a lazy door

    return _typed.typed_answer(type_)


# ---- what state APIs hand out


class StateUpdate(NamedTuple):
    """One update of `bulk_update_state`: `values` as if node `as_node` had returned them."""

    values: dict[str, Any] | Any | None
    as_node: str | None = None
    task_id: str | None = None


class _TaskFields(NamedTuple):
    """The fields of `PregelTask`, as a tuple that programs may unpack."""

    id: str
    name: str
    path: tuple[str | int | tuple[Any, ...], ...]
    error: Exception | str | None = None
    interrupts: tuple[Interrupt, ...] = ()
    state: RunnableConfig | StateSnapshot | None = None
    result: Any | None = None


class PregelTask(_TaskFields):
    """A task of the step that a snapshot stands before. `error` is text once it was stored; `state` is the nested
    graph's config or snapshot; `result` is what the task wrote, None while it has not finished."""

    states: tuple[StateSnapshot, ...] = ()
    """Asked with `subgraphs=True`: the snapshots of all graphs that the task has run so far, in call order, if there are
    several; `state` is the first. An attribute beside the tuple."""


class StateSnapshot(NamedTuple):
    """The state of a thread at one checkpoint. `created_at`: ISO-8601 UTC. `next`: names of the nodes to run."""

    values: dict[str, Any] | Any
    next: tuple[str, ...]
    config: RunnableConfig
    metadata: CheckpointMetadata | None
    created_at: str | None
    parent_config: RunnableConfig | None
    tasks: tuple[PregelTask, ...]
    interrupts: tuple[Interrupt, ...]


@dataclass(frozen=True)
class GraphOutput(Generic[OutputT]):
    """What `invoke(version="v2")` returns: the output and the questions that are open."""

    value: OutputT
    interrupts: tuple[Interrupt, ...] = ()
    config: RunnableConfig | None = field(default=None, compare=False, repr=False)
    """Addresses the checkpoint that the run ended at; None without a saver. Of a run that went on in a lane this is the
    only way to find it (`on_conflict="fork"`)."""

    def __getitem__(self, key: str) -> Any:
        """Deprecated: the key of the value."""
        _warn_mapping_use("[...]")
        return list(self.interrupts) if key == "__interrupt__" else self.value[key]  # type: ignore[index]

    def __contains__(self, key: object) -> bool:
        _warn_mapping_use("in")
        return bool(self.interrupts) if key == "__interrupt__" else key in self.value  # type: ignore[operator]


def _warn_mapping_use(what: str) -> None:
    std_warnings.warn(
        f"using {what} on a GraphOutput is deprecated; use its .value and .interrupts",
        PregelDeprecationWarning,
        stacklevel=3,
    )


# ---- stream payloads


class TaskPayload(TypedDict, total=False):
    """A task starts. `metadata` only if there is any."""

    id: str
    name: str
    input: Any
    triggers: tuple[str, ...]
    metadata: dict[str, Any]


class TaskResultPayload(TypedDict):
    """A task has ended. `error`: the exception or None. `interrupts`: dicts of value and id."""

    id: str
    name: str
    error: Any
    result: Any
    interrupts: list[dict[str, Any]]


class CheckpointTask(TypedDict, total=False):
    """A task inside a checkpoint event."""

    id: str
    name: str
    error: Any
    result: Any
    interrupts: tuple[dict[str, Any], ...]
    state: Any


class CheckpointPayload(TypedDict):
    """A checkpoint, as the `checkpoints` mode shows it."""

    config: RunnableConfig | None
    parent_config: RunnableConfig | None
    values: Any
    metadata: CheckpointMetadata
    next: list[str]
    tasks: list[CheckpointTask]


class DebugPayload(TypedDict):
    """A checkpoint or task event with its step and time (ISO-8601 UTC)."""

    step: int
    timestamp: str
    type: Literal["checkpoint", "task", "task_result"]
    payload: Any


class ValuesStreamPart(TypedDict):
    """v2 chunk of mode values."""

    type: Literal["values"]
    ns: tuple[str, ...]
    data: Any
    interrupts: tuple[Interrupt, ...]


class UpdatesStreamPart(TypedDict):
    """v2 chunk of mode updates."""

    type: Literal["updates"]
    ns: tuple[str, ...]
    data: dict[str, Any]


class MessagesStreamPart(TypedDict):
    """v2 chunk of mode messages."""

    type: Literal["messages"]
    ns: tuple[str, ...]
    data: tuple[Any, dict[str, Any]]


class CustomStreamPart(TypedDict):
    """v2 chunk of mode custom."""

    type: Literal["custom"]
    ns: tuple[str, ...]
    data: Any


class CheckpointStreamPart(TypedDict):
    """v2 chunk of mode checkpoints."""

    type: Literal["checkpoints"]
    ns: tuple[str, ...]
    data: CheckpointPayload


class TasksStreamPart(TypedDict):
    """v2 chunk of mode tasks."""

    type: Literal["tasks"]
    ns: tuple[str, ...]
    data: TaskPayload | TaskResultPayload


class DebugStreamPart(TypedDict):
    """v2 chunk of mode debug."""

    type: Literal["debug"]
    ns: tuple[str, ...]
    data: DebugPayload


StreamPart = (
    ValuesStreamPart
    | UpdatesStreamPart
    | MessagesStreamPart
    | CustomStreamPart
    | CheckpointStreamPart
    | TasksStreamPart
    | DebugStreamPart
)


@dataclass(frozen=True)
class PregelExecutableTask:
    """A task that is about to run, for those who inspect a step."""

    name: str
    input: Any
    id: str
    path: tuple[Any, ...]
    triggers: Sequence[str]


def ensure_valid_checkpointer(checkpointer: Any) -> Checkpointer:
    """The argument, if it can be a checkpointer: None, a bool, or an object with a saver's methods.

    Raises:
        TypeError: anything else; typically a context manager that was not entered.
    """
    if checkpointer is None or isinstance(checkpointer, (bool, BaseCheckpointSaver)):
        return checkpointer
    kind = type(checkpointer)
    if (hasattr(kind, "get_tuple") or hasattr(kind, "aget_tuple")) and (hasattr(kind, "put") or hasattr(kind, "aput")):
        return cast("Checkpointer", checkpointer)  # a saver of another library (D38)
    hint = ""
    if hasattr(kind, "__enter__") or hasattr(kind, "__aenter__"):
        hint = "; it is a context manager: use the object that `with ... as saver` gives"
    raise TypeError(
        f"checkpointer must be a saver, True, False or None, got {shown(checkpointer)} "
        f"({kind.__module__}.{kind.__qualname__}){hint}"
    )


# ---- stored forms


def _command_plain(command: Command[Any]) -> list[Any]:
    return [command.graph, command.update, command.resume, command.goto]


register_codec(Send, "pregel.Send", lambda s: [s.node, s.arg, s.timeout], lambda p: Send(p[0], p[1], timeout=p[2]))


def _interrupt_plain(asked: Interrupt) -> list[Any]:
    """Value, id, then what there is of: schema, asker, times in microseconds, was the schema a JSON schema, default."""
    times = _us(asked.asked_at), _us(asked.expires)
    parts = [asked.value, asked.id, asked.response_schema, asked.task_ns, *times, asked.checked]
    if asked.default is not MISSING:
        return [*parts, asked.default]
    while len(parts) > 2 and not parts[-1]:
        parts.pop()
    return parts


def _us(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1_000_000)


def _time(us: int | None) -> datetime | None:
    return None if us is None else datetime.fromtimestamp(us / 1_000_000, UTC)


def interrupt_from(parts: Sequence[Any]) -> Interrupt:
    """A question from its stored form."""
    absent: list[Any] = [None, None, None, "", None, None, False, MISSING]
    value, id_, schema, task_ns, asked_at, expires, checked, default = [*parts, *absent[len(parts) :]]
    question = Interrupt(value, id_, schema, expires=_time(expires), default=default, asked_at=_time(asked_at))
    question.checked, question.task_ns = bool(checked), task_ns
    return question


register_codec(Interrupt, "pregel.Interrupt", _interrupt_plain, interrupt_from)
register_codec(
    Command,
    "pregel.Command",
    _command_plain,
    lambda p: Command(graph=p[0], update=p[1], resume=p[2], goto=p[3]),
)
register_codec(Overwrite, "pregel.Overwrite", lambda o: o.value, Overwrite)
register_codec(
    TimeoutPolicy,
    "pregel.TimeoutPolicy",
    lambda t: [t.run_timeout, t.idle_timeout, t.refresh_on],
    lambda p: TimeoutPolicy(run_timeout=p[0], idle_timeout=p[1], refresh_on=p[2]),
)
register_codec(StateSnapshot, "pregel.StateSnapshot", list, lambda p: StateSnapshot(*p))
register_codec(PregelTask, "pregel.PregelTask", list, lambda p: PregelTask(*p))
