"""pregel: an in-process graph runtime for agents and workflows.

Where things are: `pregel.graph` (`StateGraph`), `pregel.func` (`entrypoint`, `task`), `pregel.types` (`Command`, `Send`,
`interrupt`), `pregel.channels`, `pregel.pregel` (`Pregel`, `NodeBuilder`), `pregel.runtime`, `pregel.config`,
`pregel.errors`, `pregel.explanation` (why a node ran); savers are in `checkpoint`.
How a superstep works: `pregel.engine`.
"""

from pregel.warnings import PregelWarning

__all__ = ["PregelWarning"]
__version__ = "0.1.0"
