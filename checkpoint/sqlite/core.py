"""The SQL, as plain functions on a connection, and the same as `Rows` and `Transaction`.

Decides statements, the parts of large bodies, checksums, and what a missed claim means. Knows no threads, locks, files
or loops: `saver` calls it. A connection is anything with `execute`, `executemany` and `in_transaction` of
`sqlite3.Connection`.

Invariants
1. Every statement binds its values; no stored or given text becomes SQL.
2. `store` leaves either all rows of its steps or none; claims and heads are checked inside its transaction.
3. A checksum is seeded with the place of its body, so a body that was moved does not check out.

Statements and their letters (T, C, G, S, H, E, P, K, W) are those of storage.md C5.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, ParamSpec, TypeVar, cast
from zlib import crc32

from ormsgpack import packb

from checkpoint import ids
from checkpoint.base import (
    N_BITS,
    CheckpointConflictError,
    CheckpointNotFoundError,
    Claim,
    CorruptCheckpointError,
    check_number,
)
from checkpoint.chains import (
    PARENT_PRUNED,
    PARENT_REV,
    STUB,
    THINNED,
    CheckpointRow,
    Codec,
    EncodedStep,
    PayloadRow,
    PlainCheckpoint,
    PlainWrite,
    StoredChain,
    WriteRow,
    check_line,
    seal,
)
from checkpoint.encryption import EncryptedRows
from checkpoint.ids import id_to_bytes
from checkpoint.retention import Keeper, Line, SpaceRow
from checkpoint.rows import Address, Entry, Found, Head, parent_gone, relies_on, thread_deleted
from checkpoint.sqlite.leases import Lease, Terms

P = ParamSpec("P")
T = TypeVar("T")

PART: Final = 800
"""Bytes of a part: with a task path a row of it still fits a 4 KiB page without overflow pages."""
PARTED_LIMIT: Final = 8192
"""A larger body is one row again, up to twice `LARGE_PART`: its overflow pages waste little."""
RESULT_LIMIT: Final = 400
"""Bytes of a task's writes that have a place in a checkpoint's row: with a short header and metadata, and a path of up
to `PATH_LIMIT`, that still fits without overflow pages."""
PATH_LIMIT: Final = 128
LARGE_PART: Final = 8 * 4092 + 600
"""Bytes of a part of a body of more than twice that: eight overflow pages, and what fits beside the key. SQLite reads a
whole row to compare its key, so the place of a small row is found by reading some of these."""
CHANNELS_PER_STATEMENT: Final = 1000
BIG_DELETE: Final = 5000
"""Rows of a thread above which they are removed in several transactions."""
DELETE_BATCH: Final = 2000
RUNS_PER_STATEMENT: Final = 500
PAGES_AT_ONCE: Final = 500
_INCREMENTAL: Final = 2

_MASK: Final = 0xFFFFFFFF

_TAKE_NEW = (
    "INSERT INTO threads (thread_id, salt, claims, epoch, created_at, claimed_at, lease_owner, lease_until) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
# `claims` may have moved since the load: lanes take numbers. A claim and a lane may have the same one, since their revs
# differ in the lane bit.
_CLAIM = (
    "UPDATE threads SET claims = max(claims, ?), epoch = ?, claimed_at = ?, lease_owner = ?, lease_until = ? "
    "WHERE thread_pk = ? AND epoch = ? AND lease_until IS ? AND thread_id IS NOT NULL "
    "AND (SELECT head_rev FROM spaces WHERE thread_pk = ? AND ns = '') IS ?"
)
_CLAIM_AGAIN = "UPDATE threads SET claims = max(claims, ?), epoch = ? WHERE thread_pk = ? AND epoch = ?"
_LEASE = "UPDATE threads SET lease_owner = ?, lease_until = ? WHERE thread_pk = ? AND epoch = ?"
_LANE = "UPDATE threads SET claims = claims + 1 WHERE thread_pk = ? RETURNING claims"
_THERE = "SELECT 1 FROM threads WHERE thread_pk = ? AND thread_id IS NOT NULL"
_GUARD = "SELECT 1 FROM threads WHERE thread_pk = ? AND epoch = ?"
_NEW_SPACE = "INSERT INTO spaces (thread_pk, ns, head_rev) VALUES (?, ?, ?)"
# A lane may have made it: then it has no head.
_FIRST_HEAD = "UPDATE spaces SET head_rev = ? WHERE thread_pk = ? AND ns = ? AND head_rev IS NULL"
_SPACE = "SELECT space_pk FROM spaces WHERE thread_pk = ? AND ns = ?"
_ALIAS = "INSERT INTO aliases (space_pk, id, rev) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET rev = excluded.rev"
_HEAD = (
    "UPDATE spaces SET head_rev = ? WHERE space_pk = ? AND head_rev IS ? "
    "AND thread_pk = (SELECT thread_pk FROM threads WHERE thread_pk = ? AND epoch = ?)"
)
_FORKED = "UPDATE threads SET claims = claims + 1 WHERE thread_pk = ?"
_HAS_ROW = "SELECT 1 FROM payloads WHERE space_pk = ? AND chan = ? AND root = ? AND seq = ? AND part = 0"
_HAS_REV = (
    "SELECT 1 FROM spaces s JOIN checkpoints c ON c.space_pk = s.space_pk AND c.rev = ? "
    "WHERE s.thread_pk = ? AND c.flags & 1 = 0 LIMIT 1"
)
_EXISTS = "SELECT 1 FROM checkpoints WHERE space_pk = ? AND rev = ? AND flags & 1 = 0"
_PAYLOAD = (
    "INSERT INTO payloads (space_pk, chan, root, seq, part, kind, tag, crc, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_CHECKPOINT = (
    "INSERT INTO checkpoints (space_pk, rev, id, parent_rev, parent_id, up_rev, ts, step, source, flags, run_id, "
    "header_root, crc, header, metadata, row_crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_CHECKPOINT_WITH_RESULT = _CHECKPOINT.replace(
    "row_crc) VALUES (", "row_crc, task_id, task_path, task_tag, task_crc, task_data) VALUES (?, ?, ?, ?, ?, "
)
_NO_COLUMNS: Final = (None,) * 5
_ROW: Final = "id, parent_rev, parent_id, up_rev, ts, step, source, flags, run_id, header_root"
_ROW_COLUMNS: Final = tuple(_ROW.split(", "))
_SELECT_ROW = f"SELECT {_ROW}, row_crc FROM checkpoints WHERE space_pk = ? AND rev = ?"
_PUT_CHECKPOINT = f"{_CHECKPOINT} ON CONFLICT DO UPDATE SET " + ", ".join(
    f"{column} = excluded.{column}" for column in (*_ROW_COLUMNS, "crc", "header", "metadata", "row_crc")
)
# The first writes of a task stay, whichever table has them.
_TASK = (
    "INSERT INTO task_writes (space_pk, rev, task_id, slot, part, task_path, tag, crc, data) "
    "SELECT ?, ?, ?, ?, ?, ?, ?, ?, ? "
    "WHERE NOT EXISTS (SELECT 1 FROM checkpoints WHERE space_pk = ? AND rev = ? AND task_id = ?) ON CONFLICT DO NOTHING"
)
_RESULT = (
    "UPDATE checkpoints SET task_id = ?, task_path = ?, task_tag = ?, task_crc = ?, task_data = ? "
    f"WHERE space_pk = ? AND rev = ? AND task_id IS NULL AND flags & {STUB} = 0 AND NOT EXISTS "
    "(SELECT 1 FROM task_writes WHERE space_pk = ? AND rev = ? AND task_id = ? AND slot = 0)"
)
_RESULT_COLUMNS: Final = ("task_id", "task_path", "task_tag", "task_crc", "task_data")
_NO_RESULT = f"UPDATE checkpoints SET {', '.join(f'{column} = NULL' for column in _RESULT_COLUMNS)}"
_DROP_RESULT = f"{_NO_RESULT} WHERE space_pk = ? AND rev = ? AND task_id IS NOT NULL"
_DROP_RESULT_OF = f"{_NO_RESULT} WHERE space_pk = ? AND rev = ? AND task_id = ?"
_DROP_RESULTS = "DELETE FROM task_writes WHERE space_pk = ? AND rev = ? AND slot = 0"
_DROP_TASK = "DELETE FROM task_writes WHERE space_pk = ? AND rev = ? AND task_id = ? AND slot = ?"


# ---- values of columns


def of_their_types(method: Callable[P, T]) -> Callable[P, T]:
    """For what puts rows together and calls nothing else: values of types that a column never has are damage.

    One bit makes a number a text, and a page in the place of another one has other columns; both are sound to SQLite.
    """

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (TypeError, ValueError, AttributeError) as error:
            raise CorruptCheckpointError(f"rows hold values that their columns cannot have ({error})") from error

    return call


def check_time(ts: int | str) -> None:
    """Raise `ValueError` for microseconds that are no time of a calendar."""
    if type(ts) is not str and not -62_135_596_800_000_000 <= ts < 253_402_300_800_000_000:  # type: ignore[operator]
        raise ValueError(f"{ts} in the place of a time")


def id_column(text: str) -> bytes | str:
    """16 bytes for a canonical UUID text, else the text."""
    return id_to_bytes(text) or text


def id_text(stored: bytes | str) -> str:
    """The text of an id column. Raises `CorruptCheckpointError` if it holds something else."""
    if isinstance(stored, str):
        return stored
    if type(stored) is not bytes:
        raise CorruptCheckpointError(f"a row has {stored!r:.50} for an id: it is one of another table")
    return ids.id_from_bytes(stored)


def _text(stored: bytes | None) -> str | None:
    """A text read as bytes; whether it is damaged is found out later, by its checksum."""
    return None if stored is None else stored.decode("utf-8", "replace")


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))


def _part_size(n_bytes: int) -> int | None:
    """Bytes of a part of such a body; None if it is one row."""
    if n_bytes <= PARTED_LIMIT:
        return PART if n_bytes > PART else None
    return LARGE_PART if n_bytes > 2 * LARGE_PART else None


def _parts(data: bytes) -> Sequence[bytes | memoryview]:
    size = _part_size(len(data))
    if size is None:
        return [data]
    # Not copied before SQLite does that, part by part: a copy of all would take long, in one go.
    view = memoryview(data)
    return [view[at : at + size] for at in range(0, len(data), size)]


def header_crc(rev: int, header: bytes, metadata: str | bytes | None) -> int:
    """Checksum of a header and the metadata beside it, in its place."""
    crc = crc32(header, rev & _MASK)
    if metadata is None:
        return crc
    return crc32(metadata if isinstance(metadata, bytes) else metadata.encode("utf-8", "surrogatepass"), crc)


def header_damage(rev: int) -> str:
    """What to say if it does not match."""
    return f"header or metadata of revision {rev} has a wrong checksum"


def row_crc(rev: int, columns: Sequence[Any]) -> int:
    """Checksum of `_ROW_COLUMNS` as they are stored, in their place."""
    return crc32(packb(columns), rev & _MASK)


def task_crc(rev: int, slot: int, task: bytes | str, path: str | None, tag: str | None, body: bytes) -> int:
    """Checksum of a task row in its place. `task`: as it is stored."""
    return crc32(body, crc32(packb((task, path or "", tag)), (rev ^ slot) & _MASK))


def is_task_sound(
    crc: int | None, rev: int, slot: int, task: bytes | str, path: str | None, tag: str | None, body: bytes
) -> bool:
    """Does a task row have its checksum? That of rows of version 1 is of place and body alone."""
    return crc == task_crc(rev, slot, task, path, tag, body) or crc == crc32(body, (rev ^ slot) & _MASK)


def row_damage(rev: int) -> str:
    """What to say if it does not match."""
    return f"the row of revision {rev} has a wrong checksum"


def _checkpoint_columns(space_pk: int, row: PlainCheckpoint) -> tuple[Any, ...]:
    rev, own_id, parent_rev, parent_id, up_rev, ts, step, source, flags, run_id, root, header, metadata = row
    if parent_id is not None:
        parent_id = id_column(parent_id)  # type: ignore[assignment]
    columns = id_to_bytes(own_id) or own_id, parent_rev, parent_id, up_rev, ts, step, source, flags, run_id, root
    crc = header_crc(rev, header, metadata)
    return (space_pk, rev, *columns, crc, header, metadata, row_crc(rev, columns))


def amend(conn: Any, space_pk: int, rev: int, **changes: Any) -> None:
    """Change columns of a checkpoint's row, and its checksum with them. A row that does not check out will not do so
    afterwards."""
    found = conn.execute(_SELECT_ROW, (space_pk, rev)).fetchone()
    if found is None:
        return
    *before, seal = found
    if seal is None or seal == row_crc(rev, before):
        after = {**dict(zip(_ROW_COLUMNS, before, strict=True)), **changes}
        changes["row_crc"] = row_crc(rev, [after[column] for column in _ROW_COLUMNS])
    columns = ", ".join(f"{column} = ?" for column in changes)
    conn.execute(f"UPDATE checkpoints SET {columns} WHERE space_pk = ? AND rev = ?", (*changes.values(), space_pk, rev))


# ---- writing


def store(
    conn: Any, steps: Sequence[EncodedStep], codec: Codec, terms: Terms | None = None, keeper: Keeper | None = None
) -> None:
    """Write steps of one claim in one transaction, and let `keeper` remove what need not stay any more. The connection
    must have no transaction open. `terms`: of the lease that the run has with its claim, if any.


    Raises `ThreadBusyError` (another process has a lease), `CheckpointConflictError` (claim or head missed),
    `ThreadDeletedError`, `CheckpointNotFoundError`, or what SQLite raises; nothing is stored then. On return the claim
    is held and the keys of new namespaces are known.
    """
    execute = conn.execute
    written: tuple[int, dict[str, int]] | None = None
    lease: Lease | None = None
    try:
        execute("BEGIN IMMEDIATE")  # in here: an interrupt can come when it is done
        lease = terms.lease(steps) if terms is not None else None
        if len(steps) == 1 and lease is None and _is_superstep(steps[0]):
            written = _write_superstep(conn, execute, steps[0], codec)
        elif steps[0].claim.lane:
            written = _write_lane(conn, steps, codec)
        else:
            written = _write_steps(conn, execute, steps, codec, lease)
        if keeper is not None:
            rows = Writer(conn)
            tx = rows if codec.encrypting is None else cast("Writer", EncryptedRows(rows, codec.encrypting))
            keeper.after(tx, written[0], steps[0].claim, steps, time.time())
        execute("COMMIT")
        _settle_claim(steps, *written, lease)
    except BaseException as error:
        steps[0].claim.upkeep = None
        if conn.in_transaction:
            execute("ROLLBACK")
        elif written is not None and not isinstance(error, Exception):
            # An interrupt that arrived when the commit was done already: the steps are stored.
            _settle_claim(steps, *written, lease)
        raise


def _settle_claim(
    steps: Sequence[EncodedStep], thread_pk: int, space_pks: Mapping[str, int], lease: Lease | None
) -> None:
    claim = steps[0].claim
    if not claim.lane:
        if not claim.claimed:
            claim.thread_pk = thread_pk
            claim.claimed = True
            claim.lease = None
        claim.epoch = claim.number
        if lease is not None:
            claim.lease = lease.until
    for step in steps:
        step.stored = True
        if step.space.pk is None:
            step.space.pk = space_pks[step.space.ns]


def _is_superstep(step: EncodedStep) -> bool:
    """Is it the next checkpoint of a root namespace that is stored, by the claim that holds its thread?"""
    claim, space = step.claim, step.space
    return (
        claim.claimed
        and claim.number == claim.epoch
        and not claim.lane
        and step.rev is not None
        and space.pk is not None
        and not space.ns
        and step.must_exist is None
        and step.settled is None
    )


def _write_superstep(conn: Any, execute: Any, step: EncodedStep, codec: Codec) -> tuple[int, dict[str, int]]:
    """What nearly all transactions are (storage.md C5.1, "superstep"): H, a result, P, K, W. As `_write_steps`."""
    claim, space_pk = step.claim, step.space.pk
    if execute(_HEAD, (step.rev, space_pk, step.expected, claim.thread_pk, claim.number)).rowcount != 1:
        raise refusal(conn, step)
    row = seal(step, codec)
    assert row is not None
    assert claim.thread_pk is not None
    writes = step.writes
    if writes and _is_result(writes[-1], row):
        result, parent = _result_columns(writes[-1]), (space_pk, row[PARENT_REV])
        if execute(_RESULT, (*result, *parent, *parent, result[0])).rowcount == 1:
            writes = writes[:-1]
    try:
        if step.payloads:
            _insert(conn, _PAYLOAD, _payload_rows(space_pk, step.payloads))
        execute(_CHECKPOINT, _checkpoint_columns(space_pk, row))
    except sqlite3.IntegrityError as error:
        raise _clash(step, error) from error
    if writes:
        add_writes(conn, space_pk, writes)
    return claim.thread_pk, {}


def _clash(step: EncodedStep, error: sqlite3.IntegrityError) -> CorruptCheckpointError:
    # The tip rule makes every key unique: a clash means that rows are there which no header knows.
    return CorruptCheckpointError(
        f"a row of step {step.commit.step} exists already ({error})",
        thread_id=step.claim.thread_id,
        ns=step.space.ns,
    )


def _write_steps(
    conn: Any, execute: Any, steps: Sequence[EncodedStep], codec: Codec, lease: Lease | None
) -> tuple[int, dict[str, int]]:
    """Everything between BEGIN and COMMIT, whatever is written. Returns the keys of the thread and of new namespaces."""
    first = steps[0]
    claim = first.claim
    thread_pk = claim.thread_pk
    begins = guarded = not claim.claimed
    if begins:
        thread_pk = _take_claim(conn, first, lease)
    else:
        if claim.number != claim.epoch:
            if execute(_CLAIM_AGAIN, (claim.number, claim.number, thread_pk, claim.epoch)).rowcount != 1:
                raise refusal(conn, first)
            guarded = True
        if lease is not None:
            guarded = execute(_LEASE, (lease.owner, lease.until, thread_pk, claim.number)).rowcount == 1
    assert thread_pk is not None

    # Heads: one statement per namespace, however many steps of it there are: what the first expects, what the last is.
    space_pks: dict[str, int] = {}
    moves: dict[str, tuple[EncodedStep, int]] = {}
    for step in steps:
        if step.rev is not None:
            ns = step.space.ns
            moves[ns] = (moves[ns][0] if ns in moves else step), step.rev
    for step, rev in moves.values():
        if step.space.pk is not None:
            if execute(_HEAD, (rev, step.space.pk, step.expected, thread_pk, claim.number)).rowcount != 1:
                raise refusal(conn, step)
            guarded = True
    if not guarded and execute(_GUARD, (thread_pk, claim.number)).fetchone() is None:
        raise refusal(conn, first)
    for step, rev in moves.values():
        if step.space.pk is None:
            try:
                space_pks[step.space.ns] = execute(_NEW_SPACE, (thread_pk, step.space.ns, rev)).lastrowid
            except sqlite3.IntegrityError:
                if execute(_FIRST_HEAD, (rev, thread_pk, step.space.ns)).rowcount != 1:
                    raise refusal(conn, step) from None
                space_pks[step.space.ns] = execute(_SPACE, (thread_pk, step.space.ns)).fetchone()[0]
    _write_rows(conn, execute, steps, codec, thread_pk, space_pks)
    if begins:
        _write_aliases(conn, steps, space_pks)
    return thread_pk, space_pks


def _write_lane(conn: Any, steps: Sequence[EncodedStep], codec: Codec) -> tuple[int, dict[str, int]]:
    """As `_write_steps`, for a lane: no claim is asked for, and no head moves."""
    thread_pk: int = steps[0].claim.thread_pk  # type: ignore[assignment]
    if conn.execute(_THERE, (thread_pk,)).fetchone() is None:
        raise thread_deleted(steps[0])
    space_pks: dict[str, int] = {}
    made: set[int] = set()
    for step in steps:
        if step.rev is None:
            continue
        space, parent = step.space, step.commit.parent_rev
        if space.pk is None and space.ns not in space_pks:
            known = conn.execute(_SPACE, (thread_pk, space.ns)).fetchone()
            made_pk = known[0] if known is not None else conn.execute(_NEW_SPACE, (thread_pk, space.ns, None)).lastrowid
            space_pks[space.ns] = made_pk
        if parent is not None and parent not in made:
            step.must_exist = parent
            if parent >> N_BITS != step.rev >> N_BITS:
                space_pk = space.pk if space.pk is not None else space_pks[space.ns]
                # What it shares may have been stored anew since it was loaded.
                if not all(conn.execute(_HAS_ROW, (space_pk, *ref)).fetchone() for ref in space.header.chains()):
                    raise parent_gone(step)
        made.add(step.rev)
    if made:
        # So that who has planned what to remove looks again: this may need it.
        conn.execute(_FORKED, (thread_pk,))
    steps = [step for step in steps if step.rev is not None or step.writes]
    if steps:
        _write_rows(conn, conn.execute, steps, codec, thread_pk, space_pks)
        _write_aliases(conn, steps, space_pks)
    return thread_pk, space_pks


def _write_aliases(conn: Any, steps: Sequence[EncodedStep], space_pks: Mapping[str, int]) -> None:
    """Make checkpoints findable whose ids were made for other revs, or for another salt."""
    for step in steps:
        checkpoint_id = step.commit.checkpoint_id
        if step.rev is not None and ids.rev_of(checkpoint_id, step.claim.salt) != step.rev:
            space_pk = step.space.pk if step.space.pk is not None else space_pks[step.space.ns]
            conn.execute(_ALIAS, (space_pk, id_column(checkpoint_id), step.rev))


def _write_rows(
    conn: Any,
    execute: Any,
    steps: Sequence[EncodedStep],
    codec: Codec,
    thread_pk: int,
    space_pks: Mapping[str, int],
) -> None:
    """The rows of steps, after everything that may refuse the claim."""
    claim = steps[0].claim
    payloads: list[tuple[Any, ...]] = []
    checkpoints: list[tuple[Any, ...]] = []
    whole: list[tuple[Any, ...]] = []
    places: dict[tuple[Any, ...], int] = {}
    """Of the checkpoints of this batch: where they are in it, by (space, rev)."""
    results: dict[int, tuple[Any, ...]] = {}
    """What goes into their rows besides."""
    for step in steps:
        space_pk = step.space.pk
        if space_pk is None:
            space_pk = _space_pk(conn, step, thread_pk, space_pks)
        if step.must_exist is not None and execute(_EXISTS, (space_pk, step.must_exist)).fetchone() is None:
            raise parent_gone(step)
        for needed in relies_on(step) if step.space.ns or claim.lane else ():
            is_there = execute(_HAS_REV, (needed, thread_pk)).fetchone() is not None
            if not is_there and all(other.rev != needed for other in steps):
                raise parent_gone(step)
        row = seal(step, codec)
        payloads += _payload_rows(space_pk, step.payloads)
        writes = step.writes
        if row is not None:
            if writes and _is_result(writes[-1], row) and not claim.lane:
                result = _result_columns(writes[-1])
                parent = space_pk, row[PARENT_REV]
                at = places.get(parent)
                if at is not None:
                    results[at] = result
                    writes = writes[:-1]
                elif execute(_RESULT, (*result, *parent, *parent, result[0])).rowcount == 1:
                    writes = writes[:-1]
            places[space_pk, row[0]] = len(checkpoints)
            checkpoints.append(_checkpoint_columns(space_pk, row))
        if writes:
            _write_tasks(conn, space_pk, writes, whole)
        if step.settled is not None:
            if whole:
                # They may be those that are dropped: with a lag, a step's flush and its end come in one transaction.
                _insert(conn, _TASK, whole)
                whole.clear()
            execute(_DROP_RESULTS, (space_pk, step.settled))
            execute(_DROP_RESULT, (space_pk, step.settled))
    try:
        if payloads:
            _insert(conn, _PAYLOAD, payloads)
        if results:
            rows = [(*row, *results.get(at, _NO_COLUMNS)) for at, row in enumerate(checkpoints)]
            conn.executemany(_CHECKPOINT_WITH_RESULT, rows)
        elif checkpoints:
            _insert(conn, _CHECKPOINT, checkpoints)
    except sqlite3.IntegrityError as error:
        raise _clash(steps[0], error) from error
    if whole:
        _insert(conn, _TASK, whole)


def _is_result(write: PlainWrite, row: PlainCheckpoint) -> bool:
    """Has a task row a place in the row of the checkpoint that its task ran from? `row`: of the step's end."""
    rev, _, slot, path, _, body = write
    return slot == 0 and rev == row[PARENT_REV] and len(body) <= RESULT_LIMIT and len(path) <= PATH_LIMIT


