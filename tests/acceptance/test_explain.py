"""`graph.explain(config)`: which write woke a node, or what it lacks (promises.md 56; engine.md 2.5, 2.8)."""

from __future__ import annotations

import contextlib
import operator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint.memory import InMemorySaver
from checkpoint.registry import register_codec
from checkpoint.sqlite import SqliteSaver
from pregel import func
from pregel.channels import BinaryOperatorAggregate, LastValue, Topic
from pregel.engine import reasons
from pregel.explanation import Cause, Explanation, Lack, Step, StepTask, Way
from pregel.graph import END, START, StateGraph
from pregel.pregel import NodeBuilder, Pregel
from pregel.types import Command, Every, Send, StateUpdate, interrupt
from tests.checkpoint.plain import PlainSaver
from tests.support.graphs import STEADY, Graph, graphs, seeded
from tests.support.play import Player
from tests.support.scenarios import Colour, Log, LogX, refused


def builder(colour: Colour, names: str, *edges: tuple[Any, str], defer: str = "", **given: Any) -> Any:
    """A node per letter that adds its name to `l`; `given` nodes; an edge per pair."""
    made = StateGraph(Log)
    for name in names:
        made.add_node(name, colour.letter(name), defer=name in defer)
    for name, node in given.items():
        made.add_node(name, node if callable(getattr(node, "invoke", None)) else colour.node(node))
    for source, target in edges:
        # that a join may stay half full is meant
        made.add_edge(source, target, inclusive=None if isinstance(source, str) else False)
    return made


def ends(made: Any, source: str, other: str) -> Any:
    """The builder; after `source` the graph ends, although it could go on to `other`."""
    return made.add_conditional_edges(source, lambda state: END, [other, END])


def asks(state: Log) -> dict[str, Any]:
    return {"l": [interrupt("?")]}


def fails(state: Log) -> dict[str, Any]:
    raise ValueError("boom")


def told(entry: Any) -> str:
    """A cause in short: who, in which step, by what."""
    if entry.kind == "node":
        return f"{entry.source}@{entry.step}:{entry.via}"
    return f"{entry.kind}{f':{entry.source}' if entry.source else ''}{'' if entry.step is None else f'@{entry.step}'}"


def story(explained: Explanation) -> list[str]:
    """One line per task and lack: `step name status < causes` or `step name kind > missing`."""
    lines = []
    for step in explained.steps:
        if not step.tasks and not step.lacks:
            lines.append(f"{step.step} {step.kind}")
        for task in step.tasks:
            lines.append(f"{step.step} {task.name} {task.status} < {', '.join(map(told, task.causes))}")
        for lack in step.lacks:
            lines.append(f"{step.step} {lack.name} {lack.kind} > {', '.join(lack.missing)}")
    return lines


# --------------------------------------------------------------------------------------------------- what woke a task


def test_a_chain(colour: Colour, saver: Any, thread: Any) -> None:
    graph = builder(colour, "ab", (START, "a"), ("a", "b")).compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    explained = colour.explain(graph, thread)
    assert story(explained) == [
        "-1 input",
        "0 __start__ finished < input@-1",
        "1 a finished < __start__@0:edge",
        "2 b finished < a@1:edge",
        "3 open",
    ]
    history = {entry.metadata["step"]: entry for entry in colour.history(graph, thread)}
    for step in explained.steps[1:]:
        assert step.config == history[step.step - 1].config
        assert [(task.id, task.name, task.path) for task in step.tasks] == [
            (task.id, task.name, task.path) for task in history[step.step - 1].tasks
        ]
    by_id = {task.id: task for step in explained.steps for task in step.tasks}
    (cause,) = explained.steps[3].tasks[0].causes
    assert by_id[cause.task_id].name == cause.source == "a"
    assert explained.steps[3].tasks[0].causes[0].channel == "branch:to:b"


def test_conditional_edges_and_commands(colour: Colour, saver: Any, thread: Any) -> None:
    def declared(state: Log) -> Literal["b", "c"]:
        return "b"

    def goes(state: Log) -> Any:
        return Command(goto="d")

    made = builder(colour, "acd", (START, "a"), b=goes)
    made.add_conditional_edges("a", declared).add_conditional_edges("d", lambda state: END)
    graph = made.compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    explained = colour.explain(graph, thread)
    assert story(explained)[2:] == [
        "1 a finished < __start__@0:edge",
        "2 b finished < a@1:branch",
        "3 d finished < b@2:goto",
        "4 c unreached > branch:to:c",
    ]
    # the router of `d` does not say where it goes: it may lead anywhere
    assert explained.about("c")[0][1].ways == (Way("a", "c", "branch"), Way("d", None, "branch"))
    assert Way("b", "d", "goto") not in explained.ways


def test_several_writers(colour: Colour, saver: Any, thread: Any) -> None:
    graph = builder(colour, "abc", (START, "a"), (START, "b"), ("a", "c"), ("b", "c")).compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    assert "2 c finished < a@1:edge, b@1:edge" in story(colour.explain(graph, thread))


