"""How a damaged thread is made usable again. Only on request, and never by guessing a value.

Decides what goes and what takes its place; `checkpoint.verify` says what is damaged, the savers' transactions carry it
out, all of it in one. Rules, for every namespace of a thread:

1. A checkpoint whose state cannot be read is removed, with its task rows. One that can be read stays: if a header it
   built on goes, it gets a complete one.
2. A task row that cannot be read is removed: when the thread goes on, that task runs again, as if it had not finished.
3. The head moves to the newest checkpoint on its line that can be read; if the line ends in nothing, to the newest of
   the namespace. Where nothing can be read, the namespace has no head: the next run begins anew.
4. A checkpoint whose parent is gone is marked as such. One whose `up` is gone belongs to none.
5. A pointer to a nested namespace moves to the newest checkpoint on its target's line that can be read, or is dropped.
6. Aliases that lead elsewhere are removed, missing ones are made. Chain rows to which nothing refers are removed.

Invariant: after a repair, `verify(deep=True)` of the thread finds nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from checkpoint import ids
from checkpoint.base import CorruptCheckpointError, Repair, is_above
from checkpoint.chains import LANE, PARENT_PRUNED, STUB, CheckpointRow, Codec
from checkpoint.headers import Header, full_header
from checkpoint.scan import Lines, Scan, ScannedSpace, ScannedThread
from checkpoint.verify import SpaceCheck

PAGE_ROWS: Final = 500


class Mending(Protocol):
    """What a repair asks of a transaction beside a `Scan`. Nothing fails on rows that are gone."""

    def put_checkpoint(self, space_pk: Any, row: CheckpointRow) -> None:
        """Insert, or replace the row of the same rev."""

    def set_head(self, space_pk: Any, rev: int | None) -> None:
        """Make a checkpoint the newest of its namespace, or none."""

    def add_alias(self, space_pk: Any, checkpoint_id: str, rev: int) -> None:
        """Make an id findable that does not carry its rev."""

    def remove_alias(self, space_pk: Any, checkpoint_id: str) -> None:
        """Forget where an id leads."""

    def remove_checkpoint(self, space_pk: Any, rev: int) -> None:
        """Remove a checkpoint's row and its task rows."""

    def remove_write(self, space_pk: Any, rev: int, task_id: str, slot: int) -> None:
        """Remove one task row."""

    def remove_rows(self, space_pk: Any, number: int, root: int, first: int) -> None:
        """Remove the rows of a chain from seq `first` on."""


class _Found:
    """What was found out about one namespace."""

    def __init__(self, space: ScannedSpace, check: SpaceCheck) -> None:
        self.space = space
        self.check = check
        self.parents: dict[int, int | None] = {}
        """Rev -> parent's rev, of all rows."""
        self.kept: set[int] = set()
        """Revs of checkpoints that can be read."""
        self.lanes: set[int] = set()
        """Those of them that no head may move to."""

    def nearest(self, rev: int | None) -> int | None:
        """The newest checkpoint on a line that can be read."""
        seen: set[int] = set()
        while rev is not None and rev not in self.kept:
            seen.add(rev)
            rev = self.parents.get(rev)
            if rev in seen:
                # A damaged parent may name a descendant.
                return None
        return rev

    def newest(self) -> int | None:
        """The newest checkpoint that can be read."""
        return max(self.kept - self.lanes, default=None)


def repair(scan: Scan, tx: Mending, thread: ScannedThread, codec: Codec) -> list[Repair]:
    """Carry out the rules above, inside one transaction that both `scan` and `tx` are views of. Returns what was done.

    Raises `CorruptCheckpointError` if the store itself cannot be read.
    """
    done: list[Repair] = []
    found = {space.ns: _examine(scan, thread, space, codec) for space in _spaces(scan, thread)}
    for space in found.values():
        done += _Mender(scan, tx, thread, space, found).run()
    return done


def _spaces(scan: Scan, thread: ScannedThread) -> Iterator[ScannedSpace]:
    after: str | None = None
    while page := scan.spaces(thread.key, after, PAGE_ROWS):
        yield from page
        after = page[-1].ns


