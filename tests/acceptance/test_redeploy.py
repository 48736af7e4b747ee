"""New code over paused work: what goes on under another name, what is refused, and what is told before a deploy.

Each scenario is a thread that one version of a graph leaves and another one finds, in a new process as far as a test can
show it: the graph is built again, and a file is opened again.
"""

import asyncio
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

import checkpoint
from checkpoint import registry
from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.channels import LastValue, NamedBarrierValue
from pregel.errors import GraphChangedError
from pregel.graph import END, START, StateGraph
from pregel.pregel import NodeBuilder, Pregel
from pregel.types import Command, Send, interrupt
from pregel.warnings import PregelWarning
from tests.checkpoint.plain import PlainSaver
from tests.support.savers import Died
from tests.support.scenarios import Colour, Log, diagnosed, refused

THREAD: Any = {"configurable": {"thread_id": "1"}}


class Flaky(Exception):
    """What a node fails with."""


class Store:
    """Where threads are kept; `reopen` is what a new process finds."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.saver: Any = InMemorySaver() if path is None else SqliteSaver(path)

    def reopen(self, **options: Any) -> Any:
        if self.path is not None:
            self.saver.close()
            self.saver = SqliteSaver(self.path, **options)
        return self.saver

    def rows(self) -> list[Any]:
        """Everything that is stored."""
        return [(entry.checkpoint, entry.metadata, entry.pending_writes) for entry in self.saver.list(None)]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = Store(None if request.param == "memory" else tmp_path / "threads.sqlite")
    yield made
    assert made.saver.verify() == []
    made.saver.close()


PAUSES = ["interrupt", "breakpoint", "failed", "crashed"]


class Version:
    """A version of one graph: first -> review and side -> last, where the review pauses; alone or inside another graph.

    `names`: what this version calls the nodes; `aliases`: their former names; `edges`: how review and side lead to last.
    """

    def __init__(
        self,
        colour: Colour,
        pause: str,
        *,
        is_nested: bool = False,
        names: dict[str, str] | None = None,
        aliases: dict[str, list[str]] | None = None,
        state: Any = Log,
        without: tuple[str, ...] = (),
        join: str = "join",
        defer: tuple[str, ...] = (),
        more: tuple[str, ...] = (),
    ) -> None:
        self.calls: list[str] = []
        self.fails = pause in ("failed", "crashed")
        self.colour, self.pause, self.is_nested = colour, pause, is_nested
        self.names, self.aliases = names or {}, aliases or {}
        self.state, self.without, self.join, self.defer, self.more = state, without, join, defer, more

    def _body(self, role: str) -> Any:
        def act(state: Any) -> Any:
            self.calls.append(role)
            if role != "review":
                return {"l": [role]}
            if self.pause == "interrupt":
                return {"l": [f"review {interrupt('ok?')}"]}
            if self.fails:
                self.fails = False
                raise Flaky("review") if self.pause == "failed" else Died("review")
            return {"l": ["review yes"]}

        return self.colour.node(act)

    def build(self, saver: Any) -> Any:
        builder = StateGraph(self.state)
        name = {role: self.names.get(role, role) for role in ("first", "review", "side", "last", "box")}
        roles = [role for role in ("first", "review", "side", "last", *self.more) if role not in self.without]
        for role in roles:
            node = name.get(role, role)
            builder.add_node(node, self._body(role), aliases=self.aliases.get(role, ()), defer=role in self.defer)
        if "first" in roles:
            builder.add_edge(START, name["first"])
        for role in ("review", "side"):
            if role in roles:
                builder.add_edge(name["first"] if "first" in roles else START, name[role])
        sources = [name[role] for role in ("review", "side") if role in roles]
        if "last" in roles and self.join in ("join", "inclusive"):
            builder.add_edge(sources, name["last"], inclusive=self.join == "inclusive")
        elif "last" in roles and self.join == "turned":
            builder.add_edge(sources[::-1], name["last"])
        elif "last" in roles:
            for source in sources:
                builder.add_edge(source, name["last"])
        stops = [name["review"]] if self.pause == "breakpoint" and "review" in roles else None
        if not self.is_nested:
            return builder.compile(checkpointer=saver, interrupt_before=stops)
        inner = builder.compile(interrupt_before=stops)
        outer = StateGraph(self.state).add_node(name["box"], inner, aliases=self.aliases.get("box", ()))
        return outer.add_edge(START, name["box"]).compile(checkpointer=saver)


def leave(colour: Colour, graph: Any, durability: str | None = None) -> Any:
    """Run until it pauses; the id of its question, if it has one."""
    options = {} if durability is None else {"durability": durability}
    try:
        result = colour.invoke(graph, {"l": ["in"]}, THREAD, **options)
    except (Flaky, Died):
        return None
    return result["__interrupt__"][0].id if "__interrupt__" in result else None


def go_on(colour: Colour, graph: Any, question: str | None, durability: str | None = None) -> Any:
    options = {} if durability is None else {"durability": durability}
    given = None if question is None else Command(resume={question: "yes"})
    return colour.invoke(graph, given, THREAD, **options)


def check(colour: Colour, graph: Any, saver: Any = None) -> list[Any]:
    return asyncio.run(graph.acheck(saver)) if colour.is_async else graph.check(saver)


WHOLE = ["in", "first", "review yes", "side", "last"]
NESTED = ["in", *WHOLE]
ALL = {"first": "one", "review": "ask", "side": "beside", "last": "end", "box": "crate"}
FORMER = {role: [role] for role in ALL}


# ---- renamed, and declared so


@pytest.mark.differs("promise 34: LangGraph drops the answer")
@pytest.mark.parametrize("is_nested", [False, True], ids=["root", "nested"])
@pytest.mark.parametrize("pause", PAUSES)
def test_everything_renamed_goes_on(colour: Colour, store: Store, durability: str, pause: str, is_nested: bool) -> None:
    old = Version(colour, pause, is_nested=is_nested)
    question = leave(colour, old.build(store.saver), durability)
    new = Version(colour, pause, is_nested=is_nested, names=ALL, aliases=FORMER)
    new.fails = False
    graph = new.build(store.reopen())
    if durability != "exit" or pause != "crashed":
        shown = colour.get_state(graph, THREAD, subgraphs=True)
        assert [question.id for question in shown.interrupts] == ([question] if question else [])
        assert shown.next[0] in ALL.values()
    assert check(colour, graph) == []
    if durability == "exit" and pause == "crashed":
        return  # nothing was stored
    result = go_on(colour, graph, question, durability)
    assert result["l"] == (NESTED if is_nested else WHOLE)
    ran = old.calls + new.calls
    assert ran.count("first") == ran.count("last") == 1
    if pause in ("interrupt", "breakpoint"):
        assert ran.count("side") == 1
    assert colour.get_state(graph, THREAD).next == ()
    # Nothing of the former names is left to be taken over.
    assert colour.invoke(graph, {"l": ["in"]}, THREAD, interrupt_before="*")
    assert check(colour, Version(colour, pause, is_nested=is_nested, names=ALL).build(store.reopen())) == []


@pytest.mark.parametrize("is_nested", [False, True], ids=["root", "nested"])
def test_a_finished_thread_goes_on_whatever_was_renamed(colour: Colour, store: Store, is_nested: bool) -> None:
    leave(colour, Version(colour, "none", is_nested=is_nested).build(store.saver))
    new = Version(colour, "none", is_nested=is_nested, names=ALL).build(store.reopen())
    assert check(colour, new) == []
    assert colour.invoke(new, {"l": ["in"]}, THREAD)["l"][-5:] == WHOLE


def test_an_answer_given_in_two_calls_over_two_deployments(colour: Colour, store: Store, durability: str) -> None:
    def graph(names: dict[str, str], former: dict[str, list[str]]) -> Any:
        def ask(number: str) -> Any:
            return colour.node(lambda state: {"l": [number + interrupt(number)]})

        builder = StateGraph(Log)
        for role in ("a", "b"):
            builder.add_node(names[role], ask(role), aliases=former.get(role, ())).add_edge(START, names[role])
        builder.add_node(names["t"], colour.letter("t"), aliases=former.get("t", ()))
        return builder.add_edge([names["a"], names["b"]], names["t"]).compile(checkpointer=store.reopen())

    first = colour.invoke(graph({"a": "a", "b": "b", "t": "t"}, {}), {"l": []}, THREAD, durability=durability)
    ids = {question.value: question.id for question in first["__interrupt__"]}
    second = graph({"a": "x", "b": "b", "t": "y"}, {"a": ["a"], "t": ["t"]})
    left = colour.invoke(second, Command(resume={ids["a"]: "1"}), THREAD, durability=durability)
    assert [question.id for question in left["__interrupt__"]] == [ids["b"]]
    third = graph({"a": "p", "b": "q", "t": "r"}, {"a": ["a", "x"], "b": ["b"], "t": ["t", "y"]})
    assert colour.invoke(third, Command(resume={ids["b"]: "2"}), THREAD, durability=durability) == {
        "l": ["a1", "b2", "t"]
    }


def test_after_the_open_step_the_new_names_count(colour: Colour, store: Store, durability: str) -> None:
    """The third version does not know the first one's name any more, and need not."""

    def graph(name: str, **former: Any) -> Any:
        def again(state: Log) -> str:
            return name if len(state["l"]) < 3 else END

        builder = StateGraph(Log).add_node(name, colour.node(lambda state: {"l": [interrupt(name)]}), **former)
        builder.add_edge(START, name).add_conditional_edges(name, colour.node(again), [name, END])
        return builder.compile(checkpointer=store.reopen())

    colour.invoke(graph("review"), {"l": []}, THREAD, durability=durability)
    second = colour.invoke(graph("check", aliases="review"), Command(resume="a"), THREAD, durability=durability)
    assert [question.value for question in second["__interrupt__"]] == ["check"]
    assert colour.get_state(graph("check"), THREAD).next == ("check",)
    third = colour.invoke(graph("check"), Command(resume="b"), THREAD, durability=durability)
    assert (third["l"], len(third["__interrupt__"])) == (["a", "b"], 1)
    assert colour.invoke(graph("check"), Command(resume="c"), THREAD, durability=durability) == {"l": ["a", "b", "c"]}


