"""Which objects of a schema are closed."""

from mlx_server.engine.grammar.json_schema import closed

STRING = {"type": "string"}
NAMED = {"type": "object", "properties": {"a": STRING}}


def test_object_that_names_its_properties_takes_no_others():
    assert closed(NAMED) == NAMED | {"additionalProperties": False}


def test_objects_within_are_closed_wherever_a_schema_may_stand():
    shut = closed(NAMED)
    nested = {"type": "array", "items": NAMED, "anyOf": [NAMED], "$defs": {"x": NAMED}}
    assert closed(nested) == {"type": "array", "items": shut, "anyOf": [shut], "$defs": {"x": shut}}


def test_what_a_schema_says_itself_stands():
    for said in (True, STRING):
        schema = NAMED | {"additionalProperties": said}
        assert closed(schema) == schema


def test_any_object_stays_any_object():
    assert closed({"type": "object"}) == {"type": "object"}


def test_merged_parts_do_not_shut_out_each_other():
    schema = {"allOf": [NAMED, {"type": "object", "properties": {"b": STRING}}]}
    assert closed(schema) == schema


def test_values_that_look_like_schemas_are_left_alone():
    schema = {"const": {"properties": {"a": 1}}, "enum": [{"properties": {"a": 1}}], "items": True}
    assert closed(schema) == schema