def _result_columns(write: PlainWrite) -> tuple[Any, ...]:
    rev, task, _, path, tag, body = write
    task_id = id_to_bytes(task) or task
    return task_id, path, tag, task_crc(rev, 0, task_id, path, tag, body), body


def _take_claim(conn: Any, first: EncodedStep, lease: Lease | None) -> int:
    """The thread's key, after this claim has become its holder; makes a new thread."""
    claim = first.claim
    if claim.busy is not None:
        raise claim.busy
    check_number(claim.thread_id, claim.number)
    now = time.time()
    owner, until = (lease.owner, lease.until) if lease is not None else (None, None)
    number, thread_pk = claim.number, claim.thread_pk
    if thread_pk is None:
        values_of_new = claim.thread_id, claim.salt, number, number, now, now, owner, until
        try:
            made: int = conn.execute(_TAKE_NEW, values_of_new).lastrowid
        except sqlite3.IntegrityError:
            # Whose time is over was not there when the run loaded it.
            if retire_expired(conn, claim.thread_id, now):
                made = conn.execute(_TAKE_NEW, values_of_new).lastrowid
                return made
            found = conn.execute(
                "SELECT thread_pk, salt FROM threads WHERE thread_id = ? AND epoch = 0", (claim.thread_id,)
            ).fetchone()
            if found is None:
                raise refusal(conn, first) from None
            # Nobody has claimed it: a lane made it.
            thread_pk, claim.salt = found
            claim.thread_pk = thread_pk
        else:
            return made
    values = number, number, now, owner, until, thread_pk, claim.epoch, claim.lease, thread_pk, claim.root_head
    if conn.execute(_CLAIM, values).rowcount != 1:
        raise refusal(conn, first)
    return thread_pk


