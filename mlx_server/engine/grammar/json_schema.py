"""Adapt JSON schemas so that they can be used as grammars for generation. Pure.

Clients send schemas that libraries generate from types, and a grammar cannot express many parts of these.
Such a part is left out and reported. The answer is then less constrained than the schema asks for, but that
serves a client better than a refusal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlx_server.engine.grammar.closed_objects import (
    SCHEMA_LISTS,
    SCHEMAS_BY_NAME,
    close_objects,
)
from mlx_server.engine.grammar.keyword_values import (
    BOUNDS,
    COUNTS,
    common_multiple,
    count,
    is_inexpressible,
    known_type,
    limits_nothing,
)
from mlx_server.engine.grammar.schema_recursion import resolve
from mlx_server.engine.grammar.schema_references import Path, ReferenceFinder, pointer_to

_MAY_BE_NULL = ("const", "default")
_NAMES_OF_SCHEMAS = ("$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor")
_RESTRICTING = frozenset(
    (
        *("type", "enum", "const", "properties", "patternProperties", "additionalProperties", "required"),
        *("items", "prefixItems", "pattern", "format", "multipleOf", *COUNTS, *BOUNDS),
    )
)
"""The keywords with which a schema itself restricts values, without the help of another schema."""

_MAX_MOVED_CHARS = 64 * 1024
"""How many characters may be copied from places where no schema is expected to `$defs`."""

_MAX_REFERENCES_IN_A_ROW = 8
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

_META_SCHEMAS = ("http://json-schema.org/", "https://json-schema.org/")
"""Where the schemas of schemas are, which llguidance knows."""

_ALWAYS: tuple[Any, ...] = (True, {})
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "unknown", "uri")
)
"""The formats of strings that llguidance implements."""


class NothingRemains(ValueError):
    """A schema allows any value once the parts are left out that a grammar cannot express."""


class SchemaAdapter:
    """Removes from one schema the parts that a grammar cannot express, and lists them in `left_out`, for
    example as `properties.a.uniqueItems`.

    `usable_patterns` has the regular expressions that llguidance cannot compile, each with what is used in
    its place; None if the expression is left out.
    """

    def __init__(
        self, schema: dict[str, Any], usable_patterns: Mapping[str, str | None] | None = None
    ) -> None:
        self._root, self._patterns = schema, usable_patterns or {}
        self._references = ReferenceFinder(schema)
        self._moved: dict[Path, str] = {}  # schemas that become definitions, and the names they get
        self._moved_chars = 0
        self._common_multiple = 1  # of the values of `multipleOf`
        self._lacks_meaning = False  # whether a part was left out that may have said all
        self.left_out: list[str] = []

    def adapted(self) -> Any:
        """Return a copy of the schema that llguidance can compile. Each reference in it is a pointer from the
        root.

        Raises RecursionError if the schema is nested too deep, and NothingRemains if it allows any value, but
        only because it refers to a schema that is missing, or has an unknown type.
        """
        result = self._adapt(self._root, ())
        definitions: dict[str, Any] = {}
        while len(definitions) < len(self._moved):  # a schema that is moved may have others moved
            path, name = list(self._moved.items())[len(definitions)]
            definitions[name] = self._adapt(self._references.target(path), path)
        if isinstance(result, dict) and definitions:
            result["$defs"] = {**_dict(result.get("$defs")), **definitions}
        if self._lacks_meaning and _says_nothing(result, result):
            raise NothingRemains(f"nothing remains of it without {', '.join(self.left_out[:5])}")
        return close_objects(result)

    def _adapt(self, schema: Any, path: Path) -> Any:
        if not isinstance(schema, dict):
            return schema
        if schema.get("not") in _ALWAYS and "not" in schema:
            return False  # libraries write a value that cannot exist in this way
        result = {key: value for key, value in schema.items() if value is not None or key in _MAY_BE_NULL}
        self._translate_property_names(result, path)
        self._resolve_reference(result, path)
        self._translate_values(result, path)
        self._drop_keywords(result, path)
        for key in SCHEMAS_BY_NAME:
            if isinstance(value := result.get(key), dict):
                result[key] = {name: self._adapt(item, (*path, key, name)) for name, item in value.items()}
        for key in (*SCHEMA_LISTS, "allOf", "items"):
            if isinstance(value := result.get(key), list):
                result[key] = [self._adapt(item, (*path, key, i)) for i, item in enumerate(value)]
        for key in ("items", "additionalProperties"):
            if isinstance(value := result.get(key), dict):
                result[key] = self._adapt(value, (*path, key))
        return result

    def _resolve_reference(self, schema: dict[str, Any], path: Path) -> None:
        """Replace the schema's reference by a pointer from the root, or leave it out if it means no schema of
        this document. This changes `schema` in place.
        """
        reference = schema.get("$ref")
        if not isinstance(reference, str) or reference.startswith(_META_SCHEMAS):
            return
        target = self._references.find(reference, path)
        pointer = None if target is None else self._pointer(target)
        if pointer is not None:
            schema["$ref"] = pointer
            return
        del schema["$ref"]
        self._leave_out(path, f"$ref {reference[:100]}")
        self._lacks_meaning = True
        if "properties" in schema:
            schema.setdefault("additionalProperties", True)  # the missing schema may name further ones

    def _pointer(self, target: Path) -> str | None:
        """Return the pointer to the schema at `target`. If the adapted schema does not have it there, it
        becomes a definition. Return None if too much would have to be copied.
        """
        if self._stays(target):
            return pointer_to(target)
        if target not in self._moved:
            self._moved_chars += len(json.dumps(self._references.target(target)))
            if self._moved_chars > _MAX_MOVED_CHARS:
                return None
            self._moved[target] = f"vestal-moved-{len(self._moved)}"
        return pointer_to(("$defs", self._moved[target]))

    def _stays(self, path: Path) -> bool:
        """Return whether the adapted schema has, at `path`, what the given schema has there."""
        value: Any = self._root
        steps = list(reversed(path))
        while steps:
            if value.get("not") in _ALWAYS and "not" in value:
                return False
            key = steps.pop()
            if key == "additionalProperties" and "propertyNames" in value:
                return False
            value = value[key]
            if (key in SCHEMAS_BY_NAME and isinstance(value, dict)) or isinstance(value, list):
                if not steps or key not in (*SCHEMAS_BY_NAME, *SCHEMA_LISTS, "allOf", "items"):
                    return False
                if key == "dependentSchemas" or (key == "patternProperties" and steps[-1] in self._patterns):
                    return False
                inner: Any = value
                value = inner[steps.pop()]
            elif key not in ("items", "additionalProperties"):
                return False
            if steps and not isinstance(value, dict):
                return False
        return True

    def _translate_values(self, schema: dict[str, Any], path: Path) -> None:
        """Translate types and numbers to the values that llguidance takes. Leave out an unknown type, and
        numbers that it cannot express. This changes `schema` in place.
        """
        if "type" in schema:
            schema["type"] = known_type(unknown := schema["type"])
            if schema["type"] == "":
                self._leave_out(path, f"type {str(unknown)[:40]}")
                self._lacks_meaning = True
            if schema["type"] in ("", None):
                del schema["type"]
        for key in COUNTS:
            if key in schema:
                schema[key] = count(schema[key])
                if limits_nothing(key, schema[key]):
                    del schema[key]
        for key in BOUNDS:
            if key in schema and is_inexpressible(key, schema[key], schema.get("type")):
                del schema[key]
                self._leave_out(path, key)
        if "multipleOf" in schema:
            common = common_multiple(self._common_multiple, schema["multipleOf"])
            if common is None:
                del schema["multipleOf"]
                self._leave_out(path, "multipleOf")
            self._common_multiple = common or self._common_multiple

    def _drop_keywords(self, schema: dict[str, Any], path: Path) -> None:
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
        self._replace_patterns(schema, path)
        if not _is_text_with(schema.get("$schema"), "json-schema.org"):
            schema.pop("$schema", None)
        for key in _NAMES_OF_SCHEMAS:  # all references are pointers from the root
            schema.pop(key, None)
        if isinstance(schema.get("id"), str):
            del schema["id"]

    def _replace_patterns(self, schema: dict[str, Any], path: Path) -> None:
        """Replace the regular expressions that llguidance cannot compile, or leave them out. This changes
        `schema` in place.
        """
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and pattern in self._patterns:
            schema["pattern"] = self._patterns[pattern]
            if schema["pattern"] is None:
                del schema["pattern"]
                self._leave_out(path, "pattern")
        named = schema.get("patternProperties")
        if isinstance(named, dict) and self._patterns.keys() & named.keys():
            used = {self._patterns.get(name, name): value for name, value in named.items()}
            if None in used:
                del used[None]
                schema.setdefault("additionalProperties", True)  # keeps `close_objects` from excluding names
                self._leave_out(path, "patternProperties")
            schema["patternProperties"] = used

    def _translate_property_names(self, schema: dict[str, Any], path: Path) -> None:
        """Replace `propertyNames` by `properties` if it lists names, or by `patternProperties` if it has a
        pattern. This changes `schema` in place.

        Libraries such as pydantic and zod use `propertyNames` to describe a mapping whose keys are the
        members of an enumeration.
        """
        names = schema.get("propertyNames")
        reference = names.get("$ref") if isinstance(names, dict) else None
        if isinstance(reference, str):
            found = self._references.find(reference, path)
            names = None if found is None else self._references.target(found)
        if not isinstance(names, dict) or "properties" in schema or "patternProperties" in schema:
            return
        value = schema.get("additionalProperties", True)
        keys = [names["const"]] if "const" in names else names.get("enum")
        if isinstance(keys, list) and keys and all(isinstance(key, str) for key in keys):
            schema["properties"] = dict.fromkeys(keys, value)
        elif isinstance(pattern := names.get("pattern"), str) and self._patterns.get(pattern, pattern):
            schema["patternProperties"] = {pattern: value}
        else:
            return
        schema["additionalProperties"] = False
        del schema["propertyNames"]

    def _leave_out(self, path: Path, keyword: str) -> None:
        self.left_out.append(".".join((*map(str, path), keyword)))


def _says_nothing(schema: Any, root: Any, depth: int = 0) -> bool:
    """Return whether any value meets `schema`, as far as keywords show that."""
    if not isinstance(schema, dict):
        return schema is True
    if schema.keys() & _RESTRICTING or depth > _MAX_REFERENCES_IN_A_ROW:
        return False
    for key in ("anyOf", "oneOf"):
        if key in schema and not any(_says_nothing(item, root, depth) for item in _list(schema[key])):
            return False
    if not all(_says_nothing(item, root, depth) for item in _list(schema.get("allOf"))):
        return False
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return "$ref" not in schema
    return _says_nothing(resolve(root, reference), root, depth + 1)


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


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