def test_sends_are_told_apart(colour: Colour, saver: Any, thread: Any) -> None:
    made = builder(colour, "abw", (START, "a"), (START, "b"))
    made.add_conditional_edges("b", lambda state: [Send("w", {"l": [1]}), Send("w", {"l": [2]})], ["w"])
    made.add_conditional_edges("a", lambda state: [Send("w", {"l": [3]})], ["w"])
    graph = made.compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    step = colour.explain(graph, thread).steps[3]
    assert [(task.path, told(task.causes[0])) for task in step.tasks] == [
        (("__pregel_push", 0, False), "a@1:send"),
        (("__pregel_push", 1, False), "b@1:send"),
        (("__pregel_push", 2, False), "b@1:send"),
    ]


def test_joins(colour: Colour, saver: Any, thread: Any) -> None:
    edges = [(START, "a"), (START, "b"), ("b", "c"), (["a", "c"], "j"), ("j", "a")]
    made = builder(colour, "abcj", *edges[:4])
    made.add_conditional_edges("j", lambda state: "a" if len(state["l"]) < 5 else END, ["a", END])
    graph = made.compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    assert story(colour.explain(graph, thread))[2:] == [
        "1 a finished < __start__@0:edge",
        "1 b finished < __start__@0:edge",
        "2 c finished < b@1:edge",
        "2 j join > c",
        "3 j finished < a@1:join, c@2:join",
        "4 a finished < j@3:branch",
        "5 j join > c",
    ]
    ((_, lack),) = [entry for entry in colour.explain(graph, thread).about("j") if entry[0] == 5]
    assert [told(cause) for cause in lack.arrived] == ["a@4:join"]


def test_a_join_that_is_half_full_since_an_earlier_run(colour: Colour, saver: Any, thread: Any) -> None:
    made = builder(colour, "abj", (["a", "b"], "j"))
    made.add_conditional_edges(START, lambda state: state["l"][-1], ["a", "b"])
    graph = made.compile(checkpointer=saver)
    colour.invoke(graph, {"l": ["a"]}, thread)
    assert story(colour.explain(graph, thread))[-2:] == ["2 j join > b", "2 b unreached > branch:to:b"]
    colour.invoke(graph, {"l": ["b"]}, thread)
    explained = colour.explain(graph, thread)
    assert "5 j finished < a@1:join, b@4:join" in story(explained)
    assert explained.steps[0].kind == "input"


def test_joins_that_go_on_with_those_that_came(colour: Colour, saver: Any, thread: Any) -> None:
    made = builder(colour, "abcj", ("c", "a"))
    made.add_conditional_edges(START, lambda state: ["c"], ["b", "c"]).add_edge(["a", "b"], "j", inclusive=True)
    graph = made.compile(checkpointer=saver, interrupt_after=["a"])
    colour.invoke(graph, {"l": []}, thread)
    explained = colour.explain(graph, thread)
    assert story(explained)[-2:] == ["3 j pending < a@2:join", "3 b unreached > branch:to:b"]
    assert explained.steps[-1].tasks[0].released
    made = builder(colour, "abcj", (START, "a"), (START, "c"), ("c", "b"))
    graph = made.add_edge(["a", "b"], "j", inclusive=True).compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, {"configurable": {"thread_id": "2"}})
    explained = colour.explain(graph, {"configurable": {"thread_id": "2"}})
    assert story(explained)[4:-1] == [
        "2 b finished < c@1:edge",
        "2 j inclusive > b",
        "3 j finished < a@1:join, b@2:join",
    ]
    assert not explained.steps[-2].tasks[0].released


def test_deferred_nodes(colour: Colour, saver: Any, thread: Any) -> None:
    edges = [(START, "a"), ("a", "b"), ("b", "c"), ("a", "d"), (["a", "c"], "e")]
    graph = builder(colour, "abcde", *edges, defer="de").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    explained = colour.explain(graph, thread)
    assert story(explained)[3:] == [
        "2 b finished < a@1:edge",
        "2 d deferred > b",
        "2 e join > c",
        "3 c finished < b@2:edge",
        "3 d deferred > c",
        "3 e join > c",
        "4 d finished < a@1:edge",
        "4 e finished < a@1:join, c@3:join",
        "5 open",
    ]
    assert {task.name: task.released for step in explained.steps for task in step.tasks} == {
        "__start__": False,
        "a": False,
        "b": False,
        "c": False,
        "d": True,
        "e": True,
    }


def test_an_error_handler(colour: Colour, saver: Any, thread: Any) -> None:
    made = StateGraph(Log).add_node("bad", colour.node(fails), error_handler=colour.letter("h"))
    graph = made.add_edge(START, "bad").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    step = colour.explain(graph, thread).steps[2]
    assert [(task.name, task.status, task.error, [told(c) for c in task.causes]) for task in step.tasks] == [
        ("bad", "handled", "ValueError('boom')", ["__start__@0:edge"]),
        ("__error_handler__bad", "finished", None, ["error:bad@1"]),
    ]
    assert step.tasks[1].causes[0].task_id == step.tasks[0].id


