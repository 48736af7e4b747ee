"""Which compiled graphs a node holds: itself, its steps, or what its code names (engine.md 3.8).

Decides what `get_subgraphs`, drawings with `xray` and the addressing of nested state see. Has no influence on
execution. Looks without touching: instance and class dictionaries are read, no property or `__getattr__` of the user's
runs. Knows a compiled graph only by `pregel._call.is_graph`.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any, Final

from pregel._call import is_graph, is_runnable

__all__ = ["find_subgraphs"]

_MAX_CHAIN: Final = 3
"""Attributes followed from a name: `self.agents.first.graph` is found, a longer chain is not."""

_MISSING: Final = object()


def find_subgraphs(subject: Any) -> list[Any]:
    """Compiled graphs that a callable is, holds or names, in the order in which they are found, each once.

    Follows: the object itself; the steps of a sequence; the function and arguments of a partial; closure cells, globals
    and attribute chains that a function's code names, also in functions defined inside it.
    """
    if type(subject) is types.FunctionType:
        # Most functions of a large graph name nothing but their parameters.
        code = subject.__code__
        if not code.co_freevars and not code.co_names and not any(map(_is_code, code.co_consts)):
            return []
    found: dict[int, Any] = {}
    seen: set[int] = set()
    todo = [subject]
    while todo:
        item = todo.pop(0)
        if id(item) in seen:
            continue
        seen.add(id(item))
        if is_graph(item):
            found[id(item)] = item
        else:
            todo.extend(_parts(item))
    return list(found.values())


def _is_code(constant: Any) -> bool:
    return isinstance(constant, types.CodeType)


def _parts(item: Any) -> Iterator[Any]:
    if isinstance(item, functools.partial):
        yield item.func
        yield from (a for a in (*item.args, *item.keywords.values()) if is_graph(a))
    elif isinstance(item, types.MethodType):
        yield from _named(item.__func__, item.__self__)
    elif isinstance(item, types.FunctionType):
        wrapped = getattr(item, "__wrapped__", None)
        if wrapped is not None:
            yield wrapped
        yield from _named(item, None)
    elif is_runnable(item):
        steps = getattr(item, "steps", None)
        if isinstance(steps, list):
            yield from steps
        elif isinstance(steps, dict):
            yield from steps.values()
        yield from (part for part in (getattr(item, "bound", None), getattr(item, "func", None)) if part is not None)
    elif isinstance(function := getattr(type(item), "__call__", None), types.FunctionType):  # noqa: B004
        yield from _named(function, item)


def _named(function: Any, bound: Any) -> Iterator[Any]:
    """Graphs and functions that a function's code can reach by names."""
    if not isinstance(function, types.FunctionType):
        return
    codes = [function.__code__]
    for code in codes:
        codes.extend(filter(_is_code, code.co_consts))
    names = list(dict.fromkeys(name for code in codes for name in code.co_names))
    roots: list[Any] = []
    for cell in function.__closure__ or ():
        try:
            roots.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    yield from (root for root in roots if isinstance(root, (types.FunctionType, types.MethodType, functools.partial)))
    roots.extend(function.__globals__[name] for name in names if name in function.__globals__)
    if bound is not None:
        roots.append(bound)
    seen: set[int] = set()
    for _ in range(_MAX_CHAIN + 1):
        reached: list[Any] = []
        for root in roots:
            if id(root) in seen:
                continue
            seen.add(id(root))
            if is_graph(root):
                yield root
            else:
                reached.extend(_attributes(root, names))
        roots = reached


def _attributes(owner: Any, names: list[str]) -> Iterator[Any]:
    if isinstance(owner, (str, bytes, int, float, list, tuple, dict, set, types.BuiltinFunctionType)):
        return
    try:
        own = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        own = {}
    for name in names:
        value = own.get(name, _MISSING)
        if value is _MISSING and not isinstance(owner, types.ModuleType):
            for base in type(owner).__mro__:
                if name in vars(base):
                    value = vars(base)[name]
                    break
        if value is not _MISSING:
            yield value
