"""Pipelines: branches, joins, deferred nodes, map-reduce, state machines."""

import operator
from typing import Annotated, Any, Literal

import pytest
from typing_extensions import TypedDict

from pregel.errors import InvalidUpdateError
from pregel.graph import END, START, StateGraph
from pregel.types import Command, Overwrite, Send
from tests.support.scenarios import Colour


class Trail(TypedDict):
    """Where a run has been."""

    trail: Annotated[list[Any], operator.add]


def stop(colour: Colour, name: str) -> Any:
    """A node that leaves its name."""
    return colour.node(lambda state: {"trail": [name]})


def map_reduce(colour: Colour) -> None:
    class Overall(TypedDict):
        topic: str
        subjects: list[str]
        jokes: Annotated[list[str], operator.add]
        best: str

    class JokeState(TypedDict):
        subject: str

    def generate_joke(state: JokeState) -> dict[str, Any]:
        return {"jokes": [f"joke about {state['subject']}"]}

    builder = StateGraph(Overall)
    builder.add_node("topics", colour.node(lambda state: {"subjects": ["lions", "elephants", "penguins"]}))
    builder.add_node("joke", colour.node(generate_joke))
    builder.add_node("best", colour.node(lambda state: {"best": max(state["jokes"], key=len)}))
    builder.add_edge(START, "topics")
    builder.add_conditional_edges("topics", lambda s: [Send("joke", {"subject": x}) for x in s["subjects"]], ["joke"])
    builder.add_edge("joke", "best")
    builder.add_edge("best", END)
    graph = builder.compile()
    jokes = ["joke about lions", "joke about elephants", "joke about penguins"]
    result = colour.invoke(graph, {"topic": "animals"})
    assert (result["jokes"], result["best"]) == (jokes, "joke about elephants")
    assert [len(v["jokes"]) for v in colour.stream(graph, {"topic": "a"}, stream_mode="values")] == [0, 0, 3, 3]
    updates = colour.stream(graph, {"topic": "a"}, stream_mode="updates")
    assert sorted(chunk["joke"]["jokes"][0] for chunk in updates if "joke" in chunk) == sorted(jokes)


def retrieval_with_grading(colour: Colour) -> None:
    class State(TypedDict):
        question: str
        docs: list[str]
        graded: list[str]
        answer: str
        tries: int

    shelf = {"cat": ["cats purr", "dogs bark"], "felines": ["cats purr", "cats nap"]}

    def retrieve(state: State) -> dict[str, Any]:
        return {"docs": shelf.get(state["question"], [])}

    def grade(state: State) -> dict[str, Any]:
        return {"graded": [d for d in state["docs"] if "cat" in d]}

    def rewrite(state: State) -> dict[str, Any]:
        return {"question": "felines", "tries": state.get("tries", 0) + 1}

    def generate(state: State) -> dict[str, Any]:
        return {"answer": "; ".join(state["graded"]) or "unknown"}

    def decide(state: State) -> Literal["rewrite", "generate"]:
        return "generate" if len(state["graded"]) >= 2 or state.get("tries", 0) else "rewrite"

    builder = StateGraph(State)
    builder.add_sequence([("retrieve", colour.node(retrieve)), ("grade", colour.node(grade))])
    builder.add_node("rewrite", colour.node(rewrite)).add_node("generate", colour.node(generate))
    builder.add_edge(START, "retrieve").add_conditional_edges("grade", decide)
    builder.add_edge("rewrite", "retrieve").add_edge("generate", END)
    chunks = colour.stream(builder.compile(), {"question": "cat"}, stream_mode="updates")
    assert [name for chunk in chunks for name in chunk] == [
        "retrieve",
        "grade",
        "rewrite",
        "retrieve",
        "grade",
        "generate",
    ]
    assert chunks[-1] == {"generate": {"answer": "cats purr; cats nap"}}


def uneven_branches(colour: Colour) -> None:
    def build(joined: bool, deferred: bool) -> Any:
        builder = StateGraph(Trail)
        for name in ("a", "b", "b2", "c"):
            builder.add_node(name, stop(colour, name))
        builder.add_node("d", stop(colour, "d"), defer=deferred)
        builder.add_edge(START, "a").add_edge("a", "b").add_edge("a", "c").add_edge("b", "b2")
        if joined:
            builder.add_edge(["b2", "c"], "d")
        else:
            builder.add_edge("b2", "d").add_edge("c", "d")
        return builder.add_edge("d", END).compile()

    def trail(joined: bool, deferred: bool) -> Any:
        return colour.invoke(build(joined, deferred), {"trail": []})["trail"]

    assert trail(joined=True, deferred=False) == ["a", "b", "c", "b2", "d"]
    assert trail(joined=False, deferred=False) == ["a", "b", "c", "b2", "d", "d"]
    assert trail(joined=False, deferred=True) == ["a", "b", "c", "b2", "d"]


