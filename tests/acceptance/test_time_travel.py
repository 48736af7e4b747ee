"""State APIs and time travel at every depth: each row of engine.md 7 for the root graph and for nested ones, on both
savers, across restarts, under each durability.

A scenario is told of one graph; `stage` puts it everywhere (`tests.support.stages`).
"""

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from checkpoint.base import ThreadBusyError
from pregel.channels import AnyValue, EphemeralValue, LastValue, LastValueAfterFinish, Topic, UntrackedValue
from pregel.errors import EmptyInputError, InvalidUpdateError
from pregel.graph import END, START, StateGraph
from pregel.runtime import Runtime
from pregel.types import Command, Overwrite, Send, StateUpdate, interrupt
from tests.support.scenarios import Colour, Log, checkpoint_id, namespaces, refused, steps
from tests.support.stages import Stage


def chain(stage: Stage, *names: str) -> Callable[[], StateGraph[Any]]:
    """The nodes one after the other; a name that ends in `?` asks a question of that name."""

    def build() -> StateGraph[Any]:
        builder = StateGraph(Log)
        before = START
        for name in names:
            node = asking(stage, name) if name.endswith("?") else stage.colour.letter(name, stage.calls)
            builder.add_node(name, node).add_edge(before, name)
            before = name
        return builder

    return build


def asking(stage: Stage, name: str) -> Any:
    def ask(state: Log) -> dict[str, Any]:
        stage.calls.append(name)
        return {"l": [interrupt(name)]}

    return stage.colour.node(ask)


def fan(stage: Stage, *names: str) -> Callable[[], StateGraph[Any]]:
    """The nodes side by side."""

    def build() -> StateGraph[Any]:
        builder = StateGraph(Log)
        for name in names:
            node = asking(stage, name) if name.endswith("?") else stage.colour.letter(name, stage.calls)
            builder.add_node(name, node).add_edge(START, name)
        return builder

    return build


def line(history: list[Any]) -> list[tuple[str, int, tuple[str, ...], list[Any]]]:
    """(source, step, next, l), oldest first."""
    return [(*found, e.next, e.values.get("l")) for found, e in zip(steps(history), history, strict=True)][::-1]


def at(stage: Stage, *following: str, source: str | None = None) -> Any:
    """The newest checkpoint of the graph under test before these nodes."""
    return next(
        e for e in stage.history() if e.next == following and (source is None or e.metadata["source"] == source)
    )


# ------------------------------------------------------------------------------------- 7.1 which checkpoints, metadata


def test_checkpoints_of_a_run(stage: Stage) -> None:
    stage.put_on(chain(stage, "a", "b?", "c"))
    stage.run({"l": ["in"]})
    open_ = [("input", -1, ("__start__",), []), ("loop", 0, ("a",), ["in"]), ("loop", 1, ("b?",), ["in", "a"])]
    kept = open_ if stage.durability != "exit" else open_[-1:]
    assert line(stage.history()) == kept
    assert stage.run(Command(resume="B")) == stage.around("in", "a", "B", "c")
    closed = [("loop", 2, ("c",), ["in", "a", "B"]), ("loop", 3, (), ["in", "a", "B", "c"])]
    if stage.durability == "exit":
        # A nested graph that ends normally stores nothing more (amendments A36).
        closed = closed[1:] if stage.depth == 1 else []
    history = stage.history()
    assert line(history) == kept + closed
    assert [e.parent_config for e in history] == [*(e.config for e in history[1:]), None]


def test_metadata_names_the_checkpoints_around(stage: Stage) -> None:
    stage.put_on(chain(stage, "a", "b?"))
    stage.run({"l": ["in"]})
    config, around = stage.root, {}
    for level in range(stage.depth):
        (entry, *_) = stage.colour.history(stage.graph, config)
        assert {key: entry.metadata[key] for key in ("source", "step", "parents")} == entry.metadata
        assert entry.metadata["parents"] == around
        assert len(namespaces({"configurable": {"checkpoint_ns": "", **config["configurable"]}})) == level
        own = {"thread_id": "1", "checkpoint_ns": config["configurable"].get("checkpoint_ns", "")}
        own["checkpoint_id"] = checkpoint_id(entry.config)
        around = {**around, own["checkpoint_ns"]: own["checkpoint_id"]}
        assert entry.config["configurable"] == {**own, **({"checkpoint_map": around} if level else {})}
        config = entry.tasks[0].state


def test_a_second_input_goes_on_counting(stage: Stage) -> None:
    """A default nested graph starts fresh for each run of its parent; the root goes on."""
    stage.put_on(chain(stage, "a", "b?"))
    stage.run({"l": ["1"]})
    stage.run(Command(resume="B"))
    stage.run({"l": ["2"]})
    (newest, *_) = stage.history()
    if stage.depth == 1:
        assert (newest.metadata["step"], newest.values["l"]) == (5, ["1", "a", "B", "2", "a"])
    else:
        assert newest.metadata["step"] == 1
        assert newest.values["l"][-1] == "a"


