"""Level full, for savers with the native interface: claims, fences, deltas, nested runs, budgets (storage.md C3.2, C3.3,
C5, C6).

Runs are scripted (`script.ScriptedRun`): they load, number and commit as the engine does.
"""

from __future__ import annotations

import os
from typing import Any, Final

from checkpoint.base import (
    ORIGIN,
    CheckpointConflictError,
    CheckpointNotFoundError,
    StepCommit,
    ThreadBusyError,
    ThreadDeletedError,
    UnregisteredTypeError,
)
from checkpoint.holders import Hold
from checkpoint.testing.checks import check
from checkpoint.testing.model import Model
from checkpoint.testing.report import present, raises, same, true
from checkpoint.testing.script import GONE, Line, ScriptedRun, config, id_of
from checkpoint.testing.subject import Subject

MODEL_SEEDS: Final = range(6)


def _content(s: Subject, where: Any = None) -> list[Any]:
    return [(entry.config, entry.checkpoint, entry.pending_writes) for entry in s.list(where or config())]


# ---- one run


@check("full", "native")
def a_run(s: Subject) -> None:
    """What a run commits is found by `load`, `get_tuple` and `history`, step by step, with values, versions, seen,
    parents and order (C3.2)."""
    run = ScriptedRun(s)
    same((run.loaded.checkpoint_id, run.claim.claimed, run.claim.number), (None, False, 1), "an empty thread's load")
    messages: list[Any] = []
    for n in range(30):
        messages = [*messages, {"n": n, "text": "x" * 200}]
        seen = {"a": {"l": n + 1}}
        run.step({"l": messages, "t": "y" * n * 10, "n": n, "g": GONE if n % 3 == 0 else "z" * 80}, seen=seen)
        true(run.claim.claimed, "the first commit took no claim")
    for stored in run.stored:
        stored.check(s)
    loaded = s.load(config())
    last = run.stored[-1]
    same((loaded.checkpoint_id, loaded.rev, loaded.parent_id), (last.id, last.rev, last.parent_id), "load: addresses")
    same((loaded.values, loaded.versions, loaded.seen), (last.values, last.versions, last.seen), "load: content")
    same((loaded.step, loaded.source, loaded.is_head, loaded.claim.number), (28, "loop", True, 2), "load: place")
    same(loaded.metadata, {"source": "loop", "step": 28, "parents": {}}, "load: metadata")
    same(s.load(config("t", "", run.stored[3].id)).is_head, False, "is an old checkpoint the head")
    history = s.history(config())
    same([entry.rev for entry in history], [stored.rev for stored in reversed(run.stored)], "history: revs")
    same([entry.values for entry in history], [stored.values for stored in reversed(run.stored)], "history: values")
    same([entry.is_head for entry in history], [True] + [False] * 29, "history: heads")
    page = [entry.rev for entry in s.history(config(), before=run.stored[5].config, limit=2)]
    same(page, [run.stored[4].rev, run.stored[3].rev], "history: before and limit")


@check("full", "native")
def nothing_is_stored_before_the_first_write(s: Subject) -> None:
    """`load` takes nothing and makes nothing: not a thread, not a claim (C3.2)."""
    ScriptedRun(s)
    ScriptedRun(s, config("t", "child"))
    same(s.load(config()).claim.number, 1, "number of the next claim after two loads")
    true(s.get_tuple(config()) is None, "a load made a thread")
    same(s.list(None), [], "all threads after a load")


@check("full", "native")
def task_writes_of_a_run(s: Subject) -> None:
    """Task rows go under the checkpoint their step started from: alone or with the commit that closes it; slot 0 keeps
    the first, the special slots the last (C3.2)."""
    run = ScriptedRun(s)
    run.step({"a": 1})
    run.tasks(run.task("t2", [("a", 1), ("a", "x" * 1000)], path="b"), run.task("t1", [("__interrupt__", [1])], -3))
    run.tasks(run.task("t2", [("a", "late")], path="b"), run.task("t1", [("__interrupt__", [2])], -3))
    writes = [(w.task_id, w.slot, [*w.writes], w.checkpoint_id) for w in s.load(config()).writes]
    wanted = [
        ("t1", -3, [("__interrupt__", [2])], run.id),
        ("t2", 0, [("a", 1), ("a", "x" * 1000)], run.id),
    ]
    same(writes, wanted, "writes that load finds")
    before = run.id
    run.step({"a": 2}, writes=[run.task("t3", [("c", 5)])])
    found = present(s.get_tuple(config("t", "", before)), "the settled checkpoint").pending_writes
    true(("t3", "c", 5) in found, f"the closing commit's writes are not under the settled checkpoint: {found!r}")
    same(present(s.get_tuple(config()), "the new checkpoint").pending_writes, [], "writes of the new checkpoint")


