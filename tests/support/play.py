"""Playing a generated graph: calls in either colour, and what came out of them in the words of the reference.

Decides how chunks, snapshots and errors of the engine are compared with `tests.model.reference`: what a question is,
which errors mean the same, how checkpoints are numbered. Knows both sides, decides nothing about either.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from typing import Any

from pregel.errors import GraphRecursionError, InvalidUpdateError
from pregel.types import Command
from tests.model import reference
from tests.support.graphs import Broken, Flaky, Graph, World, answer, build, plain

ERRORS: dict[type[BaseException], type[Exception]] = {
    Flaky: reference.Failed,
    Broken: reference.Failed,
    InvalidUpdateError: reference.InvalidUpdate,
    GraphRecursionError: reference.OutOfSteps,
}

ROUNDS = 5
"""Times that questions are answered before the next input is given, so a loop that asks comes to an end."""


class Player:
    """One thread of one graph, driven through the public API."""

    def __init__(
        self,
        graph: Graph,
        *,
        saver: Any = None,
        is_async: bool = False,
        durability: str | None = None,
        limit: int,
        streams: bool = False,
        world: World | None = None,
    ) -> None:
        self.graph = graph
        self.saver = saver
        self.is_async = is_async
        self.streams = streams
        self.world = world or World()
        self.config: dict[str, Any] = {"configurable": {"thread_id": "t"}, "recursion_limit": limit}
        self.options = {} if durability is None else {"durability": durability}
        self.redeploy(0)
        self.open: dict[str, str] = {}
        """Question -> its id."""

    def redeploy(self, version: int) -> None:
        """From now on the thread meets this version of the graph, which calls its nodes otherwise."""
        self.world.version = version
        self.compiled = build(self.graph, self.world, is_async=self.is_async, checkpointer=self.saver)

    def address(self, at: int | None) -> dict[str, Any]:
        """The config of the thread, or of its checkpoint number `at` (oldest is 0)."""
        if at is None:
            return self.config
        configurable = self.snapshots()[at].config["configurable"]
        return {**self.config, "configurable": configurable}

    def invoke(
        self, given: Any, *, at: int | None = None, answers: Collection[str] = (), bare: bool = False
    ) -> reference.Outcome:
        """A call; `answers`: the questions to answer, `bare` if without their ids."""
        if answers:
            given = Command(
                resume=answer(next(iter(answers)))
                if bare
                else {self.open[question]: answer(question) for question in answers}
            )
        out = reference.Outcome()
        config = self.address(at)
        if self.world.watch is not None and self.options.get("durability") != "exit":
            self.world.watch.given = {self.open[question] for question in answers}
        try:
            if self.streams:
                for mode, chunk in self._stream(given, config):
                    self._take(out, mode, chunk)
            else:
                self._result(out, self._call("invoke", given, config, **self.options))
        except tuple(ERRORS) as error:
            out.error = next(meant for kind, meant in ERRORS.items() if isinstance(error, kind))
        return out

    def update(self, values: Any, name: str, *, at: int | None = None) -> None:
        """`update_state` as a node."""
        self._call("update_state", self.address(at), values, name)

    def snapshots(self) -> list[Any]:
        """Of all checkpoints, oldest first."""
        if not self.is_async:
            return list(self.compiled.get_state_history(self.config))[::-1]

        async def collect() -> list[Any]:
            return [snapshot async for snapshot in self.compiled.aget_state_history(self.config)]

        return asyncio.run(collect())[::-1]

    def history(self) -> list[Any]:
        """As `reference.Thread.history`."""
        snapshots = self.snapshots()
        number = {snapshot.config["configurable"]["checkpoint_id"]: n for n, snapshot in enumerate(snapshots)}
        return [
            (
                snapshot.metadata["source"],
                snapshot.metadata["step"],
                snapshot.parent_config and number[snapshot.parent_config["configurable"]["checkpoint_id"]],
                snapshot.values,
                tuple(map(plain, snapshot.next)),
            )
            for snapshot in snapshots
        ]

    def head(self) -> Any:
        """As `reference.Thread.head`."""
        snapshot = self._call("get_state", self.config)
        self.open = {question.value: question.id for question in snapshot.interrupts}
        return snapshot.values, tuple(map(plain, snapshot.next)), sorted(self.open)

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        if self.is_async:
            return asyncio.run(getattr(self.compiled, "a" + name)(*args, **options))
        return getattr(self.compiled, name)(*args, **options)

    def _stream(self, given: Any, config: Any) -> Any:
        options: dict[str, Any] = {**self.options, "stream_mode": ["updates", "values"]}
        if not self.is_async:
            yield from self.compiled.stream(given, config, **options)
            return
        chunks: list[Any] = []

        async def collect() -> None:
            async for chunk in self.compiled.astream(given, config, **options):
                chunks.append(chunk)

        error: Exception | None = None
        try:
            asyncio.run(collect())
        except Exception as raised:  # noqa: BLE001 - raised again after the chunks
            error = raised
        yield from chunks
        if error is not None:
            raise error

    def _take(self, out: reference.Outcome, mode: str, chunk: Any) -> None:
        if mode == "updates" and "__interrupt__" in chunk:
            for question in chunk["__interrupt__"]:
                self.open[question.value] = question.id
                out.questions.append(question.value)
                out.updates.append({"__interrupt__": question.value})
        elif mode == "updates":
            out.updates.append({plain(name): update for name, update in chunk.items()})
        elif "__interrupt__" not in chunk:
            out.shown.append(chunk)
            out.values = chunk

    def _result(self, out: reference.Outcome, result: Any) -> None:
        asked = result.pop("__interrupt__", ())
        self.open = {question.value: question.id for question in asked}
        out.questions = list(self.open)
        out.values = result


def compare(player: Player, thread: reference.Thread, got: reference.Outcome, wanted: reference.Outcome) -> None:
    """Assert that one call went as it should.

    After a failing node, chunks and stored results of its siblings depend on who was faster; then they are not
    compared.
    """
    assert got.error is wanted.error
    if got.error is None:
        assert sorted(got.questions) == sorted(wanted.questions)
        if not player.streams or wanted.shown:
            assert got.values == wanted.values
    if player.streams and got.error is not reference.Failed:
        assert sorted(map(repr, got.updates)) == sorted(map(repr, wanted.updates))
        assert got.shown == wanted.shown
    if player.saver is not None:
        assert player.history() == thread.history()
        if got.error is None:
            assert player.head() == thread.head()


def converse(player: Player, thread: reference.Thread, inputs: list[dict[str, Any]], seed: int) -> None:
    """Play inputs on both sides; answer all questions, now and then only some, or none and try again."""
    chance = random.Random(seed)
    for given in inputs:
        got, wanted = player.invoke(given), thread.invoke(given)
        compare(player, thread, got, wanted)
        for _ in range(ROUNDS):
            if player.saver is None or not wanted.questions or wanted.error is not None:
                break
            open_ = sorted(wanted.questions)
            if chance.random() < 0.15:
                got, wanted = player.invoke(None), thread.invoke(None)
            else:
                some = chance.sample(open_, chance.randint(1, len(open_)))
                bare = len(open_) == 1 and chance.random() < 0.5
                got = player.invoke(None, answers=some, bare=bare)
                wanted = thread.invoke(None, answers={question: answer(question) for question in some})
            compare(player, thread, got, wanted)
