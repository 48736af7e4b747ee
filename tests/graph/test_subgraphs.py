"""Which graphs are found in a node: whatever its code can name, without running any of it."""

import functools
from typing import Any

from pregel._call import Call
from pregel._subgraphs import find_subgraphs


class Graph:
    def as_call(self) -> Call:
        return Call("LangGraph", self.invoke, None, None, self)

    def invoke(self, state: Any) -> Any: ...


FIRST, SECOND = Graph(), Graph()


class Holder:
    shared = SECOND

    def __init__(self) -> None:
        self.graph = FIRST
        self.next: Any = None

    @property
    def trap(self) -> Any:
        raise AssertionError("looked at a property")

    def method(self, state: Any) -> Any:
        return self.graph.invoke(self.trap)

    def of_class(self, state: Any) -> Any:
        return self.shared.invoke(state)

    def __call__(self, state: Any) -> Any:
        return self.next.graph.invoke(state)


HOLDER = Holder()


def test_itself() -> None:
    assert find_subgraphs(FIRST) == [FIRST]


def test_globals_closures_and_attributes() -> None:
    inner = SECOND

    def of_global(state: Any) -> Any:
        return FIRST.invoke(state)

    def of_closure(state: Any) -> Any:
        return inner.invoke(state)

    def of_attribute(state: Any) -> Any:
        return HOLDER.graph.invoke(state)

    def nested(state: Any) -> Any:
        return [(lambda: FIRST.invoke(s))() for s in state]

    def both(state: Any) -> Any:
        return inner.invoke(FIRST.invoke(state))

    def helped(state: Any) -> Any:
        return of_closure(state)

    assert find_subgraphs(of_global) == [FIRST]
    assert find_subgraphs(of_closure) == [SECOND]
    assert find_subgraphs(of_attribute) == [FIRST]
    assert find_subgraphs(nested) == [FIRST]
    assert set(map(id, find_subgraphs(both))) == {id(FIRST), id(SECOND)}
    assert find_subgraphs(helped) == [SECOND]


def test_methods_and_callable_objects() -> None:
    holder = Holder()
    holder.next = Holder()
    assert find_subgraphs(holder.method) == [FIRST]
    assert find_subgraphs(holder.of_class) == [SECOND]
    assert find_subgraphs(holder) == [FIRST]


def test_partials_and_wrappers() -> None:
    def node(state: Any, graph: Any) -> Any:
        return graph.invoke(state)

    def inner(state: Any) -> Any:
        return SECOND.invoke(state)

    @functools.wraps(inner)
    def wrapper(*args: Any) -> Any:
        return inner(*args)

    assert find_subgraphs(functools.partial(node, graph=FIRST)) == [FIRST]
    assert find_subgraphs(wrapper) == [SECOND]


def test_nothing_to_find() -> None:
    def loop(state: Any) -> Any:
        return loop(state)

    unset: Any

    def early(state: Any) -> Any:
        return unset

    assert find_subgraphs(lambda state: {"x": 1}) == []
    assert find_subgraphs(loop) == []
    assert find_subgraphs(early) == []
    assert find_subgraphs(len) == []
    unset = FIRST
