"""Two runs on one thread: who is refused, who waits, who goes beside it, who is fenced (storage.md C5.2, design.md D24,
D41)."""

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typing_extensions import TypedDict

from checkpoint.base import CheckpointConflictError, ThreadBusyError, ThreadDeletedError
from checkpoint.memory import InMemorySaver
from pregel.errors import EmptyInputError, InvalidUpdateError
from pregel.graph import START, StateGraph
from pregel.types import Command, Every, interrupt
from tests.checkpoint.runs import ScriptedRun, Store
from tests.support.driving import LIMIT
from tests.support.scenarios import Colour, Gate, Log, checkpoint_id

pytestmark = pytest.mark.differs("design.md D24, D41: LangGraph lets both runs through, and one is lost unnoticed")

WAYS = pytest.mark.parametrize("how", ["raise", "wait", "fork"])
HELD = "held"
"""Input of the run that stays in its node until it is told to go on."""


class Beside:
    """A call on a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self.thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self.value = call()
        except BaseException as error:  # noqa: BLE001 - raised again where the test is
            self.error = error

    def result(self) -> Any:
        self.thread.join(LIMIT)
        assert not self.thread.is_alive(), "the call does not end"
        if self.error is not None:
            raise self.error
        return self.value


class Place:
    """A graph of two nodes on one thread of a saver. The first stays where it is if the last input was `HELD`."""

    def __init__(self, colour: Colour, saver: Any, thread: Any, **options: Any) -> None:
        self.colour, self.saver, self.thread = colour, saver, thread
        self.entered, self.go = threading.Event(), threading.Event()
        self.ran: list[Any] = []

        def first(state: Log) -> dict[str, Any]:
            self.ran.append(state["l"][-1])
            if state["l"][-1] == HELD:
                self.entered.set()
                assert self.go.wait(LIMIT)
            return {"l": ["first"]}

        builder = StateGraph(Log).add_node("first", colour.node(first)).add_node("second", colour.letter("second"))
        self.graph = builder.add_edge(START, "first").add_edge("first", "second").compile(saver, **options)

    def invoke(self, word: str, **options: Any) -> Any:
        return self.colour.invoke(self.graph, {"l": [word]}, self.thread, **options)

    def hold(self, **options: Any) -> Beside:
        """A run that executes on the thread; returns once it is in its node."""
        run = Beside(lambda: self.invoke(HELD, **options))
        if not self.entered.wait(LIMIT):
            run.result()
        return run

    def end(self, run: Beside) -> Any:
        self.go.set()
        return run.result()

    def intrude(self, word: str = "intruder") -> str:
        """Take the thread as another process would: past the table of this one. Returns the checkpoint's id."""
        run = ScriptedRun(Store(self.saver, False), self.thread)
        run.values["l"] = [*run.values.get("l", [])]
        return run.step({"l": [*run.values["l"], word]}).id

    @property
    def head(self) -> Any:
        return self.colour.get_state(self.graph, self.thread)

    def at(self, config: Any) -> list[Any]:
        values: list[Any] = self.colour.get_state(self.graph, config).values["l"]
        return values

    @property
    def n_stored(self) -> int:
        return len(list(self.saver.list(self.thread)))


@pytest.fixture
def place(colour: Colour, saver: Any, thread: Any) -> Iterator[Place]:
    """A place whose saver is sound and holds nothing for anybody in the end."""
    made = Place(colour, saver, thread)
    yield made
    if len(saver.holders):
        gc.collect()  # an error may keep a run's frames
    assert len(saver.holders) == 0
    assert not saver.holders.waiting
    assert saver.verify(deep=True) == []


