"""A store in one colour, as the checks call it; and the register of checks.

Decides how stores of a run are made, and what they are seen to be able to do. Knows no check.
"""

from __future__ import annotations

import asyncio
import inspect
import string
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from checkpoint.testing.register import Register
from checkpoint.testing.report import Colour
from checkpoint.testing.subject import Opening, reference_of, takes_place
from checkpoint.testing.subject import Subject as Opened

CAPABILITIES: Final = ("ttl", "sweep", "versions", "index", "config", "reopen", "damage")
"""`ttl`: items may expire; `sweep`: `sweep_ttl()`; `versions`: `Item.version` and `if_version`; `index`, `config`: stores
can be made with an index config, a TTL config; `reopen`: what is stored outlives a store; `damage`: it can be damaged."""

NS: Final = ("kit", "one")
WAIT_SECONDS: Final = 10.0
"""Longest to wait for an item to expire, of a store without a clock of the kit's."""


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now


class Letters:
    """Embeds a text as how often it has each letter, and remembers what it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.error: Exception | None = None

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector of 26 numbers per text."""
        if self.error is not None:
            raise self.error
        self.texts += texts
        return [[float(text.count(letter)) for letter in string.ascii_lowercase] for text in texts]

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """As `embed_documents`, for stores that take functions only."""
        return self.embed_documents([*texts])

    def embed_query(self, text: str) -> list[float]:
        """A vector of 26 numbers."""
        return self.embed_documents([text])[0]


class Making(NamedTuple):
    """How stores are made. `takes`: which of `index`, `ttl`, `clock` can be given."""

    make: Callable[..., Any]
    reopen: Callable[..., Any] | None
    reference: str | None
    """`module:name` of what opens a place again in another process."""
    damage: Callable[[Path], Mapping[str, Callable[[], object]]] | None
    takes: frozenset[str]

    @classmethod
    def of(cls, make: Callable[..., Any], reopen: Any = None, damage: Any = None) -> Making:
        """The making of two functions; one that takes a place is its own `reopen`."""
        if reopen is None and takes_place(make):
            reopen = make
        names = {"index", "ttl", "clock"} & set(inspect.signature(make).parameters)
        reference = None if reopen is None else reference_of(reopen)
        return cls(make, reopen, reference, damage, frozenset(names))

    @property
    def own(self) -> frozenset[str]:
        """Capabilities that follow from how stores are made, whatever a caller says."""
        return frozenset({"index", "config", "reopen", "damage"})

    def capabilities(self, colour: Colour, place: Path) -> frozenset[str]:
        """What a store is seen to be able to do; a look at one."""
        found = {name for name, known in (("index", "index"), ("config", "ttl")) if known in self.takes}
        found |= {"reopen"} if self.reopen is not None else set()
        found |= {"damage"} if self.reopen is not None and self.damage is not None else set()
        with self.opened(colour, place) as s:
            found |= {"ttl"} if s.store.supports_ttl else set()
            found |= {"sweep"} if s.store.supports_ttl and hasattr(s.store, "sweep_ttl") else set()
            s.put(NS, "k", {"n": 1})
            item = s.get(NS, "k")
            found |= {"versions"} if getattr(item, "version", None) is not None else set()
        return frozenset(found)

    @contextmanager
    def opened(
        self,
        colour: Colour,
        place: Path,
        *,
        again: bool = False,
        clock: Clock | None = None,
        index: Any = None,
        ttl: Any = None,
    ) -> Iterator[Subject]:
        """A store in one colour; closed with the block. `again`: over what is stored at the place."""
        function = self.reopen if again else self.make
        assert function is not None
        clock = clock or Clock()
        known = set(inspect.signature(function).parameters)
        given = {"index": index, "ttl": ttl, "clock": clock if "clock" in known else None}
        place.parent.mkdir(parents=True, exist_ok=True)
        make = partial(function, **{name: value for name, value in given.items() if value is not None})
        with Opening(make).opened(colour, place) as opened:
            yield Subject(self, opened, clock if "clock" in known else None)


class Subject:
    """The methods of a store in one colour, as plain functions: `put`, `get`, `batch`, ..."""

    def __init__(self, making: Making, opened: Opened, clock: Clock | None) -> None:
        self.making = making
        self.store = opened.saver
        self.colour: Colour = opened.colour
        self.place = opened.place
        self._opened = opened
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return partial(self._opened.call, name)

    def together(self, *calls: tuple[Any, ...]) -> list[Any]:
        """Results of several calls (name, arguments...): at the same time in async, one after the other in sync."""
        if self.colour == "sync":
            return [getattr(self, name)(*arguments) for name, *arguments in calls]
        found: list[Any] = self._opened._loop.call(_gathered(self.store, calls))
        return found

    def sweep(self) -> int:
        """What `sweep_ttl` says; it may be a coroutine."""
        made = self.store.sweep_ttl()
        swept: int = self._opened._loop.call(made) if inspect.iscoroutine(made) else made
        return swept

    def keys(self, *args: Any, **kwargs: Any) -> list[str]:
        """The keys that a search finds, in its order."""
        return [item.key for item in self.search(*args, **kwargs)]

    def reopened(self, *, index: Any = None) -> Any:
        """Another store over what is stored at this one's place, with the same clock."""
        return self.making.opened(self.colour, self.place, again=True, clock=self._clock, index=index)

    def elsewhere(self, name: str = "other", **kwargs: Any) -> Any:
        """An empty store at another place, made with an index or a TTL config."""
        return self.making.opened(self.colour, self.place.with_name(name), **kwargs)

    # Time: of the kit's clock if the store takes one, else of the world.

    @property
    def short(self) -> float:
        """A time to live in minutes that `pass_time` lets pass."""
        return 10.0 if self._clock is not None else 0.0005

    def pass_time(self, lives: float = 1.0, *, until: Callable[[], bool] | None = None) -> None:
        """Let so many short lives pass. `until`: what must then be so, waited for if the store has its own clock."""
        if self._clock is not None:
            self._clock.now += 60 * self.short * lives
            return
        end = time.monotonic() + WAIT_SECONDS
        time.sleep(60 * self.short * lives)
        while until is not None and not until() and time.monotonic() < end:
            time.sleep(0.01)

    @property
    def has_clock(self) -> bool:
        """Does time stand still unless `pass_time` is called?"""
        return self._clock is not None


async def _gathered(store: Any, calls: Any) -> list[Any]:
    return await asyncio.gather(*(getattr(store, f"a{name}")(*arguments) for name, *arguments in calls))


REGISTER: Final = Register[Subject]("pregel.testing.store", "store")
CHECKS: Final = REGISTER.checks
"""All checks by name, in the order in which they run."""
check = REGISTER.check
