"""Random threads that are pruned, copied, cut and reopened, against a model that knows what must stay and reads all of
it back."""

from __future__ import annotations

import copy
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from checkpoint import deltas, headers
from checkpoint.base import CheckpointConflictError, CheckpointNotFoundError
from checkpoint.memory import InMemorySaver
from checkpoint.row_saver import RowSaver
from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.sqlite import SqliteSaver
from tests.checkpoint.ciphers import BindingCipher
from tests.checkpoint.runs import GONE, ScriptedRun, Store, Stored, config
from tests.checkpoint.soundness import unsound

EXAMPLES = 36
RUNS = ("r1", "r2", "r3")


class Known:
    """A checkpoint that must be there."""

    def __init__(self, stored: Stored, up_rev: int | None, run_id: str | None) -> None:
        self.stored = stored
        self.parent: int | None = None
        self.up_rev = up_rev
        self.run_id = run_id
        self.asking = False
        self.was_given_parent = False
        self.writes: set[tuple[str, str, str]] = set()

    @property
    def rev(self) -> int:
        return self.stored.rev

    @property
    def ns(self) -> str:
        return self.stored.ns

    def check(self, store: Store, ids_of: dict[int, str]) -> None:
        self.stored.parent_id = ids_of[self.parent] if self.parent is not None else None
        self.stored.check(store)
        found = store.get_tuple(self.stored.config)
        assert sorted(found.pending_writes) == sorted(self.writes)


class Thread:
    """What is left of a thread by the rules, computed the slow way."""

    def __init__(self) -> None:
        self.known: dict[int, Known] = {}
        self.heads: dict[str, int] = {}

    def copy(self) -> Thread:
        return copy.deepcopy(self)

    def lineage(self, rev: int | None, n: int) -> list[int]:
        line: list[int] = []
        while rev is not None and len(line) < n:
            line.append(rev)
            rev = self.known[rev].parent
        return line

    def around(self, rev: int | None) -> list[int]:
        found: list[int] = []
        while rev is not None and rev in self.known:
            found.append(rev)
            rev = self.known[rev].up_rev
        return found

    def is_closed(self, rev: int) -> bool:
        return any(
            entry.parent == rev and entry.stored.source == "loop" and not entry.was_given_parent
            for entry in self.known.values()
        )

    def prune(self, keep: int) -> int:
        known = self.known
        kept: set[int] = set()
        while True:
            wanted = set(kept)
            for ns, head in self.heads.items():
                above = {entry.up_rev for entry in known.values() if entry.ns == ns}
                if ":" not in ns or above == {None} or above & kept:
                    wanted.update(self.lineage(head, keep))
            for rev, entry in known.items():
                around = self.around(rev)
                is_whole = len(around) > 1 or entry.up_rev is None
                if entry.asking and is_whole and not any(map(self.is_closed, around)):
                    wanted.update(around)
            for rev in kept:
                wanted.update(known[rev].stored.sub.values())
                for ns in self.heads:
                    under = [other for other, entry in known.items() if entry.ns == ns and entry.up_rev == rev]
                    wanted.update(sorted(under)[-1:])
            wanted &= known.keys()
            if wanted == kept:
                break
            kept = wanted
        n_removed = len(known) - len(kept)
        self.known = {rev: known[rev] for rev in kept}
        for entry in self.known.values():
            if entry.parent not in kept:
                entry.parent = None
            if entry.up_rev not in kept:
                entry.up_rev = None
        spaces = {entry.ns for entry in self.known.values()}
        self.heads = {ns: head for ns, head in self.heads.items() if ns in spaces}
        return n_removed

    def delete_runs(self, run_ids: set[str]) -> bool:
        """Whether anything of the thread was removed."""
        known = self.known

        def heir(rev: int | None) -> int | None:
            while rev is not None and known[rev].run_id in run_ids:
                rev = known[rev].parent
            return rev

        left = {rev: entry for rev, entry in known.items() if entry.run_id not in run_ids}
        changed = len(left) < len(known)
        for rev, entry in left.items():
            ends = [e for e in known.values() if e.parent == rev and e.stored.source == "loop"]
            ends = [e for e in ends if not e.was_given_parent]
            if ends and not any(e.rev in left for e in ends) and any("__interrupt__" in w for w in entry.writes):
                entry.writes.discard(("asker", "a", "answered"))
                entry.asking = True
        heirs = {rev: heir(rev) for rev in known}
        for ns, head in list(self.heads.items()):
            if head not in left:
                ours = [rev for rev, entry in left.items() if entry.ns == ns]
                new = heirs[head] if heirs[head] is not None else max(ours, default=None)
                if new is None:
                    del self.heads[ns]
                else:
                    self.heads[ns] = new
        for entry in left.values():
            if entry.parent is not None and entry.parent not in left:
                entry.parent, entry.was_given_parent = heirs[entry.parent], True
            if entry.up_rev not in left:
                entry.up_rev = None
            entry.stored.sub = {
                ns: kept for ns, rev in entry.stored.sub.items() if (kept := heirs.get(rev)) is not None
            }
        self.known = left
        return changed


