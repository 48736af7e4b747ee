"""JSON schemas of hand-made graphs and of contexts (engine.md 3.8, amendments C4): the one module below the front ends
that imports pydantic, loaded by those who ask.

Decides titles and defaults: a single channel gives a root schema without a default, several give an object whose
properties may all be missing. Knows channels' types, no graphs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import typing_extensions
from pydantic import BaseModel, RootModel, TypeAdapter, create_model


def model_of(types: Any, title: str) -> type[BaseModel]:
    """A model class named `title`: of one type, or of a mapping name -> type whose keys may all be missing."""
    if isinstance(types, Mapping):
        fields: dict[str, Any] = {name: (_known(typ), None) for name, typ in types.items()}
        return create_model(title, **fields)
    base: Any = RootModel.__class_getitem__(_known(types))
    made: type[BaseModel] = create_model(title, __base__=base)
    return made


def schema_of(types: Any, title: str) -> dict[str, Any]:
    """The JSON schema of `model_of`."""
    return model_of(types, title).model_json_schema()


def context_schema(schema: Any) -> dict[str, Any] | None:
    """JSON schema of a context schema, None for none.

    Raises:
        ValueError: it is neither a model, a dataclass nor a TypedDict.
    """
    if schema is None:
        return None
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    if typing_extensions.is_typeddict(schema) or dataclasses.is_dataclass(schema):
        adapter: TypeAdapter[Any] = TypeAdapter(cast("Any", schema))
        return adapter.json_schema()
    raise ValueError(f"context schema {schema!r} has no JSON schema; expected a pydantic model, dataclass or TypedDict")


def config_model(context: Any) -> type[BaseModel]:
    """A model of a config, as far as a graph says what is to be in it: its context, as `configurable`."""
    fields: dict[str, Any] = {} if context is None else {"configurable": (context, None)}
    return create_model("LangGraphConfig", **fields)


def _known(typ: Any) -> Any:
    """A type that pydantic has a schema for; anything goes for the others."""
    try:
        TypeAdapter(typ).json_schema()
    except Exception:  # noqa: BLE001 - pydantic refuses a type in several ways, and all mean the same here
        return Any
    return typ
