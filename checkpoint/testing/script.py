"""Drives a saver as the engine does, without an engine.

Decides what a well-behaved program would give a saver, and remembers what each checkpoint was meant to hold: `Line`
through `put`, as LangGraph's loop does; `ScriptedRun` through the native interface. Which op describes a change is
decided here the way the engine decides it: by identity.

Values given to a step are live objects, as they are in a run.
"""

from __future__ import annotations

import copy
from typing import Any, Final, Protocol

from checkpoint import ids
from checkpoint.base import Append, ChannelOp, Claim, Edit, LoadedCheckpoint, StepCommit, TaskWrites
from checkpoint.testing.report import present, same

GONE: Final = object()
"""Given as a value: the channel loses its value in this step."""


class Store(Protocol):
    """What a script calls: a saver in one colour."""

    saver: Any

    def load(self, config: Any, **kwargs: Any) -> LoadedCheckpoint:
        """As `NativeSaver.load`."""
        ...

    def commit(self, *commits: StepCommit, durability: Any = "sync") -> None:
        """Encode and write in one transaction."""

    def get_tuple(self, config: Any) -> Any:
        """The addressed checkpoint, or None."""


def config(thread_id: Any = "t", ns: str | None = None, checkpoint_id: str | None = None) -> Any:
    """A config with these keys, and no others."""
    configurable: dict[str, Any] = {"thread_id": thread_id}
    if ns is not None:
        configurable["checkpoint_ns"] = ns
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def id_of(where: Any) -> Any:
    """The checkpoint id in a config; None without a config."""
    return where["configurable"]["checkpoint_id"] if where is not None else None


def checkpoint(values: dict[str, Any], versions: dict[str, Any] | None = None, **more: Any) -> Any:
    """A checkpoint with a new id; every channel has version 1 unless told."""
    return {
        "v": 1,
        "id": ids.checkpoint_id(0),
        "ts": "2026-01-02T03:04:05.000006+00:00",
        "channel_values": values,
        "channel_versions": versions if versions is not None else dict.fromkeys(values, 1),
        "versions_seen": {},
        "updated_channels": None,
        **more,
    }


class Line:
    """A line of checkpoints, each the child of the one before, put as LangGraph's loop puts them.

    Each put names the channels that changed in `new_versions`, and gives them one new version. `branch` goes on from
    here in a line of its own.
    """

    def __init__(self, store: Any, thread_id: Any = "t", ns: str = "") -> None:
        self.store = store
        self.config = config(thread_id, ns)
        self.values: dict[str, Any] = {}
        self.versions: dict[str, Any] = {}
        self.step = -1
        self.configs: list[Any] = []

    def branch(self) -> Line:
        """Another line that goes on from the newest checkpoint of this one."""
        other = Line(self.store)
        other.config, other.step = self.config, self.step
        other.values, other.versions = dict(self.values), dict(self.versions)
        return other

    def put(self, changes: dict[str, Any] | None = None, *, metadata: Any = None, **more: Any) -> Any:
        """Put the next checkpoint, in which these channels changed. Returns its config."""
        changes = changes or {}
        # One version for the whole step, above all of the checkpoint, as the engine makes it.
        newest = max(self.versions.values(), default=None)
        version = self.store.next_version(newest) if changes else newest
        for name, value in changes.items():
            self.versions[name] = version
            if value is GONE:
                self.values.pop(name, None)
            else:
                self.values[name] = value
        given = checkpoint(dict(self.values), dict(self.versions), **more)
        if metadata is None:
            metadata = {"source": "input" if self.step == -1 else "loop", "step": self.step, "parents": {}}
        self.step += 1
        self.config = self.store.put(self.config, given, metadata, dict.fromkeys(changes, version))
        self.configs.append(self.config)
        return self.config


class Stored:
    """What a commit was meant to store."""

    def __init__(self, run: ScriptedRun, commit: StepCommit) -> None:
        self.thread_id = run.claim.thread_id
        self.ns = run.ns
        self.id = commit.checkpoint_id
        self.rev = commit.rev
        self.parent_id = commit.parent_id
        self.values = copy.deepcopy(run.values)
        self.versions = dict(run.versions)
        self.seen = copy.deepcopy(run.seen)
        self.sub = dict(run.sub)
        self.updated = list(commit.updated_channels) if commit.updated_channels is not None else None
        self.step = commit.step
        self.source = commit.source

    @property
    def config(self) -> Any:
        """The address of the checkpoint."""
        return config(self.thread_id, self.ns, self.id)

    def check(self, store: Store) -> None:
        """Complain unless the checkpoint is stored as it was meant."""
        found = present(store.get_tuple(self.config), f"checkpoint {self.id} of step {self.step}")
        checkpoint = found.checkpoint
        place = f"step {self.step}, {self.id}"
        same(checkpoint["id"], self.id, place)
        same(checkpoint["channel_values"], self.values, f"{place}: values")
        same(checkpoint["channel_versions"], self.versions, f"{place}: versions")
        same(checkpoint["versions_seen"], self.seen, f"{place}: versions seen")
        same(checkpoint["updated_channels"], self.updated, f"{place}: updated channels")
        same((found.metadata["source"], found.metadata["step"]), (self.source, self.step), f"{place}: source and step")
        same(id_of(found.parent_config), self.parent_id, f"{place}: parent")


