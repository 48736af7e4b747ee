"""Faults on purpose: a saver's process dies, its disk fills, its file is locked or damaged, the power goes.

Decides where a saver can be struck (`BOUNDARIES`), what strikes it (`CrashAt`, `FailAt`, `StallAt`, `PowerLoss`), and
how a file is damaged. Knows the statements of the SQLite saver by their first words only, and nothing of graphs. For
the tests of this package and for those of programs that want to see what a crash does to them:

    with inject(saver, FailAt("b5", error=sqlite_error("SQLITE_FULL"))):
        graph.invoke(...)                      # raises the error; nothing of the step is stored

    with ForkServer() as server:               # a fork of a fresh interpreter for each life
        ended = server.call("myproject.tests:one_life", path)
        assert ended.signal == signal.SIGKILL  # if the function installed a CrashAt

Invariants
1. Faults strike at numbered places, never after a time, so a failure can be repeated.
2. After the `with` block of a fault the saver works as before, unless the fault is said to be lasting.
3. Nothing here changes a file but the functions whose name says so.

Source: storage.md C13; SQLite's documented rules of what is synced when (https://sqlite.org/wal.html).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Final, Literal, NamedTuple, Self

from checkpoint import ids
from checkpoint.sqlite import commits, reader, writer
from checkpoint.sqlite import saver as saver_module

BOUNDARIES: Final[Mapping[str, str]] = {
    "b0": "before a commit is encoded",
    "b1": "after a commit is encoded",
    "b2": "after a writing transaction has begun",
    "b3": "after the claim, the guard or a head: each statement on threads and spaces",
    "b4": "after each insert of chain rows, checkpoints, task rows or aliases",
    "b5": "before COMMIT",
    "b6": "after COMMIT, before the saver returns",
    "b7": "after `write` or `submit` has returned, before the next step",
    "b8": "before and after a WAL checkpoint, on whichever connection",
    "b9": "before and after each statement of a migration",
    "b10": "after each statement that removes, copies or rewrites stored rows",
    "b11": "after a lane has taken its number, before its first commit",
    "read": "before each statement of a reading connection",
}
"""Where a saver can be struck: the names of storage.md C13, and reading. All but b0, b1 and b7 are for SQLite savers."""

PAGE: Final = 4096
SECTOR: Final = 512
"""What a disk writes whole."""
WAL_HEADER: Final = 32


class Point(NamedTuple):
    """A place that a saver has reached."""

    boundary: str
    statement: str
    """The SQL; the method's name at b0, b1 and b7."""
    conn: Any
    """The connection that runs the statement; None at b0, b1 and b7."""


class Fault:
    """Something that happens when a saver reaches a boundary for the n-th time. Does nothing by itself."""

    def __init__(self, boundary: str = "any", n: int = 1, *, match: str = "") -> None:
        """
        Args:
            boundary: a key of `BOUNDARIES`, or "any".
            n: which visit of the boundary it is, from 1; 0: each one.
            match: counts only statements that contain this text.
        """
        if boundary != "any" and boundary not in BOUNDARIES:
            raise ValueError(
                f"{type(self).__name__}: there is no boundary {boundary!r}; it must be 'any' or one of "
                f"{', '.join(BOUNDARIES)}"
            )
        self.boundary = boundary
        self.n = n
        self.match = match
        self.visits = 0
        """How often the boundary was reached."""
        self.struck = 0
        self._lock = threading.Lock()

    def reached(self, point: Point) -> None:
        """The saver is at a boundary; strike if it is the one."""
        if self.boundary not in ("any", point.boundary) or self.match not in point.statement:
            return
        with self._lock:
            self.visits += 1
            strikes = self.n in (0, self.visits)
            self.struck += strikes
        if strikes:
            self.strike(point)

    def strike(self, point: Point) -> None:
        """What the fault does."""


class CrashAt(Fault):
    """Kill this process, as `kill -9` does: no handler, no `finally`, nothing is flushed."""

    def strike(self, point: Point) -> None:
        """As `Fault.strike`; does not return."""
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        threading.Event().wait()  # until the signal arrives