def test_metadata_of_the_config(stage: Stage) -> None:
    stage.put_on(chain(stage, "a?"))
    given = {
        "configurable": {**stage.root["configurable"], "own": "x", "__hidden": 1, "list": [1]},
        "metadata": {"n": 1, "b": True, "f": 0.5, "none": None, "source": "mine"},
    }
    stage.run({"l": []}, given)
    metadata = dict(stage.history()[0].metadata)
    assert metadata.pop("parents").keys() == ({""} if stage.depth > 1 else set()) | (
        set() if stage.depth < 3 else {p for p in stage.history()[0].metadata["parents"] if p}
    )
    assert metadata == {"source": "loop", "step": 0, "own": "x", "n": 1, "b": True, "f": 0.5}


# ------------------------------------------------------------------------------------------------ 7.3 pending writes


def pending(stage: Stage) -> dict[str, list[tuple[str, Any]]]:
    """Stored writes of the newest checkpoint, by node; those that belong to no task under ""."""
    place = stage.place()
    found = stage.saver.get_tuple(place)
    names = {task.id: task.name for task in stage.state().tasks}
    by_node: dict[str, list[tuple[str, Any]]] = {}
    for task_id, channel, value in found.pending_writes:
        by_node.setdefault(names.get(task_id, ""), []).append((channel, value))
    return by_node


def test_what_is_stored_of_each_kind_of_task(stage: Stage) -> None:
    failing = [True]

    def build() -> StateGraph[Any]:
        def bad(state: Log) -> dict[str, Any]:
            if failing:
                raise ValueError("boom")
            return {"l": ["bad"]}

        builder = fan(stage, "ok", "q?")()
        builder.add_node("none", stage.colour.node(lambda state: None)).add_edge(START, "none")
        return builder.add_node("bad", stage.colour.node(bad)).add_edge(START, "bad")

    stage.put_on(build)
    with refused(ValueError, "boom"):
        stage.run({"l": ["in"]})
    stored = pending(stage)
    # What the siblings of a failing task come to depends on who is faster; the failure is stored alone.
    assert [channel for channel, _ in stored["bad"]] == ["__error__"]
    assert stored["bad"][0][1] == "ValueError('boom')"
    assert stage.state().tasks[-1].error == "ValueError('boom')"
    failing.clear()
    asked = stage.run(None)["__interrupt__"]
    stored = pending(stage)
    assert ("l", ["ok"]) in stored["ok"]
    assert stored["none"] == [("__no_writes__", None)]
    assert [channel for channel, _ in stored["q?"]] == ["__interrupt__"]
    assert stored["q?"][0][1] == asked
    stage.ran()
    assert stage.run(Command(resume="Q"))["l"][-4:] == ["in", "bad", "ok", "Q"]
    assert stage.ran() == ["q?"]


def test_nothing_of_a_failed_tasks_output_is_stored(stage: Stage) -> None:
    """engine.md 7.3: the node is done, the path behind it fails; both run again."""
    broken = [True]

    def path(state: Log) -> str:
        if broken:
            raise ValueError("path")
        return END

    stage.put_on(lambda: chain(stage, "a")().add_conditional_edges("a", path, [END]))
    _, error = stage.outcome({"l": ["in"]})
    assert isinstance(error, ValueError)
    snapshot = stage.seen_from_outside()
    assert (snapshot.values, snapshot.next, snapshot.tasks[0].result) == ({"l": ["in"]}, ("a",), None)
    broken.clear()
    assert stage.run(None) == stage.around("in", "a")
    assert stage.ran() == ["a", "a"]


def test_finished_tasks_are_shown_as_done_and_do_not_run_again(stage: Stage) -> None:
    stage.put_on(fan(stage, "ok", "q?"))
    stage.run({"l": ["in"]})
    assert stage.ran() == ["ok", "q?"]
    state = stage.state()
    assert (state.values, state.next) == ({"l": ["in", "ok"]}, ("q?",))
    assert [(t.name, t.result, bool(t.interrupts)) for t in state.tasks] == [
        ("ok", {"l": ["ok"]}, False),
        ("q?", None, True),
    ]
    # Named, a checkpoint is shown as the step began.
    named = stage.colour.get_state(stage.graph, state.config)
    assert (named.values, named.next) == ({"l": ["in"]}, ("ok", "q?"))
    assert stage.run(Command(resume="Q")) == stage.around("in", "ok", "Q")
    assert stage.ran() == ["q?"]


# --------------------------------------------------------------------------------- 7.4 new input while something waits


def test_new_input_drops_what_waits(stage: Stage) -> None:
    stage.put_on(fan(stage, "ok", "q?"))
    stage.run({"l": ["in"]})
    before = stage.history()
    stage.ran()
    result = stage.run({"l": ["in2"]})
    assert stage.ran() == ["ok", "q?"]
    if stage.depth == 1:
        assert result["l"] == ["in", "in2", "ok"]
        # The old checkpoint still shows what was stored of it.
        assert stage.history()[-len(before) :] == before
    assert stage.run(Command(resume="Q"))["l"][-2:] == ["ok", "Q"]


# ---------------------------------------------------------------------------------------------------- 7.5 snapshots


def test_a_snapshot_of_nothing(stage: Stage) -> None:
    stage.put_on(chain(stage, "a"))
    ns = "|".join(["sub:1"] * (stage.depth - 1))
    config = {"configurable": {"thread_id": 1, "checkpoint_ns": ns}}
    state = stage.colour.get_state(stage.graph, config)
    assert state == ({}, (), {"configurable": {"thread_id": "1", "checkpoint_ns": ns}}, None, None, None, (), ())
    assert stage.colour.history(stage.graph, config) == []


