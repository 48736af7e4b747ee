"""OpenTelemetry: a span for every run, superstep and task (extra `otel`: `pip install pregel[otel]`).

`OpenTelemetryHandler` is a handler of `pregel.callbacks`: it stands in `config["callbacks"]`, and nested runs have it too.
Spans are nested as the work is: a root run below whatever span is current where the graph is called, a superstep below
its run, a task below its superstep or the task that called it, a nested run below the task that it is part of. While a
body runs, its task's span is the current one, on whatever thread or event loop that is: spans that user code starts become
its children.

Decides names, attributes and nesting of spans. Knows no exporter and no sampling: those are the SDK's, which the program
sets up; without one OpenTelemetry does nothing. Values of nodes are recorded only on request, as their trace policies say.

Span and attribute names follow OpenTelemetry's rules for naming; they begin with `pregel.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from pregel.callbacks import (
    CheckpointEvent,
    GraphCallbackHandler,
    GraphInterruptEvent,
    GraphResumeEvent,
    RunEvent,
    SuperstepEvent,
    TaskEvent,
)
from pregel.errors import shown

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode
except ImportError as missing:
    raise ImportError(
        "pregel.otel needs opentelemetry-api, which is not installed; install the extra: pip install 'pregel[otel]'"
    ) from missing

__all__ = ["OpenTelemetryHandler"]

RECORDED_LENGTH: Final = 4000
"""Characters of a recorded value."""
ASKED: Final = ("interrupted", "interrupt_before", "interrupt_after")
_NS: Final = 1_000_000_000


class OpenTelemetryHandler(GraphCallbackHandler):
    """Makes a span of every run, superstep and task.

    One handler serves any number of runs, also at the same time. A span that is not ended, because the process dies, is
    never exported: that is how OpenTelemetry works.

    Args:
        tracer_provider: where spans go; the global one if None, looked up when the first span is made.
        record_values: also record inputs and outputs, as text of at most 4000 characters; those of a node as its
            `trace_policy` says.
    """

    def __init__(self, tracer_provider: trace.TracerProvider | None = None, *, record_values: bool = False) -> None:
        self.record_values = record_values
        self._provider = tracer_provider
        self._spans: dict[Any, Span] = {}
        """Open ones: of runs by id, of supersteps by (run id, step), of tasks by (run id, task id). One is set, looked up
        and removed in one operation each, so any thread may."""

    # ---- runs

    def on_run_start(self, event: RunEvent) -> None:
        """Begin the span of a run."""
        parent = None
        if event.parent_run_id is not None and not trace.get_current_span().get_span_context().is_valid:
            # Started in a thread that has the config, but not the context, of the task around it.
            parent = self._spans.get((event.parent_run_id, event.parent_task_id))
        attributes = {
            "pregel.run_id": str(event.run_id),
            "pregel.graph": event.name,
            "pregel.thread_id": event.thread_id,
            "pregel.checkpoint_ns": "|".join(event.checkpoint_ns) or None,
            "pregel.tags": event.tags or None,
            **_plain("pregel.metadata.", event.metadata),
            **self._value("pregel.input", event.input),
        }
        self._spans[event.run_id] = self._begin(f"run {event.name}", event.at, parent, attributes)

    def on_run_end(self, event: RunEvent) -> None:
        """End it. A question or a breakpoint is no error."""
        self._end(
            event.run_id,
            event.at,
            {
                "pregel.status": event.status,
                "pregel.interrupts": tuple(question.id for question in event.interrupts) or None,
                **self._value("pregel.output", event.output),
            },
        )

    def on_run_error(self, event: RunEvent) -> None:
        """End it, with the exception."""
        self._end(event.run_id, event.at, {"pregel.status": event.status}, event.error)

    def on_resume(self, event: GraphResumeEvent) -> None:
        """An event of the run's span."""
        self._note(event.run_id, "pregel.resume", {"pregel.checkpoint_id": event.checkpoint_id})

    def on_interrupt(self, event: GraphInterruptEvent) -> None:
        """An event of the run's span."""
        ids = tuple(question.id for question in event.interrupts)
        attributes = {
            "pregel.status": event.status,
            "pregel.checkpoint_id": event.checkpoint_id,
            "pregel.interrupts": ids,
        }
        self._note(event.run_id, "pregel.interrupt", attributes)

    def on_checkpoint(self, event: CheckpointEvent) -> None:
        """An event of the run's span."""
        attributes = {
            "pregel.checkpoint_id": event.checkpoint_id,
            "pregel.step": event.step,
            "pregel.source": event.source,
        }
        self._note(event.run_id, "pregel.checkpoint", attributes, event.at)

    # ---- supersteps

    def on_superstep_start(self, event: SuperstepEvent) -> None:
        """Begin the span of a superstep."""
        attributes = {"pregel.step": event.step, "pregel.tasks": event.tasks}
        parent = self._spans.get(event.run_id)
        self._spans[event.run_id, event.step] = self._begin(f"superstep {event.step}", event.at, parent, attributes)

    def on_superstep_end(self, event: SuperstepEvent) -> None:
        """End it. The exception that ended it stands in the spans of its task and of the run."""
        span = self._spans.get((event.run_id, event.step))
        if span is not None and event.status == "failed":
            span.set_status(Status(StatusCode.ERROR))
        self._end((event.run_id, event.step), event.at, {"pregel.status": event.status})

    # ---- tasks

    def on_task_start(self, event: TaskEvent) -> None:
        """Begin the span of a task, unless its body has begun it."""
        self._task(event)

    def enter_task(self, event: TaskEvent) -> None:
        """Make the task's span the current one of its body; the context ends with the body."""
        contexts.attach(trace.set_span_in_context(self._task(event)))

    def on_task_retry(self, event: TaskEvent) -> None:
        """An event of the task's span, with the exception of the attempt."""
        span = self._spans.get((event.run_id, event.task_id))
        if span is not None and event.error is not None:
            attributes = {"pregel.attempt": event.attempt, "pregel.retry_after": event.retry_after or 0.0}
            span.record_exception(event.error, attributes, timestamp=_ns(event.at))

    def on_task_end(self, event: TaskEvent) -> None:
        """End it."""
        self._end(
            (event.run_id, event.task_id),
            event.at,
            {
                "pregel.status": event.status,
                "pregel.attempt": event.attempt,
                "pregel.interrupts": tuple(question.id for question in event.interrupts) or None,
                **(self._value("pregel.output", event.recorded_output()) if self.record_values else {}),
            },
        )

    def on_task_error(self, event: TaskEvent) -> None:
        """End it, with the exception."""
        attributes = {"pregel.status": event.status, "pregel.attempt": event.attempt}
        self._end((event.run_id, event.task_id), event.at, attributes, event.error)

    def _task(self, event: TaskEvent) -> Span:
        """The span of a task; made by whoever needs it first, the driver or the body."""
        key = event.run_id, event.task_id
        span = self._spans.get(key)
        if span is not None:
            return span
        parent = self._spans.get((event.run_id, event.parent_task_id)) if event.parent_task_id else None
        attributes = {
            "pregel.node": event.name,
            "pregel.task_id": event.task_id,
            "pregel.step": event.step,
            "pregel.tags": event.tags or None,
            **_plain("pregel.metadata.", event.metadata),
            **(self._value("pregel.input", event.recorded_input()) if self.record_values else {}),
        }
        around = parent or self._spans.get((event.run_id, event.step))
        return self._spans.setdefault(key, self._begin(event.name, event.at, around, attributes))

    # ---- spans

    def _begin(self, name: str, at: float, parent: Span | None, attributes: Mapping[str, Any]) -> Span:
        """A new span, below this one, or below the current one of the context."""
        tracer = trace.get_tracer("pregel", tracer_provider=self._provider)
        around = None if parent is None else trace.set_span_in_context(parent)
        given = {key: value for key, value in attributes.items() if value is not None}
        return tracer.start_span(name, around, SpanKind.INTERNAL, given, start_time=_ns(at))

    def _end(self, key: Any, at: float, attributes: Mapping[str, Any], error: BaseException | None = None) -> None:
        span = self._spans.pop(key, None)
        if span is None:
            return
        for name, value in attributes.items():
            if value is not None:
                span.set_attribute(name, value)
        if error is not None:
            span.record_exception(error, timestamp=_ns(at))
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        span.end(_ns(at))

    def _note(self, run_id: UUID | None, name: str, attributes: dict[str, Any], at: float | None = None) -> None:
        span = self._spans.get(run_id)
        if span is not None:
            span.add_event(name, attributes, None if at is None else _ns(at))

    def _value(self, name: str, value: Any) -> dict[str, str]:
        return {name: shown(value, RECORDED_LENGTH)} if self.record_values else {}


def _ns(at: float) -> int:
    return int(at * _NS)


def _plain(prefix: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What of metadata an attribute can hold."""
    return {f"{prefix}{key}": value for key, value in metadata.items() if isinstance(value, (str, bool, int, float))}
