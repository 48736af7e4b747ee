"""What a superstep may cost, counted in ways that no machine changes: calls, frames, commits, modules.

Costs per superstep are differences between a longer and a shorter run of the same graph, so that what a run costs once
does not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import pytest

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.cache.memory import InMemoryCache
from pregel.callbacks import GraphCallbackHandler
from pregel.errors import GraphRecursionError
from pregel.func import entrypoint, task
from pregel.graph import END, START, StateGraph
from pregel.types import CachePolicy, RetryPolicy

ROOT = Path(__file__).resolve().parent.parent
SHORT, LONG = 100, 300


class State(TypedDict, total=False):
    n: int


def chain(length: int, *, is_async: bool = False, saver: object = None):
    """A chain of nodes that do nothing (with a saver: count, so that every superstep stores a change)."""

    def nothing(state):
        return {"n": state["n"] + 1} if saver else None

    async def anothing(state):
        return nothing(state)

    builder = StateGraph(State)
    names = [f"n{i}" for i in range(length)]
    for name in names:
        builder.add_node(name, anothing if is_async else nothing)
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    return builder.compile(checkpointer=saver)


def loop(steps: int, *, is_async: bool = False, callbacks: object = None):
    """Two nodes that do nothing, in turn, until the step limit ends it."""

    def nothing(state):
        return None

    async def anothing(state):
        return None

    builder = StateGraph(State)
    for name in ("a", "b"):
        builder.add_node(name, anothing if is_async else nothing)
    for source, target in ((START, "a"), ("a", "b"), ("b", "a")):
        builder.add_edge(source, target)
    graph = builder.compile()

    config = {"recursion_limit": steps, "callbacks": callbacks}

    def invoke() -> None:
        if is_async:
            asyncio.run(graph.ainvoke({"n": 0}, config))
        else:
            graph.invoke({"n": 0}, config)

    def run() -> None:
        with pytest.raises(GraphRecursionError):
            invoke()

    return run


def profile(call: Callable[[], None]) -> Counter[tuple[str, str]]:
    """(kind, where) -> count, for Python frames entered ("call") and builtins called ("c_call")."""
    seen: Counter[tuple[str, str]] = Counter()

    def trace(frame, event, arg):
        if event == "call":
            seen[event, f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}"] += 1
        elif event == "c_call":
            seen[event, getattr(arg, "__qualname__", repr(arg))] += 1

    call()  # what is done once per graph has been done
    gc.collect()
    gc.disable()  # what goes with the garbage of other tests is not ours
    sys.setprofile(trace)
    try:
        call()
    finally:
        sys.setprofile(None)
        gc.enable()
    return seen


def per_superstep(is_async: bool, callbacks: object = None) -> dict[tuple[str, str], float]:
    return difference(
        profile(loop(LONG, is_async=is_async, callbacks=callbacks)),
        profile(loop(SHORT, is_async=is_async, callbacks=callbacks)),
    )


def difference(long: Counter[tuple[str, str]], short: Counter[tuple[str, str]]) -> dict[tuple[str, str], float]:
    long.subtract(short)
    costs = {key: count / (LONG - SHORT) for key, count in long.items()}
    # What happens once or twice in a run differs from run to run: the event loop looks for tasks that are left.
    return {key: cost for key, cost in costs.items() if abs(cost) >= 0.05}


COLOURS = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@COLOURS
def test_calls_of_a_superstep(is_async):
    costs = per_superstep(is_async)
    frames = sum(cost for (kind, _), cost in costs.items() if kind == "call")
    listing = "\n".join(f"{cost:5.2f} {kind:6} {where}" for (kind, where), cost in sorted(costs.items(), key=str))
    assert frames <= 20, listing
    assert sum(costs.values()) <= 60, listing


@COLOURS
def test_policies_that_are_not_used_cost_nothing(is_async):
    """A node that does not fail makes the same calls with retries, a handler and a graph's policy as without."""

    def run(length: int, **policies) -> Callable[[], None]:
        def nothing(state):
            return None

        async def anothing(state):
            return None

        builder = StateGraph(State)
        names = [f"n{i}" for i in range(length)]
        for name in names:
            builder.add_node(name, anothing if is_async else nothing, **policies)
        for source, target in zip([START, *names], [*names, END], strict=True):
            builder.add_edge(source, target)
        graph = builder.compile()
        if not is_async:
            return lambda: graph.invoke({"n": 0})
        return lambda: asyncio.run(graph.ainvoke({"n": 0}))

    def of_ours(counter: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
        return Counter({key: count for key, count in counter.items() if str(ROOT) in key[1] and key[0] == "call"})

    plain = of_ours(profile(run(50)))
    assert of_ours(profile(run(50, retry_policy=RetryPolicy(), error_handler=lambda state: None))) == plain
    parts = ("engine/retry.py", "engine/limits.py", "engine/limited.py", "_policies.py", "_signals.py")
    assert not [where for _, where in plain if any(part in where for part in parts)]


@COLOURS
def test_nothing_is_built_that_nobody_asked_for(is_async):
    """Without a saver a superstep makes no task id, checkpoint id, namespace, config, runtime or snapshot."""
    builders = ("checkpoint/ids.py", "engine/namespace.py", "engine/snapshot.py:commit", "pregel/config.py")
    words = ("config_of", "runtime_of", "Runtime.__init__", "task_id", "checkpoint_id", "uuid", "blake", "sha")
    built = [
        where
        for (_, where), cost in per_superstep(is_async).items()
        if cost and (any(name in where for name in builders) or any(word in where for word in words))
    ]
    assert not built


@COLOURS
def test_what_a_called_task_costs(is_async):
    """Nobody stores, listens or asks. What workers do is not counted here."""

    async def aone(x):
        return x

    def one(x):
        return x

    called = task(aone if is_async else one)

    async def aflow(n):
        return len(await asyncio.gather(*[called(i) for i in range(n)]))

    def flow(n):
        return len([future.result() for future in [called(i) for i in range(n)]])

    graph = entrypoint()(aflow if is_async else flow)

    def frames(n):
        def run():
            assert (asyncio.run(graph.ainvoke(n)) if is_async else graph.invoke(n)) == n

        run()
        return sum(count for (kind, _), count in profile(run).items() if kind == "call")

    assert (frames(220) - frames(20)) / 200 <= (75 if is_async else 60)


def cached(steps: int, *, is_async: bool, hits: bool, cache: object) -> Callable[[], None]:
    """A loop of two nodes with a cache policy; their input is always the same, or never."""

    def count(state):
        return None if hits else {"n": state["n"] + 1}

    async def acount(state):
        return None if hits else {"n": state["n"] + 1}

    builder = StateGraph(State)
    for name in ("a", "b"):
        builder.add_node(name, acount if is_async else count, cache_policy=CachePolicy())
    for source, target in ((START, "a"), ("a", "b"), ("b", "a")):
        builder.add_edge(source, target)
    graph = builder.compile(cache=cache)

    def invoke() -> None:
        if is_async:
            asyncio.run(graph.ainvoke({"n": 0}, {"recursion_limit": steps}))
        else:
            graph.invoke({"n": 0}, {"recursion_limit": steps})

    def run() -> None:
        if cache is not None and not hits:
            cache.clear()
        with pytest.raises(GraphRecursionError):
            invoke()

    return run


@COLOURS
def test_what_a_cache_costs(is_async):
    """Nothing without one; with one, so many calls of ours for a superstep of one node that is found, or kept."""

    def cost(**how):
        return sum(difference(profile(cached(LONG, **how)), profile(cached(SHORT, **how))).values())

    unused = cost(is_async=is_async, hits=True, cache=None)
    assert abs(unused - sum(per_superstep(is_async).values())) < 0.5
    assert cost(is_async=is_async, hits=True, cache=InMemoryCache()) <= 125
    assert cost(is_async=is_async, hits=False, cache=InMemoryCache()) <= 260


@COLOURS
def test_what_observing_costs(is_async):
    """Nothing without a handler of ours, whatever else stands in the config; with one, so many calls per superstep."""

    unused = per_superstep(is_async)
    assert sum(per_superstep(is_async, callbacks=[object()]).values()) == sum(unused.values())
    used = sum(per_superstep(is_async, callbacks=[GraphCallbackHandler()]).values())
    assert sum(unused.values()) < used <= 200


def test_a_large_graph_steps_as_fast_as_a_small_one():
    """A superstep of a graph of 1,000 nodes makes exactly the calls of a superstep of one with 10."""

    def counting(steps: int, unused: int) -> Callable[[], None]:
        builder = StateGraph(State)
        builder.add_node("a", lambda state: {"n": state["n"] + 1})
        builder.add_edge(START, "a")
        builder.add_conditional_edges("a", lambda state: "a" if state["n"] < steps else END, ["a", END])
        for i in range(unused):
            builder.add_node(f"unused{i}", lambda state: None)
            builder.add_edge(f"unused{i}", END)
        graph = builder.compile()
        return lambda: graph.invoke({"n": 0}, {"recursion_limit": steps + 5})

    def calls(unused: int) -> int:
        return sum(profile(counting(60, unused)).values()) - sum(profile(counting(30, unused)).values())

    assert calls(unused=990) == calls(unused=10)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_long_thread_steps_as_fast_as_a_new_one(tmp_path, kind):
    """A superstep on a thread that has 1,000 checkpoints makes the calls of a superstep on one that has 50."""

    def calls(turns: int) -> int:
        path = str(tmp_path / f"{turns}.sqlite")
        with contextlib.closing(InMemorySaver() if kind == "memory" else SqliteSaver(path)) as saver:
            graph = chain(10, saver=saver)
            config = {"configurable": {"thread_id": "1"}}
            for _ in range(turns):
                graph.invoke({"n": 0}, config, durability="sync")
            return sum(profile(lambda: graph.invoke({"n": 0}, config, durability="sync")).values())

    # The run's first commit folds at most one chain of headers, whose length varies.
    assert calls(100) <= 1.05 * calls(5)


def frames_between(call: Callable[[], object]) -> list[str]:
    """Our frames in the traceback of an error from a node, between the caller's frame with `invoke` and the node."""
    with pytest.raises(ZeroDivisionError) as caught:
        call()
    ours = [
        f"{frame.filename}:{frame.name}"
        for frame in traceback.extract_tb(caught.value.__traceback__)
        if Path(frame.filename).is_relative_to(ROOT / "pregel")
        or Path(frame.filename).is_relative_to(ROOT / "checkpoint")
    ]
    assert ours[0].endswith(("invoke", "run"))
    return ours[1:]


@pytest.mark.parametrize("kind", ["sync", "async", "sync under async", "parallel", "async parallel"])
def test_frames_in_a_users_traceback(kind):
    def fail(state):
        return 1 // 0

    async def afail(state):
        return 1 // 0

    builder = StateGraph(State)
    builder.add_node("fail", afail if kind.startswith("async") else fail)
    builder.add_edge(START, "fail")
    if "parallel" in kind:
        builder.add_node("other", lambda state: None)
        builder.add_edge(START, "other")
    graph = builder.compile()
    if "async" in kind:
        frames = frames_between(lambda: asyncio.run(graph.ainvoke({"n": 0})))
    else:
        frames = frames_between(lambda: graph.invoke({"n": 0}))
    assert len(frames) <= 3, frames


# ---- storage


class Statements:
    """All statements of all connections that are opened while this is in place of `sqlite3.connect`."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._connect = sqlite3.connect

    def __call__(self, *args, **kwargs):
        connection = self._connect(*args, **kwargs)
        connection.set_trace_callback(self.texts.append)
        return connection

    def count(self, *starts: str) -> int:
        return sum(text.lstrip().upper().startswith(starts) for text in self.texts)


@pytest.mark.parametrize("durability", ["sync", "async"])
@COLOURS
def test_one_commit_per_superstep(monkeypatch, tmp_path, durability, is_async):
    statements = Statements()
    monkeypatch.setattr(sqlite3, "connect", statements)

    def counted(length: int) -> tuple[int, int]:
        statements.texts.clear()
        with SqliteSaver.from_conn_string(str(tmp_path / f"{length}.sqlite")) as saver:
            graph = chain(length, is_async=is_async, saver=saver)
            config = {"recursion_limit": length + 5, "configurable": {"thread_id": "1"}}
            if is_async:
                result = asyncio.run(graph.ainvoke({"n": 0}, config, durability=durability))
            else:
                result = graph.invoke({"n": 0}, config, durability=durability)
        assert result == {"n": length}
        return statements.count("COMMIT"), statements.count("INSERT", "UPDATE", "DELETE", "REPLACE")

    (commits, writes), (more_commits, more_writes) = counted(10), counted(30)
    assert more_commits - commits == 20
    assert more_writes - writes <= 7 * 20


# ---- import

NOT_BEFORE_USE = [
    "aiosqlite",
    "asyncio",
    "checkpoint.memory",
    "checkpoint.sqlite",
    "concurrent.futures",
    "difflib",
    "logging",
    "opentelemetry",
    "ormsgpack",
    "pregel.cache.keys",
    "pregel.callbacks",
    "pregel.drawing",
    "pregel.engine.async_driver",
    "pregel.engine.edit",
    "pregel.otel",
    "pregel.pregel._state_api",
    "pydantic",
    "sqlite3",
    "subprocess",
]


def test_modules_that_importing_the_front_end_loads():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules); "
        "from pregel.graph import StateGraph; print(*sorted(set(sys.modules) - before))"
    )
    output = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True).stdout
    loaded = set(output.split())
    assert loaded.isdisjoint(NOT_BEFORE_USE), sorted(loaded.intersection(NOT_BEFORE_USE))
    foreign = {name for name in loaded if name.partition(".")[0] not in ("pregel", "checkpoint")}
    assert len(foreign) <= 75, sorted(foreign)
