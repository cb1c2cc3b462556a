"""GET /events: the newest events of the engine, as a long poll."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from mlx_server.gateway import errors
from mlx_server.gateway.engine_events import EngineEventBuffer
from mlx_server.gateway.json_text import JsonResponse

MAX_WAIT_S = 30.0


def router(events: EngineEventBuffer) -> APIRouter:
    routes = APIRouter()

    @routes.get("/events", responses={400: {}})
    async def follow(since: str = "0", instance: str = "", wait_s: str = "0") -> Response:
        """Return the engine's events whose number is above `since`. If there are none, wait for one, up to
        `wait_s` seconds, but at most 30; return an empty list if none comes.

        Each gateway numbers its events from 1, so a client should send, with `since`, the `instance` that
        came with the events that it has. If `instance` names another gateway, all events are returned; if it
        is missing, `since` counts as a number of this gateway. Raises BadRequest if `since` or `wait_s` is
        not a number from 0 on, and Unavailable if too many requests wait already.
        """
        seq, wait = int(_number(since, "since")), min(_number(wait_s, "wait_s"), MAX_WAIT_S)
        found = await events.after(seq if instance in ("", events.instance) else 0, wait)
        body = [
            {"ts": e.ts, "seq": e.seq, "component": e.component, "event": e.event, "cause": e.cause}
            | {"fields": dict(e.fields)}
            for e in found
        ]
        return JsonResponse({"instance": events.instance, "events": body})

    return routes


def _number(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**53:
        raise errors.BadRequest("invalid_request", f"`{name}` must be a number from 0 on, not {text[:40]!r}.")
    return number
