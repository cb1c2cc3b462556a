"""Objects of a schema that allow only named properties, and what is omitted from schemas."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.grammar.closed_objects import close_objects
from mlx_server.engine.grammar.javascript_patterns import patterns
from mlx_server.engine.grammar.json_schema import NothingRemains, SchemaAdapter
from mlx_server.engine.grammar.schema_recursion import is_endless

STRING = {"type": "string"}
BOOLEAN = {"type": "boolean"}
NAMED = {"type": "object", "properties": {"a": STRING}}


def adapted(
    schema: dict[str, Any], usable_patterns: Mapping[str, str | None] | None = None
) -> tuple[Any, list[str]]:
    adapter = SchemaAdapter(schema, usable_patterns)
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
    result, left_out = adapted(mapping, {"^x": None})
    assert (result, left_out) == ({"type": "object", "additionalProperties": BOOLEAN}, ["propertyNames"])


def test_json_schema_for_the_grammar_omits_only_patterns_that_the_grammar_compiler_cannot_use():
    schema = {
        "properties": {"a": {"pattern": "(?!x)"}, "b": {"pattern": "y"}},
        "patternProperties": {"(?!x)": {}},
    }
    result, left_out = adapted(schema, {"(?!x)": None})
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


def test_adapted_json_schema_has_pointers_in_place_of_references_to_an_id():
    schema = {
        "$id": "https://example.org/a",
        "$ref": "https://example.org/a#/$defs/b",
        "$defs": {"b": STRING},
    }
    assert adapted(schema) == ({"$ref": "#/$defs/b", "$defs": {"b": STRING}}, [])


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({"maxLength": 2.0, "minLength": 2e0}, {"maxLength": 2, "minLength": 2}),
        ({"maxItems": 2.0, "minItems": 0.0}, {"maxItems": 2, "minItems": 0}),
        ({"maxProperties": "2", "minProperties": 1.0}, {"maxProperties": 2, "minProperties": 1}),  # Gemini
        ({"maxLength": 1e300, "maxItems": 2**64}, {}),  # no answer exceeds these
        ({"maxLength": 1.5}, {"maxLength": 1.5}),  # which the grammar compiler refuses
        ({"minLength": -1}, {"minLength": -1}),
        ({"maxItems": True}, {"maxItems": True}),
    ],
    ids=str,
)
def test_adapted_json_schema_has_counts_as_integers(given, used):
    """In JSON Schema 2.0 is an integer, and `maxItems: 2.0` was a 400."""
    assert adapted(given) == (used, [])


@pytest.mark.parametrize(
    "part",
    [
        {"multipleOf": 2**31},
        {"multipleOf": 1e300},
        {"multipleOf": 1e-12},
        {"multipleOf": 0.1 + 0.2},
        {"maximum": 1.7976931348623157e308},
        {"exclusiveMinimum": 5e-324},
        {"minimum": -(2**63), "type": "integer"},
    ],
    ids=str,
)
def test_adapted_json_schema_omits_and_names_numbers_that_a_grammar_cannot_express(part):
    """Such bounds were a 400, and `multipleOf: 2147483648` kept every other grammar waiting for minutes."""
    (keyword, *_) = part
    assert adapted({"type": "number", **part})[1] == [keyword]


@pytest.mark.parametrize(
    "part",
    [
        {"multipleOf": 0.01},
        {"multipleOf": 1_000_000},
        {"maximum": 2**63 - 1, "type": "integer"},
        {"minimum": -(2**53) + 1},
        {"minimum": 0},
        {"multipleOf": 0},  # which the grammar compiler refuses
        {"exclusiveMinimum": True},  # draft 4
    ],
    ids=str,
)
def test_adapted_json_schema_keeps_numbers_that_a_grammar_can_express(part):
    assert adapted({"type": "number", **part}) == ({"type": "number", **part}, [])


def test_adapted_json_schema_omits_factors_whose_common_multiple_a_grammar_cannot_express():
    """The divisibility by 9,998 and 9,999 at once kept every other grammar waiting for minutes."""
    schema = {"allOf": [{"multipleOf": 9998}, {"multipleOf": 9999}, {"multipleOf": 0.02}]}
    result, left_out = adapted(schema)
    assert result == {"allOf": [{"multipleOf": 9998}, {}, {"multipleOf": 0.02}]}
    assert left_out == ["allOf.1.multipleOf"]
    seconds = {"allOf": [{"multipleOf": factor} for factor in (0.25, 7, 60, 3600, 86_400, 1_000_000)]}
    assert adapted(seconds) == (seconds, [])


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("STRING", "string"),
        (["STRING", "Null"], ["string", "null"]),
        (["string", None], ["string", "null"]),
        ([], []),  # which the grammar compiler refuses, as the next
        (3, 3),
        ([3], [3]),
    ],
    ids=str,
)
def test_adapted_json_schema_has_types_in_lower_case(given, used):
    """Gemini's clients write types in upper case, and each such schema was a 400."""
    assert adapted({"type": given}) == ({"type": used}, [])


