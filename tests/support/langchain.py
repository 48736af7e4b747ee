"""langchain-core for tests that bring its objects, and for no others.

Decides how it is loaded: in the fixture, and taken out of `sys.modules` again afterwards, because what the rest of the
suite shows (budgets, plain messages, imports) is shown of programs that do not use it. So it is after any test that loads
it by the way, as reading a checkpoint with its classes does. The modules stay the same objects from test to test. Without
the library the tests are skipped; in a process that has it from the start (`pytest -p langchain_core.runnables.config`) it
stays, and the suite runs as the programs do that use it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

OURS = ("langchain_core", "langchain_protocol", "langsmith")
STAYS = OURS[0] in sys.modules
_away: dict[str, ModuleType] = {}


class Cupboard(MetaPathFinder, Loader):
    """Gives out what was put away, to whoever imports it again: there is one `HumanMessage`, not one per import."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in _away else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _away[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """It was run when it was imported first."""


_cupboard = Cupboard()


def put_away() -> None:
    """Take the library out of `sys.modules`."""
    if not STAYS and OURS[0] in sys.modules:
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            _away[name] = sys.modules.pop(name)
        if _cupboard not in sys.meta_path:
            sys.meta_path.insert(0, _cupboard)


class Library:
    """What the tests use of it, by attribute."""

    def __init__(self) -> None:
        self._modules = [
            importlib.import_module(f"langchain_core.{name}")
            for name in ("messages", "language_models", "runnables", "callbacks", "tools", "documents", "outputs")
        ]
        importlib.import_module("langchain_core.runnables.config")  # loaded lazily by the package

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
        library = Library()
    except ModuleNotFoundError as error:
        if error.name != "langchain_core":
            raise
        pytest.skip("langchain-core is not installed")
    yield library
    put_away()
