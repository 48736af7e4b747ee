"""Taking over a checkpoint of another version of a graph: facts in, facts out."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkpoint.base import LoadedCheckpoint, TaskWrites
from pregel.channels import (
    EphemeralValue,
    LastValue,
    LastValueAfterFinish,
    NamedBarrierValue,
    NamedBarrierValueAfterFinish,
)
from pregel.constants import INTERRUPT, NULL_TASK_ID, START, TASKS
from pregel.engine import redeploy
from pregel.engine.program import PregelNode, Program
from pregel.graph import StateGraph
from pregel.types import Send
from tests.support.dummies import dummy_loaded, dummy_program, node
from tests.support.scenarios import Log


def edged(*names: str, joins: Any = (), defer: Any = (), aliases: Any = None, **options: Any) -> Program:
    """A program as a `StateGraph` makes it: nodes woken by `branch:to:` and `join:` channels."""
    channels: dict[str, Any] = {"x": LastValue(int)}
    triggers: dict[str, list[str]] = {}
    for name in names:
        triggers[name] = [f"branch:to:{name}"]
        channels[f"branch:to:{name}"] = LastValueAfterFinish(Any) if name in defer else EphemeralValue(Any, guard=False)
    for sources, target in joins:
        join = f"join:{'+'.join(sources)}:{target}"
        triggers[target].append(join)
        kind = NamedBarrierValueAfterFinish if target in defer else NamedBarrierValue
        channels[join] = kind(str, set(sources))
    nodes = {
        name: PregelNode(
            channels=["x"], triggers=triggers[name], write=node().write, aliases=(aliases or {}).get(name, ())
        )
        for name in names
    }
    made = dummy_program(nodes, channels, output_channels="x")
    made.renamed_keys.update(options.get("renamed_keys", {}))
    return made


def left(values: dict[str, Any], **fields: Any) -> LoadedCheckpoint:
    """A checkpoint with these values, all of version 1, updated together; `gone`: channels without a value."""
    gone = fields.pop("gone", {})
    loaded = dummy_loaded(values=dict(values), **fields)
    loaded.versions.update(gone)
    if loaded.updated_channels is None:
        loaded.updated_channels = list(values)
    return loaded


def row(task: str, *writes: tuple[str, Any], slot: int = 0, path: str | None = None) -> TaskWrites:
    return TaskWrites(7, "stored-0", task, f"~__pregel_pull, {task}" if path is None else path, slot, list(writes))


def taken(program: Program, loaded: LoadedCheckpoint) -> redeploy.TakenOver:
    found = redeploy.take_over(program, loaded)
    assert found is not None
    return found


def test_a_checkpoint_of_the_same_graph_is_not_looked_at() -> None:
    program = edged("a")
    assert redeploy.take_over(program, dummy_loaded()) is None
    loaded = left({"branch:to:b": None}, facts={"graph": redeploy.mark_of(program)})
    assert redeploy.take_over(program, loaded) is None
    assert taken(program, left({"branch:to:b": None})).missing


@pytest.mark.parametrize(
    ("program", "values", "expected", "updated"),
    [
        # former name -> name
        (edged("b", aliases={"b": "a"}), {"branch:to:a": None}, {"branch:to:b": None}, ["branch:to:b"]),
        (
            edged("b", aliases={"b": "a"}, defer="b"),
            {"branch:to:a": (None, False)},
            {"branch:to:b": (None, False)},
            None,
        ),
        # a join, by its sources and its target
        (
            edged("a", "c", "t", joins=[("ac", "t")], aliases={"c": "b"}),
            {"join:a+b:t": {"a"}},
            {"join:a+c:t": {"a"}},
            None,
        ),
        (
            edged("a", "c", "t", joins=[("ca", "t")], aliases={"c": "b"}),
            {"join:a+b:t": {"b"}},
            {"join:c+a:t": {"c"}},
            None,
        ),
        (
            edged("a", "b", "u", joins=[("ab", "u")], aliases={"u": "t"}),
            {"join:a+b:t": {"a", "b"}},
            {"join:a+b:u": {"a", "b"}},
            ["join:a+b:u"],
        ),
        # the edge is gone: a complete join still wakes its node, a part of one waits for what is left
        (edged("a", "b", "t"), {"join:a+b:t": {"a", "b"}}, {"branch:to:t": None}, ["branch:to:t"]),
        (edged("a", "b", "t"), {"join:a+b:t": {"a"}}, {}, None),
        (
            edged("a", "b", "t", defer="t"),
            {"join:a+b:t": ({"a", "b"}, False), "x": 1},
            {"branch:to:t": (None, False), "x": 1},
            None,
        ),
        (
            edged("a", "b", "c", "t", joins=[("abc", "t")]),
            {"join:a+b:t": {"a"}},
            {"join:a+b+c:t": {"a"}},
            None,
        ),
        # deferred now, or not any more
        (edged("a", defer="a"), {"branch:to:a": None}, {"branch:to:a": (None, True)}, ["branch:to:a"]),
        (edged("a"), {"branch:to:a": (None, False)}, {"branch:to:a": None}, ["branch:to:a"]),
        (
            edged("a", "b", "t", joins=[("ab", "t")], defer="t"),
            {"join:a+b:t": {"a"}},
            {"join:a+b:t": {"a"}},
            None,
        ),
        (
            edged("a", "b", "t", joins=[("ab", "t")], defer="t"),
            {"join:a+b:t": {"a", "b"}},
            {"join:a+b:t": ({"a", "b"}, True)},
            ["join:a+b:t"],
        ),
        # inclusive before: released with a part of its names
        (
            edged("a", "b", "t", joins=[("ab", "t")]),
            {"join:a+b:t": ({"a"}, True)},
            {"branch:to:t": None},
            ["branch:to:t"],
        ),
        (edged("a", "b", "t"), {"join:a+b:t": ({"a"}, True)}, {"branch:to:t": None}, ["branch:to:t"]),
        (
            edged("a", "c", "t", joins=[("ac", "t")], aliases={"c": "b"}),
            {"join:a+b:t": ({"b"}, True)},
            {"branch:to:t": None},
            ["branch:to:t"],
        ),
        (
            edged("a", "b", "t", joins=[("ab", "t")]),
            {"join:a+b:t": ({"a"}, False)},
            {"join:a+b:t": ({"a"}, False)},
            None,
        ),
        # keys
        (edged("a", renamed_keys={"w": "x"}), {"w": 3}, {"x": 3}, ["x"]),
        (edged("a", renamed_keys={"w": None}), {"w": 3}, {"w": 3}, None),
        (edged("a"), {"w": 3}, {"w": 3}, None),
    ],
)
def test_what_becomes_of_a_value(program: Program, values: Any, expected: Any, updated: Any) -> None:
    loaded = left(values)
    if "x" in values:
        loaded.updated_channels = ["x"]  # what waits for the end was not told of
    found = taken(program, loaded)
    assert loaded.values == expected
    assert found.missing == []
    moved = [name for name in expected if name not in values or expected[name] != values[name]]
    assert list(found.moved) == moved
    assert list(found.left) == [name for name in values if name not in expected]
    assert all(loaded.versions[name] > 1 for name in found.left)
    assert loaded.updated_channels is not None
    assert set(updated or moved) <= set(loaded.updated_channels)
    # Once more, as after a crash before anything was stored: nothing else happens.
    again = left({**loaded.values})
    taken(program, again)
    assert again.values == loaded.values


def test_of_two_values_the_newer_one_counts() -> None:
    program = edged("c", aliases={"c": ["a", "b"]})
    for versions, expected in (((2, 1), "old"), ((1, 2), "newer")):
        loaded = left({"branch:to:a": "old", "branch:to:b": "newer"})
        loaded.versions.update(zip(("branch:to:a", "branch:to:b"), versions, strict=True))
        loaded.seen = {"b" if versions[0] > 1 else "a": {f"branch:to:{'b' if versions[0] > 1 else 'a'}": 1}}
        taken(program, loaded)
        assert loaded.values == {"branch:to:c": expected}
    # The channel that a rename has left behind is newer and has no value.
    loaded = left({"branch:to:b": "v"}, gone={"branch:to:a": 5})
    found = taken(program, loaded)
    assert loaded.values == {"branch:to:c": "v"}
    assert found.addresses == {"c": "b"}


@pytest.mark.parametrize("version", [3, 3.0, "00000003.0.5", "00000000000000000000000000000003.0.5"])
def test_a_new_version_is_newer_whatever_kind_the_thread_has(version: Any) -> None:
    """Also where nobody says how they are made: in a listing of a saver of the user's."""
    loaded = left({"join:a+b:t": {"a", "b"}})
    loaded.versions = {"join:a+b:t": version}
    loaded.seen = {"t": {"branch:to:t": version}}
    found = taken(edged("a", "b", "t"), loaded)
    assert loaded.values == {"branch:to:t": None}
    assert all(made > version for made in loaded.versions.values())
    assert found.missing == []


