"""Bytes that somebody made to do harm: they import nothing, call nothing, take no time, and are errors."""

import itertools
import os
import pathlib
import re
import sqlite3
import subprocess
import sys
import time as clock
import tracemalloc
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import ormsgpack
import pytest

from checkpoint.base import CheckpointError, CorruptCheckpointError, UnknownTypeError
from checkpoint.serde import extensions as codes
from checkpoint.serde import standard
from checkpoint.serde.jsonplus import JsonPlusSerializer
from checkpoint.serde.msgpack import Serde
from checkpoint.sqlite import SqliteSaver
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.checkpoint.tampering import repair_checksums

SERDE = Serde()


@dataclass
class Plain:
    x: int
    items: list[Any] = field(default_factory=list)


HERE = f"{__name__}:Plain"


def ext(code, body):
    return ormsgpack.packb(ormsgpack.Ext(code, body))


def body_of(code, *parts):
    return ext(code, ormsgpack.packb(list(parts)))


def nested_ext(depth, between=b""):
    body = b"\x01"
    for _ in range(depth):
        body = between + ext(codes.TUPLE, b"\x91" + body)
    return body


def big_int(n_bytes):
    return ormsgpack.Ext(codes.BIG_INT, b"\x01" + os.urandom(n_bytes))


HOSTILE = {
    "deep extensions": nested_ext(10_000),
    "deep extensions and lists": nested_ext(200, b"\x91" * 900),
    "some extensions, deep lists": nested_ext(40, b"\x91" * 1000),
    "deep lists": b"\x91" * 100_000 + b"\x01",
    "deep maps": b"\x81\xa1a" * 100_000 + b"\x01",
    "huge array": b"\xdd\xff\xff\xff\xff\x01",
    "huge arrays": b"\xdd\x00\x7f\xff\xff" * 200 + b"\x01",
    "huge map": b"\xdf\xff\xff\xff\xff\xa1a\x01",
    "huge maps": b"\xdf\x00\x7f\xff\xff\xa1a" * 200 + b"\x01",
    "huge text": b"\xdb\xff\xff\xff\xff",
    "huge bytes": b"\xc6\xff\xff\xff\xff",
    "huge extension": b"\xc9\xff\xff\xff\xff\x01",
    "huge set": ext(codes.SET, b"\xdd\xff\xff\xff\xff\x01"),
    "cut": SERDE.dumps({"a": [1, 2, (3, 4)]})[:-1],
    "nothing": b"",
    "reserved marker": b"\xc1",
    "bad text": b"\xa2\xff\xff",
    "unknown code": body_of(99, 1),
    "negative code": b"\xd4\xff\x01",
    "function as class": body_of(codes.DATACLASS, "os:system", {"command": "true"}),
    "class without kind": body_of(codes.DATACLASS, "subprocess:Popen", {"args": "true"}),
    "codec of nobody": body_of(codes.CODEC, "os:system", "true"),
    "instance of nobody": body_of(codes.INSTANCE, ["subprocess:Popen", 0], {"args": "true"}),
    "module to import": body_of(codes.DATACLASS, "antigravity:Thing", {}),
    "package to import": body_of(codes.MODEL, ["xml.sax.saxutils:XMLGenerator", {}], {}),
    "module as class": body_of(codes.DATACLASS, "os:path", {}),
    "name of a million characters": body_of(codes.DATACLASS, "a" * 1_000_000 + ":B", {}),
    "name of a million parts": body_of(codes.DATACLASS, "os:" + "a." * 500_000, {}),
    "exception class": body_of(codes.DATACLASS, "builtins:ValueError", {}),
    "name that is no text": body_of(codes.DATACLASS, 3, {}),
    "fields that are no dict": body_of(codes.DATACLASS, HERE, 7),
    "zone outside": body_of(codes.ZONEINFO),
    "zone path": ext(codes.ZONEINFO, b"../../etc/passwd"),
    "zone module": ext(codes.ZONEINFO, b"antigravity/x"),
    "zone folder": ext(codes.ZONEINFO, b"America"),
    "zone with NUL": ext(codes.ZONEINFO, b"UTC\0"),
    "path class": body_of(codes.PATH, "system", "x"),
    "address class": body_of(codes.IP, "system", "x"),
    "long address": body_of(codes.IP, "IPv6Network", "1" * 1_000_000),
    "factory": body_of(codes.DEFAULT_DICT, "eval"),
    "unhashable": body_of(codes.SET, [1]),
    "pattern": body_of(codes.PATTERN, "(" * 5000, 0),
    "long pattern": body_of(codes.PATTERN, "a" * 1_000_000, 0),
    "pattern of wide sets": body_of(codes.PATTERN, "[\0-\U0010ffff]" * 2000, 2),
    "pattern of escaped wide sets": body_of(codes.PATTERN, r"[\0-\uffff]" * 800, 0),
    "pattern of sets that ignores case": body_of(codes.PATTERN, "[\0-\xff]" * 2000, 2),
    "pattern of bytes that ignores case": body_of(codes.PATTERN, b"(?i)" + b"[\0-\xff]" * 1500, 0),
    "pattern with odd flags": body_of(codes.PATTERN, "a", "x"),
    "bad date": ext(codes.DATETIME, b"yesterday"),
    "long date": ext(codes.DATETIME, b"2" * 1_000_000),
    "zone that is no zone": ext(codes.DATETIME, b"\xc0" + ormsgpack.packb([["2024-01-01T00:00:00", 0], "x"])),
    "half a pair": body_of(codes.MAP, 1),
    "zero denominator": body_of(codes.FRACTION, 1, 0),
    "big fraction": body_of(codes.FRACTION, big_int(400_000), big_int(400_000)),
    "array of objects": body_of(codes.NDARRAY, "|O", [1], "C", b"x" * 8),
    "enormous array": body_of(codes.NDARRAY, "<f8", [2**60], "C", b""),
    "array of negative length": body_of(codes.NDARRAY, "<f8", [-1], "C", b""),
    "deep dtype": body_of(codes.NDARRAY, [["a", "<f8"]] * 3, [1], "C", b""),
    "timedelta": body_of(codes.TIMEDELTA, 10**12, 0, 0),
    "class of secrets": body_of(codes.SECRET, "Popen", "true"),
}


