"""Random programs of tasks; `workflows` says what must hold of them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.model.workflows import Job, job_of, play

pytestmark = pytest.mark.filterwarnings("ignore::pregel.warnings.PregelWarning")
"""Bodies that call their tasks in another order each time look like ones that call others."""


def test_seeds() -> None:
    assert sum(play(seed) for seed in range(24)) > 16


@pytest.mark.slow
def test_many_seeds() -> None:
    """Slow: each seed is a conversation."""
    for seed in range(100, 116):
        play(seed)


def walk(job: Job) -> Iterator[tuple[Job, str]]:
    for how, jobs in job.groups:
        for one in jobs:
            yield one, how
            yield from walk(one)


def test_programs_have_the_features() -> None:
    jobs = [found for seed in range(24) for found in walk(job_of(random.Random(seed)))]
    assert {how for _, how in jobs} == {"serial", "parallel", "inner"}
    assert any(job.asks > 1 for job, _ in jobs)
    assert any(job.fails >= job.attempts for job, _ in jobs)
    assert any(job.fails and job.fails < job.attempts for job, _ in jobs)
    twins = [jobs for seed in range(24) for _, jobs in job_of(random.Random(seed)).groups]
    assert any(len(set(group)) < len(group) for group in twins)