def test_what_a_node_has_seen_under_former_names() -> None:
    program = edged("b", aliases={"b": "a"})
    loaded = left({}, seen={"a": {"branch:to:a": 3, "x": 2}, "b": {"x": 4}}, gone={"branch:to:a": 3})
    found = taken(program, loaded)
    assert loaded.seen["b"] == {"branch:to:b": 3, "x": 4}
    assert list(found.seen_changed) == ["b"]
    assert found.addresses == {}
    loaded = left({"branch:to:a": None}, seen={"a": {"branch:to:a": 1}})
    found = taken(program, loaded)
    assert found.addresses == {}
    assert loaded.seen["b"] == {"branch:to:b": 1}


def test_stored_writes_go_where_their_channel_went() -> None:
    program = edged("b", "t", joins=[("b", "t")], aliases={"b": "a"}, renamed_keys={"w": "x", "v": None})
    loaded = left(
        {"branch:to:a": None},
        writes=[
            row("a", ("w", 1), ("v", 2), ("branch:to:a", None), ("join:a:t", "a"), ("__interrupt__", 3)),
            row("a", (INTERRUPT, ()), slot=-3),
            row(NULL_TASK_ID, ("branch:to:a", START), path=""),
        ],
    )
    found = taken(program, loaded)
    assert found.missing == []
    assert found.addresses == {"b": "a"}
    assert [entry.writes for entry in loaded.writes] == [
        [("x", 1), ("branch:to:b", None), ("join:b:t", "b"), ("__interrupt__", 3)],
        [(INTERRUPT, ())],
        [("branch:to:b", START)],
    ]


