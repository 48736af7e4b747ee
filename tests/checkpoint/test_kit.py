"""The conformance kit: ours and a plain LangGraph-style saver pass it; savers with one classic bug each do not, and the
check that fails names the bug."""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import json
import pickle
import subprocess
import sys
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint.base import (
    WRITES_IDX_MAP,
    CheckpointNotFoundError,
    CheckpointTuple,
    StepCommit,
    ThreadBusyError,
    empty_checkpoint,
)
from checkpoint.ids import checkpoint_id
from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from checkpoint.testing import CAPABILITIES, CHECKS, ConformanceError, ConformanceSuite, run_conformance
from checkpoint.testing.script import config
from tests.checkpoint.plain import AsyncOnlySaver, DeletingSaver, FileSaver, PlainSaver

ROOT = Path(__file__).resolve().parents[2]

# ---- savers that pass; ours are in test_savers.py


def test_a_saver_with_four_methods_passes_base() -> None:
    report = run_conformance(PlainSaver)
    report.raise_for_failures()
    assert report.capabilities == {"filter", "delta_channel_history"}
    assert {(result.name, result.colour) for result in report.of("passed")} == {
        (check.name, "sync") for check in CHECKS.values() if check.level == "base" and check.needs <= {"filter"}
    }
    reasons = {result.message for result in report.of("skipped")}
    assert any("aput_writes" in reason for reason in reasons)
    assert any("delete_thread" in reason for reason in reasons)


def test_async_only_savers_are_checked_in_their_colour() -> None:
    report = run_conformance(AsyncOnlySaver)
    report.raise_for_failures()
    assert {result.colour for result in report.of("passed")} == {"async"}


def names_of(*levels: str) -> list[str]:
    return [check.name for check in CHECKS.values() if check.level in levels]


def test_a_saver_in_a_file_is_durable() -> None:
    report = run_conformance(FileSaver, level="durable", only=names_of("base", "durable"))
    report.raise_for_failures()
    assert {"puts_survive_kill_9", "two_processes_put"} <= {result.name for result in report.of("passed")}


# ---- savers with one bug: base

BASE: dict[str, type] = {}
FULL: dict[str, type] = {}
DURABLE: dict[str, type] = {}


def wrong(table: dict[str, type], check: str) -> Callable[[type], type]:
    """This class fails this check."""

    def register(cls: type) -> type:
        assert check not in table
        table[check] = cls
        return cls

    return register


@wrong(BASE, "forks_read_their_own_branch")
class CountsVersions(PlainSaver):
    """Int versions: the two children of a checkpoint share the blob of the next version."""

    def get_next_version(self, current: Any, channel: Any) -> Any:
        return (current or 0) + 1


@wrong(BASE, "put_returns_the_config_of_the_new_checkpoint")
class ReturnsItsInput(PlainSaver):
    def put(self, where: Any, *args: Any) -> Any:
        super().put(where, *args)
        return where


@wrong(BASE, "values_survive")
class DropsEmptyValues(PlainSaver):
    def keep_values(self, key: Any, values: Any, versions: Any, new_versions: Any) -> None:
        super().keep_values(key, {name: value for name, value in values.items() if value}, versions, new_versions)


@wrong(BASE, "versions_and_seen_survive")
class ForgetsSeen(PlainSaver):
    def put(self, where: Any, checkpoint: Any, *args: Any) -> Any:
        return super().put(where, {**checkpoint, "versions_seen": {}}, *args)


@wrong(BASE, "metadata_survives")
class KnowsFourKeys(PlainSaver):
    def metadata(self, where: Any, metadata: Any) -> Any:
        return {key: metadata[key] for key in ("source", "step", "parents", "run_id") if key in metadata}


@wrong(BASE, "namespaces")
class IgnoresNamespaces(PlainSaver):
    def key(self, where: Any) -> Any:
        return where["configurable"]["thread_id"], ""


@wrong(BASE, "many_puts_are_all_there")
class KeepsTheNewestTen(PlainSaver):
    def put(self, where: Any, *args: Any) -> Any:
        made = super().put(where, *args)
        rows = self.rows[self.key(where)]
        for old in [*rows][:-10]:
            del rows[old]
        return made


@wrong(BASE, "threads_are_separate")
class SharesValues(PlainSaver):
    def get_next_version(self, current: Any, channel: Any) -> Any:
        return f"{int(str(current or 0)) + 1:08}"

    def keep_values(self, key: Any, values: Any, versions: Any, new_versions: Any) -> None:
        super().keep_values(("", ""), values, versions, new_versions)

    def values(self, key: Any, versions: Any) -> dict[str, Any]:
        return super().values(("", ""), versions)