def test_sends_and_stored_commands_find_the_renamed_node(colour: Colour, store: Store, durability: str) -> None:
    def graph(worker: str, **former: Any) -> Any:
        def work(state: Any) -> Any:
            return {"l": [(state["x"], interrupt(state["x"]))] if "x" in state else ["went"]}

        def fan(state: Any) -> list[Any]:
            return [Send("worker", {"x": 1}), Send("worker", {"x": 2})]

        builder = StateGraph(Log).add_node("fan", colour.letter("fan")).add_node(worker, colour.node(work), **former)
        builder.add_edge(START, "fan").add_conditional_edges("fan", fan if worker == "worker" else lambda state: [])
        return builder.compile(checkpointer=store.reopen())

    paused = colour.invoke(graph("worker"), {"l": []}, THREAD, durability=durability)
    ids = {question.value: question.id for question in paused["__interrupt__"]}
    new = graph("labour", aliases="worker")
    left = colour.invoke(new, Command(resume={ids[1]: "a"}), THREAD, durability=durability)
    assert [question.id for question in left["__interrupt__"]] == [ids[2]]
    done = colour.invoke(new, Command(resume={ids[2]: "b"}), THREAD, durability=durability)
    assert done == {"l": ["fan", (1, "a"), (2, "b")]}
    # Code may still name it, too.
    assert colour.invoke(new, Command(goto="worker"), THREAD)["l"][-1] == "went"
    colour.update_state(new, THREAD, {"l": ["as"]}, "worker")
    assert colour.get_state(new, THREAD).values["l"][-1] == "as"


