"""Programs of plain functions: `@entrypoint` and `@task`, as a user writes them (frontends.md 1).

Decides what such programs return, show, store and run again. Bodies are written once, as generators (`Colour.script`).
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.cache.memory import InMemoryCache
from pregel.config import get_stream_writer
from pregel.engine import calls
from pregel.errors import EmptyInputError, NodeTimeoutError
from pregel.func import entrypoint, task
from pregel.graph import START, StateGraph
from pregel.runtime import Runtime
from pregel.store.memory import InMemoryStore
from pregel.types import CachePolicy, Command, RetryPolicy, interrupt
from pregel.warnings import PregelWarning
from tests.checkpoint.plain import PlainSaver
from tests.support.scenarios import Gate, Log, diagnosed, path_of, steps

AGAIN = RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=3, retry_on=OSError)


def answers(asked: Any) -> dict[str, str]:
    """Id -> answer, of all questions."""
    return {question.id: f"{question.value}!" for question in asked}


# ---- everywhere

SHAPES = ["root", "in a node", "node", "nested node"]


class Place:
    """A body, as an entrypoint or as a node, on a saver of its own; called anew each time, perhaps after a restart."""

    def __init__(self, colour, kind, durability, shape, folder):
        self.colour, self.kind, self.durability, self.shape = colour, kind, durability, shape
        self.file = str(folder / "threads.sqlite")
        self.memory = InMemorySaver()
        self.config = {"configurable": {"thread_id": "1"}}

    def graph(self, body, saver):
        script = self.colour.script(body)
        if self.shape == "root":
            return entrypoint(saver)(script)
        if self.shape == "in a node":
            inner = entrypoint()(script)

            def call(state):
                result = yield inner, state["l"][0]
                return {"l": [result]}

            node = self.colour.script(call)
        else:

            def act(state):
                result = yield from body(state["l"][0])
                return {"l": [result]}

            node = self.colour.script(act)
        graph = StateGraph(Log).add_node("n", node).add_edge(START, "n")
        if self.shape == "nested node":
            graph = StateGraph(Log).add_node("sub", graph.compile()).add_edge(START, "sub")
        return graph.compile(saver)

    def invoke(self, body, given):
        if not isinstance(given, Command) and given is not None and self.shape != "root":
            given = {"l": [given]}
        if self.kind == "memory":
            result = self.colour.invoke(self.graph(body, self.memory), given, self.config, durability=self.durability)
        else:
            with SqliteSaver(self.file) as saver:
                result = self.colour.invoke(self.graph(body, saver), given, self.config, durability=self.durability)
        if isinstance(result, dict) and "__interrupt__" in result:
            return result["__interrupt__"]
        return result if self.shape == "root" else result["l"][-1]


@pytest.fixture(params=SHAPES)
def shape(request):
    return request.param


@pytest.fixture(params=["memory", "restart"])
def place(colour, request, durability, shape, tmp_path):
    """Every place that a body may run in."""
    return Place(colour, request.param, durability, shape, tmp_path)


def test_what_has_finished_does_not_run_again_and_every_question_is_asked(place):
    ask_in_parts(place)


@pytest.mark.filterwarnings("ignore::pregel.warnings.PregelWarning")
def test_a_saver_with_langgraphs_methods_alone(colour, tmp_path):
    for shape in ("root", "nested node"):
        place = Place(colour, "memory", "sync", shape, tmp_path)
        place.memory = PlainSaver()
        ask_in_parts(place)


def ask_in_parts(place):
    """Ask three questions at once and a fourth one; answer one, then two, then the last."""
    ran = []

    @task
    @place.colour.node
    def fetch(n):
        ran.append(n)
        return n, [n]

    @task
    @place.colour.node
    def approve(what):
        return interrupt(what)

    def body(x):
        fetched = yield [fetch(n) for n in range(x)]
        first = yield [approve(what) for what in ("a", "b", "c")]
        last = yield approve("d")
        return [fetched, first, last]

    asked = place.invoke(body, 3)
    assert sorted(question.value for question in asked) == ["a", "b", "c"]
    one, *others = sorted(asked, key=lambda question: question.value, reverse=True)
    left = place.invoke(body, Command(resume=answers([one])))
    assert sorted(question.id for question in left) == sorted(question.id for question in others)
    (last,) = place.invoke(body, Command(resume=answers(left)))
    assert last.value == "d"
    result = place.invoke(body, Command(resume="bare"))
    assert result == [[(0, [0]), (1, [1]), (2, [2])], ["a!", "b!", "c!"], "bare"]
    assert sorted(ran) == [0, 1, 2]


# ---- calls and their results


def test_the_same_calls_in_another_order_get_their_own_results(colour, memory, thread):
    """Tasks are matched by what they are called with, not by position alone."""
    ran = []
    order = [1, 2]

    @task
    @colour.node
    def double(n):
        ran.append(n)
        return n * 2

    @entrypoint(memory)
    @colour.script
    def flow(_):
        results = yield [double(n) for n in order]
        return interrupt(results), results

    colour.invoke(flow, 0, thread)
    order.reverse()
    assert colour.invoke(flow, Command(resume="ok"), thread) == ("ok", [4, 2])
    assert sorted(ran) == [1, 2]


@pytest.mark.parametrize("batch", [False, True])
def test_a_call_with_other_arguments_runs(colour, memory, thread, batch):
    ran = []
    numbers = [1, 2]

    @task
    @colour.node
    def double(n):
        ran.append(n)
        return n * 2

    @entrypoint(memory)
    @colour.script
    def flow(_):
        if batch:
            results = yield [double(n) for n in numbers]
        else:
            results = []
            for n in numbers:
                results.append((yield double(n)))
        return interrupt(results), results

    colour.invoke(flow, 0, thread)
    numbers[1] = 3
    with diagnosed("flow", "double", "3"):
        assert colour.invoke(flow, Command(resume="ok"), thread) == ("ok", [2, 6])
    assert ran == [1, 2, 3]


@pytest.mark.parametrize("is_node", [False, True])
def test_strict_refuses_a_call_with_other_arguments(colour, memory, thread, is_node):
    numbers = [1]
    ran = []

    @task
    @colour.node
    def double(n):
        ran.append(n)
        return n * 2

    def body(state):
        result = yield double(numbers[0])
        return {"l": [interrupt(result)]}

    if is_node:
        graph = StateGraph(Log).add_node("act", colour.script(body)).add_edge(START, "act")
        graph = graph.compile(memory, strict=True)
    else:
        graph = entrypoint(memory, strict=True)(colour.script(body))
    colour.invoke(graph, {"l": []}, thread)
    numbers[0] = 2
    with pytest.raises(PregelWarning, match="double"):
        colour.invoke(graph, Command(resume="ok"), thread)
    numbers[0] = 1
    assert colour.invoke(graph, Command(resume="ok"), thread) == {"l": ["ok"]}
    assert ran == [1]


def test_results_that_were_stored_before_calls_had_keys(colour, saver, thread, monkeypatch):
    """They are found by their position and name, as in LangGraph."""
    ran = []

    @task
    @colour.node
    def work(n):
        ran.append(n)
        return n

    @entrypoint(saver)
    @colour.script
    def flow(x):
        results = yield [work(n) for n in range(3)]
        return [*results, interrupt("?")]

    with monkeypatch.context() as patch:
        patch.setattr(calls, "keyed", lambda run, scope, node, argument: (scope.count_call(None)[0], None, False))
        patch.setattr(calls, "row_path", lambda run, task: task.path_text)
        colour.invoke(flow, 0, thread)
    assert colour.invoke(flow, Command(resume=3), thread) == [0, 1, 2, 3]
    assert sorted(ran) == [0, 1, 2]


def test_equal_calls_are_told_apart_by_their_order(colour, memory, thread):
    ran = []

    @task
    @colour.node
    def number():
        ran.append(len(ran))
        return ran[-1]

    @entrypoint(memory)
    @colour.script
    def flow(_):
        results = []
        for _ in range(3):
            results.append((yield number()))
        return [*results, interrupt("?")]

    colour.invoke(flow, 0, thread)
    assert colour.invoke(flow, Command(resume=3), thread) == [0, 1, 2, 3]
    assert ran == [0, 1, 2]


def test_branches_that_go_on_in_another_order_get_their_own_results(memory, thread):
    """What one branch calls next depends on which was faster; no call gets the other branch's result, or its answer."""
    ran = []

    @task
    async def first(n):
        return n

    @task
    async def second(n):
        ran.append(n)
        return interrupt(n) if n >= 10 else n

    def flow_with(order, gates):
        @entrypoint(memory)
        async def flow(_):
            async def branch(n):
                await first(n)
                await gates[n].wait_async()
                result = await second(n)
                gates[order[order.index(n) + 1] if n != order[-1] else n].set()
                return result

            results = await asyncio.gather(*(branch(n) for n in (1, 2, 3)))
            return results, interrupt("?")

        return flow

    for order in ([1, 2, 3], [3, 1, 2]):
        gates = {n: Gate() for n in order}
        gates[order[0]].set()
        given = 0 if order == [1, 2, 3] else Command(resume="ok")
        result = asyncio.run(flow_with(order, gates).ainvoke(given, thread))
    assert result == ([1, 2, 3], "ok")
    assert sorted(ran) == [1, 2, 3]


