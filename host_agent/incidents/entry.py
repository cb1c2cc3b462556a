"""Read a journal entry without raising an exception, whatever the types of its fields. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

MAX_TEXT = 400
MAX_COUNT = 1_000_000


class Entry(NamedTuple):
    """One event of the journal."""

    seq: int
    ts: float
    service: str
    event: str
    cause: str
    fields: Mapping[str, Any]

    def number(self, name: str) -> float:
        """Return a field that should be a number, at least 0; 0 if it is none."""
        return as_number(self.fields.get(name))

    def count(self, name: str) -> int:
        """Return a field that should be a whole number, at least 0; 0 if it is none."""
        return int(min(self.number(name), MAX_COUNT))

    def text(self, name: str) -> str:
        """Return a field that should be a text; empty if it is none."""
        value = self.fields.get(name)
        return value[:MAX_TEXT] if isinstance(value, str) else ""

    def ids(self) -> list[str]:
        """Return the ids of requests in the fields `ids` or `id`, without the suffix after a dot."""
        one = self.fields.get("id")
        if isinstance(one, str):
            return [one.partition(".")[0]] if one else []
        many = self.fields.get("ids")
        values = many if isinstance(many, list) else ()
        return [text.partition(".")[0] for text in values if isinstance(text, str) and text]

    def names(self, name: str) -> frozenset[str]:
        """Return a field that should be a list of names; empty if it is none."""
        value = self.fields.get(name)
        return (
            frozenset(each for each in value if isinstance(each, str))
            if isinstance(value, list)
            else frozenset()
        )

    def sentences(self, name: str) -> Mapping[str, str]:
        """Return a field that should map services to sentences; empty if it does not."""
        value = self.fields.get(name)
        pairs = value.items() if isinstance(value, dict) else ()
        return {str(key): text[:MAX_TEXT] for key, text in pairs if isinstance(text, str)}


def made(seq: Any, ts: Any, component: Any, event: str, cause: Any, fields: Any, last_ts: float) -> Entry:
    """Return an entry of these values. One without a time gets `last_ts`, the time of the entry before."""
    if type(ts) is not float or not math.isfinite(ts):
        ts = as_number(ts) or last_ts
    return Entry(
        seq if type(seq) is int else 0,
        ts,
        component if type(component) is str else "",
        event,
        cause[:MAX_TEXT] if type(cause) is str else "",
        fields if type(fields) is dict else {},
    )


def as_number(value: object) -> float:
    """Return the value if it is a finite number above 0, else 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    try:
        number = float(value)
    except OverflowError:
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0
