"""Every kind of channel as a key of a state graph, and as a channel of a hand-made one (engine.md 1)."""

import operator
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired, Optional, Required

import pytest
from typing_extensions import TypedDict

from pregel.channels import (
    AnyValue,
    BinaryOperatorAggregate,
    EphemeralValue,
    LastValue,
    Topic,
    UntrackedValue,
)
from pregel.errors import InvalidUpdateError
from pregel.graph import START, StateGraph
from pregel.managed import IsLastStep, RemainingSteps
from pregel.pregel import NodeBuilder, Pregel
from pregel.types import Overwrite, Send
from tests.support.scenarios import Colour, Log, refused


def parallel(colour: Colour, schema: Any, *updates: Any, **options: Any) -> Any:
    """A graph whose nodes n0, n1, … run in one step and return the given updates."""
    builder = StateGraph(schema)
    for index, update in enumerate(updates):
        builder.add_node(f"n{index}", colour.node(lambda state, update=update: update), input_schema=schema)
        builder.add_edge(START, f"n{index}")
    return builder.compile(**options)


def in_order(colour: Colour, schema: Any, *updates: Any, seen: list[Any] | None = None, **options: Any) -> Any:
    """A chain n0, n1, … whose nodes return the given updates and note what they were given."""
    builder = StateGraph(schema)
    before = START
    for index, update in enumerate(updates):

        def run(state: Any, update: Any = update) -> Any:
            if seen is not None:
                seen.append(dict(state))
            return update

        builder.add_node(f"n{index}", colour.node(run), input_schema=schema)
        builder.add_edge(before, f"n{index}")
        before = f"n{index}"
    return builder.compile(**options)


class Plain(TypedDict, total=False):
    x: Any


def test_last_value_keeps_its_value(colour: Colour) -> None:
    seen: list[Any] = []
    graph = in_order(colour, Plain, {"x": 1}, {}, None, {"x": None}, {}, seen=seen)
    assert colour.invoke(graph, {}) == {"x": None}
    assert seen == [{}, {"x": 1}, {"x": 1}, {"x": 1}, {"x": None}]


def test_last_value_refuses_two_writes(colour: Colour) -> None:
    with refused(InvalidUpdateError, "x"):
        colour.invoke(parallel(colour, Plain, {"x": 1}, {"x": 1}), {})


def test_failed_update_is_retried_on_resume_and_stores_no_checkpoint(colour: Colour, saver: Any, thread: Any) -> None:
    graph = parallel(colour, Plain, {"x": 1}, {"x": 2}, checkpointer=saver)
    for _ in range(2):
        with refused(InvalidUpdateError, "x"):
            colour.invoke(graph, None if colour.history(graph, thread) else {}, thread)
    assert [s.metadata["step"] for s in colour.history(graph, thread)] == [0, -1]


def test_any_value_takes_the_last_and_is_cleared(colour: Colour) -> None:
    class State(TypedDict, total=False):
        v: Annotated[Any, AnyValue]
        x: Any

    assert colour.invoke(parallel(colour, State, {"v": 1}, {"v": 2}), {}) == {"v": 2}
    seen: list[Any] = []
    colour.invoke(in_order(colour, State, {"v": 1}, {}, {}, seen=seen), {})
    assert seen == [{}, {"v": 1}, {}]


def test_ephemeral_lives_one_step(colour: Colour) -> None:
    class State(TypedDict, total=False):
        e: Annotated[Any, EphemeralValue]

    seen: list[Any] = []
    colour.invoke(in_order(colour, State, {"e": 1}, {"e": 2}, {}, {}, seen=seen), {})
    assert seen == [{}, {"e": 1}, {"e": 2}, {}]
    with refused(InvalidUpdateError, "e"):
        colour.invoke(parallel(colour, State, {"e": 1}, {"e": 2}), {})


def test_ephemeral_without_guard_takes_the_last(colour: Colour) -> None:
    class State(TypedDict, total=False):
        e: Annotated[Any, EphemeralValue(Any, guard=False)]

    assert colour.invoke(parallel(colour, State, {"e": 1}, {"e": 2}), {}) == {"e": 2}