@pytest.fixture
def queued(saver: Any, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once somebody waits for a thread."""
    event, queue = threading.Event(), saver.holders.queue

    def watched(*args: Any) -> None:
        queue(*args)
        event.set()

    monkeypatch.setattr(saver.holders, "queue", watched)
    return event


def calls(place: Place, **options: Any) -> list[Callable[[], Any]]:
    """Every call that writes a thread."""
    colour, graph, thread = place.colour, place.graph, place.thread

    async def bulk() -> Any:
        return await graph.abulk_update_state(thread, [[({"l": ["u"]}, "second")]], **options)

    return [
        lambda: colour.invoke(graph, {"l": ["new"]}, thread, **options),
        lambda: colour.stream(graph, {"l": ["new"]}, thread, **options),
        lambda: colour.invoke(graph, {"l": ["new"]}, thread, stream_mode="updates", **options),
        lambda: colour.invoke(graph, None, thread, **options),
        lambda: colour.invoke(graph, Command(resume=1), thread, **options),
        lambda: colour.update_state(graph, thread, {"l": ["u"]}, "second", **options),
        lambda: (
            asyncio.run(bulk())
            if colour.is_async
            else graph.bulk_update_state(thread, [[({"l": ["u"]}, "second")]], **options)
        ),
    ]


# ---------------------------------------------------------------------------------------------------- it is executing


def test_a_newcomer_is_refused_before_it_does_anything(place: Place) -> None:
    holder = place.hold(durability="sync")
    stored = place.n_stored
    for call in calls(place):
        with pytest.raises(ThreadBusyError) as refused:
            call()
        assert (refused.value.thread_id, refused.value.until) == ("1", None)
    assert (place.ran, place.n_stored) == ([HELD], stored)
    assert place.end(holder) == {"l": [HELD, "first", "second"]}
    assert place.invoke("new")["l"] == [HELD, "first", "second", "new", "first", "second"]


def test_the_refusal_names_both_runs(colour: Colour, saver: Any, thread: Any) -> None:
    place = Place(colour, saver, thread)
    holder = Beside(lambda: colour.invoke(place.graph, {"l": [HELD]}, {**thread, "run_id": "one"}))
    assert place.entered.wait(LIMIT)
    with pytest.raises(ThreadBusyError) as refused:
        colour.invoke(place.graph, {"l": ["new"]}, {**thread, "run_id": "two"})
    assert (refused.value.owner_run_id, refused.value.run_id) == ("one", "two")
    place.end(holder)


def test_other_threads_and_other_savers_are_free(place: Place, colour: Colour) -> None:
    holder = place.hold()
    other = {"configurable": {"thread_id": "2"}}
    assert colour.invoke(place.graph, {"l": ["new"]}, other)["l"] == ["new", "first", "second"]
    twin = Place(colour, InMemorySaver(), place.thread)
    assert twin.invoke("new")["l"] == ["new", "first", "second"]
    assert place.head.next == ("first",)
    place.end(holder)


@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_waiting_for_its_end(place: Place, queued: threading.Event, timeout: Any) -> None:
    holder = place.hold()
    newcomer = Beside(lambda: place.invoke("new", on_conflict="wait", timeout=timeout))
    assert queued.wait(LIMIT)
    assert place.ran == [HELD]
    assert place.end(holder)["l"] == [HELD, "first", "second"]
    assert newcomer.result()["l"] == [HELD, "first", "second", "new", "first", "second"]


def test_updates_wait_too(place: Place, queued: threading.Event) -> None:
    holder = place.hold()
    colour, graph = place.colour, place.graph
    newcomer = Beside(lambda: colour.update_state(graph, place.thread, {"l": ["u"]}, "second", on_conflict="wait"))
    assert queued.wait(LIMIT)
    place.end(holder)
    assert place.at(newcomer.result()) == [HELD, "first", "second", "u"]


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_waiting_has_an_end(place: Place, timeout: float) -> None:
    holder = place.hold()
    for call in calls(place, on_conflict="wait", timeout=timeout):
        with pytest.raises(ThreadBusyError):
            call()
    assert place.end(holder)["l"] == [HELD, "first", "second"]
    assert place.head.values["l"] == [HELD, "first", "second"]


def test_many_wait_for_each_other(place: Place) -> None:
    holder = place.hold()
    waiting = [Beside(lambda n=n: place.invoke(f"{n}", on_conflict="wait")) for n in range(5)]  # type: ignore[misc]
    place.end(holder)
    for newcomer in waiting:
        newcomer.result()
    words = place.head.values["l"]
    assert words[:3] == [HELD, "first", "second"]
    assert sorted(words[3::3]) == ["0", "1", "2", "3", "4"]
    assert words[4::3] == ["first"] * 5


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_lane_beside_it(place: Place, durability: Any) -> None:
    place.invoke("old")
    holder = place.hold()
    forked = place.invoke("new", on_conflict="fork", version="v2", durability=durability)
    assert forked.value["l"][3:] == ["new", "first", "second"] or forked.value["l"][4:] == ["new", "first", "second"]
    lane = forked.config
    assert place.at(lane) == forked.value["l"]
    assert place.head.values["l"][-1] == HELD
    assert place.end(holder)["l"] == ["old", "first", "second", HELD, "first", "second"]
    assert place.head.values["l"] == ["old", "first", "second", HELD, "first", "second"]
    assert place.at(lane) == forked.value["l"]
    # The lane is a place like any other: a run from there goes on, and is the newest from then on.
    on = place.colour.invoke(place.graph, {"l": ["on"]}, lane)
    assert on["l"] == [*forked.value["l"], "on", "first", "second"]
    assert place.head.values["l"] == on["l"]


def test_a_lane_of_a_thread_that_is_not_stored_yet(place: Place) -> None:
    holder = place.hold(durability="exit")
    assert place.n_stored == 0
    forked = place.invoke("new", on_conflict="fork", version="v2")
    assert forked.value["l"] == ["new", "first", "second"]
    assert place.head.values == {}
    assert place.end(holder)["l"] == [HELD, "first", "second"]
    assert place.head.values["l"] == [HELD, "first", "second"]
    assert place.at(forked.config) == ["new", "first", "second"]
    # The holder's ids were made before there was the thread.
    assert place.at(place.head.config) == [HELD, "first", "second"]
    assert place.invoke("more")["l"][3:] == ["more", "first", "second"]


def test_an_update_in_a_lane(place: Place) -> None:
    place.invoke("old")
    holder = place.hold(durability="sync")
    colour, graph, thread = place.colour, place.graph, place.thread
    lane = colour.update_state(graph, thread, {"l": ["u"]}, "second", on_conflict="fork")
    assert place.at(lane)[-1] == "u"
    assert place.end(holder)["l"][-3:] == [HELD, "first", "second"]
    assert place.head.values["l"][-3:] == [HELD, "first", "second"]
    assert place.at(lane)[-1] == "u"


def test_lanes_beside_each_other(place: Place) -> None:
    place.invoke("old")
    holder = place.hold(durability="sync")
    forked = [place.invoke(f"{n}", on_conflict="fork", version="v2") for n in range(3)]
    place.end(holder)
    for number, one in enumerate(forked):
        assert place.at(one.config) == one.value["l"]
        assert one.value["l"][-3:] == [f"{number}", "first", "second"]
    assert place.head.values["l"] == ["old", "first", "second", HELD, "first", "second"]


def test_a_lane_waits_first_if_it_is_told_to(place: Place, queued: threading.Event) -> None:
    holder = place.hold()
    newcomer = Beside(lambda: place.invoke("new", on_conflict="fork", timeout=LIMIT, version="v2"))
    assert queued.wait(LIMIT)
    place.end(holder)
    assert newcomer.result().value["l"] == [HELD, "first", "second", "new", "first", "second"]
    assert place.head.values["l"] == newcomer.result().value["l"]


def test_the_graph_says_what_calls_do(colour: Colour, saver: Any, thread: Any) -> None:
    place = Place(colour, saver, thread, on_conflict="fork")
    holder = place.hold()
    assert place.invoke("new")["l"][-3:] == ["new", "first", "second"]
    with pytest.raises(ThreadBusyError):
        place.invoke("new", on_conflict="raise")
    assert place.end(holder)["l"] == [HELD, "first", "second"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"on_conflict": "queue"}, "queue"),
        ({"timeout": 1}, "raise"),
        ({"on_conflict": "wait", "timeout": -1}, "-1"),
        ({"on_conflict": "wait", "timeout": True}, "True"),
    ],
)
def test_ways_that_do_not_exist(colour: Colour, saver: Any, thread: Any, options: Any, named: str) -> None:
    place = Place(colour, saver, thread)
    for call in calls(place, **options):
        with pytest.raises(ValueError, match=named):
            call()
    assert place.n_stored == 0
    with pytest.raises(ValueError, match="queue"):
        Place(colour, saver, thread, on_conflict="queue")


# --------------------------------------------------------------------------------------------- it is suspended at a chunk


@WAYS
def test_a_stream_that_nobody_reads_gives_way(place: Place, how: str) -> None:
    graph, thread = place.graph, place.thread

    def check(rest: BaseException | None) -> None:
        assert isinstance(rest, CheckpointConflictError)
        assert not isinstance(rest, ThreadBusyError)
        assert place.head.values["l"] == ["old", "first", "new", "first", "second"]
        # Its own step is in the history, and nothing after it.
        assert (
            sum(entry.values["l"] == ["old", "first", "second"] for entry in place.colour.history(graph, thread)) == 0
        )

    def new(**options: Any) -> Any:
        return place.colour.invoke(graph, {"l": ["new"]}, thread, on_conflict=how, version="v2", **options)

    if not place.colour.is_async:
        stream = graph.stream({"l": ["old"]}, thread, stream_mode="updates")
        assert next(stream) == {"first": {"l": ["first"]}}
        assert new().value["l"] == ["old", "first", "new", "first", "second"]
        with pytest.raises(CheckpointConflictError) as conflict:
            next(stream)
        assert conflict.value.expected is not None
        check(conflict.value)
        assert list(stream) == []
        return

    async def both() -> None:
        stream = graph.astream({"l": ["old"]}, thread, stream_mode="updates")
        assert await anext(stream) == {"first": {"l": ["first"]}}
        forked = await graph.ainvoke({"l": ["new"]}, thread, on_conflict=how, version="v2")
        assert forked.value["l"] == ["old", "first", "new", "first", "second"]
        with pytest.raises(CheckpointConflictError) as conflict:
            await anext(stream)
        found.append(conflict.value)

    found: list[BaseException] = []
    asyncio.run(both())
    check(found[0])


@pytest.mark.parametrize("mode", ["updates", ["values", "updates"]])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_closing_it_then_stores_and_raises_nothing(place: Place, mode: Any, durability: Any) -> None:
    graph, thread = place.graph, place.thread
    options = {"stream_mode": mode, "durability": durability}

    async def both() -> None:
        stream = graph.astream({"l": ["old"]}, thread, **options)
        await anext(stream)
        await graph.ainvoke({"l": ["new"]}, thread)
        stored.append(len(list(place.saver.list(thread))))
        await stream.aclose()

    stored: list[int] = []
    if place.colour.is_async:
        asyncio.run(both())
    else:
        stream = graph.stream({"l": ["old"]}, thread, **options)
        next(stream)
        graph.invoke({"l": ["new"]}, thread)
        stored.append(place.n_stored)
        stream.close()
    assert place.n_stored == stored[0]
    assert place.head.values["l"][-3:] == ["new", "first", "second"]


def test_an_update_while_reading_a_stream(place: Place) -> None:
    graph, thread = place.graph, place.thread

    async def read() -> None:
        async for _ in graph.astream({"l": ["old"]}, thread, stream_mode="updates"):
            await graph.aupdate_state(thread, {"l": ["u"]}, "second")

    def read_sync() -> None:
        for _ in graph.stream({"l": ["old"]}, thread, stream_mode="updates"):
            graph.update_state(thread, {"l": ["u"]}, "second")

    with pytest.raises(CheckpointConflictError):
        asyncio.run(read()) if place.colour.is_async else read_sync()
    assert place.head.values["l"] == ["old", "first", "u"]


def test_who_waits_does_not_wait_for_a_reader(place: Place, queued: threading.Event) -> None:
    """It waits for nodes. A chunk that goes out may never be followed by another pull, so the wait ends there."""
    graph, thread = place.graph, place.thread
    newcomer: list[Beside] = []

    async def aread() -> None:
        stream = graph.astream({"l": [HELD]}, thread, stream_mode="updates")
        async for _ in stream:
            newcomer[0].result()

    def read() -> None:
        for _ in graph.stream({"l": [HELD]}, thread, stream_mode="updates"):
            newcomer[0].result()

    reader = Beside(lambda: asyncio.run(aread()) if place.colour.is_async else read())
    assert place.entered.wait(LIMIT)
    newcomer.append(Beside(lambda: place.invoke("new", on_conflict="wait")))
    assert queued.wait(LIMIT)
    place.go.set()
    with pytest.raises(CheckpointConflictError):
        reader.result()
    assert newcomer[0].result()["l"] == [HELD, "first", "new", "first", "second"]


def test_reading_is_always_free(place: Place) -> None:
    graph, thread, seen = place.graph, place.thread, []

    async def read() -> None:
        async for _ in graph.astream({"l": ["old"]}, thread, stream_mode="updates"):
            seen.append((await graph.aget_state(thread)).values["l"][-1])

    if place.colour.is_async:
        asyncio.run(read())
    else:
        for _ in graph.stream({"l": ["old"]}, thread, stream_mode="updates"):
            seen.append(graph.get_state(thread).values["l"][-1])
    assert seen == ["first", "second"]
    assert place.head.values["l"] == ["old", "first", "second"]


def test_a_stream_that_was_left_is_no_holder(place: Place) -> None:
    graph, thread = place.graph, place.thread

    async def leave() -> None:
        async for _ in graph.astream({"l": ["old"]}, thread, stream_mode="updates"):
            break
        await graph.ainvoke({"l": ["new"]}, thread)

    if place.colour.is_async:
        asyncio.run(leave())
    else:
        for _ in graph.stream({"l": ["old"]}, thread, stream_mode="updates"):
            break
        assert len(place.saver.holders) == 0
        graph.invoke({"l": ["new"]}, thread)
    assert place.head.values["l"] == ["old", "first", "new", "first", "second"]


def test_a_question_is_stored_when_it_is_read(colour: Colour, saver: Any, thread: Any) -> None:
    """Whoever stops reading at the question, and keeps the stream, can answer it."""
    asked: list[int] = []

    def ask(state: Log) -> dict[str, Any]:
        asked.append(1)
        return {"l": [interrupt("q")]}

    graph = StateGraph(Log).add_node("ask", colour.node(ask)).add_edge(START, "ask").compile(saver)

    async def both() -> Any:
        stream = graph.astream({"l": []}, thread)
        async for chunk in stream:
            if "__interrupt__" in chunk:
                break
        assert (await graph.aget_state(thread)).interrupts
        return await graph.ainvoke(Command(resume="a"), thread), await stream.aclose()

    if colour.is_async:
        result, _ = asyncio.run(both())
    else:
        stream = graph.stream({"l": []}, thread)
        for chunk in stream:
            if "__interrupt__" in chunk:
                break
        assert graph.get_state(thread).interrupts
        result = graph.invoke(Command(resume="a"), thread)
        stream.close()
    assert (result, len(asked)) == ({"l": ["a"]}, 2)


# ------------------------------------------------------------------------------------ from inside the holder's own nodes


@WAYS
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_node_returns_its_updates(colour: Colour, saver: Any, thread: Any, how: str, durability: Any) -> None:
    refusals: list[ThreadBusyError] = []

    async def abeside() -> None:
        update = graph.aupdate_state(thread, {"l": ["u"]}, "n", on_conflict=how)
        for call in (update, graph.ainvoke({"l": ["u"]}, thread, on_conflict=how)):
            with pytest.raises(ThreadBusyError) as refused:
                await call
            refusals.append(refused.value)

    def beside() -> None:
        with pytest.raises(ThreadBusyError) as refused:
            graph.update_state(thread, {"l": ["u"]}, "n", on_conflict=how)
        refusals.append(refused.value)
        with pytest.raises(ThreadBusyError) as refused:
            graph.invoke({"l": ["u"]}, thread, on_conflict=how)
        refusals.append(refused.value)
        for _ in graph.stream({"l": ["u"]}, {"configurable": {"thread_id": "2"}}, on_conflict=how):
            # Also through a run of another thread.
            with pytest.raises(ThreadBusyError) as refused:
                graph.update_state(thread, {"l": ["u"]}, "n", on_conflict=how)
            refusals.append(refused.value)

    async def anode(state: Log) -> dict[str, Any]:
        if state["l"] == ["in"]:
            await abeside()
        return {"l": ["n"]}

    def node(state: Log) -> dict[str, Any]:
        if state["l"] == ["in"]:
            beside()
        return {"l": ["n"]}

    graph = StateGraph(Log).add_node("n", anode if colour.is_async else node).add_edge(START, "n").compile(saver)
    assert colour.invoke(graph, {"l": ["in"]}, thread, durability=durability) == {"l": ["in", "n"]}
    assert len(refusals) >= 2
    assert all("return the update" in str(refusal) for refusal in refusals)
    assert len(saver.holders) == 0


def test_a_nested_run_is_not_a_newcomer(colour: Colour, saver: Any, thread: Any) -> None:
    inner = StateGraph(Log).add_node("i", colour.letter("i")).add_edge(START, "i").compile()
    keeps = StateGraph(Log).add_node("k", colour.letter("k")).add_edge(START, "k").compile(True)

    def call(state: Log) -> Any:
        result = yield inner, {"l": []}
        return {"l": result["l"]}

    builder = StateGraph(Log).add_node("call", colour.script(call)).add_node("keeps", keeps)
    graph = builder.add_edge(START, "call").add_edge("call", "keeps").compile(saver)
    for _ in range(2):
        colour.invoke(graph, {"l": []}, thread)
    assert len(saver.holders) == 0


# ------------------------------------------------------------------------------------------------ another process writes


class Intrusion:
    """Another process takes the thread between this one's load and its claim, so many times."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
        self.left, encode = times, place.saver.encode

        def intruded(commit: Any) -> Any:
            if self.left and not busy:
                self.left -= 1
                busy.append(1)
                place.intrude()
                busy.clear()
            return encode(commit)

        busy: list[int] = []
        monkeypatch.setattr(place.saver, "encode", intruded)


@pytest.mark.parametrize("kind", ["invoke", "update"])
@WAYS
def test_another_process_writes_between_load_and_claim(
    place: Place, how: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.invoke("old")
    Intrusion(place, monkeypatch)

    def call() -> Any:
        if kind == "update":
            return place.colour.update_state(place.graph, place.thread, {"l": ["new"]}, "second", on_conflict=how)
        return place.invoke("new", on_conflict=how, version="v2").config

    if how == "raise":
        with pytest.raises(CheckpointConflictError) as conflict:
            call()
        assert conflict.value.expected != conflict.value.actual == checkpoint_id(place.head.config)
        assert place.head.values["l"] == ["old", "first", "second", "intruder"]
        assert place.ran == ["old"]
        return
    config = call()
    more = ["new"] if kind == "update" else ["new", "first", "second"]
    if how == "wait":
        assert place.head.values["l"] == ["old", "first", "second", "intruder", *more]
    else:
        assert place.head.values["l"] == ["old", "first", "second", "intruder"]
        assert place.at(config) == ["old", "first", "second", *more]


def test_waiting_for_another_process_has_an_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    Intrusion(place, monkeypatch, times=10_000)
    with pytest.raises(CheckpointConflictError):
        place.invoke("new", on_conflict="wait", timeout=0.01)
    assert place.ran == []


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_run_that_loses_its_thread_stops(place: Place, durability: Any) -> None:
    holder = place.hold(durability=durability)
    place.intrude()
    before = place.n_stored
    with pytest.raises(CheckpointConflictError):
        place.end(holder)
    assert place.n_stored == before
    assert place.head.values["l"][-1] == "intruder"


@pytest.mark.parametrize("durability", ["sync", "async", "exit", Every(steps=1), Every(steps=2)], ids=str)
def test_a_run_that_loses_its_thread_goes_on_in_a_lane(place: Place, durability: Any) -> None:
    place.invoke("old")
    holder = place.hold(durability=durability, on_conflict="fork", version="v2")
    place.intrude()
    head = checkpoint_id(place.head.config)
    ended = place.end(holder)
    assert ended.value["l"] == ["old", "first", "second", HELD, "first", "second"]
    assert checkpoint_id(place.head.config) == head
    assert place.at(ended.config) == ended.value["l"]
    snapshot = place.colour.get_state(place.graph, ended.config)
    lineage = []
    while snapshot.parent_config is not None:
        lineage.append(snapshot.values["l"][-1])
        snapshot = place.colour.get_state(place.graph, snapshot.parent_config)
    assert lineage[-3:] == ["second", "first", "old"]
    assert "intruder" not in lineage


def test_a_lane_does_not_keep_questions_of_a_step_it_shares(colour: Colour, saver: Any, thread: Any) -> None:
    entered, go = threading.Event(), threading.Event()

    def ask(state: Log) -> dict[str, Any]:
        entered.set()
        assert go.wait(LIMIT)
        return {"l": [interrupt("q")]}

    graph = StateGraph(Log).add_node("ask", colour.node(ask)).add_edge(START, "ask").compile(saver)
    run = Beside(lambda: colour.invoke(graph, {"l": ["in"]}, thread, on_conflict="fork", durability="sync"))
    assert entered.wait(LIMIT)
    ScriptedRun(Store(saver, False), thread).step({"l": ["intruder"]})
    go.set()
    with pytest.raises(CheckpointConflictError):
        run.result()
    assert colour.get_state(graph, thread).values == {"l": ["intruder"]}


def test_a_question_of_a_lane_is_answered_there(colour: Colour, saver: Any, thread: Any) -> None:
    entered, go = threading.Event(), threading.Event()

    def ask(state: Log) -> dict[str, Any]:
        if state["l"] == ["in"]:
            entered.set()
            assert go.wait(LIMIT)
            return {"l": ["main"]}
        return {"l": [interrupt("q")]}

    graph = StateGraph(Log).add_node("ask", colour.node(ask)).add_edge(START, "ask").compile(saver)
    holder = Beside(lambda: colour.invoke(graph, {"l": ["in"]}, thread, durability="sync"))
    assert entered.wait(LIMIT)
    forked = colour.invoke(graph, {"l": ["lane"]}, thread, on_conflict="fork", version="v2")
    assert [question.value for question in forked.interrupts] == ["q"]
    assert colour.get_state(graph, forked.config).interrupts == forked.interrupts
    go.set()
    assert holder.result() == {"l": ["in", "main"]}
    assert colour.get_state(graph, thread).interrupts == ()
    answered = colour.invoke(graph, Command(resume="a"), forked.config)
    assert answered["l"][-2:] == ["lane", "a"]


def test_what_a_lane_has_done_is_not_done_again(colour: Colour, saver: Any, thread: Any) -> None:
    entered, go, ran = threading.Event(), threading.Event(), []

    def work(state: Log) -> dict[str, Any]:
        ran.append(state["l"][-1])
        if state["l"] == ["in"]:
            entered.set()
            assert go.wait(LIMIT)
        return {"l": ["work"]}

    def ask(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q")] if state["l"] != ["in"] else []}

    builder = StateGraph(Log).add_node("ask", colour.node(ask)).add_node("work", colour.node(work))
    graph = builder.add_edge(START, "ask").add_edge(START, "work").compile(saver)
    holder = Beside(lambda: colour.invoke(graph, {"l": ["in"]}, thread, durability="sync"))
    assert entered.wait(LIMIT)
    forked = colour.invoke(graph, {"l": ["lane"]}, thread, on_conflict="fork", version="v2")
    assert len(forked.interrupts) == 1
    go.set()
    assert holder.result() == {"l": ["in", "work"]}
    assert colour.invoke(graph, Command(resume="a"), forked.config)["l"][-3:] == ["lane", "a", "work"]
    assert ran == ["in", "lane"]


@pytest.mark.parametrize("durability", ["sync", "async", "exit", Every(steps=1)], ids=str)
def test_parallel_nested_runs_lose_their_thread(colour: Colour, saver: Any, thread: Any, durability: Any) -> None:
    inside, go = threading.Semaphore(0), threading.Event()

    def wait(state: Log) -> dict[str, Any]:
        if state["l"][-1] == HELD:
            inside.release()
            assert go.wait(LIMIT)
        return {"l": ["wait"]}

    def inner(name: str, keeps: Any) -> Any:
        builder = StateGraph(Log).add_node("wait", wait).add_node(name, colour.letter(name))
        return builder.add_edge(START, "wait").add_edge("wait", name).compile(keeps)

    builder = StateGraph(Log).add_node("one", inner("o", None)).add_node("two", inner("t", True))
    builder.add_node("end", colour.letter("end"))
    builder.add_edge(START, "one").add_edge(START, "two").add_edge(["one", "two"], "end")
    graph = builder.compile(saver)
    colour.invoke(graph, {"l": ["old"]}, thread)
    options = {"on_conflict": "fork", "version": "v2", "durability": durability}
    run = Beside(lambda: colour.invoke(graph, {"l": [HELD]}, thread, **options))
    for _ in range(2):
        assert inside.acquire(timeout=LIMIT)
    ScriptedRun(Store(saver, False), thread).step({"l": ["intruder"]})
    before = colour.get_state(graph, thread).config
    go.set()
    ended = run.result()
    assert ended.value["l"][-1] == "end"
    assert {"o", "t", "wait"} <= set(ended.value["l"])
    assert colour.get_state(graph, thread).config == before
    assert colour.get_state(graph, ended.config).values == ended.value
    assert [entry.next for entry in colour.history(graph, ended.config)][:1] == [()]
    for entry in saver.list(thread):
        assert saver.get_tuple(entry.config).checkpoint == entry.checkpoint
    # It can be gone on from, with the nested memory that it has.
    on = colour.invoke(graph, {"l": ["on"]}, ended.config)
    assert on["l"][: len(ended.value["l"])] == ended.value["l"]
    assert colour.get_state(graph, thread).values == on
    assert saver.verify(deep=True) == []


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("keeps", [None, True])
def test_nested_runs_of_a_lane(colour: Colour, saver: Any, thread: Any, keeps: Any, durability: Any) -> None:
    """The holder's nested state and the lane's stay apart."""
    entered, go = threading.Event(), threading.Event()

    def hold(state: Log) -> dict[str, Any]:
        if state["l"][-1] == HELD:
            entered.set()
            assert go.wait(LIMIT)
        return {"l": ["hold"]}

    builder = StateGraph(Log).add_node("a", colour.letter("a")).add_node("hold", colour.node(hold))
    builder.add_node("b", colour.letter("b"))
    # `hold` is the first, so that the holder is inside of its nested run.
    inner = builder.add_edge(START, "hold").add_edge("hold", "a").add_edge("a", "b").compile(keeps)
    graph = StateGraph(Log).add_node("inner", inner).add_edge(START, "inner").compile(saver)
    colour.invoke(graph, {"l": ["old"]}, thread)
    before = colour.get_state(graph, thread).values["l"]
    holder = Beside(lambda: colour.invoke(graph, {"l": [HELD]}, thread, durability="sync"))
    assert entered.wait(LIMIT)
    forked = colour.invoke(graph, {"l": ["lane"]}, thread, on_conflict="fork", version="v2", durability=durability)
    assert HELD in colour.get_state(graph, thread).values["l"]
    go.set()
    ended = holder.result()
    assert "lane" not in ended["l"]
    assert ended["l"][: len(before)] == before
    assert colour.get_state(graph, thread).values == ended
    assert colour.get_state(graph, forked.config).values == forked.value
    # Nested memory is the line's own: the next run of the main line does not see what the lane has done.
    again = colour.invoke(graph, {"l": ["again"]}, thread)
    assert "lane" not in again["l"]


# ------------------------------------------------------------------------------------------------------ on one event loop


class Loop:
    """Runs on one loop, whose first node waits for a gate if the input is `HELD`."""

    def __init__(self, saver: Any, thread: Any) -> None:
        self.thread, self.gate, self.entered = thread, Gate(), asyncio.Event()

        async def node(state: Log) -> dict[str, Any]:
            if state["l"][-1] == HELD:
                self.entered.set()
                await self.gate.wait_async()
            return {"l": ["n"]}

        self.graph = StateGraph(Log).add_node("n", node).add_edge(START, "n").compile(saver)

    async def hold(self) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(self.graph.ainvoke({"l": [HELD]}, self.thread))
        await self.entered.wait()
        return task


def test_waiting_does_not_block_the_loop(saver: Any, thread: Any) -> None:
    async def main() -> None:
        place = Loop(saver, thread)
        holder = await place.hold()
        newcomers = [
            asyncio.ensure_future(place.graph.ainvoke({"l": [f"{n}"]}, thread, on_conflict="wait")) for n in range(3)
        ]
        with pytest.raises(ThreadBusyError):
            await place.graph.ainvoke({"l": ["x"]}, thread)
        place.gate.set()
        assert await holder == {"l": [HELD, "n"]}
        await asyncio.gather(*newcomers)
        assert sorted((await place.graph.aget_state(thread)).values["l"]) == sorted(["0", "1", "2", HELD, *["n"] * 4])

    asyncio.run(main())
    assert len(saver.holders) == 0


def test_who_gives_up_waiting_leaves_no_trace(saver: Any, thread: Any) -> None:
    async def main() -> None:
        place = Loop(saver, thread)
        holder = await place.hold()
        gone = asyncio.ensure_future(place.graph.ainvoke({"l": ["x"]}, thread, on_conflict="wait"))
        stays = asyncio.ensure_future(place.graph.ainvoke({"l": ["y"]}, thread, on_conflict="wait"))
        while len(saver.holders.waiting.get("1", ())) < 2:
            await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        place.gate.set()
        await holder
        assert await stays == {"l": [HELD, "n", "y", "n"]}

    asyncio.run(main())
    assert not saver.holders.waiting


def test_a_blocking_wait_on_the_loop_of_the_holder_is_refused(memory: Any, thread: Any) -> None:
    async def main() -> None:
        place = Loop(memory, thread)
        holder = await place.hold()
        with pytest.raises(ThreadBusyError):
            place.graph.update_state(thread, {"l": ["u"]}, on_conflict="wait")
        place.gate.set()
        await holder

    asyncio.run(main())


def test_a_cancelled_run_holds_nothing(saver: Any, thread: Any) -> None:
    async def main() -> None:
        place = Loop(saver, thread)
        holder = await place.hold()
        holder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holder
        assert (await place.graph.ainvoke({"l": ["x"]}, thread))["l"][-2:] == ["x", "n"]

    asyncio.run(main())
    assert len(saver.holders) == 0


def test_a_closed_loop_holds_nothing(memory: Any, thread: Any) -> None:
    kept: list[Any] = []
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        place = Loop(memory, thread)
        kept.extend((place, await place.hold()))

    loop.run_until_complete(begin())
    # Nobody cancels the run: its task stays pending for good.
    kept[1]._log_destroy_pending = False
    loop.close()
    place = kept[0]
    assert asyncio.run(place.graph.ainvoke({"l": ["x"]}, thread))["l"][-2:] == ["x", "n"]
    assert len(memory.holders) == 0


# ----------------------------------------------------------------------------------------------------------- no leak


def test_whatever_way_a_run_ends_it_holds_nothing(colour: Colour, saver: Any, thread: Any) -> None:
    def node(state: Log) -> dict[str, Any]:
        if state["l"] == ["fail"]:
            raise OSError("node")
        if state["l"] == ["ask"]:
            interrupt("q")
        return {"l": ["n"]}

    graph = StateGraph(Log).add_node("n", colour.node(node)).add_edge(START, "n").compile(saver)
    with pytest.raises(EmptyInputError):
        colour.invoke(graph, None, thread)
    with pytest.raises(OSError, match="node"):
        colour.invoke(graph, {"l": ["fail"]}, thread)
    with pytest.raises(InvalidUpdateError):
        colour.invoke(graph, 1, thread)
    assert colour.outcome(graph, {"l": [object()]}, thread)[1] is not None
    colour.invoke(graph, {"l": ["ask"]}, {"configurable": {"thread_id": "ask"}})
    for _ in range(3):
        colour.stream(graph, {"l": ["in"]}, {"configurable": {"thread_id": "in"}})
    assert len(saver.holders) == 0


def test_a_load_that_fails_holds_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise OSError("load")

    with monkeypatch.context() as patch:
        patch.setattr(type(place.saver), "load", broken)
        for call in calls(place):
            with pytest.raises(OSError, match="load"):
                call()
    assert len(place.saver.holders) == 0
    assert place.invoke("in")["l"] == ["in", "first", "second"]


def test_runs_without_a_saver_hold_nothing(colour: Colour) -> None:
    graph = StateGraph(Log).add_node("n", colour.letter("n")).add_edge(START, "n").compile()
    assert colour.invoke(graph, {"l": []}, on_conflict="wait") == {"l": ["n"]}


# ---------------------------------------------------------------------------------------------------- as LangGraph lost it


def test_two_invokes_of_one_thread_lose_nothing(colour: Colour, saver: Any, thread: Any) -> None:
    """Two threads invoke +10 and two nodes of +1 each from 2: LangGraph returns 14 to both and keeps 14."""

    class Sum(TypedDict):
        n: int

    inside = threading.Barrier(2)

    def plus(state: Sum) -> dict[str, int]:
        return {"n": state["n"] + 1}

    def slow(state: Sum) -> dict[str, int]:
        entered.set()
        assert refused.wait(LIMIT)
        return {"n": state["n"] + 1}

    builder = StateGraph(Sum).add_node("a", colour.node(slow)).add_node("b", colour.node(plus))
    graph = builder.add_edge(START, "a").add_edge("a", "b").compile(saver)
    entered, refused = threading.Event(), threading.Event()
    refused.set()
    assert colour.invoke(graph, {"n": 0}, thread) == {"n": 2}
    entered.clear()
    refused.clear()

    def add() -> Any:
        inside.wait(LIMIT)
        try:
            return colour.invoke(graph, {"n": 12}, thread)
        except CheckpointConflictError as error:
            refused.set()
            return error

    outcomes = [run.result() for run in (Beside(add), Beside(add))]
    assert sum(isinstance(outcome, ThreadBusyError) for outcome in outcomes) == 1
    assert {"n": 14} in outcomes
    assert colour.get_state(graph, thread).values == {"n": 14}


def test_a_batch_on_one_thread_can_wait(place: Place) -> None:
    inputs = [{"l": [f"{n}"]} for n in range(4)]
    results = place.colour.batch(place.graph, inputs, [place.thread] * 4, on_conflict="wait")
    assert max(len(result["l"]) for result in results) == len(place.head.values["l"]) == 12


def test_a_deleted_thread_does_not_come_back(place: Place) -> None:
    for how in ("raise", "fork"):
        place.entered.clear()
        place.go.clear()
        holder = place.hold(durability="sync", on_conflict=how)
        place.saver.delete_thread("1")
        with pytest.raises(ThreadDeletedError):
            place.end(holder)
        assert place.n_stored == 0