def test_a_failure_that_waits_for_its_handler(colour: Colour, store: Store) -> None:
    def graph(name: str, **former: Any) -> Any:
        def fail(state: Any) -> Any:
            raise Flaky

        def handle(state: Any) -> Any:
            return {"l": [interrupt("handle?")]}

        builder = StateGraph(Log).add_node(name, colour.node(fail), error_handler=colour.node(handle), **former)
        return builder.add_edge(START, name).compile(checkpointer=store.reopen())

    paused = colour.invoke(graph("n"), {"l": []}, THREAD)
    (question,) = paused["__interrupt__"]
    with refused(GraphChangedError, "'n'"):
        colour.invoke(graph("m"), Command(resume={question.id: "ok"}), THREAD)
    assert colour.invoke(graph("m", aliases=["n"]), Command(resume={question.id: "ok"}), THREAD) == {"l": ["ok"]}


def test_state_that_a_nested_graph_keeps_between_calls(colour: Colour, store: Store, durability: str) -> None:
    """Stable namespaces keep the name under which they were begun, so an older version finds them again, too."""

    def graph(is_new: bool, *, has_aliases: bool = True) -> Any:
        def name(role: str) -> str:
            return role + "2" if is_new else role

        def former(role: str) -> Any:
            return role if is_new and has_aliases else ()

        def count(state: Any) -> Any:
            return {"l": [interrupt("?") if state["l"][-1] == "ask" else f"{len(state['l'])}"]}

        deep = StateGraph(Log).add_node("m", colour.node(lambda state: {"l": [f"m{len(state['l'])}"]}))
        keeper = StateGraph(Log).add_node(name("count"), colour.node(count), aliases=former("count"))
        keeper.add_node(name("deep"), deep.add_edge(START, "m").compile(checkpointer=True), aliases=former("deep"))
        keeper.add_edge(START, name("count")).add_edge(name("count"), name("deep"))
        builder = StateGraph(Log).add_node(name("k"), keeper.compile(checkpointer=True), aliases=former("k"))
        return builder.add_edge(START, name("k")).compile(checkpointer=store.reopen())

    def conversation(versions: list[bool], thread: Any) -> list[int]:
        """The length of the log after the first input, and what is kept after the last."""
        seen = []
        for is_new, given in zip(
            versions, [{"l": ["x"]}, {"l": ["ask"]}, Command(resume="A"), {"l": ["y"]}], strict=True
        ):
            current = graph(is_new)
            result = colour.invoke(current, given, thread, durability=durability)
            seen.append(len(result["l"]))
            for ns in ("k", *(["k2"] if is_new else [])):
                kept = {"configurable": {**thread["configurable"], "checkpoint_ns": ns}}
                assert colour.history(current, kept)
                seen.append(len(colour.get_state(current, kept).values["l"]))
        return [seen[0], seen[-1]]

    unchanged = conversation([False] * 4, {"configurable": {"thread_id": "a"}})
    for number, versions in enumerate(
        [[False, True, True, True], [False, False, True, False], [True, True, False, True]]
    ):
        if versions[0] and not all(versions):
            continue  # begun under the later names: the older version knows nothing of them
        assert conversation(versions, {"configurable": {"thread_id": str(number)}}) == unchanged
    lost = graph(True, has_aliases=False)
    (*_, finding) = [one for one in check(colour, lost) if one.thread_id == "a"]
    assert (finding.kind, finding.name, finding.blocks) == ("node", "k", False)
    with diagnosed("'k'"):
        colour.invoke(lost, {"l": ["z"]}, {"configurable": {"thread_id": "a"}})


def test_nodes_of_a_hand_made_graph(colour: Colour, store: Store, durability: str) -> None:
    def graph(name: str, *former: str, channel: str = "a", renamed: Any = None) -> Any:
        def body(value: Any) -> Any:
            return f"{value}{interrupt('?')}"

        node = NodeBuilder().subscribe_only(channel).do(colour.node(body)).write_to("b").also_known_as(*former)
        return Pregel(
            nodes={name: node},
            channels={channel: LastValue(str), "b": LastValue(str)},
            input_channels=channel,
            output_channels="b",
            checkpointer=store.reopen(),
            renamed_keys=renamed,
        )

    for thread in ("1", "2", "3"):
        config = {"configurable": {"thread_id": thread}}
        (question,) = colour.invoke(graph("n"), "x", config, durability=durability)["__interrupt__"]
        assert [(one.thread_id, one.name) for one in check(colour, graph("m"))] == [(thread, "n")]
        with refused(GraphChangedError, "'n'"):
            colour.invoke(graph("m"), Command(resume={question.id: "y"}), config)
        options = {"1": {}, "2": {"channel": "c", "renamed": {"a": "c"}}, "3": {"channel": "c", "renamed": {"a": "c"}}}
        new = graph("m" if thread != "3" else "n", *("n" if thread != "3" else ""), **options[thread])
        assert check(colour, new) == []
        assert colour.invoke(new, Command(resume={question.id: "y"}), config, durability=durability) == "xy"
        assert colour.get_state(new, config).next == ()


