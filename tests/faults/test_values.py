"""Values that cannot be applied or stored, values that change under the saver's hands, hostile names: F24, F25, F29."""

import asyncio
import copy
import operator
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.constants import END, START
from pregel.graph import StateGraph
from pregel.types import Overwrite
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.support.sound import assert_sound

THREAD: Any = {"configurable": {"thread_id": "t"}}


@pytest.fixture(params=["memory", "sqlite"])
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with InMemorySaver() if request.param == "memory" else SqliteSaver(tmp_path / "threads.sqlite") as saver:
        yield saver


def invoke(graph: Any, given: Any, is_async: bool, durability: str = "sync") -> Any:
    if is_async:
        return asyncio.run(graph.ainvoke(given, THREAD, durability=durability))
    return graph.invoke(given, THREAD, durability=durability)


# ---- F24


class Boom(Exception):
    pass


class World:
    """What is broken."""

    def __init__(self) -> None:
        self.broken = ""
        self.begun: Counter[str] = Counter()


def wide(world: World, saver: Any) -> Any:
    """A step of two nodes; the second fails in the given way with the fifth of its channels."""

    def reduce(old: list[Any], new: list[Any]) -> list[Any]:
        if world.broken == "reducer" and "bad" in new:
            raise Boom("the reducer of c5")
        return old + new

    class State(TypedDict, total=False):
        c1: Annotated[list[Any], operator.add]
        c2: str
        c3: int
        c4: Annotated[list[Any], operator.add]
        c5: Annotated[list[Any], reduce]

    def first(state: State) -> Any:
        world.begun["first"] += 1
        return {"c1": ["first"], "c3": 1}

    def good(state: State) -> Any:
        world.begun["good"] += 1
        return {"c1": ["good"]}

    def bad(state: State) -> Any:
        world.begun["bad"] += 1
        if world.broken == "node":
            raise Boom("the node")
        if world.broken == "warning":
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.warn("taken seriously", UserWarning, stacklevel=1)

        class Local:
            pass

        last: Any = Local() if world.broken == "serde" else "bad"
        return {"c1": ["bad"], "c2": "b", "c3": 2, "c4": ["b"], "c5": [last]}

    builder = StateGraph(State).add_node("first", first).add_node("good", good).add_node("bad", bad)
    builder.add_edge(START, "first").add_edge("first", "good").add_edge("first", "bad")
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("broken", ["reducer", "node", "serde", "warning"])
def test_f24_a_step_that_cannot_be_closed(saver: Any, broken: str, durability: str, is_async: bool) -> None:
    """Nothing of it is stored but what its finished tasks wrote and the error; the next call does only the rest."""
    world = World()
    world.broken = broken
    graph = wide(world, saver)
    with pytest.raises((Boom, TypeError, UserWarning)) as caught:
        invoke(graph, {"c1": ["in"]}, is_async, durability)
    if broken == "serde":
        assert "c5" in str(caught.value)
    found = saver.get_tuple(THREAD)
    assert found.metadata["step"] == 1
    values = found.checkpoint["channel_values"]
    assert {name: values[name] for name in ("c1", "c3")} == {"c1": ["in", "first"], "c3": 1}
    assert not {"c2", "c4"} & values.keys()
    channels = Counter(channel for _, channel, _ in found.pending_writes)
    # Under the async API a sibling that has not settled when the step fails is dropped, and runs again.
    is_kept = channels["c1"] >= 1
    assert is_kept or (is_async and broken != "reducer")
    n_good = world.begun["good"]
    if broken == "reducer":
        assert any("c5" in note for note in [str(caught.value), *getattr(caught.value, "__notes__", ())])
    else:
        assert channels["__error__"] == 1
        assert channels["c2"] == 0
    world.broken = ""
    assert invoke(graph, None, is_async, durability) == {
        "c1": ["in", "first", "bad", "good"],  # writes are applied in the order of the task paths, here the names
        "c2": "b",
        "c3": 2,
        "c4": ["b"],
        "c5": ["bad"],
    }
    assert world.begun == {"first": 1, "good": n_good + (not is_kept), "bad": 1 if broken == "reducer" else 2}
    assert n_good <= 1
    if isinstance(saver, SqliteSaver):
        assert_sound(saver)


# ---- F25


class Kept(TypedDict, total=False):
    all: Annotated[list[Any], operator.add]
    by_id: Annotated[list[Any], lambda old, new: [x for x in old if x["id"] not in {y["id"] for y in new}] + new]
    n: int


def steps(saver: Any, *nodes: Any) -> Any:
    """A chain of nodes that get the very objects of the state."""
    builder = StateGraph(Kept)
    before = START
    for node in nodes:
        builder.add_node(node.__name__, node).add_edge(before, node.__name__)
        before = node.__name__
    return builder.compile(checkpointer=saver, isolate="off")