def give_up_lease(conn: Any, claim: Claim) -> None:
    """End the lease of a claim, in a transaction of its own."""
    conn.execute(_LEASE, (None, None, claim.thread_pk, claim.number))


def _space_pk(conn: Any, step: EncodedStep, thread_pk: int, space_pks: Mapping[str, int]) -> int:
    known = space_pks.get(step.space.ns)
    if known is None:
        raise CheckpointNotFoundError(
            f"thread {step.claim.thread_id!r}: task writes of step {step.commit.step} belong to namespace "
            f"{step.space.ns!r}, which has no checkpoint; commit its first checkpoint before them",
            thread_id=step.claim.thread_id,
        )
    return known


def _payload_rows(space_pk: int, payloads: Sequence[PayloadRow]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for number, root, seq, kind, tag, data in payloads:
        crc = crc32(data, (root ^ seq) & _MASK)
        if len(data) <= PART:
            rows.append((space_pk, number, root, seq, 0, kind, tag, crc, data))
        else:
            rows += _parted_payload(space_pk, number, root, seq, kind, tag, crc, data)
    return rows


def _parted_payload(
    space_pk: int, number: int, root: int, seq: int, kind: int, tag: str | None, crc: int, data: bytes
) -> list[tuple[Any, ...]]:
    return [
        (space_pk, number, root, seq, part, kind, None if part else tag, None if part else crc, piece)
        for part, piece in enumerate(_parts(data))
    ]


def _insert(conn: Any, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if len(rows) == 1:
        conn.execute(statement, rows[0])
    else:
        conn.executemany(statement, rows)


def add_writes(conn: Any, space_pk: int, writes: Sequence[PlainWrite], *, replace: bool = False) -> None:
    """Insert task rows: slot 0 stays as it is stored unless `replace`, slots below 0 are replaced."""
    whole: list[tuple[Any, ...]] = []
    _write_tasks(conn, space_pk, writes, whole, replace=replace)
    if whole:
        _insert(conn, _TASK, whole)


def _write_tasks(
    conn: Any, space_pk: int, writes: Sequence[PlainWrite], whole: list[tuple[Any, ...]], *, replace: bool = False
) -> None:
    """Add task rows to `whole`, to be inserted together; those that take more statements are stored at once."""
    for rev, task, slot, path, tag, body in writes:
        task_id = id_column(task)
        crc = task_crc(rev, slot, task_id, path, tag, body)
        in_parts = _part_size(len(body)) is not None
        if whole and (slot or replace or in_parts):
            # Which row of a key stays depends on their order.
            _insert(conn, _TASK, whole)
            whole.clear()
        if slot or replace:
            drop_task(conn, space_pk, rev, task_id, slot)
        # In a checkpoint's row there are regular writes alone.
        elsewhere = space_pk, rev, None if slot else task_id
        if in_parts:
            _write_parted_task(conn, (space_pk, rev, task_id, slot), path, tag, crc, body, elsewhere)
        else:
            whole.append((space_pk, rev, task_id, slot, 0, path, tag, crc, body, *elsewhere))


def _write_parted_task(
    conn: Any,
    key: tuple[Any, ...],
    path: str | None,
    tag: str | None,
    crc: int,
    body: bytes,
    elsewhere: tuple[Any, ...],
) -> None:
    pieces = _parts(body)
    # Part 0 decides whether this body is the first one.
    if conn.execute(_TASK, (*key, 0, path, tag, crc, pieces[0], *elsewhere)).rowcount == 1:
        rest = [(*key, part, None, None, None, piece, *elsewhere) for part, piece in enumerate(pieces) if part]
        _insert(conn, _TASK, rest)


def drop_task(conn: Any, space_pk: int, rev: int, task_id: Any, slot: int) -> None:
    """Remove one task row; the id as it is stored."""
    conn.execute(_DROP_TASK, (space_pk, rev, task_id, slot))
    if not slot:
        conn.execute(_DROP_RESULT_OF, (space_pk, rev, task_id))


def refusal(conn: Any, step: EncodedStep) -> CheckpointConflictError:
    """Why a claim or head was missed."""
    claim, space = step.claim, step.space
    thread = conn.execute("SELECT thread_pk FROM threads WHERE thread_id = ?", (claim.thread_id,)).fetchone()
    if claim.thread_pk is not None and (thread is None or thread[0] != claim.thread_pk):
        return thread_deleted(step)
    expected = step.expected if step.rev is not None else space.head
    found = conn.execute(
        "SELECT s.head_rev, h.id, e.id FROM threads t JOIN spaces s USING (thread_pk) "
        "LEFT JOIN checkpoints h ON h.space_pk = s.space_pk AND h.rev = s.head_rev "
        "LEFT JOIN checkpoints e ON e.space_pk = s.space_pk AND e.rev = ? WHERE t.thread_id = ? AND s.ns = ?",
        (expected, claim.thread_id, space.ns),
    ).fetchone()
    _, actual_id, expected_id = found if found is not None else (None, None, None)
    return CheckpointConflictError(
        thread_id=claim.thread_id,
        ns=space.ns,
        expected=None if expected_id is None else id_text(expected_id),
        actual=None if actual_id is None else id_text(actual_id),
        run_id=step.commit.run_id,
    )


# ---- reading


class Reader:
    """`Rows` over a connection; one consistent view if the connection is inside a transaction."""

    __slots__ = ("conn",)

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    def address(self, thread_id: str, ns: str) -> Address | None:
        """As `Rows.address`."""
        row = self.conn.execute(
            "SELECT t.thread_pk, t.salt, t.epoch, t.claims, s.space_pk, s.head_rev, r.head_rev, "
            "t.lease_owner, t.lease_until FROM threads t "
            "LEFT JOIN spaces s ON s.thread_pk = t.thread_pk AND s.ns = ? "
            "LEFT JOIN spaces r ON r.thread_pk = t.thread_pk AND r.ns = '' WHERE t.thread_id = ? "
            "AND (t.expires_at IS NULL OR t.expires_at > ?)",
            (ns, thread_id, time.time()),
        ).fetchone()
        return None if row is None else Address(*row)

    def place(self, space_pk: int) -> tuple[int, str]:
        """As `Rows.place`."""
        row = self.conn.execute(
            "SELECT t.salt, s.ns FROM spaces s JOIN threads t ON t.thread_pk = s.thread_pk WHERE s.space_pk = ?",
            (space_pk,),
        ).fetchone()
        if row is None:
            raise CorruptCheckpointError(f"namespace {space_pk} has no row")
        return row[0], row[1]

    def header_before(self, space_pk: int, header_root: int, rev: int) -> int | None:
        """As `Rows.header_before`."""
        found: int | None = self.conn.execute(
            "SELECT max(rev) FROM checkpoints WHERE space_pk = ? AND rev >= ? AND rev < ? AND header_root = ?",
            (space_pk, header_root, rev, header_root),
        ).fetchone()[0]
        return found

    def all_spaces(self, thread_id: str | None) -> list[int]:
        """As `Rows.all_spaces`."""
        statement = "SELECT s.space_pk FROM spaces s JOIN threads t USING (thread_pk) WHERE t.thread_id IS NOT NULL"
        if thread_id is not None:
            return [pk for (pk,) in self.conn.execute(f"{statement} AND t.thread_id = ?", (thread_id,)).fetchall()]
        return [pk for (pk,) in self.conn.execute(statement).fetchall()]

    def has_space(self, space_pk: int) -> bool:
        """As `Rows.has_space`."""
        found = self.conn.execute(
            "SELECT 1 FROM spaces s JOIN threads t USING (thread_pk) WHERE s.space_pk = ? AND t.thread_id IS NOT NULL",
            (space_pk,),
        ).fetchone()
        return found is not None

    def checkpoint(self, space_pk: int, rev: int) -> Found | None:
        """As `Rows.checkpoint`."""
        return self.checkpoints(space_pk, [rev]).get(rev)

    def checkpoints(self, space_pk: int, revs: Sequence[int]) -> dict[int, Found]:
        """As `Rows.checkpoints`."""
        rows = self.conn.execute(
            # Metadata as bytes: damaged, they need not be a text.
            "SELECT c.rev, c.header, c.crc, CAST(c.metadata AS BLOB), c.parent_rev, c.flags, t.id, t.parent_id, "
            "t.up_rev, t.ts, t.step, t.source, t.run_id, t.header_root, t.row_crc, p.id, p.flags, t.rev FROM checkpoints t "
            "JOIN checkpoints c ON c.space_pk = t.space_pk AND c.rev BETWEEN t.header_root AND t.rev "
            "AND c.header_root = t.header_root "
            "LEFT JOIN checkpoints p ON c.rev = t.rev AND p.space_pk = t.space_pk AND p.rev = t.parent_rev "
            f"WHERE t.space_pk = ? AND t.rev IN ({_marks(revs)}) ORDER BY t.rev, c.rev",
            (space_pk, *revs),
        ).fetchall()
        found = ((rev, self._found(rev, [row[:-1] for row in own])) for rev, own in groupby(rows, itemgetter(-1)))
        return {rev: one for rev, one in found if one is not None}

    def heads(self, after: int | None, limit: int) -> list[Head]:
        """As `Rows.heads`."""
        rows = self.conn.execute(
            "SELECT t.thread_id, t.thread_pk, t.salt, t.epoch, t.claims, s.space_pk, s.head_rev, s.head_rev, "
            "t.lease_owner, t.lease_until FROM threads t JOIN spaces s ON s.thread_pk = t.thread_pk AND s.ns = '' "
            "WHERE t.thread_pk > ? AND t.thread_id IS NOT NULL AND (t.expires_at IS NULL OR t.expires_at > ?) "
            "AND s.head_rev IS NOT NULL ORDER BY t.thread_pk LIMIT ?",
            (-1 if after is None else after, time.time(), limit),
        ).fetchall()
        return [Head(row[1], row[0], Address(*row[1:])) for row in rows]

    def checkpoints_at(self, places: Sequence[tuple[int, int]]) -> dict[int, Found]:
        """As `Rows.checkpoints_at`."""
        rows = self.conn.execute(
            f"WITH want (space, at) AS (VALUES {','.join(['(?,?)'] * len(places))}) "
            "SELECT c.rev, c.header, c.crc, CAST(c.metadata AS BLOB), c.parent_rev, c.flags, t.id, t.parent_id, "
            "t.up_rev, t.ts, t.step, t.source, t.run_id, t.header_root, t.row_crc, p.id, p.flags, t.rev, t.space_pk "
            "FROM want CROSS JOIN checkpoints t ON t.space_pk = want.space AND t.rev = want.at "
            "JOIN checkpoints c ON c.space_pk = t.space_pk AND c.rev BETWEEN t.header_root AND t.rev "
            "AND c.header_root = t.header_root "
            "LEFT JOIN checkpoints p ON c.rev = t.rev AND p.space_pk = t.space_pk AND p.rev = t.parent_rev "
            "ORDER BY t.space_pk, c.rev",
            [number for place in places for number in place],
        ).fetchall()
        groups = ((space_pk, list(own)) for space_pk, own in groupby(rows, itemgetter(-1)))
        found = ((space_pk, self._found(own[0][-2], [row[:-2] for row in own])) for space_pk, own in groups)
        return {space_pk: one for space_pk, one in found if one is not None}

    @of_their_types
    def _found(self, rev: int, rows: list[Any]) -> Found | None:
        if not rows:
            # The row itself always matches, unless its header chain is damaged.
            return None
        _, header, _, metadata, parent_rev, flags, own, *more = rows[-1]
        parent, up_rev, ts, step, source, run_id, root, seal, above, flags_above = more
        if flags & STUB:
            return None
        check_time(ts)
        if type(step) is not int:
            raise TypeError(f"{step!r:.50} in the place of a step")
        checkpoint_id = id_text(own)
        columns = own, parent_rev, parent, up_rev, ts, step, source, flags, run_id, root
        if seal is not None and seal != row_crc(rev, columns):
            raise CorruptCheckpointError(row_damage(rev), checkpoint_id=checkpoint_id)
        headers: list[tuple[int, bytes]] = []
        revs: set[int] = set()
        for at, its_header, crc, its_metadata, its_parent, its_flags, *_ in rows:
            if header_crc(at, its_header, its_metadata) != crc:
                raise CorruptCheckpointError(header_damage(at), checkpoint_id=checkpoint_id)
            if at != root:
                check_line(root, revs, at, its_parent, its_flags)
            headers.append((at, its_header))
            revs.add(at)
        if headers[0][0] != root:
            raise CorruptCheckpointError(
                f"header of revision {root}, which the others build on, is gone", checkpoint_id=checkpoint_id
            )
        if parent_rev is not None and above is None and not flags & PARENT_PRUNED:
            raise CorruptCheckpointError(
                f"its parent, revision {parent_rev}, is gone and not marked as pruned", checkpoint_id=checkpoint_id
            )
        row = CheckpointRow(
            rev,
            checkpoint_id,
            parent_rev,
            None if parent is None else id_text(parent),
            up_rev,
            ts,
            step,
            source,
            flags,
            run_id,
            root,
            header,
            None if metadata is None else metadata.decode(),
        )
        return Found(row, headers, None if above is None or flags_above & STUB else id_text(above))

    def alias(self, space_pk: int, checkpoint_id: str) -> int | None:
        """As `Rows.alias`."""
        row = self.conn.execute(
            "SELECT rev FROM aliases WHERE space_pk = ? AND id = ?", (space_pk, id_column(checkpoint_id))
        ).fetchone()
        return None if row is None else row[0]

    def chains(self, space_pk: int, wanted: Sequence[tuple[int, int, int]]) -> Mapping[int, StoredChain]:
        """As `Rows.chains`."""
        return {number: rows for (number, _), rows in self.lines(space_pk, wanted).items()}

    def lines(self, space_pk: int, wanted: Sequence[tuple[int, int, int]]) -> Mapping[tuple[int, int], StoredChain]:
        """As `Rows.lines`."""
        stored: dict[tuple[int, int], StoredChain] = {}
        for at in range(0, len(wanted), CHANNELS_PER_STATEMENT):
            self._read_chains(space_pk, wanted[at : at + CHANNELS_PER_STATEMENT], stored)
        return stored

    @of_their_types
    def _read_chains(
        self, space_pk: int, wanted: Sequence[tuple[int, int, int]], stored: dict[tuple[int, int], StoredChain]
    ) -> None:
        values = ",".join(["(?,?,?)"] * len(wanted))
        # The row after the last one tells whether this chain may still grow; its body is not read.
        rows = self.conn.execute(
            f"WITH want (chan, root, seq) AS (VALUES {values}) "
            "SELECT p.chan, p.root, p.seq, p.part, p.tag, p.crc, CASE WHEN p.seq <= want.seq THEN p.data END "
            "FROM want CROSS JOIN payloads p ON p.space_pk = ? AND p.chan = want.chan AND p.root = want.root "
            "AND p.seq <= want.seq + 1",
            [*(number for want in wanted for number in want), space_pk],
        ).fetchall()
        # They come in this order mostly; SQLite, asked for it, would copy the bodies once more.
        rows.sort(key=itemgetter(0, 1, 2, 3))
        now = -1, -1
        bodies: list[tuple[str | None, bytes]] = []
        pieces: list[bytes] = []
        first_tag: str | None = None
        first_crc = 0
        for at, (chan, root, seq, part, tag, crc, data) in enumerate(rows):
            if (chan, root) != now:
                now, bodies, pieces = (chan, root), [], []
                stored[now] = bodies, False
            if data is None:
                stored[now] = bodies, True
                continue
            if part != len(pieces) or seq != len(bodies):
                raise CorruptCheckpointError(f"chain {chan}/{root} has a gap before row {seq}, part {part}")
            if part == 0:
                first_tag, first_crc = tag, crc
            if part or (at + 1 < len(rows) and rows[at + 1][3]):
                pieces.append(data)
                rows[at] = ()  # freed as soon as it is joined, not all at once at the end
                if at + 1 < len(rows) and rows[at + 1][3]:
                    continue
                data = b"".join(pieces)
                pieces = []
            if crc32(data, (root ^ seq) & _MASK) != first_crc:
                raise CorruptCheckpointError(f"chain {chan}/{root}, row {seq} has a wrong checksum")
            bodies.append((first_tag, data))

    def tasks(self, space_pk: int, rev: int) -> list[WriteRow]:
        """As `Rows.tasks`."""
        return self.tasks_of(space_pk, [rev]).get(rev, [])

    def tasks_of(self, space_pk: int, revs: Sequence[int]) -> Mapping[int, list[WriteRow]]:
        """As `Rows.tasks_of`."""
        marks = _marks(revs)
        rows = self.conn.execute(
            "SELECT task_id, slot, part, task_path, tag, crc, data, rev FROM task_writes "
            f"WHERE space_pk = ? AND rev IN ({marks}) UNION ALL "
            "SELECT task_id, 0, 0, task_path, task_tag, task_crc, task_data, rev FROM checkpoints "
            f"WHERE space_pk = ? AND rev IN ({marks}) AND task_id IS NOT NULL ORDER BY rev, task_id, slot, part",
            (space_pk, *revs, space_pk, *revs),
        ).fetchall()
        return {rev: self._tasks(rev, [row[:-1] for row in own]) for rev, own in groupby(rows, itemgetter(-1))}

    def tasks_at(self, places: Sequence[tuple[int, int]]) -> Mapping[int, list[WriteRow]]:
        """As `Rows.tasks_at`."""
        rows = self.conn.execute(
            f"WITH want (space, at) AS (VALUES {','.join(['(?,?)'] * len(places))}) "
            "SELECT w.task_id, w.slot, w.part, w.task_path, w.tag, w.crc, w.data, w.rev, w.space_pk FROM want "
            "CROSS JOIN task_writes w ON w.space_pk = want.space AND w.rev = want.at UNION ALL "
            "SELECT c.task_id, 0, 0, c.task_path, c.task_tag, c.task_crc, c.task_data, c.rev, c.space_pk FROM want "
            "CROSS JOIN checkpoints c ON c.space_pk = want.space AND c.rev = want.at WHERE c.task_id IS NOT NULL "
            "ORDER BY space_pk, task_id, slot, part",
            [number for place in places for number in place],
        ).fetchall()
        groups = ((space_pk, list(own)) for space_pk, own in groupby(rows, itemgetter(-1)))
        return {space_pk: self._tasks(own[0][-2], [row[:-2] for row in own]) for space_pk, own in groups}

    @staticmethod
    @of_their_types
    def _tasks(rev: int, rows: list[Any]) -> list[WriteRow]:
        writes: list[WriteRow] = []
        pieces: list[bytes] = []
        head: tuple[str | None, str | None, int | None] = None, None, None
        for at, (task, slot, part, path, tag, crc, data) in enumerate(rows):
            if part != len(pieces):
                raise CorruptCheckpointError(f"writes of task {id_text(task)!r} lack part {len(pieces)}")
            pieces.append(data)
            if part == 0:
                head = path, tag, crc
                if at and rows[at - 1][:2] == (task, slot):
                    raise CorruptCheckpointError(f"writes of task {id_text(task)!r} are stored twice")
            if at + 1 < len(rows) and rows[at + 1][2]:
                continue
            body = data if part == 0 else b"".join(pieces)
            pieces.clear()
            if not is_task_sound(head[2], rev, slot, task, head[0], head[1], body):
                raise CorruptCheckpointError(f"writes of task {id_text(task)!r} have a wrong checksum")
            writes.append(WriteRow(rev, id_text(task), slot, head[0] or "", head[1], body))
        writes.sort(key=lambda row: (row.path, row.task_id, row.slot))
        return writes

    def open_child(self, space_pk: int, up_rev: int, own: int) -> int | None:
        """As `Rows.open_child`."""
        # A child's rev is always greater than its parent's, which bounds the scan.
        row = self.conn.execute(
            "SELECT rev FROM checkpoints WHERE space_pk = ? AND rev > ? AND up_rev = ? AND flags & 1 = 0 "
            "AND (flags & 4 = 0 OR rev >> 20 IN (?, ?)) ORDER BY rev DESC LIMIT 1",
            (space_pk, up_rev, up_rev, own, up_rev >> N_BITS),
        ).fetchone()
        return None if row is None else row[0]

    def is_tip(self, space_pk: int, rev: int) -> bool:
        """As `Rows.is_tip`."""
        row = self.conn.execute(
            "SELECT 1 FROM checkpoints WHERE space_pk = ? AND rev > ? AND parent_rev = ? AND flags & 1 = 0 LIMIT 1",
            (space_pk, rev, rev),
        ).fetchone()
        return row is None

    def last_of_run(self, space_pk: int, run_id: str) -> int | None:
        """As `Rows.last_of_run`. Each entry of the index of runs ends with the table's key; stubs belong to no run."""
        row = self.conn.execute(
            "SELECT rev FROM checkpoints WHERE run_id = ? AND space_pk = ? ORDER BY rev DESC LIMIT 1",
            (run_id, space_pk),
        ).fetchone()
        return None if row is None else row[0]

    def children(self, thread_id: str, up_rev: int) -> list[tuple[str, int, int]]:
        """As `Rows.children`."""
        rows: list[tuple[str, int, int]] = self.conn.execute(
            "SELECT s.ns, s.space_pk, max(c.rev) FROM threads t JOIN spaces s USING (thread_pk) "
            "JOIN checkpoints c ON c.space_pk = s.space_pk AND c.rev > ? AND c.up_rev = ? AND c.flags & 1 = 0 "
            "AND (c.flags & 4 = 0 OR c.rev >> 20 = ?) WHERE t.thread_id = ? GROUP BY s.space_pk",
            (up_rev, up_rev, up_rev >> N_BITS, thread_id),
        ).fetchall()
        return rows

    def exists(self, thread_id: str, ns: str | None, rev: int) -> bool:
        """As `Rows.exists`."""
        row = self.conn.execute(
            "SELECT 1 FROM threads t JOIN spaces s ON s.thread_pk = t.thread_pk "
            f"{'' if ns is None else 'AND s.ns = ? '}"
            "JOIN checkpoints c ON c.space_pk = s.space_pk AND c.rev = ? WHERE t.thread_id = ? LIMIT 1",
            (rev, thread_id) if ns is None else (ns, rev, thread_id),
        ).fetchone()
        return row is not None

    def rev_in_thread(self, thread_id: str, checkpoint_id: str) -> int | None:
        """As `Rows.rev_in_thread`."""
        row = self.conn.execute(
            "SELECT salt FROM threads WHERE thread_id = ? AND (expires_at IS NULL OR expires_at > ?)",
            (thread_id, time.time()),
        ).fetchone()
        if row is None:
            return None
        stored = id_column(checkpoint_id)
        rev = ids.rev_of(checkpoint_id, row[0])
        if rev is not None:
            row = self.conn.execute(
                "SELECT c.rev FROM threads t JOIN spaces s USING (thread_pk) "
                "JOIN checkpoints c ON c.space_pk = s.space_pk AND c.rev = ? "
                "WHERE t.thread_id = ? AND c.id = ? AND c.flags & 1 = 0",
                (rev, thread_id, stored),
            ).fetchone()
        if rev is None or row is None:
            row = self.conn.execute(
                "SELECT a.rev FROM threads t JOIN spaces s USING (thread_pk) "
                "JOIN aliases a ON a.space_pk = s.space_pk AND a.id = ? WHERE t.thread_id = ?",
                (stored, thread_id),
            ).fetchone()
        return None if row is None else row[0]

    def entries(self, thread_id: str | None, ns: str | None, below: int | None, limit: int | None) -> list[Entry]:
        """As `Rows.entries`."""
        statement = (
            "SELECT t.thread_id, s.ns, c.space_pk, c.rev, c.id, c.step, c.source, c.flags, c.run_id, "
            "CAST(c.metadata AS BLOB), "
            "t.thread_pk, t.salt, t.epoch, t.claims, s.space_pk, s.head_rev, r.head_rev "
            "FROM threads t JOIN spaces s USING (thread_pk) JOIN checkpoints c USING (space_pk) "
            "LEFT JOIN spaces r ON r.thread_pk = t.thread_pk AND r.ns = '' "
            "WHERE c.flags & 1 = 0 AND t.thread_id IS NOT NULL AND (t.expires_at IS NULL OR t.expires_at > ?)"
        )
        bound: list[Any] = [time.time()]
        for condition, value in ((" AND t.thread_id = ?", thread_id), (" AND s.ns = ?", ns), (" AND c.rev < ?", below)):
            if value is not None:
                statement += condition
                bound.append(value)
        if thread_id is not None:
            statement += " ORDER BY c.rev DESC"
        if limit is not None:
            statement += " LIMIT ?"
            bound.append(limit)
        rows = self.conn.execute(statement, bound).fetchall()
        addresses = {row[2]: Address(*row[10:]) for row in rows}
        return [Entry._make((*row[:4], id_text(row[4]), *row[5:9], _text(row[9]), addresses[row[2]])) for row in rows]


class Writer(Reader):
    """`Transaction` over a connection inside `BEGIN IMMEDIATE`."""

    __slots__ = ()

    def take(self, thread_id: str, salt: int) -> int:
        """As `Transaction.take`."""
        now = time.time()
        retire_expired(self.conn, thread_id, now)
        row = self.conn.execute("SELECT thread_pk, claims FROM threads WHERE thread_id = ?", (thread_id,)).fetchone()
        if row is None:
            made: int = self.conn.execute(_TAKE_NEW, (thread_id, salt, 1, 1, now, now, None, None)).lastrowid
            return made
        check_number(thread_id, row[1] + 1)
        self.conn.execute(
            "UPDATE threads SET claims = claims + 1, epoch = claims + 1, claimed_at = ?, lease_owner = NULL, "
            "lease_until = NULL WHERE thread_pk = ?",
            (now, row[0]),
        )
        taken: int = row[0]
        return taken

    def take_lane(self, thread_id: str, thread_pk: int | None, salt: int) -> tuple[int, int, int] | None:
        """As `Transaction.take_lane`."""
        find = "SELECT thread_pk, salt FROM threads WHERE thread_id = ?"
        if thread_pk is None:
            retire_expired(self.conn, thread_id, time.time())
        row = self.conn.execute(find, (thread_id,)).fetchone()
        if row is None and thread_pk is None:
            now = time.time()
            made: int = self.conn.execute(_TAKE_NEW, (thread_id, salt, 1, 0, now, now, None, None)).lastrowid
            return made, salt, 1
        if row is None or thread_pk not in (None, row[0]):
            return None
        ((number,),) = self.conn.execute(_LANE, (row[0],)).fetchall()
        return row[0], row[1], number

    def open_space(self, thread_pk: int, ns: str) -> int:
        """As `Transaction.open_space`."""
        made: int = self.conn.execute(_NEW_SPACE, (thread_pk, ns, None)).lastrowid
        return made

    def put_checkpoint(self, space_pk: int, row: CheckpointRow) -> None:
        """As `Transaction.put_checkpoint`."""
        self.conn.execute(_PUT_CHECKPOINT, _checkpoint_columns(space_pk, row))

    def later_headers(self, space_pk: int, header_root: int, rev: int) -> list[int]:
        """As `Transaction.later_headers`."""
        rows = self.conn.execute(
            "SELECT rev FROM checkpoints WHERE space_pk = ? AND rev > ? AND header_root = ? ORDER BY rev",
            (space_pk, rev, header_root),
        ).fetchall()
        return [row[0] for row in rows]

    def set_header(self, space_pk: int, rev: int, header_root: int, header: bytes | None) -> None:
        """As `Transaction.set_header`."""
        if header is None:
            amend(self.conn, space_pk, rev, header_root=header_root)
            return
        (metadata,) = self.conn.execute(
            "SELECT metadata FROM checkpoints WHERE space_pk = ? AND rev = ?", (space_pk, rev)
        ).fetchone()
        crc = header_crc(rev, header, metadata)
        amend(self.conn, space_pk, rev, header_root=header_root, header=header, crc=crc)

    def set_head(self, space_pk: int, rev: int | None) -> None:
        """As `Transaction.set_head`."""
        self.conn.execute("UPDATE spaces SET head_rev = ? WHERE space_pk = ?", (rev, space_pk))

    def add_alias(self, space_pk: int, checkpoint_id: str, rev: int) -> None:
        """As `Transaction.add_alias`."""
        self.conn.execute(_ALIAS, (space_pk, id_column(checkpoint_id), rev))

    def add_payloads(self, space_pk: int, payloads: Sequence[PayloadRow]) -> None:
        """As `Transaction.add_payloads`."""
        if payloads:
            _insert(self.conn, _PAYLOAD, _payload_rows(space_pk, payloads))

    def chain_tags(
        self, space_pk: int, after: tuple[int, int, int] | None, limit: int
    ) -> list[tuple[int, int, int, int, str | None]]:
        """As `StoredRows.chain_tags`."""
        rows: list[tuple[int, int, int, int, str | None]] = self.conn.execute(
            "SELECT chan, root, seq, kind, tag FROM payloads WHERE space_pk = ? AND part = 0 "
            "AND (chan, root, seq) > (?, ?, ?) ORDER BY chan, root, seq LIMIT ?",
            (space_pk, *(after or (-1, -1, -1)), limit),
        ).fetchall()
        return rows

    def chain_body(self, space_pk: int, number: int, root: int, seq: int) -> bytes:
        """As `StoredRows.chain_body`."""
        rows = self.conn.execute(
            "SELECT data FROM payloads WHERE space_pk = ? AND chan = ? AND root = ? AND seq = ? ORDER BY part",
            (space_pk, number, root, seq),
        ).fetchall()
        return b"".join(data for (data,) in rows)

    def replace_payload(self, space_pk: int, row: PayloadRow) -> None:
        """As `StoredRows.replace_payload`."""
        self.conn.execute(
            "DELETE FROM payloads WHERE space_pk = ? AND chan = ? AND root = ? AND seq = ?", (space_pk, *row[:3])
        )
        self.add_payloads(space_pk, [row])

    def task_rows(self, space_pk: int, after: int | None, limit: int) -> list[PlainWrite]:
        """As `StoredRows.task_rows`."""
        above = -1 if after is None else after
        revs = self.conn.execute(
            "SELECT rev FROM task_writes WHERE space_pk = ? AND rev > ? UNION "
            "SELECT rev FROM checkpoints WHERE space_pk = ? AND rev > ? AND task_id IS NOT NULL ORDER BY rev LIMIT ?",
            (space_pk, above, space_pk, above, limit),
        ).fetchall()
        page: list[PlainWrite] = []
        for (rev,) in revs:
            if len(page) >= limit:
                break
            page += self.tasks(space_pk, rev)
        return page

    def checkpoints_after(self, space_pk: int, rev: int | None, limit: int) -> list[CheckpointRow]:
        """As `StoredRows.checkpoints_after`."""
        rows = self.conn.execute(
            "SELECT rev, id, parent_rev, parent_id, up_rev, ts, step, source, flags, run_id, header_root, header, "
            "metadata FROM checkpoints WHERE space_pk = ? AND rev > ? ORDER BY rev LIMIT ?",
            (space_pk, -1 if rev is None else rev, limit),
        ).fetchall()
        return [
            CheckpointRow(at, id_text(own), parent, None if parent_id is None else id_text(parent_id), *rest)
            for at, own, parent, parent_id, *rest in rows
        ]

    def add_writes(self, space_pk: int, writes: Sequence[PlainWrite], *, replace: bool = False) -> None:
        """As `Transaction.add_writes`."""
        add_writes(self.conn, space_pk, writes, replace=replace)

    # Upkeep.

    def stamp(self) -> tuple[int, int]:
        """As `Upkeep.stamp`."""
        (others,) = self.conn.execute("PRAGMA data_version").fetchone()
        (own,) = self.conn.execute("SELECT total_changes()").fetchone()
        return others, own

    def n_claims(self, thread_pk: int) -> int:
        """As `Upkeep.n_claims`."""
        ((number,),) = self.conn.execute("SELECT claims FROM threads WHERE thread_pk = ?", (thread_pk,)).fetchall()
        return number  # type: ignore[no-any-return]

    def spaces(self, thread_pk: int) -> list[SpaceRow]:
        """As `Upkeep.spaces`."""
        rows = self.conn.execute(
            "SELECT ns, space_pk, head_rev FROM spaces WHERE thread_pk = ? ORDER BY space_pk", (thread_pk,)
        ).fetchall()
        return [SpaceRow._make(row) for row in rows]

    def lines_of(self, space_pk: int) -> list[Line]:
        """As `Upkeep.lines_of`."""
        rows = self.conn.execute(
            "SELECT rev, parent_rev, up_rev, ts, source, flags, run_id, header_root FROM checkpoints "
            "WHERE space_pk = ? ORDER BY rev",
            (space_pk,),
        ).fetchall()
        return [Line._make(row) for row in rows]

    def task_keys(self, space_pk: int, rev: int | None = None) -> list[tuple[int, str | bytes, int]]:
        """As `Upkeep.task_keys`."""
        where, bound = ("space_pk = ?", [space_pk]) if rev is None else ("space_pk = ? AND rev = ?", [space_pk, rev])
        keys: list[tuple[int, str | bytes, int]] = self.conn.execute(
            f"SELECT rev, task_id, slot FROM task_writes WHERE {where} UNION "
            f"SELECT rev, task_id, 0 FROM checkpoints WHERE {where} AND task_id IS NOT NULL",
            [*bound, *bound],
        ).fetchall()
        return keys

    def header_line(self, space_pk: int, header_root: int, last: int) -> list[tuple[int, bytes]]:
        """As `Upkeep.header_line`."""
        rows = self.conn.execute(
            "SELECT rev, header, crc, CAST(metadata AS BLOB) FROM checkpoints WHERE space_pk = ? AND rev BETWEEN ? AND ? "
            "AND header_root = ? ORDER BY rev",
            (space_pk, header_root, last, header_root),
        ).fetchall()
        for rev, header, crc, metadata in rows:
            if header_crc(rev, header, metadata) != crc:
                raise CorruptCheckpointError(header_damage(rev))
        return [row[:2] for row in rows]

    def chain_lengths(self, space_pk: int) -> list[tuple[int, int, int]]:
        """As `Upkeep.chain_lengths`."""
        rows: list[tuple[int, int, int]] = self.conn.execute(
            "SELECT chan, root, max(seq) + 1 FROM payloads WHERE space_pk = ? GROUP BY chan, root", (space_pk,)
        ).fetchall()
        return rows

    def mark_pruned(self, space_pk: int, rev: int, *, parent: bool, up: bool, to: int | None = None) -> None:
        """As `Upkeep.mark_pruned`."""
        changes: dict[str, Any] = {"up_rev": None} if up else {}
        if parent:
            changes |= {"parent_rev": to, "flags": self._flags(space_pk, rev) | PARENT_PRUNED}
        if changes:
            amend(self.conn, space_pk, rev, **changes)

    def mark_thinned(self, space_pk: int, rev: int) -> None:
        """As `Upkeep.mark_thinned`."""
        amend(self.conn, space_pk, rev, flags=self._flags(space_pk, rev) | THINNED)

    def _flags(self, space_pk: int, rev: int) -> int:
        row = self.conn.execute(
            "SELECT flags FROM checkpoints WHERE space_pk = ? AND rev = ?", (space_pk, rev)
        ).fetchone()
        return 0 if row is None else row[0]

    def drop_checkpoint(self, space_pk: int, rev: int, *, stub: bool) -> int:
        """As `Upkeep.drop_checkpoint`."""
        row = self.conn.execute(
            "SELECT id, header, flags FROM checkpoints WHERE space_pk = ? AND rev = ?", (space_pk, rev)
        ).fetchone()
        if row is None:
            return 0
        own_id, header, flags = row
        n_aliases: int = self.conn.execute(
            "DELETE FROM aliases WHERE space_pk = ? AND id = ? AND rev = ?", (space_pk, own_id, rev)
        ).rowcount
        if not stub:
            self.conn.execute("DELETE FROM checkpoints WHERE space_pk = ? AND rev = ?", (space_pk, rev))
            return 1 + n_aliases
        crc = header_crc(rev, header, None)
        flags |= STUB | PARENT_PRUNED
        nothing = dict.fromkeys(("parent_rev", "parent_id", "up_rev", "run_id", "metadata", *_RESULT_COLUMNS))
        amend(self.conn, space_pk, rev, flags=flags, crc=crc, **nothing)
        return 1 + n_aliases

    def drop_tasks(self, space_pk: int, rev: int, limit: int) -> int:
        """As `Upkeep.drop_tasks`."""
        n_rows: int = self.conn.execute(
            "DELETE FROM task_writes WHERE space_pk = ? AND rev = ? AND (task_id, slot, part) IN "
            "(SELECT task_id, slot, part FROM task_writes WHERE space_pk = ? AND rev = ? LIMIT ?)",
            (space_pk, rev, space_pk, rev, limit),
        ).rowcount
        if n_rows < limit:
            n_rows += self.conn.execute(_DROP_RESULT, (space_pk, rev)).rowcount
        return n_rows

    def drop_task(self, space_pk: int, rev: int, task: Any, slot: int) -> None:
        """As `Upkeep.drop_task`."""
        drop_task(self.conn, space_pk, rev, task, slot)

    def drop_chain(self, space_pk: int, number: int, root: int, first: int, last: int, limit: int) -> int:
        """As `Upkeep.drop_chain`."""
        chain = space_pk, number, root
        n_rows: int = self.conn.execute(
            "DELETE FROM payloads WHERE space_pk = ? AND chan = ? AND root = ? AND (seq, part) IN "
            "(SELECT seq, part FROM payloads WHERE space_pk = ? AND chan = ? AND root = ? AND seq BETWEEN ? AND ? "
            "ORDER BY seq DESC, part LIMIT ?)",
            (*chain, *chain, first, last, limit),
        ).rowcount
        return n_rows

    def drop_space(self, space_pk: int) -> None:
        """As `Upkeep.drop_space`."""
        self.conn.execute("DELETE FROM spaces WHERE space_pk = ?", (space_pk,))

    def retire(self, thread_pk: int) -> None:
        """As `Upkeep.retire`."""
        if _n_rows(self.conn, thread_pk, BIG_DELETE + 1) <= BIG_DELETE:
            self.conn.execute("DELETE FROM threads WHERE thread_pk = ?", (thread_pk,))
        else:
            # From here on it cannot be found, and nobody's epoch fits.
            self.conn.execute("UPDATE threads SET thread_id = NULL, epoch = -1 WHERE thread_pk = ?", (thread_pk,))

    def expire_at(self, thread_pk: int, moment: float) -> None:
        """As `Upkeep.expire_at`."""
        self.conn.execute("UPDATE threads SET expires_at = ? WHERE thread_pk = ?", (moment, thread_pk))

    def retire_expired(self, thread_id: str) -> None:
        """As `Transaction.retire_expired`."""
        retire_expired(self.conn, thread_id, time.time())

    def expire(self, limit: int) -> int:
        """As `Transaction.expire`."""
        n_expired: int = self.conn.execute(
            "UPDATE threads SET thread_id = NULL, epoch = -1 WHERE thread_pk IN (SELECT thread_pk FROM threads "
            "WHERE expires_at <= ? AND thread_id IS NOT NULL ORDER BY expires_at LIMIT ?)",
            (time.time(), limit),
        ).rowcount
        return n_expired

    def copy(self, source_pk: int, target_id: str) -> int:
        """As `Transaction.copy`."""
        retire_expired(self.conn, target_id, time.time())
        return copy_thread(self.conn, source_pk, target_id)


# ---- whole threads


def _n_rows(conn: Any, thread_pk: int, limit: int) -> int:
    """Rows of a thread's checkpoints, counted up to a limit."""
    n_rows = 0
    for table in ("checkpoints", "task_writes", "payloads", "aliases"):
        n_rows += conn.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM spaces JOIN {table} USING (space_pk) WHERE thread_pk = ? LIMIT ?)",
            (thread_pk, limit - n_rows),
        ).fetchone()[0]
    return n_rows


