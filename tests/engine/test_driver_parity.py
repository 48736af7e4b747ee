"""Both drivers: the same methods in the same order, and the same outcome of one scenario."""

import asyncio
import inspect
import threading
import warnings
from contextvars import ContextVar

import pytest

from checkpoint.base import CheckpointConflictError
from pregel._scope import TaskScope, current
from pregel.channels import BinaryOperatorAggregate, LastValue
from pregel.constants import TASKS
from pregel.engine.async_driver import AsyncDriver
from pregel.engine.async_storing import AsyncStoring
from pregel.engine.driver import Driver
from pregel.engine.sync_driver import SyncDriver
from pregel.engine.sync_storing import SyncStoring
from pregel.engine.workers import Gate
from pregel.errors import AttemptClosedError, GraphInterrupt, InvalidUpdateError, NodeCancelledError, NodeTimeoutError
from pregel.types import RetryPolicy, Send, TimeoutPolicy, interrupt
from pregel.warnings import PregelWarning
from tests.support.driving import LIMIT, Count, Ledger, child, drive
from tests.support.dummies import chunks_of, dummy_program, dummy_run, node, rows_of

COLOURS = ("sync", "async")
SYNC_ONLY = {"launch", "body"}
"""Primitives of the sync colour that have a namesake of another shape."""
ASYNC_ONLY = {
    "admit",
    "abody",
    "off_loop",
    "ended",
    "see_out",
    "forsake",
    "cancel_body",
    "end_late",
    "withdraw",
}
"""Primitives of the async colour: bodies are tasks of the loop, which starts them, and which can be cancelled and awaited,
also when a step has failed; sync bodies leave it."""

BOTH = pytest.mark.parametrize("colour", COLOURS)
AGAIN = RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=3, retry_on=Exception)


def add(one, other):
    return one + other


CHANNELS = {"x": LastValue(int), "y": LastValue(int), "log": BinaryOperatorAggregate(list, add)}


def program_of(**nodes):
    """Nodes by name: functions of x, or specifications."""
    made = {name: given if hasattr(given, "triggers") else node("x", fn=given) for name, given in nodes.items()}
    return dummy_program(made, CHANNELS)


def fanned(fn, count, **fields):
    """A program whose node s sends 0..count-1 to w."""
    return program_of(
        s=node(
            "x",
            fn=lambda x: None,
            write=lambda result, scope, writes: writes.extend((TASKS, Send("w", i)) for i in range(count)),
        ),
        w=node("x", on=[], fn=fn, **fields),
    )


# ---- the same methods


def methods(cls):
    return [name for name, value in vars(cls).items() if inspect.isfunction(value) or isinstance(value, staticmethod)]


PAIRS = pytest.mark.parametrize(("ours", "theirs"), [(SyncDriver, AsyncDriver), (SyncStoring, AsyncStoring)])


@PAIRS
def test_the_same_methods_in_the_same_order(ours, theirs):
    assert [name for name in methods(theirs) if name not in ASYNC_ONLY] == methods(ours)


def test_what_only_one_colour_has():
    assert set(ASYNC_ONLY) <= set(methods(AsyncDriver))
    assert set(methods(SyncDriver)) >= SYNC_ONLY


@PAIRS
def test_the_same_parameters(ours, theirs):
    for name in methods(ours):
        if name not in SYNC_ONLY:
            one = inspect.signature(getattr(ours, name)).parameters
            other = inspect.signature(getattr(theirs, name)).parameters
            assert list(one) == list(other), name


def test_what_needs_no_colour_is_written_once():
    """Neither driver repeats what both have in common, but for what `Driver` leaves to them."""
    left = {name for name in methods(Driver) if "NotImplementedError" in inspect.getsource(getattr(Driver, name))}
    assert left == {"stop", "spawn"}
    for cls in (SyncDriver, AsyncDriver):
        assert set(methods(Driver)) & set(methods(cls)) <= {"__init__", "withdraw", *left}


# ---- running


@BOTH
def test_a_run_of_three_steps(colour):
    async def second(y):
        return {"log": [y]}

    program = program_of(
        a=lambda x: {"y": x + 1}, b=node("y", fn=second if colour == "async" else lambda y: {"log": [y]})
    )
    done = drive(colour, program, 4)
    assert (done.error, done["y"], done["log"], done.run.status) == (None, 5, [5], "done")


