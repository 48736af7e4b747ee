"""Every call of a conversation has a run id and is made more than once: random graphs do what the reference does, which is
told of each call once (promise 30).
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.model import reference
from tests.model.test_machine import Machine
from tests.support.graphs import STEADY, Graph, World, graphs
from tests.support.play import Player, converse
from tests.support.savers import FaultySaver
from tests.support.schedule import scheduled

LIMIT = 8
INPUTS = [{"log": ["in"]}, {"log": ["again"], "total": 1}]


class Repeating(Player):
    """Makes each call twice, and now and then an earlier one again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.made: list[tuple[Any, dict[str, Any], Any]] = []
        """What was called, with which options, and what came of it; of calls that ended well."""
        self.chance = random.Random(0)

    def invoke(
        self, given: Any, *, at: int | None = None, answers: Collection[str] = (), bare: bool = False
    ) -> reference.Outcome:
        if given is None and not answers:
            self.options.pop("run_id", None)
            return super().invoke(given, at=at)
        config = self.address(at)
        self.options["run_id"] = f"run {len(self.made)} {self.chance.random()}"
        questions = dict(self.open)
        out = super().invoke(given, at=at, answers=answers, bare=bare)
        self.open, questions = questions, self.open
        if out.error is None:
            ran = sum(self.world.calls.values())
            again = self.repeat(given, at, answers, bare=bare, config=config)
            assert sorted(again.questions) == sorted(out.questions)
            assert again.values == out.values or self.streams
            self.made.append((given, {"answers": answers, "bare": bare, "config": config}, dict(self.options)))
            assert sum(self.world.calls.values()) == ran
        self.open = questions
        if self.made and self.chance.random() < 0.3:
            self.repeat_an_older_one()
            self.open = questions
        return out

    def repeat(
        self, given: Any, at: int | None, answers: Collection[str], *, bare: bool, config: Any
    ) -> reference.Outcome:
        address = self.address
        self.address = lambda number: config  # type: ignore[method-assign]
        try:
            return super().invoke(given, at=at, answers=answers, bare=bare)
        finally:
            self.address = address  # type: ignore[method-assign]

    def repeat_an_older_one(self) -> None:
        """It has a result, so nothing runs and nothing is stored."""
        given, how, options = self.chance.choice(
            [made for made in self.made if not made[1]["answers"]] or self.made[-1:]
        )
        if how["answers"]:
            return
        own, self.options = self.options, options
        ran = sum(self.world.calls.values())
        self.repeat(given, None, (), bare=False, config=how["config"])
        self.options = own
        assert sum(self.world.calls.values()) == ran


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("is_async", [False, True])
@given(graph=graphs(), seed=st.integers(0, 2**16), streams=st.booleans(), lags=st.booleans())
@settings(STEADY, max_examples=40)
def test_conversations(is_async: bool, durability: str, graph: Graph, seed: int, streams: bool, lags: bool) -> None:
    """Slow: the examples are conversations."""
    with scheduled(seed) as turns:
        world = World()
        world.turns = turns
        saver = FaultySaver(lags=lags)
        player = Repeating(
            graph, saver=saver, is_async=is_async, durability=durability, limit=LIMIT, streams=streams, world=world
        )
        world.watch = saver.ledger
        converse(player, reference.Thread(graph, limit=LIMIT, keeps_all=durability != "exit"), INPUTS, seed)
        assert saver.ledger.breaches == []


class RepeatingMachine(Machine):
    """Also with updates, replays and forks between the calls."""

    player_type = Repeating


TestRepeatingMachine = RepeatingMachine.TestCase
TestRepeatingMachine.settings = settings(STEADY, max_examples=60, stateful_step_count=10)
TestRepeatingMachine.pytestmark = pytest.mark.slow  # type: ignore[attr-defined]
