"""Which checkpoints of a thread stay, and what goes with those that do not. Knows no SQL and no dicts.

Decides what is live (storage.md C10): `decide` for a prune, `without_runs` for the deletion of runs, `Keeper` for a
policy that a saver applies while it commits. What goes is a list of `Job`s, each a few rows; the savers' transactions
run them through `Upkeep`, as many at a time as they like.

What a prune keeps, namespace by namespace: the newest checkpoints on the line of the head; every checkpoint with an
unanswered question, and what it works under; the newest of each lane, if asked for; then, from there on, the nested
checkpoints that a kept one points to (`sub`) and the newest one that works under a kept one (`up_rev`). A namespace of
one task of one superstep (`name:task-id`) lives as long as a checkpoint that it worked under.

Invariants
1. Jobs are in an order in which every state in between is readable: marks on what stays first, then checkpoints of all
   namespaces from the newest rev to the oldest (what refers to a checkpoint is younger than it), chain rows last.
2. A prune rewrites no header and no body, takes no claim, and keeps every head: a run that goes on does not notice.
3. A plan holds as long as nobody else writes; `Upkeep.stamp` tells, and then it is made again.
4. A chain loses its rows from the top down, so no row is ever made again under a key that is still to be removed. A body
   that takes more rows than a transaction has room for loses its first part first: what is left is no body.

Source of the idea: mark and sweep, with checkpoints that are addressed from outside as roots.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from checkpoint.base import LANE_BIT, N_BITS, Claim, CorruptCheckpointError
from checkpoint.chains import (
    HEADER_ROOT,
    LANE,
    PARENT_PRUNED,
    REV,
    SOURCES,
    STUB,
    THINNED,
    TS,
    Codec,
    EncodedStep,
    PayloadRow,
    StoredChain,
    join_rows,
    kind_of,
)
from checkpoint.deltas import FULL
from checkpoint.headers import Body, Header, fold, fold_on, full_header

ROWS_PER_TRANSACTION: Final = 2000
"""Rows that a transaction of a prune changes at most."""
DROPS_PER_COMMIT: Final = 2
"""Checkpoints that a commit removes at most, by a saver's policy."""
ROWS_PER_COMMIT: Final = 200
"""Rows that a commit may remove beside them, task rows and chain rows for the most part."""
LOOK_EVERY: Final = 64
"""Commits of a run after which its whole thread is looked at again."""
SWEEP_EVERY: Final = 8
"""Runs of a thread after which one looks for rows that nothing needs, which costs reading headers. Others look at the
rows of checkpoints only, if there is one namespace and one line."""

_QUESTION: Final = -3
_ANSWER: Final = -4
_LOOP: Final = SOURCES["loop"]
_OF_ONE_TASK = re.compile(r":[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(\||$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What a saver keeps of every thread without being told to prune.

    Applied inside the transaction of a commit, which removes two checkpoints at most; so a thread that was written
    without a policy shrinks while it goes on. Heads, checkpoints with an unanswered question and what they need stay
    whatever the numbers say. With nested graphs or lanes the numbers hold at the start of a run, and every 64 commits of
    it.
    """

    max_checkpoints: int | None = None
    """Checkpoints of each namespace: its newest ones on the line of its head."""
    max_age: float | None = None
    """Seconds since a checkpoint was made."""
    ttl: float | None = None
    """Seconds since a thread was last written by a run; after that it counts as not stored, and `expire` removes it."""
    keep_forks: bool = True
    """Do lanes (runs that were let go on beside the head) keep their newest checkpoints too?"""

    def __post_init__(self) -> None:
        if self.max_checkpoints is not None:
            checked_keep("Retention: max_checkpoints", self.max_checkpoints)
        for name in ("max_age", "ttl"):
            checked_seconds(f"Retention: {name}", getattr(self, name))


def checked_keep(name: str, number: Any) -> int:
    """The number itself. Raises `ValueError` unless it is an int of at least 1."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{name} is {number!r}; it must be an int of at least 1: the newest checkpoint always stays")
    return number


def checked_seconds(name: str, seconds: Any) -> float | None:
    """The seconds themselves. Raises `ValueError` unless they are None or a number above 0."""
    if seconds is not None and (not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds > 0):
        raise ValueError(f"{name} is {seconds!r}; it must be None or a number of seconds above 0")
    return seconds


# ---- what a saver gives


class SpaceRow(NamedTuple):
    """One namespace of a thread."""

    ns: str
    space_pk: Any
    head: int | None


class Line(NamedTuple):
    """A checkpoint's row without its header."""

    rev: int
    parent_rev: int | None
    up_rev: int | None
    ts: int | str
    source: int
    flags: int
    run_id: str | None
    header_root: int