VALUES: tuple[Any, ...] = (
    None,
    7,
    "s" * 100,
    "é" * 40,
    ["e" * 90],
    [{"n": 1, "x": "y" * 70}],
    {"k": "v" * 900},
    "b" * 9000,
)
SEEDS = st.integers(0, 1000).map(random.Random)


class Threads(RuleBasedStateMachine):
    """One thread under work, and copies of it."""

    make: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.saver = self.make(self.place)
        self.store = Store(self.saver, False)
        self.threads: dict[str, Thread] = {"t": Thread()}
        self.number = 0
        self.allows_garbage = False
        self.run = self.started()

    def teardown(self) -> None:
        self.saver.close()
        shutil.rmtree(self.place)

    @property
    def thread(self) -> Thread:
        return self.threads["t"]

    def started(self, where: Any = None, **load: Any) -> ScriptedRun:
        self.number += 1
        self.run_id = RUNS[self.number % 3]
        return ScriptedRun(self.store, where, durability="async", **load)

    def step(self, run: ScriptedRun, changes: dict[str, Any], **more: Any) -> Known | None:
        parent = run.rev
        try:
            stored = run.step(changes, run_id=self.run_id, **more)
        except CheckpointNotFoundError:
            assert parent not in self.thread.known
            self.run = self.started()
            return None
        assert parent is None or parent in self.thread.known
        entry = self.thread.known[stored.rev] = Known(stored, run.up_rev, self.run_id)
        entry.parent = parent
        self.thread.heads[stored.ns] = stored.rev
        return entry

    def changed(self, run: ScriptedRun, chance: random.Random) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        for name in chance.sample("abc", chance.randrange(1, 4)):
            old = run.values.get(name)
            if type(old) is list:
                changes[name] = [*old, {"new": self.number, "x": "z" * chance.choice([1, 90])}]
            elif type(old) is str:
                changes[name] = old + "t" * 70
            elif old is not None and chance.random() < 0.5:
                changes[name] = GONE
            else:
                changes[name] = copy.deepcopy(chance.choice(VALUES))
        return changes

    @rule(chance=SEEDS, n=st.integers(1, 4))
    def goes_on(self, chance: random.Random, n: int) -> None:
        for _ in range(n):
            task = [self.run.task("task", [("a", "1")])] if self.run.rev is not None and chance.random() < 0.5 else []
            parent = self.thread.known.get(self.run.rev or 0)
            if self.step(self.run, self.changed(self.run, chance), writes=task) and task and parent:
                parent.writes.add(("task", "a", "1"))

    @rule()
    @precondition(lambda self: self.thread.known)
    def starts_again(self) -> None:
        self.run = self.started()
        assert self.run.rev == self.thread.heads.get("")

    @rule(chance=SEEDS, forks=st.booleans())
    @precondition(lambda self: "" in self.thread.heads)
    def travels(self, chance: random.Random, forks: bool) -> None:
        at = chance.choice(sorted(rev for rev, entry in self.thread.known.items() if entry.ns == ""))
        entry = self.thread.known[at]
        self.run = self.started(entry.stored.config)
        assert self.run.values == entry.stored.values
        if forks:
            self.step(self.run, {}, source="fork")

    @rule(chance=SEEDS, ns=st.sampled_from(["", "s", "p"]))
    @precondition(lambda self: self.thread.known)
    def forks(self, chance: random.Random, ns: str) -> None:
        """By the saver."""
        thread = self.thread
        revs = sorted(rev for rev, entry in thread.known.items() if entry.ns.partition(":")[0] == ns)
        if not revs:
            return
        at = thread.known[chance.choice(revs)]
        made = self.store.load(self.store.fork(at.stored.config))
        up_rev = at.up_rev
        if ns == "s" and at.rev == thread.heads["s"] and "" in thread.heads:
            up_rev = thread.heads[""]
        forked = copy.copy(at.stored)
        assert made.checkpoint_id is not None
        forked.id, forked.rev, forked.source, forked.step = made.checkpoint_id, made.rev, "fork", at.stored.step + 1
        forked.sub = dict(at.stored.sub)
        entry = thread.known[made.rev] = Known(forked, up_rev, None)
        entry.parent = at.rev
        thread.heads[at.ns] = made.rev
        assert (made.up_rev, made.values) == (up_rev, at.stored.values)
        self.run = self.started()

    @rule(chance=SEEDS, ns=st.sampled_from(["s", "p", "s|u"]), closes=st.booleans(), asks=st.booleans())
    @precondition(lambda self: self.run.rev in self.thread.known)
    def nests(self, chance: random.Random, ns: str, closes: bool, asks: bool) -> None:
        outer = self.run
        if ns == "p":
            ns = f"p:00000000-0000-0000-0000-{self.number:012}"
        if ns == "s|u":
            # Two levels: the outer one opens first.
            outer = self.nested("s", self.run, chance)
            if outer is None:
                return
        inner = self.nested(ns, outer, chance)
        if inner is None:
            return
        if asks:
            for run in {outer, inner}:
                self.ask(run)
            return
        if closes:
            finished = {ns: inner.rev} if ":" not in ns else {}
            if self.step(outer, {}, sub=finished) and outer is not self.run:
                self.step(self.run, {}, sub={"s": outer.rev})

    def nested(self, ns: str, outer: ScriptedRun, chance: random.Random) -> ScriptedRun | None:
        run = ScriptedRun(self.store, config("t", ns), claim=outer.claim, up_rev=outer.rev, at_rev=outer.sub.get(ns))
        if self.step(run, self.changed(run, chance)) is None:
            return None
        return run

    def ask(self, run: ScriptedRun) -> None:
        entry = self.thread.known[run.rev]  # type: ignore[index]
        if any(task == "asker" for task, _, _ in entry.writes):
            return
        try:
            run.tasks(run.task("asker", [("__interrupt__", "?")], slot=-3))
        except CheckpointConflictError:
            return
        entry.asking = True
        entry.writes.add(("asker", "__interrupt__", "?"))

    @rule()
    @precondition(lambda self: self.run.rev in self.thread.known)
    def asks(self) -> None:
        self.ask(self.run)

    @rule()
    @precondition(lambda self: any(entry.asking for entry in self.thread.known.values()))
    def answers(self) -> None:
        entry = next(entry for entry in self.thread.known.values() if entry.asking)
        self.store.put_writes(entry.stored.config, [("a", "answered")], "asker")
        entry.asking = False
        entry.writes.add(("asker", "a", "answered"))

    @rule(keep=st.integers(1, 4), compact=st.booleans())
    @precondition(lambda self: len(self.thread.known) > 3)
    def prunes(self, keep: int, compact: bool) -> None:
        expected = self.thread.prune(keep)
        assert self.saver.prune(["t", "nobody"], keep=keep, compact=compact) == expected
        assert unsound(self.saver) == []
        if compact:
            self.run = self.started()

    @rule(run_id=st.sampled_from(RUNS))
    @precondition(lambda self: len(self.thread.known) > 5)
    def deletes_a_run(self, run_id: str) -> None:
        changed = False
        for thread in self.threads.values():
            changed |= thread.delete_runs({run_id})
        self.saver.delete_for_runs([run_id, "unknown"])
        for thread_id in self.threads:
            assert unsound(self.saver, thread_id) == []
        if changed:
            self.run = self.started()

    @rule()
    @precondition(lambda self: self.thread.known)
    def copies(self) -> None:
        self.saver.copy_thread("t", "copy", overwrite="copy" in self.threads)
        copied = self.threads["copy"] = self.thread.copy()
        for entry in copied.known.values():
            entry.stored.thread_id = "copy"

    @rule(thread_id=st.sampled_from(["t", "copy"]))
    @precondition(lambda self: len(self.thread.known) > 10)
    def deletes(self, thread_id: str) -> None:
        self.saver.delete_thread(thread_id)
        self.threads.pop(thread_id, None)
        if thread_id == "t":
            self.threads["t"] = Thread()
            self.run = self.started()

    @rule()
    @precondition(lambda self: self.thread.known and not isinstance(self.saver, InMemorySaver))
    def reopens(self) -> None:
        self.saver.close()
        self.saver = self.make(self.place)
        self.store = Store(self.saver, False)
        self.run = self.started()

    @invariant()
    def everything_reads_back(self) -> None:
        for thread_id, thread in self.threads.items():
            ids_of = {rev: entry.stored.id for rev, entry in thread.known.items()}
            for entry in thread.known.values():
                entry.check(self.store, ids_of)
            listed = [entry.checkpoint["id"] for entry in self.store.list(config(thread_id))]
            assert listed == [ids_of[rev] for rev in sorted(ids_of, reverse=True)]
            for ns, head in thread.heads.items():
                assert self.store.get_tuple(config(thread_id, ns)).checkpoint["id"] == ids_of[head]
            assert unsound(self.saver, thread_id, allows_garbage=True) == []


@pytest.mark.parametrize("kind", ["memory", "sqlite", "small batches", "encrypted"])
@pytest.mark.parametrize("limits", ["usual", "low"])
def test_threads(kind: str, limits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if limits == "low":
        monkeypatch.setattr(deltas, "MAX_CHAIN_ROWS", 3)
        monkeypatch.setattr(headers, "MAX_HEADER_ROWS", 5)
        monkeypatch.setattr(headers, "MIN_HEADER_OPS", 100)
    if kind == "small batches":
        # Every job ends a transaction.
        monkeypatch.setattr(RowSaver, "_batch", 1)

    class Machine(Threads):
        @staticmethod
        def make(place: Path) -> Any:
            if kind == "memory":
                return InMemorySaver()
            serde = EncryptedSerializer(BindingCipher(b"key")) if kind == "encrypted" else None
            return SqliteSaver(place / "t.sqlite", serde=serde)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES if kind == "memory" else EXAMPLES // 6,
            stateful_step_count=30,
            deadline=None,
            phases=[Phase.generate],
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
