"""Read JSON bodies and query parameters, and check their types. An error message is one sentence."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from vestal.web import aiohttp_adapter
from vestal.web.http_error import HttpError
from vestal.web.json_body import field_with_text


async def read_object(request: web.Request, *, may_be_empty: bool = False) -> dict[str, Any]:
    """Return the JSON object in the body; with `may_be_empty`, an empty object if there is no body. Raises
    HttpError if the body is not a JSON object, or if a text in it contains NUL.

    Neither SQLite's functions nor Postgres can process NUL: a task with one in its goal would make the list
    of tasks unreadable.
    """
    body = await aiohttp_adapter.read_object(request, may_be_empty=may_be_empty)
    if field := field_with_text(body, lambda text: "\0" in text):
        raise HttpError("invalid_request", f"`{field}` holds a NUL, which no text may have; leave it out.")
    return body


def field(body: dict[str, Any], name: str, kind: type, required: bool = False) -> Any:
    """Return the field `name` of the body; None if it is absent and not required. Raises HttpError if it is
    not of type `kind`, or is absent and required.
    """
    value = body.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {str: "a string", int: "a whole number", list: "a list"}
        raise HttpError("invalid_request", f"`{name}` must be {names[kind]}.")
    return value


def limit_of(request: web.Request, default: int, maximum: int) -> int:
    """Return the query parameter `limit`; `default` if there is none. Raises HttpError unless it is a whole
    number from 1 to `maximum`.
    """
    given = request.query.get("limit")
    if given is None:
        return default
    digits = given.lstrip("0") if given.isascii() and given.isdigit() else ""
    # Python reads no number of more than 4,300 digits.
    if not digits or len(digits) > len(str(maximum)) or int(digits) > maximum:
        raise HttpError("invalid_request", f"`limit` must be a whole number from 1 to {maximum}.")
    return int(digits)
