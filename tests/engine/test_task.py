"""Identity and order of tasks, and what a body is."""

import asyncio
from contextvars import ContextVar, copy_context

import pytest

from pregel._call import prepare
from pregel._scope import TaskScope, current
from pregel.constants import PARENT
from pregel.engine import task as module
from pregel.engine.program import Returned
from pregel.engine.task import (
    Task,
    acall,
    acall_routers,
    call,
    call_node,
    digest,
    in_context,
    interrupt_id,
    order,
    path_text,
    task_id,
)
from pregel.errors import Interrupt, ParentCommand
from pregel.runtime import Runtime
from pregel.types import Command
from tests.support.dummies import dummy_program, dummy_run, node, writer


def tasks():
    """A pull task, two sends, a called task and one called by it, and a failure's handler."""
    program = dummy_program({"a": node(), "b": node()})
    pull = Task(program.nodes["a"], None)
    second, tenth = Task(program.nodes["a"], None, 2), Task(program.nodes["a"], None, 10)
    child = Task(program.nodes["b"], None)
    child.parent, child.call_index = pull, 0
    grandchild = Task(program.nodes["b"], None)
    grandchild.parent, grandchild.call_index = child, 3
    handler = Task(program.nodes["b"], None)
    handler.parent = second
    return pull, second, tenth, child, grandchild, handler


def test_starting_over_forgets_the_outcome_and_keeps_the_answers():
    task = tasks()[0]
    task.interrupts, task.error, task.answers = (Interrupt("?", "0" * 32),), ValueError("boom"), [1]
    task.start_over()
    assert (task.interrupts, task.error, task.answers) == ((), None, [1])


def test_paths():
    pull, second, _, child, grandchild, handler = tasks()
    assert pull.path == ("__pregel_pull", "a")
    assert second.path == ("__pregel_push", 2, False)
    assert child.path == ("__pregel_push", ("__pregel_pull", "a"), 0, True)
    assert grandchild.path == ("__pregel_push", child.path, 3, True)
    assert handler.path == ("__pregel_push", 2, False, "node_error_handler", False)


def test_only_a_woken_task_has_the_triggers_of_its_node():
    pull, second, _, child, _, handler = tasks()
    assert pull.is_pull
    assert pull.triggers == ("x",)
    for task in (second, child, handler):
        assert not task.is_pull
        assert task.triggers == ("__pregel_push",)


def test_the_order_is_total_numeric_and_puts_pulls_first():
    pull, second, tenth, child, grandchild, handler = tasks()
    ordered = sorted([grandchild, child, handler, tenth, second, pull], key=order)
    assert ordered == [pull, second, handler, tenth, child, grandchild]


def test_path_text():
    assert path_text(("p", 3, False)) == "~p, 0000000003, 0000000000"
    assert path_text(("p", ("q", 1))) == "~p, ~q, 0000000001"


def test_ids_depend_on_everything_that_identifies_a_task_and_on_nothing_else():
    pull, second, tenth, child, grandchild, handler = tasks()
    every = [task_id("c", "n", task) for task in (pull, second, tenth, child, grandchild)]
    every += [task_id("c", "n", handler, "p"), task_id("c", "n", handler, "q"), task_id("c", "n", handler)]
    every += [task_id("d", "n", pull), task_id("c", "m", pull)]
    assert len(set(every)) == len(every)
    assert every[:5] == [task_id("c", "n", task) for task in tasks()[:5]]


def test_ids_look_like_uuids_and_take_any_text():
    assert [len(part) for part in digest(["\ud800", "x"]).split("-")] == [8, 4, 4, 4, 12]
    assert digest(["ab", "c"]) != digest(["a", "bc"])


def test_interrupt_ids():
    ids = [interrupt_id("a:1", n) for n in range(3)]
    assert len(set(ids)) == 3
    assert all(len(id_) == 32 for id_ in ids)
    assert interrupt_id("a:1", 0) == ids[0]
    assert interrupt_id("a:2", 0) != ids[0]


# ---- bodies


class Router:
    """Notes the result and the node's own writes, and adds one."""

    def __init__(self, name):
        self.name = name
        self.call = type("Call", (), {"fn": print})()

    def route(self, result, scope, writes):
        assert current() is scope
        writes.append((self.name, (result, len(writes))))

    async def aroute(self, result, scope, writes):
        self.route(result, scope, writes)


def scope_of(spec, value=5):
    run = dummy_run(dummy_program({"a": spec}))
    return TaskScope(run, Task(run.program.nodes["a"], value), None)


def run_body(spec):
    """The writes of a node's body in both colours, as far as it has them."""
    node_ = scope_of(spec)
    if node_.task.node.fn is None:
        return asyncio.run(acall(node_))
    writes = copy_context().run(call, node_)
    if node_.task.node.afn is None and spec.bound is not None:
        return writes
    assert asyncio.run(acall(scope_of(spec))) == writes
    return writes


def test_a_body_is_the_node_its_writer_and_its_routers():
    assert run_body(node(fn=lambda x: {"y": x + 1}, routers=[Router("r"), Router("s")])) == [
        ("y", 6),
        ("r", ({"y": 6}, 1)),
        ("s", ({"y": 6}, 2)),
    ]


def test_the_async_form():
    async def body(x):
        return {"y": x + 1}

    assert run_body(node(fn=body, routers=[Router("r")])) == [("y", 6), ("r", ({"y": 6}, 1))]


def test_a_node_without_function_passes_its_input_on():
    def keep(result, scope, writes):
        writes.append(("y", result))

    assert run_body(node(write=keep)) == [("y", 5)]


