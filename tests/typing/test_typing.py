"""Ordinary user programs under mypy and pyright: the marked lines are refused, and no others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = sorted((Path(__file__).resolve().parent / "programs").glob("*.py"))
MARK = "# wrong"


def marked(program: Path) -> set[tuple[str, int]]:
    """(file name, line) of every line that must be refused."""
    lines = program.read_text(encoding="utf-8").splitlines()
    return {(program.name, number) for number, line in enumerate(lines, 1) if line.endswith(MARK)}


def differences(found: dict[tuple[str, int], str]) -> str:
    """What is wrong with the errors that a checker found, as text; empty if nothing is."""
    expected = set().union(*map(marked, PROGRAMS))
    unexpected = [f"{name}:{line}: {found[name, line]}" for name, line in sorted(found.keys() - expected)]
    missed = [f"{name}:{line}: not refused" for name, line in sorted(expected - found.keys())]
    return "\n".join(unexpected + missed)


def test_there_is_something_to_refuse():
    assert all(marked(program) for program in PROGRAMS)


@pytest.mark.slow
def test_mypy(monkeypatch: pytest.MonkeyPatch):
    """Slow: it reads the whole library, unless a cache is there."""
    monkeypatch.chdir(ROOT)
    output, problems, _ = api.run(["--strict", "--no-error-summary", "--no-pretty", *map(str, PROGRAMS)])
    assert problems == ""
    found = {}
    for text in output.splitlines():
        place, kind, message = text.partition(": error: ")
        if kind:
            path, line = place.rsplit(":", 1)
            found[Path(path).name, int(line)] = message
    assert differences(found) == ""


@pytest.mark.slow
def test_pyright():
    """Slow: it starts node and reads the whole library."""
    command = [sys.executable, "-m", "pyright", "--outputjson", *map(str, PROGRAMS)]
    report = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout)
    found = {
        (Path(entry["file"]).name, entry["range"]["start"]["line"] + 1): entry["message"]
        for entry in report["generalDiagnostics"]
        if entry["severity"] == "error"
    }
    assert differences(found) == ""
