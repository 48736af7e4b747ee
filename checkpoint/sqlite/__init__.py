"""Savers that keep checkpoints in an SQLite file.

`core` holds the SQL as plain functions on a connection, `migrations` the schema, `saver` the connections, threads and
the queue; `aio` is the import path that LangGraph-style programs use for the async class.
"""

from checkpoint.sqlite.saver import AsyncSqliteSaver, SqliteSaver

__all__ = ["AsyncSqliteSaver", "SqliteSaver"]
