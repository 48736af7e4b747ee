"""langchain-core is used where a program uses it, and never imported by us (D14)."""

import subprocess
import sys

PROGRAM = """
import asyncio, sys
from checkpoint.memory import InMemorySaver
from pregel.graph import START, MessagesState, StateGraph
from pregel.graph.message import push_message
from pregel.graph.ui import push_ui_message, ui_message_reducer

def node(state):
    push_message({"role": "assistant", "content": "pushed", "id": "p"})
    return {"messages": [("ai", "said")]}

graph = StateGraph(MessagesState).add_node("n", node).add_edge(START, "n").compile(checkpointer=InMemorySaver())
config = {"configurable": {"thread_id": "t"}}
chunks = list(graph.stream({"messages": "hi"}, config, stream_mode=["messages", "values"]))
asyncio.run(graph.ainvoke({"messages": "again"}, config))
assert len(graph.get_state(config).values["messages"]) == 5
print(sorted(name for name in sys.modules if name.startswith(("langchain", "langsmith", "langgraph"))))
"""


def test_a_program_without_it_never_loads_it() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
