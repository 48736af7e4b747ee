"""What a dead process has lost, by durability: the table of persistence.md B6, and F4."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from checkpoint.sqlite import SqliteSaver
from checkpoint.testing.faults import ForkServer
from tests.checkpoint.runs import config
from tests.support.sound import assert_sound

COUNT = "tests.faults.children:count_up"


def outcome(path: Path) -> tuple[list[int], list[int]]:
    """(numbers whose body has begun, numbers in the stored checkpoints of the namespace that counts)."""
    begun = [int(line) for line in Path(f"{path}.begun").read_text().split()]
    with SqliteSaver(path) as saver:
        assert_sound(saver)
        by_ns: dict[str, list[int]] = {}
        for entry in saver.list(config()):
            i = entry.checkpoint["channel_values"].get("i")
            if i is not None:
                by_ns.setdefault(entry.config["configurable"]["checkpoint_ns"], []).append(i)
    return begun, max(by_ns.values(), key=len, default=[])[::-1]


@pytest.mark.parametrize(
    ("durability", "lag", "stored"),
    # LangGraph's saver: 99, 98, 9 with a saver that takes 20 ms, 0. Here a commit goes out on the thread that runs the
    # graph, or waits for others in groups of up to `lag`.
    [("sync", 1, 99), ("async", 1, 99), ("async", 16, range(99 - 16, 100)), ("exit", 1, None)],
)
def test_killed_in_the_body_of_step_100(
    server: ForkServer, tmp_path: Path, durability: str, lag: int, stored: object
) -> None:
    path = tmp_path / "threads.sqlite"
    assert server.call(COUNT, str(path), durability, lag, 0, 100).signal == signal.SIGKILL
    begun, found = outcome(path)
    assert begun == [*range(1, 101)]
    if stored is None:
        assert found == []
    else:
        assert found == [*range(found[-1] + 1)]
        assert found[-1] in (stored if isinstance(stored, range) else [stored])
    assert server.call(COUNT, str(path), durability, lag, 0, 0).value == 100


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("lag", [1, 16])
def test_f4_commits_that_take_long(server: ForkServer, tmp_path: Path, lag: int, nested: bool) -> None:
    """Nothing goes out any more at step 50; the run goes on until it must wait, and is killed there."""
    path = tmp_path / "threads.sqlite"
    assert server.call(COUNT, str(path), "async", lag, 50, 0, nested=nested).signal == signal.SIGKILL
    begun, found = outcome(path)
    assert begun == [*range(1, len(begun) + 1)]
    # A contiguous history up to the step before; what is lost is what the lag allows, and the body that was running.
    assert found == [*range(50)]
    assert len(begun) - 1 - found[-1] == lag
    assert server.call(COUNT, str(path), "async", lag, 0, 0, nested=nested).value == 100
    again, found = outcome(path)
    assert again[len(begun) :] == [*range(50, 101)]
    assert found == [*range(101)]
