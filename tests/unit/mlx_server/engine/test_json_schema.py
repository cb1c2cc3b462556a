"""The objects of a schema that are closed to properties it does not name."""

from mlx_server.engine.grammar.json_schema import close_objects

STRING = {"type": "string"}
NAMED = {"type": "object", "properties": {"a": STRING}}


def test_close_objects_object_with_properties_allows_no_others():
    assert close_objects(NAMED) == NAMED | {"additionalProperties": False}


def test_close_objects_closes_nested_objects_wherever_a_schema_may_be():
    closed = close_objects(NAMED)
    nested = {"type": "array", "items": NAMED, "anyOf": [NAMED], "$defs": {"x": NAMED}}
    assert close_objects(nested) == {
        "type": "array",
        "items": closed,
        "anyOf": [closed],
        "$defs": {"x": closed},
    }


def test_close_objects_keeps_the_schemas_own_additional_properties():
    for additional in (True, STRING):
        schema = NAMED | {"additionalProperties": additional}
        assert close_objects(schema) == schema


def test_close_objects_object_without_properties_stays_open():
    assert close_objects({"type": "object"}) == {"type": "object"}


def test_close_objects_leaves_merged_schemas_open():
    schema = {"allOf": [NAMED, {"type": "object", "properties": {"b": STRING}}]}
    assert close_objects(schema) == schema


def test_close_objects_does_not_change_values_that_look_like_schemas():
    schema = {"const": {"properties": {"a": 1}}, "enum": [{"properties": {"a": 1}}], "items": True}
    assert close_objects(schema) == schema
