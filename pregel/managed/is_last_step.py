"""The two managed values there are: what is left of the step limit."""

from __future__ import annotations

from typing import Annotated

from pregel.managed.base import ManagedValue

__all__ = ["IsLastStep", "IsLastStepManager", "RemainingSteps", "RemainingStepsManager"]


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
