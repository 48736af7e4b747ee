"""Ways to run a graph inside a graph, and what is stored, seen and streamed of each (engine.md 6; promises 20, 57, 68).

The rows of 6.1 and 6.2 are tables here: way to nest by persistence setting, on both savers, across restarts, under each
durability. What time travel does to nested graphs is in `test_time_travel.py`.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.errors import ErrorCode
from pregel.graph import END, START, StateGraph
from pregel.types import Command, Overwrite, RetryPolicy, Send, interrupt
from pregel.warnings import PregelWarning
from tests.support.scenarios import Colour, Log, diagnosed, path_of, refused
from tests.support.stages import Stage

SETTINGS = {"default": None, "stateful": True, "none": False, "own": "own"}


def inner_of(stage: Stage, setting: str, *, asks: bool = False) -> Any:
    """`i`, which writes its name, then `q` if it asks."""
    builder = StateGraph(Log).add_node("i", stage.colour.letter("i", stage.calls)).add_edge(START, "i")
    if asks:
        builder.add_node("q", asking(stage)).add_edge("i", "q")
    return builder.compile(checkpointer=InMemorySaver() if setting == "own" else SETTINGS[setting])  # type: ignore[arg-type]


def asking(stage: Stage) -> Any:
    def ask(state: Log) -> dict[str, Any]:
        stage.calls.append("q")
        return {"l": [interrupt(state["l"][0])]}

    return stage.colour.node(ask)


def as_node(stage: Stage, inner: Any) -> StateGraph[Any]:
    return StateGraph(Log).add_node("n", inner).add_edge(START, "n")


def called(times: int, keys: tuple[str, ...] = ()) -> Callable[[Stage, Any], StateGraph[Any]]:
    """A node that calls the graph so many times, with these keys if there are any."""

    def build(stage: Stage, inner: Any) -> StateGraph[Any]:
        return StateGraph(Log).add_node("n", calling(stage.colour, inner, times, keys)).add_edge(START, "n")

    return build


def calling(colour: Colour, inner: Any, times: int = 1, keys: tuple[str, ...] = ()) -> Any:
    if colour.is_async:

        async def acall(state: Log) -> dict[str, Any]:
            found = []
            for n in range(times):
                found += (await inner.ainvoke({"l": [n]}, key=keys[n] if keys else None))["l"]
            return {"l": found}

        return acall

    def call(state: Log) -> dict[str, Any]:
        found = []
        for n in range(times):
            found += inner.invoke({"l": [n]}, key=keys[n] if keys else None)["l"]
        return {"l": found}

    return call


def deeper(stage: Stage, inner: Any) -> StateGraph[Any]:
    """The graph is a node of a graph that is called twice."""
    middle = StateGraph(Log).add_node("m", inner).add_edge(START, "m").compile()
    return called(2)(stage, middle)


WAYS = {
    "node": (as_node, ["n:*"], ["n"]),
    "called": (called(1), ["n:*"], ["n"]),
    "called three times": (called(3), ["n:*", "n:*|1", "n:*|2"], ["n", "n|1", "n|2"]),
    "called by key": (called(3, ("b", "a", "b")), ["n[b]:*", "n[a]:*", "n[b]:*|1"], ["n[b]", "n[a]", "n[b]|1"]),
    "deeper": (deeper, ["n:*|m:*", "n:*|1|m:*"], ["n|m", "n|1|m"]),
}
"""Way -> how it is built, the namespaces of its runs, the same for a graph that keeps its state."""
MIDDLE = {"deeper": ["n:*", "n:*|1"]}
"""Namespaces of default graphs in between."""


def named(ns: str) -> str:
    """A namespace with task ids replaced by `*`."""
    return "|".join(part.partition(":")[0] + (":*" if ":" in part else "") for part in ns.split("|"))


def stored(stage: Stage) -> set[str]:
    """Namespaces that the thread has."""
    return {named(entry.config["configurable"]["checkpoint_ns"]) for entry in stage.saver.list(stage.root)} - {""}


@pytest.fixture(
    params=[("memory", "sync"), ("memory", "exit"), ("restart", "async"), ("restart", "exit")],
    ids=lambda place: "-".join(place),
)
def root(colour: Colour, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """Stages for graphs that bring their own nesting."""
    made = Stage(colour, *request.param, 1, tmp_path)
    yield made
    made.close()


@pytest.fixture(params=[("memory", "sync"), ("restart", "async")], ids=lambda place: "-".join(place))
def whole(colour: Colour, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """Those of `root` in which each step is stored, for scenarios about what lies between two of them."""
    made = Stage(colour, *request.param, 1, tmp_path)
    yield made
    made.close()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    """Each row of engine.md 6.1, and those with a key."""
    return request.param


# --------------------------------------------------------------------------------------- 6.1, 6.2: where it is stored


@pytest.mark.parametrize("setting", SETTINGS)
def test_namespaces_of_each_way_and_setting(root: Stage, way: str, setting: str) -> None:
    build, per_call, stable = WAYS[way]
    root.put_on(lambda: build(root, inner_of(root, setting)))
    streamed = stable if setting == "stateful" else per_call
    chunks, error = root.outcome({"l": []}, stream_mode="updates", subgraphs=True)
    assert error is None
    assert [named("|".join(ns)) for ns, chunk in chunks if "i" in chunk] == streamed
    # With durability "exit" only a graph that keeps its state has anything left to store when it ends.
    kept = {"stateful": stable, "none": []}.get(setting, per_call)
    if setting != "stateful" and root.durability == "exit":
        kept = []
    between = MIDDLE.get(way, []) if root.durability != "exit" else []
    assert stored(root) == {*kept, *between}
    found = [name for name, _ in root.graph.get_subgraphs(recurse=True)]
    assert (
        found
        == (["n"] if way != "deeper" else ["n"] if setting == "none" else ["n", "n|m"])[
            : None if setting != "none" or way == "deeper" else 0
        ]
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_the_next_run_starts_from(root: Stage, way: str, setting: str) -> None:
    """Fresh, or from where the last run of the same place ended."""
    build, per_call, _ = WAYS[way]
    root.put_on(lambda: build(root, inner_of(root, setting)))
    for _ in range(3):
        root.run({"l": Overwrite(["x"])})
        assert root.ran() == ["i"] * len(per_call)
    if setting == "stateful":
        for ns in WAYS[way][2]:
            place = {"configurable": {"thread_id": "1", "checkpoint_ns": ns}}
            values = root.colour.get_state(root.graph, place).values["l"]
            assert (values.count("i"), len(values)) == (3, 6)
            history = root.colour.history(root.graph, place)
            wanted = [8, 7, 6, 5, 4, 3, 2, 1, 0, -1][1:] if root.durability != "exit" else [7, 4, 1]
            assert [e.metadata["step"] for e in history] == wanted
            if root.durability != "exit":
                assert [e.metadata["step"] for e in history if e.metadata["source"] == "input"] == [5, 2, -1]


@pytest.mark.parametrize("setting", ["default", "stateful", "own"])
def test_a_question_in_any_of_several_runs(root: Stage, way: str, setting: str) -> None:
    """Runs that ended do not run again; each question is asked once, and answered by the next resume."""
    build, per_call, _ = WAYS[way]
    root.put_on(lambda: build(root, inner_of(root, setting, asks=True)))
    result = root.run({"l": ["in"]})
    for number in range(len(per_call)):
        assert len(result["__interrupt__"]) == 1
        assert root.ran() == (["i", "q"] if number == 0 else ["i", "q", "q"])
        result = root.run(Command(resume=f"A{number}"))
    assert root.ran() == ["q"]
    assert [item for item in result["l"] if str(item).startswith("A")] == [f"A{n}" for n in range(len(per_call))]


def test_a_graph_without_checkpoints_starts_over(root: Stage, way: str) -> None:
    """engine.md 6.2: nothing is stored of it, so an answer lets all of it run again."""
    build, per_call, _ = WAYS[way]
    root.put_on(lambda: build(root, inner_of(root, "none", asks=True)))
    root.run({"l": [0]})
    assert root.ran() == ["i", "q"]
    (task,) = root.colour.get_state(root.graph, root.root, subgraphs=True).tasks
    assert [i.value for i in task.interrupts] == [0]
    if way != "deeper":
        assert (task.state, task.states) == (None, ())
    result = root.run(Command(resume="A"))
    assert root.ran() == (["i", "q"] if len(per_call) == 1 else ["i", "i", "q", "q"])
    assert ("__interrupt__" in result) is (len(per_call) > 1)


def test_a_graph_with_a_saver_of_its_own_uses_it_as_root(root: Stage) -> None:
    own = InMemorySaver()
    inner = StateGraph(Log).add_node("i", root.colour.letter("i")).add_edge(START, "i").compile(checkpointer=own)
    root.put_on(lambda: as_node(root, inner))
    root.run({"l": []})
    assert list(own.list(root.root)) == []
    root.colour.invoke(inner, {"l": ["x"]}, root.root)
    assert root.colour.get_state(inner, root.root).values == {"l": ["x", "i"]}


def test_a_thread_of_its_own_makes_a_root_run(root: Stage) -> None:
    own = InMemorySaver()
    inner = StateGraph(Log).add_node("i", root.colour.letter("i")).add_edge(START, "i").compile(checkpointer=own)

    def build() -> StateGraph[Any]:
        def n(state: Log) -> Any:
            result = yield inner, {"l": ["x"]}, {"configurable": {"thread_id": "other"}}
            return {"l": result["l"]}

        return StateGraph(Log).add_node("n", root.colour.script(n)).add_edge(START, "n")

    root.put_on(build)
    assert root.run({"l": []}) == {"l": ["x", "i"]}
    assert root.run({"l": []}) == {"l": ["x", "i", "x", "i", "x", "i"]}
    assert stored(root) == set()
    assert {e.config["configurable"]["checkpoint_ns"] for e in own.list(None)} == {""}
    other = {"configurable": {"thread_id": "other"}}
    assert root.colour.get_state(inner, other).values == {"l": ["x", "i", "x", "i"]}


def test_a_nested_graph_inherits_how_its_parent_is_stored(root: Stage) -> None:
    root.put_on(lambda: as_node(root, inner_of(root, "default", asks=True)))
    root.run({"l": [1]})
    place = root.colour.get_state(root.graph, root.root).tasks[0].state
    assert len(root.colour.history(root.graph, place)) == (1 if root.durability == "exit" else 3)


# ------------------------------------------------------------------------------------------ several in one node, keys


@pytest.mark.parametrize("setting", ["default", "stateful"])
def test_all_runs_of_a_task_are_seen(root: Stage, setting: str) -> None:
    """promise 68."""

    def build() -> StateGraph[Any]:
        one, two = inner_of(root, setting), inner_of(root, setting, asks=True)

        def n(state: Log) -> Any:
            yield one, {"l": ["one"]}
            result = yield two, {"l": ["two"]}
            return {"l": result["l"]}

        return StateGraph(Log).add_node("n", root.colour.script(n)).add_edge(START, "n")

    root.put_on(build)
    root.run({"l": []})
    (task,) = root.colour.get_state(root.graph, root.root, subgraphs=True).tasks
    first, second = task.states
    assert task.state == first
    assert len(tuple(task)) == 7
    assert (first.values, first.next) == ({"l": ["one", "i"]}, ())
    assert (second.values, second.next) == ({"l": ["two", "i"]}, ("q",))
    # Each is an address of its own, whichever graph it was.
    for state in task.states:
        assert root.colour.get_state(root.graph, state.config)[:2] == state[:2]
    root.colour.update_state(root.graph, second.config, {"l": ["by hand"]}, "q")
    root.ran()
    assert root.run(None) == {"l": ["two", "i", "by hand"]}
    assert root.ran() == []
    history = root.colour.history(root.graph, root.root, subgraphs=True)
    if root.durability != "exit":
        assert [[state.values for state in t.states] for e in history for t in e.tasks if t.name == "n"] == [
            [{"l": ["one", "i"]}, {"l": ["two", "i", "by hand"]}]
        ]


def parallel(stage: Stage, inner: Any, keys: tuple[Any, ...]) -> Any:
    """A node that starts one run per key at once; None is no key."""
    if stage.colour.is_async:

        async def arun(state: Log) -> dict[str, Any]:
            calls = [inner.ainvoke({"l": [n]}, key=key) for n, key in enumerate(keys)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            return {"l": merged(outcomes)}

        return arun

    def run(state: Log) -> dict[str, Any]:
        def one(n: int, key: Any) -> Any:
            try:
                return inner.invoke({"l": [n]}, key=key)
            except Exception as error:  # noqa: BLE001 - collected, as gather does
                return error

        with ThreadPoolExecutor() as pool:
            futures = [pool.submit(copy_context().run, one, n, key) for n, key in enumerate(keys)]
            return {"l": merged([future.result() for future in futures])}

    return run


def merged(outcomes: list[Any]) -> list[Any]:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [item for outcome in outcomes for item in outcome["l"]]


@pytest.mark.parametrize("setting", ["default", "stateful"])
def test_parallel_runs_in_one_node(root: Stage, setting: str) -> None:
    keys = ("x", "y", "z")
    root.put_on(
        lambda: (
            StateGraph(Log).add_node("n", parallel(root, inner_of(root, setting, asks=True), keys)).add_edge(START, "n")
        )
    )
    result = root.run({"l": []})
    for left in (3, 2, 1):
        (task,) = root.colour.get_state(root.graph, root.root, subgraphs=True).tasks
        shown = {named(state.config["configurable"]["checkpoint_ns"]): state.values["l"][0] for state in task.states}
        end = "" if setting == "stateful" else ":*"
        assert shown == {f"n[x]{end}": 0, f"n[y]{end}": 1, f"n[z]{end}": 2}
        questions = result["__interrupt__"]
        assert len(questions) == left, "what they ask comes up together"
        result = root.run(Command(resume={questions[-1].id: f"A{questions[-1].value}"}))
    assert result == {"l": [0, "i", "A0", 1, "i", "A1", 2, "i", "A2"]}
    assert root.ran().count("i") == 3


def test_keys_hold_whatever_the_order_of_the_calls(root: Stage) -> None:
    order = [("a", "b"), ("b", "a")]

    def build() -> StateGraph[Any]:
        inner = inner_of(root, "default", asks=True)

        async def acall(state: Log) -> dict[str, Any]:
            return {"l": [(await inner.ainvoke({"l": [key]}, key=key))["l"] for key in order[0]]}

        def call(state: Log) -> dict[str, Any]:
            return {"l": [inner.invoke({"l": [key]}, key=key)["l"] for key in order[0]]}

        return StateGraph(Log).add_node("n", acall if root.colour.is_async else call).add_edge(START, "n")

    root.put_on(build)
    root.run({"l": []})
    order.reverse()
    asked = root.run(None)
    assert [i.value for i in asked["__interrupt__"]] == ["b"]
    order.reverse()
    asked = root.run(Command(resume={asked["__interrupt__"][0].id: "B"}))
    (question,) = asked["__interrupt__"]
    assert question.value == "a"
    assert root.run(Command(resume={question.id: "A"})) == {"l": [["a", "i", "A"], ["b", "i", "B"]]}
    assert root.ran().count("i") == 2


@pytest.mark.parametrize("key", ["", "a|b", "a:b", "a[b", "a]", 1, ["a"]])
def test_a_key_must_fit_into_a_namespace(colour: Colour, key: Any) -> None:
    inner = StateGraph(Log).add_node("i", colour.letter("i")).add_edge(START, "i").compile()
    graph = StateGraph(Log).add_node("n", calling(colour, inner, 1, (key,))).add_edge(START, "n").compile()
    with refused(ValueError, repr(key)):
        colour.invoke(graph, {"l": []})


def test_a_key_of_a_root_run_is_told(colour: Colour) -> None:
    inner = StateGraph(Log).add_node("i", colour.letter("i")).add_edge(START, "i")
    with diagnosed("'k'", "thread_id"):
        assert colour.invoke(inner.compile(), {"l": []}, key="k") == {"l": ["i"]}
    with pytest.raises(PregelWarning):
        colour.invoke(inner.compile(strict=True), {"l": []}, key="k")


def test_an_update_that_no_run_reads_is_told(root: Stage) -> None:
    """By its names alone a graph is found that keeps its state; of any other each run has a namespace of its own."""
    root.put_on(lambda: as_node(root, inner_of(root, "default", asks=True)))
    root.run({"l": [0]})
    place = {"configurable": {"thread_id": "1", "checkpoint_ns": "n"}}
    with diagnosed("'n'", "task id"):
        root.colour.update_state(root.graph, place, {"l": ["lost"]}, "i")
    assert root.run(Command(resume="A"))["l"][-3:] == [0, "i", "A"]


# ---------------------------------------------------------------- one state, several tasks (design.md, row m)


def sends(stage: Stage, worker: Any) -> Callable[[], StateGraph[Any]]:
    def build() -> StateGraph[Any]:
        builder = StateGraph(Log).add_node("w", worker())
        return builder.add_conditional_edges(START, lambda state: [Send("w", {"l": [1]}), Send("w", {"l": [2]})])

    return build


def test_two_tasks_in_one_state_are_refused(root: Stage) -> None:
    root.put_on(sends(root, lambda: inner_of(root, "stateful")))
    with refused(RuntimeError, "'w'", "key=", ErrorCode.MULTIPLE_SUBGRAPHS.value) as caught:
        root.run({"l": []})
    ids = [task.id for task in root.colour.get_state(root.graph, root.root).tasks]
    assert all(id_ in str(caught.value) for id_ in ids)


@pytest.mark.parametrize("setting", ["default", "none", "own"])
def test_two_tasks_without_a_common_state_are_fine(root: Stage, setting: str) -> None:
    root.put_on(sends(root, lambda: inner_of(root, setting)))
    assert root.run({"l": []}) == {"l": [1, "i", 2, "i"]}


def test_two_tasks_in_one_state_below_a_default_graph_are_refused(root: Stage) -> None:
    def middle() -> Any:
        return StateGraph(Log).add_node("m", inner_of(root, "stateful")).add_edge(START, "m").compile()

    root.put_on(sends(root, middle))
    with refused(RuntimeError, "'w'", "w|m"):
        root.run({"l": []})


def test_a_key_gives_each_task_a_state_of_its_own(root: Stage) -> None:
    def worker() -> Any:
        inner = inner_of(root, "stateful")
        if root.colour.is_async:

            async def acall(state: Log) -> dict[str, Any]:
                return {"l": [(await inner.ainvoke(state, key=f"to-{state['l'][0]}"))["l"]]}

            return acall

        def call(state: Log) -> dict[str, Any]:
            return {"l": [inner.invoke(state, key=f"to-{state['l'][0]}")["l"]]}

        return call

    root.put_on(sends(root, worker))
    assert root.run({"l": []}) == {"l": [[1, "i"], [2, "i"]]}
    assert root.run({"l": []})["l"][2:] == [[1, "i", 1, "i"], [2, "i", 2, "i"]]
    assert stored(root) == {"w[to-1]", "w[to-2]"}
    place = {"configurable": {"thread_id": "1", "checkpoint_ns": "w[to-2]"}}
    assert root.colour.get_state(root.graph, place).values == {"l": [2, "i", 2, "i"]}


def test_one_task_may_come_back_to_the_state_in_a_later_step(root: Stage) -> None:
    """The same namespace in two supersteps, and in two attempts of one task, is no collision."""
    failing = [True]

    def build() -> StateGraph[Any]:
        inner = inner_of(root, "stateful")

        def w(state: Log) -> Any:
            result = yield inner, {"l": ["x"]}
            if failing:
                failing.clear()
                raise ValueError("once")
            return {"l": [len(result["l"])]}

        builder = StateGraph(Log)
        builder.add_node(
            "w",
            root.colour.script(w),
            retry_policy=RetryPolicy(initial_interval=0.0, jitter=False, retry_on=ValueError),
        )
        return builder.add_edge(START, "w").add_conditional_edges("w", lambda s: "w" if len(s["l"]) < 3 else "__end__")

    root.put_on(build)
    assert root.run({"l": []}) == {"l": [2, 4, 6]}
    assert root.ran() == ["i", "i", "i"]


# ------------------------------------------------------------------------------------------------- 6.4 errors, retries


@pytest.mark.parametrize("how", ["node", "called"])
@pytest.mark.parametrize("setting", ["default", "stateful", "own"])
def test_a_retried_node_goes_on_with_its_nested_run(root: Stage, how: str, setting: str) -> None:
    """engine.md 5.7: from the nested graph's last checkpoint."""
    failing = [True]

    def bad(state: Log) -> dict[str, Any]:
        root.calls.append("bad")
        if failing:
            failing.clear()
            raise ValueError("once")
        return {"l": ["bad"]}

    def build() -> StateGraph[Any]:
        builder = StateGraph(Log).add_node("i", root.colour.letter("i", root.calls)).add_edge(START, "i")
        builder.add_node("bad", root.colour.node(bad)).add_edge("i", "bad")
        inner = builder.compile(checkpointer=InMemorySaver() if setting == "own" else SETTINGS[setting])  # type: ignore[arg-type]
        node = inner if how == "node" else calling(root.colour, inner)
        policy = RetryPolicy(initial_interval=0.0, jitter=False, retry_on=ValueError)
        return StateGraph(Log).add_node("n", node, retry_policy=policy).add_edge(START, "n")

    root.put_on(build)
    assert root.run({"l": [0]})["l"][-3:] == [0, "i", "bad"]
    assert root.ran() == ["bad", "bad", "i"]
    if root.durability != "exit":
        # The same in a replay, which has a namespace or a branch of its own.
        failing.append(True)
        before = next(e for e in root.colour.history(root.graph, root.root) if e.next == ("n",))
        assert root.run(None, before.config)["l"][-3:] == [0, "i", "bad"]
        assert root.ran() == ["bad", "bad", "i"]


