"""Savers that keep checkpoints in an SQLite file.

The SQL is in plain functions on a connection: `columns` (what rows hold), `tables` (single rows), `commits` (what a run
stores), `reader`, `writer` (everything else); `migrations` has the schema, `saver` the connections, threads and the queue;
`aio` is the import path that LangGraph-style programs use for the async class.
"""

from checkpoint.sqlite.saver import AsyncSqliteSaver, SqliteSaver

__all__ = ["AsyncSqliteSaver", "SqliteSaver"]
