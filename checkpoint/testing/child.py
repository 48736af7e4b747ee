"""What the kit runs in another process: `python -m checkpoint.testing.child REFERENCE PLACE COLOUR SCRIPT NAME LEASE_TTL`.

Decides what such a process writes, and says after each write, on a line of its standard output, that it is done. The
other end is in `durable_checks`, which may kill the process at any moment. `LEASE_TTL` is a number, or empty for a saver
that leases nothing. Scripts that are told what to do read it from their standard input, a word per line.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from checkpoint.base import CheckpointConflictError
from checkpoint.testing.script import Line, ScriptedRun, config, id_of
from checkpoint.testing.subject import Opening, Subject

NOT_FOUND: Final = 3
"""Exit code: the reference names nothing that this process can import."""
N_PUTS: Final = 20
N_INCREMENTS: Final = 25
_FOREVER: Final = 100_000


def say(*words: Any) -> None:
    """One line to the parent, now."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def put_forever(s: Subject, name: str) -> None:
    """Put a line of checkpoints with task writes until killed."""
    line = Line(s, name)
    for n in range(_FOREVER):
        where = line.put({"n": n, "l": [*line.values.get("l", ()), n][-50:]})
        say("put", n, id_of(where))
        s.put_writes(where, [("n", n)], "task")
        say("writes", n, id_of(where))


def commit_forever(s: Subject, name: str) -> None:
    """Commit supersteps with durability `"sync"`, each with the writes of its task, until killed."""
    run = ScriptedRun(s, config(name))
    run.step({"n": 0, "l": []})
    for n in range(1, _FOREVER):
        task = run.task(f"task {n}", [("n", n)])
        stored = run.step({"n": n, "l": [*run.values["l"], {"n": n, "x": "y" * 100}]}, writes=[task])
        say("put", n, stored.id)


def put_some(s: Subject, name: str) -> None:
    """Put checkpoints into a thread that others write, too."""
    line = Line(s)
    for n in range(N_PUTS):
        say("put", n, id_of(line.put({name: n}, metadata={"source": "loop", "step": n, "who": name})))


def increment(s: Subject, name: str) -> None:
    """Read, add one, write; again when somebody else was faster."""
    n_conflicts = 0
    for _ in range(N_INCREMENTS):
        while True:
            run = ScriptedRun(s)
            try:
                run.step({"n": run.values.get("n", 0) + 1})
                break
            except CheckpointConflictError:
                n_conflicts += 1
    say("conflicts", n_conflicts, name)


def hold(s: Subject, name: str) -> None:
    """A run that takes the thread and does what it is told: `step`, `release`."""
    run = ScriptedRun(s)
    run.step({"n": 0}, run_id=name)
    say("held", run.id)
    for line in sys.stdin:
        word = line.strip()
        try:
            if word == "step":
                run.step({"n": run.values["n"] + 1}, run_id=name)
            elif word == "release":
                s.release(run.claim)
            say("done", word)
        except CheckpointConflictError as error:
            say("refused", type(error).__name__)


SCRIPTS: Final[dict[str, Callable[[Subject, str], None]]] = {
    "put_forever": put_forever,
    "commit_forever": commit_forever,
    "put_some": put_some,
    "increment": increment,
    "hold": hold,
}


def opener_of(reference: str) -> Callable[..., Any]:
    """What opens a place, from `module:name`: the function or class itself, or the `reopen` of a suite."""
    module, _, name = reference.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    opener: Callable[..., Any] = found.opening().reopen if hasattr(found, "opening") else found
    return opener


def main(reference: str, place: str, colour: Any, script: str, name: str, lease_ttl: str) -> int:
    """Run one script. Returns the exit code."""
    try:
        opener = opener_of(reference)
    except (ImportError, AttributeError) as error:
        sys.stderr.write(f"{reference} cannot be imported: {error}\n")
        return NOT_FOUND
    ttl = float(lease_ttl) if lease_ttl else None
    with Opening(opener, opener).opened(colour, Path(place), again=True, lease_ttl=ttl) as subject:
        SCRIPTS[script](subject, name)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