class Upkeep(Protocol):
    """What upkeep asks of a transaction. Unlike other readers it sees stubs. Nothing fails on rows that are gone."""

    def stamp(self) -> Any:
        """A value that is the same again if nobody has written anything meanwhile; None if that is not known."""

    def n_claims(self, thread_pk: Any) -> int:
        """Greatest number that was given out for a thread; one more each time that a lane leaves the line of others."""
        ...

    def spaces(self, thread_pk: Any) -> list[SpaceRow]:
        """All namespaces of a thread."""
        ...

    def lines_of(self, space_pk: Any) -> list[Line]:
        """Checkpoints and stubs of a namespace, ascending by rev."""
        ...

    def task_keys(self, space_pk: Any, rev: int | None = None) -> list[tuple[int, str | bytes, int]]:
        """(rev, task id, slot) of all task rows of a namespace, or of one checkpoint."""
        ...

    def header_line(self, space_pk: Any, header_root: int, last: int) -> list[tuple[int, bytes]]:
        """A header chain from its root up to a rev, ascending."""
        ...

    def chain_lengths(self, space_pk: Any) -> list[tuple[int, int, int]]:
        """(channel number, root, rows) of every stored chain; a row counts its greatest seq, whatever is missing."""
        ...

    def mark_pruned(self, space_pk: Any, rev: int, *, parent: bool, up: bool, to: int | None = None) -> None:
        """Forget what a checkpoint refers to: its parent (then `to` is the new one, or None), what it works under."""

    def mark_thinned(self, space_pk: Any, rev: int) -> None:
        """Note at a checkpoint that others of its namespace go."""

    def drop_checkpoint(self, space_pk: Any, rev: int, *, stub: bool) -> int:
        """Remove a checkpoint's row and alias, or make a stub of it. Its task rows stay. Returns how many rows it were, 2
        at most."""
        ...

    def drop_tasks(self, space_pk: Any, rev: int, limit: int) -> int:
        """Remove up to `limit` task rows of a checkpoint. Returns how many it were."""
        ...

    def drop_task(self, space_pk: Any, rev: int, task: Any, slot: int) -> None:
        """Remove one task row, by its key as `task_keys` gives it."""

    def drop_chain(self, space_pk: Any, number: int, root: int, first: int, last: int, limit: int) -> int:
        """Remove up to `limit` rows of a chain between two seqs, both included: the last ones first, of each its first part
        first. Returns how many it were."""
        ...

    def drop_space(self, space_pk: Any) -> None:
        """Remove a namespace."""

    def set_header(self, space_pk: Any, rev: int, header_root: int, header: bytes | None) -> None:
        """Give a row another header chain; `header` None keeps its bytes."""

    def set_head(self, space_pk: Any, rev: int | None) -> None:
        """Make a checkpoint the newest of its namespace, or none."""

    def retire(self, thread_pk: Any) -> None:
        """Make a thread vanish at once, for readers and for writers that hold it; its rows may go later."""

    def expire_at(self, thread_pk: Any, moment: float) -> None:
        """Set when a thread stops to count as stored, in seconds since the epoch."""


# ---- what is to do


class Job(Protocol):
    """A bounded change."""

    is_drop: bool
    """Does it take a checkpoint away that could be seen?"""

    def run(self, tx: Upkeep, limit: int) -> tuple[int, bool]:
        """Change about `limit` rows at most. Returns how many, and whether the job is finished."""
        ...


@dataclass(slots=True)
class Mark:
    """See `Upkeep.mark_pruned`."""

    space_pk: Any
    rev: int
    parent: bool
    up: bool
    to: int | None = None
    is_drop: bool = False

    def run(self, tx: Upkeep, limit: int) -> tuple[int, bool]:
        """As `Job.run`."""
        tx.mark_pruned(self.space_pk, self.rev, parent=self.parent, up=self.up, to=self.to)
        return 1, True


@dataclass(slots=True)
class MarkThinned:
    """See `Upkeep.mark_thinned`. Until everything is done, rows are there that nothing refers to any more."""

    space_pk: Any
    rev: int
    is_drop: bool = False

    def run(self, tx: Upkeep, limit: int) -> tuple[int, bool]:
        """As `Job.run`."""
        tx.mark_thinned(self.space_pk, self.rev)
        return 1, True


@dataclass(slots=True)
class Drop:
    """Remove a checkpoint or a stub, then its task rows."""

    space_pk: Any
    rev: int
    stub: bool
    is_drop: bool
    has_tasks: bool = True
    has_row: bool = True

    def run(self, tx: Upkeep, limit: int) -> tuple[int, bool]:
        """As `Job.run`."""
        n_rows = 0
        if self.has_row:
            n_rows = tx.drop_checkpoint(self.space_pk, self.rev, stub=self.stub)
            self.has_row = self.is_drop = False
        if self.has_tasks and limit > n_rows:
            n_tasks = tx.drop_tasks(self.space_pk, self.rev, limit - n_rows)
            self.has_tasks = n_tasks == limit - n_rows
            n_rows += n_tasks
        return n_rows, not self.has_tasks


@dataclass(slots=True)
class DropIfQuiet:
    """Remove a checkpoint unless it asks something. `heir`: the one that may have it as its parent."""

    drop: Drop
    heir: int
    is_drop: bool = True

    def run(self, tx: Upkeep, limit: int) -> tuple[int, bool]:
        """As `Job.run`."""
        drop, n_rows = self.drop, 0
        if drop.has_row:
            if any(slot == _QUESTION for _, _, slot in tx.task_keys(drop.space_pk, drop.rev)):
                return 0, True
            tx.mark_pruned(drop.space_pk, self.heir, parent=True, up=False)
            self.is_drop = False
            n_rows = 1
        n_dropped, is_finished = drop.run(tx, limit - n_rows)
        return n_rows + n_dropped, is_finished


