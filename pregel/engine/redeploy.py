"""A checkpoint that another version of the graph has made: what goes on under another name, and what cannot go on.

Decides what of a graph its checkpoints carry (`mark_of`), how stored work is taken over by a graph that was changed since
(`take_over`: former names of nodes and keys, edges that are gone), and which of it the graph cannot run (`Stranded`).
Pure: it edits what was loaded and says what it did; `engine.state` lets a run know, `engine.entry` refuses to resume.
Knows no saver; sees of a value only what the control channels hold.

What counts as pending is read from the control channels (`branch:to:N`, `join:A+B:N`), the pending sends and the stored
writes of the open step; for nodes that other channels wake, from the list that their graph left with the checkpoint.

Invariants
1. A checkpoint of the same graph, by its mark, is not looked at.
2. The tasks of a step that was open keep the names that they are stored under, so their ids, namespaces, results and
   questions stay; the next step has the new names.
3. Taking over the same checkpoint again gives the same. The first checkpoint stored afterwards holds everything under
   its new name and nothing under the former one.
4. Values of channels that the graph does not declare are left where they are, except those of control channels.

Source of the idea: Temporal's and DBOS's version checks at replay; renames as in schema migrations.
"""

from __future__ import annotations

from _blake2 import blake2b
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_origin

from checkpoint.base import WRITES_IDX_MAP, LoadedCheckpoint, TaskWrites, Version
from pregel.constants import CONTROL_WRITES, END, INPUT, INTERRUPT, MISSING, NULL_TASK_ID, PULL, START, TASKS
from pregel.engine import namespace
from pregel.engine.program import Node, PregelNode, Program
from pregel.engine.task import Task, path_text
from pregel.errors import GraphChangedError, Stranded
from pregel.types import Send

FACT = "graph"
"""The fact under which a line of checkpoints carries the mark of the graph that made it."""
BREAKPOINTS = "breakpoints"
"""The fact that has the breakpoints which a thread keeps: when to stop -> names of nodes."""
BRANCH = "branch:to:"
JOIN = "join:"
PULL_PATH = f"~{PULL}, "
NO_KEYS = ("__", "branch:", "start:")
"""What names of channels begin with that are no state keys, also in threads of earlier LangGraph versions."""
HANDLER_PATH = f", node_error_handler, {path_text(False)}"
"""What the path of the task that handles a failure has after the failed one's."""


# ---- what of a graph its checkpoints carry


def mark_of(program: Program) -> Any:
    """The fingerprint of a graph: nodes with former names and what wakes them, channels with their kinds, the same of
    nested graphs; no code. Made when first asked for.

    Text; of a graph with nodes that are woken by channels of any name a dict, which also has these nodes.
    """
    if program.mark is None:
        digest = _digest(program, [])
        woken = {
            name: list(node.triggers)
            for name, node in program.nodes.items()
            if name != START and not all(is_control(trigger) for trigger in node.triggers)
        }
        program.mark = {"id": digest, "nodes": woken} if woken else digest
    return program.mark


def _digest(program: Program, around: list[Program]) -> str:
    if program in around:  # a graph inside itself
        return str(around.index(program))
    lines = [
        "\x1f".join(("channel", name, type(channel).__qualname__)) for name, channel in sorted(program.channels.items())
    ]
    lines += ["\x1f".join(("managed", name)) for name in sorted(program.managed)]
    lines += ["\x1f".join(("key", old, new or "")) for old, new in sorted(program.renamed_keys.items())]
    for name, node in sorted(program.nodes.items()):
        nested = [getattr(graph, "program", None) for graph in node.subgraphs]
        below = [_digest(inner, [*around, program]) for inner in nested if isinstance(inner, Program)]
        reads = node.reads if node.single is None else (node.single,)
        parts = (sorted(node.aliases), node.triggers, sorted(reads), below)
        lines.append("\x1f".join(("node", name, *("\x1e".join(part) for part in parts))))
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=12).hexdigest()


