"""Leases: how a process that writes a thread asks others to keep off for a while (storage.md C5.2).

Decides when a lease is written, renewed and void. A lease is politeness, never safety: it is judged by clocks that may be
wrong, and a run that loses its thread is refused by the number of its claim whatever any clock says. It is written with
the claim, renewed by commits once half of it is over, and given up when the run ends. The lease of a process of this host
that is gone is void at once. Knows neither SQL nor connections.

Invariants
1. A wrong clock makes a newcomer wait too long or not long enough; it never lets two runs write.
2. What belongs to this process is never kept from it: its own runs are told apart by `checkpoint.holders`.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from checkpoint.base import ThreadBusyError
from checkpoint.chains import EncodedStep

RENEW_SHARE: Final = 0.5
"""A commit renews a lease of which no more than this share is left."""


class Lease(NamedTuple):
    """As its row has it. `until`: seconds since the epoch by the owner's clock."""

    owner: str
    until: float


class Terms:
    """What the runs of one saver ask for. `ttl`: seconds after its last renewal until a lease is over."""

    def __init__(self, ttl: float) -> None:
        if not ttl > 0:
            raise ValueError(f"lease_ttl is {ttl!r}; it must be None (no leases) or seconds greater than 0")
        self.ttl = ttl

    def lease(self, steps: Sequence[EncodedStep]) -> Lease | None:
        """The lease that goes into the transaction of these steps; None if the one there is lasts."""
        claim = steps[0].claim
        now = time.time()
        # A clock that was set back would make it last too long.
        lasts = claim.lease is not None and self.ttl * RENEW_SHARE < claim.lease - now <= self.ttl
        if claim.lane or (claim.claimed and lasts):
            return None
        return Lease(json.dumps([*_this_process(), steps[0].commit.run_id]), now + self.ttl)


def refusal(thread_id: str, owner: str | None, until: float, now: float) -> ThreadBusyError | None:
    """What a newcomer is told about a lease; None if it is over, void, or of this process."""
    if until <= now or owner is None:
        return None
    try:
        host, pid, started, run_id = json.loads(owner)
    except (ValueError, TypeError):
        host, pid, started, run_id = None, 0, None, None  # of a library that writes them in another way
    if [host, pid, started] == _this_process() or (host == _host() and _started(pid) != started):
        return None
    return ThreadBusyError(
        f"thread {thread_id!r} is leased to a run (run_id {run_id!r}) of process {pid} on {host!r} for another "
        f"{until - now:.1f} seconds; nothing was stored; try again when that run has ended, pass on_conflict='wait', or "
        f"use another thread_id",
        thread_id=thread_id,
        owner_run_id=run_id,
        until=until,
    )


def _this_process() -> list[Any]:
    pid = os.getpid()
    return [_host(), pid, _started(pid)]


def _host() -> str:
    """This machine since it was booted: a process number means nothing beyond that."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        boot = ""
    return f"{platform.node()} {boot}".strip()


def _started(pid: int) -> str | None:
    """When a process was started, in a form that tells it from an earlier one of its number; "" where that cannot be
    known, None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except OSError:
        return ""
    else:
        state, *fields = text.rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    if os.name == "nt":
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return ""
    return ""
