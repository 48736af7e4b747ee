"""What several tests of this directory share."""

import os
from collections.abc import Iterator

import pytest

from checkpoint.testing.faults import ForkServer
from tests.faults.kill import PRELOAD


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    """One interpreter, from which every life is forked."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    with ForkServer(PRELOAD) as server:
        yield server
