"""Pictures of a graph: which nodes and edges to show, and the same as JSON, Mermaid or ASCII text.

Decides what a drawing contains (frontends.md 6.1-6.4, amendments C10-C12, A43, A44, II.1 row 2; design.md D60) and how
it is written as JSON; `mermaid.py`, `boxes.py` and `svg.py` write the other forms. Works on plain data: names, pairs of
names, labels. It knows neither builders nor engines, runs no user code, and never touches a network; the front ends call
`build_graph`, `build_channel_graph` or `build_entrypoint_graph` with what they have declared.

Targets that nobody declared (a router without annotation and path map) are kept in `Graph.unknown`. ASCII and SVG show
them as a dashed edge to "any node". Mermaid text and JSON do so on request only: programs compare them with what
LangGraph gives, which draws nothing there.

Invariants:
1. The same declarations give the same text: nodes keep their order, edges are sorted by (source, target).
2. At most one edge per (source, target); a conditional one beats a plain one, no label beats a label, then the
   smallest label wins.
3. Every declared edge that leaves a reached node is drawn; a node that nothing declared can reach has no edges.

Which nodes are reached is found by walking supersteps over the declared edges (joins wait for all their sources,
deferred nodes for everything else), as a run would.
"""

from __future__ import annotations

import importlib
import os
import re
import types
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pregel.constants import END, START
from pregel.drawing.boxes import boxes
from pregel.drawing.mermaid import CurveStyle, Mermaid, NodeStyles, front_matter, parent
from pregel.drawing.picture import ANY, Edge, Node

__all__ = [
    "CurveStyle",
    "Edge",
    "Graph",
    "Node",
    "NodeInfo",
    "NodeStyles",
    "build_channel_graph",
    "build_entrypoint_graph",
    "build_graph",
]

# A pure cycle gets its way out drawn from the node that would be active at this superstep (amendments II.1 row 2).
# Longer graphs are walked to their end, so that the limit never hides a node.
_WALK_STEPS = 249


