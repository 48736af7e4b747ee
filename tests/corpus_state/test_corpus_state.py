"""Conversations with programs that keep their state, told step by step, each in both colours and on both savers."""

import asyncio
import dataclasses
import enum
import itertools
import operator
import subprocess
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from checkpoint.base import CheckpointConflictError, empty_checkpoint
from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import AsyncSqliteSaver, SqliteSaver
from pregel.errors import EmptyInputError, GraphRecursionError, InvalidUpdateError
from pregel.graph import END, START, StateGraph, add_messages
from pregel.types import Command, Send, StateUpdate, interrupt
from tests.corpus_state import programs
from tests.corpus_state.programs import Counting, Foreign, Point, Talk, asks, chain, fan, says, thread
from tests.support.scenarios import Colour, checkpoint_id, namespaces, path_of, steps

ROOT = Path(__file__).parents[2]


def questions(result: dict[str, Any]) -> list[Any]:
    return sorted(question.value for question in result.get("__interrupt__", ()))


def ids(state: Any) -> dict[Any, str]:
    return {question.value: question.id for question in state.interrupts}


# ---------------------------------------------------------------------------------------------------- conversations


def test_a_thread_over_two_turns(colour: Colour, saver: Any) -> None:
    graph = programs.counter(colour, saver, [])
    assert colour.invoke(graph, {"n": 0, "lines": ["hi"]}, thread())["n"] == 4
    assert colour.invoke(graph, {"lines": ["more"]}, thread()) == {"n": 8, "lines": ["hi", *"abcd", "more", *"abcd"]}
    history = colour.history(graph, thread())
    loops = [("loop", step) for step in (4, 3, 2, 1, 0)]
    assert steps(history) == [*[("loop", step) for step in (10, 9, 8, 7, 6)], ("input", 5), *loops, ("input", -1)]
    assert [entry.next for entry in history[:7]] == [(), ("d",), ("c",), ("b",), ("a",), ("__start__",), ()]
    for entry, older in itertools.pairwise(history):
        assert entry.parent_config == older.config
    assert history[-1].parent_config is None
    assert history[4].tasks[0].result == {"n": 5, "lines": ["a"]}
    assert colour.get_state(graph, thread("other")).values == {}


def test_two_questions_in_one_node(colour: Colour, saver: Any) -> None:
    calls: list[str] = []
    graph = chain(asks(colour, "name", "age", calls=calls), says(colour, "done", calls), checkpointer=saver)
    assert questions(colour.invoke(graph, {"lines": []}, thread())) == ["name"]
    assert questions(colour.invoke(graph, Command(resume="ann"), thread())) == ["age"]
    state = colour.get_state(graph, thread())
    assert (state.next, state.values, state.tasks[0].result) == (("name",), {"lines": []}, None)
    assert colour.invoke(graph, Command(resume=7), thread()) == {"lines": ["name=ann", "age=7", "done"]}
    assert calls == ["name", "name", "name", "done"]


def test_asking_until_the_answer_is_valid(colour: Colour, saver: Any) -> None:
    def age(state: Talk) -> Talk:
        question = "age?"
        while True:
            answer = interrupt(question)
            if isinstance(answer, int) and answer > 0:
                return {"n": answer}
            question = f"{answer!r} is no age"

    graph = chain(("age", colour.node(age)), checkpointer=saver)
    asked = [questions(colour.invoke(graph, {"lines": []}, thread()))]
    for answer in ("x", -1, "", 0, False, {}, [], {"a": 1}):
        result = colour.invoke(graph, Command(resume=answer), thread())
        asked.append(questions(result))
    # An empty map answers nothing: it is an explicit "try again".
    said = ["age?", "'x' is no age", "-1 is no age", "'' is no age", "0 is no age", "False is no age"]
    assert asked == [*([text] for text in said), [said[-1]], ["[] is no age"], ["{'a': 1} is no age"]]
    assert colour.invoke(graph, Command(resume=33), thread()) == {"lines": [], "n": 33}


@pytest.mark.parametrize(
    ("decisions", "lines", "stored"),
    [
        (["accept"], ["plan", "execute 1"], 5),
        (["edit"], ["plan", "edited", "execute 99"], 5),
        (["reject"], ["plan", "rejected"], 4),
        (["retry", "retry", "accept"], ["plan", "again", "plan", "again", "plan", "execute 3"], 9),
    ],
)
def test_approval(colour: Colour, saver: Any, decisions: list[str], lines: list[str], stored: int) -> None:
    graph = programs.approval(colour, saver)
    result = colour.invoke(graph, {"n": 0, "lines": []}, thread())
    for number, decision in enumerate(decisions, 1):
        assert [q.value for q in result["__interrupt__"]] == [{"question": "approve?", "plan": number}]
        result = colour.invoke(graph, Command(resume={"type": decision, "n": 99}), thread())
    assert result["lines"] == lines
    assert colour.get_state(graph, thread()).next == ()
    assert len(colour.history(graph, thread())) == stored


def test_questions_side_by_side(colour: Colour, saver: Any) -> None:
    graph = fan({name: asks(colour, name) for name in "abc"}, says(colour, "after"), checkpointer=saver)
    result = colour.invoke(graph, {"lines": []}, thread())
    assert questions(result) == ["a", "b", "c"]
    with pytest.raises(RuntimeError):
        colour.invoke(graph, Command(resume="which?"), thread())
    known = ids(colour.get_state(graph, thread()))
    result = colour.invoke(graph, Command(resume={known["b"]: "B"}), thread())
    assert (result["lines"], questions(result)) == (["b=B"], ["a", "c"])
    state = colour.get_state(graph, thread())
    assert (state.next, state.values) == (("a", "c"), {"lines": ["b=B"]})
    answers = {known["c"]: "C", known["a"]: "A"}
    assert colour.invoke(graph, Command(resume=answers), thread()) == {"lines": ["a=A", "b=B", "c=C", "after"]}


