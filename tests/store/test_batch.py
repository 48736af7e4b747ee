"""Async calls that are carried out together: which operations a batch has, who gets what, and what a cancellation does."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pregel.store.base import GetOp, Op, PutOp, Result, SearchOp, VersionConflictError
from pregel.store.base.batch import AsyncBatchedBaseStore
from pregel.store.memory import InMemoryStore

NS = ("a",)


class Recorder(AsyncBatchedBaseStore):
    """Carries batches out on a store in memory, and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = InMemoryStore()
        self.batches: list[list[Op]] = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        batch = list(ops)
        self.batches.append(batch)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.inner.batch(batch)

    def shapes(self) -> list[str]:
        return ["".join(shape(op) for op in batch) for batch in self.batches]


def shape(op: Op) -> str:
    """A letter per operation: p(ut), d(elete), g(et), s(earch), l(ist), with the key or number."""
    if isinstance(op, PutOp):
        return f"{'d' if op.value is None else 'p'}{op.key}"
    if isinstance(op, GetOp):
        return f"g{op.key}"
    return "s" if isinstance(op, SearchOp) else "l"


async def outcome(call: Any) -> Any:
    try:
        found = await call
    except Exception as error:  # noqa: BLE001 - the outcome
        return type(error)
    if isinstance(found, list):
        return [getattr(one, "key", one) for one in found]
    return None if found is None else found.value["n"]


CALLS: dict[str, Callable[[Recorder], Any]] = {
    "pa": lambda s: s.aput(NS, "a", {"n": 1}),
    "pA": lambda s: s.aput(NS, "a", {"n": 2}),
    "pb": lambda s: s.aput(NS, "b", {"n": 3}),
    "vb": lambda s: s.aput(NS, "b", {"n": 4}, if_version=1),
    "da": lambda s: s.adelete(NS, "a"),
    "ga": lambda s: s.aget(NS, "a"),
    "gb": lambda s: s.aget(NS, "b"),
    "s": lambda s: s.asearch(NS),
    "s1": lambda s: s.asearch(NS, filter={"n": 1}),
    "sT": lambda s: s.asearch(NS, filter={"n": True}),
    "l": lambda s: s.alist_namespaces(),
    "bad": lambda s: s.aput(NS, "c", {"n": lambda: None, "t": (x for x in ())}),
}

# calls of one moment | the batches that are carried out | what each caller gets
TABLE = [
    ("ga", ["ga"], [None]),
    ("ga ga gb ga", ["gagb"], [None, None, None, None]),
    ("pa ga", ["paga"], [None, 1]),
    ("ga pa ga", ["gapaga"], [None, None, 1]),
    ("pa pA", ["pa"], [None, None]),
    ("pa pA ga", ["paga"], [None, None, 2]),
    ("pa ga pA ga", ["pagapaga"], [None, 1, None, 2]),
    ("pa pb pA", ["pbpa"], [None, None, None]),
    ("pa pb pA s", ["pbpas"], [None, None, None, ["b", "a"]]),
    ("pa s pA s", ["paspas"], [None, ["a"], None, ["a"]]),
    ("pa gb pA ga", ["gbpaga"], [None, None, None, 2]),
    ("pa da ga", ["daga"], [None, None, None]),
    ("da pa ga", ["dapaga"], [None, None, 1]),
    ("s s pa s s", ["spas"], [[], [], None, ["a"], ["a"]]),
    ("pa s1 sT s1", ["pass"], [None, ["a"], [], ["a"]]),
    ("l pa l", ["lpal"], [[], None, [("a",)]]),
    ("vb pb pb", ["pbpb", "pb", "pb"], [VersionConflictError, None, None]),
    ("pb vb gb", ["pbpbgb"], [None, None, 4]),
    ("pb bad gb", ["pbpcgb", "pb", "pc", "gb"], [None, TypeError, 3]),
    ("bad", ["pc"], [TypeError]),
]


