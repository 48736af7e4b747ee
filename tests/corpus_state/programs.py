"""The graphs that the conversations of `test_corpus_state` run, and the types that they keep in their state.

Decides nothing about the engine: each function builds one small program out of public names, the way a user would.
Nodes are written once; the colour that is passed in makes them functions or coroutine functions. The types stand at
module level, because a program that is started again has to find them.
"""

import dataclasses
import datetime
import decimal
import enum
import operator
import pathlib
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel
from typing_extensions import TypedDict

from checkpoint.base import WRITES_IDX_MAP, BaseCheckpointSaver, CheckpointTuple
from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.graph import END, START, StateGraph
from pregel.types import Command, Send, interrupt
from tests.support.scenarios import Colour


class Talk(TypedDict, total=False):
    """Lines that are only added, and a number that the last writer decides."""

    lines: Annotated[list[Any], operator.add]
    n: int


def thread(name: str = "1") -> dict[str, Any]:
    return {"configurable": {"thread_id": name}}


def says(colour: Colour, name: str, calls: list[str] | None = None) -> Callable[..., Any]:
    """A node that adds its name."""

    def act(state: Any) -> dict[str, Any]:
        if calls is not None:
            calls.append(name)
        return {"lines": [name]}

    act.__name__ = name
    return colour.node(act)


def asks(colour: Colour, *questions: str, name: str = "", calls: list[str] | None = None) -> Callable[..., Any]:
    """A node that asks each question in turn and adds the answers."""

    def act(state: Any) -> dict[str, Any]:
        if calls is not None:
            calls.append(act.__name__)
        return {"lines": [f"{question}={interrupt(question)}" for question in questions]}

    act.__name__ = name or questions[0]
    return colour.node(act)


def chain(*nodes: Any, state: Any = Talk, **options: Any) -> Any:
    """Nodes one after the other: functions, or (name, anything)."""
    builder = StateGraph(state)
    before = START
    for node in nodes:
        name, action = node if isinstance(node, tuple) else (node.__name__, node)
        builder.add_node(name, action).add_edge(before, name)
        before = name
    return builder.compile(**options)


def fan(nodes: dict[str, Any], after: Any = None, **options: Any) -> Any:
    """Nodes side by side, and one that waits for them all."""
    builder = StateGraph(Talk)
    for name, action in nodes.items():
        builder.add_node(name, action).add_edge(START, name)
    if after is not None:
        builder.add_node("after", after).add_edge(list(nodes), "after")
    return builder.compile(**options)


def counter(colour: Colour, saver: Any, calls: list[str]) -> Any:
    """Four nodes that each count one up."""

    def node(name: str) -> Any:
        def act(state: Talk) -> dict[str, Any]:
            calls.append(name)
            return {"n": state["n"] + 1, "lines": [name]}

        act.__name__ = name
        return colour.node(act)

    return chain(*map(node, "abcd"), checkpointer=saver)


def approval(colour: Colour, saver: Any) -> Any:
    """Plan, have it approved, carry it out; the answer decides where it goes on."""

    def plan(state: Talk) -> dict[str, Any]:
        return {"n": state["n"] + 1, "lines": ["plan"]}

    def approve(state: Talk) -> Command[Literal["execute", "plan", "__end__"]]:
        decision = interrupt({"question": "approve?", "plan": state["n"]})
        if decision["type"] == "accept":
            return Command(goto="execute")
        if decision["type"] == "edit":
            return Command(goto="execute", update={"n": decision["n"], "lines": ["edited"]})
        if decision["type"] == "retry":
            return Command(goto="plan", update={"lines": ["again"]})
        return Command(goto=END, update={"lines": ["rejected"]})

    def execute(state: Talk) -> dict[str, Any]:
        return {"lines": [f"execute {state['n']}"]}

    builder = StateGraph(Talk)
    for node in (plan, approve, execute):
        builder.add_node(node.__name__, colour.node(node))
    return builder.add_edge(START, "plan").add_edge("plan", "approve").compile(checkpointer=saver)


def fan_out(colour: Colour, saver: Any, work: Any, **options: Any) -> Any:
    """As many workers as `n` says, and a node after them."""
    builder = StateGraph(Talk)
    builder.add_node("plan", colour.node(lambda state: {"lines": ["plan"]}))
    builder.add_node("work", colour.node(work)).add_node("join", says(colour, "join"))
    builder.add_edge(START, "plan").add_edge("work", "join")
    builder.add_conditional_edges("plan", lambda state: [Send("work", {"i": i}) for i in range(state["n"])], ["work"])
    return builder.compile(checkpointer=saver, **options)


def nested(colour: Colour, saver: Any, calls: list[str] | None = None, **options: Any) -> Any:
    """A graph in which a subgraph asks; `options` go to the subgraph."""
    sub = chain(says(colour, "i", calls), asks(colour, "q", calls=calls), says(colour, "j", calls), **options)
    return chain(
        says(colour, "before", calls), ("sub", sub), says(colour, "after", calls), state=Talk, checkpointer=saver
    )


# ------------------------------------------------------------------------------------------------------ rich values