@dataclass
class Graph:
    """A drawable graph: nodes by id in drawing order, and edges in drawing order.

    A plain value: changing it changes only the picture.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Ids of nodes whose router does not say where it goes."""

    def __bool__(self) -> bool:
        return bool(self.nodes)

    def next_id(self) -> str:
        """A new id, 32 hex digits; pictures show the name of a node that has one (`reid`)."""
        return os.urandom(16).hex()

    def add_node(self, data: object, id: str | None = None, *, metadata: dict[str, object] | None = None) -> Node:
        """Append a node and return it; without `id` it gets a new one, and the name of `data`.

        Raises:
            ValueError: a node with this id exists.
        """
        node_id = id if id is not None else self.next_id()
        if node_id in self.nodes:
            raise ValueError(f"graph drawing already has a node {node_id!r}; ids must differ, pass another id=")
        node = Node(node_id, _name_of(data) if id is None else node_id, data, metadata)
        self.nodes[node_id] = node
        return node

    def add_edge(self, source: Node, target: Node, data: object = None, conditional: bool = False) -> Edge:
        """Append an edge between two nodes of this graph and return it.

        Raises:
            ValueError: one of the nodes is not in the graph.
        """
        for role, node in (("source", source), ("target", target)):
            if node.id not in self.nodes:
                raise ValueError(f"{role} node {node.id!r} is not in this drawing; add it with add_node first")
        edge = Edge(source.id, target.id, data, conditional)
        self.edges.append(edge)
        return edge

    def remove_node(self, node: Node) -> None:
        """Remove a node and every edge that touches it."""
        self.nodes.pop(node.id, None)
        self.edges = [edge for edge in self.edges if node.id not in (edge.source, edge.target)]
        self.unknown = [source for source in self.unknown if source != node.id]

    def first_node(self) -> Node | None:
        """The only node without incoming edges, or None when there are several or none."""
        return _only(self._unlinked(targets=True))

    def last_node(self) -> Node | None:
        """The only node without outgoing edges, or None when there are several or none."""
        return _only(self._unlinked(targets=False))

    def trim_first_node(self) -> None:
        """Remove the first node if all its edges lead to one node, which takes its place as the first."""
        first = self.first_node()
        heir = first and _only(self._unlinked(targets=True, without=first.id))
        if first and heir and {edge.target for edge in self.edges if edge.source == first.id} == {heir.id}:
            self.remove_node(first)

    def trim_last_node(self) -> None:
        """Remove the last node if all its edges come from one node, which takes its place as the last."""
        last = self.last_node()
        heir = last and _only(self._unlinked(targets=False, without=last.id))
        if last and heir and {edge.source for edge in self.edges if edge.target == last.id} == {heir.id}:
            self.remove_node(last)

    def extend(self, graph: Graph, *, prefix: str = "") -> tuple[Node | None, Node | None]:
        """Append another graph, its ids prefixed with `prefix:`; return its first and last node as they are here."""
        lead = f"{prefix}:" if prefix else ""
        moved = {node.id: node._replace(id=lead + node.id) for node in graph.nodes.values()}
        self.nodes.update((node.id, node) for node in moved.values())
        self.edges.extend(edge._replace(source=lead + edge.source, target=lead + edge.target) for edge in graph.edges)
        self.unknown += [lead + source for source in graph.unknown]
        first, last = graph.first_node(), graph.last_node()
        return (moved[first.id] if first else None), (moved[last.id] if last else None)

    def reid(self) -> Graph:
        """A copy in which made-up ids (`next_id`) give way to names: `_1`, `_2`, ... behind those that occur more often."""
        names: dict[str, int] = {}
        for node in self.nodes.values():
            name = node.name if _is_made_up(node.id) else node.id
            names[name] = names.get(name, 0) + 1
        taken = {node_id for node_id in self.nodes if not _is_made_up(node_id)}
        given: dict[str, int] = {}
        new_ids: dict[str, str] = {}
        for node in self.nodes.values():
            new = node.id
            if _is_made_up(node.id):
                new = node.name
                while new in taken or (new == node.name and names[new] > 1):
                    given[node.name] = number = given.get(node.name, 0) + 1
                    new = f"{node.name}_{number}"
                taken.add(new)
            new_ids[node.id] = new
        return Graph(
            {new_ids[node.id]: node._replace(id=new_ids[node.id]) for node in self.nodes.values()},
            [edge._replace(source=new_ids[edge.source], target=new_ids[edge.target]) for edge in self.edges],
            [new_ids[source] for source in self.unknown],
        )

    def with_unknown(self) -> Graph:
        """A copy with a node "any node" in each graph that has a router of undeclared targets, and edges to it.

        Where nothing else was known of a router's node, its way to the end is one of several: it becomes conditional.
        """
        whole = Graph(dict(self.nodes), list(self.edges))
        for source in self.unknown:
            onward = [edge for edge in self.edges if edge.source == source]
            if len(onward) == 1 and onward[0].target.rpartition(":")[2] == END:
                whole.edges[whole.edges.index(onward[0])] = onward[0]._replace(conditional=True)
            lead = f"{parent(source)}:" if parent(source) else ""
            stand_in = Node(f"{lead}?", "any node", ANY)
            whole.nodes[stand_in.id] = stand_in
            whole.edges.append(Edge(source, stand_in.id, None, True))
        return whole

    def to_json(self, *, with_schemas: bool = False, unknown: bool = False) -> dict[str, list[dict[str, object]]]:
        """Nodes and edges as JSON-ready dicts; made-up ids (`next_id`) are given as the node's position.

        With `with_schemas` a node whose data is a pydantic model class is given as its JSON schema. `unknown` adds the
        stand-ins for undeclared targets (`with_unknown`).
        """
        whole = self.with_unknown() if unknown else self
        ids = {node_id: i if _is_made_up(node_id) else node_id for i, node_id in enumerate(whole.nodes)}
        return {
            "nodes": [_node_json(node, ids[node.id], with_schemas) for node in whole.nodes.values()],
            "edges": [_edge_json(edge, ids) for edge in whole.edges],
        }

    def draw_mermaid(
        self,
        *,
        with_styles: bool = True,
        curve_style: CurveStyle = CurveStyle.LINEAR,
        node_colors: NodeStyles | None = None,
        wrap_label_n_words: int = 9,
        frontmatter_config: Mapping[str, object] | None = None,
        unknown: bool = False,
    ) -> str:
        r"""The graph as Mermaid flowchart text that ends with one newline.

        Args:
            with_styles: False gives only the edges, without front matter, node lines and classes.
            curve_style: how edges bend.
            node_colors: style definitions; the default is a light violet.
            wrap_label_n_words: words per line of an edge label.
            frontmatter_config: merged into the YAML head, for example `{"config": {"theme": "dark"}}`.
            unknown: also draw the stand-ins for undeclared targets (`with_unknown`).

        Raises:
            ValueError: two nested graphs have the same name, which Mermaid would draw as one.
        """
        named = self.reid()
        whole = named.with_unknown() if unknown else named
        writer = Mermaid(
            whole.nodes,
            whole.edges,
            named.first_node(),
            named.last_node(),
            with_nodes=with_styles,
            words_per_line=wrap_label_n_words,
        )
        if not with_styles:
            return "".join(["graph TD;\n", *writer.edges()])
        styles = node_colors or NodeStyles()
        return "".join(
            [
                front_matter(curve_style, frontmatter_config or {}),
                "graph TD;\n",
                *writer.node_lines(""),
                *writer.edges(),
                f"\tclassDef default {styles.default}\n",
                f"\tclassDef first {styles.first}\n",
                f"\tclassDef last {styles.last}\n",
            ]
        )

    def draw_ascii(self) -> str:
        """The graph as text: boxes top to bottom, plain edges `*`, conditional edges `.`.

        Edges that point upwards and loops would clutter the picture; they are listed below it.
        """
        whole = self.reid().with_unknown()
        return boxes(whole.nodes, whole.edges)

    def print_ascii(self) -> None:
        """Print `draw_ascii()`."""
        print(self.draw_ascii())  # noqa: T201 - printing is this method's purpose

    def draw_svg(
        self, output_file_path: str | None = None, *, background_color: str = "white", padding: int = 12
    ) -> str:
        """The graph as a standalone SVG document, made here: no network, no browser, no package.

        Conditional edges are dashed, undeclared targets lead to "any node", nested graphs (`xray`) are framed.

        Args:
            output_file_path: where to write it as well, in UTF-8.
            background_color: "none" for a transparent picture.
            padding: pixels around the drawing.
        """
        named = self.reid()
        whole = named.with_unknown()
        first, last = named.first_node(), named.last_node()
        text: str = _svg().svg(whole.nodes, whole.edges, first, last, background=background_color, padding=padding)
        if output_file_path is not None:
            with open(output_file_path, "w", encoding="utf-8") as file:
                file.write(text)
        return text

    def draw_png(
        self, output_file_path: str | None = None, fontname: str | None = None, labels: object = None
    ) -> bytes:
        """`draw_svg` as a PNG image, made here by the optional package `cairosvg`.

        Args:
            output_file_path: where to write it as well.
            fontname: not used; the picture's own fonts are.
            labels: not used; rename the nodes of this value instead.

        Raises:
            ImportError: the package is not installed; `draw_svg` needs none.
        """
        return self._png(output_file_path, self.draw_svg())

    def draw_mermaid_png(
        self,
        *,
        output_file_path: str | None = None,
        background_color: str | None = "white",
        padding: int = 10,
        **ignored: object,
    ) -> bytes:
        """The same picture as `draw_png`, under the name and with the arguments that programs use.

        No text is sent to a rendering service and no browser is started: arguments that are about those (`draw_method`,
        `max_retries`, `retry_delay`, `base_url`, `proxies`) or about Mermaid's styles have no effect.

        Raises:
            ImportError: the optional package `cairosvg` is not installed; `draw_svg` needs none.
        """
        return self._png(output_file_path, self.draw_svg(background_color=background_color or "none", padding=padding))

    def _png(self, output_file_path: str | None, picture: str) -> bytes:
        try:
            render = importlib.import_module("cairosvg").svg2png
        except ImportError as error:
            raise ImportError(
                "drawing a PNG needs the optional package cairosvg: pip install 'pregel[png]'; draw_svg() and "
                "draw_mermaid() need nothing"
            ) from error
        image: bytes = render(bytestring=picture.encode())
        if output_file_path is not None:
            with open(output_file_path, "wb") as file:
                file.write(image)
        return image

    def _unlinked(self, *, targets: bool, without: str | None = None) -> Iterator[Node]:
        """Nodes that no edge enters (`targets`) or leaves, as if `without` and its edges were not there."""
        edges = [edge for edge in self.edges if without not in (edge.source, edge.target)]
        linked = {edge.target if targets else edge.source for edge in edges}
        return (node for node in self.nodes.values() if node.id != without and node.id not in linked)

    def _repr_mimebundle_(self, **_kwargs: object) -> dict[str, str]:
        """Notebooks show the SVG form, terminals the ASCII form. Nothing is fetched."""
        return {"image/svg+xml": self.draw_svg(), "text/plain": self.draw_ascii()}

    def _repr_svg_(self) -> str:
        return self.draw_svg()


