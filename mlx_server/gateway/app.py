"""The HTTP application: routes of every dialect, and one place where errors become answers."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mlx_server import VERSION
from mlx_server.gateway import engine_events, errors, health
from mlx_server.gateway.access import AccessControl
from mlx_server.gateway.dialects.anthropic import routes as anthropic_routes
from mlx_server.gateway.dialects.api_document import DocumentedApp
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.ollama import routes as ollama_routes
from mlx_server.gateway.dialects.openai import routes as openai_routes
from mlx_server.gateway.engine_process.supervisor import EngineSupervisor
from mlx_server.gateway.requests.ticket import ClientDisconnected
from mlx_server.gateway.telemetry import Telemetry

CLIENT_CLOSED_REQUEST = 499


def create_app(
    pieces: GatewayContext,
    engine: EngineSupervisor,
    telemetry: Telemetry,
    *,
    more_names: Callable[[], frozenset[str]] = frozenset,
    keyless: Callable[[], frozenset[str]] = frozenset,
) -> FastAPI:
    """`more_names` and `keyless` as in `AccessControl`."""
    app = DocumentedApp(title="Vestal MLX server", version=VERSION, docs_url=None, redoc_url=None)
    app.include_router(health.router(engine, pieces.dispatcher, telemetry))
    app.include_router(engine_events.router(telemetry.engine_events))
    app.include_router(ollama_routes.router(pieces))
    app.include_router(openai_routes.router(pieces))
    app.include_router(anthropic_routes.router(pieces))
    app.add_middleware(
        AccessControl, api_key=pieces.config.mlx.api_key, more_names=more_names, keyless=keyless
    )
    app.add_exception_handler(errors.GatewayError, _refused)
    app.add_exception_handler(ClientDisconnected, _left)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _bug)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.GatewayError)
    return errors.response(error, request.url.path)


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    refusal: errors.GatewayError
    if error.status_code == errors.MethodNotAllowed.status:
        refusal = errors.MethodNotAllowed("method_not_allowed", f"{path} does not take {method}")
    else:
        refusal = errors.NotFound("unknown_route", f"there is no {method} {path} here")
    answer = errors.response(refusal, path)
    answer.headers.update(error.headers or {})
    return answer


async def _bug(request: Request, error: Exception) -> Response:
    """Whatever was not foreseen; the server logs it with its traceback."""
    message = f"the gateway failed on this request ({type(error).__name__}); its log tells more"
    return errors.response(errors.ServerFault("internal_error", message), request.url.path)