@dataclass(slots=True)
class DropAnswers:
    """Remove some task rows of a checkpoint."""

    space_pk: Any
    rev: int
    keys: list[tuple[Any, int]]
    is_drop: bool = False

    def run(self, tx: Upkeep, limit: int) -> tuple[int, bool]:
        """As `Job.run`."""
        for task, slot in self.keys:
            tx.drop_task(self.space_pk, self.rev, task, slot)
        return len(self.keys), True


@dataclass(slots=True)
class DropChain:
    """Remove the rows of a chain from `first` on, the last ones first."""

    space_pk: Any
    number: int
    root: int
    first: int
    last: int
    is_drop: bool = False

    def run(self, tx: Upkeep, limit: int) -> tuple[int, bool]:
        """As `Job.run`."""
        n_rows = tx.drop_chain(self.space_pk, self.number, self.root, self.first, self.last, limit)
        return n_rows, n_rows < limit


@dataclass(slots=True)
class DropSpace:
    """Remove a namespace that has become empty."""

    space_pk: Any
    is_drop: bool = False

    def run(self, tx: Upkeep, limit: int) -> tuple[int, bool]:
        """As `Job.run`."""
        tx.drop_space(self.space_pk)
        return 1, True


@dataclass(slots=True)
class Rewrite:
    """Take one header chain apart, all of it at once: half of it would not fit the other half."""

    space_pk: Any
    gone: list[int]
    """What goes of those that build on a header which gets a chain of its own; their task rows stay."""
    rows: list[tuple[int, int, bytes | None]]
    """(rev, header root, header) of those that stay, as for `Upkeep.set_header`."""
    head: int | None
    """The newest checkpoint from now on, at the end of its chain: who continues it will extend that one. None: as it
    was."""
    is_drop: bool = False

    def run(self, tx: Upkeep, limit: int) -> tuple[int, bool]:
        """As `Job.run`."""
        for rev in reversed(self.gone):
            tx.drop_checkpoint(self.space_pk, rev, stub=False)
        for rev, root, header in self.rows:
            tx.set_header(self.space_pk, rev, root, header)
        if self.head is not None:
            tx.set_head(self.space_pk, self.head)
        return 1 + len(self.gone) + len(self.rows), True


@dataclass(slots=True)
class Retire:
    """See `Upkeep.retire`."""

    thread_pk: Any
    is_drop: bool = False

    def run(self, tx: Upkeep, limit: int) -> tuple[int, bool]:
        """As `Job.run`."""
        tx.retire(self.thread_pk)
        return 1, True


@dataclass(slots=True)
class SetHead:
    """See `Upkeep.set_head`."""

    space_pk: Any
    rev: int | None
    is_drop: bool = False

    def run(self, tx: Upkeep, limit: int) -> tuple[int, bool]:
        """As `Job.run`."""
        tx.set_head(self.space_pk, self.rev)
        return 1, True


def work(tx: Upkeep, jobs: deque[Any], limit: int, max_drops: int | None = None) -> int:
    """Run jobs until `limit` rows are changed or `max_drops` checkpoints gone; what is left stays in `jobs`.

    Returns the number of checkpoints that are gone.
    """
    n_rows = n_drops = 0
    # A checkpoint's row may have an alias.
    room = max(limit - 1, 1)
    while jobs and n_rows < room:
        job = jobs[0]
        was_drop = job.is_drop
        if was_drop and max_drops is not None and n_drops == max_drops:
            break
        if n_rows and isinstance(job, Rewrite):
            # It is done as a whole, by a transaction that has the room.
            break
        changed, is_finished = job.run(tx, limit - n_rows)
        n_rows += changed
        n_drops += was_drop and not job.is_drop
        if is_finished:
            jobs.popleft()
    return n_drops


# ---- what there is


@dataclass(slots=True)
class SpaceLines:
    """A namespace as upkeep sees it."""

    ns: str
    space_pk: Any
    head: int | None
    lines: list[Line]
    """With stubs."""
    visible: dict[int, Line]
    tasks: dict[int, list[tuple[Any, int]]] = field(default_factory=dict)
    """Rev -> (task id, slot)."""

    @property
    def is_of_one_task(self) -> bool:
        """Does it belong to one task of one superstep of the graph around it?"""
        return _OF_ONE_TASK.search(self.ns) is not None

    def lineage(self, head: int | None, n: int | None, oldest: int | None = None) -> Iterator[Line]:
        """The newest `n` checkpoints on the line that leads to `head`, newest first; none but `head` from before
        `oldest`."""
        rev = head
        while rev is not None and n != 0:
            line = self.visible.get(rev)
            if line is None or (rev != head and _is_older(line, oldest)):
                return
            yield line
            rev = line.parent_rev
            n = None if n is None else n - 1

    def lanes(self) -> Iterator[int]:
        """The newest checkpoint of each lane."""
        newest: dict[int, int] = {}
        for line in self.visible.values():
            if line.flags & LANE:
                newest[line.rev >> N_BITS] = line.rev
        yield from newest.values()

    def closed(self) -> set[int | None]:
        """Checkpoints whose superstep was finished, if what it made is there."""
        return {line.parent_rev for line in self.loops()}

    def loops(self) -> Iterator[Line]:
        """Checkpoints that finished the superstep of their parent."""
        return (line for line in self.visible.values() if line.source == _LOOP and not line.flags & PARENT_PRUNED)

    def asking(self) -> Iterator[Line]:
        """Checkpoints with a question that has no answer, as far as their own rows tell.

        A task that has output was answered. So was one of a superstep that was finished: a run that stores at its end
        only stores neither the answer nor the output. An input or an edit leaves the question open.
        """
        closed = self.closed()
        for rev, keys in self.tasks.items():
            line = self.visible.get(rev)
            if line is not None and rev not in closed:
                done = {task for task, slot in keys if slot == 0}
                if any(slot == _QUESTION and task not in done for task, slot in keys):
                    yield line


