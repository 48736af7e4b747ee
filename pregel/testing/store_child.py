"""What the kit runs in another process: `python -m pregel.testing.store_child REFERENCE PLACE COLOUR`.

Puts batches until it is killed, and says after each, on a line of its standard output, that it has returned. The other end
is in `store_durable`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Final

from pregel.store.base import PutOp
from pregel.testing.store_subject import Making

_FOREVER: Final = 1_000_000


def main(reference: str, place: str, colour: Any) -> None:
    """Put batches at a place until killed."""
    module, _, name = reference.partition(":")
    found = getattr(importlib.import_module(module), name)
    making = found.making() if hasattr(found, "making") else Making.of(found)
    with making.opened(colour, Path(place), again=True) as s:
        for n in range(_FOREVER):
            s.batch([PutOp(("child", key), f"{key}{n}", {"n": n, "text": "x" * 500}) for key in "ab"])
            sys.stdout.write(f"{n}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