def is_control(channel: str) -> bool:
    """Does a channel carry an edge of a `StateGraph`?"""
    return channel.startswith((BRANCH, JOIN))


def knows(program: Program, loaded: LoadedCheckpoint) -> bool:
    """Does the graph have everything that a checkpoint names, under this name or a former one?"""

    def has(node: str) -> bool:
        return node in program.nodes or node in program.current or node in (INPUT, INTERRUPT)

    return all(map(has, loaded.seen)) and all(
        channel in program.channels
        or channel in program.renamed_keys
        or (is_control(channel) and has(channel.rpartition(":")[2]))
        for channel in loaded.versions
    )


def successors(program: Program, stored: Mapping[str, Any], versions: Mapping[str, Any], key: str) -> list[str]:
    """State keys of which nothing is stored and that could hold the value of one that the graph does not declare."""
    return [
        name
        for name, channel in program.channels.items()
        if name not in versions and not name.startswith(NO_KEYS) and not is_control(name)
        if _could_hold(channel, stored.get(key))
    ]


def _could_hold(channel: Any, value: Any) -> bool:
    annotated = getattr(channel, "typ", None)
    kind = get_origin(annotated) or annotated
    try:
        return not isinstance(kind, type) or isinstance(value, kind)
    except TypeError:  # a TypedDict: who knows
        return True


# ---- taking over


class TakenOver:
    """What became of a checkpoint of another version of the graph."""

    __slots__ = ("addresses", "due", "facts_changed", "left", "memories", "missing", "moved", "seen_changed", "unseen")

    def __init__(self) -> None:
        self.moved: dict[str, None] = {}
        """Channels that have got a value or version from elsewhere: the next commit stores them."""
        self.left: dict[str, None] = {}
        """Channels that have none any more."""
        self.seen_changed: dict[str, None] = {}
        """Nodes whose entry in `seen` changed."""
        self.facts_changed: dict[str, Any] = {}
        self.addresses: dict[str, str] = {}
        """Node -> the former name that its task of the open step is stored under."""
        self.due: dict[str, None] = {}
        """Nodes that were about to run, woken by a channel, and are not there."""
        self.missing: list[Stranded] = []
        """What is pending and needs what this graph does not have."""
        self.unseen: list[str] = []
        """Keys with a value that this graph does not declare."""
        self.memories: list[Stranded] = []
        """Nodes that are gone, whose nested graph has kept a state between its calls."""


def take_over(program: Program, loaded: LoadedCheckpoint) -> TakenOver | None:
    """Fit what was loaded to the graph, in place; None if the same graph has made it."""
    if loaded.checkpoint_id is None or loaded.facts.get(FACT) == mark_of(program):
        return None
    return _Takeover(program, loaded).made


