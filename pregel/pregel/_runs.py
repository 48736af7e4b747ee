"""`Runs`: what of a compiled graph runs it, once per call, in both colours.

It puts the arguments together (`_request`), begins (`_start`), hands over to a driver and delivers what comes out
(`_delivery`). Decides nothing about a run.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from checkpoint.base import RunnableConfig
from pregel._call import Call
from pregel.engine.sync_driver import SyncDriver
from pregel.pregel import _delivery, _request, _start
from pregel.pregel._delivery import View
from pregel.pregel._graph import Graph
from pregel.pregel._stream import BUFFER, AsyncChunkStream, ChunkStream
from pregel.pregel._turns import OnConflict
from pregel.runtime import RunControl
from pregel.types import Durability, Every, StreamMode

if TYPE_CHECKING:
    from uuid import UUID


class Runs(Graph):
    """The part of a graph that runs."""

    def as_call(self) -> Call:
        """How a node calls this graph: nested, returning what its nodes wrote."""
        return Call(self.get_name(), self._as_node, self._as_async_node, None, self)

    def coerce_output(self, values: Any) -> Any:
        """Output values as the output schema's type, for `version="v2"`."""
        return values

    def coerce_state(self, values: Any) -> Any:
        """State values as the state schema's type, for `version="v2"`."""
        return values

    def invoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        stream_mode: StreamMode | Sequence[StreamMode] = "values",
        print_mode: StreamMode | Sequence[StreamMode] = (),
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: str | Sequence[str] | None = None,
        interrupt_after: str | Sequence[str] | None = None,
        keep_breakpoints: bool | None = None,
        durability: Durability | Every | None = None,
        control: RunControl | None = None,
        on_conflict: OnConflict | None = None,
        timeout: float | None = None,
        deadline: float | timedelta | datetime | None = None,
        max_steps: int | None = None,
        run_id: str | UUID | None = None,
        key: str | None = None,
        version: str = "v1",
        **more: Any,
    ) -> Any:
        """Run to the end, or to the next question or breakpoint.

        Returns:
            Mode values: the last output values, None if there were none; with open questions also under
            `"__interrupt__"`. `version="v2"`: a `GraphOutput`. Another mode, or a list of modes: the list of chunks.

        Args:
            interrupt_before: nodes to stop before, `"*"` for all, instead of those that the graph was compiled with.
            interrupt_after: nodes to stop after.
            keep_breakpoints: True: the two above are stored with the thread and hold for its later calls too, until
                others are kept or given. False: those stored with the thread are forgotten, from this call on.
            on_conflict: what to do while another run holds the thread; as the graph was compiled if None. `"raise"`:
                refuse. `"wait"`: wait for its end. `"fork"`: run beside it, on a branch that never becomes the newest;
                `GraphOutput.config` of `version="v2"` names it.
            timeout: seconds to wait. None: as long as it takes (wait), not at all (fork).
            deadline: seconds from now, a timedelta or an aware datetime by which the run is over. What is not done by then
                is ended where it is and stays pending; no node runs on the caller's own thread.
            max_steps: supersteps that this call may run, those of nested graphs included.
            run_id: a str or UUID that makes the call safe to repeat: the input is applied once, however often the same
                call is made, and the run's result returned (docs/retrying.md). `config["run_id"]` means the same.
            key: inside a node, the name of this nested run among those of the node: it keeps its namespace whatever the
                order of the calls. Without one they are told apart by call order; the same key again is counted.

        Raises:
            Exception: whatever a node raises, with a note that names the node.
            GraphRecursionError: the step limit, or `max_steps`, was reached.
            DeadlineExceededError: the run was not over by its deadline.
            EmptyInputError: there is nothing to do.
            ThreadBusyError: another run holds the thread; nothing was run.
            CheckpointConflictError: another process, or a newer run, took the thread meanwhile; nothing more is stored.
            RunIdReusedError: the run id was given with another input before.
            RunSupersededError: the run was cut off without a result, and the thread has gone on since.
        """
        call = _request.Call(config)
        call.context = context
        call.output_keys = output_keys
        call.interrupt_before, call.interrupt_after = interrupt_before, interrupt_after
        call.keep_breakpoints = keep_breakpoints
        call.durability = _request.durability_of(self, durability, more) if more else durability
        call.control = control
        call.on_conflict, call.timeout = on_conflict, timeout
        call.deadline, call.max_steps = deadline, max_steps
        call.run_id = run_id
        call.key = key
        if stream_mode != "values" or print_mode or more or self.debug:
            return self._collect(input, call, stream_mode, print_mode, version, more)
        driver = self._start(call, input)
        try:
            driver.drive()
        except BaseException as error:
            driver.abort(error)
            raise
        driver.close()
        failure = driver.run.outcome()
        if failure is not None:
            raise failure
        return _delivery.answer(driver.run, v2=version == "v2", graph=self)

    def stream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        stream_mode: StreamMode | Sequence[StreamMode] | None = None,
        print_mode: StreamMode | Sequence[StreamMode] = (),
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: str | Sequence[str] | None = None,
        interrupt_after: str | Sequence[str] | None = None,
        keep_breakpoints: bool | None = None,
        durability: Durability | Every | None = None,
        control: RunControl | None = None,
        on_conflict: OnConflict | None = None,
        timeout: float | None = None,
        deadline: float | timedelta | datetime | None = None,
        max_steps: int | None = None,
        run_id: str | UUID | None = None,
        key: str | None = None,
        subgraphs: bool = False,
        debug: bool | None = None,
        version: str = "v1",
        buffer: int = BUFFER,
        **more: Any,
    ) -> ChunkStream:
        """Run, and yield chunks as they arise; shapes by mode, `subgraphs` and `version` (engine.md 3.7).

        An iterator, a generator and a context manager. Closing it, leaving its `with` block or dropping it ends the run
        at once: bodies that still run are told and abandoned, finished ones are stored. Its `seq` numbers the chunks.

        Args:
            subgraphs: show the events of nested graphs too, of every mode; without it those of this graph only.
            buffer: chunks that may be unread. Beyond that, whoever would show more waits: a body in a thread when it
                writes, an async one when it awaits, a nested run before its next superstep.

        Raises:
            ValueError: an unknown mode, or a buffer without room.
            Exception: as `invoke`, after all chunks; all of it when the first chunk is asked for.
        """
        call = _request.Call(config)
        call.context = context
        call.output_keys = self.stream_channels_asis if output_keys is None else output_keys
        call.interrupt_before, call.interrupt_after = interrupt_before, interrupt_after
        call.keep_breakpoints = keep_breakpoints
        call.durability = _request.durability_of(self, durability, more) if more else durability
        call.control = control
        call.on_conflict, call.timeout = on_conflict, timeout
        call.deadline, call.max_steps = deadline, max_steps
        call.run_id = run_id
        call.key = key
        view = View(self, config, stream_mode, print_mode, subgraphs, debug, version, buffer)
        call.outlet = view.outlet
        return ChunkStream(self._chunks(call, view, input), view.outlet)

    def _chunks(self, call: _request.Call, view: View, input: Any) -> Generator[Any, None, None]:
        """The chunks of a call; leaving the generator ends the run."""
        try:
            driver = self._start(call, input, live=view.live or self.stream_eager)
        except Exception:
            yield from view.chunks()
            raise
        _start.rest(driver.run.request)
        hold = driver.hold
        try:
            goes_on = True
            while goes_on:
                # Between two chunks another run may take the thread: whoever reads this one may never come back.
                yield from view.chunks() if hold is None else hold.between(view.chunks())
                goes_on = driver.advance()
            # Before the last chunks: who stops at one of them, say at a question, finds everything stored.
            driver.close()
        except Exception as error:
            if hold is not None and hold.evicted:
                view.outlet.chunks.clear()
            driver.abort(error)
            yield from view.chunks()
            raise
        except BaseException as error:
            driver.abort(error)
            raise
        finally:
            view.outlet.close()
        yield from view.chunks()
        failure = driver.run.outcome()
        if failure is not None:
            raise failure

    def _collect(
        self, input: Any, call: _request.Call, stream_mode: Any, print_mode: Any, version: str, more: dict[str, Any]
    ) -> Any:
        """`invoke` with chunks: they are the result, or are printed on the way."""
        view = View(
            self, call.config, stream_mode, print_mode, more.get("subgraphs", False), more.get("debug"), version
        )
        call.outlet = view.outlet
        driver = self._start(call, input, live=view.live)
        chunks: list[Any] = []
        try:
            while driver.advance():
                chunks += view.chunks()
        except BaseException as error:
            driver.abort(error)
            raise
        driver.close()
        chunks += view.chunks()
        failure = driver.run.outcome()
        if failure is not None:
            raise failure
        return _delivery.answer(driver.run, v2=version == "v2", graph=self) if stream_mode == "values" else chunks

    def _start(self, call: _request.Call, value: Any, *, live: bool = False) -> SyncDriver:
        """A driver whose run has begun. `live`: chunks leave while bodies run."""
        while True:
            driver = self._enter(call, value, live=live)
            if live and call.outlet is not None:
                call.outlet.wake = driver.inbox.put
            try:
                driver.begin(value)
            except BaseException as error:
                driver.abort(error)
                if not _start.again(driver.run.request, driver.run, error):
                    raise
                if call.outlet is not None:
                    call.outlet.chunks.clear()
            else:
                return driver

    def _enter(self, call: _request.Call, value: Any, *, live: bool = False) -> SyncDriver:
        """A driver for one call, with the state it starts from."""
        request = _request.request_for(self, call, value)
        try:
            loaded = _start.enter(request)
            run = _start.run_for(self, request, loaded, value)
        except BaseException:
            _start.rest(request)
            raise
        return SyncDriver(
            run,
            request.saver,
            request.durability,
            inline=not (live or request.prompt or _delivery.is_live(request)),
            gate=request.gate,
            step_timeout=self.step_timeout,
        )

    def _as_node(self, input: Any) -> Any:
        """Run nested, as the node of another graph."""
        driver = self._enter(_request.Call(None), input)
        try:
            driver.begin(input)
            driver.drive()
        except BaseException as error:
            driver.abort(error)
            raise
        driver.close()
        failure = driver.run.outcome()
        if failure is not None:
            raise failure
        return _delivery.own_writes(driver.run)

    # ---- async

    async def ainvoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        stream_mode: StreamMode | Sequence[StreamMode] = "values",
        print_mode: StreamMode | Sequence[StreamMode] = (),
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: str | Sequence[str] | None = None,
        interrupt_after: str | Sequence[str] | None = None,
        keep_breakpoints: bool | None = None,
        durability: Durability | Every | None = None,
        control: RunControl | None = None,
        on_conflict: OnConflict | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of the waiting for the thread only
        deadline: float | timedelta | datetime | None = None,
        max_steps: int | None = None,
        run_id: str | UUID | None = None,
        key: str | None = None,
        version: str = "v1",
        **more: Any,
    ) -> Any:
        """Async form of `invoke`."""
        call = _request.Call(config)
        call.context = context
        call.output_keys = output_keys
        call.interrupt_before, call.interrupt_after = interrupt_before, interrupt_after
        call.keep_breakpoints = keep_breakpoints
        call.durability = _request.durability_of(self, durability, more) if more else durability
        call.control = control
        call.on_conflict, call.timeout = on_conflict, timeout
        call.deadline, call.max_steps = deadline, max_steps
        call.run_id = run_id
        call.key = key
        if stream_mode != "values" or print_mode or more or self.debug:
            return await self._acollect(input, call, stream_mode, print_mode, version, more)
        driver = await self._astart(call, input)
        try:
            await driver.drive()
        except BaseException as error:
            await driver.abort(error)
            raise
        await driver.close()
        failure = driver.run.outcome()
        if failure is not None:
            raise failure
        return _delivery.answer(driver.run, v2=version == "v2", graph=self)

    def astream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        stream_mode: StreamMode | Sequence[StreamMode] | None = None,
        print_mode: StreamMode | Sequence[StreamMode] = (),
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: str | Sequence[str] | None = None,
        interrupt_after: str | Sequence[str] | None = None,
        keep_breakpoints: bool | None = None,
        durability: Durability | Every | None = None,
        control: RunControl | None = None,
        on_conflict: OnConflict | None = None,
        timeout: float | None = None,
        deadline: float | timedelta | datetime | None = None,
        max_steps: int | None = None,
        run_id: str | UUID | None = None,
        key: str | None = None,
        subgraphs: bool = False,
        debug: bool | None = None,
        version: str = "v1",
        buffer: int = BUFFER,
        **more: Any,
    ) -> AsyncChunkStream:
        """Async form of `stream`. Leaving it cancels async bodies that still run, and awaits them."""
        call = _request.Call(config)
        call.context = context
        call.output_keys = self.stream_channels_asis if output_keys is None else output_keys
        call.interrupt_before, call.interrupt_after = interrupt_before, interrupt_after
        call.keep_breakpoints = keep_breakpoints
        call.durability = _request.durability_of(self, durability, more) if more else durability
        call.control = control
        call.on_conflict, call.timeout = on_conflict, timeout
        call.deadline, call.max_steps = deadline, max_steps
        call.run_id = run_id
        call.key = key
        view = View(self, config, stream_mode, print_mode, subgraphs, debug, version, buffer)
        call.outlet = view.outlet
        return AsyncChunkStream(self._achunks(call, view, input), view.outlet)

    async def _achunks(self, call: _request.Call, view: View, input: Any) -> AsyncGenerator[Any, None]:
        """Async form of `_chunks`."""
        try:
            driver = await self._astart(call, input, live=view.live or self.stream_eager)
        except Exception:
            for chunk in view.chunks():
                yield chunk
            raise
        _start.rest(driver.run.request)
        hold = driver.hold
        try:
            goes_on = True
            while goes_on:
                for chunk in view.chunks() if hold is None else hold.between(view.chunks()):
                    yield chunk
                goes_on = await driver.advance()
            await driver.close()
        except Exception as error:
            if hold is not None and hold.evicted:
                view.outlet.chunks.clear()
            await driver.abort(error)
            for chunk in view.chunks():
                yield chunk
            raise
        except BaseException as error:
            await driver.abort(error)
            raise
        finally:
            view.outlet.close()
        for chunk in view.chunks():
            yield chunk
        failure = driver.run.outcome()
        if failure is not None:
            raise failure

    async def _acollect(
        self, input: Any, call: _request.Call, stream_mode: Any, print_mode: Any, version: str, more: dict[str, Any]
    ) -> Any:
        """Async form of `_collect`."""
        view = View(
            self, call.config, stream_mode, print_mode, more.get("subgraphs", False), more.get("debug"), version
        )
        call.outlet = view.outlet
        driver = await self._astart(call, input, live=view.live)
        chunks: list[Any] = []
        try:
            while await driver.advance():
                chunks += view.chunks()
        except BaseException as error:
            await driver.abort(error)
            raise
        await driver.close()
        chunks += view.chunks()
        failure = driver.run.outcome()
        if failure is not None:
            raise failure
        return _delivery.answer(driver.run, v2=version == "v2", graph=self) if stream_mode == "values" else chunks

    async def _astart(self, call: _request.Call, value: Any, *, live: bool = False) -> Any:
        """Async form of `_start`."""
        while True:
            driver = await self._aenter(call, value, live=live)
            if live and call.outlet is not None:
                call.outlet.wake = driver.inbox.put_from_thread
                call.outlet.ping = driver.loop.call_soon_threadsafe
            try:
                await driver.begin(value)
            except BaseException as error:
                await driver.abort(error)
                if not _start.again(driver.run.request, driver.run, error):
                    raise
                if call.outlet is not None:
                    call.outlet.chunks.clear()
            else:
                return driver

    async def _aenter(self, call: _request.Call, value: Any, *, live: bool = False) -> Any:
        """Async form of `_enter`."""
        request = _request.request_for(self, call, value)
        driver = _async_driver()
        try:
            run = _start.run_for(self, request, await _start.aenter(request, driver.Alarm), value)
        except BaseException:
            _start.rest(request)
            raise
        return driver.AsyncDriver(
            run,
            request.saver,
            request.durability,
            inline=not (live or request.prompt or _delivery.is_live(request)),
            gate=request.gate,
            step_timeout=self.step_timeout,
        )

    async def _as_async_node(self, input: Any) -> Any:
        """Async form of `_as_node`."""
        driver = await self._aenter(_request.Call(None), input)
        try:
            await driver.begin(input)
            await driver.drive()
        except BaseException as error:
            await driver.abort(error)
            raise
        await driver.close()
        failure = driver.run.outcome()
        if failure is not None:
            raise failure
        return _delivery.own_writes(driver.run)


def _async_driver() -> Any:
    """The async driver, imported when a run needs it: it loads asyncio (D36)."""
    from pregel.engine import async_driver  # noqa: PLC0415 - a lazy door

    return async_driver
