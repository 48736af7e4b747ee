"""Measure pregel and LangGraph in one run, interleaved, and write the table into `benchmarks/README.md`.

    python benchmarks/compare.py                    # the peer is taken from this interpreter, if it is installed
    python benchmarks/compare.py --peer PYTHON      # or from another interpreter
    python benchmarks/compare.py --only sqlite      # rows whose name contains a text; the file is not rewritten

Decides rows, floors and how often to repeat; `workloads.py` holds the programs. Each side runs in a process of its own
that answers one request at a time; the requests alternate, so noise of the machine hits both. A figure is the minimum
over the rounds; a ratio is the peer's figure by ours. Exit code 1 when a row misses what it must reach.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        title: what is measured.
        workload: name in `workloads.py`, or "import".
        per: what the figure is divided by.
        floor: least ratio that is accepted; None when `limit` decides.
        aim: ratio we want.
        limit: most seconds that are accepted, instead of or beside a ratio.
        limit_aim: seconds we want.
        fresh: every measurement in a process of its own.
        rounds: measurements per side.
    """

    title: str
    workload: str
    per: str
    floor: float | None = None
    aim: float | None = None
    limit: float | None = None
    limit_aim: float | None = None
    fresh: bool = False
    rounds: int = 5


ROWS = [
    Row("chain of 1,000 nodes, sync", "chain_sync", "superstep", 15, 25),
    Row("two-node loop of 1,000 supersteps, sync", "loop_sync", "superstep", 15, 25),
    Row("chain of 1,000 nodes, async", "chain_async", "superstep", 15, 25),
    Row("two-node loop of 1,000 supersteps, async", "loop_async", "superstep", 15, 25),
    Row("chain, streamed with mode updates", "chain_stream", "superstep", 10, 20),
    Row("loop, streamed with mode updates", "loop_stream", "superstep", 10, 20),
    Row("loop, streamed with mode updates, async", "loop_astream", "superstep", 10, 20),
    Row("fan-out of 100 trivial tasks, sync", "fan_out_sync", "task", 6, 9, rounds=15),
    Row("fan-out of 100 trivial tasks, async", "fan_out_async", "task", 8, 12, rounds=15),
    Row("fan-out of 100 to a two-node subgraph", "fan_out_subgraph", "branch", 10, 25, rounds=10),
    Row("100 parallel calls of a trivial `@task`, sync", "tasks_sync", "call", 8, 10, rounds=15),
    Row("100 parallel calls of a trivial `@task`, async", "tasks_async", "call", 8, 10, rounds=15),
    Row("sync nodes under `ainvoke`", "sync_under_ainvoke", "superstep", 3, 4),
    Row("loop of 200, InMemorySaver", "loop_memory", "superstep", 10, 20),
    Row("loop of 200, SQLite, durability sync (FULL), warmed file", "loop_sqlite_sync", "superstep", 3, 3.8, rounds=8),
    Row("loop of 200, SQLite, durability async, lag 1", "loop_sqlite_lag1", "superstep", 8, 10, rounds=8),
    Row("loop of 200, SQLite, durability async, lag 16", "loop_sqlite_lag16", "superstep", 14, 18, rounds=8),
    Row("the same, lag 1, on a fresh file", "loop_sqlite_fresh", "superstep"),
    Row("one bare SQLite commit at FULL (for orientation, same code on both sides)", "bare_commit", "commit"),
    Row("import of StateGraph, fresh process", "import", "process", 6, limit_aim=0.060, rounds=7),
    Row("compile of a 1,000-node chain", "compile_chain", "graph", 2, limit_aim=0.015, rounds=7),
    Row("50 sync nodes of 50 ms, cold pool, `invoke`", "blocking_invoke", "run", None, None, 0.08, 0.06, True, 8),
    Row("50 sync nodes of 50 ms, cold pool, `ainvoke`", "blocking_ainvoke", "run", None, None, 0.08, 0.06, True, 8),
    Row("loop whose nodes read a list of 1,000 messages", "list_1k", "superstep"),
    Row("loop whose nodes read a list of 10,000 messages", "list_10k", "superstep"),
    Row("`add_messages`: append 1 to 10,000", "append_message", "call", 5, 20),
    Row("loop whose node appends to 10,000 messages, with a router", "append_loop", "superstep", 10, 20),
]
PER_ELEMENT_LIMIT_S = 5e-9
TURN_S = 0.1
"""How long a side measures before it is the other's turn."""


