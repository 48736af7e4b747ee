"""Threads of any length: what they take in the file, and in the log beside it (F33, F38 of storage.md C13).

The suite plays them short. At full size, in some minutes: `python -m tests.faults.lengths`.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import threading
from pathlib import Path

from checkpoint import ids
from checkpoint.base import Append, StepCommit
from checkpoint.sqlite import SqliteSaver
from checkpoint.sqlite import saver as saver_module
from checkpoint.testing.faults import StallAt, inject
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.support.sound import assert_sound

DELTA = 203
"""Bytes of one appended text of 200 characters."""


def payload_bytes(path: Path) -> int:
    """Bytes of all values in the file."""
    conn = sqlite3.connect(path)
    total: int = conn.execute("SELECT sum(length(data)) FROM payloads").fetchone()[0]
    conn.close()
    return total


def wal_size(path: Path) -> int:
    """Bytes of the log."""
    return Path(f"{path}-wal").stat().st_size


def check_lengths(folder: Path, n_steps: int, *, document: int) -> None:
    """F33: so many steps, and twice as many, append to a list beside a document that nobody touches.

    The budgets of storage.md C6 hold, the document is stored once, and what was appended is read back.
    """
    sizes: list[int] = []
    for length in (n_steps, 2 * n_steps):
        path = folder / f"{length}"
        headers = _append(path, length, "d" * document)
        deltas, stored = length * DELTA, payload_bytes(path) - document
        assert headers / length <= 25
        # Promise 9. Full copies of the list are a series with factor 3: 2.5 times the raw bytes right after one.
        assert stored <= 2.5 * deltas + 30 * length
        sizes.append(path.stat().st_size - document)
        assert sizes[-1] <= 3 * deltas + 200 * length
    # A doubling meets at most one copy more than the series has on average.
    assert sizes[1] / sizes[0] <= 2.5


def _append(path: Path, n_steps: int, document: str) -> int:
    """Bytes of all headers, once so many steps have appended a text each."""
    with SqliteSaver(path, max_checkpoint_lag=16) as saver:
        claim = saver.load(config()).claim
        values: list[str] = []
        parent: tuple[int, str] | tuple[None, None] = None, None
        for n in range(n_steps):
            values.append(f"{n:06}" + "x" * 194)
            rev, id_ = claim.numbered(n)
            commit = StepCommit(claim, "", "checkpoint", step=n, checkpoint_id=id_, rev=rev, version=n + 1)
            commit.ts, commit.updated_channels = ids.now_us(), ["l"]
            if n:
                commit.ops = {"l": Append(values, n)}
            else:
                commit.values = {"l": values, "doc": document}
            commit.parent_rev, commit.parent_id = parent
            encoded = saver.encode(commit)
            if n:
                saver.submit(encoded)
            else:
                saver.write([encoded], durability="sync")
            parent = rev, id_
        loaded = saver.load(config())
        assert loaded.values == {"l": values, "doc": document}
        assert [entry.metadata["step"] for entry in saver.list(config(), limit=2)] == [n_steps - 1, n_steps - 2]
        conn = sqlite3.connect(path)
        headers: int = conn.execute("SELECT sum(length(header)) FROM checkpoints").fetchone()[0]
        conn.close()
    return headers


def check_log(path: Path, commits: int, *, stalls: bool) -> None:
    """F38: a writer never pauses; the log stays small, also if the thread that folds it back hangs in the middle of it."""
    free = threading.Event()
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False), durability="async")
        run.step({"doc": "", "n": 0})
        largest = 0
        stall = StallAt("b8", 1 if stalls else 10**9, until=free.wait)
        with inject(saver, stall):
            for n in range(commits):
                run.step({"doc": f"{n}" + "d" * 30_000})
                if n % 20 == 0:
                    largest = max(largest, wal_size(path))
            free.set()
            # The checkpoint thread has nothing to do any more before the faults are taken away.
            saver._folder.call(lambda: None)
        assert saver_module.WAL_TRIGGER < largest <= 16 * 1024 * 1024
        assert stall.struck == stalls
        assert run.store.load(config()).values == run.values


def main() -> None:
    """Everything at the size that storage.md names."""
    with tempfile.TemporaryDirectory() as folder:
        check_lengths(Path(folder), 50_000, document=10_000_000)
        sys.stdout.write("F33: 50,000 and 100,000 steps beside 10 MB: ok\n")
        for stalls in (False, True):
            path = Path(folder) / f"log {stalls}"
            check_log(path, 100_000, stalls=stalls)
            with SqliteSaver(path) as saver:
                assert_sound(saver)
            path.unlink()
            sys.stdout.write(f"F38: 100,000 commits, the folding thread {'hangs' if stalls else 'works'}: ok\n")


if __name__ == "__main__":
    main()