# ---- from declarations to a Graph


@dataclass(slots=True)
class NodeInfo:
    """What a front end declares about one node.

    Attributes:
        name: the node's name, also its id in the drawing.
        data: what the node runs; shown by class in `to_json`, else opaque.
        metadata: the user's own metadata; not changed.
        defer: the node waits until nothing else can run.
        ends: where the node's own `Command` may go: names, or name -> label. `END` is allowed.
        tools: names of the tools the node can call, shown as metadata `__tools`.
        subgraph: draws the nested graph found in this node; called with the remaining `xray` only when that is truthy.
            None when the node holds no graph.
    """

    name: str
    data: object = None
    metadata: Mapping[str, object] | None = None
    defer: bool = False
    ends: Mapping[str, str | None] | Iterable[str] = ()
    tools: Sequence[str] = ()
    subgraph: Callable[[bool | int], Graph] | None = None


def build_graph(
    nodes: Sequence[NodeInfo],
    *,
    edges: Iterable[tuple[str, str]],
    waiting_edges: Iterable[tuple[Sequence[str], str]] = (),
    branches: Iterable[tuple[str, Mapping[Hashable, str] | None]] = (),
    interrupt_before: Collection[str] = (),
    interrupt_after: Collection[str] = (),
    xray: bool | int = False,
    start: object = None,
) -> Graph:
    """The drawing of a graph in which START is a node (every `StateGraph`).

    Args:
        nodes: all nodes in order of addition, error handlers included, START and END not.
        edges: static edges `(source, target)`; START as source and END as target allowed. Any order, a set is fine.
        waiting_edges: joins `(sources, target)`.
        branches: one `(source, ends)` per conditional edge. `ends` maps each label to its target (`path_map` as given;
            for a list or a `Literal` annotation name -> name); None when the targets are not declared.
        interrupt_before: names of nodes marked `__interrupt = before`. The string "*" marks none, as it says nothing
            about a single node.
        interrupt_after: the same for `after`; a node in both is marked `before,after`.
        xray: replace nodes that hold a graph by its inside: True at every depth, n for n levels, False never.
        start: the `data` of the START node.

    Returns:
        START first, then `nodes`, then END if an edge reaches it, then inner nodes of expanded graphs. Cost: O(nodes +
        edges) per walked superstep, at most 250 or the number of nodes plus one.

    Raises:
        KeyError: an edge, join or branch names a node that is not in `nodes`.
    """
    info = {node.name: node for node in nodes}
    wiring = _Wiring(list(info))
    for source, target in edges:
        wiring.link(source, target)
    for sources, target in waiting_edges:
        wiring.join(tuple(sources), target)
    unknown: dict[str, None] = {}
    for source, ends in branches:
        if ends is None:
            unknown[source] = None
        for label, target in (ends or {}).items():
            wiring.link(source, target, conditional=True, label=None if label == target else str(label))
    for node in nodes:
        ends_of = node.ends.items() if isinstance(node.ends, Mapping) else [(end, None) for end in node.ends]
        for target, label in ends_of:
            wiring.link(node.name, target, conditional=True, label=None if label == target else label)

    graph = Graph({START: Node(START, START, start)}, unknown=list(unknown))
    for node in nodes:
        graph.nodes[node.name] = Node(node.name, node.name, node.data, _marks(node, interrupt_before, interrupt_after))
    deferred = {node.name for node in nodes if node.defer}
    graph.edges = wiring.drawn_edges({START}, deferred)
    if any(edge.target == END for edge in graph.edges):
        graph.nodes[END] = Node(END, END)
    if xray:
        _expand(graph, info, xray)
    return graph


