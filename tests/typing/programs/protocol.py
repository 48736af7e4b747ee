"""Programs that take any graph, and say so as LangGraph's do."""

from typing import Any, assert_type

from typing_extensions import TypedDict

from pregel.graph import START, StateGraph
from pregel.graph.state import CompiledStateGraph
from pregel.pregel.main import Pregel
from pregel.pregel.protocol import PregelProtocol
from pregel.types import StateSnapshot


class State(TypedDict):
    topic: str


def look(graph: PregelProtocol[State, None, State, State]) -> StateSnapshot:
    graph.invoke({"topic": "cats"}, context=None)
    graph.invoke(3)  # wrong
    graph.run()  # wrong
    return graph.get_state({"configurable": {"thread_id": "1"}})


def run(graph: Pregel[State, None, State, State], bare: Pregel) -> Any:
    look(bare)
    return look(graph)


class Other:
    """Not a graph."""

    def invoke(self, input: Any, config: Any = None, **more: Any) -> Any:
        return input


compiled: CompiledStateGraph[State, None, State, State] = (
    StateGraph(State).add_node("n", lambda state: None).add_edge(START, "n").compile()
)
assert_type(look(compiled), StateSnapshot)
run(compiled, compiled)
look(Other())  # wrong