# What LangGraph's serializer executes: its own codes, each with (module, name, arguments[, method]).
def calls(path: str) -> list[tuple[str, str, Any]]:
    return [
        ("os", "mkdir", [path]),
        ("os", "mkdir", path),
        ("os", "system", [f"touch {path}"]),
        ("os", "system", f"touch {path}"),
        ("subprocess", "Popen", {"args": f"touch {path}", "shell": True}),
        ("builtins", "exec", [f"import os; os.mkdir({path!r})"]),
        ("antigravity", "geohash", [1]),
        ("pathlib", "Path", path),
    ]


def peer_bodies(path):
    bodies = []
    for code in range(8):
        for call in calls(path):
            for more in ([], ["mkdir"], ["fromisoformat"], ["model_validate_json"]):
                one = body_of(code, *call, *more)
                bodies += [one, b"\x92\x01" + one, b"\x81\xa1k" + one, ext(codes.TUPLE, b"\x91" + one), ext(code, one)]
    return bodies


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_errors_at_once(name):
    if "array" in name and "huge" not in name:
        pytest.importorskip("numpy")
    body = HOSTILE[name]

    def refuse():
        with pytest.raises((CorruptCheckpointError, UnknownTypeError)):
            SERDE.loads(body)

    refuse()  # imports what it needs
    spent = []
    for _ in range(3):
        started = clock.process_time()
        refuse()
        spent.append(clock.process_time() - started)
    assert min(spent) < 0.05  # seconds of this process alone: storage.md F27
    tracemalloc.start()
    try:
        refuse()
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises((CorruptCheckpointError, UnknownTypeError)):
        SERDE.loads(b"\x91" + body)
    with pytest.raises((CorruptCheckpointError, UnknownTypeError)):
        JsonPlusSerializer().loads_typed(("m1", body))