def test_untracked_is_kept_for_the_run_and_never_stored(colour: Colour, saver: Any, thread: Any) -> None:
    class State(TypedDict, total=False):
        u: Annotated[Any, UntrackedValue]
        x: Any

    seen: list[Any] = []
    graph = in_order(colour, State, {"u": 1, "x": 1}, {}, {}, seen=seen, checkpointer=saver)
    assert colour.invoke(graph, {}, thread) == {"u": 1, "x": 1}
    assert seen == [{}, {"u": 1, "x": 1}, {"u": 1, "x": 1}]
    for entry in saver.list(thread):
        assert "u" not in entry.checkpoint["channel_values"]
        assert all(channel != "u" for _, channel, _ in entry.pending_writes)
    assert colour.get_state(graph, thread).values == {"x": 1}


def test_untracked_guard(colour: Colour) -> None:
    class Guarded(TypedDict, total=False):
        u: Annotated[Any, UntrackedValue]

    class Open(TypedDict, total=False):
        u: Annotated[Any, UntrackedValue(Any, guard=False)]

    with refused(InvalidUpdateError, "u"):
        colour.invoke(parallel(colour, Guarded, {"u": 1}, {"u": 2}), {})
    assert colour.invoke(parallel(colour, Open, {"u": 1}, {"u": 2}), {}) == {"u": 2}


def test_untracked_keys_of_a_send_are_passed_but_not_stored(colour: Colour, saver: Any, thread: Any) -> None:
    class State(TypedDict, total=False):
        u: Annotated[Any, UntrackedValue]
        x: Any

    seen: list[Any] = []

    def w(arg: Any) -> None:
        seen.append(arg)

    builder = StateGraph(State).add_node("w", colour.node(w))
    builder.add_conditional_edges(START, lambda state: [Send("w", {"u": 1, "x": 2, "in": {"u": 3}})])
    graph = builder.compile(checkpointer=saver)
    colour.invoke(graph, {"x": 0}, thread)
    assert seen == [{"u": 1, "x": 2, "in": {"u": 3}}]
    stored = [c.checkpoint["channel_values"].get("__pregel_tasks") for c in saver.list(thread)]
    assert [Send("w", {"x": 2, "in": {"u": 3}})] in stored


def test_topic_flattens_lists_only_and_is_cleared(colour: Colour) -> None:
    class State(TypedDict, total=False):
        t: Annotated[Any, Topic]

    graph = parallel(colour, State, {"t": 1}, {"t": [2, 3]}, {"t": (4, 5)}, {"t": [[6]]})
    assert colour.invoke(graph, {}) == {"t": [1, 2, 3, (4, 5), [6]]}
    seen: list[Any] = []
    colour.invoke(in_order(colour, State, {"t": 1}, {}, {}, seen=seen), {})
    assert seen == [{}, {"t": [1]}, {}]


def test_accumulating_topic(colour: Colour, saver: Any, thread: Any) -> None:
    class State(TypedDict, total=False):
        t: Annotated[Any, Topic(int, accumulate=True)]

    graph = in_order(colour, State, {"t": 1}, {}, {"t": [2, 1]}, checkpointer=saver)
    assert colour.invoke(graph, {}, thread) == {"t": [1, 2, 1]}
    assert colour.invoke(graph, {"t": 0}, thread) == {"t": [1, 2, 1, 0, 1, 2, 1]}


def test_aggregate_starts_from_its_type(colour: Colour, saver: Any, thread: Any) -> None:
    class State(TypedDict, total=False):
        i: Annotated[int, operator.add]
        s: Annotated[str, operator.add]
        q: Annotated[Sequence[Any], operator.add]
        o: Annotated[Optional[int], lambda a, b: (a or 0) + b]  # noqa: UP045 - the form under test
        x: Any

    seen: list[Any] = []
    graph = in_order(colour, State, {"x": 1}, {"o": 5}, {"o": 6}, seen=seen, checkpointer=saver)
    assert colour.invoke(graph, {"i": 1}, thread) == {"i": 1, "s": "", "q": [], "o": 11, "x": 1}
    assert seen[0] == {"i": 1, "s": "", "q": []}


def test_required_and_not_required_are_seen_through(colour: Colour) -> None:
    class State(TypedDict, total=False):
        a: Required[Annotated[list[int], operator.add]]
        b: NotRequired[Annotated[list[int], operator.add]]
        c: Annotated[Required[list[int]], operator.add]

    graph = in_order(colour, State, {"a": [1], "b": [1], "c": [1]}, {"a": [2], "b": [2], "c": [2]})
    assert colour.invoke(graph, {"a": [0]}) == {"a": [0, 1, 2], "b": [1, 2], "c": [1, 2]}


