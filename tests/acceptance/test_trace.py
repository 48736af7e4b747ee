"""Two long traces: what is stored (engine.md appendix A) and what is streamed (appendix B)."""

import itertools
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from pregel.channels import AnyValue, EphemeralValue, Topic, UntrackedValue
from pregel.graph import START, StateGraph
from pregel.types import Command, Interrupt, Send, interrupt
from tests.support.scenarios import Colour, Gate, Log, LogX, checkpoint_id, path_of, refused


def counters(versions: Any) -> dict[str, int]:
    """Versions as plain counters, whatever kind the saver uses."""
    return {key: int(str(version).split(".")[0]) for key, version in versions.items()}


# ------------------------------------------------------------------------------------------------------- appendix A


def appendix_a(colour: Colour, saver: Any) -> Any:
    builder = StateGraph(LogX)
    builder.add_node("a", colour.node(lambda state: {"l": ["a"], "x": 1}))
    builder.add_node("b", colour.letter("b"))
    builder.add_node("w", colour.node(lambda arg: {"l": [arg]}))
    builder.add_edge(START, "a").add_edge(START, "b").add_edge(["a", "b"], "w")
    builder.add_conditional_edges("a", lambda state: [Send("w", "S")])
    return builder.compile(checkpointer=saver)


def test_stored_checkpoints(colour: Colour, saver: Any, thread: Any) -> None:
    graph = appendix_a(colour, saver)
    join = "join:a+b:w"
    pulled = {"l": ["in", "a", "b"], "x": 1}
    result = colour.invoke(graph, {"l": ["in"]}, thread)
    assert result == {"l": ["in", "a", "b", pulled, "S"], "x": 1}
    two, one, zero, start = list(saver.list(thread))

    assert [c.metadata for c in (start, zero, one, two)] == [
        {"source": "input", "step": -1, "parents": {}},
        {"source": "loop", "step": 0, "parents": {}},
        {"source": "loop", "step": 1, "parents": {}},
        {"source": "loop", "step": 2, "parents": {}},
    ]
    assert [c.parent_config for c in (start, zero, one, two)] == [None, start.config, zero.config, one.config]

    cp = start.checkpoint
    assert cp["channel_values"] == {"__start__": {"l": ["in"]}}
    assert counters(cp["channel_versions"]) == {"__start__": 1}
    assert cp["versions_seen"] == {"__input__": {}}
    assert cp["updated_channels"] == ["__start__"]

    cp = zero.checkpoint
    assert cp["channel_values"] == {"l": ["in"], "branch:to:a": None, "branch:to:b": None}
    assert counters(cp["channel_versions"]) == {"__start__": 2, "l": 2, "branch:to:a": 2, "branch:to:b": 2}
    assert {k: counters(v) for k, v in cp["versions_seen"].items()} == {"__input__": {}, "__start__": {"__start__": 1}}
    assert cp["updated_channels"] == ["branch:to:a", "branch:to:b", "l"]

    cp = one.checkpoint
    assert cp["channel_values"] == {
        "l": ["in", "a", "b"],
        "x": 1,
        join: {"a", "b"},
        "__pregel_tasks": [Send("w", "S")],
    }
    assert counters(cp["channel_versions"]) == {
        "__start__": 2,
        "l": 3,
        "branch:to:a": 3,
        "branch:to:b": 3,
        "x": 3,
        join: 3,
        "__pregel_tasks": 3,
    }
    assert {k: counters(v) for k, v in cp["versions_seen"].items()} == {
        "__input__": {},
        "__start__": {"__start__": 1},
        "a": {"branch:to:a": 2},
        "b": {"branch:to:b": 2},
    }
    assert cp["updated_channels"] == ["__pregel_tasks", join, "l", "x"]

    cp = two.checkpoint
    assert cp["channel_values"] == {
        "l": ["in", "a", "b", pulled, "S"],
        "x": 1,
        join: set(),
        "__pregel_tasks": [],
    }
    assert counters(cp["channel_versions"]) == {
        "__start__": 2,
        "l": 4,
        "branch:to:a": 3,
        "branch:to:b": 3,
        "x": 3,
        join: 4,
        "__pregel_tasks": 4,
    }
    assert counters(cp["versions_seen"]["w"]) == {join: 3}
    assert cp["updated_channels"] == ["l"]


