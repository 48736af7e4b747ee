"""Measure what pregel and LangGraph store, and what it costs, and write the table into `benchmarks/README.md`.

    python benchmarks/storage.py                    # the peer is taken from this interpreter, if it is installed
    python benchmarks/storage.py --peer PYTHON      # or from another interpreter
    python benchmarks/storage.py --only stall       # rows whose name contains a text; the file is not rewritten

Decides rows, limits and how often to repeat; `storage_workloads.py` holds the programs. Each side runs in a process of
its own that answers one request at a time; the requests alternate, so noise of the machine hits both. A figure is the
best of the rounds. Exit code 1 when a row misses what it must reach.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass

from compare import Worker, machine, write_section


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        title: what is measured.
        workload: name in `storage_workloads.py`.
        figure: which of its figures.
        show: the figure as text.
        limit: most that is accepted; least, if `better` is `max`.
        times: how many times better than the peer it must be.
        peer: what stands for the peer if it does not run this.
        rounds: measurements per side.
        better: `min` or `max`.
    """

    title: str
    workload: str
    figure: str
    show: Callable[[float], str]
    limit: float | None = None
    times: float | None = None
    peer: str | None = None
    rounds: int = 1
    better: Callable[[list[float]], float] = min


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.2f} MB"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f} /s"


def _number(figure: float) -> str:
    return f"{figure:.3g}"


_NOT_RUN = "-"

ROWS = [
    Row("200 turns of 2 KB, one run and one reload per turn: file", "turns", "bytes", _size, 1.5e6),
    Row("file after 400 turns, by that after 200", "turns_growth", "ratio", _number, 2.1, peer=_NOT_RUN),
    Row("10 MB that nobody writes, over 100 supersteps: file", "document", "bytes", _size, 31e6),
    Row("the same, after the first superstep", "document", "growth", _size, 0.1e6),
    Row("superstep of one task: commits", "superstep", "commits", _number, 1),
    Row("superstep of one task: statements, BEGIN and COMMIT included", "superstep", "statements", _number, 7),
    Row("superstep of one task: tables", "superstep", "tables", _number, 4),
    Row("200 supersteps that append 225 B: file", "appended_200", "bytes", _size, 0.2e6),
    Row("2,000 supersteps that append 225 B: file", "appended_2000", "bytes", _size, 1.8e6),
    Row("commit with encode, FULL, warm file (peer: superstep)", "commit_full", "seconds", _us, 145e-6, rounds=5),
    Row("commit with encode, NORMAL, warm file (peer: superstep)", "commit_normal", "seconds", _us, 50e-6, rounds=5),
    Row("one bare SQLite transaction, FULL (for orientation)", "bare_full", "seconds", _us, rounds=5),
    Row("five pages written and synced, by system calls alone", "bare_pages", "seconds", _us, peer=_NOT_RUN, rounds=5),
    Row("one bare SQLite transaction, NORMAL (for orientation)", "bare_normal", "seconds", _us, rounds=5),
    Row("history, 10 of 5,000 supersteps: statements", "history", "statements", _number, 4, peer=_NOT_RUN),
    Row("history, 10 of 5,000: bytes read, by those of one load", "history", "bytes", _number, 1.2, peer=_NOT_RUN),
    Row("history, 10 of 5,000 supersteps: time", "history", "seconds", _ms, peer=_NOT_RUN),
    Row("load of 2,000 supersteps: statements", "load", "statements", _number, 4),
    Row("load of 2,000 supersteps: time", "load", "seconds", _ms, 3e-3, rounds=3),
    Row("load, less 3x the decoding of its value alone", "load", "slack", _ms, 2e-3, peer=_NOT_RUN, rounds=3),
    Row("50 threads at a time, one file: supersteps", "parallel", "rate", _rate, times=5, rounds=5, better=max),
    Row("50 threads at a time, one file, async", "aparallel", "rate", _rate, times=5, rounds=5, better=max),
    Row("20 MB state, async, InMemorySaver: longest stall", "stall_memory", "seconds", _ms, 5e-3, rounds=3),
    Row("20 MB state, async, SQLite: longest stall", "stall_sqlite", "seconds", _ms, 5e-3, rounds=3),
]

Best = dict[tuple[str, str], float]


def main() -> int:
    """Measure, print, write; the exit code says whether every row reached its limit."""
    arguments = _arguments()
    rows = [row for row in ROWS if arguments.only in row.workload or arguments.only in row.title]
    peer_python = arguments.peer or (sys.executable if importlib.util.find_spec("langgraph") else None)
    with Worker(sys.executable, "pregel", "storage_workloads.py") as ours:
        peer = Worker(peer_python, "langgraph", "storage_workloads.py") if peer_python else None
        try:
            mine, theirs = _measure(rows, ours, peer, arguments.rounds)
            peer_name = f"langgraph {peer.version()}" if peer else "no peer"
        finally:
            if peer:
                peer.stop()
    lines, failed = _table(rows, mine, theirs)
    text = "\n".join([f"{machine()}; peer: {peer_name}.", "", *lines])
    print(text)
    if not arguments.only and not arguments.no_write:
        write_section("storage", text)
    if failed:
        print("\nmissed: " + "; ".join(failed))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what pregel and LangGraph store, and what it costs.")
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter that has langgraph; default: this one, if it has")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains TEXT; writes nothing")
    parser.add_argument("--rounds", type=int, default=0, help="measurements per side and row; default: set by the row")
    parser.add_argument("--no-write", action="store_true", help="print only")
    return parser.parse_args()


def _measure(rows: list[Row], ours: Worker, peer: Worker | None, rounds: int) -> tuple[Best, Best]:
    """Best figures of both sides, by workload and figure."""
    mine: Best = {}
    theirs: Best = {}
    for workload in dict.fromkeys(row.workload for row in rows):
        own = [row for row in rows if row.workload == workload]
        with_peer = peer is not None and any(row.peer is None for row in own)
        for _ in range(rounds or max(row.rounds for row in own)):
            _keep_best(mine, own, ours.ask(workload))
            if with_peer and peer is not None:
                _keep_best(theirs, own, peer.ask(workload))
    return mine, theirs


def _keep_best(best: Best, rows: list[Row], figures: dict[str, float]) -> None:
    for row in rows:
        if row.figure in figures:
            key, figure = (row.workload, row.figure), figures[row.figure]
            best[key] = row.better([best.get(key, figure), figure])


def _table(rows: list[Row], mine: Best, theirs: Best) -> tuple[list[str], list[str]]:
    lines = ["| what | ours | peer | must reach | |", "|---|---|---|---|---|"]
    failed: list[str] = []
    for row in rows:
        key = row.workload, row.figure
        own, other = mine[key], theirs.get(key) if row.peer is None else None
        reached = (row.limit is None or own <= row.limit) and (
            row.times is None or other is None or own >= row.times * other
        )
        if not reached:
            failed.append(row.title)
        bound = f"{row.times:g}x the peer" if row.times else _NOT_RUN if row.limit is None else row.show(row.limit)
        verdict = "" if bound == _NOT_RUN else "reached" if reached else "MISSED"
        shown = row.peer or _NOT_RUN if other is None else row.show(other)
        lines.append(f"| {row.title} | {row.show(own)} | {shown} | {bound} | {verdict} |")
    return lines, failed


if __name__ == "__main__":
    raise SystemExit(main())
