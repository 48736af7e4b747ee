"""Level full: the rules that this package makes single where savers differ (storage.md C3.1), and hostile or big input.

Everything goes through the public interface. What needs the native one is in `native_checks`.
"""

from __future__ import annotations

import enum
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Network, ip_interface
from itertools import islice
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from checkpoint import ids
from checkpoint.adapter import is_native
from checkpoint.base import CheckpointError, CheckpointNotFoundError
from checkpoint.testing.checks import check
from checkpoint.testing.report import Skipped, one_of, present, raises, same, true
from checkpoint.testing.script import GONE, Line, ScriptedRun, checkpoint, config, id_of
from checkpoint.testing.subject import Subject, implements

HOSTILE: Final = (
    "x') OR 1=1 --",
    'x" OR "1"="1',
    "; DROP TABLE checkpoints",
    "%",
    "_",
    "a%b_c",
    "$.a",
    "a.b",
    "a[0]",
    "[]",
    "?",
    ":t",
    "\\",
    "\n\t",
    "nul\x00inside",
    "\u4e2d\u6587 \U0001f600",
    "e\u0301",
    "\u00e9",
    "{}",
    "|",
    "x" * 5000,
)


class Mood(enum.Enum):
    """An enum to store."""

    CALM = "calm"


@dataclass
class Point:
    """A dataclass to store."""

    x: int
    label: str = ""


class Pair(NamedTuple):
    """A named tuple to store."""

    left: Any
    right: Any


TYPES: Final[dict[str, Any]] = {
    "tuple": (1, ("a", ())),
    "list_of_tuples": [(1, 2), [3]],
    "set": {1, "a", frozenset({2})},
    "frozenset": frozenset({"x"}),
    "deque": deque([1, 2], maxlen=5),
    "uuid": UUID(int=5),
    "aware": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "naive": datetime(2026, 1, 2, 3, 4),
    "zoned": datetime(2026, 7, 2, 3, 4, tzinfo=ZoneInfo("UTC")),
    "largest_offset": datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=23, minutes=59))),
    "date": date(2026, 1, 2),
    "time": time(3, 4, 5, 6, tzinfo=UTC),
    "timedelta": timedelta(days=-1, microseconds=1),
    "timezone": timezone(timedelta(hours=-5)),
    "decimal": Decimal("1.10"),
    "fraction": Fraction(1, 3),
    "complex": 1 + 2j,
    "path": PurePosixPath("/a/b"),
    "windows_path": PureWindowsPath("c:/a"),
    "ipv4": IPv4Address("127.0.0.1"),
    "ipv6_network": IPv6Network("::/64"),
    "ip_interface": ip_interface("10.0.0.1/8"),
    "big_int": 2**200,
    "big_negative": -(2**63) - 1,
    "infinity": float("inf"),
    "bytes": b"\x00\xff",
    "bytearray": bytearray(b"\x00\xff"),
    "int_keys": {1: "a", 2: "b"},
    "tuple_keys": {(1, "a"): {None: True}},
    "ordered": OrderedDict([("b", 1), ("a", 2)]),
    "default": defaultdict(list, {"a": [1]}),
    "counter": Counter("abca"),
    "nul": "a\x00b",
    "surrogate": "\ud800",
    "range": range(1, 10, 2),
    "slice": slice(1, None, 2),
    "pattern": re.compile("a+", re.IGNORECASE),
    "enum": Mood.CALM,
    "dataclass": Point(1, "p"),
    "named_tuple": Pair(1, [Point(2)]),
    "bool_in_list": [True, 1, 1.0],
}


def _values(subject: Subject, where: Any) -> Any:
    found = present(subject.get_tuple(where), f"get_tuple({where['configurable']})")
    return found.checkpoint["channel_values"]


def _writes(subject: Subject, where: Any) -> list[Any]:
    return [*(present(subject.get_tuple(where), "get_tuple").pending_writes or ())]


def _listed(subject: Subject, *args: Any, **kwargs: Any) -> list[str]:
    return [entry.checkpoint["id"] for entry in subject.list(*args, **kwargs)]


# ---- task writes


@check("full")
def regular_writes_of_a_task_are_kept_as_first_written(s: Subject) -> None:
    """All regular writes of a task are one record: the first call wins as a whole, whatever a later one brings (C3.1)."""
    where = Line(s).put({"a": 1})
    s.put_writes(where, [("a", 1), ("b", 2)], "task")
    s.put_writes(where, [("a", "late"), ("b", "late"), ("c", "late")], "task")
    same(_writes(s, where), [("task", "a", 1), ("task", "b", 2)], "writes after a second call with others")


@check("full")
def large_attempts_do_not_mix(s: Subject) -> None:
    """The same for bodies of any size, which a saver may keep in parts: one attempt is stored, whole (C3.1)."""
    where = Line(s).put({"a": 1})
    for text in ("a" * 5000, "b" * 9000, "c" * 20, "d" * 100_000):
        s.put_writes(where, [("x", text), ("y", [text])], "task")
        s.put_writes(where, [("__resume__", text)], "task")
    wanted = [("task", "__resume__", "d" * 100_000), ("task", "x", "a" * 5000), ("task", "y", ["a" * 5000])]
    same(_writes(s, where), wanted, "writes")


@check("full")
def special_writes_are_replaced_one_by_one(s: Subject) -> None:
    """Of a special write (`__error__`, `__error_source_node__`, `__interrupt__`, `__resume__`) the last call wins, also in
    a call that has regular writes beside it (C3.1)."""
    where = Line(s).put({"a": 1})
    s.put_writes(where, [("x", 1), ("__error__", "E1"), ("__interrupt__", ["q1"])], "task")
    s.put_writes(where, [("x", 2), ("__error__", "E2")], "task")
    s.put_writes(where, [("__resume__", "r1"), ("__scheduled__", 1), ("__error_source_node__", "n")], "task")
    s.put_writes(where, [("__resume__", "r2"), ("__error_source_node__", "m")], "task")
    found = {channel: value for _, channel, value in _writes(s, where)}
    wanted = {"x": 1, "__error__": "E2", "__interrupt__": ["q1"], "__resume__": "r2", "__scheduled__": 1}
    wanted["__error_source_node__"] = "m"
    same(found, wanted, "writes by channel")
    same(len(_writes(s, where)), 6, "number of writes")


