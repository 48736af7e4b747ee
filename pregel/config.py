"""Configs: how ambient, bound and given ones become one; and the accessors for code inside a node.

Decides the merge of engine.md 9.1, and which keys stand where nobody reads them (promise 54). A config is a plain dict;
merging never changes its inputs and copies nested dicts one level. Knows nothing of runs; the ambient config is whatever
the current scope says it is.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from checkpoint.base import RunnableConfig
from pregel import _scope
from pregel.constants import SCOPE_KEY
from pregel.errors import closest, shown
from pregel.types import StreamWriter
from pregel.warnings import Notice

__all__ = ["RunnableConfig", "get_config", "get_store", "get_stream_writer"]

KEYS: Final = frozenset(
    {"tags", "metadata", "callbacks", "run_name", "run_id", "max_concurrency", "recursion_limit", "configurable"}
)
COORDINATES: Final = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
"""Configurable keys that address a checkpoint. A config that has one stands for itself: it does not inherit others."""
ELSEWHERE: Final = frozenset({"recursion_limit", "max_concurrency", "callbacks", "run_name"})
"""Keys that have an effect at the top level only. The other ones of `KEYS` are names of a user's own as well: a search may
have `tags`, servers put a `run_id` there."""
ARGUMENTS: Final = frozenset(
    {
        "context",
        "control",
        "deadline",
        "debug",
        "durability",
        "interrupt_after",
        "interrupt_before",
        "max_steps",
        "on_conflict",
        "output_keys",
        "print_mode",
        "stream_mode",
        "subgraphs",
        "timeout",
        "version",
    }
)
"""What a call takes beside its config."""
FORMER: Final = frozenset({"checkpoint_during"})
"""Former names, still taken."""
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


def is_plain(config: Mapping[str, Any]) -> bool:
    """Does every key stand where it is read, as far as names tell? Nearly always, so it is asked first."""
    configurable = config.get("configurable")
    return config.keys() <= KEYS and (not configurable or ELSEWHERE.isdisjoint(configurable))


def mistakes(config: Mapping[str, Any], own: Collection[str], around: Mapping[str, Any]) -> Iterator[Notice]:
    """What of a config nobody reads where it stands.

    Args:
        config: as it was given to a call, or bound to a graph.
        own: names that the graph declares for itself.
        around: the configurable of the run that the call is made in: what comes from there was looked at there.
    """
    for key in config:
        if key not in KEYS and key not in own:
            yield Notice("unknown-config", str(key), f"config key {shown(key)} {_whereto(key, config[key])}")
    configurable = config.get("configurable") or {}
    for key in ELSEWHERE.intersection(configurable).difference(own):
        value = configurable[key]
        if key in around and around[key] is value:
            continue
        yield Notice(
            "misplaced-config",
            f"configurable.{key}",
            f"config['configurable'][{key!r}] = {shown(value, 80)} has no effect; {key} belongs to the top level: "
            f"config={{{key!r}: {shown(value, 80)}}}",
        )


def unknown_argument(name: str, value: Any) -> Notice:
    """A keyword argument that no call takes."""
    text = f"argument {name}={shown(value, 80)} is none that a call takes, so it is ignored; "
    if name in KEYS:
        text += f"it belongs to the config: config={{{name!r}: {shown(value, 80)}}}"
    elif name in COORDINATES:
        text += f"it belongs to the config: config={{'configurable': {{{name!r}: {shown(value, 80)}}}}}"
    else:
        meant = closest(name, ARGUMENTS) or closest(name, KEYS)
        known = f"known are {', '.join(sorted(ARGUMENTS))}"
        text += known if meant is None else f"did you mean {meant}{' in the config' if meant in KEYS else ''}?"
    return Notice("unknown-argument", name, text)


def _whereto(key: Any, value: Any) -> str:
    """What becomes of a top-level key that is none, and what was probably meant."""
    place = f"config={{'configurable': {{{key!r}: {shown(value, 80)}}}}}"
    if key in COORDINATES:
        return f"stands at the top level, where only some calls find it; write {place}"
    if key in ARGUMENTS:
        return f"is taken for a configurable value; {key} is an argument of the call itself"
    meant = closest(key, (*KEYS, *COORDINATES))
    if meant in KEYS:
        return f"is taken for a configurable value; did you mean {meant!r}?"
    if meant is not None:
        return f"is taken for a configurable value; did you mean config={{'configurable': {{{meant!r}: ...}}}}?"
    return f"is none of {', '.join(sorted(KEYS))}, so it is taken for a configurable value; write {place}"


def _callbacks(one: Any, other: Any) -> Any:
    """Handlers of two configs together, each once. A manager object of another library stays one: a copy, to which the
    handlers that it lacks are added. A single handler counts as a list of one."""
    if isinstance(other, tuple) or not (isinstance(other, list) or hasattr(other, "handlers")):
        other = list(other) if isinstance(other, tuple) else [other]
    if one is None:
        return other
    if isinstance(one, list) and isinstance(other, list):
        return [*one, *(handler for handler in other if handler not in one)]
    manager: Any
    manager, more = (other, one) if isinstance(one, list) else (one, getattr(other, "handlers", other))
    if not hasattr(manager, "copy") or not hasattr(manager, "add_handler"):
        return other
    whole: Any = manager.copy()
    for handler in more:
        if handler not in whole.handlers:
            whole.add_handler(handler, True)
    return whole


def inherited(ambient: Mapping[str, Any]) -> dict[str, Any]:
    """What a nested run takes over from the config of the task it is started in."""
    taken = {key: value for key, value in ambient.items() if key not in ("run_name", "run_id")}
    metadata = {k: v for k, v in (taken.get("metadata") or {}).items() if not k.startswith("langgraph_")}
    taken["metadata"] = metadata
    return taken


def without_tags(config: Mapping[str, Any] | None, known: Collection[str] | None) -> Mapping[str, Any] | None:
    """A config without the tags that are known already: those of the run around are not repeated."""
    if not known or not config or not config.get("tags"):
        return config
    return {**config, "tags": [tag for tag in config["tags"] if tag not in known]}


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