def test_a_namespace_that_no_graph_has_is_read_raw(stage: Stage) -> None:
    stage.put_on(chain(stage, "a?"))
    stage.run({"l": []})
    config = {"configurable": {"thread_id": "1", "checkpoint_ns": "zz:1"}}
    assert stage.colour.get_state(stage.graph, config) == ({}, (), config, None, None, None, (), ())
    assert stage.colour.history(stage.graph, config) == []
    with refused(ValueError, "zz:1"):
        stage.update({"l": ["x"]}, config=config)


def test_history_is_filtered_and_cut(stage: Stage) -> None:
    if stage.durability == "exit":
        stage.durability = "async"
    stage.put_on(chain(stage, "a", "b", "c?"))
    stage.run({"l": ["in"]})
    history = stage.history()
    assert [e.metadata["step"] for e in history] == [2, 1, 0, -1]
    assert stage.history(filter={"source": "input"}) == history[-1:]
    assert stage.history(filter={"source": "loop", "step": 1}) == history[1:2]
    assert stage.history(filter={"step": 9}) == []
    assert stage.history(limit=2) == history[:2]
    assert stage.history(before=history[1].config) == history[2:]
    assert stage.history(before=history[0].config, limit=1) == history[1:2]
    place = stage.place()
    named = {"configurable": {**place["configurable"], "checkpoint_id": checkpoint_id(history[1].config)}}
    assert stage.colour.history(stage.graph, named) == history[1:2]


def test_history_with_nested_states(stage: Stage) -> None:
    stage.put_on(chain(stage, "a", "b?"))
    stage.run({"l": ["in"]})
    (newest, *_) = stage.colour.history(stage.graph, stage.root, subgraphs=True)
    for _ in range(stage.depth - 1):
        newest = newest.tasks[0].state
    assert newest.next == ("b?",)
    assert newest.values == {"l": ["in", "a"]}


# -------------------------------------------------------------------------------------------------- 7.6 update_state


def test_an_update_while_it_waits(stage: Stage) -> None:
    """engine.md 5.6: as the node that ran last; the question is asked anew, and a plain answer reaches it."""
    stage.put_on(chain(stage, "a", "b?", "c"))
    stage.run({"l": ["in"]})
    (before, *_) = stage.history()
    returned = stage.update({"l": ["U"]})
    assert returned["configurable"]["checkpoint_ns"] == before.config["configurable"]["checkpoint_ns"]
    state = stage.state()
    assert state.config == returned
    assert (state.values, state.next, state.interrupts) == ({"l": ["in", "a", "U"]}, ("b?",), ())
    assert (state.metadata["source"], state.metadata["step"]) == ("update", before.metadata["step"] + 1)
    assert state.metadata["parents"] == before.metadata["parents"]
    assert state.parent_config == before.config
    assert stage.ran() == ["a", "b?"]
    assert stage.run(Command(resume="B")) == stage.around("in", "a", "U", "B", "c")
    assert stage.ran() == ["b?", "c"]


def test_an_update_as_the_waiting_node_answers_for_it(stage: Stage) -> None:
    stage.put_on(chain(stage, "a", "b?", "c"))
    stage.run({"l": ["in"]})
    stage.ran()
    stage.update({"l": ["by hand"]}, "b?")
    assert stage.state().next == ("c",)
    assert stage.run(None) == stage.around("in", "a", "by hand", "c")
    assert stage.ran() == ["c"]


def test_an_update_of_a_finished_graph_ends_it(stage: Stage) -> None:
    """amendments A35: the parent goes on with the nested graph's values, and runs none of its nodes."""
    stage.put_on(chain(stage, "a", "b?"))
    stage.run({"l": ["in"]})
    stage.ran()
    stage.update({"l": ["by hand"]}, "b?")
    assert stage.state().next == ()
    assert stage.colour.get_state(stage.graph, stage.root).next == (() if stage.depth == 1 else ("sub",))
    assert stage.run(None) == stage.around("in", "a", "by hand")
    assert stage.ran() == []


def test_end_clears_what_waits(stage: Stage) -> None:
    stage.put_on(fan(stage, "ok", "q?"))
    stage.run({"l": ["in"]})
    (before, *_) = stage.history()
    stage.update(None, END)
    state = stage.state()
    assert (state.values, state.next, state.tasks) == ({"l": ["in", "ok"]}, (), ())
    assert (state.metadata["source"], state.metadata["step"]) == ("update", before.metadata["step"] + 1)
    stage.ran()
    assert stage.run(None) == stage.around("in", "ok")
    assert stage.ran() == []
    with refused(InvalidUpdateError, END):
        stage.update({"l": ["x"]}, END)
    with refused(InvalidUpdateError, 2):
        stage.bulk([[StateUpdate(None, END), StateUpdate({"l": ["x"]}, "ok")]])


def test_an_update_as_input(stage: Stage) -> None:
    stage.put_on(chain(stage, "a", "b?"))
    stage.run({"l": ["in"]})
    (before, *_) = stage.history()
    stage.update({"l": ["more"]}, "__input__")
    state = stage.state()
    assert (state.metadata["source"], state.metadata["step"]) == ("input", before.metadata["step"] + 1)
    assert (state.values, state.next) == ({"l": ["in", "a"]}, ("__start__",))
    stage.ran()
    asked = stage.run(None)
    assert [i.value for i in asked["__interrupt__"]] == ["b?"]
    assert stage.ran() == ["a", "b?"]
    assert stage.run(Command(resume="B")) == stage.around("in", "a", "more", "a", "B")
    with refused(InvalidUpdateError, "__input__"):
        stage.update(None, "__input__")


