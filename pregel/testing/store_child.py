"""What the kit runs in another process: `python -m pregel.testing.store_child ROLE REFERENCE PLACE COLOUR`.

As `put`, it puts batches until it is killed, and says after each, on a line of its standard output, that it has returned.
As `count`, it says that it has begun, and counts up an item. The other end is in `store_durable`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Final

from pregel.store.base import PutOp
from pregel.testing.store_durable import count
from pregel.testing.store_subject import Making

_FOREVER: Final = 1_000_000


def main(role: str, reference: str, place: str, colour: Any) -> None:
    """Do what a role is at a place."""
    module, _, name = reference.partition(":")
    found = getattr(importlib.import_module(module), name)
    making = found.making() if hasattr(found, "making") else Making.of(found)
    with making.opened(colour, Path(place), again=True) as s:
        if role == "count":
            say(0)
            count(s)
            return
        for n in range(_FOREVER):
            s.batch([PutOp(("child", key), f"{key}{n}", {"n": n, "text": "x" * 500}) for key in "ab"])
            say(n)


def say(number: int) -> None:
    """A line to the parent, now."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
