"""Keys of entries: equal in every process, different for different code and input."""

import collections
import datetime
import decimal
import enum
import functools
import gc
import os
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pydantic
import pytest

from pregel.cache import keys
from pregel.cache.keys import identity_of, key_of, namespace_of
from pregel.messages import Message
from pregel.types import Send

NOBODY = keys.Identity(b"", False)
ROOT = Path(__file__).resolve().parents[2]


def key(value: Any) -> str:
    return key_of("node 'n'", NOBODY, None, (value,), {})


def identity(subject: Any, *, explicit: bool = False) -> keys.Identity:
    return identity_of([subject], explicit=explicit)


class Model(pydantic.BaseModel):
    n: int = 1
    tags: set[str] = pydantic.Field(default_factory=set)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Pair(NamedTuple):
    one: int
    two: int


@dataclass
class Point:
    x: int
    y: int = 0


class Slotted:
    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        self.n = n


VALUES: list[list[Any]] = [
    [None, False, 0, 0.0, -0.0, "", b"", (), [], {}, set(), frozenset()],
    [1, 2, 2**70, -1, True, 1.0, "1", b"1", "\ud800", float("nan"), float("inf")],
    [(1, 2), [1, 2], {1, 2}, {1: 2}, (1, (2,)), ((1,), 2), [[1], 2], [[1, 2]], Pair(1, 2), frozenset({1, 2})],
    [Point(1), Point(1, 2), Slotted(1), Slotted(2), Model(n=2), Model(n=1), Model(tags={"a"})],
    [Colour.RED, Colour.BLUE, Colour],
    [Send("n", 1), Send("m", 1), Send("n", 2)],
    [Message(role="user", content="a"), Message(role="user", content="b"), {"role": "user", "content": "a"}],
    [datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1), decimal.Decimal("1.0"), decimal.Decimal("1.00")],
    [uuid.UUID(int=1), uuid.UUID(int=2), Path("a"), Path("b"), range(3), range(4), 1j],
    [numpy.arange(4), numpy.arange(4.0), numpy.arange(4).reshape(2, 2), numpy.arange(5)],
    [collections.Counter("ab"), collections.OrderedDict(a=1, b=1), collections.deque("ab"), collections.deque("ab", 5)],
]


@pytest.mark.parametrize("values", VALUES, ids=lambda values: type(values[0]).__name__)
def test_different_values_have_different_keys(values: list[Any]) -> None:
    found = [key(value) for value in values]
    assert len(set(found)) == len(values)
    assert [key(value) for value in values] == found
    assert all(len(text) == 32 for text in found)


def test_content_counts_and_nothing_else() -> None:
    shared = [1]
    assert key([shared, shared]) == key([[1], [1]])
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
    assert key(Model(n=1)) == key(Model())
    assert key(Point(1)) == key(Point(1, 0))
    assert key(Pair(1, 2)) != key((1, 2))
    nested: Any = "x"
    for _ in range(50):
        nested = [nested]
    assert key(nested) != key([nested])


def deep(n: int) -> Any:
    value: Any = 1
    for _ in range(n):
        value = {"k": value}
    return value