@check("full", "native")
def a_run_may_begin_with_task_rows(s: Subject) -> None:
    """A run whose first write is an answer or an interrupt claims the thread with it (C5.1)."""
    ScriptedRun(s).step({"a": 1})
    run, late = ScriptedRun(s), ScriptedRun(s)
    run.tasks(run.task("t", [("__resume__", [1])], -4))
    true(run.claim.claimed, "task rows took no claim")
    with raises(CheckpointConflictError, "a second answer"):
        late.tasks(late.task("t", [("__resume__", [2])], -4))
    run.step({"a": 2}).check(s)
    answered = present(s.get_tuple(config("t", "", run.loaded.checkpoint_id)), "the answered checkpoint")
    same(answered.pending_writes, [("t", "__resume__", [1])], "the answer")


@check("full", "native")
def metadata_of_a_run(s: Subject) -> None:
    """Metadata of a commit is the run's own, with source, step and parents (C3.2)."""
    run = ScriptedRun(s)
    metadata = {"user": "u", "run_id": "r"}
    run.step({"a": 1}, metadata=metadata, run_id="r")
    run.step({"a": 2}, metadata=metadata, run_id="r", parents={"": "root"})
    first, second = (present(s.get_tuple(stored.config), "a step").metadata for stored in run.stored)
    same(first, {"source": "input", "step": -1, "parents": {}, "user": "u", "run_id": "r"}, "metadata of the input")
    same(second, {"source": "loop", "step": 0, "parents": {"": "root"}, "user": "u", "run_id": "r"}, "of the step")
    same(s.load(config()).parents, {"": "root"}, "parents that load finds")


@check("full", "native")
def the_newest_checkpoint_of_a_run(s: Subject) -> None:
    """A run is found by its id, in its own thread and namespace alone, also behind others and on a branch (C5.3)."""
    run = ScriptedRun(s)
    first = run.step({"a": 1}, run_id="r")
    second = run.step({"a": 2}, run_id="r")
    third = run.step({"a": 3}, run_id="other")
    run.step({"a": 4})
    found = [s.last_of_run(config(), run_id) for run_id in ("r", "other", "nobody")]
    same(found, [second.id, third.id, None], "the newest of each run")
    branch = ScriptedRun(s, first.config).step({"a": 5}, run_id="r")
    same(s.last_of_run(config(), "r"), branch.id, "the newest on any branch")
    same(s.last_of_run(config("t", "inner"), "r"), None, "of another namespace")
    same(s.last_of_run(config("other"), "r"), None, "of another thread")


@check("full", "native")
def channels_keep_their_versions_in_one_commit(s: Subject) -> None:
    """A commit that stands for several supersteps gives each channel its own version (C3.2)."""
    run = ScriptedRun(s)
    run.step({"a": 1, "b": "x" * 100, "c": 1})
    commit = run.prepare({"a": 2, "b": "y" * 100, "c": GONE}, versions={"a": 7, "c": 8})
    commit.updated_channels = ["b"]
    s.commit(commit)
    found = present(s.get_tuple(config()), "the commit").checkpoint
    same(found["channel_versions"], {"a": 7, "b": commit.version, "c": 8}, "versions")
    same(found["channel_values"], {"a": 2, "b": "y" * 100}, "values")
    for updated in (["b"], None, []):
        commit = run.prepare({"a": 3})
        commit.updated_channels = updated
        s.commit(commit)
        same(present(s.get_tuple(config()), "a commit").checkpoint["updated_channels"], updated, "updated channels")


@check("full", "native")
def submitted_commits_are_read(s: Subject) -> None:
    """What was submitted is seen by the next read of the thread, in order, whatever was written since (C5.3)."""
    run = ScriptedRun(s, durability="submit")
    for n in range(40):
        run.step({"n": n, "l": [*run.values.get("l", []), {"n": n}]})
        if n % 7 == 0:
            same(s.load(config()).checkpoint_id, run.id, f"load after step {n}")
    same([entry.checkpoint["id"] for entry in s.list(config())], [e.id for e in reversed(run.stored)], "the listing")
    for stored in run.stored:
        stored.check(s)


@check("full", "native")
def values_are_those_at_encode(s: Subject) -> None:
    """`encode` is done with the live values: what the program changes after it is not stored (D22)."""
    run = ScriptedRun(s)
    value = {"l": [1]}
    encoded = s.saver.encode(run.prepare({"v": value, "w": [value, "x" * 100]}))
    value["l"].append(2)
    s.call("write", [encoded], durability="sync")
    run.stored[-1].check(s)


