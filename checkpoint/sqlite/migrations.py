"""The schema, as numbered migrations, and how a file is brought to the newest one.

Decides tables, indexes and their versions. A file made by a newer library, or by another program under our table names,
is refused and left as it is. Every migration goes in with its row in `schema_migrations`, in one transaction.

Tables. `threads`: claims (design.md D24); row ids are never used again. `spaces`: one namespace of one thread, and its
newest checkpoint. `checkpoints`: one row per checkpoint, its header included. `aliases`: ids that do not carry their
rev.
`payloads`: chain rows; bodies of 800 B to 8 KiB in parts. `task_writes`: what tasks wrote. storage.md C4 has the
reasons.

Version 2. A superstep mostly ends with the writes of one task that are short. They have a place in the row of the
checkpoint that the task ran from (`task_id` and what follows): that page is written anyhow, and one of `task_writes` is
not (a fifth of all pages of a commit, measured). What has no place there is in `task_writes`; no key is in both.
`row_crc` is the checksum of the columns that neither `crc` nor `task_crc` covers; rows of version 1 have none until
upkeep changes them.
"""

from __future__ import annotations

import hashlib
import sqlite3
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from checkpoint.base import SchemaVersionError

APPLICATION_ID: Final = 0x5052474C
LIBRARY: Final = "pregel"


