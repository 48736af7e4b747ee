"""What the README and the pages of `docs/` show is what happens.

Python blocks of a page run in order in one namespace; the text block after one is what it prints. Commands are those
that `.ci/run` and the demo really run. Links lead somewhere.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    return BLOCK.findall(text)


def commands() -> list[str]:
    return [body.strip() for kind, body in blocks(README) if kind == "console"]


def output_of(command: str) -> str:
    """The text block that follows a command."""
    all_blocks = blocks(README)
    return all_blocks[all_blocks.index(("console", command + "\n")) + 1][1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_prints_what_the_page_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some pages write files
    namespace: dict[str, object] = {"__name__": f"page_{page.stem}"}
    module = type(sys)(namespace["__name__"])
    sys.modules[module.__name__] = module  # type hints of the page's classes are looked up here
    shown = blocks(page.read_text())
    try:
        for position, (kind, body) in enumerate(shown):
            if kind != "python":
                continue
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(body, str(page), "exec"), module.__dict__)
            if position + 1 < len(shown) and shown[position + 1][0] == "text":
                assert printed.getvalue() == shown[position + 1][1]
    finally:
        del sys.modules[module.__name__]


def test_there_are_two_commands():
    demo, tests = commands()
    assert demo.startswith("python3 -m venv .venv && ")
    assert demo.endswith(" -m pregel demo --answer yes")
    assert tests.startswith("python3 -m venv .venv && ")


def test_the_demo_prints_what_the_readme_shows(tmp_path):
    command = commands()[0].rpartition(" && ")[2].split()
    result = subprocess.run(
        [sys.executable, *command[1:]], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    # the parallel tasks are shown in the order in which they finish
    assert sorted(result.stdout.splitlines()) == sorted(output_of(commands()[0]).splitlines())


def test_ci_runs_exactly_the_second_command():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert lines[-1] == commands()[1]
    steps = [line for line in lines if line and not line.startswith("#")]
    assert len(steps) == 4, "set, cd, a server for tests that are skipped without one, the command; nothing else"
    assert steps[2].startswith("command -v redis-server ")
    assert " || echo " in steps[2], "what cannot be installed must not fail the run"
    assert "/.venv/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_shown_test_run_passed():
    last = output_of(commands()[1]).splitlines()[-1]
    assert re.fullmatch(r"[\d, a-z]*\d+ passed[\w, ]* in [\d.]+s( \([\d:]+\))?", last)
    assert "failed" not in last


@pytest.mark.parametrize("page", [*PAGES, ROOT / "tests" / "README.md", ROOT / "benchmarks" / "README.md"], ids=str)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_no_machine_paths():
    for path in [*PAGES, ROOT / ".ci" / "run", ROOT / "benchmarks" / "README.md", ROOT / "pyproject.toml"]:
        assert not re.search(r"(?:^|\s)/(?:home|root|tmp|work|opt|usr)/(?!bin/env)", path.read_text()), path.name
