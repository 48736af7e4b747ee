"""Configs under LangGraph's former import path. `get_config` and `get_store` are those of `pregel.config`.

Decides only what a config has that lacks keys (amendments 9.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pregel import _scope
from pregel.config import DEFAULT_RECURSION_LIMIT, RunnableConfig, get_config, get_store, inherited, merge

__all__ = ["ensure_config", "get_config", "get_store", "patch_configurable"]


def ensure_config(*configs: Mapping[str, Any] | None) -> RunnableConfig:
    """One config with all keys that a caller may look up: of the task that runs here, if any, then of each given one."""
    scope = _scope.current_or_none()
    ambient = None if scope is None or scope.is_over() else inherited(scope.config)
    full: dict[str, Any] = {
        "tags": [],
        "metadata": {},
        "callbacks": None,
        "recursion_limit": DEFAULT_RECURSION_LIMIT,
        "configurable": {},
    }
    full.update(merge(ambient, *configs))
    return full  # type: ignore[return-value]


def patch_configurable(config: RunnableConfig | None, patch: Mapping[str, Any]) -> RunnableConfig:
    """A copy of a config, with these values in its `configurable`."""
    given: dict[str, Any] = dict(config or {})
    given["configurable"] = {**(given.get("configurable") or {}), **patch}
    return given  # type: ignore[return-value]
