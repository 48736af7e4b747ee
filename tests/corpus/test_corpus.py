"""Every program of the corpus, in both colours."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.corpus import agents, nesting, pipelines, states, surfaces, typed, workflows
from tests.support.scenarios import Colour

HERE = Path(__file__).parent
PROGRAMS = [
    program
    for module in (agents, pipelines, states, nesting, surfaces, typed, workflows)
    for name, program in inspect.getmembers(module, inspect.isfunction)
    if program.__module__ == module.__name__ and list(inspect.signature(program).parameters) == ["colour"]
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__qualname__)
def test_program(program: Callable[[Colour], None], colour: Colour) -> None:
    program(colour)


def test_the_corpus_is_complete() -> None:
    assert len(PROGRAMS) >= 64


def test_no_program_is_excused() -> None:
    """Every warning fails a program, as with `-W error::pregel.PregelWarning` (design.md D42); none turns that off."""
    modules = [path for folder in (HERE, HERE.parent / "corpus_state") for path in folder.glob("*.py")]
    modules.remove(Path(__file__))
    words = ("PregelWarning", "catch_warnings", "simplefilter", "filterwarnings", "diagnosed", "pytest.warns")
    assert [(path.name, word) for path in modules for word in words if word in path.read_text()] == []