@check("full", "native")
def refused_values_leave_no_trace(s: Subject) -> None:
    """A class that nobody registered is refused by `encode`, with the channel, and the thread can be written on (C8)."""
    run = ScriptedRun(s)
    run.step({"a": 1, "l": ["x" * 100]})

    class Unknown:
        pass

    with raises(UnregisteredTypeError, "a value of an unknown class") as refused:
        run.prepare_and_encode({"new": 1, "l": [*run.values["l"], 1], "bad": [Unknown()]})
    same(refused.caught.channel, "bad", "channel that the error names")
    with raises(UnregisteredTypeError, "a write of an unknown class") as refused:
        s.saver.encode(StepCommit(run.claim, "", "tasks", writes=[run.task("t", [("a", 1), ("b", {"k": Unknown()})])]))
    same(refused.caught.channel, "b", "channel that the error names")
    again = ScriptedRun(s)
    same(again.values, {"a": 1, "l": ["x" * 100]}, "values after the refusal")
    again.step({"z": 5, "l": [*again.values["l"], 2]}).check(s)


# ---- claims


@check("full", "native")
def two_runs_on_one_thread(s: Subject) -> None:
    """Of two runs that loaded the same head the first that writes goes on; the other is refused, says what it expected
    and found, and is refused again at every later write (C3.2, C5)."""
    ScriptedRun(s).step({"n": 0})
    first, second = ScriptedRun(s), ScriptedRun(s)
    stored = first.step({"n": 1})
    head = second.id
    with raises(CheckpointConflictError, "the second run's write") as refused:
        second.step({"n": 2})
    error = refused.caught
    same((error.thread_id, error.expected, error.actual), ("t", head, stored.id), "thread, expected and actual head")
    with raises(CheckpointConflictError, "the second run's next write") as again:
        second.step({"n": 3})
    true(again.caught is error, "a later write raised another error than the first one")
    first.step({"n": 4}).check(s)
    same([values["n"] for values in _values_of(s)], [4, 1, 0], "what is stored")


def _values_of(s: Subject) -> list[Any]:
    return [entry.checkpoint["channel_values"] for entry in s.list(config())]


@check("full", "native")
def two_runs_on_a_new_thread(s: Subject) -> None:
    """Of two runs that found no thread, one makes it, the other is refused (C5)."""
    first, second = ScriptedRun(s), ScriptedRun(s)
    first.step({"n": 1})
    with raises(CheckpointConflictError, "the second run's first write"):
        second.step({"n": 2})
    same(_values_of(s), [{"n": 1}], "what is stored")


@check("full", "native")
def a_run_is_fenced_by_a_newer_one(s: Subject) -> None:
    """Once a newer run has claimed the thread, every write of the older one is refused: steps, task rows, nested
    namespaces; nothing of them is stored (C5)."""
    old = ScriptedRun(s)
    old.step({"n": 0})
    nested = ScriptedRun(s, config("t", "child:1"), claim=old.claim, up_rev=old.rev)
    nested.step({"n": 0})
    task = old.task("t", [("n", 1)])
    ScriptedRun(s).step({"n": 1})
    before = _content(s)
    for what, write in (
        ("task rows", lambda: old.tasks(task)),
        ("a nested step", lambda: nested.step({"n": 2})),
        ("a step", lambda: old.step({"n": 2})),
        ("a submitted step", lambda: _submitted(s, old)),
    ):
        # Without its memory of the refusal: each write is refused on its own.
        old.claim.poisoned = None
        with raises(CheckpointConflictError, f"{what} of the older run"):
            write()
    same(_content(s), before, "what is stored")


def _submitted(s: Subject, run: ScriptedRun) -> None:
    ack = s.saver.submit(run.prepare_and_encode({"n": 3}))
    if ack is not None:
        ack.result()


@check("full", "native")
def a_failed_write_ends_its_run(s: Subject) -> None:
    """After a refused write no later one of the same run is stored, even if it could be (C3.2)."""
    run = ScriptedRun(s)
    run.step({"n": 0})
    encoded = [run.prepare_and_encode({"n": n}) for n in (1, 2)]
    newer = ScriptedRun(s)
    newer.step({"n": 5})
    with raises(CheckpointConflictError, "the older run's write"):
        s.call("write", [encoded[0]], durability="sync")
    true(run.claim.poisoned is not None, "the claim does not remember the refusal")
    with raises(CheckpointConflictError, "the next write"):
        s.call("write", [encoded[1]], durability="sync")
    same(_values_of(s), [{"n": 5}, {"n": 0}], "what is stored")


