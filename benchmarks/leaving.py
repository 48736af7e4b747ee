"""How long it takes to leave a run whose nodes go on for two seconds, and what can be resumed afterwards.

    python benchmarks/leaving.py --peer PYTHON      # PYTHON has langgraph; default: this interpreter, if it has
    python benchmarks/leaving.py --no-write         # print only

Decides the ways of leaving and how they are timed; writes its own table into `benchmarks/README.md`. Each measurement is
a process of its own, in which Ctrl-C is a real SIGINT, sent by another thread once the nodes run. *Returns* is the time
from leaving until the caller goes on, *ends* until the process is gone. A row is resumable if the thread has what was
finished then. Exit code 1 when a way of leaving takes more than `LIMIT_S`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import importlib.util
import json
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

ROOT = Path(__file__).resolve().parent.parent
NODE_S = 2.0
LIMIT_S = 0.1
ROUNDS = 3
CONFIG: Any = {"configurable": {"thread_id": "t"}}

WAYS = {
    "break_sync": "`break` out of `stream`, sync nodes",
    "ctrl_c_invoke": "Ctrl-C in `invoke`, sync nodes side by side",
    "ctrl_c_single": "Ctrl-C in `invoke`, one sync node",
    "ctrl_c_stream": "Ctrl-C in `stream`, sync nodes",
    "aclose": "`aclose` of `astream`, async nodes",
    "cancel": "`ainvoke` cancelled, async nodes",
    "cancel_sync_nodes": "`ainvoke` cancelled, sync nodes",
    "ctrl_c_async": "Ctrl-C in `asyncio.run(ainvoke)`, async nodes",
    "ctrl_c_async_sync_nodes": "Ctrl-C in `asyncio.run(ainvoke)`, sync nodes",
}


class Log(TypedDict):
    """State of the measured graph."""

    log: Annotated[list[str], operator.add]


# ---- in the measured process


class Scene:
    """A node that ends at once beside some that take two seconds."""

    def __init__(self, prefix: str, *, is_async: bool, slow: int) -> None:
        graph = importlib.import_module(f"{prefix}.graph")
        memory = importlib.import_module("checkpoint.memory" if prefix == "pregel" else "langgraph.checkpoint.memory")
        self.started = threading.Semaphore(0)
        self.slow = slow
        builder = graph.StateGraph(Log)
        if slow > 1:
            builder.add_node("quick", self.aquick if is_async else self.quick).add_edge(graph.START, "quick")
        for number in range(slow):
            builder.add_node(f"slow{number}", self.along if is_async else self.long)
            builder.add_edge(graph.START, f"slow{number}")
        self.graph = builder.compile(checkpointer=memory.InMemorySaver())
        self.left_at = 0.0

    def quick(self, state: Log) -> Any:
        """Ends at once."""
        self.started.release()
        return {"log": ["quick"]}

    async def aquick(self, state: Log) -> Any:
        """Async form of `quick`."""
        return self.quick(state)

    def long(self, state: Log) -> Any:
        """Takes its time."""
        self.started.release()
        time.sleep(NODE_S)
        return {"log": ["slow"]}

    async def along(self, state: Log) -> Any:
        """Async form of `long`."""
        self.started.release()
        await asyncio.sleep(NODE_S)
        return {"log": ["slow"]}

    def wait(self) -> None:
        """Return when all nodes run, and those that are quick have ended."""
        for _ in range(self.slow + (self.slow > 1)):
            self.started.acquire()
        time.sleep(0.2)

    def leave_later(self, leave: Callable[[], object]) -> None:
        """Leave, from another thread, when the nodes run."""

        def wait_and_leave() -> None:
            self.wait()
            self.left_at = time.monotonic()
            leave()

        threading.Thread(target=wait_and_leave, daemon=True).start()

    def is_resumable(self) -> bool:
        """Does the thread have what was finished?"""
        log: list[str] = self.graph.get_state(CONFIG).values["log"]
        return list(log)[: 1 + (self.slow > 1)] == ["in", "quick"][: 1 + (self.slow > 1)]


def measure(prefix: str, way: str) -> dict[str, Any]:
    """Leave in one way; when that was, how long it took, and whether the thread can be resumed."""
    sync_nodes = "sync_nodes" in way or not ("async" in way or way in ("aclose", "cancel"))
    scene = Scene(prefix, is_async=not sync_nodes, slow=1 if way == "ctrl_c_single" else 2)
    given = {"log": ["in"]}

    async def cancelled() -> None:
        loop = asyncio.get_running_loop()
        call = asyncio.ensure_future(scene.graph.ainvoke(given, CONFIG))
        scene.leave_later(lambda: loop.call_soon_threadsafe(call.cancel))
        with contextlib.suppress(asyncio.CancelledError):
            await call
        returned.append(time.monotonic())

    async def closed() -> None:
        chunks = scene.graph.astream(given, CONFIG, stream_mode="updates")
        await anext(chunks)
        await asyncio.sleep(0.2)
        scene.left_at = time.monotonic()
        await chunks.aclose()
        returned.append(time.monotonic())

    returned: list[float] = []
    try:
        if way == "break_sync":
            for _ in scene.graph.stream(given, CONFIG, stream_mode="updates"):
                scene.wait()
                scene.left_at = time.monotonic()
                break
        elif way == "aclose":
            asyncio.run(closed())
        elif way.startswith("cancel"):
            asyncio.run(cancelled())
        else:
            scene.leave_later(lambda: os.kill(os.getpid(), signal.SIGINT))
            if "async" in way:
                asyncio.run(scene.graph.ainvoke(given, CONFIG))
            elif way == "ctrl_c_stream":
                list(scene.graph.stream(given, CONFIG, stream_mode="updates"))
            else:
                scene.graph.invoke(given, CONFIG)
    except KeyboardInterrupt:
        pass
    returned.append(time.monotonic())
    return {"left_at": scene.left_at, "returns": returned[0] - scene.left_at, "resumable": scene.is_resumable()}


# ---- in the measuring process


def run(python: str, prefix: str, way: str) -> tuple[float, float, bool]:
    """(seconds until the caller goes on, until the process is gone, can it be resumed), in a process of its own."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT)) if prefix == "pregel" else dict(os.environ)
    command = [python, __file__, "--child", prefix, way]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    ended = time.monotonic()
    answer = json.loads(result.stdout)
    return answer["returns"], ended - answer["left_at"], answer["resumable"]