def test_workers_that_ask(colour: Colour, saver: Any) -> None:
    def work(state: Any) -> Any:
        i = state["i"]
        return {"lines": [f"{i}:{interrupt(i)}" if i % 2 else f"{i}"]}

    graph = programs.fan_out(colour, saver, work)
    result = colour.invoke(graph, {"n": 6, "lines": []}, thread())
    assert (result["lines"], questions(result)) == (["plan", "0", "2", "4"], [1, 3, 5])
    for i, left in ((3, [1, 5]), (5, [1]), (1, [])):
        known = ids(colour.get_state(graph, thread()))
        result = colour.invoke(graph, Command(resume={known[i]: "yes"}), thread())
        assert questions(result) == left
    assert result["lines"] == ["plan", "0", "1:yes", "2", "3:yes", "4", "5:yes", "join"]


def test_a_tool_call_is_reviewed(colour: Colour, saver: Any) -> None:
    class Chat(TypedDict):
        messages: Annotated[list[Any], add_messages]

    def agent(state: Chat) -> Any:
        last = state["messages"][-1]
        if last.type == "tool":
            return {"messages": [{"role": "assistant", "content": f"done: {last.content}", "id": "a2"}]}
        call = {"id": "t1", "name": "search", "args": {"q": "x"}, "type": "tool_call"}
        return {"messages": [{"role": "assistant", "content": "", "id": "a1", "tool_calls": [call]}]}

    def review(state: Chat) -> Any:
        call = state["messages"][-1].tool_calls[0]
        decision = interrupt({"tool": call["name"], "args": call["args"]})
        if decision == "ok":
            return Command(goto="tools")
        if decision == "no":
            refusal = {"role": "tool", "content": "refused", "tool_call_id": call["id"], "id": "m"}
            return Command(goto="agent", update={"messages": [refusal]})
        changed = {"role": "assistant", "content": "", "id": "a1", "tool_calls": [{**call, "args": decision}]}
        return Command(goto="tools", update={"messages": [changed]})

    def tools(state: Chat) -> Any:
        call = state["messages"][-1].tool_calls[0]
        content = f"found {call['args']['q']}"
        return {"messages": [{"role": "tool", "content": content, "tool_call_id": call["id"], "id": "m"}]}

    def route(state: Chat) -> str:
        return "review" if state["messages"][-1].tool_calls else END

    builder = StateGraph(Chat).add_node("agent", colour.node(agent)).add_node("tools", colour.node(tools))
    builder.add_node("review", colour.node(review), destinations=("tools", "agent"))
    builder.add_conditional_edges("agent", route, ["review", END]).add_edge(START, "agent").add_edge("tools", "agent")
    graph = builder.compile(checkpointer=saver)
    for decision, said in (("ok", "found x"), ({"q": "y"}, "found y"), ("no", "refused")):
        config = thread(said)
        result = colour.invoke(graph, {"messages": [("user", "hi")]}, config)
        assert questions(result) == [{"tool": "search", "args": {"q": "x"}}]
        messages = colour.invoke(graph, Command(resume=decision), config)["messages"]
        assert [m.type for m in messages] == ["human", "ai", "tool", "ai"]
        assert [m.content for m in messages[1:]] == ["", said, f"done: {said}"]


def test_a_new_input_drops_the_open_question(colour: Colour, saver: Any) -> None:
    graph = chain(says(colour, "a"), asks(colour, "q"), says(colour, "z"), checkpointer=saver)
    colour.invoke(graph, {"lines": ["one"]}, thread())
    assert questions(colour.invoke(graph, {"lines": ["two"]}, thread())) == ["q"]
    result = colour.invoke(graph, Command(resume="A"), thread())
    assert result["lines"] == ["one", "a", "two", "a", "q=A", "z"]


def test_what_there_is_to_do(colour: Colour, saver: Any) -> None:
    graph = chain(says(colour, "a"), says(colour, "b"), checkpointer=saver)
    for nothing in (None, Command()):
        with pytest.raises(EmptyInputError):
            colour.invoke(graph, nothing, thread())
    assert colour.invoke(graph, {"lines": []}, thread()) == {"lines": ["a", "b"]}
    assert colour.invoke(graph, None, thread()) == {"lines": ["a", "b"]}
    assert colour.invoke(graph, Command(update={"lines": ["u"]}), thread()) == {"lines": ["a", "b", "u"]}
    assert colour.invoke(graph, Command(goto="b"), thread()) == {"lines": ["a", "b", "u", "b"]}
    assert colour.invoke(graph, Command(goto=[Send("a", {}), "b"]), thread())["lines"][4:] == ["b", "a", "b"]


# ---------------------------------------------------------------------------------------- breakpoints and hand edits


def test_edit_at_a_breakpoint_and_go_on(colour: Colour, saver: Any) -> None:
    graph = chain(*(says(colour, name) for name in "abc"), checkpointer=saver, interrupt_before=["b"])
    colour.invoke(graph, {"n": 1, "lines": []}, thread())
    colour.update_state(graph, thread(), {"n": 5, "lines": ["by hand"]})
    state = colour.get_state(graph, thread())
    assert (state.next, state.metadata["source"], state.metadata["step"]) == (("b",), "update", 2)
    assert colour.invoke(graph, None, thread()) == {"n": 5, "lines": ["a", "by hand", "b", "c"]}
    colour.invoke(graph, {"lines": ["|"]}, thread())
    colour.update_state(graph, thread(), {"lines": ["instead of b"]}, as_node="b")
    assert colour.get_state(graph, thread()).next == ("c",)
    assert colour.invoke(graph, None, thread())["lines"][5:] == ["a", "instead of b", "c"]


def test_stops_of_every_kind(colour: Colour, saver: Any) -> None:
    nodes = says(colour, "a"), asks(colour, "q"), says(colour, "b"), says(colour, "c")
    graph = chain(*nodes, checkpointer=saver, interrupt_before=["q", "c"], interrupt_after=["a", "q"])
    colour.invoke(graph, {"lines": []}, thread())
    stops = []
    while (state := colour.get_state(graph, thread())).next:
        stops.append((state.next[0], [q.value for q in state.interrupts]))
        result = colour.invoke(graph, Command(resume="A") if state.interrupts else None, thread())
    assert stops == [("q", []), ("q", ["q"]), ("b", []), ("c", [])]
    assert result == {"lines": ["a", "q=A", "b", "c"]}


