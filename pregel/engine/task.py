"""`Task`: one activation of one node in one superstep: its identity, its place in the order, and its body.

Decides task ids, the total order of tasks, and what a body is: node, then writers, then routers, all under the task's
scope (D30). Knows nothing of channels, runs, savers or which thread it is on.

Invariants
1. Same checkpoint, namespace, step and name (or index) give the same id, in every process (engine.md 2.5).
2. `order` is total and independent of completion: pull tasks by node name, then sends by index, then calls by parent.
3. The body calls user code and returns writes; it changes no engine state.
"""

from __future__ import annotations

from _blake2 import blake2b  # hashlib's own, without loading OpenSSL
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Coroutine, Generator
from contextvars import Context
from dataclasses import replace
from types import coroutine
from typing import Any

from pregel._call import Call
from pregel._scope import TaskScope, enter
from pregel.constants import NULL_TASK_ID, PULL, PUSH
from pregel.engine.program import Node, Returned, Write
from pregel.errors import Interrupt, ParentCommand
from pregel.messages import Message
from pregel.types import TimeoutPolicy

Path = tuple[Any, ...]

COPIERS: dict[type, Callable[[Any], Any]] = {
    list: list.copy,
    dict: dict.copy,
    set: set.copy,
    deque: deque.copy,
    OrderedDict: OrderedDict.copy,
    defaultdict: defaultdict.copy,
    Counter: Counter.copy,
    Message: Message.copy,
}
"""Exact type -> how a task gets a container of its own (D40). Any other type is shared."""

NO_COPIES: dict[type, Callable[[Any], Any]] = {}
"""`isolate="off"`."""


class Task:
    """One activation of one node. Fields below `writes` are set as it settles."""

    __slots__ = (
        "answers",
        "arg",
        "attempt",
        "call_index",
        "caller",
        "context",
        "error",
        "error_of",
        "first_attempt_at",
        "former",
        "future",
        "handled",
        "id_",
        "in_line",
        "index",
        "input",
        "interrupts",
        "key",
        "name",
        "node",
        "outcome",
        "parent",
        "provisional",
        "reapplied",
        "scope",
        "settled",
        "source",
        "started_at",
        "timeout",
        "took_loose",
        "writes",
    )

    arg: Any
    """For a called task that may be tried again: its arguments, which no attempt gets."""
    former: Task | None
    """For a called task: the one of the same call of an earlier attempt of the caller, which has failed."""
    in_line: bool
    """For a called task: had its caller waited for all that it called before?"""
    key: str | None
    """For a called task: what tells the call from others (`engine.calls`); None if nobody asks."""
    outcome: Any
    """For a called task that has finished: what its caller gets."""
    provisional: Collection[int]
    """Numbers of answers that were stored when the task had failed or was cut off; they may be given anew."""

    context: Context
    """Of a called task: its caller's as it was at the call, for further attempts."""

    def __init__(self, node: Node, input: Any, index: int = -1) -> None:
        self.node = node
        self.name = node.name
        self.input = input
        self.index = index
        """Position among the step's sends; -1 for a pull task."""
        self.writes: list[Write] | None = None
        """None until the task finished."""
        self.scope: TaskScope | None = None
        self.settled = False
        self.attempt = 1
        self.error: BaseException | None = None
        self.interrupts: tuple[Interrupt, ...] = ()
        self.answers: list[Any] | None = None
        """Answers to this task's questions so far, in the order they were asked; None until there is one."""
        self.id_: str | None = None
        self.parent: Task | None = None
        """The task that called this one, or whose failure this one handles."""
        self.error_of: Any = None
        """For an error handler: the `NodeError` it is given."""
        self.handled = False
        """Did the task fail, and an error handler take over?"""
        self.reapplied = False
        """Were its writes stored by an earlier run?"""
        self.timeout: TimeoutPolicy | None = node.timeout
        self.took_loose = False
        self.call_index = -1
        self.caller: TaskScope | None = None
        """For a called task: the attempt that called it."""
        self.future: Any = None
        self.started_at = 0.0
        self.first_attempt_at = 0.0

    def start_over(self) -> None:
        """Forget the outcome that an earlier run stored; what it was answered stays."""
        self.interrupts = ()
        self.error = None

    @property
    def is_pull(self) -> bool:
        """Woken by a channel, as opposed to sent, called or handling a failure."""
        return self.index < 0 and self.parent is None

    @property
    def path(self) -> Path:
        """Place in the step, as events and task metadata show it."""
        if self.parent is None:
            return (PULL, self.node.address) if self.index < 0 else (PUSH, self.index, False)
        if self.call_index >= 0:
            return (PUSH, self.parent.path, self.call_index, True)
        return (*self.parent.path[:3], "node_error_handler", False)

    @property
    def path_text(self) -> str:
        """The path as text, which is also the key of the order in which writes are applied."""
        if self.parent is None:
            return self.node.path_text if self.index < 0 else path_text(self.path)
        if self.call_index >= 0:  # spelled out: there may be many
            return f"~{PUSH}, {self.parent.path_text}, {self.call_index:010d}, {True:010d}"
        return path_text(self.path)

    @property
    def place_text(self) -> str:
        """What tells the task from others of its step when it runs again: calls by their key, others by the path."""
        key = getattr(self, "key", None)
        return self.path_text if key is None else f"{self.parent.place_text}\x1f{self.node.address}\x1f{key}"  # type: ignore[union-attr]

    @property
    def triggers(self) -> tuple[str, ...]:
        """Channels that can wake the node; the push marker for the other kinds of task."""
        return self.node.triggers if self.is_pull else (PUSH,)