class Worker:
    """A process that runs the programs of a file for one side, on request."""

    def __init__(self, python: str, prefix: str, programs: str = "workloads.py") -> None:
        self.python, self.prefix, self.programs = python, prefix, programs
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def measure(self, workload: str, *, fresh: bool) -> float:
        """Seconds per unit of the best run of a workload in one turn; of its first run if it is to be `fresh`."""
        if workload == "import":
            return float(self._output("-c", _IMPORT.format(root=str(ROOT), prefix=self.prefix)))
        if fresh:
            self.stop()
        answer = self.ask(workload, turn=0.0 if fresh else TURN_S)
        return float(answer["seconds"]) / int(answer["units"])

    def ask(self, workload: str, **more: Any) -> dict[str, Any]:
        """What a workload answers; `more` goes into the request."""
        process = self.process = self.process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"name": workload, **more}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.prefix}: workload {workload!r} failed, see the traceback above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def version(self) -> str:
        """Version of the installed distribution, or what the project file says."""
        code = f"import importlib.metadata as m; print(m.version({self.prefix!r}))"
        return self._output("-c", code).strip()

    def stop(self) -> None:
        """End the process, if one runs."""
        if self.process is not None:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def _start(self) -> subprocess.Popen[str]:
        environment = dict(os.environ, PYTHONHASHSEED="0")
        if self.prefix == "pregel":
            environment["PYTHONPATH"] = str(ROOT)
        command = [self.python, str(HERE / self.programs), self.prefix]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=HERE
        )

    def _output(self, *arguments: str) -> str:
        result = subprocess.run(
            [self.python, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=dict(os.environ, PYTHONHASHSEED="0"),
        )
        return result.stdout


_IMPORT = (
    "import sys, time; sys.path.insert(0, {root!r}) if {prefix!r} == 'pregel' else None; t = time.perf_counter(); "
    "from {prefix}.graph import StateGraph; print(time.perf_counter() - t)"
)


def main() -> int:
    """Measure, print, write; the exit code says whether every row reached its floor."""
    arguments = _arguments()
    rows = [row for row in ROWS if arguments.only in row.workload or arguments.only in row.title]
    peer_python = arguments.peer or (sys.executable if importlib.util.find_spec("langgraph") else None)
    with Worker(sys.executable, "pregel") as ours:
        peer = Worker(peer_python, "langgraph") if peer_python else None
        try:
            figures = {row.workload: _measure(row, ours, peer, arguments.rounds) for row in rows}
            peer_name = f"langgraph {peer.version()}" if peer else "no peer"
        finally:
            if peer:
                peer.stop()
    lines, failed = _table(rows, figures)
    text = "\n".join([f"{machine()}; peer: {peer_name}.", "", *lines])
    print(text)
    if not arguments.only and not arguments.no_write:
        write_section("compare", text)
    if failed:
        print("\nmissed: " + ", ".join(failed))
    return 1 if failed else 0


def machine() -> str:
    """Where the figures come from, for a table's first line."""
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def write_section(name: str, text: str) -> None:
    """Put a table in the place of the one before, between its two marks in the README; the rest stays as it is."""
    page = HERE / "README.md"
    head, begin, rest = page.read_text().partition(f"<!-- {name}: begin -->")
    _, end, tail = rest.partition(f"<!-- {name}: end -->")
    if not end:
        raise SystemExit(f"{page}: the marks <!-- {name}: begin --> and <!-- {name}: end --> are gone; put them back")
    page.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure pregel and LangGraph in one run.")
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter that has langgraph; default: this one, if it has")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains TEXT; writes nothing")
    parser.add_argument("--rounds", type=int, default=0, help="measurements per side and row; default: set by the row")
    parser.add_argument("--no-write", action="store_true", help="print only")
    return parser.parse_args()


Figures = tuple[float, float | None]


def _measure(row: Row, ours: Worker, peer: Worker | None, rounds: int) -> Figures:
    mine: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds or row.rounds):
        mine.append(ours.measure(row.workload, fresh=row.fresh))
        if peer:
            theirs.append(peer.measure(row.workload, fresh=row.fresh))
    return min(mine), min(theirs, default=None)


def _table(rows: list[Row], figures: dict[str, Figures]) -> tuple[list[str], list[str]]:
    lines = ["| workload | per | ours | peer | ratio | at least | aim | |", "|---|---|---|---|---|---|---|---|"]
    failed: list[str] = []
    for row in rows:
        mine, theirs = figures[row.workload]
        ratio = theirs / mine if theirs is not None else None
        reached = (row.limit is None or mine <= row.limit) and (
            row.floor is None or ratio is None or ratio >= row.floor
        )
        aimed = (row.limit_aim is None or mine <= row.limit_aim) and (
            row.aim is None or ratio is None or ratio >= row.aim
        )
        if not reached:
            failed.append(row.title)
        lines.append(
            f"| {row.title} | {row.per} | {_time(mine)} | {_time(theirs)} | {f'{ratio:.1f}x' if ratio else '-'} | "
            f"{_bound(row.floor, row.limit)} | {_bound(row.aim, row.limit_aim)} | {_verdict(row, reached, aimed)} |"
        )
    if "list_1k" in figures and "list_10k" in figures:
        each, their_each = (_per_element(figures, side) for side in (0, 1))
        assert each is not None
        reached = each <= PER_ELEMENT_LIMIT_S
        if not reached:
            failed.append("cost per element of a list")
        lines.append(
            f"| the same, per element of the list | element | {_time(each)} | {_time(their_each)} | - | 5 ns | 5 ns | "
            f"{'reached' if reached else 'MISSED'} |"
        )
    return lines, failed


def _per_element(figures: dict[str, Figures], side: int) -> float | None:
    small, large = figures["list_1k"][side], figures["list_10k"][side]
    return None if small is None or large is None else max(large - small, 0.0) / 9_000


def _verdict(row: Row, reached: bool, aimed: bool) -> str:
    if row.floor is None and row.limit is None:
        return ""
    return "aim" if reached and aimed else "reached" if reached else "MISSED"


def _bound(ratio: float | None, limit: float | None) -> str:
    bounds = [f"{ratio:g}x"] if ratio is not None else []
    bounds += [_time(limit)] if limit is not None else []
    return ", ".join(bounds) or "-"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 1e-6:
        return f"{seconds * 1e9:.1f} ns"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} us"
    return f"{seconds * 1e3:.1f} ms"


if __name__ == "__main__":
    raise SystemExit(main())
