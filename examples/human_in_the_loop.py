"""Stop for two answers, one after the other, on a file; a second object on the same file goes on."""

import tempfile
from pathlib import Path
from typing import TypedDict

from checkpoint.sqlite import SqliteSaver
from pregel.graph import START, StateGraph
from pregel.types import Command, RunnableConfig, interrupt


class Order(TypedDict, total=False):
    """What is ordered, how many, and whether somebody agreed."""

    item: str
    amount: int
    agreed: bool


def clarify(state: Order) -> Order:
    """Ask twice; each answer is asked for once, although the node runs again from its start."""
    amount = interrupt(f"how many {state['item']}?")
    agreed = interrupt(f"order {amount} {state['item']}?")
    return {"amount": amount, "agreed": agreed == "yes"}


builder = StateGraph(Order)
builder.add_node(clarify)
builder.add_edge(START, "clarify")

with tempfile.TemporaryDirectory() as folder:
    file = str(Path(folder) / "orders.sqlite")
    thread: RunnableConfig = {"configurable": {"thread_id": "order-7"}}

    with SqliteSaver.from_conn_string(file) as saver:
        paused = builder.compile(checkpointer=saver).invoke({"item": "apples"}, thread)
        print(paused["__interrupt__"][0].value)

    with SqliteSaver.from_conn_string(file) as saver:
        graph = builder.compile(checkpointer=saver)
        print(graph.invoke(Command(resume=3), thread)["__interrupt__"][0].value)
        print(graph.invoke(Command(resume="yes"), thread))

# Prints:
# how many apples?
# order 3 apples?
# {'item': 'apples', 'amount': 3, 'agreed': True}
