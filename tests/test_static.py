"""The checkers are content with the whole project; one test per tool, none can be skipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str) -> None:
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"


def test_ruff_finds_nothing():
    run("ruff", "check", "--quiet", ".")


def test_everything_is_formatted():
    run("ruff", "format", "--check", "--quiet", ".")


def test_mypy_strict():
    run("mypy")


def test_pyright():
    # It would look for the dependencies next to the first `python` on PATH, which need not be this one.
    run("pyright", "--pythonpath", sys.executable)
