"""The HTTP routes of the Responses API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, WebSocket
from starlette.responses import Response

from mlx_server import protocol
from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read_body
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.error_envelopes import request_id_headers
from mlx_server.gateway.dialects.responses import DIALECT
from mlx_server.gateway.dialects.responses.compaction import compact
from mlx_server.gateway.dialects.responses.creation import Responses
from mlx_server.gateway.dialects.responses.input_items import Item
from mlx_server.gateway.dialects.responses.running import Following
from mlx_server.gateway.dialects.responses.schema import CompactBody, CreateBody
from mlx_server.gateway.dialects.responses.stored import StoredResponse
from mlx_server.gateway.dialects.responses.websocket import serve
from mlx_server.gateway.dialects.streaming import (
    SSE,
    StreamedResponse,
    cancel_on_disconnect,
)
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.json_text import JsonResponse

MOST_LISTED, LISTED = 100, 20


def router(context: GatewayContext) -> APIRouter:
    """Return all routes of the Responses API. Stored responses live as long as the router."""
    routes = APIRouter(prefix="/v1/responses")
    responses = Responses(context)

    @routes.post("", **takes(CreateBody, stream=SSE))
    async def create(http: Request) -> Response:
        return await _answer(responses, http)

    @routes.post("/compact", **takes(CompactBody))
    async def compact_conversation(http: Request) -> Response:
        body = await read_body(http, CompactBody, context.max_body_bytes)
        compacted, request_id = await compact(responses, body, http)
        return JsonResponse(compacted, headers=request_id_headers(request_id))

    @routes.post("/input_tokens", **takes(CreateBody))
    async def count_input_tokens(http: Request) -> Response:
        body = await read_body(http, CreateBody, context.max_body_bytes)
        request = await responses.count_request(body, http)
        ticket = context.submit(request, http, DIALECT, body.end_user)
        done = await cancel_on_disconnect(http, ticket, ticket.last())
        assert isinstance(done, protocol.Done)
        return JsonResponse(
            {"object": "response.input_tokens", "input_tokens": done.usage.prompt_tokens},
            headers=request_id_headers(ticket.id),
        )

    @routes.get("/{response_id}", responses={404: {}, 400: {}}, **_queries("stream", "starting_after"))
    async def retrieve(http: Request, response_id: str) -> Response:
        response = await responses.found(response_id)
        after = _whole_number(http, "starting_after", -1, least=-1)
        if http.query_params.get("stream", "").lower() in ("true", "1"):
            following = Following(response.run, after)
            return StreamedResponse(following, following.frames(), SSE)
        return JsonResponse(response.run.events.response)

    @routes.delete("/{response_id}", responses={404: {}})
    async def delete(http: Request, response_id: str) -> Response:
        response = await responses.found(response_id)
        response.run.cancel()
        responses.remove(response_id)
        return JsonResponse({"id": response_id, "object": "response", "deleted": True})

    @routes.post("/{response_id}/cancel", responses={404: {}})
    async def cancel(http: Request, response_id: str) -> Response:
        response = await responses.found(response_id)
        response.run.cancel()
        await response.run.wait_for_end()
        return JsonResponse(response.run.events.response)

    @routes.get(
        "/{response_id}/input_items",
        responses={404: {}, 400: {}},
        **_queries("after", "limit", "order"),
    )
    async def input_items(http: Request, response_id: str) -> Response:
        response = await responses.found(response_id)
        items = await asyncio.to_thread(lambda: response.input_items)  # there may be many
        return JsonResponse(_page(items, http))

    @routes.websocket("")
    async def converse(socket: WebSocket) -> None:
        await serve(responses, socket)

    return routes


async def _start(responses: Responses, http: Request) -> tuple[StoredResponse, bool, bool]:
    """Start a response. Return the response, whether it is streamed, and whether it runs in the background.

    The body, which may be large, is freed when this function returns, before the answer is generated.
    """
    body = await read_body(http, CreateBody, responses.context.max_body_bytes)
    return await responses.create(body, http), bool(body.stream), bool(body.background)


async def _answer(responses: Responses, http: Request) -> Response:
    response, is_streamed, in_background = await _start(responses, http)
    run = response.run
    if in_background and not is_streamed:
        return JsonResponse(run.events.response, headers=request_id_headers(run.id))
    following = Following(run, owns_run=not in_background)
    await cancel_on_disconnect(http, following, run.wait_for_output() if is_streamed else run.wait_for_end())
    if run.refusal:
        responses.remove(response.id)  # the client never learns the id
        raise run.refusal
    if is_streamed:
        return StreamedResponse(following, following.frames(), SSE)
    return JsonResponse(run.events.response, headers=request_id_headers(run.id))


def _page(items: Sequence[Item], http: Request) -> dict[str, Any]:
    """Return, as the body of a response, the page of `items` that the request's query parameters `order`,
    `after` and `limit` select. Raises BadRequest if one of these is wrong.
    """
    order, after = http.query_params.get("order") or "desc", http.query_params.get("after")
    limit = _whole_number(http, "limit", LISTED, least=1)
    if order not in ("asc", "desc"):
        raise BadRequest("invalid_request", "order: give `asc` or `desc`", param="order")
    listed = list(items) if order == "asc" else list(reversed(items))
    if after:
        ids = [item["id"] for item in listed]
        if after not in ids:
            message = f"after: no item of this response has the id {after[:80]!r}"
            raise BadRequest("invalid_request", message, param="after")
        listed = listed[ids.index(after) + 1 :]
    page = listed[: min(limit, MOST_LISTED)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(page) < len(listed),
    }


def _whole_number(http: Request, name: str, default: int, least: int) -> int:
    given = http.query_params.get(name)
    if not given:
        return default
    try:
        number = int(given[:20])
    except ValueError:
        number = least - 1
    if number < least:
        message = f"{name}: give a whole number from {least} on, not {given[:40]!r}"
        raise BadRequest("invalid_request", message, param=name)
    return number


def _queries(*names: str) -> dict[str, Any]:
    """Return the keyword arguments of a FastAPI route that document the query parameters called `names`."""
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names]
    return {"openapi_extra": {"parameters": parameters}}
