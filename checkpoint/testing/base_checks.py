"""Level base: what every saver must do that implements LangGraph's interface, whoever wrote it.

Only the four required methods are taken for granted. Versions are made by the saver and compared by the integer before
the dot; ids grow; the writer names in `new_versions` what changed: nothing here goes beyond what LangGraph's own loop
does (persistence.md A9, facts 1-58; design.md D26, D57).
"""

from __future__ import annotations

from typing import Any, Final

from checkpoint import ids
from checkpoint.testing.checks import check
from checkpoint.testing.report import Skipped, present, same, true
from checkpoint.testing.script import GONE, Line, config, id_of
from checkpoint.testing.subject import Subject

VALUES: Final[dict[str, Any]] = {
    "text": "hello \u4e2d\u6587",
    "empty_text": "",
    "number": 42,
    "zero": 0,
    "negative": -(2**40),
    "float": 1.5,
    "true": True,
    "false": False,
    "none": None,
    "bytes": b"\x00\xff",
    "empty_bytes": b"",
    "list": [1, "two", None, [3.0]],
    "empty_list": [],
    "dict": {"a": {"b": [1, {"c": None}]}},
    "empty_dict": {},
}


def _values(subject: Subject, where: Any) -> Any:
    found = present(subject.get_tuple(where), f"get_tuple({where['configurable']})")
    return found.checkpoint["channel_values"]


def _counted(versions: dict[str, Any]) -> dict[str, int]:
    return {name: int(str(version).split(".")[0]) for name, version in versions.items()}


def _ids(entries: list[Any]) -> list[str]:
    return [entry.checkpoint["id"] for entry in entries]


# ---- put


@check("base")
def put_returns_the_config_of_the_new_checkpoint(s: Subject) -> None:
    """`put` returns a config with thread_id, checkpoint_ns and the new checkpoint's id (A9.1)."""
    line = Line(s)
    where = line.put({"a": 1}, id="1f000000-0000-6000-8000-000000000001")["configurable"]
    same(
        {key: where.get(key) for key in ("thread_id", "checkpoint_ns", "checkpoint_id")},
        {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "1f000000-0000-6000-8000-000000000001"},
        "the returned config",
    )


@check("base")
def put_then_get(s: Subject) -> None:
    """What was put is found by the config that `put` returned: same id, same values (A9.2)."""
    line = Line(s)
    where = line.put({"a": "x", "b": [1, 2]})
    found = present(s.get_tuple(where), "get_tuple of what was just put")
    same(found.checkpoint["id"], id_of(where), "id")
    same(found.checkpoint["channel_values"], {"a": "x", "b": [1, 2]}, "values")


@check("base")
def values_survive(s: Subject) -> None:
    """Text, numbers, bytes, None, lists and dicts come back equal and of the same type, empty ones too (A9.3)."""
    where = Line(s).put(dict(VALUES))
    found = _values(s, where)
    same(found, VALUES, "values")
    for name, value in VALUES.items():
        same(type(found[name]), type(value), f"type of {name}")


@check("base")
def versions_and_seen_survive(s: Subject) -> None:
    """`channel_versions` and `versions_seen` come back, nodes and channels and versions (A9.4, 5, 17)."""
    line = Line(s)
    line.put({"a": 1, "b": 2})
    line.put({"b": 3})
    seen = {"n": dict(line.versions), "__input__": {}, "m": {"a": line.versions["a"]}}
    where = line.put({"c": 1}, versions_seen=seen)
    found = present(s.get_tuple(where), "get_tuple").checkpoint
    same(_counted(found["channel_versions"]), _counted(line.versions), "channel_versions by number")
    same(set(found["versions_seen"]), set(seen), "nodes of versions_seen")
    for node, consumed in seen.items():
        same(_counted(found["versions_seen"][node]), _counted(consumed), f"versions_seen of {node!r}")


@check("base")
def metadata_survives(s: Subject) -> None:
    """source, step, run_id and keys of the program's own come back in the metadata (A9.6, 16, 33)."""
    given = {"source": "loop", "step": 3, "parents": {}, "run_id": "r-1", "who": "me", "n": 5}
    where = Line(s).put({"a": 1}, metadata=given)
    found = present(s.get_tuple(where), "get_tuple").metadata
    same({key: found.get(key) for key in given}, given, "metadata")