@check("full", "native")
def a_batch_is_stored_whole_or_not_at_all(s: Subject) -> None:
    """A batch of commits, and a commit with those of other namespaces in it, is one transaction (C3.2)."""
    root = ScriptedRun(s)
    nested = ScriptedRun(s, config("t", "sub"), claim=root.claim)
    inner = nested.prepare({"m": 1})
    outer = root.prepare({"n": 1}, others=[inner])
    s.commit(outer, durability="exit")
    found = [entry.checkpoint["id"] for entry in s.list(config())]
    same(found, [outer.checkpoint_id, inner.checkpoint_id], "a commit with another namespace's in it")
    batch = [root.prepare_and_encode({"n": n, "l": ["x" * 100] * n}) for n in range(2, 5)]
    s.call("write", batch, durability="async")
    for stored in (*root.stored, *nested.stored):
        stored.check(s)
    before = _content(s)
    fenced = ScriptedRun(s)
    ScriptedRun(s).step({"n": 9})
    after = _content(s)
    same(len(after), len(before) + 1, "number of checkpoints")
    nested = ScriptedRun(s, config("t", "sub"), claim=fenced.claim)
    commit = fenced.prepare({"n": 3}, others=[nested.prepare({"m": 2})], writes=[fenced.task("t", [("n", 1)])])
    with raises(CheckpointConflictError, "a commit with another namespace's in it, of a fenced run"):
        s.commit(commit)
    fenced.claim.poisoned = None
    with raises(CheckpointConflictError, "a batch of a fenced run"):
        s.commit(fenced.prepare({"n": 4}), fenced.prepare({"n": 5}))
    same(_content(s), after, "what is stored")


@check("full", "native")
def a_public_put_fences_a_run(s: Subject) -> None:
    """`put` takes the thread from a run that holds it; `put_writes` does not (C3.1)."""
    run = ScriptedRun(s)
    stored = run.step({"n": 0})
    line = Line(s)
    line.config, line.values, line.versions = stored.config, {"n": 0}, {"n": 1}
    line.put({"n": 1})
    with raises(CheckpointConflictError, "a step after a public put"):
        run.step({"n": 2})
    s.put_writes(stored.config, [("n", 1)], "task")
    go_on = ScriptedRun(s)
    same(go_on.values, {"n": 1}, "values that the next run loads")
    s.put_writes(config("t", "", go_on.id), [("n", 1)], "task")
    go_on.step({"n": 3}).check(s)


@check("full", "native")
def a_replaced_checkpoint_leaves_what_builds_on_it(s: Subject) -> None:
    """Putting an engine's checkpoint again changes that one alone, not the deltas after it (C3.1)."""
    run = ScriptedRun(s)
    stored = [run.step({"a": "x" * n * 100, "b": n}) for n in range(1, 6)]
    given = present(s.get_tuple(stored[1].config), "the second step").checkpoint
    given["channel_values"]["a"] = "new" * 100
    s.put(stored[0].config, given, {"source": "update", "step": 1}, {"a": 2})
    found = present(s.get_tuple(stored[1].config), "the replaced step").checkpoint["channel_values"]
    same(found, {"a": "new" * 100, "b": 2}, "values of the replaced step")
    for other in (stored[0], *stored[2:]):
        other.check(s)
    with raises(CheckpointConflictError, "the run that was replaced in"):
        run.step({"b": 7})
    ScriptedRun(s).step({"b": 8}).check(s)


@check("full", "native", "delete_thread")
def a_deleted_thread_stays_deleted(s: Subject) -> None:
    """A run whose thread was deleted gets `ThreadDeletedError` for every write, also after the thread was made again
    under the same id, and brings nothing back (C2, C5.1)."""
    run = ScriptedRun(s)
    stored = run.step({"n": 0})
    waiting = ScriptedRun(s)
    s.delete_thread("t")
    with raises(ThreadDeletedError, "a step on a deleted thread") as refused:
        run.step({"n": 1})
    same(refused.caught.thread_id, "t", "thread that the error names")
    ScriptedRun(s).step({"n": 5})
    run.claim.poisoned = None
    with raises(ThreadDeletedError, "task rows after the thread was made again"):
        run.tasks(run.task("t", [("n", 1)]))
    with raises(ThreadDeletedError, "the first write of a run that loaded before"):
        waiting.step({"n": 1})
    true(s.get_tuple(stored.config) is None, "a deleted checkpoint is found")
    same(_values_of(s), [{"n": 5}], "what is stored")


@check("full", "native", "lanes")
def lanes_leave_the_head_alone(s: Subject) -> None:
    """A run in a lane writes beside the holder of the thread: both go on, the newest is the holder's, the lane is read,
    listed and gone on from by its ids (C4, C5.1)."""
    ScriptedRun(s).step({"l": [{"n": 0, "x": "y" * 100}], "who": "before"})
    holder, lane = ScriptedRun(s), ScriptedRun(s)
    holder.step({"who": "holder"})
    s.call("open_lane", lane.claim)
    for n in range(4):
        lane.step({"l": [*lane.values["l"], {"lane": n, "x": "y" * 100}], "who": "lane"})
        same(s.load(config()).checkpoint_id, holder.id, "the newest after a step of the lane")
        holder.step({"l": [*holder.values["l"], {"holder": n, "x": "y" * 100}]})
        same(s.load(config()).checkpoint_id, holder.id, "the newest after a step of the holder")
    lane.tasks(lane.task("t", [("l", ["kept"])]))
    for stored in (*holder.stored, *lane.stored):
        stored.check(s)
    writes = present(s.get_tuple(lane.stored[-1].config), "the end of the lane").pending_writes
    same(writes, [("t", "l", ["kept"])], "task writes of the lane")
    listed = {entry.checkpoint["id"] for entry in s.list(config())}
    true({stored.id for stored in lane.stored} <= listed, "a checkpoint of the lane is not listed")
    fork = ScriptedRun(s, lane.stored[-1].config)
    fork.step({"l": [*fork.values["l"], "fork"]}).check(s)
    for stored in (*holder.stored, *lane.stored):
        stored.check(s)