class Migration(NamedTuple):
    """One step of the schema. `views`: what stands for the tables that it changed, where it cannot be done."""

    version: int
    name: str
    statements: tuple[str, ...]
    views: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Checksum by which a file proves that it has this very schema."""
        return hashlib.sha256(";\n".join(self.statements).encode()).hexdigest()


MIGRATIONS: Final = (
    Migration(
        1,
        "initial",
        (
            """CREATE TABLE threads (
    thread_pk INTEGER PRIMARY KEY AUTOINCREMENT,
    thread_id TEXT UNIQUE,
    salt INTEGER NOT NULL,
    claims INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    created_at REAL NOT NULL,
    claimed_at REAL NOT NULL,
    expires_at REAL,
    lease_owner TEXT,
    lease_until REAL)""",
            """CREATE TABLE spaces (
    space_pk INTEGER PRIMARY KEY,
    thread_pk INTEGER NOT NULL REFERENCES threads ON DELETE CASCADE,
    ns TEXT NOT NULL,
    head_rev INTEGER,
    UNIQUE (thread_pk, ns))""",
            """CREATE TABLE checkpoints (
    space_pk INTEGER NOT NULL REFERENCES spaces ON DELETE CASCADE,
    rev INTEGER NOT NULL,
    id NOT NULL,
    parent_rev INTEGER,
    parent_id,
    up_rev INTEGER,
    ts NOT NULL,
    step INTEGER NOT NULL,
    source INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    run_id TEXT,
    header_root INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    header BLOB NOT NULL,
    metadata TEXT,
    PRIMARY KEY (space_pk, rev)) WITHOUT ROWID""",
            "CREATE INDEX checkpoints_run ON checkpoints (run_id) WHERE run_id IS NOT NULL",
            """CREATE TABLE aliases (
    space_pk INTEGER NOT NULL REFERENCES spaces ON DELETE CASCADE,
    id NOT NULL,
    rev INTEGER NOT NULL,
    PRIMARY KEY (space_pk, id)) WITHOUT ROWID""",
            """CREATE TABLE payloads (
    space_pk INTEGER NOT NULL REFERENCES spaces ON DELETE CASCADE,
    chan INTEGER NOT NULL,
    root INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    part INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    tag TEXT,
    crc INTEGER,
    data BLOB NOT NULL,
    PRIMARY KEY (space_pk, chan, root, seq, part)) WITHOUT ROWID""",
            """CREATE TABLE task_writes (
    space_pk INTEGER NOT NULL REFERENCES spaces ON DELETE CASCADE,
    rev INTEGER NOT NULL,
    task_id NOT NULL,
    slot INTEGER NOT NULL,
    part INTEGER NOT NULL,
    task_path TEXT,
    tag TEXT,
    crc INTEGER,
    data BLOB NOT NULL,
    PRIMARY KEY (space_pk, rev, task_id, slot, part)) WITHOUT ROWID""",
        ),
    ),
    Migration(
        2,
        "results beside checkpoints",
        (
            "ALTER TABLE checkpoints ADD COLUMN task_id",
            "ALTER TABLE checkpoints ADD COLUMN task_path TEXT",
            "ALTER TABLE checkpoints ADD COLUMN task_tag TEXT",
            "ALTER TABLE checkpoints ADD COLUMN task_crc INTEGER",
            "ALTER TABLE checkpoints ADD COLUMN task_data BLOB",
            "ALTER TABLE checkpoints ADD COLUMN row_crc INTEGER",
        ),
        (
            "CREATE TEMP VIEW checkpoints AS SELECT *, NULL AS task_id, NULL AS task_path, NULL AS task_tag, "
            "NULL AS task_crc, NULL AS task_data, NULL AS row_crc FROM main.checkpoints",
        ),
    ),
)
NEWEST: Final = MIGRATIONS[-1].version


def known_version(conn: Any, place: str) -> int:
    """The schema version of a file, 0 if nothing was stored in it yet. Changes nothing.

    Raises `SchemaVersionError` if it is not one that this library knows.
    """
    return _version(conn, place)


def migrate(conn: Any, place: str) -> None:
    """Bring a file to the newest schema. Raises `SchemaVersionError` and changes nothing if it cannot be."""
    if _version(conn, place) == NEWEST:
        return
    try:
        conn.execute("BEGIN EXCLUSIVE")
        # Another process may have done it while this one waited for the lock.
        version = _version(conn, place)
        if version == 0:
            conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            conn.execute(
                "CREATE TABLE schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT "
                "NULL, applied_at TEXT NOT NULL, library TEXT NOT NULL)"
            )
        for migration in MIGRATIONS[version:]:
            for statement in migration.statements:
                conn.execute(statement)
            conn.execute(
                "INSERT INTO schema_migrations (version, name, sha256, applied_at, library) VALUES (?, ?, ?, ?, ?)",
                (
                    migration.version,
                    migration.name,
                    migration.sha256,
                    datetime.now(UTC).isoformat(),
                    LIBRARY,
                ),
            )
            conn.execute(f"PRAGMA user_version = {migration.version}")
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def read_as_newest(conn: Any) -> None:
    """Let a connection that may only read see the tables of an older file as those of the newest schema."""
    (application,) = conn.execute("PRAGMA application_id").fetchone()
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID and 0 < version < NEWEST:
        conn.execute("PRAGMA query_only = OFF")
        for migration in MIGRATIONS[version:]:
            for view in migration.views:
                conn.execute(view)
        conn.execute("PRAGMA query_only = ON")


def _version(conn: Any, place: str) -> int:
    application = conn.execute("PRAGMA application_id").fetchone()[0]
    version: int = conn.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        ours = {"threads", "spaces", "checkpoints", "aliases", "payloads", "task_writes", "schema_migrations"}
        tables = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()}
        if application == 0 and not tables & ours:
            return 0
        taken = sorted(tables & ours)
        raise SchemaVersionError(
            f"{place} belongs to another program (application id {application:#x}, tables {taken}); its rows are not "
            f"read and not changed; give the saver a file of its own",
            found=version,
            supported=NEWEST,
        )
    if version > NEWEST:
        raise SchemaVersionError(
            f"{place} has schema version {version}, this library knows versions up to {NEWEST}; use the library that "
            f"wrote it, or a newer one",
            found=version,
            supported=NEWEST,
        )
    stored = conn.execute("SELECT version, sha256 FROM schema_migrations ORDER BY version").fetchall()
    known = [(migration.version, migration.sha256) for migration in MIGRATIONS[:version]]
    if [tuple(row) for row in stored] != known:
        raise SchemaVersionError(
            f"{place} says it has schema version {version}, but its migrations are not the ones of this library; it "
            f"was written by a different build",
            found=version,
            supported=NEWEST,
        )
    return version


def check_sqlite() -> None:
    """Raises `RuntimeError` if the SQLite library lacks what the statements need."""
    if sqlite3.sqlite_version_info < (3, 35, 0):
        raise RuntimeError(
            f"SQLite {sqlite3.sqlite_version} is too old for the checkpoint saver; it needs 3.35 or newer"
        )