def test_history_written_by_hand(colour: Colour, saver: Any) -> None:
    """A conversation that happened elsewhere is written into a thread, and looks as if it had been run."""
    graph = chain(says(colour, "a"), says(colour, "b"), checkpointer=saver)
    supersteps = []
    for turn in ("one", "two"):
        supersteps += [
            [StateUpdate({"lines": [turn]}, "__input__")],
            [StateUpdate({"lines": [turn]}, "__start__")],
            [StateUpdate({"lines": ["a"]}, "a")],
            [StateUpdate({"lines": ["b"]}, "b")],
        ]
    colour.bulk_update_state(graph, thread(), supersteps)
    for turn in ("one", "two"):
        colour.invoke(graph, {"lines": [turn]}, thread("real"))
    written, real = colour.history(graph, thread()), colour.history(graph, thread("real"))
    assert [(e.values, e.next, e.metadata["step"]) for e in written] == [
        (e.values, e.next, e.metadata["step"]) for e in real
    ]
    assert [[t.result for t in e.tasks] for e in written] == [[t.result for t in e.tasks] for e in real]


def test_hand_edits_of_a_router(colour: Colour, saver: Any) -> None:
    builder = StateGraph(Talk)
    for name in ("a", "high", "low"):
        builder.add_node(name, says(colour, name))
    builder.add_edge(START, "a").add_conditional_edges("a", lambda state: "high" if state["n"] > 5 else "low")
    graph = builder.compile(checkpointer=saver)
    colour.invoke(graph, {"n": 1, "lines": []}, thread())
    for n, follows in ((10, "high"), (2, "low")):
        colour.update_state(graph, thread(), {"n": n}, as_node="a")
        assert colour.get_state(graph, thread()).next == (follows,)
        assert colour.invoke(graph, None, thread())["lines"][-1] == follows
    with pytest.raises(InvalidUpdateError):
        colour.update_state(graph, thread(), {"n": 1}, as_node="nobody")
    colour.update_state(graph, thread(), {"n": 9}, as_node="a")
    colour.update_state(graph, thread(), None, as_node=END)
    assert colour.get_state(graph, thread()).next == ()


# ------------------------------------------------------------------------------------------------ time travel, forks


def test_replay_from_every_point(colour: Colour, saver: Any) -> None:
    calls: list[str] = []
    graph = programs.counter(colour, saver, calls)
    colour.invoke(graph, {"n": 0, "lines": []}, thread())
    for entry in colour.history(graph, thread()):
        del calls[:]
        assert colour.invoke(graph, None, entry.config) == {"n": 4, "lines": list("abcd")}
        rest = {(): "", ("__start__",): "abcd"}.get(entry.next, "abcd"["abcd".find((entry.next or "a")[0]) :])
        assert calls == list(rest)