# ------------------------------------------------------------------------------------------------------ the open step


def test_what_became_of_the_tasks_of_a_step(colour: Colour, saver: Any, thread: Any) -> None:
    edges = [(START, "a"), (START, "asks"), (START, "fails"), ("a", "d"), (["a", "asks"], "j"), ("j", "u")]
    graph = builder(colour, "adju", *edges, defer="d", asks=asks, fails=fails).compile(checkpointer=saver)
    with refused(ValueError, "boom"):
        colour.invoke(graph, {"l": []}, {**thread, "max_concurrency": 1})
    (question,) = colour.get_state(graph, thread).interrupts
    step = colour.explain(graph, thread).steps[-1]
    assert (step.step, step.kind) == (1, "open")
    assert {task.name: (task.status, task.interrupts, task.error) for task in step.tasks} == {
        "a": ("finished", (), None),
        "asks": ("asked", (question.id,), None),
        "fails": ("failed", (), "ValueError('boom')"),
    }
    assert [(lack.name, lack.kind) for lack in step.lacks] == [(name, "unreached") for name in "dju"]
    assert step.lacks[1].ways == (Way("a", "j", "join"), Way("asks", "j", "join"))


def test_a_pending_task(colour: Colour, saver: Any, thread: Any) -> None:
    graph = builder(colour, "ab", (START, "a"), ("a", "b")).compile(checkpointer=saver, interrupt_before=["b"])
    colour.invoke(graph, {"l": []}, thread)
    assert story(colour.explain(graph, thread))[-1] == "2 b pending < a@1:edge"


def test_a_named_checkpoint_is_explained_alone(colour: Colour, saver: Any, thread: Any) -> None:
    graph = builder(colour, "ab", (START, "a"), ("a", "b")).compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    for entry in colour.history(graph, thread):
        explained = colour.explain(graph, entry.config)
        (step,) = explained.steps
        assert (step.step, step.kind, step.config) == (entry.metadata["step"] + 1, "open", entry.config)
        assert tuple(task.name for task in step.tasks) == entry.next
        assert all(cause.kind != "unknown" for task in step.tasks for cause in task.causes)
        assert {lack.name for lack in step.lacks} == {"a", "b"} - set(entry.next)


def test_a_new_input_drops_what_was_pending(colour: Colour, saver: Any, thread: Any) -> None:
    graph = builder(colour, "ab", (START, "a"), ("a", "b")).compile(checkpointer=saver, interrupt_before=["b"])
    colour.invoke(graph, {"l": []}, thread)
    colour.invoke(graph, {"l": []}, thread)
    assert story(colour.explain(graph, thread))[0] == "2 b dropped < "


# -------------------------------------------------------------------------------------------------- edits and branches


def test_updates_and_commands(colour: Colour, saver: Any, thread: Any) -> None:
    graph = builder(colour, "abc", (START, "a"), ("a", "b"), ("b", "c")).compile(
        checkpointer=saver, interrupt_before=["b"]
    )
    colour.invoke(graph, {"l": []}, thread)
    colour.update_state(graph, thread, {"l": ["u"]}, as_node="b")
    assert story(colour.explain(graph, thread))[-2:] == ["2 update", "3 c pending < update:b@2"]
    colour.invoke(graph, Command(goto=["a", Send("c", {"l": []})]), thread)
    assert story(colour.explain(graph, thread))[-4:-1] == [
        "3 c finished < command@3",
        "3 a finished < command@3",
        "3 c finished < update:b@2",
    ]


def test_an_update_beside_finished_tasks(colour: Colour, saver: Any, thread: Any) -> None:
    """Their results are stored beside the update's and are not applied: who woke `d` cannot be told from them."""
    edges = [(START, "a"), (START, "asks"), ("a", "d"), ("asks", "d"), ("asks", "e")]
    graph = builder(colour, "ade", *edges, asks=asks).compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    colour.update_state(graph, thread, {"l": ["u"]}, as_node="asks")
    causes = {
        task.name: [told(cause) for cause in task.causes] for task in colour.explain(graph, thread).steps[-1].tasks
    }
    assert causes["d"] == ["update@1"]
    assert causes["e"] == ["update:asks@1"]


def test_several_updates_at_once(colour: Colour, saver: Any, thread: Any) -> None:
    graph = builder(colour, "abd", (START, "a"), (START, "b"), ("a", "d"), ("b", "d")).compile(checkpointer=saver)
    updates = [[StateUpdate({"l": [1]}, "a"), StateUpdate({"l": [2]}, "b")]]
    colour.bulk_update_state(graph, thread, [[StateUpdate({"l": []}, "__input__")], [StateUpdate({"l": []}, START)]])
    colour.bulk_update_state(graph, thread, updates)
    task = next(task for task in colour.explain(graph, thread).steps[-1].tasks if task.name == "d")
    assert {cause.kind for cause in task.causes} == {"update"}