class Color(enum.Enum):
    RED = "red"
    BLUE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5
    tags: list[str] = dataclasses.field(default_factory=list)


class Profile(BaseModel):
    name: str
    born: datetime.datetime | None = None
    points: list[Point] = []
    color: Color = Color.RED


class Pair(NamedTuple):
    a: int
    b: str


class Rich(TypedDict, total=False):
    profile: Profile
    values: Any
    lines: Annotated[list[Any], operator.add]


RICH = {
    "set": {1, 2},
    "frozenset": frozenset({(1, 2)}),
    "tuple": (1, ("x", [2])),
    "uuid": uuid.UUID(int=5),
    "decimal": decimal.Decimal("1.10"),
    "datetime": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    "date": datetime.date(2020, 2, 3),
    "delta": datetime.timedelta(days=1, seconds=5),
    "bytes": b"\x00\xff",
    "path": pathlib.Path("/a/b"),
    "pair": Pair(1, "z"),
    "color": Color.BLUE,
    "deep": {"a": [{"b": {"c": [1, [2, [Point(3)]]]}}]},
    "big": 2**70,
    7: "a number as key",
    (1, 2): "a tuple as key",
}


def rich(saver: Any) -> Any:
    """Puts every kind of value into the state, asks with an object, and looks at the types afterwards."""

    def fill(state: Rich) -> Rich:
        born = datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)
        profile = Profile(name="ann", born=born, points=[Point(1, 2.0, ["t"])], color=Color.BLUE)
        return {"profile": profile, "values": RICH, "lines": [Point(9)]}

    def ask(state: Rich) -> Rich:
        return {"lines": [interrupt(Point(5, tags=["q"]))]}

    def look(state: Rich) -> Rich:
        assert state["values"] == RICH
        assert [type(value) for value in state["values"].values()] == [type(value) for value in RICH.values()]
        profile = state["profile"]
        return {"lines": [type(profile).__name__, type(profile.points[0]).__name__, profile.color is Color.BLUE]}

    return chain(fill, ask, look, state=Rich, checkpointer=saver)


# ------------------------------------------------------------------------------------------------- processes, savers


def begin(path: str) -> None:
    """Run to the question; what a process does that is gone when another one goes on."""
    with SqliteSaver.from_conn_string(path) as saver:
        asked = rich(saver).invoke({"lines": []}, thread())
        assert asked["__interrupt__"][0].value == Point(5, tags=["q"])


class Counting(InMemorySaver):
    """A saver of ours that a program made its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[Any] = []

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        self.stored.append(("checkpoint", metadata["step"]))
        return super().put(config, checkpoint, metadata, new_versions)

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        self.stored.append(("writes", [channel for channel, _ in writes]))
        super().put_writes(config, writes, task_id, task_path)


class Foreign(BaseCheckpointSaver[Any]):
    """A saver that knows four methods and keeps whole checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.checkpoints: dict[tuple[str, str, str], Any] = {}
        self.writes: dict[tuple[str, str, str], dict[Any, Any]] = {}

    def _key(self, config: Any) -> tuple[str, str, str]:
        place = config["configurable"]
        return place["thread_id"], place.get("checkpoint_ns", ""), place.get("checkpoint_id") or ""

    def _entry(self, key: tuple[str, str, str]) -> CheckpointTuple:
        stored, metadata, parent = self.checkpoints[key]

        def config(id_: str) -> Any:
            return {"configurable": {"thread_id": key[0], "checkpoint_ns": key[1], "checkpoint_id": id_}}

        writes = [
            (task, channel, self.serde.loads_typed(value))
            for (task, _), (channel, value) in self.writes.get(key, {}).items()
        ]
        checkpoint = self.serde.loads_typed(stored)
        return CheckpointTuple(config(key[2]), checkpoint, metadata, config(parent) if parent else None, writes)

    def get_tuple(self, config: Any) -> CheckpointTuple | None:
        return next(self.list(config, limit=1), None)

    def list(self, config: Any, *, filter: Any = None, before: Any = None, limit: int | None = None) -> Any:
        thread_id, ns, id_ = self._key(config)
        found = 0
        for key in sorted(self.checkpoints, key=lambda key: key[2], reverse=True):
            if key[:2] != (thread_id, ns) or (id_ and key[2] != id_):
                continue
            if before is not None and key[2] >= self._key(before)[2]:
                continue
            entry = self._entry(key)
            if any(entry.metadata.get(name) != value for name, value in (filter or {}).items()):
                continue
            if limit is not None and found >= limit:
                return
            found += 1
            yield entry

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        thread_id, ns, parent = self._key(config)
        key = thread_id, ns, checkpoint["id"]
        self.checkpoints[key] = self.serde.dumps_typed(checkpoint), dict(metadata), parent
        return {"configurable": {"thread_id": key[0], "checkpoint_ns": key[1], "checkpoint_id": key[2]}}

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        kept = self.writes.setdefault(self._key(config), {})
        for position, (channel, value) in enumerate(writes):
            slot = WRITES_IDX_MAP.get(channel, position)
            if slot < 0 or (task_id, slot) not in kept:
                kept[task_id, slot] = channel, self.serde.dumps_typed(value)
