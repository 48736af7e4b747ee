"""Fixtures and markers that every test folder sees."""

import pytest

from tests.support.scenarios import colour, durability, memory, saver, thread

__all__ = ["colour", "durability", "memory", "saver", "thread"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of tests whose expectation is a rule of ours that LangGraph does not share."""
    config.addinivalue_line(
        "markers", "differs(reference): our rule on purpose, not LangGraph's; the reference names the decision"
    )
