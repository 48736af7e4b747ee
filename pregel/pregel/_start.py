"""Where a run starts: it waits for its thread, loads the state that it goes on from, and makes the `Run`.

Decides which stored checkpoint that is: the newest, the one that the call addresses, for a nested run what its parent's
step had, for a call that was made before where it was left (D25, D34). Questions to savers are generators of
`_places.Looked`, so both colours ask the same. Runs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from checkpoint.base import LoadedCheckpoint
from checkpoint.holders import Hold
from pregel.engine import namespace, pause, repeat, snapshot
from pregel.engine.core import Run
from pregel.engine.limited import LimitedRun
from pregel.engine.origin import is_edit
from pregel.engine.state import Request, RunState, Stood
from pregel.pregel import _places as places
from pregel.pregel import _turns as turns
from pregel.pregel._graph import Graph
from pregel.pregel._request import address
from pregel.pregel._turns import Turn
from pregel.types import Command

PAGE: Final = 4
"""Checkpoints that are looked at together for the one of a superstep."""


REPLAYED = "replayed"
"""The fact of a replay: the addressed checkpoint of the root run, and those of nested ones, by namespace. It counts for
the fork checkpoint that it begins with, whose parent is the addressed one."""


CALLER = "caller"
"""The fact of a nested run that shares its state with others: the called task that its last run was started in."""


def enter(request: Request, load_: Callable[[], LoadedCheckpoint] | None = None) -> LoadedCheckpoint | None:
    """Wait for the thread as the call says, and load the state that the run starts from, or what `load_` says.

    Raises:
        ThreadBusyError: another run holds the thread.
    """
    turn: Turn | None = request.turn
    if turn is None:
        return load(request)
    hold = hold_of(request)
    turns.take(hold, turn, request.caller)
    try:
        _refuse_beside_itself(request)
        found = load_() if load_ is not None else load(request)
        assert found is not None
        while (nap := turn.leased(hold, found)) is not None:
            time.sleep(nap)
            found = load_() if load_ is not None else load(request)
            assert found is not None
        if settle_in(hold, found):
            request.saver.open_lane(found.claim)
    except BaseException:
        hold.release()
        raise
    return found


async def aenter(
    request: Request, alarm: Any, load_: Callable[[], Awaitable[LoadedCheckpoint]] | None = None
) -> LoadedCheckpoint | None:
    """Async form of `enter`. `alarm`: the class of what a coroutine sleeps on."""
    turn: Turn | None = request.turn
    if turn is None:
        return await aload(request)
    hold = hold_of(request, alarm.running_loop())
    await turns.atake(hold, turn, request.caller, alarm)
    try:
        _refuse_beside_itself(request)
        found = await load_() if load_ is not None else await aload(request)
        assert found is not None
        while (nap := turn.leased(hold, found)) is not None:
            await alarm().sleep(nap)
            found = await load_() if load_ is not None else await aload(request)
            assert found is not None
        if settle_in(hold, found):
            await request.saver.aopen_lane(found.claim)
    except BaseException:
        hold.release()
        raise
    return found


def _refuse_beside_itself(request: Request) -> None:
    """A call that is being executed is not made on a branch as well: it would be applied twice.

    Raises:
        ThreadBusyError: that is what it would do.
    """
    hold: Hold = request.hold
    if request.called is not None and hold.beside:
        holder = hold.holders.holder(hold.thread_id)
        if holder is not None and holder.run_id == hold.run_id:
            raise turns.busy(hold, holder)


def settle_in(hold: Hold, found: LoadedCheckpoint) -> bool:
    """What the run starts from is loaded: an evicted run is refused from here on. Must it go into a lane?"""
    hold.claim = found.claim
    hold.settle_evicted(found.checkpoint_id)
    return hold.beside


def hold_of(request: Request, loop: Any = None) -> Hold:
    """A root run's hold of its thread, not taken yet. `loop`: the event loop that will drive it."""
    assert request.thread_id is not None
    hold = request.hold = Hold(request.saver.holders, request.thread_id, request.run_id, loop)
    return hold


def rest(request: Request) -> None:
    """A nested run may stand still from here on, as a stream does between two chunks: nobody waits for its questions."""
    if request.parent is not None:
        request.parent.questions.going_on.discard(request)
        request.parent.questions.stir()


