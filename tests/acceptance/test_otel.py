"""Spans of runs, supersteps and tasks: how they are nested, what they say, and what becomes of exceptions (promise 58)."""

import asyncio
import builtins
import sys
import threading
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from checkpoint.memory import InMemorySaver
from pregel._scope import current
from pregel.config import RunnableConfig
from pregel.graph import START, StateGraph
from pregel.otel import OpenTelemetryHandler
from pregel.types import Command, RetryPolicy, TracePolicy, interrupt, omit_payload
from tests.support.driving import child
from tests.support.scenarios import Colour, Log

pytestmark = pytest.mark.differs("promise 58: LangGraph has no spans of its own")

IN: Any = {"l": ["in"]}
RETRY = RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=3, retry_on=OSError)


class Traced:
    """A provider of its own, a handler that uses it, and the spans that were exported."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")
        self.handler = OpenTelemetryHandler(provider, **options)

    def config(self, **more: Any) -> Any:
        return {"configurable": {"thread_id": "1"}, "callbacks": [self.handler], **more}

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def tree(self) -> Any:
        """Names of the spans, nested, brothers sorted: `{"run g": {...}}`."""
        below: dict[Any, list[ReadableSpan]] = {}
        for span in self.spans:
            below.setdefault(span.parent.span_id if span.parent else None, []).append(span)

        def nested(id_: Any) -> Any:
            brothers = sorted(below.pop(id_, []), key=lambda span: span.name)
            return [
                (span.name, inside) if (inside := nested(span.context.span_id)) else span.name  # type: ignore[union-attr]
                for span in brothers
            ]

        tree = nested(None)
        assert not below, "spans whose parent was not exported"
        return tree


@pytest.fixture
def traced() -> Traced:
    return Traced()


def spanning(colour: Colour, traced: Traced, name: str) -> Any:
    """A node that makes a span of its own."""

    def node(state: Any) -> Any:
        with traced.tracer.start_as_current_span(f"own {name}"):
            return {"l": [name]}

    return colour.node(node)


def test_spans_are_nested_as_the_work_is(colour, traced):
    """Inline and side by side, in a nested run, below the span that the caller is in; user spans below their task's."""
    inner = StateGraph(Log).add_node("i", spanning(colour, traced, "i")).add_edge(START, "i").compile(name="inner")
    builder = StateGraph(Log).add_node("sub", inner)
    for name in ("a", "b"):
        builder.add_node(name, spanning(colour, traced, name)).add_edge(START, name).add_edge(name, "sub")
    graph = builder.compile(name="g", checkpointer=InMemorySaver())
    with traced.tracer.start_as_current_span("caller"):
        colour.invoke(graph, IN, traced.config())
    assert traced.tree() == [
        (
            "caller",
            [
                (
                    "run g",
                    [
                        ("superstep 1", [("a", ["own a"]), ("b", ["own b"])]),
                        ("superstep 2", [("sub", [("run inner", [("superstep 1", [("i", ["own i"])])])])]),
                    ],
                )
            ],
        )
    ]
    for span in traced.spans:
        assert span.status.status_code is StatusCode.UNSET
        assert span.start_time <= span.end_time  # type: ignore[operator]


def test_a_run_inside_of_a_users_span_is_below_that(colour, traced):
    inner = StateGraph(Log).add_node("i", colour.letter("i")).add_edge(START, "i").compile(name="inner")

    def node(state: Any) -> Any:
        with traced.tracer.start_as_current_span("own"):
            return inner.invoke(IN)

    async def anode(state: Any) -> Any:
        with traced.tracer.start_as_current_span("own"):
            return await inner.ainvoke(IN)

    graph = StateGraph(Log).add_node("n", anode if colour.is_async else node).add_edge(START, "n").compile(name="g")
    colour.invoke(graph, IN, traced.config())
    assert traced.tree() == [
        ("run g", [("superstep 1", [("n", [("own", [("run inner", [("superstep 1", ["i"])])])])])]),
    ]


def test_a_run_in_a_thread_without_the_context_is_below_its_task(traced):
    """The thread has the node's config only."""
    inner = StateGraph(Log).add_node("i", lambda state: None).add_edge(START, "i").compile(name="inner")

    def node(state: Any, config: RunnableConfig) -> None:
        thread = threading.Thread(target=inner.invoke, args=(IN, config))
        thread.start()
        thread.join()

    graph = StateGraph(Log).add_node("n", node).add_edge(START, "n").compile(name="g")
    graph.invoke(IN, traced.config())
    assert traced.tree() == [("run g", [("superstep 1", [("n", [("run inner", [("superstep 1", ["i"])])])])])]