@pytest.mark.parametrize(("calls", "batches", "results"), TABLE, ids=[row[0] for row in TABLE])
def test_what_a_moment_asks_for(calls: str, batches: list[str], results: list[Any]) -> None:
    async def main() -> None:
        store = Recorder()
        found = await asyncio.gather(*(outcome(CALLS[name](store)) for name in calls.split()))
        assert store.shapes() == batches
        assert found == results

    asyncio.run(main())


def test_shared_results_are_each_callers_own() -> None:
    async def main() -> None:
        store = Recorder()
        await store.aput(NS, "a", {"n": [1]})
        first, second = await asyncio.gather(store.aget(NS, "a"), store.aget(NS, "a"))
        assert (first, store.shapes()) == (second, ["pa", "ga"])
        first.value["n"].append(2)
        assert second.value == {"n": [1]}
        found, again = await asyncio.gather(store.asearch(NS), store.asearch(NS))
        found[0].value["n"].append(2)
        assert again[0].value == {"n": [1]}

    asyncio.run(main())


def test_an_error_of_nobody_in_particular_is_everybodys_and_nothing_is_tried_again() -> None:
    async def main() -> None:
        store = Recorder()
        store.error = OSError("the disk")
        found = await asyncio.gather(outcome(store.aget(NS, "a")), outcome(store.aput(NS, "b", {"n": 1})))
        assert found == [OSError, OSError]
        assert len(store.batches) == 1
        store.error = None
        assert await store.aget(NS, "b") is None

    asyncio.run(main())


def test_what_comes_while_a_batch_is_carried_out_is_the_next_one() -> None:
    async def main() -> None:
        store = Recorder()
        store.gate = asyncio.Event()
        first = asyncio.create_task(store.aput(NS, "a", {"n": 1}))
        while not store.batches:
            await asyncio.sleep(0)
        later = [asyncio.create_task(store.aget(NS, key)) for key in "aab"]
        for _ in range(5):
            await asyncio.sleep(0)
        assert store.shapes() == ["pa"]
        store.gate.set()
        await first
        found = await asyncio.gather(*later)
        assert [one and one.value["n"] for one in found] == [1, 1, None]
        assert store.shapes() == ["pa", "gagb"]

    asyncio.run(main())


def test_who_is_cancelled_in_time_takes_the_operation_back() -> None:
    async def main() -> None:
        store = Recorder()
        store.gate = asyncio.Event()
        tasks = [asyncio.create_task(store.aput(NS, "c", {"n": 1}))]
        while not store.batches:
            await asyncio.sleep(0)
        tasks += [asyncio.create_task(store.aput(NS, key, {"n": 1})) for key in "ab"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        store.gate.set()
        await tasks[2]
        assert store.shapes() == ["pc", "pb"]

    asyncio.run(main())


def test_who_is_cancelled_later_learns_of_it_when_it_has_happened() -> None:
    async def main() -> None:
        store = Recorder()
        store.gate = asyncio.Event()
        tasks = [asyncio.create_task(store.aput(NS, key, {"n": 1})) for key in "ab"]
        while not store.batches:
            await asyncio.sleep(0)
        for _ in range(3):
            tasks[0].cancel()
            await asyncio.sleep(0)
        assert not tasks[0].done()
        store.gate.set()
        done, _ = await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, False]
        assert len(done) == 2
        assert len(store.inner.search(NS)) == 2

    asyncio.run(main())