def retire_expired(conn: Any, thread_id: str, now: float) -> bool:
    """Let a thread vanish whose time to live is over. Returns whether it was."""
    n_rows: int = conn.execute(
        "UPDATE threads SET thread_id = NULL, epoch = -1 WHERE thread_id = ? AND expires_at <= ?", (thread_id, now)
    ).rowcount
    return n_rows == 1


def threads_of(conn: Any, run_ids: Sequence[str]) -> list[str]:
    """Ids of threads with checkpoints of these runs."""
    found: dict[str, None] = {}
    for at in range(0, len(run_ids), RUNS_PER_STATEMENT):
        some = run_ids[at : at + RUNS_PER_STATEMENT]
        marks = ", ".join("?" * len(some))
        rows = conn.execute(
            "SELECT DISTINCT t.thread_id FROM checkpoints c JOIN spaces USING (space_pk) JOIN threads t "
            f"USING (thread_pk) WHERE c.run_id IN ({marks}) AND t.thread_id IS NOT NULL",
            list(some),
        ).fetchall()
        found.update((row[0], None) for row in rows)
    return list(found)


def finish_deletes(conn: Any) -> None:
    """Remove what is left of deleted threads, in transactions of at most `DELETE_BATCH` rows."""
    for (thread_pk,) in conn.execute("SELECT thread_pk FROM threads WHERE thread_id IS NULL").fetchall():
        for (space_pk,) in conn.execute("SELECT space_pk FROM spaces WHERE thread_pk = ?", (thread_pk,)).fetchall():
            for table, key in (
                ("payloads", "chan, root, seq, part"),
                ("task_writes", "rev, task_id, slot, part"),
                ("checkpoints", "rev"),
                ("aliases", "id"),
            ):
                statement = (
                    f"DELETE FROM {table} WHERE space_pk = ? AND ({key}) IN "
                    f"(SELECT {key} FROM {table} WHERE space_pk = ? LIMIT {DELETE_BATCH})"
                )
                while _delete(conn, statement, (space_pk, space_pk)) == DELETE_BATCH:
                    pass
        some = f"SELECT space_pk FROM spaces WHERE thread_pk = ? LIMIT {DELETE_BATCH}"
        statement = f"DELETE FROM spaces WHERE space_pk IN ({some})"
        while _delete(conn, statement, (thread_pk,)) == DELETE_BATCH:
            pass
        _delete(conn, "DELETE FROM threads WHERE thread_pk = ?", (thread_pk,))