@pytest.mark.parametrize("is_stateful", [False, True], ids=["per call", "stateful"])
def test_a_replay_inside_a_nested_graph_under_new_names(colour: Colour, store: Store, is_stateful: bool) -> None:
    ran: list[str] = []

    def graph(version: int) -> Any:
        def body(role: str) -> Any:
            return colour.node(lambda state: ran.append(role) or {"l": [role]})  # type: ignore[func-returns-value]

        def name(role: str) -> str:
            return f"{role}{version or ''}"

        def node(builder: Any, role: str, action: Any) -> Any:
            return builder.add_node(name(role), action, aliases=[f"{role}{n or ''}" for n in range(version)])

        inner = node(node(StateGraph(Log), "i", body("i")), "j", body("j"))
        inner.add_edge(START, name("i")).add_edge(name("i"), name("j"))
        box = inner.compile(checkpointer=True if is_stateful else None)
        outer = node(node(node(StateGraph(Log), "a", body("a")), "box", box), "z", body("z"))
        outer.add_edge(START, name("a")).add_edge(name("a"), name("box")).add_edge(name("box"), name("z"))
        return outer.compile(checkpointer=store.reopen())

    ends = [colour.invoke(graph(0), {"l": ["in"]}, THREAD)]
    (before,) = [one for one in colour.history(graph(0), THREAD) if one.next == ("box",)]
    place = before.tasks[0].state
    (at,) = [one for one in colour.history(graph(0), place) if one.next == ("j",)]
    for version in (0, 1, 2):
        ran.clear()
        again = graph(version)
        (seen,) = [one for one in colour.history(again, place) if one.config == at.config]
        assert seen.next == (f"j{version or ''}",)
        ends.append(colour.invoke(again, None, at.config))
        assert ran == ["j", "z"]
    assert all(end == ends[0] for end in ends)


def test_nested_runs_with_a_key(colour: Colour, store: Store, durability: str) -> None:
    def graph(name: str, ask: str, **former: Any) -> Any:
        inner = StateGraph(Log).add_node(
            ask, colour.node(lambda state: {"l": [interrupt("?")]}), aliases=former.get("inner", ())
        )
        made = inner.add_edge(START, ask).compile()

        def call(state: Any) -> Any:
            return made.invoke({"l": []}, key="one")

        async def acall(state: Any) -> Any:
            return await made.ainvoke({"l": []}, key="one")

        builder = StateGraph(Log).add_node(name, acall if colour.is_async else call, aliases=former.get("outer", ()))
        return builder.add_edge(START, name).compile(checkpointer=store.reopen())

    (question,) = colour.invoke(graph("n", "ask"), {"l": []}, THREAD, durability=durability)["__interrupt__"]
    stranded = graph("m", "put", outer="n")
    assert [one.name for one in check(colour, stranded)] == ["ask"]
    with refused(GraphChangedError, "'ask'"):
        colour.invoke(stranded, Command(resume={question.id: "a"}), THREAD)
    new = graph("m", "put", outer="n", inner="ask")
    assert check(colour, new) == []
    shown = colour.get_state(new, THREAD, subgraphs=True)
    assert shown.tasks[0].state.next == ("put",)
    assert colour.invoke(new, Command(resume={question.id: "a"}), THREAD, durability=durability) == {"l": ["a"]}


# ---- renamed or removed, and not declared


@pytest.mark.differs("promise 34: LangGraph resumes and drops the answer")
@pytest.mark.parametrize("is_nested", [False, True], ids=["root", "nested"])
@pytest.mark.parametrize("pause", PAUSES)
def test_what_cannot_go_on_is_refused_and_nothing_is_stored(
    colour: Colour, store: Store, durability: str, pause: str, is_nested: bool
) -> None:
    old = Version(colour, pause, is_nested=is_nested)
    question = leave(colour, old.build(store.saver), durability)
    if durability == "exit" and pause == "crashed":
        return  # nothing was stored
    before = store.rows()
    gone = Version(colour, pause, is_nested=is_nested, names={"review": "ask"})
    graph = gone.build(store.reopen())
    with refused(GraphChangedError, "'review'", "'ask'", "aliases=", "thread '1'") as caught:
        go_on(colour, graph, question, durability)
    (missing,) = [one for one in caught.value.missing if one.name == "review"]
    assert (missing.thread_id, missing.kind, missing.blocks) == ("1", "node", True)
    assert missing.ns.startswith("box:") if is_nested else missing.ns == ""
    assert missing.checkpoint_id in {checkpoint["id"] for checkpoint, _, _ in before}
    assert missing in check(colour, graph)
    # It does not look as if it had finished, and the question can still be seen.
    shown = colour.get_state(graph, THREAD, subgraphs=True)
    inner = shown.tasks[0].state if is_nested else shown
    assert "review" in inner.next
    assert [asked.id for asked in inner.interrupts] == ([question] if question else [])
    assert store.rows() == before
    assert gone.calls == []
    # The version that has it still can.
    old.fails = False
    assert go_on(colour, old.build(store.reopen()), question, durability)["l"] == (NESTED if is_nested else WHOLE)


