"""A cache in one colour, and the register of checks: what the rules of `cache_checks` are written with.

Decides how a cache is made, entered and left, which of its two APIs a check meets, and how time passes. Knows no cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from checkpoint.testing.register import Register
from checkpoint.testing.report import Colour, ConformanceError

START: Final = 1_700_000_000.0
PATIENCE_S: Final = 10.0
"""How long a cache without a clock of the check may keep an entry that lives for a second."""
CAPABILITIES: Final = {
    "clock": "the factory takes `clock`, a function that gives the seconds since the epoch",
    "bounds": "the factory takes `max_entries`; what was not used for longest goes first",
    "get_or_compute": "concurrent callers that miss compute once",
    "serde": "`cache.serde` makes bytes of values, and may be replaced",
    "reopen": "what is stored at a place is found by another cache there",
    "damage": "the caller can damage what is stored",
}


class Clock:
    """Stands still until it is told to go on. Seconds."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        """The time of the check."""
        return self.now


class Making(NamedTuple):
    """How the caches of a run are made."""

    factory: Callable[..., Any]
    places: bool
    """Is it given a place?"""
    names: frozenset[str]
    """Which keyword arguments it takes of those that the kit knows."""
    damage: Callable[[Path], Mapping[str, Callable[[], object]]] | None

    @classmethod
    def of(cls, factory: Callable[..., Any], damage: Any = None) -> Making:
        """By the signature of the factory."""
        try:
            parameters = inspect.signature(factory).parameters
        except (TypeError, ValueError):
            return cls(factory, False, frozenset(), damage)
        places = any(
            each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
            for each in parameters.values()
        )
        return cls(factory, places, frozenset(parameters) & {"clock", "max_entries"}, damage)

    def make(self, place: Path, clock: Clock, **more: Any) -> Any:
        """A cache, or what has to be entered for one."""
        given = {name: value for name, value in {**more, "clock": clock}.items() if name in self.names}
        return self.factory(place, **given) if self.places else self.factory(**given)

    def capabilities(self, cache: Any) -> frozenset[str]:
        """What a cache is seen to be able to do."""
        found = {name for name in ("get_or_compute", "serde") if hasattr(cache, name)}
        found |= {"clock"} & self.names
        if "max_entries" in self.names:
            found.add("bounds")
        if self.places:
            found.add("reopen")
            if self.damage is not None:
                found.add("damage")
        return frozenset(found)


class Subject:
    """A cache in one colour. `get`, `set`, `clear`, `get_or_compute` are its methods, whatever the colour."""

    def __init__(self, making: Making, colour: Colour, place: Path, stack: ExitStack) -> None:
        self.making = making
        self.colour: Colour = colour
        self.place = place
        self.clock = Clock()
        self._stack = stack
        self._runner = asyncio.Runner()
        stack.callback(self._runner.close)
        self.cache = self.another()

    def another(self, **more: Any) -> Any:
        """One more cache at the same place; open until the check ends."""
        made = self.making.make(self.place, self.clock, **more)
        if inspect.isawaitable(made):
            made = self.run(made)
        kind = type(made)
        if hasattr(kind, "__aenter__") and (self.colour == "async" or not hasattr(kind, "__enter__")):
            entered = self.run(made.__aenter__())
            self._stack.callback(lambda: self.run(made.__aexit__(None, None, None)))
            return entered
        return self._stack.enter_context(made) if hasattr(kind, "__enter__") else made

    def reopen(self) -> None:
        """Close the cache, and go on with another one over what is stored."""
        close = getattr(self.cache, "close", None)
        if close is not None:
            closed = close()
            if inspect.isawaitable(closed):
                self.run(closed)
        self.cache = self.another()

    def run(self, awaitable: Any) -> Any:
        """The outcome of something awaitable, on the check's own loop."""

        async def await_() -> Any:
            return await awaitable

        return self._runner.run(await_())

    def call(self, method: str, *args: Any, cache: Any = None, **more: Any) -> Any:
        """A method in the colour of the check."""
        cache = self.cache if cache is None else cache
        if self.colour == "async":
            return self.run(getattr(cache, f"a{method}")(*args, **more))
        return getattr(cache, method)(*args, **more)

    def get(self, *keys: Any, cache: Any = None) -> dict[Any, Any]:
        """The entries that are there."""
        found: dict[Any, Any] = self.call("get", list(keys), cache=cache)
        return found

    def set(self, pairs: Mapping[Any, Any], ttl: Any = None, *, cache: Any = None) -> None:
        """Keep values, all with one time to live."""
        self.call("set", {key: (value, ttl) for key, value in pairs.items()}, cache=cache)

    def clear(self, namespaces: Any = None) -> None:
        """Remove entries."""
        self.call("clear", namespaces)

    def computing(self, function: Callable[[], Any]) -> Any:
        """A function as `get_or_compute` takes it in this colour."""
        if self.colour == "sync":
            return function

        async def compute() -> Any:
            return function()

        return compute

    def wait_for(self, *keys: Any) -> None:
        """Let a second pass: entries that live so long are gone then. Complains if they are not."""
        if "clock" in self.making.names:
            self.clock.now += 1
            return
        end = time.monotonic() + PATIENCE_S
        while self.get(*keys):
            if time.monotonic() > end:
                raise ConformanceError(f"entries that live for 1 s are still found after {PATIENCE_S} s")
            time.sleep(0.02)


@contextmanager
def opened(making: Making, colour: Colour, place: Path) -> Iterator[Subject]:
    """A new cache in one colour."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        yield Subject(making, colour, place, stack)


REGISTER: Final = Register[Subject]("pregel.testing.cache", "cache")
CHECKS: Final = REGISTER.checks
"""All checks by name, in the order in which they run."""
check = REGISTER.check
