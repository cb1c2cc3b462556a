"""A body's first mistake as one sentence, in JSON's words and not in the validator's. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# A union puts the names of its alternatives among the steps to a field.
_ALTERNATIVES = frozenset({"str", "int", "float", "bool", "dict", "list", "none"})
_SUBJECT = re.compile(r"^(Value error, |Input |String |List )")
_KINDS = {
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


def sentence(error: ValidationError) -> str:
    """The first mistake: `messages.0.content: should be a string or a list (given: 3)`."""
    found = error.errors(include_url=False, include_context=False)
    same_field = _of_the_first_field(found)
    farthest = max(len(_steps(each)) for each in same_field)
    wrong = [each for each in same_field if len(_steps(each)) == farthest]
    where = ".".join(_steps(wrong[0])) or "body"
    if wrong[0]["type"] == "missing":
        return f"{where}: is missing"
    return f"{where}: {_what(wrong)} (given: {_short(wrong[0]['input'])})"


def _of_the_first_field(found: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """What each alternative of the first field says against it: the one that got farthest was meant."""
    steps = found[0]["loc"]
    depth = next((at for at, step in enumerate(steps) if _is_alternative(step)), len(steps))
    return [each for each in found if each["loc"][:depth] == steps[:depth]]


def _what(wrong: Sequence[ErrorDetails]) -> str:
    first = wrong[0]
    types = {each["type"] for each in wrong}
    kinds = list(dict.fromkeys(kind for name, kind in _KINDS.items() if name in types))
    if first["type"] in _KINDS:
        if "a number" in kinds:
            kinds = [kind for kind in kinds if kind != "a whole number"]
        return f"should be {' or '.join(kinds)}"
    return _SUBJECT.sub("", first["msg"].partition(" after validation")[0])


def _steps(each: ErrorDetails) -> list[str]:
    return [str(step) for step in each["loc"] if not _is_alternative(step)]


def _is_alternative(step: int | str) -> bool:
    return isinstance(step, str) and (step in _ALTERNATIVES or not step.isidentifier())


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
