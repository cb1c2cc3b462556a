"""Read the fields of a journal entry without an exception, whatever types they have. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

MAX_TEXT = 400
MAX_COUNT = 1_000_000


class Entry(NamedTuple):
    """One event of the journal: its number `seq`, its time `ts` (seconds since 1970), the service that it is
    about, its name `event`, a sentence on its cause or an empty text, and its further data in `fields`.
    """

    seq: int
    ts: float
    service: str
    event: str
    cause: str
    fields: Mapping[str, Any]

    def number(self, name: str) -> float:
        """Return the field `name` as a number of at least 0; 0 if the field is missing or no such number."""
        return as_number(self.fields.get(name))

    def count(self, name: str) -> int:
        """Return the field `name` as a whole number from 0 to MAX_COUNT; 0 if the field is missing or no
        number.
        """
        return int(min(self.number(name), MAX_COUNT))

    def reference(self, name: str) -> int:
        """Return the field `name`, which is the id of an incident or the number of a journal entry, as a
        whole number; 0 if the field is missing or no number. These numbers grow without a limit, so `count`
        must not read them.
        """
        return int(self.number(name))

    def text(self, name: str) -> str:
        """Return the field `name` as a text of at most MAX_TEXT characters; empty if the field is missing or
        no text.
        """
        value = self.fields.get(name)
        return value[:MAX_TEXT] if isinstance(value, str) else ""

    def ids(self) -> list[str]:
        """Return the ids of requests in the field `id` or `ids`, each without its suffix after a period."""
        one = self.fields.get("id")
        if isinstance(one, str):
            return [one.partition(".")[0]] if one else []
        many = self.fields.get("ids")
        values = many if isinstance(many, list) else ()
        return [text.partition(".")[0] for text in values if isinstance(text, str) and text]

    def names(self, name: str) -> frozenset[str]:
        """Return the texts in the list that the field `name` holds; an empty set if the field holds no
        list.
        """
        value = self.fields.get(name)
        return (
            frozenset(each for each in value if isinstance(each, str))
            if isinstance(value, list)
            else frozenset()
        )

    def sentences(self, name: str) -> Mapping[str, str]:
        """Return the field `name`, which maps services to sentences; an empty dict if it holds no mapping."""
        value = self.fields.get(name)
        pairs = value.items() if isinstance(value, dict) else ()
        return {str(key): text[:MAX_TEXT] for key, text in pairs if isinstance(text, str)}


def made(seq: Any, ts: Any, component: Any, event: str, cause: Any, fields: Any, last_ts: float) -> Entry:
    """Build an entry from values of any type, with a default for each that has a wrong type.

    An entry without a valid time gets `last_ts`, the time of the entry before it.
    """
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
