"""How configs become one, and the accessors for code inside a node."""

import copy
import subprocess
import sys
from contextvars import copy_context
from types import SimpleNamespace

import pytest

from pregel import config as configs
from pregel._scope import TaskScope, enter
from pregel.config import get_config, get_store, get_stream_writer
from pregel.constants import SCOPE_KEY


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        ([], {}),
        ([None, {}], {}),
        ([{"tags": ["a"]}, {"tags": ["b", "a"]}], {"tags": ["a", "b", "a"]}),
        ([{"metadata": {"a": 1, "b": 1}}, {"metadata": {"b": 2}}], {"metadata": {"a": 1, "b": 2}}),
        ([{"configurable": {"a": 1}}, {"configurable": {"b": 2}}], {"configurable": {"a": 1, "b": 2}}),
        ([{"recursion_limit": 1}, {"recursion_limit": 2}], {"recursion_limit": 2}),
        ([{"recursion_limit": 1}, {"recursion_limit": None}], {"recursion_limit": 1}),
        ([{"tags": ["a"]}, {"tags": []}], {"tags": ["a"]}),
        ([{"metadata": {"a": 1}}, {"metadata": {}}], {"metadata": {"a": 1}}),
        ([{"run_name": "r", "run_id": "i"}], {"run_name": "r", "run_id": "i"}),
        ([{"thread_id": "t"}], {"configurable": {"thread_id": "t"}}),
        ([{"configurable": {"a": 1}, "else": 0}], {"configurable": {"a": 1, "else": 0}}),
        ([{"max_concurrency": 0}], {"max_concurrency": 0}),
    ],
)
def test_merge(given, merged):
    before = copy.deepcopy(given)
    assert configs.merge(*given) == merged
    assert given == before


def test_merging_shares_no_dict_with_its_inputs():
    given = {"configurable": {"a": 1}, "metadata": {"m": 1}, "tags": ["t"]}
    merged = configs.merge(given)
    merged["configurable"]["b"] = merged["metadata"]["b"] = 2
    merged["tags"].append("b")
    assert given == {"configurable": {"a": 1}, "metadata": {"m": 1}, "tags": ["t"]}


def test_a_key_that_is_not_configs_never_edits_the_callers_dict():
    given = {"configurable": {"a": 1}}
    assert configs.merge(given, {"else": 1}) == {"configurable": {"a": 1, "else": 1}}
    assert given == {"configurable": {"a": 1}}


def test_callbacks():
    class Manager:
        """As far as managers of other libraries are alike."""

        def __init__(self, *handlers):
            self.handlers = list(handlers)

    class Growing(Manager):
        def copy(self):
            return Growing(*self.handlers)

        def add_handler(self, handler, inherit):
            self.handlers.append(handler)

    one, other, manager = object(), object(), Manager()

    def merged(*given):
        return configs.merge(*({"callbacks": callbacks} for callbacks in given)).get("callbacks")

    assert merged([one], [other, one]) == [one, other]
    assert merged(manager) is manager
    assert merged([one], manager) is manager
    assert merged(manager, None) is manager
    assert merged(None) is None
    assert merged(one) == merged((one,)) == merged(one, one) == [one]
    growing = Growing(one)
    assert merged(growing, [one, other]).handlers == merged([other], growing).handlers == [one, other]
    assert growing.handlers == [one]


def test_what_a_nested_run_takes_over():
    ambient = {
        "run_name": "r",
        "run_id": "i",
        "tags": ["t"],
        "metadata": {"user": 1, "langgraph_step": 3},
        "configurable": {"thread_id": "t"},
    }
    assert configs.inherited(ambient) == {
        "tags": ["t"],
        "metadata": {"user": 1},
        "configurable": {"thread_id": "t"},
    }
    assert ambient["metadata"] == {"user": 1, "langgraph_step": 3}
    assert configs.inherited({}) == {"metadata": {}}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, False),
        ({}, False),
        ({"configurable": None}, False),
        ({"configurable": {"user": 1}}, False),
        ({"configurable": {"thread_id": ""}}, False),
        ({"configurable": {"thread_id": "t"}}, True),
        ({"configurable": {"checkpoint_id": "c"}}, True),
        ({"configurable": {"checkpoint_ns": "a:1"}}, True),
        ({"configurable": {"checkpoint_map": {"": "c"}}}, True),
    ],
)
def test_whether_a_config_names_a_place(config, expected):
    assert configs.addresses(config) is expected


def scope_with(store=None):
    runtime = SimpleNamespace(store=store)
    chunks = []
    host = SimpleNamespace(
        config_of=lambda scope: {"tags": ["mine"]},
        runtime_of=lambda scope: runtime,
        custom=lambda scope, value: chunks.append(value),
        chunks=chunks,
    )
    return TaskScope(host, SimpleNamespace(name="a", node=None, input=None, timeout=None), None)


def test_the_handle_of_a_config():
    scope = scope_with()
    assert configs.handle_of({"configurable": {SCOPE_KEY: scope}}) is scope
    assert configs.handle_of(None) is None
    assert configs.handle_of({"configurable": {}}) is None
    assert configs.handle_of({"configurable": {SCOPE_KEY: "forged"}}) is None
    scope.close()
    assert configs.handle_of({"configurable": {SCOPE_KEY: scope}}) is None


def inside(scope, function):
    def run():
        enter(scope)
        return function()

    return copy_context().run(run)


def test_accessors_inside_a_node():
    store = object()
    scope = scope_with(store)
    assert inside(scope, get_config) == {"tags": ["mine"]}
    assert inside(scope, get_store) is store
    assert inside(scope_with(), get_store) is None
    inside(scope, lambda: get_stream_writer()("chunk"))
    assert scope.host.chunks == ["chunk"]


@pytest.mark.parametrize("accessor", [get_config, get_store, get_stream_writer])
def test_accessors_outside_a_node(accessor):
    with pytest.raises(RuntimeError, match=accessor.__name__):
        accessor()


def test_the_default_step_limit_can_be_set_from_outside():
    program = "from pregel.config import DEFAULT_RECURSION_LIMIT as n; print(n)"

    def limit(environment):
        return subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    import os

    plain = {key: value for key, value in os.environ.items() if key != "LANGGRAPH_DEFAULT_RECURSION_LIMIT"}
    assert limit(plain) == "10007"
    assert limit({**plain, "LANGGRAPH_DEFAULT_RECURSION_LIMIT": "77"}) == "77"
