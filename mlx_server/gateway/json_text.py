"""Write JSON that every strict parser of a client can read. No other module of the gateway writes JSON.

Answers contain text and numbers that a model wrote, and Python's own JSON writer would pass on values that
are not valid JSON: NaN, Infinity, and unpaired surrogates, which UTF-8 cannot encode. Here, a number that is
not finite becomes null, and an unpaired surrogate becomes U+FFFD. Nothing raises, so that one odd value
cannot break a stream.
"""

from __future__ import annotations

import json
import logging
import math
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.responses import Response

log = logging.getLogger(__name__)

FIRST_SECOND = datetime(1, 1, 1, tzinfo=UTC).timestamp()
LAST_SECOND = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
"""The first and the last time whose year can be written with four digits, in seconds since 1970."""

_encoder = msgspec.json.Encoder()
_LINE_SEPARATORS = (
    ("\u0085".encode(), b"\\u0085"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)
"""Characters that JSON allows in a string, but at which Python's `splitlines` divides a line. A client that
reads lines with `splitlines` (httpx, and therefore Ollama's Python client) would see half a JSON object."""


def json_bytes(value: Any) -> bytes:
    """Return `value` as JSON in UTF-8, on one line and without spaces."""
    try:
        text = _encoder.encode(value)
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError, RecursionError):
        text = _repaired(value)
    for separator, escaped in _LINE_SEPARATORS:
        if separator in text:
            text = text.replace(separator, escaped)
    return text


def json_text(value: Any) -> str:
    """Return `value` as JSON text for a string field of an answer, such as the arguments of a tool call,
    which the client parses separately. A space follows each `,` and `:`.
    """
    return msgspec.json.format(json_bytes(value), indent=0).decode()


class JsonResponse(Response):
    """A response with a JSON body."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json_bytes(content)


def iso_time(since_epoch_s: float, timespec: str = "auto") -> str:
    """Return a time in UTC as text, such as `2025-01-31T12:00:00.123456Z`. `timespec` has the same values as
    in `datetime.isoformat`; with "seconds", the fraction of the second is left out.

    A time that the format cannot express, for example that of a file on a broken disk, is replaced by the
    nearest time that it can express.
    """
    within = min(max(since_epoch_s, FIRST_SECOND), LAST_SECOND)
    return datetime.fromtimestamp(within, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def valid_text(text: str) -> str:
    """Return `text` with each unpaired surrogate replaced by U+FFFD, and each surrogate pair joined to one
    character.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _repaired(value: Any) -> bytes:
    """Return `value` as JSON text, with those parts replaced that JSON cannot express; `null` if even that
    fails.
    """
    try:
        text = json.dumps(_valid(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode("utf-8", "replace")
    except Exception:  # a bug elsewhere must not break the stream: the log has it, and the client a null
        log.exception("A value of type %s could not be written as JSON", type(value).__name__)
        return b"null"


def _valid(value: Any) -> Any:
    """Return `value` as JSON can express it: a number that is not finite becomes None, an unpaired surrogate
    becomes U+FFFD, and each key of a dict, and a value of a type that JSON lacks, becomes its `str`.
    """
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, dict):
        valid: dict[Any, Any] = {}
        for key, item in value.items():  # a loop, as a comprehension would double the depth of the stack
            valid[valid_text(str(key))] = _valid(item)
        return valid
    if isinstance(value, (list, tuple)):
        items = []
        for item in value:
            items.append(_valid(item))
        return items
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, int) else valid_text(str(value))
