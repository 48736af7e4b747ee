"""Managed values: what a task may read about its step, declared like a state key.

`Annotated[T, Manager]` in a schema makes a key that is computed for each task, never written, stored or returned. Knows
two integers, the step and the step at which the run gives up; nothing of channels or graphs.
"""

from pregel.managed.base import ManagedValue, is_managed
from pregel.managed.is_last_step import IsLastStep, IsLastStepManager, RemainingSteps, RemainingStepsManager

__all__ = ["IsLastStep", "IsLastStepManager", "ManagedValue", "RemainingSteps", "RemainingStepsManager", "is_managed"]
