"""`RunState`: what one run knows: its channels, versions, tasks, and what it was asked to do.

Decides nothing about the walk; it names the fields, their phases, and the few derived facts (ids, namespaces, the next
version) that every part of the core needs. `core.Run` moves it through a run; `plan`, `apply`, `entry`, `pause`, `view`
and `snapshot` are functions over it. Knows no saver, driver, clock or random number: those come in through `Request`.

Invariants
1. Nothing is built that nobody asked for: ids, namespaces and configs exist only once a saver, a stream mode, a question
   or a signature needs them.
2. Versions only grow, and only `next_version` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from typing import Any, Literal, NamedTuple

from checkpoint.base import Claim, LoadedCheckpoint, StepCommit, TaskWrites, Version
from pregel._scope import TaskScope
from pregel.channels.base import BaseChannel
from pregel.channels.ephemeral_value import EphemeralValue
from pregel.constants import MISSING
from pregel.engine import namespace, redeploy
from pregel.engine.occupancy import Stay
from pregel.engine.program import Program
from pregel.engine.task import Task, digest, task_id
from pregel.errors import Interrupt
from pregel.types import Every
from pregel.warnings import Notice, emit

Phase = Literal["new", "idle", "asking", "running", "committing", "done"]
Status = Literal[
    "input",
    "pending",
    "done",
    "interrupt_before",
    "interrupt_after",
    "out_of_steps",
    "out_of_time",
    "out_of_budget",
    "draining",
    "interrupted",
    "failed",
]

LATER = object()
"""Marks that the last values payload equals what the output channels hold now, so it need not be built."""


class Answers:
    """What a resume brought, shared by all nested runs below the one that was resumed.

    `by_id`: interrupt id -> answer; an id is one question's, however often it comes up. `loose`: at most one value that
    was given while no question was pending; the first question of the superstep that is resumed takes it. Looking up and
    taking are one dict or list operation, so any thread may.
    """

    __slots__ = ("anew", "bare", "by_id", "given", "loose", "open", "taken", "unfit")

    def __init__(self, by_id: Mapping[str, Any] | None = None, loose: Any = MISSING, bare: str | None = None) -> None:
        self.by_id: dict[str, Any] = dict(by_id or {})
        self.loose: list[Any] = [] if loose is MISSING else [loose]
        self.bare = bare
        """The id that a bare answer was given; its question has another one now if the nested state was edited since."""
        self.given = bool(by_id) or loose is not MISSING
        """Did the resume answer anything? Then unanswered tasks wait (D43)."""
        self.open: dict[str, Interrupt] = {}
        """Interrupt id -> the question as it was asked first: when it came up, and when it ends, never changes."""
        self.anew: Collection[str] = ()
        """Ids that this resume answers, as opposed to what was stored by an earlier one."""
        self.taken: set[str] = set()
        """Ids of questions that have got their answer in this run."""
        self.unfit = False
        """Has a question turned its answer down, which is stored still?"""


class Channels(dict[str, BaseChannel[Any, Any, Any]]):
    """The channels of a run, made from their specifications when they are first looked at.

    So a run costs what it touches: a graph of a thousand nodes starts as fast as one of ten.
    """

    __slots__ = ("specs", "stored")

    def __init__(self, specs: Mapping[str, BaseChannel[Any, Any, Any]], stored: Mapping[str, Any]) -> None:
        self.specs = specs
        self.stored = stored

    def __missing__(self, name: str) -> BaseChannel[Any, Any, Any]:
        channel = self[name] = self.specs[name].from_checkpoint(self.stored.get(name, MISSING))
        return channel


Breakpoints = tuple[dict[str, str | Sequence[str]], bool | None]
"""Nodes to stop at by "before" and "after", as a call gives them, and whether the thread is to keep (or forget) them."""


class Request:
    """What one caller asked one run to do; filled by `pregel.pregel`, read by everybody, changed by nobody."""

    __slots__ = (
        "as_of",
        "breakpoints",
        "caching",
        "call_number",
        "called",
        "caller",
        "checkpoint_id",
        "clock",
        "config",
        "configurable",
        "context",
        "control",
        "copiers",
        "deferred",
        "durability",
        "forks",
        "gate",
        "hold",
        "interrupt_after",
        "interrupt_before",
        "jitter",
        "key",
        "limit",
        "limits",
        "modes",
        "monotonic",
        "new_id",
        "ns_",
        "observer",
        "outlets",
        "output_keys",
        "own_limits",
        "pace",
        "parent",
        "parent_run",
        "prompt",
        "retry_policy",
        "run_id",
        "runtime",
        "saver",
        "seeds",
        "stable_ns",
        "stood",
        "store",
        "stored_metadata",
        "stores",
        "strict",
        "thread_id",
        "turn",
    )

    def __init__(self) -> None:
        self.caching: Any = None
        """What looks into the cache and keeps (`flights.Caching`); None without a cache."""
        self.called: Any = None
        """The call that the root run is for, if it has a run id of its own (`engine.repeat.Called`)."""
        self.turn: Any = None
        """Root run with a saver: what it does if its thread is held."""
        self.hold: Any = None
        """Root run with a saver: what it has of its thread."""
        self.caller: TaskScope | None = None
        """Root run: the task that it was started in, of a run that has nothing to do with it otherwise."""
        self.stood = None
        self.forks = False
        """Root run: does it go on in a lane if it loses its thread?"""
        self.observer: Any = None
        """Whom the run reports to (`callbacks.Observer`), if anybody observes it."""
        self.limits: Any = None
        """What the call, or one around it, allows its run and those nested in it (`engine.limited.Limits`)."""
        self.own_limits: Any = None
        """The same, if it is this call that says so."""
        self.prompt = False
        """May the run have to end in the middle of a body, because of a deadline?"""

    config: Mapping[str, Any]
    """Merged: ambient, bound, given."""
    configurable: dict[str, Any]
    context: Any
    store: Any
    control: Any
    runtime: Callable[[RunState, TaskScope], Any]
    """Builds the `Runtime` of a task."""
    saver: Any
    """For the drivers of nested runs; the core never calls it."""
    durability: Any
    gate: Any
    """For the drivers: the limit of concurrent bodies, shared by all nested runs."""
    thread_id: str | None
    checkpoint_id: str | None
    """The checkpoint that the caller addressed, None for the newest."""
    seeds: dict[str, tuple[str, str]]
    """Root run: namespace without task ids -> (namespace, checkpoint id) of nested checkpoints that the caller addressed.
    The nested run of the task that had this namespace starts from there (D25)."""
    as_of: str
    """Root run with `seeds`: id of the newest checkpoint that what they address has seen, as `Stood.as_of`."""
    stood: Stood | None
    """Nested run of a replayed superstep: where it stood then."""
    run_id: str | None
    ns_: str | None
    call_number: int
    """The how-manieth nested run of its task this is, from 0; of those with the same key, if it has one."""
    key: str | None
    """What the caller named this nested run of its task by."""
    stable_ns: bool
    parent: TaskScope | None
    """The scope that this run was started from."""
    parent_run: RunState | None
    stores: bool
    """Is there a saver?"""
    deferred: bool
    """Durability `exit` or `Every`: not each step is stored."""
    pace: Pace | None
    """Durability `Every`, root run: when it is due."""
    stored_metadata: Mapping[str, Any]
    """Scalars of the config that every checkpoint carries."""
    limit: int
    modes: frozenset[str]
    outlets: tuple[Any, ...]
    """Where chunks go: each has `append`, and `offer` for those that can wait."""
    output_keys: str | Sequence[str]
    interrupt_before: str | Sequence[str]
    interrupt_after: str | Sequence[str]
    breakpoints: Breakpoints
    copiers: Mapping[type, Callable[[Any], Any]]
    retry_policy: Sequence[Any]
    strict: bool
    clock: Callable[[], float]
    """Unix seconds."""
    monotonic: Callable[[], float]
    """Seconds that only go forward."""
    new_id: Callable[[int], str]
    """A checkpoint id for a step, when there is no claim to number it."""
    jitter: Callable[[], float]

    @property
    def ns(self) -> str:
        """The namespace of the run; worked out when first asked for, since most nested runs without a saver never are."""
        if self.ns_ is None:
            assert self.parent_run is not None
            assert self.parent is not None
            around, task = self.parent_run, self.parent.task
            if self.stable_ns:
                self.ns_ = around.stable_ns_of(task, self.call_number, self.key)
            else:
                self.ns_ = namespace.nested_ns(around.ns_of(task), self.call_number, self.key)
        return self.ns_


class Stood(NamedTuple):
    """Where a run of a replayed superstep stood when the checkpoint was made that the caller addressed."""

    ns: str
    checkpoint_id: str
    rev: int
    as_of: str
    """The addressed checkpoint, or what it is an edit of: ids sort by time, and what is newer had not happened yet."""


class Unstored(NamedTuple):
    """A nested run that has ended, with durability `exit`."""

    run: RunState
    held: list[TaskWrites]
    """Writes of its open superstep."""
    is_parked: bool
    """Is it to be stored whatever becomes of the superstep?"""


class Pace:
    """When a run whose steps are not all stored is to be stored again: counts steps, and seconds of a clock that only goes
    forward."""

    __slots__ = ("_began", "_n_steps", "every")

    def __init__(self, every: Every, now: float) -> None:
        self.every = every
        self._n_steps = 0
        self._began = now

    def is_due(self, now: float) -> bool:
        """A step has ended at this time: is it to be stored? If so, counting starts over."""
        self._n_steps += 1
        steps, seconds = self.every.steps, self.every.seconds
        if (steps is None or self._n_steps < steps) and (seconds is None or now - self._began < seconds):
            return False
        self._n_steps, self._began = 0, now
        return True


class Known(NamedTuple):
    """What is known of how a channel changed since the last commit."""

    kept: int | None
    """Leading elements that were there before, if all others were appended; None if that is not known."""
    before: Any
    """The container that the last commit holds; MISSING if that is not known."""
    writes: Sequence[Any]
    """Everything written into the channel."""

    def followed_by(self, later: Known) -> Known | None:
        """Of both changes, one after the other; None if nothing is known of them together."""
        kept = None if self.kept is None or later.kept is None else min(self.kept, later.kept)
        if kept is None and self.before is MISSING:
            return None
        return Known(kept, self.before, [*self.writes, *later.writes])


class Kept:
    """What tasks of one step recorded by `once`: results by the id of their row, and who is making one."""

    __slots__ = ("makers", "step", "values")

    def __init__(self, step: int) -> None:
        self.step = step
        self.values: dict[str, Any] = {}
        self.makers: dict[tuple[TaskScope, str, Any], Any] = {}


class RunState:
    """The fields of a run and the facts that follow from them."""

    __slots__ = (
        "abandons",
        "answers",
        "base",
        "bubble",
        "built",
        "changed",
        "channels",
        "checkpoint_id_",
        "claim",
        "continues",
        "copiers",
        "emitted",
        "entered",
        "facts",
        "facts_changed",
        "failure",
        "finished",
        "has_put_off",
        "held",
        "interrupts",
        "is_fresh",
        "is_mixed",
        "keeper",
        "kept",
        "live",
        "loaded",
        "made_step",
        "moved_past",
        "notices",
        "occupied",
        "open_runs",
        "outlets",
        "parent_id",
        "parent_rev",
        "parked",
        "pending",
        "phase",
        "program",
        "ready",
        "recalled",
        "refused",
        "replayed",
        "replaying",
        "request",
        "resumed",
        "rev",
        "seen",
        "seen_changed",
        "sees",
        "source",
        "spawner",
        "spent",
        "starved",
        "status",
        "step",
        "stood",
        "stop",
        "stores",
        "sub",
        "sub_changed",
        "sub_open",
        "taken_over",
        "tasks",
        "unsettled",
        "updated",
        "version",
        "versions",
        "waiting",
    )

    # ---- what it was made from

    program: Program
    """While the open step's tasks are stored under former names, the program as it knows them."""
    built: Program | None
    """The program as it was built, while `program` is another one."""
    request: Request
    loaded: LoadedCheckpoint | None
    taken_over: redeploy.TakenOver | None
    """What became of the loaded checkpoint, if another version of the graph has made it."""
    stores: bool
    copiers: Mapping[type, Callable[[Any], Any]]
    outlets: tuple[Any, ...]
    sees: frozenset[str]
    """Stream modes that somebody listens to."""
    spawner: Callable[[TaskScope, Any, Any], Any] | None
    """Set by the driver: starts a child task, returns its future."""
    keeper: Any
    """The driver, as far as running tasks record results with it (`once`, `keep`); None when it is over."""

    # ---- the channels, and the checkpoint that the current step starts from

    channels: Channels
    versions: dict[str, Version]
    seen: dict[str, dict[str, Version]]
    """Node -> channel -> the version that it consumed last."""
    version: Version | None
    updated: list[str] | None
    is_fresh: bool
    """Was `updated` set by a barrier of this run? (Else it was loaded, and who woke may have run already.)"""
    live: list[str]
    """Channels with a value that the end of the step may clear."""
    step: int
    made_step: int
    """Step of the checkpoint that the current step starts from."""
    checkpoint_id_: str | None
    rev: int
    parent_rev: int | None
    parent_id: str | None
    source: str
    """Source of the checkpoint that the current step starts from."""
    base: tuple[int, str] | None
    """Rev and id of the newest stored checkpoint of this line: the parent of the next stored one, if not each step is
    stored."""
    claim: Claim | None
    pending: list[TaskWrites]
    """Stored writes of the step that was open; empty after its commit."""
    facts: dict[str, Any]
    """What is remembered with the line of checkpoints, beside the state; changed by `remember`."""
    sub: dict[str, int]
    """Stable namespace -> rev at which its last run ended."""
    sub_open: dict[str, int]
    """The same, of runs that ended in the open superstep: they count when it is closed."""

    # ---- what changed since the last commit

    changed: dict[str, Known | None]
    """Channels, and what is known of how; None if nothing. Only with a saver."""
    is_mixed: bool
    """May `changed` have channels of several versions?"""
    seen_changed: dict[str, dict[str, Version]]
    """Node -> its entry in `seen`."""
    sub_changed: dict[str, int]
    facts_changed: dict[str, Any]

    # ---- how it began

    answers: Answers
    resumed: bool
    """Does this run continue from a stored state? Only until its first superstep has ended."""
    replaying: bool
    """Does it run again what an addressed checkpoint came before? (Stored results are not used then.)"""
    replayed: bool
    """Did this run begin as a replay?"""
    entered: Version | None
    """The version that the input got; None if the run continues from a stored state."""
    continues: bool
    """Nested run: was it found stored under the superstep that its parent has open? Then its input is ignored."""
    moved_past: bool
    """Was a checkpoint addressed after which the thread went on? (Stored results are not used then, answers are.)"""
    stood: Stood | None
    """Replay of an addressed nested checkpoint: where this run stood then."""
    stop: int
    """The last step that the step limit allows."""

    # ---- the current step

    phase: Phase
    tasks: list[Task]
    """In planned order; handlers and called tasks are appended."""
    unsettled: int
    waiting: list[Task]
    """Tasks that are neither finished nor going to run now: their question is still open."""
    starved: list[str]
    """Nodes that were due and had nothing to read."""
    has_put_off: bool
    """Does a task of the step stay pending because the run was asked to stop while it waited for its next attempt?"""
    held: list[TaskWrites]
    """Writes of settled tasks that are not stored yet."""
    recalled: Any
    """What is stored of called tasks of the open step (`calls.Recalled`); None until one is called again."""
    kept: Kept | None
    """What tasks of the current step recorded; None until one does."""
    notices: list[Any]
    """What the run has to say, for the driver to say: warnings (`Notice`), and reports to those who observe it."""
    emitted: Any
    """The last values payload; MISSING if there was none; `LATER` if it is what the channels hold now."""

    # ---- how it ends

    status: Status
    failure: BaseException | None
    bubble: BaseException | None
    """Control flow on its way to the parent graph."""
    interrupts: list[Interrupt]
    """Questions of this run, in the order in which they came up."""
    refused: BaseException | None
    """What a task raised because an answer did not fit its question; the question stays open."""
    ready: list[str]
    """Names of the tasks that the step limit kept from running."""
    spent: Any
    """The limits (`engine.limited.Limits`) whose supersteps are used up."""

    # ---- what nested runs leave with it

    open_runs: list[Unstored]
    """Durability `exit`: nested runs that ended in the open superstep, of this run and of nested ones that did not
    close theirs. They are stored only if it is not closed: then they are what a resume goes on from."""
    parked: list[StepCommit]
    """Durability `exit`, root run: what nested runs want stored with the final commit."""
    finished: dict[str, LoadedCheckpoint]
    """Durability `exit`, root run: stable namespace -> state of its last finished run."""
    occupied: dict[str, Stay]
    """Root run: stable namespace -> the last nested run in it."""
    abandons: bool
    """Root run: were bodies left to themselves, of this run or of nested ones, that may still be running?"""

    def __init__(self, program: Program, request: Request, loaded: LoadedCheckpoint | None = None) -> None:
        self.program = program
        self.request = request
        self.stores = request.stores
        self.copiers = request.copiers
        self.outlets = request.outlets
        self.sees = request.modes
        self.spawner = self.keeper = None
        self.phase = "new"
        self.status = "input"
        self.unsettled = 0
        self.tasks = []
        self.held = []
        self.waiting = []
        self.starved = []
        self.ready = []
        self.notices = []
        self.interrupts = []
        self.failure = self.bubble = self.refused = self.spent = self.recalled = self.kept = None
        self.has_put_off = self.abandons = self.is_mixed = False
        self.emitted = MISSING
        self.changed = {}
        self.seen_changed = {}
        self.sub_changed = {}
        self.sub_open = {}
        self.facts_changed = {}
        self.parked = []
        self.open_runs = []
        self.finished = {}
        self.occupied = {}
        around = request.parent_run
        self.answers = Answers() if around is None else around.answers
        self.stood = self.entered = None
        self.resumed = self.replaying = self.replayed = self.continues = self.moved_past = False
        self.loaded = loaded
        self.claim = None if loaded is None else loaded.claim
        self.restore(loaded)
        self.stop = self.step + request.limit + 1

    def restore(self, loaded: LoadedCheckpoint | None) -> None:
        """Take over a stored state, or start with an empty one."""
        self.built = self.taken_over = None
        if loaded is not None and self.stores:
            self.taken_over = redeploy.take_over(self.program, loaded)
        self.updated = None
        self.is_fresh = False
        self.checkpoint_id_ = self.parent_rev = self.parent_id = self.base = None
        self.rev = 0
        self.source = "input"
        if loaded is None or loaded.checkpoint_id is None:
            self.channels = Channels(self.program.channels, {})
            self.versions = {}
            self.seen = {}
            self.version = None
            self.step = -1
            self.made_step = -2
            self.pending = []
            self.sub = {}
            self.facts = {}
            self.live = []
            return
        self.channels = Channels(self.program.channels, loaded.values)
        self.versions = loaded.versions
        self.seen = loaded.seen
        self.version = max(loaded.versions.values()) if loaded.versions else None
        self.step = loaded.step + 1
        self.made_step = loaded.step
        self.checkpoint_id_ = loaded.checkpoint_id
        self.rev = loaded.rev
        self.base = loaded.rev, loaded.checkpoint_id
        self.parent_rev = loaded.parent_rev
        self.parent_id = loaded.parent_id
        self.source = loaded.source
        self.pending = loaded.writes
        self.sub = loaded.sub
        self.sub_open = dict(loaded.open_sub)
        self.facts = loaded.facts
        self.updated = loaded.updated_channels or None
        self.live = [name for name in loaded.values if name in self.program.clearing]
        if self.taken_over is not None:
            self._adopt(self.taken_over)

    def _adopt(self, taken_over: redeploy.TakenOver) -> None:
        """Let the next commit store what has moved, and the open step have the names that it is stored under."""
        for name in taken_over.left:
            self._carry(name)
        self.changed = dict.fromkeys([*taken_over.moved, *taken_over.left])
        self.is_mixed = bool(self.changed)
        self.seen_changed = {name: self.seen[name] for name in taken_over.seen_changed}
        self.facts_changed.update(taken_over.facts_changed)
        if taken_over.addresses:
            self.built = self.program
            self.program = self.program.known_as(taken_over.addresses)

    def _carry(self, name: str) -> None:
        """Hold what is stored of a channel that the graph does not declare, so that it can be stored again."""
        holder = self.channels[name] = EphemeralValue(Any)
        holder.value = self.channels.stored.get(name, MISSING)

    def step_over(self) -> None:
        """The step is over that was open when the run began: what comes has the names of this graph."""
        if self.built is not None:
            self.program, self.built = self.built, None

    def drop_open_step(self) -> None:
        """What is stored of the open superstep does not count: neither its tasks' writes nor where nested runs ended."""
        self.pending = []
        self.sub_open = {}

    def transplant(self) -> None:
        """Continue in a namespace that has nothing yet, from what was loaded of another: everything is to be stored."""
        self.rev = 0
        self.parent_rev = self.parent_id = self.loaded = self.base = None
        self.changed = dict.fromkeys(self.versions)
        for name in self.versions.keys() - self.program.channels.keys():
            self._carry(name)
        self.is_mixed = True
        self.seen_changed = dict(self.seen)
        self.sub_changed = {**self.sub, **self.sub_changed}
        self.facts_changed = dict(self.facts)

    # ---- identity, built when asked for

    @property
    def ns(self) -> str:
        """The namespace of the run, "" for a root run."""
        ns = self.request.ns_
        return self.request.ns if ns is None else ns

    @property
    def root(self) -> RunState:
        """The outermost run around this one."""
        run = self
        while run.request.parent_run is not None:
            run = run.request.parent_run
        return run

    @property
    def checkpoint_id(self) -> str:
        """Id of the checkpoint that the current step starts from, also when nothing is stored."""
        if self.checkpoint_id_ is None:
            self.checkpoint_id_ = self._unstored_id()
        return self.checkpoint_id_

    def _unstored_id(self) -> str:
        parent, around = self.request.parent, self.request.parent_run
        if parent is None or around is None:
            return self.request.new_id(self.step - 1)
        # A nested run that stores nothing starts over when its parent is resumed: equal ids let answers find it.
        return digest([around.id_of(parent.task), self.ns, str(self.step - 1)])

    def number(self, step: int) -> None:
        """Give the next checkpoint its number and id."""
        if self.claim is None:
            self.checkpoint_id_ = None
        else:
            self.rev, self.checkpoint_id_ = self.claim.numbered(step)

    def id_of(self, task: Task) -> str:
        """The id of a task of the current step."""
        id_ = task.id_
        if id_ is None:
            parent = None if task.parent is None else self.id_of(task.parent)
            ns = self.request.ns_
            ns = self.ns if ns is None else ns
            id_ = task.id_ = task_id(self.checkpoint_id_ or self.checkpoint_id, ns, task, parent)
        return id_

    def ns_of(self, task: Task) -> str:
        """The namespace of a task: where its first nested run lives."""
        around = self.ns
        if task.call_index >= 0 and task.parent is not None:
            around = self.ns_of(task.parent)
        return namespace.task_ns(around, task.node.address, self.id_of(task))

    def stable_names(self, task: Task) -> list[str]:
        """Stable namespaces that a task may have: under its node's name, and under former names of the nodes on the way."""
        parent, outer = self.request.parent, self.request.parent_run
        if task.call_index >= 0 and task.parent is not None:
            around = self.stable_names(task.parent)
        elif parent is None or outer is None or self.request.stable_ns:
            around = [namespace.stable(self.ns)]
        else:
            call, key = self.request.call_number, self.request.key
            around = [namespace.nested_ns(name, call, key) for name in outer.stable_names(parent.task)]
        return [namespace.below(ns, name) for ns in around for name in redeploy.stable_names(task.node)]

    def stable_ns_of(self, task: Task, call: int, key: str | None) -> str:
        """Namespace of the `call`-th stateful nested run (from 0) of a task. What was begun under a former name of a node
        stays there."""
        names = [namespace.nested_ns(name, call, key) for name in self.stable_names(task)]
        if len(names) > 1:
            return next((name for name in names if self.newest(name) is not None), names[0])
        return names[0]

    def newest(self, ns: str) -> int | None:
        """Rev at which the last run of a stable namespace ended, as far as the lineage of this and the runs around knows.

        A run in a namespace of its own knows only what it has seen itself; the next outer one knows what was before.
        """
        around: RunState | None = self
        while around is not None:
            rev = around.sub_open.get(ns) or around.sub_changed.get(ns, around.sub.get(ns))
            if rev is not None or around.request.stable_ns:
                return rev
            around = around.request.parent_run
        return None

    def stood_ns_of(self, task: Task) -> str:
        """The namespace that a task of a replayed superstep had when it ran first."""
        stood = self.stood
        assert stood is not None
        return self._stood_of(task, stood)[1]

    def _stood_of(self, task: Task, stood: Stood) -> tuple[str, str]:
        """Id and namespace that a task had in the superstep that is replayed."""
        parent_id, around = None, stood.ns
        if task.parent is not None:
            parent_id, parent_ns = self._stood_of(task.parent, stood)
            if task.call_index >= 0:
                around = parent_ns
        former = self.taken_over.addresses.get(task.name) if self.taken_over is not None else None
        if former is not None and task.index < 0 and task.call_index < 0:
            # It ran first in another version of the graph.
            task = copy(task)
            task.node = task.node.known_as(former)
        id_ = task_id(stood.checkpoint_id, stood.ns, task, parent_id)
        return id_, namespace.task_ns(around, task.node.address, id_)

    def parents(self) -> dict[str, str]:
        """Namespace -> current checkpoint id of every graph around this one."""
        around = self.request.parent_run
        return {} if around is None else {**around.parents(), around.ns: around.checkpoint_id}

    # ---- what happens to it, in the smallest steps

    def emit(self, mode: str, payload: Any) -> None:
        """Hand a chunk to everybody who listens to this run."""
        path = namespace.path_of(self.ns)
        for outlet in self.outlets:
            outlet.append((path, mode, payload))

    @property
    def is_crowded(self) -> bool:
        """Does somebody who listens have too much to read?"""
        return any(outlet.must_wait for outlet in self.outlets)

    def notice(self, code: str, place: str, text: str) -> None:
        """Record a warning for the driver to emit."""
        self.notices.append(Notice(code, place, text))

    def take_reports(self) -> list[Any]:
        """What is to be told to those who observe the run (`report.Report`), in order; the warnings stay."""
        said, self.notices = self.notices, []
        self.notices += [notice for notice in said if isinstance(notice, Notice)]
        return [report for report in said if not isinstance(report, Notice)]

    def warn(self) -> None:
        """Emit the warnings that were recorded; called by the driver, where the user's stack is. Reports stay."""
        said, self.notices = self.notices, []
        self.notices += [report for report in said if not isinstance(report, Notice)]
        emit([notice for notice in said if isinstance(notice, Notice)], self.program.warned, strict=self.request.strict)

    def remember(self, name: str, fact: Any) -> None:
        """Keep a fact (plain msgpack; None forgets it) with this line of checkpoints, from the next commit on."""
        if self.facts.get(name) != fact:
            self.facts[name] = self.facts_changed[name] = fact

    def sign(self) -> None:
        """Leave with the next checkpoint which version of the graph has made it."""
        self.remember(redeploy.FACT, redeploy.mark_of(self.program))

    def next_version(self) -> Version:
        """The version that everything which changes now gets; one per barrier."""
        if self.changed:
            self.is_mixed = True
        if self.claim is None:
            self.version = 1 if self.version is None else self.version + 1  # type: ignore[operator]
        else:
            self.version = self.claim.next_version(self.version)
        return self.version

    def bump(self, name: str, version: Version) -> None:
        """A channel has changed."""
        self.versions[name] = version
        if self.stores:
            self.mark(name)

    def mark(self, name: str, writes: Sequence[Any] = ()) -> None:
        """Remember for the next commit that a channel has changed, by these writes, and what is known of how."""
        channel = self.channels[name]
        kept = channel.last_edit()
        # After an append the old container is only asked for if something else may follow before the commit.
        before = channel.replaced() if kept is None or self.request.deferred else MISSING
        known = None if kept is None and before is MISSING else Known(kept, before, writes)
        if name in self.changed:
            earlier = self.changed[name]
            known = None if earlier is None or known is None else earlier.followed_by(known)
        self.changed[name] = known