def _is_older(line: Line, oldest: int | None) -> bool:
    return oldest is not None and isinstance(line.ts, int) and line.ts < oldest


def read_lines(tx: Upkeep, thread_pk: Any) -> list[SpaceLines]:
    """All namespaces of a thread with their checkpoints."""
    spaces: list[SpaceLines] = []
    for ns, space_pk, head in tx.spaces(thread_pk):
        lines = tx.lines_of(space_pk)
        for line in lines:
            if type(line.rev) is not int or type(line.flags) is not int or type(line.header_root) is not int:
                raise CorruptCheckpointError(
                    f"a row of a checkpoint has {line!r:.100}: it is one of another table", ns=ns
                )
        spaces.append(
            SpaceLines(ns, space_pk, head, lines, {line.rev: line for line in lines if not line.flags & STUB})
        )
    return spaces


def read_tasks(tx: Upkeep, spaces: Iterable[SpaceLines]) -> None:
    """Learn which task rows there are."""
    for space in spaces:
        for rev, task, slot in tx.task_keys(space.space_pk):
            space.tasks.setdefault(rev, []).append((task, slot))


class Folded(NamedTuple):
    """What a checkpoint refers to."""

    refs: list[tuple[int, int, int]]
    """(channel number, root, seq)."""
    sub: dict[str, int]


class Headers:
    """Folds the headers of checkpoints, those of one chain together."""

    def __init__(self, tx: Upkeep) -> None:
        self._tx = tx
        self.known: dict[int, Folded] = {}

    def learn(self, space: SpaceLines, revs: Collection[int]) -> None:
        """Fold the headers of these checkpoints of one namespace, as far as they are not known."""
        wanted: dict[int, set[int]] = {}
        for rev in revs:
            if rev not in self.known:
                wanted.setdefault(space.visible[rev].header_root, set()).add(rev)
        for root, members in wanted.items():
            for at, folded in states(self._tx, space, root, max(members)):
                if at in members:
                    self.known[at] = Folded(folded.chains(), dict(folded.sub))


def states(tx: Upkeep, space: SpaceLines, root: int, last: int) -> Iterator[tuple[int, Header]]:
    """(rev, folded header) of every row of a header chain; it is the same `Header` each time, moved on."""
    headers = tx.header_line(space.space_pk, root, last)
    if not headers or headers[0][0] != root:
        raise CorruptCheckpointError(f"header of revision {root}, which others build on, is gone", ns=space.ns)
    folded = fold(headers[:1], space.ns)
    yield root, folded
    for rev, header in headers[1:]:
        fold_on(folded, rev, header)
        yield rev, folded


# ---- what stays


class Rule(NamedTuple):
    """What a prune is asked to keep."""

    keep: int | None = 1
    """Checkpoints on the line of each head; None for all."""
    keep_forks: bool = True
    oldest: int | None = None
    """Microseconds since the epoch: what was made before goes, but for heads."""
    since: int | None = None
    """Microseconds since the epoch: what was made from then on stays, on whatever line it is."""


