"""User values and policies. Lines marked `wrong` must be refused by both checkers."""

from datetime import timedelta
from typing import Any, assert_type

from pregel.config import get_config, get_stream_writer
from pregel.constants import END, START
from pregel.errors import GraphInterrupt, GraphRecursionError, NodeTimeoutError
from pregel.runtime import ExecutionInfo, RunControl, Runtime
from pregel.types import (
    CachePolicy,
    Command,
    Interrupt,
    Overwrite,
    PregelTask,
    RetryPolicy,
    RunnableConfig,
    Send,
    StateUpdate,
    StreamMode,
    StreamWriter,
    TimeoutPolicy,
)

send = Send("node", {"x": 1}, timeout=timedelta(seconds=3))
assert_type(send.node, str)
assert_type(send.timeout, TimeoutPolicy | None)
command: Command[str] = Command(update={"x": Overwrite([1])}, goto=["a", Send("b", 2)])
parent: Command[Any] = Command(graph=Command.PARENT, goto="a")
policy = RetryPolicy(retry_on=(ValueError, KeyError), jitter=False)
RetryPolicy(retry_on=lambda error: isinstance(error, OSError))
assert_type(policy.max_attempts, int)
CachePolicy(key_func=lambda x: str(x), ttl=3)
assert_type(TimeoutPolicy.coerce(3), TimeoutPolicy | None)
update = StateUpdate({"x": 1}, as_node="a")
assert_type(update.as_node, str | None)
mode: StreamMode = "messages"
config: RunnableConfig = {"configurable": {"thread_id": "1"}, "tags": ["t"], "recursion_limit": 5}


def node(x: int) -> dict[str, str]:
    assert_type(get_config(), RunnableConfig)
    writer = get_stream_writer()
    assert_type(writer, StreamWriter)
    writer({"progress": x})
    return {START: END}


def look(task: PregelTask, question: Interrupt, runtime: Runtime[None]) -> None:
    assert_type(task.name, str)
    assert_type(question.id, str)
    assert_type(runtime.context, None)
    assert_type(runtime.execution_info, ExecutionInfo | None)
    assert_type(runtime.drain_requested, bool)


def caught(error: GraphInterrupt | NodeTimeoutError | GraphRecursionError) -> None:
    if isinstance(error, GraphInterrupt):
        assert_type(error.interrupts, tuple[Interrupt, ...])
    elif isinstance(error, NodeTimeoutError):
        assert_type(error.elapsed, float)


control = RunControl()
control.request_drain("deploy")
assert_type(control.drain_reason, str | None)

Send("node")  # wrong
Send(3, {})  # wrong
Command("parent")  # wrong
command.goto = "a"  # wrong
RetryPolicy(max_attempts="many")  # wrong
RetryPolicy(retry_on=3)  # wrong
TimeoutPolicy(3)  # wrong
TimeoutPolicy(run_timeout="3s")  # wrong
CachePolicy(ttl="long")  # wrong
StateUpdate({"x": 1}, as_node=3)  # wrong
bad_mode: StreamMode = "sometimes"  # wrong
bad_config: RunnableConfig = {"recursion_limit": "many"}  # wrong
control.request_drain(3)  # wrong
