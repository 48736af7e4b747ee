"""Level durable: what must survive closing the saver, killing its process, and other processes at work; and damage, which
must be found.

A place is opened again by the saver's `reopen`. Other processes run `checkpoint.testing.child`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from checkpoint.adapter import is_native
from checkpoint.base import CheckpointConflictError, CorruptCheckpointError, ThreadBusyError
from checkpoint.testing.checks import check
from checkpoint.testing.full_checks import TYPES
from checkpoint.testing.model import Model
from checkpoint.testing.report import Colour, ConformanceError, Skipped, present, raises, same, true
from checkpoint.testing.script import Line, ScriptedRun, config, id_of
from checkpoint.testing.subject import Subject, implements, missing_in

_WAIT_S: Final = 60
_LONG_S: Final = 3600.0
"""Seconds of a lease that nobody waits for."""
_SHORT_S: Final = 0.05
_GRACE_S: Final = 1.0
_NOT_FOUND: Final = 3


def _content(s: Subject) -> list[Any]:
    """Everything in all threads, by id."""
    return [
        (entry.config, entry.checkpoint, entry.metadata, entry.parent_config, entry.pending_writes)
        for entry in s.list(None)
    ]


def _fill(s: Subject) -> None:
    """Threads with a child namespace, a fork, writes, and all kinds of values."""
    line, child, other = Line(s), Line(s, ns="child:1"), Line(s, "u")
    for n in range(5):
        where = line.put({"n": n, "l": [n] * 200, "t": "t" * 900 * n})
        s.put_writes(where, [("n", n), ("l", "x" * 3000)], f"task {n}", f"path {9 - n}")
        s.put_writes(where, [("__interrupt__", [n])], "asker")
        child.put({"c": n})
        if n == 2:
            line.branch().put({"l": ["fork"] * 100})
    other.put(dict(TYPES))


# ---- reopening


@check("durable", "reopen")
def everything_is_there_after_reopening(s: Subject) -> None:
    """A saver opened again over the same place finds what the closed one stored: all of it, in the same order."""
    with s.elsewhere("closed") as first:
        _fill(first)
        before = _content(first)
        newest = [first.get_tuple(config(*address)) for address in (("t", ""), ("t", "child:1"), ("u", ""))]
    for n in range(2):
        with first.reopened() as again:
            same(_content(again), before, f"content after opening it {n + 1} times")
            found = [again.get_tuple(config(*address)) for address in (("t", ""), ("t", "child:1"), ("u", ""))]
            same(found, newest, "the newest of each namespace")


@check("durable", "reopen")
def a_thread_goes_on_after_reopening(s: Subject) -> None:
    """Opened again, a thread is gone on with and forked as before, and its order goes on."""
    with s.elsewhere("closed") as first:
        line = Line(first)
        made = [line.put({"n": n, "l": [n] * 100}) for n in range(3)]
    meant = [{"n": n, "l": [n] * 100} for n in range(3)]
    for n in range(3, 6):
        with first.reopened() as again:
            line.store = again
            made.append(line.put({"n": n}))
            meant.append(dict(line.values))
            again.put_writes(made[-1], [("n", n)], "task")
    with first.reopened() as again:
        for where, values in zip(made, meant, strict=True):
            found = present(again.get_tuple(where), "a checkpoint").checkpoint["channel_values"]
            same(found, values, "values")
        found_ids = [entry.checkpoint["id"] for entry in again.list(config("t"))]
        same(found_ids, [id_of(where) for where in reversed(made)], "the listing")
        newest = present(again.get_tuple(config("t")), "newest")
        same((id_of(newest.config), [*newest.pending_writes]), (id_of(made[-1]), [("task", "n", 5)]), "the newest")


@check("durable", "reopen", "delete_thread")
def what_was_deleted_stays_deleted(s: Subject) -> None:
    """A deleted thread does not come back with a reopening, whole or in parts."""
    with s.elsewhere("closed") as first:
        _fill(first)
        first.delete_thread("t")
        before = _content(first)
    with first.reopened() as again:
        same(_content(again), before, "content")
        same(again.list(config("t")), [], "listing of the deleted thread")
        where = Line(again).put({"new": 1})
        found = present(again.get_tuple(where), "the thread, made again")
        same(found.checkpoint["channel_values"], {"new": 1}, "values of the thread, made again")
        same(found.pending_writes, [], "its writes")


@check("durable", "reopen")
def the_other_api_reads_the_same(s: Subject) -> None:
    """What was stored through one API is found through the other."""
    other: Colour = "sync" if s.is_async else "async"
    if missing_in(s.saver, other):
        raise Skipped(f"the saver has no {', '.join(missing_in(s.saver, other))}")
    with s.elsewhere("closed") as first:
        _fill(first)
        before = _content(first)
    with first.reopened(other) as again:
        same(_content(again), before, "content")


@check("durable", "reopen")
def two_savers_see_each_other(s: Subject) -> None:
    """Two savers open at once over one place see each other's writes at once."""
    with s.elsewhere("shared") as first:
        first.get_tuple(config("t"))
        with first.reopened() as second:
            line = Line(first)
            for n in range(6):
                line.store = (first, second)[n % 2]
                reader = (second, first)[n % 2]
                where = line.put({"n": n, "l": [n] * 100})
                line.store.put_writes(where, [("n", n)], "task")
                found = present(reader.get_tuple(config("t")), f"checkpoint {n} in the other saver")
                same(found.checkpoint["channel_values"], line.values, f"values of checkpoint {n} in the other saver")
                same([*found.pending_writes], [("task", "n", n)], f"writes of checkpoint {n} in the other saver")
            same(_content(second), _content(first), "content of both")


