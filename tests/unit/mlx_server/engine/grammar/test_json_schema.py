"""Objects of a schema that allow only named properties, and what is omitted from schemas."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.grammar.json_schema import SchemaAdapter, close_objects, patterns
from mlx_server.engine.grammar.schema_recursion import is_endless

STRING = {"type": "string"}
BOOLEAN = {"type": "boolean"}
NAMED = {"type": "object", "properties": {"a": STRING}}


def adapted(schema: dict[str, Any], unusable_patterns: frozenset[str] = frozenset()) -> tuple[Any, list[str]]:
    adapter = SchemaAdapter(schema, unusable_patterns)
    return adapter.adapted(), adapter.left_out


def test_close_objects_forbids_unnamed_properties_of_an_object_with_named_ones():
    assert close_objects(NAMED) == NAMED | {"additionalProperties": False}


def test_close_objects_forbids_all_properties_of_an_object_with_empty_properties():
    """A forced langchain tool without arguments was once called with invented arguments."""
    assert close_objects({"type": "object", "properties": {}})["additionalProperties"] is False


def test_close_objects_allows_any_value_of_a_required_property_without_a_schema():
    """A schema with `required: [a, b]` in which only `a` was described was once refused with 400."""
    closed = close_objects(NAMED | {"required": ["a", "b"]})
    assert closed["properties"] == {"a": STRING, "b": {}}
    contradictory = NAMED | {"required": ["b"], "additionalProperties": False}
    assert close_objects(contradictory) == contradictory


def test_close_objects_forbids_additional_properties_also_inside_items_and_any_of_and_defs():
    closed = close_objects(NAMED)
    nested = {"type": "array", "items": NAMED, "anyOf": [NAMED], "$defs": {"x": NAMED}}
    assert close_objects(nested) == {
        "type": "array",
        "items": closed,
        "anyOf": [closed],
        "$defs": {"x": closed},
    }


def test_close_objects_keeps_additional_properties_that_the_schema_sets_itself():
    for additional in (True, STRING):
        schema = NAMED | {"additionalProperties": additional}
        assert close_objects(schema) == schema


def test_close_objects_leaves_an_object_without_named_properties_open():
    assert close_objects({"type": "object"}) == {"type": "object"}


def test_close_objects_still_allows_additional_properties_in_object_schemas_inside_all_of():
    schema = {"allOf": [NAMED, {"type": "object", "properties": {"b": STRING}}]}
    assert close_objects(schema) == schema


def test_close_objects_does_not_change_values_that_look_like_schemas():
    schema = {"const": {"properties": {"a": 1}}, "enum": [{"properties": {"a": 1}}], "items": True}
    assert close_objects(schema) == schema


@pytest.mark.parametrize(
    ("part", "left_out"),
    [
        ({"uniqueItems": True}, "uniqueItems"),  # pydantic's set
        ({"format": "password"}, "format password"),  # pydantic's SecretStr
        ({"format": ["a"]}, "format ['a']"),
        ({"not": {"const": "x"}}, "not"),
        ({"contains": {"const": 1}}, "contains"),
        ({"propertyNames": {"maxLength": 3}}, "propertyNames"),
        ({"dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"required": True}, "required"),
    ],
    ids=str,
)
def test_adapted_json_schema_omits_and_names_what_a_grammar_cannot_express(part, left_out):
    schema = {"type": "object", "properties": {"p": {"items": {"type": "string", **part}}}}
    result, named = adapted(schema)
    assert result["properties"]["p"]["items"] == STRING
    assert named == [f"properties.p.items.{left_out}"]


@pytest.mark.parametrize(
    "part",
    [
        {"required": None},  # Go's nil slice
        {"anyOf": None},
        {"uniqueItems": False},
        {"unevaluatedProperties": True},
        {"propertyNames": STRING},  # zod's record
        {"$id": "https://example.org/a"},
        {"$schema": "mine"},
    ],
    ids=str,
)
def test_adapted_json_schema_omits_keywords_without_effect_silently(part):
    assert adapted({"type": "string", **part}) == (STRING, [])


def test_adapted_json_schema_keeps_names_and_values_that_look_like_keywords():
    schema = {"properties": {"not": STRING, "format": STRING}, "const": {"not": {}, "required": None}}
    assert adapted(schema) == (schema | {"additionalProperties": False}, [])
    assert adapted({"const": None}) == ({"const": None}, [])


def test_adapted_json_schema_omits_numeric_formats_silently():
    assert adapted({"type": "integer", "format": "int32"}) == ({"type": "integer"}, [])


@pytest.mark.parametrize("nothing", [{}, True])
def test_adapted_json_schema_that_negates_everything_admits_no_value(nothing):
    assert adapted({"properties": {"a": {"not": nothing}}})[0]["properties"] == {"a": False}
    assert adapted({"not": nothing}) == (False, [])


def test_adapted_json_schema_turns_enumerated_property_names_into_properties():
    """Such schemas come from pydantic's dict[Color, bool] and from zod's record of an enum."""
    mapping = {"type": "object", "propertyNames": {"$ref": "#/$defs/C"}, "additionalProperties": BOOLEAN}
    result, left_out = adapted(mapping | {"$defs": {"C": {"enum": ["red", "green"]}}})
    assert result["properties"] == {"red": BOOLEAN, "green": BOOLEAN}
    assert (result["additionalProperties"], left_out) == (False, [])


def test_adapted_json_schema_turns_property_names_with_a_pattern_into_pattern_properties():
    mapping = {"type": "object", "propertyNames": {"pattern": "^x"}, "additionalProperties": BOOLEAN}
    result, left_out = adapted(mapping)
    assert (result["patternProperties"], left_out) == ({"^x": BOOLEAN}, [])
    result, left_out = adapted(mapping, frozenset({"^x"}))
    assert (result, left_out) == ({"type": "object", "additionalProperties": BOOLEAN}, ["propertyNames"])


def test_json_schema_for_the_grammar_omits_only_patterns_that_the_grammar_compiler_cannot_use():
    schema = {
        "properties": {"a": {"pattern": "(?!x)"}, "b": {"pattern": "y"}},
        "patternProperties": {"(?!x)": {}},
    }
    result, left_out = adapted(schema, frozenset({"(?!x)"}))
    assert result["properties"] == {"a": {}, "b": {"pattern": "y"}}
    assert (result["patternProperties"], result["additionalProperties"]) == ({}, True)
    assert left_out == ["patternProperties", "properties.a.pattern"]
    assert sorted(patterns(schema)) == ["(?!x)", "(?!x)", "y"]


def test_adapted_json_schema_omits_property_counts_if_properties_are_optional():
    """llguidance does not count optional properties, so `minProperties: 2` with two optional
    ones was a 400.
    """
    optional = {"properties": {"a": {}, "b": {}}, "minProperties": 2, "additionalProperties": False}
    assert adapted(optional)[1] == ["minProperties"]
    assert adapted(optional | {"required": ["a", "b"]})[1] == []
    assert adapted({"additionalProperties": {}, "maxProperties": 1})[1] == []


def test_adapted_json_schema_keeps_an_id_that_a_reference_uses():
    schema = {"$id": "https://example.org/a", "$ref": "https://example.org/a#/$defs/b", "$defs": {"b": {}}}
    assert adapted(schema)[0]["$id"] == schema["$id"]


KEYWORDS = [
    *(
        "properties",
        "patternProperties",
        "$defs",
        "dependentSchemas",
        "anyOf",
        "allOf",
        "prefixItems",
        "items",
    ),
    *("additionalProperties", "not", "if", "contains", "propertyNames", "required", "type", "enum", "const"),
    *("pattern", "format", "minProperties", "minItems", "uniqueItems", "$ref", "$id", "$schema", "a", "b"),
]
VALUES = st.none() | st.booleans() | st.integers() | st.sampled_from(["a", "#", "#/a", "#/$defs/a", "string"])
ANYTHING = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from(KEYWORDS), ANYTHING, max_size=5))
def test_adapted_json_schema_with_any_value_of_any_keyword_does_not_raise(schema):
    """A body may hold anything where a schema is expected."""
    before = json.dumps(schema)
    result, left_out = adapted(schema, frozenset(patterns(schema)))
    assert json.loads(json.dumps(result)) == result
    assert all(isinstance(part, str) for part in left_out)
    assert isinstance(result, bool) or is_endless(result) in (True, False)
    assert json.dumps(schema) == before