def build_channel_graph(
    nodes: Sequence[NodeInfo],
    *,
    triggers: Mapping[str, Collection[str]],
    writes: Mapping[str, Collection[str]],
    input_channels: Collection[str],
    interrupt_before: Collection[str] = (),
    interrupt_after: Collection[str] = (),
    xray: bool | int = False,
) -> Graph:
    """The drawing of a graph made of channels (`Pregel` with `NodeBuilder`), in which START is not a node that runs.

    Args:
        nodes: all nodes in order.
        triggers: node name -> channels that wake it.
        writes: node name -> channels it writes.
        input_channels: channels the input goes to.
        interrupt_before: as in `build_graph`.
        interrupt_after: as in `build_graph`.
        xray: as in `build_graph`.

    Returns:
        `nodes` in order, then START, then END if reached; START's edges first.
    """
    info = {node.name: node for node in nodes}
    wiring = _Wiring(list(info))
    woken: dict[str, list[str]] = {}
    for name in info:
        for channel in triggers.get(name, ()):
            woken.setdefault(channel, []).append(name)
    for source, channels in [(START, input_channels), *((name, writes.get(name, ())) for name in info)]:
        for channel in channels:
            for target in woken.get(channel, ()):
                wiring.link(source, target)

    graph = Graph()
    for node in nodes:
        graph.nodes[node.name] = Node(node.name, node.name, node.data, _marks(node, interrupt_before, interrupt_after))
    found = wiring.drawn_edges({START}, {node.name for node in nodes if node.defer})
    graph.edges = [edge for edge in found if edge.source == START] + [edge for edge in found if edge.source != START]
    graph.nodes[START] = Node(START, START)
    if any(edge.target == END for edge in graph.edges):
        graph.nodes[END] = Node(END, END)
    if xray:
        _expand(graph, info, xray)
    return graph


