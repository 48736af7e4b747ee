"""Static breakpoints, row by row (engine.md 5.5), and those that a thread keeps (promise 42): both savers, all durability
modes, and a graph that is built anew, on a file that is opened again, for every call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from pregel.graph import START, StateGraph
from pregel.types import Command, Send, interrupt
from tests.support.scenarios import Colour, Log, diagnosed, refused


class Chain:
    """START -> a -> b -> c -> d on one thread; `b` asks if it is told to."""

    def __init__(self, colour: Colour, file: Path | None, durability: str) -> None:
        self.colour = colour
        self.file = file
        self.memory = InMemorySaver()
        self.durability = durability
        self.config: dict[str, Any] = {"configurable": {"thread_id": "1"}}
        self.names = "abcd"
        self.asks = ""
        self.options: dict[str, Any] = {}
        self.nested = False

    def graph(self, saver: Any) -> Any:
        builder = StateGraph(Log)
        before = START
        for name in self.names:
            node = self.colour.letter(name)
            if name in self.asks:
                node = self.colour.node(lambda state, name=name: {"l": [interrupt(name)]})
            builder.add_node(name, node).add_edge(before, name)
            before = name
        if not self.nested:
            return builder.compile(checkpointer=saver, **self.options)
        outer = StateGraph(Log).add_node("sub", builder.compile(**self.options)).add_edge(START, "sub")
        outer.add_node("beside", self.colour.letter("beside")).add_edge(START, "beside")
        return outer.compile(checkpointer=saver)

    def on(self, do: Any) -> Any:
        if self.file is None:
            return do(self.graph(self.memory))
        with SqliteSaver.from_conn_string(str(self.file)) as saver:
            return do(self.graph(saver))

    def invoke(self, given: Any = None, **options: Any) -> str:
        """The letters so far."""
        config = options.pop("config", self.config)
        options = {"durability": self.durability, **options}
        result = self.on(lambda graph: self.colour.invoke(graph, given, config, **options))
        return "".join(map(str, result["l"])) + "?" * ("__interrupt__" in result)

    def start(self, **options: Any) -> str:
        return self.invoke({"l": []}, **options)

    def state(self) -> Any:
        return self.on(lambda graph: self.colour.get_state(graph, self.config))


@pytest.fixture(params=["memory", "sqlite"])
def chain(request: pytest.FixtureRequest, colour: Colour, durability: str, tmp_path: Path) -> Chain:
    return Chain(colour, None if request.param == "memory" else tmp_path / "threads.sqlite", durability)


# ---------------------------------------------------------------------------------------------- compiled, and per call


@pytest.mark.parametrize("resume", [None, Command(resume=True)], ids=["None", "resume"])
def test_before_and_after(chain: Chain, resume: Any) -> None:
    chain.options = {"interrupt_before": ["b"], "interrupt_after": ["b", "c"]}
    assert chain.start() == "a"
    state = chain.state()
    assert (state.next, state.interrupts, state.tasks[0].interrupts) == (("b",), (), ())
    assert [chain.invoke(resume) for _ in range(3)] == ["ab", "abc", "abcd"]
    assert chain.state().next == ()


def test_star_stops_at_every_node(chain: Chain) -> None:
    chain.options = {"interrupt_before": "*"}
    assert chain.start() == ""
    assert [chain.invoke() for _ in range(4)] == ["a", "ab", "abc", "abcd"]
    chain.options = {"interrupt_after": "*"}
    assert chain.invoke({"l": []}) == "abcda"
    assert [chain.invoke() for _ in range(3)] == ["abcdab", "abcdabc", "abcdabcd"]
    assert chain.invoke() == "abcdabcd"


def test_of_one_call(chain: Chain) -> None:
    """A call's own take the place of the compiled ones; the next call has the compiled ones again."""
    chain.options = {"interrupt_before": ["b"]}
    assert chain.start(interrupt_before=["c"]) == "ab"
    assert chain.invoke(interrupt_after=["c"]) == "abc"
    assert chain.invoke() == "abcd"
    assert chain.invoke({"l": []}) == "abcda"


def test_a_question_behind_a_breakpoint(chain: Chain) -> None:
    chain.options, chain.asks = {"interrupt_before": ["b"], "interrupt_after": ["b"]}, "b"
    assert [chain.start(), chain.invoke(), chain.invoke()] == ["a", "a?", "a?"]
    assert chain.invoke(Command(resume="B")) == "aB"
    assert chain.invoke() == "aBcd"


def test_in_a_nested_graph_it_stops_the_whole_run(chain: Chain) -> None:
    """Nothing is an interrupt of the parent's task; its sibling's result is kept."""
    chain.options, chain.nested = {"interrupt_before": ["b"], "interrupt_after": ["c"]}, True
    assert chain.start() == "beside"
    state = chain.state()
    assert (state.next, state.interrupts, state.tasks[1].interrupts) == (("sub",), (), ())
    assert [chain.invoke(), chain.invoke(), chain.invoke()] == ["beside", "besideabcd", "besideabcd"]