UNFIT: dict[str, tuple[Any, str]] = {
    "lock": ({"a": [threading.Lock()]}, "its input['a'][0]"),
    "attribute": (Point(threading.Lock(), 1), "its input.x"),  # type: ignore[arg-type]
    "key": ({("k", 1): (n for n in "a")}, "its input[('k', 1)]"),
    "depth": (deep(500), "its input['k']['k']"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_has_no_content_is_named(name: str) -> None:
    value, place = UNFIT[name]
    with pytest.raises(TypeError) as caught:
        key(value)
    assert place in str(caught.value)
    assert "node 'n'" in str(caught.value)


def test_several_arguments() -> None:
    def of(*given: Any, **more: Any) -> str:
        return key_of("task", NOBODY, None, given, more)

    texts = [of(1), of(1, 2), of((1, 2)), of(1, b=2), of(1, c=2), of(b=2, a=1), of()]
    assert len(set(texts)) == len(texts)
    assert of(b=2, a=1) == of(a=1, b=2)
    assert key_of("task", NOBODY, lambda a, b: f"{a}{b}", (1,), {"b": 2}) == key_of(
        "t", NOBODY, lambda x: "12", (0,), {}
    )


# ---- functions


def plain(state: Any) -> Any:
    return state


def recursive(calls: Any) -> Any:
    def act(state: Any) -> Any:
        return act(state) if calls else state

    return act


def test_a_function_is_the_same_whenever_it_is_made() -> None:
    for make in (
        lambda: plain,
        lambda: recursive(3),
        lambda: functools.partial(plain, 1),
        lambda: functools.cache(plain),
    ):
        one, other = identity(make()), identity(make())
        assert one == other
        assert not one.is_local
    assert identity(recursive(3)) != identity(recursive(4))
    assert identity(functools.cache(plain)) != identity(functools.cache(recursive))


def test_what_changes_counts_as_it_was_met_first() -> None:
    calls: list[int] = []
    first = identity(recursive(calls))
    calls.append(1)
    assert identity(recursive(calls)) == first
    assert identity(recursive([1])) != first
    assert identity(recursive([])) == first


def test_what_has_no_content_counts_as_itself() -> None:
    lock, other = threading.Event(), threading.Event()
    first = identity(recursive(lock))
    assert first.is_local
    assert identity(recursive(lock)) == first != identity(recursive(other))
    keyed = identity(recursive(lock), explicit=True)
    assert keyed == identity(recursive(other), explicit=True)
    assert not keyed.is_local


def test_nothing_is_remembered_for_ever() -> None:
    keys._first.clear()
    keys._held.clear()
    thing = Slotted(1)
    watched = Point(1)
    identity(recursive(watched))
    assert keys._met(watched, False) is not None
    del watched
    gc.collect()
    assert not keys._first
    for n in range(keys.MAX_HELD + 50):
        identity(recursive([n]))
    assert len(keys._first) == len(keys._held) == keys.MAX_HELD
    identity(recursive(thing))


def test_namespaces() -> None:
    assert namespace_of("n", plain)[0] == "__pregel_ns_writes"
    assert namespace_of("n", plain)[1].endswith("test_keys.plain")
    assert namespace_of("n", functools.partial(plain, 1)) == namespace_of("n", plain)
    assert namespace_of("n", plain) != namespace_of("m", plain)
    assert namespace_of("n", Slotted(1))[1] == "__dynamic__"
    one, other = namespace_of("n", lambda state: 1), namespace_of("n", lambda state: 2)
    assert one != other
    assert namespace_of("n", recursive(1)) == namespace_of("n", recursive(2))


PROGRAM = """
from dataclasses import dataclass
from pregel.cache import keys
@dataclass(frozen=True)
class Settings:
    names: frozenset
def make(settings):
    def act(state, known={"x", "y", "z"}):
        return state in {"a", "b", "c", "d"} or settings
    return act
made = keys.identity_of([make(Settings(frozenset("pqrst")))], explicit=False)
text = keys.key_of("n", made, None, ({"k": set("abcdef"), "o": Settings(frozenset("uvw"))},), {})
print(made.is_local, text, keys.namespace_of("n", make(1)))
"""


def test_other_processes_make_the_same_keys() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert outputs.pop().startswith("False ")


def test_what_another_thread_changes_meanwhile_counts_as_itself() -> None:
    class Restless(dict[Any, Any]):
        def items(self) -> Any:
            for item in super().items():
                self[len(self)] = 1
                yield item

        def __reduce_ex__(self, protocol: Any) -> Any:
            return Restless, (), None, None, self.items()

    held = Restless(a=1)
    first = identity(recursive(held))
    assert first.is_local
    assert identity(recursive(held)) == first


class Client:
    pass


def test_what_would_make_a_copy_of_itself_counts_as_itself() -> None:
    class Weights:
        def __reduce__(self) -> Any:
            raise AssertionError("nobody asks")

    assert identity(recursive(Weights())).is_local
    for array, is_local in ((numpy.arange(10), False), (numpy.zeros(10**6), True), (numpy.array([Client]), True)):
        assert identity(recursive(array)).is_local == is_local
    for light in (
        Model(),
        Colour.RED,
        Point(1),
        Pair(1, 2),
        datetime.date(2026, 1, 1),
        collections.deque("a"),
        Path("a"),
    ):
        assert not identity(recursive(light)).is_local, light


def test_threads_that_meet_many_things_at_once() -> None:
    errors: list[BaseException] = []

    def meet(me: int) -> None:
        try:
            for n in range(keys.MAX_HELD):
                identity(recursive([me, n]))
        except BaseException as error:  # noqa: BLE001 - asserted below
            errors.append(error)

    threads = [threading.Thread(target=meet, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(keys._held) <= keys.MAX_HELD
