"""What a run of the kit found, and the words in which a check complains.

Decides how results are counted and shown. Knows no saver and no check.

Invariant: a check complains by raising, never by an `assert` statement: `python -O` must not make a saver conform.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, Self

Outcome = Literal["passed", "failed", "skipped"]
Level = Literal["base", "full", "durable"]
Colour = Literal["sync", "async"]

SHOWN: Final = 300
"""Characters of a value that a message shows."""


class ConformanceError(AssertionError):
    """A saver does not do what a check asks for."""


class Skipped(Exception):
    """A check has nothing to check here; its text says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """One check in one colour. `rule` is the sentence that is checked; `message` says what went wrong or is missing."""

    name: str
    colour: Colour
    level: Level
    rule: str
    outcome: Outcome
    message: str = ""

    def __str__(self) -> str:
        shown = f"{self.outcome.upper():7} {self.name} [{self.colour}]"
        return f"{shown}: {self.message}" if self.message else shown


@dataclass(slots=True)
class Report:
    """The results of one run of the kit, in the order in which the checks ran.

    `capabilities`: what the saver was taken to be able to do, and was checked for.
    """

    saver: str
    level: Level
    capabilities: frozenset[str] = frozenset()
    results: list[Result] = field(default_factory=list)

    def of(self, outcome: Outcome) -> list[Result]:
        """The results with this outcome."""
        return [result for result in self.results if result.outcome == outcome]

    @property
    def ok(self) -> bool:
        """Did something pass, and nothing fail? What was skipped counts for neither."""
        return not self.of("failed") and bool(self.of("passed"))

    @property
    def failed_checks(self) -> set[str]:
        """Names of the checks that failed in a colour or in both."""
        return {result.name for result in self.of("failed")}

    def raise_for_failures(self) -> None:
        """Raise `ConformanceError` with the whole report unless `ok`."""
        if not self.ok:
            raise ConformanceError(str(self))

    def __str__(self) -> str:
        counts = ", ".join(f"{len(self.of(outcome))} {outcome}" for outcome in ("passed", "failed", "skipped"))
        lines = [f"{self.saver}, level {self.level}: {counts}"]
        for result in self.of("failed"):
            lines += [str(result), f"        {result.rule}"]
        # Whole groups are skipped for one reason: it is said once.
        reasons: dict[str, list[str]] = {}
        for result in self.of("skipped"):
            reasons.setdefault(result.message, []).append(f"{result.name} [{result.colour}]")
        lines += [
            f"SKIPPED {names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: {reason}"
            for reason, names in reasons.items()
        ]
        return "\n".join(lines)


# ---- complaints


def shown(value: Any) -> str:
    """The value's repr, cut."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def same(found: Any, wanted: Any, what: str) -> None:
    """Complain unless two values are equal."""
    if found != wanted:
        raise ConformanceError(f"{what}: found {shown(found)}, expected {shown(wanted)}")


def true(holds: Any, what: str) -> None:
    """Complain unless something holds."""
    if not holds:
        raise ConformanceError(what)


def present(found: Any, what: str) -> Any:
    """The value itself; complain if it is None."""
    if found is None:
        raise ConformanceError(f"{what}: found nothing")
    return found


def one_of(found: Any, wanted: Collection[Any], what: str) -> None:
    """Complain unless a value is among those that are right."""
    if found not in wanted:
        raise ConformanceError(f"{what}: found {shown(found)}, expected one of {shown(wanted)}")


class raises:
    """Complain unless the block raises one of these classes. `caught` is what it raised."""

    def __init__(self, kinds: type[BaseException] | tuple[type[BaseException], ...], what: str) -> None:
        self.kinds = kinds
        self.what = what
        self.caught: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        names = " or ".join(k.__name__ for k in (self.kinds if isinstance(self.kinds, tuple) else (self.kinds,)))
        if error is None:
            raise ConformanceError(f"{self.what}: nothing was raised, expected {names}")
        if not isinstance(error, self.kinds):
            if not isinstance(error, Exception):
                return False
            raise ConformanceError(f"{self.what}: raised {error!r}, expected {names}") from error
        self.caught = error
        return True