class FailAt(Fault):
    """Raise an error. `n=0`: at each visit, until the `with` block ends."""

    def __init__(self, boundary: str = "any", n: int = 1, *, error: BaseException, match: str = "") -> None:
        super().__init__(boundary, n, match=match)
        self.error = error

    def strike(self, point: Point) -> None:
        """As `Fault.strike`: raises a fresh error of the same kind."""
        raise _again(self.error)


class StallAt(Fault):
    """Hold the saver up: `until()` is called on its thread, and may wait for an event or sleep."""

    def __init__(self, boundary: str = "any", n: int = 0, *, until: Callable[[], object], match: str = "") -> None:
        super().__init__(boundary, n, match=match)
        self.until = until

    def strike(self, point: Point) -> None:
        """As `Fault.strike`."""
        self.until()


class Record(Fault):
    """Keep the points that are reached, in order: to count them before choosing one."""

    def __init__(self, boundary: str = "any", *, match: str = "") -> None:
        super().__init__(boundary, 0, match=match)
        self.points: list[Point] = []

    def strike(self, point: Point) -> None:
        """As `Fault.strike`."""
        self.points.append(point)


def sqlite_error(name: str) -> sqlite3.OperationalError:
    """The error that SQLite raises for a result code, e.g. `"SQLITE_IOERR_FSYNC"`, `"SQLITE_FULL"`, `"SQLITE_BUSY"`."""
    code: int = getattr(sqlite3, name)
    primary = code & 0xFF
    texts = {
        sqlite3.SQLITE_FULL: "database or disk is full",
        sqlite3.SQLITE_IOERR: "disk I/O error",
        sqlite3.SQLITE_BUSY: "database is locked",
        sqlite3.SQLITE_READONLY: "attempt to write a readonly database",
    }
    error = sqlite3.OperationalError(texts.get(primary, name))
    error.sqlite_errorcode, error.sqlite_errorname = code, name
    return error


def _again(error: BaseException) -> BaseException:
    # The object itself would collect notes and tracebacks of all its uses.
    fresh = type(error)(*error.args)
    fresh.__dict__.update({key: value for key, value in vars(error).items() if key != "__notes__"})
    return fresh


# ---- the shim around a connection

_CLAIMS = ("UPDATE threads SET claims", "INSERT INTO threads", "UPDATE spaces", "SELECT 1 FROM threads")


class _Shim:
    """A connection that tells faults where it stands. Anything else is the connection's own."""

    def __init__(self, conn: Any, faults: Sequence[Fault], *, reads: bool = False) -> None:
        self._conn = conn
        self._faults = faults
        self._reads = reads
        self._migrates = False
        self._takes_lane = False

    @property
    def in_transaction(self) -> bool:
        """As of the connection."""
        return bool(self._conn.in_transaction)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    def execute(self, statement: str, values: Any = ()) -> Any:
        """Run a statement between its boundaries."""
        self._before(statement)
        result = self._conn.execute(statement, values)
        self._after(statement)
        return result

    def executemany(self, statement: str, rows: Any) -> Any:
        """Run a statement for many rows; the boundary is after the last one."""
        self._before(statement)
        result = self._conn.executemany(statement, rows)
        self._after(statement)
        return result

    def _reach(self, boundary: str, statement: str) -> None:
        point = Point(boundary, statement, self._conn)
        for fault in list(self._faults):
            fault.reached(point)

    def _before(self, statement: str) -> None:
        if self._reads:
            self._reach("read", statement)
            return
        if statement == "BEGIN EXCLUSIVE":
            self._migrates = True
        if self._migrates:
            self._reach("b9", statement)
        elif statement == "COMMIT" and self.in_transaction:
            self._reach("b5", statement)
        elif "wal_checkpoint" in statement:
            self._reach("b8", statement)

    def _after(self, statement: str) -> None:
        if self._reads:
            return
        if self._migrates:
            if statement in ("COMMIT", "ROLLBACK"):
                self._migrates = False
            self._reach("b9", statement)
        elif statement == "BEGIN IMMEDIATE":
            self._reach("b2", statement)
        elif statement == "COMMIT":
            self._reach("b6", statement)
            if self._takes_lane:
                self._takes_lane = False
                self._reach("b11", statement)
        elif "wal_checkpoint" in statement:
            self._reach("b8", statement)
        elif (boundary := _boundary_after(statement)) is not None:
            if "RETURNING claims" in statement:
                self._takes_lane = True
            self._reach(boundary, statement)


