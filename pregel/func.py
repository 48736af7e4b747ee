"""Workflows as plain functions: `entrypoint` makes a graph of one, `task` a function whose calls are tasks.

Decides what may be decorated, under which name it goes, and what an entrypoint's return value means; compiles both down
through public names: an entrypoint is a `Pregel` with one node, a task is a node that no channel wakes, and calling it is
`TaskScope.spawn`. Runs nothing and knows nothing of threads, loops, savers or results: futures come from the driver of
the run that the caller is part of, and which stored result belongs to which call is the engine's to say.

Invariants
1. Decorating calls nothing of the user's, and changes nothing on what it decorates.
2. A call of a task costs no look at its signature: what it takes from the run was worked out at decoration.
"""

from __future__ import annotations

import functools
import inspect
import typing
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, overload

from typing_extensions import ParamSpec, Unpack

from checkpoint import registry
from pregel import _scope
from pregel._call import (
    Call,
    Injector,
    annotations_of,
    enclosed_classes,
    first_annotation,
    injected,
    prepare,
    return_annotation,
    written_return,
)
from pregel._policies import retry_policies
from pregel._scope import TaskScope
from pregel._subgraphs import find_subgraphs
from pregel.channels import EphemeralValue, LastValue
from pregel.constants import END, MISSING, PREVIOUS, RETURN, START
from pregel.errors import shown
from pregel.pregel import NodeBuilder, Pregel, PregelNode, callable_node
from pregel.types import CachePolicy, Checkpointer, RetryPolicy, TimeoutPolicy
from pregel.warnings import PregelDeprecationWarning, stack_level

if TYPE_CHECKING:
    from collections.abc import Generator
    from concurrent.futures import Future

    from pregel.cache.base import BaseCache
    from pregel.store.base import BaseStore

    T_co = TypeVar("T_co")

    class SyncAsyncFuture(Future[T_co]):
        """What a call of a task returns: `.result()` in sync code, `await` in async code."""

        def __await__(self) -> Generator[Any, None, T_co]: ...


