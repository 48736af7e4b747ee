"""What a builder declares, as the compiler reads it: `StateNodeSpec` for one node, `Declared` for the whole graph.

Decides nothing. It stands between `graph.state`, which fills it, and `graph.compile`, which reads it, so that neither
has to know the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pregel._call import Call
from pregel.types import CachePolicy, RetryPolicy, TimeoutPolicy, TracePolicy

__all__ = ["Declared", "StateNodeSpec"]


@dataclass(slots=True)
class StateNodeSpec:
    """A node as declared: `builder.nodes[name]`.

    `runnable`: what runs, prepared. `input_schema`: what it receives. `ends`: declared destinations of its Commands,
    names or name -> label. `error_handler_node`: name of the node that handles its failures. `aliases`: its former names.
    """

    runnable: Call
    metadata: dict[str, Any] | None
    input_schema: Any
    retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None
    cache_policy: CachePolicy[Any] | None = None
    ends: tuple[str, ...] | dict[str, str] = ()
    defer: bool = False
    timeout: TimeoutPolicy | None = None
    is_error_handler: bool = False
    error_handler_node: str | None = None
    trace_policy: TracePolicy | None = None
    aliases: tuple[str, ...] = ()


class Declared(Protocol):
    """A builder: nodes, edges and schemas (see `StateGraph` for what they mean)."""

    nodes: Any
    """Name -> `StateNodeSpec`."""
    edges: Any
    """Pairs of (source, target)."""
    waiting_edges: Any
    """Pairs of (sources, target)."""
    inclusive: Any
    """Pair of (sources, target) -> `inclusive` of `add_edge`; may lack pairs."""
    branches: Any
    """Source -> name of the path -> `Branch`."""
    channels: Any
    managed: Any
    schemas: Any
    state_schema: Any
    input_schema: Any
    output_schema: Any
    context_schema: Any
