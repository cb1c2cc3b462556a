"""Adapt JSON schemas so that they can be used as grammars for generation. Pure.

Clients send schemas that libraries generate from types, and a grammar cannot express many parts of these.
Such a part is left out and reported. The answer is then less constrained than the schema asks for, but that
serves a client better than a refusal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlx_server.engine.grammar.schema_recursion import references, resolve

_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SCHEMA_LISTS = ("anyOf", "oneOf", "prefixItems")
_SINGLE_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
_MERGING = frozenset({"allOf", "$ref", "unevaluatedProperties"})
_MAY_BE_NULL = ("const", "default")
_UNKNOWN_TO_GRAMMARS = (
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
)
"""Keywords of JSON Schema that restrict values, and that llguidance does not implement."""

_SAYS_NOTHING: dict[str, tuple[Any, ...]] = {
    "uniqueItems": (False,),
    "unevaluatedItems": (True,),
    "unevaluatedProperties": (True,),
    "propertyNames": (True, {}, {"type": "string"}),
}
"""For some of these keywords, the values that restrict nothing, so that leaving them out changes nothing."""

_ALWAYS: tuple[Any, ...] = (True, {})
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "unknown", "uri")
)
"""The formats of strings that llguidance implements."""


class SchemaAdapter:
    """Removes from one schema the parts that a grammar cannot express, and lists them in `left_out`, for
    example as `properties.a.uniqueItems`.

    `unusable_patterns` are regular expressions that llguidance cannot compile.
    """

    def __init__(self, schema: dict[str, Any], unusable_patterns: frozenset[str] = frozenset()) -> None:
        self._root, self._unusable_patterns = schema, unusable_patterns
        # Without `$id`, references are relative to the root, even if the schema was moved into another one.
        self._drops_ids = all(reference.startswith("#") for reference in references(schema))
        self.left_out: list[str] = []

    def adapted(self) -> Any:
        """Return a copy of the schema that llguidance can compile. Raises RecursionError if the schema is
        nested too deep.
        """
        return close_objects(self._adapt(self._root, ()))

    def _adapt(self, schema: Any, path: tuple[str, ...]) -> Any:
        if not isinstance(schema, dict):
            return schema
        if schema.get("not") in _ALWAYS and "not" in schema:
            return False  # libraries write a value that cannot exist in this way
        result = {key: value for key, value in schema.items() if value is not None or key in _MAY_BE_NULL}
        self._translate_property_names(result)
        self._drop_keywords(result, path)
        for key in _SCHEMAS_BY_NAME:
            if isinstance(value := result.get(key), dict):
                result[key] = {name: self._adapt(item, (*path, key, name)) for name, item in value.items()}
        for key in (*_SCHEMA_LISTS, "allOf", "items"):
            if isinstance(value := result.get(key), list):
                result[key] = [self._adapt(item, (*path, key, str(i))) for i, item in enumerate(value)]
        for key in ("items", "additionalProperties"):
            if isinstance(value := result.get(key), dict):
                result[key] = self._adapt(value, (*path, key))
        return result

    def _drop_keywords(self, schema: dict[str, Any], path: tuple[str, ...]) -> None:
        for key in _UNKNOWN_TO_GRAMMARS:
            if key in schema and schema.pop(key) not in _SAYS_NOTHING.get(key, ()):
                self._leave_out(path, key)
        if not isinstance(schema.get("required", []), list):  # draft 3 had a boolean
            del schema["required"]
            self._leave_out(path, "required")
        if "format" in schema and not _is_text_in(schema["format"], _FORMATS):
            if schema.get("type") not in ("integer", "number"):
                self._leave_out(path, f"format {str(schema['format'])[:40]}")
            del schema["format"]
        if _has_optional_properties(schema):
            for key in ("minProperties", "maxProperties"):
                if schema.pop(key, 0):
                    self._leave_out(path, key)
        if _is_text_in(schema.get("pattern"), self._unusable_patterns):
            del schema["pattern"]
            self._leave_out(path, "pattern")
        if isinstance(patterns := schema.get("patternProperties"), dict) and (
            unusable := self._unusable_patterns & patterns.keys()
        ):
            schema["patternProperties"] = {
                name: value for name, value in patterns.items() if name not in unusable
            }
            schema.setdefault("additionalProperties", True)  # keeps `close_objects` from excluding the names
            self._leave_out(path, "patternProperties")
        if not _is_text_with(schema.get("$schema"), "json-schema.org"):
            schema.pop("$schema", None)
        if self._drops_ids:
            schema.pop("$id", None)

    def _translate_property_names(self, schema: dict[str, Any]) -> None:
        """Replace `propertyNames` by `properties` if it lists names, or by `patternProperties` if it has a
        pattern. This changes `schema` in place.

        Libraries such as pydantic and zod use `propertyNames` to describe a mapping whose keys are the
        members of an enumeration.
        """
        names = schema.get("propertyNames")
        reference = names.get("$ref") if isinstance(names, dict) else None
        if isinstance(reference, str) and reference.startswith("#"):
            names = resolve(self._root, reference)
        if not isinstance(names, dict) or "properties" in schema or "patternProperties" in schema:
            return
        value = schema.get("additionalProperties", True)
        keys = [names["const"]] if "const" in names else names.get("enum")
        if isinstance(keys, list) and keys and all(isinstance(key, str) for key in keys):
            schema["properties"] = dict.fromkeys(keys, value)
        elif isinstance(pattern := names.get("pattern"), str) and pattern not in self._unusable_patterns:
            schema["patternProperties"] = {pattern: value}
        else:
            return
        schema["additionalProperties"] = False
        del schema["propertyNames"]

    def _leave_out(self, path: tuple[str, ...], keyword: str) -> None:
        self.left_out.append(".".join((*path, keyword)))


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
    is_open = "patternProperties" in schema or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not is_merged and not is_open:
        names = [name for name in _list(schema.get("required")) if isinstance(name, str)]
        result["properties"] = result["properties"] | {
            name: {} for name in names if name not in result["properties"]
        }
        result["additionalProperties"] = False
    return result


def patterns(schema: Any) -> Iterator[str]:
    """Yield the regular expressions that occur anywhere in `schema`."""
    if isinstance(schema, dict):
        if isinstance(pattern := schema.get("pattern"), str):
            yield pattern
        names = schema.get("propertyNames")
        for key, value in schema.items():
            if key == "patternProperties" and isinstance(value, dict):
                yield from value
            yield from patterns(value)
        if isinstance(names, dict) and isinstance(pattern := names.get("pattern"), str):
            yield pattern
    elif isinstance(schema, list):
        for item in schema:
            yield from patterns(item)


def _has_optional_properties(schema: dict[str, Any]) -> bool:
    """Return whether the object may lack some of the properties that it names. A grammar cannot limit the
    number of properties (`minProperties`, `maxProperties`) in this case.
    """
    properties = schema.get("properties")
    required = _list(schema.get("required"))
    return isinstance(properties, dict) and any(name not in required for name in properties)


def _is_text_in(value: Any, texts: frozenset[str]) -> bool:
    return isinstance(value, str) and value in texts


def _is_text_with(value: Any, part: str) -> bool:
    return isinstance(value, str) and part in value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
