"""What an answer must look like: JSON schemas of questions, checked without any library.

Decides which schemas `interrupt(value, response_schema={...})` takes, and whether an answer fits one. A schema that asks
for more than is checked here is refused when the question is asked, never checked in part. Knows nothing of runs or
questions. Types are checked by pydantic, in `pregel.pregel._jsonschema`.

Checked, as JSON Schema 2020-12 says: `type enum const`, `multipleOf maximum exclusiveMaximum minimum exclusiveMinimum`,
`maxLength minLength pattern`, `prefixItems items contains minContains maxContains maxItems minItems uniqueItems`,
`properties patternProperties additionalProperties propertyNames required dependentRequired maxProperties minProperties`,
`allOf anyOf oneOf not if then else`, `$ref` inside the same schema. Shown and not checked, as the standard has it:
`format`, `default`, titles and other notes, and any key with `x-` in front or a colon in it. A list or tuple is an array, a
mapping an object, an int or float a number, True and False are no numbers. Patterns are Python's.

Source: JSON Schema, draft 2020-12, "Core" and "Validation".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pregel.errors import shown

TYPES: Final[dict[str, tuple[type, ...]]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "string": (str,),
    "array": (list, tuple),
    "object": (Mapping,),
    "number": (int, float),
    "integer": (int, float),
}
NOTES: Final = frozenset(
    {
        *(
            "$schema",
            "$id",
            "$comment",
            "$defs",
            "definitions",
            "title",
            "description",
            "default",
            "examples",
            "example",
        ),
        *("deprecated", "readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType", "contentSchema"),
        "discriminator",
    }
)
"""Keywords that say nothing about what fits, or hold schemas that others refer to."""
COUNTS: Final = frozenset(
    {f"{limit}{what}" for limit in ("min", "max") for what in ("Length", "Contains", "Items", "Properties")}
)
BOUNDS: Final = frozenset({"multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"})
ONE: Final = frozenset({"items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else"})
"""Keywords whose value is a schema."""
SEVERAL: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
"""Keywords whose value is a list of schemas."""
NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions"})
"""Keywords whose value maps names to schemas."""
OTHERS: Final = frozenset({"type", "enum", "const", "pattern", "uniqueItems", "required", "dependentRequired", "$ref"})
KNOWN: Final = NOTES | COUNTS | BOUNDS | ONE | SEVERAL | NAMED | OTHERS


# ---- is the schema one that can be checked?


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse a schema that is none, or that asks for more than is checked here.

    Raises:
        ValueError: with the place in the schema and what is wrong there.
    """
    places = dict(_parts(schema, "#"))
    for place, part in places.items():
        if isinstance(part, bool):
            continue
        if not isinstance(part, Mapping):
            raise _unusable(place, f"a schema is a dict, True or False, got {shown(part)}")
        for key, value in part.items():
            if not isinstance(key, str) or (key not in KNOWN and not key.startswith("x-") and ":" not in key):
                raise _unusable(place, f"keyword {key!r} is not checked; leave it out, or put x- in front of a note")
            wrong = _wrong(places, key, value)
            if wrong is not None:
                raise _unusable(place, f"{key!r} {wrong}, got {shown(value)}")


def _unusable(place: str, reason: str) -> ValueError:
    return ValueError(f"response_schema, at {place}: {reason}")