def test_a_command_to_a_deferred_node(colour: Colour, saver: Any, thread: Any) -> None:
    made = builder(colour, "abd", (START, "a"), ("a", "b"), defer="d")
    graph = ends(made, "b", "d").compile(checkpointer=saver, interrupt_before=["b"])
    colour.invoke(graph, {"l": []}, thread)
    colour.invoke(graph, Command(goto=["d"]), thread)
    colour.invoke(graph, None, thread)
    assert "3 d finished < command@2" in story(colour.explain(graph, thread))


def test_a_command_on_a_fresh_thread(colour: Colour, saver: Any, thread: Any) -> None:
    graph = ends(builder(colour, "ab", (START, "a")), "a", "b").compile(checkpointer=saver)
    colour.invoke(graph, Command(goto=["b", Send("b", {"l": []})], update={"l": ["x"]}), thread)
    assert {"0 b finished < command@-1", "0 __start__ finished < input@-1"} <= set(story(colour.explain(graph, thread)))


def test_a_replay_is_explained_by_its_own_branch(colour: Colour, saver: Any, thread: Any) -> None:
    calls: list[str] = []

    def pick(state: Log) -> str:
        calls.append("pick")
        return "b" if len(calls) == 1 else "c"

    made = builder(colour, "abc", (START, "a")).add_conditional_edges("a", pick, ["b", "c"])
    graph = made.compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    (before_a,) = [entry.config for entry in colour.history(graph, thread) if entry.next == ("a",)]
    first_tip = colour.get_state(graph, thread).config
    colour.invoke(graph, None, before_a)
    assert story(colour.explain(graph, thread))[1:] == [
        "0 __start__ finished < input@-1",
        "1 fork",
        "2 a finished < __start__@0:edge",
        "3 c finished < a@2:branch",
        "4 b unreached > branch:to:b",
    ]
    (left,) = colour.explain(graph, first_tip).steps
    assert {lack.name for lack in left.lacks} == {"a", "b", "c"}


# --------------------------------------------------------------------------------------------------------------- depth


@pytest.mark.parametrize("memory_of", [None, True])
def test_nested_graphs(colour: Colour, saver: Any, thread: Any, memory_of: Any) -> None:
    inner = builder(colour, "xz", (START, "x"), ("x", "asks"), ("asks", "z"), asks=asks).compile(checkpointer=memory_of)
    graph = builder(colour, "a", (START, "a"), ("a", "sub"), sub=inner).compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    (task,) = colour.explain(graph, thread).steps[-1].tasks
    assert (task.name, task.status) == ("sub", "asked")
    explained = colour.explain(graph, task.state)
    ns = task.state["configurable"]["checkpoint_ns"]
    assert explained.checkpoint_ns == (ns if memory_of is None else "sub")
    assert story(explained) == [
        "-1 input",
        "0 __start__ finished < input@-1",
        "1 x finished < __start__@0:edge",
        "2 asks asked < x@1:edge",
        "2 z unreached > branch:to:z",
    ]
    assert explained.steps[-1].tasks[0].interrupts == task.interrupts
    colour.invoke(graph, Command(resume="yes"), thread)
    assert "3 z finished < asks@2:edge" in story(colour.explain(graph, task.state))
    assert str(task.state["configurable"]["checkpoint_ns"]) in str(colour.explain(graph, thread))


def test_one_of_several_graphs_of_a_node(colour: Colour, saver: Any, thread: Any) -> None:
    """Which one a stored namespace belongs to is told by the names in its checkpoints."""
    first = builder(colour, "x", (START, "x")).compile()
    second = builder(colour, "y", (START, "y"), ("y", "asks"), asks=asks).compile()

    def call(state: Log) -> Any:
        yield first, {"l": []}
        yield second, {"l": []}
        return {"l": ["called"]}

    made = StateGraph(Log).add_node("call", colour.script(call)).add_edge(START, "call")
    graph = made.compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    (task,) = colour.explain(graph, thread).steps[-1].tasks
    ns = task.state["configurable"]["checkpoint_ns"]
    for place, names in ((ns, ["__start__", "x"]), (f"{ns}|1", ["__start__", "y", "asks"])):
        explained = colour.explain(graph, {"configurable": {"thread_id": "1", "checkpoint_ns": place}})
        assert [task.name for step in explained.steps for task in step.tasks] == names


def test_after_a_restart(colour: Colour, tmp_path: Path, thread: Any) -> None:
    edges = [(START, "a"), (START, "asks"), (["a", "asks"], "j")]
    file = str(tmp_path / "threads.sqlite")
    with SqliteSaver.from_conn_string(file) as first:
        graph = builder(colour, "aj", *edges, asks=asks).compile(checkpointer=first)
        colour.invoke(graph, {"l": []}, thread)
        before = colour.explain(graph, thread)
    with SqliteSaver.from_conn_string(file) as second:
        graph = builder(colour, "aj", *edges, asks=asks).compile(checkpointer=second)
        assert colour.explain(graph, thread) == before


