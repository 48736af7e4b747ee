"""Graphs inside graphs: namespaces, savers, values, errors, parent commands, streaming (engine.md 6)."""

import operator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from checkpoint.memory import InMemorySaver
from pregel.errors import InvalidUpdateError, ParentCommand
from pregel.graph import START, StateGraph
from pregel.types import Command, Send, interrupt
from tests.support.scenarios import Colour, Log, LogX, namespaces, path_of, refused


def inner_of(colour: Colour, *names: str, **options: Any) -> Any:
    builder = StateGraph(Log)
    before = START
    for name in names or ("i",):
        builder.add_node(name, colour.letter(name)).add_edge(before, name)
        before = name
    return builder.compile(**options)


def outer_of(colour: Colour, sub: Any, saver: Any = None, **options: Any) -> Any:
    return StateGraph(Log).add_node("sub", sub, **options).add_edge(START, "sub").compile(checkpointer=saver)


def calling(colour: Colour, inner: Any, times: int = 1, given: Any = None) -> Any:
    """A node that calls a graph and adds what it returned."""

    def n(state: Log) -> Any:
        found: list[Any] = []
        for _ in range(times):
            result = yield inner, {"l": ["x"]} if given is None else given
            found += result["l"]
        return {"l": found}

    return colour.script(n)


def test_as_node_and_called_give_different_input(colour: Colour) -> None:
    assert colour.invoke(outer_of(colour, inner_of(colour)), {"l": ["in"]}) == {"l": ["in", "in", "i"]}
    called = outer_of(colour, calling(colour, inner_of(colour)))
    assert colour.invoke(called, {"l": ["in"]}) == {"l": ["in", "x", "i"]}


def test_child_takes_its_own_keys_and_returns_its_output_keys(colour: Colour) -> None:
    class Inner(TypedDict):
        x: Any
        own: Any

    class Out(TypedDict):
        x: Any

    seen: list[Any] = []

    def i(state: Inner) -> dict[str, Any]:
        seen.append(dict(state))
        return {"x": "new", "own": 1}

    whole = StateGraph(Inner).add_node("i", colour.node(i)).add_edge(START, "i").compile()
    narrow = StateGraph(Inner, output_schema=Out).add_node("i", colour.node(i)).add_edge(START, "i").compile()
    for inner in (whole, narrow):
        graph = StateGraph(LogX).add_node("sub", inner).add_edge(START, "sub").compile()
        assert colour.invoke(graph, {"l": ["in"], "x": "old"}) == {"l": ["in"], "x": "new"}
        # amendments A26: keys the parent has not are dropped without complaint
        assert colour.stream(graph, {"l": [], "x": "old"}, stream_mode="updates")[0]["sub"]["x"] == "new"
    assert seen[0] == {"x": "old"}


def test_nothing_shared_updates_nothing(colour: Colour) -> None:
    """amendments A26."""

    class Other(TypedDict):
        z: int

    inner = StateGraph(Other, input_schema=Log).add_node("i", colour.node(lambda state: {"z": 1})).add_edge(START, "i")
    graph = outer_of(colour, inner.compile())
    assert colour.stream(graph, {"l": ["in"]}, stream_mode="updates") == [{"sub": None}]


class Counter(TypedDict, total=False):
    n: Annotated[int, operator.add]
    x: Any


@pytest.mark.differs("promise 20: a subgraph returns only keys that one of its nodes wrote")
def test_unwritten_keys_are_not_echoed(colour: Colour) -> None:
    inner = StateGraph(Counter).add_node("i", colour.node(lambda state: {"x": "seen"})).add_edge(START, "i").compile()
    graph = StateGraph(Counter).add_node("sub", inner).add_edge(START, "sub").compile()
    assert colour.invoke(graph, {"n": 1}) == {"n": 1, "x": "seen"}


def test_written_keys_are_returned_whole(colour: Colour) -> None:
    """engine.md 6.3: the full value of a written key goes through the parent's reducer."""
    inner = StateGraph(Counter).add_node("i", colour.node(lambda state: {"n": 10})).add_edge(START, "i").compile()
    graph = StateGraph(Counter).add_node("sub", inner).add_edge(START, "sub").compile()
    assert colour.invoke(graph, {"n": 1}) == {"n": 12}


# ------------------------------------------------------------------------------------------- namespaces and savers


def stored(saver: Any, config: Any) -> set[tuple[str, ...]]:
    return {tuple(namespaces(entry.config)) for entry in saver.list(config)}


