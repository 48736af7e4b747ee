"""An agent loop in async code: a scripted model asks for tools, both tools of a turn run at once."""

import asyncio
from operator import add
from typing import Annotated, Any, Literal, TypedDict

from pregel.graph import END, START, StateGraph
from pregel.types import Send

SCRIPT: list[list[dict[str, Any]]] = [
    [{"tool": "weather", "city": "Oslo"}, {"tool": "weather", "city": "Rome"}],
    [],
]
WEATHER = {"Oslo": -3, "Rome": 18}


class Talk(TypedDict, total=False):
    """One entry per model turn and per tool result."""

    turn: int
    calls: list[dict[str, Any]]
    results: Annotated[list[str], add]


async def model(state: Talk) -> Talk:
    """What a language model would decide."""
    turn = state.get("turn", 0)
    return {"turn": turn + 1, "calls": SCRIPT[turn]}


async def weather(call: dict[str, Any]) -> Talk:
    """One tool call."""
    await asyncio.sleep(0)
    return {"results": [f"{call['city']}: {WEATHER[call['city']]}"]}


def route(state: Talk) -> list[Send] | Literal["__end__"]:
    """Run the tools the model asked for, or end."""
    return [Send(call["tool"], call) for call in state["calls"]] or "__end__"


builder = StateGraph(Talk)
builder.add_node(model)
builder.add_node(weather)
builder.add_edge(START, "model")
builder.add_conditional_edges("model", route, ["weather", END])
builder.add_edge("weather", "model")
graph = builder.compile()


async def main() -> None:
    """Show the updates as they stream."""
    results: list[str] = []
    async for chunk in graph.astream({}, stream_mode="updates"):
        for node, update in chunk.items():
            results += update.get("results", [])
            print(node, sorted(update))
    print(sorted(results))


asyncio.run(main())

# Prints:
# model ['calls', 'turn']
# weather ['results']
# weather ['results']
# model ['calls', 'turn']
# ['Oslo: -3', 'Rome: 18']
