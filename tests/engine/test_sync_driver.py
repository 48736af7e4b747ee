"""What only the sync driver does: whose thread a body runs on, and children of bodies that block."""

import threading
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait

import pytest

from pregel._scope import current
from pregel.constants import ERROR
from pregel.engine.limits import deadline_of
from pregel.engine.sync_driver import SyncDriver
from pregel.engine.workers import Gate
from pregel.errors import GraphInterrupt, NodeTimeoutError
from pregel.types import RetryPolicy, TimeoutPolicy, interrupt
from tests.engine.test_driver_parity import AGAIN, VAR, fanned, program_of
from tests.support.driving import LIMIT, Count, Ledger, child, drive, within
from tests.support.dummies import dummy_run, node, rows_of

HERE = threading.get_ident


# ---- whose thread


@pytest.mark.parametrize(
    ("how", "own"),
    [
        ({}, True),
        ({"saver": "sync"}, True),
        ({"inline": False}, False),
        ({"limit": 4}, False),
        ({"step_timeout": 60.0}, False),
    ],
)
def test_whose_thread_a_single_body_runs_on(how, own):
    how = dict(how)
    if "saver" in how:
        how["saver"] = Ledger()
    done = drive("sync", program_of(a=lambda x: {"y": HERE()}), **how)
    assert done.error is None
    assert (done["y"] == done.ident) is own


def test_a_body_with_a_limit_leaves_the_thread():
    done = drive("sync", program_of(a=node("x", fn=lambda x: {"y": HERE()}, timeout=60.0)))
    assert done["y"] != done.ident


def test_bodies_of_a_stored_step_run_on_workers():
    done = drive("sync", program_of(a=lambda x: {"log": [HERE()]}, b=lambda x: {"log": [HERE()]}), saver=Ledger())
    assert done.ident not in done["log"]


def test_bodies_of_an_unstored_step_are_helped_with():
    """A step in which nothing blocks is done by the driver's thread, unless a worker came first."""
    names = "abcdefgh"
    done = drive("sync", program_of(**dict.fromkeys(names, lambda x: {"log": [HERE()]})))
    assert len(done["log"]) == len(names)
    assert done.ident in done["log"]


def test_bodies_beside_one_with_a_limit_run_on_workers():
    nodes = {"a": lambda x: {"log": [HERE()]}, "b": node("x", fn=lambda x: {"log": [HERE()]}, timeout=60.0)}
    done = drive("sync", program_of(**nodes))
    assert done.ident not in done["log"]


def test_attempts_of_several_bodies_run_side_by_side():
    barrier = threading.Barrier(3)

    def body(x):
        attempt = current().attempt
        if attempt == 1:
            raise OSError
        barrier.wait(LIMIT)
        return {"log": [attempt]}

    nodes = {name: node("x", fn=body, retry_policy=AGAIN) for name in "abc"}
    done = drive("sync", program_of(**nodes))
    assert (done.error, done["log"]) == (None, [2, 2, 2])


def test_a_limit_in_the_step_of_a_helping_thread_fires():
    """The handler has a limit, its siblings have none and block for longer than that."""
    free = threading.Event()

    def fail(x):
        raise OSError

    def hang(x):
        assert free.wait(LIMIT)

    def slow(x):
        free.wait(LIMIT)

    nodes = {
        "a": node("x", fn=fail, error_handler="h"),
        "b": node("x", fn=slow),
        "c": node("x", fn=slow),
        "h": node(
            "x",
            on=[],
            fn=hang,
            is_error_handler=True,
            timeout=0.02,
            retry_policy=RetryPolicy(
                initial_interval=0.0, jitter=False, max_attempts=2, retry_on=lambda error: free.set() or True
            ),
        ),
    }
    done = drive("sync", program_of(**nodes))
    assert (done.error, free.is_set()) == (None, True)


# ---- children of an inline body, by any means of waiting


def by_result(futures):
    return [future.result() for future in futures]