def _boundary_after(statement: str) -> str | None:
    """The boundary after a statement inside a writing transaction."""
    if statement.startswith(_CLAIMS):
        return "b3"
    if statement.startswith("INSERT INTO spaces") and " SELECT " not in statement:
        return "b3"
    if statement.startswith("INSERT") and " SELECT " not in statement:
        return "b4"
    if statement.startswith(("DELETE", "UPDATE", "INSERT")):
        return "b10"
    return None


# ---- bringing faults to a saver


@contextmanager
def inject(saver: Any, *faults: Fault) -> Iterator[None]:
    """Let these faults strike a saver while the block runs.

    Any native saver has b0, b1 and b7; one that keeps an SQLite file has all of them. The saver must not be in the
    middle of a write when the block begins or ends.
    """
    with ExitStack() as undo:
        for method, names in (("encode", ("b0", "b1")), ("write", (None, "b7")), ("submit", (None, "b7"))):
            undo.enter_context(_wrapped(saver, method, names, faults))
        if isinstance(saver, saver_module._SqliteSaver):
            undo.enter_context(_shimmed(saver._live(), faults))
        yield


@contextmanager
def opening(*faults: Fault) -> Iterator[None]:
    """Let these faults strike every SQLite saver that is opened while the block runs: migrations, leftovers of deletes.

    They no longer strike a saver after the block, though its connections stay wrapped.
    """
    alive = list(faults)
    original = saver_module._Connections.open

    def opened(self: Any, *, readonly: bool = False) -> Any:
        return _Shim(original(self, readonly=readonly), alive, reads=readonly)

    saver_module._Connections.open = opened  # type: ignore[method-assign]
    try:
        yield
    finally:
        saver_module._Connections.open = original  # type: ignore[method-assign]
        alive.clear()


