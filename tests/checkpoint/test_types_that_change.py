"""Stored values whose class was removed, renamed, changed or defined again: what savers say, and what they keep."""

import enum
import sys
from dataclasses import dataclass, field, make_dataclass
from typing import Any

import pydantic
import pytest

from checkpoint import registry
from checkpoint.base import UnknownTypeError, UnregisteredTypeError
from checkpoint.memory import InMemorySaver
from checkpoint.serde.base import ChangedTypeError, Opaque
from checkpoint.serde.msgpack import Serde
from checkpoint.sqlite import SqliteSaver
from tests.checkpoint.runs import ScriptedRun, Store, config


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    with InMemorySaver() if request.param == "memory" else SqliteSaver(tmp_path / "threads.sqlite") as saver:
        yield Store(saver, False)


@pytest.fixture
def notebook(monkeypatch):
    """A module whose classes come and go, and whose names are forgotten afterwards."""
    module = type(sys)("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", module)
    yield module
    for name in [name for name in registry._by_name if name.startswith("a_notebook:")]:
        del registry._by_name[name]


def define(notebook, cls, name=None, *, register=True, aliases=()):
    cls.__module__, cls.__qualname__ = "a_notebook", name or cls.__name__
    setattr(notebook, cls.__qualname__, cls)
    return registry.register(cls, aliases=aliases) if register else cls


def forget(notebook, name):
    delattr(notebook, name)
    registry._by_name.pop(f"a_notebook:{name}", None)


def test_a_removed_class(store, notebook):
    thing = define(notebook, make_dataclass("Thing", ["x"]))
    run = ScriptedRun(store)
    run.step({"plain": 1, "kept": [thing((1, 2)), thing("y" * 100)]})
    run.tasks(run.task("task", [("kept", thing(3))]))
    forget(notebook, "Thing")
    for read in (store.get_tuple, store.load):
        with pytest.raises(UnknownTypeError) as caught:
            read(config())
        assert (caught.value.name, caught.value.channel) == ("a_notebook:Thing", "kept")
        assert "register" in str(caught.value)
    # Tools see the rest, and what they store again is the same to the byte.
    (listed,) = store.list(config())
    assert listed.checkpoint["channel_values"]["plain"] == 1
    kept = listed.checkpoint["channel_values"]["kept"]
    assert [type(value) for value in kept] == [Opaque, Opaque]
    assert kept[0].payload == {"x": (1, 2)}
    store.put(config("copy", ""), listed.checkpoint, listed.metadata, listed.checkpoint["channel_versions"])
    store.put_writes(
        config("copy", "", listed.checkpoint["id"]),
        [(channel, value) for _, channel, value in listed.pending_writes],
        "t",
    )
    again = define(notebook, make_dataclass("Thing", ["x"]))
    for thread_id in ("t", "copy"):
        found = store.get_tuple(config(thread_id))
        assert found.checkpoint["channel_values"]["kept"] == [again((1, 2)), again("y" * 100)]
        assert found.pending_writes[0][2] == again(3)


def test_a_renamed_class(store, notebook):
    old = define(notebook, make_dataclass("OldName", ["x"]))
    ScriptedRun(store).step({"kept": old(1), "listed": [old("z" * 99)]})
    forget(notebook, "OldName")
    new = define(notebook, make_dataclass("NewName", ["x"]), aliases=["a_notebook:OldName"])
    values = store.get_tuple(config()).checkpoint["channel_values"]
    assert values == {"kept": new(1), "listed": [new("z" * 99)]}
    assert type(values["kept"]) is new


@pytest.mark.parametrize("register", [True, False])
def test_a_class_defined_again(store, notebook, register):
    """Running a notebook's cell twice: old instances are stored, and come back as the new class."""
    first = define(notebook, make_dataclass("Cell", ["x"]), register=register)
    run = ScriptedRun(store)
    run.step({"kept": first(1)})
    second = define(notebook, make_dataclass("Cell", ["x"]), register=register)
    assert type(store.get_tuple(config()).checkpoint["channel_values"]["kept"]) is second
    run.step({"kept": first(2)})
    assert store.get_tuple(config()).checkpoint["channel_values"]["kept"] == second(2)
    run.step({"kept": second(3)})
    assert store.get_tuple(config()).checkpoint["channel_values"]["kept"] == second(3)


class Small(pydantic.BaseModel):
    x: int


class Bigger(pydantic.BaseModel):
    x: int
    more: list[int] = [1]
    made: list[int] = pydantic.Field(default_factory=list)


