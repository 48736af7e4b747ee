"""`python -m pregel demo` as a user runs it: in processes of its own, killed anywhere, answered either way.

No timing: a process is killed when it has printed its n-th line, for many n; whatever it managed to do after that line
is one of the moments at which a kill must be harmless.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def start(file: Path, *arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "pregel", "demo", "--file", str(file), *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )


def demo(file: Path, *arguments: str, stdin: str = "") -> str:
    process = start(file, *arguments, stdin=subprocess.PIPE)
    output, _ = process.communicate(stdin)
    assert process.returncode == 0, output
    return output


def steps(output: str) -> list[str]:
    """Names of the nodes in the order in which they were shown."""
    nodes = {"plan", "research", "write", "review", "approve", "publish", "shelve"}
    lines = [line.split() for line in output.splitlines() if line.startswith("  ")]
    return [words[0] for words in lines if words and words[0] in nodes]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "demo.sqlite"


FIRST = ["plan", *["research"] * 3, *["write", "review"] * 3]


def test_yes_publishes_and_reports(file):
    output = demo(file, "--answer", "yes")
    assert steps(output) == [*FIRST, "approve", "publish"]
    assert "result: published" in output
    assert "step -1 (input), then __start__" in output
    assert "then the end" in output
    assert output.endswith("\tclassDef last fill:#bfb6fc\n")
    assert "\treview -.-> write;\n" in output


def test_no_shelves(file):
    output = demo(file, "--answer", "no")
    assert steps(output)[-2:] == ["approve", "shelve"]
    assert "result: shelved" in output


def test_the_terminal_is_asked_until_the_answer_is_clear(file):
    output = demo(file, stdin="maybe\nYES\n")
    assert output.count("yes or no?") == 2
    assert "result: published" in output


def test_without_an_answer_the_run_waits(file):
    assert steps(demo(file)) == FIRST
    later = demo(file, "--answer", "no")
    assert "continuing run 1" in later
    assert steps(later) == ["approve", "shelve"]


def test_a_second_run_starts_anew(file):
    assert "starting run 1" in demo(file, "--answer", "yes")
    assert "starting run 2" in demo(file, "--answer", "no")
    assert "starting run 1" in demo(file, "--fresh", "--answer", "yes")


def history(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("  step ")]


def kill_after(file: Path, lines: int) -> None:
    """Run until that many lines were printed, then kill. A process that it started may live on and finish."""
    with start(file, "--answer", "yes") as process:
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.kill()
        process.stdout.read()


@pytest.fixture(scope="module")
def whole_history(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The history of a run that nobody disturbed: the input and 11 supersteps."""
    lines = history(demo(tmp_path_factory.mktemp("whole") / "demo.sqlite", "--answer", "yes"))
    assert len(lines) == 12
    return lines


@pytest.mark.parametrize("lines", range(1, 20, 2))
def test_killed_anywhere_it_goes_on(file, lines, whole_history):
    kill_after(file, lines)
    output = demo(file, "--answer", "yes")
    assert "result: published" in output
    assert history(output) == whole_history


def test_killed_again_and_again_it_ends(file, whole_history):
    for lines in (1, 2, 3, 1, 2, 3):
        kill_after(file, lines)
    output = demo(file, "--answer", "yes")
    assert "result: published" in output
    assert history(output) == whole_history