@BOTH
@pytest.mark.parametrize("order", ["abc", "cba", "bca"])
def test_whatever_finishes_first_writes_are_in_task_order(colour, order):
    turn = {name: threading.Event() for name in order}
    turn[order[0]].set()

    def make(name):
        def body(x):
            assert turn[name].wait(LIMIT)
            after = order[order.index(name) + 1 :]
            if after:
                turn[after[0]].set()
            return {"log": [name]}

        return body

    done = drive(colour, program_of(**{name: make(name) for name in order}))
    assert (done.error, done["log"]) == (None, ["a", "b", "c"])


@BOTH
def test_ready_bodies_run_side_by_side(colour):
    barrier = threading.Barrier(5)

    def meet(x):
        barrier.wait(LIMIT)
        return {"log": [1]}

    done = drive(colour, program_of(**dict.fromkeys("abcde", meet)))
    assert (done.error, done["log"]) == (None, [1] * 5)


VAR: ContextVar[str] = ContextVar("test_var", default="unset")


@BOTH
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("count", [1, 3])
def test_context_variables_do_not_leak_out_of_a_node(colour, kind, count):
    if (colour, kind) == ("sync", "async"):
        pytest.skip("async bodies need the async colour")
    seen = []

    def body(x):
        seen.append(VAR.get())
        VAR.set("leaked")
        return {"log": [VAR.get()]}

    async def abody(x):
        seen.append(VAR.get())
        VAR.set("leaked")
        await asyncio.sleep(0)
        return {"log": [VAR.get()]}

    names = "abc"[:count]
    fn = abody if kind == "async" else body
    program = program_of(**dict.fromkeys(names, fn), after=node("log", fn=lambda log: seen.append(VAR.get())))
    done = drive(colour, program)
    assert (done.error, done["log"]) == (None, ["leaked"] * count)
    assert seen == ["unset"] * (count + 1)


# ---- failing


@BOTH
def test_a_failure_is_raised_and_names_the_node(colour):
    def fail(x):
        raise OSError("boom")

    done = drive(colour, program_of(a=fail))
    assert isinstance(done.error, OSError)
    assert any("'a'" in note for note in done.error.__notes__)


@BOTH
def test_what_finished_beside_a_failure_is_stored(colour):
    b_is_done = threading.Event()

    def fail(x):
        assert b_is_done.wait(LIMIT)
        raise OSError("boom")

    def fine(x):
        b_is_done.set()
        return {"log": ["b"]}

    saver = Ledger()
    done = drive(colour, program_of(a=fail, b=fine), saver=saver)
    assert isinstance(done.error, OSError)
    assert saver.kinds[0] == "input"
    rows = [row for commit in saver.commits[1:] for row in rows_of(commit)]
    assert (0, [("log", ["b"])]) in rows
    assert [slot for slot, _ in rows if slot == -1] == [-1]


@BOTH
@pytest.mark.parametrize("inline", [True, False])
def test_attempts(colour, inline):
    attempts = []

    def body(x):
        attempts.append(current().attempt)
        if len(attempts) < 3:
            raise OSError
        return {"y": 9}

    done = drive(colour, program_of(a=node("x", fn=body, retry_policy=AGAIN)), inline=inline)
    assert (done.error, done["y"], attempts) == (None, 9, [1, 2, 3])


@BOTH
@pytest.mark.parametrize("inline", [True, False])
def test_attempts_are_used_up(colour, inline):
    attempts = []

    def body(x):
        attempts.append(1)
        raise OSError("last")

    done = drive(colour, program_of(a=node("x", fn=body, retry_policy=AGAIN)), inline=inline)
    assert isinstance(done.error, OSError)
    assert len(attempts) == 3


@BOTH
def test_a_write_of_a_failed_attempt_does_not_count(colour):
    def body(x):
        scope = current()
        scope.write("log", [scope.attempt])
        if scope.attempt == 1:
            raise OSError

    done = drive(colour, program_of(a=node("x", fn=body, retry_policy=AGAIN)))
    assert (done.error, done["log"]) == (None, [2])