__all__ = ["TaskFunction", "entrypoint", "task"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")
ContextT = TypeVar("ContextT")

Policies = RetryPolicy | Sequence[RetryPolicy] | None
Limit = float | timedelta | TimeoutPolicy | None


# ---- tasks


class TaskFunction(Generic[P, T]):
    """A function whose calls are tasks; made by `task`.

    Attributes:
        func: The function itself, which can be called and tested outside of a run.
        retry_policy: Policies, tried in order; empty for those of the graph.
        cache_policy: When a stored result stands for a call with equal arguments.
        timeout: Limit of one attempt.
    """

    __name__: str
    __wrapped__: Callable[..., Any]

    def __init__(
        self,
        func: Callable[P, Awaitable[T]] | Callable[P, T],
        *,
        name: str | None = None,
        retry_policy: Sequence[RetryPolicy] = (),
        cache_policy: CachePolicy[Any] | None = None,
        timeout: Limit = None,
    ) -> None:
        call = _prepared(func, "task", name)
        functools.update_wrapper(cast("Callable[..., Any]", self), func)
        self.__name__ = call.name
        self.func: Callable[P, Any] = func
        self.retry_policy = retry_policy
        self.cache_policy = cache_policy
        self.timeout = TimeoutPolicy.coerce(timeout)
        self._node = callable_node(
            call.name,
            PregelNode(
                channels=[],
                triggers=[],
                bound=_with_arguments(call),
                write=_return,
                retry_policy=retry_policy,
                cache_policy=cache_policy,
                timeout=self.timeout,
            ),
        )
        _register_types(func)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> SyncAsyncFuture[T]:
        """Start a task; returns its future at once. In a sync run, and in a thread of an async one, that is a
        `concurrent.futures.Future`, on an event loop an asyncio one.

        When the body around the call runs again, after a question, an error or a crash, the task's stored result is
        given to the call with the same arguments, and the function does not run.

        Raises:
            RuntimeError: outside of a running node, task or entrypoint; or the function is async and the run is not.
        """
        scope = _scope.current_or_none()
        if scope is None:
            raise RuntimeError(
                f"task {self.__name__!r} was called outside of a running graph; call it inside an entrypoint, a node or "
                f"another task, call {self.__name__}.func to run just the function, and start own threads with "
                f"contextvars.copy_context().run"
            )
        future: SyncAsyncFuture[T] = scope.spawn(self._node, (args, kwargs))
        return future

    def _namespace(self) -> tuple[str, str, str]:
        from pregel.cache.keys import namespace_of  # noqa: PLC0415 - a lazy door

        return namespace_of(self.__name__, self.func)

    def clear_cache(self, cache: BaseCache[Any]) -> None:
        """Forget what the cache has of this task, for all arguments."""
        cache.clear([self._namespace()])

    async def aclear_cache(self, cache: BaseCache[Any]) -> None:
        """Async form of `clear_cache`."""
        await cache.aclear([self._namespace()])

    def __repr__(self) -> str:
        return f"<task {self.__name__!r}>"


class _Decorator(Protocol):
    @overload
    def __call__(self, func: Callable[P, Awaitable[T]], /) -> TaskFunction[P, T]: ...
    @overload
    def __call__(self, func: Callable[P, T], /) -> TaskFunction[P, T]: ...


class _Former(typing.TypedDict, total=False):
    """Keyword arguments in their former spelling."""

    retry: Policies


class _FormerEntrypoint(_Former, total=False):
    config_schema: type[Any] | None


@overload
def task(
    func: None = None,
    /,
    *,
    name: str | None = None,
    retry_policy: Policies = None,
    cache_policy: CachePolicy[Any] | None = None,
    timeout: Limit = None,
    **former: Unpack[_Former],
) -> _Decorator: ...
@overload
def task(
    func: Callable[P, Awaitable[T]],
    /,
    *,
    name: str | None = None,
    retry_policy: Policies = None,
    cache_policy: CachePolicy[Any] | None = None,
    timeout: Limit = None,
    **former: Unpack[_Former],
) -> TaskFunction[P, T]: ...
@overload
def task(
    func: Callable[P, T],
    /,
    *,
    name: str | None = None,
    retry_policy: Policies = None,
    cache_policy: CachePolicy[Any] | None = None,
    timeout: Limit = None,
    **former: Unpack[_Former],
) -> TaskFunction[P, T]: ...
def task(
    func: Any = None,
    /,
    *,
    name: str | None = None,
    retry_policy: Policies = None,
    cache_policy: CachePolicy[Any] | None = None,
    timeout: Limit = None,
    **former: Unpack[_Former],
) -> Any:
    """Make a function one whose calls are tasks: recorded, run at the same time, tried again, limited in time.

    Usable as `@task`, `@task(...)`, `task(function)` and `task(...)(function)`, with any callable.

    Args:
        func: a function, coroutine function, lambda, bound method, partial, or an object with `__call__`.
        name: what the task is called in streams, errors and ids; the function's name if None. Results of a paused run are
            found under it.
        retry_policy: when an attempt that failed is tried again; the graph's if None.
        cache_policy: in a graph with a cache: equal calls are answered from it; the graph's if None.
        timeout: seconds, timedelta or policy: the limit of one attempt, of sync functions too.

    Raises:
        TypeError: it cannot be called.
        NotImplementedError: it is a generator function.
        ValueError: the timeout is not greater than 0, or the name has `|` or `:` in it.
    """
    retry_policy = _moved("retry", "retry_policy", retry_policy, cast("dict[str, Any]", former), "task")

    def decorate(function: Callable[..., Any]) -> TaskFunction[..., Any]:
        return TaskFunction(
            function,
            name=name,
            retry_policy=retry_policies(retry_policy, "task"),
            cache_policy=cache_policy,
            timeout=timeout,
        )

    return decorate if func is None else decorate(func)


def _return(result: Any, scope: TaskScope, writes: list[tuple[str, Any]]) -> None:
    """The write of a task."""
    writes.append((RETURN, scope.hand_over(result)))


def _with_arguments(call: Call) -> Call:
    """A call that takes (args, kwargs) as its input. What the run has for a parameter yields to what the caller passes."""
    function: Any = call.fn if call.afn is None else call.afn

    def run(input: Any, **more: Any) -> Any:
        return function(*input[0], **input[1], **more)

    wanted = injected(function)

    def fill(scope: TaskScope) -> dict[str, Any]:
        args, keywords = scope.task.input
        return {name: get(scope) for name, place, get in wanted if name not in keywords and not place < len(args)}

    inject: Injector | None = fill if wanted else None
    is_async = call.afn is not None
    return Call(call.name, None if is_async else run, run if is_async else None, inject, call.subject)


# ---- entrypoints


class entrypoint(Generic[ContextT]):
    """Make a function a graph of one node: `invoke`, `stream`, `get_state` and all other methods of `Pregel`.

    The function gets the input as its first argument, and may take `config`, `runtime`, `store`, `writer` and `previous`
    by name. What it returns is the output, and is `previous` in the next run of the thread; `entrypoint.final` tells
    the two apart.

    Args:
        checkpointer: where runs are stored; None, True or False as for a nested graph.
        store: for `runtime.store`.
        cache: for tasks with a cache policy.
        context_schema: type of `runtime.context`; a dict is made one.
        cache_policy: of the whole entrypoint, and of tasks that have none.
        retry_policy: of the entrypoint, and of tasks that have none. A further attempt finds the results of the tasks
            that have finished.
        timeout: seconds, timedelta or policy: the limit of one attempt.
        strict: what is a `PregelWarning` otherwise is raised.
    """

    def __init__(
        self,
        checkpointer: Checkpointer = None,
        store: BaseStore | None = None,
        cache: BaseCache[Any] | None = None,
        context_schema: type[ContextT] | None = None,
        cache_policy: CachePolicy[Any] | None = None,
        retry_policy: Policies = None,
        timeout: Limit = None,
        *,
        strict: bool = False,
        **former: Unpack[_FormerEntrypoint],
    ) -> None:
        if inspect.isroutine(checkpointer):
            raise TypeError(
                f"@entrypoint got the function {checkpointer.__name__!r} as its checkpointer; write @entrypoint() with "
                f"parentheses"
            )
        given = cast("dict[str, Any]", former)
        context_schema = _moved("config_schema", "context_schema", context_schema, given, "entrypoint")
        retry_policy = _moved("retry", "retry_policy", retry_policy, given, "entrypoint")
        self.checkpointer = checkpointer
        self.store = store
        self.cache = cache
        self.context_schema = context_schema
        self.cache_policy = cache_policy
        self.retry_policy = retry_policies(retry_policy, "entrypoint")
        self.timeout = TimeoutPolicy.coerce(timeout)
        self.strict = strict

    @dataclass(frozen=True, kw_only=True)
    class final(Generic[R, S]):
        """What an entrypoint returns if the next run is to get something else than the caller."""

        value: R
        """For the caller and the streams."""
        save: S
        """For `previous` of the next run."""

    def __call__(self, func: Callable[..., Any]) -> Pregel:
        """The graph of a function.

        Raises:
            TypeError: it cannot be called, or `final` is annotated with one type.
            NotImplementedError: it is a generator function.
            ValueError: it has no parameter for the input.
        """
        call = _prepared(func, "entrypoint", None)
        parameters = _parameters(func, call)
        if not parameters:
            raise ValueError(
                f"entrypoint {call.name!r} has no parameter; the first one takes the input: def {call.name}(value)"
            )
        value_type, save_type = _types_returned(func, call.name)
        builder = NodeBuilder().subscribe_only(START).do(func).write_to(**{END: _value_of, PREVIOUS: _save_of})
        if self.timeout is not None:
            builder.set_timeout(self.timeout)
        if self.cache_policy is not None:
            builder.add_cache_policy(self.cache_policy)
        node = builder.build()
        node.subgraphs = find_subgraphs(func)
        taken = first_annotation(func)
        _register_types(func)
        registry.register_module(getattr(func, "__module__", None) or "")
        if self.context_schema is not None:
            registry.register_reachable(self.context_schema)
        return Pregel(
            nodes={call.name: node},
            channels={
                START: EphemeralValue(Any if taken is None else taken),
                END: LastValue(value_type, END),
                PREVIOUS: LastValue(save_type, PREVIOUS),
            },
            input_channels=START,
            output_channels=END,
            stream_channels=END,
            stream_mode="updates",
            stream_eager=True,
            checkpointer=self.checkpointer,
            store=self.store,
            cache=self.cache,
            cache_policy=self.cache_policy,
            retry_policy=self.retry_policy,
            context_schema=self.context_schema,
            strict=self.strict,
        )


def _value_of(result: Any) -> Any:
    return result.value if isinstance(result, entrypoint.final) else result


def _save_of(result: Any) -> Any:
    return result.save if isinstance(result, entrypoint.final) else result


def _parameters(func: Any, call: Call) -> list[inspect.Parameter]:
    """Parameters that a positional input can go to."""
    try:
        parameters = inspect.signature(call.fn or call.afn or func).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not tell
        return [inspect.Parameter("value", inspect.Parameter.POSITIONAL_ONLY)]
    return [p for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]


def _types_returned(func: Any, name: str) -> tuple[Any, Any]:
    """Types of the output and of what is saved, by the return annotation.

    Raises:
        TypeError: `final` has one type.
    """
    annotation = return_annotation(func)
    if annotation is None:
        text = written_return(func)
        if isinstance(text, str) and "final[" in text and "," not in text:
            raise TypeError(
                f"entrypoint {name!r} is annotated with {text!r}; final takes two types: of the value that is returned, "
                f"and of the value that is saved"
            )
        return Any, Any
    if annotation is entrypoint.final:
        return Any, Any
    if typing.get_origin(annotation) is entrypoint.final:
        value_type, save_type = typing.get_args(annotation)
        return value_type, save_type
    return annotation, annotation


# ---- both


def _prepared(func: Any, what: str, name: str | None) -> Call:
    """The call shape of what is decorated.

    Raises:
        TypeError: it cannot be called.
        NotImplementedError: it is a generator function.
        ValueError: its name cannot be used in namespaces.
    """
    if not callable(func):
        raise TypeError(
            f"{what} got {shown(func)} ({type(func).__name__}), which cannot be called; decorate a function"
            + (f", and write @{what}() with parentheses" if what == "entrypoint" else "")
        )
    if name is None:
        inner = getattr(func, "func", None)
        found = getattr(func, "__name__", None) or getattr(inner, "__name__", None) or type(func).__name__
        name = str(found)
    if "|" in name or ":" in name:
        raise ValueError(
            f"{what} name {name!r} has '|' or ':' in it, which separate the parts of a namespace; rename it"
        )
    called = func if inspect.isroutine(func) or isinstance(func, functools.partial) else getattr(func, "__call__", func)  # noqa: B004
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise NotImplementedError(
            f"{what} {name!r} is a generator function; generators are not supported here: return a list, or show "
            f"parts of the result with get_stream_writer()"
        )
    return prepare(func, name=name)


def _register_types(func: Any) -> None:
    """Let everything be stored that the annotations name (D35); what is defined later is found when it is stored (D48)."""
    seen: dict[int, Any] = {}
    for annotation in annotations_of(func, seen):
        registry.register_reachable(annotation, seen)
    for cls in enclosed_classes(func):
        registry.register_reachable(cls, seen)


def _moved(former: str, name: str, value: Any, given: dict[str, Any], where: str) -> Any:
    """The value of a parameter that may be given in its former spelling.

    Raises:
        TypeError: something else is given as well.
    """
    old = given.pop(former, MISSING)
    unknown = [key for key in given if key not in ("retry", "config_schema")]
    if unknown:
        raise TypeError(f"{where}() got an unexpected keyword argument {unknown[0]!r}")
    if old is MISSING:
        return value
    warnings.warn(
        f"{where}({former}=...) is the former name of {name}; use {name}=",
        PregelDeprecationWarning,
        stacklevel=stack_level(),
    )
    return old if value is None else value
