"""`Batches`: several calls of a graph side by side; sync ones on workers, as many at once as the config allows.

Decides which config each call has, and what becomes of failures. What runs them knows no run: a call is whatever returns
its result. Async calls are run by `_abatch`.
"""

from __future__ import annotations

from _queue import SimpleQueue
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from checkpoint.base import RunnableConfig
from pregel import _scope
from pregel.engine.workers import Gate, Job, wait_for, workers
from pregel.pregel._graph import Graph
from pregel.pregel._request import check_arguments, check_config
from pregel.pregel._runs import Runs
from pregel.runtime import RunControl


class Batches(Runs):
    """The part of a graph that runs several inputs."""

    def batch(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **more: Any,
    ) -> list[Any]:
        """`invoke` each input, several at once; results in input order. `more` goes to every call.

        Raises:
            ValueError: a list of configs of another length than the inputs.
            Exception: the first failure in input order, unless `return_exceptions` puts failures into the result.
        """
        outcomes = gather(*self._batch_calls(inputs, config, more))
        return results_of(outcomes, return_exceptions)

    def batch_as_completed(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **more: Any,
    ) -> Iterator[tuple[int, Any]]:
        """`batch`, but each result as soon as it is there, with the index of its input. Who leaves early has the other
        runs stop at their next superstep.

        Raises:
            ValueError: a list of configs of another length than the inputs.
            Exception: the first failure, unless `return_exceptions` yields failures too.
        """
        with closing(as_completed(*self._batch_calls(inputs, config, more))) as ended:
            for index, result, error in ended:
                if error is not None and not return_exceptions:
                    raise error
                yield index, result if error is None else error

    def _batch_calls(
        self, inputs: Sequence[Any], config: Any, more: Mapping[str, Any]
    ) -> tuple[list[partial[Any]], list[Any], list[RunControl]]:
        """One call per input, its config, and what ends it before its time."""
        given = configs_for(self, inputs, config, more)
        calls = [partial(self.invoke, item, one, **more) for item, one in zip(inputs, given, strict=True)]
        controls: list[RunControl] = []
        if more.get("control") is None and _scope.current_or_none() is None:
            # Nested runs have the control of the run around them, and end with the task that they are in.
            controls = [RunControl() for _ in calls]
            for call, control in zip(calls, controls, strict=True):
                call.keywords["control"] = control
        return calls, given, controls

    async def abatch(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **more: Any,
    ) -> list[Any]:
        """Async form of `batch`."""
        given = configs_for(self, inputs, config, more)
        calls = [self.ainvoke(i, c, **more) for i, c in zip(inputs, given, strict=True)]
        return results_of(await _abatch().gather(calls, given), return_exceptions)

    async def abatch_as_completed(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **more: Any,
    ) -> AsyncGenerator[tuple[int, Any], None]:
        """Async form of `batch_as_completed`. Who leaves early, with `aclose()`, has the other runs cancelled."""
        given = configs_for(self, inputs, config, more)
        calls = [partial(self.ainvoke, i, c, **more) for i, c in zip(inputs, given, strict=True)]
        ended = _abatch().as_completed(calls, given)
        try:
            async for index, result, error in ended:
                if error is not None and not return_exceptions:
                    raise error
                yield index, result if error is None else error
        finally:
            await ended.aclose()


def configs_for(graph: Graph, inputs: Sequence[Any], config: Any, more: Mapping[str, Any]) -> list[Any]:
    """The config of each call.

    Raises:
        ValueError: a list of configs of another length than the inputs.
    """
    for one in config if isinstance(config, Sequence) else (config,):
        if one:
            check_config(graph, one)  # here, where the caller's stack is, and once
    check_arguments(graph, more)
    if isinstance(config, Sequence):
        if len(config) != len(inputs):
            raise ValueError(f"config must be a list of the same length as inputs, got {len(config)} for {len(inputs)}")
        return list(config)
    return [config] * len(inputs)


def results_of(outcomes: Sequence[Any], return_exceptions: bool) -> list[Any]:
    """The results of (result, error) pairs; the first error is raised, or all are put among them."""
    if not return_exceptions:
        for _, error in outcomes:
            if error is not None:
                raise error
    return [result if error is None else error for result, error in outcomes]


def gather(
    calls: Sequence[Callable[[], Any]], given: Sequence[Any], controls: Sequence[RunControl] = ()
) -> list[tuple[Any, BaseException | None]]:
    """Run the calls on workers, at most `max_concurrency` of the first config at once; (result, error) in order."""
    outcomes: list[tuple[Any, BaseException | None]] = [(None, None)] * len(calls)
    for index, result, error in as_completed(calls, given, controls):
        outcomes[index] = result, error
    return outcomes


def as_completed(
    calls: Sequence[Callable[[], Any]], given: Sequence[Any], controls: Sequence[RunControl] = ()
) -> Generator[tuple[int, Any, BaseException | None], None, None]:
    """The same, as they end: (index, result, error).

    Whoever leaves before the last, as a Ctrl-C does, does not wait for the others: `controls` end them at their next
    superstep.
    """
    ended: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()
    limit = (given[0] or {}).get("max_concurrency") if given else None
    gate = Gate(limit) if limit else None

    def run(index: int, context: Context) -> None:
        result, failure = None, None
        try:
            result = context.run(calls[index])
        except BaseException as error:  # noqa: BLE001 - reported to the caller
            failure = error
        if gate is not None:
            gate.leave()
        ended.put((index, result, failure))

    for index in range(len(calls)):
        job = Job(partial(run, index, copy_context()))
        if gate is None:
            workers.submit(job)
        else:
            gate.enter(partial(workers.submit, job))
    try:
        for _ in calls:
            yield wait_for(ended)
    except BaseException:
        for control in controls:
            control.request_drain("interrupted")
        raise


def _abatch() -> Any:
    """What runs async calls side by side; imported when somebody asks: it loads asyncio (D36)."""
    from pregel.pregel import _abatch  # noqa: PLC0415 - a lazy door

    return _abatch
