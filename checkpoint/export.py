"""Checkpoints as JSON, for people and for tools that know nothing of this library.

Decides the plain form of a value. What JSON has is itself. Anything else becomes an object with `$type` and `$value`:

    tuple, set, frozenset, deque    the elements as a list, those of sets in a fixed order
    bytes, bytearray, memoryview    base64 text
    dict with other keys than text, or with keys that begin with `$`    a list of [key, value]
    float that JSON does not have   its text: "nan", "inf", "-inf"
    a value of a class of the program    what was stored of it, under the stored name of its class
    datetime, UUID, Decimal, ...    the text that `isoformat` or `str` gives

Lossy: this is for looking, not for reading back. Subclasses of `str`, `int` and `float` lose their class, objects of
any other class are reduced to their `repr` (`$repr`), and what is nested deeper than 100 levels is cut. Revisions,
header lines and how values are shared between checkpoints are not shown; channel versions are.
"""

from __future__ import annotations

import base64
import json
import math
from collections import deque
from typing import Any, Final

from checkpoint.base import CheckpointTuple
from checkpoint.serde.base import Opaque

MAX_DEPTH: Final = 100
_TEXTS: Final = frozenset(
    {"datetime", "date", "time", "UUID", "Decimal", "Fraction", "PosixPath", "WindowsPath", "PurePosixPath", "ZoneInfo"}
)


def line_of(shown: CheckpointTuple) -> str:
    """One checkpoint as a line of JSON, without the line's end. ASCII only."""
    configurable = shown.config["configurable"]
    parent = shown.parent_config
    checkpoint: Any = shown.checkpoint
    return json.dumps(
        {
            "thread_id": configurable["thread_id"],
            "checkpoint_ns": configurable["checkpoint_ns"],
            "checkpoint_id": configurable["checkpoint_id"],
            "parent_checkpoint_id": parent["configurable"]["checkpoint_id"] if parent else None,
            "ts": checkpoint["ts"],
            "metadata": plain(shown.metadata),
            "values": {name: plain(value) for name, value in checkpoint["channel_values"].items()},
            "versions": plain(checkpoint["channel_versions"]),
            "versions_seen": plain(checkpoint["versions_seen"]),
            "updated_channels": checkpoint["updated_channels"],
            "writes": [
                {"task_id": task_id, "channel": channel, "value": plain(value)}
                for task_id, channel, value in shown.pending_writes or ()
            ],
        },
        allow_nan=False,
    )


def plain(value: Any, depth: int = 0) -> Any:
    """The JSON-able form of a value, as the module says."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _typed("float", str(float(value)))
    if depth >= MAX_DEPTH:
        return {"$type": _name(value), "$repr": "..."}
    if isinstance(value, dict):
        return _plain_dict(value, depth + 1)
    if type(value) is list:
        return [plain(element, depth + 1) for element in value]
    return _plain_object(value, depth + 1)


def _plain_dict(value: dict[Any, Any], depth: int) -> Any:
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {str(key): plain(element, depth) for key, element in value.items()}
    return _typed("dict", [[plain(key, depth), plain(element, depth)] for key, element in value.items()])


def _plain_object(value: Any, depth: int) -> Any:
    if isinstance(value, Opaque):
        return _typed(value.type, plain(value.payload, depth))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _typed(_name(value), base64.b64encode(value).decode())
    if isinstance(value, (set, frozenset)):
        return _typed(_name(value), sorted((plain(element, depth) for element in value), key=json.dumps))
    if isinstance(value, (tuple, list, deque)):
        return _typed(_name(value), [plain(element, depth) for element in value])
    if type(value).__name__ in _TEXTS:
        return _typed(_name(value), value.isoformat() if hasattr(value, "isoformat") else str(value))
    return {"$type": _name(value), "$repr": f"{value!r:.500}"}


def _typed(name: str, value: Any) -> dict[str, Any]:
    return {"$type": name, "$value": value}


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
