"""Mistakes speak (design.md D9, D42, D49; docs/mistakes.md): each warns once per graph and place, and raises under strict.

Each is made once as a whole program, in a graph of its own and nested in another one. What looks like a mistake and is
none comes after them: programs that must stay silent.
"""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from typing_extensions import TypedDict

from checkpoint.memory import InMemorySaver
from pregel.channels import LastValue
from pregel.config import RunnableConfig
from pregel.errors import GraphChangedError, InvalidUpdateError, UnknownInterruptError
from pregel.graph import END, START, StateGraph
from pregel.pregel import NodeBuilder, Pregel
from pregel.types import Command, Send, interrupt
from pregel.warnings import PregelWarning
from tests.support.scenarios import Colour


class Log(TypedDict, total=False):
    l: Annotated[list[str], operator.add]  # noqa: E741
    x: Any


Update = dict[str, Any]


def letters(colour: Colour, names: str) -> StateGraph:
    """A builder with nodes that declare to go nowhere."""
    builder = StateGraph(Log)
    for name in names:
        builder.add_node(name, letter(colour, name))
    return builder


def letter(colour: Colour, name: str) -> Any:
    def act(state: Log) -> Update:
        return {"l": [name]}

    return colour.node(act)


def returning(colour: Colour, result: Any) -> StateGraph:
    """Node `a` returns that, `b` and `c` follow only if they are gone to."""
    return letters(colour, "bc").add_node("a", colour.node(lambda state: result)).add_edge(START, "a")


