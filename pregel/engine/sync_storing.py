"""`SyncStoring`: how the sync driver stores what the run commits.

Encodes and writes commits as the durability says, one after the other, and waits for those that are on their way. What
could not be stored is said on the error; what of it can be saved is.
"""

from __future__ import annotations

from contextlib import suppress

from checkpoint.base import Ack, EncodedCommit, StepCommit
from pregel.engine.driver import Driver
from pregel.engine.snapshot import into_lane, note_unstored, salvage


class SyncStoring(Driver):
    """The part of the sync driver that stores."""

    def store(self, commit: StepCommit, *, wait: bool = False) -> None:
        """Store a commit: encoded now, written now or soon, as the durability says (D22, D32)."""
        saver = self.saver
        assert saver is not None
        encoded = None
        try:
            encoded = saver.encode(commit)
            if self.durability == "async" and not wait and commit.claim.claimed and not self.forks:
                ack = saver.submit(encoded)
                if ack is not None:
                    self.acks.append(ack)
            else:
                self.drain()
                saver.write([encoded], durability=self.durability)
        except BaseException as error:
            if not self.may_fork(error):
                note_unstored(self.run, commit, error)
                if encoded is None and isinstance(error, Exception):
                    # The saver is as it was: of results alone, what siblings still bring can be stored.
                    self.broken = commit.kind != "tasks"
                    self.store_salvage(commit)
                else:
                    self.broken = True
                raise
            encoded = self.fork(commit)
        if encoded.edited:
            self.edited(encoded.edited)

    def fork(self, commit: StepCommit) -> EncodedCommit:
        """The thread is lost: go on in a lane, with the commit that was refused."""
        saver = self.saver
        assert saver is not None
        try:
            saver.open_lane(commit.claim)
            into_lane(self.run, (commit,))
            encoded = saver.encode(commit)
            saver.write([encoded], durability=self.durability)
        except BaseException as error:
            self.unstored(commit, error)
            raise
        return encoded

    def store_salvage(self, commit: StepCommit) -> None:
        """A step could not be encoded: store what can be of its tasks' writes. Its error says what is missing."""
        assert self.saver is not None
        with suppress(Exception):
            self.drain()
            if kept := salvage(self.run, commit, self.saver.encode):
                self.saver.write(kept, durability=self.durability)

    def store_rest(self, commit: StepCommit | None) -> None:
        """Store what is left, and wait for everything that is on its way."""
        if commit is not None:
            self.store(commit, wait=True)
        self.drain()

    def store_held(self) -> None:
        """Store the writes of tasks that have settled while others are running."""
        commit = self.run.flush()
        if commit is not None:
            self.store(commit)

    def keep_up(self) -> None:
        """Wait until at most `max_checkpoint_lag` commits are on their way (D7)."""
        assert self.saver is not None
        while self.acks and (self.acks[0].done() or len(self.acks) > self.saver.max_checkpoint_lag):
            self.settle_ack(self.acks.popleft())

    def drain(self) -> None:
        """Wait for all writes that are on their way."""
        while self.acks:
            self.settle_ack(self.acks.popleft())

    def settle_ack(self, ack: Ack) -> None:
        """Wait for one write."""
        try:
            ack.result()
        except BaseException as error:
            self.unstored(None, error)
            raise
