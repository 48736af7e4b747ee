"""`Call`: a user's callable whose shape was worked out once, before any run.

Decides how an object is called (function, coroutine function, generator, something with `invoke`, compiled graph),
under which name it goes, and which keyword arguments it wants from the task (frontends.md 1.4). Reads annotations
without importing or failing: what cannot be resolved counts as absent. Knows nothing of graphs, schemas or runs; the
values it injects come from a `TaskScope`. Called by both front ends and by `NodeBuilder`.

Invariants
1. Preparing runs no user code but annotation text and `get_name()`/`as_call()` of graphs.
2. `invoke`/`ainvoke` are looked up on the type, never on the instance: an object that answers every attribute is
   called.
3. A function without annotations costs no signature, no type hints: a few attribute reads.

Source: pluggy's `varnames` (pay at registration).
"""

from __future__ import annotations

import builtins
import functools
import inspect
import math
import types
import typing
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator
from typing import Annotated, Any, Final, Literal

from pregel._scope import TaskScope
from pregel.constants import MISSING
from pregel.errors import shown
from pregel.types import Command, StreamWriter
from pregel.warnings import PregelWarning, stack_level

__all__ = [
    "Call",
    "Injector",
    "annotations_of",
    "declared_ends",
    "enclosed_classes",
    "first_annotation",
    "injected",
    "injection",
    "is_graph",
    "is_runnable",
    "literals",
    "prepare",
    "return_annotation",
    "returns",
    "written_return",
]

Injector = Callable[[TaskScope], dict[str, Any]]

ABSENT: Final = inspect.Parameter.empty
_POSITIONAL_ONLY: Final = inspect.Parameter.POSITIONAL_ONLY
_POSITIONAL_OR_KEYWORD: Final = inspect.Parameter.POSITIONAL_OR_KEYWORD


class Call:
    """How to call one user object.

    Attributes:
        name: What it is called in graphs, streams and errors.
        fn: `fn(input, **injected)`, or None if the object can only be awaited.
        afn: `await afn(input, **injected)`, or None if the object can only be called.
        inject: Keyword arguments for one attempt, or None when there are none.
        subject: The object itself.
        ends: Node names that a return annotation `Command[Literal[...]]` declares.
    """

    __slots__ = ("afn", "ends", "fn", "inject", "name", "subject")

    def __init__(
        self,
        name: str,
        fn: Callable[..., Any] | None,
        afn: Callable[..., Awaitable[Any]] | None,
        inject: Injector | None,
        subject: Any,
        ends: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.fn = fn
        self.afn = afn
        self.inject = inject
        self.subject = subject
        self.ends = ends

    def __repr__(self) -> str:
        return f"Call({self.name})"


def prepare(subject: Any, *, name: str | None = None) -> Call:
    """The call shape of anything that can be a node, a router or a handler.

    Raises:
        TypeError: `subject` is neither callable nor has `invoke` or `ainvoke`.
    """
    if type(subject) is types.FunctionType:
        return _of_callable(subject, subject, subject.__name__ if name is None else name)
    if is_graph(subject):
        call: Call = subject.as_call()
        return call if name is None else Call(name, call.fn, call.afn, call.inject, subject, call.ends)
    if is_runnable(subject):
        return _of_runnable(subject, _name_of(subject) if name is None else name)
    if callable(subject):
        called = subject
        if not isinstance(subject, (types.MethodType, types.BuiltinFunctionType, functools.partial, type)):
            called = _bound(subject, "__call__")
        return _of_callable(subject, called, _name_of(subject) if name is None else name)
    if hasattr(type(subject), "invoke") or hasattr(type(subject), "ainvoke"):
        return _of_runnable(subject, _name_of(subject) if name is None else name)
    raise TypeError(
        f"got {shown(subject)} ({type(subject).__module__}.{type(subject).__qualname__}), which cannot be called; "
        f"expected a function, a callable object, a compiled graph, or an object with invoke() or ainvoke()"
    )


def is_graph(subject: Any) -> bool:
    """Whether `subject` is a compiled graph."""
    return hasattr(type(subject), "as_call")


def is_runnable(subject: Any) -> bool:
    """Whether `subject` is a langchain-core runnable, told by the module of its base class; nothing is imported."""
    return any(
        base.__name__ == "Runnable" and base.__module__.startswith("langchain_core.") for base in type(subject).__mro__
    )


# ---- names


def _name_of(subject: Any) -> str:
    if is_runnable(subject):
        given = subject.get_name()
        return str(given)
    given = getattr(subject, "__name__", None)
    return given if isinstance(given, str) else type(subject).__name__


# ---- calling


def _bound(subject: Any, method: str) -> Any:
    """A method as the interpreter would find it: on the type, past any attribute of the instance."""
    found = getattr(type(subject), method)
    get = getattr(type(found), "__get__", None)
    return found if get is None else get(found, subject, type(subject))


def _of_callable(subject: Any, called: Any, name: str) -> Call:
    inject = injection(called)
    annotation = return_annotation(subject)
    ends = () if annotation is None else declared_ends(annotation)
    if type(called) is types.FunctionType:
        flags = called.__code__.co_flags
        if not flags & _NOT_PLAIN and not called.__dict__:
            return Call(name, called, None, inject, subject, ends)
    if inspect.iscoroutinefunction(called):
        return Call(name, None, called, inject, subject, ends)
    if inspect.isgeneratorfunction(called):
        return Call(name, _drained(called), None, inject, subject, ends)
    if inspect.isasyncgenfunction(called):
        return Call(name, None, _adrained(called), inject, subject, ends)
    return Call(name, called, None, inject, subject, ends)


_NOT_PLAIN: Final = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def _of_runnable(subject: Any, name: str) -> Call:
    kind = type(subject)
    takers = [getattr(kind, method) for method in ("invoke", "ainvoke") if hasattr(kind, method)]
    wants_config = any(_takes_config(taker) for taker in takers)
    fn = _bound(subject, "invoke") if hasattr(kind, "invoke") else None
    afn = _bound(subject, "ainvoke") if hasattr(kind, "ainvoke") else None
    if wants_config:
        # The second parameter may have any name, so it is passed by place.
        fn = None if fn is None else _second(fn, _takes_config(kind.invoke))
        afn = None if afn is None else _second(afn, _takes_config(kind.ainvoke))
    return Call(name, fn, afn, _inject_config if wants_config else None, subject)


def _second(method: Callable[..., Any], takes_config: bool) -> Callable[..., Any]:
    def call(input: Any, *, config: Any) -> Any:
        return method(input, config) if takes_config else method(input)

    return call


def _takes_config(method: Any) -> bool:
    """Whether an unbound `invoke(self, input, ...)` has a place for a config."""
    try:
        parameters = list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):
        return False
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    is_method = isinstance(method, types.FunctionType)
    return len(places) >= 2 + is_method or any(p.kind is p.VAR_POSITIONAL for p in parameters)