def again(request: Request, run: Run, error: BaseException) -> bool:
    """Is a call whose first write was refused to be tried once more?"""
    turn: Turn | None = request.turn
    return turn is not None and turn.again(error, run.loaded)


def load(request: Request) -> LoadedCheckpoint | None:
    """The state that a run starts from."""
    if not request.stores:
        return None
    kept = unstored(request)
    return kept if kept is not None else places.ask(request.saver, _start_of(request))


async def aload(request: Request) -> LoadedCheckpoint | None:
    """Async form of `load`."""
    if not request.stores:
        return None
    kept = unstored(request)
    return kept if kept is not None else await places.aask(request.saver, _start_of(request))


def unstored(request: Request) -> LoadedCheckpoint | None:
    """Durability `exit`: the state that an earlier attempt or call in this very run left, if it is nowhere else."""
    around = request.parent_run
    if not request.deferred or around is None:
        return None
    outer: RunState | None = around
    while outer is not None:
        for run, held, _ in reversed(outer.open_runs):
            inside = run.request.parent_run
            if run.ns == request.ns and inside is not None and inside.checkpoint_id == around.checkpoint_id:
                return snapshot.kept(run, held)
        outer = outer.request.parent_run
    return around.root.finished.get(request.ns) if request.stable_ns else None


def load_arguments(request: Request) -> dict[str, Any]:
    """How the saver is asked for the state that a run starts from (D25)."""
    configurable: dict[str, Any] = {"thread_id": request.thread_id, "checkpoint_ns": request.ns}
    around = request.parent_run
    if around is None:
        if request.checkpoint_id and request.called is None:
            configurable["checkpoint_id"] = request.checkpoint_id
        return {"config": {"configurable": configurable}}
    loaded = around.loaded
    # A replay does not use what is stored of the step; what it finds under a checkpoint of its own is its own: an attempt
    # before this one left it. A resume uses all that is stored, also where the thread went on meanwhile.
    is_open = loaded is None or loaded.rev != around.rev or not around.replaying
    return {
        "config": {"configurable": configurable},
        "claim": around.claim,
        "up_rev": around.rev if is_open else None,
        "at_rev": around.newest(request.ns) if request.stable_ns else None,
    }


def _start_of(request: Request) -> places.Looked[LoadedCheckpoint]:
    """The state that a run starts from, asked of the saver."""
    around = request.parent_run
    if request.seeds:
        request.as_of = yield from _as_of(request)
    found: LoadedCheckpoint = yield "load", (), load_arguments(request)
    if around is None:
        return found if request.called is None else (yield from _recalled(request, found))
    config = address(request, request.ns)
    is_open = found.checkpoint_id is not None and found.parents.get(around.ns) == around.checkpoint_id
    again = around.replaying or (around.stood is not None and around.resumed)
    # Only the superstep that was open then has the addressed runs in it, not those that come later.
    seed = _seed_of(request, around) if around.resumed else None
    if again and seed is None and around.stood is not None and (not is_open or found.source == "fork"):
        seed = yield from _stood_at(request, around, around.stood)
        if seed is None:
            found = yield "load", (), load_arguments(request)  # the saver remembers what was asked for last
    if seed is not None:
        named: LoadedCheckpoint = yield "load", (address(request, *seed),), {"claim": found.claim}
        # On the branch of the replay it may have gone on already: then what comes did not run when that was made.
        goes_on = is_open and again and found.source != "fork"
        if named.checkpoint_id is not None and around.stood is not None and not goes_on:
            request.stood = Stood(named.checkpoint_ns, named.checkpoint_id, named.rev, around.stood.as_of)
        if is_open and again:
            found = yield "load", (), load_arguments(request)
        elif named.checkpoint_id is not None:
            request.checkpoint_id = named.checkpoint_id
            return named
    if is_open and again:
        return found  # left by an earlier attempt of this very task, or by the call that the replay was stopped in
    root = around.root
    if request.stable_ns and not found.is_head and not is_open and root.request.checkpoint_id is None:
        edit = yield from places.edit_after(config, found, root.loaded.rev if root.loaded is not None else 0)
        if edit is not None:
            found = yield "load", (address(request, request.ns, edit),), {"claim": found.claim}
    return found


