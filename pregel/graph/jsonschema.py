"""JSON schemas and model classes for inputs, outputs and contexts (engine.md 3.8, amendments C4 and A14).

The one module of the front ends that imports pydantic; loaded late, by those who ask. Decides titles, defaults and what
is required per kind of schema, so that the JSON equals LangGraph's. Knows schemas, no graphs.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import types
import typing
from typing import Annotated, Any

import typing_extensions
from pydantic import BaseModel, PydanticInvalidForJsonSchema, RootModel, TypeAdapter, create_model

from pregel.graph.schema import describe

__all__ = ["input_model", "of_state", "output_model", "portable"]


def of_state(schema: Any, title: str) -> dict[str, Any]:
    """JSON schema of an input or output schema.

    Args:
        schema: the class as declared.
        title: `{graph name}Input` or `{graph name}Output`; models and TypedDicts keep their own.
    """
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    if typing_extensions.is_typeddict(schema) and not describe(schema).is_root:
        return TypeAdapter(portable(schema)).json_schema()
    return _built(schema, title).model_json_schema()


def input_model(schema: Any, title: str) -> type[BaseModel]:
    """A model class for an input schema: the schema itself if it is one, else one named `title`."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema
    if typing_extensions.is_typeddict(schema) or dataclasses.is_dataclass(schema):
        made: type[BaseModel] = create_model(title, __base__=_root_model(portable(schema)))
        try:
            made.model_json_schema()
        except PydanticInvalidForJsonSchema:
            return _built(schema, title)
        return made
    return _built(schema, title, has_default=False)


def output_model(schema: Any, title: str) -> type[BaseModel]:
    """A model class named `title` for an output schema; a run may end before a key is written, so none is required."""
    if describe(schema).is_root:
        return _built(schema, title, has_default=False)
    hints = typing_extensions.get_type_hints(schema, include_extras=True)
    fields: dict[str, Any] = {
        name: (portable(_without_qualifiers(hints.get(name, Any))), None) for name in describe(schema).channels
    }
    return create_model(title, **fields)


def _built(schema: Any, title: str, *, has_default: bool = True) -> type[BaseModel]:
    """A model with one field per channel of the schema, or a root model for a bare state."""
    found = describe(schema)
    if found.is_root:
        bare = portable(found.channels["__root__"].UpdateType)
        default: dict[str, Any] = {"root": (bare, None)} if has_default else {}
        return create_model(title, __base__=_root_model(bare), **default)
    hints = typing_extensions.get_type_hints(schema)
    fields: dict[str, Any] = {}
    for name in found.channels:
        annotation = portable(hints.get(name, Any))
        fields[name] = (annotation, _default_of(schema, name, annotation))
    return create_model(title, **fields)


def _root_model(annotation: Any) -> Any:
    return RootModel.__class_getitem__(annotation)


def _default_of(schema: Any, name: str, annotation: Any) -> Any:
    field = schema.__dataclass_fields__.get(name) if dataclasses.is_dataclass(schema) else None
    if field is not None and field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    if field is not None and field.default not in (dataclasses.MISSING, ...):
        return field.default
    args = typing.get_args(annotation)
    is_optional = typing.get_origin(annotation) in (typing.Union, types.UnionType) and type(None) in args
    return None if is_optional else ...


@functools.cache
def _portable_class(cls: Any) -> Any:
    """A TypedDict as pydantic takes it: before Python 3.12 it refuses those of `typing`."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {}
    for name, annotation in hints.items():
        bare = _without_qualifiers(annotation)
        wrap = typing_extensions.Required if name in _required(cls) else typing_extensions.NotRequired
        fields[name] = wrap[portable(bare)]
    made = typing_extensions.TypedDict(cls.__name__, fields)  # type: ignore[misc]
    made.__module__, made.__doc__ = cls.__module__, cls.__doc__
    return made


def _required(cls: Any) -> frozenset[str]:
    """Required keys; with annotations as text Python overlooks the qualifiers, so they are looked at again."""
    required = set(cls.__required_keys__)
    for name, annotation in typing.get_type_hints(cls, include_extras=True).items():
        qualifiers = _qualifiers(annotation)
        if qualifiers:
            (required.discard if "NotRequired" in qualifiers else required.add)(name)
    return frozenset(required)


def _qualifiers(annotation: Any) -> set[str]:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _qualifiers(typing.get_args(annotation)[0])
    name = getattr(origin, "_name", None)
    if name in ("Required", "NotRequired", "ReadOnly"):
        return {name} | _qualifiers(typing.get_args(annotation)[0])
    return set()


def _without_qualifiers(annotation: Any) -> Any:
    """The annotation without Required and the like; of `Annotated` only what stands for the JSON schema is kept."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return typing.cast("Any", Annotated).__class_getitem__(
            (_without_qualifiers(typing.get_args(annotation)[0]), *annotation.__metadata__)
        )
    if _qualifiers(annotation):
        return _without_qualifiers(typing.get_args(annotation)[0])
    return annotation


def portable(annotation: Any) -> Any:
    """The annotation with every TypedDict in it as pydantic takes it, and without reducers, channels and managers."""
    if typing_extensions.is_typeddict(annotation):
        return _portable_class(annotation)
    origin = typing.get_origin(annotation)
    args = typing.get_args(annotation)
    if origin is Annotated:
        bare = portable(args[0])
        extras = [m for m in annotation.__metadata__ if type(m).__module__.startswith(("pydantic", "annotated_types"))]
        return typing.cast("Any", Annotated).__class_getitem__((bare, *extras)) if extras else bare
    if origin is None or not args or origin is typing.Literal:
        return annotation
    changed = tuple(portable(arg) if not isinstance(arg, list) else [portable(a) for a in arg] for arg in args)
    if changed == args:
        return annotation
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, changed)
    return origin[changed]
