"""Pieces of a user interface that a node shows while it runs: `push_ui_message`, and the state key that keeps them.

Decides the shape of a piece (a plain dict, for a front end to draw) and how a list of them is merged by id. Knows nothing
of front ends. A piece goes out with stream mode `custom` at once, and into the state when the node has finished.

Source of the behaviour: LangGraph's documentation of generative user interfaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from typing_extensions import TypedDict

from pregel import _scope
from pregel.errors import shown
from pregel.messages import message_id, new_id

__all__ = [
    "AnyUIMessage",
    "RemoveUIMessage",
    "UIMessage",
    "delete_ui_message",
    "push_ui_message",
    "ui_message_reducer",
]


class UIMessage(TypedDict):
    """A piece: which component, with which properties."""

    type: Literal["ui"]
    id: str
    name: str
    props: dict[str, Any]
    metadata: dict[str, Any]


class RemoveUIMessage(TypedDict):
    """Asks to take a piece away."""

    type: Literal["remove-ui"]
    id: str


AnyUIMessage: TypeAlias = UIMessage | RemoveUIMessage


def push_ui_message(
    name: str,
    props: dict[str, Any],
    *,
    id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    message: Any = None,
    state_key: str | None = "ui",
    merge: bool = False,
) -> UIMessage:
    """Show a piece of user interface, and write it to the state.

    Args:
        name: Which component the front end is to draw.
        props: What it is drawn with.
        id: Names the piece, to change or remove it later; random if not given.
        metadata: More of it, besides what the run knows: `run_id`, `tags`, `name`.
        message: The chat message that it belongs to; its id becomes `metadata["message_id"]`.
        state_key: Key with the reducer `ui_message_reducer`, None to show it only.
        merge: Add `props` to those of the piece with that id instead of replacing them.

    Returns:
        The piece.

    Raises:
        RuntimeError: outside of a running node.
    """
    scope = _scope.current("push_ui_message()")
    config = scope.config
    about: dict[str, Any] = {
        "merge": merge,
        "run_id": config["metadata"].get("run_id"),
        "tags": config["tags"] or None,
        "name": config.get("run_name"),
        **(metadata or {}),
    }
    identity = None if message is None else message_id(message)
    if identity is not None:
        about["message_id"] = identity
    piece: UIMessage = {"type": "ui", "id": id or new_id(), "name": name, "props": props, "metadata": about}
    scope.emit(piece)
    if state_key is not None:
        scope.write(state_key, piece)
    return piece


def delete_ui_message(id: str, *, state_key: str | None = "ui") -> RemoveUIMessage:
    """Take a piece of user interface away, on the screen and in the state.

    Args:
        id: Of the piece.
        state_key: As for `push_ui_message`.

    Returns:
        What was shown and written.

    Raises:
        RuntimeError: outside of a running node.
    """
    scope = _scope.current("delete_ui_message()")
    piece: RemoveUIMessage = {"type": "remove-ui", "id": id}
    scope.emit(piece)
    if state_key is not None:
        scope.write(state_key, piece)
    return piece


def ui_message_reducer(left: Any, right: Any) -> list[Any]:
    """Merge two lists of pieces by id, in the order of `right`.

    A known id is replaced in its place, or gets the new properties on top if `metadata["merge"]` says so; a new one is
    appended; `remove-ui` takes it out, unless one with that id follows.

    Args:
        left: The list so far, or one piece.
        right: What to merge in, a list or one piece.

    Returns:
        A new list. Neither argument nor their elements are changed.

    Raises:
        ValueError: `remove-ui` names an id that is not there, or something is no piece.
    """
    merged = list(_pieces(left))
    position = {piece["id"]: at for at, piece in enumerate(merged)}
    removed: set[str] = set()
    for piece in _pieces(right):
        identity = piece["id"]
        at = position.get(identity)
        if piece["type"] == "remove-ui":
            if at is None:
                raise ValueError(
                    f"remove-ui names the id {shown(identity)}, which no piece has; it has {shown(list(position))}: "
                    f"remove only what is shown"
                )
            removed.add(identity)
        elif at is None:
            position[identity] = len(merged)
            merged.append(piece)
        else:
            removed.discard(identity)
            if (piece.get("metadata") or {}).get("merge"):
                piece = {**piece, "props": {**merged[at]["props"], **piece["props"]}}
            merged[at] = piece
    return [piece for piece in merged if piece["id"] not in removed] if removed else merged


def _pieces(side: Any) -> list[Any]:
    pieces: list[Any] = side if isinstance(side, list) else [side]
    for piece in pieces:
        if not isinstance(piece, dict) or "id" not in piece or "type" not in piece:
            raise ValueError(
                f"ui_message_reducer got {shown(piece)} ({type(piece).__name__}), which is no piece of user interface; "
                f"expected what push_ui_message and delete_ui_message return: a dict with 'type' and 'id'"
            )
    return pieces
