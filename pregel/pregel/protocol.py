"""`PregelProtocol`: what a program may ask of a graph, wherever that runs.

For programs that take graphs of several kinds: `Pregel` is one, a client of a server would be another. Says which methods
there are, and nothing of what they do: that stands at `Pregel`. Nothing here is imported by the runtime.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

from typing_extensions import TypeVar

from checkpoint.base import RunnableConfig
from pregel.drawing.draw import Graph
from pregel.types import Command, StateSnapshot, StateUpdate

__all__ = ["PregelProtocol"]

StateT_co = TypeVar("StateT_co", bound=Any, covariant=True, default=Any)
ContextT_contra = TypeVar("ContextT_contra", bound=Any, contravariant=True, default=Any)
InputT_contra = TypeVar("InputT_contra", bound=Any, contravariant=True, default=Any)
OutputT_co = TypeVar("OutputT_co", bound=Any, covariant=True, default=Any)


@runtime_checkable
class PregelProtocol(Protocol[StateT_co, ContextT_contra, InputT_contra, OutputT_co]):
    """A graph that can be run, looked at and edited. `isinstance` asks for the methods alone."""

    def with_config(self, config: RunnableConfig | None = None, **more: Any) -> Self:
        """A graph that merges this config into every call's."""
        ...

    def get_graph(self, config: Any = None, *, xray: bool | int = False) -> Graph:
        """The drawing of the graph."""
        ...

    async def aget_graph(self, config: Any = None, *, xray: bool | int = False) -> Graph:
        """Async form of `get_graph`."""
        ...

    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """The state of a thread."""
        ...

    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """Async form of `get_state`."""
        ...

    def get_state_history(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[StateSnapshot]:
        """The states of a thread, newest first."""
        ...

    def aget_state_history(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[StateSnapshot]:
        """Async form of `get_state_history`."""
        ...

    def update_state(self, config: RunnableConfig, values: Any, as_node: str | None = None) -> RunnableConfig:
        """Add a checkpoint as if a node had returned these values."""
        ...

    async def aupdate_state(self, config: RunnableConfig, values: Any, as_node: str | None = None) -> RunnableConfig:
        """Async form of `update_state`."""
        ...

    def bulk_update_state(self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]) -> RunnableConfig:
        """One checkpoint per superstep, stored all or none."""
        ...

    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """Async form of `bulk_update_state`."""
        ...

    def stream(
        self,
        input: InputT_contra | Command[Any] | None,
        config: RunnableConfig | None = None,
        *,
        context: ContextT_contra | None = None,
        **more: Any,
    ) -> Iterator[Any]:
        """Run, and yield chunks as they arise."""
        ...

    def astream(
        self,
        input: InputT_contra | Command[Any] | None,
        config: RunnableConfig | None = None,
        *,
        context: ContextT_contra | None = None,
        **more: Any,
    ) -> AsyncIterator[Any]:
        """Async form of `stream`."""
        ...

    def invoke(
        self,
        input: InputT_contra | Command[Any] | None,
        config: RunnableConfig | None = None,
        *,
        context: ContextT_contra | None = None,
        **more: Any,
    ) -> Any:
        """Run to the end, or to the next question or breakpoint."""
        ...

    async def ainvoke(
        self,
        input: InputT_contra | Command[Any] | None,
        config: RunnableConfig | None = None,
        *,
        context: ContextT_contra | None = None,
        **more: Any,
    ) -> Any:
        """Async form of `invoke`."""
        ...
