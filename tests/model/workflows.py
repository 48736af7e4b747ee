"""Random programs of tasks that call tasks, and what must hold of them whatever happens on the way.

A program is a tree of jobs. A body calls the tasks of its job's groups (one after the other, or all at once, in another
order whenever it runs), asks, fails a few times, or runs an entrypoint. A task's argument is its job, so equal calls are
the same work, as they are in a user's program; jobs with equal names do different work. The program is paused, answered
in parts and in any order, fails with and without a policy that tries again, its process dies; then it is taken up again.

1. It comes to the result of the undisturbed run.
2. A task whose result is stored, or was given to its caller in a process that lives on, does not run again.
3. An idempotency key is one job's: no call gets another one's key, and so no other one's result.
4. However few bodies may run at once, it comes to an end.

Long runs: `python -m tests.model.workflows --seeds 1000 [--first 5000]`.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from pregel.errors import EmptyInputError
from pregel.func import entrypoint, task
from pregel.graph import START, StateGraph
from pregel.runtime import get_runtime
from pregel.types import Command, RetryPolicy, interrupt
from pregel.warnings import PregelWarning
from tests.model.properties import say, way_of
from tests.support.journey import Shelf, Way, shelf
from tests.support.savers import Died
from tests.support.scenarios import Colour, Log

NAMES = ("a", "b")
CALLS = 200
"""A program that needs more calls does not come to an end."""


class Flaky(Exception):
    """A body fails, and will not the next time."""


@dataclass(frozen=True)
class Job:
    """The work of one task, or of the program itself."""

    name: str
    label: int
    groups: tuple[tuple[str, tuple[Job, ...]], ...] = ()
    """How ("serial", "parallel", "inner"), and whom."""
    asks: int = 0
    fails: int = 0
    attempts: int = 1


def job_of(chance: random.Random, depth: int = 0) -> Job:
    """A random program; few labels, so that equal calls are made."""
    groups = []
    for _ in range(chance.choice([0, 1, 1, 2]) if depth else 2):
        if depth < 3:
            how = chance.choice(["serial", "parallel", "parallel", "inner"])
            jobs = [job_of(chance, depth + 1) for _ in range(chance.randint(1, 3))]
            if chance.random() < 0.3:
                jobs.append(jobs[0])
            groups.append((how, tuple(jobs)))
    return Job(
        chance.choice(NAMES),
        chance.randrange(4),
        tuple(groups),
        asks=chance.choice([0, 0, 1, 2]) if depth else 0,
        fails=chance.choice([0, 0, 0, 1, 2]),
        attempts=chance.choice([1, 2, 3]) if depth else 1,
    )


class World:
    """What is the same for all processes: what was done, and what is known to be stored."""

    def __init__(self, *, disturbs: bool, seed: int = 0) -> None:
        self.disturbs = disturbs
        self.chance = random.Random(seed)
        self.failures: Counter[str] = Counter()
        """By the key of the logical task."""
        self.jobs: dict[str, Job] = {}
        self.kept: set[str] = set()
        """Ids of tasks whose result is kept."""
        self.breaches: list[Any] = []
        self._lock = Lock()

    def begins(self, job: Job) -> None:
        """A body begins."""
        info = get_runtime().execution_info
        key = get_runtime().idempotency_key
        with self._lock:
            if info.task_id in self.kept:
                self.breaches.append(("ran again", job))
            if self.jobs.setdefault(key, job) != job:
                self.breaches.append(("one key", self.jobs[key], job))

    def fails(self, job: Job) -> bool:
        """Is a body to fail now?"""
        with self._lock:
            key = get_runtime().idempotency_key
            self.failures[key] += 1
            return self.disturbs and self.failures[key] <= job.fails

    def order(self, jobs: tuple[Job, ...]) -> list[int]:
        """In which order tasks are called this time."""
        with self._lock:
            return self.chance.sample(range(len(jobs)), len(jobs)) if self.disturbs else list(range(len(jobs)))

    def gives(self, results: list[Any]) -> list[Any]:
        """A caller has the results of its tasks: they are kept."""
        with self._lock:
            self.kept.update(task_id for task_id, _ in results)
        return [value for _, value in results]


class Flow:
    """A program, for one process."""

    def __init__(self, jobs: list[Job], world: World, colour: Colour, saver: Any, *, as_nodes: bool) -> None:
        """The jobs are nodes of one step; one alone may be an entrypoint."""
        self.world = world
        self.tasks: dict[tuple[str, int], Any] = {}
        for name in NAMES:
            for attempts in (1, 2, 3):
                self.tasks[name, attempts] = task(
                    colour.script(self._work),
                    name=f"{name}{attempts}",
                    retry_policy=_again(attempts),
                )

        def inner(job: Job) -> Any:
            result = yield from self._body(job)
            return result

        self.inner = entrypoint()(colour.script(inner))

        def program_of(job: Job) -> Any:
            def program(_: Any) -> Any:
                result = yield from self._body(job)
                return {"l": [result]} if as_nodes else result

            return colour.script(program)

        if as_nodes:
            builder = StateGraph(Log)
            for number, job in enumerate(jobs):
                builder.add_node(f"n{number}", program_of(job), retry_policy=_again(job.attempts))
                builder.add_edge(START, f"n{number}")
            self.graph: Any = builder.compile(saver)
        else:
            self.graph = entrypoint(saver, retry_policy=_again(jobs[0].attempts))(program_of(jobs[0]))

    def call(self, job: Job) -> Any:
        return self.tasks[job.name, job.attempts](job)

    def _work(self, job: Job) -> Any:
        self.world.begins(job)
        result = yield from self._body(job)
        return get_runtime().execution_info.task_id, result

    def _body(self, job: Job) -> Any:
        values: list[Any] = []
        for how, jobs in job.groups:
            order = self.world.order(jobs)
            found: dict[int, Any] = {}
            if how == "inner":
                for number, one in enumerate(jobs):
                    found[number] = yield self.inner, replace(one, asks=0, fails=0)
            elif how == "serial":
                for number in order:
                    (found[number],) = self.world.gives([(yield self.call(jobs[number]))])
            else:
                futures = [self.call(jobs[number]) for number in order]
                results = yield futures
                found = dict(zip(order, self.world.gives(results), strict=True))
            values.append([found[number] for number in range(len(jobs))])
        for number in range(job.asks):
            values.append(interrupt((job.name, job.label, number)) if self.world.disturbs else answer(number))
        if self.world.fails(job):
            raise Flaky(job.name)
        return job.name, job.label, tuple(values)


def _again(attempts: int) -> tuple[RetryPolicy, ...]:
    if attempts == 1:
        return ()
    return (RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=attempts, retry_on=Flaky),)


def answer(number: int) -> str:
    """The answer to a question: equal jobs ask the same."""
    return f"answer {number}"


def undisturbed(job: Job) -> Any:
    """The result of a run in which nothing happens."""
    return Flow([job], World(disturbs=False), Colour("sync"), None, as_nodes=False).graph.invoke(0)


def difference(found: Any, wanted: Any) -> Any:
    """The first place where two results differ."""
    if isinstance(wanted, (list, tuple)) and isinstance(found, (list, tuple)) and len(found) == len(wanted):
        for one, other in zip(found, wanted, strict=True):
            if one != other:
                return difference(one, other)
    return "found", found, "wanted", wanted


def kept(place: Shelf, config: Any) -> set[str]:
    """Ids of the called tasks whose results the saver has."""
    found = set()
    for entry in place.saver.list(config):
        found |= {task_id for task_id, channel, _ in entry.pending_writes or () if channel == "__return__"}
    return found


def check(seed: int, way: Way, place: Shelf) -> bool:
    """Play one program; raises `AssertionError` if something does not hold. False if it asked and failed nothing."""
    chance = random.Random(seed)
    jobs = [job_of(chance) for _ in range(chance.choice([1, 1, 1, 2]))]
    as_nodes = len(jobs) > 1 or chance.random() < 0.3
    wanted = [undisturbed(job) for job in jobs]
    world = World(disturbs=True, seed=seed)
    colour = Colour("async" if way.is_async else "sync")
    bodies = Colour("sync") if chance.random() < 0.3 else colour
    config: dict[str, Any] = {"configurable": {"thread_id": "t"}, "recursion_limit": 5}
    if chance.random() < 0.5:
        config["max_concurrency"] = chance.choice([1, 2, 3])
    given: Any = {"l": []} if as_nodes else 0
    fresh = given
    deaths, happened = chance.choice([0, 0, 2, 4]), False
    for _ in range(CALLS):
        flow = Flow(jobs, world, bodies, place.saver, as_nodes=as_nodes)
        saver: Any = place.saver
        if deaths and hasattr(saver, "strike_at"):
            deaths -= 1
            saver.strike_at, saver.late = saver.calls + chance.randint(1, 12), chance.random() < 0.5
        try:
            result = colour.invoke(flow.graph, given, config, durability=way.durability)
        except Flaky:
            if way.durability == "exit":  # a sibling in a thread was left behind, with what its nested runs had
                world.kept &= kept(place, config)
            given, happened = None, True
            continue
        except EmptyInputError:  # the process died before the input was stored
            given = fresh
            continue
        except Died:
            place.reopen()
            world.kept = kept(place, config)
            given, happened = None, True
            continue
        finally:
            assert world.breaches == [], world.breaches[0]
            if hasattr(saver, "strike_at"):
                saver.strike_at = None
        asked = result.get("__interrupt__") if isinstance(result, dict) else None
        if not asked:
            found = result["l"] if as_nodes else [result]
            assert found == wanted, difference(found, wanted)
            return happened
        happened = True
        assert len({question.id for question in asked}) == len(asked)
        some = chance.sample(asked, chance.randint(1, len(asked)))
        if len(asked) == 1 and chance.random() < 0.5:
            given = Command(resume=answer(asked[0].value[2]))
        elif chance.random() < 0.1:
            given = None
        else:
            given = Command(resume={question.id: answer(question.value[2]) for question in some})
        if chance.random() < 0.3:
            place.reopen()
    raise AssertionError(f"no end after {CALLS} calls")


def play(seed: int) -> bool:
    """One program, one way, one saver; every eighth on a file."""
    way = way_of(seed)
    if seed % 8:
        with shelf(lags=seed % 2 == 0) as place:
            return check(seed, way, place)
    with tempfile.TemporaryDirectory() as folder, shelf(Path(folder) / "t.sqlite") as place:
        return check(seed, way, place)


def main() -> int:
    """Try many seeds; say which fail. 1 if one did."""
    warnings.simplefilter("ignore", PregelWarning)
    parser = argparse.ArgumentParser(description="Random programs of tasks, over many seeds.")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    applied = failed = 0
    for seed in range(asked.first, asked.first + asked.seeds):
        try:
            applied += play(seed)
        except (Exception, Died) as error:  # noqa: BLE001 - the verdict
            failed += 1
            say(f"seed {seed}: {way_of(seed)}", *traceback.format_exception(error)[-3:])
    say(f"{applied} of {asked.seeds} seeds apply, {failed} fail")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
