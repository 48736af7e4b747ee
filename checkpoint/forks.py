"""Forks: a checkpoint that holds what another one holds, as the beginning of a line of its own.

Decides what such a checkpoint is made of. It is a commit like any other, one that changes no channel: values are shared by
reference, whatever their size, and what was stored for the superstep after the other one (results, questions, answers) is
not taken over. Its execution is another one, so the tasks that follow it have other keys (`ORIGIN`). Does not know how a
thread is claimed and where rows go; nested ones work under what an edit would work under (design.md D25).

Source of the idea: branches of a version control system, which copy a pointer.
"""

from __future__ import annotations

from checkpoint import ids
from checkpoint.base import (
    ORIGIN,
    CheckpointNotFoundError,
    Claim,
    RunnableConfig,
    StepCommit,
    get_checkpoint_metadata,
    up_rev_of_edit,
)
from checkpoint.chains import Space
from checkpoint.headers import fold
from checkpoint.rows import Address, Found, Rows, addressed, config_of, ends_lane, placed_at, row_metadata


def commit_of_fork(rows: Rows, config: RunnableConfig, claim: Claim, address: Address, found: Found) -> StepCommit:
    """The commit of a fork of what was found, ready to be encoded; no value is read for it."""
    thread_id, ns, _ = addressed(config)
    row = found.row
    with placed_at(thread_id, ns, found):
        header = fold(found.headers, ns)
        parents = row_metadata(row).get("parents") or {}
    is_head = row.rev == address.head
    # Without its chains: nothing is written that could extend one.
    space = claim.spaces[ns] = Space(ns, address.space_pk, address.head, header=header)
    if not is_head:
        header.n_rows = 0
        space.must_exist = row.rev
    rev, checkpoint_id = claim.numbered(row.step + 1)
    is_open = is_head or ends_lane(rows, address.space_pk, found)
    run_id = config.get("run_id")
    return StepCommit(
        claim,
        ns,
        "checkpoint",
        source="fork",
        step=row.step + 1,
        checkpoint_id=checkpoint_id,
        rev=rev,
        ts=ids.now_us(),
        parent_rev=row.rev,
        parent_id=row.id,
        up_rev=up_rev_of_edit(row.up_rev, parents, _newest(rows, thread_id, ns) if is_open else None),
        parents=parents,
        metadata=get_checkpoint_metadata(config, {}),
        run_id=None if run_id is None else str(run_id),
        updated_channels=header.updated,
        facts={ORIGIN: checkpoint_id},
    )


def _newest(rows: Rows, thread_id: str, ns: str) -> tuple[str, int] | None:
    """Id and rev of the newest root checkpoint, if the namespace is one that all runs of a graph share."""
    if not ns or ":" in ns:
        return None
    root = rows.address(thread_id, "")
    found = rows.checkpoint(root.space_pk, root.head) if root is not None and root.head is not None else None
    return None if found is None else (found.row.id, found.row.rev)


def config_of_fork(commit: StepCommit) -> RunnableConfig:
    """The config that addresses a fork; of a nested one together with the checkpoints around it."""
    ns, checkpoint_id = commit.checkpoint_ns, commit.checkpoint_id
    config = config_of(commit.claim.thread_id, ns, checkpoint_id)
    if commit.parents:
        config["configurable"]["checkpoint_map"] = {**commit.parents, ns: checkpoint_id}
    return config


def nothing_to_fork(config: RunnableConfig) -> CheckpointNotFoundError:
    """What a caller is told whose checkpoint is not there."""
    thread_id, ns, checkpoint_id = addressed(config)
    what = "checkpoints" if checkpoint_id is None else f"checkpoint {checkpoint_id!r}"
    return CheckpointNotFoundError(
        f"fork: thread {thread_id!r} has no {what} in namespace {ns!r}; nothing was stored; pass the config of a stored "
        f"checkpoint, as `list` or `get_state_history` gives it",
        thread_id=thread_id,
        checkpoint_id=checkpoint_id,
    )