def test_branches_do_not_know_each_other(colour: Colour, saver: Any) -> None:
    def times_ten(state: Talk) -> Talk:
        return {"n": state["n"] * 10, "lines": ["b"]}

    graph = chain(says(colour, "a"), ("b", colour.node(times_ten)), checkpointer=saver)
    colour.invoke(graph, {"n": 1, "lines": []}, thread())
    before_b = next(entry for entry in colour.history(graph, thread()) if entry.next == ("b",))
    heads = []
    for n in (2, 3, 4):
        colour.invoke(graph, None, colour.update_state(graph, before_b.config, {"n": n}))
        heads.append(colour.get_state(graph, thread()).config)
    assert [colour.get_state(graph, head).values["n"] for head in heads] == [20, 30, 40]
    assert colour.invoke(graph, {"lines": ["on"]}, heads[0]) == {"n": 200, "lines": ["a", "b", "on", "a", "b"]}
    assert colour.get_state(graph, thread()).values["n"] == 200
    for head, n in zip(heads, (20, 30, 40), strict=True):
        seen, entry = [], colour.get_state(graph, head)
        while entry.parent_config is not None:
            seen.append(entry.values["n"])
            entry = colour.get_state(graph, entry.parent_config)
        assert seen == [n, n // 10, 1, 1]


def test_branches_of_a_long_list(colour: Colour, saver: Any) -> None:
    def grow(state: Talk) -> Talk:
        return {"lines": list(range(len(state["lines"]), len(state["lines"]) + 50))}

    graph = chain(("grow", colour.node(grow)), checkpointer=saver)
    for _ in range(6):
        colour.invoke(graph, {"lines": []}, thread())
    ends = [entry for entry in colour.history(graph, thread()) if not entry.next]
    branch = colour.invoke(graph, {"lines": ["X"]}, ends[3].config)["lines"]
    assert (len(branch), branch[150], branch[149]) == (201, "X", 149)
    colour.update_state(graph, ends[1].config, {"lines": ["Y"]}, as_node="grow")
    assert colour.get_state(graph, thread()).values["lines"] == [*range(250), "Y"]
    assert [len(entry.values["lines"]) for entry in colour.history(graph, thread()) if not entry.next] == [
        251, 201, 300, 250, 200, 150, 100, 50
    ]  # fmt: skip
    assert colour.get_state(graph, ends[0].config).values["lines"] == list(range(300))


def test_fork_where_a_question_was_open(colour: Colour, saver: Any) -> None:
    def ask(state: Talk) -> Talk:
        return {"lines": [f"{interrupt(state['n'])} to {state['n']}"]}

    graph = chain(("ask", colour.node(ask)), says(colour, "z"), checkpointer=saver)
    colour.invoke(graph, {"n": 1, "lines": []}, thread())
    open_ = colour.get_state(graph, thread()).config
    assert colour.invoke(graph, Command(resume="yes"), thread())["lines"] == ["yes to 1", "z"]
    for n in (5, 6):
        forked = colour.update_state(graph, open_, {"n": n})
        assert questions(colour.invoke(graph, None, forked)) == [n]
        assert colour.invoke(graph, Command(resume="no"), thread())["lines"] == [f"no to {n}", "z"]
    assert questions(colour.invoke(graph, None, open_)) == [1]


def test_the_past_stays_as_it_was(colour: Colour, saver: Any) -> None:
    """An update at a checkpoint that the thread went on from makes a branch; what is stored of the past stays."""
    graph = chain(asks(colour, "q"), says(colour, "z"), checkpointer=saver)
    colour.invoke(graph, {"lines": ["one"]}, thread())
    old = colour.get_state(graph, thread())
    colour.invoke(graph, {"lines": ["two"]}, thread())
    branch = colour.update_state(graph, old.config, {"lines": ["by hand"]}, as_node="q")
    assert colour.invoke(graph, None, branch) == {"lines": ["one", "by hand", "z"]}
    again = colour.get_state(graph, old.config)
    assert (again.values, again.next, [t.result for t in again.tasks]) == (old.values, old.next, [None])
    assert again.interrupts == old.interrupts


# ---------------------------------------------------------------------------------------------------------- failures


def test_only_what_failed_runs_again(colour: Colour, saver: Any) -> None:
    calls: list[str] = []
    failing = [True]

    def bad(state: Talk) -> Talk:
        calls.append("bad")
        if failing:
            raise ValueError("boom")
        return {"lines": ["bad"]}

    nodes = {"good": says(colour, "good", calls), "bad": colour.node(bad)}
    graph = fan(nodes, says(colour, "after", calls), checkpointer=saver)
    for attempt in ({"lines": []}, None):
        with pytest.raises(ValueError, match="boom"):
            colour.invoke(graph, attempt, thread())
    state = colour.get_state(graph, thread())
    assert (state.next, state.values) == (("bad",), {"lines": ["good"]})
    assert {task.name: (task.error, task.result) for task in state.tasks} == {
        "good": (None, {"lines": ["good"]}),
        "bad": ("ValueError('boom')", None),
    }
    failing.clear()
    assert colour.invoke(graph, None, thread()) == {"lines": ["bad", "good", "after"]}
    assert sorted(calls) == ["after", "bad", "bad", "bad", "good"]


def test_a_worker_fails(colour: Colour, saver: Any) -> None:
    failing = [True]
    calls: list[int] = []

    def work(state: Any) -> Any:
        calls.append(state["i"])
        if state["i"] == 3 and failing:
            raise ConnectionError("no line")
        return {"lines": [state["i"]]}

    graph = programs.fan_out(colour, saver, work)
    with pytest.raises(ConnectionError):
        colour.invoke(graph, {"n": 4, "lines": []}, thread())
    failing.clear()
    assert colour.invoke(graph, None, thread()) == {"n": 4, "lines": ["plan", 0, 1, 2, 3, "join"]}
    assert sorted(calls) == [0, 1, 2, 3, 3]


def test_a_question_beside_a_failure(colour: Colour, saver: Any) -> None:
    failing = [True]

    def bad(state: Talk) -> Talk:
        if failing:
            raise ValueError("boom")
        return {"lines": ["bad"]}

    graph = fan({"q": asks(colour, "q"), "bad": colour.node(bad)}, says(colour, "after"), checkpointer=saver)
    with pytest.raises(ValueError, match="boom"):
        colour.invoke(graph, {"lines": []}, thread())
    failing.clear()
    assert questions(colour.invoke(graph, None, thread())) == ["q"]
    assert colour.get_state(graph, thread()).values == {"lines": ["bad"]}
    assert colour.invoke(graph, Command(resume="A"), thread()) == {"lines": ["bad", "q=A", "after"]}


@pytest.mark.differs("no rule of LangGraph: it refuses to show the state of such a thread", partly=True)
def test_writes_that_do_not_fit_together(colour: Colour, saver: Any, durability: Any) -> None:
    """Two nodes write the same plain key: the thread can still be looked at, and put right by hand."""
    nodes = {name: colour.node(lambda state, n=n: {"n": n}) for n, name in enumerate("ab")}
    graph = fan(nodes, says(colour, "after"), checkpointer=saver)
    for attempt in ({"n": 7, "lines": ["in"]}, None):
        with pytest.raises(InvalidUpdateError):
            colour.invoke(graph, attempt, thread(), durability=durability)
        state = colour.get_state(graph, thread())
        assert (state.values, state.next) == ({"n": 7, "lines": ["in"]}, ("a", "b"))
        assert [task.result for task in state.tasks] == [{"n": 0}, {"n": 1}]
    colour.bulk_update_state(graph, thread(), [[StateUpdate({"n": 5}, "a"), StateUpdate({}, "b")]])
    assert colour.invoke(graph, None, thread()) == {"n": 5, "lines": ["in", "after"]}


def test_a_limit_is_no_end(colour: Colour, saver: Any) -> None:
    def a(state: Talk) -> Talk:
        return {"n": state["n"] + 1, "lines": [state["n"]]}

    builder = StateGraph(Talk).add_node("a", colour.node(a)).add_edge(START, "a")
    graph = builder.add_conditional_edges("a", lambda state: "a" if state["n"] < 9 else END).compile(checkpointer=saver)
    for attempt, n in (({"n": 0, "lines": []}, 2), (None, 6)):
        with pytest.raises(GraphRecursionError):
            colour.invoke(graph, attempt, {**thread(), "recursion_limit": 2})
        assert colour.get_state(graph, thread()).values["n"] == n
    assert colour.invoke(graph, None, thread()) == {"n": 9, "lines": list(range(9))}


@pytest.mark.parametrize(("mode", "stored"), [("sync", [1, 0, -1]), ("async", [1, 0, -1]), ("exit", [1])])
def test_how_much_is_stored(colour: Colour, saver: Any, mode: Any, stored: list[int]) -> None:
    failing = [True]

    def b(state: Talk) -> Talk:
        if failing:
            raise ValueError("boom")
        return {"lines": ["b"]}

    graph = chain(says(colour, "a"), ("b", colour.node(b)), checkpointer=saver)
    with pytest.raises(ValueError, match="boom"):
        colour.invoke(graph, {"lines": []}, thread(), durability=mode)
    history = colour.history(graph, thread())
    assert [entry.metadata["step"] for entry in history] == stored
    assert (history[0].next, history[0].tasks[0].error) == (("b",), "ValueError('boom')")
    failing.clear()
    assert colour.invoke(graph, None, thread(), durability=mode) == {"lines": ["a", "b"]}
    assert [entry.metadata["step"] for entry in colour.history(graph, thread())] == [2, *stored]


def test_events_of_a_task_that_runs_again(colour: Colour, saver: Any) -> None:
    """The checkpoint shows what is stored of the task; the task's own events show only what happens now."""
    failing = [True]

    def bad(state: Talk) -> Talk:
        if failing:
            raise ValueError("boom")
        return {"lines": ["bad"]}

    def results(events: list[Any]) -> list[Any]:
        found = [payload for mode, payload in events if mode == "tasks" and "error" in payload]
        return [([q["value"] for q in p["interrupts"]], p["error"], p["result"]) for p in found]

    modes = {"stream_mode": ["tasks", "checkpoints"]}
    graph = chain(asks(colour, "q", "r"), ("bad", colour.node(bad)), checkpointer=saver)
    assert results(colour.stream(graph, {"lines": []}, thread(), **modes)) == [(["q"], None, {})]
    events = colour.stream(graph, Command(resume=1), thread(), **modes)
    assert results(events) == [(["r"], None, {})]
    assert [q["value"] for q in events[0][1]["tasks"][0]["interrupts"]] == ["q"]
    events, error = colour.outcome(graph, Command(resume=2), thread(), **modes)
    assert results(events) == [([], None, {"lines": ["q=1", "r=2"]}), ([], error, {})]
    failing.clear()
    events = colour.stream(graph, None, thread(), **modes)
    assert events[0][1]["tasks"][0]["error"] == "ValueError('boom')"
    assert results(events) == [([], None, {"lines": ["bad"]})]


# --------------------------------------------------------------------------------------------------------- subgraphs


def test_a_subgraph_asks(colour: Colour, saver: Any) -> None:
    graph = programs.nested(colour, saver)
    assert questions(colour.invoke(graph, {"lines": []}, thread())) == ["q"]
    outer = colour.get_state(graph, thread(), subgraphs=True)
    inner = outer.tasks[0].state
    assert (outer.next, outer.values, [q.value for q in outer.interrupts]) == (("sub",), {"lines": ["before"]}, ["q"])
    assert (inner.next, inner.values, namespaces(inner.config)) == (("q",), {"lines": ["before", "i"]}, ["sub:*"])
    assert inner.config["configurable"]["checkpoint_map"][""] == checkpoint_id(outer.config)
    place = {key: inner.config["configurable"][key] for key in ("thread_id", "checkpoint_ns")}
    nested = colour.history(graph, {"configurable": place})
    assert [entry.next for entry in nested] == [("q",), ("i",), ("__start__",)]
    chunks = colour.stream(graph, Command(resume="A"), thread(), subgraphs=True, stream_mode="updates")
    assert [(path_of(ns), *chunk) for ns, chunk in chunks] == [
        (("sub",), "q"),
        (("sub",), "j"),
        ((), "sub"),
        ((), "after"),
    ]
    assert colour.get_state(graph, thread()).values["lines"] == ["before", "before", "i", "q=A", "j", "after"]


def test_editing_inside_a_subgraph(colour: Colour, saver: Any) -> None:
    for as_node, answer, lines in (
        (None, Command(resume="A"), ["i", "by hand", "q=A", "j"]),
        ("q", None, ["i", "by hand", "j"]),
        ("j", None, ["i", "by hand"]),
    ):
        graph, config = programs.nested(colour, saver), thread(str(as_node))
        colour.invoke(graph, {"lines": []}, config)
        inner = colour.get_state(graph, config, subgraphs=True).tasks[0].state
        colour.update_state(graph, inner.config, {"lines": ["by hand"]}, as_node=as_node)
        result = colour.invoke(graph, answer, config)
        assert result["lines"] == ["before", "before", *lines, "after"]


@pytest.mark.differs("design.md D25, promise 57: LangGraph starts the subgraph over and loses the edit")
def test_going_on_from_an_edit_inside_a_subgraph(colour: Colour, saver: Any) -> None:
    """The config that the edit returned is run: nothing before the edit runs again, and the question can be answered."""
    calls: list[str] = []
    graph = programs.nested(colour, saver, calls)
    colour.invoke(graph, {"lines": []}, thread())
    inner = colour.get_state(graph, thread(), subgraphs=True).tasks[0].state
    edited = colour.update_state(graph, inner.config, {"lines": ["by hand"]})
    del calls[:]
    assert questions(colour.invoke(graph, None, edited)) == ["q"]
    result = colour.invoke(graph, Command(resume="A"), thread())
    assert result["lines"] == ["before", "before", "i", "by hand", "q=A", "j", "after"]
    assert calls == ["q", "q", "j", "after"]


def test_a_subgraph_stops_after_an_edit(colour: Colour, saver: Any, durability: Any) -> None:
    """What only the subgraph did is stored, although the run around it did nothing."""
    calls: list[str] = []
    sub = chain(says(colour, "i", calls), says(colour, "j", calls), interrupt_before=["j"])
    graph = chain(says(colour, "a"), ("sub", sub), says(colour, "z"), checkpointer=saver, interrupt_before=["sub"])
    colour.invoke(graph, {"lines": []}, thread())
    edited = colour.update_state(graph, thread(), {"lines": ["by hand"]})
    colour.invoke(graph, None, edited, durability=durability)
    assert colour.get_state(graph, thread(), subgraphs=True).tasks[0].state.next == ("j",)
    result = colour.invoke(graph, None, thread(), durability=durability)
    assert (result["lines"][2:], calls) == (["a", "by hand", "i", "j", "z"], ["i", "j"])


def test_a_failure_inside_a_subgraph(colour: Colour, saver: Any, durability: Any) -> None:
    calls: list[str] = []
    failing = [True]

    def bad(state: Talk) -> Talk:
        if failing:
            raise ValueError("boom")
        return {"lines": ["bad"]}

    sub = chain(says(colour, "i", calls), ("bad", colour.node(bad)))
    graph = chain(says(colour, "a", calls), ("sub", sub), says(colour, "z", calls), checkpointer=saver)
    with pytest.raises(ValueError, match="boom"):
        colour.invoke(graph, {"lines": []}, thread(), durability=durability)
    state = colour.get_state(graph, thread(), subgraphs=True)
    assert (state.tasks[0].error, state.tasks[0].state.values) == ("ValueError('boom')", {"lines": ["a", "i"]})
    failing.clear()
    result = colour.invoke(graph, None, thread(), durability=durability)
    assert (result["lines"], calls) == (["a", "a", "i", "bad", "z"], ["a", "i", "z"])


def test_three_levels(colour: Colour, saver: Any) -> None:
    third = chain(asks(colour, "deep"))
    graph = chain(("first", chain(("second", third))), checkpointer=saver)
    colour.invoke(graph, {"lines": []}, thread())
    state, seen = colour.get_state(graph, thread(), subgraphs=True), []
    while state is not None:
        seen.append((namespaces(state.config), state.next, [q.value for q in state.interrupts]))
        state = state.tasks[0].state
    assert seen == [
        ([], ("first",), ["deep"]),
        (["first:*"], ("second",), ["deep"]),
        (["first:*", "second:*"], ("deep",), ["deep"]),
    ]
    assert colour.invoke(graph, Command(resume="A"), thread()) == {"lines": ["deep=A"]}


def test_subgraphs_side_by_side(colour: Colour, saver: Any) -> None:
    nodes = {name: chain(asks(colour, f"{name}1"), asks(colour, f"{name}2")) for name in "lr"}
    graph = fan(nodes, says(colour, "after"), checkpointer=saver)
    colour.invoke(graph, {"lines": []}, thread())
    for _ in range(2):
        state = colour.get_state(graph, thread())
        assert state.next == ("l", "r")
        result = colour.invoke(graph, Command(resume={q.id: q.value.upper() for q in state.interrupts}), thread())
    assert result == {"lines": ["l1=L1", "l2=L2", "r1=R1", "r2=R2", "after"]}


def test_a_node_that_calls_a_graph_twice(colour: Colour, saver: Any) -> None:
    def ask(state: Talk) -> Talk:
        return {"lines": [interrupt(state["n"])]}

    inner = chain(("ask", colour.node(ask)))

    def call(state: Talk) -> Any:
        first = yield inner, {"n": 1, "lines": []}
        second = yield inner, {"n": 2, "lines": []}
        return {"lines": first["lines"] + second["lines"]}

    graph = chain(("call", colour.script(call)), checkpointer=saver)
    assert questions(colour.invoke(graph, {"lines": []}, thread())) == [1]
    assert questions(colour.invoke(graph, Command(resume="A"), thread())) == [2]
    assert colour.invoke(graph, Command(resume="B"), thread()) == {"lines": ["A", "B"]}


def test_a_subgraph_that_remembers(colour: Colour, saver: Any) -> None:
    inner = chain(says(colour, "i"), checkpointer=True)

    def call(state: Talk) -> Any:
        result = yield inner, {"lines": [state["n"]]}
        return {"lines": [result["lines"]]}

    graph = chain(("call", colour.script(call)), checkpointer=saver)
    for n in (1, 2, 3):
        result = colour.invoke(graph, {"n": n, "lines": []}, thread())
    assert result["lines"] == [[1, "i"], [1, "i", 2, "i"], [1, "i", 2, "i", 3, "i"]]
    second = [entry for entry in colour.history(graph, thread()) if entry.next == ("call",)][1]
    assert colour.invoke(graph, None, second.config)["lines"] == [[1, "i"], [1, "i", 2, "i"]]
    assert colour.invoke(graph, {"n": 9, "lines": []}, thread())["lines"][2] == [1, "i", 2, "i", 9, "i"]
    assert colour.invoke(graph, {"n": 1, "lines": []}, thread("other"))["lines"] == [[1, "i"]]


def test_a_subgraph_hands_over(colour: Colour, saver: Any) -> None:
    def child(state: Talk) -> Any:
        answer = interrupt("hand over?")
        return Command(graph=Command.PARENT, goto="other", update={"lines": [f"handed over: {answer}"]})

    sub = chain(("child", colour.node(child)))
    builder = StateGraph(Talk).add_node("sub", sub, destinations=("other",)).add_node("other", says(colour, "other"))
    graph = builder.add_edge(START, "sub").compile(checkpointer=saver)
    assert questions(colour.invoke(graph, {"lines": []}, thread())) == ["hand over?"]
    assert colour.invoke(graph, Command(resume="ok"), thread()) == {"lines": ["handed over: ok", "other"]}


# ------------------------------------------------------------------------------------------------- values and schemas


def test_another_process_goes_on(tmp_path: Path) -> None:
    path = str(tmp_path / "threads.sqlite")
    begin = f"from tests.corpus_state.programs import begin; begin({path!r})"
    subprocess.run([sys.executable, "-c", begin], check=True, cwd=ROOT, capture_output=True, timeout=60)
    with SqliteSaver.from_conn_string(path) as saver:
        graph = programs.rich(saver)
        state = graph.get_state(thread())
        assert (state.next, state.interrupts[0].value) == (("ask",), Point(5, tags=["q"]))
        result = graph.invoke(Command(resume="done"), thread())
        assert result["lines"] == [Point(9), "done", "Profile", "Point", True]


def test_every_kind_of_value(saver: Any) -> None:
    graph = programs.rich(saver)
    asked = graph.invoke({"lines": []}, thread())
    assert asked["__interrupt__"][0].value == Point(5, tags=["q"])
    state = graph.get_state(thread())
    assert (state.values["values"], state.values["lines"]) == (programs.RICH, [Point(9)])
    result = graph.invoke(Command(resume=Point(7)), thread())
    assert result["lines"] == [Point(9), Point(7), "Profile", "Point", True]


def test_classes_of_a_function(colour: Colour, saver: Any) -> None:
    """Classes that nodes take from the function around them are stored like any others."""

    @dataclasses.dataclass
    class Item:
        x: int

    class Mark(enum.Enum):
        GOOD = 1

    class Note(BaseModel):
        text: str

    def a(state: Talk) -> Talk:
        return {"lines": [Item(1), Mark.GOOD, Note(text="t")]}

    def b(state: Talk) -> Talk:
        return {"lines": [interrupt(Item(2))]}

    graph = chain(("a", colour.node(a)), ("b", colour.node(b)), checkpointer=saver)
    assert colour.invoke(graph, {"lines": []}, thread())["__interrupt__"][0].value == Item(2)
    result = colour.invoke(graph, Command(resume=Item(3)), thread())
    assert result["lines"] == [Item(1), Mark.GOOD, Note(text="t"), Item(3)]


def test_states_that_are_classes(colour: Colour, saver: Any) -> None:
    class Model(BaseModel):
        name: str = "nobody"
        n: int = 0
        lines: Annotated[list[str], operator.add] = Field(default_factory=list)

    @dataclasses.dataclass
    class Data:
        name: str = "nobody"
        n: int = 0
        lines: Annotated[list[str], operator.add] = dataclasses.field(default_factory=list)

    def a(state: Any) -> Any:
        return {"n": state.n + 1, "lines": [type(state).__name__]}

    def b(state: Any) -> Any:
        return {"name": interrupt(state.name)}

    for schema in (Model, Data):
        config = thread(schema.__name__)
        graph = chain(("a", colour.node(a)), ("b", colour.node(b)), state=schema, checkpointer=saver)
        assert questions(colour.invoke(graph, schema(name="ann", n=4), config)) == ["ann"]
        colour.update_state(graph, config, {"n": 50})
        result = colour.invoke(graph, Command(resume="bob"), config)
        assert result == {"name": "bob", "n": 50, "lines": [schema.__name__]}


def test_a_new_version_of_the_program(colour: Colour, saver: Any) -> None:
    class Old(TypedDict):
        x: int
        gone: str

    class New(TypedDict):
        x: int
        fresh: Annotated[list[str], operator.add]

    one, ten = colour.node(lambda state: {"x": state["x"] + 1}), colour.node(lambda state: {"x": state["x"] * 10})
    new_b = colour.node(lambda state: {"x": state["x"] * 10, "fresh": ["f"]})
    old = chain(("a", one), ("b", ten), state=Old, checkpointer=saver, interrupt_before=["b"])
    new = chain(("a", one), ("b", new_b), state=New, checkpointer=saver)
    colour.invoke(old, {"x": 1, "gone": "kept"}, thread())
    assert colour.get_state(new, thread()).values == {"x": 2, "fresh": []}
    assert colour.invoke(new, None, thread()) == {"x": 20, "fresh": ["f"]}
    assert colour.get_state(old, thread()).values == {"x": 20, "gone": "kept"}


def test_nobody_shares_what_is_stored(colour: Colour, saver: Any) -> None:
    class State(TypedDict):
        d: dict[str, Any]

    graph = chain(("a", colour.node(lambda state: {"d": {"k": [1]}})), state=State, checkpointer=saver)
    colour.invoke(graph, {"d": {}}, thread())["d"]["k"].append("result")
    colour.get_state(graph, thread()).values["d"]["k"].append("state")
    colour.history(graph, thread())[0].values["d"]["k"].append("history")
    saver.get_tuple(thread()).checkpoint["channel_values"]["d"]["k"].append("saver")
    assert colour.get_state(graph, thread()).values == {"d": {"k": [1]}}


# ------------------------------------------------------------------------------------------------------------ savers


def test_a_saver_used_by_hand(saver: Any) -> None:
    checkpoint = empty_checkpoint()
    version = saver.get_next_version(None, None)
    checkpoint["channel_values"], checkpoint["channel_versions"] = {"a": [1]}, {"a": version}
    place = {"configurable": {"thread_id": "p", "checkpoint_ns": ""}}
    first = saver.put(place, checkpoint, {"source": "input", "step": -1, "who": "me"}, {"a": version})
    saver.put_writes(first, [("a", 5), ("b", [6])], "task")
    saver.put_writes(first, [("a", "too late")], "task")
    entry = saver.get_tuple(first)
    assert (entry.parent_config, entry.checkpoint["channel_values"]) == (None, {"a": [1]})
    assert entry.pending_writes == [("task", "a", 5), ("task", "b", [6])]
    second = saver.put(first, {**empty_checkpoint(), "channel_versions": {"a": version}}, {"step": 0}, {})
    assert saver.get_tuple(thread("p")).parent_config == first
    assert [e.config for e in saver.list(thread("p"))] == [second, first]
    assert [e.config for e in saver.list(None, filter={"who": "me"})] == [first]
    assert [e.config for e in saver.list(thread("p"), before=second, limit=1)] == [first]
    saver.delete_thread("p")
    assert (saver.get_tuple(first), list(saver.list(thread("p")))) == (None, [])


def test_a_thread_is_deleted_and_begins_again(colour: Colour, saver: Any) -> None:
    graph = chain(says(colour, "a"), checkpointer=saver)
    config = {**thread(), "metadata": {"user": "ann", "plan": ["dropped"]}}
    colour.invoke(graph, {"lines": []}, config)
    assert [e.metadata["step"] for e in saver.list(None, filter={"user": "ann"})] == [1, 0, -1]
    assert "plan" not in colour.get_state(graph, thread()).metadata
    saver.delete_thread("1")
    assert colour.get_state(graph, thread()).values == {}
    assert colour.invoke(graph, {"lines": ["new"]}, thread()) == {"lines": ["new", "a"]}


def test_a_saver_that_counts(colour: Colour) -> None:
    saver = Counting()
    graph = chain(says(colour, "a"), checkpointer=saver)
    colour.invoke(graph, {"lines": []}, thread(), durability="sync")
    assert saver.stored == [
        ("checkpoint", -1),
        ("writes", ["lines", "branch:to:a"]),
        ("checkpoint", 0),
        ("writes", ["lines"]),
        ("checkpoint", 1),
    ]
    del saver.stored[:]
    colour.invoke(graph, {"lines": []}, thread(), durability="exit")
    assert saver.stored == [("checkpoint", 4)]


def test_a_foreign_saver(colour: Colour, durability: Any) -> None:
    graph = programs.nested(colour, Foreign())
    assert questions(colour.invoke(graph, {"lines": []}, thread(), durability=durability)) == ["q"]
    inner = colour.get_state(graph, thread(), subgraphs=True).tasks[0].state
    assert (inner.next, inner.values) == (("q",), {"lines": ["before", "i"]})
    result = colour.invoke(graph, Command(resume="A"), thread(), durability=durability)
    assert result["lines"] == ["before", "before", "i", "q=A", "j", "after"]
    before = next(entry for entry in colour.history(graph, thread()) if entry.next == ("sub",))
    assert questions(colour.invoke(graph, None, before.config, durability=durability)) == ["q"]
    colour.update_state(graph, thread(), {"lines": ["by hand"]}, as_node="sub")
    assert colour.invoke(graph, None, thread()) == {"lines": ["before", "by hand", "after"]}


def test_two_connections_to_one_file(tmp_path: Path) -> None:
    colour, path = Colour("sync"), str(tmp_path / "threads.sqlite")
    with SqliteSaver.from_conn_string(path) as one, SqliteSaver.from_conn_string(path) as two:
        here, there = (chain(says(colour, "a"), asks(colour, "q"), checkpointer=saver) for saver in (one, two))
        here.invoke({"lines": []}, thread())
        assert there.get_state(thread()).next == ("q",)
        assert there.invoke(Command(resume="A"), thread()) == {"lines": ["a", "q=A"]}
        assert here.get_state(thread()).values == {"lines": ["a", "q=A"]}
        assert questions(here.invoke({"lines": ["on"]}, thread())) == ["q"]


def test_async_saver(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "threads.sqlite")) as saver:
            graph = programs.nested(Colour("async"), saver)
            await graph.ainvoke({"lines": []}, thread())
            inner = (await graph.aget_state(thread(), subgraphs=True)).tasks[0].state
            await graph.aupdate_state(inner.config, {"lines": ["by hand"]})
            result = await graph.ainvoke(Command(resume="A"), thread())
            assert result["lines"] == ["before", "before", "i", "by hand", "q=A", "j", "after"]
            # Many threads at once, also through the sync API from another thread.
            results = await asyncio.gather(*(graph.ainvoke({"lines": [n]}, thread(f"t{n}")) for n in range(8)))
            assert [result["lines"] for result in results] == [[n, "before"] for n in range(8)]
            seen = await asyncio.to_thread(graph.get_state, thread("t3"))
            assert seen.next == ("sub",)
            assert [e.metadata["step"] async for e in saver.alist(thread("t3"), limit=1)] == [1]
            await saver.adelete_thread("t3")
            assert await saver.aget_tuple(thread("t3")) is None

    asyncio.run(conversation())


