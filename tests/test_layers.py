"""Who may import whom (design.md D37), who may not touch the world (style.md 6.2 R1), and that there is no cycle.

Every `import` statement of every module counts: at the top, deferred into a function, or for type checking only.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("checkpoint", "pregel")

# Layer by layer, upwards. A module belongs to the longest prefix that is listed; it may import its own entry and what
# the entry names. `pregel.engine` is the core without the drivers.
BASE = tuple(f"checkpoint.{name}" for name in ("registry", "base", "ids", "adapter", "holders", "files", "turns"))
TOOLS = ("scan", "verify", "stats", "repair", "export", "peek")
ROWS = (
    "encryption",
    "rewrap",
    "headers",
    "mapped",
    "deltas",
    "chains",
    "retention",
    "rows",
    "forks",
    "listing",
    "row_saver",
    "workers",
    "memory",
    "sqlite",
)
STORAGE = tuple(f"checkpoint.{name}" for name in (*ROWS, *TOOLS))
COMMANDS = ("checkpoint.cli", "checkpoint.__main__")
WORDS = tuple(
    f"pregel.{name}"
    for name in (
        "constants",
        "errors",
        "_scope",
        "_call",
        "_subgraphs",
        "_policies",
        "_langchain",
        "types",
        "_typed",
        "warnings",
        "messages",
        "tokens",
    )
)
PARTS = tuple(
    f"pregel.{name}"
    for name in (
        "channels",
        "managed",
        "callbacks",
        "otel",
        "typing",
        "utils",
        "runtime",
        "_signals",
        "config",
        "drawing",
        "explanation",
    )
)
KEEPERS = ("pregel.store", "pregel.cache")
DRIVERS = tuple(
    f"pregel.engine.{name}"
    for name in (
        "workers",
        "once",
        "flights",
        "inbox",
        "driver",
        "sync_storing",
        "async_storing",
        "sync_driver",
        "async_driver",
    )
)
FACE = (
    "pregel.pending",
    *(
        f"pregel.pregel.{name}"
        for name in (
            "_turns",
            "_stream",
            "_graph",
            "_validation",
            "_node",
            "_places",
            "_runtime",
            "_request",
            "_start",
            "_delivery",
            "_runs",
            "_abatch",
            "_batch",
            "_state_api",
            "_explain",
            "_threads",
            "_jsonschema",
            "_description",
        )
    ),
    "pregel.pregel",
)
FRONT = (*WORDS, *PARTS, *KEEPERS, "checkpoint.registry", "checkpoint.base", "pregel.pregel")

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(BASE, BASE),
    "checkpoint.serde": BASE,
    **dict.fromkeys(STORAGE, (*BASE, "checkpoint.serde", *STORAGE)),
    **dict.fromkeys(COMMANDS, (*BASE, "checkpoint.serde", *STORAGE, *COMMANDS)),
    "checkpoint.compat": (*BASE, "checkpoint.serde", *STORAGE),
    "checkpoint.testing": (*BASE, "checkpoint.workers"),
    "checkpoint.testing.faults": (*BASE, "checkpoint.testing", "checkpoint.sqlite"),
    "checkpoint": (*BASE, "checkpoint.serde", *STORAGE),
    **dict.fromkeys(WORDS, (*BASE, *WORDS)),
    **dict.fromkeys(PARTS, (*BASE, *WORDS, *PARTS, *KEEPERS)),
    # The threads of savers serve a store's async methods as well: they know nothing of what they call.
    **dict.fromkeys(KEEPERS, (*BASE, "checkpoint.serde", "checkpoint.workers", *WORDS)),
    "pregel.engine": (*BASE, *WORDS, *PARTS),
    **dict.fromkeys(DRIVERS, (*BASE, *WORDS, *PARTS, *KEEPERS, *DRIVERS, "pregel.engine")),
    # Who waits for a result that another body computes, waits as savers and caches do.
    "pregel.engine.flights": (*BASE, *WORDS, *PARTS, *KEEPERS, *DRIVERS, "pregel.engine", "checkpoint.workers"),
    **dict.fromkeys(FACE, (*BASE, *WORDS, *PARTS, *KEEPERS, *DRIVERS, "pregel.engine", *FACE)),
    "pregel.graph": FRONT,
    "pregel.func": FRONT,
    # Kits know the contracts they check, and no implementation.
    "pregel.testing": (*BASE, *WORDS, *KEEPERS, "checkpoint.testing", "checkpoint.workers"),
    "pregel": (*FRONT, "pregel.graph", "pregel.func"),
    "pregel.demo": (*FRONT, "pregel.graph", *STORAGE),
    "pregel.__main__": ("pregel.demo",),
}

# The places that import late (D36): module -> what it may import inside a function. JSON schemas and answers of a type
# are two more: only they need pydantic, and only when asked for. Pictures, the state API and keys of caches are what most
# runs never ask for. Spelling is another: only who made a mistake needs it.
LAZY_DOORS = {
    "pregel.types": {"pregel._typed"},
    "pregel.runtime": {"pregel._signals"},
    "pregel.graph.compile": {"pregel.drawing.draw", "pregel.graph.jsonschema"},
    "pregel.drawing.draw": {"pregel.drawing.svg"},
    "pregel.pregel.main": {"pregel.cache.keys"},
    "pregel.pregel._batch": {"pregel.pregel._abatch"},
    "pregel.pregel._description": {"pregel.drawing.draw", "pregel.pregel._jsonschema"},
    "pregel.pregel._request": {"pregel.engine.flights"},
    "pregel.pregel._runs": {"pregel.engine.async_driver"},
    "pregel.pregel._threads": {"pregel.engine.inbox", "pregel.pregel._explain", "pregel.pregel._state_api"},
    "pregel.func": {"pregel.cache.keys"},
    "pregel.engine.workers": {"concurrent.futures"},
    "pregel.errors": {"difflib"},
    "checkpoint": {"checkpoint.sqlite"},
}

STANDARD = sys.stdlib_module_names | {"annotationlib"}  # the latter from Python 3.14 on
OUTSIDE_WORLD = {"asyncio", "threading", "concurrent", "time", "random", "uuid", "os", "logging", "sqlite3"}


def modules() -> dict[str, ast.Module]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(), str(path))
    return found


MODULES = modules()
IS_PACKAGE = {name for name in MODULES if (ROOT / name.replace(".", "/")).is_dir()}


def resolve(base: str, alias: str) -> str:
    """`from base import alias` names a module if there is one, else a name in `base`."""
    return f"{base}.{alias}" if f"{base}.{alias}" in MODULES else base


def imports_of(name: str, tree: ast.AST) -> list[tuple[str, int]]:
    """All imported modules with their lines."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                keep = len(parts) - node.level + (name in IS_PACKAGE)
                base = ".".join([*parts[:keep], *([base] if base else [])])
            found += [(resolve(base, alias.name), node.lineno) for alias in node.names]
    return found