# ---- deltas and forks


@check("full", "native")
def elements_written_again_are_stored_again(s: Subject) -> None:
    """An element of a grown list that was written in the superstep is stored anew although it is the same object; older
    checkpoints keep the old one (D23, C3.3)."""
    run = ScriptedRun(s)
    elements = [{"n": n, "x": "y" * 50} for n in range(4)]
    run.step({"l": elements})
    longer = [*elements, {"n": 4}]
    run.step({"l": longer})
    elements[1]["n"] = "edited"
    # The reducer returned the same objects, and the edited one was among what the node wrote.
    run.step({"l": [*longer, {"n": 5}]}, written={"l": [elements[1], {"n": 5}]})
    run.step({"l": [*run.values["l"], elements[0]]}, written={"l": [elements[0]]})
    run.step({"l": [*run.values["l"]]}, written={"l": []})
    for stored in run.stored:
        stored.check(s)
    values = [
        present(s.get_tuple(stored.config), "a step").checkpoint["channel_values"]["l"][1]["n"] for stored in run.stored
    ]
    same(values, [1, 1, "edited", "edited", "edited"], "the edited element, step by step")


@check("full", "native")
def deltas_after_a_load(s: Subject) -> None:
    """Lists, texts and replaced values go on after a load as they did in the run that made them, also element by
    element (C3.3)."""
    meant = []
    for n in range(12):
        run = ScriptedRun(s)
        grown = [*run.values.get("l", []), {"n": n, "x": "y" * 120}]
        changes: dict[str, Any] = {"l": grown, "t": run.values.get("t", "") + f"{n}" * 90, "n": n}
        if n % 4 == 3:
            grown[0]["seen"] = n
            meant.append(run.step(changes, written={"l": [grown[0], grown[-1]]}))
            meant.append(run.step({"l": grown[2:], "t": "short", "m": [grown[0]] * 3}))
        else:
            meant.append(run.step(changes))
    for stored in meant:
        stored.check(s)


@check("full", "native")
def forks_share_and_never_corrupt(s: Subject) -> None:
    """Fork, load, write a channel the fork had not touched: no branch extends what another one extends, and all stay
    readable (C4, tip rule)."""
    run = ScriptedRun(s)
    run.step({"doc": "d" * 5000, "l": [{"n": 0, "x": "y" * 100}]})
    for n in range(1, 6):
        run.step({"l": [*run.values["l"], {"n": n, "x": "y" * 100}]})
    stored = [*run.stored]
    for n, base in enumerate(run.stored[:-1]):
        fork = ScriptedRun(s, base.config)
        true(not fork.loaded.is_head, f"old checkpoint {n} is loaded as the head")
        fork.step({"k": n}, source="fork")
        reloaded = ScriptedRun(s, fork.stored[-1].config)
        reloaded.step({"l": [*reloaded.values["l"], {"fork": n}]})
        reloaded.step({"l": [*reloaded.values["l"], {"fork": -n}]})
        stored += [*fork.stored, *reloaded.stored]
    for entry in stored:
        entry.check(s)
    newest = present(s.get_tuple(config()), "newest")
    same(newest.checkpoint["id"], stored[-1].id, "the newest is what was written last")


@check("full", "native")
def channels_of_a_run_come_and_go(s: Subject) -> None:
    """A channel that loses its value and gets a new one has only that; one that nobody names stays stored (C3.2)."""
    run = ScriptedRun(s)
    run.step({"a": ["x" * 100], "kept": "k" * 200, "t": "t" * 100})
    for n in range(9):
        old = run.values.get("a")
        run.step({"a": GONE if n % 3 == 0 else [*(old or []), "y" * 70 * n], "t": GONE if n % 4 == 1 else "u" * 90})
        if n % 2:
            run = _again(s, run)
    for stored in run.stored:
        stored.check(s)
    same(s.load(config()).values["kept"], "k" * 200, "the channel that nobody wrote again")


def _again(s: Subject, run: ScriptedRun) -> ScriptedRun:
    """A new run that goes on, with the memory of the old one."""
    again = ScriptedRun(s)
    again.stored = run.stored
    return again


# ---- nested runs


