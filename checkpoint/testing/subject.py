"""A saver in one colour: what the checks call.

Decides how a saver is made, entered and closed, which of its two APIs a check meets, and what it is able to do. Knows no
check.

Async calls all run on one loop, which runs in a thread of its own for as long as the saver is open: savers may be bound
to the loop they were made on, and sync methods of an async saver may wait for that loop.

Invariant: a check that is written once, with plain calls, sees the same saver through either API.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from checkpoint.adapter import is_native
from checkpoint.base import Claim, LoadedCheckpoint, StepCommit, Version
from checkpoint.testing.report import Colour
from checkpoint.workers import LoopThread

REQUIRED: Final = ("get_tuple", "list", "put", "put_writes")
"""Without these, in one colour, an object is no saver in that colour."""
OPTIONAL: Final = {
    "delete_thread": "delete_thread",
    "delete_for_runs": "delete_for_runs",
    "copy_thread": "copy_thread",
    "fork": "fork",
    "prune": "prune",
    "delta_channel_history": "get_delta_channel_history",
    "verify": "verify",
    "lanes": "open_lane",
}
"""Capability -> the method that makes it."""
CAPABILITIES: Final = (*OPTIONAL, "filter", "native", "replace")
"""All names that `capabilities=` knows. `filter`: metadata can be searched, which a saver that encrypts it refuses;
`native`: the interface the engine calls; `replace`: `put_writes(replace=)`."""

Entries = list[Any]
"""What a listing shows. Under this name because a saver has a method `list`."""

_END: Final = object()


@dataclass(frozen=True, slots=True)
class Opening:
    """How savers are made. `make` and `reopen` take the place (a path that does not exist before the first call), or
    nothing. `reference` is `module:name` of what opens a place again in another process, None if there is none.
    `damage` takes a place and returns ways to damage what is stored there, by name."""

    make: Callable[..., Any]
    reopen: Callable[..., Any] | None = None
    reference: str | None = None
    damage: Callable[[Path], Mapping[str, Callable[[], object]]] | None = None

    @classmethod
    def of(cls, make: Callable[..., Any], reopen: Callable[..., Any] | None = None, damage: Any = None) -> Opening:
        """The opening of two functions; one that takes a place is its own `reopen`."""
        if reopen is None and takes_place(make):
            reopen = make
        return cls(make, reopen, reference_of(reopen) if reopen is not None else None, damage)

    @property
    def leases(self) -> bool:
        """Can a saver that is opened again be told to lease threads: does what opens it take `lease_ttl=`?"""
        return self.reopen is not None and _takes_lease(self.reopen)

    def opened(
        self, colour: Colour, place: Path, *, again: bool = False, lease_ttl: float | None = None
    ) -> AbstractContextManager[Subject]:
        """A saver in one colour; closed with the block. `again`: over what is stored at the place. `lease_ttl`: seconds
        for which its runs keep other processes off a thread, after each write."""
        function = self.make if not again else self.reopen
        assert function is not None
        return _opened(self, function, colour, place, {} if lease_ttl is None else {"lease_ttl": lease_ttl})


def takes_place(function: Callable[..., Any]) -> bool:
    """Does a function that makes savers ask for a place: has it a positional parameter without default?"""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return any(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters)


def _takes_lease(function: Callable[..., Any]) -> bool:
    try:
        return "lease_ttl" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def reference_of(function: Any) -> str | None:
    """`module:name` of a function or class, None unless another process can import it by that."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<")
    if module in (None, "__main__") or "<" in name or "." in name:
        return None
    return f"{module}:{name}" if getattr(sys.modules.get(module), name, None) is function else None


@contextmanager
def _opened(
    opening: Opening, function: Callable[..., Any], colour: Colour, place: Path, options: Mapping[str, Any]
) -> Iterator[Subject]:
    loop = LoopThread("conformance")
    with ExitStack() as stack:
        stack.callback(loop.stop)
        made = function(place, **options) if takes_place(function) else function(**options)
        if inspect.isawaitable(made):
            made = loop.call(_awaited(made))
        if colour == "async" and isinstance(made, AbstractAsyncContextManager):
            saver = loop.call(_awaited(made.__aenter__()))
            stack.callback(lambda: loop.call(_awaited(made.__aexit__(None, None, None))))
        elif isinstance(made, AbstractContextManager):
            saver = stack.enter_context(made)
        elif isinstance(made, AbstractAsyncContextManager):
            saver = loop.call(_awaited(made.__aenter__()))
            stack.callback(lambda: loop.call(_awaited(made.__aexit__(None, None, None))))
        else:
            saver = made
        yield Subject(saver, colour, loop, opening, place)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def implements(saver: Any, name: str) -> bool:
    """Is a method of a saver more than the base class's refusal?"""
    for cls in type(saver).__mro__:
        if name in vars(cls):
            return cls.__name__ != "BaseCheckpointSaver"
    return False


def missing_in(saver: Any, colour: Colour) -> list[str]:
    """The required methods that a saver lacks in a colour."""
    prefix = "a" if colour == "async" else ""
    return [prefix + name for name in REQUIRED if not implements(saver, prefix + name)]