@check("durable", "native", "reopen")
def runs_survive_reopening(s: Subject) -> None:
    """What random programs committed, by every durability, is there after closing; the next claim has the next number."""
    with s.elsewhere("closed") as first:
        model = Model(first, 1)
        model.play(40)
        number = model.run.claim.number
        claimed = model.run.claim.claimed
    with first.reopened() as again:
        model.check(again)
        run = ScriptedRun(again)
        same(run.claim.number, number + 1 if claimed else number, "number of the next claim")
        run.step({"again": 1}).check(again)


@check("durable", "native", "reopen")
def runs_of_two_savers_conflict(s: Subject) -> None:
    """Two savers over one place fence each other's runs; the error tells thread, expected and actual head, and nothing
    of the refused step is stored (C2)."""
    with s.elsewhere("shared") as first, first.reopened() as second:
        run = ScriptedRun(first)
        run.step({"n": 0})
        newer = ScriptedRun(second)
        other = newer.step({"n": 1})
        task = run.task("late", [("n", 2)])
        before = _content(second)
        with raises(CheckpointConflictError, "a step of the older run, in the other saver") as refused:
            run.step({"n": 2}, writes=[task])
        error = refused.caught
        same((error.thread_id, error.ns), ("t", ""), "thread and namespace that the error names")
        same(error.expected, run.stored[0].id, "head that was expected")
        same(error.actual, other.id, "head that was found")
        same(_content(first), before, "what is stored, in the one saver")
        same(_content(second), before, "what is stored, in the other")
        newer.step({"n": 3}).check(first)


@check("durable", "native", "reopen", once=True)
def bytes_on_disk(s: Subject) -> None:
    """A superstep takes 2.7 times what it adds plus 300 bytes on the disk, task writes kept, and twice as many take twice
    as much, but for the new full copy that a chain of 1,000 gets (C3.3, C6)."""
    sizes = []
    for n_steps in (500, 1000, 2000):
        with s.elsewhere(f"{n_steps} steps") as first:
            run = ScriptedRun(first, durability="async")
            messages: list[Any] = []
            run.step({"messages": messages, "branch": None})
            for n in range(n_steps):
                new = f"{n:06}" + "x" * 220
                messages = [*messages, new]
                task = run.task(f"f4ef0ca2-f4d5-4a13-9a05-{n:012}", [("messages", [new])], path="~a, b")
                commit = run.prepare({"messages": messages, "branch": None}, writes=[task])
                run.stored.clear()
                first.commit(commit, durability="async")
        place = first.place
        paths = [path for path in (place.rglob("*") if place.is_dir() else [place]) if path.is_file()]
        if not paths:
            raise Skipped("the saver keeps no file at its place")
        sizes.append(sum(path.stat().st_size for path in paths))
        bound = n_steps * int(2.7 * 230 + 300)
        true(sizes[-1] <= bound, f"{n_steps} supersteps took {sizes[-1]} bytes, expected at most {bound}")
    true(sizes[1] <= 2.1 * sizes[0], f"twice as many supersteps took {sizes[1]} bytes instead of {sizes[0]}")


# ---- other processes


