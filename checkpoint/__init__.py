"""Checkpoints: what a run leaves behind so that it can be continued, looked at and forked. Knows nothing of `pregel`.

    base       shapes, errors and the interface of savers    adapter   any saver as a native one; `foreign` drives it
    registry   which classes may be stored, by name          ids       checkpoint ids and times
    serde      values <-> bytes                              chains    commits <-> rows: deltas, headers
    rows       the saver interface over rows                 retention which checkpoints stay, which go
    workers    threads that savers keep
    memory     `InMemorySaver`                               sqlite    `SqliteSaver`, `AsyncSqliteSaver`
    scan       all rows, page by page                        verify    what is damaged; `repair` mends it
    stats      what takes how much                           cli       `python -m checkpoint`; `export` to JSON
    compat     threads from files of LangGraph's saver

Names are imported when they are first asked for, so that `import checkpoint.base` costs nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from checkpoint.registry import register

if TYPE_CHECKING:
    from checkpoint.adapter import adapt
    from checkpoint.base import (
        BaseCheckpointSaver,
        Checkpoint,
        CheckpointConflictError,
        CheckpointError,
        CheckpointMetadata,
        CheckpointNotFoundError,
        CheckpointTuple,
        CorruptCheckpointError,
        ThreadDeletedError,
        UnknownTypeError,
        UnregisteredTypeError,
    )
    from checkpoint.memory import InMemorySaver, MemorySaver
    from checkpoint.retention import Retention
    from checkpoint.serde.jsonplus import JsonPlusSerializer
    from checkpoint.sqlite import AsyncSqliteSaver, SqliteSaver

_HOME: Final = {
    "AsyncSqliteSaver": "checkpoint.sqlite",
    "BaseCheckpointSaver": "checkpoint.base",
    "Checkpoint": "checkpoint.base",
    "CheckpointConflictError": "checkpoint.base",
    "CheckpointError": "checkpoint.base",
    "CheckpointMetadata": "checkpoint.base",
    "CheckpointNotFoundError": "checkpoint.base",
    "CheckpointTuple": "checkpoint.base",
    "CorruptCheckpointError": "checkpoint.base",
    "InMemorySaver": "checkpoint.memory",
    "JsonPlusSerializer": "checkpoint.serde.jsonplus",
    "MemorySaver": "checkpoint.memory",
    "Retention": "checkpoint.retention",
    "SqliteSaver": "checkpoint.sqlite",
    "ThreadDeletedError": "checkpoint.base",
    "UnknownTypeError": "checkpoint.base",
    "UnregisteredTypeError": "checkpoint.base",
    "adapt": "checkpoint.adapter",
}

__all__ = [
    "AsyncSqliteSaver",
    "BaseCheckpointSaver",
    "Checkpoint",
    "CheckpointConflictError",
    "CheckpointError",
    "CheckpointMetadata",
    "CheckpointNotFoundError",
    "CheckpointTuple",
    "CorruptCheckpointError",
    "InMemorySaver",
    "JsonPlusSerializer",
    "MemorySaver",
    "Retention",
    "SqliteSaver",
    "ThreadDeletedError",
    "UnknownTypeError",
    "UnregisteredTypeError",
    "adapt",
    "register",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'checkpoint' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