def test_adapted_json_schema_omits_types_that_allow_any_value_silently_and_names_unknown_ones():
    parts = {
        "a": {"type": "any"},
        "b": {"type": ["null", "any"]},
        "c": {"type": "float"},
        "d": {"type": ["x"]},
    }
    result, left_out = adapted({"properties": parts})
    assert result["properties"] == {"a": {}, "b": {}, "c": {}, "d": {}}
    assert left_out == ["properties.c.type float", "properties.d.type ['x']"]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/none"},
        {"$ref": "https://example.org/remote", "title": "T"},
        {"type": "nonsense"},
        {"anyOf": [STRING, {"$ref": "#none"}]},
        {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "other.json"}}},
    ],
    ids=json.dumps,
)
def test_adapted_json_schema_of_which_nothing_remains_at_the_root_is_refused(schema):
    with pytest.raises(NothingRemains, match="^nothing remains of it without .*(none|remote|nonsense|other)"):
        adapted(schema)


def test_adapted_json_schema_omits_and_names_a_reference_without_target_below_the_root():
    """A missing definition was a 400, and a property with a remote reference could not be written at all."""
    for reference in ("#/$defs/none", "https://example.org/remote", "#none", "none.json#/a", "#/type"):
        schema = {"type": "object", "properties": {"a": {"$ref": reference}}}
        result, left_out = adapted(schema)
        assert (result["properties"], left_out) == ({"a": {}}, [f"properties.a.$ref {reference}"])
    extended = {"$ref": "https://example.org/base", "properties": {"b": STRING}}
    assert adapted(extended)[0] == {"properties": {"b": STRING}, "additionalProperties": True}


def test_adapted_json_schema_has_definitions_of_what_references_mean_at_places_that_are_omitted():
    """OpenAPI's schemas are in `components`, where no keyword was translated."""
    schema = {
        "properties": {
            "a": {"$ref": "#/components/schemas/A"},
            "b": {"$ref": "#/properties/c/not"},
            "c": {"not": STRING},
        },
        "components": {"schemas": {"A": {"type": "ARRAY", "items": {"$ref": "#/components/schemas/A"}}}},
    }
    result, left_out = adapted(schema)
    first, second = (result["properties"][name]["$ref"] for name in "ab")
    assert result["$defs"][first.removeprefix("#/$defs/")] == {"type": "array", "items": {"$ref": first}}
    assert result["$defs"][second.removeprefix("#/$defs/")] == STRING
    assert left_out == ["properties.c.not"]


def test_adapted_json_schema_copies_only_so_much_from_places_that_are_omitted():
    """Each level of a deep schema could be copied, which made the schema hundreds of times longer."""
    inner: dict[str, Any] = {"enum": ["x" * 30_000]}
    for _ in range(100):
        inner = {"x": inner}
    wanted = {f"p{depth}": {"$ref": "#/odd" + "/x" * depth} for depth in range(101)}
    result, left_out = adapted({"properties": wanted, "odd": inner})
    assert len(result["$defs"]) == 2 and len(left_out) == 99


def test_adapted_json_schema_has_the_translations_of_patterns():
    schema = {"properties": {"a": {"pattern": "[^]"}}, "patternProperties": {"[^]": {}, "x": {}}}
    result, left_out = adapted(schema, {"[^]": r"[\s\S]"})
    assert result["properties"] == {"a": {"pattern": r"[\s\S]"}}
    assert list(result["patternProperties"]) == [r"[\s\S]", "x"] and left_out == []


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
    *("multipleOf", "maximum", "$anchor", "id"),
]
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["a", "#", "#/a", "#/$defs/a", "string", "#a", "a#/items", "#/items/0", "http://[", "%"]
    )
)
ANYTHING = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from(KEYWORDS), ANYTHING, max_size=5))
def test_adapted_json_schema_with_any_value_of_any_keyword_does_not_raise(schema):
    """A body may hold anything where a schema is expected."""
    before = json.dumps(schema)
    with suppress(NothingRemains):
        result, left_out = adapted(schema, dict.fromkeys(patterns(schema)))
        assert json.loads(json.dumps(result)) == result
        assert all(isinstance(part, str) for part in left_out)
        assert isinstance(result, bool) or is_endless(result) in (True, False)
    assert json.dumps(schema) == before