def path_text(path: Any) -> str:
    """A path as text that sorts like the path: numbers padded, tuples marked (engine.md 2.5)."""
    if isinstance(path, tuple):
        return "~" + ", ".join(path_text(part) for part in path)
    return f"{path:010d}" if isinstance(path, int) else str(path)


def order(task: Task) -> str:
    """Sort key of the order in which writes are applied: the text of the whole path."""
    return task.path_text


def task_id(checkpoint_id: str, ns: str, task: Task, parent_id: str | None = None) -> str:
    """The id of a task: which checkpoint (its first 64 bits, the time) and which task of it (64 bits of a hash).

    Shown like a UUID. The hash is made once per graph and namespace, so an id costs one concatenation. The step needs no
    place in it: a checkpoint has one.
    """
    if task.parent is None:
        what = task.node.identity if task.index < 0 else f"{task.node.address}\x1f{PUSH}\x1f{task.index}"
    elif task.call_index >= 0:
        key = getattr(task, "key", None)
        if key is not None:
            # Seldom met again, so not remembered.
            text = _hash(f"{ns}\x1f{task.node.address}\x1f{PUSH}\x1f{parent_id}\x1f{key}").hexdigest()
            return f"{_head(checkpoint_id)}{text[:4]}-{text[4:16]}"
        what = f"{task.node.address}\x1f{PUSH}\x1f{path_text(task.parent.path)}\x1f{task.call_index}"
    else:
        what = f"{task.node.address}\x1f{PUSH}\x1fnode_error_handler\x1f{parent_id}"
    place = ns, what
    tail = _tails.get(place)
    if tail is None:
        if len(_tails) >= MAX_TAILS:
            _tails.clear()
        text = _hash("\x1f".join(place)).hexdigest()
        tail = _tails[place] = f"{text[:4]}-{text[4:16]}"
    if len(checkpoint_id) != UUID_LENGTH:
        checkpoint_id = digest([checkpoint_id])
    return checkpoint_id[:19] + tail


def _head(checkpoint_id: str) -> str:
    return (checkpoint_id if len(checkpoint_id) == UUID_LENGTH else digest([checkpoint_id]))[:19]


UUID_LENGTH = len(NULL_TASK_ID)
MAX_TAILS = 10_000
_tails: dict[tuple[str, str], str] = {}
"""Second halves of ids, by namespace and what identifies a task in its step; forgotten all at once when too many."""


def _hash(text: str) -> Any:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)


def digest(parts: list[str]) -> str:
    """128 bits over the parts, shown like a UUID."""
    text = _hash("\x1f".join(parts)).hexdigest()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def interrupt_id(task_namespace: str, question: int) -> str:
    """The id of a task's `question`-th question (from 0): 32 hex characters, stable across re-runs and processes."""
    text: str = _hash(f"{task_namespace}|{question}" if question else task_namespace).hexdigest()
    return text


assert len(NULL_TASK_ID) == len(digest([""]))


def call(scope: TaskScope) -> list[Write]:
    """Run a task's body: the node, its writers, its routers. The one frame of ours above user code."""
    enter(scope)
    task = scope.task
    node: Node = task.node
    fn = node.fn
    if fn is None:
        raise _only_async(node)
    try:
        result = fn(task.input) if node.inject is None else fn(task.input, **node.inject(scope))
    except ParentCommand as bubble:
        result = replace(bubble.args[0], graph=None)
    writes: list[Write] = scope.writes or []
    if node.write is not None:
        try:
            node.write(result, scope, writes)
        except Returned as returned:
            result = _run_returned(returned.call, scope)
            node.write(result, scope, writes)
    for router in node.routers:
        router.route(result, scope, writes)
    return writes