def by_wait(futures):
    _, pending = wait(futures, timeout=LIMIT)
    assert not pending
    return [future.result() for future in futures]


def by_first_completed(futures):
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=LIMIT, return_when=FIRST_COMPLETED)
        assert done
    return [future.result() for future in futures]


def by_as_completed(futures):
    results = {future: future.result() for future in as_completed(futures, timeout=LIMIT)}
    return [results[future] for future in futures]


def by_callback(futures):
    done = threading.Semaphore(0)
    for future in futures:
        future.add_done_callback(lambda _: done.release())
    for _ in futures:
        assert done.acquire(timeout=LIMIT)
    return [future.result(timeout=0) for future in futures]


def by_exception(futures):
    assert [future.exception() for future in futures] == [None] * len(futures)
    return [future.result() for future in futures]


WAYS = [by_result, by_wait, by_first_completed, by_as_completed, by_callback, by_exception]
WHERE = pytest.mark.parametrize(
    "where",
    [
        pytest.param({}, id="inline"),
        pytest.param({"inline": False}, id="worker"),
        pytest.param({"limit": 1}, id="gate-1"),
        pytest.param({"limit": 2}, id="gate-2"),
        pytest.param({"saver": Ledger}, id="stored"),
        pytest.param({"beside": True}, id="beside another"),
        pytest.param({"beside": True, "limit": 1}, id="beside another, gate-1"),
    ],
)


def run_parent(body, where):
    """A node that runs `body`, alone or beside one that does the same."""
    where = dict(where)
    if "saver" in where:
        where["saver"] = where["saver"]()
    nodes = {"a": lambda x: {"log": [body()]}}
    if where.pop("beside", False):
        nodes["b"] = lambda x: {"log": [body()]}
    done = drive("sync", program_of(**nodes), **where)
    if done.error is not None:
        raise done.error
    first, *others = done["log"]
    assert others in ([], [first])
    return first


@WHERE
@pytest.mark.parametrize("way", WAYS)
def test_waiting_for_children(way, where):
    target = child(lambda n: n * 10)

    def body():
        futures = [current().spawn(target, n) for n in range(4)]
        assert all(isinstance(future, Future) for future in futures)
        return way(futures)

    assert run_parent(body, where) == [0, 10, 20, 30]


@WHERE
@pytest.mark.parametrize("way", WAYS)
def test_children_of_children_of_children(way, where):
    def work(n):
        if n == 0:
            return 1
        return sum(way([current().spawn(target, n - 1) for _ in range(2)]))

    target = child(work)
    assert run_parent(lambda: way([current().spawn(target, 3)])[0], where) == 8


def test_the_run_changes_hands_many_times():
    """Bodies on the driver's thread and on workers spawn at the same time, while that thread takes the run back."""

    def work(n):
        return 1 if n == 0 else sum(by_wait([current().spawn(target, n - 1) for _ in range(2)]))

    target = child(work)
    for _ in range(60):
        assert run_parent(lambda: by_wait([current().spawn(target, 3)])[0], {"beside": True}) == 8


@pytest.mark.parametrize("limit", [None, 1])
def test_a_deep_chain_of_children(limit):
    def work(n):
        return 0 if n == 0 else 1 + by_wait([current().spawn(target, n - 1)])[0]

    target = child(work)
    assert run_parent(lambda: work(60), {"limit": limit}) == 60


def test_one_child_after_the_other():
    target = child(lambda n: n + 1)

    def body():
        n = 0
        for _ in range(50):
            n = current().spawn(target, n).result()
        return n

    for where in ({}, {"limit": 1}, {"inline": False}):
        assert run_parent(body, where) == 50


@WHERE
def test_a_child_that_fails(where):
    def fail(n):
        raise OSError(n)

    target = child(fail)

    def body():
        future = current().spawn(target, 7)
        with pytest.raises(OSError, match="7"):
            future.result()
        return [str(future.exception()), future.done()]

    assert run_parent(body, where) == ["7", True]