@BOTH
@pytest.mark.parametrize("beside", [False, True])
def test_the_handler_of_a_failure(colour, beside):
    def fail(x):
        raise OSError("boom")

    def handle(x):
        error = current().task.error_of
        return {"y": (error.node, str(error.error), x)}

    nodes = {"a": node("x", fn=fail, error_handler="h"), "h": node("x", on=[], fn=handle, is_error_handler=True)}
    if beside:
        nodes["b"] = node("x", fn=lambda x: {"log": ["b"]})
    done = drive(colour, program_of(**nodes), 7)
    assert (done.error, done["y"], done["log"]) == (None, ("a", "boom", 7), ["b"] if beside else [])


@BOTH
def test_a_handler_that_fails(colour):
    def fail(x):
        raise (OSError if current().task.name == "a" else KeyError)("boom")

    program = program_of(a=node("x", fn=fail, error_handler="h"), h=node("x", on=[], fn=fail, is_error_handler=True))
    assert isinstance(drive(colour, program).error, KeyError)


@BOTH
def test_a_body_that_raises_cancelled_by_itself_has_failed(colour):
    def body(x):
        raise asyncio.CancelledError

    async def abody(x):
        raise asyncio.CancelledError

    for fn in [body] + [abody] * (colour == "async"):
        for nodes in ({"a": fn}, {"a": fn, "b": lambda x: None}):
            error = drive(colour, program_of(**nodes)).error
            assert isinstance(error, NodeCancelledError)
            assert error.node == "a"


@BOTH
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interruption_ends_the_run_and_keeps_what_is_done(colour, kind):
    saver = Ledger()
    b_is_done = threading.Event()

    def stop(x):
        assert b_is_done.wait(LIMIT)
        raise kind

    def fine(x):
        b_is_done.set()
        return {"log": [1]}

    done = drive(colour, program_of(a=stop, b=fine), saver=saver)
    assert isinstance(done.error, kind)
    assert [row for commit in saver.commits[1:] for row in rows_of(commit)] == [(0, [("log", [1])])]


@BOTH
def test_a_barrier_that_fails_raises(colour):
    done = drive(colour, program_of(a=lambda x: {"y": 1}, b=lambda x: {"y": 2}))
    assert isinstance(done.error, InvalidUpdateError)


# ---- asking


@BOTH
@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_question_stops_the_run(colour, names):
    def body(x):
        interrupt("?")

    saver = Ledger()
    done = drive(colour, program_of(**dict.fromkeys(names, body)), saver=saver)
    assert (done.error, done.run.status) == (None, "interrupted")
    assert [question.value for question in done.run.interrupts] == ["?"] * len(names)
    rows = [slot for commit in saver.commits[1:] for slot, _ in rows_of(commit)]
    assert rows == [-3] * len(names)


# ---- the fence


@BOTH
@pytest.mark.parametrize("inline", [True, False])
def test_nothing_is_taken_from_an_attempt_that_is_over(colour, inline):
    scopes = []

    def body(x):
        scopes.append(current())
        if len(scopes) == 1:
            raise OSError

    done = drive(colour, program_of(a=node("x", fn=body, retry_policy=AGAIN)), inline=inline)
    assert done.error is None
    target = child(lambda x: x)
    for scope in [*scopes, TaskScope(dummy_run(), None, scopes[1])]:
        for use in (
            lambda scope=scope: scope.emit(1),
            lambda scope=scope: scope.write("x", 1),
            lambda scope=scope: scope.ask("?"),
            lambda scope=scope: scope.spawn(target, 1),
            lambda scope=scope: scope.beat(),
        ):
            with pytest.raises(AttemptClosedError):
                use()


@BOTH
def test_a_run_whose_outer_attempt_is_over_stops_at_the_next_boundary(colour):
    outer = dummy_run(dummy_program())
    outer.start(1)
    scope = outer.open(outer.plan()[0])
    steps = []

    def body(x):
        steps.append(1)
        scope.close()
        return {"x": x + 1}

    done = drive(colour, program_of(a=body), parent=scope, parent_run=outer, ns="a:1")
    assert isinstance(done.error, AttemptClosedError)
    assert steps == [1]