@check("full", "replace")
def replace_overrides_regular_writes(s: Subject) -> None:
    """`put_writes(..., replace=True)` replaces the regular writes of a task as a whole (C3.1)."""
    where = Line(s).put({"a": 1})
    s.put_writes(where, [("a", 1), ("b", "x" * 5000)], "task")
    s.put_writes(where, [("a", 3)], "other")
    s.put_writes(where, [("a", "new")], "task", replace=True)
    same(_writes(s, where), [("other", "a", 3), ("task", "a", "new")], "writes")


@check("full")
def writes_are_ordered_by_path(s: Subject) -> None:
    """Pending writes come ordered by task path, then task id, then position, whatever order they were stored in; also
    in a listing (C3.1)."""
    where = Line(s).put({"a": 1})
    for task, path in (("9", "b"), ("1", "c"), ("5", "a"), ("2", "a"), ("0", "")):
        s.put_writes(where, [("x", task), ("a", path)], task, path)
    sorted_by_path = (("0", ""), ("2", "a"), ("5", "a"), ("9", "b"), ("1", "c"))
    wanted = [(task, *write) for task, path in sorted_by_path for write in (("x", task), ("a", path))]
    same(_writes(s, where), wanted, "writes of get_tuple")
    same([*s.list(config("t"))[0].pending_writes], wanted, "writes in a listing")


@check("full")
def writes_need_their_checkpoint(s: Subject) -> None:
    """`put_writes` for a checkpoint that is not stored raises `CheckpointNotFoundError` and stores nothing (C3.1)."""
    where = Line(s).put({"a": 1})
    unknown = ids.checkpoint_id(1)
    for orphan in (config("t", "", unknown), config("t", "child", id_of(where)), config("nobody", "", id_of(where))):
        with raises(CheckpointNotFoundError, f"put_writes to {orphan['configurable']}"):
            s.put_writes(orphan, [("a", 1)], "task")
    later = Line(s)
    at_later = later.put({"a": 1}, id=unknown)
    same(_writes(s, at_later), [], "writes of a checkpoint put after the refused writes")
    true(s.get_tuple(config("nobody")) is None, "a refused write made a thread")


@check("full")
def writes_after_the_next_checkpoint_stay_with_theirs(s: Subject) -> None:
    """Writes given late are stored under the checkpoint they name, not under the newest (C3.1)."""
    line = Line(s)
    first, second = line.put({"a": 1}), line.put({"a": 2})
    s.put_writes(first, [("a", "late")], "task")
    same(_writes(s, first), [("task", "a", "late")], "writes of the first")
    same(_writes(s, second), [], "writes of the second")


@check("full")
def errors_read_back_as_text(s: Subject) -> None:
    """A stored exception is read back as a `str` equal to its repr (D51)."""
    where = Line(s).put({"a": 1})
    s.put_writes(where, [("__error__", ValueError("boom"))], "task")
    ((_, _, found),) = _writes(s, where)
    true(isinstance(found, str), f"the error came back as a {type(found).__name__}")
    same(found, "ValueError('boom')", "the error")


# ---- put


@check("full")
def an_id_that_is_put_again_is_replaced(s: Subject) -> None:
    """Putting an id again replaces values and metadata in place: its first parent, its writes, its place in the order
    and its children stay (C3.1)."""
    line = Line(s)
    first, second = line.put({"a": "x" * 100}), line.put({"a": "y" * 100, "b": 1})
    s.put_writes(second, [("a", 1)], "task")
    third = line.put({"c": 1})
    given = present(s.get_tuple(second), "second").checkpoint
    given["channel_values"] = {"a": "z" * 100}
    version = s.next_version(max(line.versions.values()))
    given["channel_versions"]["a"] = version
    s.put(
        config("t", "", "1f000000-0000-6000-8000-00000000beef"), given, {"source": "update", "step": 9}, {"a": version}
    )
    found = present(s.get_tuple(second), "the replaced checkpoint")
    same(found.checkpoint["channel_values"], {"a": "z" * 100}, "values of the replaced checkpoint")
    same(id_of(found.parent_config), id_of(first), "its parent")
    same((found.metadata.get("source"), found.metadata.get("step")), ("update", 9), "its metadata")
    same(_writes(s, second), [("task", "a", 1)], "its writes")
    same(_values(s, third), {"a": "y" * 100, "b": 1, "c": 1}, "values of its child")
    same(_listed(s, config("t", "")), [id_of(third), id_of(second), id_of(first)], "the listing")
    same(id_of(present(s.get_tuple(config("t", "")), "newest").config), id_of(third), "the newest")


@check("full")
def the_newest_is_what_was_put_last(s: Subject) -> None:
    """Order is the order of putting, not of clocks in ids: the newest is the last one put, and `list` agrees (C3.1)."""
    line = Line(s)
    made = [
        id_of(
            line.put({"n": n}, id=f"1f000000-0000-6000-8000-0000000000{n:02}", ts=f"2026-01-{20 - n:02}T00:00:00+00:00")
        )
        for n in (5, 9, 1, 7, 0)
    ]
    same(_values(s, config("t", "")), {"n": 0}, "the newest")
    same(_listed(s, config("t", "")), made[::-1], "the listing")
    same(_listed(s, config("t", ""), before=config("t", "", made[2])), made[1::-1], "before the third")


@check("full")
def all_values_are_stored(s: Subject) -> None:
    """`put` stores what is in `channel_values` unless it is stored under the same version, whatever `new_versions`
    names (C3.1)."""
    line = Line(s)
    first = line.put({"a": "x" * 100})
    version = s.next_version(max(line.versions.values()))
    given = checkpoint({"a": "y" * 100, "undeclared": "u" * 100}, {"a": version, "undeclared": version})
    second = s.put(first, given, {"source": "loop", "step": 0, "parents": {}}, {})
    same(_values(s, second), {"a": "y" * 100, "undeclared": "u" * 100}, "values put with empty new_versions")
    same(_values(s, first), {"a": "x" * 100}, "values of the parent")
    only = {"v": 1, "a": "z" * 100}
    third = s.put(second, checkpoint(only, {}), {"source": "loop", "step": 1, "parents": {}}, {})
    same(_values(s, third), only, "values without versions")


@check("full")
def all_fields_survive(s: Subject) -> None:
    """A checkpoint comes back as it was put: exact versions, seen, updated channels, ts, v, and unknown fields."""
    given = checkpoint(
        {"a": 1},
        {"a": s.next_version(None), "gone": s.next_version(None)},
        v=3,
        ts="yesterday",
        versions_seen={"n": {"a": 1.5}, "m": {}},
        updated_channels=["a", "gone"],
        pending_sends=[],
    )
    where = s.put(config("t", ""), given, {"source": "loop", "step": 1}, given["channel_versions"])
    same(present(s.get_tuple(where), "get_tuple").checkpoint, given, "the checkpoint")