@pytest.mark.parametrize("as_root", [True, False])
def test_stateful_subgraph_needs_a_parent(colour: Colour, memory: Any, thread: Any, as_root: bool) -> None:
    stateful = inner_of(colour, checkpointer=True)
    if as_root:
        with pytest.raises(RuntimeError):
            colour.invoke(stateful, {"l": []}, thread)
    else:
        graph = outer_of(colour, calling(colour, stateful))
        assert colour.invoke(graph, {"l": []}) == {"l": ["x", "i"]}


def test_stateful_subgraph_called_twice_in_one_node(colour: Colour, saver: Any, thread: Any) -> None:
    graph = outer_of(colour, calling(colour, inner_of(colour, checkpointer=True), times=2), saver)
    assert colour.invoke(graph, {"l": []}, thread)["l"] == ["x", "i", "x", "i"]
    assert stored(saver, thread) == {(), ("sub",), ("sub", "1")}
    again = colour.invoke(graph, {"l": []}, thread)["l"][4:]
    assert again == ["x", "i", "x", "i"] * 2


def test_stateful_subgraph_interrupted(colour: Colour, saver: Any, thread: Any) -> None:
    ask = colour.node(lambda state: {"l": [interrupt("q")]})
    stateful = StateGraph(Log).add_node("ask", ask).add_edge(START, "ask").compile(checkpointer=True)
    graph = outer_of(colour, calling(colour, stateful), saver)
    for answer, expected in [("A", ["x", "A"]), ("B", ["x", "A", "x", "A", "x", "B"])]:
        assert "__interrupt__" in colour.invoke(graph, {"l": []}, thread)
        assert colour.invoke(graph, Command(resume=answer), thread) == {"l": expected}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_stateful_subgraph_of_a_default_one(
    colour: Colour, saver: Any, thread: Any, own: bool, asks: bool, durability: Any
) -> None:
    """The namespace around it is a new one for each call; its own is not."""
    deep = inner_of(colour, checkpointer=True)
    middle = StateGraph(Log).add_node("more", calling(colour, deep)).add_edge(START, "more").compile()
    builder = StateGraph(Log).add_node("sub", calling(colour, middle, given={"l": ["m"]})).add_edge(START, "sub")
    if asks:
        # Answered by a run that does not run the subgraph again.
        builder.add_node("ask", colour.node(lambda state: {"l": [interrupt("q")]})).add_edge(START, "ask")
    graph = builder.compile(checkpointer=Own() if own else saver)
    wanted: list[str] = []
    for number in (1, 2, 3):
        found = colour.invoke(graph, {"l": []}, thread, durability=durability)
        if asks:
            found = colour.invoke(graph, Command(resume="A"), thread, durability=durability)
            wanted.append("A")
        wanted += ["m", *["x", "i"] * number]
        assert found == {"l": wanted}


class Own(InMemorySaver):
    """A saver that a program made its own: it is driven through its public methods."""

    def put(self, *args: Any) -> Any:
        return super().put(*args)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("own", [False, True])
def test_stateful_subgraph_beside_a_question(
    colour: Colour, saver: Any, thread: Any, own: bool, durability: Any
) -> None:
    """It finished before the question was answered, and does not run again: the next call continues it all the same."""
    ask = colour.node(lambda state: {"l": [interrupt("q")]})
    builder = StateGraph(Log).add_node("sub", calling(colour, inner_of(colour, checkpointer=True))).add_node("ask", ask)
    builder.add_edge(START, "sub").add_edge(START, "ask")
    graph = builder.compile(checkpointer=Own() if own else saver)
    wanted: list[str] = []
    for number in (1, 2, 3):
        colour.invoke(graph, {"l": []}, thread, durability=durability)
        wanted += ["A", *["x", "i"] * number]
        assert colour.invoke(graph, Command(resume="A"), thread, durability=durability) == {"l": wanted}


@pytest.mark.differs(
    "engine.md 11, row 3: a nested loop resumes only from a checkpoint of the current parent checkpoint"
)
def test_stateful_subgraph_behind_a_breakpoint(colour: Colour, saver: Any, thread: Any) -> None:
    stateful = inner_of(colour, checkpointer=True)
    builder = StateGraph(Log).add_node("sub", calling(colour, stateful)).add_edge(START, "sub")
    graph = builder.compile(checkpointer=saver, interrupt_before=["sub"])
    for expected in (["x", "i"], ["x", "i", "x", "i", "x", "i"]):
        colour.invoke(graph, {"l": []}, thread)
        assert colour.invoke(graph, None, thread) == {"l": expected}


