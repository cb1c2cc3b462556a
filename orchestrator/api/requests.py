"""Read JSON bodies and query parameters, and check their types. A refusal is one sentence."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from vestal.web import aiohttp_adapter
from vestal.web.http_error import HttpError
from vestal.web.json_body import field_with_text


async def read_object(request: web.Request) -> dict[str, Any]:
    """Return the JSON object in the body. Raise HttpError for anything else, and if a text holds a NUL.

    Neither SQLite's functions nor Postgres can hold a NUL. A task whose goal had one was accepted, and then
    nobody could read GET /tasks.
    """
    body = await aiohttp_adapter.read_object(request)
    if field := field_with_text(body, lambda text: "\0" in text):
        raise HttpError("invalid_request", f"`{field}` holds a NUL, which no text may have; leave it out.")
    return body


def field(body: dict[str, Any], name: str, kind: type, required: bool = False) -> Any:
    """Return one field of the body, which must be of type `kind`; None if it is absent and not required."""
    value = body.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {str: "a string", int: "a whole number", list: "a list"}
        raise HttpError("invalid_request", f"`{name}` must be {names[kind]}.")
    return value


def limit_of(request: web.Request, default: int, maximum: int) -> int:
    """Return the parameter `?limit=`, from 1 to `maximum`; `default` if there is none."""
    given = request.query.get("limit")
    if given is None:
        return default
    if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) <= maximum:
        raise HttpError("invalid_request", f"`limit` must be a whole number from 1 to {maximum}.")
    return int(given)
