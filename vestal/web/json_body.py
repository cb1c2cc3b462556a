"""Parse the body of a request, which must be a JSON object. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from json import scanner
from typing import Any, NoReturn

from vestal.web.http_error import HttpError

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONE_SURROGATES = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
"""Matches an escaped backslash, a whole surrogate pair, or half of a pair, which alone is captured as a
group.
"""
_SLICE_BYTES = 1024 * 1024


class StepwiseDecoder(json.JSONDecoder):
    """Decodes JSON by many short calls, one for each string and number, so that other threads can run in
    between.

    The standard decoder decodes the whole document in one call of C code, which is faster but keeps the
    interpreter's lock.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scan_once = scanner.py_make_scanner(self)  # type: ignore[attr-defined]  # typeshed lacks it


def parse_object(raw: bytes, *, stepwise: bool = False, replaces_surrogates: bool = False) -> dict[str, Any]:
    """Return the JSON object in `raw`. Raises HttpError `invalid_json` if `raw` is not UTF-8, or not the JSON
    of an object.

    NaN, Infinity and half of a surrogate pair are refused: Python reads them, but they are not JSON, or not
    text that can be written again. With `replaces_surrogates`, such a half becomes U+FFFD, as in the decoders
    of Go and other languages, because JavaScript programs write half a pair where they cut a text within an
    emoji. With `stepwise`, StepwiseDecoder decodes the text in many short calls, between which other threads
    can run. Without it, Python's fast decoder decodes the text in a single call, which keeps the
    interpreter's lock for up to 2 s for 32 MB of numbers.
    """
    if not raw.strip():
        raise _invalid("The body is empty; send a JSON object.")
    body: Any = None
    try:
        decoder = StepwiseDecoder if stepwise else None
        body = json.loads(raw.decode("utf-8"), cls=decoder, parse_constant=_refuse_constant)
    except UnicodeError as error:
        raise _invalid(f"The body is not valid UTF-8: {error}.") from error
    except RecursionError as error:
        raise _invalid("The body is nested too deeply.") from error
    except ValueError as error:
        raise _invalid(f"The body is not valid JSON: {error}.") from error
    if _escapes_surrogates(raw) and any(_has_surrogate(text) for text in _texts(body)):
        if replaces_surrogates:
            return parse_object(_LONE_SURROGATES.sub(_replaced, raw), stepwise=stepwise)
        where = field_with_text(body, _has_surrogate)
        what = f"`{where}` holds" if where else "it holds"
        raise _invalid(f"The body is not valid UTF-8: {what} half of a surrogate pair.")
    if not isinstance(body, dict):
        raise _invalid(f"The body must be a JSON object, not {_type_name(body)}.")
    return body


def field_with_text(body: Any, is_wrong: Callable[[str], bool]) -> str | None:
    """Return the name of the first top-level field of the JSON object `body` that contains a text for which
    `is_wrong` returns True. The texts of a field are its own name, and the strings and field names at any
    depth of its value. Return None if there is no such field, or `body` is not an object.

    The returned name is cut to 80 characters, and has `?` in place of NUL and of characters that UTF-8 cannot
    encode.
    """
    for name, value in body.items() if isinstance(body, dict) else ():
        if any(is_wrong(text) for text in _texts([name, value])):
            return name[:80].encode("utf-8", "replace").decode().replace("\0", "?")
    return None


def _escapes_surrogates(raw: bytes) -> bool:
    """Return whether the JSON text has a `\\u` escape of half a surrogate pair, even if the other half
    follows.

    The text is searched in slices, since a search of 32 MB in one call would keep other threads waiting
    for 0.1 s.
    """
    starts = range(0, len(raw), _SLICE_BYTES)
    return any(_SURROGATE_ESCAPE.search(raw, start, start + _SLICE_BYTES + 4) for start in starts)


def _replaced(found: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if found[1] else found[0]


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _texts(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value; without recursion, since the value may be nested deeply."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value


def _invalid(message: str) -> HttpError:
    return HttpError("invalid_json", message)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _type_name(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
