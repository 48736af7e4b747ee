"""Configs: how ambient, bound and given ones become one; and the accessors for code inside a node.

Decides the merge of engine.md 9.1. A config is a plain dict; merging never changes its inputs and copies nested dicts one
level. Knows nothing of runs; the ambient config is whatever the current scope says it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from checkpoint.base import RunnableConfig
from pregel import _scope
from pregel.constants import SCOPE_KEY
from pregel.types import StreamWriter

__all__ = ["RunnableConfig", "get_config", "get_store", "get_stream_writer"]

KEYS: Final = frozenset(
    {"tags", "metadata", "callbacks", "run_name", "run_id", "max_concurrency", "recursion_limit", "configurable"}
)
COORDINATES: Final = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
"""Configurable keys that address a checkpoint. A config that has one stands for itself: it does not inherit others."""
DEFAULT_RECURSION_LIMIT: Final = int(os.environ.get("LANGGRAPH_DEFAULT_RECURSION_LIMIT", "10007"))


def merge(*configs: Mapping[str, Any] | None) -> dict[str, Any]:
    """One config; later ones win. Tags are concatenated, metadata and configurable merged by key, empty values ignored."""
    merged: dict[str, Any] = {}
    for config in configs:
        if not config:
            continue
        for key, value in config.items():
            if key not in KEYS:
                merged.setdefault("configurable", {})[key] = value
            elif value is None or (isinstance(value, (dict, list, tuple)) and not value):
                continue
            elif key == "tags":
                merged["tags"] = [*merged.get("tags", ()), *value]
            elif key in ("metadata", "configurable"):
                joined: dict[str, Any] = dict(merged.get(key, {}))
                joined.update(value)
                merged[key] = joined
            elif key == "callbacks":
                merged["callbacks"] = _callbacks(merged.get("callbacks"), value)
            else:
                merged[key] = value
    return merged


def _callbacks(one: Any, other: Any) -> Any:
    """Two lists of handlers become one; a manager object of another library is kept as it is."""
    if one is None:
        return other
    if isinstance(one, list) and isinstance(other, list):
        return [*one, *(handler for handler in other if handler not in one)]
    return other


def inherited(ambient: Mapping[str, Any]) -> dict[str, Any]:
    """What a nested run takes over from the config of the task it is started in."""
    taken = {key: value for key, value in ambient.items() if key not in ("run_name", "run_id")}
    metadata = {k: v for k, v in (taken.get("metadata") or {}).items() if not k.startswith("langgraph_")}
    taken["metadata"] = metadata
    return taken


def addresses(config: Mapping[str, Any] | None) -> bool:
    """Does the config name a thread or checkpoint of its own?"""
    configurable = (config or {}).get("configurable")
    return bool(configurable) and any(configurable.get(key) for key in COORDINATES)  # type: ignore[union-attr]


def handle_of(config: Mapping[str, Any] | None) -> _scope.TaskScope | None:
    """The scope that a config was made for, if its task is still running (D34)."""
    configurable = (config or {}).get("configurable")
    scope = configurable.get(SCOPE_KEY) if configurable else None
    return scope if isinstance(scope, _scope.TaskScope) and not scope.closed else None


def get_config() -> RunnableConfig:
    """The config of the task that is running here.

    Raises:
        RuntimeError: outside of a running node.
    """
    config: RunnableConfig = _scope.current("get_config()").config
    return config


def get_store() -> Any:
    """The key-value store of the run, None if it has none.

    Raises:
        RuntimeError: outside of a running node.
    """
    return _scope.current("get_store()").runtime.store


def get_stream_writer() -> StreamWriter:
    """The function that emits chunks of mode custom; does nothing when nobody listens.

    Raises:
        RuntimeError: outside of a running node.
    """
    writer: StreamWriter = _scope.current("get_stream_writer()").emit
    return writer
