"""`StateGraph`, the front end for graphs that are declared node by node.

A builder (`state`) reads schemas (`schema`) and conditional edges (`branch`), and is compiled (`compile`) into a
`Pregel` with nothing but its public parts. `message` has the reducer for chat messages, `draw` the pictures,
`subgraphs` finds nested graphs in functions, `jsonschema` is loaded by those who ask for JSON schemas.
"""

from pregel.constants import END, START
from pregel.graph.message import MessageGraph, MessagesState, add_messages
from pregel.graph.state import StateGraph

__all__ = ["END", "START", "MessageGraph", "MessagesState", "StateGraph", "add_messages"]
