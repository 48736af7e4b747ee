"""User values: their fields, equality, checks, and stored forms."""

import copy
import pickle
from datetime import timedelta
from types import SimpleNamespace

import pytest

from checkpoint.base import BaseCheckpointSaver
from checkpoint.memory import InMemorySaver
from checkpoint.serde.jsonplus import JsonPlusSerializer
from pregel import types
from pregel.errors import Interrupt
from pregel.types import (
    CachePolicy,
    Command,
    GraphOutput,
    Overwrite,
    PregelTask,
    RetryPolicy,
    Send,
    StateSnapshot,
    StateUpdate,
    TimeoutPolicy,
    TracePolicy,
    ensure_valid_checkpointer,
    interrupt,
    omit_payload,
)
from pregel.warnings import PregelDeprecationWarning


def test_everything_is_exported():
    assert set(types.__all__) <= set(vars(types))


# ---- Send


def test_a_send():
    send = Send("a", {"x": 1})
    assert (send.node, send.arg, send.timeout) == ("a", {"x": 1}, None)
    assert repr(send) == "Send(node='a', arg={'x': 1})"
    assert repr(Send("a", 1, timeout=2)) == f"Send(node='a', arg=1, timeout={TimeoutPolicy(run_timeout=2.0)!r})"


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        (Send("a", 1), True),
        (Send("b", 1), False),
        (Send("a", 2), False),
        (Send("a", 1, timeout=1), False),
        (("a", 1), False),
    ],
)
def test_equality_of_sends(other, equal):
    assert (Send("a", 1) == other) is equal
    assert (Send("a", 1) != other) is not equal


def test_sends_can_be_hashed_if_their_argument_can():
    assert len({Send("a", 1), Send("a", 1), Send("a", 1, timeout=2)}) == 2
    with pytest.raises(TypeError):
        hash(Send("a", []))


def test_the_name_of_a_send_is_a_plain_string():
    class Name(str):
        def __str__(self):
            return "else"

    assert type(Send(Name("a"), 1).node) is str
    assert Send(Name("a"), 1).node == "a"


@pytest.mark.parametrize("value", [Send("a", {"x": 1}), Send("a", 1, timeout=TimeoutPolicy(idle_timeout=2.0))])
def test_sends_can_be_copied(value):
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == copy.copy(value) == value


# ---- policies


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        (None, None),
        (2, TimeoutPolicy(run_timeout=2.0)),
        (0.5, TimeoutPolicy(run_timeout=0.5)),
        (timedelta(minutes=1), TimeoutPolicy(run_timeout=60.0)),
        (TimeoutPolicy(), None),
        (TimeoutPolicy(idle_timeout=timedelta(seconds=3)), TimeoutPolicy(idle_timeout=3.0)),
        (
            TimeoutPolicy(run_timeout=1, idle_timeout=2, refresh_on="heartbeat"),
            TimeoutPolicy(run_timeout=1.0, idle_timeout=2.0, refresh_on="heartbeat"),
        ),
    ],
)
def test_time_limits(given, policy):
    assert TimeoutPolicy.coerce(given) == policy


def test_a_policy_with_plain_numbers_is_kept():
    policy = TimeoutPolicy(run_timeout=1.5)
    assert TimeoutPolicy.coerce(policy) is policy


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), timedelta(0)])
def test_wrong_time_limits(wrong):
    with pytest.raises(ValueError, match="timeout"):
        TimeoutPolicy.coerce(wrong)
    with pytest.raises(ValueError, match="idle_timeout"):
        TimeoutPolicy(idle_timeout=wrong)


def test_a_wrong_kind_of_progress():
    with pytest.raises(ValueError, match="refresh_on"):
        TimeoutPolicy(run_timeout=1.0, refresh_on="never")  # type: ignore[arg-type]


def test_retry_defaults():
    policy = RetryPolicy()
    assert policy[:5] == (0.5, 2.0, 128.0, 3, True)
    assert policy.retry_on is types.default_retry_on


