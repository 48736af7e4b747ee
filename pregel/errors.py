"""What can go wrong, as exceptions: the peer's class names, our own words.

Two families, as in h11: the user's fault (`InvalidUpdateError` and its siblings) and ours (`EngineBug`, which prints the
story of the run). `GraphBubbleUp` and below are control flow, not failures: never retried, never handled by an error
handler. Texts follow one template: where, what happened with values, what was expected, what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Any, Literal, NamedTuple

from checkpoint.base import EmptyChannelError, LoadedCheckpoint
from pregel.constants import MISSING

__all__ = [
    "AttemptClosedError",
    "DeadlineExceededError",
    "EmptyChannelError",
    "EmptyInputError",
    "EngineBug",
    "ErrorCode",
    "GraphBubbleUp",
    "GraphChangedError",
    "GraphDrained",
    "GraphInterrupt",
    "GraphRecursionError",
    "Interrupt",
    "InvalidAnswerError",
    "InvalidUpdateError",
    "NodeCancelledError",
    "NodeError",
    "NodeInterrupt",
    "NodeTimeoutError",
    "ParentCommand",
    "Place",
    "RunIdReusedError",
    "RunSupersededError",
    "StateMutationError",
    "StoredFailure",
    "Stranded",
    "TaskNotFound",
    "UnknownInterruptError",
    "closest",
    "is_invalid_resume",
    "nearest",
    "place_of",
    "shown",
]


PLACEHOLDER_ID = "placeholder-id"


@dataclass(slots=True)
class Interrupt:
    """A question that a node asks (`interrupt(value)`), as users see it.

    `id` is 32 hex characters, the same for the same question across re-runs and processes; `response_schema` is the JSON
    schema of the expected answer, or None when anything will do. What is unset is left out of `repr` and of events (D50).
    """

    value: Any
    id: str = PLACEHOLDER_ID
    response_schema: dict[str, Any] | None = None
    expires: datetime | None = field(default=None, kw_only=True)
    """When `default` begins to count as the answer, or, without one, since when the question is overdue. UTC."""
    default: Any = field(default=MISSING, kw_only=True, compare=False)
    """The answer from `expires` on; `pregel.constants.MISSING` if there is none."""
    asked_at: datetime | None = field(default=None, kw_only=True, compare=False, repr=False)
    """When the question came up first, UTC; None if it was stored by another library."""
    checked: bool = field(default=False, kw_only=True, compare=False, repr=False)
    """Was `response_schema` given as a JSON schema? Then an answer is checked before the node runs; if it was given as a
    type, in the node, since only the node knows the type."""

    task_ns: str = field(default="", kw_only=True, compare=False, repr=False)
    """Address of the task that asks, for whoever looks for it (`pregel.pending`); empty if it is not known."""

    def __repr__(self) -> str:
        more = "" if self.response_schema is None else f", response_schema={self.response_schema!r}"
        more += "" if self.expires is None else f", expires={self.expires!r}"
        more += "" if self.default is MISSING else f", default={self.default!r}"
        return f"Interrupt(value={self.value!r}, id={self.id!r}{more})"

    @property
    def is_typed(self) -> bool:
        """Can only the node tell whether an answer fits?"""
        return self.response_schema is not None and not self.checked

    def has_expired(self, now: float) -> bool:
        """Does the default count as the answer at this time (Unix seconds)?"""
        return self.default is not MISSING and self.expires is not None and now >= self.expires.timestamp()

    def as_event(self) -> dict[str, Any]:
        """The form in `tasks` and `checkpoints` events."""
        event = {"value": self.value, "id": self.id}
        if self.response_schema is not None:
            event["response_schema"] = self.response_schema
        if self.expires is not None:
            event["expires"] = self.expires.isoformat()
        return event


class ErrorCode(Enum):
    """Stable identifiers that error texts carry, for searching."""

    GRAPH_RECURSION_LIMIT = "GRAPH_RECURSION_LIMIT"
    INVALID_CONCURRENT_GRAPH_UPDATE = "INVALID_CONCURRENT_GRAPH_UPDATE"
    INVALID_GRAPH_NODE_RETURN_VALUE = "INVALID_GRAPH_NODE_RETURN_VALUE"
    MULTIPLE_SUBGRAPHS = "MULTIPLE_SUBGRAPHS"
    INVALID_CHAT_HISTORY = "INVALID_CHAT_HISTORY"


def create_error_message(*, message: str, error_code: ErrorCode) -> str:
    """A text that names the code of a kind of error, as ours do."""
    return f"{message} [{error_code.value}]"


class Place(NamedTuple):
    """Where in a run an error happened."""

    node: str | None
    """None if it was no node: a reducer, a saver, a limit."""
    task_id: str | None
    step: int
    checkpoint_ns: str
    """Of the graph it happened in; empty for the outermost."""
    thread_id: str | None
    config: dict[str, Any] | None
    """The config to go on with: `graph.invoke(None, config)` of the outermost graph. None if nothing is stored."""


def place_of(error: BaseException) -> Place | None:
    """Where in a run an exception happened that came out of a graph; None for any other exception."""
    return getattr(error, "_pregel_place", None)


def set_place(error: BaseException, place: Place) -> None:
    """Make `place_of` answer. An exception that takes no attributes has its note alone."""
    with suppress(Exception):
        error._pregel_place = place  # type: ignore[attr-defined]


def shown(value: object, limit: int = 200) -> str:
    """The repr of a user's value, cut at `limit` characters; a repr that raises is named, not raised."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a broken __repr__ must not hide the error being reported
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def closest(name: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, if one is like it."""
    import difflib  # noqa: PLC0415 - a lazy door: only who made a mistake needs it

    found = difflib.get_close_matches(name if isinstance(name, str) else shown(name), list(known), n=1)
    return found[0] if found else None


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of an error text: the known name that was probably meant, or all of them."""
    names = [n for n in known if not n.startswith("__")]
    meant = closest(name, names)
    if meant is not None:
        return f"did you mean {meant!r}?"
    return f"known are {', '.join(map(repr, names[:20])) or 'none'}{', ...' if len(names) > 20 else ''}"


class GraphRecursionError(RecursionError):
    """The step limit, or `max_steps=` of the call, was reached with work still to do. Completed steps are stored;
    `invoke(None, error.config)` goes on, with as many steps again.

    Attributes:
        values: the last values of the graph that reached its limit, as its `invoke` would have returned them.
        config: names the thread of the outermost graph, and what its nodes need of the caller's `configurable`; None
            without a saver.
        limit: steps that were allowed.
        ready: names of the nodes that would have run next.
    """

    values: Any = None
    config: dict[str, Any] | None = None
    limit: int | None = None
    ready: tuple[str, ...] = ()


class DeadlineExceededError(TimeoutError):
    """A run did not end by the `deadline=` of its call. What was done is stored: supersteps, and results of finished tasks
    of the open one; `invoke(None, error.config)` goes on, with a deadline of its own.

    Attributes:
        values: the last values, as `invoke` would have returned them.
        config: names the thread, and what its nodes need of the caller's `configurable`; None without a saver.
        deadline: when that was, UTC.
        ready: names of the nodes that were running, or would have run next.
    """

    values: Any = None
    config: dict[str, Any] | None = None
    deadline: datetime | None = None
    ready: tuple[str, ...] = ()


class InvalidUpdateError(Exception):
    """A write that a channel, or a return value that a graph, cannot take.

    `code` is the stable identifier, or None. `key` and `count` are set by channels that refuse several values in one
    step; the engine then adds the writers and the step to the text.
    """

    def __init__(
        self,
        message: str = "",
        *,
        code: ErrorCode | None = None,
        key: str | None = None,
        count: int | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(message if code is None else f"{message} [{code.value}]")
        self.code = code
        self.key = key
        self.count = count
        self.advice = advice
        """What to do about it, from the channel that knows."""


class EmptyInputError(Exception):
    """The graph was called with nothing to do: no input on a thread without anything to resume."""


class RunIdReusedError(ValueError):
    """A call has the run id of another one: the same id was given with another input. Nothing was applied."""

    def __init__(self, message: str = "", *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id


class RunSupersededError(RuntimeError):
    """A call was repeated whose run was cut off before it had a result, and others took the thread further since.

    Its input was applied once; what was left to run was dropped by the input that came after. Nothing was run.
    """

    def __init__(self, message: str = "", *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id


class TaskNotFound(Exception):
    """A task was addressed that the current step does not have."""


@dataclass(frozen=True, slots=True)
class Stranded:
    """Something stored that the graph, as it is now, cannot go on with: one finding of `graph.check(saver)`."""

    thread_id: str
    ns: str
    """Namespace of the nested graph, "" for the root graph."""
    checkpoint_id: str
    kind: Literal["node", "key"]
    name: str
    """The node or state key that the graph does not have."""
    reason: str
    """What needs it, as a part of a sentence."""
    fix: str
    """What to do about it, as a sentence."""
    blocks: bool = True
    """Does it keep the thread from being resumed? If not, a stored value of a key is seen by no node any more."""
    from_result: bool = False
    """Does only the stored result of a finished task need it? (A replay does not use those.)"""

    @classmethod
    def of(
        cls,
        loaded: LoadedCheckpoint,
        kind: Literal["node", "key"],
        name: str,
        reason: str,
        known: Sequence[str],
        *,
        blocks: bool = True,
        from_result: bool = False,
    ) -> Stranded:
        """A finding in a loaded checkpoint. `known`: the names that there are."""
        thread_id, checkpoint_id = loaded.claim.thread_id, str(loaded.checkpoint_id)
        fix = (_node_fix if kind == "node" else _key_fix)(name, _likely(name, known))
        return cls(thread_id, loaded.checkpoint_ns, checkpoint_id, kind, name, reason, fix, blocks, from_result)

    def __str__(self) -> str:
        place = f" in namespace {self.ns!r}" if self.ns else ""
        return f"{self.kind} {self.name!r}{place} (checkpoint {self.checkpoint_id!r}): {self.reason}; {self.fix}"


def _node_fix(name: str, near: Sequence[str]) -> str:
    new = near[0] if near else "new_name"
    nodes = f" (nodes are {', '.join(map(repr, near))})" if near else ""
    return (
        f"if it was renamed, declare that: add_node({new!r}, ..., aliases=[{name!r}]){nodes}; or drop the pending work "
        f"with update_state(config, None, as_node='__end__'); or resume with the version of the graph that has it"
    )


def _key_fix(name: str, near: Sequence[str]) -> str:
    new = near[0] if near else "new_key"
    keys = f" (keys are {', '.join(map(repr, near))})" if near else ""
    return (
        f"if it was renamed, declare that: compile(renamed_keys={{{name!r}: {new!r}}}){keys}; if no node needs it any "
        f"more: compile(renamed_keys={{{name!r}: None}})"
    )


def _likely(name: str, known: Iterable[str]) -> list[str]:
    """At most five names to choose from, the one that was probably meant first."""
    names = [one for one in known if not one.startswith("__")]
    meant = closest(name, names)
    return sorted(names, key=lambda one: one != meant)[:5]


class GraphChangedError(Exception):
    """The graph was changed, and a paused thread cannot go on with it: what is pending needs nodes or keys that are gone.

    Raised before anything runs or is stored; the thread is as it was. `missing` names all that is in the way.
    """

    def __init__(self, missing: Sequence[Stranded]) -> None:
        threads = ", ".join(sorted({repr(one.thread_id) for one in missing}))
        lines = "".join(f"\n- {one}" for one in missing)
        super().__init__(
            f"thread {threads} was paused by another version of this graph, and its pending work needs what this one does "
            f"not have; nothing was run or stored:{lines}"
        )
        self.missing = tuple(missing)

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphChangedError, (self.missing,)


class StateMutationError(Exception):
    """A node edited its input in place although the graph was compiled with `isolate="deep"`."""


class EngineBug(AssertionError):
    """An internal impossibility. Please report it with the story that it prints."""


class AttemptClosedError(BaseException):
    """Work of an attempt that is over: timed out, cancelled, replaced by a retry, or its run has ended.

    A BaseException, so that `except Exception` in a node cannot turn an abandoned attempt back into a live one.
    """


class GraphBubbleUp(Exception):
    """Control flow that leaves a node on purpose; neither retried nor recorded as a failure."""


class GraphInterrupt(GraphBubbleUp):
    """A node asks a question. `args[0]` is a tuple of `Interrupt`. The root graph swallows it and returns."""

    def __init__(self, interrupts: Sequence[Interrupt] = ()) -> None:
        super().__init__(tuple(interrupts))

    @property
    def interrupts(self) -> tuple[Interrupt, ...]:
        """The questions, in the order in which they were asked."""
        return tuple(self.args[0])


class ParentCommand(GraphBubbleUp):
    """A `Command(graph=Command.PARENT)` on its way to the graph it addresses. `args[0]` is the command."""

    def __init__(self, command: Any) -> None:
        super().__init__(command)


class GraphDrained(GraphBubbleUp):
    """The run stopped at a step boundary because a drain was requested; `invoke(None, config)` goes on."""

    def __init__(self, reason: str = "shutdown") -> None:
        super().__init__(f"Graph drained: {reason}")
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphDrained, (self.reason,)


class StoredFailure(Exception):
    """A node's failure as it was stored by an earlier run: the `repr` of the exception, whose class may be unknown here.

    Attributes:
        class_name: `module.qualname` of the exception's class, built-in ones without module; empty if that is not known.
        text: what `str(exception)` was.
        traceback: the formatted traceback, newest frame last; empty if there was none.
    """

    class_name: str = ""
    text: str = ""
    traceback: str = ""

    @classmethod
    def of(cls, stored: object) -> BaseException:
        """An exception for a stored error; itself, if it is one already."""
        if isinstance(stored, BaseException):
            return stored
        failure = cls(str(stored))
        for name in ("class_name", "text", "traceback"):
            if value := getattr(stored, name, ""):
                setattr(failure, name, value)
        return failure


class NodeCancelledError(Exception):
    """A node body raised `asyncio.CancelledError` although nobody had cancelled it."""

    def __init__(self, node: str) -> None:
        super().__init__(f"node '{node}' raised asyncio.CancelledError itself; nobody had cancelled the run")
        self.node = node

    def __reduce__(self) -> tuple[Any, ...]:
        return NodeCancelledError, (self.node,)


class NodeTimeoutError(Exception):
    """An attempt of a node ran longer than its policy allows. All times in seconds.

    `kind` names the limit that fired, `"run"` or `"idle"`; `timeout` is that limit. Both configured limits are kept.
    """

    def __init__(
        self,
        node: str,
        elapsed: float,
        *,
        kind: str,
        run_timeout: float | None = None,
        idle_timeout: float | None = None,
    ) -> None:
        timeout = run_timeout if kind == "run" else idle_timeout
        if timeout is None:
            raise ValueError(f"{kind}_timeout is required when kind={kind!r}")
        progress = " without making progress" if kind == "idle" else ""
        super().__init__(
            f"node '{node}' exceeded its {kind} timeout of {timeout:.3f}s{progress} (elapsed: {elapsed:.3f}s)"
        )
        self.node = node
        self.elapsed = elapsed
        self.kind = kind
        self.timeout = timeout
        self.run_timeout = run_timeout
        self.idle_timeout = idle_timeout

    def __reduce__(self) -> tuple[Any, ...]:
        limits: dict[str, Any] = {"kind": self.kind, "run_timeout": self.run_timeout, "idle_timeout": self.idle_timeout}
        return partial(NodeTimeoutError, self.node, self.elapsed, **limits), ()


@dataclass(frozen=True)
class NodeError:
    """What an error handler is told: the failed node and its exception, always an exception instance."""

    node: str
    error: BaseException


class UnknownInterruptError(Exception):
    """A resume that answers no pending question, or does not say which one. Nothing was stored.

    Raised under `compile(strict=True)`, and always for an answer that comes after its question's default has taken over.
    `reason` is `"not_pending"`, `"empty_map"`, `"ambiguous"` or `"expired"`.
    """

    def __init__(
        self, message: str, *, reason: str, interrupt_ids: Sequence[str] = (), pending_ids: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.interrupt_ids = tuple(interrupt_ids)
        self.pending_ids = tuple(pending_ids)

    def __reduce__(self) -> tuple[Any, ...]:
        ids: dict[str, Any] = {
            "reason": self.reason,
            "interrupt_ids": self.interrupt_ids,
            "pending_ids": self.pending_ids,
        }
        return partial(UnknownInterruptError, *self.args, **ids), ()


class InvalidAnswerError(ValueError):
    """An answer that does not fit the JSON schema of its question. Nothing was stored; the question can be answered again.

    An answer that does not fit a *type* is refused by pydantic's own `ValidationError`. `is_invalid_resume` knows both.
    """

    def __init__(self, message: str, *, interrupt_id: str, node: str, problem: str) -> None:
        super().__init__(message)
        self.interrupt_id = interrupt_id
        self.node = node
        self.problem = problem

    def __reduce__(self) -> tuple[Any, ...]:
        parts = {"interrupt_id": self.interrupt_id, "node": self.node, "problem": self.problem}
        return partial(InvalidAnswerError, *self.args, **parts), ()


def is_invalid_resume(error: BaseException) -> bool:
    """Was an answer refused because it does not fit its question's `response_schema`? Then nothing of it was stored, and
    the question can be answered again; `error.interrupt_id` names it."""
    return isinstance(error, ValueError) and isinstance(getattr(error, "interrupt_id", None), str)


class NodeInterrupt(GraphInterrupt):
    """Deprecated: raise a question by hand. Use `interrupt()`, whose answer can be given."""

    def __init__(self, value: Any, id: str = PLACEHOLDER_ID) -> None:
        super().__init__((Interrupt(value, id),))