def test_a_copy_is_a_sibling(stage: Stage) -> None:
    stage.put_on(chain(stage, "a", "b?"))
    stage.run({"l": ["in"]})
    (original, *_) = stage.history()
    stage.update(None, "__copy__", original.config)
    (copy, *_) = stage.history()
    assert (copy.metadata["source"], copy.metadata["step"]) == ("fork", original.metadata["step"] + 1)
    assert copy.parent_config == original.parent_config
    assert (copy.values, copy.next, copy.interrupts) == (original.values, original.next, ())
    stage.ran()
    asked = stage.run(None)
    assert asked["__interrupt__"][0].id != original.interrupts[0].id
    assert stage.run(Command(resume="B")) == stage.around("in", "a", "B")
    stage.update([({"l": ["by hand"]}, "b?")], "__copy__", original.config)
    result, copied, *_ = stage.history()
    assert steps([result, copied]) == [("update", 3), ("fork", 2)]
    assert result.parent_config == copied.config
    assert [t.result for t in copied.tasks] == [{"l": ["by hand"]}]
    assert (result.values, result.next) == ({"l": ["in", "a", "by hand"]}, ())
    for wrong in (5, ({"l": []},), ({"l": []}, "b?", "task", "more")):
        with refused(InvalidUpdateError, "__copy__"):
            stage.update([wrong], "__copy__", original.config)


def test_supersteps_of_updates(stage: Stage) -> None:
    stage.put_on(chain(stage, "a", "b?", "c"))
    stage.run({"l": ["in"]})
    (before, *_) = stage.history()
    returned = stage.bulk([[StateUpdate({"l": ["B"]}, "b?")], [StateUpdate({"l": ["C1"]}, "c"), ({"l": ["C2"]}, "c")]])
    second, first, *_ = stage.history()
    assert second.config == returned
    assert [e.metadata["step"] - before.metadata["step"] for e in (first, second)] == [1, 2]
    assert (first.values["l"][-1], first.next) == ("B", ("c",))
    assert (second.values["l"][-3:], second.next) == (["B", "C1", "C2"], ())
    assert second.parent_config == first.config
    for wrong, kind in (([], ValueError), ([[StateUpdate({}, "a")], []], ValueError)):
        with pytest.raises(kind):
            stage.bulk(wrong)
    with pytest.raises(InvalidUpdateError):
        stage.bulk([[StateUpdate({}), StateUpdate({})]])
    assert len(stage.history()) == len([second, first]) + (1 if stage.durability == "exit" else 3)


def test_as_whom_an_update_counts(stage: Stage) -> None:
    """engine.md 7.6: the node that ran last; START if none did; ambiguous if several did."""

    def build() -> StateGraph[Any]:
        builder = fan(stage, "a", "b")()
        return builder.add_node("z?", asking(stage, "z?")).add_edge(["a", "b"], "z?")

    stage.put_on(build)
    stage.run({"l": ["in"]})
    with refused(InvalidUpdateError, "a", "b"):
        stage.update({"l": ["U"]})
    with refused(InvalidUpdateError, "nobody"):
        stage.update({"l": ["U"]}, "nobody")
    if stage.durability != "exit":
        fresh = stage.update({"l": ["U"]}, config=at(stage, "__start__").config)
        assert stage.colour.get_state(stage.graph, fresh).next == ("a", "b")


class Kinds(TypedDict, total=False):
    last: Annotated[Any, LastValue]
    sum: Annotated[int, operator.add]
    l: Annotated[list[Any], operator.add]  # noqa: E741
    any: Annotated[Any, AnyValue]
    topic: Annotated[Any, Topic(str, accumulate=True)]
    once: Annotated[Any, EphemeralValue]
    untracked: Annotated[Any, UntrackedValue]
    late: Annotated[Any, LastValueAfterFinish]


def kinds(stage: Stage) -> Callable[[], StateGraph[Any]]:
    def build() -> StateGraph[Any]:
        ask = stage.colour.node(lambda state: {"last": interrupt("q")})
        builder = StateGraph(Kinds).add_node("n", stage.colour.node(lambda state: {"l": ["n"], "sum": 1}))
        builder.add_node("q", ask).add_node("z", stage.colour.node(lambda state: None))
        return builder.add_edge(START, "n").add_edge("n", "q")

    return build


RETURNS: list[tuple[Any, dict[str, Any]]] = [
    ({"last": 5}, {"last": 5}),
    ({"sum": 5}, {"sum": 6}),
    ({"sum": Overwrite(5)}, {"sum": 5}),
    ({"l": Overwrite(["O"])}, {"l": ["O"]}),
    ({"l": {"__overwrite__": ["O"]}}, {"l": ["O"]}),
    (Command(update={"l": ["C"]}), {"l": ["in", "n", "C"]}),
    (Command(update={"l": Overwrite(["C"])}), {"l": ["C"]}),
    (Command(update=[("l", ["C"]), ("last", 1)]), {"l": ["in", "n", "C"], "last": 1}),
    ([{"sum": 1}, Command(update={"sum": 2})], {"sum": 4}),
    ({"any": 5}, {"any": 5}),
    ({"topic": "t"}, {"topic": ["t"]}),
    ({"topic": ["t", "u"]}, {"topic": ["t", "u"]}),
    ({"once": 1}, {"once": 1}),
    ({"untracked": 1, "sum": 1}, {"untracked": None, "sum": 2}),
    ({"late": 1, "sum": 1}, {"late": None, "sum": 2}),
    (None, {"l": ["in", "n"], "sum": 1}),
]