class Kept:
    """The checkpoints that stay, and why."""

    def __init__(self, tx: Upkeep, spaces: Sequence[SpaceLines]) -> None:
        self.headers = Headers(tx)
        self.revs: set[int] = set()
        self._spaces = spaces
        self._home = {rev: space for space in spaces for rev in space.visible}
        self._todo: list[int] = []
        self._under: dict[int, dict[str, int]] = {}
        """Rev -> nested namespace -> the newest checkpoint that works under it."""
        for space in spaces:
            for line in space.visible.values():
                if line.up_rev is not None:
                    self._under.setdefault(line.up_rev, {})[space.ns] = line.rev

    def add(self, rev: int) -> None:
        """Keep a checkpoint, if it is there."""
        if rev in self._home and rev not in self.revs:
            self.revs.add(rev)
            self._todo.append(rev)

    def add_asking(self) -> None:
        """Keep what waits for an answer, with the checkpoints of the graphs around it."""
        asking = {line.rev: line for space in self._spaces for line in space.asking()}
        closed = {rev for space in self._spaces for rev in space.closed()}
        for line in asking.values():
            around = list(self._around(line))
            # A nested question went with the step around it: a run that stores at its end only does not say more.
            if closed.isdisjoint(around) and (around or line.up_rev is None):
                for rev in (line.rev, *around):
                    self.add(rev)

    def _around(self, line: Line) -> Iterator[int]:
        """The checkpoints under which one works, inner ones first."""
        up = line.up_rev
        while up is not None and up in self._home:
            yield up
            up = self._home[up].visible[up].up_rev

    def close(self, alive: Callable[[SpaceLines], Iterable[int]]) -> None:
        """Keep what the kept ones need; `alive` names what stays of a namespace of a task that still matters."""
        by_ns = {space.ns: space for space in self._spaces}
        woken: set[str] = set()
        while self._todo:
            todo, self._todo = self._todo, []
            by_space: dict[str, list[int]] = {}
            for rev in todo:
                by_space.setdefault(self._home[rev].ns, []).append(rev)
            for ns, revs in by_space.items():
                self.headers.learn(by_ns[ns], revs)
            for rev in todo:
                if rev not in self.headers.known:
                    raise CorruptCheckpointError(f"header of revision {rev} cannot be read", ns=self._home[rev].ns)
                for target in self.headers.known[rev].sub.values():
                    self.add(target)
                for ns, child in self._under.get(rev, {}).items():
                    self.add(child)
                    if ns not in woken and by_ns[ns].is_of_one_task:
                        woken.add(ns)
                        for own in alive(by_ns[ns]):
                            self.add(own)


def keep(tx: Upkeep, spaces: Sequence[SpaceLines], rule: Rule) -> Kept:
    """The checkpoints of a thread that a rule keeps."""
    kept = Kept(tx, spaces)

    def own(space: SpaceLines) -> Iterator[int]:
        for line in space.lineage(space.head, rule.keep, rule.oldest):
            yield line.rev

    kept.add_asking()
    for space in spaces:
        if rule.since is not None:
            for line in space.visible.values():
                if not _is_older(line, rule.since):
                    kept.add(line.rev)
        # Who works in the namespace of a task is known by what it works under; an import may not say it.
        if not space.is_of_one_task or all(line.up_rev is None for line in space.visible.values()):
            for rev in own(space):
                kept.add(rev)
        if rule.keep_forks:
            for tip in space.lanes():
                for line in space.lineage(tip, rule.keep, rule.oldest):
                    if not line.flags & LANE:
                        break
                    kept.add(line.rev)
    kept.close(own)
    return kept


# ---- what goes


def decide(tx: Upkeep, thread_pk: Any, rule: Rule) -> deque[Any]:
    """The jobs that prune a thread. Costs a look at every checkpoint's row and the headers of those that stay."""
    spaces = read_lines(tx, thread_pk)
    read_tasks(tx, spaces)
    return jobs_for(tx, spaces, keep(tx, spaces, rule))


def jobs_for(tx: Upkeep, spaces: Sequence[SpaceLines], kept: Kept) -> deque[Any]:
    """Everything to do so that only these checkpoints are left."""
    jobs: deque[Any] = deque()
    drops: list[Drop] = []
    rest: list[Any] = []
    for space in spaces:
        pk, revs = space.space_pk, [rev for rev in space.visible if rev in kept.revs]
        needed: dict[int, int] = {}
        for rev in revs:
            line = space.visible[rev]
            needed[line.header_root] = max(needed.get(line.header_root, 0), rev)
            loses_parent = line.parent_rev is not None and line.parent_rev not in kept.revs
            loses_up = line.up_rev is not None and line.up_rev not in kept.revs
            if loses_parent or loses_up:
                jobs.append(Mark(pk, rev, loses_parent, loses_up))
        jobs.extend(_thinning(space, kept.revs))
        drops += _drops(space, kept.revs, needed)
        if not revs and space.is_of_one_task:
            jobs.append(SetHead(pk, None))
            rest.append(DropSpace(pk))
        jobs_of_chains = _dead_rows(tx.chain_lengths(pk), [kept.headers.known[rev].refs for rev in revs])
        rest[:0] = [DropChain(pk, *dead) for dead in jobs_of_chains]
    drops.sort(key=lambda drop: drop.rev, reverse=True)
    jobs += drops
    jobs += rest
    return jobs


def _thinning(space: SpaceLines, kept: Collection[int]) -> Iterator[MarkThinned]:
    """The mark on a namespace of which something goes: at what goes last."""
    if any(rev not in kept for rev in space.visible):
        # One that stays, if there is any; then the oldest.
        rev = min(space.visible, key=lambda rev: (rev not in kept, rev))
        if not space.visible[rev].flags & THINNED:
            yield MarkThinned(space.space_pk, rev)


def _drops(space: SpaceLines, kept: Collection[int], needed: Mapping[int, int]) -> Iterator[Drop]:
    """What goes of a namespace's checkpoints, stubs and task rows."""
    pk = space.space_pk
    present = set()
    for line in space.lines:
        rev = line.rev
        present.add(rev)
        if rev in kept:
            continue
        is_header = rev < needed.get(line.header_root, -1)
        is_stub = bool(line.flags & STUB)
        has_tasks = rev in space.tasks
        if not (is_stub and is_header):
            yield Drop(pk, rev, is_header, not is_stub, has_tasks)
        elif has_tasks:
            yield Drop(pk, rev, False, False, has_row=False)
    for rev in space.tasks:
        if rev not in present:
            yield Drop(pk, rev, False, False, has_row=False)