@check("full", "native")
def nested_runs_start_where_their_parent_is(s: Subject) -> None:
    """A nested run starts at the newest checkpoint of its namespace under the open superstep; else where the parent's
    checkpoint points; else fresh. A fork sees what was before it; a config with an id names a checkpoint outright
    (C5.3)."""
    root = ScriptedRun(s)
    root.step({"n": 0})
    up = root.rev
    ns = config("t", "sub")
    nested = ScriptedRun(s, ns, claim=root.claim, up_rev=up)
    true(nested.loaded.checkpoint_id is None, "rule 3: a fresh namespace has a checkpoint")
    nested.step({"m": [1]})
    crashed = nested.step({"m": [1, 2]})
    same(ScriptedRun(s, ns, claim=root.claim, up_rev=up).id, crashed.id, "rule 1 in the same run")
    later = ScriptedRun(s)
    resumed = ScriptedRun(s, ns, claim=later.claim, up_rev=later.rev)
    same((resumed.id, resumed.values), (crashed.id, {"m": [1, 2]}), "rule 1 in the next run")
    finished = resumed.step({"m": [1, 2, 3]})
    closed = later.step({"n": 1}, sub={"sub": finished.rev})
    same(s.load(config()).sub, {"sub": finished.rev}, "pointers of the parent")
    second = ScriptedRun(s, ns, claim=later.claim, up_rev=later.rev, at_rev=later.sub["sub"])
    same(second.id, finished.id, "rule 2")
    ended = second.step({"m": [9]})
    later.step({"n": 2}, sub={"sub": ended.rev})
    # A fork inherits exactly what was before it; the newest checkpoint of the namespace is of no interest.
    fork = ScriptedRun(s, closed.config)
    same(fork.sub, {"sub": finished.rev}, "pointers that a fork inherits")
    forked = ScriptedRun(s, ns, claim=fork.claim, at_rev=fork.sub["sub"])
    same(forked.values, {"m": [1, 2, 3]}, "values that a fork's nested run starts with")
    first = ScriptedRun(s, root.stored[0].config)
    nothing = ScriptedRun(s, ns, claim=first.claim).loaded.checkpoint_id
    true(nothing is None, "rule 3: a fork before the first nested run finds one")
    named = ScriptedRun(s, config("t", "sub", crashed.id), claim=first.claim, up_rev=first.rev)
    same(named.id, crashed.id, "a checkpoint named outright")
    forked.step({"m": [1, 2, 3, 4]})
    for run in (root, nested, later, resumed, second, forked):
        for stored in run.stored:
            stored.check(s)
    same(present(s.get_tuple(ns), "newest").checkpoint["id"], forked.id, "the newest of the namespace")


@check("full", "native", "prune")
def facts_stay_with_their_line(s: Subject) -> None:
    """What a commit remembers is found by every later load of its line, by forks as it was there, and by nobody else."""
    early, late = {"graph": "a1", "paused": ["x"]}, {"graph": "b2"}
    run = ScriptedRun(s)
    same(run.facts, {}, "facts of a fresh thread")
    first = run.step({"n": 0}, facts=early)
    run.step({"n": 1, "l": ["x" * 100]})
    second = run.step({"n": 2}, facts={"graph": "b2", "paused": None})
    nested = ScriptedRun(s, config("t", "sub"), claim=run.claim, up_rev=run.rev)
    same(nested.facts, {}, "facts of a fresh namespace")
    nested.step({"m": 1}, facts={"graph": "c3"})
    for n in range(300):  # more than one full header
        run.step({"n": n})
    for where, wanted in (
        (config(), late),
        (second.config, late),
        (first.config, early),
        (config("t", "sub"), {"graph": "c3"}),
    ):
        found = s.load(where)
        same(found.facts, wanted, "facts of a loaded checkpoint")
        true(not set(found.metadata) & {"graph", "paused", "facts"}, "facts in the metadata")
    fork = ScriptedRun(s, first.config)
    forked = fork.step({"n": -1}, source="fork")
    same(s.load(forked.config).facts, early, "facts that a fork inherits")
    s.prune(["t"])
    same(s.load(config()).facts, early, "facts of the newest after a prune")
    same(s.load(config()).values, {"n": -1}, "values of the newest after a prune")


# ---- forks


@check("full", "native", "fork")
def a_fork_takes_its_thread(s: Subject) -> None:
    """`fork` is refused with `ThreadBusyError` while a run of this process executes on the thread, and stores nothing;
    otherwise it takes the thread as a run does: whoever held it is refused at its next write, of any kind (C5.2, D24)."""
    run = ScriptedRun(s)
    stored = [run.step({"n": n}) for n in range(3)]
    before = _content(s)
    holders = s.saver.holders
    executing = Hold(holders, "t", "the run")
    same(holders.take(executing), None, "holder of a thread on which nothing executes")
    try:
        with raises(ThreadBusyError, "fork while a run executes") as busy:
            s.fork(stored[0].config)
        same((busy.caught.thread_id, busy.caught.owner_run_id), ("t", "the run"), "thread and run that the error names")
        same(_content(s), before, "content after a refused fork")
    finally:
        executing.release()
    suspended = Hold(holders, "t", "the stream")
    same(holders.take(suspended), None, "holder after the run has ended")
    suspended.suspend()
    made = s.fork(stored[0].config)
    with raises(CheckpointConflictError, "a stream that is read on after a fork"):
        suspended.resume()
    same(holders.holder("t"), None, "holder after a fork")
    for what, write in (
        ("task writes", lambda: run.tasks(run.task("late", [("n", 9)]))),
        ("a step", lambda: run.step({"n": 9})),
    ):
        with raises(CheckpointConflictError, f"{what} of the run that held the thread before the fork"):
            write()
    newer = ScriptedRun(s)
    same((newer.id, newer.number, newer.values), (id_of(made), 1, {"n": 0}), "where the next run starts")
    newer.step({"n": "after"}).check(s)
    same(len(s.list(config("t"))), len(before) + 2, "checkpoints afterwards")


