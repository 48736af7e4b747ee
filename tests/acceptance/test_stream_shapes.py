"""Every mode in every combination: one run has one sequence of events, and each call sees the part of it that it asked
for, in the shape that it asked for (engine.md 3.6, 3.7, 6.7; frontends.md 4.1, 4.2).
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from checkpoint.memory import InMemorySaver
from pregel.config import get_stream_writer
from pregel.graph import START, StateGraph
from pregel.graph.message import add_messages
from pregel.messages import Message
from pregel.types import Command, Interrupt, interrupt
from tests.support.scenarios import Colour, path_of, refused

MODES = ("values", "updates", "custom", "messages", "tasks", "checkpoints", "debug")
SETS = [*itertools.combinations(MODES, 1), *itertools.pairwise((*MODES, MODES[0])), MODES]
Event = tuple[tuple[str, ...], str, Any]


class State(TypedDict, total=False):
    n: int
    messages: Annotated[list[Any], add_messages]


class Inner(TypedDict, total=False):
    n: int


def count(name: str) -> Any:
    def node(state: State) -> dict[str, Any]:
        get_stream_writer()({"from": name})
        return {"n": state["n"] + 1}

    return node


def ask(state: State) -> dict[str, Any]:
    get_stream_writer()({"from": "ask"})
    return {"n": state["n"] + int(interrupt("how much?"))}


def say(state: State) -> dict[str, Any]:
    return {"messages": [Message(role="assistant", content="hello", id="m1")]}


def build(colour: Colour, scene: str, saver: Any) -> Any:
    """say → sub (a graph with a graph in it) → calls (a function that runs a graph) → b."""
    innermost = StateGraph(Inner).add_node("i", colour.node(count("i"))).add_edge(START, "i").compile()
    inner = StateGraph(Inner).add_node("deep", innermost).add_edge(START, "deep")
    if scene == "asks":
        inner.add_node("ask", colour.node(ask)).add_edge("deep", "ask")

    def calls(state: State) -> Any:
        result = yield innermost, {"n": state["n"]}
        return {"n": result["n"]}

    builder = StateGraph(State)
    builder.add_node("say", colour.node(say)).add_node("sub", inner.compile())
    builder.add_node("calls", colour.script(calls)).add_node(
        "b", colour.node(fails if scene == "fails" else count("b"))
    )
    for source, target in itertools.pairwise((START, "say", "sub", "calls", "b")):
        builder.add_edge(source, target)
    return builder.compile(checkpointer=saver)


def fails(state: State) -> Any:
    get_stream_writer()({"from": "fails"})
    raise ValueError("boom")


def plain(value: Any) -> Any:
    """Without what differs from run to run: ids and times. Errors by their repr."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value) if type(value) in (list, tuple) else value
    if isinstance(value, str):
        value = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{32}\b", "*", value)
        return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", "TIME", value)
    return plain(repr(value)) if isinstance(value, (Exception, Interrupt)) else value


def play(colour: Colour, scene: str, stored: bool, **options: Any) -> Iterator[Any]:
    """The chunks of a run; of one that asks also those of its resume."""
    thread = {"configurable": {"thread_id": "t"}} if stored else None
    graph = build(colour, scene, InMemorySaver() if stored else None)
    inputs: list[Any] = [{"n": 0}]
    if scene == "asks" and stored:
        inputs.append(Command(resume=5))
    for given in inputs:
        chunks, error = colour.outcome(graph, given, thread, **options)
        assert isinstance(error, ValueError) is (scene == "fails"), error
        yield from chunks


def events(colour: Colour, scene: str, stored: bool) -> list[Event]:
    """Everything that happens."""
    options: dict[str, Any] = {"stream_mode": list(MODES), "subgraphs": True}
    return [plain(chunk) for chunk in play(colour, scene, stored, **options)]


def asked(everything: list[Event], modes: Sequence[str], subgraphs: bool) -> list[Event]:
    return [(ns, mode, payload) for ns, mode, payload in everything if mode in modes and (subgraphs or not ns)]


def v2(event: Event) -> dict[str, Any]:
    ns, mode, payload = event
    part = {"type": mode, "ns": ns, "data": payload}
    if mode == "values":
        part["data"] = {key: value for key, value in payload.items() if key != "__interrupt__"}
        part["interrupts"] = payload.get("__interrupt__", ())
    return part


def v1(event: Event, *, many: bool, subgraphs: bool) -> Any:
    ns, mode, payload = event
    shape = {(False, False): payload, (False, True): (ns, payload), (True, False): (mode, payload)}
    return shape.get((many, subgraphs), event)