def test_a_prompt_that_changes_can_be_answered(colour, memory, thread):
    """The draft is made anew whenever the body runs: the question keeps its place, like one of the body itself."""
    drafts = iter(range(10))

    @task
    @colour.node
    def review(draft):
        return interrupt(draft)

    @entrypoint(memory)
    @colour.script
    def flow(_):
        draft = f"draft {next(drafts)}"
        return (draft, (yield review(draft)))

    colour.invoke(flow, 0, thread)
    with diagnosed("review", "draft 1"):
        assert colour.invoke(flow, Command(resume="fine"), thread) == ("draft 1", "fine")


def test_a_failed_call_runs_again_and_the_others_do_not(place):
    ran = []
    broken = [True]

    @task
    @place.colour.node
    def work(n):
        ran.append(n)
        if n == 1 and broken.pop():
            raise OSError("down")
        return n

    def body(x):
        results = []
        for n in range(x):
            results.append((yield work(n)))
        return results

    broken.append(False)
    broken.reverse()
    with pytest.raises(OSError, match="down"):
        place.invoke(body, 3)
    assert place.invoke(body, None) == [0, 1, 2]
    assert ran == [0, 1, 1, 2]


def test_a_further_attempt_of_the_caller_finds_what_has_finished(place):
    """Also what is still running, which is not started twice."""
    ran = []

    @task
    @place.colour.node
    def work(n):
        ran.append(n)
        return [n]

    attempts = []

    def body(x):
        futures = [work(n) for n in range(x)]
        results = yield futures
        results[0].append("edited by an attempt that failed")
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError("again")
        return results

    if place.shape == "root":
        flow = entrypoint(place.memory, retry_policy=AGAIN)(place.colour.script(body))
        result = place.colour.invoke(flow, 3, place.config, durability=place.durability)
    else:

        def act(state):
            result = yield from body(3)
            return {"l": [result]}

        graph = StateGraph(Log).add_node("n", place.colour.script(act), retry_policy=AGAIN).add_edge(START, "n")
        saver = None if place.shape == "node" else place.memory
        result = place.colour.invoke(graph.compile(saver), {"l": []}, place.config)["l"][-1]
    assert result == [[0, "edited by an attempt that failed"], [1], [2]]
    assert sorted(ran) == [0, 1, 2]