def test_an_update_takes_what_a_node_may_return(stage: Stage) -> None:
    """promise 23: for every kind of channel."""
    stage.put_on(kinds(stage))
    stage.run({"l": ["in"]})
    start = stage.state().config
    for values, expected in RETURNS:
        returned = stage.update(values, config=start)
        found = stage.colour.get_state(stage.graph, returned)
        assert {key: found.values.get(key) for key in expected} == expected, values
        assert found.next == ("q",)


def test_an_update_routes_as_a_node_does(stage: Stage) -> None:
    stage.put_on(kinds(stage))
    stage.run({"l": ["in"]})
    start = stage.state().config
    for values, following in (
        (Command(goto="z"), ("q", "z")),
        (Command(goto=[Send("z", 1), "z"]), ("z", "q", "z")),
        (Send("z", 1), ("z", "q")),
    ):
        returned = stage.update(values, "n", start)
        assert stage.colour.get_state(stage.graph, returned).next == following


# --------------------------------------------------------------------------------------- 7.7 time travel, every depth


NODES = ("a", "b", "c?", "d")


def test_replay_from_each_checkpoint_runs_what_came_after(stage: Stage) -> None:
    """promise 57: exactly the tasks that came after the checkpoint run again, whatever the depth."""
    stage.put_on(chain(stage, *NODES))
    asked = stage.run({"l": ["in"]})
    final = stage.run(Command(resume="C"))
    history = stage.history()
    for entry in history:
        stage.ran()
        place = [e.config for e in stage.history()]
        result = stage.run(None, entry.config)
        done = [name for name in NODES if name in entry.values["l"] or (name == "c?" and "C" in entry.values["l"])]
        rest = NODES[len(done) :]
        if "c?" in rest:
            assert stage.ran() == sorted(rest[: rest.index("c?") + 1])
            assert [i.value for i in result["__interrupt__"]] == ["c?"]
            assert result["__interrupt__"][0].id != asked["__interrupt__"][0].id
            result = stage.run(Command(resume="C"))
            assert stage.ran() == ["c?", "d"]
        else:
            assert stage.ran() == sorted(rest)
        assert result == final
        # What was there is there still, as it was.
        kept = [stage.colour.get_state(stage.graph, config) for config in place]
        assert [e.config for e in kept] == place


def test_replay_makes_a_branch(stage: Stage) -> None:
    stage.put_on(chain(stage, *NODES))
    stage.run({"l": ["in"]})
    if stage.durability == "exit":
        (entry,) = stage.history()
        stage.run(None, entry.config)
        # One run stores one checkpoint.
        assert len(stage.history()) == (2 if stage.depth == 1 else 1)
        return
    entry = at(stage, "b")
    stage.run(None, entry.config)
    loop, fork, *older = stage.history()
    assert steps([loop, fork]) == [("loop", 3), ("fork", 2)]
    assert (fork.values, fork.next) == (entry.values, ("b",))
    if stage.depth == 1:
        assert fork.parent_config == entry.config
        assert len(older) == 4
    else:
        # In the namespace of the new branch's own task; the old one is left as it was.
        assert older == []


def test_a_fork_by_update(stage: Stage) -> None:
    """engine.md 7.7: update an old checkpoint, continue from what it returned."""
    stage.put_on(chain(stage, *NODES))
    stage.run({"l": ["in"]})
    final = stage.run(Command(resume="C"))
    if stage.durability == "exit":
        return
    entry = at(stage, "b")
    place = stage.place()
    branch = stage.update({"l": ["F"]}, config=entry.config)
    state = stage.colour.get_state(stage.graph, branch)
    assert (state.values, state.next) == ({"l": ["in", "a", "F"]}, ("b",))
    assert state.parent_config == entry.config
    stage.ran()
    assert [i.value for i in stage.run(None, branch)["__interrupt__"]] == ["c?"]
    assert stage.run(Command(resume="C2")) == stage.around("in", "a", "F", "b", "C2", "d")
    assert stage.ran() == ["b", "c?", "c?", "d"]
    # The branch that was left is as it was.
    assert final == stage.around("in", "a", "b", "C", "d")
    old = [e for e in stage.colour.history(stage.graph, place) if e.next == () and "F" not in e.values["l"]]
    assert [e.values for e in old] == [{"l": ["in", "a", "b", "C", "d"]}]


def test_new_input_at_an_old_checkpoint(stage: Stage) -> None:
    """The root takes it there; a nested graph is gone through from its start."""
    stage.put_on(chain(stage, *NODES))
    stage.run({"l": ["in"]})
    entry = stage.history()[-1 if stage.durability == "exit" else 1]
    stage.ran()
    result = stage.run({"l": ["new"]}, entry.config)
    assert stage.ran() == ["a", "b", "c?"]
    if stage.depth == 1:
        assert result["l"] == [*entry.values["l"], "new", "a", "b"]
    assert [i.value for i in result["__interrupt__"]] == ["c?"]
    assert stage.history()[0].values["l"][-3:] == ["new", "a", "b"]