@check("base")
def namespaces(s: Subject) -> None:
    """A checkpoint of a child namespace is found there, is reported with it, and not at the root (A9.7-9, 36)."""
    root, child = Line(s), Line(s, ns="child:abc")
    at_root, at_child = root.put({"a": "root"}), child.put({"a": "child"})
    same(at_child["configurable"]["checkpoint_ns"], "child:abc", "namespace that put returns")
    same(_values(s, at_root), {"a": "root"}, "values at the root")
    same(_values(s, at_child), {"a": "child"}, "values of the child")
    same(_values(s, config("t", "")), {"a": "root"}, "newest at the root")
    same(_values(s, config("t")), {"a": "root"}, "newest without a namespace: the root's")
    newest = present(s.get_tuple(config("t", "child:abc")), "newest of the child")
    same(newest.config["configurable"]["checkpoint_ns"], "child:abc", "namespace that get_tuple reports")
    true(s.get_tuple(config("t", "other")) is None, "an unknown namespace of a known thread holds something")
    true(s.get_tuple(config("t", "other", id_of(at_root))) is None, "a checkpoint is found in another namespace by id")


@check("base")
def many_puts_are_all_there(s: Subject) -> None:
    """Each of many checkpoints of a thread is found by its id, with its own values (A9.10, 30)."""
    line = Line(s)
    made = [line.put({"n": n, "l": [n] * n}) for n in range(12)]
    for n, where in enumerate(made):
        same(_values(s, where), {"n": n, "l": [n] * n}, f"values of checkpoint {n}")


@check("base")
def threads_are_separate(s: Subject) -> None:
    """Two threads with the same channels and versions do not see each other's values (A9.11)."""
    lines = [Line(s, name) for name in ("t", "u", "t2")]
    for line in lines:
        line.put({"a": line.config["configurable"]["thread_id"] * 50})
    for line in lines:
        same(_values(s, line.config), line.values, "values of a thread")
        same(_values(s, config(line.config["configurable"]["thread_id"])), line.values, "newest of a thread")