def _as_of(request: Request) -> places.Looked[str]:
    """The newest of the nested checkpoints that a call addresses, which says what had happened beside it by then.

    An edit stands where what it was made of stood: the runs beside it may have gone on before it was made, and may have
    been edited themselves.
    """
    ns, newest = max(request.seeds.values(), key=lambda seed: seed[1])
    stood: LoadedCheckpoint = yield "load", (address(request, ns, newest),), {}
    while is_edit(stood) and stood.parent_id is not None:
        stood = yield "load", (address(request, ns, stood.parent_id),), {}
    return max([id_ for _, id_ in request.seeds.values() if id_ != newest] + [stood.checkpoint_id or newest])


def _recalled(request: Request, head: LoadedCheckpoint) -> places.Looked[LoadedCheckpoint]:
    """Where a call begins that may have been made before; `head`: the newest checkpoint of its thread."""
    newest = address(request, "")
    while not repeat.meets(request, head):
        at = yield "last_of_run", (newest, request.called.run_id), {}
        answered = repeat.answered_at(request, head) if at is None else None
        if at is None and answered is None:
            break
        past: LoadedCheckpoint = yield "load", (address(request, "", at or answered),), {}
        found = repeat.recalls(request, past, head, answered=at is None)
        if found is not None:
            head = found
            break
        now: LoadedCheckpoint = yield "load", (newest,), {}
        if now.checkpoint_id == head.checkpoint_id:
            raise repeat.superseded(request, past)
        head = now  # another process has gone on meanwhile
    if request.called.mode != "new":
        # It begins where it has come to, whatever checkpoint it addressed.
        request.checkpoint_id = None
        request.seeds = {}
    elif request.checkpoint_id:
        head = yield "load", (address(request, "", request.checkpoint_id),), {}
    return head


def _seed_of(request: Request, around: RunState) -> tuple[str, str] | None:
    """(namespace, checkpoint id) of the nested checkpoint that was addressed for this run; given once."""
    seeds = around.root.request.seeds
    if not seeds:
        return None
    name = _seeded(request, around, seeds)
    if name not in seeds or (around.stood is None and around.root.stood is not None):
        return None
    if around.stood is not None and not request.stable_ns:
        # Of several tasks of one node: the one that it belonged to. A node that was renamed is known by its names alone.
        assert request.parent is not None
        former = namespace.nested_ns(around.stood_ns_of(request.parent.task), request.call_number, request.key)
        if seeds[name][0] != former and namespace.stable(former) == name:
            return None
    return seeds.pop(name)


def _seeded(request: Request, around: RunState, seeds: Mapping[str, Any]) -> str:
    """The namespace without task ids under which a nested checkpoint may have been addressed for this run."""
    assert request.parent is not None
    names = around.stable_names(request.parent.task)
    former = [namespace.nested_ns(name, request.call_number, request.key) for name in names]
    own = namespace.stable(request.ns)
    return next((name for name in (own, *former) if name in seeds), own)


def _stood_at(request: Request, around: RunState, then: Stood) -> places.Looked[tuple[str, str] | None]:
    """Where a nested run of a replayed superstep stood when the addressed checkpoint was made: namespace, checkpoint id."""
    assert request.parent is not None
    ns = request.ns
    if not request.stable_ns:
        ns = namespace.nested_ns(around.stood_ns_of(request.parent.task), request.call_number, request.key)
    addressed: LoadedCheckpoint = yield "load", (address(request, ns, then.as_of),), {"claim": around.claim}
    if addressed.checkpoint_id == then.as_of:
        return ns, then.as_of
    before = then.as_of
    while True:
        # Not the newest one and what it follows on: that may be an edit of an older one, which came after.
        options = {"before": address(request, ns, before), "limit": PAGE, "channels": ()}
        page: list[LoadedCheckpoint] = yield "history", (address(request, ns),), options
        for stood in page:
            if stood.checkpoint_id is not None and stood.parents.get(then.ns) == then.checkpoint_id:
                return ns, stood.checkpoint_id
        last = page[-1].checkpoint_id if len(page) == PAGE else None
        if last is None or last < then.checkpoint_id:
            return None
        before = last


