"""The classes of langchain-core that programs keep in their state: known without registration, found without import.

Decides which they are: a closed table, so that a stored name still imports nothing that is not written here. To save,
the library is loaded already. To read, it is imported if it is installed, because a program that only reads (a tool, a
worker that gets the state first) may not have imported it yet.
"""

from __future__ import annotations

import importlib
from typing import Final

from checkpoint import registry

_CLASSES: Final[dict[str, str]] = {
    f"langchain_core.{module}:{name}": f"langchain_core.{module}"
    for module, names in {
        "messages.base": "BaseMessage BaseMessageChunk TextAccessor",
        "messages.human": "HumanMessage HumanMessageChunk",
        "messages.ai": "AIMessage AIMessageChunk",
        "messages.system": "SystemMessage SystemMessageChunk",
        "messages.tool": "ToolMessage ToolMessageChunk",
        "messages.function": "FunctionMessage FunctionMessageChunk",
        "messages.chat": "ChatMessage ChatMessageChunk",
        "messages.modifier": "RemoveMessage",
        "documents.base": "Document Blob",
    }.items()
    for name in names.split()
}


def find(name: str) -> registry.Entry | None:
    """The entry of one of these classes, registered now if it was not; None for other names or without the library."""
    module_name = _CLASSES.get(name)
    if module_name is None:
        return None
    try:
        importlib.import_module(module_name)
    except ImportError:
        return None
    cls = registry.resolve_imported(name)
    if cls is not None:
        registry.register(cls)
    return registry.lookup_name(name)