@pytest.mark.parametrize("setting", ["default", "stateful"])
def test_a_retried_node_does_not_repeat_what_its_resumed_run_has_done(root: Stage, setting: str) -> None:
    """What woke the nested run's nodes when it was stored is used up when it has ended."""
    failing = [True]

    def build() -> StateGraph[Any]:
        builder = StateGraph(Log).add_node("i", root.colour.letter("i", root.calls)).add_edge(START, "i")
        builder.add_node("q", asking(root)).add_edge(START, "q")
        builder.add_node("z", lambda state: None).add_edge("i", "z")
        inner = builder.compile(checkpointer=SETTINGS[setting])  # type: ignore[arg-type]

        def node(state: Log) -> Any:
            found = yield inner, {"l": ["in"]}
            if failing:
                failing.clear()
                raise ValueError("once")
            return found

        policy = RetryPolicy(initial_interval=0.0, jitter=False, retry_on=ValueError)
        return StateGraph(Log).add_node("n", root.colour.script(node), retry_policy=policy).add_edge(START, "n")

    root.put_on(build)
    root.run({"l": []})
    assert root.ran() == ["i", "q"]
    assert root.run(Command(resume="A")) == {"l": ["in", "i", "A"]}
    assert root.ran() == ["q"]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_failed_nested_run_is_continued_by_the_next_call(root: Stage, way: str, setting: str) -> None:
    build, per_call, _ = WAYS[way]
    failing = [True]

    def bad(state: Log) -> dict[str, Any]:
        root.calls.append("bad")
        if failing:
            raise ValueError("boom")
        return {"l": ["bad"]}

    def inner() -> Any:
        builder = StateGraph(Log).add_node("i", root.colour.letter("i", root.calls)).add_edge(START, "i")
        builder.add_node("bad", root.colour.node(bad)).add_edge("i", "bad")
        return builder.compile(checkpointer=InMemorySaver() if setting == "own" else SETTINGS[setting])  # type: ignore[arg-type]

    root.put_on(lambda: build(root, inner()))
    with refused(ValueError, "boom") as caught:
        root.run({"l": [0]})
    notes = [note for note in caught.value.__notes__ if "During task" in note]
    assert [note.split("'")[1] for note in notes] == ["bad", "m", "n"] if way == "deeper" else ["bad", "n"]
    assert root.ran() == ["bad", "i"]
    state = root.colour.get_state(root.graph, root.root, subgraphs=True)
    assert state.tasks[0].error == "ValueError('boom')"
    if setting != "none":
        deepest = state.tasks[0].state.tasks[0]
        deepest = deepest.state.tasks[0] if way == "deeper" else deepest
        assert (deepest.name, deepest.error) == ("bad", "ValueError('boom')")
    failing.clear()
    root.run(None)
    once = ["bad", "i"] if setting == "none" else ["bad"]
    assert root.ran() == sorted(once + ["bad", "i"] * (len(per_call) - 1))


