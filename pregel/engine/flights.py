"""Looking into a cache for a run, and bodies that keep what they return: of equal ones that run at once, one computes.

Part of the drivers: it calls the cache, on the thread or loop of a body or of who drives. Decides what a failing cache
means (the body runs, and a warning says so), and who waits for whom. What may be looked up and kept is decided in
caching.py, what a key is in `pregel.cache.keys`.

Invariants
1. No result is lost to a cache: not to one that fails, nor to a value that it cannot take.
2. Who computes for others ends that wait whatever happens: he returns, fails, is cancelled or abandoned.
3. Nobody waits for himself, for a body that he runs inside of, or for one that cannot go on before somebody reads what it
   shows. Who waits takes no place among running bodies (D12), and none of his attempt's time.

Source: single flight, as in Go's `golang.org/x/sync/singleflight`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any

from checkpoint.workers import Outcome
from pregel._scope import TaskScope
from pregel.cache import keys
from pregel.engine.caching import CachingRun, Key, unkept, writes_of
from pregel.engine.program import Node, Write
from pregel.engine.task import Task, acall_node, call_node
from pregel.types import CachePolicy

PATIENCE_S = 1.0
"""How often who waits looks whether the other one can still go on."""


class Caching:
    """What a run knows of its graph's cache."""

    __slots__ = ("cache", "default", "graph", "loop")

    run = CachingRun

    def __init__(self, cache: Any, default: CachePolicy[Any] | None, graph: str) -> None:
        self.cache = cache
        self.default = default
        """The policy of nodes and called tasks that have none of their own."""
        self.graph = graph
        self.loop = asyncio._get_running_loop()
        """The event loop on whose thread the run was called; a sync run keeps it from turning."""

    def policy(self, task: Task) -> CachePolicy[Any] | None:
        """The policy that a task is under; None if it always runs."""
        node = task.node
        policy = node.cache_policy or self.default
        if policy is None or node.spec.bound is None or node.is_error_handler or task.error_of is not None:
            return None
        return policy

    def key(self, run: CachingRun, task: Task) -> Key:
        """Where the result of a task is kept.

        Raises:
            TypeError: no key can be made of its input.
            Exception: what the policy's key function raises.
        """
        node = task.node
        policy = self.policy(task)
        assert policy is not None
        key_func = policy.key_func
        called = task.call_index >= 0
        namespace, identity = self._place(node, called, key_func is not None)
        if identity.is_local and getattr(self.cache, "is_shared", False):
            kind = type(self.cache).__name__
            run.notice(
                "cache-local",
                node.name,
                f"node {node.name!r} has a cache policy, but its function holds something that has no content to tell it "
                f"by, such as a client or a lock: what {kind} keeps for it is found by this process only; give "
                f"CachePolicy(key_func=...) that returns text of all that the result depends on",
            )
        given, more = task.input if called else ((task.input,), {})
        return namespace, keys.key_of(f"node {node.name!r}", identity, key_func, tuple(given), more)

    def _place(self, node: Node, called: bool, explicit: bool) -> tuple[tuple[str, ...], keys.Identity]:
        """The namespace of a node's entries, and what its code, place and writers are in their keys."""
        if node.kept_as is None:
            node.kept_as = {}
        how = called, explicit, self.graph
        found: tuple[tuple[str, ...], keys.Identity] | None = node.kept_as.get(how)
        if found is None:
            # A called task is the same one whoever calls it.
            parts = [node.name, None if called else self.graph, *keys.parts_of(node.spec)]
            identity = keys.identity_of(parts, explicit=explicit)
            assert node.spec.bound is not None
            found = node.kept_as[how] = keys.namespace_of(node.name, node.spec.bound.subject), identity
        return found

    @staticmethod
    def keeping(node: Node) -> Node:
        """The node with a body that looks into the cache, waits for an equal body that runs, and keeps its result."""
        twin = copy(node)
        if node.needs_worker and node.async_routers:
            # A body in two halves, on a worker and on the loop: it keeps its result and waits for nobody.
            twin.routers = (*node.routers, _Keeper())
            return twin
        twin.fn = None if node.fn is None else partial(_compute, node)
        twin.afn = None if node.afn is None else partial(_acompute, node)
        twin.inject = _scope_itself
        twin.write = _take
        twin.routers = ()
        return twin

    # ---- asking, before the bodies start

    def look_up(self, run: CachingRun) -> list[Task]:
        """Settle the planned tasks whose results are there; returns the others."""
        try:
            found = self.cache.get(list(dict.fromkeys(run.wanted.values())))
        except Exception as error:  # noqa: BLE001 - whatever a cache raises: the results can be computed
            found = self._failed(run, "asked", error)
        return run.serve(found)

    async def alook_up(self, run: CachingRun) -> list[Task]:
        """Async form of `look_up`."""
        try:
            found = await self.cache.aget(list(dict.fromkeys(run.wanted.values())))
        except Exception as error:  # noqa: BLE001 - as in `look_up`
            found = self._failed(run, "asked", error)
        return run.serve(found)

    # ---- asking and keeping, in a body

    def get(self, scope: TaskScope, key: Key) -> list[Write] | None:
        """The writes that are kept under a key."""
        run: CachingRun = scope.host
        try:
            found = self.cache.get([key])
        except Exception as error:  # noqa: BLE001 - as in `look_up`
            found = self._failed(run, "asked", error)
        return self._served(scope, found)

    async def aget(self, scope: TaskScope, key: Key) -> list[Write] | None:
        """Async form of `get`."""
        run: CachingRun = scope.host
        try:
            found = await self.cache.aget([key])
        except Exception as error:  # noqa: BLE001 - as in `look_up`
            found = self._failed(run, "asked", error)
        return self._served(scope, found)

    def keep(self, scope: TaskScope, key: Key, writes: Sequence[Write]) -> None:
        """Keep what a body has written, if it may be kept."""
        if not self._may_keep(scope, writes):
            return
        try:
            self.cache.set({key: (list(writes), self._ttl(scope))})
        except Exception as error:  # noqa: BLE001 - the result is there, whatever becomes of the entry
            self._unkept(scope, error)

    async def akeep(self, scope: TaskScope, key: Key, writes: Sequence[Write]) -> None:
        """Async form of `keep`."""
        if not self._may_keep(scope, writes):
            return
        try:
            await self.cache.aset({key: (list(writes), self._ttl(scope))})
        except Exception as error:  # noqa: BLE001 - as in `keep`
            self._unkept(scope, error)

    def _ttl(self, scope: TaskScope) -> Any:
        policy = self.policy(scope.task)
        return None if policy is None else policy.ttl

    @staticmethod
    def _served(scope: TaskScope, found: Mapping[Key, Any]) -> list[Write] | None:
        run: CachingRun = scope.host
        for entry in found.values():
            writes = writes_of(run.program, entry)
            if writes is not None:
                run.served.add(scope)
            return writes
        return None

    @staticmethod
    def _may_keep(scope: TaskScope, writes: Sequence[Write]) -> bool:
        run: CachingRun = scope.host
        if scope.is_over() or scope in run.heard or scope.task.answers:
            return False
        channel = unkept(run.program, writes)
        if channel is not None:
            run.notice(
                "cache-unkept",
                scope.task.name,
                f"node {scope.task.name!r} has a cache policy, but it writes {channel!r}, whose values are never stored: "
                f"its results are not kept, and it runs every time; leave out the policy, or let another node write "
                f"{channel!r}",
            )
        return channel is None

    def _failed(self, run: CachingRun, what: str, error: Exception) -> dict[Key, Any]:
        kind = type(self.cache).__name__
        run.notice(
            "cache-failed",
            kind,
            f"the cache ({kind}) cannot be {what}: {error!r}; nodes with a cache policy run until it answers again",
        )
        return {}

    def _unkept(self, scope: TaskScope, error: Exception) -> None:
        name = scope.task.name
        scope.host.notice(
            "cache-unkept",
            name,
            f"the result of node {name!r} is used, but the cache ({type(self.cache).__name__}) did not keep it: "
            f"{error!r}; the node runs again for the same input; see docs/caching.md on what can be kept",
        )


