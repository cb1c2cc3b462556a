"""Find JSON schemas that no finite text meets, because each value must contain another value of the same
kind. Pure.

llguidance refuses schemas that no text meets for another reason, such as an empty `enum`. But it compiles
such a recursive schema to a grammar whose text never ends, or which allows no token at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

_MAX_PASSES = 100


def is_endless(schema: dict[str, Any]) -> bool:
    """Return True if each value that meets `schema` must contain another value that meets it, without end.

    In doubtful cases (a reference to another document, a very long chain of references), return False.
    """
    finite: set[str] = set()  # the references whose schemas have a finite value
    within = sorted({reference for reference in references(schema) if reference.startswith("#")})
    for _ in range(_MAX_PASSES):
        before = len(finite)
        for reference in within:
            if reference not in finite and _is_finite(resolve(schema, reference), finite):
                finite.add(reference)
        if len(finite) == before:
            return not _is_finite(schema, finite)
        within.reverse()  # a chain of references in either order takes two passes
    return False


def _is_finite(schema: Any, finite: set[str]) -> bool:
    """Return whether a finite value can meet `schema`. `finite` holds the references known to be met by a
    finite value.
    """
    if not isinstance(schema, dict):
        return True
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#") and reference not in finite:
        return False
    if not all(_is_finite(part, finite) for part in _list(schema.get("allOf"))):
        return False
    for key in ("anyOf", "oneOf"):
        choices = _list(schema.get(key))
        if choices and not any(_is_finite(choice, finite) for choice in choices):
            return False
    if schema.get("type") in ("object", ["object"]):
        return all(_is_finite(part, finite) for part in _required_properties(schema))
    if schema.get("type") in ("array", ["array"]):
        return all(_is_finite(part, finite) for part in _required_items(schema))
    return True


def _required_properties(schema: dict[str, Any]) -> Iterator[Any]:
    """Yield the schema of each property that an object must have to meet `schema`; None for a property that
    no schema describes, and which may therefore have any value.
    """
    properties = schema.get("properties")
    named = properties if isinstance(properties, dict) else {}
    for name in _list(schema.get("required")):
        if isinstance(name, str):
            yield named.get(name, schema.get("additionalProperties"))
    least = schema.get("minProperties")
    if isinstance(least, int) and least > len(named):
        yield schema.get("additionalProperties")


def _required_items(schema: dict[str, Any]) -> Iterator[Any]:
    least = schema.get("minItems")
    if isinstance(least, int):
        first = _list(schema.get("prefixItems"))[: max(least, 0)]
        yield from first
        if least > len(first):
            yield schema.get("items")


def references(value: Any) -> Iterator[str]:
    """Yield the values of `$ref` that occur anywhere in `value`."""
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            yield reference
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def resolve(schema: dict[str, Any], reference: str) -> Any:
    """Return the part of `schema` that a JSON pointer such as `#/$defs/n` refers to; None if it does not
    exist.
    """
    found: Any = schema if reference[1:2] in ("", "/") else None
    for step in unquote(reference[1:]).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
