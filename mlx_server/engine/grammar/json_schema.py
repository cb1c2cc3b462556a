"""Adapts JSON schemas to their use as grammars for generation. Pure."""

from __future__ import annotations

from typing import Any

_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SCHEMA_LISTS = ("anyOf", "oneOf", "prefixItems")
_SINGLE_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
_MERGING = frozenset({"allOf", "$ref", "unevaluatedProperties"})


def close_objects(schema: Any) -> Any:
    """Return a copy of `schema` in which objects allow no properties but those that they name.

    JSON Schema allows others by default, and a model that may add properties does. Ollama's grammars and
    OpenAI's strict schemas disallow them too. An object stays as it is if the schema itself says what other
    properties it allows, or if it is merged from several schemas (allOf, anyOf, $ref): each would exclude the
    properties of the others.
    """
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for key in _SCHEMAS_BY_NAME:
        if isinstance(value := schema.get(key), dict):
            result[key] = {name: close_objects(item) for name, item in value.items()}
    for key in _SCHEMA_LISTS:
        if isinstance(value := schema.get(key), list):
            result[key] = [close_objects(item) for item in value]
    for key in _SINGLE_SCHEMAS:
        if key in schema:
            result[key] = close_objects(schema[key])
    is_merged = _MERGING & schema.keys() or any(key in schema for key in ("anyOf", "oneOf"))
    if schema.get("properties") and not is_merged and "patternProperties" not in schema:
        result.setdefault("additionalProperties", False)
    return result
