"""Where chunks wait, who waits for room, and awaiting at the pace of a reader."""

import asyncio
import threading
from typing import Any

import pytest

from pregel.engine.task import paced
from pregel.errors import AttemptClosedError
from pregel.pregel._stream import BUFFER, Outlet, runs_a_loop
from tests.support.driving import LIMIT, within

MODES = frozenset({"custom"})


def outlet(buffer: int = 2) -> Outlet:
    return Outlet(MODES, buffer=buffer)


def chunk(value: Any, *path: str, mode: str = "custom") -> Any:
    return path, mode, value


def fine() -> None:
    """The body is still wanted."""


def on_a_thread(function: Any) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def blocked(out: Outlet) -> None:
    """Return when somebody waits for room."""

    def look() -> None:
        while not out.waiting:
            pass

    within(look)


def read(out: Outlet) -> list[Any]:
    values = []
    for _ in range(out.look()):
        values.append(out.chunks.popleft()[2])
        if out.waiting:
            out.let_in()
    return values


def test_what_was_not_asked_for_never_waits():
    out = outlet(1)
    out.append(chunk(1))
    out.offer(chunk(2, mode="updates"), fine)
    out.offer(chunk(3, "a:1"), fine)
    assert read(out) == [1]


def test_whoever_offers_waits_until_half_is_free():
    out = outlet(4)
    done = []

    def offer() -> None:
        for value in range(6):
            out.offer(chunk(value), fine)
            done.append(value)

    thread = on_a_thread(offer)
    blocked(out)
    assert done == [0, 1, 2, 3]
    assert out.look() == 4
    out.chunks.popleft()
    out.let_in()
    assert out.waiting, "woken once for several chunks, not for each"
    out.chunks.popleft()
    out.let_in()
    thread.join(LIMIT)
    assert done == [*range(6)]
    assert read(out) == [2, 3, 4, 5]


def test_several_wait():
    out = outlet(1)
    seen: list[Any] = []
    threads = [
        on_a_thread(lambda who=who: [out.offer(chunk((who, value)), fine) for value in range(20)]) for who in range(3)
    ]

    def collect() -> None:
        while len(seen) < 60:
            seen.extend(read(out))

    within(collect)
    for thread in threads:
        thread.join(LIMIT)
    for who in range(3):
        assert [value for one, value in seen if one == who] == [*range(20)]


def test_closing_wakes_and_whoever_is_not_wanted_any_more_is_told():
    out = outlet(1)
    out.append(chunk(0))
    ended = []

    def check() -> None:
        raise AttemptClosedError

    def offer() -> None:
        try:
            out.offer(chunk(1), check)
        except AttemptClosedError as error:
            ended.append(error)

    thread = on_a_thread(offer)
    blocked(out)
    out.close()
    thread.join(LIMIT)
    assert len(ended) == 1
    assert len(out.chunks) == 1
    assert not out.is_full, "nobody waits from now on"


def test_a_closed_loop_reads_no_more():
    out = outlet(1)
    loop = asyncio.new_event_loop()
    out.ping = loop.call_soon_threadsafe
    loop.close()
    out.append(chunk(0))
    within(lambda: out.offer(chunk(1), fine))
    assert out.closed


def test_a_loop_that_does_not_turn_is_not_waited_for_until_it_does(monkeypatch):
    monkeypatch.setattr(Outlet, "patience_s", 0.01)
    out, asked = outlet(1), []
    out.ping = asked.append
    out.append(chunk(0))
    within(lambda: out.offer(chunk(1), fine))
    assert len(asked) == 1
    within(lambda: out.offer(chunk(2), fine))
    assert len(asked) == 1, "it is not asked again while it owes an answer"
    asked.pop()()
    thread = on_a_thread(lambda: out.offer(chunk(3), fine))
    blocked(out)
    assert read(out) == [0, 1, 2]
    thread.join(LIMIT)
    assert read(out) == [3]


def test_the_reader_and_loops_never_wait():
    out = outlet(1)
    out.look()
    for value in range(3):
        out.offer(chunk(value), fine)
    assert len(out.chunks) == 3

    async def on_a_loop() -> None:
        assert runs_a_loop()
        out.offer(chunk(3), fine)

    thread = on_a_thread(lambda: asyncio.run(on_a_loop()))
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert len(out.chunks) == 4
    assert not runs_a_loop()


def test_the_usual_room():
    assert Outlet(MODES).buffer == BUFFER == 1024


# ---- at the pace of a reader


class Host:
    """Crowded as often as it is told, and awaited then."""

    def __init__(self, crowded: int = 0) -> None:
        self.crowded = crowded
        self.waits = 0
        self.room_error: BaseException | None = None

    @property
    def is_crowded(self) -> bool:
        self.crowded -= 1
        return self.crowded >= 0

    async def room(self) -> None:
        self.waits += 1
        await asyncio.sleep(0)
        if self.room_error is not None:
            raise self.room_error


def test_a_paced_body_waits_after_each_of_its_awaits():
    host = Host(2)

    async def body() -> str:
        for _ in range(3):
            await asyncio.sleep(0)
        return await asyncio.wait_for(asyncio.sleep(0, "result"), LIMIT)

    async def main() -> str:
        result: str = await paced(body(), host, host.room)
        return result

    assert asyncio.run(main()) == "result"
    assert host.waits == 2


def test_errors_of_a_paced_body():
    host = Host(9)

    async def body() -> None:
        await asyncio.sleep(0)
        raise KeyError("k")

    async def main() -> None:
        await paced(body(), host, host.room)

    with pytest.raises(KeyError):
        asyncio.run(main())


@pytest.mark.parametrize("crowded", [0, 10**6])
def test_a_cancellation_reaches_the_body_wherever_it_waits(crowded):
    host, seen = Host(crowded), []

    async def body() -> str:
        try:
            while True:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0)
            return "cleaned up"

    async def main() -> Any:
        async def run() -> Any:
            return await paced(body(), host, host.room)

        task = asyncio.create_task(run())
        for _ in range(4):
            await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(main()) == "cleaned up"
    assert seen == ["cancelled"]


def test_a_paced_body_that_is_dropped_is_closed():
    host, seen = Host(), []

    async def body() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            seen.append("closed")

    async def main() -> None:
        waiting = paced(body(), host, host.room)
        waiting.send(None)
        waiting.close()

    asyncio.run(main())
    assert seen == ["closed"]


def test_an_outlet_takes_what_was_asked_for():
    woken = []
    outlet = Outlet(frozenset({"values"}))
    outlet.path = ("a:1",)
    outlet.append((("a:1",), "values", 1))
    outlet.wake = woken.append
    outlet.append((("a:1",), "values", 2))
    outlet.append((("a:1",), "updates", 3))
    outlet.append(((), "values", 4))
    outlet.append((("a:1", "b:2"), "values", 5))
    assert [payload for _, _, payload in outlet.chunks] == [1, 2]
    assert woken == [None]
    assert outlet.look() == 2
    outlet.append((("a:1",), "values", 6))
    outlet.append((("a:1",), "values", 7))
    assert woken == [None, None], "once per look, or a slow reader's driver would get a heap of them"
    outlet.subgraphs = True
    outlet.append((("a:1", "b:2"), "values", 8))
    assert outlet.chunks[-1][2] == 8