# ------------------------------------------------------------------------------------------------- what is not stored


def test_steps_that_were_stored_as_one(colour: Colour, saver: Any, thread: Any) -> None:
    made = ends(builder(colour, "abc", (START, "a"), ("a", "b")), "b", "c")
    graph = made.compile(checkpointer=saver, interrupt_before=["b"])
    colour.invoke(graph, {"l": []}, thread, durability="exit")
    explained = colour.explain(graph, thread)
    assert [(step.kind, step.first_step, step.step) for step in explained.steps] == [("loop", 0, 1), ("open", None, 2)]
    assert story(explained) == [
        "1 __start__ finished < unknown",
        "1 a finished < unknown",
        "2 b pending < unknown@1",
        "2 c unreached > branch:to:c",
    ]
    assert {cause.detail for step in explained.steps for task in step.tasks for cause in task.causes} == {
        reasons.AS_ONE
    }
    colour.invoke(graph, {"l": []}, thread, durability=Every(steps=2))
    assert story(colour.explain(graph, thread))[-2] == "5 b pending < unknown@4"


@pytest.mark.parametrize("kind", [InMemorySaver, SqliteSaver])
def test_task_writes_that_were_dropped(colour: Colour, kind: Any, thread: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"history_writes": "drop"}
    saver = kind(**options) if kind is InMemorySaver else kind(str(tmp_path / "drop.sqlite"), **options)
    edges = [(START, "a"), (START, "b"), ("a", "c"), ("b", "d"), (["c", "d"], "j")]
    graph = builder(colour, "abcdj", *edges).compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    assert story(colour.explain(graph, thread))[1:-1] == [
        "0 __start__ finished < input@-1",
        "1 a finished < __start__@0:edge",
        "1 b finished < __start__@0:edge",
        "2 c finished < a@1:edge",
        "2 d finished < b@1:edge",
        "3 j finished < c@None:join, d@None:join",
    ]
    saver.close()


def test_what_cannot_be_told_is_said(colour: Colour, thread: Any) -> None:
    saver = InMemorySaver(history_writes="drop")
    made = builder(colour, "abw", (START, "a"), (START, "b"))
    for name in "ab":
        made.add_conditional_edges(name, lambda state: [Send("w", {"l": []}), "w"], ["w"])
    graph = made.compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    step = colour.explain(graph, thread).steps[3]
    assert [[cause.kind for cause in task.causes] for task in step.tasks] == [["unknown"]] * 3
    assert {cause.detail for task in step.tasks for cause in task.causes} == {reasons.NOT_KEPT}


def test_checkpoints_that_are_gone(colour: Colour, saver: Any, thread: Any) -> None:
    graph = builder(colour, "ab", (START, "a"), ("a", "b")).compile(checkpointer=saver, interrupt_before=["b"])
    colour.invoke(graph, {"l": []}, thread)
    saver.prune(["1"], strategy="keep_latest")
    explained = colour.explain(graph, thread)
    assert story(explained)[-1] == "2 b pending < unknown@1"
    assert explained.steps[-1].tasks[0].causes[0].detail == reasons.AS_ONE


def test_checkpoints_that_somebody_deleted(colour: Colour, thread: Any) -> None:
    saver = PlainSaver()
    graph = builder(colour, "ab", (START, "a"), ("a", "b")).compile(checkpointer=saver, interrupt_before=["b"])
    colour.invoke(graph, {"l": []}, thread)
    rows = saver.rows["1", ""]
    for old in sorted(rows)[:-1]:
        del rows[old]
    explained = colour.explain(graph, thread)
    assert [(step.kind, step.first_step, step.step) for step in explained.steps] == [("loop", 1, 1), ("open", None, 2)]
    assert story(explained) == ["1 loop", "2 b pending < unknown@1", "2 a unreached > branch:to:a"]
    assert explained.steps[-1].tasks[0].causes[0].detail == reasons.TOO_FAR


def test_a_saver_of_four_methods(colour: Colour, thread: Any) -> None:
    made = builder(colour, "abwj", (START, "a"), (START, "b"), (["a", "w"], "j"))
    made.add_conditional_edges("b", lambda state: [Send("w", {"l": [1]}), Send("w", {"l": [2]})], ["w"])
    make = made.compile
    plain, own = make(checkpointer=PlainSaver()), make(checkpointer=InMemorySaver())
    for graph in (plain, own):
        colour.invoke(graph, {"l": []}, thread)
    assert story(colour.explain(plain, thread)) == story(colour.explain(own, thread))
    for entry, other in zip(colour.history(plain, thread), colour.history(own, thread), strict=True):
        assert story(colour.explain(plain, entry.config)) == story(colour.explain(own, other.config))


# --------------------------------------------------------------------------------------------------------------- costs


