"""What only the async driver does: the loop, bodies as coroutines, cancellation, children of both kinds."""

import asyncio
import threading
from concurrent.futures import Future, wait

import pytest

from pregel._scope import current
from pregel.engine.async_driver import AsyncDriver
from pregel.engine.inbox import Inbox, to_the_end
from pregel.errors import AttemptClosedError, NodeTimeoutError
from tests.engine.test_driver_parity import AGAIN, VAR, fanned, program_of
from tests.support.driving import LIMIT, Count, Ledger, child, drive, within
from tests.support.dummies import dummy_run, node, rows_of


def here():
    return threading.get_ident()


async def ahere(x):
    return {"log": [here()]}


# ---- whose thread, whose task


@pytest.mark.parametrize("names", ["a", "ab"])
@pytest.mark.parametrize("how", [{}, {"inline": False}, {"limit": 4}, {"step_timeout": 60.0}])
def test_async_bodies_run_on_the_loop_and_sync_ones_never(names, how):
    done = drive("async", program_of(**dict.fromkeys(names, ahere)), **how)
    assert set(done["log"]) == {done.ident}
    done = drive("async", program_of(**dict.fromkeys(names, lambda x: {"log": [here()]})), **how)
    assert done.ident not in done["log"]


@pytest.mark.parametrize(
    ("how", "own"), [({}, True), ({"inline": False}, False), ({"limit": 1}, False), ({"timeout": 60.0}, False)]
)
def test_a_single_async_body_is_awaited_in_the_task_of_the_caller(how, own):
    seen = []

    async def body(x):
        seen.append(asyncio.current_task())

    timeout = how.get("timeout")
    run = dummy_run(program_of(a=node("x", fn=body, timeout=timeout)))

    async def main():
        from pregel.engine.workers import Gate

        gate = Gate(how["limit"]) if "limit" in how else None
        driver = AsyncDriver(run, None, "sync", inline=how.get("inline", True), gate=gate)
        await driver.begin(1)
        await driver.drive()
        await driver.close()
        assert (seen[0] is asyncio.current_task()) is own

    within(lambda: asyncio.run(main()))


def test_a_sync_body_with_async_routers_has_both_halves_in_their_place():
    class Router:
        call = type("Call", (), {"fn": None})()

        async def aroute(self, result, scope, writes):
            assert current() is scope
            writes.append(("log", [here()]))

    program = program_of(a=node("x", fn=lambda x: {"y": here()}, routers=[Router()]))
    done = drive("async", program)
    assert done["y"] != done.ident
    assert done["log"] == [done.ident]


def test_a_failing_sync_body_with_async_routers():
    class Router:
        call = type("Call", (), {"fn": None})()

        async def aroute(self, result, scope, writes):
            raise AssertionError

    def fail(x):
        raise OSError

    assert isinstance(drive("async", program_of(a=node("x", fn=fail, routers=[Router()]))).error, OSError)


def test_a_node_without_a_function_runs_too():
    done = drive("async", program_of(a=node("x", write=lambda result, scope, writes: writes.append(("y", result)))), 4)
    assert done["y"] == 4


# ---- cancellation


