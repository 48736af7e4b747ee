"""Names that LangGraph-style code imports from here: the reserved channels and two structural types.

Decides nothing. Source: the documented module layout of LangGraph's checkpoint library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from checkpoint.base import ERROR, INTERRUPT, RESUME, SCHEDULED, TASKS

__all__ = [
    "ERROR",
    "INTERRUPT",
    "RESUME",
    "SCHEDULED",
    "TASKS",
    "ChannelProtocol",
    "SendProtocol",
]

Value = TypeVar("Value", covariant=True)
Update = TypeVar("Update", contravariant=True)
C = TypeVar("C")


class ChannelProtocol(Protocol[Value, Update, C]):
    """A named cell with an update rule, as far as stored state is concerned."""

    @property
    def ValueType(self) -> Any:
        """Type of the value."""
        ...

    @property
    def UpdateType(self) -> Any:
        """Type of one update."""
        ...

    def checkpoint(self) -> C | None:
        """What to store."""
        ...

    def from_checkpoint(self, checkpoint: C | None) -> Self:
        """A channel that holds what was stored."""
        ...

    def update(self, values: Sequence[Update]) -> bool:
        """Apply one superstep's writes. True if the value changed."""
        ...

    def get(self) -> Value:
        """The value."""
        ...

    def consume(self) -> bool:
        """A task has read it. True if the value changed."""
        ...


@runtime_checkable
class SendProtocol(Protocol):
    """A request to run one node with an input of its own."""

    node: str
    arg: Any