def test_cache_and_trace_policies():
    assert (CachePolicy().key_func, CachePolicy().ttl) == (None, None)
    assert (TracePolicy().process_inputs, TracePolicy().process_outputs) == (None, None)
    assert omit_payload("secret") == {}


# ---- Command and Overwrite


def test_a_command_shows_what_was_given():
    assert repr(Command()) == "Command()"
    assert repr(Command(update={"x": 1}, goto="a")) == "Command(update={'x': 1}, goto='a')"
    assert Command.PARENT == "__parent__"
    assert Command(goto="a") == Command(goto="a")
    assert (Command().graph, Command().update, Command().resume, Command().goto) == (None, None, None, ())


def test_commands_are_frozen_and_by_keyword():
    with pytest.raises(TypeError):
        Command("parent")
    with pytest.raises(AttributeError):
        Command().goto = "a"


def test_overwrites():
    assert Overwrite([1]) == Overwrite([1])
    assert (Overwrite(1).value, Overwrite(1).type) == (1, "__overwrite__")


# ---- what is handed out


def test_shapes_of_tuples():
    assert StateUpdate({"x": 1}) == ({"x": 1}, None, None)
    assert PregelTask("id", "a", ("p",)) == ("id", "a", ("p",), None, (), None, None)
    assert StateSnapshot._fields == (
        "values",
        "next",
        "config",
        "metadata",
        "created_at",
        "parent_config",
        "tasks",
        "interrupts",
    )


def test_a_graph_output():
    asked = Interrupt("?")
    output = GraphOutput({"x": 1}, (asked,))
    assert (output.value, output.interrupts) == ({"x": 1}, (asked,))
    with pytest.warns(PregelDeprecationWarning):
        assert output["x"] == 1
    with pytest.warns(PregelDeprecationWarning):
        assert output["__interrupt__"] == [asked]
    with pytest.warns(PregelDeprecationWarning):
        assert "x" in output
    with pytest.warns(PregelDeprecationWarning):
        assert "__interrupt__" in output
    with pytest.warns(PregelDeprecationWarning):
        assert "__interrupt__" not in GraphOutput({})


def test_a_question_outside_of_a_node():
    with pytest.raises(RuntimeError, match="interrupt"):
        interrupt("?")


# ---- savers


class Foreign:
    """A saver of another library."""

    def get_tuple(self, config):
        return None

    def put(self, *parts):
        return None


@pytest.mark.parametrize("given", [None, True, False, InMemorySaver(), Foreign()])
def test_what_can_be_a_checkpointer(given):
    assert ensure_valid_checkpointer(given) is given
    assert issubclass(InMemorySaver, BaseCheckpointSaver)


class Entered:
    def __enter__(self):
        return InMemorySaver()

    def __exit__(self, *error):
        return None


@pytest.mark.parametrize(
    ("given", "hint"),
    [("sqlite.db", False), (InMemorySaver, False), (Entered(), True), (SimpleNamespace(get_tuple=1, put=2), False)],
)
def test_what_cannot_be_a_checkpointer(given, hint):
    with pytest.raises(TypeError) as caught:
        ensure_valid_checkpointer(given)
    assert ("with" in str(caught.value)) is hint


# ---- stored forms


@pytest.mark.parametrize(
    "value",
    [
        Send("a", {"x": [1]}),
        Send("a", None, timeout=TimeoutPolicy(run_timeout=1.0, refresh_on="heartbeat")),
        Interrupt("?", "id"),
        Interrupt("?", "id", {"type": "string"}),
        Command(graph="g", update={"x": 1}, resume={"id": 2}, goto=[Send("a", 1), "b"]),
        Overwrite([1]),
        TimeoutPolicy(run_timeout=1.0, idle_timeout=2.0),
        PregelTask("id", "a", ("p", 1), interrupts=(Interrupt("?", "id"),)),
        StateSnapshot({"x": 1}, ("a",), {"configurable": {}}, None, None, None, (), ()),
    ],
)
def test_values_survive_being_stored(value):
    serde = JsonPlusSerializer()
    assert serde.loads_typed(serde.dumps_typed(value)) == value
