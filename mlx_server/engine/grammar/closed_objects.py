"""Close the objects of a JSON schema to properties that it does not name. Pure."""

from __future__ import annotations

from typing import Any

SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
SCHEMA_LISTS = ("anyOf", "oneOf", "prefixItems")
_SINGLE_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
"""The keywords whose values are schemas, by name (SCHEMAS_BY_NAME), in a list, or one alone."""

_MERGING = frozenset({"allOf", "$ref", "unevaluatedProperties"})


def close_objects(schema: Any) -> Any:
    """Return a copy of `schema` in which objects allow only the properties that they name.

    JSON Schema allows others by default, and a model that may add properties does so. Ollama's grammars and
    OpenAI's strict schemas disallow them, too. An object whose `properties` is empty can then only be `{}`,
    as for a tool without arguments. An object is not changed if the schema itself says which other properties
    it allows, or if the object is merged from several schemas (allOf, anyOf, $ref), because closing one of
    these schemas would exclude the properties of the others. A required property that is not described may
    have any value.
    """
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for key in SCHEMAS_BY_NAME:
        if isinstance(value := schema.get(key), dict):
            result[key] = {name: close_objects(item) for name, item in value.items()}
    for key in SCHEMA_LISTS:
        if isinstance(value := schema.get(key), list):
            result[key] = [close_objects(item) for item in value]
    for key in _SINGLE_SCHEMAS:
        if key in schema:
            result[key] = close_objects(schema[key])
    is_merged = _MERGING & schema.keys() or any(key in schema for key in ("anyOf", "oneOf"))
    is_open = "patternProperties" in schema or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not is_merged and not is_open:
        required = schema.get("required")
        names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
        result["properties"] = result["properties"] | {
            name: {} for name in names if name not in result["properties"]
        }
        result["additionalProperties"] = False
    return result
