"""Every program in `examples/` runs as it is and prints what its last comment says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path):
    expected = path.read_text().partition("# Prints:\n")[2]
    assert expected, f"{path.name} does not say what it prints"
    result = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in expected.splitlines()]


def test_there_are_examples():
    assert len(EXAMPLES) >= 4