def run_for(graph: Graph, request: Request, loaded: LoadedCheckpoint | None, value: Any) -> Run:
    """The run of a request that starts from what was loaded."""
    if request.caching is not None:
        kind: type[Run] = request.caching.run
    else:
        kind = LimitedRun if request.prompt or request.limits is not None else Run
    run: Run = kind(graph.program, request, loaded)
    if request.parent_run is None:
        _begin_root(run, graph, loaded, value)
    else:
        _begin_nested(run, request.parent_run, loaded)
    return run


def _begin_root(run: Run, graph: Graph, loaded: LoadedCheckpoint | None, value: Any) -> None:
    """Where a root run stops, and what the checkpoint that its call addresses makes of it."""
    request = run.request
    if pause.BREAKPOINTS in run.facts or run.pending or request.breakpoints[1] is not None:
        _set_breakpoints(run)
    if request.key is not None:
        run.notice(
            "misplaced-key",
            request.key,
            f"key={request.key!r} has no effect: it names a nested run of a node, and graph {graph.name!r} is not run "
            f"inside one; use thread_id to tell root runs apart",
        )
    if value is not None and not isinstance(value, Command):
        request.seeds = {}  # a new input goes through the nested graphs from their start
    if loaded is None or loaded.checkpoint_id is None:
        return
    if request.checkpoint_id is not None:
        run.replaying = value is None
        run.moved_past = not loaded.is_head
        if run.replaying and request.seeds:
            run.stood = Stood("", loaded.checkpoint_id, loaded.rev, request.as_of)
            addressed = [[name, *seed] for name, seed in request.seeds.items()]
            run.remember(REPLAYED, [loaded.checkpoint_id, loaded.rev, addressed, request.as_of])
    elif loaded.source == "fork" and REPLAYED in loaded.facts and (value is None or isinstance(value, Command)):
        id_, rev, addressed, as_of = loaded.facts[REPLAYED]
        if id_ == loaded.parent_id:
            # The replay of a nested checkpoint was stopped before it came there: it goes on.
            request.seeds = {name: (ns, nested_id) for name, ns, nested_id in addressed}
            run.stood = Stood("", id_, rev, as_of)


def _begin_nested(run: Run, around: RunState, loaded: LoadedCheckpoint | None) -> None:
    """Whether a nested run goes on where its task left it, and whose it is if several tasks share its state."""
    request = run.request
    caller = None
    if request.stable_ns and request.parent is not None:
        task = request.parent.task
        caller = around.id_of(task) if task.call_index >= 0 else None
    if loaded is None or loaded.checkpoint_id is None:
        if caller is not None:
            run.remember(CALLER, caller)
        return
    run.continues = loaded.parents.get(around.ns) == around.checkpoint_id
    if caller is not None and run.facts.get(CALLER) != caller:
        # Several tasks that a body calls one after the other may run it, each with an input of its own.
        run.continues = run.continues and CALLER not in run.facts
        run.remember(CALLER, caller)
    run.stood = request.stood
    if request.checkpoint_id is not None:
        # The caller named this nested checkpoint: it continues, and what came after it is run again.
        run.continues = True
        run.replaying = around.replayed or around.stood is not None
        if loaded.checkpoint_ns != request.ns:
            run.transplant()


def _set_breakpoints(run: Run) -> None:
    """Where a root run stops: what the call says, else what its thread keeps, else what the graph was compiled with."""
    own, keep = run.request.breakpoints
    kept: dict[str, Any] = pause.kept_breakpoints(run)
    if keep is not None:
        kept = {kind: nodes for kind, nodes in {**kept, **own}.items() if nodes} if keep else {}
    run.remember(pause.BREAKPOINTS, kept or None)
    if kept.get("before") and not own.get("before"):
        run.request.interrupt_before = kept["before"]
    if kept.get("after") and not own.get("after"):
        run.request.interrupt_after = kept["after"]
    for name in {name for nodes in kept.values() for name in nodes}:
        if name != "*" and name not in run.program.nodes:
            run.notice(
                "unknown-breakpoint",
                name,
                f"thread {run.request.thread_id!r} keeps a breakpoint at node {name!r}, which this graph does not have; it "
                f"never stops there: call with keep_breakpoints=False, or keep others",
            )
