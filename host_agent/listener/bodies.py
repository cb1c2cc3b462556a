"""Reads the bodies of requests: JSON objects of a bounded size, in bounded time."""

import asyncio
import json
from typing import Any

from aiohttp import web

from host_agent.listener.refusals import BadRequest, NotJson, TooSlow

READ_WITHIN_S = 10.0


async def json_object(request: web.Request) -> dict[str, Any]:
    """The JSON object in the body; the Refusals 400, 408, 413 and 415 otherwise."""
    if request.content_type != "application/json":
        raise NotJson("Send Content-Type: application/json.")
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            raw = await request.read()
    except TimeoutError:
        raise TooSlow(f"The body did not arrive within {READ_WITHIN_S:.0f} s.") from None
    try:
        body = json.loads(raw, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadRequest('The body is not JSON: send an object such as {"mlx": false, "ts": 0}.') from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    return body


def check_recover(body: dict[str, Any]) -> None:
    """`ollama` and `mlx` are booleans, `ts` a number or a string; each may be absent, and others present."""
    for name in ("ollama", "mlx"):
        if not isinstance(body.get(name), bool | None):
            raise BadRequest(f"{name} must be true or false.")
    ts = body.get("ts")
    if isinstance(ts, bool) or not isinstance(ts, int | float | str | None):
        raise BadRequest("ts must be a number or a string.")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
