"""Every program of the corpus, in both colours."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from tests.corpus import agents, nesting, pipelines, states, surfaces
from tests.support.scenarios import Colour

PROGRAMS = [
    program
    for module in (agents, pipelines, states, nesting, surfaces)
    for name, program in inspect.getmembers(module, inspect.isfunction)
    if program.__module__ == module.__name__ and list(inspect.signature(program).parameters) == ["colour"]
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__qualname__)
def test_program(program: Callable[[Colour], None], colour: Colour) -> None:
    program(colour)


def test_the_corpus_is_complete() -> None:
    assert len(PROGRAMS) >= 36
