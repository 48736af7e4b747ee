"""How chunks and results reach the caller: which modes are delivered, which printed, and in which shape.

Decides the shapes of engine.md 3.7, for both versions. Knows no driver, thread or loop: it takes from an outlet what has
come in.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

from pregel import config as configs
from pregel.engine import view
from pregel.engine.core import Run, count_of
from pregel.engine.state import Request
from pregel.errors import shown
from pregel.pregel._graph import Graph
from pregel.pregel._request import address
from pregel.pregel._stream import Outlet
from pregel.types import GraphOutput

MODES = frozenset({"values", "updates", "custom", "messages", "tasks", "checkpoints", "debug", "tools"})


LIVE = frozenset({"custom", "messages", "tools"})
"""Modes whose chunks must leave while a body runs."""


class View:
    """How one call wants its chunks: which modes are delivered, which printed, in which shape."""

    def __init__(
        self,
        graph: Graph,
        config: Any,
        stream_mode: Any,
        print_mode: Any,
        subgraphs: bool,
        debug: bool | None,
        version: str,
        buffer: float = inf,
    ) -> None:
        if buffer < 1:
            raise ValueError(f"buffer must leave room for at least 1 chunk, got {buffer}")
        if version not in ("v1", "v2"):
            raise ValueError(f"version must be 'v1' or 'v2', got {shown(version)}")
        if stream_mode is None:
            stream_mode = "values" if configs.handle_of(config) is not None else graph.stream_mode
        if debug or (debug is None and graph.debug):
            print_mode = ["updates", "values"]
        self.graph = graph
        self.many = not isinstance(stream_mode, str)
        self.delivered = _modes(stream_mode)
        self.printed = _modes(print_mode)
        self.subgraphs = subgraphs
        self.v2 = version == "v2"
        self.outlet = Outlet(self.delivered | self.printed, subgraphs=subgraphs, buffer=buffer)
        self.live = bool(self.outlet.modes & LIVE) or subgraphs

    def chunks(self) -> Iterator[Any]:
        """The chunks that have come in, as the caller wants them; printed ones are printed on the way."""
        outlet = self.outlet
        waiting = outlet.chunks
        # Nobody but the run itself shows anything, if there is nobody to wake.
        for _ in range(len(waiting) if outlet.wake is None else outlet.look()):
            chunk = waiting.popleft()
            if outlet.waiting:
                outlet.let_in()
            if chunk[1] in self.printed:
                _print(chunk, self.subgraphs)
            if chunk[1] in self.delivered:
                outlet.taken += 1
                yield shape(chunk, many=self.many, subgraphs=self.subgraphs, v2=self.v2, graph=self.graph)


def _modes(given: Any) -> frozenset[str]:
    modes = frozenset([given] if isinstance(given, str) else given)
    unknown = modes - MODES
    if unknown:
        raise ValueError(f"unknown stream mode {sorted(unknown)!r}; the modes are {sorted(MODES)!r}")
    return modes


def _print(chunk: Any, subgraphs: bool) -> None:
    path, mode, _ = chunk
    where = f"[graph={path}] " if subgraphs and path else ""
    payload = shape(chunk, many=False, subgraphs=False, v2=False, graph=None)
    print(f"\x1b[1m[{mode}]\x1b[0m {where}{payload!r}")  # noqa: T201 - printing is what print_mode asks for


def shape(chunk: tuple[tuple[str, ...], str, Any], *, many: bool, subgraphs: bool, v2: bool, graph: Any) -> Any:
    """A chunk as the caller sees it (engine.md 3.7)."""
    path, mode, payload = chunk
    if v2:
        part: dict[str, Any] = {"type": mode, "ns": path, "data": payload}
        if mode == "values":
            asked = isinstance(payload, view.Asked)
            value = payload.value if asked else payload
            part["data"] = graph.coerce_output(value) if path == () else value
            part["interrupts"] = payload.interrupts if asked else ()
        return part
    if isinstance(payload, view.Asked):
        payload = with_interrupts(payload.value, payload.interrupts)
    if subgraphs:
        return (path, mode, payload) if many else (path, payload)
    return (mode, payload) if many else payload


def with_interrupts(value: Any, interrupts: Any) -> Any:
    """A values payload that also names the open questions."""
    return {**value, "__interrupt__": interrupts} if isinstance(value, dict) else {"__interrupt__": interrupts}


def answer(run: Run, *, v2: bool, graph: Any) -> Any:
    """What `invoke` returns for a run that has ended."""
    value = view.result(run)
    if v2:
        place = None
        if run.stores and run.rev:
            place = address(run.request, run.ns, run.checkpoint_id)
        return GraphOutput(graph.coerce_output(value), tuple(run.interrupts), place)
    return with_interrupts(value, list(run.interrupts)) if run.interrupts else value


def own_writes(run: Run) -> Any:
    """The output of a graph that ran as a node: what its nodes wrote, without what it was given (promise 20)."""
    value = view.result(run)
    keys = run.request.output_keys
    if isinstance(keys, str) or not isinstance(value, dict):
        return value
    entered = run.entry_version()
    return {key: item for key, item in value.items() if key in run.versions and count_of(run.versions[key]) > entered}


def is_live(request: Request) -> bool:
    """Must chunks leave while bodies run, because of a call further out?"""
    return bool(request.outlets) and (
        not LIVE.isdisjoint(request.modes) or any(outlet.subgraphs for outlet in request.outlets)
    )
