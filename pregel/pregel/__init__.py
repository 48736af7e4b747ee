"""The engine's public face: `Pregel`, a compiled graph that can be run, and `NodeBuilder`, which makes nodes by hand."""

from pregel.pregel._stream import AsyncChunkStream, ChunkStream
from pregel.pregel.main import NodeBuilder, Pregel, PregelNode, Returned, callable_node

__all__ = ["AsyncChunkStream", "ChunkStream", "NodeBuilder", "Pregel", "PregelNode", "Returned", "callable_node"]