def test_an_answer_at_an_addressed_checkpoint_is_no_time_travel(stage: Stage) -> None:
    stage.put_on(chain(stage, *NODES))
    stage.run({"l": ["in"]})
    head = stage.state()
    stage.ran()
    assert stage.run(Command(resume="C"), head.config) == stage.around("in", "a", "b", "C", "d")
    assert stage.ran() == ["c?", "d"]
    assert "fork" not in [source for source, _ in steps(stage.history())]
    # Addressed again, the stored answer is used, not the new one; without one, the new one.
    answer = "late" if stage.durability == "exit" else "C"
    assert stage.run(Command(resume="late"), head.config) == stage.around("in", "a", "b", answer, "d")


def test_the_end_of_a_run_replayed(stage: Stage) -> None:
    stage.put_on(chain(stage, "a", "b?"))
    stage.run({"l": ["in"]})
    final = stage.run(Command(resume="B"))
    (entry, *_) = stage.colour.history(stage.graph, stage.root)
    count = len(stage.colour.history(stage.graph, stage.root))
    stage.ran()
    assert stage.run(None) == final
    assert len(stage.colour.history(stage.graph, stage.root)) == count
    assert stage.run(None, entry.config) == final
    assert stage.ran() == []


def test_an_unknown_checkpoint(stage: Stage) -> None:
    stage.put_on(chain(stage, "a", "b?"))
    stage.run({"l": ["in"]})
    unknown = {
        "configurable": {**stage.place()["configurable"], "checkpoint_id": "1ef4f797-8335-6428-8001-8a1503f9b875"}
    }
    assert stage.colour.get_state(stage.graph, unknown).values == {}
    if stage.depth == 1:
        with pytest.raises(EmptyInputError):
            stage.run(None, unknown)
        assert stage.run({"l": ["other"]}, unknown)["l"] == ["other", "a"]


@pytest.mark.filterwarnings("ignore:nothing leads to node:pregel.warnings.PregelWarning")
def test_a_goto_while_a_question_is_open(stage: Stage) -> None:
    """What a `Command` started is shown with what waits, and counts when the step closes."""

    def build() -> StateGraph[Any]:
        builder = chain(stage, "a", "q?")()
        return (
            builder.add_node("o", stage.colour.letter("o", stage.calls))
            .add_edge("q?", "z")
            .add_node("z", stage.colour.letter("z", stage.calls))
        )

    stage.depth = 1  # a Command goes to the root graph
    stage.put_on(build)
    stage.run({"l": ["in"]})
    stage.ran()
    asked = stage.run(Command(goto="o"))
    assert stage.ran() == ["o", "q?"]
    assert (asked["l"], [i.value for i in asked["__interrupt__"]]) == (["in", "a", "o"], ["q?"])
    state = stage.state()
    assert (state.values, state.next) == ({"l": ["in", "a", "o"]}, ("q?",))
    assert [(t.name, t.result) for t in state.tasks] == [("q?", None), ("o", {"l": ["o"]})]
    assert stage.history()[0].next == ("q?", "o")
    assert stage.run(Command(resume="Q")) == {"l": ["in", "a", "o", "Q", "z"]}
    assert stage.ran() == ["q?", "z"]


# ----------------------------------------------------------------------------------- forks know nothing of what they left


def stateful(stage: Stage, saver: Any) -> Any:
    """Outermost: `before` → `talk`, which calls a graph that keeps its state for all runs, `depth` levels down."""
    colour = stage.colour
    inner = StateGraph(Log).add_node("hear", colour.letter("hear", stage.calls))
    inner.add_node("ask?", asking(stage, "ask?")).add_edge(START, "hear").add_edge("hear", "ask?")
    graph = inner.compile(checkpointer=True)
    for level in range(stage.depth):
        builder = StateGraph(Log).add_node("talk", talking(colour, graph, level)).add_edge(START, "talk")
        graph = builder.compile(checkpointer=saver if level == stage.depth - 1 else None)
    return graph


def talking(colour: Colour, graph: Any, level: int) -> Any:
    def talk(state: Log) -> Any:
        result = yield graph, {"l": state["l"][:1]} if level == 0 else state
        return {"l": [result["l"]] if level == 0 else result["l"][len(state["l"]) :]}

    return colour.script(talk)


def test_a_fork_does_not_see_the_memory_of_the_branch_it_left(stage: Stage) -> None:
    """engine.md 7.7, D25: a graph that keeps its state has on each branch what happened on that branch."""

    class Own(Stage):
        graph = property(lambda self: stateful(self, self.saver))

    stage.__class__ = Own
    heard = []
    for word in ("one", "two", "three"):
        stage.run({"l": Overwrite([word])})
        result = stage.run(Command(resume=word.upper()))
        heard += [word, "hear", word.upper()]
        assert result["l"] == [word, heard]
    # Back to before the second: only the first is remembered, in the run and in what is shown.
    root = stage.colour.history(stage.graph, stage.root)
    second = next(e for e in root if e.values.get("l") == ["two", heard[:6]])
    first = next(e for e in root if e.values.get("l") == ["one", heard[:3]])
    for start, known in ((first, heard[:3]), (second, heard[:6])):
        stage.run({"l": Overwrite(["else"])}, start.config)
        shown = stage.colour.get_state(stage.graph, stage.root, subgraphs=True)
        for _ in range(stage.depth):
            shown = shown.tasks[0].state
        assert (shown.values, shown.next) == ({"l": [*known, "else", "hear"]}, ("ask?",))
        result = stage.run(Command(resume="ELSE"))
        assert result["l"] == ["else", [*known, "else", "hear", "ELSE"]]
    # And again on the branch that is now the newest.
    stage.run({"l": Overwrite(["more"])})
    result = stage.run(Command(resume="MORE"))
    assert result["l"] == ["more", [*heard[:6], "else", "hear", "ELSE", "more", "hear", "MORE"]]


