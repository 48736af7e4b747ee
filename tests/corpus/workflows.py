"""Workflows as plain functions: reviews, parallel calls, chains, routing, loops, agents, memory, retries."""

import asyncio
import operator
import uuid
from typing import Annotated, Any

from typing_extensions import TypedDict

from checkpoint.memory import InMemorySaver
from pregel.config import get_stream_writer
from pregel.func import entrypoint, task
from pregel.graph import START, StateGraph, add_messages
from pregel.messages import Message
from pregel.store.base import BaseStore
from pregel.store.memory import InMemoryStore
from pregel.types import Command, RetryPolicy, RunnableConfig, StreamWriter, interrupt
from tests.support.scenarios import Colour


def thread() -> dict[str, Any]:
    return {"configurable": {"thread_id": str(uuid.uuid4())}}


def an_essay_that_a_person_reviews(colour: Colour) -> None:
    written = []

    @task
    @colour.node
    def write_essay(topic: str) -> str:
        """Write an essay about the given topic."""
        written.append(topic)
        return f"An essay about topic: {topic}"

    @entrypoint(checkpointer=InMemorySaver())
    @colour.script
    def workflow(topic: str) -> Any:
        essay = yield write_essay("cat")
        is_approved = interrupt({"essay": essay, "action": "Please approve/reject the essay"})
        return {"essay": essay, "is_approved": is_approved}

    config = thread()
    chunks = colour.stream(workflow, "cat", config)
    assert chunks[0] == {"write_essay": "An essay about topic: cat"}
    assert chunks[1]["__interrupt__"][0].value["action"] == "Please approve/reject the essay"
    assert colour.stream(workflow, Command(resume=True), config) == [
        {"workflow": {"essay": "An essay about topic: cat", "is_approved": True}}
    ]
    assert written == ["cat"]


def parallel_calls(colour: Colour) -> None:
    @task
    @colour.node
    def paragraph(topic: str) -> str:
        return f"About {topic}."

    @entrypoint(checkpointer=InMemorySaver())
    @colour.script
    def workflow(topics: list[str]) -> Any:
        paragraphs = yield [paragraph(topic) for topic in topics]
        return " ".join(paragraphs)

    assert colour.invoke(workflow, ["a", "b", "c"], thread()) == "About a. About b. About c."


def a_chain_with_a_gate(colour: Colour) -> None:
    @task
    @colour.node
    def joke(topic: str) -> str:
        return f"{topic}, haha"

    @task
    @colour.node
    def improve(text: str) -> str:
        return text + "!"

    @entrypoint()
    @colour.script
    def workflow(topic: str) -> Any:
        first = yield joke(topic)
        if "cats" not in first:
            return first
        return (yield improve((yield improve(first))))

    assert colour.invoke(workflow, "cats") == "cats, haha!!"
    assert colour.stream(workflow, "dogs") == [{"joke": "dogs, haha"}, {"workflow": "dogs, haha"}]


def evaluator_and_optimizer(colour: Colour) -> None:
    @task
    @colour.node
    def generate(topic: str, feedback: str | None = None) -> str:
        return f"{topic} {feedback or 'draft'}"

    @task
    @colour.node
    def grade(text: str) -> dict[str, Any]:
        return {"grade": "funny" if "better" in text else "dull", "feedback": "better"}

    @entrypoint()
    @colour.script
    def workflow(topic: str) -> Any:
        feedback = None
        while True:
            text = yield generate(topic, feedback)
            verdict = yield grade(text)
            if verdict["grade"] == "funny":
                return text
            feedback = verdict["feedback"]

    assert colour.invoke(workflow, "cats") == "cats better"


def an_agent_with_tools(colour: Colour) -> None:
    """A loop of a model and tools over messages, with a short-term memory."""

    @task
    @colour.node
    def call_llm(messages: list[Any]) -> Any:
        last = messages[-1]
        if last["role"] == "user" and "add" in last["content"]:
            call = {"id": f"c{len(messages)}", "type": "function", "function": {"name": "add", "arguments": "{}"}}
            return Message(role="assistant", content="", tool_calls=[call])
        return Message(role="assistant", content=f"seen {len(messages)}")

    @task
    @colour.node
    def call_tool(call: dict[str, Any]) -> Any:
        return Message(role="tool", content="7", tool_call_id=call["id"])

    @entrypoint(checkpointer=InMemorySaver())
    @colour.script
    def agent(messages: list[Any], *, previous: Any = None) -> Any:
        messages = add_messages(previous or [], messages)
        answer = yield call_llm(messages)
        while answer.tool_calls:
            results = yield [call_tool(call) for call in answer["tool_calls"]]
            messages = add_messages(messages, [answer, *results])
            answer = yield call_llm(messages)
        messages = add_messages(messages, answer)
        return entrypoint.final(value=answer, save=messages)

    config = thread()
    first = colour.invoke(agent, [{"role": "user", "content": "add 3 and 4"}], config)
    assert first.content == "seen 3"
    assert colour.invoke(agent, [{"role": "user", "content": "and?"}], config).content == "seen 5"
    assert colour.get_state(agent, config).values.content == "seen 5"


