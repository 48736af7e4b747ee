"""How the commits of a run get into the file: one transaction, everything or nothing.

Decides what a missed claim means, and which statements a batch of steps takes; their letters (T, C, G, S, H, E, P, K, W)
are those of storage.md C5. Knows no threads, locks, files or loops: `saver` calls it. A connection is anything with
`execute`, `executemany` and `in_transaction` of `sqlite3.Connection`.

Invariants
1. Every statement binds its values; no stored or given text becomes SQL.
2. `store` leaves either all rows of its steps or none; claims and heads are checked inside its transaction.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

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
    PARENT_REV,
    Codec,
    EncodedStep,
    seal,
)
from checkpoint.encryption import EncryptedRows
from checkpoint.retention import Keeper
from checkpoint.rows import parent_gone, relies_on, thread_deleted
from checkpoint.sqlite.columns import checkpoint_columns, id_column, id_text, is_result, payload_rows, result_columns
from checkpoint.sqlite.leases import Lease, Terms
from checkpoint.sqlite.tables import (
    ALIAS,
    CHECKPOINT,
    CHECKPOINT_WITH_RESULT,
    DROP_RESULT,
    DROP_RESULTS,
    NEW_SPACE,
    NO_COLUMNS,
    PAYLOAD,
    RESULT,
    TAKE_NEW,
    TASK,
    add_writes,
    insert_rows,
    retire_expired,
    write_tasks,
)
from checkpoint.sqlite.writer import Writer

# `claims` may have moved since the load: lanes take numbers. A claim and a lane may have the same one, since their revs
# differ in the lane bit.
_CLAIM = (
    "UPDATE threads SET claims = max(claims, ?), epoch = ?, claimed_at = ?, lease_owner = ?, lease_until = ? "
    "WHERE thread_pk = ? AND epoch = ? AND lease_until IS ? AND thread_id IS NOT NULL "
    "AND (SELECT head_rev FROM spaces WHERE thread_pk = ? AND ns = '') IS ?"
)
_CLAIM_AGAIN = "UPDATE threads SET claims = max(claims, ?), epoch = ? WHERE thread_pk = ? AND epoch = ?"
_LEASE = "UPDATE threads SET lease_owner = ?, lease_until = ? WHERE thread_pk = ? AND epoch = ?"
_THERE = "SELECT 1 FROM threads WHERE thread_pk = ? AND thread_id IS NOT NULL"
_GUARD = "SELECT 1 FROM threads WHERE thread_pk = ? AND epoch = ?"
# A lane may have made it: then it has no head.
_FIRST_HEAD = "UPDATE spaces SET head_rev = ? WHERE thread_pk = ? AND ns = ? AND head_rev IS NULL"
_SPACE = "SELECT space_pk FROM spaces WHERE thread_pk = ? AND ns = ?"
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
    if writes and is_result(writes[-1], row):
        result, parent = result_columns(writes[-1]), (space_pk, row[PARENT_REV])
        if execute(RESULT, (*result, *parent, *parent, result[0])).rowcount == 1:
            writes = writes[:-1]
    try:
        if step.payloads:
            insert_rows(conn, PAYLOAD, payload_rows(space_pk, step.payloads))
        execute(CHECKPOINT, checkpoint_columns(space_pk, row))
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
                space_pks[step.space.ns] = execute(NEW_SPACE, (thread_pk, step.space.ns, rev)).lastrowid
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
            made_pk = known[0] if known is not None else conn.execute(NEW_SPACE, (thread_pk, space.ns, None)).lastrowid
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
            conn.execute(ALIAS, (space_pk, id_column(checkpoint_id), step.rev))


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
        payloads += payload_rows(space_pk, step.payloads)
        writes = step.writes
        if row is not None:
            if writes and is_result(writes[-1], row) and not claim.lane:
                result = result_columns(writes[-1])
                parent = space_pk, row[PARENT_REV]
                at = places.get(parent)
                if at is not None:
                    results[at] = result
                    writes = writes[:-1]
                elif execute(RESULT, (*result, *parent, *parent, result[0])).rowcount == 1:
                    writes = writes[:-1]
            places[space_pk, row[0]] = len(checkpoints)
            checkpoints.append(checkpoint_columns(space_pk, row))
        if writes:
            write_tasks(conn, space_pk, writes, whole)
        if step.settled is not None:
            if whole:
                # They may be those that are dropped: with a lag, a step's flush and its end come in one transaction.
                insert_rows(conn, TASK, whole)
                whole.clear()
            execute(DROP_RESULTS, (space_pk, step.settled))
            execute(DROP_RESULT, (space_pk, step.settled))
    try:
        if payloads:
            insert_rows(conn, PAYLOAD, payloads)
        if results:
            rows = [(*row, *results.get(at, NO_COLUMNS)) for at, row in enumerate(checkpoints)]
            conn.executemany(CHECKPOINT_WITH_RESULT, rows)
        elif checkpoints:
            insert_rows(conn, CHECKPOINT, checkpoints)
    except sqlite3.IntegrityError as error:
        raise _clash(steps[0], error) from error
    if whole:
        insert_rows(conn, TASK, whole)


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
            made: int = conn.execute(TAKE_NEW, values_of_new).lastrowid
        except sqlite3.IntegrityError:
            # Whose time is over was not there when the run loaded it.
            if retire_expired(conn, claim.thread_id, now):
                made = conn.execute(TAKE_NEW, values_of_new).lastrowid
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
