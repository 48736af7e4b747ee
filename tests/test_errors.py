"""The exception tree, what exceptions carry, and how values are shown in them."""

import pickle

import pytest

from pregel import errors
from pregel.errors import (
    ErrorCode,
    GraphBubbleUp,
    GraphChangedError,
    GraphDrained,
    GraphInterrupt,
    Interrupt,
    InvalidUpdateError,
    NodeCancelledError,
    NodeError,
    NodeTimeoutError,
    ParentCommand,
    StoredFailure,
    Stranded,
    UnknownInterruptError,
    shown,
)
from tests.support.dummies import dummy_loaded


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("GraphRecursionError", RecursionError),
        ("InvalidUpdateError", Exception),
        ("EmptyInputError", Exception),
        ("EmptyChannelError", Exception),
        ("TaskNotFound", Exception),
        ("StateMutationError", Exception),
        ("EngineBug", AssertionError),
        ("GraphBubbleUp", Exception),
        ("GraphInterrupt", GraphBubbleUp),
        ("ParentCommand", GraphBubbleUp),
        ("GraphDrained", GraphBubbleUp),
        ("NodeInterrupt", GraphInterrupt),
        ("NodeTimeoutError", Exception),
        ("NodeCancelledError", Exception),
        ("StoredFailure", Exception),
        ("UnknownInterruptError", Exception),
        ("GraphChangedError", Exception),
    ],
)
def test_the_tree(name, base):
    cls = getattr(errors, name)
    assert issubclass(cls, base)
    if base is Exception:
        assert not issubclass(cls, (GraphBubbleUp, RuntimeError)) or cls is GraphBubbleUp


def test_a_closed_attempt_is_no_ordinary_exception():
    assert not issubclass(errors.AttemptClosedError, Exception)


def test_a_timeout_of_a_node_is_not_the_builtin_one():
    assert not issubclass(NodeTimeoutError, TimeoutError)


def test_everything_is_exported():
    public = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert public <= set(errors.__all__)


class Broken:
    def __repr__(self):
        raise ValueError


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), ("a", "'a'"), ("x" * 300, "'" + "x" * 196 + "..."), (Broken(), "<Broken whose repr raised ValueError>")],
)
def test_shown(value, text):
    assert shown(value) == text


def test_shown_to_a_length():
    assert shown("abcdefgh", 8) == "'abcd..."
    assert shown("abcdef", 8) == "'abcdef'"


# ---- questions


def test_an_interrupt():
    plain, typed = Interrupt("?", "id"), Interrupt("?", "id", {"type": "string"})
    assert repr(plain) == "Interrupt(value='?', id='id')"
    assert repr(typed) == "Interrupt(value='?', id='id', response_schema={'type': 'string'})"
    assert plain.as_event() == {"value": "?", "id": "id"}
    assert typed.as_event() == {"value": "?", "id": "id", "response_schema": {"type": "string"}}
    assert plain == Interrupt("?", "id")
    assert plain != typed
    assert Interrupt("?").id == errors.PLACEHOLDER_ID


def test_interrupts_travel_in_exceptions():
    one, two = Interrupt(1), Interrupt(2)
    assert GraphInterrupt([one, two]).interrupts == GraphInterrupt([one, two]).args[0] == (one, two)
    assert GraphInterrupt().interrupts == ()


def test_a_node_interrupt_is_one_question():
    error = errors.NodeInterrupt("?")
    assert [(question.value, question.id) for question in error.interrupts] == [("?", errors.PLACEHOLDER_ID)]


def test_control_flow_carries_its_cause():
    assert ParentCommand("command").args == ("command",)
    assert GraphDrained().reason == "shutdown"
    assert str(GraphDrained("deploy")) == "Graph drained: deploy"


# ---- failures


def test_an_invalid_update():
    error = InvalidUpdateError("text", code=ErrorCode.INVALID_CONCURRENT_GRAPH_UPDATE, key="x", count=2)
    assert (error.key, error.count) == ("x", 2)
    assert str(error) == "text [INVALID_CONCURRENT_GRAPH_UPDATE]"
    bare = InvalidUpdateError()
    assert (str(bare), bare.code, bare.key, bare.count) == ("", None, None, None)