@check("full", "native", "fork")
def a_fork_is_an_execution_of_its_own(s: Subject) -> None:
    """What the engine remembers goes along with a fork, but for the name of the execution, which each fork has for itself;
    and nested runs under it start where they stood at the forked checkpoint, not where they were afterwards (D25)."""
    run = ScriptedRun(s)
    run.step({"n": 0}, facts={"graph": "a", ORIGIN: "first"})
    nested = ScriptedRun(s, config("t", "sub"), claim=run.claim, up_rev=run.rev)
    at_first = nested.step({"m": 1})
    closed = run.step({"n": 1}, sub={"sub": at_first.rev})
    under_closed = ScriptedRun(s, config("t", "sub"), claim=run.claim, up_rev=run.rev, at_rev=at_first.rev)
    later = under_closed.step({"m": 2})
    run.step({"n": 2}, sub={"sub": later.rev}, facts={"graph": "b"})
    origins = {"first"}
    for _ in range(2):
        s.fork(closed.config)
        forked = s.load(config())
        same(
            (forked.source, forked.facts["graph"], forked.sub), ("fork", "a", {"sub": at_first.rev}), "what goes along"
        )
        true(
            forked.facts[ORIGIN] not in origins, f"the execution of a fork is {forked.facts[ORIGIN]!r}, as another one"
        )
        origins.add(forked.facts[ORIGIN])
        where = {"up_rev": forked.rev, "at_rev": forked.sub["sub"]}
        inner = s.load(config("t", "sub"), claim=forked.claim, **where)
        same((inner.checkpoint_id, inner.values), (at_first.id, {"m": 1}), "where a nested run under the fork starts")
    # Between two runs, what is forked of a namespace that all runs share is where the next one starts.
    s.fork(config("t", "sub", at_first.id))
    same(
        s.load(config("t", "sub")).up_rev,
        s.load(at_first.config).up_rev,
        "what a fork of an older nested checkpoint works under",
    )
    head = s.load(config())
    s.fork(config("t", "sub"))
    same(s.load(config("t", "sub")).up_rev, head.rev, "what a fork of the newest nested checkpoint works under")


# ---- upkeep beside a run


@check("full", "native", "copy_thread")
def copies_of_a_run_keep_their_ids(s: Subject) -> None:
    """A copied thread is loaded, forked and gone on with by its ids, as its source is (C5.1)."""
    run = ScriptedRun(s)
    stored = [run.step({"l": ["x" * 100] * n}) for n in range(1, 4)]
    run.tasks(run.task("task", [("a", 1)]))
    s.copy_thread("t", "copy")
    found = present(s.get_tuple(config("copy", "", stored[-1].id)), "the copied newest")
    same(found.pending_writes, [("task", "a", 1)], "writes of the copied newest")
    for thread in ("t", "copy"):
        go_on = ScriptedRun(s, config(thread))
        go_on.step({"l": [*go_on.values["l"], thread]}).check(s)
        fork = ScriptedRun(s, config(thread, "", stored[0].id))
        fork.step({"l": [*fork.values["l"], f"fork of {thread}"]}).check(s)
    for entry in stored:
        entry.check(s)


@check("full", "native", "prune")
def prune_beside_a_run(s: Subject) -> None:
    """`prune` takes no claim: a run goes on through it, keeps its values, and finds pruned checkpoints gone (C10)."""
    run = ScriptedRun(s)
    for n in range(20):
        run.step({"l": [*run.values.get("l", []), {"n": n, "x": "y" * 90}], "t": "t" * n * 20, "n": n})
        if n % 6 == 5:
            nested = ScriptedRun(s, config("t", "sub"), claim=run.claim, up_rev=run.rev, at_rev=run.sub.get("sub"))
            last = nested.step({"m": [n] * 20})
            run.step({"n": -n}, sub={"sub": last.rev})
            s.prune(["t"])
            same(len(s.list(config("t", ""))), 1, "root checkpoints after a prune")
    run.stored[-1].check(s)
    same(s.load(config()).values, run.values, "values after the run")
    same(s.load(config()).sub, run.sub, "pointers to nested runs after the run")
    true(s.get_tuple(run.stored[0].config) is None, "a pruned checkpoint is found")
    same(s.load(config("t", "", run.stored[0].id)).checkpoint_id, None, "load of a pruned checkpoint")
    parent = present(s.get_tuple(s.list(config("t", ""))[-1].config), "the oldest kept").parent_config
    true(parent is None, f"the oldest kept checkpoint names a pruned parent: {parent!r}")