@BOTH
def test_bodies_that_still_run_when_a_run_is_closed_are_cut_off(colour):
    stuck, seen, free = threading.Event(), [], threading.Event()

    def hang(x):
        stuck.set()
        assert free.wait(LIMIT)
        try:
            current().emit(1)
        except BaseException as error:  # noqa: BLE001 - what is looked at
            seen.append(type(error))
        finally:
            ended.set()

    ended = threading.Event()

    def fail(x):
        assert stuck.wait(LIMIT)
        return {"y": 1}

    done = drive(colour, program_of(a=hang, b=fail), step_timeout=0.05)
    assert isinstance(done.error, TimeoutError)
    free.set()
    assert ended.wait(LIMIT)
    assert seen == [AttemptClosedError]


# ---- time limits


@BOTH
@pytest.mark.parametrize("kind", ["run", "idle"])
def test_a_body_over_its_limit_is_abandoned(colour, kind):
    free = threading.Event()

    def hang(x):
        free.wait(LIMIT)
        return {"y": "late"}

    try:
        policy = TimeoutPolicy(**{f"{kind}_timeout": 0.01})
        done = drive(colour, program_of(a=node("x", fn=hang, timeout=policy)))
        assert isinstance(done.error, NodeTimeoutError)
        assert (done.error.kind, done.error.timeout, done.error.node) == (kind, 0.01, "a")
        assert not done.run.channels["y"].is_available()
    finally:
        free.set()


@BOTH
def test_a_late_result_of_an_abandoned_attempt_is_dropped(colour):
    free, first_ended = threading.Event(), threading.Event()

    def body(x):
        attempt = current().attempt
        if attempt == 1:
            free.wait(LIMIT)
            first_ended.set()
        else:
            free.set()
            assert first_ended.wait(LIMIT)
        return {"log": [attempt]}

    spec = node("x", fn=body, timeout=TimeoutPolicy(run_timeout=0.2), retry_policy=AGAIN)
    done = drive(colour, program_of(a=spec))
    assert (done.error, done["log"]) == (None, [2])


@BOTH
@pytest.mark.parametrize("refresh_on", ["auto", "heartbeat"])
def test_progress_puts_an_idle_limit_off(colour, refresh_on):
    """A body that shows progress all the time lives longer than its idle limit, however slow the machine is: the driver
    counts from the last beat, and a pause of the whole process counts for both."""
    limit = 0.25

    def body(x):
        import time

        scope = current()
        end = time.monotonic() + 2 * limit
        while time.monotonic() < end:
            scope.beat()
            pause.wait(0.002)
        return {"y": 1}

    pause = threading.Event()
    done = drive(
        colour, program_of(a=node("x", fn=body, timeout=TimeoutPolicy(idle_timeout=limit, refresh_on=refresh_on)))
    )
    assert (done.error, done["y"]) == (None, 1)


@BOTH
def test_only_a_heartbeat_counts_if_the_policy_says_so(colour):
    free = threading.Event()

    def body(x):
        scope = current()
        while not free.wait(0.001):
            scope.emit(1)

    policy = TimeoutPolicy(idle_timeout=0.05, refresh_on="heartbeat")
    try:
        assert isinstance(drive(colour, program_of(a=node("x", fn=body, timeout=policy))).error, NodeTimeoutError)
    finally:
        free.set()


@BOTH
def test_a_handler_takes_over_from_a_body_over_its_limit(colour):
    free = threading.Event()

    def hang(x):
        free.wait(LIMIT)

    nodes = {
        "a": node("x", fn=hang, timeout=0.01, error_handler="h"),
        "h": node("x", on=[], fn=lambda x: {"y": type(current().task.error_of.error)}, is_error_handler=True),
    }
    try:
        done = drive(colour, program_of(**nodes))
        assert (done.error, done["y"]) == (None, NodeTimeoutError)
    finally:
        free.set()


@BOTH
def test_the_limit_of_a_step(colour):
    free = threading.Event()

    def hang(x):
        free.wait(LIMIT)

    try:
        saver = Ledger()
        done = drive(colour, program_of(a=hang, b=lambda x: {"y": 1}), step_timeout=0.05, saver=saver)
        assert isinstance(done.error, TimeoutError)
        assert [row for commit in saver.commits[1:] for row in rows_of(commit)] == [(0, [("y", 1)])]
    finally:
        free.set()


