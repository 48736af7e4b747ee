"""A graph as users write it, and what the checkers make of it. Lines marked `wrong` must be refused by both."""

import operator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, assert_type

from typing_extensions import TypedDict

from checkpoint.memory import InMemorySaver
from pregel.graph import END, START, StateGraph
from pregel.runtime import Runtime, get_runtime
from pregel.types import Command, Interrupt, RetryPolicy, Send, StateSnapshot, interrupt


class State(TypedDict):
    topic: str
    jokes: Annotated[list[str], operator.add]


class Input(TypedDict):
    topic: str


@dataclass
class Context:
    user: str


def write(state: State) -> dict[str, Any]:
    assert_type(state["jokes"], list[str])
    return {"jokes": [state["topic"]]}


async def awrite(state: State) -> dict[str, Any]:
    return {"jokes": [state["topic"]]}


def with_runtime(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    assert_type(runtime.context, Context)
    assert_type(runtime.context.user, str)
    return {"topic": runtime.context.user}


def asks(state: State) -> Command[Literal["write", "awrite"]]:
    answer = interrupt({"question": state["topic"]})
    assert_type(answer, Any)
    return Command(update={"topic": str(answer)}, goto="write")


def route(state: State) -> Literal["write", "__end__"]:
    return "write" if state["topic"] else "__end__"


def fan_out(state: State) -> list[Send]:
    return [Send("write", {"topic": topic}) for topic in state["jokes"]]


builder = StateGraph(State, context_schema=Context, input_schema=Input)
builder.add_node("write", write, retry_policy=RetryPolicy(max_attempts=2))
builder.add_node("awrite", awrite)
builder.add_node(with_runtime)
builder.add_node("asks", asks)
builder.add_edge(START, "asks")
builder.add_edge("awrite", END)
builder.add_edge(["write", "awrite"], "with_runtime")
builder.add_conditional_edges("with_runtime", route)
builder.add_conditional_edges("write", fan_out, ["write"])

graph = builder.compile(checkpointer=InMemorySaver())
result = graph.invoke({"topic": "graphs"}, {"configurable": {"thread_id": "1"}}, context=Context("me"))
graph.invoke(Command(resume="yes"), {"configurable": {"thread_id": "1"}})
graph.invoke(None, {"configurable": {"thread_id": "1"}})

for chunk in graph.stream({"topic": "graphs"}, stream_mode="updates"):
    assert chunk
for chunk in graph.stream({"topic": "graphs"}, stream_mode=["values", "updates"], subgraphs=True):
    assert chunk

snapshot = graph.get_state({"configurable": {"thread_id": "1"}})
assert_type(snapshot, StateSnapshot)
assert_type(snapshot.next, tuple[str, ...])
assert_type(snapshot.interrupts, tuple[Interrupt, ...])
for entry in graph.get_state_history({"configurable": {"thread_id": "1"}}, limit=3):
    assert_type(entry, StateSnapshot)


async def main() -> None:
    await graph.ainvoke({"topic": "graphs"})
    async for part in graph.astream({"topic": "graphs"}, stream_mode="custom"):
        assert part
    assert_type(await graph.aget_state({"configurable": {"thread_id": "1"}}), StateSnapshot)


def inside() -> None:
    runtime = get_runtime(Context)
    assert_type(runtime, Runtime[Context])


builder.add_edge(START, 3)  # wrong
builder.add_node()  # wrong
builder.compile(checkpointer="memory")  # wrong
builder.compile(interrupt_before=3)  # wrong
graph.invoke({"topic": "graphs"}, stream_mode="sometimes")  # wrong
graph.invoke({"topic": "graphs"}, durability="never")  # wrong
graph.get_state("thread")  # wrong
snapshot.next = ()  # wrong