def _joined(result: Any, chunk: Any) -> Any:
    """What a generator has produced so far: sums where chunks can be added, otherwise the last one."""
    if result is MISSING or result is None:
        return chunk
    try:
        return result + chunk
    except TypeError:
        return chunk


def _drained(function: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
    def call(input: Any, **injected: Any) -> Any:
        result: Any = MISSING
        for chunk in function(input, **injected):
            result = _joined(result, chunk)
        return None if result is MISSING else result

    return call


def _adrained(function: Callable[..., AsyncIterator[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(input: Any, **injected: Any) -> Any:
        result: Any = MISSING
        async for chunk in function(input, **injected):
            result = _joined(result, chunk)
        return None if result is MISSING else result

    return call


# ---- injection


def _inject_config(scope: TaskScope) -> dict[str, Any]:
    return {"config": scope.config}


def _inject_runtime(scope: TaskScope) -> dict[str, Any]:
    return {"runtime": scope.runtime}


_VALUES: Final[dict[str, Callable[[TaskScope], Any]]] = {
    "config": lambda scope: scope.config,
    "runtime": lambda scope: scope.runtime,
    "writer": lambda scope: scope.runtime.stream_writer,
    "store": lambda scope: scope.runtime.store,
    "previous": lambda scope: scope.runtime.previous,
    "error": lambda scope: getattr(scope.task, "error_of", None),
}


def injection(called: Any, *, has_input: bool = True) -> Injector | None:
    """The keyword arguments that a callable takes from its task, or None.

    Args:
        called: what is going to be called; for a callable object its bound `__call__`.
        has_input: the first positional parameter takes the input, and is never injected whatever its name.
    """
    names = tuple(n for n, annotation in _candidates(called, has_input) if _accepts(n, annotation, called))
    if not names:
        return None
    if names == ("config",):
        return _inject_config
    if names == ("runtime",):
        return _inject_runtime
    getters = tuple((name, _VALUES[name]) for name in names)
    return lambda scope: {name: get(scope) for name, get in getters}


def injected(called: Any) -> list[tuple[str, float, Callable[[TaskScope], Any]]]:
    """Parameters of a callable that its task can fill: name, place among the positional ones (infinite for one that goes
    by name alone), and what gets the value. None of them is taken for the input."""
    names = [name for name, annotation in _candidates(called, has_input=False) if _accepts(name, annotation, called)]
    if not names:
        return []
    parameters = inspect.signature(called).parameters
    places = [name for name, p in parameters.items() if p.kind in (_POSITIONAL_ONLY, _POSITIONAL_OR_KEYWORD)]
    return [(name, places.index(name) if name in places else math.inf, _VALUES[name]) for name in names]


def _candidates(called: Any, has_input: bool) -> list[tuple[str, Any]]:
    """Parameters with an injectable name that can be passed by keyword, and their annotations."""
    function, n_bound = called, 0
    if type(called) is types.MethodType:
        function, n_bound = called.__func__, 1
    if type(function) is types.FunctionType and not function.__dict__:
        code = function.__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if _VALUES.keys().isdisjoint(names):
            return []
        first = max(min(n_bound + has_input, code.co_argcount), code.co_posonlyargcount)
        return [(n, function.__annotations__.get(n, ABSENT)) for n in names[first:] if n in _VALUES]
    try:
        parameters = list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):  # builtins without a signature
        return []
    if has_input and parameters and parameters[0].kind in (_POSITIONAL_ONLY, _POSITIONAL_OR_KEYWORD):
        del parameters[0]
    given = called.keywords if isinstance(called, functools.partial) else {}
    return [
        (p.name, p.annotation)
        for p in parameters
        if p.name in _VALUES and p.name not in given and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        if _passes_on(function, p.name)
    ]


def _passes_on(function: Any, name: str) -> bool:
    """Whether a wrapper, which shows the signature of what it wraps, takes that keyword itself."""
    if not isinstance(function, types.FunctionType) or not hasattr(function, "__wrapped__"):
        return True
    code = function.__code__
    own = code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
    return bool(code.co_flags & inspect.CO_VARKEYWORDS) or name in own


def _accepts(name: str, annotation: Any, called: Any) -> bool:
    if name in ("runtime", "previous"):
        return True
    if name == "error":
        return _class_names(annotation) == {"NodeError"}
    if annotation is ABSENT:
        return True
    if name == "store":
        return _class_names(annotation) == {"BaseStore"}
    if name == "writer":
        return annotation == StreamWriter or _class_names(annotation) == {"StreamWriter"}
    if _class_names(annotation) == {"RunnableConfig"}:
        return True
    warnings.warn(
        f"parameter 'config' of {_name_of(called)!r} is annotated with {shown(annotation)}, so it is not filled; "
        f"annotate it with RunnableConfig or RunnableConfig | None, or give it another name",
        PregelWarning,
        stacklevel=stack_level(),
    )
    return False


def _class_names(annotation: Any) -> set[str]:
    """Last names of the classes an annotation names, None left out: `"types.A | None"` and `Optional[A]` give A."""
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        text = annotation.strip().strip("'\"")
        head, bracket, rest = text.partition("[")
        if bracket and head.rpartition(".")[2] in ("Optional", "Union", "Annotated") and rest.endswith("]"):
            parts = rest[:-1].split(",")
            return set().union(*map(_class_names, parts[:1] if "Annotated" in head else parts))
        if "|" in text and not bracket:
            return set().union(*map(_class_names, text.split("|")))
        return set() if text == "None" else {text.rpartition(".")[2]}
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _class_names(typing.get_args(annotation)[0])
    if origin is typing.Union or origin is types.UnionType:
        return set().union(*map(_class_names, typing.get_args(annotation)))
    if annotation is type(None) or annotation is None:
        return set()
    named = annotation if origin is None else origin
    return {getattr(named, "__name__", repr(named))}


# ---- annotations


def _function_of(subject: Any) -> tuple[types.FunctionType, int] | None:
    """The innermost function that a callable's annotations belong to, and how many leading parameters are bound."""
    function: Any
    n_bound = 0
    if isinstance(subject, types.MethodType):
        function, n_bound = subject.__func__, 1
    elif isinstance(subject, types.FunctionType):
        function = subject
    elif isinstance(subject, (type, functools.partial, types.BuiltinFunctionType)):
        return None
    else:
        function, n_bound = getattr(type(subject), "__call__", None), 1  # noqa: B004 - the function, not a test
    while isinstance(wrapped := getattr(function, "__wrapped__", None), types.FunctionType):
        function = wrapped
    return (function, n_bound) if isinstance(function, types.FunctionType) else None


def first_annotation(subject: Any) -> Any:
    """The resolved annotation of the parameter that takes the input; None if absent or not resolvable."""
    found = _function_of(subject)
    if found is None or not found[0].__annotations__:
        return None
    function, n_bound = found
    code = function.__code__
    if n_bound >= code.co_argcount:
        return None
    return _resolved(function.__annotations__.get(code.co_varnames[n_bound]), function)


def return_annotation(subject: Any) -> Any:
    """The resolved return annotation; None if absent or not resolvable."""
    found = _function_of(subject)
    if found is None or not found[0].__annotations__:
        return None
    return _resolved(found[0].__annotations__.get("return"), found[0])


def written_return(subject: Any) -> Any:
    """The return annotation as it is written, text or object; None if absent."""
    found = _function_of(subject)
    return None if found is None else found[0].__annotations__.get("return")


def returns(subject: Any, texts: dict[Any, Any] | None = None) -> Any:
    """The resolved return annotation, `NoneType` for None; MISSING if absent or not resolvable.

    `texts` remembers what text meant in the same place before: evaluating it costs more than all the rest.
    """
    found = _function_of(subject)
    written = MISSING if found is None else found[0].__annotations__.get("return", MISSING)
    if found is None or written is MISSING:
        return MISSING
    if written is None or (isinstance(written, str) and written == "None"):
        return types.NoneType
    place = None
    if texts is not None and isinstance(written, str):
        code = found[0].__code__
        place = written, id(found[0].__globals__), code if code.co_freevars else None
        if place in texts:
            return texts[place]
    resolved = _resolved(written, found[0])
    resolved = MISSING if resolved is None else resolved
    if texts is not None and place is not None:
        texts[place] = resolved
    return resolved


def annotations_of(subject: Any, seen: Container[int] = (), texts: set[Any] | None = None) -> list[Any]:
    """All annotations of a callable that can be resolved, except those whose `id` is in `seen`.

    Text that was resolved in the same place before is left out too, if `texts` remembers it: evaluating it costs more than
    all the rest, and functions of one module mostly name the same types.
    """
    found = _function_of(subject)
    if found is None:
        return []
    function = found[0]
    resolved = []
    for annotation in function.__annotations__.values():
        if id(annotation) in seen:
            continue
        if texts is not None and isinstance(annotation, str):
            place = annotation, id(function.__globals__), function.__code__.co_freevars and function.__code__
            if place in texts:
                continue
            texts.add(place)
        if (it := _resolved(annotation, function)) is not None:
            resolved.append(it)
    return resolved


def enclosed_classes(subject: Any) -> list[type]:
    """Classes that a callable uses and that are local to a function around it."""
    while isinstance(subject, functools.partial):
        subject = subject.func
    found = _function_of(subject)
    if found is None:
        return []
    # `type(...)`, because `isinstance` would run the `__class__` property of lazy proxies.
    return [value for value in _enclosed(found[0]).values() if issubclass(type(value), type)]


def _enclosed(function: types.FunctionType) -> dict[str, Any]:
    """What a function uses of the functions around it, by name."""
    values = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return values


def _has_text(annotation: Any) -> bool:
    """Whether there is text in a type expression that still has to be evaluated."""
    if isinstance(annotation, (str, typing.ForwardRef)):
        return True
    args = getattr(annotation, "__args__", None)
    return isinstance(args, tuple) and typing.get_origin(annotation) is not Literal and any(map(_has_text, args))


def _resolved(annotation: Any, function: types.FunctionType) -> Any:
    if annotation is None or isinstance(annotation, type) or not _has_text(annotation):
        return annotation
    if isinstance(annotation, str) and annotation.isidentifier():
        # The usual case under `from __future__ import annotations`, at a hundredth of the cost of evaluating.
        names = function.__globals__
        found = names[annotation] if annotation in names else getattr(builtins, annotation, None)
        return None if isinstance(found, str) else found
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, function.__globals__, _enclosed(function), include_extras=True)["it"]
    except Exception:  # noqa: BLE001 - names for type checkers only, and whatever evaluating text may raise
        return None


def declared_ends(annotation: Any) -> tuple[str, ...]:
    """Node names of every `Command[Literal[...]]` in a return annotation, alone or as part of a union."""
    if isinstance(annotation, type):
        return ()
    origin = typing.get_origin(annotation)
    if origin is Command:
        return literals(typing.get_args(annotation)[0])
    if origin is typing.Union or origin is types.UnionType:
        return tuple(dict.fromkeys(end for part in typing.get_args(annotation) for end in declared_ends(part)))
    if origin is Annotated:
        return declared_ends(typing.get_args(annotation)[0])
    return ()


def literals(annotation: Any) -> tuple[Any, ...]:
    """The values of a `Literal[...]`; nothing for any other annotation."""
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
