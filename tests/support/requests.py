"""Graphs and calls for tests of what is asked of a run: requests, made outside and inside of tasks."""

from contextvars import copy_context
from types import SimpleNamespace

from pregel._scope import enter
from pregel.engine.core import Run
from pregel.pregel import _request, _start
from pregel.pregel._request import Call
from tests.support.dummies import dummy_program, node

THREAD = {"configurable": {"thread_id": "t"}}


def graph(**fields):
    made = {
        "name": "g",
        "program": dummy_program({"a": node("x", tags=["n"], metadata={"own": 1})}),
        "checkpointer": None,
        "store": None,
        "context_schema": None,
        "config": None,
        "retry_policy": (),
        "interrupt_before_nodes": (),
        "interrupt_after_nodes": (),
        "isolate": "shallow",
        "on_conflict": "raise",
        "strict": False,
        "coerce_output": lambda value: ("coerced", value),
    }
    made.update(cache=None, cache_policy=None)
    return SimpleNamespace(**{**made, **fields})


def call(config=None, **fields):
    made = Call(config)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def request(config=None, *, on=None, **fields):
    return _request.request_for(on or graph(), call(config, **fields))


def inside(config=None, *, on=None, outer=None, plain=False, **fields):
    """The request of a call inside a running task of a root run; the root's request is made from `outer`."""
    around = graph(program=dummy_program({"a": node("x")})) if plain else graph()
    made = outer or request({"tags": ["t"], "metadata": {"user": 1}, "configurable": {"k": 1}}, on=around)
    run = Run(around.program, made, _start.load(made))
    run.start(1)
    scope = run.open(run.plan()[0])

    def go():
        enter(scope)
        given = config(scope) if callable(config) else config
        return _request.request_for(on or graph(), call(given, **fields))

    return copy_context().run(go), scope
