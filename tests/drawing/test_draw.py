"""Drawings from plain declarations: which nodes and edges (frontends.md 6.2), JSON and Mermaid text (6.3, 6.4)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pregel.constants import END, START
from pregel.drawing.draw import (
    CurveStyle,
    Edge,
    Graph,
    Node,
    NodeInfo,
    NodeStyles,
    build_channel_graph,
    build_entrypoint_graph,
    build_graph,
)

EXAMPLE_1 = """\
---
config:
  flowchart:
    curve: linear
---
graph TD;
	__start__([<p>__start__</p>]):::first
	a(a)
	b(b<hr/><small><em>__interrupt = before</em></small>)
	c(c<hr/><small><em>k = v
__interrupt = after</em></small>)
	__end__([<p>__end__</p>]):::last
	__start__ --> a;
	a -.-> b;
	a -.-> c;
	b --> __end__;
	c --> __end__;
	classDef default fill:#f2f0ff,line-height:1.2
	classDef first fill-opacity:0
	classDef last fill:#bfb6fc
"""

EXAMPLE_2 = """\
---
config:
  flowchart:
    curve: linear
---
graph TD;
	__start__([<p>__start__</p>]):::first
	a(a)
	c(c<hr/><small><em>defer = True</em></small>)
	__end__([<p>__end__</p>]):::last
	__start__ --> a;
	a -. &nbsp;stop&nbsp; .-> __end__;
	a -.-> c;
	a -. &nbsp;go&nbsp; .-> sub\\3ax;
	sub\\3ay\\20z --> c;
	c --> __end__;
	subgraph sub
	sub\\3ax(x)
	sub\\3ay\\20z(y z)
	sub\\3ax --> sub\\3ay\\20z;
	end
	classDef default fill:#f2f0ff,line-height:1.2
	classDef first fill-opacity:0
	classDef last fill:#bfb6fc