@pytest.mark.parametrize(
    "overwrite",
    [Overwrite(["new"]), {"__overwrite__": ["new"]}, {"type": "__overwrite__", "value": ["new"]}],
    ids=["object", "marker", "erased"],
)
def test_overwrite_wins_wherever_it_stands(colour: Colour, overwrite: Any) -> None:
    graph = parallel(colour, Log, {"l": ["a"]}, {"l": overwrite}, {"l": ["c"]})
    assert colour.invoke(graph, {"l": ["in"]}) == {"l": ["new"]}


def test_two_overwrites_in_one_step_are_refused(colour: Colour) -> None:
    graph = parallel(colour, Log, {"l": Overwrite([1])}, {"l": Overwrite([2])})
    with refused(InvalidUpdateError, "Overwrite"):
        colour.invoke(graph, {"l": []})


@pytest.mark.differs("engine.md 11, row 10: the first write into an empty aggregate is unwrapped too")
def test_overwrite_into_an_empty_aggregate_is_unwrapped(colour: Colour) -> None:
    class State(TypedDict, total=False):
        o: Annotated[int | None, lambda a, b: (a or 0) + b]

    assert colour.invoke(in_order(colour, State, {"o": Overwrite(5)}, {"o": 1}), {}) == {"o": 6}


def test_reducer_order_is_task_order(colour: Colour) -> None:
    def append(left: list[Any], right: Any) -> list[Any]:
        return [*left, right]

    class State(TypedDict):
        r: Annotated[list[Any], append]

    builder = StateGraph(State)
    for name in ("b", "c", "a"):
        builder.add_node(name, colour.node(lambda state, name=name: {"r": name}), input_schema=State)
        builder.add_edge(START, name)
    assert colour.invoke(builder.compile(), {"r": "in"}) == {"r": ["in", "a", "b", "c"]}


def test_managed_values(colour: Colour) -> None:
    class State(Log):
        last: IsLastStep
        left: RemainingSteps

    seen: list[Any] = []

    def n(state: State) -> dict[str, Any]:
        seen.append((state["left"], state["last"]))
        return {"l": ["n"]}

    builder = StateGraph(State)
    before = START
    for name in ("n1", "n2", "n3", "n4"):
        builder.add_node(name, colour.node(n)).add_edge(before, name)
        before = name
    graph = builder.compile()
    assert colour.invoke(graph, {"l": []}, {"recursion_limit": 5}) == {"l": ["n", "n", "n", "n"]}
    assert seen == [(4, False), (3, False), (2, False), (1, True)]


# -------------------------------------------------------------------------------------------------- hand-made graphs


def raw(colour: Colour, channels: dict[str, Any], *, output: Any = "out", **nodes: Any) -> Any:
    return Pregel(nodes=nodes, channels=channels, input_channels="in", output_channels=output)


def test_aggregate_of_a_hand_made_graph(colour: Colour) -> None:
    one = NodeBuilder().subscribe_only("in").do(colour.node(lambda x: x + 1)).write_to("out")
    two = NodeBuilder().subscribe_only("in").do(colour.node(lambda x: x * 10)).write_to("out")
    channels = {"in": LastValue(int), "out": BinaryOperatorAggregate(int, operator.add)}
    graph = raw(colour, channels, one=one, two=two)
    assert colour.invoke(graph, 2) == 23


def test_topic_of_a_hand_made_graph(colour: Colour) -> None:
    fan = NodeBuilder().subscribe_only("in").do(colour.node(lambda x: [x, x + 1])).write_to("mid")
    total = NodeBuilder().subscribe_only("mid").do(colour.node(sum)).write_to("out")
    graph = raw(colour, {"in": LastValue(int), "mid": Topic(int), "out": LastValue(int)}, fan=fan, total=total)
    assert colour.invoke(graph, 2) == 5


def test_context_of_a_run_is_not_shared_between_runs(colour: Colour) -> None:
    graph = parallel(colour, Log, {"l": ["a"]})
    assert colour.invoke(graph, {"l": []}) == colour.invoke(graph, {"l": []}) == {"l": ["a"]}
