"""Fixtures and markers that every test folder sees."""

import signal
from collections.abc import Iterator

import pytest

from pregel import _scope
from tests.support.langchain import lc, put_away
from tests.support.scenarios import colour, durability, memory, saver, stage, thread

__all__ = ["colour", "durability", "lc", "memory", "saver", "stage", "thread"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of tests whose expectation is a rule of ours that LangGraph does not share."""
    config.addinivalue_line(
        "markers", "differs(reference): our rule on purpose, not LangGraph's; the reference names the decision"
    )
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So a shell starts jobs in the background, and they their children: Ctrl-C could not be tested there.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names of tests that are others in each process: the suite runs in several."""
    if unstable := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"ids must not name addresses: {unstable[:3]}; give parametrize ids= of its own")


@pytest.fixture(autouse=True)
def _no_task_left() -> Iterator[None]:
    """A unit test that runs a body in its own context leaves its scope behind; the next test starts outside of any task,
    and without langchain-core."""
    yield
    _scope.enter(None)
    put_away()