"""


def draw(
    names="", edges=(), branches=(), joins=(), defer="", ends=None, subgraphs=None, xray=False, **options
) -> Graph:
    ends, subgraphs = ends or {}, subgraphs or {}
    infos = [
        NodeInfo(name=name, defer=name in defer, ends=ends.get(name, ()), subgraph=subgraphs.get(name))
        for name in names
    ]
    return build_graph(infos, edges=edges, waiting_edges=joins, branches=branches, xray=xray, **options)


def arrows(graph: Graph) -> list[str]:
    """Edges as short text: `a>b` plain, `a~b` conditional, label after a colon."""
    return [
        f"{e.source}{'~' if e.conditional else '>'}{e.target}{f':{e.data}' if e.data is not None else ''}"
        for e in graph.edges
    ]


def same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def test_worked_example_with_a_typed_router_metadata_and_breakpoints():
    graph = build_graph(
        [NodeInfo(name="a"), NodeInfo(name="b"), NodeInfo(name="c", metadata={"k": "v"})],
        edges={("b", END), (START, "a"), ("c", END)},
        branches=[("a", same("b", "c"))],
        interrupt_before=["b"],
        interrupt_after=["c"],
    )
    assert graph.draw_mermaid() == EXAMPLE_1


def test_worked_example_with_an_expanded_subgraph():
    def inner(xray):
        return build_graph([NodeInfo(name="x"), NodeInfo(name="y z")], edges=[(START, "x"), ("x", "y z")], xray=xray)

    graph = build_graph(
        [NodeInfo(name="a"), NodeInfo(name="sub", subgraph=inner), NodeInfo(name="c", defer=True)],
        edges=[(START, "a"), ("sub", "c")],
        branches=[("a", {"go": "sub", "stop": END, "c": "c"})],
        xray=True,
    )
    assert graph.draw_mermaid() == EXAMPLE_2


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        # one edge per pair
        ({"branches": [("a", {"x": "b", "y": "b"})]}, ["__start__>a", "a~b:x", "b>__end__"]),
        ({"branches": [("a", {"x": "b"}), ("a", same("b"))]}, ["__start__>a", "a~b", "b>__end__"]),
        ({"edges": [("a", "b")], "branches": [("a", {"x": "b"})]}, ["__start__>a", "a~b:x", "b>__end__"]),
        ({"branches": [("a", {"b": "b", True: END})]}, ["__start__>a", "a~__end__:True", "a~b", "b>__end__"]),
        # targets that nobody declared
        ({"branches": [("a", None)]}, ["__start__>a", "a>__end__"]),
        ({"edges": [("b", "a")], "branches": [("a", None)]}, ["__start__>a", "a>__end__"]),
        # a node's own commands
        ({"ends": {"a": ("b", END)}}, ["__start__>a", "a~__end__", "a~b", "b>__end__"]),
        ({"ends": {"a": {"b": "label"}}}, ["__start__>a", "a~b:label", "b>__end__"]),
        ({"ends": {"a": {"b": "b"}}}, ["__start__>a", "a~b", "b>__end__"]),
        # declared ways to END
        ({"edges": [("a", "b"), ("a", END)]}, ["__start__>a", "a>b", "a>__end__", "b>__end__"]),
        ({"branches": [("a", same("a", END))]}, ["__start__>a", "a~__end__", "a~a"]),
        # joins
        (
            {"edges": [(START, "b")], "joins": [(["a", "b"], "c")]},
            ["__start__>a", "__start__>b", "a>c", "b>c", "c>__end__"],
        ),
        (
            {"edges": [(START, "b")], "joins": [(["a", "b"], END)]},
            ["__start__>a", "__start__>b", "a>__end__", "b>__end__"],
        ),
        # pure cycles: the node active at superstep 249 gets the way out
        ({"edges": [("a", "a")]}, ["__start__>a", "a>a", "a~__end__"]),
        ({"edges": [("a", "b"), ("b", "a")]}, ["__start__>a", "a>b", "b>a", "b~__end__"]),
        ({"edges": [("a", "b"), ("b", "c"), ("c", "a")]}, ["__start__>a", "a>b", "b>c", "c>a", "a~__end__"]),
        ({"edges": [("a", "b"), ("b", "c"), ("c", "b")]}, ["__start__>a", "a>b", "b>c", "c>b", "b~__end__"]),
        (
            {"edges": [("a", "b"), ("a", "c"), ("b", "a"), ("c", "a")]},
            ["__start__>a", "a>b", "a>c", "b>a", "c>a", "a~__end__"][:5],
        ),
        # deferred nodes
        ({"edges": [("a", "d")], "defer": "d"}, ["__start__>a", "a>d", "d>__end__"]),
        (
            {"edges": [("a", "b"), ("b", "c"), ("a", "d")], "defer": "d"},
            ["__start__>a", "a>b", "a>d", "b>c", "c~d", "d>__end__"],
        ),
        (
            {"edges": [("a", "d"), ("b", "a")], "branches": [("a", same("b", END))], "defer": "d"},
            ["__start__>a", "a~__end__", "a~b", "a>d", "b>a", "d>__end__"],
        ),
    ],
)
def test_edges(declared, expected):
    edges = [(START, "a"), *declared.pop("edges", [])]
    assert sorted(arrows(draw("abcd", edges, **declared))) == sorted(expected)


def test_edges_are_sorted_and_the_ways_to_end_come_last():
    graph = draw("AB", [(START, "A"), ("A", "B"), ("A", END)])
    assert arrows(graph) == ["A>B", "__start__>A", "A>__end__", "B>__end__"]


def test_nodes_keep_their_order_and_end_appears_only_when_reached():
    assert list(draw("ba", [(START, "a"), ("a", "b")]).nodes) == [START, "b", "a", END]
    two_at_once = draw("abc", [(START, "a"), ("a", "b"), ("a", "c"), ("b", "a"), ("c", "c")])
    assert END not in two_at_once.nodes


def test_start_only():
    assert arrows(draw("", [(START, END)])) == ["__start__>__end__"]
    assert arrows(draw("a", branches=[(START, None)])) == ["__start__~__end__"]


def test_metadata_marks_are_added_after_the_users_own():
    node = NodeInfo(name="a", metadata={"k": 1}, defer=True, tools=["t"])
    graph = build_graph([node], edges=[(START, "a")], interrupt_before=["a"], interrupt_after=["a"])
    assert graph.nodes["a"].metadata == {"k": 1, "defer": True, "__interrupt": "before,after", "__tools": ["t"]}
    assert node.metadata == {"k": 1}
    plain = build_graph([NodeInfo(name="a")], edges=[(START, "a")], interrupt_before="*")
    assert plain.nodes["a"].metadata is None


def test_a_long_chain_is_reached_to_its_end():
    names = [f"n{i}" for i in range(600)]
    graph = build_graph(
        [NodeInfo(name=name) for name in names],
        edges=[(START, "n0"), *pairwise(names)],
    )
    assert len(graph.edges) == 601
    assert graph.edges[-1] == Edge("n599", END)


def test_an_edge_to_an_undeclared_node_is_refused():
    with pytest.raises(KeyError, match="nowhere"):
        draw("a", [(START, "a"), ("a", "nowhere")])


# ---- nested graphs


def nested(names, *edges, **more):
    return lambda xray: draw(names, edges, xray=xray, **more)


def test_a_graph_of_one_node_is_expanded():
    graph = draw("s", [(START, "s")], subgraphs={"s": nested("x", (START, "x"))}, xray=True)
    assert list(graph.nodes) == [START, END, "s:x"]
    assert arrows(graph) == ["__start__>s:x", "s:x>__end__"]
    assert graph.nodes["s:x"].name == "x"


def test_ends_that_are_not_single_stay_inside():
    looped = nested("xy", (START, "x"), ("x", "y"), ("y", "x"), branches=[("y", {"e": END})])
    graph = draw("ts", [(START, "s"), ("s", "t")], subgraphs={"s": looped}, xray=True)
    assert list(graph.nodes) == [START, "t", END, "s:__start__", "s:x", "s:y", "s:__end__"]
    assert arrows(graph)[:3] == ["__start__>s:__start__", "s:__end__>t", "t>__end__"]
    text = graph.draw_mermaid()
    assert "\ts\\3a__start__(<p>__start__</p>)\n" in text
    assert text.count(":::first") == text.count(":::last") == 1


@pytest.mark.parametrize(
    ("xray", "inner"),
    [(False, []), (0, []), (1, ["s:m", "s:n"]), (2, ["s:m", "s:n:x", "s:n:y"]), (True, ["s:m", "s:n:x", "s:n:y"])],
)
def test_depth_of_expansion(xray, inner):
    deepest = nested("xy", (START, "x"), ("x", "y"))
    middle = nested("mn", (START, "m"), ("m", "n"), subgraphs={"n": deepest})
    graph = draw("s", [(START, "s")], subgraphs={"s": middle}, xray=xray)
    assert [node for node in graph.nodes if ":" in node] == inner


def test_loops_follow_the_other_edges_and_nested_loops_their_blocks():
    graph = draw(
        "abs",
        [(START, "a"), ("a", "a"), ("a", "s"), ("s", "s"), ("s", "b")],
        subgraphs={"s": nested("xy", (START, "x"), ("x", "y"))},
        xray=True,
    )
    assert graph.draw_mermaid(with_styles=False) == (
        "graph TD;\n"
        "\t__start__ --> a;\n"
        "\ta --> s\\3ax;\n"
        "\ts\\3ay --> b;\n"
        "\tb --> __end__;\n"
        "\ta --> a;\n"
        "\tsubgraph s\n"
        "\ts\\3ay --> s\\3ax;\n"
        "\ts\\3ax --> s\\3ay;\n"
        "\tend\n"
    )


def test_two_nested_graphs_of_one_name_are_refused():
    inner = nested("n", (START, "n"), subgraphs={"n": nested("xy", (START, "x"), ("x", "y"))})
    graph = draw("pq", [(START, "p"), ("p", "q")], subgraphs={"p": inner, "q": inner}, xray=True)
    with pytest.raises(ValueError, match="'n'"):
        graph.draw_mermaid()


# ---- other kinds of graph


def test_channels_graph():
    graph = build_channel_graph(
        [NodeInfo(name="two"), NodeInfo(name="one")],
        triggers={"one": ["in"], "two": ["mid"]},
        writes={"one": ["mid"], "two": ["out"]},
        input_channels=["in"],
    )
    assert list(graph.nodes) == ["two", "one", START, END]
    assert arrows(graph) == ["__start__>one", "one>two", "two>__end__"]


def test_entrypoint_graph():
    graph = build_entrypoint_graph(NodeInfo(name="fn"))
    assert list(graph.nodes) == ["fn", START, END]
    assert arrows(graph) == ["__start__>fn", "fn~__end__"]


# ---- text


def hand_made(ids, *edges, metadata=None) -> Graph:
    nodes = {i: Node(i, i.rpartition(":")[2], None, (metadata or {}).get(i)) for i in ids}
    return Graph(nodes, [Edge(*edge) for edge in edges])


def body(graph: Graph, **options) -> list[str]:
    text = graph.draw_mermaid(**options).partition("graph TD;\n")[2]
    return [line.strip("\t") for line in text.splitlines() if "classDef" not in line]


def test_names_are_escaped_in_ids_and_shown_in_labels():
    assert body(hand_made(["my node!", "né", "*b*", "_c_", "-e-", "x"])) == [
        "my\\20node\\21(my node!)",
        "n\\e9(né)",
        "\\2ab\\2a(<p>*b*</p>)",
        "_c_(<p>_c_</p>)",
        "-e-(-e-)",
        "x(x)",
    ]


def test_labels_show_only_plain_metadata():
    metadata = {"k": True, "l": [1, "x"], "d": {"z": 1}, "q": 'a"b<c>&;#é', "n": None, "f": 1.5, "m": [[1]]}
    assert body(hand_made(["a"], metadata={"a": metadata})) == [
        "a([a<hr/><small><em>k = True",
        "l = 1, x",
        "q = a#quot;b#60;c#62;&;#35;é",
        "f = 1.5</em></small>]):::last",
    ]


def test_long_labels_are_wrapped():
    graph = hand_made("ab", ("a", "b", "one two three four", True), ("b", "a", "x"))
    assert body(graph, wrap_label_n_words=3, with_styles=False) == [
        "a -. &nbsp;one two three&nbsp<br>&nbspfour&nbsp; .-> b;",
        "b -- &nbsp;x&nbsp; --> a;",
    ]


def test_front_matter_is_merged_and_sorted():
    config = {
        "config": {"theme": "dark", "flowchart": {"curve": "basis", "z": [1, 2]}},
        "title": "x: y",
        "n": 3,
        "no": None,
    }
    text = hand_made("ab", ("a", "b")).draw_mermaid(curve_style=CurveStyle.STEP, frontmatter_config=config)
    assert text.partition("graph TD;")[0] == (
        "---\nconfig:\n  flowchart:\n    curve: step\n    z:\n    - 1\n    - 2\n  theme: dark\n"
        "n: 3\n'no': null\ntitle: 'x: y'\n---\n"
    )


def test_colors_are_used():
    text = hand_made("ab", ("a", "b")).draw_mermaid(node_colors=NodeStyles("D", "F", "L"))
    assert text.endswith("\tclassDef default D\n\tclassDef first F\n\tclassDef last L\n")


def test_json():
    class Step:
        pass

    graph = Graph(
        {"a": Node("a", "a", Step(), {"k": 1}), END: Node(END, END)},
        [Edge("a", END, "done", True), Edge("a", "a")],
    )
    data = {"id": [*Step.__module__.split("."), "Step"], "name": "a"}
    assert graph.to_json() == {
        "nodes": [{"id": "a", "type": "runnable", "data": data, "metadata": {"k": 1}}, {"id": END}],
        "edges": [
            {"source": "a", "target": END, "data": "done", "conditional": True},
            {"source": "a", "target": "a"},
        ],
    }


# ---- the value object


def test_first_and_last_node():
    graph = hand_made("abc", ("a", "b"), ("b", "c"))
    assert (graph.first_node(), graph.last_node()) == (graph.nodes["a"], graph.nodes["c"])
    graph.nodes["alone"] = Node("alone", "alone")
    assert (graph.first_node(), graph.last_node()) == (None, None)


def test_trimming_needs_a_single_successor():
    chain = hand_made("abc", ("a", "b"), ("b", "c"))
    chain.trim_first_node()
    chain.trim_last_node()
    assert list(chain.nodes) == ["b"]
    for edges in [("ab", "ac"), ("ab", "ac", "cb"), ("ab", "ba", "bc")]:
        fork = hand_made("abc", *edges)
        fork.trim_first_node()
        assert list(fork.nodes) == ["a", "b", "c"]
    for edges in [("ac", "bc"), ("ac", "bc", "ab"), ("ab", "bc", "cb")]:
        merge = hand_made("abc", *edges)
        merge.trim_last_node()
        assert list(merge.nodes) == ["a", "b", "c"]


def test_building_by_hand():
    graph = Graph()
    assert not graph
    first, second = graph.add_node(len), graph.add_node(None, "q", metadata={"a": 1})
    assert (len(first.id), first.name, second.id, second.name) == (32, "len", "q", "q")
    assert graph.add_edge(first, second, "label") == Edge(first.id, "q", "label", False)
    with pytest.raises(ValueError, match="'q'"):
        graph.add_node(None, "q")
    with pytest.raises(ValueError, match="'other'"):
        graph.add_edge(first, Node("other", "other"))
    graph.remove_node(second)
    assert (list(graph.nodes), graph.edges) == ([first.id], [])


def test_extend_prefixes_ids_and_keeps_names():
    graph = hand_made("x", ("x", "x"))
    first, last = graph.extend(hand_made("xy", ("x", "y")), prefix="p")
    assert (first, last) == (graph.nodes["p:x"], graph.nodes["p:y"])
    assert [(node.id, node.name) for node in graph.nodes.values()] == [("x", "x"), ("p:x", "x"), ("p:y", "y")]
    assert graph.reid() == graph


def test_reid_gives_names_to_nodes_with_made_up_ids():
    graph = Graph()
    nodes = [graph.add_node(len), graph.add_node(len), graph.add_node(print), graph.add_node(None, "print_1")]
    graph.add_edge(nodes[0], nodes[3])
    assert list(graph.reid().nodes) == ["len_1", "len_2", "print", "print_1"]
    assert graph.draw_mermaid(with_styles=False) == "graph TD;\n\tlen_1 --> print_1;\n"
    shown = graph.to_json()
    assert [node["id"] for node in shown["nodes"]] == [0, 1, 2, "print_1"]
    assert shown["edges"] == [{"source": 0, "target": "print_1"}]


def test_reid_leaves_given_ids_alone():
    graph = Graph()
    graph.add_node(None, "len")
    made_up = graph.add_node(len)
    other = graph.add_node(len)
    graph.unknown.append(made_up.id)
    renamed = graph.reid()
    assert (list(renamed.nodes), renamed.unknown) == (["len", "len_1", "len_2"], ["len_1"])
    graph.remove_node(made_up)
    assert (list(graph.nodes), graph.unknown) == (["len", other.id], [])


# ---- ASCII


def test_ascii_shows_every_node_once_in_order_of_rows():
    graph = draw("abc", [(START, "a"), ("b", "c"), ("c", "a")], branches=[("a", same("b", "c", END))])
    lines = graph.draw_ascii().splitlines()
    rows = {name: [i for i, line in enumerate(lines) if f"| {name} |" in line] for name in graph.nodes}
    assert all(len(found) == 1 for found in rows.values())
    assert rows[START] < rows["a"] < rows["b"] < rows["c"]
    assert lines[-1] == "c --> a"  # the edge that points upwards


def test_ascii_marks_plain_and_conditional_edges():
    assert draw("a", [(START, "a")]).draw_ascii().count("*") > 0
    assert "." in draw("a", [(START, "a")], branches=[("a", same(END))]).draw_ascii()
    assert Graph().draw_ascii() == ""


def test_print_ascii(capsys):
    graph = draw("a", [(START, "a")])
    graph.print_ascii()
    assert capsys.readouterr().out == graph.draw_ascii() + "\n"


# ---- targets that nobody declared


def test_a_router_without_declared_targets_leads_anywhere():
    graph = draw("abc", [(START, "a"), ("b", "c")], branches=[("a", None), ("b", None)])
    assert graph.unknown == ["a", "b"]
    assert arrows(graph.with_unknown()) == ["__start__>a", "a~__end__", "a~?", "b~?"]
    assert "| any node |" in graph.draw_ascii()


def test_declared_edges_beside_such_a_router_stay_as_they_are():
    graph = draw("ab", [(START, "a"), ("a", "b"), ("a", END)], branches=[("a", None)])
    assert arrows(graph.with_unknown()) == ["__start__>a", "a>b", "a>__end__", "b>__end__", "a~?"]


def test_mermaid_and_json_show_undeclared_targets_on_request():
    graph = draw("a", [(START, "a")], branches=[("a", None)])
    assert graph.draw_mermaid(with_styles=False) == "graph TD;\n\t__start__ --> a;\n\ta --> __end__;\n"
    text = graph.draw_mermaid(unknown=True)
    assert "\t\\3f(any node)\n" in text
    assert "\ta -.-> __end__;\n\ta -.-> \\3f;\n" in text
    assert text.count(":::first") == text.count(":::last") == 1
    assert graph.to_json(unknown=True)["nodes"][-1] == {"id": "?"}
    assert [node["id"] for node in graph.to_json()["nodes"]] == [START, "a", END]


def test_undeclared_targets_stay_in_their_nested_graph():
    inner = nested("x", (START, "x"), branches=[("x", None)])
    graph = draw("st", [(START, "s"), ("s", "t")], subgraphs={"s": inner}, xray=True)
    assert graph.unknown == ["s:x"]
    assert "s:?" in graph.with_unknown().nodes


def test_a_router_behind_a_nested_graph_starts_at_its_end():
    inner = nested("xy", (START, "x"), ("x", "y"))
    graph = draw("s", [(START, "s")], branches=[("s", None)], subgraphs={"s": inner}, xray=True)
    assert graph.unknown == ["s:y"]


def test_ascii_shows_names_as_one_printable_line():
    assert "| a b\N{REPLACEMENT CHARACTER} |" in hand_made(["a\nb\x1b"]).draw_ascii()