def cancelled(program, *, stuck, **how):
    """Cancel the task that drives once `stuck` is set; returns the run."""
    run = dummy_run(program, stores=how.get("saver") is not None)

    async def main():
        async def driving():
            driver = AsyncDriver(run, how.get("saver"), "sync", inline=how.get("inline", True))
            try:
                await driver.begin(1)
                await driver.drive()
            finally:
                await driver.close(quiet=True)

        task = asyncio.ensure_future(driving())
        await stuck(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert left == set()

    within(lambda: asyncio.run(main()))
    return run


@pytest.mark.parametrize("names", ["a", "ab"])
def test_cancelling_the_caller_cancels_async_bodies_and_waits_for_their_clean_up(names):
    seen, started = [], []

    async def body(x):
        started.append(1)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned up")

    async def stuck(task):
        while len(started) < len(names):
            await asyncio.sleep(0)

    cancelled(program_of(**dict.fromkeys(names, body)), stuck=stuck)
    assert seen == ["cleaned up"] * len(names)


def test_cancelling_the_caller_does_not_wait_for_sync_bodies():
    started, free, ended, seen = threading.Event(), threading.Event(), threading.Event(), []

    def body(x):
        scope = current()
        started.set()
        free.wait(LIMIT)
        try:
            scope.emit(1)
        except BaseException as error:  # noqa: BLE001 - what is looked at
            seen.append(type(error))
        ended.set()

    async def stuck(task):
        await asyncio.to_thread(started.wait, LIMIT)

    try:
        cancelled(program_of(a=body), stuck=stuck)
        assert not ended.is_set()
    finally:
        free.set()
    assert ended.wait(LIMIT)
    assert seen == [AttemptClosedError]


def test_what_finished_before_a_cancellation_is_stored():
    saver, started = Ledger(), []

    async def hang(x):
        started.append(1)
        await asyncio.Event().wait()

    async def fine(x):
        return {"log": [1]}

    async def stuck(task):
        while not started or len(saver.commits) < 2:
            await asyncio.sleep(0)

    cancelled(program_of(a=fine, b=hang), stuck=stuck, saver=saver)
    assert [row for commit in saver.commits[1:] for row in rows_of(commit)] == [(0, [("log", [1])])]


def test_a_body_that_refuses_to_be_cancelled_finishes_the_run_it_is_in():
    """The caller's cancellation was swallowed by the body: the run goes on, as with any awaited coroutine."""
    started = []

    async def body(x):
        started.append(1)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return {"y": "kept"}

    run = dummy_run(program_of(a=body))

    async def main():
        driver = AsyncDriver(run, None, "sync")
        await driver.begin(1)
        task = asyncio.ensure_future(driver.drive())
        while not started:
            await asyncio.sleep(0)
        task.cancel()
        await task
        await driver.close()

    within(lambda: asyncio.run(main()))
    assert run.channels["y"].get() == "kept"


def test_siblings_of_a_failure_are_cancelled():
    seen = []

    async def hang(x):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def fail(x):
        await asyncio.sleep(0)
        raise OSError

    done = drive("async", program_of(a=fail, b=hang))
    assert isinstance(done.error, OSError)
    assert seen == ["cancelled"]


def test_an_async_body_over_its_limit_is_cancelled():
    seen = []

    async def hang(x):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    done = drive("async", program_of(a=node("x", fn=hang, timeout=0.01)))
    assert isinstance(done.error, NodeTimeoutError)
    assert seen == ["cancelled"]


def test_an_async_body_over_its_limit_is_tried_again():
    async def body(x):
        if current().attempt == 1:
            await asyncio.Event().wait()
        return {"y": current().attempt}

    done = drive("async", program_of(a=node("x", fn=body, timeout=0.01, retry_policy=AGAIN)))
    assert (done.error, done["y"]) == (None, 2)


def test_the_limit_of_a_step_of_async_bodies():
    seen = []

    async def hang(x):
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cleaned up")

    done = drive("async", program_of(a=hang), step_timeout=0.01)
    assert isinstance(done.error, TimeoutError)
    assert seen == ["cleaned up"]


# ---- children

AS_FUTURES = pytest.mark.parametrize(
    "where",
    [
        pytest.param({}, id="inline"),
        pytest.param({"inline": False}, id="task"),
        pytest.param({"limit": 1}, id="gate-1"),
        pytest.param({"limit": 2}, id="gate-2"),
        pytest.param({"saver": True}, id="stored"),
        pytest.param({"beside": True}, id="beside another"),
    ],
)


def run_parent(body, where, *, sync=False):
    where = dict(where)
    if where.pop("saver", False):
        where["saver"] = Ledger()

    async def parent(x):
        return {"log": [await body()]}

    def in_worker(x):
        return {"log": [body()]}

    nodes = {"a": in_worker if sync else parent}
    if where.pop("beside", False):
        nodes["b"] = nodes["a"]
    done = drive("async", program_of(**nodes), **where)
    if done.error is not None:
        raise done.error
    first, *others = done["log"]
    assert others in ([], [first])
    return first


async def by_gather(futures):
    return list(await asyncio.gather(*futures))


async def by_await(futures):
    return [await future for future in futures]


async def by_wait(futures):
    _, pending = await asyncio.wait(futures, timeout=LIMIT)
    assert not pending
    return [future.result() for future in futures]


async def by_as_completed(futures):
    return sorted([await future for future in asyncio.as_completed(futures, timeout=LIMIT)])


async def by_group(futures):
    async def one(future):
        return await future

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(future)) for future in futures]
    return [task.result() for task in tasks]


