"""What must happen once inside a node: `runtime.idempotency_key` and `runtime.once` (promise 31; D29)."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.errors import AttemptClosedError
from pregel.graph import START, StateGraph
from pregel.runtime import Runtime, aonce, get_runtime, once
from pregel.types import Command, RetryPolicy, Send, TimeoutPolicy, interrupt
from tests.checkpoint.test_adapter import AsyncOnly, SyncOnly
from tests.support.driving import LIMIT
from tests.support.savers import Died, FaultySaver
from tests.support.scenarios import Colour, Log, LogX

pytestmark = pytest.mark.differs("promise 31: LangGraph has neither")

IN: Any = {"l": ["in"]}
RETRY = RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=3, retry_on=Exception)


class Service:
    """What nodes do to the world: notes each effect with the key it was given."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def pay(self, what: Any = "paid") -> Any:
        self.done.append(what)
        return {"receipt": len(self.done)}

    async def apay(self, what: Any = "paid") -> Any:
        await asyncio.sleep(0)
        return self.pay(what)


def paying(colour: Colour, service: Service, then: Callable[[Any], Any], key: str = "pay") -> Callable[..., Any]:
    """A node that pays once, and goes on with the receipt."""
    if colour.is_async:

        async def anode(state: Any, runtime: Runtime) -> Any:
            return then(await runtime.aonce(key, service.apay))

        return anode

    def node(state: Any, runtime: Runtime) -> Any:
        return then(runtime.once(key, service.pay))

    return node


def alone(node: Any, saver: Any = None, **options: Any) -> Any:
    """START → n."""
    return StateGraph(LogX).add_node("n", node, **options).add_edge(START, "n").compile(checkpointer=saver)


