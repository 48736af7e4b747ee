"""Mermaid text of whole graphs: frontends.md 6.4, amendments C10-C12, A43, A44."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, Literal

import pytest
from typing_extensions import TypedDict

from pregel.graph import END, START, StateGraph
from pregel.types import Command


class State(TypedDict):
    l: Annotated[list[Any], operator.add]  # noqa: E741


def act(state: State) -> dict[str, Any]:
    return {"l": []}


def either(state: State) -> Literal["b", "c"]:
    return "b"


def anywhere(state: State) -> str:
    return "b"


def commanding(state: State) -> Command[Literal["b", "__end__"]]:
    return Command(goto="b")


def chain(*names: str, **options: Any) -> Any:
    builder = StateGraph(State)
    before = START
    for name in names:
        builder.add_node(name, act, **options).add_edge(before, name)
        before = name
    return builder


def holding(graph: Any, name: str = "s") -> Any:
    """START -> a -> the graph -> z."""
    builder = chain("a").add_node(name, graph).add_node("z", act)
    return builder.add_edge("a", name).add_edge(name, "z")


def branching(path: Any, path_map: Any = None) -> Any:
    builder = chain("a").add_node("b", act).add_node("c", act)
    return builder.add_conditional_edges("a", path, path_map)


def inner(*edges: tuple[str, str], nodes: str = "xyz") -> Any:
    builder = StateGraph(State)
    for name in nodes:
        builder.add_node(name, act)
    for source, target in edges:
        builder.add_edge(source, target)
    return builder.compile()


def body(text: str) -> list[str]:
    """Between the first and the last, fixed lines."""
    lines = text.split("graph TD;\n")[1].partition("\tclassDef default")[0].splitlines()
    return [line.removeprefix("\t") for line in lines]


def deep() -> Any:
    lowest = chain("p", "q z").compile()
    middle = chain("m").add_node("deep", lowest).add_edge("m", "deep").compile()
    outer = chain("o1").add_node("mid", middle).add_node("o2", act)
    outer = outer.add_edge("o1", "mid").add_edge("mid", "o2").compile()
    return chain("top").add_node("outer", outer).add_edge("top", "outer").compile()


def looped() -> Any:
    graph = chain("x", "y").add_conditional_edges("y", anywhere, ["x", END]).compile()
    builder = holding(graph).add_conditional_edges("a", anywhere, {"go": "s", "no": "z"})
    return builder.add_edge("z", "s").compile()


def forked() -> Any:
    builder = StateGraph(State).add_node("x", act).add_node("y", act)
    return holding(builder.add_conditional_edges(START, anywhere, ["x", "y"]).compile(), "my sub!").compile()


def deferred() -> Any:
    builder = chain("a", "b", "c").add_node("d", act, defer=True)
    return builder.add_edge("a", "d").compile()


METADATA = {"k": "v", "n": 1, "t": True, "none": None, "l": [1, "<x>"], "d": {"x": 1}, "q": "\"'&#;"}

CASES: dict[str, Any] = {
    "chain": lambda: chain("a", "b").compile(),
    "names": lambda: chain("my node!", "*b*", "_c_", "é", "Z", "x-y", "a&b", "<q>").compile(),
    "metadata": lambda: chain("a", metadata=METADATA).compile(interrupt_before=["a"]),
    "breakpoints": lambda: branching(either).compile(interrupt_before=["b", "c"], interrupt_after=["c"]),
    "literal": lambda: branching(either).compile(),
    "untyped": lambda: branching(anywhere).compile(),
    "labels": lambda: branching(anywhere, {"x": "b", "y": "b", "c": "c", True: END}).compile(),
    "list": lambda: branching(anywhere, ["b", "c", END]).compile(),
    "start": lambda: branching(anywhere).add_conditional_edges(START, either).compile(),
    "command": lambda: chain("b").add_node("a", commanding).add_edge("b", "a").compile(),
    "destinations": lambda: (
        chain("a", destinations={"b": "why", "c": "c"}).add_node("b", act).add_node("c", act).compile()
    ),
    "join": lambda: chain("a", "b").add_node("c", act).add_edge(["a", "b"], "c").compile(),
    "loop": lambda: chain("a").add_edge("a", "a").compile(),
    "cycle": lambda: chain("a", "b").add_edge("b", "a").compile(),
    "single": lambda: chain("a").compile(),
    "deferred": deferred,
    "deep": deep,
    "looped": looped,
    "forked": forked,
    "one inside": lambda: holding(chain("x").compile()).compile(),
    "several entries": lambda: holding(inner((START, "x"), (START, "y"), ("x", "y"), ("y", "z"))).compile(),
    "several ends": lambda: holding(inner((START, "x"), ("x", "y"), ("x", "z"))).compile(),
    "loop inside": lambda: holding(inner((START, "x"), ("x", "x"), nodes="x")).compile(),
}


def drawn(name: str) -> str:
    return str(CASES[name]().get_graph(xray=True).draw_mermaid())


EXPECTED: dict[str, list[str]] = {
    "chain": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "b(b)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a --> b;",
        "b --> __end__;",
    ],
    "names": [
        "__start__([<p>__start__</p>]):::first",
        "my\\20node\\21(my node!)",
        "\\2ab\\2a(<p>*b*</p>)",
        "_c_(<p>_c_</p>)",
        "\\e9(é)",
        "Z(Z)",
        "x-y(x-y)",
        "a\\26b(a&b)",
        "\\3cq\\3e(<q>)",
        "__end__([<p>__end__</p>]):::last",
        "\\2ab\\2a --> _c_;",
        "Z --> x-y;",
        "__start__ --> my\\20node\\21;",
        "_c_ --> \\e9;",
        "a\\26b --> \\3cq\\3e;",
        "my\\20node\\21 --> \\2ab\\2a;",
        "x-y --> a\\26b;",
        "\\e9 --> Z;",
        "\\3cq\\3e --> __end__;",
    ],
    "metadata": [
        "__start__([<p>__start__</p>]):::first",
        "a(a<hr/><small><em>k = v",
        "n = 1",
        "t = True",
        "l = 1, #60;x#62;",
        "q = #quot;'&#35;;",
        "__interrupt = before</em></small>)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a --> __end__;",
    ],
    "breakpoints": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "b(b<hr/><small><em>__interrupt = before</em></small>)",
        "c(c<hr/><small><em>__interrupt = before,after</em></small>)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a -.-> b;",
        "a -.-> c;",
        "b --> __end__;",
        "c --> __end__;",
    ],
    "literal": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "b(b)",
        "c(c)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a -.-> b;",
        "a -.-> c;",
        "b --> __end__;",
        "c --> __end__;",
    ],
    "untyped": [
        "__start__(<p>__start__</p>)",
        "a(a)",
        "b(b)",
        "c(c)",
        "__end__(<p>__end__</p>)",
        "__start__ --> a;",
        "a --> __end__;",
    ],
    "labels": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "b(b)",
        "c(c)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a -. &nbsp;True&nbsp; .-> __end__;",
        "a -. &nbsp;x&nbsp; .-> b;",
        "a -.-> c;",
        "b --> __end__;",
        "c --> __end__;",
    ],
    "list": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "b(b)",
        "c(c)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a -.-> __end__;",
        "a -.-> b;",
        "a -.-> c;",
        "b --> __end__;",
        "c --> __end__;",
    ],
    "start": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "b(b)",
        "c(c)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "__start__ -.-> b;",
        "__start__ -.-> c;",
        "a --> __end__;",
        "b --> __end__;",
        "c --> __end__;",
    ],
    "command": [
        "__start__([<p>__start__</p>]):::first",
        "b(b)",
        "a(a)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> b;",
        "a -.-> __end__;",
        "a -.-> b;",
        "b --> a;",
    ],
    "destinations": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "b(b)",
        "c(c)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a -. &nbsp;why&nbsp; .-> b;",
        "a -.-> c;",
        "b --> __end__;",
        "c --> __end__;",
    ],
    "join": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "b(b)",
        "c(c)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a --> b;",
        "a --> c;",
        "b --> c;",
        "c --> __end__;",
    ],
    "loop": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a -.-> __end__;",
        "a --> a;",
    ],
    "cycle": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "b(b)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a --> b;",
        "b --> a;",
        "b -.-> __end__;",
    ],
    "single": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a --> __end__;",
    ],
    "deferred": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "b(b)",
        "c(c)",
        "d(d<hr/><small><em>defer = True</em></small>)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a --> b;",
        "a --> d;",
        "b --> c;",
        "c -.-> d;",
        "d --> __end__;",
    ],
    "deep": [
        "__start__([<p>__start__</p>]):::first",
        "top(top)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> top;",
        "top --> outer\\3ao1;",
        "outer\\3ao2 --> __end__;",
        "subgraph outer",
        "outer\\3ao1(o1)",
        "outer\\3ao2(o2)",
        "outer\\3amid\\3adeep\\3aq\\20z --> outer\\3ao2;",
        "outer\\3ao1 --> outer\\3amid\\3am;",
        "subgraph mid",
        "outer\\3amid\\3am(m)",
        "outer\\3amid\\3am --> outer\\3amid\\3adeep\\3ap;",
        "subgraph deep",
        "outer\\3amid\\3adeep\\3ap(p)",
        "outer\\3amid\\3adeep\\3aq\\20z(q z)",
        "outer\\3amid\\3adeep\\3ap --> outer\\3amid\\3adeep\\3aq\\20z;",
        "end",
        "end",
        "end",
    ],
    "looped": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "z(z)",
        "__start__ --> a;",
        "a -. &nbsp;go&nbsp; .-> s\\3a__start__;",
        "a -. &nbsp;no&nbsp; .-> z;",
        "s\\3a__end__ --> z;",
        "z --> s\\3a__start__;",
        "subgraph s",
        "s\\3a__start__(<p>__start__</p>)",
        "s\\3ax(x)",
        "s\\3ay(y)",
        "s\\3a__end__(<p>__end__</p>)",
        "s\\3a__start__ --> s\\3ax;",
        "s\\3ax --> s\\3ay;",
        "s\\3ay -.-> s\\3a__end__;",
        "s\\3ay -.-> s\\3ax;",
        "end",
    ],
    "forked": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "z(z)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a --> my\\20sub\\21\\3a__start__;",
        "my\\20sub\\21\\3a__end__ --> z;",
        "z --> __end__;",
        "subgraph my sub!",
        "my\\20sub\\21\\3a__start__(<p>__start__</p>)",
        "my\\20sub\\21\\3ax(x)",
        "my\\20sub\\21\\3ay(y)",
        "my\\20sub\\21\\3a__end__(<p>__end__</p>)",
        "my\\20sub\\21\\3a__start__ -.-> my\\20sub\\21\\3ax;",
        "my\\20sub\\21\\3a__start__ -.-> my\\20sub\\21\\3ay;",
        "my\\20sub\\21\\3ax --> my\\20sub\\21\\3a__end__;",
        "my\\20sub\\21\\3ay --> my\\20sub\\21\\3a__end__;",
        "end",
    ],
    "one inside": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "z(z)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a --> s\\3ax;",
        "s\\3ax --> z;",
        "z --> __end__;",
        "subgraph s",
        "s\\3ax(x)",
        "end",
    ],
    "several entries": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "z(z)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a --> s\\3a__start__;",
        "s\\3az --> z;",
        "z --> __end__;",
        "subgraph s",
        "s\\3a__start__(<p>__start__</p>)",
        "s\\3ax(x)",
        "s\\3ay(y)",
        "s\\3az(z)",
        "s\\3a__start__ --> s\\3ax;",
        "s\\3a__start__ --> s\\3ay;",
        "s\\3ax --> s\\3ay;",
        "s\\3ay --> s\\3az;",
        "end",
    ],
    "several ends": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "z(z)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a --> s\\3ax;",
        "s\\3a__end__ --> z;",
        "z --> __end__;",
        "subgraph s",
        "s\\3ax(x)",
        "s\\3ay(y)",
        "s\\3az(z)",
        "s\\3a__end__(<p>__end__</p>)",
        "s\\3ax --> s\\3ay;",
        "s\\3ax --> s\\3az;",
        "s\\3ay --> s\\3a__end__;",
        "s\\3az --> s\\3a__end__;",
        "end",
    ],
    "loop inside": [
        "__start__([<p>__start__</p>]):::first",
        "a(a)",
        "z(z)",
        "__end__([<p>__end__</p>]):::last",
        "__start__ --> a;",
        "a --> s\\3a__start__;",
        "s\\3a__end__ --> z;",
        "z --> __end__;",
        "subgraph s",
        "s\\3a__start__(<p>__start__</p>)",
        "s\\3ax(x)",
        "s\\3a__end__(<p>__end__</p>)",
        "s\\3a__start__ --> s\\3ax;",
        "s\\3ax -.-> s\\3a__end__;",
        "s\\3ax --> s\\3ax;",
        "end",
    ],
}


@pytest.mark.parametrize("name", CASES)
def test_text_of(name: str) -> None:
    assert body(drawn(name)) == EXPECTED[name]


@pytest.mark.parametrize(("xray", "count"), [(False, 0), (0, 0), (1, 1), (2, 2), (3, 3), (9, 3), (True, 3)])
def test_depth(xray: int, count: int) -> None:
    assert deep().get_graph(xray=xray).draw_mermaid().count("\tsubgraph ") == count


def test_long_labels_are_wrapped() -> None:
    label = "a long label with many many words in it indeed"
    graph = branching(anywhere, {label: "b", "c": "c"}).compile().get_graph()
    assert f"\ta -. &nbsp;{label.replace(' indeed', '&nbsp<br>&nbspindeed')}&nbsp; .-> b;\n" in graph.draw_mermaid()
    assert "&nbsp;a long&nbsp<br>&nbsplabel with&nbsp<br>" in graph.draw_mermaid(wrap_label_n_words=2)
    spaced = branching(anywhere, {"x  y": "b", "c": "c"}).compile().get_graph()
    assert "\ta -. &nbsp;x  y&nbsp; .-> b;\n" in spaced.draw_mermaid()


def test_two_nested_graphs_of_one_name() -> None:
    same = chain("x").add_node("deep", chain("p", "q").compile()).add_edge("x", "deep").compile()
    graph = chain("a").add_node("s", same).add_node("t", same).add_edge("a", "s").add_edge("s", "t").compile()
    with pytest.raises(ValueError, match="deep"):
        graph.get_graph(xray=True).draw_mermaid()
    assert graph.get_graph(xray=1).draw_mermaid().count("\tsubgraph ") == 2
    assert graph.get_graph(xray=True).draw_svg()


def test_names_in_json_are_ids() -> None:
    shown = deep().get_graph(xray=1).to_json()
    assert [(node["id"], node.get("data", {}).get("name")) for node in shown["nodes"]] == [
        ("__start__", "__start__"),
        ("top", "top"),
        ("__end__", None),
        ("outer:o1", "outer:o1"),
        ("outer:mid", "outer:mid"),
        ("outer:o2", "outer:o2"),
    ]


def test_both_colours_draw_the_same() -> None:
    graph = deep()
    assert asyncio.run(graph.aget_graph(xray=2)) == graph.get_graph(xray=2)


def test_a_compiled_graph_shows_itself_in_a_notebook() -> None:
    graph = branching(anywhere).compile()
    shown = graph._repr_mimebundle_()
    assert shown == {"image/svg+xml": graph.get_graph().draw_svg(), "text/plain": repr(graph)}