def live_and_stored(
    graph: Any, saver: Any, is_async: bool, durability: str, given: Any = None
) -> tuple[list[Any], list[Any]]:
    """The values of each step as a stream shows them, and as they are stored."""
    given = {"n": 0} if given is None else given

    async def collect() -> list[Any]:
        stream = graph.astream(given, THREAD, stream_mode="values", durability=durability)
        return [repr(values) async for values in stream]

    options: dict[str, Any] = {"stream_mode": "values", "durability": durability}
    shown = asyncio.run(collect()) if is_async else [repr(values) for values in graph.stream(given, THREAD, **options)]
    stored = [repr(entry.values) for entry in graph.get_state_history(THREAD)][::-1]
    return shown, stored[1:]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("lag", [1, 16])
def test_f25_edits_in_place(tmp_path: Path, lag: int, durability: str, is_async: bool) -> None:
    """What a node returns is stored as it was at the end of its step, also if it edited it in place, and whatever
    happens to the object afterwards."""
    held: list[Any] = []

    def make(state: Kept) -> Any:
        held.append({"id": 1, "v": 0})
        return {"all": [{"id": 0, "v": 0}, held[0]], "by_id": [held[0], {"id": 2, "v": 0}], "n": 1}

    def edit_returned(state: Kept) -> Any:
        held[0]["v"] = 1
        return {"by_id": [held[0]], "all": [held[0]], "n": 2}

    def edit_after_the_barrier(state: Kept) -> Any:
        # The checkpoint of the step before must not see this; the one after has it, since it is written again.
        held[0]["v"] = 2
        return {"by_id": [held[0]], "all": [held[0]], "n": 3}

    def edit_the_container(state: Kept) -> Any:
        state["all"][0]["v"] = 9
        return {"all": [state["all"][0]], "n": 4}

    with SqliteSaver(tmp_path / "threads.sqlite", max_checkpoint_lag=lag) as saver:
        graph = steps(saver, make, edit_returned, edit_after_the_barrier, edit_the_container)
        shown, stored = live_and_stored(graph, saver, is_async, durability)
        assert shown == stored
        assert [text.count("'v': 2") for text in stored] == [0, 0, 0, 4, 4]
        assert "'v': 9" in stored[-1]
        assert "'v': 9" not in stored[-2]
        assert_sound(saver)