# ---------------------------------------------------------------------------------------------- 6.6 parent commands


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_command_for_the_parent(root: Stage, way: str, setting: str) -> None:
    """The nearest parent takes it; nothing after it runs in the nested graph, nor in the node that called it."""
    build, _, _ = WAYS[way]

    def build_all() -> StateGraph[Any]:
        leave = root.colour.node(lambda state: Command(graph=Command.PARENT, goto="other", update={"l": ["up"]}))
        inner = StateGraph(Log).add_node("leave", leave).add_node("never", root.colour.letter("never", root.calls))
        inner.add_edge(START, "leave").add_edge("leave", "never")
        compiled = inner.compile(checkpointer=InMemorySaver() if setting == "own" else SETTINGS[setting])  # type: ignore[arg-type]
        if way == "deeper":
            middle = StateGraph(Log).add_node("m", compiled).add_node("other", root.colour.letter("other", root.calls))
            return called(2)(root, middle.add_edge(START, "m").compile())
        return build(root, compiled).add_node("other", root.colour.letter("other", root.calls))

    root.put_on(build_all)
    result = root.run({"l": []})
    if way == "deeper":
        assert result == {"l": [0, "up", "other", 1, "up", "other"]}
        assert root.ran() == ["other", "other"]
    else:
        assert result == {"l": ["up", "other"]}
        assert root.ran() == ["other"]


