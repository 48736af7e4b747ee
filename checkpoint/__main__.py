"""`python -m checkpoint`: the command line; everything it does is in `checkpoint.cli`."""

from __future__ import annotations

from checkpoint.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
