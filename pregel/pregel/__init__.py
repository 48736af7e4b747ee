"""The engine's public face: `Pregel`, a compiled graph that can be run, and `NodeBuilder`, which makes nodes by hand.

Public: `main` (the two names above), `protocol` (what any graph can be asked for), `types` (a former path of names of
`pregel.types`). The rest is private. A call goes through it in this order: `_runs` takes the arguments, `_request` says
what they ask for, `_turns` waits for the thread, `_start` finds where the run goes on and makes it, a driver of
`pregel.engine` runs it, `_stream` holds the chunks, `_delivery` gives chunks and results their shapes. Beside that:
`_node` (nodes made by hand), `_graph` and `_validation` (what a graph is), `_runtime` (what a node finds around it),
`_batch` (several inputs), `_threads`, `_state_api`, `_places` and `_explain` (what is stored), `_description` and
`_jsonschema` (how it looks).
"""

from pregel.engine.program import PregelNode, Returned
from pregel.pregel._node import NodeBuilder, callable_node
from pregel.pregel._stream import AsyncChunkStream, ChunkStream
from pregel.pregel.main import Pregel

__all__ = ["AsyncChunkStream", "ChunkStream", "NodeBuilder", "Pregel", "PregelNode", "Returned", "callable_node"]
