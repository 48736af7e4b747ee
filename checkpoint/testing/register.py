"""The register of a kit: its checks by name, with rules, levels and needs; shared by the kits of savers, stores and caches.

Decides how one check is run on a fresh subject and how its end becomes a result, and which checks a level has. Knows
neither what is checked nor pytest, but for the words in which a result is told to it.

A check is one function of a subject; its docstring is the rule it checks.
"""

from __future__ import annotations

import inspect
import unittest
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from checkpoint.testing.report import Colour, ConformanceError, Level, Result, Skipped

LEVELS: Final[tuple[Level, ...]] = ("base", "full", "durable")
COLOURS: Final[tuple[Colour, ...]] = ("sync", "async")

SubjectT = TypeVar("SubjectT")
Opened = Callable[[Colour, Path], AbstractContextManager[SubjectT]]
"""Makes a fresh subject in one colour, at a place."""
Function = Callable[[SubjectT], None]


@dataclass(frozen=True, slots=True)
class Check(Generic[SubjectT]):
    """One rule and the function that checks it. `once`: too big for two colours; it runs in the first there is."""

    name: str
    rule: str
    level: Level
    needs: frozenset[str]
    once: bool
    function: Function[SubjectT]
    register: Register[SubjectT]

    def run(self, opened: Opened[SubjectT], colour: Colour, place: Path, capabilities: frozenset[str]) -> Result:
        """Run on a fresh subject. Whatever it raises where the check expects nothing of the kind is a failure."""
        lacking = self.needs - capabilities
        if lacking:
            return self.result(colour, "skipped", f"the {self.register.kind} has no {', '.join(sorted(lacking))}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with opened(colour, place) as subject:
                self.function(subject)
                self.register.afterwards(self, subject, capabilities)
        except Skipped as reason:
            return self.result(colour, "skipped", str(reason))
        except AssertionError as complaint:
            return self.result(colour, "failed", str(complaint))
        except Exception as error:  # noqa: BLE001 - what is checked may raise anything
            return self.result(colour, "failed", f"raised {error!r} at {_place_of(error)}")
        return self.result(colour, "passed")

    def result(self, colour: Colour, outcome: Any, message: str = "") -> Result:
        """A result of this check."""
        return Result(self.name, colour, self.level, self.rule, outcome, message)


class Register(Generic[SubjectT]):
    """The checks of one kit.

    Attributes:
        checks: All of them by name, in the order in which they run.
        kind: What is checked, in a word.
    """

    def __init__(self, kit: str, kind: str) -> None:
        """`kit`: the module that people import."""
        self.kit = kit
        self.kind = kind
        self.checks: dict[str, Check[SubjectT]] = {}

    def check(
        self, level: Level, *needs: str, once: bool = False
    ) -> Callable[[Function[SubjectT]], Function[SubjectT]]:
        """Register a check. `needs`: capabilities without which it is skipped."""

        def register(function: Function[SubjectT]) -> Function[SubjectT]:
            name, rule = function.__name__, " ".join((inspect.getdoc(function) or "").split())
            if name in self.checks or not rule:
                raise ValueError(f"{self.kit}: check {name!r} needs a name of its own and a docstring")
            self.checks[name] = Check(name, rule, level, frozenset(needs), once, function, self)
            return function

        return register

    def of(self, level: Level, only: Collection[str] | None = None) -> list[Check[SubjectT]]:
        """The checks of a level and those below it. `only`: of these names; all if None.

        Raises:
            ValueError: the level does not exist, or has no check of one of the names.
        """
        if level not in LEVELS:
            raise ValueError(f"run_conformance: level is {level!r}; it must be one of {', '.join(LEVELS)}")
        wanted = LEVELS[: LEVELS.index(level) + 1]
        found = [each for each in self.checks.values() if each.level in wanted]
        if unknown := set(only or ()) - {each.name for each in found}:
            raise ValueError(f"run_conformance: level {level!r} has no checks {sorted(unknown)}; see {self.kit}.CHECKS")
        return [each for each in found if only is None or each.name in only]

    def afterwards(self, check: Check[SubjectT], subject: SubjectT, capabilities: frozenset[str]) -> None:
        """What must hold after any check; raises if it does not."""


def tell(result: Result) -> None:
    """Raise what pytest takes for a skipped test or a failed one."""
    if result.outcome == "skipped":
        raise unittest.SkipTest(result.message)
    if result.outcome == "failed":
        raise ConformanceError(f"{result.rule}\n{result.message}")


def _place_of(error: BaseException) -> str:
    """Where in the program an error came from, in one line: the innermost frame and the check's own."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{Path(code.co_filename).name}:{trace.tb_lineno} ({code.co_name})")
        trace = trace.tb_next
    return " <- ".join([*reversed(frames[-2:])])