class Allowed:
    """What may be done: reading values, running code of the program."""

    is_allowed = True

    def check(self) -> None:
        assert self.is_allowed, "a value was read, or code run"

    def __call__(self, old: Any, new: Any) -> Any:
        """As a reducer."""
        self.check()
        return old + new


class Unreadable:
    """Its stored form can be read for as long as that is allowed."""


def _read(stored: Any) -> Unreadable:
    allowed.check()
    return Unreadable()


allowed = Allowed()
register_codec(Unreadable, "tests.Unreadable", lambda value: 1, _read)


class Picky(LogX):
    y: Annotated[list[int], allowed]


def test_no_value_is_read_and_no_code_is_run(colour: Colour, saver: Any, thread: Any, monkeypatch: Any) -> None:
    def node(state: LogX) -> Any:
        allowed.check()
        return {"x": Unreadable()}

    def route(state: LogX) -> Any:
        allowed.check()
        return [Send("w", {"x": Unreadable()})]

    made = StateGraph(Picky).add_node("a", colour.node(node)).add_node("w", colour.node(node))
    made.add_node("asks", colour.node(asks)).add_edge(START, "a").add_edge("w", "asks")
    graph = made.add_conditional_edges("a", route, ["w"]).compile(checkpointer=saver)
    colour.invoke(graph, {"l": [], "y": [1]}, thread)
    colour.update_state(graph, thread, {"y": [1]}, as_node="a")
    monkeypatch.setattr(allowed, "is_allowed", False)
    with pytest.raises(Exception, match="a value was read"):
        colour.get_state(graph, thread)
    assert story(colour.explain(graph, thread))[-1] == "4 w pending < update:a@3"


def test_reading_for_causes_ends(colour: Colour, memory: Any, thread: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(reasons, "MARGIN", 3)
    made = builder(colour, "abj", (["a", "b"], "j"))
    made.add_conditional_edges(START, lambda state: state["l"][-1], ["a", "b", END])
    graph = made.compile(checkpointer=memory)
    for choice in ["a", END, END]:
        colour.invoke(graph, {"l": [choice]}, thread)
    (lack, *_) = colour.explain(graph, thread, limit=0).steps[-1].lacks
    assert (lack.kind, lack.missing, lack.arrived[0].kind, lack.arrived[0].source) == ("join", ("b",), "unknown", "a")
    assert lack.arrived[0].detail == reasons.TOO_FAR


# --------------------------------------------------------------------------------------------------------- asking


def test_limits(colour: Colour, saver: Any, thread: Any) -> None:
    graph = builder(colour, "ab", (START, "a"), ("a", "b")).compile(checkpointer=saver)
    for _ in range(2):
        colour.invoke(graph, {"l": []}, thread)
    assert [step.step for step in colour.explain(graph, thread).steps] == [3, 4, 5, 6, 7]
    assert [step.step for step in colour.explain(graph, thread, limit=2).steps] == [5, 6, 7]
    assert [step.step for step in colour.explain(graph, thread, limit=0).steps] == [7]
    assert [step.step for step in colour.explain(graph, thread, limit=99).steps] == list(range(-1, 8))
    for wrong in (-1, True, "2"):
        with refused(ValueError, wrong):
            colour.explain(graph, thread, limit=wrong)


def test_nothing_is_there(colour: Colour, saver: Any, thread: Any) -> None:
    graph = builder(colour, "a", (START, "a")).compile(checkpointer=saver)
    assert colour.explain(graph, thread).steps == ()
    colour.invoke(graph, {"l": []}, thread)
    nowhere = {"configurable": {"thread_id": "1", "checkpoint_id": "1f000000-0000-6000-8000-000000000000"}}
    assert colour.explain(graph, nowhere).steps == ()
    with refused(ValueError, "thread_id"):
        colour.explain(graph, {})
    with refused(ValueError, "checkpointer"):
        colour.explain(builder(colour, "a", (START, "a")).compile(), thread)
    with refused(ValueError, "nope"):
        colour.explain(graph, {"configurable": {"thread_id": "1", "checkpoint_ns": "nope:1"}})


def test_a_graph_of_channels(colour: Colour, saver: Any, thread: Any) -> None:
    graph = Pregel(
        nodes={
            "one": NodeBuilder().subscribe_only("in").do(lambda value: value + 1).write_to("mid", "acc"),
            "two": NodeBuilder().subscribe_to("mid", "acc").do(lambda value: 1).write_to("out"),
            "three": NodeBuilder().subscribe_only("never").write_to("out"),
        },
        channels={
            "in": LastValue(int),
            "mid": Topic(int),
            "acc": BinaryOperatorAggregate(int, operator.add),
            "out": LastValue(int),
            "never": LastValue(int),
        },
        input_channels="in",
        output_channels="out",
        checkpointer=saver,
    )
    colour.invoke(graph, 1, thread)
    explained = colour.explain(graph, thread)
    assert story(explained) == [
        "-1 input",
        "0 one finished < input@-1",
        "1 two finished < one@0:channel, one@0:channel",
        "2 three unreached > never",
    ]
    assert [cause.channel for cause in explained.steps[2].tasks[0].causes] == ["acc", "mid"]
    assert explained.ways == (Way(START, "one", "channel"), Way("one", "two", "channel"))


class Moody(LastValue[Any]):
    """A channel that looks at its value, which is not there when nobody reads values."""

    plain_value = False

    def is_available(self) -> bool:
        return super().is_available() and self.value.mood == "good"


class Mood(Unreadable):
    mood = "good"


register_codec(Mood, "tests.Mood", lambda value: 1, lambda stored: Mood())


def test_channels_of_ones_own_and_nodes_with_nothing_to_read(colour: Colour, saver: Any, thread: Any) -> None:
    graph = Pregel(
        nodes={
            "one": NodeBuilder().subscribe_only("in").do(lambda value: Mood()).write_to("mood"),
            "two": NodeBuilder().subscribe_only("mood").do(lambda value: 1).write_to("out"),
            "starved": NodeBuilder().subscribe_to("in", read=False).read_from("never").write_to("out"),
        },
        channels={"in": LastValue(int), "mood": Moody(Any), "out": LastValue(int), "never": LastValue(int)},
        input_channels="in",
        output_channels="out",
        checkpointer=saver,
    )
    graph.nodes["starved"].channels = "never"
    graph = graph.copy()
    colour.invoke(graph, 1, thread)
    assert story(colour.explain(graph, thread)) == [
        "-1 input",
        "0 one finished < input@-1",
        "0 starved input > never",
        "1 two finished < one@0:channel",
        "1 starved input > never",
        "2 starved input > never",
    ]


# -------------------------------------------------------------------------------------------------------- any graph


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [False, True])
@given(graph=graphs(), durability=st.sampled_from(["sync", "async"]))
@settings(STEADY, max_examples=40)
def test_every_task_of_any_graph_is_explained(is_async: bool, graph: Graph, durability: str) -> None:
    """Slow: each example is two runs and their whole history."""
    check(graph, is_async=is_async, durability=durability)


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [False, True])
def test_larger_graphs(is_async: bool) -> None:
    """Slow: 25 graphs, two runs each."""
    for seed in range(25):
        check(seeded(seed), is_async=is_async, durability="sync")


