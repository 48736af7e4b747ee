"""Which reducers are known to leave the elements of what they merge alone."""

import operator
import sys
from functools import partial
from typing import Any

import pytest

from pregel.channels.reducers import keeps_elements
from pregel.graph.message import add_messages


def helper(a: Any, b: Any) -> Any: ...


def checked(a: Any, b: Any) -> Any:
    if b is None:
        return a
    return list(a) + list(b)


def by_loop(a: Any, b: Any) -> Any:
    for item in a:
        item["n"] = 1
    return a + b


def with_default(a: Any, b: Any, merge: Any = helper) -> Any:
    return merge(a, b)


class Adder:
    def __call__(self, a: Any, b: Any) -> Any: ...


COMBINE: list[Any] = [
    operator.add,
    operator.concat,
    operator.or_,
    add_messages,
    partial(add_messages, format="langchain-openai"),
    lambda a, b: b,
    lambda a, b: a + b,
    lambda a, b: (a or []) + (b or []),
    lambda a, b: [*a, *b],
    lambda a, b: {**a, **b},
    lambda a, b: a | b,
    lambda a, b: dict(a) | dict(b),
    checked,
]
MAY_EDIT: list[Any] = [
    operator.iadd,
    operator.ior,
    max,
    helper.__call__,
    Adder(),
    partial(helper, 1),
    by_loop,
    with_default,
    lambda a, b: helper(a, b),
    lambda a, b: b(a),
    lambda a, b: b(list),
    lambda a, b: list(b(a)),
    lambda a, b: a[0](b),
    lambda a, b: [a[0]["x"], *b],
    lambda a, b: a.merged(b),
    lambda a, b: [x.touch() for x in a] + b,
    lambda a, b: map(b, a),
    lambda *both: both[0] + both[1],
    lambda a, b: operator.iadd(a, b),
]


@pytest.mark.parametrize("reducer", COMBINE)
def test_combines(reducer: Any) -> None:
    assert keeps_elements(reducer)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="a constant slice is read like an element there: not trusted")
def test_a_part_of_a_list() -> None:
    assert keeps_elements(lambda a, b: (a + b)[-20:])


@pytest.mark.parametrize("reducer", MAY_EDIT)
def test_may_edit(reducer: Any) -> None:
    assert not keeps_elements(reducer)


def test_a_name_that_hides_a_builtin() -> None:
    scope: dict[str, Any] = {"list": helper}
    exec("merge = lambda a, b: list(a)", scope)
    assert not keeps_elements(scope["merge"])


def test_in_place_operators() -> None:
    def grow(a: Any, b: Any) -> Any:
        a += b
        return a

    assert not keeps_elements(grow)
