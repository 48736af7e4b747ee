"""Savers used without a graph: the types that a program sees."""

from typing import assert_type

from checkpoint.base import BaseCheckpointSaver, CheckpointTuple, RunnableConfig
from checkpoint.memory import InMemorySaver
from checkpoint.sqlite import SqliteSaver
from checkpoint.sqlite.aio import AsyncSqliteSaver

thread: RunnableConfig = {"configurable": {"thread_id": "1"}}


def go_back(saver: BaseCheckpointSaver[int]) -> RunnableConfig:
    assert_type(saver.get_tuple(thread), CheckpointTuple | None)
    return saver.fork(thread)


async def ago_back(saver: AsyncSqliteSaver) -> RunnableConfig:
    made = await saver.afork(thread)
    assert_type(made, RunnableConfig)
    saver.afork(made)["configurable"]  # wrong
    return made


assert_type(go_back(InMemorySaver()), RunnableConfig)
assert_type(SqliteSaver("threads.sqlite").fork(thread), RunnableConfig)
InMemorySaver().fork("1")  # wrong
InMemorySaver().fork(thread, step=3)  # wrong