@pytest.mark.slow
def test_memory_stays_bounded():
    """Slow: a process of its own, that reads megabytes of hostile bytes."""
    script = f"""
from checkpoint.base import CheckpointError
from checkpoint.serde.msgpack import Serde
import re, resource, zoneinfo, pathlib, ipaddress, fractions, decimal, traceback, pydantic
bodies = {[body for name, body in HOSTILE.items() if "dtype" not in name]!r}
serde = Serde()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for body in bodies:
    try:
        serde.loads(body)
    except CheckpointError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(run(script)) * unit < 64 << 20


BODIES = {
    **{name: body for name, body in HOSTILE.items() if "array" not in name and "dtype" not in name},
    "number": b"\x01",
    "text": b"\xa1a",
    "nil": b"\xc0",
    "list of one": b"\x91\x01",
    "dict": b"\x81\xa1a\x01",
    "delta of a dict": ormsgpack.packb({"s": ["a"], "d": ["b"]}),
    "delta of a list": ormsgpack.packb({"e": [0, -1, 9], "n": [1]}),
    "array that claims much": b"\xdd\xff\xff\xff\xff",
    "header": ormsgpack.packb([["a"], [0], [0, 1], [], [], [], -1]),
    "op": ormsgpack.packb([1, [99], [99], [99], [99, b"x"], [99], [99, [1]], [3], [1], 7, [1]]),
}
PLACES = [
    ("payloads", "data", "seq = 0"),
    ("payloads", "data", "seq = 2"),
    ("checkpoints", "header", "rev = header_root"),
    ("checkpoints", "header", "rev = (SELECT max(rev) FROM checkpoints)"),
    ("task_writes", "data", "slot = 0"),
    ("checkpoints", "task_data", "task_id IS NOT NULL"),
    ("task_writes", "data", "slot = -3"),
]


@pytest.mark.slow
def test_hostile_rows_are_values_or_errors(tmp_path):
    """Slow: each of 60 bodies in each of 7 places of a file."""
    path, edited = tmp_path / "threads.sqlite", tmp_path / "edited.sqlite"
    with SqliteSaver(path) as saver:
        run = ScriptedRun(Store(saver, False))
        items: list[Any] = ["x" * 99]
        run.step({"items": items, "by_key": {str(n): "y" * 9 for n in range(20)}, "a": 1})
        for n in range(4):
            items = [*items, "x" * 99]
            run.step({"items": items, "a": n}, writes=[run.task("ended", [("a", n)])])
        run.tasks(run.task("task", [("a", 1)]), run.task("task", [("__interrupt__", 1)], slot=-3))
    edited.write_bytes(path.read_bytes())
    conn = sqlite3.connect(edited)
    conn.execute("ATTACH ? AS stored", (str(path),))
    n_errors = 0
    with SqliteSaver(edited) as saver:
        for (table, column, which), body in itertools.product(PLACES, BODIES.values()):
            conn.execute(f"DELETE FROM {table}")
            conn.execute(f"INSERT INTO main.{table} SELECT * FROM stored.{table}")
            assert conn.execute(f"UPDATE {table} SET {column} = ? WHERE {which}", (body,)).rowcount
            repair_checksums(conn)
            conn.commit()
            for read in (saver.get_tuple, saver.load, lambda c, saver=saver: list(saver.list(c))):
                try:
                    read(config())
                except CheckpointError:
                    n_errors += 1
    conn.close()
    assert n_errors > len(PLACES) * len(HOSTILE)


@pytest.mark.parametrize("tag", ["pickle", "json", "msgpack", "m1+aes", "m2", "", "os:system"])
def test_tags_of_others_are_refused(tag):
    for body in (b"cos\nsystem\n(S'true'\ntR.", b'{"lc": 2, "type": "constructor", "id": ["os", "system"]}'):
        with pytest.raises(CorruptCheckpointError):
            SERDE.loads_typed((tag, body))


def test_patterns_within_the_limits_are_stored():
    for pattern in (
        re.compile("[\u00a1-\uffff]" * 30),
        re.compile("[a-z]" * 500, re.IGNORECASE),
        re.compile(b"[x]" * 900),
    ):
        assert SERDE.loads(SERDE.dumps(pattern)) == pattern
    for pattern in (re.compile(r"[\u1000]" * 41), re.compile("(?i)" + "[a]" * 801)):
        with pytest.raises(CheckpointError, match="sets"):
            SERDE.dumps([pattern])
    with pytest.raises(CheckpointError, match="fraction"):
        SERDE.dumps(Fraction(1 << 8 * standard.MAX_FRACTION, 3))
    edge = Fraction((1 << 8 * standard.MAX_FRACTION) - 1, 2)
    assert SERDE.loads(SERDE.dumps(edge)) == edge


def test_bodies_have_a_limit(monkeypatch):
    monkeypatch.setattr("checkpoint.serde.msgpack.MAX_BYTES", 100)
    assert SERDE.loads(SERDE.dumps("x" * 90)) == "x" * 90
    for value in ("x" * 100, ["x"] * 60, {1: "x" * 100}, [(b"x" * 100,)]):
        with pytest.raises(CheckpointError, match="limit"):
            SERDE.dumps(value)
    with pytest.raises(CorruptCheckpointError, match="limit"):
        SERDE.loads(ormsgpack.packb("x" * 100))


def run(script):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-"], input=script, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


WATCHED = """
import sys
from checkpoint.base import CheckpointError
from checkpoint.serde.msgpack import Serde
from checkpoint.serde.jsonplus import JsonPlusSerializer
serde = JsonPlusSerializer() if {face!r} == "jsonplus" else Serde()
import re, zoneinfo, pathlib, ipaddress, fractions, decimal, traceback, subprocess  # the fixed handful
from importlib import resources
for key in ("No/Such", "America"):
    try:
        zoneinfo.ZoneInfo(key)
    except (zoneinfo.ZoneInfoNotFoundError, OSError):
        pass
