"""Reading a request: JSON bodies and query parameters, by type, refused in a sentence."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from orchestrator.errors import RequestRefused
from orchestrator.unicode import is_valid_unicode, replace_invalid_unicode


async def body_of(request: web.Request) -> dict[str, Any]:
    """The body, which must be a JSON object; 413 over the app's limit."""
    raw = await request.read()
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise RequestRefused(400, "bad_json", "the body is not JSON.") from None
    if not isinstance(body, dict):
        raise RequestRefused(400, "bad_json", "the body must be a JSON object.")
    _refuse_unsound_text(body)
    return body


def _refuse_unsound_text(body: dict[str, Any]) -> None:
    """Every string, at any depth: one that UTF-8 or a C string cannot hold would poison all who read it."""
    left: list[tuple[str, Any]] = [(name, (name, value)) for name, value in body.items()]
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += [(name, pair) for pair in value.items()]
        elif isinstance(value, list | tuple):
            left += [(name, part) for part in value]
        elif isinstance(value, str) and not is_valid_unicode(value):
            raise RequestRefused(
                400,
                "bad_text",
                f"`{replace_invalid_unicode(name)[:80]}` holds a NUL or half of a surrogate pair,"
                " which is no text; leave it out.",
            )


def field(body: dict[str, Any], name: str, kind: type, required: bool = False) -> Any:
    """One field of the body by its type; None where it is absent and may be."""
    value = body.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {str: "a string", int: "a whole number", list: "a list"}
        raise RequestRefused(400, "bad_request", f"`{name}` must be {names[kind]}.")
    return value


def limit_of(request: web.Request, default: int, most: int) -> int:
    """`?limit=`, from 1 to `most`."""
    given = request.query.get("limit")
    if given is None:
        return default
    if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) <= most:
        raise RequestRefused(400, "bad_request", f"`limit` must be a whole number from 1 to {most}.")
    return int(given)
