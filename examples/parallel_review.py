"""Map and reduce: one task per chapter in parallel, one summary over all of them."""

from operator import add
from typing import Annotated, TypedDict

from pregel.graph import END, START, StateGraph
from pregel.types import Send


class Book(TypedDict, total=False):
    """The reducer of `lengths` makes parallel writes add up."""

    chapters: list[str]
    lengths: Annotated[list[int], add]
    total: int


def split(state: Book) -> list[Send]:
    """One task per chapter, each with an input of its own."""
    return [Send("measure", {"chapters": [chapter]}) for chapter in state["chapters"]]


def measure(state: Book) -> Book:
    """Count the words of the one chapter this task was sent."""
    return {"lengths": [len(state["chapters"][0].split())]}


def total(state: Book) -> Book:
    """Runs once, when all chapters are measured."""
    return {"total": sum(state["lengths"])}


builder = StateGraph(Book)
builder.add_node(measure)
builder.add_node(total)
builder.add_conditional_edges(START, split, ["measure"])
builder.add_edge("measure", "total")
builder.add_edge("total", END)
graph = builder.compile()

result = graph.invoke({"chapters": ["it was a dark night", "then came the day", "the end"]})
print(result["lengths"], result["total"])

# Prints:
# [5, 4, 2] 11