# --------------------------------------------------------------------------------------------------- 6.7 streaming


@pytest.mark.parametrize("setting", ["default", "stateful"])
def test_a_nested_question_is_streamed_at_each_level(root: Stage, way: str, setting: str) -> None:
    build, per_call, stable = WAYS[way]
    root.put_on(lambda: build(root, inner_of(root, setting, asks=True)))
    chunks, _ = root.outcome({"l": [0]}, stream_mode="updates", subgraphs=True)
    asked = [
        (named("|".join(ns)), [i.value for i in chunk["__interrupt__"]])
        for ns, chunk in chunks
        if "__interrupt__" in chunk
    ]
    places = (per_call if setting == "default" else stable)[:1] + MIDDLE.get(way, [])[:1]
    assert asked == [(place, [0]) for place in [*places, ""]]
    only, _ = root.outcome(None, stream_mode="updates")
    assert [list(chunk) for chunk in only] == [["__interrupt__"]]


@pytest.mark.parametrize("setting", ["default", "stateful"])
def test_checkpoints_are_streamed_with_their_addresses(root: Stage, setting: str) -> None:
    """amendments A33: the map of an event names each graph around it, and itself."""
    root.put_on(lambda: as_node(root, inner_of(root, setting, asks=True)))
    chunks, _ = root.outcome({"l": [0]}, stream_mode="checkpoints", subgraphs=True)
    for ns, event in chunks:
        configurable = event["config"]["configurable"]
        assert configurable["checkpoint_ns"] == "|".join(ns)
        if ns:
            assert list(configurable["checkpoint_map"]) == ["", "|".join(ns)]
            assert configurable["checkpoint_map"]["|".join(ns)] == configurable["checkpoint_id"]
            assert event["metadata"]["parents"].keys() == {""}
        else:
            assert event["metadata"]["parents"] == {}
    assert {path_of(ns) for ns, _ in chunks} == {(), ("n",)}
    if root.durability != "exit":
        for _, event in chunks:
            shown = root.colour.get_state(root.graph, event["config"])
            assert shown.config["configurable"]["checkpoint_id"] == event["config"]["configurable"]["checkpoint_id"]
            assert (shown.values, list(shown.next)) == (event["values"], event["next"])


