"""JSON schemas of questions: which are taken, which answers fit."""

from decimal import Decimal

import pytest

from pregel.engine.answer import KNOWN, _problems, check_schema, problem

NAN, INF = float("nan"), float("inf")
TREE = {
    "$defs": {"tree": {"type": "object", "properties": {"parts": {"items": {"$ref": "#/$defs/tree"}}}}},
    "$ref": "#/$defs/tree",
}
PERSON = {
    "type": "object",
    "title": "Person",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}

FITS = [
    ({}, ...),
    (True, 3),
    ({"type": "null"}, None),
    ({"type": "boolean"}, False),
    ({"type": "integer"}, 3),
    ({"type": "integer"}, 3.0),
    ({"type": "number"}, 3.5),
    ({"type": ["string", "null"]}, None),
    ({"type": "array"}, (1, 2)),
    ({"type": "object"}, {}),
    ({"const": {"a": [1, True]}}, {"a": (1, True)}),
    ({"enum": ["yes", "no"]}, "no"),
    ({"minimum": 1, "maximum": 3}, 1),
    ({"exclusiveMinimum": 1, "exclusiveMaximum": 3}, 2),
    ({"multipleOf": 0.1}, 0.3),
    ({"multipleOf": 3}, 3 * 10**30),
    ({"minimum": 1}, "not a number, so not bound by it"),
    ({"minLength": 2, "maxLength": 2}, "ab"),
    ({"pattern": "^a"}, "abc"),
    ({"minItems": 1, "maxItems": 2}, [1]),
    ({"uniqueItems": True}, [1, True, "1"]),
    ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, ["a", 1, 2]),
    ({"prefixItems": [{"type": "string"}, {"type": "string"}]}, ["a"]),
    ({"contains": {"type": "string"}}, [1, "a"]),
    ({"contains": {"type": "string"}, "minContains": 0}, []),
    (PERSON, {"name": "Ann", "age": 3}),
    (
        {"patternProperties": {"^n": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
        {"n": 1, "x": "y"},
    ),
    ({"propertyNames": {"maxLength": 2}}, {"ab": 1}),
    ({"dependentRequired": {"a": ["b"]}}, {"b": 1}),
    ({"minProperties": 1, "maxProperties": 1}, {"a": 1}),
    ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, 2),
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, None),
    ({"oneOf": [{"type": "string"}, {"minimum": 5}]}, 6),
    ({"not": {"type": "string"}}, 3),
    ({"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"minimum": 2}}, 2),
    ({"if": {"type": "string"}, "then": {"minLength": 2}}, 1),
    (TREE, {"parts": [{"parts": []}, {}]}),
    ({"format": "date", "x-note": 1, "ui:widget": 2, "description": "notes are not checked"}, "no date"),
    ({"properties": {"a/b~c": {}}, "allOf": [{"$ref": "#/properties/a~1b~0c"}]}, 1),
]


@pytest.mark.parametrize(("schema", "answer"), FITS, ids=str)
def test_fits(schema, answer):
    check_schema(schema)
    assert problem(schema, answer) is None


MISFITS = [
    (False, 3, ["$", "3"]),
    ({"type": "null"}, 0, ["null", "0"]),
    ({"type": "boolean"}, 1, ["boolean", "1", "int"]),
    ({"type": "integer"}, True, ["integer", "True"]),
    ({"type": "integer"}, 3.5, ["integer", "3.5"]),
    ({"type": "integer"}, INF, ["integer", "inf"]),
    ({"type": "number"}, "3", ["number", "'3'"]),
    ({"type": "number"}, Decimal(3), ["number", "Decimal"]),
    ({"type": ["string", "null"]}, 3, ["string", "null", "3"]),
    ({"type": "object"}, [1], ["object", "[1]"]),
    ({"const": 1}, True, ["1", "True"]),
    ({"const": {"a": 1}}, {"b": 1}, ["a", "b"]),
    ({"const": [1]}, [1, 2], ["[1]"]),
    ({"enum": ["yes", "no"]}, "maybe", ["yes", "maybe"]),
    ({"enum": [1]}, True, ["True"]),
    ({"minimum": 1}, 0, ["at least", "1", "0"]),
    ({"maximum": 1}, 2, ["1", "2"]),
    ({"exclusiveMinimum": 1}, 1, ["more", "1"]),
    ({"exclusiveMaximum": 1}, 1, ["less", "1"]),
    ({"minimum": 1}, NAN, ["nan"]),
    ({"multipleOf": 3}, 10**30, ["3"]),
    ({"multipleOf": 0.5}, 10**400, ["0.5"]),
    ({"minLength": 2}, "a", ["2", "1"]),
    ({"maxLength": 1}, "ab", ["1", "2"]),
    ({"pattern": "^a"}, "b", ["'^a'", "'b'"]),
    ({"minItems": 1}, [], ["1", "0"]),
    ({"maxItems": 0}, [1], ["0", "1"]),
    ({"uniqueItems": True}, [{"a": 1}, {"a": 1}], ["twice"]),
    ({"items": {"type": "integer"}}, [1, "b"], ["$[1]", "'b'"]),
    ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, ["a", "b"], ["$[1]", "'b'"]),
    ({"contains": {"type": "string"}}, [1], ["contains", "0"]),
    ({"contains": {"type": "string"}, "maxContains": 1}, ["a", "b"], ["1", "2"]),
    (PERSON, {}, ["$", "'name'"]),
    (PERSON, {"name": "Ann", "aeg": 3}, ["'aeg'", "age"]),
    (PERSON, {"name": "Ann", "age": "3"}, ["$.age", "'3'"]),
    ({"additionalProperties": {"type": "string"}}, {"x": 1}, ["$.x", "1"]),
    ({"patternProperties": {"^n": {"type": "integer"}}}, {"n1": "x"}, ["$.n1", "'x'"]),
    ({"properties": {"a": {}}}, {1: "x"}, ["names", "1"]),
    ({"propertyNames": {"maxLength": 1}}, {"ab": 1}, ["'ab'"]),
    ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, ["'b'", "'a'"]),
    ({"minProperties": 1}, {}, ["1", "0"]),
    ({"maxProperties": 0}, {"a": 1}, ["0", "1"]),
    ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, 3, ["2", "3"]),
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 3, ["string", "null", "3"]),
    ({"oneOf": [{"minimum": 1}, {"minimum": 2}]}, 3, ["exactly one", "2"]),
    ({"not": {"type": "string"}}, "a", ["'a'", "excluded"]),
    ({"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"minimum": 2}}, 1, ["2", "1"]),
    ({"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"minimum": 2}}, "a", ["2", "1"]),
    (TREE, {"parts": [{"parts": [3]}]}, ["$.parts[0].parts[0]", "3"]),
    ({"allOf": [{"$ref": "#"}]}, 3, ["deeply"]),
]


@pytest.mark.parametrize(("schema", "answer", "named"), MISFITS, ids=str)
def test_does_not_fit_and_says_where(schema, answer, named):
    check_schema(schema)
    wrong = problem(schema, answer)
    assert wrong is not None
    assert [part for part in named if part not in wrong] == [], wrong


REFUSED = [
    ([], ["#", "[]"]),
    ({"type": "nonsense"}, ["'type'", "'nonsense'"]),
    ({"type": [3]}, ["'type'"]),
    ({"requierd": ["a"]}, ["'requierd'"]),
    ({"unevaluatedProperties": False}, ["'unevaluatedProperties'"]),
    ({"dependentSchemas": {}}, ["'dependentSchemas'"]),
    ({"properties": {"a": {"items": {"minimum": "3"}}}}, ["#/properties/a/items", "'minimum'", "'3'"]),
    ({"multipleOf": 0}, ["'multipleOf'", "0"]),
    ({"minLength": -1}, ["'minLength'", "-1"]),
    ({"minLength": True}, ["'minLength'", "True"]),
    ({"enum": []}, ["'enum'"]),
    ({"enum": "ab"}, ["'enum'"]),
    ({"anyOf": []}, ["'anyOf'"]),
    ({"anyOf": [3]}, ["#/anyOf/0", "3"]),
    ({"properties": []}, ["'properties'"]),
    ({"required": "name"}, ["'required'", "'name'"]),
    ({"required": [1]}, ["'required'"]),
    ({"dependentRequired": {"a": "b"}}, ["'dependentRequired'"]),
    ({"dependentRequired": []}, ["'dependentRequired'"]),
    ({"uniqueItems": 1}, ["'uniqueItems'"]),
    ({"pattern": "("}, ["'pattern'", "'('"]),
    ({"pattern": 3}, ["'pattern'", "3"]),
    ({"patternProperties": {"(": {}}}, ["'patternProperties'"]),
    ({"not": 3}, ["#/not", "3"]),
    ({"$ref": "#/$defs/none"}, ["'$ref'", "#/$defs/none"]),
    ({"$ref": "https://example.org/schema"}, ["'$ref'"]),
    ({"$ref": 3}, ["'$ref'", "3"]),
    ({"title": "T", "$ref": "#/title"}, ["'$ref'", "#/title"]),
    ({"$ref": "#"}, ["circle"]),
    ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, ["circle"]),
    ({3: "x"}, ["3"]),
]


@pytest.mark.parametrize(("schema", "named"), REFUSED, ids=str)
def test_a_schema_that_cannot_be_checked_is_refused(schema, named):
    with pytest.raises(ValueError) as caught:
        check_schema(schema)
    assert [part for part in named if part not in str(caught.value)] == [], caught.value


def test_what_else_is_wrong_after_the_first():
    schema = {"items": {"type": "integer", "minimum": 5}, "properties": {"a": {"const": 1}}}
    assert len(list(_problems(schema, schema, ["x", 3, 7], "$"))) == 2
    assert len(list(_problems(schema, schema, {3: 1, "a": 2}, "$"))) == 2


def test_every_keyword_that_is_taken_is_in_a_test():
    """A keyword that is known and does nothing would be ignored in silence."""
    seen = set()

    def collect(part):
        if isinstance(part, dict):
            seen.update(part)
            for inner in part.values():
                collect(inner)
        elif isinstance(part, (list, tuple)):
            for inner in part:
                collect(inner)

    collect([schema for schema, *_ in MISFITS])
    notes = {"$schema", "$id", "$comment", "definitions", "title", "description", "default", "examples", "example"}
    notes |= {"deprecated", "readOnly", "writeOnly", "format", "discriminator"}
    notes |= {"contentEncoding", "contentMediaType", "contentSchema"}
    assert KNOWN - seen - notes == {"minContains"}, "minContains: 0 is in FITS"