@contextmanager
def _wrapped(
    saver: Any, method: str, boundaries: tuple[str | None, str | None], faults: Sequence[Fault]
) -> Iterator[None]:
    original = getattr(saver, method)
    own = vars(saver).get(method)
    before, after = boundaries

    def struck(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            for fault in faults:
                fault.reached(Point(before, method, None))
        result = original(*args, **kwargs)
        if after is not None:
            for fault in faults:
                fault.reached(Point(after, method, None))
        return result

    setattr(saver, method, struck)
    try:
        yield
    finally:
        if own is None:
            delattr(saver, method)
        else:
            setattr(saver, method, own)


@contextmanager
def _shimmed(connections: Any, faults: Sequence[Fault]) -> Iterator[None]:
    alive = list(faults)
    opens = connections.open
    own = vars(connections).get("open")

    def opened(*, readonly: bool = False) -> Any:
        return _Shim(opens(readonly=readonly), alive, reads=readonly)

    with connections.write_lock:
        idle, connections.wal_conn = connections.wal_conn, None
        readers = list(connections.readers)
        connections.readers.clear()
        connections.readers.extend(_Shim(conn, alive, reads=True) for conn in readers)
        connections.writer = _Shim(connections.writer, alive)
        connections.open = opened
    if idle is not None:
        idle.close()
    try:
        yield
    finally:
        alive.clear()
        with connections.write_lock:
            # A connection that the saver has opened meanwhile is wrapped too.
            if isinstance(connections.writer, _Shim):
                connections.writer = connections.writer._conn
            if own is None:
                del connections.open
            else:
                connections.open = own


# ---- a disk that is full or broken, a file that is locked, a saver that is slow


@contextmanager
def disk_full(saver: Any, *, spare_pages: int = 0) -> Iterator[None]:
    """No room for the file to grow by more than `spare_pages` (4 KiB each): writes raise SQLITE_FULL. SQLite savers.

    Freed pages inside the file can still be used, and so can the room in its last page.
    """
    connections = saver._live()
    with connections.write_lock:
        pages = connections.writer.execute("PRAGMA page_count").fetchone()[0]
        before = connections.writer.execute("PRAGMA max_page_count").fetchone()[0]
        connections.writer.execute(f"PRAGMA max_page_count = {pages + spare_pages}")
    try:
        yield
    finally:
        with connections.write_lock:
            connections.writer.execute(f"PRAGMA max_page_count = {before}")


@contextmanager
def io_error(saver: Any, operation: Literal["read", "write", "fsync"], *, n: int = 1) -> Iterator[Fault]:
    """The disk fails once: at the n-th statement that reads, that writes rows, or at the n-th COMMIT's fsync.

    A failed write or fsync rolls the transaction back before it is reported, as SQLite does. `n=0`: each time.
    """
    fault: Fault
    if operation == "read":
        fault = FailAt("read", n, error=sqlite_error("SQLITE_IOERR_READ"), match="SELECT")
    else:
        fault = _FailingWrite("b4" if operation == "write" else "b5", n, f"SQLITE_IOERR_{operation.upper()}")
    with inject(saver, fault):
        yield fault


class _FailingWrite(Fault):
    """Rolls back, as SQLite does after a failed write, and raises."""

    def __init__(self, boundary: str, n: int, code: str) -> None:
        super().__init__(boundary, n)
        self.code = code

    def strike(self, point: Point) -> None:
        """As `Fault.strike`."""
        if point.conn.in_transaction:
            point.conn.execute("ROLLBACK")
        raise sqlite_error(self.code)


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[sqlite3.Connection]:
    """Somebody else writes the file: a connection holds its write lock while the block runs. Yields that connection."""
    conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        conn.execute("BEGIN IMMEDIATE")
        yield conn
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        conn.close()


@contextmanager
def snapshot_held(path: str | os.PathLike[str]) -> Iterator[sqlite3.Connection]:
    """Somebody else reads and does not end: the WAL cannot start over while the block runs. Yields that connection."""
    conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        conn.execute("BEGIN")
        conn.execute("SELECT count(*) FROM threads").fetchone()
        yield conn
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        conn.close()


@contextmanager
def slow(saver: Any, delay: float | Callable[[], object], *, boundary: str = "b5") -> Iterator[Fault]:
    """Every commit takes long: seconds, or until the function returns. `boundary="b7"` for savers without a file."""
    until = delay if callable(delay) else lambda: time.sleep(delay)
    fault = StallAt(boundary, until=until)
    with inject(saver, fault):
        yield fault


@contextmanager
def clock(now_ns: Callable[[], int]) -> Iterator[None]:
    """Let the wall clock of ids, times and claims be `now_ns()`, nanoseconds since 1970, while the block runs."""
    shown: Any = SimpleNamespace(time_ns=now_ns, time=lambda: now_ns() / 1e9)
    name = "time"
    places = ids, commits, reader, writer
    before = [getattr(place, name) for place in places]
    for place in places:
        setattr(place, name, shown)
    try:
        yield
    finally:
        for place, real in zip(places, before, strict=True):
            setattr(place, name, real)


# ---- files that are damaged. The saver must be closed, and is opened again afterwards.


def torn_write(path: str | os.PathLike[str], offset: int, *, garbage: bool = False) -> None:
    """Lose what was written from `offset` on: the file is cut there, or keeps its length and holds garbage.

    For a write-ahead log give the path of the `-wal` file.
    """
    with Path(path).open("r+b") as file:
        length = file.seek(0, os.SEEK_END)
        file.truncate(offset)
        if garbage and length > offset:
            file.seek(offset)
            file.write(random.Random(offset).randbytes(length - offset))


def wal_frames(path: str | os.PathLike[str]) -> list[tuple[int, bool]]:
    """(Offset of its end, does it end a transaction?) of each frame in the write-ahead log of a database.

    Frames of before the log last started over, which SQLite ignores, are left out.
    """
    data = Path(f"{os.fspath(path)}-wal").read_bytes()
    page = int.from_bytes(data[8:12], "big")
    frames = []
    for start in range(WAL_HEADER, len(data) - page - 23, page + 24):
        if data[start + 8 : start + 16] != data[16:24]:
            break
        frames.append((start + 24 + page, data[start + 4 : start + 8] != bytes(4)))
    return frames


def bit_flip(
    path: str | os.PathLike[str], table: str, column: str = "data", *, where: str = "1", n: int = 0, bit: int = 0
) -> bool:
    """Turn one bit of one stored value around: of the n-th row in key order that fits `where`, a condition in SQL.

    `bit` counts from the value's first; it wraps around at the end. Blobs and texts are changed in place, integers in
    their 64-bit form. Returns False if there is no such row or its value is empty. `table`, `column` and `where` become
    SQL: they must come from the test.
    """
    conn = sqlite3.connect(path, isolation_level=None)
    try:
        keys = [row[1] for row in conn.execute(f"PRAGMA table_info({table})").fetchall() if row[5]]
        key = ", ".join(keys)
        row = conn.execute(
            f"SELECT {column}, {key} FROM {table} WHERE {where} ORDER BY {key} LIMIT 1 OFFSET ?", (n,)
        ).fetchone()
        if row is None or row[0] is None or row[0] in ("", b""):
            return False
        conn.execute(
            f"UPDATE {table} SET {column} = ? WHERE ({key}) = ({', '.join('?' * len(keys))})",
            (_flipped(row[0], bit), *row[1:]),
        )
        return True
    finally:
        conn.close()


def _flipped(value: Any, bit: int) -> Any:
    if isinstance(value, int):
        # The sign bit stays, so that the result is an integer SQLite can hold.
        return value ^ 1 << bit % 63
    data = bytearray(value.encode() if isinstance(value, str) else value)
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    return data.decode("utf-8", "replace") if isinstance(value, str) else bytes(data)


# ---- power


class _Image(NamedTuple):
    """What was in the files at one moment: as programs saw it, and as the disk was told to keep it."""

    n_commits: int
    """Transactions that had ended."""
    db: bytes
    wal: bytes
    kept_db: bytes
    kept_wal: bytes


class PowerLoss(Fault):
    """Records what a file would hold if the power went: `inject` it, let the saver work, then `restore` each moment.

    Of what was written since the last fsync, any part may have reached the disk, sector by sector, in any order. Which
    statements sync is SQLite's documentation: a COMMIT with `synchronous = FULL` (the connection is asked, not the
    saver), the WAL before a checkpoint, the database after it, the WAL's header when it starts over. Each commit costs a
    copy of both files in memory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__("any", 0)
        self.path = Path(path)
        self.images: list[_Image] = []
        self.n_commits = 0
        self._synced: tuple[bytes, bytes] | None = None
        self._folds: dict[int, bool] = {}
        """Connections in the middle of a WAL checkpoint, by identity -> does it sync?"""
        self._syncs_commit = False
        self._states = threading.Lock()

    def strike(self, point: Point) -> None:
        """As `Fault.strike`."""
        if point.boundary not in ("b5", "b6", "b8"):
            return
        with self._states:
            if self._synced is None:
                self._synced = self._read()
            if point.boundary == "b5":
                self._syncs_commit = _level(point.conn) >= 2
            elif point.boundary == "b6":
                self._committed()
            elif id(point.conn) not in self._folds:
                self._fold_begins(point.conn)
            else:
                self._fold_has_ended(syncs=self._folds.pop(id(point.conn)))

    def restore(self, number: int, directory: Path, *, seed: int = 0) -> Path:
        """Write the files as they may be found after the power went at moment `number`. Returns the database's path.

        `seed` chooses what has reached the disk; with 0, nothing that was not synced has.
        """
        image = self.images[number]
        chance = random.Random(seed)
        path = directory / f"{self.path.name}-{number}-{seed}"
        share = (0, 0.5, 0.9, 1)[seed % 4]
        path.write_bytes(_torn(image.kept_db, image.db, PAGE, share, chance))
        wal = _torn(image.kept_wal, image.wal, SECTOR, share, chance)
        # The log's header is synced on its own when the log starts over.
        Path(f"{path}-wal").write_bytes(image.wal[:WAL_HEADER] + wal[WAL_HEADER:])
        return path

    def _committed(self) -> None:
        self.n_commits += 1
        now = self._read()
        if self._syncs_commit:
            self._sync(wal=now[1])
        self._keep(now)

    def _fold_begins(self, conn: Any) -> None:
        self._folds[id(conn)] = syncs = _level(conn) >= 1
        now = self._read()
        self._keep(now)
        if syncs:
            self._sync(wal=now[1])

    def _fold_has_ended(self, *, syncs: bool) -> None:
        now = self._read()
        self._keep(now)  # pages go to the database in any order, before it is synced
        if syncs:
            self._sync(db=now[0], wal=now[1])
            self._keep(now)

    def _sync(self, *, wal: bytes, db: bytes | None = None) -> None:
        assert self._synced is not None
        self._synced = self._synced[0] if db is None else db, wal

    def _keep(self, now: tuple[bytes, bytes]) -> None:
        assert self._synced is not None
        self.images.append(_Image(self.n_commits, *now, *self._synced))

    def _read(self) -> tuple[bytes, bytes]:
        wal = Path(f"{self.path}-wal")
        return self.path.read_bytes(), wal.read_bytes() if wal.exists() else b""


def _level(conn: Any) -> int:
    level: int = conn.execute("PRAGMA synchronous").fetchone()[0]
    return level


def _torn(old: bytes, new: bytes, size: int, share: float, chance: random.Random) -> bytes:
    """`old`, of which about this share of blocks has become `new`."""
    length = max(len(old), len(new))
    old, new = old.ljust(length, b"\0"), new.ljust(length, b"\0")
    return b"".join((new if chance.random() < share else old)[start : start + size] for start in range(0, length, size))


# ---- processes that die


class Ended(NamedTuple):
    """How a child process ended."""

    signal: int | None
    """The signal that killed it."""
    value: Any
    """What the function returned, by way of JSON. None after a signal."""


class ForkServer:
    """Runs functions in fresh child processes, each a fork of one interpreter that has imported what they need.

    A life costs milliseconds instead of a start of Python, and may end in any way: `CrashAt`, a signal, a timer. The
    server itself runs no threads and opens no files. Needs `os.fork`. Not for use by several threads at once.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        """
        Args:
            preload: names of modules to import once, before the first fork.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from checkpoint.testing.faults import _serve; _serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._ask({"preload": list(preload)})

    def call(self, target: str, *args: Any, **kwargs: Any) -> Ended:
        """Run `"module:function"` in a child and wait for its end. Arguments and value must be JSON.

        Raises `RuntimeError` with the child's traceback if the function raised.
        """
        answer = self._ask({"target": target, "args": args, "kwargs": kwargs})
        if "error" in answer:
            raise RuntimeError(f"{target} raised in its process:\n{answer['error']}")
        return Ended(answer["signal"], answer.get("value"))

    def close(self) -> None:
        """End the server. Children have ended already."""
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, question: Mapping[str, Any]) -> Any:
        sending, receiving = self._process.stdin, self._process.stdout
        assert sending is not None
        assert receiving is not None
        sending.write(json.dumps(question) + "\n")
        sending.flush()
        line = receiving.readline()
        if not line:
            raise RuntimeError(f"the fork server has ended with status {self._process.wait()}; its errors are above")
        return json.loads(line)


def _serve() -> None:
    """The server's loop: one line of JSON in, one out."""
    for line in sys.stdin:
        question = json.loads(line)
        if "preload" in question:
            for name in question["preload"]:
                importlib.import_module(name)
            gc.freeze()  # a child's collector leaves the pages alone that it shares
            answer: Any = {}
        else:
            answer = _live(question)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _live(question: Any) -> Any:
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        os.dup2(2, 1)  # what the child prints is not an answer
        status, own = 1, os.getpid()
        try:
            module, _, function = question["target"].partition(":")
            value = getattr(importlib.import_module(module), function)(*question["args"], **question["kwargs"])
            answer = {"value": value}
            status = 0
        except BaseException:  # noqa: BLE001 - told to the caller
            answer = {"error": traceback.format_exc()}
        if os.getpid() != own:
            # The function has forked, and its child came back here: it has nothing to say.
            os._exit(1)
        with contextlib.suppress(OSError), os.fdopen(sending, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(status)
    os.close(sending)
    with os.fdopen(receiving) as pipe:
        text = pipe.read()
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answer = json.loads(text) if text and ended >= 0 else {}
    return {**answer, "signal": -ended if ended < 0 else None}