def test_breakpoints_that_a_thread_keeps_have_the_new_names() -> None:
    program = edged("b", "c", aliases={"b": "a"})
    kept, now = {"before": ["a", "c"], "after": "*"}, {"before": ["b", "c"], "after": "*"}
    loaded = left(
        {},
        facts={"breakpoints": kept, "other": kept},
        writes=[row(NULL_TASK_ID, (INTERRUPT, kept), slot=-3, path="")],
    )
    found = taken(program, loaded)
    assert loaded.facts == {"breakpoints": now, "other": kept}
    assert found.facts_changed == {"breakpoints": now}
    assert loaded.writes[0].writes == [(INTERRUPT, now)]
    assert found.missing == []


@pytest.mark.parametrize(
    ("values", "fields", "missing"),
    [
        ({"branch:to:z": None}, {}, [("node", "z", False)]),
        ({"branch:to:z": None}, {"seen": {"z": {"branch:to:z": 1}}}, []),
        ({}, {"gone": {"branch:to:z": 4}}, []),
        ({"branch:to:z": (None, False)}, {}, [("node", "z", False)]),
        ({"join:a+b:z": {"a", "b"}}, {}, [("node", "z", False)]),
        ({"join:a+b:z": {"a"}}, {}, []),
        ({"join:a+b:z": {"a"}, "branch:to:a": None}, {}, [("node", "z", False)]),
        ({TASKS: [Send("z", 1), Send("a", 1), Send("__end__", 1)]}, {}, [("node", "z", False)]),
        ({}, {"writes": [row("a", ("branch:to:z", None))]}, [("node", "z", True)]),
        ({}, {"writes": [row("a", (TASKS, Send("z", 1)))]}, [("node", "z", True)]),
        ({}, {"writes": [row("a", ("w", 1))]}, [("key", "w", True)]),
        ({}, {"writes": [row("z", (INTERRUPT, ()), slot=-3)]}, [("node", "z", False)]),
        ({"x": 1}, {"facts": {"graph": {"id": "?", "nodes": {"z": ["x"]}}}}, [("node", "z", False)]),
        ({"x": 1}, {"facts": {"graph": {"id": "?", "nodes": {"z": ["x"]}}}, "seen": {"z": {"x": 1}}}, []),
        ({"w": 1}, {}, []),
    ],
)
def test_what_is_missing(values: Any, fields: Any, missing: Any) -> None:
    found = taken(edged("a", "b"), left(values, **fields))
    assert [(one.kind, one.name, one.from_result) for one in found.missing] == missing
    assert all(one.blocks and one.thread_id == "thread" and one.checkpoint_id == "stored-0" for one in found.missing)
    assert found.unseen == (["w"] if "w" in values else [])


