"""`uuid6`: an id of this package as a `uuid.UUID`, for programs that ask for one; the package itself uses the text.

A module of its own because `uuid` loads `platform`, which costs as much as a third of the rest of the package.
"""

from __future__ import annotations

import random
import uuid

from checkpoint import ids


def uuid6(node: int | None = None, clock_seq: int | None = None) -> uuid.UUID:
    """Make a UUID that sorts after every other one made by this process.

    Args:
        node: the low 48 bits; random if None.
        clock_seq: the superstep, of which 14 bits are kept (-1 reads `bfff`, 0 reads `8000`); random if None.
    """
    seq = random.getrandbits(14) if clock_seq is None else clock_seq
    return uuid.UUID(ids.checkpoint_id(seq, node))
