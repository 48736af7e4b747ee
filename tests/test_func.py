"""`pregel.func`: what may be decorated, under which name, with which types; and what tells calls apart."""

from __future__ import annotations

import asyncio
import datetime
import enum
import functools
import subprocess
import sys
from collections import Counter, OrderedDict, deque
from dataclasses import FrozenInstanceError, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from pydantic import BaseModel

from checkpoint.base import UnregisteredTypeError
from checkpoint.serde.msgpack import Serde
from pregel.engine.contents import of_arguments
from pregel.func import TaskFunction, entrypoint, task
from pregel.messages import Message
from pregel.types import CachePolicy, RetryPolicy, TimeoutPolicy
from pregel.warnings import PregelDeprecationWarning
from tests.support.scenarios import refused


def plain(x):
    """What it does."""
    return x


async def on_loop(x):
    return x


def generator(x):
    yield x


async def async_generator(x):
    yield x


class Callable_:
    def __call__(self, x):
        return x

    def method(self, x):
        return x

    async def on_loop(self, x):
        return x


class Generating:
    def __call__(self, x):
        yield x


# ---- tasks

KINDS = {
    "function": (plain, "plain"),
    "coroutine function": (on_loop, "on_loop"),
    "lambda": (lambda x: x, "<lambda>"),
    "method": (Callable_().method, "method"),
    "coroutine method": (Callable_().on_loop, "on_loop"),
    "partial": (functools.partial(lambda y, x: x, 1), "<lambda>"),
    "partial of a coroutine function": (functools.partial(on_loop), "on_loop"),
    "object": (Callable_(), "Callable_"),
    "builtin": (abs, "abs"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_can_be_called_is_a_task(kind):
    function, name = KINDS[kind]
    made = task(function)
    assert made.__name__ == name
    assert made.func is function

    @entrypoint()
    async def flow(x):
        return await made(x)

    assert asyncio.run(flow.ainvoke(3)) == 3


def test_forms_of_the_decorator():
    forms = [task(plain), task()(plain), task(name="other")(plain), task(plain, name="other")]
    assert [made.__name__ for made in forms] == ["plain", "plain", "other", "other"]
    assert all(isinstance(made, TaskFunction) and made.__doc__ == "What it does." for made in forms)
    assert plain.__name__ == "plain"


def test_two_tasks_of_one_method_are_independent():
    bound = Callable_().method
    one, two = task(bound, name="one"), task(bound, name="two")

    @entrypoint()
    def flow(x):
        return [one(x).result(), two(x).result()]

    assert list(flow.stream(1, stream_mode="updates")) == [{"one": 1}, {"two": 1}, {"flow": [1, 1]}]


def test_options_are_kept():
    retry, cache = RetryPolicy(max_attempts=2), CachePolicy()
    made = task(retry_policy=retry, cache_policy=cache, timeout=2)(plain)
    assert (made.retry_policy, made.cache_policy, made.timeout) == ((retry,), cache, TimeoutPolicy(run_timeout=2.0))
    assert task(retry_policy=[retry, retry])(plain).retry_policy == (retry, retry)


@pytest.mark.parametrize(
    ("wrong", "named"), [(3, "is 3 (int)"), ("often", "is 'often' (str)"), ([RetryPolicy(), 3], "is 3 (int)")]
)
def test_retry_policies_are_checked_at_once(wrong, named):
    for made in (lambda: task(retry_policy=wrong)(plain), lambda: entrypoint(retry_policy=wrong)):
        with refused(TypeError, "retry_policy", named):
            made()


@pytest.mark.parametrize("decorator", [task, entrypoint()], ids=["task", "entrypoint"])
@pytest.mark.parametrize("function", [generator, async_generator, Generating(), functools.partial(generator)])
def test_generators_are_refused(decorator, function):
    with pytest.raises(NotImplementedError):
        decorator(function)


@pytest.mark.parametrize("decorator", [task, entrypoint()], ids=["task", "entrypoint"])
@pytest.mark.parametrize("given", [3, "name", object()])
def test_what_cannot_be_called_is_refused(decorator, given):
    with refused(TypeError, repr(given)[:20]):
        decorator(given)


@pytest.mark.parametrize("timeout", [0, -1, datetime.timedelta(0)])
def test_limits_are_checked_at_once(timeout):
    for made in (lambda: task(timeout=timeout)(plain), lambda: entrypoint(timeout=timeout)):
        with refused(ValueError, "greater than 0"):
            made()


@pytest.mark.parametrize("name", ["a|b", "a:b"])
def test_names_that_would_break_a_namespace_are_refused(name):
    with refused(ValueError, name):
        task(plain, name=name)


def test_former_spellings():
    retry = RetryPolicy()
    with pytest.warns(PregelDeprecationWarning, match="retry_policy"):
        assert task(retry=retry)(plain).retry_policy == (retry,)
    with pytest.warns(PregelDeprecationWarning, match="retry_policy"):
        assert entrypoint(retry=retry).retry_policy == (retry,)
    with pytest.warns(PregelDeprecationWarning, match="context_schema"):
        assert entrypoint(config_schema=dict).context_schema is dict
    with refused(TypeError, "retries"):
        task(retries=3)


def test_outside_of_a_run():
    with refused(RuntimeError, "plain", "outside"):
        task(plain)(1)


# ---- entrypoints


def test_the_graph_of_a_function():
    flow = entrypoint()(plain)
    assert (list(flow.nodes), flow.name, flow.stream_mode, flow.stream_eager) == (
        ["plain"],
        "LangGraph",
        "updates",
        True,
    )
    assert {"__start__", "__end__", "__previous__"} <= flow.channels.keys()
    assert (flow.input_channels, flow.output_channels, flow.stream_channels) == ("__start__", "__end__", "__end__")
    drawing = flow.get_graph().draw_mermaid()
    assert "plain" in drawing


def test_objects_and_partials_are_entrypoints():
    assert entrypoint()(Callable_()).invoke(1) == 1
    assert entrypoint()(Callable_().method).invoke(2) == 2
    assert entrypoint()(functools.partial(lambda a, b: (a, b), 1)).invoke(2) == (1, 2)


def test_a_function_without_a_parameter_is_refused():
    def nothing():
        return 1

    def by_name(*, x):
        return x

    for function in (nothing, by_name):
        with refused(ValueError, function.__name__):
            entrypoint()(function)


def test_a_decorator_without_parentheses_is_refused():
    with refused(TypeError, "plain", "entrypoint()"):
        entrypoint(plain)


def test_final_is_a_frozen_value():
    made = entrypoint.final(value=1, save=2)
    with pytest.raises(FrozenInstanceError):
        made.value = 3
    assert made == entrypoint.final[int, int](value=1, save=2)
    with pytest.raises(TypeError):
        entrypoint.final(1, 2)


def types_of(function) -> tuple[Any, Any, Any]:
    channels = entrypoint()(function).channels
    return tuple(channels[name].ValueType for name in ("__start__", "__end__", "__previous__"))


def test_types():
    def untyped(x):
        return x

    def typed(x: int) -> str:
        return str(x)

    def bare(x: dict[str, int]) -> entrypoint.final:
        raise NotImplementedError

    def both(x: int) -> entrypoint.final[int, str]:
        raise NotImplementedError

    assert types_of(untyped) == (Any, Any, Any)
    assert types_of(typed) == (int, str, str)
    assert types_of(bare) == (dict[str, int], Any, Any)
    assert types_of(both) == (int, int, str)


def test_final_with_one_type_is_refused():
    def one(x: int) -> entrypoint.final[int]:
        raise NotImplementedError

    with refused(TypeError, "one"):
        entrypoint()(one)


def test_json_schemas():
    def both(x: int) -> entrypoint.final[int, str]:
        raise NotImplementedError

    flow, untyped = entrypoint()(both), entrypoint()(plain)
    assert flow.get_input_jsonschema() == {"title": "LangGraphInput", "type": "integer"}
    assert flow.get_output_jsonschema() == {"title": "LangGraphOutput", "type": "integer"}
    assert untyped.get_output_jsonschema() == {"title": "LangGraphOutput"}


def test_importing_it_costs_what_importing_graphs_costs():
    code = """if True:
        import sys, pregel.graph
        before = set(sys.modules)
        import pregel.func
        print(sorted(name for name in set(sys.modules) - before if not name.startswith("pregel")))"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ---- what tells calls apart


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Point:
    x: int
    y: Any = None


class Pair(NamedTuple):
    a: int
    b: int


class Model(BaseModel):
    name: str


class Word(str):
    """Text of a kind of its own."""

    def __str__(self):
        return "a word"


class Live:
    """An object that says nothing of itself."""


DIFFERENT = [
    0,
    1,
    1.0,
    True,
    "1",
    b"1",
    None,
    (1, 2),
    [1, 2],
    [2, 1],
    {1, 2},
    frozenset({1, 2}),
    {"a": 1},
    {"a": 2},
    {"a": Point(1)},
    {"a": Point(2)},
    [Point(1)],
    Point(1, [Point(2)]),
    Pair(1, 2),
    Pair(2, 1),
    Model(name="a"),
    Model(name="b"),
    Colour.RED,
    Colour.BLUE,
    Message(role="user", content="a"),
    Message(role="user", content="b"),
    {"role": "user", "content": "a"},
    deque([1, 2]),
    OrderedDict(a=1),
    Counter(a=1),
    datetime.date(2020, 1, 1),
    datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    Decimal("1.0"),
    Decimal("1.00"),
    UUID(int=1),
    Path("a"),
    range(3),
    bytearray(b"1"),
    ValueError("a"),
    ValueError("b"),
    len,
    plain,
    Live(),
    Word("a"),
    Word("b"),
    10**40,
    float("inf"),
    "\ud800",
    (Live(), 1),
    (Live(), 2),
]


def test_different_arguments_have_different_digests():
    digests = {}
    for value in DIFFERENT:
        told = of_arguments(((value,), {}))
        assert told not in digests, (value, digests[told])
        digests[told] = value


def test_values_from_storage_have_the_digests_that_they_had():
    """A result that is passed on: the call that gets it from storage is the one that got it from the task."""
    serde = Serde()
    kept = 0
    for value in [*DIFFERENT, DIFFERENT[:20], {"x": (Point(1), {Pair(1, 2): Colour.RED})}, -0.0, "é", {1: {2: {3}}}]:
        try:
            stored = serde.loads_typed(serde.dumps_typed(value))
        except UnregisteredTypeError:
            continue
        if not isinstance(value, Exception):  # an exception comes back as its text
            assert of_arguments(((stored,), {})) == of_arguments(((value,), {})), value
            kept += 1
    assert kept > 35


def test_equal_arguments_have_equal_digests():
    assert of_arguments(((1,), {"a": 1, "b": 2})) == of_arguments(((1,), {"b": 2, "a": 1}))
    assert of_arguments(((Point(1, {1: "x"}),), {})) == of_arguments(((Point(1, {1: "x"}),), {}))
    assert of_arguments(((Live(),), {})) == of_arguments(((Live(),), {}))
    assert of_arguments((("a" * 3,), {})) == of_arguments((("aa" + "aaa"[:1],), {}))
    assert of_arguments(((1,), {})) != of_arguments(((), {"x": 1}))
    nested: list[Any] = []
    nested.append(nested)
    assert of_arguments(((nested,), {})) == of_arguments(((nested,), {}))


def test_digests_are_those_of_another_process():
    """Whatever the hash seed: sets of text have another order there."""
    code = """if True:
        from pregel.engine.contents import of_arguments
        from tests.test_func import Point
        print(of_arguments((({"a", "b", "c"}, Point(1, {"x", "y"}), frozenset("abc")), {"k": {1: "x"}})))"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_arrays_are_told_apart_by_shape_too():
    numpy = pytest.importorskip("numpy")
    one, two = numpy.zeros(4), numpy.zeros((2, 2))
    assert of_arguments(((one,), {})) == of_arguments(((numpy.zeros(4),), {}))
    assert len({of_arguments(((a,), {})) for a in (one, two, numpy.ones(4), numpy.zeros(4, "float32"))}) == 4
