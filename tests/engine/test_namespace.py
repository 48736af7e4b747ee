"""Addresses of nested runs: made, taken apart, left upwards."""

import pytest

from pregel.engine import namespace


@pytest.mark.parametrize(("ns", "expected"), [("", "a:1"), ("p:9", "p:9|a:1"), ("p:9|2", "p:9|2|a:1")])
def test_task_ns(ns, expected):
    assert namespace.task_ns(ns, "a", "1") == expected


def test_the_first_nested_run_of_a_task_lives_at_the_task():
    assert [namespace.nested_ns("a:1", n) for n in range(3)] == ["a:1", "a:1|1", "a:1|2"]


@pytest.mark.parametrize(("ns", "expected"), [("", ()), ("a:1", ("a:1",)), ("a:1|1|b:2", ("a:1", "1", "b:2"))])
def test_path_of(ns, expected):
    assert namespace.path_of(ns) == expected


@pytest.mark.parametrize(("ns", "expected"), [("", ""), ("a:1", "a"), ("a:1|1|b:2", "a|1|b"), ("a|b:2", "a|b")])
def test_stable_drops_task_ids_and_keeps_counters(ns, expected):
    assert namespace.stable(ns) == expected


@pytest.mark.parametrize(
    ("ns", "expected"), [("", ()), ("a:1", ("a",)), ("a:1|12|b:2", ("a", "b")), ("a|b:2", ("a", "b"))]
)
def test_names_of_knows_no_counters(ns, expected):
    assert namespace.names_of(ns) == expected


@pytest.mark.parametrize(
    ("ns", "expected"),
    [
        ("", ""),
        ("a:1", ""),
        ("a:1|1", ""),
        ("a:1|b:2", "a:1"),
        ("a:1|b:2|3", "a:1"),
        ("a:1|1|b:2", "a:1|1"),
        ("a:1|1|b:2|2", "a:1|1"),
        ("7", ""),
    ],
)
def test_parent_ns_keeps_the_counter_of_the_graph_that_is_left(ns, expected):
    assert namespace.parent_ns(ns) == expected


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("", ("", "")),
        ("a:1", ("", "a")),
        ("a:1|2", ("", "a")),
        ("a:1|b:2", ("a:1", "b")),
        ("a:1|2|b:2|3", ("a:1|2", "b")),
        ("a|b:2", ("a", "b")),
    ],
)
def test_the_graph_and_node_of_a_task(task, expected):
    assert namespace.around(task) == expected
