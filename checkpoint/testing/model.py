"""Random programs over one thread, against a plain memory of what they meant.

Decides what a program may do next and what must be found then. Shares nothing with the code of savers: values are kept
as deep copies, checkpoints in a list.
"""

from __future__ import annotations

import copy
import random
from typing import Any

from checkpoint.testing.report import same
from checkpoint.testing.script import GONE, ScriptedRun, Stored, config
from checkpoint.testing.subject import implements


class Model:
    """A random program; remembers every checkpoint as it was meant. Equal seeds give equal programs."""

    def __init__(self, store: Any, seed: int, *, thread: str = "t") -> None:
        self.store = store
        self.thread = thread
        self.random = random.Random(seed)
        self.stored: list[Stored] = []
        self.run = ScriptedRun(store, config(thread), durability=self.pick("sync", "async", "submit"))

    def pick(self, *choices: Any) -> Any:
        """One of these."""
        return self.random.choice(choices)

    def value(self) -> Any:
        """A value of some kind and size."""
        size = self.pick(0, 5, 80, 300, 900, 9000)
        return self.pick(
            None,
            self.random.randrange(10**6),
            "s" * size,
            [],
            {"k": "v" * size, "l": [1, {"x": 2}]},
            [{"n": n, "x": "y" * (size // 4)} for n in range(4)],
            ["e" * size],
        )

    def changes(self, run: ScriptedRun) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a superstep changes, and what it wrote into lists: new elements and edited old ones."""
        changes: dict[str, Any] = {}
        written: dict[str, Any] = {}
        for name in self.random.sample("abcde", self.random.randrange(1, 4)):
            old = run.values.get(name)
            kind = self.random.random()
            if kind < 0.1 and name in run.versions:
                changes[name] = GONE
            elif kind < 0.75 and type(old) is list:
                news = [
                    {"new": self.random.random(), "x": "z" * self.pick(1, 100)} for _ in range(self.pick(0, 1, 1, 3))
                ]
                editable = [element for element in old if type(element) is dict]
                if editable and self.random.random() < 0.3:
                    edited = self.random.choice(editable)
                    edited["edited"] = self.random.random()
                    written[name] = [*news, edited]
                changes[name] = [*old, *news]
            elif kind < 0.75 and type(old) is str:
                changes[name] = old + "t" * self.pick(0, 1, 100)
            elif kind < 0.8 and old is not None:
                changes[name] = copy.deepcopy(old)
            else:
                changes[name] = self.value()
        return changes, written

    def step(self, run: ScriptedRun, **more: Any) -> Stored:
        """One superstep of a run."""
        changes, written = self.changes(run)
        seen: dict[str, Any] = {}
        for node in self.random.sample("xyz", self.random.randrange(3)):
            names = self.random.sample(sorted(run.versions), min(len(run.versions), self.random.randrange(3)))
            seen[node] = {name: run.versions[name] for name in names}
        stored = run.step(changes, written=written, seen=seen, **more)
        self.stored.append(stored)
        return stored

    def nested(self) -> None:
        """A nested run under the open superstep, which then ends, or is left by a crash and found again."""
        if self.run.rev is None:
            return
        run, ns = self.run, self.pick("s", f"p:{len(self.stored)}")
        at = run.sub.get(ns)
        nested = ScriptedRun(
            self.store, config(self.thread, ns), claim=run.claim, up_rev=run.rev, at_rev=at, durability=run.durability
        )
        last = self.step(nested)
        for _ in range(self.random.randrange(3)):
            last = self.step(nested)
        if self.random.random() < 0.6:
            self.step(run, sub={ns: last.rev} if ns == "s" else {})
            return
        self.run = ScriptedRun(self.store, config(self.thread))
        if ns == "s" and self.run.rev == run.rev:
            again = self.store.load(config(self.thread, ns), claim=self.run.claim, up_rev=run.rev, at_rev=at)
            same((again.rev, again.values), (last.rev, last.values), "a nested run after a crash")

    def fork(self, base: Stored) -> None:
        """A fork by the saver, and a run that goes on from it."""
        self.store.fork(base.config)
        self.run = ScriptedRun(self.store, config(self.thread), durability=self.pick("sync", "submit"))
        forked = copy.copy(base)
        assert self.run.id is not None
        assert self.run.rev is not None
        forked.id, forked.rev, forked.parent_id = self.run.id, self.run.rev, base.id
        forked.source, forked.step = "fork", base.step + 1
        self.stored.append(forked)
        same((self.run.values, self.run.sub), (base.values, base.sub), "what a fork by the saver holds")

    def lane(self) -> None:
        """The run goes on beside the thread's holder: the newest checkpoint stays what it is."""
        newest = self.store.load(config(self.thread)).checkpoint_id
        self.store.saver.open_lane(self.run.claim)
        for _ in range(self.random.randrange(1, 4)):
            self.step(self.run)
        same(self.store.load(config(self.thread)).checkpoint_id, newest, "the newest checkpoint beside a lane")

    def play(self, n_operations: int) -> None:
        """Do so many things, then compare everything."""
        for _ in range(n_operations):
            action = self.random.random()
            if action < 0.6 or not self.stored:
                self.step(self.run)
            elif action < 0.7:
                self.run = ScriptedRun(self.store, config(self.thread), durability=self.pick("sync", "async", "submit"))
            elif action < 0.85:
                base = self.random.choice([entry for entry in self.stored if entry.ns == ""])
                self.run = ScriptedRun(self.store, base.config, durability=self.pick("sync", "submit"))
                same(self.run.values, base.values, "values at a fork")
                same(self.run.sub, base.sub, "pointers to nested runs at a fork")
                kind = self.random.random()
                if kind < 0.4:
                    self.step(self.run, source="fork")
                elif kind < 0.7 and implements(self.store.saver, "fork"):
                    self.fork(base)
                elif kind < 0.85 and implements(self.store.saver, "open_lane"):
                    self.lane()
            elif action < 0.95:
                self.nested()
            else:
                self.run.tasks(self.run.task("task", [("a", self.value())]))
        self.check()

    def check(self, store: Any = None) -> None:
        """Complain unless everything is stored as it was meant; `store`: in another saver over the same place."""
        store = store or self.store
        for stored in self.stored:
            stored.check(store)
        listed = [entry.checkpoint["id"] for entry in store.list(config(self.thread))]
        wanted = sorted(self.stored, key=lambda entry: entry.rev, reverse=True)
        same(listed, [entry.id for entry in wanted], "the listing")