def deferred_node_waits_for_a_loop_and_workers(colour: Colour) -> None:
    class State(Trail):
        n: int

    builder = StateGraph(State)
    builder.add_node("source", stop(colour, "source"))
    builder.add_node("loop", colour.node(lambda s: {"n": s["n"] + 1, "trail": [f"loop{s['n']}"]}))
    builder.add_node("worker", colour.node(lambda s: {"trail": [f"w{s['k']}"]}))
    builder.add_node("end", stop(colour, "end"), defer=True)
    builder.add_edge(START, "source")
    builder.add_edge("source", "loop")
    builder.add_conditional_edges("source", lambda s: [Send("worker", {"k": i}) for i in range(3)], ["worker"])
    builder.add_conditional_edges("loop", lambda s: "loop" if s["n"] < 3 else "end", ["loop", "end"])
    builder.add_edge("worker", "end")
    result = colour.invoke(builder.compile(), {"n": 0, "trail": []})
    assert result["trail"] == ["source", "loop0", "w0", "w1", "w2", "loop1", "loop2", "end"]


def entry_by_condition(colour: Colour) -> None:
    class State(TypedDict):
        kind: Any
        out: str

    builder = StateGraph(State)
    builder.add_node("a", colour.node(lambda s: {"out": "A"})).add_node("b", colour.node(lambda s: {"out": "B"}))
    builder.set_conditional_entry_point(lambda s: s["kind"], {"x": "a", True: "b", "z": END})
    builder.add_edge("a", END)
    builder.set_finish_point("b")
    graph = builder.compile()
    assert colour.invoke(graph, {"kind": "x"}) == {"kind": "x", "out": "A"}
    assert colour.invoke(graph, {"kind": True}) == {"kind": True, "out": "B"}
    assert colour.invoke(graph, {"kind": "z"}) == {"kind": "z"}
    _, error = colour.outcome(graph, {"kind": "?"})
    assert isinstance(error, KeyError)


def routers_that_pick_several(colour: Colour) -> None:
    class State(Trail):
        picks: list[str]

    builder = StateGraph(State)
    for name in "abc":
        builder.add_node(name, stop(colour, name))
    builder.add_node("s", stop(colour, "s")).add_edge(START, "s")
    builder.add_conditional_edges("s", lambda s: s["picks"], ["a", "b", "c"])
    builder.add_edge(["a", "b", "c"], END)
    graph = builder.compile()
    for picks in ([], ["a"], ["c", "b"], ["a", "b", "c"]):
        assert colour.invoke(graph, {"picks": picks, "trail": []})["trail"] == ["s", *sorted(picks)]


def tree_of_sends(colour: Colour) -> None:
    class State(TypedDict):
        depth: int
        path: str
        leaves: Annotated[list[str], operator.add]

    def expand(state: State) -> Command[Literal["expand"]]:
        if state["depth"] == 0:
            return Command(update={"leaves": [state["path"]]})
        return Command(goto=[Send("expand", {"depth": state["depth"] - 1, "path": state["path"] + c}) for c in "lr"])

    graph = StateGraph(State).add_node("expand", colour.node(expand)).add_edge(START, "expand").compile()
    leaves = [a + b + c for a in "lr" for b in "lr" for c in "lr"]
    assert colour.invoke(graph, {"depth": 3, "path": ""})["leaves"] == leaves
    assert colour.invoke(graph, {"depth": 3, "path": ""}, {"max_concurrency": 1})["leaves"] == leaves


def sends_and_names_in_one_goto(colour: Colour) -> None:
    class State(TypedDict):
        items: list[int]
        out: Annotated[list[Any], operator.add]

    def plan(state: State) -> Command[Literal["worker", "log"]]:
        return Command(update={"out": ["plan"]}, goto=[*(Send("worker", {"item": i}) for i in state["items"]), "log"])

    builder = StateGraph(State).add_node("plan", colour.node(plan)).add_edge(START, "plan")
    builder.add_node("worker", colour.node(lambda s: {"out": [s["item"] * 10]}))
    builder.add_node("log", colour.node(lambda s: {"out": [f"log {len(s['items'])}"]}))
    result = colour.invoke(builder.compile(), {"items": [1, 2, 3]})
    assert result["out"] == ["plan", "log 3", 10, 20, 30]


