"""The register of checks: name, rule, level, what a saver must be able to do for it, in which colours it runs.

Decides how one check is run on a fresh saver and how its end becomes a result. The checks themselves are in the modules
named after their level.

A check is one function of a `Subject`; its docstring is the rule it checks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from checkpoint.testing.report import Colour, Level, Result, Skipped
from checkpoint.testing.subject import Opening, Subject

LEVELS: Final[tuple[Level, ...]] = ("base", "full", "durable")
COLOURS: Final[tuple[Colour, ...]] = ("sync", "async")


@dataclass(frozen=True, slots=True)
class Check:
    """One rule and the function that checks it. `once`: too big for two colours; it runs in the first there is."""

    name: str
    rule: str
    level: Level
    needs: frozenset[str]
    once: bool
    function: Callable[[Subject], None]

    def run(self, opening: Opening, colour: Colour, place: Path, capabilities: frozenset[str]) -> Result:
        """Run on a fresh saver. Whatever the saver raises where the check expects nothing of the kind is a failure."""
        lacking = self.needs - capabilities
        if lacking:
            return self.result(colour, "skipped", f"the saver has no {', '.join(sorted(lacking))}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with opening.opened(colour, place) as subject:
                self.function(subject)
                if "verify" in capabilities and self.level != "base":
                    _verified(subject)
        except Skipped as reason:
            return self.result(colour, "skipped", str(reason))
        except AssertionError as complaint:
            return self.result(colour, "failed", str(complaint))
        except Exception as error:  # noqa: BLE001 - a saver may raise anything
            return self.result(colour, "failed", f"raised {error!r} at {_place_of(error)}")
        return self.result(colour, "passed")

    def result(self, colour: Colour, outcome: Any, message: str = "") -> Result:
        """A result of this check."""
        return Result(self.name, colour, self.level, self.rule, outcome, message)


CHECKS: Final[dict[str, Check]] = {}
"""All checks by name, in the order in which they run."""


def check(
    level: Level, *needs: str, once: bool = False
) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Register a check. `needs`: capabilities without which it is skipped."""

    def register(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        name, rule = function.__name__, " ".join((inspect.getdoc(function) or "").split())
        if name in CHECKS or not rule:
            raise ValueError(f"checkpoint.testing: check {name!r} needs a name of its own and a docstring")
        CHECKS[name] = Check(name, rule, level, frozenset(needs), once, function)
        return function

    return register


def checks_of(level: Level) -> Iterator[Check]:
    """The checks of a level and those below it."""
    wanted = LEVELS[: LEVELS.index(level) + 1]
    return (each for each in CHECKS.values() if each.level in wanted)


def _verified(subject: Subject) -> None:
    problems = subject.verify()
    if problems:
        raise AssertionError(f"the rule holds, and yet verify() finds: {list(problems)[:3]!r}")


def _place_of(error: BaseException) -> str:
    """Where in the program an error came from, in one line: the innermost frame and the check's own."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{Path(code.co_filename).name}:{trace.tb_lineno} ({code.co_name})")
        trace = trace.tb_next
    return " <- ".join([*reversed(frames[-2:])])