def test_a_further_attempt_waits_for_a_call_that_is_still_running(colour):
    ran = []
    free = Gate()

    @task
    @colour.script
    def slow(n):
        ran.append(n)
        yield free
        return n

    attempts = []

    @entrypoint(retry_policy=AGAIN)
    @colour.script
    def flow(_):
        future = slow(7)
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError
        free.set()
        return (yield future)

    assert colour.invoke(flow, 0) == 7
    assert ran == [7]


@pytest.mark.parametrize("stored", [False, True])
def test_a_further_attempt_after_a_time_limit_waits_for_what_is_running(colour, thread, stored):
    ran, attempts = [], []
    free = Gate()

    @task
    @colour.script
    def slow(n):
        ran.append(n)
        yield free
        return n

    again = RetryPolicy(initial_interval=0.0, jitter=False, retry_on=NodeTimeoutError)

    @entrypoint(InMemorySaver() if stored else None, retry_policy=again, timeout=0.05)
    @colour.script
    def flow(_):
        attempts.append(1)
        future = slow(7)
        if len(attempts) == 2:
            free.set()
        return (yield future)

    assert colour.invoke(flow, 0, thread) == 7
    assert (ran, len(attempts)) == ([7], 2)


def test_a_cancelled_run_keeps_what_has_finished(saver, thread):
    ran = []
    started = asyncio.Event()

    @task
    async def work(n):
        ran.append(n)
        if n == 2 and ran.count(2) == 1:
            started.set()
            await asyncio.Event().wait()
        return n

    @entrypoint(saver)
    async def flow(x):
        first = await work(1)
        return [first, *await asyncio.gather(work(2), work(3))]

    async def cancel():
        running = asyncio.ensure_future(flow.ainvoke(0, thread))
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancel())
    assert flow.get_state(thread).next == ("flow",)
    assert asyncio.run(flow.ainvoke(None, thread)) == [1, 2, 3]
    assert ran.count(1) == 1


def test_arguments_and_results_are_the_tasks_own(colour, memory, thread):
    """What the caller does to them afterwards reaches neither the task nor what is stored."""
    free = Gate()

    @task
    @colour.script
    def collect(items, *, more):
        yield free
        return [*items, *more["x"]]

    @entrypoint(memory)
    @colour.script
    def flow(_):
        items, more = [1], {"x": [2]}
        future = collect(items, more=more)
        items.append("late")
        more["x"].append("late")
        free.set()
        result = yield future
        seen = list(result)
        result.append("edited")
        return seen, interrupt("?")

    for durability in ("exit", "sync"):
        config = {"configurable": {"thread_id": durability}}
        colour.invoke(flow, 0, config, durability=durability)
        assert colour.invoke(flow, Command(resume=3), config, durability=durability) == ([1, 2], 3)


def test_each_attempt_of_a_task_has_its_own_arguments(colour):
    @task(retry_policy=AGAIN)
    @colour.node
    def work(items):
        items.append(len(items))
        if get_attempt() < 3:
            raise OSError
        return items

    def get_attempt():
        from pregel.runtime import get_runtime

        return get_runtime().execution_info.node_attempt

    @entrypoint()
    @colour.script
    def flow(_):
        return (yield work([7]))

    assert colour.invoke(flow, 0) == [7, 1]


# ---- futures


def test_errors_of_tasks(colour, memory, thread):
    """The same object, with a note; caught by the caller or not, awaited or not."""
    error = OSError("down")

    @task
    @colour.node
    def fail():
        raise error

    @entrypoint(memory)
    @colour.script
    def flow(how):
        future = fail()
        if how == "forgotten":
            return "done"
        try:
            yield future
        except OSError as caught:
            if how == "caught":
                try:
                    yield future
                except OSError as again:
                    return caught is again is error
            raise
        return "unreachable"

    assert colour.invoke(flow, "forgotten", thread) == "done"
    assert colour.invoke(flow, "caught", thread) is True
    with pytest.raises(OSError, match="down") as raised:
        colour.invoke(flow, "raised", thread)
    assert raised.value is error
    assert sum("'fail'" in note for note in error.__notes__) >= 1
    assert any("'flow'" in note for note in error.__notes__)
    (failed,) = colour.get_state(flow, thread).tasks
    assert "down" in str(failed.error)


def test_waiting_with_a_limit():
    free = threading.Event()

    @task
    def slow():
        free.wait(5)
        return 1

    @entrypoint()
    def flow(_):
        future = slow()
        assert isinstance(future, Future)
        with pytest.raises(TimeoutError):
            future.result(timeout=0.001)
        assert future.cancel() is False
        free.set()
        return future.result() + future.result()

    assert flow.invoke(0) == 2