def test_own_saver_of_a_nested_graph_is_ignored(colour: Colour, saver: Any, thread: Any) -> None:
    own = InMemorySaver()
    graph = outer_of(colour, inner_of(colour, checkpointer=own), saver)
    colour.invoke(graph, {"l": []}, thread)
    assert stored(saver, thread) == {(), ("sub:*",)}
    assert list(own.list(None)) == []
    colour.invoke(outer_of(colour, inner_of(colour, checkpointer=own)), {"l": []}, thread)
    assert list(own.list(None)) == []


# ---------------------------------------------------------------------------------------------------- state access


def waiting(colour: Colour, saver: Any) -> Any:
    """sub (first → ask) → after, stopped in `ask`."""
    inner = StateGraph(Log).add_node("first", colour.letter("first"))
    inner.add_node("ask", colour.node(lambda state: {"l": [interrupt("q")]}))
    inner.add_edge(START, "first").add_edge("first", "ask")
    builder = StateGraph(Log).add_node("sub", inner.compile()).add_node("after", colour.letter("after"))
    return builder.add_edge(START, "sub").add_edge("sub", "after").compile(checkpointer=saver)


def test_state_of_a_nested_graph(colour: Colour, saver: Any, thread: Any) -> None:
    graph = waiting(colour, saver)
    colour.invoke(graph, {"l": ["in"]}, thread)
    (task,) = colour.get_state(graph, thread).tasks
    ns = f"sub:{task.id}"
    assert task.state == {"configurable": {"thread_id": "1", "checkpoint_ns": ns}}
    (task,) = colour.get_state(graph, thread, subgraphs=True).tasks
    nested = task.state
    assert (nested.values, nested.next) == ({"l": ["in", "first"]}, ("ask",))
    assert nested.config["configurable"]["checkpoint_ns"] == ns
    # amendments A34: the bare state config is an address
    bare = {"configurable": {"thread_id": "1", "checkpoint_ns": ns}}
    assert colour.get_state(graph, bare).values == {"l": ["in", "first"]}
    assert [s.next for s in colour.history(graph, bare)] == [("ask",), ("first",), ("__start__",)]
    assert [s.next for s in colour.history(graph, thread)] == [("sub",), ("__start__",)]
    colour.invoke(graph, Command(resume="R"), thread)
    assert colour.get_state(graph, thread).tasks == ()


def test_state_of_a_stateful_graph(colour: Colour, saver: Any, thread: Any) -> None:
    graph = outer_of(colour, inner_of(colour, checkpointer=True), saver)
    colour.invoke(graph, {"l": ["in"]}, thread)
    config = {"configurable": {"thread_id": "1", "checkpoint_ns": "sub"}}
    assert colour.get_state(graph, config).values == {"l": ["in", "i"]}
    assert len(colour.history(graph, config)) == 3


def test_replay_of_the_root_runs_a_default_subgraph_from_its_start(colour: Colour, saver: Any, thread: Any) -> None:
    """engine.md 7.7."""
    graph = waiting(colour, saver)
    colour.invoke(graph, {"l": ["in"]}, thread)
    colour.invoke(graph, Command(resume="1"), thread)
    before = next(s for s in colour.history(graph, thread) if s.next == ("sub",))
    asked = colour.invoke(graph, None, before.config)
    assert (asked["l"], [i.value for i in asked["__interrupt__"]]) == (["in"], ["q"])
    assert colour.invoke(graph, Command(resume="2"), thread) == {"l": ["in", "in", "first", "2", "after"]}


def test_replay_of_the_root_keeps_what_a_stateful_subgraph_had_before(colour: Colour, saver: Any, thread: Any) -> None:
    """engine.md 7.7: state from before the replayed checkpoint is kept, later state is not seen."""
    graph = outer_of(colour, calling(colour, inner_of(colour, checkpointer=True)), saver)
    for _ in range(3):
        colour.invoke(graph, {"l": []}, thread)
    second = [s for s in colour.history(graph, thread) if s.next == ("sub",)][1]
    assert colour.invoke(graph, None, second.config) == {"l": ["x", "i"] * 3}


