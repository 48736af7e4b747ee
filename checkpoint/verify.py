"""What is wrong with stored checkpoints: every row looked at once, every reference followed.

Decides what counts as damage and where it is said to be. Knows nothing of files: it reads pages of a
`checkpoint.scan.Scan`, and `checkpoint.row_saver` gives it one view after another, so that writers and other readers are
never kept waiting for the whole of it.

What is checked: checksums of all bodies; gaps in chains, parts and header lines; that heads, parents (or their mark), `up`
and `sub` targets exist; that references of headers resolve; that an id carries its rev or has an alias, and that
aliases lead to it; that no chain or task row is there that nothing refers to and that no removal of checkpoints explains
(what a prune has not got to yet is garbage, which `checkpoint.stats` counts); that metadata are JSON. Deep: that every
value and task row decodes, and what the store's own check of the file says. A type that this process does not know is
no problem.

Invariants
1. Sound state gives no problem, also while runs write, threads are deleted and checkpoints pruned. A reference is
   followed in the view that it was read in. What only a comparison of two views can show (rows that nothing refers to)
   is looked at again, in a view of its own, before it is reported.
2. One fault is one problem, at the oldest checkpoint that needs what is damaged; what is unreadable only because it
   builds on that is not listed.
3. Memory: a few numbers per chain of one namespace, folded headers of a few lines, one page of rows; deep, one value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from checkpoint import ids
from checkpoint.base import CorruptCheckpointError, Problem, UnknownTypeError, is_above, namespaces_above
from checkpoint.chains import (
    CHANNEL_OF_SLOT,
    PARENT_PRUNED,
    REPLACED,
    SOURCE_NAMES,
    STUB,
    THINNED,
    CheckpointRow,
    Codec,
)
from checkpoint.deltas import apply
from checkpoint.headers import Header
from checkpoint.scan import Lines, Scan, ScannedCheckpoint, ScannedSpace, ScannedTask, ScannedThread

PAGE_ROWS: Final = 200
PAGE_BYTES: Final = 4 * 1024 * 1024
VIEW_ROWS: Final = 2000
"""Rows that are read in one view at most, about; a view of a small thread goes on with the next one."""

_UNKNOWN: Final = object()
"""Stands for a value that cannot be made here."""
ChainKey = tuple[int, int]
"""(channel number, root)."""


class Verification:
    """One pass over a thread, or all of them: `step` until `done`, each time with a fresh view."""

    def __init__(self, codec: Codec, thread_id: str | None, *, deep: bool) -> None:
        self.problems: list[Problem] = []
        self.done = False
        self.n_rows = 0
        """Rows looked at so far."""
        self.n_threads = 0
        """Threads begun."""
        self._codec = codec
        self.thread_id = thread_id
        self._deep = deep
        self._scan: Scan
        self._steps = self._all()

    def step(self, scan: Scan) -> None:
        """Look at some more, about `VIEW_ROWS` rows."""
        self._scan = scan
        until = self.n_rows + VIEW_ROWS
        while self.n_rows < until:
            try:
                next(self._steps)
            except StopIteration:
                self.done = True
                return

    # Generators: the view may be another one after each `yield`.

    def _all(self) -> Iterator[None]:
        if self.thread_id is not None:
            thread = self._scan.thread(self.thread_id)
            if thread is not None:
                yield from self._thread(thread)
            return
        if self._deep:
            for reason in self._scan.file_problems():
                self.problems.append(Problem(None, None, None, None, reason))
        after: Any = None
        while True:
            try:
                page = self._scan.threads(after, PAGE_ROWS)
            except CorruptCheckpointError as damage:
                self.problems.append(Problem(None, None, None, None, damage.reason))
                return
            if not page:
                return
            for thread in page:
                yield from self._thread(thread)
            after = page[-1].key

    def _thread(self, thread: ScannedThread) -> Iterator[None]:
        self.n_threads += 1
        after: str | None = None
        try:
            while page := self._scan.spaces(thread.key, after, PAGE_ROWS):
                for space in page:
                    check = SpaceCheck(thread, space, self._codec, deep=self._deep)
                    try:
                        yield from self._space(check)
                    except CorruptCheckpointError as damage:
                        check.report(damage.reason)
                    self.problems += check.problems
                after = page[-1].ns
        except CorruptCheckpointError as damage:
            self.problems.append(Problem(thread.thread_id, None, None, None, damage.reason))

    def _space(self, check: SpaceCheck) -> Iterator[None]:
        # Bodies first: whatever is stored with a body is then found by the look at headers, which comes later.
        for look in (check.bodies, check.headers, check.tasks, check.aliases):
            # A deleted namespace's key may be another one's by now.
            while check.is_there(self._scan) and (n_rows := look(self._scan)) is not None:
                self.n_rows += n_rows
                yield
        if check.is_there(self._scan):
            check.rest(self._scan)
        self.n_rows += 1
        yield


class SpaceCheck:
    """The check of one namespace. `bodies`, `headers`, `tasks` and `aliases` look at a page at a time, each until it
    returns None, in this order; `rest` ends it."""

    def __init__(self, thread: ScannedThread, space: ScannedSpace, codec: Codec, *, deep: bool) -> None:
        self.problems: list[Problem] = []
        self.unreadable: dict[int, str] = {}
        """Rev -> why the state of this checkpoint cannot be read. `checkpoint.repair` asks for it."""
        self.damaged_tasks: list[ScannedTask] = []
        self.lost_tasks: set[int] = set()
        """Revs that have task rows and nothing else."""
        self.chains: dict[ChainKey, int] = {}
        """Chain -> its greatest seq."""
        self.refs: dict[ChainKey, int] = {}
        """Chain -> greatest seq that a kept header refers to."""
        self.knows_all_refs = True
        """Could every header be read?"""
        self.is_thinned = False
        """Are checkpoints known to be gone, or replaced? Rows of theirs may still be there."""
        self._thread = thread
        self._space = space
        self._pk = space.space_pk
        self._codec = codec
        self._deep = deep
        self._after: Any = None
        self._has_rows = False
        self._damaged: dict[ChainKey, dict[int, str]] = {}
        """Rows of chains that do not check out, by seq."""
        self._going: set[tuple[ChainKey, int]] = set()
        """Those of which a prune may be removing the rest."""
        self._gaps: dict[ChainKey, int] = {}
        """Chain -> seq from which on it cannot be read."""
        self._names: dict[ChainKey, str] = {}
        self._built: tuple[ChainKey, int, Any] | None = None
        """The chain that is looked at, the seq of the last row, and the value so far."""
        self._lines = Lines(space.space_pk, space.ns)
        self._decoded: set[Any] = set()
        self._subs: dict[str, int] = {}
        self._last_task: tuple[int, str | None] | None = None
        self._is_stub = False
        """Is it a pruned checkpoint whose task rows are looked at?"""

    def report(self, reason: str, checkpoint_id: str | None = None, channel: str | None = None) -> None:
        """Note a problem of this namespace."""
        self.problems.append(Problem(self._thread.thread_id, self._space.ns, checkpoint_id, channel, reason))

    def is_there(self, scan: Scan) -> bool:
        """Does the namespace still exist? What was suspected of one that was deleted meanwhile is of no interest."""
        space = scan.space(self._thread.key, self._space.ns)
        return space is not None and space.space_pk == self._pk

    # Bodies.

    def bodies(self, scan: Scan) -> int | None:
        """A page of chain rows: parts, checksums, and whether they decode."""
        page = scan.bodies(self._pk, self._after, PAGE_ROWS, PAGE_BYTES)
        for number, root, seq, tag, body, damage, is_going in page:
            key = number, root
            self.chains[key] = seq
            if is_going:
                self._going.add((key, seq))
            if damage is None and self._deep:
                damage = self._undecodable(key, seq, tag, body)
            if damage is not None:
                self._damaged.setdefault(key, {})[seq] = damage
                self._built = None
        return self._turn(len(page), page[-1][:3] if page else None)

    def _undecodable(self, key: ChainKey, seq: int, tag: str | None, body: bytes) -> str | None:
        try:
            value = self._decode(tag, body)
        except CorruptCheckpointError as damage:
            return f"chain {key[0]}/{key[1]}, row {seq}: {damage.reason}"
        if seq == 0 and value is not _UNKNOWN:
            self._built = key, 0, value
            return None
        if self._built is None or self._built[:2] != (key, seq - 1) or value is _UNKNOWN:
            # What it changes is not known here: a row before it is damaged or missing, which is said elsewhere.
            self._built = None
            return None
        before = self._built[2]
        try:
            # A text is put together by its readers at once; here only what fits one is looked at.
            self._built = key, seq, before if isinstance(before, str) else apply(before, value)
        except (CorruptCheckpointError, ValueError, TypeError, IndexError, KeyError) as error:
            return f"chain {key[0]}/{key[1]}, row {seq} does not change what is before it ({error})"
        if isinstance(before, str) and not isinstance(value, str):
            return f"chain {key[0]}/{key[1]}, row {seq} is a {type(value).__name__}, which cannot go on a text"
        return None

    def _decode(self, tag: str | None, body: bytes) -> Any:
        try:
            return self._codec.unpack_shown(tag, body)
        except CorruptCheckpointError:
            raise
        except UnknownTypeError:
            # Of a serde that cannot do without the class; the bytes are fine as far as one can see.
            return _UNKNOWN
        except Exception as error:
            # A serde of the program may raise anything.
            raise CorruptCheckpointError(f"does not decode ({error!r})") from error

    def _turn(self, n_rows: int, after: Any) -> int | None:
        """Go on after a page, or get ready for the next look."""
        self._after = after
        return n_rows or None

    # Headers.

    def headers(self, scan: Scan) -> int | None:
        """A page of checkpoints: headers, and all that they refer to."""
        page = scan.headers(self._pk, self._after, PAGE_ROWS)
        present = {found.row.rev for found in page}
        self._has_rows |= bool(page)
        for found in page:
            try:
                header = self._lines.fold(scan, found)
            except CorruptCheckpointError as damage:
                header = None
                self._lose(found.row, damage.reason)
            if header is None:
                self.knows_all_refs, self.is_thinned = False, True
                self.unreadable.setdefault(found.row.rev, "a header on which it builds is damaged")
            if found.row.flags & (STUB | PARENT_PRUNED | REPLACED | THINNED):
                self.is_thinned = True
            if found.row.flags & STUB:
                continue
            self._columns(scan, found, present)
            if header is not None:
                self._state(scan, found.row, header)
        if not page:
            self._head(scan)
        return self._turn(len(page), page[-1].row.rev if page else None)

    def _head(self, scan: Scan) -> None:
        space = scan.space(self._thread.key, self._space.ns)
        if space is None:
            return
        if space.head is None:
            # All its checkpoints were removed, unless there are lanes.
            self.is_thinned |= not self._has_rows
            return
        found = scan.identity(self._pk, space.head)
        if found is None or found[1] & STUB:
            self.is_thinned = True
            what = "has no row" if found is None else "was pruned"
            self.report(f"its head is revision {space.head}, which {what}", None if found is None else found[0])

    def _columns(self, scan: Scan, found: ScannedCheckpoint, present: set[int]) -> None:
        """What a row says without its header."""
        row = found.row
        if ids.rev_of(row.id, self._thread.salt) != row.rev and scan.alias(self._pk, row.id) != row.rev:
            self.report(f"its id does not carry its revision {row.rev}, and no alias leads there", row.id)
        parent_rev = row.parent_rev
        is_due = parent_rev is not None and parent_rev not in present and not row.flags & PARENT_PRUNED
        # If a header of its own line is gone with the parent, that was said already.
        if is_due and row.rev not in self.unreadable and not self._exists(scan, parent_rev):
            self.is_thinned = True
            self.report(f"its parent, revision {parent_rev}, is gone and not marked as pruned", row.id)
        if row.up_rev is not None and not self._exists_above(scan, row.up_rev):
            self.report(f"revision {row.up_rev} of the namespace above, to which it belongs, is gone", row.id)
        if found.damage is not None:
            return
        if row.source and row.source not in SOURCE_NAMES:
            self._lose(row, f"its source is {row.source}, which means nothing")
        if row.metadata is not None and not _is_json_object(row.metadata):
            self._lose(row, "its metadata are no JSON object")

    def _lose(self, row: CheckpointRow, reason: str, channel: str | None = None) -> None:
        self.unreadable[row.rev] = reason
        self.report(reason, row.id, channel)

    def _exists(self, scan: Scan, rev: int | None) -> bool:
        return rev is not None and scan.identity(self._pk, rev) is not None

    def _exists_above(self, scan: Scan, rev: int) -> bool:
        for ns in namespaces_above(self._space.ns):
            above = scan.space(self._thread.key, ns)
            if above is not None and scan.identity(above.space_pk, rev) is not None:
                return True
        if ":" in self._space.ns:
            return False
        # What a stable namespace belongs to may be the namespace of one call.
        after: str | None = None
        while page := scan.spaces(self._thread.key, after, PAGE_ROWS):
            for other in page:
                if is_above(other.ns, self._space.ns) and scan.identity(other.space_pk, rev) is not None:
                    return True
            after = page[-1].ns
        return False

    def _state(self, scan: Scan, row: CheckpointRow, header: Header) -> None:
        """What a folded header refers to."""
        index = header.index
        for name, (root, seq) in header.refs.items():
            key = index[name], root
            known = self.refs.get(key, -1)
            if seq > known:
                self.refs[key] = seq
                self._names[key] = name
                self._resolve(scan, row, key, name, known + 1, seq)
            if key in self._gaps and seq >= self._gaps[key]:
                self.unreadable[row.rev] = f"the value of channel {name!r} is damaged"
        for name, target in header.sub.items():
            if self._subs.get(name) != target:
                self._subs[name] = target
                nested = scan.space(self._thread.key, name)
                found = scan.identity(nested.space_pk, target) if nested is not None else None
                if found is None or found[1] & STUB:
                    self.report(f"its nested namespace {name!r} points to revision {target}, which is gone", row.id)
        if self._deep:
            for channel, body in (*header.inline.items(), *header.extra.items()):
                self._check_small(row, channel, body)

    def _resolve(self, scan: Scan, row: CheckpointRow, key: ChainKey, name: str, first: int, last: int) -> None:
        """Are rows `first` to `last` of a chain there, and sound?"""
        damaged = self._damaged.get(key, {})
        for seq in sorted(seq for seq in damaged if first <= seq <= last):
            self._gaps.setdefault(key, seq)
            self.report(damaged.pop(seq), row.id, name)
        n_rows = scan.count_rows(self._pk, *key, first, last)
        if n_rows == last - first + 1:
            return
        # In a damaged tree each may be found by itself, and not among the others.
        missing = next((seq for seq in range(first, last + 1) if not scan.count_rows(self._pk, *key, seq, seq)), first)
        if self._gaps.get(key, last + 1) > missing:
            self._gaps[key] = missing
        lost = last - first + 1 - n_rows
        self.report(
            f"chain {key[0]}/{key[1]} lacks row {missing}" + (f" and {lost - 1} more" * (lost > 1)), row.id, name
        )

    def _check_small(self, row: CheckpointRow, channel: str, body: Any) -> None:
        """Does a value that lives in the header decode?"""
        tag, data = body
        if (tag, data) in self._decoded:
            return
        if len(self._decoded) > PAGE_ROWS:
            self._decoded.clear()
        self._decoded.add((tag, data))
        try:
            self._decode(tag, data)
        except CorruptCheckpointError as damage:
            self._lose(row, f"value in the header: {damage.reason}", channel)

    # Task rows and aliases.

    def tasks(self, scan: Scan) -> int | None:
        """A page of task rows: parts, checksums, whose they are, and whether they decode."""
        page = scan.writes(self._pk, self._after, PAGE_ROWS, PAGE_BYTES)
        for task in page:
            row, damage = task
            if self._last_task is None or self._last_task[0] != row.rev:
                found = scan.identity(self._pk, row.rev)
                self._last_task = row.rev, None if found is None else found[0]
                # What the tasks under a pruned checkpoint wrote goes with the prune that made a stub of it.
                self._is_stub = found is not None and bool(found[1] & STUB)
                if found is None:
                    self.lost_tasks.add(row.rev)
                    if not self.is_thinned:
                        self.report(f"task rows belong to revision {row.rev}, which has no row")
            if row.rev in self.lost_tasks or self._is_stub:
                continue
            if damage is None and self._deep:
                damage = self._undecodable_task(row)
            if damage is not None:
                self.damaged_tasks.append(ScannedTask(row, damage))
                self.report(damage, self._last_task[1], CHANNEL_OF_SLOT.get(row.slot))
        return self._turn(len(page), (page[-1].row.rev, page[-1].row.task_id, page[-1].row.slot) if page else None)

    def _undecodable_task(self, row: Any) -> str | None:
        try:
            value = self._decode(row.tag, row.body)
        except CorruptCheckpointError as damage:
            return f"writes of task {row.task_id!r}, slot {row.slot}: {damage.reason}"
        is_list = value is _UNKNOWN or (isinstance(value, list) and len(value) % 2 == 0)
        is_sound = is_list if row.slot == 0 else row.slot in CHANNEL_OF_SLOT
        return None if is_sound else f"writes of task {row.task_id!r}, slot {row.slot} are none"

    def aliases(self, scan: Scan) -> int | None:
        """A page of ids that do not carry their rev."""
        page = scan.aliases(self._pk, self._after, PAGE_ROWS)
        for checkpoint_id, rev in page:
            found = scan.identity(self._pk, rev)
            if found is None or found[0] != checkpoint_id:
                what = "has no row" if found is None else f"is {found[0]!r}"
                self.report(f"its alias leads to revision {rev}, which {what}", checkpoint_id)
        return self._turn(len(page), page[-1][0] if page else None)

    # In one view, at the end.

    def rest(self, scan: Scan) -> None:
        """Chain rows to which nothing refers."""
        for key, last in self.chains.items():
            if last > (referred := self.refs.get(key, -1)) and self._is_stray(scan, key, referred, last):
                rows = f"row {last}" if last == referred + 1 else f"rows {referred + 1} to {last}"
                self.report(f"chain {key[0]}/{key[1]}: nothing refers to {rows}", None, self._names.get(key))
                continue
            # No header came by that needs these; and what is damaged may be gone by now.
            for seq, reason in self._damaged.get(key, {}).items():
                if self.is_thinned and (key, seq) in self._going:
                    continue
                if scan.count_rows(self._pk, *key, seq, seq):
                    self.report(reason, None, self._names.get(key))

    def _is_stray(self, scan: Scan, key: ChainKey, referred: int, last: int) -> bool:
        """Are there rows behind what headers refer to, which no removal of a checkpoint explains?"""
        # Without all headers nobody can say what is referred to.
        if not self.knows_all_refs or self.is_thinned:
            return False
        began = scan.identity(self._pk, key[1])
        return began is not None and scan.count_rows(self._pk, *key, referred + 1, last) > 0


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