def test_an_unused_saver_object_is_none_of_ours(root: Stage) -> None:
    """A file that a stage restarts on really is opened anew for each call."""
    root.put_on(lambda: as_node(root, inner_of(root, "default")))
    first, second = root.saver, root.saver
    assert (first is second) is (root.kind != "restart")
    assert isinstance(first, InMemorySaver if root.kind == "memory" else SqliteSaver)


# ------------------------------------------------------------------------------ what a replay and a resume go on from


@pytest.mark.parametrize("forks", [False, True], ids=["addressed", "forked"])
@pytest.mark.parametrize("setting", ["default", "stateful"])
def test_replay_inside_any_of_several_runs(whole: Stage, way: str, setting: str, forks: bool) -> None:
    """promise 57: runs that had ended by then do not run again, what came after does. A fork of the saver's stands where
    what it was made of stood."""
    build, per_call, _ = WAYS[way]

    def inner() -> Any:
        builder = StateGraph(Log)
        for name, before in (("i", START), ("j", "i")):
            builder.add_node(name, whole.colour.letter(name, whole.calls)).add_edge(before, name)
        return builder.compile(checkpointer=SETTINGS[setting])  # type: ignore[arg-type]

    whole.put_on(lambda: build(whole, inner()).add_node("z", whole.colour.letter("z", whole.calls)).add_edge("n", "z"))
    final = whole.run({"l": []})
    assert whole.ran() == ["i"] * len(per_call) + ["j"] * len(per_call) + ["z"]
    history = whole.colour.history(whole.graph, whole.root, subgraphs=True)
    (task,) = next(e for e in history if e.next == ("n",)).tasks
    places = [state.config for state in task.states or (task.state,)]
    for number, place in enumerate(places):
        config = {"configurable": {k: place["configurable"][k] for k in ("thread_id", "checkpoint_ns")}}
        if way == "deeper":
            (state, *_) = whole.colour.history(whole.graph, config, subgraphs=True)[1].tasks
            config = {
                "configurable": {"thread_id": "1", "checkpoint_ns": state.state.config["configurable"]["checkpoint_ns"]}
            }
        order = [named(ns).replace(":*", "") for ns in per_call].index(
            named(config["configurable"]["checkpoint_ns"]).replace(":*", "")
        )
        left = len(per_call) - order - 1
        for entry in whole.colour.history(whole.graph, config)[:4]:
            assert whole.run(None, whole.saver.fork(entry.config) if forks else entry.config) == final
            own = {1: [], 0: ["j"]}.get(len(entry.next) - 1, ["i", "j"]) if entry.next != ("i",) else ["i", "j"]
            own = [] if entry.next == () else ["j"] if entry.next == ("j",) else ["i", "j"]
            assert whole.ran() == sorted([*own, *["i", "j"] * left, "z"]), (number, entry.next)


