"""Several processes with several savers each on one file, opened and closed in any order: nobody loses a commit.

SQLite's locks belong to a process, not to a connection: closing any descriptor of the file lets go of all of them, and the
next process that closes believes to be the last and removes the log under those who write it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.neighbours import Household
from tests.support.sound import assert_file_sound


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_what_one_process_opens_and_closes_takes_nothing_from_another(tmp_path: Path, seed: int) -> None:
    """Slow: three processes, and one more for each that is killed."""
    file = tmp_path / "threads.sqlite"
    household = Household(file, seed)
    try:
        household.play(60)
    finally:
        household.end()
    assert_file_sound(file)