def test_a_failure_that_is_not_caught_ends_the_run():
    def fail(n):
        raise OSError(n)

    target = child(fail)
    done = drive("sync", program_of(a=lambda x: current().spawn(target, 7).result()))
    assert isinstance(done.error, OSError)


@WHERE
def test_a_child_is_tried_again(where):
    def work(n):
        if current().attempt < 3:
            raise OSError
        return current().attempt

    target = child(work, retry_policy=AGAIN)
    assert run_parent(lambda: by_wait([current().spawn(target, 1)]), where) == [3]


@WHERE
@pytest.mark.parametrize("way", [by_result, by_wait])
def test_a_child_over_its_limit(where, way):
    target = child(lambda free: free.wait(LIMIT), timeout=0.01)

    def body():
        free = threading.Event()
        try:
            way([current().spawn(target, free)])
        except NodeTimeoutError as error:
            return error.kind
        finally:
            free.set()

    assert run_parent(body, where) == "run"


def test_a_child_that_asks():
    target = child(lambda n: interrupt("?"))
    seen = []

    def body(x):
        try:
            current().spawn(target, 1).result()
        except GraphInterrupt as asked:
            seen.append([question.value for question in asked.interrupts])
            raise

    done = drive("sync", program_of(a=body), saver=Ledger())
    assert (done.error, done.run.status, seen) == (None, "interrupted", [["?"]])


def test_a_child_that_returns_nothing_to_its_caller():
    target = child(lambda n: n, write=lambda result, scope, writes: writes.append(("log", [result])))
    done = drive("sync", program_of(a=lambda x: {"y": current().spawn(target, 5).result()}))
    assert (done.error, done["y"], done["log"]) == (None, None, [5])


def test_a_child_inherits_the_context_of_its_caller():
    target = child(lambda n: (VAR.get(), VAR.set("leaked"))[0])

    def body():
        VAR.set("set by the caller")
        return [current().spawn(target, 1).result(), VAR.get()]

    assert run_parent(body, {}) == ["set by the caller"] * 2


def test_the_result_of_a_child_is_stored_before_its_caller_has_it():
    saver, stored = Ledger(), []
    target = child(lambda n: n)

    def body(x):
        assert current().spawn(target, 5).result() == 5
        stored.append([rows_of(commit) for commit in saver.commits if commit.kind == "tasks"])

    done = drive("sync", program_of(a=body), saver=saver)
    assert done.error is None
    assert stored == [[[(0, [("__return__", 5)])]]]
    assert saver.kinds == ["input", "tasks", "loop"]


def test_a_saver_that_fails_while_a_body_waits_for_its_child():
    saver = Ledger(fail=OSError("disk"), at=1)
    target = child(lambda n: n)
    done = drive("sync", program_of(a=lambda x: current().spawn(target, 5).result()), saver=saver)
    assert isinstance(done.error, OSError)
    assert saver.kinds == ["input"]


def test_a_body_that_catches_the_failing_saver_does_not_hide_it():
    saver = Ledger(fail=OSError("disk"), at=1)
    target = child(lambda n: n)

    def body(x):
        with pytest.raises(OSError, match="disk"):
            current().spawn(target, 5).result()

    done = drive("sync", program_of(a=body), saver=saver)
    assert isinstance(done.error, OSError)
    assert saver.kinds == ["input"]


def test_a_body_that_fails_while_its_children_run():
    ended, go = threading.Event(), threading.Event()
    target = child(lambda n: (go.wait(LIMIT), ended.set()))

    def body(x):
        current().spawn(target, 1)
        go.set()
        raise OSError("parent")

    saver = Ledger()
    done = drive("sync", program_of(a=body), saver=saver)
    assert isinstance(done.error, OSError)
    assert ended.wait(LIMIT)
    slots = [row for commit in saver.commits[1:] for row in rows_of(commit)]
    assert any(slot == -1 and writes[0][0] == ERROR for slot, writes in slots)