def test_futures_of_both_kinds_in_an_async_run():
    @task
    async def on_loop(n):
        return n, threading.get_ident()

    @task
    def in_thread(n):
        return n, threading.get_ident()

    @entrypoint()
    async def flow(_):
        futures = [on_loop(1), in_thread(2)]
        assert all(isinstance(future, asyncio.Future) for future in futures)
        return await asyncio.gather(*futures)

    @entrypoint()
    def sync_flow(_):
        futures = [on_loop(1), in_thread(2)]
        assert all(isinstance(future, Future) for future in futures)
        return [future.result(5) for future in futures]

    for graph in (flow, sync_flow):
        (one, here), (two, there) = asyncio.run(graph.ainvoke(0))
        assert (one, two) == (1, 2)
        assert here == threading.get_ident() != there


def test_a_caller_on_the_loop_that_gives_up_leaves_the_task_running(memory, thread):
    free = asyncio.Event()
    ended = []

    @task
    async def slow():
        await free.wait()
        ended.append(1)

    @entrypoint(memory)
    async def flow(_):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow(), 0.001)
        free.set()
        return "done"

    assert asyncio.run(flow.ainvoke(0, thread)) == "done"
    assert ended == [1]


@pytest.mark.parametrize("limit", [1, 2, 3, None])
def test_no_limit_makes_waiting_callers_deadlock(colour, limit):
    running, most = [], []

    @task
    @colour.script
    def leaf(n):
        running.append(n)
        most.append(len(running))
        yield opened
        running.remove(n)
        return n

    @task
    @colour.script
    def branch(n):
        if n == 0:
            return (yield leaf(0))
        return sum((yield [branch(n - 1), branch(n - 1)]))

    @entrypoint()
    @colour.script
    def flow(x):
        return (yield [branch(x), leaf(1), leaf(2)])

    opened = Gate()
    opened.set()
    config = {} if limit is None else {"max_concurrency": limit}
    assert colour.invoke(flow, 3, config) == [0, 1, 2]
    assert max(most) <= (limit or 100)


@pytest.mark.parametrize("limit", [1, 2, None])
def test_waits_of_the_standard_library(limit):
    @task
    def leaf(n):
        return n

    @entrypoint()
    def flow(x):
        done, waiting = wait_for([leaf(n) for n in range(x)], timeout=5)
        assert not waiting
        return sorted(future.result() for future in done)

    config = {} if limit is None else {"max_concurrency": limit}
    assert flow.invoke(20, config) == list(range(20))
    assert list(flow.stream(20, config, stream_mode="values")) == [list(range(20))]


def test_unfinished_async_tasks_of_a_caller_that_fails_are_cancelled(memory, thread):
    cancelled = []

    @task
    async def slow():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    @entrypoint(memory)
    async def flow(_):
        slow()
        await asyncio.sleep(0)
        raise OSError("down")

    async def run():
        with pytest.raises(OSError, match="down"):
            await asyncio.wait_for(flow.ainvoke(0, thread), 5)

    asyncio.run(run())
    assert cancelled == [1]
    assert [row[1] for row in memory.get_tuple(thread).pending_writes] == ["__error__"]


def test_sync_tasks_of_a_caller_that_fails_are_waited_for_and_stored(memory, thread):
    free = threading.Event()

    @task
    def slow():
        free.wait(5)
        return 1

    @entrypoint(memory)
    def flow(_):
        slow()
        free.set()
        raise OSError("down")

    with pytest.raises(OSError, match="down"):
        flow.invoke(0, thread)
    rows = memory.get_tuple(thread).pending_writes
    assert sorted(channel for _, channel, _ in rows) == ["__error__", "__return__"]


def test_limits_of_time(colour):
    @task(timeout=0.01)
    @colour.script
    def hang(_):
        yield Gate()

    @entrypoint()
    @colour.script
    def flow(_):
        try:
            yield hang(0)
        except NodeTimeoutError as error:
            return error.node

    assert colour.invoke(flow, 0) == "hang"


@pytest.mark.parametrize("catches", [False, True])
def test_a_result_that_cannot_be_stored(colour, memory, thread, durability, catches, caplog):
    """The run ends with the saver's error, which names the task; what others have finished is kept."""
    ran = []

    @task
    @colour.node
    def live():
        return lambda: None

    @task
    @colour.node
    def fine():
        ran.append(1)
        return 1

    @entrypoint(memory)
    @colour.script
    def flow(x):
        yield fine()
        try:
            return (yield live())() if x else (yield live())
        except TypeError:
            if not catches:
                raise
            return "caught"

    with pytest.raises(TypeError, match="function"):
        colour.invoke(flow, 0, thread, durability=durability)
    assert caplog.records == []
    if durability != "exit":
        rows = memory.get_tuple(thread).pending_writes
        assert [value for _, channel, value in rows if channel == "__return__"] == [1]


def test_values_of_user_classes_come_back_as_such(colour, tmp_path, thread):
    """Also of classes that are defined where the functions are, after a restart."""

    @dataclass
    class Draft:
        text: str

    class Rating(BaseModel):
        stars: int

    seen = []

    def flow_on(saver):
        @task
        @colour.node
        def draft(n: int) -> Draft:
            return Draft("x" * n)

        @task
        @colour.node
        def rate(draft: Draft) -> dict[str, Rating]:
            return {draft.text: Rating(stars=3)}

        @entrypoint(saver)
        @colour.script
        def flow(n: int, previous: Rating | None = None) -> Rating:
            made = yield draft(n)
            rated = yield rate(made)
            seen.append((type(made), rated["xx"], previous))
            interrupt("?")
            return rated["xx"]

        return flow

    for given in (2, Command(resume=0), 2):
        with SqliteSaver(str(tmp_path / "t.sqlite")) as saver:
            colour.invoke(flow_on(saver), given, thread)
    assert seen == [(Draft, Rating(stars=3), None)] * 2 + [(Draft, Rating(stars=3), Rating(stars=3))]


