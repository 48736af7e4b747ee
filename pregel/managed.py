"""Managed values: what a task may read about its step, declared like a state key.

`Annotated[T, Manager]` in a schema makes a key that is computed for each task, never written, stored or returned. Knows
two integers, the step and the step at which the run gives up; nothing of channels or graphs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = ["IsLastStep", "IsLastStepManager", "ManagedValue", "RemainingSteps", "RemainingStepsManager", "is_managed"]

Value = TypeVar("Value")


class ManagedValue(ABC, Generic[Value]):
    """Computes a value for each task; used as a class, never instantiated."""

    __slots__ = ()

    @staticmethod
    @abstractmethod
    def get(step: int, stop: int) -> Value:
        """Return the value for a task of `step` in a run that fails when it reaches `stop` with work left."""


class IsLastStepManager(ManagedValue[bool]):
    """Tells whether the next step could not finish any more."""

    __slots__ = ()

    @staticmethod
    def get(step: int, stop: int) -> bool:
        """Return whether one step remains."""
        return step == stop - 1


class RemainingStepsManager(ManagedValue[int]):
    """Counts the steps left, the running one included."""

    __slots__ = ()

    @staticmethod
    def get(step: int, stop: int) -> int:
        """Return the number of steps before `stop`."""
        return stop - step


IsLastStep = Annotated[bool, IsLastStepManager]
"""Schema annotation: True in the last step that can still finish without a recursion error."""
RemainingSteps = Annotated[int, RemainingStepsManager]
"""Schema annotation: how many steps may still run, the current one included."""


def is_managed(metadata: Any) -> TypeIs[type[ManagedValue[Any]]]:
    """Return whether one element of an annotation's metadata declares a managed value."""
    return isinstance(metadata, type) and issubclass(metadata, ManagedValue)
