"""`graph.explain`: from a config to stored checkpoints to an explanation, in both colours.

Decides which checkpoints are read; what follows from them is decided in `engine.reasons`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

from checkpoint.base import LoadedCheckpoint, RunnableConfig
from pregel.engine.reasons import Reasons, channels_of
from pregel.explanation import Explanation, Way
from pregel.pregel._state_api import Address


class _Question:
    """One call: where to read, and who is told what was read."""

    def __init__(self, graph: Any, config: RunnableConfig, limit: int | None) -> None:
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
            raise ValueError(f"explain: limit={limit!r}; it is how many closed steps to explain, an int of at least 0")
        self.address = address = Address(graph, config)
        address.must_be_known()
        self.limit = limit
        self.named = address.stored() if address.names_checkpoint else None
        self.newest: RunnableConfig = {
            "configurable": {"thread_id": address.thread_id, "checkpoint_ns": address.ns},
        }

    def begin(self, first: LoadedCheckpoint | None) -> None:
        """Read what is stored as that of the right graph: a node may hold several, the names in a checkpoint tell."""
        if first is not None:
            self.address.choose(first)
        graph = self.address.graph
        ways = [Way(*way) for way in graph.declared_ways()]
        reasons = Reasons(
            graph.program,
            self.address.request,
            ways,
            named=self.named is not None,
            before=graph.interrupt_before_nodes,
            after=graph.interrupt_after_nodes,
        )
        self.channels = channels_of(graph.program)
        self.reading = reasons.explain(graph.get_name(), self.limit)

    @property
    def is_ambiguous(self) -> bool:
        """May it be the state of one of several graphs?"""
        return len(self.address.graphs) > 1

    def is_asked_for(self, loaded: LoadedCheckpoint) -> bool:
        """Is it the checkpoint that the config names? (Savers of others may list more.)"""
        assert self.named is not None
        return bool(loaded.checkpoint_id == self.named["configurable"]["checkpoint_id"])


def explain(graph: Any, config: RunnableConfig, limit: int | None) -> Explanation:
    """Why the nodes of a thread ran, or did not."""
    question = _Question(graph, config, limit)
    first = question.address.saver.history(question.named or question.newest, limit=1, channels=())
    question.begin(next(first, None) if question.is_ambiguous else None)
    found = _read(question)
    try:
        next(question.reading)
        while True:
            question.reading.send(next(found, None))
    except StopIteration as end:
        explanation: Explanation = end.value
        return explanation


def _read(question: _Question) -> Iterator[LoadedCheckpoint]:
    saver, channels, before = question.address.saver, question.channels, question.named
    if before is not None:
        for loaded in saver.history(before, channels=channels):
            if question.is_asked_for(loaded):
                yield loaded
                break
        else:
            return
    yield from saver.history(question.newest, before=before, channels=channels)


async def aexplain(graph: Any, config: RunnableConfig, limit: int | None) -> Explanation:
    """Async form of `explain`."""
    question = _Question(graph, config, limit)
    first = question.address.saver.ahistory(question.named or question.newest, limit=1, channels=())
    question.begin(await anext(first, None) if question.is_ambiguous else None)
    found = _aread(question)
    try:
        next(question.reading)
        while True:
            question.reading.send(await anext(found, None))
    except StopIteration as end:
        explanation: Explanation = end.value
        return explanation
    finally:
        await found.aclose()


async def _aread(question: _Question) -> AsyncGenerator[LoadedCheckpoint, None]:
    saver, channels, before = question.address.saver, question.channels, question.named
    if before is not None:
        is_there = False
        async for loaded in saver.ahistory(before, channels=channels):
            if question.is_asked_for(loaded):
                is_there = True
                yield loaded
                break
        if not is_there:
            return
    async for loaded in saver.ahistory(question.newest, before=before, channels=channels):
        yield loaded
