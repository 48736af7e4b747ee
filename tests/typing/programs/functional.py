"""Tasks keep the parameters and the result of their function; entrypoints are graphs."""

from dataclasses import dataclass
from typing import Any, assert_type

from checkpoint.memory import InMemorySaver
from pregel.func import TaskFunction, entrypoint, task
from pregel.pregel import Pregel
from pregel.runtime import Runtime
from pregel.types import CachePolicy, RetryPolicy


@dataclass
class Draft:
    text: str


@task
def write(topic: str, *, words: int = 100) -> Draft:
    return Draft(topic)


@task(name="check", retry_policy=RetryPolicy(max_attempts=2), timeout=3.0)
async def review(draft: Draft) -> bool:
    return True


@task(cache_policy=CachePolicy())
def count(draft: Draft) -> int:
    return len(draft.text)


shout = task(str.upper)
named = task(str.upper, name="louder")


@entrypoint(checkpointer=InMemorySaver(), retry_policy=[RetryPolicy()])
def sync_flow(topic: str, *, previous: Draft | None = None) -> entrypoint.final[int, Draft]:
    future = write(topic, words=10)
    draft = future.result()
    assert_type(draft, Draft)
    assert_type(count(draft).result(timeout=1), int)
    assert_type(shout(topic).result(), str)
    write(3)  # wrong
    write(topic, word=3)  # wrong
    count()  # wrong
    assert_type(previous, Draft | None)
    return entrypoint.final(value=count(draft).result(), save=draft)


@entrypoint()
async def flow(topic: str, runtime: Runtime[None]) -> dict[str, Any]:
    draft = await write(topic)
    assert_type(draft, Draft)
    assert_type(await review(draft), bool)
    await review(topic)  # wrong
    return {"draft": draft}


def use(function: TaskFunction[[Draft], int]) -> int:
    return len(function.__name__) + int(function.func(Draft("")))


assert_type(sync_flow, Pregel)
assert_type(use(count), int)
entrypoint(checkpointer="here")  # wrong
task(retry_policy=3)(len)  # wrong
entrypoint.final(1, 2)  # wrong
sync_flow.invoke("cats", {"configurable": {"thread_id": "1"}})
