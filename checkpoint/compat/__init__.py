"""Bring threads that LangGraph's SQLite saver has stored into a saver of this package. One way.

    source     the tables of such a file                    values     its bytes -> values, by a closed list of types
    names      task ids, namespaces and question ids        importer   a thread as rows, stored as a whole
    xxh3       the hash in LangGraph's task ids

`import_langgraph` is the whole interface; a command line needs nothing else.
"""

from __future__ import annotations

from checkpoint.compat.importer import Imported, IncompleteImportError, aimport_langgraph, import_langgraph
from checkpoint.compat.values import Unread

__all__ = ["Imported", "IncompleteImportError", "Unread", "aimport_langgraph", "import_langgraph"]