def test_a_nested_graph_whose_node_is_renamed(colour: Colour, store: Store, durability: str) -> None:
    old = Version(colour, "interrupt", is_nested=True)
    question = leave(colour, old.build(store.saver), durability)
    for names, aliases, missing in (
        ({"box": "crate"}, {}, "box"),
        ({"box": "crate", "review": "ask"}, {"box": ["box"]}, "review"),
    ):
        graph = Version(colour, "interrupt", is_nested=True, names=names, aliases=aliases).build(store.reopen())
        assert [one.name for one in check(colour, graph)] == [missing]
        with refused(GraphChangedError, missing):
            go_on(colour, graph, question, durability)
    both = Version(
        colour,
        "interrupt",
        is_nested=True,
        names={"box": "crate", "review": "ask"},
        aliases={"box": ["box"], "review": ["review"]},
    )
    assert go_on(colour, both.build(store.reopen()), question, durability)["l"] == NESTED


def test_a_nested_graph_that_cannot_be_seen_from_outside(colour: Colour, store: Store, durability: str) -> None:
    """Its own run refuses; that is no failure of the node that called it."""
    handled: list[str] = []

    def graph(name: str) -> Any:
        inner = StateGraph(Log).add_node(name, colour.node(lambda state: {"l": [interrupt("?")]}))
        held = {"graph": inner.add_edge(START, name).compile()}

        def call(state: Any) -> Any:
            return (yield held["graph"], {"l": []})

        def handle(state: Any) -> Any:
            handled.append("handled")

        builder = StateGraph(Log).add_node("n", colour.script(call), error_handler=colour.node(handle))
        return builder.add_edge(START, "n").compile(checkpointer=store.reopen())

    (question,) = colour.invoke(graph("old"), {"l": []}, THREAD, durability=durability)["__interrupt__"]
    for _ in range(2):
        with refused(GraphChangedError, "'old'"):
            colour.invoke(graph("new"), Command(resume={question.id: "a"}), THREAD, durability=durability)
    assert handled == []
    assert colour.invoke(graph("old"), Command(resume={question.id: "a"}), THREAD, durability=durability) == {
        "l": ["a"]
    }


def test_where_a_finished_sibling_has_led_to_and_what_it_has_written(colour: Colour, store: Store) -> None:
    class Wide(Log, total=False):
        k: str

    class Narrow(Log, total=False):
        kk: str

    def graph(state: Any, follower: str, **options: Any) -> Any:
        builder = StateGraph(state)
        builder.add_node("ask", colour.node(lambda state: {"l": [interrupt("?")]})).add_edge(START, "ask")
        builder.add_node("side", colour.node(lambda state: {"l": ["side"], "k": "v"} if state else None))
        builder.add_edge(START, "side").add_edge("side", follower)
        former = options.pop("former", ())
        builder.add_node(follower, colour.letter("followed"), aliases=former)
        return builder.compile(checkpointer=store.reopen(), **options)

    (question,) = colour.invoke(graph(Wide, "next"), {"l": []}, THREAD)["__interrupt__"]
    answer = Command(resume={question.id: "a"})
    with refused(GraphChangedError, "'next'", "'follow'") as caught:
        colour.invoke(graph(Wide, "follow"), answer, THREAD)
    assert [(one.kind, one.name) for one in caught.value.missing] == [("node", "next")]
    with refused(GraphChangedError, "'k'", "renamed_keys"):
        colour.invoke(graph(Narrow, "next"), answer, THREAD)
    moved = graph(Narrow, "follow", former="next", renamed_keys={"k": "kk"})
    assert check(colour, moved) == []
    assert colour.invoke(moved, answer, THREAD) == {"l": ["a", "side", "followed"], "kk": "v"}


def test_where_a_finished_sibling_has_sent(colour: Colour, store: Store, durability: str) -> None:
    """The Send waits with what the sibling wrote until the step is closed."""

    def graph(worker: str, *more: str, former: Any = ()) -> Any:
        def side(state: Any) -> Any:
            return Command(update={"l": ["side"]}, goto=[Send(worker, "sent")])

        builder = StateGraph(Log).add_node("side", colour.node(side), destinations=(worker,)).add_edge(START, "side")
        builder.add_node("ask", colour.node(lambda state: {"l": [interrupt("?")]})).add_edge(START, "ask")
        builder.add_node(worker, colour.node(lambda arg: {"l": [arg]}), aliases=former)
        for name in more:
            builder.add_node(name, colour.letter(name)).add_edge("ask", name)
        return builder.compile(checkpointer=store.reopen())

    for number, new in enumerate([("worker",), ("worker", "more"), ("labour",)]):
        where = {"configurable": {"thread_id": f"{number}"}}
        colour.invoke(graph("worker"), {"l": []}, where, durability=durability)
        with refused(GraphChangedError, "'worker'", "'other'") as caught:
            colour.invoke(graph("other"), Command(resume="a"), where, durability=durability)
        assert [(one.kind, one.name) for one in caught.value.missing] == [("node", "worker")]
        changed = graph(*new, former="worker" if new == ("labour",) else ())
        done = colour.invoke(changed, Command(resume="a"), where, durability=durability)
        assert sorted(done["l"]) == sorted(["a", "side", "sent", *new[1:]])


def test_new_input_over_work_that_cannot_go_on_tells_what_it_drops(
    colour: Colour, store: Store, durability: str
) -> None:
    leave(colour, Version(colour, "interrupt").build(store.saver), durability)
    new = Version(colour, "none", names={"review": "ask"})
    graph = new.build(store.reopen())
    with diagnosed("'review'", "thread '1'"):
        result = colour.invoke(graph, {"l": ["again"]}, THREAD, durability=durability)
    assert result["l"] == ["in", "first", "again", *WHOLE[1:]]
    # It is told once, and nothing of it is met again: not by a resume, nor by another new version.
    assert check(colour, graph) == []
    other = Version(colour, "none", names={"review": "third"}).build(store.reopen())
    assert check(colour, other) == []
    assert colour.invoke(other, None, THREAD)["l"] == result["l"]


