"""Results recorded once have the type of the function's, in both colours."""

from typing import TypedDict, assert_type

from pregel.runtime import Runtime, aonce, once


class State(TypedDict):
    n: int


def pay(amount: int) -> bytes:
    return b""


async def apay(amount: int) -> str:
    return ""


def node(state: State, runtime: Runtime[None]) -> State:
    assert_type(runtime.once("pay", pay, 1), bytes)
    assert_type(once("count", lambda: 3), int)
    assert_type(runtime.idempotency_key, str)
    runtime.once("pay", pay, "much")  # wrong
    return {"n": len(once("pay", pay, amount=state["n"]))}


async def anode(state: State, runtime: Runtime[None]) -> State:
    assert_type(await runtime.aonce("pay", apay, 1), str)
    assert_type(await runtime.aonce("pay", pay, 1), bytes)
    assert_type(await aonce("pay", apay, amount=2), str)
    await aonce("pay", apay, "much")  # wrong
    return {"n": 1}
