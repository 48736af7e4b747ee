"""Addresses of nested runs: made, taken apart, left upwards."""

import pytest

from pregel.engine import namespace


@pytest.mark.parametrize(("ns", "expected"), [("", "a:1"), ("p:9", "p:9|a:1"), ("p:9|2", "p:9|2|a:1")])
def test_task_ns(ns, expected):
    assert namespace.task_ns(ns, "a", "1") == expected


def test_the_first_nested_run_of_a_task_lives_at_the_task():
    assert [namespace.nested_ns("a:1", n) for n in range(3)] == ["a:1", "a:1|1", "a:1|2"]


@pytest.mark.parametrize(
    ("task", "call", "expected"),
    [("a:1", 0, "a[k]:1"), ("a:1", 2, "a[k]:1|2"), ("p:9|2|a:1", 0, "p:9|2|a[k]:1"), ("p|a", 1, "p|a[k]|1")],
)
def test_a_key_goes_with_the_name(task, call, expected):
    assert namespace.nested_ns(task, call, "k") == expected
    assert namespace.stable(expected) == expected.replace(":1", "").replace(":9", "")
    assert namespace.split_key(namespace.names_of(expected)[-1]) == ("a", "k")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", ("a", None)),
        ("a[k]", ("a", "k")),
        ("a[]", ("a[]", None)),
        ("[k]", ("[k]", None)),
        ("a]", ("a]", None)),
        ("a[b][k]", ("a[b]", "k")),
    ],
)
def test_a_name_as_node_and_key(name, expected):
    assert namespace.split_key(name) == expected


@pytest.mark.parametrize(
    ("ns", "expected"),
    [
        ("a:1", ("a:1", "")),
        ("a:1|2", ("a:1", "|2")),
        ("a[k]:1", ("a:1", "[k]")),
        ("p:9|1|a[k]:1|2", ("p:9|1|a:1", "[k]|2")),
        ("p|a[k]", ("p|a", "[k]")),
        ("7", ("7", "")),
    ],
)
def test_what_the_runs_of_a_task_have_in_common(ns, expected):
    assert namespace.calls_of(ns) == expected


@pytest.mark.parametrize("key", ["k", "user 5", "a-b_c.d"])
def test_keys(key):
    assert namespace.check_key(key) == key


@pytest.mark.parametrize("key", ["", "a|b", "a:b", "[", "]", None, 1, b"k"])
def test_what_is_no_key(key):
    with pytest.raises(ValueError, match="key="):
        namespace.check_key(key)


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
        ("a[k]:1|b[k]:2|1", ("a[k]:1", "b")),
    ],
)
def test_the_graph_and_node_of_a_task(task, expected):
    assert namespace.around(task) == expected
