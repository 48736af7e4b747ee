"""`adapt`: any saver as a native one.

Decides which savers are driven natively and which through their four public methods (design.md D38, D46). Light on
purpose: what drives foreign savers (`checkpoint.foreign`) is imported for the first saver that needs it.
"""

from __future__ import annotations

import importlib
from typing import Any, Final
from weakref import WeakValueDictionary

from checkpoint.base import NativeSaver

PUBLIC_METHODS: Final = (
    "get_tuple",
    "list",
    "put",
    "put_writes",
    "aget_tuple",
    "alist",
    "aput",
    "aput_writes",
)

_adapted: WeakValueDictionary[int, Any] = WeakValueDictionary()


def is_native(saver: Any) -> bool:
    """Is everything this saver does reachable through the native interface?

    False for savers without it, and for a subclass or instance of a native saver that has a public method of its own:
    what it does there (counting, failing, encrypting) must happen.
    """
    if not getattr(saver, "native_commit", False):
        return False
    if any(name in PUBLIC_METHODS for name in getattr(saver, "__dict__", ())):
        return False
    for cls in type(saver).__mro__:
        if "write" in vars(cls):
            return True
        if any(name in vars(cls) for name in PUBLIC_METHODS):
            return False
    return False


def adapt(saver: Any) -> NativeSaver:
    """The saver itself if it is native, else a native one that drives it.

    The adapter of a saver object is the same for as long as somebody holds it.
    """
    if is_native(saver):
        native: NativeSaver = saver
        return native
    known = _adapted.get(id(saver))
    if known is None or known.saver is not saver:
        known = importlib.import_module("checkpoint.foreign").AdaptedSaver(saver)
        _adapted[id(saver)] = known
    adapted: NativeSaver = known
    return adapted