before = set(sys.modules)
seen = []
def hook(event, args):
    if event.split(".")[0] in ("subprocess", "os", "socket", "exec", "pickle", "shutil", "ctypes"):
        if event not in ("os.scandir", "os.listdir"):  # looking for a time zone
            seen.append(event)
    if event == "import" and not args[0].startswith("tzdata"):
        seen.append((event, args[0]))
sys.addaudithook(hook)
for body in {bodies!r}:
    try:
        serde.loads(body)
    except CheckpointError:
        pass
    else:
        assert {harmless!r}, body
    try:
        serde.loads(body, opaque=True)
    except CheckpointError:
        pass
assert not seen, seen
assert set(sys.modules) == before, set(sys.modules) - before
"""


@pytest.mark.slow
@pytest.mark.parametrize("face", ["msgpack", "jsonplus"])
def test_reading_imports_nothing_and_calls_nothing(face):
    """Slow: a process of its own, that reads megabytes of hostile bytes."""
    bodies = [body for name, body in HOSTILE.items() if "array" not in name and "dtype" not in name]
    run(WATCHED.format(bodies=bodies, face=face, harmless=False))


def test_calls_that_the_peer_would_make_are_data_or_errors(tmp_path):
    path = str(tmp_path / "made")
    run(WATCHED.format(bodies=peer_bodies(path), face="jsonplus", harmless=True))
    assert not pathlib.Path(path).exists()


def test_the_watch_notices():
    watched = WATCHED.format(bodies=[], face="msgpack", harmless=True)
    for act in ("import this", "import os; os.system('true')"):
        with pytest.raises(AssertionError, match=r"AssertionError: \["):
            run(watched.replace("assert not seen", f"{act}\nassert not seen"))