@pytest.mark.parametrize("is_async", [False, True])
def test_f25_a_reducer_that_edits_its_container(saver: Any, is_async: bool) -> None:
    """Old and new container are one object: everything counts as written (D23)."""

    def extend(old: list[Any], new: list[Any]) -> list[Any]:
        old.extend(new)
        if len(old) > 2:
            old[0] = {"edited": len(old)}
        return old

    class State(TypedDict, total=False):
        all: Annotated[list[Any], extend]

    def node(state: State) -> Any:
        return {"all": [{"n": len(state["all"])}]}

    builder = StateGraph(State)
    for name in "abcd":
        builder.add_node(name, node)
    builder.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c").add_edge("c", "d")
    graph = builder.compile(checkpointer=saver, isolate="off")
    result = invoke(graph, {"all": [{"n": 0}]}, is_async)
    assert result == {"all": [{"edited": 5}, {"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]}
    stored = [entry.values["all"] for entry in graph.get_state_history(THREAD) if entry.values["all"]]
    assert stored[0] == result["all"]
    assert [values[0] for values in stored] == [{"edited": 5}, {"edited": 4}, {"edited": 3}, {"n": 0}, {"n": 0}]


def merge_by_id(old: list[Any], new: list[Any]) -> list[Any]:
    """As programs write it: what is there already is edited, and stays the same object."""
    there = {item["id"]: item for item in old}
    for item in new:
        if item["id"] in there:
            there[item["id"]].update(item)
    return [*old, *(item for item in new if item["id"] not in there)]


def count_in_front(old: list[Any], new: list[Any]) -> list[Any]:
    if old:
        old[0]["n"] = old[0].get("n", 0) + len(new)
    return old + new


def edit_below(old: dict[str, Any], new: str) -> dict[str, Any]:
    old[new].setdefault("deep", []).append(new)
    return {**old}


ITEMS: list[Any] = [{"id": number, "pad": "p" * 100} for number in range(20)]
BY_NAME: dict[str, Any] = {str(number): {"pad": "p" * 100} for number in range(20)}


def edited(value: Any, key: Any) -> Any:
    value[key]["edited"] = True
    return value


EDITING: list[tuple[str, Any, Any, Any]] = [
    ("an element", merge_by_id, ITEMS, lambda value, n: [{"id": n, "v": n}]),
    ("an element, and appends", count_in_front, ITEMS, lambda value, n: [{"id": 100 + n}]),
    ("a value of a dict", edit_below, BY_NAME, lambda value, n: str(n)),
    ("overwritten list", operator.add, ITEMS, lambda value, n: Overwrite(edited(value, n))),
    ("overwritten copy", operator.add, ITEMS, lambda value, n: Overwrite([*edited(value, n)])),
    ("overwritten by name", operator.add, ITEMS, lambda value, n: {"__overwrite__": edited(value, n)}),
    ("overwritten dict", operator.or_, BY_NAME, lambda value, n: Overwrite(edited(value, str(n)))),
]


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize(
    ("reducer", "first", "write"), [case[1:] for case in EDITING], ids=[case[0] for case in EDITING]
)
def test_f25_a_reducer_or_an_overwrite_that_edits_elements(
    saver: Any, durability: str, reducer: Any, first: Any, write: Any
) -> None:
    """A list that is another object with the same elements: they need not be what they were."""

    class State(TypedDict, total=False):
        value: Annotated[Any, reducer]
        n: int

    builder = StateGraph(State)
    builder.add_node("a", lambda state: {"value": write(state["value"], state["n"]), "n": state["n"] + 1})
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", lambda state: "a" if state["n"] < 6 else END, ["a", END])
    graph = builder.compile(checkpointer=saver)
    start = {"value": Overwrite(copy.deepcopy(first)), "n": 0}
    shown, stored = live_and_stored(graph, saver, False, durability, start)
    assert shown == stored
    assert len(set(shown)) == 7


# ---- F29


HOSTILE = [
    "x') OR 1=1 --",
    "'; DROP TABLE threads; --",
    '"; DELETE FROM checkpoints; --',
    "$.a') UNION SELECT id FROM threads --",
    "$.a",
    "$[0]",
    "%",
    "_",
    "*",
    "[a-z]",
    "a\x00b",
    "a",
    "A",
    " a",
    "a ",
    "",
    "\u00e9",
    "e\u0301",
    "/* */",
    "t|t",
    "t:t",
    "0",
    "-0",
    "1e3",
    "1000",
    "NULL",
    "null",
]


@pytest.mark.parametrize("is_async", [False, True])
def test_f29_names_are_only_names(saver: Any, is_async: bool) -> None:
    """Of threads, namespaces, checkpoints, channels, tasks, metadata keys and values: exact matches, nothing else."""
    store = Store(saver, is_async)
    for number, text in enumerate(HOSTILE):
        thread = f"thread {text}"
        for ns in ("", f"ns {text}"):
            made: Any = {
                "v": 4,
                "id": f"id {text}",
                "ts": "2026-01-01T00:00:00+00:00",
                "channel_values": {text: number, "shared": text},
                "channel_versions": {text: 1, "shared": 1},
                "versions_seen": {text: {text: 1}},
                "updated_channels": None,
            }
            metadata: Any = {text: number, "key": text}
            where = store.put(config(thread, ns), made, metadata, {text: 1, "shared": 1})
            store.put_writes(where, [(text, text)], text, text)
    for number, text in enumerate(HOSTILE):
        thread = f"thread {text}"
        for ns in ("", f"ns {text}"):
            found = store.get_tuple(config(thread, ns, f"id {text}"))
            assert found.checkpoint["channel_values"] == {text: number, "shared": text}
            assert found.checkpoint["versions_seen"] == {text: {text: 1}}
            assert found.pending_writes == [(text, text, text)]
            assert found.metadata[text] == (number if text != "key" else text)
        other = HOSTILE[number - 1]
        assert store.get_tuple(config(thread, "", f"id {other}")) is None
        assert store.get_tuple(config(thread, f"ns {other}")) is None
        assert len(store.list(config(thread))) == 2
        shown = text.replace("\x00", "")  # as in LangGraph, texts of metadata lose it
        assert {entry.metadata["key"] for entry in store.list(None, filter={"key": shown})} == {shown}
        with_key = store.list(None, filter={text: number})
        assert {entry.config["configurable"]["thread_id"] for entry in with_key} == {thread}
    assert store.get_tuple(config("thread %")) is not None
    assert store.get_tuple(config("thread nothing")) is None
    for text in HOSTILE[1:]:
        store.delete_thread(f"thread {text}")
    assert {entry.config["configurable"]["thread_id"] for entry in store.list(None)} == {f"thread {HOSTILE[0]}"}
    run = ScriptedRun(store, config("a new one"))
    run.step({text: [text] for text in HOSTILE}).check(store)
    if isinstance(saver, SqliteSaver):
        assert_sound(saver)
