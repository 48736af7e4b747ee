"""The scope of an attempt: what it forwards, when it refuses, and the context that holds it."""

import threading
from contextlib import suppress
from contextvars import copy_context

import pytest

from pregel._scope import TaskScope, current, current_or_none, enter
from pregel.errors import AttemptClosedError
from pregel.types import TimeoutPolicy


class Host:
    """Answers with what it was asked, and counts."""

    def __init__(self):
        self.asked = []
        self.time = 100.0

    def config_of(self, scope):
        self.asked.append("config")
        return {"scope": scope}

    def runtime_of(self, scope):
        self.asked.append("runtime")
        return ["runtime", scope]

    def ask(self, scope, value, response_schema, deadline=None):
        return (scope, value, response_schema)

    def read(self, scope, select, writes):
        return (scope, select, writes)

    def custom(self, scope, value):
        self.asked.append(value)

    def say(self, scope, message, about, *, once):
        self.asked.append((message, about, once))

    def spawn(self, scope, node, argument):
        return (scope, node, argument)

    def now(self):
        self.time += 1
        return self.time


class Activation:
    name = "a"
    node = None
    input = 3
    timeout = None


def scope_of(parent=None, timeout=None, attempt=1):
    task = Activation()
    task.timeout = timeout
    return TaskScope(Host(), task, parent, attempt)


def test_it_forwards_to_the_host():
    scope = scope_of()
    assert scope.ask("?") == (scope, "?", None)
    assert scope.ask("?", int) == (scope, "?", int)
    assert scope.read("x") == (scope, "x", None)
    assert scope.read(["x"], [("x", 1)]) == (scope, ["x"], [("x", 1)])
    assert scope.spawn("node", 1) == (scope, "node", 1)
    scope.emit("chunk")
    scope.say("message")
    scope.say("message", {"a": 1}, once=True)
    assert scope.host.asked == ["chunk", ("message", None, False), ("message", {"a": 1}, True)]


def test_config_and_runtime_are_made_once_and_only_when_asked_for():
    scope = scope_of()
    assert scope.host.asked == []
    assert scope.config is scope.config
    assert scope.runtime is scope.runtime
    assert scope.host.asked == ["config", "runtime"]


def test_side_writes_are_kept_in_order():
    scope = scope_of()
    assert scope.writes is None
    scope.write("x", 1)
    scope.write("x", 2)
    assert scope.writes == [("x", 1), ("x", 2)]


USES = {
    "ask": lambda scope: scope.ask("?"),
    "emit": lambda scope: scope.emit(1),
    "say": lambda scope: scope.say("message"),
    "beat": lambda scope: scope.beat(),
    "write": lambda scope: scope.write("x", 1),
    "spawn": lambda scope: scope.spawn("node", 1),
    "check": lambda scope: scope.check(),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("closed", ["own", "parent", "grandparent"])
def test_a_closed_attempt_refuses(use, closed):
    grandparent = scope_of()
    parent = scope_of(grandparent)
    scope = scope_of(parent, attempt=2)
    USES[use](scope)
    {"own": scope, "parent": parent, "grandparent": grandparent}[closed].close()
    with pytest.raises(AttemptClosedError):
        USES[use](scope)


def test_a_refusal_gets_past_except_exception():
    scope = scope_of()
    scope.close()

    def careless():
        with suppress(Exception):
            scope.emit(1)

    with pytest.raises(AttemptClosedError):
        careless()


def test_a_closed_parent_does_not_close_by_its_children():
    parent = scope_of()
    scope_of(parent).close()
    parent.check()


@pytest.mark.parametrize(
    ("timeout", "use", "moves"),
    [
        (TimeoutPolicy(idle_timeout=1.0), "emit", True),
        (TimeoutPolicy(idle_timeout=1.0), "beat", True),
        (TimeoutPolicy(idle_timeout=1.0, refresh_on="heartbeat"), "emit", False),
        (TimeoutPolicy(idle_timeout=1.0, refresh_on="heartbeat"), "beat", True),
        (None, "emit", False),
    ],
)
def test_what_counts_as_progress(timeout, use, moves):
    scope = scope_of(timeout=timeout)
    scope.moved_at = 50.0
    USES[use](scope)
    assert (scope.moved_at > 50.0) is moves


@pytest.mark.parametrize("use", ["write", "spawn", "say"])
def test_writes_and_children_count_as_progress_too(use):
    scope = scope_of(timeout=TimeoutPolicy(idle_timeout=1.0))
    scope.moved_at = 50.0
    USES[use](scope)
    assert scope.moved_at > 50.0


def test_nobody_watches():
    scope = scope_of(timeout=TimeoutPolicy(idle_timeout=1.0))
    scope.emit(1)
    scope.beat()
    assert scope.moved_at == 0.0


# ---- the context


def test_the_current_scope_is_that_of_the_context():
    scope, inner = scope_of(), scope_of()

    def run():
        enter(scope)
        assert current() is current_or_none() is scope
        copy_context().run(enter, inner)
        assert current() is scope

    copy_context().run(run)
    assert current_or_none() is None


def test_there_is_none_outside():
    with pytest.raises(RuntimeError, match=r"asker\(\)"):
        current("asker()")


def test_a_thread_without_the_context_has_none():
    seen = []

    def run():
        enter(scope_of())
        bare = threading.Thread(target=lambda: seen.append(current_or_none()))
        own = threading.Thread(target=copy_context().run, args=(lambda: seen.append(current_or_none()),))
        for thread in (bare, own):
            thread.start()
            thread.join()

    copy_context().run(run)
    assert seen[0] is None
    assert isinstance(seen[1], TaskScope)


def test_ending_an_attempt_stops_what_runs_inside_it():
    scope, stopped = TaskScope(Host(), None, None), []

    def first():
        stopped.append("first")

    def second():
        stopped.append("second")

    scope.encloses(first)
    scope.encloses(second)
    scope.releases(first)
    scope.releases(first)
    scope.close()
    scope.close()
    assert stopped == ["second"]
    scope.releases(second)
    scope.encloses(first)
    scope.releases(first)
    scope.close()
    assert stopped == ["second"]


def test_an_attempt_inside_one_that_is_over_is_over():
    outer = TaskScope(Host(), None, None)
    inner = TaskScope(Host(), None, outer)
    assert not inner.is_over()
    outer.close()
    assert inner.is_over()
    assert not inner.closed