@check("base")
def parents(s: Subject) -> None:
    """The id in the config given to `put` is the parent; the first checkpoint has none (A9.12, 34)."""
    line = Line(s)
    first, second = line.put({"a": 1}), line.put({"a": 2})
    true(present(s.get_tuple(first), "first").parent_config is None, "the first checkpoint has a parent")
    parent = present(present(s.get_tuple(second), "second").parent_config, "the second checkpoint's parent_config")
    wanted = {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": id_of(first)}
    same({key: parent["configurable"].get(key) for key in wanted}, wanted, "parent_config")


@check("base")
def unknown_parents_are_accepted(s: Subject) -> None:
    """`put` takes a parent id that is not stored, and reports it as the parent (D57)."""
    line = Line(s)
    line.config = config("t", "", "1f000000-0000-6000-8000-00000000beef")
    where = line.put({"a": 1})
    same(
        id_of(present(s.get_tuple(where), "get_tuple").parent_config), "1f000000-0000-6000-8000-00000000beef", "parent"
    )


@check("base")
def unchanged_channels_keep_their_values(s: Subject) -> None:
    """With only the changed channels in `new_versions` the others are found too, and older checkpoints keep theirs
    (A9.13)."""
    line = Line(s)
    first = line.put({"a": "x" * 100, "b": [1] * 100})
    second = line.put({"b": [2] * 100})
    third = line.put({"a": "y" * 100})
    same(_values(s, first), {"a": "x" * 100, "b": [1] * 100}, "values of the first")
    same(_values(s, second), {"a": "x" * 100, "b": [2] * 100}, "values of the second")
    same(_values(s, third), {"a": "y" * 100, "b": [2] * 100}, "values of the third")


@check("base")
def channels_come_and_go(s: Subject) -> None:
    """A channel that appears later is found from then on; one that lost its value is not, and may come back
    (A9.14, 15)."""
    line = Line(s)
    first, second, third = line.put({"a": 1}), line.put({"b": 2}), line.put({"a": GONE})
    fourth = line.put({"a": "again"})
    del line.values["b"], line.versions["b"]
    fifth = line.put({"a": 5})
    same(_values(s, first), {"a": 1}, "before the second channel")
    same(_values(s, second), {"a": 1, "b": 2}, "with both")
    same(_values(s, third), {"b": 2}, "after the first lost its value")
    same(_values(s, fourth), {"a": "again", "b": 2}, "after it came back")
    same(_values(s, fifth), {"a": 5}, "after the other left channel_versions")


@check("base")
def forks_read_their_own_branch(s: Subject) -> None:
    """Two children of one checkpoint, and their children, keep different values of one channel apart, although both
    got the next version of it (D26)."""
    trunk = Line(s)
    base = trunk.put({"a": "base" * 30, "b": "kept" * 30})
    left, right = trunk.branch(), trunk.branch()
    at_left = left.put({"a": "left" * 30})
    at_right = right.put({"a": "right" * 30})
    after_left, after_right = left.put({"c": 1}), right.put({"c": 2})
    same(_values(s, base), {"a": "base" * 30, "b": "kept" * 30}, "the fork's origin")
    same(_values(s, at_left), {"a": "left" * 30, "b": "kept" * 30}, "the older branch")
    same(_values(s, at_right), {"a": "right" * 30, "b": "kept" * 30}, "the newer branch")
    same(_values(s, after_left), {"a": "left" * 30, "b": "kept" * 30, "c": 1}, "the older branch, gone on")
    same(_values(s, after_right), {"a": "right" * 30, "b": "kept" * 30, "c": 2}, "the newer branch, gone on")


# ---- put_writes


def _writes(subject: Subject, where: Any) -> list[Any]:
    return [*(present(subject.get_tuple(where), "get_tuple").pending_writes or ())]


@check("base")
def writes_survive(s: Subject) -> None:
    """Writes come back as (task id, channel, value), each once, also those of several tasks to one channel
    (A9.18-22, 35)."""
    where = Line(s).put({"a": 1})
    true(_writes(s, where) == [], "a new checkpoint has pending writes")
    s.put_writes(where, [("a", {"x": [1, None]}), ("b", b"\x00"), ("c", None)], "task-1")
    s.put_writes(where, [("a", "other")], "task-2")
    found = _writes(s, where)
    true(all(type(write) is tuple and len(write) == 3 for write in found), f"not all triples: {found!r}")
    by_task = {task: [write[1:] for write in found if write[0] == task] for task in ("task-1", "task-2")}
    same(by_task["task-1"], [("a", {"x": [1, None]}), ("b", b"\x00"), ("c", None)], "writes of the first task")
    same(by_task["task-2"], [("a", "other")], "writes of the second task")
    same(len(found), 4, "number of writes")


@check("base")
def task_path_is_accepted(s: Subject) -> None:
    """`put_writes(..., task_path=)` stores the write, if the saver has that parameter at all (A9.23, amendments A48)."""
    where = Line(s).put({"a": 1})
    try:
        s.put_writes(where, [("a", 1)], "task", task_path="~__pregel_pull, n")
    except TypeError as refusal:
        if "task_path" in str(refusal):
            raise Skipped("put_writes has no parameter task_path") from None
        raise
    same(_writes(s, where), [("task", "a", 1)], "writes")


@check("base")
def repeated_writes_are_stored_once(s: Subject) -> None:
    """The same `put_writes` call again changes nothing (A9.24)."""
    where = Line(s).put({"a": 1})
    for _ in range(3):
        s.put_writes(where, [("a", 1), ("b", 2)], "task")
    same(_writes(s, where), [("task", "a", 1), ("task", "b", 2)], "writes after three equal calls")


@check("base")
def special_writes_survive(s: Subject) -> None:
    """Writes to `__error__` and `__interrupt__` of one call are both stored with their values (A9.25)."""
    where = Line(s).put({"a": 1})
    s.put_writes(where, [("__error__", "went wrong"), ("__interrupt__", ["question"])], "task")
    found = {channel: value for _, channel, value in _writes(s, where)}
    same(found, {"__error__": "went wrong", "__interrupt__": ["question"]}, "special writes")


@check("base")
def writes_belong_to_one_checkpoint(s: Subject) -> None:
    """Writes are those of one checkpoint in one namespace of one thread; a child starts without (A9.26, 27)."""
    shared = "1f000000-0000-6000-8000-000000000007"
    root, child, other = Line(s), Line(s, ns="child"), Line(s, "u")
    places = [line.put({"a": 1}, id=shared) for line in (root, child, other)]
    s.put_writes(places[0], [("a", "root")], "task")
    s.put_writes(places[1], [("a", "child")], "task")
    same(_writes(s, places[0]), [("task", "a", "root")], "writes at the root")
    same(_writes(s, places[1]), [("task", "a", "child")], "writes of the child namespace")
    same(_writes(s, places[2]), [], "writes of another thread")
    following = root.put({"a": 2})
    same(_writes(s, following), [], "writes of the following checkpoint")
    same(_writes(s, places[0]), [("task", "a", "root")], "writes after the following checkpoint")


# ---- get_tuple


@check("base")
def missing_things_are_none(s: Subject) -> None:
    """`get_tuple` of an unknown thread or id is None, and looking creates nothing (A9.28, 37)."""
    true(s.get_tuple(config("nobody")) is None, "an unknown thread holds something")
    true(s.get_tuple(config("nobody", "", ids.checkpoint_id(0))) is None, "an unknown thread has a checkpoint by id")
    line = Line(s)
    where = line.put({"a": 1})
    true(s.get_tuple(config("t", "", ids.checkpoint_id(0))) is None, "an unknown id is found")
    true(s.get_tuple(config("t", "", id_of(where)[:-1])) is None, "a part of an id is found")
    same(_ids(s.list(config("nobody"))), [], "listing of an unknown thread")


@check("base")
def newest_without_an_id(s: Subject) -> None:
    """Without an id, `get_tuple` finds the newest; with an id, exactly that one (A9.29, 30)."""
    line = Line(s)
    made = []
    for n in range(4):
        made.append(line.put({"n": n}))
        same(_values(s, config("t", "")), {"n": n}, f"newest after {n + 1} puts")
    for n, where in enumerate(made):
        same(_values(s, where), {"n": n}, f"checkpoint {n} by id")


@check("base")
def fields_of_a_tuple(s: Subject) -> None:
    """A tuple has config, checkpoint with v, ts, values and versions, metadata, parent and writes (A9.31, 32)."""
    where = Line(s).put({"a": 1})
    for asked in (config("t", ""), where):
        found = present(s.get_tuple(asked), "get_tuple")
        given = found.config["configurable"]
        same(
            {key: given.get(key) for key in ("thread_id", "checkpoint_ns", "checkpoint_id")},
            where["configurable"],
            "config of the tuple",
        )
        same(found.checkpoint["v"], 1, "v")
        same(found.checkpoint["ts"], "2026-01-02T03:04:05.000006+00:00", "ts")
        same(set(found.checkpoint["channel_versions"]), {"a"}, "channels with a version")


# ---- list


@check("base")
def list_shows_all_newest_first(s: Subject) -> None:
    """`list` shows all checkpoints of a thread's namespace, newest first, and those of nobody else
    (A9.38-41, 53)."""
    line, child, other = Line(s), Line(s, ns="child"), Line(s, "u")
    made = [line.put({"n": n}) for n in range(5)]
    at_child = child.put({"n": "child"})
    other.put({"n": "other"})
    newest_first = [id_of(where) for where in reversed(made)]
    found = s.list(config("t", ""))
    same(_ids(found), newest_first, "listing of the root namespace")
    same([entry.checkpoint["channel_values"]["n"] for entry in found], [4, 3, 2, 1, 0], "values in the listing")
    same([id_of(entry.config) for entry in found], newest_first, "configs in the listing")
    same(_ids(s.list(config("t", "child"))), [id_of(at_child)], "listing of the child namespace")
    same(_ids(s.list(config("nobody", ""))), [], "listing of an unknown thread")


@check("base", "filter")
def list_filters_by_metadata(s: Subject) -> None:
    """`filter` means equality of metadata on every key, source, step and keys of the program's own
    (A9.42-46, 50, 51)."""
    line, other = Line(s), Line(s, "u")
    made = [
        line.put({"n": n}, metadata={"source": source, "step": n, "parents": {}, "who": who})
        for n, (source, who) in enumerate([("input", "x"), ("loop", "x"), ("loop", "y"), ("update", "y")])
    ]
    other.put({"n": 0}, metadata={"source": "loop", "step": 1, "parents": {}, "who": "x"})
    for wanted, positions in (
        ({"source": "loop"}, [2, 1]),
        ({"step": 3}, [3]),
        ({"source": "loop", "who": "x"}, [1]),
        ({"who": "y"}, [3, 2]),
        ({"source": "fork"}, []),
        ({"who": "z"}, []),
        ({}, [3, 2, 1, 0]),
    ):
        found = _ids(s.list(config("t", ""), filter=wanted))
        same(found, [id_of(made[n]) for n in positions], f"filter {wanted}")
    same(_ids(s.list(config("nobody", ""), filter={"source": "loop"})), [], "filter on an unknown thread")
    oldest_fit = s.list(config("t", ""), filter={"who": "x"}, limit=1)
    same(_ids(oldest_fit), [id_of(made[1])], "a filter that the newest do not fit, with limit 1")


@check("base")
def list_before(s: Subject) -> None:
    """`before` leaves out the named checkpoint and everything newer; with `limit`, the next older ones follow
    (A9.47, 49)."""
    line = Line(s)
    made = [id_of(line.put({"n": n})) for n in range(5)]
    same(_ids(s.list(config("t", ""), before=config("t", "", made[3]))), made[2::-1], "before the fourth")
    same(_ids(s.list(config("t", ""), before=config("t", "", made[0]))), [], "before the first")
    same(_ids(s.list(config("t", ""), before=config("t", "", made[3]), limit=1)), [made[2]], "before, limit 1")


@check("base")
def list_limit(s: Subject) -> None:
    """`limit` is the greatest number of checkpoints shown, the newest first (A9.48)."""
    line = Line(s)
    made = [id_of(line.put({"n": n})) for n in range(6)]
    for limit in (1, 2, 6, 100):
        same(_ids(s.list(config("t", ""), limit=limit)), made[::-1][:limit], f"limit {limit}")


@check("base")
def list_includes_writes(s: Subject) -> None:
    """Listed checkpoints come with their pending writes and parents (A9.52)."""
    line = Line(s)
    first, second = line.put({"a": 1}), line.put({"a": 2})
    s.put_writes(first, [("a", 7)], "task")
    found = {entry.checkpoint["id"]: entry for entry in s.list(config("t", ""))}
    same([*found[id_of(first)].pending_writes], [("task", "a", 7)], "writes of the first")
    same([*(found[id_of(second)].pending_writes or ())], [], "writes of the second")
    same(id_of(found[id_of(second)].parent_config), id_of(first), "parent of the second")


# ---- delete_thread


@check("base", "delete_thread")
def delete_thread_removes_everything(s: Subject) -> None:
    """`delete_thread` removes all namespaces with their writes, leaves other threads alone, and takes unknown ids
    (A9.54-58)."""
    shared = "1f000000-0000-6000-8000-000000000009"
    for thread in ("t", "u"):
        where = Line(s, thread).put({"a": "x" * 100}, id=shared)
        s.put_writes(where, [("a", 1)], "task")
        Line(s, thread, "child").put({"b": thread})
    s.delete_thread("t")
    for gone in (config("t", ""), config("t", "child"), config("t", "", shared)):
        true(s.get_tuple(gone) is None, f"{gone['configurable']} is there after delete_thread")
        same(_ids(s.list(gone)), [], "listing after delete_thread")
    same(_values(s, config("u", "")), {"a": "x" * 100}, "the other thread's values")
    same(_writes(s, config("u", "")), [("task", "a", 1)], "the other thread's writes")
    same(_values(s, config("u", "child")), {"b": "u"}, "the other thread's child")
    s.delete_thread("nobody")
    # Made again under the same ids, it has nothing of the old one.
    again = Line(s).put({"c": 1}, id=shared)
    same(_values(s, again), {"c": 1}, "values after the thread was made again")
    same(_writes(s, again), [], "writes after the thread was made again")