@BOTH
def test_limits_that_are_kept_do_not_matter(colour):
    program = program_of(a=node("x", fn=lambda x: {"y": 1}, timeout=TimeoutPolicy(run_timeout=60, idle_timeout=60)))
    done = drive(colour, program, step_timeout=60)
    assert (done.error, done["y"]) == (None, 1)


# ---- the limit of concurrent bodies


@BOTH
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_the_gate_lets_so_many_in(colour, limit):
    inside, barrier = Count(), threading.Barrier(limit)

    def body(x):
        with inside:
            barrier.wait(LIMIT)
        return {"log": [x]}

    done = drive(colour, fanned(body, 6), limit=limit)
    assert (done.error, done["log"], inside.most) == (None, list(range(6)), limit)


@BOTH
def test_a_failure_keeps_those_who_wait_from_starting(colour):
    ran, gate = [], Gate(1)

    def body(x):
        if current().task.index >= 0:
            ran.append(x)
            gate.force()  # somebody else takes the place before the next one can
            raise OSError

    done = drive(colour, fanned(body, 5), gate=gate)
    assert isinstance(done.error, OSError)
    assert ran == [0]


@BOTH
def test_attempts_go_through_the_gate(colour):
    inside = Count()

    def body(x):
        with inside:
            if current().attempt < 3:
                raise OSError
        return {"log": [x]}

    done = drive(colour, fanned(body, 3, retry_policy=AGAIN), limit=1)
    assert (done.error, done["log"], inside.most) == (None, [0, 1, 2], 1)


# ---- children that nobody waits for


@BOTH
@pytest.mark.parametrize("limit", [None, 2])
def test_a_step_ends_after_its_last_child(colour, limit):
    ended, go = [], threading.Event()

    def work(x):
        assert go.wait(LIMIT)
        ended.append(x)

    target = child(work)

    def body(x):
        for n in range(3):
            current().spawn(target, n)
        go.set()
        return {"y": 1}

    done = drive(colour, program_of(a=body), limit=limit)
    assert (done.error, done["y"], sorted(ended)) == (None, 1, [0, 1, 2])


@BOTH
def test_children_have_their_place_in_the_order_and_read_the_step(colour):
    seen = []

    def work(x):
        task = current().task
        seen.append((task.path, current().read("x"), x))
        return x

    target = child(work)

    def body(x):
        for n in range(2):
            current().spawn(target, n)

    assert drive(colour, program_of(a=body), 5).error is None
    parent = ("__pregel_pull", "a")
    assert sorted(seen, key=str) == [(("__pregel_push", parent, n, True), 5, n) for n in range(2)]


@BOTH
def test_a_called_task_that_fails_unseen_ends_nothing(colour):
    def fail(x):
        raise OSError

    target = child(fail)
    done = drive(colour, program_of(a=lambda x: (current().spawn(target, 1), {"y": 1})[1]))
    assert (done.error, done["y"]) == (None, 1)


# ---- storing


@BOTH
def test_what_is_stored_in_which_order(colour):
    saver = Ledger()
    done = drive(colour, program_of(a=lambda x: {"y": 1}, b=node("y", fn=lambda y: {"log": [y]})), saver=saver)
    assert done.error is None
    assert saver.kinds == ["input", "loop", "loop"]
    assert [commit.step for commit in saver.commits] == [-1, 0, 1]
    assert saver.durabilities == ["sync"] * 3


@BOTH
def test_async_durability_stores_later_and_waits_at_the_end(colour):
    saver = Ledger()
    done = drive(
        colour,
        program_of(a=lambda x: {"y": 1}, b=node("y", fn=lambda y: {"log": [y]})),
        saver=saver,
        durability="async",
    )
    assert done.error is None
    assert saver.kinds == ["input", "loop", "loop"]
    assert saver.durabilities == ["async", "later", "later"]


@BOTH
def test_supersteps_do_not_run_ahead_of_the_saver_for_ever(colour):
    saver, lag = Ledger(), []

    def body(x):
        lag.append(x + 1 - len(saver.commits))
        return {"x": x + 1} if x < 8 else None

    assert drive(colour, program_of(a=body), 0, saver=saver, durability="async").error is None
    assert max(lag) <= saver.max_checkpoint_lag
    assert len(saver.commits) == 10


