"""Facts for instruction tables: programs, requests, claims, loaded checkpoints and runs, made of almost nothing.

Decides the defaults: no saver, nobody listens, shallow copies, time that stands still, ids that count. A test names
only the fields that it is about. Knows no driver: nothing here runs user code, `act` plays the part of the driver with
given writes and errors. Source of the idea: the `.dummy()` constructors of distributed's worker state machine tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from checkpoint.base import Claim, LoadedCheckpoint, StepCommit, TaskWrites
from pregel._call import prepare
from pregel.channels import LastValue, Topic
from pregel.channels.base import BaseChannel
from pregel.constants import NULL_TASK_ID, TASKS
from pregel.engine.core import Run
from pregel.engine.effects import Effect
from pregel.engine.program import PregelNode, Program, Write
from pregel.engine.state import Request
from pregel.engine.task import COPIERS, Task
from pregel.types import Send

THREAD = "thread"


class Chunks(list[tuple[tuple[str, ...], str, Any]]):
    """An outlet that keeps every chunk: (namespace path, mode, payload)."""

    subgraphs = True
    must_wait = False

    def offer(self, chunk: tuple[tuple[str, ...], str, Any], check: Callable[[], None]) -> None:
        """There is always room."""
        self.append(chunk)

    def wait(self) -> None:
        """There is always room."""

    def of(self, mode: str) -> list[Any]:
        """The payloads of one mode, in order."""
        return [payload for _, kind, payload in self if kind == mode]


def nothing(result: Any, scope: Any, writes: list[Write]) -> None:
    """A writer of a node that writes nothing; makes the node one that can run."""


def writer(result: Any, scope: Any, writes: list[Write]) -> None:
    """A writer that takes a dict as the writes."""
    writes.extend((result or {}).items())


def node(
    reads: str | Sequence[str] = "x",
    on: str | Sequence[str] | None = None,
    fn: Callable[..., Any] | None = None,
    **fields: Any,
) -> PregelNode:
    """A node that reads channels, and is woken by them unless `on` names others. Returned dicts are its writes."""
    triggers = reads if on is None else on
    return PregelNode(
        channels=reads,
        triggers=[triggers] if isinstance(triggers, str) else list(triggers),
        bound=None if fn is None else prepare(fn),
        **{"write": writer, **fields},
    )


def dummy_program(
    nodes: Mapping[str, PregelNode] | None = None,
    channels: Mapping[str, BaseChannel[Any, Any, Any]] | None = None,
    *,
    managed: Mapping[str, Any] | None = None,
    input_channels: str | Sequence[str] = "x",
    output_channels: str | Sequence[str] = "y",
    stream_channels: str | Sequence[str] | None = None,
) -> Program:
    """A program with the single-valued channels x, y, z; its nodes are a: x, unless given."""
    made = {name: LastValue(int, name) for name in ("x", "y", "z")} if channels is None else dict(channels)
    for name, channel in made.items():
        channel.key = channel.key or name
    own = [name for name in made if name != TASKS]
    return Program(
        nodes={"a": node()} if nodes is None else nodes,
        channels={**made, TASKS: Topic(Send)},
        managed=managed or {},
        input_channels=input_channels,
        output_channels=output_channels,
        stream_channels=own if stream_channels is None else stream_channels,
    )


def dummy_request(**fields: Any) -> Request:
    """A request for a root run in which nothing is stored and nobody listens."""
    numbers = count()
    request = Request()
    defaults: dict[str, Any] = {
        "checkpoint_id": None,
        "clock": lambda: 1_700_000_000.0,
        "config": {},
        "configurable": {},
        "context": None,
        "control": None,
        "copiers": COPIERS,
        "deferred": False,
        "pace": None,
        "durability": "sync",
        "gate": None,
        "interrupt_after": (),
        "interrupt_before": (),
        "jitter": lambda: 0.0,
        "limit": 25,
        "modes": frozenset(),
        "monotonic": lambda: float(next(numbers)),
        "called": None,
        "new_id": lambda step: f"checkpoint-{step}",
        "ns_": "",
        "call_number": 0,
        "key": None,
        "outlets": (),
        "output_keys": "y",
        "parent": None,
        "parent_run": None,
        "retry_policy": (),
        "run_id": None,
        "runtime": lambda run, scope: ("runtime", scope),
        "saver": None,
        "seeds": {},
        "stable_ns": False,
        "store": None,
        "stored_metadata": {},
        "stores": False,
        "strict": False,
        "thread_id": None,
    }
    if "ns" in fields:
        fields["ns_"] = fields.pop("ns")
    for name, value in {**defaults, **fields}.items():
        setattr(request, name, value)
    return request


def dummy_claim(**fields: Any) -> Claim:
    """The first claim on a thread."""
    return Claim(**{"thread_id": THREAD, "thread_pk": None, "salt": 0, "epoch": 0, "number": 1, **fields})


def dummy_loaded(**fields: Any) -> LoadedCheckpoint:
    """An empty thread; with `values`, a checkpoint of step 0 that has them, each at version 1."""
    made: dict[str, Any] = {"claim": dummy_claim(), "checkpoint_ns": ""}
    if "values" in fields:
        made |= {
            "checkpoint_id": "stored-0",
            "rev": 7,
            "ts": "2026-01-01T00:00:00+00:00",
            "source": "loop",
            "step": 0,
            "metadata": {"source": "loop", "step": 0, "parents": {}},
            "versions": dict.fromkeys(fields["values"], 1),
        }
    return LoadedCheckpoint(**{**made, **fields})


def dummy_run(
    program: Program | None = None, loaded: LoadedCheckpoint | None = None, *, stores: bool | None = None, **fields: Any
) -> Run:
    """A run that has not started. It stores if something was loaded, or if told so; with `modes`, see `chunks_of`."""
    program = program or dummy_program()
    if stores is None:
        stores = loaded is not None
    if stores:
        loaded = loaded or dummy_loaded()
        fields.setdefault("thread_id", THREAD)
    if "modes" in fields:
        fields["modes"] = frozenset(fields["modes"])
        fields.setdefault("outlets", (Chunks(),))
    fields.setdefault("output_keys", program.output_channels)
    return Run(program, dummy_request(stores=stores, **fields), loaded)


def chunks_of(run: Run) -> Chunks:
    """What a run with modes has emitted."""
    outlet: Chunks = run.outlets[0]
    return outlet


def act(run: Run, outcomes: Mapping[str, Sequence[Write] | BaseException]) -> list[Effect]:
    """Settle tasks of the open step, by name: with writes or an error. Returns what the run asks for."""
    effects = []
    for name, outcome in outcomes.items():
        task = next(task for task in run.tasks if task.name == name and not task.settled)
        run.open(task)
        if isinstance(outcome, BaseException):
            effect = run.settle(task, outcome)
            if effect is not None:
                effects.append(effect)
        else:
            run.finish(task, list(outcome))
    return effects


def superstep(run: Run, outcomes: Mapping[str, Sequence[Write] | BaseException]) -> StepCommit | None:
    """Plan, settle as given, commit."""
    planned = run.plan()
    assert planned is not None, run.status
    assert [task.name for task in planned] == list(outcomes)
    act(run, outcomes)
    return run.commit()


def names(tasks: Sequence[Task] | None) -> list[str] | None:
    """Names of planned tasks, in order."""
    return None if tasks is None else [task.name for task in tasks]


def values(run: Run) -> dict[str, Any]:
    """What the state channels hold."""
    return {name: run.channels[name].get() for name in run.program.state_keys if run.channels[name].is_available()}


def stored(task_id: str, writes: Sequence[Write], *, slot: int = 0, path: str = "") -> TaskWrites:
    """A row of task writes, as a saver returns it with checkpoint 7."""
    return TaskWrites(7, "stored-0", task_id, path, slot, list(writes))


def null(writes: Sequence[Write], *, slot: int = 0) -> TaskWrites:
    """A row that belongs to no task."""
    return stored(NULL_TASK_ID, writes, slot=slot)


def id_in(program: Program, loaded: LoadedCheckpoint, name: str) -> str:
    """The id that the pull task of a node has in the step that a loaded checkpoint opens."""
    run = dummy_run(program, loaded)
    return run.id_of(Task(program.nodes[name], None))


def match(actual: Any, **expected: Any) -> None:
    """Assert that an object has these attributes; the others do not matter."""
    assert {name: getattr(actual, name) for name in expected} == expected


def rows_of(commit: StepCommit | None) -> list[tuple[int, list[Write]]]:
    """(slot, writes) of every row of a commit, in order."""
    assert commit is not None
    return [(row.slot, list(row.writes)) for row in commit.writes]
