"""The channels: named cells with an update rule, one module each.

A channel knows its own value and how to fold one step's writes into it. It knows nothing of nodes, versions, steps or
savers; the engine is its only caller. `base` states the contract, including what ours promise beyond LangGraph's.
Importing this package loads the standard library and `pregel.constants`, `errors` and `types`, nothing heavier.
"""

from pregel.channels.any_value import AnyValue
from pregel.channels.base import BaseChannel
from pregel.channels.binop import BinaryOperatorAggregate
from pregel.channels.delta import DeltaChannel
from pregel.channels.ephemeral_value import EphemeralValue
from pregel.channels.last_value import LastValue, LastValueAfterFinish
from pregel.channels.named_barrier_value import InclusiveBarrierValue, NamedBarrierValue, NamedBarrierValueAfterFinish
from pregel.channels.topic import Topic
from pregel.channels.untracked_value import UntrackedValue

__all__ = [
    "AnyValue",
    "BaseChannel",
    "BinaryOperatorAggregate",
    "DeltaChannel",
    "EphemeralValue",
    "InclusiveBarrierValue",
    "LastValue",
    "LastValueAfterFinish",
    "NamedBarrierValue",
    "NamedBarrierValueAfterFinish",
    "Topic",
    "UntrackedValue",
]