def test_those_of_a_call_are_of_the_root_graph(chain: Chain) -> None:
    chain.nested = True
    assert chain.start(interrupt_before=["b"]) == "besideabcd"
    assert chain.invoke({"l": []}, interrupt_before=["sub"]) == "besideabcd"


def test_one_inside_and_one_after_the_node_that_holds_it(
    colour: Colour, saver: Any, durability: str, thread: Any
) -> None:
    """amendments A32: the parent's own counts when its step is closed, in a later call."""
    inner = StateGraph(Log).add_node("a", colour.letter("a")).add_node("b", colour.letter("b"))
    inner.add_edge(START, "a").add_edge("a", "b")
    outer = StateGraph(Log).add_node("sub", inner.compile(interrupt_before=["b"])).add_node("c", colour.letter("c"))
    graph = outer.add_edge(START, "sub").add_edge("sub", "c").compile(checkpointer=saver, interrupt_after=["sub"])
    options = {"durability": durability}
    seen = [colour.invoke(graph, given, thread, **options)["l"] for given in ({"l": []}, None, None)]
    assert seen == [[], ["a", "b"], ["a", "b", "c"]]


def test_at_the_handler_of_a_failure(colour: Colour, saver: Any, thread: Any) -> None:
    """amendments 5.5: its name is legal, but it runs inside the step that failed, so nothing stops there."""

    def fail(state: Log) -> dict[str, Any]:
        raise ValueError("boom")

    def build(**options: Any) -> Any:
        builder = StateGraph(Log).add_node("n", colour.node(fail), error_handler=colour.letter("handled"))
        return builder.add_edge(START, "n").compile(checkpointer=saver, **options)

    (handler,) = set(build().nodes) - {"n", START}
    graph = build(interrupt_before=[handler], interrupt_after=[handler])
    assert colour.invoke(graph, {"l": []}, thread) == {"l": ["handled"]}


def test_without_a_saver(colour: Colour, chain: Chain) -> None:
    chain.options = {"interrupt_before": ["b"]}
    assert colour.invoke(chain.graph(None), {"l": []}) == {"l": ["a"]}


def test_an_edit_while_it_stands(chain: Chain) -> None:
    chain.options = {"interrupt_before": ["b", "c"]}
    chain.start()
    chain.on(lambda graph: chain.colour.update_state(graph, chain.config, {"l": ["!"]}))
    assert [chain.invoke(), chain.invoke()] == ["a!b", "a!bcd"]
    chain.invoke({"l": []})
    chain.on(lambda graph: chain.colour.update_state(graph, chain.config, {"l": ["B"]}, "b"))
    assert chain.state().next == ("c",)


def test_in_front_of_sends(colour: Colour, saver: Any, durability: str, thread: Any) -> None:
    builder = StateGraph(Log).add_node("w", colour.node(lambda arg: {"l": [arg]}))
    builder.add_conditional_edges(START, lambda state: [Send("w", "x"), Send("w", "y")])
    graph = builder.compile(checkpointer=saver, interrupt_before=["w"], interrupt_after=["w"])
    options = {"durability": durability}
    assert colour.invoke(graph, {"l": []}, thread, **options) == {"l": []}
    assert colour.get_state(graph, thread).next == ("w", "w")
    assert colour.invoke(graph, None, thread, **options) == {"l": ["x", "y"]}


# ----------------------------------------------------------------------------------------------- kept with the thread


def test_the_thread_keeps_them(chain: Chain) -> None:
    """On resume, on new input, and in a graph that is compiled with others."""
    assert chain.start(interrupt_before=["b"], interrupt_after=["c"], keep_breakpoints=True) == "a"
    assert [chain.invoke(), chain.invoke()] == ["abc", "abcd"]
    chain.options = {"interrupt_before": ["d"]}
    assert chain.invoke({"l": []}) == "abcda"
    assert [chain.invoke(), chain.invoke()] == ["abcdabc", "abcdabcd"]


def test_without_being_told_it_keeps_nothing(chain: Chain) -> None:
    """As ever."""
    assert chain.start(interrupt_before=["b"]) == "a"
    assert chain.invoke() == "abcd"


def test_others_take_their_place(chain: Chain) -> None:
    chain.start(interrupt_before=["b"], keep_breakpoints=True)
    assert chain.invoke(interrupt_before=["d"], keep_breakpoints=True) == "abc"
    assert chain.invoke() == "abcd"
    assert [chain.invoke({"l": []}), chain.invoke()] == ["abcdabc", "abcdabcd"]


def test_only_what_is_given_changes(chain: Chain) -> None:
    chain.start(interrupt_before=["b"], keep_breakpoints=True)
    assert chain.invoke(interrupt_after=["c"], keep_breakpoints=True) == "abc"
    chain.invoke()
    assert [chain.invoke({"l": []}), chain.invoke(), chain.invoke()] == ["abcda", "abcdabc", "abcdabcd"]
    assert chain.invoke({"l": []}, interrupt_before=[], keep_breakpoints=True) == "abcdabcdabc"


