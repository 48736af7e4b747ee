"""What `pregel._call.prepare` makes of every kind of callable, without an engine."""

import asyncio
import functools
from typing import Annotated, Any, Literal, Optional
from unittest.mock import MagicMock

import pytest

from pregel._call import Call, annotations_of, enclosed_classes, first_annotation, prepare, return_annotation
from pregel._scope import TaskScope
from pregel.errors import NodeError
from pregel.types import Command, RunnableConfig, StreamWriter
from pregel.warnings import PregelWarning


class BaseStore:
    """Stands for the store interface: classes are told by their name."""


class Runtime:
    stream_writer = staticmethod(print)
    store = BaseStore()
    previous = "before"


class Task:
    name = "n"
    error_of = NodeError("n", ValueError())


class Host:
    def config_of(self, scope: Any) -> Any:
        return {"tags": ["t"]}

    def runtime_of(self, scope: Any) -> Any:
        return Runtime


def scope() -> TaskScope:
    return TaskScope(Host(), Task(), None)  # type: ignore[arg-type]


def injected(subject: Any) -> dict[str, Any]:
    inject = prepare(subject).inject
    return {} if inject is None else inject(scope())


def result(call: Call, value: Any) -> Any:
    arguments = call.inject(scope()) if call.inject else {}
    if call.fn is not None:
        return call.fn(value, **arguments)
    return asyncio.run(call.afn(value, **arguments))  # type: ignore[misc, arg-type]


# ---- shape


def test_function_is_called_as_it_is() -> None:
    def f(x: int) -> int:
        return x + 1

    call = prepare(f)
    assert (call.name, call.fn, call.afn, call.inject, call.subject) == ("f", f, None, None, f)
    assert prepare(f, name="other").name == "other"


def test_parameterless_function_fails_only_when_it_runs() -> None:
    call = prepare(lambda: 1)
    with pytest.raises(TypeError):
        call.fn(0)  # type: ignore[misc]


async def afn(x: int) -> int:
    return x + 1


@functools.wraps(afn)
async def wrapping(*args: Any, **kw: Any) -> Any:
    return await afn(*args, **kw)


class AsyncObject:
    async def __call__(self, x: int) -> int:
        return x + 1

    async def method(self, x: int) -> int:
        return x + 1


@pytest.mark.parametrize(
    "subject",
    [afn, functools.partial(afn), wrapping, AsyncObject(), AsyncObject().method],
    ids=lambda subject: type(subject).__name__,
)
def test_coroutine_functions_in_every_dress(subject: Any) -> None:
    call = prepare(subject)
    assert call.fn is None
    assert result(call, 1) == 2


def test_sync_wrapper_of_an_async_function_stays_sync() -> None:
    @functools.wraps(afn)
    def run(x: int) -> int:
        return asyncio.run(afn(x))

    assert prepare(run).afn is None
    assert result(prepare(run), 1) == 2


def test_generators_are_consumed() -> None:
    def dicts(x: Any) -> Any:
        yield {"a": 1}
        yield {"a": 2}

    def texts(x: Any) -> Any:
        yield "a"
        yield "b"

    async def later(x: Any) -> Any:
        yield [1]
        yield [2]

    def nothing(x: Any) -> Any:
        return
        yield

    assert result(prepare(dicts), 0) == {"a": 2}
    assert result(prepare(texts), 0) == "ab"
    assert result(prepare(later), 0) == [1, 2]
    assert result(prepare(nothing), 0) is None


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="5"):
        prepare(5)


# ---- objects with invoke


class Sync:
    def invoke(self, x: int) -> int:
        return x + 1


class Both:
    def invoke(self, x: int, cfg: Any = None, **kw: Any) -> Any:
        return ("sync", cfg)

    async def ainvoke(self, x: int, cfg: Any = None) -> Any:
        return ("async", cfg)


class CallableToo:
    def __call__(self, x: int) -> str:
        return "called"

    def invoke(self, x: int) -> str:
        return "invoked"


def test_objects_with_invoke() -> None:
    assert result(prepare(Sync()), 1) == 2
    assert prepare(Sync()).afn is None
    call = prepare(Both())
    assert result(call, 1) == ("sync", {"tags": ["t"]})
    assert asyncio.run(call.afn(1, config=5)) == ("async", 5)  # type: ignore[misc, arg-type]


def test_callable_beats_invoke_except_for_runnables() -> None:
    assert result(prepare(CallableToo()), 1) == "called"
    runnable = type("Runnable", (), {"__module__": "langchain_core.runnables.base", "get_name": lambda self: "chain"})
    chain = type("Chain", (runnable, CallableToo), {"__module__": "user"})()
    assert prepare(chain).name == "chain"
    assert result(prepare(chain), 1) == "invoked"


def test_objects_that_answer_every_attribute_are_called() -> None:
    mock = MagicMock(return_value={"a": 1})
    call = prepare(mock)
    assert result(call, 1) == {"a": 1}
    assert not mock.invoke.called
    assert call.name == "MagicMock"


def test_graphs_prepare_themselves() -> None:
    class Graph:
        def as_call(self) -> Call:
            return Call("LangGraph", lambda x: x, None, None, self)

    graph = Graph()
    assert prepare(graph).name == "LangGraph"
    assert (prepare(graph, name="sub").name, prepare(graph, name="sub").subject) == ("sub", graph)


# ---- names