def _parts(schema: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The schema and all that are in it, with their places."""
    yield place, schema
    if not isinstance(schema, Mapping):
        return
    for key, value in schema.items():
        if key in ONE:
            yield from _parts(value, f"{place}/{key}")
        elif key in SEVERAL and isinstance(value, Sequence):
            for index, part in enumerate(value):
                yield from _parts(part, f"{place}/{key}/{index}")
        elif key in NAMED and isinstance(value, Mapping):
            for name, part in value.items():
                yield from _parts(part, f"{place}/{key}/{name}")


def _wrong(places: Mapping[str, Any], key: str, value: Any) -> str | None:
    """What is wrong with the value of a keyword, None if nothing. `places`: all schemas of the document."""
    if key == "type":
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) and n in TYPES for n in names):
            return f"must be one of {sorted(TYPES)}, or a list of them"
    elif key in COUNTS and not (_is("integer", value) and value >= 0):
        return "must be an integer of at least 0"
    elif key in BOUNDS and not (_is("number", value) and (key != "multipleOf" or value > 0)):
        return "must be a number" if key != "multipleOf" else "must be a number greater than 0"
    elif (key in SEVERAL or key == "enum") and not (isinstance(value, (list, tuple)) and value):
        return "must be a list that is not empty"
    elif key in NAMED and not isinstance(value, Mapping):
        return "must map names to schemas"
    elif key == "uniqueItems" and not isinstance(value, bool):
        return "must be True or False"
    elif key == "required" and not _are_names(value):
        return "must be a list of names"
    elif key == "dependentRequired" and not (isinstance(value, Mapping) and all(map(_are_names, value.values()))):
        return "must map names to lists of names"
    elif key == "$ref":
        return _wrong_reference(places, value)
    elif key == "pattern":
        return _wrong_pattern(value)
    elif key == "patternProperties":
        return _first_wrong_pattern(value)
    return None


def _are_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)


def _first_wrong_pattern(patterns: Any) -> str | None:
    return next((wrong for pattern in patterns if (wrong := _wrong_pattern(pattern))), None)


def _wrong_pattern(pattern: Any) -> str | None:
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        return f"must be a regular expression ({error})"
    return None


def _wrong_reference(places: Mapping[str, Any], reference: Any) -> str | None:
    """A reference must lead to a schema of the same document, and not in a circle."""
    seen = []
    while True:
        if not isinstance(reference, str) or "/".join(_steps(reference)) not in places:
            return "must lead to a schema inside this one, as '#/$defs/name'"
        if reference in seen:
            return "leads in a circle"
        seen.append(reference)
        target = places["/".join(_steps(reference))]
        if not isinstance(target, Mapping) or "$ref" not in target:
            return None
        reference = target["$ref"]


def _steps(reference: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in reference.split("/")]


def _target(root: Any, reference: str) -> Any:
    target = root
    for step in _steps(reference)[1:]:
        target = target[int(step)] if isinstance(target, (list, tuple)) else target[step]
    return target


# ---- does an answer fit?


def problem(schema: Mapping[str, Any], answer: Any) -> str | None:
    """Why an answer does not fit a schema that `check_schema` let pass: the first thing that is wrong, with its place
    (`$` is the answer). None if it fits."""
    try:
        return next(_problems(schema, schema, answer, "$"), None)
    except RecursionError:
        return "$: it, or the schema, is nested too deeply to be checked"


def _problems(root: Any, schema: Any, value: Any, place: str) -> Iterator[str]:
    if isinstance(schema, bool):
        if not schema:
            yield f"{place}: nothing is allowed here, got {shown(value)}"
        return
    if "$ref" in schema:
        yield from _problems(root, _target(root, schema["$ref"]), value, place)
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if not any(_is(name, value) for name in names):
            yield f"{place}: expected {' or '.join(names)}, got {shown(value)} ({type(value).__name__})"
            return
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{place}: expected {shown(schema['const'])}, got {shown(value)}"
    if "enum" in schema and not any(_same(value, item) for item in schema["enum"]):
        yield f"{place}: expected one of {shown(list(schema['enum']))}, got {shown(value)}"
    if _is("number", value):
        yield from _of_number(schema, value, place)
    elif isinstance(value, str):
        yield from _of_length(schema, "Length", "characters", value, place)
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{place}: expected a match of {schema['pattern']!r}, got {shown(value)}"
    elif isinstance(value, (list, tuple)):
        yield from _of_array(root, schema, value, place)
    elif isinstance(value, Mapping):
        yield from _of_object(root, schema, value, place)
    yield from _of_combination(root, schema, value, place)


def _is(name: str, value: Any) -> bool:
    """Is the value of a JSON type?"""
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[name])


def _same(one: Any, other: Any) -> bool:
    """Are two JSON values equal? (Python holds True and 1 for equal.)"""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(item, other[key]) for key, item in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def _of_number(schema: Any, value: float, place: str) -> Iterator[str]:
    for key, holds, words in (
        ("minimum", lambda bound: value >= bound, "at least"),
        ("maximum", lambda bound: value <= bound, "at most"),
        ("exclusiveMinimum", lambda bound: value > bound, "more than"),
        ("exclusiveMaximum", lambda bound: value < bound, "less than"),
        ("multipleOf", lambda unit: _is_multiple(value, unit), "a multiple of"),
    ):
        # What is no number at all (nan) holds nothing.
        if key in schema and not (value - value == 0 and holds(schema[key])):
            yield f"{place}: expected {words} {schema[key]}, got {value!r}"


def _is_multiple(value: float, unit: float) -> bool:
    if isinstance(value, int) and isinstance(unit, int):
        return value % unit == 0
    try:
        turns = value / unit
    except OverflowError:
        return False
    return turns - turns == 0 and abs(turns - round(turns)) < 1e-9


def _of_length(schema: Any, what: str, unit: str, value: Any, place: str) -> Iterator[str]:
    least, most = schema.get(f"min{what}"), schema.get(f"max{what}")
    if least is not None and len(value) < least:
        yield f"{place}: expected at least {least} {unit}, got {len(value)}"
    if most is not None and len(value) > most:
        yield f"{place}: expected at most {most} {unit}, got {len(value)}"


def _of_array(root: Any, schema: Any, value: Sequence[Any], place: str) -> Iterator[str]:
    yield from _of_length(schema, "Items", "items", value, place)
    first = schema.get("prefixItems", ())
    for index, (part, item) in enumerate(zip(first, value, strict=False)):
        yield from _problems(root, part, item, f"{place}[{index}]")
    if "items" in schema:
        for index in range(len(first), len(value)):
            yield from _problems(root, schema["items"], value[index], f"{place}[{index}]")
    if schema.get("uniqueItems") and any(_same(a, b) for i, a in enumerate(value) for b in value[:i]):
        yield f"{place}: expected no item twice, got {shown(value)}"
    if "contains" in schema:
        n_fitting = sum(_fits(root, schema["contains"], item) for item in value)
        least, most = schema.get("minContains", 1), schema.get("maxContains")
        if n_fitting < least or (most is not None and n_fitting > most):
            limits = f"at least {least}" + ("" if most is None else f" and at most {most}")
            yield f"{place}: expected {limits} items that fit 'contains', got {n_fitting}"


def _of_object(root: Any, schema: Any, value: Mapping[Any, Any], place: str) -> Iterator[str]:
    yield from _of_length(schema, "Properties", "properties", value, place)
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{place}: {name!r} is missing"
    for given, names in schema.get("dependentRequired", {}).items():
        missing = [name for name in names if given in value and name not in value]
        if missing:
            yield f"{place}: {missing[0]!r} is missing, which {given!r} requires"
    properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, item in value.items():
        at = f"{place}.{name}"
        if not isinstance(name, str):
            yield f"{place}: expected names as keys, got {shown(name)}"
            continue
        if "propertyNames" in schema:
            yield from _problems(root, schema["propertyNames"], name, f"{place} (the name {name!r})")
        parts = [part for pattern, part in patterns.items() if re.search(pattern, name)]
        if name in properties:
            parts.append(properties[name])
        if not parts and "additionalProperties" in schema:
            if schema["additionalProperties"] is False:
                yield f"{place}: {name!r} is not expected; the names are {sorted(properties)}"
            else:
                parts = [schema["additionalProperties"]]
        for part in parts:
            yield from _problems(root, part, item, at)


def _of_combination(root: Any, schema: Any, value: Any, place: str) -> Iterator[str]:
    for part in schema.get("allOf", ()):
        yield from _problems(root, part, value, place)
    if "anyOf" in schema:
        tried = [next(_problems(root, part, value, place), None) for part in schema["anyOf"]]
        if None not in tried:
            yield f"{place}: fits none of {len(tried)} alternatives ({'; '.join(map(str, tried))})"
    if "oneOf" in schema:
        n_fitting = sum(_fits(root, part, value) for part in schema["oneOf"])
        if n_fitting != 1:
            yield f"{place}: expected to fit exactly one of {len(schema['oneOf'])} alternatives, fits {n_fitting}"
    if "not" in schema and _fits(root, schema["not"], value):
        yield f"{place}: {shown(value)} is excluded"
    if "if" in schema:
        branch = schema.get("then" if _fits(root, schema["if"], value) else "else", True)
        yield from _problems(root, branch, value, place)


def _fits(root: Any, schema: Any, value: Any) -> bool:
    return next(_problems(root, schema, value, "$"), None) is None