@pytest.mark.parametrize("setting", ["default", "stateful"])
@pytest.mark.parametrize("how", ["node", "called"])
def test_an_answer_where_the_thread_went_on_meanwhile(root: Stage, how: str, setting: str) -> None:
    """engine.md 7.7: a resume uses what is stored there, in nested graphs too."""
    build = WAYS[how][0]
    root.put_on(lambda: build(root, inner_of(root, setting, asks=True)))
    root.run({"l": Overwrite([0])})
    asked = root.colour.get_state(root.graph, root.root)
    root.run({"l": Overwrite([1])})
    root.ran()
    result = root.run(Command(resume={asked.interrupts[0].id: "A"}), asked.config)
    assert result["l"][-3:] == [0, "i", "A"]
    assert root.ran() == ["q"]


@pytest.mark.parametrize("drop", ["input", "replay", "update"])
def test_a_step_that_is_dropped_is_not_remembered(root: Stage, drop: str) -> None:
    """A graph that keeps its state ended in a step that never closed: its parent goes on as if it had not run."""

    def build() -> StateGraph[Any]:
        builder = called(1)(root, inner_of(root, "stateful"))
        builder.add_node("q", asking(root)).add_edge(START, "q")
        return builder

    root.put_on(build)
    root.run({"l": Overwrite(["one"])})
    root.run(Command(resume="ONE"))
    root.run({"l": Overwrite(["two"])})
    waiting = root.colour.get_state(root.graph, root.root)
    assert waiting.values["l"] == ["two", 0, "i", 0, "i"]
    if drop == "input":
        root.run({"l": Overwrite(["three"])})
    elif drop == "replay":
        root.run(None, waiting.config)
    else:
        root.colour.update_state(root.graph, root.root, {"l": Overwrite(["three"])}, START)
        root.run(None)
    assert root.run(Command(resume="A"))["l"][1:] == [0, "i", 0, "i", "A"]
    # Answered, the step closes, and is remembered.
    root.run({"l": Overwrite(["four"])})
    assert root.run(Command(resume="A"))["l"] == ["four", 0, "i", 0, "i", 0, "i", "A"]


def chain_of(stage: Stage, *names: str, setting: str = "default") -> Any:
    """Nodes one after the other, to be nested; the last one asks a question of its name."""
    builder, before = StateGraph(Log), START
    for name in names:
        node = stage.colour.letter(name, stage.calls) if name != names[-1] else asking_as(stage, name)
        builder.add_node(name, node).add_edge(before, name)
        before = name
    return builder.compile(checkpointer=SETTINGS[setting])  # type: ignore[arg-type]


def asking_as(stage: Stage, name: str) -> Any:
    def ask(state: Log) -> dict[str, Any]:
        stage.calls.append(name)
        return {"l": [interrupt(name)]}

    return stage.colour.node(ask)


def nested_states(stage: Stage, next_: str) -> list[Any]:
    """Of the nested runs of the open superstep: where each of them was before `next_`."""
    (task,) = stage.colour.get_state(stage.graph, stage.root).tasks
    found = []
    for nested in task.states or (task.state,):
        place = nested["configurable"] if isinstance(nested, dict) else nested.config["configurable"]
        config = {"configurable": {k: place[k] for k in ("thread_id", "checkpoint_ns")}}
        found.append(next(e for e in stage.colour.history(stage.graph, config) if e.next == (next_,)))
    return found


@pytest.mark.parametrize("setting", ["default", "stateful"])
def test_a_replay_that_stops_before_it_comes_there_still_comes_there(whole: Stage, setting: str) -> None:
    """Also where the thread stands on a fork already: the node around asks first, then calls the graph."""

    def build() -> StateGraph[Any]:
        inner = chain_of(whole, "i", "j", "k", setting=setting)

        def node(state: Log) -> Any:
            first = interrupt("first")
            found = yield inner, {"l": [first]}
            return {"l": found["l"]}

        return StateGraph(Log).add_node("n", whole.colour.script(node)).add_edge(START, "n")

    whole.put_on(build)
    whole.run({"l": []})
    whole.run(Command(resume="A"))
    assert whole.ran() == ["i", "j", "k"]
    for _ in range(2):  # the second time the newest checkpoint of the thread is a fork
        (before,) = nested_states(whole, "j")
        asked = whole.run(None, before.config)
        assert [question.value for question in asked["__interrupt__"]] == ["first"]
        whole.run(Command(resume="B"))
        assert whole.ran() == ["j", "k"]
    assert whole.run(Command(resume="K"))["l"] == ["A", "i", "j", "K"]