def test_resume_at_a_nested_checkpoint(colour: Colour, saver: Any, thread: Any) -> None:
    graph = waiting(colour, saver)
    colour.invoke(graph, {"l": ["in"]}, thread)
    nested = colour.get_state(graph, thread, subgraphs=True).tasks[0].state
    assert colour.invoke(graph, Command(resume="R"), nested.config) == {"l": ["in", "in", "first", "R", "after"]}


# --------------------------------------------------------------------------------------------------- parent commands


@pytest.mark.parametrize("how", ["node", "called"])
@pytest.mark.parametrize("stored_", [True, False])
def test_parent_command(colour: Colour, memory: Any, thread: Any, how: str, stored_: bool) -> None:
    calls: list[str] = []

    def leave(state: Log) -> Any:
        return Command(graph=Command.PARENT, goto="other", update={"l": ["up"]})

    inner = StateGraph(Log).add_node("leave", colour.node(leave)).add_node("never", colour.letter("never", calls))
    inner_graph = inner.add_edge(START, "leave").add_edge("leave", "never").compile()
    sub = inner_graph if how == "node" else calling(colour, inner_graph)
    builder = StateGraph(Log).add_node("sub", sub).add_node("other", colour.letter("other"))
    graph = builder.add_edge(START, "sub").compile(checkpointer=memory if stored_ else None)
    assert colour.stream(graph, {"l": ["in"]}, thread, stream_mode="updates") == [
        {"sub": {"l": ["up"]}},
        {"other": {"l": ["other"]}},
    ]
    assert calls == []


def test_parent_command_goes_up_one_level(colour: Colour) -> None:
    leave = colour.node(lambda state: Command(graph=Command.PARENT, goto="m2", update={"l": ["up"]}))
    deep = StateGraph(Log).add_node("d", leave).add_edge(START, "d").compile()
    middle = StateGraph(Log).add_node("m", deep).add_node("m2", colour.letter("m2")).add_edge(START, "m").compile()
    graph = outer_of(colour, middle)
    assert colour.invoke(graph, {"l": []}) == {"l": ["up", "m2"]}


def test_parent_command_with_sends(colour: Colour) -> None:
    leave = colour.node(lambda state: Command(graph=Command.PARENT, goto=[Send("w", 1), Send("w", 2)]))
    inner = StateGraph(Log).add_node("i", leave).add_edge(START, "i").compile()
    builder = StateGraph(Log).add_node("sub", inner).add_node("w", colour.node(lambda arg: {"l": [arg]}))
    assert colour.invoke(builder.add_edge(START, "sub").compile(), {"l": []}) == {"l": [1, 2]}


def test_parent_command_of_a_root_graph_escapes(colour: Colour) -> None:
    """amendments II.2 5.1."""
    leave = colour.node(lambda state: Command(graph=Command.PARENT, goto="x", update={"no": "key"}))
    graph = StateGraph(Log).add_node("n", leave).add_edge(START, "n").compile()
    with pytest.raises(ParentCommand) as caught:
        colour.invoke(graph, {"l": []})
    command = caught.value.args[0]
    assert (command.goto, command.update) == ("x", {"no": "key"})


# ------------------------------------------------------------------------------------------------- errors, streaming


def test_error_in_a_nested_graph(colour: Colour, saver: Any, thread: Any) -> None:
    failing = [True]
    calls: list[str] = []

    def bad(state: Log) -> dict[str, Any]:
        if failing:
            raise ValueError("boom")
        return {"l": ["bad"]}

    inner = StateGraph(Log).add_node("ok", colour.letter("ok", calls)).add_node("bad", colour.node(bad))
    inner.add_edge(START, "ok").add_edge("ok", "bad")
    graph = outer_of(colour, inner.compile(), saver)
    with pytest.raises(ValueError) as caught:
        colour.invoke(graph, {"l": []}, thread)
    notes = [note for note in caught.value.__notes__ if "'bad'" in note or "'sub'" in note]
    assert ["'bad'" in note for note in notes] == [True, False]
    state = colour.get_state(graph, thread, subgraphs=True)
    assert state.tasks[0].error == "ValueError('boom')"
    assert state.tasks[0].state.tasks[0].error == "ValueError('boom')"
    failing.clear()
    assert colour.invoke(graph, None, thread) == {"l": ["ok", "bad"]}
    assert calls == ["ok"]


