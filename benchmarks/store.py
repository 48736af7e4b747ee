"""Measure the stores of pregel and LangGraph in SQLite files, and write the table into `benchmarks/README.md`.

    python benchmarks/store.py --peer PYTHON        # PYTHON has langgraph; default: this interpreter, if it has
    python benchmarks/store.py --only search        # rows whose workload contains a text; the file is not rewritten

Decides rows and what they must reach; `store_workloads.py` holds the programs. Each side runs in a process of its own that
answers one request at a time; the requests alternate. A figure is the best of the rounds. Exit code 1 when a row misses
what it must reach.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from typing import NamedTuple

from compare import Worker, machine, write_section

ROUNDS = 3


class Row(NamedTuple):
    """One line of the table. `times`: how many times faster than the peer it must be."""

    title: str
    workload: str
    times: float | None = None
    figure: str = "seconds"


ROWS = [
    Row("put + get of a 1 KB value, per operation", "put_get", 3),
    Row("put of a new key", "put"),
    Row("put of a key that is there", "put_again"),
    Row("get", "get"),
    Row("100 puts, then 100 gets at once, async, per operation", "gathered"),
    Row("batches of 1,000 puts, per item", "batched"),
    Row("filter over 100,000 items in one namespace, mean of four", "search", 5),
    Row("... `{kind: k7}`, which 100 items meet", "search", figure="equal"),
    Row("... `{n: {$gte: 99980}}`, 20 items", "search", figure="range"),
    Row("... `{kind: k7, n: {$lt: 5000}}`, 5 items", "search", figure="both"),
    Row("... `{n: {$lt: 50000}}`, the older half", "search", figure="half"),
    Row("the same four over 10,000 namespaces of 10 items", "search_many"),
    Row("newest ten of 100,000, without a filter", "newest"),
]

Best = dict[tuple[str, str], float]


def main() -> int:
    """Measure, print, write; the exit code says whether every row reached what it must."""
    parser = argparse.ArgumentParser(description="Measure the stores of pregel and LangGraph in SQLite files.")
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter that has langgraph; default: this one, if it has")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose workload has TEXT; writes nothing")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="measurements per side and row")
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    rows = [row for row in ROWS if arguments.only in row.workload]
    peer_python = arguments.peer or (sys.executable if importlib.util.find_spec("langgraph") else None)
    mine: Best = {}
    theirs: Best = {}
    with Worker(sys.executable, "pregel", "store_workloads.py") as ours:
        peer = Worker(peer_python, "langgraph", "store_workloads.py") if peer_python else None
        try:
            for workload in dict.fromkeys(row.workload for row in rows):
                for _ in range(arguments.rounds):
                    for best, worker in ((mine, ours), (theirs, peer)):
                        for figure, seconds in worker.ask(workload).items() if worker else ():
                            key = workload, figure
                            best[key] = min(best.get(key, seconds), seconds)
            name = f"langgraph {peer.version()}" if peer else "no peer"
        finally:
            if peer:
                peer.stop()
    lines, missed = _table(rows, mine, theirs)
    text = "\n".join([f"{machine()}; peer: {name}.", "", *lines])
    print(text)
    if not arguments.only and not arguments.no_write:
        write_section("store", text)
    if missed:
        print("\nmissed: " + "; ".join(missed))
    return 1 if missed else 0


def _table(rows: list[Row], mine: Best, theirs: Best) -> tuple[list[str], list[str]]:
    lines = ["| what | ours | peer | ratio | at least | |", "|---|---|---|---|---|---|"]
    missed: list[str] = []
    for row in rows:
        own, other = mine[row.workload, row.figure], theirs.get((row.workload, row.figure))
        ratio = None if other is None else other / own
        reached = row.times is None or ratio is None or ratio >= row.times
        if not reached:
            missed.append(row.title)
        shown = "-" if ratio is None else f"{ratio:.1f}x"
        bound, verdict = ("-", "") if row.times is None else (f"{row.times:g}x", "reached" if reached else "MISSED")
        peer = "-" if other is None else _time(other)
        lines.append(f"| {row.title} | {_time(own)} | {peer} | {shown} | {bound} | {verdict} |")
    return lines, missed


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


if __name__ == "__main__":
    raise SystemExit(main())