def test_results_are_no_matter_to_a_replay() -> None:
    found = taken(edged("a"), left({"branch:to:z": None}, writes=[row("a", ("w", 1))]))
    assert [one.name for one in redeploy.in_the_way(found.missing, results=True)] == ["z", "w"]
    assert [one.name for one in redeploy.in_the_way(found.missing, results=False)] == ["z"]


def test_two_nodes_cannot_become_one_while_both_are_due() -> None:
    found = taken(edged("b", aliases={"b": "a"}), left({"branch:to:a": None, "branch:to:b": None}))
    assert [one.name for one in found.missing] == ["a"]


# ---- the mark


def graph(*nodes: str, key: Any = Log, nested: Any = None, aliases: Any = (), **options: Any) -> Any:
    builder = StateGraph(key)
    for name in nodes:
        builder.add_node(name, nested or (lambda state: None), aliases=aliases, **options).add_edge(START, name)
    return builder.compile()


def test_what_the_mark_of_a_graph_tells_apart() -> None:
    def mark(made: Any) -> Any:
        return redeploy.mark_of(made.program)

    class Other(Log):
        k: int

    same = mark(graph("a", "b"))
    assert mark(graph("b", "a")) == same
    assert mark(graph("a", "b", metadata={"m": 1}, retry_policy=None)) == same
    different = [
        mark(made)
        for made in (
            graph("a"),
            graph("a", "c"),
            graph("a", "b", key=Other),
            graph("a", "b", defer=True),
            graph("a", nested=graph("x")),
            graph("a", nested=graph("y")),
            graph("a", aliases="z"),
            StateGraph(Log).add_node("a", str).add_edge(START, "a").compile(renamed_keys={"o": "l"}),
        )
    ]
    assert len({same, *different}) == len(different) + 1
    assert all(isinstance(one, str) and len(one) == 24 for one in different)


def test_a_hand_made_graph_also_leaves_what_wakes_its_nodes() -> None:
    program = dummy_program({"a": node("x"), "b": node("y", on=["y", "z"])})
    assert redeploy.mark_of(program)["nodes"] == {"a": ["x"], "b": ["y", "z"]}
    assert redeploy.mark_of(program) is redeploy.mark_of(program)


def test_the_mark_is_the_same_in_every_process() -> None:
    code = (
        "from typing import TypedDict\n"
        "from pregel.graph import StateGraph\n"
        "from pregel.engine.redeploy import mark_of\n"
        "class S(TypedDict):\n    a: int\n    b: str\n"
        "g = StateGraph(S)\n"
        "for n in 'xyz': g.add_node(n, lambda s: None).add_edge('__start__', n)\n"
        "g.add_node('j', lambda s: None, aliases=['k', 'l']).add_edge(['x', 'y', 'z'], 'j')\n"
        "print(mark_of(g.compile().program))"
    )
    root = str(Path(__file__).parents[2])
    marks = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": root},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(marks) == 1
