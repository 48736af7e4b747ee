"""Rows of random commits are byte for byte what they were: whatever makes encoding cheaper must not change a file.

`golden/rows.json` holds a digest for each program. A change of the format changes it on purpose:
`python -m tests.checkpoint.test_golden_rows` writes it anew.
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
import pathlib
import random
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from checkpoint import deltas, ids
from checkpoint.base import CheckpointError, StepCommit, TaskWrites
from checkpoint.chains import ID, TS
from checkpoint.memory import InMemorySaver
from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.serde.jsonplus import JsonPlusSerializer
from checkpoint.serde.msgpack import Serde
from checkpoint.testing import script
from tests.checkpoint.runs import GONE, ScriptedRun, Store, config

GOLDEN = pathlib.Path(__file__).parent / "golden" / "rows.json"
SEEDS = 8
N_STEPS = 60


class Unknown:
    """Of a class that cannot be stored."""


class Tagged:
    """A serializer of another format, with tags of its own."""

    def dumps_typed(self, value: Any) -> tuple[str, bytes]:
        text = repr(value)
        if "Unknown" in text:
            raise ValueError("it is unknown")
        return "repr", text.encode("utf-8", "surrogatepass")

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return eval(data[1], {"datetime": datetime})


class Overriding(JsonPlusSerializer):
    """A codec of ours of which a program changed a method."""

    def dumps(self, obj: Any) -> bytes:
        return super().dumps(obj)


class Sealing:
    """A cipher that hides nothing, and whose bytes say what they are bound to."""

    def encrypt_bound(self, plaintext: bytes, associated: bytes) -> tuple[str, bytes]:
        return "s", plaintext + hashlib.sha256(associated).digest()[:8]

    def decrypt_bound(self, ciphername: str, ciphertext: bytes, associated: bytes) -> bytes:
        return ciphertext[:-8]

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return self.encrypt_bound(plaintext, b"")

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return ciphertext[:-8]


SERDES: dict[str, Callable[[], Any]] = {
    "own": JsonPlusSerializer,
    "strict": lambda: Serde(strict=True),
    "overridden": Overriding,
    "tagged": Tagged,
    "encrypted": lambda: EncryptedSerializer(Sealing()),
}


class Program:
    """A random run that commits, forks, loads again, asks and is refused. Equal seeds give equal programs."""

    def __init__(self, serde: Any, seed: int) -> None:
        self.chance = random.Random(seed)
        self.saver = InMemorySaver(serde=serde, history_writes="drop" if seed % 4 == 3 else "keep")
        self.store = Store(self.saver, False)
        self.run_id = self.pick(None, "run")
        self.metadata: dict[str, Any] = self.pick({}, {"user": "u\ud800", "n": 1})
        self.bytes = self.pick(0, 200)
        self.run = ScriptedRun(self.store)
        self.steps: list[Any] = []
        self.configs: list[Any] = []
        self.found: list[Any] = []
        """What was made, in order: rows without ids and times, and refusals."""

    def pick(self, *choices: Any) -> Any:
        return self.chance.choice(choices)

    def text(self, n: int | None = None) -> str:
        # Lengths around those that are markers of bytes are met often.
        n = self.pick(0, 5, 31, 40, self.chance.randrange(194, 200), 300, self.bytes) if n is None else n
        return self.pick("x", "ä", "\u0109", "0")[:1] * n

    def atom(self) -> Any:
        return self.pick(None, None, True, 1.5, -1, self.chance.randrange(300), 1 << 40, self.pick(0, 1 << 70))

    def element(self) -> Any:
        return self.pick(
            self.message, self.message, self.message, self.atom, self.text, self.odd, lambda: [self.atom(), []]
        )()

    def message(self) -> dict[str, Any]:
        return {"role": "user", "content": self.text(), "n": self.chance.randrange(1000)}

    def odd(self) -> Any:
        """Something that is no plain msgpack, or looks like something else."""
        return self.pick(
            b"\xc4\x00",
            b"b" * self.chance.randrange(300),
            bytearray(b"\xc5ab"),
            [bytearray(b"b")],
            {"deep": [{"er": bytearray(b"b")}]},
            "half \ud800",
            {1: "a", (2, 3): None},
            (1, (2, "t")),
            {"s": {3, 1, 2}},
            datetime.date(2026, 1, 2),
            [0xC4, 0xC5, 0xC6, 197, -60],
        )

    def value(self) -> Any:
        kind = self.chance.randrange(9)
        if kind < 3:
            return [self.element() for _ in range(self.pick(0, 1, 1, 2, 5, 40))]
        if kind < 5:
            return {f"k{n}": self.element() for n in range(self.pick(0, 1, 3, 30))}
        if kind == 5:
            return self.text(self.pick(None, None, None, 3000, 70_000 if self.chance.random() < 0.1 else 10))
        return self.pick(self.atom, self.odd, self.element)()

    def changed(self, old: Any) -> tuple[Any, list[Any] | None]:
        """What a superstep makes of a value, and what it wrote; None: just the new elements."""
        how = self.chance.random()
        if how < 0.08:
            return GONE, None
        if how < 0.14:
            return copy.deepcopy(old), None
        if type(old) is list and how < 0.9:
            news = [self.element() for _ in range(self.pick(0, 1, 1, 1, 1, 2, 3, 20))]
            if how < 0.6:
                return [*old, *news], self.pick(None, None, news)
            editable = [element for element in old if type(element) is dict and "n" in element]
            if editable and how < 0.7:
                edited = self.pick(*editable)
                edited["n"] = -1
                return [*old, *news], self.pick([*news, edited], news)
            at = self.chance.randrange(len(old) + 1)
            return [*old[:at], *news, *old[at + self.pick(0, 1, 2) :]], None
        if type(old) is dict and how < 0.8:
            new = dict(old)
            for key in self.chance.sample(sorted(map(str, new)), min(len(new), self.pick(0, 1, 2))):
                new.pop(key, None)
            new.update({f"k{self.chance.randrange(50)}": self.element() for _ in range(self.pick(0, 1, 2))})
            return new, None
        if type(old) is str and how < 0.8:
            return old + self.text(), None
        return self.value(), None

    def tasks(self, run: ScriptedRun, changes: dict[str, Any]) -> list[TaskWrites]:
        if run.rev is None:
            return []
        tasks: list[TaskWrites] = []
        for n in range(self.pick(0, 1, 1, 1, 2, 3)):
            task_id = self.pick(f"f4ef0ca2-f4d5-4a13-9a05-{self.chance.randrange(1 << 40):012}", f"task {n}")
            written = [(name, value) for name, value in changes.items() if value is not GONE]
            for name, value in list(written):
                if type(value) is list and type(run.values.get(name)) is list and self.pick(True, True, False):
                    written[written.index((name, value))] = (name, value[len(run.values[name]) :])
            written += [("extra", self.element())] * self.pick(0, 0, 0, 1)
            slot = self.pick(0, 0, 0, 0, 0, -1, -3, -4)
            if slot and not written:
                written = [("__interrupt__", [1])]
            tasks.append(run.task(task_id, written, slot, path=self.pick("~a, b", "", "pfad ä")))
        return tasks

    def more(self, run: ScriptedRun) -> dict[str, Any]:
        """What else a commit says."""
        more: dict[str, Any] = {"run_id": self.run_id, "metadata": self.metadata}
        if self.chance.random() < 0.05:
            self.metadata = {**self.metadata, "n": self.chance.randrange(9), "run_id": self.pick("run", "other")}
        seen = {}
        for node in self.chance.sample("xyz", self.pick(0, 1, 1, 1, 2)):
            known = self.pick(run.seen.get(node, {}), {})
            names = self.chance.sample(sorted(run.versions), min(len(run.versions), self.pick(0, 1, 1, 2)))
            seen[node] = {**known, **{name: run.versions[name] for name in names}}
        more["seen"] = seen
        if self.chance.random() < 0.1:
            more["sub"] = {self.pick("s", "t"): self.chance.randrange(1, 1000)}
        if self.chance.random() < 0.1:
            more["facts"] = {self.pick("f", "g"): self.pick(None, 1, [2])}
        if self.chance.random() < 0.1:
            more["parents"] = {"": "the root"}
        return more

    def prepared(self, run: ScriptedRun) -> StepCommit:
        changes: dict[str, Any] = {}
        written: dict[str, Any] = {}
        for name in self.chance.sample("abcdef", self.pick(0, 1, 1, 2, 3)):
            changes[name], own = self.changed(run.values[name]) if name in run.values else (self.value(), None)
            if own is not None:
                written[name] = own
            if changes[name] is GONE and name not in run.versions:
                del changes[name]
        for name in self.chance.sample(["go", "branch:to:a", "branch:to:b"], self.pick(0, 1, 1, 2)):
            changes[name] = self.pick(None, None, None, GONE if name in run.versions else 1, True)
        if self.chance.random() < 0.01:
            changes["bad"] = self.pick([Unknown()], Unknown())
        tasks = self.tasks(run, changes)
        commit = run.prepare(changes, written=written, writes=tasks, **self.more(run))
        usual = commit.updated_channels
        assert usual is not None
        commit.updated_channels = self.pick(usual, usual, usual, usual, None, [], [*usual[1:]], sorted({*usual, "b"}))
        if self.chance.random() < 0.1 and changes:
            commit.versions = {self.pick(*changes): self.pick(commit.version, 1)}
        if commit.updated_channels and not run.versions.keys() >= set(commit.updated_channels):
            commit.updated_channels = usual
        return commit

    def encode(self, *commits: StepCommit) -> None:
        try:
            encoded = [self.saver.encode(commit) for commit in commits]
        except (CheckpointError, ValueError) as error:
            place = [getattr(error, name, None) for name in ("path", "channel", "task_id", "__notes__")]
            self.found.append((type(error).__name__, place))
            self.run = ScriptedRun(self.store)
            return
        self.steps += encoded
        if len(encoded) == 1 and self.pick(True, False):
            self.saver.submit(encoded[0])
        else:
            self.saver.write(encoded)
        self.configs.append(config("t", commits[-1].checkpoint_ns, commits[-1].checkpoint_id))

    def step(self) -> None:
        run, how = self.run, self.chance.random()
        if how < 0.04:
            self.run = ScriptedRun(self.store)
        elif how < 0.07 and self.configs:
            self.run = ScriptedRun(self.store, self.pick(*self.configs))
        elif how < 0.12 and run.rev is not None:
            self.encode(StepCommit(run.claim, "", "tasks", writes=self.tasks(run, {"a": self.value(), "go": None})))
        elif how < 0.16:
            self.encode(*(self.prepared(run) for _ in range(3)))
        elif how < 0.2 and run.rev is not None:
            nested = ScriptedRun(self.store, config("t", "n"), claim=run.claim, up_rev=run.rev)
            others = [self.prepared(nested) for _ in range(1)]
            commit = self.prepared(run)
            commit.others = others
            self.encode(commit)
        else:
            self.encode(self.prepared(run))

    def digest(self) -> str:
        self.saver.load(config())  # now all are rows
        for step in self.steps:
            self.note(step)
        return hashlib.sha256(repr(self.found).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def note(self, step: Any) -> None:
        for other in step.others:
            self.note(other)
        row = step.row
        if row is not None:
            assert (row[ID], row[TS]) == (step.commit.checkpoint_id, step.commit.ts)
            row = (*row[:ID], *row[ID + 2 : TS], *row[TS + 1 :])
        known = step.expected, step.must_exist, step.settled, step.size, list(step.edited)
        self.found.append((step.rev, row, list(step.payloads), list(step.writes), *known))


class NotStored:
    """In place of the copies that a `ScriptedRun` keeps of every state."""

    def __init__(self, run: ScriptedRun, commit: StepCommit) -> None:
        pass


def played(serde: str, seed: int, n_steps: int = N_STEPS) -> Program:
    with (
        mock.patch.object(script, "Stored", NotStored),
        mock.patch.object(ids, "new_salt", return_value=0x123456789ABC),
        mock.patch.object(ids, "checkpoint_id", lambda step, node: f"{step + 1:08x}-0000-6000-8000-{node:012x}"),
        mock.patch.object(deltas, "MAX_CHAIN_ROWS", 10),
        mock.patch.object(deltas, "MIN_DIFF", 100),
        mock.patch.object(deltas, "FIRST_AUDIT", 4),
    ):
        program = Program(SERDES[serde](), seed)
        while len(program.steps) < n_steps:
            program.step()
    return program


def digests() -> dict[str, list[str]]:
    return {serde: [played(serde, seed).digest() for seed in range(SEEDS)] for serde in SERDES}


@pytest.mark.parametrize("serde", SERDES)
def test_rows_of_random_commits_are_what_they_were(serde: str) -> None:
    golden = json.loads(GOLDEN.read_text())[serde]
    assert [played(serde, seed).digest() for seed in range(SEEDS)] == golden


def test_the_programs_come_to_everything_that_a_row_can_say() -> None:
    """What no program does would not be compared."""
    kinds: set[Any] = set()
    for seed in range(SEEDS):
        program = played("own", seed)
        program.digest()
        kinds |= {payload[3] for step in program.steps for payload in step.payloads}
        kinds |= {"edited" for step in program.steps if step.edited}
        kinds |= {"settled" for step in program.steps if step.settled is not None}
        kinds |= {"refused" for found in program.found if type(found[0]) is str}
        kinds |= {"op" for step in program.steps if step.row is not None and step.row[10] != step.rev}
    assert kinds >= {deltas.FULL, deltas.APPEND, deltas.SPLICE, deltas.PATCH, deltas.TEXT}
    assert kinds >= {"edited", "settled", "refused", "op"}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(digests(), indent=1) + "\n")