def capabilities_of(saver: Any, colour: Colour) -> set[str]:
    """What a saver is able to do beyond the required methods, seen by what it overrides."""
    prefix = "a" if colour == "async" else ""
    found = {
        capability
        for capability, name in OPTIONAL.items()
        # The history has a default implementation over the required methods, which is worth checking too.
        if implements(saver, prefix + name) or (capability == "delta_channel_history" and hasattr(saver, prefix + name))
    }
    if is_native(saver):
        found.add("native")
    if "native" not in found or not hasattr(saver.serde, "cipher"):
        found.add("filter")
    with contextlib.suppress(TypeError, ValueError):
        if "replace" in inspect.signature(getattr(saver, prefix + "put_writes")).parameters:
            found.add("replace")
    return found


class Subject:
    """The methods of a saver in one colour, as plain functions. What needs no colour is on `saver`."""

    def __init__(self, saver: Any, colour: Colour, loop: LoopThread, opening: Opening, place: Path) -> None:
        self.saver = saver
        self.colour: Colour = colour
        self.opening = opening
        self.place = place
        self._loop = loop

    @property
    def is_async(self) -> bool:
        """Is the async API the one that is called?"""
        return self.colour == "async"

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A method by its sync name."""
        if not self.is_async:
            return getattr(self.saver, name)(*args, **kwargs)
        coroutine: Coroutine[Any, Any, Any] = getattr(self.saver, "a" + name)(*args, **kwargs)
        return self._loop.call(coroutine)

    def iterate(self, name: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """A listing by its sync name, entry by entry. Closing the iterator abandons the listing."""
        if not self.is_async:
            yield from getattr(self.saver, name)(*args, **kwargs)
            return
        entries: AsyncIterator[Any] = getattr(self.saver, "a" + name)(*args, **kwargs)
        try:
            while (entry := self._loop.call(_next(entries))) is not _END:
                yield entry
        finally:
            close = getattr(entries, "aclose", None)
            if close is not None:
                self._loop.call(close())

    def next_version(self, current: Version | None) -> Any:
        """The version after `current`, of the kind that the saver uses."""
        return self.saver.get_next_version(current, None)

    def reopened(
        self, colour: Colour | None = None, *, lease_ttl: float | None = None
    ) -> AbstractContextManager[Subject]:
        """Another saver over what is stored at this one's place."""
        return self.opening.opened(colour or self.colour, self.place, again=True, lease_ttl=lease_ttl)

    def elsewhere(self, name: str) -> AbstractContextManager[Subject]:
        """An empty saver of the same kind at another place. Its `reopened` works after it is closed, too."""
        return self.opening.opened(self.colour, self.place.with_name(name))

    # The public interface.

    def get_tuple(self, config: Any) -> Any:
        """The addressed checkpoint, or None."""
        return self.call("get_tuple", config)

    def list(self, config: Any, **kwargs: Any) -> Entries:
        """A listing as a list."""
        return [*self.iterate("list", config, **kwargs)]

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        """Store a checkpoint."""
        return self.call("put", config, checkpoint, metadata, new_versions)

    def put_writes(self, config: Any, writes: Any, task_id: str, *args: Any, **kwargs: Any) -> None:
        """Store what a task wrote."""
        self.call("put_writes", config, writes, task_id, *args, **kwargs)

    def delete_thread(self, thread_id: str) -> None:
        """Remove a thread."""
        self.call("delete_thread", thread_id)

    def delete_for_runs(self, run_ids: Collection[str]) -> None:
        """Remove the checkpoints of runs."""
        self.call("delete_for_runs", run_ids)

    def copy_thread(self, source: str, target: str, **kwargs: Any) -> None:
        """Copy a thread."""
        self.call("copy_thread", source, target, **kwargs)

    def fork(self, config: Any) -> Any:
        """Make a checkpoint that goes on from the addressed one."""
        return self.call("fork", config)

    def prune(self, thread_ids: Collection[str], **kwargs: Any) -> Any:
        """Remove old checkpoints."""
        return self.call("prune", thread_ids, **kwargs)

    def verify(self, config: Any = None, **kwargs: Any) -> Any:
        """Problems in what is stored."""
        return self.call("verify", config, **kwargs)

    # The native interface.

    def load(self, config: Any, **kwargs: Any) -> LoadedCheckpoint:
        """The checkpoint to start from."""
        loaded: LoadedCheckpoint = self.call("load", config, **kwargs)
        return loaded

    def commit(self, *commits: StepCommit, durability: Any = "sync") -> None:
        """Encode commits and write them in one transaction."""
        self.call("write", [self.saver.encode(commit) for commit in commits], durability=durability)

    def release(self, claim: Claim) -> None:
        """The run of a claim is over."""
        self.call("release", claim)

    def history(self, *args: Any, **kwargs: Any) -> Entries:
        """A native listing as a list."""
        return [*self.iterate("history", *args, **kwargs)]

    def last_of_run(self, config: Any, run_id: str) -> str | None:
        """The newest checkpoint of a run."""
        found: str | None = self.call("last_of_run", config, run_id)
        return found


async def _next(entries: AsyncIterator[Any]) -> Any:
    return await anext(entries, _END)