def main() -> int:
    """Measure, print, write; the exit code says whether every way of leaving is quick enough."""
    parser = argparse.ArgumentParser(description="Measure how long leaving a run takes.")
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter that has langgraph; default: this one, if it has")
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--child", nargs=2, metavar=("PREFIX", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(*arguments.child)))
        return 0
    from compare import Worker, machine, write_section

    peer = arguments.peer or (sys.executable if importlib.util.find_spec("langgraph") else None)
    sides = [(sys.executable, "pregel"), *([(peer, "langgraph")] if peer else [])]
    lines = [
        "| way of leaving | ours returns | ends | resumable | peer returns | ends | resumable | at most | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    failed = []
    for way, title in WAYS.items():
        cells: list[str] = []
        for python, prefix in sides:
            rounds = [run(python, prefix, way) for _ in range(ROUNDS)]
            returns, ends = (min(one[place] for one in rounds) for place in (0, 1))
            resumable = all(one[2] for one in rounds)
            if prefix == "pregel" and (returns > LIMIT_S or not resumable):
                failed.append(title)
            cells += [f"{returns * 1e3:.0f} ms", f"{ends * 1e3:.0f} ms", "yes" if resumable else "no"]
        cells += ["-"] * (6 - len(cells))
        verdict = "MISSED" if title in failed else "reached"
        lines.append(f"| {title} | {' | '.join(cells)} | {LIMIT_S * 1e3:.0f} ms | {verdict} |")
    name = f"langgraph {Worker(peer, 'langgraph').version()}" if peer else "no peer"
    text = "\n".join([f"{machine()}; peer: {name}. Nodes of {NODE_S:.0f} s.", "", *lines])
    print(text)
    if not arguments.no_write:
        write_section("leaving", text)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
