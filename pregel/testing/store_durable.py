"""The rules of stores whose items outlive them: level durable.

Decides what must be there after a store is closed, beside another one, after the process was killed, and after what is
stored was damaged. What the other process does is in `store_child`. Knows no concrete store.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Final

from checkpoint.testing.report import Skipped, present, raises, same, true
from pregel.store.base import PutOp, VersionConflictError
from pregel.testing.store_subject import NS, Letters, Subject, check

N_ACKNOWLEDGED: Final = 25
N_INCREMENTS: Final = 15


@check("durable", "reopen")
def items_outlive_their_store(s: Subject) -> None:
    """Another store over the same place has the items: values, dates, versions, what filters find, what expires."""
    s.put(NS, "k", {"n": 1, "t": (1, 2)})
    s.put(NS, "k", {"n": 2, "t": (1, 2)})
    s.put(("x", "y"), "l", {"n": 3})
    s.delete(("x", "y"), "l")
    s.put(("x", "z"), "m", {"n": 4})
    before = s.get(NS, "k")
    with s.elsewhere("else") as t:
        t.put(NS, "k", {"n": 1})
        closed = t.place
    with s.reopened() as t:
        item = present(t.get(NS, "k"), "get in another store")
        same((item.value, item.created_at, item.updated_at), (before.value, before.created_at, before.updated_at), "k")
        same(getattr(item, "version", None), getattr(before, "version", None), "version")
        same((t.list_namespaces(), t.keys((), filter={"n": 4})), ([NS, ("x", "z")], ["m"]), "namespaces, a filter")
    with s.making.opened(s.colour, closed, again=True) as t:
        same(t.keys(()), ["k"], "a store that was closed before")


@check("durable", "reopen", "ttl")
def times_to_live_outlive_their_store(s: Subject) -> None:
    """What expires does so in another store, too."""
    s.put(NS, "k", {"n": 1}, ttl=s.short)
    with s.reopened() as t:
        t.pass_time(1.5, until=lambda: t.get(NS, "k", refresh_ttl=False) is None)
        same(t.get(NS, "k"), None, "an expired item in another store")


@check("durable", "reopen", "index")
def vectors_outlive_their_store(s: Subject) -> None:
    """A search by meaning finds what another store has embedded, and embeds nothing but the query."""
    index = {"dims": 26, "embed": Letters(), "fields": ["text"]}
    with s.elsewhere(index=index) as t:
        t.put(NS, "a", {"text": "aaa"})
        t.put(NS, "b", {"text": "bbb"})
        letters = Letters()
        with t.reopened(index={**index, "embed": letters}) as u:
            same((u.keys(NS, query="b")[0], letters.texts), ("b", ["b"]), "the nearest, and what was embedded")


@check("durable", "reopen")
def stores_at_one_place_see_each_other(s: Subject) -> None:
    """What one store has put is there for another one as soon as the put has returned."""
    with s.reopened() as t:
        for n in range(5):
            one, other = (s, t) if n % 2 else (t, s)
            one.put(NS, "k", {"n": n})
            same(present(other.get(NS, "k"), "get in the other store").value, {"n": n}, "value in the other store")
            same(other.keys(NS, filter={"n": n}), ["k"], "a filter in the other store")
        s.delete(NS, "k")
        same((t.get(NS, "k"), t.list_namespaces()), (None, []), "after a deletion by the other store")


def count(s: Subject) -> None:
    """Count up an item that others count up, too."""
    for _ in range(N_INCREMENTS):
        while True:
            item = s.get(NS, "k")
            try:
                s.put(NS, "k", {"n": item.value["n"] + 1}, if_version=item.version)
                break
            except VersionConflictError:
                continue


@check("durable", "reopen", "versions")
def no_change_is_lost_between_stores(s: Subject) -> None:
    """Two stores that count up one item with `if_version`, at the same time, lose no count."""
    s.put(NS, "k", {"n": 0})
    errors: list[BaseException] = []

    def counted(t: Subject) -> None:
        try:
            count(t)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    with s.reopened() as t:
        other = threading.Thread(target=counted, args=(t,))
        other.start()
        count(s)
        other.join()
    for error in errors:
        raise error
    same(s.get(NS, "k").value, {"n": 2 * N_INCREMENTS}, "the count of two stores")


@check("durable", "reopen", "versions", once=True)
def no_change_is_lost_between_processes(s: Subject) -> None:
    """Two processes that count up one item with `if_version`, at the same time, lose no count."""
    s.put(NS, "k", {"n": 0})
    child = _child(s, "count")
    assert child.stdout is not None
    child.stdout.readline()  # it has begun
    count(s)
    child.communicate()
    same(child.returncode, 0, "exit code of the other process, whose errors are above")
    same(s.get(NS, "k").value, {"n": 2 * N_INCREMENTS}, "the count of two processes")


@check("durable", "reopen")
def nobody_sees_half_a_batch(s: Subject) -> None:
    """Another store sees all puts of a batch, or none."""
    stop = threading.Event()
    errors: list[BaseException] = []
    s.batch([PutOp(NS, key, {"n": 0}) for key in "ab"])

    def write() -> None:
        try:
            n = 0
            while not stop.is_set():
                n += 1
                s.batch([PutOp(NS, key, {"n": n}) for key in "ab"])
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    writer = threading.Thread(target=write)
    with s.reopened() as t:
        writer.start()
        try:
            for _ in range(60):
                seen = {item.value["n"] for item in t.search(NS)}
                true(len(seen) == 1, f"a search between two batches sees {seen}")
        finally:
            stop.set()
            writer.join()
    for error in errors:
        raise error


@check("durable", "reopen", once=True)
def a_killed_process_leaves_whole_batches(s: Subject) -> None:
    """Of a process that is killed while it puts, each batch that has returned is there, and each batch is whole."""
    child = _child(s, "put")
    assert child.stdout is not None
    acknowledged = -1
    for line in child.stdout:
        acknowledged = int(line)
        if acknowledged >= N_ACKNOWLEDGED:
            break
    child.kill()
    rest = child.communicate()[0].split("\n")
    acknowledged = max([acknowledged, *(int(line) for line in rest[:-1] if line)])
    true(acknowledged >= N_ACKNOWLEDGED, "the other process has ended early; its errors are above")
    with s.reopened() as t:
        found = {item.key: item.value["n"] for item in t.search(("child",), limit=-1)}
        for n in range(acknowledged + 1):
            same((found.get(f"a{n}"), found.get(f"b{n}")), (n, n), f"batch {n}, which had returned")
        for key, n in found.items():
            same((found.get(f"a{n}"), found.get(f"b{n}")), (n, n), f"the batch of {key}")
            same(t.keys(("child", key[0]), filter={"n": n}), [key], f"a filter for {key}")
        t.put(("child", "a"), "after", {"n": -1})


def _child(s: Subject, role: str) -> subprocess.Popen[str]:
    if s.making.reference is None:
        raise Skipped("no function or class of a module makes the stores: another process cannot")
    command = [sys.executable, "-m", "pregel.testing.store_child", role, s.making.reference, str(s.place), s.colour]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@check("durable", "damage", "reopen")
def damage_is_found_and_can_be_mended(s: Subject) -> None:
    """A damaged value is an error or what it was, never something else; it can be replaced and deleted, and no other item
    suffers."""
    assert s.making.damage is not None
    value = {"text": "a long text " * 30, "n": 1}
    for n, name in enumerate(s.making.damage(s.place)):
        place = s.place.with_name(f"damaged-{n}")
        with s.making.opened(s.colour, place) as t:
            t.put(NS, "k", value)
        s.making.damage(place)[name]()
        with s.making.opened(s.colour, place, again=True) as t:
            t.put(NS, "other", {"n": 2})
            with raises(Exception, f"get of an item damaged by {name!r}"):
                t.get(NS, "k")
            same(t.get(NS, "other").value, {"n": 2}, "another item")
            t.put(NS, "k", {"n": 3})
            same(t.get(NS, "k").value, {"n": 3}, "the item after it was put again")
            same((t.keys(NS, filter={"n": 1}), t.keys(NS, filter={"n": 3})), ([], ["k"]), "filters after that")
