"""Describe the first mistake in a body in one sentence, in the terms of JSON instead of the validator's
terms. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_UNION_MEMBERS = frozenset({"str", "int", "float", "bool", "dict", "list", "none"})
"""Names that pydantic puts into the location of an error for the alternatives of a union."""
_PREFIX = re.compile(r"^(Value error, |Input |String |List )")
_JSON_TYPES = {
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}
MAX_VALUE_LENGTH = 60


def first_mistake(error: ValidationError) -> str:
    """Return a sentence about the first mistake, such as `messages.0.content: should be a string or a list
    (given: 3)`.
    """
    found = error.errors(include_url=False, include_context=False)
    same_field = _of_the_first_field(found)
    # Each alternative of a union reports its own mistake. The client probably meant the alternative whose
    # mistake lies deepest.
    furthest = max(len(_path(each)) for each in same_field)
    mistakes = [each for each in same_field if len(_path(each)) == furthest]
    where = ".".join(_path(mistakes[0])) or "body"
    if mistakes[0]["type"] == "missing":
        return f"{where}: is missing"
    return f"{where}: {_expectation(mistakes)} (given: {_shortened(mistakes[0]['input'])})"


def _of_the_first_field(found: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Return all errors about the field that the first error is about. A field of a union type has one error
    for each alternative.
    """
    location = found[0]["loc"]
    depth = next((at for at, step in enumerate(location) if _is_union_member(step)), len(location))
    return [each for each in found if each["loc"][:depth] == location[:depth]]


def _expectation(mistakes: Sequence[ErrorDetails]) -> str:
    first = mistakes[0]
    if first["type"] not in _JSON_TYPES:
        return _PREFIX.sub("", first["msg"].partition(" after validation")[0])
    found_types = {each["type"] for each in mistakes}
    expected = list(dict.fromkeys(name for key, name in _JSON_TYPES.items() if key in found_types))
    if "a number" in expected:
        expected = [name for name in expected if name != "a whole number"]
    return f"should be {' or '.join(expected)}"


def _path(each: ErrorDetails) -> list[str]:
    return [str(step) for step in each["loc"] if not _is_union_member(step)]


def _is_union_member(step: int | str) -> bool:
    return isinstance(step, str) and (step in _UNION_MEMBERS or not step.isidentifier())


def _shortened(value: Any) -> str:
    text = _beginning(value, MAX_VALUE_LENGTH)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[: MAX_VALUE_LENGTH - 3]}..."


def _beginning(value: Any, length: int) -> str:
    """Return the JSON of `value`, cut off soon after `length` characters, so that little work is done even if
    `value` is large or deeply nested.
    """
    if not isinstance(value, list | dict):
        return json.dumps(value[: length + 1] if isinstance(value, str) else value, default=str)
    text, end = ("[", "]") if isinstance(value, list) else ("{", "}")
    for number, key in enumerate(value):
        if len(text) > length:
            return text
        text += ", " if number else ""
        if isinstance(value, dict):
            text += f"{_beginning(str(key), length)}: "
        text += _beginning(value[key] if isinstance(value, dict) else key, length - len(text))
    return text + end