def test_nothing_is_left_for_the_collector(colour):
    """No cycles through tasks, futures, errors and runs."""

    @task
    @colour.node
    def work(n):
        if n == 0:
            raise OSError
        return n

    attempts = []

    @entrypoint(retry_policy=AGAIN)
    @colour.script
    def flow(x):
        try:
            yield work(0)
        except OSError:
            results = yield [work(1), work(2)]
        attempts.append(1)
        if len(attempts) % 2:
            raise OSError
        return results

    async def run(times):
        for _ in range(times):
            if colour.is_async:
                await flow.ainvoke(0)
            else:
                flow.invoke(0)

    async def measure():
        await run(3)
        gc.collect()
        gc.disable()
        try:
            await run(10)
            return gc.collect()
        finally:
            gc.enable()

    # What an earlier test has left may go at any time; what a run leaves, it leaves each time.
    assert min(asyncio.run(measure()) for _ in range(3)) <= 10


# ---- an entrypoint


def test_previous_and_final(colour, saver, thread):
    @entrypoint(saver)
    @colour.node
    def flow(x, *, previous: int | None = None):
        if x == "plain":
            return previous
        return entrypoint.final(value={"given": x, "previous": previous}, save=(previous or 0) + x)

    assert colour.invoke(flow, 1, thread) == {"given": 1, "previous": None}
    assert colour.get_state(flow, thread).values == {"given": 1, "previous": None}
    assert colour.stream(flow, 2, thread) == [{"flow": {"given": 2, "previous": 1}}]
    colour.update_state(flow, thread, entrypoint.final(value="shown", save=10))
    assert colour.get_state(flow, thread).values == "shown"
    assert colour.invoke(flow, 3, thread)["previous"] == 10
    assert colour.invoke(flow, "plain", thread) == 13
    assert colour.invoke(flow, 4, thread)["previous"] == 13


def test_final_may_save_none(colour, memory, thread):
    @entrypoint(memory)
    @colour.node
    def flow(x, previous):
        return entrypoint.final(value=previous, save=None if x else "kept")

    assert [colour.invoke(flow, x, thread) for x in (0, 1, 2)] == [None, "kept", None]


def test_previous_stays_while_a_run_is_open(colour, saver, thread):
    """Also in tasks, which see their caller's; a new input drops the question."""

    @task
    @colour.node
    def look(previous):
        return previous

    @entrypoint(saver)
    @colour.script
    def flow(x, previous):
        if x == "ask":
            interrupt("?")
        return (x, previous, (yield look()))

    assert colour.invoke(flow, 1, thread) == (1, None, None)
    first = (1, None, None)
    colour.invoke(flow, "ask", thread)
    assert colour.invoke(flow, Command(resume=0), thread) == ("ask", first, first)
    colour.invoke(flow, "ask", thread)
    assert colour.invoke(flow, 2, thread)[:2] == (2, ("ask", first, first))
    assert colour.get_state(flow, thread).next == ()


def test_an_attempt_that_edits_previous_leaves_it_to_the_next(colour, memory, thread):
    attempts = []

    @entrypoint(memory, retry_policy=AGAIN)
    @colour.node
    def flow(x, previous):
        attempts.append(x)
        seen = list(previous or [])
        (previous or []).append("edited")
        if len(attempts) == 2:
            raise OSError
        return [*seen, x]

    colour.invoke(flow, 1, thread)
    assert colour.invoke(flow, 2, thread) == [1, 2]
    assert attempts == [1, 2, 2]


def test_an_update_on_a_fresh_thread_is_previous(colour, memory, thread):
    @entrypoint(memory)
    @colour.node
    def flow(x, previous):
        return previous

    colour.update_state(flow, thread, 7)
    assert colour.get_state(flow, thread).values == 7
    assert colour.invoke(flow, 0, thread) == 7


def test_an_update_ends_an_open_run(colour, memory, thread):
    @entrypoint(memory)
    @colour.node
    def flow(x):
        return interrupt("?")

    colour.invoke(flow, 0, thread)
    assert colour.get_state(flow, thread).next == ("flow",)
    colour.update_state(flow, thread, "forced")
    snapshot = colour.get_state(flow, thread)
    assert (snapshot.values, snapshot.next, snapshot.metadata["source"]) == ("forced", (), "update")


def test_what_is_stored(colour, saver, thread):
    """Two checkpoints per run; results of tasks are pending writes of the first."""

    @task
    @colour.node
    def add(n):
        return n + 1

    @entrypoint(saver)
    @colour.script
    def flow(x):
        return interrupt((yield add(x)))

    colour.invoke(flow, 1, thread)
    stored = saver.get_tuple(thread)
    assert stored.checkpoint["channel_values"] == {"__start__": 1}
    (asked, _), returned = sorted((channel, value) for _, channel, value in stored.pending_writes)
    assert (asked, returned) == ("__interrupt__", ("__return__", 2))
    (shown,) = colour.get_state(flow, thread).tasks
    assert (shown.name, shown.result, [question.value for question in shown.interrupts]) == ("flow", None, [2])
    assert colour.invoke(flow, Command(resume="yes"), thread) == "yes"
    assert colour.invoke(flow, 5, thread)["__interrupt__"]
    colour.invoke(flow, Command(resume="no"), thread)
    entries = colour.history(flow, thread)
    assert steps(entries) == [("loop", 2), ("input", 1), ("loop", 0), ("input", -1)]
    assert [entry.values for entry in entries] == ["no", "yes", "yes", None]
    assert entries[-1].tasks[0].result == "yes"
    assert saver.get_tuple(thread).checkpoint["channel_values"] == {"__end__": "no", "__previous__": "no"}