def give_back(conn: Any) -> None:
    """Cut free pages off the end of a file that was made for it, `PAGES_AT_ONCE` in a transaction."""
    if conn.execute("PRAGMA auto_vacuum").fetchone() == (_INCREMENTAL,):
        while conn.execute("PRAGMA freelist_count").fetchone()[0]:
            conn.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()


def _delete(conn: Any, statement: str, values: tuple[int, ...]) -> int:
    """Run one deletion in its own transaction. Returns the number of rows."""
    try:
        conn.execute("BEGIN IMMEDIATE")
        n_rows: int = conn.execute(statement, values).rowcount
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    return n_rows


def copy_thread(conn: Any, source_pk: int, target_id: str) -> int:
    """Copy all rows of a thread to a new one, inside the caller's transaction. Returns the key of the new one."""
    now = time.time()
    target_pk: int = conn.execute(
        "INSERT INTO threads (thread_id, salt, claims, epoch, created_at, claimed_at, expires_at) "
        "SELECT ?, salt, claims, epoch, ?, ?, expires_at FROM threads WHERE thread_pk = ?",
        (target_id, now, now, source_pk),
    ).lastrowid
    conn.execute(
        "INSERT INTO spaces (thread_pk, ns, head_rev) SELECT ?, ns, head_rev FROM spaces WHERE thread_pk = ?",
        (target_pk, source_pk),
    )
    for table, columns in (
        (
            "checkpoints",
            "rev, id, parent_rev, parent_id, up_rev, ts, step, source, flags, run_id, header_root, crc, header, "
            "metadata, row_crc, task_id, task_path, task_tag, task_crc, task_data",
        ),
        ("aliases", "id, rev"),
        ("payloads", "chan, root, seq, part, kind, tag, crc, data"),
        ("task_writes", "rev, task_id, slot, part, task_path, tag, crc, data"),
    ):
        own = ", ".join(f"r.{column}" for column in columns.split(", "))
        conn.execute(
            f"INSERT INTO {table} (space_pk, {columns}) SELECT n.space_pk, {own} FROM spaces o "
            f"JOIN spaces n ON n.thread_pk = ? AND n.ns = o.ns JOIN {table} r ON r.space_pk = o.space_pk "
            f"WHERE o.thread_pk = ?",
            (target_pk, source_pk),
        )
    return target_pk
