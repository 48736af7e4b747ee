"""Where nested runs are stored, and which graph each namespace is of."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from pregel.pregel import _places as places
from tests.support.dummies import dummy_loaded


def graph(*channels: str, checkpointer: Any = None, **nodes: list[Any]) -> Any:
    """A stand-in: channels by name, nodes by name with the graphs that they hold."""
    held = {name: SimpleNamespace(subgraphs=inner) for name, inner in nodes.items()}
    known = dict.fromkeys(channels)
    program = SimpleNamespace(current={}, renamed_keys={}, nodes=held, channels=known)
    return SimpleNamespace(checkpointer=checkpointer, channels=known, nodes=held, program=program)


LEAF, OTHER, FORGETFUL, STATEFUL = graph("l"), graph("o"), graph("l", checkpointer=False), graph("l", checkpointer=True)
MIDDLE = graph("m", x=[LEAF, OTHER])
ROOT = graph("r", a=[MIDDLE, LEAF], b=[FORGETFUL], c=[LEAF, MIDDLE, FORGETFUL])


@pytest.mark.parametrize(
    ("ns", "expected"),
    [
        ("", [ROOT]),
        ("a:1", [MIDDLE, LEAF]),
        ("a:1|2", [MIDDLE, LEAF]),
        ("a[k]:1", [MIDDLE, LEAF]),
        ("a:1|x:2", [LEAF, OTHER]),
        ("a", [MIDDLE, LEAF]),
        ("b:1", []),
        ("zz", []),
        ("a:1|zz:2", []),
    ],
)
def test_graphs_that_may_live_at_a_namespace(ns, expected):
    assert places.graphs_at(ROOT, ns) == expected


def test_a_node_whose_name_looks_like_a_key():
    assert places.graphs_at(graph("r", **{"a[k]": [LEAF], "a": [OTHER]}), "a[k]:1") == [LEAF]


@pytest.mark.parametrize(
    ("graphs", "ns", "versions", "seen", "expected"),
    [
        ([LEAF], "a:1", ["zz"], [], LEAF),
        ([LEAF, OTHER], "a:1", ["o"], [], OTHER),
        ([LEAF, OTHER], "a:1", ["zz"], [], LEAF),
        ([LEAF, STATEFUL], "a:1|1", ["l"], [], LEAF),
        ([LEAF, STATEFUL], "a|1", ["l"], [], STATEFUL),
        ([MIDDLE, graph("m", y=[])], "a:1", ["m"], ["y", "__input__"], None),
    ],
)
def test_whose_state_it_is(graphs, ns, versions, seen, expected):
    loaded = dummy_loaded(
        checkpoint_id="1", checkpoint_ns=ns, versions=dict.fromkeys(versions, 1), seen={n: {} for n in seen}
    )
    assert places.owner(graphs, loaded) is (graphs[1] if expected is None else expected)


def test_nothing_stored_is_anybodys():
    assert places.owner([LEAF, OTHER], dummy_loaded(checkpoint_id=None)) is LEAF


def test_calls_of_a_task_in_order():
    stored = ["a:1|10", "a[z]:1", "a:1|2", "a:1", "a:1|x:5", "a:2", "b:1", "a[c]:1|1", "a[c]:1", "a:1"]
    assert places.calls_in_order(["a:1"], stored) == ["a:1", "a:1|2", "a:1|10", "a[c]:1", "a[c]:1|1", "a[z]:1"]
    assert places.calls_in_order(["a:1", "a"], ["a|1", "a:1"]) == ["a:1", "a|1"]


class Store:
    """Checkpoints of one namespace by id; the newest under None."""

    def __init__(self, *entries: tuple[str, str | None, str, int | None]) -> None:
        self.by_id: dict[str | None, Any] = {
            id_: dummy_loaded(checkpoint_id=id_, parent_id=parent, source=source, up_rev=up)
            for id_, parent, source, up in entries
        }
        self.by_id[None] = self.by_id[entries[-1][0]]

    def load(self, config: Any) -> Any:
        return self.by_id[config["configurable"].get("checkpoint_id")]

    async def aload(self, config: Any) -> Any:
        return self.load(config)


RUN = [("1", None, "input", 5), ("2", "1", "loop", 5)]


@pytest.mark.parametrize(
    ("entries", "found", "expected"),
    [
        ([*RUN, ("3", "2", "update", 9)], "2", "3"),
        ([*RUN, ("3", "2", "update", 9), ("4", "3", "update", 9)], "2", "4"),
        ([*RUN, ("3", "2", "update", None)], "2", "3"),  # savers that do not know what it was made under
        ([*RUN, ("3", "2", "update", 8)], "2", None),  # made on another line of the root graph
        ([*RUN, ("3", "2", "update", 9)], "1", None),  # after a run that this line does not know
        ([*RUN, ("3", "1", "update", 9)], "2", None),
        ([*RUN, ("3", "2", "loop", 9)], "2", None),
        ([("1", None, "update", 9)], None, "1"),
        ([("1", None, "input", 9), ("2", "1", "update", 9)], None, None),
    ],
)
def test_an_edit_after_what_was_found(entries, found, expected):
    store = Store(*entries)
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "a"}}
    before = dummy_loaded(checkpoint_id=found)
    assert places.ask(store, places.edit_after(config, before, 9)) == expected
    assert asyncio.run(places.aask(store, places.edit_after(config, before, 9))) == expected
