"""Find the client's JSON schema of an answer within a schema that also allows calls of tools, as the gateway
makes it. Pure.
"""

from __future__ import annotations

from typing import Any

_CHOICES = ("answer", "call", "calls")
_ANSWER = "#/$defs/answer"


def answer_schema(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the client's own schema if `schema` is the gateway's combination of it with tool calls: a schema
    that allows either an answer that matches the client's schema, or calls. Return None for any other schema.

    In the combination, the client's schema is the definition `answer`, and the path of this definition was
    put before its references (`$ref`). In the result, the references are again as the client sent them.
    """
    definitions = schema.get("$defs")
    if schema.keys() != {"anyOf", "$defs"} or not isinstance(definitions, dict):
        return None
    choices = [{"$ref": f"#/$defs/{name}"} for name in _CHOICES]
    if definitions.keys() != set(_CHOICES) or schema["anyOf"] != choices:
        return None
    answer = _with_references_from_its_root(definitions["answer"])
    return answer if isinstance(answer, dict) else None


def _with_references_from_its_root(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved_back(key, value) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and (reference == _ANSWER or reference.startswith(_ANSWER + "/")):
        moved["$ref"] = "#" + reference.removeprefix(_ANSWER)
    return moved


_VALUES = ("const", "enum", "default", "examples")
_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


def _moved_back(key: str, value: Any) -> Any:
    """Return the value of the keyword `key` with the references that the client sent. The gateway has moved
    no references in values, and in parts with an `$id`.
    """
    if isinstance(value, list) and key not in _VALUES:
        return [_moved_back("", item) for item in value]
    if not isinstance(value, dict) or key in _VALUES:
        return value
    if key in _SCHEMAS_BY_NAME:
        return {name: _moved_back("", item) for name, item in value.items()}
    own = value.get("$id")
    return (
        value if isinstance(own, str) and not own.startswith("#") else _with_references_from_its_root(value)
    )