# ------------------------------------------------------------------------------------------------------- concurrency


def test_many_threads_on_one_graph(colour: Colour, saver: Any) -> None:
    graph = programs.counter(colour, saver, [])
    results: dict[int, Any] = {}

    def talk(number: int) -> None:
        for _ in range(3):
            results[number] = colour.invoke(graph, {"n": number, "lines": []}, thread(str(number)))

    talkers = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join()
    assert results == {number: {"n": number + 4, "lines": list("abcd") * 3} for number in range(8)}
    configs = [thread(f"batch {n}") for n in range(4)]
    batch = colour.batch(graph, [{"n": n, "lines": []} for n in range(4)], configs)
    assert [result["n"] for result in batch] == [4, 5, 6, 7]


@pytest.mark.differs("amendments Y4, design.md D24: LangGraph lets both runs through")
def test_two_runs_on_one_thread(memory: Any) -> None:
    """One of them is refused, and leaves nothing."""
    started, go = threading.Event(), threading.Event()
    refused: list[str] = []

    def slow(state: Talk) -> Talk:
        if state["lines"] == ["one"]:
            started.set()
            assert go.wait(10)
        return {"lines": ["node"]}

    graph = chain(slow, checkpointer=memory)

    def run(line: str) -> None:
        try:
            graph.invoke({"lines": [line]}, thread())
        except CheckpointConflictError:
            refused.append(line)

    first = threading.Thread(target=run, args=("one",))
    first.start()
    assert started.wait(10)
    run("two")
    go.set()
    first.join()
    lines = {"one": ["one", "two", "node"], "two": ["one", "node"]}
    assert [graph.get_state(thread()).values["lines"]] == [lines[line] for line in refused]
    assert graph.invoke({"lines": ["three"]}, thread())["lines"][-2:] == ["three", "node"]