def fails_first(times: int = 1) -> Callable[[Any], Any]:
    """What raises so often, and then returns the receipt."""
    left = [times]

    def then(receipt: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError("not yet")
        return {"l": [receipt["receipt"]]}

    return then


# ---- keys


class Keys:
    """Nodes that note the key of each of their runs."""

    def __init__(self, colour: Colour) -> None:
        self.colour = colour
        self.seen: list[tuple[str, str]] = []

    def node(self, name: str, then: Callable[[], Any] = lambda: None) -> Callable[..., Any]:
        def note(state: Any, runtime: Runtime) -> Any:
            assert get_runtime().idempotency_key == runtime.idempotency_key
            self.seen.append((name, runtime.idempotency_key))
            return then()

        return self.colour.node(note)

    @property
    def of(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for name, key in self.seen:
            found.setdefault(name, set()).add(key)
        return found

    def assert_all_differ(self, runs: int) -> None:
        assert len(self.seen) == runs
        assert len({key for _, key in self.seen}) == runs


def test_a_key_is_the_same_for_every_attempt(colour: Colour) -> None:
    keys, fail = Keys(colour), fails_first(2)
    graph = alone(keys.node("n", lambda: fail({"receipt": 1})), retry_policy=RETRY)
    colour.invoke(graph, IN)
    assert len(keys.seen) == 3
    assert len(keys.of["n"]) == 1
    colour.invoke(graph, IN)
    assert len(keys.of["n"]) == 2


def test_a_key_is_the_same_after_a_failure_and_an_answer(colour: Colour, saver: Any, durability: Any) -> None:
    fail = fails_first()
    keys = Keys(colour)

    def then() -> Any:
        fail({"receipt": 1})
        return {"l": [interrupt("q")]}

    def call(value: Any) -> Any:
        graph = alone(keys.node("n", then), saver)
        return colour.invoke(graph, value, {"configurable": {"thread_id": "1"}}, durability=durability)

    with pytest.raises(OSError, match="not yet"):
        call(IN)
    call(None)
    call(Command(resume="A"))
    assert len(keys.seen) == 3
    assert len(keys.of["n"]) == 1


def test_tasks_differ(colour: Colour, memory: Any) -> None:
    keys = Keys(colour)
    builder = StateGraph(LogX)
    for name in ("a", "b", "w"):
        builder.add_node(name, keys.node(name))
    builder.add_conditional_edges(START, lambda state: ["a", "b", Send("w", {}), Send("w", {})], ["a", "b", "w"])
    builder.add_conditional_edges("a", lambda state: "a" if len(keys.seen) < 7 else "b", ["a", "b"])
    graph = builder.compile(checkpointer=memory)
    colour.invoke(graph, IN, {"configurable": {"thread_id": "1"}})
    n_first = len(keys.seen)
    for thread in ("1", "2"):
        colour.invoke(graph, IN, {"configurable": {"thread_id": thread}})
    assert n_first >= 7
    keys.assert_all_differ(len(keys.seen))


def test_executions_differ(colour: Colour, saver: Any) -> None:
    keys = Keys(colour)
    builder = StateGraph(LogX).add_node("a", keys.node("a")).add_node("b", keys.node("b"))
    graph = builder.add_edge(START, "a").add_edge("a", "b").compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    colour.invoke(graph, IN, config)
    before_b = colour.history(graph, config)[1].config
    colour.invoke(graph, None, before_b)  # a replay
    colour.invoke(graph, None, before_b)  # another one
    edited = colour.update_state(graph, before_b, {"l": ["u"]}, "a")
    colour.invoke(graph, None, edited)
    colour.invoke(graph, IN, before_b)  # an input on a branch
    keys.assert_all_differ(2 + 1 + 1 + 1 + 2)


def test_an_answer_to_an_older_checkpoint_is_another_execution(colour: Colour, saver: Any) -> None:
    keys = Keys(colour)
    graph = alone(keys.node("n", lambda: {"l": [interrupt("q")]}), saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    colour.invoke(graph, IN, config)
    paused = colour.get_state(graph, config).config
    colour.invoke(graph, Command(resume="A"), config)
    colour.invoke(graph, Command(resume="B"), paused)
    assert len(keys.seen) == 3
    assert len(keys.of["n"]) == 2


@pytest.mark.parametrize("checkpointer", [None, False, True])
def test_keys_of_nested_runs(colour: Colour, saver: Any, checkpointer: Any) -> None:
    keys, fail = Keys(colour), fails_first()
    inner = StateGraph(LogX).add_node("i", keys.node("i")).add_node("j", keys.node("j"))
    nested = inner.add_edge(START, "i").add_edge("i", "j").compile(checkpointer=checkpointer)

    def outer(state: Any) -> Any:
        yield nested, {"l": ["1"]}
        yield nested, {"l": ["2"]}
        return fail({"receipt": 1})

    graph = StateGraph(LogX).add_node("n", colour.script(outer)).add_edge(START, "n").compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(OSError, match="not yet"):
        colour.invoke(graph, IN, config)
    keys.assert_all_differ(4)
    first = keys.of
    keys.seen.clear()
    colour.invoke(graph, None, config)
    if checkpointer is False:
        assert keys.of == first
    colour.invoke(graph, IN, config)
    assert len(set.union(*keys.of.values(), *first.values())) == 8


def test_a_key_survives_supersteps_that_were_lost(colour: Colour) -> None:
    """What was lost is done again with other checkpoint ids."""
    keys, ids = Keys(colour), set()
    saver = FaultySaver(lags=True)

    def note() -> None:
        ids.add(get_runtime().execution_info.checkpoint_id)  # type: ignore[union-attr]

    builder = StateGraph(LogX)
    previous = START
    for name in "abcd":
        builder.add_node(name, keys.node(name, note)).add_edge(previous, name)
        previous = name
    graph = builder.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    for strike in (3, 5):
        saver.strike_at = strike
        with pytest.raises(Died):
            colour.invoke(graph, IN if strike == 3 else None, config)
        saver.restart()
    colour.invoke(graph, None, config)
    assert len(keys.seen) > 4
    assert len(ids) > 4
    assert {name: len(found) for name, found in keys.of.items()} == dict.fromkeys("abcd", 1)


def test_a_key_of_a_call_with_a_run_id_survives_everything(colour: Colour) -> None:
    """Durability exit: nothing was stored, so the same call is the only thing that tells."""
    keys, saver = Keys(colour), FaultySaver()
    graph = alone(keys.node("n"), saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    saver.strike_at = 1
    with pytest.raises(Died):
        colour.invoke(graph, IN, config, run_id="r", durability="exit")
    saver.restart()
    colour.invoke(graph, IN, config, run_id="r", durability="exit")
    colour.invoke(graph, IN, config, run_id="s", durability="exit")
    assert (len(keys.seen), len(keys.of["n"])) == (3, 2)


def test_a_key_of_a_handler(colour: Colour, memory: Any) -> None:
    keys, fail = Keys(colour), fails_first(9)
    builder = StateGraph(LogX)
    builder.add_node("n", keys.node("n", lambda: fail({})), error_handler=keys.node("h"))
    graph = builder.add_edge(START, "n").compile(checkpointer=memory)
    colour.invoke(graph, IN, {"configurable": {"thread_id": "1"}})
    keys.assert_all_differ(2)


# ---- once


def test_once_over_attempts(colour: Colour, durability: Any) -> None:
    for saver in (None, InMemorySaver()):
        service = Service()
        graph = alone(paying(colour, service, fails_first(2)), saver, retry_policy=RETRY)
        options = {} if saver is None else {"durability": durability}
        config: Any = {"configurable": {"thread_id": "1"}}
        assert colour.invoke(graph, IN, config, **options) == {"l": ["in", 1]}
        assert colour.invoke(graph, IN, config, **options)["l"][-1] == 2
        assert len(service.done) == 2


def test_once_over_failures_and_answers(colour: Colour, saver: Any, durability: Any) -> None:
    service, fail = Service(), fails_first()

    def then(receipt: Any) -> Any:
        fail(receipt)
        return {"l": [receipt["receipt"], interrupt("q1"), interrupt("q2")]}

    graph = alone(paying(colour, service, then), saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(OSError, match="not yet"):
        colour.invoke(graph, IN, config, durability=durability)
    for value in (None, Command(resume="A"), None):
        colour.invoke(graph, value, config, durability=durability)
    state = colour.get_state(graph, config)
    assert (state.next, state.values, len(state.tasks), state.tasks[0].result) == (("n",), {"l": ["in"]}, 1, None)
    assert colour.invoke(graph, Command(resume="B"), config, durability=durability) == {"l": ["in", 1, "A", "B"]}
    assert service.done == ["paid"]
    assert colour.get_state(graph, config).tasks == ()
    assert colour.invoke(graph, IN, config, durability=durability)["__interrupt__"]
    assert len(service.done) == 2


def test_once_among_siblings(colour: Colour, saver: Any, durability: Any) -> None:
    """Tasks of one step record under themselves; what is done runs once, who failed finds its own result."""
    service, fail = Service(), fails_first()

    def after(state: Any, receipt: Any) -> Any:
        if state["x"] == 1:
            fail(receipt)
        return {"l": [state["x"]]}

    def work(state: Any, runtime: Runtime) -> Any:
        return after(state, runtime.once("pay", service.pay, state["x"]))

    async def awork(state: Any, runtime: Runtime) -> Any:
        return after(state, await runtime.aonce("pay", service.apay, state["x"]))

    builder = StateGraph(LogX).add_node("work", awork if colour.is_async else work)
    builder.add_conditional_edges(START, lambda state: [Send("work", {"x": n}) for n in range(3)])
    graph = builder.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(OSError, match="not yet"):
        colour.invoke(graph, IN, config, durability=durability)
    assert colour.invoke(graph, None, config, durability=durability) == {"l": ["in", 0, 1, 2]}
    assert service.done.count(1) == 1
    if not colour.is_async:  # there siblings are cancelled, maybe between the effect and its record
        assert sorted(service.done) == [0, 1, 2]


@pytest.mark.parametrize("checkpointer", [None, False, True])
def test_once_in_a_nested_graph(colour: Colour, saver: Any, durability: Any, checkpointer: Any) -> None:
    """Also in one that stores nothing: it is recorded under the task around it."""
    service, fail = Service(), fails_first()

    def then(receipt: Any) -> Any:
        fail(receipt)
        return {"l": [receipt["receipt"]]}

    nested = alone(paying(colour, service, then), checkpointer)
    graph = StateGraph(LogX).add_node("outer", nested).add_edge(START, "outer").compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(OSError, match="not yet"):
        colour.invoke(graph, IN, config, durability=durability)
    assert colour.invoke(graph, None, config, durability=durability)["l"][-1] == 1
    assert service.done == ["paid"]
    colour.invoke(graph, IN, config, durability=durability)
    assert len(service.done) == 2


@pytest.mark.parametrize("kind", [AsyncOnly, SyncOnly])
def test_once_with_savers_of_four_methods(colour: Colour, kind: Any) -> None:
    service, fail = Service(), fails_first()
    graph = alone(paying(colour, service, fail), kind())
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(OSError, match="not yet"):
        colour.invoke(graph, IN, config)
    assert colour.invoke(graph, None, config) == {"l": ["in", 1]}
    assert service.done == ["paid"]


def test_what_is_recorded_when_it_returns(colour: Colour, memory: Any, durability: Any) -> None:
    """Durability sync: it is stored. exit: with the end of the run."""
    config: Any = {"configurable": {"thread_id": "1"}}
    found: list[Any] = []

    def look(receipt: Any) -> Any:
        stored = memory.get_tuple(config)
        rows = stored.pending_writes if stored is not None else []
        found.append([value for _, channel, value in rows if channel == "__return__"])
        return {"l": [interrupt("q")]}

    graph = alone(paying(colour, Service(), look), memory)
    colour.invoke(graph, IN, config, durability=durability)
    if durability != "async":
        assert found == [[{"receipt": 1}] if durability == "sync" else []]
    assert [value for _, channel, value in memory.get_tuple(config).pending_writes if channel == "__return__"] == [
        {"receipt": 1}
    ]
    colour.invoke(graph, Command(resume="A"), config, durability=durability)
    assert memory.get_tuple(config).pending_writes == []
    assert memory.verify(deep=True) == []


def test_keys_are_independent_and_repeatable(colour: Colour, memory: Any) -> None:
    service = Service()

    def node(state: Any, runtime: Runtime) -> Any:
        values = [once(key, service.pay, key) for key in ("a", "b", "a")]
        return {"l": [value["receipt"] for value in values]}

    async def anode(state: Any, runtime: Runtime) -> Any:
        values = [await aonce(key, service.apay, key) for key in ("a", "b", "a")]
        return {"l": [value["receipt"] for value in values]}

    graph = alone(anode if colour.is_async else node, memory)
    assert colour.invoke(graph, IN, {"configurable": {"thread_id": "1"}}) == {"l": ["in", 1, 2, 1]}
    assert service.done == ["a", "b"]


def test_arguments_and_falsy_results(colour: Colour, memory: Any) -> None:
    calls: list[Any] = []

    def effect(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))

    def node(state: Any, runtime: Runtime) -> Any:
        assert [runtime.once("k", effect, 1, two=2) for _ in range(2)] == [None, None]

    async def anode(state: Any, runtime: Runtime) -> Any:
        assert [await runtime.aonce("k", effect, 1, two=2) for _ in range(2)] == [None, None]

    colour.invoke(alone(anode if colour.is_async else node, memory), IN, {"configurable": {"thread_id": "1"}})
    assert calls == [((1,), {"two": 2})]


def test_an_exception_is_not_recorded(colour: Colour, memory: Any) -> None:
    attempts: list[int] = []

    def effect() -> str:
        attempts.append(1)
        if len(attempts) < 2:
            raise OSError("busy")
        return "ok"

    def node(state: Any, runtime: Runtime) -> Any:
        with pytest.raises(OSError, match="busy"):
            runtime.once("k", effect)
        return {"l": [runtime.once("k", effect)]}

    async def anode(state: Any, runtime: Runtime) -> Any:
        with pytest.raises(OSError, match="busy"):
            await runtime.aonce("k", effect)
        return {"l": [await runtime.aonce("k", effect)]}

    graph = alone(anode if colour.is_async else node, memory)
    assert colour.invoke(graph, IN, {"configurable": {"thread_id": "1"}}) == {"l": ["in", "ok"]}
    assert len(attempts) == 2


def test_what_is_recorded_stays_as_it_was(colour: Colour, memory: Any, durability: Any) -> None:
    fail = fails_first()
    seen: list[Any] = []

    def spoil(receipt: Any) -> Any:
        seen.append(dict(receipt))
        receipt["receipt"] = "spoilt"
        fail(receipt)
        return None

    graph = alone(paying(colour, Service(), spoil), memory)
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(OSError, match="not yet"):
        colour.invoke(graph, IN, config, durability=durability)
    graph = alone(paying(colour, Service(), lambda receipt: seen.append(receipt)), memory)
    colour.invoke(graph, None, config, durability=durability)
    assert seen == [{"receipt": 1}, {"receipt": 1}]


@pytest.mark.parametrize("stores", [False, True])
def test_two_threads_of_a_body(colour: Colour, stores: bool) -> None:
    """The function is called in one of them; the other gets its result."""
    service, both = Service(), threading.Barrier(2)
    results: list[Any] = []

    def ask(runtime: Runtime) -> None:
        both.wait(LIMIT)
        results.append(runtime.once("k", service.pay))

    def node(state: Any, runtime: Runtime) -> Any:
        threads = [threading.Thread(target=ask, args=(runtime,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    graph = alone(node, InMemorySaver() if stores else None)
    colour.invoke(graph, IN, {"configurable": {"thread_id": "1"}})
    assert (results, len(service.done)) == ([{"receipt": 1}] * 2, 1)


def test_a_thread_beside_an_async_body(memory: Any) -> None:
    """The driver is awaiting the body meanwhile."""
    service = Service()

    async def node(state: Any, runtime: Runtime) -> Any:
        receipt = await asyncio.to_thread(runtime.once, "k", service.pay)
        assert receipt == await runtime.aonce("k", service.apay)
        return {"l": [receipt["receipt"]]}

    result = asyncio.run(alone(node, memory).ainvoke(IN, {"configurable": {"thread_id": "1"}}, durability="sync"))
    assert (result, service.done) == ({"l": ["in", 1]}, ["paid"])


@pytest.mark.parametrize("stores", [False, True])
def test_two_coroutines_of_a_body(stores: bool) -> None:
    service = Service()

    async def node(state: Any, runtime: Runtime) -> Any:
        results = await asyncio.gather(*(runtime.aonce("k", service.apay) for _ in range(3)))
        return {"l": [result["receipt"] for result in results]}

    graph = alone(node, InMemorySaver() if stores else None)
    result = asyncio.run(graph.ainvoke(IN, {"configurable": {"thread_id": "1"}}))
    assert (result, len(service.done)) == ({"l": ["in", 1, 1, 1]}, 1)


def test_an_attempt_that_is_over_records_nothing(memory: Any) -> None:
    """Its function may still end: the next attempt does not have its result (D29)."""
    go, over = threading.Event(), threading.Event()
    outcomes: list[Any] = []

    def slow() -> str:
        assert go.wait(LIMIT)
        return "late"

    def node(state: Any, runtime: Runtime) -> Any:
        if runtime.execution_info.node_attempt > 1:  # type: ignore[union-attr]
            go.set()
            assert over.wait(LIMIT)
            return {"l": [runtime.once("k", lambda: "second")]}
        try:
            runtime.once("k", slow)
        except AttemptClosedError:
            for late in (lambda: runtime.once("k", slow), lambda: runtime.idempotency_key):
                with pytest.raises(AttemptClosedError):
                    late()
            outcomes.append("refused")
            over.set()
            raise
        return None

    graph = alone(node, memory, retry_policy=RETRY, timeout=TimeoutPolicy(run_timeout=0.05))
    result = graph.invoke(IN, {"configurable": {"thread_id": "1"}}, durability="sync")
    assert (result, outcomes) == ({"l": ["in", "second"]}, ["refused"])


def test_misuse(colour: Colour, memory: Any) -> None:
    def node(state: Any, runtime: Runtime) -> Any:
        with pytest.raises(RuntimeError, match="itself"):
            runtime.once("k", lambda: runtime.once("k", dict))
        with pytest.raises(TypeError, match="key"):
            runtime.once(7, dict)  # type: ignore[arg-type]
        assert runtime.once("k", lambda: runtime.once("other", int)) == 0

    async def anode(state: Any, runtime: Runtime) -> Any:
        with pytest.raises(RuntimeError, match="itself"):
            await runtime.aonce("k", lambda: runtime.aonce("k", dict))
        with pytest.raises(TypeError, match="key"):
            await runtime.aonce(7, dict)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="aonce"):
            runtime.once("k", dict)
        assert await runtime.aonce("k", lambda: runtime.aonce("other", int)) == 0

    for saver in (None, memory):
        graph = alone(anode if colour.is_async else node, saver)
        colour.invoke(graph, IN, {"configurable": {"thread_id": "1"}})
    for use in (lambda: Runtime().idempotency_key, lambda: Runtime().once("k", dict), lambda: once("k", dict)):
        with pytest.raises(RuntimeError):
            use()


def test_a_value_that_cannot_be_stored(colour: Colour, memory: Any) -> None:
    from checkpoint.base import UnregisteredTypeError

    class Odd:
        pass

    def node(state: Any, runtime: Runtime) -> Any:
        runtime.once("k", Odd)

    async def anode(state: Any, runtime: Runtime) -> Any:
        await runtime.aonce("k", Odd)

    graph = alone(anode if colour.is_async else node, memory)
    with pytest.raises(UnregisteredTypeError):
        colour.invoke(graph, IN, {"configurable": {"thread_id": "1"}}, durability="sync")


def test_copies_of_a_runtime_belong_to_the_task(colour: Colour) -> None:
    def node(state: Log, runtime: Runtime) -> Any:
        for copy in (runtime.override(store=1), runtime.patch_execution_info(node_attempt=3), Runtime().merge(runtime)):
            assert copy.idempotency_key == runtime.idempotency_key
        assert "task_scope" not in repr(runtime)

    colour.invoke(alone(colour.node(node)), IN)


def test_a_saver_that_fails_while_it_records(colour: Colour) -> None:
    """The node is told, the run ends with the saver's own error, and the effect is not taken for recorded."""
    service, saver = Service(), FaultySaver()
    saver.strike_at, saver.error = 3, lambda: OSError("disk full")
    graph = alone(paying(colour, service, fails_first(0)), saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(OSError, match="disk full"):
        colour.invoke(graph, IN, config, durability="sync")
    saver.restart()
    assert colour.invoke(graph, None, config, durability="sync") == {"l": ["in", 2]}


@pytest.mark.parametrize("options", [{}, {"history_writes": "drop"}])
def test_results_survive_upkeep(colour: Colour, tmp_path: Any, options: Any) -> None:
    """What an unfinished superstep needs is kept by pruning, and nothing of it is taken for damage."""
    config: Any = {"configurable": {"thread_id": "1"}}
    service = Service()
    with SqliteSaver(tmp_path / "threads.sqlite", **options) as saver:

        def then(receipt: Any) -> Any:
            return {"l": [interrupt("q1"), interrupt("q2")]}

        graph = alone(paying(colour, service, then), saver)
        for _ in range(3):
            colour.invoke(graph, IN, config, run_id="r1")
            colour.invoke(graph, Command(resume="A"), config, run_id="r2")
            saver.prune(["1"], keep=1)
            colour.invoke(graph, Command(resume="A"), config, run_id="r2")
            assert saver.verify(deep=True) == []
        assert colour.invoke(graph, Command(resume="B"), config, run_id="r3") == {"l": ["in", "A", "B"]}
        assert service.done == ["paid"]
        saver.copy_thread("1", "2")
        copied: Any = {"configurable": {"thread_id": "2"}}
        assert colour.invoke(graph, Command(resume="B"), copied, run_id="r3") == {"l": ["in", "A", "B"]}
        assert saver.verify(deep=True) == []