@check("full")
def namespace_and_thread_in_configs(s: Subject) -> None:
    """`checkpoint_ns` defaults to the root everywhere; a config without `thread_id` raises a `ValueError` that names the
    key (C2, C3.1)."""
    where = s.put(config("t"), checkpoint({"a": 1}), {"source": "loop", "step": 1}, {"a": 1})
    same(where["configurable"], {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": id_of(where)}, "put's config")
    s.put_writes(config("t", None, id_of(where)), [("a", 1)], "task")
    same(_writes(s, where), [("task", "a", 1)], "writes given without a namespace")
    nowhere: Any = {"configurable": {"checkpoint_ns": ""}}
    calls: dict[str, Callable[[], Any]] = {
        "get_tuple": lambda: s.get_tuple(nowhere),
        "list": lambda: s.list(nowhere),
        "put": lambda: s.put(nowhere, checkpoint({}), {}, {}),
        "put_writes": lambda: s.put_writes(nowhere, [("a", 1)], "task"),
    }
    for name, call in calls.items():
        with raises(ValueError, f"{name} without thread_id") as refused:
            call()
        true("thread_id" in str(refused.caught), f"{name}: the error does not name the key: {refused.caught}")


@check("full")
def thread_ids_are_text(s: Subject) -> None:
    """A thread id that is an int or a UUID means the thread of its text (C12)."""
    for thread in (7, UUID(int=9)):
        where = Line(s, thread).put({"a": str(thread)})
        same(where["configurable"]["thread_id"], str(thread), "thread id that put returns")
        same(_values(s, config(str(thread))), {"a": str(thread)}, "values by the text")
        same(_values(s, config(thread)), {"a": str(thread)}, "values by the object")
        same(len(s.list(config(thread))), 1, "listing by the object")


@check("full")
def metadata_is_merged(s: Subject) -> None:
    """Scalars of the config's `metadata` and `configurable` are added to the metadata; keys that are there win, and
    keys of the addressing or with two underscores stay out (A3)."""
    where = config("t", "")
    where["configurable"].update(user="u", __secret=1, flag=True, thing=[1])
    where["metadata"] = {"run_id": "r", "n": 1}
    given = {"source": "loop", "step": 2, "n": 5, "none": None, "deep": {"a": [1, {"b": None}]}, "nul": "a\x00b"}
    s.put(where, checkpoint({}), given, {})
    wanted = {**given, "nul": "ab", "run_id": "r", "user": "u", "flag": True}
    same(present(s.get_tuple(config("t")), "get_tuple").metadata, wanted, "metadata")
    same(s.list(config("t"))[0].metadata, wanted, "metadata in a listing")


@check("full")
def metadata_must_be_json(s: Subject) -> None:
    """Metadata that is no JSON raises `TypeError`, and nothing is stored (C3.1)."""
    with raises(TypeError, "metadata with an object"):
        s.put(config("t", ""), checkpoint({}), {"source": "loop", "step": 1, "x": object()}, {})
    true(s.get_tuple(config("t")) is None, "a refused put stored something")
    s.put(config("v", ""), checkpoint({}), {"text": "\ud800 \u4e2d"}, {})
    same(present(s.get_tuple(config("v")), "get_tuple").metadata["text"], "\ud800 \u4e2d", "odd text in metadata")


# ---- private copies


@check("full")
def what_is_given_may_be_changed_afterwards(s: Subject) -> None:
    """Values, writes and metadata are stored as they were when they were given (C3.1)."""
    value, write, metadata = {"l": [1]}, [1], {"source": "loop", "step": 1, "deep": {"a": [1]}}
    given = checkpoint({"v": value})
    where = s.put(config("t", ""), given, metadata, given["channel_versions"])
    s.put_writes(where, [("w", write)], "task")
    value["l"].append(2)
    write.append(2)
    metadata["deep"]["a"].append(2)  # type: ignore[index]
    given["channel_versions"]["v"] = 99
    given["versions_seen"]["n"] = {}
    found = present(s.get_tuple(where), "get_tuple")
    same(found.checkpoint["channel_values"], {"v": {"l": [1]}}, "values")
    same(found.checkpoint["channel_versions"], {"v": 1}, "versions")
    same(found.checkpoint["versions_seen"], {}, "versions seen")
    same(found.metadata["deep"], {"a": [1]}, "metadata")
    same([*found.pending_writes], [("task", "w", [1])], "writes")


@check("full")
def what_is_returned_is_private(s: Subject) -> None:
    """Everything that `get_tuple` and `list` return may be changed without changing what is stored (C3.1)."""
    line = Line(s)
    where = line.put({"v": {"l": [1] * 50}, "w": [[1]]}, metadata={"source": "loop", "step": 1, "deep": {"a": [1]}})
    line.put({"n": 1})
    s.put_writes(where, [("x", [1])], "task")
    reads: list[Callable[[], Any]] = [lambda: s.get_tuple(where), lambda: s.list(config("t"))[1]]
    for read in reads:
        found = read()
        wanted = (
            {"v": {"l": [1] * 50}, "w": [[1]]},
            dict.fromkeys("vw", found.checkpoint["channel_versions"]["v"]),
            {"a": [1]},
            [("task", "x", [1])],
        )
        found.checkpoint["channel_values"]["v"]["l"].append(3)
        found.checkpoint["channel_values"]["w"][0].append(3)
        found.checkpoint["channel_values"]["new"] = 1
        found.checkpoint["channel_versions"]["new"] = 99
        found.metadata["deep"]["a"].append(3)
        found.pending_writes[0][2].append(3)
        found.pending_writes.clear()
        again = read()
        same(
            (
                again.checkpoint["channel_values"],
                again.checkpoint["channel_versions"],
                again.metadata["deep"],
                [*again.pending_writes],
            ),
            wanted,
            "values, versions, metadata and writes after what was read before was changed",
        )
    same(_values(s, config("t")), {"v": {"l": [1] * 50}, "w": [[1]], "n": 1}, "values of the child")


# ---- list


@check("full")
def limits(s: Subject) -> None:
    """`limit` is None (all) or an int of at least 0 (0 shows nothing); anything else raises `ValueError` (C3.1)."""
    line = Line(s)
    for n in range(3):
        line.put({"n": n})
    same(len(s.list(config("t", ""), limit=None)), 3, "limit None")
    same(s.list(config("t", ""), limit=0), [], "limit 0")
    same(s.list(None, limit=0), [], "limit 0 over all threads")
    for limit in (-1, 1.5, "1", "1; DROP TABLE checkpoints", True):
        with raises(ValueError, f"limit {limit!r}"):
            s.list(config("t", ""), limit=limit)


@check("full")
def namespaces_are_merged(s: Subject) -> None:
    """A config without `checkpoint_ns` lists all namespaces of the thread, in the order they were written; `""` lists
    the root (C3.1, amendments II.2)."""
    root, child = Line(s), Line(s, ns="child|x:1")
    made = [id_of(line.put({"n": n})) for n, line in enumerate((root, child, root, child, root))]
    same(_listed(s, config("t")), made[::-1], "all namespaces")
    same(_listed(s, config("t", "")), [made[4], made[2], made[0]], "the root")
    same(_listed(s, config("t", "child|x:1")), [made[3], made[1]], "the child")
    same(_listed(s, config("t"), limit=2), made[:2:-1], "the newest two of all")
    same(_listed(s, config("t"), before=config("t", "", made[3])), made[2::-1], "before one of another namespace")
    same(_listed(s, config("t", "", made[2])), [made[2]], "a config with an id")


@check("full")
def all_threads(s: Subject) -> None:
    """`config=None` lists every thread, newest first by the text of the ids; `before` and `limit` apply (C3.1)."""
    lines = [Line(s, "b"), Line(s, "a"), Line(s, "c", "child")]
    made = [id_of(lines[n % 3].put({"n": n}, metadata={"source": "loop", "step": n})) for n in range(9)]
    newest_first = sorted(made, reverse=True)
    same(_listed(s, None), newest_first, "all threads")
    same(_listed(s, None, limit=4), newest_first[:4], "the newest four")
    same(_listed(s, None, before=config("a", "", made[4]), limit=2), [made[3], made[2]], "before one of them")
    threads = {entry.config["configurable"]["thread_id"] for entry in s.list(None)}
    same(threads, {"a", "b", "c"}, "threads of the configs")


@check("full")
def before_of_elsewhere(s: Subject) -> None:
    """`before` with the id of another thread, or of nothing stored, compares the texts of the ids (C3.1)."""
    line, other = Line(s), Line(s, "u")
    first, second = id_of(line.put({"n": 0})), id_of(line.put({"n": 1}))
    foreign = id_of(other.put({"n": 0}))
    third = id_of(line.put({"n": 2}))
    unknown = ids.checkpoint_id(0)
    same(_listed(s, config("t", ""), before=config("u", "", foreign)), [second, first], "before another thread's")
    same(_listed(s, config("t", ""), before=config("t", "", unknown)), [third, second, first], "before an unknown id")
    same(_listed(s, config("t", ""), before=config("t", "", "0")), [], "before an id that is less than all")
    same(_listed(s, config("t", ""), before=config("t", "", "z"), limit=1), [third], "before one greater than all")


@check("full", "filter")
def filters(s: Subject) -> None:
    """A filter key is taken literally, else as a dotted path; None means missing or null; True is not 1; nested dicts
    and lists are compared whole (D57)."""
    metadata = {
        "a.b": 7,
        "a": {"b": 5, "c": None},
        "d": {"e": {"f": 3}},
        "on": True,
        "one": 1,
        "l": [1, {"x": 2}],
        "null": None,
    }
    Line(s).put({}, metadata={"source": "loop", "step": 1, **metadata})
    for wanted, fits in (
        ({"a.b": 7}, True),
        ({"a.b": 5}, False),
        ({"d.e.f": 3}, True),
        ({"d.e": {"f": 3}}, True),
        ({"d.f": 3}, False),
        ({"a": {"b": 5, "c": None}}, True),
        ({"a": {"b": 5}}, False),
        ({"a": {"b": 5, "c": None, "z": None}}, False),
        ({"on": True}, True),
        ({"on": 1}, False),
        ({"one": 1}, True),
        ({"one": True}, False),
        ({"one": "1"}, False),
        ({"missing": None}, True),
        ({"null": None}, True),
        ({"a": None}, False),
        ({"l": [1, {"x": 2}]}, True),
        ({"l": [{"x": 2}, 1]}, False),
        ({"l": [1]}, False),
        ({"source": "loop", "step": 1, "on": True}, True),
        ({"source": "loop", "step": 1, "on": False}, False),
        ({"step": True}, False),
        ({"source": "LOOP"}, False),
    ):
        same(bool(s.list(config("t", ""), filter=wanted)), fits, f"does {wanted} fit")
        same(bool(s.list(None, filter=wanted)), fits, f"does {wanted} fit, over all threads")


@check("full", "filter")
def hostile_filters(s: Subject) -> None:
    """Keys and values of a filter are data: quotes, wildcards and paths of a query language match only themselves
    (C4)."""
    for n, text in enumerate(HOSTILE):
        clean = text.replace("\x00", "")
        Line(s, f"t{n}").put({}, metadata={"source": "loop", "step": n, f"k{text}": text, "kind": clean})
    for n, text in enumerate(HOSTILE):
        clean = text.replace("\x00", "")
        found = [entry.metadata["step"] for entry in s.list(None, filter={"kind": clean})]
        same(found, [n], f"step of those with the value {text[:20]!r}")
        same(len(s.list(None, filter={f"k{text}": clean})), 1, f"checkpoints with the key {text[:20]!r}")
        same(s.list(None, filter={f"k{text}": "other"}), [], f"the key {text[:20]!r} with another value")


@check("full")
def hostile_ids(s: Subject) -> None:
    """Thread ids, namespaces, channel and task names are data: any text addresses itself and nothing else, NUL
    included (C12)."""
    for text in HOSTILE:
        where = Line(s, f"t{text}", f"n{text}").put({f"c{text}": text})
        s.put_writes(where, [(f"c{text}", text)], f"k{text}", f"p{text}")
    for text in HOSTILE:
        where = config(f"t{text}", f"n{text}")
        found = present(s.get_tuple(where), f"thread {text[:20]!r}")
        same(found.checkpoint["channel_values"], {f"c{text}": text}, f"values of thread {text[:20]!r}")
        same([*found.pending_writes], [(f"k{text}", f"c{text}", text)], f"writes of thread {text[:20]!r}")
        same(found.config["configurable"]["thread_id"], f"t{text}", "thread id of the config")
        same(len(s.list(where)), 1, f"listing of thread {text[:20]!r}")
        true(s.get_tuple(config(f"t{text}", "")) is None, f"thread {text[:20]!r} has a root checkpoint")
    same(len(s.list(None)), len(HOSTILE), "checkpoints of all threads")


@check("full")
def hostile_checkpoint_ids(s: Subject) -> None:
    """A checkpoint id is any text: it is found by exactly that (C4)."""
    line = Line(s)
    for n, text in enumerate(HOSTILE):
        line.put({"n": n}, id=f"i{text}")
    for n, text in enumerate(HOSTILE):
        same(_values(s, config("t", "", f"i{text}")), {"n": n}, f"values of checkpoint {text[:20]!r}")
    same(_listed(s, config("t", "")), [f"i{text}" for text in reversed(HOSTILE)], "listing")
    upper = "1F000000-0000-6000-8000-0000000000AB"
    line.put({"n": "upper"}, id=upper)
    true(s.get_tuple(config("t", "", upper.lower())) is None, "an id is found in another case")
    same(_values(s, config("t", "", upper)), {"n": "upper"}, "an id in capitals")


@check("full")
def reading_and_writing_while_listing(s: Subject) -> None:
    """Between two entries of a listing the program may read and write; the listing goes on as it was begun, without
    gap or repetition (C7)."""
    line = Line(s)
    for n in range(120):
        line.put({"n": n})
    seen: list[int] = []
    for entry in s.iterate("list", config("t", "")):
        if len(seen) in (0, 10, 49, 50, 51, 99):
            line.put({"n": "new"})
            s.put_writes(entry.config, [("a", 1)], "task")
        same(_values(s, entry.config), entry.checkpoint["channel_values"], "get_tuple of a listed checkpoint")
        seen.append(entry.checkpoint["channel_values"]["n"])
    same(seen, [*range(119, -1, -1)], "what the listing showed")


@check("full")
def abandoned_listings_block_nobody(s: Subject) -> None:
    """A listing that is not read to its end, closed or only left, holds nothing (C7)."""
    line = Line(s)
    for n in range(60):
        line.put({"n": n})
    left = [s.iterate("list", config("t", "")) for _ in range(10)]
    for listing in left:
        same(len([*islice(listing, 3)]), 3, "entries read")
    line.put({"n": "after"})
    same(_values(s, config("t")), {"n": "after"}, "the newest")
    for listing in left[5:]:
        listing.close()  # type: ignore[attr-defined]
    same(len(s.list(config("t"))), 61, "listing")
    for listing in left[:5]:
        listing.close()  # type: ignore[attr-defined]


# ---- forks and channels


@check("full")
def forks_of_forks(s: Subject) -> None:
    """Branches of branches, each with own values of one channel, keep them apart, whatever is put between (D26)."""
    leaves = [Line(s)]
    leaves[0].put({"a": "root" * 30, "shared": "s" * 3000})
    meant: list[tuple[Any, dict[str, Any]]] = [(leaves[0].config, dict(leaves[0].values))]
    for depth in range(4):
        grown = []
        for leaf in leaves:
            for side in "lr":
                branch = leaf.branch()
                branch.put({"a": f"{branch.values['a'][-20:]}{depth}{side}" * 30, f"c{depth}": side})
                grown.append(branch)
                meant.append((branch.config, dict(branch.values)))
        leaves = grown
    for where, values in meant:
        same(_values(s, where), values, "values of a branch")
    same(len(s.list(config("t"))), len(meant), "number of checkpoints")


@check("full")
def channels_are_removed_and_added_again(s: Subject) -> None:
    """A channel that loses its value, or leaves the versions, and comes back has only its new values (C12)."""
    line = Line(s)
    meant = []
    for n in range(12):
        if n % 4 == 3:
            line.put({"a": GONE})
        elif n % 4 == 1 and n > 4:
            del line.values["a"], line.versions["a"]
            line.put({"b": n})
        else:
            line.put({"a": f"{n}" * 200})
        meant.append((line.config, dict(line.values)))
    for where, values in meant:
        same(_values(s, where), values, "values")


@check("full")
def a_thousand_channels(s: Subject) -> None:
    """A checkpoint has 1,000 channels, of which few change (C12)."""
    line = Line(s)
    first = line.put({f"channel {n}": [n] * (n % 50) for n in range(1000)})
    changed = line.put({f"channel {n}": "new" * 50 for n in range(0, 1000, 100)})
    same(_values(s, first), {f"channel {n}": [n] * (n % 50) for n in range(1000)}, "values of the first")
    same(_values(s, changed), line.values, "values of the second")


@check("full", once=True)
def twenty_megabytes(s: Subject) -> None:
    """A value of 20 MB is stored, read, listed and carried on (C12)."""
    big = bytes(range(256)) * (20 * 4096)
    line = Line(s)
    line.put({"big": big, "n": 0})
    second = line.put({"n": 1})
    same(_values(s, second)["big"] == big, True, "is the value the same")
    same(len(s.list(config("t"))), 2, "listing")
    s.put_writes(second, [("big", big)], "task")
    same(_writes(s, second)[0][2] == big, True, "is the write the same")


@check("full", once=True)
def ten_thousand_checkpoints(s: Subject) -> None:
    """A thread of 10,000 checkpoints is read and listed from its ends and from its middle (C12)."""
    count = 10_000
    if is_native(s.saver):
        run = ScriptedRun(s, durability="async")
        for n in range(count):
            run.step({"n": n})
        made = [stored.id for stored in run.stored]
    else:
        line = Line(s)
        made = [id_of(line.put({"n": n})) for n in range(count)]
    same(_values(s, config("t")), {"n": count - 1}, "the newest")
    for n in (0, 1, count // 2, count - 2):
        same(_values(s, config("t", "", made[n])), {"n": n}, f"checkpoint {n}")
    middle = config("t", "", made[count // 2])
    same(
        _listed(s, config("t", ""), before=middle, limit=3),
        made[count // 2 - 1 : count // 2 - 4 : -1],
        "from the middle",
    )
    page = made[count // 2 - 1 : count // 2 - 1001 : -1]
    listing = s.iterate("list", config("t", ""), before=middle, limit=1000)
    for position, (entry, wanted) in enumerate(zip(listing, page, strict=True)):
        same(entry.checkpoint["id"], wanted, f"entry {position} of the listing from the middle")
    oldest = s.list(config("t", ""), before=config("t", "", made[3]))
    same([entry.checkpoint["id"] for entry in oldest], made[2::-1], "the oldest")


# ---- serde


def _with_types(value: Any) -> Any:
    """A form of a value that is equal only for equal values of the same types all the way down."""
    kind = type(value)
    if isinstance(value, defaultdict):
        return kind, value.default_factory, [(_with_types(k), _with_types(v)) for k, v in value.items()]
    if isinstance(value, dict):
        return kind, [(_with_types(k), _with_types(v)) for k, v in value.items()]
    if isinstance(value, deque):
        return kind, value.maxlen, [_with_types(item) for item in value]
    if isinstance(value, (list, tuple)):
        return kind, [_with_types(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return kind, {repr(_with_types(item)) for item in value}
    if isinstance(value, re.Pattern):
        return kind, value.pattern, value.flags
    if isinstance(value, datetime):
        return kind, value.isoformat(), repr(value.tzinfo)
    return kind, value


@check("full")
def types_survive(s: Subject) -> None:
    """Values of all built-in kinds come back equal and of the same type, at the top and nested, from checkpoints and
    from task writes (C8)."""
    nested = {f"nested {name}": {"in": [value, {"k": value}]} for name, value in TYPES.items()}
    given = {**TYPES, **nested}
    where = Line(s).put(dict(given))
    s.put_writes(where, [*given.items()], "task")
    found = present(s.get_tuple(where), "get_tuple")
    writes = {channel: value for _, channel, value in found.pending_writes}
    listed = s.list(config("t"))[0].checkpoint["channel_values"]
    for name, value in given.items():
        for place, store in (
            ("value", found.checkpoint["channel_values"]),
            ("write", writes),
            ("listed value", listed),
        ):
            true(name in store, f"{place} {name!r} is missing")
            same(_with_types(store[name]), _with_types(value), f"{place} {name!r}")


@check("full")
def top_level_bytes_and_depth(s: Subject) -> None:
    """Bytes stay bytes, bytearrays stay bytearrays, and nesting of 100 levels is no problem (C8)."""
    deep: Any = "bottom"
    for n in range(100):
        deep = [deep] if n % 2 else {"d": deep}
    where = Line(s).put({"b": b"\x80" * 3000, "ba": bytearray(b"\x80" * 3000), "deep": deep})
    found = _values(s, where)
    same((type(found["b"]), type(found["ba"])), (bytes, bytearray), "types")
    same(found, {"b": b"\x80" * 3000, "ba": bytearray(b"\x80" * 3000), "deep": deep}, "values")


# ---- whole threads


def _family(s: Subject, thread: str) -> dict[str, list[Any]]:
    """A thread with a fork, a child namespace and writes. Returns its ids by namespace, oldest first."""
    line, child = Line(s, thread), Line(s, thread, "child:1")
    for n in range(4):
        where = line.put({"n": n, "l": [n] * 100})
        s.put_writes(where, [("n", n), ("l", [n])], "task", "path")
        child.put({"c": n})
    return {"": [id_of(where) for where in line.configs], "child:1": [id_of(where) for where in child.configs]}


def _content(s: Subject, thread: str) -> list[Any]:
    """All that a thread holds, without its own name, newest first."""
    content = []
    for entry in s.list(config(thread)):
        metadata = {key: value for key, value in entry.metadata.items() if key != "thread_id"}
        content.append(
            (
                entry.config["configurable"].get("checkpoint_ns"),
                entry.checkpoint,
                metadata,
                id_of(entry.parent_config),
                [*(entry.pending_writes or ())],
            )
        )
    return content


@check("full", "copy_thread")
def copies_are_equal(s: Subject) -> None:
    """`copy_thread` copies all checkpoints with ids, order, values, metadata, namespaces and writes, and leaves the
    source as it was (A9.66-72)."""
    _family(s, "t")
    before = _content(s, "t")
    s.copy_thread("t", "copy")
    same(_content(s, "copy"), before, "content of the copy")
    same(_content(s, "t"), before, "content of the source")
    for entry in s.list(config("copy")):
        same(entry.config["configurable"]["thread_id"], "copy", "thread id of a copied checkpoint")
        if entry.parent_config is not None:
            same(entry.parent_config["configurable"]["thread_id"], "copy", "thread id of a copied parent")


@check("full", "copy_thread")
def a_copy_and_its_source_go_on_apart(s: Subject) -> None:
    """After a copy both threads are written without the other one seeing it; deleting one leaves the other (C10)."""
    _family(s, "t")
    s.copy_thread("t", "copy")
    before = _content(s, "t")
    newest = s.list(config("copy", ""), limit=1)[0]
    line = Line(s, "copy")
    line.config, line.values = newest.config, dict(newest.checkpoint["channel_values"])
    line.versions = dict(newest.checkpoint["channel_versions"])
    line.put({"l": ["copy"] * 100})
    s.put_writes(newest.config, [("n", 1)], "other task")
    same(_content(s, "t"), before, "content of the source after the copy went on")
    same(_values(s, config("copy", "")), {"n": 3, "l": ["copy"] * 100}, "newest of the copy")
    if implements(s.saver, "adelete_thread" if s.is_async else "delete_thread"):
        s.delete_thread("t")
        same(_values(s, line.config), {"n": 3, "l": ["copy"] * 100}, "values of the copy without its source")


@check("full", "copy_thread")
def copies_never_mix(s: Subject) -> None:
    """Copying a thread to itself, or to one that has checkpoints, is refused and changes nothing; an unknown source
    copies nothing (A9.73, C10)."""
    _family(s, "t")
    Line(s, "other").put({"own": 1})
    before = _content(s, "t"), _content(s, "other")
    for target in ("t", "other"):
        with raises((CheckpointError, ValueError), f"copy_thread('t', {target!r})"):
            s.copy_thread("t", target)
    same((_content(s, "t"), _content(s, "other")), before, "both threads after refused copies")
    with suppress(CheckpointError, ValueError, KeyError):
        s.copy_thread("nobody", "nothing")
    true(s.get_tuple(config("nothing")) is None, "a copy of nothing made a thread")


# ---- forks


@check("full", "fork")
def a_fork_goes_on_from_what_is_addressed(s: Subject) -> None:
    """`fork` makes a checkpoint whose parent is the addressed one (without an id the newest), with its values, versions
    and channels, source `"fork"`, the next step and no task writes. It is the newest of its namespace from then on; what
    was there stays as it was (C3.2, D25)."""
    for ns in ("", "child"):
        line = Line(s, ns=ns)
        for n in range(4):
            s.put_writes(line.put({"n": n, "l": [n] * 100, "gone": GONE if n == 1 else n}), [("n", n)], "task")
        before = {entry.checkpoint["id"]: entry for entry in s.list(config("t", ns))}
        for addressed, parent in ((line.configs[1], line.configs[1]), (config("t", ns), None)):
            # Without an id, the second time: the first fork is the newest.
            parent = parent or present(s.get_tuple(config("t", ns)), "newest").config
            wanted = present(s.get_tuple(parent), "what is forked")
            made = s.fork(addressed)
            found = present(s.get_tuple(config("t", ns)), "newest after a fork")
            same(id_of(found.config), id_of(made), "the newest after a fork")
            same(
                id_of(present(s.get_tuple(made), "the fork by its config").config),
                id_of(made),
                "the fork by its config",
            )
            true(id_of(made) not in before, "a fork has the id of another checkpoint")
            same(id_of(found.parent_config), id_of(parent), "parent of a fork")
            for part in ("channel_values", "channel_versions", "versions_seen", "updated_channels"):
                same(found.checkpoint.get(part), wanted.checkpoint.get(part), f"{part} of a fork")
            same([*(found.pending_writes or ())], [], "task writes of a fork")
            metadata = found.metadata["source"], found.metadata["step"], found.metadata.get("parents")
            same(metadata, ("fork", wanted.metadata["step"] + 1, wanted.metadata.get("parents")), "metadata of a fork")
            same(_listed(s, config("t", ns), limit=1), [id_of(made)], "first of a listing after a fork")
        after = {entry.checkpoint["id"]: entry for entry in s.list(config("t", ns))}
        same({key: after[key] for key in before}, before, "what was there before the forks")
        same(len(after), len(before) + 2, "checkpoints after two forks")


@check("full", "fork")
def forks_go_on_apart(s: Subject) -> None:
    """What is put after a fork, and after what it was forked from, is read by its own line only; a fork of a fork is
    as good as the first (C4)."""
    line = Line(s)
    for n in range(3):
        line.put({"l": [*line.values.get("l", []), "x" * 90 * (n + 1)], "text": "t" * 300 * (n + 1)})
    values = [present(s.get_tuple(where), "a checkpoint").checkpoint["channel_values"] for where in line.configs]
    branches = []
    for n, where in enumerate(line.configs[:2]):
        branch = line.branch()
        branch.config, branch.values = s.fork(s.fork(where)), dict(values[n])
        versions = present(s.get_tuple(branch.config), "a fork").checkpoint["channel_versions"]
        branch.versions = dict(versions)
        branch.put({"l": [*branch.values["l"], f"fork {n}"], "text": branch.values["text"] + "f" * 300})
        branches.append(branch)
    line.put({"l": [*line.values["l"], "trunk"]})
    for where, wanted in zip(line.configs, [*values, line.values], strict=True):
        same(_values(s, where), wanted, "values of the line that was forked")
    for branch in branches:
        same(_values(s, branch.config), branch.values, "values of a branch")


@check("full", "fork")
def forks_of_nothing(s: Subject) -> None:
    """A fork of an unknown thread, namespace or id raises `CheckpointNotFoundError` that names both, and stores
    nothing (C2)."""
    line = Line(s)
    where = line.put({"n": 1})
    Line(s, "other").put({"n": 2})
    before = _content(s, "t"), _content(s, "other")
    elsewhere = id_of(where)
    for thread, ns, unknown in (
        ("nobody", "", None),
        ("nobody", "", elsewhere),
        ("t", "child", None),
        ("t", "child", elsewhere),
        ("t", "", ids.checkpoint_id(0)),
        ("other", "", elsewhere),
        *(("t", "", hostile) for hostile in HOSTILE),
    ):
        with raises(CheckpointNotFoundError, f"fork of {unknown!r} in thread {thread!r}, namespace {ns!r}") as refused:
            s.fork(config(thread, ns, unknown))
        same((refused.caught.thread_id, refused.caught.checkpoint_id), (thread, unknown), "what the error names")
    same((_content(s, "t"), _content(s, "other")), before, "content after refused forks")
    true(s.get_tuple(config("nobody")) is None, "a refused fork made a thread")


@check("full", "fork", "verify")
def forks_copy_no_value(s: Subject) -> None:
    """A fork stores no value anew, however large (C3.2): by the saver's own `stats`, if it has them."""
    if not implements(s.saver, "astats" if s.is_async else "stats"):
        raise Skipped("the saver has no stats")
    line = Line(s)
    for n in range(3):
        line.put({"l": ["x" * 1000] * (n + 1), "doc": "d" * 300_000, "small": n})
    before = s.call("stats", config()).bytes_by_channel
    for where in line.configs:
        s.fork(where)
    found = s.call("stats", config())
    same(dict(found.bytes_by_channel), dict(before), "bytes by channel after three forks")
    same((found.checkpoints, found.garbage), (6, 0), "checkpoints and garbage after three forks")


# ---- runs


def _run(line: Line, run_id: str, n: int) -> list[Any]:
    made = []
    for _ in range(n):
        metadata = {"source": "loop", "step": line.step, "parents": {}, "run_id": run_id}
        grown = [*line.values.get("l", []), run_id * 30]
        made.append(line.put({"l": grown, run_id: len(grown)}, metadata=metadata))
        line.store.put_writes(made[-1], [("l", run_id)], "task")
    return made


@check("full", "delete_for_runs")
def runs_are_deleted(s: Subject) -> None:
    """`delete_for_runs` removes exactly the checkpoints of these runs with their writes, in all namespaces; those of
    other runs keep their values (A9.59-65)."""
    line, child, other = Line(s), Line(s, ns="child"), Line(s, "u")
    made: dict[str, list[Any]] = {}
    for run in ("r1", "r2", "r3", "r4"):
        made[run] = [*_run(line, run, 2), *_run(child, run, 1), *_run(other, run, 1)]
    meant = {id_of(where): present(s.get_tuple(where), run).checkpoint for run in made for where in made[run]}
    s.delete_for_runs([])
    s.delete_for_runs(["nobody"])
    same(len(s.list(None)), 16, "checkpoints after deleting nothing")
    s.delete_for_runs(["r1", "r3"])
    for run, places in made.items():
        for where in places:
            found = s.get_tuple(where)
            if run in ("r1", "r3"):
                true(found is None, f"a checkpoint of deleted run {run} is there")
            else:
                same(
                    present(found, f"a checkpoint of run {run}").checkpoint, meant[id_of(where)], f"checkpoint of {run}"
                )
                same([*found.pending_writes], [("task", "l", run)], f"writes of {run}")
    same(len(s.list(None)), 8, "checkpoints after deleting two runs of four")
    same(id_of(present(s.get_tuple(config("t")), "newest").config), id_of(made["r4"][1]), "the newest")


@check("full", "delete_for_runs")
def the_newest_after_deleting_its_run(s: Subject) -> None:
    """When the newest checkpoint's run is deleted, the newest of those that are left is found, and can be gone on from
    (C10)."""
    line = Line(s)
    kept = _run(line, "r1", 2)[-1]
    values = dict(line.values)
    going_on = line.branch()
    _run(line, "r2", 2)
    s.delete_for_runs(["r2"])
    newest = present(s.get_tuple(config("t")), "newest after its run was deleted")
    same(id_of(newest.config), id_of(kept), "the newest")
    same(newest.checkpoint["channel_values"], values, "its values")
    going_on.put({"l": ["new"]})
    same(_values(s, config("t")), going_on.values, "values after going on")


@check("full", "prune")
def prune_keeps_the_latest(s: Subject) -> None:
    """`prune` leaves the newest checkpoint of each namespace of the named threads with values and writes, and other
    threads as they are (A9.74-77, 79)."""
    made = {thread: _family(s, thread) for thread in ("t", "u", "v")}
    untouched = _content(s, "v")
    newest = {(thread, ns): present(s.get_tuple(config(thread, ns)), "newest") for thread in "tu" for ns in made["t"]}
    s.prune(["t", "u"])
    for (thread, ns), wanted in newest.items():
        same(_listed(s, config(thread, ns)), [made[thread][ns][-1]], f"listing of {thread!r}, namespace {ns!r}")
        found = present(s.get_tuple(config(thread, ns)), "the kept checkpoint")
        same(found.checkpoint, wanted.checkpoint, "the kept checkpoint")
        same([*(found.pending_writes or ())], [*(wanted.pending_writes or ())], "its writes")
        for gone in made[thread][ns][:-1]:
            true(s.get_tuple(config(thread, ns, gone)) is None, "a pruned checkpoint is found by its id")
            same(s.list(config(thread, ns, gone)), [], "listing of a pruned checkpoint")
    same(_content(s, "v"), untouched, "content of another thread")


@check("full", "prune")
def prune_of_nothing_and_everything(s: Subject) -> None:
    """Pruning no thread or an unknown one does nothing; strategy `"delete"` empties the thread; another strategy is a
    `ValueError` (A9.78, 80, 81)."""
    _family(s, "t")
    _family(s, "u")
    before = _content(s, "t"), _content(s, "u")
    s.prune([])
    s.prune(["nobody"])
    with raises(ValueError, "an unknown strategy"):
        s.prune(["t"], strategy="sometimes")
    same((_content(s, "t"), _content(s, "u")), before, "content after pruning nothing")
    s.prune(["t"], strategy="delete")
    same(s.list(config("t")), [], "listing after strategy delete")
    true(s.get_tuple(config("t")) is None, "the thread is there after strategy delete")
    same(_content(s, "u"), before[1], "content of the other thread")


@check("full", "prune")
def a_pruned_thread_goes_on(s: Subject) -> None:
    """After a prune the thread is written and forked as before (C10)."""
    line = Line(s)
    for n in range(6):
        line.put({"n": n, "l": [n] * 100, "old": "o" * 200} if n == 0 else {"n": n, "l": [*line.values["l"], n]})
    s.prune(["t"])
    kept = dict(line.values)
    fork = line.branch()
    line.put({"n": "after", "l": [*line.values["l"], "after"]})
    same(_values(s, config("t")), line.values, "values after going on")
    same(_values(s, fork.config), kept, "values of the kept checkpoint")
    fork.put({"n": "fork", "old": "new" * 100})
    same(_values(s, fork.config), fork.values, "values of a fork of the kept checkpoint")
    s.prune(["t"])
    same(_values(s, config("t")), fork.values, "the newest after pruning again")


# ---- channels that store only writes


def _history(s: Subject, where: Any, channels: list[str]) -> Any:
    return s.call("get_delta_channel_history", config=where, channels=channels)


@check("full", "delta_channel_history")
def delta_history(s: Subject) -> None:
    """The history of a channel is its writes on the way from the nearest ancestor with a stored value, oldest first,
    that ancestor's own included, the target's own left out; each channel ends its walk on its own (A9.82-89)."""
    line = Line(s)
    for n in range(6):
        # Written in every step, with a value to store in one.
        stored = {"d": ["seed"] if n == 2 else GONE, "e": {"seed": "e"} if n == 4 else GONE, "f": GONE}
        where = line.put({"n": n, **stored})
        s.put_writes(where, [("d", f"d{n}"), ("e", f"e{n}"), ("n", n)], f"task{n}")
        s.put_writes(where, [("f", n)], f"f{n}")
    found = _history(s, line.config, ["d", "e", "f", "never"])
    same([*found["d"]["writes"]], [(f"task{n}", "d", f"d{n}") for n in (2, 3, 4)], "writes of the first channel")
    same(found["d"].get("seed"), ["seed"], "seed of the first channel")
    same([*found["e"]["writes"]], [("task4", "e", "e4")], "writes of the second channel")
    same(found["e"].get("seed"), {"seed": "e"}, "seed of the second channel")
    same([*found["f"]["writes"]], [(f"f{n}", "f", n) for n in range(5)], "writes of a channel without a stored value")
    true("seed" not in found["f"], "a channel without a stored value has a seed")
    same(dict(found["never"]), {"writes": []}, "a channel that nobody wrote")
    same(dict(_history(s, line.config, [])), {}, "the history of no channel")


@check("full", "delta_channel_history")
def delta_history_follows_parents(s: Subject) -> None:
    """The history of a channel follows the parents of the target, not what was put before it (A3)."""
    trunk = Line(s)
    base = trunk.put({"n": 0})
    s.put_writes(base, [("d", "base")], "task")
    left, right = trunk.branch(), trunk.branch()
    at_left, at_right = left.put({"n": "l"}), right.put({"n": "r"})
    s.put_writes(at_left, [("d", "left")], "task")
    s.put_writes(at_right, [("d", "right")], "task")
    left.put({"n": "ll"})
    right.put({"n": "rr"})
    for side, line in (("left", left), ("right", right)):
        found = _history(s, line.config, ["d"])
        same([value for _, _, value in found["d"]["writes"]], ["base", side], f"values of the {side} branch")
    one_of(
        dict(_history(s, config("t", "", ids.checkpoint_id(0)), ["d"])),
        ({"d": {"writes": []}}, {}),
        "the history of an unknown checkpoint",
    )
    same([value for _, _, value in _history(s, config("t"), ["d"])["d"]["writes"]], ["base", "right"], "of the newest")