@check("full", "native", "prune")
def prune_keeps_what_is_asked_for(s: Subject) -> None:
    """`keep=n` leaves the newest n of the head's lineage; a branch that ends in an open question stays where it is, and
    can be answered (C10)."""
    run = ScriptedRun(s)
    for n in range(8):
        run.step({"n": n, "l": [*run.values.get("l", []), "x" * 90]})
    branch = ScriptedRun(s, run.stored[2].config)
    asked = branch.step({"n": "asked", "l": [*branch.values["l"], "y" * 90]}, source="fork")
    branch.tasks(branch.task("asker", [("__interrupt__", ["which one?"])], -3))
    going_on = ScriptedRun(s, run.stored[-1].config)
    for n in range(2):
        going_on.step({"n": n, "l": [*going_on.values["l"], "z" * 90]})
    removed = s.prune(["t"], keep=3)
    kept = [*reversed(going_on.stored), asked, run.stored[-1]]
    same([entry.checkpoint["id"] for entry in s.list(config("t", ""))], [stored.id for stored in kept], "what is kept")
    same(removed, 7, "number of removed checkpoints")
    for stored in kept:
        values = present(s.get_tuple(stored.config), "a kept checkpoint").checkpoint["channel_values"]
        same(values, stored.values, "values of a kept checkpoint")
    question = present(s.get_tuple(asked.config), "the checkpoint with a question").pending_writes
    same(question, [("asker", "__interrupt__", ["which one?"])], "the question")
    answered = ScriptedRun(s, asked.config)
    answered.tasks(answered.task("asker", [("__resume__", ["that"])], -4))
    answered.step({"n": "answered"}).check(s)


@check("full", "native", "prune")
def a_run_from_a_pruned_checkpoint_is_refused(s: Subject) -> None:
    """A run that loaded a checkpoint which was pruned before its first write gets `CheckpointNotFoundError` and stores
    nothing (C2, C10)."""
    run = ScriptedRun(s)
    for n in range(4):
        run.step({"n": n})
    late = ScriptedRun(s, run.stored[0].config)
    s.prune(["t"])
    before = _content(s)
    with raises(CheckpointNotFoundError, "the first write of a run from a pruned checkpoint"):
        late.step({"n": "late"}, source="fork")
    same(_content(s), before, "what is stored")
    ScriptedRun(s).step({"n": "next"})


# ---- random programs, budgets


@check("full", "native")
def random_programs(s: Subject) -> None:
    """Random sequences of steps, edits, forks, loads, nested runs, crashes, copies and deletes leave exactly what a plain
    model of them says (C12)."""
    for seed in MODEL_SEEDS:
        model = Model(s, seed, thread=f"model {seed}")
        try:
            model.play(50)
        except AssertionError as complaint:
            raise AssertionError(f"seed {seed}: {complaint}") from complaint


@check("full", "native", once=True)
def bytes_of_a_superstep(s: Subject) -> None:
    """The bodies of a superstep that appends to a list take 1.6 times what was appended plus 30 bytes, however much is
    stored already (C6)."""
    n_steps = 1000
    delta = "x" * 225
    run = ScriptedRun(s, durability="async")
    messages: list[Any] = []
    run.step({"messages": messages, "branch": None})
    total = 0
    for n in range(n_steps):
        messages = [*messages, f"{n:04}{delta[4:]}"]
        encoded = run.prepare_and_encode({"messages": messages, "branch": None})
        total += encoded.size
        s.call("write", [encoded], durability="async")
    bound = n_steps * int(1.6 * len(delta) + 30)
    true(total <= bound, f"{n_steps} supersteps took {total} bytes, expected at most {bound}")
    same(s.load(config()).values["messages"], messages, "the list")


@check("full", "native", once=True)
def bytes_of_forks(s: Subject) -> None:
    """Forks share what they do not write: 50 branches off a checkpoint with a document of 1 MB store it once (C4)."""
    run = ScriptedRun(s)
    base = run.step({"doc": os.urandom(1_000_000), "n": 0})
    total = 0
    for n in range(50):
        fork = ScriptedRun(s, base.config)
        encoded = fork.prepare_and_encode({"n": n})
        total += encoded.size
        s.call("write", [encoded], durability="async")
    true(total <= 50 * 1000, f"50 forks took {total} bytes, expected at most 50,000")
    same(s.load(config()).values["doc"], base.values["doc"], "the document in a branch")
