"""A small saver as people write them for LangGraph: four methods, sync, in dicts, or in one file that is pickled whole.

Correct for level base of the kit, and no more. Written in steps that each do one thing, so that a wrong saver is this
one with one step done wrongly.
"""

from __future__ import annotations

import contextlib
import fcntl
import pickle
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from checkpoint.base import WRITES_IDX_MAP, BaseCheckpointSaver, CheckpointTuple, get_checkpoint_metadata
from checkpoint.testing.script import config


class PlainSaver(BaseCheckpointSaver[str]):
    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[Any, dict[str, Any]] = {}
        """(thread, namespace) -> id -> (checkpoint without values, metadata, parent id), oldest first."""
        self.blobs: dict[Any, Any] = {}
        """(thread, namespace, channel, version) -> value."""
        self.writes: dict[Any, dict[Any, Any]] = {}
        """(thread, namespace, checkpoint id) -> (task, index) -> (channel, value)."""

    def get_next_version(self, current: Any, channel: Any) -> Any:
        number = int(str(current).split(".")[0]) if current is not None else 0
        return f"{number + 1:08}.{random.random():.12f}"

    def key(self, where: Any) -> Any:
        given = where["configurable"]
        return given["thread_id"], given.get("checkpoint_ns", "")

    def writes_key(self, where: Any) -> Any:
        return *self.key(where), where["configurable"]["checkpoint_id"]

    # Writing.

    def put(self, where: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        key = self.key(where)
        checkpoint = pickle.loads(pickle.dumps(checkpoint))
        values = checkpoint.pop("channel_values")
        self.keep_values(key, values, checkpoint["channel_versions"], new_versions)
        row = checkpoint, self.metadata(where, metadata), where["configurable"].get("checkpoint_id")
        self.rows.setdefault(key, {})[checkpoint["id"]] = row
        return config(*key, checkpoint["id"])

    def keep_values(self, key: Any, values: Any, versions: Any, new_versions: Any) -> None:
        for name in new_versions:
            if name in values:
                self.blobs[*key, name, versions[name]] = values[name]

    def metadata(self, where: Any, metadata: Any) -> Any:
        return get_checkpoint_metadata(where, metadata)

    def put_writes(self, where: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        kept = self.writes.setdefault(self.writes_key(where), {})
        for position, (channel, value) in enumerate(writes):
            self.keep_write(kept, (task_id, WRITES_IDX_MAP.get(channel, position)), (channel, pickle.dumps(value)))

    def keep_write(self, kept: dict[Any, Any], key: Any, write: Any) -> None:
        if key[1] < 0 or key not in kept:
            kept[key] = write

    # Reading.

    def get_tuple(self, where: Any) -> Any:
        rows = self.rows.get(self.key(where), {})
        wanted = where["configurable"].get("checkpoint_id") or self.newest(rows)
        return self.shown(self.key(where), wanted) if wanted in rows else None

    def newest(self, rows: dict[str, Any]) -> str | None:
        return [*rows][-1] if rows else None

    def shown(self, key: Any, checkpoint_id: str) -> CheckpointTuple:
        checkpoint, metadata, parent = pickle.loads(pickle.dumps(self.rows[key][checkpoint_id]))
        checkpoint["channel_values"] = self.values(key, checkpoint["channel_versions"])
        where = config(*key, checkpoint_id)
        return CheckpointTuple(where, checkpoint, metadata, self.parent(key, parent), self.shown_writes(where))

    def values(self, key: Any, versions: Any) -> dict[str, Any]:
        kept = {name: self.blobs[*key, name, v] for name, v in versions.items() if (*key, name, v) in self.blobs}
        values: dict[str, Any] = pickle.loads(pickle.dumps(kept))
        return values

    def parent(self, key: Any, parent: str | None) -> Any:
        return config(*key, parent) if parent else None

    def shown_writes(self, where: Any) -> list[Any]:
        kept = self.writes.get(self.writes_key(where), {})
        return [(task, channel, pickle.loads(value)) for (task, _), (channel, value) in kept.items()]

    def list(self, where: Any, *, filter: Any = None, before: Any = None, limit: Any = None) -> Iterator[Any]:
        entries = [self.shown(key, id_) for key in self.listed(where) for id_ in self.order(self.rows[key])]
        entries = [
            entry for entry in entries if self.is_before(entry, before) and self.fits(entry.metadata, filter or {})
        ]
        yield from entries if limit is None else entries[:limit]

    def listed(self, where: Any) -> list[Any]:
        return [key for key in self.rows if where is None or key == self.key(where)]

    def order(self, rows: dict[str, Any]) -> list[str]:
        return [*reversed(rows)]

    def is_before(self, entry: Any, before: Any) -> bool:
        return before is None or entry.checkpoint["id"] < before["configurable"]["checkpoint_id"]

    def fits(self, metadata: Any, wanted: Any) -> bool:
        return all(metadata.get(key) == value for key, value in wanted.items())


class DeletingSaver(PlainSaver):
    def delete_thread(self, thread_id: str) -> None:
        for kept in (self.rows, self.blobs, self.writes):
            for key in [key for key in kept if self.goes(key, thread_id)]:
                del kept[key]  # type: ignore[attr-defined]

    def goes(self, key: Any, thread_id: str) -> bool:
        return bool(key[0] == thread_id)


class AsyncOnlySaver(BaseCheckpointSaver[str]):
    """The same behind the async methods alone."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = PlainSaver()
        self.get_next_version = self.plain.get_next_version  # type: ignore[method-assign]

    async def aget_tuple(self, where: Any) -> Any:
        return self.plain.get_tuple(where)

    async def alist(self, where: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for entry in self.plain.list(where, **kwargs):
            yield entry

    async def aput(self, *args: Any) -> Any:
        return self.plain.put(*args)

    async def aput_writes(self, *args: Any, **kwargs: Any) -> None:
        self.plain.put_writes(*args, **kwargs)


class FileSaver(DeletingSaver):
    """The same in a file, read before every call and replaced after every change, under a lock file."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.place = place

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        # The system lets go of it when the process dies.
        with self.place.with_name(self.place.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read(self) -> None:
        if self.place.exists():
            self.rows, self.blobs, self.writes = pickle.loads(self.place.read_bytes())

    def save(self) -> None:
        new = self.place.with_name(self.place.name + ".new")
        new.write_bytes(pickle.dumps((self.rows, self.blobs, self.writes)))
        new.replace(self.place)

    def changed(self, name: str, *args: Any, **kwargs: Any) -> Any:
        with self.locked():
            self.read()
            outcome = getattr(super(), name)(*args, **kwargs)
            self.save()
            return outcome

    def put(self, *args: Any) -> Any:
        return self.changed("put", *args)

    def put_writes(self, *args: Any, **kwargs: Any) -> None:
        self.changed("put_writes", *args, **kwargs)

    def delete_thread(self, thread_id: str) -> None:
        self.changed("delete_thread", thread_id)

    def get_tuple(self, where: Any) -> Any:
        self.read()
        return super().get_tuple(where)

    def list(self, where: Any, **kwargs: Any) -> Iterator[Any]:
        self.read()
        yield from super().list(where, **kwargs)
