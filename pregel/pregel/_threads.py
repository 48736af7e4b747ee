"""`Threads`: what of a compiled graph looks at what its threads have stored, and changes it.

Decides nothing: `_state_api` reads and edits, `_explain` says why nodes ran. Runs no node.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from checkpoint.base import RunnableConfig
from pregel.errors import Stranded
from pregel.pregel._graph import Graph
from pregel.pregel._turns import OnConflict, Turn
from pregel.types import StateSnapshot, StateUpdate

if TYPE_CHECKING:
    from pregel.explanation import Explanation


class Threads(Graph):
    """The part of a graph that looks at its threads."""

    # ---- changes of the graph

    def check(self, saver: Any = None) -> list[Stranded]:
        """What is paused in a saver's threads and could not go on with this version of the graph; empty if nothing.

        To be asked before a new version is deployed. Looks at the newest state of every thread, and at nested ones that
        are open below it; changes nothing, and reads no values but those that wake nodes, so their types may be unknown
        here. Threads that this very graph has left are skipped. `saver`: this graph's own if None; may be read-only.

        A finding with `blocks` keeps its thread from being resumed (`GraphChangedError`); one without tells of a key whose
        value no node sees. Each says what to do. A saver with LangGraph's methods alone is listed as a whole.

        Raises:
            ValueError: there is no saver.
        """
        found: list[Stranded] = _state_api().check(self, saver)
        return found

    async def acheck(self, saver: Any = None) -> list[Stranded]:
        """Async form of `check`."""
        found: list[Stranded] = await _state_api().acheck(self, saver)
        return found

    # ---- state

    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """The state of a thread: the newest, or the checkpoint that the config names; empty if there is none.

        A namespace that no nested graph has is read as if this graph had stored it.

        Raises:
            ValueError: the graph has no saver, or the config no thread_id.
        """
        snapshot: StateSnapshot = _state_api().get(self, config, subgraphs=subgraphs)
        return snapshot

    def get_state_history(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        subgraphs: bool = False,
    ) -> Iterator[StateSnapshot]:
        """The states of a thread, newest first. `filter`: metadata equality. `before`: exclusive upper bound. `subgraphs`:
        each with the snapshots of the graphs that its tasks ran, which costs a read per nested run."""
        yield from _state_api().walk(self, config, filter=filter, before=before, limit=limit, subgraphs=subgraphs)

    def update_state(
        self,
        config: RunnableConfig,
        values: Any,
        as_node: str | None = None,
        task_id: str | None = None,
        *,
        on_conflict: OnConflict | None = None,
        timeout: float | None = None,
    ) -> RunnableConfig:
        """Add a checkpoint as if `as_node` had returned `values`; returns the config that addresses it.

        `on_conflict` and `timeout`: as for `invoke`. A node cannot update the thread of its own run: it returns updates.

        Raises:
            ThreadBusyError: a run holds the thread; nothing was stored.
            InvalidUpdateError: the node is unknown, or cannot be inferred.
            ValueError: the graph has no saver.
        """
        updates = [[StateUpdate(values, as_node, task_id)]]
        return self.bulk_update_state(config, updates, on_conflict=on_conflict, timeout=timeout)

    def bulk_update_state(
        self,
        config: RunnableConfig,
        supersteps: Sequence[Sequence[StateUpdate]],
        *,
        on_conflict: OnConflict | None = None,
        timeout: float | None = None,
    ) -> RunnableConfig:
        """One checkpoint per superstep, chained, stored all or none; returns the config of the last."""
        turn = Turn(on_conflict or self.on_conflict, timeout)
        stored: RunnableConfig = _state_api().update(self, config, supersteps, turn)
        return stored

    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """Async form of `get_state`."""
        snapshot: StateSnapshot = await _state_api().aget(self, config, subgraphs=subgraphs)
        return snapshot

    async def aget_state_history(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        subgraphs: bool = False,
    ) -> AsyncIterator[StateSnapshot]:
        """Async form of `get_state_history`."""
        found = _state_api().awalk(self, config, filter=filter, before=before, limit=limit, subgraphs=subgraphs)
        async for snapshot in found:
            yield snapshot

    async def aupdate_state(
        self,
        config: RunnableConfig,
        values: Any,
        as_node: str | None = None,
        task_id: str | None = None,
        *,
        on_conflict: OnConflict | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of the waiting for the thread only
    ) -> RunnableConfig:
        """Async form of `update_state`."""
        updates = [[StateUpdate(values, as_node, task_id)]]
        return await self.abulk_update_state(config, updates, on_conflict=on_conflict, timeout=timeout)

    async def abulk_update_state(
        self,
        config: RunnableConfig,
        supersteps: Sequence[Sequence[StateUpdate]],
        *,
        on_conflict: OnConflict | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of the waiting for the thread only
    ) -> RunnableConfig:
        """Async form of `bulk_update_state`."""
        turn = Turn(on_conflict or self.on_conflict, timeout)
        stored: RunnableConfig = await _state_api().aupdate(self, config, supersteps, turn, _inbox().Alarm)
        return stored

    # ---- reasons

    def explain(self, config: RunnableConfig, *, limit: int | None = None) -> Explanation:
        """Why the nodes of a thread ran, and why others did not: `print(graph.explain(config))`.

        For each step: its tasks, what became of them, and which write woke each. For the step that comes next also the
        nodes that wait, and for what. Reads what is stored; runs no code of nodes, routers or reducers, and reads no
        values of the state.

        Args:
            config: a thread: its last run is explained. With a `checkpoint_id`: only the step that follows it. With a
                `checkpoint_ns`: the nested graph there.
            limit: explain this many closed steps, also of earlier runs, instead of the last run.

        Raises:
            ValueError: the graph has no saver, the config no thread_id, its namespace no graph; or a bad limit.
        """
        explanation: Explanation = _explain().explain(self, config, limit)
        return explanation

    async def aexplain(self, config: RunnableConfig, *, limit: int | None = None) -> Explanation:
        """Async form of `explain`."""
        explanation: Explanation = await _explain().aexplain(self, config, limit)
        return explanation


def _state_api() -> Any:
    """What reads and edits stored states, imported when somebody asks."""
    from pregel.pregel import _state_api  # noqa: PLC0415 - a lazy door

    return _state_api


def _explain() -> Any:
    """What answers `explain`, imported when somebody asks."""
    from pregel.pregel import _explain  # noqa: PLC0415 - a lazy door

    return _explain


def _inbox() -> Any:
    """What coroutines wait for, imported when somebody asks: it loads asyncio (D36)."""
    from pregel.engine import inbox  # noqa: PLC0415 - a lazy door

    return inbox