class _Takeover:
    """One checkpoint being fitted to a graph."""

    def __init__(self, program: Program, loaded: LoadedCheckpoint) -> None:
        self.program = program
        self.loaded = loaded
        self.made = TakenOver()
        self.renamed: dict[str, str] = {}
        """Former channel -> channel, of those that moved."""
        self.woken: dict[str, None] = {}
        """Channels that may wake a node now and did not before."""
        self.missing: dict[tuple[str, str], Stranded] = {}
        self.halves: list[tuple[str, str]] = []
        """(Channel, node) of joins that wait for more, of nodes that are not there."""
        self.bumped: Version | None = None
        self.before = dict(loaded.versions)
        self._free_nodes()
        for name in sorted(name for name in loaded.versions if name not in program.channels):
            self._undeclared(name)
        self._refit()
        self._see()
        self._follow()
        self._stops()
        self._writes()
        self._sends()
        if not loaded.checkpoint_ns:
            for ns in loaded.sub:
                self._memory(ns)
        if self.halves and self._is_open():
            for channel, node in self.halves:
                self._miss_node(node, f"channel {channel!r} has collected a part of what node {node!r} waits for")
        self.made.missing = list(self.missing.values())

    # -- words

    def _name(self, node: str) -> str | None:
        """What a stored node is called now; None if it is not there."""
        return node if node in self.program.nodes else self.program.current.get(node)

    def _is_new(self, node: str, channel: str) -> bool:
        """Has the node not seen what the channel holds?"""
        version = self.loaded.versions.get(channel)
        seen = self.loaded.seen.get(node, {})
        return version is not None and (channel not in seen or version > seen[channel])  # type: ignore[operator]

    def _bump(self) -> Version:
        """A version that is newer than all others of the checkpoint."""
        if self.bumped is None:
            newest, make = max(self.loaded.versions.values()), self.loaded.claim.make_version
            if make is not None:
                self.bumped = make(newest)
            else:
                # Whoever stores text versions knows how to make them; to look at them, any greater text will do.
                self.bumped = newest + "0" if isinstance(newest, str) else newest + 1
        return self.bumped

    def _miss_due(self, node: str) -> None:
        self.made.due[node] = None
        self._miss_node(node, f"node {node!r} was about to run")

    def _miss_node(self, node: str, reason: str) -> None:
        self._miss("node", node, reason, from_result=False)

    def _miss(self, kind: Literal["node", "key"], name: str, reason: str, *, from_result: bool) -> None:
        key = kind, name
        if key not in self.missing:
            names = self.program.nodes if kind == "node" else self.program.state_keys
            # What the thread has never met comes first: that is what the missing one may be called now.
            known = sorted(names, key=lambda one: one in self.loaded.seen or one in self.before)
            self.missing[key] = Stranded.of(self.loaded, kind, name, reason, known, from_result=from_result)

    def _take(self, channel: str, value: Any, version: Version) -> None:
        self.loaded.values[channel] = value
        self.loaded.versions[channel] = version
        self.made.moved[channel] = None
        self.woken[channel] = None

    def _leave(self, channel: str) -> None:
        """The channel has no value any more."""
        if self.loaded.values.pop(channel, MISSING) is not MISSING:
            self.loaded.versions[channel] = self._bump()
            self.made.left[channel] = None

    # -- nodes that channels of any name wake

    def _free_nodes(self) -> None:
        mark = self.loaded.facts.get(FACT)
        written: Mapping[str, Any] = mark.get("nodes", {}) if isinstance(mark, dict) else {}
        for node, triggers in written.items():
            name = self._name(node)
            if name is None:
                if any(self._is_due(node, trigger) for trigger in triggers):
                    self._miss_due(node)
            elif name != node and name not in written:
                self._known_as(name, node)

    def _is_due(self, node: str, trigger: str) -> bool:
        updated = self.loaded.updated_channels
        is_fresh = not updated or trigger in updated
        return is_fresh and trigger in self.loaded.values and self._is_new(node, trigger)

    def _known_as(self, name: str, former: str) -> None:
        """The task that the node has in the open step is stored under a former name."""
        self.made.addresses[name] = former
        node = self.program.nodes[name]
        handler = self.program.nodes.get(node.error_handler or "")
        if handler is not None and len(handler.aliases) == len(node.aliases) and former in node.aliases:
            self.made.addresses[handler.name] = handler.aliases[node.aliases.index(former)]

    # -- channels that the graph does not declare

    def _undeclared(self, name: str) -> None:
        renamed = self.program.renamed_keys
        if name in renamed:
            target = renamed[name]
            if target is not None:
                self._rename(name, target)
        elif name.startswith(BRANCH):
            self._branch(name)
        elif name.startswith(JOIN):
            self._join(name)
        elif name in self.loaded.values and not name.startswith(NO_KEYS) and name not in self.program.managed:
            self.made.unseen.append(name)

    def _rename(self, name: str, target: str) -> None:
        """A channel is called otherwise now. Of several values that are stored of it the newest counts: code may be rolled
        back. One without a value has been renamed before, or is not due: it says nothing."""
        versions, values = self.loaded.versions, self.loaded.values
        self.renamed[name] = target
        if name not in values:
            versions.setdefault(target, versions[name])
        elif target not in values or versions[name] > versions[target]:  # type: ignore[operator]
            self._take(target, values[name], versions[name])
        self._leave(name)

    def _branch(self, name: str) -> None:
        node = name[len(BRANCH) :]
        target = self._name(node)
        is_due = name in self.loaded.values and self._is_new(node, name)
        if target is None:
            if is_due:
                self._miss_due(node)
            self._leave(name)
            return
        channel = f"{BRANCH}{target}"
        if is_due:
            if channel in self.loaded.values and self._is_new(target, channel):
                self._miss_node(node, f"node {node!r}, which is {target!r} now, was about to run beside {target!r}")
            self._known_as(target, node)
        self._rename(name, channel)

    def _join(self, name: str) -> None:
        node = name.rpartition(":")[2]
        target = self._name(node)
        tokens, finished = _collected(self.loaded.values.get(name, MISSING))
        is_due = self._is_complete(name, tokens, finished) and self._is_new(node, name)
        waits = self._waits(name, finished)
        self._leave(name)
        if not tokens:
            return
        if target is None:
            if is_due:
                self._miss_due(node)
            else:
                self.halves.append((name, node))
            return
        if is_due and target != node:
            self._known_as(target, node)
        arrived = {self._name(token) or token for token in tokens}
        # A join that the other version had, too, has collected for itself.
        joins = [
            trigger
            for trigger in self.program.nodes[target].triggers
            if trigger.startswith(JOIN) and (trigger not in self.before or self.before[name] > self.before[trigger])  # type: ignore[operator]
        ]
        equal = [join for join in joins if self._names(join) == arrived]
        if is_due and not equal:
            self._wake(target, is_held=waits)
            return
        for join in equal or joins:
            if arrived & self._names(join):
                had, _ = _collected(self.loaded.values.get(join, MISSING))
                collected = had | (arrived & self._names(join))
                self._take(join, (collected, finished) if finished is not None else collected, self._bump())
                self._refit_join(join, is_due=is_due and not waits)

    def _is_complete(self, join: str, tokens: set[Any], finished: bool | None) -> bool:
        """Did a stored join wake its node, or would, once nothing else is left to run?"""
        is_full = sum(map(len, tokens)) + len(tokens) - 1 == len(join[len(JOIN) :].rpartition(":")[0])
        return bool(tokens) and (is_full or finished is True)

    def _waits(self, join: str, finished: bool | None) -> bool:
        """Does it need a release that it has not had? A complete inclusive one needs none: then it was told of."""
        updated = self.loaded.updated_channels
        return finished is False and updated is not None and join not in updated

    def _wake(self, node: str, *, is_held: bool = False) -> None:
        """The edge is gone, what it had brought about is not. `is_held`: it waited until nothing else is left to run."""
        branch = f"{BRANCH}{node}"
        can_finish = self.program.channels[branch].can_finish
        self._take(branch, (None, not is_held) if can_finish else None, self._bump())

    def _names(self, join: str) -> set[Any]:
        names: set[Any] = self.program.channels[join].names  # type: ignore[attr-defined]
        return names

    # -- what follows from it

    def _refit(self) -> None:
        """Control channels that are of another kind now: of nodes that are deferred and were not, of inclusive joins."""
        for name, value in list(self.loaded.values.items()):
            channel = self.program.channels.get(name)
            if channel is None or not is_control(name):
                continue
            is_pair = type(value) in (tuple, list) and len(value) == 2
            if name.startswith(JOIN):
                tokens, finished = _collected(value)
                is_due = self._is_complete(name, tokens, finished) and not self._waits(name, finished)
                self._refit_join(name, is_due=is_due)
            elif channel.can_finish and not is_pair:
                self._take(name, (value, True), self._bump())
            elif not channel.can_finish and is_pair:
                self._take(name, value[0], self._bump())

    def _refit_join(self, name: str, *, is_due: bool) -> None:
        """What had woken its node must do so, whatever kind of barrier the join is now."""
        channel = self.program.channels[name]
        node = name.rpartition(":")[2]
        value = self.loaded.values[name]
        if not is_due or not self._is_new(node, name) or channel.from_checkpoint(value).is_available():
            return
        tokens, _ = _collected(value)
        if channel.can_finish and channel.from_checkpoint((tokens, True)).is_available():
            self._take(name, (tokens, True), self._bump())
        else:
            self._leave(name)
            self._wake(node)

    def _see(self) -> None:
        """What a node has seen under a former name, or of a channel under a former name, it has seen."""
        current, renamed, all_seen = self.program.current, self.renamed, self.loaded.seen
        for node in list(all_seen):
            name = current.get(node, node) if node not in self.program.nodes else node
            seen = {renamed.get(channel, channel): version for channel, version in all_seen[node].items()}
            if name != node:
                for channel, version in all_seen.get(name, {}).items():
                    if channel not in seen or version > seen[channel]:  # type: ignore[operator]
                        seen[channel] = version
            if seen != all_seen.get(name):
                all_seen[name] = seen
                self.made.seen_changed[name] = None

    def _follow(self) -> None:
        """Let the list of updated channels name what wakes nodes now."""
        updated = self.loaded.updated_channels
        if updated:
            names = dict.fromkeys(self.renamed.get(name, name) for name in updated)
            self.loaded.updated_channels = list(names | self.woken)

    def _stops(self) -> None:
        """Breakpoints that the thread keeps: as a fact, or among the writes that belong to no task until that is stored."""
        kept = self.loaded.facts.get(BREAKPOINTS)
        if kept is not None and (now := self._stops_now(kept)) != kept:
            self.loaded.facts[BREAKPOINTS] = self.made.facts_changed[BREAKPOINTS] = now
        for at, row in enumerate(self.loaded.writes):
            if row.task_id.startswith(NULL_TASK_ID[:32]) and row.slot == WRITES_IDX_MAP[INTERRUPT]:
                writes = [(channel, self._stops_now(value)) for channel, value in row.writes]
                self.loaded.writes[at] = replace(row, writes=writes)

    def _stops_now(self, kept: Any) -> Any:
        if not isinstance(kept, dict):
            return kept
        current = self.program.current
        return {
            when: [current.get(name, name) for name in names] if isinstance(names, (list, tuple)) else names
            for when, names in kept.items()
        }

    def _writes(self) -> None:
        """Stored writes of the open step."""
        for at, row in enumerate(self.loaded.writes):
            if row.path.startswith(PULL_PATH):
                node = row.path[len(PULL_PATH) :].removesuffix(HANDLER_PATH)
                name = self._name(node)
                if name is None:
                    self._miss_node(node, f"a task of node {node!r} has stored {_what(row)}")
                elif name != node:
                    self._known_as(name, node)
            if row.slot == 0 and not all(channel in self.program.channels for channel, _ in row.writes):
                writes = [write for one in row.writes for write in self._write(*one)]
                self.loaded.writes[at] = replace(row, writes=writes)

    def _write(self, channel: str, value: Any) -> Iterable[tuple[str, Any]]:
        """What a stored write is for this graph."""
        program = self.program
        if channel in program.channels or channel in CONTROL_WRITES or channel.startswith("__"):
            return [(channel, value)]
        if channel in program.renamed_keys:
            target = program.renamed_keys[channel]
            return [] if target is None else [(target, value)]
        if not is_control(channel):
            self._miss("key", channel, f"a finished task has written {channel!r}", from_result=True)
            return [(channel, value)]
        node = channel.rpartition(":")[2]
        target = self._name(node)
        if target is None:
            self._miss("node", node, f"a finished task has led on to node {node!r}", from_result=True)
            return []
        if channel.startswith(BRANCH):
            return [(f"{BRANCH}{target}", value)]
        source = self._name(value) or value
        joins = [trigger for trigger in program.nodes[target].triggers if trigger.startswith(JOIN)]
        return [(join, source) for join in joins if source in self._names(join)]

    def _sends(self) -> None:
        packets = self.loaded.values.get(TASKS)
        for packet in packets if isinstance(packets, (list, tuple)) else ():
            node = packet.node if isinstance(packet, Send) else _sent_to(packet)
            if isinstance(node, str) and node != END and self._name(node) is None:
                self._miss_node(node, f"a Send to node {node!r} is pending")
        for row in self.loaded.writes:
            for channel, value in row.writes if row.slot == 0 else ():
                node = value.node if isinstance(value, Send) else _sent_to(value)
                if channel == TASKS and isinstance(node, str) and node != END and self._name(node) is None:
                    self._miss("node", node, f"a finished task has sent to node {node!r}", from_result=True)

    def _memory(self, ns: str) -> None:
        """The state that a stateful nested graph keeps at a stable namespace: does a node lead there?"""
        program: Program | None = self.program
        for node in namespace.names_of(ns):
            if program is None:
                return  # known when the nodes run
            name = node if node in program.nodes else program.current.get(node)
            if name is None:
                reason = f"its nested graph has kept a state at {ns!r}, which nothing finds any more"
                known = list(program.nodes)
                self.made.memories.append(Stranded.of(self.loaded, "node", node, reason, known, blocks=False))
                return
            graphs = [graph for graph in program.nodes[name].subgraphs if graph.checkpointer is not False]
            program = graphs[0].program if len(graphs) == 1 else None

    def _is_open(self) -> bool:
        """Is anything else left to do?"""
        return bool(
            self.missing
            or self.loaded.writes
            or self.loaded.values.get(TASKS)
            or any(
                self._is_due(node.name, trigger)
                for node in self.program.nodes.values()
                for trigger in node.triggers
                if not trigger.startswith(JOIN)
            )
        )


