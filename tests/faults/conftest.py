"""What several tests of this directory share."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoint.testing.faults import ForkServer
from tests.faults.kill import MEMORY, PRELOAD


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    """One interpreter, from which every life is forked."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    with ForkServer(PRELOAD) as server:
        yield server


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory in memory, if there is such a place: files must outlive processes here, not the machine."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yield Path(directory)
