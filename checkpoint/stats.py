"""How much is stored, by channel and by thread.

Decides what is counted as what. Reads sizes and headers, never a value; page by page over a `checkpoint.scan.Scan`, so
that the figures of a thread that is being written are of several moments, one after another.

Invariant: memory is a few numbers per chain of one namespace, per channel name and per named thread.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from checkpoint.base import CorruptCheckpointError, Stats
from checkpoint.chains import STUB
from checkpoint.scan import Chain, Lines, Scan, ScannedSpace, ScannedThread

PAGE_ROWS: Final = 500
VIEW_ROWS: Final = 5000
"""Rows that are counted in one view, about."""


class Count:
    """One count over a thread, or all of them: `step` until `done`, each time with a fresh view."""

    def __init__(self, thread_id: str | None, top: int) -> None:
        self.thread_id = thread_id
        self.done = False
        self.n_rows = 0
        """Rows counted so far."""
        self.n_threads = 0
        self._top = top
        self._scan: Scan
        self._steps = self._all()
        self._n_checkpoints = self._n_stubs = self._header_bytes = self._n_tasks = self._task_bytes = 0
        self._bytes: Counter[str] = Counter()
        self._longest: dict[str, int] = {}
        self._garbage = 0
        self._file = 0, 0
        self._biggest: list[tuple[int, int, str]] = []
        """A heap of (bytes, minus the position of the thread, its id)."""

    def step(self, scan: Scan) -> None:
        """Count some more, about `VIEW_ROWS` rows."""
        self._scan = scan
        until = self.n_rows + VIEW_ROWS
        while self.n_rows < until:
            try:
                next(self._steps)
            except StopIteration:
                self.done = True
                return

    def stats(self) -> Stats:
        """What was counted."""
        return Stats(
            self.n_threads,
            self._n_checkpoints,
            self._n_stubs,
            self._n_tasks,
            self._task_bytes,
            self._header_bytes,
            dict(self._bytes.most_common()),
            dict(sorted(self._longest.items(), key=lambda item: -item[1])),
            self._garbage,
            *self._file,
            [(thread_id, n_bytes) for n_bytes, _, thread_id in sorted(self._biggest, reverse=True)],
        )

    # Generators: the view may be another one after each `yield`.

    def _all(self) -> Iterator[None]:
        self._file = self._scan.file_sizes()
        if self.thread_id is not None:
            thread = self._scan.thread(self.thread_id)
            if thread is not None:
                yield from self._thread(thread)
            return
        after: Any = None
        while page := self._scan.threads(after, PAGE_ROWS):
            for thread in page:
                yield from self._thread(thread)
            after = page[-1].key

    def _thread(self, thread: ScannedThread) -> Iterator[None]:
        self.n_threads += 1
        n_bytes = 0
        after: str | None = None
        while page := self._scan.spaces(thread.key, after, PAGE_ROWS):
            for space in page:
                count = _SpaceCount(space)
                # A deleted namespace's key may be another one's by now.
                while self._is_there(thread, space) and (n_rows := count.next_page(self._scan)):
                    self.n_rows += n_rows
                    yield
                if self._is_there(thread, space):
                    n_bytes += self._add(count)
            after = page[-1].ns
        self.n_rows += 1
        heapq.heappush(self._biggest, (n_bytes, -self.n_threads, thread.thread_id))
        if len(self._biggest) > self._top:
            heapq.heappop(self._biggest)
        yield

    def _is_there(self, thread: ScannedThread, space: ScannedSpace) -> bool:
        found = self._scan.space(thread.key, space.ns)
        return found is not None and found.space_pk == space.space_pk

    def _add(self, count: _SpaceCount) -> int:
        """Take over what was counted in a namespace. Returns its bytes."""
        n_tasks, task_bytes = self._scan.write_sizes(count.space.space_pk)
        self._n_checkpoints += count.n_checkpoints
        self._n_stubs += count.n_stubs
        self._header_bytes += count.header_bytes
        self._n_tasks += n_tasks
        self._task_bytes += task_bytes
        n_bytes = count.header_bytes + task_bytes
        for number, root, last, chain_bytes in count.chains:
            n_bytes += chain_bytes
            name, referred = count.refs.get((number, root), (None, -1))
            if last > referred and count.knows_all_refs:
                waste = self._scan.bytes_behind(count.space.space_pk, number, root, referred)
                self._garbage += waste
                chain_bytes -= waste
            if name is not None:
                self._bytes[name] += chain_bytes
                self._longest[name] = max(self._longest.get(name, 0), referred + 1)
        return n_bytes


class _SpaceCount:
    """The count of one namespace."""

    def __init__(self, space: ScannedSpace) -> None:
        self.space = space
        self.n_checkpoints = self.n_stubs = self.header_bytes = 0
        self.chains: list[Chain] = []
        self.refs: dict[tuple[int, int], tuple[str, int]] = {}
        """(channel number, root) -> (channel, greatest seq that a kept header refers to)."""
        self.knows_all_refs = True
        self._lines = Lines(space.space_pk, space.ns)
        self._after: Any = None
        self._has_chains = False

    def next_page(self, scan: Scan) -> int:
        """Count a page. Returns its rows, 0 at the end. Chains come first, so that none is newer than the headers."""
        if not self._has_chains:
            chains = scan.chain_sizes(self.space.space_pk, self._after, PAGE_ROWS)
            self.chains += chains
            if chains:
                self._after = chains[-1][:2]
                return len(chains)
            self._has_chains, self._after = True, None
        page = scan.headers(self.space.space_pk, self._after, PAGE_ROWS)
        for found in page:
            row = found.row
            try:
                folded = self._lines.fold(scan, found)
            except CorruptCheckpointError:
                folded = None
            self.header_bytes += len(row.header) + len((row.metadata or "").encode("utf-8", "surrogatepass"))
            if folded is None:
                self.knows_all_refs = False
            if row.flags & STUB:
                self.n_stubs += 1
                continue
            self.n_checkpoints += 1
            if folded is not None:
                for name, (root, seq) in folded.refs.items():
                    key = folded.index[name], root
                    if seq > self.refs.get(key, ("", -1))[1]:
                        self.refs[key] = name, seq
        if page:
            self._after = page[-1].row.rev
        return len(page)