@pytest.fixture(params=["ends", "asks", "fails"])
def scene(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[False, True], ids=["no saver", "saver"])
def stored(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("subgraphs", [False, True])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_call_sees_what_it_asked_for(colour: Colour, scene: str, stored: bool, version: str, subgraphs: bool) -> None:
    everything = events(colour, scene, stored)
    paths = {ns for ns, _, _ in everything}
    assert len(paths) == (3 if scene == "asks" and not stored else 4)
    for modes in SETS:
        wanted = asked(everything, modes, subgraphs)
        shown: list[Any] = [modes[0]] if len(modes) == 1 else []
        for stream_mode in (*shown, list(modes), modes):
            many = not isinstance(stream_mode, str)
            chunks = play(colour, scene, stored, stream_mode=stream_mode, subgraphs=subgraphs, version=version)
            expected = [v2(event) if version == "v2" else v1(event, many=many, subgraphs=subgraphs) for event in wanted]
            assert [plain(chunk) for chunk in chunks] == expected, stream_mode


def test_invoke_collects_the_same(colour: Colour, stored: bool) -> None:
    everything = events(colour, "ends", stored)
    thread = {"configurable": {"thread_id": "t"}} if stored else None
    for modes, subgraphs in itertools.product(SETS, (False, True)):
        if modes == ("values",):
            continue
        graph = build(colour, "ends", InMemorySaver() if stored else None)
        result = colour.invoke(graph, {"n": 0}, thread, stream_mode=list(modes), subgraphs=subgraphs)
        wanted = asked(everything, modes, subgraphs)
        assert plain(result) == [v1(event, many=True, subgraphs=subgraphs) for event in wanted]


def test_printing_changes_nothing_that_is_yielded(colour: Colour, stored: bool, capsys: Any) -> None:
    everything = events(colour, "ends", stored)
    for printed, subgraphs in itertools.product(MODES, (False, True)):
        capsys.readouterr()
        options: dict[str, Any] = {"stream_mode": "updates", "print_mode": printed, "subgraphs": subgraphs}
        chunks = [plain(chunk) for chunk in play(colour, "ends", stored, **options)]
        assert chunks == [
            v1(event, many=False, subgraphs=subgraphs) for event in asked(everything, ["updates"], subgraphs)
        ]
        heads = re.findall(r"\x1b\[1m\[(\w+)\]\x1b\[0m (\[graph=)?", capsys.readouterr().out)
        wanted = [(mode, "[graph=" if ns else "") for ns, mode, _ in asked(everything, [printed], subgraphs)]
        assert heads == wanted


@pytest.mark.parametrize(
    "how", [{"stream_mode": "value"}, {"stream_mode": ["values", "value"]}, {"print_mode": "value"}]
)
@pytest.mark.parametrize("method", ["invoke", "stream"])
def test_an_unknown_mode_is_refused_before_anything_runs(colour: Colour, memory: Any, method: str, how: Any) -> None:
    graph = build(colour, "ends", memory)
    with refused(ValueError, "value", "values"):
        getattr(colour, method)(graph, {"n": 0}, {"configurable": {"thread_id": "t"}}, **how)
    assert list(memory.list(None)) == []


def test_what_happens(colour: Colour) -> None:
    """The sequence itself, in short: mode, place and what tells the events of one mode apart."""

    def told(mode: str, payload: Any) -> Any:
        if mode == "tasks":
            return payload["name"] + ("?" if "input" in payload else "!")
        if mode == "checkpoints":
            return payload["metadata"]["step"]
        if mode == "debug":
            return payload["type"]
        return payload["n"] if mode == "values" else next(iter(payload)) if mode == "updates" else None

    everything = [
        (path_of(ns), mode, told(mode, payload))
        for ns, mode, payload in events(colour, "ends", stored=True)
        if mode not in ("debug", "messages")
    ]
    root, sub, deep, calls = (), ("sub",), ("sub", "deep"), ("calls",)
    assert everything == [
        (root, "checkpoints", -1),
        (root, "values", 0),
        (root, "checkpoints", 0),
        (root, "tasks", "say?"),
        (root, "updates", "say"),
        (root, "tasks", "say!"),
        (root, "values", 0),
        (root, "checkpoints", 1),
        (root, "tasks", "sub?"),
        (sub, "checkpoints", -1),
        (sub, "values", 0),
        (sub, "checkpoints", 0),
        (sub, "tasks", "deep?"),
        (deep, "checkpoints", -1),
        (deep, "values", 0),
        (deep, "checkpoints", 0),
        (deep, "tasks", "i?"),
        (deep, "custom", None),
        (deep, "updates", "i"),
        (deep, "tasks", "i!"),
        (deep, "values", 1),
        (deep, "checkpoints", 1),
        (sub, "updates", "deep"),
        (sub, "tasks", "deep!"),
        (sub, "values", 1),
        (sub, "checkpoints", 1),
        (root, "updates", "sub"),
        (root, "tasks", "sub!"),
        (root, "values", 1),
        (root, "checkpoints", 2),
        (root, "tasks", "calls?"),
        (calls, "checkpoints", -1),
        (calls, "values", 1),
        (calls, "checkpoints", 0),
        (calls, "tasks", "i?"),
        (calls, "custom", None),
        (calls, "updates", "i"),
        (calls, "tasks", "i!"),
        (calls, "values", 2),
        (calls, "checkpoints", 1),
        (root, "updates", "calls"),
        (root, "tasks", "calls!"),
        (root, "values", 2),
        (root, "checkpoints", 3),
        (root, "tasks", "b?"),
        (root, "custom", None),
        (root, "updates", "b"),
        (root, "tasks", "b!"),
        (root, "values", 3),
        (root, "checkpoints", 4),
    ]
