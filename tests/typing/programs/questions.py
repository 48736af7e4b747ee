"""Questions and what waits: the types that a program sees."""

from datetime import timedelta
from typing import Any, assert_type

from pydantic import BaseModel

from checkpoint.memory import InMemorySaver
from pregel.pending import PendingInterrupt, pending
from pregel.types import Interrupt, interrupt


class Approval(BaseModel):
    ok: bool


def node(state: dict[str, Any]) -> dict[str, Any]:
    assert_type(interrupt("anything"), Any)
    assert_type(interrupt("approve?", response_schema=Approval), Approval)
    assert_type(interrupt("how many?", response_schema=int, expires=timedelta(hours=1), default=0), int)
    assert_type(interrupt("which?", response_schema={"enum": ["a", "b"]}), Any)
    text: str = interrupt("how many?", response_schema=int)  # wrong
    interrupt("when?", expires="tomorrow")  # wrong
    return {"text": text}


for entry in pending(InMemorySaver()):
    assert_type(entry, PendingInterrupt)
    assert_type(entry.interrupt, Interrupt)
    entry.node = "other"  # wrong
