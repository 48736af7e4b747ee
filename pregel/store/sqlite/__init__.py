"""A store in a SQLite file.

`schema` has the tables, `core` the statements of a batch, `vectors` the measure, `store` the class for both colours, `aio`
the one that programs written for an async connection expect.
"""

from pregel.store.sqlite.aio import AsyncSqliteStore
from pregel.store.sqlite.schema import CorruptItemError, StoreClosedError, StoreOpenError
from pregel.store.sqlite.store import SqliteStore

__all__ = ["AsyncSqliteStore", "CorruptItemError", "SqliteStore", "StoreClosedError", "StoreOpenError"]