def check(graph: Graph, *, is_async: bool, durability: str) -> None:
    """Each task of each stored step has causes, and they lie in steps and tasks that there were."""
    player = Player(graph, saver=InMemorySaver(), is_async=is_async, durability=durability, limit=6)
    player.invoke({"log": ["in"]})
    player.invoke({"log": ["again"]})
    colour = Colour("async" if is_async else "sync")
    explained = colour.explain(player.compiled, player.config, limit=1000)
    history = {entry.config["configurable"]["checkpoint_id"]: entry for entry in player.snapshots()}
    ran: dict[str, StepTask] = {}
    for step in explained.steps:
        at = history[step.config["configurable"]["checkpoint_id"]]
        if step.kind in ("loop", "open"):
            assert step.step == at.metadata["step"] + 1
            shown = [task for task in step.tasks if not task.name.startswith("__error")]
            assert [(task.id, task.name) for task in shown] == [(task.id, task.name) for task in at.tasks]
        for task in step.tasks:
            if task.status == "dropped":
                continue
            assert task.causes
            for cause in task.causes:
                assert cause.kind in ("input", "node", "error")
                if cause.kind == "node":
                    assert (ran[cause.task_id or ""].name, ran[cause.task_id or ""].status) == (
                        cause.source,
                        "finished",
                    )
                    assert cause.step is not None
                    assert cause.step < step.step
        ran.update((task.id, task) for task in step.tasks)
    assert str(explained)


# ---------------------------------------------------------------------------------------------------------------- text


def test_the_text_names_everything() -> None:
    config = {"configurable": {"thread_id": "1", "checkpoint_ns": "s:1", "checkpoint_id": "2"}}
    causes = (
        Cause("node", "branch:to:a", "p", "id", 3, "edge"),
        Cause("update", "x", "q", step=2),
        Cause("update", "x", step=2),
        Cause("command", "x", step=1),
        Cause("input", "x", step=-1),
        Cause("error", "", "r"),
        Cause("unknown", "x", "t", detail="it is gone"),
    )
    task = StepTask("a", "id", (), "failed", causes, True, error="ValueError('b')", state=config)
    asked = StepTask("b", "id", (), "asked", (), interrupts=("f00",))
    lacks = (
        Lack("j", "join", "join:p+q:j", causes[:1], ("q",)),
        Lack("k", "inclusive", "join:p+q:k", causes[:1], ("q",)),
        Lack("d", "deferred", "x", causes[:1], ("p", "j")),
        Lack("e", "deferred", "x"),
        Lack("i", "input", missing=("in",)),
        Lack("u", "unreached", ways=(Way("p", "u", "edge"), Way("q", None, "branch"))),
        Lack("v", "unreached"),
    )
    steps = (
        Step(-1, "input", config),
        Step(2, "loop", config, (asked,), first_step=0),
        Step(3, "update", config),
        Step(4, "fork", config),
        Step(5, "open", config, (task,), lacks),
        Step(6, "open", config),
    )
    explained = Explanation("g", "t", "s:1", steps)
    text = str(explained)
    for word in (
        "'t'",
        "'g'",
        "'s:1'",
        "'p' in step 3",
        "'q'",
        "step 2",
        "ValueError('b')",
        "f00",
        "'r'",
        "it is gone",
    ):
        assert word in text
    assert len(text.splitlines()) == 1 + len(steps) + 2 + len(lacks) + 1
    assert explained.about("j") == ((5, lacks[0]),)
    assert explained.why("u").startswith("step 5: u ")
    assert "nobody" in explained.why("nobody")
    assert "nothing" in str(Explanation("g", "t", "", ()))


