"""Several calls of a graph side by side."""

import asyncio
import threading

import pytest

from pregel.pregel import _abatch, _batch
from tests.support.driving import LIMIT, Count


@pytest.mark.parametrize("limit", [None, 1, 2])
def test_gather_keeps_order_errors_and_the_limit(limit):
    inside_ = Count()

    def make(n):
        def run():
            with inside_:
                if n == 2:
                    raise OSError(n)
                return n

        return run

    outcomes = _batch.gather([make(n) for n in range(5)], [{"max_concurrency": limit}] * 5)
    assert [result for result, _ in outcomes] == [0, 1, None, 3, 4]
    assert isinstance(outcomes[2][1], OSError)
    assert limit is None or inside_.most <= limit
    assert _batch.gather([], []) == []


def test_gathered_calls_run_side_by_side():
    barrier = threading.Barrier(4)
    outcomes = _batch.gather([lambda: barrier.wait(LIMIT)] * 4, [None] * 4)
    assert sorted(result for result, _ in outcomes) == [0, 1, 2, 3]


def test_async_gather_keeps_order_errors_and_the_limit():
    inside_ = Count()

    async def call(n):
        with inside_:
            await asyncio.sleep(0)
            if n == 2:
                raise OSError(n)
            return n

    async def main(limit):
        inside_.most = 0
        return await _abatch.gather([call(n) for n in range(4)], [{"max_concurrency": limit}] * 4)

    for limit, most in [(1, 1), (2, 2), (None, 4)]:
        outcomes = asyncio.run(main(limit))
        assert [result for result, _ in outcomes] == [0, 1, None, 3]
        assert isinstance(outcomes[2][1], OSError)
        assert inside_.most == most
    assert asyncio.run(_abatch.gather([], [])) == []
