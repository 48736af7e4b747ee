"""The SVG picture: well-formed and self-contained whatever the names are, and laid out so that it can be read."""

from __future__ import annotations

import re
import sys
import types
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pregel.constants import END, START
from pregel.drawing.draw import Edge, Graph, Node
from pregel.drawing.layers import arrange
from tests.drawing.test_draw import draw, hand_made, nested, same

NAME = "{http://www.w3.org/2000/svg}"


def parsed(graph: Graph, **options: object) -> ET.Element:
    return ET.fromstring(graph.draw_svg(**options))


def rect(element: ET.Element) -> tuple[float, float, float, float]:
    """Left, top, right, bottom."""
    found = element.find(f"{NAME}rect")
    assert found is not None
    x, y, width, height = (float(found.get(key, "")) for key in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def boxes(root: ET.Element) -> dict[str, tuple[float, float, float, float]]:
    """Where each node stands, by id."""
    return {
        group.findtext(f"{NAME}title", ""): rect(group)
        for group in root.iter(f"{NAME}g")
        if group.get("class") in ("node", "first", "last", "any")
    }


def frames(root: ET.Element) -> dict[str, tuple[float, float, float, float]]:
    return {g.findtext(f"{NAME}text", ""): rect(g) for g in root.iter(f"{NAME}g") if g.get("class") == "graph"}


def lines(root: ET.Element) -> Iterator[tuple[str, str, list[float]]]:
    """Per edge: its title, its kind, the coordinates of its path."""
    for path in root.iter(f"{NAME}path"):
        if path.get("class"):
            numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path.get("d", ""))]
            yield path.findtext(f"{NAME}title", ""), path.get("class", ""), numbers


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_nodes_edges_and_labels_are_all_there():
    graph = draw("abc", [(START, "a"), ("b", "a"), ("c", END)], branches=[("a", {"go on": "b", "c": "c"})])
    root = parsed(graph)
    assert root.tag == f"{NAME}svg"
    assert list(boxes(root)) == [START, "a", "b", "c", END]
    assert {title: kind for title, kind, _ in lines(root)} == {
        "__start__ to a": "plain",
        "a to b": "conditional",
        "a to c": "conditional",
        "b to a": "plain",
        "c to __end__": "plain",
    }
    assert [g.findtext(f"{NAME}text") for g in root.iter(f"{NAME}g") if g.get("class") == "label"] == ["go on"]
    dashed = [p for p in root.iter(f"{NAME}path") if p.get("stroke-dasharray")]
    assert len(dashed) == 2


