"""`AsyncStoring`: how the async driver stores what the run commits.

The mirror of `sync_storing.SyncStoring`; a large commit is encoded on a thread of the saver.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final

from checkpoint.base import Ack, EncodedCommit, StepCommit
from pregel.engine.driver import Driver
from pregel.engine.snapshot import into_lane, note_unstored, salvage

TURN_S: Final = 0.001
"""Seconds of supersteps of a run with a saver in one turn of the loop."""


class AsyncStoring(Driver):
    """The part of the async driver that stores."""

    turn_at = 0.0
    """When the loop gets its next turn at the latest, between two supersteps (clock of `time.monotonic`)."""

    async def store(self, commit: StepCommit, *, wait: bool = False) -> None:
        """Store a commit: encoded now, written now or soon, as the durability says (D22, D32)."""
        saver = self.saver
        assert saver is not None
        encoded = None
        try:
            encoded = await saver.aencode(commit) if saver.is_large(commit) else saver.encode(commit)
            if self.durability == "async" and not wait and commit.claim.claimed and not self.forks:
                ack = saver.submit(encoded)
                if ack is not None:
                    self.acks.append(ack)
            else:
                await self.drain()
                await saver.awrite([encoded], durability=self.durability)
        except BaseException as error:
            if not self.may_fork(error):
                note_unstored(self.run, commit, error)
                if encoded is None and isinstance(error, Exception):
                    # The saver is as it was: of results alone, what siblings still bring can be stored.
                    self.broken = commit.kind != "tasks"
                    await self.store_salvage(commit)
                else:
                    self.broken = True
                raise
            encoded = await self.fork(commit)
        if encoded.edited:
            self.edited(encoded.edited)
        if not wait and time.monotonic() >= self.turn_at:
            # Nodes that never wait would keep the loop for the whole run.
            await asyncio.sleep(0)
            self.turn_at = time.monotonic() + TURN_S

    async def fork(self, commit: StepCommit) -> EncodedCommit:
        """The thread is lost: go on in a lane, with the commit that was refused."""
        saver = self.saver
        assert saver is not None
        try:
            await saver.aopen_lane(commit.claim)
            into_lane(self.run, (commit,))
            encoded = await saver.aencode(commit) if saver.is_large(commit) else saver.encode(commit)
            await saver.awrite([encoded], durability=self.durability)
        except BaseException as error:
            self.unstored(commit, error)
            raise
        return encoded

    async def store_salvage(self, commit: StepCommit) -> None:
        """A step could not be encoded: store what can be of its tasks' writes. Its error says what is missing."""
        assert self.saver is not None
        with suppress(Exception):
            await self.drain()
            if kept := salvage(self.run, commit, self.saver.encode):
                await self.saver.awrite(kept, durability=self.durability)

    async def store_rest(self, commit: StepCommit | None) -> None:
        """Store what is left, and wait for everything that is on its way."""
        if commit is not None:
            await self.store(commit, wait=True)
        await self.drain()

    async def store_held(self) -> None:
        """Store the writes of tasks that have settled while others are running."""
        commit = self.run.flush()
        if commit is not None:
            await self.store(commit)

    async def keep_up(self) -> None:
        """Wait until at most `max_checkpoint_lag` commits are on their way (D7)."""
        assert self.saver is not None
        while self.acks and (self.acks[0].done() or len(self.acks) > self.saver.max_checkpoint_lag):
            await self.settle_ack(self.acks.popleft())

    async def drain(self) -> None:
        """Wait for all writes that are on their way."""
        while self.acks:
            await self.settle_ack(self.acks.popleft())

    async def settle_ack(self, ack: Ack) -> None:
        """Wait for one write."""
        try:
            await ack.aresult()
        except BaseException as error:
            self.unstored(None, error)
            raise