def _dead_rows(
    stored: Iterable[tuple[int, int, int]], live: Iterable[Iterable[tuple[int, int, int]]]
) -> Iterator[tuple[int, int, int, int]]:
    """(channel number, root, first, last) of chain rows that no live checkpoint refers to."""
    last_used: dict[tuple[int, int], int] = {}
    for refs in live:
        for number, root, seq in refs:
            if last_used.get((number, root), -1) < seq:
                last_used[number, root] = seq
    for number, root, n_rows in stored:
        first = last_used.get((number, root), -1) + 1
        if first < n_rows:
            yield number, root, first, n_rows - 1


# ---- runs


def runs_in(spaces: Iterable[SpaceLines], run_ids: Collection[str]) -> set[int]:
    """The checkpoints of these runs."""
    return {line.rev for space in spaces for line in space.visible.values() if line.run_id in run_ids}


def without_runs(tx: Upkeep, spaces: Sequence[SpaceLines], doomed: Collection[int]) -> deque[Any]:
    """The jobs that remove some checkpoints and leave all others readable. The caller must hold the thread.

    A head moves to the newest checkpoint that is left on its line, or of the namespace; a child is given the newest
    ancestor that is left; so is a pointer to a nested checkpoint, or it is forgotten. No byte of a removed checkpoint's
    header stays: headers that build on it are written anew. A question that one of the runs answered is open again, if
    it was asked by another run.
    """
    read_tasks(tx, spaces)
    kept = Kept(tx, spaces)
    heirs = {rev: _heir(space, rev, doomed) for space in spaces for rev in space.visible if rev in doomed}
    jobs: deque[Any] = deque()
    for space in spaces:
        survivors = [rev for rev in space.visible if rev not in doomed]
        kept.revs.update(survivors)
        jobs.extend(_thinning(space, set(survivors)))
        kept.headers.learn(space, survivors)
        for rev in survivors:
            line = space.visible[rev]
            parent_rev, up_rev = line.parent_rev, line.up_rev
            loses_parent, loses_up = parent_rev in doomed, up_rev in doomed
            if loses_parent or loses_up:
                to = heirs.get(parent_rev) if parent_rev is not None else None
                jobs.append(Mark(space.space_pk, rev, loses_parent, loses_up, to))
                space.visible[rev] = line._replace(
                    parent_rev=to if loses_parent else parent_rev,
                    up_rev=None if loses_up else up_rev,
                    flags=line.flags | (PARENT_PRUNED if loses_parent else 0),
                )
        head: int | None = None
        if space.head in doomed:
            head = heirs.get(space.head) if space.head is not None else None
            if head is None:
                head = next((rev for rev in reversed(survivors) if not space.visible[rev].flags & LANE), None)
            if head is None:
                jobs.append(SetHead(space.space_pk, None))
        jobs.extend(_reopened(space, doomed))
        _rewrite_headers(tx, space, doomed, heirs, head, jobs)
    jobs += jobs_for(tx, spaces, kept)
    return jobs


def _heir(space: SpaceLines, rev: int, doomed: Collection[int]) -> int | None:
    """The newest ancestor of a checkpoint that is left."""
    return next((line.rev for line in space.lineage(rev, None) if line.rev not in doomed), None)


def _reopened(space: SpaceLines, doomed: Collection[int]) -> Iterator[DropAnswers]:
    """What was stored for checkpoints that stay, by runs that answered their questions and go."""
    closed = {line.parent_rev for line in space.loops() if line.rev in doomed}
    closed -= {line.parent_rev for line in space.loops() if line.rev not in doomed}
    for rev in closed:
        if rev is not None and rev in space.visible and rev not in doomed:
            tasks = space.tasks.get(rev, ())
            asking = {task for task, slot in tasks if slot == _QUESTION}
            keys = [(task, slot) for task, slot in tasks if slot == _ANSWER or (slot == 0 and task in asking)]
            if asking and keys:
                yield DropAnswers(space.space_pk, rev, keys)


def _rewrite_headers(
    tx: Upkeep,
    space: SpaceLines,
    doomed: Collection[int],
    heirs: Mapping[int, int | None],
    head: int | None,
    jobs: deque[Any],
) -> None:
    """Make the headers of survivors independent of what goes, and move the head to `head` if it is not None. The lines
    of `space` are brought up to date."""
    lines: dict[int, list[int]] = {}
    for line in space.visible.values():
        lines.setdefault(line.header_root, []).append(line.rev)
    for root, members in lines.items():
        rows: list[tuple[int, int, bytes | None]] = []
        base: int | None = root
        mended: dict[str, int] = {}
        for rev, folded in states(tx, space, root, max(members)):
            after = dict(folded.sub)
            # Pointers that the header at `base` has given another target, and no later one has set again.
            mended = {ns: target for ns, target in mended.items() if after.get(ns) == target}
            is_redirected = any(mended.get(ns) != target and target in heirs for ns, target in after.items())
            if rev in doomed or (rev not in space.visible and base != root):
                # What follows is described by what it differs from this one in.
                base = None
            elif rev in space.visible:
                if base is None or is_redirected:
                    base, mended = rev, after
                    folded.sub = {ns: heir for ns, target in after.items() if (heir := heirs.get(target, target))}
                    rows.append((rev, rev, full_header(folded, rev)))
                    folded.sub = after
                elif base != root:
                    rows.append((rev, base, None))
                space.visible[rev] = space.visible[rev]._replace(header_root=base)
                if rev == head:
                    base = None
        own_head = head if head in members else None
        if not rows and own_head is None:
            continue
        # From the first that leaves the chain on, or behind the head, nothing may be left on it.
        starts = [rev for rev, _, _ in rows[:1]]
        if own_head is not None and space.visible[own_head].header_root == root:
            starts.append(own_head)
        gone = [
            line.rev
            for line in space.lines
            if line.header_root == root
            and line.rev > min(starts)
            and (line.rev in doomed or line.rev not in space.visible)
        ]
        jobs.append(Rewrite(space.space_pk, gone, rows, own_head))