def test_one_call_may_use_others(chain: Chain) -> None:
    chain.start(interrupt_before=["b"], keep_breakpoints=True)
    assert chain.invoke(interrupt_before=["c"]) == "ab"
    chain.invoke()
    assert chain.invoke({"l": []}) == "abcda"


def test_they_are_forgotten(chain: Chain) -> None:
    chain.options = {"interrupt_before": ["c"]}
    chain.start(interrupt_before=["b"], keep_breakpoints=True)
    assert chain.invoke({"l": []}, keep_breakpoints=False) == "aab"
    assert chain.invoke() == "aabcd"
    assert chain.invoke({"l": []}) == "aabcdab"


def test_star_is_kept(chain: Chain) -> None:
    assert chain.start(interrupt_after="*", keep_breakpoints=True) == "a"
    assert [chain.invoke(), chain.invoke()] == ["ab", "abc"]


def test_they_are_kept_by_a_run_that_stores_no_checkpoint(chain: Chain) -> None:
    """It only asks again."""
    chain.asks = "b"
    assert chain.start() == "a?"
    assert chain.invoke(interrupt_before=["d"], keep_breakpoints=True) == "a?"
    state = chain.state()
    assert (state.next, [q.value for q in state.interrupts]) == (("b",), ["b"])
    assert chain.invoke(Command(resume="B")) == "aBc"
    assert chain.invoke() == "aBcd"
    chain.asks = ""
    assert chain.invoke({"l": []}) == "aBcdabc"


def test_an_edit_keeps_what_such_a_run_was_told(chain: Chain) -> None:
    chain.asks = "b"
    chain.start()
    chain.invoke(interrupt_before=["d"], keep_breakpoints=True)
    chain.on(lambda graph: chain.colour.update_state(graph, chain.config, {"l": ["B"]}, "b"))
    assert chain.invoke() == "aBc"


def test_a_fork_keeps_what_was_kept_there(chain: Chain) -> None:
    chain.start(interrupt_before=["c"], keep_breakpoints=True)
    at = chain.state().config
    chain.invoke(keep_breakpoints=False)
    assert chain.invoke({"l": []}) == "abcdabcd"
    fork = chain.on(lambda graph: chain.colour.update_state(graph, at, {"l": ["!"]}))
    assert chain.invoke(config=fork) == "ab!cd"
    assert chain.invoke({"l": []}) == "ab!cdab"


def test_threads_keep_their_own(chain: Chain) -> None:
    chain.start(interrupt_before=["b"], keep_breakpoints=True)
    assert chain.start(config={"configurable": {"thread_id": "2"}}) == "abcd"


def test_a_node_that_is_gone(chain: Chain) -> None:
    """After a redeploy the thread says what it does not stop at any more."""
    chain.start(interrupt_before=["b", "d"], keep_breakpoints=True)
    chain.names = "abc"
    with diagnosed("'d'", "'1'"):
        assert chain.invoke() == "abc"


def test_what_cannot_be_kept(colour: Colour, chain: Chain) -> None:
    with refused(ValueError, "'x'", "'a'"):
        chain.start(interrupt_before=["x"], keep_breakpoints=True)
    chain.file = None
    graph = chain.graph(None)
    for keep in (True, False):
        with refused(ValueError, f"keep_breakpoints={keep}", "checkpointer"):
            colour.invoke(graph, {"l": []}, interrupt_before=["b"], keep_breakpoints=keep)

    def call(state: Log) -> Any:
        options = {"interrupt_before": ["b"], "keep_breakpoints": True}
        return graph.invoke(state, **options)

    async def acall(state: Log) -> Any:
        return await graph.ainvoke(state, interrupt_before=["b"], keep_breakpoints=True)

    outer = StateGraph(Log).add_node("n", acall if colour.is_async else call).add_edge(START, "n")
    with refused(ValueError, "keep_breakpoints=True", "inside a node"):
        colour.invoke(outer.compile(checkpointer=chain.memory), {"l": []}, chain.config)


def test_nothing_of_it_is_seen(colour: Colour, saver: Any, thread: Any) -> None:
    """Neither in values and metadata, nor as a question."""
    graph = StateGraph(Log).add_node("a", colour.letter("a")).add_edge(START, "a").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread, interrupt_before=["a"], keep_breakpoints=True)
    state = colour.get_state(graph, thread)
    assert (state.values, set(state.metadata), state.interrupts) == ({"l": []}, {"source", "step", "parents"}, ())


def test_streams_keep_them_too(colour: Colour, saver: Any, thread: Any) -> None:
    builder = StateGraph(Log).add_node("a", colour.letter("a")).add_node("b", colour.letter("b"))
    graph = builder.add_edge(START, "a").add_edge("a", "b").compile(checkpointer=saver)
    options = {"interrupt_before": ["b"], "keep_breakpoints": True, "stream_mode": "updates"}
    assert colour.stream(graph, {"l": []}, thread, **options) == [{"a": {"l": ["a"]}}, {"__interrupt__": ()}]
    assert colour.stream(graph, {"l": []}, thread, stream_mode="updates")[-1] == {"__interrupt__": ()}