def _collected(value: Any) -> tuple[set[Any], bool | None]:
    """What a join has collected, and whether it was released, None if it needs no release."""
    if value is MISSING:
        return set(), None
    if type(value) in (tuple, list) and len(value) == 2 and isinstance(value[1], bool):
        return set(value[0]), value[1]
    return set(value), None


def _what(row: TaskWrites) -> str:
    if row.slot == 0:
        return "its result"
    return "a question" if any(channel == INTERRUPT for channel, _ in row.writes) else "how far it came"


def _sent_to(packet: Any) -> Any:
    """The node of a pending send that was read without its class."""
    payload = getattr(packet, "payload", None)
    return payload[0] if isinstance(payload, (list, tuple)) and payload else None


# ---- refusing


def in_the_way(missing: Sequence[Stranded], *, results: bool) -> list[Stranded]:
    """What keeps a run from going on. `results`: are stored results used?"""
    return [one for one in missing if results or not one.from_result]


def refuse(missing: Sequence[Stranded]) -> None:
    """Raise if something is missing.

    Raises:
        GraphChangedError: names everything.
    """
    if missing:
        raise GraphChangedError(missing)


def gone_tasks(channels: Mapping[str, Any], taken_over: TakenOver, program: Program) -> list[Task]:
    """Tasks of the open step whose node is gone, to be shown: sends, then nodes."""
    held = channels[TASKS]
    packets = held.get() if held.is_available() else ()
    sent = [
        Task(_stub(packet.node), packet.arg, index)
        for index, packet in enumerate(packets)
        if isinstance(packet, Send) and packet.node not in (*program.nodes, *program.current, END)
    ]
    return [*sent, *(Task(_stub(name), None) for name in taken_over.due)]


def _stub(name: str) -> Node:
    """Stands for a node that is not there; never runs."""
    return Node(name, PregelNode(channels=[], triggers=[]), {})


def stable_names(node: Node) -> tuple[str, ...]:
    """The names that a node's stateful nested graph may keep its state under."""
    return (node.address, *(name for name in (node.name, *node.aliases) if name != node.address))
