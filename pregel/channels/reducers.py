"""What can be told of a reducer before it runs: does it leave the elements of what it merges as they are?

A saver that stores what is new of a list or dict takes an element that stands where it stood for unchanged. A reducer
that edits the elements it is given (`old[i].update(...)`) and returns another list would be believed wrongly. So a
reducer is trusted only if it is one that is known, or if its code consists of nothing but instructions that put values
together; whatever is not known to be one is taken for one that edits, which costs time and never a value.

Decides nothing about values. Source of the idea: purity by a list of harmless instructions, as optimisers have it.
"""

from __future__ import annotations

import builtins
import operator
from opcode import opname
from types import CodeType, FunctionType
from typing import Any, Final, cast

__all__ = ["keeps_elements"]

KNOWN: Final = (operator.add, operator.concat, operator.or_)
MAKERS: Final = frozenset({"list", "dict", "tuple", "len"})
"""Builtins that a trusted reducer may call: they read containers and no elements."""
N_BINARY: Final = 13
"""Arguments of BINARY_OP from here on are the in-place operators, which may change what they are given."""
HARMLESS: Final = frozenset(
    {
        "CACHE",
        "RESUME",
        "NOP",
        "NOT_TAKEN",
        "POP_TOP",
        "COPY",
        "SWAP",
        "PUSH_NULL",
        "TO_BOOL",
        "RETURN_VALUE",
        "RETURN_CONST",
        "LOAD_FAST",
        "LOAD_FAST_CHECK",
        "LOAD_FAST_LOAD_FAST",
        "LOAD_FAST_BORROW",
        "LOAD_FAST_BORROW_LOAD_FAST_BORROW",
        "LOAD_CONST",
        "LOAD_SMALL_INT",
        "STORE_FAST",
        "STORE_FAST_LOAD_FAST",
        "BUILD_LIST",
        "BUILD_TUPLE",
        "BUILD_MAP",
        "LIST_EXTEND",
        "LIST_TO_TUPLE",
        "DICT_UPDATE",
        "DICT_MERGE",
        "BUILD_SLICE",
        "BINARY_SLICE",
        "IS_OP",
        "COMPARE_OP",
        "UNARY_NOT",
        "UNARY_NEGATIVE",
        "JUMP_FORWARD",
        "JUMP_IF_TRUE_OR_POP",
        "JUMP_IF_FALSE_OR_POP",
        "POP_JUMP_IF_TRUE",
        "POP_JUMP_IF_FALSE",
        "POP_JUMP_IF_NONE",
        "POP_JUMP_IF_NOT_NONE",
        "POP_JUMP_FORWARD_IF_TRUE",
        "POP_JUMP_FORWARD_IF_FALSE",
        "POP_JUMP_FORWARD_IF_NONE",
        "POP_JUMP_FORWARD_IF_NOT_NONE",
        "PRECALL",
        "CALL",
    }
)


def keeps_elements(reducer: Any) -> bool:
    """Does `reducer(old, new)` surely edit no element of a list or dict that it is given?

    True for `operator.add`, `operator.concat`, `operator.or_`, `add_messages`, and functions of two parameters whose code
    can do nothing but put them together: `lambda a, b: (a or []) + b`, `{**a, **b}`, `list(a) + list(b)`.
    """
    if any(reducer is one for one in KNOWN):
        return True
    if getattr(getattr(reducer, "func", reducer), "takes_messages", False) is True:
        return True
    return type(reducer) is FunctionType and _only_combines(reducer)


def _only_combines(function: FunctionType) -> bool:
    code = function.__code__
    # A third parameter, a cell or a global could be a function that edits.
    if code.co_argcount != 2 or code.co_kwonlyargcount or code.co_flags & 0x2C or code.co_freevars or code.co_cellvars:
        return False
    n_loaded = n_called = 0
    before = ""
    raw = code.co_code
    for number, argument in zip(raw[::2], raw[1::2], strict=True):
        name = opname[number]
        if name == "LOAD_GLOBAL":
            if not argument & 1 or not _is_maker(function, code, argument >> 1):
                return False
            n_loaded += 1
        elif name == "CALL":
            n_called += 1
        elif name == "BINARY_OP":
            if argument >= N_BINARY:
                return False
        elif name == "BINARY_SUBSCR":
            # A part of a list; an element may be made by reading it.
            if before != "BUILD_SLICE":
                return False
        elif name not in HARMLESS:
            return False
        before = name
    return n_loaded == n_called  # anything else that is called is a parameter


def _is_maker(function: FunctionType, code: CodeType, index: int) -> bool:
    name = code.co_names[index]
    return (
        name in MAKERS
        and name not in function.__globals__
        and cast("Any", function).__builtins__.get(name) is vars(builtins)[name]
    )
