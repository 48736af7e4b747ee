"""Does a store do what programs rely on? `run_conformance` and `ConformanceSuite`, the two ways to run the checks.

Decides how the checks are registered and run: which of them in which colours, on what kind of store, where stores of a run
keep their data. The checks are in `store_checks` (levels base and full) and `store_durable`. Knows no concrete store and,
unless its suite is used, no pytest.

    report = run_conformance(MyStore, level="full")
    report.raise_for_failures()

Source of the idea: `checkpoint.testing`, which does the same for savers and lends its reports and subjects.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from checkpoint.testing.register import COLOURS, Check, tell
from checkpoint.testing.report import Colour, ConformanceError, Level, Report, Result
from pregel.testing import store_checks, store_durable
from pregel.testing.store_subject import CAPABILITIES, CHECKS, REGISTER, Making, Subject

__all__ = [
    "CAPABILITIES",
    "CHECKS",
    "ConformanceError",
    "ConformanceSuite",
    "Report",
    "Result",
    "run_conformance",
]

REGISTERED = (store_checks, store_durable)
"""Importing a module of checks registers them."""


def run_conformance(
    factory: Callable[..., Any],
    *,
    level: Level = "base",
    capabilities: Collection[str] | None = None,
    reopen: Callable[..., Any] | None = None,
    damage: Callable[[Path], Mapping[str, Callable[[], object]]] | None = None,
    only: Collection[str] | None = None,
) -> Report:
    """Run all checks of a level, and of the levels below it, over the stores that a function makes.

    Each check gets a store of its own, in both colours, or in one if the methods of the other raise `NotImplementedError`.
    A store that is a context manager is entered and left.

    Args:
        factory: makes an *empty* store, or a sync or async context manager (or an awaitable) of one. If it has a positional
            parameter without default, it is given a place: a path in a new directory at which nothing is yet. If it has
            parameters `index`, `ttl` or `clock`, it is given an index config, a TTL config, a function that gives the
            seconds since the epoch: without `index` nothing is checked about search by meaning, without `clock` checks of
            what expires wait for moments.
        level: `"base"`: what every store with LangGraph's interface does; `"full"`: the rules of this package: batches in
            order that fail as a whole, private copies, exact filters, versions, hostile input; `"durable"`: what must
            survive closing the store and killing the process, and several stores at one place.
        capabilities: which optional parts to check (names of `CAPABILITIES`). None: what a store is seen to have.
        reopen: makes another store over what is at a place, for level durable. `factory` itself, if that takes a place. The
            check with another process needs it to be a function or class of a module, reached by its name.
        damage: takes a place whose stores are closed and returns ways to damage the value of the one item that is stored
            there, by name. Level durable; optional.
        only: names of the checks to run; all of the level if None.

    Returns:
        The report. Nothing that a store does raises out of here.

    Raises:
        ValueError: a level, a capability or the name of a check does not exist.
    """
    making = Making.of(factory, reopen, damage)
    checks = _checks(level, capabilities, only)
    name = getattr(factory, "__qualname__", repr(factory))
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        root = Path(directory)
        try:
            able = _able(making, capabilities, root)
        except Exception as error:  # noqa: BLE001 - a factory may raise anything
            rule = "A store can be made, and takes an item."
            reason = f"the factory, or the first put and get, raised {error!r}"
            return Report(name, level, results=[Result("store", "sync", level, rule, "failed", reason)])
        report = Report(name, level, frozenset().union(*able.values()))
        for number, (check, colour) in enumerate(_cases(checks, able)):
            report.results.append(check.run(making.opened, colour, root / f"{number}" / "store", able[colour]))
    return report


def _checks(level: Level, capabilities: Collection[str] | None, only: Collection[str] | None) -> list[Check[Subject]]:
    if unknown := set(capabilities or ()) - set(CAPABILITIES):
        raise ValueError(f"capabilities: {sorted(unknown)} do not exist; the names are {', '.join(CAPABILITIES)}")
    return REGISTER.of(level, only)


def _able(making: Making, capabilities: Collection[str] | None, root: Path) -> dict[Colour, frozenset[str]]:
    """What stores are able to do, in each colour in which they have methods, seen by a look at one."""
    able: dict[Colour, frozenset[str]] = {}
    lacks: NotImplementedError | None = None
    for colour in COLOURS:
        try:
            found = making.capabilities(colour, root / f"look-{colour}" / "store")
        except NotImplementedError as lack:
            lacks = lack
            continue
        wanted = found if capabilities is None else found & set(capabilities) | set(capabilities) - making.own
        able[colour] = frozenset(wanted)
    if lacks is not None and not able:
        raise lacks
    return able


def _cases(checks: Collection[Check[Subject]], able: Collection[Colour]) -> Iterator[tuple[Check[Subject], Colour]]:
    for check in checks:
        for colour in islice(able, 1 if check.once else 2):
            yield check, colour


class ConformanceSuite:
    """The checks as pytest tests: one per check and colour.

    Subclass it in a test module under a name that starts with `Test`, and say how stores are made:

        class TestMyStore(ConformanceSuite):
            level = "full"

            def make_store(self, place, *, index=None, clock=time.time):
                return MyStore(place, index=index, clock=clock)

    Each parameter may be left out of the signature, as in `run_conformance`, whose arguments the attributes are.
    """

    level: ClassVar[Level] = "base"
    capabilities: ClassVar[Collection[str] | None] = None

    make_store: ClassVar[Callable[..., Any]]
    """An empty store; see `factory` of `run_conformance`. A method of the subclass."""
    reopen: ClassVar[Callable[..., Any] | None] = None
    """Another store over what is stored at a place, for level durable; `make_store` again if it takes a place."""
    damage: ClassVar[Callable[..., Any] | None] = None
    """Ways to damage what is stored at a place. None by default."""

    @classmethod
    def making(cls) -> Making:
        """How the suite's stores are made."""
        if not hasattr(cls, "make_store"):
            raise NotImplementedError(f"{cls.__qualname__} must have a method make_store")
        suite = cls()
        made = Making.of(suite.make_store, suite.reopen, suite.damage)
        importable = "<" not in cls.__qualname__ and "." not in cls.__qualname__
        return made._replace(reference=f"{cls.__module__}:{cls.__qualname__}" if importable else None)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Called by pytest: one test per check and colour."""
        if "conformance_case" not in metafunc.fixturenames:
            return
        cls = type(self)
        checks = _checks(cls.level, cls.capabilities, None)
        with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
            able = _able(cls.making(), cls.capabilities, Path(directory))
        cases = [(check, colour, able[colour]) for check, colour in _cases(checks, able)]
        ids = [f"{check.name}-{colour}" for check, colour, _ in cases]
        metafunc.parametrize("conformance_case", cases, ids=ids)

    def test_conformance(self, conformance_case: tuple[Check[Subject], Colour, frozenset[str]], tmp_path: Path) -> None:
        """One check in one colour."""
        check, colour, able = conformance_case
        tell(check.run(self.making().opened, colour, tmp_path / "place" / "store", able))
