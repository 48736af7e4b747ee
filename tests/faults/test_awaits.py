"""Callers of the async API that go away, loops that end or change, processes that are forked: F30, F34."""

from __future__ import annotations

import ast
import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint.sqlite import SqliteSaver
from checkpoint.testing.faults import ForkServer, StallAt, inject
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.support.sound import assert_sound


@pytest.fixture(params=[1, 16])
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteSaver]:
    with SqliteSaver(tmp_path / "threads.sqlite", max_checkpoint_lag=request.param) as saver:
        yield saver


def big(n: int) -> Any:
    """A change that is written by another thread also with a lag of 1."""
    return {"n": n, "doc": f"{n}" + "d" * 100_000}


async def submit(saver: SqliteSaver, run: ScriptedRun) -> None:
    ack = saver.submit(saver.encode(run.prepare(big(1))))
    assert ack is not None
    await ack.aresult()


async def write(saver: SqliteSaver, run: ScriptedRun) -> None:
    await saver.awrite([saver.encode(run.prepare(big(1)))], durability="sync")


async def load(saver: SqliteSaver, run: ScriptedRun) -> None:
    assert (await saver.aload(config())).checkpoint_id is not None


async def list_all(saver: SqliteSaver, run: ScriptedRun) -> None:
    assert [entry async for entry in saver.alist(config())]


async def put_writes(saver: SqliteSaver, run: ScriptedRun) -> None:
    await saver.aput_writes(config("t", "", run.stored[0].id), [("n", 1)], "task")


async def delete_thread(saver: SqliteSaver, run: ScriptedRun) -> None:
    await saver.adelete_thread("other")


CALLS = [submit, write, load, list_all, put_writes, delete_thread]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("held", [False, True])
def test_f30_cancelled_at_every_await(saver: SqliteSaver, call: Any, held: bool) -> None:
    """Nothing stays locked, and a write is known to be stored or not when the cancellation comes out.

    `held`: the operation is in the middle when it is cancelled, and goes on afterwards.
    """
    store = Store(saver, False)
    for turns in range(12):
        saver.delete_thread("t")
        run = ScriptedRun(store)
        run.step({"n": 0})
        ScriptedRun(store, config("other")).step({"n": 0})
        gate = threading.Event()

        async def cancelled(turns: int = turns, run: ScriptedRun = run, gate: threading.Event = gate) -> bool:
            going = asyncio.ensure_future(call(saver, run))
            for _ in range(turns):
                await asyncio.sleep(0)
            going.cancel()
            await asyncio.sleep(0)
            gate.set()
            try:
                await going
            except asyncio.CancelledError:
                return True
            return False

        stalls = [StallAt("b5", until=gate.wait), StallAt("read", 1, until=gate.wait)] if held else []
        with inject(saver, *stalls):
            asyncio.run(cancelled())
            gate.set()
            # A read waits for what was submitted.
            stored = store.load(config()).values["n"]
        assert stored in (0, 1)
        if call is write:
            assert (stored == 1) == (len(run.stored) == 2)
        ScriptedRun(store).step({"n": 2}).check(store)
        asyncio.run(load(saver, run))
    assert_sound(saver)


def test_f30_a_loop_that_ends_in_the_middle(saver: SqliteSaver) -> None:
    """Whoever closes a loop over a write that is on its way: it ends well, and other loops are served."""
    store = Store(saver, True)
    run = ScriptedRun(store)
    run.step({"n": 0})
    gate = threading.Event()
    with inject(saver, StallAt("b5", until=gate.wait)):
        loop = asyncio.new_event_loop()
        going = loop.create_task(write(saver, run))
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        # No chance to hear of the end: the task is neither awaited nor cancelled.
        going._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        gate.set()
        # The next write of the async API comes after it.
        asyncio.run(put_writes(saver, run))
        assert store.load(config()).values["n"] == 1
    going.get_coro().close()  # type: ignore[union-attr]
    ScriptedRun(store).step({"n": 2}).check(store)
    assert_sound(saver)


def test_f30_two_loops(saver: SqliteSaver) -> None:
    """A commit that is submitted on one loop is awaited on another, while both use the saver."""
    store = Store(saver, False)
    runs = [ScriptedRun(store, config(f"t{number}")) for number in range(2)]
    for run in runs:
        run.step({"n": 0})
    acks: list[Any] = [[], []]
    done = threading.Barrier(2)

    def work(number: int) -> None:
        async def main() -> None:
            run = runs[number]
            for n in range(20):
                acks[number].append(saver.submit(saver.encode(run.prepare(big(n)))))
            done.wait()
            for ack in acks[1 - number]:
                await ack.aresult()
            assert (await saver.aload(config(f"t{number}"))).values["n"] == 19

        asyncio.run(main())

    workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for run in runs:
        run.stored[-1].check(store)
    assert all(ack.done() for part in acks for ack in part)
    assert_sound(saver)


@pytest.mark.parametrize("lag", [1, 16])
def test_f34_forked_with_an_open_saver(server: ForkServer, tmp_path: Path, lag: int) -> None:
    """The child may not use it, nor end what waits in it; its parent does not notice."""
    ended = server.call("tests.faults.children:fork_with_open_saver", str(tmp_path / "threads.sqlite"), lag)
    assert ended.value["problems"] == []
    assert ended.value["values"] == {"n": 3}
    assert ast.literal_eval(ended.value["child"]) == [*["SaverClosedError"] * 9, "done", "done"]
