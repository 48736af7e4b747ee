"""Which stored checkpoint a run starts from, and what it continues."""

import pytest

from checkpoint.memory import InMemorySaver
from pregel.pregel import _start
from tests.support.dummies import dummy_loaded, match
from tests.support.requests import THREAD, graph, request


def test_which_checkpoint_is_loaded():
    on = graph(checkpointer=InMemorySaver())
    named = request({"configurable": {"thread_id": "t", "checkpoint_id": "c"}}, on=on)
    assert _start.load_arguments(named) == {
        "config": {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "c"}}
    }
    newest = request(THREAD, on=on)
    assert _start.load_arguments(newest) == {"config": {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}}
    of_nested = request(
        {
            "configurable": {
                "thread_id": "t",
                "checkpoint_ns": "a:1",
                "checkpoint_id": "i",
                "checkpoint_map": {"": "c", "a:1": "i"},
            }
        },
        on=on,
    )
    assert of_nested.checkpoint_id == "c"


@pytest.mark.parametrize(
    ("checkpoint_id", "value", "is_head", "replaying", "moved_past"),
    [
        (None, None, True, False, False),
        ("c", None, True, True, False),
        ("c", None, False, True, True),
        ("c", {"x": 1}, False, False, True),
        ("c", {"x": 1}, True, False, False),
    ],
)
def test_what_a_root_run_continues(checkpoint_id, value, is_head, replaying, moved_past):
    made = request()
    made.checkpoint_id = checkpoint_id
    run = _start.run_for(graph(), made, dummy_loaded(values={"x": 1}, is_head=is_head), value)
    match(run, replaying=replaying, moved_past=moved_past)
    match(_start.run_for(graph(), made, None, value), replaying=False, moved_past=False, continues=False)
