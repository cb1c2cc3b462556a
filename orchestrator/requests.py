"""Reading a request: JSON bodies and query parameters, by type, refused in a sentence."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from .errors import RequestRefused


async def body_of(request: web.Request) -> dict[str, Any]:
    """The body, which must be a JSON object; 413 over the app's limit."""
    raw = await request.read()
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise RequestRefused(400, "bad_json", "the body is not JSON.") from None
    if not isinstance(body, dict):
        raise RequestRefused(400, "bad_json", "the body must be a JSON object.")
    return body


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