# ---- bodies


def _scope_itself(scope: TaskScope) -> dict[str, Any]:
    return {"scope": scope}


def _take(result: list[Write], scope: TaskScope, writes: list[Write]) -> None:
    """The body has made all writes already; those that it made on the side are among them."""
    writes[:] = result


def _key(scope: TaskScope) -> Key:
    run: CachingRun = scope.host
    return run.wanted.get(scope.task) or run.request.caching.key(run, scope.task)


def _compute(node: Node, input: Any, *, scope: TaskScope) -> list[Write]:
    """The writes of a sync body: those that are kept, or those that it makes now."""
    caching, key = scope.host.request.caching, _key(scope)
    flight = _take_off(caching.cache, key, scope)
    try:
        found: list[Write] | None = caching.get(scope, key)
        if found is not None:
            return found
        result, writes = call_node(scope, node)
        for router in node.routers:
            router.route(result, scope, writes)
        caching.keep(scope, key, writes)
        return writes
    finally:
        if flight is not None:
            flight.land()


async def _acompute(node: Node, input: Any, *, scope: TaskScope) -> list[Write]:
    """Async form of `_compute`."""
    caching, key = scope.host.request.caching, _key(scope)
    flight = await _atake_off(caching.cache, key, scope)
    try:
        found: list[Write] | None = await caching.aget(scope, key)
        if found is not None:
            return found
        result, writes = await acall_node(scope, node)
        for router in node.routers:
            await router.aroute(result, scope, writes)
        await caching.akeep(scope, key, writes)
        return writes
    finally:
        if flight is not None:
            flight.land()


