"""`Graph`: what the parts of a compiled graph know of it. `Pregel` is all of them together.

Names the attributes, which are plain and may be assigned between runs, and the facts that follow from them. Knows neither
runs nor threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pregel.channels import BaseChannel
from pregel.constants import TASKS
from pregel.engine.program import PregelNode, Program
from pregel.pregel._turns import OnConflict
from pregel.types import StreamMode


class Graph:
    """The attributes of a compiled graph."""

    name: str
    nodes: dict[str, PregelNode]
    channels: dict[str, Any]
    input_channels: str | Sequence[str]
    output_channels: str | Sequence[str]
    stream_channels: str | Sequence[str] | None
    stream_mode: StreamMode
    stream_eager: bool
    interrupt_after_nodes: str | Sequence[str]
    interrupt_before_nodes: str | Sequence[str]
    step_timeout: float | None
    debug: bool
    checkpointer: Any
    store: Any
    cache: Any
    cache_policy: Any
    retry_policy: Sequence[Any]
    context_schema: Any
    config: Mapping[str, Any] | None
    isolate: str
    strict: bool
    on_conflict: OnConflict
    renamed_keys: dict[str, str | None]

    @property
    def program(self) -> Program:
        """The compiled form."""
        raise NotImplementedError

    @property
    def stream_channels_list(self) -> list[str]:
        """Channels that make up the state, as a list."""
        channels = self.stream_channels_asis
        return [channels] if isinstance(channels, str) else list(channels)

    @property
    def stream_channels_asis(self) -> str | Sequence[str]:
        """Channels that streams and state APIs show: the declared ones, else all but the internal one for Sends."""
        if self.stream_channels is not None:
            return self.stream_channels
        return [name for name, c in self.channels.items() if name != TASKS and isinstance(c, BaseChannel)]

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """The name of the graph, which a node that wraps it gets too; with a suffix, `GraphInput` or `graph_input`."""
        name = name or self.name
        if not suffix:
            return name
        return name + suffix.title() if name[:1].isupper() else f"{name}_{suffix.lower()}"
