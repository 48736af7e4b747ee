"""`python -m pregel`: the command line. One command, `demo`; everything it does is in `pregel.demo`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pregel import demo

ANSWERS = ("yes", "no")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pregel", description="pregel, a graph runtime")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser(
        "demo",
        help="run a graph with a fan-out, a loop and a human approval on a SQLite file",
        description="Run the demo graph. Kill it whenever you like and start it again: it goes on where it was.",
    )
    show.add_argument("--file", type=Path, default=Path("pregel-demo.sqlite"), help="where runs are stored")
    show.add_argument("--answer", choices=ANSWERS, help="the approval; without it the terminal is asked")
    show.add_argument("--fresh", action="store_true", help="forget all runs in the file first")
    show.add_argument("--resume", choices=ANSWERS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.resume:
        return demo.resume(options.file, options.resume)
    if options.fresh:
        for suffix in ("", "-wal", "-shm"):
            options.file.with_name(options.file.name + suffix).unlink(missing_ok=True)
    return demo.run(options.file, lambda question: options.answer or _ask(question))


def _ask(question: str) -> str | None:
    """Ask until the answer is one of `ANSWERS`; None when there is nobody to ask."""
    while True:
        print(question, end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            print()
            return None
        if line.strip().lower() in ANSWERS:
            return line.strip().lower()


if __name__ == "__main__":
    raise SystemExit(main())