# ---- compaction


class Rewriting(Upkeep, Protocol):
    """`Upkeep` that may also write bodies."""

    def chains(self, space_pk: Any, wanted: Sequence[tuple[int, int, int]]) -> Mapping[int, StoredChain]:
        """As `Rows.chains`."""
        raise NotImplementedError

    def add_payloads(self, space_pk: Any, payloads: Sequence[PayloadRow]) -> None:
        """As `Transaction.add_payloads`."""


def compact(tx: Rewriting, space: SpaceLines, codec: Codec, roots: Iterator[int]) -> None:
    """Give every checkpoint of a namespace a header of its own, and store each value in as few rows as they allow.

    `roots` are revs that nothing else has used. The caller must hold the thread, and run this as one transaction.
    Nothing that a lane has made or needs is touched: it may be going on, and no claim stops it.
    """
    pk = space.space_pk
    headers = Headers(tx)
    headers.learn(space, space.visible)
    own = [line for line in space.visible.values() if not line.header_root & LANE_BIT]
    used: dict[tuple[int, int], set[int]] = {}
    for line in own:
        for number, root, seq in headers.known[line.rev].refs:
            used.setdefault((number, root), set()).add(seq)
    for line in space.visible.values():
        if line.header_root & LANE_BIT:
            for number, root, _ in headers.known[line.rev].refs:
                used.pop((number, root), None)
    places: dict[tuple[int, int, int], tuple[int, int]] = {}
    for (number, root), seqs in used.items():
        last = max(seqs)
        # Every row of it may be the last one of some checkpoint.
        if not root & LANE_BIT and last != len(seqs) - 1:
            bodies, _ = tx.chains(pk, [(number, root, last)])[number]
            if len(bodies) != last + 1:
                raise CorruptCheckpointError(f"chain {number}/{root} has {len(bodies)} rows of {last + 1}", ns=space.ns)
            made, ends = _joined(bodies, sorted(seqs), codec)
            if len(made) < len(bodies):
                anew = next(roots)
                kinds = [FULL, *(kind_of(body, codec) for body in made[1:])]
                tx.add_payloads(pk, [(number, anew, at, kinds[at], *body) for at, body in enumerate(made)])
                places.update({(number, root, seq): (anew, at) for seq, at in ends.items()})
    rewritten: list[tuple[int, bytes]] = []
    for root in {line.header_root for line in own}:
        members = {line.rev for line in own if line.header_root == root}
        for rev, folded in states(tx, space, root, max(members)):
            if rev in members:
                refs = folded.refs
                folded.refs = {
                    name: [*places.get((folded.index[name], chain_root, seq), (chain_root, seq))]
                    for name, (chain_root, seq) in refs.items()
                }
                rewritten.append((rev, full_header(folded, rev)))
                folded.refs = refs
    for rev, header in rewritten:
        tx.set_header(pk, rev, rev, header)
    for line in space.lines:
        if line.flags & STUB and not line.header_root & LANE_BIT:
            tx.drop_checkpoint(pk, line.rev, stub=False)
    for number, root in {(number, root) for number, root, _ in places}:
        tx.drop_chain(pk, number, root, 0, max(used[number, root]), sys.maxsize)


def _joined(bodies: Sequence[Body], seqs: Sequence[int], codec: Codec) -> tuple[list[Body], dict[int, int]]:
    """The rows of a chain as fewer, so that each value that ends with one of `seqs` can still be read; and where it ends
    now."""
    made: list[Body] = []
    ends: dict[int, int] = {}
    first = 0
    for seq in seqs:
        made += join_rows(bodies[first : seq + 1], codec, is_whole=first == 0)
        ends[seq] = len(made) - 1
        first = seq + 1
    return made, ends


# ---- a policy that is applied by commits


