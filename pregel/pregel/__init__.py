"""The engine's public face: `Pregel`, a compiled graph that can be run, and `NodeBuilder`, which makes nodes by hand."""

from pregel.engine.program import PregelNode, Returned
from pregel.pregel._node import NodeBuilder, callable_node
from pregel.pregel._stream import AsyncChunkStream, ChunkStream
from pregel.pregel.main import Pregel

__all__ = ["AsyncChunkStream", "ChunkStream", "NodeBuilder", "Pregel", "PregelNode", "Returned", "callable_node"]
