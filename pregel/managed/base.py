"""What a managed value is: a class that computes something for each task, named by an annotation's metadata."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = ["ManagedValue", "ManagedValueMapping", "ManagedValueSpec", "is_managed", "is_managed_value"]

Value = TypeVar("Value")


class ManagedValue(ABC, Generic[Value]):
    """Computes a value for each task; used as a class, never instantiated."""

    __slots__ = ()

    @staticmethod
    @abstractmethod
    def get(step: int, stop: int) -> Value:
        """Return the value for a task of `step` in a run that fails when it reaches `stop` with work left."""


def is_managed(metadata: Any) -> TypeIs[type[ManagedValue[Any]]]:
    """Return whether one element of an annotation's metadata declares a managed value."""
    return isinstance(metadata, type) and issubclass(metadata, ManagedValue)


ManagedValueSpec: TypeAlias = type[ManagedValue[Any]]
ManagedValueMapping: TypeAlias = dict[str, ManagedValueSpec]
is_managed_value = is_managed
"""LangGraph's name for it."""
