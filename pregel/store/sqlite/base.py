"""The peer's module path of `SqliteStore`, for programs that import it from there. Decides nothing."""

from pregel.store.base import IndexConfig as SqliteIndexConfig
from pregel.store.sqlite.store import SqliteStore

__all__ = ["SqliteIndexConfig", "SqliteStore"]