def caught(call: Callable[[], Any]) -> list[str]:
    """The texts of the mistakes that a call is told of."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    assert {entry.category for entry in seen} <= {PregelWarning}
    return [str(entry.message) for entry in seen]


# ---- the mistakes


class Mistake(NamedTuple):
    """`build`: the builder; `names`: what its warning names; `config`: of the call."""

    build: Callable[[Colour], StateGraph]
    names: tuple[str, ...]
    config: Any = None
    at_compile: bool = False


def half_joined(colour: Colour) -> StateGraph:
    builder = letters(colour, "abc").add_edge(["a", "b"], "c")
    return builder.add_conditional_edges(START, lambda state: "a", ["a", "b"])


def dead_join(colour: Colour) -> StateGraph:
    return letters(colour, "abc").add_edge(START, "a").add_edge("a", "b").add_edge(["b", "c"], "c")


def dead_end(colour: Colour) -> StateGraph:
    def agent(state: Log) -> Literal["b", "c"]:
        return "b"

    return letters(colour, "abc").add_edge(START, "a").add_conditional_edges("a", agent).add_edge("c", END)


def declared_goto(colour: Colour) -> StateGraph:
    def go(state: Log) -> Command[Literal["b"]]:
        return Command(goto="b")

    return letters(colour, "bc").add_node("a", colour.node(go)).add_edge(START, "a").add_edge("a", "c")


MISTAKES = {
    "unknown key": Mistake(lambda c: returning(c, {"ll": ["a"]}), ("'a'", "'ll'", "'l'")),
    "unknown key in a Command": Mistake(lambda c: returning(c, Command(update={"ll": 1})), ("'a'", "'ll'", "'l'")),
    "unknown goto": Mistake(lambda c: returning(c, Command(goto="bb")), ("'a'", "'bb'", "'b'")),
    "unknown Send": Mistake(lambda c: returning(c, Command(goto=[Send("bb", {})])), ("'a'", "'bb'", "'b'")),
    "unknown result of a path": Mistake(
        lambda c: letters(c, "abc").add_edge(START, "a").add_conditional_edges("a", lambda state: "bb"),
        ("'a'", "'bb'", "'b'"),
    ),
    "unknown Send of a path": Mistake(
        lambda c: letters(c, "abc").add_edge(START, "a").add_conditional_edges("a", lambda state: Send("bb", {})),
        ("'a'", "'bb'", "'b'"),
    ),
    "mistyped config key": Mistake(
        lambda c: letters(c, "a").add_edge(START, "a"),
        ("'recursion_limt'", "'recursion_limit'"),
        {"recursion_limt": 5},
    ),
    "misplaced config key": Mistake(
        lambda c: letters(c, "a").add_edge(START, "a"),
        ("configurable", "max_concurrency"),
        {"configurable": {"max_concurrency": 2}},
    ),
    "thread id at the top": Mistake(
        lambda c: letters(c, "a").add_edge(START, "a"), ("configurable", "'thread_id'"), {"thread_id": "1"}
    ),
    "unreachable node": Mistake(lambda c: letters(c, "ab").add_edge(START, "a"), ("'b'",), at_compile=True),
    "dead end": Mistake(dead_end, ("'b'", "END"), at_compile=True),
    "join that cannot go on": Mistake(dead_join, ("'b'", "'c'"), at_compile=True),
    "join left half full": Mistake(half_joined, ("'a'", "'b'", "'c'", "inclusive")),
    "goto beside an edge": Mistake(lambda c: returning(c, Command(goto="b")).add_edge("a", "c"), ("'a'", "'b'", "'c'")),
    "declared goto beside an edge": Mistake(declared_goto, ("'a'", "'b'", "'c'"), at_compile=True),
}
ELSEWHERE = {
    "resume that answers nothing": "test_mistakes.py::test_a_resume_that_answers_nothing",
    "node of a paused task gone": "test_mistakes.py::test_a_paused_node_that_is_gone",
    "two writers": "test_mistakes.py::test_two_writers_of_one_key",
    "command as input": "test_mistakes.py::test_a_command_as_input_names_nothing",
    "argument": "test_mistakes.py::test_an_argument_that_no_call_takes",
    "call with other arguments": "test_functional.py::test_a_call_with_other_arguments_runs",
}
"""Mistakes of the page whose tests need more than one program."""
SECTIONS: dict[int, tuple[str, ...]] = {
    1: ("unknown key", "unknown key in a Command"),
    2: ("unknown goto", "unknown Send", "unknown result of a path", "unknown Send of a path", "command as input"),
    3: ("resume that answers nothing",),
    4: ("mistyped config key", "misplaced config key", "thread id at the top", "argument"),
    5: ("node of a paused task gone",),
    6: ("unreachable node", "dead end"),
    7: ("join that cannot go on", "join left half full"),
    8: ("goto beside an edge", "declared goto beside an edge", "two writers"),
    9: ("call with other arguments",),
}
"""Section of docs/mistakes.md -> the tests of what it tells."""
EACH = pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)


@EACH
def test_a_mistake_is_told_once(colour: Colour, mistake: Mistake) -> None:
    def again() -> None:
        for _ in range(2):
            colour.invoke(graph, {"l": []}, mistake.config)
            colour.stream(graph, {"l": []}, mistake.config)

    graphs: list[Any] = []
    texts = caught(lambda: graphs.append(mistake.build(colour).compile()))
    graph = graphs[0]
    assert len(texts) == mistake.at_compile
    texts += caught(again)
    assert len(texts) == 1
    assert all(name in texts[0] for name in mistake.names), texts
    assert caught(lambda: colour.batch(graph, [{"l": []}] * 2, mistake.config)) == []


@EACH
def test_a_mistake_is_an_error_under_strict(colour: Colour, mistake: Mistake) -> None:
    with pytest.raises((PregelWarning, InvalidUpdateError)) as error:
        colour.invoke(mistake.build(colour).compile(strict=True), {"l": []}, mistake.config)
    assert all(name in str(error.value) for name in mistake.names), error.value


@EACH
@pytest.mark.parametrize("strict", [False, True])
def test_a_mistake_in_a_nested_graph(colour: Colour, mistake: Mistake, strict: bool) -> None:
    def run() -> None:
        inner = mistake.build(colour).compile(strict=strict)

        def call(state: Any) -> Any:
            result = yield inner, {"l": []}, mistake.config
            return {"l": result["l"]}

        builder = StateGraph(Log).add_node("call", colour.script(call)).add_edge(START, "call")
        outer = builder.add_node("sub", inner).add_edge("call", "sub").compile()
        for _ in range(2):
            colour.invoke(outer, {"l": []})

    if strict:
        with pytest.raises((PregelWarning, InvalidUpdateError)):
            run()
    else:
        (text,) = caught(run)
        assert all(name in text for name in mistake.names), text


def test_every_mistake_of_the_page_has_its_test() -> None:
    here = Path(__file__)
    page = (here.parents[2] / "docs" / "mistakes.md").read_text()
    assert [int(n) for n in re.findall(r"^## (\d)\. ", page, re.MULTILINE)] == [*SECTIONS]
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted([*MISTAKES, *ELSEWHERE])
    for place in ELSEWHERE.values():
        module, _, name = place.partition("::")
        assert f"def {name}(" in (here.parent / module).read_text(), place


def test_two_places_are_told_apart(colour: Colour) -> None:
    builder = letters(colour, "")
    for name in "ab":
        builder.add_node(name, colour.node(lambda state: {"ll": 1, "m": 1})).add_edge(START, name)
    graph = builder.compile()
    assert len(caught(lambda: colour.invoke(graph, {}))) == 4
    assert caught(lambda: colour.invoke(graph, {})) == []


def test_a_warning_names_the_users_line() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        graph = letters(Colour("sync"), "ab").add_edge(START, "a").compile()
        graph.invoke({}, {"recursion_limt": 5})
        graph.with_config(recursion_limt=6).get_name()
    assert {entry.filename for entry in seen} == {__file__}


def test_what_is_told_under_strict_is_stored_as_far_as_it_went(
    colour: Colour, saver: Any, thread: Any, durability: Any
) -> None:
    graph = half_joined(colour).compile(saver, strict=True)
    with pytest.raises(PregelWarning):
        colour.invoke(graph, {"l": []}, thread, durability=durability)
    assert colour.get_state(graph, thread).values == {"l": ["a"]}


# ---- a Command given as input


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (Command(goto="bb"), ("'bb'", "'b'")),
        (Command(goto=["a", Send("bb", {})]), ("'bb'", "'b'")),
        (Command(goto="a", update={"ll": ["u"]}), ("'ll'", "'l'")),
    ],
    ids=str,
)
def test_a_command_as_input_names_nothing(
    colour: Colour, saver: Any, thread: Any, command: Any, names: tuple[str, ...]
) -> None:
    graph = letters(colour, "ab").add_edge(START, "a").add_edge("a", "b").compile(saver)
    colour.invoke(graph, {"l": []}, thread)
    (text,) = caught(lambda: colour.invoke(graph, command, thread))
    assert all(name in text for name in names), text
    strict = letters(colour, "ab").add_edge(START, "a").add_edge("a", "b").compile(saver, strict=True)
    stored = colour.get_state(strict, thread)
    with pytest.raises(PregelWarning):
        colour.invoke(strict, command, thread)
    assert colour.get_state(strict, thread) == stored


def test_an_answer_in_a_call_that_strict_refuses_is_not_stored(
    colour: Colour, saver: Any, thread: Any, durability: Any
) -> None:
    def ask(state: Any) -> Any:
        return {"l": [interrupt("?")]}

    graph = StateGraph(Log).add_node("ask", colour.node(ask)).add_edge(START, "ask").compile(saver, strict=True)
    asked = colour.invoke(graph, {"l": []}, thread, durability=durability)["__interrupt__"]
    before = colour.history(graph, thread)
    with pytest.raises(PregelWarning, match="'nowhere'"):
        colour.invoke(graph, Command(resume="answer", goto="nowhere"), thread, durability=durability)
    assert colour.history(graph, thread) == before
    assert colour.invoke(graph, None, thread, durability=durability)["__interrupt__"] == asked
    assert colour.invoke(graph, Command(resume="later"), thread, durability=durability) == {"l": ["later"]}


def test_a_resume_that_answers_nothing(colour: Colour, saver: Any, thread: Any) -> None:
    def finished(**options: Any) -> Any:
        graph = letters(colour, "a").add_edge(START, "a").compile(saver, **options)
        colour.invoke(graph, {"l": []}, thread)
        return graph

    graph = finished()
    (text,) = caught(lambda: [colour.invoke(graph, Command(resume=answer), thread) for answer in ("yes", "yes")])
    assert "'1'" in text
    with pytest.raises(UnknownInterruptError, match="'1'"):
        colour.invoke(finished(strict=True), Command(resume="yes"), thread)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_paused_node_that_is_gone(colour: Colour, saver: Any, thread: Any, nested: bool, strict: bool) -> None:
    """An error in any case: an answer would be lost."""

    def build(name: str, **options: Any) -> Any:
        builder = StateGraph(Log).add_node(name, colour.node(lambda state: {"l": [interrupt("?")]}))
        if not nested:
            return builder.add_edge(START, name).compile(saver, **options)
        inner = builder.add_edge(START, name).compile(**options)
        return StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").compile(saver)

    colour.invoke(build("ask"), {"l": []}, thread)
    with pytest.raises(GraphChangedError) as error:
        colour.invoke(build("other", strict=strict), Command(resume="yes"), thread)
    assert "'ask'" in str(error.value)
    assert colour.invoke(build("ask"), Command(resume="yes"), thread)["l"] == ["yes"]


# ---- configs


PLACES: list[tuple[Any, tuple[str, ...]]] = [
    ({"recursion_limt": 5}, ("recursion_limt", "'recursion_limit'")),
    ({"max_concurency": 5}, ("max_concurency", "'max_concurrency'")),
    ({"thread-id": "1"}, ("thread-id", "configurable", "'thread_id'")),
    ({"checkpoint_id": "1"}, ("checkpoint_id", "configurable")),
    ({"user": "ann"}, ("user", "configurable")),
    ({"stream_mode": "values"}, ("stream_mode", "argument")),
    ({"configurable": {"recursion_limit": 5}}, ("configurable", "recursion_limit")),
    ({"configurable": {"callbacks": []}}, ("configurable", "callbacks")),
    ({"configurable": {"run_name": "r"}}, ("configurable", "run_name")),
]
EACH_PLACE = pytest.mark.parametrize(("config", "names"), PLACES, ids=[str(config) for config, _ in PLACES])


def one(colour: Colour, **options: Any) -> Any:
    return letters(colour, "a").add_edge(START, "a").compile(**options)


@EACH_PLACE
def test_a_key_out_of_place(colour: Colour, config: Any, names: tuple[str, ...]) -> None:
    ways: list[Callable[[Any], Any]] = [
        lambda graph: colour.invoke(graph, {}, config),
        lambda graph: colour.stream(graph, {}, config),
        lambda graph: colour.batch(graph, [{}, {}], config),
        lambda graph: colour.batch(graph, [{}, {}], [None, config]),
        lambda graph: graph.with_config(config),
        lambda graph: graph.with_config(None, **config),
        lambda graph: colour.invoke(graph.with_config(config), {}, config),
    ]
    for way in ways:
        graph = one(colour)
        (text,) = caught(lambda way=way, graph=graph: way(graph))
        assert all(name in text for name in names), text
        with pytest.raises(PregelWarning):
            way(one(colour, strict=True))


@EACH_PLACE
def test_a_key_out_of_place_when_state_is_read(colour: Colour, memory: Any, config: Any, names: Any) -> None:
    thread = {"thread_id": "1"}
    config = {**config, "configurable": {**config.get("configurable", {}), **thread}}
    graph = one(colour, checkpointer=memory)
    colour.invoke(graph, {}, {"configurable": thread})
    ways: list[Callable[[Any], Any]] = [
        lambda graph: colour.get_state(graph, config),
        lambda graph: colour.history(graph, config),
        lambda graph: colour.update_state(graph, config, {"l": ["u"]}),
    ]
    for way in ways:
        graph = one(colour, checkpointer=memory)
        (text,) = caught(lambda way=way, graph=graph: way(graph))
        assert all(name in text for name in names), text


def test_a_key_out_of_place_in_a_constructor() -> None:
    node = NodeBuilder().subscribe_only("a").do(lambda value: value).write_to("b")
    parts: dict[str, Any] = {"nodes": {"n": node}, "channels": {"a": LastValue(int), "b": LastValue(int)}}
    (text,) = caught(
        lambda: Pregel(**parts, input_channels="a", output_channels="b", config={"recursion_limt": 5})  # type: ignore[typeddict-unknown-key]
    )
    assert "recursion_limit" in text


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ({"recursion_limit": 5}, ("recursion_limit=5", "config")),
        ({"thread_id": "1"}, ("thread_id", "configurable")),
        ({"interupt_before": ["a"]}, ("interupt_before", "interrupt_before")),
        ({"foo": 1}, ("foo=1", "stream_mode")),
    ],
    ids=str,
)
def test_an_argument_that_no_call_takes(colour: Colour, argument: Any, names: tuple[str, ...]) -> None:
    ways: list[Callable[[Any], Any]] = [
        lambda graph: colour.invoke(graph, {}, **argument),
        lambda graph: colour.stream(graph, {}, **argument),
        lambda graph: colour.batch(graph, [{}, {}], **argument),
    ]
    for way in ways:
        graph = one(colour)
        (text,) = caught(lambda way=way, graph=graph: [way(graph), way(graph)])
        assert all(name in text for name in names), text
        with pytest.raises(PregelWarning):
            way(one(colour, strict=True))


def test_arguments_that_calls_take(colour: Colour, memory: Any, thread: Any) -> None:
    graph = one(colour, strict=True, checkpointer=memory)
    taken: dict[str, Any] = {"checkpoint_during": False, "debug": False, "subgraphs": True, "version": "v1"}
    for name, value in taken.items():
        colour.invoke(graph, {}, thread, **{name: value})
        colour.batch(graph, [{}], thread, **{name: value})


SILENT_CONFIGS: list[Any] = [
    {"tags": ["t"], "metadata": {"thread_id": "s", "recursion_limit": 3, "m": 1}, "callbacks": [], "run_name": "r"},
    {"run_id": "1ef00000-0000-6000-8000-000000000000", "max_concurrency": 2, "recursion_limit": 9},
    {"configurable": {"thread_id": "1", "user": "ann", "model": "m", "model.temperature": 0.5}},
    {"configurable": {"run_id": "r", "assistant_id": "a", "graph_id": "g", "tags": ["news"], "metadata": {"a": 1}}},
    {"configurable": {}, "metadata": {}, "callbacks": None},
    {},
    None,
]


@pytest.mark.parametrize("config", SILENT_CONFIGS, ids=str)
def test_keys_in_their_place(colour: Colour, config: Any) -> None:
    graph = one(colour, strict=True)
    colour.invoke(graph, {}, config)
    colour.invoke(graph.with_config(config, run_name="n"), {}, config)
    colour.batch(graph, [{}, {}], config)


def test_names_that_a_graph_declares_are_its_own(colour: Colour) -> None:
    class Context(TypedDict, total=False):
        max_concurrency: int

    builder = StateGraph(Log, context_schema=Context).add_node("a", letter(colour, "a")).add_edge(START, "a")
    colour.invoke(builder.compile(strict=True), {}, {"configurable": {"max_concurrency": 2}})


def test_a_config_that_is_handed_on_is_not_judged_again(colour: Colour) -> None:
    inner = one(colour)

    def call(state: Any, config: RunnableConfig) -> Any:
        yield inner, {"l": []}, config
        yield inner, {"l": []}, {**config, "tags": ["t"]}

    outer = StateGraph(Log).add_node("call", colour.script(call)).add_edge(START, "call").compile()
    assert len(caught(lambda: colour.invoke(outer, {}, {"configurable": {"max_concurrency": 2}}))) == 1


# ---- joins


def joined(colour: Colour, inclusive: bool | None = None, **options: Any) -> Any:
    """START picks who of `a` and `b` runs; the join of both runs `c`, and `d` follows."""
    builder = letters(colour, "abcd").add_edge(["a", "b"], "c", inclusive=inclusive).add_edge("c", "d")
    return builder.add_conditional_edges(START, lambda state: list(state["x"]), ["a", "b"]).compile(**options)


@pytest.mark.parametrize(
    ("inclusive", "picked", "ran", "n_told"),
    [
        (None, "a", "a", 1),
        (None, "ab", "abcd", 0),
        (None, "", "", 0),
        (False, "a", "a", 0),
        (False, "ab", "abcd", 0),
        (True, "a", "acd", 0),
        (True, "b", "bcd", 0),
        (True, "ab", "abcd", 0),
        (True, "", "", 0),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_joins(colour: Colour, inclusive: bool | None, picked: str, ran: str, n_told: int, nested: bool) -> None:
    graph = joined(colour, inclusive)
    if nested:
        graph = StateGraph(Log).add_node("sub", graph).add_edge(START, "sub").compile()
    results: list[Any] = []
    texts = caught(lambda: results.append(colour.invoke(graph, {"l": [], "x": picked})))
    assert results == [{"l": list(ran), "x": picked}]
    assert len(texts) == n_told
    if n_told:
        assert all(name in texts[0] for name in ("'a'", "'b'", "'c'"))


@pytest.mark.parametrize("inclusive", [None, True, False])
def test_inclusive_is_for_lists(colour: Colour, inclusive: bool | None) -> None:
    if inclusive is None:
        letters(colour, "ab").add_edge("a", "b", inclusive=None)
    else:
        with pytest.raises(ValueError, match="inclusive"):
            letters(colour, "ab").add_edge("a", "b", inclusive=inclusive)


def test_what_arrived_waits_for_the_next_run(colour: Colour, saver: Any, thread: Any, durability: Any) -> None:
    """A thread keeps it: the run that left it says so, the one that completes it does not."""
    graph = joined(colour, checkpointer=saver)
    (text,) = caught(lambda: colour.invoke(graph, {"l": [], "x": "a"}, thread, durability=durability))
    assert "next run" in text
    other = joined(colour, checkpointer=saver)
    assert colour.invoke(other, {"x": "b"}, thread, durability=durability)["l"] == list("abcd")
    third = joined(colour, checkpointer=saver)
    assert len(caught(lambda: colour.invoke(third, {"x": "a"}, thread, durability=durability))) == 1


@pytest.mark.parametrize(("checkpointer", "goes_on"), [(None, False), (True, True)])
def test_what_arrived_in_a_nested_graph(
    colour: Colour, saver: Any, thread: Any, checkpointer: Any, goes_on: bool
) -> None:
    """A nested graph with a memory of its own goes on where it was; another one starts anew."""

    def run(picked: str) -> Any:
        inner = joined(colour, checkpointer=checkpointer)
        outer = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").compile(saver)
        return colour.invoke(outer, {"l": [], "x": picked}, thread)

    (text,) = caught(lambda: run("a"))
    assert ("next run" in text) is goes_on
    texts = caught(lambda: run("b"))
    assert len(texts) == (not goes_on)


def test_a_run_that_adds_nothing_is_not_told_of_an_older_one(colour: Colour, saver: Any, thread: Any) -> None:
    caught(lambda: colour.invoke(joined(colour, checkpointer=saver), {"l": [], "x": "a"}, thread))
    assert caught(lambda: colour.invoke(joined(colour, checkpointer=saver), {"x": ""}, thread)) == []


def test_a_join_that_waits_for_an_answer_is_not_left(colour: Colour, saver: Any, thread: Any, durability: Any) -> None:
    def build() -> Any:
        def ask(state: Log) -> Update:
            return {"l": [interrupt("?")]}

        builder = letters(colour, "ac").add_node("slow", letter(colour, "s")).add_node("ask", colour.node(ask))
        builder.add_edge(START, "a").add_edge(START, "slow").add_edge("slow", "ask")
        return builder.add_edge(["a", "ask"], "c").compile(saver)

    colour.invoke(build(), {"l": []}, thread, durability=durability)
    done = colour.invoke(build(), Command(resume="b"), thread, durability=durability)
    assert done["l"] == ["a", "s", "b", "c"]


def test_a_resumed_run_tells_of_the_join_it_leaves(colour: Colour, saver: Any, thread: Any) -> None:
    def build() -> Any:
        def ask(state: Log) -> Update:
            return {"l": [interrupt("?")]}

        builder = letters(colour, "abc").add_node("ask", colour.node(ask)).add_edge(START, "a").add_edge(START, "ask")
        builder.add_conditional_edges("ask", lambda state: state["l"][-1], {"yes": "b", "no": END})
        return builder.add_edge(["a", "b"], "c").compile(saver)

    colour.invoke(build(), {"l": []}, thread)
    (text,) = caught(lambda: colour.invoke(build(), Command(resume="no"), thread))
    assert "'b'" in text


def test_runs_that_did_not_end_leave_nothing(colour: Colour, saver: Any, thread: Any) -> None:
    def fail(state: Log) -> Update:
        raise ZeroDivisionError

    builder = letters(colour, "ac").add_node("wait", letter(colour, "w")).add_node("b", colour.node(fail))
    builder.add_edge(START, "a").add_edge(START, "wait").add_edge("wait", "b")
    graph = builder.add_edge(["a", "b"], "c").compile(saver)
    with pytest.raises(ZeroDivisionError):
        colour.invoke(graph, {"l": []}, thread)
    with pytest.raises(RecursionError):
        colour.invoke(graph, {"l": []}, {**thread, "recursion_limit": 1})
    colour.invoke(graph, {"l": []}, {"configurable": {"thread_id": "2"}}, interrupt_before=["b"])


def test_a_round_that_a_loop_did_not_need(colour: Colour) -> None:
    """`a` runs once more after the join went on: then nobody waits for `b`."""
    builder = letters(colour, "abc").add_edge(START, "a").add_edge(START, "b").add_edge(["a", "b"], "c")
    builder.add_conditional_edges("c", lambda state: "a" if len(state["l"]) < 4 else END, ["a", END])
    assert colour.invoke(builder.compile(), {"l": []})["l"] == ["a", "b", "c", "a"]


def test_an_inclusive_join_starts_over(colour: Colour) -> None:
    builder = letters(colour, "abc").add_edge(START, "a").add_edge(START, "b")
    builder.add_edge(["a", "b"], "c", inclusive=True)
    builder.add_conditional_edges("c", lambda state: "a" if len(state["l"]) < 6 else END, ["a", END])
    assert colour.invoke(builder.compile(strict=True), {"l": []})["l"] == ["a", "b", "c", "a", "c", "a", "c"]


def test_inclusive_joins_in_a_row(colour: Colour) -> None:
    """The first goes on before the second, which it leads to: so that one runs once, with all that arrived."""
    builder = letters(colour, "abcde")
    builder.add_edge(["d", "c"], "e", inclusive=True).add_edge(["a", "b"], "c", inclusive=True)
    builder.add_conditional_edges(START, lambda state: list(state["x"]), ["a", "b", "d"])
    graph = builder.compile(strict=True)
    for picked, ran in [("ad", "adce"), ("a", "ace"), ("d", "de"), ("abd", "abdce")]:
        assert colour.invoke(graph, {"l": [], "x": picked})["l"] == list(ran)


def test_inclusive_joins_side_by_side_go_on_together(colour: Colour) -> None:
    builder = letters(colour, "abcdef")
    builder.add_edge(["a", "b"], "c", inclusive=True).add_edge(["d", "e"], "f", inclusive=True)
    builder.add_edge(START, "a").add_edge(START, "d")
    builder.add_conditional_edges("a", lambda state: END, ["b", END])
    builder.add_conditional_edges("d", lambda state: END, ["e", END])
    chunks = colour.stream(builder.compile(), {"l": []}, stream_mode="debug")
    assert {c["payload"]["name"]: c["step"] for c in chunks if c["type"] == "task"} == {"a": 1, "d": 1, "c": 2, "f": 2}


def test_inclusive_joins_that_lead_to_each_other(colour: Colour) -> None:
    """The first by name goes on; what it starts completes the other one. (Nothing ends this graph but the limit.)"""
    builder = letters(colour, "abcd")
    builder.add_edge(["b", "c"], "d", inclusive=True).add_edge(["a", "d"], "c", inclusive=True)
    builder.add_edge(START, "a").add_edge(START, "b")
    chunks, error = colour.outcome(builder.compile(), {"l": []}, {"recursion_limit": 4}, stream_mode="updates")
    assert isinstance(error, RecursionError)
    assert [next(iter(chunk)) for chunk in chunks] == ["a", "b", "c", "d", "c"]


@pytest.mark.parametrize("deferred", ["c", "d", "b"])
def test_inclusive_joins_and_deferred_nodes(colour: Colour, deferred: str) -> None:
    """A deferred node waits until the join has gone on, unless the join waits for it."""
    builder = StateGraph(Log)
    for name in "abcd":
        builder.add_node(name, letter(colour, name), defer=name == deferred)
    builder.add_edge(START, "a").add_edge("a", "d")
    builder.add_conditional_edges("a", lambda state: list(state["x"]), ["b"])
    builder.add_edge(["a", "b"], "c", inclusive=True)
    graph = builder.compile()
    found = {picked: "".join(colour.invoke(graph, {"l": [], "x": picked})["l"]) for picked in ("", "b")}
    assert (
        found
        == {
            "c": {"": "adc", "b": "abdc"},
            "d": {"": "acd", "b": "abcd"},
            "b": {"": "adc", "b": "adbc"},
        }[deferred]
    )


def test_an_inclusive_join_over_a_restart(colour: Colour, saver: Any, thread: Any, durability: Any) -> None:
    """Stopped after the step that let it go, and before it ran: another process runs it, once."""
    first = joined(colour, True, checkpointer=saver, interrupt_before=["c"])
    assert colour.invoke(first, {"l": [], "x": "b"}, thread, durability=durability)["l"] == ["b"]
    second = joined(colour, True, checkpointer=saver)
    assert colour.get_state(second, thread).next == ("c",)
    assert colour.invoke(second, None, thread, durability=durability)["l"] == list("bcd")
    assert colour.invoke(second, {"x": "a"}, thread, durability=durability)["l"] == list("bcdacd")


def test_an_edge_becomes_inclusive_while_a_thread_is_open(colour: Colour, saver: Any, thread: Any) -> None:
    caught(lambda: colour.invoke(joined(colour, checkpointer=saver), {"l": [], "x": "a"}, thread))
    inclusive = joined(colour, True, checkpointer=saver)
    assert colour.invoke(inclusive, {"x": "b"}, thread)["l"] == list("abcd")
    colour.invoke(joined(colour, True, checkpointer=saver, interrupt_before=["c"]), {"x": "a"}, thread)
    plain = joined(colour, False, checkpointer=saver)
    assert colour.invoke(plain, {"x": "b"}, thread)["l"] == list("abcdabcd")


# ---- what is no mistake


def deferred_last(colour: Colour) -> Any:
    builder = letters(colour, "ab").add_node("last", letter(colour, "last"), defer=True)
    return builder.add_edge(START, "a").add_edge(START, "b").add_edge("b", END).add_edge("a", "last")


def side_step(colour: Colour) -> Any:
    """`log` needs no successor: something else goes on beside it."""
    return (
        letters(colour, "ab")
        .add_node("log", letter(colour, "log"))
        .add_edge(START, "a")
        .add_edge("a", "b")
        .add_edge("a", "log")
        .add_edge("b", END)
    )


def workers(colour: Colour) -> Any:
    def fan(state: Log) -> list[Send]:
        return [Send("b", {}), Send("c", {})]

    builder = letters(colour, "abc").add_edge(START, "a")
    return builder.add_conditional_edges("a", fan, ["b", "c"]).add_edge("b", END)


def send_past_the_map(colour: Colour) -> Any:
    builder = letters(colour, "abc").add_edge(START, "a")
    return builder.add_conditional_edges("a", lambda state: [Send("b", {}), "right"], {"right": "c"})


def undeclared_path(colour: Colour) -> Any:
    return letters(colour, "abc").add_edge(START, "a").add_conditional_edges("a", lambda state: ["b", "c"])


def undeclared_command(colour: Colour) -> Any:
    return returning(colour, Command(goto=["b", "c"]))


def bare_command(colour: Colour) -> Any:
    def go(state: Log) -> Command:
        return Command(goto=["b", "c"])

    return letters(colour, "bc").add_node("a", colour.node(go)).add_edge(START, "a")


def declared_command(colour: Colour) -> Any:
    def go(state: Log) -> Command[Literal["b", "c", "__end__"]]:
        return Command(goto="b")

    return letters(colour, "bc").add_node("a", colour.node(go)).add_edge(START, "a")


def destinations(colour: Colour) -> Any:
    go = colour.node(lambda state: Command(goto="b"))
    return letters(colour, "b").add_node("a", go, destinations=("b",)).add_edge(START, "a")


def to_the_parent(colour: Colour) -> Any:
    leave = colour.node(lambda state: Command(graph=Command.PARENT, goto="b"))
    inner = StateGraph(Log).add_node("i", leave).add_edge(START, "i").compile()
    return letters(colour, "b").add_node("a", inner).add_edge(START, "a")


def to_the_parent_by_a_function(colour: Colour) -> Any:
    leave = colour.node(lambda state: Command(graph=Command.PARENT, goto="b"))
    inner = StateGraph(Log).add_node("i", leave).add_edge(START, "i").compile()

    def call(state: Log) -> Any:
        yield inner, {"l": []}

    call.__annotations__["return"] = Log
    return letters(colour, "b").add_node("a", colour.script(call)).add_edge(START, "a")


def handler_goes(colour: Colour) -> Any:
    def fail(state: Log) -> Update:
        raise ZeroDivisionError

    def handle(state: Log) -> Command[Literal["b"]]:
        return Command(goto="b")

    builder = letters(colour, "b").add_node("a", colour.node(fail), error_handler=colour.node(handle))
    return builder.add_edge(START, "a")


def default_handler_goes(colour: Colour) -> Any:
    def fail(state: Log) -> Update:
        raise ZeroDivisionError

    builder = letters(colour, "b").add_node("a", colour.node(fail)).add_edge(START, "a")
    return builder.set_node_defaults(error_handler=colour.node(lambda state: Command(goto="b")))


def a_runnable(colour: Colour) -> Any:
    class Runs:
        def invoke(self, state: Any, config: Any = None) -> Any:
            return Command(goto="b")

    return letters(colour, "b").add_node("a", Runs()).add_edge(START, "a")


def goto_what_the_edge_starts(colour: Colour) -> Any:
    return returning(colour, Command(goto="b")).add_edge("a", "b")


def goto_that_names_all(colour: Colour) -> Any:
    return returning(colour, Command(goto=["b", "c"])).add_edge("a", "b")


def goto_end_beside_an_edge(colour: Colour) -> Any:
    return returning(colour, Command(goto=END)).add_edge("a", "b")


def sends_beside_an_edge(colour: Colour) -> Any:
    return returning(colour, Command(goto=[Send("b", {})])).add_edge("a", "c")


def goto_beside_a_deferred_node(colour: Colour) -> Any:
    builder = returning(colour, Command(goto="b")).add_node("last", letter(colour, "last"), defer=True)
    return builder.add_edge("a", "last")


def goto_beside_a_join(colour: Colour) -> Any:
    return returning(colour, Command(goto="b")).add_edge(["a", "b"], "c")


def no_edge_to_end(colour: Colour) -> Any:
    return letters(colour, "ab").add_edge(START, "a").add_edge("a", "b")


def join_to_end(colour: Colour) -> Any:
    return letters(colour, "ab").add_edge(START, "a").add_edge(START, "b").add_edge(["a", "b"], END)


SILENT = [
    deferred_last,
    side_step,
    workers,
    send_past_the_map,
    undeclared_path,
    undeclared_command,
    bare_command,
    declared_command,
    destinations,
    to_the_parent,
    to_the_parent_by_a_function,
    handler_goes,
    default_handler_goes,
    a_runnable,
    goto_what_the_edge_starts,
    goto_that_names_all,
    goto_end_beside_an_edge,
    sends_beside_an_edge,
    goto_beside_a_deferred_node,
    goto_beside_a_join,
    no_edge_to_end,
    join_to_end,
]


@pytest.mark.parametrize("build", SILENT, ids=lambda build: build.__name__)
def test_no_mistake(colour: Colour, build: Callable[[Colour], Any]) -> None:
    graph = build(colour).compile(strict=True)
    assert colour.invoke(graph, {"l": []})["l"]


@pytest.mark.parametrize("declared", [False, True])
def test_nodes_that_are_started_from_outside(colour: Colour, saver: Any, thread: Any, declared: bool) -> None:
    """By `update_state` or a Command as input: no declaration tells, unless a path from START does."""

    def begin(state: Log) -> str:
        return "a"

    def build(**options: Any) -> Any:
        builder = letters(colour, "ab").add_node("human", letter(colour, "h")).add_edge("human", "b")
        if declared:
            builder.add_conditional_edges(START, begin, ["a", "human"])
        else:
            builder.add_edge(START, "a")
        return builder.compile(saver, **options)

    graphs: list[Any] = []
    texts = caught(lambda: graphs.append(build()))
    assert ["'human'" in text for text in texts] == [True] * (not declared)
    if declared:
        build(strict=True)
    else:
        with pytest.raises(PregelWarning):
            build(strict=True)
    graph = graphs[0]
    colour.invoke(graph, {"l": []}, thread)
    config = colour.update_state(graph, thread, {"l": ["edit"]}, as_node="human")
    assert colour.invoke(graph, None, config)["l"] == ["a", "edit", "b"]
    assert colour.invoke(graph, Command(goto="human"), thread)["l"] == ["a", "edit", "b", "h", "b"]


def test_an_edit_is_the_callers_own_affair(colour: Colour, memory: Any, thread: Any) -> None:
    graph = returning(colour, None).add_edge("a", "c").compile(memory, strict=True)
    colour.update_state(graph, thread, {"l": ["u"]}, as_node="a")
    colour.update_state(graph, thread, Command(update={"l": ["u"]}, goto="b"), as_node="a")


# ---- two writers


@pytest.mark.parametrize("nested", [False, True])
def test_two_writers_of_one_key(colour: Colour, nested: bool) -> None:
    builder = StateGraph(Log).add_node("start", colour.node(lambda state: None)).add_edge(START, "start")
    for name, value in (("left", 1), ("right", "two"), ("other", None)):
        builder.add_node(name, colour.node(lambda state, v=value: {} if v is None else {"x": v})).add_edge(
            "start", name
        )
    graph = builder.compile()
    if nested:
        graph = StateGraph(Log).add_node("sub", graph).add_edge(START, "sub").compile()
    with pytest.raises(InvalidUpdateError) as error:
        colour.invoke(graph, {})
    text = str(error.value)
    for part in ("'x'", "step 2", "'left'", "'right'", "int", "str", "Annotated["):
        assert part in text, text
    assert "'other'" not in text
    assert (error.value.key, error.value.count) == ("x", 2)


def test_savers_share_what_was_told(colour: Colour) -> None:
    """Threads of one graph are one graph: whoever runs it second is not told again."""
    graph = half_joined(colour).compile(InMemorySaver())
    for n, n_told in ((1, 1), (2, 0)):
        config = {"configurable": {"thread_id": str(n)}}
        assert len(caught(lambda config=config: colour.invoke(graph, {"l": []}, config))) == n_told