def test_edges_leave_their_source_and_arrive_at_their_target():
    graph = draw("abcd", [(START, "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("a", "d"), ("b", "a")])
    root = parsed(graph)
    at = boxes(root)
    for title, _, numbers in lines(root):
        source, target = title.split(" to ")
        for node, x, y in ((source, *numbers[:2]), (target, *numbers[-2:])):
            left, top, right, bottom = at[node]
            assert left <= x <= right
            assert y in (top, bottom)


def test_two_edges_between_the_same_nodes_are_told_apart():
    root = parsed(draw("ab", [(START, "a"), ("a", "b"), ("b", "a")]))
    there, back = (numbers for title, _, numbers in lines(root) if title in ("a to b", "b to a"))
    assert there[0] != back[-2]


def test_nested_graphs_are_framed():
    deepest = nested("xy", (START, "x"), ("x", "y"))
    middle = nested("mn", (START, "m"), ("m", "n"), subgraphs={"n": deepest})
    graph = draw("ast", [(START, "a"), ("a", "s"), ("s", "t"), ("s", "s")], subgraphs={"s": middle}, xray=True)
    root = parsed(graph)
    at, framed = boxes(root), frames(root)
    assert list(framed) == ["s", "n"]
    for node, place in at.items():
        for name, frame in framed.items():
            inside = frame[0] <= place[0] and frame[1] <= place[1] and place[2] <= frame[2] and place[3] <= frame[3]
            assert inside is (name in node.split(":")[:-1])
            assert inside or not overlap(place, frame)
    assert [text.text for text in root.iter(f"{NAME}text")].count("x") == 1


@pytest.mark.parametrize("is_back", [False, True])
def test_edges_go_round_the_other_nodes_of_a_nested_graph(is_back: bool):
    graph = hand_made(["t", "s:x", "s:y", "s:z"], ("s:x", "s:y"), ("s:y", "s:z"), ("t", "s:x"))
    graph.edges.append(Edge("s:z", "t") if is_back else Edge("t", "s:z"))
    root = parsed(graph)
    at = boxes(root)
    ((_, _, numbers),) = (line for line in lines(root) if line[0] == ("s:z to t" if is_back else "t to s:z"))
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    assert (points[0] if is_back else points[-1])[0] == at["s:z"][2]
    assert max(x for x, _ in points) > max(at[name][2] for name in ("s:x", "s:y", "s:z"))


def test_undeclared_targets_are_shown():
    root = parsed(draw("ab", [(START, "a")], branches=[("a", None)]))
    assert [g.findtext(f"{NAME}text") for g in root.iter(f"{NAME}g") if g.get("class") == "any"] == ["any node"]
    assert ("a to ?", "conditional") in [(title, kind) for title, kind, _ in lines(root)]


def test_facts_about_a_node_stand_below_its_name():
    node = Node("a", "a", None, {"k": "v", "n": 1, "hidden": {}, "__interrupt": "before"})
    (group,) = (g for g in parsed(Graph({"a": node})).iter(f"{NAME}g") if g.get("class"))
    assert [text.text for text in group.iter(f"{NAME}text")] == ["a", "k = v", "n = 1", "__interrupt = before"]


def test_loops_and_their_labels():
    root = parsed(hand_made("a", ("a", "a", "again", True)))
    assert [(title, kind) for title, kind, _ in lines(root)] == [("a to a", "conditional")]
    assert "again" in [text.text for text in root.iter(f"{NAME}text")]


def test_an_empty_graph_and_a_single_node():
    assert list(parsed(Graph())) != []
    assert list(boxes(parsed(hand_made("a")))) == ["a"]


HOSTILE = [
    "</text></svg><script>alert(1)</script>",
    "\"'><image href='http://example.com/x.png'/>",
    "&lt;&amp;<![CDATA[",
    "a\x00b\x1b[31m\ud800\ufffe",
    "\u202eevil\u2066",
    "--><!-- ]]>",
    "javascript:alert(1)",
    "",
    "name " * 500,
    "\n\n",
    "?",
    "é中文🙂",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str):
    graph = Graph(
        {"a": Node("a", text, None, {text: text}), text: Node(text, text), f"{text}:x": Node(f"{text}:x", text)},
        [Edge("a", text, text, True), Edge(text, f"{text}:x", text), Edge("a", "a", text)],
    )
    root = parsed(graph, background_color=text)
    allowed = {"svg", "g", "rect", "path", "text", "title", "defs", "marker"}
    assert {element.tag.removeprefix(NAME) for element in root.iter()} <= allowed
    for element in root.iter():
        assert not [key for key in element.attrib if key.startswith("on") or "href" in key or key == "style"]
        for key, value in element.attrib.items():
            assert "url(" not in value or value == "url(#arrow)" or key == "fill"
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", graph.draw_svg())


names = st.text(max_size=8)


@settings(max_examples=40, deadline=None)
@given(
    ids=st.lists(names, min_size=1, max_size=8, unique=True),
    ends=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.none() | names, st.booleans()), max_size=16),
)
def test_any_graph_gives_a_readable_document(ids: list[str], ends: list[tuple[int, int, str | None, bool]]):
    graph = Graph({name: Node(name, name) for name in ids})
    graph.edges = [Edge(ids[a % len(ids)], ids[b % len(ids)], label, dashed) for a, b, label, dashed in ends]
    root = parsed(graph)
    places = [rect(g) for g in root.iter(f"{NAME}g") if g.get("class") in ("node", "first", "last")]
    assert len(places) == len(ids)
    assert not [pair for pair in combinations(places, 2) if overlap(*pair)]
    assert len(list(lines(root))) == len(graph.edges)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert all(0 <= x <= right <= width + 1 and 0 <= y <= bottom <= height + 1 for x, y, right, bottom in places)
    assert graph.draw_svg() == graph.draw_svg()
    graph.draw_ascii()


def test_rows_go_down_one_at_a_time():
    edges = [Edge("a", "b"), Edge("b", "c"), Edge("a", "c"), Edge("c", "a"), Edge("b", "b")]
    layers = arrange("abc", edges, turn=True)
    row_of = {cell: i for i, row in enumerate(layers.rows) for cell in row}
    for route in layers.routes:
        assert [row_of[cell] for cell in route.cells] == list(
            range(row_of[route.cells[0]], row_of[route.cells[-1]] + 1)
        )
    assert [(route.edge, route.turned) for route in layers.routes if route.turned] == [(Edge("c", "a"), True)]
    assert layers.rest == [Edge("b", "b")]
    assert arrange("abc", edges).rest == [Edge("c", "a"), Edge("b", "b")]


def test_a_wide_and_long_graph_is_drawn_in_a_moment():
    names = [f"n{i}" for i in range(300)]
    edges = [Edge(a, b) for a, b in pairwise(names)]
    edges += [Edge(names[i], names[(i * 7) % 300]) for i in range(0, 300, 10)]
    root = parsed(Graph({name: Node(name, name) for name in names}, edges))
    assert len(boxes(root)) == 300


# ---- files, notebooks, PNG


def test_it_is_written_to_a_file(tmp_path):
    graph = draw("é", [(START, "é")])
    text = graph.draw_svg(str(tmp_path / "a.svg"), background_color="none")
    assert (tmp_path / "a.svg").read_text("utf-8") == text
    assert 'fill="none"/>\n' not in text.splitlines()[3]


def test_notebooks_show_it():
    graph = draw("a", [(START, "a")], branches=[("a", same("a", END))])
    assert graph._repr_mimebundle_() == {"image/svg+xml": graph.draw_svg(), "text/plain": graph.draw_ascii()}
    assert graph._repr_svg_() == graph.draw_svg()


@pytest.mark.parametrize("method", ["draw_png", "draw_mermaid_png"])
def test_a_png_needs_an_optional_package(method, monkeypatch):
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    with pytest.raises(ImportError, match="cairosvg"):
        getattr(draw("a", [(START, "a")]), method)()


def test_a_png_is_made_from_the_svg(tmp_path, monkeypatch):
    given: list[bytes] = []
    fake = types.ModuleType("cairosvg")
    fake.svg2png = lambda *, bytestring: given.append(bytestring) or b"png"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cairosvg", fake)
    graph = draw("a", [(START, "a")])
    assert graph.draw_png(str(tmp_path / "a.png")) == b"png"
    assert (tmp_path / "a.png").read_bytes() == b"png"
    assert graph.draw_mermaid_png(draw_method="api", max_retries=5, background_color="red", padding=3) == b"png"
    assert given == [
        graph.draw_svg().encode(),
        graph.draw_svg(background_color="red", padding=3).encode(),
    ]
