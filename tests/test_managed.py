"""Managed values."""

from typing import get_args

import pytest

from pregel.managed import (
    IsLastStep,
    IsLastStepManager,
    ManagedValue,
    RemainingSteps,
    RemainingStepsManager,
    is_managed,
)


def test_values() -> None:
    assert [IsLastStepManager.get(step, 4) for step in (1, 2, 3, 4)] == [False, False, True, False]
    assert [RemainingStepsManager.get(step, 4) for step in (1, 3, 4)] == [3, 1, 0]


def test_declarations() -> None:
    assert get_args(IsLastStep) == (bool, IsLastStepManager)
    assert get_args(RemainingSteps) == (int, RemainingStepsManager)


def test_recognition() -> None:
    assert is_managed(IsLastStepManager)
    assert is_managed(RemainingStepsManager)
    assert not is_managed(int)
    assert not is_managed(lambda: None)
    assert not is_managed(list[int])


def test_a_manager_must_say_how() -> None:
    with pytest.raises(TypeError):
        ManagedValue()  # type: ignore[abstract]
