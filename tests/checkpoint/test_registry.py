"""Names of classes: what is registered by hand, by walks, and what is found among imported modules."""

import enum
import gc
import sys
import types
import typing
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar

import pytest
from pydantic import BaseModel

from checkpoint import registry
from checkpoint.registry import lookup_class, lookup_name, name_of, register, register_codec


def fresh_class(name="Made", **fields):
    return dataclass(
        types.new_class(name, exec_body=lambda ns: ns.update({"__annotations__": fields, "__module__": __name__}))
    )


def test_register_is_a_decorator_in_every_form():
    @register
    class Plain: ...

    @register(name="tests:Named", aliases=("tests:Older", "tests:Oldest"))
    class Named: ...

    assert lookup_class(Plain) == registry.Entry(name_of(Plain), Plain)
    assert lookup_class(Named).name == "tests:Named"
    assert {lookup_name(name).cls for name in ("tests:Named", "tests:Older", "tests:Oldest")} == {Named}
    assert register(Plain) is Plain


@pytest.mark.parametrize("wrong", [3, "text", lambda: None])
def test_only_classes(wrong):
    with pytest.raises(TypeError, match="not a class"):
        register(wrong)


def test_codec_is_found_both_ways():
    class Point:
        pass

    def encode(point):
        return [1]

    def decode(plain):
        return Point()

    register_codec(Point, "tests:Codec", encode, decode)
    assert lookup_class(Point) == (entry := lookup_name("tests:Codec"))
    assert (entry.encode, entry.decode) == (encode, decode)


def test_a_walk_leaves_a_codec_alone():
    Made = fresh_class("WithCodec", x=int)
    register_codec(Made, "tests:made", lambda made: 1, lambda plain: Made(1))
    registry.register_reachable(Made)
    assert lookup_class(Made).name == "tests:made"
    assert lookup_name(name_of(Made)) is None


def test_a_name_registered_again_means_the_newer_class():
    first, second = fresh_class("Twice", x=int), fresh_class("Twice", x=int)
    register(first)
    register(second)
    assert lookup_name(name_of(first)).cls is second
    assert lookup_class(first) == registry.Entry(name_of(first), first)
    registry.register_reachable(first)
    assert lookup_name(name_of(first)).cls is first


def test_a_replaced_class_is_not_kept_alive():
    first = fresh_class("Leaky", x=int)
    register(first)
    kept = weakref.ref(first)
    register(fresh_class("Leaky", x=int))
    del first
    gc.collect()
    assert kept() is None


class Color(enum.Enum):
    RED = 1


class Shade(enum.Enum):
    DARK = 1


class Pair(NamedTuple):
    left: "Leaf"
    right: int


@dataclass
class Leaf:
    color: Color


class Inner(BaseModel):
    leaf: Optional[Leaf]  # noqa: UP045 - the old spelling is part of the test


class Model(BaseModel):
    inner: Annotated[list[Inner], "metadata"]


class Failure(Exception): ...


class State(TypedDict, total=False):
    models: dict[str, Model]
    pair: Pair | None


@dataclass
class Argument: ...


@dataclass
class Result: ...


@dataclass
class Bound: ...


Variable = TypeVar("Variable", bound=Bound)


def reducer(left: Argument, right: "Result") -> None: ...


@pytest.mark.parametrize(
    ("annotation", "reached"),
    [
        (State, {Model, Inner, Leaf, Color, Pair}),
        (list[tuple[Leaf, ...]], {Leaf, Color}),
        (Annotated[int, reducer], {Argument, Result}),
        (Callable[[Argument], Result], {Argument, Result}),
        (reducer, {Argument, Result}),
        (Literal[Shade.DARK, "text"], {Shade}),
        (NewType("Alias", Argument), {Argument}),
        (list[Variable], {Bound}),
        (type[Failure] | None, {Failure}),
        ("Unresolved", set()),
        (Any, set()),
        (None, set()),
        (enum.Enum, set()),
        (BaseModel, set()),
    ],
)
def test_reachable(monkeypatch, annotation, reached):
    monkeypatch.setattr(registry, "_by_name", {})
    monkeypatch.setattr(registry, "_by_class", weakref.WeakKeyDictionary())
    registry.register_reachable(annotation, {})
    assert {entry.cls for entry in registry._by_name.values()} == reached


def test_recursive_types_end():
    @dataclass
    class Tree:
        children: "list[Tree]"
        missing: "NotThere"  # noqa: F821

    registry.register_reachable(Tree)
    assert lookup_class(Tree) is not None


def test_module_scan_finds_what_its_globals_name_and_imports_nothing():
    module = types.ModuleType("tests_scanned")
    module.Local = fresh_class("Local", x=int)
    module.Borrowed = Failure
    module.plain = object
    module.number = 3

    def trap(name):
        raise AssertionError(name)

    module.__getattr__ = trap
    sys.modules["tests_scanned"] = module
    try:
        before = set(sys.modules)
        registry.register_module("tests_scanned")
        assert lookup_class(module.Local).cls is module.Local
        assert lookup_class(Failure).cls is Failure
        assert lookup_class(object) is None
        # A later definition under the same global name is seen by the next scan.
        module.Local = fresh_class("Local", x=int, y=int)
        registry.register_module("tests_scanned")
        assert lookup_name(name_of(module.Local)).cls is module.Local
        registry.register_module("tests_not_imported")
        assert set(sys.modules) == before
    finally:
        del sys.modules["tests_scanned"]


def test_resolving_names_runs_no_code():
    assert registry.resolve_imported(f"{__name__}:Leaf") is Leaf
    assert registry.resolve_imported("typing:Any.x.y") is None
    assert registry.resolve_imported("antigravity:x") is None
    assert registry.resolve_imported("no colon") is None
    assert registry.resolve_imported(f"{__name__}:reducer") is None
    assert "antigravity" not in sys.modules
    assert typing.get_type_hints(Leaf) == {"color": Color}


def test_nested_classes_resolve():
    assert registry.resolve_imported(f"{__name__}:Outer.Inside") is Outer.Inside


class Outer:
    class Inside(enum.Enum):
        A = 1


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        (Color, "enum"),
        (Pair, "namedtuple"),
        (Leaf, "dataclass"),
        (Model, "model"),
        (Failure, "exception"),
        (int, None),
        (BaseModel, None),
        (Outer, None),
    ],
)
def test_kinds(cls, kind):
    assert registry.kind_of(cls) == kind