def test_codes_are_their_names():
    assert all(code.value == code.name for code in ErrorCode)


@pytest.mark.parametrize(
    ("kind", "limits", "timeout"),
    [("run", {"run_timeout": 1.0}, 1.0), ("idle", {"run_timeout": 1.0, "idle_timeout": 0.5}, 0.5)],
)
def test_a_timeout(kind, limits, timeout):
    error = NodeTimeoutError("a", 2.0, kind=kind, **limits)
    assert (error.node, error.elapsed, error.kind, error.timeout) == ("a", 2.0, kind, timeout)
    assert (error.run_timeout, error.idle_timeout) == (limits.get("run_timeout"), limits.get("idle_timeout"))
    assert all(part in str(error) for part in ("'a'", kind, "2.000s", f"{timeout:.3f}s"))


@pytest.mark.parametrize(
    ("kind", "limits"), [("run", {"idle_timeout": 1.0}), ("idle", {"run_timeout": 1.0}), ("run", {})]
)
def test_a_timeout_needs_the_limit_that_fired(kind, limits):
    with pytest.raises(ValueError, match=kind):
        NodeTimeoutError("a", 2.0, kind=kind, **limits)


def test_what_a_handler_is_told():
    error = OSError()
    assert NodeError("a", error) == NodeError("a", error)
    assert (NodeError("a", error).node, NodeError("a", error).error) == ("a", error)


def test_stored_failures():
    error = OSError("boom")
    assert StoredFailure.of(error) is error
    stored = StoredFailure.of("OSError('boom')")
    assert (type(stored), str(stored)) == (StoredFailure, "OSError('boom')")


def test_a_cancelled_node_is_named():
    assert NodeCancelledError("a").node == "a"


def test_an_answer_to_no_question():
    error = UnknownInterruptError("text", reason="not_pending", interrupt_ids=["a"], pending_ids=["b"])
    assert (error.reason, error.interrupt_ids, error.pending_ids, str(error)) == ("not_pending", ("a",), ("b",), "text")


@pytest.mark.parametrize(
    "error",
    [
        GraphInterrupt([Interrupt(1, "id")]),
        GraphDrained("deploy"),
        ParentCommand("command"),
        StoredFailure("text"),
        errors.GraphRecursionError("text"),
        errors.EmptyInputError("text"),
    ],
)
def test_errors_cross_process_boundaries(error):
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert str(copied) == str(error)


@pytest.mark.parametrize(
    "error",
    [
        InvalidUpdateError("text", code=ErrorCode.INVALID_CONCURRENT_GRAPH_UPDATE, key="x", count=2),
        NodeTimeoutError("a", 2.0, kind="run", run_timeout=1.0),
        NodeCancelledError("a"),
        UnknownInterruptError("text", reason="ambiguous"),
    ],
)
def test_errors_with_named_parts_cross_process_boundaries(error):
    copied = pickle.loads(pickle.dumps(error))
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)


def test_a_changed_graph_names_what_is_missing():
    def finding(kind, name, known):
        return Stranded.of(dummy_loaded(values={}, checkpoint_ns="box:1"), kind, name, "it was due", known)

    missing = [finding("node", "review", ["start", "revise", "__x__"]), finding("key", "draft", [])]
    error = GraphChangedError(missing)
    for part in ("thread 'thread'", "'box:1'", "stored-0", "'revise'", "aliases=['review']", "renamed_keys", "'draft'"):
        assert part in str(error)
    copied = pickle.loads(pickle.dumps(error))
    assert copied.missing == error.missing == tuple(missing)
    assert str(copied) == str(error)


def test_the_name_that_was_meant() -> None:
    known = ["summarize", "plan", "__start__"]
    assert errors.closest("sumarize", known) == "summarize"
    assert errors.closest("zzz", known) is None
    assert errors.closest(("plan",), ["plan", "('plan',)"]) == "('plan',)"
    assert "'summarize'" in errors.nearest("sumarize", known)
    assert "'plan'" in errors.nearest("zzz", known)
    assert "__start__" not in errors.nearest("zzz", known)
    assert "none" in errors.nearest("zzz", [])