def test_a_called_task_is_below_its_caller(colour, traced):
    step = child(lambda value: value + 1)

    def node(state: Any) -> Any:
        return {"l": [current().spawn(step, 1).result()]}

    async def anode(state: Any) -> Any:
        return {"l": [await current().spawn(step, 1)]}

    graph = StateGraph(Log).add_node("n", anode if colour.is_async else node).add_edge(START, "n").compile(name="g")
    colour.invoke(graph, IN, traced.config())
    assert traced.tree() == [("run g", [("superstep 1", [("n", ["t"])])])]


def test_failures(colour, traced):
    """Of an attempt, of a task, of the run: the exception stands where it came up, and where it left."""
    left = [OSError("again"), ValueError("no")]

    def fail(state: Any) -> Any:
        raise left.pop(0)

    graph = StateGraph(Log).add_node("n", colour.node(fail), retry_policy=RETRY).add_edge(START, "n").compile(name="g")
    with pytest.raises(ValueError):
        colour.invoke(graph, IN, traced.config())
    raised = {
        span.name: [event.attributes["exception.message"].splitlines()[0] for event in span.events]
        for span in traced.spans
    }
    assert raised == {"n": ["again", "no"], "superstep 1": [], "run g": ["no"]}
    assert {span.status.status_code for span in traced.spans} == {StatusCode.ERROR}
    assert traced.named("n").attributes["pregel.attempt"] == 2


def test_a_question_is_no_error(colour, traced):
    def ask(state: Any) -> Any:
        return {"l": [interrupt("?")]}

    graph = StateGraph(Log).add_node("ask", colour.node(ask)).add_edge(START, "ask")
    graph = graph.compile(name="g", checkpointer=InMemorySaver())
    colour.invoke(graph, IN, traced.config())
    run, task = traced.named("run g"), traced.named("ask")
    assert {span.status.status_code for span in traced.spans} == {StatusCode.UNSET}
    assert run.attributes["pregel.status"] == task.attributes["pregel.status"] == "interrupted"
    assert run.attributes["pregel.interrupts"] == task.attributes["pregel.interrupts"]
    assert [event.name for event in run.events] == ["pregel.checkpoint"] * 2 + ["pregel.interrupt"]
    traced.exporter.clear()
    colour.invoke(graph, Command(resume="yes"), traced.config())
    run = traced.named("run g")
    assert [event.name for event in run.events] == ["pregel.resume", "pregel.checkpoint"]
    assert (run.attributes["pregel.status"], run.attributes["pregel.thread_id"]) == ("done", "1")


@pytest.mark.parametrize("record_values", [False, True])
def test_values_are_recorded_on_request_as_the_policy_says(colour, record_values):
    traced = Traced(record_values=record_values)
    policy = TracePolicy(process_inputs=omit_payload, process_outputs=lambda value: "out")
    builder = StateGraph(Log).add_node("hidden", colour.letter("hidden"), trace_policy=policy)
    builder.add_node("open", colour.letter("open"), metadata={"m": 1}).add_edge(START, "hidden").add_edge(
        "hidden", "open"
    )
    colour.invoke(builder.compile(name="g"), {"l": ["x" * 9000]}, traced.config(tags=["t"], metadata={"k": "v"}))
    values = {
        name: (span.attributes.get("pregel.input"), span.attributes.get("pregel.output"))
        for name in ("hidden", "open", "run g")
        for span in [traced.named(name)]
    }
    if record_values:
        assert values["hidden"] == ("{}", "'out'")
        assert [len(value) for value in (values["open"][0], *values["run g"])] == [4000] * 3
        assert values["open"][1] == "{'l': ['open']}"
    else:
        assert values == dict.fromkeys(values, (None, None))
    run = traced.named("run g")
    assert (run.attributes["pregel.tags"], run.attributes["pregel.metadata.k"]) == (("t",), "v")
    assert traced.named("open").attributes["pregel.metadata.m"] == 1


def test_nothing_is_left_open_when_a_run_is_cancelled(traced):
    async def main() -> None:
        started = asyncio.Event()

        async def wait(state: Any) -> None:
            started.set()
            await asyncio.Event().wait()

        graph = StateGraph(Log).add_node("n", wait).add_edge(START, "n").compile(name="g")
        task = asyncio.create_task(graph.ainvoke(IN, traced.config()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert traced.tree() == [("run g", [("superstep 1", ["n"])])]
    assert not traced.handler._spans


def test_without_a_provider_nothing_happens(colour):
    graph = StateGraph(Log).add_node("n", colour.letter("n")).add_edge(START, "n").compile()
    handler = OpenTelemetryHandler()
    assert colour.invoke(graph, IN, {"callbacks": [handler]}) == {"l": ["in", "n"]}
    assert not trace.get_current_span().get_span_context().is_valid


def test_the_package_is_asked_for_by_its_extra(monkeypatch):
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "pregel.otel")
    with pytest.raises(ImportError, match=r"pregel\[otel\]"):
        import pregel.otel  # noqa: F401