WAYS = [by_gather, by_await, by_wait, by_as_completed, by_group]


async def times_ten(n):
    await asyncio.sleep(0)
    return n * 10


@AS_FUTURES
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("work", [times_ten, lambda n: n * 10], ids=["async", "sync"])
def test_waiting_for_children(way, where, work):
    target = child(work)

    async def body():
        futures = [current().spawn(target, n) for n in range(4)]
        assert all(isinstance(future, asyncio.Future) for future in futures)
        return await way(futures)

    assert run_parent(body, where) == [0, 10, 20, 30]


@AS_FUTURES
@pytest.mark.parametrize("way", WAYS)
def test_children_of_children_of_children(way, where):
    async def work(n):
        if n == 0:
            return 1
        return sum(await way([current().spawn(target, n - 1) for _ in range(2)]))

    target = child(work)

    async def body():
        return (await way([current().spawn(target, 3)]))[0]

    assert run_parent(body, where) == 8


@AS_FUTURES
def test_children_of_a_body_in_a_worker(where):
    target = child(times_ten)

    def body():
        futures = [current().spawn(target, n) for n in range(4)]
        assert all(isinstance(future, Future) for future in futures)
        _, pending = wait(futures, timeout=LIMIT)
        assert not pending
        return [future.result() for future in futures]

    assert run_parent(body, where, sync=True) == [0, 10, 20, 30]


@AS_FUTURES
def test_sync_children_of_sync_children(where):
    def work(n):
        return 1 if n == 0 else sum(f.result() for f in [current().spawn(target, n - 1) for _ in range(2)])

    target = child(work)
    assert run_parent(lambda: work(3), where, sync=True) == 8


@AS_FUTURES
def test_a_child_that_fails(where):
    async def fail(n):
        raise OSError(n)

    target = child(fail)

    async def body():
        with pytest.raises(OSError, match="7"):
            await current().spawn(target, 7)
        return "caught"

    assert run_parent(body, where) == "caught"


@AS_FUTURES
def test_a_child_is_tried_again(where):
    async def work(n):
        if current().attempt < 3:
            raise OSError
        return current().attempt

    target = child(work, retry_policy=AGAIN)

    async def body():
        return await current().spawn(target, 1)

    assert run_parent(body, where) == 3


@AS_FUTURES
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_child_over_its_limit(where, kind):
    free = threading.Event()

    async def ahang(n):
        await asyncio.Event().wait()

    def hang(n):
        free.wait(LIMIT)

    target = child(ahang if kind == "async" else hang, timeout=0.01)

    async def body():
        try:
            await current().spawn(target, 1)
        except NodeTimeoutError as error:
            return error.kind

    try:
        assert run_parent(body, where) == "run"
    finally:
        free.set()


def test_the_result_of_a_child_is_stored_before_its_caller_has_it():
    saver, stored = Ledger(), []
    target = child(times_ten)

    async def body(x):
        assert await current().spawn(target, 5) == 50
        stored.append([rows_of(commit) for commit in saver.commits if commit.kind == "tasks"])

    assert drive("async", program_of(a=body), saver=saver).error is None
    assert stored == [[[(0, [("__return__", 50)])]]]


