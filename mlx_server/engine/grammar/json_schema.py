"""JSON schemas as grammars for generation want them. Pure."""

from __future__ import annotations

from typing import Any

_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTED = ("anyOf", "oneOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
_MERGED = frozenset({"allOf", "$ref", "unevaluatedProperties"})


def closed(schema: Any) -> Any:
    """`schema`, its objects without properties that it does not name, unless it says what they are.

    JSON schema lets any more be there, and a model that may go on does. Ollama's grammars and OpenAI's strict
    schemas are closed too. What is merged of several (allOf) is left as it is: each part would shut out
    the others.
    """
    if not isinstance(schema, dict):
        return schema
    out = dict(schema)
    for key in _NAMED:
        if isinstance(value := schema.get(key), dict):
            out[key] = {name: closed(item) for name, item in value.items()}
    for key in _LISTED:
        if isinstance(value := schema.get(key), list):
            out[key] = [closed(item) for item in value]
    for key in _SINGLE:
        if key in schema:
            out[key] = closed(schema[key])
    merged = _MERGED & schema.keys() or any(key in schema for key in ("anyOf", "oneOf"))
    if schema.get("properties") and not merged and "patternProperties" not in schema:
        out.setdefault("additionalProperties", False)
    return out