def test_a_resume_stores_nothing_anew_for_what_has_finished(memory, thread):
    ran = []

    @task
    def add(n):
        ran.append(n)
        return n

    @entrypoint(memory)
    def flow(x):
        total = sum(add(n).result() for n in range(x))
        return interrupt("?") + total

    flow.invoke(3, thread)
    before = [row for row in memory.get_tuple(thread).pending_writes if row[1] == "__return__"]
    events = list(flow.stream(Command(resume=10), thread, stream_mode=["tasks", "updates"]))
    assert ran == [0, 1, 2]
    assert len(before) == 3
    started = [event["name"] for mode, event in events if mode == "tasks" and "input" in event]
    ended = [event["name"] for mode, event in events if mode == "tasks" and "result" in event]
    assert (started, ended) == (["flow", "add", "add", "add"], ["flow"])
    assert [event for mode, event in events if mode == "updates"] == [{"flow": 13}]


def test_one_step_is_enough(colour, memory, thread):
    @task
    @colour.node
    def add(n):
        return n + 1

    @entrypoint(memory)
    @colour.script
    def flow(x):
        return (yield add((yield add(x))))

    assert colour.invoke(flow, 0, {**thread, "recursion_limit": 1}) == 2


def test_no_input(colour, memory, thread):
    @entrypoint(memory)
    @colour.node
    def flow(x):
        return x

    with pytest.raises(EmptyInputError):
        colour.invoke(flow, None, thread)


def test_a_command_is_a_value_like_any_other(colour):
    @entrypoint()
    @colour.node
    def flow(x):
        return Command(goto="nowhere")

    assert colour.invoke(flow, 0) == Command(goto="nowhere")


def test_a_sync_call_of_an_async_entrypoint():
    @entrypoint()
    async def flow(x):
        return x

    with pytest.raises(TypeError, match="flow"):
        flow.invoke(0)


def test_an_async_task_in_a_sync_run():
    @task
    async def work():
        return 1

    @entrypoint()
    def flow(x):
        with pytest.raises(RuntimeError, match="work"):
            work()
        return "went on"

    assert flow.invoke(0) == "went on"


# ---- results that are not computed again


def test_cached_tasks(colour, memory):
    """Over threads, resumes and runs; the entrypoint's policy is that of tasks without one, and its own."""
    ran = []
    cache = InMemoryCache()

    @task(cache_policy=CachePolicy())
    @colour.node
    def slow(n):
        ran.append(n)
        return n * 2

    @task
    @colour.node
    def other(n):
        ran.append(("other", n))
        return n

    @entrypoint(memory, cache=cache)
    @colour.script
    def flow(x):
        results = yield [slow(x), slow(x + 1), other(x)]
        return [*results, interrupt("?")]

    for number in range(3):
        thread = {"configurable": {"thread_id": str(number)}}
        colour.invoke(flow, 1, thread)
        assert colour.invoke(flow, Command(resume="!"), thread) == [2, 4, 1, "!"]
    assert sorted(n for n in ran if isinstance(n, int)) == [1, 2]
    assert ran.count(("other", 1)) == 3
    chunks = colour.stream(flow, 1, {"configurable": {"thread_id": "4"}})
    assert {"slow": 2, "__metadata__": {"cached": True}} in chunks
    slow.clear_cache(cache)
    colour.invoke(flow, 1, {"configurable": {"thread_id": "5"}})
    assert ran.count(1) == 2
    asyncio.run(slow.aclear_cache(cache))
    colour.invoke(flow, 1, {"configurable": {"thread_id": "6"}})
    assert ran.count(1) == 3


def test_a_cached_entrypoint(colour):
    ran = []

    @task
    @colour.node
    def work(n):
        ran.append(n)
        return n

    @entrypoint(cache=InMemoryCache(), cache_policy=CachePolicy())
    @colour.script
    def flow(x):
        ran.append("flow")
        return sum((yield [work(1), work(x)]))

    assert [colour.invoke(flow, x) for x in (2, 2, 3)] == [3, 3, 4]
    assert (ran.count("flow"), ran.count(1), ran.count(2), ran.count(3)) == (2, 1, 1, 1)


# ---- what is injected


def test_what_tasks_and_entrypoints_get_by_name(colour, thread):
    seen = []

    @task
    @colour.node
    def look(a, *, config, writer, store, runtime: Runtime[Any], previous):
        writer(config["metadata"]["langgraph_node"])
        seen.append((a, runtime.context, runtime.execution_info.node_attempt, previous, store.get(("a",), "k").value))
        return get_stream_writer() is not None

    store = InMemoryStore()
    store.put(("a",), "k", {"v": 1})

    @entrypoint(InMemorySaver(), store=store)
    @colour.script
    def flow(x, *, runtime, config):
        assert config["configurable"]["thread_id"] == "1"
        return (yield look(x))

    chunks = colour.stream(flow, 1, thread, context={"c": 1}, stream_mode=["custom", "updates"])
    assert chunks == [("custom", "look"), ("updates", {"look": True}), ("updates", {"flow": True})]
    assert seen == [(1, {"c": 1}, 1, None, {"v": 1})]