def test_stored_pending_writes(colour: Colour, saver: Any, thread: Any) -> None:
    graph = appendix_a(colour, saver)
    colour.invoke(graph, {"l": ["in"]}, thread)
    two, one, zero, start = list(saver.list(thread))
    join = "join:a+b:w"

    def per_task(entry: Any) -> list[list[Any]]:
        """Writes of each task, tasks in the order of the snapshot."""
        order = [task.id for task in colour.get_state(graph, entry.config).tasks]
        found: dict[str, list[Any]] = {task_id: [] for task_id in order}
        for task_id, channel, value in entry.pending_writes:
            found[task_id].append((channel, value))
        return [found[task_id] for task_id in order]

    ((state_write, *edges),) = per_task(start)
    assert state_write == ("l", ["in"])
    assert sorted(edges) == [("branch:to:a", None), ("branch:to:b", None)]  # engine.md 4.6: edges are a set
    assert per_task(zero) == [
        [("l", ["a"]), ("x", 1), (join, "a"), ("__pregel_tasks", Send("w", "S"))],
        [("l", ["b"]), (join, "b")],
    ]
    assert per_task(one) == [[("l", ["S"])], [("l", [{"l": ["in", "a", "b"], "x": 1}])]]
    assert two.pending_writes == []


def test_snapshots_of_the_trace(colour: Colour, saver: Any, thread: Any) -> None:
    graph = appendix_a(colour, saver)
    colour.invoke(graph, {"l": ["in"]}, thread)
    two, one, zero, start = colour.history(graph, thread)
    assert [s.values for s in (start, zero, one)] == [{"l": []}, {"l": ["in"]}, {"l": ["in", "a", "b"], "x": 1}]
    assert [s.next for s in (start, zero, one, two)] == [("__start__",), ("a", "b"), ("w", "w"), ()]
    assert [task.path for task in one.tasks] == [("__pregel_push", 0, False), ("__pregel_pull", "w")]
    assert [task.path for task in zero.tasks] == [("__pregel_pull", "a"), ("__pregel_pull", "b")]
    assert [task.result for task in zero.tasks] == [{"l": ["a"], "x": 1}, {"l": ["b"]}]
    assert len({task.id for s in (start, zero, one) for task in s.tasks}) == 5


