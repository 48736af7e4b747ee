"""A former path of names that are in `pregel.types`. LangGraph keeps it, too: importing it says that it is deprecated."""

import warnings

from pregel.types import (
    All,
    CachePolicy,
    PregelExecutableTask,
    PregelTask,
    RetryPolicy,
    StateSnapshot,
    StateUpdate,
    StreamMode,
    StreamWriter,
    default_retry_on,
)
from pregel.warnings import PregelDeprecationWarning

__all__ = [
    "All",
    "CachePolicy",
    "PregelExecutableTask",
    "PregelTask",
    "RetryPolicy",
    "StateSnapshot",
    "StateUpdate",
    "StreamMode",
    "StreamWriter",
    "default_retry_on",
]

warnings.warn(
    "pregel.pregel.types is a former path; import the same names from pregel.types",
    PregelDeprecationWarning,
    stacklevel=2,
)
