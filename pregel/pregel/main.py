"""`Pregel`: a compiled graph that can be run, and `NodeBuilder`, which makes its nodes by hand.

The engine's public face: it normalises arguments, checks the graph once, and hands over to a driver. Decides nothing about
a run. Attributes such as `checkpointer` or `store` are plain and may be assigned between runs; a run keeps what it
started with. Nothing of a run stays on the graph, so one graph may run in many threads at once.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from copy import copy
from datetime import datetime, timedelta
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Self

from checkpoint.base import RunnableConfig
from pregel import _scope
from pregel import config as configs
from pregel._call import Call
from pregel._policies import retry_policies
from pregel.cache.keys import namespace_of
from pregel.channels import BaseChannel, Topic
from pregel.constants import END, RESERVED, START, TASKS
from pregel.drawing.draw import Graph, NodeInfo, build_channel_graph
from pregel.engine.program import PregelNode, Program
from pregel.engine.sync_driver import SyncDriver
from pregel.errors import Stranded, nearest, shown
from pregel.managed import ManagedValue
from pregel.pregel import _launch, _state_api
from pregel.pregel._node import NodeBuilder
from pregel.pregel._stream import BUFFER, AsyncChunkStream, ChunkStream, Outlet
from pregel.pregel._turns import OnConflict, Turn
from pregel.runtime import RunControl
from pregel.types import (
    CachePolicy,
    Checkpointer,
    Durability,
    Every,
    RetryPolicy,
    Send,
    StateSnapshot,
    StateUpdate,
    StreamMode,
    ensure_valid_checkpointer,
)
from pregel.warnings import Notice, PregelDeprecationWarning, emit

if TYPE_CHECKING:
    from uuid import UUID

    from pregel.explanation import Explanation

__all__ = ["NodeBuilder", "Pregel"]


def _checked_cache(cache: Any) -> Any:
    missing = [name for name in ("get", "aget", "set", "aset", "clear", "aclear") if not hasattr(cache, name)]
    if cache is not None and missing:
        raise TypeError(
            f"cache= is {shown(cache)} ({type(cache).__name__}), which has no {', '.join(missing)}; expected a cache such "
            f"as pregel.cache.memory.InMemoryCache()"
        )
    return cache


class Pregel(_launch.Graph):
    """A compiled graph."""

    def __init__(
        self,
        *,
        nodes: Mapping[str, PregelNode | NodeBuilder],
        channels: Mapping[str, BaseChannel[Any, Any, Any] | type[ManagedValue[Any]]] | None,
        input_channels: str | Sequence[str],
        output_channels: str | Sequence[str],
        stream_channels: str | Sequence[str] | None = None,
        auto_validate: bool = True,
        stream_mode: StreamMode = "values",
        stream_eager: bool = False,
        interrupt_after_nodes: str | Sequence[str] = (),
        interrupt_before_nodes: str | Sequence[str] = (),
        step_timeout: float | None = None,
        debug: bool | None = None,
        checkpointer: Checkpointer = None,
        store: Any = None,
        cache: Any = None,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] = (),
        cache_policy: CachePolicy[Any] | None = None,
        context_schema: type[Any] | None = None,
        config: RunnableConfig | None = None,
        name: str = "LangGraph",
        isolate: str = "shallow",
        strict: bool = False,
        on_conflict: OnConflict = "raise",
        renamed_keys: Mapping[str, str | None] | None = None,
    ) -> None:
        """`renamed_keys`: as for `StateGraph.compile`, of channels."""
        self.nodes: dict[str, PregelNode] = {
            str(key): node.build() if isinstance(node, NodeBuilder) else node for key, node in nodes.items()
        }
        self.channels: dict[str, Any] = dict(channels or {})
        held = self.channels.get(TASKS)
        if held is not None and not isinstance(held, Topic):
            raise ValueError(f"channel {TASKS!r} is reserved for Send and cannot be declared as {shown(held)}")
        if held is None:
            self.channels[TASKS] = Topic(Send)
        for key, channel in self.channels.items():
            if isinstance(channel, BaseChannel) and not channel.key:
                channel.key = key
        self.input_channels = input_channels
        self.output_channels = output_channels
        self.stream_channels = stream_channels
        self.stream_mode: StreamMode = stream_mode
        self.stream_eager = stream_eager
        self.interrupt_after_nodes = interrupt_after_nodes
        self.interrupt_before_nodes = interrupt_before_nodes
        self.step_timeout = step_timeout
        self.debug = bool(debug)
        self.checkpointer = ensure_valid_checkpointer(checkpointer)
        self.store = store
        self.cache = _checked_cache(cache)
        self.retry_policy = retry_policies(retry_policy, "Pregel")
        self.cache_policy = cache_policy
        self.context_schema = context_schema
        self.config = dict(config) if config else None
        self.name = name
        if isolate not in ("shallow", "deep", "off"):
            raise ValueError(f"isolate must be 'shallow', 'deep' or 'off', got {shown(isolate)}")
        self.isolate = isolate
        self.strict = strict
        self.on_conflict = Turn(on_conflict, None).how
        self.renamed_keys = dict(renamed_keys or {})
        self._program: Program | None = None
        if auto_validate:
            self.validate()
        if self.config:
            _launch.check_config(self, self.config)

    # ---- the graph

    @property
    def program(self) -> Program:
        """The compiled form; built on first use."""
        if self._program is None:
            managed = {k: c for k, c in self.channels.items() if isinstance(c, type) and issubclass(c, ManagedValue)}
            channels = {k: c for k, c in self.channels.items() if k not in managed}
            self._program = Program(
                nodes=self.nodes,
                channels=channels,
                managed=managed,
                input_channels=self.input_channels,
                output_channels=self.output_channels,
                stream_channels=self.stream_channels_asis,
                watch=self.isolate == "deep",
                renamed_keys=self.renamed_keys,
            )
        return self._program

    @property
    def stream_channels_list(self) -> list[str]:
        """Channels that make up the state, as a list."""
        channels = self.stream_channels_asis
        return [channels] if isinstance(channels, str) else list(channels)

    @property
    def stream_channels_asis(self) -> str | Sequence[str]:
        """Channels that streams and state APIs show: the declared ones, else all but the internal one for Sends."""
        if self.stream_channels is not None:
            return self.stream_channels
        return [name for name, c in self.channels.items() if name != TASKS and isinstance(c, BaseChannel)]

    def validate(self) -> Self:
        """Check names, subscriptions and channels (engine.md 3.2).

        Raises:
            ValueError: something is named that does not exist, or has a reserved name.
            TypeError: a node is not a node.
        """
        known = list(self.channels)
        for name in self.channels:
            if name in RESERVED:
                kind = "channel" if isinstance(self.channels[name], BaseChannel) else "managed value"
                raise ValueError(f"{kind} name {name!r} is reserved; choose another one")
        subscribed: set[str] = set()
        for name, node in self.nodes.items():
            if name in RESERVED:
                raise ValueError(f"node name {name!r} is reserved; choose another one")
            if not isinstance(node, PregelNode):
                raise TypeError(
                    f"node {name!r} is {shown(node)} ({type(node).__name__}); expected a PregelNode or NodeBuilder"
                )
            for channel in [node.channels] if isinstance(node.channels, str) else node.channels:
                if channel not in self.channels:
                    raise ValueError(f"node {name!r} reads channel {channel!r}, which is none of {shown(known)}")
            for channel in node.triggers:
                if channel not in self.channels:
                    raise ValueError(
                        f"node {name!r} subscribes to channel {channel!r}, which is none of {shown(known)}"
                    )
                subscribed.add(channel)
        inputs = [self.input_channels] if isinstance(self.input_channels, str) else list(self.input_channels)
        for channel in inputs:
            if channel not in self.channels:
                raise ValueError(f"input channel {channel!r} is none of {shown(known)}")
        if not any(channel in subscribed for channel in inputs):
            raise ValueError(f"no node subscribes to the input channels {inputs!r}, so the graph would never start")
        for what, names in (("output", self.output_channels), ("stream", self.stream_channels or ())):
            for channel in [names] if isinstance(names, str) else names:
                if channel not in self.channels:
                    raise ValueError(f"{what} channel {channel!r} is none of {shown(known)}")
        for given in (self.interrupt_before_nodes, self.interrupt_after_nodes):
            for name in [given] if isinstance(given, str) else given:
                if name != "*" and name not in self.nodes:
                    raise ValueError(f"breakpoint at unknown node {name!r}; the nodes are {list(self.nodes)!r}")
        self._check_renames()
        self._program = None
        return self

    def _check_renames(self) -> None:
        taken: dict[str, str] = {}
        for name, node in self.nodes.items():
            for alias in node.aliases:
                where = f"node {name!r}: alias {alias!r}"
                if alias in self.nodes:
                    raise ValueError(f"{where} is the name of a node; an alias is a name that no node has any more")
                if alias in taken:
                    raise ValueError(f"{where} is an alias of node {taken[alias]!r} already; give it to one of them")
                if alias in RESERVED or alias in (START, END) or "|" in alias or ":" in alias:
                    raise ValueError(f"{where} is reserved or has '|' or ':' in it, so it was never the name of a node")
                taken[alias] = name
        for old, new in self.renamed_keys.items():
            if old in self.channels:
                raise ValueError(f"renamed_keys: {old!r} is declared, so it was not renamed; leave it out")
            if new is not None and new not in self.channels:
                raise ValueError(f"renamed_keys: {old!r} became {new!r}, which is none of {shown(list(self.channels))}")

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """The name of the graph, which a node that wraps it gets too; with a suffix, `GraphInput` or `graph_input`."""
        name = name or self.name
        if not suffix:
            return name
        return name + suffix.title() if name[:1].isupper() else f"{name}_{suffix.lower()}"

    def copy(self, update: Mapping[str, Any] | None = None) -> Self:
        """A graph with some attributes replaced."""
        twin = copy(self)
        for key, value in (update or {}).items():
            setattr(twin, key, value)
        if update and {"nodes", "channels"} & set(update):
            twin._program = None
        return twin

    def with_config(self, config: RunnableConfig | None = None, **more: Any) -> Self:
        """A graph that merges this config into every call's.

        Raises:
            PregelWarning: the graph is strict, and a key stands where nobody reads it.
        """
        for given in (config, more):
            if given:
                _launch.check_config(self, given)
        return self.copy({"config": configs.merge(self.config, config, more)})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {len(self.nodes)} nodes>"

    def as_call(self) -> Call:
        """How a node calls this graph: nested, returning what its nodes wrote."""
        return Call(self.get_name(), self._as_node, self._as_async_node, None, self)

    def coerce_output(self, values: Any) -> Any:
        """Output values as the output schema's type, for `version="v2"`."""
        return values

    def coerce_state(self, values: Any) -> Any:
        """State values as the state schema's type, for `version="v2"`."""
        return values

    # ---- running

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
        call = _launch.Call(config)
        call.context = context
        call.output_keys = output_keys
        call.interrupt_before, call.interrupt_after = interrupt_before, interrupt_after
        call.keep_breakpoints = keep_breakpoints
        call.durability = _durability(self, durability, more)
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
        return _launch.answer(driver.run, v2=version == "v2", graph=self)

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
        call = _launch.Call(config)
        call.context = context
        call.output_keys = self.stream_channels_asis if output_keys is None else output_keys
        call.interrupt_before, call.interrupt_after = interrupt_before, interrupt_after
        call.keep_breakpoints = keep_breakpoints
        call.durability = _durability(self, durability, more)
        call.control = control
        call.on_conflict, call.timeout = on_conflict, timeout
        call.deadline, call.max_steps = deadline, max_steps
        call.run_id = run_id
        call.key = key
        view = _View(self, config, stream_mode, print_mode, subgraphs, debug, version, buffer)
        call.outlet = view.outlet
        return ChunkStream(self._chunks(call, view, input), view.outlet)

    def _chunks(self, call: _launch.Call, view: _View, input: Any) -> Generator[Any, None, None]:
        """The chunks of a call; leaving the generator ends the run."""
        try:
            driver = self._start(call, input, live=view.live or self.stream_eager)
        except Exception:
            yield from view.chunks()
            raise
        _launch.rest(driver.run.request)
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
        self, input: Any, call: _launch.Call, stream_mode: Any, print_mode: Any, version: str, more: dict[str, Any]
    ) -> Any:
        """`invoke` with chunks: they are the result, or are printed on the way."""
        view = _View(
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
        return _launch.answer(driver.run, v2=version == "v2", graph=self) if stream_mode == "values" else chunks

    def _start(self, call: _launch.Call, value: Any, *, live: bool = False) -> SyncDriver:
        """A driver whose run has begun. `live`: chunks leave while bodies run."""
        while True:
            driver = self._enter(call, value, live=live)
            if live and call.outlet is not None:
                call.outlet.wake = driver.inbox.put
            try:
                driver.begin(value)
            except BaseException as error:
                driver.abort(error)
                if not _launch.again(driver.run.request, driver.run, error):
                    raise
                if call.outlet is not None:
                    call.outlet.chunks.clear()
            else:
                return driver

    def _enter(self, call: _launch.Call, value: Any, *, live: bool = False) -> SyncDriver:
        """A driver for one call, with the state it starts from."""
        request = _launch.request_for(self, call, value)
        try:
            loaded = _launch.enter(request)
            run = _launch.run_for(self, request, loaded, value)
        except BaseException:
            _launch.rest(request)
            raise
        return SyncDriver(
            run,
            request.saver,
            request.durability,
            inline=not (live or request.prompt or _launch.is_live(request)),
            gate=request.gate,
            step_timeout=self.step_timeout,
        )

    def _as_node(self, input: Any) -> Any:
        """Run nested, as the node of another graph."""
        driver = self._enter(_launch.Call(None), input)
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
        return _launch.own_writes(driver.run)

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
        outcomes = _launch.gather(*self._batch_calls(inputs, config, more))
        return _batch_result(outcomes, return_exceptions)

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
        with closing(_launch.as_completed(*self._batch_calls(inputs, config, more))) as ended:
            for index, result, error in ended:
                if error is not None and not return_exceptions:
                    raise error
                yield index, result if error is None else error

    def _batch_calls(
        self, inputs: Sequence[Any], config: Any, more: Mapping[str, Any]
    ) -> tuple[list[partial[Any]], list[Any], list[RunControl]]:
        """One call per input, its config, and what ends it before its time."""
        given = _batch_configs(self, inputs, config, more)
        calls = [partial(self.invoke, item, one, **more) for item, one in zip(inputs, given, strict=True)]
        controls: list[RunControl] = []
        if more.get("control") is None and _scope.current_or_none() is None:
            # Nested runs have the control of the run around them, and end with the task that they are in.
            controls = [RunControl() for _ in calls]
            for call, control in zip(calls, controls, strict=True):
                call.keywords["control"] = control
        return calls, given, controls

    # ---- running, async

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
        call = _launch.Call(config)
        call.context = context
        call.output_keys = output_keys
        call.interrupt_before, call.interrupt_after = interrupt_before, interrupt_after
        call.keep_breakpoints = keep_breakpoints
        call.durability = _durability(self, durability, more)
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
        return _launch.answer(driver.run, v2=version == "v2", graph=self)

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
        call = _launch.Call(config)
        call.context = context
        call.output_keys = self.stream_channels_asis if output_keys is None else output_keys
        call.interrupt_before, call.interrupt_after = interrupt_before, interrupt_after
        call.keep_breakpoints = keep_breakpoints
        call.durability = _durability(self, durability, more)
        call.control = control
        call.on_conflict, call.timeout = on_conflict, timeout
        call.deadline, call.max_steps = deadline, max_steps
        call.run_id = run_id
        call.key = key
        view = _View(self, config, stream_mode, print_mode, subgraphs, debug, version, buffer)
        call.outlet = view.outlet
        return AsyncChunkStream(self._achunks(call, view, input), view.outlet)

    async def _achunks(self, call: _launch.Call, view: _View, input: Any) -> AsyncGenerator[Any, None]:
        """Async form of `_chunks`."""
        try:
            driver = await self._astart(call, input, live=view.live or self.stream_eager)
        except Exception:
            for chunk in view.chunks():
                yield chunk
            raise
        _launch.rest(driver.run.request)
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
        self, input: Any, call: _launch.Call, stream_mode: Any, print_mode: Any, version: str, more: dict[str, Any]
    ) -> Any:
        """Async form of `_collect`."""
        view = _View(
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
        return _launch.answer(driver.run, v2=version == "v2", graph=self) if stream_mode == "values" else chunks

    async def _astart(self, call: _launch.Call, value: Any, *, live: bool = False) -> Any:
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
                if not _launch.again(driver.run.request, driver.run, error):
                    raise
                if call.outlet is not None:
                    call.outlet.chunks.clear()
            else:
                return driver

    async def _aenter(self, call: _launch.Call, value: Any, *, live: bool = False) -> Any:
        """Async form of `_enter`."""
        request = _launch.request_for(self, call, value)
        driver = _async_driver()
        try:
            run = _launch.run_for(self, request, await _launch.aenter(request, driver.Alarm), value)
        except BaseException:
            _launch.rest(request)
            raise
        return driver.AsyncDriver(
            run,
            request.saver,
            request.durability,
            inline=not (live or request.prompt or _launch.is_live(request)),
            gate=request.gate,
            step_timeout=self.step_timeout,
        )

    async def _as_async_node(self, input: Any) -> Any:
        """Async form of `_as_node`."""
        driver = await self._aenter(_launch.Call(None), input)
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
        return _launch.own_writes(driver.run)

    async def abatch(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **more: Any,
    ) -> list[Any]:
        """Async form of `batch`."""
        given = _batch_configs(self, inputs, config, more)
        calls = [self.ainvoke(i, c, **more) for i, c in zip(inputs, given, strict=True)]
        return _batch_result(await _async_driver().AsyncDriver.gather(calls, given), return_exceptions)

    async def abatch_as_completed(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **more: Any,
    ) -> AsyncGenerator[tuple[int, Any], None]:
        """Async form of `batch_as_completed`. Who leaves early, with `aclose()`, has the other runs cancelled."""
        given = _batch_configs(self, inputs, config, more)
        calls = [partial(self.ainvoke, i, c, **more) for i, c in zip(inputs, given, strict=True)]
        ended = _async_driver().AsyncDriver.as_completed(calls, given)
        try:
            async for index, result, error in ended:
                if error is not None and not return_exceptions:
                    raise error
                yield index, result if error is None else error
        finally:
            await ended.aclose()

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
        return _state_api.check(self, saver)

    async def acheck(self, saver: Any = None) -> list[Stranded]:
        """Async form of `check`."""
        return await _state_api.acheck(self, saver)

    # ---- state

    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """The state of a thread: the newest, or the checkpoint that the config names; empty if there is none.

        A namespace that no nested graph has is read as if this graph had stored it.

        Raises:
            ValueError: the graph has no saver, or the config no thread_id.
        """
        return _state_api.get(self, config, subgraphs=subgraphs)

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
        yield from _state_api.walk(self, config, filter=filter, before=before, limit=limit, subgraphs=subgraphs)

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
        return _state_api.update(self, config, supersteps, Turn(on_conflict or self.on_conflict, timeout))

    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """Async form of `get_state`."""
        return await _state_api.aget(self, config, subgraphs=subgraphs)

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
        found = _state_api.awalk(self, config, filter=filter, before=before, limit=limit, subgraphs=subgraphs)
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
        return await _state_api.aupdate(self, config, supersteps, turn, _async_driver().Alarm)

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

    def declared_ways(self) -> list[tuple[str, str | None, str]]:
        """(source, target, kind) of `explanation.Way` for every declared way from node to node."""
        entries = {name: [e[0] for e in getattr(node.write, "entries", ())] for name, node in self.nodes.items()}
        inputs = [self.input_channels] if isinstance(self.input_channels, str) else self.input_channels
        return [
            (source, name, "channel")
            for name, node in self.nodes.items()
            for source, channels in ((START, inputs), *entries.items())
            if any(trigger in channels for trigger in node.triggers)
        ]

    # ---- nested graphs

    def get_subgraphs(self, namespace: str | None = None, *, recurse: bool = False) -> Iterator[tuple[str, Pregel]]:
        """(name, graph) of the nodes that hold a compiled graph; with `recurse` also inside them, names joined by `|`.

        `namespace` yields only the graph at that path. Graphs without a memory of their own (`checkpointer=False`) are
        not reported.
        """
        head, _, rest = (namespace or "").partition("|")
        for name, node in self.nodes.items():
            if namespace is not None and name != head:
                continue
            found = next((graph for graph in node.subgraphs if isinstance(graph, Pregel)), None)
            if found is None or found.checkpointer is False:
                continue
            if namespace is None or not rest:
                yield name, found
            if recurse and (namespace is None or rest):
                for inner, graph in found.get_subgraphs(rest or None, recurse=True):
                    yield f"{name}|{inner}", graph

    async def aget_subgraphs(
        self, namespace: str | None = None, *, recurse: bool = False
    ) -> AsyncIterator[tuple[str, Pregel]]:
        """Async form of `get_subgraphs`."""
        for item in self.get_subgraphs(namespace, recurse=recurse):
            yield item

    # ---- cache

    def clear_cache(self, nodes: Sequence[str] | None = None) -> None:
        """Forget the cached results of nodes, None for all; also inside nested graphs that have no cache of their own.

        Results of called tasks are not touched: `task.clear_cache(cache)`.

        Raises:
            ValueError: the graph has no cache.
        """
        namespaces = self._cache_namespaces(nodes)
        self.cache.clear(namespaces)

    async def aclear_cache(self, nodes: Sequence[str] | None = None) -> None:
        """Async form of `clear_cache`."""
        namespaces = self._cache_namespaces(nodes)
        await self.cache.aclear(namespaces)

    def _cache_namespaces(self, nodes: Sequence[str] | None) -> list[tuple[str, ...]]:
        if self.cache is None:
            raise ValueError(
                f"No cache is set for this graph. Cannot clear cache. Compile graph {self.name!r} with cache=..., or call "
                f"clear() of the cache itself"
            )
        names = list(self.nodes) if nodes is None else [nodes] if isinstance(nodes, str) else list(nodes)
        unknown = [name for name in names if name not in self.nodes]
        places = [
            Notice(
                "unknown-node",
                f"clear_cache:{name}",
                f"clear_cache of graph {self.name!r} names {name!r}, which is not a node of it, so nothing of it is "
                f"forgotten; {nearest(name, self.nodes)}",
            )
            for name in unknown
        ]
        emit(places, self.program.warned, strict=self.strict)
        found: dict[tuple[str, ...], None] = {}
        for name in names:
            node = self.nodes.get(name)
            if node is not None:
                found.update(dict.fromkeys(_cached_under(name, node, set())))
        return list(found)

    # ---- pictures

    def get_graph(self, config: Any = None, *, xray: bool | int = False) -> Graph:
        """The drawing of this graph; with `xray` nested graphs are drawn in place, n levels deep or all the way."""
        return build_channel_graph(
            [
                NodeInfo(
                    name,
                    data=node.bound.subject if node.bound is not None else node,
                    metadata=node.metadata,
                    subgraph=partial(_inner_drawing, node.subgraphs[0]) if node.subgraphs else None,
                )
                for name, node in self.nodes.items()
            ],
            triggers={name: node.triggers for name, node in self.nodes.items()},
            writes={name: [e[0] for e in getattr(node.write, "entries", ())] for name, node in self.nodes.items()},
            input_channels=[self.input_channels] if isinstance(self.input_channels, str) else self.input_channels,
            interrupt_before=self.interrupt_before_nodes,
            interrupt_after=self.interrupt_after_nodes,
            xray=xray,
        )

    async def aget_graph(self, config: Any = None, *, xray: bool | int = False) -> Graph:
        """Async form of `get_graph`."""
        return self.get_graph(config, xray=xray)

    def _repr_mimebundle_(self, **_kwargs: object) -> dict[str, str]:
        """Notebooks show the drawing, made here; terminals the ordinary repr."""
        return {"image/svg+xml": self.get_graph().draw_svg(), "text/plain": repr(self)}

    # ---- schemas

    @property
    def InputType(self) -> Any:
        """Type of the input: of the single input channel, or a dict."""
        if isinstance(self.input_channels, str):
            return self.channels[self.input_channels].UpdateType
        return dict[str, Any]

    @property
    def OutputType(self) -> Any:
        """Type of the output: of the single output channel, or a dict."""
        if isinstance(self.output_channels, str):
            return self.channels[self.output_channels].ValueType
        return dict[str, Any]

    def get_input_schema(self, config: Any = None) -> type[Any]:
        """A pydantic model class for the input, named after the graph."""
        model: type[Any] = _jsonschema().model_of(
            self._types(self.input_channels, "UpdateType"), self.get_name("Input")
        )
        return model

    def get_output_schema(self, config: Any = None) -> type[Any]:
        """A pydantic model class for the output, named after the graph."""
        types = self._types(self.output_channels, "ValueType")
        model: type[Any] = _jsonschema().model_of(types, self.get_name("Output"))
        return model

    def get_input_jsonschema(self, config: Any = None) -> dict[str, Any]:
        """JSON schema of the input."""
        found: dict[str, Any] = self.get_input_schema(config).model_json_schema()
        return found

    def get_output_jsonschema(self, config: Any = None) -> dict[str, Any]:
        """JSON schema of the output."""
        found: dict[str, Any] = self.get_output_schema(config).model_json_schema()
        return found

    def get_context_jsonschema(self) -> dict[str, Any] | None:
        """JSON schema of the context, or None if the graph declares none.

        Raises:
            ValueError: the context schema is neither a model, a dataclass nor a TypedDict.
        """
        found: dict[str, Any] | None = _jsonschema().context_schema(self._context_type())
        return found

    def config_schema(self, *, include: Sequence[str] | None = None) -> type[Any]:
        """A pydantic model of the config, with the context as `configurable`; LangGraph's former form of
        `get_context_jsonschema`. `include` has no effect there either."""
        warnings.warn(
            "config_schema() is deprecated; get_context_jsonschema() describes what a run is given",
            PregelDeprecationWarning,
            stacklevel=2,
        )
        model: type[Any] = _jsonschema().config_model(self._context_type())
        return model

    def get_config_jsonschema(self, *, include: Sequence[str] | None = None) -> dict[str, Any]:
        """JSON schema of `config_schema`; deprecated like it."""
        warnings.warn(
            "get_config_jsonschema() is deprecated; get_context_jsonschema() describes what a run is given",
            PregelDeprecationWarning,
            stacklevel=2,
        )
        found: dict[str, Any] = _jsonschema().config_model(self._context_type()).model_json_schema()
        return found

    def _context_type(self) -> Any:
        """The declared context, as pydantic takes it."""
        return self.context_schema

    @property
    def input_schema(self) -> type[Any]:
        """The same as `get_input_schema()`."""
        return self.get_input_schema()

    @property
    def output_schema(self) -> type[Any]:
        """The same as `get_output_schema()`."""
        return self.get_output_schema()

    def _types(self, names: str | Sequence[str], kind: str) -> Any:
        """The type of one channel, or of several by name."""
        if isinstance(names, str):
            return getattr(self.channels[names], kind)
        return {name: getattr(self.channels[name], kind) for name in names}


def _cached_under(name: str, node: PregelNode, seen: set[int]) -> Iterator[tuple[str, ...]]:
    """Namespaces of a node in its graph's cache, and of those of nested graphs that use the same."""
    if node.bound is not None:
        yield namespace_of(name, node.bound.subject)
    for graph in node.subgraphs:
        if id(graph) not in seen and isinstance(graph, Pregel) and graph.cache is None:
            seen.add(id(graph))
            for inner, below in graph.nodes.items():
                yield from _cached_under(inner, below, seen)


def _explain() -> Any:
    """What answers `explain`, imported when somebody asks."""
    from pregel.pregel import _explain  # noqa: PLC0415 - a lazy door

    return _explain


def _inner_drawing(graph: Any, xray: bool | int) -> Graph:
    drawing: Graph = graph.get_graph(xray=xray)
    return drawing


def _jsonschema() -> Any:
    """The module of JSON schemas, imported when somebody asks: it loads pydantic (D36)."""
    from pregel.pregel import _jsonschema  # noqa: PLC0415 - a lazy door

    return _jsonschema


def _async_driver() -> Any:
    """The async driver, imported when a run needs it: it loads asyncio (D36)."""
    from pregel.engine import async_driver  # noqa: PLC0415 - a lazy door

    return async_driver


def _durability(
    graph: Pregel, durability: Durability | Every | None, more: dict[str, Any]
) -> Durability | Every | None:
    """The durability, also in its deprecated spelling; what else is in `more` and no call takes is warned of."""
    if not more:
        return durability
    if "checkpoint_during" in more:
        during = more.pop("checkpoint_during")
        if durability is not None:
            raise ValueError("give durability or checkpoint_during, not both; checkpoint_during is the older name")
        if during is not None:
            durability = "async" if during else "exit"
    _launch.check_arguments(graph, more)
    return durability


def _batch_configs(graph: Pregel, inputs: Sequence[Any], config: Any, more: Mapping[str, Any]) -> list[Any]:
    for one in config if isinstance(config, Sequence) else (config,):
        if one:
            _launch.check_config(graph, one)  # here, where the caller's stack is, and once
    _launch.check_arguments(graph, more)
    if isinstance(config, Sequence):
        if len(config) != len(inputs):
            raise ValueError(f"config must be a list of the same length as inputs, got {len(config)} for {len(inputs)}")
        return list(config)
    return [config] * len(inputs)


def _batch_result(outcomes: Sequence[Any], return_exceptions: bool) -> list[Any]:
    if not return_exceptions:
        for _, error in outcomes:
            if error is not None:
                raise error
    return [result if error is None else error for result, error in outcomes]


class _View:
    """How one call wants its chunks: which modes are delivered, which printed, in which shape."""

    def __init__(
        self,
        graph: Pregel,
        config: Any,
        stream_mode: Any,
        print_mode: Any,
        subgraphs: bool,
        debug: bool | None,
        version: str,
        buffer: float = inf,
    ) -> None:
        if buffer < 1:
            raise ValueError(f"buffer must leave room for at least 1 chunk, got {buffer}")
        if version not in ("v1", "v2"):
            raise ValueError(f"version must be 'v1' or 'v2', got {shown(version)}")
        if stream_mode is None:
            stream_mode = "values" if configs.handle_of(config) is not None else graph.stream_mode
        if debug or (debug is None and graph.debug):
            print_mode = ["updates", "values"]
        self.graph = graph
        self.many = not isinstance(stream_mode, str)
        self.delivered = _modes(stream_mode)
        self.printed = _modes(print_mode)
        self.subgraphs = subgraphs
        self.v2 = version == "v2"
        self.outlet = Outlet(self.delivered | self.printed, subgraphs=subgraphs, buffer=buffer)
        self.live = bool(self.outlet.modes & _launch.LIVE) or subgraphs

    def chunks(self) -> Iterator[Any]:
        """The chunks that have come in, as the caller wants them; printed ones are printed on the way."""
        outlet = self.outlet
        waiting = outlet.chunks
        # Nobody but the run itself shows anything, if there is nobody to wake.
        for _ in range(len(waiting) if outlet.wake is None else outlet.look()):
            chunk = waiting.popleft()
            if outlet.waiting:
                outlet.let_in()
            if chunk[1] in self.printed:
                _print(chunk, self.subgraphs)
            if chunk[1] in self.delivered:
                outlet.taken += 1
                yield _launch.shape(chunk, many=self.many, subgraphs=self.subgraphs, v2=self.v2, graph=self.graph)


def _modes(given: Any) -> frozenset[str]:
    modes = frozenset([given] if isinstance(given, str) else given)
    unknown = modes - _launch.MODES
    if unknown:
        raise ValueError(f"unknown stream mode {sorted(unknown)!r}; the modes are {sorted(_launch.MODES)!r}")
    return modes


def _print(chunk: Any, subgraphs: bool) -> None:
    path, mode, _ = chunk
    where = f"[graph={path}] " if subgraphs and path else ""
    payload = _launch.shape(chunk, many=False, subgraphs=False, v2=False, graph=None)
    print(f"\x1b[1m[{mode}]\x1b[0m {where}{payload!r}")  # noqa: T201 - printing is what print_mode asks for
