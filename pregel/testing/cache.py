"""Does a cache do what graphs rely on? `run_conformance` and `ConformanceSuite`, the two ways to run the checks.

Decides which checks run in which colours and where caches of a run keep their data. The rules are in `cache_checks`. Knows
no concrete cache and, unless its suite is used, no pytest.

    report = run_conformance(MyCache, level="full")
    report.raise_for_failures()

Source of the idea: `checkpoint.testing`, which does the same for savers and lends its reports.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from checkpoint.testing.register import COLOURS, Check, tell
from checkpoint.testing.report import Colour, ConformanceError, Level, Report, Result
from pregel.testing import cache_checks
from pregel.testing.cache_subject import CAPABILITIES, CHECKS, REGISTER, Making, Subject, opened

__all__ = [
    "CAPABILITIES",
    "CHECKS",
    "ConformanceError",
    "ConformanceSuite",
    "Report",
    "Result",
    "run_conformance",
]

REGISTERED: Final = (cache_checks,)
"""Importing a module of checks registers them."""


def run_conformance(
    factory: Callable[..., Any],
    *,
    level: Level = "base",
    damage: Callable[[Path], Mapping[str, Callable[[], object]]] | None = None,
    only: Collection[str] | None = None,
) -> Report:
    """Run all checks of a level, and of the levels below it, over the caches that a function makes.

    Each check gets a cache of its own, in both colours. A cache that is a context manager is entered and left.

    Args:
        factory: makes an *empty* cache, or a sync or async context manager (or an awaitable) of one. If it has a positional
            parameter without default, it is given a place: a path in a new directory at which nothing is yet; what is
            made of the same place again is taken for another cache over the same entries. If it has parameters `clock` or
            `max_entries`, it is given a function that gives the seconds since the epoch, a bound. Without `clock`,
            checks of what expires wait a second each.
        level: `"base"`: what every cache with LangGraph's interface does; `"full"`: private copies, hostile keys,
            concurrent callers, `get_or_compute`; `"durable"`: what must survive closing it, several caches at one place.
        damage: takes a place whose caches are closed and returns ways to damage what is stored there, by name. Level
            durable; optional.
        only: names of the checks to run; all of the level if None.

    Returns:
        The report. Nothing that a cache does raises out of here.

    Raises:
        ValueError: a level or the name of a check does not exist.
    """
    making = Making.of(factory, damage)
    checks = REGISTER.of(level, only)
    name = getattr(factory, "__qualname__", repr(factory))
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        root = Path(directory)
        try:
            able = _able(making, root)
        except Exception as error:  # noqa: BLE001 - a factory may raise anything
            rule = "A cache can be made."
            return Report(name, level, results=[Result("cache", "sync", level, rule, "failed", f"raised {error!r}")])
        report = Report(name, level, able)
        for number, case in enumerate(_cases(making, checks, able)):
            report.results.append(case.run(root / str(number) / "cache"))
    return report


class _Case(NamedTuple):
    """One check in one colour."""

    making: Making
    check: Check[Subject]
    colour: Colour
    able: frozenset[str]

    @property
    def name(self) -> str:
        return f"{self.check.name}-{self.colour}"

    def run(self, place: Path) -> Result:
        return self.check.run(partial(opened, self.making), self.colour, place, self.able)


def _able(making: Making, root: Path) -> frozenset[str]:
    with opened(making, "async", root / "look" / "cache") as subject:
        return making.capabilities(subject.cache)


def _cases(making: Making, checks: list[Check[Subject]], able: frozenset[str]) -> Iterator[_Case]:
    return (_Case(making, check, colour, able) for check in checks for colour in COLOURS)


class ConformanceSuite:
    """The checks as pytest tests: one per check and colour.

    Subclass it in a test module under a name that starts with `Test`, and say how caches are made:

        class TestMyCache(ConformanceSuite):
            level = "full"

            def make_cache(self, place, clock):
                return MyCache(place, clock=clock)

    `place` and `clock` may be left out of the signature, as in `run_conformance`, whose arguments the attributes are.
    """

    level: ClassVar[Level] = "base"

    def make_cache(self, place: Path) -> Any:
        """An empty cache; see `factory` of `run_conformance`."""
        raise NotImplementedError(f"{type(self).__qualname__} must override make_cache")

    def damage(self, place: Path) -> Mapping[str, Callable[[], object]]:
        """Ways to damage what is stored at a place, by name. None by default."""
        raise NotImplementedError

    @classmethod
    def making(cls) -> Making:
        """How the suite's caches are made."""
        suite = cls()
        return Making.of(suite.make_cache, None if cls.damage is ConformanceSuite.damage else suite.damage)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Called by pytest: one test per check and colour."""
        if "conformance_case" not in metafunc.fixturenames:
            return
        making = self.making()
        with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
            able = _able(making, Path(directory))
        cases = [*_cases(making, REGISTER.of(self.level), able)]
        metafunc.parametrize("conformance_case", cases, ids=[case.name for case in cases])

    def test_conformance(self, conformance_case: Any, tmp_path: Path) -> None:
        """One check in one colour."""
        tell(conformance_case.run(tmp_path / "place" / "cache"))
