"""Listeners for what a serializer lets through or blocks, for programs that register one.

Decides nothing and is called by nobody here: reading imports nothing, so there is nothing to report. A type that is not
known raises `UnknownTypeError` instead. Source: the documented hooks of LangGraph's checkpoint library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NotRequired, TypedDict


class SerdeEvent(TypedDict):
    """What was met while reading."""

    kind: str
    module: str
    name: str
    method: NotRequired[str]


SerdeEventListener = Callable[[SerdeEvent], None]
_listeners: list[SerdeEventListener] = []


def register_serde_event_listener(listener: SerdeEventListener) -> Callable[[], None]:
    """Add a listener. Returns what removes it again, which may be called more than once."""
    _listeners.append(listener)

    def unregister() -> None:
        if listener in _listeners:
            _listeners.remove(listener)

    return unregister


def emit_serde_event(event: SerdeEvent) -> None:
    """Tell all listeners, in the order of their registration. What one raises comes out."""
    for listener in _listeners.copy():
        listener(event)