def test_names() -> None:
    class Named:
        def __call__(self, x: Any) -> Any: ...

    named = Named()
    named.__name__ = "own"  # type: ignore[attr-defined]
    assert prepare(named).name == "own"
    assert prepare(Named()).name == "Named"
    assert prepare(AsyncObject().method).name == "method"
    assert prepare(functools.partial(afn)).name == "partial"
    assert prepare(lambda x: x).name == "<lambda>"


# ---- injection


def test_config_by_name_and_annotation() -> None:
    def bare(x: Any, config): ...  # type: ignore[no-untyped-def]
    def typed(x: Any, config: RunnableConfig) -> None: ...
    def optional(x: Any, *, config: Optional[RunnableConfig] = None) -> None: ...  # noqa: UP045
    def union(x: Any, config: RunnableConfig | None) -> None: ...
    def text(x: Any, config: "RunnableConfig") -> None: ...
    def text_union(x: Any, config: "pregel.types.RunnableConfig | None") -> None: ...  # type: ignore[name-defined] # noqa: F821
    def text_optional(x: Any, config: "Optional[RunnableConfig]") -> None: ...  # noqa: UP045

    for function in (bare, typed, optional, union, text, text_union, text_optional):
        assert injected(function) == {"config": {"tags": ["t"]}}, function.__name__


def test_config_of_another_type_is_not_filled() -> None:
    def other(x: Any, config: dict[str, Any]) -> None: ...

    with pytest.warns(PregelWarning, match="other"):
        assert injected(other) == {}


def test_other_parameters() -> None:
    def node(
        x: Any,
        writer: StreamWriter,
        store: BaseStore,
        previous: int,
        runtime: "Runtime",
        *,
        error: NodeError,
    ) -> None: ...

    values = injected(node)
    assert list(values) == ["writer", "store", "previous", "runtime", "error"]
    assert (values["writer"], values["store"], values["previous"]) == (print, Runtime.store, "before")
    assert (values["runtime"], values["error"]) == (Runtime, Task.error_of)


def test_error_needs_its_annotation_and_writer_its_type() -> None:
    assert injected(lambda x, error: 0) == {}
    assert injected(lambda x, writer: 0) == {"writer": print}

    def node(x: Any, writer: int, store: "int | None") -> None: ...

    assert injected(node) == {}


def test_the_input_is_never_injected() -> None:
    assert injected(lambda config: 0) == {}
    assert injected(lambda runtime, config: 0) == {"config": {"tags": ["t"]}}


def test_what_may_not_be_passed_by_keyword_is_left_alone() -> None:
    assert injected(lambda x, config, /: 0) == {}
    assert injected(lambda x, **kw: 0) == {}
    assert injected(functools.partial(lambda x, config: 0, config=5)) == {}


def test_methods_and_callable_objects() -> None:
    class Node:
        def __call__(self, x: Any, config: RunnableConfig) -> None: ...
        def method(self, x: Any, runtime: Any) -> None: ...

    assert list(injected(Node())) == ["config"]
    assert list(injected(Node().method)) == ["runtime"]


def test_wrappers_get_what_they_pass_on() -> None:
    def inner(x: Any, config: RunnableConfig) -> None: ...

    @functools.wraps(inner)
    def passes(*args: Any, **kw: Any) -> None: ...

    @functools.wraps(inner)
    def swallows(x: Any) -> None: ...

    assert list(injected(passes)) == ["config"]
    assert injected(swallows) == {}


# ---- annotations


def test_annotations_are_resolved_one_by_one() -> None:
    def node(x: "BaseStore", y: "Nowhere") -> "Command[Literal['a', 'b']] | None": ...  # type: ignore[name-defined] # noqa: F821

    assert first_annotation(node) is BaseStore
    assert prepare(node).ends == ("a", "b")
    assert BaseStore in annotations_of(node)
    assert len(annotations_of(node)) == 2


def test_declared_ends() -> None:
    def one(x: Any) -> Command[Literal["a"]]: ...
    def several(x: Any) -> Command[Literal["a"]] | Annotated[Command[Literal["b", "a"]], "doc"] | dict[str, int]: ...
    def none(x: Any) -> Command[str]: ...
    def broken(x: Any) -> "Command[Nowhere]": ...  # type: ignore[name-defined] # noqa: F821

    assert prepare(one).ends == ("a",)
    assert prepare(several).ends == ("a", "b")
    assert prepare(none).ends == prepare(broken).ends == prepare(lambda x: x).ends == ()
    assert return_annotation(broken) is None


def test_enclosed_classes() -> None:
    class One: ...

    class Two: ...

    number, later = 3, Two

    def node(x: Any) -> Any:
        return One, number, later

    @functools.wraps(node)
    def wrapper(*args: Any) -> Any: ...

    assert (
        enclosed_classes(node) == enclosed_classes(wrapper) == enclosed_classes(functools.partial(node)) == [One, Two]
    )
    assert enclosed_classes(int) == enclosed_classes(print) == enclosed_classes(lambda x: x) == []


def test_annotations_of_methods_objects_and_wrappers() -> None:
    class Node:
        def __call__(self, x: int) -> None: ...
        def method(self, x: str) -> None: ...

    def plain(x: bytes) -> None: ...

    @functools.wraps(plain)
    def wrapper(*args: Any) -> None: ...

    assert first_annotation(Node()) is int
    assert first_annotation(Node().method) is str
    assert first_annotation(wrapper) is bytes
    assert first_annotation(functools.partial(plain)) is None
    assert first_annotation(Node) is None
    assert first_annotation(len) is None
