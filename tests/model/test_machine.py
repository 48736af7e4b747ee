"""One thread under any sequence of calls: inputs, answers, tries again, updates, replays and forks of old
checkpoints, and new versions of the graph.
"""

from __future__ import annotations

import random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.checkpoint.plain import PlainSaver
from tests.model.reference import Outcome, Thread
from tests.support.graphs import STEADY, Graph, World, answer, graphs
from tests.support.play import Player, compare
from tests.support.savers import FaultySaver
from tests.support.schedule import scheduled

LIMIT = 6

pytestmark = pytest.mark.slow  # every example is a sequence of up to ten calls


class Machine(RuleBasedStateMachine):
    """The engine and the reference side by side."""

    player_type: type[Player] = Player

    def __init__(self) -> None:
        super().__init__()
        self.inputs = 0
        self.is_settled = True
        """Did the last call end without an error? After one it depends on timing which questions came up."""

    @initialize(
        graph=graphs(),
        seed=st.integers(0, 2**16),
        is_async=st.booleans(),
        durability=st.sampled_from(["sync", "async", "exit"]),
        lags=st.booleans(),
        streams=st.booleans(),
        is_plain=st.booleans(),
    )
    def begin(
        self, graph: Graph, seed: int, is_async: bool, durability: str, lags: bool, streams: bool, is_plain: bool
    ) -> None:
        """`is_plain`: with a saver that has LangGraph's methods alone."""
        self.schedule = scheduled(seed)
        world = World()
        world.turns = self.schedule.__enter__()
        self.player = self.player_type(
            graph,
            saver=PlainSaver() if is_plain else FaultySaver(lags=lags),
            is_async=is_async,
            durability=durability,
            limit=LIMIT,
            streams=streams,
            world=world,
        )
        self.thread = Thread(graph, limit=LIMIT, keeps_all=durability != "exit")

    def teardown(self) -> None:
        if hasattr(self, "schedule"):
            self.schedule.__exit__(None, None, None)

    def both(self, got: Outcome, wanted: Outcome) -> None:
        compare(self.player, self.thread, got, wanted)
        self.is_settled = wanted.error is None

    def checkpoint(self, number: int) -> int:
        return number % len(self.thread.saved)

    def given(self) -> dict[str, Any]:
        self.inputs += 1
        return {"log": [f"in{self.inputs}"]}

    @rule()
    def new_input(self) -> None:
        given = self.given()
        self.both(self.player.invoke(given), self.thread.invoke(given))

    @rule()
    def redeploy(self) -> None:
        """A version that calls every node otherwise and knows the former names; nothing else may change."""
        self.player.redeploy(self.player.world.version + 1)

    @precondition(lambda self: self.thread.saved)
    @rule()
    def try_again(self) -> None:
        self.both(self.player.invoke(None), self.thread.invoke(None))

    @precondition(lambda self: self.thread.saved and self.thread.saved[-1].questions)
    @rule(seed=st.integers(0, 99))
    def answer_some(self, seed: int) -> None:
        if not self.is_settled:
            return
        self.player.head()
        open_ = sorted(self.thread.saved[-1].questions.values())
        some = random.Random(seed).sample(open_, 1 + seed % len(open_))
        replies = {question: answer(question) for question in some}
        bare = len(open_) == 1 and seed % 2 == 0
        self.both(self.player.invoke(None, answers=some, bare=bare), self.thread.invoke(None, answers=replies))

    @precondition(lambda self: self.thread.saved)
    @rule(number=st.integers(0, 20), node=st.integers(0, 3), is_empty=st.booleans(), at_head=st.booleans())
    def update(self, number: int, node: int, is_empty: bool, at_head: bool) -> None:
        at = None if at_head else self.checkpoint(number)
        nodes = self.player.graph.nodes
        name = nodes[node % len(nodes)].name
        values = None if is_empty else {"log": [f"u{number}"], "total": 1}
        self.player.update(values, name, at=at)
        self.thread.update(values, name, at=at)
        assert self.player.history() == self.thread.history()

    @precondition(lambda self: self.thread.saved)
    @rule(number=st.integers(0, 20))
    def replay(self, number: int) -> None:
        """A replay at a head that is a fork or update makes no checkpoint (engine.md 7.7): what is stored of its open
        step stays and wins over the re-run, as in LangGraph; the reference does not follow it there.
        """
        at = self.checkpoint(number)
        saved = self.thread.saved[at]
        in_place = saved.source in ("update", "fork") and at == len(self.thread.saved) - 1
        if in_place and (saved.results or saved.questions or saved.answers):
            return
        self.both(self.player.invoke(None, at=at), self.thread.invoke(None, at=at))

    @precondition(lambda self: self.thread.saved)
    @rule(number=st.integers(0, 20))
    def fork(self, number: int) -> None:
        at, given = self.checkpoint(number), self.given()
        self.both(self.player.invoke(given, at=at), self.thread.invoke(given, at=at))


TestMachine = Machine.TestCase
TestMachine.settings = settings(STEADY, max_examples=100, stateful_step_count=10)