def test_a_node_without_writer():
    assert run_body(node(fn=lambda x: {"y": x}, write=None)) == []

    async def body(x):
        return {"y": x}

    assert run_body(node(fn=body, write=None)) == []


def test_writes_on_the_side_come_first():
    def body(x):
        current().write("side", 1)
        return {"y": x}

    async def abody(x):
        return body(x)

    assert run_body(node(fn=body)) == run_body(node(fn=abody)) == [("side", 1), ("y", 5)]


def test_injection_is_given_the_scope():
    def body(x, runtime: Runtime):
        return {"y": runtime}

    async def abody(x, runtime: Runtime):
        return body(x, runtime)

    for fn in (body, abody):
        ((_, (kind, scope)),) = run_body(node(fn=fn))
        assert (kind, type(scope)) == ("runtime", TaskScope)
    assert call_node(scope_of(node(fn=body)))[1][0][1][0] == "runtime"


def test_a_command_for_this_graph_from_below_is_the_result_without_its_address():
    seen = []

    def body(x):
        raise ParentCommand(Command(graph="here", update={"y": 1}))

    async def abody(x):
        body(x)

    def keep(result, scope, writes):
        seen.append(result)

    for fn in (body, abody):
        run_body(node(fn=fn, write=keep))
    copy_context().run(call_node, scope_of(node(fn=body, write=keep)))
    assert seen == [Command(graph=None, update={"y": 1})] * 3


def test_a_command_of_the_writer_for_the_parent_leaves_the_body():
    def up(result, scope, writes):
        raise ParentCommand(Command(graph=PARENT))

    with pytest.raises(ParentCommand):
        run_body(node(fn=lambda x: x, write=up))


def test_an_async_function_cannot_run_in_a_sync_body():
    async def body(x):
        return x

    with pytest.raises(TypeError):
        copy_context().run(call, scope_of(node(fn=body)))


def test_a_sync_body_with_async_routers_comes_in_two_halves():
    scope = scope_of(node(fn=lambda x: {"y": x}, routers=[Router("r")]))
    result, writes = copy_context().run(call_node, scope)
    assert (result, writes) == ({"y": 5}, [("y", 5)])
    asyncio.run(acall_routers(scope, result, writes))
    assert writes == [("y", 5), ("r", ({"y": 5}, 1))]
    assert copy_context().run(call_node, scope_of(node(fn=lambda x: 3, write=None))) == (3, [])


def test_the_dummy_writer_takes_dicts():
    writes = []
    writer({"a": 1}, None, writes)
    writer(None, None, writes)
    assert writes == [("a", 1)]


# ---- what a node returns to be run in its place


def running_it(result, scope, writes):
    """A writer that has anything but a dict run."""
    if callable(result):
        raise Returned(prepare(result))
    writes.extend(result.items())


def inner(x):
    return {"y": x * 2}


async def ainner(x):
    return {"y": x * 3}


def with_runtime(x, runtime: Runtime):
    return {"y": runtime[0]}


async def awith_runtime(x, runtime: Runtime):
    return {"y": runtime[0]}


@pytest.mark.parametrize(("returned", "value"), [(inner, 10), (with_runtime, "runtime")])
def test_a_callable_that_is_returned_gets_the_input_of_the_node(returned, value):
    spec = node(fn=lambda x: returned, write=running_it)
    assert copy_context().run(call, scope_of(spec)) == [("y", value)]
    assert copy_context().run(call_node, scope_of(spec))[1] == [("y", value)]


@pytest.mark.parametrize(
    ("returned", "value"), [(inner, 10), (with_runtime, "runtime"), (ainner, 15), (awith_runtime, "runtime")]
)
def test_a_callable_that_an_async_node_returns(returned, value):
    async def body(x):
        return returned

    assert asyncio.run(acall(scope_of(node(fn=body, write=running_it)))) == [("y", value)]


def test_an_async_callable_cannot_be_run_in_place_of_a_sync_body():
    with pytest.raises(TypeError):
        copy_context().run(call, scope_of(node(fn=lambda x: ainner, write=running_it)))


# ---- a coroutine in a context of its own

VAR = ContextVar("test_task_var", default="outside")


def test_the_context_of_a_body_is_its_own_and_its_result_comes_back():
    async def body():
        VAR.set("inside")
        await asyncio.sleep(0)
        return VAR.get()

    async def main():
        return await in_context(body(), copy_context()), VAR.get()

    assert asyncio.run(main()) == ("inside", "outside")


def test_cancellation_goes_where_the_body_waits():
    seen = []

    async def body():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(VAR.get())
            await asyncio.sleep(0)
            seen.append("cleaned up")
            raise

    async def outer():
        context = copy_context()
        context.run(VAR.set, "inside")
        await in_context(body(), context)

    async def main():
        task = asyncio.ensure_future(outer())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == ["inside", "cleaned up"]


def test_a_body_that_is_left_alone_is_closed():
    seen = []

    async def body():
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("closed")

    async def outer():
        await in_context(body(), copy_context())

    async def main():
        waiting = outer()
        waiting.send(None)
        waiting.close()

    asyncio.run(main())
    assert seen == ["closed"]


def test_many_ids_take_a_bounded_memory(monkeypatch):
    monkeypatch.setattr(module, "MAX_TAILS", 3)
    module._tails.clear()
    pull = tasks()[0]
    checkpoint = "1f0c4e9a-0000-6000-8000-000000000000"
    first = task_id(checkpoint, "n0", pull)
    for n in range(10):
        task_id(checkpoint, f"n{n}", pull)
    assert len(module._tails) <= 3
    assert task_id(checkpoint, "n0", pull) == first
