"""Reserved names: the strings that users, stored checkpoints and task paths agree on (engine.md 2.1).

Decides nothing; it only spells. Names that users see keep LangGraph's literals, because programs compare with them and
stored threads contain them.
"""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["CONF", "CONFIG_KEY_CHECKPOINTER", "END", "START", "TAG_HIDDEN", "TAG_NOSTREAM", "TASKS"]


class _Missing:
    """The absence of a value, distinct from None, which is a legal value everywhere."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()

START: Final = sys.intern("__start__")
"""The virtual first node; also the input channel of a StateGraph."""
END: Final = sys.intern("__end__")
"""The virtual last node; also the output channel of an entrypoint."""
TAG_HIDDEN: Final = "langsmith:hidden"
"""Tag of a node that streams and `"*"` breakpoints pass over."""
TAG_NOSTREAM: Final = "nostream"
"""Tag that keeps a model call out of the messages stream."""

CONF: Final = "configurable"
"""Key of a config under which a user's own values stand."""
CONFIG_KEY_CHECKPOINTER: Final = "__pregel_checkpointer"
"""What LangGraph calls its saver inside of configs; nobody reads it here (D16)."""

ROOT: Final = "__root__"
INPUT: Final = "__input__"
COPY: Final = "__copy__"
INTERRUPT: Final = "__interrupt__"
RESUME: Final = "__resume__"
ERROR: Final = "__error__"
ERROR_SOURCE_NODE: Final = "__error_source_node__"
NO_WRITES: Final = "__no_writes__"
RETURN: Final = "__return__"
PREVIOUS: Final = "__previous__"
METADATA: Final = "__metadata__"
PARENT: Final = "__parent__"
TASKS: Final = sys.intern("__pregel_tasks")
PULL: Final = "__pregel_pull"
PUSH: Final = "__pregel_push"
SCOPE_KEY: Final = "__pregel_scope"
"""The one internal that travels in `config["configurable"]`: an opaque handle to the task's scope (D34)."""
NULL_TASK_ID: Final = "00000000-0000-0000-0000-000000000000"
NS_SEP: Final = "|"
NS_END: Final = ":"

CONTROL_WRITES: Final = frozenset({NO_WRITES, PUSH, RESUME, INTERRUPT, RETURN, ERROR, ERROR_SOURCE_NODE})
"""Write targets that no channel receives: they are facts about the task."""

RESERVED: Final = frozenset(
    {
        TAG_HIDDEN,
        INPUT,
        INTERRUPT,
        RESUME,
        ERROR,
        ERROR_SOURCE_NODE,
        NO_WRITES,
        "checkpoint_map",
        "checkpoint_id",
        "checkpoint_ns",
        SCOPE_KEY,
        PUSH,
        PULL,
        NS_SEP,
        NS_END,
        "configurable",
    }
)
"""Names that no channel, managed value or node may have."""