def test_resume_records_what_interrupts_have_seen(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(Log)
    builder.add_node("n", colour.node(lambda state: {"l": [interrupt("q")]}))
    graph = builder.add_edge(START, "n").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    entry = saver.get_tuple(thread)
    colour.invoke(graph, Command(resume="R"), thread)
    final = saver.get_tuple(thread)
    assert final.checkpoint["versions_seen"]["__interrupt__"] == entry.checkpoint["channel_versions"]


def test_input_checkpoint_is_shown_by_get_state_with_initial_aggregates(
    colour: Colour, saver: Any, thread: Any
) -> None:
    graph = appendix_a(colour, saver)
    colour.invoke(graph, {"l": ["in"]}, thread)
    start = colour.history(graph, thread)[-1]
    assert start.values == {"l": []}
    assert "l" not in saver.get_tuple(start.config).checkpoint["channel_values"]


# ------------------------------------------------------------------------------------------------------- appendix B


def test_b1_nested_graph(colour: Colour, saver: Any, thread: Any) -> None:
    class Inner(TypedDict):
        x: Any

    inner = StateGraph(Inner).add_node("inner", colour.node(lambda state: {"x": "done"})).add_edge(START, "inner")
    graph = StateGraph(LogX).add_node("sub", inner.compile()).add_edge(START, "sub").compile(checkpointer=saver)
    chunks = colour.stream(
        graph,
        {"l": ["in"], "x": "go"},
        thread,
        stream_mode=["updates", "values", "checkpoints", "tasks"],
        subgraphs=True,
    )

    def brief(chunk: Any) -> Any:
        ns, mode, data = chunk
        if mode == "checkpoints":
            what: Any = (data["metadata"]["source"], data["metadata"]["step"], data["next"])
        elif mode == "tasks":
            what = ("start" if "input" in data else "result", data["name"])
        else:
            what = data
        return path_of(ns), mode, what

    assert [brief(c) for c in chunks] == [
        ((), "checkpoints", ("input", -1, ["__start__"])),
        ((), "values", {"l": ["in"], "x": "go"}),
        ((), "checkpoints", ("loop", 0, ["sub"])),
        ((), "tasks", ("start", "sub")),
        (("sub",), "checkpoints", ("input", -1, ["__start__"])),
        (("sub",), "values", {"x": "go"}),
        (("sub",), "checkpoints", ("loop", 0, ["inner"])),
        (("sub",), "tasks", ("start", "inner")),
        (("sub",), "updates", {"inner": {"x": "done"}}),
        (("sub",), "tasks", ("result", "inner")),
        (("sub",), "values", {"x": "done"}),
        (("sub",), "checkpoints", ("loop", 1, [])),
        ((), "updates", {"sub": {"x": "done"}}),
        ((), "tasks", ("result", "sub")),
        ((), "values", {"l": ["in"], "x": "done"}),
        ((), "checkpoints", ("loop", 1, [])),
    ]
    root = [c[2] for c in chunks if c[:2] == ((), "checkpoints")]
    nested = [(c[0], c[2]) for c in chunks if c[0] and c[1] == "checkpoints"]
    ns = nested[0][0][0]
    assert ns == "sub:" + root[1]["tasks"][0]["id"]
    assert root[1]["tasks"][0]["state"] == {"configurable": {"thread_id": "1", "checkpoint_ns": ns}}
    root_id = checkpoint_id(root[1]["config"])
    for _, data in nested:
        assert data["metadata"]["parents"] == {"": root_id}
        assert data["config"]["configurable"]["checkpoint_ns"] == ns
        assert data["config"]["configurable"]["checkpoint_map"] == {"": root_id, ns: checkpoint_id(data["config"])}
    # amendments A33: the parent's config carries the same ancestors and the parent's own id
    assert nested[0][1]["parent_config"] is None
    for (_, before), (_, after) in itertools.pairwise(nested):
        assert after["parent_config"]["configurable"]["checkpoint_map"] == {
            "": root_id,
            ns: checkpoint_id(before["config"]),
        }
    assert not any(key.startswith("__") for data in root for key in data["config"]["configurable"])


@pytest.mark.parametrize("stored", [True, False])
def test_b2_interrupt_beside_a_finished_sibling(colour: Colour, saver: Any, thread: Any, stored: bool) -> None:
    ok_done = Gate()

    def ok(state: Log) -> dict[str, Any]:
        ok_done.set()
        return {"l": ["ok"]}

    def q(state: Log) -> Any:
        yield ok_done
        return {"l": [interrupt("q?")]}

    builder = StateGraph(Log).add_node("ok", colour.node(ok)).add_node("q", colour.script(q))
    builder.add_edge(START, "ok").add_edge(START, "q")
    graph = builder.compile(checkpointer=saver if stored else None)
    chunks = colour.stream(graph, {"l": ["in"]}, thread, stream_mode=["updates", "values"])
    asked = chunks[3][1]["__interrupt__"] if len(chunks) > 3 else ()
    assert [type(i) for i in asked] == [Interrupt]
    first, *middle, last = chunks
    assert first == ("values", {"l": ["in"]})
    assert [c for c in middle if "ok" not in c[1]] == [
        ("updates", {"__interrupt__": asked}),
        ("values", {"l": ["in"], "__interrupt__": asked}),
    ]
    assert ("updates", {"ok": {"l": ["ok"]}}) in middle
    assert last == ("values", {"l": ["in", "ok"]})
    if stored:
        assert colour.stream(graph, Command(resume="R"), thread, stream_mode=["updates", "values"]) == [
            ("values", {"l": ["in"]}),
            ("updates", {"ok": {"l": ["ok"]}, "__metadata__": {"cached": True}}),
            ("updates", {"q": {"l": ["R"]}}),
            ("values", {"l": ["in", "ok", "R"]}),
        ]


class Key(TypedDict):
    my_key: Annotated[str, lambda a, b: a + b]


def test_b3_parallel_node_and_nested_breakpoint(colour: Colour, saver: Any, thread: Any) -> None:
    class Inner(TypedDict):
        my_key: str

    inner = StateGraph(Inner)
    inner.add_node("inner_1", colour.node(lambda state: {"my_key": "got here"}))
    inner.add_node("inner_2", colour.node(lambda state: {"my_key": state["my_key"] + " there"}))
    inner.add_edge(START, "inner_1").add_edge("inner_1", "inner_2")
    outer = StateGraph(Key)
    outer.add_node("inner", inner.compile(interrupt_before=["inner_2"]))
    outer.add_node("outer_1", colour.node(lambda state: {"my_key": " and parallel"}))
    outer.add_node("outer_2", colour.node(lambda state: {"my_key": " and back"}))
    outer.add_edge(START, "inner").add_edge(START, "outer_1").add_edge(["inner", "outer_1"], "outer_2")
    graph = outer.compile(checkpointer=saver)
    chunks = colour.stream(graph, {"my_key": ""}, thread, stream_mode="updates", subgraphs=True)
    brief = [(path_of(ns), data) for ns, data in chunks]
    assert brief[-1] == ((), {"__interrupt__": ()})
    assert sorted(brief[:-1], key=lambda chunk: chunk[0]) == [
        ((), {"outer_1": {"my_key": " and parallel"}}),
        (("inner",), {"inner_1": {"my_key": "got here"}}),
    ]
    assert colour.get_state(graph, thread).interrupts == ()
    assert colour.stream(graph, None, thread, stream_mode="updates") == [
        {"outer_1": {"my_key": " and parallel"}, "__metadata__": {"cached": True}},
        {"inner": {"my_key": "got here there"}},
        {"outer_2": {"my_key": " and back"}},
    ]
    other: Any = {"configurable": {"thread_id": "2"}}
    assert colour.invoke(graph, {"my_key": ""}, other) == {"my_key": " and parallel"}
    assert colour.invoke(graph, None, other) == {"my_key": "got here there and parallel and back"}


def test_b4_failure_beside_a_finished_sibling(colour: Colour) -> None:
    ok_done = Gate()
    boom = ValueError("boom")

    def ok(state: Log) -> dict[str, Any]:
        ok_done.set()
        return {"l": ["ok"]}

    def bad(state: Log) -> Any:
        yield ok_done
        raise boom

    builder = StateGraph(Log).add_node("ok", colour.node(ok)).add_node("bad", colour.script(bad))
    builder.add_edge(START, "ok").add_edge(START, "bad")
    chunks, error = colour.outcome(builder.compile(), {"l": ["in"]}, stream_mode=["tasks", "values"])
    assert error is boom
    assert chunks[0] == ("values", {"l": ["in"]})
    assert [c[1]["name"] for c in chunks[1:3]] == ["bad", "ok"]
    assert all("input" in c[1] for c in chunks[1:3])
    results = {c[1]["name"]: c[1] for c in chunks[3:]}
    assert [c[0] for c in chunks[3:]] == ["tasks", "tasks"]
    assert results["ok"]["result"] == {"l": ["ok"]}
    assert results["bad"]["error"] is boom


def test_b4_single_failing_task_has_a_result_event(colour: Colour) -> None:
    def bad(state: Log) -> Any:
        raise ValueError("boom")

    graph = StateGraph(Log).add_node("bad", colour.node(bad)).add_edge(START, "bad").compile()
    chunks, error = colour.outcome(graph, {"l": []}, stream_mode="tasks")
    assert [c.get("error") for c in chunks] == [None, error]
    with refused(ValueError, "boom"):
        raise error or AssertionError


def test_b5_kinds_of_channels(colour: Colour, saver: Any, thread: Any) -> None:
    class State(TypedDict, total=False):
        e: Annotated[int, EphemeralValue]
        u: Annotated[int, UntrackedValue]
        v: Annotated[int, AnyValue]
        t: Annotated[int, Topic]
        n: int

    seen: list[Any] = []

    def n1(state: State) -> Any:
        seen.append(dict(state))
        return {"e": 1, "u": 2, "v": 3, "t": 4}

    def count(state: State) -> Any:
        seen.append(dict(state))
        return {"n": state["n"] + 1}

    builder = StateGraph(State)
    builder.add_node("n1", colour.node(n1))
    builder.add_node("n2", colour.node(count)).add_node("n3", colour.node(count))
    builder.add_edge(START, "n1").add_edge("n1", "n2").add_edge("n2", "n3")
    graph = builder.compile(checkpointer=saver)
    assert colour.invoke(graph, {"n": 0}, thread) == {"u": 2, "n": 2}
    assert seen == [{"n": 0}, {"e": 1, "u": 2, "v": 3, "t": [4], "n": 0}, {"u": 2, "n": 1}]
    assert colour.get_state(graph, thread).values == {"n": 2}
    colour.invoke(graph, {"n": 5}, thread)
    assert seen[3] == {"n": 5}