class Watch:
    """What a run's commits remember of its thread."""

    __slots__ = ("due", "is_plain", "jobs", "n_claims", "revs", "roots", "space_pk", "touched")

    def __init__(self) -> None:
        self.due = 0
        """Commits until the thread is looked at."""
        self.is_plain = False
        """Has the thread one namespace and no lane? Then each commit knows what goes without a look."""
        self.space_pk: Any = None
        """The one namespace."""
        self.jobs: deque[Any] = deque()
        self.revs: deque[tuple[int, int | str, int]] = deque()
        """(rev, time, header root) on the line of the head, ascending."""
        self.roots: Counter[int] = Counter()
        """Header root -> kept checkpoints that build on it."""
        self.touched = 0.0
        self.n_claims = 0
        """`Upkeep.n_claims` when the thread was looked at: another one now, and a lane may need what is to go."""


class Keeper:
    """Applies a `Retention` inside the transactions of commits."""

    def __init__(self, policy: Retention) -> None:
        self.policy = policy
        self._prunes = policy.max_checkpoints is not None or policy.max_age is not None

    def take(self, tx: Upkeep, thread_pk: Any, now: float) -> None:
        """A thread was taken: it lives on from now."""
        if self.policy.ttl is not None:
            tx.expire_at(thread_pk, now + self.policy.ttl)

    def after(self, tx: Upkeep, thread_pk: Any, claim: Claim, steps: Sequence[EncodedStep], now: float) -> None:
        """Finish a commit: remove what the policy does not keep any more, a little of it. Times are seconds since the
        epoch. If the transaction fails after this, the caller must set `claim.upkeep` to None."""
        watch: Watch | None = claim.upkeep
        if watch is None:
            watch = claim.upkeep = Watch()
        ttl = self.policy.ttl
        if ttl is not None and not 0 <= now - watch.touched < ttl / 2:
            self.take(tx, thread_pk, now)
            watch.touched = now
        n_checkpoints = sum([step.row is not None for step in steps])
        # A lane leaves it to the holder, whose line it is beside.
        if not self._prunes or not n_checkpoints or claim.lane:
            return
        max_age = self.policy.max_age
        oldest = None if max_age is None else int((now - max_age) * 1_000_000)
        watch.due -= n_checkpoints
        n_claims = tx.n_claims(thread_pk)
        if n_claims != watch.n_claims:
            watch.n_claims, watch.due = n_claims, -1
        if watch.due < 0 or (watch.is_plain and any(step.space.ns for step in steps)):
            self._look(
                tx, thread_pk, watch, oldest, sweeps=watch.space_pk is not None or not claim.number % SWEEP_EVERY
            )
        elif watch.is_plain:
            self._learn(watch, steps, oldest)
        if watch.jobs:
            # Grouped commits may remove what each of them might.
            work(tx, watch.jobs, ROWS_PER_COMMIT * n_checkpoints, DROPS_PER_COMMIT * n_checkpoints)

    def _look(self, tx: Upkeep, thread_pk: Any, watch: Watch, oldest: int | None, *, sweeps: bool) -> None:
        """Plan by all that is stored."""
        limit = self.policy.max_checkpoints
        spaces = read_lines(tx, thread_pk)
        watch.due = LOOK_EVERY
        watch.jobs = deque()
        watch.revs = deque()
        watch.roots = Counter()
        watch.is_plain = len(spaces) == 1 and not any(line.flags & LANE for line in spaces[0].visible.values())
        if watch.is_plain and not sweeps:
            whole = list(spaces[0].lineage(spaces[0].head, None))
            if len(whole) == len(spaces[0].visible):
                self._follow(watch, spaces[0], whole)
                self._learn(watch, (), oldest)
                return
        stays = {line.rev for space in spaces for line in space.lineage(space.head, limit, oldest)}
        if any(line.rev not in stays for space in spaces for line in space.lines):
            read_tasks(tx, spaces)
            kept = keep(tx, spaces, Rule(limit, self.policy.keep_forks, oldest))
            watch.jobs = jobs_for(tx, spaces, kept)
            stays = kept.revs
        if watch.is_plain:
            self._follow(watch, spaces[0], spaces[0].lineage(spaces[0].head, limit, oldest))
            on_line = {rev for rev, _, _ in watch.revs}
            others = stays - on_line
            watch.roots.update(line.header_root for line in spaces[0].visible.values() if line.rev in others)

    @staticmethod
    def _follow(watch: Watch, space: SpaceLines, lines: Iterable[Line]) -> None:
        """Know these checkpoints of the one namespace, newest first, as the line that goes on."""
        watch.space_pk = space.space_pk
        for line in lines:
            watch.revs.appendleft((line.rev, line.ts, line.header_root))
            watch.roots[line.header_root] += 1

    def _learn(self, watch: Watch, steps: Sequence[EncodedStep], oldest: int | None) -> None:
        """Plan by what the commit added to a thread of one namespace."""
        limit, revs, roots = self.policy.max_checkpoints, watch.revs, watch.roots
        for step in steps:
            if step.row is not None:
                rev, ts, root = step.row[REV], step.row[TS], step.row[HEADER_ROOT]
                revs.append((rev, ts, root))
                roots[root] += 1
        while len(revs) > 1:
            rev, ts, root = revs[0]
            if not (limit is not None and len(revs) > limit) and not (
                oldest is not None and isinstance(ts, int) and ts < oldest
            ):
                break
            revs.popleft()
            roots[root] -= 1
            watch.jobs.append(DropIfQuiet(Drop(watch.space_pk, rev, roots[root] > 0, True), revs[0][0]))