@wrong(BASE, "parents")
class IsItsOwnParent(PlainSaver):
    def parent(self, key: Any, parent: str | None) -> Any:
        return config(*key, self.newest(self.rows[key]))


@wrong(BASE, "unknown_parents_are_accepted")
class ChecksParents(PlainSaver):
    def put(self, where: Any, *args: Any) -> Any:
        parent = where["configurable"].get("checkpoint_id")
        if parent is not None and parent not in self.rows.get(self.key(where), {}):
            raise CheckpointNotFoundError("no such parent", thread_id="t")
        return super().put(where, *args)


@wrong(BASE, "unchanged_channels_keep_their_values")
class StoresChangesOnly(PlainSaver):
    def put(self, where: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        return super().put(where, {**checkpoint, "channel_versions": new_versions}, metadata, new_versions)


@wrong(BASE, "channels_come_and_go")
class RemembersDroppedChannels(PlainSaver):
    def values(self, key: Any, versions: Any) -> dict[str, Any]:
        old = {k[2]: value for k, value in self.blobs.items() if k[:2] == key and k[2] not in versions}
        return {**old, **super().values(key, versions)}


@wrong(BASE, "repeated_writes_are_stored_once")
class AppendsWrites(PlainSaver):
    def keep_write(self, kept: dict[Any, Any], key: Any, write: Any) -> None:
        kept[key[0], len(kept) + 10] = write


@wrong(BASE, "special_writes_survive")
class KeepsOneSpecialWrite(PlainSaver):
    def keep_write(self, kept: dict[Any, Any], key: Any, write: Any) -> None:
        super().keep_write(kept, (key[0], max(key[1], -1)), write)


@wrong(BASE, "writes_belong_to_one_checkpoint")
class CarriesWritesOn(PlainSaver):
    """Keyed by thread and namespace: a following checkpoint starts with the writes of the one before."""

    def writes_key(self, where: Any) -> Any:
        return self.key(where)


@wrong(BASE, "writes_survive")
class OneWritePerChannel(PlainSaver):
    def keep_write(self, kept: dict[Any, Any], key: Any, write: Any) -> None:
        if all(channel != write[0] for channel, _ in kept.values()):
            super().keep_write(kept, key, write)


@wrong(BASE, "missing_things_are_none")
class RaisesForUnknownThreads(PlainSaver):
    def get_tuple(self, where: Any) -> Any:
        if self.key(where) not in self.rows:
            raise KeyError(where["configurable"]["thread_id"])
        return super().get_tuple(where)


@wrong(BASE, "newest_without_an_id")
class FindsTheFirst(PlainSaver):
    def newest(self, rows: dict[str, Any]) -> str | None:
        return min(rows, default=None)


@wrong(BASE, "fields_of_a_tuple")
class StampsItsOwnTime(PlainSaver):
    def put(self, where: Any, checkpoint: Any, *args: Any) -> Any:
        return super().put(where, {**checkpoint, "ts": "now"}, *args)


@wrong(BASE, "list_shows_all_newest_first")
class ListsOldestFirst(PlainSaver):
    def order(self, rows: dict[str, Any]) -> list[str]:
        return [*rows]


@wrong(BASE, "list_filters_by_metadata")
class TakesAnyKeyOfAFilter(PlainSaver):
    def fits(self, metadata: Any, wanted: Any) -> bool:
        return not wanted or any(metadata.get(key) == value for key, value in wanted.items())


@wrong(BASE, "list_before")
class IgnoresBefore(PlainSaver):
    def is_before(self, entry: Any, before: Any) -> bool:
        return True


@wrong(BASE, "list_limit")
class ShowsOneMore(PlainSaver):
    def list(self, where: Any, *, limit: Any = None, **kwargs: Any) -> Iterator[Any]:
        return super().list(where, limit=None if limit is None else limit + 1, **kwargs)


class LimitsBeforeFiltering(PlainSaver):
    def list(self, where: Any, *, filter: Any = None, before: Any = None, limit: Any = None) -> Iterator[Any]:
        for entry in super().list(where, before=before, limit=limit):
            if self.fits(entry.metadata, filter or {}):
                yield entry


def test_limits_before_filtering_fail() -> None:
    assert run_conformance(LimitsBeforeFiltering).failed_checks == {"list_filters_by_metadata"}


@wrong(BASE, "list_includes_writes")
class ListsWithoutWrites(PlainSaver):
    def list(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        for entry in super().list(*args, **kwargs):
            yield entry._replace(pending_writes=[])


@wrong(BASE, "delete_thread_removes_everything")
class DeletesTheRootOnly(DeletingSaver):
    def goes(self, key: Any, thread_id: str) -> bool:
        return super().goes(key, thread_id) and key[1] == ""


@pytest.mark.parametrize("check", BASE)
def test_wrong_savers_fail_base(check: str) -> None:
    report = run_conformance(BASE[check])
    assert check in report.failed_checks, report
    assert not report.ok
    with pytest.raises(ConformanceError, match=check):
        report.raise_for_failures()


# ---- full


@wrong(FULL, "regular_writes_of_a_task_are_kept_as_first_written")
class OverwritesRegularWrites(InMemorySaver):
    def put_writes(self, where: Any, writes: Any, task_id: str, task_path: str = "", **more: Any) -> None:
        super().put_writes(where, writes, task_id, task_path, replace=True)


@wrong(FULL, "large_attempts_do_not_mix")
class MixesAttempts(PlainSaver):
    """First wins by position in the list, but a longer value is taken for an attempt that got further."""

    def keep_write(self, kept: dict[Any, Any], key: Any, write: Any) -> None:
        if key not in kept or len(write[1]) > 6000:
            kept[key] = write


@wrong(FULL, "special_writes_are_replaced_one_by_one")
class DecidesPerCall(InMemorySaver):
    """Replaces special writes only in calls that have no others."""

    def put_writes(self, where: Any, writes: Any, task_id: str, task_path: str = "", **more: Any) -> None:
        if not all(channel in WRITES_IDX_MAP for channel, _ in writes):
            stored = [write[1] for write in self.get_tuple(where).pending_writes if write[0] == task_id]  # type: ignore[union-attr]
            writes = [write for write in writes if write[0] not in stored]
        super().put_writes(where, writes, task_id, task_path, **more)


@wrong(FULL, "replace_overrides_regular_writes")
class IgnoresReplace(InMemorySaver):
    def put_writes(self, where: Any, writes: Any, task_id: str, task_path: str = "", *, replace: bool = False) -> None:
        super().put_writes(where, writes, task_id, task_path)


@wrong(FULL, "writes_are_ordered_by_path")
class KeepsInsertionOrder(PlainSaver):
    pass


@wrong(FULL, "writes_need_their_checkpoint")
class AcceptsOrphans(PlainSaver):
    pass


@wrong(FULL, "writes_after_the_next_checkpoint_stay_with_theirs")
class WritesToTheNewest(InMemorySaver):
    def put_writes(self, where: Any, *args: Any, **kwargs: Any) -> None:
        given = where["configurable"]
        newest = self.get_tuple(config(given["thread_id"], given.get("checkpoint_ns", "")))
        super().put_writes(newest.config if newest else where, *args, **kwargs)


@wrong(FULL, "errors_read_back_as_text")
class KeepsExceptions(PlainSaver):
    pass


@wrong(FULL, "an_id_that_is_put_again_is_replaced")
class MovesWhatIsPutAgain(InMemorySaver):
    def put(self, where: Any, checkpoint: Any, *args: Any) -> Any:
        thread = self._threads.get(str(where["configurable"]["thread_id"]))
        for space in thread.spaces.values() if thread is not None else ():
            space.aliases.pop(checkpoint["id"], None)
        return super().put(where, checkpoint, *args)


@wrong(FULL, "the_newest_is_what_was_put_last")
class TakesTheGreatestId(PlainSaver):
    def newest(self, rows: dict[str, Any]) -> str | None:
        return max(rows, default=None)


@wrong(FULL, "all_values_are_stored")
class StoresWhatIsNamed(PlainSaver):
    pass


@wrong(FULL, "all_fields_survive")
class KnowsItsFields(InMemorySaver):
    def put(self, where: Any, checkpoint: Any, *args: Any) -> Any:
        return super().put(where, {**checkpoint, "updated_channels": None}, *args)


@wrong(FULL, "namespace_and_thread_in_configs")
class NeedsANamespace(InMemorySaver):
    def put(self, where: Any, *args: Any) -> Any:
        where["configurable"]["checkpoint_ns"]
        return super().put(where, *args)


@wrong(FULL, "thread_ids_are_text")
class TakesIdsAsTheyAre(PlainSaver):
    pass


@wrong(FULL, "metadata_is_merged")
class StoresMetadataAsGiven(PlainSaver):
    def metadata(self, where: Any, metadata: Any) -> Any:
        return dict(metadata)


@wrong(FULL, "metadata_must_be_json")
class TakesAnyMetadata(PlainSaver):
    pass


class _Shares(InMemorySaver):
    """Keeps the objects it was given, or gave."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Any] = {}

    def _shared(self, found: Any) -> Any:
        return self.known.setdefault(found.checkpoint["id"], found) if found is not None else None


@wrong(FULL, "what_is_returned_is_private")
class CachesTuples(_Shares):
    def get_tuple(self, where: Any) -> Any:
        found = super().get_tuple(where)
        return self._shared(found) if found is not None and found.pending_writes else found


@wrong(FULL, "what_is_given_may_be_changed_afterwards")
class KeepsWhatItIsGiven(_Shares):
    def put(self, where: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        self.known[checkpoint["id"]] = checkpoint
        return super().put(where, checkpoint, metadata, new_versions)

    def get_tuple(self, where: Any) -> CheckpointTuple | None:
        found = super().get_tuple(where)
        return found._replace(checkpoint=self.known[found.checkpoint["id"]]) if found else None


@wrong(FULL, "limits")
class TakesZeroForAll(InMemorySaver):
    def list(self, where: Any, *, limit: Any = None, **kwargs: Any) -> Iterator[Any]:
        return super().list(where, limit=limit or None, **kwargs)


@wrong(FULL, "namespaces_are_merged")
class ListsTheRootOnly(InMemorySaver):
    def list(self, where: Any, **kwargs: Any) -> Iterator[Any]:
        if where is not None:
            where = {"configurable": {"checkpoint_ns": "", **where["configurable"]}}
        return super().list(where, **kwargs)


@wrong(FULL, "all_threads")
class ListsThreadByThread(PlainSaver):
    pass


@wrong(FULL, "before_of_elsewhere")
class IgnoresUnknownBefore(InMemorySaver):
    def list(self, where: Any, *, before: Any = None, **kwargs: Any) -> Iterator[Any]:
        if before is not None and self.get_tuple(before) is None:
            before = None
        return super().list(where, before=before, **kwargs)


@wrong(FULL, "filters")
class TakesTrueForOne(PlainSaver):
    pass


@wrong(FULL, "hostile_filters")
class FiltersByPattern(InMemorySaver):
    """As SQL's LIKE does it: `%` and `_` in the value match anything."""

    def list(self, where: Any, *, filter: Any = None, **kwargs: Any) -> Iterator[Any]:
        for entry in super().list(where, **kwargs):
            if all(self._like(entry.metadata.get(key), value) for key, value in (filter or {}).items()):
                yield entry

    @staticmethod
    def _like(have: Any, want: Any) -> bool:
        pattern = str(want).replace("[", "[[]").replace("%", "*").replace("_", "?")
        return fnmatch.fnmatchcase(str(have), pattern)


@wrong(FULL, "hostile_ids")
class JoinsIds(PlainSaver):
    """Cuts what it is given at a NUL, as C strings end."""

    def key(self, where: Any) -> Any:
        return tuple(part.split("\x00")[0] for part in super().key(where))


@wrong(FULL, "hostile_checkpoint_ids")
class FoldsCase(InMemorySaver):
    def get_tuple(self, where: Any) -> Any:
        found = super().get_tuple(where)
        if found is None and where["configurable"].get("checkpoint_id"):
            upper = where["configurable"]["checkpoint_id"].upper()
            found = super().get_tuple(config(where["configurable"]["thread_id"], "", upper))
        return found


@wrong(FULL, "reading_and_writing_while_listing")
class PagesByOffset(InMemorySaver):
    """A page of 50 starts at an offset: what is put meanwhile shifts the rest."""

    def list(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        offset = 0
        while page := [*super().list(*args, **kwargs)][offset : offset + 50]:
            yield from page
            offset += 50


@wrong(FULL, "types_survive")
class MakesTuplesLists(InMemorySaver):
    def put(self, where: Any, checkpoint: Any, *args: Any) -> Any:
        values = {k: list(v) if type(v) is tuple else v for k, v in checkpoint["channel_values"].items()}
        return super().put(where, {**checkpoint, "channel_values": values}, *args)


@wrong(FULL, "copies_are_equal")
class CopiesWithoutWrites(InMemorySaver):
    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        super().copy_thread(source_thread_id, target_thread_id)
        if target_thread_id in self._threads:
            for space in self._threads[target_thread_id].spaces.values():
                space.writes.clear()


@wrong(FULL, "copies_never_mix")
class CopiesOverWhatIsThere(InMemorySaver):
    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self.delete_thread(target_thread_id)
        super().copy_thread(source_thread_id, target_thread_id)


@wrong(FULL, "a_copy_and_its_source_go_on_apart")
class CopiesByReference(InMemorySaver):
    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        super().copy_thread(source_thread_id, target_thread_id)
        if target_thread_id in self._threads:
            self._threads[target_thread_id].spaces = self._threads[source_thread_id].spaces


@wrong(FULL, "a_fork_goes_on_from_what_is_addressed")
class ForksTheNewest(InMemorySaver):
    def fork(self, where: Any) -> Any:
        given = where["configurable"]
        return super().fork(config(given["thread_id"], given.get("checkpoint_ns", "")))


@wrong(FULL, "forks_copy_no_value")
class ForksByPut(InMemorySaver):
    """What a saver can do that has the four methods only."""

    def fork(self, where: Any) -> Any:
        found = self.get_tuple(where)
        versions = {name: version + 1 for name, version in found.checkpoint["channel_versions"].items()}
        forked = {**found.checkpoint, "id": checkpoint_id(9), "channel_versions": versions}
        return self.put(found.config, forked, {**found.metadata, "source": "fork"}, versions)


@wrong(FULL, "forks_go_on_apart")
class ForksIntoTheSameChain(InMemorySaver):
    """A fork is taken for the newest row of the line it was forked from."""

    def put(self, where: Any, checkpoint: Any, *args: Any) -> Any:
        found = super().get_tuple(config(where["configurable"]["thread_id"]))
        if found is not None and found.metadata["source"] == "fork":
            kept = found.checkpoint["channel_values"]
            values = {**checkpoint["channel_values"], **{k: v for k, v in kept.items() if isinstance(v, list)}}
            checkpoint = {**checkpoint, "channel_values": values}
        return super().put(where, checkpoint, *args)


@wrong(FULL, "forks_of_nothing")
class ForksNothing(InMemorySaver):
    def fork(self, where: Any) -> Any:
        try:
            return super().fork(where)
        except CheckpointNotFoundError:
            return self.put(where, empty_checkpoint() | {"id": checkpoint_id(0)}, {}, {})


@wrong(FULL, "a_fork_takes_its_thread")
class ForksWithoutAClaim(InMemorySaver):
    """The head protects the thread's steps, and nothing its task writes."""

    def fork(self, where: Any) -> Any:
        thread = self._threads[where["configurable"]["thread_id"]]
        epoch = thread.epoch
        try:
            return super().fork(where)
        finally:
            thread.epoch = epoch


@wrong(FULL, "a_fork_is_an_execution_of_its_own")
class ForksTheExecution(InMemorySaver):
    def encode(self, commit: StepCommit) -> Any:
        if commit.source == "fork":
            commit.facts = {}
        return super().encode(commit)


@wrong(FULL, "delta_history")
class IncludesTheTarget(InMemorySaver):
    def get_delta_channel_history(self, *, config: Any, channels: Any) -> Any:
        found = super().get_delta_channel_history(config=config, channels=channels)
        target = self.get_tuple(config)
        for write in target.pending_writes or () if target else ():
            if write[1] in found:
                found[write[1]]["writes"].append(write)
        return found


@wrong(FULL, "delta_history_follows_parents")
class FollowsTheListing(InMemorySaver):
    """Takes what was put before for the ancestors: a branch gets the writes of the other one."""

    def get_tuple(self, where: Any) -> Any:
        found = super().get_tuple(where)
        older = [*self.list(where, before=found.config, limit=1)] if found and found.parent_config else []
        return found._replace(parent_config=older[0].config) if found and older else found

    def list(self, where: Any, **kwargs: Any) -> Iterator[Any]:
        given = where["configurable"]
        return super().list(config(given["thread_id"], given.get("checkpoint_ns", "")), **kwargs)


# ---- full, native: a saver with own public methods is not native, so these change what is below them


@wrong(FULL, "two_runs_on_one_thread")
class ChecksNoClaim(InMemorySaver):
    def _check_claim(self, *args: Any) -> None:
        pass

    def _check_step(self, *args: Any) -> None:
        pass


@wrong(FULL, "a_run_is_fenced_by_a_newer_one")
class ChecksTheHeadOnly(InMemorySaver):
    """Compare-and-set on the head: task rows and nested namespaces of the older run get through."""

    def submit(self, encoded: Any) -> None:
        self.write([encoded])

    def _check_claim(self, step: Any, thread: Any) -> None:
        if not step.claim.claimed:
            super()._check_claim(step, thread)


@wrong(FULL, "a_failed_write_ends_its_run")
class ForgetsFailures(InMemorySaver):
    def _store(self, steps: Any) -> None:
        steps[0].claim.poisoned = None
        try:
            super()._store(steps)
        finally:
            steps[0].claim.poisoned = None


@wrong(FULL, "a_batch_is_stored_whole_or_not_at_all")
class StoresOneByOne(InMemorySaver):
    """The commit of the outer namespace is refused after the inner one's was stored."""

    def _check_claim(self, step: Any, thread: Any) -> None:
        if step.space.ns == "":
            super()._check_claim(step, thread)

    def write(self, batch: Any, *, durability: Any = "sync") -> None:
        for encoded in batch:
            others, encoded.others = encoded.others, ()
            for other in others:
                super().write([other])
            super().write([encoded])


@wrong(FULL, "a_deleted_thread_stays_deleted")
class UsesKeysAgain(InMemorySaver):
    """A thread that is made again looks as the deleted one did."""

    def _store(self, steps: Any) -> None:
        claim = steps[0].claim
        if claim.thread_id not in self._threads:
            claim.thread_pk, claim.claimed = None, False
        super()._store(steps)


@wrong(FULL, "values_are_those_at_encode")
class EncodesLate(InMemorySaver):
    def encode(self, commit: StepCommit) -> Any:
        return _Late(commit)

    def write(self, batch: Any, *, durability: Any = "sync") -> None:
        super().write([super(EncodesLate, self).encode(late.commit) for late in batch])

    def submit(self, encoded: Any) -> None:
        self.write([encoded])


class _Late:
    def __init__(self, commit: StepCommit) -> None:
        self.commit = commit
        self.size = 0


@wrong(FULL, "nested_runs_start_where_their_parent_is")
class StartsAtTheNewestOfTheNamespace(InMemorySaver):
    """Forks read the other branch."""

    def load(self, where: Any, *, claim: Any = None, up_rev: Any = None, at_rev: Any = None) -> Any:
        if claim is not None and (found := super().load(where)).checkpoint_id is not None:
            at_rev, up_rev = found.rev, None
        return super().load(where, claim=claim, up_rev=up_rev, at_rev=at_rev)


@wrong(FULL, "elements_written_again_are_stored_again")
class TrustsIdentity(InMemorySaver):
    """Takes an element that is the same object for the same value (D23)."""

    def encode(self, commit: StepCommit) -> Any:
        for op in commit.ops.values():
            op.written = ()
        return super().encode(commit)


@wrong(FULL, "facts_stay_with_their_line")
class TakesFactsOfTheNewest(InMemorySaver):
    """A fork is told what was remembered after it was left."""

    def load(self, where: Any, **kwargs: Any) -> Any:
        loaded = super().load(where, **kwargs)
        if loaded.checkpoint_ns == "":
            loaded.facts = super().load({"configurable": {"thread_id": loaded.claim.thread_id}}).facts
        return loaded


@wrong(FULL, "the_newest_checkpoint_of_a_run")
class FindsTheOldestOfARun(InMemorySaver):
    def last_of_run(self, where: Any, run_id: str) -> str | None:
        found = [entry.checkpoint_id for entry in self.history(where, filter={"run_id": run_id})]
        return found[-1] if found else None


@wrong(FULL, "bytes_of_a_superstep")
class StoresWholeValues(InMemorySaver):
    def encode(self, commit: StepCommit) -> Any:
        commit.claim.spaces[commit.checkpoint_ns].chains.clear()
        return super().encode(commit)


@wrong(FULL, "nothing_is_stored_before_the_first_write")
class ClaimsWhenItLoads(InMemorySaver):
    def load(self, where: Any, **kwargs: Any) -> Any:
        with self._writing() as tx:
            tx.take(str(where["configurable"]["thread_id"]), 1)
        return super().load(where, **kwargs)


@pytest.mark.parametrize("check", FULL)
def test_wrong_savers_fail_full(check: str) -> None:
    report = run_conformance(FULL[check], level="full", only=[check])
    assert report.failed_checks == {check}, report
    assert not any(result.message.startswith("raised") for result in report.of("failed")) or check in MAY_RAISE, report


MAY_RAISE = {"metadata_must_be_json", "namespace_and_thread_in_configs", "nested_runs_start_where_their_parent_is"}
"""Savers whose bug is an exception, or ends in one."""


# ---- durable


@wrong(DURABLE, "puts_survive_kill_9")
class SavesAtTheEnd(FileSaver):
    def save(self) -> None:
        pass

    def read(self) -> None:
        pass

    def __enter__(self) -> SavesAtTheEnd:
        super().read()
        return self

    def __exit__(self, *args: Any) -> None:
        super().save()


@wrong(DURABLE, "everything_is_there_after_reopening")
class SavesNoWrites(FileSaver):
    def read(self) -> None:
        mine = self.writes
        super().read()
        self.writes = mine


@wrong(DURABLE, "what_was_deleted_stays_deleted")
class DeletesInMemory(FileSaver):
    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.deleted: set[str] = set()

    def delete_thread(self, thread_id: str) -> None:
        self.deleted.add(thread_id)

    def read(self) -> None:
        super().read()
        for kept in (self.rows, self.blobs, self.writes):
            for key in [key for key in kept if key[0] in self.deleted]:
                del kept[key]  # type: ignore[attr-defined]

    def save(self) -> None:
        seen = self.rows, self.blobs, self.writes
        if self.place.exists():
            old = pickle.loads(self.place.read_bytes())
            self.rows, self.blobs, self.writes = ({**before, **now} for before, now in zip(old, seen, strict=True))
        super().save()
        self.rows, self.blobs, self.writes = seen


@wrong(DURABLE, "two_savers_see_each_other")
class ReadsOnce(FileSaver):
    def read(self) -> None:
        if not self.rows:
            super().read()


@wrong(DURABLE, "two_processes_put")
class WritesWhatItKnows(FileSaver):
    """Replaces the file by its own memory, which it read when it was asked last."""

    def changed(self, name: str, *args: Any, **kwargs: Any) -> Any:
        outcome = getattr(DeletingSaver, name)(self, *args, **kwargs)
        self.save()
        return outcome


@wrong(DURABLE, "a_lease_keeps_other_processes_off")
class IgnoresLeases(SqliteSaver):
    def _busy(self, *args: Any) -> None:
        return None


@wrong(DURABLE, "a_released_lease_frees_at_once")
class KeepsLeases(SqliteSaver):
    def release(self, claim: Any) -> None:
        pass


@wrong(DURABLE, "the_lease_of_a_dead_process_is_void")
class TakesTheDeadForAlive(SqliteSaver):
    def _busy(self, thread_id: str, address: Any) -> Any:
        return _lease(thread_id, address) if address.lease_until > time.time() else None


@wrong(DURABLE, "a_lease_is_over_when_its_time_is")
class KnowsNoEnd(SqliteSaver):
    def _busy(self, thread_id: str, address: Any) -> Any:
        return _lease(thread_id, address)


class TellsNoOwner(SqliteSaver):
    def _busy(self, thread_id: str, address: Any) -> Any:
        return ThreadBusyError("busy", thread_id=thread_id, until=address.lease_until)


class TellsNoEnd(SqliteSaver):
    def _busy(self, thread_id: str, address: Any) -> Any:
        return ThreadBusyError("busy", thread_id=thread_id, owner_run_id="owner")


class RefusesTheOwner(SqliteSaver):
    """Asks before each commit, and does not know its own lease."""

    def _store(self, connections: Any, claim: Any, *args: Any) -> None:
        if claim.claimed and claim.lease is not None:
            raise ThreadBusyError("busy", thread_id=claim.thread_id, owner_run_id="owner", until=claim.lease)
        super()._store(connections, claim, *args)


class RefusesOnlyWhoLeases(SqliteSaver):
    def _busy(self, *args: Any) -> Any:
        return super()._busy(*args) if self._terms is not None else None


def _lease(thread_id: str, address: Any) -> ThreadBusyError:
    owner = json.loads(address.lease_owner)[3]
    return ThreadBusyError("busy", thread_id=thread_id, owner_run_id=owner, until=address.lease_until)


@pytest.mark.parametrize("saver", [TellsNoOwner, TellsNoEnd, RefusesTheOwner, RefusesOnlyWhoLeases])
def test_wrong_leases_fail(saver: type) -> None:
    report = run_conformance(saver, level="durable", only=["a_lease_keeps_other_processes_off"])
    assert report.failed_checks, report


@pytest.mark.parametrize("check", DURABLE)
def test_wrong_savers_fail_durable(check: str) -> None:
    report = run_conformance(DURABLE[check], level="durable", only=[check])
    assert report.failed_checks == {check}, report


def test_unnoticed_damage_fails() -> None:
    def damage(place: Path) -> dict[str, Callable[[], object]]:
        def change() -> None:
            rows, blobs, writes = pickle.loads(place.read_bytes())
            blobs = {key: "changed" if key[2] == "doc" else value for key, value in blobs.items()}
            place.write_bytes(pickle.dumps((rows, blobs, writes)))

        return {"another value": change, "nothing at all": lambda: None}

    report = run_conformance(FileSaver, level="durable", only=["damage_is_found"], damage=damage)
    assert "another value" in report.of("failed")[0].message
    report = run_conformance(
        SqliteSaver, level="durable", only=["damage_is_found"], damage=lambda place: {"none": lambda: None}
    )
    assert report.failed_checks == {"damage_is_found"}


# ---- the kit itself


def test_there_are_enough_wrong_savers() -> None:
    assert BASE.keys() <= CHECKS.keys()
    untested = {check.name for check in CHECKS.values() if check.level == "base"} - BASE.keys()
    assert untested == {"put_then_get", "task_path_is_accepted"}


def test_reports() -> None:
    report = run_conformance(IgnoresBefore, only=["list_before", "parents", "delete_thread_removes_everything"])
    assert (len(report.of("failed")), len(report.of("passed")), len(report.of("skipped"))) == (1, 1, 4)
    shown = str(report)
    assert "IgnoresBefore, level base: 1 passed, 1 failed, 4 skipped" in shown
    assert CHECKS["list_before"].rule in shown
    (failed,) = report.of("failed")
    assert (failed.name, failed.colour, failed.level, failed.outcome) == ("list_before", "sync", "base", "failed")
    assert "expected" in failed.message


def test_objects_that_are_no_savers_fail() -> None:
    class Nothing:
        pass

    assert not run_conformance(Nothing).ok

    class Half(PlainSaver):
        put_writes = None  # type: ignore[assignment]

    def broken() -> Any:
        raise OSError("no disk")

    assert not run_conformance(Half).ok
    report = run_conformance(broken)
    assert report.failed_checks == {"saver"}
    assert "no disk" in str(report)
    assert not run_conformance(PlainSaver, only=["delete_thread_removes_everything"]).ok


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match="level"):
        run_conformance(PlainSaver, level="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="flying"):
        run_conformance(PlainSaver, capabilities=["flying"])
    with pytest.raises(ValueError, match="a_run"):
        run_conformance(PlainSaver, only=["a_run"])


def test_capabilities_can_be_told() -> None:
    only = ["delete_thread_removes_everything", "copies_never_mix"]
    assert run_conformance(InMemorySaver, level="full", capabilities=[], only=only).of("passed") == []
    told = run_conformance(PlainSaver, level="full", capabilities=["delete_thread"], only=only)
    assert told.failed_checks == {"delete_thread_removes_everything"}
    assert {need for check in CHECKS.values() for need in check.needs} <= {*CAPABILITIES, "reopen", "damage", "leases"}


def test_factories_of_all_kinds() -> None:
    @contextlib.contextmanager
    def entered() -> Iterator[Any]:
        yield DeletingSaver()
        closed.append("sync")

    @contextlib.asynccontextmanager
    async def aentered() -> Any:
        yield AsyncOnlySaver()
        closed.append("async")

    async def awaited() -> Any:
        return DeletingSaver()

    closed: list[str] = []
    for factory in (entered, aentered, awaited):
        report = run_conformance(factory, only=["put_then_get"])
        report.raise_for_failures()
        assert len(report.of("passed")) == 1
    # Once in each colour to look at it, once for the check.
    assert sorted(closed) == ["async"] * 3 + ["sync"] * 3


def test_without_a_name_there_are_no_other_processes() -> None:
    report = run_conformance(lambda place: FileSaver(place), level="durable", only=["puts_survive_kill_9"])
    assert not report.of("passed")
    assert {result.outcome for result in report.results} == {"skipped"}


def test_suites_without_a_saver() -> None:
    with pytest.raises(NotImplementedError):
        ConformanceSuite().make_saver(Path("nowhere"))

    class Nothing(ConformanceSuite):
        def make_saver(self) -> Any:  # type: ignore[override]
            return object()

    with pytest.raises(ConformanceError):
        Nothing().pytest_generate_tests(_Metafunc())


class _Metafunc:
    fixturenames = ("conformance_case", "tmp_path")

    def parametrize(self, name: str, cases: Any, ids: Any) -> None:
        assert name == "conformance_case"
        assert ids == [case.name for case in cases]
        self.cases = cases


def test_a_suite_reports_to_pytest(tmp_path: Path) -> None:
    class Plain(ConformanceSuite):
        def make_saver(self) -> Any:  # type: ignore[override]
            return IgnoresBefore()

    metafunc = _Metafunc()
    Plain().pytest_generate_tests(metafunc)
    cases = {case.name: case for case in metafunc.cases}
    assert all(name.endswith("-sync") for name in cases)
    Plain().test_conformance(cases["parents-sync"], tmp_path)
    with pytest.raises(ConformanceError, match="before"):
        Plain().test_conformance(cases["list_before-sync"], tmp_path)
    with pytest.raises(unittest.SkipTest, match="delete_thread"):
        Plain().test_conformance(cases["delete_thread_removes_everything-sync"], tmp_path)


def test_the_kit_needs_no_pytest() -> None:
    code = (
        "import sys\nfrom checkpoint.testing import run_conformance, ConformanceSuite\n"
        "from checkpoint.memory import InMemorySaver\nrun_conformance(InMemorySaver).raise_for_failures()\n"
        "assert not {'pytest', 'pregel', 'sqlite3'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)


def test_checks_complain_without_assert_statements() -> None:
    for path in sorted((ROOT / "checkpoint" / "testing").glob("*_checks.py")):
        asserts = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]
        shown = [ast.unparse(node) for node in asserts]
        assert all("is not None" in text for text in shown), f"{path.name}: {shown}"