@BOTH
def test_exit_durability_stores_once(colour):
    saver = Ledger()
    done = drive(colour, program_of(a=lambda x: {"y": 1}, b=lambda x: {"log": [1]}), saver=saver, durability="exit")
    assert done.error is None
    assert (saver.kinds, saver.commits[0].step) == (["loop"], 0)


@BOTH
@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_saver_that_fails_ends_the_run_and_nothing_more_is_stored(colour, durability, at):
    saver = Ledger(fail=OSError("disk"), at=at)
    ran = []

    def body(x):
        ran.append(x)
        return {"x": x + 1} if x < 5 else None

    done = drive(colour, program_of(a=body), 0, saver=saver, durability=durability)
    assert isinstance(done.error, OSError)
    assert any("thread" in note for note in done.error.__notes__)
    assert len(saver.commits) == at
    assert saver.seen == at + 1 or durability == "async"
    assert len(ran) <= at + saver.max_checkpoint_lag


@BOTH
@pytest.mark.parametrize("quiet", [False, True])
def test_a_lost_claim_is_reported_unless_the_caller_is_gone(colour, quiet):
    saver = Ledger(fail=CheckpointConflictError("lost", thread_id="thread"), at=1)

    async def a_sync():
        run = dummy_run(program_of(a=lambda x: {"y": 1}), stores=True)
        driver = AsyncDriver(run, saver, "async")
        await driver.begin(1)
        await driver.advance()
        await driver.close(quiet=quiet)

    def sync():
        run = dummy_run(program_of(a=lambda x: {"y": 1}), stores=True)
        driver = SyncDriver(run, saver, "async")
        driver.begin(1)
        driver.advance()
        driver.close(quiet=quiet)

    def close():
        asyncio.run(a_sync()) if colour == "async" else sync()

    if quiet:
        close()
    else:
        with pytest.raises(CheckpointConflictError):
            close()


@BOTH
def test_the_outcome_of_a_sibling_is_stored_while_others_run(colour):
    saver, b_may_end = Ledger(), threading.Event()

    class Watching(Ledger):
        def _write(self, commit, how):
            super()._write(commit, how)
            if commit.kind == "tasks":
                b_may_end.set()

    saver = Watching()

    def slow(x):
        assert b_may_end.wait(LIMIT)
        return {"log": ["b"]}

    done = drive(colour, program_of(a=lambda x: {"log": ["a"]}, b=slow), saver=saver)
    assert (done.error, done["log"]) == (None, ["a", "b"])
    assert saver.kinds == ["input", "tasks", "loop"]


# ---- notices


@BOTH
def test_notices_become_warnings_once_per_graph_and_place(colour):
    program = program_of(a=lambda x: {"nowhere": 1})
    for expected in (1, 0):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert drive(colour, program).error is None
        assert [w.category for w in caught] == [PregelWarning] * expected


@BOTH
@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_strict_graph_raises_them_as_the_failure_of_the_task(colour, names):
    def body(x):
        current().host.notice("code", "place", "text")

    done = drive(colour, program_of(**dict.fromkeys(names, body)), strict=True)
    assert isinstance(done.error, PregelWarning)
    assert any("'a'" in note for note in done.error.__notes__)


@BOTH
@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_warning_that_is_an_error_fails_the_task(colour, names):
    def body(x):
        current().host.notice("code", f"place-{colour}-{names}", "text")

    assert isinstance(drive(colour, program_of(**dict.fromkeys(names, body))).error, PregelWarning)


# ---- chunks


@BOTH
def test_custom_chunks_of_bodies(colour):
    def body(x):
        current().emit(x)

    done = drive(colour, program_of(a=body, b=body), 3, modes={"custom"}, inline=False)
    assert chunks_of(done.run).of("custom") == [3, 3]


@BOTH
def test_a_nested_question_leaves_as_it_is(colour):
    def body(x):
        raise GraphInterrupt(())

    done = drive(colour, program_of(a=body))
    assert (done.run.status, done.run.interrupts) == ("interrupted", [])
