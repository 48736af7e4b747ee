"""`AsyncSqliteSaver` under the path LangGraph-style programs import it from."""

from checkpoint.sqlite.saver import AsyncSqliteSaver

__all__ = ["AsyncSqliteSaver"]
