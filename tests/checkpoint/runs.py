"""Drives savers as the engine does, in either colour, without an engine.

`Store` is a saver in one colour; `ScriptedRun` loads, numbers, commits and remembers like a run. Values given to a step
are live objects, and which op describes them is decided here the way the engine decides it: by identity.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from checkpoint import ids
from checkpoint.base import Append, ChannelOp, Claim, Edit, LoadedCheckpoint, StepCommit, TaskWrites

GONE = object()
"""Given as a value: the channel loses its value in this step."""


class Store:
    """The calls of a saver, in one colour."""

    def __init__(self, saver: Any, is_async: bool) -> None:
        self.saver = saver
        self.is_async = is_async

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if not self.is_async:
            return getattr(self.saver, name)(*args, **kwargs)

        async def run() -> Any:
            return await getattr(self.saver, "a" + name)(*args, **kwargs)

        return asyncio.run(run())

    def _collect(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        if not self.is_async:
            return list(getattr(self.saver, name)(*args, **kwargs))

        async def run() -> list[Any]:
            return [entry async for entry in getattr(self.saver, "a" + name)(*args, **kwargs)]

        return asyncio.run(run())

    def load(self, config: Any, **kwargs: Any) -> LoadedCheckpoint:
        loaded: LoadedCheckpoint = self._call("load", config, **kwargs)
        return loaded

    def commit(self, *commits: StepCommit, durability: Any = "sync") -> None:
        self._call("write", [self.saver.encode(commit) for commit in commits], durability=durability)

    def get_tuple(self, config: Any) -> Any:
        return self._call("get_tuple", config)

    def put(self, *args: Any) -> Any:
        return self._call("put", *args)

    def put_writes(self, *args: Any, **kwargs: Any) -> None:
        self._call("put_writes", *args, **kwargs)

    def delete_thread(self, thread_id: str) -> None:
        self._call("delete_thread", thread_id)

    def copy_thread(self, source: str, target: str) -> None:
        self._call("copy_thread", source, target)

    def list(self, *args: Any, **kwargs: Any) -> list[Any]:
        return self._collect("list", *args, **kwargs)

    def history(self, *args: Any, **kwargs: Any) -> list[Any]:
        return self._collect("history", *args, **kwargs)


def config(thread_id: Any = "t", ns: str | None = None, checkpoint_id: str | None = None) -> Any:
    configurable: dict[str, Any] = {"thread_id": thread_id}
    if ns is not None:
        configurable["checkpoint_ns"] = ns
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


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
        return config(self.thread_id, self.ns, self.id)

    def check(self, store: Store) -> None:
        found = store.get_tuple(self.config)
        assert found is not None, self.id
        checkpoint = found.checkpoint
        assert checkpoint["id"] == self.id
        assert checkpoint["channel_values"] == self.values
        assert checkpoint["channel_versions"] == self.versions
        assert checkpoint["versions_seen"] == self.seen
        assert checkpoint["updated_channels"] == self.updated
        assert (found.metadata["source"], found.metadata["step"]) == (self.source, self.step)
        parent = found.parent_config
        assert (parent["configurable"]["checkpoint_id"] if parent else None) == self.parent_id


class ScriptedRun:
    """One run in one namespace: loads, then commits step by step."""

    def __init__(
        self, store: Store, where: Any = None, *, claim: Claim | None = None, durability: str = "sync", **load: Any
    ) -> None:
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
        self.stored: list[Stored] = []

    def prepare(
        self,
        changes: dict[str, Any],
        *,
        written: dict[str, list[Any]] | None = None,
        seen: dict[str, dict[str, int]] | None = None,
        sub: dict[str, int] | None = None,
        writes: list[TaskWrites] | None = None,
        source: Any = None,
        **more: Any,
    ) -> StepCommit:
        """The commit of a step in which these channels changed; the run stands after it then."""
        version = max(self.versions.values(), default=0) + 1
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
            updated_channels=sorted([*values, *ops]),
            **more,
        )
        self.number += 1
        self.rev, self.id = rev, commit.checkpoint_id
        self.stored.append(Stored(self, commit))
        return commit

    def step(self, changes: dict[str, Any], **kwargs: Any) -> Stored:
        commit = self.prepare(changes, **kwargs)
        if self.durability == "submit":
            self.store.saver.submit(self.store.saver.encode(commit))
        else:
            self.store.commit(commit, durability=self.durability)
        return self.stored[-1]

    def prepare_and_encode(self, changes: dict[str, Any]) -> Any:
        return self.store.saver.encode(self.prepare(changes))

    def tasks(self, *writes: TaskWrites) -> None:
        self.store.commit(StepCommit(self.claim, self.ns, "tasks", writes=writes))

    def task(self, task_id: str, writes: list[tuple[str, Any]], slot: int = 0, path: str = "") -> TaskWrites:
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