@pytest.mark.parametrize("as_node", [END, "first", "__input__"])
def test_update_state_gets_rid_of_work_that_cannot_go_on(colour: Colour, store: Store, as_node: str) -> None:
    leave(colour, Version(colour, "interrupt").build(store.saver))
    new = Version(colour, "none", names={"review": "ask"})
    graph = new.build(store.reopen())
    values = None if as_node == END else {"l": ["by hand"]}
    if as_node == END:
        colour.update_state(graph, THREAD, values, as_node)
    else:
        with diagnosed("'review'"):
            colour.update_state(graph, THREAD, values, as_node)
    assert check(colour, graph) == []
    if as_node != END:
        assert "ask" in colour.invoke(graph, None, THREAD)["l"] or new.calls.count("review") == 1
    else:
        # What had finished beside it counts.
        assert colour.get_state(graph, THREAD).values["l"] == ["in", "first", "side"]
        assert colour.get_state(graph, THREAD).next == ()


def test_a_checkpoint_that_cannot_go_on_is_not_copied(colour: Colour, store: Store) -> None:
    leave(colour, Version(colour, "interrupt").build(store.saver))
    graph = Version(colour, "none", names={"review": "ask"}).build(store.reopen())
    before = store.rows()
    with refused(GraphChangedError, "'review'"):
        colour.update_state(graph, THREAD, None, "__copy__")
    assert store.rows() == before


def test_strict_makes_the_warning_an_error_and_stores_nothing(colour: Colour, memory: Any) -> None:
    leave(colour, Version(colour, "interrupt").build(memory))
    builder = StateGraph(Log).add_node("n", colour.letter("n")).add_edge(START, "n")
    before = len(list(memory.list(None)))
    with refused(PregelWarning, "'review'"):
        colour.invoke(builder.compile(checkpointer=memory, strict=True), {"l": []}, THREAD)
    assert len(list(memory.list(None))) == before


# ---- other changes


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize(
    ("change", "end"),
    [
        ({"more": ("new",)}, WHOLE),
        ({"join": "edges"}, WHOLE),
        ({"join": "turned"}, WHOLE),
        ({"join": "inclusive"}, WHOLE),
        ({"join": "inclusive", "defer": ("last",)}, WHOLE),
        ({"defer": ("last",)}, WHOLE),
        ({"join": "edges", "defer": ("last",)}, WHOLE),
        ({"without": ("first",)}, WHOLE),
        ({"without": ("last",)}, WHOLE[:-1]),
    ],
    ids=[
        "node added",
        "edges for a join",
        "join turned",
        "join inclusive",
        "inclusive and deferred",
        "deferred",
        "edges and deferred",
        "done node gone",
        "end node gone",
    ],
)
def test_changes_that_nothing_pending_minds(
    colour: Colour, store: Store, durability: str, pause: str, change: Any, end: list[str]
) -> None:
    old = Version(colour, pause)
    question = leave(colour, old.build(store.saver), durability)
    if durability == "exit" and pause == "crashed":
        return  # nothing was stored
    if change.get("without") == ("last",) and pause in ("interrupt", "failed", "crashed"):
        if pause != "interrupt":
            return  # whether the sibling had finished, and led on to it, is a matter of chance
        with refused(GraphChangedError, "'last'"):
            go_on(colour, Version(colour, pause, **change).build(store.reopen()), question, durability)
        return
    new = Version(colour, pause, **change)
    new.fails = False
    graph = new.build(store.reopen())
    assert check(colour, graph) == []
    assert go_on(colour, graph, question, durability)["l"] == end


def test_a_join_that_is_half_full(colour: Colour, store: Store, durability: str) -> None:
    """a has arrived; b is still to come when the edge is changed."""

    def graph(sources: list[str], last: str = "last", former: Any = ()) -> Any:
        builder = StateGraph(Log).add_node("a", colour.letter("a")).add_edge(START, "a")
        builder.add_node("ask", colour.node(lambda state: {"l": [interrupt("?")]})).add_edge("a", "ask")
        names = [name for name in sources if name != "a"]
        for name in names:
            builder.add_node(name, colour.letter(name))
        builder.add_edge("ask", names[0])
        builder.add_node(last, colour.letter("last"), aliases=former)
        builder.add_edge(sources, last)
        return builder.compile(checkpointer=store.reopen())

    def threads(number: str) -> Any:
        config = {"configurable": {"thread_id": number}}
        (question,) = colour.invoke(graph(["a", "b"]), {"l": []}, config, durability=durability)["__interrupt__"]
        return config, Command(resume={question.id: "x"})

    end = ["a", "x", "b", "last"]
    config, answer = threads("turned")
    assert colour.invoke(graph(["b", "a"]), answer, config, durability=durability)["l"] == end
    config, answer = threads("a source renamed, which has not run")
    assert colour.invoke(graph(["a", "c"]), answer, config, durability=durability)["l"] == ["a", "x", "c", "last"]
    config, answer = threads("target renamed")
    with refused(GraphChangedError, "'last'"):
        colour.invoke(graph(["a", "b"], "end"), answer, config, durability=durability)
    renamed = graph(["a", "b"], "end", "last")
    assert colour.invoke(renamed, answer, config, durability=durability)["l"] == end