def test_an_edit_of_the_memory_between_two_runs(stage: Stage) -> None:
    """The next run starts from it; a replay of what was before does not see it."""

    class Own(Stage):
        graph = property(lambda self: stateful(self, self.saver))

    stage.__class__ = Own
    stage.run({"l": Overwrite(["one"])})
    stage.run(Command(resume="ONE"))
    place = {"configurable": {"thread_id": "1", "checkpoint_ns": "|".join(["talk"] * stage.depth)}}
    (end, *_) = stage.colour.history(stage.graph, stage.root)
    stage.update({"l": ["edit"]}, "ask?", place)
    stage.update({"l": Overwrite(["again"])}, "ask?", place)
    assert stage.colour.get_state(stage.graph, place).values == {"l": ["again"]}
    stage.run({"l": Overwrite(["two"])})
    assert stage.run(Command(resume="TWO"))["l"] == ["two", ["again", "two", "hear", "TWO"]]
    stage.run({"l": Overwrite(["else"])}, end.config)
    assert stage.run(Command(resume="ELSE"))["l"] == ["else", ["one", "hear", "ONE", "else", "hear", "ELSE"]]


# ------------------------------------------------------------------------------------------------ forks by the saver


some_stages = pytest.mark.parametrize(
    "stage",
    [("memory", "sync", 1), ("memory", "exit", 2), ("restart", "async", 3)],
    ids=lambda place: "-".join(map(str, place)),
    indirect=True,
)
"""For what does not depend on how it is stored."""


def fork(stage: Stage, config: Any) -> Any:
    """The config of a fork that the saver makes, without the graph."""
    saver = stage.saver
    return asyncio.run(saver.afork(config)) if stage.colour.is_async else saver.fork(config)


def test_a_thread_goes_on_from_a_fork(stage: Stage) -> None:
    """A fork is the newest checkpoint: it is shown, and the next run goes on from there, at every depth."""
    stage.put_on(chain(stage, *NODES))
    stage.run({"l": ["in"]})
    entry = stage.history()[0] if stage.durability == "exit" else at(stage, "b")
    before = [e.config for e in stage.history()]
    made = fork(stage, entry.config)
    state = stage.state()
    assert (state.values, state.next, state.config) == (entry.values, entry.next, made)
    assert (state.metadata["source"], state.metadata["step"]) == ("fork", entry.metadata["step"] + 1)
    assert (state.parent_config, state.interrupts) == (entry.config, ())
    assert [e.config for e in stage.history()] == [made, *before]
    stage.ran()
    assert [i.value for i in stage.run(None)["__interrupt__"]] == ["c?"]
    assert stage.ran() == (["c?"] if stage.durability == "exit" else ["b", "c?"])
    assert stage.run(Command(resume="C")) == stage.around("in", "a", "b", "C", "d")
    assert stage.ran() == ["c?", "d"]
    # A branch of its own is not made for a run that goes on from it.
    assert [e.metadata["source"] for e in stage.history()].count("fork") == 1


@some_stages
def test_a_fork_named_by_its_config(stage: Stage) -> None:
    stage.put_on(chain(stage, *NODES))
    stage.run({"l": ["in"]})
    final = stage.run(Command(resume="C"))
    for entry in stage.history():
        made = fork(stage, entry.config)
        stage.ran()
        state = stage.colour.get_state(stage.graph, made)
        assert (state.values, state.next, state.config) == (entry.values, entry.next, made)
        result = stage.run(None, made)
        if "C" in entry.values["l"]:
            assert result == final
        else:
            assert [i.value for i in result["__interrupt__"]] == ["c?"]
            assert stage.run(Command(resume="C")) == final


@some_stages
def test_a_fork_takes_over_nothing_of_the_open_step(stage: Stage) -> None:
    """What finished in it runs again, and its question is asked again."""
    stage.put_on(fan(stage, "a", "q?"))
    asked = stage.run({"l": ["in"]})["__interrupt__"]
    (entry, *_) = stage.history()
    fork(stage, entry.config)
    state = stage.state()
    assert (state.next, state.interrupts, [task.result for task in state.tasks]) == (("a", "q?"), (), [None, None])
    assert stage.ran() == ["a", "q?"]
    again = stage.run(None)["__interrupt__"]
    assert stage.ran() == ["a", "q?"]
    assert again[0].value == "q?"
    assert again[0].id != asked[0].id
    assert stage.run(Command(resume="Q")) == stage.around("in", "a", "Q")