def test_a_cancelled_run_goes_on_later() -> None:
    async def conversation() -> None:
        started, calls = asyncio.Event(), []

        async def fast(state: Talk) -> Talk:
            calls.append("fast")
            return {"lines": ["fast"]}

        async def slow(state: Talk) -> Talk:
            calls.append("slow")
            if calls.count("slow") == 1:
                while "fast" not in calls:
                    await asyncio.sleep(0)
                started.set()
                await asyncio.Event().wait()
            return {"lines": ["slow"]}

        graph = fan({"fast": fast, "slow": slow}, says(Colour("async"), "after"), checkpointer=InMemorySaver())
        run = asyncio.create_task(graph.ainvoke({"lines": []}, thread()))
        await started.wait()
        await asyncio.sleep(0)  # the result of the fast one is taken
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        state = await graph.aget_state(thread())
        assert (state.next, state.values) == (("slow",), {"lines": ["fast"]})
        assert await graph.ainvoke(None, thread()) == {"lines": ["fast", "slow", "after"]}
        assert calls == ["fast", "slow", "slow"]

    asyncio.run(conversation())


def test_a_stream_that_is_left(colour: Colour, saver: Any) -> None:
    graph = chain(*(says(colour, name) for name in "abc"), checkpointer=saver)

    async def first_chunk() -> Any:
        chunks = graph.astream({"lines": []}, thread(), stream_mode="updates", durability="sync")
        async for chunk in chunks:
            await chunks.aclose()
            return chunk

    if colour.is_async:
        chunk = asyncio.run(first_chunk())
    else:
        chunks = graph.stream({"lines": []}, thread(), stream_mode="updates", durability="sync")
        chunk = next(chunks)
        chunks.close()
    assert chunk == {"a": {"lines": ["a"]}}
    assert colour.invoke(graph, None, thread()) == {"lines": ["a", "b", "c"]}