# ---- breakpoints, and tasks that tasks call


@pytest.mark.parametrize(
    ("compiled", "call", "stopped"),
    [
        ({"interrupt_before": ["b"]}, {}, "before"),
        ({"interrupt_after": ["a"]}, {}, "after"),
        ({"interrupt_before": "*"}, {}, "before"),
        ({}, {"interrupt_before": ["b"], "keep_breakpoints": True}, "before"),
        ({}, {"interrupt_after": ["a"], "keep_breakpoints": True}, "after"),
        ({}, {"interrupt_before": ["b"]}, None),  # of a single call: not stored
    ],
)
def test_a_thread_that_waits_at_a_breakpoint(
    colour: Colour, saver: Any, thread: Any, compiled: Any, call: Any, stopped: Any
) -> None:
    graph = builder(colour, "ab", (START, "a"), ("a", "b")).compile(checkpointer=saver, **compiled)
    colour.invoke(graph, {"l": []}, thread, **call)
    if compiled.get("interrupt_before") == "*":
        assert colour.explain(graph, thread).steps[-1].stopped == "before"
        colour.invoke(graph, None, thread)
    explained = colour.explain(graph, thread)
    assert [step.stopped for step in explained.steps] == [None] * (len(explained.steps) - 1) + [stopped]
    assert ("breakpoint" in str(explained)) is (stopped is not None)
    assert [task.name for task in explained.steps[-1].tasks] == ["b"]
    only = colour.explain(graph, thread, limit=0)
    assert only.steps[-1].stopped == stopped
    colour.invoke(graph, None, thread, **({"keep_breakpoints": False} if call else {}))
    assert colour.explain(graph, thread).steps[-1].stopped is None


def test_a_breakpoint_that_was_passed(colour: Colour, memory: Any, thread: Any):
    """The node failed when it was let go: the thread waits for the next try, not at the breakpoint."""
    graph = builder(colour, "a", (START, "a"), ("a", "f"), f=fails).compile(checkpointer=memory, interrupt_before=["f"])
    colour.invoke(graph, {"l": []}, thread)
    assert colour.explain(graph, thread).steps[-1].stopped == "before"
    with pytest.raises(ValueError):
        colour.invoke(graph, None, thread)
    step = colour.explain(graph, thread).steps[-1]
    assert (step.stopped, [task.status for task in step.tasks]) == (None, ["failed"])


def test_tasks_that_tasks_call(saver: Any, thread: Any):
    """Under the task that called them, with their own calls, in the order of calling."""

    @func.task
    def add(number: int) -> int:
        return number + 1

    @func.task
    def twice(number: int) -> int:
        return add(add(number).result()).result()

    @func.task
    def ask() -> Any:
        return interrupt("?")

    @func.task
    def fail() -> None:
        raise ValueError("boom")

    @func.entrypoint(checkpointer=saver)
    def flow(number: int) -> Any:
        made = twice(number).result()
        with contextlib.suppress(ValueError):
            fail().result()
        return made, ask().result()

    def outline(entry: StepTask) -> Any:
        line = (entry.name, entry.status)
        return (*line, [outline(call) for call in entry.calls]) if entry.calls else line

    calls = [("twice", "finished", [("add", "finished"), ("add", "finished")]), ("fail", "failed")]
    flow.invoke(1, thread)
    (entry,) = flow.explain(thread).steps[-1].tasks
    assert outline(entry) == ("flow", "asked", [*calls, ("ask", "asked")])
    assert entry.calls[-1].interrupts == entry.interrupts
    assert entry.calls[1].error == "ValueError('boom')"
    assert [told(cause) for call in entry.calls for cause in call.causes] == ["flow@0:call"] * 3
    assert entry.calls[0].calls[1].causes[0].task_id == entry.calls[0].id
    text = str(entry)
    assert len(text.splitlines()) == 6
    assert "    add finished: called by 'twice' in step 0 (call)" in text
    flow.invoke(Command(resume="yes"), thread)
    steps = flow.explain(thread).steps
    (entry,) = next(step for step in steps if step.kind == "loop").tasks
    assert outline(entry) == ("flow", "finished", [*calls, ("ask", "finished")])