def test_a_deferred_node_that_waits(colour: Colour, store: Store, durability: str) -> None:
    def graph(late: str, *, defer: bool, **former: Any) -> Any:
        builder = StateGraph(Log).add_node("a", colour.letter("a")).add_edge(START, "a")
        builder.add_node("ask", colour.node(lambda state: {"l": [interrupt("?")]})).add_edge("a", "ask")
        builder.add_node("b", colour.letter("b")).add_edge("ask", "b")
        builder.add_node(late, colour.letter("late"), defer=defer, **former).add_edge("a", late)
        return builder.compile(checkpointer=store.reopen())

    def paused(number: str) -> Any:
        config = {"configurable": {"thread_id": number}}
        given = colour.invoke(graph("late", defer=True), {"l": []}, config, durability=durability)
        return config, Command(resume={given["__interrupt__"][0].id: "x"})

    config, answer = paused("1")
    with refused(GraphChangedError, "'late'"):
        colour.invoke(graph("later", defer=True), answer, config)
    renamed = graph("later", defer=True, aliases="late")
    assert colour.invoke(renamed, answer, config, durability=durability)["l"] == ["a", "x", "b", "late"]
    config, answer = paused("2")
    result = colour.invoke(graph("late", defer=False), answer, config, durability=durability)
    assert sorted(result["l"]) == ["a", "b", "late", "x"]


@pytest.mark.parametrize("pause", PAUSES)
def test_a_key_that_gets_a_reducer(colour: Colour, store: Store, durability: str, pause: str) -> None:
    class Plain(TypedDict):
        l: list[Any]  # noqa: E741
        n: int

    class Summed(TypedDict):
        l: list[Any]  # noqa: E741
        n: Annotated[int, operator.add]

    class Bodies:
        fails = pause in ("failed", "crashed")

    def graph(state: Any) -> Any:
        def first(given: Any) -> Any:
            return {"n": 1}

        def ask(given: Any) -> Any:
            if Bodies.fails:
                Bodies.fails = False
                raise Flaky if pause == "failed" else Died
            return {"n": 5 if pause != "interrupt" else int(interrupt("?"))}

        builder = StateGraph(state).add_node("first", colour.node(first)).add_node("ask", colour.node(ask))
        builder.add_edge(START, "first").add_edge("first", "ask")
        stops = ["ask"] if pause == "breakpoint" else None
        return builder.compile(checkpointer=store.reopen(), interrupt_before=stops)

    question = leave(colour, graph(Plain), durability)
    if durability == "exit" and pause == "crashed":
        return
    new = graph(Summed)
    assert check(colour, new) == []
    given = None if question is None else Command(resume={question: 5})
    assert colour.invoke(new, given, THREAD, durability=durability)["n"] == 6


class Old(Log, total=False):
    draft: str


class New(Log, total=False):
    text: str


@pytest.mark.parametrize("pause", PAUSES)
def test_a_key_that_is_gone(colour: Colour, store: Store, durability: str, pause: str) -> None:
    """It is listed, it stays stored, and it is there again when the key is declared again. No warning: there is no new key
    that could be the same under another name."""
    old = Version(colour, pause, state=Old)
    graph = old.build(store.saver)
    colour.update_state(graph, THREAD, {"l": [], "draft": "d"}, START)
    options = {} if durability is None else {"durability": durability}
    try:
        result = colour.invoke(graph, None, THREAD, **options)
    except (Flaky, Died):
        result = {}
    question = result["__interrupt__"][0].id if "__interrupt__" in result else None
    new = Version(colour, pause)
    new.fails = False
    graph = new.build(store.reopen())
    assert [(one.kind, one.name, one.blocks) for one in check(colour, graph)] == [("key", "draft", False)]
    result = go_on(colour, graph, question, durability)
    assert "draft" not in result
    assert result["l"] == WHOLE[1:]
    kept = colour.get_state(old.build(store.reopen()), THREAD).values
    assert kept["draft"] == "d"


def test_a_key_that_was_renamed_or_is_not_needed(colour: Colour, store: Store, durability: str) -> None:
    def graph(state: Any, **options: Any) -> Any:
        builder = StateGraph(state).add_node("ask", colour.node(lambda state: {"l": [interrupt("?")]}))
        builder.add_node("tell", colour.node(lambda state: {"l": [state.get("text", "nothing")]}))
        return builder.add_edge(START, "ask").add_edge("ask", "tell").compile(checkpointer=store.reopen(), **options)

    for thread, renamed, end in (("1", {"draft": "text"}, "d"), ("2", {"draft": None}, "nothing")):
        config = {"configurable": {"thread_id": thread}}
        paused = colour.invoke(graph(Old), {"l": [], "draft": "d"}, config, durability=durability)
        new = graph(New, renamed_keys=renamed)
        assert check(colour, new) == []
        answer = Command(resume={paused["__interrupt__"][0].id: "x"})
        assert colour.invoke(new, answer, config, durability=durability)["l"] == ["x", end]
        # The rename may be taken back, and deployed again.
        values = colour.get_state(graph(Old), config).values
        assert values.get("draft") == (None if renamed["draft"] else "d")
        assert colour.get_state(graph(New), config).values.get("text") == ("d" if renamed["draft"] else None)


def test_a_key_that_may_have_been_renamed_is_told(colour: Colour, store: Store) -> None:
    """A new key could hold the value, and nobody has said that it is not the old one."""

    def graph(state: Any) -> Any:
        builder = StateGraph(state).add_node("ask", colour.node(lambda state: {"l": [interrupt("?")]}))
        return builder.add_edge(START, "ask").compile(checkpointer=store.reopen())

    colour.invoke(graph(Old), {"l": [], "draft": "d"}, THREAD)
    with diagnosed("'draft'", "'text'", "renamed_keys"):
        result = colour.invoke(graph(New), Command(resume="x"), THREAD)
    assert result == {"l": ["x"]}
    assert colour.get_state(graph(Old), THREAD).values == {"l": ["x"], "draft": "d"}