def entry_of(name: str) -> str:
    """The entry of the table that speaks for a module."""
    while name not in MAY_IMPORT:
        name = name.rpartition(".")[0]
        assert name, "a module without a layer"
    return name


def is_ours(name: str) -> bool:
    return name.split(".")[0] in PACKAGES


def test_there_is_something_to_check():
    assert {"checkpoint.base", "pregel.types", "pregel.engine.core", "pregel.graph.state"} <= MODULES.keys()


@pytest.mark.parametrize("name", MODULES)
def test_layers(name):
    mine = entry_of(name)
    allowed = {mine, *MAY_IMPORT[mine]}
    wrong = [
        f"line {line}: {target}"
        for target, line in imports_of(name, MODULES[name])
        if is_ours(target) and entry_of(target) not in allowed
    ]
    assert not wrong, f"{name} ({mine}) may not import {wrong}"


@pytest.mark.parametrize("name", [name for name in MODULES if entry_of(name) == "pregel.engine"])
def test_the_core_touches_nothing_outside(name):
    touched = {target.split(".")[0] for target, _ in imports_of(name, MODULES[name])} & OUTSIDE_WORLD
    assert not touched


@pytest.mark.parametrize("name", MODULES)
def test_imports_stand_at_the_top_except_for_the_doors(name):
    top = {id(node) for node in top_level(MODULES[name])}
    late = {
        target
        for node in ast.walk(MODULES[name])
        if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in top
        for target, _ in imports_of(name, node)
    }
    assert late <= LAZY_DOORS.get(name, set())


def top_level(tree: ast.Module) -> list[ast.stmt]:
    """Statements of the module itself, also under `if` and `try`."""
    found, waiting = [], list(tree.body)
    while waiting:
        node = waiting.pop()
        found.append(node)
        if isinstance(node, (ast.If, ast.Try)):
            waiting += [*node.body, *node.orelse, *getattr(node, "finalbody", [])]
            waiting += [statement for handler in getattr(node, "handlers", []) for statement in handler.body]
    return found


def test_no_cycles():
    edges = {
        name: {target for target, _ in imports_of(name, tree) if target in MODULES and target != name}
        for name, tree in MODULES.items()
    }
    # the doors are there to break the order of loading; they point downwards all the same
    done: set[str] = set()
    for root in edges:
        path: list[str] = []
        search(root, edges, path, done)


def search(name: str, edges: dict[str, set[str]], path: list[str], done: set[str]) -> None:
    assert name not in path, f"import cycle: {' -> '.join([*path[path.index(name) :], name])}"
    if name in done:
        return
    path.append(name)
    for target in sorted(edges[name]):
        search(target, edges, path, done)
    path.pop()
    done.add(name)


def test_third_parties_stay_where_they_are_needed():
    allowed = {
        "checkpoint": {"typing_extensions"},
        "checkpoint.headers": {"typing_extensions", "ormsgpack"},
        "checkpoint.encryption": {"typing_extensions", "ormsgpack"},
        "checkpoint.chains": {"typing_extensions", "ormsgpack"},
        "checkpoint.serde": {"typing_extensions", "ormsgpack"},
        "checkpoint.compat": {"typing_extensions", "ormsgpack"},
        "checkpoint.sqlite": {"typing_extensions", "aiosqlite", "ormsgpack"},
        "pregel": {"typing_extensions"},
        "pregel.otel": {"opentelemetry"},
        "pregel.store.sqlite": {"typing_extensions", "aiosqlite"},
        "pregel.graph.jsonschema": {"typing_extensions", "pydantic"},
        "pregel.pregel._jsonschema": {"typing_extensions", "pydantic"},
        "pregel._typed": {"pydantic"},
    }
    for name, tree in MODULES.items():
        roots = {target.split(".")[0] for target, _ in imports_of(name, tree)}
        foreign = {root for root in roots if root not in PACKAGES and root not in STANDARD}
        place = max((key for key in allowed if f"{name}.".startswith(f"{key}.")), key=len)
        assert foreign <= allowed[place], f"{name} imports {foreign}"
