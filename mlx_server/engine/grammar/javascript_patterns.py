"""Translate regular expressions of JavaScript, the dialect of JSON Schema, to llguidance's. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_ANY_CHARACTER, _NO_CHARACTER = r"[\s\S]", r"[^\s\S]"
_SPECIAL_IN_CLASSES = "[&~"
"""Characters that stand for themselves in a character class of JavaScript, but not in one of llguidance."""


def from_javascript(pattern: str) -> str:
    """Return `pattern` with its character classes written as llguidance reads them. In JavaScript, `[^]` is
    any character, `[]` none, and a bracket within a class stands for itself. Only brackets that JavaScript
    leaves unbalanced are unbalanced in the result.
    """
    result: list[str] = []
    position, in_class = 0, False
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            char = pattern[position : position + 2]
        elif in_class:
            in_class = char != "]"
            if char in _SPECIAL_IN_CLASSES:
                result.append("\\")
        elif char == "[":
            for empty, translated in (("[^]", _ANY_CHARACTER), ("[]", _NO_CHARACTER)):
                if pattern.startswith(empty, position):
                    result.append(translated)
                    position += len(empty)
                    break
            else:
                in_class, position = True, position + 1
                result.append(char)
            continue
        result.append(char)
        position += len(char)
    return "".join(result)


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