def _only_async(node: Node) -> TypeError:
    return TypeError(
        f"node '{node.name}' has only an async function; run the graph with ainvoke or astream, or give the node a "
        f"sync function"
    )


def _run_returned(returned: Call, scope: TaskScope) -> Any:
    """What a graph or runnable that a node returned makes of the node's own input."""
    if returned.fn is None:
        raise TypeError(
            f"node '{scope.task.name}' returned {returned.name!r}, which has only an async form; run the graph with ainvoke"
        )
    return returned.fn(scope.task.input, **({} if returned.inject is None else returned.inject(scope)))


async def acall(scope: TaskScope) -> list[Write]:
    """Async form of `call`, for a node that has an async function, or none at all."""
    enter(scope)
    task = scope.task
    node: Node = task.node
    try:
        if node.afn is None:
            assert node.fn is not None
            result = node.fn(task.input)
        elif node.inject is None:
            result = await node.afn(task.input)
        else:
            result = await node.afn(task.input, **node.inject(scope))
    except ParentCommand as bubble:
        result = replace(bubble.args[0], graph=None)
    writes: list[Write] = scope.writes or []
    if node.write is not None:
        try:
            node.write(result, scope, writes)
        except Returned as returned:
            if returned.call.afn is None:
                result = _run_returned(returned.call, scope)
            else:
                inject = returned.call.inject
                result = await returned.call.afn(task.input, **({} if inject is None else inject(scope)))
            node.write(result, scope, writes)
    for router in node.routers:
        await router.aroute(result, scope, writes)
    return writes


def call_node(scope: TaskScope, other: Node | None = None) -> tuple[Any, list[Write]]:
    """The first half of a sync body whose routers are async, or that is kept: the task's node, or another,
    and its writers."""
    enter(scope)
    task = scope.task
    node: Node = task.node if other is None else other
    if node.fn is None:
        raise _only_async(node)
    try:
        result = node.fn(task.input) if node.inject is None else node.fn(task.input, **node.inject(scope))
    except ParentCommand as bubble:
        result = replace(bubble.args[0], graph=None)
    writes: list[Write] = scope.writes or []
    if node.write is not None:
        try:
            node.write(result, scope, writes)
        except Returned as returned:
            result = _run_returned(returned.call, scope)
            node.write(result, scope, writes)
    return result, writes


async def acall_node(scope: TaskScope, node: Node) -> tuple[Any, list[Write]]:
    """The first half of an async body that is kept: the node and its writers."""
    enter(scope)
    task = scope.task
    assert node.afn is not None
    try:
        result = await node.afn(task.input, **({} if node.inject is None else node.inject(scope)))
    except ParentCommand as bubble:
        result = replace(bubble.args[0], graph=None)
    writes: list[Write] = scope.writes or []
    if node.write is not None:
        try:
            node.write(result, scope, writes)
        except Returned as returned:
            if returned.call.afn is None:
                result = _run_returned(returned.call, scope)
            else:
                inject = returned.call.inject
                result = await returned.call.afn(task.input, **({} if inject is None else inject(scope)))
            node.write(result, scope, writes)
    return result, writes


async def acall_routers(scope: TaskScope, result: Any, writes: list[Write]) -> None:
    """The second half of such a body."""
    enter(scope)
    for router in scope.task.node.routers:
        await router.aroute(result, scope, writes)


@coroutine
def paced(
    body: Coroutine[Any, Any, Any], host: Any, room: Callable[[], Coroutine[Any, Any, None]]
) -> Generator[Any, Any, Any]:
    """Await a coroutine. Each time that what it awaits has come, it goes on only after `room()`, if its host is crowded:
    a body on an event loop cannot be made to wait where it shows something."""
    step: Callable[[Any], Any] = body.send
    argument: Any = None
    while True:
        try:
            yielded = step(argument)
        except StopIteration as stop:
            return stop.value
        try:
            argument = yield yielded
            if host.is_crowded:
                yield from room()
        except GeneratorExit:
            body.close()
            raise
        except BaseException as error:  # noqa: BLE001 - cancellation goes where the coroutine waits
            step, argument = body.throw, error
        else:
            step = body.send


@coroutine
def in_context(body: Coroutine[Any, Any, Any], context: Context) -> Generator[Any, Any, Any]:
    """Await a coroutine in a context of its own, without the cost of an asyncio task (D39)."""
    run = context.run
    step: Callable[[Any], Any] = body.send
    argument: Any = None
    while True:
        try:
            yielded = run(step, argument)
        except StopIteration as stop:
            return stop.value
        try:
            argument = yield yielded
        except GeneratorExit:
            run(body.close)
            raise
        except BaseException as error:  # noqa: BLE001 - cancellation goes where the coroutine waits
            step, argument = body.throw, error
        else:
            step = body.send