def test_what_the_caller_passes_wins(colour):
    @task
    @colour.node
    def look(a, config=None, *, previous=1):
        return a, config, previous

    @entrypoint()
    @colour.script
    def flow(x):
        return (yield [look(1, "mine", previous=None), look(2, config=None), look(a=3, config=4, previous=5)])

    first, (two, none, previous), third = colour.invoke(flow, 0)
    assert (first, two, none, previous, third) == ((1, "mine", None), 2, None, None, (3, 4, 5))


def test_keyword_arguments_are_the_functions_own(colour):
    @task
    @colour.node
    def look(**given):
        return given

    @entrypoint()
    @colour.script
    def flow(x):
        return (yield look(timeout=1, name="n", config=2, retry_policy=3, func=4, self=5))

    assert colour.invoke(flow, 0) == {"timeout": 1, "name": "n", "config": 2, "retry_policy": 3, "func": 4, "self": 5}


# ---- what is shown


def test_streams(colour, memory, thread):
    @task
    @colour.node
    def add(n, by=1):
        return n + by

    @task(name="renamed")
    @colour.node
    def nothing():
        return None

    @entrypoint(memory)
    @colour.script
    def flow(x):
        one = yield add(x)
        two = yield add(one, by=2)
        yield nothing()
        return {"sum": two}

    both = colour.stream(flow, 1, thread, stream_mode=["updates", "values"])
    assert both == [
        ("updates", {"add": 2}),
        ("updates", {"add": 4}),
        ("updates", {"renamed": None}),
        ("updates", {"flow": {"sum": 4}}),
        ("values", {"sum": 4}),
    ]
    events = colour.stream(flow, 1, {"configurable": {"thread_id": "2"}}, stream_mode="tasks")
    assert [(event["name"], event.get("input"), event.get("result"), event.get("triggers")) for event in events] == [
        ("flow", 1, None, ("__start__",)),
        ("add", ((1,), {}), None, ("__pregel_push",)),
        ("add", None, {"__return__": 2}, None),
        ("add", ((2,), {"by": 2}), None, ("__pregel_push",)),
        ("add", None, {"__return__": 4}, None),
        ("renamed", ((), {}), None, ("__pregel_push",)),
        ("renamed", None, {"__return__": None}, None),
        ("flow", None, {"__end__": {"sum": 4}}, None),
    ]
    checkpoints = colour.stream(flow, 1, {"configurable": {"thread_id": "3"}}, stream_mode="checkpoints")
    assert [(c["metadata"]["step"], c["next"], c["values"]) for c in checkpoints] == [
        (-1, ["flow"], None),
        (0, [], {"sum": 4}),
    ]


def test_chunks_come_while_the_body_is_busy(colour):
    shown, free = [], Gate()

    @task
    @colour.node
    def quick():
        return 1

    @entrypoint()
    @colour.script
    def flow(x):
        yield quick()
        yield free
        return 2

    def take(chunk):
        shown.append(chunk)
        free.set()

    if colour.is_async:

        async def drain():
            async for chunk in flow.astream(0):
                take(chunk)

        asyncio.run(drain())
    else:
        for chunk in flow.stream(0):
            take(chunk)
    assert shown == [{"quick": 1}, {"flow": 2}]


def test_questions_are_shown(colour, memory, thread):
    @task
    @colour.node
    def ask(what):
        return interrupt(what)

    @entrypoint(memory)
    @colour.script
    def flow(x):
        return (yield [ask("a"), ask("b")])

    chunks = colour.stream(flow, 0, thread, stream_mode=["updates", "values", "tasks"])
    asked = [q.value for mode, c in chunks if mode == "updates" for q in c["__interrupt__"]]
    assert sorted(asked) == ["a", "b"]
    values = [c for mode, c in chunks if mode == "values"]
    assert all(c.keys() == {"__interrupt__"} for c in values)
    ended = [c for mode, c in chunks if mode == "tasks" and "result" in c]
    assert {c["name"] for c in ended} == {"flow"}
    assert ended[-1]["result"] == {}
    resumed = Command(resume=answers(colour.get_state(flow, thread).interrupts))
    assert colour.stream(flow, resumed, thread, stream_mode="values") == [None, ["a!", "b!"]]


def test_tasks_of_nodes_are_shown_like_those_of_entrypoints(colour):
    @task
    @colour.node
    def add(n):
        return n + 1

    @colour.script
    def node(state):
        return {"l": [(yield add(1))]}

    inner = StateGraph(Log).add_node("n", node).add_edge(START, "n").compile()
    outer = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").compile()
    assert colour.stream(inner, {"l": []}, stream_mode="updates") == [{"add": 2}, {"n": {"l": [2]}}]
    chunks = colour.stream(outer, {"l": []}, stream_mode="updates", subgraphs=True)
    assert [(path_of(ns), chunk) for ns, chunk in chunks] == [
        (("sub",), {"add": 2}),
        (("sub",), {"n": {"l": [2]}}),
        ((), {"sub": {"l": [2]}}),
    ]


def test_custom_chunks_of_tasks_have_the_namespace_of_their_graph(colour):
    """So they come with and without `subgraphs=True`."""

    @task
    @colour.node
    def say(word, writer):
        writer(word)

    @entrypoint()
    @colour.script
    def inner(x):
        yield say(x)

    @entrypoint()
    @colour.script
    def outer(x):
        yield say("outer")
        yield inner, "inner"

    assert colour.stream(outer, 0, stream_mode="custom") == ["outer"]
    chunks = colour.stream(outer, 0, stream_mode="custom", subgraphs=True)
    assert [(path_of(ns), chunk) for ns, chunk in chunks] == [((), "outer"), (("outer",), "inner")]