class _Keeper:
    """The last router of a body in two halves: it keeps the writes."""

    call: Any = None

    def route(self, result: Any, scope: TaskScope, writes: list[Write]) -> None:
        """Keep what was written."""
        scope.host.request.caching.keep(scope, _key(scope), writes)

    async def aroute(self, result: Any, scope: TaskScope, writes: list[Write]) -> None:
        """Async form of `route`."""
        await scope.host.request.caching.akeep(scope, _key(scope), writes)


# ---- who computes


class Flight:
    """One body that computes an entry, and those who wait for it. Any thread may land it, any number of times."""

    __slots__ = ("cache", "key", "landed", "loop", "scope")

    def __init__(self, cache: Any, key: Key, scope: TaskScope) -> None:
        self.cache = cache
        """Kept alive, so that no other one gets its address."""
        self.key = key
        self.scope = scope
        self.loop = getattr(scope.host.keeper, "loop", None)
        """The event loop that the body needs to come to its end."""
        self.landed = Outcome()

    def land(self) -> None:
        """The body has come to its end, or nobody waits for that any more."""
        self.scope.releases(self.land)
        with _lock:
            place = id(self.cache), self.key
            if _flights.get(place) is self:
                del _flights[place]
        self.landed.end()

    def carries(self, scope: TaskScope) -> bool:
        """Is this scope the one that computes, or inside of it?"""
        return any(inner is self.scope for inner in _around(scope))

    def is_stuck(self, scope: TaskScope) -> bool:
        """Might the body wait for the one in `scope`? For him to read chunks, or to let its event loop turn."""
        if self.scope.host.is_crowded:
            return True
        loop = self.loop
        if loop is None:
            return False
        return not loop.is_running() or any(_blocks(inner.host, loop) for inner in _around(scope))


def _around(scope: TaskScope) -> Iterator[TaskScope]:
    """A body, and those that it runs inside of."""
    inner: TaskScope | None = scope
    while inner is not None:
        yield inner
        inner = inner.task.caller or inner.parent or inner.host.request.caller


def _blocks(run: Any, loop: Any) -> bool:
    """Is it a sync run that was called on the thread of this event loop?"""
    caching = run.request.caching
    return caching is not None and caching.loop is loop and not hasattr(run.keeper, "loop")


_flights: dict[tuple[int, Key], Flight] = {}
_lock = threading.Lock()


def _join(cache: Any, key: Key, scope: TaskScope) -> tuple[Flight, bool]:
    """The flight that computes an entry, and whether it is the caller's own."""
    place = id(cache), key
    with _lock:
        flight = _flights.get(place)
        if flight is not None:
            return flight, False
        flight = _flights[place] = Flight(cache, key, scope)
    scope.encloses(flight.land)
    return flight, True


@contextmanager
def _at_rest(scope: TaskScope) -> Iterator[None]:
    """A body waits: it takes no place among running ones, and none of its attempt's time.

    Raises:
        AttemptClosedError: the attempt was ended meanwhile.
    """
    gate = scope.host.request.gate
    is_timed = bool(scope.moved_at)
    scope.moved_at = 0.0
    if gate is not None:
        gate.step_out(scope)
    try:
        yield
    finally:
        if gate is not None:
            gate.step_in(scope)
    scope.check()
    if is_timed:
        scope.task.started_at = scope.moved_at = scope.host.now()
        keeper = scope.host.keeper
        if keeper is not None:
            keeper.stop()  # whoever watches the clock looks at it anew


def _take_off(cache: Any, key: Key, scope: TaskScope) -> Flight | None:
    """Wait until nobody else computes an entry; from then on the caller does, until he lands. None: he cannot wait.

    Raises:
        AttemptClosedError: the attempt was ended meanwhile.
    """
    while True:
        flight, is_mine = _join(cache, key, scope)
        if is_mine:
            return flight
        if flight.carries(scope) or flight.is_stuck(scope):
            return None
        with _at_rest(scope):
            while not flight.landed.wait(PATIENCE_S) and not flight.is_stuck(scope):
                scope.check()


async def _atake_off(cache: Any, key: Key, scope: TaskScope) -> Flight | None:
    """Async form of `_take_off`."""
    while True:
        flight, is_mine = _join(cache, key, scope)
        if is_mine:
            return flight
        if flight.carries(scope) or flight.is_stuck(scope):
            return None
        with _at_rest(scope):
            landed = asyncio.ensure_future(flight.landed.aresult())
            try:
                while not landed.done() and not flight.is_stuck(scope):
                    await asyncio.wait([landed], timeout=PATIENCE_S)
            finally:
                landed.cancel()