def test_children_of_a_second_attempt_have_the_same_places():
    """One that has finished is not run again; one that failed is, at the same place."""
    paths = []

    def work(n):
        paths.append((n, current().task.path))
        if n == 2 and len(paths) == 2:
            raise OSError
        return n * 10

    target = child(work)

    def body(x):
        return {"log": [current().spawn(target, n).result() for n in (1, 2)]}

    done = drive("sync", program_of(a=node("x", fn=body, retry_policy=AGAIN)))
    assert (done.error, done["log"]) == (None, [10, 20])
    assert [n for n, _ in paths] == [1, 2, 2]
    assert paths[1] == paths[2]


@pytest.mark.parametrize("limit", [1, 2])
def test_children_count_against_the_limit_and_their_waiting_callers_do_not(limit):
    inside = Count()

    def work(n):
        with inside:
            return n

    target = child(work)

    def body(x):
        return {"log": [sum(by_wait([current().spawn(target, n) for n in range(3)]))]}

    done = drive("sync", fanned(body, 4), limit=limit)
    assert (done.error, done["log"]) == (None, [3] * 4)
    assert inside.most <= limit


def test_children_that_nobody_waits_for_keep_to_the_limit():
    inside, full = Count(), threading.Event()

    def work(n):
        with inside:
            if inside.most > 1:
                full.set()
            full.wait(0.1)

    target = child(work)

    def body(x):
        for n in range(4):
            current().spawn(target, n)

    done = drive("sync", program_of(a=body), limit=1)
    assert (done.error, inside.most) == (None, 1)


def test_an_abandoned_body_gives_its_place_back():
    free = threading.Event()

    def body(x):
        if current().attempt == 1:
            free.wait(LIMIT)
        return {"y": 1}

    spec = node("x", fn=body, timeout=0.01, retry_policy=AGAIN)
    try:
        assert within(lambda: drive("sync", program_of(a=spec), limit=1), 1.0)["y"] == 1
    finally:
        free.set()


# ---- the gate by itself


def test_the_gate_keeps_the_order_of_asking():
    gate, order = Gate(2), []
    for n in range(5):
        gate.enter(lambda n=n: order.append(n))
    assert order == [0, 1]
    for expected in ([0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]):
        gate.leave()
        assert order == expected
    gate.leave()
    gate.enter(lambda: order.append(9))
    assert order[-1] == 9


def test_a_place_that_was_taken_without_asking_is_missed():
    gate, order = Gate(1), []
    gate.enter(lambda: order.append(1))
    gate.force()
    gate.enter(lambda: order.append(2))
    gate.leave()
    assert order == [1]
    gate.leave()
    assert order == [1, 2]


def test_a_start_can_be_withdrawn_until_it_happens():
    gate, order = Gate(1), []

    def first():
        order.append(1)

    def second():
        order.append(2)

    gate.enter(first)
    gate.enter(second)
    assert gate.withdraw(second) is True
    assert gate.withdraw(first) is False
    gate.leave()
    assert order == [1]


# ---- small decisions


def test_when_an_attempt_is_over_its_limit():
    run = dummy_run(program_of(a=node("x", timeout=TimeoutPolicy(run_timeout=5, idle_timeout=2))))
    run.start(1)
    (task,) = run.plan()
    assert deadline_of(task) is None
    scope = run.open(task)
    task.started_at = scope.moved_at = 100.0
    assert deadline_of(task) == 102.0
    scope.moved_at = 104.0
    assert deadline_of(task) == 105.0
    scope.close()
    assert deadline_of(task) is None
    task.timeout = None
    assert deadline_of(task) is None


def test_a_driver_whose_run_is_over_does_nothing():
    def drive_on():
        run = dummy_run(program_of(a=lambda x: {"y": 1}))
        driver = SyncDriver(run, None, "sync")
        driver.begin(1)
        driver.drive()
        assert driver.advance() is False
        driver.close()
        assert driver.advance() is False
        return run.status

    assert within(drive_on) == "done"
