"""The prose in `pregel/engine/__init__.py` names files, classes and functions; all of them must exist.

Read from the prose: `file.py` (in the engine, or a path from the repository), `file.py::Name`,
`file.py::Class.method`, and backticked `Class.method` of any class in the engine.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENGINE = ROOT / "pregel" / "engine"
PROSE = ast.get_docstring(ast.parse((ENGINE / "__init__.py").read_text())) or ""

FILES = sorted(set(re.findall(r"([\w/]+\.py)\b", PROSE)))
NAMES = sorted(set(re.findall(r"([\w/]+\.py)::([\w.]+\w)", PROSE)))
METHODS = sorted({name for name in re.findall(r"`([A-Z]\w*\.\w+)(?:\([^`]*\))?`", PROSE) if not name.endswith(".py")})


def find(file: str) -> Path:
    candidates = [ENGINE / file, ROOT / file, ROOT / "pregel" / file]
    found = [path for path in candidates if path.is_file()]
    assert found, f"the walk names {file}, which does not exist"
    return found[0]


def names_in(body: list[ast.stmt], prefix: str = "") -> set[str]:
    """Dotted names of classes, functions, methods, assigned names and annotated fields."""
    found: set[str] = set()
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(prefix + name)
            case ast.ClassDef(name=name, body=inner):
                found |= {prefix + name, *names_in(inner, f"{prefix}{name}.")}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(prefix + name)
            case ast.Assign(targets=targets):
                found |= {prefix + target.id for target in targets if isinstance(target, ast.Name)}
    return found


def names_of(path: Path) -> set[str]:
    return names_in(ast.parse(path.read_text()).body)


def test_the_walk_is_told():
    walk = ["core.py", "plan.py", "sync_driver.py", "apply.py", "snapshot.py"]
    positions = [PROSE.find(file) for file in walk]
    assert -1 not in positions
    assert positions == sorted(positions)


@pytest.mark.parametrize("file", FILES)
def test_files_exist(file):
    find(file)


@pytest.mark.parametrize(("file", "name"), NAMES)
def test_names_exist_in_their_files(file, name):
    known = names_of(find(file))
    assert any(name == other or other.endswith(f".{name}") for other in known), f"{file} has no {name}"


@pytest.mark.parametrize("name", METHODS)
def test_methods_exist(name):
    known = set().union(*(names_of(path) for path in ENGINE.glob("*.py")))
    assert name in known, f"no class in the engine has {name}"
