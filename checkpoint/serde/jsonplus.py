"""The codec under the name and with the arguments that LangGraph-style code uses.

Decides only what those arguments mean here (design D58); the format is that of `checkpoint.serde.msgpack`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, Final, Literal

from checkpoint import registry
from checkpoint.serde.msgpack import Serde

AllowedModules = Iterable[type | tuple[str, ...]] | Literal[True] | None


STRICT_VARIABLE: Final = "LANGGRAPH_STRICT_MSGPACK"


class InvalidModuleError(Exception):
    """Never raised here: reading imports no module. Kept for programs that catch it."""


class _Default:
    """Stands for an argument that was not given."""


_DEFAULT: Final = _Default()


class JsonPlusSerializer(Serde):
    """`Serde` with LangGraph's constructor.

    Loading never imports and never unpickles, so most arguments have less to do than they had there.
    """

    def __init__(
        self,
        *,
        pickle_fallback: bool = False,
        allowed_json_modules: Any = None,
        allowed_msgpack_modules: AllowedModules | _Default = _DEFAULT,
        extra: Iterable[type] = (),
        strict: bool = False,
        __unpack_ext_hook__: Any = None,
    ) -> None:
        """
        Args:
            pickle_fallback: must be False.
            allowed_json_modules: ignored; the old JSON form is not read.
            allowed_msgpack_modules: True: registered classes and importable ones that are imported already. Omitted:
                the same, unless the environment variable LANGGRAPH_STRICT_MSGPACK is 1, true or yes. None:
                registered classes only. Classes or `(module, name)` pairs: registered classes only, and these are
                registered, a pair if its module is imported.
            extra: classes to register.
            strict: as `allowed_msgpack_modules=None`.
            __unpack_ext_hook__: ignored.

        Raises:
            ValueError: `pickle_fallback` is set.
        """
        if pickle_fallback:
            raise ValueError(
                "JsonPlusSerializer got pickle_fallback=True, but checkpoints never hold pickles here, because reading "
                "one can run any code; register the classes instead: "
                "checkpoint.registry.register_codec(cls, name, encode, decode)"
            )
        if isinstance(allowed_msgpack_modules, _Default):
            restricted = os.environ.get(STRICT_VARIABLE, "").strip().lower() in ("1", "true", "yes")
        else:
            restricted = allowed_msgpack_modules is not True
        super().__init__(extra=extra, strict=strict or restricted)
        if not isinstance(allowed_msgpack_modules, (_Default, bool)):
            _register_allowed(allowed_msgpack_modules or ())

    def with_msgpack_allowlist(self, extra_allowlist: Iterable[type | tuple[str, ...]]) -> JsonPlusSerializer:
        """A serializer that also takes these classes: itself, since registering a class is for all serializers."""
        _register_allowed(extra_allowlist)
        return self


def _register_allowed(allowed: Iterable[type | tuple[str, ...]]) -> None:
    for item in allowed:
        cls = item if isinstance(item, type) else registry.resolve_imported(f"{item[0]}:{item[-1]}")
        # What the codec knows by itself, and modules that are not there (yet), need no entry.
        if cls is not None and cls.__module__ not in sys.stdlib_module_names and registry.lookup_class(cls) is None:
            registry.register(cls)
