"""`run_conformance` and `ConformanceSuite`: the two ways to run the checks over a saver.

Decides which checks run in which colours and where savers of a run keep their data. Needs no pytest: the suite is a
plain class that pytest finds what it needs on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from checkpoint.testing import base_checks, durable_checks, full_checks, native_checks
from checkpoint.testing.checks import REGISTER
from checkpoint.testing.register import COLOURS, Check, tell
from checkpoint.testing.report import Colour, ConformanceError, Level, Report, Result
from checkpoint.testing.subject import CAPABILITIES, Opening, Subject, capabilities_of, missing_in

# Importing a module of checks registers them.
REGISTERED: Final = (base_checks, full_checks, native_checks, durable_checks)


class _Case:
    """One check in one colour, with what is known of the saver in that colour."""

    def __init__(self, check: Check[Subject], colour: Colour, able: frozenset[str], unable: str) -> None:
        self.check = check
        self.colour: Colour = colour
        self.able = able
        self.unable = unable
        """Why nothing can be checked in this colour, or nothing."""

    @property
    def name(self) -> str:
        return f"{self.check.name}-{self.colour}"

    def run(self, opening: Opening, place: Path) -> Result:
        if self.unable:
            return self.check.result(self.colour, "skipped", self.unable)
        return self.check.run(opening.opened, self.colour, place, self.able)


def run_conformance(
    factory: Callable[..., Any],
    *,
    level: Level = "base",
    capabilities: Collection[str] | None = None,
    reopen: Callable[..., Any] | None = None,
    damage: Callable[[Path], Mapping[str, Callable[[], object]]] | None = None,
    only: Collection[str] | None = None,
) -> Report:
    """Run all checks of a level, and of the levels below it, over the savers that a function makes.

    Each check gets a saver of its own, in both colours where it has both APIs. A saver that is a context manager is
    entered and left.

    Args:
        factory: makes an *empty* saver, or a sync or async context manager (or an awaitable) of one. If it has a
            positional parameter without default, it is given a place: a path in a new directory at which nothing is
            yet, for a file or a directory of the saver's own.
        level: `"base"`: what every saver with LangGraph's interface does; `"full"`: the rules of this package, hostile
            inputs, big values, and, for savers with the native interface, claims and deltas; `"durable"`: what must
            survive closing the saver and killing the process.
        capabilities: which optional parts to check (names of `checkpoint.testing.CAPABILITIES`). None: what the saver
            is seen to implement.
        reopen: makes another saver over what is stored at a place, for level durable. `factory` itself, if that takes a
            place. Checks with other processes need it to be a function or class of a module, reached by its name. If it
            has a parameter `lease_ttl`, it is given seconds there for which the runs of the saver keep other processes off
            a thread after each write, and leases are checked.
        damage: takes a place whose savers are closed and returns ways to damage what is stored there, by name; each must
            be found. Level durable; optional.
        only: names of the checks to run; all of the level if None.

    Returns:
        The report. Nothing that a saver does raises out of here.

    Raises:
        ValueError: if a level, a capability or the name of a check does not exist.
    """
    opening = Opening.of(factory, reopen, damage)
    _check_capabilities(capabilities)
    checks = REGISTER.of(level, only)
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        root = Path(directory)
        name = getattr(factory, "__qualname__", repr(factory))
        try:
            cases = [*_cases(opening, checks, capabilities, root)]
        except Exception as error:  # noqa: BLE001 - a factory may raise anything
            return Report(name, level, results=[_no_saver(level, f"the factory raised {error!r}")])
        report = Report(name, level, frozenset().union(*(case.able for case in cases)))
        if all(case.unable for case in cases):
            reasons = "; ".join(sorted({case.unable for case in cases}))
            report.results.append(_no_saver(level, reasons))
        for number, case in enumerate(cases):
            report.results.append(case.run(opening, root / f"{number}" / "saver"))
    return report


def _check_capabilities(capabilities: Collection[str] | None) -> None:
    unknown = set(capabilities or ()) - set(CAPABILITIES)
    if unknown:
        names = ", ".join(CAPABILITIES)
        raise ValueError(f"capabilities: {sorted(unknown)} do not exist; the names are {names}")


def _no_saver(level: Level, reason: str) -> Result:
    rule = "A saver implements get_tuple, list, put and put_writes, or their async twins."
    return Result("saver", "sync", level, rule, "failed", reason)


def _cases(
    opening: Opening, checks: list[Check[Subject]], capabilities: Collection[str] | None, root: Path
) -> Iterator[_Case]:
    """Every check in every colour it can run in; decided by a look at one saver."""
    able: dict[Colour, frozenset[str]] = {}
    unable: dict[Colour, str] = {}
    for colour in COLOURS:
        place = root / f"look-{colour}" / "saver"
        place.parent.mkdir(parents=True)
        with opening.opened(colour, place) as subject:
            missing = missing_in(subject.saver, colour)
            unable[colour] = f"the saver has no {', '.join(missing)}" if missing else ""
            found = set() if missing else capabilities_of(subject.saver, colour)
            if capabilities is not None and not missing:
                found = set(capabilities)
        if opening.reopen is not None:
            found.add("reopen")
            if opening.leases:
                found.add("leases")
            if opening.damage is not None:
                found.add("damage")
        able[colour] = frozenset(found)
    for check in checks:
        colours = [colour for colour in COLOURS if not unable[colour]] or [*COLOURS]
        for colour in COLOURS:
            if check.once and colour != colours[0]:
                continue
            yield _Case(check, colour, able[colour], unable[colour])


class ConformanceSuite:
    """The checks as pytest tests: one per check and colour.

    Subclass it in a test module under a name that starts with `Test`, and say how savers are made:

        class TestMySaver(ConformanceSuite):
            level = "full"

            def make_saver(self, place):
                return MySaver(place)

    `place` may be left out of the signature, as in `run_conformance`, whose arguments the attributes are. A saver that
    leases threads takes `lease_ttl=None` after it (so does `reopen`, where that is overridden).
    """

    level: ClassVar[Level] = "base"
    capabilities: ClassVar[Collection[str] | None] = None

    def make_saver(self, place: Path) -> Any:
        """An empty saver; see `factory` of `run_conformance`."""
        raise NotImplementedError(f"{type(self).__qualname__} must override make_saver")

    def reopen(self, place: Path) -> Any:
        """Another saver over what is stored at the place, for level durable. By default `make_saver` again."""
        return self.make_saver(place)

    def damage(self, place: Path) -> Mapping[str, Callable[[], object]]:
        """Ways to damage what is stored at a place, by name; each must be found. None by default."""
        raise NotImplementedError

    @classmethod
    def opening(cls) -> Opening:
        """How the suite's savers are made."""
        suite = cls()
        made = Opening.of(suite.make_saver)
        if made.reopen is None and cls.reopen is ConformanceSuite.reopen:
            return made
        reference = f"{cls.__module__}:{cls.__qualname__}" if "<" not in cls.__qualname__ else None
        damage = None if cls.damage is ConformanceSuite.damage else suite.damage
        # What the method passes on it need not take.
        reopen = suite.make_saver if cls.reopen is ConformanceSuite.reopen else suite.reopen
        return Opening(suite.make_saver, reopen, reference, damage)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Called by pytest: one test per check and colour."""
        if "conformance_case" not in metafunc.fixturenames:
            return
        cls = type(self)
        _check_capabilities(cls.capabilities)
        with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
            cases = [*_cases(cls.opening(), REGISTER.of(cls.level), cls.capabilities, Path(directory))]
        cases = [case for case in cases if not case.unable]
        if not cases:
            raise ConformanceError(
                f"{cls.__qualname__}: the saver has neither the sync nor the async methods of a saver"
            )
        metafunc.parametrize("conformance_case", cases, ids=[case.name for case in cases])

    def test_conformance(self, conformance_case: Any, tmp_path: Path) -> None:
        """One check in one colour."""
        tell(conformance_case.run(self.opening(), tmp_path / "place" / "saver"))