@pytest.mark.parametrize("setting", ["default", "stateful"])
def test_what_is_done_after_an_edit_of_an_old_superstep_is_done_once(whole: Stage, setting: str) -> None:
    """The thread has gone on from there: the run on the edit belongs to a branch of its own, and is found on it."""

    def build() -> StateGraph[Any]:
        inner = StateGraph(Log).add_node("i", whole.colour.letter("i", whole.calls)).add_edge(START, "i")
        inner.add_node("j", whole.colour.letter("j", whole.calls)).add_edge("i", "j")
        inner.add_node("k", asking_as(whole, "k")).add_edge("i", "k")
        return as_node(whole, inner.compile(checkpointer=SETTINGS[setting]))  # type: ignore[arg-type]

    whole.put_on(build)
    whole.run({"l": []})
    (before,) = nested_states(whole, "i")
    whole.colour.update_state(whole.graph, whole.root, {"l": ["elsewhere"]}, "n")
    config = whole.colour.update_state(whole.graph, before.config, {"l": ["edit"]}, "i")
    whole.ran()
    whole.run(None, config)
    assert whole.ran() == ["j", "k"]
    assert whole.run(Command(resume="K"))["l"] == ["edit", "j", "K"]
    assert whole.ran() == ["k"]


@pytest.mark.parametrize("setting", ["default", "stateful"])
@pytest.mark.parametrize(("addressed", "first"), [(True, []), (False, ["one"])])
def test_an_edit_that_is_addressed_sees_no_edit_beside_it(
    whole: Stage, setting: str, addressed: bool, first: list[str]
) -> None:
    """Two nested runs wait side by side, and each is edited. What is addressed is one line of checkpoints, which the other
    edit is not on; a call that addresses none goes on with both."""

    def build() -> StateGraph[Any]:
        builder = StateGraph(Log)
        for name in ("m", "n"):
            builder.add_node(name, chain_of(whole, "i", "q", setting=setting)).add_edge(START, name)
        return builder

    whole.put_on(build)
    whole.run({"l": []})
    config = None
    for task, edit in zip(whole.colour.get_state(whole.graph, whole.root).tasks, ("one", "two"), strict=True):
        config = whole.colour.update_state(whole.graph, task.state, {"l": [edit]}, "i")
    whole.run(None, config if addressed else None)
    asked = whole.colour.get_state(whole.graph, whole.root).interrupts
    result = whole.run(Command(resume={question.id: "A" for question in asked}))
    assert result["l"] == ["i", *first, "A", "i", "two", "A"]


@pytest.mark.parametrize("setting", ["default", "stateful"])
def test_an_edit_of_what_had_ended_beside_it_is_not_what_stood_there(whole: Stage, setting: str) -> None:
    """A nested run ends, the next one asks. The first is edited where it had not ended, the second replayed."""

    def build() -> StateGraph[Any]:
        builder = StateGraph(Log)
        for name, before in (("i", START), ("j", "i")):
            builder.add_node(name, whole.colour.letter(name, whole.calls)).add_edge(before, name)
        ends = builder.compile(checkpointer=SETTINGS[setting])  # type: ignore[arg-type]
        asks = chain_of(whole, "x", "q", setting=setting)

        def node(state: Log) -> Any:
            first = yield ends, {"l": [0]}
            second = yield asks, {"l": [1]}
            return {"l": [*first["l"], *second["l"]]}

        return StateGraph(Log).add_node("n", whole.colour.script(node)).add_edge(START, "n")

    whole.put_on(build)
    whole.run({"l": []})
    first, second = whole.colour.get_state(whole.graph, whole.root, subgraphs=True).tasks[0].states
    place = {"configurable": {k: first.config["configurable"][k] for k in ("thread_id", "checkpoint_ns")}}
    before = next(entry for entry in whole.colour.history(whole.graph, place) if entry.next == ("j",))
    whole.colour.update_state(whole.graph, before.config, {"l": ["edit"]}, "i")
    whole.ran()
    whole.run(None, second.config)
    assert whole.ran() == ["q"]
    assert whole.run(Command(resume="A"))["l"] == [0, "i", "j", 1, "x", "A"]


def test_what_is_replayed_is_replayed_once(whole: Stage) -> None:
    """A node comes by twice. The replay of a nested checkpoint of its first time stops and goes on: its second time calls
    the graph from its start."""

    def build() -> StateGraph[Any]:
        inner = chain_of(whole, "i", "k")

        def node(state: Log) -> Any:
            first = interrupt("q")
            found = yield inner, {"l": [first]}
            return {"l": found["l"]}

        middle = StateGraph(Log).add_node("m", whole.colour.script(node)).add_edge(START, "m")
        middle.add_conditional_edges("m", lambda state: "m" if len(state["l"]) < 4 else END, ["m", END])
        return as_node(whole, middle.compile())

    def replies(*answers: str) -> Any:
        return [whole.run(Command(resume=one)) for one in answers][-1]

    whole.put_on(build)
    whole.run({"l": []})
    replies("A")
    (task,) = whole.colour.get_state(whole.graph, whole.root, subgraphs=True).tasks
    nested = task.state.tasks[0].state
    assert nested.next == ("k",)
    final = replies("K", "B", "L")
    assert final == {"l": ["A", "i", "K", "B", "i", "L"]}
    whole.ran()
    whole.run(None, nested.config)
    replies("A", "K")
    assert whole.ran() == ["k", "k"]
    assert replies("B", "L") == final
    assert whole.ran() == ["i", "k", "k"]