def test_a_caller_that_gives_up_waiting_leaves_the_child_running():
    ended = []

    async def work(n):
        await asyncio.sleep(0)
        ended.append(n)

    target = child(work)

    async def body(x):
        future = current().spawn(target, 1)
        future.cancel()
        return {"y": 1}

    done = drive("async", program_of(a=body))
    assert (done.error, done["y"], ended) == (None, 1, [1])


def test_a_child_inherits_the_context_of_its_caller():
    async def work(n):
        seen = VAR.get()
        VAR.set("leaked")
        return seen

    target = child(work)

    async def body():
        VAR.set("set by the caller")
        return [await current().spawn(target, 1), VAR.get()]

    assert run_parent(body, {}) == ["set by the caller"] * 2


def test_a_saver_that_fails_while_a_body_waits_for_its_child():
    saver = Ledger(fail=OSError("disk"), at=1)
    target = child(times_ten)

    async def body(x):
        await current().spawn(target, 5)

    done = drive("async", program_of(a=body), saver=saver)
    assert isinstance(done.error, OSError)
    assert saver.kinds == ["input"]


@pytest.mark.parametrize("limit", [1, 2])
def test_children_count_against_the_limit_and_their_waiting_callers_do_not(limit):
    inside = Count()

    async def work(n):
        with inside:
            await asyncio.sleep(0)
            return n

    target = child(work)

    async def body(x):
        return {"log": [sum(await by_gather([current().spawn(target, n) for n in range(3)]))]}

    done = drive("async", fanned(body, 4), limit=limit)
    assert (done.error, done["log"]) == (None, [3] * 4)
    assert inside.most <= limit


# ---- the inbox


def test_events_from_a_thread_wake_the_owner():
    async def main():
        inbox = Inbox(asyncio.get_running_loop())
        threading.Thread(target=inbox.put_from_thread, args=("event",)).start()
        await asyncio.wait_for(inbox.ready(), LIMIT)
        assert inbox.events.popleft() == "event"
        inbox.put(1)
        inbox.put(2)
        await inbox.ready()
        assert list(inbox.events) == [1, 2]
        return inbox

    inbox = asyncio.run(main())
    inbox.put_from_thread("late")
    assert list(inbox.events) == [1, 2]


def test_an_event_that_comes_as_the_owner_is_cancelled_is_kept():
    async def main():
        inbox = Inbox(asyncio.get_running_loop())
        waiting = asyncio.ensure_future(inbox.ready())
        await asyncio.sleep(0)
        inbox.put(1)
        inbox.put(2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await inbox.ready()
        return list(inbox.events)

    assert asyncio.run(main()) == [1, 2]


def test_a_driver_whose_run_is_over_does_nothing():
    run = dummy_run(program_of(a=ahere))

    async def main():
        driver = AsyncDriver(run, None, "sync")
        await driver.begin(1)
        await driver.drive()
        await driver.close()
        return await driver.advance()

    assert within(lambda: asyncio.run(main())) is False


def test_what_must_not_be_cut_short_fails_all_the_same():
    async def work(done, error):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done.append(True)
        if error is not None:
            raise error

    async def main(error, cancels):
        done = []
        task = asyncio.ensure_future(to_the_end(work(done, error)))
        await asyncio.sleep(0)
        if cancels:
            task.cancel()
        try:
            return done, await task
        except ValueError as failure:
            return done, failure

    error = ValueError("boom")
    assert asyncio.run(main(None, False)) == ([True], None)
    assert asyncio.run(main(error, False)) == asyncio.run(main(error, True)) == ([True], error)
    done, cancelled = asyncio.run(main(None, True))
    assert (done, type(cancelled)) == ([True], asyncio.CancelledError)
