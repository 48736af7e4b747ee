"""Look at the history of a thread, change one past state, and go on from there."""

from typing import TypedDict

from checkpoint.memory import InMemorySaver
from pregel.graph import START, StateGraph
from pregel.types import RunnableConfig


class Recipe(TypedDict, total=False):
    """A dish and what it became."""

    dish: str
    spice: str
    result: str


def season(state: Recipe) -> Recipe:
    """Choose a spice."""
    return {"spice": "salt"}


def cook(state: Recipe) -> Recipe:
    """Use what was chosen."""
    return {"result": f"{state['dish']} with {state['spice']}"}


builder = StateGraph(Recipe)
builder.add_sequence([season, cook])
builder.add_edge(START, "season")
graph = builder.compile(checkpointer=InMemorySaver())
thread: RunnableConfig = {"configurable": {"thread_id": "dinner"}}

print(graph.invoke({"dish": "soup"}, thread)["result"])

before_cook = next(snapshot for snapshot in graph.get_state_history(thread) if snapshot.next == ("cook",))
forked = graph.update_state(before_cook.config, {"spice": "pepper"})
print(graph.invoke(None, forked)["result"])

for snapshot in graph.get_state_history(thread):
    metadata = snapshot.metadata or {}
    print(metadata["step"], metadata["source"], snapshot.values.get("spice"), snapshot.values.get("result"))

# Prints:
# soup with salt
# soup with pepper
# 3 loop pepper soup with pepper
# 2 update pepper None
# 2 loop salt soup with salt
# 1 loop salt None
# 0 loop None None
# -1 input None None
