"""What only `InMemorySaver` promises."""

import asyncio
import gc
import pickle
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from checkpoint import InMemorySaver, MemorySaver
from checkpoint.base import CheckpointConflictError, ThreadDeletedError
from checkpoint.memory import SEAL_BATCH
from checkpoint.sqlite import SqliteSaver
from checkpoint.testing.script import checkpoint
from tests.checkpoint.runs import GONE, ScriptedRun, Store, config


def test_names_and_context_managers() -> None:
    assert MemorySaver is InMemorySaver
    with InMemorySaver() as saver:
        ScriptedRun(Store(saver, False)).step({"a": 1})

    async def use() -> Any:
        async with saver as same:
            assert same is saver
            return await same.aget_tuple(config())

    assert asyncio.run(use()).checkpoint["channel_values"] == {"a": 1}


def test_reading_allocates_nothing() -> None:
    saver = InMemorySaver()
    store = Store(saver, False)
    store.get_tuple(config("a"))
    store.load(config("b"))
    store.list(config("c"))
    store.delete_thread("d")
    assert saver._threads == {}


def test_submit_is_immediate() -> None:
    saver = InMemorySaver()
    run = ScriptedRun(Store(saver, False))
    commit = run.prepare({"a": 1})
    assert saver.submit(saver.encode(commit)) is None  # type: ignore[func-returns-value]
    run.stored[-1].check(run.store)


@pytest.mark.parametrize("value", [1, ["x" * 30] * 5], ids=["atoms", "a chain"])
@pytest.mark.parametrize("n_steps", [1, SEAL_BATCH - 1, SEAL_BATCH, 2 * SEAL_BATCH + 1])
def test_what_is_not_a_row_yet_is_stored(value: Any, n_steps: int) -> None:
    saver = InMemorySaver()
    run = ScriptedRun(Store(saver, False), durability="submit")
    for n in range(n_steps):
        changes = {"n": n, "v": value if n % 2 else None, "gone": GONE if n % 3 else n}
        writes = [run.task("t", [("n", n)])] if n else []
        run.step(changes, seen={"node": {"n": n}}, sub={"nested": n}, writes=writes)
    for stored in run.stored:
        stored.check(run.store)
    other = ScriptedRun(run.store)
    assert (other.values, other.sub) == (run.values, run.sub)
    saver.copy_thread("t", "u")
    assert len(run.store.list(config("u"))) == n_steps
    other.step({"n": -1})
    with pytest.raises(CheckpointConflictError):
        run.step({"n": 0})
    saver.delete_thread("t")
    with pytest.raises(ThreadDeletedError):
        other.step({"n": 0})
    assert run.store.list(config("t")) == []


@pytest.mark.parametrize("place", ["values", "values of a chain", "writes"])
def test_what_its_owner_edits_later_is_stored_as_it_was(place: str) -> None:
    """Commits of atoms wait to become rows; those with anything else do not, though all is as in the step before."""
    run = ScriptedRun(Store(InMemorySaver(), False), durability="submit")
    metadata: Any = {}
    for n in range(2):
        run.step({"n": n}, metadata=metadata)
    if place == "values of a chain":
        run.step({"doc": ["x" * 30] * 5}, metadata=metadata)
    mutable = {"a": [1]}
    writes = [run.task("task", [("doc", mutable)])] if place == "writes" else []
    stored = run.step({"n": 2} if writes else {"doc": mutable}, metadata=metadata, writes=writes)
    parent = run.stored[-2]
    mutable["a"].append(2)
    if writes:
        assert run.store.get_tuple(parent.config).pending_writes == [("task", "doc", {"a": [1]})]
    else:
        stored.check(run.store)


def test_a_large_value_is_let_go_at_once() -> None:
    saver = InMemorySaver()
    run = ScriptedRun(Store(saver, False), durability="submit")
    run.step({"l": [], "n": 0})
    gone: list[bool] = []
    for n in range(4):
        value = ["x" * 100] * 2000 + [n]
        commit = run.prepare({"l": value, "n": n})
        saver.submit(saver.encode(commit))
        del commit
        run.values["l"] = None
        gone.append(not any(other is value for step in saver._unsealed for other in step[1].commit.values.values()))
    assert gone == [True] * 4
    for n in range(4):
        run.step({"n": n})
    assert len(saver._unsealed) == 4