def test_nested_limit_is_its_own(colour: Colour) -> None:
    graph = outer_of(colour, inner_of(colour, "a", "b", "c"))
    assert colour.invoke(graph, {"l": []}, {"recursion_limit": 4}) == {"l": ["a", "b", "c"]}


def test_nested_streaming(colour: Colour) -> None:
    deep = inner_of(colour, "d")
    middle = StateGraph(Log).add_node("m", deep).add_edge(START, "m").compile()
    graph = outer_of(colour, middle)
    chunks = colour.stream(graph, {"l": []}, stream_mode="updates", subgraphs=True)
    assert [(path_of(ns), next(iter(data))) for ns, data in chunks] == [
        (("sub", "m"), "d"),
        (("sub",), "m"),
        ((), "sub"),
    ]
    tasks = colour.stream(graph, {"l": []}, stream_mode="tasks", subgraphs=True)
    ids = {data["name"]: data["id"] for _, data in tasks}
    assert chunks[0][0][0].startswith("sub:")
    assert {ns for ns, _ in tasks} == {(), (f"sub:{ids['sub']}",), (f"sub:{ids['sub']}", f"m:{ids['m']}")}


def test_second_call_has_a_numbered_stream_namespace(colour: Colour) -> None:
    graph = outer_of(colour, calling(colour, inner_of(colour), times=3))
    chunks = colour.stream(graph, {"l": []}, stream_mode="updates", subgraphs=True)
    assert [path_of(ns) for ns, _ in chunks] == [("sub",), ("sub", "1"), ("sub", "2"), ()]


def test_custom_chunks_of_a_nested_graph(colour: Colour) -> None:
    def i(state: Log, writer: Any) -> None:
        writer("deep")

    i.__annotations__.pop("writer")
    inner = StateGraph(Log).add_node("i", colour.node(i)).add_edge(START, "i").compile()
    graph = outer_of(colour, inner)
    assert colour.stream(graph, {"l": []}, stream_mode="custom") == []
    chunks = colour.stream(graph, {"l": []}, stream_mode="custom", subgraphs=True)
    assert [(path_of(ns), data) for ns, data in chunks] == [(("sub",), "deep")]


def test_config_is_inherited(colour: Colour) -> None:
    seen: list[Any] = []

    def i(state: Log, config: Any) -> None:
        seen.append(config)

    i.__annotations__.pop("config")
    inner = StateGraph(Log).add_node("i", colour.node(i)).add_edge(START, "i").compile()
    config = {"tags": ["t"], "metadata": {"m": 1}, "configurable": {"mine": "c"}}
    colour.invoke(outer_of(colour, inner), {"l": []}, config)
    assert [t for t in seen[0]["tags"] if t == "t"] == ["t"]
    assert (seen[0]["metadata"]["m"], seen[0]["configurable"]["mine"]) == (1, "c")
    assert seen[0]["metadata"]["langgraph_node"] == "i"


def test_model_state_goes_into_a_subgraph(colour: Colour) -> None:
    class Model(BaseModel):
        x: int

    inner = StateGraph(Model).add_node("i", colour.node(lambda state: {"x": state.x + 1})).add_edge(START, "i")
    graph = StateGraph(Model).add_node("sub", inner.compile()).add_edge(START, "sub").compile()
    assert colour.invoke(graph, {"x": "1"}) == {"x": 2}


def test_error_of_a_nested_update(colour: Colour) -> None:
    inner = StateGraph(Log).add_node("i", colour.node(lambda state: 5)).add_edge(START, "i").compile()
    with refused(InvalidUpdateError, 5):
        colour.invoke(outer_of(colour, inner), {"l": []})


def test_parallel_subgraphs(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(Log)
    for name in ("one", "two"):
        builder.add_node(name, calling(colour, inner_of(colour, name[0])))
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=saver)
    assert colour.invoke(graph, {"l": []}, thread) == {"l": ["x", "o", "x", "t"]}
    assert stored(saver, thread) == {(), ("one:*",), ("two:*",)}


def test_sends_to_a_subgraph(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(Log).add_node("sub", inner_of(colour))
    builder.add_conditional_edges(START, lambda state: [Send("sub", {"l": [1]}), Send("sub", {"l": [2]})])
    graph = builder.compile(checkpointer=saver)
    assert colour.invoke(graph, {"l": []}, thread) == {"l": [1, "i", 2, "i"]}
    assert len({e.config["configurable"]["checkpoint_ns"] for e in saver.list(thread)}) == 3