class Needing(pydantic.BaseModel):
    x: int
    needed: int


class Other(pydantic.BaseModel):
    y: int = 0


@dataclass
class SmallData:
    x: int


@dataclass
class BiggerData:
    x: int
    more: list[int] = field(default_factory=list)


@dataclass
class NeedingData:
    x: int
    needed: int


@dataclass
class OtherData:
    y: int = 0


class Mood(enum.Enum):
    GOOD = 1


class Moods(enum.Enum):
    BAD = 0
    GOOD = 1


class OtherMood(enum.Enum):
    NEVER = 7


def clone(cls):
    """A class of its own with the same fields, to be named as the test likes."""
    if issubclass(cls, enum.Enum):
        return enum.Enum(cls.__name__, {member.name: member.value for member in cls})
    return type(cls.__name__, (cls,), {})


@pytest.mark.parametrize("register", [True, False])
@pytest.mark.parametrize(
    ("before", "value", "after", "expected"),
    [
        (Small, {"x": 1}, Bigger, {"x": 1, "more": [1], "made": []}),
        (SmallData, {"x": 1}, BiggerData, {"x": 1, "more": []}),
        (Small, {"x": 1}, Needing, "needed"),
        (SmallData, {"x": 1}, NeedingData, "needed"),
        (Small, {"x": 1}, Other, "x"),
        (SmallData, {"x": 1}, OtherData, "x"),
        (SmallData, {"x": 1}, Bigger, {"x": 1, "more": [1], "made": []}),
        (Mood, "GOOD", Moods, "GOOD"),
        (Mood, "GOOD", OtherMood, None),
    ],
)
def test_a_class_whose_fields_changed(store, notebook, before, value, after, expected, register):
    old = define(notebook, clone(before), "Shape", register=register)
    ScriptedRun(store).step({"kept": [old[value] if type(value) is str else old(**value)]})
    new = define(notebook, clone(after), "Shape", register=register)
    if isinstance(expected, dict):
        (back,) = store.get_tuple(config()).checkpoint["channel_values"]["kept"]
        assert type(back) is new
        assert vars(back) == expected
    elif issubclass(after, enum.Enum) and expected:
        assert store.get_tuple(config()).checkpoint["channel_values"]["kept"] == [new[expected]]
    else:
        with pytest.raises(ChangedTypeError) as caught:
            store.get_tuple(config())
        assert caught.value.channel == "kept"
        assert repr(expected or "GOOD") in str(caught.value)
        # Nothing is lost: with the old class it reads as before.
        restored = define(notebook, clone(before), "Shape", register=register)
        (back,) = store.get_tuple(config()).checkpoint["channel_values"]["kept"]
        assert type(back) is restored


def test_strict_savers_store_registered_classes_only(tmp_path, notebook):
    free = define(notebook, make_dataclass("Free", ["x"]), register=False)
    with SqliteSaver(tmp_path / "threads.sqlite") as saver:
        store = Store(saver, False)
        ScriptedRun(store).step({"kept": free(1)})
        assert store.get_tuple(config()).checkpoint["channel_values"] == {"kept": free(1)}
    with SqliteSaver(tmp_path / "threads.sqlite", serde=Serde(strict=True)) as saver:
        store = Store(saver, False)
        with pytest.raises(UnknownTypeError):
            store.get_tuple(config())
        with pytest.raises(UnregisteredTypeError):
            ScriptedRun(store, config("u")).step({"kept": free(1)})
        registry.register(free)
        assert store.get_tuple(config()).checkpoint["channel_values"] == {"kept": free(1)}
        ScriptedRun(store, config("u")).step({"kept": free(1)})


@pytest.mark.parametrize("durability", ["sync", "submit"])
def test_a_refused_value_leaves_no_trace(store, durability):
    run = ScriptedRun(store, durability=durability)
    run.step({"a": [1], "b": 1})
    good = ScriptedRun(store, durability=durability)
    for bad in (lambda: 1, [object()], {"x": (1, Any)}):
        with pytest.raises(UnregisteredTypeError) as caught:
            good.store.saver.encode(ScriptedRun(store).prepare({"a": [1, 2], "b": bad}))
        assert caught.value.channel == "b"
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Exception) as caught:
        good.store.saver.encode(ScriptedRun(store).prepare({"b": loop}))
    assert any("'b'" in note for note in caught.value.__notes__)
    good.step({"a": [1, 2]})
    good.stored[-1].check(store)
