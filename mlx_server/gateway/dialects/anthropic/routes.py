"""Anthropic's routes: /v1/messages, and /v1/messages/count_tokens."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import prompt_tokens
from mlx_server.gateway.dialects.anthropic import DIALECT, render
from mlx_server.gateway.dialects.anthropic.schema import CountBody, MessagesBody
from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read_body
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.streaming import SSE, cancel_on_disconnect, stream_answers


def router(context: GatewayContext) -> APIRouter:
    """Return all routes of Anthropic's API."""
    routes = APIRouter(prefix="/v1")

    @routes.post("/messages", **takes(MessagesBody, stream=SSE))
    async def messages(http: Request) -> Response:
        body = await read_body(http, MessagesBody, context.max_body_bytes)
        model = (await context.installed_models.get(body.model, "generate")).name
        request = body.to_request(model, context.draw_seed())
        answers = context.generate([request], http, DIALECT, body.user)
        if body.stream:
            return await stream_answers(
                http,
                answers,
                lambda first: render.MessageEvents(answers.id, body.model, prompt_tokens(first)),
                SSE,
            )
        ((answer, done),) = await cancel_on_disconnect(http, answers, answers.whole())
        message = render.whole_message(answers.id, body.model, answer, done)
        return JSONResponse(message, headers={"request-id": answers.id})

    @routes.post("/messages/count_tokens", **takes(CountBody))
    async def count_tokens(http: Request) -> Response:
        body = await read_body(http, CountBody, context.max_body_bytes)
        request = body.to_count((await context.installed_models.get(body.model, "generate")).name)
        ticket = context.submit(request, http, DIALECT)
        done = await cancel_on_disconnect(http, ticket, ticket.last())
        assert isinstance(done, protocol.Done)
        return JSONResponse({"input_tokens": done.usage.prompt_tokens})

    return routes
