"""How a file is opened, to write or only to read, and what to say if it cannot be.

Decides connection settings, which of SQLite's ways of reading fits a file that may not be written, and the errors.
Knows neither tables nor savers.

A file in WAL mode is read with the help of two files beside it. Where these can neither be used nor made (a read-only
directory), the file is read as one that nobody changes; that is refused if there is a log beside it whose commits would
then be missed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from checkpoint.base import CorruptCheckpointError, SaverOpenError
from checkpoint.files import make_private

BUSY_MS: Final = 5000
_CANNOT_WRITE: Final = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def connect(path: str, *, busy_ms: int = BUSY_MS) -> sqlite3.Connection:
    """A connection that may write. Makes the file if it is missing, for its owner's eyes only."""
    make_private(path)
    return _set_up(path, busy_ms)


def connect_to_read(path: str, *, busy_ms: int = BUSY_MS) -> sqlite3.Connection:
    """A connection that cannot write, also to a file or in a directory that nobody may write to."""
    uri = Path(path).as_uri()
    conn = _set_up(f"{uri}?mode=ro", busy_ms, is_uri=True)
    try:
        conn.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        conn.close()
        if _kind(error) not in _CANNOT_WRITE or not os.access(path, os.R_OK):
            raise
        if _size(f"{path}-wal"):
            raise SaverOpenError(
                f"{path} cannot be read where it is: commits are still in {path}-wal, and SQLite needs to make files in "
                f"that directory to read them; copy both files to a directory that may be written to, and open the copy",
                path=path,
            ) from error
        conn = _set_up(f"{uri}?immutable=1", busy_ms, is_uri=True)
    return conn


def tidy(path: str) -> None:
    """Remove an empty log that reading has left beside a file that had none, unless somebody uses it.

    Only SQLite knows the latter, and only a connection that may write removes the log when it is the last to close.
    """
    if _size(f"{path}-wal") == 0 and os.path.exists(f"{path}-wal"):
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(_set_up(f"{Path(path).as_uri()}?mode=rw", 0, is_uri=True)) as conn,
        ):
            conn.execute("PRAGMA schema_version").fetchone()


def _set_up(place: str, busy_ms: int, *, is_uri: bool = False) -> sqlite3.Connection:
    conn = sqlite3.connect(
        place,
        timeout=busy_ms / 1000,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        uri=is_uri,
    )
    conn.execute("PRAGMA foreign_keys = ON")
    conn.execute("PRAGMA trusted_schema = OFF")
    if is_uri:
        conn.execute("PRAGMA query_only = ON")
    return conn


def check_place(path: str, *, read_only: bool) -> None:
    """Raise `SaverOpenError` if the path cannot be that of a file to open."""
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise SaverOpenError(f"{path} is a directory; give the saver the path of a file", path=path)
    if not os.path.isdir(directory):
        raise SaverOpenError(
            f"{path} cannot be opened: the directory {directory} does not exist; make it first", path=path
        )
    if read_only:
        if not os.path.exists(path):
            raise SaverOpenError(f"{path} does not exist, and read_only=True makes no file; check the path", path=path)
        return
    for place in (path, directory):
        if os.path.exists(place) and not os.access(place, os.W_OK):
            raise SaverOpenError(
                f"{path} cannot be opened: {place} may not be written to; change its mode, or pass read_only=True to "
                f"read only",
                path=path,
            )


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what SQLite says when a file cannot be opened into `SaverOpenError`, or `CorruptCheckpointError` if that is
    because it is damaged. Other errors stay as they are."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if _kind(error) == sqlite3.SQLITE_CORRUPT:
            raise CorruptCheckpointError(f"SQLite cannot open {path} ({error})") from error
        reason = _reason(error)
        if reason is None:
            raise
        raise SaverOpenError(f"{path} {reason} (SQLite: {error})", path=path) from error


def _reason(error: sqlite3.DatabaseError) -> str | None:
    kind = _kind(error)
    if kind == sqlite3.SQLITE_NOTADB:
        return "is not an SQLite database, or an encrypted one; check the path"
    if kind in _BUSY:
        return "is locked by another process; end that process, or wait for it"
    if kind in _CANNOT_WRITE:
        return (
            "cannot be opened; check that the file and its directory may be used, or pass read_only=True to read only"
        )
    return None


def _kind(error: sqlite3.Error) -> int:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return 0 if code is None else code & 0xFF


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def back_up(path: str, target: str) -> str:
    """Copy a file by SQLite's backup, which also sees commits that are still in the log. Returns the target's path.

    Writers may go on; the copy is of one moment. Raises `SaverOpenError` if there is something at the target.
    """
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise SaverOpenError(
            f"{path} cannot be copied to {target}: {error.strerror}; choose another path", path=target
        ) from error
    path = os.path.abspath(path)
    with (
        reading(path) as source,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy, pages=1024)
    return target


@contextmanager
def reading(path: str) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, for a while; leaves nothing behind. Raises `SaverOpenError`."""
    had_log = os.path.exists(f"{path}-wal")
    try:
        with explained(path), contextlib.closing(connect_to_read(path)) as conn:
            yield conn
    finally:
        if not had_log:
            tidy(path)