class ScriptedRun:
    """One run in one namespace: loads, then commits step by step."""

    def __init__(
        self, store: Store, where: Any = None, *, claim: Claim | None = None, durability: str = "sync", **load: Any
    ) -> None:
        """
        Args:
            store: the saver in one colour.
            where: the config that is loaded; the newest of thread "t" if None.
            claim: that of the root run, for a nested one.
            durability: of every step; `"submit"` hands them to `submit`.
            load: what else `load` is given.
        """
        self.store = store
        self.durability = durability
        where = where or config()
        self.ns = where["configurable"].get("checkpoint_ns", "")
        loaded = store.load(where, claim=claim, **load)
        self.loaded = loaded
        self.claim = loaded.claim
        self.up_rev: int | None = load.get("up_rev")
        self.rev = loaded.rev if loaded.checkpoint_id is not None else None
        self.id = loaded.checkpoint_id
        self.number = loaded.step + 1 if loaded.checkpoint_id is not None else -1
        self.values = loaded.values
        self.versions = dict(loaded.versions)
        self.seen = copy.deepcopy(loaded.seen)
        self.sub = dict(loaded.sub)
        self.facts = dict(loaded.facts)
        self.stored: list[Stored] = []

    def prepare(
        self,
        changes: dict[str, Any],
        *,
        written: dict[str, list[Any]] | None = None,
        seen: dict[str, dict[str, int]] | None = None,
        sub: dict[str, int] | None = None,
        facts: dict[str, Any] | None = None,
        writes: list[TaskWrites] | None = None,
        source: Any = None,
        **more: Any,
    ) -> StepCommit:
        """The commit of a step in which these channels changed; the run stands after it then.

        `written`: what the superstep wrote into grown lists, if not just their new elements.
        """
        version = max(self.versions.values(), default=0) + 1  # type: ignore[operator]
        values: dict[str, Any] = {}
        ops: dict[str, ChannelOp] = {}
        gone = [name for name, value in changes.items() if value is GONE]
        for name, value in changes.items():
            self.versions[name] = version
            if value is GONE:
                self.values.pop(name, None)
                continue
            op = op_of(self.values.get(name), value, (written or {}).get(name))
            if op is None:
                values[name] = value
            else:
                ops[name] = op
            self.values[name] = value
        for node, consumed in (seen or {}).items():
            self.seen[node] = dict(consumed)
        self.sub.update(sub or {})
        self.facts = {k: v for k, v in {**self.facts, **(facts or {})}.items() if v is not None}
        rev = self.claim.next_rev()
        commit = StepCommit(
            self.claim,
            self.ns,
            "checkpoint",
            writes=writes or (),
            source=source or ("input" if self.rev is None else "loop"),
            step=self.number,
            checkpoint_id=ids.checkpoint_id(self.number, ids.node_of(rev, self.claim.salt)),
            rev=rev,
            ts=ids.now_us(),
            parent_rev=self.rev,
            parent_id=self.id,
            up_rev=self.up_rev,
            version=version,
            values=values,
            ops=ops,
            gone=gone,
            seen=seen or {},
            sub=sub or {},
            facts=facts or {},
            updated_channels=sorted([*values, *ops]),
            **more,
        )
        self.number += 1
        self.rev, self.id = rev, commit.checkpoint_id
        self.stored.append(Stored(self, commit))
        return commit

    def step(self, changes: dict[str, Any], **kwargs: Any) -> Stored:
        """Commit a step in which these channels changed."""
        commit = self.prepare(changes, **kwargs)
        if self.durability == "submit":
            self.store.saver.submit(self.store.saver.encode(commit))
        else:
            self.store.commit(commit, durability=self.durability)
        return self.stored[-1]

    def prepare_and_encode(self, changes: dict[str, Any]) -> Any:
        """A step's commit as bytes, not written."""
        return self.store.saver.encode(self.prepare(changes))

    def tasks(self, *writes: TaskWrites) -> None:
        """Commit task writes alone."""
        self.store.commit(StepCommit(self.claim, self.ns, "tasks", writes=writes))

    def task(self, task_id: str, writes: list[tuple[str, Any]], slot: int = 0, path: str = "") -> TaskWrites:
        """Writes of a task of the step that starts where the run stands."""
        assert self.rev is not None
        assert self.id is not None
        return TaskWrites(self.rev, self.id, task_id, path, slot, writes)


def op_of(old: Any, new: Any, written: list[Any] | None = None) -> ChannelOp | None:
    """How the engine describes a change of a container: by an op if it is another object of the same type, else None."""
    kind = type(new)
    if type(old) is not kind or old is new or kind not in (list, dict, str):
        return None
    if kind is str:
        return Append(new, len(old)) if new.startswith(old) else Edit(new, old)
    if written is None:
        known = set(map(id, old.values() if kind is dict else old))
        written = [element for element in (new.values() if kind is dict else new) if id(element) not in known]
    if kind is list and len(new) >= len(old) and all(a is b for a, b in zip(old, new, strict=False)):
        return Append(new, len(old), written)
    return Edit(new, old, written)