def numbers_that_accumulate(colour: Colour) -> None:
    @entrypoint(checkpointer=InMemorySaver())
    @colour.node
    def accumulate(n: int, *, previous: int | None) -> entrypoint.final[int, int]:
        previous = previous or 0
        total = previous + n
        return entrypoint.final(value=previous, save=total)

    config = thread()
    assert [colour.invoke(accumulate, n, config) for n in (1, 2, 3)] == [0, 1, 3]


def what_is_injected(colour: Colour) -> None:
    store = InMemoryStore()

    @task
    @colour.node
    def remember(name: str, *, store: BaseStore) -> int:
        store.put(("names",), name, {"name": name})
        return len(store.search(("names",)))

    @entrypoint(checkpointer=InMemorySaver(), store=store)
    @colour.script
    def workflow(name: str, *, writer: StreamWriter, config: RunnableConfig) -> Any:
        writer("from the workflow")
        get_stream_writer()(config["configurable"]["user"])
        return (yield remember(name))

    config = thread()
    config["configurable"]["user"] = "u1"
    chunks = colour.stream(workflow, "ann", config, stream_mode=["custom", "updates"])
    assert chunks == [
        ("custom", "from the workflow"),
        ("custom", "u1"),
        ("updates", {"remember": 1}),
        ("updates", {"workflow": 1}),
    ]


def a_task_that_is_tried_again_and_a_workflow_that_is_resumed(colour: Colour) -> None:
    attempts: list[str] = []

    @task(retry_policy=RetryPolicy(initial_interval=0.0, retry_on=ValueError))
    @colour.node
    def flaky() -> str:
        attempts.append("flaky")
        if len(attempts) < 2:
            raise ValueError("Failure")
        return "OK"

    @task
    @colour.node
    def slow() -> str:
        attempts.append("slow")
        return "Ran slow task."

    @entrypoint(checkpointer=InMemorySaver())
    @colour.script
    def main(inputs: Any) -> Any:
        yield slow()
        yield flaky()
        if attempts.count("slow") == 1 and "failed" not in attempts:
            attempts.append("failed")
            raise RuntimeError("once")
        return "done"

    config = thread()
    _, error = colour.outcome(main, {"any_input": "foobar"}, config)
    assert isinstance(error, RuntimeError)
    assert colour.invoke(main, None, config) == "done"
    assert attempts.count("slow") == 1


def several_questions_in_a_row(colour: Colour) -> None:
    @task
    @colour.node
    def step(text: str) -> str:
        return text + " bar"

    @task
    @colour.node
    def human(text: str) -> str:
        return f"{text} {interrupt('Please provide feedback: ' + text)}"

    @entrypoint(checkpointer=InMemorySaver())
    @colour.script
    def graph(text: str) -> Any:
        first = yield step(text)
        second = yield human(first)
        third = yield human(second)
        return (yield step(third))

    config = thread()
    colour.invoke(graph, "foo", config)
    (asked,) = colour.invoke(graph, Command(resume="baz"), config)["__interrupt__"]
    assert asked.value == "Please provide feedback: foo bar baz"
    assert colour.invoke(graph, Command(resume="qux"), config) == "foo bar baz qux bar"


class Foo(TypedDict):
    """A number, added up."""

    foo: Annotated[int, operator.add]


def a_graph_in_a_workflow_and_a_workflow_in_a_workflow(colour: Colour) -> None:
    builder = StateGraph(Foo).add_node("double", colour.node(lambda state: {"foo": state["foo"]}))
    graph = builder.add_edge(START, "double").compile()

    @entrypoint()
    @colour.node
    def multiply(inputs: dict[str, int]) -> int:
        return inputs["a"] * inputs["b"]

    @entrypoint(checkpointer=InMemorySaver())
    @colour.script
    def workflow(x: int) -> Any:
        doubled = yield graph, {"foo": x}
        product = yield multiply, {"a": x, "b": 3}
        return {"doubled": doubled["foo"], "product": product}

    assert colour.invoke(workflow, 5, thread()) == {"doubled": 10, "product": 15}


def tasks_in_a_node(colour: Colour) -> None:
    @task
    @colour.node
    def word(n: int) -> str:
        return "ab"[n]

    @colour.script
    def node(state: dict[str, Any]) -> Any:
        words = yield [word(n) for n in range(2)]
        return {"foo": len("".join(words))}

    graph = StateGraph(Foo).add_node("node", node).add_edge(START, "node").compile(checkpointer=InMemorySaver())
    assert colour.invoke(graph, {"foo": 1}, thread()) == {"foo": 3}


def only_async(colour: Colour) -> None:
    """Futures of tasks are awaitables like others."""

    @task
    async def work(n: int) -> int:
        await asyncio.sleep(0)
        return n * 2

    @entrypoint()
    async def workflow(n: int) -> list[int]:
        async with asyncio.TaskGroup() as group:

            async def one(k: int) -> int:
                return await work(k)

            running = [group.create_task(one(k)) for k in range(n)]
        done, _ = await asyncio.wait([asyncio.ensure_future(work(9))])
        return [*(r.result() for r in running), *(d.result() for d in done)]

    assert asyncio.run(workflow.ainvoke(3)) == [0, 2, 4, 18]