def task_graph_in_waves(colour: Colour) -> None:
    class State(TypedDict):
        tasks: list[dict[str, Any]]
        results: Annotated[dict[Any, int], operator.or_]

    def ready(state: State) -> Any:
        done = state["results"]
        return [
            Send("run", {"id": t["id"], "args": [done[d] for d in t["needs"]]})
            for t in state["tasks"]
            if t["id"] not in done and all(d in done for d in t["needs"])
        ] or "join"

    builder = StateGraph(State)
    builder.add_node("schedule", colour.node(lambda s: {}))
    builder.add_node("run", colour.node(lambda s: {"results": {s["id"]: s["id"] * 10 + sum(s["args"])}}))
    builder.add_node("join", colour.node(lambda s: {"results": {"sum": sum(s["results"].values())}}))
    builder.add_edge(START, "schedule").add_conditional_edges("schedule", ready, ["run", "join"])
    builder.add_edge("run", "schedule").add_edge("join", END)
    tasks = [{"id": 1, "needs": []}, {"id": 2, "needs": [1]}, {"id": 3, "needs": [1]}, {"id": 4, "needs": [2, 3]}]
    result = colour.invoke(builder.compile(), {"tasks": tasks})
    assert result["results"] == {1: 10, 2: 30, 3: 40, 4: 110, "sum": 190}


def support_tickets(colour: Colour) -> None:
    class Ticket(TypedDict, total=False):
        text: str
        category: str
        sentiment: str
        answer: str

    def categorize(state: Ticket) -> dict[str, Any]:
        return {"category": "billing" if "bill" in state["text"] else "general"}

    def sentiment(state: Ticket) -> dict[str, Any]:
        return {"sentiment": "negative" if "!" in state["text"] else "ok"}

    def route(state: Ticket) -> str:
        return "escalate" if state["sentiment"] == "negative" else state["category"]

    builder = StateGraph(Ticket)
    builder.add_node("categorize", colour.node(categorize)).add_node("feel", colour.node(sentiment))
    for name in ("billing", "general", "escalate"):
        builder.add_node(name, colour.node(lambda state, name=name: {"answer": f"from {name}"}))
        builder.add_edge(name, END)
    builder.set_entry_point("categorize")
    builder.add_edge("categorize", "feel")
    builder.add_conditional_edges("feel", route, {n: n for n in ("billing", "general", "escalate")})
    graph = builder.compile()
    answers = {text: colour.invoke(graph, {"text": text})["answer"] for text in ("my bill", "hello", "bill!")}
    assert answers == {"my bill": "from billing", "hello": "from general", "bill!": "from escalate"}


def writes_that_replace(colour: Colour) -> None:
    builder = StateGraph(Trail)
    builder.add_node("a", stop(colour, "a"))
    builder.add_node("reset", colour.node(lambda s: {"trail": Overwrite(["fresh"])}))
    builder.add_node("c", stop(colour, "c"))
    builder.add_edge(START, "a").add_edge("a", "reset").add_edge("reset", "c")
    assert colour.invoke(builder.compile(), {"trail": ["in"]}) == {"trail": ["fresh", "c"]}


def what_nodes_may_return(colour: Colour) -> None:
    class State(TypedDict):
        a: str
        b: int

    def returning(value: Any) -> Any:
        graph = StateGraph(State).add_node("n", colour.node(lambda s: value)).add_edge(START, "n").compile()
        return colour.stream(graph, {"a": "x", "b": 0}, stream_mode=["updates", "values"])[1:]

    assert returning(None) == [("updates", {"n": None})]
    assert returning([Command(update={"a": "1"}), Command(update={"b": 2})]) == [
        ("updates", {"n": {"a": "1", "b": 2}}),
        ("values", {"a": "1", "b": 2}),
    ]
    assert returning([{"a": "q"}, Command(update=[("b", 5)])])[-1] == ("values", {"a": "q", "b": 5})
    for wrong in ("text", 3, [1]):
        with pytest.raises(InvalidUpdateError):
            returning(wrong)


def two_writers_of_one_plain_key(colour: Colour) -> None:
    class State(TypedDict):
        a: str

    builder = StateGraph(State)
    for name in ("one", "two"):
        builder.add_node(name, colour.node(lambda s, name=name: {"a": name})).add_edge(START, name)
    with pytest.raises(InvalidUpdateError, match=r"\ba\b"):
        colour.invoke(builder.compile(), {"a": "x"})


def long_chain(colour: Colour) -> None:
    names = [f"n{i}" for i in range(40)]
    builder = StateGraph(Trail).add_sequence([(name, stop(colour, name)) for name in names]).add_edge(START, "n0")
    assert colour.invoke(builder.compile(), {"trail": []}, {"recursion_limit": 50})["trail"] == names