@some_stages
@pytest.mark.parametrize(
    "edits", [fork, lambda stage, place: stage.update({"l": []}, "b", place)], ids=["fork", "update"]
)
def test_a_question_that_was_open_before_an_edit(stage: Stage, edits: Any) -> None:
    """Its answer finds the one that is asked instead."""
    stage.put_on(chain(stage, "a", "b", "c?", "d"))
    stage.run({"l": ["in"]})
    edits(stage, stage.place())
    assert stage.state().next == ("c?",)
    assert stage.run(Command(resume="C")) == stage.around("in", "a", "b", "C", "d")


@some_stages
def test_a_fork_of_the_saver_does_not_see_the_memory_of_the_branch_it_left(stage: Stage) -> None:
    class Own(Stage):
        graph = property(lambda self: stateful(self, self.saver))

    stage.__class__ = Own
    heard = []
    for word in ("one", "two"):
        stage.run({"l": Overwrite([word])})
        stage.run(Command(resume=word.upper()))
        heard += [word, "hear", word.upper()]
    root = stage.colour.history(stage.graph, stage.root)
    first = next(e for e in root if e.values.get("l") == ["one", heard[:3]])
    fork(stage, first.config)
    stage.run({"l": Overwrite(["else"])})
    assert stage.run(Command(resume="ELSE"))["l"] == ["else", [*heard[:3], "else", "hear", "ELSE"]]


def test_a_fork_of_the_memory_between_two_runs(stage: Stage) -> None:
    """As an edit there: the next run starts from it."""

    class Own(Stage):
        graph = property(lambda self: stateful(self, self.saver))

    stage.__class__ = Own
    stage.run({"l": Overwrite(["one"])})
    stage.run(Command(resume="ONE"))
    place = {"configurable": {"thread_id": "1", "checkpoint_ns": "|".join(["talk"] * stage.depth)}}
    stage.update({"l": Overwrite(["edit"])}, "ask?", place)
    made = fork(stage, place)
    state = stage.colour.get_state(stage.graph, place)
    assert (state.values, state.config["configurable"]["checkpoint_id"]) == ({"l": ["edit"]}, checkpoint_id(made))
    stage.run({"l": Overwrite(["two"])})
    assert stage.run(Command(resume="TWO"))["l"] == ["two", ["edit", "two", "hear", "TWO"]]


def test_tasks_after_a_fork_have_keys_of_their_own(colour: Colour, saver: Any, thread: Any) -> None:
    keys: list[str] = []

    def note(state: Log, runtime: Runtime[Any]) -> None:
        keys.append(runtime.idempotency_key)

    builder = StateGraph(Log).add_node("a", colour.letter("a")).add_node("b", colour.node(note))
    graph = builder.add_edge(START, "a").add_edge("a", "b").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    before_b = next(e for e in colour.history(graph, thread) if e.next == ("b",))
    for _ in range(2):
        saver.fork(before_b.config)
        colour.invoke(graph, None, thread)
    assert len(set(keys)) == len(keys) == 3


def test_a_node_cannot_fork_its_own_thread(colour: Colour, saver: Any, thread: Any) -> None:
    """Another thread of the same saver it can."""

    def act(state: Log) -> Any:
        with refused(ThreadBusyError, "1"):
            saver.fork(thread)
        return {"l": [saver.fork({"configurable": {"thread_id": "other"}})["configurable"]["thread_id"]]}

    builder = StateGraph(Log).add_node("a", colour.node(act)).add_edge(START, "a")
    other = {"configurable": {"thread_id": "other"}}
    empty = StateGraph(Log).add_node("a", colour.letter("a")).add_edge(START, "a")
    colour.invoke(empty.compile(checkpointer=saver), {"l": []}, other)
    graph = builder.compile(checkpointer=saver)
    assert colour.invoke(graph, {"l": []}, thread, durability="sync") == {"l": ["other"]}
    assert [e.metadata["source"] for e in colour.history(graph, thread)] == ["loop", "loop", "input"]
    assert colour.history(graph, other)[0].metadata["source"] == "fork"


@pytest.mark.differs("D25: the step of the parent is dropped, and with it what its nested run had done so far")
def test_new_input_drops_the_unfinished_run_of_a_graph_that_keeps_its_state(stage: Stage) -> None:
    class Own(Stage):
        graph = property(lambda self: stateful(self, self.saver))

    stage.__class__ = Own
    stage.run({"l": Overwrite(["one"])})
    stage.run(Command(resume="ONE"))
    stage.run({"l": Overwrite(["lost"])})
    stage.run({"l": Overwrite(["two"])})
    assert stage.run(Command(resume="TWO"))["l"] == ["two", ["one", "hear", "ONE", "two", "hear", "TWO"]]


def test_colours_agree_on_what_a_namespace_is(colour: Colour, memory: Any, thread: Any) -> None:
    """A snapshot read by one colour addresses the same for the other."""
    other = Colour("sync" if colour.is_async else "async")
    ask = lambda state: {"l": [interrupt("q")]}  # noqa: E731 - a sync node runs in both colours
    inner = StateGraph(Log).add_node("ask", ask).add_edge(START, "ask").compile()
    graph = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").compile(checkpointer=memory)
    colour.invoke(graph, {"l": ["in"]}, thread)
    nested = colour.get_state(graph, thread, subgraphs=True).tasks[0].state
    assert other.get_state(graph, nested.config) == nested
    other.update_state(graph, nested.config, {"l": ["U"]}, "ask")
    assert colour.invoke(graph, None, thread) == {"l": ["in", "in", "U"]}