def _rows(scan: Scan, space_pk: Any) -> Iterator[Any]:
    after: int | None = None
    while page := scan.headers(space_pk, after, PAGE_ROWS):
        yield from page
        after = page[-1].row.rev


def _examine(scan: Scan, thread: ScannedThread, space: ScannedSpace, codec: Codec) -> _Found:
    check = SpaceCheck(thread, space, codec, deep=True)
    for look in (check.bodies, check.headers, check.tasks):
        while look(scan) is not None:
            pass
    found = _Found(space, check)
    for row, _ in _rows(scan, space.space_pk):
        found.parents[row.rev] = row.parent_rev
        if not row.flags & STUB and row.rev not in check.unreadable:
            found.kept.add(row.rev)
            if row.flags & LANE:
                found.lanes.add(row.rev)
    return found


class _Mender:
    """The repair of one namespace."""

    def __init__(
        self, scan: Scan, tx: Mending, thread: ScannedThread, found: _Found, spaces: Mapping[str, _Found]
    ) -> None:
        self.done: list[Repair] = []
        self._scan = scan
        self._tx = tx
        self._thread = thread
        self._found = found
        self._spaces = spaces
        self._ns = found.space.ns
        self._pk = found.space.space_pk
        self._refs: dict[tuple[int, int], int] = {}

    def run(self) -> list[Repair]:
        """Do it."""
        changed, removed = self._plan()
        for rev, checkpoint_id in removed.items():
            self._tx.remove_checkpoint(self._pk, rev)
            self._say(checkpoint_id, f"removed: {self._found.check.unreadable[rev]}")
        for row in changed:
            self._tx.put_checkpoint(self._pk, row)
        for rev in self._found.check.lost_tasks:
            self._tx.remove_checkpoint(self._pk, rev)
            self._say(None, f"removed task rows of revision {rev}, which has no row")
        for task in self._found.check.damaged_tasks:
            write = task.row
            if write.rev not in removed and write.rev not in self._found.check.lost_tasks:
                self._tx.remove_write(self._pk, write.rev, write.task_id, write.slot)
                self._say(self._id_of(write.rev), f"what task {write.task_id!r} wrote is removed: {task.damage}")
        self._move_head()
        self._mend_aliases()
        for (number, root), last in self._found.check.chains.items():
            referred = self._refs.get((number, root), -1)
            if last > referred:
                self._tx.remove_rows(self._pk, number, root, referred + 1)
                self._say(None, f"chain {number}/{root}: removed what follows row {referred}, to which nothing refers")
        return self.done

    def _say(self, checkpoint_id: str | None, action: str) -> None:
        self.done.append(Repair(self._thread.thread_id, self._ns, checkpoint_id, action))

    def _id_of(self, rev: int) -> str | None:
        found = self._scan.identity(self._pk, rev)
        return None if found is None else found[0]

    # Checkpoints.

    def _plan(self) -> tuple[list[CheckpointRow], dict[int, str]]:
        """The rows that change, and revs and ids of those that go."""
        kept, unreadable = self._found.kept, self._found.check.unreadable
        lines = Lines(self._pk, self._ns)
        broken: set[int] = set()
        """Lines of which a row goes, until the next one gets a complete header."""
        roots: dict[int, int] = {}
        """Line -> the line that its rows belong to from now on."""
        moved: dict[int, dict[str, tuple[int, int | None]]] = {}
        """Line -> nested namespace -> (pointer as stored, as it is to be)."""
        changed: list[CheckpointRow] = []
        removed: dict[int, str] = {}
        for found in _rows(self._scan, self._pk):
            row = found.row
            root = row.header_root
            try:
                header = lines.fold(self._scan, found)
            except CorruptCheckpointError:
                header = None
            if row.rev in unreadable:
                removed[row.rev] = row.id
                broken.add(root)
                continue
            assert header is not None
            mended = row._replace(header_root=roots.get(root, root))
            pointers = {} if row.flags & STUB else self._pointers(header, moved.get(root, {}), row)
            if root in broken or any(moved.get(root, {}).get(ns) != pointer for ns, pointer in pointers.items()):
                broken.discard(root)
                moved.setdefault(root, {}).update(pointers)
                roots[root] = row.rev
                mended = mended._replace(header_root=row.rev, header=self._complete(header, moved[root], row.rev))
            if not row.flags & STUB:
                for name, (chain_root, seq) in header.refs.items():
                    key = header.index[name], chain_root
                    self._refs[key] = max(seq, self._refs.get(key, -1))
                mended = self._relate(mended, kept)
            if mended != row:
                changed.append(mended)
        return changed, removed

    def _pointers(
        self, header: Header, moved: Mapping[str, tuple[int, int | None]], row: CheckpointRow
    ) -> dict[str, tuple[int, int | None]]:
        """Pointers to nested checkpoints that are gone or go: namespace -> (as stored, as it is to be)."""
        found: dict[str, tuple[int, int | None]] = {}
        for ns, target in header.sub.items():
            nested = self._spaces.get(ns)
            if nested is None or target not in nested.kept:
                nearest = None if nested is None else nested.nearest(target)
                found[ns] = target, nearest
                if moved.get(ns) != found[ns]:
                    where = "dropped" if nearest is None else f"moved to revision {nearest}"
                    self._say(row.id, f"pointer to revision {target} of nested namespace {ns!r} {where}")
        return found

    @staticmethod
    def _complete(header: Header, moved: Mapping[str, tuple[int, int | None]], rev: int) -> bytes:
        mended = copy.copy(header)
        mended.sub = {}
        for ns, target in header.sub.items():
            stored, to_be = moved.get(ns, (None, None))
            if target != stored:
                mended.sub[ns] = target
            elif to_be is not None:
                mended.sub[ns] = to_be
        return full_header(mended, rev)

    def _relate(self, row: CheckpointRow, kept: set[int]) -> CheckpointRow:
        """The row without references to what is gone."""
        parent_rev, up_rev = row.parent_rev, row.up_rev
        if parent_rev is not None and parent_rev not in kept and not self._is_stub(parent_rev):
            row = row._replace(parent_rev=None, flags=row.flags | PARENT_PRUNED)
            self._say(row.id, f"marked: its parent, revision {parent_rev}, is gone")
        if up_rev is not None:
            above = [found for ns, found in self._spaces.items() if is_above(ns, self._ns)]
            if not any(up_rev in found.kept or self._is_stub(up_rev, found) for found in above):
                row = row._replace(up_rev=None)
                self._say(row.id, f"detached from revision {up_rev} of the namespace above, which is gone")
        return row

    def _is_stub(self, rev: int, found: _Found | None = None) -> bool:
        found = found or self._found
        return rev in found.parents and rev not in found.check.unreadable and rev not in found.kept

    # The rest.

    def _move_head(self) -> None:
        head = self._found.space.head
        if head is None or head in self._found.kept:
            return
        nearest = self._found.nearest(head)
        if nearest is None:
            nearest = self._found.newest()
        self._tx.set_head(self._pk, nearest)
        if nearest is None:
            self._say(None, "has no head any more: no checkpoint of it can be read")
        else:
            self._say(self._id_of(nearest), f"is the head now, instead of revision {head}")

    def _mend_aliases(self) -> None:
        after: str | None = None
        wrong: list[str] = []
        while page := self._scan.aliases(self._pk, after, PAGE_ROWS):
            for checkpoint_id, rev in page:
                found = self._scan.identity(self._pk, rev)
                if found is None or found[0] != checkpoint_id:
                    wrong.append(checkpoint_id)
            after = page[-1][0]
        for checkpoint_id in wrong:
            self._tx.remove_alias(self._pk, checkpoint_id)
            self._say(checkpoint_id, "its alias, which led elsewhere, is removed")
        for row, _ in _rows(self._scan, self._pk):
            if row.flags & STUB or ids.rev_of(row.id, self._thread.salt) == row.rev:
                continue
            if self._scan.alias(self._pk, row.id) != row.rev:
                self._tx.add_alias(self._pk, row.id, row.rev)
                self._say(row.id, "can be found by its id again")