def test_values_of_keys_that_a_nested_graph_lost_survive_a_replay_inside_it(colour: Colour, store: Store) -> None:
    def graph(state: Any) -> Any:
        inner = StateGraph(state).add_node("i", colour.node(lambda state: {"l": ["i"]}))
        inner.add_node("j", colour.node(lambda state: {"l": [interrupt("?")]})).add_edge(START, "i").add_edge("i", "j")
        builder = StateGraph(state).add_node("box", inner.compile()).add_edge(START, "box")
        return builder.compile(checkpointer=store.reopen())

    colour.invoke(graph(Old), {"l": [], "draft": "d"}, THREAD)
    new = graph(Log)
    nested = colour.get_state(new, THREAD).tasks[0].state
    (before,) = [one for one in colour.history(new, nested) if one.next == ("i",)]
    replayed = colour.invoke(new, None, before.config)
    assert [question.value for question in replayed["__interrupt__"]] == ["?"]
    old = graph(Old)
    again = colour.get_state(old, THREAD, subgraphs=True).tasks[0].state
    assert again.values == {"l": ["i"], "draft": "d"}


# ---- asking before the deploy


def test_check_tells_of_every_thread(colour: Colour, store: Store) -> None:
    old = Version(colour, "interrupt")
    graph = old.build(store.saver)
    for number in range(5):
        colour.invoke(graph, {"l": ["in"]}, {"configurable": {"thread_id": str(number)}})
    colour.invoke(Version(colour, "none").build(store.saver), {"l": ["in"]}, {"configurable": {"thread_id": "done"}})
    new = Version(colour, "none", names={"review": "ask"}).build(None)
    found = check(colour, new, store.reopen())
    assert [one.thread_id for one in found] == ["0", "1", "2", "3", "4"]
    assert {one.name for one in found} == {"review"}
    assert check(colour, old.build(None), store.saver) == []
    with pytest.raises(ValueError, match="checkpointer"):
        check(colour, new)
    if store.path is not None:
        assert check(colour, new, store.reopen(read_only=True)) == found
        store.reopen()


def test_check_needs_no_class_of_the_program(colour: Colour, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_by_name", dict(registry._by_name))

    def graph(follower: str) -> Any:
        @checkpoint.register(name="tests.redeploy:Own")
        class Own:
            def __init__(self, x: int) -> None:
                self.x = x

        builder = StateGraph(Log).add_node("ask", colour.node(lambda state: interrupt("?")))
        builder.add_node("n", colour.node(lambda state: {"l": [Own(1)]})).add_edge(START, "n")
        builder.add_conditional_edges("n", lambda state: [Send("ask", {"l": [Own(2)]}), Send(follower, Own(3))])
        builder.add_node(follower, colour.node(lambda state: None))
        return builder.compile(checkpointer=store.saver)

    colour.invoke(graph("a"), {"l": []}, THREAD)
    del registry._by_name["tests.redeploy:Own"]
    other = StateGraph(Log).add_node("ask", colour.letter("x")).add_edge(START, "ask").compile()
    found = check(colour, other, store.reopen())
    assert [one.name for one in found] == ["a"]


@pytest.mark.parametrize("is_nested", [False, True], ids=["root", "nested"])
def test_a_saver_with_langgraphs_methods_alone(colour: Colour, durability: str, is_nested: bool) -> None:
    saver = PlainSaver()
    question = leave(colour, Version(colour, "interrupt", is_nested=is_nested).build(saver), durability)
    gone = Version(colour, "interrupt", is_nested=is_nested, names=ALL).build(saver)
    assert {one.name for one in check(colour, gone)} == ({"box"} if is_nested else {"review", "side", "last"})
    with refused(GraphChangedError, "'box'" if is_nested else "'review'"):
        go_on(colour, gone, question, durability)
    new = Version(colour, "interrupt", is_nested=is_nested, names=ALL, aliases=FORMER).build(saver)
    assert check(colour, new) == []
    assert go_on(colour, new, question, durability)["l"] == (NESTED if is_nested else WHOLE)
    assert check(colour, gone) == []


# ---- declared wrongly


def test_aliases_that_collide() -> None:
    def graph(*nodes: tuple[str, Any]) -> Any:
        builder = StateGraph(Log)
        for name, former in nodes:
            builder.add_node(name, lambda state: None, aliases=former).add_edge(START, name)
        return builder.compile()

    for nodes in (
        (("a", "b"), ("b", ())),
        (("a", ["x"]), ("b", ["x"])),
        (("a", "a"),),
        (("a", START),),
        (("a", "x:y"),),
        (("a", "__interrupt__"),),
    ):
        with pytest.raises(ValueError, match="alias"):
            graph(*nodes)
    with pytest.raises(ValueError, match="renamed_keys"):
        StateGraph(Log).add_node("a", lambda state: None).add_edge(START, "a").compile(renamed_keys={"l": None})
    with pytest.raises(ValueError, match="renamed_keys"):
        StateGraph(Log).add_node("a", lambda state: None).add_edge(START, "a").compile(renamed_keys={"x": "y"})
    node = NodeBuilder().subscribe_only("a").do(str).write_to("b").also_known_as("n")
    channels: Any = {"a": LastValue(str), "b": NamedBarrierValue(str, {"x"})}
    with pytest.raises(ValueError, match="alias"):
        Pregel(nodes={"n": node}, channels=channels, input_channels="a", output_channels="b")
