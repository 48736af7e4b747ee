"""The version of this package, where LangGraph has its own."""

from pregel import __version__

__all__ = ["__version__"]
