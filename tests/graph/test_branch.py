"""Conditional edges: what a path sees, and what its result means, without an engine."""

import asyncio
import operator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from typing_extensions import TypedDict

from pregel.constants import END, START, TASKS
from pregel.errors import InvalidUpdateError
from pregel.graph.branch import Branch, BranchRouter, private_schema
from pregel.graph.schema import describe
from pregel.types import RunnableConfig, Send


class State(TypedDict):
    x: int
    l: Annotated[list[str], operator.add]  # noqa: E741


class Other(TypedDict):
    y: int


@dataclass
class Data:
    x: int


class FakeScope:
    """State at the start of the step, the node's own writes applied by assignment."""

    def __init__(self, **values: Any) -> None:
        self.values = values
        self.notices: list[tuple[str, str]] = []
        self.host = self
        self.config = {"tags": ["t"]}

    def notice(self, code: str, place: str, text: str) -> None:
        self.notices.append((code, place))

    def read(self, select: Any, writes: Any = None) -> Any:
        values = {**self.values, **dict(writes or ())}
        return values[select] if isinstance(select, str) else {k: values[k] for k in select if k in values}


TARGETS = {name: (f"branch:to:{name}", None) for name in ("a", "b")}


def routed(
    path: Any, *, path_map: Any = None, result: Any = None, schema: Any = State, scope: Any = None, **options: Any
) -> list[Any]:
    branch = Branch.declare(path, path_map)
    shown = schema if branch.input_schema is None else branch.input_schema
    router = BranchRouter(branch, "src", describe(shown), TARGETS, **options)
    own: list[Any] = [("x", 5)]
    if router.call.fn is None:
        asyncio.run(router.aroute(result, scope or FakeScope(x=1), own))
    else:
        router.route(result, scope or FakeScope(x=1), own)
    return own[1:]


# ---- results


def test_results() -> None:
    send = Send("a", 1)
    assert routed(lambda s: "a") == [("branch:to:a", None)]
    assert routed(lambda s: ["a", END, send]) == [("branch:to:a", None), (TASKS, send)]
    assert routed(lambda s: ("b",)) == [("branch:to:b", None)]
    assert routed(lambda s: END) == routed(lambda s: []) == []
    assert routed(lambda s: send) == [(TASKS, send)]


def test_path_map() -> None:
    ends = {True: "a", "no": END, 3: "b"}
    assert routed(lambda s: True, path_map=ends) == [("branch:to:a", None)]
    assert routed(lambda s: "no", path_map=ends) == []
    assert routed(lambda s: [3, Send("b", 1)], path_map=ends) == [("branch:to:b", None), (TASKS, Send("b", 1))]
    with pytest.raises(KeyError, match="maybe"):
        routed(lambda s: "maybe", path_map=ends)
    with pytest.raises(KeyError, match="b"):
        routed(lambda s: "b", path_map=["a"])


@pytest.mark.parametrize("picked", [None, START, [None]])
def test_no_destination(picked: Any) -> None:
    with pytest.raises(ValueError, match="src"):
        routed(lambda s: picked)


def test_send_to_end() -> None:
    with pytest.raises(InvalidUpdateError, match="END"):
        routed(lambda s: Send(END, 1))


@pytest.mark.parametrize("picked", ["zz", Send("zz", 1), 5, ["zz"]])
def test_unknown_destination_is_noted_or_refused(picked: Any) -> None:
    scope = FakeScope(x=1)
    assert routed(lambda s: picked, scope=scope) == []
    assert [code for code, _ in scope.notices] == ["unknown-goto"]
    with pytest.raises(InvalidUpdateError, match="src"):
        routed(lambda s: picked, strict=True)


# ---- input


def seen(path_of: Any, **options: Any) -> Any:
    found: list[Any] = []

    def look(state: Any) -> str:
        found.append(state)
        return END

    look.__annotations__ = {"state": path_of} if path_of else {}
    routed(look, **options)
    return found[0]


def test_path_sees_fresh_state_and_extra_keys() -> None:
    assert seen(None) == {"x": 5}
    assert seen(None, result={"x": 0, "extra": 1}) == {"x": 5, "extra": 1}
    assert seen(None, result=["no dict"]) == {"x": 5}


def test_a_schema_of_its_own_wins() -> None:
    assert seen(Other, scope=FakeScope(y=2), result={"extra": 1}) == {"y": 2}
    assert seen(Data, scope=FakeScope()) == Data(5)
    assert seen(None, schema=Data, result={"extra": 1}) == Data(5)


def test_bare_state() -> None:
    assert seen(None, schema=list, scope=FakeScope(__root__=[1]), result={"extra": 1}) == [1]


def test_injection_and_async() -> None:
    async def later(state: State, config: RunnableConfig) -> str:
        return "a" if config["tags"] == ["t"] and state["x"] == 5 else "b"

    assert routed(later) == [("branch:to:a", None)]
    router = BranchRouter(Branch.declare(later, None), "src", describe(State), TARGETS)
    with pytest.raises(TypeError, match="later"):
        router.route(None, FakeScope(), [])  # type: ignore[arg-type]


def test_sync_path_in_an_async_run() -> None:
    router = BranchRouter(Branch.declare(lambda s: "a", None), "src", describe(State), TARGETS)
    writes: list[Any] = []
    asyncio.run(router.aroute(None, FakeScope(), writes))  # type: ignore[arg-type]
    assert writes == [("branch:to:a", None)]


# ---- declaration


def test_declared_ends() -> None:
    def typed(state: State) -> Literal["a", "__end__"]: ...

    class Callable:
        def __call__(self, state: Other) -> Literal["a"]: ...

    assert Branch.declare(typed, None).ends == {"a": "a", "__end__": "__end__"}
    assert Branch.declare(typed, {"l": "b"}).ends == {"l": "b"}
    assert Branch.declare(lambda s: "a", None).ends is None
    found = Branch.declare(Callable(), None)
    assert (found.ends, found.name, found.input_schema) == ({"a": "a"}, "condition", Other)


def test_names() -> None:
    def choose(state: Any) -> str: ...

    assert Branch.declare(choose, None).name == "choose"
    assert Branch.declare(lambda s: "a", None).name == "condition"


def test_private_schema_is_a_class_with_fields() -> None:
    def of(annotation: Any) -> Any:
        def node(state): ...  # type: ignore[no-untyped-def]

        node.__annotations__ = {"state": annotation}
        return private_schema(node)

    assert of(State) is State
    assert of("State") is State
    assert of(Data) is Data
    assert [of(a) for a in (dict, list[int], int, "Nowhere", State | None, object)] == [None] * 6