def build_entrypoint_graph(node: NodeInfo) -> Graph:
    """The drawing of an entrypoint: start, the function, a dashed way out; its tasks are not known in advance."""
    return Graph(
        {
            node.name: Node(node.name, node.name, node.data, _marks(node, (), ())),
            START: Node(START, START),
            END: Node(END, END),
        },
        [Edge(START, node.name), Edge(node.name, END, None, True)],
    )


def _marks(node: NodeInfo, before: Collection[str], after: Collection[str]) -> dict[str, object] | None:
    """The user's metadata plus what the graph knows about the node; None when there is nothing to show."""
    marks: dict[str, object] = dict(node.metadata or {})
    if node.defer:
        marks["defer"] = True
    # A bare string here is "*": its characters are no names.
    stops = [
        word
        for word, names in (("before", before), ("after", after))
        if not isinstance(names, str) and node.name in names
    ]
    if stops:
        marks["__interrupt"] = ",".join(stops)
    if node.tools:
        marks["__tools"] = list(node.tools)
    return marks or None


class _Wiring:
    """Declared edges and joins of one graph, and the walk that finds which of them a run can use."""

    def __init__(self, names: list[str]) -> None:
        # source -> target -> (conditional, label) of the one edge to draw
        self.links: dict[str, dict[str, tuple[bool, str | None]]] = {name: {} for name in [START, *names]}
        self.joins: list[tuple[tuple[str, ...], str]] = []
        # targets that a source starts alone (a join's edges do not): each time it runs, and by its choices
        self.always: dict[str, set[str]] = {name: set() for name in self.links}
        self.choices: dict[str, set[str]] = {name: set() for name in self.links}

    def link(self, source: str, target: str, *, conditional: bool = False, label: str | None = None) -> None:
        """Declare that `source` alone can start `target`."""
        self._draw(source, target, conditional, label)
        if target != END:
            (self.choices if conditional else self.always)[source].add(target)

    def join(self, sources: tuple[str, ...], target: str) -> None:
        """Declare that `target` starts when all `sources` have run."""
        for source in sources:
            self._draw(source, target, False, None)
        if target != END:
            self.joins.append((sources, target))

    def _draw(self, source: str, target: str, conditional: bool, label: str | None) -> None:
        if target != END:
            self.links[target]  # an unknown name is the caller's mistake: KeyError
        links, known = self.links[source], self.links[source].get(target)
        if known is None or (not conditional, label or "") < (not known[0], known[1] or ""):
            links[target] = (conditional, label)

    def drawn_edges(self, entry: set[str], deferred: set[str]) -> list[Edge]:
        """All edges to draw, in order: sorted by source and target, then the ways to END by source."""
        reached, late, last_active = self._walk(entry, deferred)
        links = {source: dict(self.links[source]) for source in reached}
        for source, target in late:
            links[source].setdefault(target, (True, None))
        edges = sorted(
            Edge(source, target, label, conditional)
            for source, targets in links.items()
            for target, (conditional, label) in targets.items()
            if target != END or conditional
        )
        # a static edge to END is drawn beside others too, and stands with the implied ones (D60)
        ways_out = [
            Edge(source, END)
            for source in sorted(reached)
            if (not links[source] and source not in entry) or links[source].get(END, (True,))[0] is False
        ]
        if not ways_out and not any(edge.target == END for edge in edges) and len(last_active) == 1:
            ways_out = [Edge(next(iter(last_active)), END, None, True)]
        return edges + ways_out

    def _walk(self, entry: set[str], deferred: set[str]) -> tuple[set[str], set[tuple[str, str]], set[str]]:
        """Run the declared edges as supersteps.

        A node takes all its choices the first time it runs and none later: a loop that has a choice ends, as in a real
        run, so that what waits for its end (a deferred node) is reached.

        Returns:
            Nodes that ran; pairs (node of the step before, deferred node that became due without being started by that
            step); the nodes of the last superstep.
        """
        reached, chosen, late = set(entry), set[str](), set[tuple[str, str]]()
        waiting: set[str] = set()
        arrived: list[set[str]] = [set() for _ in self.joins]
        active = set(entry)
        for _ in range(max(_WALK_STEPS, len(self.links)) + 1):
            started = set[str]().union(
                *(self.always[node] for node in active), *(self.choices[node] for node in active - chosen)
            )
            chosen |= active
            for (sources, target), seen in zip(self.joins, arrived, strict=True):
                seen |= active.intersection(sources)
                if seen.issuperset(sources):
                    started.add(target)
                    seen.clear()
            due = started - deferred
            waiting |= started & deferred
            if not due:
                due, waiting = waiting, set()
                late |= {(source, target) for source in active for target in due - started}
            if not due:
                break
            reached |= due
            active = due
        return reached, late, active