def test_breakpoints_are_named_after_the_function(colour, memory, thread):
    @entrypoint(memory)
    @colour.node
    def flow(x):
        return x + 1

    assert colour.invoke(flow, 1, thread, interrupt_before="flow") is None
    assert colour.get_state(flow, thread).next == ("flow",)
    assert colour.invoke(flow, None, thread) == 2


# ---- graphs, entrypoints and tasks inside of each other


@pytest.mark.parametrize("checkpointer", [None, True, False])
def test_an_entrypoint_in_a_task_in_an_entrypoint(colour, saver, thread, checkpointer):
    ran = []

    @task
    @colour.node
    def leaf(n):
        ran.append(n)
        return n

    @entrypoint(checkpointer)
    @colour.script
    def inner(x, previous):
        n = yield leaf(x)
        return (n, interrupt(f"inner {x}") if x < 3 else None, previous)

    @task
    @colour.script
    def middle(x):
        return (yield inner, x)

    @entrypoint(saver)
    @colour.script
    def outer(x):
        first = yield middle(1)
        second = yield middle(3)
        return [first, second]

    (question,) = colour.invoke(outer, 0, thread)["__interrupt__"]
    assert question.value == "inner 1"
    first, second = colour.invoke(outer, Command(resume="yes"), thread)
    assert (first, second[:2]) == ((1, "yes", None), (3, None))
    assert second[2] == ((1, "yes", None) if checkpointer is True else None)
    assert ran == ([1, 1, 3] if checkpointer is False else [1, 3])


def test_several_calls_of_one_graph_in_one_body(colour, saver, thread):
    @entrypoint()
    @colour.node
    def inner(x):
        return interrupt(x)

    @entrypoint(saver)
    @colour.script
    def outer(_):
        one = yield inner, "a"
        two = yield inner, "b"
        return [one, two]

    assert [q.value for q in colour.invoke(outer, 0, thread)["__interrupt__"]] == ["a"]
    assert [q.value for q in colour.invoke(outer, Command(resume=1), thread)["__interrupt__"]] == ["b"]
    assert colour.invoke(outer, Command(resume=2), thread) == [1, 2]


def test_the_state_of_a_graph_that_the_function_names(colour, saver, thread):
    @entrypoint()
    @colour.node
    def inner(x):
        return interrupt("?")

    if colour.is_async:

        async def outer(x):
            return await inner.ainvoke(x)

    else:

        def outer(x):
            return inner.invoke(x)

    graph = entrypoint(saver)(outer)
    assert [name for name, _ in graph.get_subgraphs()] == ["outer"]
    colour.invoke(graph, 1, thread)
    (shown,) = colour.get_state(graph, thread, subgraphs=True).tasks
    assert (shown.state.next, shown.state.interrupts[0].value) == (("inner",), "?")
    colour.update_state(graph, shown.state.config, "forced")
    assert colour.invoke(graph, None, thread) == "forced"


def test_an_entrypoint_is_a_node(colour, memory, thread):
    @task
    @colour.node
    def add(n):
        return n + 1

    @entrypoint()
    @colour.script
    def step(state):
        return {"l": [(yield add(len(state["l"])))]}

    graph = StateGraph(Log).add_node("step", step).add_edge(START, "step").compile(memory)
    assert colour.invoke(graph, {"l": ["in"]}, thread) == {"l": ["in", 2]}


def test_keys_of_calls_are_equal_when_they_run_again_and_differ_otherwise(colour, memory, thread):
    keys: dict[Any, set[str]] = {}

    @task(retry_policy=AGAIN)
    @colour.node
    def pay(n, runtime):
        keys.setdefault(n, set()).add(runtime.idempotency_key)
        if runtime.execution_info.node_attempt == 1:
            raise OSError
        return interrupt(n)

    order = [1, 2]

    @entrypoint(memory)
    @colour.script
    def flow(_):
        return (yield [pay(n) for n in order])

    asked = colour.invoke(flow, 0, thread)["__interrupt__"]
    order.reverse()
    colour.invoke(flow, Command(resume=answers(asked)), thread)
    assert [len(found) for found in keys.values()] == [1, 1]
    assert keys[1] != keys[2]


def test_tasks_in_user_threads(colour):
    """A thread that has the context of the body may call tasks; one that has not is told so."""
    import contextvars

    @task
    def leaf(n):
        return n

    @entrypoint()
    def flow(x):
        context, results = contextvars.copy_context(), []
        helper = threading.Thread(target=lambda: results.append(context.run(lambda: leaf(x).result())))
        helper.start()
        helper.join(5)
        with pytest.raises(RuntimeError, match="leaf"):
            contextvars.Context().run(leaf, 1)
        return results

    assert colour.invoke(flow, 4) == [4]


def test_leaving_a_stream_early_keeps_what_has_finished(memory, thread):
    ran = []

    @task
    def work(n):
        ran.append(n)
        return n

    @entrypoint(memory)
    def flow(x):
        return sum(work(n).result() for n in range(x))

    for _ in flow.stream(3, thread):
        break
    deadline = time.monotonic() + 5
    while flow.invoke(None, thread) != 3 and time.monotonic() < deadline:
        pass
    assert ran.count(0) == 1