class _Child:
    """A process that runs one script of `checkpoint.testing.child`."""

    def __init__(self, s: Subject, script: str, name: str, *, lease_ttl: float | None = None) -> None:
        reference = s.opening.reference
        if reference is None:
            raise Skipped(
                "another process cannot open the saver: what reopens it is no function or class at the top of a module"
            )
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        words = [reference, str(s.place), s.colour, script, name, "" if lease_ttl is None else str(lease_ttl)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "checkpoint.testing.child", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def line(self) -> list[str]:
        """The words of the next line; waits for it. Complains if the process has ended instead."""
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        if not words:
            self.end()
            raise ConformanceError("the other process ended without a word")
        return words

    def does(self, word: str) -> list[str]:
        """Tell a script what to do; the words of its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.line()

    def kill(self) -> list[list[str]]:
        """Kill -9. Returns the lines that were not read yet."""
        self.process.kill()
        rest, _ = self.process.communicate(timeout=_WAIT_S)
        # The last line may be cut.
        return [line.split() for line in rest.splitlines(keepends=True) if line.endswith("\n")]

    def end(self) -> list[list[str]]:
        """Wait for the end; the lines that were not read yet. Complains about an error."""
        rest, errors = self.process.communicate(timeout=_WAIT_S)
        if self.process.returncode == _NOT_FOUND:
            raise Skipped(f"another process cannot open the saver: {errors.strip()}")
        if self.process.returncode:
            raise ConformanceError(f"the other process failed: {errors.strip()[-500:]}")
        return [line.split() for line in rest.splitlines()]


@contextmanager
def _children(*children: _Child) -> Iterator[None]:
    try:
        yield
    finally:
        for child in children:
            if child.process.poll() is None:
                child.kill()
            for pipe in (child.process.stdin, child.process.stdout, child.process.stderr):
                if pipe is not None:
                    pipe.close()


def _killed(s: Subject, script: str, n_lines: int) -> list[list[str]]:
    """Run a script, kill its process after so many lines; all lines it said."""
    child = _Child(s, script, "t")
    with _children(child):
        said = [child.line() for _ in range(n_lines)]
        said += child.kill()
    return said


@check("durable", "reopen")
def puts_survive_kill_9(s: Subject) -> None:
    """What `put` and `put_writes` had returned for when the process was killed is there; nothing is half there; the
    thread goes on."""
    for n_lines in (1, 8, 31):
        with s.elsewhere(f"killed {n_lines}") as first:
            first.get_tuple(config("t"))
        said = _killed(first, "put_forever", n_lines)
        with first.reopened() as again:
            _check_killed(again, said, {(n, made) for kind, n, made in said if kind == "put"})
            for kind, n, checkpoint_id in said:
                if kind == "writes":
                    found = present(again.get_tuple(config("t", "", checkpoint_id)), f"checkpoint {n}")
                    same([*found.pending_writes], [("task", "n", int(n))], f"acknowledged writes of checkpoint {n}")
            line = Line(again)
            newest = present(again.get_tuple(config("t")), "newest")
            line.config, line.versions = newest.config, dict(newest.checkpoint["channel_versions"])
            line.values = dict(newest.checkpoint["channel_values"])
            line.put({"n": "after"})
            found = present(again.get_tuple(config("t")), "the checkpoint put afterwards").checkpoint
            same(found["channel_values"], line.values, "values put afterwards")


def _check_killed(s: Subject, said: list[list[str]], acknowledged: set[tuple[str, str]]) -> None:
    """The acknowledged checkpoints are there, and at most one more; each has its values and its parent."""
    entries = [*reversed(s.list(config("t")))]
    numbers = [entry.checkpoint["channel_values"]["n"] for entry in entries]
    same(numbers, [*range(len(numbers))], "numbers of the stored checkpoints")
    stored = {(str(n), entry.checkpoint["id"]) for n, entry in enumerate(entries)}
    lost = acknowledged - stored
    true(not lost, f"{len(lost)} of {len(acknowledged)} acknowledged checkpoints are lost: {sorted(lost)[:3]}")
    same(len({made for _, made in stored}), len(stored), "number of different ids")
    for before, entry in zip([None, *entries], entries, strict=False):
        wanted = before.checkpoint["id"] if before is not None else None
        same(id_of(entry.parent_config), wanted, "parent of a stored checkpoint")
    true(len(said) > 0, "the other process said nothing")


@check("durable", "native", "reopen")
def commits_survive_kill_9(s: Subject) -> None:
    """Supersteps committed with durability `"sync"` before the process was killed are there with their task writes,
    without a gap, and a new run goes on (C13, I1-I3)."""
    for n_lines in (1, 12, 60):
        with s.elsewhere(f"killed {n_lines}") as first:
            first.get_tuple(config("t"))
        said = _killed(first, "commit_forever", n_lines)
        with first.reopened() as again:
            _check_killed(again, said, {(n, made) for _, n, made in said})
            entries = [*reversed(again.list(config("t")))]
            for n, entry in enumerate(entries):
                messages = [{"n": m, "x": "y" * 100} for m in range(1, n + 1)]
                same(entry.checkpoint["channel_values"], {"n": n, "l": messages}, f"values of step {n}")
                writes = [(f"task {n + 1}", "n", n + 1)] if n + 1 < len(entries) else []
                same([*entry.pending_writes], writes, f"writes under step {n}")
            run = ScriptedRun(again)
            same(run.id, entries[-1].checkpoint["id"], "what the next run loads")
            run.step({"l": [*run.values["l"], "after"]}).check(again)


@check("durable", "reopen")
def two_processes_put(s: Subject) -> None:
    """Two processes that put into one thread lose nothing of each other."""
    with s.elsewhere("shared") as first:
        first.get_tuple(config("t"))
        children = [_Child(first, "put_some", name) for name in ("a", "b")]
        with _children(*children):
            said = [(name, *words) for name, child in zip("ab", children, strict=True) for words in child.end()]
        found = {entry.checkpoint["id"]: entry for entry in first.list(config("t"))}
        same(len(said), 40, "number of acknowledged puts")
        for name, _, n, checkpoint_id in said:
            true(checkpoint_id in found, f"put {n} of process {name} is lost")
            entry = found[checkpoint_id]
            same(entry.checkpoint["channel_values"], {name: int(n)}, f"values of put {n} of process {name}")
            same(entry.metadata["who"], name, f"metadata of put {n} of process {name}")
        same(len(found), 40, "number of stored checkpoints")


@check("durable", "native", "reopen")
def two_processes_lose_no_update(s: Subject) -> None:
    """Two processes that read, add one and write, and begin again when refused, count every increment (C13, I7)."""
    with s.elsewhere("shared") as first:
        first.get_tuple(config("t"))
        children = [_Child(first, "increment", name) for name in ("a", "b")]
        with _children(*children):
            conflicts = [child.end() for child in children]
        same(len(conflicts), 2, "number of processes that ended")
        same(first.load(config()).values, {"n": 50}, "the sum")
        numbers = [entry.checkpoint["channel_values"]["n"] for entry in first.list(config("t"))]
        same(numbers, [*range(50, 0, -1)], "every value, newest first")


# ---- leases


@contextmanager
def _leased(s: Subject, lease_ttl: float) -> Iterator[tuple[Subject, _Child]]:
    """A saver, and a run of another process that has thread "t" with a lease of so many seconds; its run id is "owner"."""
    with s.elsewhere("leased") as first:
        first.get_tuple(config("t"))
        owner = _Child(first, "hold", "owner", lease_ttl=lease_ttl)
        with _children(owner):
            same(owner.line()[0], "held", "what the other process says first")
            yield first, owner


def _refused(s: Subject, changes: dict[str, Any]) -> ThreadBusyError:
    """Complain unless a run that is loaded now, and its first step, meet a lease. Returns what the step raises."""
    run = ScriptedRun(s)
    true(isinstance(run.claim.busy, ThreadBusyError), f"a load beside a lease: claim.busy is {run.claim.busy!r}")
    with raises(ThreadBusyError, "the first step of a run beside a lease") as refused:
        run.step(changes)
    error: ThreadBusyError = refused.caught
    return error


def _takes_over(s: Subject, owner: _Child) -> None:
    """Complain unless a run takes the thread at once; the older one, if it is alive, is refused then."""
    run = ScriptedRun(s)
    same(run.claim.busy, None, "why a run may not start")
    run.step({"n": "newer"}).check(s)
    if owner.process.poll() is None:
        same(owner.does("step")[0], "refused", "what the older run is told")
        run.step({"n": "newest"}).check(s)


@check("durable", "native", "reopen", "leases")
def a_lease_keeps_other_processes_off(s: Subject) -> None:
    """While a run of another process has a lease, a newcomer gets `ThreadBusyError` with thread, owner and end, whether
    its own saver leases or not, and stores nothing; it may read, and write other threads; the owner goes on (C5.2)."""
    with _leased(s, _LONG_S) as (first, owner):
        for number, lease_ttl in enumerate((None, _LONG_S)):
            with first.reopened(lease_ttl=lease_ttl) as second:
                before = _content(second)
                began = time.time()
                error = _refused(second, {"n": "newcomer"})
                same((error.thread_id, error.owner_run_id), ("t", "owner"), "thread and owner that the error names")
                true(
                    error.until is not None and began < error.until <= began + _LONG_S,
                    f"the error says that the lease lasts until {error.until!r}",
                )
                if implements(second.saver, "afork" if s.is_async else "fork"):
                    with raises(ThreadBusyError, "a fork beside a lease"):
                        second.fork(config("t"))
                same(_content(second), before, "what is stored after a newcomer was refused")
                ScriptedRun(second, config(f"other {number}")).step({"n": 1}).check(second)
            same(owner.does("step"), ["done", "step"], "what the owner says of its next step")
        same(first.load(config("t")).values, {"n": 2}, "the newest values")


@check("durable", "native", "reopen", "leases")
def a_released_lease_frees_at_once(s: Subject) -> None:
    """`release` ends a lease long before its time: the next run starts at once, and the older one is refused then as
    without leases (C5.2)."""
    with _leased(s, _LONG_S) as (first, owner):
        _refused(first, {"n": "too early"})
        same(owner.does("release"), ["done", "release"], "what the owner says of its release")
        _takes_over(first, owner)


@check("durable", "native", "reopen", "leases")
def the_lease_of_a_dead_process_is_void(s: Subject) -> None:
    """The lease of a process of this machine that was killed keeps nobody off (C5.2)."""
    with _leased(s, _LONG_S) as (first, owner):
        _refused(first, {"n": "too early"})
        owner.kill()
        _takes_over(first, owner)


@check("durable", "native", "reopen", "leases")
def a_lease_is_over_when_its_time_is(s: Subject) -> None:
    """A lease that is not renewed keeps others off until its end and no longer; it is politeness, so its owner is fenced
    from then on, whatever it believes (D24)."""
    with _leased(s, _SHORT_S) as (first, owner):
        until = time.time() + _SHORT_S
        while True:
            asked = time.time()
            if (busy := ScriptedRun(first).claim.busy) is None:
                break
            true(asked < until + _GRACE_S, f"refused {_GRACE_S} s after the end of a lease of {_SHORT_S} s: {busy}")
        _takes_over(first, owner)


# ---- damage


@check("durable", "reopen", "damage", once=True)
def damage_is_found(s: Subject) -> None:
    """Of damaged data a saver never makes other data: reading it raises `CorruptCheckpointError`, and `verify` names it,
    if the saver has that (C2, C10)."""
    assert s.opening.damage is not None
    with s.elsewhere("undamaged") as sample:
        _fill_for_damage(sample)
    for number, name in enumerate(s.opening.damage(sample.place)):
        with s.elsewhere(f"damaged {number}") as first:
            _fill_for_damage(first)
            meant = {id_of(entry[0]): entry[1:] for entry in _content(first)}
        s.opening.damage(first.place)[name]()
        with first.reopened() as again:
            n_raised = _check_damaged(again, name, meant)
            if implements(again.saver, "averify" if s.is_async else "verify"):
                true(again.verify(deep=True), f"{name}: verify() finds nothing")
            else:
                true(n_raised, f"{name}: every checkpoint can be read")


def _fill_for_damage(s: Subject) -> None:
    line = Line(s)
    for n in range(3):
        where = line.put({"n": n, "l": [n] * 200, "doc": "d" * 3000}, metadata={"source": "loop", "step": n, "k": 1})
        s.put_writes(where, [("l", "x" * 3000)], "task")
    if is_native(s.saver):
        run = ScriptedRun(s)
        for n in range(4):
            message = {"n": n, "x": "y" * 200}
            run.step({"l": [*run.values["l"], message], "more": os.urandom(3000)}, metadata={"k": 1})
        run.tasks(run.task("task", [("l", "x" * 200)]))


def _check_damaged(s: Subject, name: str, meant: dict[str, Any]) -> int:
    """Every checkpoint is as it was, or raises, or is not there. Returns how many raise."""
    n_raised = 0
    for checkpoint_id, (checkpoint, metadata, _, writes) in meant.items():
        try:
            found = s.get_tuple(config("t", "", checkpoint_id))
        except CorruptCheckpointError as error:
            same(error.thread_id, "t", f"{name}: thread that the error names")
            n_raised += 1
            continue
        if found is not None:
            whole = found.checkpoint, found.metadata, [*(found.pending_writes or ())]
            same(whole, (checkpoint, metadata, [*(writes or ())]), f"{name}: a checkpoint that is read without error")
    try:
        s.get_tuple(config("t"))
    except CorruptCheckpointError:
        n_raised += 1
    return n_raised
