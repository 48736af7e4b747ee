"""Programs that use a store: the same source for pregel and LangGraph, only the import prefix differs.

    python benchmarks/store_workloads.py pregel     # reads requests from standard input, one JSON object per line

Decides what is measured of a store; `store.py` asks and prints. Each workload answers with seconds per unit, the best of
several turns.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

TURNS: Final = 8
N: Final = 100
N_ITEMS: Final = 100_000
VALUE: Final = {"text": "x" * 920, "kind": "note", "weight": 3, "tags": ["a", "b", "c"]}
"""About 1 KB."""
SPACE: Final = ("users", "ada", "notes")
FILTERS: Final[dict[str, dict[str, Any]]] = {
    "equal": {"kind": "k7"},
    "range": {"n": {"$gte": N_ITEMS - 20}},
    "both": {"kind": "k7", "n": {"$lt": 5000}},
    "half": {"n": {"$lt": N_ITEMS // 2}},
}


class Side:
    """The modules of one library, and files that go when the process ends."""

    def __init__(self, prefix: str) -> None:
        self.base = importlib.import_module(f"{prefix}.store.base")
        self.sqlite = importlib.import_module(f"{prefix}.store.sqlite")
        self.aio = importlib.import_module(f"{prefix}.store.sqlite.aio")
        self.open = ExitStack()
        self.directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
        atexit.register(shutil.rmtree, self.directory, ignore_errors=True)
        self.n_files = 0
        self.large: Any = None

    def path(self) -> str:
        """Where nothing is yet."""
        self.n_files += 1
        return str(self.directory / f"{self.n_files}.sqlite")

    def store(self, stack: ExitStack) -> Any:
        """A store in a new file, which the stack closes."""
        store = stack.enter_context(self.sqlite.SqliteStore.from_conn_string(self.path()))
        store.setup()
        return store


Figures = dict[str, float]


def _best(work: Callable[[int], object], units: int, turns: int = TURNS) -> float:
    best = float("inf")
    for turn in range(turns):
        begin = time.perf_counter()
        work(turn)
        best = min(best, (time.perf_counter() - begin) / units)
    return best


def put_get(side: Side) -> Figures:
    """A put and a get of a 1 KB value, by turns, of new keys: per operation."""
    with ExitStack() as stack:
        store = side.store(stack)

        def work(turn: int) -> None:
            for n in range(N):
                store.put(SPACE, f"{turn} {n}", VALUE)
                assert store.get(SPACE, f"{turn} {n}").value == VALUE

        return {"seconds": _best(work, 2 * N)}


def put(side: Side) -> Figures:
    """Puts of new keys."""
    with ExitStack() as stack:
        store = side.store(stack)
        return {"seconds": _best(lambda turn: [store.put(SPACE, f"{turn} {n}", VALUE) for n in range(N)], N)}


def put_again(side: Side) -> Figures:
    """Puts of keys that are there."""
    with ExitStack() as stack:
        store = side.store(stack)
        return {"seconds": _best(lambda turn: [store.put(SPACE, f"{n}", VALUE) for n in range(N)], N)}


def get(side: Side) -> Figures:
    """Gets."""
    with ExitStack() as stack:
        store = side.store(stack)
        for n in range(N):
            store.put(SPACE, f"{n}", VALUE)
        return {"seconds": _best(lambda turn: [store.get(SPACE, f"{n}") for n in range(N)], N)}


def gathered(side: Side) -> Figures:
    """100 puts and then 100 gets at the same time, by the async store: per operation."""

    async def main() -> float:
        best = float("inf")
        async with side.aio.AsyncSqliteStore.from_conn_string(side.path()) as store:
            await store.setup()
            for turn in range(TURNS):
                begin = time.perf_counter()
                await asyncio.gather(*(store.aput(SPACE, f"{turn} {n}", VALUE) for n in range(N)))
                await asyncio.gather(*(store.aget(SPACE, f"{turn} {n}") for n in range(N)))
                best = min(best, (time.perf_counter() - begin) / (2 * N))
        return best

    return {"seconds": asyncio.run(main())}


def batched(side: Side) -> Figures:
    """Batches of 1,000 puts of small values: per item."""
    with ExitStack() as stack:
        store = side.store(stack)
        return {"seconds": _best(lambda turn: _fill(side, store, 5000, lambda n: SPACE, turn * 5000), 5000, 4)}


def search(side: Side) -> Figures:
    """The first ten items that a filter finds among 100,000 in one namespace: mean of four filters, and each."""
    store = _large(side)
    found = {name: _best(partial(_search, store, ("one",), wanted), 1, 5) for name, wanted in FILTERS.items()}
    return {"seconds": sum(found.values()) / len(found), **found}


def search_many(side: Side) -> Figures:
    """The same of 100,000 items in 10,000 namespaces below one."""
    store = _large(side)
    seconds = [_best(partial(_search, store, ("many",), wanted), 1, 5) for wanted in FILTERS.values()]
    return {"seconds": sum(seconds) / len(seconds)}


def _search(store: Any, space: tuple[str, ...], wanted: Any, turn: int) -> None:
    store.search(space, filter=wanted, limit=10)


def newest(side: Side) -> Figures:
    """Ten items of 100,000 in one namespace, without a filter."""
    store = _large(side)
    return {"seconds": _best(lambda turn: store.search(("one",), limit=10), 1, 5)}


def _large(side: Side) -> Any:
    if side.large is None:
        side.large = side.store(side.open)
        _fill(side, side.large, N_ITEMS, lambda n: ("one",))
        _fill(side, side.large, N_ITEMS, lambda n: ("many", f"user {n % 10_000}"))
    return side.large


def _fill(side: Side, store: Any, n_items: int, space: Callable[[int], tuple[str, ...]], first: int = 0) -> None:
    for start in range(first, first + n_items, 1000):
        store.batch(
            [
                side.base.PutOp(space(n), f"k{n}", {"n": n - first, "kind": f"k{n % 1000}", "text": "y" * 100})
                for n in range(start, start + 1000)
            ]
        )


WORKLOADS: dict[str, Callable[[Side], Figures]] = {
    function.__name__: function
    for function in (put_get, put, put_again, get, gathered, batched, search, search_many, newest)
}


def main() -> None:
    """Answer requests until standard input ends."""
    side = Side(sys.argv[1])
    with side.open:
        for line in sys.stdin:
            print(json.dumps(WORKLOADS[json.loads(line)["name"]](side)), flush=True)


if __name__ == "__main__":
    main()
