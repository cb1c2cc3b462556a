"""Translate the values of keywords of JSON Schema to the spellings and ranges that llguidance takes. Pure."""

from __future__ import annotations

from decimal import Decimal
from math import lcm
from typing import Any

COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
"""The keywords whose values count something."""

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
"""The keywords whose values limit a number."""

_TYPES = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))
_MOST_COUNTED = 2**31
"""A count that no answer reaches. llguidance refuses to count to 2**32 characters."""

_LARGEST_BOUND, _SMALLEST_BOUND = 10**18, 1e-50
"""Bounds of numbers must be between these, or 0. Beyond them, llguidance makes no regular expression."""

_SMALLEST_FACTOR, _LARGEST_FACTOR, _MOST_FACTOR_DIGITS = 1e-9, 1e9, 4
"""Limits for the values of `multipleOf`, and for the digits of a common multiple without the zeros at both
ends. llguidance takes 0.6 s for the divisibility by 99,999, and minutes for that by 2,147,483,648."""

_FACTOR_UNIT = Decimal(10) ** -13


def known_type(value: Any) -> Any:
    """Return the value of `type` in the spelling of JSON Schema: "STRING", which Gemini's clients send,
    becomes "string", and null in a list "null". Return None if the type allows any value ("any"), and ""
    if it is unknown. A value that is neither a text nor a list of texts is returned as it is.
    """
    if isinstance(value, str):
        name = value.strip().lower()
        return None if name == "any" else name if name in _TYPES else ""
    if not isinstance(value, list) or not all(isinstance(item, str | None) for item in value):
        return value
    names = [known_type("null" if item is None else item) for item in value]
    return None if None in names else "" if "" in names else list(dict.fromkeys(names))


def count(value: Any) -> Any:
    """Return the value of a keyword in COUNTS as an integer: 2.0 is one in JSON Schema, and Gemini's clients
    send "2". A value that is no integer is returned as it is.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value)
    return value


def limits_nothing(keyword: str, value: Any) -> bool:
    """Return whether a keyword in COUNTS is a maximum that no answer can exceed."""
    return keyword.startswith("max") and _is_number(value) and value >= _MOST_COUNTED


def is_inexpressible(keyword: str, value: Any, type_: Any) -> bool:
    """Return whether llguidance cannot express `keyword`, which is in BOUNDS, with this value for numbers of
    this `type`.
    """
    if not _is_number(value) or value == 0:
        return False
    if type_ == "integer":
        is_ceiling = keyword in ("maximum", "exclusiveMaximum") and value > 0
        return abs(value) >= _LARGEST_BOUND and not is_ceiling
    return not _SMALLEST_BOUND < abs(value) < _LARGEST_BOUND


def common_multiple(multiple: int, factor: Any) -> int | None:
    """Return the least common multiple of `multiple`, which this function has returned (at first 1), and a
    value of `multipleOf`. llguidance computes it where schemas are merged. Return None if it is too large for
    llguidance, and `multiple` itself if the value is no number or 0.
    """
    if not _is_number(factor) or factor == 0:
        return multiple
    if not _SMALLEST_FACTOR <= abs(factor) <= _LARGEST_FACTOR:
        return None
    units = abs(Decimal(repr(factor))) / _FACTOR_UNIT
    common = lcm(multiple, int(units))
    is_whole = units == int(units)
    return common if is_whole and len(str(common).strip("0")) <= _MOST_FACTOR_DIGITS else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
