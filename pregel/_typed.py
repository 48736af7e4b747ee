"""Answers of a type: what `interrupt(value, response_schema=T)` makes of T. Loaded by those who ask with a type, since it
loads pydantic (D36).

Decides nothing but that pydantic does: its JSON schema of T is shown, its validation makes the answer a T. Knows no
questions and no runs; answers to JSON schemas are checked by `pregel.engine.answer`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError


class TypedAnswer:
    """A type that answers are validated against, and its JSON schema."""

    __slots__ = ("_adapter", "schema")

    def __init__(self, type_: Any) -> None:
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(type_)
            self.schema: dict[str, Any] = self._adapter.json_schema()
        except PydanticUserError as error:
            raise TypeError(
                f"interrupt(response_schema={type_!r}): pydantic makes no schema of it: {error.message}; pass another "
                f"type, or a JSON schema as a dict"
            ) from error

    def fitted(self, answer: Any) -> Any:
        """The answer as the type. Raises pydantic's `ValidationError` (a `ValueError`) if it does not fit."""
        return self._adapter.validate_python(answer)


_typed_answer = lru_cache(maxsize=256)(TypedAnswer)


def typed_answer(type_: Any) -> TypedAnswer:
    """What checks answers against a type; made once for each.

    Raises:
        TypeError: pydantic knows nothing to do with it.
    """
    try:
        hash(type_)
    except TypeError:
        return TypedAnswer(type_)  # such as an Annotated type that holds a list
    return _typed_answer(type_)