def test_where_a_stateful_graph_ended_outlives_the_replay_of_what_came_after(root: Stage) -> None:
    """It is not run again, and the graph around it ends while its sibling waits."""
    asks = [True]

    def ask(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q") if asks else "A"]}

    def build() -> StateGraph[Any]:
        middle = StateGraph(Log).add_node("s", calling(root.colour, inner_of(root, "stateful")))
        middle.add_node("q", root.colour.node(ask)).add_edge(START, "s").add_edge("s", "q")
        builder = StateGraph(Log).add_node("n", middle.compile()).add_edge(START, "n")
        return builder.add_node("p", asking_as(root, "p")).add_edge(START, "p")

    def answer(*names: str) -> Any:
        asked = root.colour.get_state(root.graph, root.root).interrupts
        return root.run(Command(resume={question.id: "A" for question in asked if question.value in names}))

    root.put_on(build)
    root.run({"l": []})
    nested = root.colour.get_state(root.graph, root.root, subgraphs=True).tasks[0].state
    assert nested.next == ("q",)
    assert answer("p", "q")["l"] == [0, "i", "A", "A"]
    root.ran()
    asks.clear()
    root.run(None, nested.config)
    assert answer("p")["l"] == [0, "i", "A", "A"]
    assert "i" not in root.ran()
    root.run({"l": Overwrite([])})
    assert answer("p")["l"] == [0, "i", 0, "i", "A", "A"]


def test_checkpoints_name_what_is_stored_around_them(root: Stage) -> None:
    """D52: with durability `exit` what a stateful graph ended under may never be stored. Then it names nothing."""
    inner = {"n": "stateful", "m": "default"}

    def build() -> StateGraph[Any]:
        builder, before = StateGraph(Log), START
        for name, setting in inner.items():
            builder.add_node(name, calling(root.colour, inner_of(root, setting))).add_edge(before, name)
            before = name
        outer = StateGraph(Log).add_node("s", builder.compile()).add_edge(START, "s")
        return outer.add_node("q", asking_as(root, "q")).add_edge(START, "q")

    root.put_on(build)
    for _ in range(2):
        root.run({"l": Overwrite([])})
        root.run(Command(resume="A"))
        entries = list(root.saver.list(root.root))
        ids = {entry.config["configurable"]["checkpoint_id"] for entry in entries}
        parents = [entry.metadata["parents"] for entry in entries if entry.config["configurable"]["checkpoint_ns"]]
        assert all(set(named.values()) <= ids for named in parents)
        assert parents
        assert root.durability == "exit" or all("" in named for named in parents)


@pytest.mark.parametrize("beside", [False, True])
def test_where_a_stateful_graph_left_for_its_parent_is_remembered(root: Stage, beside: bool) -> None:
    """It asked before, alone or beside another question; its sibling waits still."""

    def leave(state: Log) -> Any:
        return Command(graph=Command.PARENT, update={"l": [*state["l"], interrupt("q")]})

    def build() -> StateGraph[Any]:
        middle = StateGraph(Log).add_node("i", root.colour.letter("i", root.calls)).add_edge(START, "i")
        middle.add_node("q", root.colour.node(leave)).add_edge("i", "q")
        if beside:
            middle.add_node("r", asking_as(root, "r")).add_edge("i", "r")
        builder = StateGraph(Log).add_node("n", middle.compile(checkpointer=True)).add_edge(START, "n")
        return builder.add_node("p", asking_as(root, "p")).add_edge(START, "p")

    def answer(name: str) -> Any:
        asked = root.colour.get_state(root.graph, root.root).interrupts
        return root.run(Command(resume={question.id: "A" for question in asked if question.value == name}))

    root.put_on(build)
    root.run({"l": []})
    answer("q")
    assert answer("p") == {"l": ["i", "A", "A"]}
    root.run({"l": Overwrite([])})
    answer("q")
    assert answer("p") == {"l": ["i", "i", "A", "A"]}


class Own(InMemorySaver):
    """A saver that a program made its own: it is driven through its public methods."""

    def put(self, *args: Any) -> Any:
        return super().put(*args)


@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_savers_of_four_methods_know_where_it_ended(
    colour: Colour, durability: str, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.support.stages.InMemorySaver", Own)
    scenarios: list[Any] = [
        test_where_a_stateful_graph_ended_outlives_the_replay_of_what_came_after,
        partial(test_where_a_stateful_graph_left_for_its_parent_is_remembered, beside=True),
    ]
    if durability == "sync":
        scenarios.append(test_what_is_replayed_is_replayed_once)
        scenarios.append(partial(test_an_edit_of_what_had_ended_beside_it_is_not_what_stood_there, setting="stateful"))
    for scenario in scenarios:
        scenario(Stage(colour, "memory", durability, 1, tmp_path))


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("made", [InMemorySaver, Own])
@pytest.mark.parametrize(("outer", "inner"), [(True, True), (None, True), (True, None), (None, None)])
def test_how_it_is_stored_changes_nothing(colour: Colour, made: Any, durability: str, outer: Any, inner: Any) -> None:
    """Side by side in a nested graph: one that ends, one that asks, and a question; answered one by one, twice over."""
    calls: list[str] = []

    def ask(name: str) -> Any:
        def run(state: Log) -> dict[str, Any]:
            calls.append(name)
            return {"l": [interrupt(name)]}

        return colour.node(run)

    ends = StateGraph(Log).add_node("e", colour.letter("e", calls)).add_edge(START, "e").compile(checkpointer=inner)
    asks = StateGraph(Log).add_node("f", colour.letter("f", calls)).add_node("q", ask("q"))
    asking = asks.add_edge(START, "f").add_edge("f", "q").compile(checkpointer=inner)
    middle = StateGraph(Log).add_node("ends", calling(colour, ends, 2)).add_node("asks", calling(colour, asking))
    middle.add_node("p", ask("p"))
    for name in ("ends", "asks", "p"):
        middle.add_edge(START, name)
    builder = StateGraph(Log).add_node("n", calling(colour, middle.compile(checkpointer=outer))).add_edge(START, "n")
    graph = builder.compile(checkpointer=made())
    thread = {"configurable": {"thread_id": "1"}}
    before: list[Any] = []
    for number in (1, 2):
        result = colour.invoke(graph, {"l": Overwrite([])}, thread, durability=durability)
        while "__interrupt__" in result:
            (question, *_) = sorted(result["__interrupt__"], key=lambda i: str(i.value))
            result = colour.invoke(graph, Command(resume={question.id: "A"}), thread, durability=durability)
        kept = number if inner else 1
        parts = [[0, "f", "A"] * kept, [0, "e"] * kept, [1, "e"] * kept, ["A"]]
        now = [0, *(item for part in parts for item in part)]
        before = [*before, *now] if outer else now
        assert result["l"] == before
    assert {name: calls.count(name) for name in "efpq"} == {"e": 4, "f": 2, "p": 4, "q": 4}