def _expand(graph: Graph, info: Mapping[str, NodeInfo], xray: bool | int) -> None:
    """Replace nodes by the inside of their graphs, in place; edges keep their positions."""
    deeper: bool | int = xray if isinstance(xray, bool) else xray - 1
    for name, node in info.items():
        if node.subgraph is None:
            continue
        inner = node.subgraph(deeper)
        # Decided on the untrimmed picture: a graph of one node has three boxes and is opened (amendments C10).
        if len(inner.nodes) <= 1 or not inner.first_node() or not inner.last_node():
            continue
        inner.trim_first_node()
        inner.trim_last_node()
        del graph.nodes[name]
        first, last = graph.extend(inner, prefix=name)
        assert first is not None, f"trimming {name!r} kept one first node"
        assert last is not None, f"trimming {name!r} kept one last node"
        graph.edges = [
            edge._replace(
                source=last.id if edge.source == name else edge.source,
                target=first.id if edge.target == name else edge.target,
            )
            for edge in graph.edges
        ]
        graph.unknown = [last.id if source == name else source for source in graph.unknown]


def _only(nodes: Iterator[Node]) -> Node | None:
    """The single element of `nodes`, or None."""
    first = next(nodes, None)
    return first if first is not None and next(nodes, None) is None else None


def _name_of(data: object) -> str:
    """A readable name of what a node runs."""
    name = getattr(data, "name", None) or getattr(data, "__name__", None)
    return name if isinstance(name, str) else type(data).__name__


def _is_made_up(node_id: str) -> bool:
    return re.fullmatch("[0-9a-f]{32}", node_id) is not None


def _svg() -> types.ModuleType:
    # A lazy door: only those who draw one need it.
    from pregel.drawing import svg  # noqa: PLC0415

    return svg


# ---- JSON


def _node_json(node: Node, shown_id: str | int, with_schemas: bool) -> dict[str, object]:
    result: dict[str, object] = {"id": shown_id}
    if node.data is not None and node.data is not ANY:
        schema_of = getattr(node.data, "model_json_schema", None)
        if isinstance(node.data, type) and schema_of is not None:
            data = schema_of() if with_schemas else {"name": node.data.__name__}
            result.update(type="schema", data=data)
        else:
            cls = type(node.data)
            name = node.name if _is_made_up(node.id) else node.id
            result.update(type="runnable", data={"id": [*cls.__module__.split("."), cls.__name__], "name": name})
    if node.metadata is not None:
        result["metadata"] = node.metadata
    return result


def _edge_json(edge: Edge, ids: Mapping[str, str | int]) -> dict[str, object]:
    result: dict[str, object] = {"source": ids[edge.source], "target": ids[edge.target]}
    if edge.data is not None:
        result["data"] = edge.data
    if edge.conditional:
        result["conditional"] = True
    return result