def test_a_run_goes_on_between_two_reads_of_its_thread() -> None:
    saver = InMemorySaver()
    run = ScriptedRun(Store(saver, False), durability="submit")
    for n in range(3 * SEAL_BATCH):
        # Small and large in turn: the header is behind what is known of the chains.
        run.step({"l": [*run.values.get("l", []), {"n": n}] if n % 5 else [{"n": n}] * 40, "n": n})
        if n % 7 == 0:
            run.stored[-1].check(run.store)
    for stored in run.stored:
        stored.check(run.store)


def test_the_collector_of_cycles_skips_what_is_stored() -> None:
    saver = InMemorySaver()
    run = ScriptedRun(Store(saver, False))
    for n in range(3):
        run.step({"n": n, "l": ["x" * 100] * n}, writes=[run.task("t", [("n", n)])] if n else [])
    gc.collect()
    space = saver._threads["t"].spaces[""]
    rows = [*space.checkpoints.values(), *space.writes.values()]
    assert len(rows) == 5
    assert not any(map(gc.is_tracked, rows))


def test_a_refused_write_stores_nothing_of_the_batch() -> None:
    saver = InMemorySaver()
    store = Store(saver, False)
    ScriptedRun(store).step({"a": 1})
    run = ScriptedRun(store)
    encoded = [saver.encode(run.prepare({"a": n}, writes=[run.task("t", [("a", n)])])) for n in range(3)]
    encoded[2].expected = 12345
    try:
        saver.write(encoded)
    except CheckpointConflictError:
        pass
    else:
        raise AssertionError("the batch was stored")
    assert len(store.list(config())) == 1
    assert store.get_tuple(config()).pending_writes == []
    assert not run.claim.claimed


def test_many_threads_at_once() -> None:
    saver = InMemorySaver()
    errors: list[Exception] = []

    def work(name: str) -> None:
        try:
            run = ScriptedRun(Store(saver, False), config(name))
            for n in range(50):
                run.step({"l": [*run.values.get("l", []), {"n": n, "x": "y" * 60}]})
                saver.get_tuple(config(name))
                list(saver.list(None, limit=3))
        except Exception as error:  # noqa: BLE001 - reported below
            errors.append(error)

    workers = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == []
    for n in range(4):
        found = saver.get_tuple(config(f"t{n}"))
        assert found is not None
        assert len(found.checkpoint["channel_values"]["l"]) == 50


class Overtaken:
    """A serializer that decodes nothing before another thread has written the thread of checkpoints that is read."""

    def __init__(self) -> None:
        self.write: Any = None
        self.waits: list[bool] = []

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def loads(self, data: bytes) -> Any:
        write, self.write = self.write, None
        if write is not None:
            writer = threading.Thread(target=write)
            writer.start()
            writer.join(10)
            self.waits.append(writer.is_alive())
        return pickle.loads(data)


READS: dict[str, Callable[[Any], Any]] = {
    "get_tuple": lambda saver: saver.get_tuple(config()).checkpoint["channel_values"]["l"],
    "list": lambda saver: next(saver.list(config())).checkpoint["channel_values"]["l"],
    "load": lambda saver: saver.load(config()).values["l"],
    "history": lambda saver: next(saver.history(config())).values["l"],
    "heads": lambda saver: next(saver.heads(lambda channel: True))[0].values["l"],
    "open_step": lambda saver: saver.open_step(config()).writes[0].writes[0][1],
}


@pytest.mark.parametrize("make", [InMemorySaver, partial(SqliteSaver, ":memory:")], ids=["memory", "sqlite"])
@pytest.mark.parametrize("name", READS)
def test_values_are_decoded_without_a_lock(name: str, make: Any) -> None:
    """Who reads sees the thread as it was, and keeps nobody from writing it meanwhile, however long decoding takes."""
    serde = Overtaken()
    with make(serde=serde) as saver:
        where = saver.put(config(), checkpoint({"l": ["x" * 100] * 5}), {}, {"l": 1})
        saver.put_writes(where, [("l", ["x" * 100] * 5)], "task")
        serde.write = partial(saver.put, where, checkpoint({"l": "newer" * 100}, {"l": 2}), {}, {"l": 2})
        assert READS[name](saver) == ["x" * 100] * 5
        assert serde.waits == [False]
        assert saver.get_tuple(config()).checkpoint["channel_values"] == {"l": "newer" * 100}