def test_a_task_that_is_cancelled_is_replaced() -> None:
    async def main() -> None:
        store = Recorder()
        store.gate = asyncio.Event()
        taken = asyncio.create_task(store.aget(NS, "a"))
        while not store.batches:
            await asyncio.sleep(0)
        waits = asyncio.create_task(store.aget(NS, "b"))
        await asyncio.sleep(0)
        [task] = asyncio.all_tasks() - {taken, waits, asyncio.current_task()}
        task.cancel()
        store.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await taken
        assert await waits is None
        assert await store.aget(NS, "c") is None
        assert store.shapes() == ["ga", "gb", "gc"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_loop_may_end_while_calls_wait() -> None:
    stores = []

    async def main() -> None:
        store = Recorder()
        stores.append(store)
        store.gate = asyncio.Event()
        for key in "ab":
            asyncio.ensure_future(store.aput(NS, key, {"n": 1}))  # noqa: RUF006 - left behind on purpose
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(main())
    stores[0].gate = None
    assert asyncio.run(stores[0].aget(NS, "a")) is None


def test_thousands_of_calls_at_once() -> None:
    async def main() -> None:
        store = Recorder()
        await asyncio.gather(*(store.aput(NS, str(n), {"n": n}) for n in range(600)))
        gets = [store.aget(NS, str(n % 500)) for n in range(1500)]
        found = await asyncio.gather(*gets, *(store.asearch(NS, limit=-1) for _ in range(50)))
        assert [one.value["n"] for one in found[:1500]] == [n % 500 for n in range(1500)]
        assert {len(page) for page in found[1500:]} == {600}
        assert [len(batch) for batch in store.batches] == [600, 501]

    asyncio.run(main())


def test_plain_methods_are_for_other_threads() -> None:
    async def main() -> None:
        store = Recorder()
        with pytest.raises(asyncio.InvalidStateError, match="aget"):
            store.get(NS, "a")
        assert await asyncio.to_thread(store.put, NS, "a", {"n": 1}) is None
        assert (await asyncio.to_thread(store.get, NS, "a")).value == {"n": 1}

    asyncio.run(main())
    with pytest.raises(RuntimeError, match="no event loop"):
        Recorder().get(NS, "a")


def test_a_store_serves_several_loops() -> None:
    store = Recorder()

    def work(n: int) -> None:
        async def main() -> None:
            await asyncio.gather(*(store.aput(NS, f"{n} {k}", {"n": n}) for k in range(20)))

        asyncio.run(main())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.inner.search(NS, limit=-1)) == 60
    with pytest.raises(RuntimeError, match="closed"):
        store.get(NS, "a")


def test_an_operation_of_a_batch_may_be_asked_for_directly() -> None:
    async def main() -> None:
        store = Recorder()
        assert await store.abatch([PutOp(NS, "a", {"n": 1}), GetOp(NS, "b")]) == [None, None]

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(20))
def test_every_caller_gets_what_it_would_have_got_alone(seed: int) -> None:
    """Random calls of one moment, beside the same calls one after the other."""
    chance = random.Random(seed)

    def call() -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        space = ("root", *chance.choices("ab", k=chance.randint(0, 1)))
        kind = chance.randrange(10)
        key = chance.choice("xy")
        if kind < 3:
            return "aget", (space, key), {}
        if kind < 7:
            more = {"if_version": chance.choice((0, 1))} if chance.random() < 0.15 else {}
            return "aput", (space, key, {"n": chance.choice((0, 1, True, 2))}), more
        if kind == 7:
            return "adelete", (space, key), {}
        if kind == 8:
            wanted = chance.choice((None, {"n": 1}, {"n": True}, {"n": {"$bad": 1}}, {"n": {"$gt": 0}}))
            return "asearch", (space[:1],), {"filter": wanted}
        return "alist_namespaces", (), {}

    async def seen(asked: Any) -> Any:
        try:
            found = await asked
        except Exception as error:  # noqa: BLE001 - the outcome
            return type(error)
        # Puts that another one replaced unseen have no version of their own.
        return [getattr(one, "value", one) for one in found] if isinstance(found, list) else found and found.value

    async def main() -> None:
        store, alone = Recorder(), InMemoryStore()
        for _ in range(15):
            calls = [call() for _ in range(chance.randint(1, 12))]
            # A version is only the same where nothing was put before it in the same moment.
            versions = [n for n, (_, _, more) in enumerate(calls) if more]
            calls = calls[: versions[0] + 1] if versions else calls
            found = await asyncio.gather(*(seen(getattr(store, name)(*args, **more)) for name, args, more in calls))
            wanted = [await seen(getattr(alone, name)(*args, **more)) for name, args, more in calls]
            if not versions:
                assert found == wanted, calls
                continue
            # Versions differ by the puts that count as one: start again from one store.
            assert found[:-1] == wanted[:-1], calls
            alone = InMemoryStore()
            store.inner = InMemoryStore()

    asyncio.run(main())
