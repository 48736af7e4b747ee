"""langchain-core for tests that bring its objects, and for no others.

Decides how it is loaded: in the fixture, and taken out of `sys.modules` again afterwards, because what the rest of the
suite shows (budgets, plain messages, imports) is shown of programs that do not use it. The modules stay the same objects
from test to test. Without the library the tests are skipped.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

OURS = ("langchain_core", "langchain_protocol", "langsmith")
_away: dict[str, ModuleType] = {}


class Library:
    """What the tests use of it, by attribute."""

    def __init__(self) -> None:
        self._modules = [
            importlib.import_module(f"langchain_core.{name}")
            for name in ("messages", "language_models", "runnables", "callbacks", "tools", "documents", "outputs")
        ]

    def __getattr__(self, name: str) -> Any:
        for module in self._modules:
            found = getattr(module, name, None)
            if found is not None and not isinstance(found, ModuleType):
                return found
        raise AttributeError(name)

    def model(self, *texts: Any, **options: Any) -> Any:
        """A chat model that says these texts (or messages), one per call, streaming word by word."""
        said = [self.AIMessage(content=text) if isinstance(text, str) else text for text in texts]
        return self.GenericFakeChatModel(messages=iter(said), **options)


@pytest.fixture
def lc() -> Iterator[Library]:
    """The library, loaded for this test."""
    sys.modules.update(_away)
    try:
        try:
            library = Library()
        except ModuleNotFoundError as error:
            if error.name != "langchain_core":
                raise
            pytest.skip("langchain-core is not installed")
        yield library
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            _away[name] = sys.modules.pop(name)
